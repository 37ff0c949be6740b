//! One place at which something stands while the command runs, and how it becomes what it was.

use super::super::scaffold::restore_time;
use super::aside::{self, Stages};
use super::spot::{DIRECTORY, PATH, Spot, id, names, remove, whereabouts};
use super::{Watch, copy};
use crate::fs::{Meta, Placer, RelPath, Time, stat_at};
use rustix::fs::{
    AtFlags, Gid, Mode, Stat, Uid, fchmod, fchown, fstat, mkdirat, openat, renameat, statat,
};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// One place.
pub(super) struct Placed {
    /// From the root, free of links.
    pub(super) path: Vec<u8>,
    pub(super) spot: Spot,
    /// Its directory, as it was before anything was put there.
    pub(super) around: Stat,
    /// What was there before.
    pub(super) before: Before,
    /// What is there now; kept open, so that its number is nobody else's.
    pub(super) now: Option<OwnedFd>,
    pub(super) what: What,
}

pub(super) enum Before {
    Nothing,
    /// It is in a stage, under this name.
    Moved(aside::Moved),
    /// It is a directory that cannot be moved. What was in it is in a stage.
    Emptied(aside::Moved, Box<Meta>),
}

/// What becomes of what stands there.
pub(super) enum What {
    Thrown,
    /// It is overwritten first. Not open for writing, or it could not be executed.
    Wiped(OwnedFd),
    /// It goes back to where it came from.
    Moved(Home),
    /// What changed in it since then goes back to where it was copied from.
    Copied(OwnedFd, Time),
}

/// Where a directory belongs that is kept.
pub(super) struct Home {
    /// The directory itself.
    pub(super) itself: OwnedFd,
    parent: OwnedFd,
    name: Vec<u8>,
    meta: Meta,
}

impl Placed {
    /// Makes an empty directory, or takes the one that has been emptied, and opens it.
    pub(super) fn directory(&mut self, mode: u32) -> io::Result<OwnedFd> {
        let (parent, name) = self.spot.at();
        if !matches!(self.before, Before::Emptied(..)) {
            mkdirat(parent, name, Mode::from_raw_mode(0o700))?;
        }
        let dir = openat(parent, name, DIRECTORY, Mode::empty())?;
        fchown(&dir, Some(Uid::ROOT), Some(Gid::ROOT))?;
        fchmod(&dir, Mode::from_raw_mode(mode))?;
        self.settle()?;
        Ok(dir)
    }

