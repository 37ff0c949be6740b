//! The Dockerfile's text, from a file or from a pipe.

use super::Error;
use crate::net::{Url, redacted};
use crate::sys::Cancel;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The most bytes a Dockerfile may have.
pub(super) const MAX: u64 = 16 << 20;
/// So long a named pipe may be without a writer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tells whether a Dockerfile is at a URL.
fn url(place: &Path) -> Option<Url> {
    let url = Url::parse(place.to_str()?).ok()?;
    matches!(url.scheme(), "http" | "https").then_some(url)
}

/// Reads a Dockerfile. It may be a pipe (`/dev/stdin`, or what a shell puts for `<(command)`), which
/// is read to its end; a named pipe that nobody writes to is waited for and then given up. What is
/// neither a file nor a pipe is refused.
pub(super) fn read(path: &Path, cancel: Option<&Cancel>) -> Result<Vec<u8>, Error> {
    if let Some(url) = url(path) {
        let action = format!("read {}", redacted(&url));
        return Err(Error::other(action, "it is not on this machine"));
    }
    let failed = |why: Problem| match why {
        Problem::Cancelled => Error::Cancelled,
        Problem::Io(errno) => Error::other(
            format!("read {}", path.display()),
            std::io::Error::from(errno),
        ),
        Problem::Is(what) => Error::other(format!("read {}", path.display()), what),
    };
    read_to_end(path, cancel, PATIENCE).map_err(failed)
}

