//! .gitmodules (gitmodules(5)), which is written as git's configuration is.

use crate::fs::RelPath;
use std::collections::BTreeMap;

/// The most submodules of one repository.
const MAX: usize = 10_000;

/// A submodule as .gitmodules describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Submodule {
    /// Its name: a path without `..`.
    pub name: RelPath,
    /// Where it belongs.
    pub path: Option<RelPath>,
    /// Where it comes from.
    pub url: Option<String>,
    /// Whether it is left out (`update = none`).
    pub is_left_out: bool,
}

/// Reads a .gitmodules; `Err` says what is wrong with it. Names and values that git refuses as an
/// attack are refused here, too.
pub fn submodules(text: &[u8]) -> Result<Vec<Submodule>, String> {
    let mut out: BTreeMap<Vec<u8>, Submodule> = BTreeMap::new();
    for setting in settings(text)? {
        let Setting {
            section,
            name,
            key,
            value,
        } = setting;
        if section != b"submodule" {
            continue;
        }
        let Some(name) = name else { continue };
        let shown = name.escape_ascii().to_string();
        let checked = RelPath::checked(&name)
            .filter(|name| !name.is_root())
            .ok_or_else(|| format!("the submodule name `{shown}` is suspicious"))?;
        let one = out.entry(name).or_insert_with(|| Submodule {
            name: checked,
            ..Submodule::default()
        });
        let value = value.unwrap_or_default();
        let suspicious = || {
            format!(
                "submodule `{shown}` has a suspicious {}",
                key.escape_ascii()
            )
        };
        if value.starts_with(b"-") && matches!(&key[..], b"path" | b"url") {
            return Err(suspicious());
        }
        match &key[..] {
            b"path" => {
                let path = RelPath::checked(value.strip_suffix(b"/").unwrap_or(&value));
                one.path = Some(path.filter(|path| !path.is_root()).ok_or_else(suspicious)?);
            }
            b"url" => {
                let url = String::from_utf8(value).map_err(|_| suspicious())?;
                if url.chars().any(char::is_control) {
                    return Err(suspicious());
                }
                one.url = Some(url);
            }
            b"update" => match &value[..] {
                b"none" => one.is_left_out = true,
                b"checkout" | b"rebase" | b"merge" => one.is_left_out = false,
                _ => return Err(suspicious()),
            },
            _ => {}
        }
        if out.len() > MAX {
            return Err(format!("there are more than {MAX} submodules"));
        }
    }
    Ok(out.into_values().collect())
}

/// One `key = value` of a configuration.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    /// In lower case.
    section: Vec<u8>,
    /// What stands in quotes after it.
    name: Option<Vec<u8>>,
    /// In lower case.
    key: Vec<u8>,
    /// None where there is no `=`.
    value: Option<Vec<u8>>,
}

fn settings(text: &[u8]) -> Result<Vec<Setting>, String> {
    let mut out = Vec::new();
    let mut section: Option<(Vec<u8>, Option<Vec<u8>>)> = None;
    let mut rest = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut line = 1;
    while let Some((&first, tail)) = rest.split_first() {
        let wrong = || format!("line {line} cannot be read");
        match first {
            b'\n' => {
                line += 1;
                rest = tail;
            }
            c if c.is_ascii_whitespace() => rest = tail,
            b'#' | b';' => {
                let end = tail.iter().position(|&c| c == b'\n').unwrap_or(tail.len());
                rest = &tail[end..];
            }
            b'[' => {
                let (head, tail) = header(tail).ok_or_else(wrong)?;
                section = Some(head);
                rest = tail;
            }
            _ => {
                let (section, name) = section.clone().ok_or_else(wrong)?;
                let end = rest
                    .iter()
                    .position(|c| !c.is_ascii_alphanumeric() && *c != b'-')
                    .unwrap_or(rest.len());
                if end == 0 {
                    return Err(wrong());
                }
                let key = rest[..end].to_ascii_lowercase();
                let (value, tail, lines) = value(&rest[end..]).ok_or_else(wrong)?;
                rest = tail;
                line += lines;
                out.push(Setting {
                    section,
                    name,
                    key,
                    value,
                });
            }
        }
    }
    Ok(out)
}

/// A section's name and what stands in quotes after it.
type Section = (Vec<u8>, Option<Vec<u8>>);

/// Reads `section]` or `section "name"]`; gives what is after it.
fn header(text: &[u8]) -> Option<(Section, &[u8])> {
    let end = text
        .iter()
        .position(|c| !c.is_ascii_alphanumeric() && !matches!(c, b'-' | b'.'))?;
    let section = text[..end].to_ascii_lowercase();
    let mut rest = &text[end..];
    if let Some(tail) = rest.strip_prefix(b"]") {
        return Some(((section, None), tail));
    }
    let blanks = rest
        .iter()
        .take_while(|c| matches!(c, b' ' | b'\t'))
        .count();
    rest = rest[blanks..].strip_prefix(b"\"")?;
    let mut name = Vec::new();
    loop {
        let (&c, tail) = rest.split_first()?;
        rest = tail;
        match c {
            b'"' => break,
            b'\n' => return None,
            b'\\' => {
                let (&c, tail) = rest.split_first()?;
                rest = tail;
                name.push(c);
            }
            c => name.push(c),
        }
    }
    Some(((section, Some(name)), rest.strip_prefix(b"]")?))
}

