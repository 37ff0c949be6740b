//! A Dockerfile as a tree of words, before any instruction's meaning is known.
//!
//! The tree is BuildKit's, and [`Node::dump`] shows it; useful wherever a file is not understood as
//! its author meant it.

use super::ast::{Heredoc, Span};
use super::check::{Finding, Rule};
use super::directive::{self, Directives};
use super::flags::Wrong;
use super::parse::Error;
use super::spelling::quote;
use super::split::{self, Json};
use super::{heredoc, words};
use std::borrow::Cow;
use std::fmt::Write;

/// Bytes that a file may have.
const MAX_FILE: usize = 16 << 20;

/// Bytes that a line may have, its end not counted; BuildKit's scanner takes no longer ones.
const MAX_LINE: usize = 65_535;

/// A Dockerfile cut into instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The instructions, in order; at least one.
    pub nodes: Vec<Node>,
    /// The escape character: `\` or a backtick.
    pub escape: char,
    /// Parser directives: name in lower case, value, line.
    pub directives: Vec<(String, String, usize)>,
    /// What the cutting itself noticed: empty continuation lines.
    pub findings: Vec<Finding>,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name as written.
    pub name: String,
    /// The words with `--` in front of its arguments, quotes removed.
    pub flags: Vec<String>,
    /// Whether the arguments are a JSON array.
    pub json: bool,
    /// Its arguments. ENV and LABEL have three for each pair: name, value, and `=` or nothing for the
    /// old form. Quotes are kept. An unknown instruction has one empty word.
    pub words: Vec<String>,
    /// What an ONBUILD triggers.
    pub child: Option<Box<Node>>,
    /// The heredocs, in order; those of an ONBUILD's trigger lie here.
    pub heredocs: Vec<Heredoc>,
    /// Its lines, heredocs included.
    pub span: Span,
    /// The text, continuation lines joined.
    pub original: String,
    /// The comments right above it, without `#` and blanks around; an empty line or an empty comment
    /// parts an instruction from the comments above that.
    pub comments: Vec<String>,
}

impl Node {
    /// Shows the node on one line: `L<first>-<last> NAME flags=[..] attrs=map[..] "word"...`, then an
    /// ONBUILD's trigger in braces and heredocs as `HD{name exp=.. chomp=.. fd=.. "body"}`.
    pub fn dump(&self) -> String {
        let list = |flags: &[String]| {
            let flags: Vec<String> = flags.iter().map(|f| quote(f)).collect();
            format!("[{}]", flags.join(" "))
        };
        let mut out = format!(
            "L{}-{} {} flags={} attrs=map[{}]",
            self.span.first,
            self.span.last,
            self.name,
            list(&self.flags),
            if self.json { "json:true" } else { "" },
        );
        for word in &self.words {
            out.push(' ');
            out.push_str(&quote(word));
        }
        if let Some(child) = &self.child {
            let _ = write!(out, " \"\" {{{} {}", child.name, list(&child.flags));
            for word in &child.words {
                out.push(' ');
                out.push_str(&quote(word));
            }
            out.push('}');
        }
        for doc in &self.heredocs {
            let _ = write!(
                out,
                " HD{{{} exp={} chomp={} fd={} {}}}",
                doc.name,
                doc.expand,
                doc.chomp,
                doc.fd,
                quote(&doc.body)
            );
        }
        out
    }

    fn may_have_heredocs(&self) -> bool {
        let node = self.child.as_deref().unwrap_or(self);
        let named = |name| node.name.eq_ignore_ascii_case(name);
        !node.json && (named("ADD") || named("COPY") || named("RUN"))
    }
}

