//! What a COPY or ADD takes, from the build context or from a tree, as a changeset; users and groups.

mod copy;
pub mod fetch;
mod owner;
mod pick;
mod select;
mod target;
#[cfg(test)]
mod tests;
mod unpack;
mod view;
mod visible;

use crate::changeset::Changeset;
use crate::dockerfile::ignore::{self, Ignore};
use crate::fs::{Meta, RelPath, Source, Time, Tree};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use copy::{Dates, copy};
pub use owner::{User, is_looked_up, user};
pub use visible::{Making, Owner, Visible, locate, visible};

/// The most bytes an ignore file may have: 4 MiB.
const MAX_IGNORE: u64 = 4 << 20;

/// Why files cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory or file of the builder's own could not be read.
    #[error("{action} {path}")]
    Open {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file of the context or of a tree could not be read, or a path not be resolved.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what, as seen from the root of the context or image.
        path: RelPath,
        /// Why not.
        source: std::io::Error,
    },
    /// The ignore file cannot be used.
    #[error("{path}")]
    Ignore {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ignore::Error,
    },
    /// There is no such source.
    #[error("\"{0}\": not found")]
    NotFound(RelPath),
    /// The source is there, but the ignore file leaves it out.
    #[error("\"{0}\": not found: the ignore file leaves it out of the context")]
    LeftOut(RelPath),
    /// The source leads to nothing.
    #[error("\"{name}\": not found: \"{link}\" is a symbolic link to \"{}\", and that is not there", String::from_utf8_lossy(.target))]
    Dangling {
        /// The source.
        name: RelPath,
        /// The link that leads nowhere.
        link: RelPath,
        /// What it says.
        target: Vec<u8>,
    },
    /// The source is a socket.
    #[error("\"{0}\" is a socket, and an image holds none")]
    Socket(RelPath),
    /// A character device 0:0 is what stands for a deletion in the layers of an image.
    #[error("{0} would be a character device 0:0, which stands for a deletion")]
    Whiteout(RelPath),
    /// A remote source was not fetched; counted from 1.
    #[error("source {0} was not fetched")]
    NotFetched(usize),
    /// A source or destination has a NUL byte.
    #[error("{0:?} is not a path: it has a NUL byte")]
    Nul(String),
    /// A pattern of a source is malformed.
    #[error("pattern {pattern}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why it cannot be used.
        source: ignore::Error,
    },
    /// A file would have to take the place of a directory.
    #[error("cannot replace to directory {0} with file")]
    OverDirectory(RelPath),
    /// A directory would have to take the place of something else.
    #[error("cannot copy to non-directory: {0}")]
    OverFile(RelPath),
    /// A directory on the way to the destination is none.
    #[error("mkdir {0}: not a directory")]
    NotDirectory(RelPath),
    /// `--chown` names somebody where no names are to be had.
    #[error("--chown: `{name}` cannot be looked up {why}: use numbers")]
    NoNames {
        /// The user or group.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// An archive cannot be unpacked.
    #[error("unpack {path}")]
    Archive {
        /// The archive, as seen from the root of the context.
        path: RelPath,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// USER names no user of the image.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// USER names no group of the image.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// The kernel would take a user or group as "leave it as it is", or runc refuses it.
    #[error("user {0}: users and groups must be numbers from 0 to 2147483647")]
    UserRange(String),
}

impl Error {
    fn io(action: &'static str, path: &RelPath, source: impl Into<std::io::Error>) -> Error {
        Error::Io {
            action,
            path: path.clone(),
            source: source.into(),
        }
    }
}

/// A build context: a directory that is kept open, and its ignore file.
pub struct Context {
    /// The directory.
    pub dir: Arc<OwnedFd>,
    /// What is left out.
    pub ignore: Option<Ignore>,
}

impl Context {
    /// Opens a directory as the context of a Dockerfile, with its [ignore file](ignore_file()).
    pub fn open(dir: &Path, dockerfile: &Path) -> Result<Context, Error> {
        Ok(Context {
            dir: Arc::new(open_dir(dir)?),
            ignore: ignore_file(dir, dockerfile)?,
        })
    }

    /// Opens a directory as a named context, with the `.dockerignore` in it.
    pub fn named(dir: &Path) -> Result<Context, Error> {
        Ok(Context {
            dir: Arc::new(open_dir(dir)?),
            ignore: read_ignore(&dir.join(".dockerignore"))?,
        })
    }
}

fn open_dir(dir: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(rustix::fs::CWD, dir, flags, Mode::empty()).map_err(|errno| Error::Open {
        action: "open the build context",
        path: dir.to_owned(),
        source: errno.into(),
    })
}

/// Reads the ignore file of a Dockerfile in a directory: `DOCKERFILE.dockerignore` beside the
/// Dockerfile where there is one, else `.dockerignore` in the directory.
pub fn ignore_file(dir: &Path, dockerfile: &Path) -> Result<Option<Ignore>, Error> {
    match ignore_beside(dockerfile)? {
        Some(ignore) => Ok(Some(ignore)),
        None => read_ignore(&dir.join(".dockerignore")),
    }
}

/// Reads `DOCKERFILE.dockerignore` beside a Dockerfile, where there is one.
pub fn ignore_beside(dockerfile: &Path) -> Result<Option<Ignore>, Error> {
    let mut own = dockerfile.as_os_str().to_owned();
    own.push(".dockerignore");
    read_ignore(Path::new(&own))
}

/// Reads the first of these files that is in a directory from elsewhere: links lead nowhere but into
/// it.
pub fn ignore_in<'a>(
    dir: BorrowedFd<'_>,
    names: impl Iterator<Item = &'a Path>,
) -> Result<Option<Ignore>, Error> {
    for name in names {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match openat2(dir, name, flags, Mode::empty(), resolve) {
            Ok(fd) => return ignore_text(File::from(fd), name).map(Some),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => {
                return Err(Error::Open {
                    action: "read",
                    path: name.to_owned(),
                    source: errno.into(),
                });
            }
        }
    }
    Ok(None)
}

