//! A name in a directory of the root, and what is done at it whatever the command did meanwhile.

use super::super::scaffold::restore_time;
use crate::fs::{Placer, RelPath};
use rustix::fs::{
    CWD, FileType, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, fstat, mkdirat, openat,
};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

pub(super) const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
pub(super) const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A name in a directory that is open.
pub(super) struct Spot {
    pub(super) parent: OwnedFd,
    pub(super) name: Vec<u8>,
    /// The directories that lead there from the root, as they were: name, mode, owner and group.
    way: Vec<(Vec<u8>, u32, u32, u32)>,
}

impl Spot {
    /// Goes to where a path without links ends.
    pub(super) fn find(root: &OwnedFd, path: &[u8]) -> io::Result<Spot> {
        let mut names = path
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
            .peekable();
        let mut parent = openat(root, ".", DIRECTORY, Mode::empty())?;
        let mut way = Vec::new();
        while let Some(name) = names.next() {
            if names.peek().is_none() {
                let name = name.to_vec();
                return Ok(Spot { parent, name, way });
            }
            parent = openat(&parent, name, DIRECTORY, Mode::empty())?;
            let stat = fstat(&parent)?;
            way.push((
                name.to_vec(),
                stat.st_mode & 0o7777,
                stat.st_uid,
                stat.st_gid,
            ));
        }
        Err(Errno::BUSY.into())
    }

    pub(super) fn at(&self) -> (BorrowedFd<'_>, &[u8]) {
        (self.parent.as_fd(), &self.name)
    }

    /// Makes the directories again that lead there, where the command removed them.
    pub(super) fn rebuild(&mut self, root: &OwnedFd) -> io::Result<()> {
        let mut at = openat(root, ".", DIRECTORY, Mode::empty())?;
        for (name, mode, uid, gid) in &self.way {
            let name = name.as_slice();
            let (above, times) = (openat(&at, ".", DIRECTORY, Mode::empty())?, fstat(&at)?);
            let made = mkdirat(&at, name, Mode::from_raw_mode(0o700));
            match made {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            let mut made = made.is_ok();
            at = match openat(&at, name, DIRECTORY, Mode::empty()) {
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    // What the command put there, where a mount would have been in its way.
                    remove(at.as_fd(), name)?;
                    mkdirat(&at, name, Mode::from_raw_mode(0o700))?;
                    made = true;
                    openat(&at, name, DIRECTORY, Mode::empty())?
                }
                other => other?,
            };
            if made {
                fchown(&at, Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)))?;
                fchmod(&at, Mode::from_raw_mode(*mode))?;
                restore_time(above.as_fd(), &times)?;
            }
        }
        self.parent = at;
        Ok(())
    }
}

/// Finds the name of what a descriptor stands for, which need not be its name any more.
pub(super) fn whereabouts(of: &OwnedFd) -> Option<(OwnedFd, Vec<u8>)> {
    let path = path_of(of)?;
    let (parent, name) = (path.parent()?, path.file_name()?);
    let parent = openat(CWD, parent, DIRECTORY, Mode::empty()).ok()?;
    Some((parent, name.as_bytes().to_vec()))
}

pub(super) fn path_of(of: &OwnedFd) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", of.as_raw_fd())).ok()
}

/// Removes a name and everything below it, where there is something.
pub(super) fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let mut placer = Placer::new(parent)?;
    match placer.remove(&RelPath::root().join(name)) {
        // The directory itself has been removed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Lists a directory.
pub(super) fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    // The descriptor itself may have been read to its end before.
    let dir = openat(dir, ".", DIRECTORY, Mode::empty())?;
    crate::fs::names(dir.as_fd())
}

pub(super) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

pub(super) fn id(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}
