//! The content of regular files: where it is, who has it open, and copying it up.

use super::node::{Body, Content, Ino, Node, Writer};
use super::table::{Base, Table};
use super::turns::leave;
use crate::fs::{Holes, RelPath, Source, Time, modified};
use fuser::{BackingId, INodeNo, Notifier};
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How much is copied before a waiting thread gets its turn at the disk.
const PIECE: u64 = 8 << 20;

/// What is read or written without leaving one's turn to another thread first, which costs more.
pub(super) const SHORT: u64 = 64 << 10;

/// A directory of files by number: what one step or changeset has written.
pub(super) struct Upper {
    pub dir: Arc<OwnedFd>,
    next: AtomicU64,
}

impl Upper {
    pub fn new(dir: OwnedFd) -> Upper {
        Upper {
            dir: Arc::new(dir),
            next: AtomicU64::new(0),
        }
    }

    /// Makes an empty file.
    pub fn create(&self) -> Result<(u64, File), Errno> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let file = rustix::fs::openat(&*self.dir, number.to_string(), flags, mode)?;
        Ok((number, file.into()))
    }

    pub fn open(&self, number: u64) -> Result<File, Errno> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&*self.dir, number.to_string(), flags, Mode::empty())?;
        Ok(file.into())
    }

    pub fn stat(&self, number: u64) -> Result<Stat, Errno> {
        rustix::fs::statat(&*self.dir, number.to_string(), AtFlags::SYMLINK_NOFOLLOW)
    }

    pub fn remove(&self, number: u64) {
        // It only takes space until the whole directory goes.
        let _ = rustix::fs::unlinkat(&*self.dir, number.to_string(), AtFlags::empty());
    }

    pub fn source(&self, number: u64) -> Option<Source> {
        Some(Source::File {
            dir: Arc::clone(&self.dir),
            path: RelPath::checked(number.to_string().as_bytes())?,
        })
    }

    /// Makes a file with the first bytes of a content, and no more.
    pub fn copy(&self, source: &Source, size: u64) -> Result<(u64, File), Errno> {
        let (number, mut file) = self.create()?;
        match copy(source, size, &mut file) {
            Ok(()) => Ok((number, file)),
            Err(error) => {
                self.remove(number);
                Err(errno(&error))
            }
        }
    }
}

fn copy(source: &Source, size: u64, to: &mut File) -> io::Result<()> {
    use std::io::Write;
    if size == 0 {
        return Ok(());
    }
    if let Source::Bytes(bytes) = source {
        let len = usize::try_from(size).unwrap_or(usize::MAX).min(bytes.len());
        return to.write_all(bytes.get(..len).unwrap_or_default());
    }
    let from = source.file()?.ok_or(io::ErrorKind::NotFound)?;
    // Where the file system can share blocks, nothing is copied at all.
    if rustix::fs::ioctl_ficlone(&*to, &from).is_ok() {
        return to.set_len(size);
    }
    let mut from = Holes::new(from)?;
    let mut left = size.min(from.size());
    while left > 0 {
        match from.copy_on(to, left.min(PIECE))? {
            0 => break,
            done => left = left.saturating_sub(done),
        }
    }
    to.set_len(size)
}

/// Gives the number of an error of the disk.
pub(super) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// A file that somebody has open.
#[derive(Default)]
pub(super) struct Open {
    pub handles: u32,
    pub writers: u32,
    /// The content as a file of ours; not kept where the kernel has it.
    pub file: Option<Arc<File>>,
    /// The content as the kernel has it; the same for every handle.
    pub backing: Option<Arc<BackingId>>,
    /// Whether it is among those kept ready.
    kept: bool,
}

/// How many files that nobody has open any more the kernel keeps ready: a shell's, its libraries'.
const IDLE: usize = 256;

/// Whose notes of a file's length and times are right while it is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    /// The kernel's own, which it hands over later (writeback cache).
    Kernel,
    /// Those of the file behind it.
    Disk,
}

/// The table and the contents behind it.
pub(super) struct Files {
    table: Mutex<Table>,
    copied: Condvar,
    /// Where the step writes to; nothing for a root that is only read.
    pub upper: Option<Upper>,
    pub truth: Truth,
    /// By which the kernel is told that what it remembers is so no longer; as long as there is somebody
    /// who answers it.
    kernel: Mutex<Option<Notifier>>,
}

