use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The size of one permit's worth of memory.
pub(super) const UNIT: usize = 1 << 20;

/// Bounds the memory of all layers in the making together: permits for chunks, given out in order.
///
/// Every layer may hold the permits of two chunks whatever the others hold, so that none waits
/// for ever; the bound is therefore exceeded by at most two chunks a layer.
pub struct Permits {
    total: usize,
    state: Mutex<State>,
    freed: Condvar,
}

struct State {
    used: usize,
    most: usize,
    /// Buffers to use again: fresh memory costs page faults.
    pool: Vec<Vec<u8>>,
}

impl Permits {
    /// Makes so many permits for chunks of 1 MiB.
    pub fn new(chunks: usize) -> Arc<Permits> {
        Arc::new(Permits {
            total: chunks,
            state: Mutex::new(State {
                used: 0,
                most: 0,
                pool: Vec::new(),
            }),
            freed: Condvar::new(),
        })
    }

    /// Gives the most permits that were ever out at the same time.
    pub fn most_used(&self) -> usize {
        self.state().most
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One layer's share.
pub(super) struct Account {
    permits: Arc<Permits>,
    /// Chunks held by the layer.
    held: Arc<AtomicUsize>,
    /// What a chunk costs.
    units: usize,
}

/// A chunk of the tar with its permit, which goes back when the chunk is dropped.
pub(super) struct Chunk {
    pub bytes: Vec<u8>,
    permits: Arc<Permits>,
    /// The layer's count; none for a spare one, which must not eat into what a layer is sure of.
    held: Option<Arc<AtomicUsize>>,
    units: usize,
}

impl Account {
    /// Starts a layer whose chunks have so many bytes at most.
    pub fn new(permits: &Arc<Permits>, chunk: usize) -> Account {
        Account {
            permits: Arc::clone(permits),
            held: Arc::default(),
            units: chunk.div_ceil(UNIT).max(1),
        }
    }

    /// Waits for a permit.
    pub fn chunk(&self) -> Chunk {
        let mut state = self.permits.state();
        while state.used + self.units > self.permits.total && self.held.load(Ordering::Relaxed) >= 2
        {
            state = self
                .permits
                .freed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.held.fetch_add(1, Ordering::Relaxed);
        self.grant(state, self.units, Some(Arc::clone(&self.held)))
    }

    /// Takes a permit for reading ahead where there is one to spare.
    pub fn spare(&self) -> Option<Chunk> {
        let state = self.permits.state();
        (state.used < self.permits.total).then(|| self.grant(state, 1, None))
    }

    fn grant(
        &self,
        mut state: MutexGuard<'_, State>,
        units: usize,
        held: Option<Arc<AtomicUsize>>,
    ) -> Chunk {
        state.used += units;
        state.most = state.most.max(state.used);
        Chunk {
            bytes: state.pool.pop().unwrap_or_default(),
            permits: Arc::clone(&self.permits),
            held,
            units,
        }
    }
}

impl Chunk {
    /// Moves bytes and permit out; what is left has neither.
    pub fn take(&mut self) -> Chunk {
        Chunk {
            bytes: std::mem::take(&mut self.bytes),
            permits: Arc::clone(&self.permits),
            held: self.held.take(),
            units: std::mem::take(&mut self.units),
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let mut state = self.permits.state();
        state.used -= self.units;
        if let Some(held) = &self.held {
            held.fetch_sub(1, Ordering::Relaxed);
        }
        if bytes.capacity() > 0 && state.pool.len() < self.permits.total {
            state.pool.push(bytes);
        }
        drop(state);
        // Waiters want different numbers, and the one this serves may be any of them.
        self.permits.freed.notify_all();
    }
}
