//! The mount points a command needs and its root may lack: made before it runs and taken away
//! after it, so that none of them ends in a layer.
//!
//! Nothing outside of the root is ever touched: a path is walked one name at a time from the root's
//! descriptor, and what a symlink says is walked the same way.

use super::Error;
use super::wire::invalid;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, chmodat, fstat,
    futimens, mkdirat, openat, readlinkat, statat, unlinkat,
};
use rustix::io::{Errno, Result};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// As many as the kernel follows.
const LINKS: usize = 40;

/// A root and what was made in it.
pub(super) struct Scaffold {
    root: OwnedFd,
    made: Vec<Made>,
}

/// Something made. Both descriptors stay open, so that it is found again whatever was renamed, and
/// an inode number is not given to another file.
struct Made {
    parent: OwnedFd,
    name: Vec<u8>,
    itself: OwnedFd,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
}

impl Scaffold {
    /// Opens a root.
    pub(super) fn new(root: &Path) -> std::result::Result<Scaffold, Error> {
        let root = openat(
            rustix::fs::CWD,
            root,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(Error::setup(format!("open the root {}", root.display())))?;
        Ok(Scaffold {
            root,
            made: Vec::new(),
        })
    }

    /// Sees to it that a directory is there, directly in the root. A symlink is refused: a mount
    /// would end up somewhere else.
    pub(super) fn directory(&mut self, name: &str) -> std::result::Result<(), Error> {
        let action = || format!("mount /{name}");
        match statat(&self.root, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is(&stat, FileType::Directory) => Ok(()),
            Ok(_) => Err(invalid(
                &action(),
                "what is there must be an ordinary directory",
            )),
            Err(Errno::NOENT) => {
                let made = make(self.root.as_fd(), name.as_bytes(), Kind::Directory)
                    .map_err(Error::setup(action()))?;
                self.made.push(made);
                Ok(())
            }
            Err(errno) => Err(Error::setup(action())(errno)),
        }
    }

    /// Sees to it that something a file can be mounted over is there, following symlinks inside the
    /// root; gives its path from the root, free of symlinks.
    pub(super) fn file(&mut self, path: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        self.walk(path).map_err(Error::setup(format!(
            "mount {}",
            String::from_utf8_lossy(path)
        )))
    }

    fn walk(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let mut names = split(path).collect::<VecDeque<_>>();
        // The way from the root to where the walk is.
        let mut way: Vec<(Vec<u8>, OwnedFd)> = Vec::new();
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            if name == b".." {
                way.pop();
                continue;
            }
            let here = way.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd());
            let stat = match statat(here, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => {
                    let kind = match names.is_empty() {
                        true => Kind::File,
                        false => Kind::Directory,
                    };
                    let made = make(here, &name, kind)?;
                    let stat = fstat(&made.itself)?;
                    self.made.push(made);
                    stat
                }
                Err(errno) => return Err(errno),
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => {
                    links += 1;
                    if links > LINKS {
                        return Err(Errno::LOOP);
                    }
                    let target = readlinkat(here, name.as_slice(), Vec::new())?.into_bytes();
                    if target.starts_with(b"/") {
                        way.clear();
                    }
                    for name in split(&target).rev() {
                        names.push_front(name);
                    }
                }
                FileType::Directory => {
                    let fd = directory(here, &name)?;
                    way.push((name, fd));
                }
                _ if names.is_empty() => {
                    let mut path = Vec::new();
                    for name in way.iter().map(|(name, _)| name).chain([&name]) {
                        path.push(b'/');
                        path.extend(name);
                    }
                    return Ok(path);
                }
                _ => return Err(Errno::NOTDIR),
            }
        }
        Err(Errno::ISDIR)
    }

    /// Takes away what was made and is still as it was made, the last first. Times of the
    /// directories around stay what they are.
    pub(super) fn remove(self) -> std::result::Result<(), Error> {
        for made in self.made.iter().rev() {
            made.remove().map_err(|errno| {
                let name = String::from_utf8_lossy(&made.name);
                Error::setup(format!("remove the mount point {name}"))(errno)
            })?;
        }
        Ok(())
    }
}

impl Made {
    fn remove(&self) -> Result<()> {
        let mine = fstat(&self.itself)?;
        let there = match statat(
            &self.parent,
            self.name.as_slice(),
            AtFlags::SYMLINK_NOFOLLOW,
        ) {
            Ok(there) => there,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        let same = (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino);
        if !same || (self.kind == Kind::File && there.st_size != 0) {
            return Ok(());
        }
        let flags = match self.kind {
            Kind::Directory => AtFlags::REMOVEDIR,
            Kind::File => AtFlags::empty(),
        };
        let before = fstat(&self.parent)?;
        match unlinkat(&self.parent, self.name.as_slice(), flags) {
            Ok(()) => restore_time(self.parent.as_fd(), &before),
            // The command put something into it, so it belongs to the command now.
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

/// Makes an empty directory or file, and leaves the parent's modification time as it was.
fn make(parent: BorrowedFd<'_>, name: &[u8], kind: Kind) -> Result<Made> {
    let before = fstat(parent)?;
    let itself = match kind {
        Kind::Directory => {
            mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
            // Whatever the builder's umask.
            chmodat(parent, name, Mode::from_raw_mode(0o755), AtFlags::empty())?;
            directory(parent, name)?
        }
        Kind::File => openat(
            parent,
            name,
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o644),
        )?,
    };
    restore_time(parent, &before)?;
    Ok(Made {
        parent: directory(parent, b".")?,
        name: name.to_vec(),
        itself,
        kind,
    })
}

/// Opens a directory in a way that its times can be set.
fn directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    openat(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

fn restore_time(directory: BorrowedFd<'_>, before: &Stat) -> Result<()> {
    let omit = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT as _,
    };
    let modified = Timespec {
        tv_sec: before.st_mtime as _,
        tv_nsec: before.st_mtime_nsec as _,
    };
    futimens(
        directory,
        &Timestamps {
            last_access: omit,
            last_modification: modified,
        },
    )
}

fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

/// Gives the names of a path, without those that say nothing.
fn split(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !matches!(*name, b"" | b"."))
        .map(<[u8]>::to_vec)
}

#[cfg(test)]
#[path = "scaffold_tests.rs"]
mod tests;
