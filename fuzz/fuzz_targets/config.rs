//! Law: any bytes are an image's config or are refused, without a panic; a config that is written
//! out and read again is the same one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shutter::oci::Image;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(image) = serde_json::from_slice::<Image>(bytes) {
        let again: Image =
            serde_json::from_slice(&image.to_bytes()).expect("what was written is read");
        assert_eq!(again, image);
        assert_eq!(
            Image::chain_ids(&image.rootfs.diff_ids).len(),
            image.rootfs.diff_ids.len()
        );
        let _ = image.config.env("PATH");
    }
});
