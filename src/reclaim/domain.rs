//! What one cache has retired, on its way to be dropped.

use super::engine::{self, Grace, is_pinned};
use super::{Garbage, Gauge, Home};
use crate::stats::{STRIPES, stripe};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, lock, relax, yield_now};
use crossbeam_queue::SegQueue;
use crossbeam_utils::CachePadded;
use std::cell::Cell;
use std::collections::VecDeque;

/// How many objects are sealed at a time. Sealing costs as much as some 30 to 100 retires (with the
/// asymmetric engine, the heavy half of a barrier), so this makes it a small part of each, and it
/// bounds what an idle cache keeps to `STRIPES * BATCH` and the batches in grace.
const BATCH: usize = if cfg!(test) { 4 } else { 64 };

/// How many retired objects make a writer that comes by with a full queue stop and help.
const PLENTY: usize = 1024;

/// How often it gives the processor away for that, at most.
const PATIENT_TURNS: usize = 32;

thread_local! {
    /// This thread is inside [`Domain::reap_ripe`]: a destructor may call us back.
    static REAPING: Cell<bool> = const { Cell::new(false) };
}

/// Objects that share one grace period.
struct Batch {
    grace: Grace,
    /// Every object has been dropped. Release after the drops, Acquire in `quiesce`.
    reaped: AtomicBool,
    objects: Mutex<Vec<Garbage>>,
}

/// What one cache has retired.
pub(crate) struct Domain {
    /// By thread, so that removals on different threads do not meet.
    limbo: Box<[CachePadded<SegQueue<Garbage>>]>,
    /// The lock is held for a few instructions, never over foreign code, and ordinary
    /// traffic only *tries* it when it has work to begin.
    sealed: Mutex<Sealed>,
    gauge: Gauge,
    home: Home,
}

/// The batches of a domain that are not yet reaped.
#[derive(Default)]
struct Sealed {
    /// Oldest first.
    in_grace: VecDeque<Arc<Batch>>,
    /// Ripe, and being reaped by some thread; `quiesce` waits for these too.
    in_hand: Vec<Arc<Batch>>,
}

impl Domain {
    /// What is retired here goes back to `home`, which outlives the domain.
    pub(crate) fn new(home: Home) -> Self {
        Self {
            home,
            limbo: (0..*STRIPES).map(|_| CachePadded::default()).collect(),
            sealed: Mutex::new(Sealed::default()),
            gauge: Gauge::new(),
        }
    }

    /// Takes an unlinked object, to be dropped after a grace period.
    ///
    /// Cost: one lock-free push. Runs no foreign code.
    pub(crate) fn retire(&self, garbage: Garbage) {
        self.gauge.retired.fetch_add(1, Ordering::Relaxed);
        self.limbo[stripe()].push(garbage);
    }

    /// Objects retired and not yet dropped.
    pub(crate) fn retired(&self) -> usize {
        self.gauge.retired.load(Ordering::Acquire)
    }

    /// Destructors that panicked.
    pub(crate) fn panicked_drops(&self) -> usize {
        self.gauge.panics.load(Ordering::Relaxed)
    }

    /// Housekeeping after a removal: seals a full queue and drops what is ripe. It runs
    /// users' destructors, so it does nothing on a thread that is pinned or in one already.
    #[inline]
    pub(crate) fn tidy(&self) {
        if self.is_due() {
            self.tidy_full_queue();
        }
    }

