//! Process 1 of a command's namespaces: sets the root up, starts the command, reaps.
//!
//! Everything that touches the image's own names happens after the root was changed, so that no
//! symlink in the image can lead out of it.

use super::attach;
use super::borrow::{self, Age, Borrowed, Kernel};
use super::child;
use super::helper::Request;
use super::wire::{Failure, File, Job, Report, Status, Why, send, wipe};
use crate::fs::mountinfo;
use crate::plan::Network;
use crate::sys::{self, Fork, Insn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mkdirat, mknodat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    MountAttrFlags, MountFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_move,
    mount_remount, unmount,
};
use rustix::process::{Pid, Signal, WaitOptions};
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
pub(super) const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// What an insecure command has besides, as with BuildKit: the kernel's log, file systems in
/// programs, virtual machines, virtual networks, loop devices (of which there are more, see
/// `loop_devices`). They are there whether or not the kernel has a driver.
pub(super) const MORE_DEVICES: [(&str, u32, u32); 6] = [
    ("kmsg", 1, 11),
    ("cuse", 10, 203),
    ("fuse", 10, 229),
    ("kvm", 10, 232),
    ("net/tun", 10, 200),
    ("loop-control", 10, 237),
];

/// The major number of loop devices.
const LOOP: u32 = 7;

/// How many loop devices there are beyond the last that the kernel has already.
const SPARE_LOOPS: u32 = 8;

/// How many there are at most.
const MOST_LOOPS: u32 = 256;

/// Symlinks in `/dev`.
pub(super) const LINKS: [(&str, &str); 5] = [
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

/// The number of a warning.
const WHOLE_PROC: i32 = -1;

const RESTRICTED: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// What connects a run with the builder.
pub(super) struct Streams {
    /// Where reports go, and where the trees to mount come from; its other end closed or shut down
    /// means: kill.
    pub(super) line: OwnedFd,
    /// Standard output.
    pub(super) out: OwnedFd,
    /// Standard error.
    pub(super) err: OwnedFd,
}

/// Is process 1: carries a request out and ends the process.
pub(super) fn main(request: Request, helper: &OwnedFd, filter: &[Insn]) -> ! {
    let Request { streams, job, .. } = request;
    let ended = start(job, &streams, helper, filter);
    let code = conclude(&streams, ended.map(Some));
    // With this process the kernel ends whatever else is left in the namespace.
    sys::exit_now(code)
}

/// Tells the builder how a process's part in a run ended, which has the command's status where it is
/// for this process to say; gives the process's own code.
pub(super) fn conclude(streams: &Streams, ended: Result<Option<Status>, Failure>) -> i32 {
    match ended {
        Ok(Some(status)) => send(&streams.line, &Report::Ended(status)),
        Ok(None) => {}
        Err(failure) => {
            failure.report(&streams.line);
            return 1;
        }
    }
    0
}

fn start(
    job: OwnedFd,
    streams: &Streams,
    helper: &OwnedFd,
    filter: &[Insn],
) -> Result<Status, Failure> {
    outlive_nobody(helper).map_err(Failure::of("tie the command to the helper"))?;
    let mut job = read(job).map_err(Failure::of("read the command"))?;
    let trees = attach::receive(&streams.line, job.targets.len())
        .map_err(Failure::of("receive what the command mounts"))?;
    rustix::process::umask(Mode::empty());
    let borrowed = borrow::borrow();
    enter(&job.root)?;
    rustix::system::sethostname(&job.hostname).map_err(Failure::of("set the host name"))?;
    if job.network == Network::None {
        sys::loopback_up().map_err(Failure::of(
            "turn on the loopback device of the command's own network, which takes CAP_NET_ADMIN",
        ))?;
    }
    let trees = set_up(&job, trees, borrowed, streams)?;
    // Before something may be mounted over it.
    let stdin = rustix::fs::open(
        c"/dev/null",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(Failure::of("open /dev/null"))?;
    attach::attach(&job.targets, trees)?;
    match sys::fork().map_err(Failure::of("fork the command"))? {
        Fork::Child => child::main(&job, &child::Inside::Here, streams, &stdin, filter),
        Fork::Parent(command) => {
            job.env.iter_mut().for_each(|variable| wipe(variable));
            reap(command)
        }
    }
}

/// Waits for the command, and for its orphans meanwhile.
pub(super) fn reap(command: Pid) -> Result<Status, Failure> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((process, status))) if process == command => {
                return Ok(Status::of(status));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Failure::of("wait for the command")(errno)),
        }
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

