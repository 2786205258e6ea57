//! The retired objects of one cache, on their way to be dropped.

use super::engine::{self, Grace, is_pinned};
use super::{Garbage, Home};
use crate::cycle::leads_any;
use crate::interlude::come_by;
use crate::stats::{MOST_STRIPES, STRIPES, unmasked_stripe};
use crate::sync::{
    Arc, AtomicBool, AtomicPtr, AtomicUsize, Mutex, Ordering, Tally, back_off, lock, relax,
};
use crate::time::coarse_now;
use crate::turnstile::Turnstile;
use crossbeam_utils::CachePadded;
use std::cell::Cell;
use std::collections::VecDeque;

/// Objects in a batch, unless the builder says otherwise, and the bounds of that. Sealing a batch
/// costs about a microsecond (with the asymmetric engine, the heavy half of a barrier), and in a
/// batch that is little for each object. An idle cache keeps up to one batch a stripe, and the
/// batches in grace.
const BATCH: usize = if cfg!(test) { 4 } else { 128 };
const SMALLEST_BATCH: usize = 32;
const LARGEST_BATCH: usize = 256;

/// Batches of retired objects that are too many: a thread that passes then helps, and yields.
const PLENTY: usize = 8;

/// Turns that a miss yields at least, the excess objects for one more turn, and the most turns.
const PATIENT_TURNS: usize = 8;
const MORE_PATIENCE: usize = 8;
const MOST_TURNS: usize = 128;

/// Nanoseconds without a drop after which threads stop to yield. No preempted reader holds the
/// garbage up for that long: the reader sleeps with a guard.
const STALLED: u64 = 100_000_000;

/// A stretch of time in nanoseconds: one to four ticks of the coarse clock. The first thread that
/// passes in the next stretch seals the rest of the one before.
const STRETCH: u64 = 3_500_000;

/// About how many batches are sealed in a stretch before they are full. If there are no more
/// removals than that, each batch has one object. With more removals batches are larger. With more
/// than `FEW` objects a batch they are left until they are full.
const EARLY_SEALS: usize = 128;
const FEW: usize = 16;

/// How often `flush` tries: it may be held up by a reader that is just leaving.
const FLUSHES: u32 = 3;

/// Misses between two checks whether a large retired object can be dropped. A check costs as much
/// as sealing a batch.
const LOOK_AGAIN: u32 = if cfg!(test) { 2 } else { 256 };

thread_local! {
    /// Misses of this thread while a large object was retired.
    static CAME_BY: Cell<u32> = const { Cell::new(0) };
    /// This thread is inside [`Domain::reap_ripe`]: a destructor may call us back.
    static REAPING: Cell<bool> = const { Cell::new(false) };
}

/// Objects that share one grace period.
struct Batch {
    /// `Some` once it is sealed.
    grace: Option<Grace>,
    /// Every object has been dropped. Release after the drops, Acquire in `quiesce`.
    reaped: AtomicBool,
    objects: Mutex<Vec<Garbage>>,
}

impl Batch {
    fn new() -> Self {
        Self {
            grace: None,
            reaped: AtomicBool::new(false),
            objects: Mutex::new(Vec::new()),
        }
    }

    fn is_ripe(&self) -> bool {
        self.grace.as_ref().is_some_and(Grace::is_over)
    }
}

/// The retired and unsealed objects of the threads of one stripe.
struct Limbo {
    objects: Turnstile<Vec<Garbage>>,
    /// The number of objects. Written inside the turnstile only.
    len: AtomicUsize,
}

impl Limbo {
    fn new() -> Self {
        Self {
            objects: Turnstile::new(Vec::new()),
            len: AtomicUsize::new(0),
        }
    }

    fn len(&self) -> usize {
        // Acquire: pairs with the Release in `move_to`. A thread that reads zero sees the sealed
        // objects counted in `in_batches`.
        self.len.load(Ordering::Acquire)
    }

    /// Fails with the garbage when another thread is at the turnstile.
    fn push(&self, garbage: Garbage) -> Result<(), Garbage> {
        let mut garbage = Some(garbage);
        self.objects.try_in(|objects| {
            objects.extend(garbage.take());
            self.len.store(objects.len(), Ordering::Relaxed);
        });
        garbage.map_or(Ok(()), Err)
    }
}

/// Garbage that was retired while another thread was at the stripe's turnstile. Threads only ever
/// take the whole list, so no thread waits for one that stops in between.
struct Overflow(AtomicPtr<Spilled>);

