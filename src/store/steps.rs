//! What steps made, by key: small files that `cache` reads and writes; and whose turn it is to make a
//! step or to send a blob.

use super::{Error, LOCKS, STEPS, Store, slot};
use crate::oci::Digest;
use crate::sys::Cancel;
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The most that is read of one.
pub(super) const MAX_STEP: u64 = 2 << 20;

/// The right to carry a step out, which one build at a time has; a lock dies with its holder.
pub struct StepTurn {
    /// Held for its lock.
    pub lock: File,
}

/// The right to send a blob to a registry, which one build at a time has that shares the store.
pub struct UploadTurn(File);

/// How long is waited for another build that sends the same.
const UPLOAD: Duration = Duration::from_secs(120);

impl UploadTurn {
    /// Gives the repository where the blob went last.
    pub fn sent_to(&self) -> Option<String> {
        let mut text = String::new();
        let mut file = &self.0;
        file.rewind().ok()?;
        file.take(1024).read_to_string(&mut text).ok()?;
        (!text.is_empty()).then_some(text)
    }

    /// Keeps in which repository the blob is now, for whom it is sent to another one of the registry.
    pub fn note(&self, repository: &str) {
        let mut file = &self.0;
        // Who does not find it sends the blob.
        let _ = file
            .rewind()
            .and_then(|()| file.set_len(0))
            .and_then(|()| file.write_all(repository.as_bytes()));
    }
}

impl Store {
    /// Waits until no other build that shares the store sends a blob to a registry. None where there is
    /// no telling, or the other one is too slow: the blob is sent twice then.
    pub fn upload_turn(
        &self,
        registry: &str,
        digest: &Digest,
        cancel: &Cancel,
    ) -> Option<UploadTurn> {
        let name = blake3::hash(format!("upload {registry} {digest}").as_bytes());
        let path = self.dir().join(LOCKS).join(name.to_hex().as_str());
        let end = Instant::now() + UPLOAD;
        loop {
            let file = slot::open_lock(&path).ok()?;
            match file.try_lock() {
                // Else it was taken away meanwhile, and others have another one.
                Ok(()) if !slot::is_at(&file, &path) => {}
                Ok(()) => return Some(UploadTurn(file)),
                Err(TryLockError::WouldBlock) if Instant::now() < end => {
                    slot::pause(cancel).ok()??;
                }
                Err(_) => return None,
            }
        }
    }

    /// Waits until no other build carries out the step of a key; `waits` is told once where one does.
    pub fn step_turn(
        &self,
        key: &str,
        waits: &dyn Fn(),
        cancel: &Cancel,
    ) -> Result<StepTurn, Error> {
        let path = self.dir().join(LOCKS).join(key);
        let mut told = false;
        let file = loop {
            let file = slot::open_lock(&path).map_err(|e| self.session.fail("open", &path, e))?;
            if !told && let Err(TryLockError::WouldBlock) = file.try_lock() {
                waits();
                told = true;
            }
            slot::lock(&file, cancel)
                .map_err(|e| self.session.fail("lock", &path, e))?
                .ok_or(Error::Cancelled)?;
            // Else it was taken away meanwhile, and others have another one.
            if slot::is_at(&file, &path) {
                break file;
            }
        };
        Ok(StepTurn { lock: file })
    }

    /// Gives the same right where nobody has it.
    pub fn free_step_turn(&self, key: &str) -> Result<Option<StepTurn>, Error> {
        let path = self.dir().join(LOCKS).join(key);
        let file = slot::open_lock(&path).map_err(|e| self.session.fail("open", &path, e))?;
        let is_ours = file.try_lock().is_ok() && slot::is_at(&file, &path);
        Ok(is_ours.then_some(StepTurn { lock: file }))
    }

    /// Gives what is kept under a step's key, 64 hexadecimal digits: here, or else in the store beside.
    pub fn step(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let own = self.own_step(key)?;
        Ok(own.or_else(|| self.beside.as_ref()?.step(key)))
    }

    fn own_step(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.step_path(key);
        if self.session.hold(&path)?.is_none() {
            return Ok(None);
        }
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(self.session.fail("open", &path, e)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_STEP)
            .read_to_end(&mut bytes)
            .map_err(|e| self.session.fail("read", &path, e))?;
        Ok(Some(bytes))
    }

    /// Shows everything that is kept under the key of a step, in no order, which counts as no use of it.
    /// What vanishes meanwhile is passed over.
    pub fn look_at_steps(&self, look: &mut dyn FnMut(&str, &[u8])) -> Result<(), Error> {
        let dir = self.dir().join(STEPS);
        let entries = fs::read_dir(&dir).map_err(|e| self.session.fail("list", &dir, e))?;
        for entry in entries.flatten() {
            let mut bytes = Vec::new();
            let read = File::open(entry.path())
                .and_then(|file| file.take(MAX_STEP).read_to_end(&mut bytes));
            if let (Ok(_), Some(key)) = (read, entry.file_name().to_str()) {
                look(key, &bytes);
            }
        }
        Ok(())
    }

    /// Keeps something under a step's key.
    pub fn put_step(&self, key: &str, bytes: &[u8]) -> Result<(), Error> {
        self.session.write_file(&self.step_path(key), bytes)
    }

    /// Forgets what is kept under a step's key.
    pub fn drop_step(&self, key: &str) -> Result<(), Error> {
        let path = self.step_path(key);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(self.session.fail("drop", &path, e)),
            _ => Ok(()),
        }
    }

    fn step_path(&self, key: &str) -> PathBuf {
        self.dir().join(STEPS).join(key)
    }
}
