use super::toc::ContentId;
use super::{Meta, RelPath, Source, Toc};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// One layer as a tree sees it: its table of contents and where its files' content lies.
pub struct LayerView {
    /// The table.
    pub toc: Toc,
    /// Where the content is.
    pub content: Content,
}

/// Where the content of a layer's files lies.
pub enum Content {
    /// Beneath a directory, each file at its own path.
    Dir(Arc<OwnedFd>),
    /// One source a path, for a layer that has no directory of its own.
    Each(std::collections::HashMap<RelPath, Source>),
}

/// The whole file system of an image as an index: layers one over the other, without a mount.
///
/// Cheap to clone. Whiteouts and opaque directories are taken into account everywhere.
#[derive(Clone, Default)]
pub struct Tree {
    layers: Vec<Arc<LayerView>>,
}

/// What a tree has at a path.
#[derive(Clone, Debug)]
pub struct Found {
    /// The metadata.
    pub meta: Meta,
    /// The content's BLAKE3, where it has been taken.
    pub content: Option<ContentId>,
    /// The first name in the same layer, where this one is a hard link.
    pub link: Option<RelPath>,
    /// The layer it comes from, 0 at the bottom.
    pub layer: usize,
}

impl Tree {
    /// Puts one more layer on top.
    pub fn push(&mut self, layer: Arc<LayerView>) {
        self.layers.push(layer);
    }

    /// Gives the layers, bottom first.
    pub fn layers(&self) -> &[Arc<LayerView>] {
        &self.layers
    }

    /// Looks a path up; symbolic links are not followed, also not on the way. The root is always there.
    pub fn get(&self, path: &RelPath) -> Option<Found> {
        let _ = path;
        todo!()
    }

    /// Follows symbolic links inside the root, on the way and at the end (`last_link` says whether
    /// at the end too); what does not exist stays as written. Gives up after 40 links.
    pub fn resolve(&self, path: &RelPath, last_link: LastLink) -> io::Result<RelPath> {
        let _ = (path, last_link);
        todo!()
    }

    /// Lists a directory in order of names; nothing where it is no directory.
    pub fn children(&self, dir: &RelPath) -> Vec<(Vec<u8>, Found)> {
        let _ = dir;
        todo!()
    }

    /// Visits a path and everything below it in canonical order.
    pub fn walk(&self, top: &RelPath, visit: &mut dyn FnMut(&RelPath, &Found)) {
        let _ = (top, visit);
        todo!()
    }

    /// Gives where the content of a regular file can be read.
    pub fn source(&self, path: &RelPath) -> Option<Source> {
        let _ = path;
        todo!()
    }

    /// Reads a small file, following links; `None` where there is none. An error above `limit` bytes.
    pub fn read(&self, path: &RelPath, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let _ = (path, limit);
        todo!()
    }
}

/// What `resolve` does with a symbolic link at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastLink {
    /// Follow it.
    Follow,
    /// Leave it.
    Keep,
}
