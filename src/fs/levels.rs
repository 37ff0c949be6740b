//! Directories of a tree, one at a time: what the layers have in each, without paths of the whole.

use super::tree::{Child, Level};
use super::{Content, Found, RelPath, Source, Tree};
use std::sync::Arc;

/// A directory as the layers of a tree have it; nothing for one that no layer has.
#[derive(Clone, Default)]
pub struct Levels {
    /// The parts, top first.
    parts: Box<[Level]>,
    /// How long the directory's path is in the layers' tables.
    len: usize,
}

/// One name in a directory of a tree.
pub struct Below {
    /// What is there.
    pub found: Found,
    /// The index of its entry in the table of its layer.
    pub entry: usize,
    /// Where it is a directory, what is in it.
    pub levels: Levels,
}

impl Levels {
    /// Tells whether no layer has anything there.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

impl Tree {
    /// Gives the root directory.
    pub fn top(&self) -> Levels {
        Levels {
            parts: self.levels(&RelPath::root()).into(),
            len: 0,
        }
    }

    /// Lists a directory in order of names.
    pub fn list_levels(&self, dir: &Levels) -> Vec<(Vec<u8>, Below)> {
        self.list(&dir.parts, dir.len)
            .into_iter()
            .map(|(name, child)| (name.to_vec(), below(child, dir.len, name)))
            .collect()
    }

    /// Looks one name in a directory up, by a binary search in each layer.
    pub fn pick(&self, dir: &Levels, name: &[u8]) -> Option<Below> {
        if !RelPath::is_name(name) {
            return None;
        }
        let child = self.pick_child(&dir.parts, dir.len, name)?;
        Some(below(child, dir.len, name))
    }

    /// Gives where the content of a file lies, by its layer and the index of its entry there.
    pub fn source_of(&self, layer: usize, entry: usize) -> Option<Source> {
        let view = self.layers().get(layer)?;
        let path = RelPath::checked(view.toc.path(entry))?;
        let first = || match view.toc.node(entry)? {
            super::Node::Put { link, .. } => link,
            _ => None,
        };
        match &view.content {
            Content::Dir(dir) => Some(Source::File {
                dir: Arc::clone(dir),
                path,
            }),
            Content::Each(sources) => match sources.get(&path) {
                Some(source) => Some(source.clone()),
                None => sources.get(&first()?).cloned(),
            },
            Content::Of(sources) => sources(&path).or_else(|| sources(&first()?)),
        }
    }
}

fn below(child: Child, dir_len: usize, name: &[u8]) -> Below {
    let slash = usize::from(dir_len > 0);
    Below {
        found: child.found,
        entry: child.entry,
        levels: Levels {
            parts: child.levels.into(),
            len: dir_len + slash + name.len(),
        },
    }
}
