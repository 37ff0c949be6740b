use super::stat::{open_beneath, open_dir};
use super::walk::names;
use super::{Ids, Kind, Meta, RelPath, Time, xattr};
use rustix::fs::{
    AtFlags, Dev, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid,
};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

/// What statfs(2) calls an overlay.
const OVERLAY: rustix::fs::FsWord = 0x794c_7630;

/// Puts files beneath a directory with all their metadata, never following a symbolic link and
/// never reaching outside.
///
/// An owner that does not exist in the builder's user namespace is left out; whoever puts files keeps
/// in a table of contents what they are.
///
/// Parents must be there already and be directories. What stands in the way goes, except that a
/// directory put over a directory keeps what is in it. A directory's time and default ACL come
/// with `finish`, so that what is put into it later changes neither.
pub struct Placer {
    root: OwnedFd,
    own: Arc<Own>,
    deletions: Deletions,
    last: Option<(RelPath, Arc<Dir>)>,
    dirs: BTreeMap<RelPath, (Time, Option<Vec<u8>>)>,
}

/// What a deletion leaves where files are put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletions {
    /// A whiteout of overlayfs: the files are a layer over others.
    Whiteouts,
    /// Nothing: the files are all there is.
    Gaps,
}

/// What `finish` says is lost where devices were stood in for.
pub const DEVICE_NODES: &str = "device nodes";

/// What becomes of a device that may not be made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Devices {
    Made,
    StoodInFor,
}

/// What the kernel gives a new file of this process unasked, and what it refused.
struct Own {
    uid: u32,
    gid: u32,
    umask: u32,
    ids: &'static Ids,
    devices: Devices,
    lost: Mutex<Vec<String>>,
}

/// An open directory that files are made in; may be used by many threads at once.
pub struct Dir {
    fd: OwnedFd,
    /// New files take the directory's group.
    inherits: bool,
    own: Arc<Own>,
}

const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

impl Placer {
    /// Starts putting files beneath a directory that is a layer over others.
    pub fn new(root: BorrowedFd<'_>) -> io::Result<Placer> {
        Placer::with(root, Deletions::Whiteouts)
    }

    /// Starts putting files of a layer beneath a directory, of which a table of contents says what they
    /// are: an empty file stands in for a device that may not be made here.
    pub fn layer(root: BorrowedFd<'_>) -> io::Result<Placer> {
        Placer::start(root, Deletions::Whiteouts, Devices::StoodInFor)
    }

    /// Starts putting files beneath a directory.
    pub fn with(root: BorrowedFd<'_>, deletions: Deletions) -> io::Result<Placer> {
        Placer::start(root, deletions, Devices::Made)
    }

    fn start(root: BorrowedFd<'_>, deletions: Deletions, devices: Devices) -> io::Result<Placer> {
        Ok(Placer {
            root: root.try_clone_to_owned()?,
            deletions,
            own: Arc::new(Own {
                uid: rustix::process::geteuid().as_raw(),
                gid: rustix::process::getegid().as_raw(),
                umask: umask(),
                ids: Ids::here(),
                devices,
                lost: Mutex::default(),
            }),
            last: None,
            dirs: BTreeMap::new(),
        })
    }

    /// Opens a directory that files are to be made in. The last one is kept open.
    pub fn dir(&mut self, path: &RelPath) -> io::Result<Arc<Dir>> {
        if let Some((last, dir)) = &self.last
            && last == path
        {
            return Ok(Arc::clone(dir));
        }
        let fd = open_dir(self.root.as_fd(), path)?;
        let mode = rustix::fs::fstat(&fd)?.st_mode;
        let dir = Arc::new(Dir {
            fd,
            inherits: mode & 0o2000 != 0,
            own: Arc::clone(&self.own),
        });
        self.last = Some((path.clone(), Arc::clone(&dir)));
        Ok(dir)
    }

    fn parent(&mut self, path: &RelPath) -> io::Result<Arc<Dir>> {
        let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        self.dir(&parent)
    }

    /// Puts a file of any kind. `content` is that of a regular file, empty where there is none; its
    /// length need not be the one in `meta`. For the root only the metadata is set.
    pub fn put(
        &mut self,
        path: &RelPath,
        meta: &Meta,
        content: Option<&mut dyn Read>,
    ) -> io::Result<()> {
        match meta.kind {
            Kind::Dir => self.put_dir(path, meta),
            Kind::File => {
                let dir = self.parent(path)?;
                self.forget(path);
                let mut file = dir.create(path.name(), meta)?;
                if let Some(content) = content {
                    copy(content, &mut file)?;
                }
                dir.seal(&file, meta)
            }
            _ => {
                let dir = self.parent(path)?;
                self.forget(path);
                dir.special(path.name(), meta)
            }
        }
    }

