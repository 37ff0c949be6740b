//! A `/dev` of device nodes in an ordinary directory.

use super::super::init::{DEVICES, LINKS};
use super::super::wire::Failure;
use rustix::fs::symlinkat;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, chmodat, makedev, mkdirat, mknodat, openat};
use rustix::io::Errno;
use std::os::fd::BorrowedFd;

/// What came of it.
pub(super) enum Filled {
    Whole,
    /// There is a file in the place of `/dev/null`, and no other device.
    WithoutNodes,
}

/// Fills an empty directory.
pub(super) fn fill(dev: BorrowedFd<'_>) -> Result<Filled, Failure> {
    let mut filled = Filled::Whole;
    let all = DEVICES.into_iter().chain([("ptmx", 5, 2)]);
    for (name, major, minor) in all {
        let mode = Mode::from_raw_mode(0o666);
        let device = makedev(major, minor);
        match mknodat(dev, name, FileType::CharacterDevice, mode, device) {
            Err(Errno::PERM) => filled = Filled::WithoutNodes,
            other => other.map_err(Failure::of(format!("make /dev/{name}")))?,
        }
    }
    for (name, target) in LINKS {
        // There are no pseudo terminals of the command's own for it to lead to.
        if name != "ptmx" {
            symlinkat(target, dev, name).map_err(Failure::of(format!("make /dev/{name}")))?;
        }
    }
    for (name, mode) in [("pts", 0o755), ("shm", 0o1777)] {
        mkdirat(dev, name, Mode::from_raw_mode(mode))
            .and_then(|()| chmodat(dev, name, Mode::from_raw_mode(mode), AtFlags::empty()))
            .map_err(Failure::of(format!("make /dev/{name}")))?;
    }
    // Where there is none, a file that is written to anew by most is better than nothing.
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    openat(dev, "null", flags, Mode::from_raw_mode(0o666)).map_err(Failure::of(
        "open /dev/null in the root, whose file system must not be mounted nodev",
    ))?;
    Ok(filled)
}
