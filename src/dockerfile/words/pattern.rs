//! The shell patterns of `${V#p}`, `${V%p}` and `${V/p/r}`: `*`, `?`, backslash.
//!
//! BuildKit turns them into regular expressions; this matcher finds the same matches: alternatives
//! are tried in the same order, and `*` and `?` do not match a line feed. A state that failed once is
//! not tried again, so time and memory are bounded by pattern times value.

/// States that one search may have: pattern times value.
const MAX_STATES: usize = 16 << 20;

const TOO_LONG: &str = "pattern and value are too long to match";

/// Whether `*` takes as much as it can, or as little.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Greed {
    Longest,
    Shortest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    Any,
    Star,
}

/// A compiled pattern.
pub(super) struct Pattern(Vec<Token>);

/// Takes from what may be spent; an error where there is too little.
pub(super) fn spend(work: &mut usize, amount: usize) -> Result<(), String> {
    *work = work.checked_sub(amount).ok_or("it takes too much work")?;
    Ok(())
}

impl Pattern {
    pub(super) fn parse(pattern: &str) -> Result<Pattern, String> {
        let mut tokens = Vec::new();
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => match chars.peek() {
                    // These are escaped for the substitution's sake, which is over now.
                    Some('}' | '/') => continue,
                    Some(&c @ ('*' | '?' | '\\')) => {
                        chars.next();
                        Token::Char(c)
                    }
                    other => {
                        let c = other.copied().unwrap_or('\u{fffd}');
                        return Err(format!("invalid escape '\\{c}'"));
                    }
                },
                c => Token::Char(c),
            });
        }
        Ok(Pattern(tokens))
    }

    /// Removes what the pattern matches at the beginning.
    pub(super) fn without_prefix(
        &self,
        value: &str,
        greed: Greed,
        work: &mut usize,
    ) -> Result<String, String> {
        if let Some(text) = self.literal() {
            return Ok(value
                .strip_prefix(text.as_str())
                .unwrap_or(value)
                .to_owned());
        }
        let chars: Vec<char> = value.chars().collect();
        let end = Search::new(&self.0, &chars, greed)?.at(0, work)?;
        Ok(chars.iter().skip(end.unwrap_or(0)).collect())
    }

    /// Removes what the pattern matches at the end: pattern and value are read backwards.
    pub(super) fn without_suffix(
        &self,
        value: &str,
        greed: Greed,
        work: &mut usize,
    ) -> Result<String, String> {
        if let Some(text) = self.literal() {
            return Ok(value
                .strip_suffix(text.as_str())
                .unwrap_or(value)
                .to_owned());
        }
        let tokens: Vec<Token> = self.0.iter().rev().copied().collect();
        let chars: Vec<char> = value.chars().rev().collect();
        let end = Search::new(&tokens, &chars, greed)?.at(0, work)?;
        Ok(chars.iter().skip(end.unwrap_or(0)).rev().collect())
    }

    /// Replaces the first match.
    pub(super) fn replace_first(
        &self,
        value: &str,
        replacement: &str,
        work: &mut usize,
    ) -> Result<String, String> {
        if let Some(text) = self.literal() {
            spend(work, value.len())?;
            return Ok(value.replacen(&text, replacement, 1));
        }
        let chars: Vec<char> = value.chars().collect();
        let mut search = Search::new(&self.0, &chars, Greed::Longest)?;
        Ok(match search.from(0, work)? {
            Some((start, end)) => {
                let mut out: String = chars.iter().take(start).collect();
                out.push_str(replacement);
                out.extend(chars.iter().skip(end));
                out
            }
            None => value.to_owned(),
        })
    }

    /// Replaces every match. As in Go's `Regexp.ReplaceAllString`, `$0` in the replacement is the match,
    /// another `$name` is nothing, `$$` is a dollar; and nothing is not matched right behind a match.
    /// A result longer than `limit` is given up as soon as it is.
    pub(super) fn replace_all(
        &self,
        value: &str,
        replacement: &str,
        limit: usize,
        work: &mut usize,
    ) -> Result<String, String> {
        let chars: Vec<char> = value.chars().collect();
        let mut search = Search::new(&self.0, &chars, Greed::Longest)?;
        let mut out = String::new();
        let mut last = 0;
        let mut from = 0;
        while from <= chars.len() {
            let Some((start, end)) = search.from(from, work)? else {
                break;
            };
            out.extend(chars.iter().take(start).skip(last));
            if end > last || start == 0 {
                // What is read of it may leave nothing.
                spend(work, replacement.len())?;
                let before = out.len();
                expand(replacement, &chars[start..end], &mut out);
                spend(work, out.len() - before + 1)?;
                if out.len() > limit {
                    return Err(super::too_long(limit));
                }
            }
            last = end;
            from = end.max(from + 1);
        }
        out.extend(chars.iter().skip(last));
        Ok(out)
    }

    /// Gives the text that is the only one to match, if there is just one.
    fn literal(&self) -> Option<String> {
        self.0
            .iter()
            .map(|token| match token {
                Token::Char(c) => Some(*c),
                Token::Any | Token::Star => None,
            })
            .collect()
    }
}

