//! Nodes to instructions: every check that needs nothing but the Dockerfile.

use super::ast::{
    Add, CommandLine, Copy, Dockerfile, Field, From, Healthcheck, Heredoc, Instruction, Item, Kind,
    Mount, Run, Span, Stage,
};
use super::check::{Finding, Rule, text};
use super::flags::{Flags, Takes, Wrong};
use super::node::{self, Node};
use super::spelling::{nearest, quote};
use super::{csv, duration, heredoc};
use std::collections::{HashMap, VecDeque};

/// Why a Dockerfile cannot be read; the message is BuildKit's wording where BuildKit has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Where; `None` for the file as a whole.
    pub span: Option<Span>,
    /// What is wrong.
    pub message: String,
    /// At most one hint: "did you mean FROM?", which is BuildKit's, or what to do.
    pub hint: Option<String>,
}

impl Error {
    /// Gives the message on one line as BuildKit says it, with its hint where it has one: `unknown
    /// flag: --form (did you mean from?)`.
    pub fn joined(&self) -> String {
        match &self.hint {
            Some(hint) if hint.starts_with("did you mean") => {
                let hint = hint.replacen(" --", " ", 1);
                format!("{} ({hint})", self.message)
            }
            _ => self.message.clone(),
        }
    }

    pub(super) fn at(span: Span, wrong: impl Into<Wrong>) -> Error {
        let Wrong { message, hint } = wrong.into();
        Error {
            span: Some(span),
            message,
            hint,
        }
    }

    pub(super) fn whole(wrong: impl Into<Wrong>) -> Error {
        let Wrong { message, hint } = wrong.into();
        Error {
            span: None,
            message,
            hint,
        }
    }
}

/// The instructions, as suggestions are made from.
const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Parses a Dockerfile: at most 16 MiB, in lines of at most 65,535 bytes; bytes that are not UTF-8
/// are replaced.
pub fn parse(text: &[u8]) -> Result<Dockerfile, Error> {
    let tree = node::parse(text)?;
    let mut dockerfile = Dockerfile {
        findings: text::findings(&tree),
        exceptions: text::exceptions(&tree),
        directives: tree.directives,
        escape: tree.escape,
        globals: Vec::new(),
        stages: Vec::new(),
    };
    for node in &tree.nodes {
        let at = |wrong: Wrong| Error::at(node.span, advised(wrong, node, dockerfile.escape));
        let text = node.original.trim().to_owned();
        if node.name.eq_ignore_ascii_case("FROM") {
            dockerfile.stages.push(Stage {
                from: from(node).map_err(at)?,
                span: node.span,
                text,
                instructions: Vec::new(),
            });
            continue;
        }
        let kind = kind(node, &node.heredocs).map_err(at)?;
        dockerfile.findings.extend(unread_flag(node, &kind));
        let is_arg = matches!(kind, Kind::Arg(_));
        let instruction = Instruction {
            span: node.span,
            text,
            kind,
        };
        match dockerfile.stages.last_mut() {
            Some(stage) => stage.instructions.push(instruction),
            None if is_arg => dockerfile.globals.push(instruction),
            None => {
                let wrong = Wrong::from("no build stage in current context");
                return Err(Error::at(
                    node.span,
                    wrong.hint("FROM goes before it: only ARG may stand before the first FROM"),
                ));
            }
        }
    }
    if dockerfile.stages.is_empty() {
        return Err(Error::whole(
            Wrong::from("dockerfile contains no stages to build").hint("it wants a FROM"),
        ));
    }
    Ok(dockerfile)
}

/// Parses one instruction by itself, as an ONBUILD trigger of a base image is kept.
///
/// The escape character is the backslash, whatever it was in the file the trigger comes from. Spans
/// count the trigger's own lines.
pub fn parse_trigger(text: &str) -> Result<Instruction, Error> {
    let tree = node::parse(text.as_bytes())?;
    let [node] = tree.nodes.as_slice() else {
        return Err(Error::whole(
            "onbuild trigger should be a single expression",
        ));
    };
    trigger(node, &node.heredocs).map_err(|wrong| Error::at(node.span, wrong))
}