/// Reads a Dockerfile of a context that was fetched; gives its name, too. Links lead nowhere but into
/// the context. `Dockerfile` may be written `dockerfile`.
pub(super) fn read_in(context: BorrowedFd<'_>, path: &Path) -> Result<(PathBuf, Vec<u8>), Error> {
    let shown = || format!("read {} of the build context", path.display());
    let open = |path: &Path| {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(context, path, flags, Mode::empty(), resolve)
    };
    let (name, fd) = match open(path) {
        Err(Errno::NOENT) if path.file_name() == Some(OsStr::new("Dockerfile")) => {
            let lower = path.with_file_name("dockerfile");
            let opened = open(&lower);
            (lower, opened)
        }
        other => (path.to_owned(), other),
    };
    let fd = fd.map_err(|errno| Error::other(shown(), std::io::Error::from(errno)))?;
    let is_file = fstat(&fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
    if !matches!(is_file, Ok(FileType::RegularFile)) {
        return Err(Error::other(shown(), "it is no file"));
    }
    let mut text = Vec::new();
    std::fs::File::from(fd)
        .take(MAX + 1)
        .read_to_end(&mut text)
        .map_err(|e| Error::other(shown(), e))?;
    match text.len() as u64 > MAX {
        true => Err(Error::other(shown(), "it has more than 16 MiB")),
        false => Ok((name, text)),
    }
}

/// Why there is no text.
#[derive(Debug, PartialEq, Eq)]
enum Problem {
    Cancelled,
    Io(Errno),
    Is(&'static str),
}

impl From<Errno> for Problem {
    fn from(errno: Errno) -> Problem {
        Problem::Io(errno)
    }
}

fn read_to_end(
    path: &Path,
    cancel: Option<&Cancel>,
    patience: Duration,
) -> Result<Vec<u8>, Problem> {
    // Without O_NONBLOCK the opening of a pipe waits for a writer, and no signal ends that.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let fd = open(path, flags, Mode::empty())?;
    let mut text = Vec::new();
    match FileType::from_raw_mode(fstat(&fd)?.st_mode) {
        FileType::RegularFile => {
            std::fs::File::from(fd)
                .take(MAX + 1)
                .read_to_end(&mut text)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        }
        FileType::Fifo => pipe(fd.as_fd(), &mut text, cancel, patience)?,
        FileType::Directory => return Err(Problem::Is("it is a directory")),
        _ => return Err(Problem::Is("it is neither a file nor a pipe")),
    }
    if text.len() as u64 > MAX {
        return Err(Problem::Is("it has more than 16 MiB"));
    }
    Ok(text)
}

/// Reads a pipe to its end, which is where its writers are gone.
fn pipe(
    fd: BorrowedFd<'_>,
    text: &mut Vec<u8>,
    cancel: Option<&Cancel>,
    patience: Duration,
) -> Result<(), Problem> {
    let deadline = Instant::now() + patience;
    let mut buffer = vec![0; 64 << 10];
    while text.len() as u64 <= MAX {
        let left = match rustix::io::read(fd, &mut buffer) {
            Ok(0) if !text.is_empty() => return Ok(()),
            // No writer: not yet, or no longer.
            Ok(0) => Some(deadline.saturating_duration_since(Instant::now())),
            Ok(count) => {
                text.extend_from_slice(&buffer[..count]);
                continue;
            }
            // A writer that takes its time.
            Err(Errno::AGAIN) => None,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let mut fds = vec![PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        if let Some(cancel) = cancel {
            fds.push(PollFd::from_borrowed_fd(cancel.as_fd(), PollFlags::IN));
        }
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let ready = match poll(&mut fds, timeout.as_ref()) {
            Ok(ready) => ready,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        if cancel.is_some_and(Cancel::is_set) {
            return Err(Problem::Cancelled);
        }
        let seen = fds[0].revents();
        if seen.contains(PollFlags::HUP) && !seen.contains(PollFlags::IN) {
            return Ok(());
        }
        if ready == 0 {
            return Err(Problem::Is("it is a pipe that nobody writes to"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const NOT_LONG: Duration = Duration::from_millis(20);

    fn fifo(dir: &Path) -> PathBuf {
        let path = dir.join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.expect("mkfifo").success());
        path
    }

    #[test]
    fn pipes_are_read_to_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = fifo(dir.path());
        // More than a pipe holds, so that the writer waits for the reader.
        let content = b"FROM scratch\n".repeat(20_000);
        let (to, all) = (path.clone(), content.clone());
        let writer = std::thread::spawn(move || std::fs::write(to, all).unwrap());
        let text = read_to_end(&path, None, Duration::from_secs(60));
        writer.join().unwrap();
        assert_eq!(text.map(|text| text == content), Ok(true));

        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"FROM scratch\n").unwrap();
        drop(writer);
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        let text = read_to_end(Path::new(&path), None, NOT_LONG);
        assert_eq!(text, Ok(b"FROM scratch\n".to_vec()));

        let (reader, writer) = std::io::pipe().unwrap();
        drop(writer);
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        assert_eq!(read_to_end(Path::new(&path), None, NOT_LONG), Ok(vec![]));
    }

    #[test]
    fn what_never_ends_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = fifo(dir.path());
        let lonely = read_to_end(&path, None, NOT_LONG);
        assert_eq!(
            lonely,
            Err(Problem::Is("it is a pipe that nobody writes to"))
        );
        for (path, why) in [
            (Path::new("/dev/zero"), "it is neither a file nor a pipe"),
            (Path::new("/dev/null"), "it is neither a file nor a pipe"),
            (dir.path(), "it is a directory"),
        ] {
            assert_eq!(read_to_end(path, None, NOT_LONG), Err(Problem::Is(why)));
        }
        let missing = read_to_end(&dir.path().join("x"), None, NOT_LONG);
        assert_eq!(missing, Err(Problem::Io(Errno::NOENT)));

        let cancel = Cancel::new().unwrap();
        cancel.cancel();
        let cancelled = read_to_end(&path, Some(&cancel), Duration::from_secs(60));
        assert_eq!(cancelled, Err(Problem::Cancelled));
    }

    #[test]
    fn a_pipe_has_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = fifo(dir.path());
        let to = path.clone();
        let writer = std::thread::spawn(move || {
            let mut file = std::fs::File::options().write(true).open(to).unwrap();
            let block = vec![b'\n'; 1 << 20];
            // The reader goes away at some time.
            while file.write_all(&block).is_ok() {}
        });
        let text = read_to_end(&path, None, Duration::from_secs(60));
        assert_eq!(text, Err(Problem::Is("it has more than 16 MiB")));
        writer.join().unwrap();
    }
}
