//! What is known of a build while it runs: events in, notes out.

use super::text::{self, Colours};
use crate::cli::report::Place;
use crate::dockerfile::check::Finding;
use crate::oci::Digest;
use crate::progress::{Event, Level, Owner, StepId, Stream, Work};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// So many of a command's last lines are kept for the live view.
const TAIL: usize = 6;
/// A line is ended after so many bytes, whatever the command does.
const LINE: usize = 16 << 10;

/// Something worth telling, made of one or several events.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) enum Note {
    /// So many steps of so many stages are ahead.
    Planned {
        /// Stages.
        stages: usize,
        /// Steps of all stages.
        steps: usize,
    },
    /// A step starts.
    Started(StepId),
    /// A step was found in the cache.
    Cached(StepId),
    /// A step ended after so long.
    Ended(StepId, Outcome, Duration),
    /// A layer is made.
    Layer(Layer),
    /// A command printed a line, without its end, as it came.
    Line(StepId, Stream, Vec<u8>),
    /// Work ended.
    Worked(Finished),
    /// Work was not needed.
    Reused(Owner, Work, String, u64),
    /// A check found something, there.
    Finding(Finding, Place),
    /// A line for the log.
    Message(Level, String),
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Outcome {
    /// Well.
    Done,
    /// Not well.
    Failed,
}

/// A layer that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Layer {
    /// Whose.
    pub step: StepId,
    /// Digest of the blob.
    pub digest: Digest,
    /// Bytes of the tar.
    pub raw: u64,
    /// Bytes of the blob.
    pub size: u64,
    /// Number of entries.
    pub entries: u64,
}

/// A span that ended.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct Finished {
    /// Whose.
    pub owner: Owner,
    /// What.
    pub work: Work,
    /// What with.
    pub label: String,
    /// Bytes moved.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// A span under way.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Active {
    /// Whose.
    pub owner: Owner,
    /// What.
    pub work: Work,
    /// What with.
    pub label: String,
    /// Bytes to be done, where known.
    pub total: Option<u64>,
    /// Bytes done.
    pub done: u64,
    /// When it began.
    pub at: Instant,
}

/// A step that runs.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Running {
    /// When it began.
    pub at: Instant,
    /// Its last lines, clean.
    pub tail: VecDeque<String>,
    partial: [Vec<u8>; 2],
}

/// A stage as planned.
#[derive(Clone, Debug)]
struct Stage {
    name: String,
    steps: Vec<String>,
}

/// What moved, by kind of work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Moved {
    /// How many spans or reuses.
    pub count: u64,
    /// Bytes.
    pub bytes: u64,
}

/// All that is known.
pub(in crate::cli) struct Board {
    /// When the build began.
    pub begun: Instant,
    /// What files are shown relative to.
    pub cwd: PathBuf,
    stages: BTreeMap<usize, Stage>,
    /// The steps that run.
    pub running: BTreeMap<StepId, Running>,
    /// The spans under way, by id and so by age.
    pub active: BTreeMap<u64, Active>,
    /// The layers made, in the order they were done.
    pub layers: Vec<Layer>,
    /// How many steps ended.
    pub ended: usize,
    /// Work done by its name.
    pub done: BTreeMap<&'static str, Moved>,
    /// Work not needed by its name.
    pub reused: BTreeMap<&'static str, Moved>,
}

impl Board {
    /// Makes a board that knows nothing yet.
    pub fn new(begun: Instant) -> Board {
        Board {
            begun,
            cwd: PathBuf::new(),
            stages: BTreeMap::new(),
            running: BTreeMap::new(),
            active: BTreeMap::new(),
            layers: Vec::new(),
            ended: 0,
            done: BTreeMap::new(),
            reused: BTreeMap::new(),
        }
    }

    /// Counts the steps of all stages.
    pub fn steps(&self) -> usize {
        self.stages.values().map(|stage| stage.steps.len()).sum()
    }

    /// Gives a stage's name as it is shown: nothing where there is one stage without a name.
    pub fn stage(&self, index: usize) -> String {
        match self.stages.get(&index) {
            Some(stage) if stage.name != index.to_string() => {
                text::line(stage.name.as_bytes(), Colours::Drop)
            }
            Some(_) if self.stages.len() == 1 => String::new(),
            _ => format!("stage-{index}"),
        }
    }

    /// Gives a step's name as it is shown, `build 2/5`.
    pub fn step(&self, id: StepId) -> String {
        let of = match self.stages.get(&id.stage) {
            Some(stage) => format!("/{}", stage.steps.len()),
            None => String::new(),
        };
        let stage = self.stage(id.stage);
        let space = if stage.is_empty() { "" } else { " " };
        format!("{stage}{space}{}{of}", id.step + 1)
    }

    /// Gives an owner's name as it is shown.
    pub fn owner(&self, owner: Owner) -> String {
        match owner {
            Owner::Build => String::new(),
            Owner::Base(stage) => match self.stage(stage) {
                name if name.is_empty() => "base".into(),
                name => format!("{name} base"),
            },
            Owner::Step(id) => self.step(id),
        }
    }

