//! A blob on its way: read and hashed, decompressed, the tar hashed and read, each on a thread of
//! its own, with bounded channels between them.

use super::{BaseLayer, Error};
use crate::fs::archive;
use crate::oci::{Digest, Sha256};
use crate::progress::Span;
use crate::store::Blobs;
use crate::store::{Ingest, Store};
use crate::sys::Cancel;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes of a compressed piece.
const PACKED: usize = 256 << 10;
/// Bytes of a piece of the tar.
const RAW: usize = 1 << 20;
/// How many pieces may wait between two threads.
const DEPTH: usize = 3;

/// What the content of a layer may grow to: so much, and so many times the blob besides. Deflate
/// cannot do more than 1032 times.
#[derive(Clone, Copy)]
pub(super) struct Growth {
    pub free: u64,
    pub times: u64,
}

impl Growth {
    pub const USUAL: Growth = Growth {
        free: 1 << 30,
        times: 1100,
    };

    pub fn bound(self, packed: u64) -> u64 {
        packed.saturating_mul(self.times).saturating_add(self.free)
    }
}

/// Ends the threads of one `unpack_all`: the build's own switch, or the failure of a layer.
pub(super) struct Stop<'a> {
    pub cancel: &'a Cancel,
    pub failed: AtomicBool,
}

impl Stop<'_> {
    pub fn is_set(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || self.cancel.is_set()
    }
}

/// What a stage of the pipeline ended with, other than well.
pub(super) enum Broken {
    /// Another stage has ended, and knows why.
    Elsewhere,
    /// This.
    Here(Error),
}

/// What came of a blob that was read to its end.
pub(super) struct Arrived {
    /// The copy for the store; `None` where it was there.
    pub ingest: Option<Ingest>,
    pub diff_id: Digest,
}

/// Streams a layer's blob through `parse`, which gets the tar. The result counts only where all
/// has been read and verified.
pub(super) fn run<T: Send>(
    layer: &BaseLayer,
    blobs: &dyn Blobs,
    store: &Store,
    growth: Growth,
    stop: &Stop<'_>,
    fetch: &(dyn Fn() -> Span + Sync),
    parse: impl FnOnce(&mut Tar<'_>) -> Result<T, Error>,
) -> Result<(T, Arrived), Error> {
    let hostile = |why: String| Error::Hostile {
        digest: layer.descriptor.digest,
        why,
    };
    let (packed_out, packed_in) = bounded(DEPTH);
    let (raw_out, raw_in) = bounded(DEPTH);
    let (hash_out, hash_in) = bounded::<Arc<Vec<u8>>>(DEPTH);
    // Buffers go round: fresh ones cost a page fault every 4 KiB.
    let (used_out, used_in) = bounded(2 * DEPTH + 4);
    let over = AtomicBool::new(false);
    let packed_total = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            read(
                layer,
                blobs,
                store,
                stop,
                &over,
                fetch,
                packed_out,
                &packed_total,
            )
        });
        let inflating = scope.spawn(|| {
            let source = Pieces::new(packed_in, None);
            inflate(
                source,
                growth,
                &packed_total,
                raw_out,
                hash_out,
                used_in,
                &hostile,
            )
        });
        let used = used_out.clone();
        let hashing = scope.spawn(move || {
            let mut hash = Sha256::new();
            for piece in hash_in {
                hash.update(&piece);
                recycle(piece, &used);
            }
            hash.finish()
        });
        let mut tar = Tar {
            pieces: Pieces::new(raw_in, Some(used_out)),
            stop,
        };
        let parsed = parse(&mut tar).and_then(|value| {
            // What follows the end of the archive counts for the digest.
            let drained = io::copy(&mut tar, &mut io::sink());
            drained.map(|_| value).map_err(Error::Read)
        });
        let cut_off = tar.pieces.cut_off;
        if parsed.is_err() {
            over.store(true, Ordering::Relaxed);
        }
        drop(tar);
        let inflated = inflating.join().unwrap_or(Err(Broken::Elsewhere));
        if inflated.is_err() {
            over.store(true, Ordering::Relaxed);
        }
        let read = reading.join().unwrap_or(Err(Broken::Elsewhere));
        let diff_id = hashing.join().ok();
        if stop.cancel.is_set() {
            return Err(Error::Cancelled);
        }
        // The first stage that failed by itself knows the reason.
        let value = match parsed {
            Err(error) if !cut_off => return Err(error),
            other => other,
        };
        match inflated {
            Err(Broken::Here(error)) => return Err(error),
            Err(Broken::Elsewhere) | Ok(()) => {}
        }
        let ingest = match read {
            Err(Broken::Here(error)) => return Err(error),
            Err(Broken::Elsewhere) => return Err(Error::Cancelled),
            Ok(ingest) => ingest,
        };
        match (value, diff_id) {
            (Ok(value), Some(diff_id)) => Ok((value, Arrived { ingest, diff_id })),
            // Cut off because another layer has failed; that one says why.
            (Err(_), _) if stop.is_set() => Err(Error::Cancelled),
            (Err(error), _) => Err(error),
            (_, None) => Err(Error::Cancelled),
        }
    })
}

