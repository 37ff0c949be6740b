//! Drives the plan: schedules stages, runs steps, joins layers.
//!
//! One thread a stage, one a layer in the making, one a base; they meet in slots (`wait`).
//! A stage waits for another only where it needs it. The first error throws the build's one
//! switch, and everything else unwinds.

mod base;
mod image;
mod layers;
mod mounts;
mod stage;
mod wait;

use crate::context::Context;
use crate::dockerfile::ast::Span;
use crate::fs::Time;
use crate::layer::{Permits, Times, Unpacked};
use crate::oci::{Descriptor, Digest, Format, Platform, Reference};
use crate::output::Finished;
use crate::plan::{self, Base, Op, Plan, Scope, Staged, Step};
use crate::progress::{Event, Level, Owner, Sink, StepId, Work};
use crate::registry::Registry;
use crate::request::{Compression, ContextSource, Output, Place, Request};
use crate::sandbox::Sandbox;
use crate::store::{Scratch, Store};
use crate::sys::Cancel;
use base::{Fetches, Key, Resolved};
use layers::Instruction;
use stage::{BoxError, Done};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use wait::{Failure, Gate, Promise, Slot};

/// The most bytes a Dockerfile may have.
const MAX_DOCKERFILE: u64 = 16 << 20;
/// How many uploads run at a time.
const UPLOADS: usize = 6;

