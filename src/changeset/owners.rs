//! Owners that do not exist where a command runs.

use super::{Action, Changeset};
use crate::fs::{Ids, Meta, RelPath, Tree};
use std::collections::HashMap;

impl Changeset {
    /// Gives files back to the owners that a tree knows and the builder's user namespace does not have:
    /// there such a file is root's, whatever a command did to it. Where every id exists nothing is
    /// changed.
    ///
    /// A command that gave such a file to root on purpose cannot be told from one that did not.
    pub fn with_owners_of(mut self, tree: &Tree, ids: &Ids) -> Changeset {
        if ids.hold_all() {
            return self;
        }
        // By the first name of hard links, which may be one that the tree does not have.
        let mut firsts: HashMap<RelPath, (u32, u32)> = HashMap::new();
        for change in &mut self.changes {
            match &mut change.action {
                Action::Put {
                    meta,
                    link: Some(first),
                    ..
                } => {
                    if let Some((uid, gid)) = firsts.get(first) {
                        (meta.uid, meta.gid) = (*uid, *gid);
                    }
                }
                Action::Put { meta, .. } | Action::Opaque(meta) => {
                    restore(meta, &change.path, tree, ids);
                    firsts.insert(change.path.clone(), (meta.uid, meta.gid));
                }
                Action::Delete => {}
            }
        }
        self
    }
}

fn restore(meta: &mut Meta, path: &RelPath, tree: &Tree, ids: &Ids) {
    if meta.uid != 0 && meta.gid != 0 {
        return;
    }
    let Some(found) = tree.get(path).filter(|found| found.meta.kind == meta.kind) else {
        return;
    };
    if meta.uid == 0 && !ids.holds_user(found.meta.uid) {
        meta.uid = found.meta.uid;
    }
    if meta.gid == 0 && !ids.holds_group(found.meta.gid) {
        meta.gid = found.meta.gid;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changeset::Change;
    use crate::fs::{Content, Kind, LayerView, Node, Range, Time, Toc, TocEntry};
    use std::sync::Arc;

    fn owned(kind: Kind, uid: u32, gid: u32) -> Meta {
        Meta {
            kind,
            uid,
            gid,
            ..Meta::file(0o644, 0, Time::default())
        }
    }

    fn path(text: &str) -> RelPath {
        RelPath::checked(text.as_bytes()).unwrap()
    }

    #[test]
    fn files_keep_owners_that_are_not_here() {
        let one = Range {
            first: 0,
            outside: 7,
            count: 1,
        };
        let ids = Ids {
            users: vec![one],
            groups: vec![one, Range { first: 5, ..one }],
        };
        let there = [("a", 33, 44), ("b", 0, 44), ("c", 33, 5), ("d", 33, 33)];
        let entries = there.map(|(name, uid, gid)| TocEntry {
            path: path(name),
            node: Node::Put {
                meta: owned(Kind::File, uid, gid),
                content: None,
                link: None,
            },
        });
        let mut tree = Tree::default();
        tree.push(Arc::new(LayerView {
            toc: Toc::new(entries.to_vec()),
            content: Content::Each(HashMap::new()),
        }));
        let table = [
            ("a", Kind::File, None, (0, 0), (33, 44)),
            ("b", Kind::File, None, (0, 5), (0, 5)),
            ("c", Kind::File, None, (0, 0), (33, 0)),
            ("d", Kind::Dir, None, (0, 0), (0, 0)),
            ("new", Kind::File, None, (0, 0), (0, 0)),
            ("link", Kind::File, Some("a"), (0, 0), (33, 44)),
        ];
        let changes = table.map(|(name, kind, link, (uid, gid), _)| Change {
            path: path(name),
            action: Action::Put {
                meta: owned(kind, uid, gid),
                source: None,
                link: link.map(path),
            },
        });
        let changeset = Changeset {
            changes: changes.to_vec(),
            ..Changeset::default()
        };
        let got = changeset.with_owners_of(&tree, &ids);
        for (change, (name, _, _, _, owner)) in got.changes.iter().zip(table) {
            let Action::Put { meta, .. } = &change.action else {
                unreachable!()
            };
            assert_eq!((meta.uid, meta.gid), owner, "{name}");
        }
    }
}
