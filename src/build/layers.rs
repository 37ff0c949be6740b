//! Layers in the making: packed beside the next step, uploaded as soon as they are whole.

use super::cached::{self, Held, Job, Made};
use super::wait::{Promise, Slot, lock};
use super::{Error, Shared};
use crate::cache::{Entry, Key};
use crate::changeset::{Changeset, State};
use crate::dockerfile::ast::Span;
use crate::layer::{PackOptions, Packed, pack_telling};
use crate::oci::{Descriptor, Digest, Reference};
use crate::progress::{Event, Owner, StepId, Work};
use crate::registry::Pushed;
use crate::store::{StepTurn, Store};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::Scope;

/// After a layer of more entries than this, memory is given back to the system.
const MANY: u64 = 10_000;

/// The instruction that a layer is of: where it is, and its text.
pub(super) type Instruction<'a> = (Span, &'a str);

/// A layer that somebody is making.
pub(super) type Pending = Arc<Slot<Arc<Packed>>>;

/// Starts to make a layer of a settled changeset, and to upload it once it is in the store. Of one
/// whose content is live all has been read when this returns.
pub(super) fn start<'scope, 'env: 'scope>(
    shared: &'scope Shared<'env>,
    scope: &'scope Scope<'scope, 'env>,
    step: StepId,
    of: Instruction<'scope>,
    changeset: Arc<Changeset>,
    in_image: bool,
    note: Option<Note<'scope>>,
) -> Pending {
    let slot: Pending = Arc::new(Slot::new());
    let pending = Arc::clone(&slot);
    let live = changeset.state == State::Live;
    // Told by a message, or by the end of whoever would send it.
    let (read, reading) = crossbeam_channel::bounded::<()>(1);
    scope.spawn(move || {
        let promise = Promise::new(&pending);
        let packed = {
            let _pass = shared.gates.packers.enter();
            // Only of what is live somebody waits for it.
            let read = || {
                let _ = read.try_send(());
            };
            shared
                .failure
                .check(make(shared, step, of, &changeset, &read))
        };
        drop(read);
        // What the layer was read from is no longer needed while it is uploaded.
        drop(changeset);
        let Some(packed) = packed else { return };
        if packed.entries > MANY {
            crate::sys::give_back_memory();
        }
        promise.done(Arc::clone(&packed));
        let job = note.and_then(|note| note.kept(shared, Some(&packed)));
        if in_image {
            let result = shared
                .store
                .blob(&packed.descriptor.digest, packed.descriptor.size)
                .map_err(|e| Error::other("push a layer", e))
                .and_then(|file| {
                    let file = file.ok_or_else(|| {
                        Error::other("push a layer", "it is no longer in the store")
                    })?;
                    let file = || Ok(file.clone());
                    upload(shared, Owner::Step(step), &packed.descriptor, &file, None)
                });
            shared.failure.check(result);
        }
        if let Some(entry) = job {
            let from = shared.repositories.first().filter(|_| in_image);
            write(shared, step, entry, from.cloned());
        }
    });
    if live {
        let _ = reading.recv();
    }
    slot
}

/// What is noted of a step that is carried out, for the cache.
pub(super) struct Note<'a> {
    pub(super) made: Made,
    /// What the step stands on; none where it stands on nothing.
    pub(super) below: Option<Below>,
    /// Tells whether the contexts still have what the step is said to have taken from them.
    pub(super) still: Box<dyn FnOnce() -> bool + Send + 'a>,
    /// The directory that the step wrote to, where it could be the layer's in the store.
    pub(super) dir: Option<PathBuf>,
    /// No other build makes the same meanwhile.
    pub(super) turn: Option<StepTurn>,
}

/// The layers that a step stands on; those above the base may be in the making.
pub(super) struct Below {
    pub(super) base: Vec<Digest>,
    pub(super) above: Vec<Pending>,
}

impl Below {
    /// Gives what names the files, once all layers are made; none where one could not be.
    fn key(self) -> Option<Key> {
        let mut layers = self.base;
        for layer in self.above {
            layers.push(layer.wait()?.diff_id);
        }
        Some(cached::of_image(&layers))
    }
}

impl<'a> Note<'a> {
    /// Keeps what the step made in the store, and lets others have it. Waits for the layers below.
    fn kept(self, shared: &Shared<'_>, packed: Option<&Packed>) -> Option<Entry> {
        let Note {
            mut made,
            below,
            still,
            dir,
            turn,
        } = self;
        let caching = shared.caching?;
        if !still() {
            return None;
        }
        if let Some(below) = below {
            made.below = Some(below.key()?);
        }
        if let (Some(dir), Some(packed)) = (dir, packed) {
            lock(&shared.frozen).push((packed.diff_id, dir));
        }
        let entry = cached::entry(&shared.store, shared.clock.steps, made, packed)?;
        caching.keep(&shared.store, &entry);
        drop(turn);
        Some(entry)
    }