struct Spilled {
    garbage: Garbage,
    next: *mut Spilled,
}

impl Overflow {
    fn push(&self, garbage: Garbage) {
        let mut next = self.0.load(Ordering::Relaxed);
        let spilled = Box::into_raw(Box::new(Spilled { garbage, next }));
        // Release: pairs with the Acquire of `take`.
        while let Err(other) =
            self.0
                .compare_exchange_weak(next, spilled, Ordering::Release, Ordering::Relaxed)
        {
            next = other;
            // SAFETY: from `Box::into_raw` above, and not pushed yet: no other thread has it.
            unsafe { (*spilled).next = next };
        }
    }

    fn take(&self) -> Vec<Garbage> {
        let mut all = Vec::new();
        let mut spilled = self.0.swap(std::ptr::null_mut(), Ordering::Acquire);
        while !spilled.is_null() {
            // SAFETY: from `Box::into_raw`; the thread that swaps the list out is the only one to
            // have it.
            let this = unsafe { Box::from_raw(spilled) };
            all.push(this.garbage);
            spilled = this.next;
        }
        all
    }
}

/// The current rate of removals. (The numbers order nothing: with a stale one a thread seals a
/// batch early or late.)
struct Pace {
    /// The beginning of this stretch of time.
    began: Tally,
    /// Objects sealed in this stretch, and in the one before.
    sealed: Tally,
    before: Tally,
    /// The time of the first yield since an object was last dropped; 0 if there was none.
    stalled: Tally,
}

impl Pace {
    const fn new() -> Self {
        Self {
            began: Tally::new(0),
            sealed: Tally::new(0),
            before: Tally::new(0),
            stalled: Tally::new(0),
        }
    }

    /// Returns whether this look ends a stretch of time. Of the threads that look then, one gets
    /// `true`.
    fn ends(&self) -> bool {
        let (now, began) = (coarse_now(), self.began.load(Ordering::Relaxed));
        let length = now.wrapping_sub(began);
        let ends = length >= STRETCH
            && self
                .began
                .compare_exchange(began, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if ends {
            // The stretch may have lasted longer than `STRETCH`: scale to one.
            let sealed = self.sealed.swap(0, Ordering::Relaxed);
            let before = sealed / (length / STRETCH).max(1);
            self.before.store(before, Ordering::Relaxed);
        }
        ends
    }

    /// Returns how many objects make a batch worth sealing.
    fn worth(&self) -> usize {
        let sealed = self.sealed.load(Ordering::Relaxed);
        let most = sealed.max(self.before.load(Ordering::Relaxed));
        usize::try_from(most).unwrap_or(usize::MAX) / EARLY_SEALS
    }

    /// Notes that an object has been dropped.
    fn goes_on(&self) {
        if self.stalled.load(Ordering::Relaxed) != 0 {
            self.stalled.store(0, Ordering::Relaxed);
        }
    }

    /// Returns whether no object has been dropped for so long that threads do not yield any more.
    fn is_stalled(&self) -> bool {
        let (now, since) = (coarse_now().max(1), self.stalled.load(Ordering::Relaxed));
        if since == 0 {
            self.stalled.store(now, Ordering::Relaxed);
        }
        since != 0 && now.wrapping_sub(since) >= STALLED
    }
}

/// The weight of retired objects, in a cache that is bounded by weight, where one batch may weigh
/// much. (The numbers order nothing: with a stale one a thread looks early or late.)
struct Heft {
    weight: Tally,
    /// The weight that may be unsealed before a thread looks.
    most: Tally,
    /// The next look is due at this weight.
    due: Tally,
}

impl Heft {
    /// Weighs nothing; no look is ever due.
    const fn none() -> Self {
        Self {
            weight: Tally::new(0),
            most: Tally::new(u64::MAX),
            due: Tally::new(u64::MAX),
        }
    }

    fn is_weighed(&self) -> bool {
        self.most.load(Ordering::Relaxed) != u64::MAX
    }

    #[inline]
    fn is_due(&self) -> bool {
        self.weight.load(Ordering::Relaxed) >= self.due.load(Ordering::Relaxed)
    }

    /// Returns whether threads must yield to get rid of garbage: it weighs more than a quarter of
    /// the capacity.
    fn is_plenty(&self) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        self.weight.load(Ordering::Relaxed) > most.saturating_mul(8)
    }

