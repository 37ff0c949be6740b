//! Drives the plan: schedules stages, runs steps, joins layers.
//!
//! One thread a stage, one a layer in the making, one a base; they meet in slots (`wait`).
//! A stage waits for another only where it needs it. The first error throws the build's one
//! switch, and everything else unwinds.

mod attempt;
mod base;
mod blobs;
mod cached;
mod check;
mod deliver;
mod error;
mod explain;
mod file;
mod image;
mod kept;
mod layers;
mod mounts;
mod one_root;
mod remote;
mod resolve;
mod roots;
mod space;
mod stage;
mod wait;
mod warm;

use crate::context::Context;
use crate::fs::{RelPath, Time};
use crate::layer::{Permits, Times, Unpacked};
use crate::net::{Notice, Settings};
use crate::oci::{Descriptor, Digest, Format, Image, Platform, Reference};
use crate::plan::{self, Base, Plan, Step};
use crate::progress::{Event, Level, Owner, Sink, StepId};
use crate::registry::Registry;
use crate::request::{Compression, Request, RootOwner, RootfsChoice};
use crate::sandbox::{self, Sandbox};
use crate::store::{Scratch, Store};
use crate::sys::Cancel;
use attempt::{Means, Prepared, attempt};
use base::{Key, Resolved};
use cached::{Caching, Decided, Found, Job, Needs, Seen, Writer};
pub use cached::{Difference, Explained, FileDifference, How, Nearest, Outcome, Told};
use check::Checks;
pub use check::{Checked, check};
pub use error::Error;
pub use explain::explain;
use resolve::{Bases, check_platforms, resolve_and_plan, root_base};
pub use roots::{Diagnosis, diagnose};
pub use space::Amount;
use stage::{BoxError, Done};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use wait::{Failure, Gate, Promise, Slot};
pub use warm::{Again, Layers, Warm, Warmed, warm};

/// How many uploads run at a time.
const UPLOADS: usize = 6;
/// How many blobs of bases are fetched or checked at a time, besides those that are unpacked.
const DOWNLOADS: usize = 6;

/// What a build made.
#[derive(Clone, Debug)]
pub struct Built {
    /// The image; `None` where the files of an image were all that was asked for.
    pub image: Option<Identity>,
    /// Where it was pushed.
    pub pushed: Vec<Reference>,
}

/// What an image is known by.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The manifest: media type, digest, size.
    pub manifest: Descriptor,
    /// The config's digest.
    pub config: Digest,
}

/// What all threads of a build share.
struct Shared<'a> {
    request: &'a Request,
    sandbox: &'a Sandbox,
    sink: &'a Sink,
    cancel: &'a Cancel,
    failure: Failure,
    store: Arc<Store>,
    registry: Registry,
    context: Arc<Context>,
    remotes: remote::Remotes,
    /// Before the scratch directory that views are mounted in, so that they go first.
    mounts: mounts::Common,
    one_root: one_root::OneRoot,
    scratch: Scratch,
    plan: Plan,
    steps: Vec<Vec<Step>>,
    bases: blobs::Known,
    /// What is found instead of made, and what is wanted of the rest.
    decided: Decided,
    /// The cache, where there is one.
    caching: Option<&'a Caching>,
    /// What writes to its far places.
    writer: Option<&'a Writer>,
    /// What is known of files from earlier builds.
    seen: &'a Seen,
    /// Directories that could be layers' in the store, by diff ID.
    frozen: Mutex<Vec<(Digest, PathBuf)>>,
    done: Vec<Slot<Arc<Done>>>,
    /// By place of the stage: whether its layers are part of the image.
    in_image: Vec<bool>,
    /// What no step changes.
    ignored: Vec<RelPath>,
    /// One reference a repository that is pushed to.
    repositories: Vec<Reference>,
    format: Format,
    clock: Clock,
    gates: Gates,
}

/// The times that an image is made with.
#[derive(Clone)]
struct Clock {
    /// What a layer keeps of the times of its files.
    times: Times,
    /// The time of what a step makes by itself.
    now: Time,
    /// The same where it must not depend on the base.
    epoch: Time,
    /// The time of what is copied, where that is not the source's.
    copied: Option<Time>,
    /// When the image was made, as its config says it.
    created: String,
    /// Whether that is an epoch.
    has_epoch: bool,
    /// When steps are carried out, in whole seconds since 1970.
    steps: i64,
}

