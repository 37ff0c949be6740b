//! `RUN --mount`: what the fields of one mean once they are expanded.

use super::config::join_path;
use super::remote::Wrong;
use super::{Base, Error, From, Mount, MountedFile, Sharing};
use crate::dockerfile::ast::{self, Span};
use crate::dockerfile::spelling::{nearest, quote};

/// The keys there are, as one of them is suggested for another one.
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

const KINDS: [(&str, Kind); 5] = [
    ("bind", Kind::Bind),
    ("cache", Kind::Cache),
    ("secret", Kind::Secret),
    ("ssh", Kind::Ssh),
    ("tmpfs", Kind::Tmpfs),
];

const SHARINGS: [(&str, Sharing); 3] = [
    ("locked", Sharing::Locked),
    ("private", Sharing::Private),
    ("shared", Sharing::Shared),
];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Bind,
    Cache,
    Secret,
    Ssh,
    Tmpfs,
}

impl Kind {
    fn name(self) -> &'static str {
        KINDS
            .iter()
            .find_map(|(name, kind)| (*kind == self).then_some(*name))
            .unwrap_or_default()
    }
}

/// What a mount is seen from.
pub(super) struct Place<'a> {
    /// Where the RUN is.
    pub(super) span: Span,
    /// The working directory.
    pub(super) cwd: &'a str,
    /// How many SSH mounts the RUN has before this one.
    pub(super) agents: usize,
    /// What is put before the names of caches.
    pub(super) namespace: Option<&'a str>,
    /// Expands a word.
    pub(super) expand: &'a dyn Fn(&str) -> Result<String, Error>,
    /// Finds what a name after `from=` means; the second argument is the mount's target.
    pub(super) find: &'a dyn Fn(&str, &str) -> Result<Base, Error>,
}

/// Gives the mount that the fields of a `--mount=` ask for.
pub(super) fn mount(written: &ast::Mount, place: &Place) -> Result<Mount, Error> {
    let given = Given::read(written, place)?;
    given
        .check(written)
        .map_err(|Wrong { message, hint }| Error {
            span: Some(place.span),
            message,
            hint: hint.map(str::to_owned),
        })?;
    given.mount(written, place)
}

/// The fields, the last of a key.
#[derive(Default)]
struct Given {
    kind: Kind,
    source: String,
    target: String,
    readonly: Option<bool>,
    required: bool,
    size: u64,
    id: String,
    sharing: Option<Sharing>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    env: Option<String>,
}

impl Given {
    fn read(written: &ast::Mount, place: &Place) -> Result<Given, Error> {
        let mut given = Given::default();
        for field in &written.fields {
            let ast::Field { text, key, value } = field;
            let wrong = |message: String, hint: Option<String>| Error {
                span: Some(place.span),
                message,
                hint,
            };
            let Some(value) = value else {
                match key.as_str() {
                    "readonly" | "ro" => given.readonly = Some(true),
                    "readwrite" | "rw" => given.readonly = Some(false),
                    "required" => {
                        given
                            .takes(key, &[Kind::Secret, Kind::Ssh])
                            .map_err(|message| wrong(message, type_first(written)))?;
                        given.required = true;
                    }
                    _ => {
                        let message = format!("invalid field '{text}' must be a key=value pair");
                        return Err(wrong(message, suggested(key, &KEYS)));
                    }
                }
                continue;
            };
            let value = (place.expand)(value)?;
            let invalid = |hint: &str| {
                let message = format!("invalid value for {key}: {value}");
                wrong(message, Some(hint.to_owned()))
            };
            let truth = || boolean(&value).ok_or_else(|| invalid("true and false are"));
            let refused = |hint: &str| {
                let message = format!("invalid value {value} for {key}");
                wrong(message, Some(hint.to_owned()))
            };
            let number = |radix, hint: &str| unsigned(&value, radix).ok_or_else(|| refused(hint));
            let id = |of: &str| match number(10, &format!("the number of a {of} is wanted"))? {
                // To the kernel it means "no change".
                u32::MAX => Err(refused(&format!("{} is the highest", u32::MAX - 1))),
                id => Ok(id),
            };
            match key.as_str() {
                "type" => {
                    given.kind = one_of(&KINDS, &value).ok_or_else(|| {
                        let message = format!("unsupported mount type {}", quote(&value));
                        wrong(
                            message,
                            Some(one_of_these(&value, &KINDS.map(|(name, _)| name))),
                        )
                    })?;
                }
                // The name is taken as it is written: it had to be known before anything is expanded.
                "from" => {}
                "source" | "src" => given.source = value,
                "target" | "dst" | "destination" => given.target = value,
                "readonly" | "ro" => given.readonly = Some(truth()?),
                "readwrite" | "rw" => given.readonly = Some(!truth()?),
                "required" => {
                    given
                        .takes(key, &[Kind::Secret, Kind::Ssh])
                        .map_err(|message| wrong(message, type_first(written)))?;
                    given.required = truth()?;
                }
                "size" => {
                    given
                        .takes(key, &[Kind::Tmpfs])
                        .map_err(|message| wrong(message, type_first(written)))?;
                    given.size = size(&value)
                        .ok_or_else(|| invalid("a size is written as in 64m or 1.5g"))?;
                }
                "id" => given.id = value,
                "sharing" => {
                    let found = one_of(&SHARINGS, &value).ok_or_else(|| {
                        let message = format!("unsupported sharing value {}", quote(&value));
                        wrong(
                            message,
                            Some(one_of_these(&value, &SHARINGS.map(|(name, _)| name))),
                        )
                    })?;
                    given.sharing = Some(found);
                }
                "mode" => {
                    given.mode = Some(number(8, "an octal mode is wanted, as in mode=0755")?);
                }
                "uid" => given.uid = Some(id("user")?),
                "gid" => given.gid = Some(id("group")?),
                "env" if value.is_empty() => return Err(invalid("write env=NAME")),
                "env" => given.env = Some(value),
                _ => {
                    let message = format!("unexpected key '{key}' in '{text}'");
                    return Err(wrong(message, suggested(key, &KEYS)));
                }
            }
        }
        Ok(given)
    }

