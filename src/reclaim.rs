//! Who may still be reading what has been unlinked: pin, retire, quiesce.
//!
//! The only file that names the epoch engine. What the engine gives is one fact: a thread that is
//! pinned when a batch is sealed has been unpinned by the time the batch is *ripe*. All else is
//! here, because the engine's own bags do not do for values that belong to users:
//!
//! * **Nothing is kept in a thread.** An object is retired to its cache's own queues, where
//!   [`Domain::quiesce`] finds it even when the thread that retired it has gone to sleep.
//! * **No foreign code under a pin.** The engine collects inside somebody's `pin()`. There it
//!   only raises a batch's flag; objects are dropped by [`Domain::tidy`], with no pin held by
//!   this thread, and each drop is contained: one that panics is counted and the next goes on.
//! * **A domain of our own.** A long `crossbeam_epoch::pin()` elsewhere in the program keeps
//!   none of our garbage. All caches of a program share the pins, each has its own queues.
//!
//! An object goes: *unlinked* by its owner, *retired* to a queue, *sealed* with up to 63 others
//! into a batch, *ripe* after a grace period, *reaped*.

use crate::foreign::contain;
use crate::sync::{AtomicUsize, Ordering};
use std::sync::Arc;

#[cfg(atomic_cache_loom)]
pub(crate) use crate::tests::reclaim_checker::{Domain, Pin, deref, is_pinned, pin};
#[cfg(not(atomic_cache_loom))]
pub(crate) use epoch::{Domain, Pin, deref, is_pinned, pin};

/// A retired object: where it is, and how to drop it.
pub(crate) struct Garbage {
    object: *mut (),
    /// Called once, with `object`, when nobody can be reading it any more. Contains what panics,
    /// and says whether anything did.
    reap: unsafe fn(*mut ()) -> bool,
}

impl Garbage {
    /// # Safety
    /// `object` is unlinked, retired nowhere else, and may be handed to `reap` from any thread
    /// that may use the cache it belongs to.
    pub(crate) unsafe fn new(object: *mut (), reap: unsafe fn(*mut ()) -> bool) -> Self {
        Self { object, reap }
    }

    /// A boxed object that was published with `Box::into_raw`.
    ///
    /// # Safety
    /// As for [`new`](Self::new), and `object` came from `Box::into_raw`.
    pub(crate) unsafe fn boxed<T>(object: *mut T) -> Self {
        unsafe fn reap<T>(object: *mut ()) -> bool {
            // SAFETY: `Garbage::boxed` was promised a pointer from `Box::into_raw::<T>`, and
            // `reap` is called once.
            contain(|| drop(unsafe { Box::from_raw(object.cast::<T>()) }))
        }
        // SAFETY: passed on to our caller.
        unsafe { Self::new(object.cast(), reap::<T>) }
    }

    /// A counted object that was published with `Arc::into_raw`: that count is given up.
    ///
    /// # Safety
    /// As for [`new`](Self::new), and `object` came from `Arc::into_raw`.
    pub(crate) unsafe fn counted<T>(object: *const T) -> Self {
        unsafe fn reap<T>(object: *mut ()) -> bool {
            // SAFETY: `Garbage::counted` was promised a pointer from `Arc::into_raw::<T>`, and
            // `reap` is called once.
            contain(|| drop(unsafe { Arc::from_raw(object.cast::<T>()) }))
        }
        // SAFETY: passed on to our caller.
        unsafe { Self::new(object.cast_mut().cast(), reap::<T>) }
    }

    /// Drops the object; true when its destructor panicked.
    pub(crate) fn reap(self) -> bool {
        // SAFETY: `self` is consumed, so this is the one call; the caller has waited out the grace
        // period or owns the domain alone, and `new` promised the rest.
        unsafe { (self.reap)(self.object) }
    }

    #[cfg(atomic_cache_loom)]
    pub(crate) fn address(&self) -> usize {
        self.object as usize
    }
}

/// How much has been retired and not yet reaped, and how many destructors panicked.
#[derive(Debug)]
pub(crate) struct Gauge {
    pub(crate) retired: AtomicUsize,
    pub(crate) panics: AtomicUsize,
}

impl Gauge {
    pub(crate) fn new() -> Self {
        Self {
            retired: AtomicUsize::new(0),
            panics: AtomicUsize::new(0),
        }
    }

    pub(crate) fn reap(&self, garbage: Garbage) {
        if garbage.reap() {
            self.panics.fetch_add(1, Ordering::Relaxed);
        }
        // Release: who reads the gauge at zero (Acquire) has the drops behind it.
        self.retired.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(not(atomic_cache_loom))]
mod epoch {
    use super::{Garbage, Gauge};
    use crate::stats::{STRIPES, stripe};
    use crate::sync::{Arc, AtomicBool, Mutex, Ordering, lock, relax, yield_now};
    use crossbeam_epoch::{Collector, Guard, LocalHandle};
    use crossbeam_queue::SegQueue;
    use crossbeam_utils::CachePadded;
    use std::cell::Cell;
    use std::collections::VecDeque;
    use std::sync::LazyLock;

    /// How many objects are sealed at a time. Sealing costs about as much as 30 retires, so this
    /// makes it a small part of each, and it bounds what an idle cache keeps to
    /// `STRIPES * BATCH` and the batches in grace.
    const BATCH: usize = if cfg!(test) { 4 } else { 64 };

