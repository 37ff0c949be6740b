//! Process 1 of a command's namespaces: sets the root up, starts the command, reaps.
//!
//! Everything that touches the image's own names happens after the root was changed, so that no
//! symlink in the image can lead out of it.

use super::child;
use super::helper::Request;
use super::wire::{Failure, File, Job, Report, Status, send};
use crate::sys::{self, Fork, Insn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{
    CWD, FileType, Mode, OFlags, StatVfsMountFlags, makedev, mkdirat, mknodat, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_move, mount_remount,
    unmount,
};
use rustix::process::{Signal, WaitOptions};
use std::ffi::CStr;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// What Docker hides (containerd's default specification).
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/interrupts",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// What Docker makes read-only.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Device nodes: name, major, minor; mode 0666 (runc's default devices).
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Symlinks in `/dev`.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Where files to bind come from, while the root is set up.
const SOURCE: &str = "/dev";

/// Where `/dev` is built.
const STAGE: &str = "/proc";

const RESTRICTED: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// Is process 1: carries a request out and ends the process.
pub(super) fn main(request: &Request, helper: &OwnedFd, filter: &[Insn]) -> ! {
    let code = match start(request, helper, filter) {
        Ok(status) => {
            send(&request.line, &Report::Ended(status));
            0
        }
        Err(failure) => {
            failure.report(&request.line);
            1
        }
    };
    // With this process the kernel ends whatever else is left in the namespace.
    sys::exit_now(code)
}

fn start(request: &Request, helper: &OwnedFd, filter: &[Insn]) -> Result<Status, Failure> {
    outlive_nobody(helper).map_err(Failure::of("tie the command to the helper"))?;
    let job = read(&request.job).map_err(Failure::of("read the command"))?;
    rustix::process::umask(Mode::empty());
    enter(&job.root)?;
    rustix::system::sethostname(&job.hostname).map_err(Failure::of("set the host name"))?;
    set_up(&job)?;
    let stdin = rustix::fs::open(
        c"/dev/null",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(Failure::of("open /dev/null"))?;
    match sys::fork().map_err(Failure::of("fork the command"))? {
        Fork::Child => child::main(&job, request, &stdin, filter),
        Fork::Parent(command) => loop {
            // Orphans of the command come here too.
            match rustix::process::wait(WaitOptions::empty()) {
                Ok(Some((process, status))) if process == command => {
                    return Ok(Status::of(status));
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Failure::of("wait for the command")(errno)),
            }
        },
    }
}

/// Makes this process die with the helper. It cannot ask for its parent, which is not in its
/// namespace, so a descriptor of the helper tells whether that died before.
fn outlive_nobody(helper: &OwnedFd) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut watched = [PollFd::new(helper, PollFlags::IN)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match rustix::io::retry_on_intr(|| poll(&mut watched, Some(&at_once)))? {
        0 => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::ESRCH)),
    }
}

fn read(job: &OwnedFd) -> io::Result<Job> {
    let mut file = std::fs::File::from(job.try_clone()?);
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Job::decode(&bytes).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADMSG))
}

/// Makes a mount the root and lets go of everything else.
fn enter(root: &[u8]) -> Result<(), Failure> {
    let name = String::from_utf8_lossy(root).into_owned();
    rustix::process::chdir(root).map_err(Failure::of(format!("enter the root {name}")))?;
    // The old root comes to lie on top of the new one, at the same place (pivot_root(2)).
    rustix::process::pivot_root(c".", c".").map_err(|errno| {
        let why = match errno {
            Errno::PERM => {
                " by pivot_root, which Docker's default seccomp profile forbids even with \
                 CAP_SYS_ADMIN (privileged or seccomp=unconfined allow it)"
            }
            _ => "",
        };
        Failure::of(format!("make {name} the root{why}"))(errno)
    })?;
    unmount(c".", UnmountFlags::DETACH).map_err(Failure::of("leave the old root"))?;
    rustix::process::chdir(c"/").map_err(Failure::of("enter the new root"))
}

fn set_up(job: &Job) -> Result<(), Failure> {
    no_devices("/").map_err(Failure::of("shut devices out of the root"))?;
    // What is bound from a place comes from a tmpfs that goes away again; the binds keep it. `/dev`
    // is built at `/proc`, which is free till last.
    mount_at("tmpfs", SOURCE, MountFlags::NOSUID, Some(c"mode=0755"))?;
    mount_at(
        "tmpfs",
        STAGE,
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::STRICTATIME,
        Some(c"mode=755,size=65536k"),
    )?;
    bind_files(&job.binds)?;
    devices(&job.devices)?;
    unmount(SOURCE, UnmountFlags::DETACH).map_err(Failure::of("unmount the files' source"))?;
    mount_move(STAGE, "/dev").map_err(Failure::of("mount /dev"))?;
    special_mounts()?;
    mount_at("proc", "/proc", RESTRICTED, None)?;
    mount_at("sysfs", "/sys", RESTRICTED | MountFlags::RDONLY, None)?;
    for path in READ_ONLY {
        read_only(path).map_err(Failure::of(format!("make {path} read-only")))?;
    }
    for path in MASKED {
        mask(path).map_err(Failure::of(format!("hide {path}")))?;
    }
    Ok(())
}

