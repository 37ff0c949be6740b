//! The live view: what runs now, drawn anew a few times a second below what is finished.

use super::board::{Active, Board, Note, Outcome};
use super::log;
use super::text;
use crate::progress::{Owner, StepId};
use std::fmt::Write;
use std::time::{Duration, Instant};

const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const CYAN: &str = "\x1b[36m";
const RESET: &str = "\x1b[0m";

/// The part of the terminal that is drawn anew.
#[derive(Default)]
pub(in crate::cli) struct Screen {
    drawn: usize,
}

impl Screen {
    /// Gives the bytes that replace the last frame by lines that stay and the next frame. Lines are
    /// not wrapped meanwhile, so that a frame has as many rows as lines.
    pub fn draw(&mut self, stay: &[String], frame: &[String]) -> String {
        let mut out = String::new();
        if self.drawn > 0 {
            let _ = write!(out, "\x1b[{}A", self.drawn);
        }
        out.push_str("\r\x1b[J");
        for line in stay {
            let _ = writeln!(out, "{line}{RESET}");
        }
        out.push_str("\x1b[?7l");
        for line in frame {
            let _ = writeln!(out, "{line}{RESET}");
        }
        out.push_str("\x1b[?7h");
        self.drawn = frame.len();
        out
    }
}

/// Gives the line that stays of a note, where there is one.
pub(in crate::cli) fn stays(note: &Note, board: &Board) -> Option<String> {
    match note {
        Note::Ended(id, outcome, took) => {
            let (mark, colour) = match outcome {
                Outcome::Done => ('✓', GREEN),
                Outcome::Failed => ('✗', RED),
            };
            let text = text::ellipsis(&board.text(*id), 120);
            let took = text::seconds(*took);
            Some(format!(
                "{colour}{mark}{RESET} {CYAN}[{}]{RESET} {text}  {DIM}{took}{RESET}",
                board.step(*id)
            ))
        }
        Note::Cached(id) => Some(format!(
            "{GREEN}✓{RESET} {CYAN}[{}]{RESET} {}  {DIM}cached{RESET}",
            board.step(*id),
            text::ellipsis(&board.text(*id), 120)
        )),
        Note::Finding(..) => {
            let (_, sentence) = log::sentence(note, board)?;
            let below = log::below(note);
            Some(format!("{YELLOW}!{RESET} {sentence}\n{}", below.trim_end()))
        }
        Note::Message(..) => {
            let (tone, sentence) = log::sentence(note, board)?;
            match tone {
                log::Tone::Warn => Some(format!("{YELLOW}!{RESET} {sentence}")),
                _ => Some(format!("{DIM}·{RESET} {sentence}")),
            }
        }
        Note::Layer(_) | Note::Worked(_) => {
            let (_, sentence) = log::sentence(note, board)?;
            Some(format!("{DIM}  {sentence}{RESET}"))
        }
        Note::Planned { .. } | Note::Started(_) | Note::Line(..) | Note::Reused(..) => None,
    }
}

/// Gives the lines of what runs now, none wider than the terminal and no more than its rows.
pub(in crate::cli) fn frame(
    board: &Board,
    now: Instant,
    columns: usize,
    rows: usize,
) -> Vec<String> {
    let rows = rows.saturating_sub(1).max(2);
    let elapsed = now.saturating_duration_since(board.begun);
    let spinner = SPINNER[(elapsed.as_millis() / 100) as usize % SPINNER.len()];
    let mut head = format!("building {}", text::seconds(elapsed));
    if board.steps() > 0 {
        let _ = write!(head, "  {}/{} steps", board.ended, board.steps());
    }
    let mut out = vec![format!("{BOLD}{}{RESET}", text::fit(&head, columns))];

    let within = |active: &Active| match active.owner {
        Owner::Step(id) => board.running.contains_key(&id),
        Owner::Build | Owner::Base(_) => false,
    };
    // Rows left for output once everything that runs has its own.
    let loose = board.active.values().filter(|active| !within(active));
    let fixed = 1 + board.running.len() + loose.clone().count();
    let tail = rows.saturating_sub(fixed) / board.running.len().max(1);
    let tail = tail.min(6);

    for (id, running) in &board.running {
        let took = now.saturating_duration_since(running.at);
        let name = board.step(*id);
        let what = board.text(*id);
        out.push(row(
            &format!("{CYAN}{spinner}{RESET} "),
            &format!("[{name}] {what}"),
            &activity(board, *id, took),
            columns,
        ));
        let skip = running.tail.len().saturating_sub(tail);
        for line in running.tail.iter().skip(skip) {
            let line = text::fit(line, columns.saturating_sub(5));
            out.push(format!("  {DIM}│ {line}{RESET}"));
        }
    }
    for active in loose {
        let took = now.saturating_duration_since(active.at);
        let owner = match board.owner(active.owner) {
            name if name.is_empty() => name,
            name => format!("[{name}] "),
        };
        let label = text::short(&active.label);
        out.push(row(
            &format!("{DIM}{spinner}{RESET} "),
            &format!("{owner}{} {label}", active.work.name()),
            &progress(active, took),
            columns,
        ));
    }
    if out.len() > rows {
        let hidden = out.len() - rows + 1;
        out.truncate(rows - 1);
        out.push(format!("{DIM}  and {hidden} more lines{RESET}"));
    }
    out
}

/// Puts a text and what goes to its right into a line; the text gives way.
fn row(mark: &str, text: &str, right: &str, columns: usize) -> String {
    let wide = text::columns(right);
    let room = columns.saturating_sub(wide + 4);
    let text = text::fit(text, room.max(8));
    let gap = room.saturating_sub(text::columns(&text)) + 1;
    format!("{mark}{text}{:gap$}{DIM}{right}{RESET}", "")
}

/// Says what a step does at the moment besides running its command.
fn activity(board: &Board, id: StepId, took: Duration) -> String {
    let newest = board
        .active
        .values()
        .rfind(|active| active.owner == Owner::Step(id));
    match newest {
        Some(active) => format!("{}  {}", active.work.name(), text::seconds(took)),
        None => text::seconds(took),
    }
}

/// Draws a bar where the total is known, and counts bytes where it is not.
fn progress(active: &Active, took: Duration) -> String {
    const BAR: u64 = 16;
    let took = text::seconds(took);
    match active.total {
        Some(total) if total > 0 => {
            let done = active.done.min(total);
            let full = u128::from(done) * u128::from(BAR) / u128::from(total);
            let full = usize::try_from(full).unwrap_or_default();
            let rest = (BAR as usize).saturating_sub(full);
            format!(
                "{}{} {:>8}/{}  {took}",
                "━".repeat(full),
                "╌".repeat(rest),
                text::bytes(done),
                text::bytes(total),
            )
        }
        _ if active.done > 0 => format!("{}  {took}", text::bytes(active.done)),
        _ => took,
    }
}
