//! Our engine: epochs whose readers pay two plain stores.
//!
//! The one counter is the *epoch*. Each thread has a *place*, where it says in which epoch it was
//! pinned, or that it is not.
//!
//! ```text
//!   reader: pin                              who frees
//!   1. place = epoch (read just before)      a. unlinks, then begins a grace: its stamp is the
//!      light barrier                            number that it makes the epoch
//!   2. reads what is linked                  b. heavy barrier
//!   3. place = IDLE (Release)                c. looks at all places (Acquire): the oldest epoch in
//!                                               which anybody is pinned; graces up to that are over
//! ```
//!
//! *When a grace with stamp s is over, nobody has what was unlinked before it began.* Take any pin.
//!
//! * Its light barrier (1) came before the heavy one (b). Then the look (c) at its place sees 1, or
//!   what that thread wrote there later. If it sees 1, with an epoch before s, the grace is not over.
//!   With s or more, the pin has read the epoch from a (Acquire, Release): what was unlinked before
//!   a was out of its reach. If it sees something later, `IDLE` or another pin, that was released after
//!   3: what the pin has read was read before the grace is over.
//! * It came after. Then the reads (2) see everything before b, so what was unlinked before a.
//!
//! (An epoch that was read long before it was written to the place is only too old: the grace lasts
//! longer.) One heavy barrier serves all graces that have begun before it, of all caches.
//!
//! # When the heavy barrier is refused
//!
//! A sandbox that a process enters late may forbid the heavy barrier, and there may be no substitute. Then every thread
//! has to pin with a full fence instead. A thread that pins must not look at a shared flag for that: the look would cost
//! every hit. But it looks at its own place, to see whether it is pinned already. The freeing thread uses that look:
//!
//! 1. It sets `over_to_fences`, and swaps `ASKED` into each place that is `IDLE`.
//! 2. A thread that comes to pin finds its place not `IDLE`, takes the long way and sees `ASKED`. It sets `fenced` in its
//!    place, and pins with a full fence from then on.
//! 3. Until every thread that has a place has set `fenced`, the freeing thread knows nothing of their pins, and ends no
//!    grace.
//!
//! Why that is enough:
//!
//! * A thread may read `IDLE` just before the swap, and then overwrite `ASKED` with its pin. The freeing thread asks it
//!   again at its next look.
//! * `fenced` is set with Release and read with Acquire. So all reads under the thread's earlier pins come before what the
//!   freeing thread does next. Its later pins have a full fence, as the freeing thread's look has: of the two, one sees
//!   the other, as the two barriers had it.
//! * A thread that takes a place marks it as taken, makes a full fence, and then reads `over_to_fences`. The freeing thread
//!   sets `over_to_fences`, makes a full fence, and then reads the places. So at least one of them sees the other.
//!
//! So the pin is wait-free: nothing it does can fail or has to be done again. A thread that sleeps
//! while it is pinned holds up every grace that begins after its pin, as with every engine that keeps
//! time by epochs; see the crate's Trade-offs.
//!
//! The idea of epochs is Fraser's (Practical lock-freedom, 2004), that of leaving the fence to the
//! other side liburcu's (Desnoyers et al., User-level implementations of read-copy update, TPDS '12).
//! Nothing is taken from either's code. There are two of everything in the latter, and three epochs in
//! the former, because they count in few bits; 64 do not come round.

use crate::sync::{AtomicPtr, AtomicU64, Ordering, barrier};
use crossbeam_utils::CachePadded;
use std::cell::Cell;

/// A place whose thread is not pinned. Epochs begin at 1.
const IDLE: u64 = 0;

/// A place whose thread is not pinned, and is asked to say that its pins are fenced from now on.
const ASKED: u64 = u64::MAX;

/// Where one thread says what it does. Places are never freed, but used again. Aligned so that no two
/// share a cache line, nor the pair of lines that a processor fetches at once.
#[repr(align(128))]
pub(crate) struct Place {
    /// `IDLE`, or the epoch in which the thread was pinned. Written by it alone, but for `ASKED` over `IDLE`.
    pinned: AtomicU64,
    /// Whether its thread's pins are fenced. Never goes back.
    fenced: AtomicU64,
    /// For its thread alone: how many counted pins it holds, and the flags.
    depth: Cell<u64>,
    /// Whether it is some thread's.
    taken: AtomicU64,
    /// The place that was made before it. Set before it can be seen.
    next: Cell<*const Place>,
}

