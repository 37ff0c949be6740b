use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// The one switch that ends a build: set once, seen by every thread, and readable as a file
/// descriptor by those that wait in `poll`.
#[derive(Clone)]
pub struct Cancel(Arc<Inner>);

struct Inner {
    set: AtomicBool,
    event: OwnedFd,
    /// Switches that this one turns on too.
    below: Mutex<Vec<Weak<Inner>>>,
}

impl Cancel {
    /// Makes a switch that is off.
    pub fn new() -> std::io::Result<Cancel> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Cancel(Arc::new(Inner {
            set: AtomicBool::new(false),
            event,
            below: Mutex::default(),
        })))
    }

    /// Makes a switch for a part of what this one ends: it goes on with this one, and not the other
    /// way round.
    pub fn part(&self) -> std::io::Result<Cancel> {
        let part = Cancel::new()?;
        let mut below = self.0.below.lock().unwrap_or_else(PoisonError::into_inner);
        below.retain(|part| part.strong_count() > 0);
        below.push(Arc::downgrade(&part.0));
        drop(below);
        // After it is known, so that it cannot be missed.
        if self.is_set() {
            part.cancel();
        }
        Ok(part)
    }

    /// Turns the switch on; it never goes off again.
    pub fn cancel(&self) {
        self.0.set.store(true, Ordering::SeqCst);
        // A full counter is readable just the same, so a failed write changes nothing.
        let _ = rustix::io::write(&self.0.event, &1u64.to_ne_bytes());
        let below = self.0.below.lock().unwrap_or_else(PoisonError::into_inner);
        let parts: Vec<Cancel> = below.iter().filter_map(Weak::upgrade).map(Cancel).collect();
        drop(below);
        for part in parts {
            part.cancel();
        }
    }

    /// Waits so long, or until the switch is on; tells whether it is.
    pub fn wait(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if self.is_set() || left.is_zero() {
                return self.is_set();
            }
            let timeout = Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            // Interrupted, or out of memory in the kernel: both pass.
            let _ = poll(&mut [PollFd::new(self, PollFlags::IN)], Some(&timeout));
        }
    }

    /// Tells whether the switch is on.
    pub fn is_set(&self) -> bool {
        self.0.set.load(Ordering::SeqCst)
    }

    /// Gives the switch as code that is not ours looks at it.
    pub fn flag(&self) -> &AtomicBool {
        &self.0.set
    }
}

impl AsFd for Cancel {
    /// Gives a descriptor that is readable once the switch is on; it must not be read from.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