/// Puts a match into a replacement.
fn expand(template: &str, matched: &[char], out: &mut String) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let (braced, inner) = match after.strip_prefix('{') {
            Some(inner) => (true, inner),
            None => (false, after),
        };
        let end = inner
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(inner.len());
        let (name, behind) = inner.split_at(end);
        let behind = if braced {
            behind.strip_prefix('}')
        } else {
            Some(behind)
        };
        match behind {
            Some(behind) if !name.is_empty() => {
                if name == "0" {
                    out.extend(matched);
                }
                rest = behind;
            }
            _ => {
                out.push('$');
                rest = after;
            }
        }
    }
    out.push_str(rest);
}

struct Search<'a> {
    tokens: &'a [Token],
    value: &'a [char],
    greed: Greed,
    /// The search in which a state was tried last; within one search a state is tried once.
    tried: Vec<u32>,
    search: u32,
    stack: Vec<(usize, usize)>,
}

impl<'a> Search<'a> {
    fn new(tokens: &'a [Token], value: &'a [char], greed: Greed) -> Result<Search<'a>, String> {
        let states = (tokens.len() + 1)
            .checked_mul(value.len() + 1)
            .filter(|states| *states <= MAX_STATES)
            .ok_or(TOO_LONG)?;
        Ok(Search {
            tokens,
            value,
            greed,
            tried: vec![0; states],
            search: 0,
            stack: Vec::new(),
        })
    }

    /// Finds the end of the match that begins here.
    fn at(&mut self, start: usize, work: &mut usize) -> Result<Option<usize>, String> {
        self.search += 1;
        self.attempt(start, work)
    }

    /// Finds the first match that begins here or later.
    fn from(&mut self, from: usize, work: &mut usize) -> Result<Option<(usize, usize)>, String> {
        self.search += 1;
        for start in from..=self.value.len() {
            if let Some(end) = self.attempt(start, work)? {
                return Ok(Some((start, end)));
            }
        }
        Ok(None)
    }

    /// Tries the alternatives depth first, the preferred one first.
    fn attempt(&mut self, start: usize, work: &mut usize) -> Result<Option<usize>, String> {
        let width = self.value.len() + 1;
        self.stack.clear();
        self.stack.push((0, start));
        while let Some((token, at)) = self.stack.pop() {
            spend(work, 1)?;
            match self.tried.get_mut(token * width + at) {
                Some(tried) if *tried != self.search => *tried = self.search,
                _ => continue,
            }
            let Some(kind) = self.tokens.get(token) else {
                return Ok(Some(at));
            };
            let next = self.value.get(at).copied();
            let any = next.is_some_and(|c| c != '\n');
            match kind {
                Token::Char(c) if next == Some(*c) => self.stack.push((token + 1, at + 1)),
                Token::Any if any => self.stack.push((token + 1, at + 1)),
                Token::Char(_) | Token::Any => {}
                Token::Star => {
                    let done = (token + 1, at);
                    let more = any.then_some((token, at + 1));
                    match self.greed {
                        Greed::Longest => {
                            self.stack.push(done);
                            self.stack.extend(more);
                        }
                        Greed::Shortest => {
                            self.stack.extend(more);
                            self.stack.push(done);
                        }
                    }
                }
            }
        }
        Ok(None)
    }
}