// SAFETY: `depth` is used by the thread that has taken the place (`take` and `give_back` hand it on with
// Acquire and Release), `next` is not changed after the place was pushed (Release) where others can
// see it (Acquire). The rest is atomic.
unsafe impl Sync for Place {}

/// The epoch, and who is pinned in which. There is one for the process, and one for each model.
pub(crate) struct Epochs {
    now: CachePadded<AtomicU64>,
    /// Graces up to this stamp are over.
    over: CachePadded<AtomicU64>,
    /// All places, the youngest first.
    places: CachePadded<AtomicPtr<Place>>,
    /// Whether all threads are to go over to full fences.
    over_to_fences: CachePadded<AtomicU64>,
}

impl Place {
    /// Of `depth`: how many pins its thread holds. Pins that are forgotten stay counted, and a program could forget
    /// one in a nanosecond or two: so it has 60 bits, which take a thread a thousand years.
    pub(crate) const PINS: u64 = (1 << 60) - 1;
    /// The place was taken in the destructors of its thread's thread-locals, or is used there still: it is
    /// given back when nothing is pinned any more, because nobody will come later to do it.
    pub(crate) const LATE: u64 = 1 << 60;
    /// The first of the counted pins was taken within a brief one, which will unpublish.
    const WITHIN: u64 = 1 << 62;
    /// The kernel has no heavy barrier, so the light one is not enough.
    pub(crate) const FENCED: u64 = 1 << 61;

    /// Returns whether its thread is pinned, or asked: then the short way of a pin is barred.
    #[inline(always)]
    fn is_busy(&self) -> bool {
        // Relaxed: our own store. If this misses an `ASKED`, the freeing thread asks again.
        self.pinned.load(Ordering::Relaxed) != IDLE
    }

    fn is_pinned(&self) -> bool {
        !matches!(self.pinned.load(Ordering::Relaxed), IDLE | ASKED)
    }

    /// Step 1, of a pin that is counted.
    #[inline(always)]
    fn enter(&self, epochs: &Epochs) {
        if self.depth.get() == 0 && !self.is_busy() {
            self.depth.set(1);
            self.publish(epochs);
            barrier::light();
        } else {
            self.enter_again(epochs);
        }
    }

    /// Step 1, of a brief pin: see [`Place::leave_briefly`]. Of a place without flags. False, and nothing
    /// done, if the thread is pinned already.
    #[inline(always)]
    fn enter_briefly(&self, epochs: &Epochs) -> bool {
        if self.is_busy() {
            return false;
        }
        self.publish(epochs);
        barrier::light();
        true
    }

    /// Acquire: pairs with the Release of `begin`; see the second half of the module's first
    /// case. Release: who sees this pin has what the pins of this thread before it have read behind it;
    /// what makes the store seen in time is the barrier that follows.
    #[inline(always)]
    fn publish(&self, epochs: &Epochs) {
        let epoch = epochs.now.load(Ordering::Acquire);
        self.pinned.store(epoch, Ordering::Release);
    }

    /// Step 3. Release: what was read comes before; pairs with the look of `advance`.
    #[inline(always)]
    fn unpublish(&self) {
        self.pinned.store(IDLE, Ordering::Release);
    }

    /// What a thread does that is pinned already, or has a flag.
    #[cold]
    fn enter_again(&self, epochs: &Epochs) {
        let depth = self.depth.get();
        if self.is_pinned() {
            let within = if depth & Self::PINS == 0 {
                Self::WITHIN
            } else {
                0
            };
            return self.depth.set((depth | within) + 1);
        }
        let depth = depth | self.answer();
        self.depth.set(depth + 1);
        self.publish(epochs);
        if depth & Self::FENCED == 0 {
            barrier::light();
        } else {
            barrier::whole();
        }
    }

    /// Answers `ASKED`: returns the flag for `depth`, or 0 if nothing was asked. Called by the place's thread, which is
    /// not pinned.
    fn answer(&self) -> u64 {
        if self.pinned.load(Ordering::Relaxed) != ASKED {
            return 0;
        }
        self.go_over();
        #[cfg(not(any(atomic_cache_loom, atomic_cache_crossbeam)))]
        process::forget_the_short_way();
        Self::FENCED
    }

    fn go_over(&self) {
        // Release: the reads under this thread's earlier pins come first. Pairs with the load in `all_are_fenced`.
        self.fenced.store(1, Ordering::Release);
    }

