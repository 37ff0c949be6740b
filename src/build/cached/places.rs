//! The places of a build's cache: asked, read from, written to.

use super::super::BoxError;
use super::super::wait::lock;
use crate::cache::{
    self, Access, EMPTY, Entry, Key, Kind, Known, Near, Switch, Table, Tables, look_up,
};
use crate::fs::Toc;
use crate::net::chain;
use crate::oci::{Descriptor, Digest, Reference};
use crate::progress::{Level, Sink};
use crate::request::Caching as Wanted;
use crate::store::Store;
use crate::sys::Cancel;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How many keys are asked for at the same time.
const ASKED_AT_ONCE: usize = 16;
/// The media type of a table of contents.
const TOC: &str = "application/vnd.shutter.toc.v1+zstd";
/// The most bytes a table may have, compressed and not: 64 and 512 MiB, for millions of files.
const MAX_TOC: (u64, u64) = (64 << 20, 512 << 20);

/// The cache of one build, for all attempts at it.
pub(in crate::build) struct Caching {
    pub(in crate::build) wanted: Wanted,
    pub(in crate::build) far: Vec<Known>,
    pub(in crate::build) now: i64,
    pub(in crate::build) sink: Sink,
    pub(in crate::build) cancel: Cancel,
    /// Whether something that this attempt built on turned out to be of no use.
    is_broken: AtomicBool,
    /// What turned out to be of no use, and where: the store where there is no place.
    refused: Mutex<BTreeSet<(Key, Option<usize>)>>,
}

/// An entry that was found.
#[derive(Clone)]
pub(in crate::build) struct Hit {
    /// What was asked for.
    pub(in crate::build) key: Key,
    pub(in crate::build) entry: Entry,
    /// Which far place has it; the store where there is none.
    pub(in crate::build) place: Option<usize>,
}

/// Which far places are asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    All,
    /// Those that had something, or have not been asked yet.
    Useful,
}

impl Again {
    fn asks(self, place: &Known) -> bool {
        self == Again::All || place.may_have()
    }
}

impl Hit {
    fn near(key: Key, entry: Entry) -> Hit {
        let place = None;
        Hit { key, entry, place }
    }
}

/// What was found, by key.
pub(in crate::build) type Hits = BTreeMap<Key, Hit>;

impl Caching {
    pub(in crate::build) fn new(
        wanted: &Wanted,
        far: Vec<Known>,
        sink: &Sink,
        cancel: &Cancel,
    ) -> Caching {
        Caching {
            wanted: wanted.clone(),
            far,
            now: jiff::Timestamp::now().as_second(),
            sink: sink.clone(),
            cancel: cancel.clone(),
            is_broken: AtomicBool::new(false),
            refused: Mutex::default(),
        }
    }