/// Adds what to do about mistakes whose cause is not in the instruction itself.
fn advised(wrong: Wrong, node: &Node, escape: char) -> Wrong {
    if node.original.contains('\r') {
        let hint = "lines end here with carriage returns alone; line feeds are wanted";
        return Wrong::from(wrong.message).hint(hint);
    }
    if !wrong.message.starts_with("unknown instruction") {
        return wrong;
    }
    if node.name.starts_with("//") {
        return wrong.hint("a comment begins with #");
    }
    wrong.hint(format!(
        "if the line above goes on here, it must end with {escape}"
    ))
}

/// How an instruction is written.
fn usage(instruction: &str) -> &'static str {
    match instruction {
        "ADD" => "ADD SOURCE... DESTINATION",
        "ARG" => "ARG NAME[=DEFAULT]",
        "COPY" => "COPY SOURCE... DESTINATION",
        "ENV" => "ENV NAME=VALUE",
        "EXPOSE" => "EXPOSE PORT[/PROTOCOL]",
        "HEALTHCHECK" => "HEALTHCHECK CMD COMMAND, or HEALTHCHECK NONE",
        "LABEL" => "LABEL NAME=VALUE",
        "MAINTAINER" => "LABEL org.opencontainers.image.authors=NAME",
        "ONBUILD" => "ONBUILD INSTRUCTION",
        "SHELL" => "SHELL [\"/bin/bash\", \"-c\"]",
        "STOPSIGNAL" => "STOPSIGNAL SIGNAL",
        "USER" => "USER NAME[:GROUP]",
        "VOLUME" => "VOLUME PATH",
        "WORKDIR" => "WORKDIR PATH",
        _ => "INSTRUCTION arguments",
    }
}

/// Says that an instruction is not written as it must be, and how it is.
fn misused(message: String, instruction: &str) -> Wrong {
    Wrong::from(message).hint(format!("write {}", usage(instruction)))
}

/// Makes the instruction of a trigger; `heredocs` are those of the ONBUILD around it, if one is.
fn trigger(node: &Node, heredocs: &[Heredoc]) -> Result<Instruction, Wrong> {
    let name = node.name.to_uppercase();
    match name.as_str() {
        "ONBUILD" => Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into()),
        "MAINTAINER" | "FROM" => Err(format!("{name} isn't allowed as an ONBUILD trigger").into()),
        _ => Ok(Instruction {
            span: node.span,
            text: node.original.trim().to_owned(),
            kind: kind(node, heredocs)?,
        }),
    }
}

/// Tells of flags that BuildKit neither reads nor refuses.
fn unread_flag(node: &Node, kind: &Kind) -> Option<Finding> {
    let flag = node.flags.first()?.split('=').next()?;
    match kind {
        Kind::Arg(_) | Kind::StopSignal(_) | Kind::Healthcheck(Healthcheck::None) => {
            let message = format!("{} does not use the flag {flag}", node.name);
            Some(Finding::new(Rule::UnreadFlag, node.span, message))
        }
        _ => None,
    }
}

fn from(node: &Node) -> Result<From, Wrong> {
    let (base, name) = match node.words.as_slice() {
        [base] => (base, None),
        [base, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
            let lower = name.to_lowercase();
            let ok = lower
                .bytes()
                .all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'))
                && lower.starts_with(|c: char| c.is_ascii_lowercase());
            if !ok {
                return Err(format!(
                    "invalid name for build stage: {}, name can't start with a number or contain symbols",
                    quote(name)
                )
                .into());
            }
            (base, Some(lower))
        }
        _ => {
            let wrong = Wrong::from("FROM requires either one or three arguments");
            return Err(wrong.hint("write FROM IMAGE, or FROM IMAGE AS NAME"));
        }
    };
    let flags = Flags::parse(&node.flags, &[("platform", Takes::Value)])?;
    Ok(From {
        base: base.clone(),
        name,
        platform: flags.text("platform"),
    })
}

