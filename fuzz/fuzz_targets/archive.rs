//! Law: any bytes are unpacked as far as they can be, or refused, without a panic; a stream that is
//! known by no magic comes out as it is; and what comes out can be handed to the reader of tars.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shutter::fs::archive::{Packing, decompress};
use shutter::fs::tar::{Body, Reader};
use std::io::Read;

/// How much of what comes out is looked at.
const MOST: u64 = 4 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Ok((packing, plain)) = decompress(bytes) else {
        return;
    };
    let mut out = Vec::new();
    let whole = plain.take(MOST).read_to_end(&mut out).is_ok();
    if packing == Packing::Plain {
        assert!(whole && out == bytes);
    }
    let mut reader = Reader::new(out.as_slice());
    // Twice: content that is read and content that is passed over have to end at the same place.
    let mut passed = Reader::new(out.as_slice());
    loop {
        let (read, skipped) = (reader.next_entry(), passed.next_entry());
        match (read, skipped) {
            (Ok(Some(read)), Ok(Some(skipped))) => {
                assert_eq!((&read.path, &read.meta), (&skipped.path, &skipped.meta));
                if matches!(read.body, Body::File) && read.meta.size < MOST {
                    let mut sum = 0;
                    let mut buffer = [0; 4096];
                    while let Ok(n @ 1..) = reader.read(&mut buffer) {
                        sum += n as u64;
                    }
                    assert!(sum <= read.meta.size);
                }
            }
            (Ok(None), Ok(None)) => break,
            // Content that is cut short is an error only for who reads it; either stops here.
            _ => break,
        }
    }
});
