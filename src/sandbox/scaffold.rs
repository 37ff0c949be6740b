//! The mount points a command needs and its root may lack: made before it runs and taken away
//! after it, so that none of them ends in a layer.
//!
//! Nothing outside of the root is ever touched: a path is walked one name at a time from the root's
//! descriptor, and what a symlink says is walked the same way. The walk sees the root as the command
//! will: where something is to be mounted it goes on in that.

use super::Error;
use super::prepare::invalid;
use crate::fs::{Time, modified};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, chmodat, fstat, futimens, mkdirat, openat, readlinkat,
    statat, unlinkat,
};
use rustix::io::{Errno, Result};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// As many as the kernel follows.
const LINKS: usize = 40;

/// A root, what was made in it and what will be mounted.
pub(super) struct Scaffold {
    root: OwnedFd,
    made: Vec<Made>,
    /// By path from the root, free of symlinks.
    covers: BTreeMap<Vec<u8>, Ground>,
}

/// What is found where something is mounted.
pub(super) enum Ground {
    /// A directory of a tree of mounts.
    Tree(OwnedFd, Land),
    /// A file.
    File,
    /// A file system that is not there yet: what is in it is unknown.
    Later,
}

/// Whose a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Land {
    /// The root's. What is made here is taken away again.
    Own,
    /// Something mounted. What is made here stays, as with runc: another command may have mounted
    /// something on it meanwhile.
    Foreign,
    /// Something mounted that nothing can be made in.
    Sealed,
}

/// Where something can be mounted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The path from the root, free of symlinks.
    pub(super) path: Vec<u8>,
    /// The mode of what is there, where it was there before.
    pub(super) mode: Option<u32>,
    /// Whether it is in a file system that is not there yet, and so may have to be made in it.
    pub(super) later: bool,
}

/// One name on the way of a walk.
struct Step {
    name: Vec<u8>,
    /// None in a file system that is not there yet.
    directory: Option<OwnedFd>,
    land: Land,
}

/// Something made. Both descriptors stay open, so that it is found again whatever was renamed, and
/// an inode number is not given to another file.
struct Made {
    parent: OwnedFd,
    name: Vec<u8>,
    itself: OwnedFd,
    kind: Kind,
}

