//! Cache mounts: which directory of the store is meant, and what a new one has in it at first.

use super::Error;
use super::views::{files, source_path};
use crate::build::Shared;
use crate::build::base;
use crate::build::stage::BoxError;
use crate::changeset::{Action, Change, Changeset, State};
use crate::context::{self, Making};
use crate::fs::{ContentId, Ids, Kind, LastLink, Meta, RelPath, Source, Tree};
use crate::oci::Platform;
use crate::plan::{Base, From};
use crate::sys::Cancel;
use rayon::prelude::*;
use rustix::fs::{Gid, Mode, Uid, chmod, chown};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What a new cache is like.
pub(super) enum Start {
    /// An empty directory: mode, owner and group.
    Empty(u32, u32, u32),
    /// A copy.
    Copy(Box<Copy>),
}

/// A directory to be copied.
pub(super) struct Copy {
    /// Names what is in it, so that other content makes another cache, as with BuildKit.
    identity: Vec<u8>,
    top: Meta,
    files: Changeset,
}

impl Start {
    /// Gives what tells caches of one id apart.
    pub(super) fn identity(&self) -> Vec<u8> {
        match self {
            Start::Empty(mode, uid, gid) => format!("empty {mode:o} {uid} {gid}").into_bytes(),
            Start::Copy(copy) => [b"copy ", &copy.identity[..]].concat(),
        }
    }

    /// Puts it into an empty directory.
    pub(super) fn fill(&self, dir: &Path, cancel: &Cancel) -> Result<(), BoxError> {
        match self {
            Start::Empty(mode, uid, gid) => {
                let (uid, gid) = Ids::here().known(*uid, *gid);
                let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
                chown(dir, uid, gid).map_err(io::Error::from)?;
                chmod(dir, Mode::from_raw_mode(*mode)).map_err(io::Error::from)?;
                Ok(())
            }
            Start::Copy(copy) => Ok(crate::rootfs::write(&copy.files, dir, &copy.top, cancel)?),
        }
    }
}

/// Finds what a cache begins with.
pub(super) fn copy_of(
    shared: &Shared<'_>,
    from: &From,
    platform: &Platform,
    source: &str,
) -> Result<Start, BoxError> {
    let path = source_path(source)?;
    if let Some((_, context)) = files(shared, from)? {
        let path = context::locate(&context, &path)?;
        let visible = context::visible(&context, &path, Making::Apart, shared.cancel)?;
        if visible.file.is_some() {
            return Err(Error::NoDirectory(source.to_owned()).into());
        }
        let changes = &visible.changes.changes;
        let identity = identity(&visible.top, changes, &|_| None, shared.cancel)?;
        return Ok(Start::Copy(Box::new(Copy {
            identity,
            top: visible.top,
            files: visible.changes,
        })));
    }
    let (tree, chain) = tree(shared, from, platform)?;
    let path = tree.resolve(&path, LastLink::Follow)?;
    let found = tree.get(&path);
    let missing = || context::Error::NotFound(path.clone());
    let top = found.ok_or_else(missing)?.meta;
    if top.kind != Kind::Dir {
        return Err(Error::NoDirectory(source.to_owned()).into());
    }
    let mut changes = Vec::new();
    tree.walk(&path, &mut |below, found| {
        let relative = below.strip(&path).unwrap_or_default();
        if !relative.is_root() {
            let source = (found.meta.kind == Kind::File).then(|| tree.source(below));
            changes.push(Change {
                path: relative,
                action: Action::Put {
                    meta: found.meta.clone(),
                    source: source.flatten(),
                    // A cache may have a file twice that the tree has under two names.
                    link: None,
                },
            });
        }
    });
    let identity = match chain {
        // An image says by itself what is in it.
        Some(chain) => [chain.as_bytes(), b" ", path.as_bytes()].concat(),
        None => {
            let known = |below: &RelPath| tree.get(&path.join_path(below))?.content;
            identity(&top, &changes, &known, shared.cancel)?
        }
    };
    Ok(Start::Copy(Box::new(Copy {
        identity,
        top,
        files: Changeset {
            changes,
            state: State::Frozen,
        },
    })))
}

/// Gives the tree of a stage or image, and of an image what names it.
fn tree(
    shared: &Shared<'_>,
    from: &From,
    platform: &Platform,
) -> Result<(Tree, Option<String>), Error> {
    let mut tree = Tree::default();
    let base = match from {
        From::Base(Base::Stage(place)) => {
            let done = shared.done[*place].wait().ok_or(Error::Gone)?;
            return Ok((done.tree.clone(), None));
        }
        From::Base(base) => base,
        From::Context => return Err(Error::Gone),
    };
    let Some(key) = base::key(base, platform) else {
        return Ok((tree, None));
    };
    let files = shared.bases.files.get(&key).and_then(|files| files.wait());
    for layer in files.ok_or(Error::Gone)?.iter() {
        tree.push(Arc::clone(&layer.view));
    }
    let layers = shared
        .bases
        .resolved
        .get(&key)
        .map(|base| base.layers.last());
    let chain = layers.flatten().map(|layer| layer.chain_id.to_string());
    Ok((tree, chain))
}

/// Hashes files by all that a command can tell them apart by but their times, which differ whenever
/// a stage is built again.
fn identity(
    top: &Meta,
    changes: &[Change],
    known: &(dyn Fn(&RelPath) -> Option<ContentId> + Sync),
    cancel: &Cancel,
) -> Result<Vec<u8>, Error> {
    let hashes: Result<Vec<blake3::Hash>, Error> = changes
        .par_iter()
        .map(|Change { path, action }| {
            if cancel.is_set() {
                return Err(Error::Gone);
            }
            let Action::Put { meta, source, .. } = action else {
                return Ok(one(path, top, None));
            };
            let content = match (known(path), source) {
                (Some(content), _) => Some(content),
                (None, Some(source)) => Some(content_of(source).map_err(|source| Error::Hash {
                    path: path.clone(),
                    source,
                })?),
                (None, None) => None,
            };
            Ok(one(path, meta, content))
        })
        .collect();
    let mut all = blake3::Hasher::new();
    all.update(one(&RelPath::root(), top, None).as_bytes());
    for hash in hashes? {
        all.update(hash.as_bytes());
    }
    Ok(all.finalize().to_hex().as_bytes().to_vec())
}

fn content_of(source: &Source) -> io::Result<ContentId> {
    let mut hash = blake3::Hasher::new();
    hash.update_reader(source.open()?)?;
    Ok(*hash.finalize().as_bytes())
}

fn one(path: &RelPath, meta: &Meta, content: Option<ContentId>) -> blake3::Hash {
    let Meta {
        kind,
        mode,
        uid,
        gid,
        size,
        mtime: _,
        device,
        target,
        xattrs,
    } = meta;
    let mut hash = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(path.as_bytes());
    part(format!("{kind:?} {mode:o} {uid} {gid} {size} {device:?}").as_bytes());
    part(target);
    for (name, value) in xattrs {
        part(name);
        part(value);
    }
    part(content.as_ref().map_or(&[], |content| &content[..]));
    hash.finalize()
}