    /// Called after a look or a drop: sets when the next look is due, at `most` more or at a
    /// quarter more than is left. (If a reader holds everything up, a look at every removal would
    /// be useless.)
    fn settle(&self) {
        loop {
            let weight = self.weight.load(Ordering::Relaxed);
            let most = self.most.load(Ordering::Relaxed);
            let due = weight.saturating_add(most.max(weight / 4));
            come_by("settle");
            // SeqCst: a swap, as in `set_most`. Of two threads that swap `due`, the later one sees
            // the numbers that the earlier one had written.
            self.due.swap(due, Ordering::SeqCst);
            // Another thread may have lowered the weight or changed the bound, and swapped `due`
            // before us. Then our `due` is from old numbers: compute it again.
            if self.weight.load(Ordering::SeqCst) >= weight
                && self.most.load(Ordering::SeqCst) == most
            {
                return;
            }
        }
    }

    fn retired(&self, weight: u64) {
        self.weight.fetch_add(weight, Ordering::Relaxed);
    }

    fn dropped(&self, weight: u64) {
        self.weight.fetch_sub(weight, Ordering::Relaxed);
        self.settle();
    }

    fn set_most(&self, most: u64) {
        let most = most.max(1);
        // SeqCst: swaps, which pair with the swap in `settle`. The thread that swaps `due` last
        // must see the bound and the weight of those before it.
        self.most.swap(most, Ordering::SeqCst);
        self.due.swap(most, Ordering::SeqCst);
    }
}

/// The retired objects of one cache.
pub(crate) struct Domain {
    /// By thread, so that removals on different threads do not meet.
    limbo: Box<[CachePadded<Limbo>]>,
    /// Garbage that was retired while another thread was at the stripe's turnstile, and its number.
    /// (It does not go to another stripe, because that stripe's threads may never come to seal it.)
    overflow: Overflow,
    spilled: AtomicUsize,
    /// Whether there may be retired objects that are not sealed: set after each push, reset before
    /// sealing everything.
    left: AtomicBool,
    /// Whether there was too much garbage at the last look, so that passing threads must help.
    crowded: AtomicBool,
    /// The lock is held for a few instructions, never over user code, and only `quiesce` waits for
    /// it. Any other thread that finds it taken goes on without.
    sealed: Mutex<Sealed>,
    /// Objects that are sealed and not dropped.
    in_batches: AtomicUsize,
    /// The number of destructors that panicked.
    panics: AtomicUsize,
    /// Retired objects that are large: they are not kept until a batch is full.
    large: AtomicUsize,
    heft: CachePadded<Heft>,
    /// Whether an object dropped here held a handle on the cache.
    held_handles: AtomicBool,
    /// How often a dropped handle looked for such an object in vain.
    looked_in_vain: Tally,
    pace: CachePadded<Pace>,
    home: Home,
    batch: usize,
}

/// The batches of a domain that are not reaped yet.
#[derive(Default)]
struct Sealed {
    /// The oldest first.
    in_grace: VecDeque<Arc<Batch>>,
    /// Ripe batches that a thread is reaping; `quiesce` waits for these too. The next thread that
    /// has the lock takes the reaped ones off.
    in_hand: Vec<Arc<Batch>>,
    /// Reaped batches for reuse: no thread holds them.
    free: Vec<Arc<Batch>>,
}

impl Sealed {
    /// Returns a batch without objects.
    fn empty_batch(&mut self) -> Arc<Batch> {
        self.free.pop().unwrap_or_else(|| Arc::new(Batch::new()))
    }

    /// Takes the reaped batches off `in_hand`.
    fn take_off_reaped(&mut self) {
        const FREE: usize = 4;
        let mut at = 0;
        while let Some(batch) = self.in_hand.get(at) {
            // Acquire: pairs with the reaper's Release, for the emptied list.
            if !batch.reaped.load(Ordering::Acquire) {
                at += 1;
                continue;
            }
            let mut batch = self.in_hand.swap_remove(at);
            if let Some(alone) = Arc::get_mut(&mut batch).filter(|_| self.free.len() < FREE) {
                alone.reaped = AtomicBool::new(false);
                if lock(&alone.objects).capacity() <= 2 * LARGEST_BATCH {
                    self.free.push(batch);
                }
            }
        }
    }
}

impl Domain {
    /// Makes a domain with batches of about `batch` objects. Reaped memory goes back to `home`,
    /// which outlives the domain.
    pub(crate) fn new(home: Home, batch: Option<usize>) -> Self {
        #[cfg(not(test))]
        let stripes = *STRIPES;
        #[cfg(test)]
        let stripes = tests::STRIPES_OF_THE_NEXT.get().unwrap_or(*STRIPES);
        Self::with_stripes(home, batch, stripes)
    }

