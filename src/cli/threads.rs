//! Whether there may be as many threads as a build starts, before one cannot be done without.

use super::parse::Usage;
use std::sync::Mutex;
use std::thread;

/// How many threads and processes even a small build has at a time.
const FEW: usize = 24;

/// Starts as many threads as a build does, and ends them. To be called once there may be threads.
pub(super) fn check() -> Result<(), Usage> {
    // All of them are there at a time, since none gets past this before it is let go.
    let gate = Mutex::new(());
    let started = thread::scope(|scope| {
        let held = gate.lock();
        let started = (0..FEW).try_for_each(|_| {
            thread::Builder::new()
                .stack_size(64 << 10)
                .spawn_scoped(scope, || drop(gate.lock()))
                .map(drop)
        });
        drop(held);
        started
    });
    started.map_err(|error| Usage {
        hint: Some(
            "raise the limit of processes: ulimit -u, docker run --pids-limit, in a pod the node's \
             podPidsLimit"
                .to_owned(),
        ),
        ..Usage::new(format!(
            "a build takes {FEW} threads and processes at the least, and here it may not have them: {error}"
        ))
    })
}
