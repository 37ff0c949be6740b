//! The build checks that want stages, arguments, variables or the context's ignore file.

use super::graph::{Reach, graph_of};
use super::{Base, CopyOp, CopySource, Error, From, Op, Scope, Staged, Step, args, bases, steps};
use crate::dockerfile::ast::{CommandLine, Dockerfile, Instruction, Kind, Span};
use crate::dockerfile::check::{Finding, Options, Rule, is_secret, text};
use crate::dockerfile::ignore::Ignore;
use crate::dockerfile::spelling::{nearest, quote};
use crate::dockerfile::words;
use crate::oci::{Image, Platform, Reference};
use crate::request::Request;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

/// The build argument that stands in the place of a file's `# check=`.
const ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// So many names are compared with one that is not known, until there are so many findings.
const COMPARED: usize = 1000;
const SUGGESTING: usize = 100;

/// What is said of the checks for the whole file: by the build argument, else by the directive.
pub fn options(dockerfile: &Dockerfile, request: &Request) -> Result<Options, Error> {
    if let Some(given) = request.build_arg(ARGUMENT) {
        return Options::parse(given).map_err(|why| Error {
            span: None,
            message: format!("build argument {ARGUMENT}: {why}"),
            hint: None,
        });
    }
    let Some((value, span)) = directive(dockerfile) else {
        return Ok(Options::default());
    };
    Options::parse_comment(value)
        .map_err(|why| Error::at(span, format!("failed to parse check options: {why}")))
}

/// Gives the line of the directive that [`options`] come from; none where they do not.
pub fn options_at(dockerfile: &Dockerfile, request: &Request) -> Option<Span> {
    match request.build_arg(ARGUMENT) {
        Some(_) => None,
        None => directive(dockerfile).map(|(_, span)| span),
    }
}

fn directive(dockerfile: &Dockerfile) -> Option<(&str, Span)> {
    let said = |(name, _, _): &&(String, String, usize)| name == "check";
    dockerfile
        .directives
        .iter()
        .find(said)
        .map(|(_, value, line)| {
            let span = Span {
                first: *line,
                last: *line,
            };
            (value.as_str(), span)
        })
}

/// What a check without a build came to.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// What was found, in no order; nothing is left out yet.
    pub findings: Vec<Finding>,
    /// What ended the check.
    pub error: Option<Error>,
    /// The FROM lines of the stages that stand on an image which is not known: variables that
    /// nothing sets were not looked for in them.
    pub unknown: Vec<Span>,
}

/// Plans and checks without building: the stages that the target needs, all where there is none.
///
/// `base` gives the image or layout that a stage starts from where it is known. Of one that is not known it
/// is assumed that it may set any variable.
pub fn check(
    dockerfile: &Dockerfile,
    request: &Request,
    base: &dyn Fn(&Base, &Platform) -> Option<Image>,
    ignore: Option<&Ignore>,
) -> Checked {
    let triggers = |name: &Base, platform: &Platform| {
        base(name, platform).map_or(Vec::new(), |image| image.config.on_build)
    };
    let plan = match graph_of(dockerfile, request, &triggers, Reach::All) {
        Ok(plan) => plan,
        Err(error) => {
            return Checked {
                findings: dockerfile.findings.clone(),
                error: Some(error),
                unknown: Vec::new(),
            };
        }
    };
    let mut out = Checked {
        findings: plan.findings.clone(),
        ..Checked::default()
    };
    let mut staged: Vec<Staged> = Vec::with_capacity(plan.stages.len());
    for (place, stage) in plan.stages.iter().enumerate() {
        let known;
        let (image, scope) = match &stage.base {
            Base::Scratch | Base::Files(_) => (None, Scope::default()),
            Base::Stage(other) => match staged.get(*other) {
                Some(other) => (Some(&other.image), other.scope.clone()),
                None => (None, Scope::unknown()),
            },
            Base::Image(_) | Base::Layout(_) => {
                known = base(&stage.base, &stage.platform);
                match &known {
                    Some(image) => (Some(image), Scope::default()),
                    None => (None, Scope::unknown()),
                }
            }
        };
        if let (Some(image), Base::Image(name) | Base::Layout(name)) = (image, &stage.base) {
            let found = foreign_base(name, &stage.platform, image, stage.span);
            out.findings.extend(found);
        }
        match steps(&plan, place, image, &scope, request) {
            Ok(mut next) => {
                out.findings.append(&mut next.findings);
                let copied = ignore.map(|ignore| ignored(&next.steps, ignore));
                out.findings.extend(copied.into_iter().flatten());
                for (step, from) in bases(&next.steps) {
                    if let (Base::Image(name) | Base::Layout(name), Some(image)) =
                        (from, base(from, &request.platform))
                    {
                        let found = foreign_base(name, &request.platform, &image, step.span);
                        out.findings.extend(found);
                    }
                }
                if next.scope.is_unknown() {
                    out.unknown.push(stage.span);
                }
                // Nothing asks for the steps of a stage again, and there may be many.
                next.steps = Vec::new();
                staged.push(next);
            }
            Err(error) => {
                out.error = Some(error);
                break;
            }
        }
    }
    out
}

