//! One pattern, compiled.

/// A pattern that is not well formed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bad;

/// A piece of a pattern.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// These bytes.
    Text(Vec<u8>),
    /// `?`: one character, no slash.
    One,
    /// `*`: any characters, no slash.
    Star,
    /// `**` with more behind it: nothing, or anything that ends with a slash.
    Deep,
    /// `**` at the end: anything.
    Rest,
    /// `[...]`: one character, a slash too.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `^` outside a class: moby hands it to its regular expression, where it is the path's beginning.
    Beginning,
}

/// How a pattern of an ignore file is matched; most are plain names.
#[derive(Debug)]
pub(super) enum Matcher {
    /// The path itself.
    Exact(Vec<u8>),
    /// `name/**`: what begins so.
    Prefix(Vec<u8>),
    /// `**/name`: what ends so.
    Suffix(Vec<u8>),
    /// Anything else.
    Tokens(Tokens),
}

impl Matcher {
    pub(super) fn new(pattern: &[u8]) -> Result<Matcher, Bad> {
        // What Go's Match refuses is refused, though the pattern is then read in moby's way.
        Tokens::plain(pattern)?;
        let special = |b: &u8| matches!(b, b'*' | b'?' | b'[' | b']' | b'\\');
        if !pattern.iter().any(special) {
            return Ok(Matcher::Exact(pattern.to_vec()));
        }
        if let Some(suffix) = pattern.strip_prefix(b"**")
            && !suffix.iter().any(special)
        {
            return Ok(Matcher::Suffix(suffix.to_vec()));
        }
        if let Some(prefix) = pattern.strip_suffix(b"**")
            && !prefix.iter().any(special)
        {
            return Ok(Matcher::Prefix(prefix.to_vec()));
        }
        Tokens::deep(pattern).map(Matcher::Tokens)
    }

    pub(super) fn matches(&self, path: &[u8]) -> bool {
        match self {
            Matcher::Exact(name) => path == name,
            Matcher::Prefix(prefix) => path.starts_with(prefix),
            Matcher::Suffix(suffix) => {
                path.ends_with(suffix) || suffix.strip_prefix(b"/") == Some(path)
            }
            Matcher::Tokens(tokens) => tokens.matches(path),
        }
    }

    /// Tells whether some path below a directory (given with its slash) can match.
    pub(super) fn may_match_below(&self, dir: &[u8]) -> bool {
        match self {
            Matcher::Exact(name) => name.starts_with(dir),
            Matcher::Prefix(prefix) => prefix.starts_with(dir) || dir.starts_with(prefix),
            Matcher::Suffix(_) => true,
            Matcher::Tokens(tokens) => tokens.may_go_on(dir),
        }
    }
}

/// A pattern in pieces.
#[derive(Debug)]
pub(super) struct Tokens {
    tokens: Vec<Token>,
    /// The longest text in it: a path without it need not be looked at.
    needle: Vec<u8>,
}

/// What came of matching.
struct Outcome {
    /// The path matches.
    whole: bool,
    /// Something longer that begins with the path may match.
    below: bool,
}

impl Tokens {
    /// Reads a pattern as Go's `path.Match`.
    pub(super) fn plain(pattern: &[u8]) -> Result<Tokens, Bad> {
        Tokens::read(pattern, Stars::Plain)
    }

    /// Reads a pattern as moby's matcher, which knows `**` besides.
    fn deep(pattern: &[u8]) -> Result<Tokens, Bad> {
        Tokens::read(pattern, Stars::Deep)
    }

    fn read(pattern: &[u8], stars: Stars) -> Result<Tokens, Bad> {
        let mut tokens = Vec::new();
        let mut text = Vec::new();
        let mut rest = pattern;
        while let Some((&b, after)) = rest.split_first() {
            rest = after;
            let token = match b {
                b'*' => match rest.strip_prefix(b"*") {
                    Some(after) if stars == Stars::Deep => {
                        rest = after.strip_prefix(b"/").unwrap_or(after);
                        if rest.is_empty() {
                            Token::Rest
                        } else {
                            Token::Deep
                        }
                    }
                    _ => Token::Star,
                },
                b'?' => Token::One,
                b'^' if stars == Stars::Deep => Token::Beginning,
                b'[' => {
                    let (class, after) = class(rest)?;
                    rest = after;
                    class
                }
                b'\\' => {
                    let (escaped, after) = rest.split_first().ok_or(Bad)?;
                    rest = after;
                    text.push(*escaped);
                    continue;
                }
                b => {
                    text.push(b);
                    continue;
                }
            };
            if !text.is_empty() {
                tokens.push(Token::Text(std::mem::take(&mut text)));
            }
            // Stars in a row are one.
            if token != Token::Star || tokens.last() != Some(&Token::Star) {
                tokens.push(token);
            }
        }
        if !text.is_empty() {
            tokens.push(Token::Text(text));
        }
        let texts = tokens.iter().filter_map(|token| match token {
            Token::Text(text) => Some(text),
            _ => None,
        });
        let needle = texts.max_by_key(|text| text.len()).cloned();
        Ok(Tokens {
            tokens,
            needle: needle.unwrap_or_default(),
        })
    }

