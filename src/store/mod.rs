//! Content-addressed blobs, unpacked layers and the caches of commands on disk: ingest, locks, and
//! taking away what nobody wants any more.
//!
//! ```text
//! STORE/
//!   version                   what wrote this directory, in which layout
//!   blobs/sha256/HEX          a blob, whole and verified, read-only
//!   tocs/HEX                  table of contents of a layer, by diff ID
//!   layers/HEX/               files of a layer, unpacked, by chain ID (overlay form)
//!   layers-MARK/, caches-MARK/    the same in a user namespace with this map of ids
//!   refs/HEX/HEX              descriptor of a blob that is a compressed form of a diff ID
//!   steps/HEX                 what a step made, by its key (`cache`)
//!   contents/HEX              what the files of a context had in them
//!   names/HEX                 what an image's name stood for last: a manifest or an index
//!   tmp/NAME/                 what one opening of the store is making; the directory is locked
//!   run/NAME/                 scratch directories of running builds, locked likewise
//!   locks/HEX                 one file a unit of work that is done once
//!   locks/gate                the gate; its time is the store's clock
//!   caches/HEX/               a directory that commands keep between builds, by id and beginning
//!     id                      its id
//!     lock                    held while a copy is chosen or made
//!     N/files/                the Nth copy
//!     N/lock                  held while that is in use
//!   .trial-NAME/              a scratch directory of somebody who only tries something, locked
//! ```
//!
//! Everything is made in `tmp/` and renamed into place, so a name outside of `tmp/` and `run/` is
//! whole whenever a process is killed. Locks are `flock`s: they end with the process that holds
//! them, on whatever machine that is, and `open` clears away what lies there without one.
//!
//! # What is taken away, and what never is
//!
//! When something was wanted last is its time of modification: a blob's, a toc's and a step's own,
//! that of its lock for a layer and for a copy of a cache. Whoever looks something up notes the time
//! where what is noted is older than its own opening of the store, so at most once a build.
//!
//! [`Store::collect`] takes away by renaming into its own directory in `tmp/`; the removal comes after.
//! Killed anywhere, it leaves names that are whole and a directory that the next `open` clears away.
//! A blob's notes in `refs/` go before it.
//!
//! It never takes what an opening S of the store that has not ended has put in place or looked up.
//! All of these pass the gate, together; who takes away passes it alone, for a few milliseconds, and
//! takes only what was wanted before every opening began that has not ended, itself included:
//!
//! 1. The clock (`locks/gate`) never goes back. S turns it on, alone in the gate, and its beginning is
//!    the time that is there then. So whatever is noted later, by anyone, is not before S's beginning,
//!    however the clocks of machines differ that share the store.
//! 2. Then S locks its directory in `tmp/`, whose name says the beginning, before it looks anything up.
//! 3. What S put in place or looked up has a time not before S's beginning when S leaves the gate, and
//!    by 1 no time that comes later is before it.
//! 4. Who takes something away after that finds S's directory locked, reads the beginning off its name,
//!    and leaves what is not older. Who took it before S was in the gate has renamed it by then, and S
//!    does not find it. Nobody takes anything while S is in the gate.
//!
//! So nobody waits for a whole collection, and builds do not wait for each other. What lies below a
//! mounted overlay was looked up by the build that mounted it. A copy of a cache is in use as long as
//! its lock is held, and only then. Who can write nothing, since the store is on a volume that is
//! mounted read-only, holds a lock on the very file or directory it reads, which whoever takes away
//! tries first.
//!
//! All this asks of a file system is that it keeps times and that `flock` works between all who share
//! it; one over a network must show a file's time anew when it is opened.
//!
//! # Power cuts
//!
//! Nothing is synced to the disk. After a power cut the file system may have kept a name and lost
//! its bytes; a blob is then found out by its size or by the registry that it is pushed to, or by
//! `shutter store verify`. Whoever cannot live with that removes the store, which costs no more than a slower
//! build.

mod beside;
mod caches;
mod collect;
mod contents;
mod gate;
mod ingest;
mod names;
mod remove;
mod session;
mod slot;
mod space;
mod steps;
mod stock;
#[cfg(test)]
mod tests;
mod verify;

