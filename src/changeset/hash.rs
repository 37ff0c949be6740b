//! One hash over what a changeset puts.

use super::{Action, Changeset, Error};
use crate::fs::{ContentId, Kind, Meta, RelPath, Source};
use rayon::prelude::*;
use std::io;

/// Gives the BLAKE3 of a file's content.
pub type Identify<'a> = &'a (dyn Fn(&Source) -> io::Result<ContentId> + Sync);

impl Changeset {
    /// Gives one hash over paths, metadata without times, hard links and content, which `identify` is
    /// asked for in parallel on the rayon pool. The same files give the same hash, wherever they are.
    pub fn files_hash(&self, identify: Identify<'_>) -> Result<[u8; 32], Error> {
        let ids: Vec<Option<ContentId>> = self
            .changes
            .par_iter()
            .with_min_len(8)
            .map(|change| match &change.action {
                Action::Put {
                    source: Some(source),
                    link: None,
                    ..
                } => identify(source).map(Some).map_err(|source| Error::Io {
                    action: "read",
                    path: change.path.clone(),
                    source,
                }),
                _ => Ok(None),
            })
            .collect::<Result<_, _>>()?;
        let mut hasher = blake3::Hasher::new();
        let mut frame = Vec::with_capacity(256);
        for (change, id) in self.changes.iter().zip(ids) {
            frame.clear();
            bytes(&mut frame, change.path.as_bytes());
            match &change.action {
                Action::Delete => frame.push(0),
                Action::Opaque(meta) => {
                    frame.push(1);
                    metadata(&mut frame, meta);
                }
                Action::Put { meta, link, .. } => {
                    frame.push(2);
                    metadata(&mut frame, meta);
                    bytes(&mut frame, link.as_ref().map_or(b"", RelPath::as_bytes));
                    bytes(&mut frame, id.as_ref().map_or(&[][..], |id| &id[..]));
                }
            }
            hasher.update(&frame);
        }
        Ok(*hasher.finalize().as_bytes())
    }
}

/// Appends bytes with their length in front.
fn bytes(frame: &mut Vec<u8>, bytes: &[u8]) {
    frame.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    frame.extend_from_slice(bytes);
}

fn metadata(frame: &mut Vec<u8>, meta: &Meta) {
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
    frame.push(match kind {
        Kind::File => b'f',
        Kind::Dir => b'd',
        Kind::Symlink => b'l',
        Kind::Fifo => b'p',
        Kind::Char => b'c',
        Kind::Block => b'b',
    });
    for number in [*mode, *uid, *gid, device.0, device.1] {
        frame.extend_from_slice(&number.to_le_bytes());
    }

    frame.extend_from_slice(&size.to_le_bytes());
    bytes(frame, target);
    frame.extend_from_slice(&(xattrs.len() as u64).to_le_bytes());
    for (name, value) in xattrs {
        bytes(frame, name);
        bytes(frame, value);
    }
}