fn kind(node: &Node, heredocs: &[Heredoc]) -> Result<Kind, Wrong> {
    let no_flags = || Flags::parse(&node.flags, &[]).map(drop);
    let words = &node.words;
    let name = node.name.to_ascii_uppercase();
    Ok(match name.as_str() {
        "ADD" => Kind::Add(add(node, heredocs)?),
        "ARG" => Kind::Arg(arg(words)?),
        "CMD" => {
            no_flags()?;
            Kind::Cmd(command_line(node.json, words))
        }
        "COPY" => Kind::Copy(copy(node, heredocs)?),
        "ENTRYPOINT" => {
            no_flags()?;
            Kind::Entrypoint(command_line(node.json, words))
        }
        "ENV" => {
            no_flags()?;
            Kind::Env(pairs(words, "ENV")?)
        }
        "EXPOSE" => {
            at_least_one(words, "EXPOSE")?;
            no_flags()?;
            let mut ports = words.clone();
            ports.sort_unstable();
            Kind::Expose(ports)
        }
        "HEALTHCHECK" => Kind::Healthcheck(healthcheck(node)?),
        "LABEL" => {
            no_flags()?;
            Kind::Label(pairs(words, "LABEL")?)
        }
        "MAINTAINER" => {
            let one = exactly_one(words, "MAINTAINER")?;
            no_flags()?;
            Kind::Maintainer(one)
        }
        "ONBUILD" => {
            let Some(child) = &node.child else {
                let message = "ONBUILD requires at least one argument".to_owned();
                return Err(misused(message, "ONBUILD"));
            };
            no_flags()?;
            let mut trigger = trigger(child, heredocs)?;
            trigger.span = node.span;
            Kind::Onbuild(Box::new(trigger), trigger_text(node))
        }
        "RUN" => Kind::Run(run(node, heredocs)?),
        "SHELL" => {
            no_flags()?;
            at_least_one(words, "SHELL")?;
            if !node.json {
                let message = "SHELL requires the arguments to be in JSON form".to_owned();
                return Err(misused(message, "SHELL"));
            }
            Kind::Shell(words.clone())
        }
        "STOPSIGNAL" => Kind::StopSignal(exactly_one(words, "STOPSIGNAL")?),
        "USER" => {
            let one = exactly_one(words, "USER")?;
            no_flags()?;
            Kind::User(one)
        }
        "VOLUME" => {
            at_least_one(words, "VOLUME")?;
            no_flags()?;
            let paths: Vec<String> = words.iter().map(|w| w.trim().to_owned()).collect();
            if paths.iter().any(String::is_empty) {
                return Err("VOLUME specified can not be an empty string".into());
            }
            Kind::Volume(paths)
        }
        "WORKDIR" => {
            let one = exactly_one(words, "WORKDIR")?;
            no_flags()?;
            Kind::Workdir(one)
        }
        _ => return Err(unknown(&node.name)),
    })
}

fn unknown(name: &str) -> Wrong {
    let meant = nearest(&name.to_uppercase(), &NAMES).map(|meant| {
        if name == name.to_uppercase() && name != name.to_lowercase() {
            meant.to_owned()
        } else {
            meant.to_lowercase()
        }
    });
    Wrong {
        message: format!("unknown instruction: {name}"),
        hint: meant.map(|meant| format!("did you mean {meant}?")),
    }
}

fn at_least_one(words: &[String], instruction: &str) -> Result<(), Wrong> {
    match words {
        [] => {
            let message = format!("{instruction} requires at least one argument");
            Err(misused(message, instruction))
        }
        _ => Ok(()),
    }
}

fn exactly_one(words: &[String], instruction: &str) -> Result<String, Wrong> {
    match words {
        [one] => Ok(one.clone()),
        _ => {
            let message = format!("{instruction} requires exactly one argument");
            Err(misused(message, instruction))
        }
    }
}

fn command_line(json: bool, words: &[String]) -> CommandLine {
    if json {
        CommandLine::Exec(words.to_vec())
    } else {
        CommandLine::Shell(words.join(" "))
    }
}

fn pairs(words: &[String], instruction: &str) -> Result<Vec<(String, String)>, Wrong> {
    at_least_one(words, instruction)?;
    words
        .chunks(3)
        .map(|chunk| match chunk {
            [name, ..] if name.is_empty() => {
                let message = format!("{instruction} names can not be blank");
                Err(misused(message, instruction))
            }
            [name, value, _] => Ok((name.clone(), value.clone())),
            _ => Err(format!("Bad input to {instruction}, too many arguments").into()),
        })
        .collect()
}

fn arg(words: &[String]) -> Result<Vec<(String, Option<String>)>, Wrong> {
    at_least_one(words, "ARG")?;
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err(misused("ARG names can not be blank".into(), "ARG")),
            Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
            None => Ok((word.clone(), None)),
        })
        .collect()
}

