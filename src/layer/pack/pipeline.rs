//! From chunks of a tar to a blob in the store.
//!
//! ```text
//! framer (the caller's thread) -> chunk --+--> SHA-256 thread                  -> diff ID
//!                                         +--> rayon job -> ring -> writer thread: SHA-256, store
//! ```
//!
//! A chunk's permit comes back when both hash and writer have let go of it, so the channels need no
//! bound of their own and a rayon job never waits to deliver. A tar of one chunk takes no thread.

use super::codec::{Block, Codec, Envelope};
use super::frame::Out;
use super::permits::{Account, Chunk};
use crate::layer::Error;
use crate::oci::{Digest, Sha256};
use crate::progress::Span;
use crate::store::{Ingest, Store};
use crate::sys::Cancel;
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::{Scope, ScopedJoinHandle};

/// A layer's blob in the store.
pub(super) struct Blob {
    pub diff_id: Digest,
    pub raw: u64,
    pub digest: Digest,
    pub size: u64,
}

/// Takes a tar in pieces of any size.
pub(super) struct Pipeline<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    store: &'env Store,
    span: &'env Span,
    cancel: &'env Cancel,
    account: &'env Account,
    codec: Codec,
    chunk: Chunk,
    tail: Vec<u8>,
    raw: u64,
    seq: u64,
    threads: Option<Threads<'scope>>,
}

struct Threads<'scope> {
    hash: Sender<Arc<Chunk>>,
    hasher: ScopedJoinHandle<'scope, Digest>,
    done: Sender<Done>,
    writer: ScopedJoinHandle<'scope, Result<Writer, Error>>,
    spent: Receiver<Vec<u8>>,
}

/// A compressed chunk; the chunk comes along for its permit.
struct Done {
    seq: u64,
    block: io::Result<Block>,
    chunk: Arc<Chunk>,
}

impl<'scope, 'env> Pipeline<'scope, 'env> {
    pub fn new(
        scope: &'scope Scope<'scope, 'env>,
        store: &'env Store,
        span: &'env Span,
        cancel: &'env Cancel,
        account: &'env Account,
        codec: Codec,
    ) -> Pipeline<'scope, 'env> {
        Pipeline {
            scope,
            store,
            span,
            cancel,
            account,
            codec,
            chunk: account.chunk(),
            tail: Vec::new(),
            raw: 0,
            seq: 0,
            threads: None,
        }
    }

    /// Gives the room left in the current chunk, which is more than none.
    fn room(&mut self) -> Result<usize, Error> {
        let size = self.codec.block_size();
        if self.chunk.bytes.len() >= size {
            if self.cancel.is_set() {
                return Err(Error::Cancelled);
            }
            if self.threads.is_none() {
                self.threads = Some(self.start()?);
            }
            let full = self.chunk.take();
            self.send(full)?;
            self.chunk = self.account.chunk();
        }
        Ok(size - self.chunk.bytes.len())
    }

