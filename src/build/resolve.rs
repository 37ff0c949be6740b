//! From a plan to its bases: asking for all of them at once, and for those that their triggers name;
//! then the steps of every stage.

use super::base::{self, Key, Resolved};
use super::layers::Instruction;
use super::wait::Failure;
use super::{Error, Room};
use crate::dockerfile::ast::Dockerfile;
use crate::oci::{Platform, Reference};
use crate::plan::{self, Base, Op, Plan, Scope, Staged};
use crate::progress::Sink;
use crate::request::Request;
use crate::sandbox::Machine;
use crate::sys::Cancel;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is known of each base.
pub(super) type Bases = BTreeMap<Key, Arc<Resolved>>;

/// Bases to be resolved, with the instruction that names each.
type Wanted<'a> = BTreeMap<Key, (&'a Base, &'a Platform, Instruction<'a>)>;

/// Resolves the bases and plans every step of every stage; checks meanwhile that the destinations
/// may be pushed to. Gives the plan again: a base's triggers may add stages to it.
pub(super) fn resolve_and_plan(
    dockerfile: &Dockerfile,
    mut plan: Plan,
    request: &Request,
    room: &Room,
    repositories: &[Reference],
    sink: &Sink,
    cancel: &Cancel,
) -> Result<(Plan, Bases, Vec<Staged>), Error> {
    let failure = Failure::new(cancel);
    let mut bases = std::thread::scope(|scope| {
        if request.check_push {
            for destination in repositories {
                let failure = &failure;
                scope.spawn(move || {
                    failure.check(
                        room.registry
                            .check_push(destination)
                            .map_err(Error::Registry),
                    )
                });
            }
        }
        let wanted = wanted(&plan, request, &Bases::new());
        resolve_all(wanted, dockerfile, request, room, sink, &failure)
    });
    loop {
        if let Some(error) = failure.take() {
            return Err(error);
        }
        if bases
            .values()
            .all(|base| base.image.config.on_build.is_empty())
        {
            break;
        }
        let triggers = |base: &Base, platform: &Platform| {
            let base = base::key(base, platform).and_then(|key| bases.get(&key));
            base.map(|base| base.image.config.on_build.clone())
                .unwrap_or_default()
        };
        plan = plan::graph_with(dockerfile, request, &triggers)?;
        let wanted = wanted(&plan, request, &bases);
        if wanted.is_empty() {
            break;
        }
        let more = resolve_all(wanted, dockerfile, request, room, sink, &failure);
        bases.extend(more);
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
        let next = plan::steps(&plan, place, image, scope, request)?;
        staged.push(next);
    }
    Ok((plan, bases, staged))
}

/// Finds out before anything runs whether every command can run here.
pub(super) fn check_platforms(plan: &Plan, staged: &[Staged], bases: &Bases) -> Result<(), Error> {
    let host = Platform::host();
    let mut machine = None;
    for (place, staged) in staged.iter().enumerate() {
        let mut steps = staged.steps.iter();
        let Some(run) = steps.find(|step| matches!(step.op, Op::Run(_))) else {
            continue;
        };
        let (base, wanted) = root_base(plan, place);
        // An image may be for another platform than the one it was asked for.
        let resolved = base::key(&base, &wanted).and_then(|key| bases.get(&key));
        let platform = match resolved.map(|base| base.image.platform()) {
            Some(own) if !own.os.is_empty() && !own.architecture.is_empty() => own,
            _ => wanted,
        };
        if platform.os == host.os && platform.architecture == host.architecture {
            continue;
        }
        if !machine.get_or_insert_with(Machine::probe).runs(&platform) {
            return Err(Error::Plan(plan::Error {
                span: Some(run.span),
                message: format!(
                    "this command is for {platform}, and this machine ({host}) has no emulator for it"
                ),
                hint: Some(
                    "install qemu-user-static with binfmt_misc, or build this stage natively: FROM \
                     --platform=$BUILDPLATFORM"
                        .into(),
                ),
            }));
        }
    }
    Ok(())
}

/// Gives the bases that a plan wants and that are not resolved yet.
fn wanted<'a>(plan: &'a Plan, request: &'a Request, known: &Bases) -> Wanted<'a> {
    let mut out = Wanted::new();
    let mut add = |base: &'a Base, platform: &'a Platform, of: Instruction<'a>| {
        if let Some(key) = base::key(base, platform)
            && !known.contains_key(&key)
        {
            out.entry(key).or_insert((base, platform, of));
        }
    };
    for stage in &plan.stages {
        add(&stage.base, &stage.platform, (stage.span, &stage.text));
        for named in &stage.names {
            add(&named.base, &request.platform, (named.span, &named.text));
        }
    }
    out
}

/// Resolves bases at the same time as each other.
fn resolve_all(
    wanted: Wanted<'_>,
    dockerfile: &Dockerfile,
    request: &Request,
    room: &Room,
    sink: &Sink,
    failure: &Failure,
) -> Bases {
    std::thread::scope(|scope| {
        let threads: Vec<_> = wanted
            .into_iter()
            .map(|(key, (base, platform, (span, text)))| {
                let thread = scope.spawn(move || {
                    let resolved = base::resolve(base, platform, request, room, sink);
                    failure.check(resolved.map_err(|error| Error::Step {
                        span,
                        text: text.to_owned(),
                        source: error.into(),
                        hint: plan::meant(base, span, dockerfile),
                    }))
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

/// Gives the image or scratch that a stage stands on through all stages between.
pub(super) fn root_base(plan: &Plan, place: usize) -> (Base, Platform) {
    let stage = &plan.stages[place];
    match &stage.base {
        Base::Stage(parent) => root_base(plan, *parent),
        other => (other.clone(), stage.platform.clone()),
    }
}
