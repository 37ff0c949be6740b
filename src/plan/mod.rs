//! AST and request to stages and steps; config edits as pure functions. No I/O.
//!
//! Planning has two halves. [`graph()`] needs the Dockerfile and the request: it expands FROM lines
//! and finds what each stage needs. [`steps()`] needs the config of a stage's base too, which is known
//! once the base is resolved: it expands every word and computes the config after every step, so a
//! build knows all of a stage before anything of it runs.

mod args;
mod check;
mod chmod;
mod config;
mod graph;
mod idle;
mod mounts;
mod ports;
mod remote;
mod steps;
mod support;
mod table;
#[cfg(test)]
mod tests;

use crate::dockerfile::ast::{Instruction, Span};
use crate::dockerfile::check::Finding;
use crate::oci::{Digest, Image, Platform};
use crate::request::GitSource;
use std::collections::HashMap;

pub use args::{Scope, idle_args};
pub use check::{Checked, check, foreign_base, ignored, options, options_at};
pub use chmod::Chmod;
pub use graph::{Triggers, graph, graph_of_all, graph_with, meant, platform};
pub use idle::unused;
pub use steps::{bases, steps};

/// A mistake in the Dockerfile or between it and the request, with the lines it is about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Where in the Dockerfile; `None` where it is about the command line.
    pub span: Option<Span>,
    /// What is wrong, in BuildKit's words where it has some.
    pub message: String,
    /// At most one hint.
    pub hint: Option<String>,
}

impl Error {
    fn at(span: Span, message: impl Into<String>) -> Error {
        Error {
            span: Some(span),
            message: message.into(),
            hint: None,
        }
    }

    fn hint(self, hint: impl Into<String>) -> Error {
        Error {
            hint: Some(hint.into()),
            ..self
        }
    }
}

/// The stages that the target needs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In the Dockerfile's order; only those that are needed.
    pub stages: Vec<Stage>,
    /// Place of the target in `stages`.
    pub target: usize,
    /// Global ARGs with their values, for the stages' ARGs; the automatic platform ARGs are first.
    globals: args::Globals,
    /// Places in `stages` by name.
    names: HashMap<String, usize>,
    /// What the Dockerfile says SOURCE_DATE_EPOCH is, by a default of an ARG before FROM; none where
    /// the request says something.
    pub epoch: Option<i64>,
    /// The escape character.
    pub escape: char,
    /// What the checks found in the text and in the FROM lines, in no order; nothing is left out yet.
    pub findings: Vec<Finding>,
}

/// One stage.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Its number in the Dockerfile, from 0.
    pub index: usize,
    /// Its name, or its number as text.
    pub name: String,
    /// What it starts from.
    pub base: Base,
    /// What it is built for.
    pub platform: Platform,
    /// The FROM line.
    pub span: Span,
    /// The FROM as written.
    pub text: String,
    /// The instructions, not expanded. Triggers of the base are put in front by `steps`.
    pub instructions: Vec<Instruction>,
    /// Whether a named context of its name took its place: it is that context as it is.
    pub replaced: bool,
    /// The images and named contexts that its COPYs and mounts name, those of its base's triggers
    /// among them. They are wanted for the platform of the request.
    pub names: Vec<Named>,
    /// Places in `Plan::stages` that must be there before this one ends: its base stage and the
    /// stages its COPYs and mounts name, those of its base's triggers among them.
    pub needs: Vec<usize>,
}

/// What an instruction takes from, beside stages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// What.
    pub base: Base,
    /// Where the instruction is.
    pub span: Span,
    /// The instruction as written.
    pub text: String,
}

/// What a stage starts from, or what a COPY takes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// Another stage, by place in `Plan::stages`.
    Stage(usize),
    /// An image in a registry, as written and expanded (not parsed: a mistake is reported when it is used).
    Image(String),
    /// A named context of the request that is an image in an OCI layout.
    Layout(String),
    /// A named context of the request that is files.
    Files(String),
}

/// All of a stage that is known before anything of it runs.
#[derive(Clone, Debug)]
pub struct Staged {
    /// The steps in order; none where the stage is its FROM line alone.
    pub steps: Vec<Step>,
    /// The image (config, author) after the last step; layers and history are the base's.
    pub image: Image,
    /// What a stage that starts from this one inherits beside the image.
    pub scope: Scope,
    /// What the checks found in its instructions, in no order; nothing is left out yet.
    pub findings: Vec<Finding>,
}

/// One step, ready to be carried out.
#[derive(Clone, Debug)]
pub struct Step {
    /// Where it is; the FROM's lines for a trigger of the base image.
    pub span: Span,
    /// As written, for reports: nothing secret is in it.
    pub text: String,
    /// What to do.
    pub op: Op,
    /// `created_by` of the history entry.
    pub history: String,
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum Op {
    /// Changes the config alone.
    Config,
    /// Runs a command.
    Run(RunOp),
    /// Copies files.
    Copy(CopyOp),
    /// Makes the working directory where it is not there.
    Workdir {
        /// Absolute, cleaned.
        path: String,
        /// USER at that point, empty for root.
        user: String,
    },
}

/// A command to run.
#[derive(Clone, Debug)]
pub struct RunOp {
    /// Program and arguments.
    pub args: Vec<String>,
    /// The environment, `NAME=value`: config's ENV, the build args of the stage, and where there is
    /// an SSH mount SSH_AUTH_SOCK.
    pub env: Vec<String>,
    /// The names in `env` that are there without an ARG or ENV, for the network alone.
    pub proxies: Vec<String>,
    /// Absolute working directory.
    pub cwd: String,
    /// USER, empty for root.
    pub user: String,
    /// The host's name as the command sees it, where the request has one.
    pub hostname: Option<String>,
    /// A heredoc with `#!`: its name and content; it lies at `/dev/pipes/NAME` while the command runs.
    pub script: Option<(String, String)>,
    /// What is mounted while it runs, in the order written.
    pub mounts: Vec<Mount>,
    /// Which network it sees.
    pub network: Network,
    /// Whether it has all capabilities and no filter (`--security=insecure`).
    pub insecure: bool,
}

/// The network that a command sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The builder's.
    #[default]
    Host,
    /// A loopback device alone.
    None,
}