/// Reads the job, which nobody else can afterwards: its memory goes with the last descriptor.
pub(super) fn read(job: OwnedFd) -> io::Result<Job> {
    let mut file = std::fs::File::from(job);
    // At once, so that no copy of a secret stays behind where it grew.
    let length = usize::try_from(file.metadata()?.len()).unwrap_or_default();
    let mut bytes = Vec::with_capacity(length + 1);
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    let job = Job::decode(&bytes);
    wipe(&mut bytes);
    job.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADMSG))
}

/// Makes a mount the root and lets go of everything else.
fn enter(root: &[u8]) -> Result<(), Failure> {
    let name = String::from_utf8_lossy(root).into_owned();
    rustix::process::chdir(root).map_err(Failure::of(format!("enter the root {name}")))?;
    // The old root comes to lie on top of the new one, at the same place (pivot_root(2)).
    match rustix::process::pivot_root(c".", c".") {
        Ok(()) => {
            unmount(c".", UnmountFlags::DETACH).map_err(Failure::of("leave the old root"))?;
        }
        // Forbidden by Docker's default seccomp profile, even with CAP_SYS_ADMIN; impossible where
        // the old root is the kernel's first file system.
        Err(errno @ (Errno::PERM | Errno::NOSYS | Errno::INVAL)) => {
            if let Err(moved) = move_root(root) {
                let why = match errno {
                    Errno::INVAL => String::new(),
                    _ => format!(" (pivot_root: {}, so by moving it)", io::Error::from(errno)),
                };
                return Err(Failure::of(format!("make {name} the root{why}"))(moved));
            }
        }
        Err(errno) => return Err(Failure::of(format!("make {name} the root"))(errno)),
    }
    rustix::process::chdir(c"/").map_err(Failure::of("enter the new root"))
}

/// Makes the current directory, a mount, the root by moving it there. What it hides is unmounted, so
/// that nobody finds it again and no file system is kept busy.
fn move_root(root: &[u8]) -> io::Result<()> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    mount_move(c".", c"/")?;
    // Until the root is changed a path still begins at the old one.
    let mounts: Vec<mountinfo::Mount> = mountinfo::mounts(&table).collect();
    for mount in mounts.iter().rev() {
        if mount.point != b"/" && mount.point != root {
            // Those below one that is gone already are gone too.
            let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
            let _ = unmount(mount.point.as_slice(), flags);
        }
    }
    rustix::process::chroot(c".")?;
    Ok(())
}

/// Mounts what every command has, and gives the trees as they are to be mounted over that.
fn set_up(
    job: &Job,
    trees: Vec<OwnedFd>,
    mut borrowed: Borrowed,
    streams: &Streams,
) -> Result<Vec<OwnedFd>, Failure> {
    let mut dev = MountFlags::NOSUID | MountFlags::STRICTATIME;
    let mut sys = RESTRICTED;
    if !job.insecure {
        dev |= MountFlags::NODEV;
        sys |= MountFlags::RDONLY;
        // A command has CAP_MKNOD, as with Docker, but there is no device cgroup to keep it from
        // the machine's disks.
        attach::add_flags(b"/", MountFlags::NODEV)
            .map_err(Failure::of("shut devices out of the root"))?;
    }
    // What is bound from a place comes from a tmpfs that goes away again; the binds keep it. `/dev`
    // is built at `/proc`, which is free till last.
    mount_at("tmpfs", SOURCE, MountFlags::NOSUID, Some(c"mode=0755"))?;
    mount_at("tmpfs", STAGE, dev, Some(c"mode=755,size=65536k"))?;
    bind_files(&job.binds)?;
    let trees = attach::take_files(&job.targets, trees, SOURCE)?;
    devices(&job.devices, &mut borrowed)?;
    unmount(SOURCE, UnmountFlags::DETACH).map_err(Failure::of("unmount the files' source"))?;
    mount_move(STAGE, "/dev").map_err(Failure::of("mount /dev"))?;
    special_mounts()?;
    if mount_kernel(Kernel::Proc, RESTRICTED, &mut borrowed)? == Age::Old {
        let text = "a part of /proc is hidden here, so that commands cannot have one of their own: they \
                    see the processes of this whole container in /proc";
        let text = text.to_owned();
        send(
            &streams.line,
            &Report::Warned {
                number: WHOLE_PROC,
                text,
            },
        );
    }
    mount_kernel(Kernel::Sys, sys, &mut borrowed)?;
    if job.insecure {
        more_devices(&mut borrowed)?;
        return Ok(trees);
    }
    for path in READ_ONLY {
        read_only(path).map_err(Failure::of(format!("make {path} read-only")))?;
    }
    for path in MASKED {
        mask(path).map_err(Failure::of(format!("hide {path}")))?;
    }
    Ok(trees)
}