fn read_ignore(path: &Path) -> Result<Option<Ignore>, Error> {
    // A pipe must not be waited for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match openat(rustix::fs::CWD, path, flags, Mode::empty()) {
        Ok(fd) => ignore_text(File::from(fd), path).map(Some),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::Open {
            action: "read",
            path: path.to_owned(),
            source: errno.into(),
        }),
    }
}

fn ignore_text(file: File, path: &Path) -> Result<Ignore, Error> {
    let failed = |source| Error::Open {
        action: "read",
        path: path.to_owned(),
        source,
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("it is no regular file")));
    }
    let mut text = Vec::new();
    file.take(MAX_IGNORE + 1)
        .read_to_end(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > MAX_IGNORE {
        return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
    }
    Ignore::parse(&text).map_err(|source| Error::Ignore {
        path: path.to_owned(),
        source,
    })
}

/// Where a COPY takes from.
pub enum Origin<'a> {
    /// The build context.
    Context(&'a Context),
    /// Another stage's or image's tree.
    Tree(&'a Tree),
}

/// A source of an ADD that was fetched.
pub enum Fetched {
    /// A file.
    File {
        /// What it is called where the destination is a directory.
        name: Vec<u8>,
        /// Its metadata as the image gets it, `--chown` and `--chmod` aside.
        meta: Meta,
        /// Its content.
        source: Source,
    },
    /// A directory, whose content is copied: what was checked out of a git repository.
    Directory(Context),
}

/// Carries out a WORKDIR on paper: makes the directories that are missing, for `user`.
pub fn workdir(path: &str, user: &str, dest: &Tree, now: Time) -> Result<Changeset, Error> {
    let owner = if user.is_empty() {
        None
    } else {
        Some(owner::chown(user, owner::Names::Tree(dest))?)
    };
    let path = clean(path)?;
    let mut target = target::Target::new(dest);
    let path = target.resolve(&RelPath::root(), &path)?;
    target.make_directories(&path, &target::NewDir::of(0o755, owner, now))?;
    Ok(target.finish())
}

fn clean(path: &str) -> Result<RelPath, Error> {
    RelPath::clean(path.as_bytes()).ok_or_else(|| Error::Nul(path.to_owned()))
}