/// Reads the blob, from the store or from where it comes, verified and copied.
#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one pipeline, used here only"
)]
fn read(
    layer: &BaseLayer,
    blobs: &dyn Blobs,
    store: &Store,
    stop: &Stop<'_>,
    over: &AtomicBool,
    fetch: &(dyn Fn() -> Span + Sync),
    out: Sender<Option<Vec<u8>>>,
    total: &AtomicU64,
) -> Result<Option<Ingest>, Broken> {
    let here = |error: Error| Broken::Here(error);
    let wanted = &layer.descriptor;
    let kept = store
        .blob(&wanted.digest, wanted.size)
        .map_err(|error| here(error.into()))?;
    let (mut source, mut ingest, span): (Box<dyn Read + Send>, _, _) = match kept {
        Some(path) => match File::open(path) {
            Ok(file) => (Box::new(file), None, None),
            Err(error) => return Err(here(Error::Read(error))),
        },
        None => {
            let span = fetch();
            let ingest = store
                .ingest_unhashed()
                .map_err(|error| here(error.into()))?;
            let source = blobs.open(wanted).map_err(|e| here(Error::Read(e)))?;
            (source, Some(ingest), Some(span))
        }
    };
    let mut hash = Sha256::new();
    let mut size = 0u64;
    let mut heard = true;
    loop {
        if over.load(Ordering::Relaxed) || stop.is_set() {
            return Err(Broken::Elsewhere);
        }
        let mut piece = vec![0; PACKED];
        let len = fill(&mut source, &mut piece).map_err(|e| here(Error::Read(e)))?;
        piece.truncate(len);
        if len == 0 {
            break;
        }
        size += len as u64;
        if size > wanted.size {
            return Err(here(Error::Hostile {
                digest: wanted.digest,
                why: format!("it is longer than the {} bytes it should have", wanted.size),
            }));
        }
        total.store(size, Ordering::Relaxed);
        if let Some(ingest) = &mut ingest {
            hash.update(&piece);
            ingest.append(&piece).map_err(|error| here(error.into()))?;
        }
        if let Some(span) = &span {
            span.advance(len as u64);
        }
        // Who reads it may have had enough; the rest is verified nevertheless.
        heard = heard && out.send(Some(piece)).is_ok();
    }
    let digest = hash.finish();
    if size != wanted.size || ingest.is_some() && digest != wanted.digest {
        return Err(here(Error::Hostile {
            digest: wanted.digest,
            why: match size == wanted.size {
                true => format!("its bytes have digest {digest}"),
                false => format!("it has {size} bytes, not {}", wanted.size),
            },
        }));
    }
    let _ = out.send(None);
    Ok(ingest)
}

