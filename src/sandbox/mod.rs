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
//! Where nothing may be mounted and no namespace made, as in an ordinary container, a command takes
//! another way (`plain`): instead of process 1 there is a keeper outside of the root, which puts what
//! would be mounted into the root and takes it away again, and ends whatever the command left
//! running; user, capabilities and exit are as above (`child`).
//!
//! Where the builder may not mount as who it is, the whole process first becomes root of a user
//! namespace of its own (`userns`). What even that root may not do is borrowed from outside (`borrow`):
//! devices, `/sys`, and `/proc` where a part of that is hidden.
//!
//! Mounts that the Dockerfile asks for are made in the builder, mounted nowhere, and travel as
//! descriptors from there to process 1 alone. So no path of the builder is looked up in the root or
//! the other way round, a secret is in no message and no file but the one that is mounted, and all
//! of them are gone when the last process that holds them is.

mod attach;
mod borrow;
mod child;
mod foreign;
mod helper;
mod init;
mod plain;
mod prepare;
mod relay;
mod scaffold;
mod seccomp;
mod trees;
mod userns;
mod wire;

pub use foreign::Machine;

use crate::plan::Network;
use crate::progress::Stream;
use crate::request::Hidden;
use crate::rootfs::Entry;
use crate::sys::{self, Cancel};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, waitid};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
    ///
    /// Where nothing can be mounted a directory that can be written to is moved into the root and back
    /// (or copied both ways), so only one command has it at a time; what can only be read is copied and
    /// thrown away, as is a file; a socket gets a second name on its file system.
    Bind(Arc<OwnedFd>),
    /// A copy of a file or directory, which goes with the command. It is what a `Bind` that is
    /// thrown away is where nothing can be mounted, and refused elsewhere.
    Copy(Arc<OwnedFd>),
    /// An empty file system in memory, of the mode of the directory it hides, or 1777. Where nothing
    /// can be mounted an empty directory.
    Tmpfs {
        /// Its bound in bytes; half of the memory where there is none or it is 0.
        size: Option<u64>,
    },
    /// A file that is in memory alone, and never in swap from Linux 6.4 on. It can only be read, and
    /// has at most [`MEMORY_LIMIT`] bytes. Where nothing can be mounted it is on a tmpfs that is there,
    /// or on the root's own file system, and overwritten afterwards.
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
    /// Why no root can be entered by a mount, where none can.
    no_mounts: Option<(String, i32)>,
    /// Why the builder has no user namespace of its own, where it wants one.
    no_users: Option<String>,
    /// What is less than it should be for all commands.
    notes: Vec<String>,
    /// What has been warned of.
    warned: Mutex<BTreeSet<i32>>,
    /// How many commands run that have no namespaces.
    plain: AtomicUsize,
}

/// Who the process is where it may not mount as who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Users {
    /// Still who it is.
    Same,
    /// Root of a user namespace of its own.
    Own,
}

impl Sandbox {
    /// Starts as `start_as` does, in no user namespace of its own.
    pub fn start() -> Result<Sandbox, Error> {
        Sandbox::start_as(Users::Same)
    }

