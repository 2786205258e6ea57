//! What one cache has retired, on its way to be dropped.

use super::engine::{self, Grace, is_pinned};
use super::{Garbage, Home};
use crate::interlude::come_by;
use crate::stats::{STRIPES, stripe};
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, Ordering, Tally, lock, relax, yield_now};
use crate::turnstile::Turnstile;
use crossbeam_queue::SegQueue;
use crossbeam_utils::CachePadded;
use std::cell::Cell;
use std::collections::VecDeque;

/// How many objects are sealed at a time, unless it is said otherwise, and within which bounds. Sealing costs
/// a microsecond or some (with the asymmetric engine, the heavy half of a barrier), so this makes it a small
/// part of each, and it bounds what an idle cache keeps to so many a stripe and the batches in grace.
const BATCH: usize = if cfg!(test) { 4 } else { 128 };
const SMALLEST_BATCH: usize = 32;
const LARGEST_BATCH: usize = 256;

/// How many retired objects, to a stripe, make a writer that comes by with a full queue stop and help.
const PLENTY: usize = 512;

/// How often it gives the processor away for that, at most.
const PATIENT_TURNS: usize = 32;

/// How many misses let pass what is large before one looks again whether it can be dropped: a look costs
/// what sealing a batch does.
const LOOK_AGAIN: u32 = if cfg!(test) { 2 } else { 256 };

/// How often in a row helping must have been in vain before others let it be, and how many of them.
const PERSISTENT: usize = 64;
const PAUSE: usize = 16;

thread_local! {
    /// Misses of this thread that have come by something large.
    static CAME_BY: Cell<u32> = const { Cell::new(0) };
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

/// What the threads of one stripe have retired, and not sealed.
struct Limbo {
    objects: Turnstile<Vec<Garbage>>,
    /// How many: changed inside the turnstile alone.
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
        // Acquire: who sees none left has the counting of those that were sealed behind it.
        self.len.load(Ordering::Acquire)
    }

    /// The garbage comes back when somebody else is at the turnstile.
    fn push(&self, garbage: Garbage) -> Result<(), Garbage> {
        let mut garbage = Some(garbage);
        self.objects.try_in(|objects| {
            objects.extend(garbage.take());
            self.len.store(objects.len(), Ordering::Relaxed);
        });
        garbage.map_or(Ok(()), Err)
    }
}

/// What is retired and not dropped weighs, where objects are weighed: those of a cache that is bounded by weight, of
/// which a batch may be much. (Numbers that order nothing: a stale one makes a look early or late.)
struct Heft {
    weight: Tally,
    /// How much may be unsealed before somebody looks.
    most: Tally,
    /// From which weight on the next look is due.
    due: Tally,
}

impl Heft {
    /// Nothing is weighed, and no look is due.
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

    /// Whether it is so much that others are made way for, to let go of it: a quarter of what entries may weigh.
    fn is_plenty(&self) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        self.weight.load(Ordering::Relaxed) > most.saturating_mul(8)
    }

    /// After a look, or a drop: the next look is due when there is as much more, or a quarter more of what is left.
    /// (If a reader holds all of it up, looks at every removal would be in vain.)
    fn settle(&self) {
        loop {
            let weight = self.weight.load(Ordering::Relaxed);
            let most = self.most.load(Ordering::Relaxed);
            let due = weight.saturating_add(most.max(weight / 4));
            come_by("settle");
            // SeqCst, a swap, as in `set_most`: of two, one sees the other.
            self.due.swap(due, Ordering::SeqCst);
            // If others have dropped much meanwhile, or the bound is another, and they have said so before us, this
            // was too late.
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
        // SeqCst, swaps: who says it last is to see what has been said meanwhile.
        self.most.swap(most, Ordering::SeqCst);
        self.due.swap(most, Ordering::SeqCst);
    }
}

/// What one cache has retired.
pub(crate) struct Domain {
    /// By thread, so that removals on different threads do not meet.
    limbo: Box<[CachePadded<Limbo>]>,
    /// What was retired while another thread was at the stripe's turnstile, and how many they are. (Not left with
    /// another stripe: its threads may never come to seal it.)
    overflow: SegQueue<Garbage>,
    spilled: AtomicUsize,
    /// The lock is held for a few instructions, never over foreign code, and ordinary
    /// traffic only *tries* it when it has work to begin.
    sealed: Mutex<Sealed>,
    /// Objects sealed and not dropped.
    in_batches: AtomicUsize,
    /// Destructors that panicked.
    panics: AtomicUsize,
    /// Objects among them that are large: not to be kept until a batch is full.
    large: AtomicUsize,
    heft: CachePadded<Heft>,
    /// How often it was helped in vain, and then how many have let it be: see `relieve`.
    in_vain: AtomicUsize,
    home: Home,
    batch: usize,
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
    /// What is retired here goes back to `home`, which outlives the domain; sealed in batches of about so
    /// many.
    pub(crate) fn new(home: Home, batch: Option<usize>) -> Self {
        Self {
            home,
            batch: batch.map_or(BATCH, |batch| batch.clamp(SMALLEST_BATCH, LARGEST_BATCH)),
            limbo: (0..*STRIPES)
                .map(|_| CachePadded::new(Limbo::new()))
                .collect(),
            overflow: SegQueue::new(),
            spilled: AtomicUsize::new(0),
            in_vain: AtomicUsize::new(0),
            sealed: Mutex::new(Sealed::default()),
            in_batches: AtomicUsize::new(0),
            panics: AtomicUsize::new(0),
            large: AtomicUsize::new(0),
            heft: CachePadded::new(Heft::none()),
        }
    }

