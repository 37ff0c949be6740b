//! One stage: its steps in order, on a tree, and on a root once a command must run.

use super::kept;
use super::layers::{self, Instruction, Pending};
use super::mounts::{self, Ready};
use super::one_root::{self, Turn};
use super::space;
use super::wait::lock;
use super::{Error, Shared};
use crate::changeset::Changeset;
use crate::context::{self, Context, Dates, Origin};
use crate::dockerfile::check::{Hide, without_credentials};
use crate::fs::{Ids, Meta, RelPath, Tree};
use crate::layer::Unpacked;
use crate::plan::{Base, CopyOp, CopySource, From, Op, RunOp, Step, Unpack};
use crate::progress::{Event, Level, Owner, StepId, Stream, Work};
use crate::request::RootfsChoice;
use crate::rootfs::{Guard, Lower, Rootfs};
use crate::sandbox::{Command, Exit, Identity};
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::Scope;

/// How many of a command's last lines an error keeps.
const LAST_LINES: usize = 20;
/// What the host is called where the request does not say: what BuildKit calls it.
const HOSTNAME: &str = "buildkitsandbox";
/// How many bytes of such a line.
const LINE_BYTES: usize = 2000;

/// A stage whose steps have all been carried out; layers may still be in the making.
pub(super) struct Done {
    pub(super) tree: Tree,
    files: Files,
    root: Mutex<Option<Box<dyn Rootfs>>>,
    unapplied: Vec<Arc<Changeset>>,
    pub(super) records: Vec<Record>,
    /// With one layer for everything: what all steps above the base changed.
    merged: Option<Changeset>,
}

impl Done {
    /// Gives how many layers of the tree are the base's.
    pub(super) fn base_layers(&self) -> usize {
        self.files.len()
    }

    /// Gives a root that shows the stage's files, for others to look at. Where it has none to start
    /// from, `dir` gives an empty directory to make it in.
    pub(super) fn root(
        &self,
        shared: &Shared<'_>,
        dir: impl FnOnce() -> std::io::Result<PathBuf>,
    ) -> Result<Box<dyn Rootfs>, BoxError> {
        let fork = lock(&self.root).as_ref().map(|root| root.fork());
        let mut root = match fork.transpose()? {
            Some(root) => root,
            None => base_root(shared, &self.files, dir()?)?,
        };
        for changeset in &self.unapplied {
            root.apply(changeset, shared.cancel)?;
        }
        Ok(root)
    }
}

/// Makes a root of an unpacked base in an empty directory.
pub(super) fn base_root(
    shared: &Shared<'_>,
    files: &[Unpacked],
    dir: PathBuf,
) -> Result<Box<dyn Rootfs>, BoxError> {
    let lowers = files
        .iter()
        .map(|layer| Lower {
            dir: layer.dir.clone(),
            view: Some(Arc::clone(&layer.view)),
        })
        .collect();
    // The root directory's metadata is as the base has it.
    let mut tree = Tree::default();
    for layer in files {
        tree.push(Arc::clone(&layer.view));
    }
    if shared.request.rootfs == RootfsChoice::Chroot {
        space::check_copy(&shared.store, &tree)?;
    }
    let top = match tree.get(&RelPath::root()) {
        Some(found) => found.meta,
        None => Meta::dir(0o755, shared.clock.now),
    };
    Ok(crate::rootfs::create(
        shared.request.rootfs,
        dir,
        lowers,
        top,
        shared.cancel,
    )?)
}

/// The unpacked base below a chain of stages, bottom first.
type Files = Arc<Vec<Unpacked>>;

/// What a step leaves in the image's history.
#[derive(Clone)]
pub(super) struct Record {
    pub(super) history: String,
    pub(super) layer: Option<Pending>,
}

struct Running<'scope, 'env> {
    shared: &'scope Shared<'env>,
    scope: &'scope Scope<'scope, 'env>,
    place: usize,
    tree: Tree,
    base_tree: Tree,
    files: Files,
    root: Option<Box<dyn Rootfs>>,
    /// Changesets that are in the tree and not yet in the root.
    unapplied: Vec<Arc<Changeset>>,
    records: Vec<Record>,
    merged: Option<Changeset>,
    /// In place: the right to the root, once there is one.
    turn: Option<Turn<'scope>>,
    /// In place, where the stage's files are wanted after it: how it started and what it changed.
    since: Option<Since>,
    /// In place, what is not the image's, once the stage has the root.
    guard: Guard,
}