    /// Takes a private mount namespace for the whole process, where it may, and forks the helper. To
    /// be called once, before any thread.
    ///
    /// Where the process may not do so it enters a user namespace of its own, if `users` says so and
    /// it can mount there. It has as many ids in there as it can get: those of the caller's ranges in
    /// `/etc/subuid` and `/etc/subgid`, all that are here where it is root, or root's alone.
    ///
    /// Refused where the process has threads already. Where it may not mount, roots that are entered
    /// by a mount are refused later. The helper ends with the `Sandbox`, or with the calling thread
    /// however that ends: it has to be the main thread.
    pub fn start_as(users: Users) -> Result<Sandbox, Error> {
        let mut notes = Vec::new();
        let mut no_users = None;
        let no_mounts = match private_mounts() {
            Ok(()) => None,
            Err((action, error)) => match (error.raw_os_error(), users) {
                // There are threads.
                (None, _) => return Err(Error::setup(action)(error)),
                (Some(errno), Users::Same) => Some((action.to_owned(), errno)),
                (Some(errno), Users::Own) => match userns::enter() {
                    Ok(one_id) => {
                        private_mounts().map_err(|(action, error)| Error::setup(action)(error))?;
                        notes.extend(one_id.map(|why| one_id_note(&why)));
                        None
                    }
                    Err(why) => {
                        let action = format!("{action}, or a user namespace ({why})");
                        no_users = Some(why);
                        Some((action, errno))
                    }
                },
            },
        };
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
            sys::Fork::Parent(helper) => Ok(Sandbox {
                control,
                helper,
                no_mounts,
                no_users,
                notes,
                warned: Mutex::default(),
                plain: AtomicUsize::new(0),
            }),
            sys::Fork::Child => {
                drop(control);
                helper::main(builder, theirs, &filter)
            }
        }
    }

    /// Gives what is less here than it should be, whatever command runs, in words for the user.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Gives why the builder could not get a user namespace of its own, where it may not mount without
    /// one and was to have one.
    pub fn no_users(&self) -> Option<&str> {
        self.no_users.as_deref()
    }

    /// Runs a command to its end, from any thread, several at a time; what it prints is handed on
    /// as it comes. When this returns nothing of it is left running, and every mount made for it is
    /// gone, and so is every mount point that the root did not have, and whatever was put into the
    /// root in a mount's stead.
    ///
    /// A program that cannot be found or executed is no error: as with Docker the reason is printed
    /// on standard error and the exit code is 127, 126 or 255. The host name and the host's name
    /// servers are in `/etc/hosts` and `/etc/resolv.conf`, which cannot be written to. A device node
    /// that the command makes, or finds anywhere but in `/dev`, is a mere file while it runs, unless
    /// the command is insecure.
    ///
    /// Where nothing can be mounted there is less ([`Entry::Chroot`], [`Entry::Stay`]): what is read-only
    /// elsewhere is a copy that is thrown away, devices are devices, the host name is the builder's,
    /// and a chroot has no `/proc`. What cannot be as it should is said through `warn`, each kind of
    /// thing once; a network of the command's own is refused.
    ///
    /// Two commands in the same root at the same time must find their mount points there, and be
    /// able to mount.
    pub fn run(
        &self,
        entry: Entry<'_>,
        command: &Command,
        output: &mut dyn FnMut(Stream, &[u8]),
        warn: &mut dyn FnMut(&str),
        cancel: &Cancel,
    ) -> Result<Exit, Error> {
        if cancel.is_set() {
            return Ok(Exit::Cancelled);
        }
        let mut once = |number, text: &str| {
            let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
            if warned.insert(number) {
                warn(text);
            }
        };
        let path = match entry {
            Entry::Pivot(path) => path,
            Entry::Chroot(_) | Entry::Stay => {
                let prepared = plain::prepare(command, entry)?;
                return self.run_plain(prepared, output, &mut once, cancel);
            }
        };
        if let Some((action, errno)) = &self.no_mounts {
            return Err(Error::setup(action)(io::Error::from_raw_os_error(*errno)));
        }
        let mut scaffold = scaffold::Scaffold::new(path)?;
        let result = prepare::prepare(command, path, &mut scaffold)
            .and_then(|prepared| relay::run(&self.control, prepared, output, &mut once, cancel));
        // What the run says comes first; litter in the root must not go unnoticed either.
        let removed = scaffold.remove();
        let exit = result?;
        removed?;
        Ok(exit)
    }

    fn run_plain(
        &self,
        prepared: prepare::Prepared,
        output: &mut dyn FnMut(Stream, &[u8]),
        warn: relay::Warn<'_>,
        cancel: &Cancel,
    ) -> Result<Exit, Error> {
        // Should the command kill the helper too, what it leaves running comes here. And it is in
        // the same process id namespace: it shall not look into the builder.
        let this = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(this))
            .map_err(Error::setup("adopt what commands leave behind"))?;
        let _ =
            rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
        self.plain.fetch_add(1, Ordering::SeqCst);
        let exit = relay::run(&self.control, prepared, output, warn, cancel);
        let last = self.plain.fetch_sub(1, Ordering::SeqCst) == 1;
        // The keepers of other commands have to come to their own end first.
        if last && matches!(exit, Err(Error::Helper(_))) && self.helper_is_dead() {
            plain::hunt::end_all(&[self.helper])
                .map_err(Error::setup("end what a command left running"))?;
        }
        exit
    }

    /// Tells whether the helper is there no more. It is not reaped, so that its id stays its own.
    fn helper_is_dead(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(self.helper), options), Ok(None))
    }
}

/// Puts back what builds that were killed with all their processes have left in the builder's own
/// root ([`Entry::Stay`]); gives the places. To be called before anything of an image is there.
pub fn repair() -> Result<Vec<PathBuf>, Error> {
    plain::journal::repair().map_err(Error::setup("put back what a killed build left behind"))
}

fn one_id_note(why: &str) -> String {
    format!(
        "there is one user id for this build ({why}): commands cannot give files to others or run as \
         another user, what they copy is root's, and they have the groups of whoever builds; more ids take a range in /etc/subuid and \
         /etc/subgid, and newuidmap"
    )
}

/// Takes a private mount namespace for the whole process; says what was tried where it cannot.
fn private_mounts() -> Result<(), (&'static str, io::Error)> {
    sys::private_mount_namespace().map_err(|error| {
        let action = "take a private mount namespace, which takes root with CAP_SYS_ADMIN (in a \
                      container: a privileged one, or that capability and a seccomp profile with \
                      mount)";
        (action, error)
    })?;
    let private =
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change(c"/", private)
        .map_err(|errno| ("make all mounts private", errno.into()))
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