    fn near<'a>(&self, store: &'a Store) -> Near<'a> {
        Near {
            store,
            ttl: self.wanted.ttl.as_secs(),
            now: self.now,
        }
    }

    /// Tells whether something that was built on since the last question is of no use.
    pub(in crate::build) fn was_broken(&self) -> bool {
        self.is_broken.swap(false, Ordering::Relaxed)
    }

    /// Takes a hit that has been built on for none from now on, and its place for one to be left alone.
    pub(in crate::build) fn break_off(&self, store: &Store, hit: &Hit, why: &str) {
        self.is_broken.store(true, Ordering::Relaxed);
        self.refuse(store, hit, why);
        // What one layer has happened to may have happened to others; none of them is worth an attempt.
        if let Some(place) = hit.place.and_then(|at| self.far.get(at)) {
            place.leave();
        }
    }

    /// Takes a hit for none from now on, and says so: unless it is for its place, of which it has been said
    /// that the build goes on without it. Another place may have it whole.
    pub(in crate::build) fn refuse(&self, store: &Store, hit: &Hit, why: &str) {
        if !lock(&self.refused).insert((hit.key, hit.place)) {
            return;
        }
        // One that cannot be removed is refused again by the next build.
        let _ = self.near(store).remove(&hit.key);
        if hit
            .place
            .and_then(|at| self.far.get(at))
            .is_some_and(|place| !place.is_open(Access::Read))
        {
            return;
        }
        let text = format!(
            "the cache entry of `{}` cannot be used: {why}: it is taken from elsewhere or made again",
            hit.entry.step
        );
        self.sink.message(Level::Warn, text);
    }

    /// Tells of trouble with a place, the first time, and does without it after that.
    pub(super) fn trouble(&self, place: &Known, access: Access, doing: &str, error: &cache::Error) {
        if self.cancel.is_set() || matches!(error, cache::Error::Cancelled) {
            return;
        }
        if let cache::Error::Poisoned { .. } = error {
            self.sink.message(Level::Warn, format!("cache: {error}"));
        } else if place.close(access) {
            tell_off(&self.sink, &place.place.name(), doing, error);
        }
    }

    /// Tells of trouble with a question to a place, the first time, and asks it nothing after that. One
    /// that may not be read is taken for empty: what is made is written there still.
    pub(super) fn unanswered(&self, place: &Known, doing: &str, error: &cache::Error) {
        if !error.is_refusal() || self.cancel.is_set() {
            return self.trouble(place, Access::Read, doing, error);
        }
        if place.leave() {
            // Whether that is as it should be is seen when it is written to.
            let level = match place.is_open(Access::Write) {
                true => Level::Info,
                false => Level::Warn,
            };
            let (name, why) = (place.place.name(), chain(error));
            let text = format!("the cache {name} is taken for empty: {doing}: {why}");
            self.sink.message(level, text);
        }
    }

    /// Opens a blob of a place. Trouble with it, now or while it is read, is trouble with the place, but
    /// for a blob that is lost or wrong.
    pub(in crate::build) fn open(
        &self,
        place: &Known,
        blob: &Descriptor,
    ) -> Result<Box<dyn Read + Send>, cache::Error> {
        if !place.is_open(Access::Read) {
            return Err(cache::Error::Poisoned {
                what: blob.digest.to_string(),
                why: "the build goes on without the cache that has it".into(),
            });
        }
        match place.place.open(blob) {
            Ok(reader) => Ok(Box::new(Watched {
                reader,
                switch: place.switch(),
                sink: self.sink.clone(),
                cancel: self.cancel.clone(),
                name: place.place.name(),
                came: 0,
                waited: Duration::ZERO,
            })),
            Err(error) => {
                if !error.is_of_one() {
                    self.trouble(place, Access::Read, "read a blob", &error);
                }
                Err(error)
            }
        }
    }

    /// Looks keys up, near ones first, all at once.
    pub(in crate::build) fn probe(&self, store: &Store, keys: &[Key]) -> Hits {
        self.look(store, keys, Again::All)
    }

    fn look(&self, store: &Store, keys: &[Key], again: Again) -> Hits {
        let mut hits = Hits::new();
        let near = self.near(store);
        let mut left: Vec<Key> = Vec::new();
        let refused = lock(&self.refused).clone();
        for key in keys {
            match near.get(key) {
                Ok(Some(entry))
                    if !refused.contains(&(*key, None)) && near.has(&entry).unwrap_or(false) =>
                {
                    hits.insert(*key, Hit::near(*key, entry));
                }
                _ => left.push(*key),
            }
        }
        for (at, place) in self.far.iter().enumerate() {
            if left.is_empty() {
                break;
            }
            if !again.asks(place) {
                continue;
            }
            let asked = left
                .iter()
                .filter(|key| !refused.contains(&(**key, Some(at))));
            let asked: Vec<Key> = asked.copied().collect();
            if asked.is_empty() {
                continue;
            }
            let found = self.ask(place, &asked);
            place.answered(!found.is_empty());
            left.retain(|key| !found.contains_key(key));
            for (key, entry) in found {
                let place = Some(at);
                hits.insert(key, Hit { key, entry, place });
            }
        }
        hits
    }

    /// Looks keys up that were not known before. A far place that has been asked and had nothing of all
    /// this build's steps has nothing of these.
    pub(in crate::build) fn probe_again(&self, store: &Store, keys: &[Key]) -> Hits {
        self.look(store, keys, Again::Useful)
    }

    /// Looks one step's keys up in the store alone.
    pub(in crate::build) fn probe_near(&self, store: &Store, keys: &[Key]) -> Option<Hit> {
        let near = self.near(store);
        let refused = lock(&self.refused).clone();
        keys.iter()
            .filter(|key| !refused.contains(&(**key, None)))
            .find_map(|key| {
                let entry = near.get(key).ok().flatten()?;
                let whole = near.has(&entry).unwrap_or(false);
                whole.then_some(Hit::near(*key, entry))
            })
    }

    fn ask(&self, place: &Known, keys: &[Key]) -> BTreeMap<Key, Entry> {
        let found: Mutex<BTreeMap<Key, Entry>> = Mutex::default();
        let next = AtomicUsize::new(0);
        let ttl = self.wanted.ttl.as_secs();
        std::thread::scope(|scope| {
            for _ in 0..keys.len().min(ASKED_AT_ONCE) {
                scope.spawn(|| {
                    while let Some(key) = keys.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if !place.is_open(Access::Read) || self.cancel.is_set() {
                            return;
                        }
                        let read = |named: &cache::Named| Entry::read(named, key);
                        match look_up(&*place.place, Kind::Step, key, &read) {
                            Ok(Some(entry)) if !entry.is_stale(self.now, ttl) => {
                                lock(&found).insert(*key, entry);
                            }
                            Ok(_) => {}
                            Err(error) => self.unanswered(place, "look a step up", &error),
                        }
                    }
                });
            }
        });
        found.into_inner().unwrap_or_default()
    }

    /// Keeps an entry of this build's own in the store.
    pub(in crate::build) fn keep(&self, store: &Store, entry: &Entry) {
        // A store that takes no entry costs a rebuild some time.
        let _ = self.near(store).put(entry);
    }

    /// Keeps what was found far in the store, for what it was found by and nothing else.
    pub(in crate::build) fn keep_found(&self, store: &Store, hit: &Hit) {
        if hit.place.is_some() {
            let keys = vec![hit.key];
            let entry = Entry {
                keys,
                ..hit.entry.clone()
            };
            self.keep(store, &entry);
        }
    }

    /// Gives the table of a layer; says why where it cannot be had.
    pub(in crate::build) fn toc(&self, store: &Store, hit: &Hit) -> Result<Toc, BoxError> {
        let layer = hit.entry.layer.as_ref().ok_or("it has no layer")?;
        if let Ok(Some(toc)) = store.toc(&layer.diff_id) {
            return Ok(toc);
        }
        let place = hit.place.and_then(|at| self.far.get(at));
        let place = place.ok_or("the store has lost its table of contents")?;
        self.fetch_toc(place, store, &layer.toc)
    }

    /// Gives a table that a far place has. It is kept near as the blob that it is, and never as a layer's
    /// own: that is the one made of the layer itself.
    fn fetch_toc(&self, place: &Known, store: &Store, toc: &Descriptor) -> Result<Toc, BoxError> {
        self.read_toc(place, store, toc).map_err(|error| {
            let digest = &toc.digest;
            format!("table of contents {digest}: {}", chain(&*error)).into()
        })
    }

    /// Says that something of a place cannot be used, unless that has been said of all of it.
    fn say_lost(&self, place: &Known, error: &dyn std::error::Error) {
        if !self.cancel.is_set() && place.is_open(Access::Read) {
            let text = format!("cache {}: {}", place.place.name(), chain(error));
            self.sink.message(Level::Warn, text);
        }
    }

    fn read_toc(&self, place: &Known, store: &Store, toc: &Descriptor) -> Result<Toc, BoxError> {
        if toc.size > MAX_TOC.0 {
            return Err("it is too large".into());
        }
        let found = || store.blob(&toc.digest, toc.size);
        let file = match found()? {
            Some(file) => file,
            None => {
                let open = |blob: &Descriptor| self.open(place, blob).map_err(io::Error::other);
                fetch(store, toc, &open)?;
                found()?.ok_or("it has not the size that it should have")?
            }
        };
        let mut table = Vec::new();
        zstd::Decoder::new(std::fs::File::open(file)?)?
            .take(MAX_TOC.1)
            .read_to_end(&mut table)?;
        Ok(Toc::parse(table)?)
    }

    /// Gives the tables of an image's layers, bottom first, where the store or a place has them all.
    pub(in crate::build) fn tables(
        &self,
        store: &Store,
        layers: &[(Digest, Digest)],
    ) -> Option<Vec<Toc>> {
        let here = |(chain_id, diff_id): &(Digest, Digest)| {
            let found = [chain_id, diff_id].map(|id| store.toc(id).ok().flatten());
            found.into_iter().flatten().next()
        };
        if let Some(all) = layers.iter().map(here).collect::<Option<Vec<Toc>>>() {
            return Some(all);
        }
        let key = tables_key(layers);
        for place in &self.far {
            if !place.is_open(Access::Read) {
                continue;
            }
            let tables = match look_up(&*place.place, Kind::Tables, &key, &cache::read_tables) {
                Ok(Some(tables)) => tables,
                Ok(None) => continue,
                Err(error) => {
                    let doing = "look up an image's tables of contents";
                    self.unanswered(place, doing, &error);
                    continue;
                }
            };
            let fits = tables.len() == layers.len()
                && tables
                    .iter()
                    .zip(layers)
                    .all(|(table, (chain_id, _))| table.chain_id == *chain_id);
            if !fits {
                continue;
            }
            let fetched: Option<Vec<Toc>> = std::thread::scope(|scope| {
                let threads: Vec<_> = tables
                    .iter()
                    .map(|Table { chain_id: _, toc }| {
                        scope.spawn(move || self.fetch_toc(place, store, toc))
                    })
                    .collect();
                let mut out = Some(Vec::new());
                for thread in threads {
                    match (thread.join(), &mut out) {
                        (Ok(Ok(toc)), Some(out)) => out.push(toc),
                        (Ok(Err(error)), Some(_)) => {
                            self.say_lost(place, &*error);
                            out = None;
                        }
                        (Err(_), _) => out = None,
                        (Ok(_), None) => {}
                    }
                }
                out
            });
            if fetched.is_some() {
                return fetched;
            }
        }
        None
    }

    /// Writes an entry to the far places, for as long as that works.
    pub(in crate::build) fn write(
        &self,
        store: &Store,
        entry: &Entry,
        from: Option<&Reference>,
        span: &crate::progress::Span,
    ) {
        for place in &self.far {
            if place.is_open(Access::Write)
                && let Err(error) = place.place.put(
                    &entry.keys,
                    &entry.named(),
                    &|blob| file(store, blob),
                    from,
                    span,
                )
            {
                self.trouble(place, Access::Write, "write a step", &error);
            }
        }
    }

    /// Writes the tables of an image's layers to the far places.
    pub(in crate::build) fn write_tables(
        &self,
        store: &Store,
        layers: &[(Digest, Digest)],
        tables: &[Toc],
        span: &crate::progress::Span,
    ) -> Result<(), BoxError> {
        let writes = |place: &&Known| place.is_open(Access::Write);
        if !self.far.iter().any(|place| writes(&place)) {
            return Ok(());
        }
        let key = tables_key(layers);
        let mut out = Tables::new();
        for ((chain_id, _), toc) in layers.iter().zip(tables) {
            out.push(Table {
                chain_id: *chain_id,
                toc: put_toc(store, toc)?,
            });
        }
        for place in self.far.iter().filter(writes) {
            match look_up(&*place.place, Kind::Tables, &key, &cache::read_tables) {
                Ok(Some(_)) => continue,
                Ok(None) | Err(cache::Error::Poisoned { .. }) => {}
                Err(error) if error.is_refusal() => {}
                Err(error) => {
                    let doing = "look up an image's tables of contents";
                    self.trouble(place, Access::Write, doing, &error);
                    continue;
                }
            }
            let put = place.place.put(
                &[key],
                &cache::tables_named(&out),
                &|blob| file(store, blob),
                None,
                span,
            );
            if let Err(error) = put {
                let doing = "write an image's tables of contents";
                self.trouble(place, Access::Write, doing, &error);
            }
        }
        Ok(())
    }
}

