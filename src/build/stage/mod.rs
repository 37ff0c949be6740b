//! One stage: its steps in order, on a tree, and on a root once a command must run.

mod cached;
mod command;

use super::cached::{Held, Needs, is_hidden};
use super::kept;
use super::layers::{self, Instruction, Note, Pending};
use super::one_root::{self, Turn};
use super::space;
use super::wait::lock;
use super::{Error, Shared, base};
use crate::changeset::Changeset;
use crate::context::{self, Context, Dates, Origin};
use crate::fs::{Content, LayerView, Meta, RelPath, Tree};
use crate::layer::{Times, Unpacked};
use crate::plan::{Base, CopyOp, From, Op, Step};
use crate::progress::{Event, Owner, StepId, Work};
use crate::request::RootfsChoice;
use crate::rootfs::{Guard, Lower, Rootfs};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::Scope;

/// A stage whose steps have all been carried out; layers may still be in the making.
pub(super) struct Done {
    pub(super) tree: Tree,
    files: Files,
    root: Mutex<Option<Box<dyn Rootfs>>>,
    unapplied: Vec<Above>,
    pub(super) records: Vec<Record>,
    /// Whether what its steps made is what their keys say, none of them having run a command.
    holds: bool,
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
        match fork.transpose()? {
            Some(mut root) => {
                for above in &self.unapplied {
                    above.apply(shared, &mut *root)?;
                }
                Ok(root)
            }
            None => make_root(shared, &self.files, &self.tree, &self.unapplied, dir()?),
        }
    }

    /// Has the content of all files of its tree where it can be read.
    pub(super) fn have_content(&self, shared: &Shared<'_>, owner: Owner) -> Result<(), Error> {
        have_content(shared, &self.tree, &self.unapplied, owner)
    }
}

/// What lies in a tree above the base, and not yet in a root.
#[derive(Clone)]
enum Above {
    /// What a step changed.
    Made(Arc<Changeset>),
    /// A layer of the cache, and which layer of the tree it is.
    Held(Arc<Held>, usize),
}

impl Above {
    fn apply(&self, shared: &Shared<'_>, root: &mut dyn Rootfs) -> Result<(), BoxError> {
        match self {
            Above::Made(changeset) => Ok(root.apply(changeset, shared.cancel)?),
            Above::Held(held, _) => {
                let files = held.unpack(shared, Owner::Build)?;
                Ok(root.apply(&Changeset::of_layer(&files.view), shared.cancel)?)
            }
        }
    }
}

/// Has the content of all files of a tree where it can be read. What nobody can see is left where it is.
fn have_content(
    shared: &Shared<'_>,
    tree: &Tree,
    above: &[Above],
    owner: Owner,
) -> Result<(), Error> {
    for above in above {
        if let Above::Held(held, at) = above
            && !is_hidden(tree, *at)
        {
            held.unpack(shared, owner)?;
        }
    }
    Ok(())
}

/// Makes a root of an unpacked base and what lies above it in the tree in an empty directory.
fn make_root(
    shared: &Shared<'_>,
    files: &[Unpacked],
    tree: &Tree,
    above: &[Above],
    dir: PathBuf,
) -> Result<Box<dyn Rootfs>, BoxError> {
    // Layers of the cache are layers like the base's, as far as they lie on nothing else.
    let mut lowers = files.to_vec();
    let mut above = above.iter().peekable();
    while let Some(Above::Held(held, at)) = above.peek() {
        if !is_hidden(tree, *at) {
            let files = held.unpack(shared, Owner::Build)?;
            // Overlayfs takes a directory once.
            if lowers.iter().any(|lower| lower.dir == files.dir) {
                break;
            }
            lowers.push(files.clone());
        }
        above.next();
    }
    let mut root = base_root(shared, &lowers, dir)?;
    for above in above {
        above.apply(shared, &mut *root)?;
    }
    Ok(root)
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
    pub(super) made: When,
    /// Bytes of the layer's content, for whoever has to wait for it.
    bytes: u64,
}

/// When a step was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// By this build.
    Now,
    /// So many seconds after 1970, by another one.
    Then(i64),
    /// There is nothing to carry out.
    Never,
}

