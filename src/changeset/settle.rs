use super::compare::{same_content, same_meta};
use super::links::{Item, What, tie, untie};
use super::{Changeset, Error};
use crate::fs::{Kind, RelPath, Tree};
use rayon::prelude::*;

impl Changeset {
    /// Leaves out some paths. Of a hard-linked file the first name that is left becomes the file.
    pub fn without(self, left_out: &dyn Fn(&RelPath) -> bool) -> Result<Changeset, Error> {
        let mut items = untie(self.changes, &mut 0)?;
        items.retain(|item| !left_out(&item.path));
        items.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Changeset {
            changes: tie(items),
            state: self.state,
        })
    }

    /// Makes what was tracked exact: sorts, writes opaque directories out as deletions, drops what
    /// equals the tree (metadata with times, content by BLAKE3, taken in parallel on the rayon
    /// pool), drops deletions of what was not there, and adds the directories above each change
    /// as the tree or the changeset has them.
    ///
    /// Times are equal where their seconds are and one of them has no nanoseconds. A directory of
    /// which only the time changed is not a change, but stands with its new time where something
    /// below it is one: unpackers make a directory they are not told of with a mode of their own,
    /// and `/tmp` would lose its sticky bit. The root is in only where it changed itself. A name of
    /// a hard-linked file that equals the tree is dropped like any other; the first of those left
    /// is the file.
    pub fn settle(self, tree: &Tree) -> Result<Changeset, Error> {
        let state = self.state;
        let mut items = untie(self.changes, &mut 0)?;
        items.sort_by(|a, b| a.path.cmp(&b.path));
        items.dedup_by(|b, a| a.path == b.path);
        drop_hidden(&mut items);
        let items = write_out_opaque(items, tree);

        let verdicts: Vec<Verdict> = if is_small(&items) {
            let verdicts = items.iter().map(|item| judge(item, tree));
            verdicts.collect::<Result<_, _>>()?
        } else {
            let verdicts = items.par_iter().with_min_len(8);
            let verdicts = verdicts.map(|item| judge(item, tree));
            verdicts.collect::<Result<_, _>>()?
        };
        Ok(Changeset {
            changes: tie(with_parents(items, verdicts, tree)),
            state,
        })
    }
}

/// Tells whether waking other threads would take longer than the work.
fn is_small(items: &[Item]) -> bool {
    let bytes = |item: &Item| match &item.what {
        What::Put { meta, .. } => meta.size,
        _ => 0,
    };
    items.len() <= 32 && items.iter().map(bytes).fold(0, u64::saturating_add) <= 1 << 20
}

/// What is to become of a change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is one.
    Keep,
    /// It equals the tree.
    Drop,
}

/// Drops what stands below a deletion or below anything but a directory, and a deletion of the root.
fn drop_hidden(items: &mut Vec<Item>) {
    let mut cover: Option<RelPath> = None;
    items.retain(|item| {
        if matches!(item.what, What::Delete) && item.path.is_root() {
            return false;
        }
        if cover
            .as_ref()
            .is_some_and(|cover| item.path.is_within(cover))
        {
            return false;
        }
        if !item.is_dir() {
            cover = Some(item.path.clone());
        }
        true
    });
}

/// Turns opaque directories into plain ones and deletions of what the tree has in them and the
/// changeset has not. The items are in order, and are so again.
fn write_out_opaque(mut items: Vec<Item>, tree: &Tree) -> Vec<Item> {
    let mut deletions = Vec::new();
    let mut done: Option<RelPath> = None;
    for item in &items {
        if !matches!(item.what, What::Opaque(_)) {
            continue;
        }
        // What is below an opaque directory has been looked at with it.
        if done.as_ref().is_some_and(|done| item.path.is_within(done)) {
            continue;
        }
        delete_children(&item.path, &items, tree, &mut deletions);
        done = Some(item.path.clone());
    }
    for item in &mut items {
        if let What::Opaque(meta) = &item.what {
            item.what = What::Put {
                meta: meta.clone(),
                source: None,
                group: None,
            };
        }
    }
    if !deletions.is_empty() {
        items.extend(deletions);
        items.sort_by(|a, b| a.path.cmp(&b.path));
    }
    items
}

fn delete_children(dir: &RelPath, items: &[Item], tree: &Tree, deletions: &mut Vec<Item>) {
    let mut dirs = vec![dir.clone()];
    while let Some(dir) = dirs.pop() {
        for (name, found) in tree.children(&dir) {
            let path = dir.join(&name);
            let at = items.binary_search_by(|item| item.path.cmp(&path));
            match at.ok().and_then(|at| items.get(at)) {
                None => deletions.push(Item {
                    path,
                    what: What::Delete,
                }),
                Some(item) if item.is_dir() && found.meta.kind == Kind::Dir => dirs.push(path),
                Some(_) => {}
            }
        }
    }
}

fn judge(item: &Item, tree: &Tree) -> Result<Verdict, Error> {
    let found = tree.get(&item.path);
    let same = match (&item.what, &found) {
        (What::Delete, found) => found.is_none(),
        (What::Put { .. } | What::Opaque(_), None) => false,
        (What::Opaque(meta), Some(found)) => same_meta(meta, &found.meta),
        (What::Put { meta, source, .. }, Some(found)) => {
            same_meta(meta, &found.meta)
                && match source {
                    Some(source) if meta.kind == Kind::File => {
                        same_content(&item.path, source, found, tree)?
                    }
                    _ => true,
                }
        }
    };
    Ok(if same { Verdict::Drop } else { Verdict::Keep })
}

/// Keeps the changes and the directories above them: where the changeset has one, its own; else the
/// tree's. The root is nobody's parent here.
fn with_parents(items: Vec<Item>, mut verdicts: Vec<Verdict>, tree: &Tree) -> Vec<Item> {
    let mut from_tree: Vec<Item> = Vec::new();
    let mut last: Option<RelPath> = None;
    for at in 0..items.len() {
        let (Some(item), Some(Verdict::Keep)) = (items.get(at), verdicts.get(at)) else {
            continue;
        };
        let parent = item.path.parent();
        if parent == last {
            continue;
        }
        for dir in item.path.ancestors().filter(|dir| !dir.is_root()) {
            // All above the directory of the change before has been added with that one.
            if last.as_ref().is_some_and(|last| last.is_within(&dir)) {
                break;
            }
            match items.binary_search_by(|other| other.path.cmp(&dir)) {
                Ok(above) => {
                    if let Some(verdict) = verdicts.get_mut(above) {
                        *verdict = Verdict::Keep;
                    }
                }
                Err(_) => {
                    let found = tree.get(&dir).filter(|found| found.meta.kind == Kind::Dir);
                    if let Some(found) = found {
                        from_tree.push(Item {
                            path: dir,
                            what: What::Put {
                                meta: found.meta,
                                source: None,
                                group: None,
                            },
                        });
                    }
                }
            }
        }
        last = parent;
    }
    let mut kept: Vec<Item> = items
        .into_iter()
        .zip(verdicts)
        .filter_map(|(item, verdict)| (verdict == Verdict::Keep).then_some(item))
        .collect();
    if !from_tree.is_empty() {
        kept.extend(from_tree);
        kept.sort_by(|a, b| a.path.cmp(&b.path));
    }
    kept
}