fn run(node: &Node, heredocs: &[Heredoc]) -> Result<Run, Wrong> {
    let flags = Flags::parse(
        &node.flags,
        &[
            ("device", Takes::Values),
            ("mount", Takes::Values),
            ("network", Takes::Value),
            ("security", Takes::Value),
        ],
    )?;
    let network = flags.value("network");
    if let Some(mode) = network
        && !["default", "none", "host"].contains(&mode)
    {
        let message = format!("invalid network mode {}", quote(mode));
        return Err(Wrong::from(message).hint("default, none and host are"));
    }
    let security = flags.value("security");
    if let Some(mode) = security
        && !["insecure", "sandbox"].contains(&mode)
    {
        let message = format!("security {} is not valid", quote(mode));
        return Err(Wrong::from(message).hint("sandbox and insecure are"));
    }
    Ok(Run {
        command: command_line(node.json, &node.words),
        heredocs: heredocs.to_vec(),
        mounts: mounts(&flags.values("mount"))?,
        network: network.map(str::to_owned),
        security: security.map(str::to_owned),
        devices: flags.values("device"),
    })
}

/// Parts mounts into their fields. A variable is looked for only where BuildKit has none: what a
/// mount comes from must be known before anything is expanded.
fn mounts(values: &[String]) -> Result<Vec<Mount>, Wrong> {
    let mut out = Vec::new();
    for value in values {
        let mut mount = Mount::default();
        let fields = csv::fields(value).map_err(|e| format!("failed to parse csv mounts: {e}"))?;
        for text in fields {
            let (key, value) = match text.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (text.as_str(), None),
            };
            let key = key.to_lowercase();
            let variable = |value: &str| value.find('$').is_some_and(|at| at + 1 < value.len());
            if key == "from" && value.is_some_and(variable) {
                return Err(format!(
                    "'{key}' doesn't support variable expansion, define alias stage instead"
                )
                .into());
            }
            let value = value.map(str::to_owned);
            mount.fields.push(Field { text, key, value });
        }
        out.push(mount);
    }
    Ok(out)
}

fn copy(node: &Node, heredocs: &[Heredoc]) -> Result<Copy, Wrong> {
    let (sources, dest) = ends(&node.words, "COPY")?;
    let flags = Flags::parse(
        &node.flags,
        &[
            ("chmod", Takes::Value),
            ("chown", Takes::Value),
            ("exclude", Takes::Values),
            ("from", Takes::Value),
            ("link", Takes::Bool),
            ("parents", Takes::Bool),
        ],
    )?;
    Ok(Copy {
        sources: items(sources, dest, heredocs, "COPY")?,
        dest: dest.clone(),
        from: flags.text("from"),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.switch("link").unwrap_or(false),
        parents: flags.switch("parents").unwrap_or(false),
        exclude: flags.values("exclude"),
    })
}

fn add(node: &Node, heredocs: &[Heredoc]) -> Result<Add, Wrong> {
    let (sources, dest) = ends(&node.words, "ADD")?;
    let flags = Flags::parse(
        &node.flags,
        &[
            ("checksum", Takes::Value),
            ("chmod", Takes::Value),
            ("chown", Takes::Value),
            ("exclude", Takes::Values),
            ("keep-git-dir", Takes::Bool),
            ("link", Takes::Bool),
            ("unpack", Takes::Bool),
        ],
    )?;
    Ok(Add {
        sources: items(sources, dest, heredocs, "ADD")?,
        dest: dest.clone(),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.switch("link").unwrap_or(false),
        exclude: flags.values("exclude"),
        checksum: flags.text("checksum"),
        keep_git_dir: flags.switch("keep-git-dir"),
        unpack: flags.switch("unpack"),
    })
}

/// Parts sources and destination.
fn ends<'a>(words: &'a [String], instruction: &str) -> Result<(&'a [String], &'a String), Wrong> {
    match words {
        [sources @ .., dest] if !sources.is_empty() => Ok((sources, dest)),
        _ => Err(misused(
            format!(
                "{instruction} requires at least two arguments, but only one was provided. Destination could not be determined"
            ),
            instruction,
        )),
    }
}

