//! Law: a pattern matches a path as the slow and obvious matcher here says, which follows Go's
//! `filepath.Match` and moby's `patternmatcher` by the letter; and no path that is kept lies below a
//! pruned directory. Input: lines of patterns, NUL, a path.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shutter::dockerfile::ignore::{Glob, Ignore, Verdict};

fuzz_target!(|input: &[u8]| {
    let mut halves = input.splitn(2, |b| *b == 0);
    let (patterns, path) = (
        halves.next().unwrap_or_default(),
        halves.next().unwrap_or_default(),
    );
    // The slow matcher is exponential.
    if patterns.len() > 60 || path.len() > 40 || path.contains(&0) {
        return;
    }
    let (Ok(text), Ok(name)) = (std::str::from_utf8(patterns), std::str::from_utf8(path)) else {
        return;
    };
    for pattern in text.split('\n').filter(|p| stars(p) <= 6) {
        let chars: Vec<char> = pattern.chars().collect();
        let path: Vec<char> = name.chars().collect();
        let got = Glob::new(pattern.as_bytes()).map(|glob| glob.matches(name.as_bytes()));
        let got = got.ok();
        let expected = well_formed(&chars).then(|| go_match(&chars, &path));
        assert_eq!(got, expected, "{pattern:?} on {name:?}");
    }
    let parts: Vec<&str> = name
        .split('/')
        .filter(|p| !matches!(*p, "" | "." | ".."))
        .collect();
    let rules: Option<Vec<(bool, Vec<char>)>> = text.split('\n').filter_map(rule).collect();
    let ignore = Ignore::parse(text.as_bytes());
    // What a byte order mark in front hides is a matter of its own.
    if text.starts_with('\u{feff}') || stars(text) > 8 {
        return;
    }
    let (Some(rules), Ok(ignore)) = (&rules, &ignore) else {
        assert_eq!(rules.is_none(), ignore.is_err(), "{text:?}");
        return;
    };
    let path = parts.join("/");
    if path.is_empty() {
        return;
    }
    let expected = ignored(rules, &parts);
    assert_eq!(
        ignore.is_ignored(path.as_bytes()),
        expected,
        "{text:?} on {path:?}"
    );
    for n in 1..parts.len() {
        let dir = parts[..n].join("/");
        let verdict = ignore.directory(dir.as_bytes());
        assert_eq!(verdict == Verdict::Keep, !ignore.is_ignored(dir.as_bytes()));
        assert!(
            verdict != Verdict::Prune || expected,
            "{dir:?} hides {path:?}: {text:?}"
        );
    }
});

fn stars(text: &str) -> usize {
    text.matches('*').count()
}

/// Gives one line of an ignore file: whether it is an exception, and its pattern; `Some(None)` for
/// one that is refused.
fn rule(line: &str) -> Option<Option<(bool, Vec<char>)>> {
    if line.starts_with('#') {
        return None;
    }
    let line = line.trim();
    let (exception, line) = match line.strip_prefix('!') {
        Some(rest) => (true, rest.trim()),
        None => (false, line),
    };
    match (exception, line) {
        (false, "") => return None,
        (true, "") => return Some(None),
        _ => {}
    }
    let rooted = line.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in line.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let mut pattern = parts.join("/");
    if pattern.is_empty() {
        pattern = if rooted { "/" } else { "." }.into();
    }
    let pattern: Vec<char> = pattern.chars().collect();
    Some(well_formed(&pattern).then_some((exception, pattern)))
}

/// moby's `MatchesUsingParentResults`, from the first component down.
fn ignored(rules: &[(bool, Vec<char>)], parts: &[&str]) -> bool {
    let mut parent = vec![false; rules.len()];
    let mut matched = false;
    for n in 1..=parts.len() {
        let path: Vec<char> = parts[..n].join("/").chars().collect();
        let mut own = vec![false; rules.len()];
        matched = false;
        for (at, (exception, pattern)) in rules.iter().enumerate() {
            let mut hit = parent[at];
            if !hit {
                if *exception != matched {
                    continue;
                }
                hit = moby(pattern, &path);
            }
            own[at] = hit;
            if hit {
                matched = !exception;
            }
        }
        parent = own;
    }
    matched
}

