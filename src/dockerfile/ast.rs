//! What a Dockerfile says, as data with spans; words are not expanded yet.

use super::check::{Finding, Options};

/// Lines of the file, from 1, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// First line.
    pub first: usize,
    /// Last line.
    pub last: usize,
}

/// A parsed Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// `# syntax=` and its kin: name in lower case, value, line.
    pub directives: Vec<(String, String, usize)>,
    /// The escape character.
    pub escape: char,
    /// ARGs before the first FROM.
    pub globals: Vec<Instruction>,
    /// The stages in order.
    pub stages: Vec<Stage>,
    /// What the checks found that want nothing but the text, in no order.
    pub findings: Vec<Finding>,
    /// What comments right above instructions say of the checks, with the instructions' lines.
    pub exceptions: Vec<(Span, Options)>,
}

/// One stage: a FROM and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The FROM.
    pub from: From,
    /// Where the FROM is.
    pub span: Span,
    /// The FROM as written, continuation lines joined.
    pub text: String,
    /// The rest.
    pub instructions: Vec<Instruction>,
}

/// `FROM [--platform=] base [AS name]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// The base as written.
    pub base: String,
    /// The stage's name in lower case.
    pub name: Option<String>,
    /// The platform as written.
    pub platform: Option<String>,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Where it is.
    pub span: Span,
    /// As written, continuation lines joined, heredoc bodies left out: for reports and history.
    pub text: String,
    /// What it says.
    pub kind: Kind,
}

/// The instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ARG: names with defaults.
    Arg(Vec<(String, Option<String>)>),
    /// ENV: pairs in order.
    Env(Vec<(String, String)>),
    /// LABEL: pairs in order.
    Label(Vec<(String, String)>),
    /// RUN.
    Run(Run),
    /// COPY.
    Copy(Copy),
    /// ADD.
    Add(Add),
    /// CMD.
    Cmd(CommandLine),
    /// ENTRYPOINT.
    Entrypoint(CommandLine),
    /// SHELL.
    Shell(Vec<String>),
    /// EXPOSE.
    Expose(Vec<String>),
    /// VOLUME.
    Volume(Vec<String>),
    /// USER.
    User(String),
    /// WORKDIR.
    Workdir(String),
    /// STOPSIGNAL.
    StopSignal(String),
    /// HEALTHCHECK.
    Healthcheck(Healthcheck),
    /// MAINTAINER.
    Maintainer(String),
    /// ONBUILD: the trigger as parsed, and its text as it is kept in the image's config.
    Onbuild(Box<Instruction>, String),
}

/// A command in shell or exec form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// One text for the shell.
    Shell(String),
    /// A JSON array.
    Exec(Vec<String>),
}

/// `RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The command. In shell form with heredocs, the line with the `<<NAME` words.
    pub command: CommandLine,
    /// The heredocs, in order.
    pub heredocs: Vec<Heredoc>,
    /// `--mount=`, each.
    pub mounts: Vec<Mount>,
    /// `--network=`.
    pub network: Option<String>,
    /// `--security=`.
    pub security: Option<String>,
    /// `--device=`.
    pub devices: Vec<String>,
}

/// `--mount=`: its fields, not expanded; what they mean together is known once they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// The fields in order.
    pub fields: Vec<Field>,
}

impl Mount {
    /// Gives what `from=` names, where it names something.
    pub fn from(&self) -> Option<&str> {
        self.last(&["from"]).filter(|name| !name.is_empty())
    }

    /// Gives the target as written.
    pub fn target(&self) -> Option<&str> {
        self.last(&["target", "dst", "destination"])
    }

    fn last(&self, keys: &[&str]) -> Option<&str> {
        let fields = self.fields.iter().rev();
        fields
            .filter(|field| keys.contains(&field.key.as_str()))
            .find_map(|field| field.value.as_deref())
    }
}

/// `key=value`, or a key alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// As written.
    pub text: String,
    /// The key in lower case.
    pub key: String,
    /// What follows the `=`.
    pub value: Option<String>,
}

/// A heredoc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// Its name, unquoted.
    pub name: String,
    /// The body as written, tabs and all.
    pub body: String,
    /// Whether words in the body are expanded (the name was not quoted).
    pub expand: bool,
    /// Whether leading tabs go (`<<-`).
    pub chomp: bool,
    /// The file descriptor in front of `<<`, 0 where there is none.
    pub fd: u32,
}

/// What a COPY or ADD takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A path or pattern, or a URL for ADD, as written.
    Path(String),
    /// A heredoc, which becomes a file of its name.
    Inline(Heredoc),
}

/// `COPY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// What, in order.
    pub sources: Vec<Item>,
    /// Where to, as written.
    pub dest: String,
    /// `--from=`.
    pub from: Option<String>,
    /// `--chown=`.
    pub chown: Option<String>,
    /// `--chmod=`.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude=`.
    pub exclude: Vec<String>,
}

/// `ADD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    /// What, in order.
    pub sources: Vec<Item>,
    /// Where to, as written.
    pub dest: String,
    /// `--chown=`.
    pub chown: Option<String>,
    /// `--chmod=`.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--exclude=`.
    pub exclude: Vec<String>,
    /// `--checksum=`.
    pub checksum: Option<String>,
    /// `--keep-git-dir`.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`.
    pub unpack: Option<bool>,
}

/// `HEALTHCHECK`; durations in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    /// `NONE`.
    None,
    /// `CMD`.
    Check {
        /// The command.
        command: CommandLine,
        /// `--interval=`.
        interval: Option<u64>,
        /// `--timeout=`.
        timeout: Option<u64>,
        /// `--start-period=`.
        start_period: Option<u64>,
        /// `--start-interval=`.
        start_interval: Option<u64>,
        /// `--retries=`.
        retries: Option<u64>,
    },
}
