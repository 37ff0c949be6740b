//! Mounts that show a directory with other owners, by the kernel's id mapping: nothing is written,
//! whatever the directory has in it.

use super::Error;
use crate::sys;
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use std::fmt::Write;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

/// Ids end before this one.
const END: u64 = u32::MAX as u64;

/// A read-only mount of a directory on which the files of one owner are root's and those of root
/// that owner's; all others stay whose they are. What is mounted below the directory is not seen.
/// It is unmounted when this is dropped.
#[derive(Debug)]
pub struct Swapped {
    /// Where it is mounted.
    pub dir: PathBuf,
}

impl Swapped {
    /// Mounts it on an empty directory in the builder's mount namespace. Refused by old kernels, by
    /// file systems that cannot do it, and where user namespaces are forbidden.
    pub fn new(source: BorrowedFd<'_>, owner: (u32, u32), dir: PathBuf) -> Result<Swapped, Error> {
        let mount = || -> io::Result<()> {
            let namespace = sys::user_namespace(&swap(owner.0), &swap(owner.1))?;
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_EMPTY_PATH;
            let tree = open_tree(source, c"", flags)?;
            sys::map_owners(tree.as_fd(), namespace.as_fd())?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            Ok(move_mount(&tree, c"", CWD, &dir, flags)?)
        };
        mount().map_err(|source| Error::Io {
            action: "mount with other owners on",
            path: dir.clone(),
            source,
        })?;
        Ok(Swapped { dir })
    }
}

impl Drop for Swapped {
    fn drop(&mut self) {
        // Nobody is left to tell; the mount goes with the namespace at the latest.
        let _ = unmount(&self.dir, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH);
    }
}

/// Gives a map of all ids in which one and 0 change places.
fn swap(id: u32) -> String {
    let id = u64::from(id);
    let mut out = String::new();
    let mut add = |inside: u64, outside: u64, count: u64| {
        if count > 0 {
            // Writing to a string does not fail.
            let _ = writeln!(out, "{inside} {outside} {count}");
        }
    };
    if id == 0 {
        add(0, 0, END);
    } else {
        add(id, 0, 1);
        add(0, id, 1);
        add(1, 1, id - 1);
        add(id + 1, id + 1, END.saturating_sub(id + 1));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_have_every_id_once() {
        let table: &[(u32, &str)] = &[
            (0, "0 0 4294967295\n"),
            (1, "1 0 1\n0 1 1\n2 2 4294967293\n"),
            (1000, "1000 0 1\n0 1000 1\n1 1 999\n1001 1001 4294966294\n"),
            (
                u32::MAX - 1,
                "4294967294 0 1\n0 4294967294 1\n1 1 4294967293\n",
            ),
        ];
        for (id, map) in table {
            assert_eq!(swap(*id), *map);
        }
    }
}
