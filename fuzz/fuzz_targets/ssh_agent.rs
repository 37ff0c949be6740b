//! Law: an agent answers any message or refuses it, without a panic; it lists its keys and signs with
//! them, and does nothing else. Input: a message as a command sends it, its length taken off.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shutter::ssh::{Key, answer, parse};
use std::sync::LazyLock;

/// Made of nothing but sevens.
const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
                   MC4CAQAwBQYDK2VwBCIEIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH\n\
                   -----END PRIVATE KEY-----\n";

static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| vec![parse(PEM.as_bytes()).expect("a key")]);

fuzz_target!(|request: &[u8]| {
    let answer = answer(request, &KEYS);
    let kind = answer.as_ref().and_then(|answer| answer.first().copied());
    match request {
        [11, ..] => {
            let public = &KEYS[0].public;
            let answer = answer.expect("a list");
            assert_eq!(kind, Some(12));
            assert!(answer.windows(public.len()).any(|part| part == public));
        }
        // Signed if the key is named, and if not, not.
        [13, rest @ ..] => {
            let public = &KEYS[0].public;
            let named = rest.get(4..).is_some_and(|rest| rest.starts_with(public));
            assert!(kind.is_none() || (kind == Some(14) && named));
        }
        _ => assert_eq!(kind, None),
    }
});
