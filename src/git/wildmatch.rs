//! The patterns of gitattributes(5), which are those of gitignore(5).

/// Matches a whole text: `*` and `?` stop at slashes, `**` between slashes does not, `[...]` is a
/// set of bytes, a backslash takes the next byte as it is.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // Every star is tried anew from where it stands; the bound keeps that from taking for ever.
    let mut steps = 1 << 20;
    at(pattern, text, true, &mut steps)
}

/// `fresh` tells whether the pattern stands at its beginning or after a slash.
fn at(mut pattern: &[u8], mut text: &[u8], mut fresh: bool, steps: &mut u32) -> bool {
    loop {
        if *steps == 0 {
            return false;
        }
        *steps -= 1;
        let Some((&first, rest)) = pattern.split_first() else {
            return text.is_empty();
        };
        match first {
            b'*' => {
                let stars = pattern.iter().take_while(|&&c| c == b'*').count();
                let rest = &pattern[stars..];
                let whole = stars > 1 && fresh && matches!(rest.first(), None | Some(b'/'));
                if whole {
                    let Some((_, below)) = rest.split_first() else {
                        return true;
                    };
                    // `**/` is any number of directories, none too.
                    if at(below, text, true, steps) {
                        return true;
                    }
                    return (0..text.len())
                        .any(|cut| text[cut] == b'/' && at(below, &text[cut + 1..], true, steps));
                }
                let end = text.iter().position(|&c| c == b'/').unwrap_or(text.len());
                if rest.is_empty() {
                    return end == text.len();
                }
                return (0..=end).any(|cut| at(rest, &text[cut..], false, steps));
            }
            b'?' => match text.split_first() {
                Some((&c, tail)) if c != b'/' => text = tail,
                _ => return false,
            },
            b'[' => {
                let Some((&c, tail)) = text.split_first() else {
                    return false;
                };
                match set(rest, c) {
                    Some((true, after)) if c != b'/' => {
                        pattern = after;
                        text = tail;
                        fresh = false;
                        continue;
                    }
                    _ => return false,
                }
            }
            _ => {
                let (wanted, after) = match (first, rest.split_first()) {
                    (b'\\', Some((&c, after))) => (c, after),
                    _ => (first, rest),
                };
                // `/**` at the end and `/**/` match what is below, and the latter nothing, too.
                match text.split_first() {
                    Some((&c, tail)) if c == wanted => text = tail,
                    _ => return false,
                }
                pattern = after;
                fresh = wanted == b'/';
                continue;
            }
        }
        pattern = rest;
        fresh = false;
    }
}

/// Tells whether a byte is in the set that begins after `[`, and gives what is after its end; `None`
/// where the set has no end.
fn set(pattern: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let mut rest = pattern;
    let negated = matches!(rest.first(), Some(b'!' | b'^'));
    if negated {
        rest = &rest[1..];
    }
    let mut found = false;
    let mut begun = false;
    loop {
        let (&first, tail) = rest.split_first()?;
        rest = tail;
        if first == b']' && begun {
            return Some((found != negated, rest));
        }
        begun = true;
        if first == b'['
            && let Some(class) = rest.strip_prefix(b":")
            && let Some(end) = class.windows(2).position(|two| two == b":]")
        {
            found |= in_class(&class[..end], byte)?;
            rest = &class[end + 2..];
            continue;
        }
        let (low, tail) = one(first, rest)?;
        rest = tail;
        let mut high = low;
        if let [b'-', next, tail @ ..] = rest
            && *next != b']'
        {
            let (top, tail) = one(*next, tail)?;
            high = top;
            rest = tail;
        }
        found |= (low..=high).contains(&byte);
    }
}

/// Gives a member of a set, which a backslash may stand before.
fn one(first: u8, rest: &[u8]) -> Option<(u8, &[u8])> {
    match first {
        b'\\' => rest.split_first().map(|(&c, tail)| (c, tail)),
        c => Some((c, rest)),
    }
}

fn in_class(name: &[u8], byte: u8) -> Option<bool> {
    Some(match name {
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"alpha" => byte.is_ascii_alphabetic(),
        b"blank" => matches!(byte, b' ' | b'\t'),
        b"cntrl" => byte.is_ascii_control(),
        b"digit" => byte.is_ascii_digit(),
        b"graph" => byte.is_ascii_graphic(),
        b"lower" => byte.is_ascii_lowercase(),
        b"print" => byte.is_ascii_graphic() || byte == b' ',
        b"punct" => byte.is_ascii_punctuation(),
        b"space" => byte.is_ascii_whitespace() || byte == 0x0b,
        b"upper" => byte.is_ascii_uppercase(),
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_git_says() {
        let table = [
            ("foo", "foo", true),
            ("foo", "bar", false),
            ("", "", true),
            ("???", "foo", true),
            ("??", "foo", false),
            ("*", "foo", true),
            ("f*", "foo", true),
            ("*f", "foo", false),
            ("*foo*", "foo", true),
            ("*ob*a*r*", "foobar", true),
            ("*ab", "aaaaaaabababab", true),
            ("foo\\*", "foo*", true),
            ("foo\\*bar", "foobar", false),
            ("f\\\\oo", "f\\oo", true),
            ("*[al]?", "ball", true),
            ("[ten]", "ten", false),
            ("**[!te]", "ten", true),
            ("t[a-g]n", "ten", true),
            ("t[!a-g]n", "ten", false),
            ("t[^a-g]n", "ton", true),
            ("a[]]b", "a]b", true),
            ("a[]-]b", "a-b", true),
            ("a[]a-]b", "aab", true),
            ("]", "]", true),
            ("foo*bar", "foo/baz/bar", false),
            ("foo**bar", "foo/baz/bar", false),
            ("foo/**/bar", "foo/baz/bar", true),
            ("foo/**/bar", "foo/b/a/z/bar", true),
            ("foo/**/bar", "foo/bar", true),
            ("foo/**/**/bar", "foo/bar", true),
            ("**/foo", "foo", true),
            ("**/foo", "bar/baz/foo", true),
            ("*/foo", "bar/baz/foo", false),
            ("**/bar*", "foo/bar/baz", false),
            ("**/bar/*", "deep/foo/bar/baz", true),
            ("**/bar/**", "deep/foo/bar/baz/x", true),
            ("**/bar/*", "deep/foo/bar", false),
            ("foo/*", "foo/bar/baz", false),
            ("foo/**", "foo/bar/baz", true),
            ("foo/**", "foo", false),
            ("foo?bar", "foo/bar", false),
            ("foo[/]bar", "foo/bar", false),
            ("f[^eiu][^eiu]r", "foo/r", false),
            ("[[:alpha:]][[:digit:]][[:upper:]]", "a1B", true),
            ("[[:digit:][:upper:][:space:]]", "a", false),
            ("[[:digit:][:upper:][:spaci:]]", "1", false),
            ("[a-c]b*", "bb", true),
            ("[\\\\-^]", "]", true),
            ("[", "[", false),
            ("a[", "ab", false),
            (
                "-*-*-*-*-*-*-12-*-*-*-m-*-*-*",
                "-adobe-courier-bold-o-normal--12-120-75-75-m-70-iso8859-1",
                true,
            ),
        ];
        for (pattern, text, want) in table {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                want,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn no_pattern_takes_for_ever() {
        let pattern = "*a".repeat(64);
        let text = "a".repeat(4000) + "b";
        assert!(!matches(pattern.as_bytes(), text.as_bytes()));
    }
}
