//! The keys of every step of every stage, before anything runs.

use super::super::base;
use super::super::resolve::Bases;
use super::recipe::{CONTENT, Common, Known, is_pinned, recipe, without_changes};
use crate::cache::{Key, Recipe};
use crate::changeset::{Changeset, Identify};
use crate::context::{Context, Dates, Fetched, Origin, copy};
use crate::fs::Tree;
use crate::oci::Digest;
use crate::plan::{Base, CopyOp, CopySource, From, Plan, Step};
use crate::sys::Cancel;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The keys of one stage's steps.
#[derive(Default)]
pub(in crate::build) struct Chain {
    /// By number of the step. None for one that changes no file, and from the first one on of which
    /// something is not known yet.
    pub(in crate::build) steps: Vec<Option<Recipe>>,
    /// What names the stage's files after its last step.
    pub(in crate::build) end: Option<Key>,
}

/// What keys are made of besides the plan.
pub(in crate::build) struct Ground<'a> {
    pub(in crate::build) plan: &'a Plan,
    pub(in crate::build) steps: &'a [Vec<Step>],
    pub(in crate::build) bases: &'a Bases,
    pub(in crate::build) context: &'a Context,
    /// The named contexts that are directories of this machine.
    pub(in crate::build) named: &'a BTreeMap<String, Arc<Context>>,
    pub(in crate::build) identify: Identify<'a>,
    pub(in crate::build) scratch: &'a Path,
    pub(in crate::build) cancel: &'a Cancel,
}

/// Gives what names the files of an image.
pub(in crate::build) fn of_image(layers: &[Digest]) -> Key {
    let mut recipe = Recipe::of("files");
    if let Some(chain_id) = crate::oci::Image::chain_ids(layers).last() {
        recipe.add("chain ID", chain_id.0);
    }
    recipe.key()
}

/// Gives what names the files after a step, of what names them before it and the step's key. That one
/// is not enough: a linked COPY does not say what it is put on.
fn after(before: Key, step: Key) -> Key {
    let mut recipe = Recipe::of("after");
    recipe.add_hash("before", before.0);
    recipe.add_hash("step", step.0);
    recipe.key()
}

/// Makes the keys of all steps.
pub(in crate::build) fn chains(ground: &Ground<'_>, common: &Common<'_>) -> Vec<Chain> {
    let mut out: Vec<Chain> = Vec::new();
    for (place, stage) in ground.plan.stages.iter().enumerate() {
        let common = Common {
            platform: &stage.platform,
            ..*common
        };
        let start = match &stage.base {
            Base::Scratch => Some(of_image(&[])),
            Base::Stage(parent) => out.get(*parent).and_then(|chain| chain.end),
            Base::Image(_) | Base::Layout(_) => base::key(&stage.base, &stage.platform)
                .and_then(|key| ground.bases.get(&key))
                .map(|base| of_image(&base.image.rootfs.diff_ids)),
            Base::Files(name) => ground
                .named
                .get(name)
                .and_then(|context| {
                    let all = CopyOp {
                        link: true,
                        ..CopyOp::everything(From::Context)
                    };
                    ground.content(&all, &Origin::Context(context), &[])
                })
                .map(|hash| {
                    let mut recipe = Recipe::of("context");
                    recipe.add_hash("content", hash);
                    recipe.key()
                }),
        };
        let mut chain = Chain {
            steps: Vec::new(),
            end: start,
        };
        for step in &ground.steps[place] {
            let made = chain.end.and_then(|before| {
                let taken = |copy: &CopyOp| ground.taken(copy, &out, &common);
                Some((before, recipe(&step.op, &common, before, &taken)?))
            });
            if !matches!(step.op, crate::plan::Op::Config) {
                let end = made.as_ref();
                chain.end = end.map(|(before, recipe)| after(*before, recipe.key()));
            }
            chain.steps.push(made.map(|(_, recipe)| recipe));
        }
        out.push(chain);
    }
    out
}

impl Ground<'_> {
    /// Gives what is known of what a COPY takes before anything has run.
    fn taken(&self, copy: &CopyOp, chains: &[Chain], common: &Common<'_>) -> Option<Known> {
        let local = without_pinned(copy)?;
        match &copy.from {
            From::Context => {
                let origin = Origin::Context(self.context);
                Some((CONTENT, self.content(&local, &origin, &[])?))
            }
            From::Base(Base::Files(name)) => {
                let origin = Origin::Context(self.named.get(name)?);
                Some((CONTENT, self.content(&local, &origin, &[])?))
            }
            From::Base(Base::Scratch) => Some(("files", of_image(&[]).0)),
            From::Base(Base::Stage(place)) => Some(("files", chains.get(*place)?.end?.0)),
            From::Base(base @ (Base::Image(_) | Base::Layout(_))) => {
                let key = base::key(base, &common.request.platform)?;
                let base = self.bases.get(&key)?;
                Some(("files", of_image(&base.image.rootfs.diff_ids).0))
            }
        }
    }

    /// Gives the hash of what a COPY takes; none where that fails, as the step itself will.
    pub(in crate::build) fn content(
        &self,
        op: &CopyOp,
        origin: &Origin<'_>,
        fetched: &[Fetched],
    ) -> Option<[u8; 32]> {
        content(
            op,
            origin,
            fetched,
            self.scratch,
            self.identify,
            self.cancel,
        )
    }
}

/// Gives a COPY without what is fetched for it, where that can be nothing else than the last time.
pub(in crate::build) fn without_pinned(copy: &CopyOp) -> Option<CopyOp> {
    let mut sources = Vec::new();
    for source in &copy.sources {
        match source {
            CopySource::Path(_) => sources.push(source.clone()),
            CopySource::Remote(remote) if is_pinned(remote) => {}
            CopySource::Remote(_) => return None,
        }
    }
    Some(CopyOp {
        sources,
        ..copy.clone()
    })
}

/// Gives the hash of what a COPY takes, its own changes aside; none where that fails.
pub(in crate::build) fn content(
    op: &CopyOp,
    origin: &Origin<'_>,
    fetched: &[Fetched],
    scratch: &Path,
    identify: Identify<'_>,
    cancel: &Cancel,
) -> Option<[u8; 32]> {
    let taken = content_changes(op, origin, fetched, scratch, cancel)?;
    taken.files_hash(identify).ok()
}

/// Gives what a COPY takes, its own changes aside; none where that fails.
pub(in crate::build) fn content_changes(
    op: &CopyOp,
    origin: &Origin<'_>,
    fetched: &[Fetched],
    scratch: &Path,
    cancel: &Cancel,
) -> Option<Changeset> {
    let op = without_changes(op, op.from.clone());
    let dates = Dates::made(crate::fs::Time::default());
    let nothing = Tree::default();
    copy(&op, origin, fetched, &nothing, scratch, dates, cancel).ok()
}
