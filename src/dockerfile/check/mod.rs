//! Build checks: what a Dockerfile says that is allowed and yet seldom meant.
//!
//! The rules, their names and the lines they point to are those of BuildKit's build checks. Rules
//! that want nothing but the text are looked for while a file is parsed and lie in
//! [`Dockerfile::findings`](super::ast::Dockerfile); the others are noticed while it is planned.
//! Whoever shows findings takes those that are wanted ([`wanted`]): the file's `# check=` directive
//! (or what stands in its place) leaves rules out for the whole file, the same comment right above an
//! instruction for that instruction alone.
//!
//! One rule is not BuildKit's: [`Rule::UnreadFlag`] tells of flags that BuildKit drops in silence.

mod options;
mod secrets;
pub(crate) mod text;
mod urls;

pub use options::{Options, Which};
pub use secrets::{is_secret, masked, masked_instruction};
pub use urls::{Hide, without_credentials};

use super::ast::Span;
use std::collections::HashSet;

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// A stage's name has capitals.
    StageNameCasing,
    /// `as` is not written as `FROM` is.
    FromAsCasing,
    /// A continued line is followed by an empty one.
    NoEmptyContinuation,
    /// An instruction is not written as most others are.
    ConsistentInstructionCasing,
    /// Two stages have one name.
    DuplicateStageName,
    /// A stage has a name that means something else.
    ReservedStageName,
    /// CMD or ENTRYPOINT goes through a shell that nobody chose.
    JsonArgsRecommended,
    /// MAINTAINER is used.
    MaintainerDeprecated,
    /// FROM uses an argument that is not declared before it.
    UndefinedArgInFrom,
    /// The first WORKDIR is relative.
    WorkdirRelativePath,
    /// A variable is used that nothing sets.
    UndefinedVar,
    /// An instruction of which the last one counts is there more than once.
    MultipleInstructionsDisallowed,
    /// ENV or LABEL has a blank for its `=`.
    LegacyKeyValueFormat,
    /// A base is for another platform than the one that is wanted.
    InvalidBaseImagePlatform,
    /// `--platform` says what is so in any case.
    RedundantTargetPlatform,
    /// A variable's name says that its value is a secret.
    SecretsUsedInArgOrEnv,
    /// A base has no usable name unless a build argument is given.
    InvalidDefaultArgInFrom,
    /// `--platform` is always the same.
    FromPlatformFlagConstDisallowed,
    /// A file is copied that the ignore file leaves out.
    CopyIgnoredFile,
    /// The comment above a stage or argument does not describe it.
    InvalidDefinitionDescription,
    /// A protocol has capitals.
    ExposeProtoCasing,
    /// EXPOSE says more than a port.
    ExposeInvalidFormat,
    /// An instruction has a flag that nothing reads.
    UnreadFlag,
}

impl Rule {
    /// All rules, in the order of BuildKit's list.
    pub const ALL: [Rule; 23] = [
        Rule::StageNameCasing,
        Rule::FromAsCasing,
        Rule::NoEmptyContinuation,
        Rule::ConsistentInstructionCasing,
        Rule::DuplicateStageName,
        Rule::ReservedStageName,
        Rule::JsonArgsRecommended,
        Rule::MaintainerDeprecated,
        Rule::UndefinedArgInFrom,
        Rule::WorkdirRelativePath,
        Rule::UndefinedVar,
        Rule::MultipleInstructionsDisallowed,
        Rule::LegacyKeyValueFormat,
        Rule::InvalidBaseImagePlatform,
        Rule::RedundantTargetPlatform,
        Rule::SecretsUsedInArgOrEnv,
        Rule::InvalidDefaultArgInFrom,
        Rule::FromPlatformFlagConstDisallowed,
        Rule::CopyIgnoredFile,
        Rule::InvalidDefinitionDescription,
        Rule::ExposeProtoCasing,
        Rule::ExposeInvalidFormat,
        Rule::UnreadFlag,
    ];