/// Finds an image that is for another platform than its stage is.
pub fn foreign_base(name: &str, wanted: &Platform, image: &Image, span: Span) -> Option<Finding> {
    let own = image.platform();
    if own.os == wanted.os && own.architecture == wanted.architecture {
        return None;
    }
    let (own, wanted) = (own.to_string(), wanted.to_string());
    let message = format!(
        "Base image {name} was pulled with platform {}, expected {} for current build",
        quote(&own),
        quote(&wanted)
    );
    Some(Finding::new(Rule::InvalidBaseImagePlatform, span, message))
}

/// Finds the sources of steps that the ignore file leaves out of the context.
pub fn ignored(steps: &[Step], ignore: &Ignore) -> Vec<Finding> {
    let mut out = Vec::new();
    for step in steps {
        let Op::Copy(CopyOp {
            from: From::Context,
            sources,
            instruction,
            ..
        }) = &step.op
        else {
            continue;
        };
        for source in sources {
            let CopySource::Path(source) = source else {
                continue;
            };
            if ignore.leaves_out(source) {
                let verb = if *instruction == "ADD" { "Add" } else { "Copy" };
                let message = format!(
                    "Attempting to {verb} file {} that is excluded by .dockerignore",
                    quote(&plain(source))
                );
                out.push(Finding::new(Rule::CopyIgnoredFile, step.span, message));
            }
        }
    }
    out
}

/// Gives a source without `.` parts and doubled slashes.
fn plain(source: &str) -> String {
    let parts: Vec<&str> = source
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    match (source.starts_with('/'), parts.as_slice()) {
        (true, parts) => format!("/{}", parts.join("/")),
        (false, []) => ".".into(),
        (false, parts) => parts.join("/"),
    }
}

/// Finds bases that have no usable name where no build argument is given.
pub(super) fn default_bases(
    dockerfile: &Dockerfile,
    automatic: &args::Globals,
    findings: &mut Vec<Finding>,
) {
    let escape = dockerfile.escape;
    // Where the arguments cannot be expanded, the build itself says so.
    let Ok(globals) = args::globals(&dockerfile.globals, automatic.clone(), escape, &[]) else {
        return;
    };
    let mut names = BTreeSet::new();
    for stage in &dockerfile.stages {
        let written = &stage.from.base;
        let Ok(word) = FromWord::expand(written, escape, &globals) else {
            return;
        };
        // Without a variable in it a name is the same in every build, and may be a stage's.
        let varies = !word.set.is_empty() || !word.unset.is_empty();
        if varies
            && !names.contains(&word.text.to_ascii_lowercase())
            && word.text.parse::<Reference>().is_err()
        {
            findings.push(Finding::new(
                Rule::InvalidDefaultArgInFrom,
                stage.span,
                format!(
                    "Default value for ARG {written} results in empty or invalid base image name"
                ),
            ));
        }
        names.extend(
            stage
                .from
                .name
                .as_ref()
                .map(|name| name.to_ascii_lowercase()),
        );
    }
}