/// What a build made.
#[derive(Clone, Debug)]
pub struct Built {
    /// The manifest: media type, digest, size.
    pub manifest: Descriptor,
    /// The config's digest.
    pub config: Digest,
    /// Where it was pushed.
    pub pushed: Vec<Reference>,
}

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A mistake in the Dockerfile.
    #[error(transparent)]
    Dockerfile(#[from] crate::dockerfile::Error),
    /// A mistake that planning found.
    #[error(transparent)]
    Plan(#[from] crate::plan::Error),
    /// A step failed; where it is, and why.
    #[error("{text}")]
    Step {
        /// Lines of the Dockerfile.
        span: Span,
        /// The instruction.
        text: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// A command ended with something else than 0.
    #[error("`{command}` ended with exit code {code}")]
    Run {
        /// Lines of the Dockerfile.
        span: Span,
        /// The command.
        command: String,
        /// The exit code; 128 and the signal's number for a signal.
        code: i32,
        /// What it printed last, both streams.
        last: Vec<String>,
    },
    /// A registry refused or could not be reached.
    #[error(transparent)]
    Registry(#[from] crate::registry::Error),
    /// SIGINT or SIGTERM.
    #[error("cancelled")]
    Cancelled,
    /// Something else.
    #[error("{action}")]
    Other {
        /// What was tried.
        action: String,
        /// Why it failed.
        #[source]
        source: BoxError,
    },
}

impl Error {
    fn other(action: impl Into<String>, source: impl Into<BoxError>) -> Error {
        Error::Other {
            action: action.into(),
            source: source.into(),
        }
    }

    fn step(span: Span, text: &str, source: impl Into<BoxError>) -> Error {
        Error::Step {
            span,
            text: text.to_owned(),
            source: source.into(),
        }
    }
}

type Bases = BTreeMap<Key, Arc<Resolved>>;

/// Bases to be resolved, with the instruction that names each.
type Wanted<'a> = BTreeMap<Key, (&'a Base, &'a Platform, Instruction<'a>)>;

/// What all threads of a build share.
struct Shared<'a> {
    request: &'a Request,
    sandbox: &'a Sandbox,
    sink: &'a Sink,
    cancel: &'a Cancel,
    failure: Failure,
    store: Store,
    registry: Registry,
    context: Context,
    secrets: mounts::Secrets,
    /// Before the scratch directory that they are mounted in, so that they go first.
    views: mounts::Views,
    scratch: Scratch,
    plan: Plan,
    steps: Vec<Vec<Step>>,
    bases: Bases,
    files: BTreeMap<Key, Slot<Arc<Vec<Unpacked>>>>,
    done: Vec<Slot<Arc<Done>>>,
    /// By place of the stage: whether its layers are part of the image.
    in_image: Vec<bool>,
    /// By place of the stage: whether the files of its base are wanted.
    needs_files: Vec<bool>,
    /// One reference a repository that is pushed to.
    repositories: Vec<Reference>,
    format: Format,
    times: Times,
    now: Time,
    /// The time of what a step makes by itself where it must not depend on the base.
    epoch: Time,
    created: String,
    permits: Arc<Permits>,
    packers: Gate,
    uploads: Gate,
    fetches: Fetches,
}

/// Builds an image and brings it where the request says.
pub fn build(
    request: &Request,
    sandbox: &Sandbox,
    sink: &Sink,
    cancel: &Cancel,
) -> Result<Built, Error> {
    let dockerfile = crate::dockerfile::parse(&read_dockerfile(request)?)?;
    let plan = plan::graph(&dockerfile, request)?;
    for (span, text) in &plan.warnings {
        let text = match span {
            Some(span) => format!("line {}: {text}", span.first),
            None => text.clone(),
        };
        sink.message(Level::Warn, text);
    }
    for text in plan::idle_args(&dockerfile, request) {
        sink.message(Level::Warn, text);
    }
    check_outputs(request)?;
    let ContextSource::Directory(dir) = &request.context else {
        return Err(Error::other(
            "open the build context",
            "only a directory is supported yet",
        ));
    };
    let context = Context::open(dir, &request.dockerfile)
        .map_err(|e| Error::other("open the build context", e))?;
    let store = Store::open(&request.store).map_err(|e| Error::other("open the store", e))?;
    let scratch = store
        .scratch()
        .map_err(|e| Error::other("make a scratch directory", e))?;
    let registry = Registry::new(request.registry.clone(), cancel.clone())
        .map_err(|e| Error::other("set up the registry client", e))?;
    let repositories = repositories(&request.destinations);

    let names: Vec<&str> = dockerfile
        .stages
        .iter()
        .filter_map(|stage| stage.from.name.as_deref())
        .collect();
    let (bases, staged) = resolve_and_plan(
        &plan,
        &names,
        request,
        &registry,
        &repositories,
        sink,
        cancel,
    )?;
    let last = staged[plan.target].image.clone();
    let steps: Vec<Vec<Step>> = staged.into_iter().map(|staged| staged.steps).collect();
    if steps
        .iter()
        .flatten()
        .any(|step| matches!(step.op, Op::Run(_)))
    {
        crate::rootfs::probe(request.rootfs, &scratch.dir)
            .map_err(|e| Error::other("find a root file system to build on", e))?;
    }
    announce(&plan, &steps, sink);
    let target_base = root_base(&plan, plan.target);
    let base = base::key(&target_base.0, &target_base.1).and_then(|key| bases.get(&key).cloned());
    let epoch = request.epoch.or(request.reproducible.then_some(0));
    let clock = match epoch {
        Some(secs) => Time { secs, nanos: 0 },
        None => stable_time(base.as_deref()),
    };
    let threads = rayon::current_num_threads();
    let shared = Shared {
        format: format(request, base.as_deref()),
        times: match (request.reproducible, epoch) {
            (true, Some(secs)) => Times::Set(secs),
            (false, Some(secs)) => Times::Clamp(secs),
            (_, None) => Times::Keep,
        },
        now: clock,
        epoch: Time {
            secs: epoch.unwrap_or(0),
            nanos: 0,
        },
        created: created(epoch),
        in_image: in_image(&plan),
        needs_files: needs_files(&plan, &steps),
        files: bases.keys().map(|key| (key.clone(), Slot::new())).collect(),
        done: plan.stages.iter().map(|_| Slot::new()).collect(),
        failure: Failure::new(cancel),
        permits: Permits::new((2 * threads + 8).min(64)),
        packers: Gate::new(threads + 2),
        uploads: Gate::new(UPLOADS),
        fetches: Fetches::default(),
        request,
        sandbox,
        sink,
        cancel,
        store,
        registry,
        context,
        secrets: mounts::Secrets::default(),
        views: mounts::Views::default(),
        scratch,
        plan,
        steps,
        bases,
        repositories,
    };
    run_stages(&shared);
    if let Some(error) = shared.failure.take() {
        return Err(error);
    }
    if cancel.is_set() {
        return Err(Error::Cancelled);
    }
    let done = shared.done[shared.plan.target].wait();
    let records = done.map(|done| done.records.clone()).unwrap_or_default();
    let image = image::assemble(&shared, base.as_deref(), last, &records)?;
    let built = deliver(&shared, &image)?;
    Ok(built)
}

/// Finds out before the build whether its outputs can be written where they are wanted, and makes
/// the directories above them.
fn check_outputs(request: &Request) -> Result<(), Error> {
    let notes = [
        ("--digest-file", &request.digest_file),
        (
            "--image-name-with-digest-file",
            &request.image_name_with_digest_file,
        ),
        (
            "--image-name-tag-with-digest-file",
            &request.image_name_tag_with_digest_file,
        ),
    ];
    let notes = notes
        .into_iter()
        .filter_map(|(flag, path)| Some((flag, path.as_ref()?)));
    let outputs = request.outputs.iter().filter_map(|output| match output {
        Output::DockerTar(Place::File(path)) => Some(("--tar-path", path)),
        Output::OciTar(Place::File(path)) | Output::RootTar(Place::File(path)) => {
            Some(("--output", path))
        }
        _ => None,
    });
    for (flag, path) in notes.chain(outputs) {
        let action = || format!("write {flag} {}", path.display());
        if path.is_dir() {
            return Err(Error::other(
                action(),
                "it is a directory; a file is wanted",
            ));
        }
        if let Some(parent) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            std::fs::create_dir_all(parent).map_err(|e| Error::other(action(), e))?;
        }
    }
    for output in &request.outputs {
        if let Output::OciLayout(dir) = output
            && dir.exists()
            && !dir.is_dir()
        {
            let action = format!("write --oci-layout-path {}", dir.display());
            return Err(Error::other(action, "it is a file; a directory is wanted"));
        }
    }
    Ok(())
}