pub use caches::{Cache, CacheKey, CacheSharing, Fill};
pub use collect::{Collected, Doing, Limits};
pub use contents::Contents;
pub use ingest::Ingest;
pub use remove::remove_tree;
pub use slot::{LayerSlot, Scratch, VacantLayer};
pub use space::{Bytes, Fitness, Space, Trial, fitness, space, unpacked_size};
pub use steps::{StepTurn, UploadTurn};
pub use stock::{Item, Kind, Stock, stock};
pub use verify::{Fault, Stays, verify};

use crate::fs::{Ids, Toc};
use crate::oci::{Descriptor, Digest, Sha256};
use crate::sys::Cancel;
use beside::Beside;
use gate::Gate;
use session::{Session, abandoned, locked_dir};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

const BLOBS: &str = "blobs/sha256";
const TOCS: &str = "tocs";
const LAYERS: &str = "layers";
const REFS: &str = "refs";
const LOCKS: &str = "locks";
const CACHES: &str = "caches";
const NAMES: &str = "names";
const RUN: &str = "run";
const STEPS: &str = "steps";
const CONTENTS: &str = "contents";

/// The content of the version file.
const VERSION: &str = "shutter store 1\n";

/// Gives the room of files that have owners. In a user namespace that is another one for each map of
/// ids: elsewhere the same files belong to others, and what overlayfs has noted on them is not seen.
fn owned_room(name: &str) -> String {
    match crate::sys::in_user_namespace() {
        true => format!("{name}-{}", Ids::here().mark()),
        false => name.to_owned(),
    }
}

/// What went wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{action} {path}")]
    Io {
        /// What was tried: "create", "rename".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no room left.
    #[error("no space left for the store {store}: free some there or put the store elsewhere")]
    Full {
        /// The store.
        store: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A blob's bytes are not what its digest says.
    #[error("blob {wanted} has digest {got} and {size} bytes")]
    Mismatch {
        /// The digest asked for.
        wanted: Digest,
        /// The digest of the bytes.
        got: Digest,
        /// How many bytes came.
        size: u64,
    },
    /// What a new cache starts with could not be put into it.
    #[error("fill the new cache {id}")]
    Fill {
        /// Its id.
        id: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The build was cancelled while it waited for another one.
    #[error("cancelled")]
    Cancelled,
    /// The directory holds something else.
    #[error("{path} is no store: {why}")]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What is odd.
        why: String,
    },
}

impl Error {
    fn io(store: &Path, action: &'static str, path: &Path, source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full {
                store: store.to_owned(),
                source,
            },
            _ => Error::Io {
                action,
                path: path.to_owned(),
                source,
            },
        }
    }

    /// Wraps it for an interface that knows only `io::Error`; `from_io` takes it out again.
    pub fn into_io(self) -> io::Error {
        let kind = match &self {
            Error::Io { source, .. } | Error::Full { source, .. } => source.kind(),
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, self)
    }

    /// Takes out what `into_io` wrapped; anything else comes back.
    pub fn from_io(error: io::Error) -> Result<Error, io::Error> {
        error.downcast()
    }
}

/// A store on disk, shared by threads and processes.
///
/// Dropping it waits until the remains of dead builds that `open` found are removed.
pub struct Store {
    session: Arc<Session>,
    sweeper: Option<JoinHandle<()>>,
    beside: Option<Beside>,
}

