//! .dockerignore and the patterns of COPY, matched as moby's patternmatcher and Go's `path.Match` do.
//!
//! Patterns are taken in order and the last one that matches a path or one of its parents decides;
//! one with `!` in front takes paths back in. What a parent's match decided is carried down, so an
//! exception counts below a directory only where the directory itself was left out when the
//! exception was come to.

mod pattern;

use super::directive::BOM;
use super::spelling::quote;
use pattern::{Matcher, Tokens};

/// Bytes that a line may have; longer ones are refused, as by BuildKit's scanner.
const MAX_LINE: usize = 65_535;

/// Why a pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// The compiled patterns of an ignore file.
#[derive(Debug, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
}

/// What an ignore file says of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is kept.
    Keep,
    /// It is left out, but something below it may be kept by an exception.
    LeaveOutButLook,
    /// It is left out with everything below it.
    Prune,
}

#[derive(Debug)]
struct Rule {
    matcher: Matcher,
    exception: bool,
}

impl Ignore {
    /// Compiles the text of an ignore file (comments, BOM, `!` exceptions).
    pub fn parse(text: &[u8]) -> Result<Ignore, Error> {
        let text = text.strip_prefix(BOM).unwrap_or(text);
        let mut rules = Vec::new();
        for (at, line) in text.split(|b| *b == b'\n').enumerate() {
            let wrong = |Error(why): Error| Error(format!("line {}: {why}", at + 1));
            if line.len() > MAX_LINE {
                return Err(wrong(Error(format!("longer than {MAX_LINE} bytes"))));
            }
            if line.starts_with(b"#") {
                continue;
            }
            let line = trim(line);
            let (exception, line) = match line.strip_prefix(b"!") {
                Some(rest) => (true, trim(rest)),
                None => (false, line),
            };
            if line.is_empty() {
                if exception {
                    return Err(wrong(Error("illegal exclusion pattern: \"!\"".into())));
                }
                continue;
            }
            let mut pattern = clean(line);
            // A pattern is relative to the context, with a slash in front or without.
            if pattern.len() > 1 && pattern.starts_with(b"/") {
                pattern.remove(0);
            }
            rules.push(Rule::new(&pattern, exception).map_err(wrong)?);
        }
        Ok(Ignore { rules })
    }

    /// Compiles patterns that do not come from a file (`COPY --exclude`): no comments; a slash in front
    /// counts.
    pub fn compile(patterns: &[String]) -> Result<Ignore, Error> {
        let mut rules = Vec::new();
        for pattern in patterns {
            let pattern = trim(pattern.as_bytes());
            if pattern.is_empty() {
                continue;
            }
            let pattern = clean(pattern);
            rules.push(match pattern.strip_prefix(b"!") {
                Some(b"") => return Err(Error("illegal exclusion pattern: \"!\"".into())),
                Some(rest) => Rule::new(rest, true)?,
                None => Rule::new(&pattern, false)?,
            });
        }
        Ok(Ignore { rules })
    }

    /// Tells whether there are no patterns, so that nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Tells whether a path (cleaned, relative, bytes) is left out; parents are taken into account.
    pub fn is_ignored(&self, path: &[u8]) -> bool {
        self.matches_in(&self.above(parent(path)), path)
    }

    /// Tells what becomes of a directory, so that a walk need not enter what cannot match.
    pub fn directory(&self, path: &[u8]) -> Verdict {
        self.enter(&self.above(parent(path)), path).0
    }

    /// Gives what the patterns made of a directory and those above it; the root is empty.
    pub fn above(&self, dir: &[u8]) -> Above {
        let mut above = Above(vec![false; self.rules.len()]);
        if is_root(dir) {
            return above;
        }
        let slashes = dir
            .iter()
            .enumerate()
            .filter(|(at, b)| **b == b'/' && *at > 0)
            .map(|(at, _)| at);
        for end in slashes.chain([dir.len()]) {
            above = self.go_on(&above, dir.get(..end).unwrap_or(dir)).1;
        }
        above
    }

    /// Tells whether a path directly in a directory is left out: [`is_ignored`](Self::is_ignored) for
    /// a walk, which looks at every component once.
    pub fn matches_in(&self, above: &Above, path: &[u8]) -> bool {
        self.look(above, path, |_| {}).0
    }

    /// Tells what becomes of a directory directly in another, and gives what its own content is to be
    /// asked with: [`directory`](Self::directory) for a walk.
    pub fn enter(&self, above: &Above, path: &[u8]) -> (Verdict, Above) {
        let ((ignored, decided_by), own) = self.go_on(above, path);
        if !ignored {
            return (Verdict::Keep, own);
        }
        // Whatever matched the directory matches all below it too, so only an exception that comes
        // after the deciding pattern can take something back in.
        let below = with_slash(path);
        let looks = self
            .rules
            .iter()
            .skip(decided_by + 1)
            .any(|rule| rule.exception && rule.matcher.may_match_below(&below));
        let verdict = if looks {
            Verdict::LeaveOutButLook
        } else {
            Verdict::Prune
        };
        (verdict, own)
    }

