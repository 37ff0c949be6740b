use super::record::{self, HEADER, Header, RECORD};
use super::{Meta, RelPath};
use crate::sys;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// The BLAKE3 hash of a file's content.
pub type ContentId = [u8; 32];

/// The table of contents of one layer: every path in canonical order, with metadata and content id.
///
/// On disk it is one file that is used where it lies (`mmap`): looking up a path is a binary
/// search, opening costs nothing that grows with the layer. In memory it is the same bytes. Cheap
/// to clone. An entry that a damaged file makes unreadable is as good as not there; only the header
/// and the file's length are checked when it is opened.
#[derive(Clone)]
pub struct Toc {
    bytes: Arc<Bytes>,
    count: usize,
}

enum Bytes {
    Memory(Vec<u8>),
    Mapped(memmap2::Mmap),
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
    pub fn new(mut entries: Vec<TocEntry>) -> Toc {
        // Stable, so that the last of several stays the last.
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let mut kept: Vec<&TocEntry> = Vec::with_capacity(entries.len());
        for entry in &entries {
            match kept.last_mut() {
                Some(last) if last.path == entry.path => *last = entry,
                _ => kept.push(entry),
            }
        }
        let bytes = record::encode(&kept);
        Toc {
            count: kept.len(),
            bytes: Arc::new(Bytes::Memory(bytes)),
        }
    }

    /// Opens a table on disk.
    pub fn open(path: &Path) -> io::Result<Toc> {
        Toc::from_bytes(Bytes::Mapped(sys::map_file(&File::open(path)?)?))
    }

    /// Takes the bytes that `to_bytes` gives, from anywhere.
    pub fn parse(bytes: Vec<u8>) -> io::Result<Toc> {
        Toc::from_bytes(Bytes::Memory(bytes))
    }

    fn from_bytes(bytes: Bytes) -> io::Result<Toc> {
        let all = bytes.as_slice();
        let header =
            Header::read(all).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
        Ok(Toc {
            count: header.count,
            bytes: Arc::new(bytes),
        })
    }

    /// Gives the bytes that `open` reads: little-endian, versioned, with a checksum of its header.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    /// Gives the same bytes without a copy.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// Gives the number of entries.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Tells whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Looks a path up.
    pub fn get(&self, path: &RelPath) -> Option<Node> {
        self.node(self.find(path.as_bytes()).ok()?)
    }

    /// Gives all entries in canonical order.
    pub fn iter(&self) -> Box<dyn Iterator<Item = TocEntry> + '_> {
        Box::new((0..self.count).filter_map(|at| self.entry(at)))
    }

    /// Counts the names of every hard-linked file, by the index of its first name's entry.
    pub fn link_counts(&self) -> HashMap<usize, u32> {
        let mut counts: HashMap<usize, u32> = HashMap::new();
        for at in 0..self.count {
            if !self.record(at).is_some_and(record::is_link) {
                continue;
            }
            if let Some(first) = self.first_name(at) {
                *counts.entry(first).or_insert(1) += 1;
            }
        }
        counts
    }

    /// Gives the index of the first name of the file that an entry is a hard link of.
    pub fn first_name(&self, at: usize) -> Option<usize> {
        match self.node(at)? {
            Node::Put {
                link: Some(first), ..
            } => self.find(first.as_bytes()).ok(),
            _ => None,
        }
    }

    /// Gives the entries directly in a directory, in canonical order, skipping over subtrees.
    pub fn children(&self, dir: &RelPath) -> Box<dyn Iterator<Item = TocEntry> + '_> {
        let below = self.below(dir.as_bytes());
        let dir_len = dir.as_bytes().len();
        Box::new(
            self.groups(below, dir_len)
                .filter_map(|group| self.entry(group.own?)),
        )
    }

    /// Gives the entries below a directory, at any depth, in canonical order.
    pub fn within(&self, dir: &RelPath) -> impl Iterator<Item = TocEntry> + '_ {
        self.below(dir.as_bytes()).filter_map(|at| self.entry(at))
    }

    fn record(&self, at: usize) -> Option<&[u8]> {
        let start = HEADER.checked_add(at.checked_mul(RECORD)?)?;
        if at >= self.count {
            return None;
        }
        self.as_bytes().get(start..start + RECORD)
    }

    fn area(&self) -> &[u8] {
        let start = HEADER + self.count * RECORD;
        self.as_bytes().get(start..).unwrap_or_default()
    }

    /// Gives the path of an entry; empty where the file is damaged.
    pub(super) fn path(&self, at: usize) -> &[u8] {
        self.record(at)
            .and_then(|bytes| record::path(bytes, self.area()))
            .unwrap_or_default()
    }

    pub(super) fn node(&self, at: usize) -> Option<Node> {
        record::node(self.record(at)?, self.area())
    }

    fn entry(&self, at: usize) -> Option<TocEntry> {
        Some(TocEntry {
            path: RelPath::checked(self.path(at))?,
            node: self.node(at)?,
        })
    }

    /// Gives the index of a path, or where it would stand.
    pub(super) fn find(&self, path: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            match RelPath::compare(self.path(middle), path) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    /// Gives the entries strictly below a directory.
    pub(super) fn below(&self, dir: &[u8]) -> Range<usize> {
        let start = match self.find(dir) {
            Ok(own) => own + 1,
            Err(at) => at,
        };
        let end = if dir.is_empty() {
            self.count
        } else {
            self.subtree_end(start, self.count, dir)
        };
        start..end
    }

    /// Gives the first index from `start` on whose path is not below `dir`, by doubling steps and
    /// then halving them: cheap for a small subtree, logarithmic for a large one.
    fn subtree_end(&self, start: usize, limit: usize, dir: &[u8]) -> usize {
        let inside = |at: usize| {
            let path = self.path(at);
            path.starts_with(dir) && path.get(dir.len()) == Some(&b'/')
        };
        let (mut low, mut step) = (start, 1);
        // Everything before `low` is inside.
        while low < limit && inside((low + step - 1).min(limit - 1)) {
            low = (low + step).min(limit);
            step *= 2;
        }
        let mut high = (low + step - 1).min(limit);
        while low < high {
            let middle = low + (high - low) / 2;
            if inside(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Splits a range of entries below a directory, whose path has `dir_len` bytes, by the first
    /// component below it.
    pub(super) fn groups(
        &self,
        below: Range<usize>,
        dir_len: usize,
    ) -> impl Iterator<Item = Group<'_>> {
        let Range { mut start, end } = below;
        let skip = if dir_len == 0 { 0 } else { dir_len + 1 };
        std::iter::from_fn(move || {
            while start < end {
                let path = self.path(start);
                let Some(rest) = path.get(skip..).filter(|rest| !rest.is_empty()) else {
                    // Only a damaged file has such an entry here.
                    start += 1;
                    continue;
                };
                let len = rest.iter().position(|&c| c == b'/').unwrap_or(rest.len());
                let (child, name) = (&path[..skip + len], &rest[..len]);
                let own = (child.len() == path.len()).then_some(start);
                let first = start + usize::from(own.is_some());
                let last = self.subtree_end(first, end, child);
                // At least one entry is used up, whatever a damaged file says.
                start = last.max(start + 1);
                return Some(Group {
                    name,
                    own,
                    below: first..last,
                });
            }
            None
        })
    }
}

/// A name in a directory of a table.
pub(super) struct Group<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The entry of the name itself.
    pub own: Option<usize>,
    /// The entries below it.
    pub below: Range<usize>,
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Memory(bytes) => bytes,
            Bytes::Mapped(map) => map,
        }
    }
}

impl std::fmt::Debug for Toc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
