//! The layer cache: what a step made, by the key of all that can change it.
//!
//! A step's [`Key`] is one hash over framed parts. Under it stands an [`Entry`]: the layer
//! the step made, its table of contents, and the parts the key was made of. An entry is the same
//! thing in every [`Place`]: a file of the store, or an artifact in a registry or OCI layout. Places
//! are asked from near to far, for all keys at once; what is found far is kept near.
//!
//! What a place gives is not trusted further than its digests: a blob is hashed while it comes, a
//! layer's content is compared with its diff ID when it is unpacked, and an entry counts only under
//! the keys that it names itself. Trouble with a place is told once and costs a rebuild, never the
//! build: a place that failed is not asked again.

mod entry;
mod key;
mod near;
mod registry;

pub use entry::{Entry, Layer, MAX_ENTRY, Table, Tables};
pub use key::{Key, Part, Recipe};
pub use near::Near;
pub use registry::{EMPTY, InRegistry};

use crate::oci::{Descriptor, Reference};
use crate::progress::Span;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// What went wrong with a place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry refused or could not be reached.
    #[error(transparent)]
    Registry(#[from] crate::registry::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// A file could not be read or written.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What stands under a key is no entry of it.
    #[error("{what} is no cache entry that can be used: {why}")]
    Poisoned {
        /// Where it stands.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// Gives a blob as a file, fetching it where it is not at hand.
pub type File<'a> = &'a dyn Fn(&Descriptor) -> io::Result<PathBuf>;

/// Where entries and their blobs are.
pub trait Place: Send + Sync {
    /// Gives what it is called in messages.
    fn name(&self) -> String;

    /// Looks an entry up; `None` where there is none, or one that is too old.
    fn get(&self, key: &Key) -> Result<Option<Entry>, Error>;

    /// Looks up the tables of contents of an image's layers.
    fn tables(&self, key: &Key) -> Result<Option<Tables>, Error>;

    /// Opens a blob of an entry for reading. The reader need not verify.
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, Error>;

    /// Puts an entry, with its blobs, under its keys. Of a blob that a registry has in the repository
    /// `from` already, nothing is sent.
    fn put(
        &self,
        entry: &Entry,
        file: File<'_>,
        from: Option<&Reference>,
        span: &Span,
    ) -> Result<(), Error>;

    /// Puts tables of contents under a key.
    fn put_tables(
        &self,
        key: &Key,
        tables: &Tables,
        file: File<'_>,
        span: &Span,
    ) -> Result<(), Error>;

    /// Gives the repository from which a registry could mount its blobs.
    fn repository(&self) -> Option<&Reference> {
        None
    }
}

/// A place of a build, with what is known of it.
pub struct Known {
    /// The place.
    pub place: Box<dyn Place>,
    /// Whether entries are written there.
    pub writes: bool,
    /// Set by the first trouble: it is asked nothing after that.
    off: AtomicBool,
}

impl Known {
    /// Takes a place.
    pub fn new(place: Box<dyn Place>, writes: bool) -> Known {
        Known {
            place,
            writes,
            off: AtomicBool::new(false),
        }
    }

    /// Tells whether it may be asked.
    pub fn is_on(&self) -> bool {
        !self.off.load(Ordering::Relaxed)
    }

    /// Asks nothing of it any more; tells whether that is news.
    pub fn turn_off(&self) -> bool {
        !self.off.swap(true, Ordering::Relaxed)
    }
}
