//! What is fetched: the build context and the Dockerfile where they are elsewhere, named contexts,
//! sources of ADD. The latter two are fetched once each, ahead of the steps that want them.

use super::cached::Decision;
use super::layers::Instruction;
use super::stage::BoxError;
use super::wait::{Gate, Promise, Slot};
use super::{Error, Room, Shared, file};
use crate::context::fetch::{self, Fetcher, Got, Opened, Which, below};
use crate::context::{self, Context, Fetched};
use crate::dockerfile::check::masked;
use crate::net::{Url, redacted};
use crate::plan::{Base, CopySource, Op, Plan, Remote, Step};
use crate::progress::{Event, Level, Owner, Sink, StepId, Work};
use crate::request::{ContextSource, NamedContext, Request};
use crate::sys::Cancel;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::Scope;

/// How many things are fetched at a time.
const AT_ONCE: usize = 4;

/// What a build reads first.
pub(super) struct Begun {
    /// The Dockerfile.
    pub(super) text: Vec<u8>,
    /// The context, where it had to be fetched.
    pub(super) context: Option<Context>,
}

/// Tells whether the context or the Dockerfile has to be fetched before anything else is known.
fn is_elsewhere(request: &Request) -> bool {
    !matches!(request.context, ContextSource::Directory(_)) || url(&request.dockerfile).is_some()
}

/// Gives a Dockerfile's name as a URL, where it is one.
pub(super) fn url(dockerfile: &Path) -> Option<&str> {
    dockerfile
        .to_str()
        .filter(|text| text.starts_with("https://") || text.starts_with("http://"))
}

/// Reads the Dockerfile. Where it or the context is elsewhere both are fetched, for which alone `room` is
/// asked.
pub(super) fn begin<'r>(
    request: &Request,
    room: impl FnOnce() -> Result<&'r Room, Error>,
    sink: &Sink,
    cancel: &Cancel,
) -> Result<Begun, Error> {
    if !is_elsewhere(request) {
        return Ok(Begun {
            text: file::read(&request.dockerfile, Some(cancel))?,
            context: None,
        });
    }
    let room = room()?;
    let fetcher = Fetcher {
        client: room.registry.client(),
        request,
        cancel,
    };
    fetch_both(request, &fetcher, &room.scratch.dir, sink, cancel)
}

/// Opens the context, where it was not fetched.
pub(super) fn open_context(request: &Request, fetched: Option<Context>) -> Result<Context, Error> {
    match (fetched, &request.context) {
        (Some(context), _) => Ok(context),
        (None, ContextSource::Directory(dir)) => {
            Context::open(&dir.join(&request.context_sub_path), &request.dockerfile)
                .map_err(|e| Error::other("open the build context", e))
        }
        (None, source) => {
            let action = format!("open the build context {}", label(source));
            Err(Error::other(action, "it was not fetched"))
        }
    }
}

fn fetch_both(
    request: &Request,
    fetcher: &Fetcher<'_>,
    scratch: &Path,
    sink: &Sink,
    cancel: &Cancel,
) -> Result<Begun, Error> {
    let fetched = match &request.context {
        ContextSource::Directory(_) => None,
        source => Some(main_context(request, source, fetcher, scratch, sink)?),
    };
    let (text, context) = match (&fetched, url(&request.dockerfile)) {
        (_, Some(url)) => {
            let shown = Url::parse(url).map_or_else(|_| "a URL".into(), |url| redacted(&url));
            let span = sink.span(Owner::Build, Work::Fetch, &shown, None);
            let text = fetcher.text(url, file::MAX);
            drop(span);
            let text = text.map_err(|e| other("fetch the Dockerfile", e))?;
            let context = fetched.map(|opened| in_context(opened, None)).transpose()?;
            (text, context)
        }
        (Some(opened), None) if opened.dockerfile.is_some() || request.dockerfile.is_relative() => {
            let name = opened.dockerfile.map_or(&*request.dockerfile, Path::new);
            let (name, text) = file::read_in(opened.dir.as_fd(), name)?;
            let context = fetched.map(|opened| in_context(opened, Some(&name)));
            (text, context.transpose()?)
        }
        (_, None) => {
            let text = file::read(&request.dockerfile, Some(cancel))?;
            let context = fetched.map(|opened| beside(opened, &request.dockerfile));
            (text, context.transpose()?)
        }
    };
    let lines = masked(&text);
    sink.send(Event::Dockerfile(Arc::new(
        lines.lines().map(str::to_owned).collect(),
    )));
    Ok(Begun { text, context })
}

