//! Content-addressed blobs and unpacked layers on disk: ingest, locks.
//!
//! ```text
//! STORE/
//!   blobs/sha256/HEX          a blob, whole and verified
//!   tocs/HEX                  table of contents of a layer, by diff ID
//!   layers/HEX/               files of a layer, unpacked, by chain ID (overlay form)
//!   refs/                     what blobs belong to a diff ID
//!   tmp/                      what is being made; each name is locked by its maker
//!   run/                      scratch directories of running builds, locked likewise
//!   locks/                    one file a unit of work that is done once
//! ```

use crate::fs::Toc;
use crate::oci::{Descriptor, Digest};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

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
    /// The directory holds something else.
    #[error("{path} is no store: {why}")]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What is odd.
        why: String,
    },
}

/// A store on disk, shared by threads and processes.
pub struct Store {
    _todo: (),
}

impl Store {
    /// Opens a store, making it where there is none, and clears away what dead builds left.
    pub fn open(dir: &Path) -> Result<Store, Error> {
        let _ = dir;
        todo!()
    }

    /// Gives a blob's file where the store has it with just this size; one of another size is dropped.
    pub fn blob(&self, digest: &Digest, size: u64) -> Result<Option<PathBuf>, Error> {
        let _ = (digest, size);
        todo!()
    }

    /// Starts taking in a blob; nothing is seen of it before `commit`.
    pub fn ingest(&self) -> Result<Ingest, Error> {
        todo!()
    }

    /// Takes in a small blob whole.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let _ = bytes;
        todo!()
    }

    /// Gives the table of contents of a layer.
    pub fn toc(&self, diff_id: &Digest) -> Result<Option<Toc>, Error> {
        let _ = diff_id;
        todo!()
    }

    /// Keeps the table of contents of a layer.
    pub fn put_toc(&self, diff_id: &Digest, toc: &Toc) -> Result<(), Error> {
        let _ = (diff_id, toc);
        todo!()
    }

    /// Gives the unpacked files of a layer by chain ID, or the right to unpack them. Waits while
    /// another thread or process unpacks the same one; its lock dies with it.
    pub fn layer(&self, chain_id: &Digest) -> Result<LayerSlot, Error> {
        let _ = chain_id;
        todo!()
    }

    /// Makes an empty directory for a running build; it goes when the value is dropped, or by the
    /// next `open` of the store where the process died.
    pub fn scratch(&self) -> Result<Scratch, Error> {
        todo!()
    }

    /// Notes that a blob is the compressed form of a diff ID.
    pub fn note_blob(&self, diff_id: &Digest, blob: &Descriptor) -> Result<(), Error> {
        let _ = (diff_id, blob);
        todo!()
    }
}

/// A blob on its way into the store. Dropping it throws it away.
pub struct Ingest {
    _todo: (),
}

impl Ingest {
    /// Ends the blob, checks it against the expected digest and puts it in place. Gives digest and size.
    pub fn commit(self, expected: Option<&Digest>) -> Result<(Digest, u64), Error> {
        let _ = expected;
        todo!()
    }

    /// Ends a blob whose digest the caller has taken over the very bytes written.
    pub fn commit_as(self, digest: &Digest) -> Result<u64, Error> {
        let _ = digest;
        todo!()
    }
}

impl Write for Ingest {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let _ = buf;
        todo!()
    }
    fn flush(&mut self) -> io::Result<()> {
        todo!()
    }
}

/// The files of a layer, or the right to make them.
pub enum LayerSlot {
    /// They are there.
    Ready(PathBuf),
    /// They are to be made in `dir()` and put in place by `commit`.
    Vacant(VacantLayer),
}

/// The right to unpack a layer, held until it is dropped or committed.
pub struct VacantLayer {
    /// Held for its lock.
    pub lock: File,
    /// The directory to unpack into.
    pub dir: PathBuf,
    /// Where it goes.
    pub place: PathBuf,
}

impl VacantLayer {
    /// Puts the files in place; gives where they are.
    pub fn commit(self) -> Result<PathBuf, Error> {
        todo!()
    }
}

/// A directory of a running build.
pub struct Scratch {
    /// The directory.
    pub dir: PathBuf,
    /// Held for its lock.
    pub lock: File,
}
