//! Changeset to blob, in a bounded pipeline; blob to verified files.

mod pack;
mod unpack;

pub use pack::{PackOptions, Packed, Permits, Times, archive, bench, pack, pack_telling, tar};
pub use unpack::{read_entries, unpack_all, unpack_step};

use crate::fs::{LayerView, RelPath};
use crate::oci::{Descriptor, Digest};
use std::io;
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
    /// A file has a name or an attribute that no layer can hold.
    #[error("{path} cannot be put into a layer: {why}")]
    Unfit {
        /// The file, as seen from the root.
        path: RelPath,
        /// What is in the way.
        why: String,
    },
    /// Compression failed.
    #[error("compress the layer")]
    Compress(#[source] io::Error),
    /// The bytes of a blob could not be had.
    #[error("read the layer")]
    Read(#[source] io::Error),
    /// The bytes of an archive could not be written.
    #[error("write the archive")]
    Write(#[source] io::Error),
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
    /// What went wrong with one layer of a base.
    #[error("layer {digest}")]
    Base {
        /// The blob.
        digest: Digest,
        /// What happened.
        source: Box<Error>,
    },
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
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
