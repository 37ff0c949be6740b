//! Law: any patterns compile or are refused, without a panic; what lies below a pruned directory is
//! left out; a directory is pruned or looked into only where it is left out itself; what a pattern
//! matches is never below a directory where nothing was said to match. Input: lines of patterns,
//! NUL, a path; any length, where `glob` compares short ones with an oracle.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shutter::dockerfile::ignore::{Glob, Ignore, Verdict};

fuzz_target!(|input: &[u8]| {
    let mut halves = input.splitn(2, |b| *b == 0);
    let (patterns, path) = (
        halves.next().unwrap_or_default(),
        halves.next().unwrap_or_default(),
    );
    let clean: Vec<&[u8]> = path
        .split(|b| *b == b'/')
        .filter(|part| !matches!(*part, b"" | b"." | b".."))
        .collect();
    let path = clean.join(&b'/');
    let slashes = || {
        let all = path.iter().enumerate().filter(|(_, b)| **b == b'/');
        all.map(|(at, _)| at).take(64)
    };
    if let Ok(glob) = Glob::new(patterns)
        && glob.matches(&path)
    {
        assert!(slashes().all(|at| glob.may_match_below(&path[..at])));
    }
    let lines: Vec<String> = patterns
        .split(|b| *b == b'\n')
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect();
    let both = [Ignore::parse(patterns), Ignore::compile(&lines)];
    for ignore in both.into_iter().flatten() {
        for at in slashes() {
            let dir = &path[..at];
            let verdict = ignore.directory(dir);
            assert_eq!(verdict == Verdict::Keep, !ignore.is_ignored(dir));
            if verdict == Verdict::Prune {
                assert!(ignore.is_ignored(&path));
            }
        }
    }
});