impl Clock {
    fn new(request: &Request, epoch: Option<i64>, base: Option<&Resolved>) -> Clock {
        let now = jiff::Timestamp::now();
        let at = |secs| Time { secs, nanos: 0 };
        Clock {
            times: match (request.reproducible, epoch) {
                (true, Some(secs)) => Times::Set(secs),
                (false, Some(secs)) => Times::Clamp(secs),
                (_, None) => Times::Keep,
            },
            now: epoch.map_or_else(|| stable_time(base), at),
            epoch: at(epoch.unwrap_or(0)),
            copied: epoch.map(at),
            created: match (epoch, &request.caching) {
                (Some(secs), _) => time(secs),
                // As an entry of the cache says it.
                (None, Some(_)) => time(now.as_second()),
                (None, None) => now.to_string(),
            },
            has_epoch: epoch.is_some(),
            steps: now.as_second(),
        }
    }
}

/// What keeps a build from doing too much at a time.
struct Gates {
    /// For the chunks of layers in the making.
    permits: Arc<Permits>,
    packers: Gate,
    uploads: Gate,
    downloads: Gate,
}

impl Gates {
    fn new(threads: usize) -> Gates {
        Gates {
            permits: Permits::new((2 * threads + 8).min(64)),
            packers: Gate::new(threads + 2),
            uploads: Gate::new(UPLOADS),
            downloads: Gate::new(DOWNLOADS),
        }
    }
}

/// What a build works with wherever its files come from. The scratch directory goes before the store
/// that it lies in.
struct Room {
    registry: Registry,
    scratch: Scratch,
    store: Arc<Store>,
}

impl Room {
    fn open(request: &Request, sink: &Sink, cancel: &Cancel) -> Result<Room, Error> {
        let mut store =
            Store::open(&request.store).map_err(|e| Error::other("open the store", e))?;
        if let Some(dir) = &request.beside
            && let Err(error) = store.look_beside(dir)
        {
            let text = format!("nothing is read from {}: {error}", dir.display());
            sink.message(Level::Warn, text);
        }
        let scratch = store
            .scratch()
            .map_err(|e| Error::other("make a scratch directory", e))?;
        let warn = sink.clone();
        let settings = Settings {
            notice: Notice(Arc::new(move |text| {
                warn.message(Level::Warn, text);
            })),
            ..Settings::default()
        };
        let registry = Registry::with_settings(request.registry.clone(), settings, cancel.clone())
            .map_err(|e| Error::other("set up the registry client", e))?;
        let store = Arc::new(store);
        registry.share(&store);
        Ok(Room {
            registry,
            scratch,
            store,
        })
    }

    /// Makes one for another attempt. What was read of the machine is not read again: in place it is
    /// the image's by now.
    fn again(registry: &Registry, store: &Arc<Store>, cancel: &Cancel) -> Result<Room, Error> {
        let scratch = store
            .scratch()
            .map_err(|e| Error::other("make a scratch directory", e))?;
        Ok(Room {
            registry: registry.again(cancel.clone())?,
            scratch,
            store: Arc::clone(store),
        })
    }
}

