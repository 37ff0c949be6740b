//! The check options: `skip=A,B;experimental=C;error=true`.

use super::super::spelling::quote;
use super::Rule;

/// Rules by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// These, as they were written.
    Named(Vec<String>),
}

impl Default for Which {
    fn default() -> Which {
        Which::Named(Vec::new())
    }
}

impl Which {
    fn parse(text: &str) -> Which {
        match text.trim() {
            "all" => Which::All,
            names => Which::Named(
                names
                    .split(',')
                    .map(str::trim)
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect(),
            ),
        }
    }

    fn has(&self, rule: Rule) -> bool {
        match self {
            Which::All => true,
            Which::Named(names) => names.iter().any(|name| name == rule.name()),
        }
    }
}

/// What is said of the checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Rules to leave out; an experimental one is never left out by this.
    pub skip: Which,
    /// Experimental rules to look at.
    pub experimental: Which,
    /// Whether a build with findings fails.
    pub error: bool,
}

impl Options {
    /// Reads options as a directive, a comment or the build argument `BUILDKIT_DOCKERFILE_CHECK` has
    /// them; rules that do not exist are not refused, so that files may name those of other versions.
    pub fn parse(text: &str) -> Result<Options, String> {
        let mut options = Options::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(options);
        }
        for part in text.splitn(3, ';') {
            let Some((name, value)) = part.split_once('=') else {
                return Err(format!("invalid check option {}", quote(part)));
            };
            match name.trim() {
                "skip" => options.skip = Which::parse(value),
                "experimental" => options.experimental = Which::parse(value),
                "error" => {
                    options.error = truth(value.trim()).ok_or_else(|| {
                        format!(
                            "failed to parse check option {}: true or false is wanted",
                            quote(part)
                        )
                    })?;
                }
                other => return Err(format!("invalid check option {}", quote(other))),
            }
        }
        Ok(options)
    }

    /// Reads what follows `check=` in a file: up to the first blank, so that a remark may follow.
    pub fn parse_comment(text: &str) -> Result<Options, String> {
        Options::parse(text.split(' ').next().unwrap_or_default())
    }

    /// Gives the names in the options that no rule has.
    pub fn unknown(&self) -> Vec<&str> {
        [&self.skip, &self.experimental]
            .into_iter()
            .filter_map(|which| match which {
                Which::All => None,
                Which::Named(names) => Some(names),
            })
            .flatten()
            .map(String::as_str)
            .filter(|name| Rule::named(name).is_none())
            .collect()
    }

    /// Tells whether a rule is looked at, left out or not.
    pub(super) fn asks_for(&self, rule: Rule) -> bool {
        !rule.is_experimental() || self.experimental.has(rule)
    }

    pub(super) fn leaves_out(&self, rule: Rule) -> bool {
        !rule.is_experimental() && self.skip.has(rule)
    }
}

/// Reads a truth value as Go's strconv does.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
