//! What the table holds: one node a file.

use super::content::Open;
use crate::fs::{Kind, Levels, Meta, Time};
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;

/// The number of a node; that of the root is 1.
pub(super) type Ino = u64;

pub(super) const ROOT: Ino = 1;

/// A file of any kind.
pub(super) struct Node {
    /// Everything an image keeps of it, and what it does not keep of the attributes.
    pub meta: Meta,
    pub atime: Time,
    pub ctime: Time,
    /// The 512-byte blocks it takes, where they have been counted.
    pub blocks: Option<u64>,
    pub body: Body,
    /// How many names it has in the table; none once it is removed.
    pub names: u32,
    /// The hard links of a layer that it is one of, as long as nothing of it has changed.
    pub group: Option<Group>,
    /// The directory that (one of) its name is in.
    pub parent: Ino,
    /// How often the kernel has been told of it and has not forgotten it.
    pub lookups: u64,
    /// Whether the step has made or changed it.
    pub touched: bool,
    /// Whether the time of its content was set since it was last written to, so that the file behind
    /// it has another; it is given its time when somebody opens it to write to it.
    pub time_ahead: bool,
    /// Whether its content is being copied up.
    pub copying: bool,
    pub open: Option<Box<Open>>,
    /// The node that has taken its name: it is what this one was, to all but those who read this one's
    /// content.
    pub successor: Option<Ino>,
    /// Whether it is such a node itself: what changes by the one is not told to the kernel of the other,
    /// which therefore asks each time.
    pub is_successor: bool,
}

/// What is particular to a kind of file.
pub(super) enum Body {
    File(Content),
    Dir(Box<Dir>),
    Socket,
    Other,
}

/// Where a regular file's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// In a layer, which is never written to.
    Below {
        /// The layer, 0 at the bottom.
        layer: u32,
        /// The index of its entry there.
        entry: u32,
    },
    /// In the step's own directory, by number.
    Own(u64),
}

/// What a directory has in it.
#[derive(Default)]
pub(super) struct Dir {
    /// What the layers have there; none once the names are all here.
    pub levels: Levels,
    /// Whether the layers had anything there.
    pub merged: bool,
    /// The names looked up so far, or all of them where `levels` is empty.
    pub names: BTreeMap<Box<[u8]>, Name>,
    /// How many of the names are directories; right where it is not merged.
    pub subdirs: u32,
    /// Whether something in it or below it has changed.
    pub stirred: bool,
}

/// What a name stands for.
#[derive(Clone, Copy)]
pub(super) struct Name {
    /// The node; none where the step has removed what the layers have there.
    pub ino: Option<Ino>,
    /// Whether the step has put it there.
    pub new: bool,
}

/// Which hard links of a layer a file is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Group {
    /// The inode number that all of them show; no node has it.
    pub shown: Ino,
    /// How many there are.
    pub names: u32,
}

impl Node {
    pub fn new(meta: Meta, body: Body, parent: Ino) -> Node {
        let now = now();
        Node {
            atime: meta.mtime,
            ctime: now,
            meta,
            blocks: None,
            body,
            names: 1,
            group: None,
            parent,
            lookups: 0,
            touched: false,
            time_ahead: false,
            copying: false,
            open: None,
            successor: None,
            is_successor: false,
        }
    }

    pub fn is_dir(&self) -> bool {
        self.meta.kind == Kind::Dir
    }

    pub fn dir(&self) -> Option<&Dir> {
        match &self.body {
            Body::Dir(dir) => Some(dir),
            _ => None,
        }
    }

    pub fn dir_mut(&mut self) -> Option<&mut Dir> {
        match &mut self.body {
            Body::Dir(dir) => Some(dir),
            _ => None,
        }
    }

    pub fn content(&self) -> Option<Content> {
        match self.body {
            Body::File(content) => Some(content),
            _ => None,
        }
    }

    /// Tells whether the kernel reads a layer's content for somebody right now.
    pub fn is_lent(&self) -> bool {
        let open = self.open.as_ref();
        matches!(self.content(), Some(Content::Below { .. }))
            && open.is_some_and(|open| open.backing.is_some() && open.handles > 0)
    }

    /// Gives the number of links that is shown. A directory that the layers have too shows 1, as on
    /// overlay: counting what is in it would take reading it.
    pub fn links(&self) -> u32 {
        match (&self.body, self.group) {
            (Body::Dir(_), _) if self.names == 0 => 0,
            (Body::Dir(dir), _) if dir.merged => 1,
            (Body::Dir(dir), _) => 2 + dir.subdirs,
            (_, Some(group)) => group.names,
            _ => self.names,
        }
    }

    pub fn xattr(&self, name: &[u8]) -> Option<&[u8]> {
        let (_, value) = self.meta.xattrs.iter().find(|(other, _)| other == name)?;
        Some(value)
    }

    /// Takes an attribute away; tells whether it was there.
    pub fn remove_xattr(&mut self, name: &[u8]) -> bool {
        let before = self.meta.xattrs.len();
        self.meta.xattrs.retain(|(other, _)| other != name);
        self.meta.xattrs.len() < before
    }

    pub fn set_xattr(&mut self, name: &[u8], value: &[u8]) {
        match self
            .meta
            .xattrs
            .binary_search_by(|(other, _)| other.as_slice().cmp(name))
        {
            Ok(at) => self.meta.xattrs[at].1 = value.to_vec(),
            Err(at) => self.meta.xattrs.insert(at, (name.to_vec(), value.to_vec())),
        }
    }

    /// Drops what a changed content must not keep: file capabilities always, and the bits that lend
    /// rights where whoever changes it may not keep them.
    pub fn drop_rights(&mut self, writer: Writer) {
        let lost = self.remove_xattr(CAPABILITY);
        let mode = self.meta.mode;
        if writer == Writer::Plain {
            self.meta.mode = without_set_id(mode);
        }
        if lost || self.meta.mode != mode {
            self.touched = true;
        }
    }

    /// Tells whether a write would take rights away.
    pub fn lends_rights(&self) -> bool {
        without_set_id(self.meta.mode) != self.meta.mode || self.xattr(CAPABILITY).is_some()
    }
}

/// Whether somebody may write to a set-user-ID file without its losing the bit (`CAP_FSETID`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    Trusted,
    Plain,
}

const CAPABILITY: &[u8] = b"security.capability";

/// Gives a mode without set-user-ID, and without set-group-ID where that is not a mark for mandatory
/// locks.
pub(super) fn without_set_id(mode: u32) -> u32 {
    let group = if mode & 0o010 != 0 { 0o2000 } else { 0 };
    mode & !(0o4000 | group)
}

/// Gives the time as the kernel notes it on files.
pub(super) fn now() -> Time {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    Time {
        secs: now.tv_sec,
        nanos: u32::try_from(now.tv_nsec).unwrap_or(0),
    }
}