    /// Whether this thread's queue is full.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.limbo[stripe()].len() >= BATCH
    }

    #[cold]
    fn tidy_full_queue(&self) {
        if is_pinned() || REAPING.get() {
            return;
        }
        if let Ok(mut sealed) = self.sealed.try_lock() {
            Self::seal(&self.limbo[stripe()], &mut sealed.in_grace);
        }
        engine::advance();
        self.reap_ripe();
        self.relieve();
    }

    /// Seals what is in all queues, and drops what is ripe; waits for nobody. As
    /// [`tidy`](Self::tidy), does nothing on a thread that is pinned or in a destructor.
    pub(crate) fn flush(&self) {
        if is_pinned() || REAPING.get() || self.retired() == 0 {
            return;
        }
        if let Ok(mut sealed) = self.sealed.try_lock() {
            for queue in &self.limbo {
                Self::seal(queue, &mut sealed.in_grace);
            }
        }
        for _ in 0..engine::ADVANCES {
            engine::advance();
        }
        self.reap_ripe();
    }

    /// Helps, and then makes way, while there is too much garbage.
    ///
    /// What keeps garbage from ripening is a reader that was preempted while it was pinned,
    /// and with more threads than cores there is always one. Giving the processor away lets
    /// it go on. A reader that sleeps pinned is not waited for: after some turns we go on.
    fn relieve(&self) {
        for _ in 0..PATIENT_TURNS {
            if self.retired() <= PLENTY {
                return;
            }
            yield_now();
            engine::advance();
            self.reap_ripe();
        }
    }

    /// Moves what a queue holds into batches and starts their grace periods.
    fn seal(queue: &SegQueue<Garbage>, in_grace: &mut VecDeque<Arc<Batch>>) {
        let mut left = queue.len();
        while left > 0 {
            let objects: Vec<_> = std::iter::from_fn(|| queue.pop())
                .take(left.min(BATCH))
                .collect();
            if objects.is_empty() {
                return;
            }
            left -= objects.len();
            in_grace.push_back(Arc::new(Batch {
                grace: Grace::begin(),
                reaped: AtomicBool::new(false),
                objects: Mutex::new(objects),
            }));
        }
    }

    /// Drops the objects of ripe batches, oldest first, with nothing held.
    fn reap_ripe(&self) {
        let was_reaping = REAPING.replace(true);
        while let Some(batch) = self.take_ripe() {
            let objects = std::mem::take(&mut *lock(&batch.objects));
            for garbage in objects {
                self.gauge.reap(garbage, self.home);
            }
            batch.reaped.store(true, Ordering::Release);
            lock(&self.sealed)
                .in_hand
                .retain(|other| !Arc::ptr_eq(other, &batch));
        }
        REAPING.set(was_reaping);
    }

    fn take_ripe(&self) -> Option<Arc<Batch>> {
        let mut sealed = self.sealed.try_lock().ok()?;
        if !sealed.in_grace.front()?.grace.is_over() {
            return None;
        }
        let batch = sealed.in_grace.pop_front()?;
        sealed.in_hand.push(batch.clone());
        Some(batch)
    }

    /// Returns when everything that was retired before the call has been dropped.
    ///
    /// Blocks while another thread stays pinned. Called from a destructor that this domain is
    /// running, it returns at once: that object's own batch cannot end before it.
    ///
    /// # Panics
    /// When this thread itself is pinned: it would wait for itself for ever.
    pub(crate) fn quiesce(&self) {
        if REAPING.get() {
            return;
        }
        assert!(
            !is_pinned(),
            "quiesce() called while this thread holds a pinned view of a cache: it would \
             wait for that view for ever; drop the view first"
        );
        let mut waiting = {
            let mut sealed = lock(&self.sealed);
            for queue in &self.limbo {
                Self::seal(queue, &mut sealed.in_grace);
            }
            let Sealed { in_grace, in_hand } = &*sealed;
            in_grace.iter().chain(in_hand).cloned().collect::<Vec<_>>()
        };
        self.quiesce_batches(&mut waiting);
    }

    fn quiesce_batches(&self, waiting: &mut Vec<Arc<Batch>>) {
        for turn in 0.. {
            engine::advance();
            self.reap_ripe();
            waiting.retain(|batch| !batch.reaped.load(Ordering::Acquire));
            if waiting.is_empty() {
                return;
            }
            relax(turn);
        }
    }
}

impl Drop for Domain {
    /// With the domain owned alone nobody can be reading: no grace is needed.
    fn drop(&mut self) {
        for queue in &self.limbo {
            while let Some(garbage) = queue.pop() {
                self.gauge.reap(garbage, self.home);
            }
        }
        for batch in lock(&self.sealed).in_grace.drain(..) {
            for garbage in std::mem::take(&mut *lock(&batch.objects)) {
                self.gauge.reap(garbage, self.home);
            }
        }
    }
}
