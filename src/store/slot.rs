use super::gate;
use super::remove::{remove_tree, remove_tree_until};
use super::session::{Session, make_dir};
use super::{Error, LAYERS, LOCKS, owned_room};
use crate::oci::Digest;
use crate::sys::Cancel;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the end of a build may wait for its scratch directory to be removed.
const REMOVAL: Duration = Duration::from_secs(1);

/// The files of a layer, or the right to make them.
pub enum LayerSlot {
    /// They are there.
    Ready(PathBuf),
    /// They are to be made in `dir` and put in place by `commit`.
    Vacant(VacantLayer),
}

/// The right to unpack a layer, held until it is dropped or committed.
pub struct VacantLayer {
    /// Held for its lock.
    pub lock: File,
    /// The directory to unpack into; empty at first, mode 0700.
    pub dir: PathBuf,
    /// Where it goes.
    pub place: PathBuf,
    session: Arc<Session>,
}

/// How long is waited before a lock that somebody holds is tried again: nothing tells when it is
/// let go of and when the build is cancelled at the same time.
const AGAIN: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// Waits for a file's lock; `None` where the build is cancelled before that.
pub(super) fn lock(file: &File, cancel: &Cancel) -> io::Result<Option<()>> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(())),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(TryLockError::Error(e)) => return Err(e),
        }
        if pause(cancel)?.is_none() {
            return Ok(None);
        }
    }
}

/// Waits a moment; `None` where the build is cancelled.
pub(super) fn pause(cancel: &Cancel) -> io::Result<Option<()>> {
    let mut switch = [PollFd::new(cancel, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut switch, Some(&AGAIN)))?;
    Ok((!cancel.is_set()).then_some(()))
}

pub(super) fn layer(
    session: &Arc<Session>,
    chain_id: &Digest,
    beside: &dyn Fn() -> Option<PathBuf>,
    cancel: &Cancel,
) -> Result<LayerSlot, Error> {
    let place = session.store.join(owned_room(LAYERS)).join(chain_id.hex());
    let path = session.store.join(LOCKS).join(chain_id.hex());
    if hold(session, &place, &path)? {
        return Ok(LayerSlot::Ready(place));
    }
    if let Some(there) = beside() {
        return Ok(LayerSlot::Ready(there));
    }
    let file = loop {
        let file = open_lock(&path).map_err(|e| session.fail("open", &path, e))?;
        lock(&file, cancel)
            .map_err(|e| session.fail("lock", &path, e))?
            .ok_or(Error::Cancelled)?;
        if is_at(&file, &path) {
            break file;
        }
    };
    if hold(session, &place, &path)? {
        return Ok(LayerSlot::Ready(place));
    }
    let dir = session.name();
    make_dir(&dir).map_err(|e| session.fail("create", &dir, e))?;
    Ok(LayerSlot::Vacant(VacantLayer {
        lock: file,
        dir,
        place,
        session: Arc::clone(session),
    }))
}

/// Looks a layer up; one that is there stays until this opening of the store ends. When a layer was
/// wanted last is noted on the file of its lock, since commands see the directory's own time.
fn hold(session: &Session, place: &Path, lock: &Path) -> Result<bool, Error> {
    let gate = session.gate()?;
    if !place.is_dir() {
        return Ok(false);
    }
    if session.hold_in(&gate, lock)?.is_none() {
        let made = open_lock(lock).and_then(|file| gate::note(&file, gate.now()?));
        made.map_err(|e| session.fail("note the use of", lock, e))?;
    }
    Ok(true)
}

pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Tells whether an open file is still what its name stands for. Who waited for the lock of one that
/// was taken away meanwhile has waited for nothing.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    let id = |meta: Metadata| (meta.dev(), meta.ino());
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(mine), Ok(there)) => id(mine) == id(there),
        _ => false,
    }
}

impl VacantLayer {
    /// Puts the files in place; gives where they are.
    pub fn commit(self) -> Result<PathBuf, Error> {
        let gate = self.session.gate()?;
        let noted = gate.now().and_then(|now| gate::note(&self.lock, now));
        noted
            .and_then(|()| fs::rename(&self.dir, &self.place))
            .map_err(|e| self.session.fail("put in place", &self.place, e))?;
        Ok(self.place.clone())
    }

    /// Gives the files for this opening of the store alone; the next one that wants them makes its own.
    pub fn use_once(self) -> Result<PathBuf, Error> {
        let dir = self.session.name();
        fs::rename(&self.dir, &dir).map_err(|e| self.session.fail("put in place", &dir, e))?;
        Ok(dir)
    }
}

/// Puts a directory with a layer's files in place, where nobody has them or is making them.
pub(super) fn adopt(session: &Session, chain_id: &Digest, dir: &Path) -> Result<(), Error> {
    let place = session.store.join(owned_room(LAYERS)).join(chain_id.hex());
    let path = session.store.join(LOCKS).join(chain_id.hex());
    let lock = open_lock(&path).map_err(|e| session.fail("open", &path, e))?;
    let gate = session.gate()?;
    if lock.try_lock().is_err() || !is_at(&lock, &path) || place.exists() {
        return Ok(());
    }
    let noted = gate.now().and_then(|now| gate::note(&lock, now));
    noted
        .and_then(|()| fs::rename(dir, &place))
        .map_err(|e| session.fail("put in place", &place, e))
}

impl Drop for VacantLayer {
    fn drop(&mut self) {
        let _ = remove_tree(&self.dir);
    }
}

/// A directory of a running build. Dropping it removes it with everything in it; what cannot be
/// removed within a second (150,000 files took 8 s), and what is still mounted below, is left to the
/// next `open` of the store, which sweeps beside the build it is for.
pub struct Scratch {
    /// The directory; empty at first, mode 0700.
    pub dir: PathBuf,
    /// Held for its lock.
    pub lock: File,
}

impl Scratch {
    /// Removes it now and says what went wrong.
    pub fn remove(self) -> io::Result<()> {
        remove_tree(&self.dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let end = Instant::now() + REMOVAL;
        let _ = remove_tree_until(&self.dir, Some(end));
    }
}
