//! The page: HTML made here, with positions in per cent of the build's time.

use super::{Failed, Span, Timeline, Verdict, WORKS};
use crate::cli::show::board::Board;
use crate::cli::show::log::count;
use crate::cli::show::text::{self, Colours};
use crate::progress::{Owner, Work};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
/// Height of one line of bars in a lane, in pixels.
const LINE: usize = 17;
/// So many columns has the picture of what overlapped.
const COLUMNS: usize = 180;

/// Where a lane belongs on the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Build,
    Base(usize),
    Step(usize, usize),
}

impl Lane {
    fn stage(self) -> Option<usize> {
        match self {
            Lane::Build => None,
            Lane::Base(stage) | Lane::Step(stage, _) => Some(stage),
        }
    }
}

fn lane(owner: Owner) -> Lane {
    match owner {
        Owner::Build => Lane::Build,
        Owner::Base(stage) => Lane::Base(stage),
        Owner::Step(id) => Lane::Step(id.stage, id.step),
    }
}

pub(super) fn page(
    timeline: &Timeline,
    board: &Board,
    verdict: &Verdict,
    wall: Duration,
    cpu: Duration,
) -> String {
    let mut out = String::with_capacity(64 << 10);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\
         <title>Build timeline</title><style>{STYLE}</style></head><body>\n"
    );
    header(verdict, &mut out);
    tiles(timeline, board, wall, cpu, &mut out);
    chart(timeline, board, wall, &mut out);
    layers(board, &mut out);
    if timeline.left_out > 0 {
        let _ = writeln!(
            out,
            "<p class=\"verdict\">{} beyond the first {} are left out.</p>",
            count(timeline.left_out, "span"),
            super::MOST
        );
    }
    let _ = writeln!(
        out,
        "<div id=\"tip\" hidden></div><script>{SCRIPT}</script></body></html>"
    );
    out
}

fn header(verdict: &Verdict, out: &mut String) {
    out.push_str("<header><h1>Build timeline</h1>");
    match verdict {
        Verdict::Built { digest, pushed } => {
            let _ = write!(
                out,
                "<div class=\"verdict good\"><b>Built</b> <code>{}</code></div>",
                escape(digest)
            );
            for name in pushed {
                let _ = write!(
                    out,
                    "<div class=\"verdict\">pushed <code>{}</code></div>",
                    escape(name)
                );
            }
        }
        Verdict::Failed(why) => {
            let _ = write!(
                out,
                "<div class=\"verdict bad\"><b>Failed</b> {}</div>",
                escape(&text::ellipsis(why, 1000))
            );
        }
    }
    out.push_str("</header>\n");
}

fn tiles(timeline: &Timeline, board: &Board, wall: Duration, cpu: Duration, out: &mut String) {
    let spent: Duration = timeline
        .spans
        .values()
        .map(|span| end(span, wall).saturating_sub(span.from))
        .sum();
    let union = union(
        timeline
            .spans
            .values()
            .map(|span| (span.from, end(span, wall))),
    );
    let moved = |work: Work| -> u64 {
        let of = timeline.spans.values().filter(|span| span.work == work);
        of.map(|span| span.bytes).sum()
    };
    let made: u64 = board.layers.iter().map(|layer| layer.size).sum();
    let overlap = if union.is_zero() {
        0.0
    } else {
        spent.as_secs_f64() / union.as_secs_f64()
    };
    let tiles = [
        ("Wall time", text::seconds(wall)),
        ("Builder's CPU", text::seconds(cpu)),
        ("Work, all spans", text::seconds(spent)),
        ("Mean overlap", format!("{overlap:.1}×")),
        ("Idle", text::seconds(wall.saturating_sub(union))),
        ("Fetched", text::bytes(moved(Work::Fetch))),
        ("Pushed", text::bytes(moved(Work::Push))),
        (
            "Layers made",
            format!("{} · {}", board.layers.len(), text::bytes(made)),
        ),
    ];
    out.push_str("<div class=\"tiles\">");
    for (name, value) in tiles {
        let _ = write!(
            out,
            "<div class=\"tile\"><span>{name}</span><b>{}</b></div>",
            escape(&value)
        );
    }
    out.push_str("</div>\n");
}

