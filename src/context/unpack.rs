use super::Error;
use super::copy::Work;
use crate::fs::archive::decompress;
use crate::fs::tar::{Body, Reader, TarError};
use crate::fs::{Kind, RelPath, Source};
use crate::sys::Cancel;
use rustix::fs::{Mode, OFlags, openat};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// Tells whether a file is an archive: it starts with an entry, once it is decompressed.
pub(super) fn is_archive(path: &RelPath, content: &Source) -> Result<bool, Error> {
    let file = content
        .open()
        .map_err(|error| Error::io("read", path, error))?;
    let Ok((_, plain)) = decompress(file) else {
        return Ok(false);
    };
    Ok(match Reader::new(plain).next_entry() {
        Ok(first) => first.is_some(),
        // It is an archive, though one that is not unpacked; that is said when it is tried.
        Err(TarError::Refused { .. }) => true,
        Err(_) => false,
    })
}

/// Unpacks an archive into the directory `to` of the target, which is the root for everything in
/// it: `..`, absolute links and links that were there before lead no further. Contents go to
/// `room`, a directory that is made for them.
pub(super) fn unpack(
    work: &mut Work<'_>,
    path: &RelPath,
    content: &Source,
    to: &RelPath,
    room: &Path,
    cancel: &Cancel,
) -> Result<(), Error> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| match cancel.is_set() {
        true => Error::Cancelled,
        false => Error::Archive {
            path: path.clone(),
            source,
        },
    };
    let file = content
        .open()
        .map_err(|error| Error::io("read", path, error))?;
    let file = UntilCancelled {
        inner: file,
        cancel,
    };
    let (_, plain) = decompress(file).map_err(|error| failed(error.into()))?;
    let mut room = Room::make(room)?;
    let mut archive = Reader::new(plain);
    while let Some(entry) = archive.next_entry().map_err(|e| failed(e.into()))? {
        let (name, meta, body) = (entry.path, entry.meta, entry.body);
        // What an archive says of its own root is not said of the destination.
        let Some(parent) = name.parent() else {
            continue;
        };
        let parent = work.target.resolve(to, &parent)?;
        let implied = work.implied();
        work.target.make_directories(&parent, &implied)?;
        let at = parent.join(name.name());
        match body {
            Body::Link(old) => {
                let above = old.parent().unwrap_or_default();
                let old_at = match old.is_root() {
                    true => to.clone(),
                    false => work.target.resolve(to, &above)?.join(old.name()),
                };
                let inode = work.next_inode();
                if !work.target.link(&old_at, at, inode) {
                    let why = format!("{name} is a hard link to {old}, which is no file there");
                    return Err(failed(why.into()));
                }
            }
            Body::File if meta.kind == Kind::Dir => {
                let meta = work.unpacked(&meta);
                work.target.put_dir(at, meta);
            }
            Body::File => {
                let mut meta = work.unpacked(&meta);
                let source = match meta.kind {
                    Kind::File => {
                        let (source, size) =
                            room.keep(&mut archive).map_err(|e| failed(e.into()))?;
                        meta.size = size;
                        Some(source)
                    }
                    _ => None,
                };
                work.target.put_other(at, meta, source, None);
            }
        }
    }
    Ok(())
}

/// Reads until the build is cancelled: an archive may take minutes.
struct UntilCancelled<'a, R> {
    inner: R,
    cancel: &'a Cancel,
}

impl<R: Read> Read for UntilCancelled<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_set() {
            return Err(io::Error::other("cancelled"));
        }
        self.inner.read(out)
    }
}

/// A directory for the contents of one archive, each a file with a number for a name.
struct Room {
    dir: Arc<OwnedFd>,
    next: u64,
}

impl Room {
    fn make(path: &Path) -> Result<Room, Error> {
        let failed = |source| Error::Open {
            action: "make directory",
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir_all(path).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(rustix::fs::CWD, path, flags, Mode::empty())
            .map_err(|errno| failed(errno.into()))?;
        Ok(Room {
            dir: Arc::new(dir),
            next: 0,
        })
    }

    /// Writes a content away; gives where it is and how many bytes it has.
    fn keep(&mut self, content: &mut impl Read) -> io::Result<(Source, u64)> {
        let name = self.next.to_string();
        self.next += 1;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut file = File::from(openat(self.dir.as_fd(), &name, flags, mode)?);
        let size = io::copy(content, &mut file)?;
        let path = RelPath::clean(name.as_bytes()).ok_or(io::ErrorKind::InvalidInput)?;
        let dir = Arc::clone(&self.dir);
        Ok((Source::File { dir, path }, size))
    }
}
