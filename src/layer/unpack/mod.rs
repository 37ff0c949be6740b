//! Blob to verified files: the layers of an image, unpacked in the store in overlay form.

mod files;
mod scan;
mod settle;
mod stream;
#[cfg(test)]
mod tests;
mod write;

use super::{BaseLayer, Error, Unpacked};
use crate::fs::{
    Content, DEVICE_NODES, Ids, LayerView, Node, Placer, RelPath, Toc, TocEntry, Tree,
};
use crate::oci::{Descriptor, Digest};
use crate::progress::{Event, Level, Owner, Sink, Span, Work};
use crate::store::Blobs;
use crate::store::{LayerSlot, Store, VacantLayer};
use crate::sys::Cancel;
use files::Files;
use settle::Kept;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use stream::{Arrived, Growth, Stop};
use write::Writers;

/// How many layers are fetched and unpacked at the same time.
const AT_ONCE: usize = 4;

/// Has all layers of a base unpacked in the store, bottom first: those that are not are fetched,
/// verified, decompressed and unpacked at the same time as each other, and their blobs kept.
///
/// A layer that the store has unpacked is not opened. One whose blob the store has is not fetched.
pub fn unpack_all(
    layers: &[BaseLayer],
    blobs: &dyn Blobs,
    store: &Store,
    sink: &Sink,
    owner: Owner,
    cancel: &Cancel,
) -> Result<Vec<Unpacked>, Error> {
    unpack(layers, Kept::Meaning, blobs, store, sink, owner, cancel)
}

/// Has a layer that a step made unpacked in the store as it is, whatever it will lie on: all that it
/// takes away it took away from what was below the step. Its chain ID is its diff ID.
pub fn unpack_step(
    descriptor: &Descriptor,
    diff_id: &Digest,
    blobs: &dyn Blobs,
    store: &Store,
    sink: &Sink,
    owner: Owner,
    cancel: &Cancel,
) -> Result<Unpacked, Error> {
    let layer = BaseLayer {
        descriptor: descriptor.clone(),
        diff_id: *diff_id,
        chain_id: *diff_id,
    };
    let unpacked = unpack(&[layer], Kept::All, blobs, store, sink, owner, cancel)?;
    // One layer comes of one.
    unpacked.into_iter().next().ok_or(Error::Cancelled)
}

fn unpack(
    layers: &[BaseLayer],
    kept: Kept,
    blobs: &dyn Blobs,
    store: &Store,
    sink: &Sink,
    owner: Owner,
    cancel: &Cancel,
) -> Result<Vec<Unpacked>, Error> {
    let stop = Stop {
        cancel,
        failed: AtomicBool::new(false),
    };
    let shared = Shared {
        blobs,
        store,
        sink,
        owner,
        growth: Growth::USUAL,
        kept,
        stop: &stop,
    };
    shared.all(layers)
}

struct Shared<'a> {
    blobs: &'a dyn Blobs,
    store: &'a Store,
    sink: &'a Sink,
    owner: Owner,
    growth: Growth,
    kept: Kept,
    stop: &'a Stop<'a>,
}

/// A layer on its way.
enum Coming<'scope> {
    Ready(PathBuf),
    Loading(ScopedJoinHandle<'scope, Result<Loaded, Error>>),
}

/// A layer whose files are on disk, before it has met the layers below.
struct Loaded {
    files: Files,
    arrived: Arrived,
    slot: VacantLayer,
    span: Span,
}

impl<'a> Shared<'a> {
    fn all(&self, layers: &[BaseLayer]) -> Result<Vec<Unpacked>, Error> {
        let mut tree = Tree::default();
        let mut done = Vec::with_capacity(layers.len());
        std::thread::scope(|scope| {
            // Bottom first and never the other way round: two builds that want the same layers
            // cannot wait for each other.
            let mut coming = VecDeque::new();
            let mut result = Ok(());
            for layer in layers {
                result = self.admit(scope, layer, &mut coming);
                while result.is_ok() && loading(&coming) >= AT_ONCE {
                    result = self.next(&mut coming, &mut tree, &mut done);
                }
                if result.is_err() {
                    break;
                }
            }
            while result.is_ok() && !coming.is_empty() {
                result = self.next(&mut coming, &mut tree, &mut done);
            }
            let Err(mut error) = result else {
                return Ok(());
            };
            self.stop.failed.store(true, Ordering::Relaxed);
            for (_, layer) in coming {
                // A layer further up may be why this one was given up.
                if let Coming::Loading(thread) = layer
                    && let Err(other) = join(thread)
                    && matches!(error, Error::Cancelled)
                {
                    error = other;
                }
            }
            Err(error)
        })?;
        Ok(done)
    }