impl Store {
    /// Opens a store, making it where there is none, and clears away what dead builds left.
    pub fn open(dir: &Path) -> Result<Store, Error> {
        let fail = |action, path: &Path, e| Error::io(dir, action, path, e);
        if dir.exists() && !dir.is_dir() {
            return Err(Error::Foreign {
                path: dir.to_owned(),
                why: "it is not a directory".into(),
            });
        }
        if !dir.is_dir() {
            fs::create_dir_all(dir).map_err(|e| fail("create", dir, e))?;
        }
        let dir = dir.canonicalize().map_err(|e| fail("open", dir, e))?;
        check_version(&dir)?;
        let rooms = [
            "blobs", BLOBS, TOCS, REFS, STEPS, CONTENTS, NAMES, "tmp", RUN, LOCKS,
        ]
        .map(str::to_owned);
        for room in rooms
            .into_iter()
            .chain([owned_room(LAYERS), owned_room(CACHES)])
        {
            let path = dir.join(&room);
            match session::make_dir(&path) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(fail("create", &path, e));
                }
                _ => {}
            }
            if room == "tmp" || room == RUN {
                session::spread(&path);
            }
        }
        let session = Session::start(&dir)?;
        let sweeper = session.sweep().and_then(|trash| {
            std::thread::Builder::new()
                .name("store-sweep".into())
                .spawn(move || {
                    // What cannot be removed today is found again by the next `open`.
                    let _ = remove_tree(&trash);
                })
                .ok()
        });
        Ok(Store {
            session: Arc::new(session),
            sweeper,
            beside: None,
        })
    }

    /// Gives the store's directory, absolute and without symbolic links.
    pub fn dir(&self) -> &Path {
        &self.session.store
    }

    /// Takes unpacked layers out of the store, for somebody who may move files out of them; gives their
    /// directories now, which go with this opening of the store. `None` where somebody else has the
    /// store open, who may be reading them. Who wants such a layer later unpacks it again.
    pub fn take_layers(&self, dirs: &[PathBuf]) -> Result<Option<Vec<PathBuf>>, Error> {
        let gate = Gate::alone(self.dir())
            .map_err(|e| self.session.fail("lock", &self.dir().join(gate::GATE), e))?;
        if !self.session.is_alone(&gate) || !dirs.iter().all(|dir| dir.starts_with(self.dir())) {
            return Ok(None);
        }
        // Who can only read the store has no directory in it, but locks what it reads.
        let Some(_locks) = dirs
            .iter()
            .map(|dir| abandoned(dir))
            .collect::<Option<Vec<_>>>()
        else {
            return Ok(None);
        };
        let take = |dir: &PathBuf| {
            let to = self.session.name();
            fs::rename(dir, &to).map_err(|e| self.session.fail("take out", dir, e))?;
            Ok(to)
        };
        dirs.iter().map(take).collect::<Result<_, _>>().map(Some)
    }

    /// Gives a blob's file where the store has it with just this size; one of another size is dropped.
    pub fn blob(&self, digest: &Digest, size: u64) -> Result<Option<PathBuf>, Error> {
        let path = blob_path(self.dir(), digest);
        match self.session.hold(&path)? {
            Some(meta) if meta.is_file() && meta.len() == size => Ok(Some(path)),
            Some(_) => match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    Err(self.session.fail("drop the damaged blob", &path, e))
                }
                _ => Ok(self.blob_beside(digest, size)),
            },
            None => Ok(self.blob_beside(digest, size)),
        }
    }

    fn blob_beside(&self, digest: &Digest, size: u64) -> Option<PathBuf> {
        self.beside.as_ref()?.blob(digest, size)
    }

    /// Gives a blob's file as `blob` does, where all of it is what its digest says; one that is not is
    /// dropped.
    pub fn check_blob(
        &self,
        digest: &Digest,
        size: u64,
        cancel: &Cancel,
    ) -> Result<Option<PathBuf>, Error> {
        let Some(path) = self.blob(digest, size)? else {
            return Ok(None);
        };
        let fail = |action, e| self.session.fail(action, &path, e);
        let mut file = fs::File::open(&path).map_err(|e| fail("open", e))?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            if cancel.is_set() {
                return Err(Error::Cancelled);
            }
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => hash.update(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(fail("read", e)),
            }
        }
        if hash.finish() == *digest {
            return Ok(Some(path));
        }
        if let Some(beside) = &self.beside
            && !path.starts_with(self.dir())
        {
            beside.refuse(digest);
            return Ok(None);
        }
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(fail("drop the damaged blob", e)),
            _ => Ok(None),
        }
    }

    /// Starts taking in a blob; nothing is seen of it before `commit`.
    pub fn ingest(&self) -> Result<Ingest, Error> {
        Ingest::start(&self.session, Some(Sha256::new()))
    }

    /// Starts taking in a blob that the caller hashes, to be ended by `commit_as`; `commit` would
    /// have to read it back.
    pub fn ingest_unhashed(&self) -> Result<Ingest, Error> {
        Ingest::start(&self.session, None)
    }

    /// Takes in a small blob whole.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::of(bytes);
        let there = self.blob(&digest, bytes.len() as u64)?;
        let whole = there.is_some_and(|path| fs::read(path).is_ok_and(|old| old == bytes));
        if !whole {
            let mut ingest = self.ingest_unhashed()?;
            ingest.append(bytes)?;
            ingest.commit_as(&digest)?;
        }
        Ok(digest)
    }

    /// Gives the table of contents of a layer. One that cannot be read is as good as none.
    pub fn toc(&self, diff_id: &Digest) -> Result<Option<Toc>, Error> {
        let path = self.dir().join(TOCS).join(diff_id.hex());
        let beside = || self.beside.as_ref()?.toc(diff_id);
        if self.session.hold(&path)?.is_none() {
            return Ok(beside());
        }
        match Toc::open(&path) {
            Ok(toc) => Ok(Some(toc)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(beside()),
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
                ) =>
            {
                let _ = fs::remove_file(&path);
                Ok(beside())
            }
            Err(e) => Err(self.session.fail("open", &path, e)),
        }
    }

    /// Keeps the table of contents of a layer.
    pub fn put_toc(&self, diff_id: &Digest, toc: &Toc) -> Result<(), Error> {
        let place = self.dir().join(TOCS).join(diff_id.hex());
        self.session.write_file(&place, &toc.to_bytes())
    }

    /// Gives the unpacked files of a layer by chain ID, or the right to unpack them. Waits while
    /// another thread or process unpacks the same one, whose lock dies with it, or until the build
    /// is cancelled.
    pub fn layer(&self, chain_id: &Digest, cancel: &Cancel) -> Result<LayerSlot, Error> {
        let beside = || self.beside.as_ref()?.layer(chain_id);
        slot::layer(&self.session, chain_id, &beside, cancel)
    }

    /// Puts a directory of this store's file system that has a layer's files in overlay form in place as
    /// that layer, by chain ID, unless it is there or somebody is making it.
    pub fn adopt_layer(&self, chain_id: &Digest, dir: &Path) -> Result<(), Error> {
        slot::adopt(&self.session, chain_id, dir)
    }

    /// Makes an empty directory for a running build; it goes when the value is dropped, or by the
    /// next `open` of the store where the process died.
    pub fn scratch(&self) -> Result<Scratch, Error> {
        let run = self.dir().join(RUN);
        let (dir, lock) = locked_dir(&run, self.session.start)
            .map_err(|e| self.session.fail("create a scratch directory in", &run, e))?;
        Ok(Scratch { dir, lock })
    }

    /// Gives a cache that commands keep between builds, to be used until it is dropped; a new one is
    /// filled first, and is there whole or not at all. A lock dies with its holder. `waits` is told
    /// once where all copies of a cache that is not shared are in use and one is waited for, which
    /// the end of the build ends.
    pub fn cache(
        &self,
        key: &CacheKey,
        sharing: CacheSharing,
        fill: Fill<'_>,
        waits: &dyn Fn(),
        cancel: &Cancel,
    ) -> Result<Cache, Error> {
        caches::take(&self.session, key, sharing, fill, waits, cancel)
    }

    /// Takes the directory of a cache again that was let go of; `None` where somebody else uses it by
    /// now in a way that forbids it, or it is gone.
    pub fn cache_again(&self, dir: &Path, sharing: CacheSharing) -> Result<Option<Cache>, Error> {
        caches::take_again(&self.session, dir, sharing)
    }

    /// Notes that a blob of the store is the compressed form of a diff ID.
    pub fn note_blob(&self, diff_id: &Digest, blob: &Descriptor) -> Result<(), Error> {
        let dir = self.dir().join(REFS).join(diff_id.hex());
        let place = dir.join(blob.digest.hex());
        // One pass for all of it: who takes blobs away has either read this note, or finds that the
        // blob was wanted since it began.
        let gate = self.session.gate()?;
        let path = blob_path(self.dir(), &blob.digest);
        match gate.now().and_then(|now| gate::note_at(&path, now)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|e| self.session.fail("note the use of", &path, e))?,
        }
        if place.exists() {
            return Ok(());
        }
        match session::make_dir(&dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(self.session.fail("create", &dir, e));
            }
            _ => {}
        }
        let json = serde_json::to_vec(blob).unwrap_or_default();
        self.session.write_file_in(&gate, &place, &json)
    }

    /// Gives the blobs noted as compressed forms of a diff ID that the store still has, in order of
    /// their digests.
    pub fn blobs_of(&self, diff_id: &Digest) -> Result<Vec<Descriptor>, Error> {
        let dir = self.dir().join(REFS).join(diff_id.hex());
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => Some(entries),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(self.session.fail("list", &dir, e)),
        };
        let beside = self.beside.as_ref();
        let mut out = beside.map_or(Vec::new(), |beside| beside.blobs_of(diff_id));
        for entry in entries.into_iter().flatten() {
            let path = entry
                .map_err(|e| self.session.fail("list", &dir, e))?
                .path();
            let blob = fs::read(&path)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<Descriptor>(&bytes).ok());
            match blob {
                Some(blob) if self.blob(&blob.digest, blob.size)?.is_some() => out.push(blob),
                // A note that cannot be read or whose blob is gone says nothing.
                _ => {
                    let _ = fs::remove_file(&path);
                }
            }
        }
        out.sort_by_key(|blob| blob.digest);
        out.dedup_by_key(|blob| blob.digest);
        Ok(out)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(sweeper) = self.sweeper.take() {
            let _ = sweeper.join();
        }
    }
}

