//! What steps made, by key: small files that `cache` reads and writes.

use super::{Error, LOCKS, STEPS, Store, slot};
use crate::sys::Cancel;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// The most that is read of one.
const MAX_STEP: u64 = 2 << 20;

/// The right to carry a step out, which one build at a time has; a lock dies with its holder.
pub struct StepTurn {
    /// Held for its lock.
    pub lock: File,
}

impl Store {
    /// Waits until no other build carries out the step of a key; `waits` is told once where one does.
    pub fn step_turn(
        &self,
        key: &str,
        waits: &dyn Fn(),
        cancel: &Cancel,
    ) -> Result<StepTurn, Error> {
        let path = self.dir().join(LOCKS).join(key);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|e| self.session.fail("open", &path, e))?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            waits();
        }
        slot::lock(&file, cancel)
            .map_err(|e| self.session.fail("lock", &path, e))?
            .ok_or(Error::Cancelled)?;
        Ok(StepTurn { lock: file })
    }

    /// Gives what is kept under a step's key, 64 hexadecimal digits.
    pub fn step(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.step_path(key);
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
