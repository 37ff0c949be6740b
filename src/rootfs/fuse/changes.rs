//! What a step has changed, read off the table.

use super::content::{Files, below};
use super::node::{Body, Content, Ino, Node, ROOT};
use super::table::Table;
use crate::changeset::{Action, Change};
use crate::fs::{Firsts, Kind, Meta, RelPath, Source, is_kept};
use rustix::io::Errno;

/// Gives what has changed, in canonical order: a superset. `top` is what the root directory was.
pub(super) fn changes(files: &Files, table: &mut Table, top: &Meta) -> Result<Vec<Change>, Errno> {
    let mut found = Found {
        files,
        firsts: Firsts::default(),
        changes: Vec::new(),
    };
    let root = meta(table.node(ROOT)?);
    // The time of the root changes with whatever is made in it and says nothing by itself.
    let with_old_time = Meta {
        mtime: top.mtime,
        ..root.clone()
    };
    if with_old_time != *top {
        found.changes.push(Change {
            path: RelPath::root(),
            action: Action::Put {
                meta: root,
                source: None,
                link: None,
            },
        });
    }
    found.walk(table)?;
    Ok(found.changes)
}

struct Found<'a> {
    files: &'a Files,
    /// The first names of hard links, by the number they show.
    firsts: Firsts<Ino>,
    changes: Vec<Change>,
}

/// Whether a directory is where the layers have it, or all in it is new at its place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Old,
    New,
}

impl Found<'_> {
    fn walk(&mut self, table: &mut Table) -> Result<(), Errno> {
        // A stack of its own: how deep a command nests is not for it to decide.
        let mut stack = vec![(
            RelPath::root(),
            ROOT,
            Place::Old,
            names(table, ROOT)?.into_iter(),
        )];
        while let Some((dir, _, place, rest)) = stack.last_mut() {
            let Some((name, ino, new)) = rest.next() else {
                stack.pop();
                continue;
            };
            let path = dir.join(&name);
            let place = *place;
            let Some(ino) = ino else {
                if place == Place::Old {
                    self.push(path, Action::Delete);
                }
                continue;
            };
            let place = if new { Place::New } else { place };
            let node = table.node(ino)?;
            let is_dir = node.is_dir();
            let stirred = node.dir().is_some_and(|dir| dir.stirred);
            let deeper = is_dir && (place == Place::New || stirred);
            // A directory above a change is told of as it is here: what the tree knows of it may be
            // older, since a new time alone is no change.
            if place == Place::New || node.touched || stirred {
                let action = self.action(table, ino, &path, new)?;
                self.push(path.clone(), action);
            }
            if deeper {
                if place == Place::New {
                    table.list(ino)?;
                }
                stack.push((path, ino, place, names(table, ino)?.into_iter()));
            }
        }
        Ok(())
    }

    fn push(&mut self, path: RelPath, action: Action) {
        self.changes.push(Change { path, action });
    }

    fn action(
        &mut self,
        table: &mut Table,
        ino: Ino,
        path: &RelPath,
        new: bool,
    ) -> Result<Action, Errno> {
        let node = table.node_mut(ino)?;
        if node.open.as_ref().is_some_and(|open| open.writers > 0) {
            self.files.refresh(node);
        }
        let node = table.node(ino)?;
        let meta = meta(node);
        match node.body {
            // No image keeps a socket, but what was in its place is gone.
            Body::Socket => return Ok(Action::Delete),
            Body::Dir(_) => {
                return Ok(match new {
                    true => Action::Opaque(meta),
                    false => Action::Put {
                        meta,
                        source: None,
                        link: None,
                    },
                });
            }
            _ => {}
        }
        let linked = match node.group {
            Some(group) => Some(group.shown),
            None => (node.names > 1).then_some(ino),
        };
        let link = linked.and_then(|shown| self.firsts.tie(shown, path));
        let source = match (&link, node.content()) {
            (None, Some(content)) => Some(self.source(table, content)?),
            _ => None,
        };
        Ok(Action::Put { meta, source, link })
    }

    fn source(&self, table: &Table, content: Content) -> Result<Source, Errno> {
        match content {
            Content::Own(number) => self.files.upper()?.source(number).ok_or(Errno::IO),
            Content::Below { layer, entry } => below(&table.base, layer, entry),
        }
    }
}

type Names = Vec<(Box<[u8]>, Option<Ino>, bool)>;

fn names(table: &Table, dir: Ino) -> Result<Names, Errno> {
    let names = table.dir(dir)?.names.iter();
    Ok(names
        .map(|(name, to)| (name.clone(), to.ino, to.new))
        .collect())
}

/// Gives what an image keeps of a node.
fn meta(node: &Node) -> Meta {
    let mut meta = node.meta.clone();
    meta.xattrs.retain(|(name, _)| is_kept(name));
    if meta.kind != Kind::File {
        meta.size = 0;
    }
    meta
}
