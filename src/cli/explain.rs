//! `shutter cache explain`: what a build would find in the cache, and why not.
//!
//! With `--json` stdout gets one object:
//!
//! ```text
//! {
//!   "places": [NAME],
//!   "steps": [{
//!     "stage", "stageName", "step", "line", "text", "key"?,
//!     "outcome": "hit" | "waits" | "miss" | "unknown" | "not-looked-up",
//!     "place"?, "age"?,
//!     "nearest"?: {"text", "age", "differs": [{"part", "how"}], "files": [{"path", "how"}]}
//!   }]
//! }
//! ```
//!
//! Ages are in seconds; `how` is `other`, `new` or `gone`.

use super::FAILURE;
use super::flags::Typed;
use super::meaning::{self, LogFormat};
use super::parse::{Called, Usage};
use super::report::{self, Report};
use super::show::text::{self, Colours};
use super::surroundings::Surroundings;
use crate::build::{self, Explained, How, Nearest, Outcome, Told};
use crate::progress::{Event, Level, Sink};
use crate::sys::Cancel;
use serde_json::{Map, Value, json};
use std::ffi::OsStr;
use std::fmt::Write;

/// How many files that differ are told to a person.
const FILES: usize = 10;

/// Explains what was typed; gives the exit code.
pub(super) fn run(mut typed: Typed, around: &Surroundings) -> u8 {
    let (is_json, wanted) = (typed.json, typed.step.take());
    // What a build wants besides is not wanted here; where nothing is said of a cache, the store is one.
    typed.no_push = true;
    typed.cache = true;
    let around = Surroundings {
        called: Called::Shutter,
        env: around
            .env
            .iter()
            .filter(|(name, _)| *name != OsStr::new("KANIKO_NO_PUSH"))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        ..around.clone()
    };
    let format = match meaning::log_format(&typed, &around) {
        LogFormat::Live => LogFormat::Text,
        format => format,
    };
    let (request, options) = match meaning::mean(typed, &around) {
        Ok(meant) => meant,
        Err(usage) => {
            report::print(&Report::usage(&usage), format);
            return FAILURE;
        }
    };
    let cancel = Cancel::new().and_then(|cancel| {
        super::listen(&cancel)?;
        Ok(cancel)
    });
    let cancel = match cancel {
        Ok(cancel) => cancel,
        Err(error) => {
            report::print(&Report::error("listen for signals", &error), format);
            return FAILURE;
        }
    };
    for warning in &options.warnings {
        report::warn(warning);
    }
    let sink = Sink::new(|event| {
        if let Event::Message(Level::Warn, text) = event {
            report::warn(&text);
        }
    });
    let mut explained = match build::explain(&request, &sink, &cancel) {
        Ok(explained) => explained,
        Err(error) => {
            let report = Report::build(&error, &request.dockerfile, &around.cwd);
            report::print(&report, format);
            return FAILURE;
        }
    };
    if let Some(wanted) = wanted {
        let number = wanted.parse::<usize>().ok();
        let is_meant = |told: &Told| match number {
            Some(number) => told.number == number,
            None => told.text.contains(&wanted),
        };
        let missed = missed(&explained);
        explained.steps.retain(is_meant);
        if explained.steps.is_empty() {
            let usage = Usage::new(format!("--step: no step is `{wanted}`"));
            let usage = usage.hint("it is a number of the list, or some of a step's text");
            report::print(&Report::usage(&usage), format);
            return FAILURE;
        }
        super::print(&told(&explained, &missed, is_json));
        return 0;
    }
    let missed = missed(&explained);
    super::print(&told(&explained, &missed, is_json));
    0
}

/// The steps that are not found: number, stage, and whether it is a miss.
fn missed(explained: &Explained) -> Vec<(usize, usize)> {
    let is_missed = |told: &&Told| !matches!(told.outcome, Outcome::Hit(..));
    let missed = explained.steps.iter().filter(is_missed);
    missed.map(|told| (told.number, told.stage)).collect()
}

fn told(explained: &Explained, missed: &[(usize, usize)], is_json: bool) -> String {
    match is_json {
        true => format!("{:#}\n", object(explained)),
        false => for_people(explained, missed),
    }
}

