//! Fills that run, as they are shown: see [`Cache::in_flight`](crate::Cache::in_flight).

use std::time::Duration;

/// A fill that was running when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InFlight<K> {
    /// Its key.
    pub key: K,
    /// For how long it had been running, by the cache's clock. `None`: a refresh or a compute over a
    /// value that is still served, in a cache that does not [watch](crate::Builder::on_slow_fill) its
    /// fills.
    pub age: Option<Duration>,
    /// How many waited for it: those who had joined, not counting its leader. Of an async fill that
    /// its flight keeps, all who ask for it.
    pub waiters: usize,
    /// Who runs it.
    pub led_by: LedBy,
    /// Whether a removal that waits for it has [detached](crate::Cache#what-becomes-of-a-fill-that-runs) it: its value will not
    /// be kept. (Fills that were cut off, or given up, are shown no more.)
    pub fenced_off: bool,
}

/// Who runs a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LedBy {
    /// A thread, which blocks in it; or a placeholder guard.
    Thread,
    /// A task; or whoever is polled, of those who wait; or a task's guard.
    Task,
}
