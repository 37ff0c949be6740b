//! Which thread waits for the next question. A command asks many in a row, and to wake a thread on an
//! idle processor costs more than most answers, in a virtual machine several times as much. So one thread
//! waits, and stays awake for a while; the others sleep where the kernel does not wake them for a
//! question that the one will have taken. It gives its turn away before it does what may take long.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a thread stays awake for the next question.
const LONGEST: Duration = Duration::from_micros(50);

/// How long others may run in between, before the processor is left to them.
const OTHERS: Duration = Duration::from_micros(20);

/// The turns of the threads of one mount.
pub(super) struct Turns {
    /// The device that questions come from.
    device: OwnedFd,
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Default)]
struct State {
    /// Whether it is some thread's turn.
    taken: bool,
    /// How many threads wait for theirs.
    waiting: usize,
}

impl Turns {
    /// Takes a descriptor of the device; none where there is but one processor, which whoever asks next
    /// wants for himself.
    pub(super) fn new(device: OwnedFd) -> Option<Arc<Turns>> {
        let several = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
        several.then(|| {
            Arc::new(Turns {
                device,
                state: Mutex::default(),
                left: Condvar::new(),
            })
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is this thread's turn.
    fn take(self: &Arc<Turns>) {
        MINE.with_borrow_mut(|mine| {
            if mine.0.is_some() {
                return;
            }
            let mut state = self.state();
            state.waiting += 1;
            while state.taken {
                let waited = self.left.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
            }
            state.waiting -= 1;
            state.taken = true;
            mine.0 = Some(Arc::clone(self));
        });
    }

    /// Waits until there is a question, somebody else wants the processor, or it has been long enough.
    fn stay_awake(&self) {
        let at_once = Timespec::default();
        let begun = Instant::now();
        let mut last = Duration::ZERO;
        loop {
            let mut device = [PollFd::new(&self.device, PollFlags::IN)];
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

thread_local! {
    static MINE: RefCell<Turn> = const { RefCell::new(Turn(None)) };
}

/// A thread's turn, while it has it; given away at the latest when the thread ends, as all do when their
/// mount does.
struct Turn(Option<Arc<Turns>>);

impl Turn {
    fn leave(&mut self) {
        let Some(turns) = self.0.take() else { return };
        let mut state = turns.state();
        state.taken = false;
        if state.waiting > 0 {
            turns.left.notify_one();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Gives this thread's turn, if it has it, to another: what it does next may take long.
pub(super) fn leave() {
    MINE.with_borrow_mut(Turn::leave);
}

/// Has this thread wait for its turn and then for the next question when it is dropped.
pub(super) struct Next<'a>(pub(super) &'a Arc<Turns>);

impl Drop for Next<'_> {
    fn drop(&mut self) {
        // The thread ends; whoever asked is told so only once this is done.
        if std::thread::panicking() {
            return;
        }
        self.0.take();
        self.0.stay_awake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Gives turns at a device that has a question for whoever looks, and what keeps it so.
    fn turns() -> (Arc<Turns>, OwnedFd) {
        let (device, asker) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&asker, b"?").unwrap();
        let state = Mutex::default();
        let left = Condvar::new();
        let turns = Turns {
            device,
            state,
            left,
        };
        (Arc::new(turns), asker)
    }

    #[test]
    fn a_turn_is_one_threads_until_it_leaves_or_ends() {
        let (turns, _asker) = turns();
        let taken = AtomicBool::new(false);
        let work = || {
            for round in 0..1000 {
                drop(Next(&turns));
                assert!(!taken.swap(true, Ordering::SeqCst), "two turns at once");
                taken.store(false, Ordering::SeqCst);
                if round % 3 == 0 {
                    leave();
                }
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(work))));
        let state = turns.state();
        assert_eq!((state.taken, state.waiting), (false, 0));
    }

    #[test]
    fn a_thread_that_panics_waits_for_no_turn() {
        let (turns, _asker) = turns();
        drop(Next(&turns));
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let _next = Next(&turns);
                leave();
                panic!("as asked for");
            });
            assert!(thread.join().is_err());
        });
        leave();
    }
}
