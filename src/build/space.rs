//! Room in the store, looked at before it is needed.

use super::base::Key;
use super::{Error, Shared};
use crate::progress::{Level, Owner, Sink};
use crate::request::RootfsChoice;
use crate::store::{Bytes, Store, space, unpacked_size};
use std::collections::BTreeMap;

/// Less than so much free is warned of.
const FEW_BYTES: u64 = 1 << 30;
/// Room for fewer files than so many is warned of: about what a small distribution has.
const FEW_FILES: u64 = 20_000;

/// What fails for want of space may leave so much.
const FULL_BYTES: u64 = 4 << 20;
/// Or room for so many files.
const FULL_FILES: u64 = 8;

/// Warns where the store's file system is nearly full.
pub(super) fn warn(store: &Store, sink: &Sink) {
    let Ok(found) = space(store.dir()) else {
        return;
    };
    let few = match found.inodes {
        _ if found.free < FEW_BYTES => format!("{} free", Bytes(found.free)),
        Some(files) if files < FEW_FILES => format!("room for {files} more files"),
        _ => return,
    };
    let dir = store.dir().display();
    let text = format!(
        "the store {dir} has no more than {few}: a build may want more; free some or put the store on a \
         larger volume (--cache-dir)"
    );
    sink.message(Level::Warn, text);
}

/// Says that the store's file system is full, where it is: commands that fail for it do not all say so.
pub(super) fn tell_if_full(store: &Store, sink: &Sink) {
    let Ok(found) = space(store.dir()) else {
        return;
    };
    let is_full = found.free < FULL_BYTES || found.inodes.is_some_and(|files| files < FULL_FILES);
    if is_full {
        let dir = store.dir().display();
        let text = format!(
            "the store {dir}, which commands write to, is full: free some or put it on a larger volume \
             (--cache-dir)"
        );
        sink.message(Level::Warn, text);
    }
}

/// Fails where the bases that are wanted do not fit into what is free.
pub(super) fn check(shared: &Shared<'_>, wanted: &[(&Key, Owner)]) -> Result<(), Error> {
    let store = &shared.store;
    let mut layers = BTreeMap::new();
    for (key, _) in wanted {
        let base = shared.bases.resolved.get(*key);
        for layer in base.iter().flat_map(|base| &base.layers) {
            layers
                .entry(layer.chain_id)
                .or_insert_with(|| store.needs(&layer.descriptor, &layer.chain_id));
        }
    }
    let mut need: u64 = layers.values().sum();
    if shared.request.rootfs == RootfsChoice::Chroot {
        // The root is a copy.
        let copies = wanted
            .iter()
            .filter_map(|(key, _)| shared.bases.resolved.get(*key))
            .flat_map(|base| &base.layers);
        need += copies
            .map(|layer| unpacked_size(&layer.descriptor))
            .sum::<u64>();
    }
    let Ok(found) = space(store.dir()) else {
        return Ok(());
    };
    match need > found.free {
        true => Err(Error::NoRoom {
            store: store.dir().to_owned(),
            free: Bytes(found.free),
            need: Bytes(need),
        }),
        false => Ok(()),
    }
}
