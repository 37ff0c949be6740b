//! Directories that commands keep between builds: the caches of package managers and compilers.
//!
//! A cache is known by a key, and has as many copies as were wanted at the same time by those who
//! do not share. A copy is in use as long as somebody holds its lock.

use super::gate::{note, now};
use super::remove::remove_tree;
use super::session::{Session, make_dir};
use super::slot::{is_at, lock, open_lock, pause};
use super::{CACHES, Error, owned_room};
use crate::sys::Cancel;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a key begins with, so that another way of making keys makes other ones.
const FRAME: &str = "shutter cache mount 1";

/// Who else may use a cache meanwhile; the strictest is last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CacheSharing {
    /// All who share it too.
    Shared,
    /// Nobody: where every copy is in use, a new one is made.
    Private,
    /// Nobody: where every copy is in use, one is waited for.
    Locked,
}

/// What a cache is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CacheKey {
    hex: String,
    id: String,
}

impl CacheKey {
    /// Makes the key of an id and of what a new copy starts with: any bytes, none alike for two
    /// different beginnings.
    pub fn new(id: &str, start: &[u8]) -> CacheKey {
        let mut hash = blake3::Hasher::new_derive_key(FRAME);
        for part in [id.as_bytes(), start] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        CacheKey {
            hex: hash.finalize().to_hex().to_string(),
            id: id.to_owned(),
        }
    }
}

/// A copy of a cache, in use until this is dropped.
#[derive(Debug)]
pub struct Cache {
    /// The directory.
    pub dir: PathBuf,
    /// Held for its lock, which lies where no command sees it. Its time is that of the last use.
    lock: File,
}

/// What fills a new copy, which is an empty directory with mode 0700.
pub type Fill<'a> = &'a dyn Fn(&Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Finds a copy that may be used, or makes one. `waits` is told once where a copy has to be waited for.
pub(super) fn take(
    session: &Arc<Session>,
    key: &CacheKey,
    sharing: CacheSharing,
    fill: Fill<'_>,
    waits: &dyn Fn(),
    cancel: &Cancel,
) -> Result<Cache, Error> {
    let room = session.store.join(owned_room(CACHES)).join(&key.hex);
    let mut told = false;
    loop {
        let choice = room.join("lock");
        let guard = match open_lock(&choice) {
            // The whole cache has just been taken away, or it is the first.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                match make_dir(&room) {
                    Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(session.fail("create", &room, e));
                    }
                    _ => {}
                }
                continue;
            }
            other => other.map_err(|e| session.fail("open", &choice, e))?,
        };
        lock(&guard, cancel)
            .map_err(|e| session.fail("lock", &choice, e))?
            .ok_or(Error::Cancelled)?;
        if !is_at(&guard, &choice) {
            continue;
        }
        let copies = copies(&room).map_err(|e| session.fail("list", &room, e))?;
        for number in &copies {
            let copy = room.join(number.to_string());
            let found = try_copy(&copy, sharing).map_err(|e| session.fail("lock", &copy, e))?;
            if let Some(cache) = found {
                note(&cache.lock, now()).map_err(|e| session.fail("note the use of", &copy, e))?;
                if !cache.dir.exists() {
                    refill(session, &cache, key, fill)?;
                }
                return Ok(cache);
            }
        }
        if copies.is_empty() || sharing != CacheSharing::Locked {
            let number = copies.last().map_or(0, |last| last + 1);
            let about = room.join("id");
            if !about.exists() {
                session.write_file(&about, key.id.as_bytes())?;
            }
            return make(session, &room.join(number.to_string()), key, sharing, fill);
        }
        drop(guard);
        if !told {
            waits();
            told = true;
        }
        pause(cancel)
            .map_err(|e| session.fail("wait for", &room, e))?
            .ok_or(Error::Cancelled)?;
    }
}

/// Takes a copy again that was in use before; `None` where somebody else has it by now, or it is gone.
pub(super) fn take_again(
    session: &Session,
    dir: &Path,
    sharing: CacheSharing,
) -> Result<Option<Cache>, Error> {
    let Some(copy) = dir.parent() else {
        return Ok(None);
    };
    let found = match try_copy(copy, sharing) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        found => found.map_err(|e| session.fail("lock", copy, e))?,
    };
    // It may have been taken away meanwhile.
    Ok(found.filter(|cache| is_at(&cache.lock, &copy.join("lock")) && cache.dir.is_dir()))
}

/// Gives the numbers of the copies there are, in order.
pub(super) fn copies(room: &Path) -> io::Result<Vec<u32>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(room)? {
        let number = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok());
        out.extend(number);
    }
    out.sort_unstable();
    Ok(out)
}

/// Locks a file as its use wants it; `None` where somebody else's use forbids it.
fn try_lock(file: &File, sharing: CacheSharing) -> io::Result<Option<()>> {
    loop {
        let tried = match sharing {
            CacheSharing::Shared => file.try_lock_shared(),
            CacheSharing::Private | CacheSharing::Locked => file.try_lock(),
        };
        match tried {
            Ok(()) => return Ok(Some(())),
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(TryLockError::Error(e)) => return Err(e),
        }
    }
}

fn try_copy(copy: &Path, sharing: CacheSharing) -> io::Result<Option<Cache>> {
    let lock = open_lock(&copy.join("lock"))?;
    Ok(try_lock(&lock, sharing)?.map(|()| Cache {
        dir: copy.join("files"),
        lock,
    }))
}

/// Makes the directory of a copy anew. It is missing where a build that had it in the root of a
/// command was killed with all its processes. The caller has locked the copy and the choice.
fn refill(
    session: &Arc<Session>,
    cache: &Cache,
    key: &CacheKey,
    fill: Fill<'_>,
) -> Result<(), Error> {
    let dir = session.name();
    make_dir(&dir).map_err(|e| session.fail("create", &dir, e))?;
    let filled = fill(&dir).map_err(|source| Error::Fill {
        id: key.id.clone(),
        source,
    });
    let result = filled.and_then(|()| {
        fs::rename(&dir, &cache.dir).map_err(|e| session.fail("put in place", &cache.dir, e))
    });
    if result.is_err() {
        // What is left goes with the session.
        let _ = remove_tree(&dir);
    }
    result
}

/// Makes a copy beside and puts it in place, locked already.
fn make(
    session: &Arc<Session>,
    place: &Path,
    key: &CacheKey,
    sharing: CacheSharing,
    fill: Fill<'_>,
) -> Result<Cache, Error> {
    let dir = session.name();
    let made = || -> Result<Cache, Error> {
        let files = dir.join("files");
        for dir in [&dir, &files] {
            make_dir(dir).map_err(|e| session.fail("create", dir, e))?;
        }
        let path = dir.join("lock");
        let lock = open_lock(&path).map_err(|e| session.fail("create", &path, e))?;
        // Nobody else knows of it yet.
        try_lock(&lock, sharing).map_err(|e| session.fail("lock", &path, e))?;
        fill(&files).map_err(|source| Error::Fill {
            id: key.id.clone(),
            source,
        })?;
        fs::rename(&dir, place).map_err(|e| session.fail("put in place", place, e))?;
        Ok(Cache {
            dir: place.join("files"),
            lock,
        })
    };
    let result = made();
    if result.is_err() {
        // What is left goes with the session.
        let _ = remove_tree(&dir);
    }
    result
}
