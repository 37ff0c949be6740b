//! Mounting: a descriptor of the kernel's device, a mount that nobody sees, and the threads that
//! answer.

use super::serve::Server;
use super::turns::Turns;
use crate::rootfs::Error;
use crate::rootfs::dirs::{at, detach, open_dir};
use fuser::{Config, Session, SessionACL};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, move_mount,
};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// How many threads answer one mount: one takes the questions, the others are for when an answer takes
/// long.
const THREADS: usize = 4;

/// What the kernel's table of mounts says is mounted, of a root on FUSE.
pub const FUSE_SOURCE: &str = "shutter";

/// Whether a mount can be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    ReadWrite,
    ReadOnly,
}

/// Mounts where nobody sees it and starts answering; gives the root, to be found by. The mount goes
/// with the last descriptor or place it is attached to, and the threads with it.
///
/// `spare` is an empty directory that old kernels need for a moment.
pub(super) fn serve(mut server: Server, access: Access, spare: &Path) -> Result<OwnedFd, Error> {
    allow_many_files();
    let device = open_device()?;
    let made = match by_new_calls(&device, access) {
        Err(Errno::NOSYS) => {
            by_one_call(&device, access, spare).map_err(|error| refused("mount", error))?;
            None
        }
        other => Some(other.map_err(|error| refused("mount", error))?),
    };
    // Without them threads are woken for each question.
    server.turns = device.try_clone().ok().and_then(Turns::new);
    let mut config = Config::default();
    config.n_threads = Some(threads());
    config.clone_fd = true;
    let files = Arc::clone(&server.files);
    let session = Session::from_fd(server, device, SessionACL::All, config)
        .and_then(|session| {
            *files.kernel() = Some(session.notifier());
            session.spawn()
        })
        .map_err(|source| Error::Io {
            action: "start answering for",
            path: spare.to_owned(),
            source,
        })?;
    // The threads end by themselves when the mount does.
    drop(session);
    match made {
        Some(made) => Ok(made),
        None => {
            let root = open_dir(spare)?;
            detach(spare)?;
            Ok(root)
        }
    }
}

/// Lets this process have as many files open as it may: what a command has open to write to, it has
/// open too. Commands are started by a process that came before and keeps its own limit.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let most = Rlimit {
            current: maximum,
            maximum,
        };
        // Where that is refused, a command that opens too many is told so.
        let _ = setrlimit(Resource::Nofile, most);
    });
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(THREADS, |cores| cores.get().clamp(1, THREADS))
}

/// Puts a mount on a directory.
pub(super) fn attach(root: &OwnedFd, target: &Path) -> Result<(), Error> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(root, c"", CWD, target, flags).map_err(at("mount on", target))
}

/// What is tried where the kernel's device cannot be opened.
pub(in crate::rootfs) const OPEN_DEVICE: &str = "open /dev/fuse";

fn open_device() -> Result<OwnedFd, Error> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    openat(CWD, "/dev/fuse", flags, Mode::empty()).map_err(|error| refused(OPEN_DEVICE, error))
}

fn by_new_calls(device: &OwnedFd, access: Access) -> Result<OwnedFd, Errno> {
    let fs = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options(device) {
        match value {
            Some(value) => fsconfig_set_string(fs.as_fd(), key, value.as_str())?,
            None => fsconfig_set_flag(fs.as_fd(), key)?,
        }
    }
    fsconfig_set_string(fs.as_fd(), "source", FUSE_SOURCE)?;
    fsconfig_create(fs.as_fd())?;
    let attributes = match access {
        Access::ReadWrite => MountAttrFlags::empty(),
        Access::ReadOnly => MountAttrFlags::MOUNT_ATTR_RDONLY,
    };
    fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn by_one_call(device: &OwnedFd, access: Access, target: &Path) -> Result<(), Errno> {
    let options: Vec<String> = options(device)
        .into_iter()
        .map(|(key, value)| match value {
            Some(value) => format!("{key}={value}"),
            None => key.to_owned(),
        })
        .collect();
    let flags = match access {
        Access::ReadWrite => MountFlags::empty(),
        Access::ReadOnly => MountFlags::RDONLY,
    };
    let data = CString::new(options.join(",")).map_err(|_| Errno::INVAL)?;
    mount(FUSE_SOURCE, target, "fuse", flags, data.as_c_str())
}

fn options(device: &OwnedFd) -> [(&'static str, Option<String>); 6] {
    [
        ("fd", Some(device.as_raw_fd().to_string())),
        ("rootmode", Some("40000".into())),
        (
            "user_id",
            Some(rustix::process::geteuid().as_raw().to_string()),
        ),
        (
            "group_id",
            Some(rustix::process::getegid().as_raw().to_string()),
        ),
        // The kernel checks permissions by what the table says of a file.
        ("default_permissions", None),
        ("allow_other", None),
    ]
}

fn refused(action: &str, error: Errno) -> Error {
    Error::Mount {
        strategy: "fuse",
        action: action.to_owned(),
        source: error.into(),
    }
}

/// Tells how deep file systems may be stacked where the kernel reads and writes contents itself;
/// nothing where it will not. `dirs` are where the contents lie.
pub(in crate::rootfs) fn passthrough(dirs: &[std::os::fd::BorrowedFd<'_>]) -> Option<u32> {
    // The kernel asks for the right over the whole machine, which nobody has in a user namespace.
    let map = std::fs::read_to_string("/proc/self/uid_map").ok()?;
    let whole: Vec<&str> = map.split_whitespace().collect();
    if whole != ["0", "0", "4294967295"] {
        return None;
    }
    let effective = rustix::thread::capabilities(None).ok()?.effective;
    if !effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN) {
        return None;
    }
    const OVERLAY: u32 = 0x794c_7630;
    let stacked = dirs
        .iter()
        .any(|dir| rustix::fs::fstatfs(dir).is_ok_and(|stat| stat.f_type as u32 == OVERLAY));
    // Contents on overlayfs take all there is; else one level is left for an overlay above.
    Some(if stacked { 2 } else { 1 })
}