fn chart(timeline: &Timeline, board: &Board, wall: Duration, out: &mut String) {
    out.push_str("<div class=\"panel\"><div class=\"bar-top\">");
    for work in WORKS {
        let spans = timeline.spans.values().filter(|span| span.work == work);
        let number = spans.clone().count();
        if number == 0 {
            continue;
        }
        let busy = union(spans.map(|span| (span.from, end(span, wall))));
        let _ = write!(
            out,
            "<button class=\"key {name}\" data-work=\"{name}\" data-tip=\"{spans}, busy for {busy}. \
             Click to hide.\"><i></i>{name} <em>{busy}</em></button>",
            name = work.name(),
            spans = count(number, "span"),
            busy = text::seconds(busy),
        );
    }
    out.push_str(
        "<label class=\"zoom\">zoom <input id=\"zoom\" type=\"range\" min=\"1\" max=\"20\" \
         step=\"0.5\" value=\"1\"></label></div><div class=\"scroll\"><div class=\"wide\" id=\"wide\">\n",
    );
    let ticks = ticks(wall);
    axis(&ticks, wall, out);
    flow(timeline, wall, out);
    let grid: String = ticks
        .iter()
        .map(|tick| format!("<s style=\"left:{}\"></s>", percent(*tick, wall)))
        .collect();

    let mut lanes: BTreeMap<Lane, Vec<&Span>> = BTreeMap::new();
    for id in timeline.steps.keys() {
        lanes.entry(Lane::Step(id.stage, id.step)).or_default();
    }
    for span in timeline.spans.values() {
        lanes.entry(lane(span.owner)).or_default().push(span);
    }
    let stages: BTreeSet<Option<usize>> = lanes.keys().map(|lane| lane.stage()).collect();
    for stage in stages {
        let title = match stage {
            None => "whole build".to_owned(),
            Some(stage) => match board.stage(stage) {
                name if name.is_empty() => "stage".to_owned(),
                name => name,
            },
        };
        let _ = writeln!(
            out,
            "<div class=\"row stage\"><div class=\"name\">{}</div><div class=\"track\">{grid}</div></div>",
            escape(&title)
        );
        for (lane, spans) in lanes.iter().filter(|(lane, _)| lane.stage() == stage) {
            row(timeline, board, *lane, spans, &grid, wall, out);
        }
    }
    out.push_str("</div></div></div>\n");
}

fn axis(ticks: &[Duration], wall: Duration, out: &mut String) {
    out.push_str("<div class=\"row axis\"><div class=\"name\">seconds since the start</div><div class=\"track\" style=\"height:24px\">");
    for tick in ticks {
        let _ = write!(
            out,
            "<span style=\"left:{}\">{}</span>",
            percent(*tick, wall),
            escape(&tick_label(*tick))
        );
    }
    out.push_str("</div></div>\n");
}

/// Draws how many spans of each kind ran at a time.
fn flow(timeline: &Timeline, wall: Duration, out: &mut String) {
    let width = wall.as_secs_f64() / COLUMNS as f64;
    let mut columns = vec![[0.0_f64; WORKS.len()]; COLUMNS];
    for span in timeline.spans.values() {
        let Some(kind) = WORKS.iter().position(|work| *work == span.work) else {
            continue;
        };
        let (from, to) = (span.from.as_secs_f64(), end(span, wall).as_secs_f64());
        let first = (from / width) as usize;
        let last = (to / width) as usize;
        let touched = columns.iter_mut().enumerate().take(last + 1).skip(first);
        for (place, column) in touched {
            let left = place as f64 * width;
            let part = (to.min(left + width) - from.max(left)) / width;
            column[kind] += part.max(0.0);
        }
    }
    let most = columns
        .iter()
        .map(|column| column.iter().sum::<f64>())
        .fold(1.0_f64, f64::max);
    let _ = write!(
        out,
        "<div class=\"row flow\"><div class=\"name\">at the same time (at most {most:.0})</div>\
         <div class=\"track\"><svg viewBox=\"0 0 {COLUMNS} 100\" preserveAspectRatio=\"none\">"
    );
    for (place, column) in columns.iter().enumerate() {
        let mut top = 100.0;
        for (work, height) in WORKS.iter().zip(column) {
            let height = height / most * 94.0;
            if height < 0.2 {
                continue;
            }
            top -= height;
            let _ = write!(
                out,
                "<rect class=\"{}\" x=\"{place}\" y=\"{top:.1}\" width=\"1.02\" height=\"{height:.1}\"/>",
                work.name()
            );
        }
    }
    out.push_str("</svg></div></div>\n");
}