    /// Gives a step's text, clean and in one line.
    pub fn text(&self, id: StepId) -> String {
        let text = self
            .stages
            .get(&id.stage)
            .and_then(|stage| stage.steps.get(id.step));
        let text = text.map_or("", String::as_str).replace(['\n', '\r'], " ");
        text::line(text.as_bytes(), Colours::Drop)
    }

    /// Takes an event in; gives what is worth telling of it.
    pub fn take(&mut self, event: Event, now: Instant) -> Vec<Note> {
        match event {
            Event::Planned(stages) => {
                self.stages = stages
                    .into_iter()
                    .map(|(index, name, steps)| (index, Stage { name, steps }))
                    .collect();
                vec![Note::Planned {
                    stages: self.stages.len(),
                    steps: self.steps(),
                }]
            }
            Event::StepStarted(id) => {
                self.running.insert(id, Running::new(now));
                vec![Note::Started(id)]
            }
            Event::StepCached(id) => {
                self.ended += 1;
                vec![Note::Cached(id)]
            }
            Event::StepDone(id) => self.end(id, Outcome::Done, now),
            Event::StepFailed(id) => self.end(id, Outcome::Failed, now),
            Event::LayerDone {
                step,
                digest,
                raw,
                size,
                entries,
            } => {
                let layer = Layer {
                    step,
                    digest,
                    raw,
                    size,
                    entries,
                };
                self.layers.push(layer.clone());
                vec![Note::Layer(layer)]
            }
            Event::Output(id, stream, bytes) => self.output(id, stream, &bytes, now),
            Event::SpanStarted {
                id,
                owner,
                work,
                label,
                total,
                at,
            } => {
                let active = Active {
                    owner,
                    work,
                    label: text::line(label.as_bytes(), Colours::Drop),
                    total,
                    done: 0,
                    at,
                };
                self.active.insert(id, active);
                Vec::new()
            }
            Event::SpanProgress { id, bytes } => {
                if let Some(active) = self.active.get_mut(&id) {
                    active.done = active.done.saturating_add(bytes);
                }
                Vec::new()
            }
            Event::SpanFailed { id, at: _ } => {
                self.active.remove(&id);
                Vec::new()
            }
            Event::SpanDone { id, at } => {
                let Some(active) = self.active.remove(&id) else {
                    return Vec::new();
                };
                let moved = self.done.entry(active.work.name()).or_default();
                moved.count += 1;
                moved.bytes = moved.bytes.saturating_add(active.done);
                vec![Note::Worked(Finished {
                    owner: active.owner,
                    work: active.work,
                    label: active.label,
                    bytes: active.done,
                    took: at.saturating_duration_since(active.at),
                })]
            }
            Event::Reused {
                owner,
                work,
                label,
                bytes,
            } => {
                let moved = self.reused.entry(work.name()).or_default();
                moved.count += 1;
                moved.bytes = moved.bytes.saturating_add(bytes);
                let label = text::line(label.as_bytes(), Colours::Drop);
                vec![Note::Reused(owner, work, label, bytes)]
            }
            Event::Finding {
                finding,
                file,
                lines,
            } => {
                let place = Place::new(&file, &self.cwd, finding.span, &lines);
                vec![Note::Finding(finding, place)]
            }
            // Excerpts are cut once the build has ended.
            Event::Dockerfile(_) => Vec::new(),
            Event::Message(level, text) => vec![Note::Message(level, text)],
        }
    }

    fn end(&mut self, id: StepId, outcome: Outcome, now: Instant) -> Vec<Note> {
        self.ended += 1;
        let Some(running) = self.running.remove(&id) else {
            return vec![Note::Ended(id, outcome, Duration::ZERO)];
        };
        let [out, err] = running.partial;
        let mut notes: Vec<Note> = [(Stream::Out, out), (Stream::Err, err)]
            .into_iter()
            .filter(|(_, rest)| !rest.is_empty())
            .map(|(stream, rest)| Note::Line(id, stream, rest))
            .collect();
        let took = now.saturating_duration_since(running.at);
        notes.push(Note::Ended(id, outcome, took));
        notes
    }

    fn output(&mut self, id: StepId, stream: Stream, bytes: &[u8], now: Instant) -> Vec<Note> {
        let running = self.running.entry(id).or_insert_with(|| Running::new(now));
        let [out, err] = &mut running.partial;
        let partial = match stream {
            Stream::Out => out,
            Stream::Err => err,
        };
        let mut notes = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for piece in piece.chunks(LINE) {
                partial.extend_from_slice(piece);
                let ends = piece.ends_with(b"\n");
                if !ends && partial.len() < LINE {
                    continue;
                }
                let mut line = std::mem::take(partial);
                if ends {
                    line.pop();
                }
                notes.push(Note::Line(id, stream, line));
            }
        }
        // Those before the last few would be gone again before anybody saw them.
        let skip = notes.len().saturating_sub(TAIL);
        for note in notes.iter().skip(skip) {
            if let Note::Line(_, _, line) = note {
                if running.tail.len() == TAIL {
                    running.tail.pop_front();
                }
                let clean = text::line(line, Colours::Drop);
                running.tail.push_back(clean.replace('\t', "    "));
            }
        }
        notes
    }
}

impl Running {
    fn new(at: Instant) -> Running {
        Running {
            at,
            tail: VecDeque::new(),
            partial: [Vec::new(), Vec::new()],
        }
    }
}
