//! The part of a store that belongs to one opening of it: names for what is being made, and the
//! sweep of what dead owners left.

use super::Error;
use super::remove::remove_tree;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A directory in `tmp/`, locked for as long as this value lives.
pub(super) struct Session {
    /// The store.
    pub store: PathBuf,
    /// The directory.
    pub own: PathBuf,
    next: AtomicU64,
    _lock: File,
}

impl Session {
    pub fn start(store: &Path) -> Result<Session, Error> {
        let (dir, lock) = locked_dir(&store.join("tmp"))
            .map_err(|e| Error::io(store, "create a directory in", &store.join("tmp"), e))?;
        Ok(Session {
            store: store.to_owned(),
            own: dir,
            next: AtomicU64::new(0),
            _lock: lock,
        })
    }

    /// Gives a path that nothing else has.
    pub fn name(&self) -> PathBuf {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        self.own.join(n.to_string())
    }

    /// Writes a file so that it is there whole or not at all.
    pub fn write_file(&self, place: &Path, bytes: &[u8]) -> Result<(), Error> {
        let path = self.name();
        let result = fs::write(&path, bytes)
            .map_err(|e| self.fail("write", &path, e))
            .and_then(|()| {
                fs::rename(&path, place).map_err(|e| self.fail("put in place", place, e))
            });
        if result.is_err() {
            let _ = fs::remove_file(&path);
        }
        result
    }

    /// Makes an error of a failed file operation.
    pub fn fail(&self, action: &'static str, path: &Path, source: io::Error) -> Error {
        Error::io(&self.store, action, path, source)
    }

    /// Tells whether nobody else has the store open.
    pub fn is_alone(&self) -> bool {
        let Ok(entries) = fs::read_dir(self.store.join("tmp")) else {
            return false;
        };
        let mut others = entries.flatten().map(|entry| entry.path());
        others.all(|path| path == self.own || abandoned(&path).is_some())
    }

    /// Takes over what dead owners left in `tmp/` and `run/`; gives the directory it is in now,
    /// where there was any. What cannot be moved stays for another time.
    pub fn sweep(&self) -> Option<PathBuf> {
        let trash = self.name();
        let mut found = false;
        for room in ["tmp", "run"] {
            let Ok(entries) = fs::read_dir(self.store.join(room)) else {
                continue;
            };
            for entry in entries.flatten() {
                let path = entry.path();
                if path == self.own {
                    continue;
                }
                // Held until the name is gone from where an owner would look for it.
                let Some(_lock) = abandoned(&path) else {
                    continue;
                };
                if !found {
                    found = make_dir(&trash).is_ok();
                }
                let _ = fs::rename(
                    &path,
                    trash.join(self.name().file_name().unwrap_or_default()),
                );
            }
        }
        found.then_some(trash)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = remove_tree(&self.own);
    }
}

/// Opens something whose lock nobody holds, and locks it.
fn abandoned(path: &Path) -> Option<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .ok()?;
    match file.try_lock() {
        Ok(()) => Some(file),
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => None,
    }
}

/// Waits for a file's lock.
fn lock(file: &File) -> io::Result<()> {
    loop {
        match file.lock() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Makes a directory that only its owner may enter.
pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Asks the file system to put what is made in a directory far apart, where it can (ext4's top
/// directory flag). Builds delete and make many files; ext4 does not use an inode again for minutes
/// after it was deleted and looks past all of those one by one, so that making 50,000 files just
/// beside 50,000 deleted ones took 10 s where it takes 1 s elsewhere.
pub(super) fn spread(dir: &Path) {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    if let Ok(dir) = File::open(dir)
        && let Ok(flags) = ioctl_getflags(&dir)
        && !flags.contains(IFlags::TOPDIR)
    {
        // A file system without the flag has its own ways.
        let _ = ioctl_setflags(&dir, flags | IFlags::TOPDIR);
    }
}

/// Makes a directory with a new name and locks it.
pub(super) fn locked_dir(parent: &Path) -> io::Result<(PathBuf, File)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let nanos = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos());
        let path = parent.join(OsString::from(format!(
            "{}-{n}-{nanos:x}",
            std::process::id()
        )));
        match make_dir(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            other => other?,
        }
        // Between making and locking it, another process may have swept it away as abandoned.
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        lock(&file)?;
        let (mine, there) = (file.metadata()?, fs::symlink_metadata(&path));
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (mine.dev(), mine.ino())) {
            return Ok((path, file));
        }
    }
}