    fn put_dir(&mut self, path: &RelPath, meta: &Meta) -> io::Result<()> {
        let mut made = false;
        if !path.is_root() {
            let parent = self.parent(path)?;
            made = parent.make(path.name())?;
        }
        let fd = open_dir(self.root.as_fd(), path)?;
        // What is there has an owner of its own; so has what is made in a directory that hands its
        // group on.
        let now = rustix::fs::fstat(&fd)?;
        if (now.st_uid, now.st_gid) != (meta.uid, meta.gid) {
            self.own.chown(fd.as_fd(), meta)?;
        }
        if now.st_mode & 0o7777 != meta.mode || meta.mode & 0o6000 != 0 {
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(meta.mode))?;
        }
        let name = xattr::proc_path(fd.as_fd(), b"")?;
        if !made {
            for (old, _) in xattr::read(&name)?.0 {
                if !meta.xattrs.iter().any(|(new, _)| *new == old) {
                    rustix::fs::lremovexattr(name.as_c_str(), &old[..])?;
                }
            }
        }
        let mut default = None;
        for (attr, value) in &meta.xattrs {
            if attr == DEFAULT_ACL {
                default = Some(value.clone());
            } else {
                self.own.xattr(&name, attr, value)?;
            }
        }
        // Its group or its place may have changed what the cached one knows.
        if self.last.as_ref().is_some_and(|(last, _)| last == path) {
            self.last = None;
        }
        self.dirs.insert(path.clone(), (meta.mtime, default));
        Ok(())
    }

    /// Puts one more name of a file that is there already.
    pub fn link(&mut self, existing: &RelPath, path: &RelPath) -> io::Result<()> {
        let from = existing.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let from = self.dir(&from)?;
        let to = self.parent(path)?;
        self.forget(path);
        to.replacing(path.name(), || {
            rustix::fs::linkat(
                &from.fd,
                existing.name(),
                &to.fd,
                path.name(),
                AtFlags::empty(),
            )
        })
    }

    /// Deletes a path, in the way that this place does it.
    pub fn delete(&mut self, path: &RelPath) -> io::Result<()> {
        match self.deletions {
            Deletions::Whiteouts => self.whiteout(path),
            Deletions::Gaps => self.remove(path),
        }
    }

    /// Puts a whiteout of overlayfs: a 0:0 character device. Of a layer that lies on an overlay itself
    /// it is left out: it can be made there as little as an overlay can be mounted over it.
    pub fn whiteout(&mut self, path: &RelPath) -> io::Result<()> {
        let dir = self.parent(path)?;
        self.forget(path);
        let stands_in = self.own.devices == Devices::StoodInFor;
        dir.replacing(path.name(), || {
            let mode = Mode::empty();
            match rustix::fs::mknodat(&dir.fd, path.name(), FileType::CharacterDevice, mode, 0) {
                Err(Errno::PERM) if stands_in && is_overlay(dir.fd.as_fd()) => Ok(()),
                other => other,
            }
        })
    }

    /// Marks a directory that is there as opaque for overlayfs.
    pub fn opaque(&mut self, path: &RelPath) -> io::Result<()> {
        let fd = open_dir(self.root.as_fd(), path)?;
        let name = xattr::proc_path(fd.as_fd(), b"")?;
        match xattr::set(&name, b"trusted.overlay.opaque", b"y") {
            // In a user namespace overlayfs is mounted to read the other prefix.
            Err(Errno::PERM) => Ok(xattr::set(&name, b"user.overlay.opaque", b"y")?),
            other => Ok(other?),
        }
    }

    /// Removes a path and everything below it; nothing happens where there is none.
    pub fn remove(&mut self, path: &RelPath) -> io::Result<()> {
        let dir = match self.parent(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        self.forget(path);
        dir.remove(path.name())
    }

    /// Moves a path with everything below it; what stands in the way goes.
    pub fn rename(&mut self, from: &RelPath, to: &RelPath) -> io::Result<()> {
        let old = self.parent(from)?;
        let new = self.parent(to)?;
        self.forget(to);
        new.remove(to.name())?;
        rustix::fs::renameat(&old.fd, from.name(), &new.fd, to.name())?;
        self.last = None;
        let moved = |path: &RelPath| path.is_within(from);
        let dirs: Vec<RelPath> = self.dirs.keys().filter(|p| moved(p)).cloned().collect();
        for path in dirs {
            if let (Some(kept), Some(below)) = (self.dirs.remove(&path), path.strip(from)) {
                self.dirs.insert(to.join_path(&below), kept);
            }
        }
        Ok(())
    }

    /// Drops what is to be done at the end to directories at or below a path.
    fn forget(&mut self, path: &RelPath) {
        if self
            .last
            .as_ref()
            .is_some_and(|(last, _)| last.is_within(path))
        {
            self.last = None;
        }
        // A subtree is contiguous in canonical order.
        let below = self.dirs.range(path.clone()..).map(|(dir, _)| dir);
        let gone: Vec<RelPath> = below
            .take_while(|dir| dir.is_within(path))
            .cloned()
            .collect();
        for dir in gone {
            self.dirs.remove(&dir);
        }
    }

    /// Gives directories their times and default ACLs. Gives the extended attributes that the file
    /// system refused to keep, each with its file's name.
    pub fn finish(self) -> io::Result<Vec<String>> {
        for (path, (mtime, default)) in &self.dirs {
            let fd = open_beneath(self.root.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            if let Some(value) = default {
                self.own
                    .xattr(&xattr::proc_path(fd.as_fd(), b"")?, DEFAULT_ACL, value)?;
            }
            rustix::fs::futimens(&fd, &modified(*mtime))?;
        }
        let mut lost = self.own.lost.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *lost))
    }
}