    fn start(&self) -> Result<Threads<'scope>, Error> {
        let thread = |e| Error::Compress(io::Error::other(format!("start a thread: {e}")));
        let (hash, chunks) = unbounded::<Arc<Chunk>>();
        let hasher = std::thread::Builder::new()
            .name("layer-hash".into())
            .spawn_scoped(self.scope, move || {
                let mut hash = Sha256::new();
                for chunk in chunks {
                    hash.update(&chunk.bytes);
                }
                hash.finish()
            })
            .map_err(thread)?;
        let (done, blocks) = unbounded::<Done>();
        let (spend, spent) = unbounded();
        let writer = Writer::new(self.codec, self.store.ingest_unhashed()?)?;
        let writer = std::thread::Builder::new()
            .name("layer-write".into())
            .spawn_scoped(self.scope, move || writer.run(&blocks, &spend))
            .map_err(thread)?;
        Ok(Threads {
            hash,
            hasher,
            done,
            writer,
            spent,
        })
    }

    fn send(&mut self, chunk: Chunk) -> Result<(), Error> {
        let Some(threads) = &self.threads else {
            return Ok(());
        };
        self.raw += chunk.bytes.len() as u64;
        self.span.advance(chunk.bytes.len() as u64);
        let tail = self.codec.tail(&chunk.bytes);
        let before = std::mem::replace(&mut self.tail, tail);
        let chunk = Arc::new(chunk);
        let seq = self.seq;
        self.seq += 1;
        if threads.writer.is_finished() {
            // It only ends early with an error, which `end` brings to light.
            let ended = || Error::Compress(io::Error::other("the writer ended early"));
            let threads = self.threads.take().ok_or_else(ended)?;
            return Err(threads.end().err().unwrap_or_else(ended));
        }
        // Both ends live as long as there is no error; the writer's is seen above.
        let _ = threads.hash.send(Arc::clone(&chunk));
        let out = threads.spent.try_recv().unwrap_or_default();
        let (codec, done) = (self.codec, threads.done.clone());
        rayon::spawn(move || {
            let block = codec.compress(&before, &chunk.bytes, out);
            let _ = done.send(Done { seq, block, chunk });
        });
        Ok(())
    }

    /// Ends the tar and puts the blob in place.
    pub fn finish(mut self) -> Result<Blob, Error> {
        if self.cancel.is_set() {
            return Err(Error::Cancelled);
        }
        if self.threads.is_none() {
            let bytes = &self.chunk.bytes;
            let mut writer = Writer::new(self.codec, self.store.ingest_unhashed()?)?;
            let block = self
                .codec
                .compress(b"", bytes, Vec::new())
                .map_err(Error::Compress)?;
            writer.write(&block, bytes.len())?;
            let (digest, size) = writer.finish()?;
            self.span.advance(bytes.len() as u64);
            return Ok(Blob {
                diff_id: Digest::of(bytes),
                raw: bytes.len() as u64,
                digest,
                size,
            });
        }
        if !self.chunk.bytes.is_empty() {
            let last = self.chunk.take();
            self.send(last)?;
        }
        let raw = self.raw;
        let Some(threads) = self.threads.take() else {
            return Err(Error::Cancelled);
        };
        let (diff_id, writer) = threads.end()?;
        if writer.envelope.size() != raw {
            return Err(Error::Compress(io::Error::other("a block was lost")));
        }
        let (digest, size) = writer.finish()?;
        Ok(Blob {
            diff_id,
            raw,
            digest,
            size,
        })
    }
}

impl Out for Pipeline<'_, '_> {
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let room = self.room()?;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.chunk.bytes.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn fill(
        &mut self,
        limit: u64,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> Result<io::Result<&[u8]>, Error> {
        let room = self
            .room()?
            .min(usize::try_from(limit).unwrap_or(usize::MAX));
        let at = self.chunk.bytes.len();
        self.chunk.bytes.resize(at + room, 0);
        let got = read(&mut self.chunk.bytes[at..]);
        self.chunk
            .bytes
            .truncate(at + got.as_ref().map_or(0, |n| *n.min(&room)));
        Ok(got.map(|_| &self.chunk.bytes[at..]))
    }
}

impl Threads<'_> {
    fn end(self) -> Result<(Digest, Writer), Error> {
        drop(self.hash);
        drop(self.done);
        let gone = |_| Error::Compress(io::Error::other("a thread of the pipeline panicked"));
        let diff_id = self.hasher.join().map_err(gone)?;
        let writer = self.writer.join().map_err(gone)??;
        Ok((diff_id, writer))
    }
}

/// Strings compressed blocks together, hashes them and writes them to the store.
struct Writer {
    envelope: Envelope,
    ingest: Ingest,
    hash: Sha256,
}

impl Writer {
    fn new(codec: Codec, ingest: Ingest) -> Result<Writer, Error> {
        let envelope = Envelope::new(codec);
        let head = envelope.head();
        let mut writer = Writer {
            envelope,
            ingest,
            hash: Sha256::new(),
        };
        writer.put(head)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hash.update(bytes);
        Ok(self.ingest.append(bytes)?)
    }

    fn write(&mut self, block: &Block, size: usize) -> Result<(), Error> {
        self.envelope.add(block, size);
        self.put(&block.bytes)
    }

    /// Writes blocks in their order until nobody makes any more.
    fn run(mut self, blocks: &Receiver<Done>, spend: &Sender<Vec<u8>>) -> Result<Writer, Error> {
        let mut ring = BTreeMap::new();
        let mut next = 0;
        for done in blocks {
            ring.insert(done.seq, done);
            while let Some(done) = ring.remove(&next) {
                next += 1;
                let block = done.block.map_err(Error::Compress)?;
                self.write(&block, done.chunk.bytes.len())?;
                let _ = spend.send(block.bytes);
            }
        }
        Ok(self)
    }

    fn finish(mut self) -> Result<(Digest, u64), Error> {
        let tail = self.envelope.tail();
        self.put(&tail)?;
        let digest = self.hash.finish();
        let size = self.ingest.commit_as(&digest)?;
        Ok((digest, size))
    }
}
