//! Changeset to blob, or to a plain archive.

mod codec;
mod frame;
mod permits;
mod pipeline;
pub mod tar;
#[cfg(test)]
mod tests;

pub use permits::Permits;

use super::Error;
use crate::changeset::{Change, Changeset};
use crate::fs::Toc;
use crate::oci::{Descriptor, Digest, Format, media};
use crate::progress::Span;
use crate::request::Compression;
use crate::store::Store;
use crate::sys::Cancel;
use codec::Codec;
use permits::Account;
use pipeline::Pipeline;
use std::io;
use std::sync::Arc;

/// A layer that is in the store.
pub struct Packed {
    /// The compressed blob.
    pub descriptor: Descriptor,
    /// The digest of the tar.
    pub diff_id: Digest,
    /// Bytes of the tar.
    pub raw: u64,
    /// Number of entries.
    pub entries: u64,
}

/// What becomes of the times of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Times {
    /// They stay.
    #[default]
    Keep,
    /// Those later than so many seconds since 1970 become that.
    Clamp(i64),
    /// All become so many seconds since 1970.
    Set(i64),
}

/// How a layer is made.
#[derive(Clone)]
pub struct PackOptions {
    /// The compression.
    pub compression: Compression,
    /// The family of the descriptor's media type.
    pub format: Format,
    /// What becomes of the times of files.
    pub times: Times,
    /// Ends the work early.
    pub cancel: Cancel,
}

/// Makes a layer of a settled changeset and puts blob and toc into the store. The toc has content
/// ids and is what the tar says: with whole seconds, and with the times that `Times` asked for. It
/// is not given, so that no layer's names stay in memory until the build ends.
///
/// The tar is the same for the same changeset and `Times`: entries in canonical order, whiteouts
/// at the place of what they delete, no entry for the root, whole seconds. The blob's bytes depend
/// on the tar, the compression and the processor's architecture, not on the number of threads.
///
/// Blocks, so never to be called on a thread of the rayon pool. A tar of up to one block (1 MiB with
/// gzip, 4 MiB with zstd) is made on the calling thread; for more, the two hashes and reading ahead
/// have threads of their own and compression runs on the rayon pool.
pub fn pack(
    changeset: &Changeset,
    options: &PackOptions,
    store: &Store,
    permits: &Arc<Permits>,
    span: &Span,
) -> Result<Packed, Error> {
    pack_telling(changeset, options, store, permits, span, &|| ())
}

/// Does what `pack` does, and calls `read` once all content has been read: what is left to do is
/// done with what is in memory, and the files may change.
pub fn pack_telling(
    changeset: &Changeset,
    options: &PackOptions,
    store: &Store,
    permits: &Arc<Permits>,
    span: &Span,
    read: &dyn Fn(),
) -> Result<Packed, Error> {
    let codec = Codec::new(options.compression);
    let account = Account::new(permits, codec.block_size());
    let cancel = &options.cancel;
    let (blob, entries) = std::thread::scope(|scope| {
        let mut pipeline = Pipeline::new(scope, store, span, cancel, &account, codec);
        let changes = &changeset.changes;
        let entries = frame::frame(
            scope,
            changes,
            (options.times, frame::Table::Wanted),
            &account,
            cancel,
            &mut pipeline,
        )?;
        read();
        Ok::<_, Error>((pipeline.finish()?, entries))
    })?;
    let count = entries.len() as u64;
    store.put_toc(&blob.diff_id, &Toc::new(entries))?;
    Ok(Packed {
        descriptor: Descriptor {
            media_type: media_type(options.compression, options.format).into(),
            digest: blob.digest,
            size: blob.size,
            urls: Vec::new(),
            annotations: Default::default(),
        },
        diff_id: blob.diff_id,
        raw: blob.raw,
        entries: count,
    })
}

/// Writes settled changes as an archive that is no layer: uncompressed, framed as `pack` does it, in
/// pieces of up to 1 MiB.
///
/// Blocks as `pack` does, and reads ahead on threads of its own.
pub fn archive(
    changes: &[Change],
    permits: &Arc<Permits>,
    cancel: &Cancel,
    write: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), Error> {
    let account = Account::new(permits, PIECE);
    let mut plain = Plain {
        buffer: account.chunk(),
        write,
        cancel,
    };
    std::thread::scope(|scope| {
        let manner = (Times::Keep, frame::Table::Unwanted);
        frame::frame(scope, changes, manner, &account, cancel, &mut plain)?;
        plain.flush()
    })
}

/// The size of a piece of an archive.
const PIECE: usize = 1 << 20;

/// A tar as it is, in pieces.
struct Plain<'a> {
    buffer: permits::Chunk,
    write: &'a mut dyn FnMut(&[u8]) -> io::Result<()>,
    cancel: &'a Cancel,
}

impl Plain<'_> {
    fn flush(&mut self) -> Result<(), Error> {
        if self.cancel.is_set() {
            return Err(Error::Cancelled);
        }
        let bytes = &mut self.buffer.bytes;
        (self.write)(bytes).map_err(Error::Write)?;
        bytes.clear();
        Ok(())
    }
}

impl frame::Out for Plain<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.buffer.bytes.len() + bytes.len() > PIECE {
            self.flush()?;
        }
        self.buffer.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn fill(
        &mut self,
        limit: u64,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> Result<io::Result<&[u8]>, Error> {
        if self.buffer.bytes.len() >= PIECE {
            self.flush()?;
        }
        let bytes = &mut self.buffer.bytes;
        let at = bytes.len();
        let room = usize::try_from(limit).unwrap_or(usize::MAX).min(PIECE - at);
        bytes.resize(at + room, 0);
        let got = read(&mut bytes[at..]);
        bytes.truncate(at + got.as_ref().map_or(0, |n| *n.min(&room)));
        Ok(got.map(|_| &bytes[at..]))
    }
}

/// Docker's own type for zstd is containerd's; Docker's specification has none.
fn media_type(compression: Compression, format: Format) -> &'static str {
    match (compression, format) {
        (Compression::Gzip(_), Format::Oci) => media::OCI_LAYER_GZIP,
        (Compression::Gzip(_), Format::Docker) => media::DOCKER_LAYER_GZIP,
        (Compression::Zstd(_), Format::Oci) => media::OCI_LAYER_ZSTD,
        (Compression::Zstd(_), Format::Docker) => {
            "application/vnd.docker.image.rootfs.diff.tar.zstd"
        }
    }
}

/// Parts of the pipeline by themselves, for benchmarks.
#[doc(hidden)]
pub mod bench {
    use crate::request::Compression;

    /// Compresses one block; gives its length.
    pub fn block(compression: Compression, input: &[u8]) -> usize {
        let codec = super::Codec::new(compression);
        codec
            .compress(b"", input, Vec::new())
            .map_or(0, |block| block.bytes.len())
    }
}
