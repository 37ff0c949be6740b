//! What .gitattributes files say of how a file is written out (gitattributes(5)).

use super::wildmatch;
use crate::fs::RelPath;
use std::sync::Arc;

/// The longest line that counts, and the most bytes of a file, as in git.
const MAX_LINE: usize = 2048;
pub(super) const MAX_FILE: u64 = 100 << 20;

/// What is said of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Set,
    Unset,
    Value(Vec<u8>),
    /// `!name`: as if nothing had been said.
    Unspecified,
}

/// The attributes that change what is written.
const NAMES: [&[u8]; 5] = [b"text", b"crlf", b"eol", b"ident", b"working-tree-encoding"];

#[derive(Default)]
struct Found([Option<State>; NAMES.len()]);

/// How a file's content is changed when it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) eol: Eol,
    /// Whether `$Id$` is filled in.
    pub(super) ident: bool,
    pub(super) encoding: Option<String>,
}

/// What becomes of the ends of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Eol {
    /// They stay.
    #[default]
    Keep,
    /// LF becomes CR LF.
    Crlf,
    /// The same, where the content is text and has no CR yet.
    CrlfIfText,
}

impl Rules {
    pub(super) fn is_plain(&self) -> bool {
        *self == Rules::default()
    }
}

/// One .gitattributes.
struct File {
    dir: RelPath,
    lines: Vec<Line>,
}

struct Line {
    target: Target,
    /// In the order written.
    attributes: Vec<(Vec<u8>, State)>,
}

enum Target {
    /// A last name, at any depth.
    Name(Vec<u8>),
    /// A path below the file's directory.
    Path(Vec<u8>),
    /// `[attr]NAME`.
    Macro(Vec<u8>),
    /// A directory, which no file is.
    Nothing,
}

/// The files that count in a directory: its own and those above.
#[derive(Clone, Default)]
pub(super) struct Attributes {
    /// Root first.
    files: Vec<Arc<File>>,
}

impl Attributes {
    /// Tells whether nothing is said of any file.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Adds the file of a directory below.
    pub(super) fn with(&self, dir: &RelPath, text: &[u8]) -> Attributes {
        let lines = text
            .split(|&c| c == b'\n')
            .filter(|line| line.len() <= MAX_LINE)
            .filter_map(|line| Line::parse(line, dir.is_root()))
            .collect();
        let mut files = self.files.clone();
        files.push(Arc::new(File {
            dir: dir.clone(),
            lines,
        }));
        Attributes { files }
    }

    /// Gives what holds for a file.
    pub(super) fn of(&self, path: &RelPath) -> Rules {
        let mut found = Found::default();
        // What is deeper, and later in a file, counts more.
        for file in self.files.iter().rev() {
            let Some(below) = path.strip(&file.dir) else {
                continue;
            };
            for line in file.lines.iter().rev() {
                let hit = match &line.target {
                    Target::Name(pattern) => wildmatch::matches(pattern, path.name()),
                    Target::Path(pattern) => wildmatch::matches(pattern, below.as_bytes()),
                    Target::Macro(_) | Target::Nothing => false,
                };
                if hit {
                    self.take(&line.attributes, &mut found, 0);
                }
            }
        }
        found.rules()
    }

    fn take(&self, attributes: &[(Vec<u8>, State)], found: &mut Found, depth: u32) {
        for (name, state) in attributes.iter().rev() {
            if let Some(at) = NAMES.iter().position(|own| own == name) {
                found.0[at].get_or_insert_with(|| state.clone());
            } else if *state == State::Set && depth < 16 {
                let own = self.files.iter().flat_map(|file| file.lines.iter().rev());
                let own = own
                    .filter(|line| matches!(&line.target, Target::Macro(own) if own == name))
                    .map(|line| &line.attributes[..]);
                // The one macro that is there without being defined.
                let binary = [(b"text".to_vec(), State::Unset)];
                let builtin = (name == b"binary").then_some(&binary[..]);
                if let Some(inner) = own.chain(builtin).next() {
                    self.take(inner, found, depth + 1);
                }
            }
        }
    }
}

impl Found {
    /// Works out what convert.c makes of the attributes where no configuration says anything.
    fn rules(self) -> Rules {
        let [text, crlf, eol, ident, encoding] = self.0;
        let is = |state: &Option<State>, word: &[u8]| matches!(state, Some(State::Value(value)) if value == word);
        // `crlf` is what `text` was called once.
        let known = |state: &Option<State>| {
            matches!(state, Some(State::Set | State::Unset))
                || is(state, b"auto")
                || is(state, b"input")
        };
        let text = if known(&text) { text } else { crlf };
        let eol = match () {
            () if text == Some(State::Unset) || !is(&eol, b"crlf") => Eol::Keep,
            () if is(&text, b"auto") => Eol::CrlfIfText,
            () => Eol::Crlf,
        };
        let encoding = match encoding {
            Some(State::Value(value)) => String::from_utf8(value).ok(),
            _ => None,
        };
        Rules {
            eol,
            ident: ident == Some(State::Set),
            encoding: encoding.filter(|name| {
                !name.eq_ignore_ascii_case("utf-8") && !name.eq_ignore_ascii_case("utf8")
            }),
        }
    }
}

