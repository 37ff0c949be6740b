//! Room in the store, looked at before it is needed.

use super::base::Key;
use super::{Error, Shared, kept, one_root};
use crate::fs::{RelPath, Tree};
use crate::progress::{Level, Owner, Sink};
use crate::request::RootfsChoice;
use crate::rootfs::Guard;
use crate::store::{Bytes, Store, space, unpacked_size};
use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Less than so much free is warned of.
const FEW_BYTES: u64 = 1 << 30;
/// Room for fewer files than so many is warned of: about what a small distribution has.
const FEW_FILES: u64 = 20_000;

/// With less a root that works may seem not to.
const NO_BYTES: u64 = 1 << 20;
/// Or with room for fewer files.
const NO_FILES: u64 = 64;

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

/// Fails where there is not even room enough to try what commands could run on: another root would be
/// taken for no good reason, or none.
pub(super) fn check_trial(store: &Path) -> Result<(), Error> {
    let Ok(found) = space(store) else {
        return Ok(());
    };
    match found.free < NO_BYTES || found.inodes.is_some_and(|files| files < NO_FILES) {
        true => Err(Error::Full {
            store: store.to_owned(),
            free: Amount {
                bytes: found.free,
                files: found.inodes,
            },
        }),
        false => Ok(()),
    }
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
    if one_root::is_one(shared) {
        check_root(shared, in_place(shared, wanted)?)?;
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

/// So many bytes, in so many files where that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Bytes.
    pub bytes: u64,
    /// Files, directories and the like.
    pub files: Option<u64>,
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.files {
            Some(files) => write!(f, "{} and room for {files} files", Bytes(self.bytes)),
            None => write!(f, "{}", Bytes(self.bytes)),
        }
    }
}

impl Amount {
    /// Tells what the files of a tree come to.
    fn of(tree: &Tree) -> Amount {
        let (mut bytes, mut files) = (0_u64, 0);
        tree.walk(&RelPath::root(), &mut |_, found| {
            if found.link.is_none() {
                bytes = bytes.saturating_add(found.meta.size);
                files += 1;
            }
        });
        Amount {
            bytes,
            files: Some(files),
        }
    }

    fn is_within(&self, other: &Amount) -> bool {
        let files = match (self.files, other.files) {
            (Some(need), Some(free)) => need <= free,
            _ => true,
        };
        self.bytes <= other.bytes && files
    }
}

/// Gives about what the bases will take of the root directory where they are copied there: the
/// largest, since they are there one after the other. From a store in the same place they are moved.
fn in_place(shared: &Shared<'_>, wanted: &[(&Key, Owner)]) -> Result<Amount, Error> {
    let moved = one_root::is_in_the_root(shared.store.dir())
        .map_err(|e| Error::other("look at the root directory", e))?;
    let of_base = |key: &Key| {
        let base = shared.bases.resolved.get(key);
        let layers = base.iter().flat_map(|base| &base.layers);
        layers.map(|layer| unpacked_size(&layer.descriptor)).sum()
    };
    let sizes = wanted.iter().map(|(key, _)| of_base(key));
    Ok(Amount {
        bytes: match moved {
            true => 0,
            false => sizes.max().unwrap_or(0),
        },
        files: None,
    })
}

/// Fails where a tree's files do not fit into the root directory, which they are to be copied to.
pub(super) fn check_in_place(shared: &Shared<'_>, tree: &Tree) -> Result<(), Error> {
    check_root(shared, Amount::of(tree))
}

/// Fails where a tree's files do not fit into the store, which they are to be copied to.
pub(super) fn check_copy(store: &Store, tree: &Tree) -> Result<(), Error> {
    let Ok(found) = space(store.dir()) else {
        return Ok(());
    };
    let need = Amount::of(tree);
    let free = Amount {
        bytes: found.free,
        files: found.inodes,
    };
    match need.is_within(&free) {
        true => Ok(()),
        false => Err(Error::NoRoomForCopy {
            store: store.dir().to_owned(),
            free,
            need,
        }),
    }
}

fn check_root(shared: &Shared<'_>, need: Amount) -> Result<(), Error> {
    let Ok(found) = space(Path::new("/")) else {
        return Ok(());
    };
    let mut free = Amount {
        bytes: found.free,
        files: found.inodes,
    };
    if need.is_within(&free) {
        return Ok(());
    }
    // What is there now goes first, which takes long to count and is seldom wanted.
    let there = there(&kept::guard(shared));
    free.bytes = free.bytes.saturating_add(there.bytes);
    free.files = free
        .files
        .map(|files| files.saturating_add(there.files.unwrap_or(0)));
    match need.is_within(&free) {
        true => Ok(()),
        false => Err(Error::NoRoomInRoot { free, need }),
    }
}

/// Counts what is in the root directory and will be removed. Files of the container's own image count
/// too, although nothing is gained by removing them: they cannot be told from others.
fn there(guard: &Guard) -> Amount {
    use std::os::unix::fs::MetadataExt;
    let (mut bytes, mut files) = (0_u64, 0_u64);
    let top = Path::new("/");
    let Ok(device) = top.symlink_metadata().map(|meta| meta.dev()) else {
        return Amount::default();
    };
    let mut dirs = vec![top.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let kept = RelPath::clean(path.as_os_str().as_bytes());
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != device || kept.is_none_or(|path| guard.covers(&path)) {
                continue;
            }
            bytes = bytes.saturating_add(meta.blocks().saturating_mul(512));
            files += 1;
            if meta.is_dir() {
                dirs.push(path);
            }
        }
    }
    Amount {
        bytes,
        files: Some(files),
    }
}
