//! One attempt at a build: all of it that comes after what can be known before anything runs.

use super::base::{Fetches, Resolved};
use super::cached::{self, Caching, Question, Seen, Writer};
use super::resolve::Bases;
use super::wait::{Failure, Slot, lock};
use super::{
    Built, Clock, Error, Gates, Room, Shared, blobs, carry_out, deliver, ignored, in_image, kept,
    layers, mounts, one_root, remote, space, wanted,
};
use crate::context::Context;
use crate::oci::{Format, Image, Reference};
use crate::plan::{Plan, Step};
use crate::progress::{Level, Sink};
use crate::request::Request;
use crate::sandbox::Sandbox;
use crate::sys::Cancel;
use std::sync::{Arc, Mutex};

/// A build of which all is known that can be before anything of it runs.
pub(super) struct Prepared {
    pub(super) plan: Plan,
    pub(super) steps: Vec<Vec<Step>>,
    pub(super) bases: Bases,
    /// The image that the target stands on.
    pub(super) base: Option<Arc<Resolved>>,
    pub(super) context: Arc<Context>,
    /// The config of the image.
    pub(super) last: Image,
    pub(super) repositories: Vec<Reference>,
    pub(super) format: Format,
    pub(super) clock: Clock,
}

/// What all attempts at a build have in common.
pub(super) struct Means<'a> {
    pub(super) request: &'a Request,
    pub(super) sandbox: &'a Sandbox,
    pub(super) sink: &'a Sink,
    pub(super) caching: Option<&'a Caching>,
    pub(super) writer: Option<&'a Writer>,
    pub(super) seen: &'a Seen,
}

impl Means<'_> {
    /// Tells whether the last attempt built on something of the cache that is of no use.
    pub(super) fn was_broken(&self) -> bool {
        self.caching.is_some_and(Caching::was_broken)
    }
}

/// Carries a build out, once.
pub(super) fn attempt(
    prepared: &Prepared,
    means: &Means<'_>,
    room: Room,
    cancel: &Cancel,
) -> Result<Built, Error> {
    let Means {
        request,
        sandbox,
        sink,
        caching,
        writer,
        seen,
    } = *means;
    let Prepared {
        plan, steps, bases, ..
    } = prepared;
    let Room {
        registry,
        scratch,
        store,
    } = room;
    let ignored = ignored(request);
    let decided = match caching {
        Some(caching) => {
            let question = Question {
                request,
                plan,
                steps,
                bases,
                context: &prepared.context,
                clock: &prepared.clock,
                ignored: &ignored,
                store: &store,
                scratch: &scratch.dir,
                seen,
                cancel,
            };
            cached::ask(caching, &question)
        }
        None => cached::without(plan, steps, request),
    };
    let shared = Shared {
        format: prepared.format,
        clock: prepared.clock.clone(),
        gates: Gates::new(rayon::current_num_threads()),
        in_image: in_image(plan, deliver::wants_image(request)),
        bases: blobs::Known {
            files: bases.keys().map(|key| (key.clone(), Slot::new())).collect(),
            blobs: match (&prepared.base, deliver::wants_blobs(request)) {
                (Some(base), true) => base.layers.iter().map(|_| Slot::new()).collect(),
                _ => Vec::new(),
            },
            resolved: bases.clone(),
            fetches: Fetches::default(),
        },
        done: plan.stages.iter().map(|_| Slot::new()).collect(),
        failure: Failure::new(cancel),
        remotes: remote::Remotes::new(plan, steps, &decided.stages),
        decided,
        caching,
        writer,
        seen,
        frozen: Mutex::default(),
        request,
        sandbox,
        sink,
        cancel,
        store,
        registry,
        context: Arc::clone(&prepared.context),
        mounts: mounts::Common::default(),
        one_root: one_root::OneRoot::default(),
        scratch,
        plan: plan.clone(),
        steps: steps.clone(),
        ignored,
        repositories: prepared.repositories.clone(),
    };
    space::check(&shared, &wanted(&shared))?;
    if one_root::is_one(&shared) {
        // Then they are the base's, or gone with the programs that give credentials.
        shared.registry.read_ahead(&shared.repositories)?;
    }
    let result = carry_out(&shared, prepared.base.as_deref(), prepared.last.clone());
    let result = result.map_err(|error| kept::explained(&shared, error));
    let ended = one_root::end(&shared);
    let frozen = std::mem::take(&mut *lock(&shared.frozen));
    let (store, scratch) = (Arc::clone(&shared.store), shared.let_go());
    // No root is there any more.
    layers::adopt(&store, frozen);
    drop(scratch);
    match (result, ended) {
        (Ok(built), cleaned) => cleaned.map(|()| built),
        (Err(error), cleaned) => {
            if let Err(second) = cleaned {
                sink.message(Level::Warn, second.to_string());
            }
            Err(error)
        }
    }
}