impl Files {
    pub fn new(table: Table, upper: Option<Upper>, truth: Truth) -> Files {
        Files {
            table: Mutex::new(table),
            copied: Condvar::new(),
            upper,
            truth,
            kernel: Mutex::default(),
        }
    }

    pub fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn kernel(&self) -> MutexGuard<'_, Option<Notifier>> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn upper(&self) -> Result<&Upper, Errno> {
        self.upper.as_ref().ok_or(Errno::ROFS)
    }

    /// Opens the content of a file for reading, or for both where it is the step's own.
    pub fn file(&self, table: &Table, ino: Ino) -> Result<Arc<File>, Errno> {
        let node = table.node(ino)?;
        if let Some(file) = node.open.as_ref().and_then(|open| open.file.as_ref()) {
            return Ok(Arc::clone(file));
        }
        let content = node.content().ok_or(Errno::INVAL)?;
        match content {
            Content::Own(number) => self.upper()?.open(number).map(Arc::new),
            Content::Below { layer, entry } => {
                let source = below(&table.base, layer, entry)?;
                match source.file() {
                    Ok(Some(file)) => Ok(Arc::new(file)),
                    Ok(None) => in_memory(&source).map(Arc::new),
                    Err(error) => Err(errno(&error)),
                }
            }
        }
    }

    /// Sees to it that a file's content is the step's own; of what a layer has of it so many bytes
    /// are copied at least. Where the kernel reads the layer's for somebody, who can then not be
    /// given another, a new node takes the name. Gives the table and the node whose content it is.
    pub fn own(&self, ino: Ino, least: u64) -> Result<(MutexGuard<'_, Table>, Ino), Errno> {
        let upper = self.upper()?;
        let mut table = self.table();
        loop {
            let ino = table.current(ino);
            let node = table.node(ino)?;
            let source = match node.content().ok_or(Errno::INVAL)? {
                Content::Own(_) => return Ok((table, ino)),
                Content::Below { .. } if node.copying => {
                    leave();
                    let waited = self.copied.wait(table);
                    table = waited.unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                Content::Below { layer, entry } => below(&table.base, layer, entry)?,
            };
            let size = match node.is_lent() {
                // Until whoever asked has cut it, a new node is what the old one was.
                true => node.meta.size,
                false => node.meta.size.min(least),
            };
            let mtime = node.meta.mtime;
            table.node_mut(ino)?.copying = true;
            drop(table);
            if size > SHORT {
                leave();
            }
            let made = upper.copy(&source, size).and_then(|(number, file)| {
                let set = rustix::fs::futimens(&file, &modified(mtime));
                set.inspect_err(|_| upper.remove(number))?;
                Ok((number, file))
            });
            table = self.table();
            if let Ok(node) = table.node_mut(ino) {
                node.copying = false;
            }
            self.copied.notify_all();
            let (number, file) = made?;
            match self.place(&mut table, ino, size, number, file) {
                Ok(Some(ino)) => return Ok((table, ino)),
                Ok(None) => upper.remove(number),
                Err(error) => {
                    upper.remove(number);
                    return Err(error);
                }
            }
        }
    }

    /// Puts a copy of so many bytes where a layer's content was; gives the node it is that of now, or
    /// nothing where more has to be copied.
    fn place(
        &self,
        table: &mut Table,
        ino: Ino,
        size: u64,
        number: u64,
        file: File,
    ) -> Result<Option<Ino>, Errno> {
        let node = table.node_mut(ino)?;
        if node.is_lent() {
            // Somebody may have begun to read it meanwhile.
            if size < node.meta.size {
                return Ok(None);
            }
            let new = table.replace(ino, Content::Own(number))?;
            // What the kernel remembers is of the old one; that it does not know the node is no harm.
            if let Some(kernel) = &*self.kernel() {
                let _ = kernel.inval_inode(INodeNo(ino), -1, 0);
            }
            return Ok(Some(new));
        }
        match &mut node.open {
            Some(open) if open.handles == 0 => node.open = None,
            Some(open) => open.file = Some(Arc::new(file)),
            None => {}
        }
        node.body = Body::File(Content::Own(number));
        node.meta.size = size;
        table.touch(ino)?;
        Ok(Some(ino))
    }

    /// Makes a file ready for one more name. What the kernel reads of a layer for somebody cannot be
    /// given other content under several names at once, so it is copied up now; overlay copies up
    /// whatever is linked. Gives the table and the node that is to have the name.
    pub fn unbind(&self, ino: Ino) -> Result<(MutexGuard<'_, Table>, Ino), Errno> {
        self.upper()?;
        let mut table = self.table();
        let ino = table.current(ino);
        let node = table.node_mut(ino)?;
        if node.names == 0 {
            return Err(Errno::NOENT);
        }
        if node.is_lent() {
            drop(table);
            return self.own(ino, u64::MAX);
        }
        let is_idle = node.open.as_ref().is_some_and(|open| open.handles == 0);
        if is_idle {
            node.open = None;
        }
        Ok((table, ino))
    }

    /// Takes length, blocks and time from the file behind a node that may have been written to.
    pub fn refresh(&self, node: &mut Node) {
        let Some(Content::Own(number)) = node.content() else {
            return;
        };
        let stat = match node.open.as_ref().and_then(|open| open.file.as_ref()) {
            Some(file) => rustix::fs::fstat(file),
            None => match &self.upper {
                Some(upper) => upper.stat(number),
                None => return,
            },
        };
        let Ok(stat) = stat else { return };
        node.meta.size = u64::try_from(stat.st_size).unwrap_or(0);
        node.blocks = u64::try_from(stat.st_blocks).ok();
        if self.truth == Truth::Disk && !node.time_ahead {
            let mtime = Time {
                secs: stat.st_mtime,
                nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            };
            if mtime != node.meta.mtime {
                node.meta.mtime = mtime;
                node.ctime = node.ctime.max(mtime);
            }
        }
    }

    /// Takes note that a handle is closed; gives what is to be closed with it once the table is no
    /// longer locked.
    pub fn close(&self, table: &mut Table, ino: Ino, wrote: bool) -> Option<Box<Open>> {
        table.writers = table.writers.saturating_sub(usize::from(wrote));
        let node = table.node_mut(ino).ok()?;
        if wrote {
            self.refresh(node);
        }
        let below = matches!(node.content(), Some(Content::Below { .. }));
        let named = node.names > 0;
        let open = node.open.as_mut()?;
        open.handles = open.handles.saturating_sub(1);
        open.writers = open.writers.saturating_sub(u32::from(wrote));
        if open.handles > 0 {
            return None;
        }
        if !(below && named && open.backing.is_some()) {
            let closed = node.open.take();
            if !named {
                table.free(ino);
                self.sweep(table);
            }
            return closed;
        }
        if open.kept {
            return None;
        }
        open.kept = true;
        table.idle.push_back(ino);
        if table.idle.len() <= IDLE {
            return None;
        }
        let oldest = table.idle.pop_front()?;
        let node = table.node_mut(oldest).ok()?;
        let open = node.open.as_mut()?;
        open.kept = false;
        match open.handles {
            0 => node.open.take(),
            _ => None,
        }
    }

    /// Removes the files that no node has any more.
    pub fn sweep(&self, table: &mut Table) {
        if let Some(upper) = &self.upper {
            for number in table.dropped.drain(..) {
                upper.remove(number);
            }
        }
    }

    /// Notes that content has been changed by a request: rights go, and the time is the disk's.
    pub fn written(&self, table: &mut Table, ino: Ino, writer: Writer) -> Result<(), Errno> {
        let node = table.node_mut(ino)?;
        node.drop_rights(writer);
        if !node.touched {
            table.touch(ino)?;
        }
        Ok(())
    }
}

/// Gives the source of a file in a layer.
pub(super) fn below(base: &Base, layer: u32, entry: u32) -> Result<Source, Errno> {
    let source = base.tree.source_of(layer as usize, entry as usize);
    source.ok_or(Errno::IO)
}

/// Puts content that is held in memory behind a descriptor.
fn in_memory(source: &Source) -> Result<File, Errno> {
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::io::Write;
    let mut file = File::from(memfd_create("content", MemfdFlags::CLOEXEC)?);
    if let Source::Bytes(bytes) = source {
        file.write_all(bytes).map_err(|error| errno(&error))?;
    }
    Ok(file)
}
