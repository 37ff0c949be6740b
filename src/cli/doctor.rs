//! `shutter doctor`: what commands could run on here, and what would help where they could not.
//!
//! With `--format json` stdout gets one object:
//!
//! ```text
//! {
//!   "roots": [{"name", "works", "why"?, "remedy"?, "notes": [text]}],
//!   "takes": name or null,
//!   "notes": [text],
//!   "store": {"path", "why", "file_system", "free": bytes, "files": number or null}
//! }
//! ```
//!
//! `why` and `remedy` are there for what does not work; `takes` is what a build runs its commands on;
//! `notes` of the whole are what all commands lack.

use super::FAILURE;
use super::flags::Typed;
use super::help;
use super::meaning::place::Chosen;
use super::meaning::{self, LogFormat};
use super::report::{self, Report};
use super::show::{
    self,
    text::{self, Colours},
};
use super::surroundings::Surroundings;
use crate::build::{self, Diagnosis};
use crate::request::{Request, RootfsChoice};
use crate::rootfs::probe::{Finding, Refusal, Verdict};
use crate::sandbox::{Sandbox, Users};
use crate::store::{Bytes, Space, space};
use crate::sys::{self, Cancel};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// Tries the roots; gives the exit code: 1 where none works.
pub(super) fn run(typed: Typed, around: &Surroundings) -> u8 {
    let is_json = typed.check_format.as_deref() == Some("json");
    let (request, chosen, warnings) = match meaning::place(&typed, around) {
        Ok(meant) => meant,
        Err(usage) => {
            report::print(&Report::usage(&usage), LogFormat::Text);
            return FAILURE;
        }
    };
    for warning in warnings {
        report::warn(&warning);
    }
    let failed = |report: &Report| {
        report::print(report, LogFormat::Text);
        FAILURE
    };
    // Before this process has another user namespace and threads.
    let apart = match around.uid == 0 && users(&request) == Users::Own {
        true => tried_apart(&request),
        false => Vec::new(),
    };
    let stays = super::users(&request, around) == Users::Same;
    let sandbox = match Sandbox::start_as(users(&request)) {
        Ok(sandbox) => sandbox,
        Err(error) => return failed(&Report::error("start the sandbox", &error)),
    };
    if let Err(usage) = super::threads::check() {
        return failed(&Report::usage(&usage));
    }
    let cancel = match Cancel::new() {
        Ok(cancel) => cancel,
        Err(error) => return failed(&Report::error("listen for signals", &error)),
    };
    let diagnosis = match build::diagnose(&request, &sandbox, &cancel) {
        // A build that mounts nothing where it could have, does so in its own user namespace.
        Ok(diagnosis) if stays || diagnosis.takes.is_some_and(|root| !root.is_live()) => {
            diagnosis.with(apart, &request)
        }
        Ok(diagnosis) => diagnosis,
        Err(error) => {
            let hint = Some("--cache-dir names another directory".to_owned());
            return failed(&Report {
                hint,
                ..Report::error("", &error)
            });
        }
    };
    let room = space(&request.store).ok();
    let told = match is_json {
        true => format!(
            "{:#}\n",
            object(&diagnosis, &request, &chosen, room.as_ref())
        ),
        false => for_people(&diagnosis, &request, &chosen, room.as_ref()),
    };
    super::print(&told);
    match diagnosis.takes {
        Some(_) => 0,
        None => FAILURE,
    }
}

/// Gives who tries where nothing can be mounted: as in a build, but with a user namespace even where
/// a store on overlayfs would keep a build from taking one, so that this is what is told.
fn users(request: &Request) -> Users {
    match request.rootfs.is_live() {
        true => Users::Same,
        false => Users::Own,
    }
}

/// Tries the roots without mounts in a process of its own, in no other user namespace: there a build is
/// as who it is, and may do what is not allowed in one. Nothing where that goes wrong.
fn tried_apart(request: &Request) -> Vec<Finding> {
    let found = objects_apart(|| live(request)).unwrap_or_default();
    found.iter().filter_map(finding).collect()
}

/// Tells whether commands start in a root that is mounted, in a user namespace of the builder's own where it
/// takes that. It is tried in a process of its own, since who has entered a user namespace cannot go back.
/// To be called before any thread.
pub(super) fn can_mount(request: &Request) -> bool {
    let works = |sandbox: &Sandbox, cancel: &Cancel, rootfs| {
        let request = Request {
            rootfs,
            ..request.clone()
        };
        let found = build::diagnose(&request, sandbox, cancel);
        found.is_ok_and(|found| found.findings.iter().any(Finding::works))
    };
    let tried = objects_apart(|| {
        let any = match (Sandbox::start_as(Users::Own), Cancel::new()) {
            (Ok(sandbox), Ok(cancel)) => [RootfsChoice::Overlay, RootfsChoice::Fuse]
                .into_iter()
                .any(|root| works(&sandbox, &cancel, root)),
            _ => false,
        };
        vec![any.into()]
    });
    tried.is_ok_and(|found| found == [Value::Bool(true)])
}

/// Has objects found in a process of its own. To be called before any thread.
fn objects_apart(find: impl FnOnce() -> Vec<Value>) -> std::io::Result<Vec<Value>> {
    let told = sys::apart(|| Value::from(find()).to_string().into_bytes())?;
    Ok(serde_json::from_slice(&told)?)
}