impl Dir {
    /// Makes an empty regular file, to be written and then given to `seal`.
    pub fn create(&self, name: &[u8], meta: &Meta) -> io::Result<File> {
        let flags = OFlags::WRONLY
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::NOFOLLOW
            | OFlags::NOCTTY
            | OFlags::CLOEXEC;
        // The special bits come last: a change of owner would clear them.
        let mode = Mode::from_raw_mode(meta.mode & 0o777);
        let fd = self.replacing_with(name, || rustix::fs::openat(&self.fd, name, flags, mode))?;
        Ok(File::from(fd))
    }

    /// Opens a regular file for reading.
    pub fn open(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(
            &self.fd,
            name,
            flags,
            Mode::empty(),
        )?))
    }

    /// Gives a file that `create` made and that has its content its owner, mode, extended
    /// attributes and time, in the order that keeps each.
    pub fn seal(&self, file: &File, meta: &Meta) -> io::Result<()> {
        if self.inherits || (meta.uid, meta.gid) != (self.own.uid, self.own.gid) {
            self.own.chown(file.as_fd(), meta)?;
        }
        if meta.mode & (self.own.umask | 0o7000) != 0 {
            rustix::fs::fchmod(file, Mode::from_raw_mode(meta.mode))?;
        }
        if !meta.xattrs.is_empty() {
            let name = proc_fd(file.as_fd())?;
            for (attr, value) in &meta.xattrs {
                self.own.checked(attr, || {
                    // The magic link leads to the open file itself.
                    let flags = rustix::fs::XattrFlags::empty();
                    rustix::fs::setxattr(name.as_c_str(), &attr[..], value, flags)
                })?;
            }
        }
        Ok(rustix::fs::futimens(file, &modified(meta.mtime))?)
    }

    /// Makes a symbolic link, device or named pipe.
    fn special(&self, name: &[u8], meta: &Meta) -> io::Result<()> {
        let perm = Mode::from_raw_mode(meta.mode & 0o777);
        let (kind, device) = match meta.kind {
            Kind::Char => (FileType::CharacterDevice, device(meta)),
            Kind::Block => (FileType::BlockDevice, device(meta)),
            _ => (FileType::Fifo, 0),
        };
        let is_device = matches!(meta.kind, Kind::Char | Kind::Block);
        self.replacing(name, || match meta.kind {
            Kind::Symlink => rustix::fs::symlinkat(&meta.target[..], &self.fd, name),
            _ => match rustix::fs::mknodat(&self.fd, name, kind, perm, device) {
                Err(Errno::PERM) if is_device && self.own.devices == Devices::StoodInFor => {
                    self.own.lose(DEVICE_NODES);
                    rustix::fs::mknodat(&self.fd, name, FileType::RegularFile, perm, 0)
                }
                other => other,
            },
        })?;
        if self.inherits || (meta.uid, meta.gid) != (self.own.uid, self.own.gid) {
            let (uid, gid) = self.own.owner(meta);
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(&self.fd, name, uid, gid, flags)?;
        }
        if meta.kind != Kind::Symlink && meta.mode & (self.own.umask | 0o7000) != 0 {
            // Nobody else writes here, so the name is still the node that was just made.
            let mode = Mode::from_raw_mode(meta.mode);
            rustix::fs::chmodat(&self.fd, name, mode, AtFlags::empty())?;
        }
        for (attr, value) in &meta.xattrs {
            let path = xattr::proc_path(self.fd.as_fd(), name)?;
            self.own.xattr(&path, attr, value)?;
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::utimensat(
            &self.fd,
            name,
            &modified(meta.mtime),
            flags,
        )?)
    }

    /// Makes a directory where there is none; tells whether it had to.
    fn make(&self, name: &[u8]) -> io::Result<bool> {
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => return Ok(true),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let there = rustix::fs::statat(&self.fd, name, flags)?.st_mode;
        if FileType::from_raw_mode(there) == FileType::Directory {
            return Ok(false);
        }
        self.remove(name)?;
        rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o755))?;
        Ok(true)
    }

    fn replacing(&self, name: &[u8], make: impl Fn() -> Result<(), Errno>) -> io::Result<()> {
        self.replacing_with(name, make)
    }

    /// Makes something; where its name is taken, removes what has it and tries again.
    fn replacing_with<T>(&self, name: &[u8], make: impl Fn() -> Result<T, Errno>) -> io::Result<T> {
        match make() {
            Err(Errno::EXIST) => {
                self.remove(name)?;
                Ok(make()?)
            }
            other => Ok(other?),
        }
    }

    /// Removes a name and everything below it.
    fn remove(&self, name: &[u8]) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => {}
            Err(error) => return Err(error.into()),
        }
        // Directories are opened by path and closed at once: depth costs no descriptors.
        let top = RelPath::root().join(name);
        let mut todo = vec![top];
        while let Some(path) = todo.last().cloned() {
            let dir = open_dir(self.fd.as_fd(), &path)?;
            let mut empty = true;
            for child in names(dir.as_fd())? {
                match rustix::fs::unlinkat(&dir, &child[..], AtFlags::empty()) {
                    Err(Errno::ISDIR) => {
                        empty = false;
                        todo.push(path.join(&child));
                    }
                    other => other?,
                }
            }
            if empty {
                rustix::fs::unlinkat(&self.fd, path.as_path(), AtFlags::REMOVEDIR)?;
                todo.pop();
            }
        }
        Ok(())
    }
}

