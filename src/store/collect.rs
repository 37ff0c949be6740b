//! Taking away what a store keeps beyond what is wanted, beside running builds.

use super::gate::{self, Gate};
use super::remove::remove_tree;
use super::session::open_to_lock;
use super::slot::{is_at, open_lock};
use super::stock::{self, Item, Kind, is_gone, is_hex, names, rooms};
use super::{BLOBS, Error, LAYERS, LOCKS, REFS, Store};
use crate::fs::Time;
use crate::sys::Cancel;
use rayon::prelude::*;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// For how long whoever takes away keeps others from looking something up.
const ALONE: Duration = Duration::from_millis(5);

/// How much may stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes.
    pub size: Option<u64>,
    /// The longest time since something was wanted.
    pub age: Option<Duration>,
}

/// Whether something is done or only told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It is done.
    Take,
    /// It is only told what would be done.
    Tell,
}

/// What became of a store.
#[derive(Debug, Default)]
pub struct Collected {
    /// What went.
    pub taken: Vec<Item>,
    /// What should have gone and stays, since a running build may use it.
    pub used: Vec<Item>,
    /// What should have gone and could not.
    pub failed: Vec<Error>,
    /// The bytes that came free.
    pub freed: u64,
    /// The bytes of what is left.
    pub left: u64,
}

/// What came of one thing.
enum Fate {
    /// It is at this path now, and its name free.
    Gone(Option<PathBuf>),
    /// A running build may use it.
    Used,
}

impl Store {
    /// Takes away what is over the limits, what was wanted the longest time ago first. Nothing goes that
    /// a running build has made or looked up, here or wherever else the store is open; see the
    /// [module](super). Whatever kills this, the store is right.
    pub fn collect(
        &self,
        limits: &Limits,
        doing: Doing,
        cancel: &Cancel,
    ) -> Result<Collected, Error> {
        let stock = stock::stock(self.dir())?;
        let mut refs = self.refs_by_blob()?;
        let now = gate::now();
        let mut out = Collected {
            left: stock.bytes(),
            ..Collected::default()
        };
        let mut items = stock.items.into_iter().peekable();
        while items.peek().is_some() && !cancel.is_set() {
            let mut trash = Vec::new();
            let alone = self.alone()?;
            let oldest = self.oldest(&alone)?;
            let begun = Instant::now();
            while begun.elapsed() < ALONE
                && let Some(item) = items.next()
            {
                if !limits.exceeded_by(&item, now, out.left) {
                    continue;
                }
                match self.take(&item, oldest, doing, &mut refs, &alone) {
                    Ok(Fate::Gone(path)) => {
                        out.left = out.left.saturating_sub(item.bytes);
                        if path.is_some() || doing == Doing::Tell {
                            out.freed = out.freed.saturating_add(item.frees);
                            out.taken.push(item);
                        }
                        trash.extend(path);
                    }
                    Ok(Fate::Used) => out.used.push(item),
                    Err(e) => {
                        let path = self.dir().join(&item.place);
                        let error = self.session.fail("take out", &path, e);
                        out.failed.push(error);
                    }
                }
            }
            drop(alone);
            out.failed.extend(self.remove(trash));
        }
        if doing == Doing::Take && !cancel.is_set() {
            self.tidy()?;
        }
        match cancel.is_set() {
            true => Err(Error::Cancelled),
            false => Ok(out),
        }
    }

    pub(super) fn alone(&self) -> Result<Gate, Error> {
        let path = self.dir().join(gate::GATE);
        Gate::alone(self.dir()).map_err(|e| self.session.fail("lock", &path, e))
    }

    fn oldest(&self, alone: &Gate) -> Result<Time, Error> {
        let tmp = self.dir().join("tmp");
        let oldest = self.session.oldest(alone);
        oldest.map_err(|e| self.session.fail("list", &tmp, e))
    }

    /// Removes what has no name in the store any more.
    pub(super) fn remove(&self, trash: Vec<PathBuf>) -> Vec<Error> {
        let removed = trash.into_par_iter().filter_map(|path| {
            let is_dir = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
            let removed = match is_dir {
                true => remove_tree(&path),
                false => fs::remove_file(&path),
            };
            Some(self.session.fail("remove", &path, removed.err()?))
        });
        removed.collect()
    }

    fn take(
        &self,
        item: &Item,
        oldest: Time,
        doing: Doing,
        refs: &mut HashMap<String, Vec<PathBuf>>,
        _alone: &Gate,
    ) -> io::Result<Fate> {
        let path = self.dir().join(&item.place);
        if item.kind == Kind::Cache {
            return self.take_cache(&path, doing);
        }
        // Opened before it is looked at: a file system over a network is sure of the time only then.
        let file = match open_to_lock(&path) {
            Err(e) if is_gone(&e) => return Ok(Fate::Gone(None)),
            other => other?,
        };
        let used = match item.kind {
            Kind::Layer => match open_to_lock(&self.dir().join(LOCKS).join(&item.name)) {
                Ok(lock) => gate::modified(&lock.metadata()?),
                Err(e) if is_gone(&e) => Time::default(),
                Err(e) => return Err(e),
            },
            _ => gate::modified(&file.metadata()?),
        };
        if used >= oldest || file.try_lock().is_err() {
            return Ok(Fate::Used);
        }
        if doing == Doing::Tell {
            return Ok(Fate::Gone(None));
        }
        if item.kind == Kind::Blob {
            // First what names it.
            for note in refs.remove(&item.name).into_iter().flatten() {
                gone(fs::remove_file(note))?;
            }
        }
        let to = self.session.name();
        match fs::rename(&path, &to) {
            Err(e) if is_gone(&e) => Ok(Fate::Gone(None)),
            other => other.map(|()| Fate::Gone(Some(to))),
        }
    }

