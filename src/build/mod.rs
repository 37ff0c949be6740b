//! Drives the plan: schedules stages, runs steps, joins layers.

use crate::oci::{Digest, Reference};
use crate::progress::Sink;
use crate::request::Request;
use crate::sandbox::Sandbox;
use crate::sys::Cancel;

/// What a build made.
#[derive(Clone, Debug)]
pub struct Built {
    /// The manifest's digest.
    pub digest: Digest,
    /// Where it was pushed.
    pub pushed: Vec<Reference>,
}

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
        span: crate::dockerfile::ast::Span,
        /// The instruction.
        text: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A command ended with something else than 0.
    #[error("`{command}` ended with exit code {code}")]
    Run {
        /// Lines of the Dockerfile.
        span: crate::dockerfile::ast::Span,
        /// The command.
        command: String,
        /// The exit code; 128 and the signal's number for a signal.
        code: i32,
        /// What it printed last, both streams.
        last: Vec<String>,
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
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Builds an image and brings it where the request says.
pub fn build(
    request: &Request,
    sandbox: &Sandbox,
    sink: &Sink,
    cancel: &Cancel,
) -> Result<Built, Error> {
    let _ = (request, sandbox, sink, cancel);
    todo!()
}