fn other(action: impl Into<String>, error: fetch::Error) -> Error {
    match error {
        fetch::Error::Cancelled => Error::Cancelled,
        error => Error::other(action, error),
    }
}

fn main_context(
    request: &Request,
    source: &ContextSource,
    fetcher: &Fetcher<'_>,
    scratch: &Path,
    sink: &Sink,
) -> Result<Opened, Error> {
    let failed = |error| other("fetch the build context", error);
    let span = sink.span(Owner::Build, Work::Fetch, &label(source), None);
    let opened = fetcher.context(source, Which::Main, &scratch.join("context"), &span);
    drop(span);
    let mut opened = opened.map_err(failed)?;
    for note in &opened.notes {
        sink.message(Level::Warn, note);
    }
    let sub_path = &request.context_sub_path;
    if !sub_path.as_os_str().is_empty() {
        let dir = below(opened.dir.as_fd(), sub_path, "the build context").map_err(failed)?;
        opened.dir = Arc::new(dir);
    }
    Ok(opened)
}

/// Makes the context of a Dockerfile that is in it.
fn in_context(opened: Opened, dockerfile: Option<&Path>) -> Result<Context, Error> {
    let own = dockerfile.map(with_suffix);
    let names = own.as_deref().into_iter().chain([Path::new(IGNORE)]);
    let ignore = context::ignore_in(opened.dir.as_fd(), names)
        .map_err(|e| Error::other("read the ignore file", e))?;
    Ok(Context {
        dir: opened.dir,
        ignore,
    })
}

/// Makes the context of a Dockerfile that is a file of this machine.
fn beside(opened: Opened, dockerfile: &Path) -> Result<Context, Error> {
    let own = context::ignore_beside(dockerfile);
    let own = own.map_err(|e| Error::other("read the ignore file", e))?;
    Ok(match own {
        Some(ignore) => Context {
            dir: opened.dir,
            ignore: Some(ignore),
        },
        None => in_context(opened, None)?,
    })
}

const IGNORE: &str = ".dockerignore";

fn with_suffix(dockerfile: &Path) -> PathBuf {
    let mut name = dockerfile.as_os_str().to_owned();
    name.push(IGNORE);
    name.into()
}

/// Names a source for reports.
pub(super) fn label(source: &ContextSource) -> String {
    match source {
        ContextSource::Directory(path) | ContextSource::Archive(path) => path.display().to_string(),
        ContextSource::Git(source) => crate::git::shown(&source.remote),
        ContextSource::Http(url) => shown(url),
        ContextSource::Stdin => "standard input".into(),
    }
}

fn shown(url: &str) -> String {
    Url::parse(url).map_or_else(|_| "a URL".into(), |url| redacted(&url))
}

/// What the steps of a build want fetched, in the order in which they want it.
pub(super) struct Remotes {
    sources: Vec<Wanted<Remote, Got>>,
    contexts: Vec<Wanted<String, Context>>,
    gate: Gate,
}

/// Something that is fetched once, and who wants it first.
struct Wanted<K, T> {
    what: K,
    slot: Slot<Arc<T>>,
    stage: usize,
    /// None where it is the stage's base.
    step: Option<usize>,
}

impl<K: PartialEq, T> Wanted<K, T> {
    fn add(all: &mut Vec<Wanted<K, T>>, what: K, stage: usize, step: Option<usize>) {
        if !all.iter().any(|one| one.what == what) {
            all.push(Wanted {
                what,
                slot: Slot::new(),
                stage,
                step,
            });
        }
    }
}

impl Remotes {
    /// Collects what stages want and those of their steps that are carried out.
    pub(super) fn new(plan: &Plan, steps: &[Vec<Step>], decided: &[Decision]) -> Remotes {
        let mut out = Remotes {
            sources: Vec::new(),
            contexts: Vec::new(),
            gate: Gate::new(AT_ONCE),
        };
        for (place, stage) in plan.stages.iter().enumerate() {
            let decision = &decided[place];
            if !decision.is_wanted {
                continue;
            }
            if let Base::Files(name) = &stage.base {
                Wanted::add(&mut out.contexts, name.clone(), place, None);
            }
            for (number, step) in steps[place].iter().enumerate() {
                if decision.found.get(number).is_some_and(Option::is_some) {
                    continue;
                }
                for base in step.op.bases() {
                    if let Base::Files(name) = base {
                        Wanted::add(&mut out.contexts, name.clone(), place, Some(number));
                    }
                }
                for remote in sources(&step.op) {
                    Wanted::add(&mut out.sources, remote.clone(), place, Some(number));
                }
            }
        }
        out
    }
}