/// An expanded word of a FROM, with the arguments it used.
pub(super) struct FromWord {
    pub(super) text: String,
    set: Vec<String>,
    unset: Vec<String>,
}

impl FromWord {
    pub(super) fn expand(
        text: &str,
        escape: char,
        globals: &args::Globals,
    ) -> Result<FromWord, words::Error> {
        let set = RefCell::new(Vec::new());
        let env = |name: &str| {
            let value = args::lookup(globals, name);
            if value.is_some() {
                set.borrow_mut().push(name.to_owned());
            }
            value
        };
        let word = words::word(text, escape, &env)?;
        let mut set = set.into_inner();
        set.sort_unstable();
        set.dedup();
        Ok(FromWord {
            text: word.text,
            set,
            unset: word.unset,
        })
    }

    /// Finds arguments that no ARG declares.
    pub(super) fn undefined(
        &self,
        globals: &args::Globals,
        span: Span,
        findings: &mut Vec<Finding>,
    ) {
        for name in &self.unset {
            if globals.get(name).is_some() {
                continue;
            }
            let known = globals.entries().iter().map(|(name, _)| name.as_str());
            let mut message = format!("FROM argument '{name}' is not declared");
            if let Some(meant) = suggest(name, known, findings.len()) {
                message.push_str(&format!(" (did you mean {meant}?)"));
            }
            findings.push(Finding::new(Rule::UndefinedArgInFrom, span, message));
        }
    }

    /// Looks at a `--platform` as it is `written`; `name` is the stage's.
    pub(super) fn platform(
        &self,
        written: &str,
        platform: &Platform,
        name: Option<&str>,
        globals: &args::Globals,
        span: Span,
        findings: &mut Vec<Finding>,
    ) {
        const TARGET: &str = "TARGETPLATFORM";
        if !self.unset.is_empty() {
            return;
        }
        match self.set.as_slice() {
            [] => {
                let name = name.unwrap_or_default();
                if !name.contains(&platform.os) && !name.contains(&platform.architecture) {
                    findings.push(Finding::new(
                        Rule::FromPlatformFlagConstDisallowed,
                        span,
                        format!(
                            "FROM --platform flag should not use constant value {}",
                            quote(&self.text)
                        ),
                    ));
                }
            }
            [only]
                if only == TARGET && args::lookup(globals, TARGET).as_ref() == Some(&self.text) =>
            {
                findings.push(Finding::new(
                    Rule::RedundantTargetPlatform,
                    span,
                    format!(
                        "Setting platform to predefined {written} in FROM is redundant as this is \
                         the default behavior"
                    ),
                ));
            }
            _ => {}
        }
    }
}

/// Finds the known name that was meant, within bounds.
fn suggest<'a>(
    name: &str,
    known: impl Iterator<Item = &'a str>,
    findings: usize,
) -> Option<&'a str> {
    if findings >= SUGGESTING {
        return None;
    }
    let known: Vec<&str> = known.take(COMPARED).collect();
    nearest(name, &known)
}

/// What is noticed while a stage's instructions are carried out on paper.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) findings: RefCell<Vec<Finding>>,
    /// Whether the instruction at hand asked for a variable that is not set.
    pub(super) missed: Cell<bool>,
    /// Where CMD, ENTRYPOINT and HEALTHCHECK were last.
    last: [Option<Span>; 3],
}

impl Notes {
    fn find(&self, rule: Rule, span: Span, message: impl Into<String>) {
        self.findings
            .borrow_mut()
            .push(Finding::new(rule, span, message));
    }

