//! Heredoc words: `<<EOF`, `<<-"EOF"`, `3<<EOF`.

use super::ast::Heredoc;
use super::words::{self, Error};

/// Finds the heredocs that a line opens, in order, with bodies still empty.
///
/// A line whose quotes or variables are broken opens none: the shell will say what is wrong with it.
pub(super) fn in_line(line: &str) -> Result<Vec<Heredoc>, Error> {
    let mut found = Vec::new();
    for word in words::lexical(line, words::Quotes::Kept, words::Escapes::Kept).unwrap_or_default()
    {
        found.extend(in_word(&word)?);
    }
    Ok(found)
}

/// Reads one word as a heredoc: digits, `<<`, an optional `-`, and a name without `<`.
pub(super) fn in_word(word: &str) -> Result<Option<Heredoc>, Error> {
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    let Some(rest) = word[digits..].strip_prefix("<<") else {
        return Ok(None);
    };
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    let plain = words::lexical(rest, words::Quotes::Removed, words::Escapes::Removed)?;
    let [name] = plain.as_slice() else {
        return Ok(None);
    };
    // A name any part of which is quoted keeps the body from being expanded: then there are more
    // quotes with the quotes kept than without.
    let quoted = words::lexical(rest, words::Quotes::Kept, words::Escapes::Removed)?;
    let quotes = |word: &str| word.matches(['\'', '"']).count();
    let expand = quoted.first().is_some_and(|q| quotes(q) == quotes(name));
    let fd = match &word[..digits] {
        "" => 0,
        digits => digits.parse().unwrap_or(u32::MAX),
    };
    Ok(Some(Heredoc {
        name: name.clone(),
        body: String::new(),
        expand,
        chomp,
        fd,
    }))
}

/// Tells whether a line is nothing but one heredoc word.
pub fn is_heredoc(line: &str) -> bool {
    matches!(in_word(line.trim()), Ok(Some(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_open_a_heredoc() {
        for (word, expected) in [
            ("<<EOF", Some(("EOF", true, false, 0))),
            ("<<-EOF", Some(("EOF", true, true, 0))),
            ("3<<'E F'", Some(("E F", false, false, 3))),
            ("<<E\"O\"F", Some(("EOF", false, false, 0))),
            ("<<\\\"a", Some(("\"a", true, false, 0))),
            ("<<$X", Some(("$X", true, false, 0))),
            ("99999999999<<a", Some(("a", true, false, u32::MAX))),
            ("<<<a", None),
            ("<<", None),
            ("<<-", None),
            ("<<\"\"", None),
            ("$((1<<2))", None),
            ("a<<b", None),
        ] {
            let expected = expected.map(|(name, expand, chomp, fd)| Heredoc {
                name: name.into(),
                body: String::new(),
                expand,
                chomp,
                fd,
            });
            assert_eq!(in_word(word), Ok(expected), "{word}");
        }
        assert!(in_word("<<\"a").is_err());
    }
}
