//! What of a build is found instead of made, and what is wanted of the rest.

use super::held::Held;
use super::keys::{Chain, of_image};
use super::places::{Hit, Hits};
use super::{Question, base};
use crate::cache::Key;
use crate::context::is_looked_up;
use crate::oci::Digest;
use crate::plan::{Base, CopyOp, Op, Plan, RunOp, Step};
use crate::request::Caching;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What stands for a step that is not carried out.
#[derive(Clone)]
pub(in crate::build) enum Found {
    /// It changes nothing, as was seen so many seconds after 1970.
    Nothing(i64),
    /// It makes this layer.
    Layer(Arc<Held>),
}

/// How much of a stage's files is wanted; each includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::build) enum Needs {
    /// Nothing: its layers are known.
    #[default]
    Nothing,
    /// Which files there are.
    Tree,
    /// What is in them.
    Files,
}

/// What becomes of one stage.
#[derive(Clone, Default)]
pub(in crate::build) struct Decision {
    /// By number of the step.
    pub(in crate::build) found: Vec<Option<Found>>,
    /// Whether anybody wants the stage.
    pub(in crate::build) is_wanted: bool,
    pub(in crate::build) needs: Needs,
}

impl Decision {
    /// Gives the steps that are carried out.
    pub(in crate::build) fn missed<'a>(&self, steps: &'a [Step]) -> Vec<&'a Step> {
        if !self.is_wanted {
            return Vec::new();
        }
        let found = self.found.iter().map(Option::is_some);
        let found = found.chain(std::iter::repeat(false));
        let missed = steps.iter().zip(found).filter(|(_, found)| !found);
        missed.map(|(step, _)| step).collect()
    }

    /// Gives the layers that were found.
    pub(in crate::build) fn held(&self) -> impl Iterator<Item = &Arc<Held>> {
        self.found.iter().filter_map(|found| match found {
            Some(Found::Layer(held)) => Some(held),
            Some(Found::Nothing(_)) | None => None,
        })
    }
}

/// Tells whether a step of this kind is looked up and kept.
pub(in crate::build) fn is_cached(op: &Op, wanted: &Caching) -> bool {
    match op {
        Op::Config => false,
        Op::Copy(_) => wanted.copies,
        Op::Run(_) | Op::Workdir { .. } => wanted.runs,
    }
}

/// Gives the keys that there are, of steps that are looked up.
pub(in crate::build) fn keys(steps: &[Vec<Step>], chains: &[Chain], wanted: &Caching) -> Vec<Key> {
    let mut out: Vec<Key> = Vec::new();
    for (steps, chain) in steps.iter().zip(chains) {
        for (step, recipe) in steps.iter().zip(&chain.steps) {
            if let Some(recipe) = recipe
                && is_cached(&step.op, wanted)
            {
                out.push(recipe.key());
            }
        }
    }
    out.sort_unstable();
    out.dedup();
    out
}

/// Chooses, of what was found, what can stand in its stage.
///
/// Behind a command that must run nothing is known any more, since what it makes this time may be
/// something else. What COPY and WORKDIR make is the same each time. And a layer counts only on those
/// that it was made on: two builds may have made the same steps with different results. What is taken
/// from a stage of `anew` is not known before that stage has been carried out.
pub(in crate::build) fn choose(
    question: &Question<'_>,
    chains: &[Chain],
    wanted: &Caching,
    hits: &Hits,
    anew: &BTreeSet<usize>,
) -> Chosen {
    let Question {
        plan, steps, bases, ..
    } = question;
    let mut ends: Vec<Standing> = Vec::new();
    let mut out = Vec::new();
    for (place, stage) in plan.stages.iter().enumerate() {
        let mut at = match &stage.base {
            Base::Stage(parent) => ends.get(*parent).cloned().unwrap_or_default(),
            base => {
                let base = base::key(base, &stage.platform).and_then(|key| bases.get(&key));
                let layers = base.map(|base| base.image.rootfs.diff_ids.clone());
                Standing {
                    ran: false,
                    layers: Some(layers.unwrap_or_default())
                        .filter(|_| !matches!(stage.base, Base::Files(_))),
                }
            }
        };
        let mut found = Vec::new();
        for (step, recipe) in steps[place].iter().zip(&chains[place].steps) {
            let hit = recipe
                .as_ref()
                .filter(|_| !at.ran && is_cached(&step.op, wanted) && !takes_from(&step.op, anew))
                .and_then(|recipe| hits.get(&recipe.key()))
                .filter(|hit| at.bears(hit));
            found.push(hit.map(found_of));
            match hit {
                Some(hit) => at.put(hit),
                None if matches!(step.op, Op::Run(_)) || takes_from(&step.op, anew) => {
                    at.ran = true;
                }
                None if matches!(step.op, Op::Config) => {}
                None => at.layers = None,
            }
        }
        ends.push(at);
        out.push(found);
    }
    Chosen {
        found: out,
        ran: ends.iter().map(|end| end.ran).collect(),
    }
}