    /// Takes a copy of a cache that nobody has locked; with the last one goes the cache.
    fn take_cache(&self, copy: &Path, doing: Doing) -> io::Result<Fate> {
        let Some(room) = copy.parent() else {
            return Ok(Fate::Gone(None));
        };
        // The choice first, as who uses a cache does.
        let mut locks = Vec::new();
        for lock in [room.join("lock"), copy.join("lock")] {
            let file = match open_lock(&lock) {
                Err(e) if is_gone(&e) => return Ok(Fate::Gone(None)),
                other => other?,
            };
            if file.try_lock().is_err() || !is_at(&file, &lock) {
                return Ok(Fate::Used);
            }
            locks.push(file);
        }
        if doing == Doing::Tell {
            return Ok(Fate::Gone(None));
        }
        let to = self.session.name();
        match fs::rename(copy, &to) {
            Err(e) if is_gone(&e) => return Ok(Fate::Gone(None)),
            other => other?,
        }
        if super::caches::copies(room).is_ok_and(|copies| copies.is_empty()) {
            // Who waits for the lock finds that its file is gone, and makes the cache anew.
            gone(fs::rename(room, to.join("cache")))?;
        }
        Ok(Fate::Gone(Some(to)))
    }

    /// Gives the notes that name each blob.
    fn refs_by_blob(&self) -> Result<HashMap<String, Vec<PathBuf>>, Error> {
        let mut out: HashMap<String, Vec<PathBuf>> = HashMap::new();
        for diff_id in names(self.dir(), Path::new(REFS))? {
            let room = Path::new(REFS).join(diff_id);
            for blob in names(self.dir(), &room)? {
                let path = self.dir().join(&room).join(&blob);
                out.entry(blob).or_default().push(path);
            }
        }
        Ok(out)
    }

    /// Takes away what says nothing any more: notes of blobs that are gone, and locks of what is not
    /// there.
    pub(super) fn tidy(&self) -> Result<(), Error> {
        let diff_ids = names(self.dir(), Path::new(REFS))?;
        self.in_turns(diff_ids, |diff_id, _| {
            let room = self.dir().join(REFS).join(&diff_id);
            for blob in names(self.dir(), &room)? {
                if !self.dir().join(BLOBS).join(&blob).exists() {
                    let note = room.join(&blob);
                    gone(fs::remove_file(&note))
                        .map_err(|e| self.session.fail("remove", &note, e))?;
                }
            }
            // Fails where there are others.
            let _ = fs::remove_dir(&room);
            Ok(())
        })?;
        let layers = rooms(self.dir(), LAYERS)?;
        let locks = names(self.dir(), Path::new(LOCKS))?;
        self.in_turns(locks, |name, oldest| {
            let path = self.dir().join(LOCKS).join(&name);
            let mut places = layers.iter().map(|room| self.dir().join(room).join(&name));
            if !is_hex(&name) || places.any(|place| place.exists()) {
                return Ok(());
            }
            if let Ok(file) = open_to_lock(&path)
                && file
                    .metadata()
                    .is_ok_and(|meta| gate::modified(&meta) < oldest)
                && file.try_lock().is_ok()
            {
                let _ = fs::remove_file(&path);
            }
            Ok(())
        })
    }

    /// Does something for each name alone in the gate, and lets others pass every now and then.
    fn in_turns(
        &self,
        names: Vec<String>,
        mut each: impl FnMut(String, Time) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut names = names.into_iter().peekable();
        while names.peek().is_some() {
            let alone = self.alone()?;
            let oldest = self.oldest(&alone)?;
            let begun = Instant::now();
            while begun.elapsed() < ALONE
                && let Some(name) = names.next()
            {
                each(name, oldest)?;
            }
        }
        Ok(())
    }
}

impl Limits {
    /// Tells whether something is too much in a store of so many bytes.
    fn exceeded_by(&self, item: &Item, now: Time, bytes: u64) -> bool {
        let since = |time: Time| {
            let secs = u64::try_from(time.secs).unwrap_or(0);
            Duration::new(secs, time.nanos)
        };
        let age = since(now).saturating_sub(since(item.used));
        self.age.is_some_and(|most| age >= most) || self.size.is_some_and(|most| bytes > most)
    }
}

/// Takes what is gone already for removed.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if is_gone(&e) => Ok(()),
        other => other,
    }
}