    /// Ends a counted pin. True: nothing is pinned any more, and the place is to be given back.
    #[inline(always)]
    fn leave(&self) -> bool {
        let depth = self.depth.get() - 1;
        self.depth.set(depth);
        if depth == 0 {
            self.unpublish();
            return false;
        }
        self.leave_again(depth)
    }

    #[cold]
    fn leave_again(&self, depth: u64) -> bool {
        if depth & Self::PINS != 0 {
            return false;
        }
        if depth & Self::WITHIN != 0 {
            // The brief pin is still there.
            self.depth.set(depth & !Self::WITHIN);
            return false;
        }
        self.unpublish();
        depth & Self::LATE != 0
    }

    /// Ends a brief pin: one that is not counted, because it is the first, and most often the only one.
    /// Counted ones that were taken within it, by foreign code, may go on.
    #[inline(always)]
    fn leave_briefly(&self) {
        if self.depth.get() == 0 {
            self.unpublish();
        } else {
            self.leave_to_others();
        }
    }

    #[cold]
    fn leave_to_others(&self) {
        self.depth.set(self.depth.get() & !Self::WITHIN);
    }

    /// Gives the place up, for another thread.
    fn give_back(&self) {
        debug_assert_eq!(self.depth.get() & Self::PINS, 0);
        // Release: with `take`, hands `depth` on.
        self.taken.store(0, Ordering::Release);
    }
}

impl Epochs {
    #[cfg(not(atomic_cache_loom))]
    const fn new() -> Self {
        Self {
            now: CachePadded::new(AtomicU64::new(1)),
            over: CachePadded::new(AtomicU64::new(0)),
            places: CachePadded::new(AtomicPtr::new(std::ptr::null_mut())),
            over_to_fences: CachePadded::new(AtomicU64::new(0)),
        }
    }

    #[cfg(atomic_cache_loom)]
    pub(crate) fn new() -> Self {
        Self {
            now: CachePadded::new(AtomicU64::new(1)),
            over: CachePadded::new(AtomicU64::new(0)),
            places: CachePadded::new(AtomicPtr::new(std::ptr::null_mut())),
            over_to_fences: CachePadded::new(AtomicU64::new(0)),
        }
    }

    /// A place for a thread, which begins with these flags: one that is free, or a new one.
    pub(crate) fn take(&self, flags: u64) -> &Place {
        let free = self.places().find(|place| {
            // Acquire: with `give_back`. Asked first without a write: most places are somebody's.
            place.taken.load(Ordering::Relaxed) == 0
                && place
                    .taken
                    .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
        });
        let place = free.unwrap_or_else(|| self.make());
        barrier::whole();
        let fenced = if self.go_over_to_fences() || place.fenced.load(Ordering::Relaxed) != 0 {
            place.go_over();
            Place::FENCED
        } else {
            0
        };
        // The thread that had the place before may have ended while it was asked. Relaxed: nothing is read by this.
        let _ = place
            .pinned
            .compare_exchange(ASKED, IDLE, Ordering::Relaxed, Ordering::Relaxed);
        place.depth.set(flags | fenced);
        place
    }

    /// Whether all threads are to go over to full fences.
    fn go_over_to_fences(&self) -> bool {
        self.over_to_fences.load(Ordering::Relaxed) != 0
    }