/// What was chosen, by place of the stage.
pub(in crate::build) struct Chosen {
    pub(in crate::build) found: Vec<Vec<Option<Found>>>,
    /// Whether what the stage makes is not known before it has been carried out.
    pub(in crate::build) ran: Vec<bool>,
}

fn takes_from(op: &Op, stages: &BTreeSet<usize>) -> bool {
    op.bases()
        .any(|base| matches!(base, Base::Stage(place) if stages.contains(place)))
}

/// Gives what a hit stands for.
pub(in crate::build) fn found_of(hit: &Hit) -> Found {
    match Held::new(hit) {
        Some(held) => Found::Layer(held),
        None => Found::Nothing(hit.entry.created),
    }
}

/// What the next step of a stage stands on.
#[derive(Clone, Default)]
struct Standing {
    /// Whether a command below it must run.
    ran: bool,
    /// The diff IDs of all layers, where they are known.
    layers: Option<Vec<Digest>>,
}

impl Standing {
    /// Tells whether what was found was made on just this.
    fn bears(&self, hit: &Hit) -> bool {
        match (&self.layers, hit.entry.below) {
            (Some(layers), Some(below)) => of_image(layers) == below,
            // Looked up again when its turn comes, and by then it is known.
            (None, Some(_)) => false,
            (_, None) => true,
        }
    }

    fn put(&mut self, hit: &Hit) {
        if let (Some(layers), Some(layer)) = (&mut self.layers, &hit.entry.layer) {
            layers.push(layer.diff_id);
        }
    }
}

/// Finds out what of each stage is wanted, given what was found and what outputs want of the target.
pub(in crate::build) fn decide(
    plan: &Plan,
    steps: &[Vec<Step>],
    found: Vec<Vec<Option<Found>>>,
    of_target: Needs,
) -> Vec<Decision> {
    let mut out: Vec<Decision> = found
        .into_iter()
        .map(|found| Decision {
            found,
            ..Decision::default()
        })
        .collect();
    let Some(target) = out.get_mut(plan.target) else {
        return out;
    };
    target.is_wanted = true;
    target.needs = of_target;
    // A stage names only those before it.
    for place in (0..out.len()).rev() {
        let Decision {
            is_wanted, needs, ..
        } = out[place];
        if !is_wanted {
            continue;
        }
        let missed = out[place].missed(&steps[place]);
        let own = missed.iter().map(|step| needs_of(&step.op)).max();
        let needs = needs.max(own.unwrap_or_default());
        out[place].needs = needs;
        if let Base::Stage(parent) = plan.stages[place].base {
            out[parent].is_wanted = true;
            out[parent].needs = out[parent].needs.max(needs);
        }
        for base in missed.iter().flat_map(|step| step.op.bases()) {
            if let Base::Stage(source) = base {
                out[*source].is_wanted = true;
                out[*source].needs = Needs::Files;
            }
        }
    }
    out
}

/// Gives what a step that is carried out wants of the files below it.
fn needs_of(op: &Op) -> Needs {
    match op {
        Op::Config => Needs::Nothing,
        Op::Run(RunOp { .. }) => Needs::Files,
        Op::Copy(copy) if copy.is_linked() => Needs::Nothing,
        // Names are looked up in files.
        Op::Copy(CopyOp {
            chown: Some(owner), ..
        })
        | Op::Workdir { user: owner, .. }
            if is_looked_up(owner) =>
        {
            Needs::Files
        }
        Op::Copy(_) | Op::Workdir { .. } => Needs::Tree,
    }
}