/// Builds an image and brings it where the request says.
pub fn build(
    request: &Request,
    sandbox: &Sandbox,
    sink: &Sink,
    cancel: &Cancel,
) -> Result<Built, Error> {
    let may_be_in_place = match request.rootfs {
        RootfsChoice::InPlace => true,
        RootfsChoice::Auto => request.root_owner == RootOwner::Builder,
        _ => false,
    };
    if may_be_in_place {
        for path in sandbox::repair()
            .map_err(|e| Error::other("put back what a killed build left behind", e))?
        {
            let text = format!(
                "put back {}, which a killed build left behind",
                path.display()
            );
            sink.message(Level::Info, text);
        }
    }
    // What fails ends this attempt; where it was the cache's fault there is another one.
    let whole = cancel;
    let cancel = &whole.part().map_err(|e| Error::other("make a switch", e))?;
    let mut early = None;
    let remote::Begun { text, context } = remote::begin(
        request,
        || Ok(early.insert(Room::open(request, sink, cancel)?)),
        sink,
        cancel,
    )?;
    let dockerfile = crate::dockerfile::parse(&text)?;
    let mut checks = Checks::new(&text, &dockerfile, request)?;
    drop(text);
    let plan = match plan::graph(&dockerfile, request) {
        Ok(plan) => plan,
        Err(error) => {
            // What was found helps to mend the mistake; the mistake itself is what is told last.
            let _ = checks.report(sink);
            return Err(error.into());
        }
    };
    checks.findings.clone_from(&plan.findings);
    for text in plan::idle_args(&dockerfile, request) {
        sink.message(Level::Warn, text);
    }
    deliver::check(request)?;
    let context = remote::open_context(request, context)?;
    let room = match early {
        Some(room) => room,
        None => Room::open(request, sink, cancel)?,
    };
    space::warn(&room.store, sink);
    // Before anything is asked for: without a root for its commands the build comes to nothing.
    let choose = |span| roots::choose(request, sandbox, &room, span, sink, cancel);
    let mut rootfs = roots::first_command(&plan)
        .map(|span| choose(Some(span)))
        .transpose()?;
    let repositories = repositories(&request.destinations);

    let resolved = resolve_and_plan(
        &dockerfile,
        plan,
        request,
        &room,
        &repositories,
        sink,
        cancel,
    );
    if let Ok((plan, bases, staged)) = &resolved {
        checks.findings = check::planned(
            plan,
            &request.platform,
            bases,
            staged,
            context.ignore.as_ref(),
        );
    }
    let reported = checks.report(sink);
    let (plan, bases, staged) = resolved?;
    reported?;
    for text in plan::unused(&dockerfile, request, &plan, &staged) {
        sink.message(Level::Warn, text);
    }
    check_platforms(&plan, &staged, &bases)?;
    let last = staged[plan.target].image.clone();
    let steps: Vec<Vec<Step>> = staged.into_iter().map(|staged| staged.steps).collect();
    // What a base's triggers run is known only now.
    if rootfs.is_none()
        && let Some(span) = roots::first_run(&steps)
    {
        rootfs = Some(choose(Some(span))?);
    }
    let chosen;
    let request = match rootfs {
        Some(rootfs) if rootfs != request.rootfs => {
            chosen = Request {
                rootfs,
                ..request.clone()
            };
            &chosen
        }
        _ => request,
    };
    announce(&plan, &steps, sink);
    let prepared = prepare(request, plan, steps, bases, context, last, repositories);
    let (store, registry) = (Arc::clone(&room.store), room.registry.clone());
    let caching = cached::caching(request, &store, sink, whole)?;
    let seen = match &caching {
        Some(_) => Seen::open(&store, &prepared.context),
        None => Seen::default(),
    };
    std::thread::scope(|scope| {
        let writer = caching
            .as_ref()
            .and_then(|caching| Writer::start(scope, caching, &store));
        let means = Means {
            request,
            sandbox,
            sink,
            caching: caching.as_ref(),
            writer: writer.as_ref(),
            seen: &seen,
        };
        let mut room = room;
        let mut cancel = cancel.clone();
        loop {
            let built = attempt(&prepared, &means, room, &cancel);
            seen.keep(&store);
            if built.is_ok() || !means.was_broken() || whole.is_set() {
                return built;
            }
            // Something that the cache has is of no use: once more, without it.
            cancel = whole.part().map_err(|e| Error::other("make a switch", e))?;
            room = Room::again(&registry, &store, &cancel)?;
        }
    })
}

/// Joins all that is known before anything runs.
fn prepare(
    request: &Request,
    plan: Plan,
    steps: Vec<Vec<Step>>,
    bases: Bases,
    context: Context,
    last: Image,
    repositories: Vec<Reference>,
) -> Prepared {
    let target_base = root_base(&plan, plan.target);
    let base = base::key(&target_base.0, &target_base.1).and_then(|key| bases.get(&key).cloned());
    let epoch = request
        .epoch
        .or(plan.epoch)
        .or(request.reproducible.then_some(0));
    Prepared {
        format: format(request, base.as_deref()),
        clock: Clock::new(request, epoch, base.as_deref()),
        base,
        plan,
        steps,
        bases,
        context: Arc::new(context),
        last,
        repositories,
    }
}