/// One pattern of an ignore file: a regular expression in moby, with three ways around it.
fn moby(pattern: &[char], path: &[char]) -> bool {
    let special = |c: &char| matches!(c, '*' | '?' | '[' | ']' | '\\');
    if !pattern.iter().any(special) {
        return pattern == path;
    }
    if let Some(suffix) = pattern.strip_prefix(&['*', '*'])
        && !suffix.iter().any(special)
    {
        return path.ends_with(suffix) || suffix.strip_prefix(&['/']) == Some(path);
    }
    if let Some(prefix) = pattern.strip_suffix(&['*', '*'])
        && !prefix.iter().any(special)
    {
        return path.starts_with(prefix);
    }
    deep(pattern, path, 0)
}

/// Matches from a place in the path on, every way tried.
fn deep(pattern: &[char], path: &[char], at: usize) -> bool {
    let left = &path[at..];
    let Some((c, rest)) = pattern.split_first() else {
        return left.is_empty();
    };
    match c {
        '*' if rest.first() == Some(&'*') => {
            let rest = &rest[1..];
            let rest = rest.strip_prefix(&['/']).unwrap_or(rest);
            let reach = left.iter().position(|c| *c == '\n').unwrap_or(left.len());
            if rest.is_empty() {
                // `.*` at the end.
                return reach == left.len();
            }
            // `(.*/)?`
            deep(rest, path, at)
                || (0..reach).any(|n| left[n] == '/' && deep(rest, path, at + n + 1))
        }
        '*' => {
            let reach = left.iter().position(|c| *c == '/').unwrap_or(left.len());
            (0..=reach).any(|n| deep(rest, path, at + n))
        }
        '?' => left.first().is_some_and(|c| *c != '/') && deep(rest, path, at + 1),
        '^' => at == 0 && deep(rest, path, at),
        '\\' => rest.first() == left.first() && deep(&rest[1..], path, at + 1),
        '[' => match (class(rest, left.first().copied()), left) {
            (Some((true, rest)), [_, ..]) => deep(rest, path, at + 1),
            _ => false,
        },
        c => left.first() == Some(c) && deep(rest, path, at + 1),
    }
}

/// Go's `filepath.Match` for a pattern that is well formed.
fn go_match(pattern: &[char], path: &[char]) -> bool {
    let Some((c, rest)) = pattern.split_first() else {
        return path.is_empty();
    };
    match c {
        '*' => {
            let reach = path.iter().position(|c| *c == '/').unwrap_or(path.len());
            (0..=reach).any(|n| go_match(rest, &path[n..]))
        }
        '?' => path.first().is_some_and(|c| *c != '/') && go_match(rest, &path[1..]),
        '\\' => path.first() == rest.first() && go_match(&rest[1..], &path[1..]),
        '[' => match (class(rest, path.first().copied()), path) {
            (Some((true, rest)), [_, path @ ..]) => go_match(rest, path),
            _ => false,
        },
        c => path.first() == Some(c) && go_match(rest, &path[1..]),
    }
}

fn well_formed(pattern: &[char]) -> bool {
    match pattern.split_first() {
        None => true,
        Some(('\\', rest)) => !rest.is_empty() && well_formed(&rest[1..]),
        Some(('[', rest)) => class(rest, None).is_some_and(|(_, rest)| well_formed(rest)),
        Some((_, rest)) => well_formed(rest),
    }
}

/// Reads a class behind its `[`: whether it has the character, and what follows it.
fn class(pattern: &[char], c: Option<char>) -> Option<(bool, &[char])> {
    let negated = pattern.first() == Some(&'^');
    let mut rest = &pattern[usize::from(negated)..];
    let (mut has, mut ranges) = (false, 0);
    loop {
        if rest.first() == Some(&']') && ranges > 0 {
            return Some((has != negated, &rest[1..]));
        }
        let (low, after) = member(rest)?;
        let (high, after) = match after.first() {
            Some('-') => member(&after[1..])?,
            _ => (low, after),
        };
        has |= c.is_some_and(|c| (low..=high).contains(&c));
        ranges += 1;
        rest = after;
    }
}

fn member(pattern: &[char]) -> Option<(char, &[char])> {
    let pattern = match pattern.first()? {
        '-' | ']' => return None,
        '\\' => &pattern[1..],
        _ => pattern,
    };
    let (c, rest) = pattern.split_first()?;
    (!rest.is_empty()).then_some((*c, rest))
}