/// Cuts a Dockerfile into instructions. Bytes that are not UTF-8 are replaced.
pub fn parse(text: &[u8]) -> Result<Tree, Error> {
    if text.len() > MAX_FILE {
        return Err(Error::whole(format!(
            "dockerfile is larger than {} MiB",
            MAX_FILE >> 20
        )));
    }
    let mut escape = '\\';
    let mut parser = Directives::new("#");
    let mut found = directive::behind_shebang(text);
    let mut lines = Lines::new(text.strip_prefix(directive::BOM).unwrap_or(text));
    let mut nodes = Vec::new();
    let mut findings = Vec::new();
    let mut comments: Vec<String> = Vec::new();

    while let Some(line) = lines.next() {
        let first = lines.number;
        let line = trim_end(&line).trim_start();
        let here = Span { first, last: first };
        match line.strip_prefix('#').map(str::trim) {
            Some("") => comments.clear(),
            Some(text) => comments.push(text.to_owned()),
            None if line.trim().is_empty() => comments.clear(),
            None => {}
        }
        let directive = parser.line(line).map_err(|e| Error::at(here, e))?;
        if directive.is_some() || found.iter().any(|(_, _, line)| *line == first) {
            comments.clear();
        }
        match directive {
            Some(("escape", value)) => {
                escape = match value.as_str() {
                    "`" => '`',
                    "\\" => '\\',
                    _ => {
                        let e = format!("invalid escape token '{value}' does not match ` or \\");
                        return Err(Error::at(here, e));
                    }
                };
                found.push(("escape".into(), value, first));
            }
            Some((name, value)) => found.push((name.into(), value, first)),
            None => {}
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }

        let mut joined = String::new();
        let mut empty = false;
        let mut open = join(&mut joined, line, escape);
        while open {
            let Some(line) = lines.next() else { break };
            let line = trim_end(&line);
            let start = line.trim_start();
            if start.is_empty() {
                empty = true;
            } else if !start.starts_with('#') {
                open = join(&mut joined, line, escape);
            }
        }
        let span = |lines: &Lines| Span {
            first,
            last: lines.number,
        };
        if empty {
            // The line that ends the instruction, as BuildKit has it.
            let end = Span {
                first: lines.number,
                last: lines.number,
            };
            findings.push(Finding::new(
                Rule::NoEmptyContinuation,
                end,
                "Empty continuation line",
            ));
        }

        let mut node = node(joined, escape, Depth::Top).map_err(|e| Error::at(span(&lines), e))?;
        if node.may_have_heredocs() && node.original.contains("<<") {
            node.heredocs = heredoc::in_line(&node.original)
                .map_err(|words::Error(e)| Error::at(span(&lines), e))?;
            for doc in &mut node.heredocs {
                if !read_body(doc, &mut lines) {
                    lines.check()?;
                    let end = format!("a line with nothing but {} ends it", doc.name);
                    let wrong = Wrong::from("unterminated heredoc").hint(end);
                    return Err(Error::at(span(&lines), wrong));
                }
            }
        }
        node.span = span(&lines);
        node.comments = std::mem::take(&mut comments);
        nodes.push(node);
    }
    lines.check()?;
    if nodes.is_empty() {
        return Err(Error::whole(
            Wrong::from("file with no instructions").hint("FROM IMAGE is the least that one has"),
        ));
    }
    Ok(Tree {
        nodes,
        escape,
        directives: found,
        findings,
    })
}

/// Reads a heredoc's body up to its end; `false` where the file ends first.
fn read_body(doc: &mut Heredoc, lines: &mut Lines) -> bool {
    while let Some(line) = lines.next() {
        let end = trim_end(&line);
        let end = if doc.chomp {
            end.trim_start_matches('\t')
        } else {
            end
        };
        if end == doc.name {
            return true;
        }
        doc.body.push_str(&line);
    }
    false
}

/// Appends a physical line to a logical one and says whether the next one belongs to it too: the line
/// ends with one escape character and blanks. Two escape characters are an escaped one.
pub(super) fn join(joined: &mut String, line: &str, escape: char) -> bool {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(before) if !before.ends_with(escape) => {
            joined.push_str(before);
            true
        }
        _ => {
            joined.push_str(line);
            false
        }
    }
}

fn trim_end(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// Whether an instruction stands by itself or is an ONBUILD's trigger.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Top,
    Trigger,
}