fn row(
    timeline: &Timeline,
    board: &Board,
    lane: Lane,
    spans: &[&Span],
    grid: &str,
    wall: Duration,
    out: &mut String,
) {
    let step = match lane {
        Lane::Step(stage, step) => Some(crate::progress::StepId { stage, step }),
        Lane::Build | Lane::Base(_) => None,
    };
    let times = step.and_then(|id| timeline.steps.get(&id));
    let (number, name) = match (lane, step) {
        (Lane::Base(_), _) => (String::new(), "base".to_owned()),
        (_, Some(id)) => (format!("{}", id.step + 1), board.text(id)),
        _ => (String::new(), "resolve, push, export".to_owned()),
    };
    let failed = times.is_some_and(|times| times.failed == Failed::Yes);
    let class = if failed { "name failed" } else { "name" };
    let (lines, places) = pack(spans, wall);
    let _ = write!(
        out,
        "<div class=\"row\"><div class=\"{class}\" data-tip=\"{name}\"><small>{number}</small>{name}</div>\
         <div class=\"track\" style=\"height:{height}px\">{grid}",
        name = escape(&name),
        height = lines.max(1) * LINE + 6,
    );
    if let (Some(times), Some(id)) = (times, step) {
        let to = times.to.unwrap_or(wall);
        let took = text::seconds(to.saturating_sub(times.from));
        let mut tip = format!("{}\n{} step {took}", board.text(id), board.step(id));
        if let Some(layer) = board.layers.iter().find(|layer| layer.step == id) {
            let _ = write!(
                tip,
                "\nlayer {}, {} unpacked, {}\n{}",
                text::bytes(layer.size),
                text::bytes(layer.raw),
                count(layer.entries, "entry"),
                layer.digest
            );
        }
        if failed {
            tip.push_str("\nfailed");
        }
        let class = if failed { "step failed" } else { "step" };
        let _ = write!(
            out,
            "<div class=\"{class}\" style=\"left:{};width:{}\" data-tip=\"{}\"></div>",
            percent(times.from, wall),
            percent(to.saturating_sub(times.from), wall),
            escape(&tip)
        );
    }
    for (span, line) in spans.iter().zip(places) {
        bar(span, line, wall, out);
    }
    out.push_str("</div></div>\n");
}

fn bar(span: &Span, line: usize, wall: Duration, out: &mut String) {
    let to = end(span, wall);
    let took = to.saturating_sub(span.from);
    let share = took.as_secs_f64() / wall.as_secs_f64();
    let mut class = format!("span {}", span.work.name());
    if span.to.is_none() {
        class.push_str(" open");
    }
    // A letter takes some 7 pixels of some 850.
    let word = if share * 850.0 < span.work.name().len() as f64 * 7.0 + 8.0 {
        class.push_str(" thin");
        ""
    } else {
        span.work.name()
    };
    let _ = write!(
        out,
        "<div class=\"{class}\" style=\"left:{};width:{};top:{}px\" data-tip=\"{}\">{word}</div>",
        percent(span.from, wall),
        percent(took, wall),
        line * LINE + 4,
        escape(&tip(span, took)),
    );
}

