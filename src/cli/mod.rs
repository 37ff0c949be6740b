//! Flags, progress, reports, exit codes; the only printer and the only reader of the environment.

mod check;
mod doctor;
mod duration;
mod explain;
mod flags;
mod help;
mod meaning;
mod outputs;
mod parse;
mod report;
mod show;
mod store;
mod surroundings;
mod threads;
mod timeline;
mod warm;

use crate::build::{self, Built};
use crate::progress::{Event, Sink};
use crate::request::{Request, RootfsChoice};
use crate::sandbox::{Sandbox, Users};
use crate::store::space;
use crate::sys::{self, Cancel};
use flags::{Typed, Verb};
use meaning::{LogFormat, Options};
use parse::{Command, Usage};
use report::Report;
use rustix::thread::CapabilitySet;
use show::Show;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use std::ffi::OsString;
use std::io::Write;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use surroundings::Surroundings;

/// The exit code of everything that went wrong in no way of its own; also of a wrong command line,
/// as kaniko has it.
const FAILURE: u8 = 1;

/// Runs the program; gives the exit code.
pub fn run(args: Vec<OsString>) -> u8 {
    sys::keep_ended_children();
    let called = parse::called(args.first());
    let mut words = args.get(1..).unwrap_or_default().to_vec();
    if parse::is_warmer(args.first()) {
        words.insert(0, "warmer".into());
    }
    let words = words.as_slice();
    let (verb, typed) = match parse::parse(called, words) {
        Ok(Command::Version) => {
            print(&format!("shutter {}\n", env!("CARGO_PKG_VERSION")));
            return 0;
        }
        Ok(Command::Help(verb)) => {
            print(&help::help(called, verb, columns()));
            return 0;
        }
        Ok(Command::Build(typed)) => (Verb::Build, *typed),
        Ok(Command::Check(typed)) => (Verb::Check, *typed),
        Ok(Command::Doctor(typed)) => (Verb::Doctor, *typed),
        Ok(Command::CacheExplain(typed)) => (Verb::CacheExplain, *typed),
        Ok(Command::Store(verb, typed)) => (verb, *typed),
        Ok(Command::Warm(typed)) => (Verb::Warm, *typed),
        Err(usage) => {
            let format = guess_format(words);
            report::print(&Report::usage(&usage), format);
            return FAILURE;
        }
    };
    let around = match Surroundings::read(called) {
        Ok(around) => around,
        Err(error) => {
            let usage = Usage::new(format!("find the working directory: {error}"));
            report::print(&Report::usage(&usage), LogFormat::Text);
            return FAILURE;
        }
    };
    match verb {
        Verb::Build => start(typed, &around),
        Verb::Check => check::run(typed, &around),
        Verb::Doctor => doctor::run(typed, &around),
        Verb::CacheExplain => explain::run(typed, &around),
        Verb::StoreLs | Verb::StoreGc | Verb::StoreVerify => store::run(verb, typed, &around),
        Verb::Warm => warm::run(typed, &around),
    }
}

/// Carries out a build. Order matters: the sandbox takes a mount namespace for the whole process
/// and forks, so it comes before the first thread, and signals come before the first work.
fn start(typed: Typed, around: &Surroundings) -> u8 {
    let format = meaning::log_format(&typed, around);
    let begun = Instant::now();
    let (request, options) = match meaning::mean(typed, around) {
        Ok(meant) => meant,
        Err(usage) => {
            report::print(&Report::usage(&usage), format);
            return FAILURE;
        }
    };
    let sandbox = match Sandbox::start_as(users(&request, around)) {
        Ok(sandbox) => sandbox,
        Err(error) => {
            report::print(&Report::error("start the sandbox", &error), format);
            return FAILURE;
        }
    };
    if let Err(usage) = threads::check() {
        report::print(&Report::usage(&usage), format);
        return FAILURE;
    }
    let (cancel, signal) = match Cancel::new().and_then(|cancel| {
        let signal = listen(&cancel)?;
        Ok((cancel, signal))
    }) {
        Ok(listening) => listening,
        Err(error) => {
            report::print(&Report::error("listen for signals", &error), format);
            return FAILURE;
        }
    };
    // Said in any case: left to itself, rayon would look for a variable of its own. It fails only
    // where there is a pool already, and there is none.
    let threads = request
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let _ = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global();
    let show = Show::start(&options, begun, &signal);
    // A Dockerfile that is no file of this machine cannot be read again for an excerpt.
    let elsewhere: Arc<OnceLock<Arc<Vec<String>>>> = Arc::default();
    let sink = {
        let (inner, kept) = (show.sink(), Arc::clone(&elsewhere));
        Sink::new(move |event| {
            if let Event::Dockerfile(lines) = &event {
                let _ = kept.set(Arc::clone(lines));
            }
            inner.send(event);
        })
    };
    let result = build_all(&request, &options, &sandbox, &sink, &cancel);
    let (report, code) = match &result {
        Ok(_) => (None, 0),
        Err(error) => {
            let (report, code) = error.report(&request, around, signal.load(Ordering::SeqCst));
            let report = match elsewhere.get() {
                Some(lines) => report.of_lines(lines),
                None => report,
            };
            let report = Report {
                code: Some(code),
                ..report
            };
            (Some(report), code)
        }
    };
    show.end(result.as_ref().ok(), report.as_ref());
    if let Some(report) = report {
        report::print(&report, format);
    }
    code
}

