//! Our engine: epochs whose readers pay two plain stores.
//!
//! The one counter is the *epoch*. Each thread has a *place*, which holds the epoch in which the
//! thread was pinned, or says that it is not pinned.
//!
//! ```text
//!   reader: pin                              freeing thread
//!   1. place = epoch (read just before)      a. unlinks, then begins a grace: it increments the
//!      light barrier                            epoch, and the new epoch is the grace's stamp
//!   2. reads linked objects                  b. heavy barrier
//!   3. place = IDLE (Release)                c. looks at all places (Acquire): the oldest epoch in
//!                                               which a thread is pinned; graces up to that are over
//! ```
//!
//! *When a grace with stamp s is over, no thread holds an object that was unlinked before it
//! began.* Take any pin.
//!
//! * If its light barrier (1) came before the heavy one (b), the look (c) at its place sees 1, or a
//!   later store of that thread. If it sees 1 with an epoch before s, the grace is not over. With s
//!   or more, the pin has read the epoch from a (Acquire, Release): an object that was unlinked
//!   before a was out of its reach. If it sees a later store, `IDLE` or another pin, that was
//!   released after 3: the reads under the pin come before the end of the grace.
//! * If its light barrier came after the heavy one, the reads (2) see everything before b, so every
//!   unlinking before a.
//!
//! (A thread may read the epoch long before it writes it to its place. Then the epoch is only too
//! old, and the grace lasts longer.) One heavy barrier serves all graces that have begun before it,
//! of all caches.
//!
//! # When the heavy barrier is refused
//!
//! A sandbox that a process enters late may forbid the heavy barrier, and there may be no
//! substitute. Then every thread has to pin with a full fence instead. A thread that pins must not
//! look at a shared flag for that: the look would cost every hit. But it looks at its own place, to
//! see whether it is pinned already. The freeing thread uses that look:
//!
//! 1. It sets `over_to_fences`, and swaps `ASKED` into each place that is `IDLE`.
//! 2. A thread that is about to pin finds its place not `IDLE`, takes the slow path and sees
//!    `ASKED`. It sets `fenced` in its place, and pins with a full fence from then on.
//! 3. Until every thread that has a place has set `fenced`, the freeing thread knows nothing of
//!    their pins, and ends no grace.
//!
//! Why that is enough:
//!
//! * A thread may read `IDLE` just before the swap, and then overwrite `ASKED` with its pin. The
//!   freeing thread asks it again at its next look.
//! * `fenced` is set with Release and read with Acquire. So all reads under the thread's earlier
//!   pins come before the freeing thread's next steps. Its later pins have a full fence, and so has
//!   the freeing thread's look: of the two, one sees the other, as with the two barriers.
//! * A thread that takes a place marks it as taken, makes a full fence, and then reads
//!   `over_to_fences`. The freeing thread sets `over_to_fences`, makes a full fence, and then reads
//!   the places. So at least one of them sees the other.
//!
//! The pin is wait-free: none of its steps can fail or has to be repeated. As with every engine
//! that counts epochs, a thread that sleeps while it is pinned holds up every grace that begins
//! after its pin; see the crate's Trade-offs.
//!
//! The idea of epochs is Fraser's (Practical lock-freedom, 2004). The idea of leaving the fence to
//! the other side is liburcu's (Desnoyers et al., User-level implementations of read-copy update,
//! TPDS '12). No code is taken from either. liburcu has two of everything, and Fraser three epochs,
//! because they count in few bits; a counter of 64 bits does not wrap.

use crate::sync::{AtomicPtr, AtomicU64, Ordering, barrier};
use crossbeam_utils::CachePadded;
use std::cell::Cell;

/// Set in a place: its thread is not pinned. Epochs begin at 1.
const IDLE: u64 = 0;

/// Set in a place: its thread is not pinned, and is asked to pin with a full fence from now on.
const ASKED: u64 = u64::MAX;

/// The pin state of one thread. Places are never freed, but used again. Aligned so that no two
/// share a cache line, nor the pair of lines that a processor fetches at once.
#[repr(align(128))]
pub(crate) struct Place {
    /// `IDLE`, or the epoch in which the thread was pinned. Only that thread writes it; but a
    /// freeing thread may write `ASKED` over `IDLE`.
    pinned: AtomicU64,
    /// Whether the pins of its thread are fenced. Never reset.
    fenced: AtomicU64,
    /// Used by its thread alone: the number of counted pins it holds, and the flags.
    depth: Cell<u64>,
    /// Whether a thread owns the place.
    taken: AtomicU64,
    /// The place that was made before this one. Set before other threads can see this one.
    next: Cell<*const Place>,
}

// SAFETY: only the thread that has taken the place uses `depth`; `give_back` (Release) and `take`
// (Acquire) hand it on. `next` does not change after the place was pushed (Release), and other
// threads reach it through the list (Acquire). The rest is atomic.
unsafe impl Sync for Place {}

