use super::stat::{open_beneath, stamp_of};
use super::{RelPath, Stamp};
use rustix::fs::{FileType, OFlags, fstat};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Where the content of a regular file can be read, as often as wanted.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file beneath a directory that is kept open; nothing writes there any more.
    File {
        /// The directory.
        dir: Arc<OwnedFd>,
        /// The path beneath it; symbolic links are not followed.
        path: RelPath,
    },
    /// A file of a directory that is written to between one reading and the next: what is found
    /// there by this name then.
    Live {
        /// The directory.
        dir: Arc<OwnedFd>,
        /// The path beneath it; symbolic links are not followed.
        path: RelPath,
    },
    /// A file that belongs to somebody else, who may write to it at any time: it has the content
    /// that is meant for as long as it is what it was when it was looked at.
    Seen(Arc<Seen>),
    /// Bytes in memory, such as a heredoc.
    Bytes(Arc<[u8]>),
}

/// A regular file as it was when it was looked at.
#[derive(Clone, Debug)]
pub struct Seen {
    /// A directory above it.
    pub dir: Arc<OwnedFd>,
    /// The path beneath it; symbolic links are not followed.
    pub path: RelPath,
    /// What it was.
    pub stamp: Stamp,
}

impl Source {
    /// Gives the content of a further name of the same file. What is frozen is found by any of them;
    /// of what is live only this one may be left.
    pub fn by(&self, name: &RelPath) -> Source {
        match self {
            Source::Live { dir, .. } => Source::Live {
                dir: Arc::clone(dir),
                path: name.clone(),
            },
            frozen => frozen.clone(),
        }
    }

    /// Opens the content for reading from its beginning. The path is resolved beneath the
    /// directory without following a symbolic link anywhere. Where the content must not change, the
    /// end is an error if it did.
    pub fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        if let Source::Bytes(bytes) = self {
            return Ok(Box::new(io::Cursor::new(Arc::clone(bytes))));
        }
        let file = self.file()?.ok_or(io::ErrorKind::NotFound)?;
        Ok(match self {
            Source::Seen(seen) => Box::new(Watched {
                file,
                seen: Arc::clone(seen),
            }),
            _ => Box::new(file),
        })
    }

    /// Opens the file behind it; `None` where the content is in memory. An error where it is no
    /// regular file any more: a device is not even read from. Whoever reads from it asks
    /// [`is_intact`](Source::is_intact) afterwards.
    pub fn file(&self) -> io::Result<Option<File>> {
        let (dir, path) = match self {
            Source::File { dir, path } | Source::Live { dir, path } => (dir, path),
            Source::Seen(seen) => (&seen.dir, &seen.path),
            Source::Bytes(_) => return Ok(None),
        };
        let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK;
        let fd = match (open_beneath(dir.as_fd(), path, flags), self) {
            (Err(error), Source::Seen(_)) if error.kind() == io::ErrorKind::NotFound => {
                return Err(changed(path));
            }
            (opened, _) => opened?,
        };
        if FileType::from_raw_mode(fstat(&fd)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it is no regular file any more"));
        }
        let file = File::from(fd);
        self.is_intact(&file)?;
        Ok(Some(file))
    }

    /// Makes sure that what has been read of a file opened by [`file`](Source::file) is what was
    /// meant: an error where it has changed since it was looked at.
    pub fn is_intact(&self, file: impl AsFd) -> io::Result<()> {
        match self {
            Source::Seen(seen) if stamp_of(file.as_fd())? != seen.stamp => Err(changed(&seen.path)),
            _ => Ok(()),
        }
    }
}

fn changed(path: &RelPath) -> io::Error {
    io::Error::other(format!(
        "{path} of the build context was changed during the build; build again when nothing writes \
         to it"
    ))
}

/// Reads a file that must stay what it was.
struct Watched {
    file: File,
    seen: Arc<Seen>,
}

impl Read for Watched {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read(out)?;
        if got == 0 && !out.is_empty() && stamp_of(self.file.as_fd())? != self.seen.stamp {
            return Err(changed(&self.seen.path));
        }
        Ok(got)
    }
}
