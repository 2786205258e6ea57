//! The thread that removes what has expired, for caches that ask for one.
//!
//! It looks at every entry once an interval. An index in the order of deadlines (a lock-free skip
//! list) would find the expired ones without a look at the others, and was measured: keeping it
//! adds half as much again to every fill, whether anything expires or not, and an allocation to
//! every entry, where a look takes some tens of nanoseconds an entry and interval
//! (`cargo bench -p atomic-cache-bench --bench expiry`).

use crate::sync::os::{Arc, Condvar, Mutex, PoisonError, thread};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::AcqRel, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What there is to be done once an interval; `false` when there is no cache any more. It asks now and then whether
/// it is to go on.
pub(crate) type Round = Box<dyn Fn(&GoOn) -> bool + Send>;

/// A running janitor. When this goes, it stops.
///
/// In its round the thread holds the cache, and so it may hold it longest. That is not to be: who drops the last
/// handle is to find everything dropped when that returns. So handles are counted here too, and who drops the last
/// one waits for the round to end; see [`leave`](Self::leave).
pub(crate) struct Janitor {
    signal: Arc<Signal>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
    /// Handles on the cache; those that a janitor needs no more than others are not counted anywhere else.
    handles: AtomicUsize,
    /// The process it was started in. A child that was forked from that has a copy of this, and no such thread.
    process: u32,
}

#[derive(Default)]
struct Signal {
    stopped: Mutex<bool>,
    bell: Condvar,
    /// As `stopped`, to be asked often.
    ends: AtomicBool,
}

/// Whether a janitor is to go on with its round.
pub(crate) struct GoOn(Arc<Signal>);

impl GoOn {
    pub(crate) fn yes(&self) -> bool {
        // Relaxed: it says nothing of anything else.
        !self.0.ends.load(Relaxed)
    }
}

impl Signal {
    /// Sleeps for an interval; false when it is to stop.
    fn sleep(&self, interval: Duration) -> bool {
        // An interval too long for the clock is one that never ends.
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
        self.ends.store(true, Relaxed);
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

    /// There is one handle more.
    pub(crate) fn enter(&self) {
        // Relaxed: made from one that is counted.
        self.handles.fetch_add(1, Relaxed);
    }

    /// A handle goes, which its thread still holds. If it is the last, the janitor ends, and with `wait` this waits for
    /// its round, in which the thread holds the cache: after it the caller is the last to hold it.
    ///
    /// (Not exactly the last by the count that frees the cache: a janitor that comes in just then has taken its hold
    /// from a handle that was there.)
    pub(crate) fn leave(&self, wait: impl FnOnce() -> bool) {
        // AcqRel: what was done with the other handles comes before the end.
        if self.handles.fetch_sub(1, AcqRel) == 1 {
            self.stop(wait());
        }
    }

    /// Stops it, and with `wait` waits for its last round to end; if it is not itself who asks.
    pub(crate) fn stop(&self, wait: bool) {
        if !self.is_ours() {
            return;
        }
        self.signal.stop();
        if !wait {
            return;
        }
        // Its own listener may come by here while another waits: nobody waits with the lock held.
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread.filter(|it| it.thread().id() != thread::current().id()) {
            // It cannot have panicked: what is foreign in its round is contained.
            let _ = thread.join();
        }
    }

    /// Whether its thread is one of this process.
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
        // Nor may another process's thread be let go of.
        let thread = self
            .thread
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::forget(thread.take());
    }
}
