//! What is fetched before it can be copied: files at URLs, repositories, contexts that are no
//! directory of this machine.

mod archive;
mod git;
mod http;

use super::Fetched;
use crate::git as repository;
use crate::net::{self, Again, Client, Temporary};
use crate::oci::Digest;
use crate::plan::Remote;
use crate::progress::Span;
use crate::request::{ContextSource, Hidden, Request, SecretSource};
use crate::sys::Cancel;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most bytes a secret may have that is shown to a server: 64 KiB.
const MAX_SECRET: u64 = 64 << 10;

/// Why something could not be fetched. URLs are shown without secrets.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// A URL cannot be used.
    #[error("{url}: {why}")]
    Url {
        /// The URL, or what is shown for it.
        url: String,
        /// Why not.
        why: String,
    },
    /// No answer, or one that broke off.
    #[error(transparent)]
    Exchange(Box<net::Error>),
    /// The server answered with something else than success.
    #[error("{url} answered {status}")]
    Refused {
        /// The URL.
        url: String,
        /// The status with its words.
        status: String,
        /// What is known for another attempt, where one may help.
        again: Option<Again>,
    },
    /// The content changed while it was fetched.
    #[error("{url} changed while it was fetched")]
    Changed {
        /// The URL.
        url: String,
    },
    /// The content is not what it should be.
    #[error("{url}: digest mismatch: it has {got}, {wanted} is wanted")]
    Checksum {
        /// The URL.
        url: String,
        /// What `--checksum` says.
        wanted: Digest,
        /// What came.
        got: Digest,
    },
    /// A repository could not be had.
    #[error(transparent)]
    Git(#[from] repository::Error),
    /// A submodule could not be had.
    #[error("submodule {path}")]
    Submodule {
        /// Where it belongs.
        path: String,
        /// Why not.
        source: Box<Error>,
    },
    /// A repository's submodules cannot be made out.
    #[error("{remote}: {why}")]
    Submodules {
        /// The repository.
        remote: String,
        /// What is wrong.
        why: String,
    },
    /// A directory of what was fetched is not there, or leads out of it.
    #[error("directory {dir} of {of}{why}")]
    Directory {
        /// The directory.
        dir: String,
        /// What was fetched.
        of: String,
        /// What is wrong, with its separator in front; often empty.
        why: &'static str,
        /// Why it cannot be opened.
        source: io::Error,
    },
    /// An archive cannot be unpacked.
    #[error("unpack {of}")]
    Archive {
        /// The archive.
        of: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no room left.
    #[error("no space left for {of} below {dir}: free some there or put the store elsewhere")]
    Full {
        /// What was fetched.
        of: String,
        /// Where to.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of this machine could not be read or written.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A secret that is to be shown to a server cannot be read.
    #[error("read secret {id}")]
    Secret {
        /// Which.
        id: String,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    fn io(action: &'static str, path: &Path, source: io::Error) -> Error {
        Error::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// Makes an error of a file that could not be written.
    fn write(of: &str, dir: &Path, source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full {
                of: of.to_owned(),
                dir: dir.to_owned(),
                source,
            },
            _ => Error::io("write", dir, source),
        }
    }

    fn exchange(error: net::Error) -> Error {
        match error {
            net::Error::Cancelled => Error::Cancelled,
            other => Error::Exchange(Box::new(other)),
        }
    }
}

impl Temporary for Error {
    fn again(&self) -> Option<Again> {
        match self {
            Error::Exchange(source) => source.again(),
            Error::Refused { again, .. } => *again,
            Error::Changed { .. } => Some(Again::default()),
            _ => None,
        }
    }

    fn cancelled() -> Error {
        Error::Cancelled
    }
}

/// What fetches: for one build, shared by its threads.
pub struct Fetcher<'a> {
    /// The client for http.
    pub client: &'a Client,
    /// What the caller asked for: secrets, logins, ssh.
    pub request: &'a Request,
    /// Ends it.
    pub cancel: &'a Cancel,
}

/// Which context is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The build context: an archive behind a URL is unpacked.
    Main,
    /// A named one: what is behind a URL is its one file, `context`, as with BuildKit.
    Named,
}

/// A context that is here now.
pub struct Opened {
    /// Its directory.
    pub dir: Arc<OwnedFd>,
    /// The one file in it, where what was fetched is no archive: a Dockerfile.
    pub dockerfile: Option<&'static str>,
    /// What is odd, for the user.
    pub notes: Vec<String>,
}

/// What a context that is a single file calls it.
const SINGLE: &str = "context";

impl Fetcher<'_> {
    /// Fetches a source of an ADD into `room`, a directory that is made for it.
    pub fn remote(&self, remote: &Remote, room: &Path, span: &Span) -> Result<Got, Error> {
        make_dir(room)?;
        match remote {
            Remote::Http { url, checksum } => {
                let file = self.file(url, checksum.as_ref(), room, span)?;
                Ok(Got::File(file))
            }
            Remote::Git {
                source,
                keep_git_dir,
            } => {
                let keep = match keep_git_dir {
                    true => git::Keep::Directory,
                    false => git::Keep::Files,
                };
                let opened = self.repository(source, keep, room, span)?;
                Ok(Got::Directory(opened))
            }
        }
    }

    /// Fetches a context into `room`, a directory that is made for it, or opens it where it is a
    /// directory of this machine.
    pub fn context(
        &self,
        source: &ContextSource,
        which: Which,
        room: &Path,
        span: &Span,
    ) -> Result<Opened, Error> {
        let opened = |dir: OwnedFd, dockerfile| Opened {
            dir: Arc::new(dir),
            dockerfile,
            notes: Vec::new(),
        };
        if let ContextSource::Directory(dir) = source {
            return Ok(opened(open_dir(dir)?, None));
        }
        make_dir(room)?;
        match source {
            ContextSource::Directory(dir) => Ok(opened(open_dir(dir)?, None)),
            ContextSource::Git(source) => {
                let build_arg = self.request.build_arg("BUILDKIT_CONTEXT_KEEP_GIT_DIR");
                let keeps = matches!(build_arg, Some("1" | "t" | "T" | "true" | "TRUE" | "True"));
                let keep = match source.keep_git_dir == Some(true) || keeps && which == Which::Main
                {
                    true => git::Keep::Directory,
                    false => git::Keep::Files,
                };
                self.repository(source, keep, room, span)
            }
            ContextSource::Http(url) => match which {
                Which::Main => self.unpack_url(url, room, span),
                Which::Named => {
                    let file = self.file(url, None, room, span)?;
                    let dir = archive::single(&file, room)?;
                    Ok(opened(dir, None))
                }
            },
            ContextSource::Archive(path) => {
                let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
                let shown = path.display().to_string();
                let input = Input {
                    name: path,
                    fd: OwnedFd::from(file),
                    cancel: self.cancel,
                };
                self.unpack(input, &shown, room, span)
            }
            ContextSource::Stdin => {
                let stdin = io::stdin();
                let fd = stdin.as_fd().try_clone_to_owned();
                let name = Path::new("/dev/stdin");
                let input = Input {
                    name,
                    fd: fd.map_err(|e| Error::io("open", name, e))?,
                    cancel: self.cancel,
                };
                self.unpack(input, "standard input", room, span)
            }
        }
    }

    /// Reads a secret that is shown to servers; `None` where the request has no such secret.
    fn secret(&self, id: &str) -> Result<Option<Hidden>, Error> {
        let failed = |source| Error::Secret {
            id: id.to_owned(),
            source,
        };
        match self.request.secrets.get(id) {
            None => Ok(None),
            Some(SecretSource::Value(value)) => Ok(Some(value.clone())),
            Some(SecretSource::File(path)) => {
                let mut value = Vec::new();
                File::open(path)
                    .and_then(|file| file.take(MAX_SECRET + 1).read_to_end(&mut value))
                    .map_err(failed)?;
                match value.len() as u64 > MAX_SECRET {
                    true => Err(failed(io::ErrorKind::FileTooLarge.into())),
                    false => Ok(Some(Hidden(value))),
                }
            }
        }
    }
}

