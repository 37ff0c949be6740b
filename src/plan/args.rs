use super::Error;
use crate::dockerfile::ast::{Instruction, Kind};
use crate::dockerfile::words;
use crate::oci::Platform;
use crate::request::Request;

/// The variables of a stage at one point: what words are expanded with and what a RUN sees.
///
/// ENV and ARG write into the same table and the later one wins; a stage that starts from another
/// one inherits its table, and the ENV of the image is laid over that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    env: Vec<(String, String)>,
    args: Vec<(String, Option<String>)>,
    /// Whether a WORKDIR of this file came before.
    pub(super) has_workdir: bool,
    /// Whether there may be variables of a base image that are not known.
    pub(super) base_is_unknown: bool,
}

impl Scope {
    /// Gives the scope of a stage whose base image is not known: what it sets is not there, and is
    /// not missed either.
    pub fn unknown() -> Scope {
        Scope {
            base_is_unknown: true,
            ..Scope::default()
        }
    }

    /// Tells whether a stage stands, through however many others, on an image that is not known.
    pub fn is_unknown(&self) -> bool {
        self.base_is_unknown
    }

    /// Gives a variable's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.env
            .iter()
            .find_map(|(key, value)| (key == name).then_some(value.as_str()))
    }

    /// Sets a variable, as ENV does.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        set(&mut self.env, name, value.to_owned());
    }

    /// Declares a build argument, with its value where it has one.
    pub(super) fn declare(&mut self, name: &str, value: Option<String>) {
        if let Some(value) = &value {
            self.set(name, value);
        }
        set(&mut self.args, name, value);
    }

    /// Tells whether a build argument is declared, with a value or without.
    pub(super) fn declares(&self, name: &str) -> bool {
        self.args.iter().any(|(key, _)| key == name)
    }

    /// Gives all variables in the order they were first set.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.env.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Gives what a history entry of a RUN starts with: `|2 A=1 B=2 `, nothing without arguments.
    pub(super) fn history_prefix(&self) -> String {
        if self.args.is_empty() {
            return String::new();
        }
        let mut out = format!("|{}", self.args.len());
        for (name, value) in &self.args {
            let value = self.get(name).or(value.as_deref()).unwrap_or_default();
            out.push_str(&format!(" {name}={value}"));
        }
        out.push(' ');
        out
    }
}

fn set<V>(table: &mut Vec<(String, V)>, name: &str, value: V) {
    match table.iter_mut().find(|(key, _)| key == name) {
        Some(entry) => entry.1 = value,
        None => table.push((name.to_owned(), value)),
    }
}

/// Gives a build argument of the request; the last of a name counts.
pub(super) fn build_arg<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    find(&request.build_args, name)
}

fn find<'a>(build_args: &'a [(String, String)], name: &str) -> Option<&'a str> {
    build_args
        .iter()
        .rev()
        .find_map(|(key, value)| (key == name).then_some(value.as_str()))
}

/// Gives the arguments that every Dockerfile has without declaring them before FROM.
pub(super) fn automatic(request: &Request, target: &str) -> Vec<(String, Option<String>)> {
    let mut out = Vec::new();
    let mut add = |name: String, value: String| {
        let value = build_arg(request, &name).map_or(value, str::to_owned);
        out.push((name, Some(value)));
    };
    for (prefix, platform) in [("BUILD", &Platform::host()), ("TARGET", &request.platform)] {
        add(format!("{prefix}PLATFORM"), platform.to_string());
        add(format!("{prefix}OS"), platform.os.clone());
        add(format!("{prefix}ARCH"), platform.architecture.clone());
        add(
            format!("{prefix}VARIANT"),
            platform.variant.clone().unwrap_or_default(),
        );
    }
    add("TARGETSTAGE".into(), target.to_owned());
    out
}

/// Evaluates the ARGs before the first FROM: build arguments win over defaults, and a default sees
/// the arguments before it. The automatic arguments have what build arguments say of them already.
pub(super) fn globals(
    declared: &[Instruction],
    automatic: Vec<(String, Option<String>)>,
    escape: char,
    build_args: &[(String, String)],
) -> Result<Vec<(String, Option<String>)>, Error> {
    let mut table = automatic;
    for instruction in declared {
        let Instruction {
            span,
            text: _,
            kind,
        } = instruction;
        let Kind::Arg(pairs) = kind else {
            return Err(Error::at(*span, "only ARG may stand before the first FROM"));
        };
        for (name, default) in pairs {
            let value = match (find(build_args, name), default) {
                (Some(value), _) => Some(value.to_owned()),
                (None, Some(default)) => {
                    let env = |name: &str| lookup(&table, name);
                    let word = words::word(default, escape, &env)
                        .map_err(|error| Error::at(*span, error.to_string()))?;
                    Some(word.text)
                }
                // Declared again without a value, an argument keeps what it has.
                (None, None) => lookup(&table, name),
            };
            set(&mut table, name, value);
        }
    }
    Ok(table)
}

/// Gives the value of a global argument.
pub(super) fn lookup(globals: &[(String, Option<String>)], name: &str) -> Option<String> {
    globals
        .iter()
        .find_map(|(key, value)| (key == name).then(|| value.clone()))
        .flatten()
}

/// The proxy variables that a RUN gets from build arguments without an ARG, in neither config nor
/// history.
const PROXIES: [&str; 5] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
];

/// Gives the proxy variables of the request's build arguments, each in upper and lower case.
pub(super) fn proxies(request: &Request) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for name in PROXIES {
        let value = request
            .build_args
            .iter()
            .rev()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        if let Some((_, value)) = value {
            out.push((name.to_owned(), value.clone()));
            out.push((name.to_ascii_lowercase(), value.clone()));
        }
    }
    out
}
