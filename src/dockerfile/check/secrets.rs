//! Variables whose names say that their values are secret.

use super::super::{directive, node, split};
use super::{Hide, without_credentials};

/// Tells whether a variable's name says that its value is a secret: a word of it, between
/// underscores, is one of a list, and none says that it is harmless.
pub fn is_secret(name: &str) -> bool {
    const SECRET: [&str; 11] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "psw",
        "secret",
        "token",
    ];
    const HARMLESS: [&str; 3] = ["public", "file", "version"];
    let has = |list: &[&str]| {
        name.split('_')
            .any(|word| list.iter().any(|known| word.eq_ignore_ascii_case(known)))
    };
    has(&SECRET) && !has(&HARMLESS)
}

/// Gives a file's text as it may be shown, whether it can be parsed or not: with the values of secret
/// ARGs and ENVs made illegible, also of those that are commented out; without users and passwords in
/// URLs, and without what the queries of an ADD's URLs say. The lines stay where they are.
///
/// From the first secret name of an instruction on, nothing of the instruction is legible.
pub fn masked(text: &[u8]) -> String {
    let escape = directive::escape(text);
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut out = String::with_capacity(text.len());
    let mut rest = lines.as_slice();
    while !rest.is_empty() {
        let (joined, count) = logical(rest, escape);
        let (these, others) = rest.split_at(count);
        instruction(&joined, these, escape, &mut out);
        rest = others;
    }
    out
}

/// Gives an instruction as it may be shown, its continuation lines joined: see [`masked`].
pub fn masked_instruction(text: &str, escape: char) -> String {
    let mut out = String::with_capacity(text.len());
    instruction(text, &[text], escape, &mut out);
    out
}

/// Joins the lines of the instruction that begins here; gives how many they are. An empty line and a
/// line of a heredoc's body pass for one, and so does what is commented out.
fn logical(lines: &[&str], escape: char) -> (String, usize) {
    let mut joined = String::new();
    let mut open = false;
    for (line, count) in lines.iter().zip(1..) {
        let line = line.trim_end_matches(['\r', '\n']);
        match (open, line.trim_start()) {
            (true, "") => {}
            (true, start) if start.starts_with('#') => {}
            (true, _) => open = node::join(&mut joined, line, escape),
            (false, start) => match start.strip_prefix('#') {
                Some(comment) => joined.push_str(comment),
                None => open = node::join(&mut joined, start, escape),
            },
        }
        if !open {
            return (joined, count);
        }
    }
    (joined, lines.len())
}

/// Appends the lines of an instruction as they may be shown.
fn instruction(joined: &str, lines: &[&str], escape: char, out: &mut String) {
    let (name, rest) = named(joined);
    if has_secret(name, rest, escape) {
        return mask(lines, escape, out);
    }
    let hide = match name.eq_ignore_ascii_case("ADD") {
        true => Hide::Query,
        false => Hide::User,
    };
    let shown = |text: &str| without_credentials(text, hide);
    let each = lines.iter().map(|line| shown(line)).collect::<String>();
    let whole = shown(joined);
    // A URL that goes on in the next line shows in the joined ones alone.
    let is_cut = whole.matches("REDACTED").count() > each.matches("REDACTED").count();
    match is_cut {
        true => mask(lines, escape, out),
        false => out.push_str(&each),
    }
}

/// Gives the name of an instruction, or of what an ONBUILD triggers, and what follows its flags.
fn named(joined: &str) -> (&str, &str) {
    let (mut name, _, mut rest) = split::command(joined);
    while name.eq_ignore_ascii_case("ONBUILD") {
        (name, _, rest) = split::command(rest);
    }
    (name, rest)
}

/// Tells whether an instruction gives a variable a value whose name is a secret's.
fn has_secret(name: &str, rest: &str, escape: char) -> bool {
    let secret = |name: &str| is_secret(&name.replace(['"', '\''], ""));
    let words = || split::words(rest, escape);
    let named = |word: &str| word.split_once('=').is_some_and(|(name, _)| secret(name));
    if name.eq_ignore_ascii_case("ARG") {
        return words().iter().any(|word| named(word));
    }
    if !name.eq_ignore_ascii_case("ENV") {
        return false;
    }
    let words = words();
    match words.first() {
        Some(first) if !first.contains('=') => secret(first),
        // A name without a value is a mistake, and its value may be the next word.
        _ => words.iter().any(|word| named(word) || secret(word)),
    }
}

/// Appends the lines of an instruction up to where the first secret begins, or up to its name where
/// that is not known, and then no more than the ends of lines.
fn mask(lines: &[&str], escape: char, out: &mut String) {
    let keyword = || {
        let first = lines.first().copied().unwrap_or_default();
        let begun = first.len() - first.trim_start().len();
        let mut chars = first.char_indices().skip_while(|(at, _)| *at < begun);
        let blank = chars.find(|(_, c)| c.is_whitespace());
        // The blank behind it stays.
        (0, blank.map_or(first.len(), |(at, c)| at + c.len_utf8()))
    };
    let found = |(number, line): (usize, &&str)| Some((number, secret_at(line, escape)?));
    let (number, at) = (lines.iter().enumerate())
        .find_map(found)
        .unwrap_or_else(keyword);
    for (line, count) in lines.iter().zip(0..) {
        if count < number {
            out.push_str(line);
            continue;
        }
        let end = end_at(line, escape);
        let from = if count == number { at.min(end) } else { 0 };
        out.push_str(&line[..from]);
        if !line[from..end].trim().is_empty() {
            out.push_str("***");
        }
        out.push_str(&line[end..]);
    }
}

/// Finds where a line is no longer legible: behind the name of a secret, or before a word that may
/// go on in the next line and become such a name.
fn secret_at(line: &str, escape: char) -> Option<usize> {
    let end = end_at(line, escape);
    let cut = line[end..].starts_with(escape);
    let mut start = None;
    for (at, c) in line[..end].char_indices().chain([(end, ' ')]) {
        match (start, c.is_alphanumeric() || c == '_') {
            (None, true) => start = Some(at),
            (Some(from), false) => {
                if at == end && cut {
                    return Some(from);
                }
                if is_secret(&line[from..at]) && matches!(c, '=' | ' ' | '\t' | '"' | '\'') {
                    return Some((at + c.len_utf8()).min(end));
                }
                start = None;
            }
            _ => {}
        }
    }
    None
}

/// Finds where the end of a line begins: blanks, the escape character that continues it, the break.
fn end_at(line: &str, escape: char) -> usize {
    const BLANK: [char; 4] = ['\n', '\r', ' ', '\t'];
    let text = line.trim_end_matches(BLANK);
    match text.strip_suffix(escape) {
        Some(text) => text.trim_end_matches(BLANK).len(),
        None => text.len(),
    }
}
