//! Looking at directories: what is otherwise than it was when they were last looked at.

use super::clock::Since;
use super::guard::Guard;
use super::watch::Watch;
use crate::changeset::{Action, Change};
use crate::fs::{self, FileId, Firsts, Kind, RelPath, Source, Stat};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One directory as it was when it was last looked at.
#[derive(Clone, Debug)]
struct Known {
    id: FileId,
    /// What was in it, in order.
    names: Vec<Box<[u8]>>,
}

/// The directories of a root.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    dirs: BTreeMap<RelPath, Known>,
}

impl Index {
    /// Gives the paths of all directories.
    pub(super) fn all(&self) -> BTreeSet<RelPath> {
        self.dirs.keys().cloned().collect()
    }

    /// Takes in what was seen.
    pub(super) fn learn(&mut self, seen: &mut Seen) {
        for top in &seen.gone {
            let below: Vec<RelPath> = self
                .dirs
                .range(top.clone()..)
                .map(|(dir, _)| dir)
                .take_while(|dir| dir.is_within(top))
                .cloned()
                .collect();
            for dir in below {
                self.dirs.remove(&dir);
            }
        }
        self.dirs.append(&mut seen.dirs);
    }
}

/// What a look at directories has shown.
#[derive(Debug, Default)]
pub(super) struct Seen {
    found: BTreeMap<RelPath, What>,
    dirs: BTreeMap<RelPath, Known>,
    /// What no longer is the directory that it was, or no directory any more.
    gone: Vec<RelPath>,
}

#[derive(Debug)]
enum What {
    Put(Stat),
    /// Another directory than the one that was there.
    Opaque(Stat),
    Delete,
}

/// How a root is looked at.
pub(super) struct Look<'a> {
    pub(super) root: &'a Arc<OwnedFd>,
    pub(super) guard: &'a Guard,
    pub(super) index: &'a Index,
    pub(super) watch: Option<&'a Watch>,
    pub(super) since: Since,
}

/// What went wrong, and where.
pub(super) type Failure = (RelPath, io::Error);

impl Look<'_> {
    /// Looks at some directories that were there, and at all that is new in them.
    ///
    /// What may have changed is given, never too little: entries that are new or were touched since
    /// the step began, all of a directory that is another one than before, and what is gone. Nothing
    /// but metadata is read. Directories are watched from here on.
    pub(super) fn at(&self, dirs: &BTreeSet<RelPath>) -> Result<Seen, Failure> {
        self.all_of(dirs.iter().cloned(), Which::Known)
    }

    /// Looks at the names of everything, and begins to watch it.
    pub(super) fn names(&self) -> Result<Seen, Failure> {
        self.all_of(std::iter::once(RelPath::root()), Which::Unread)
    }

    /// Looks at everything.
    pub(super) fn everything(&self) -> Result<Seen, Failure> {
        self.all_of(std::iter::once(RelPath::root()), Which::New)
    }

    fn all_of(
        &self,
        dirs: impl Iterator<Item = RelPath> + Send,
        which: Which,
    ) -> Result<Seen, Failure> {
        let state = State {
            look: self,
            mount: self.mount()?,
            seen: Mutex::default(),
            failed: AtomicBool::new(false),
            error: Mutex::default(),
        };
        rayon::scope(|scope| {
            for dir in dirs {
                let state = &state;
                scope.spawn(move |scope| state.directory(scope, dir, which));
            }
        });
        state.end()
    }

    fn mount(&self) -> Result<u64, Failure> {
        let root = fs::glance_at(self.root.as_fd(), b"");
        Ok(root.map_err(|error| (RelPath::root(), error))?.mount)
    }
}

/// What is known of a directory that is to be looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// It was there.
    Known,
    /// It, and so everything in it, is new at its place.
    New,
    /// Nothing is known yet, and nothing but names is wanted.
    Unread,
}