/// How a stage started, and all that its steps have changed.
struct Since {
    tree: Tree,
    unapplied: Vec<Arc<Changeset>>,
    changes: Changeset,
}

/// Carries out the steps of the stage at `place` of the plan.
pub(super) fn run<'scope, 'env: 'scope>(
    shared: &'scope Shared<'env>,
    scope: &'scope Scope<'scope, 'env>,
    place: usize,
) -> Result<Option<Done>, Error> {
    let Some(mut running) = Running::start(shared, scope, place)? else {
        return Ok(None);
    };
    let steps: &'scope [Step] = &shared.steps[place];
    for (number, step) in steps.iter().enumerate() {
        if shared.cancel.is_set() {
            return Err(Error::Cancelled);
        }
        let id = StepId {
            stage: shared.plan.stages[place].index,
            step: number,
        };
        if !running.sources_are_there(step) {
            return Ok(None);
        }
        shared.sink.send(Event::StepStarted(id));
        match running.step(id, step) {
            Ok(Flow::Go) => shared.sink.send(Event::StepDone(id)),
            Ok(Flow::Stop) => return Ok(None),
            Err(error) => {
                shared.sink.send(Event::StepFailed(id));
                return Err(error);
            }
        }
    }
    if place == shared.plan.target {
        running.finish_single()?;
    }
    running.give_up()?;
    Ok(Some(Done {
        tree: running.tree,
        files: running.files,
        root: Mutex::new(running.root),
        unapplied: running.unapplied,
        records: running.records,
        merged: running.merged,
    }))
}

/// Whether a stage goes on, or something it waited for failed elsewhere.
enum Flow {
    Go,
    Stop,
}