/// Mounts a file system of the kernel's.
fn mount_kernel(which: Kernel, flags: MountFlags, borrowed: &mut Borrowed) -> Result<Age, Failure> {
    let (kind, target) = match which {
        Kernel::Proc => ("proc", "/proc"),
        Kernel::Sys => ("sysfs", "/sys"),
    };
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    if flags.contains(MountFlags::RDONLY) {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    match borrowed.kernel(which, target, attributes)? {
        Some(age) => Ok(age),
        None => mount_at(kind, target, flags, None).map(|()| Age::New),
    }
}

fn mount_at(
    kind: &str,
    target: &str,
    flags: MountFlags,
    options: Option<&CStr>,
) -> Result<(), Failure> {
    mount(kind, target, kind, flags, options).map_err(Failure::of(format!("mount {target}")))
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
fn devices(files: &[File], borrowed: &mut Borrowed) -> Result<(), Failure> {
    for (name, major, minor) in DEVICES {
        let (source, place) = (format!("{SOURCE}/{name}"), format!("{STAGE}/{name}"));
        if borrowed.has_devices() {
            borrowed.device(name, &place)?;
            continue;
        }
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

/// Makes the further devices of an insecure command.
fn more_devices(borrowed: &mut Borrowed) -> Result<(), Failure> {
    let borrows = borrowed.has_devices();
    let mut made = |name: &str, kind, major, minor| {
        let place = format!("/dev/{name}");
        if let Some((parent, _)) = name.rsplit_once('/') {
            match mkdirat(CWD, format!("/dev/{parent}"), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(Failure::of(format!("make {place}"))(errno)),
            }
        }
        if borrows {
            return borrowed.device(name, &place);
        }
        let mode = Mode::from_raw_mode(0o666);
        mknodat(CWD, &*place, kind, mode, makedev(major, minor))
            .map_err(Failure::of(format!("make {place}")))
    };
    for (name, major, minor) in MORE_DEVICES {
        made(name, FileType::CharacterDevice, major, minor)?;
    }
    for number in 0..loop_devices() {
        made(
            &format!("loop{number}"),
            FileType::BlockDevice,
            LOOP,
            number,
        )?;
    }
    Ok(())
}

/// Gives how many loop devices an insecure command has: those of the kernel, and some that it may
/// get from `loop-control`.
fn loop_devices() -> u32 {
    let number = |name: &std::ffi::OsStr| name.to_str()?.strip_prefix("loop")?.parse::<u32>().ok();
    let known = std::fs::read_dir("/sys/block").into_iter().flatten();
    let next = known
        .filter_map(|entry| number(&entry.ok()?.file_name()))
        .max()
        .map_or(0, |last| last.saturating_add(1));
    next.saturating_add(SPARE_LOOPS).min(MOST_LOOPS)
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
            Err(failure) if kind == "mqueue" && failure.why == Why::Errno(libc::ENODEV) => {}
            // There is no group 5.
            Err(failure) if kind == "devpts" && failure.why == Why::Errno(libc::EINVAL) => {
                let options = c"newinstance,ptmxmode=0666,mode=0620";
                mount_at(kind, target, flags, Some(options))?;
            }
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