/// The epoch and all places. There is one for the process, and one for each model.
pub(crate) struct Epochs {
    now: CachePadded<AtomicU64>,
    /// Graces up to this stamp are over.
    over: CachePadded<AtomicU64>,
    /// All places, the newest first.
    places: CachePadded<AtomicPtr<Place>>,
    /// Whether all threads must pin with full fences.
    over_to_fences: CachePadded<AtomicU64>,
}

impl Place {
    /// Bits of `depth`: the number of pins its thread holds. A forgotten pin stays counted, and a
    /// program could forget one in a nanosecond. So the count has 60 bits, which last 36 years at
    /// that rate.
    pub(crate) const PINS: u64 = (1 << 60) - 1;
    /// Flag of `depth`: the destructors of the thread's thread-locals took the place, or still use
    /// it. The last unpin gives it back, because no later destructor will.
    pub(crate) const LATE: u64 = 1 << 60;
    /// Flag of `depth`: the first counted pin was taken inside a brief pin, and the brief pin
    /// unpublishes.
    const WITHIN: u64 = 1 << 62;
    /// Flag of `depth`: the kernel has no heavy barrier, so the light one is not enough.
    pub(crate) const FENCED: u64 = 1 << 61;

    /// Returns whether the place is not `IDLE`: its thread is pinned or asked, and takes the slow
    /// path.
    #[inline(always)]
    fn is_busy(&self) -> bool {
        // Relaxed: our own store. If this misses an `ASKED`, the freeing thread asks again.
        self.pinned.load(Ordering::Relaxed) != IDLE
    }

    fn is_pinned(&self) -> bool {
        !matches!(self.pinned.load(Ordering::Relaxed), IDLE | ASKED)
    }

    /// Step 1 for a counted pin.
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

    /// Step 1 for a brief pin: see [`Place::leave_briefly`]. The place must have no flags. Returns
    /// false and does nothing if the thread is pinned already.
    #[inline(always)]
    fn enter_briefly(&self, epochs: &Epochs) -> bool {
        if self.is_busy() {
            return false;
        }
        self.publish(epochs);
        barrier::light();
        true
    }

    /// Acquire: pairs with the Release of `begin`; see the first case of the module, with s or
    /// more. Release: a thread that reads this store also sees the reads under this thread's
    /// earlier pins as finished. The barrier that follows makes the store visible in time.
    #[inline(always)]
    fn publish(&self, epochs: &Epochs) {
        let epoch = epochs.now.load(Ordering::Acquire);
        self.pinned.store(epoch, Ordering::Release);
    }

    /// Step 3. Release: the reads under the pin come first. Pairs with the Acquire load in
    /// `advance`.
    #[inline(always)]
    fn unpublish(&self) {
        self.pinned.store(IDLE, Ordering::Release);
    }

    /// Slow path of `enter`: the thread is pinned already, or its place has a flag or is `ASKED`.
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

