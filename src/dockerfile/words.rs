//! Word expansion: variables in all of BuildKit's forms, quotes, escapes.
//!
//! `$V`, `${V}`, `${V:-w}`, `${V:+w}`, `${V:?w}` (each without the colon too), `${V#p}`, `${V##p}`,
//! `${V%p}`, `${V%%p}`, `${V/p/r}`, `${V//p/r}`. Words and patterns may hold further variables. What
//! an expansion may cost is bounded: variables that double each other are no way to fill the memory.

mod pattern;

use super::spelling::quote;
use pattern::{Greed, Pattern};
use std::collections::HashSet;
use std::iter::Peekable;
use std::str::Chars;

/// Bytes that a word may become.
const MAX_WORD: usize = 1 << 20;

/// Bytes that a heredoc's body may become.
const MAX_BODY: usize = 64 << 20;

/// Bytes and matching steps that one expansion may handle on its way.
const MAX_WORK: usize = 8 << 20;

/// Substitutions that may lie inside each other.
const MAX_DEPTH: usize = 100;

/// Characters of a word that an error repeats.
const MAX_SHOWN: usize = 200;

/// Why a word cannot be expanded (a required variable that is not set, a bad modifier).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// An expanded word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expanded {
    /// The text.
    pub text: String,
    /// Variables that were asked for and are not set, each once, in the order they were asked for.
    pub unset: Vec<String>,
}

/// Expands one word: quotes are processed and removed, nothing is split.
pub fn word(
    text: &str,
    escape: char,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Expanded, Error> {
    Lexer::new(text, escape, env).whole(text)
}

/// Expands variables and processes escapes, but leaves quotes alone (a heredoc's body).
///
/// BuildKit takes the backslash for the escape character of bodies, whatever the file's is.
pub fn raw(
    text: &str,
    escape: char,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Expanded, Error> {
    let mut lexer = Lexer::new(text, escape, env);
    lexer.quotes = Quotes::Ignored;
    lexer.limit = MAX_BODY;
    lexer.whole(text)
}

/// Expands and splits at white space outside quotes (EXPOSE). What a variable brings is split too,
/// unless it stands in quotes.
pub fn split(
    text: &str,
    escape: char,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<String>, Error> {
    Lexer::new(text, escape, env).split(text)
}

/// Splits a text into words with every variable left as it stands.
pub(super) fn lexical(text: &str, quotes: Quotes, escapes: Escapes) -> Result<Vec<String>, Error> {
    let mut lexer = Lexer::new(text, '\\', &|_| None);
    lexer.quotes = quotes;
    lexer.escapes = escapes;
    lexer.unset_stays = true;
    lexer.limit = usize::MAX;
    lexer.split(text)
}

/// Says that a text passes its bound.
fn too_long(limit: usize) -> String {
    format!("it becomes longer than {} MiB", limit >> 20)
}

/// What becomes of quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Quotes {
    /// They quote and are removed.
    Removed,
    /// They quote and stay.
    Kept,
    /// They are characters like others.
    Ignored,
}

/// What becomes of the escape character.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Escapes {
    /// It goes, the escaped character stays.
    Removed,
    /// Both stay.
    Kept,
}

/// The words that a text falls into while it is expanded.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    word: String,
}

impl Words {
    fn plain(&mut self, c: char) {
        if !c.is_whitespace() {
            self.word.push(c);
        } else if !self.word.is_empty() {
            self.done.push(std::mem::take(&mut self.word));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.done.push(self.word);
        }
        self.done
    }
}