    fn admit<'scope, 'env, 'l: 'scope>(
        &'env self,
        scope: &'scope std::thread::Scope<'scope, 'env>,
        layer: &'l BaseLayer,
        coming: &mut VecDeque<(&'l BaseLayer, Coming<'scope>)>,
    ) -> Result<(), Error>
    where
        'env: 'scope,
    {
        if self.stop.cancel.is_set() {
            return Err(Error::Cancelled);
        }
        let slot = match self.store.layer(&layer.chain_id, self.stop.cancel) {
            Err(crate::store::Error::Cancelled) => return Err(Error::Cancelled),
            other => other?,
        };
        let one = match slot {
            LayerSlot::Ready(dir) => {
                self.sink.send(Event::Reused {
                    owner: self.owner,
                    work: Work::Fetch,
                    label: layer.descriptor.digest.to_string(),
                    bytes: layer.descriptor.size,
                });
                Coming::Ready(dir)
            }
            LayerSlot::Vacant(slot) => Coming::Loading(scope.spawn(move || {
                let digest = layer.descriptor.digest;
                let loaded = self.load(layer, slot).map_err(|e| of_layer(e, digest));
                if loaded.is_err() {
                    self.stop.failed.store(true, Ordering::Relaxed);
                }
                loaded
            })),
        };
        coming.push_back((layer, one));
        Ok(())
    }

    /// Finishes the lowest layer that is on its way.
    fn next(
        &self,
        coming: &mut VecDeque<(&BaseLayer, Coming<'_>)>,
        tree: &mut Tree,
        done: &mut Vec<Unpacked>,
    ) -> Result<(), Error> {
        let Some((layer, one)) = coming.pop_front() else {
            return Ok(());
        };
        let (dir, toc) = match one {
            Coming::Ready(dir) => {
                let toc = self.toc(layer, &dir)?;
                (dir, toc)
            }
            Coming::Loading(thread) => self
                .finish(layer, join(thread)?, tree)
                .map_err(|e| of_layer(e, layer.descriptor.digest))?,
        };
        let root = RelPath::root();
        let fd = File::open(&dir).map_err(|e| files::io_error("open the layer's", &root, e))?;
        let view = Arc::new(LayerView {
            toc,
            content: Content::Dir(Arc::new(OwnedFd::from(fd))),
        });
        tree.push(Arc::clone(&view));
        done.push(Unpacked { dir, view });
        Ok(())
    }

    /// Gives the table of a layer that is unpacked; made anew where it has got lost.
    fn toc(&self, layer: &BaseLayer, dir: &Path) -> Result<Toc, Error> {
        // A layer that depends on those below it has its table under its chain's name.
        for id in [&layer.chain_id, &layer.diff_id] {
            if let Some(toc) = self.store.toc(id)? {
                return Ok(toc);
            }
        }
        let toc = scan::scan(dir)?;
        self.store.put_toc(&layer.chain_id, &toc)?;
        Ok(toc)
    }

    /// Fetches, verifies and unpacks a layer, as far as that goes without the layers below.
    fn load(&self, layer: &BaseLayer, slot: VacantLayer) -> Result<Loaded, Error> {
        let digest = layer.descriptor.digest;
        let label = short(&digest);
        let span = self.sink.span(self.owner, Work::Unpack, &label, None);
        let fetch = || {
            let total = Some(layer.descriptor.size);
            self.sink.span(self.owner, Work::Fetch, &label, total)
        };
        let root = RelPath::root();
        let dir = File::open(&slot.dir).map_err(|e| files::io_error("open", &root, e))?;
        let placer = Placer::layer(dir.as_fd()).map_err(|e| files::io_error("open", &root, e))?;
        let mut files = Files::new(digest, placer);
        let parse = |tar: &mut stream::Tar<'_>| {
            let ids = std::thread::scope(|scope| {
                let mut writers = Writers::start(scope);
                let taken = files.take(tar, &mut writers);
                let written = writers.finish();
                taken.and(written)
            })?;
            for (number, id) in ids {
                if let Some(content) = files.contents.get_mut(number) {
                    *content = Some(id);
                }
            }
            Ok(())
        };
        let streamed = stream::run(
            layer,
            self.blobs,
            self.store,
            self.growth,
            self.stop,
            &fetch,
            parse,
        );
        let ((), arrived) = streamed?;
        if arrived.diff_id != layer.diff_id {
            let (got, wanted) = (arrived.diff_id, layer.diff_id);
            let why = format!("its content has digest {got}, the image says {wanted}");
            return Err(Error::Hostile { digest, why });
        }
        Ok(Loaded {
            files,
            arrived,
            slot,
            span,
        })
    }