/// Gives the key that the tables of an image's layers stand under.
fn tables_key(layers: &[(Digest, Digest)]) -> Key {
    let mut recipe = cache::Recipe::of("tables");
    if let Some((chain_id, _)) = layers.last() {
        recipe.add("chain ID", chain_id.0);
    }
    recipe.key()
}

/// Gives a blob as a file of the store.
fn file(store: &Store, blob: &Descriptor) -> io::Result<std::path::PathBuf> {
    if blob.size == EMPTY.len() as u64 {
        // What stands where there is nothing.
        store.put(EMPTY).map_err(crate::store::Error::into_io)?;
    }
    let found = store.blob(&blob.digest, blob.size);
    let found = found.map_err(crate::store::Error::into_io)?;
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it is no longer in the store"))
}

/// Puts a table into the store as a blob.
pub(in crate::build) fn put_toc(store: &Store, toc: &Toc) -> Result<Descriptor, BoxError> {
    let bytes = zstd::bulk::compress(toc.as_bytes(), 3)?;
    let digest = store.put(&bytes)?;
    Ok(Descriptor {
        media_type: TOC.into(),
        digest,
        size: bytes.len() as u64,
        urls: Vec::new(),
        annotations: BTreeMap::new(),
    })
}

/// The slowest that a place may be: so many bytes a second, over all that is waited for them, which is
/// looked at after a while.
const PACE: (f64, Duration) = (65_536.0, Duration::from_secs(20));