impl Line {
    fn parse(line: &[u8], at_root: bool) -> Option<Line> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = line.trim_ascii_start();
        let (pattern, rest) = match line.first()? {
            b'#' => return None,
            b'"' => unquoted(line)?,
            _ => {
                let end = line
                    .iter()
                    .position(|c| c.is_ascii_whitespace())
                    .unwrap_or(line.len());
                (line[..end].to_vec(), &line[end..])
            }
        };
        let attributes = rest
            .split(|c| c.is_ascii_whitespace())
            .filter_map(attribute)
            .collect();
        let target = match pattern.strip_prefix(b"[attr]") {
            Some(name) if at_root && !name.is_empty() => Target::Macro(name.to_vec()),
            Some(_) => return None,
            None => match pattern.as_slice() {
                // Patterns that exclude mean nothing here.
                [b'!', ..] => return None,
                [.., b'/'] => Target::Nothing,
                _ if pattern.contains(&b'/') => {
                    let below = pattern.strip_prefix(b"/").unwrap_or(&pattern);
                    Target::Path(below.to_vec())
                }
                _ => Target::Name(pattern),
            },
        };
        Some(Line { target, attributes })
    }
}

fn attribute(word: &[u8]) -> Option<(Vec<u8>, State)> {
    let (name, state) = match word {
        [] => return None,
        [b'-', name @ ..] => (name, State::Unset),
        [b'!', name @ ..] => (name, State::Unspecified),
        _ => match word.iter().position(|&c| c == b'=') {
            Some(at) => (&word[..at], State::Value(word[at + 1..].to_vec())),
            None => (word, State::Set),
        },
    };
    Some((name.to_vec(), state))
}

/// Reads a pattern in quotes, as C writes them; gives what is after it, too.
fn unquoted(line: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut rest = line.strip_prefix(b"\"")?;
    let mut out = Vec::new();
    loop {
        let (&c, tail) = rest.split_first()?;
        rest = tail;
        match c {
            b'"' => return Some((out, rest)),
            b'\\' => {
                let (&c, tail) = rest.split_first()?;
                rest = tail;
                out.push(match c {
                    b'a' => 7,
                    b'b' => 8,
                    b't' => b'\t',
                    b'n' => b'\n',
                    b'v' => 11,
                    b'f' => 12,
                    b'r' => b'\r',
                    b'"' | b'\\' => c,
                    b'0'..=b'3' => {
                        let digits = rest.get(..2)?;
                        rest = &rest[2..];
                        digits.iter().try_fold(c - b'0', |byte, digit| {
                            matches!(digit, b'0'..=b'7').then(|| byte << 3 | (digit - b'0'))
                        })?
                    }
                    _ => return None,
                });
            }
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::clean(text.as_bytes()).unwrap()
    }

    #[test]
    fn attributes_say_how_a_file_is_written() {
        let root = "\
# a comment
*.bat text eol=crlf
*.auto text=auto eol=crlf
*.crlf crlf eol=crlf
*.bin binary eol=crlf
*.raw eol=crlf -text
*.lone eol=crlf
*.id ident
*.u16 working-tree-encoding=UTF-16
*.u8 working-tree-encoding=UTF-8
/top.txt text eol=crlf
sub/only.txt text eol=crlf
deep/**/x text eol=crlf
dir/ text eol=crlf
!not text eol=crlf
\"a b\\101.q\" text eol=crlf
[attr]dos text eol=crlf
*.dos dos
*.twice text eol=crlf
*.twice !eol
*.lf text eol=lf
*.filter filter=lfs -text
";
        let sub = "*.bat -text\n[attr]none text\n/here text eol=crlf\n";
        let attributes = Attributes::default()
            .with(&RelPath::root(), root.as_bytes())
            .with(&path("sub"), sub.as_bytes());
        let table = [
            ("a.bat", Eol::Crlf),
            ("x/a.bat", Eol::Crlf),
            ("sub/a.bat", Eol::Keep),
            ("sub/x/a.bat", Eol::Keep),
            ("a.auto", Eol::CrlfIfText),
            ("a.crlf", Eol::Crlf),
            ("a.bin", Eol::Keep),
            ("a.raw", Eol::Keep),
            ("a.lone", Eol::Crlf),
            ("top.txt", Eol::Crlf),
            ("x/top.txt", Eol::Keep),
            ("sub/only.txt", Eol::Crlf),
            ("x/sub/only.txt", Eol::Keep),
            ("deep/x", Eol::Crlf),
            ("deep/a/b/x", Eol::Crlf),
            ("dir/x", Eol::Keep),
            ("not", Eol::Keep),
            ("!not", Eol::Keep),
            ("a bA.q", Eol::Crlf),
            ("a.dos", Eol::Crlf),
            ("a.twice", Eol::Keep),
            ("a.lf", Eol::Keep),
            ("a.filter", Eol::Keep),
            ("sub/here", Eol::Crlf),
            ("sub/x/here", Eol::Keep),
        ];
        for (name, want) in table {
            assert_eq!(attributes.of(&path(name)).eol, want, "{name}");
        }
        assert!(attributes.of(&path("a.id")).ident);
        assert_eq!(
            attributes.of(&path("a.u16")).encoding.as_deref(),
            Some("UTF-16")
        );
        assert!(attributes.of(&path("a.u8")).is_plain());
        assert!(attributes.of(&path("a.c")).is_plain());
    }

    #[test]
    fn macros_that_name_each_other_end() {
        let text = b"[attr]a b\n[attr]b a text\nx a eol=crlf\n";
        let attributes = Attributes::default().with(&RelPath::root(), text);
        assert_eq!(attributes.of(&path("x")).eol, Eol::Crlf);
    }
}
