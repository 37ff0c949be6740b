use super::{Action, Change, Error};
use crate::fs::{Firsts, Kind, Meta, RelPath, Source};
use std::collections::HashMap;

/// A change that needs no other one to be understood: every name of a hard-linked file carries the
/// file's metadata and content, and the number of its group.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub path: RelPath,
    pub what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Put {
        meta: Meta,
        source: Option<Source>,
        group: Option<Group>,
    },
    Opaque(Meta),
    Delete,
}

/// A set of hard links, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Group(usize);

impl Item {
    pub fn is_dir(&self) -> bool {
        match &self.what {
            What::Put { meta, .. } => meta.kind == Kind::Dir,
            What::Opaque(_) => true,
            What::Delete => false,
        }
    }
}

/// A file by what its first name says of it.
struct Head {
    meta: Meta,
    source: Option<Source>,
    group: Group,
}

/// Makes every name of a hard-linked file stand for itself. Group numbers start at `next`, which is
/// left behind the last one given out. A link to a link is followed.
pub(super) fn untie(changes: Vec<Change>, next: &mut usize) -> Result<Vec<Item>, Error> {
    let heads = heads(&changes, next)?;
    let mut items = Vec::with_capacity(changes.len());
    for Change { path, action } in changes {
        let what = match action {
            Action::Delete => What::Delete,
            Action::Opaque(meta) => What::Opaque(meta),
            Action::Put {
                link: None,
                meta,
                source,
            } => {
                let group = heads.get(&path).map(|head| head.group);
                What::Put {
                    meta,
                    source,
                    group,
                }
            }
            Action::Put {
                link: Some(target), ..
            } => {
                let head = heads.get(&target).ok_or_else(|| dangling(&path, &target))?;
                What::Put {
                    meta: head.meta.clone(),
                    source: head.source.as_ref().map(|source| source.by(&path)),
                    group: Some(head.group),
                }
            }
        };
        items.push(Item { path, what });
    }
    Ok(items)
}

/// Finds the file behind every name that a link names.
fn heads(changes: &[Change], next: &mut usize) -> Result<HashMap<RelPath, Head>, Error> {
    let targets: Vec<(&RelPath, &RelPath)> = changes
        .iter()
        .filter_map(|change| match &change.action {
            Action::Put {
                link: Some(target), ..
            } => Some((&change.path, target)),
            _ => None,
        })
        .collect();
    let mut heads = HashMap::new();
    if targets.is_empty() {
        return Ok(heads);
    }
    let links: HashMap<&RelPath, &RelPath> = targets.iter().copied().collect();
    let files: HashMap<&RelPath, (&Meta, &Option<Source>)> = changes
        .iter()
        .filter_map(|change| match &change.action {
            Action::Put {
                meta,
                source,
                link: None,
            } => Some((&change.path, (meta, source))),
            _ => None,
        })
        .collect();
    let mut groups: HashMap<&RelPath, Group> = HashMap::new();
    for (path, target) in targets {
        if heads.contains_key(target) {
            continue;
        }
        let mut file = target;
        // No chain is longer than there are links; a circle ends here and dangles.
        for _ in 0..links.len() {
            match links.get(file) {
                Some(further) => file = further,
                None => break,
            }
        }
        let (meta, source) = files.get(file).ok_or_else(|| dangling(path, target))?;
        let group = *groups.entry(file).or_insert_with(|| {
            *next += 1;
            Group(*next)
        });
        for name in [target, file] {
            heads.entry(name.clone()).or_insert_with(|| Head {
                meta: (*meta).clone(),
                source: (*source).clone(),
                group,
            });
        }
    }
    Ok(heads)
}

fn dangling(path: &RelPath, target: &RelPath) -> Error {
    Error::Dangling {
        path: path.clone(),
        target: target.clone(),
    }
}

/// Ties the names of hard-linked files together again: the first one in order is the file, whatever
/// was first before. The items are in canonical order.
pub(super) fn tie(items: Vec<Item>) -> Vec<Change> {
    let mut firsts = Firsts::default();
    items
        .into_iter()
        .map(|Item { path, what }| {
            let action = match what {
                What::Delete => Action::Delete,
                What::Opaque(meta) => Action::Opaque(meta),
                What::Put {
                    meta,
                    source,
                    group,
                } => {
                    let link = group.and_then(|group| firsts.tie(group, &path));
                    Action::Put {
                        meta,
                        source: source.filter(|_| link.is_none()),
                        link,
                    }
                }
            };
            Change { path, action }
        })
        .collect()
}
