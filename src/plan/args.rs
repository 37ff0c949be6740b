use super::Error;
use super::table::Table;
use crate::dockerfile::ast::{Dockerfile, Instruction, Kind};
use crate::dockerfile::spelling::quote;
use crate::dockerfile::words;
use crate::oci::{Platform, Reference};
use crate::request::{EPOCH, Request, parse_epoch, wrong_epoch};
use std::collections::HashSet;

/// The variables of a stage at one point: what words are expanded with and what a RUN sees.
///
/// ENV and ARG write into the same table and the later one wins; a stage that starts from another
/// one inherits its table, and the ENV of the image is laid over that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    env: Table<String>,
    args: Table<Option<String>>,
    /// Whether a WORKDIR of this file came before.
    pub(super) has_workdir: bool,
    /// Whether there may be variables of a base image that are not known.
    pub(super) base_is_unknown: bool,
}

/// Arguments that are about the build and become no variables.
pub(super) const NO_VARIABLES: [&str; 2] =
    ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

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
        self.env.get(name).map(String::as_str)
    }

    /// Sets a variable, as ENV does.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.env.set(name, value.to_owned());
    }

    /// Declares a build argument, with its value where it has one.
    pub(super) fn declare(&mut self, name: &str, value: Option<String>) {
        if let Some(value) = &value
            && !NO_VARIABLES.contains(&name)
        {
            self.set(name, value);
        }
        self.args.set(name, value);
    }

    /// Tells whether a build argument is declared, with a value or without.
    pub(super) fn declares(&self, name: &str) -> bool {
        self.args.get(name).is_some()
    }

    /// Gives all variables in the order they were first set.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let entries = self.env.entries().iter();
        entries.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Gives what a history entry of a RUN starts with: `|2 A=1 B=2 `, nothing without arguments.
    pub(super) fn history_prefix(&self) -> String {
        let args = self.args.entries();
        if args.is_empty() {
            return String::new();
        }
        let mut out = format!("|{}", args.len());
        for (name, value) in args {
            let value = self.get(name).or(value.as_deref()).unwrap_or_default();
            out.push_str(&format!(" {name}={value}"));
        }
        out.push(' ');
        out
    }
}

/// The global arguments: those of every Dockerfile, and those that are declared before FROM.
pub(super) type Globals = Table<Option<String>>;

/// Gives the arguments that every Dockerfile has without declaring them before FROM.
pub(super) fn automatic(request: &Request, target: &str) -> Globals {
    let mut out = Table::default();
    let mut add = |name: String, value: String| {
        let value = request.build_arg(&name).map_or(value, str::to_owned);
        out.set(&name, Some(value));
    };
    for (prefix, platform) in [("BUILD", &Platform::host()), ("TARGET", &request.platform)] {
        add(format!("{prefix}PLATFORM"), platform.to_string());
        add(format!("{prefix}OS"), platform.os.clone());
        // No image for Linux has one.
        add(format!("{prefix}OSVERSION"), String::new());
        add(format!("{prefix}ARCH"), platform.architecture.clone());
        add(
            format!("{prefix}VARIANT"),
            platform.variant.clone().unwrap_or_default(),
        );
    }
    add("TARGETSTAGE".into(), target.to_owned());
    out
}

/// Gives the name that the host has for commands, where the request says one.
pub(super) fn hostname(request: &Request) -> Result<Option<String>, Error> {
    const NAME: &str = "BUILDKIT_SANDBOX_HOSTNAME";
    let Some(name) = request.build_arg(NAME).filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let letter = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
    // Linux takes 64 bytes.
    if name.len() > 64 || !name.bytes().all(letter) {
        return Err(Error {
            span: None,
            message: format!(
                "build arg {NAME}: {} is no host name: up to 64 letters, digits, dashes and dots",
                quote(name)
            ),
            hint: None,
        });
    }
    Ok(Some(name.to_owned()))
}

/// The build arguments that BuildKit knows by itself and that are heeded here, or change nothing that
/// a build here has.
const HEEDED: [&str; 9] = [
    "BUILDKIT_BUILD_NAME",
    "BUILDKIT_CACHE_MOUNT_NS",
    "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
    "BUILDKIT_DOCKERFILE_CHECK",
    "BUILDKIT_HISTORY_PROVENANCE_V1",
    "BUILDKIT_SANDBOX_HOSTNAME",
    "BUILDKIT_SBOM_SCAN_CONTEXT",
    "BUILDKIT_SBOM_SCAN_STAGE",
    "SOURCE_DATE_EPOCH",
];

/// Those that BuildKit knows and that are not heeded here.
const UNHEEDED: [&str; 3] = [
    "BUILDKIT_INLINE_CACHE",
    "BUILDKIT_MULTI_PLATFORM",
    "BUILDKIT_SYNTAX",
];

