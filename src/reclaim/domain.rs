//! What one cache has retired, on its way to be dropped.

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

/// How many objects are sealed at a time, unless it is said otherwise, and within which bounds. Sealing costs
/// a microsecond or some (with the asymmetric engine, the heavy half of a barrier), so this makes it a small
/// part of each, and it bounds what an idle cache keeps to so many a stripe and the batches in grace.
const BATCH: usize = if cfg!(test) { 4 } else { 128 };
const SMALLEST_BATCH: usize = 32;
const LARGEST_BATCH: usize = 256;

/// How many batches of retired objects are plenty: who comes by with something to do then helps, and makes way.
const PLENTY: usize = 8;

/// How often a miss makes way for that, at least; and for how many objects more it does so once more, up to how often.
const PATIENT_TURNS: usize = 8;
const MORE_PATIENCE: usize = 8;
const MOST_TURNS: usize = 128;

/// For how long nothing has to have been dropped, in nanoseconds, before nobody makes way any more: then it is no
/// preempted reader that holds the garbage up, but one that sleeps in a view.
const STALLED: u64 = 100_000_000;

/// A stretch of time, in nanoseconds: one to four ticks of the coarse clock. What is left of the stretch before is
/// sealed by the first who comes by in the next.
const STRETCH: u64 = 3_500_000;

/// About how many batches are sealed in a stretch before they are full: of one object each, if there are no more
/// removals than that. Where there are more, batches are larger, and with more than so many objects each they are left
/// until they are full.
const EARLY_SEALS: usize = 128;
const FEW: usize = 16;

/// How often `flush` tries: what holds it up may be a reader that is just leaving.
const FLUSHES: u32 = 3;

/// How many misses let pass what is large before one looks again whether it can be dropped: a look costs
/// what sealing a batch does.
const LOOK_AGAIN: u32 = if cfg!(test) { 2 } else { 256 };

thread_local! {
    /// Misses of this thread that have come by something large.
    static CAME_BY: Cell<u32> = const { Cell::new(0) };
    /// This thread is inside [`Domain::reap_ripe`]: a destructor may call us back.
    static REAPING: Cell<bool> = const { Cell::new(false) };
}

/// Objects that share one grace period.
struct Batch {
    /// Once it is sealed.
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

/// What was retired while another thread was at the stripe's turnstile: a list that is only ever taken as a whole, so nobody
/// waits for a thread that stops in between.
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
            // SAFETY: nobody else has it yet.
            unsafe { (*spilled).next = next };
        }
    }

    fn take(&self) -> Vec<Garbage> {
        let mut all = Vec::new();
        let mut spilled = self.0.swap(std::ptr::null_mut(), Ordering::Acquire);
        while !spilled.is_null() {
            // SAFETY: from `Box::into_raw`; whoever swaps the list out has it alone.
            let this = unsafe { Box::from_raw(spilled) };
            all.push(this.garbage);
            spilled = this.next;
        }
        all
    }
}

/// How much is removed just now. (Numbers that order nothing: who reads a stale one seals a batch early or late.)
struct Pace {
    /// When this stretch of time has begun.
    began: Tally,
    /// How many objects have been sealed in it, and how many in the one before.
    sealed: Tally,
    before: Tally,
    /// When others were first made way for and nothing has been dropped since; 0: it is not so.
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

