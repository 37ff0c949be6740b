//! One commit of a remote repository: fetched, checked out, kept as a repository of its own.
//!
//! What git is made of (its protocol, packs, objects, attributes, conversions, indexes) is gitoxide's;
//! of it only the parts below its repositories are used, so that no configuration of this machine is
//! read and no program but `ssh` is run. The `git` program is not in an image that has nothing but a
//! builder. What is here is how they are put to use: the ways to a remote (the project's own HTTP
//! client, `ssh`, git's daemon, each ended by the build's switch), what a reference means, and how a
//! tree becomes files.
//!
//! Nothing that comes from a remote is believed: lengths are bounded, objects are named by their
//! content (with the check for collisions that git makes), and names in a tree lead nowhere but into
//! the directory that is checked out to. Files of Git LFS stay the pointers that they are in the
//! repository, as with BuildKit. An object is held in memory while it is looked at, packs are not.

mod address;
mod checkout;
mod directory;
mod fetch;
mod pack;
mod submodules;
mod wire;

pub use address::{shown, submodule_url};
pub use checkout::{Checked, Checkout, check_out};
pub use directory::{Repository, keep};
pub use fetch::{Fetched, Wanted, fetch};
pub use gix_hash::{Kind as Format, ObjectId as Oid};
pub use gix_object::Kind;
pub use pack::Pack;
pub use submodules::{Submodule, submodules};

use crate::net::{self, Client, Tls};
use crate::request::{Hidden, SshSource};
use crate::sys::Cancel;
use std::io;
use std::path::PathBuf;

/// A repository elsewhere, and how it is talked to.
#[derive(Clone)]
pub struct Remote<'a> {
    /// Its URL, or `user@host:path`; may hold a user and a password.
    pub url: &'a str,
    /// The client for http.
    pub client: &'a Client,
    /// How TLS is spoken with it.
    pub tls: &'a Tls,
    /// What is shown to an http server; counts more than what the URL holds.
    pub login: Option<&'a Login>,
    /// The agent or keys for ssh; ssh's own defaults where there is neither.
    pub ssh: Option<&'a SshSource>,
    /// Ends what takes long.
    pub cancel: &'a Cancel,
}

/// What is shown to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// A user and a password.
    Basic {
        /// The user.
        user: Hidden,
        /// The password.
        password: Hidden,
    },
    /// The value of an Authorization header.
    Header(Hidden),
}

/// Why a repository could not be had. Remotes are shown without secrets.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The remote's address cannot be used.
    #[error("{remote}: {why}")]
    Address {
        /// The remote.
        remote: String,
        /// Why not.
        why: String,
    },
    /// No connection, or one that broke.
    #[error(transparent)]
    Exchange(Box<net::Error>),
    /// The server answered with something else than success.
    #[error("{url} answered {status}{hint}")]
    Refused {
        /// What was asked.
        url: String,
        /// The status with its words.
        status: String,
        /// What may help, with its separator in front; often empty.
        hint: &'static str,
        /// What is known for another attempt, where one may help.
        again: Option<net::Again>,
    },
    /// No connection to a git daemon.
    #[error("connect to {remote}")]
    Connect {
        /// The remote.
        remote: String,
        /// Why not.
        source: io::Error,
    },
    /// ssh could not be run, or failed.
    #[error("{remote}: {why}")]
    Ssh {
        /// The remote.
        remote: String,
        /// Why.
        why: String,
    },
    /// The connection ended too early.
    #[error("{remote}: the connection ended too early")]
    Cut {
        /// The remote.
        remote: String,
    },
    /// What the remote sends is not git's protocol.
    #[error("{remote}: {why}")]
    Protocol {
        /// The remote.
        remote: String,
        /// What is odd.
        why: String,
    },
    /// The remote says why it does not do as it is asked.
    #[error("{remote} says: {message}")]
    Said {
        /// The remote.
        remote: String,
        /// Its words.
        message: String,
    },
    /// There is no such reference.
    #[error("repository {remote} does not contain ref {reference}{hint}")]
    NoReference {
        /// The remote.
        remote: String,
        /// What was asked for.
        reference: String,
        /// What may help, with its separator in front; often empty.
        hint: &'static str,
    },
    /// The reference is not the commit that it should be.
    #[error("{remote}: expected checksum to match {wanted}, got {got}")]
    Checksum {
        /// The remote.
        remote: String,
        /// The commit, or the start of it.
        wanted: String,
        /// What the reference is.
        got: String,
    },
    /// The remote does not give an object that no reference points to.
    #[error("{remote} does not give commit {commit}: {message}")]
    NotGiven {
        /// The remote.
        remote: String,
        /// The object.
        commit: Oid,
        /// Its words, or ours.
        message: String,
    },
    /// An object that should have been sent was not.
    #[error("object {0} was not sent")]
    Missing(Oid),
    /// An object that cannot be used.
    #[error("object {oid}: {why}")]
    Object {
        /// Which.
        oid: Oid,
        /// Why not.
        why: String,
    },
    /// A file of our own could not be read or written.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A path of the repository could not be written, or may not be.
    #[error("check out {path}")]
    CheckOut {
        /// The path in the repository.
        path: String,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    fn object(oid: &Oid, why: impl Into<String>) -> Error {
        Error::Object {
            oid: *oid,
            why: why.into(),
        }
    }
}

impl net::Temporary for Error {
    fn again(&self) -> Option<net::Again> {
        match self {
            Error::Exchange(source) => source.again(),
            Error::Refused { again, .. } => *again,
            Error::Connect { .. } | Error::Cut { .. } => Some(net::Again::default()),
            _ => None,
        }
    }

    fn cancelled() -> Error {
        Error::Cancelled
    }
}

#[cfg(test)]
mod tests;