/// Says which build arguments change nothing: those that no ARG declares, and those that mean
/// something to BuildKit alone; and that another frontend than BuildKit's own is not asked.
pub fn idle_args(dockerfile: &Dockerfile, request: &Request) -> Vec<String> {
    let all = dockerfile
        .stages
        .iter()
        .flat_map(|stage| &stage.instructions);
    let declared: HashSet<&str> = dockerfile
        .globals
        .iter()
        .chain(all)
        .flat_map(|instruction| match &instruction.kind {
            Kind::Arg(args) => args.as_slice(),
            _ => &[],
        })
        .map(|(name, _)| name.as_str())
        .collect();
    let is_off = |value: &str| matches!(value, "" | "0" | "f" | "F" | "false" | "False" | "FALSE");
    let mut unused: Vec<&str> = Vec::new();
    let mut unheeded: Vec<&str> = Vec::new();
    for (name, value) in &request.build_args {
        let is_proxy = PROXIES.iter().any(|proxy| proxy.eq_ignore_ascii_case(name));
        if declared.contains(name.as_str()) || is_proxy || HEEDED.contains(&name.as_str()) {
            continue;
        }
        if !UNHEEDED.contains(&name.as_str()) {
            unused.push(name);
        } else if !is_off(value) && (name != "BUILDKIT_SYNTAX" || !is_own_frontend(value)) {
            unheeded.push(name);
        }
    }
    let mut out = Vec::new();
    let mut directives = dockerfile.directives.iter();
    if let Some((_, frontend, _)) = directives.find(|(name, _, _)| name == "syntax") {
        let frontend = frontend.split(' ').next().unwrap_or_default();
        if !is_own_frontend(frontend) {
            out.push(format!(
                "the frontend {frontend} of `# syntax=` is not yet supported: it has no effect"
            ));
        }
    }
    if !unused.is_empty() {
        out.push(format!(
            "no ARG declares the build args {}: they have no effect",
            unused.join(", ")
        ));
    }
    if !unheeded.is_empty() {
        out.push(format!(
            "the build args {} are not yet supported: they have no effect",
            unheeded.join(", ")
        ));
    }
    out
}

/// Tells whether a frontend is BuildKit's own for Dockerfiles, from whichever registry: what it means
/// by a file is meant here.
fn is_own_frontend(name: &str) -> bool {
    name.parse::<Reference>().is_ok_and(|image| {
        let own = ["docker/dockerfile", "docker/dockerfile-upstream"];
        own.iter().any(|own| image.repository.ends_with(own))
    })
}

/// Evaluates the ARGs before the first FROM: build arguments win over defaults, and a default sees
/// the arguments before it. The automatic arguments have what build arguments say of them already.
pub(super) fn globals(
    declared: &[Instruction],
    automatic: Globals,
    escape: char,
    build_args: &[(String, String)],
) -> Result<Globals, Error> {
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
            let given = build_args.iter().rev().find(|(key, _)| key == name);
            let value = match (given.map(|(_, value)| value), default) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(default)) => {
                    let env = |name: &str| lookup(&table, name);
                    let word = words::word(default, escape, &env)
                        .map_err(|error| Error::at(*span, error.to_string()))?;
                    Some(word.text)
                }
                // Declared again without a value, an argument keeps what it has.
                (None, None) => lookup(&table, name),
            };
            table.set(name, value);
        }
    }
    Ok(table)
}

/// Gives the value of a global argument.
pub(super) fn lookup(globals: &Globals, name: &str) -> Option<String> {
    globals.get(name).cloned().flatten()
}

/// Gives the epoch that a global argument's default says, where the request says nothing.
pub(super) fn epoch(
    declared: &[Instruction],
    globals: &Globals,
    request: &Request,
) -> Result<Option<i64>, Error> {
    if request.epoch.is_some() || request.build_arg(EPOCH).is_some() {
        return Ok(None);
    }
    let Some(text) = lookup(globals, EPOCH).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    match parse_epoch(&text) {
        Some(seconds) => Ok(Some(seconds)),
        None => {
            let names = |arg: &&Instruction| match &arg.kind {
                Kind::Arg(pairs) => pairs.iter().any(|(name, _)| name == EPOCH),
                _ => false,
            };
            Err(Error {
                span: declared.iter().rfind(names).map(|arg| arg.span),
                message: format!("invalid {EPOCH}: {}", wrong_epoch(&text)),
                hint: None,
            })
        }
    }
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
        if let Some((_, value)) = value.filter(|(_, value)| !value.is_empty()) {
            out.push((name.to_owned(), value.clone()));
            out.push((name.to_ascii_lowercase(), value.clone()));
        }
    }
    out
}
