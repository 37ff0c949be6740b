//! Users, passwords and signatures in the URLs of a text.

/// What stands for something that is not shown.
const HIDDEN: &str = "REDACTED";

/// Query parameters whose values say nothing secret; every other value is hidden, because each
/// object store has names of its own for a signature. They are those of git sources.
const HARMLESS: [&str; 10] = [
    "branch",
    "checksum",
    "commit",
    "fetch-by-commit",
    "keep-git-dir",
    "mtime",
    "ref",
    "subdir",
    "submodules",
    "tag",
];

/// What is hidden of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hide {
    /// User and password. The user of an ssh URL without a password is no secret.
    User,
    /// Those, and the values of query parameters that are not known to be harmless.
    Query,
}

/// Gives a text without what its URLs have that is secret. A URL ends at a blank, a quote or an angle
/// bracket; variables may stand in it.
pub fn without_credentials(text: &str, hide: Hide) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        let (url, behind) = after.split_at(end(after, ends_url));
        let scheme = before.rfind(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c));
        let scheme = &before[scheme.map_or(0, |at| at + width(before, at))..];
        out.push_str(before);
        out.push_str("://");
        if scheme.is_empty() {
            // No URL: there may be one in what follows.
            rest = after;
            continue;
        }
        let (authority, path) = url.split_at(end(url, |c| matches!(c, '/' | '?' | '#')));
        match authority.rsplit_once('@') {
            Some((user, host)) if hides_user(scheme, user) => {
                out.push_str(HIDDEN);
                out.push('@');
                out.push_str(host);
            }
            _ => out.push_str(authority),
        }
        match hide {
            // Another URL may be in the path.
            Hide::User => rest = &after[authority.len()..],
            Hide::Query => {
                without_values(&without_credentials(path, Hide::User), &mut out);
                rest = behind;
            }
        }
    }
    out.push_str(rest);
    out
}

fn hides_user(scheme: &str, user: &str) -> bool {
    !user.is_empty() && (user.contains(':') || !scheme.eq_ignore_ascii_case("ssh"))
}

/// Appends a path with its query, the values of which are hidden, and its fragment.
fn without_values(path: &str, out: &mut String) {
    let (path, fragment) = path.split_at(end(path, |c| c == '#'));
    let (path, query) = path.split_at(end(path, |c| c == '?'));
    out.push_str(path);
    for (pair, number) in query.split('&').zip(0..) {
        if number > 0 {
            out.push('&');
        }
        match pair.split_once('=') {
            Some((name, value)) if !value.is_empty() => {
                let known = HARMLESS.contains(&name.trim_start_matches('?'));
                out.push_str(name);
                out.push('=');
                out.push_str(if known { value } else { HIDDEN });
            }
            _ => out.push_str(pair),
        }
    }
    out.push_str(fragment);
}

fn ends_url(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>')
}

/// Finds the first character of a kind that is not in the braces of a variable.
fn end(text: &str, is_end: impl Fn(char) -> bool) -> usize {
    let mut depth = 0usize;
    let mut last = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '{' if last == '$' || depth > 0 => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            c if depth == 0 && is_end(c) => return at,
            _ => {}
        }
        last = c;
    }
    match depth {
        0 => text.len(),
        // Braces that stay open are no variable's.
        _ => text.find(is_end).unwrap_or(text.len()),
    }
}

fn width(text: &str, at: usize) -> usize {
    text[at..].chars().next().map_or(0, char::len_utf8)
}
