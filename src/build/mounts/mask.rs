//! Takes the values of secrets out of what a command prints, as it comes.

use std::collections::HashMap;
use std::sync::Arc;

/// What stands for a value.
const MASK: &[u8] = b"****";
/// Shorter values, and lines of values, are let through: they say nothing, and are everywhere.
const SHORTEST: usize = 3;

/// What is to be taken out.
#[derive(Debug)]
pub(super) struct Patterns {
    /// By their first bytes, the longest first.
    by_start: HashMap<[u8; SHORTEST], Vec<Vec<u8>>>,
    /// By value of a byte: whether a pattern begins with it.
    first: [bool; 256],
}

impl Default for Patterns {
    fn default() -> Patterns {
        Patterns {
            by_start: HashMap::new(),
            first: [false; 256],
        }
    }
}

/// How what is there begins.
enum Match {
    /// With a pattern of this length.
    Whole(usize),
    /// With what may become a pattern.
    Part,
    None,
}

impl Patterns {
    /// Makes the patterns of values: each as a whole, and each of its lines, white space around
    /// them aside.
    pub(super) fn of<'a>(values: impl Iterator<Item = &'a [u8]>) -> Patterns {
        let mut out = Patterns::default();
        for value in values {
            out.add(value.trim_ascii());
            for line in value.split(|&c| c == b'\n') {
                out.add(line.trim_ascii());
            }
        }
        for patterns in out.by_start.values_mut() {
            patterns.sort_unstable_by_key(|pattern| std::cmp::Reverse(pattern.len()));
        }
        out
    }

    fn add(&mut self, pattern: &[u8]) {
        let (Some(start), Some(&first)) = (pattern.first_chunk(), pattern.first()) else {
            return;
        };
        let same = self.by_start.entry(*start).or_default();
        if !same.iter().any(|known| known == pattern) {
            same.push(pattern.to_vec());
        }
        if let Some(first) = self.first.get_mut(usize::from(first)) {
            *first = true;
        }
    }

    fn is_empty(&self) -> bool {
        self.by_start.is_empty()
    }

    /// Looks at the beginning of some bytes.
    fn at(&self, bytes: &[u8]) -> Match {
        let Some(start) = bytes.first_chunk() else {
            let part = self.by_start.keys().any(|start| start.starts_with(bytes));
            return if part { Match::Part } else { Match::None };
        };
        let mut found = Match::None;
        for pattern in self.by_start.get(start).into_iter().flatten() {
            // A longer one that is not whole yet goes before a shorter one that is.
            if bytes.starts_with(pattern) {
                return Match::Whole(pattern.len());
            }
            if pattern.starts_with(bytes) {
                found = Match::Part;
                break;
            }
        }
        found
    }
}

/// One stream of what a command prints. What may be the beginning of a value is held back until
/// more comes.
pub(in crate::build) struct Mask {
    patterns: Arc<Patterns>,
    held: Vec<u8>,
}

impl Mask {
    pub(super) fn new(patterns: Arc<Patterns>) -> Mask {
        Mask {
            patterns,
            held: Vec::new(),
        }
    }

    /// Takes more bytes; gives what may be shown by now.
    pub(in crate::build) fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.patterns.is_empty() {
            return bytes.to_vec();
        }
        self.held.extend_from_slice(bytes);
        self.show(false)
    }

    /// Gives what was held back, at the end.
    pub(in crate::build) fn rest(&mut self) -> Vec<u8> {
        self.show(true)
    }

    fn show(&mut self, ended: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.held.len());
        // Where what has not been handed on begins, and where is looked.
        let (mut start, mut at) = (0, 0);
        while let Some(&byte) = self.held.get(at) {
            if !self.patterns.first[usize::from(byte)] {
                at += 1;
                continue;
            }
            let rest = self.held.get(at..).unwrap_or_default();
            match self.patterns.at(rest) {
                Match::Whole(length) => {
                    out.extend_from_slice(self.held.get(start..at).unwrap_or_default());
                    out.extend_from_slice(MASK);
                    at += length;
                    start = at;
                }
                Match::Part if !ended => break,
                Match::Part => match self.shorter(rest) {
                    Some(length) => {
                        out.extend_from_slice(self.held.get(start..at).unwrap_or_default());
                        out.extend_from_slice(MASK);
                        at += length;
                        start = at;
                    }
                    None => at += 1,
                },
                Match::None => at += 1,
            }
        }
        out.extend_from_slice(self.held.get(start..at).unwrap_or_default());
        self.held.drain(..at);
        out
    }

    /// Gives the length of the longest pattern that some bytes begin with, though a longer one had
    /// begun too.
    fn shorter(&self, bytes: &[u8]) -> Option<usize> {
        let same = self.patterns.by_start.get(bytes.first_chunk()?)?;
        let whole = same.iter().find(|pattern| bytes.starts_with(pattern))?;
        Some(whole.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(values: &[&str]) -> Arc<Patterns> {
        Arc::new(Patterns::of(values.iter().map(|value| value.as_bytes())))
    }

    #[test]
    fn values_are_taken_out_wherever_the_chunks_end() {
        // Values, what is printed, what is shown.
        let table: &[(&[&str], &str, &str)] = &[
            (&[], "s3cret", "s3cret"),
            (&["s3cret"], "", ""),
            (&["s3cret"], "a s3cret b", "a **** b"),
            (&["s3cret\n"], "s3cret", "****"),
            (&["s3cret"], "s3cres3crets3cret", "s3cre********"),
            (&["s3cret"], "s3cre", "s3cre"),
            (&["ss3cret"], "sss3cret", "s****"),
            (&["ab"], "ab", "ab"),
            (&["abc"], "abc", "****"),
            (
                &["one two\r\n  three\n}\n"],
                "one two three }",
                "**** **** }",
            ),
            (&["one\ntwo\nx"], "one\ntwo\nx", "****"),
            (&["one\ntwo\nx"], "one\ntwo\ny", "****\n****\ny"),
            (&["tok", "tok123"], "tok123 tok12 tok", "**** ****12 ****"),
            (&["aaaa"], "aaaaaaaaa", "********a"),
            (&["\u{fffd}x!"], "-\u{fffd}x!-", "-****-"),
            (&["   "], "   ", "   "),
        ];
        for (values, printed, shown) in table {
            let patterns = patterns(values);
            for size in 1..=printed.len().max(1) {
                let mut mask = Mask::new(Arc::clone(&patterns));
                let mut out = Vec::new();
                for chunk in printed.as_bytes().chunks(size) {
                    out.extend(mask.take(chunk));
                }
                out.extend(mask.rest());
                let out = String::from_utf8_lossy(&out).into_owned();
                assert_eq!(out, *shown, "{values:?}, {printed:?} by {size}");
                assert!(mask.rest().is_empty());
            }
        }
    }

    #[test]
    fn only_what_may_be_a_value_is_held_back() {
        let mut mask = Mask::new(patterns(&["s3cret", "other"]));
        // What comes, and what is shown at once.
        let table: &[(&str, &str)] = &[
            ("line\n", "line\n"),
            ("a s3c", "a "),
            ("x", "s3cx"),
            ("s3cre", ""),
            ("t", "****"),
            ("oth", ""),
            ("s3cret", "oth****"),
        ];
        for (comes, shown) in table {
            assert_eq!(mask.take(comes.as_bytes()), shown.as_bytes(), "{comes}");
        }
    }
}