/// What a mount can be put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Directory => "directory",
            Kind::File => "file",
        })
    }
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
            covers: BTreeMap::new(),
        })
    }

    /// Sees to it that a directory is there, directly in the root, which a file system of the kernel's
    /// comes to lie on. A symlink is refused: the mount would end up somewhere else.
    pub(super) fn directory(&mut self, name: &str) -> std::result::Result<(), Error> {
        let action = || format!("mount /{name}");
        match statat(&self.root, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is(&stat, FileType::Directory) => {}
            Ok(_) => {
                return Err(invalid(
                    &action(),
                    "what is there must be an ordinary directory",
                ));
            }
            Err(Errno::NOENT) => {
                let made = make(self.root.as_fd(), name.as_bytes(), Kind::Directory)
                    .map_err(Error::setup(action()))?;
                self.made.push(made);
            }
            Err(errno) => return Err(Error::setup(action())(errno)),
        }
        self.cover(format!("/{name}").into_bytes(), Ground::Later);
        Ok(())
    }

    /// Sees to it that something is there that a file or directory can be mounted on, following
    /// symlinks inside the root.
    pub(super) fn place(&mut self, path: &[u8], kind: Kind) -> std::result::Result<Place, Error> {
        self.walk(path, kind).map_err(Error::setup(format!(
            "mount {}",
            String::from_utf8_lossy(path)
        )))
    }

    /// The same, for something that is put there and not on it: a last name that had to be made is
    /// taken away again.
    pub(super) fn vacant(&mut self, path: &[u8], kind: Kind) -> std::result::Result<Place, Error> {
        let before = self.made.len();
        let place = self.place(path, kind)?;
        if self.made.len() > before
            && let Some(made) = self.made.pop()
        {
            made.remove().map_err(Error::setup(format!(
                "mount {}",
                String::from_utf8_lossy(path)
            )))?;
        }
        Ok(place)
    }

    /// Notes that something is to be mounted on a place.
    pub(super) fn cover(&mut self, path: Vec<u8>, ground: Ground) {
        let mut below = path.clone();
        below.push(b'/');
        self.covers.retain(|other, _| !other.starts_with(&below));
        self.covers.insert(path, ground);
    }

    fn walk(&mut self, path: &[u8], kind: Kind) -> io::Result<Place> {
        let mut names = split(path).collect::<VecDeque<_>>();
        // The way from the root to where the walk is.
        let mut way: Vec<Step> = Vec::new();
        let mut links = 0;
        let mut fresh = false;
        while let Some(name) = names.pop_front() {
            if name == b".." {
                way.pop();
                continue;
            }
            let last = names.is_empty();
            fresh = false;
            if let Some(ground) = self.covers.get(&join(&way, &name)) {
                let (directory, land) = match ground {
                    // Opened so that its times can be set, which a tree's descriptor is not.
                    Ground::Tree(root, land) => (Some(directory(root.as_fd(), b".")?), *land),
                    Ground::Later => (None, Land::Foreign),
                    Ground::File => return file(&way, &name, None, last, kind),
                };
                way.push(Step {
                    name,
                    directory,
                    land,
                });
                continue;
            }
            let (here, land) = match way.last() {
                None => (self.root.as_fd(), Land::Own),
                Some(Step {
                    directory: Some(here),
                    land,
                    ..
                }) => (here.as_fd(), *land),
                Some(Step {
                    directory: None,
                    land,
                    ..
                }) => {
                    let land = *land;
                    way.push(Step {
                        name,
                        directory: None,
                        land,
                    });
                    continue;
                }
            };
            let stat = match statat(here, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => {
                    let kind = match last {
                        true => kind,
                        false => Kind::Directory,
                    };
                    let made = match land {
                        Land::Own => make(here, &name, kind).and_then(|made| {
                            let stat = fstat(&made.itself);
                            self.made.push(made);
                            stat
                        }),
                        Land::Foreign => create(here, &name, kind).and_then(fstat),
                        Land::Sealed => Err(Errno::ROFS),
                    };
                    fresh = true;
                    made.map_err(|errno| match errno {
                        Errno::ROFS => lacking(&way, &name, kind),
                        errno => errno.into(),
                    })?
                }
                Err(errno) => return Err(errno.into()),
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => {
                    links += 1;
                    if links > LINKS {
                        return Err(Errno::LOOP.into());
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
                    let directory = Some(directory(here, &name)?);
                    way.push(Step {
                        name,
                        directory,
                        land,
                    });
                }
                _ => return file(&way, &name, Some(stat.st_mode), last, kind),
            }
        }
        self.end(&way, kind, fresh)
    }

    /// Gives the place where a walk ended: at a directory, or in a file system that is not there yet.
    fn end(&self, way: &[Step], kind: Kind, fresh: bool) -> io::Result<Place> {
        let Some(Step { directory, .. }) = way.last() else {
            return Err(refused("the root itself cannot be mounted over"));
        };
        let path = join_all(way);
        let proc = matches!(self.covers.get(b"/proc".as_slice()), Some(Ground::Later));
        if proc && (path == b"/proc" || path.starts_with(b"/proc/")) {
            return Err(refused("nothing can be mounted on /proc or in it"));
        }
        let Some(directory) = directory else {
            // The file systems that are not there yet are directories.
            if kind == Kind::File && self.covers.contains_key(&path) {
                return Err(Errno::ISDIR.into());
            }
            return Ok(Place {
                path,
                mode: None,
                later: true,
            });
        };
        if kind == Kind::File {
            return Err(Errno::ISDIR.into());
        }
        let mode = match fresh {
            true => None,
            false => Some(fstat(directory)?.st_mode & 0o7777),
        };
        Ok(Place {
            path,
            mode,
            later: false,
        })
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
    let itself = create(parent, name, kind)?;
    restore_time(parent, &before)?;
    Ok(Made {
        parent: directory(parent, b".")?,
        name: name.to_vec(),
        itself,
        kind,
    })
}

fn create(parent: BorrowedFd<'_>, name: &[u8], kind: Kind) -> Result<OwnedFd> {
    match kind {
        Kind::Directory => {
            mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
            // Whatever the builder's umask.
            chmodat(parent, name, Mode::from_raw_mode(0o755), AtFlags::empty())?;
            directory(parent, name)
        }
        Kind::File => openat(
            parent,
            name,
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o644),
        ),
    }
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

pub(super) fn restore_time(directory: BorrowedFd<'_>, before: &Stat) -> Result<()> {
    let mtime = Time {
        secs: before.st_mtime,
        nanos: before.st_mtime_nsec as _,
    };
    futimens(directory, &modified(mtime))
}

fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

/// Gives the place of a walk that came upon a file.
fn file(way: &[Step], name: &[u8], mode: Option<u32>, last: bool, kind: Kind) -> io::Result<Place> {
    if !last || kind == Kind::Directory {
        return Err(Errno::NOTDIR.into());
    }
    Ok(Place {
        path: join(way, name),
        mode: mode.map(|mode| mode & 0o7777),
        later: false,
    })
}

/// Makes the error of a mount point that cannot be made.
fn lacking(way: &[Step], name: &[u8], kind: Kind) -> io::Error {
    let parent = match way {
        [] => b"/".to_vec(),
        way => join_all(way),
    };
    refused(format!(
        "{} can only be read, and has no {kind} {} to mount it on",
        String::from_utf8_lossy(&parent),
        String::from_utf8_lossy(name)
    ))
}

fn refused(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why.into())
}

fn join(way: &[Step], name: &[u8]) -> Vec<u8> {
    let mut path = join_all(way);
    path.push(b'/');
    path.extend_from_slice(name);
    path
}

fn join_all(way: &[Step]) -> Vec<u8> {
    let mut path = Vec::new();
    for step in way {
        path.push(b'/');
        path.extend_from_slice(&step.name);
    }
    path
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