fn tip(span: &Span, took: Duration) -> String {
    let label = text::line(span.label.as_bytes(), Colours::Drop);
    let mut tip = format!("{} {}", span.work.name(), text::ellipsis(&label, 500));
    let _ = write!(
        tip,
        "\n{:.3}s to {:.3}s, took {}",
        span.from.as_secs_f64(),
        (span.from + took).as_secs_f64(),
        text::seconds(took)
    );
    if span.bytes > 0 {
        let _ = write!(tip, "\n{}", text::bytes(span.bytes));
        if let Some(total) = span.total.filter(|total| *total != span.bytes) {
            let _ = write!(tip, " of {}", text::bytes(total));
        }
        let seconds = took.as_secs_f64();
        if seconds > 0.0005 {
            let rate = (span.bytes as f64 / seconds) as u64;
            let _ = write!(tip, ", {}/s", text::bytes(rate));
        }
    }
    if span.to.is_none() {
        tip.push_str("\nhad not ended when the build did");
    }
    tip
}

fn end(span: &Span, wall: Duration) -> Duration {
    span.to.unwrap_or(wall).max(span.from)
}

/// Puts spans into as few lines as there are at a time; gives the number of lines and each span's.
fn pack(spans: &[&Span], wall: Duration) -> (usize, Vec<usize>) {
    let mut order: Vec<usize> = (0..spans.len()).collect();
    order.sort_by_key(|place| spans[*place].from);
    let mut free: Vec<Duration> = Vec::new();
    let mut lines = vec![0; spans.len()];
    for place in order {
        let span = spans[place];
        let to = end(span, wall);
        match free.iter().position(|until| *until <= span.from) {
            Some(line) => {
                free[line] = to;
                lines[place] = line;
            }
            None => {
                lines[place] = free.len();
                free.push(to);
            }
        }
    }
    (free.len(), lines)
}

/// Gives how long at least one of the spans ran.
fn union(spans: impl Iterator<Item = (Duration, Duration)>) -> Duration {
    let mut spans: Vec<_> = spans.collect();
    spans.sort_unstable();
    let mut total = Duration::ZERO;
    let mut until = Duration::ZERO;
    for (from, to) in spans {
        total += to.saturating_sub(from.max(until));
        until = until.max(to);
    }
    total
}

/// Gives round times, five to ten of them.
fn ticks(wall: Duration) -> Vec<Duration> {
    let mut step = Duration::from_millis(1);
    // 1, 2, 5, 10, ...: each next is 2, 2.5, 2 times the last.
    for factor in [(2, 1), (5, 2), (2, 1)].into_iter().cycle().take(60) {
        if wall.as_nanos() / step.as_nanos().max(1) < 10 {
            break;
        }
        step = step * factor.0 / factor.1;
    }
    (0..)
        .map(|number| step * number)
        .take_while(|tick| *tick <= wall)
        .collect()
}

fn tick_label(tick: Duration) -> String {
    let seconds = tick.as_secs_f64();
    format!("{}", (seconds * 1000.0).round() / 1000.0)
}

fn percent(part: Duration, wall: Duration) -> String {
    let share = part.as_secs_f64() / wall.as_secs_f64() * 100.0;
    format!("{:.3}%", share.clamp(0.0, 100.0))
}

fn layers(board: &Board, out: &mut String) {
    if board.layers.is_empty() {
        return;
    }
    let mut layers: Vec<_> = board.layers.iter().collect();
    layers.sort_by_key(|layer| layer.step);
    out.push_str(
        "<div class=\"panel\"><table><tr><th>Layer</th><th>Entries</th><th>Unpacked</th>\
         <th>Compressed</th><th>Digest</th></tr>",
    );
    for layer in layers {
        let _ = write!(
            out,
            "<tr><td data-tip=\"{text}\">[{step}] {text}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td class=\"mono\">{}</td></tr>",
            layer.entries,
            text::bytes(layer.raw),
            text::bytes(layer.size),
            escape(&text::short(&layer.digest.to_string())),
            step = escape(&board.step(layer.step)),
            text = escape(&board.text(layer.step)),
        );
    }
    out.push_str("</table></div>\n");
}

/// Writes a text so that it means itself in HTML, in text and in quoted attributes alike.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            _ if c.is_control() => {}
            _ => out.push(c),
        }
    }
    out
}