struct State<'a> {
    look: &'a Look<'a>,
    /// What the root is mounted by.
    mount: u64,
    seen: Mutex<Seen>,
    failed: AtomicBool,
    error: Mutex<Option<Failure>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State<'_> {
    fn end(self) -> Result<Seen, Failure> {
        let error = self
            .error
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        match error {
            Some(failure) => Err(failure),
            None => {
                let seen = self.seen.into_inner();
                let mut seen = seen.unwrap_or_else(PoisonError::into_inner);
                seen.add_parents(self.look.root)?;
                Ok(seen)
            }
        }
    }

    fn directory<'s>(&'s self, scope: &rayon::Scope<'s>, dir: RelPath, which: Which) {
        if self.failed.load(Ordering::Relaxed) {
            return;
        }
        match self.read(&dir, which) {
            Ok(new) => {
                let which = match which {
                    Which::Unread => Which::Unread,
                    Which::Known | Which::New => Which::New,
                };
                for path in new {
                    scope.spawn(move |scope| self.directory(scope, path, which));
                }
            }
            Err(failure) => {
                self.failed.store(true, Ordering::Relaxed);
                lock(&self.error).get_or_insert(failure);
            }
        }
    }

    /// Looks at one directory; gives those in it that are new.
    fn read(&self, dir: &RelPath, which: Which) -> Result<Vec<RelPath>, Failure> {
        use io::ErrorKind::{NotADirectory, NotFound};
        let look = self.look;
        let at = |path: &RelPath| {
            let path = path.clone();
            move |error: io::Error| (path, error)
        };
        let fd = match fs::open_dir(look.root.as_fd(), dir) {
            Ok(fd) => fd,
            // The directory it was in tells what became of it.
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => return Ok(Vec::new()),
            // A link on the way to where it was.
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(Vec::new()),
            Err(error) => return Err((dir.clone(), error)),
        };
        let own = fs::glance_at(fd.as_fd(), b"").map_err(at(dir))?;
        let known = match which {
            Which::Known => look.index.dirs.get(dir),
            Which::New | Which::Unread => None,
        };
        if which == Which::Known && known.is_none_or(|known| known.id != own.id) {
            // Another one, which the directory it is in tells.
            return Ok(Vec::new());
        }
        if let Some(watch) = look.watch {
            watch.add(fd.as_fd(), dir);
        }
        let mut names = fs::names(fd.as_fd()).map_err(at(dir))?;
        names.sort_unstable();
        let mut found = Vec::new();
        let mut gone = Vec::new();
        let mut new = Vec::new();
        let mut kept: Vec<Box<[u8]>> = Vec::with_capacity(names.len());
        if known.is_some()
            && look.since.covers(own.ctime)
            && let Some(stat) = fs::stat_at(fd.as_fd(), b"").map_err(at(dir))?
        {
            found.push((dir.clone(), What::Put(stat)));
        }
        for name in names {
            let path = dir.join(&name);
            if look.guard.keeps(&path) {
                continue;
            }
            let glance = match fs::glance_at(fd.as_fd(), &name) {
                Ok(glance) => glance,
                Err(error) if error.kind() == NotFound => continue,
                Err(error) => return Err((path, error)),
            };
            if glance.mount != self.mount || glance.kind.is_none() {
                continue;
            }
            let name = name.into_boxed_slice();
            let was_there = known.is_some_and(|known| known.names.binary_search(&name).is_ok());
            let before = match which {
                Which::Known => look.index.dirs.get(&path),
                Which::New | Which::Unread => None,
            };
            let touched = !was_there || look.since.covers(glance.ctime);
            let is_dir = glance.kind == Some(Kind::Dir);
            let replaced = was_there
                && match before {
                    Some(before) => !is_dir || before.id != glance.id,
                    None => is_dir,
                };
            if replaced {
                gone.push(path.clone());
            }
            if is_dir && (replaced || !was_there) {
                new.push(path.clone());
            }
            if (touched || replaced) && which != Which::Unread {
                match fs::stat_at(fd.as_fd(), &name).map_err(at(&path))? {
                    Some(stat) if is_dir && replaced => found.push((path, What::Opaque(stat))),
                    Some(stat) => found.push((path, What::Put(stat))),
                    None => {}
                }
            }
            kept.push(name);
        }
        if let Some(known) = known {
            for name in &known.names {
                let path = dir.join(name);
                if kept.binary_search(name).is_err() && !look.guard.keeps(&path) {
                    gone.push(path.clone());
                    found.push((path, What::Delete));
                }
            }
        }
        let mut seen = lock(&self.seen);
        for (path, what) in found {
            // Of two looks at a directory's metadata the one from above knows more.
            match (seen.found.get(&path), &what) {
                (Some(What::Opaque(_)), What::Put(_)) => {}
                _ => {
                    seen.found.insert(path, what);
                }
            }
        }
        seen.gone.append(&mut gone);
        let id = own.id;
        seen.dirs.insert(dir.clone(), Known { id, names: kept });
        Ok(new)
    }
}