impl Own {
    /// Gives the owner and group that a file can be given.
    fn owner(&self, meta: &Meta) -> (Option<Uid>, Option<Gid>) {
        let (uid, gid) = self.ids.known(meta.uid, meta.gid);
        (uid.map(Uid::from_raw), gid.map(Gid::from_raw))
    }

    fn chown(&self, fd: BorrowedFd<'_>, meta: &Meta) -> io::Result<()> {
        let (uid, gid) = self.owner(meta);
        Ok(rustix::fs::fchown(fd, uid, gid)?)
    }

    fn lose(&self, what: &str) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if !lost.iter().any(|known| known == what) {
            lost.push(what.to_owned());
        }
    }

    fn xattr(&self, path: &std::ffi::CStr, name: &[u8], value: &[u8]) -> io::Result<()> {
        self.checked(name, || xattr::set(path, name, value))
    }

    /// Lets a refusal of an attribute pass, except of a file's capabilities, without which a
    /// program does not work.
    fn checked(&self, name: &[u8], set: impl Fn() -> Result<(), Errno>) -> io::Result<()> {
        match set() {
            Err(Errno::OPNOTSUPP | Errno::PERM) if name != b"security.capability" => {
                self.lose(&String::from_utf8_lossy(name));
                Ok(())
            }
            other => Ok(other?),
        }
    }
}

/// Copies all of a reader in large pieces.
pub(crate) fn copy(from: &mut dyn Read, to: &mut File) -> io::Result<u64> {
    let mut buffer = vec![0; 128 << 10];
    let mut total = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(len) => {
                to.write_all(buffer.get(..len).unwrap_or_default())?;
                total += len as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn proc_fd(fd: BorrowedFd<'_>) -> io::Result<std::ffi::CString> {
    use std::os::fd::AsRawFd;
    std::ffi::CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Tells whether a file lies on an overlay.
fn is_overlay(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstatfs(fd).is_ok_and(|about| about.f_type == OVERLAY)
}

fn device(meta: &Meta) -> Dev {
    rustix::fs::makedev(meta.device.0, meta.device.1)
}

/// Gives what sets a file's time of last modification alone.
pub fn modified(mtime: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.secs,
            tv_nsec: mtime.nanos.into(),
        },
    }
}

/// Reads the process's file mode mask; everything where it cannot be read, which only costs calls.
fn umask() -> u32 {
    // The call of that name can only be asked by setting it, for all threads.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok())
        .unwrap_or(0o777)
}