/// Tries the roots without mounts as who this is; gives them as objects.
fn live(request: &Request) -> Vec<Value> {
    let roots = RootfsChoice::ROOTS
        .into_iter()
        .filter(|root| root.is_live());
    let (Ok(sandbox), Ok(cancel)) = (Sandbox::start(), Cancel::new()) else {
        return Vec::new();
    };
    let diagnoses = roots.filter_map(|rootfs| {
        let request = Request {
            rootfs,
            ..request.clone()
        };
        build::diagnose(&request, &sandbox, &cancel).ok()
    });
    let findings = diagnoses.flat_map(|diagnosis| diagnosis.findings);
    findings.map(|finding| of_root(&finding)).collect()
}

/// Reads what is found of one root from its object.
fn finding(object: &Value) -> Option<Finding> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let name = object["name"].as_str()?;
    let mut roots = RootfsChoice::ROOTS.into_iter();
    Some(Finding {
        root: roots.find(|root| root.name() == name)?,
        verdict: match object["works"].as_bool()? {
            true => Verdict::Works,
            false => Verdict::Refused(Refusal {
                why: text(&object["why"])?,
                remedy: text(&object["remedy"])?,
            }),
        },
        notes: object["notes"]
            .as_array()?
            .iter()
            .filter_map(text)
            .collect(),
    })
}

/// Gives what was found as a person reads it.
fn for_people(
    diagnosis: &Diagnosis,
    request: &Request,
    chosen: &Chosen,
    room: Option<&Space>,
) -> String {
    let mut out = String::new();
    // A line that goes elsewhere stays a line.
    let columns =
        show::terminal_size(&std::io::stdout()).map_or(usize::MAX, |(columns, _)| columns);
    for finding in &diagnosis.findings {
        for (head, text) in rows(finding) {
            match text.is_empty() {
                true => out.push_str(&format!("{head}\n")),
                false => row(&mut out, &head, &text, columns),
            }
        }
    }
    let _ = match (diagnosis.takes, request.rootfs.name()) {
        (Some(taken), "auto") => writeln!(out, "\nauto takes {}", taken.name()),
        (Some(taken), _) => writeln!(out, "\na build takes {}", taken.name()),
        (None, _) => writeln!(
            out,
            "\nno command can run here: only Dockerfiles without RUN are built"
        ),
    };
    for note in &diagnosis.notes {
        row(&mut out, "", note, columns);
    }
    let store = text::line(request.store.to_string_lossy().as_bytes(), Colours::Drop);
    let _ = writeln!(
        out,
        "the store lies in {store} ({}){}",
        chosen.why(),
        on(room)
    );
    out
}

/// Appends a text behind its head, further lines below it.
fn row(out: &mut String, head: &str, text: &str, columns: usize) {
    let mut lines = String::new();
    help::wrap(text, head.len(), columns.max(2 * INDENT), &mut lines);
    out.push_str(head);
    out.push_str(lines.get(head.len()..).unwrap_or_default());
}

fn on(room: Option<&Space>) -> String {
    let Some(room) = room else {
        return String::new();
    };
    let kind = match room.kind.as_str() {
        "" => String::new(),
        kind => format!(", on {kind}"),
    };
    let files = room
        .inodes
        .map(|files| format!(" and room for {files} files"));
    format!(
        "{kind}, with {} free{}",
        Bytes(room.free),
        files.unwrap_or_default()
    )
}

/// How far what is said of a root is indented.
const INDENT: usize = 14;

/// Gives the lines on one root: what stands in front, and the text.
fn rows(finding: &Finding) -> Vec<(String, String)> {
    let name = finding.root.name();
    let mut out = match &finding.verdict {
        Verdict::Works => vec![(format!("{name:8} yes"), String::new())],
        Verdict::Refused(Refusal { why, remedy }) => vec![
            (format!("{name:8} no   "), why.clone()),
            (" ".repeat(INDENT), format!("remedy: {remedy}")),
        ],
    };
    let notes = finding.notes.iter();
    out.extend(notes.map(|note| (" ".repeat(INDENT), note.clone())));
    out
}

/// Gives what was found of all roots, for the report of a build that can run nothing.
pub(super) fn refusals(findings: &[Finding]) -> Vec<String> {
    // What is the matter with a single one is the message and the hint.
    if findings.len() < 2 {
        return Vec::new();
    }
    let mut out = Vec::new();
    for finding in findings {
        let rows = rows(finding).into_iter();
        out.extend(rows.map(|(head, text)| head + &text));
    }
    out
}

/// Gives what would help where one root alone was tried.
pub(super) fn hint(findings: &[Finding]) -> Option<String> {
    match findings {
        [
            Finding {
                verdict: Verdict::Refused(refusal),
                ..
            },
        ] => Some(refusal.remedy.clone()),
        _ => None,
    }
}

/// Gives the same as an object.
fn object(
    diagnosis: &Diagnosis,
    request: &Request,
    chosen: &Chosen,
    room: Option<&Space>,
) -> Value {
    let roots = diagnosis.findings.iter().map(of_root);
    json!({
        "roots": roots.collect::<Vec<_>>(),
        "notes": diagnosis.notes,
        "takes": diagnosis.takes.map(|root| root.name()),
        "store": {
            "path": request.store.to_string_lossy(),
            "why": chosen.why(),
            "file_system": room.map(|room| room.kind.clone()),
            "free": room.map(|room| room.free),
            "files": room.and_then(|room| room.inodes),
        },
    })
}

/// Gives what was found of one root as an object.
fn of_root(finding: &Finding) -> Value {
    let mut out = Map::new();
    out.insert("name".into(), finding.root.name().into());
    out.insert("works".into(), finding.works().into());
    if let Verdict::Refused(Refusal { why, remedy }) = &finding.verdict {
        out.insert("why".into(), why.clone().into());
        out.insert("remedy".into(), remedy.clone().into());
    }
    out.insert("notes".into(), finding.notes.clone().into());
    Value::Object(out)
}
