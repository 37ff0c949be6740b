//! Checks the order of the rooms: imports flow one way by the table in `src/lib.rs`, `unsafe` stays
//! in `sys`, and no file outgrows its room.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A file longer than this is looking for its second room.
const LONGEST: usize = 1000;

#[test]
fn rooms_keep_their_order() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let table = fs::read_to_string(src.join("lib.rs")).expect("read src/lib.rs");
    let ranks = ranks(&table);
    assert!(
        ranks.len() >= 15,
        "the table of rooms in src/lib.rs was not understood: {ranks:?}"
    );

    let mut broken = Vec::new();
    for file in rust_files(&src) {
        let text = fs::read_to_string(&file).expect("read a source file");
        let below = file.strip_prefix(&src).expect("a file below src");
        let room = room_of(below);
        check(
            &format!("src/{}", below.display()),
            &room,
            &text,
            &ranks,
            &mut broken,
        );
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn the_check_sees_what_it_should() {
    let ranks =
        ranks("//! | 0 | [`low`] | a |\n//! | 1 | [`mid`] | b |\n//! | 1 | [`side`] | c |\n");
    let cases: &[(&str, &str, usize)] = &[
        ("mid", "use crate::low::X;", 0),
        ("mid", "use crate::mid::X;", 0),
        ("mid", "use crate::side::X;", 1),
        ("low", "use crate::mid;", 1),
        ("low", "fn f(x: crate::mid::X) {}", 1),
        ("low", "use crate::{low::A, mid::{B, C}};", 1),
        ("low", "use crate::{\n    low::A,\n    mid,\n};", 1),
        ("low", "pub(crate) use crate::mid::X;", 1),
        ("low", "// use crate::mid::X;", 0),
        ("low", "/// See [`crate::mid::X`].", 0),
        ("low", "let a = \"crate::mid\";", 0),
        (
            "low",
            "#[cfg(test)]\nmod tests {\n    use crate::mid::X;\n}\n",
            0,
        ),
        (
            "low",
            "#[cfg(test)]\nmod tests {\n}\nuse crate::mid::X;\n",
            1,
        ),
        ("low", "#[cfg(test)]\nmod tests;\nuse crate::mid::X;\n", 1),
        ("low", "unsafe { x() }", 1),
        ("low", "#![allow(unsafe_code)]", 0),
        ("sys", "unsafe { x() }", 0),
        ("low", "use crate::nowhere::X;", 1),
    ];
    for (room, text, wanted) in cases {
        let mut broken = Vec::new();
        check("src/x.rs", room, text, &ranks, &mut broken);
        assert_eq!(broken.len(), *wanted, "{room}: {text:?} gave {broken:?}");
    }
}

/// Reads the table of rooms: `//! | RANK | [`NAME`] | ... |`.
fn ranks(table: &str) -> HashMap<String, u32> {
    table
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("//! |")?.split('|').map(str::trim);
            let rank = cells.next()?.parse().ok()?;
            let name = cells.next()?.strip_prefix("[`")?.strip_suffix("`]")?;
            Some((name.to_owned(), rank))
        })
        .collect()
}