    /// Answers `ASKED`: returns the flag for `depth`, or 0 if the place is not `ASKED`. Called by
    /// the place's thread while it is not pinned.
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
        // Release: the reads under this thread's earlier pins come first. Pairs with the Acquire
        // load of `fenced` in `all_are_fenced`.
        self.fenced.store(1, Ordering::Release);
    }

    /// Ends a counted pin. Returns true if the thread holds no pin any more and must give the place
    /// back.
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

    /// Ends a brief pin. It is not counted, because it is the first pin, and most often the only
    /// one. User code may have taken counted pins inside it; these may outlive it.
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
        // Release: hands `depth` on. Pairs with the Acquire in `take`.
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

    /// Takes a free place for a thread, or makes one. `flags` are its first flags.
    pub(crate) fn take(&self, flags: u64) -> &Place {
        let free = self.places().find(|place| {
            // Acquire: pairs with the Release of `give_back`. The load comes first because it
            // writes nothing, and most places are taken.
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
        // The thread that had the place before may have ended while it was asked. Relaxed: orders
        // nothing.
        let _ = place
            .pinned
            .compare_exchange(ASKED, IDLE, Ordering::Relaxed, Ordering::Relaxed);
        place.depth.set(flags | fenced);
        place
    }

    /// Returns whether all threads must pin with full fences.
    fn go_over_to_fences(&self) -> bool {
        self.over_to_fences.load(Ordering::Relaxed) != 0
    }

    /// Returns whether every thread pins with a full fence, and asks those that do not. Called when
    /// the heavy barrier has been refused.
    #[cold]
    fn all_are_fenced(&self) -> bool {
        self.over_to_fences.store(1, Ordering::Relaxed);
        barrier::whole();
        let mut all = true;
        for place in self.places() {
            // Acquire, of `taken`: pairs with the Release of `give_back`. Acquire, of `fenced`:
            // pairs with `go_over`. With either, the reads under the thread's light pins come
            // before our next steps.
            if place.taken.load(Ordering::Acquire) != 0 && place.fenced.load(Ordering::Acquire) == 0
            {
                all = false;
                // Relaxed: the thread answers with `fenced`, which has the ordering.
                let _ = place.pinned.compare_exchange(
                    IDLE,
                    ASKED,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
            }
        }
        // Full fence: comes before `advance` looks at the places.
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
            // Release: a thread that finds the place finds it initialised. Pairs with the Acquire
            // in `places`. The push comes before the first pin of the new thread: if a look (c)
            // misses the place, the first light barrier of that thread comes after b.
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
        // Acquire: pairs with the Release of `make`, also for all places that were pushed before.
        let head = self.places.load(Ordering::Acquire).cast_const();
        // SAFETY: places are not freed before `self`, and `head` and each `next` are null or point
        // to one.
        std::iter::successors(unsafe { head.as_ref() }, |place| unsafe {
            place.next.get().as_ref()
        })
    }

    /// Begins a grace (a) and returns its stamp.
    pub(crate) fn begin(&self) -> u64 {
        // AcqRel: the unlinking that our caller did, or knows of, comes first. Pairs with
        // `publish` and with `advance`.
        self.now.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Returns whether the grace with this stamp is over.
    pub(crate) fn is_over(&self, stamp: u64) -> bool {
        // Acquire: pairs with the Release in `advance`. The reads under all pins that the grace has
        // waited for come before our caller's next steps.
        self.over.load(Ordering::Acquire) >= stamp
    }

    /// Ends the graces that no pinned thread holds up (b, c).
    pub(crate) fn advance(&self) {
        // Acquire: pairs with the Release of `begin`. Graces that begin later are not ended here.
        let mut oldest = self.now.load(Ordering::Acquire);
        // Once refused, the barrier is not asked for again: threads that pin with fences do not go
        // back.
        let known = !self.go_over_to_fences() && barrier::heavy() || self.all_are_fenced();
        if !known {
            // No pin is known, so no grace ends. The garbage stays, and `retired` counts it.
            return;
        }
        for place in self.places() {
            // Acquire: pairs with the Release of `publish` and `unpublish`.
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
    /// Takes a brief pin, if nothing is pinned.
    pub(crate) fn pin_briefly<'e>(&'e self, place: &'e Place) -> Option<BrieflyPinned<'e>> {
        if place.depth.get() & !Place::PINS & !Place::WITHIN != 0 {
            return None;
        }
        place.enter_briefly(self).then(|| BrieflyPinned(place))
    }

    /// Takes a counted pin. The threads of a model have no thread-locals of ours.
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
            // SAFETY: from `Box::into_raw`, each in the list once; no other thread uses `self` any
            // more.
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

    /// How many calls of `advance` end every grace that can end: one.
    pub(crate) const ADVANCES: usize = 1;

    static EPOCHS: Epochs = Epochs::new();

    thread_local! {
        /// This thread's place; `None` before the first pin. It has no destructor, so it is
        /// readable until the thread's very end.
        static PLACE: Cell<Option<&'static Place>> = const { Cell::new(None) };
        /// The same place, if it has no flags.
        static BRIEFLY: Cell<Option<&'static Place>> = const { Cell::new(None) };
        /// Gives the place back when the thread ends.
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

    /// While it lives, no object that this thread can reach is freed. It stays on its thread.
    pub(crate) struct Pin {
        place: &'static Place,
        /// Not `Send`: a place belongs to one thread. Not `Sync`, because no caller needs it.
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

    /// A pin for one look-up: not counted if it is the thread's only pin.
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

    /// Takes a brief pin, if the thread has a place without flags and no pin: the most usual case.
    /// Calls no function.
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

    /// Takes a place for this thread. In the destructors of thread-locals the thread keeps it only
    /// while it holds a pin.
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
        // First: once given back, the place may belong to another thread.
        PLACE.set(None);
        place.give_back();
    }

    /// Returns whether this thread holds a pin.
    pub(crate) fn is_pinned() -> bool {
        PLACE.get().is_some_and(Place::is_pinned)
    }

    /// A period. Every thread that was pinned at its beginning has been unpinned by its end.
    pub(crate) struct Grace(u64);

    impl Grace {
        /// Begins now. An object that was unlinked before is out of reach of later pins.
        pub(crate) fn begin() -> Self {
            Self(EPOCHS.begin())
        }

        pub(crate) fn is_over(&self) -> bool {
            EPOCHS.is_over(self.0)
        }
    }

    /// Ends the graces that no pinned thread holds up.
    pub(crate) fn advance() {
        EPOCHS.advance();
        if EPOCHS.go_over_to_fences() {
            // This thread answers too.
            drop(pin());
        }
    }

    /// Does what [`advance`] does, unless another thread is doing it. So many threads that have
    /// garbage at the same time do not each interrupt every processor.
    pub(crate) fn advance_for_all() {
        static ADVANCES: Turnstile<()> = Turnstile::new(());
        ADVANCES.try_in(|()| advance());
    }
}
