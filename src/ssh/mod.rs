//! SSH agents for commands, and the private keys that the builder signs with itself.
//!
//! An [`Agent`] is a socket that lives as long as the command. Behind it the caller's own agent
//! answers, or the builder does with keys read from files: [`parse`] reads one, [`answer`] is what
//! the agent says to a message. Both take bytes that others chose.

mod agent;
mod key;
mod number;
mod wire;

pub use agent::{Agent, Socket, answer};
pub use key::{Key, Unusable, parse};

use std::path::PathBuf;

/// Why a command gets no agent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's agent cannot be used.
    #[error("use the SSH agent {path}")]
    Agent {
        /// Its socket.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A key file cannot be read.
    #[error("read the SSH key {path}")]
    ReadKey {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A key file has no key that can be used.
    #[error("use the SSH key {path}: {why}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, with the remedy.
        why: String,
    },
    /// The socket for a command could not be made.
    #[error("make a socket for SSH in {dir}")]
    Socket {
        /// Where.
        dir: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}
