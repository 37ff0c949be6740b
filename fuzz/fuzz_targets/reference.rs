//! Law: any text is a reference or is refused, without a panic; a reference that is written out and
//! read again is the same one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shutter::oci::Reference;

fuzz_target!(|text: &str| {
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse(), Ok(reference));
    }
});