    pub(super) fn matches(&self, path: &[u8]) -> bool {
        // Most paths are out by their ends or for want of the needle, with nothing to set up.
        if let Some(Token::Text(text)) = self.tokens.first()
            && !path.starts_with(text)
        {
            return false;
        }
        if let Some(Token::Text(text)) = self.tokens.last()
            && !path.ends_with(text)
        {
            return false;
        }
        let needle = &self.needle;
        if needle.len() > 1 && !path.windows(needle.len()).any(|window| window == needle) {
            return false;
        }
        self.run(path).whole
    }

    /// Tells whether something longer that begins with these bytes may match.
    pub(super) fn may_go_on(&self, start: &[u8]) -> bool {
        self.run(start).below
    }

    /// Follows all ways to match at once, token by token: for each the set of places in the path that
    /// it can be reached at. Takes tokens times length, however the pattern is made.
    fn run(&self, path: &[u8]) -> Outcome {
        let end = path.len();
        let mut below = false;
        let mut places = vec![false; end + 1];
        if let Some(first) = places.first_mut() {
            *first = true;
        }
        let mut next = vec![false; end + 1];
        for token in &self.tokens {
            let Some(first) = places.iter().position(|place| *place) else {
                return Outcome {
                    whole: false,
                    below,
                };
            };
            // With the path used up and tokens left over, something longer can match.
            below |= places.last() == Some(&true);
            next.fill(false);
            let starts = (first..=end).filter(|at| places.get(*at) == Some(&true));
            match token {
                Token::Text(text) => {
                    for at in starts {
                        let left = path.get(at..).unwrap_or_default();
                        if left.starts_with(text) {
                            set(&mut next, at + text.len());
                        }
                        below |= text.starts_with(left);
                    }
                }
                Token::One | Token::Class { .. } => {
                    for at in starts {
                        let Some((c, width)) = decode(path.get(at..).unwrap_or_default()) else {
                            continue;
                        };
                        let fits = match token {
                            Token::Class { negated, ranges } => {
                                ranges.iter().any(|(low, high)| (low..=high).contains(&&c))
                                    != *negated
                            }
                            _ => c != '/',
                        };
                        if fits {
                            set(&mut next, at + width);
                        }
                    }
                }
                Token::Star => spread(&places, &mut next, first, |at| path.get(at) != Some(&b'/')),
                Token::Rest | Token::Deep => {
                    // As in moby's `.*`, a line feed is not part of anything.
                    spread(&places, &mut next, first, |at| path.get(at) != Some(&b'\n'));
                    below |= next.last() == Some(&true);
                    if *token == Token::Deep {
                        // Behind a slash that was reached, or where it began.
                        for at in (first..=end).rev() {
                            let reached = at > first
                                && path.get(at - 1) == Some(&b'/')
                                && next.get(at - 1) == Some(&true);
                            let stayed = places.get(at) == Some(&true);
                            if let Some(place) = next.get_mut(at) {
                                *place = reached || stayed;
                            }
                        }
                    }
                }
                Token::Beginning => {
                    if first == 0 {
                        set(&mut next, 0);
                    }
                }
            }
            std::mem::swap(&mut places, &mut next);
        }
        Outcome {
            whole: places.last() == Some(&true),
            below,
        }
    }
}

/// Whether two stars are more than one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stars {
    Plain,
    Deep,
}

fn set(places: &mut [bool], at: usize) {
    if let Some(place) = places.get_mut(at) {
        *place = true;
    }
}

/// Reaches on from every place over the bytes that are let through.
fn spread(places: &[bool], next: &mut [bool], first: usize, through: impl Fn(usize) -> bool) {
    let mut reached = false;
    for (at, (place, next)) in places.iter().zip(next).enumerate().skip(first) {
        reached = *place || (reached && at > 0 && through(at - 1));
        *next = reached;
    }
}

/// Reads a class behind its `[`.
fn class(pattern: &[u8]) -> Result<(Token, &[u8]), Bad> {
    let (negated, mut rest) = match pattern.strip_prefix(b"^") {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let mut ranges = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix(b"]")
            && !ranges.is_empty()
        {
            return Ok((Token::Class { negated, ranges }, after));
        }
        let (low, after) = member(rest)?;
        let (high, after) = match after.strip_prefix(b"-") {
            Some(after) => member(after)?,
            None => (low, after),
        };
        ranges.push((low, high));
        rest = after;
    }
}

/// Reads one character of a class; there is always something behind it.
fn member(pattern: &[u8]) -> Result<(char, &[u8]), Bad> {
    let pattern = match pattern.first() {
        None | Some(b'-' | b']') => return Err(Bad),
        Some(b'\\') => pattern.get(1..).unwrap_or_default(),
        Some(_) => pattern,
    };
    match decode(pattern) {
        Some((c, width)) if width < pattern.len() && (c != '\u{fffd}' || width > 1) => {
            Ok((c, pattern.get(width..).unwrap_or_default()))
        }
        _ => Err(Bad),
    }
}

/// Gives the first character and its width; a byte that is no UTF-8 counts as U+FFFD.
fn decode(bytes: &[u8]) -> Option<(char, usize)> {
    let first = *bytes.first()?;
    if first.is_ascii() {
        return Some((char::from(first), 1));
    }
    let chunk = bytes.get(..4).unwrap_or(bytes);
    let valid = match std::str::from_utf8(chunk) {
        Ok(text) => text,
        Err(error) => chunk
            .get(..error.valid_up_to())
            .and_then(|valid| std::str::from_utf8(valid).ok())
            .unwrap_or(""),
    };
    Some(
        valid
            .chars()
            .next()
            .map_or(('\u{fffd}', 1), |c| (c, c.len_utf8())),
    )
}
