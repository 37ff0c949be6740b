//! What is printed when a build fails: where, what, why, and at most one hint.

use super::doctor;
use super::meaning::LogFormat;
use super::parse::Usage;
use super::show::text::{self, Colours};
use crate::build;
use crate::dockerfile::ast::Span;
use crate::dockerfile::check::masked;
use crate::net::{Url, redacted};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::path::Path;

/// Lines of context around the marked ones.
const AROUND: usize = 2;
/// Marked lines beyond so many are left out.
const MARKED: usize = 40;
/// As much of a Dockerfile is read for an excerpt.
const READ: u64 = 16 << 20;
/// As many columns of a line are shown.
const COLUMNS: usize = 400;

/// A failure, ready to be printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// What failed and why, the chain of causes in one line.
    pub message: String,
    /// Where in the Dockerfile.
    pub place: Option<Place>,
    /// What a command printed last.
    pub output: Vec<String>,
    /// What more there is to say, a line each.
    pub details: Vec<String>,
    /// At most one hint.
    pub hint: Option<String>,
    /// The exit code, where it is told.
    pub code: Option<u8>,
}

/// Lines of a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The file, relative to the working directory where it lies below.
    pub file: String,
    /// The lines.
    pub span: Span,
    /// Numbered lines with whether they are meant.
    pub excerpt: Vec<(usize, Mark, String)>,
}

/// Whether a line is the one that is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It is.
    Meant,
    /// It is beside.
    Beside,
}

impl Report {
    /// Reports a mistake on the command line.
    pub fn usage(usage: &Usage) -> Report {
        Report {
            message: usage.message.clone(),
            place: None,
            output: Vec::new(),
            details: Vec::new(),
            hint: usage.hint.clone(),
            code: Some(super::FAILURE),
        }
    }

    /// Reports an error with what was tried.
    pub fn error(action: &str, error: &dyn std::error::Error) -> Report {
        Report {
            message: join(action.to_owned(), Some(error)),
            place: None,
            output: Vec::new(),
            details: Vec::new(),
            hint: None,
            code: Some(super::FAILURE),
        }
    }

    /// Reports the signal that ended a build.
    pub fn cancelled(signal: i32) -> Report {
        let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
        Report {
            message: format!("cancelled by {name}"),
            place: None,
            output: Vec::new(),
            details: Vec::new(),
            hint: None,
            code: None,
        }
    }

    /// Reports a build that failed; the excerpt is read off the Dockerfile here.
    pub fn build(error: &build::Error, dockerfile: &Path, cwd: &Path) -> Report {
        use build::Error;
        let (span, hint) = match error {
            Error::Dockerfile(error) => (error.span, error.hint.clone()),
            Error::Plan(error) => (error.span, error.hint.clone()),
            Error::Step { span, hint, .. } => (Some(*span), hint.clone().or(remedy(error))),
            Error::Run { span, .. } => (Some(*span), None),
            Error::Checks { span, .. } => (*span, None),
            Error::NoRoot { span, findings } => (*span, doctor::hint(findings)),
            Error::Registry(_) | Error::Other { .. } => (None, remedy(error)),
            Error::NoRoom { .. }
            | Error::NoRoomInRoot { .. }
            | Error::NoRoomForCopy { .. }
            | Error::Full { .. }
            | Error::Removed { .. } => (None, None),
            Error::Cancelled => (None, None),
        };
        let output = match error {
            Error::Run { last, .. } => last.clone(),
            _ => Vec::new(),
        };
        let message = match error {
            Error::Step { text, source, .. } => {
                join(text::ellipsis(&one_line(text), 160), Some(source.as_ref()))
            }
            Error::Run { command, code, .. } => {
                let command = text::ellipsis(&one_line(command), 160);
                format!("`{command}` ended with exit code {code}{}", signal(*code))
            }
            // A mistake of the Dockerfile as a whole has no line, so it gets the file's name.
            Error::Dockerfile(_) if span.is_none() => join(shown(dockerfile, cwd), Some(error)),
            _ => join(String::new(), Some(error)),
        };
        let place = span.map(|span| {
            let text = read_again(dockerfile).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            Place::new(dockerfile, cwd, span, &lines)
        });
        Report {
            message,
            place,
            output,
            details: details(error),
            hint,
            code: None,
        }
    }

