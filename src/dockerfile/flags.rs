//! The flags of one instruction.

use super::spelling::nearest;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing, `true` or `false`.
    Bool,
    /// One value.
    Value,
    /// One value each time it is given.
    Values,
}

/// What is wrong: the message, and what may have been meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl<T: Into<String>> From<T> for Wrong {
    fn from(message: T) -> Wrong {
        Wrong {
            message: message.into(),
            hint: None,
        }
    }
}

impl Wrong {
    /// Adds what to do, where nothing better is known.
    pub(super) fn hint(self, hint: impl Into<String>) -> Wrong {
        Wrong {
            hint: self.hint.or_else(|| Some(hint.into())),
            ..self
        }
    }
}

/// The flags given, checked against those there are.
#[derive(Debug)]
pub(super) struct Flags<'a> {
    given: Vec<(&'static str, &'a str)>,
}

impl<'a> Flags<'a> {
    /// Checks flags against the ones the instruction has.
    pub(super) fn parse(
        args: &'a [String],
        known: &[(&'static str, Takes)],
    ) -> Result<Flags<'a>, Wrong> {
        let mut given: Vec<(&'static str, &'a str)> = Vec::new();
        for arg in args {
            let (flag, value) = match arg.split_once('=') {
                Some((flag, value)) => (flag, Some(value)),
                None => (arg.as_str(), None),
            };
            let name = flag.strip_prefix("--").unwrap_or(flag);
            let Some((known_name, takes)) = known.iter().find(|(known, _)| *known == name) else {
                let mut names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                names.sort_unstable();
                return Err(Wrong {
                    message: format!("unknown flag: {flag}"),
                    hint: nearest(name, &names).map(|meant| format!("did you mean --{meant}?")),
                });
            };
            // Only a repeatable flag grows the list, so looking through it is quick for the others.
            if *takes != Takes::Values && given.iter().any(|(name, _)| name == known_name) {
                return Err(format!("duplicate flag specified: {flag}").into());
            }
            let missing = || {
                let wrong = Wrong::from(format!("missing a value on flag: {flag}"));
                match takes {
                    Takes::Bool => wrong.hint(format!("write {flag}, or {flag}=false")),
                    Takes::Value | Takes::Values => wrong.hint(format!("write {flag}=VALUE")),
                }
            };
            let value = match (takes, value) {
                (Takes::Bool, None) => "true",
                (Takes::Bool, Some("")) => return Err(missing()),
                (Takes::Bool, Some(value)) if value.eq_ignore_ascii_case("true") => "true",
                (Takes::Bool, Some(value)) if value.eq_ignore_ascii_case("false") => "false",
                (Takes::Bool, Some(value)) => {
                    let message = format!("expecting boolean value for flag {flag}, not: {value}");
                    return Err(Wrong::from(message).hint("true and false are"));
                }
                (_, None) => return Err(missing()),
                (_, Some(value)) => value,
            };
            given.push((known_name, value));
        }
        Ok(Flags { given })
    }

    /// Gives the value of a flag as it was given.
    pub(super) fn value(&self, name: &str) -> Option<&'a str> {
        self.given
            .iter()
            .find(|(given, _)| *given == name)
            .map(|(_, value)| *value)
    }

    /// Gives the value of a flag for which an empty value means that it was not given.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.value(name)
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
    }

    /// Gives every value of a flag.
    pub(super) fn values(&self, name: &str) -> Vec<String> {
        self.given
            .iter()
            .filter(|(given, _)| *given == name)
            .map(|(_, value)| (*value).to_owned())
            .collect()
    }

    /// Gives a flag that is on or off, where it was given.
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        self.value(name).map(|value| value == "true")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_checked() {
        let known = [
            ("link", Takes::Bool),
            ("from", Takes::Value),
            ("exclude", Takes::Values),
        ];
        for (args, expected) in [
            (
                &["--link", "--from=a", "--exclude=b", "--exclude=c"][..],
                None,
            ),
            (&["--link=FALSE"][..], None),
            (&["--link="][..], Some("missing a value on flag: --link")),
            (
                &["--link=1"][..],
                Some("expecting boolean value for flag --link, not: 1"),
            ),
            (&["--from"][..], Some("missing a value on flag: --from")),
            (
                &["--exclude"][..],
                Some("missing a value on flag: --exclude"),
            ),
            (
                &["--link", "--link"][..],
                Some("duplicate flag specified: --link"),
            ),
            (&["--form=a"][..], Some("unknown flag: --form")),
        ] {
            let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
            let got = Flags::parse(&args, &known).err().map(|w| w.message);
            assert_eq!(got.as_deref(), expected, "{args:?}");
        }
        let args = vec!["--form=a".to_owned()];
        let hint = Flags::parse(&args, &known).err().and_then(|w| w.hint);
        assert_eq!(hint.as_deref(), Some("did you mean --from?"));
    }
}
