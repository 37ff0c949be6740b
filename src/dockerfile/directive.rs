//! Parser directives: `# escape=`, `# syntax=`, `# check=` at the top of a file.

/// The directives there are.
const KNOWN: [&str; 3] = ["escape", "syntax", "check"];

/// The byte order mark some editors put in front of UTF-8.
pub(super) const BOM: &[u8] = b"\xef\xbb\xbf";

/// Reads directives line by line until the first line that is none.
pub(super) struct Directives {
    comment: &'static str,
    seen: Vec<&'static str>,
    done: bool,
}

impl Directives {
    pub(super) fn new(comment: &'static str) -> Directives {
        Directives {
            comment,
            seen: Vec::new(),
            done: false,
        }
    }

    /// Reads one line and gives name and value where it is a directive.
    pub(super) fn line(&mut self, line: &str) -> Result<Option<(&'static str, String)>, String> {
        if self.done {
            return Ok(None);
        }
        let Some((name, value)) = line.strip_prefix(self.comment).and_then(split) else {
            self.done = true;
            return Ok(None);
        };
        let Some(name) = KNOWN.into_iter().find(|k| name.eq_ignore_ascii_case(k)) else {
            self.done = true;
            return Ok(None);
        };
        if self.seen.contains(&name) {
            return Err(format!("only one {name} parser directive can be used"));
        }
        self.seen.push(name);
        Ok(Some((name, value.to_owned())))
    }
}

/// Gives what a comment, without its `#`, says of the checks: what follows `check=`.
pub(super) fn check_comment(text: &str) -> Option<&str> {
    let (name, value) = split(text)?;
    name.eq_ignore_ascii_case("check").then_some(value)
}

/// Splits `name = value`; the name is a letter and then letters and digits.
fn split(line: &str) -> Option<(&str, &str)> {
    const BLANK: [char; 5] = [' ', '\t', '\n', '\r', '\x0c'];
    let line = line.trim_start();
    let (name, value) = line.split_once('=')?;
    let name = name.trim_end_matches(BLANK);
    let mut letters = name.bytes();
    if !letters.next()?.is_ascii_alphabetic() || !letters.all(|c| c.is_ascii_alphanumeric()) {
        return None;
    }
    let trimmed = value.trim_matches(BLANK);
    if !trimmed.is_empty() {
        return Some((name, trimmed));
    }
    // A value of blanks alone counts as its last blank: it is there, and it is wrong.
    let (last, _) = value.char_indices().next_back()?;
    Some((name, &value[last..]))
}

/// Finds the frontend that a file asks for, and the line that says so: `# syntax=`, `// syntax=`, or
/// the member `syntax` of a file that is a JSON object. A first line with `#!` is passed over.
///
/// The name ends at the first space; what follows it are options of the frontend.
pub fn detect_syntax(text: &[u8]) -> Option<(String, usize)> {
    let text = text.strip_prefix(BOM).unwrap_or(text);
    let (text, skipped) = skip_shebang(text);
    ["#", "//"]
        .into_iter()
        .find_map(|comment| {
            leading(text, comment)
                .into_iter()
                .find(|(name, _, _)| name == "syntax")
        })
        .map(|(_, value, line)| (value, line + skipped))
        .or_else(|| {
            // Reading a whole file as JSON is only worth it where it looks like an object.
            if text.trim_ascii_start().first() != Some(&b'{') {
                return None;
            }
            let object: serde_json::Map<String, serde_json::Value> =
                serde_json::from_slice(text).ok()?;
            Some((object.get("syntax")?.as_str()?.to_owned(), 1 + skipped))
        })
        .map(|(value, line)| match value.split_once(' ') {
            Some((name, _)) => (name.to_owned(), line),
            None => (value, line),
        })
}

/// Gives the directives behind a `#!` line, which the parser itself takes for a comment that ends
/// the directives, but the choice of the frontend and of checks does not.
pub(super) fn behind_shebang(text: &[u8]) -> Vec<(String, String, usize)> {
    match skip_shebang(text.strip_prefix(BOM).unwrap_or(text)) {
        (rest, skipped) if skipped > 0 => leading(rest, "#")
            .into_iter()
            .filter(|(name, _, _)| name != "escape")
            .map(|(name, value, line)| (name, value, line + skipped))
            .collect(),
        _ => Vec::new(),
    }
}

/// Gives the escape character that a file chooses; the backslash where it is silent or wrong.
pub(super) fn escape(text: &[u8]) -> char {
    let text = text.strip_prefix(BOM).unwrap_or(text);
    let found = leading(text, "#")
        .into_iter()
        .find(|(name, _, _)| name == "escape");
    match found {
        Some((_, value, _)) if value == "`" => '`',
        _ => '\\',
    }
}

fn skip_shebang(text: &[u8]) -> (&[u8], usize) {
    if !text.starts_with(b"#!") {
        return (text, 0);
    }
    match text.iter().position(|b| *b == b'\n') {
        Some(end) => (&text[end + 1..], 1),
        None => (&[], 1),
    }
}

/// Collects the directives at the top, up to the first that is wrong.
fn leading(text: &[u8], comment: &'static str) -> Vec<(String, String, usize)> {
    let mut directives = Directives::new(comment);
    let mut found = Vec::new();
    for (at, line) in text.split(|b| *b == b'\n').enumerate() {
        let line = String::from_utf8_lossy(line);
        match directives.line(line.trim_end_matches('\r')) {
            Ok(Some((name, value))) => found.push((name.to_owned(), value, at + 1)),
            Ok(None) | Err(_) => break,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_frontend_in_every_form() {
        for (text, expected) in [
            ("# syntax=a/b:1\nFROM x", Some(("a/b:1", 1))),
            ("\u{feff}#Syntax = a/b:1 opt\r\nFROM x", Some(("a/b:1", 1))),
            ("#!/bin/x\n# syntax=a", Some(("a", 2))),
            ("# escape=`\n# check=skip=all\n# syntax=a", Some(("a", 3))),
            ("// syntax=a", Some(("a", 1))),
            ("{ \"syntax\": \"a\", \"b\": [1] }", Some(("a", 1))),
            ("{ \"syntax\": 1 }", None),
            ("# hello\n# syntax=a", None),
            ("FROM x\n# syntax=a", None),
            ("# other=1\n# syntax=a", None),
            ("", None),
        ] {
            let expected = expected.map(|(name, line)| (name.to_owned(), line));
            assert_eq!(detect_syntax(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn splits_names_and_values() {
        for (line, expected) in [
            ("escape=`", Some(("escape", "`"))),
            (" escape = \t` ", Some(("escape", "`"))),
            ("a=b=c", Some(("a", "b=c"))),
            ("a=  ", Some(("a", " "))),
            ("a=", None),
            ("1a=b", None),
            ("a b=c", None),
            ("=c", None),
        ] {
            assert_eq!(split(line), expected, "{line:?}");
        }
    }
}
