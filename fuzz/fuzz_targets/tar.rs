//! Law: any bytes are read as a tar's entries or refused, without a panic and without memory that a
//! header merely asks for.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = shutter::layer::read_entries(bytes);
});