    /// Returns whether every thread pins with a full fence, and asks those that do not. Called when the heavy barrier has
    /// been refused.
    #[cold]
    fn all_are_fenced(&self) -> bool {
        self.over_to_fences.store(1, Ordering::Relaxed);
        barrier::whole();
        let mut all = true;
        for place in self.places() {
            // Acquire, twice: the reads under the thread's light pins come before what this thread does next.
            if place.taken.load(Ordering::Acquire) != 0 && place.fenced.load(Ordering::Acquire) == 0
            {
                all = false;
                // Relaxed: the thread answers by `fenced`, which has the ordering.
                let _ = place.pinned.compare_exchange(
                    IDLE,
                    ASKED,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
            }
        }
        // The full fence before `advance` looks at the places.
        barrier::whole();
        all
    }

    fn make(&self) -> &Place {
        let place = Box::into_raw(Box::new(Place {
            pinned: AtomicU64::new(IDLE),
            fenced: AtomicU64::new(0),
            depth: Cell::new(0),
            taken: AtomicU64::new(1),
            next: Cell::new(std::ptr::null()),
        }));
        // SAFETY: made just now, and not freed before `self`.
        let made = unsafe { &*place };
        let mut head = self.places.load(Ordering::Relaxed);
        loop {
            made.next.set(head);
            // Release: who finds the place finds it whole. It is there before its thread's first pin: if
            // a look (c) misses it, the thread's first light barrier comes after b.
            let pushed =
                self.places
                    .compare_exchange(head, place, Ordering::Release, Ordering::Relaxed);
            match pushed {
                Ok(_) => return made,
                Err(other) => head = other,
            }
        }
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        // Acquire: pairs with the Release of `make`, for all that were pushed before, too.
        let head = self.places.load(Ordering::Acquire).cast_const();
        // SAFETY: places are not freed before `self`.
        std::iter::successors(unsafe { head.as_ref() }, |place| unsafe {
            place.next.get().as_ref()
        })
    }

    /// Begins a grace (a): its stamp.
    pub(crate) fn begin(&self) -> u64 {
        // AcqRel: what its caller has unlinked, or knows to be unlinked, comes before; pairs with
        // `publish` and with `advance`.
        self.now.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Whether the grace with this stamp is over.
    pub(crate) fn is_over(&self, stamp: u64) -> bool {
        // Acquire: pairs with the Release in `advance`; the reads of all pins that the grace has waited
        // for come before what our caller does.
        self.over.load(Ordering::Acquire) >= stamp
    }

    /// Lets graces end that nobody holds up (b, c).
    pub(crate) fn advance(&self) {
        // Acquire: pairs with `begin`. Graces that begin later are not spoken of.
        let mut oldest = self.now.load(Ordering::Acquire);
        // Once refused, it is not asked for again: threads that have gone over do not come back.
        let known = !self.go_over_to_fences() && barrier::heavy() || self.all_are_fenced();
        if !known {
            // Nothing is known, so nothing ends: garbage stays, and is seen (`retired`).
            return;
        }
        for place in self.places() {
            // Acquire: pairs with the Release of `leave`.
            let pinned = place.pinned.load(Ordering::Acquire);
            if !matches!(pinned, IDLE | ASKED) {
                oldest = oldest.min(pinned);
            }
        }
        self.over.fetch_max(oldest, Ordering::AcqRel);
    }
}

/// A pin of one thread in a model.
#[cfg(atomic_cache_loom)]
pub(crate) struct Pinned<'e>(&'e Place);

#[cfg(atomic_cache_loom)]
impl Epochs {
    /// As `pin`, briefly, if nothing is pinned.
    pub(crate) fn pin_briefly<'e>(&'e self, place: &'e Place) -> Option<BrieflyPinned<'e>> {
        if place.depth.get() & !Place::PINS & !Place::WITHIN != 0 {
            return None;
        }
        place.enter_briefly(self).then(|| BrieflyPinned(place))
    }

    /// For a model, whose threads have no thread-locals of ours.
    pub(crate) fn pin<'e>(&'e self, place: &'e Place) -> Pinned<'e> {
        place.enter(self);
        Pinned(place)
    }
}

#[cfg(atomic_cache_loom)]
impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        if self.0.leave() {
            self.0.give_back();
        }
    }
}

/// A brief pin of one thread in a model.
#[cfg(atomic_cache_loom)]
pub(crate) struct BrieflyPinned<'e>(&'e Place);

#[cfg(atomic_cache_loom)]
impl Drop for BrieflyPinned<'_> {
    fn drop(&mut self) {
        self.0.leave_briefly();
    }
}

impl Drop for Epochs {
    fn drop(&mut self) {
        let mut place = self.places.load(Ordering::Acquire);
        while !place.is_null() {
            // SAFETY: from `Box::into_raw`, each in the list once; nobody else has `self` any more.
            let this = unsafe { Box::from_raw(place) };
            place = this.next.get().cast_mut();
        }
    }
}

/// The engine of the process.
#[cfg(all(not(atomic_cache_loom), not(atomic_cache_crossbeam)))]
pub(super) mod process {
    use super::{Epochs, Place};
    use crate::sync::barrier;
    use crate::turnstile::Turnstile;
    use std::cell::Cell;
    use std::marker::PhantomData;
    use std::mem::ManuallyDrop;
    use std::ops::Deref;

