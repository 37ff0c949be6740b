//! What a step changed: ordering, merging, comparing with a tree, putting into a directory, and the
//! slow full walk.

mod compare;
mod hash;
mod links;
mod merge;
mod owners;
mod place;
mod settle;
#[cfg(test)]
mod tests;
mod view;
mod walk;
mod whole;

pub use compare::hash as content_hash;
pub use hash::Identify;
pub use place::place;
pub use view::content_size;
pub use walk::full_walk;
pub use whole::whole;

use crate::fs::{Meta, RelPath, Source};

/// What a step changed, in canonical order of paths, one change a path.
///
/// A deletion of a path stands for everything below it. A put of anything but a directory over a
/// directory removes what was below, and so does a put of a directory over anything else. No
/// opaque directory is left in one: `settle` writes it out as deletions, so that every way of
/// tracking gives the same changeset.
#[derive(Clone, Debug, Default)]
pub struct Changeset {
    /// The changes.
    pub changes: Vec<Change>,
    /// Whether the content may be read at leisure.
    pub state: State,
}

/// Whether somebody may still write to the files whose content a changeset names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nobody writes there again.
    #[default]
    Frozen,
    /// It must be read before the next step starts.
    Live,
}

/// One path that changed.
#[derive(Clone, Debug)]
pub struct Change {
    /// The path.
    pub path: RelPath,
    /// What happened to it.
    pub action: Action,
}

/// What happened to a path.
#[derive(Clone, Debug)]
pub enum Action {
    /// It is there now, like this.
    Put {
        /// Its metadata.
        meta: Meta,
        /// Content of a regular file; `None` for everything else and for a hard link.
        source: Option<Source>,
        /// Where it is one more name of a file put by the same changeset: the first name.
        link: Option<RelPath>,
    },
    /// It is a directory that hides everything below; only before `settle`.
    Opaque(Meta),
    /// It is gone.
    Delete,
}

/// Why a changeset could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what, as seen from the root.
        path: RelPath,
        /// Why not.
        source: std::io::Error,
    },
    /// A hard link names a file that the same changeset does not put.
    #[error("hard link {path} to {target}, which is not put with it")]
    Dangling {
        /// The link.
        path: RelPath,
        /// What it names.
        target: RelPath,
    },
}

impl Changeset {
    /// Tells whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Looks up what happened to a path, in a changeset that is sorted.
    pub fn get(&self, path: &RelPath) -> Option<&Action> {
        let at = self
            .changes
            .binary_search_by(|change| change.path.cmp(path))
            .ok()?;
        self.changes.get(at).map(|change| &change.action)
    }
}
