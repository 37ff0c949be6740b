//! Waiting for what another thread makes.

use crate::sys::Cancel;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A value that one thread makes and any number of threads wait for.
pub(super) struct Slot<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

enum State<T> {
    Pending,
    Ready(T),
    Failed,
}

impl<T: Clone> Slot<T> {
    pub(super) fn new() -> Slot<T> {
        Slot {
            state: Mutex::new(State::Pending),
            changed: Condvar::new(),
        }
    }

    /// Puts the value in; `None` says that its maker failed and has reported why.
    pub(super) fn set(&self, value: Option<T>) {
        *lock(&self.state) = match value {
            Some(value) => State::Ready(value),
            None => State::Failed,
        };
        self.changed.notify_all();
    }

    /// Makes one that has its value.
    pub(super) fn ready(value: T) -> Slot<T> {
        Slot {
            state: Mutex::new(State::Ready(value)),
            changed: Condvar::new(),
        }
    }

    /// Gives the value if it is there.
    pub(super) fn peek(&self) -> Option<T> {
        match &*lock(&self.state) {
            State::Ready(value) => Some(value.clone()),
            State::Pending | State::Failed => None,
        }
    }

    /// Waits for the value; `None` where its maker failed.
    pub(super) fn wait(&self) -> Option<T> {
        let mut state = lock(&self.state);
        loop {
            match &*state {
                State::Ready(value) => return Some(value.clone()),
                State::Failed => return None,
                State::Pending => {
                    state = self
                        .changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

/// Sets a slot to failed when it is dropped before `done`, so that nobody waits for ever for a
/// thread that left early.
pub(super) struct Promise<'a, T: Clone>(Option<&'a Slot<T>>);

impl<'a, T: Clone> Promise<'a, T> {
    pub(super) fn new(slot: &'a Slot<T>) -> Promise<'a, T> {
        Promise(Some(slot))
    }

    pub(super) fn done(mut self, value: T) {
        if let Some(slot) = self.0.take() {
            slot.set(Some(value));
        }
    }
}

impl<T: Clone> Drop for Promise<'_, T> {
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            slot.set(None);
        }
    }
}

/// Lets so many threads through at a time.
pub(super) struct Gate {
    free: Mutex<usize>,
    changed: Condvar,
}

impl Gate {
    pub(super) fn new(places: usize) -> Gate {
        Gate {
            free: Mutex::new(places.max(1)),
            changed: Condvar::new(),
        }
    }

    pub(super) fn enter(&self) -> Pass<'_> {
        let mut free = lock(&self.free);
        while *free == 0 {
            free = self
                .changed
                .wait(free)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Pass(self)
    }
}

/// A place behind a gate, given back when dropped.
pub(super) struct Pass<'a>(&'a Gate);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.changed.notify_one();
    }
}

/// Keeps the error that came first and ends the rest of the build.
pub(super) struct Failure {
    first: Mutex<Option<super::Error>>,
    cancel: Cancel,
}

impl Failure {
    pub(super) fn new(cancel: &Cancel) -> Failure {
        Failure {
            first: Mutex::new(None),
            cancel: cancel.clone(),
        }
    }

    /// Notes an error. What comes after the switch is thrown is a consequence, not a cause.
    pub(super) fn note(&self, error: super::Error) {
        let mut first = lock(&self.first);
        if first.is_none() {
            *first = Some(if self.cancel.is_set() {
                super::Error::Cancelled
            } else {
                error
            });
        }
        drop(first);
        self.cancel.cancel();
    }

    /// Notes the error of a result, gives its value.
    pub(super) fn check<T>(&self, result: Result<T, super::Error>) -> Option<T> {
        result.map_err(|error| self.note(error)).ok()
    }

    /// Gives the error that came first, if there was one.
    pub(super) fn take(&self) -> Option<super::Error> {
        lock(&self.first).take()
    }
}

/// Locks a mutex whose data stays whole when a holder panics.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