fn read_dockerfile(request: &Request) -> Result<Vec<u8>, Error> {
    let action = || format!("read {}", request.dockerfile.display());
    let mut text = Vec::new();
    std::fs::File::open(&request.dockerfile)
        .and_then(|file| file.take(MAX_DOCKERFILE + 1).read_to_end(&mut text))
        .map_err(|e| Error::other(action(), e))?;
    if text.len() as u64 > MAX_DOCKERFILE {
        return Err(Error::other(
            action(),
            format!("it has more than {MAX_DOCKERFILE} bytes"),
        ));
    }
    Ok(text)
}

/// Resolves the bases and plans every step of every stage; checks meanwhile that the destinations
/// may be pushed to.
fn resolve_and_plan(
    plan: &Plan,
    names: &[&str],
    request: &Request,
    registry: &Registry,
    repositories: &[Reference],
    sink: &Sink,
    cancel: &Cancel,
) -> Result<(Bases, Vec<Staged>), Error> {
    let failure = Failure::new(cancel);
    let mut wanted = Wanted::new();
    for stage in &plan.stages {
        if let Some(key) = base::key(&stage.base, &stage.platform) {
            let of = (stage.span, stage.text.as_str());
            wanted
                .entry(key)
                .or_insert((&stage.base, &stage.platform, of));
        }
    }
    let mut bases = std::thread::scope(|scope| {
        if request.check_push {
            for destination in repositories {
                let failure = &failure;
                scope.spawn(move || {
                    failure.check(registry.check_push(destination).map_err(Error::Registry))
                });
            }
        }
        resolve_all(wanted, names, request, registry, sink, &failure)
    });
    if let Some(error) = failure.take() {
        return Err(error);
    }
    let mut staged: Vec<Staged> = Vec::new();
    for (place, stage) in plan.stages.iter().enumerate() {
        let none = Scope::default();
        let (image, scope) = match &stage.base {
            Base::Scratch => (None, &none),
            Base::Stage(parent) => (Some(&staged[*parent].image), &staged[*parent].scope),
            other => {
                let resolved = base::key(other, &stage.platform).and_then(|key| bases.get(&key));
                (resolved.map(|resolved| &resolved.image), &none)
            }
        };
        let next = plan::steps(plan, place, image, scope, request)?;
        staged.push(next);
    }
    let mut copied = Wanted::new();
    for (stage, staged) in plan.stages.iter().zip(&staged) {
        for (step, base) in plan::bases(&staged.steps) {
            if let Some(key) = base::key(base, &stage.platform)
                && !bases.contains_key(&key)
            {
                let of = (step.span, step.text.as_str());
                copied.entry(key).or_insert((base, &stage.platform, of));
            }
        }
    }
    bases.extend(resolve_all(
        copied, names, request, registry, sink, &failure,
    ));
    match failure.take() {
        Some(error) => Err(error),
        None => Ok((bases, staged)),
    }
}