    /// Adds where a build writes, for an error for want of space that does not say it by itself: what
    /// it names may be a file of a layer, as seen from the root.
    pub fn with_store(mut self, error: &build::Error, store: &Path) -> Report {
        let store = store.to_string_lossy();
        if self.hint.is_none() && is_full(error) && !self.message.contains(&*store) {
            self.hint = Some(format!(
                "the store, which most of a build is written to, is {store}: free some there or name \
                 another directory by --cache-dir"
            ));
        }
        self
    }

    /// Cuts the excerpt anew, out of these lines.
    pub fn of_lines<L: AsRef<str>>(mut self, lines: &[L]) -> Report {
        if let Some(place) = &mut self.place {
            place.excerpt = excerpt(lines, place.span);
        }
        self
    }

    /// Gives the report as text.
    pub fn text(&self, colours: Colours) -> String {
        let mut out = String::new();
        if let Some(place) = &self.place {
            place.text(&mut out);
        }
        if !self.output.is_empty() {
            out.push_str("the last lines of its output:\n");
            for line in &self.output {
                let line = text::line(line.as_bytes(), Colours::Drop);
                let _ = writeln!(out, "  | {}", text::ellipsis(&line, COLUMNS));
            }
        }
        let (red, reset) = match colours {
            Colours::Keep => ("\x1b[1;31m", "\x1b[0m"),
            Colours::Drop => ("", ""),
        };
        let message = text::line(one_line(&self.message).as_bytes(), Colours::Drop);
        let _ = writeln!(out, "{red}error{reset}: {message}");
        for line in &self.details {
            let line = text::line(line.as_bytes(), Colours::Drop);
            let _ = writeln!(out, "  {line}");
        }
        if let Some(hint) = &self.hint {
            let hint = text::line(one_line(hint).as_bytes(), Colours::Drop);
            let _ = writeln!(out, "hint: {hint}");
        }
        out
    }

    /// Gives the report as an object.
    pub fn json(&self, time: String) -> Value {
        let mut out = Map::new();
        out.insert("time".into(), time.into());
        out.insert("level".into(), "error".into());
        out.insert("msg".into(), self.message.clone().into());
        if let Some(place) = &self.place {
            out.extend(place.json());
        }
        if !self.output.is_empty() {
            out.insert("output".into(), self.output.clone().into());
        }
        if !self.details.is_empty() {
            out.insert("details".into(), self.details.clone().into());
        }
        if let Some(hint) = &self.hint {
            out.insert("hint".into(), hint.clone().into());
        }
        if let Some(code) = self.code {
            out.insert("exit_code".into(), code.into());
        }
        Value::Object(out)
    }
}

impl Place {
    /// Shows where something is in a file with these lines.
    pub fn new<L: AsRef<str>>(file: &Path, cwd: &Path, span: Span, lines: &[L]) -> Place {
        Place {
            file: shown(file, cwd),
            span,
            excerpt: excerpt(lines, span),
        }
    }

    /// Appends the place as text: file and line, and the lines below.
    pub fn text(&self, out: &mut String) {
        const RULE: &str = "--------------------";
        let _ = writeln!(out, "{}:{}", self.file, self.span.first);
        if self.excerpt.is_empty() {
            return;
        }
        let _ = writeln!(out, "{RULE}");
        for (number, mark, text) in &self.excerpt {
            let mark = match mark {
                Mark::Meant => ">>>",
                Mark::Beside => "   ",
            };
            let text = text::line(text.as_bytes(), Colours::Drop);
            let row = format!(" {number:3} | {mark} {}", text::ellipsis(&text, COLUMNS));
            let _ = writeln!(out, "{}", row.trim_end());
        }
        let _ = writeln!(out, "{RULE}");
    }

    /// Gives the place as members of an object.
    pub fn json(&self) -> [(String, Value); 4] {
        let lines = self.excerpt.iter().map(|(number, mark, text)| {
            json!({"line": number, "meant": *mark == Mark::Meant, "text": text})
        });
        [
            ("file".into(), self.file.clone().into()),
            ("line".into(), self.span.first.into()),
            ("last_line".into(), self.span.last.into()),
            ("excerpt".into(), lines.collect()),
        ]
    }
}