    /// How often `advance` is called before all that can be over is: once.
    pub(crate) const ADVANCES: usize = 1;

    static EPOCHS: Epochs = Epochs::new();

    thread_local! {
        /// This thread's place; none before the first pin. Without a destructor: readable until the
        /// very end.
        static PLACE: Cell<Option<&'static Place>> = const { Cell::new(None) };
        /// The same, if it has no flags.
        static BRIEFLY: Cell<Option<&'static Place>> = const { Cell::new(None) };
        /// Gives the place back.
        static GIVES_BACK: GivesBack = const { GivesBack };
    }

    struct GivesBack;

    impl Drop for GivesBack {
        fn drop(&mut self) {
            let Some(place) = PLACE.get() else { return };
            BRIEFLY.set(None);
            place.depth.set(place.depth.get() | Place::LATE);
            if place.depth.get() & Place::PINS == 0 {
                give_back(place);
            }
        }
    }

    /// While it lives, nothing that this thread can reach is freed. It stays on its thread.
    pub(crate) struct Pin {
        place: &'static Place,
        /// Not `Send`: a place is one thread's. Not `Sync`, as nobody needs it.
        _stays: PhantomData<*const ()>,
    }

    impl Drop for Pin {
        #[inline(always)]
        fn drop(&mut self) {
            if self.place.leave() {
                give_back(self.place);
            }
        }
    }

    /// Pins the thread: about a nanosecond.
    #[inline(always)]
    pub(crate) fn pin() -> Pin {
        let place = PLACE.get().unwrap_or_else(take_place);
        place.enter(&EPOCHS);
        Pin {
            place,
            _stays: PhantomData,
        }
    }

    /// The pin of one look.
    pub(crate) struct Brief(ManuallyDrop<Pin>);

    impl Drop for Brief {
        #[inline(always)]
        fn drop(&mut self) {
            self.0.place.leave_briefly();
        }
    }

    impl Deref for Brief {
        type Target = Pin;

        #[inline(always)]
        fn deref(&self) -> &Pin {
            &self.0
        }
    }

    /// Pins a thread that has a place without flags, and no pin: the most usual case. Calls nothing.
    #[inline(always)]
    pub(crate) fn pin_briefly() -> Option<Brief> {
        let place = BRIEFLY.get()?;
        place.enter_briefly(&EPOCHS).then(|| {
            Brief(ManuallyDrop::new(Pin {
                place,
                _stays: PhantomData,
            }))
        })
    }

    /// A place for this thread. In the destructors of thread-locals it is one for as long as something
    /// is pinned.
    #[cold]
    fn take_place() -> &'static Place {
        let late = GIVES_BACK.try_with(|_| ()).is_err();
        let flags = if late { Place::LATE } else { 0 }
            | if barrier::is_split() {
                0
            } else {
                Place::FENCED
            };
        let place = EPOCHS.take(flags);
        PLACE.set(Some(place));
        BRIEFLY.set(Some(place).filter(|place| place.depth.get() == 0));
        place
    }

    /// Bars this thread from brief pins: its place has a flag from now on.
    pub(super) fn forget_the_short_way() {
        BRIEFLY.set(None);
    }

    #[cold]
    fn give_back(place: &'static Place) {
        // First: from now on it may be another thread's.
        PLACE.set(None);
        place.give_back();
    }

    /// Whether this thread holds a pin.
    pub(crate) fn is_pinned() -> bool {
        PLACE.get().is_some_and(Place::is_pinned)
    }

    /// A time after which nobody is pinned any more who was when it began.
    pub(crate) struct Grace(u64);

    impl Grace {
        /// Begins now. What was unlinked before is out of reach for all who pin after.
        pub(crate) fn begin() -> Self {
            Self(EPOCHS.begin())
        }

        pub(crate) fn is_over(&self) -> bool {
            EPOCHS.is_over(self.0)
        }
    }

    /// Lets graces end, if nobody holds them up.
    pub(crate) fn advance() {
        EPOCHS.advance();
        if EPOCHS.go_over_to_fences() {
            // This thread answers too.
            drop(pin());
        }
    }

    /// As [`advance`], unless another thread is just doing that: many that have garbage at the same time do
    /// not interrupt every processor each.
    pub(crate) fn advance_for_all() {
        static ADVANCES: Turnstile<()> = Turnstile::new(());
        ADVANCES.try_in(|()| advance());
    }
}
