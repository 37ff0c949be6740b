//! How words are shown in messages, and which known word somebody may have meant.

/// Quotes a text as Go's `%q` does, which BuildKit's messages use.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if c < ' ' || c == '\x7f' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if unprintable(c) && u32::from(c) <= 0xffff => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c if unprintable(c) => out.push_str(&format!("\\U{:08x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn unprintable(c: char) -> bool {
    c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(u32::from(c), 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xfeff)
}

/// Finds the option nearest to a word, at most two edits away, as BuildKit does; two neighbours that
/// changed places are one edit here.
pub fn nearest<'a>(word: &str, options: &[&'a str]) -> Option<&'a str> {
    nearest_within(word, options, 2)
}

/// Finds the option nearest to a word: at most so many letters to change, add or take away. The
/// first of equally near ones wins; where the word is an option itself, there is none.
pub fn nearest_within<'a>(word: &str, options: &[&'a str], most: usize) -> Option<&'a str> {
    // Anything short is near to nothing.
    if word.is_empty() {
        return None;
    }
    let mut best = None;
    let mut least = most + 1;
    for option in options {
        if word == *option {
            return None;
        }
        let distance = distance(word, option, least);
        if distance < least {
            least = distance;
            best = Some(*option);
        }
    }
    best
}

/// Counts the edits between two words, or says `limit` where there are that many or more.
fn distance(a: &str, b: &str, limit: usize) -> usize {
    // Names from a file may be long; two words whose lengths differ that much are never near.
    if a.len().abs_diff(b.len()) >= limit * 4 {
        return limit;
    }
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    if a.len().abs_diff(b.len()) >= limit {
        return limit;
    }
    // The row above that of the letter before, for letters that changed places.
    let mut older: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = Vec::with_capacity(above.len());
        row.push(i + 1);
        for j in 0..b.len() {
            let mut cost = (above[j] + usize::from(a[i] != b[j]))
                .min(above[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                cost = cost.min(older[j - 1] + 1);
            }
            row.push(cost);
        }
        // No way leads back below what every way costs by now, but for a change of places.
        if row.iter().chain(&above).all(|cost| *cost >= limit) {
            return limit;
        }
        older = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(0).min(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        for (text, quoted) in [
            ("a b", r#""a b""#),
            ("a\"\\\n\t\0", r#""a\"\\\n\t\x00""#),
            ("é😀", r#""é😀""#),
            ("\u{a0}\u{feff}", r#""\u00a0\ufeff""#),
        ] {
            assert_eq!(quote(text), quoted);
        }
    }

    #[test]
    fn finds_what_was_meant() {
        let options = ["add", "copy", "from", "run"];
        for (word, meant) in [
            ("foo", Some("from")),
            ("rum", Some("run")),
            ("cppy", Some("copy")),
            ("run", None),
            ("workdir", None),
            ("", None),
            ("adx", Some("add")),
            ("cpoy", Some("copy")),
            ("rnu", Some("run")),
        ] {
            assert_eq!(nearest(word, &options), meant, "{word}");
            let narrow = nearest_within(word, &options, 1);
            assert_eq!(narrow, meant.filter(|_| word != "foo"), "{word}");
        }
    }
}
