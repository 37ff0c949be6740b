//! Law: any bytes are a manifest or index or are refused, without a panic; a manifest that is written
//! out and read again is the same one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shutter::oci::Document;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Document::Manifest(manifest)) = Document::parse(bytes, None) {
        let again = Document::parse(&manifest.to_bytes(), None).expect("what was written is read");
        assert_eq!(again, Document::Manifest(manifest));
    }
});
