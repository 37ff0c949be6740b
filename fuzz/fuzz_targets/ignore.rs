//! Law: any patterns compile or are refused, without a panic; what lies below a pruned directory is
//! left out; a directory is pruned or looked into only where it is left out itself; what a pattern
//! matches is never below a directory where nothing was said to match.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shutter::dockerfile::ignore::{Glob, Ignore, Verdict};

fuzz_target!(|input: (&[u8], &str)| {
    let (patterns, path) = input;
    let glob = Glob::new(patterns);
    let clean: Vec<&str> = path
        .split('/')
        .filter(|part| !matches!(*part, "" | "." | ".."))
        .collect();
    let path = clean.join("/");
    if let Ok(glob) = &glob
        && glob.matches(path.as_bytes())
    {
        for (at, _) in path.match_indices('/') {
            assert!(glob.may_match_below(&path.as_bytes()[..at]));
        }
    }
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