    /// Weighs what is retired from now on: from so much on it is not left until a batch is full.
    pub(crate) fn set_most_weight(&self, most: u64) {
        self.heft.set_most(most);
    }

    /// Takes an unlinked object, to be dropped after a grace period.
    ///
    /// Cost: one locked instruction. Runs no foreign code, waits for nobody.
    pub(crate) fn retire(&self, garbage: Garbage) {
        if let Err(garbage) = self.limbo[stripe()].push(garbage) {
            // First: who seals it finds it counted.
            self.spilled.fetch_add(1, Ordering::Relaxed);
            self.overflow.push(garbage);
        }
    }

    /// As [`retire`](Self::retire), of an object that weighs so much, as its [`Reaped`](super::Reaped) will say again:
    /// in a domain that [weighs](Self::set_most_weight).
    pub(crate) fn retire_weighing(&self, garbage: Garbage, weight: u64) {
        if weight > 0 {
            // First: who reaps it finds it counted.
            self.heft.retired(weight);
        }
        self.retire(garbage);
    }

    /// As [`retire`](Self::retire), of something large: a table that has been moved from.
    pub(crate) fn retire_large(&self, garbage: Garbage) {
        // First: who reaps it finds it counted.
        self.large.fetch_add(1, Ordering::Relaxed);
        self.retire(garbage);
        CAME_BY.set(0);
    }

    /// Objects retired and not yet dropped; those of a batch are counted until all of them are. One that is
    /// just being sealed may be counted twice, never missed.
    pub(crate) fn retired(&self) -> usize {
        let unsealed: usize = self.limbo.iter().map(|limbo| limbo.len()).sum();
        let spilled = self.spilled.load(Ordering::Acquire);
        unsealed + spilled + self.in_batches.load(Ordering::Acquire)
    }

    /// What garbage weighs, and from which weight on the next look is due.
    #[cfg(all(test, not(atomic_cache_loom)))]
    pub(crate) fn weight_and_due(&self) -> (u64, u64) {
        let of = |tally: &Tally| tally.load(Ordering::Relaxed);
        (of(&self.heft.weight), of(&self.heft.due))
    }

    /// Destructors that panicked.
    pub(crate) fn panicked_drops(&self) -> usize {
        self.panics.load(Ordering::Relaxed)
    }

    /// Housekeeping after a removal: seals a full queue and drops what is ripe. It runs
    /// users' destructors, so it does nothing on a thread that is pinned or in one already.
    #[inline]
    pub(crate) fn tidy(&self) {
        if self.is_due() {
            self.tidy_full_queue();
        }
    }

