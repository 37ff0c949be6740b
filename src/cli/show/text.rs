//! Text as it may be shown: without control characters, in human units.

use std::time::Duration;

/// What becomes of colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Colours {
    /// They stay.
    Keep,
    /// They go.
    Drop,
}

/// Makes one line of foreign bytes fit to be shown: no control character but the tab, no escape
/// sequence but colours where they are kept (and then they end with the line), no change of
/// writing direction. Of a line that was written over after carriage returns the last state stays.
pub(in crate::cli) fn line(bytes: &[u8], colours: Colours) -> String {
    let text = String::from_utf8_lossy(bytes);
    // Most lines have nothing to be taken out.
    if bytes.iter().all(|c| matches!(c, b' '..=b'~' | b'\t')) {
        return text.into_owned();
    }
    let text = text.trim_end_matches(['\r', '\n']);
    let text = text.rsplit('\r').next().unwrap_or(text);
    let mut out = String::with_capacity(text.len());
    let mut coloured = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\t' => out.push(c),
            '\x1b' => match chars.peek() {
                Some('[') => {
                    chars.next();
                    coloured |= sequence(&mut chars, colours, &mut out);
                }
                Some(']' | 'P' | 'X' | '^' | '_') => string(&mut chars),
                // Intermediates, then one final character.
                _ => {
                    while chars.next_if(|c| (' '..='/').contains(c)).is_some() {}
                    chars.next_if(|c| !c.is_control());
                }
            },
            '\u{9b}' => coloured |= sequence(&mut chars, colours, &mut out),
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => string(&mut chars),
            _ if c.is_control() || turns(c) => {}
            _ => out.push(c),
        }
    }
    if coloured {
        out.push_str("\x1b[0m");
    }
    out
}

/// Tells characters that break lines or turn the writing direction.
fn turns(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Reads a control sequence; writes it where it is a colour to be kept, and tells so.
fn sequence(chars: &mut Chars<'_>, colours: Colours, out: &mut String) -> bool {
    let mut params = String::new();
    while let Some(c) = chars.next_if(|c| (' '..='?').contains(c)) {
        params.push(c);
    }
    let last = chars.next_if(|c| ('@'..='~').contains(c));
    let plain = params.len() <= 32
        && params
            .bytes()
            .all(|c| c.is_ascii_digit() || c == b';' || c == b':');
    if last == Some('m') && plain && colours == Colours::Keep {
        out.push_str("\x1b[");
        out.push_str(&params);
        out.push('m');
        return true;
    }
    false
}

/// Skips a control string to its end.
fn string(chars: &mut Chars<'_>) {
    while let Some(c) = chars.next() {
        match c {
            '\x07' | '\u{9c}' => return,
            '\x1b' => {
                chars.next_if_eq(&'\\');
                return;
            }
            _ => {}
        }
    }
}

/// Cuts a text to so many characters.
pub(in crate::cli) fn ellipsis(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(most.saturating_sub(1)).collect();
    out.push('…');
    out
}

/// Gives the columns a text takes on a terminal, roughly: East Asian scripts and pictures take two.
pub(in crate::cli) fn columns(text: &str) -> usize {
    text.chars().map(width).sum()
}

fn width(c: char) -> usize {
    match u32::from(c) {
        0x300..=0x36f | 0x200b..=0x200f | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// Cuts a text to so many columns.
pub(in crate::cli) fn fit(text: &str, most: usize) -> String {
    if columns(text) <= most {
        return text.to_owned();
    }
    let mut used = 0;
    let mut out = String::new();
    for c in text.chars() {
        if used + width(c) + 1 > most {
            break;
        }
        used += width(c);
        out.push(c);
    }
    out.push('…');
    out
}

/// Writes a count of bytes: `312 B`, `3.4 MB`.
pub(in crate::cli) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut unit = "";
    for name in UNITS {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = name;
    }
    if value < 99.95 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// Writes a duration: `42ms`, `1.2s`, `2m03s`, `1h02m`.
pub(in crate::cli) fn seconds(took: Duration) -> String {
    let whole = took.as_secs();
    match whole {
        0 if took.as_millis() < 95 => format!("{}ms", took.as_millis()),
        0..60 => format!("{:.1}s", took.as_secs_f64()),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
    }
}

/// Shortens every digest in a label to twelve digits.
pub(in crate::cli) fn short(label: &str) -> String {
    const PREFIX: &str = "sha256:";
    let mut out = String::new();
    let mut rest = label;
    while let Some((before, after)) = rest.split_once(PREFIX) {
        let digits = after.bytes().take_while(u8::is_ascii_hexdigit).count();
        out.push_str(before);
        out.push_str(PREFIX);
        let (hex, tail) = after.split_at(digits);
        out.push_str(hex.get(..12).filter(|_| digits == 64).unwrap_or(hex));
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// Gives the time of day, RFC 3339 in UTC with milliseconds.
pub(in crate::cli) fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_lose_what_could_mess_up_a_log() {
        let cases: [(&[u8], &str, &str); 18] = [
            (b"plain\ttext\n", "plain\ttext", "plain\ttext"),
            (b"crlf\r\n", "crlf", "crlf"),
            (b"10%\r20%\r100%\r\n", "100%", "100%"),
            (b"\x1b[31mred\x1b[0m", "red", "\x1b[31mred\x1b[0m\x1b[0m"),
            (b"\x1b[2Jgone", "gone", "gone"),
            (b"\x1b[1;1Hhome", "home", "home"),
            (b"\x1b]0;title\x07after", "after", "after"),
            (b"\x1b]8;;http://x\x1b\\link", "link", "link"),
            (b"\x1bPdcs\x1b\\x", "x", "x"),
            (b"\x1b(Bcharset", "charset", "charset"),
            (b"\x1bcreset", "reset", "reset"),
            (b"bell\x07back\x08del\x7f\0", "bellbackdel", "bellbackdel"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}", "\u{fffd}\u{fffd}"),
            ("\u{9b}31mc1\u{85}".as_bytes(), "c1", "\x1b[31mc1\x1b[0m"),
            ("\u{202e}evil\u{2066}".as_bytes(), "evil", "evil"),
            (b"\x1b[?25lx", "x", "x"),
            (b"\x1b", "", ""),
            (b"\x1b[31;\x1b[2Jx", "x", "x"),
        ];
        for (bytes, dropped, kept) in cases {
            let what = String::from_utf8_lossy(bytes);
            assert_eq!(line(bytes, Colours::Drop), dropped, "{what:?}");
            assert_eq!(line(bytes, Colours::Keep), kept, "{what:?}");
        }
    }

    #[test]
    fn numbers_are_for_people() {
        for (count, want) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (3_400_000, "3.4 MB"),
            (99_960_000, "100 MB"),
            (999_600, "1.0 MB"),
            (123_456_789, "123 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(bytes(count), want);
        }
        for (millis, want) in [
            (4, "4ms"),
            (42, "42ms"),
            (1240, "1.2s"),
            (59_940, "59.9s"),
            (123_000, "2m03s"),
            (3_720_000, "1h02m"),
        ] {
            assert_eq!(seconds(Duration::from_millis(millis)), want);
        }
        let digest = format!("x@sha256:{} y", "ab".repeat(32));
        assert_eq!(short(&digest), "x@sha256:abababababab y");
        assert_eq!(short("sha256:zz"), "sha256:zz");
        assert_eq!(fit("abcdef", 4), "abc…");
        assert_eq!(columns("日本"), 4);
    }
}
