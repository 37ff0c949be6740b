//! Notes as log lines, in text or as objects.

use super::board::{Board, Finished, Note, Outcome};
use super::text::{self, Colours};
use crate::build::Built;
use crate::cli::meaning::{Stamp, Verbosity};
use crate::progress::{Level, Owner, Stream, Work};
use serde_json::{Map, Value};
use std::time::{Duration, Instant};

/// What a line is about, for its first word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Tone {
    /// For those who look for a fault.
    Debug,
    /// For everybody.
    Info,
    /// Something is off.
    Warn,
    /// Something failed.
    Error,
}

impl Tone {
    /// Tells whether a line is wanted.
    pub fn passes(self, verbosity: Verbosity) -> bool {
        let needs = match self {
            Tone::Debug => Verbosity::Debug,
            Tone::Info => Verbosity::Info,
            Tone::Warn => Verbosity::Warn,
            Tone::Error => Verbosity::Error,
        };
        verbosity >= needs
    }

    fn json(self) -> &'static str {
        match self {
            Tone::Debug => "debug",
            Tone::Info => "info",
            Tone::Warn => "warning",
            Tone::Error => "error",
        }
    }
}

/// Gives a note's tone and sentence. A command's output has none: it is no log line.
pub(in crate::cli) fn sentence(note: &Note, board: &Board) -> Option<(Tone, String)> {
    /// Steps that end sooner, WORKDIR or ENV, say nothing when they end.
    const WORTH_TELLING: Duration = Duration::from_millis(100);
    let step = |id| format!("[{}]", board.step(id));
    Some(match note {
        Note::Planned { stages, steps } => (
            Tone::Info,
            format!("{} in {}", count(*steps, "step"), count(*stages, "stage")),
        ),
        Note::Started(id) => (
            Tone::Info,
            format!("{} {}", step(*id), text::ellipsis(&board.text(*id), 500)),
        ),
        Note::Cached(id) => (
            Tone::Info,
            format!(
                "{} cached: {}",
                step(*id),
                text::ellipsis(&board.text(*id), 500)
            ),
        ),
        Note::Ended(id, Outcome::Done, took) => {
            let tone = if *took < WORTH_TELLING {
                Tone::Debug
            } else {
                Tone::Info
            };
            (
                tone,
                format!("{} done in {}", step(*id), text::seconds(*took)),
            )
        }
        Note::Ended(id, Outcome::Failed, took) => (
            Tone::Error,
            format!("{} failed after {}", step(*id), text::seconds(*took)),
        ),
        Note::Layer(layer) => (
            Tone::Info,
            format!(
                "{} layer {} ({} unpacked, {}) {}",
                step(layer.step),
                text::bytes(layer.size),
                text::bytes(layer.raw),
                count(layer.entries, "entry"),
                text::short(&layer.digest.to_string()),
            ),
        ),
        Note::Line(..) => return None,
        Note::Worked(done) => (tone(done.work), worked(done, board)),
        Note::Reused(owner, work, label, bytes) => (
            tone(*work),
            format!(
                "{}{} is {} already ({})",
                whose(*owner, board),
                text::short(label),
                match work {
                    Work::Push => "at the destination",
                    _ => "in the store",
                },
                text::bytes(*bytes),
            ),
        ),
        Note::Finding(finding, _) => {
            let said = format!("{}: {}", finding.rule.name(), finding.message);
            (Tone::Warn, text::line(said.as_bytes(), Colours::Drop))
        }
        Note::Message(level, message) => {
            let tone = match level {
                Level::Debug => Tone::Debug,
                Level::Info => Tone::Info,
                Level::Warn => Tone::Warn,
            };
            let message = message.replace(['\n', '\r'], " ");
            (tone, text::line(message.as_bytes(), Colours::Drop))
        }
    })
}

/// Gives the lines below a note's sentence: where the rule is explained, and where it is not kept.
pub(in crate::cli) fn below(note: &Note) -> String {
    let mut out = String::new();
    if let Note::Finding(finding, place) = note {
        if let Some(url) = finding.rule.url() {
            out.push_str(&url);
            out.push('\n');
        }
        place.text(&mut out);
    }
    out
}