    /// Does what [`new`](Self::new) does, with so many stripes, a power of two.
    fn with_stripes(home: Home, batch: Option<usize>, stripes: usize) -> Self {
        debug_assert!(stripes.is_power_of_two() && stripes <= MOST_STRIPES);
        Self {
            home,
            batch: batch.map_or(BATCH, |batch| batch.clamp(SMALLEST_BATCH, LARGEST_BATCH)),
            limbo: (0..stripes)
                .map(|_| CachePadded::new(Limbo::new()))
                .collect(),
            overflow: Overflow(AtomicPtr::new(std::ptr::null_mut())),
            spilled: AtomicUsize::new(0),
            left: AtomicBool::new(false),
            crowded: AtomicBool::new(false),
            held_handles: AtomicBool::new(false),
            looked_in_vain: Tally::new(0),
            pace: CachePadded::new(Pace::new()),
            sealed: Mutex::new(Sealed::default()),
            in_batches: AtomicUsize::new(0),
            panics: AtomicUsize::new(0),
            large: AtomicUsize::new(0),
            heft: CachePadded::new(Heft::none()),
        }
    }

    /// Weighs objects that are retired from now on. Above the weight `most` they do not wait for a
    /// full batch.
    pub(crate) fn set_most_weight(&self, most: u64) {
        self.heft.set_most(most);
    }

    /// Takes an unlinked object, to be dropped after a grace period.
    ///
    /// Cost: one locked instruction. Runs no user code, waits for no thread.
    pub(crate) fn retire(&self, garbage: Garbage) {
        if let Err(garbage) = self.limbo().push(garbage) {
            // Counted first, so that the sealer that takes it finds it counted.
            self.spilled.fetch_add(1, Ordering::Relaxed);
            self.overflow.push(garbage);
            // Release: a sealer that resets `left` (AcqRel) and reads this store sees the garbage.
            return self.left.store(true, Ordering::Release);
        }
        // Relaxed: a sealer resets `left` and then enters all turnstiles. If it entered this one
        // before us, its reset comes before our load, and we find `left` reset. If it enters after
        // us, it finds the garbage.
        if !self.left.load(Ordering::Relaxed) {
            self.left.store(true, Ordering::Relaxed);
        }
    }

    /// The queue for this thread's garbage.
    #[inline]
    fn limbo(&self) -> &Limbo {
        &self.limbo[unmasked_stripe() & (self.limbo.len() - 1)]
    }

    /// Returns whether there may be retired objects that are not dropped.
    pub(crate) fn has_garbage(&self) -> bool {
        self.left.load(Ordering::Relaxed) || self.in_batches.load(Ordering::Relaxed) > 0
    }

    /// Notes that an object dropped here held a handle on the cache.
    pub(crate) fn note_handle(&self) {
        if !self.held_handles.load(Ordering::Relaxed) {
            self.held_handles.store(true, Ordering::Relaxed);
        }
    }

    /// Returns whether a dropped handle must look for garbage that holds the other handles. Yes, if
    /// garbage has held any before. If not, yes for the first looks, and then whenever a removal
    /// would look too.
    pub(crate) fn may_hold_handles(&self) -> bool {
        const LOOKS: u64 = 64;
        self.held_handles.load(Ordering::Relaxed)
            || self.looked_in_vain.load(Ordering::Relaxed) < LOOKS
                && self.looked_in_vain.fetch_add(1, Ordering::Relaxed) < LOOKS
            || self.is_worth_it()
    }

    /// The number of retired objects that is too much.
    fn plenty(&self) -> usize {
        self.batch * PLENTY
    }

    /// Does what [`retire`](Self::retire) does for an object of this weight, in a domain that
    /// [weighs](Self::set_most_weight). Its [`Reaped`](super::Reaped) must report the same weight.
    pub(crate) fn retire_weighing(&self, garbage: Garbage, weight: u64) {
        if weight > 0 {
            // Counted first, so that the reaper finds it counted.
            self.heft.retired(weight);
        }
        self.retire(garbage);
    }

    /// Does what [`retire`](Self::retire) does for a large object: a table that has been moved
    /// from.
    pub(crate) fn retire_large(&self, garbage: Garbage) {
        // Counted first, so that the reaper finds it counted.
        self.large.fetch_add(1, Ordering::Relaxed);
        self.retire(garbage);
        CAME_BY.set(0);
    }

