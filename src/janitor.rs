//! The thread that removes expired entries, for caches that ask for one.
//!
//! It looks at every entry once an interval. An index by deadline (a lock-free skip list) would
//! find expired entries without a look at the others. It was measured: keeping the index adds half
//! as much again to every fill, whether entries expire or not, and an allocation to every entry. A
//! look takes some tens of nanoseconds an entry and interval (`cargo bench -p atomic-cache-bench
//! --bench expiry`).

use crate::sync::os::{
    Arc, AtomicBool, AtomicUsize, Condvar, Mutex, Ordering, PoisonError, thread,
};
use std::time::{Duration, Instant};

/// One round of the janitor; returns `false` when the cache is gone. It asks [`GoOn`] now and then,
/// and stops early on a no.
pub(crate) type Round = Box<dyn Fn(&GoOn) -> bool + Send>;

/// A running janitor. It stops when this is dropped.
///
/// In its round the thread holds the cache, and could be the last to hold it. But a caller that
/// drops the last handle must find everything dropped when that returns. So the janitor counts
/// handles too, and the caller that drops the last one waits for the round to end: see
/// [`leave`](Self::leave).
pub(crate) struct Janitor {
    signal: Arc<Signal>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
    /// The number of handles, without the thread's own hold.
    handles: AtomicUsize,
    /// The process that started the thread. A forked child has a copy of this, and no such thread.
    process: u32,
}

#[derive(Default)]
struct Signal {
    stopped: Mutex<bool>,
    bell: Condvar,
    /// The same as `stopped`, without the lock: a round reads it often.
    ends: AtomicBool,
}

/// Says whether a round must go on.
pub(crate) struct GoOn(Arc<Signal>);

impl GoOn {
    pub(crate) fn yes(&self) -> bool {
        // Relaxed: the flag orders nothing.
        !self.0.ends.load(Ordering::Relaxed)
    }
}

impl Signal {
    /// Sleeps for an interval; returns false if the janitor must stop.
    fn sleep(&self, interval: Duration) -> bool {
        // An interval too long for the clock never ends.
        let until = Instant::now().checked_add(interval);
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        while !*stopped {
            let left = until.map_or(Duration::MAX, |until| {
                until.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                return true;
            }
            stopped = self
                .bell
                .wait_timeout(stopped, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        false
    }

    fn stop(&self) {
        self.ends.store(true, Ordering::Relaxed);
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bell.notify_all();
    }
}

impl Janitor {
    /// Starts a thread that does its round once an interval.
    pub(crate) fn start(interval: Duration, round: Round) -> std::io::Result<Self> {
        let signal = Arc::new(Signal::default());
        let its = Arc::clone(&signal);
        let go_on = GoOn(Arc::clone(&signal));
        let thread = thread::Builder::new()
            .name("atomic-cache janitor".to_owned())
            .spawn(move || while its.sleep(interval) && round(&go_on) {})?;
        Ok(Self {
            signal,
            thread: Mutex::new(Some(thread)),
            handles: AtomicUsize::new(1),
            process: std::process::id(),
        })
    }

    /// Counts one more handle.
    pub(crate) fn enter(&self) {
        // Relaxed: it is made from a handle that is counted.
        self.handles.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a handle that its caller is about to drop. If it is the last, this stops the janitor.
    /// If `wait` returns true, this then waits for the round to end. The janitor's thread lets go
    /// of the cache there, and the caller is the last to hold it.
    pub(crate) fn leave(&self, wait: impl FnOnce() -> bool) {
        // AcqRel: all uses of the other handles come before the end.
        if self.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.stop(wait());
        }
    }

    /// Stops the janitor. With `wait`, waits for its last round to end, unless the janitor itself
    /// calls.
    pub(crate) fn stop(&self, wait: bool) {
        if !self.is_ours() {
            return;
        }
        self.signal.stop();
        if !wait {
            return;
        }
        // The janitor's own listener may call this while another thread waits: no thread waits with
        // the lock held.
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread.filter(|it| it.thread().id() != thread::current().id()) {
            // It cannot have panicked: its round catches the panics of user code.
            let _ = thread.join();
        }
    }

    /// Returns whether the thread belongs to this process.
    fn is_ours(&self) -> bool {
        self.process == std::process::id()
    }
}

impl Drop for Janitor {
    /// Stops it without waiting: the last hold may be the janitor's own.
    fn drop(&mut self) {
        if self.is_ours() {
            return self.signal.stop();
        }
        // The thread belongs to the parent process: this one must neither join nor detach it.
        let thread = self
            .thread
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::forget(thread.take());
    }
}