/// What goes over the network or out of the house is of interest; the rest is detail.
fn tone(work: Work) -> Tone {
    match work {
        Work::Resolve | Work::Fetch | Work::Push | Work::Export => Tone::Info,
        Work::Unpack | Work::Root | Work::Run | Work::Copy | Work::Diff | Work::Compress => {
            Tone::Debug
        }
    }
}

fn worked(done: &Finished, board: &Board) -> String {
    let bytes = match done.bytes {
        0 => String::new(),
        count => format!(" {}", text::bytes(count)),
    };
    format!(
        "{}{} {}{bytes} in {}",
        whose(done.owner, board),
        done.work.name(),
        text::short(&done.label),
        text::seconds(done.took),
    )
}

fn whose(owner: Owner, board: &Board) -> String {
    match board.owner(owner) {
        name if name.is_empty() => name,
        name => format!("[{name}] "),
    }
}

/// Writes `1 step`, `2 steps`, `3 entries`.
pub(in crate::cli) fn count<N: TryInto<u64>>(number: N, what: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    match (number, what.strip_suffix('y')) {
        (1, _) => format!("1 {what}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        _ => format!("{number} {what}s"),
    }
}

/// Puts a sentence into a line, `INFO[0003] ...` as kaniko's log has it.
pub(in crate::cli) fn line(
    tone: Tone,
    sentence: &str,
    stamp: Stamp,
    elapsed: Duration,
    colours: Colours,
) -> String {
    let (word, colour) = match tone {
        Tone::Debug => ("DEBU", "37"),
        Tone::Info => ("INFO", "36"),
        Tone::Warn => ("WARN", "33"),
        Tone::Error => ("ERRO", "31"),
    };
    let stamp = match stamp {
        Stamp::Elapsed => format!("{:04}", elapsed.as_secs()),
        Stamp::Clock => text::now(),
    };
    match colours {
        Colours::Keep => format!("\x1b[{colour}m{word}\x1b[0m[{stamp}] {sentence}\n"),
        Colours::Drop => format!("{word}[{stamp}] {sentence}\n"),
    }
}

/// Gives a note as an object. A command's line has its text, without escape sequences, as `msg`.
pub(in crate::cli) fn object(note: &Note, board: &Board, time: String) -> (Tone, Value) {
    let (tone, msg) = match note {
        Note::Line(_, _, bytes) => (Tone::Info, text::line(bytes, Colours::Drop)),
        _ => sentence(note, board).unwrap_or((Tone::Info, String::new())),
    };
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| {
        out.insert(key.to_owned(), value);
    };
    put("time", time.into());
    put("level", tone.json().into());
    put("msg", msg.into());
    let event = match note {
        Note::Planned { .. } => "planned",
        Note::Started(_) => "step-started",
        Note::Cached(_) => "step-cached",
        Note::Ended(_, Outcome::Done, _) => "step-done",
        Note::Ended(_, Outcome::Failed, _) => "step-failed",
        Note::Layer(_) => "layer",
        Note::Line(..) => "output",
        Note::Worked(_) => "work",
        Note::Reused(..) => "reused",
        Note::Finding(..) => "finding",
        Note::Message(..) => "message",
    };
    put("event", event.into());
    let owner = match note {
        Note::Started(id) | Note::Cached(id) | Note::Ended(id, ..) | Note::Line(id, ..) => {
            Some(Owner::Step(*id))
        }
        Note::Layer(layer) => Some(Owner::Step(layer.step)),
        Note::Worked(done) => Some(done.owner),
        Note::Reused(owner, ..) => Some(*owner),
        Note::Planned { .. } | Note::Finding(..) | Note::Message(..) => None,
    };
    match owner {
        Some(Owner::Step(id)) => {
            put("stage", id.stage.into());
            put("step", id.step.into());
        }
        Some(Owner::Base(stage)) => put("stage", stage.into()),
        Some(Owner::Build) | None => {}
    }
    match note {
        Note::Planned { stages, steps } => {
            put("stages", (*stages).into());
            put("steps", (*steps).into());
        }
        Note::Started(id) | Note::Cached(id) => put("text", board.text(*id).into()),
        Note::Ended(_, _, took) => put("seconds", rounded(*took)),
        Note::Layer(layer) => {
            put("digest", layer.digest.to_string().into());
            put("size", layer.size.into());
            put("raw", layer.raw.into());
            put("entries", layer.entries.into());
        }
        Note::Line(_, stream, _) => put(
            "stream",
            match stream {
                Stream::Out => "stdout".into(),
                Stream::Err => "stderr".into(),
            },
        ),
        Note::Worked(done) => {
            put("work", done.work.name().into());
            put("label", done.label.clone().into());
            put("bytes", done.bytes.into());
            put("seconds", rounded(done.took));
        }
        Note::Reused(_, work, label, bytes) => {
            put("work", work.name().into());
            put("label", label.clone().into());
            put("bytes", (*bytes).into());
        }
        Note::Finding(finding, place) => {
            put("rule", finding.rule.name().into());
            put("description", finding.rule.description().into());
            if let Some(url) = finding.rule.url() {
                put("url", url.into());
            }
            put("detail", finding.message.clone().into());
            for (key, value) in place.json() {
                put(&key, value);
            }
        }
        Note::Message(..) => {}
    }
    (tone, Value::Object(out))
}

fn rounded(took: Duration) -> Value {
    ((took.as_secs_f64() * 1000.0).round() / 1000.0).into()
}

/// Gives what a finished build is called by.
pub(in crate::cli) fn title(built: &Built) -> String {
    match &built.image {
        Some(image) => image.manifest.digest.to_string(),
        None => "the image's files".into(),
    }
}

/// Gives what a finished build is summed up in, line by line.
pub(in crate::cli) fn summary(built: &Built, board: &Board, now: Instant) -> Vec<String> {
    let took = text::seconds(now.saturating_duration_since(board.begun));
    let mut out = vec![format!("built {} in {took}", title(built))];
    out.extend(built.pushed.iter().map(|name| format!("pushed {name}")));
    let mut layers = board.layers.clone();
    layers.sort_by_key(|layer| layer.step);
    if !layers.is_empty() {
        let size = layers.iter().map(|layer| layer.size).sum();
        let raw = layers.iter().map(|layer| layer.raw).sum();
        out.push(format!(
            "made {}, {} ({} unpacked)",
            count(layers.len(), "layer"),
            text::bytes(size),
            text::bytes(raw),
        ));
    }
    out.extend(layers.iter().map(|layer| {
        format!(
            "  {:>8}  [{}] {}",
            text::bytes(layer.size),
            board.step(layer.step),
            text::ellipsis(&board.text(layer.step), 80),
        )
    }));
    for (verb, kind, table) in [
        ("fetched", "fetch", &board.done),
        ("reused", "fetch", &board.reused),
        ("found unpacked", "unpack", &board.reused),
        ("found at the destination", "push", &board.reused),
    ] {
        if let Some(moved) = table.get(kind) {
            let blobs = count(moved.count, "blob");
            out.push(format!("{verb} {blobs}, {}", text::bytes(moved.bytes)));
        }
    }
    out
}

/// Gives the summary as an object.
pub(in crate::cli) fn summary_object(
    built: &Built,
    board: &Board,
    now: Instant,
    time: String,
) -> Value {
    let moved = |kind: &str, table: &std::collections::BTreeMap<&str, super::board::Moved>| {
        table.get(kind).map_or(0, |moved| moved.bytes)
    };
    serde_json::json!({
        "time": time,
        "level": "info",
        "msg": format!("built {}", title(built)),
        "event": "built",
        "digest": built.image.as_ref().map(|image| image.manifest.digest.to_string()),
        "pushed": built.pushed.iter().map(|name| name.to_string()).collect::<Vec<_>>(),
        "seconds": rounded(now.saturating_duration_since(board.begun)),
        "layers": board.layers.len(),
        "size": board.layers.iter().map(|layer| layer.size).sum::<u64>(),
        "fetched": moved("fetch", &board.done),
        "reused": moved("fetch", &board.reused) + moved("push", &board.reused),
    })
}
