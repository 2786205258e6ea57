//! The running fills, as they are shown: see [`Cache::in_flight`](crate::Cache::in_flight).

use std::time::Duration;

/// A fill that was running when the cache was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InFlight<K> {
    /// Its key.
    pub key: K,
    /// For how long it had been running, by the cache's clock. `None`: a refresh or a compute over
    /// a value that is still served, in a cache that does not [watch](crate::Builder::on_slow_fill)
    /// its fills.
    pub age: Option<Duration>,
    /// The number of its waiters: the callers that had joined, without the leader. Of an async fill
    /// that the cache owns, all callers that wait for it.
    pub waiters: usize,
    /// The kind of caller that runs it.
    pub led_by: LedBy,
    /// Whether a removal that waits for it has [detached](crate::Cache#effects-on-a-running-fill)
    /// it: its value will not be kept. (Fills that were detached without a wait, or abandoned, are
    /// not shown any more.)
    pub fenced_off: bool,
}

/// The kind of caller that runs a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LedBy {
    /// A thread, which blocks in it; or a placeholder guard.
    Thread,
    /// A task; or, of an async fill that the cache owns, the waiter that is polled; or a task's
    /// guard.
    Task,
}
