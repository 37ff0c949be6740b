//! What images were last known to be called: small files that name a manifest or an index, both of
//! which are blobs.

use super::{Error, NAMES, Store};
use crate::oci::{Digest, MAX_MANIFEST};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// What is in such a file.
#[derive(Serialize, Deserialize)]
struct Named {
    /// Registry, repository and tag.
    name: String,
    /// What that stood for.
    digest: String,
}

fn path(store: &Path, name: &str) -> PathBuf {
    store.join(NAMES).join(Digest::of(name.as_bytes()).hex())
}

/// Reads what a name stood for; `None` where that cannot be told.
pub(super) fn read(store: &Path, name: &str) -> Option<Digest> {
    let named: Named = serde_json::from_slice(&fs::read(path(store, name)).ok()?).ok()?;
    (named.name == name).then(|| named.digest.parse().ok())?
}

impl Store {
    /// Gives what an image's name (registry, repository and tag) stood for when it was last asked for.
    pub fn named(&self, name: &str) -> Result<Option<Digest>, Error> {
        let path = path(self.dir(), name);
        let own = match self.session.hold(&path)? {
            Some(_) => read(self.dir(), name),
            None => None,
        };
        Ok(own.or_else(|| self.beside.as_ref()?.named(name)))
    }

    /// Notes what an image's name stands for, once all that is wanted of it is in the store.
    pub fn put_name(&self, name: &str, digest: &Digest) -> Result<(), Error> {
        if self.named(name)? == Some(*digest) {
            return Ok(());
        }
        let named = Named {
            name: name.to_owned(),
            digest: digest.to_string(),
        };
        let json = serde_json::to_vec(&named).unwrap_or_default();
        self.session.write_file(&path(self.dir(), name), &json)
    }

    /// Gives the bytes of a manifest, an index or a config where they are in the store and what the
    /// digest says.
    pub fn small(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let path = super::blob_path(self.dir(), digest);
        let own = match self.session.hold(&path)? {
            Some(meta) if meta.is_file() && meta.len() <= MAX_MANIFEST => fs::read(path).ok(),
            _ => None,
        };
        let is_it = |bytes: &Vec<u8>| Digest::of(bytes) == *digest;
        let own = own.filter(is_it);
        Ok(own.or_else(|| {
            self.beside
                .as_ref()?
                .small(digest, MAX_MANIFEST)
                .filter(is_it)
        }))
    }
}
