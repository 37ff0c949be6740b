//! What a build would find in the cache, without a build.
//!
//! Which root commands would run on is not tried. A build in place has other keys where mounts of the
//! container hide what the image has: it is explained with the choice said.

use super::cached::{self, Explained, Question, Seen};
use super::resolve::{check_platforms, resolve_and_plan};
use super::{Error, Room, ignored, prepare, remote};
use crate::plan::{self, Step};
use crate::progress::Sink;
use crate::request::Request;
use crate::sys::Cancel;

/// Says what would become of each step of a build: plans it, asks for its bases and looks all keys up, as
/// the build would. Nothing is run, pushed or unpacked.
pub fn explain(request: &Request, sink: &Sink, cancel: &Cancel) -> Result<Explained, Error> {
    let room = Room::open(request, sink, cancel)?;
    let remote::Begun { text, context } = remote::begin(request, || Ok(&room), sink, cancel)?;
    let dockerfile = crate::dockerfile::parse(&text)?;
    let plan = plan::graph(&dockerfile, request)?;
    let context = remote::open_context(request, context)?;
    let (plan, bases, staged) =
        resolve_and_plan(&dockerfile, plan, request, &room, &[], sink, cancel)?;
    check_platforms(&plan, &staged, &bases)?;
    let last = staged[plan.target].image.clone();
    let steps: Vec<Vec<Step>> = staged.into_iter().map(|staged| staged.steps).collect();
    let prepared = prepare(request, plan, steps, bases, context, last, Vec::new());
    let caching = cached::caching(request, &room.store, sink, cancel)?
        .ok_or_else(|| Error::other("look steps up", "nothing is looked up with these flags"))?;
    let seen = Seen::open(&room.store, &prepared.context);
    let ignored = ignored(request);
    let question = Question {
        request,
        plan: &prepared.plan,
        steps: &prepared.steps,
        bases: &prepared.bases,
        context: &prepared.context,
        clock: &prepared.clock,
        ignored: &ignored,
        store: &room.store,
        scratch: &room.scratch.dir,
        seen: &seen,
        cancel,
    };
    let explained = cached::explain(&caching, &question);
    match cancel.is_set() {
        true => Err(Error::Cancelled),
        false => Ok(explained),
    }
}