fn blob_path(store: &Path, digest: &Digest) -> PathBuf {
    store.join(BLOBS).join(digest.hex())
}

/// Tells whether something may lie in a directory that a store is made of.
fn is_known(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    name == "lost+found"
        || name == "version"
        || bytes.starts_with(b".version-")
        || bytes.starts_with(space::TRIAL.as_bytes())
}

/// Tells whether a directory is a store; one that is not there or has nothing in it is none yet.
pub fn is_there(dir: &Path) -> Result<bool, Error> {
    let place = dir.join("version");
    let foreign = |why: String| Error::Foreign {
        path: dir.to_owned(),
        why,
    };
    let read = || match fs::read(&place) {
        Ok(bytes) if bytes == VERSION.as_bytes() => Ok(true),
        Ok(bytes) => Err(foreign(format!(
            "its version file says `{}`, `{}` is wanted; remove the directory or name another",
            String::from_utf8_lossy(bytes.get(..64).unwrap_or(&bytes)).trim(),
            VERSION.trim()
        ))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
            Err(foreign("it is not a directory".into()))
        }
        Err(e) => Err(Error::io(dir, "read", &place, e)),
    };
    if read()? {
        return Ok(true);
    }
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(|e| Error::io(dir, "list", dir, e))?,
    };
    for entry in entries {
        let name = entry
            .map_err(|e| Error::io(dir, "list", dir, e))?
            .file_name();
        // Another process may be making the same store; it writes the version first.
        if !is_known(&name) && !read()? {
            return Err(foreign(format!(
                "it has no version file and is not empty: there is `{}`",
                name.to_string_lossy()
            )));
        }
    }
    read()
}

/// Checks the version file, or writes it into a directory that has nothing else.
fn check_version(dir: &Path) -> Result<(), Error> {
    if is_there(dir)? {
        return Ok(());
    }
    let place = dir.join("version");
    let mine = dir.join(format!(".version-{}", std::process::id()));
    fs::write(&mine, VERSION).map_err(|e| Error::io(dir, "write", &mine, e))?;
    match fs::rename(&mine, &place) {
        // Another thread of this process was as far and had the same name.
        Err(e) if e.kind() == io::ErrorKind::NotFound && place.exists() => Ok(()),
        other => other.map_err(|e| Error::io(dir, "put in place", &place, e)),
    }
}

/// Where the bytes of blobs come from: a registry, an OCI layout.
pub trait Blobs: Sync {
    /// Opens a blob for reading from its beginning. The reader need not verify.
    fn open(&self, blob: &Descriptor) -> io::Result<Box<dyn Read + Send>>;
}