/// One `RUN --mount`, expanded. Targets are absolute and cleaned, as are sources, which are seen
/// from the root of what they come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mount {
    /// Files of a context, stage or image.
    Bind {
        /// Where.
        target: String,
        /// Of what.
        from: From,
        /// Which file or directory.
        source: String,
        /// Whether it can be written to; what is written is thrown away.
        writable: bool,
    },
    /// A directory that is kept between builds.
    Cache {
        /// Where.
        target: String,
        /// Which; by default the target.
        id: String,
        /// Who else may use it meanwhile.
        sharing: Sharing,
        /// What it has in it at first; nothing where there is none.
        from: Option<From>,
        /// Which directory of that.
        source: String,
        /// Whether it can only be read.
        readonly: bool,
        /// Mode of the directory when it is made.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Where.
        target: String,
        /// Its bound in bytes.
        size: Option<u64>,
        /// Whether it can only be read.
        readonly: bool,
    },
    /// A secret of the request.
    Secret {
        /// Which.
        id: String,
        /// As a file.
        file: Option<MountedFile>,
        /// As a variable of this name.
        env: Option<String>,
        /// Whether it is an error where the request does not have it.
        required: bool,
    },
    /// The socket of an SSH agent of the request; SSH_AUTH_SOCK in the command's environment names
    /// the first one already.
    Ssh {
        /// Which.
        id: String,
        /// The socket.
        file: MountedFile,
        /// Whether it is an error where the request does not have it.
        required: bool,
    },
}

/// A file that is there while a command runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountedFile {
    /// Where.
    pub target: String,
    /// Its mode.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// Who may use a cache mount at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// All.
    #[default]
    Shared,
    /// One; another one gets a cache of its own.
    Private,
    /// One; another one waits.
    Locked,
}

/// Files to copy.
#[derive(Clone, Debug)]
pub struct CopyOp {
    /// From where.
    pub from: From,
    /// What, expanded, in order.
    pub sources: Vec<CopySource>,
    /// Files given in the Dockerfile: name, content.
    pub inline: Vec<(String, Vec<u8>)>,
    /// Absolute destination; ends with a slash where it must be a directory.
    pub dest: String,
    /// Owner as written, expanded.
    pub chown: Option<String>,
    /// What becomes of modes.
    pub chmod: Option<Chmod>,
    /// Which archives are unpacked.
    pub unpack: Unpack,
    /// Whether the layer is made without looking at what is below it.
    pub link: bool,
    /// Whether directories of the source are kept (COPY).
    pub parents: bool,
    /// Patterns of what is left out, expanded.
    pub exclude: Vec<String>,
    /// `COPY` or `ADD`, for messages.
    pub instruction: &'static str,
}

impl CopyOp {
    /// Makes a COPY of nothing to the root, to be filled in.
    pub fn nothing(from: From) -> CopyOp {
        CopyOp {
            from,
            sources: Vec::new(),
            inline: Vec::new(),
            dest: "/".into(),
            chown: None,
            chmod: None,
            unpack: Unpack::Never,
            link: false,
            parents: false,
            exclude: Vec::new(),
            instruction: "COPY",
        }
    }

    /// Makes a COPY of everything to the root.
    pub fn everything(from: From) -> CopyOp {
        CopyOp {
            sources: vec![CopySource::Path(".".into())],
            ..CopyOp::nothing(from)
        }
    }

    /// Tells whether its layer stands for itself. BuildKit ignores `--link` beside `--chmod`.
    pub fn is_linked(&self) -> bool {
        self.link && self.chmod.is_none()
    }
}

/// What a COPY or ADD names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopySource {
    /// A path or pattern; relative to the context's or tree's root.
    Path(String),
    /// Something to be fetched first (ADD).
    Remote(Remote),
}

/// What an ADD fetches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remote {
    /// A file at an http or https URL.
    Http {
        /// The URL.
        url: String,
        /// What it must be.
        checksum: Option<Digest>,
    },
    /// A git repository.
    Git {
        /// Which, and what of it.
        source: GitSource,
        /// Whether `.git` comes along.
        keep_git_dir: bool,
    },
}

/// Which archives an ADD unpacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpack {
    /// None: COPY, or `--unpack=false`.
    Never,
    /// Those that were not fetched from elsewhere.
    Local,
    /// All: `--unpack`.
    All,
}

/// Where a COPY takes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// The build context.
    Context,
    /// A stage, an image, a named context.
    Base(Base),
}