/// Gives what there is to say of an error beyond its message.
fn details(error: &build::Error) -> Vec<String> {
    match error {
        build::Error::NoRoot { findings, .. } => doctor::refusals(findings),
        _ => Vec::new(),
    }
}

/// Tells whether an error is for want of space.
fn is_full(error: &build::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        let kind = error.downcast_ref().map(std::io::Error::kind);
        if matches!(kind, Some(StorageFull | QuotaExceeded)) {
            return true;
        }
        next = error.source();
    }
    false
}

/// Gives what a registry's error in a chain says may help.
fn remedy(error: &build::Error) -> Option<String> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        // A transparent error is no source of the one around it.
        let found = match error.downcast_ref() {
            Some(build::Error::Registry(found)) => Some(found),
            _ => error.downcast_ref::<crate::registry::Error>(),
        };
        if let Some(hint) = found.and_then(|found| found.hint()) {
            return Some(hint.to_owned());
        }
        next = error.source();
    }
    None
}

/// Reads the Dockerfile for an excerpt, with nothing secret in it; what is no file can be read once only, and has been.
fn read_again(dockerfile: &Path) -> Option<String> {
    // A relative one is a file of a context that was fetched.
    if dockerfile.is_relative() || !std::fs::metadata(dockerfile).ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(dockerfile).ok()?;
    file.take(READ).read_to_end(&mut bytes).ok()?;
    Some(masked(&bytes))
}

/// Prints a warning to stderr.
pub(super) fn warn(warning: &str) {
    let warning = text::line(one_line(warning).as_bytes(), Colours::Drop);
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "warning: {warning}");
}

/// Prints a report to stderr.
pub(super) fn print(report: &Report, format: LogFormat) {
    let text = match format {
        LogFormat::Json => report.json(text::now()).to_string() + "\n",
        LogFormat::Live | LogFormat::Color => report.text(Colours::Keep),
        LogFormat::Text => report.text(Colours::Drop),
    };
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(text.as_bytes());
}

/// Cuts the lines out of a Dockerfile, with some around.
fn excerpt<L: AsRef<str>>(lines: &[L], span: Span) -> Vec<(usize, Mark, String)> {
    let last = span.last.min(span.first.saturating_add(MARKED - 1));
    let from = span.first.saturating_sub(AROUND).max(1);
    let to = last.saturating_add(AROUND).min(lines.len());
    let wanted = lines.get(from - 1..to).unwrap_or_default();
    wanted
        .iter()
        .zip(from..)
        .map(|(line, number)| {
            let mark = match (span.first..=span.last).contains(&number) {
                true => Mark::Meant,
                false => Mark::Beside,
            };
            // A lone carriage return is no end of a line here, though some editors show it as one.
            (number, mark, line.as_ref().replace('\r', "␍"))
        })
        .collect()
}

/// Shows a path as people would type it.
pub(super) fn shown(path: &Path, cwd: &Path) -> String {
    if let Some(url) = path.to_str().filter(|text| text.contains("://"))
        && let Ok(url) = Url::parse(url)
    {
        return redacted(&url);
    }
    let path = path.strip_prefix(cwd).unwrap_or(path);
    text::line(path.to_string_lossy().as_bytes(), Colours::Drop)
}

/// Names the signal that an exit code above 128 stands for, as shells count.
fn signal(code: i32) -> String {
    match code
        .checked_sub(128)
        .and_then(signal_hook::low_level::signal_name)
    {
        Some(name) => format!(" ({name})"),
        None => String::new(),
    }
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

/// Appends an error and its causes, each once: some errors say in their own words what their
/// source says again.
fn join(mut out: String, error: Option<&dyn std::error::Error>) -> String {
    let mut next = error;
    while let Some(error) = next {
        let text = error.to_string();
        let said = out == text
            || out.ends_with(&format!(": {text}"))
            || (text.len() > 8 && out.contains(&text));
        if !said && !text.is_empty() {
            if !out.is_empty() {
                out.push_str(": ");
            }
            out.push_str(&text);
        }
        next = error.source();
    }
    out
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
