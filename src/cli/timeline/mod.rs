//! What a build spent its time on: collects spans, and makes one page of them.

mod page;

use super::show::board::Board;
use crate::progress::{Event, Owner, StepId, Work};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A page stays readable, and the memory bounded, with so many spans; later ones are counted only.
const MOST: usize = 20_000;

/// Every kind of work, in the order of the page.
const WORKS: [Work; 10] = [
    Work::Resolve,
    Work::Fetch,
    Work::Unpack,
    Work::Root,
    Work::Run,
    Work::Copy,
    Work::Diff,
    Work::Compress,
    Work::Push,
    Work::Export,
];

/// How a build ended.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// With an image.
    Built {
        /// Its digest.
        digest: String,
        /// Where it was pushed.
        pushed: Vec<String>,
    },
    /// With this error.
    Failed(String),
}

/// The spans of a build so far. Times are since its beginning.
pub(super) struct Timeline {
    begun: Instant,
    spans: BTreeMap<u64, Span>,
    steps: BTreeMap<StepId, Step>,
    left_out: usize,
}

#[derive(Clone, Debug)]
struct Span {
    owner: Owner,
    work: Work,
    label: String,
    total: Option<u64>,
    bytes: u64,
    from: Duration,
    to: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    from: Duration,
    to: Option<Duration>,
    failed: Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failed {
    No,
    Yes,
}

impl Timeline {
    /// Makes a timeline of nothing.
    pub fn new(begun: Instant) -> Timeline {
        Timeline {
            begun,
            spans: BTreeMap::new(),
            steps: BTreeMap::new(),
            left_out: 0,
        }
    }

    /// Takes an event in.
    pub fn take(&mut self, event: &Event, now: Instant) {
        let since = |at: Instant| at.saturating_duration_since(self.begun);
        match event {
            Event::StepStarted(id) => {
                let step = Step {
                    from: since(now),
                    to: None,
                    failed: Failed::No,
                };
                self.steps.insert(*id, step);
            }
            Event::StepCached(id) => {
                let step = Step {
                    from: since(now),
                    to: Some(since(now)),
                    failed: Failed::No,
                };
                self.steps.insert(*id, step);
            }
            Event::StepDone(id) | Event::StepFailed(id) => {
                let to = since(now);
                if let Some(step) = self.steps.get_mut(id) {
                    step.to = Some(to);
                    if matches!(event, Event::StepFailed(_)) {
                        step.failed = Failed::Yes;
                    }
                }
            }
            Event::SpanStarted { .. } if self.spans.len() >= MOST => self.left_out += 1,
            Event::SpanStarted {
                id,
                owner,
                work,
                label,
                total,
                at,
            } => {
                let span = Span {
                    owner: *owner,
                    work: *work,
                    label: label.clone(),
                    total: *total,
                    bytes: 0,
                    from: since(*at),
                    to: None,
                };
                self.spans.insert(*id, span);
            }
            Event::SpanProgress { id, bytes } => {
                if let Some(span) = self.spans.get_mut(id) {
                    span.bytes = span.bytes.saturating_add(*bytes);
                }
            }
            Event::SpanDone { id, at } | Event::SpanFailed { id, at } => {
                let to = since(*at);
                if let Some(span) = self.spans.get_mut(id) {
                    span.to = Some(to.max(span.from));
                }
            }
            Event::Planned(_)
            | Event::LayerDone { .. }
            | Event::Output(..)
            | Event::Reused { .. }
            | Event::Finding { .. }
            | Event::Dockerfile(_)
            | Event::Message(..) => {}
        }
    }

    /// Makes the page: whole in itself, no script or style from elsewhere. `cpu` is the processor
    /// time of the builder itself.
    pub fn page(&self, board: &Board, verdict: &Verdict, end: Instant, cpu: Duration) -> String {
        let wall = end.saturating_duration_since(self.begun);
        page::page(
            self,
            board,
            verdict,
            wall.max(Duration::from_millis(1)),
            cpu,
        )
    }
}

#[cfg(test)]
mod tests;
