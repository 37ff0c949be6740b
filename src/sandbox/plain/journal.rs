//! What is where while a command runs at the builder's own root, in case everybody is killed who
//! could put it back: a container that is started again, or the next build in it, finds it here.
//!
//! A journal is a list of records, each a word and as many fields as the word takes, all ended by a
//! NUL. It is locked while somebody works by it.

use super::aside::{PREFIX, move_entries};
use super::spot::{names, remove};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};
use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Its name in a stage.
const NAME: &str = "journal";

/// What is done to a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// A directory of the run's own was made.
    Stage(PathBuf),
    /// Something was put where nothing was.
    New(PathBuf),
    /// What was at the first is at the second.
    Moved(PathBuf, PathBuf),
    /// What was in the first, of this mode, owner and group, is in the second.
    Emptied(PathBuf, PathBuf, [u32; 3]),
    /// What is at the first belongs to the second.
    Home(PathBuf, PathBuf),
}

impl Record {
    fn encode(&self) -> Vec<u8> {
        let (word, paths): (&str, Vec<&PathBuf>) = match self {
            Record::Stage(a) => ("stage", vec![a]),
            Record::New(a) => ("new", vec![a]),
            Record::Moved(a, b) => ("moved", vec![a, b]),
            Record::Emptied(a, b, _) => ("emptied", vec![a, b]),
            Record::Home(a, b) => ("home", vec![a, b]),
        };
        let mut out = [word.as_bytes(), b"\0"].concat();
        for path in paths {
            out.extend_from_slice(path.as_os_str().as_bytes());
            out.push(0);
        }
        if let Record::Emptied(_, _, numbers) = self {
            for number in numbers {
                out.extend_from_slice(number.to_string().as_bytes());
                out.push(0);
            }
        }
        out
    }
}

/// Reads a journal, as far as it was written.
fn decode(bytes: &[u8]) -> Vec<Record> {
    // What follows the last NUL is no field.
    let mut fields: Vec<&[u8]> = bytes.split(|byte| *byte == 0).collect();
    fields.pop();
    let mut fields = fields.into_iter();
    let mut records = Vec::new();
    let mut read = || -> Option<Record> {
        let word = fields.next()?;
        let mut path = || {
            fields
                .next()
                .map(|field| Path::new(OsStr::from_bytes(field)).into())
        };
        Some(match word {
            b"stage" => Record::Stage(path()?),
            b"new" => Record::New(path()?),
            b"moved" => Record::Moved(path()?, path()?),
            b"home" => Record::Home(path()?, path()?),
            b"emptied" => {
                let (at, aside) = (path()?, path()?);
                let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
                Record::Emptied(at, aside, [number()?, number()?, number()?])
            }
            _ => return None,
        })
    };
    while let Some(record) = read() {
        records.push(record);
    }
    records
}

/// A journal that is written.
pub(super) struct Journal(File);

impl Journal {
    /// Begins one in a stage.
    pub(super) fn begin(stage: &OwnedFd) -> io::Result<Journal> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
        let file = openat(stage, NAME, flags, Mode::from_raw_mode(0o600))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Journal(file.into()))
    }

    /// Notes what is about to be done.
    pub(super) fn note(&mut self, record: &Record) -> io::Result<()> {
        self.0.write_all(&record.encode())
    }
}

/// Puts back what killed builds have left behind in the builder's own root; gives the places. To be
/// called before anything of an image is written there, or the journal could be the image's.
pub(in crate::sandbox) fn repair() -> io::Result<Vec<PathBuf>> {
    let mut repaired = Vec::new();
    for entry in std::fs::read_dir("/")? {
        let entry = entry?;
        let is_stage = entry.file_name().as_bytes().starts_with(PREFIX.as_bytes());
        if !is_stage || !entry.file_type()?.is_dir() {
            continue;
        }
        let mut bytes = Vec::new();
        let journal = match File::open(entry.path().join(NAME)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if flock(&journal, FlockOperation::NonBlockingLockExclusive).is_err() {
            // Its run goes on.
            continue;
        }
        (&journal).read_to_end(&mut bytes)?;
        for record in decode(&bytes).iter().rev() {
            repaired.extend(undo(record)?);
        }
    }
    Ok(repaired)
}

fn undo(record: &Record) -> io::Result<Option<PathBuf>> {
    match record {
        Record::Stage(path) => {
            take(path)?;
            return Ok(None);
        }
        Record::New(path) => take(path)?,
        Record::Moved(path, aside) => {
            if aside.symlink_metadata().is_err() {
                return Ok(None);
            }
            take(path)?;
            std::fs::rename(aside, path)?;
        }
        Record::Emptied(path, aside, [mode, uid, gid]) => {
            if !aside.is_dir() {
                return Ok(None);
            }
            let (from, to) = (open(aside)?, open(path)?);
            for name in names(to.as_fd())? {
                remove(to.as_fd(), &name)?;
            }
            move_entries(from.as_fd(), to.as_fd())?;
            chown(path, Some(*uid), Some(*gid))?;
            std::fs::set_permissions(path, Permissions::from_mode(*mode))?;
        }
        Record::Home(path, home) => {
            if home.symlink_metadata().is_err() && path.is_dir() {
                std::fs::rename(path, home)?;
            }
            return Ok(None);
        }
    }
    Ok(Some(match record {
        Record::Stage(path) | Record::New(path) => path.clone(),
        Record::Moved(path, _) | Record::Home(path, _) | Record::Emptied(path, ..) => path.clone(),
    }))
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Removes a path, where it is.
fn take(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    match open(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        parent => remove(parent?.as_fd(), name.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_read_as_far_as_it_was_written() {
        let path = |name: &[u8]| PathBuf::from(OsStr::from_bytes(name));
        let records = vec![
            Record::Stage(path(b"/s")),
            Record::New(path(b"/a b\n\xff")),
            Record::Moved(path(b"/x"), path(b"/s/1")),
            Record::Emptied(path(b"/x"), path(b"/s/2"), [0o1777, 5, 6]),
            Record::Home(path(b"/x"), path(b"/store/x")),
        ];
        let bytes: Vec<u8> = records.iter().flat_map(Record::encode).collect();
        assert_eq!(decode(&bytes), records);
        for length in 0..bytes.len() {
            let read = decode(&bytes[..length]);
            assert!(read.len() < records.len() && records.starts_with(&read));
        }
        assert_eq!(decode(b"other\0/x\0"), []);
    }
}
