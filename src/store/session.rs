//! The part of a store that belongs to one opening of it: names for what is being made, what it holds
//! on to, and the sweep of what dead owners left.

use super::gate::{self, Gate};
use super::remove::remove_tree;
use super::{Error, space};
use crate::fs::Time;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
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
    /// When it began, by the store's clock: nothing that was wanted since is taken away before it ends.
    pub start: Time,
    next: AtomicU64,
    _lock: File,
}

impl Session {
    pub fn start(store: &Path) -> Result<Session, Error> {
        let begin = || -> io::Result<Session> {
            let start = Gate::alone(store)?.advance()?;
            let (dir, lock) = locked_dir(&store.join("tmp"), start)?;
            Ok(Session {
                store: store.to_owned(),
                own: dir,
                start,
                next: AtomicU64::new(0),
                _lock: lock,
            })
        };
        begin().map_err(|e| Error::io(store, "create a directory in", &store.join("tmp"), e))
    }

    /// Goes through the gate together with others.
    pub fn gate(&self) -> Result<Gate, Error> {
        let gate = Gate::together(&self.store);
        gate.map_err(|e| self.fail("lock", &self.store.join(gate::GATE), e))
    }

    /// Looks a name of the store up. What is there stays until this opening of the store ends.
    pub fn hold(&self, path: &Path) -> Result<Option<Metadata>, Error> {
        self.hold_in(&self.gate()?, path)
    }

    /// Does what `hold` does for who is in the gate.
    pub fn hold_in(&self, gate: &Gate, path: &Path) -> Result<Option<Metadata>, Error> {
        let meta = match fs::symlink_metadata(path) {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(self.fail("look up", path, e)),
        };
        // Once an opening: what is later than its beginning says enough.
        if gate::modified(&meta) < self.start {
            let noted = gate.now().and_then(|now| gate::note_at(path, now));
            noted.map_err(|e| self.fail("note the use of", path, e))?;
        }
        Ok(Some(meta))
    }

    /// Puts what was made under its name, held like what was looked up.
    pub fn place(&self, made: &Path, place: &Path) -> Result<(), Error> {
        self.place_in(&self.gate()?, made, place)
    }

    /// Does what `place` does for who is in the gate.
    pub fn place_in(&self, gate: &Gate, made: &Path, place: &Path) -> Result<(), Error> {
        let noted = gate.now().and_then(|now| gate::note_at(made, now));
        noted
            .and_then(|()| fs::rename(made, place))
            .map_err(|e| self.fail("put in place", place, e))
    }

    /// Gives the beginning of the oldest opening of the store that has not ended, this one included. To
    /// be called by who is alone in the gate, for whom it does not change.
    pub fn oldest(&self, _alone: &Gate) -> io::Result<Time> {
        let mut oldest = self.start;
        for entry in fs::read_dir(self.store.join("tmp"))? {
            let path = entry?.path();
            if path == self.own {
                continue;
            }
            let file = match open_to_lock(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                // Whose it is cannot be told.
                Err(_) => return Ok(Time::default()),
            };
            match file.try_lock_shared() {
                Ok(()) => {}
                Err(_) => oldest = oldest.min(start_of(&path)),
            }
        }
        Ok(oldest)
    }

    /// Gives a path that nothing else has.
    pub fn name(&self) -> PathBuf {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        self.own.join(n.to_string())
    }

    /// Writes a file so that it is there whole or not at all.
    pub fn write_file(&self, place: &Path, bytes: &[u8]) -> Result<(), Error> {
        self.write_with(bytes, |path| self.place(path, place))
    }

    /// Does the same for who is in the gate.
    pub fn write_file_in(&self, gate: &Gate, place: &Path, bytes: &[u8]) -> Result<(), Error> {
        self.write_with(bytes, |path| self.place_in(gate, path, place))
    }

    fn write_with(
        &self,
        bytes: &[u8],
        put: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let path = self.name();
        let result = fs::write(&path, bytes)
            .map_err(|e| self.fail("write", &path, e))
            .and_then(|()| put(&path));
        if result.is_err() {
            let _ = fs::remove_file(&path);
        }
        result
    }

    /// Makes an error of a failed file operation.
    pub fn fail(&self, action: &'static str, path: &Path, source: io::Error) -> Error {
        Error::io(&self.store, action, path, source)
    }

    /// Tells whether nobody else has the store open. To be called by who is alone in the gate, so that
    /// nobody who has just opened it looks anything up meanwhile.
    pub fn is_alone(&self, _alone: &Gate) -> bool {
        let Ok(entries) = fs::read_dir(self.store.join("tmp")) else {
            return false;
        };
        let mut others = entries.flatten().map(|entry| entry.path());
        others.all(|path| path == self.own || abandoned(&path).is_some())
    }

    /// Takes over what dead owners left in `tmp/`, `run/` and the store itself; gives the directory it
    /// is in now, where there was any. What cannot be moved stays for another time.
    pub fn sweep(&self) -> Option<PathBuf> {
        let trash = self.name();
        let mut found = false;
        for room in ["tmp", "run", ""] {
            let Ok(entries) = fs::read_dir(self.store.join(room)) else {
                continue;
            };
            for entry in entries.flatten() {
                let path = entry.path();
                let is_trial = entry
                    .file_name()
                    .as_encoded_bytes()
                    .starts_with(space::TRIAL.as_bytes());
                if path == self.own || room.is_empty() && !is_trial {
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

/// Opens something for its lock.
pub(super) fn open_to_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}

/// Gives when an opening of the store began, by its directory's name; the beginning of time where it
/// does not say.
fn start_of(dir: &Path) -> Time {
    let name = dir.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let nanos = name.rsplit('-').next();
    let nanos = nanos.and_then(|text| u64::from_str_radix(text, 16).ok());
    let nanos = nanos.unwrap_or(0);
    Time {
        secs: i64::try_from(nanos / NANOS).unwrap_or(0),
        nanos: u32::try_from(nanos % NANOS).unwrap_or(0),
    }
}

/// A second.
const NANOS: u64 = 1_000_000_000;

/// Opens something whose lock nobody holds, and locks it.
pub(super) fn abandoned(path: &Path) -> Option<File> {
    let file = open_to_lock(path).ok()?;
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

/// Makes a directory with a new name, which says a time, and locks it.
pub(super) fn locked_dir(parent: &Path, time: Time) -> io::Result<(PathBuf, File)> {
    locked_dir_named(parent, "", time)
}

/// Does the same with a name that begins as told.
pub(super) fn locked_dir_named(
    parent: &Path,
    prefix: &str,
    time: Time,
) -> io::Result<(PathBuf, File)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let secs = u64::try_from(time.secs).unwrap_or(0);
    let nanos = secs.saturating_mul(NANOS).saturating_add(time.nanos.into());
    loop {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(OsString::from(format!(
            "{prefix}{}-{n}-{nanos:x}",
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
