//! Compressed archives, known by their content alone.

use std::io::{self, BufRead, BufReader, Read};

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not at all, as far as the first bytes tell.
    Plain,
    /// gzip.
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// Zstandard.
    Zstd,
}

/// The largest window a Zstandard stream may ask for: 128 MiB, as `zstd` itself grants.
const MAX_WINDOW_LOG: u32 = 27;
/// The most memory an xz stream may ask for.
const MAX_XZ_MEMORY: u64 = 256 << 20;

impl Packing {
    /// Tells by the first bytes of a file, of which six are enough.
    pub fn of(start: &[u8]) -> Packing {
        match start {
            [0x1f, 0x8b, 8, ..] => Packing::Gzip,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Packing::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Packing::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
            // A frame to be skipped may come first; this is where indexes of layers are kept.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Packing::Zstd,
            _ => Packing::Plain,
        }
    }
}

/// Finds out how a stream is compressed, and gives what is in it. Several members or frames one
/// after the other are one stream.
pub fn decompress<'a>(
    source: impl Read + Send + 'a,
) -> io::Result<(Packing, Box<dyn Read + Send + 'a>)> {
    let mut source = source;
    let mut start = Vec::with_capacity(6);
    (&mut source).take(6).read_to_end(&mut start)?;
    let packing = Packing::of(&start);
    let whole = io::Cursor::new(start).chain(source);
    let buffered = BufReader::with_capacity(128 << 10, whole);
    Ok((packing, unpack(packing, buffered)?))
}

fn unpack<'a>(
    packing: Packing,
    source: impl BufRead + Send + 'a,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match packing {
        Packing::Plain => Box::new(source),
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        Packing::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(source)),
        Packing::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(
                MAX_XZ_MEMORY,
                liblzma::stream::CONCATENATED,
            )?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(source, stream))
        }
        Packing::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            Box::new(decoder)
        }
    })
}
