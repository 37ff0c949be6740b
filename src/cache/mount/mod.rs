//! Caches of commands (`RUN --mount=type=cache`) as they stand in a place: saved after a build, restored
//! on a machine that has none.
//!
//! ```text
//! mount-KEY     Saved: JSON that names
//!   toc         the table of contents of the directory (`fs::Toc`), compressed with zstd: every path
//!               with its metadata (mode, owner, times to the nanosecond, attributes, hard links) and
//!               the BLAKE3 of its content
//!   index       which contents are in which pack, compressed with zstd:
//!                 magic 8, version 4, number of packs 4, then for each pack its number of contents 4
//!                 and for each of those BLAKE3 32, length 8; all little-endian
//!   packs       contents one after the other, compressed with zstd as one stream
//! ```
//!
//! - The key is over the id (with the namespace that a build may give), what a new cache begins with
//!   and the platform. It is a name that moves: the newest one counts, and of two builds that save at
//!   once the last one to end. Both are right: a cache is written whole, blobs first.
//! - Content moves once. What a place has in a pack is not sent again, whatever the file is called by
//!   now or when it was touched; a new table and new packs are sent for the rest. A pack of which less
//!   than half is wanted any more is left out, and what is wanted of it goes into a new one; so do many
//!   small packs.
//! - It is consistent. A cache that commands have for themselves is saved under its lock. One that is
//!   shared with other builds, which may write meanwhile, is looked at again after its files were read,
//!   and is only saved where nothing has changed; every content must have the hash that the table says.
//!   Who is still writing to it saves it at the end of its own build.
//! - It is restored whole or not at all: every pack is hashed while it comes, and every file too. What
//!   is cut, foreign or gone leaves nothing behind.
//! - Memory is needed for names and metadata; content passes through buffers.
//!
//! No text is in it but paths: neither the id, which may be made of a build's arguments, nor the
//! instruction.

mod index;
mod restore;
mod save;

pub use index::{Index, Pack};
pub use restore::{Restored, restore};
pub use save::{Look, Packed, look, pack};

use super::{Key, Kind, Named, Place, Recipe, look_up};
use crate::fs::RelPath;
use crate::oci::{Descriptor, Digest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Read};

/// The media types of the three kinds of blobs.
const TOC: &str = "application/vnd.shutter.toc.v1+zstd";
const INDEX: &str = "application/vnd.shutter.index.v1+zstd";
const PACK: &str = "application/vnd.shutter.pack.v1+zstd";
/// The most bytes that a table or an index may have, compressed and not: 256 MiB and 1 GiB.
const MAX_TABLE: (u64, u64) = (256 << 20, 1 << 30);
/// How hard is compressed: mostly what caches have is compressed already.
const LEVEL: i32 = 1;

/// Opens a blob of the place that has it for reading. The reader need not verify.
pub type Open<'a> = &'a (dyn Fn(&Descriptor) -> Result<Box<dyn Read + Send>, super::Error> + Sync);

/// Why a cache of a command could not be saved or restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what, as seen from the cache.
        path: RelPath,
        /// Why not.
        source: io::Error,
    },
    /// Somebody else writes to it.
    #[error("{0} was changed meanwhile")]
    Changed(RelPath),
    /// A blob could not be read.
    #[error("read {blob}")]
    Blob {
        /// Which one.
        blob: Digest,
        /// Why not.
        source: io::Error,
    },
    /// What a place has is not what it should be.
    #[error("{what}: {why}")]
    Broken {
        /// What of it.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// The place failed.
    #[error(transparent)]
    Place(#[from] super::Error),
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    fn io(action: &'static str, path: &RelPath, source: io::Error) -> Error {
        let path = path.clone();
        Error::Io {
            action,
            path,
            source,
        }
    }

    fn broken(what: impl ToString, why: impl ToString) -> Error {
        Error::Broken {
            what: what.to_string(),
            why: why.to_string(),
        }
    }
}

/// A cache of a command as a place has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Saved {
    /// When it was saved, in seconds since 1970.
    pub created: i64,
    /// The compressed table of contents.
    pub toc: Descriptor,
    /// The compressed index of the packs.
    pub index: Descriptor,
    /// The packs, in the index's order.
    pub packs: Vec<Descriptor>,
}

/// Gives the key of a cache: its id, what tells it from others that begin otherwise, and what it is for.
pub fn key(id: &str, beginning: &[u8], platform: &str) -> Key {
    let mut recipe = Recipe::of("mount");
    recipe.add("id", id);
    recipe.add("beginning", beginning);
    recipe.add("platform", platform);
    recipe.key()
}

impl Saved {
    /// Gives it as it stands in a place.
    pub fn named(&self) -> Named {
        let own = [self.toc.clone(), self.index.clone()];
        Named {
            kind: Kind::Mount,
            text: serde_json::to_string(self).unwrap_or_default(),
            blobs: own.into_iter().chain(self.packs.iter().cloned()).collect(),
        }
    }

    /// Reads it off what stands in a place; says why it cannot be used otherwise.
    pub fn read(named: &Named) -> Result<Saved, String> {
        let saved: Saved = serde_json::from_str(&named.text).map_err(|e| e.to_string())?;
        match saved.named().blobs == named.blobs {
            true => Ok(saved),
            false => Err("its blobs are not those that it speaks of".into()),
        }
    }

    /// Looks it up in a place.
    pub fn find(place: &dyn Place, key: &Key) -> Result<Option<Saved>, super::Error> {
        look_up(place, Kind::Mount, key, &Saved::read)
    }

    /// Tells how old it is, in seconds; one from the future is new.
    pub fn age(&self, now: i64) -> u64 {
        u64::try_from(now.saturating_sub(self.created)).unwrap_or(0)
    }

    /// Fetches the index of its packs.
    pub fn fetch_index(&self, open: Open<'_>) -> Result<Index, Error> {
        let bytes = fetch(open, &self.index)?;
        let index = Index::parse(&bytes).ok_or_else(|| {
            let what = format!("index {}", self.index.digest);
            Error::broken(what, "it cannot be read")
        })?;
        match index.packs.len() == self.packs.len() {
            true => Ok(index),
            false => Err(Error::broken("index", "it speaks of other packs")),
        }
    }
}

/// Fetches a table or an index, verified.
fn fetch(open: Open<'_>, blob: &Descriptor) -> Result<Vec<u8>, Error> {
    let what = || format!("{} {}", blob.media_type, blob.digest);
    if blob.size > MAX_TABLE.0 {
        return Err(Error::broken(what(), "it is too large"));
    }
    let failed = |source| Error::Blob {
        blob: blob.digest,
        source,
    };
    let mut bytes = Vec::new();
    let mut reader = open(blob)?.take(blob.size + 1);
    reader.read_to_end(&mut bytes).map_err(failed)?;
    if Digest::of(&bytes) != blob.digest {
        return Err(Error::broken(what(), "it is not what its digest says"));
    }
    let mut out = Vec::new();
    let decoder = zstd::Decoder::new(bytes.as_slice()).map_err(failed)?;
    let mut decoder = decoder.take(MAX_TABLE.1);
    decoder.read_to_end(&mut out).map_err(failed)?;
    Ok(out)
}

/// Describes a blob.
fn describe(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.into(),
        digest,
        size,
        urls: Vec::new(),
        annotations: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests;
