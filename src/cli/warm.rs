//! `shutter warmer`, and what the program does where it is called `warmer`: images into a store.

use super::flags::Typed;
use super::meaning;
use super::report::{self, Report};
use super::show::Show;
use super::surroundings::Surroundings;
use super::{FAILURE, listen};
use crate::build;
use crate::sandbox::{Sandbox, Users};
use crate::sys::Cancel;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Fills a store; gives the exit code: 1 where an image could not be had.
pub(super) fn run(typed: Typed, around: &Surroundings) -> u8 {
    let format = meaning::log_format(&typed, around);
    let begun = Instant::now();
    let failed = |report: &Report| {
        report::print(report, format);
        FAILURE
    };
    let (warm, options) = match meaning::warm(&typed, around) {
        Ok(meant) => meant,
        Err(usage) => return failed(&Report::usage(&usage)),
    };
    // An ordinary user's layers are unpacked as a build of that user would.
    let _sandbox = (around.uid != 0).then(|| Sandbox::start_as(Users::Own));
    let listening = Cancel::new().and_then(|cancel| {
        let signal = listen(&cancel)?;
        Ok((cancel, signal))
    });
    let (cancel, signal) = match listening {
        Ok(listening) => listening,
        Err(error) => return failed(&Report::error("listen for signals", &error)),
    };
    let threads = warm.request.threads;
    let threads =
        threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    // Fails only where there is a pool already, and there is none.
    let _ = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global();
    let show = Show::start(&options, begun, &signal);
    let done = build::warm(&warm, &show.sink(), &cancel);
    show.end(None, None);
    let number = signal.load(Ordering::SeqCst);
    if number > 0 {
        report::print(&Report::cancelled(number), format);
        return u8::try_from(number).map_or(FAILURE, |number| 128 | number);
    }
    let dockerfile: &Path = &warm.request.dockerfile;
    match done {
        Ok(warmed) => {
            for error in &warmed.failed {
                report::print(&Report::build(error, dockerfile, &around.cwd), format);
            }
            if warmed.failed.is_empty() { 0 } else { FAILURE }
        }
        Err(error) => failed(&Report::build(&error, dockerfile, &around.cwd)),
    }
}
