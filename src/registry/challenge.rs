//! How a registry says what it wants to be shown (RFC 9110, section 11.6.1).

/// The kind of authorization a registry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// None.
    Open,
    /// User and password.
    Basic,
    /// A token that a server beside gives out.
    Bearer {
        realm: String,
        service: Option<String>,
        /// What the token must allow, where the registry says it.
        scope: Option<String>,
    },
}

impl Challenge {
    /// Takes the best of what the WWW-Authenticate headers offer, none where there is nothing that
    /// is spoken here.
    pub(super) fn of<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
        let mut basic = None;
        for (scheme, parameters) in headers.flat_map(parse) {
            let get = |name: &str| {
                parameters
                    .iter()
                    .find(|(own, _)| own.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.clone())
                    .filter(|value| !value.is_empty())
            };
            if scheme.eq_ignore_ascii_case("bearer") {
                if let Some(realm) = get("realm") {
                    return Some(Challenge::Bearer {
                        realm,
                        service: get("service"),
                        scope: get("scope"),
                    });
                }
            } else if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            }
        }
        basic
    }
}

type Parsed = (String, Vec<(String, String)>);

/// Takes one header apart into schemes with their parameters.
fn parse(header: &str) -> Vec<Parsed> {
    let mut out: Vec<Parsed> = Vec::new();
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let end = rest.find([' ', '=', ',']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after_space = after.trim_start();
        if let Some(value) = after_space.strip_prefix('=') {
            let (value, after) = value_of(value.trim_start());
            if let Some((_, parameters)) = out.last_mut() {
                parameters.push((word.to_owned(), value));
            }
            rest = after;
        } else {
            if !word.is_empty() {
                out.push((word.to_owned(), Vec::new()));
            }
            rest = after_space;
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
        // A stray character that starts neither a word nor a value is passed over.
        if end == 0 && rest.len() == header.len() {
            break;
        }
        if let Some(stray) = rest.strip_prefix('=') {
            rest = stray;
        }
    }
    out
}

/// Reads a token or a quoted string; gives what follows it too.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, quoted.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_registries_send() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.into(),
                service: service.map(str::to_owned),
                scope: scope.map(str::to_owned),
            })
        };
        let cases: &[(&[&str], Option<Challenge>)] = &[
            (&[], None),
            (&[""], None),
            (&["Basic realm=\"x\""], Some(Challenge::Basic)),
            (&["basic"], Some(Challenge::Basic)),
            (&["Negotiate"], None),
            (
                &["Bearer realm=\"https://a/t\",service=\"s\",scope=\"repository:a/b:pull,push\""],
                bearer("https://a/t", Some("s"), Some("repository:a/b:pull,push")),
            ),
            (
                &["bearer Realm = https://a/t , Service=s"],
                bearer("https://a/t", Some("s"), None),
            ),
            (
                &["Basic realm=\"a, b\", Bearer realm=\"https://a/\\\"t\""],
                bearer("https://a/\"t", None, None),
            ),
            (
                &["Basic realm=x", "Bearer realm=y"],
                bearer("y", None, None),
            ),
            (&["Bearer service=\"s\""], None),
            (&["Bearer realm=\"open"], bearer("open", None, None)),
            (&["=,=\"", ",,,", "= = =", "a=b"], None),
        ];
        for (headers, wanted) in cases {
            assert_eq!(
                &Challenge::of(headers.iter().copied()),
                wanted,
                "{headers:?}"
            );
        }
    }
}