    /// Whether a stretch of time ends with this look. One of those who look then is told so.
    fn ends(&self) -> bool {
        let (now, began) = (coarse_now(), self.began.load(Ordering::Relaxed));
        let length = now.wrapping_sub(began);
        let ends = length >= STRETCH
            && self
                .began
                .compare_exchange(began, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if ends {
            // As many as there were in so much of it.
            let sealed = self.sealed.swap(0, Ordering::Relaxed);
            let before = sealed / (length / STRETCH).max(1);
            self.before.store(before, Ordering::Relaxed);
        }
        ends
    }

    /// How many objects a batch has to have, that it is worth while to seal it.
    fn worth(&self) -> usize {
        let sealed = self.sealed.load(Ordering::Relaxed);
        let most = sealed.max(self.before.load(Ordering::Relaxed));
        usize::try_from(most).unwrap_or(usize::MAX) / EARLY_SEALS
    }

    /// Something has been dropped.
    fn goes_on(&self) {
        if self.stalled.load(Ordering::Relaxed) != 0 {
            self.stalled.store(0, Ordering::Relaxed);
        }
    }

    /// Whether nothing has been dropped for so long that nobody makes way any more.
    fn is_stalled(&self) -> bool {
        let (now, since) = (coarse_now().max(1), self.stalled.load(Ordering::Relaxed));
        if since == 0 {
            self.stalled.store(now, Ordering::Relaxed);
        }
        since != 0 && now.wrapping_sub(since) >= STALLED
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
    overflow: Overflow,
    spilled: AtomicUsize,
    /// Whether something may be retired and not sealed: set after each push, reset before all is sealed.
    left: AtomicBool,
    /// Whether there was plenty at the last look, and those who come by are to help.
    crowded: AtomicBool,
    /// The lock is held for a few instructions, never over foreign code, and only `quiesce` waits for it: who
    /// finds it taken by a thread that has stopped goes on without.
    sealed: Mutex<Sealed>,
    /// Objects sealed and not dropped.
    in_batches: AtomicUsize,
    /// Destructors that panicked.
    panics: AtomicUsize,
    /// Objects among them that are large: not to be kept until a batch is full.
    large: AtomicUsize,
    heft: CachePadded<Heft>,
    /// Whether what was dropped here held a handle on the cache.
    held_handles: AtomicBool,
    /// How often that was looked for in vain.
    looked_in_vain: Tally,
    pace: CachePadded<Pace>,
    home: Home,
    batch: usize,
}

/// The batches of a domain that are not yet reaped.
#[derive(Default)]
struct Sealed {
    /// Oldest first.
    in_grace: VecDeque<Arc<Batch>>,
    /// Ripe, and being reaped by some thread; `quiesce` waits for these too. Those that are reaped by now are taken
    /// off by whoever has the lock next.
    in_hand: Vec<Arc<Batch>>,
    /// Reaped, and to be used again: nobody else has them.
    free: Vec<Arc<Batch>>,
}

impl Sealed {
    /// A batch with nothing in it.
    fn empty_batch(&mut self) -> Arc<Batch> {
        self.free.pop().unwrap_or_else(|| Arc::new(Batch::new()))
    }

    /// Takes off what has been reaped by now.
    fn take_off_reaped(&mut self) {
        const FREE: usize = 4;
        let mut at = 0;
        while let Some(batch) = self.in_hand.get(at) {
            // Acquire: with the reaper's Release, for the emptied list.
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
    /// What is retired here goes back to `home`, which outlives the domain; sealed in batches of about so
    /// many.
    pub(crate) fn new(home: Home, batch: Option<usize>) -> Self {
        #[cfg(not(test))]
        let stripes = *STRIPES;
        #[cfg(test)]
        let stripes = tests::STRIPES_OF_THE_NEXT.get().unwrap_or(*STRIPES);
        Self::with_stripes(home, batch, stripes)
    }

    /// As [`new`](Self::new), with so many stripes, a power of two.
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

    /// Weighs what is retired from now on: from so much on it is not left until a batch is full.
    pub(crate) fn set_most_weight(&self, most: u64) {
        self.heft.set_most(most);
    }

    /// Takes an unlinked object, to be dropped after a grace period.
    ///
    /// Cost: one locked instruction. Runs no foreign code, waits for nobody.
    pub(crate) fn retire(&self, garbage: Garbage) {
        if let Err(garbage) = self.limbo().push(garbage) {
            // First: who seals it finds it counted.
            self.spilled.fetch_add(1, Ordering::Relaxed);
            self.overflow.push(garbage);
            // Release: who resets it (AcqRel) and finds it set finds the garbage.
            return self.left.store(true, Ordering::Release);
        }
        // Relaxed: who resets it goes through all turnstiles after that. If through this one before us, we have
        // what it did behind us, and find it reset; if after us, it finds the garbage.
        if !self.left.load(Ordering::Relaxed) {
            self.left.store(true, Ordering::Relaxed);
        }
    }

    /// Where this thread's garbage goes.
    #[inline]
    fn limbo(&self) -> &Limbo {
        &self.limbo[unmasked_stripe() & (self.limbo.len() - 1)]
    }

    /// Whether there may be anything retired and not dropped.
    pub(crate) fn has_garbage(&self) -> bool {
        self.left.load(Ordering::Relaxed) || self.in_batches.load(Ordering::Relaxed) > 0
    }

    /// Something that was dropped here held a handle on the cache.
    pub(crate) fn note_handle(&self) {
        if !self.held_handles.load(Ordering::Relaxed) {
            self.held_handles.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a handle that goes is to look whether garbage holds the others: always, if garbage has held any; if not,
    /// so many times, and after that when a removal would look too.
    pub(crate) fn may_hold_handles(&self) -> bool {
        const LOOKS: u64 = 64;
        self.held_handles.load(Ordering::Relaxed)
            || self.looked_in_vain.load(Ordering::Relaxed) < LOOKS
                && self.looked_in_vain.fetch_add(1, Ordering::Relaxed) < LOOKS
            || self.is_worth_it()
    }

    /// How many retired objects are plenty.
    fn plenty(&self) -> usize {
        self.batch * PLENTY
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
        self.unsealed() + self.in_batches.load(Ordering::Acquire)
    }

    fn unsealed(&self) -> usize {
        let unsealed: usize = self.limbo.iter().map(|limbo| limbo.len()).sum();
        unsealed + self.spilled.load(Ordering::Acquire)
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

    /// Housekeeping after a removal: seals a full queue, or what is worth it, and drops what is ripe. It runs
    /// users' destructors: see [`may_reap`].
    #[inline]
    pub(crate) fn tidy(&self) {
        if self.is_due() {
            self.tidy_now(false);
        } else if self.has_garbage() && self.is_worth_it() {
            self.tidy_now(true);
        }
    }

    /// Whether this thread's queue is full, or what did not go there is as much, or all of it weighs much, or there is
    /// plenty.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.limbo().len() >= self.batch
            || self.spilled.load(Ordering::Relaxed) >= self.batch
            || self.heft.is_due()
            || self.crowded.load(Ordering::Relaxed)
    }

    /// Whether what is left is to be dropped, although no queue is full.
    ///
    /// Where little is removed, at once: a single value may be large, or hold what there is only one of. Where much is,
    /// when it is worth a seal; and the first who comes by in a stretch of time looks after what has been left in
    /// the one before, wherever it is, and after what readers have held up.
    #[cold]
    fn is_worth_it(&self) -> bool {
        if self.pace.ends() {
            return true;
        }
        let worth = self.pace.worth();
        worth <= FEW && self.left.load(Ordering::Relaxed) && self.unsealed() >= worth.max(1)
    }

    /// Housekeeping after a miss: as [`tidy`](Self::tidy), also when there is nothing due but something large, at
    /// once and then every so often.
    #[inline]
    pub(crate) fn tidy_after_miss(&self) {
        if self.large.load(Ordering::Relaxed) > 0 && is_time() {
            self.tidy_now(true);
        } else {
            self.tidy();
        }
    }

    /// Seals what `all` queues hold, or this thread's, and drops what is ripe.
    #[cold]
    fn tidy_now(&self, all: bool) {
        // Beneath a lead only if it becomes too much: a destructor may ask for the key that is led.
        if !may_reap() || leads_any() && self.retired() <= self.plenty() {
            return;
        }
        let heavy = self.heft.is_due();
        if let Ok(mut sealed) = self.sealed.try_lock() {
            come_by("sealing");
            if all || heavy || self.large.load(Ordering::Relaxed) > 0 {
                // Wherever it is. If a reader holds it up, another miss comes again.
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

    /// Seals what is in all queues, and drops what is ripe; waits for nobody, but tries again a few times while
    /// others are just passing by. Does nothing where [`tidy`](Self::tidy) does not.
    pub(crate) fn flush(&self) {
        if !leads_any() || self.retired() > self.plenty() {
            self.flush_here();
        }
    }

    /// As [`flush`](Self::flush), also beneath a lead.
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
            // A moment for one who is just leaving; then a turn for one who was preempted.
            if turn == 0 {
                (0..64).for_each(relax);
            } else {
                relax(u32::MAX);
            }
        }
    }

    /// Helps, and then makes way, while there is too much garbage.
    ///
    /// What keeps garbage from ripening is a reader that was preempted while it was pinned, and what keeps ripe
    /// garbage is one that was preempted while it dropped it; with more threads than cores there is always one. Giving
    /// the processor away lets it go on, and the more there is, the longer: a thread that only yields may get the
    /// processor back many times before one that has had more than its share.
    ///
    /// A reader that sleeps pinned is not waited for: if nothing has been dropped for [`STALLED`], nobody makes way
    /// until something is.
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
                // Past the turns that only spin.
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

    /// Moves what a stripe holds to a batch. False: somebody else is at it.
    fn move_to(&self, batch: &mut Vec<Garbage>, limbo: &Limbo) -> bool {
        let moved = limbo.objects.try_in(|objects| {
            if objects.is_empty() {
                return;
            }
            self.in_batches.fetch_add(objects.len(), Ordering::Relaxed);
            // Release: see `Limbo::len`.
            limbo.len.store(0, Ordering::Release);
            batch.append(objects);
        });
        moved.is_some()
    }

    /// Seals what all stripes hold. If it is to `wait`, also what those hold at whose turnstile somebody is.
    fn seal_all(&self, sealed: &mut Sealed, wait: bool) {
        // First. AcqRel: with the pushes, see `retire`.
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

    /// Adds what went to no stripe to a batch, and begins its grace.
    fn begin(&self, mut batch: Arc<Batch>, sealed: &mut Sealed) {
        let alone = Arc::get_mut(&mut batch).expect("made or taken for this");
        let mut objects = lock(&alone.objects);
        if self.spilled.load(Ordering::Acquire) > 0 {
            let spilled = self.overflow.take();
            let n = spilled.len();
            // Counted here before it is not counted there any more.
            self.in_batches.fetch_add(n, Ordering::Relaxed);
            // Release: see `Limbo::len`.
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

    /// Drops the objects of ripe batches, oldest first, with nothing held. Whether there were any.
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
        sealed.take_off_reaped();
        if !sealed.in_grace.front()?.is_ripe() {
            return None;
        }
        let batch = sealed.in_grace.pop_front()?;
        sealed.in_hand.push(batch.clone());
        Some(batch)
    }

    /// Returns when everything that was retired before the call has been dropped.
    ///
    /// Blocks while another thread stays pinned. Called from a destructor that this domain is
    /// running, it returns at once: that object's own batch cannot end before it. So it does while this thread
    /// unwinds, where no foreign code is to run.
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

/// Whether this thread is in a destructor that a domain runs.
pub(crate) fn is_reaping() -> bool {
    REAPING.get()
}

/// Whether foreign destructors may run here and now: not on a thread that is pinned, or unwinds, or is in one.
fn may_reap() -> bool {
    !is_pinned() && !REAPING.get() && !std::thread::panicking()
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
        /// How many stripes the next domains of this thread have: those of another machine.
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

    /// Runs a test in a process of its own: where other tests are pinned now and then, garbage waits for them.
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

    /// Clause 9: one value, replaced by 64 threads in turn, on a machine with as many processors. (A thread
    /// may lose its processor while it is pinned, which holds up what there is: so one of several rounds shall do.)
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

    /// Clause 2: a thread has stopped inside the lock of the batches. Nobody else waits for it.
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
            // Until it has come by there.
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

    /// Clause 9: who waits in `quiesce` beside a view sleeps, and does not interrupt every processor all the time.
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
        // Not to wait for anything: this is how long the view lasts.
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