/// Gives who builds where nothing can be mounted. What mounts nothing is done as who it is: root in an
/// ordinary container has rights that it would give up.
fn users(request: &Request, around: &Surroundings) -> Users {
    match request.rootfs {
        // No root can be mounted there either, so nothing makes up for what root gives up.
        RootfsChoice::Auto if around.uid == 0 && !mounts(request) => Users::Same,
        RootfsChoice::Auto | RootfsChoice::Overlay | RootfsChoice::Fuse => Users::Own,
        RootfsChoice::Chroot | RootfsChoice::InPlace => Users::Same,
    }
}

/// Tells whether a root can be mounted, if need be in a user namespace of the builder's own.
fn mounts(request: &Request) -> bool {
    let may = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
    let opens = || {
        let mut options = std::fs::File::options();
        options.read(true).write(true).open("/dev/fuse").is_ok()
    };
    let could = space(&request.store).is_ok_and(|room| room.kind != "overlay") || opens();
    // A filter of system calls may allow mounts and refuse what else a command wants.
    could && (may || doctor::can_mount(request))
}

/// Why there is no image, or no note of it.
enum Failure {
    Build(build::Error),
    Outputs(outputs::Error),
    Panic,
}

impl Failure {
    /// Gives what is told of it and the exit code. After a signal that is the signal's, whatever
    /// it made fail first.
    fn report(&self, request: &Request, around: &Surroundings, signal: i32) -> (Report, u8) {
        if signal > 0 {
            let code = u8::try_from(signal).map_or(FAILURE, |number| 128 | number);
            return (Report::cancelled(signal), code);
        }
        match self {
            Failure::Build(error) => {
                let code = match error {
                    build::Error::Run { code, .. } => u8::try_from(*code).unwrap_or(FAILURE),
                    _ => FAILURE,
                };
                let report = Report::build(error, &request.dockerfile, &around.cwd);
                let report = report.with_store(error, &request.store);
                (report, code.max(FAILURE))
            }
            Failure::Panic => {
                let usage = Usage::new("a fault in shutter itself ended the build");
                (Report::usage(&usage), FAILURE)
            }
            Failure::Outputs(error) => {
                let tried = "the image is made, but not every note of it";
                (Report::error(tried, error), FAILURE)
            }
        }
    }
}

fn build_all(
    request: &Request,
    options: &Options,
    sandbox: &Sandbox,
    sink: &Sink,
    cancel: &Cancel,
) -> Result<Built, Failure> {
    // A fault of ours must not leave the terminal half drawn; the panic hook has told where it is.
    let work = || build::build(request, sandbox, sink, cancel);
    let built = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .map_err(|_| Failure::Panic)?
        .map_err(Failure::Build)?;
    outputs::write(request, options, &built).map_err(Failure::Outputs)?;
    Ok(built)
}

/// Starts the thread that turns signals into the cancel switch; gives where the first one's number
/// is kept. A second signal ends the process at once.
fn listen(cancel: &Cancel) -> std::io::Result<Arc<AtomicI32>> {
    let first = Arc::new(AtomicI32::new(0));
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])?;
    let (kept, cancel) = (first.clone(), cancel.clone());
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                if kept
                    .compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst)
                    .is_err()
                {
                    // No destructor is waited for: the store clears up after the dead.
                    signal_hook::low_level::exit(128 | signal);
                }
                cancel.cancel();
            }
        })?;
    Ok(first)
}

/// Prints to stdout; a closed pipe is not our business.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// Gives the width of the terminal, 80 where there is none.
fn columns() -> usize {
    show::terminal_size(&std::io::stdout()).map_or(80, |(columns, _)| columns)
}

/// Looks for a log format among words that could not be parsed, so that a log of objects stays one.
fn guess_format(words: &[OsString]) -> LogFormat {
    let text = |word: &OsString| word.to_str().unwrap_or_default().to_owned();
    let joined = words.iter().any(|word| text(word) == "--log-format=json");
    let parted = words
        .windows(2)
        .any(|pair| text(&pair[0]) == "--log-format" && text(&pair[1]) == "json");
    if joined || parted {
        LogFormat::Json
    } else {
        LogFormat::Text
    }
}