fn mount_at(
    kind: &str,
    target: &str,
    flags: MountFlags,
    options: Option<&CStr>,
) -> Result<(), Failure> {
    mount(kind, target, kind, flags, options).map_err(Failure::of(format!("mount {target}")))
}

/// Makes device nodes in a mount mere files: a command has CAP_MKNOD, as with Docker, but there is
/// no device cgroup to keep it from the machine's disks.
fn no_devices(path: &str) -> io::Result<()> {
    let now = rustix::fs::statvfs(path)?.f_flag;
    let mut flags = MountFlags::BIND | MountFlags::NODEV;
    for (set, keep) in [
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    ] {
        if now.contains(set) {
            flags |= keep;
        }
    }
    mount_remount(path, flags, c"")?;
    Ok(())
}

/// Binds files over their places, read-only.
fn bind_files(files: &[File]) -> Result<(), Failure> {
    for (number, file) in files.iter().enumerate() {
        let source = format!("{SOURCE}/{number}");
        let bind = || -> io::Result<()> {
            write(Path::new(&source), file)?;
            mount_bind(&*source, &*file.path)?;
            let flags = MountFlags::NOSUID | MountFlags::NODEV;
            mount_remount(
                &*file.path,
                MountFlags::BIND | MountFlags::RDONLY | flags,
                c"",
            )?;
            Ok(())
        };
        let path = String::from_utf8_lossy(&file.path);
        bind().map_err(Failure::of(format!("mount {path}")))?;
    }
    Ok(())
}

fn write(path: &Path, file: &File) -> io::Result<()> {
    let mut to = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(file.mode)
        .open(path)?;
    to.write_all(&file.content)?;
    to.set_permissions(std::fs::Permissions::from_mode(file.mode))
}

/// Fills what becomes `/dev`.
fn devices(files: &[File]) -> Result<(), Failure> {
    for (name, major, minor) in DEVICES {
        let (source, place) = (format!("{SOURCE}/{name}"), format!("{STAGE}/{name}"));
        let mode = Mode::from_raw_mode(0o666);
        let device = makedev(major, minor);
        // A mount of its own, since in the directory a node is no device.
        mknodat(CWD, &*source, FileType::CharacterDevice, mode, device)
            .and_then(|()| mknodat(CWD, &*place, FileType::RegularFile, mode, 0))
            .and_then(|()| mount_bind(&*source, &*place))
            .map_err(Failure::of(format!("make /dev/{name}")))?;
    }
    for (name, target) in LINKS {
        symlinkat(target, CWD, format!("{STAGE}/{name}"))
            .map_err(Failure::of(format!("make /dev/{name}")))?;
    }
    for file in files {
        let path = Path::new(STAGE).join(std::ffi::OsStr::from_bytes(&file.path));
        let parent = path.parent().unwrap_or(Path::new(STAGE));
        // No umask: that of this process is 0.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .and_then(|()| write(&path, file))
            .map_err(Failure::of(format!(
                "write /dev/{}",
                String::from_utf8_lossy(&file.path)
            )))?;
    }
    Ok(())
}

/// Mounts what `/dev` has in it.
fn special_mounts() -> Result<(), Failure> {
    let mounts: [(&str, &str, MountFlags, Option<&CStr>); 3] = [
        (
            "devpts",
            "/dev/pts",
            MountFlags::NOSUID | MountFlags::NOEXEC,
            Some(c"newinstance,ptmxmode=0666,mode=0620,gid=5"),
        ),
        (
            "tmpfs",
            "/dev/shm",
            RESTRICTED,
            Some(c"mode=1777,size=65536k"),
        ),
        ("mqueue", "/dev/mqueue", RESTRICTED, None),
    ];
    for (kind, target, flags, options) in mounts {
        mkdirat(CWD, target, Mode::from_raw_mode(0o755))
            .map_err(Failure::of(format!("make {target}")))?;
        match mount_at(kind, target, flags, options) {
            // A kernel without POSIX message queues.
            Err(failure) if kind == "mqueue" && failure.errno == libc::ENODEV => {}
            other => other?,
        }
    }
    Ok(())
}

/// Makes a path read-only, where it is there.
fn read_only(path: &str) -> io::Result<()> {
    match mount_bind_recursive(path, path) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    }
    let flags = MountFlags::BIND | MountFlags::RDONLY | RESTRICTED;
    mount_remount(path, flags, c"")?;
    Ok(())
}

/// Hides a path, where it is there: a file behind the null device, a directory behind an empty one.
fn mask(path: &str) -> io::Result<()> {
    match mount_bind("/dev/null", path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::NOTDIR) => Ok(mount(
            "tmpfs",
            path,
            "tmpfs",
            RESTRICTED | MountFlags::RDONLY,
            Some(c"size=0"),
        )?),
        Err(errno) => Err(errno.into()),
    }
}