struct Running<'scope, 'env> {
    shared: &'scope Shared<'env>,
    scope: &'scope Scope<'scope, 'env>,
    place: usize,
    tree: Tree,
    base_tree: Tree,
    files: Files,
    root: Option<Box<dyn Rootfs>>,
    /// What is in the tree and not yet in the root.
    unapplied: Vec<Above>,
    records: Vec<Record>,
    /// Whether what the steps made so far is what their keys say.
    holds: bool,
    /// Whether the last command wrote no file that is what it was.
    is_exact: bool,
    /// Whether all that the last step changed is in its layer.
    is_whole: bool,
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
    unapplied: Vec<Above>,
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
        if let Some(found) = shared.found(place, number) {
            running.take(id, step, found)?;
            continue;
        }
        if !running.sources_are_there(step) {
            return Ok(None);
        }
        let note = match running.look_up(id, step)? {
            Sought::Found(found) => {
                running.take(id, step, &found)?;
                continue;
            }
            Sought::Missed(note) => note,
        };
        shared.sink.send(Event::StepStarted(id));
        match running.step(id, step, note) {
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
        holds: running.holds,
        merged: running.merged,
    }))
}

/// What looking a step up came to.
enum Sought<'scope> {
    /// It need not be carried out.
    Found(super::cached::Found),
    /// It is carried out, and what it makes is noted.
    Missed(Option<Note<'scope>>),
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
            holds: true,
            is_exact: false,
            is_whole: true,
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
                running.holds = done.holds;
                running.merged = done.merged.clone();
                running.root = match &*lock(&done.root) {
                    Some(root) => Some(
                        root.fork()
                            .map_err(|e| Error::step(stage.span, &stage.text, e))?,
                    ),
                    None => None,
                };
            }
            Base::Image(_) | Base::Layout(_) if shared.needs(place) == Needs::Tree => {
                let key = base::key(&stage.base, &stage.platform);
                let tables = key.and_then(|key| shared.decided.tables.get(&key));
                for toc in tables.into_iter().flatten() {
                    running.tree.push(Arc::new(LayerView {
                        toc: toc.clone(),
                        // Nobody asks, or the files would be there.
                        content: Content::Of(Arc::new(|_| None)),
                    }));
                }
            }
            Base::Image(_) | Base::Layout(_) if shared.needs(place) == Needs::Files => {
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
            instruction: "FROM",
            ..CopyOp::everything(From::Context)
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
        self.took(id, made, false, stage.text.clone(), None)?;
        Ok(())
    }

    fn step(
        &mut self,
        id: StepId,
        step: &Step,
        mut note: Option<Note<'scope>>,
    ) -> Result<Flow, Error> {
        let failed = |source: BoxError| Error::step(step.span, &step.text, source);
        let changeset = match &step.op {
            Op::Config => None,
            Op::Run(run) => {
                if !self.materialise(id).map_err(failed)? {
                    return Ok(Flow::Stop);
                }
                self.holds = false;
                Some(self.command(id, step, run)?)
            }
            Op::Copy(copy) => match self.copy(id, &step.op, copy).map_err(failed)? {
                Some(changeset) => Some(changeset),
                None => return Ok(Flow::Stop),
            },
            Op::Workdir { path, user } => {
                if context::is_looked_up(user) {
                    self.have_content_below(id)?;
                }
                let _span = self.span(id, Work::Copy, path);
                let made = context::workdir(path, user, &self.tree, self.shared.clock.now)
                    .map_err(|e| failed(e.into()))?;
                Some(made.settle(&self.tree).map_err(|e| failed(e.into()))?)
            }
        };
        if !matches!(step.op, Op::Run(_)) && !self.shared.sources_hold(&step.op) {
            self.holds = false;
        }
        let on_root = matches!(step.op, Op::Run(_));
        // Later commands saw more than a layer would give them.
        if !std::mem::replace(&mut self.is_whole, true) {
            note = None;
        }
        if let (true, Some(note)) = (on_root, &mut note) {
            note.dir = self.frozen();
        }
        let history = step.history.clone();
        match changeset.filter(|changeset| !changeset.is_empty()) {
            Some(changeset) => self
                .took(id, changeset, on_root, history, note)
                .map_err(failed)?,
            None => {
                if let Some(note) = note {
                    note.keep_empty(self.shared, self.scope, id);
                }
                let made = match step.op {
                    Op::Config if self.shared.caching.is_some() => When::Never,
                    _ => When::Now,
                };
                self.records.push(Record {
                    history,
                    layer: None,
                    made,
                    bytes: 0,
                });
            }
        }
        Ok(Flow::Go)
    }

    /// Gives the directory that the last command wrote to, where the layer made of it is what it is.
    fn frozen(&self) -> Option<PathBuf> {
        let as_is = self.shared.clock.times == Times::Keep
            && self.shared.ignored.is_empty()
            && self.is_exact;
        let root = self.root.as_ref().filter(|_| as_is)?;
        root.frozen().map(Path::to_owned)
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

    /// Takes in what a step changed: on top of the tree, and as a layer where the image or the cache
    /// wants one.
    fn took(
        &mut self,
        id: StepId,
        changeset: Changeset,
        on_root: bool,
        history: String,
        note: Option<Note<'scope>>,
    ) -> Result<(), BoxError> {
        kept::warn(self.shared, &self.guard, &changeset);
        let changeset = Arc::new(changeset);
        self.tree.push(Arc::new(changeset.view()?));
        if !on_root {
            self.unapplied.push(Above::Made(Arc::clone(&changeset)));
        }
        if let Some(since) = &mut self.since {
            let before = std::mem::take(&mut since.changes);
            since.changes = before.merge((*changeset).clone())?;
        }
        let bytes = changeset.content_size();
        let in_image = self.shared.in_image[self.place];
        let layer = if !in_image && self.shared.caching.is_none() {
            None
        } else if let Some(merged) = self.merged.take() {
            self.merged = Some(merged.merge((*changeset).clone())?);
            None
        } else {
            let of = self.instruction(id.step);
            let layer = layers::start(self.shared, self.scope, id, of, changeset, in_image, note);
            Some(layer)
        };
        self.records.push(Record {
            history,
            layer,
            made: When::Now,
            bytes,
        });
        Ok(())
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
        let in_image = self.shared.in_image[self.place];
        let settled = Arc::new(settled);
        let layer = layers::start(self.shared, self.scope, id, of, settled, in_image, None);
        match self.records.last_mut() {
            Some(record) => record.layer = Some(layer),
            None => self.records.push(Record {
                history: String::new(),
                layer: Some(layer),
                made: When::Now,
                bytes: 0,
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
            // Nobody makes what only steps take that were found.
            let decision = &self.shared.decided.stages[self.place];
            let missed = decision.missed(&self.shared.steps[self.place]);
            if !missed.iter().all(|step| self.sources_are_there(step)) {
                return Ok(false);
            }
            // All that is in the tree goes into the root.
            self.have_content_below(id)?;
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
        self.have_content_below(id)?;
        let _span = self.span(id, Work::Root, "root");
        let above = std::mem::take(&mut self.unapplied);
        match &mut self.root {
            Some(root) => {
                for above in above {
                    above.apply(self.shared, &mut **root)?;
                }
            }
            None => {
                let dir = self.shared.stage_scratch(self.place)?;
                self.root = Some(make_root(
                    self.shared,
                    &self.files,
                    &self.tree,
                    &above,
                    dir,
                )?);
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
            self.unapplied.push(Above::Made(kept));
        }
        self.root = None;
        self.turn = None;
        Ok(())
    }

    /// Leaves out what the request wants left as it is.
    fn heeded(&mut self, changes: Changeset) -> Result<Changeset, BoxError> {
        let ignored = &self.shared.ignored;
        if ignored.is_empty() {
            return Ok(changes);
        }
        let before = changes.changes.len();
        let heeded = changes.without(&|path| ignored.iter().any(|at| path.is_within(at)))?;
        self.is_whole = heeded.changes.len() == before;
        Ok(heeded)
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
                Some(done) => {
                    done.have_content(self.shared, Owner::Step(id))?;
                    Some(done.tree.clone())
                }
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
        // A name is looked up in the files below.
        if copy.chown.as_deref().is_some_and(context::is_looked_up) {
            self.have_content_below(id)?;
        }
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
        let made = self.heeded(made)?;
        let below = match copy.is_linked() {
            true => &nothing,
            false => &self.tree,
        };
        Ok(Some(made.settle(below)?))
    }
}

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;
