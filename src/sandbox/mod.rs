//! One command in one root: namespaces, mounts, user, capabilities, seccomp, reaping.
//!
//! A command passes through four processes. The builder's thread ([`Sandbox::run`]) makes what the
//! command mounts (`trees`) and the mount points for it (`scaffold`), describes it as a `Job`
//! (`prepare`) and relays what it prints (`relay`). The helper (`helper`), forked before the builder
//! had threads, clones process 1 of new namespaces and watches it. Process 1 (`init`) sets the root
//! up, mounts (`attach`), starts the command and reaps. The command's own process (`child`) takes
//! its identity, capabilities and filter and executes.
//!
//! They are chained so that nothing outlives the builder: the helper dies with the builder, process
//! 1 with the helper, everything in the namespace with process 1, and the mounts with the namespace.
//!
//! Mounts that the Dockerfile asks for are made in the builder, mounted nowhere, and travel as
//! descriptors from there to process 1 alone. So no path of the builder is looked up in the root or
//! the other way round, a secret is in no message and no file but the one that is mounted, and all
//! of them are gone when the last process that holds them is.

mod attach;
mod child;
mod foreign;
mod helper;
mod init;
mod prepare;
mod relay;
mod scaffold;
mod seccomp;
mod trees;
mod wire;

pub use foreign::Machine;

use crate::plan::Network;
use crate::progress::Stream;
use crate::request::Hidden;
use crate::rootfs::Entry;
use crate::sys::{self, Cancel};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, WaitOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

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

/// How long a file in memory can be: as long as a secret of BuildKit's.
pub const MEMORY_LIMIT: usize = 500 * 1024;

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
    /// What is mounted over everything else, in BuildKit's order: what lies above another one comes
    /// before it, wherever it is in this list; of several on one target there is only the last.
    pub mounts: Vec<Mount>,
    /// Which network it sees.
    pub network: Network,
    /// Whether it has all the builder's capabilities, all devices, no filter, and nothing hidden or
    /// read-only in `/proc` and `/sys`.
    pub insecure: bool,
}

/// Something that is mounted while a command runs. Its place is made where the root lacks it, and
/// taken away after it. A place that is missing in something else mounted above it is made there and
/// stays, as with BuildKit; that cannot be where the one above is read-only. Nothing can be mounted
/// on the root itself, on `/proc` or in it.
#[derive(Clone, Debug)]
pub struct Mount {
    /// Where: absolute, inside the root; symbolic links are followed inside the root.
    pub target: Vec<u8>,
    /// What.
    pub what: What,
    /// Whether it can only be read.
    pub readonly: bool,
}

/// What is mounted.
#[derive(Clone, Debug)]
pub enum What {
    /// A file, directory or socket, by an open descriptor (`O_PATH` will do), and whatever is mounted
    /// below it. Where the builder's own mount of it is read-only so is this one. A descriptor in a
    /// mount that is mounted nowhere takes Linux 6.15.
    Bind(Arc<OwnedFd>),
    /// An empty file system in memory, of the mode of the directory it hides, or 1777.
    Tmpfs {
        /// Its bound in bytes; half of the memory where there is none or it is 0.
        size: Option<u64>,
    },
    /// A file that is in memory alone, and never in swap from Linux 6.4 on. It can only be read, and
    /// has at most [`MEMORY_LIMIT`] bytes.
    Memory {
        /// Its mode; bits other than 0777 are left out.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
        /// What is in it.
        content: Hidden,
    },
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

impl Error {
    /// Makes a function that turns a failure into the set-up error of an action.
    fn setup<E: Into<io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> Error {
        let action = action.into();
        move |source| Error::Setup {
            action,
            source: source.into(),
        }
    }
}

/// The helper that starts commands: a small single-threaded process of our own, forked before any
/// thread starts.
pub struct Sandbox {
    control: OwnedFd,
    helper: Pid,
}

impl Sandbox {
    /// Takes a private mount namespace for the whole process and forks the helper. To be called
    /// once, before any thread.
    ///
    /// Refused where the process has threads already or may not mount. The helper ends with the
    /// `Sandbox`, or with the calling thread however that ends: it has to be the main thread.
    pub fn start() -> Result<Sandbox, Error> {
        sys::private_mount_namespace().map_err(Error::setup(
            "take a private mount namespace, which takes root with CAP_SYS_ADMIN (in a container: \
             a privileged one, or that capability and a seccomp profile with mount)",
        ))?;
        let private = rustix::mount::MountPropagationFlags::PRIVATE
            | rustix::mount::MountPropagationFlags::REC;
        rustix::mount::mount_change(c"/", private)
            .map_err(Error::setup("make all mounts private"))?;
        let filter = seccomp::filter();
        let (control, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(Error::setup("make the helper's socket"))?;
        let builder = rustix::process::getpid();
        match sys::fork().map_err(Error::setup("fork the helper"))? {
            sys::Fork::Parent(helper) => Ok(Sandbox { control, helper }),
            sys::Fork::Child => {
                drop(control);
                helper::main(builder, theirs, &filter)
            }
        }
    }

    /// Runs a command to its end, from any thread, several at a time; what it prints is handed on
    /// as it comes. When this returns nothing of it is left running, and every mount made for it is
    /// gone, and so is every mount point that the root did not have.
    ///
    /// A program that cannot be found or executed is no error: as with Docker the reason is printed
    /// on standard error and the exit code is 127, 126 or 255. The host name and the host's name
    /// servers are in `/etc/hosts` and `/etc/resolv.conf`, which cannot be written to. A device node
    /// that the command makes, or finds anywhere but in `/dev`, is a mere file while it runs, unless
    /// the command is insecure.
    ///
    /// Two commands in the same root at the same time must find their mount points there.
    pub fn run(
        &self,
        entry: Entry<'_>,
        command: &Command,
        output: &mut dyn FnMut(Stream, &[u8]),
        cancel: &Cancel,
    ) -> Result<Exit, Error> {
        if cancel.is_set() {
            return Ok(Exit::Cancelled);
        }
        let path = match entry {
            Entry::Pivot(path) => path,
            Entry::Chroot(_) | Entry::Stay => {
                return Err(Error::Setup {
                    action: "enter the root without a mount".into(),
                    source: io::ErrorKind::Unsupported.into(),
                });
            }
        };
        let mut scaffold = scaffold::Scaffold::new(path)?;
        let result = prepare::prepare(command, path, &mut scaffold)
            .and_then(|prepared| relay::run(&self.control, prepared, output, cancel));
        // What the run says comes first; litter in the root must not go unnoticed either.
        let removed = scaffold.remove();
        let exit = result?;
        removed?;
        Ok(exit)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // The helper ends at the end of its socket; should that fail there is still the signal.
        if rustix::net::shutdown(&self.control, Shutdown::Both).is_err() {
            let _ = rustix::process::kill_process(self.helper, Signal::KILL);
        }
        let _ = rustix::io::retry_on_intr(|| {
            rustix::process::waitpid(Some(self.helper), WaitOptions::empty())
        });
    }
}
