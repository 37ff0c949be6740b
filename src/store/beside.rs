//! A store that is only read: one on a volume that somebody else fills.

use super::session::open_to_lock;
use super::slot::is_at;
use super::steps::MAX_STEP;
use super::{BLOBS, Error, LAYERS, REFS, STEPS, Store, TOCS, names, owned_room};
use crate::fs::Toc;
use crate::oci::{Descriptor, Digest};
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A store that lies beside the one that is written to. Trouble with it is as good as nothing there.
pub(super) struct Beside {
    pub dir: PathBuf,
    /// What is read, locked so that nobody takes it away; by path.
    held: Mutex<HashMap<PathBuf, File>>,
    /// Blobs that are not what their digests say.
    bad: Mutex<BTreeSet<Digest>>,
}

impl Store {
    /// Looks up in another store what this one has not, without writing anything there. Blobs, tables,
    /// notes and what steps made are read there, and unpacked layers where they lie; nobody who follows the rules takes
    /// them away meanwhile. Refused where there is no store of this kind.
    pub fn look_beside(&mut self, dir: &Path) -> Result<(), Error> {
        if !super::is_there(dir)? {
            return Err(Error::Foreign {
                path: dir.to_owned(),
                why: "there is nothing in it".into(),
            });
        }
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        if dir != self.dir() {
            self.beside = Some(Beside {
                dir,
                held: Mutex::default(),
                bad: Mutex::default(),
            });
        }
        Ok(())
    }
}

impl Beside {
    /// Holds on to a name; `None` where there is nothing to be had.
    fn hold(&self, path: &Path) -> Option<Metadata> {
        let mut held = lock(&self.held);
        if let Some(file) = held.get(path) {
            return file.metadata().ok();
        }
        let file = open_to_lock(path).ok()?;
        loop {
            // Whoever takes something away has its lock for a moment.
            match file.lock_shared() {
                Ok(()) => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        let meta = file.metadata().ok().filter(|_| is_at(&file, path))?;
        held.insert(path.to_owned(), file);
        Some(meta)
    }

    /// Gives a blob's file where it has just this size.
    pub fn blob(&self, digest: &Digest, size: u64) -> Option<PathBuf> {
        let path = self.dir.join(BLOBS).join(digest.hex());
        if lock(&self.bad).contains(digest) {
            return None;
        }
        let meta = self.hold(&path)?;
        (meta.is_file() && meta.len() == size).then_some(path)
    }

    /// Notes that a blob is not what its digest says.
    pub fn refuse(&self, digest: &Digest) {
        lock(&self.bad).insert(*digest);
    }

    /// Gives the bytes of a small blob, which the caller verifies.
    pub fn small(&self, digest: &Digest, most: u64) -> Option<Vec<u8>> {
        let path = self.dir.join(BLOBS).join(digest.hex());
        let meta = self.hold(&path)?;
        match meta.is_file() && meta.len() <= most {
            true => fs::read(path).ok(),
            false => None,
        }
    }

    /// Gives a table of contents.
    pub fn toc(&self, diff_id: &Digest) -> Option<Toc> {
        let path = self.dir.join(TOCS).join(diff_id.hex());
        self.hold(&path)?;
        Toc::open(&path).ok()
    }

    /// Gives what is kept under a step's key.
    pub fn step(&self, key: &str) -> Option<Vec<u8>> {
        let path = self.dir.join(STEPS).join(key);
        self.hold(&path)?;
        let mut bytes = Vec::new();
        let file = File::open(&path).ok()?;
        file.take(MAX_STEP).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Gives the files of a layer.
    pub fn layer(&self, chain_id: &Digest) -> Option<PathBuf> {
        let path = self.dir.join(owned_room(LAYERS)).join(chain_id.hex());
        self.hold(&path)?.is_dir().then_some(path)
    }

    /// Gives the blobs noted as compressed forms of a diff ID.
    pub fn blobs_of(&self, diff_id: &Digest) -> Vec<Descriptor> {
        let room = self.dir.join(REFS).join(diff_id.hex());
        let mut out = Vec::new();
        for entry in fs::read_dir(room).into_iter().flatten().flatten() {
            let blob = fs::read(entry.path()).ok();
            let blob = blob.and_then(|bytes| serde_json::from_slice::<Descriptor>(&bytes).ok());
            out.extend(blob.filter(|blob| self.blob(&blob.digest, blob.size).is_some()));
        }
        out
    }

    /// Gives what a name was last known to stand for.
    pub fn named(&self, name: &str) -> Option<Digest> {
        names::read(&self.dir, name)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
