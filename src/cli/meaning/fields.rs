//! Values of several fields, as Docker's command line has them.

/// Splits a line at its commas; a field may be in double quotes, in which two stand for one.
/// `None` where a quote has no end or is followed by something else than a comma.
pub(super) fn fields(line: &str) -> Option<Vec<String>> {
    let mut out = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => match rest.find(',') {
                Some(at) => (rest[..at].to_owned(), &rest[at..]),
                None => (rest.to_owned(), ""),
            },
        };
        out.push(field);
        if after.is_empty() {
            return Some(out);
        }
        rest = after.strip_prefix(',')?;
    }
}

fn quoted_field(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let at = rest.find('"')?;
        field.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return Some((field, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_as_go_splits_them() {
        for (line, want) in [
            ("", Some(&[""][..])),
            ("a=b", Some(&["a=b"])),
            ("a,b,,c", Some(&["a", "b", "", "c"])),
            (
                r#"type=image,"name=a,b",push=true"#,
                Some(&["type=image", "name=a,b", "push=true"]),
            ),
            (r#""a ""b"" c""#, Some(&[r#"a "b" c"#])),
            (r#"a="b""#, Some(&[r#"a="b""#])),
            (r#""a"#, None),
            (r#""a"b,c"#, None),
        ] {
            let got = fields(line);
            let want = want.map(|all| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>());
            assert_eq!(got, want, "{line}");
        }
    }
}
