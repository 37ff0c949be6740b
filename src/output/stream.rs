//! The bytes of an archive on their way to a file or to standard output.

use super::{Error, Export, beside, failed, put_in_place};
use crate::request::Place;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

/// A file is copied in pieces of so many bytes: the kernel cannot be stopped within one.
const PIECE: u64 = 8 << 20;
/// What is read at a time where the kernel cannot copy.
const BUFFER: usize = 256 << 10;
/// The most bytes that wait in a pipe.
const PIPE: usize = 1 << 20;
/// How long is waited before a pipe that nobody reads is tried again.
const AGAIN: Duration = Duration::from_millis(50);

/// What standard output is called in errors.
const STDOUT: &str = "standard output";

/// Has `make` write an archive to a place. A file is put there by a rename, when it is whole; what
/// is no regular file (a pipe, a device) is written to as it is.
pub(super) fn write_to(
    place: &Place,
    export: &Export<'_>,
    make: impl FnOnce(&mut Stream<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let path = match place {
        Place::Stdout => {
            let path = Path::new(STDOUT);
            let mut stream = Stream::new(stdout().map_err(failed("open", path))?, path, export)?;
            return make(&mut stream);
        }
        Place::File(path) => path,
    };
    match std::fs::metadata(path) {
        Ok(meta) if !meta.is_file() && !meta.is_dir() => {
            let out = open_special(path, export)?;
            make(&mut Stream::new(out, path, export)?)
        }
        _ => {
            // A link keeps its place, and what it leads to gets the content.
            let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
            let partial = beside(&target);
            put_in_place(&target, &partial, || {
                let out = File::create_new(&partial).map_err(failed("create", path))?;
                make(&mut Stream::new(out, path, export)?)
            })
        }
    }
}

/// Opens standard output anew. A pipe is opened as one that does not block, which must not be asked
/// of a descriptor that whoever started the builder may go on using.
fn stdout() -> io::Result<File> {
    let stdout = io::stdout();
    if kind(&stdout)? == FileType::Fifo {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::open(c"/proc/self/fd/1", flags, Mode::empty()) {
            Ok(fd) => return Ok(fd.into()),
            // It belongs to somebody else, or there is no /proc.
            Err(Errno::ACCESS | Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(&stdout, 3)?.into())
}

/// Opens a pipe or a device; a pipe that nobody reads yet is waited for.
fn open_special(path: &Path, export: &Export<'_>) -> Result<File, Error> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    loop {
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => return Ok(fd.into()),
            Err(Errno::NXIO) => {
                if export.cancel.wait(AGAIN) {
                    return Err(Error::Cancelled);
                }
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failed("open", path)(errno.into())),
        }
    }
}

fn kind(file: impl AsFd) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode))
}

/// An archive being written.
pub(super) struct Stream<'a> {
    out: File,
    kind: FileType,
    path: &'a Path,
    export: &'a Export<'a>,
    /// Why nothing more can be written.
    broken: Option<io::Error>,
}

impl<'a> Stream<'a> {
    pub(super) fn new(
        out: File,
        path: &'a Path,
        export: &'a Export<'a>,
    ) -> Result<Stream<'a>, Error> {
        let kind = kind(&out).map_err(failed("open", path))?;
        if kind == FileType::Fifo {
            // Fewer waits for the reader; the system's own size will do too.
            let _ = rustix::pipe::fcntl_setpipe_size(&out, PIPE);
        }
        Ok(Stream {
            out,
            kind,
            path,
            export,
            broken: None,
        })
    }

    /// Turns a failure into an error: that of writing where that is what failed, else of `action`
    /// on `path`.
    pub(super) fn failed(
        &mut self,
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(io::Error) -> Error {
        let (out, broken) = (self.path, self.broken.take());
        let cancelled = self.export.cancel.is_set();
        move |error| match broken {
            _ if cancelled => Error::Cancelled,
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                Error::Closed(out.to_owned())
            }
            Some(error) => failed("write", out)(error),
            None => failed(action, path)(error),
        }
    }

    /// Copies what is left of a file, inside of the kernel where that can; gives the bytes.
    pub(super) fn copy(&mut self, from: &mut File) -> io::Result<u64> {
        if self.kind != FileType::RegularFile {
            return copy(from, self);
        }
        let mut total = 0;
        loop {
            self.check()?;
            let copied = match io::copy(&mut from.take(PIECE), &mut self.out) {
                Ok(copied) => copied,
                // Reading fails seldom, and a full disk often.
                Err(error) => return Err(self.fail(error)),
            };
            self.export.span.advance(copied);
            total += copied;
            if copied < PIECE {
                return Ok(total);
            }
        }
    }

    fn check(&self) -> io::Result<()> {
        match self.export.cancel.is_set() {
            // Not `Interrupted`, which would be tried again.
            true => Err(io::Error::other("cancelled")),
            false => Ok(()),
        }
    }

    fn fail(&mut self, error: io::Error) -> io::Error {
        let kind = error.kind();
        self.broken = Some(error);
        kind.into()
    }

    /// Writes some bytes, waiting where the reader is slow.
    fn some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.check()?;
            let written = match self.kind {
                FileType::Socket => {
                    rustix::net::send(&self.out, bytes, rustix::net::SendFlags::DONTWAIT)
                }
                _ => rustix::io::write(&self.out, bytes),
            };
            match written {
                Ok(written) => return Ok(written),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let mut watched = [
                        PollFd::new(&self.out, PollFlags::OUT),
                        PollFd::new(self.export.cancel, PollFlags::IN),
                    ];
                    match poll(&mut watched, None) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        match self.some(bytes) {
            Ok(0) => Err(self.fail(io::ErrorKind::WriteZero.into())),
            Ok(written) => {
                self.export.span.advance(written as u64);
                Ok(written)
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Copies through memory.
pub(super) fn copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<u64> {
    let mut buffer = vec![0; BUFFER];
    let mut total = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(read) => {
                to.write_all(buffer.get(..read).unwrap_or_default())?;
                total += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
