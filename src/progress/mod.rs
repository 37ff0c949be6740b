//! What a build reports while it runs, as plain events; `cli` alone decides how they look.

use crate::dockerfile::check::Finding;
use crate::oci::Digest;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Names one step of one stage for reports: stage index and step index, both from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepId {
    /// The stage.
    pub stage: usize,
    /// The step in it.
    pub step: usize,
}

/// What a span of time was spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// Asking a registry for manifests and configs.
    Resolve,
    /// Downloading a layer.
    Fetch,
    /// Decompressing and unpacking a layer.
    Unpack,
    /// Mounting or materialising a root.
    Root,
    /// Running a command.
    Run,
    /// Copying (COPY, ADD, WORKDIR).
    Copy,
    /// Finding out what changed.
    Diff,
    /// Tar, hash and compression.
    Compress,
    /// Uploading a blob.
    Push,
    /// Writing an output.
    Export,
}

/// Whom a span belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The build as a whole.
    Build,
    /// A stage's base.
    Base(usize),
    /// A step.
    Step(StepId),
}

/// Which of a command's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// How bad a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For those who look for a fault.
    Debug,
    /// For everybody.
    Info,
    /// Something is off, the build goes on.
    Warn,
}

/// Something a build did.
#[derive(Clone, Debug)]
pub enum Event {
    /// The plan is known: for each stage in the plan its index, name and its steps' texts.
    Planned(Vec<(usize, String, Vec<String>)>),
    /// A step starts.
    StepStarted(StepId),
    /// A step ended well; what it changed is known, its layer may still be in the making.
    StepDone(StepId),
    /// A step is not carried out: what it makes was in the cache.
    StepCached(StepId),
    /// A step failed.
    StepFailed(StepId),
    /// A layer is in the store.
    LayerDone {
        /// Whose.
        step: StepId,
        /// Digest of the compressed blob.
        digest: Digest,
        /// Bytes of the tar.
        raw: u64,
        /// Bytes of the blob.
        size: u64,
        /// Number of entries.
        entries: u64,
    },
    /// A command printed something.
    Output(StepId, Stream, Vec<u8>),
    /// Work starts. Ids are unique in a build; `total` is in bytes where it is known.
    SpanStarted {
        /// Names the span.
        id: u64,
        /// Whose.
        owner: Owner,
        /// What.
        work: Work,
        /// A word or two: a digest, a reference.
        label: String,
        /// How much there is to do.
        total: Option<u64>,
        /// When.
        at: Instant,
    },
    /// Work moved on by so many bytes.
    SpanProgress {
        /// The span.
        id: u64,
        /// Bytes since the last such event.
        bytes: u64,
    },
    /// Work ended.
    SpanDone {
        /// The span.
        id: u64,
        /// When.
        at: Instant,
    },
    /// Work ended without coming to anything.
    SpanFailed {
        /// The span.
        id: u64,
        /// When.
        at: Instant,
    },
    /// Work was not needed: a layer was in the store already (`Fetch`, `Unpack`), a registry had
    /// the blob (`Push`).
    Reused {
        /// Whose.
        owner: Owner,
        /// What was not needed.
        work: Work,
        /// A word or two: a digest, a reference.
        label: String,
        /// Bytes that were not moved.
        bytes: u64,
    },
    /// A check found something in the Dockerfile.
    Finding {
        /// What, and in which lines.
        finding: Finding,
        /// The Dockerfile.
        file: PathBuf,
        /// Its lines, with nothing secret in them.
        lines: Arc<Vec<String>>,
    },
    /// The lines of a Dockerfile that is no file of this machine, for excerpts.
    Dockerfile(Arc<Vec<String>>),
    /// A line for the log.
    Message(Level, String),
}

/// Takes a build's events, from any thread.
#[derive(Clone)]
pub struct Sink(Arc<dyn Fn(Event) + Send + Sync>);

impl Work {
    /// Gives the word for it: lower case, one word.
    pub fn name(self) -> &'static str {
        match self {
            Work::Resolve => "resolve",
            Work::Fetch => "fetch",
            Work::Unpack => "unpack",
            Work::Root => "root",
            Work::Run => "run",
            Work::Copy => "copy",
            Work::Diff => "diff",
            Work::Compress => "compress",
            Work::Push => "push",
            Work::Export => "export",
        }
    }
}

impl Sink {
    /// Makes a sink of a function.
    pub fn new(take: impl Fn(Event) + Send + Sync + 'static) -> Sink {
        Sink(Arc::new(take))
    }

    /// Makes a sink that drops everything.
    pub fn none() -> Sink {
        Sink::new(|_| ())
    }

    /// Hands an event over.
    pub fn send(&self, event: Event) {
        (self.0)(event);
    }

    /// Logs a line.
    pub fn message(&self, level: Level, text: impl Into<String>) {
        self.send(Event::Message(level, text.into()));
    }

    /// Starts a span; it ends when the guard is dropped.
    pub fn span(&self, owner: Owner, work: Work, label: &str, total: Option<u64>) -> Span {
        let span = self.span_later(owner, work, label, total);
        span.start();
        span
    }

    /// Makes a span that starts with its first bytes, and never where there are none.
    pub fn span_later(&self, owner: Owner, work: Work, label: &str, total: Option<u64>) -> Span {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Span {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            sink: self.clone(),
            started: AtomicBool::new(false),
            what: (owner, work, label.to_owned(), total),
        }
    }
}

/// A span of work that is under way.
pub struct Span {
    id: u64,
    sink: Sink,
    started: AtomicBool,
    what: (Owner, Work, String, Option<u64>),
}

impl Span {
    fn start(&self) {
        if self.started.swap(true, Ordering::Relaxed) {
            return;
        }
        let (owner, work, label, total) = self.what.clone();
        self.sink.send(Event::SpanStarted {
            id: self.id,
            owner,
            work,
            label,
            total,
            at: Instant::now(),
        });
    }

    /// Says that so many more bytes are done.
    pub fn advance(&self, bytes: u64) {
        self.start();
        self.sink.send(Event::SpanProgress { id: self.id, bytes });
    }

    /// Ends the span of work that came to nothing.
    pub fn fail(mut self) {
        if std::mem::take(self.started.get_mut()) {
            self.sink.send(Event::SpanFailed {
                id: self.id,
                at: Instant::now(),
            });
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if *self.started.get_mut() {
            self.sink.send(Event::SpanDone {
                id: self.id,
                at: Instant::now(),
            });
        }
    }
}
