//! One command in one root: namespaces, mounts, user, capabilities, seccomp, reaping.

use crate::progress::Stream;
use crate::rootfs::Entry;
use crate::sys::Cancel;

/// What went wrong around a command; a command that ran and failed is an `Exit`, not an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The helper process could not be started or has died.
    #[error("the sandbox helper {0}")]
    Helper(String),
    /// A step of the set-up failed inside the child.
    #[error("{action}: {source}")]
    Setup {
        /// What was tried: "mount /proc", "execute /bin/sh".
        action: String,
        /// Why not.
        source: std::io::Error,
    },
}

/// One command.
#[derive(Clone, Debug)]
pub struct Command {
    /// Program and arguments; a program without a slash is looked up in PATH of `env`, inside the root.
    pub args: Vec<Vec<u8>>,
    /// The environment, `NAME=value`.
    pub env: Vec<Vec<u8>>,
    /// Working directory inside the root; exists.
    pub cwd: Vec<u8>,
    /// User and groups.
    pub identity: Identity,
    /// Files to be there while the command runs and not after: path inside the root, mode, content.
    pub files: Vec<(Vec<u8>, u32, Vec<u8>)>,
    /// The host name.
    pub hostname: String,
}

/// Numeric user, group and further groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Because the build was cancelled.
    Cancelled,
}

/// The helper that starts commands: a small single-threaded process of our own, forked before any
/// thread starts.
pub struct Sandbox {
    _todo: (),
}

impl Sandbox {
    /// Takes a private mount namespace for the whole process and forks the helper. To be called
    /// once, before any thread.
    pub fn start() -> Result<Sandbox, Error> {
        todo!()
    }

    /// Runs a command to its end, from any thread, several at a time; what it prints is handed on
    /// as it comes. When this returns nothing of it is left running, and every mount made for it is gone.
    pub fn run(
        &self,
        entry: Entry<'_>,
        command: &Command,
        output: &mut dyn FnMut(Stream, &[u8]),
        cancel: &Cancel,
    ) -> Result<Exit, Error> {
        let _ = (entry, command, output, cancel);
        todo!()
    }
}
