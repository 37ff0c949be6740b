//! Law: any file is a private key or is refused with a reason, without a panic and soon; a key that is
//! read is listed with its public half, and signs or refuses to. Input: the file; after a leading 0,
//! what OpenSSH's form has in base64.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shutter::ssh::{answer, parse};

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn armored(bytes: &[u8]) -> Vec<u8> {
    let mut out = b"-----BEGIN OPENSSH PRIVATE KEY-----\n".to_vec();
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .chain([&0; 2])
            .take(3)
            .fold(0, |group, byte| group << 8 | usize::from(*byte));
        for at in 0..4 {
            out.push(match at > chunk.len() {
                true => b'=',
                false => DIGITS[group >> (18 - 6 * at) & 63],
            });
        }
    }
    out.extend(b"\n-----END OPENSSH PRIVATE KEY-----\n");
    out
}

fuzz_target!(|bytes: &[u8]| {
    let parsed = match bytes {
        [0, rest @ ..] => parse(&armored(rest)),
        text => parse(text),
    };
    let key = match parsed {
        Ok(key) => key,
        Err(why) => return assert!(!why.0.is_empty()),
    };
    let keys = [key];
    let list = answer(&[11], &keys).expect("a list");
    let public = &keys[0].public;
    assert!(list.windows(public.len()).any(|part| part == public));
    for flags in [0, 2, 4] {
        if let Some(signature) = keys[0].sign(b"message", flags) {
            assert!(signature.len() > 32);
        }
    }
});
