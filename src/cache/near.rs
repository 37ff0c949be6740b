//! The nearest place: entries as files of the store, whose blobs and tables it has anyway.

use super::{Entry, Error, Key};
use crate::store::Store;

/// The entries of a store.
pub struct Near<'a> {
    /// The store.
    pub store: &'a Store,
    /// How old an entry may be, in seconds.
    pub ttl: u64,
    /// The time, in seconds since 1970.
    pub now: i64,
}

impl Near<'_> {
    /// Looks an entry up. One that cannot be used is dropped, and is as good as none.
    pub fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        let Some(bytes) = self.store.step(&key.hex())? else {
            return Ok(None);
        };
        match Entry::parse(&bytes, key) {
            Ok(entry) if entry.is_stale(self.now, self.ttl) => Ok(None),
            Ok(entry) => Ok(Some(entry)),
            Err(_) => {
                self.store.drop_step(&key.hex())?;
                Ok(None)
            }
        }
    }

    /// Tells whether the store has all that an entry stands for.
    pub fn has(&self, entry: &Entry) -> Result<bool, Error> {
        let Some(layer) = &entry.layer else {
            return Ok(true);
        };
        let blob = self.store.blob(&layer.blob.digest, layer.blob.size)?;
        Ok(blob.is_some() && self.store.toc(&layer.diff_id)?.is_some())
    }

    /// Puts an entry under its keys.
    pub fn put(&self, entry: &Entry) -> Result<(), Error> {
        let bytes = entry.to_bytes();
        for key in &entry.keys {
            self.store.put_step(&key.hex(), &bytes)?;
        }
        Ok(())
    }

    /// Drops an entry that turned out to be wrong.
    pub fn remove(&self, key: &Key) -> Result<(), Error> {
        Ok(self.store.drop_step(&key.hex())?)
    }
}
