//! Caches of commands in far places: restored before a command runs, saved after the build.

use super::super::wait::lock;
use super::super::{BoxError, Error};
use super::places::Caching;
use super::seen::Seen;
use crate::cache::mount::{self, Saved};
use crate::cache::{self, Access, Key};
use crate::net::chain;
use crate::oci::Descriptor;
use crate::progress::{Level, Owner, StepId, Work};
use crate::store::{Bytes, CacheSharing, Store};
use crate::sys::Cancel;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A cache that a command of this build had.
#[derive(Clone)]
pub(in crate::build) struct Used {
    /// Its directory in the store.
    pub(in crate::build) dir: PathBuf,
    pub(in crate::build) sharing: CacheSharing,
    /// Where the command had it.
    pub(in crate::build) target: String,
}

/// The caches that commands of this build had, by what they stand under in places.
#[derive(Default)]
pub(in crate::build) struct AllUsed(Mutex<BTreeMap<Key, Used>>);

impl AllUsed {
    /// Notes one. Of several copies the first one is saved; how it is shared the strictest use says.
    pub(in crate::build) fn note(&self, key: Key, used: Used) {
        let mut all = lock(&self.0);
        let known = all.entry(key).or_insert_with(|| used.clone());
        known.sharing = known.sharing.max(used.sharing);
    }

    /// Gives all of them, once.
    pub(in crate::build) fn take(&self) -> BTreeMap<Key, Used> {
        std::mem::take(&mut *lock(&self.0))
    }
}

impl Caching {
    /// Restores a cache into an empty directory from the nearest place that has it; tells whether it
    /// did. What failed leaves nothing there.
    pub(in crate::build) fn restore(
        &self,
        key: &Key,
        target: &str,
        dir: &Path,
        step: StepId,
        cancel: &Cancel,
    ) -> Result<bool, BoxError> {
        for place in self.far.iter().filter(|place| place.is_open(Access::Read)) {
            let name = place.place.name();
            let saved = match Saved::find(&*place.place, key) {
                Ok(Some(saved)) if saved.age(self.now) < self.wanted.ttl.as_secs() => saved,
                Ok(_) => continue,
                Err(error) => {
                    self.unanswered(place, "look up a cache of a command", &error);
                    continue;
                }
            };
            let span = self
                .sink
                .span(Owner::Step(step), Work::Fetch, "cache", None);
            match mount::restore(&|blob| self.open(place, blob), &saved, dir, cancel) {
                Ok(restored) => {
                    span.advance(restored.bytes);
                    let text = format!(
                        "restored the cache {target} from {name}: {} files, {}",
                        restored.files,
                        Bytes(restored.bytes)
                    );
                    self.sink.message(Level::Info, text);
                    if !restored.lost.is_empty() {
                        let text = format!(
                            "the cache {target} is without {}, which the store's file system refused",
                            restored.lost.join(", ")
                        );
                        self.sink.message(Level::Warn, text);
                    }
                    return Ok(true);
                }
                Err(_) if cancel.is_set() => return Err(Error::Cancelled.into()),
                Err(error) => {
                    span.fail();
                    // Of a place that is done without it has been said why.
                    if place.is_open(Access::Read) {
                        let why = chain(&error);
                        let text = format!(
                            "the cache {target} could not be restored from {name} and begins without: {why}"
                        );
                        self.sink.message(Level::Warn, text);
                    }
                    crate::store::remove_tree(dir)?;
                    make_dir(dir)?;
                }
            }
        }
        Ok(false)
    }

    /// Saves a cache to the places that are written to, as far as they do not have it.
    pub(super) fn save(&self, store: &Store, key: &Key, used: &Used) {
        if let Err(error) = self.try_save(store, key, used)
            && !self.cancel.is_set()
        {
            let Used { target, .. } = used;
            let text = format!("the cache {target} is not saved: {}", chain(&*error));
            self.sink.message(Level::Warn, text);
        }
    }