/// Resolves bases at the same time as each other.
fn resolve_all(
    wanted: Wanted<'_>,
    names: &[&str],
    request: &Request,
    registry: &Registry,
    sink: &Sink,
    failure: &Failure,
) -> Bases {
    std::thread::scope(|scope| {
        let threads: Vec<_> = wanted
            .into_iter()
            .map(|(key, (base, platform, (span, text)))| {
                let thread = scope.spawn(move || {
                    let resolved = base::resolve(base, platform, request, registry, sink);
                    let named = resolved.map_err(|e| base::mistaken(base, names, e));
                    failure.check(named.map_err(|e| Error::step(span, text, e)))
                });
                (key, thread)
            })
            .collect();
        let resolved = |thread: std::thread::ScopedJoinHandle<'_, Option<Resolved>>| {
            // A base that is missing for a panic must not pass for scratch.
            let joined = thread.join();
            joined
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                .map(Arc::new)
        };
        threads
            .into_iter()
            .filter_map(|(key, thread)| Some((key, resolved(thread)?)))
            .collect()
    })
}

fn announce(plan: &Plan, steps: &[Vec<Step>], sink: &Sink) {
    let stages = plan
        .stages
        .iter()
        .zip(steps)
        .map(|(stage, steps)| {
            let texts = steps.iter().map(|step| step.text.clone()).collect();
            (stage.index, stage.name.clone(), texts)
        })
        .collect();
    sink.send(Event::Planned(stages));
}

/// Gives the image or scratch that a stage stands on through all stages between.
fn root_base(plan: &Plan, place: usize) -> (Base, Platform) {
    let stage = &plan.stages[place];
    match &stage.base {
        Base::Stage(parent) => root_base(plan, *parent),
        other => (other.clone(), stage.platform.clone()),
    }
}

fn in_image(plan: &Plan) -> Vec<bool> {
    let mut out = vec![false; plan.stages.len()];
    let mut place = Some(plan.target);
    while let Some(at) = place {
        out[at] = true;
        place = match plan.stages[at].base {
            Base::Stage(parent) => Some(parent),
            _ => None,
        };
    }
    out
}

/// A stage needs its base's files where it has a step that looks at files, where another stage
/// copies or mounts from it, or where a stage on top of it needs them.
fn needs_files(plan: &Plan, steps: &[Vec<Step>]) -> Vec<bool> {
    let looks = |step: &Step| match &step.op {
        Op::Config => false,
        Op::Copy(copy) => !copy.is_linked(),
        Op::Run(_) | Op::Workdir { .. } => true,
    };
    let mut out: Vec<bool> = steps.iter().map(|steps| steps.iter().any(looks)).collect();
    for (_, base) in steps.iter().flat_map(|steps| plan::bases(steps)) {
        if let Base::Stage(source) = base {
            out[*source] = true;
        }
    }
    for place in (0..out.len()).rev() {
        if let Base::Stage(parent) = plan.stages[place].base
            && out[place]
        {
            out[parent] = true;
        }
    }
    out
}