    /// Fits a layer to those below and puts it in place: the blob first, the files last, so that
    /// whoever finds the files finds the rest.
    fn finish(
        &self,
        layer: &BaseLayer,
        loaded: Loaded,
        tree: &Tree,
    ) -> Result<(PathBuf, Toc), Error> {
        let Loaded {
            files,
            arrived,
            slot,
            span,
        } = loaded;
        let settled = settle::settle(files, tree, self.kept)?;
        if !settled.lost.is_empty() {
            let text = format!(
                "layer {}: the store's file system does not keep {}",
                layer.descriptor.digest,
                settled.lost.join(", ")
            );
            self.sink.message(Level::Warn, text);
        }
        if let Some(ingest) = arrived.ingest {
            ingest.commit_as(&layer.descriptor.digest)?;
        }
        self.store.note_blob(&layer.diff_id, &layer.descriptor)?;
        if settled.alone {
            self.store.put_toc(&layer.diff_id, &settled.toc)?;
        } else {
            self.store.put_toc(&layer.chain_id, &settled.toc)?;
        }
        // Others may be able to make them; a user namespace has layers of its own.
        let stands_in = settled.lost.iter().any(|lost| lost == DEVICE_NODES);
        drop(settled);
        let dir = match stands_in && Ids::here().hold_all() {
            true => slot.use_once()?,
            false => slot.commit()?,
        };
        drop(span);
        // From here on the table is used where it lies on disk, not in memory.
        let toc = self.toc(layer, &dir)?;
        Ok((dir, toc))
    }
}

fn loading(coming: &VecDeque<(&BaseLayer, Coming<'_>)>) -> usize {
    let loads = |one: &&(&BaseLayer, Coming<'_>)| matches!(one.1, Coming::Loading(_));
    coming.iter().filter(loads).count()
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Says which layer an error is about. An archive that ends too early is the layer's fault, not the
/// connection's: the blob's length and digest are looked at apart.
fn of_layer(error: Error, digest: Digest) -> Error {
    match error {
        Error::Read(source) if source.kind() == io::ErrorKind::UnexpectedEof => Error::Hostile {
            digest,
            why: source.to_string(),
        },
        Error::Io { .. } | Error::Read(_) => Error::Base {
            digest,
            source: Box::new(error),
        },
        other => other,
    }
}

fn short(digest: &Digest) -> String {
    digest.hex().chars().take(12).collect()
}

/// Reads the entries of a tar that may be compressed, as a layer's that knows of no other: names
/// are checked and whiteouts understood, content is hashed and dropped. Paths are as they stand in
/// the archive; the last entry of a path counts.
pub fn read_entries(bytes: &[u8]) -> Result<Vec<TocEntry>, Error> {
    use crate::fs::tar::{Body, Reader, TarError};
    let digest = Digest::of(bytes);
    let hostile = |why: String| Error::Hostile { digest, why };
    let (_, plain) = crate::fs::archive::decompress(bytes).map_err(|e| hostile(e.to_string()))?;
    let bound = Growth::USUAL.bound(bytes.len() as u64);
    let mut reader = Reader::new(io::Read::take(plain, bound));
    let mut entries = Vec::new();
    let mut step = || -> Result<Option<TocEntry>, TarError> {
        let Some(entry) = reader.next_entry()? else {
            return Ok(None);
        };
        let path = entry.path;
        if let Some(gone) = path.name().strip_prefix(b".wh.") {
            let parent = path.parent().unwrap_or_default();
            let (path, node) = match gone {
                b".wh..opq" => {
                    let meta = crate::fs::Meta::dir(0o755, Default::default());
                    (parent, Node::Opaque(meta))
                }
                b"" | b"." | b".." => return Err(reader.refused("it is a whiteout of no file")),
                name => (parent.join(name), Node::Delete),
            };
            return Ok(Some(TocEntry { path, node }));
        }
        let mut content = None;
        if entry.meta.kind == crate::fs::Kind::File && entry.body == Body::File {
            if entry.holes > bound {
                return Err(reader.refused("it has too many bytes of holes"));
            }
            let mut hash = blake3::Hasher::new();
            hash.update_reader(&mut reader).map_err(TarError::Read)?;
            content = Some(*hash.finalize().as_bytes());
        }
        let link = match entry.body {
            Body::Link(target) => Some(target),
            Body::File => None,
        };
        let meta = entry.meta;
        let node = Node::Put {
            meta,
            content,
            link,
        };
        Ok(Some(TocEntry { path, node }))
    };
    while let Some(entry) = step().map_err(|e| match e {
        TarError::Read(source) => hostile(source.to_string()),
        other => hostile(other.to_string()),
    })? {
        entries.push(entry);
    }
    Ok(entries)
}
