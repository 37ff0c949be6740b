//! `shutter check`: the build checks without a build.
//!
//! With `--format json` stdout gets one object of the shape of BuildKit's lint result:
//!
//! ```text
//! {
//!   "warnings": [{"ruleName", "description", "url"?, "detail", "location"}],
//!   "sources": [{"filename", "language": "Dockerfile", "data": base64}],
//!   "buildError"?: {"message", "location"}
//! }
//! ```
//!
//! A location is `{"ranges": [{"start": {"line"}, "end": {"line"}}]}`, lines from 1, both included; a
//! mistake of the file as a whole has no ranges. The source's data is the Dockerfile with the values
//! of variables named like secrets made illegible, line by line the same otherwise.

use super::FAILURE;
use super::flags::Typed;
use super::meaning::{self, LogFormat};
use super::parse::Called;
use super::report::{self, Place, Report};
use super::show::log::count;
use super::show::text::{self, Colours};
use super::surroundings::Surroundings;
use crate::build::{self, Checked};
use crate::dockerfile::ast::Span;
use crate::request::Request;
use base64::Engine;
use serde_json::{Map, Value, json};
use std::ffi::OsStr;
use std::fmt::Write;
use std::path::Path;

/// Checks what was typed; gives the exit code: 1 for a mistake, and for findings that somebody said
/// are one.
pub(super) fn run(mut typed: Typed, around: &Surroundings) -> u8 {
    let is_json = typed.check_format.as_deref() == Some("json");
    let strict = typed.check_error;
    // What a build wants besides is not wanted here.
    typed.no_push = true;
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
    let (request, options) = match meaning::mean(typed, &around) {
        Ok(meant) => meant,
        Err(usage) => {
            report::print(&Report::usage(&usage), LogFormat::Text);
            return FAILURE;
        }
    };
    let checked = build::check(&request);
    for warning in options.warnings.iter().chain(&checked.warnings) {
        report::warn(warning);
    }
    let told = match is_json {
        true => format!("{:#}\n", object(&checked, &request, &around.cwd)),
        false => for_people(&checked, &request, &around.cwd),
    };
    super::print(&told);
    let failed = checked.error.is_some()
        || !checked.fatal.is_empty()
        || (strict && !checked.findings.is_empty());
    if failed { FAILURE } else { 0 }
}

/// Gives the findings, and what ended the check, as a person reads them.
fn for_people(checked: &Checked, request: &Request, cwd: &Path) -> String {
    let mut out = String::new();
    let lines: Vec<&str> = checked.text.lines().collect();
    for finding in &checked.findings {
        let _ = write!(out, "{}", finding.rule.name());
        if let Some(url) = finding.rule.url() {
            let _ = write!(out, " - {url}");
        }
        let _ = writeln!(
            out,
            "\n{}",
            text::line(finding.message.as_bytes(), Colours::Drop)
        );
        Place::new(&request.dockerfile, cwd, finding.span, &lines).text(&mut out);
        out.push('\n');
    }
    let file = report::shown(&request.dockerfile, cwd);
    if let Some(error) = &checked.error {
        let report = Report::build(error, &request.dockerfile, cwd);
        out.push_str(&report.of_lines(&lines).text(Colours::Drop));
    } else {
        let _ = match checked.findings.len() {
            0 => writeln!(out, "{file}: no findings"),
            number => writeln!(out, "{file}: {}", count(number, "finding")),
        };
    }
    if !checked.unknown.is_empty() {
        let lines: Vec<String> = checked
            .unknown
            .iter()
            .map(|span| span.first.to_string())
            .collect();
        let _ = writeln!(
            out,
            "note: base images are not pulled for a check, so undefined variables were not looked for in \
             the {} of line {}",
            if lines.len() == 1 { "stage" } else { "stages" },
            lines.join(", ")
        );
    }
    out
}

/// Gives the same as an object.
fn object(checked: &Checked, request: &Request, cwd: &Path) -> Value {
    let warnings = checked.findings.iter().map(|finding| {
        let mut out = Map::new();
        out.insert("ruleName".into(), finding.rule.name().into());
        out.insert("description".into(), finding.rule.description().into());
        if let Some(url) = finding.rule.url() {
            out.insert("url".into(), url.into());
        }
        out.insert("detail".into(), finding.message.clone().into());
        out.insert("location".into(), location(Some(finding.span)));
        Value::Object(out)
    });
    let mut out = Map::new();
    out.insert("warnings".into(), warnings.collect());
    let data = base64::engine::general_purpose::STANDARD.encode(&checked.text);
    let source = json!({
        "filename": report::shown(&request.dockerfile, cwd),
        "language": "Dockerfile",
        "data": data,
    });
    out.insert("sources".into(), json!([source]));
    if let Some(error) = &checked.error {
        let report = Report::build(error, &request.dockerfile, cwd);
        let message = match &report.hint {
            Some(hint) => format!("{} ({hint})", report.message),
            None => report.message,
        };
        let span = report.place.map(|place| place.span);
        let error = json!({"message": message, "location": location(span)});
        out.insert("buildError".into(), error);
    }
    Value::Object(out)
}

fn location(span: Option<Span>) -> Value {
    match span {
        Some(Span { first, last }) => {
            json!({"ranges": [{"start": {"line": first}, "end": {"line": last}}]})
        }
        None => json!({}),
    }
}
