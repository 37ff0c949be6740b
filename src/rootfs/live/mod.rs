//! A directory that commands write to as it is: for places where nothing can be mounted.

mod borrowed;
mod clock;
mod guard;
mod look;
mod make;
mod moved;
mod watch;

pub use guard::Guard;

use super::dirs::{Scratch, at};
use super::{Entry, Error, Lower, Rootfs};
use crate::changeset::{self, Changeset, State};
use crate::fs::{Deletions, Meta, Placer, RelPath, Tree};
use crate::sys::Cancel;
use borrowed::Borrowed;
use clock::{Clock, Since};
use look::{Failure, Index, Look, Seen};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use watch::{Touched, Watch};

/// A root whose files lie in one directory, where every step changes them.
///
/// A step's changes are found by looking at the directories in which something has happened: inotify
/// tells which, or, where it cannot, all are looked at. In such a directory the names are compared
/// with those that were there, and of the files those count that the kernel says were changed since
/// the step began (ctime). No content is read. Where somebody has set the clock meanwhile every file
/// counts, and `settle` finds out which are equal.
///
/// Files are changed where they are, so what a changeset names is live: it has to be read before the
/// next step begins. A file's content is found there later too, as long as no step changes it.
///
/// ```text
/// DIR/root/     the files, for a root of its own
/// DIR/forks/N/  the same again for each fork
/// ```
#[derive(Debug)]
pub struct Live {
    scratch: Scratch,
    /// The directory.
    path: PathBuf,
    root: Arc<OwnedFd>,
    way: Way,
    guard: Guard,
    borrowed: Borrowed,
    tracker: Option<Tracker>,
    phase: Phase,
}

/// How a command gets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Chroot,
    Stay,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Resting,
    Step,
    /// A step failed and what it wrote is still there.
    Spoiled,
}

#[derive(Debug)]
struct Tracker {
    index: Index,
    watch: Option<Watch>,
    clock: Clock,
}

impl Live {
    /// Makes a root in an empty directory out of copies of unpacked layers, bottom first, which
    /// commands enter by `chroot`. `top` is what the root directory itself is like.
    pub fn chroot(
        dir: PathBuf,
        lowers: &[Lower],
        top: &Meta,
        cancel: &Cancel,
    ) -> Result<Live, Error> {
        let path = dir.join("root");
        std::fs::create_dir(&path).map_err(at("create", &path))?;
        let live = Live::open(dir, path, Way::Chroot, Guard::default())?;
        let tree = make::tree(lowers)?;
        make::fill(&live.root, &tree, top, &live.guard, &[], cancel)?;
        Ok(live)
    }

    /// Takes the root that the builder itself is in, and puts copies of a tree's files there in place
    /// of all that `guard` does not keep and that is no mount. `dir` is a directory
    /// for what has to lie elsewhere. `movable` are directories with the files of the tree's lowest
    /// layers, which are moved and not copied as far as that goes; nothing else may want them after.
    pub fn in_place(
        dir: PathBuf,
        tree: &Tree,
        top: &Meta,
        guard: Guard,
        movable: &[PathBuf],
        cancel: &Cancel,
    ) -> Result<Live, Error> {
        let guard = with_mounts(guard.with(&dir))?;
        let mut live = Live::open(dir, PathBuf::from("/"), Way::Stay, guard)?;
        make::clear(&live.root, &live.guard).map_err(failed("clear"))?;
        make::fill(&live.root, tree, top, &live.guard, movable, cancel)?;
        live.borrowed = Borrowed::of(&live.guard, tree);
        Ok(live)
    }

    /// Gives what is in the root and not the image's.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Gives the directories in the root that the image has something else in the place of: something
    /// that is kept lies in them.
    pub fn hiding(&self) -> impl Iterator<Item = &RelPath> {
        self.borrowed.hiding()
    }

    /// Removes from the root that the builder itself is in all that `guard` does not keep and that
    /// is no mount.
    pub fn clean(guard: Guard) -> Result<(), Error> {
        let path = Path::new("/");
        let root = std::fs::File::open(path).map_err(at("open", path))?;
        make::clear(&Arc::new(root.into()), &with_mounts(guard)?).map_err(failed("clear"))
    }

    /// Copies what changes put into an empty directory. What they delete leaves nothing there: where
    /// a root has to be one directory, whiteouts can seldom be made.
    pub fn copy_out(dir: &Arc<OwnedFd>, changes: &Changeset, cancel: &Cancel) -> Result<(), Error> {
        make::copy(dir, &changes.changes, cancel)
    }

    fn open(dir: PathBuf, path: PathBuf, way: Way, guard: Guard) -> Result<Live, Error> {
        let root = std::fs::File::open(&path).map_err(at("open", &path))?;
        Ok(Live {
            scratch: Scratch::new(dir),
            path,
            root: Arc::new(root.into()),
            way,
            guard,
            borrowed: Borrowed::default(),
            tracker: None,
            phase: Phase::Resting,
        })
    }

    /// Tells whether the kernel says in which directories something happens, once a step has begun;
    /// else all of them are looked at after every step.
    pub fn is_watched(&self) -> bool {
        let watch = self
            .tracker
            .as_ref()
            .and_then(|tracker| tracker.watch.as_ref());
        watch.is_some_and(Watch::sees_all)
    }