    fn try_save(&self, store: &Store, key: &Key, used: &Used) -> Result<(), BoxError> {
        let Used {
            dir,
            sharing,
            target,
        } = used;
        let cancel = &self.cancel;
        let is_in_use = |why: &str| {
            let text = format!("the cache {target} is left to another build to save: {why}");
            self.sink.message(Level::Info, text);
        };
        let Some(held) = store.cache_again(dir, *sharing)? else {
            is_in_use("it is in use there");
            return Ok(());
        };
        let seen = Seen::of(store, dir);
        let look = match mount::look(dir, &|source| seen.identify(source), cancel) {
            Err(mount::Error::Changed(path)) => {
                is_in_use(&format!("{path} was changed there meanwhile"));
                return Ok(());
            }
            look => look?,
        };
        seen.keep(store);
        let table = look.table()?;
        let table = crate::oci::Digest::of(&table);
        let mut held = Some(held);
        for place in &self.far {
            if !place.is_open(Access::Write) {
                continue;
            }
            let before = match Saved::find(&*place.place, key) {
                Ok(before) => before,
                Err(cache::Error::Poisoned { .. }) => None,
                Err(error) if error.is_refusal() => None,
                Err(error) => {
                    self.trouble(place, Access::Write, "look up a cache of a command", &error);
                    continue;
                }
            };
            // One that would soon be too old is written again, with what is there.
            let stays = |saved: &Saved| {
                saved.toc.digest == table && saved.age(self.now) < self.wanted.ttl.as_secs() / 2
            };
            if before.as_ref().is_some_and(stays) {
                continue;
            }
            // Without an index its packs are of no use.
            let index = before
                .as_ref()
                .and_then(|saved| saved.fetch_index(&|blob| self.open(place, blob)).ok());
            if !place.is_open(Access::Write) {
                continue;
            }
            let mut known = before.as_ref().zip(index.as_ref());
            loop {
                let scratch = store.scratch()?;
                let packed = mount::pack(&look, known, &scratch.dir, self.now, cancel);
                let packed = packed.and_then(|packed| look.is_unchanged().map(|()| packed));
                let packed = match packed {
                    Err(mount::Error::Changed(path)) => {
                        is_in_use(&format!("{path} was changed there meanwhile"));
                        return Ok(());
                    }
                    packed => packed?,
                };
                if self
                    .far
                    .iter()
                    .filter(|place| place.is_open(Access::Write))
                    .count()
                    == 1
                {
                    // What is sent lies apart by now.
                    drop(held.take());
                }
                let lost = Mutex::new(false);
                let file = |blob: &Descriptor| match packed.files.get(&blob.digest) {
                    Some(path) => Ok(path.clone()),
                    None => {
                        *lock(&lost) = true;
                        Err(io::Error::new(io::ErrorKind::NotFound, "it is gone there"))
                    }
                };
                let span = self
                    .sink
                    .span_later(Owner::Build, Work::Push, "cache", None);
                let named = packed.saved.named();
                let put = place.place.put(&[*key], &named, &file, None, &span);
                match put {
                    Ok(()) => {
                        let sent = packed.saved.named().blobs;
                        let sent = sent
                            .iter()
                            .filter(|blob| packed.files.contains_key(&blob.digest));
                        let text = format!(
                            "saved the cache {target} to {}: {} of {}",
                            place.place.name(),
                            Bytes(sent.map(|blob| blob.size).sum()),
                            Bytes(packed.content)
                        );
                        self.sink.message(Level::Info, text);
                    }
                    // It has lost a pack that it had: all is sent.
                    Err(_) if known.is_some() && *lock(&lost) => {
                        known = None;
                        continue;
                    }
                    Err(error) => {
                        self.trouble(place, Access::Write, "save a cache of a command", &error);
                    }
                }
                break;
            }
        }
        Ok(())
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o700).create(path)
}
