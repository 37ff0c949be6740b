//! Steps that are found in the cache instead of carried out.

use super::{Above, BoxError, Record, Running, Sought, When, have_content};
use crate::build::cached::{self, Common, Found, Held, Hit, Made, Needs};
use crate::build::layers::{self, Below, Note};
use crate::build::resolve::root_base;
use crate::build::{Error, Shared, base};
use crate::cache::{Key, Recipe};
use crate::changeset::Changeset;
use crate::context::Origin;
use crate::fs::{RelPath, Source};
use crate::oci::Digest;
use crate::plan::{Base, CopyOp, CopySource, From, Op, Step};
use crate::progress::{Event, Level, Owner, StepId};
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

/// So many bytes of layers below are waited for to find out what a step really stands on.
const SMALL: u64 = 8 << 20;

impl Shared<'_> {
    /// Tells whether all stages that a step takes from are what their keys say.
    pub(in crate::build) fn sources_hold(&self, op: &Op) -> bool {
        op.bases().all(|base| match base {
            Base::Stage(place) => self.done[*place].wait().is_some_and(|done| done.holds),
            _ => true,
        })
    }
}

impl<'scope, 'env: 'scope> Running<'scope, 'env> {
    /// Takes what was found for a step.
    pub(super) fn take(&mut self, id: StepId, step: &Step, found: &Found) -> Result<(), Error> {
        let failed = |source: BoxError| Error::step(step.span, &step.text, source);
        let (layer, made) = match found {
            Found::Nothing(made) => (None, *made),
            Found::Layer(held) => {
                self.stack(id, held).map_err(failed)?;
                let in_image = self.shared.in_image[self.place];
                let layer = layers::reuse(self.shared, self.scope, id, held, in_image);
                (Some(layer), held.hit.entry.created)
            }
        };
        self.records.push(Record {
            history: step.history.clone(),
            layer,
            made: When::Then(made),
            bytes: 0,
        });
        self.shared.sink.send(Event::StepCached(id));
        Ok(())
    }

    /// Puts a layer of the cache on top of the tree, where there is one.
    fn stack(&mut self, id: StepId, held: &Arc<Held>) -> Result<(), BoxError> {
        if self.shared.needs(self.place) == Needs::Nothing {
            return Ok(());
        }
        let view = held.view().ok_or("its table of contents is not known")?;
        let view = Arc::new(view);
        self.tree.push(Arc::clone(&view));
        let at = self.tree.layers().len() - 1;
        self.unapplied.push(Above::Held(Arc::clone(held), at));
        if let Some(since) = &mut self.since {
            if since.changes.is_empty() {
                since.tree.push(view);
                let at = since.tree.layers().len() - 1;
                since.unapplied.push(Above::Held(Arc::clone(held), at));
            } else {
                let files = held.unpack(self.shared, Owner::Step(id))?;
                let before = std::mem::take(&mut since.changes);
                since.changes = before.merge(Changeset::of_layer(&files.view))?;
            }
        }
        Ok(())
    }

    /// Looks a step up that was not found before anything ran: by what is really below it, and once
    /// no other build makes the same.
    pub(super) fn look_up(
        &mut self,
        id: StepId,
        step: &'scope Step,
    ) -> Result<Sought<'scope>, Error> {
        let shared = self.shared;
        let Some(caching) = shared.caching else {
            return Ok(Sought::Missed(None));
        };
        if !cached::is_cached(&step.op, &caching.wanted) {
            return Ok(Sought::Missed(None));
        }
        let scratch = shared
            .step_scratch(id)
            .map_err(|e| Error::other("make a scratch directory", e))?;
        // What cannot be read is told by the step itself.
        let Some(contents) = contents(shared, step, &scratch) else {
            return Ok(Sought::Missed(None));
        };
        // A context may have changed since the keys were made.
        let known = self.known_recipe(id.step).filter(|known| {
            let parts = known.parts().iter();
            let then = parts.filter(|part| part.name == cached::CONTENT);
            then.map(|part| part.value).eq(contents.iter().copied())
        });
        let below = layers_of(shared, self.place, &self.records);
        let below = below.map(|layers| cached::of_image(&layers));
        let real = match below {
            Some(below) => self.real_recipe(id, step, below, &contents, &scratch),
            None => None,
        };
        let Some(recipe) = known.as_ref().or(real.as_ref()) else {
            return Ok(Sought::Missed(None));
        };
        let key = |recipe: &Option<Recipe>| recipe.as_ref().map(Recipe::key);
        let (known, real) = (key(&known), key(&real));
        let real = real.filter(|real| known != Some(*real));
        let keys: Vec<Key> = known.into_iter().chain(real).collect();
        // What a command made that has run since is not in the key that was known before.
        let asked: Vec<Key> = match self.holds && shared.sources_hold(&step.op) {
            true => keys.clone(),
            false => real.into_iter().collect(),
        };
        let waited = Cell::new(false);
        let waits = || {
            waited.set(true);
            let text = format!(
                "waiting for another build that makes the same as `{}`",
                step.text
            );
            shared.sink.message(Level::Info, text);
        };
        let first = recipe.key().hex();
        // Who has the one root there is waits for nobody who may be waiting for that.
        let turn = match self.turn.is_some() {
            true => shared.store.free_step_turn(&first),
            false => {
                let turn = shared.store.step_turn(&first, &waits, shared.cancel);
                turn.map(Some)
            }
        };
        let turn = match turn {
            Ok(turn) => turn,
            Err(crate::store::Error::Cancelled) => return Err(Error::Cancelled),
            Err(error) => return Err(Error::other("wait for another build", error)),
        };
        let bears = |hit: &Hit| match (below, hit.entry.below) {
            (Some(real), Some(made)) => real == made,
            _ => true,
        };
        let found = caching
            .probe_near(&shared.store, &asked)
            .filter(bears)
            .or_else(|| {
                // What was asked for before anything ran is not asked for again.
                let asked: Vec<Key> = real.into_iter().collect();
                let hits = caching.probe_again(&shared.store, &asked);
                hits.into_values().next().filter(bears)
            });
        if let Some(found) = found.and_then(|hit| self.usable(&hit)) {
            return Ok(Sought::Found(found));
        }
        // The other build failed with it, and so may this one: who waits for it too would wait in vain again.
        let turn = turn.filter(|_| !waited.get());
        let is_linked = matches!(&step.op, Op::Copy(copy) if copy.is_linked());
        let made = Made {
            keys,
            parts: recipe.parts().to_vec(),
            below: None,
            text: step.text.clone(),
        };
        let below = (!is_linked).then(|| Below {
            base: base_layers(shared, self.place),
            above: self
                .records
                .iter()
                .filter_map(|it| it.layer.clone())
                .collect(),
        });
        let still =
            move || self::contents(shared, step, &scratch).is_some_and(|now| now == contents);
        Ok(Sought::Missed(Some(Note {
            made,
            below,
            still: Box::new(still),
            dir: None,
            turn,
        })))
    }

    /// Gives what can be made of a hit; none where its table cannot be had.
    fn usable(&self, hit: &Hit) -> Option<Found> {
        let caching = self.shared.caching?;
        let Some(held) = Held::new(hit) else {
            return Some(Found::Nothing(hit.entry.created));
        };
        caching.keep_found(&self.shared.store, hit);
        held.find_toc(caching, &self.shared.store).ok()?;
        Some(Found::Layer(held))
    }

    /// Gives the recipe that was made before anything ran.
    fn known_recipe(&self, number: usize) -> Option<Recipe> {
        let chain = self.shared.decided.chains.get(self.place)?;
        chain.steps.get(number)?.clone()
    }

    /// Gives the recipe by what is really below a step and in what it takes; `contents` is what it takes
    /// of contexts, in order.
    fn real_recipe(
        &self,
        id: StepId,
        step: &Step,
        below: Key,
        contents: &[[u8; 32]],
        scratch: &Path,
    ) -> Option<Recipe> {
        let shared = self.shared;
        let stage = &shared.plan.stages[self.place];
        let common = Common {
            request: shared.request,
            clock: &shared.clock,
            ignored: &shared.ignored,
            kept: &shared.decided.kept,
            platform: &stage.platform,
        };
        let next = Cell::new(0);
        let taken = |copy: &CopyOp| {
            if is_of_context(&copy.from) {
                let at = next.replace(next.get() + 1);
                return Some((cached::CONTENT, *contents.get(at)?));
            }
            self.taken(id, copy, scratch)
        };
        cached::recipe(&step.op, &common, below, &taken)
    }

    /// Gives what is known of what a COPY takes of a stage or image, now that it is there.
    fn taken(&self, id: StepId, copy: &CopyOp, scratch: &Path) -> Option<cached::Known> {
        let shared = self.shared;
        match &copy.from {
            From::Context | From::Base(Base::Files(_)) => None,
            From::Base(Base::Scratch) => Some(("files", cached::of_image(&[]).0)),
            From::Base(Base::Stage(place)) => {
                let is_all = |source: &CopySource| match source {
                    CopySource::Path(path) => {
                        RelPath::clean(path.as_bytes()).is_none_or(|path| path.is_root())
                    }
                    CopySource::Remote(_) => false,
                };
                let done = shared.done[*place].wait()?;
                // To read all of a stage is more than it is worth.
                if copy.sources.iter().any(is_all) {
                    let layers = layers_of(shared, *place, &done.records)?;
                    return Some(("files", cached::of_image(&layers).0));
                }
                done.have_content(shared, Owner::Step(id)).ok()?;
                let origin = Origin::Tree(&done.tree);
                let identify = |source: &Source| shared.seen.identify(source);
                let hash = cached::content(copy, &origin, &[], scratch, &identify, shared.cancel);
                Some(("content of a stage", hash?))
            }
            From::Base(base @ (Base::Image(_) | Base::Layout(_))) => {
                let key = base::key(base, &shared.request.platform)?;
                let base = shared.bases.resolved.get(&key)?;
                Some(("files", cached::of_image(&base.image.rootfs.diff_ids).0))
            }
        }
    }

    /// Has the content of all that is below where it can be read.
    pub(super) fn have_content_below(&self, id: StepId) -> Result<(), Error> {
        have_content(self.shared, &self.tree, &self.unapplied, Owner::Step(id))
    }
}