/// One reference a repository; several tags of one repository share blobs.
fn repositories(destinations: &[Reference]) -> Vec<Reference> {
    let mut out: Vec<Reference> = Vec::new();
    for destination in destinations {
        if !out.iter().any(|known| known.name() == destination.name()) {
            out.push(destination.clone());
        }
    }
    out
}

fn format(request: &Request, base: Option<&Resolved>) -> Format {
    match (request.format, request.compression, base) {
        (Some(format), _, _) => format,
        // Docker's media types have no zstd.
        (None, Compression::Zstd(_), _) | (None, _, None) => Format::Oci,
        (None, Compression::Gzip(_), Some(base)) => base.manifest.format,
    }
}

/// Gives the time of what a step makes by itself (a WORKDIR, the directories above a COPY's
/// destination, a heredoc): when the base was made, so that the same inputs give the same layers
/// whenever they are built.
fn stable_time(base: Option<&Resolved>) -> Time {
    let secs = base
        .and_then(|base| base.image.created.as_deref())
        .and_then(|text| text.parse::<jiff::Timestamp>().ok())
        .map_or(0, |time| time.as_second().max(0));
    Time { secs, nanos: 0 }
}

fn created(epoch: Option<i64>) -> String {
    let now = match epoch {
        Some(secs) => jiff::Timestamp::from_second(secs).unwrap_or(jiff::Timestamp::UNIX_EPOCH),
        None => jiff::Timestamp::now(),
    };
    now.to_string()
}

/// Runs everything that can overlap: bases, stages, layers, uploads. When this returns, all of it
/// has ended.
fn run_stages(shared: &Shared<'_>) {
    let plan = &shared.plan;
    let mut wanted: Vec<(&Key, Owner)> = Vec::new();
    for (place, stage) in plan.stages.iter().enumerate() {
        let named = plan::bases(&shared.steps[place]).map(|(_, base)| base);
        let own = shared.needs_files[place].then_some(&stage.base);
        for base in own.into_iter().chain(named) {
            if let Some(key) = base::key(base, &stage.platform)
                && let Some((key, _)) = shared.bases.get_key_value(&key)
                && !wanted.iter().any(|(known, _)| *known == key)
            {
                wanted.push((key, Owner::Base(stage.index)));
            }
        }
    }
    let unpacked: Vec<&Key> = wanted.iter().map(|(key, _)| *key).collect();
    std::thread::scope(|scope| {
        for (key, owner) in wanted {
            let (Some(slot), Some(resolved)) = (shared.files.get(key), shared.bases.get(key))
            else {
                continue;
            };
            scope.spawn(move || {
                let promise = Promise::new(slot);
                let Shared {
                    store,
                    registry,
                    sink,
                    cancel,
                    ..
                } = shared;
                let unpacked = base::unpack(resolved, registry, store, owner, sink, cancel);
                crate::sys::give_back_memory();
                if let Some(files) = shared.failure.check(unpacked) {
                    promise.done(Arc::new(files));
                }
            });
        }
        for place in 0..plan.stages.len() {
            scope.spawn(move || {
                let promise = Promise::new(&shared.done[place]);
                if let Some(Some(done)) = shared.failure.check(stage::run(shared, scope, place)) {
                    promise.done(Arc::new(done));
                }
            });
        }
        if !shared.repositories.is_empty() {
            push_base(shared, scope, &unpacked);
        }
    });
}