/// Reads what is after a key up to the end of the line; gives how many lines went on, too.
#[expect(clippy::type_complexity, reason = "used here only")]
fn value(text: &[u8]) -> Option<(Option<Vec<u8>>, &[u8], usize)> {
    let blanks = text
        .iter()
        .take_while(|c| matches!(c, b' ' | b'\t'))
        .count();
    let mut rest = &text[blanks..];
    match rest.split_first() {
        None => return Some((None, rest, 0)),
        Some((b'\n' | b'#' | b';' | b'\r', _)) => return Some((None, rest, 0)),
        Some((b'=', tail)) => rest = tail,
        Some(_) => return None,
    }
    let mut out = Vec::new();
    // Blanks at the end go, but for those in quotes.
    let mut keep = 0;
    let mut quoted = false;
    let mut lines = 0;
    while let Some((&c, tail)) = rest.split_first() {
        match c {
            b'\n' if quoted => return None,
            b'\n' => break,
            b'#' | b';' if !quoted => {
                let end = tail.iter().position(|&c| c == b'\n').unwrap_or(tail.len());
                rest = &tail[end..];
                break;
            }
            b'"' => {
                quoted = !quoted;
                keep = out.len();
            }
            b'\\' => {
                let (&c, after) = tail.split_first()?;
                rest = after;
                match c {
                    b'\n' => lines += 1,
                    b'n' => out.push(b'\n'),
                    b't' => out.push(b'\t'),
                    b'b' => out.push(8),
                    b'\\' | b'"' => out.push(c),
                    _ => return None,
                }
                keep = out.len();
                continue;
            }
            c if c.is_ascii_whitespace() && !quoted => {
                if !out.is_empty() {
                    out.push(c);
                }
            }
            c => {
                out.push(c);
                keep = out.len();
            }
        }
        rest = tail;
    }
    if quoted {
        return None;
    }
    out.truncate(keep);
    Some((Some(out), rest, lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match submodules(text.as_bytes()) {
            Err(why) => format!("!{why}"),
            Ok(all) => all
                .iter()
                .map(|one| {
                    format!(
                        "{} at {} from {}{}",
                        one.name,
                        one.path.as_ref().map_or("-".into(), RelPath::to_string),
                        one.url.as_deref().unwrap_or("-"),
                        if one.is_left_out { " not" } else { "" }
                    )
                })
                .collect::<Vec<_>>()
                .join(", "),
        }
    }

    #[test]
    fn modules_are_read() {
        let table = [
            ("", ""),
            (
                "[submodule \"a\"]\n\tpath = a\n\turl = ../a.git\n",
                "/a at /a from ../a.git",
            ),
            (
                "[submodule \"a/b\"]\npath=x/y/\nURL=\"https://h/#x\" ; why\n[core]\npath = z\n[submodule \"c\"]\nupdate = none\n",
                "/a/b at /x/y from https://h/#x, /c at - from - not",
            ),
            (
                "# x\n[submodule \"a\"] path = a\nurl = one\\\ntwo\n[submodule \"a\"]\nurl = three  \n",
                "/a at /a from three",
            ),
            (
                "[Submodule \"a\\\"b\"]\npath\nbranch = x\n",
                "!submodule `a\\\"b` has a suspicious path",
            ),
            (
                "[submodule \"../a\"]\npath = a\n",
                "!the submodule name `../a` is suspicious",
            ),
            (
                "[submodule \"a/../../b\"]\npath = a\n",
                "!the submodule name `a/../../b` is suspicious",
            ),
            (
                "[submodule \"\"]\npath = a\n",
                "!the submodule name `` is suspicious",
            ),
            (
                "[submodule \"a\"]\npath = ../a\n",
                "!submodule `a` has a suspicious path",
            ),
            (
                "[submodule \"a\"]\npath = /etc\n",
                "!submodule `a` has a suspicious path",
            ),
            (
                "[submodule \"a\"]\npath = -x\n",
                "!submodule `a` has a suspicious path",
            ),
            (
                "[submodule \"a\"]\nurl = -u./payload\n",
                "!submodule `a` has a suspicious url",
            ),
            (
                "[submodule \"a\"]\nurl = \"a\\nb\"\n",
                "!submodule `a` has a suspicious url",
            ),
            (
                "[submodule \"a\"]\nupdate = !rm -rf /\n",
                "!submodule `a` has a suspicious update",
            ),
            ("path = a\n", "!line 1 cannot be read"),
            ("\n[submodule \"a\n", "!line 2 cannot be read"),
            ("[a]\nb = \"c\n", "!line 2 cannot be read"),
            ("[a]\n= c\n", "!line 2 cannot be read"),
            ("[a]\nb c\n", "!line 2 cannot be read"),
        ];
        for (text, want) in table {
            assert_eq!(read(text), want, "{text}");
        }
    }
}