/// A blob of a far place, while it comes.
struct Watched {
    reader: Box<dyn Read + Send>,
    switch: Switch,
    sink: Sink,
    cancel: Cancel,
    name: String,
    came: u64,
    waited: Duration,
}

impl Watched {
    fn next(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let start = Instant::now();
        let n = self.reader.read(buf)?;
        self.waited += start.elapsed();
        self.came += n as u64;
        let least = PACE.0 * self.waited.as_secs_f64();
        if n > 0 && self.waited > PACE.1 && (self.came as f64) < least {
            let text = format!("only {} bytes came in {:?}", self.came, self.waited);
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        Ok(n)
    }
}

impl Read for Watched {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.next(buf);
        if let Err(error) = &read
            && error.kind() != io::ErrorKind::Interrupted
            && !self.cancel.is_set()
            && self.switch.turn_off()
        {
            tell_off(&self.sink, &self.name, "read a blob", error);
        }
        read
    }
}

/// Says that a place is done without, and why.
fn tell_off(sink: &Sink, name: &str, doing: &str, error: &dyn std::error::Error) {
    let why = chain(error);
    let text = format!("the build goes on without the cache {name}: {doing}: {why}");
    sink.message(Level::Warn, text);
}

/// Fetches a blob into the store.
pub(in crate::build) fn fetch(
    store: &Store,
    blob: &Descriptor,
    open: &dyn Fn(&Descriptor) -> io::Result<Box<dyn Read + Send>>,
) -> Result<(), BoxError> {
    let mut reader = open(blob)?.take(blob.size.saturating_add(1));
    let mut ingest = store.ingest()?;
    io::copy(&mut reader, &mut ingest)?;
    ingest.commit(Some(&blob.digest))?;
    Ok(())
}