    /// Returns the number of objects retired and not yet dropped. The objects of a batch count
    /// until all of them are dropped. An object that is just being sealed may be counted twice,
    /// never missed.
    pub(crate) fn retired(&self) -> usize {
        self.unsealed() + self.in_batches.load(Ordering::Acquire)
    }

    fn unsealed(&self) -> usize {
        let unsealed: usize = self.limbo.iter().map(|limbo| limbo.len()).sum();
        unsealed + self.spilled.load(Ordering::Acquire)
    }

    /// Returns the weight of the garbage, and the weight at which the next look is due.
    #[cfg(all(test, not(atomic_cache_loom)))]
    pub(crate) fn weight_and_due(&self) -> (u64, u64) {
        let of = |tally: &Tally| tally.load(Ordering::Relaxed);
        (of(&self.heft.weight), of(&self.heft.due))
    }

    /// Returns the number of destructors that panicked.
    pub(crate) fn panicked_drops(&self) -> usize {
        self.panics.load(Ordering::Relaxed)
    }

    /// Housekeeping after a removal: seals a full queue, or one that is worth it, and drops ripe
    /// batches. Runs users' destructors: see [`may_reap`].
    #[inline]
    pub(crate) fn tidy(&self) {
        if self.is_due() {
            self.tidy_now(false);
        } else if self.has_garbage() && self.is_worth_it() {
            self.tidy_now(true);
        }
    }