/// Gives the diff IDs of the image that a stage stands on.
fn base_layers(shared: &Shared<'_>, place: usize) -> Vec<Digest> {
    let (root, platform) = root_base(&shared.plan, place);
    let base = base::key(&root, &platform).and_then(|key| shared.bases.resolved.get(&key));
    base.map(|base| base.image.rootfs.diff_ids.clone())
        .unwrap_or_default()
}

/// Gives the diff IDs of all layers that a stage has after these steps. None where one is not made yet
/// and too large to wait for.
fn layers_of(shared: &Shared<'_>, place: usize, records: &[Record]) -> Option<Vec<Digest>> {
    let mut out = base_layers(shared, place);
    let pending = records.iter().filter_map(|record| {
        let layer = record.layer.as_ref()?;
        layer.peek().is_none().then_some(record.bytes)
    });
    if pending.fold(0, u64::saturating_add) > SMALL {
        return None;
    }
    for record in records {
        if let Some(layer) = &record.layer {
            out.push(layer.wait()?.diff_id);
        }
    }
    Some(out)
}

/// Gives the hash of what a step takes of contexts and of what was fetched for it, one for each COPY or
/// mount, in order; none where something of it cannot be read.
fn contents(shared: &Shared<'_>, step: &Step, scratch: &Path) -> Option<Vec<[u8; 32]>> {
    let identify = |source: &Source| shared.seen.identify(source);
    let mut out = Vec::new();
    for copy in cached::takes(&step.op) {
        // As before anything ran, what can be nothing else is not looked at.
        let (copy, fetched) = match cached::without_pinned(&copy) {
            Some(local) => (local, Vec::new()),
            None => (copy, shared.fetched(&step.op)?),
        };
        let named;
        let context = match &copy.from {
            From::Context => &shared.context,
            From::Base(Base::Files(name)) => {
                named = shared.named(name)?;
                &named
            }
            From::Base(_) => continue,
        };
        let origin = Origin::Context(context);
        let cancel = shared.cancel;
        out.push(cached::content(
            &copy, &origin, &fetched, scratch, &identify, cancel,
        )?);
    }
    Some(out)
}

fn is_of_context(from: &From) -> bool {
    matches!(from, From::Context | From::Base(Base::Files(_)))
}
