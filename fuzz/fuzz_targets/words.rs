//! Law: any word expands or is refused, without a panic and within bounds; a word without special
//! characters is itself; and in quotes any text without a single quote is itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shutter::dockerfile::words;

fn env(name: &str) -> Option<String> {
    match name {
        "A" => Some("a*b/c.tar.gz".into()),
        "B" => Some("x".repeat(5000)),
        "E" => Some(String::new()),
        _ => None,
    }
}

fuzz_target!(|text: &str| {
    for escape in ['\\', '`'] {
        let _ = words::raw(text, escape, &env);
        let _ = words::split(text, escape, &env);
        let word = words::word(text, escape, &env);
        if !text.contains(['$', '\'', '"', escape, '\u{feff}']) && text.len() < 1 << 20 {
            assert_eq!(word.map(|e| e.text).as_deref(), Ok(text));
        }
        if !text.contains('\'') && text.len() < 1 << 20 {
            let quoted = words::word(&format!("'{text}'"), escape, &env);
            assert_eq!(quoted.map(|e| e.text).as_deref(), Ok(text));
        }
    }
});
