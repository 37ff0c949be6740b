//! Law: any patterns compile or are refused, without a panic; what lies below a pruned directory is
//! left out; a directory is pruned or looked into only where it is left out itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shutter::dockerfile::ignore::{Ignore, Verdict, glob};

fuzz_target!(|input: (&[u8], &str)| {
    let (patterns, path) = input;
    let _ = glob(patterns, path.as_bytes());
    let clean: Vec<&str> = path
        .split('/')
        .filter(|part| !matches!(*part, "" | "." | ".."))
        .collect();
    let path = clean.join("/");
    let Ok(ignore) = Ignore::parse(patterns) else {
        return;
    };
    for (at, _) in path.match_indices('/') {
        let dir = &path.as_bytes()[..at];
        let verdict = ignore.directory(dir);
        assert_eq!(verdict == Verdict::Keep, !ignore.is_ignored(dir));
        if verdict == Verdict::Prune {
            assert!(ignore.is_ignored(path.as_bytes()));
        }
    }
});
