//! What a command mounts, as trees of mounts that are nowhere yet.
//!
//! Every tree is made here, in the builder, and goes to process 1 by its descriptor alone: no path
//! of the builder is looked up in there, and the tree is gone with the last descriptor of it,
//! whoever dies.

use super::prepare::{check_memory, invalid, mounting};
use super::scaffold::{Ground, Kind, Land, Scaffold};
use super::wire::{Part, Target};
use super::{Command, Error, Mount, What};
use crate::fs::Ids;
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A tree and where it is to be mounted.
pub(super) struct Tree {
    pub(super) target: Target,
    pub(super) tree: OwnedFd,
}

/// Gives mounts in the order of BuildKit: what lies above another one comes before it, whatever the
/// order they were written in, and of several on one target the last.
pub(super) fn ordered(mounts: &[Mount]) -> Vec<&Mount> {
    let names = |mount: &Mount| -> Vec<Vec<u8>> {
        let names = mount.target.split(|byte| *byte == b'/');
        names
            .filter(|name| !matches!(*name, b"" | b"."))
            .map(<[u8]>::to_vec)
            .collect()
    };
    let mut sorted: Vec<(Vec<Vec<u8>>, &Mount)> =
        mounts.iter().map(|mount| (names(mount), mount)).collect();
    // The last of several goes first and is the one that is kept.
    sorted.reverse();
    sorted.sort_by(|(one, _), (other, _)| one.cmp(other));
    sorted.dedup_by(|(later, _), (kept, _)| later == kept);
    sorted.into_iter().map(|(_, mount)| mount).collect()
}

/// Makes the tree of one mount, finds its place in the root and makes that where it is missing.
pub(super) fn make(
    mount: &Mount,
    command: &Command,
    scaffold: &mut Scaffold,
) -> Result<Tree, Error> {
    let action = mounting(mount);
    let mut attributes = MountAttrFlags::empty();
    if !command.insecure {
        attributes |= MountAttrFlags::MOUNT_ATTR_NODEV;
    }
    if mount.readonly {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    let (tree, kind, place, part) = match &mount.what {
        What::Bind(source) => {
            let tree = clone(source.as_fd()).map_err(Error::setup(&*action))?;
            let kind = kind_of(&tree).map_err(Error::setup(&*action))?;
            let place = scaffold.place(&mount.target, kind)?;
            (tree, kind, place, Part::Whole)
        }
        What::Copy(_) => {
            return Err(invalid(
                &action,
                "a copy is for roots in which nothing is mounted",
            ));
        }
        What::Tmpfs { size } => {
            attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID;
            let place = scaffold.place(&mount.target, Kind::Directory)?;
            // As runc: it looks like the directory it hides.
            let tree = tmpfs(*size, place.mode.unwrap_or(0o1777), Swap::Yes)
                .map_err(Error::setup(&*action))?;
            (tree, Kind::Directory, place, Part::Whole)
        }
        What::Memory {
            mode,
            uid,
            gid,
            content,
        } => {
            check_memory(mount, &content.0)?;
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY
                | MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV;
            if mode & 0o111 == 0 {
                attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC;
            }
            let place = scaffold.place(&mount.target, Kind::File)?;
            let owner = (*uid, *gid);
            let tree = memory(*mode & 0o777, owner, &content.0).map_err(Error::setup(&*action))?;
            (tree, Kind::File, place, Part::File)
        }
    };
    let land = match attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY) {
        true => Land::Sealed,
        false => Land::Foreign,
    };
    let ground = match kind {
        Kind::File => Ground::File,
        Kind::Directory => Ground::Tree(tree.try_clone().map_err(Error::setup(&*action))?, land),
    };
    scaffold.cover(place.path.clone(), ground);
    let target = Target {
        path: place.path,
        kind,
        attributes: attributes.bits(),
        part,
    };
    Ok(Tree { target, tree })
}