struct Lexer<'a> {
    chars: Peekable<Chars<'a>>,
    escape: char,
    env: &'a dyn Fn(&str) -> Option<String>,
    quotes: Quotes,
    escapes: Escapes,
    /// Leaves variables that are not set as they were written.
    unset_stays: bool,
    unset: Vec<String>,
    known_unset: HashSet<String>,
    limit: usize,
    work: usize,
    depth: usize,
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str, escape: char, env: &'a dyn Fn(&str) -> Option<String>) -> Lexer<'a> {
        Lexer {
            // A byte order mark in front is passed over.
            chars: text
                .strip_prefix('\u{feff}')
                .unwrap_or(text)
                .chars()
                .peekable(),
            escape,
            env,
            quotes: Quotes::Removed,
            escapes: Escapes::Removed,
            unset_stays: false,
            unset: Vec::new(),
            known_unset: HashSet::new(),
            limit: MAX_WORD,
            work: MAX_WORK,
            depth: 0,
        }
    }

    fn whole(mut self, source: &str) -> Result<Expanded, Error> {
        let text = self.run(None, None).map_err(|e| failed(source, &e))?;
        Ok(Expanded {
            text,
            unset: self.unset,
        })
    }

    fn split(mut self, source: &str) -> Result<Vec<String>, Error> {
        let mut words = Words::default();
        self.run(None, Some(&mut words))
            .map_err(|e| failed(source, &e))?;
        Ok(words.finish())
    }

    /// Expands up to the character that ends it, or to the end of the text.
    fn run(&mut self, stop: Option<char>, mut words: Option<&mut Words>) -> Result<String, String> {
        let mut result = String::new();
        let quoting = self.quotes != Quotes::Ignored;
        while let Some(&c) = self.chars.peek() {
            if stop == Some(c) {
                self.chars.next();
                return Ok(result);
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    if let Some(words) = words.as_deref_mut() {
                        value.chars().for_each(|c| words.plain(c));
                    }
                    result.push_str(&value);
                }
                '\'' | '"' if quoting => {
                    let text = match c {
                        '"' => self.double_quoted()?,
                        _ => self.single_quoted()?,
                    };
                    if let Some(words) = words.as_deref_mut() {
                        words.word.push_str(&text);
                    }
                    result.push_str(&text);
                }
                _ => {
                    self.chars.next();
                    if c == self.escape {
                        let kept = (self.escapes == Escapes::Kept).then_some(c);
                        let escaped = self.chars.next();
                        if let Some(words) = words.as_deref_mut() {
                            words.word.extend(kept.into_iter().chain(escaped));
                        }
                        result.extend(kept.into_iter().chain(escaped));
                    } else {
                        if let Some(words) = words.as_deref_mut() {
                            words.plain(c);
                        }
                        result.push(c);
                    }
                }
            }
            self.fits(&result)?;
        }
        match stop {
            Some(stop) => Err(format!(
                "unexpected end of statement while looking for matching {stop}"
            )),
            None => Ok(result),
        }
    }

    fn single_quoted(&mut self) -> Result<String, String> {
        let mut result = String::new();
        let kept = self.quotes == Quotes::Kept;
        result.extend(self.chars.next().filter(|_| kept));
        loop {
            match self.chars.next() {
                Some('\'') => {
                    result.extend(kept.then_some('\''));
                    return Ok(result);
                }
                Some(c) => result.push(c),
                None => {
                    return Err(
                        "unexpected end of statement while looking for matching single-quote"
                            .into(),
                    );
                }
            }
        }
    }

    fn double_quoted(&mut self) -> Result<String, String> {
        let mut result = String::new();
        let kept = self.quotes == Quotes::Kept;
        result.extend(self.chars.next().filter(|_| kept));
        loop {
            match self.chars.peek().copied() {
                None => {
                    return Err(
                        "unexpected end of statement while looking for matching double-quote"
                            .into(),
                    );
                }
                Some('"') => {
                    self.chars.next();
                    result.extend(kept.then_some('"'));
                    return Ok(result);
                }
                Some('$') => result.push_str(&self.dollar()?),
                Some(mut c) => {
                    self.chars.next();
                    if c == self.escape {
                        result.extend((self.escapes == Escapes::Kept).then_some(c));
                        // Only these can be escaped; before others the escape character stands for itself.
                        match self.chars.peek().copied() {
                            None => continue,
                            Some(next) if matches!(next, '"' | '$') || next == self.escape => {
                                self.chars.next();
                                c = next;
                            }
                            Some(_) => {}
                        }
                    }
                    result.push(c);
                }
            }
            self.fits(&result)?;
        }
    }

    fn dollar(&mut self) -> Result<String, String> {
        self.chars.next();
        if self.chars.peek() != Some(&'{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".into());
            }
            return Ok(match self.value(&name)? {
                Some(value) => value,
                None if self.unset_stays => format!("${name}"),
                None => String::new(),
            });
        }
        self.chars.next();
        match self.chars.peek() {
            None => return Err("syntax error: missing '}'".into()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".into()),
            Some(_) => {}
        }
        let name = self.name();
        let mut modifier = String::new();
        let Some(mut operator) = self.chars.next() else {
            return Err("syntax error: missing '}'".into());
        };
        modifier.push(operator);
        match operator {
            '}' => Ok(match self.value(&name)? {
                Some(value) => value,
                None if self.unset_stays => format!("${{{name}}}"),
                None => String::new(),
            }),
            ':' | '+' | '-' | '?' | '#' | '%' => {
                let empty_is_unset = operator == ':';
                if empty_is_unset {
                    let Some(next) = self.chars.next() else {
                        return Err("syntax error: missing '}'".into());
                    };
                    operator = next;
                    modifier.push(operator);
                }
                self.modified(&name, operator, &modifier, empty_is_unset)
            }
            '/' => self.replaced(&name),
            _ => Err(unsupported(&modifier)),
        }
    }

    fn modified(
        &mut self,
        name: &str,
        operator: char,
        modifier: &str,
        empty_is_unset: bool,
    ) -> Result<String, String> {
        let trims = matches!(operator, '#' | '%');
        if trims && empty_is_unset {
            return Err(unsupported(modifier));
        }
        let escapes = if trims {
            Escapes::Kept
        } else {
            Escapes::Removed
        };
        let word = self.nested('}', escapes, "syntax error: missing '}'")?;
        let value = self.value(name)?;
        if self.unset_stays && value.is_none() {
            return Ok(format!("${{{name}{modifier}{word}}}"));
        }
        let given = value
            .as_ref()
            .is_some_and(|value| !(empty_is_unset && value.is_empty()));
        let set = value.is_some();
        let value = value.unwrap_or_default();
        match operator {
            '-' if given => Ok(value),
            '-' => Ok(word),
            '+' if given => Ok(word),
            '+' => Ok(String::new()),
            '?' if given => Ok(value),
            '?' if !word.is_empty() => Err(format!("{name}: {word}")),
            '?' if set => Err(format!("{name}: is not allowed to be empty")),
            '?' => Err(format!("{name}: is not allowed to be unset")),
            '#' | '%' => {
                let (pattern, greed) = match word.strip_prefix(operator) {
                    Some(pattern) => (pattern, Greed::Longest),
                    None => (word.as_str(), Greed::Shortest),
                };
                let compiled = compile(pattern)?;
                match operator {
                    '#' => compiled.without_prefix(&value, greed, &mut self.work),
                    _ => compiled.without_suffix(&value, greed, &mut self.work),
                }
            }
            _ => Err(unsupported(modifier)),
        }
    }

    fn replaced(&mut self, name: &str) -> Result<String, String> {
        let all = self.chars.next_if_eq(&'/').is_some();
        let pattern = self.nested('/', Escapes::Kept, "syntax error: missing '/' in ${}")?;
        let replacement = self.nested('}', Escapes::Kept, "syntax error: missing '}'")?;
        let Some(value) = self.value(name)? else {
            if self.unset_stays {
                return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
            }
            // An empty text is searched too: a pattern may match nothing.
            return self.replace("", &pattern, &replacement, all);
        };
        self.replace(&value, &pattern, &replacement, all)
    }

    fn replace(
        &mut self,
        value: &str,
        pattern: &str,
        replacement: &str,
        all: bool,
    ) -> Result<String, String> {
        let compiled = compile(pattern)?;
        if all {
            compiled.replace_all(value, replacement, self.limit, &mut self.work)
        } else {
            compiled.replace_first(value, replacement, &mut self.work)
        }
    }

    /// Expands the word of a substitution; an error at the end of the text is told as `unended`.
    fn nested(&mut self, stop: char, escapes: Escapes, unended: &str) -> Result<String, String> {
        if self.depth == MAX_DEPTH {
            return Err(format!(
                "more than {MAX_DEPTH} substitutions inside each other"
            ));
        }
        self.depth += 1;
        let outer = std::mem::replace(&mut self.escapes, escapes);
        let word = self.run(Some(stop), None);
        self.escapes = outer;
        self.depth -= 1;
        word.map_err(|e| match self.chars.peek() {
            None => unended.to_owned(),
            Some(_) => e,
        })
    }

    /// Reads a name: letters, digits, `_`; or a number; or one of the shell's special parameters.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.chars.peek() {
            Some(c) if c.is_numeric() => {
                while let Some(c) = self.chars.next_if(|c| c.is_numeric()) {
                    name.push(c);
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => name.extend(self.chars.next()),
            _ => {
                while let Some(c) = self.chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    name.push(c);
                }
            }
        }
        name
    }

    fn value(&mut self, name: &str) -> Result<Option<String>, String> {
        let value = (self.env)(name);
        match &value {
            Some(value) => {
                pattern::spend(&mut self.work, value.len())?;
            }
            None => {
                if self.known_unset.insert(name.to_owned()) {
                    self.unset.push(name.to_owned());
                }
            }
        }
        Ok(value)
    }

    fn fits(&self, text: &str) -> Result<(), String> {
        if text.len() > self.limit {
            return Err(too_long(self.limit));
        }
        Ok(())
    }
}

fn compile(pattern: &str) -> Result<Pattern, String> {
    Pattern::parse(pattern).map_err(|e| format!("invalid pattern ({pattern}) in substitution: {e}"))
}

fn unsupported(modifier: &str) -> String {
    format!("unsupported modifier ({modifier}) in substitution")
}

fn failed(source: &str, why: &str) -> Error {
    let shown = match source.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => quote(&format!("{}…", &source[..end])),
        None => quote(source),
    };
    Error(format!("failed to process {shown}: {why}"))
}

#[cfg(test)]
mod tests;
