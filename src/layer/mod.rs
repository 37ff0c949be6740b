//! Changeset to blob, in a bounded pipeline; blob to verified files.

use crate::changeset::Changeset;
use crate::fs::{LayerView, RelPath, Toc};
use crate::oci::{Descriptor, Digest, Format};
use crate::progress::Span;
use crate::request::Compression;
use crate::store::Store;
use crate::sys::Cancel;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

/// What went wrong while a layer was made or taken apart.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what, as seen from the root.
        path: RelPath,
        /// Why not.
        source: io::Error,
    },
    /// The bytes of a blob could not be had.
    #[error("read the layer")]
    Read(#[source] io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// The layer is not what its descriptor says, or does what no layer may.
    #[error("layer {digest} is refused: {why}")]
    Hostile {
        /// The blob.
        digest: Digest,
        /// What is wrong, naming the entry.
        why: String,
    },
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// A layer that is in the store.
pub struct Packed {
    /// The compressed blob.
    pub descriptor: Descriptor,
    /// The digest of the tar.
    pub diff_id: Digest,
    /// Bytes of the tar.
    pub raw: u64,
    /// Number of entries.
    pub entries: u64,
    /// Its table of contents, with content ids.
    pub toc: Toc,
}

/// Bounds the memory of all layers in the making together: permits for chunks, given out in order.
pub struct Permits {
    _todo: (),
}

impl Permits {
    /// Makes so many permits for chunks of 1 MiB.
    pub fn new(chunks: usize) -> Arc<Permits> {
        let _ = chunks;
        todo!()
    }
}

/// What becomes of the times of files in a layer; seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// They stay.
    Keep,
    /// Later ones become this.
    Clamp(i64),
    /// All become this.
    Set(i64),
}

/// How a layer is made.
#[derive(Clone)]
pub struct PackOptions {
    /// The compression.
    pub compression: Compression,
    /// The family of the descriptor's media type.
    pub format: Format,
    /// What becomes of the files' times.
    pub times: Times,
    /// Ends the work early.
    pub cancel: Cancel,
}

/// Makes a layer of a settled changeset and puts blob and toc into the store. Blocks; tar and the
/// two hashes have threads of their own, compression runs on the rayon pool in blocks whose bytes do
/// not depend on the number of threads.
pub fn pack(
    changeset: &Changeset,
    options: &PackOptions,
    store: &Store,
    permits: &Arc<Permits>,
    span: &Span,
) -> Result<Packed, Error> {
    let _ = (changeset, options, store, permits, span);
    todo!()
}

/// A base layer to be had: what the manifest and the config say of it.
#[derive(Clone, Debug)]
pub struct BaseLayer {
    /// The compressed blob.
    pub descriptor: Descriptor,
    /// The digest of the tar.
    pub diff_id: Digest,
    /// The chain ID down to this layer.
    pub chain_id: Digest,
}

/// An unpacked layer.
#[derive(Clone)]
pub struct Unpacked {
    /// Its files, in overlay form: whiteouts are 0:0 devices, opaque directories have
    /// `trusted.overlay.opaque=y`.
    pub dir: PathBuf,
    /// Toc and content.
    pub view: Arc<LayerView>,
}

/// Where the bytes of blobs come from: a registry, an OCI layout.
pub trait Blobs: Sync {
    /// Opens a blob for reading from its beginning. The reader need not verify.
    fn open(&self, blob: &Descriptor) -> io::Result<Box<dyn Read + Send>>;
}

/// Has all layers of a base unpacked in the store, bottom first: those that are not are fetched,
/// verified, decompressed and unpacked at the same time as each other, and their blobs kept.
pub fn unpack_all(
    layers: &[BaseLayer],
    blobs: &dyn Blobs,
    store: &Store,
    sink: &crate::progress::Sink,
    owner: crate::progress::Owner,
    cancel: &Cancel,
) -> Result<Vec<Unpacked>, Error> {
    let _ = (layers, blobs, store, sink, owner, cancel);
    todo!()
}
