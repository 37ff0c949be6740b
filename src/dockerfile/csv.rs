//! One record of comma-separated values, as Go's `encoding/csv` reads it: `RUN --mount=` is one.

/// Reads the fields of one line. A field that starts with `"` goes to the next `"`, and `""` in it
/// stands for one; the error is in Go's words.
pub fn fields(line: &str) -> Result<Vec<String>, String> {
    if line.is_empty() {
        return Err("EOF".into());
    }
    let wrong = |at: usize, what: &str| {
        Err(format!(
            "parse error on line 1, column {}: {what}",
            at.saturating_add(1)
        ))
    };
    let mut out = Vec::new();
    let mut at = 0;
    loop {
        let rest = &line[at..];
        let Some(quoted) = rest.strip_prefix('"') else {
            let end = rest.find(',').unwrap_or(rest.len());
            let field = &rest[..end];
            if let Some(quote) = field.find('"') {
                return wrong(at + quote, "bare \" in non-quoted field");
            }
            out.push(field.to_owned());
            if end == rest.len() {
                return Ok(out);
            }
            at += end + 1;
            continue;
        };
        let mut field = String::new();
        let mut tail = quoted;
        at += 1;
        loop {
            let Some(end) = tail.find('"') else {
                return wrong(line.len(), "extraneous or missing \" in quoted-field");
            };
            field.push_str(&tail[..end]);
            tail = &tail[end + 1..];
            at += end + 1;
            match tail.chars().next() {
                None => {
                    out.push(field);
                    return Ok(out);
                }
                Some(',') => {
                    at += 1;
                    break;
                }
                Some('"') => {
                    field.push('"');
                    tail = &tail[1..];
                    at += 1;
                }
                Some(_) => return wrong(at - 1, "extraneous or missing \" in quoted-field"),
            }
        }
        out.push(field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        for (line, expected) in [
            ("a", Ok(vec!["a"])),
            ("a,b=c,", Ok(vec!["a", "b=c", ""])),
            (",", Ok(vec!["", ""])),
            ("\"a,b\",c", Ok(vec!["a,b", "c"])),
            ("\"a\"\"b\"", Ok(vec!["a\"b"])),
            ("\"\",x", Ok(vec!["", "x"])),
            ("", Err("EOF")),
            (
                "ab,c\"d",
                Err("parse error on line 1, column 5: bare \" in non-quoted field"),
            ),
            (
                "\"a\"b",
                Err("parse error on line 1, column 3: extraneous or missing \" in quoted-field"),
            ),
            (
                "\"ab",
                Err("parse error on line 1, column 4: extraneous or missing \" in quoted-field"),
            ),
        ] {
            let got = fields(line);
            let got = got.as_ref().map(|f| f.iter().map(String::as_str).collect());
            assert_eq!(got.map_err(String::as_str), expected, "{line}");
        }
    }
}