/// Carries the plan out and delivers the image, of which `last` is the config.
fn carry_out(shared: &Shared<'_>, base: Option<&Resolved>, last: Image) -> Result<Built, Error> {
    let (request, cancel) = (shared.request, shared.cancel);
    run_stages(shared);
    if let Some(error) = shared.failure.take() {
        return Err(error);
    }
    if cancel.is_set() {
        return Err(Error::Cancelled);
    }
    if let Some(writer) = shared.writer {
        for (key, used) in shared.mounts.used.take() {
            writer.send(Job::Mount(key, used));
        }
    }
    let image = match deliver::wants_image(request) {
        true => {
            let done = shared.done[shared.plan.target].wait();
            let records = done.map(|done| done.records.clone()).unwrap_or_default();
            Some(image::assemble(shared, base, last, &records)?)
        }
        false => None,
    };
    deliver::deliver(shared, image.as_ref())
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

fn in_image(plan: &Plan, wants_image: bool) -> Vec<bool> {
    let mut out = vec![false; plan.stages.len()];
    let mut place = wants_image.then_some(plan.target);
    while let Some(at) = place {
        out[at] = true;
        place = match plan.stages[at].base {
            Base::Stage(parent) => Some(parent),
            _ => None,
        };
    }
    out
}

/// Gives the paths that no step changes.
fn ignored(request: &Request) -> Vec<RelPath> {
    use std::os::unix::ffi::OsStrExt;
    let paths = request
        .ignore
        .iter()
        .map(|path| path.as_os_str().as_bytes());
    paths.filter_map(RelPath::clean).collect()
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

/// Gives seconds since 1970 as a config has them.
fn time(secs: i64) -> String {
    jiff::Timestamp::from_second(secs)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_string()
}

/// Gives the bases whose files are wanted, each with whom it is fetched for.
fn wanted<'a>(shared: &'a Shared<'_>) -> Vec<(&'a Key, Owner)> {
    let plan = &shared.plan;
    let mut wanted: Vec<(&Key, Owner)> = Vec::new();
    for (place, stage) in plan.stages.iter().enumerate() {
        let decision = &shared.decided.stages[place];
        if !decision.is_wanted {
            continue;
        }
        let missed = decision.missed(&shared.steps[place]);
        let named = missed.into_iter().flat_map(|step| step.op.bases());
        let named = named.map(|base| (base, &shared.request.platform));
        let own = (decision.needs == Needs::Files).then_some((&stage.base, &stage.platform));
        for (base, platform) in own.into_iter().chain(named) {
            if let Some(key) = base::key(base, platform)
                && let Some((key, _)) = shared.bases.resolved.get_key_value(&key)
                && !wanted.iter().any(|(known, _)| *known == key)
            {
                wanted.push((key, Owner::Base(stage.index)));
            }
        }
    }
    wanted
}

/// Runs everything that can overlap: bases, stages, layers, uploads. When this returns, all of it
/// has ended.
fn run_stages(shared: &Shared<'_>) {
    let plan = &shared.plan;
    let wanted = wanted(shared);
    let unpacked: Vec<&Key> = wanted.iter().map(|(key, _)| *key).collect();
    std::thread::scope(|scope| {
        remote::start(shared, scope);
        for (key, owner) in wanted {
            blobs::unpack_base(shared, scope, key, owner);
        }
        for place in 0..plan.stages.len() {
            let decision = &shared.decided.stages[place];
            if !decision.is_wanted {
                continue;
            }
            if decision.needs == Needs::Files {
                blobs::unpack_held(shared, scope, place);
            }
            scope.spawn(move || {
                let promise = Promise::new(&shared.done[place]);
                if let Some(Some(done)) = shared.failure.check(stage::run(shared, scope, place)) {
                    promise.done(Arc::new(done));
                }
            });
        }
        if !shared.repositories.is_empty() {
            blobs::push_base(shared, scope, &unpacked);
        }
        if !shared.bases.blobs.is_empty() {
            blobs::have_base(shared, scope, &unpacked);
        }
    });
}

impl Shared<'_> {
    /// Ends all roots and views; gives the scratch directory that they were in.
    fn let_go(self) -> Scratch {
        let Shared {
            mounts,
            done,
            scratch,
            ..
        } = self;
        drop(mounts);
        drop(done);
        scratch
    }

    /// Tells how much of a stage's files is wanted.
    fn needs(&self, place: usize) -> Needs {
        let decision = self.decided.stages.get(place);
        decision.map(|decision| decision.needs).unwrap_or_default()
    }

    /// Gives what was found for a step before anything ran.
    fn found(&self, place: usize, step: usize) -> Option<&Found> {
        let decision = self.decided.stages.get(place)?;
        decision.found.get(step)?.as_ref()
    }

    fn wait_for_files(&self, base: &Base, platform: &Platform) -> Option<Arc<Vec<Unpacked>>> {
        self.bases.files.get(&base::key(base, platform)?)?.wait()
    }

    fn stage_scratch(&self, place: usize) -> std::io::Result<PathBuf> {
        let dir = self.scratch.dir.join(format!("stage-{place}"));
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// Makes an empty directory for what is kept of a stage's files.
    fn kept_scratch(&self, place: usize) -> std::io::Result<PathBuf> {
        let dir = self.scratch.dir.join(format!("kept-{place}"));
        std::fs::create_dir(&dir)?;
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