/// Has the base's layers at the destinations: there, mounted, or uploaded from the store.
fn push_base<'scope, 'env: 'scope>(
    shared: &'scope Shared<'env>,
    scope: &'scope std::thread::Scope<'scope, 'env>,
    unpacked: &[&Key],
) {
    let (root, platform) = root_base(&shared.plan, shared.plan.target);
    let Some(key) = base::key(&root, &platform) else {
        return;
    };
    let Some(base) = shared.bases.get(&key) else {
        return;
    };
    let owner = Owner::Base(shared.plan.stages[shared.plan.target].index);
    let being_unpacked = unpacked.contains(&&key);
    for layer in &base.manifest.layers {
        let (root, platform) = (root.clone(), platform.clone());
        scope.spawn(move || {
            // Asked for only where the registry neither has the blob nor can mount it.
            let file = || {
                // While the base is being unpacked its blobs are on their way into the store.
                if being_unpacked && shared.wait_for_files(&root, &platform).is_none() {
                    return Err(std::io::Error::other("the base could not be unpacked"));
                }
                base.blob_file(layer, &shared.registry, &shared.store, &shared.fetches)
                    .map_err(std::io::Error::other)
            };
            let from = base.reference();
            let uploaded = layers::upload(shared, owner, layer, &file, from);
            shared.failure.check(uploaded);
        });
    }
}

/// Pushes config and manifests, writes the other outputs.
fn deliver(shared: &Shared<'_>, image: &Finished) -> Result<Built, Error> {
    let keep = |bytes: &[u8]| {
        shared
            .store
            .put(bytes)
            .map_err(|e| Error::other("keep the image", e))
    };
    let config_digest = keep(&image.config_bytes)?;
    keep(&image.manifest_bytes)?;
    let config_file = shared
        .store
        .blob(&config_digest, image.config_bytes.len() as u64)
        .map_err(|e| Error::other("find the config", e))?
        .ok_or_else(|| Error::other("find the config", "it is no longer in the store"))?;
    layers::upload(
        shared,
        Owner::Build,
        &image.manifest.config,
        &|| Ok(config_file.clone()),
        None,
    )?;
    let request = shared.request;
    let export = |what: &std::path::Path| {
        shared.sink.span(
            Owner::Build,
            Work::Export,
            &what.display().to_string(),
            None,
        )
    };
    for output in &request.outputs {
        match output {
            Output::OciLayout(dir) => {
                let _span = export(dir);
                crate::output::write_layout(image, &request.names, dir)
                    .map_err(|e| Error::other("write the OCI layout", e))?;
            }
            Output::DockerTar(Place::File(file)) => {
                let _span = export(file);
                crate::output::write_docker_tar(image, &request.names, file)
                    .map_err(|e| Error::other("write the docker archive", e))?;
            }
            Output::DockerTar(Place::Stdout)
            | Output::OciTar(_)
            | Output::Directory(_)
            | Output::RootTar(_) => {
                return Err(Error::other(
                    "write an output",
                    "this kind is not supported yet",
                ));
            }
        }
    }
    let mut pushed = Vec::new();
    for destination in shared.pushed_to() {
        if shared.cancel.is_set() {
            return Err(Error::Cancelled);
        }
        let span = shared
            .sink
            .span(Owner::Build, Work::Push, &destination.to_string(), None);
        shared.registry.push_manifest(
            destination,
            image.manifest.media_type(),
            &image.manifest_bytes,
        )?;
        drop(span);
        pushed.push(destination.clone());
    }
    Ok(Built {
        manifest: image.descriptor.clone(),
        config: image.manifest.config.digest,
        pushed,
    })
}

impl Shared<'_> {
    fn wait_for_files(&self, base: &Base, platform: &Platform) -> Option<Arc<Vec<Unpacked>>> {
        self.files.get(&base::key(base, platform)?)?.wait()
    }

    /// Tells whether every blob of the image must be a file here.
    fn wants_files(&self) -> bool {
        !self.request.outputs.is_empty()
    }

    fn pushed_to(&self) -> &[Reference] {
        &self.request.destinations
    }

    fn stage_scratch(&self, place: usize) -> std::io::Result<PathBuf> {
        let dir = self.scratch.dir.join(format!("stage-{place}"));
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    fn step_scratch(&self, id: StepId) -> std::io::Result<PathBuf> {
        let dir = self
            .scratch
            .dir
            .join(format!("copy-{}-{}", id.stage, id.step));
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }
}
