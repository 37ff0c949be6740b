//! Directories of a root that its image does not have.

use super::Guard;
use crate::changeset::{Action, Change};
use crate::fs::{Kind, RelPath, Tree};
use std::collections::BTreeMap;

/// Directories that are in the root only because something that is kept lies in them.
#[derive(Debug, Default)]
pub(super) struct Borrowed(BTreeMap<RelPath, Instead>);

/// What the image has in the place of such a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instead {
    Nothing,
    /// A file or a symbolic link, which the directory hides.
    Other,
}

impl Borrowed {
    /// Finds those of a root that was filled with a tree.
    pub(super) fn of(guard: &Guard, tree: &Tree) -> Borrowed {
        let all = guard.above().into_iter().filter_map(|path| {
            let instead = match tree.get(&path).map(|found| found.meta.kind) {
                Some(Kind::Dir) => return None,
                Some(_) => Instead::Other,
                None => Instead::Nothing,
            };
            Some((path, instead))
        });
        Borrowed(all.collect())
    }

    /// Gives those that hide something else of the image.
    pub(super) fn hiding(&self) -> impl Iterator<Item = &RelPath> {
        let all = self.0.iter();
        all.filter_map(|(path, instead)| (*instead == Instead::Other).then_some(path))
    }

    /// Leaves them out of what a step changed, unless it put something in them: then they are the
    /// image's from there on. What is in the place of another kind of file cannot be.
    pub(super) fn leave_out(&mut self, changes: &mut Vec<Change>) {
        let hidden = |path: &RelPath| {
            let mut hides = self
                .0
                .iter()
                .filter(|(_, instead)| **instead == Instead::Other);
            hides.any(|(dir, _)| path.is_within(dir))
        };
        changes.retain(|change| !hidden(&change.path));
        // From below, so that what is left out does not make its own directory the image's.
        let empty: Vec<RelPath> = self.0.keys().rev().cloned().collect();
        for dir in empty {
            let is_filled = changes
                .iter()
                .any(|change| change.path != dir && change.path.is_within(&dir));
            match is_filled {
                true => drop(self.0.remove(&dir)),
                false => changes.retain(|change| change.path != dir),
            }
        }
    }

    /// Takes note of what was put into the root otherwise.
    pub(super) fn take(&mut self, changes: &[Change]) {
        self.0.retain(|dir, _| {
            !changes.iter().any(|change| {
                let is_dir = matches!(&change.action,
                    Action::Put { meta, .. } if meta.kind == Kind::Dir);
                is_dir && change.path == *dir
            })
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{Content, LayerView, Meta, Node, Toc, TocEntry};
    use std::os::fd::OwnedFd;
    use std::path::Path;
    use std::sync::Arc;

    fn path(text: &str) -> RelPath {
        RelPath::clean(text.as_bytes()).unwrap()
    }

    fn put(at: &str) -> Change {
        let mut meta = Meta::dir(0o755, Default::default());
        if at.contains("file") {
            meta.kind = Kind::File;
        }
        Change {
            path: path(at),
            action: Action::Put {
                meta,
                source: None,
                link: None,
            },
        }
    }

    fn borrowed() -> Borrowed {
        let entry = |at: &str, kind| {
            let mut meta = Meta::dir(0o755, Default::default());
            meta.kind = kind;
            TocEntry {
                path: path(at),
                node: Node::Put {
                    meta,
                    content: None,
                    link: None,
                },
            }
        };
        let entries = vec![
            entry("etc", Kind::Dir),
            entry("var", Kind::Dir),
            entry("var/run", Kind::Symlink),
        ];
        let dir: OwnedFd = std::fs::File::open("/").unwrap().into();
        let mut tree = Tree::default();
        tree.push(Arc::new(LayerView {
            toc: Toc::new(entries),
            content: Content::Dir(Arc::new(dir)),
        }));
        let kept = ["/etc/hosts", "/var/run/secrets", "/run/a/secrets", "/top"];
        let guard = kept
            .iter()
            .fold(Guard::default(), |guard, kept| guard.with(Path::new(kept)));
        Borrowed::of(&guard, &tree)
    }

    #[test]
    fn only_what_was_put_into_them_makes_them_the_images() {
        // What a step changed, and what of it is the image's.
        let table: &[(&[&str], &[&str])] = &[
            (&["etc"], &["etc"]),
            (&["run"], &[]),
            (&["run", "run/a"], &[]),
            (&["run", "run/file"], &["run", "run/file"]),
            (&["run", "run/a", "run/file"], &["run", "run/file"]),
            (
                &["run", "run/a", "run/a/file"],
                &["run", "run/a", "run/a/file"],
            ),
            (&["var", "var/run"], &["var"]),
            (&["var", "var/run", "var/run/file"], &["var"]),
            (&["runs", "runs/file"], &["runs", "runs/file"]),
        ];
        for (changed, wanted) in table {
            let mut changes: Vec<Change> = changed.iter().map(|at| put(at)).collect();
            borrowed().leave_out(&mut changes);
            let left: Vec<RelPath> = changes.into_iter().map(|change| change.path).collect();
            let wanted: Vec<RelPath> = wanted.iter().map(|at| path(at)).collect();
            assert_eq!(left, wanted, "{changed:?}");
        }
    }

    #[test]
    fn what_has_become_the_images_stays_it() {
        let left = |borrowed: &mut Borrowed, changed: &str| {
            let mut changes = vec![put(changed)];
            borrowed.leave_out(&mut changes);
            changes.len()
        };
        let mut copied = borrowed();
        assert_eq!(left(&mut copied, "run"), 0);
        copied.take(&[put("run"), put("run/a/file")]);
        assert_eq!(left(&mut copied, "run"), 1);
        assert_eq!(left(&mut copied, "run/a"), 0);
        let mut written = borrowed();
        assert_eq!(left(&mut written, "run/file"), 1);
        assert_eq!(left(&mut written, "run"), 1);
    }
}
