//! Contexts that are archives, or a single Dockerfile.

use super::http::Downloaded;
use super::{Error, Opened, SINGLE, open_dir};
use crate::fs::archive::{Packing, decompress};
use crate::fs::tar::{Body, Reader, TarError};
use crate::fs::{Kind, Meta, Placer, RelPath, Time};
use crate::progress::Span;
use crate::sys::Cancel;
use rustix::io::Errno;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// So much tells an archive from something else.
const HEAD: usize = 512;
/// Where the files are put.
const TREE: &str = "tree";

/// Unpacks what `source` gives below `room`. What is no archive is the one file of the context,
/// named `context`: a Dockerfile. The files get the owner of this process, which a context does not
/// show, and no attributes.
pub(super) fn unpack(
    source: impl Read + Send,
    of: &str,
    room: &Path,
    time: Time,
    span: &Span,
    cancel: &Cancel,
) -> Result<Opened, Error> {
    let dir = room.join(TREE);
    super::make_dir(&dir)?;
    let root = open_dir(&dir)?;
    let watched = Watched { source, span };
    let failed = |error: io::Error| came(error, of, cancel);
    let (packing, mut plain) = decompress(watched).map_err(failed)?;
    let mut head = vec![0; HEAD];
    let mut have = 0;
    while have < HEAD {
        match plain.read(&mut head[have..]) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    head.truncate(have);
    let mut whole = io::Cursor::new(&head[..]).chain(plain);
    let mut placer = Placer::new(root.as_fd()).map_err(|e| Error::write(of, room, e))?;
    let is_archive = packing != Packing::Plain || looks_like_tar(&head);
    let dockerfile = match is_archive {
        true => {
            files(&mut whole, &mut placer, of, room, cancel)?;
            None
        }
        false => {
            let meta = own(Meta::file(0o600, 0, time));
            let path = RelPath::root().join(SINGLE.as_bytes());
            placer
                .put(&path, &meta, Some(&mut whole))
                .map_err(|e| wrote(e, of, room, cancel))?;
            Some(SINGLE)
        }
    };
    placer.finish().map_err(|e| Error::write(of, room, e))?;
    Ok(Opened {
        dir: Arc::new(root),
        dockerfile,
        notes: Vec::new(),
    })
}

/// Makes a directory of one file that was fetched, which BuildKit calls `context`.
pub(super) fn single(file: &Downloaded, room: &Path) -> Result<OwnedFd, Error> {
    let dir = room.join(TREE);
    super::make_dir(&dir)?;
    let root = open_dir(&dir)?;
    let failed = |e| Error::write("a context", room, e);
    let mut placer = Placer::new(root.as_fd()).map_err(failed)?;
    let mut content = file.source().open().map_err(failed)?;
    let path = RelPath::root().join(SINGLE.as_bytes());
    placer
        .put(&path, &own(file.meta.clone()), Some(&mut content))
        .map_err(failed)?;
    placer.finish().map_err(failed)?;
    Ok(root)
}

/// Tells whether a block is the header of an archive's entry, or the end of an empty archive.
fn looks_like_tar(head: &[u8]) -> bool {
    if head.len() < HEAD {
        return false;
    }
    if head.iter().all(|&c| c == 0) {
        return true;
    }
    // The header's own sum counts as blanks in it.
    let sum: u64 = head
        .iter()
        .enumerate()
        .map(|(at, &c)| match at {
            148..156 => u64::from(b' '),
            _ => u64::from(c),
        })
        .sum();
    let digits: Vec<u8> = head[148..156]
        .iter()
        .copied()
        .skip_while(|c| *c == b' ')
        .take_while(|c| matches!(c, b'0'..=b'7'))
        .collect();
    let said = digits
        .iter()
        .fold(0_u64, |sum, digit| sum * 8 + u64::from(digit - b'0'));
    !digits.is_empty() && said == sum
}

fn own(meta: Meta) -> Meta {
    Meta {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        xattrs: Vec::new(),
        ..meta
    }
}

fn files(
    source: &mut (dyn Read + Send),
    placer: &mut Placer,
    of: &str,
    room: &Path,
    cancel: &Cancel,
) -> Result<(), Error> {
    let failed = |error: TarError| match error {
        TarError::Read(error) => came(error, of, cancel),
        other => Error::Archive {
            of: of.to_owned(),
            source: other.into(),
        },
    };
    let mut reader = Reader::new(source);
    loop {
        let entry = reader.next_entry().map_err(failed)?;
        let Some(entry) = entry else {
            return Ok(());
        };
        if cancel.is_set() {
            return Err(Error::Cancelled);
        }
        let refused = |why: &str| failed(reader.refused(why));
        if matches!(entry.meta.kind, Kind::Char | Kind::Block) {
            return Err(refused("it is a device, and a context holds none"));
        }
        if let Some(parent) = entry.path.parent() {
            parents(placer, &parent, entry.meta.mtime).map_err(
                |error| match Errno::from_io_error(&error) {
                    Some(Errno::NOTDIR | Errno::LOOP) => refused("what it is in is no directory"),
                    _ => wrote(error, of, room, cancel),
                },
            )?;
        }
        let put = match &entry.body {
            Body::Link(existing) => placer
                .link(existing, &entry.path)
                .map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => refused(&format!(
                        "it is a hard link to {existing}, which is not there"
                    )),
                    _ => wrote(error, of, room, cancel),
                }),
            Body::File => {
                let meta = own(entry.meta);
                let content: Option<&mut dyn Read> = match meta.kind {
                    Kind::File => Some(&mut reader),
                    _ => None,
                };
                let put = placer.put(&entry.path, &meta, content);
                put.map_err(|error| wrote(error, of, room, cancel))
            }
        };
        put?;
    }
}

/// Makes the directories of a path that are missing.
fn parents(placer: &mut Placer, dir: &RelPath, time: Time) -> io::Result<()> {
    match placer.dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(above) = dir.parent() {
                parents(placer, &above, time)?;
            }
            placer.put(dir, &own(Meta::dir(0o755, time)), None)
        }
        other => other.map(drop),
    }
}

/// Makes an error of what went wrong while a source was read.
fn came(error: io::Error, of: &str, cancel: &Cancel) -> Error {
    if cancel.is_set() {
        return Error::Cancelled;
    }
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(error) => Error::Archive {
            of: of.to_owned(),
            source: error.into(),
        },
    }
}

/// Makes an error of what went wrong while a file was written, which may be that its source could
/// not be read.
fn wrote(error: io::Error, of: &str, room: &Path, cancel: &Cancel) -> Error {
    if cancel.is_set() {
        return Error::Cancelled;
    }
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(error) => match error.downcast::<TarError>() {
            Ok(TarError::Read(error)) => came(error, of, cancel),
            Ok(other) => Error::Archive {
                of: of.to_owned(),
                source: other.into(),
            },
            Err(error) if error.raw_os_error().is_none() => came(error, of, cancel),
            Err(error) => Error::write(of, room, error),
        },
    }
}

/// Counts bytes.
struct Watched<'a, R> {
    source: R,
    span: &'a Span,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(out)?;
        self.span.advance(n as u64);
        Ok(n)
    }
}
