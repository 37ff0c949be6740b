//! Writing to far places, beside the build.

use super::mounts::Used;
use super::places::{Caching, put_toc};
use crate::cache::{Access, Entry, Key, Layer, Part};
use crate::layer::Packed;
use crate::oci::{Digest, Reference};
use crate::progress::{Owner, StepId, Work};
use crate::store::Store;
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::sync::Arc;
use std::thread::Scope;

/// How many entries are written at the same time.
const AT_ONCE: usize = 4;

/// Something to be written.
pub(in crate::build) enum Job {
    /// What a step made.
    Step {
        step: StepId,
        entry: Box<Entry>,
        /// A repository that has the layer by now.
        from: Option<Reference>,
    },
    /// The tables of an image's layers: chain IDs and diff IDs, bottom first.
    Tables(Vec<(Digest, Digest)>),
    /// A cache that commands had.
    Mount(Key, Used),
}

/// Takes what is to be written; its threads end once it is dropped and all is written.
pub(in crate::build) struct Writer(Sender<Job>);

impl Writer {
    /// Starts the threads; none where nothing is written.
    pub(in crate::build) fn start<'scope, 'env: 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        caching: &'env Caching,
        store: &Arc<Store>,
    ) -> Option<Writer> {
        if !caching.far.iter().any(|place| place.is_open(Access::Write)) {
            return None;
        }
        let (sender, jobs) = unbounded();
        for _ in 0..AT_ONCE {
            let (jobs, store): (Receiver<Job>, _) = (jobs.clone(), Arc::clone(store));
            scope.spawn(move || {
                for job in jobs {
                    if !caching.cancel.is_set() {
                        write(caching, &store, job);
                    }
                }
            });
        }
        Some(Writer(sender))
    }

    pub(in crate::build) fn send(&self, job: Job) {
        // Only when the threads have gone, and they go last.
        let _ = self.0.send(job);
    }
}

fn write(caching: &Caching, store: &Store, job: Job) {
    match job {
        Job::Step { step, entry, from } => {
            let size = entry.layer.as_ref().map(|layer| layer.blob.size);
            let span = caching
                .sink
                .span_later(Owner::Step(step), Work::Push, "cache", size);
            caching.write(store, &entry, from.as_ref(), &span);
        }
        Job::Mount(key, used) => caching.save(store, &key, &used),
        // Who looks no step up wants none.
        Job::Tables(_) if !caching.wanted.copies && !caching.wanted.runs => {}
        Job::Tables(layers) => {
            let here = |(chain_id, diff_id): &(Digest, Digest)| {
                let found = [chain_id, diff_id].map(|id| store.toc(id).ok().flatten());
                found.into_iter().flatten().next()
            };
            let span = caching
                .sink
                .span_later(Owner::Build, Work::Push, "cache", None);
            if let Some(tables) = layers.iter().map(here).collect::<Option<Vec<_>>>() {
                // Without them the next build unpacks the image.
                let _ = caching.write_tables(store, &layers, &tables, &span);
            }
        }
    }
}

/// Makes the entry of a step; `None` where its table is lost.
pub(in crate::build) fn entry(
    store: &Store,
    now: i64,
    made: Made,
    packed: Option<&Packed>,
) -> Option<Entry> {
    let layer = match packed {
        None => None,
        Some(packed) => {
            let toc = store.toc(&packed.diff_id).ok()??;
            Some(Layer {
                blob: packed.descriptor.clone(),
                diff_id: packed.diff_id,
                raw: packed.raw,
                entries: packed.entries,
                toc: put_toc(store, &toc).ok()?,
            })
        }
    };
    let Made {
        keys,
        parts,
        below,
        text,
    } = made;
    Some(Entry {
        keys,
        created: now,
        step: text,
        parts,
        below,
        layer,
    })
}

/// What is known of a step before it has made anything.
pub(in crate::build) struct Made {
    /// What it is kept under.
    pub(in crate::build) keys: Vec<Key>,
    /// What the first of them is made of.
    pub(in crate::build) parts: Vec<Part>,
    /// What names the files below it, where they matter.
    pub(in crate::build) below: Option<Key>,
    /// The instruction.
    pub(in crate::build) text: String,
}