/// Gives what a step fetches.
fn sources(op: &Op) -> impl Iterator<Item = &Remote> {
    let sources = match op {
        Op::Copy(copy) => copy.sources.as_slice(),
        _ => &[],
    };
    sources.iter().filter_map(|source| match source {
        CopySource::Remote(remote) => Some(remote),
        CopySource::Path(_) => None,
    })
}

/// Starts to fetch everything.
pub(super) fn start<'scope, 'env: 'scope>(
    shared: &'scope Shared<'env>,
    scope: &'scope Scope<'scope, 'env>,
) {
    for (number, wanted) in shared.remotes.contexts.iter().enumerate() {
        let room = shared.scratch.dir.join(format!("named-{number}"));
        spawn(shared, scope, wanted, move |owner| {
            named_context(shared, &wanted.what, owner, &room)
        });
    }
    for (number, wanted) in shared.remotes.sources.iter().enumerate() {
        let room = shared.scratch.dir.join(format!("remote-{number}"));
        spawn(shared, scope, wanted, move |owner| {
            let name = match &wanted.what {
                Remote::Http { url, .. } => shown(url),
                Remote::Git { source, .. } => crate::git::shown(&source.remote),
            };
            let span = shared.sink.span(owner, Work::Fetch, &name, None);
            let got = shared.fetcher().remote(&wanted.what, &room, &span)?;
            for note in got.notes() {
                shared.sink.message(Level::Warn, note);
            }
            Ok(got)
        });
    }
}

fn spawn<'scope, 'env: 'scope, K: Sync, T: Send + Sync>(
    shared: &'scope Shared<'env>,
    scope: &'scope Scope<'scope, 'env>,
    wanted: &'scope Wanted<K, T>,
    fetch: impl FnOnce(Owner) -> Result<T, BoxError> + Send + 'scope,
) {
    scope.spawn(move || {
        let promise = Promise::new(&wanted.slot);
        let _pass = shared.remotes.gate.enter();
        if shared.cancel.is_set() {
            return;
        }
        let stage = &shared.plan.stages[wanted.stage];
        let step = wanted
            .step
            .and_then(|step| shared.steps[wanted.stage].get(step));
        let owner = match wanted.step {
            Some(step) => Owner::Step(StepId {
                stage: stage.index,
                step,
            }),
            None => Owner::Base(stage.index),
        };
        let (at, text): Instruction<'_> = match step {
            Some(step) => (step.span, &step.text),
            None => (stage.span, &stage.text),
        };
        let got = fetch(owner).map_err(|e| Error::step(at, text, e));
        if let Some(got) = shared.failure.check(got) {
            promise.done(Arc::new(got));
        }
    });
}

fn named_context(
    shared: &Shared<'_>,
    name: &str,
    owner: Owner,
    room: &Path,
) -> Result<Context, BoxError> {
    let Some(NamedContext::Files(source)) = shared.request.contexts.get(name) else {
        return Err(format!("there is no named context {name}").into());
    };
    // A directory has its ignore file; with BuildKit, what is fetched has none.
    if let ContextSource::Directory(dir) = source {
        return Ok(Context::named(dir)?);
    }
    let span = shared.sink.span(owner, Work::Fetch, &label(source), None);
    let opened = shared
        .fetcher()
        .context(source, Which::Named, room, &span)?;
    for note in &opened.notes {
        shared.sink.message(Level::Warn, note);
    }
    Ok(Context {
        dir: opened.dir,
        ignore: None,
    })
}

impl Shared<'_> {
    fn fetcher(&self) -> Fetcher<'_> {
        Fetcher {
            client: self.registry.client(),
            request: self.request,
            cancel: self.cancel,
        }
    }

    /// Waits for a named context of files; `None` where it could not be had, which is reported.
    pub(super) fn named(&self, name: &str) -> Option<Arc<Context>> {
        let mut all = self.remotes.contexts.iter();
        all.find(|one| one.what == name)?.slot.wait()
    }

    /// Waits for what a step fetches, in the order of its sources; `None` where some of it could not
    /// be had, which is reported.
    pub(super) fn fetched(&self, op: &Op) -> Option<Vec<Fetched>> {
        let wait = |remote: &Remote| {
            let mut all = self.remotes.sources.iter();
            let got = all.find(|one| one.what == *remote)?.slot.wait()?;
            Some(got.fetched())
        };
        sources(op).map(wait).collect()
    }
}