    /// Whether this thread's queue is full, or what did not go there is as much, or all of it weighs much.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.limbo[stripe()].len() >= self.batch
            || self.spilled.load(Ordering::Relaxed) >= self.batch
            || self.heft.is_due()
    }

    /// Housekeeping after a miss: as [`tidy`](Self::tidy), also when there is nothing due but something large, at
    /// once and then every so often. (Not after a hit, which may drop a view: it writes nothing for others.)
    #[inline]
    pub(crate) fn tidy_after_miss(&self) {
        if self.is_due() || self.large.load(Ordering::Relaxed) > 0 && is_time() {
            self.tidy_full_queue();
        }
    }

    #[cold]
    fn tidy_full_queue(&self) {
        if is_pinned() || REAPING.get() {
            return;
        }
        let heavy = self.heft.is_due();
        if let Ok(mut sealed) = self.sealed.try_lock() {
            if heavy || self.large.load(Ordering::Relaxed) > 0 {
                // Wherever it is. If a reader holds it up, another miss comes again.
                self.seal_all(&mut sealed.in_grace, false);
            } else {
                self.seal(&self.limbo[stripe()], &mut sealed.in_grace);
                self.seal_overflow(&mut sealed.in_grace);
            }
        }
        engine::advance_for_all();
        self.reap_ripe();
        if heavy {
            self.heft.settle();
        }
        self.relieve();
    }

    /// Seals what is in all queues, and drops what is ripe; waits for nobody. As
    /// [`tidy`](Self::tidy), does nothing on a thread that is pinned or in a destructor.
    pub(crate) fn flush(&self) {
        if is_pinned() || REAPING.get() || self.retired() == 0 {
            return;
        }
        if let Ok(mut sealed) = self.sealed.try_lock() {
            self.seal_all(&mut sealed.in_grace, false);
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
    ///
    /// If that was in vain several times in a row, somebody sleeps pinned, and the next few who come by do not
    /// try. (Not after the first time: a thread that is only waiting for its turn would find that much more garbage
    /// when it has it.)
    fn relieve(&self) {
        let plenty = PLENTY * self.limbo.len().max(2);
        let is_relieved = || self.retired() <= plenty && !self.heft.is_plenty();
        if is_relieved() {
            return;
        }
        // Relaxed, here and below: a hint, of which a racing update may be lost.
        let vain = self.in_vain.load(Ordering::Relaxed);
        if (PERSISTENT..PERSISTENT + PAUSE).contains(&vain) {
            return self.in_vain.store(vain + 1, Ordering::Relaxed);
        }
        let mut helped = false;
        for _ in 0..PATIENT_TURNS {
            yield_now();
            engine::advance();
            helped |= self.reap_ripe();
            if is_relieved() {
                break;
            }
        }
        let vain = if helped {
            0
        } else {
            vain.min(PERSISTENT - 1) + 1
        };
        self.in_vain.store(vain, Ordering::Relaxed);
    }

    /// Moves what a stripe holds into a batch and begins its grace. False: somebody else is at it.
    fn seal(&self, limbo: &Limbo, in_grace: &mut VecDeque<Arc<Batch>>) -> bool {
        let objects = limbo.objects.try_in(|objects| {
            self.in_batches.fetch_add(objects.len(), Ordering::Relaxed);
            // Release: see `Limbo::len`.
            limbo.len.store(0, Ordering::Release);
            let room = Vec::with_capacity(objects.len());
            std::mem::replace(objects, room)
        });
        let sealed = objects.is_some();
        self.begin(objects.unwrap_or_default(), in_grace);
        sealed
    }

    /// Moves what all stripes hold into batches. If it is to `wait`, also what those hold at whose turnstile
    /// somebody is.
    fn seal_all(&self, in_grace: &mut VecDeque<Arc<Batch>>, wait: bool) {
        for limbo in &self.limbo {
            let mut turn = 0;
            while !self.seal(limbo, in_grace) && wait {
                relax(turn);
                turn += 1;
            }
        }
        self.seal_overflow(in_grace);
    }

    fn seal_overflow(&self, in_grace: &mut VecDeque<Arc<Batch>>) {
        let n = self.spilled.load(Ordering::Acquire);
        if n == 0 {
            return;
        }
        // Counted here before it is not counted there any more.
        self.in_batches.fetch_add(n, Ordering::Relaxed);
        let objects: Vec<_> = std::iter::from_fn(|| self.overflow.pop()).take(n).collect();
        // Release: see `Limbo::len`.
        self.spilled.fetch_sub(objects.len(), Ordering::Release);
        // Some are counted, and not pushed yet.
        self.in_batches
            .fetch_sub(n - objects.len(), Ordering::Relaxed);
        self.begin(objects, in_grace);
    }

    /// Begins the grace of what is in a batch.
    fn begin(&self, objects: Vec<Garbage>, in_grace: &mut VecDeque<Arc<Batch>>) {
        if !objects.is_empty() {
            in_grace.push_back(Arc::new(Batch {
                grace: Grace::begin(),
                reaped: AtomicBool::new(false),
                objects: Mutex::new(objects),
            }));
        }
    }

    /// Drops the objects of ripe batches, oldest first, with nothing held. Whether there were any.
    fn reap_ripe(&self) -> bool {
        let was_reaping = REAPING.replace(true);
        let mut any = false;
        while let Some(batch) = self.take_ripe() {
            let objects = std::mem::take(&mut *lock(&batch.objects));
            self.reap(objects);
            any = true;
            batch.reaped.store(true, Ordering::Release);
            lock(&self.sealed)
                .in_hand
                .retain(|other| !Arc::ptr_eq(other, &batch));
        }
        REAPING.set(was_reaping);
        any
    }

    fn reap(&self, objects: Vec<Garbage>) {
        let n = objects.len();
        let mut weight = 0_u64;
        for garbage in objects {
            let reaped = garbage.reap(self.home);
            if reaped.panicked {
                self.panics.fetch_add(1, Ordering::Relaxed);
            }
            if reaped.large {
                self.large.fetch_sub(1, Ordering::Relaxed);
            }
            // Wrapping, as their tally does: a batch may be 2^17 objects, of 2^48 each.
            weight = weight.wrapping_add(reaped.weight);
        }
        if self.heft.is_weighed() && weight > 0 {
            self.heft.dropped(weight);
        }
        // Release: who reads the count at zero (Acquire) has the drops behind it.
        self.in_batches.fetch_sub(n, Ordering::Release);
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
            self.seal_all(&mut sealed.in_grace, true);
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

/// Once in so many calls of a thread, and at the first after it has retired something large.
#[cold]
fn is_time() -> bool {
    let n = CAME_BY.get();
    CAME_BY.set((n + 1) % LOOK_AGAIN);
    n == 0
}

impl Drop for Domain {
    /// With the domain owned alone nobody can be reading: no grace is needed.
    fn drop(&mut self) {
        let mut in_grace = std::mem::take(&mut lock(&self.sealed).in_grace);
        self.seal_all(&mut in_grace, true);
        for batch in in_grace {
            let objects = std::mem::take(&mut *lock(&batch.objects));
            self.reap(objects);
        }
    }
}