/// Gives the room of a file named relative to `src`.
fn room_of(below: &Path) -> String {
    let first = below.iter().next().expect("a name").to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// Notes every rule that `text`, a file of `room`, breaks.
fn check(
    name: &str,
    room: &str,
    text: &str,
    ranks: &HashMap<String, u32>,
    broken: &mut Vec<String>,
) {
    let lines = text.lines().count();
    if lines > LONGEST {
        broken.push(format!("{name}:{lines}: longer than {LONGEST} lines"));
    }
    let code = code_only(text);
    let tests = test_lines(&code);
    // The crate's root, and the program, are above all rooms.
    let own = ranks.get(room).copied();
    for (at, line) in word_lines(&code, "unsafe") {
        if room != "sys" {
            broken.push(format!("{name}:{at}: `unsafe` outside of sys: {line}"));
        }
    }
    if is_test_file(name) {
        return;
    }
    for (at, target) in crate_paths(&code) {
        if tests.get(at - 1).copied().unwrap_or(false) || target == room {
            continue;
        }
        let Some(own) = own else { continue };
        match ranks.get(&target) {
            Some(rank) if *rank < own => {}
            Some(rank) => broken.push(format!(
                "{name}:{at}: {room} (rank {own}) uses crate::{target} (rank {rank})"
            )),
            None => broken.push(format!(
                "{name}:{at}: crate::{target} is no room of the table"
            )),
        }
    }
}

/// Tells whether a file holds nothing but unit tests.
fn is_test_file(name: &str) -> bool {
    name.ends_with("/tests.rs") || name.ends_with("_tests.rs") || name.contains("/tests/")
}

/// Blanks comments, strings and character literals, keeping every line where it is.
fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    let blank = |out: &mut Vec<u8>, from: usize, to: usize| {
        for byte in &mut out[from..to] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    };
    while at < bytes.len() {
        let rest = &bytes[at..];
        let len = if rest.starts_with(b"//") {
            rest.iter().position(|&c| c == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            find(rest, b"*/").map_or(rest.len(), |n| n + 2)
        } else if let Some(hashes) = raw_string(rest, at.checked_sub(1).map(|n| bytes[n])) {
            let end = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
            let open = 2 + hashes;
            find(&rest[open..], &end).map_or(rest.len(), |n| open + n + end.len())
        } else if rest[0] == b'"' {
            quoted(rest, b'"')
        } else if rest[0] == b'\'' && is_char_literal(rest) {
            quoted(rest, b'\'')
        } else {
            at += 1;
            continue;
        };
        blank(&mut out, at, at + len);
        at += len;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// Gives the number of `#` of a raw string that starts here.
fn raw_string(rest: &[u8], before: Option<u8>) -> Option<usize> {
    let in_word = before.is_some_and(|c| c.is_ascii_alphanumeric() && c != b'b' || c == b'_');
    let hashes = rest
        .strip_prefix(b"r")?
        .iter()
        .take_while(|&&c| c == b'#')
        .count();
    (!in_word && rest.get(1 + hashes) == Some(&b'"')).then_some(hashes)
}

/// Gives the length of a quoted literal with its quotes.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Tells a character literal from a lifetime.
fn is_char_literal(rest: &[u8]) -> bool {
    match rest.get(1) {
        Some(b'\\') => true,
        Some(c) if !c.is_ascii() => true,
        Some(_) => rest.get(2) == Some(&b'\''),
        None => false,
    }
}

/// Says of each line whether it is inside of an item under `#[cfg(test)]`.
fn test_lines(code: &str) -> Vec<bool> {
    let mut inside = vec![false; code.lines().count()];
    let lines: Vec<&str> = code.lines().collect();
    let mut at = 0;
    while at < lines.len() {
        if !lines[at].trim_start().starts_with("#[cfg(test)]") {
            at += 1;
            continue;
        }
        let mut depth = 0;
        let mut opened = false;
        while at < lines.len() {
            inside[at] = true;
            for c in lines[at].chars() {
                match c {
                    '{' => {
                        depth += 1;
                        opened = true;
                    }
                    '}' => depth -= 1,
                    _ => {}
                }
            }
            let ends = opened && depth == 0 || !opened && lines[at].trim_end().ends_with(';');
            at += 1;
            if ends {
                break;
            }
        }
    }
    inside
}

/// Gives line numbers and text of the lines that have a word.
fn word_lines<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let lines = code.lines().enumerate();
    let has_word = move |line: &str| {
        line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .any(|part| part == word)
    };
    lines
        .filter(move |(_, line)| has_word(line))
        .map(|(at, line)| (at + 1, line.trim()))
}

/// Gives every room named after `crate::`, with its line, also inside of braces.
fn crate_paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let line = |offset: usize| code[..at + "crate::".len() + offset].matches('\n').count() + 1;
        if !rest.starts_with('{') {
            found.push((line(0), name_at(rest)));
            continue;
        }
        let mut depth = 0;
        let mut expect = false;
        for (offset, c) in rest.char_indices() {
            match c {
                '{' => {
                    depth += 1;
                    expect = depth == 1;
                }
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                }
                ',' => expect = depth == 1,
                c if expect && (c.is_ascii_alphanumeric() || c == '_') => {
                    found.push((line(offset), name_at(&rest[offset..])));
                    expect = false;
                }
                _ => {}
            }
        }
    }
    found
}

fn name_at(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect()
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("read a directory") {
            let path = entry.expect("read a directory").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}
