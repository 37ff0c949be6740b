//! A content as it is written out: ends of lines, `$Id$`, encodings (git's convert.c).

use super::Oid;
use super::attributes::{Eol, Rules};

/// Changes a blob's content; `Err` names an encoding that is not known, with what is written then.
pub(super) fn written(bytes: Vec<u8>, oid: &Oid, rules: &Rules) -> Result<Vec<u8>, Vec<u8>> {
    let bytes = match rules.ident {
        true => with_ident(bytes, oid),
        false => bytes,
    };
    let bytes = match wants_crlf(&bytes, rules.eol) {
        true => with_crlf(&bytes),
        false => bytes,
    };
    match &rules.encoding {
        None => Ok(bytes),
        Some(name) => encoded(bytes, name),
    }
}

/// What a content has of each.
#[derive(Default)]
struct Count {
    nul: usize,
    lone_cr: usize,
    lone_lf: usize,
    crlf: usize,
    printable: usize,
    other: usize,
}

fn count(bytes: &[u8]) -> Count {
    let mut count = Count::default();
    let mut at = 0;
    while let Some(&c) = bytes.get(at) {
        at += 1;
        match c {
            b'\r' if bytes.get(at) == Some(&b'\n') => {
                count.crlf += 1;
                at += 1;
            }
            b'\r' => count.lone_cr += 1,
            b'\n' => count.lone_lf += 1,
            0 => {
                count.nul += 1;
                count.other += 1;
            }
            // Backspace, tab, escape, form feed.
            8 | 9 | 27 | 12 => count.printable += 1,
            127 | 1..=31 => count.other += 1,
            _ => count.printable += 1,
        }
    }
    // An end mark of DOS is none of the bytes that tell of a binary.
    if bytes.last() == Some(&26) {
        count.other -= 1;
    }
    count
}

fn wants_crlf(bytes: &[u8], eol: Eol) -> bool {
    if eol == Eol::Keep {
        return false;
    }
    let count = count(bytes);
    let is_binary = count.lone_cr > 0 || count.nul > 0 || count.printable >> 7 < count.other;
    count.lone_lf > 0 && (eol == Eol::Crlf || count.crlf == 0 && !is_binary)
}

fn with_crlf(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 16);
    let mut last = 0;
    for &c in bytes {
        if c == b'\n' && last != b'\r' {
            out.push(b'\r');
        }
        out.push(c);
        last = c;
    }
    out
}

/// Fills `$Id$` in, and anew where it was filled in before.
fn with_ident(bytes: Vec<u8>, oid: &Oid) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = &bytes[..];
    while let Some(at) = rest.windows(3).position(|three| three == b"$Id") {
        let (before, tail) = rest.split_at(at + 3);
        out.extend_from_slice(before);
        rest = tail;
        let after = match tail.first() {
            Some(b'$') => &tail[1..],
            Some(b':') => {
                let Some(end) = tail.iter().position(|&c| c == b'$') else {
                    break;
                };
                let inner = &tail[1..end];
                let foreign = inner
                    .get(1..)
                    .and_then(|inner| inner.iter().position(|&c| c == b' '))
                    .is_some_and(|space| space + 2 < inner.len());
                if inner.contains(&b'\n') || foreign {
                    continue;
                }
                &tail[end + 1..]
            }
            _ => continue,
        };
        out.extend_from_slice(format!(": {oid} $").as_bytes());
        rest = after;
    }
    out.extend_from_slice(rest);
    out
}

fn encoded(bytes: Vec<u8>, name: &str) -> Result<Vec<u8>, Vec<u8>> {
    let (mark, little) = match name.to_ascii_uppercase().as_str() {
        "UTF-16" | "UTF16" | "UTF-16LE-BOM" => (true, true),
        "UTF-16BE-BOM" => (true, false),
        "UTF-16LE" | "UTF16LE" => (false, true),
        "UTF-16BE" | "UTF16BE" => (false, false),
        _ => return Err(bytes),
    };
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return Err(bytes);
    };
    let mut out = Vec::with_capacity(2 * bytes.len() + 2);
    let mark = mark.then_some('\u{feff}');
    for unit in mark.into_iter().chain(text.chars()).flat_map(|c| {
        let mut units = [0; 2];
        let many = c.encode_utf16(&mut units).len();
        units.into_iter().take(many)
    }) {
        out.extend_from_slice(&match little {
            true => unit.to_le_bytes(),
            false => unit.to_be_bytes(),
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oid() -> Oid {
        Oid::parse("0123456789abcdef0123456789abcdef01234567").unwrap()
    }

    #[test]
    fn ends_of_lines() {
        let table: [(&[u8], &[u8], &[u8]); 8] = [
            (b"a\nb\n", b"a\r\nb\r\n", b"a\r\nb\r\n"),
            (b"a\r\nb\n", b"a\r\nb\r\n", b"a\r\nb\n"),
            (b"a\rb\n", b"a\rb\r\n", b"a\rb\n"),
            (b"a\0\n", b"a\0\r\n", b"a\0\n"),
            (b"a\r\n", b"a\r\n", b"a\r\n"),
            (b"none", b"none", b"none"),
            (b"", b"", b""),
            (b"\n\n", b"\r\n\r\n", b"\r\n\r\n"),
        ];
        for (content, always, if_text) in table {
            for (eol, want) in [
                (Eol::Crlf, always),
                (Eol::CrlfIfText, if_text),
                (Eol::Keep, content),
            ] {
                let rules = Rules {
                    eol,
                    ..Rules::default()
                };
                let got = written(content.to_vec(), &oid(), &rules).unwrap();
                assert_eq!(got, want, "{} {eol:?}", content.escape_ascii());
            }
        }
    }

    #[test]
    fn idents() {
        let id = format!("$Id: {} $", oid());
        let table = [
            ("a $Id$ b", format!("a {id} b")),
            ("$Id: 0123 $", id.clone()),
            ("$Id:$", id.clone()),
            ("$Id$$Id$", format!("{id}{id}")),
            ("$Id: a b c $", "$Id: a b c $".into()),
            ("$Id: x\n$", "$Id: x\n$".into()),
            ("$Id: open", "$Id: open".into()),
            ("$Identity$", "$Identity$".into()),
            ("$I$", "$I$".into()),
        ];
        for (content, want) in table {
            let rules = Rules {
                ident: true,
                ..Rules::default()
            };
            let got = written(content.into(), &oid(), &rules).unwrap();
            assert_eq!(String::from_utf8_lossy(&got), want, "{content}");
        }
    }

    #[test]
    fn encodings() {
        let table: [(&str, &[u8]); 4] = [
            ("UTF-16", b"\xff\xfeh\0\xe4\0=\xd8\0\xde"),
            ("utf-16le", b"h\0\xe4\0=\xd8\0\xde"),
            ("UTF-16BE", b"\0h\0\xe4\xd8=\xde\0"),
            ("UTF-16BE-BOM", b"\xfe\xff\0h\0\xe4\xd8=\xde\0"),
        ];
        for (name, want) in table {
            assert_eq!(
                encoded("h\u{e4}\u{1f600}".into(), name).unwrap(),
                want,
                "{name}"
            );
        }
        assert_eq!(encoded(b"x".to_vec(), "EBCDIC"), Err(b"x".to_vec()));
        assert_eq!(encoded(b"\xff".to_vec(), "UTF-16"), Err(b"\xff".to_vec()));
    }
}
