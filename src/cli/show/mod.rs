//! Shows a build while it runs: one thread takes all events and is the only one that prints.

pub(super) mod board;
mod live;
pub(super) mod log;
pub(super) mod text;

use super::meaning::{LogFormat, Options, Printed, Verbosity};
use super::report::Report;
use super::timeline::{self, Timeline};
use crate::build::Built;
use crate::progress::{Event, Level, Sink};
use board::{Board, Note};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use log::Tone;
use rustix::fd::AsFd;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use text::Colours;

/// So many events wait at most; a build that is faster than its log waits too, and so does its
/// command. Each may hold as much of a command's output as a pipe does: 4 MiB together.
const QUEUE: usize = 64;
/// So many bytes of output are put together while more is coming.
const BATCH: usize = 64 << 10;
/// How often the live view is drawn.
const FRAME: Duration = Duration::from_millis(100);

/// The thread that shows a build.
pub(super) struct Show {
    sender: Sender<Message>,
    thread: Option<JoinHandle<()>>,
}

enum Message {
    Event(Event, Instant),
    End(Box<Ending>),
}

/// How a build ended, as far as it is shown.
struct Ending {
    built: Option<Built>,
    failure: Option<String>,
    at: Instant,
}

impl Show {
    /// Starts the thread. Where there can be none the build is not shown, and goes on.
    /// Once `signal` is not 0, what commands printed and nobody has seen yet is dropped: whoever ends
    /// a build does not wait for its log.
    pub fn start(options: &Options, begun: Instant, signal: &Arc<AtomicI32>) -> Show {
        let (sender, receiver) = crossbeam_channel::bounded(QUEUE);
        let painter = Painter::new(options, begun, Arc::clone(signal));
        let thread = std::thread::Builder::new()
            .name("show".into())
            .spawn(move || painter.run(&receiver))
            .ok();
        let show = Show { sender, thread };
        for warning in &options.warnings {
            show.sink().message(Level::Warn, warning);
        }
        show
    }

    /// Gives a sink that feeds the thread.
    pub fn sink(&self) -> Sink {
        let sender = self.sender.clone();
        Sink::new(move |event| {
            // It fails only where the thread is gone, and then nobody wants events.
            let _ = sender.send(Message::Event(event, Instant::now()));
        })
    }