/// Clones what is mounted from a file or directory downwards.
fn clone(source: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(source, c"", flags).map_err(|errno| match errno {
        // So a source that is mounted nowhere is refused before Linux 6.15.
        Errno::INVAL => io::Error::other(
            "the source cannot be mounted a second time (one that is mounted nowhere takes \
             Linux 6.15)",
        ),
        errno => explain(errno),
    })
}

fn explain(errno: Errno) -> io::Error {
    match errno {
        Errno::NOSYS => io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel cannot make mounts ahead (Linux 5.2 can)",
        ),
        errno => errno.into(),
    }
}

fn kind_of(tree: &OwnedFd) -> io::Result<Kind> {
    let stat = fstat(tree)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        _ => Kind::File,
    })
}

/// Whether memory may be written to swap.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Swap {
    Yes,
    /// Not where the kernel can help it (Linux 6.4, outside of user namespaces).
    No,
}

fn tmpfs(size: Option<u64>, mode: u32, swap: Swap) -> io::Result<OwnedFd> {
    let made = || -> Result<OwnedFd, Errno> {
        let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(fs.as_fd(), "source", "tmpfs")?;
        fsconfig_set_string(fs.as_fd(), "mode", format!("{mode:o}"))?;
        // Zero would mean no bound at all.
        if let Some(size) = size.filter(|size| *size > 0) {
            fsconfig_set_string(fs.as_fd(), "size", size.to_string())?;
        }
        if swap == Swap::No {
            let _ = fsconfig_set_flag(fs.as_fd(), "noswap");
        }
        fsconfig_create(fs.as_fd())?;
        fsmount(
            fs.as_fd(),
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::empty(),
        )
    };
    made().map_err(explain)
}

/// Makes a file system in memory with one file in it.
fn memory(mode: u32, (uid, gid): (u32, u32), content: &[u8]) -> io::Result<OwnedFd> {
    let tree = tmpfs(None, 0o700, Swap::No)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(&tree, Part::NAME, flags, Mode::from_raw_mode(0o600))?;
    let mut file = std::fs::File::from(file);
    file.write_all(content)?;
    // Who is not there cannot be who reads it.
    let (uid, gid) = Ids::here().known(uid, gid);
    fchown(&file, uid.map(Uid::from_raw), gid.map(Gid::from_raw))?;
    fchmod(&file, Mode::from_raw_mode(mode))?;
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_come_in_the_order_of_their_depth() {
        let order = |targets: &[&str]| -> Vec<(String, Option<u64>)> {
            let mounts: Vec<Mount> = (0..)
                .zip(targets)
                .map(|(size, target)| Mount {
                    target: target.as_bytes().to_vec(),
                    what: What::Tmpfs { size: Some(size) },
                    readonly: false,
                })
                .collect();
            let size = |what: &What| match what {
                What::Tmpfs { size } => *size,
                _ => None,
            };
            ordered(&mounts)
                .into_iter()
                .map(|mount| {
                    (
                        String::from_utf8_lossy(&mount.target).into_owned(),
                        size(&mount.what),
                    )
                })
                .collect()
        };
        type Case<'a> = (&'a [&'a str], &'a [(&'a str, u64)]);
        let cases: [Case<'_>; 4] = [
            (&["/b", "/a"], &[("/a", 1), ("/b", 0)]),
            (
                &["/a/b/c", "/a-b", "/a/b", "/a"],
                &[("/a", 3), ("/a/b", 2), ("/a/b/c", 0), ("/a-b", 1)],
            ),
            (&["/a", "/a/x", "/a/"], &[("/a/", 2), ("/a/x", 1)]),
            (&[], &[]),
        ];
        for (targets, expected) in cases {
            let expected: Vec<(String, Option<u64>)> = expected
                .iter()
                .map(|(target, size)| ((*target).to_owned(), Some(*size)))
                .collect();
            assert_eq!(order(targets), expected, "{targets:?}");
        }
    }
}