    /// Tells whether a word of the instruction at hand may have variables that an unknown base sets.
    pub(super) fn is_unsure(&self, scope: &Scope) -> bool {
        scope.base_is_unknown && self.missed.get()
    }

    /// Looks at an instruction before it is carried out, in an image with this SHELL.
    pub(super) fn instruction(
        &mut self,
        instruction: &Instruction,
        shell: &[String],
        escape: char,
    ) {
        let Instruction { span, text, kind } = instruction;
        self.missed.set(false);
        let name = text::name(text);
        let (place, line) = match kind {
            Kind::Cmd(line) => (0, Some(line)),
            Kind::Entrypoint(line) => (1, Some(line)),
            Kind::Healthcheck(_) => (2, None),
            Kind::Env(_) | Kind::Label(_) => {
                if text::is_legacy(text, escape) {
                    let message = format!(
                        "\"{name} key=value\" should be used instead of legacy \"{name} key value\" \
                         format"
                    );
                    self.find(Rule::LegacyKeyValueFormat, *span, message);
                }
                return;
            }
            _ => return,
        };
        // The one before is pointed to, for it is the one without effect.
        if let Some(before) = self.last[place].replace(*span) {
            let message = format!(
                "Multiple {name} instructions should not be used in the same stage because only the \
                 last one will be used"
            );
            self.find(Rule::MultipleInstructionsDisallowed, before, message);
        }
        if let (Some(CommandLine::Shell(_)), []) = (line, shell) {
            let message = format!(
                "JSON arguments recommended for {name} to prevent unintended behavior related to OS \
                 signals"
            );
            self.find(Rule::JsonArgsRecommended, *span, message);
        }
    }

    /// Looks at the name of a variable that ARG or ENV gives a value.
    pub(super) fn secret(&self, instruction: &str, name: &str, span: Span) {
        if is_secret(name) {
            let message = format!(
                "Do not use ARG or ENV instructions for sensitive data ({instruction} {})",
                quote(name)
            );
            self.find(Rule::SecretsUsedInArgOrEnv, span, message);
        }
    }

    /// Looks at variables that were asked for and are not set.
    pub(super) fn undefined(&self, unset: &[String], scope: &Scope, span: Span) {
        if scope.base_is_unknown {
            return;
        }
        for name in unset {
            if scope.declares(name) || args::NO_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            let known = scope.variables().map(|(name, _)| name);
            let mut message = format!("Usage of undefined variable '${name}'");
            if let Some(meant) = suggest(name, known, self.findings.borrow().len()) {
                message.push_str(&format!(" (did you mean ${meant}?)"));
            }
            self.find(Rule::UndefinedVar, span, message);
        }
    }

    /// Looks at a WORKDIR; only the first one of a file's chain of stages can be at fault, for it
    /// mends those after it.
    pub(super) fn workdir(&self, path: &str, scope: &mut Scope, span: Span) {
        if !scope.has_workdir && !path.starts_with('/') && !self.is_unsure(scope) {
            let message = format!(
                "Relative workdir {} can have unexpected results if the base image changes",
                quote(path)
            );
            self.find(Rule::WorkdirRelativePath, span, message);
        }
        scope.has_workdir = true;
    }

    /// Looks at a port of EXPOSE.
    pub(super) fn port(&self, port: &str, scope: &Scope, span: Span) {
        if self.is_unsure(scope) {
            return;
        }
        let (ports, protocol) = port.split_once('/').unwrap_or((port, ""));
        if protocol != protocol.to_lowercase() {
            let message =
                format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
            self.find(Rule::ExposeProtoCasing, span, message);
        }
        let mut parts = ports.rsplit(':').skip(1);
        if parts.any(|part| !part.is_empty()) {
            let message = format!(
                "EXPOSE instruction should not define an IP address or host-port mapping, found \
                 '{port}'"
            );
            self.find(Rule::ExposeInvalidFormat, span, message);
        }
    }
}