    /// Shows how the build ended and waits until everything is printed.
    pub fn end(mut self, built: Option<&Built>, failure: Option<&Report>) {
        let ending = Ending {
            built: built.cloned(),
            failure: failure.map(|report| report.message.clone()),
            at: Instant::now(),
        };
        let _ = self.sender.send(Message::End(Box::new(ending)));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the thread owns.
struct Painter {
    board: Board,
    format: LogFormat,
    verbosity: Verbosity,
    stamp: super::meaning::Stamp,
    screen: live::Screen,
    timeline: Option<(Timeline, PathBuf)>,
    /// Output of commands that is not printed yet.
    output: Vec<u8>,
    printed: Printed,
    /// The number of the signal that ended the build, or 0.
    signal: Arc<AtomicI32>,
    /// Bytes that commands printed and that are not shown for that.
    dropped: u64,
}

impl Painter {
    fn new(options: &Options, begun: Instant, signal: Arc<AtomicI32>) -> Painter {
        // A live view of warnings alone would be an empty one.
        let format = match options.format {
            LogFormat::Live if options.verbosity < Verbosity::Info => LogFormat::Color,
            other => other,
        };
        let mut board = Board::new(begun);
        board.cwd.clone_from(&options.cwd);
        Painter {
            board,
            format,
            verbosity: options.verbosity,
            stamp: options.stamp,
            screen: live::Screen::default(),
            timeline: options
                .timeline
                .as_ref()
                .map(|file| (Timeline::new(begun), file.clone())),
            output: Vec::new(),
            printed: options.printed,
            signal,
            dropped: 0,
        }
    }

    fn run(mut self, receiver: &Receiver<Message>) {
        let live = self.format == LogFormat::Live;
        let mut stay = Vec::new();
        let mut next = Instant::now();
        loop {
            let message = match live {
                true => receiver.recv_deadline(next),
                false => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match message {
                Ok(Message::Event(event, at)) => self.event(event, at, &mut stay),
                Ok(Message::End(ending)) => {
                    self.end(*ending, stay);
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.flush();
                    return;
                }
            }
            // A line of its own for each write makes a talkative command wait for its log.
            if receiver.is_empty() {
                self.flush();
            }
            if live && Instant::now() >= next {
                self.draw(&std::mem::take(&mut stay));
                next = Instant::now() + FRAME;
            }
        }
    }

    fn event(&mut self, event: Event, at: Instant, stay: &mut Vec<String>) {
        if let Event::Output(_, _, bytes) = &event
            && self.signal.load(Ordering::SeqCst) != 0
        {
            self.dropped += bytes.len() as u64;
            return;
        }
        if let Some((timeline, _)) = &mut self.timeline {
            timeline.take(&event, at);
        }
        for note in self.board.take(event, at) {
            match self.format {
                LogFormat::Live => self.live(&note, stay),
                LogFormat::Json => self.object(&note),
                LogFormat::Text => self.line(&note, Colours::Drop, at),
                LogFormat::Color => self.line(&note, Colours::Keep, at),
            }
        }
    }

    fn live(&mut self, note: &Note, stay: &mut Vec<String>) {
        if let Note::Line(..) = note
            && self.printed == Printed::Stdout
            && !std::io::stdout().is_terminal()
        {
            self.line(note, Colours::Drop, Instant::now());
        }
        let wanted = match log::sentence(note, &self.board) {
            Some((tone, _)) => tone.passes(self.verbosity),
            None => false,
        };
        // A step that ends at once is no log line, but its place in the list is missed.
        if wanted || matches!(note, Note::Ended(..)) {
            stay.extend(live::stays(note, &self.board));
        }
    }

    fn line(&mut self, note: &Note, colours: Colours, at: Instant) {
        if let Note::Line(id, _, bytes) = note {
            if self.board.running.len() > 1 {
                let name = format!("[{}] ", self.board.step(*id));
                self.output.extend_from_slice(name.as_bytes());
            }
            let mut line = text::line(bytes, colours);
            line.push('\n');
            self.put(&line);
            return;
        }
        if let Some((tone, sentence)) = log::sentence(note, &self.board) {
            self.say(tone, &sentence, colours, at);
            if tone.passes(self.verbosity) {
                self.print(&log::below(note));
            }
        }
    }

    fn say(&mut self, tone: Tone, sentence: &str, colours: Colours, at: Instant) {
        if tone.passes(self.verbosity) {
            let elapsed = at.saturating_duration_since(self.board.begun);
            self.print(&log::line(tone, sentence, self.stamp, elapsed, colours));
        }
    }

    fn object(&mut self, note: &Note) {
        let (tone, object) = log::object(note, &self.board, text::now());
        let text = format!("{object}\n");
        if let Note::Line(..) = note {
            self.put(&text);
        } else if tone.passes(self.verbosity) {
            self.print(&text);
        }
    }

    /// Adds to the output of commands.
    fn put(&mut self, text: &str) {
        self.output.extend_from_slice(text.as_bytes());
        if self.output.len() >= BATCH {
            self.flush();
        }
    }

    /// Prints the output of commands; a closed pipe is not our business.
    fn flush(&mut self) {
        if !self.output.is_empty() {
            let mut out: Box<dyn Write> = match self.printed {
                Printed::Stdout => Box::new(std::io::stdout().lock()),
                Printed::Stderr => Box::new(std::io::stderr().lock()),
            };
            let _ = out.write_all(&self.output).and_then(|()| out.flush());
            self.output.clear();
        }
    }

    /// Prints to stderr in one piece, after the output that came before.
    fn print(&mut self, text: &str) {
        self.flush();
        print(text);
    }

    fn draw(&mut self, stay: &[String]) {
        let (columns, rows) = terminal_size(&std::io::stderr()).unwrap_or((80, 24));
        let frame = live::frame(&self.board, Instant::now(), columns, rows);
        let text = self.screen.draw(stay, &frame);
        self.print(&text);
    }

    fn end(&mut self, ending: Ending, mut stay: Vec<String>) {
        if self.dropped > 0 {
            let sentence = format!(
                "{} that commands printed before the signal are left out",
                text::bytes(self.dropped)
            );
            self.event(Event::Message(Level::Warn, sentence), ending.at, &mut stay);
        }
        if self.format == LogFormat::Live {
            if let Some(built) = &ending.built {
                stay.push(String::new());
                let lines = log::summary(built, &self.board, ending.at);
                stay.extend(lines);
            }
            let text = self.screen.draw(&stay, &[]);
            self.print(&text);
        }
        if let Some(built) = &ending.built {
            match self.format {
                LogFormat::Live => {}
                LogFormat::Json => {
                    let board = &self.board;
                    let object = log::summary_object(built, board, ending.at, text::now());
                    if Tone::Info.passes(self.verbosity) {
                        self.print(&format!("{object}\n"));
                    }
                }
                LogFormat::Text | LogFormat::Color => {
                    for line in log::summary(built, &self.board, ending.at) {
                        self.say(Tone::Info, &line, self.colours(), ending.at);
                    }
                }
            }
        }
        if let Some((timeline, file)) = &self.timeline {
            let verdict = match (&ending.built, &ending.failure) {
                (Some(built), _) => timeline::Verdict::Built {
                    digest: log::title(built),
                    pushed: built.pushed.iter().map(ToString::to_string).collect(),
                },
                (None, failure) => timeline::Verdict::Failed(failure.clone().unwrap_or_default()),
            };
            let page = timeline.page(&self.board, &verdict, ending.at, processor_time());
            if let Err(error) = super::outputs::replace(file, page.as_bytes()) {
                let sentence = format!("--timeline: write {}: {error}", file.display());
                match self.format {
                    LogFormat::Json => self.object(&Note::Message(Level::Warn, sentence)),
                    _ => self.say(Tone::Warn, &sentence, self.colours(), ending.at),
                }
            }
        }
    }

    fn colours(&self) -> Colours {
        match self.format {
            LogFormat::Live | LogFormat::Color => Colours::Keep,
            LogFormat::Text | LogFormat::Json => Colours::Drop,
        }
    }
}

/// Prints to stderr in one piece; a closed pipe is not our business.
fn print(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(text.as_bytes());
}

/// Gives the processor time of this process, all threads together.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// Gives columns and rows of a terminal.
pub(super) fn terminal_size(terminal: &impl AsFd) -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(terminal).ok()?;
    (size.ws_col > 0).then(|| (usize::from(size.ws_col), usize::from(size.ws_row)))
}

#[cfg(test)]
mod tests;
