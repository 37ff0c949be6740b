//! Waiting for the next question without going to sleep: a command asks many in a row, and to wake a
//! thread on an idle processor costs more than most answers, in a virtual machine several times as much.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long is waited for the next question.
const LONGEST: Duration = Duration::from_micros(50);

/// How long others may run in between, before the processor is left to them.
const OTHERS: Duration = Duration::from_micros(20);

/// The device that questions come from, while it is waited for the next one.
pub(super) struct Linger(OwnedFd);

impl Linger {
    /// Takes a descriptor of the device; none where there is but one processor, which whoever asks next
    /// wants for himself.
    pub(super) fn new(device: OwnedFd) -> Option<Linger> {
        let several = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
        several.then_some(Linger(device))
    }

    /// Waits until there is a question, somebody else wants the processor, or it has been long enough.
    pub(super) fn wait(&self) {
        let at_once = Timespec::default();
        let begun = Instant::now();
        let mut last = Duration::ZERO;
        loop {
            let mut device = [PollFd::new(&self.0, PollFlags::IN)];
            if !matches!(poll(&mut device, Some(&at_once)), Ok(0)) {
                return;
            }
            // Whoever was answered may run here, which is what he needs no waking for.
            std::thread::yield_now();
            let now = begun.elapsed();
            if now > LONGEST || now - last > OTHERS {
                return;
            }
            last = now;
        }
    }
}

/// Waits for the next question when it is dropped.
pub(super) struct Lingers<'a>(pub(super) &'a Linger);

impl Drop for Lingers<'_> {
    fn drop(&mut self) {
        self.0.wait();
    }
}
