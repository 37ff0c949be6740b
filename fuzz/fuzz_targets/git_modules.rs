//! Law: any .gitmodules is read or refused, without a panic; what it names lies in the repository, and no
//! URL could be taken for an option.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shutter::git::{submodule_url, submodules};

fuzz_target!(|text: &[u8]| {
    let Ok(all) = submodules(text) else { return };
    for one in all {
        for path in [Some(&one.name), one.path.as_ref()].into_iter().flatten() {
            assert!(!path.is_root() && path.components().all(|name| name != b".."));
        }
        let Some(url) = &one.url else { continue };
        assert!(!url.starts_with('-') && !url.contains(char::is_control));
        if let Ok(url) = submodule_url("https://h/a/b.git", url) {
            assert!(!url.starts_with('-') && !url.contains(char::is_control));
        }
    }
});
