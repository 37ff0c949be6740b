//! Variables whose names say that their values are secret.

use super::super::ast::{Dockerfile, Instruction, Kind, Span};

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

/// Gives a file's text with the values of secret ARGs and ENVs made illegible, for excerpts; the
/// lines stay where they are.
///
/// From the first secret name of an instruction on, nothing of the instruction is legible.
pub fn masked(text: &[u8], dockerfile: &Dockerfile) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let stages = dockerfile
        .stages
        .iter()
        .flat_map(|stage| &stage.instructions);
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for instruction in dockerfile.globals.iter().chain(stages) {
        let Span { first, last } = instruction.span;
        if first > lines.len() || !has_secret(instruction) {
            continue;
        }
        out.extend(lines[done..first - 1].iter().copied());
        done = last.min(lines.len());
        mask(&lines[first - 1..done], dockerfile.escape, &mut out);
    }
    out.extend(lines[done..].iter().copied());
    out
}

/// Tells whether an instruction gives a variable a value whose name is a secret's.
fn has_secret(instruction: &Instruction) -> bool {
    let kind = match &instruction.kind {
        Kind::Onbuild(trigger, _) => &trigger.kind,
        kind => kind,
    };
    let secret = |name: &str| is_secret(&name.replace(['"', '\''], ""));
    match kind {
        Kind::Arg(pairs) => pairs
            .iter()
            .any(|(name, value)| value.is_some() && secret(name)),
        Kind::Env(pairs) => pairs.iter().any(|(name, _)| secret(name)),
        _ => false,
    }
}

/// Appends the lines of an instruction up to where the first secret begins, and then no more than
/// the ends of lines.
fn mask(lines: &[&str], escape: char, out: &mut String) {
    let keyword = || {
        let first = lines.first().copied().unwrap_or_default();
        let indent = first.len() - first.trim_start().len();
        let word = first.trim_start().find(char::is_whitespace);
        (0, word.map_or(first.len(), |word| indent + word))
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
