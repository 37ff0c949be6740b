use super::Error;
use super::copy::{Work, check_kind};
use crate::fs::archive::decompress;
use crate::fs::tar::{Body, Entry, Reader, TarError};
use crate::fs::{Kind, RelPath, Source, Time};
use crate::sys::Cancel;
use rustix::fs::{Mode, OFlags, openat};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// The most bytes of names and attributes an archive may have: they are held in memory.
const MAX_NAMES: u64 = 2 << 30;
/// What an entry costs beside its name.
const ENTRY: u64 = 256;
/// The most bytes of holes the sparse files of an archive may have.
const MAX_HOLES: u64 = 64 << 30;
/// How much of a content is held at a time.
const PIECE: usize = 128 << 10;
/// The latest time that is taken: what 64 bits of nanoseconds hold.
const LATEST: i64 = i64::MAX / 1_000_000_000;

/// Why an entry of an archive cannot be had.
#[derive(Debug, thiserror::Error)]
enum Bad {
    /// Its content cannot be unpacked.
    #[error("entry `{name}`")]
    Content {
        /// The entry.
        name: RelPath,
        /// Why not.
        source: io::Error,
    },
    /// It is a hard link to nothing.
    #[error("{name} is a hard link to {old}, which is no file there")]
    Link {
        /// The entry.
        name: RelPath,
        /// What it names.
        old: RelPath,
    },
    /// It is one too many.
    #[error("{0} are too many for one archive")]
    Bound(&'static str),
}

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
    let (mut names, mut holes) = (0, 0_u64);
    while let Some(entry) = archive.next_entry().map_err(|e| failed(e.into()))? {
        names += weight(&entry);
        holes = holes.saturating_add(entry.holes);
        if names > MAX_NAMES {
            return Err(failed(Bad::Bound("the entries").into()));
        }
        if holes > MAX_HOLES {
            return Err(failed(Bad::Bound("the bytes of holes").into()));
        }
        let (name, mut meta, body) = (entry.path, entry.meta, entry.body);
        // What an archive says of its own root is not said of the destination.
        let Some(parent) = name.parent() else {
            continue;
        };
        if !(0..=LATEST).contains(&meta.mtime.secs) {
            meta.mtime = Time::default();
        }
        let mut meta = work.unpacked(&meta);
        let parent = work.target.resolve(to, &parent)?;
        let implied = work.implied();
        work.target.make_directories(&parent, &implied)?;
        let at = parent.join(name.name());
        check_kind(&at, &meta)?;
        match body {
            Body::Link(old) => {
                let above = old.parent().unwrap_or_default();
                let old_at = match old.is_root() {
                    true => to.clone(),
                    false => work.target.resolve(to, &above)?.join(old.name()),
                };
                let inode = work.next_inode();
                if !work.target.link(&old_at, at, inode, &meta) {
                    return Err(failed(Bad::Link { name, old }.into()));
                }
            }
            Body::File if meta.kind == Kind::Dir => work.target.put_dir(at, meta),
            Body::File => {
                let mut source = None;
                if meta.kind == Kind::File {
                    let kept = room.keep(&mut archive, entry.holes > 0);
                    let (content, size) =
                        kept.map_err(|source| failed(Bad::Content { name, source }.into()))?;
                    meta.size = size;
                    source = Some(content);
                }
                work.target.put_other(at, meta, source, None);
            }
        }
    }
    // What was read is one archive only if nobody wrote to it meanwhile.
    content
        .file()
        .map_err(|error| Error::io("read", path, error))?;
    Ok(())
}

/// Gives what an entry costs to remember.
fn weight(entry: &Entry) -> u64 {
    let attributes = entry.meta.xattrs.iter();
    let attributes: usize = attributes
        .map(|(name, value)| name.len() + value.len())
        .sum();
    let text = entry.path.as_bytes().len() + entry.meta.target.len() + attributes;
    ENTRY + text as u64
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
    piece: Vec<u8>,
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
            piece: vec![0; PIECE],
        })
    }

    /// Writes a content away, with holes for zeroes where it is said to have some; gives where it is
    /// and how many bytes it has.
    fn keep(&mut self, content: &mut impl Read, sparse: bool) -> io::Result<(Source, u64)> {
        let name = self.next.to_string();
        self.next += 1;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut file = File::from(openat(self.dir.as_fd(), &name, flags, mode)?);
        let mut size = 0;
        loop {
            let got = match content.read(&mut self.piece) {
                Ok(0) => break,
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let piece = self.piece.get(..got).unwrap_or_default();
            if sparse && piece.iter().all(|&byte| byte == 0) {
                file.seek(SeekFrom::Current(got as i64))?;
            } else {
                file.write_all(piece)?;
            }
            size += got as u64;
        }
        if sparse {
            file.set_len(size)?;
        }
        let path = RelPath::clean(name.as_bytes()).ok_or(io::ErrorKind::InvalidInput)?;
        let dir = Arc::clone(&self.dir);
        Ok((Source::File { dir, path }, size))
    }
}