    /// Says that a key is not one of the type that is known by now.
    fn takes(&self, key: &str, kinds: &[Kind]) -> Result<(), String> {
        if kinds.contains(&self.kind) {
            return Ok(());
        }
        Err(format!(
            "unexpected key '{key}' for mount type '{}'",
            self.kind.name()
        ))
    }

    /// Looks at what is known only when every field is.
    fn check(&self, written: &ast::Mount) -> Result<(), Wrong> {
        let kind = self.kind.name();
        if matches!(self.kind, Kind::Bind | Kind::Tmpfs) {
            let keys = [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)];
            if let Some((key, _)) = keys.iter().find(|(_, value)| value.is_some()) {
                return Err(format!("{key} not allowed for {} type mounts", quote(kind)).into());
            }
        }
        let nameless = self.source.is_empty() && self.target.is_empty() && self.id.is_empty();
        match self.kind {
            Kind::Secret if written.from().is_some() => {
                Err("secret mount should not have a from".into())
            }
            Kind::Secret if self.sharing.is_some() => {
                Err("secret mount should not define sharing".into())
            }
            Kind::Secret if nameless => Err(Wrong {
                message: "invalid secret mount. one of source, target required".into(),
                hint: Some("write type=secret,id=ID"),
            }),
            Kind::Secret if !self.source.is_empty() && !self.id.is_empty() => {
                Err("both source and id can't be set".into())
            }
            Kind::Ssh if !self.source.is_empty() => Err("ssh does not support source".into()),
            Kind::Cache => Ok(()),
            _ if self.sharing.is_some() => {
                Err(format!("invalid cache sharing set for {kind} mount").into())
            }
            _ => Ok(()),
        }
    }

    fn mount(self, written: &ast::Mount, place: &Place) -> Result<Mount, Error> {
        let target = match self.kind {
            // Those two are seen from the root, wherever the command is.
            Kind::Secret | Kind::Ssh => join_path("/", &self.target),
            Kind::Bind | Kind::Cache | Kind::Tmpfs => join_path(place.cwd, &self.target),
        };
        let at_root = || {
            let error = Error::at(place.span, "invalid mount target \"/\"");
            Err(match self.target.is_empty() {
                true => error.hint("target= is missing"),
                false => error,
            })
        };
        let from = match written.from() {
            Some(name) if matches!(self.kind, Kind::Bind | Kind::Cache) => {
                Some(From::Base((place.find)(name, &self.target)?))
            }
            _ => None,
        };
        let source = join_path("/", &self.source);
        let file = |target: String, mode: u32| MountedFile {
            target,
            mode: self.mode.unwrap_or(mode),
            uid: self.uid.unwrap_or(0),
            gid: self.gid.unwrap_or(0),
        };
        Ok(match self.kind {
            Kind::Bind | Kind::Cache | Kind::Tmpfs if target == "/" => return at_root(),
            Kind::Bind => Mount::Bind {
                target,
                from: from.unwrap_or(From::Context),
                source,
                writable: self.readonly == Some(false),
            },
            Kind::Cache => Mount::Cache {
                id: match place.namespace {
                    None | Some("") => self.cache_id(),
                    Some(namespace) => format!("{namespace}/{}", self.cache_id()),
                },
                target,
                sharing: self.sharing.unwrap_or_default(),
                from,
                source,
                readonly: self.readonly == Some(true),
                // The other nine bits are dropped where the directory is made.
                mode: self.mode.unwrap_or(0o755) & 0o777,
                uid: self.uid.unwrap_or(0),
                gid: self.gid.unwrap_or(0),
            },
            Kind::Tmpfs => Mount::Tmpfs {
                target,
                size: (self.size > 0).then_some(self.size),
                readonly: self.readonly == Some(true),
            },
            Kind::Secret => {
                let id = [&self.source, &self.id]
                    .into_iter()
                    .find(|id| !id.is_empty());
                let id = id.map_or_else(|| base_name(&self.target), String::as_str);
                let target = match (self.target.as_str(), &self.env) {
                    ("", Some(_)) => None,
                    ("", None) => Some(format!("/run/secrets/{}", base_name(id))),
                    _ => Some(target),
                };
                if target.as_deref() == Some("/") {
                    return at_root();
                }
                Mount::Secret {
                    id: id.to_owned(),
                    file: target.map(|target| file(target, 0o400)),
                    env: self.env.clone(),
                    required: self.required,
                }
            }
            Kind::Ssh => {
                let target = match self.target.as_str() {
                    "" => format!("/run/buildkit/ssh_agent.{}", place.agents),
                    _ if target == "/" => return at_root(),
                    _ => target,
                };
                Mount::Ssh {
                    id: match self.id.as_str() {
                        "" => "default".to_owned(),
                        id => id.to_owned(),
                    },
                    file: file(target, 0o600),
                    required: self.required,
                }
            }
        })
    }
}

