use super::links::{Item, What, tie, untie};
use super::{Changeset, Error, State};
use crate::fs::{Kind, RelPath};
use std::collections::BTreeMap;
use std::ops::Bound;

impl Changeset {
    /// Adds a later changeset, for one layer over several steps: the later one wins.
    ///
    /// A directory that is made again after it, or something else in its place, was taken away
    /// becomes opaque, so the result is to be settled against the tree below the first of them.
    /// Names of a hard-linked file that the later changeset leaves alone keep the earlier content.
    pub fn merge(self, later: Changeset) -> Result<Changeset, Error> {
        let state = match (self.state, later.state) {
            (State::Frozen, State::Frozen) => State::Frozen,
            _ => State::Live,
        };
        let mut groups = 0;
        let mut all: BTreeMap<RelPath, What> = untie(self.changes, &mut groups)?
            .into_iter()
            .map(|item| (item.path, item.what))
            .collect();
        let mut later = untie(later.changes, &mut groups)?;
        later.sort_by(|a, b| a.path.cmp(&b.path));
        for Item { path, what } in later {
            let is_plain_dir = matches!(&what, What::Put { meta, .. } if meta.kind == Kind::Dir);
            let what = match what {
                What::Put { meta, .. } if is_plain_dir => match all.get(&path) {
                    Some(What::Put { meta: old, .. }) if old.kind == Kind::Dir => plain(meta),
                    Some(_) => What::Opaque(meta),
                    None => plain(meta),
                },
                what => {
                    drop_below(&mut all, &path);
                    what
                }
            };
            all.insert(path, what);
        }
        let items = all
            .into_iter()
            .map(|(path, what)| Item { path, what })
            .collect();
        Ok(Changeset {
            changes: tie(items),
            state,
        })
    }
}

fn plain(meta: crate::fs::Meta) -> What {
    What::Put {
        meta,
        source: None,
        group: None,
    }
}

/// Takes out everything below a path; a subtree is contiguous.
fn drop_below(all: &mut BTreeMap<RelPath, What>, path: &RelPath) {
    let bounds = (Bound::Excluded(path.clone()), Bound::Unbounded);
    let below: Vec<RelPath> = all
        .range(bounds)
        .map(|(other, _)| other)
        .take_while(|other| other.is_within(path))
        .cloned()
        .collect();
    for other in below {
        all.remove(&other);
    }
}