/// Makes the node of a logical line; the span comes later.
fn node(line: String, escape: char, depth: Depth) -> Result<Node, Wrong> {
    let (name, flags, rest) = split::command(&line);
    let mut json = false;
    let mut child = None;
    let mut array = |rest: &str| match split::json(rest) {
        Json::Strings(words) => {
            json = true;
            Ok(Some(words))
        }
        Json::NotStrings => {
            let wrong = "when using JSON array syntax, arrays must be comprised of strings only";
            Err(Wrong::from(wrong).hint("put every element in double quotes"))
        }
        Json::No => Ok(None),
    };
    let whole = |rest: &str| match rest {
        "" => Vec::new(),
        rest => vec![rest.to_owned()],
    };
    let words = match name.to_ascii_uppercase().as_str() {
        "ADD" | "COPY" | "VOLUME" => array(rest)?.unwrap_or_else(|| split::blanks(rest)),
        "CMD" | "ENTRYPOINT" | "RUN" | "SHELL" => array(rest)?.unwrap_or_else(|| whole(rest)),
        "EXPOSE" | "FROM" => split::blanks(rest),
        "MAINTAINER" | "STOPSIGNAL" | "USER" | "WORKDIR" => whole(rest),
        "ARG" => split::words(rest, escape),
        "ENV" => pairs(rest, "ENV", escape)?,
        "LABEL" => pairs(rest, "LABEL", escape)?,
        "HEALTHCHECK" => {
            let (kind, command) = match rest.find(char::is_whitespace) {
                Some(at) => (&rest[..at], rest[at..].trim_start()),
                None => (rest, ""),
            };
            let mut words = whole(kind);
            words.extend(array(command)?.unwrap_or_else(|| whole(command)));
            words
        }
        // A trigger's own trigger is refused whatever it is, so it is not looked at: a line of a
        // million ONBUILDs must not recurse.
        "ONBUILD" if depth == Depth::Top => {
            if !rest.is_empty() {
                child = Some(Box::new(node(rest.to_owned(), escape, Depth::Trigger)?));
            }
            Vec::new()
        }
        _ => vec![String::new()],
    };
    Ok(Node {
        name: name.to_owned(),
        flags,
        json,
        words,
        child,
        heredocs: Vec::new(),
        span: Span { first: 0, last: 0 },
        original: line,
        comments: Vec::new(),
    })
}

/// Reads the pairs of ENV and LABEL: `name=value...`, or the old `name value`.
fn pairs(rest: &str, instruction: &str, escape: char) -> Result<Vec<String>, Wrong> {
    let words = split::words(rest, escape);
    let Some(first) = words.first() else {
        return Ok(Vec::new());
    };
    if !first.contains('=') {
        let (name, value) = split::once(rest);
        let value = value.ok_or_else(|| {
            Wrong::from(format!("{instruction} must have two arguments"))
                .hint(format!("write {instruction} {name}=VALUE"))
        })?;
        return Ok(vec![name.into(), value.into(), String::new()]);
    }
    let mut pairs = Vec::with_capacity(words.len() * 3);
    for word in &words {
        let (name, value) = word.split_once('=').ok_or_else(|| {
            Wrong::from(format!(
                "Syntax error - can't find = in {}. Must be of the form: name=value",
                quote(word)
            ))
            .hint("a value with blanks goes in double quotes")
        })?;
        pairs.extend([name.to_owned(), value.to_owned(), "=".to_owned()]);
    }
    Ok(pairs)
}

/// The physical lines of a file with their ends.
struct Lines<'a> {
    rest: &'a [u8],
    /// The number of the line given last, from 1.
    number: usize,
    too_long: bool,
}

impl<'a> Lines<'a> {
    fn new(text: &'a [u8]) -> Lines<'a> {
        Lines {
            rest: text,
            number: 0,
            too_long: false,
        }
    }

    fn next(&mut self) -> Option<Cow<'a, str>> {
        if self.rest.is_empty() || self.too_long {
            return None;
        }
        let length = self.rest.iter().position(|b| *b == b'\n');
        if length.unwrap_or(self.rest.len()) > MAX_LINE {
            self.too_long = true;
            return None;
        }
        let (line, rest) = self
            .rest
            .split_at(length.map_or(self.rest.len(), |length| length + 1));
        self.rest = rest;
        self.number += 1;
        Some(String::from_utf8_lossy(line))
    }

    /// Gives the error that ended the lines before the file's end, if one did.
    fn check(&self) -> Result<(), Error> {
        if !self.too_long {
            return Ok(());
        }
        let line = self.number + 1;
        let span = Span {
            first: line,
            last: line,
        };
        Err(Error::at(
            span,
            format!("dockerfile line greater than max allowed size of {MAX_LINE}"),
        ))
    }
}