/// Pairs the heredoc words among the sources with their bodies. A word that is no well-formed heredoc
/// by itself (`<<"a` of a name with a blank) is taken for a path.
fn items(
    sources: &[String],
    dest: &str,
    heredocs: &[Heredoc],
    instruction: &str,
) -> Result<Vec<Item>, Wrong> {
    if matches!(heredoc::in_word(dest), Ok(Some(_))) {
        return Err(format!("{instruction} cannot accept a heredoc as a destination").into());
    }
    let mut bodies: HashMap<&str, VecDeque<&str>> = HashMap::new();
    for doc in heredocs {
        bodies.entry(&doc.name).or_default().push_back(&doc.body);
    }
    let item = |source: &String| match heredoc::in_word(source) {
        Ok(Some(doc)) => {
            let body = bodies
                .get_mut(doc.name.as_str())
                .and_then(VecDeque::pop_front);
            Item::Inline(Heredoc {
                body: body.unwrap_or("").to_owned(),
                ..doc
            })
        }
        _ => Item::Path(source.clone()),
    };
    Ok(sources.iter().map(item).collect())
}

/// Gives a trigger's text as the image keeps it: what follows ONBUILD, and the heredocs.
fn trigger_text(node: &Node) -> String {
    let after = node.original.trim_start();
    let mut text = after
        .get("ONBUILD".len()..)
        .unwrap_or("")
        .trim_ascii_start()
        .to_owned();
    for doc in &node.heredocs {
        text.push('\n');
        text.push_str(&doc.body);
        text.push_str(&doc.name);
    }
    text
}

fn healthcheck(node: &Node) -> Result<Healthcheck, Wrong> {
    let [kind, words @ ..] = node.words.as_slice() else {
        let message = "HEALTHCHECK requires at least one argument".to_owned();
        return Err(misused(message, "HEALTHCHECK"));
    };
    let kind = kind.to_uppercase();
    if kind == "NONE" {
        if !words.is_empty() {
            return Err("HEALTHCHECK NONE takes no arguments".into());
        }
        return Ok(Healthcheck::None);
    }
    let flags = Flags::parse(
        &node.flags,
        &[
            ("interval", Takes::Value),
            ("retries", Takes::Value),
            ("start-interval", Takes::Value),
            ("start-period", Takes::Value),
            ("timeout", Takes::Value),
        ],
    )?;
    if kind != "CMD" {
        return Err(format!("Unknown type {} in HEALTHCHECK (try CMD)", quote(&kind)).into());
    }
    if words.is_empty() {
        let message = "Missing command after HEALTHCHECK CMD".to_owned();
        return Err(misused(message, "HEALTHCHECK"));
    }
    Ok(Healthcheck::Check {
        command: command_line(node.json, words),
        interval: interval(&flags, "interval")?,
        timeout: interval(&flags, "timeout")?,
        start_period: interval(&flags, "start-period")?,
        start_interval: interval(&flags, "start-interval")?,
        retries: retries(&flags)?,
    })
}

/// Reads a duration in nanoseconds; zero means that nothing was said.
fn interval(flags: &Flags, name: &str) -> Result<Option<u64>, Wrong> {
    const LEAST: i64 = 1_000_000;
    let Some(text) = flags.text(name) else {
        return Ok(None);
    };
    let time = duration::parse(&text)
        .map_err(|e| Wrong::from(e).hint("a time is written as in 30s or 1m30s"))?;
    match time {
        0 => Ok(None),
        time if time < LEAST => {
            Err(format!("Interval {} cannot be less than 1ms", quote(name)).into())
        }
        time => Ok(u64::try_from(time).ok()),
    }
}

fn retries(flags: &Flags) -> Result<Option<u64>, Wrong> {
    let Some(text) = flags.text("retries") else {
        return Ok(None);
    };
    let digits = text.strip_prefix(['+', '-']).unwrap_or(&text);
    if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
        return Err(format!("strconv.ParseInt: parsing {}: invalid syntax", quote(&text)).into());
    }
    match text.parse::<i32>() {
        Err(_) => Err(format!(
            "strconv.ParseInt: parsing {}: value out of range",
            quote(&text)
        )
        .into()),
        Ok(0) => Ok(None),
        Ok(count) => match u64::try_from(count) {
            Ok(count) => Ok(Some(count)),
            Err(_) => Err(format!("--retries cannot be negative ({count})").into()),
        },
    }
}
