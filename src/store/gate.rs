//! The gate of a store: those who look something up go through it together, and whoever takes
//! something away goes alone, for a few milliseconds at a time. Its file's time is the store's clock,
//! which never goes back.

use crate::fs::Time;
use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_OMIT};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The file, in the store.
pub(super) const GATE: &str = "locks/gate";

/// Being in the gate, until this is dropped.
pub(super) struct Gate(File);

impl Gate {
    /// Goes through together with others.
    pub fn together(store: &Path) -> io::Result<Gate> {
        let file = open(store)?;
        retried(|| file.lock_shared())?;
        Ok(Gate(file))
    }

    /// Goes through alone. Nothing that takes long is done meanwhile.
    pub fn alone(store: &Path) -> io::Result<Gate> {
        let file = open(store)?;
        retried(|| file.lock())?;
        Ok(Gate(file))
    }

    /// Gives the time by the store's clock: none that it gave before is later, whatever the clocks of
    /// the machines say that share the store.
    pub fn now(&self) -> io::Result<Time> {
        Ok(now().max(modified(&self.0.metadata()?)))
    }

    /// Turns the clock on and gives the new time, as the file system keeps times: whatever is noted
    /// from now on is not earlier. To be called by who is alone.
    pub fn advance(&self) -> io::Result<Time> {
        let last = modified(&self.0.metadata()?);
        let next = match last.nanos {
            999_999_999 => Time {
                secs: last.secs.saturating_add(1),
                nanos: 0,
            },
            nanos => Time {
                secs: last.secs,
                nanos: nanos + 1,
            },
        };
        note(&self.0, now().max(next))?;
        Ok(modified(&self.0.metadata()?))
    }
}

fn open(store: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(store.join(GATE))
}

fn retried(lock: impl Fn() -> io::Result<()>) -> io::Result<()> {
    loop {
        match lock() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Gives the machine's time.
pub(super) fn now() -> Time {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Time {
        secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: since.subsec_nanos(),
    }
}

/// Gives the time of last modification, by which everything in a store says when it was wanted last.
pub(super) fn modified(meta: &Metadata) -> Time {
    Time {
        secs: meta.mtime(),
        nanos: u32::try_from(meta.mtime_nsec()).unwrap_or(0),
    }
}

fn times(at: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: at.secs,
            tv_nsec: at.nanos.into(),
        },
    }
}

/// Notes on an open file when it was wanted.
pub(super) fn note(file: &File, at: Time) -> io::Result<()> {
    Ok(rustix::fs::futimens(file, &times(at))?)
}

/// Notes the same on a name.
pub(super) fn note_at(path: &Path, at: Time) -> io::Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::utimensat(
        rustix::fs::CWD,
        path,
        &times(at),
        flags,
    )?)
}
