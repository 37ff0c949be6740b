use super::{Meta, RelPath};
use std::io;
use std::path::Path;

/// The BLAKE3 hash of a file's content.
pub type ContentId = [u8; 32];

/// The table of contents of one layer: every path in canonical order, with metadata and content id.
///
/// On disk it is one file that is used where it lies (`mmap`): looking up a path is a binary
/// search, opening costs nothing that grows with the layer.
pub struct Toc {
    _todo: (),
}

/// One path of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TocEntry {
    /// The path.
    pub path: RelPath,
    /// What the layer says of it.
    pub node: Node,
}

/// What a layer says of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A file of any kind is there.
    Put {
        /// Its metadata.
        meta: Meta,
        /// The BLAKE3 of a regular file's content, where it has been taken.
        content: Option<ContentId>,
        /// Where this name is a hard link: the first name of the same file in this layer, in
        /// canonical order. `meta` and `content` repeat the file's.
        link: Option<RelPath>,
    },
    /// Whatever the layers below have there is gone (whiteout).
    Delete,
    /// A directory is there that hides everything the layers below have in it (opaque).
    Opaque(Meta),
}

impl Toc {
    /// Makes a table in memory; entries come in any order, the last of a path counts.
    pub fn new(entries: Vec<TocEntry>) -> Toc {
        let _ = entries;
        todo!()
    }

    /// Opens a table on disk.
    pub fn open(path: &Path) -> io::Result<Toc> {
        let _ = path;
        todo!()
    }

    /// Gives the bytes that `open` reads: little-endian, versioned, with a checksum of its header.
    pub fn to_bytes(&self) -> Vec<u8> {
        todo!()
    }

    /// Gives the number of entries.
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Tells whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Looks a path up.
    pub fn get(&self, path: &RelPath) -> Option<Node> {
        let _ = path;
        todo!()
    }

    /// Gives all entries in canonical order.
    pub fn iter(&self) -> Box<dyn Iterator<Item = TocEntry> + '_> {
        todo!()
    }

    /// Gives the entries directly in a directory, in canonical order, skipping over subtrees.
    pub fn children(&self, dir: &RelPath) -> Box<dyn Iterator<Item = TocEntry> + '_> {
        let _ = dir;
        todo!()
    }
}
