//! One instruction's line taken apart: name, flags, words, JSON arrays.

use serde_json::value::RawValue;

/// The blanks that part words of a line (BuildKit's `[\t\v\f\r ]`).
fn blank(c: char) -> bool {
    matches!(c, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// Splits a line into the instruction's name, its flags, and the rest without blanks around it.
pub(super) fn command(line: &str) -> (&str, Vec<String>, &str) {
    let (name, rest) = once(line.trim());
    let (flags, rest) = flags(rest.unwrap_or(""));
    (name, flags, rest.trim())
}

/// Splits at the first run of blanks.
pub(super) fn once(text: &str) -> (&str, Option<&str>) {
    match text.find(blank) {
        Some(at) => (&text[..at], Some(text[at..].trim_start_matches(blank))),
        None => (text, None),
    }
}

/// Splits at every run of blanks.
pub(super) fn blanks(text: &str) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    let mut parts: Vec<String> = Vec::new();
    let mut rest = Some(text);
    while let Some(text) = rest {
        let (part, after) = once(text);
        parts.push(part.to_owned());
        rest = after;
    }
    parts
}

/// Takes the words that begin with `--` from the front of a line. Quotes may stand anywhere in a
/// flag and are removed; the backslash escapes whatever the file's escape character is. A lone `--`
/// ends the flags.
fn flags(line: &str) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = line.trim_start();
    while rest.starts_with("--") {
        let (word, after) = flag(rest);
        if word == "--" {
            return (flags, after);
        }
        flags.push(word);
        rest = after.trim_start();
    }
    (flags, rest)
}

fn flag(line: &str) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => return (word, &line[at..]),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (_, '\\') => word.extend(chars.next().map(|(_, c)| c)),
            (_, c) => word.push(c),
        }
    }
    (word, "")
}

/// Splits into words at white space outside quotes. Quotes and escapes stay: they are processed when
/// the words are expanded.
pub(super) fn words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        match quote {
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        if c == escape && quote != Some('\'') {
            // An escape character with nothing behind it is dropped.
            let Some(escaped) = chars.next() else { break };
            word.push(c);
            word.push(escaped);
        } else {
            word.push(c);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// What a text is that may be a JSON array of strings.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Json {
    /// No JSON array: the shell form.
    No,
    /// An array with something else than strings in it.
    NotStrings,
    /// The strings.
    Strings(Vec<String>),
}

/// Reads a text as a JSON array of strings.
pub(super) fn json(text: &str) -> Json {
    if !text.trim_start().starts_with('[') {
        return Json::No;
    }
    // Elements are kept raw: nested values are checked without recursion, and strings are decoded
    // as Go does, which replaces lone surrogates where serde_json refuses them.
    let Ok(elements) = serde_json::from_str::<Vec<&RawValue>>(text) else {
        return Json::No;
    };
    match elements.into_iter().map(|e| string(e.get())).collect() {
        Some(strings) => Json::Strings(strings),
        None => Json::NotStrings,
    }
}

/// Decodes a JSON string that is known to be well formed; `None` for any other value.
fn string(raw: &str) -> Option<String> {
    let inner = raw.trim().strip_prefix('"')?.strip_suffix('"')?;
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let kind = after.chars().next()?;
        rest = &after[kind.len_utf8()..];
        match kind {
            'b' => out.push('\x08'),
            'f' => out.push('\x0c'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'u' => {
                let unit = hex(rest)?;
                rest = &rest[4..];
                let pair = rest.strip_prefix("\\u").and_then(hex);
                match (char::from_u32(unit), pair) {
                    (Some(c), _) => out.push(c),
                    (None, Some(low)) if unit < 0xdc00 && (0xdc00..0xe000).contains(&low) => {
                        let code = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                        out.push(char::from_u32(code).unwrap_or('\u{fffd}'));
                        rest = &rest[6..];
                    }
                    (None, _) => out.push('\u{fffd}'),
                }
            }
            c => out.push(c),
        }
    }
    out.push_str(rest);
    Some(out)
}

fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text.get(..4)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_end_where_words_begin() {
        for (line, name, expected, rest) in [
            ("RUN a --b", "RUN", vec![], "a --b"),
            ("RUN --a=1 --b c", "RUN", vec!["--a=1", "--b"], "c"),
            ("RUN -- --a", "RUN", vec![], "--a"),
            ("RUN --a='x y'\"z w\" c", "RUN", vec!["--a=x yz w"], "c"),
            ("RUN --a=\\\"x\\ y c", "RUN", vec!["--a=\"x y"], "c"),
            ("RUN --a=\"x y", "RUN", vec!["--a=x y"], ""),
            ("RUN --a\\", "RUN", vec!["--a"], ""),
            ("RUN --ä=ö ü", "RUN", vec!["--ä=ö"], "ü"),
            ("RUN", "RUN", vec![], ""),
            ("", "", vec![], ""),
        ] {
            assert_eq!(
                command(line),
                (
                    name,
                    expected.into_iter().map(str::to_owned).collect(),
                    rest
                )
            );
        }
    }

    #[test]
    fn words_keep_their_quotes() {
        for (text, expected) in [
            ("a b\tc", vec!["a", "b", "c"]),
            ("a=\"x y\" 'p q'", vec!["a=\"x y\"", "'p q'"]),
            ("a\\ b", vec!["a\\ b"]),
            ("'a\\' b", vec!["'a\\'", "b"]),
            ("\"a\\\" b\"", vec!["\"a\\\" b\""]),
            ("a\\", vec!["a"]),
            ("\"\"", vec!["\"\""]),
            ("  ", vec![]),
        ] {
            assert_eq!(words(text, '\\'), expected, "{text}");
        }
    }

    #[test]
    fn json_is_read_as_go_reads_it() {
        let strings = |s: &[&str]| Json::Strings(s.iter().map(|s| (*s).to_owned()).collect());
        for (text, expected) in [
            ("[]", strings(&[])),
            (r#" [ "a" , "b\"c\u0041\n" ] "#, strings(&["a", "b\"cA\n"])),
            (
                r#"["\ud83d\ude00", "\ud83dx", "\ude00"]"#,
                strings(&["😀", "\u{fffd}x", "\u{fffd}"]),
            ),
            (r#"["a", 1]"#, Json::NotStrings),
            (r#"["a", ["b"]]"#, Json::NotStrings),
            ("[null]", Json::NotStrings),
            (r#"["a"] b"#, Json::No),
            (r#"["a",]"#, Json::No),
            ("['a']", Json::No),
            (r#"{"a":1}"#, Json::No),
            ("", Json::No),
        ] {
            assert_eq!(json(text), expected, "{text}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(json(&deep), Json::NotStrings);
    }
}