    /// Returns whether this thread's queue or the overflow is full, garbage weighs much, or there
    /// is too much of it.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.limbo().len() >= self.batch
            || self.spilled.load(Ordering::Relaxed) >= self.batch
            || self.heft.is_due()
            || self.crowded.load(Ordering::Relaxed)
    }

    /// Returns whether to drop the rest, although no queue is full.
    ///
    /// Where removals are few: at once, because a single value may be large, or hold a unique
    /// resource. Where they are many: when a batch is worth a seal. And the first thread that
    /// passes in a stretch of time drops the rest of the stretch before, from all queues, and
    /// garbage that readers held up.
    #[cold]
    fn is_worth_it(&self) -> bool {
        if self.pace.ends() {
            return true;
        }
        let worth = self.pace.worth();
        worth <= FEW && self.left.load(Ordering::Relaxed) && self.unsealed() >= worth.max(1)
    }

    /// Housekeeping after a miss: does what [`tidy`](Self::tidy) does, and looks after large
    /// objects, at once and then once in [`LOOK_AGAIN`] misses.
    #[inline]
    pub(crate) fn tidy_after_miss(&self) {
        if self.large.load(Ordering::Relaxed) > 0 && is_time() {
            self.tidy_now(true);
        } else {
            self.tidy();
        }
    }

    /// Seals the contents of `all` queues, or of this thread's, and drops ripe batches.
    #[cold]
    fn tidy_now(&self, all: bool) {
        // While this thread leads a fill, only if there is too much garbage: a destructor may ask
        // for the key of that fill.
        if !may_reap() || leads_any() && self.retired() <= self.plenty() {
            return;
        }
        let heavy = self.heft.is_due();
        if let Ok(mut sealed) = self.sealed.try_lock() {
            come_by("sealing");
            if all || heavy || self.large.load(Ordering::Relaxed) > 0 {
                // All queues, because the object may be in any. If a reader holds it up, a later
                // miss looks again.
                self.seal_all(&mut sealed, false);
            } else {
                let batch = sealed.empty_batch();
                self.move_to(&mut lock(&batch.objects), self.limbo());
                self.begin(batch, &mut sealed);
            }
        }
        engine::advance_for_all();
        self.reap_ripe();
        if heavy {
            self.heft.settle();
        }
        self.relieve();
    }

    /// Seals the contents of all queues, and drops ripe batches. Waits for no thread, but tries a
    /// few times while readers are just passing. Does nothing where [`tidy`](Self::tidy) does
    /// nothing.
    pub(crate) fn flush(&self) {
        if !leads_any() || self.retired() > self.plenty() {
            self.flush_here();
        }
    }

    /// Does what [`flush`](Self::flush) does, also while this thread leads a fill.
    pub(crate) fn flush_here(&self) {
        if !may_reap() {
            return;
        }
        for turn in 0..FLUSHES {
            if self.retired() == 0 {
                return;
            }
            if let Ok(mut sealed) = self.sealed.try_lock() {
                self.seal_all(&mut sealed, false);
            }
            for _ in 0..engine::ADVANCES {
                engine::advance();
            }
            self.reap_ripe();
            // First give a moment to a reader that is just leaving, then a turn to one that was
            // preempted.
            if turn == 0 {
                (0..64).for_each(relax);
            } else {
                relax(u32::MAX);
            }
        }
    }

    /// Helps, and then yields, while there is too much garbage.
    ///
    /// A reader that was preempted while pinned keeps garbage from ripening. A thread that was
    /// preempted while dropping keeps ripe garbage. With more threads than cores there is always
    /// one. Yielding the processor lets it go on. The more garbage there is, the longer we yield.
    /// For a thread that only yields may get the processor back many times before one that has used
    /// more than its share.
    ///
    /// No thread waits for a reader that sleeps pinned: if no object has been dropped for
    /// [`STALLED`], threads do not yield until one is.
    fn relieve(&self) {
        let plenty = self.plenty();
        let mut turn = 0;
        let crowded = loop {
            let excess = self.retired().saturating_sub(plenty);
            if excess == 0 && !self.heft.is_plenty() {
                break false;
            }
            if self.pace.is_stalled() {
                break false;
            }
            if turn >= (PATIENT_TURNS + excess / MORE_PATIENCE).min(MOST_TURNS) {
                break true;
            }
            if turn > 0 {
                // 63: past the turns that only spin.
                back_off(63 + turn as u32);
            }
            if let Ok(mut sealed) = self.sealed.try_lock() {
                self.seal_all(&mut sealed, false);
            }
            engine::advance();
            self.reap_ripe();
            turn += 1;
        };
        if self.crowded.load(Ordering::Relaxed) != crowded {
            self.crowded.store(crowded, Ordering::Relaxed);
        }
    }

    /// Moves the contents of a stripe to a batch. Returns false if another thread is at its
    /// turnstile.
    fn move_to(&self, batch: &mut Vec<Garbage>, limbo: &Limbo) -> bool {
        let moved = limbo.objects.try_in(|objects| {
            if objects.is_empty() {
                return;
            }
            self.in_batches.fetch_add(objects.len(), Ordering::Relaxed);
            // Release: pairs with the Acquire of `Limbo::len`, for the count in `in_batches`.
            limbo.len.store(0, Ordering::Release);
            batch.append(objects);
        });
        moved.is_some()
    }

    /// Seals the contents of all stripes. With `wait`, waits for threads that are at a turnstile;
    /// without, skips those stripes.
    fn seal_all(&self, sealed: &mut Sealed, wait: bool) {
        // First. AcqRel: pairs with the Release after a push to the overflow; see `retire`.
        self.left.swap(false, Ordering::AcqRel);
        let batch = sealed.empty_batch();
        for limbo in &self.limbo {
            let mut turn = 0;
            let mut moved = self.move_to(&mut lock(&batch.objects), limbo);
            while !moved && wait {
                back_off(turn);
                turn += 1;
                moved = self.move_to(&mut lock(&batch.objects), limbo);
            }
            if !moved {
                self.left.store(true, Ordering::Relaxed);
            }
        }
        self.begin(batch, sealed);
    }

    /// Adds the overflow to a batch, and begins its grace.
    fn begin(&self, mut batch: Arc<Batch>, sealed: &mut Sealed) {
        let alone = Arc::get_mut(&mut batch).expect("made or taken for this");
        let mut objects = lock(&alone.objects);
        if self.spilled.load(Ordering::Acquire) > 0 {
            let spilled = self.overflow.take();
            let n = spilled.len();
            // Counted here before it is uncounted there.
            self.in_batches.fetch_add(n, Ordering::Relaxed);
            // Release: pairs with the Acquire load of `spilled` in `unsealed`, for the count in
            // `in_batches`.
            self.spilled.fetch_sub(n, Ordering::Release);
            objects.extend(spilled);
        }
        let n = objects.len();
        drop(objects);
        if n == 0 {
            return sealed.free.push(batch);
        }
        alone.grace = Some(Grace::begin());
        self.pace.sealed.fetch_add(n as u64, Ordering::Relaxed);
        sealed.in_grace.push_back(batch);
    }

    /// Drops the objects of ripe batches, the oldest first, with no lock held. Returns whether
    /// there were any.
    fn reap_ripe(&self) -> bool {
        let was_reaping = REAPING.replace(true);
        let mut any = false;
        while let Some(batch) = self.take_ripe() {
            let mut objects = std::mem::take(&mut *lock(&batch.objects));
            self.reap(&mut objects);
            any = true;
            *lock(&batch.objects) = objects;
            batch.reaped.store(true, Ordering::Release);
        }
        REAPING.set(was_reaping);
        any
    }

    fn reap(&self, objects: &mut Vec<Garbage>) {
        let n = objects.len();
        self.pace.goes_on();
        let mut weight = 0_u64;
        for garbage in objects.drain(..) {
            let reaped = garbage.reap(self.home);
            if reaped.panicked {
                self.panics.fetch_add(1, Ordering::Relaxed);
            }
            if reaped.large {
                self.large.fetch_sub(1, Ordering::Relaxed);
            }
            // Wrapping, as the tally wraps: a batch may be 2^17 objects of 2^48 each.
            weight = weight.wrapping_add(reaped.weight);
        }
        if self.heft.is_weighed() && weight > 0 {
            self.heft.dropped(weight);
        }
        // Release: pairs with the Acquire in `retired`. A thread that reads zero sees the drops
        // done.
        self.in_batches.fetch_sub(n, Ordering::Release);
    }

    fn take_ripe(&self) -> Option<Arc<Batch>> {
        let mut sealed = self.sealed.try_lock().ok()?;
        sealed.take_off_reaped();
        if !sealed.in_grace.front()?.is_ripe() {
            return None;
        }
        let batch = sealed.in_grace.pop_front()?;
        sealed.in_hand.push(batch.clone());
        Some(batch)
    }

    /// Returns when every object that was retired before the call has been dropped.
    ///
    /// Blocks while another thread stays pinned. Called from a destructor that this domain runs, it
    /// returns at once, because the batch of that object cannot end before it. It also returns at
    /// once while this thread unwinds, where no user code may run.
    ///
    /// # Panics
    /// When this thread itself is pinned: it would wait for itself for ever.
    #[track_caller]
    pub(crate) fn quiesce(&self) {
        if REAPING.get() || std::thread::panicking() {
            return;
        }
        assert!(
            !is_pinned(),
            "quiesce() called while this thread holds a pinned view of a cache: it would \
             wait for that view for ever; drop the view first"
        );
        let mut waiting = {
            let mut sealed = lock(&self.sealed);
            self.seal_all(&mut sealed, true);
            let Sealed {
                in_grace, in_hand, ..
            } = &*sealed;
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
            back_off(turn);
        }
    }
}

