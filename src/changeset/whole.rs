use super::{Action, Change};
use crate::fs::{Found, RelPath, Time, Tree};
use std::collections::HashMap;

/// Gives all of a tree as changes, in canonical order and without the root itself: what a layer on
/// top of nothing would have. `time` says when a file was last modified.
///
/// Names of one file stay names of one file, also where a layer above has taken the first of them
/// away.
pub fn whole(tree: &Tree, time: &dyn Fn(&Found) -> Time) -> Vec<Change> {
    let mut out = Vec::new();
    // By layer and the first name that layer knows: the first name that is still there.
    let mut heads: HashMap<(usize, RelPath), RelPath> = HashMap::new();
    tree.walk(&RelPath::root(), &mut |path, found| {
        if path.is_root() {
            return;
        }
        let first = match &found.link {
            None => match heads.is_empty() {
                true => None,
                // Its further names may sort before it.
                false => heads.get(&(found.layer, path.clone())).cloned(),
            },
            Some(first) => {
                let stands = first < path
                    && tree
                        .get(first)
                        .is_some_and(|it| it.layer == found.layer && it.link.is_none());
                if stands {
                    Some(first.clone())
                } else {
                    let key = (found.layer, first.clone());
                    let head = heads.get(&key).cloned();
                    if head.is_none() {
                        heads.insert(key, path.clone());
                    }
                    head
                }
            }
        };
        let mut meta = found.meta.clone();
        meta.mtime = time(found);
        let source = match first {
            None => tree.source(path),
            Some(_) => None,
        };
        out.push(Change {
            path: path.clone(),
            action: Action::Put {
                meta,
                source,
                link: first,
            },
        });
    });
    out
}
