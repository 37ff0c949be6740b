//! What becomes of the bases of a build: unpacked for the stages, pushed where the image goes, checked
//! where outputs want their files.

use super::base::{self, Fetches, Key, Resolved};
use super::cached::{self, Job};
use super::resolve::{Bases, root_base};
use super::wait::{Promise, Slot};
use super::{Error, Shared, layers};
use crate::layer::Unpacked;
use crate::progress::Owner;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::Scope;

/// The bases of a build.
pub(super) struct Known {
    /// What is known of each.
    pub(super) resolved: Bases,
    /// Where the files of each will be, if it is unpacked.
    pub(super) files: BTreeMap<Key, UnpackedSlot>,
    /// The blobs of the layers of the image's base, bottom first, where outputs want them as files.
    pub(super) blobs: Vec<Slot<PathBuf>>,
    pub(super) fetches: Fetches,
}

/// The unpacked layers of a base, bottom first, once they are there.
pub(super) type UnpackedSlot = Slot<Arc<Vec<Unpacked>>>;

/// Has a base's layers unpacked in the store.
pub(super) fn unpack_base<'scope, 'env: 'scope>(
    shared: &'scope Shared<'env>,
    scope: &'scope Scope<'scope, 'env>,
    key: &'scope Key,
    owner: Owner,
) {
    let (Some(slot), Some(resolved)) =
        (shared.bases.files.get(key), shared.bases.resolved.get(key))
    else {
        return;
    };
    scope.spawn(move || {
        let promise = Promise::new(slot);
        let Shared {
            store,
            registry,
            sink,
            cancel,
            ..
        } = shared;
        let unpacked = base::unpack(resolved, registry, store, owner, sink, cancel);
        crate::sys::give_back_memory();
        if let Some(files) = shared.failure.check(unpacked) {
            promise.done(Arc::new(files));
            // The next build may want no more than the tables.
            if let Some(writer) = shared.writer {
                writer.send(Job::Tables(cached::layers(&shared.bases.resolved, key)));
            }
        }
    });
}

/// Has the layers of a stage that were found in the cache unpacked in the store, as far as anything of
/// them is seen.
pub(super) fn unpack_held<'scope, 'env: 'scope>(
    shared: &'scope Shared<'env>,
    scope: &'scope Scope<'scope, 'env>,
    place: usize,
) {
    let owner = Owner::Base(shared.plan.stages[place].index);
    scope.spawn(move || {
        let below = cached::tree_below(shared, place);
        for (at, held) in shared.decided.stages[place].held().enumerate() {
            let hidden = below
                .as_ref()
                .is_some_and(|(tree, first)| cached::is_hidden(tree, first + at));
            if hidden {
                continue;
            }
            scope.spawn(move || {
                let _pass = shared.gates.downloads.enter();
                if !shared.cancel.is_set() {
                    shared.failure.check(held.unpack(shared, owner));
                }
            });
        }
    });
}

/// Has the base's layers at the destinations: there, mounted, or uploaded from the store.
pub(super) fn push_base<'scope, 'env: 'scope>(
    shared: &'scope Shared<'env>,
    scope: &'scope Scope<'scope, 'env>,
    unpacked: &[&Key],
) {
    let Some((base, being_unpacked)) = base_of_image(shared, unpacked) else {
        return;
    };
    let owner = Owner::Base(shared.plan.stages[shared.plan.target].index);
    for layer in &base.manifest.layers {
        scope.spawn(move || {
            // Asked for only where the registry neither has the blob nor can mount it.
            let file = || {
                // While the base is being unpacked its blobs are on their way into the store.
                if being_unpacked.is_some_and(|files| files.wait().is_none()) {
                    return Err(std::io::Error::other("the base could not be unpacked"));
                }
                base.blob_file(
                    layer,
                    &shared.registry,
                    &shared.store,
                    &shared.bases.fetches,
                )
                .map_err(std::io::Error::other)
            };
            let from = base.reference();
            let uploaded = layers::upload(shared, owner, layer, &file, from);
            shared.failure.check(uploaded);
        });
    }
}

/// Has the blobs of the base's layers as files of the store, each of them known to be what its digest
/// says: what an earlier build left there may have been damaged since, by a power cut for one.
pub(super) fn have_base<'scope, 'env: 'scope>(
    shared: &'scope Shared<'env>,
    scope: &'scope Scope<'scope, 'env>,
    unpacked: &[&Key],
) {
    let Some((base, being_unpacked)) = base_of_image(shared, unpacked) else {
        return;
    };
    for (layer, slot) in base.manifest.layers.iter().zip(&shared.bases.blobs) {
        scope.spawn(move || {
            let promise = Promise::new(slot);
            let old = shared.store.blob(&layer.digest, layer.size);
            // While the base is being unpacked its blobs are on their way into the store.
            if being_unpacked.is_some_and(|files| files.wait().is_none()) {
                return;
            }
            let _pass = shared.gates.downloads.enter();
            let file = match old {
                Ok(Some(_)) => shared
                    .store
                    .check_blob(&layer.digest, layer.size, shared.cancel)
                    .map_err(|e| Error::other(format!("check layer {}", layer.digest), e)),
                _ => Ok(None),
            };
            let file = file.and_then(|file| match file {
                Some(file) => Ok(file),
                None => base.blob_file(
                    layer,
                    &shared.registry,
                    &shared.store,
                    &shared.bases.fetches,
                ),
            });
            if let Some(file) = shared.failure.check(file) {
                promise.done(file);
            }
        });
    }
}

/// Gives the base that the image stands on, and where its files will be if it is being unpacked.
fn base_of_image<'a>(
    shared: &'a Shared<'_>,
    unpacked: &[&Key],
) -> Option<(&'a Resolved, Option<&'a UnpackedSlot>)> {
    let (root, platform) = root_base(&shared.plan, shared.plan.target);
    let key = base::key(&root, &platform)?;
    let files = match unpacked.contains(&&key) {
        true => Some(shared.bases.files.get(&key)?),
        false => None,
    };
    Some((shared.bases.resolved.get(&key)?, files))
}
