//! Which directories something has happened in: inotify, one event a directory.

use crate::fs::RelPath;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where something has happened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Touched {
    /// In these directories and in no other that was watched.
    In(BTreeSet<RelPath>),
    /// It cannot be told.
    Anywhere,
}

/// Watches directories. A watch ends with the first event of its directory, so that a step costs at
/// most one event for each directory it touches, whatever it does there.
#[derive(Debug)]
pub(super) struct Watch {
    inotify: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    paths: HashMap<i32, RelPath>,
    /// Some directory is not watched that should be.
    blind: bool,
}

/// Everything that can change what is in a directory, a file in it, or the directory itself. A write
/// to a mapped file makes no event of its own, but the last descriptor's end does.
const EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);

impl Watch {
    /// Starts to watch nothing; an error where the kernel has no watches to give.
    pub(super) fn new() -> io::Result<Watch> {
        Ok(Watch {
            inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a directory, known by this path. Where the kernel has no more watches to give,
    /// `touched` says so from then on.
    pub(super) fn add(&self, dir: BorrowedFd<'_>, path: &RelPath) {
        let name = format!("/proc/self/fd/{}", dir.as_raw_fd());
        let flags = EVENTS | WatchFlags::ONESHOT | WatchFlags::ONLYDIR;
        match inotify::add_watch(&self.inotify, name, flags) {
            Ok(number) => {
                self.state().paths.insert(number, path.clone());
            }
            Err(_) => self.state().blind = true,
        }
    }

    /// Tells whether every directory that should be watched is.
    pub(super) fn sees_all(&self) -> bool {
        !self.state().blind
    }

    /// Gives where something has happened since a directory was last watched. What is told here is
    /// not watched any more.
    pub(super) fn touched(&self) -> Touched {
        let (mut touched, mut lost) = (BTreeSet::new(), false);
        let mut buffer = vec![MaybeUninit::uninit(); 64 << 10];
        let mut events = Reader::new(&self.inotify, &mut buffer);
        let mut state = self.state();
        loop {
            let (number, flags) = match events.next() {
                Ok(event) => (event.wd(), event.events()),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(_) => {
                    state.blind = true;
                    break;
                }
            };
            lost |= flags.contains(ReadFlags::QUEUE_OVERFLOW);
            // The watch is gone, and its number may be given again.
            let path = match flags.contains(ReadFlags::IGNORED) {
                true => state.paths.remove(&number),
                false => state.paths.get(&number).cloned(),
            };
            touched.extend(path);
        }
        match lost || state.blind {
            true => Touched::Anywhere,
            false => Touched::In(touched),
        }
    }
}
