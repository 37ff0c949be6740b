//! Process 1's side of what a command mounts: takes the trees and puts them in their places.

use super::scaffold::Kind;
use super::wire::{Failure, Part, Target};
use crate::fs::mountinfo;
use crate::sys;
use rustix::fs::{CWD, FileType, Mode, OFlags, StatVfsMountFlags, fstat, mkdirat, openat, statvfs};
use rustix::io::Errno;
use rustix::mount::{
    MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, mount_remount, move_mount, open_tree,
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};
use std::collections::HashSet;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// As many descriptors as come in one message.
pub(super) const BATCH: usize = 64;

/// Receives the trees of a run.
pub(super) fn receive(line: &OwnedFd, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut trees = Vec::with_capacity(count);
    while trees.len() < count {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(
                line,
                &mut [IoSliceMut::new(&mut byte)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            )
        })?;
        let before = trees.len();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                trees.extend(descriptors);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            // For want of free descriptors.
            return Err(Errno::MFILE.into());
        }
        if received.bytes == 0 || trees.len() == before {
            return Err(Errno::CONNRESET.into());
        }
    }
    Ok(trees)
}

/// Takes out of the trees that are more than what is mounted the one file that is. For a moment they
/// are mounted below `place`, a directory of no other use: kernels before 6.15 clone only from what
/// is mounted somewhere.
pub(super) fn take_files(
    targets: &[Target],
    trees: Vec<OwnedFd>,
    place: &str,
) -> Result<Vec<OwnedFd>, Failure> {
    let take = |number: usize, tree: OwnedFd| -> io::Result<OwnedFd> {
        let at = format!("{place}/tree{number}");
        mkdirat(CWD, &*at, Mode::from_raw_mode(0o700))?;
        move_mount(
            &tree,
            c"",
            CWD,
            &*at,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        Ok(open_tree(&tree, Part::NAME, flags)?)
    };
    targets
        .iter()
        .zip(trees)
        .enumerate()
        .map(|(number, (target, tree))| match target.part {
            Part::Whole => Ok(tree),
            Part::File => take(number, tree).map_err(failed(target)),
        })
        .collect()
}

/// Mounts the trees, one over the other.
pub(super) fn attach(targets: &[Target], trees: Vec<OwnedFd>) -> Result<(), Failure> {
    for (target, tree) in targets.iter().zip(trees) {
        attach_one(target, &tree).map_err(failed(target))?;
    }
    Ok(())
}

fn failed(target: &Target) -> impl FnOnce(io::Error) -> Failure {
    Failure::of(format!("mount {}", String::from_utf8_lossy(&target.path)))
}

fn attach_one(target: &Target, tree: &OwnedFd) -> io::Result<()> {
    let set = MountAttrFlags::from_bits_retain(target.attributes);
    let late = restrict(tree, set)?;
    let place = open(&target.path, target.kind)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, c"", &place, c"", flags)?;
    match late {
        Late::Nothing => Ok(()),
        Late::Restrict => restrict_mounted(tree, set),
    }
}

/// What is left to do once a tree is mounted.
enum Late {
    Nothing,
    Restrict,
}

/// Gives every mount of a tree its attributes. That the builder's own mount of it forbids programs
/// to be executed says nothing about the command: its root is not mounted that way either.
fn restrict(tree: &OwnedFd, set: MountAttrFlags) -> io::Result<Late> {
    let clear = MountAttrFlags::MOUNT_ATTR_NOEXEC.union(MountAttrFlags::MOUNT_ATTR_NOSUID) - set;
    let given = |clear| sys::set_mount_attributes(tree.as_fd(), set, clear);
    let mut result = given(clear);
    if is(&result, libc::EPERM) {
        // Attributes of mounts from outside of a user namespace cannot be taken away.
        result = given(MountAttrFlags::empty());
    }
    // Before Linux 5.12, and under seccomp profiles from before it.
    if is(&result, libc::ENOSYS) || is(&result, libc::EPERM) {
        return Ok(Late::Restrict);
    }
    result.map(|()| Late::Nothing)
}

fn is(result: &io::Result<()>, errno: i32) -> bool {
    let error = result.as_ref().err();
    error.and_then(io::Error::raw_os_error) == Some(errno)
}

/// The same once the tree is mounted, one mount after the other.
fn restrict_mounted(tree: &OwnedFd, set: MountAttrFlags) -> io::Result<()> {
    let information = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", tree.as_raw_fd()))?;
    let top: u64 = information
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
        .ok_or(Errno::NOTSUP)?;
    let table = std::fs::read("/proc/self/mountinfo")?;
    let mut flags = MountFlags::empty();
    for (attribute, flag) in [
        (MountAttrFlags::MOUNT_ATTR_RDONLY, MountFlags::RDONLY),
        (MountAttrFlags::MOUNT_ATTR_NOSUID, MountFlags::NOSUID),
        (MountAttrFlags::MOUNT_ATTR_NODEV, MountFlags::NODEV),
        (MountAttrFlags::MOUNT_ATTR_NOEXEC, MountFlags::NOEXEC),
    ] {
        if set.contains(attribute) {
            flags |= flag;
        }
    }
    // A mount comes after the one it lies in.
    let mut tree = HashSet::from([top]);
    for mount in mountinfo::mounts(&table) {
        if mount.id == top || tree.contains(&mount.parent) {
            tree.insert(mount.id);
            add_flags(&mount.point, flags)?;
        }
    }
    Ok(())
}

/// Gives a mount further flags, besides those it has.
pub(super) fn add_flags(path: &[u8], flags: MountFlags) -> io::Result<()> {
    let now = statvfs(path)?.f_flag;
    let mut flags = MountFlags::BIND | flags;
    for (set, keep) in [
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    ] {
        if now.contains(set) {
            flags |= keep;
        }
    }
    mount_remount(path, flags, c"")?;
    Ok(())
}

/// Opens the place of a mount. It was found free of symlinks; should one be there now it is not
/// followed. In `/dev`, which is new, what is missing is made.
fn open(path: &[u8], kind: Kind) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here = openat(CWD, c"/", flags, Mode::empty())?;
    let mut names = path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
        .peekable();
    while let Some(name) = names.next() {
        here = match openat(&here, name, flags, Mode::empty()) {
            Err(Errno::NOENT) if path.starts_with(b"/dev/") => {
                let kind = match names.peek() {
                    None => kind,
                    Some(_) => Kind::Directory,
                };
                make(&here, name, kind)?;
                openat(&here, name, flags, Mode::empty())?
            }
            other => other?,
        };
        if FileType::from_raw_mode(fstat(&here)?.st_mode) == FileType::Symlink {
            return Err(Errno::LOOP.into());
        }
    }
    Ok(here)
}

fn make(parent: &OwnedFd, name: &[u8], kind: Kind) -> Result<(), Errno> {
    match kind {
        Kind::Directory => mkdirat(parent, name, Mode::from_raw_mode(0o755)),
        Kind::File => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    }
}
