//! Where things are while something else stands in their place.

use super::super::scaffold::restore_time;
use super::super::wire::Way;
use super::journal::{Journal, Record};
use super::places::words;
use super::spot::{DIRECTORY, Spot, names};
use crate::fs::{Kind, Meta, Placer, RelPath, stat_at};
use rustix::fs::{
    AtFlags, CWD, FsWord, Mode, OFlags, StatVfsMountFlags, fstat, fstatfs, fstatvfs, mkdirat,
    openat, renameat, unlinkat,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What the names of stages begin with.
pub(super) const PREFIX: &str = ".shutter-aside-";

/// Directories of a container that files may lie in which have only a link at their place: those
/// first that may be in memory.
const ELSEWHERE: [&str; 5] = ["/dev/shm", "/run", "/dev", "/tmp", ""];

const TMPFS: FsWord = 0x0102_1994;
const RAMFS: FsWord = 0x8584_58f6;

/// Directories of a run's own, each made when it is first needed.
pub(super) struct Stages {
    /// Where the first one is made.
    around: OwnedFd,
    all: Vec<Stage>,
    /// How many names were given.
    given: u32,
    notes: Notes,
}

/// Whether what is done is noted.
enum Notes {
    /// Nobody would look for it.
    None,
    /// From the first on.
    Later,
    Kept(Journal),
}

struct Stage {
    parent: OwnedFd,
    name: String,
    path: PathBuf,
    dir: OwnedFd,
    use_: Use,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// For everything that can be moved there.
    Common,
    /// For what is in the same directory.
    Beside,
    /// For what has only a link at its place; the number says below which directory.
    Elsewhere(usize),
}

/// What a file cannot have at its place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lacking {
    /// That it is on no disk.
    Memory,
    /// That it can be executed.
    Execution,
}

/// A name in a stage.
pub(super) struct Moved {
    stage: usize,
    name: String,
}

/// What came of moving something aside.
pub(super) enum Taken {
    Moved(Moved),
    /// It is where it was; the name is free.
    Not(Moved),
}

impl Stages {
    pub(super) fn new(around: OwnedFd, way: Way) -> Stages {
        Stages {
            around,
            all: Vec::new(),
            given: 0,
            notes: match way {
                Way::Stay => Notes::Later,
                // Such a root goes with its build.
                Way::Chroot | Way::Pivot => Notes::None,
            },
        }
    }

    /// Notes what is about to be done, where the root outlives the build.
    pub(super) fn note(&mut self, record: &Record) -> io::Result<()> {
        if let Notes::Later = self.notes {
            let around = self.around.try_clone()?;
            let begun = self
                .stage(around.as_fd(), b"/", Use::Common, 0o700)
                .and_then(|stage| {
                    let stage = self.all.get(stage).ok_or(Errno::BADF)?;
                    let mut journal = Journal::begin(&stage.dir)?;
                    journal.note(&Record::Stage(path(b"/", stage.name.as_bytes())))?;
                    Ok(journal)
                });
            // A root that nothing can be written to has nothing moved in it either.
            self.notes = begun.map_or(Notes::None, Notes::Kept);
        }
        match &mut self.notes {
            Notes::Kept(journal) => journal.note(record),
            Notes::None | Notes::Later => Ok(()),
        }
    }