impl<'scope, 'env: 'scope> Running<'scope, 'env> {
    fn start(
        shared: &'scope Shared<'env>,
        scope: &'scope Scope<'scope, 'env>,
        place: usize,
    ) -> Result<Option<Running<'scope, 'env>>, Error> {
        let stage = &shared.plan.stages[place];
        let mut running = Running {
            shared,
            scope,
            place,
            tree: Tree::default(),
            base_tree: Tree::default(),
            files: Arc::default(),
            root: None,
            unapplied: Vec::new(),
            records: Vec::new(),
            merged: shared.request.single_snapshot.then(Changeset::default),
            turn: None,
            since: None,
            guard: Guard::default(),
        };
        match &stage.base {
            Base::Scratch => {}
            Base::Stage(parent) => {
                let Some(done) = shared.done[*parent].wait() else {
                    return Ok(None);
                };
                running.tree = done.tree.clone();
                running.files = Arc::clone(&done.files);
                running.unapplied = done.unapplied.clone();
                running.records = done.records.clone();
                running.merged = done.merged.clone();
                running.root = match &*lock(&done.root) {
                    Some(root) => Some(
                        root.fork()
                            .map_err(|e| Error::step(stage.span, &stage.text, e))?,
                    ),
                    None => None,
                };
            }
            Base::Image(_) | Base::Layout(_) if shared.needs_files[place] => {
                let Some(files) = shared.wait_for_files(&stage.base, &stage.platform) else {
                    return Ok(None);
                };
                for layer in files.iter() {
                    running.tree.push(Arc::clone(&layer.view));
                }
                running.files = files;
            }
            Base::Image(_) | Base::Layout(_) => {}
            Base::Files(name) => {
                let Some(context) = shared.named(name) else {
                    return Ok(None);
                };
                let started = running.start_from(&context);
                started.map_err(|e| Error::step(stage.span, &stage.text, e))?;
            }
        }
        if one_root::is_one(shared) && one_root::is_wanted_later(shared, place) {
            running.since = Some(Since {
                tree: running.tree.clone(),
                unapplied: running.unapplied.clone(),
                changes: Changeset::default(),
            });
        }
        running.base_tree = Tree::default();
        for layer in running.files.iter() {
            running.base_tree.push(Arc::clone(&layer.view));
        }
        Ok(Some(running))
    }

    /// Starts from the files of a named context: they are the first layer, of an image without
    /// config.
    fn start_from(&mut self, context: &Context) -> Result<(), BoxError> {
        let stage = &self.shared.plan.stages[self.place];
        let id = StepId {
            stage: stage.index,
            step: 0,
        };
        let _span = self.span(id, Work::Copy, &stage.text);
        let copy = CopyOp {
            from: From::Context,
            sources: vec![CopySource::Path(".".into())],
            inline: Vec::new(),
            dest: "/".into(),
            chown: None,
            chmod: None,
            unpack: Unpack::Never,
            link: false,
            parents: false,
            exclude: Vec::new(),
            instruction: "FROM",
        };
        let (scratch, nothing) = (self.shared.step_scratch(id)?, Tree::default());
        let dates = Dates {
            made: self.shared.clock.now,
            copied: self.shared.clock.copied,
        };
        let (origin, cancel) = (Origin::Context(context), self.shared.cancel);
        let made = context::copy(&copy, &origin, &[], &nothing, &scratch, dates, cancel)?;
        let made = made.settle(&nothing)?;
        if made.is_empty() {
            return Ok(());
        }
        let layer = self.took(id, made, false)?;
        self.records.push(Record {
            history: stage.text.clone(),
            layer,
        });
        Ok(())
    }

    fn step(&mut self, id: StepId, step: &Step) -> Result<Flow, Error> {
        let failed = |source: BoxError| Error::step(step.span, &step.text, source);
        let changeset = match &step.op {
            Op::Config => None,
            Op::Run(run) => {
                if !self.materialise(id).map_err(failed)? {
                    return Ok(Flow::Stop);
                }
                Some(self.command(id, step, run)?)
            }
            Op::Copy(copy) => match self.copy(id, &step.op, copy).map_err(failed)? {
                Some(changeset) => Some(changeset),
                None => return Ok(Flow::Stop),
            },
            Op::Workdir { path, user } => {
                let _span = self.span(id, Work::Copy, path);
                let made = context::workdir(path, user, &self.tree, self.shared.clock.now)
                    .map_err(|e| failed(e.into()))?;
                Some(made.settle(&self.tree).map_err(|e| failed(e.into()))?)
            }
        };
        let on_root = matches!(step.op, Op::Run(_));
        let layer = changeset
            .filter(|changeset| !changeset.is_empty())
            .map(|changeset| self.took(id, changeset, on_root))
            .transpose()
            .map_err(failed)?
            .flatten();
        self.records.push(Record {
            history: step.history.clone(),
            layer,
        });
        Ok(Flow::Go)
    }

    /// Waits for what a step copies or mounts from; false where that failed.
    fn sources_are_there(&self, step: &Step) -> bool {
        let bases = step.op.bases().all(|base| match base {
            Base::Scratch => true,
            Base::Files(name) => self.shared.named(name).is_some(),
            Base::Stage(place) => self.shared.done[*place].wait().is_some(),
            Base::Image(_) | Base::Layout(_) => {
                let platform = &self.shared.request.platform;
                self.shared.wait_for_files(base, platform).is_some()
            }
        });
        bases && self.shared.fetched(&step.op).is_some()
    }

    fn span(&self, id: StepId, work: Work, label: &str) -> crate::progress::Span {
        self.shared.sink.span(Owner::Step(id), work, label, None)
    }

    /// Takes in what a step changed: on top of the tree, and as a layer where the image wants one.
    fn took(
        &mut self,
        id: StepId,
        changeset: Changeset,
        on_root: bool,
    ) -> Result<Option<Pending>, BoxError> {
        kept::warn(self.shared, &self.guard, &changeset);
        let changeset = Arc::new(changeset);
        self.tree.push(Arc::new(changeset.view()?));
        if !on_root {
            self.unapplied.push(Arc::clone(&changeset));
        }
        if let Some(since) = &mut self.since {
            let before = std::mem::take(&mut since.changes);
            since.changes = before.merge((*changeset).clone())?;
        }
        if !self.shared.in_image[self.place] {
            return Ok(None);
        }
        Ok(match self.merged.take() {
            Some(merged) => {
                self.merged = Some(merged.merge((*changeset).clone())?);
                None
            }
            None => {
                let of = self.instruction(id.step);
                Some(layers::start(self.shared, self.scope, id, of, changeset))
            }
        })
    }

    /// Gives a step's place and text; the FROM's where the stage has no such step.
    fn instruction(&self, step: usize) -> Instruction<'scope> {
        match self.shared.steps[self.place].get(step) {
            Some(step) => (step.span, &step.text),
            None => {
                let stage = &self.shared.plan.stages[self.place];
                (stage.span, &stage.text)
            }
        }
    }

    /// With one layer for everything: makes it of what all steps above the base changed.
    fn finish_single(&mut self) -> Result<(), Error> {
        let Some(merged) = self.merged.take() else {
            return Ok(());
        };
        let settled = merged
            .settle(&self.base_tree)
            .map_err(|e| Error::other("compare the stage with its base", e))?;
        if settled.is_empty() {
            return Ok(());
        }
        let id = StepId {
            stage: self.shared.plan.stages[self.place].index,
            step: self.shared.steps[self.place].len().saturating_sub(1),
        };
        let of = self.instruction(id.step);
        let layer = layers::start(self.shared, self.scope, id, of, Arc::new(settled));
        match self.records.last_mut() {
            Some(record) => record.layer = Some(layer),
            None => self.records.push(Record {
                history: String::new(),
                layer: Some(layer),
            }),
        }
        Ok(())
    }

    /// Has a root that shows the tree: the first command of a stage is what makes one. False where
    /// something that has to be there first has failed.
    fn materialise(&mut self, id: StepId) -> Result<bool, BoxError> {
        if self.root.is_some() && self.unapplied.is_empty() {
            return Ok(true);
        }
        if self.root.is_none() && one_root::is_one(self.shared) {
            let steps = &self.shared.steps[self.place];
            if !steps.iter().all(|step| self.sources_are_there(step)) {
                return Ok(false);
            }
            self.turn = Some(self.shared.one_root.turn());
            let _span = self.span(id, Work::Root, "root");
            let dir = self.shared.stage_scratch(self.place)?;
            let (shared, place) = (self.shared, self.place);
            let (root, guard) = one_root::take(shared, place, &mut self.tree, &self.files, dir)?;
            self.guard = guard;
            self.base_tree = Tree::default();
            for layer in self.tree.layers().iter().take(self.files.len()) {
                self.base_tree.push(Arc::clone(layer));
            }
            self.root = Some(Box::new(root));
            self.unapplied.clear();
            return Ok(true);
        }
        let _span = self.span(id, Work::Root, "root");
        if self.root.is_none() {
            let dir = self.shared.stage_scratch(self.place)?;
            self.root = Some(base_root(self.shared, &self.files, dir)?);
        }
        if let Some(root) = &mut self.root {
            for changeset in self.unapplied.drain(..) {
                root.apply(&changeset, self.shared.cancel)?;
            }
        }
        Ok(true)
    }

    /// In place: ends the stage's turn, with what later ones want of its files kept elsewhere.
    fn give_up(&mut self) -> Result<(), Error> {
        if self.turn.is_none() {
            return Ok(());
        }
        if let Some(since) = self.since.take() {
            let failed = |e: BoxError| Error::other("keep a stage's files for later ones", e);
            let dir = self.shared.kept_scratch(self.place);
            let dir = dir.map_err(|e| failed(e.into()))?;
            let kept = one_root::keep(self.shared, since.changes, &dir).map_err(failed)?;
            if let Some(merged) = &mut self.merged {
                one_root::take_content_of(merged, &kept);
            }
            let kept = Arc::new(kept);
            self.tree = since.tree;
            let view = kept.view().map_err(|e| failed(e.into()))?;
            self.tree.push(Arc::new(view));
            self.unapplied = since.unapplied;
            self.unapplied.push(kept);
        }
        self.root = None;
        self.turn = None;
        Ok(())
    }

    fn command(&mut self, id: StepId, step: &Step, run: &RunOp) -> Result<Changeset, Error> {
        let failed = |source: BoxError| Error::step(step.span, &step.text, source);
        let platform = &self.shared.request.platform;
        let ready = mounts::prepare(self.shared, platform, id, run).map_err(failed)?;
        let command = self.prepare(run, &ready).map_err(failed)?;
        let root = self.root.as_mut().ok_or_else(|| {
            Error::other("run a command", "its stage was given no root directory")
        })?;
        if let Some(path) = RelPath::clean(&command.cwd) {
            kept::warn_of(self.shared, &self.guard, &path);
        }
        root.begin().map_err(|e| failed(e.into()))?;
        let opened = root.root().map_err(|e| failed(e.into()))?;
        make_directory(opened, &command.cwd).map_err(|e| failed(e.into()))?;
        let mut last = Tail::default();
        let ran = {
            let _span = self.shared.sink.span(
                Owner::Step(id),
                Work::Run,
                &without_credentials(run.args.last().map_or("", String::as_str), Hide::User),
                None,
            );
            let sink = &self.shared.sink;
            let mut show = |stream, bytes: Vec<u8>| {
                if !bytes.is_empty() {
                    last.take(&bytes);
                    sink.send(Event::Output(id, stream, bytes));
                }
            };
            let mut masks = [(Stream::Out, ready.mask()), (Stream::Err, ready.mask())];
            let ran = self.shared.sandbox.run(
                root.entry(),
                &command,
                &mut |stream, bytes| {
                    for (of, mask) in &mut masks {
                        if *of == stream {
                            show(stream, mask.take(bytes));
                        }
                    }
                },
                &mut |text| sink.message(Level::Warn, text),
                self.shared.cancel,
            );
            for (stream, mask) in &mut masks {
                show(*stream, mask.rest());
            }
            ran
        };
        drop(command);
        ready.end();
        let code = match ran {
            Ok(Exit::Code(0)) => None,
            Ok(Exit::Code(code)) => Some(code),
            Ok(Exit::Signal(signal)) => Some(128 + signal),
            Ok(Exit::Cancelled) => {
                root.discard().map_err(|e| failed(e.into()))?;
                return Err(Error::Cancelled);
            }
            Err(error) => {
                // The first error is the one to tell.
                let _ = root.discard();
                return Err(failed(mounts::explained(error, &run.mounts, &self.tree)));
            }
        };
        if let Some(code) = code {
            space::tell_if_full(&self.shared.store, self.shared.sink);
            root.discard().map_err(|e| failed(e.into()))?;
            return Err(Error::Run {
                span: step.span,
                command: step.text.clone(),
                code,
                last: last.lines(),
            });
        }
        kept::check_own(self.shared).map_err(|e| failed(e.into()))?;
        let _span = self
            .shared
            .sink
            .span(Owner::Step(id), Work::Diff, "diff", None);
        let tracked = root.commit().map_err(|e| failed(e.into()))?;
        let tracked = tracked.with_owners_of(&self.tree, Ids::here());
        let tracked = self.heeded(tracked).map_err(failed)?;
        tracked.settle(&self.tree).map_err(|e| failed(e.into()))
    }

    /// Leaves out what the request wants left as it is.
    fn heeded(&self, changes: Changeset) -> Result<Changeset, BoxError> {
        let ignored = &self.shared.ignored;
        if ignored.is_empty() {
            return Ok(changes);
        }
        Ok(changes.without(&|path| ignored.iter().any(|at| path.is_within(at)))?)
    }

    fn prepare(&self, run: &RunOp, ready: &Ready) -> Result<Command, BoxError> {
        let user = context::user(&run.user, &self.tree)?;
        let mut env: Vec<Vec<u8>> = run.env.iter().map(|e| e.clone().into_bytes()).collect();
        ready.add_variables(&mut env);
        if !env.iter().any(|entry| entry.starts_with(b"HOME=")) {
            env.push(format!("HOME={}", user.home).into_bytes());
        }
        Ok(Command {
            args: run.args.iter().map(|a| a.clone().into_bytes()).collect(),
            env,
            cwd: run.cwd.clone().into_bytes(),
            identity: Identity {
                uid: user.uid,
                gid: user.gid,
                groups: user.groups,
            },
            files: run
                .script
                .iter()
                .map(|(name, text)| {
                    let path = format!("/dev/pipes/{name}").into_bytes();
                    (path, 0o755, text.clone().into_bytes())
                })
                .collect(),
            hostname: run.hostname.clone().unwrap_or_else(|| HOSTNAME.to_owned()),
            mounts: ready.mounts.clone(),
            network: run.network,
            insecure: run.insecure,
        })
    }

    fn copy(&mut self, id: StepId, op: &Op, copy: &CopyOp) -> Result<Option<Changeset>, BoxError> {
        let Some(fetched) = self.shared.fetched(op) else {
            return Ok(None);
        };
        let mut context = Arc::clone(&self.shared.context);
        let other: Option<Tree> = match &copy.from {
            From::Context => None,
            From::Base(Base::Files(name)) => match self.shared.named(name) {
                Some(named) => {
                    context = named;
                    None
                }
                None => return Ok(None),
            },
            From::Base(Base::Scratch) => Some(Tree::default()),
            From::Base(Base::Stage(place)) => match self.shared.done[*place].wait() {
                Some(done) => Some(done.tree.clone()),
                None => return Ok(None),
            },
            From::Base(base) => {
                let platform = &self.shared.request.platform;
                let Some(files) = self.shared.wait_for_files(base, platform) else {
                    return Ok(None);
                };
                let mut tree = Tree::default();
                for layer in files.iter() {
                    tree.push(Arc::clone(&layer.view));
                }
                Some(tree)
            }
        };
        let _span = self.span(id, Work::Copy, &copy.dest);
        let origin = match &other {
            Some(tree) => Origin::Tree(tree),
            None => Origin::Context(&context),
        };
        let scratch = self.shared.step_scratch(id)?;
        let cancel = self.shared.cancel;
        let nothing = Tree::default();
        // A linked layer is the same whatever it is put on, dates included.
        let (below, now) = match copy.is_linked() {
            true => (&nothing, self.shared.clock.epoch),
            false => (&self.tree, self.shared.clock.now),
        };
        let dates = Dates {
            made: now,
            copied: self.shared.clock.copied,
        };
        let made = context::copy(copy, &origin, &fetched, below, &scratch, dates, cancel)?;
        Ok(Some(self.heeded(made)?.settle(below)?))
    }
}

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes a command's working directory where an image names one that it does not have, as runc does.
fn make_directory(root: BorrowedFd<'_>, path: &[u8]) -> std::io::Result<()> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2};
    use rustix::io::Errno;
    let open = |path: &RelPath| {
        openat2(
            root,
            path.as_path(),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    };
    let path = RelPath::clean(path).ok_or(std::io::ErrorKind::InvalidInput)?;
    if path.is_root() || open(&path).is_ok() {
        return Ok(());
    }
    let mut at = RelPath::root();
    for name in path.components() {
        let parent = open(&at)?;
        at = at.join(name);
        match open(&at) {
            Ok(_) => {}
            Err(Errno::NOENT) => {
                use std::os::unix::ffi::OsStrExt;
                let name = std::ffi::OsStr::from_bytes(name);
                mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                // The file mode creation mask may have taken bits away.
                rustix::fs::chmodat(
                    &parent,
                    name,
                    Mode::from_raw_mode(0o755),
                    rustix::fs::AtFlags::empty(),
                )?;
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// The last lines of what a command printed.
#[derive(Default)]
struct Tail {
    lines: VecDeque<Vec<u8>>,
    open: bool,
}

impl Tail {
    fn take(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&c| c == b'\n') {
            if !self.open {
                if self.lines.len() == LAST_LINES {
                    self.lines.pop_front();
                }
                self.lines.push_back(Vec::new());
            }
            self.open = !piece.ends_with(b"\n");
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            if let Some(line) = self.lines.back_mut() {
                let room = LINE_BYTES.saturating_sub(line.len());
                line.extend_from_slice(&text[..text.len().min(room)]);
            }
        }
    }

    fn lines(self) -> Vec<String> {
        self.lines
            .iter()
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect()
    }
}