/// Decompresses and hands each piece to the hash and to the tar reader.
fn inflate(
    source: Pieces<Vec<u8>>,
    growth: Growth,
    packed: &AtomicU64,
    raw: Sender<Option<Arc<Vec<u8>>>>,
    hash: Sender<Arc<Vec<u8>>>,
    used: Receiver<Vec<u8>>,
    hostile: &(dyn Fn(String) -> Error + Sync),
) -> Result<(), Broken> {
    let cut_off = Arc::clone(&source.cut_flag);
    let broken = |error: io::Error| match cut_off.load(Ordering::Relaxed) {
        true => Broken::Elsewhere,
        false => Broken::Here(hostile(format!("its compression is damaged: {error}"))),
    };
    let (_, mut source) = archive::decompress(source).map_err(broken)?;
    let mut total = 0u64;
    loop {
        let mut piece = used.try_recv().unwrap_or_default();
        piece.resize(RAW, 0);
        let len = fill(&mut source, &mut piece).map_err(broken)?;
        if len == 0 {
            break;
        }
        piece.truncate(len);
        total += len as u64;
        if total > growth.bound(packed.load(Ordering::Relaxed)) {
            return Err(Broken::Here(hostile(format!(
                "it grows to more than {} times its size when decompressed",
                growth.times
            ))));
        }
        let piece = Arc::new(piece);
        if raw.send(Some(Arc::clone(&piece))).is_err() || hash.send(piece).is_err() {
            return Err(Broken::Elsewhere);
        }
    }
    let _ = raw.send(None);
    Ok(())
}

/// Reads until a buffer is full or the end is there.
fn fill(source: &mut dyn Read, out: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = out.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(len) => got += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

fn recycle(piece: Arc<Vec<u8>>, used: &Sender<Vec<u8>>) {
    if let Some(buffer) = Arc::into_inner(piece) {
        match used.try_send(buffer) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

/// The tar of a layer, for reading.
pub(super) struct Tar<'a> {
    pieces: Pieces<Arc<Vec<u8>>>,
    stop: &'a Stop<'a>,
}

impl Read for Tar<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_set() {
            self.pieces.cut_off = true;
            return Err(io::Error::other("cancelled"));
        }
        self.pieces.read(out)
    }
}

/// A channel's pieces as a stream. The end must be said; a channel that just closes is an error.
struct Pieces<B> {
    from: Receiver<Option<B>>,
    used: Option<Sender<Vec<u8>>>,
    piece: Option<B>,
    at: usize,
    ended: bool,
    cut_off: bool,
    cut_flag: Arc<AtomicBool>,
}

impl<B> Pieces<B> {
    fn new(from: Receiver<Option<B>>, used: Option<Sender<Vec<u8>>>) -> Pieces<B> {
        Pieces {
            from,
            used,
            piece: None,
            at: 0,
            ended: false,
            cut_off: false,
            cut_flag: Arc::default(),
        }
    }
}

trait Buffer {
    fn bytes(&self) -> &[u8];
    fn done(self, used: Option<&Sender<Vec<u8>>>);
}

impl Buffer for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
    fn done(self, _: Option<&Sender<Vec<u8>>>) {}
}

impl Buffer for Arc<Vec<u8>> {
    fn bytes(&self) -> &[u8] {
        self
    }
    fn done(self, used: Option<&Sender<Vec<u8>>>) {
        if let Some(used) = used {
            recycle(self, used);
        }
    }
}

impl<B: Buffer> Read for Pieces<B> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(piece) = &self.piece {
                let rest = piece.bytes().get(self.at..).unwrap_or_default();
                if !rest.is_empty() || out.is_empty() {
                    let len = rest.len().min(out.len());
                    out[..len].copy_from_slice(&rest[..len]);
                    self.at += len;
                    return Ok(len);
                }
            }
            if let Some(piece) = self.piece.take() {
                piece.done(self.used.as_ref());
            }
            if self.ended {
                return Ok(0);
            }
            match self.from.recv() {
                Ok(Some(piece)) => {
                    self.piece = Some(piece);
                    self.at = 0;
                }
                Ok(None) => self.ended = true,
                Err(_) => {
                    self.cut_off = true;
                    self.cut_flag.store(true, Ordering::Relaxed);
                    return Err(io::Error::new(
                        io::ErrorKind::BrokenPipe,
                        "the layer's stream was cut off",
                    ));
                }
            }
        }
    }
}