    /// How many retired objects make a writer that comes by with a full queue stop and help.
    const PLENTY: usize = 1024;

    /// How many epochs a batch waits for, and one to find it ripe.
    const EPOCHS: usize = 4;

    /// How often it gives the processor away for that, at most.
    const PATIENT_TURNS: usize = 32;

    static COLLECTOR: LazyLock<Collector> = LazyLock::new(Collector::new);

    thread_local! {
        static HANDLE: LocalHandle = COLLECTOR.register();
        /// This thread is inside [`Domain::reap_ripe`]: a destructor may call us back.
        static REAPING: Cell<bool> = const { Cell::new(false) };
        /// Pins that this thread has taken late: see [`Late`].
        static LATE_PINS: Cell<usize> = const { Cell::new(0) };
    }

    /// While it lives, nothing that this thread can reach is freed.
    pub(crate) struct Pin {
        guard: Guard,
        _late: Late,
    }

    /// Whether a pin was taken in the destructors of this thread's thread-locals, where the
    /// thread's own handle is gone and cannot say that it is pinned.
    struct Late(bool);

    impl Drop for Late {
        #[inline(always)]
        fn drop(&mut self) {
            if self.0 {
                LATE_PINS.set(LATE_PINS.get() - 1);
            }
        }
    }

    /// Pins the thread: about 11 ns, and nothing when it is pinned already.
    #[inline]
    pub(crate) fn pin() -> Pin {
        // In the destructors of thread-locals the handle may be gone: a fresh one then serves
        // for this pin alone.
        match HANDLE.try_with(LocalHandle::pin) {
            Ok(guard) => Pin {
                guard,
                _late: Late(false),
            },
            Err(_) => pin_late(),
        }
    }

    #[cold]
    fn pin_late() -> Pin {
        LATE_PINS.set(LATE_PINS.get() + 1);
        Pin {
            guard: COLLECTOR.register().pin(),
            _late: Late(true),
        }
    }

    /// Whether this thread holds a pin.
    pub(crate) fn is_pinned() -> bool {
        HANDLE
            .try_with(LocalHandle::is_pinned)
            .unwrap_or(LATE_PINS.get() > 0)
    }

    /// A look at a shared object, which `_pin` keeps. (The models check here that it has not
    /// been freed.)
    ///
    /// # Safety
    /// `object` was reachable, or held, at some moment since `_pin` was taken.
    #[inline(always)]
    pub(crate) unsafe fn deref<T>(object: *const T, _pin: &Pin) -> &T {
        // SAFETY: by the caller's promise it has not been reaped: what is unlinked after the pin
        // was taken ripens only after it is let go.
        unsafe { &*object }
    }

    /// Objects that share one grace period.
    struct Batch {
        /// Raised by the engine. Release there, Acquire in `reap_ripe`: what readers did under
        /// their pins comes before the reaping.
        ripe: AtomicBool,
        /// Every object has been dropped. Release after the drops, Acquire in `quiesce`.
        reaped: AtomicBool,
        objects: Mutex<Vec<Garbage>>,
    }

    // SAFETY: the engine's closure, on any thread, touches the flag alone. The objects are
    // touched through the domain alone, that is by threads that may use the cache.
    unsafe impl Send for Batch {}
    // SAFETY: as above.
    unsafe impl Sync for Batch {}

    /// What one cache has retired.
    pub(crate) struct Domain {
        /// By thread, so that removals on different threads do not meet.
        limbo: Box<[CachePadded<SegQueue<Garbage>>]>,
        /// The lock is held for a few instructions, never over foreign code, and ordinary
        /// traffic only *tries* it when it has work to begin.
        sealed: Mutex<Sealed>,
        gauge: Gauge,
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
        pub(crate) fn new() -> Self {
            Self {
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
            // The engine moves its epoch on once a flush, and a batch waits for a few.
            for _ in 0..EPOCHS {
                pin().guard.flush();
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
                // Each flush lets the engine move its epoch on, if nobody holds it back.
                pin().guard.flush();
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
                let batch = Arc::new(Batch {
                    ripe: AtomicBool::new(false),
                    reaped: AtomicBool::new(false),
                    objects: Mutex::new(objects),
                });
                in_grace.push_back(batch.clone());
                let pin = pin();
                pin.guard
                    .defer(move || batch.ripe.store(true, Ordering::Release));
                // The engine keeps deferred functions in the thread until told otherwise.
                pin.guard.flush();
            }
        }

        /// Drops the objects of ripe batches, oldest first, with nothing held.
        fn reap_ripe(&self) {
            let was_reaping = REAPING.replace(true);
            while let Some(batch) = self.take_ripe() {
                let objects = std::mem::take(&mut *lock(&batch.objects));
                for garbage in objects {
                    self.gauge.reap(garbage);
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
            if !sealed.in_grace.front()?.ripe.load(Ordering::Acquire) {
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
                // Each flush lets the engine move its epoch on, if nobody holds it back.
                pin().guard.flush();
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
                    self.gauge.reap(garbage);
                }
            }
            for batch in lock(&self.sealed).in_grace.drain(..) {
                for garbage in std::mem::take(&mut *lock(&batch.objects)) {
                    self.gauge.reap(garbage);
                }
            }
        }
    }
}