impl Given {
    /// Gives the name of a cache: by default the target as written, cleaned, wherever WORKDIR is.
    fn cache_id(&self) -> String {
        let clean = join_path("/", &self.target);
        match self.id.as_str() {
            "" if self.target.is_empty() => ".".to_owned(),
            "" if self.target.starts_with('/') => clean,
            "" => clean[1..].to_owned(),
            id => id.to_owned(),
        }
    }
}

/// Says that the type must stand first, where a later field gives it.
fn type_first(written: &ast::Mount) -> Option<String> {
    let at = written.fields.iter().position(|field| field.key == "type");
    at.filter(|at| *at > 0)
        .map(|_| "type= goes before the other fields".to_owned())
}

fn suggested(word: &str, options: &[&str]) -> Option<String> {
    nearest(word, options).map(|meant| format!("did you mean {meant}?"))
}

/// Says what was meant, or else what there is.
fn one_of_these(word: &str, options: &[&str]) -> String {
    suggested(word, options).unwrap_or_else(|| match options.split_last() {
        Some((last, others)) => format!("{} and {last} are", others.join(", ")),
        None => String::new(),
    })
}

fn one_of<T: Copy>(options: &[(&str, T)], value: &str) -> Option<T> {
    options
        .iter()
        .find_map(|(name, meant)| name.eq_ignore_ascii_case(value).then_some(*meant))
}

/// Gives what follows the last slash.
fn base_name(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    path.rsplit('/').next().unwrap_or(path)
}

/// Reads a truth value as Go does.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Reads digits alone: Rust takes a leading `+` too.
fn unsigned(text: &str, radix: u32) -> Option<u32> {
    let digits = text.chars().all(|c| c.is_digit(radix));
    digits.then(|| u32::from_str_radix(text, radix).ok())?
}

/// Reads a size as Docker does: a number, decimals allowed, and `b`, `k`, `m`, `g`, `t` or `p` in
/// powers of 1024, with `b` or `ib` behind it and in any case.
fn size(text: &str) -> Option<u64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')?;
    let (number, unit) = match &text[end..=end] {
        " " => (&text[..end], &text[end + 1..]),
        _ => text.split_at(end + 1),
    };
    let plain = number.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    let number: f64 = plain.then(|| number.parse().ok())??;
    let unit = unit.to_ascii_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0,
        _ => {
            let (first, rest) = unit.split_at_checked(1)?;
            let power = ["k", "m", "g", "t", "p"].iter().position(|u| *u == first)?;
            matches!(rest, "" | "b" | "ib").then_some(power + 1)?
        }
    };
    let bytes = number * 1024f64.powi(i32::try_from(power).ok()?);
    // Go's conversion of what does not fit is nobody's wish.
    (bytes < 9.2e18).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", Some(0)),
            ("123", Some(123)),
            ("1b", Some(1)),
            ("1k", Some(1024)),
            ("1Kb", Some(1024)),
            ("1 KiB", Some(1024)),
            ("1.5m", Some(1_572_864)),
            ("2G", Some(2 << 30)),
            ("1t", Some(1 << 40)),
            ("1p", Some(1 << 50)),
            ("9999999p", None),
            ("", None),
            ("m", None),
            ("-1", None),
            ("1x", None),
            ("1kx", None),
            ("1kibb", None),
            ("1bb", None),
            ("1 2k", None),
            ("1é", None),
        ] {
            assert_eq!(size(text), expected, "{text}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(unsigned("0755", 8), Some(0o755));
        for text in ["", "+7", "-7", "8", "0x7", "77777777777777"] {
            assert_eq!(unsigned(text, 8), None, "{text}");
        }
    }
}