    /// Notes what stands at the place now, and leaves the directory's time as it was.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        let (parent, name) = self.spot.at();
        self.now = Some(openat(parent, name, PATH, Mode::empty())?);
        Ok(restore_time(parent, &self.around)?)
    }

    /// Moves a directory to the place that is to be kept, or copies it where it cannot be moved.
    pub(super) fn keep(&mut self, source: OwnedFd, watch: &Watch<'_>) -> io::Result<OwnedFd> {
        let home = Home::of(&source)?;
        let (parent, name) = self.spot.at();
        let moved = match (&home, &self.before) {
            (Some(home), Before::Emptied(..)) => {
                let to = openat(parent, name, DIRECTORY, Mode::empty())?;
                let from = openat(&source, ".", DIRECTORY, Mode::empty())?;
                let moved = aside::move_entries(from.as_fd(), to.as_fd())
                    .and_then(|()| aside::put_meta(to.as_fd(), &home.meta));
                if moved.is_err() {
                    // What came so far is not lost.
                    aside::move_entries(to.as_fd(), from.as_fd())?;
                }
                moved
            }
            (Some(home), _) => {
                renameat(&home.parent, home.name.as_slice(), parent, name).map_err(io::Error::from)
            }
            (None, _) => Err(Errno::XDEV.into()),
        };
        match (moved, home) {
            (Ok(()), Some(home)) => {
                self.what = What::Moved(home);
                self.settle()?;
                Ok(openat(
                    &self.spot.parent,
                    self.spot.name.as_slice(),
                    DIRECTORY,
                    Mode::empty(),
                )?)
            }
            (Err(error), _) if error.raw_os_error() != Some(libc::EXDEV) => Err(error),
            _ => {
                let dir = self.directory(0o700)?;
                copy::tree(source.as_fd(), dir.as_fd(), watch)?;
                // What is changed from now on has a later time than this, or the same.
                let now = clock_gettime(ClockId::RealtimeCoarse);
                let since = Time {
                    secs: now.tv_sec,
                    nanos: u32::try_from(now.tv_nsec).unwrap_or(0),
                };
                let source = openat(&source, ".", DIRECTORY, Mode::empty())?;
                self.what = What::Copied(source, since);
                Ok(dir)
            }
        }
    }

    pub(super) fn restore(mut self, root: &OwnedFd, stages: &Stages) -> io::Result<()> {
        let times = match &self.now {
            Some(_) => fstat(&self.spot.parent)?,
            None => self.around,
        };
        let what = std::mem::replace(&mut self.what, What::Thrown);
        let what = match what {
            What::Wiped(file) => {
                wipe_file(&file)?;
                What::Thrown
            }
            what => what,
        };
        if let Before::Emptied(moved, meta) = &self.before {
            self.refill(what, stages, moved, meta)?;
        } else {
            self.take_away(what)?;
            let (parent, name) = self.spot.at();
            // Something else that the command put there, where a mount would have been in its way.
            remove(parent, name)?;
            if let Before::Moved(moved) = &self.before {
                match stages.give_back(moved, parent, name) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        self.spot.rebuild(root)?;
                        let (parent, name) = self.spot.at();
                        remove(parent, name)?;
                        return stages.give_back(moved, parent, name);
                    }
                    other => other?,
                }
            }
        }
        Ok(restore_time(self.spot.parent.as_fd(), &times)?)
    }

    /// Takes what stands at the place from wherever the command moved it.
    pub(super) fn take_away(&mut self, what: What) -> io::Result<()> {
        let Some(now) = &self.now else {
            return Ok(());
        };
        let mine = id(&fstat(now)?);
        let (parent, name) = self.spot.at();
        let is_mine = |parent: BorrowedFd<'_>, name: &[u8]| {
            statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| id(&stat) == mine)
        };
        let elsewhere;
        let found = if is_mine(parent, name) {
            Some((parent, name))
        } else {
            elsewhere = whereabouts(now);
            let found = elsewhere
                .as_ref()
                .map(|(parent, name)| (parent.as_fd(), name.as_slice()));
            found.filter(|(parent, name)| is_mine(*parent, name))
        };
        let times = found
            .map(|(parent, _)| fstat(parent).map(|stat| (parent, stat)))
            .transpose()?;
        match (what, found) {
            (What::Moved(home), Some((parent, name))) => {
                renameat(parent, name, &home.parent, home.name.as_slice())?;
            }
            (What::Moved(home), None) => {
                // The command removed it, which with a mount would have emptied it.
                let mut placer = Placer::new(home.parent.as_fd())?;
                placer.put(&RelPath::root().join(&home.name), &home.meta, None)?;
                placer.finish()?;
            }
            (What::Copied(source, since), found) => {
                if let Some((parent, name)) = found {
                    let from = openat(parent, name, DIRECTORY, Mode::empty())?;
                    copy::back(from.as_fd(), source.as_fd(), since)?;
                    remove(parent, name)?;
                } else {
                    for name in names(source.as_fd())? {
                        remove(source.as_fd(), &name)?;
                    }
                }
            }
            (What::Thrown | What::Wiped(_), Some((parent, name))) => remove(parent, name)?,
            (What::Thrown | What::Wiped(_), None) => {}
        }
        if let Some((parent, times)) = times {
            restore_time(parent, &times)?;
        }
        Ok(())
    }

    /// Puts back what was in a directory that was emptied.
    pub(super) fn refill(
        &self,
        what: What,
        stages: &Stages,
        moved: &aside::Moved,
        meta: &Meta,
    ) -> io::Result<()> {
        let (parent, name) = self.spot.at();
        let mine = self.now.as_ref().map(fstat).transpose()?;
        let there = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
        let same = matches!((&mine, &there), (Some(a), Ok(b)) if id(a) == id(b));
        if !same {
            remove(parent, name)?;
            mkdirat(parent, name, Mode::from_raw_mode(0o700))?;
        }
        let dir = openat(parent, name, DIRECTORY, Mode::empty())?;
        match what {
            What::Moved(home) => {
                let to = openat(&home.itself, ".", DIRECTORY, Mode::empty())?;
                aside::move_entries(dir.as_fd(), to.as_fd())?;
            }
            What::Copied(source, since) => copy::back(dir.as_fd(), source.as_fd(), since)?,
            What::Thrown | What::Wiped(_) => {}
        }
        for name in names(dir.as_fd())? {
            remove(dir.as_fd(), &name)?;
        }
        let from = stages.open(moved)?;
        aside::move_entries(from.as_fd(), dir.as_fd())?;
        aside::put_meta(dir.as_fd(), meta)
    }
}

impl Home {
    /// Finds where a directory is; `None` where it has no name that can be found.
    pub(super) fn of(source: &OwnedFd) -> io::Result<Option<Home>> {
        let mine = id(&fstat(source)?);
        let Some((parent, name)) = whereabouts(source) else {
            return Ok(None);
        };
        match stat_at(parent.as_fd(), &name) {
            Ok(Some(stat)) if (stat.id.dev, stat.id.ino) == mine => Ok(Some(Home {
                itself: source.try_clone()?,
                parent,
                name,
                meta: stat.meta,
            })),
            _ => Ok(None),
        }
    }
}

/// Overwrites a file's content and takes it away, whatever names it has.
pub(super) fn wipe_file(file: &OwnedFd) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut file = File::options().write(true).open(path)?;
    let mut left = file.metadata()?.len();
    let zeros = [0; 8192];
    while left > 0 {
        let piece = zeros.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.write_all(zeros.get(..piece).unwrap_or_default())?;
        left -= piece as u64;
    }
    file.set_len(0)
}