    /// Keeps and writes that the step changed nothing.
    pub(super) fn keep_empty<'env>(
        self,
        shared: &'a Shared<'env>,
        scope: &'a Scope<'a, 'env>,
        step: StepId,
    ) {
        scope.spawn(move || {
            if let Some(entry) = self.kept(shared, None) {
                write(shared, step, entry, None);
            }
        });
    }
}

/// Leaves what steps wrote to the store as unpacked layers, once no root is made of it any more: the
/// next build that runs something on them need not unpack them.
pub(super) fn adopt(store: &Store, frozen: Vec<(Digest, PathBuf)>) {
    for (diff_id, dir) in frozen {
        // Where that fails, or somebody unpacks it just now, it costs no more than unpacking.
        let _ = store.adopt_layer(&diff_id, &dir);
    }
}

/// Has an entry written to the far places.
fn write(shared: &Shared<'_>, step: StepId, entry: Entry, from: Option<Reference>) {
    if let Some(writer) = shared.writer {
        let entry = Box::new(entry);
        writer.send(Job::Step { step, entry, from });
    }
}

/// Takes a layer of the cache into the image: has it at the destinations, and as a file where outputs
/// want that.
pub(super) fn reuse<'scope, 'env: 'scope>(
    shared: &'scope Shared<'env>,
    scope: &'scope Scope<'scope, 'env>,
    step: StepId,
    held: &Arc<Held>,
    in_image: bool,
) -> Pending {
    let slot: Pending = Arc::new(Slot::ready(Arc::new(held.packed())));
    let wants_file = super::deliver::wants_blobs(shared.request);
    if in_image && (wants_file || !shared.repositories.is_empty()) {
        let held = Arc::clone(held);
        scope.spawn(move || {
            let places = shared.caching.map(|caching| &caching.far);
            let place = held.hit.place.and_then(|at| places?.get(at));
            let from = place.and_then(|place| place.place.repository());
            let file = || held.blob_file(shared).map_err(io::Error::other);
            let blob = &held.layer.blob;
            let mut result = upload(shared, Owner::Step(step), blob, &file, from);
            if wants_file && result.is_ok() {
                result = held.blob_file(shared).map(|_| ());
            }
            shared.failure.check(result);
        });
    }
    slot
}

fn make(
    shared: &Shared<'_>,
    step: StepId,
    of: Instruction<'_>,
    changeset: &Changeset,
    read: &dyn Fn(),
) -> Result<Arc<Packed>, Error> {
    let bytes: u64 = changeset.content_size();
    let span = shared
        .sink
        .span(Owner::Step(step), Work::Compress, "layer", Some(bytes));
    let options = PackOptions {
        compression: shared.request.compression,
        format: shared.format,
        times: shared.clock.times,
        cancel: shared.cancel.clone(),
    };
    let (store, permits) = (&shared.store, &shared.gates.permits);
    let packed = pack_telling(changeset, &options, store, permits, &span, read)
        .map_err(|e| Error::step(of.0, of.1, e))?;
    drop(span);
    shared
        .store
        .note_blob(&packed.diff_id, &packed.descriptor)
        .map_err(|e| Error::other("note the layer", e))?;
    shared.sink.send(Event::LayerDone {
        step,
        digest: packed.descriptor.digest,
        raw: packed.raw,
        size: packed.descriptor.size,
        entries: packed.entries,
    });
    Ok(Arc::new(packed))
}

/// Sees to it that every destination's repository has a blob.
pub(super) fn upload(
    shared: &Shared<'_>,
    owner: Owner,
    blob: &Descriptor,
    file: &dyn Fn() -> io::Result<PathBuf>,
    from: Option<&Reference>,
) -> Result<(), Error> {
    for destination in &shared.repositories {
        let _pass = shared.gates.uploads.enter();
        if shared.cancel.is_set() {
            return Err(Error::Cancelled);
        }
        let label = blob.digest.to_string();
        let span = shared
            .sink
            .span_later(owner, Work::Push, &label, Some(blob.size));
        let pushed = shared
            .registry
            .push_blob_from(destination, blob, file, from, &span)?;
        drop(span);
        match pushed {
            Pushed::Existed | Pushed::Mounted => shared.sink.send(Event::Reused {
                owner,
                work: Work::Push,
                label,
                bytes: blob.size,
            }),
            Pushed::Uploaded => {}
        }
    }
    Ok(())
}
