//! The thread that removes what has expired, for caches that ask for one.
//!
//! It looks at every entry once an interval. An index in the order of deadlines (a lock-free skip
//! list) would find the expired ones without a look at the others, and was measured: keeping it
//! adds half as much again to every fill, whether anything expires or not, and an allocation to
//! every entry, where a look takes some tens of nanoseconds an entry and interval
//! (`cargo bench -p atomic-cache-bench --bench expiry`).

use crate::sync::os::{Arc, Condvar, Mutex, PoisonError, thread};
use std::time::{Duration, Instant};

/// What there is to be done once an interval; `false` when there is no cache any more.
pub(crate) type Round = Box<dyn Fn() -> bool + Send>;

/// A running janitor. When this goes, it stops.
pub(crate) struct Janitor {
    signal: Arc<Signal>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

#[derive(Default)]
struct Signal {
    stopped: Mutex<bool>,
    bell: Condvar,
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
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bell.notify_all();
    }
}

impl Janitor {
    /// Starts a thread that does its round once an interval.
    pub(crate) fn start(interval: Duration, round: Round) -> std::io::Result<Self> {
        let signal = Arc::new(Signal::default());
        let its = Arc::clone(&signal);
        let thread = thread::Builder::new()
            .name("atomic-cache janitor".to_owned())
            .spawn(move || while its.sleep(interval) && round() {})?;
        Ok(Self {
            signal,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Stops it, and waits for its last round to end; if it is not itself who asks.
    pub(crate) fn stop(&self) {
        self.signal.stop();
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
}

impl Drop for Janitor {
    /// Stops it without waiting: the last handle may be the janitor's own.
    fn drop(&mut self) {
        self.signal.stop();
    }
}