    /// Looks at what has happened since the last look.
    fn look(&mut self) -> Result<Seen, Error> {
        let Some(tracker) = &mut self.tracker else {
            return Ok(Seen::default());
        };
        let touched = match &tracker.watch {
            Some(watch) => watch.touched(),
            None => Touched::Anywhere,
        };
        let look = Look {
            root: &self.root,
            guard: &self.guard,
            index: &tracker.index,
            watch: tracker.watch.as_ref(),
            since: tracker.clock.since(),
        };
        let mut seen = match (touched, look.since) {
            (Touched::In(dirs), Since::Time(_)) => {
                let seen = look.at(&dirs).map_err(failed("look at"))?;
                // A file was changed by one of its names; where the others are nobody has told.
                match seen.has_unseen_names() {
                    true => look.at(&tracker.index.all()).map_err(failed("look at"))?,
                    false => seen,
                }
            }
            _ => look.at(&tracker.index.all()).map_err(failed("look at"))?,
        };
        tracker.index.learn(&mut seen);
        Ok(seen)
    }

    /// Begins to track, with all there is.
    fn track(&mut self) -> Result<(), Error> {
        let mut tracker = Tracker {
            index: Index::default(),
            // Without it everything is looked at after each step.
            watch: Watch::new().ok(),
            clock: Clock::new().map_err(at("watch the clock for", &self.path))?,
        };
        let look = Look {
            root: &self.root,
            guard: &self.guard,
            index: &tracker.index,
            watch: tracker.watch.as_ref(),
            since: Since::Ever,
        };
        let mut seen = look.names().map_err(failed("look at"))?;
        tracker.index.learn(&mut seen);
        self.tracker = Some(tracker);
        Ok(())
    }
}

impl Rootfs for Live {
    fn root(&self) -> Result<BorrowedFd<'_>, Error> {
        Ok(self.root.as_fd())
    }

    fn entry(&self) -> Entry<'_> {
        match self.way {
            Way::Chroot => Entry::Chroot(&self.path),
            Way::Stay => Entry::Stay,
        }
    }

    fn begin(&mut self) -> Result<(), Error> {
        match self.phase {
            Phase::Resting => {}
            Phase::Step => self.discard()?,
            Phase::Spoiled => {}
        }
        if self.phase == Phase::Spoiled {
            return Err(Error::Refused {
                strategy: "a root without mounts",
                why: "a command that failed has left its files in it".into(),
            });
        }
        match &mut self.tracker {
            Some(tracker) => tracker
                .clock
                .start()
                .map_err(at("watch the clock for", &self.path))?,
            None => self.track()?,
        }
        self.phase = Phase::Step;
        Ok(())
    }

    fn commit(&mut self) -> Result<Changeset, Error> {
        if self.phase != Phase::Step {
            return Ok(Changeset::default());
        }
        let seen = self.look()?;
        self.phase = Phase::Resting;
        let mut changes = seen.changes(&self.root);
        self.borrowed.leave_out(&mut changes);
        Ok(Changeset {
            changes,
            state: State::Live,
        })
    }

    /// Nothing can be taken back here: the root is good for nothing any more, unless the step has
    /// changed nothing.
    fn discard(&mut self) -> Result<(), Error> {
        if self.phase == Phase::Step {
            let unchanged = self.look()?.is_empty();
            self.phase = match unchanged {
                true => Phase::Resting,
                false => Phase::Spoiled,
            };
        }
        Ok(())
    }

    fn apply(&mut self, changeset: &Changeset, cancel: &Cancel) -> Result<(), Error> {
        let mut placer =
            Placer::with(self.root.as_fd(), Deletions::Gaps).map_err(at("open", &self.path))?;
        let changes = make::without_kept(&changeset.changes, &self.guard);
        changeset::place(&changes, &mut placer, cancel, &|_| ())?;
        placer.finish().map_err(at("finish", &self.path))?;
        self.borrowed.take(&changes);
        self.look()?;
        Ok(())
    }

    fn fork(&self) -> Result<Box<dyn Rootfs>, Error> {
        if self.way == Way::Stay {
            return Err(Error::Refused {
                strategy: "a second root in place",
                why: "there is only one".into(),
            });
        }
        let dir = self.scratch.fork()?;
        let path = dir.join("root");
        std::fs::create_dir(&path).map_err(at("create", &path))?;
        let look = Look {
            root: &self.root,
            guard: &self.guard,
            index: &Index::default(),
            watch: None,
            since: Since::Ever,
        };
        let seen = look.everything().map_err(failed("look at"))?;
        // An empty directory has nothing that would be above something.
        let seen = seen.with_root(&self.root).map_err(failed("look at"))?;
        let fork = Live::open(dir, path, Way::Chroot, Guard::default())?;
        let cancel = Cancel::new().map_err(at("make a switch for", &self.path))?;
        make::copy(&fork.root, &seen.changes(&self.root), &cancel)?;
        Ok(Box::new(fork))
    }
}

fn with_mounts(guard: Guard) -> Result<Guard, Error> {
    let table = Path::new("/proc/self/mountinfo");
    let guard = guard.with_mounts().map_err(at("read", table))?;
    match guard.keeps_all() {
        true => Err(Error::Refused {
            strategy: "a build in place",
            why: "/ itself is to be kept, as the context or what else the build names: give it a \
                  directory of its own"
                .into(),
        }),
        false => Ok(guard),
    }
}

fn failed(action: &'static str) -> impl Fn(Failure) -> Error {
    move |(path, source)| {
        Error::Changeset(changeset::Error::Io {
            action,
            path,
            source,
        })
    }
}
