//! The build checks: gathered while a build is planned, or by themselves.

use super::resolve::Bases;
use super::{Error, base, file};
use crate::context;
use crate::dockerfile::ast::{Dockerfile, Span};
use crate::dockerfile::check::{Finding, Options, Rule, masked, wanted};
use crate::dockerfile::ignore::Ignore;
use crate::oci::Platform;
use crate::plan::{self, Base, Plan, Staged};
use crate::progress::{Event, Level, Sink};
use crate::request::{ContextSource, NamedContext, Request};
use std::path::PathBuf;
use std::sync::Arc;

/// What the checks of a build found so far.
pub(super) struct Checks {
    options: Options,
    exceptions: Vec<(Span, Options)>,
    file: PathBuf,
    lines: Arc<Vec<String>>,
    directive: Option<Span>,
    pub(super) findings: Vec<Finding>,
}

impl Checks {
    pub(super) fn new(
        text: &[u8],
        dockerfile: &Dockerfile,
        request: &Request,
    ) -> Result<Checks, Error> {
        Ok(Checks {
            options: plan::options(dockerfile, request)?,
            exceptions: dockerfile.exceptions.clone(),
            file: request.dockerfile.clone(),
            lines: Arc::new(masked(text).lines().map(str::to_owned).collect()),
            directive: plan::options_at(dockerfile, request),
            findings: dockerfile.findings.clone(),
        })
    }

    /// Tells of everything that was found; an error where the build is not to go on with that.
    pub(super) fn report(&mut self, sink: &Sink) -> Result<(), Error> {
        for text in unknown_rules(&self.options) {
            sink.message(Level::Warn, text);
        }
        let findings = std::mem::take(&mut self.findings);
        let (findings, fatal) = wanted(findings, &self.options, &self.exceptions);
        for finding in findings {
            sink.send(Event::Finding {
                finding,
                file: self.file.clone(),
                lines: Arc::clone(&self.lines),
            });
        }
        match fatal.as_slice() {
            [] => Ok(()),
            rules => Err(Error::Checks {
                rules: rules.join(", "),
                span: self.directive,
            }),
        }
    }
}

/// Finds what is known once the bases are and every step is planned; `wanted` is the platform of the
/// request.
pub(super) fn planned(
    plan: &Plan,
    wanted: &Platform,
    bases: &Bases,
    staged: &[Staged],
    ignore: Option<&Ignore>,
) -> Vec<Finding> {
    let mut out = plan.findings.clone();
    let foreign = |base: &Base, platform: &Platform, span: Span| {
        let image = &bases.get(&base::key(base, platform)?)?.image;
        match base {
            Base::Image(name) | Base::Layout(name) => {
                plan::foreign_base(name, platform, image, span)
            }
            Base::Scratch | Base::Stage(_) | Base::Files(_) => None,
        }
    };
    for (stage, staged) in plan.stages.iter().zip(staged) {
        out.extend(staged.findings.iter().cloned());
        out.extend(foreign(&stage.base, &stage.platform, stage.span));
        let copied = plan::bases(&staged.steps);
        // What is copied from is pulled for the platform of the build, whatever the stage is for.
        out.extend(copied.filter_map(|(step, base)| foreign(base, wanted, step.span)));
        let ignored = ignore.map(|ignore| plan::ignored(&staged.steps, ignore));
        out.extend(ignored.into_iter().flatten());
    }
    out
}

/// Says which rules the options name that do not exist.
fn unknown_rules(options: &Options) -> Vec<String> {
    let known: Vec<&str> = Rule::ALL.into_iter().map(Rule::name).collect();
    let say = |name: &str| {
        let hint = crate::dockerfile::spelling::nearest(name, &known);
        let hint = hint.map_or(String::new(), |meant| format!(" (did you mean {meant}?)"));
        format!("the check options name the rule `{name}`, which does not exist{hint}")
    };
    options.unknown().into_iter().map(say).collect()
}

/// What a check without a build came to.
#[derive(Debug, Default)]
pub struct Checked {
    /// The Dockerfile's text with nothing secret in it; empty where it could not be read.
    pub text: String,
    /// What was found, by line.
    pub findings: Vec<Finding>,
    /// The rules for which the check fails.
    pub fatal: Vec<&'static str>,
    /// What ended the check, and would end a build.
    pub error: Option<Error>,
    /// The FROM lines of stages in which variables that nothing sets were not looked for, because
    /// their base images are not known.
    pub unknown: Vec<Span>,
    /// What is odd about the check options.
    pub warnings: Vec<String>,
}

/// Parses, plans and checks a Dockerfile as a build would, without network, store or rights: images
/// in registries are not asked for, so what they may bring is taken for granted; those in OCI
/// layouts are looked at.
pub fn check(request: &Request) -> Checked {
    let mut out = Checked::default();
    if let Err(error) = check_into(request, &mut out) {
        out.error = Some(error);
    }
    out
}

fn check_into(request: &Request, out: &mut Checked) -> Result<(), Error> {
    let is_here = matches!(request.context, ContextSource::Directory(_));
    if !is_here && !request.dockerfile.exists() {
        return Err(Error::other(
            format!("read {}", request.dockerfile.display()),
            "a check looks for it on this machine alone, and in no context that is not a directory",
        ));
    }
    let text = file::read(&request.dockerfile, None)?;
    out.text = masked(&text);
    let dockerfile = crate::dockerfile::parse(&text)?;
    let options = plan::options(&dockerfile, request)?;
    out.warnings = unknown_rules(&options);
    let ignore = match &request.context {
        ContextSource::Directory(dir) => context::ignore_file(dir, &request.dockerfile)
            .map_err(|e| Error::other("read the ignore file", e))?,
        ContextSource::Git(_)
        | ContextSource::Http(_)
        | ContextSource::Archive(_)
        | ContextSource::Stdin => None,
    };
    let image = |base: &Base, platform: &Platform| match base {
        Base::Layout(name) => match request.contexts.get(name) {
            Some(NamedContext::Layout(layout)) => base::layout_image(layout, platform),
            _ => None,
        },
        _ => None,
    };
    let checked = plan::check(&dockerfile, request, &image, ignore.as_ref());
    (out.findings, out.fatal) = wanted(checked.findings, &options, &dockerfile.exceptions);
    out.unknown = checked.unknown;
    checked.error.map_or(Ok(()), |error| Err(error.into()))
}