    /// Moves a name out of a directory. A directory that an overlay shows of its lower layers cannot
    /// be moved, nor can anything be moved between mounts.
    pub(super) fn take(&mut self, spot: &Spot, way: &[u8]) -> io::Result<Taken> {
        let (parent, name) = spot.at();
        let above = match way.iter().rposition(|byte| *byte == b'/') {
            None | Some(0) => &b"/"[..],
            Some(end) => way.get(..end).unwrap_or_default(),
        };
        let around = self.around.try_clone()?;
        let mut last = None;
        for (within, above, use_) in [
            (around.as_fd(), &b"/"[..], Use::Common),
            (parent, above, Use::Beside),
        ] {
            let stage = match self.stage(within, above, use_, 0o700) {
                Ok(stage) => stage,
                // The root may be read-only where the directory is not.
                Err(_) if use_ == Use::Common => continue,
                Err(error) => return Err(error),
            };
            let moved = Moved {
                stage,
                name: self.next(),
            };
            let whole = self.path(&moved);
            self.note(&Record::Moved(path(b"", way), whole))?;
            let Some(to) = self.all.get(stage) else {
                continue;
            };
            match renameat(parent, name, &to.dir, moved.name.as_str()) {
                Ok(()) => return Ok(Taken::Moved(moved)),
                Err(Errno::XDEV) => last = Some(moved),
                Err(Errno::BUSY) => {
                    return Err(words(
                        "something of the container's own is mounted there, and nothing can be \
                         mounted over it here",
                    ));
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        last.map(Taken::Not).ok_or(Errno::XDEV.into())
    }

    /// Gives the path of a name, as somebody at the root sees it.
    pub(super) fn path(&self, moved: &Moved) -> PathBuf {
        match self.all.get(moved.stage) {
            Some(stage) => stage.path.join(&moved.name),
            None => PathBuf::new(),
        }
    }

    /// Makes a directory of a name that was given.
    pub(super) fn directory(&self, moved: &Moved) -> io::Result<OwnedFd> {
        let stage = self.all.get(moved.stage).ok_or(Errno::BADF)?;
        mkdirat(&stage.dir, moved.name.as_str(), Mode::from_raw_mode(0o700))?;
        self.open(moved)
    }

    /// Opens a directory that was moved here or made here.
    pub(super) fn open(&self, moved: &Moved) -> io::Result<OwnedFd> {
        let stage = self.all.get(moved.stage).ok_or(Errno::BADF)?;
        Ok(openat(
            &stage.dir,
            moved.name.as_str(),
            DIRECTORY,
            Mode::empty(),
        )?)
    }

    /// Moves something to where it was.
    pub(super) fn give_back(
        &self,
        moved: &Moved,
        parent: BorrowedFd<'_>,
        name: &[u8],
    ) -> io::Result<()> {
        let stage = self.all.get(moved.stage).ok_or(Errno::BADF)?;
        Ok(renameat(&stage.dir, moved.name.as_str(), parent, name)?)
    }

    /// Finds a place elsewhere for a file of this mode: the directory, a free name in it, and the path
    /// of that.
    pub(super) fn elsewhere(
        &mut self,
        lacking: Lacking,
        mode: u32,
    ) -> io::Result<Option<(OwnedFd, Vec<u8>, String)>> {
        for (number, at) in ELSEWHERE.into_iter().enumerate() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let Ok(parent) = openat(CWD, format!("{at}/"), flags, Mode::empty()) else {
                continue;
            };
            let does = match lacking {
                Lacking::Memory => is_memory(parent.as_fd())?,
                Lacking::Execution => true,
            };
            if !does || (mode & 0o111 != 0 && !executes(parent.as_fd())?) {
                continue;
            }
            // Whoever the command runs as has to get to its own file.
            let use_ = Use::Elsewhere(number);
            let above = format!("{at}/");
            let Ok(stage) = self.stage(parent.as_fd(), above.as_bytes(), use_, 0o711) else {
                continue;
            };
            let name = self.next();
            let Some(stage) = self.all.get(stage) else {
                continue;
            };
            let whole = format!("{at}/{}/{name}", stage.name);
            return Ok(Some((stage.dir.try_clone()?, name.into_bytes(), whole)));
        }
        Ok(None)
    }

    /// Removes the stages with whatever is left in them.
    pub(super) fn remove(&mut self) -> io::Result<()> {
        for stage in self.all.drain(..).rev() {
            let times = fstat(&stage.parent)?;
            let mut placer = Placer::new(stage.parent.as_fd())?;
            match placer.remove(&RelPath::root().join(stage.name.as_bytes())) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            }
            restore_time(stage.parent.as_fd(), &times)?;
        }
        Ok(())
    }

    fn next(&mut self) -> String {
        self.given += 1;
        self.given.to_string()
    }

    /// Gives the number of a stage in a directory.
    fn stage(
        &mut self,
        within: BorrowedFd<'_>,
        above: &[u8],
        use_: Use,
        mode: u32,
    ) -> io::Result<usize> {
        let here = fstat(within)?;
        for (number, stage) in self.all.iter().enumerate() {
            let parent = fstat(&stage.parent)?;
            if stage.use_ == use_ && (parent.st_dev, parent.st_ino) == (here.st_dev, here.st_ino) {
                return Ok(number);
            }
        }
        let parent = openat(within, ".", DIRECTORY, Mode::empty())?;
        // A name that the command cannot have made before.
        let name = format!("{PREFIX}{:016x}", RandomState::new().hash_one(self.given));
        let path = path(above, name.as_bytes());
        if use_ != Use::Common {
            self.note(&Record::Stage(path.clone()))?;
        }
        mkdirat(&parent, name.as_str(), Mode::from_raw_mode(mode))?;
        let dir = openat(&parent, name.as_str(), DIRECTORY, Mode::empty())?;
        restore_time(parent.as_fd(), &here)?;
        self.all.push(Stage {
            parent,
            name,
            path,
            dir,
            use_,
        });
        Ok(self.all.len() - 1)
    }
}

fn path(above: &[u8], name: &[u8]) -> PathBuf {
    let above = Path::new(OsStr::from_bytes(above));
    above.join(OsStr::from_bytes(name))
}

/// Tells whether programs in a directory can be executed, as far as its mount goes.
pub(super) fn executes(dir: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(!fstatvfs(dir)?.f_flag.contains(StatVfsMountFlags::NOEXEC))
}

/// Tells whether a directory is in memory.
pub(super) fn is_memory(dir: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(matches!(fstatfs(dir)?.f_type, TMPFS | RAMFS))
}

/// Moves all that is in a directory to another one on the same file system. Directories that cannot
/// be moved are made anew, as they are.
pub(super) fn move_entries(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    for name in names(from)? {
        let name = name.as_slice();
        let refused = match renameat(from, name, to, name) {
            Ok(()) => continue,
            Err(errno) => errno,
        };
        let stat = stat_at(from, name)?;
        let Some(stat) = stat.filter(|stat| stat.meta.kind == Kind::Dir) else {
            return Err(refused.into());
        };
        if !matches!(refused, Errno::XDEV | Errno::NOTEMPTY | Errno::EXIST) {
            return Err(refused.into());
        }
        if fstat(from)?.st_dev != fstat(to)?.st_dev {
            return Err(refused.into());
        }
        let mut placer = Placer::new(to)?;
        placer.put(&RelPath::root().join(name), &stat.meta, None)?;
        let below = openat(from, name, DIRECTORY, Mode::empty())?;
        let there = openat(to, name, DIRECTORY, Mode::empty())?;
        move_entries(below.as_fd(), there.as_fd())?;
        placer.finish()?;
        unlinkat(from, name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// Gives a directory metadata.
pub(super) fn put_meta(dir: BorrowedFd<'_>, meta: &Meta) -> io::Result<()> {
    let mut placer = Placer::new(dir)?;
    placer.put(&RelPath::root(), meta, None)?;
    placer.finish()?;
    Ok(())
}
