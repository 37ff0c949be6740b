use super::RelPath;
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
    /// Bytes in memory, such as a heredoc.
    Bytes(Arc<[u8]>),
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
    /// directory without following a symbolic link anywhere.
    pub fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        match self {
            Source::File { .. } | Source::Live { .. } => {
                Ok(Box::new(self.file()?.ok_or(io::ErrorKind::NotFound)?))
            }
            Source::Bytes(bytes) => Ok(Box::new(io::Cursor::new(Arc::clone(bytes)))),
        }
    }

    /// Opens the file behind it; `None` where the content is in memory. An error where it is no
    /// regular file any more: a device is not even read from.
    pub fn file(&self) -> io::Result<Option<File>> {
        use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
        match self {
            Source::File { dir, path } | Source::Live { dir, path } => {
                let fd = openat2(
                    dir.as_fd(),
                    path.as_path(),
                    OFlags::RDONLY
                        | OFlags::CLOEXEC
                        | OFlags::NOFOLLOW
                        | OFlags::NOCTTY
                        | OFlags::NONBLOCK,
                    Mode::empty(),
                    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
                )?;
                match FileType::from_raw_mode(fstat(&fd)?.st_mode) {
                    FileType::RegularFile => Ok(Some(File::from(fd))),
                    _ => Err(io::Error::other("it is no regular file any more")),
                }
            }
            Source::Bytes(_) => Ok(None),
        }
    }
}
