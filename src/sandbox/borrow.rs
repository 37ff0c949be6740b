//! What root of a user namespace may not make anew, cloned from where the builder is: device nodes,
//! `/sys` without a network of the command's own, `/proc` where a part of it is hidden.
//!
//! The kernel mounts a new `/proc` or `/sys` there only beside another one of which nothing is hidden,
//! so that has to happen before the builder's root is left.

use super::init::{DEVICES, MORE_DEVICES};
use super::wire::Failure;
use crate::sys;
use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use std::os::fd::{AsFd, OwnedFd};

/// Mounts that are nowhere yet. Outside of user namespaces there is none.
#[derive(Default)]
pub(super) struct Borrowed {
    /// Of the devices that are there.
    devices: Vec<(&'static str, OwnedFd)>,
    proc: Option<(OwnedFd, Age)>,
    sys: Option<(OwnedFd, Age)>,
}

/// A file system of the kernel's.
#[derive(Clone, Copy)]
pub(super) enum Kernel {
    Proc,
    Sys,
}

/// Whether such a file system is the command's own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    New,
    /// It shows the builder's processes, or its network.
    Old,
}

/// Clones what may be needed, as long as the builder's root is there.
pub(super) fn borrow() -> Borrowed {
    if !sys::in_user_namespace() {
        return Borrowed::default();
    }
    // What cannot be cloned is missed where it is needed.
    let one = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    // In a user namespace what covers a part of a mount cannot be left out.
    let all = one | OpenTreeFlags::AT_RECURSIVE;
    let names = DEVICES.iter().chain(&MORE_DEVICES);
    Borrowed {
        devices: names
            .filter_map(|(name, _, _)| {
                Some((*name, open_tree(CWD, format!("/dev/{name}"), one).ok()?))
            })
            .collect(),
        proc: kernel("proc", "/proc", all),
        sys: kernel("sysfs", "/sys", all),
    }
}

fn kernel(kind: &str, place: &str, flags: OpenTreeFlags) -> Option<(OwnedFd, Age)> {
    let new = || -> Result<OwnedFd, Errno> {
        let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(fs.as_fd(), "source", kind)?;
        fsconfig_create(fs.as_fd())?;
        let attributes = MountAttrFlags::empty();
        fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    match new() {
        Ok(tree) => Some((tree, Age::New)),
        Err(_) => Some((open_tree(CWD, place, flags).ok()?, Age::Old)),
    }
}

impl Borrowed {
    /// Tells whether devices are borrowed: they cannot be made.
    pub(super) fn has_devices(&self) -> bool {
        !self.devices.is_empty()
    }

    /// Mounts a device on a new file. One that is not there is left out.
    pub(super) fn device(&mut self, name: &str, place: &str) -> Result<(), Failure> {
        let Some(at) = self.devices.iter().position(|(known, _)| *known == name) else {
            return Ok(());
        };
        let (_, tree) = self.devices.swap_remove(at);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        open(place, flags, Mode::from_raw_mode(0o666))
            .map(drop)
            .and_then(|()| attach(&tree, place))
            .map_err(Failure::of(format!("make /dev/{name}")))
    }

    /// Mounts a file system of the kernel's, where it is one of these.
    pub(super) fn kernel(
        &mut self,
        which: Kernel,
        place: &str,
        attributes: MountAttrFlags,
    ) -> Result<Option<Age>, Failure> {
        let held = match which {
            Kernel::Proc => self.proc.take(),
            Kernel::Sys => self.sys.take(),
        };
        let Some((tree, age)) = held else {
            return Ok(None);
        };
        sys::set_mount_attributes(tree.as_fd(), attributes, MountAttrFlags::empty())
            .and_then(|()| Ok(attach(&tree, place)?))
            .map_err(Failure::of(format!("mount {place}")))?;
        Ok(Some(age))
    }
}

fn attach(tree: &OwnedFd, place: &str) -> Result<(), Errno> {
    move_mount(
        tree,
        c"",
        CWD,
        place,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}
