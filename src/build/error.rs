//! Why a build failed.

use super::roots;
use super::space::Amount;
use super::stage::BoxError;
use crate::dockerfile::ast::Span;
use crate::rootfs::probe::Finding;
use crate::store::Bytes;
use std::path::PathBuf;

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A mistake in the Dockerfile.
    #[error(transparent)]
    Dockerfile(#[from] crate::dockerfile::Error),
    /// A mistake that planning found.
    #[error(transparent)]
    Plan(#[from] crate::plan::Error),
    /// A step failed; where it is, and why.
    #[error("{text}")]
    Step {
        /// Lines of the Dockerfile.
        span: Span,
        /// The instruction.
        text: String,
        /// Why.
        #[source]
        source: BoxError,
        /// At most one hint.
        hint: Option<String>,
    },
    /// A command ended with something else than 0.
    #[error("`{command}` ended with exit code {code}")]
    Run {
        /// Lines of the Dockerfile.
        span: Span,
        /// The command.
        command: String,
        /// The exit code; 128 and the signal's number for a signal.
        code: i32,
        /// What it printed last, both streams.
        last: Vec<String>,
    },
    /// A registry refused or could not be reached.
    #[error(transparent)]
    Registry(#[from] crate::registry::Error),
    /// The checks found something, and were told to fail then.
    #[error("lint violation found for rules: {rules}")]
    Checks {
        /// Names of the rules.
        rules: String,
        /// Where the file says so, if it does.
        span: Option<Span>,
    },
    /// No root that commands could run on works here.
    #[error("{}", roots::refused(findings))]
    NoRoot {
        /// Lines of the Dockerfile with the first command.
        span: Option<Span>,
        /// What was found of every root that was tried.
        findings: Vec<Finding>,
    },
    /// The store has not the room for what a build will put there.
    #[error(
        "the store {store} has {free} free, and the base images need about {need} more there: free some \
         or put the store on a larger volume (--cache-dir)",
        store = store.display()
    )]
    NoRoom {
        /// The store.
        store: PathBuf,
        /// What is free.
        free: Bytes,
        /// What is needed.
        need: Bytes,
    },
    /// The store has not even the room for an empty root.
    #[error(
        "the store {store} has {free} left, which is too little for any command: free some or put the \
         store on a larger volume (--cache-dir)",
        store = store.display()
    )]
    Full {
        /// The store.
        store: PathBuf,
        /// What is left.
        free: Amount,
    },
    /// The root directory has not the room for what a build in place will put there.
    #[error(
        "the root directory has {free} free, and in place the base image needs {need} there: give the \
         container more, or use a smaller base"
    )]
    NoRoomInRoot {
        /// What is free, or will be.
        free: Amount,
        /// What is needed.
        need: Amount,
    },
    /// The store has not the room for a copy of a base image.
    #[error(
        "the store {store} has {free} left, and commands need {need} there for a copy of the base image: \
         free some or put the store on a larger volume (--cache-dir)",
        store = store.display()
    )]
    NoRoomForCopy {
        /// The store.
        store: PathBuf,
        /// What is free.
        free: Amount,
        /// What is needed.
        need: Amount,
    },
    /// A command took away what the builder itself needs.
    #[error(
        "a command has removed {dir}, where the builder itself works: leave that out of the Dockerfile, \
         or put the store elsewhere, best on a volume (--cache-dir)",
        dir = dir.display()
    )]
    Removed {
        /// The store's directory.
        dir: PathBuf,
    },
    /// SIGINT or SIGTERM.
    #[error("cancelled")]
    Cancelled,
    /// Something else.
    #[error("{action}")]
    Other {
        /// What was tried.
        action: String,
        /// Why it failed.
        #[source]
        source: BoxError,
    },
}

impl Error {
    pub(super) fn other(action: impl Into<String>, source: impl Into<BoxError>) -> Error {
        Error::Other {
            action: action.into(),
            source: source.into(),
        }
    }

    pub(super) fn step(span: Span, text: &str, source: impl Into<BoxError>) -> Error {
        Error::Step {
            span,
            text: text.to_owned(),
            source: source.into(),
            hint: None,
        }
    }
}