    /// Tells whether nothing that a source of COPY may name is kept; where that cannot be told from
    /// the patterns alone, it is no.
    pub fn leaves_out(&self, source: &str) -> bool {
        let mut rooted = b"/".to_vec();
        rooted.extend(source.as_bytes());
        let path = clean(&rooted);
        let path = path.strip_prefix(b"/").unwrap_or(&path);
        let parts: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
        let is_plain = |part: &&&[u8]| !part.iter().any(|b| b"*?[\\".contains(b));
        let plain: Vec<&[u8]> = parts.iter().take_while(is_plain).copied().collect();
        let fixed = plain.join(&b'/');
        if !fixed.is_empty() && self.directory(&fixed) == Verdict::Prune {
            return true;
        }
        // Of names that a pattern stands for these are left out only where all are.
        const NAMES: [&[u8]; 3] = [b"\x01", b"\x01\x02\x03", b".\x01"];
        let uncertain =
            path.iter().any(|b| b"[\\".contains(b)) || self.rules.iter().any(|rule| rule.exception);
        if uncertain || (plain.len() == parts.len() && !path.is_empty()) {
            return false;
        }
        let pattern = if path.is_empty() { b"*" } else { path };
        NAMES.iter().all(|name| {
            let mut sample = Vec::new();
            for &b in pattern {
                match b {
                    b'*' => sample.extend(*name),
                    b'?' => sample.push(1),
                    b => sample.push(b),
                }
            }
            self.is_ignored(&sample)
        })
    }

    /// Tells whether a pattern may match something below a directory that none matches.
    pub fn may_match_below(&self, dir: &[u8]) -> bool {
        let below = with_slash(dir);
        let mut rules = self.rules.iter();
        rules.any(|rule| !rule.exception && rule.matcher.may_match_below(&below))
    }

    fn go_on(&self, above: &Above, path: &[u8]) -> ((bool, usize), Above) {
        let mut own = above.clone();
        let decision = self.look(above, path, |at| {
            if let Some(matched) = own.0.get_mut(at) {
                *matched = true;
            }
        });
        (decision, own)
    }

    /// Says whether a path is left out and by which rule, and names the rules that match it beside
    /// those that matched above it.
    fn look(&self, above: &Above, path: &[u8], mut matched: impl FnMut(usize)) -> (bool, usize) {
        let mut decision = (false, 0);
        if is_root(path) {
            return decision;
        }
        for (at, rule) in self.rules.iter().enumerate() {
            if above.0.get(at) != Some(&true) {
                // A rule that would change nothing is not asked, and is not remembered either.
                if rule.exception != decision.0 || !rule.matcher.matches(path) {
                    continue;
                }
                matched(at);
            }
            decision = (!rule.exception, at);
        }
        decision
    }
}

/// Which patterns matched a directory or one above it.
#[derive(Clone, Debug, Default)]
pub struct Above(Vec<bool>);

fn is_root(path: &[u8]) -> bool {
    matches!(path, b"" | b".")
}

fn parent(path: &[u8]) -> &[u8] {
    let cut = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
    path.get(..cut).unwrap_or_default()
}

fn with_slash(dir: &[u8]) -> Vec<u8> {
    match is_root(dir) {
        true => Vec::new(),
        false => [dir, b"/"].concat(),
    }
}

impl Rule {
    fn new(pattern: &[u8], exception: bool) -> Result<Rule, Error> {
        Ok(Rule {
            matcher: Matcher::new(pattern).map_err(|pattern::Bad| bad(pattern))?,
            exception,
        })
    }
}

fn bad(pattern: &[u8]) -> Error {
    let pattern = quote(&String::from_utf8_lossy(pattern));
    Error(format!("syntax error in pattern: {pattern}"))
}

/// A compiled pattern of Go's `path/filepath.Match`: `*`, `?`, `[...]`, `\`; a slash is matched only
/// by a slash or a class.
#[derive(Debug)]
pub struct Glob(Tokens);

impl Glob {
    /// Compiles a pattern.
    pub fn new(pattern: &[u8]) -> Result<Glob, Error> {
        let tokens = Tokens::plain(pattern).map_err(|pattern::Bad| bad(pattern))?;
        Ok(Glob(tokens))
    }

    /// Tells whether it matches a path as a whole.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.0.matches(path)
    }

    /// Tells whether it may match something below a directory.
    pub fn may_match_below(&self, dir: &[u8]) -> bool {
        self.0.may_go_on(&with_slash(dir))
    }
}

/// Tells whether a source of COPY has wildcards (BuildKit's `containsWildcards`).
pub fn has_wildcards(source: &str) -> bool {
    let mut bytes = source.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'\\' => drop(bytes.next()),
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// Trims white space; of bytes that are no UTF-8 only ASCII's.
fn trim(line: &[u8]) -> &[u8] {
    match std::str::from_utf8(line) {
        Ok(line) => line.trim().as_bytes(),
        Err(_) => line.trim_ascii(),
    }
}

/// Gives the shortest path of the same meaning, as Go's `path.Clean`.
fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.starts_with(b"/");
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => drop(parts.pop()),
            b".." if rooted => {}
            part => parts.push(part),
        }
    }
    let mut out = Vec::with_capacity(path.len());
    if rooted {
        out.push(b'/');
    }
    out.extend(parts.join(&b'/'));
    if out.is_empty() {
        out.push(b'.');
    }
    out
}

#[cfg(test)]
mod tests;