/// What was fetched for an ADD.
pub enum Got {
    /// A file.
    File(http::Downloaded),
    /// A checkout.
    Directory(Opened),
}

impl Got {
    /// Gives it as `copy` takes it.
    pub fn fetched(&self) -> Fetched {
        match self {
            Got::File(file) => file.fetched(),
            Got::Directory(opened) => Fetched::Directory(super::Context {
                dir: Arc::clone(&opened.dir),
                ignore: None,
            }),
        }
    }

    /// Gives what is odd, for the user.
    pub fn notes(&self) -> &[String] {
        match self {
            Got::File(_) => &[],
            Got::Directory(opened) => &opened.notes,
        }
    }
}

/// Opens a directory below another; links are followed as long as they do not lead out. `of` is
/// what the directory is in, for messages.
pub fn below(dir: BorrowedFd<'_>, path: &Path, of: &str) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let path = match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    };
    openat2(dir, path, flags, Mode::empty(), resolve).map_err(|errno| Error::Directory {
        dir: path.display().to_string(),
        of: of.to_owned(),
        why: match errno {
            rustix::io::Errno::XDEV => " leads out of it",
            _ => "",
        },
        source: errno.into(),
    })
}

fn make_dir(path: &Path) -> Result<(), Error> {
    std::fs::create_dir(path).map_err(|e| Error::io("create", path, e))
}

fn open_dir(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(rustix::fs::CWD, path, flags, Mode::empty())
        .map_err(|errno| Error::io("open", path, errno.into()))
}

/// A file or pipe of this machine, read until the build is cancelled.
struct Input<'a> {
    name: &'a Path,
    fd: OwnedFd,
    cancel: &'a Cancel,
}

impl Read for Input<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut both = [
                PollFd::new(&self.fd, PollFlags::IN),
                PollFd::new(self.cancel, PollFlags::IN),
            ];
            let ready = rustix::io::retry_on_intr(|| poll(&mut both, None));
            if self.cancel.is_set() {
                return Err(io::Error::other(Error::Cancelled));
            }
            match ready.and_then(|_| rustix::io::read(&self.fd, &mut *out)) {
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(errno) => {
                    let error = Error::io("read", self.name, errno.into());
                    return Err(io::Error::other(error));
                }
                Ok(n) => return Ok(n),
            }
        }
    }
}