/// Returns whether this thread is in a destructor that a domain runs.
pub(crate) fn is_reaping() -> bool {
    REAPING.get()
}

/// Returns whether users' destructors may run now: not while this thread is pinned, unwinds, or is
/// in one.
fn may_reap() -> bool {
    !is_pinned() && !REAPING.get() && !std::thread::panicking()
}

/// Returns true once in [`LOOK_AGAIN`] calls of a thread, and at the first call after it has
/// retired a large object.
#[cold]
fn is_time() -> bool {
    let n = CAME_BY.get();
    CAME_BY.set((n + 1) % LOOK_AGAIN);
    n == 0
}

impl Drop for Domain {
    /// The domain has one owner left, so no thread can be reading: no grace is needed.
    fn drop(&mut self) {
        let mut sealed = std::mem::take(&mut *lock(&self.sealed));
        self.seal_all(&mut sealed, true);
        for batch in sealed.in_grace {
            let mut objects = std::mem::take(&mut *lock(&batch.objects));
            self.reap(&mut objects);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use crate::Cache;
    use crate::interlude::at;
    use crate::interlude::tests::is_done;
    use std::cell::Cell;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::mpsc::channel;
    use std::sync::{Arc, Mutex};
    use std::thread;

    thread_local! {
        /// The number of stripes of the domains that this thread makes next, as on another machine.
        pub(crate) static STRIPES_OF_THE_NEXT: Cell<Option<usize>> = const { Cell::new(None) };
    }

    static ALIVE: AtomicUsize = AtomicUsize::new(0);

    struct Counted;

    impl Counted {
        fn new() -> Arc<Self> {
            ALIVE.fetch_add(1, SeqCst);
            Arc::new(Self)
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            ALIVE.fetch_sub(1, SeqCst);
        }
    }

    /// Runs a test in a process of its own: the pins of other tests would hold up its garbage.
    fn alone(name: &str, test: impl FnOnce()) {
        const ALONE: &str = "ATOMIC_CACHE_TEST_ALONE";
        if std::env::var_os(ALONE).is_some() {
            return test();
        }
        let path = format!("{}::{name}", module_path!().split_once("::").unwrap().1);
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &path, "--nocapture"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(
            child.status.success() && said.contains("1 passed"),
            "{said}{}",
            String::from_utf8_lossy(&child.stderr)
        );
    }

    /// Clause 9: 64 threads replace one value in turn, on a machine with as many processors. (A
    /// thread that loses its processor while it is pinned holds garbage up. So one of several
    /// rounds must pass.)
    #[test]
    fn c09_few_copies_of_a_value_that_many_threads_replace_in_turn() {
        let most_of_a_round = |_| {
            STRIPES_OF_THE_NEXT.set(Some(16));
            let cache: Cache<u64, Arc<Counted>> = Cache::new(1_000);
            STRIPES_OF_THE_NEXT.set(None);
            let (turn, most) = (Mutex::new(()), AtomicUsize::new(0));
            thread::scope(|scope| {
                for _ in 0..64 {
                    scope.spawn(|| {
                        for _ in 0..30 {
                            let _turn = turn.lock().unwrap();
                            cache.insert(1, Counted::new());
                            most.fetch_max(ALIVE.load(SeqCst), SeqCst);
                        }
                    });
                }
            });
            most.into_inner()
        };
        alone(
            "c09_few_copies_of_a_value_that_many_threads_replace_in_turn",
            || {
                let least = (0..20).map(most_of_a_round).min();
                assert!(least <= Some(16), "{least:?} copies");
            },
        );
    }

    /// Clause 2: a thread has stopped inside the lock of the batches. No other thread waits for it.
    #[test]
    fn c02_nobody_waits_for_a_thread_that_has_stopped_while_it_seals() {
        let cache: Cache<u64, u64> = Cache::new(100);
        let (stop, stopped) = channel();
        let (go, may_go) = channel::<()>();
        let other = cache.clone();
        let stops = thread::spawn(move || {
            at("sealing", move || {
                stop.send(()).unwrap();
                may_go.recv().unwrap();
            });
            let mut key = 0;
            // Until this thread has reached that place.
            while !is_done() {
                key += 1;
                other.insert(key % 3, key);
            }
        });
        stopped.recv().unwrap();
        let (done, all_done) = channel();
        let works = cache.clone();
        thread::spawn(move || {
            for key in 0..2_000 {
                works.insert(key, key);
                works.get_with(&(key + 10_000), || key);
                works.invalidate(&key);
                works.run_pending_tasks();
            }
            works.clear();
            drop(works);
            done.send(()).unwrap();
        });
        let in_time = all_done.recv_timeout(std::time::Duration::from_secs(60));
        go.send(()).unwrap();
        stops.join().unwrap();
        assert!(in_time.is_ok(), "waits for a thread that has stopped");
        cache.quiesce();
        assert_eq!(cache.retired(), 0);
    }

    /// Clause 9: a thread in `quiesce` sleeps while another thread has a guard, and does not
    /// interrupt every processor all the time.
    #[test]
    #[cfg(all(target_os = "linux", not(atomic_cache_crossbeam)))]
    fn c09_quiesce_sleeps_while_it_waits_for_a_view() {
        use crate::sync::barrier::HEAVY_OF_THIS_THREAD;
        use std::time::{Duration, Instant};

        let cache: Cache<u64, u64> = Cache::unbounded();
        cache.insert(1, 1);
        let (go, may_go) = channel::<()>();
        let (pin, is_pinned) = channel();
        let other = cache.clone();
        let view = thread::spawn(move || {
            let _view = other.pin();
            pin.send(()).unwrap();
            may_go.recv().unwrap();
        });
        is_pinned.recv().unwrap();
        cache.invalidate(&1);
        let waits = thread::spawn(move || {
            cache.quiesce();
            HEAVY_OF_THIS_THREAD.get()
        });
        // Not a wait for an event: the guard lives for that long.
        let length = Duration::from_secs(1);
        let began = Instant::now();
        while began.elapsed() < length {
            thread::sleep(length / 10);
        }
        go.send(()).unwrap();
        view.join().unwrap();
        let barriers = waits.join().unwrap();
        let most = u64::try_from(began.elapsed().as_millis()).unwrap();
        assert!(
            barriers <= most + 100,
            "{barriers} heavy barriers in {most} ms"
        );
    }
}