impl Seen {
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Adds the root directory itself.
    pub(super) fn with_root(mut self, root: &Arc<OwnedFd>) -> Result<Seen, Failure> {
        let top = RelPath::root();
        match fs::stat_at(root.as_fd(), b"") {
            Ok(Some(stat)) => self.found.insert(top, What::Put(stat)),
            Ok(None) => None,
            Err(error) => return Err((top, error)),
        };
        Ok(self)
    }

    /// Adds the directories above what was found, as they are now: a layer names them too.
    fn add_parents(&mut self, root: &Arc<OwnedFd>) -> Result<(), Failure> {
        let mut above: BTreeSet<RelPath> = BTreeSet::new();
        for path in self.found.keys() {
            for dir in path.ancestors() {
                // Where one is in already, all above it are.
                if self.found.contains_key(&dir) || !above.insert(dir) {
                    break;
                }
            }
        }
        for dir in above {
            match fs::stat(root.as_fd(), &dir) {
                Ok(Some(stat)) => self.found.insert(dir, What::Put(stat)),
                Ok(None) => None,
                Err(error) => return Err((dir, error)),
            };
        }
        Ok(())
    }

    /// Tells whether a file was seen that has further names which were not.
    pub(super) fn has_unseen_names(&self) -> bool {
        let mut names: HashMap<FileId, u32> = HashMap::new();
        let linked = self.found.values().filter_map(What::linked);
        for stat in linked.clone() {
            *names.entry(stat.id).or_default() += 1;
        }
        let mut linked = linked;
        linked.any(|stat| names.get(&stat.id).is_none_or(|seen| *seen < stat.links))
    }

    /// Gives what was seen as changes, with the names of one file tied together: the first in order
    /// is the file.
    pub(super) fn changes(self, root: &Arc<OwnedFd>) -> Vec<Change> {
        let mut firsts = Firsts::default();
        let mut changes = Vec::with_capacity(self.found.len());
        for (path, what) in self.found {
            let action = match what {
                What::Delete => Action::Delete,
                What::Opaque(stat) => Action::Opaque(stat.meta),
                What::Put(stat) => {
                    let link = stat.shared().and_then(|file| firsts.tie(file, &path));
                    let has_content = stat.meta.kind == Kind::File && link.is_none();
                    let source = has_content.then(|| Source::Live {
                        dir: Arc::clone(root),
                        path: path.clone(),
                    });
                    Action::Put {
                        meta: stat.meta,
                        source,
                        link,
                    }
                }
            };
            changes.push(Change { path, action });
        }
        changes
    }
}

impl What {
    fn linked(&self) -> Option<&Stat> {
        match self {
            What::Put(stat) if stat.shared().is_some() => Some(stat),
            _ => None,
        }
    }
}
