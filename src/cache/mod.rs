//! The layer cache: what a step made, by the key of all that can change it.
//!
//! A step's [`Key`] is one hash over framed parts. Under it stands an [`Entry`]: the layer
//! the step made, its table of contents, and the parts the key was made of. An entry is the same
//! thing in every [`Place`]: a file of the store, an artifact in a registry or OCI layout, an object
//! of an object store. Places are asked from near to far, for all keys at once; what is found far is kept near.
//!
//! What a place gives is not trusted further than its digests: a blob is hashed while it comes, a
//! layer's content is compared with its diff ID when it is unpacked, and an entry counts only under
//! the keys that it names itself. Trouble with a place is told once and costs a rebuild, never the
//! build: a place that failed is not asked again.

mod entry;
mod key;
mod layout;
pub mod mount;
mod near;
mod objects;
mod registry;

pub use entry::{Entry, Layer, MAX_ENTRY, Table, Tables, read_tables, tables_named};
pub use key::{Key, Part, Recipe};
pub use layout::{InLayout, IndexRead};
pub use near::Near;
pub use objects::InObjects;
pub use registry::{EMPTY, InRegistry};

use crate::oci::{Descriptor, Reference};
use crate::progress::Span;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
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
    /// An object store refused or could not be reached.
    #[error("{name}: {action}: {why}")]
    Objects {
        /// The store.
        name: String,
        /// What was tried.
        action: &'static str,
        /// Why not.
        why: String,
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

/// What kind of thing stands under a key in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// What a step made: an [`Entry`].
    Step,
    /// The tables of contents of an image's layers: [`Tables`].
    Tables,
    /// What is in a cache of commands: a [`mount::Saved`]. Another one takes its place.
    Mount,
}

impl Kind {
    /// Gives the name that stands for a key of this kind, which is a tag too.
    pub fn name(self, key: &Key) -> String {
        match self {
            Kind::Step | Kind::Tables => key.hex(),
            Kind::Mount => format!("mount-{key}"),
        }
    }
}

/// What stands under a key: a text, and the blobs that it speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// What it is.
    pub kind: Kind,
    /// JSON.
    pub text: String,
    /// What a place keeps for as long as it keeps the text.
    pub blobs: Vec<Descriptor>,
}

/// Where entries and their blobs are.
pub trait Place: Send + Sync {
    /// Gives what it is called in messages.
    fn name(&self) -> String;

    /// Looks up what stands under a key; `None` where there is nothing.
    fn find(&self, kind: Kind, key: &Key) -> Result<Option<Named>, Error>;

    /// Opens a blob for reading. The reader need not verify.
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, Error>;

    /// Puts something under keys, whatever stands there, once all its blobs are there. A blob that the
    /// place has already is not asked for, and of one that a registry has in the repository `from`
    /// nothing is sent.
    fn put(
        &self,
        keys: &[Key],
        named: &Named,
        file: File<'_>,
        from: Option<&Reference>,
        span: &Span,
    ) -> Result<(), Error>;

    /// Gives the repository from which a registry could mount its blobs.
    fn repository(&self) -> Option<&Reference> {
        None
    }
}

/// Looks up what stands under a key in a place, and reads it.
pub fn look_up<T>(
    place: &dyn Place,
    kind: Kind,
    key: &Key,
    read: &dyn Fn(&Named) -> Result<T, String>,
) -> Result<Option<T>, Error> {
    let Some(named) = place.find(kind, key)? else {
        return Ok(None);
    };
    let got = match named.kind == kind {
        true => read(&named),
        false => Err("it is something else".into()),
    };
    got.map(Some).map_err(|why| Error::Poisoned {
        what: format!("{}:{}", place.name(), kind.name(key)),
        why,
    })
}

/// What a build does with a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It reads from it.
    Read,
    /// It writes to it too.
    Write,
}

/// A place of a build, with what is known of it.
pub struct Known {
    /// The place.
    pub place: Box<dyn Place>,
    access: Access,
    /// Set by the first trouble with reading: it is asked nothing after that.
    unread: Arc<AtomicBool>,
    /// The same for writing.
    unwritten: Arc<AtomicBool>,
    was_asked: AtomicBool,
    had_some: AtomicBool,
}

/// Turns a place off from where it is read.
#[derive(Clone)]
pub struct Switch {
    unread: Arc<AtomicBool>,
    unwritten: Arc<AtomicBool>,
}

impl Switch {
    /// Asks nothing of the place any more; tells whether that is news.
    pub fn turn_off(&self) -> bool {
        self.unwritten.store(true, Ordering::Relaxed);
        !self.unread.swap(true, Ordering::Relaxed)
    }
}

impl Error {
    /// Tells whether something is wrong with one thing alone, or lost, and not with the place.
    pub fn is_of_one(&self) -> bool {
        match self {
            Error::Poisoned { .. } => true,
            Error::Registry(crate::registry::Error::Content { .. }) => true,
            Error::Registry(error) => error.status() == Some(404),
            Error::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Error::Store(_) | Error::Objects { .. } | Error::Cancelled => false,
        }
    }

    /// Tells whether a registry does not let it be read, which some say too of a repository that nobody
    /// has made yet.
    pub fn is_refusal(&self) -> bool {
        match self {
            Error::Registry(error) => matches!(error.status(), Some(401 | 403)),
            _ => false,
        }
    }
}

impl Known {
    /// Takes a place.
    pub fn new(place: Box<dyn Place>, access: Access) -> Known {
        Known {
            place,
            access,
            unread: Arc::default(),
            unwritten: Arc::default(),
            was_asked: AtomicBool::new(false),
            had_some: AtomicBool::new(false),
        }
    }

    /// Tells whether a build does this with it, as far as there was no trouble.
    pub fn is_open(&self, access: Access) -> bool {
        match access {
            Access::Read => !self.unread.load(Ordering::Relaxed),
            Access::Write => {
                self.access == Access::Write && !self.unwritten.load(Ordering::Relaxed)
            }
        }
    }

    /// Does without it in this way from now on; tells whether that is news.
    pub fn close(&self, access: Access) -> bool {
        match access {
            // Who does not answer takes nothing either.
            Access::Read => self.switch().turn_off(),
            Access::Write => !self.unwritten.swap(true, Ordering::Relaxed),
        }
    }

    /// Reads nothing more from it, since what it has is of no use; what is made is written there still.
    /// Tells whether that is news.
    pub fn leave(&self) -> bool {
        !self.unread.swap(true, Ordering::Relaxed)
    }

    /// Notes that it has been asked for steps, and whether it had any.
    pub fn answered(&self, had_some: bool) {
        self.was_asked.store(true, Ordering::Relaxed);
        self.had_some.fetch_or(had_some, Ordering::Relaxed);
    }

    /// Tells whether it may have steps of this build: it had some, or has not been asked.
    pub fn may_have(&self) -> bool {
        self.had_some.load(Ordering::Relaxed) || !self.was_asked.load(Ordering::Relaxed)
    }

    /// Gives what turns it off.
    pub fn switch(&self) -> Switch {
        Switch {
            unread: Arc::clone(&self.unread),
            unwritten: Arc::clone(&self.unwritten),
        }
    }
}
