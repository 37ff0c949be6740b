//! What lies in a root and is not the image's.

use crate::fs::{self, RelPath};
use std::collections::BTreeSet;
use std::path::Path;

/// Paths that belong to somebody else: with all below them they are neither changed, nor looked at,
/// nor taken into a layer.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    paths: BTreeSet<RelPath>,
}

impl Guard {
    /// Adds a path as seen from the root.
    pub fn with(mut self, path: &Path) -> Guard {
        use std::os::unix::ffi::OsStrExt;
        self.paths
            .extend(RelPath::clean(path.as_os_str().as_bytes()));
        self
    }

    /// Adds everything that is mounted somewhere below the root directory.
    pub fn with_mounts(mut self) -> std::io::Result<Guard> {
        let points = fs::mountinfo::all_points()?;
        let points = points.iter().filter_map(|point| RelPath::clean(point));
        self.paths.extend(points.filter(|point| !point.is_root()));
        Ok(self)
    }

    /// Tells whether the root directory itself is kept, so that nothing can be done there.
    pub fn keeps_all(&self) -> bool {
        self.keeps(&RelPath::root())
    }

    /// Gives what is kept, in canonical order.
    pub fn paths(&self) -> impl Iterator<Item = &RelPath> {
        self.paths.iter()
    }

    /// Gives the directories above what is kept, the root directory aside.
    pub(super) fn above(&self) -> BTreeSet<RelPath> {
        let above = self.paths.iter().flat_map(RelPath::ancestors);
        above.filter(|path| !path.is_root()).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Tells whether a path is kept, or something above it.
    pub fn covers(&self, path: &RelPath) -> bool {
        self.keeps(path) || path.ancestors().any(|above| self.keeps(&above))
    }

    /// Tells whether a path is kept as it is, which says nothing of what is below.
    pub(super) fn keeps(&self, path: &RelPath) -> bool {
        !self.paths.is_empty() && self.paths.contains(path)
    }

    /// Tells whether something below a path is kept as it is, or the path itself.
    pub(super) fn keeps_below(&self, path: &RelPath) -> bool {
        let next = self.paths.range(path.clone()..).next();
        next.is_some_and(|kept| kept.is_within(path))
    }
}
