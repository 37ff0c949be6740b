use super::super::archive::{Packing, decompress};
use super::super::tar::{Reader, TarError};
use proptest::prelude::*;
use std::io::{Read, Write};
use tar_core::parse::{Limits, ParseEvent, Parser};

fn header(name: &[u8], kind: u8, size: usize) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[136..147].copy_from_slice(b"00000000001");
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    block
}

fn seal(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Names with contents.
type Files = Vec<(Vec<u8>, Vec<u8>)>;

fn ours(bytes: &[u8]) -> Result<Files, TarError> {
    let mut reader = Reader::new(bytes);
    let mut out = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        (&mut reader)
            .take(1 << 16)
            .read_to_end(&mut content)
            .map_err(TarError::Read)?;
        out.push((entry.path.as_bytes().to_vec(), content));
    }
    Ok(out)
}

/// The same with another reader.
fn theirs(mut bytes: &[u8]) -> Option<Files> {
    let mut parser = Parser::new(Limits::default());
    let mut out = Vec::new();
    loop {
        match parser.parse(bytes).ok()? {
            ParseEvent::Entry { consumed, entry } => {
                let size = usize::try_from(entry.size).ok()?;
                let name = entry.path.to_vec();
                bytes = bytes.get(consumed..)?;
                out.push((name, bytes.get(..size)?.to_vec()));
                bytes = bytes.get(size.next_multiple_of(512)..)?;
            }
            ParseEvent::GlobalExtensions { consumed, .. } => bytes = bytes.get(consumed..)?,
            ParseEvent::End { .. } => return Some(out),
            _ => return None,
        }
    }
}

proptest! {
    /// Plain archives are the same to both readers, whatever names and sizes.
    #[test]
    fn another_reader_sees_the_same(files in prop::collection::vec(("[a-z]{1,90}", 0usize..1500, any::<bool>(), "[a-z/]{0,40}[a-z]"), 0..6)) {
        let mut bytes = Vec::new();
        for (name, size, pax, tail) in &files {
            if *pax {
                let rest = format!(" path={name}/x{}\n", tail.replace('/', ""));
                let mut len = rest.len() + 2;
                len += usize::from(len > 99);
                let record = format!("{len}{rest}");
                prop_assume!(record.len() == len);
                bytes.extend(header(b"pax", b'x', record.len()));
                bytes.extend(record.as_bytes());
                bytes.resize(bytes.len().next_multiple_of(512), 0);
            }
            bytes.extend(header(name.as_bytes(), b'0', *size));
            bytes.extend(vec![b'c'; *size]);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        bytes.extend([0; 1024]);
        prop_assert_eq!(ours(&bytes).ok(), theirs(&bytes));
    }

    /// Whatever the bytes are, reading them ends, without a panic.
    #[test]
    fn damage_is_an_error(
        kind in prop::sample::select(b"012345678xgLKSDVs\0".to_vec()),
        hits in prop::collection::vec((0usize..512, any::<u8>()), 0..8),
        body in prop::collection::vec(any::<u8>(), 0..1600),
        size in 0usize..2000,
    ) {
        let mut block = header(b"name", kind, size);
        for (at, byte) in hits {
            block[at] = byte;
        }
        seal(&mut block);
        let mut bytes = block.to_vec();
        bytes.extend(&body);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes.extend(header(b"next", b'0', 0));
        let _ = ours(&bytes);
    }
}

#[test]
fn archives_are_known_by_their_bytes() {
    let text = b"some text, some text, some text".repeat(50);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&text).unwrap();
    let mut bzip = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip.write_all(&text).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&text).unwrap();
    for (bytes, packing) in [
        (text.clone(), Packing::Plain),
        (gzip.finish().unwrap(), Packing::Gzip),
        (bzip.finish().unwrap(), Packing::Bzip2),
        (xz.finish().unwrap(), Packing::Xz),
        (zstd::encode_all(&text[..], 1).unwrap(), Packing::Zstd),
    ] {
        // Two of them one after the other are one stream; so they are with no compression.
        let twice = bytes.repeat(2);
        let (found, mut plain) = decompress(&twice[..]).unwrap();
        let mut got = Vec::new();
        plain.read_to_end(&mut got).unwrap();
        assert_eq!(found, packing);
        assert!(got == text.repeat(2), "{packing:?}");
    }
    assert_eq!(decompress(&b""[..]).unwrap().0, Packing::Plain);
}
