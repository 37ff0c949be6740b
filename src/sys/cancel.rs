use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The one switch that ends a build: set once, seen by every thread, and readable as a file
/// descriptor by those that wait in `poll`.
#[derive(Clone)]
pub struct Cancel(Arc<Inner>);

struct Inner {
    set: AtomicBool,
    event: OwnedFd,
}

impl Cancel {
    /// Makes a switch that is off.
    pub fn new() -> std::io::Result<Cancel> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Cancel(Arc::new(Inner {
            set: AtomicBool::new(false),
            event,
        })))
    }

    /// Turns the switch on; it never goes off again.
    pub fn cancel(&self) {
        self.0.set.store(true, Ordering::SeqCst);
        // A full counter is readable just the same, so a failed write changes nothing.
        let _ = rustix::io::write(&self.0.event, &1u64.to_ne_bytes());
    }

    /// Tells whether the switch is on.
    pub fn is_set(&self) -> bool {
        self.0.set.load(Ordering::SeqCst)
    }
}

impl AsFd for Cancel {
    /// Gives a descriptor that is readable once the switch is on; it must not be read from.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
