//! What one mount knows and does; `answers` puts it into the words of the protocol.

mod answers;
mod opening;

use super::acl;
use super::content::{Files, SHORT, Truth, errno};
use super::node::{Body, Content, Ino, Node, Writer, now};
use super::table::{Table, new_dir};
use super::turns::{Next, Turns, leave};
use crate::fs::{Ids, Kind, Meta, Time, modified};
use fuser::{
    BackingId, CopyFileRangeFlags, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use opening::{Opening, Patience};
use rustix::fs::{FallocateFlags, FileType as Mode};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nobody changes anything but the mount itself.
const ALWAYS: Duration = Duration::from_secs(1 << 30);
const AT_ONCE: Duration = Duration::ZERO;
/// How long a file may be that is shown by way of the builder even where the kernel would read it itself:
/// the kernel then keeps it in its cache, attributes and all, while after each reading past the builder
/// it asks for the attributes anew. A package manager reads its users and lists for every file.
const SMALL: u64 = 64 << 10;

/// The handle of a file that can be written to, and of one that cannot.
const WRITER: FileHandle = FileHandle(1);
const READER: FileHandle = FileHandle(0);

/// One mount's side of the conversation.
pub(super) struct Server {
    pub files: Arc<Files>,
    /// How deep file systems may be stacked below, where the kernel is to read and write the
    /// contents itself.
    pub passthrough: Option<u32>,
    /// The turns of the threads that answer, where there are several processors.
    pub turns: Option<Arc<Turns>>,
    /// Whether there is a file system below that does not tell what it has in memory.
    reads_wait: AtomicBool,
    listings: Mutex<HashMap<u64, Listing>>,
    next_listing: AtomicU64,
}

/// What an open directory had in it when it was first read.
struct Listing {
    names: Option<Arc<Names>>,
}

/// The names in a directory, in an order that stays. What they stand for may change while it is read.
type Names = Vec<Box<[u8]>>;
/// Takes an entry, with its place in the listing; false where there is no room for it.
type Add<'a> = &'a mut dyn FnMut(&mut Table, Ino, u64, &[u8]) -> Result<bool, Errno>;
/// What the kernel is told of a file that is open; its own handle on the content where there is one.
type Opened = (FileHandle, FopenFlags, Option<Arc<BackingId>>);
/// A file that was made and opened; the kernel's own handle on its content where there is one.
type Made = (FileAttr, FileHandle, FopenFlags, Option<Arc<BackingId>>);

impl Server {
    pub fn new(files: Arc<Files>, passthrough: Option<u32>) -> Server {
        Server {
            files,
            passthrough,
            turns: None,
            reads_wait: AtomicBool::new(false),
            listings: Mutex::default(),
            next_listing: AtomicU64::new(1),
        }
    }

    /// Has the thread wait for its turn to take a question once this is dropped, after all that the answer
    /// held.
    fn next(&self) -> Option<Next<'_>> {
        self.turns.as_ref().map(Next)
    }

    fn opening(&self) -> Opening<'_> {
        Opening {
            files: &self.files,
            passthrough: self.passthrough.is_some(),
        }
    }

    fn listings(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Listing>> {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an entry to the kernel, which knows the node once more from now on.
    fn entry(&self, table: &mut Table, ino: Ino) -> Result<(FileAttr, Duration), Errno> {
        let node = table.node_mut(ino)?;
        node.lookups += 1;
        self.attr(node, ino)
    }

    fn attr(&self, node: &mut Node, ino: Ino) -> Result<(FileAttr, Duration), Errno> {
        let mut ttl = ALWAYS;
        let written = node.open.as_ref().is_some_and(|open| open.writers > 0);
        if written && self.files.truth == Truth::Disk {
            self.files.refresh(node);
            ttl = AT_ONCE;
        }
        // The number that hard links of a layer show is not the node's; only an answer to the
        // question for attributes can say so.
        if node.group.is_some() || node.is_successor {
            ttl = AT_ONCE;
        }
        Ok((attr_of(node, ino), ttl))
    }

    /// Gives the attributes of what stands for a node now.
    fn shown(&self, table: &mut Table, asked: Ino) -> Result<(FileAttr, Duration), Errno> {
        let ino = table.current(asked);
        let node = table.node_mut(ino)?;
        let (mut attr, mut ttl) = self.attr(node, ino)?;
        if let Some(group) = node.group {
            attr.ino = INodeNo(group.shown);
            ttl = ALWAYS;
        }
        Ok((attr, ttl))
    }

    /// Makes a change, where there is a place for what changes.
    fn change<T>(&self, make: impl FnOnce(&mut Table) -> Result<T, Errno>) -> Result<T, Errno> {
        self.files.upper()?;
        make(&mut self.files.table())
    }

    fn make(
        &self,
        asker: Asker,
        parent: Ino,
        name: &OsStr,
        meta: Meta,
        body: Body,
    ) -> Result<(FileAttr, Duration), Errno> {
        self.change(|table| {
            let ino = make(table, asker, parent, name, meta, body)?;
            self.entry(table, ino)
        })
    }

    fn name(&self, name: &OsStr) -> Result<(), Errno> {
        match name.len() {
            0..=255 => Ok(()),
            _ => Err(Errno::NAMETOOLONG),
        }
    }

    /// Notes that the file behind a node was written to past the node.
    fn rewritten(&self, table: &mut Table, ino: Ino, writer: Writer) -> Result<(), Errno> {
        self.files.written(table, ino, writer)?;
        let node = table.node_mut(ino)?;
        stamp(node, self.files.truth, None);
        self.files.refresh(node);
        Ok(())
    }

    fn create_file(
        &self,
        asker: Asker,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        back: &dyn Fn(&File) -> io::Result<BackingId>,
    ) -> Result<Made, Errno> {
        self.name(name)?;
        let upper = self.files.upper()?;
        let (number, file) = upper.create()?;
        let mut table = self.files.table();
        let meta = Meta::file(mode & 0o7777, 0, now());
        let body = Body::File(Content::Own(number));
        let made = make(&mut table, asker, parent, name, meta, body);
        let ino = made.inspect_err(|_| upper.remove(number))?;
        let file = Some(Arc::new(file));
        let (handle, flags, backing) = self.opening().opened(&mut table, ino, file, true, back)?;
        let (attr, _) = self.entry(&mut table, ino)?;
        Ok((attr, handle, flags, backing))
    }

    fn set(&self, req: &Request, ino: Ino, wanted: &Wanted) -> Result<(FileAttr, Duration), Errno> {
        self.files.upper()?;
        let (mut table, now_at) = match wanted.size {
            Some(size) => self.files.own(ino, size)?,
            None => {
                let table = self.files.table();
                let now_at = table.current(ino);
                (table, now_at)
            }
        };
        let asked = ino;
        let ino = now_at;
        if let Some(size) = wanted.size {
            // Who writes to it by the kernel is held off by its lock on the node that is asked for,
            // which has to be the right one.
            if ino != asked {
                return Err(Errno::STALE);
            }
            self.files.cut(&mut table, ino, size, writer(req))?;
            let node = table.node_mut(ino)?;
            if wanted.mtime.is_none() && self.files.truth == Truth::Disk {
                self.files.refresh(node);
            }
        }
        let node = table.node_mut(ino)?;
        if wanted.uid.is_some() || wanted.gid.is_some() {
            node.meta.uid = wanted.uid.unwrap_or(node.meta.uid);
            node.meta.gid = wanted.gid.unwrap_or(node.meta.gid);
            if !node.is_dir() {
                node.drop_rights(Writer::Plain);
            }
        }
        if let Some(mode) = wanted.mode {
            node.meta.mode = mode & 0o7777;
            acl::follow_mode(node);
        }
        let now = now();
        let time = |wanted| match wanted {
            TimeOrNow::Now => now,
            TimeOrNow::SpecificTime(time) => time_of(time),
        };
        if let Some(atime) = wanted.atime {
            node.atime = time(atime);
        }
        if let Some(mtime) = wanted.mtime {
            node.meta.mtime = time(mtime);
        }
        node.ctime = wanted.ctime.map_or(now, time_of);
        if let (Some(_), Some(Content::Own(_)), Truth::Disk) =
            (wanted.mtime, node.content(), self.files.truth)
        {
            let mtime = node.meta.mtime;
            let written = node.open.as_ref().is_some_and(|open| open.writers > 0);
            node.time_ahead = !written || ino != asked;
            if !node.time_ahead {
                let file = self.files.file(&table, ino)?;
                rustix::fs::futimens(&file, &modified(mtime))?;
            }
        }
        table.touch(ino)?;
        self.shown(&mut table, asked)
    }

    /// Reads a directory from a place on, calling `add` for each entry until that has no room.
    fn read_dir(
        &self,
        ino: Ino,
        handle: FileHandle,
        offset: u64,
        add: Add<'_>,
    ) -> Result<(), Errno> {
        let mut table = self.files.table();
        let names = {
            let mut listings = self.listings();
            let listing = listings.get_mut(&handle.0).ok_or(Errno::BADF)?;
            if offset == 0 {
                listing.names = None;
            }
            match &listing.names {
                Some(names) => Arc::clone(names),
                None => {
                    let names = Arc::new(list(&mut table, ino)?);
                    listing.names = Some(Arc::clone(&names));
                    names
                }
            }
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, name) in names.iter().enumerate().skip(start) {
            let to = match &name[..] {
                b"." => Some(ino),
                b".." => Some(table.node(ino)?.parent),
                name => table.dir(ino)?.names.get(name).and_then(|name| name.ino),
            };
            // What has gone since is left out: the kernel takes what it is told for what is there.
            let Some(to) = to.filter(|to| table.node(*to).is_ok()) else {
                continue;
            };
            if !add(&mut table, to, at as u64 + 1, name)? {
                break;
            }
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It holds the device open, and whoever waits for an answer is told so when that is closed.
        self.files.kernel().take();
    }
}

/// Gives all names in a directory, with itself and the one above.
fn list(table: &mut Table, ino: Ino) -> Result<Names, Errno> {
    table.list(ino)?;
    let mut names: Names = vec![b".".as_slice().into(), b"..".as_slice().into()];
    let there = table.dir(ino)?.names.iter();
    names.extend(there.filter_map(|(name, to)| to.ino.map(|_| name.clone())));
    Ok(names)
}

/// Who has a file made.
#[derive(Clone, Copy)]
struct Asker {
    uid: u32,
    gid: u32,
    umask: u32,
}

impl Asker {
    fn new(req: &Request, umask: u32) -> Asker {
        Asker {
            uid: req.uid(),
            gid: req.gid(),
            umask,
        }
    }
}

/// Makes a file in a directory: who asks owns it, but its group may be the directory's.
fn make(
    table: &mut Table,
    asker: Asker,
    parent: Ino,
    name: &OsStr,
    mut meta: Meta,
    body: Body,
) -> Result<Ino, Errno> {
    let dir = table.node(parent)?;
    meta.uid = asker.uid;
    meta.gid = asker.gid;
    if dir.meta.mode & 0o2000 != 0 {
        meta.gid = dir.meta.gid;
        if meta.kind == Kind::Dir {
            meta.mode |= 0o2000;
        }
    }
    if meta.kind != Kind::Symlink {
        let inherited = acl::inherit(dir, meta.mode, asker.umask);
        meta.mode = inherited.mode;
        let mut add = |name: &[u8], value| meta.xattrs.push((name.to_vec(), value));
        if let Some(access) = inherited.access {
            add(acl::ACCESS, access);
        }
        if let Some(default) = inherited.default.filter(|_| meta.kind == Kind::Dir) {
            add(acl::DEFAULT, default);
        }
    }
    table.make(parent, name.as_bytes(), meta, body)
}

/// What is to be set of a file's attributes.
struct Wanted {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    atime: Option<TimeOrNow>,
    mtime: Option<TimeOrNow>,
    ctime: Option<SystemTime>,
}

/// Notes a new length, and the time where nobody else does.
fn stamp(node: &mut Node, truth: Truth, size: Option<u64>) {
    if let Some(size) = size {
        node.meta.size = size;
        node.blocks = None;
        node.time_ahead = false;
    }
    if truth == Truth::Disk || size.is_some() {
        node.meta.mtime = now();
        node.ctime = node.meta.mtime;
    }
}

/// Tells who writes: only root is known to have the right to keep what a write takes away.
fn writer(req: &Request) -> Writer {
    match req.uid() {
        0 => Writer::Trusted,
        _ => Writer::Plain,
    }
}

/// Gives a time that was asked for. For one before 1970 the crate counts the kernel's nanoseconds
/// backwards too, which is undone here.
fn time_of(time: SystemTime) -> Time {
    let (since, sign) = match time.duration_since(UNIX_EPOCH) {
        Ok(since) => (since, 1),
        Err(error) => (error.duration(), -1),
    };
    Time {
        secs: i64::try_from(since.as_secs()).map_or(i64::MAX * sign, |secs| secs * sign),
        nanos: since.subsec_nanos(),
    }
}

fn system_time(time: Time) -> SystemTime {
    let whole = Duration::from_secs(time.secs.unsigned_abs());
    let base = match time.secs {
        0.. => UNIX_EPOCH.checked_add(whole),
        _ => UNIX_EPOCH.checked_sub(whole),
    };
    base.and_then(|base| base.checked_add(Duration::from_nanos(time.nanos.into())))
        .unwrap_or(UNIX_EPOCH)
}

fn kind_of(node: &Node) -> FileType {
    match (&node.body, node.meta.kind) {
        (Body::Socket, _) => FileType::Socket,
        (_, Kind::File) => FileType::RegularFile,
        (_, Kind::Dir) => FileType::Directory,
        (_, Kind::Symlink) => FileType::Symlink,
        (_, Kind::Char) => FileType::CharDevice,
        (_, Kind::Block) => FileType::BlockDevice,
        (_, Kind::Fifo) => FileType::NamedPipe,
    }
}

fn attr_of(node: &Node, ino: Ino) -> FileAttr {
    let meta = &node.meta;
    // The kernel lets nobody write to a file whose owner it does not know.
    let (uid, gid) = Ids::here().known(meta.uid, meta.gid);
    let size = match meta.kind {
        Kind::File => meta.size,
        Kind::Symlink => meta.target.len() as u64,
        Kind::Dir => 4096,
        _ => 0,
    };
    let blocks = match meta.kind {
        Kind::File => node.blocks.unwrap_or(size.div_ceil(512)),
        Kind::Dir => 8,
        _ => 0,
    };
    FileAttr {
        ino: INodeNo(ino),
        size,
        blocks,
        atime: system_time(node.atime),
        mtime: system_time(meta.mtime),
        ctime: system_time(node.ctime),
        crtime: UNIX_EPOCH,
        kind: kind_of(node),
        perm: (meta.mode & 0o7777) as u16,
        nlink: node.links(),
        uid: uid.unwrap_or(0),
        gid: gid.unwrap_or(0),
        rdev: device(meta.device),
        blksize: 4096,
        flags: 0,
    }
}

/// Gives a device number as the protocol has it, which is that of the kernel's inside.
fn device((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

fn device_of(number: u32) -> (u32, u32) {
    (
        (number >> 8) & 0xfff,
        (number & 0xff) | ((number >> 12) & 0xf_ff00),
    )
}

fn refusal(error: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(error.raw_os_error())
}