fn for_people(explained: &Explained, missed: &[(usize, usize)]) -> String {
    let mut out = String::new();
    let age = |created: i64| age(explained.now, created);
    let place = |at: usize| explained.places.get(at).map_or("", String::as_str);
    let mut stage = None;
    for told in &explained.steps {
        if stage != Some(told.stage) {
            if stage.is_some() {
                out.push('\n');
            }
            stage = Some(told.stage);
            let _ = writeln!(out, "stage {}", told.stage_name);
        }
        let shown = text::line(told.text.as_bytes(), Colours::Drop);
        let word = word(&told.outcome);
        let _ = writeln!(out, "{:>4}  {word:<13}  {shown}", told.number);
        let mut say = |text: String| {
            let _ = writeln!(out, "{:21}{text}", "");
        };
        match &told.outcome {
            Outcome::Hit(at, created) => say(format!("in {}, {} old", place(*at), age(*created))),
            Outcome::Waits(at, created) => say(format!(
                "in {}, {} old: counts if what a command before it makes is the same again",
                place(*at),
                age(*created)
            )),
            Outcome::Unknown => say("looked up once what it takes from is there".to_owned()),
            Outcome::NotLookedUp => say("steps of its kind are not looked up".to_owned()),
            Outcome::Miss(None) => say("the store has nothing like it".to_owned()),
            Outcome::Miss(Some(nearest)) => {
                let Nearest {
                    text: instruction,
                    created,
                    differs,
                    files,
                } = nearest;
                let whose = match *instruction == told.text {
                    true => "the same instruction".to_owned(),
                    false => {
                        let shown = text::line(instruction.as_bytes(), Colours::Drop);
                        format!("`{shown}`")
                    }
                };
                say(format!(
                    "the nearest in the store is {whose}, {} old:",
                    age(*created)
                ));
                if differs.is_empty() {
                    let is_old = explained.now.saturating_sub(*created)
                        >= i64::try_from(explained.ttl).unwrap_or(i64::MAX);
                    say(match is_old {
                        true => "  it is older than --cache-ttl allows".to_owned(),
                        false => "  its layer is no longer in the store".to_owned(),
                    });
                }
                for difference in differs {
                    let before = missed
                        .iter()
                        .rfind(|(number, stage)| *stage == told.stage && *number < told.number);
                    say(format!(
                        "  {}",
                        said(&difference.part, difference.how, before)
                    ));
                }
                for file in files.iter().take(FILES) {
                    let how = match file.how {
                        How::Other => "differs",
                        How::New => "is new",
                        How::Gone => "is gone",
                    };
                    let path = file.path.to_string();
                    let path = text::line(path.as_bytes(), Colours::Drop);
                    say(format!("    {path} {how}"));
                }
                if files.len() > FILES {
                    say(format!("    and {} more files", files.len() - FILES));
                }
            }
        }
    }
    let far = explained.places.get(1..).unwrap_or_default();
    let has_missed = explained
        .steps
        .iter()
        .any(|told| matches!(told.outcome, Outcome::Miss(_)));
    if has_missed && !far.is_empty() {
        let _ = writeln!(
            out,
            "\nnote: {} can only be asked for keys, so nothing near to them was looked for there",
            far.join(" and ")
        );
    }
    out
}

/// Says in words how a part of a key differs.
fn said(part: &str, how: How, missed: Option<&(usize, usize)>) -> String {
    let (bare, how) = match (part.strip_prefix("no "), how) {
        (Some(bare), _) => (bare, "is no longer given"),
        (None, How::Other) => (part, "differs"),
        (None, How::New) => (part, "is new"),
        (None, How::Gone) => (part, "is no longer there"),
    };
    match (bare, missed) {
        ("parent", Some((number, _))) => format!("below: step {number} is not found"),
        ("parent", None) => "below: the base is another, or steps were added or removed".to_owned(),
        ("content", _) => "content: what it takes differs".to_owned(),
        ("files", _) => "files: the image or stage that it takes from differs".to_owned(),
        ("argument", _) => "command: its text differs".to_owned(),
        _ => format!("{bare} {how}"),
    }
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Hit(..) => "hit",
        Outcome::Waits(..) => "waits",
        Outcome::Miss(_) => "miss",
        Outcome::Unknown => "unknown",
        Outcome::NotLookedUp => "not looked up",
    }
}

fn seconds(now: i64, then: i64) -> i64 {
    now.saturating_sub(then).max(0)
}

/// Gives an age in its largest unit.
fn age(now: i64, then: i64) -> String {
    let seconds = seconds(now, then);
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let (size, unit) = units
        .into_iter()
        .find(|(size, _)| seconds >= *size)
        .unwrap_or((1, "s"));
    format!("{} {unit}", seconds / size)
}

fn object(explained: &Explained) -> Value {
    let how = |how: How| match how {
        How::Other => "other",
        How::New => "new",
        How::Gone => "gone",
    };
    let steps = explained.steps.iter().map(|told| {
        let mut out = Map::new();
        out.insert("stage".into(), told.stage.into());
        out.insert("stageName".into(), told.stage_name.clone().into());
        out.insert("step".into(), told.number.into());
        out.insert("line".into(), told.span.first.into());
        out.insert("text".into(), told.text.clone().into());
        if let Some(key) = &told.key {
            out.insert("key".into(), key.clone().into());
        }
        let outcome = word(&told.outcome).replace(' ', "-");
        out.insert("outcome".into(), outcome.into());
        match &told.outcome {
            Outcome::Hit(at, created) | Outcome::Waits(at, created) => {
                out.insert("place".into(), explained.places.get(*at).cloned().into());
                out.insert("age".into(), seconds(explained.now, *created).into());
            }
            Outcome::Miss(Some(nearest)) => {
                let differs = nearest.differs.iter();
                let differs = differs.map(|it| json!({"part": it.part, "how": how(it.how)}));
                let files = nearest.files.iter().map(|file| {
                    let path = file.path.to_string();
                    json!({"path": path, "how": how(file.how)})
                });
                let nearest = json!({
                    "text": nearest.text,
                    "age": seconds(explained.now, nearest.created),
                    "differs": differs.collect::<Vec<_>>(),
                    "files": files.collect::<Vec<_>>(),
                });
                out.insert("nearest".into(), nearest);
            }
            Outcome::Miss(None) | Outcome::Unknown | Outcome::NotLookedUp => {}
        }
        Value::Object(out)
    });
    json!({"places": explained.places, "steps": steps.collect::<Vec<_>>()})
}