    /// Gives the name that directives and reports know the rule by.
    pub fn name(self) -> &'static str {
        self.facts().0
    }

    /// Gives the page that explains the rule, where there is one.
    pub fn url(self) -> Option<String> {
        let page = self.facts().1;
        (!page.is_empty()).then(|| format!("https://docs.docker.com/go/dockerfile/rule/{page}/"))
    }

    /// Says in a sentence what the rule asks for.
    pub fn description(self) -> &'static str {
        self.facts().2
    }

    /// Tells whether the rule is looked at only where that is asked for.
    pub fn is_experimental(self) -> bool {
        self == Rule::InvalidDefinitionDescription
    }

    /// Finds a rule by its name.
    pub fn named(name: &str) -> Option<Rule> {
        Rule::ALL.into_iter().find(|rule| rule.name() == name)
    }

    /// Name, page and description.
    fn facts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Rule::StageNameCasing => (
                "StageNameCasing",
                "stage-name-casing",
                "Stage names should be in lower case",
            ),
            Rule::FromAsCasing => (
                "FromAsCasing",
                "from-as-casing",
                "`as` should be written the way `from` is, in lower or in upper case",
            ),
            Rule::NoEmptyContinuation => (
                "NoEmptyContinuation",
                "no-empty-continuation",
                "A continued line should not be followed by an empty one; a later version may refuse that",
            ),
            Rule::ConsistentInstructionCasing => (
                "ConsistentInstructionCasing",
                "consistent-instruction-casing",
                "All instructions of a file should be written in one case, lower or upper",
            ),
            Rule::DuplicateStageName => (
                "DuplicateStageName",
                "duplicate-stage-name",
                "Every stage should have a name of its own",
            ),
            Rule::ReservedStageName => (
                "ReservedStageName",
                "reserved-stage-name",
                "A stage should not have a name that stands for something else",
            ),
            Rule::JsonArgsRecommended => (
                "JSONArgsRecommended",
                "json-args-recommended",
                "CMD and ENTRYPOINT should be JSON arrays: a shell between them and the program keeps signals from it",
            ),
            Rule::MaintainerDeprecated => (
                "MaintainerDeprecated",
                "maintainer-deprecated",
                "MAINTAINER is deprecated; a label names the author of an image",
            ),
            Rule::UndefinedArgInFrom => (
                "UndefinedArgInFrom",
                "undefined-arg-in-from",
                "FROM should use arguments alone that an ARG declares before the first FROM",
            ),
            Rule::WorkdirRelativePath => (
                "WorkdirRelativePath",
                "workdir-relative-path",
                "The first WORKDIR should be absolute: what a relative one means changes with the base image",
            ),
            Rule::UndefinedVar => (
                "UndefinedVar",
                "undefined-var",
                "Variables should be set before they are used",
            ),
            Rule::MultipleInstructionsDisallowed => (
                "MultipleInstructionsDisallowed",
                "multiple-instructions-disallowed",
                "An instruction of which only the last one counts should be in a stage once",
            ),
            Rule::LegacyKeyValueFormat => (
                "LegacyKeyValueFormat",
                "legacy-key-value-format",
                "There should be an equals sign between a name and its value, not a blank",
            ),
            Rule::InvalidBaseImagePlatform => (
                "InvalidBaseImagePlatform",
                "",
                "A base image should be for the platform that is built for",
            ),
            Rule::RedundantTargetPlatform => (
                "RedundantTargetPlatform",
                "redundant-target-platform",
                "FROM is for $TARGETPLATFORM in any case, so that need not be said",
            ),
            Rule::SecretsUsedInArgOrEnv => (
                "SecretsUsedInArgOrEnv",
                "secrets-used-in-arg-or-env",
                "ARG and ENV should hold no secrets: they stay in the image's config and history",
            ),
            Rule::InvalidDefaultArgInFrom => (
                "InvalidDefaultArgInFrom",
                "invalid-default-arg-in-from",
                "Without build arguments every FROM should name an image",
            ),
            Rule::FromPlatformFlagConstDisallowed => (
                "FromPlatformFlagConstDisallowed",
                "from-platform-flag-const-disallowed",
                "FROM --platform should not always be the same platform",
            ),
            Rule::CopyIgnoredFile => (
                "CopyIgnoredFile",
                "copy-ignored-file",
                "What is copied should not be left out of the context by the ignore file",
            ),
            Rule::InvalidDefinitionDescription => (
                "InvalidDefinitionDescription",
                "invalid-definition-description",
                "The comment right above a stage or argument should begin with its name; an empty line keeps other comments apart",
            ),
            Rule::ExposeProtoCasing => (
                "ExposeProtoCasing",
                "expose-proto-casing",
                "The protocol of an EXPOSE should be in lower case",
            ),
            Rule::ExposeInvalidFormat => (
                "ExposeInvalidFormat",
                "expose-invalid-format",
                "EXPOSE should name no address and no port of the host; a later version may refuse that",
            ),
            Rule::UnreadFlag => (
                "UnreadFlag",
                "",
                "An instruction should have no flag that it does not read",
            ),
        }
    }
}

/// One place where a rule is not kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Finding {
    /// Which rule.
    pub rule: Rule,
    /// Where.
    pub span: Span,
    /// What is so, in BuildKit's words where it has some; never the value of a variable.
    pub message: String,
}

impl Finding {
    /// Makes a finding.
    pub fn new(rule: Rule, span: Span, message: impl Into<String>) -> Finding {
        Finding {
            rule,
            span,
            message: message.into(),
        }
    }
}

/// Gives the findings that are wanted, each once, by line; and the names of the rules for which the
/// build is to fail, each once.
///
/// `file` is said of the whole file, `here` of single instructions, in the file's order.
pub fn wanted(
    findings: Vec<Finding>,
    file: &Options,
    here: &[(Span, Options)],
) -> (Vec<Finding>, Vec<&'static str>) {
    let own = |finding: &Finding| {
        let line = finding.span.first;
        let after = here.partition_point(|(span, _)| span.first <= line);
        let (span, options) = here.get(after.checked_sub(1)?)?;
        (line <= span.last).then_some(options)
    };
    let mut seen = HashSet::new();
    let mut out = findings;
    out.retain(|finding| {
        let said = || std::iter::once(file).chain(own(finding));
        said().any(|options| options.asks_for(finding.rule))
            && !said().any(|options| options.leaves_out(finding.rule))
            && seen.insert(finding.clone())
    });
    out.sort_by_key(|finding| finding.span.first);
    let mut fatal = Vec::new();
    for finding in &out {
        let name = finding.rule.name();
        if (file.error || own(finding).is_some_and(|options| options.error))
            && !fatal.contains(&name)
        {
            fatal.push(name);
        }
    }
    (out, fatal)
}

#[cfg(test)]
mod tests;
