//! The lock-free open-addressing table: hash -> word -> object.
//!
//! One 64-bit word a position, probed linearly. The table knows hashes and addresses; it never
//! looks at what an object *is* beyond asking its caller "is it this key?", so it is modelled
//! alone with plain integers for objects.
//!
//! # The life of a word
//!
//! ```text
//!          place               confirm              unlink
//!   EMPTY ------> TENTATIVE ------------> LIVE ----------------> TOMB
//!   TOMB  ---'        | withdraw, kill     |  ^ replace           | place (reused), or, with an
//!                     '--> TOMB            |  '----- (in place)   | EMPTY behind it, clear: EMPTY
//!                                          v                      v
//!        resize:   EMPTY -> MOVED_END   LIVE -> FROZEN -> MOVED   TOMB, TENTATIVE -> MOVED
//! ```
//!
//! An `EMPTY` ends a probe. So between a live word and its home none ever appears: every reachable
//! word stays reachable.
//!
//! # One word a key, although tombstones are reused
//!
//! Two callers that insert one key may pick two different positions when a tombstone appears
//! between. After Purcell and Harris (Non-blocking hashtables with open addressing, DISC '05) an
//! insert therefore has two steps: *place* a tentative word, which readers pass over; walk the
//! whole probe once more; *confirm*. If A and B are placed for one key, then of the two walks that
//! follow the two placements at least one sees the other's word (`store_load`), and
//!
//! * a walk that meets a live word of its key withdraws;
//! * a walk that meets a tentative word of its key kills it when that stands later in the probe,
//!   and withdraws when it stands earlier.
//!
//! Only its owner confirms a word, by a compare-and-swap that fails if it was killed. If the owner
//! of an insert has stopped between the two steps, others of that very key are delayed for a
//! bounded number of turns, after which they kill its word. So everything here is lock-free but for
//! inserts of one key racing each other, which are obstruction-free.
//!
//! The layout of a word is in `table/word.rs`, the order of positions in `table/probe.rs`, the
//! clearing of tombstones in `table/clear.rs`, resizes in `table/grow.rs`, walks over everything in
//! `table/scan.rs`, and the policy's view in `table/dial.rs`.

mod clear;
mod dial;
mod grow;
mod probe;
mod scan;
mod word;
mod words;

use crate::reclaim::{Domain, Pin, reach};
use crate::sync::{AtomicPtr, AtomicUsize, Ordering, PATIENCE, relax, store_load};
use crossbeam_utils::CachePadded;
pub(crate) use dial::{Dial, PROBATION};
use grow::Level;
use probe::probe;
use word::Word;

/// The most objects a table may be made for.
pub(crate) const MAX_OBJECTS: usize = 1 << (grow::MAX_BITS - 1);

/// Words that a hit looks at before it takes the slow path. In a table that is half full, 97 in 100
/// objects stand that near to their home.
const GLANCE: usize = 4;

/// Asks for the hash of an object that the table moves. Runs user code: the key's `Hash`.
pub(crate) trait Rehash<T> {
    /// Returns `None` when it panicked.
    fn rehash(&self, object: &T) -> Option<u64>;
    /// Takes an object that the table has let go of, because it has no hash and so no position.
    fn lost(&self, object: &T);
}

/// A table of `T`s that it does not own. They are put in and taken out as pointers, and the thread
/// that takes one out retires it.
pub(crate) struct Table<T> {
    /// The oldest level that may still hold something. Release when promoted (grow.rs), Acquire
    /// in `root`: the reader of a new root sees its words.
    root: AtomicPtr<Level>,
    /// The number of words that have [`PROBATION`] in their mark. On a cache line of its own: every
    /// miss changes it, and every hit reads the root.
    probation: CachePadded<AtomicUsize>,
    /// Invariant in `T`: every handle takes out objects that other handles put in. A table that let
    /// `T` shrink would accept a short-lived value for a long-lived one.
    _objects: std::marker::PhantomData<*mut T>,
}

/// A word that was seen to hold an object: its position and its value.
pub(crate) struct Spot<'p, T> {
    level: &'p Level,
    at: usize,
    word: Word,
    _object: std::marker::PhantomData<&'p T>,
}

impl<'p, T> Spot<'p, T> {
    #[inline(always)]
    fn new(level: &'p Level, at: usize, word: Word) -> Self {
        Self {
            level,
            at,
            word,
            _object: std::marker::PhantomData,
        }
    }

    /// Lends the object that the word points to, for as long as the pin under which the word was loaded.
    #[inline(always)]
    pub(crate) fn object(&self) -> &'p T {
        object_of(self.level, self.word)
    }

    /// The address of that object.
    #[inline(always)]
    pub(crate) fn address(&self) -> *const T {
        self.word.pointer() as *const T
    }
}

/// The object that a word of a level with a pointer leads to.
#[inline(always)]
fn object_of<T>(_: &Level, word: Word) -> &T {
    // SAFETY: the word was loaded from a level of this table under the pin that the level is borrowed from. So its object was
    // linked, or stood there for a moment, since that pin was taken. In both cases it is retired before it is dropped.
    unsafe { reach(word.pointer() as *const T) }
}

/// The result of a short look.
pub(crate) enum Glance<T> {
    Found(T),
    Absent,
    /// It takes a longer look.
    Unclear,
}

impl<T> Glance<T> {
    #[inline(always)]
    pub(crate) fn map<R>(self, f: impl FnOnce(T) -> R) -> Glance<R> {
        match self {
            Self::Found(found) => Glance::Found(f(found)),
            Self::Absent => Glance::Absent,
            Self::Unclear => Glance::Unclear,
        }
    }
}

/// The result of [`Table::claim`].
pub(crate) enum Claim<'p, T> {
    /// The object is in the table.
    Placed(*const T),
    /// The key was there.
    Found(Spot<'p, T>),
}

/// A key that is claimed.
pub(crate) trait Key<T> {
    /// Returns whether an object is of this key. Runs user code: the key's `Eq`.
    fn is(&self, object: &T) -> bool;
    /// The object to put in: made when it is first asked for, the same one after that.
    ///
    /// It may be in the table for a moment and then be withdrawn. Other threads may be reading it
    /// from the first time it was asked for. So if it is not used it must be retired, not dropped.
    fn object(&mut self) -> *const T;
    /// The mark that its word is to begin with.
    fn mark(&mut self) -> u8;
}

/// The result of a walk over one key's probe.
enum Walk<'p, T> {
    Found(Spot<'p, T>),
    /// A free position, the word there, and the steps of the walk.
    Free(usize, Word, usize),
    /// Another thread's tentative word of this key.
    Rival(usize, Word),
    /// The level is being moved from.
    Moving,
    /// Every position is taken.
    Full,
}

impl<T> Table<T> {
    /// Makes a table with room for about `capacity` objects before it resizes. With `no_more` there
    /// will be no more than these, but for a few for a moment.
    pub(crate) fn new(capacity: usize, no_more: bool) -> Self {
        let root = Level::for_objects(capacity, no_more);
        Self {
            root: AtomicPtr::new(Box::into_raw(Box::new(root))),
            probation: CachePadded::new(AtomicUsize::new(0)),
            _objects: std::marker::PhantomData,
        }
    }

    #[inline(always)]
    fn root<'p>(&self, _pin: &'p Pin) -> &'p Level {
        // Acquire: pairs with the Release of `promote`.
        // SAFETY: a level that has been replaced as root is retired, so it outlives every pin
        // that could load it; `self` owns the root there is.
        unsafe { &*self.root.load(Ordering::Acquire) }
    }

    /// The object of a key, as far as the first words of its probe in the root tell.
    #[inline(always)]
    pub(crate) fn glance<'p>(
        &self,
        hash: u64,
        pin: &'p Pin,
        is_key: impl Fn(&T) -> bool,
    ) -> Glance<Spot<'p, T>> {
        let level = self.root(pin);
        let home = level.home(hash);
        for step in 0..GLANCE {
            let at = home.wrapping_add(step);
            let word = level.load(at);
            if word.matches(hash) && is_key(object_of(level, word)) {
                return Glance::Found(Spot::new(level, at, word));
            }
            if word.ends_glance() {
                if word.is_empty() {
                    return Glance::Absent;
                }
                break;
            }
        }
        Glance::Unclear
    }

    /// The object of a key, for reading. Never writes, never waits; its steps are bounded by the
    /// words of the levels.
    ///
    /// A level that is being moved from is searched before the one it moves to. That is exact:
    /// while a reader still sees a key's word in the older level, no writer has changed that key in
    /// the newer one, because every writer first moves the key's whole probe.
    #[inline]
    pub(crate) fn find<'p>(
        &self,
        hash: u64,
        pin: &'p Pin,
        is_key: impl Fn(&T) -> bool,
    ) -> Option<Spot<'p, T>> {
        let mut level = self.root(pin);
        loop {
            let load = level.loads();
            let mut moved = false;
            for at in probe(hash, level.bits()) {
                let word = load(at);
                if word.matches(hash) && is_key(object_of(level, word)) {
                    return Some(Spot::new(level, at, word));
                }
                moved |= word.is_moved();
                if word.ends_probe() {
                    break;
                }
            }
            if !moved {
                return None;
            }
            level = level.next()?;
        }
    }

    /// The object of a key, for changing it: found in the level where changes are made.
    pub(crate) fn find_to_change<'p>(
        &self,
        hash: u64,
        pin: &'p Pin,
        rehash: &dyn Rehash<T>,
        domain: &Domain,
        is_key: &dyn Fn(&T) -> bool,
    ) -> Option<Spot<'p, T>> {
        loop {
            let level = self.writable(hash, pin, rehash, domain);
            match Self::walk(level, hash, is_key) {
                Walk::Found(spot) if spot.word.is_fresh() => {
                    self.settle_source(&spot, pin, rehash, domain);
                }
                Walk::Found(spot) => return Some(spot),
                Walk::Moving => {}
                Walk::Free(..) | Walk::Rival(..) | Walk::Full => return None,
            }
        }
    }

    /// Puts an object in for a key, unless the key is there.
    pub(crate) fn claim<'p>(
        &self,
        hash: u64,
        key: &mut dyn Key<T>,
        pin: &'p Pin,
        rehash: &dyn Rehash<T>,
        domain: &Domain,
    ) -> Claim<'p, T> {
        let mut patience = 0;
        loop {
            let level = self.writable(hash, pin, rehash, domain);
            match Self::walk(level, hash, &|object| key.is(object)) {
                Walk::Found(spot) if spot.word.is_fresh() => {
                    self.settle_source(&spot, pin, rehash, domain);
                }
                Walk::Found(spot) => return Claim::Found(spot),
                Walk::Moving => {}
                Walk::Full => self.grow(level, pin, rehash, domain),
                Walk::Rival(at, word) => {
                    // Its owner is between placing and confirming.
                    relax(patience);
                    patience += 1;
                    if patience > PATIENCE {
                        level.swap(at, word, Word::TOMB);
                    }
                }
                Walk::Free(at, free, steps) => {
                    let object = key.object();
                    if free.is_empty() && !level.reserve(steps) {
                        self.grow(level, pin, rehash, domain);
                        continue;
                    }
                    let mark = key.mark();
                    let word = Word::tentative(object as usize, hash).with_mark(mark);
                    if !level.swap(at, free, word) {
                        if free.is_empty() {
                            level.unreserve();
                        }
                        continue;
                    }
                    if Self::settle(level, hash, at, word, &|object| key.is(object)) {
                        self.probation_begins(mark);
                        return Claim::Placed(object);
                    }
                }
            }
        }
    }

    /// Makes a copy that stands at `spot` one that may be changed: finishes the resize that made
    /// it, so that the word it was copied from is certainly `MOVED`.
    #[cold]
    fn settle_source(
        &self,
        spot: &Spot<'_, T>,
        pin: &Pin,
        rehash: &dyn Rehash<T>,
        domain: &Domain,
    ) {
        self.whole(pin, rehash, domain);
        spot.level.settle_fresh(spot.at, spot.word.pointer());
    }

    /// One walk over a key's probe.
    fn walk<'p>(level: &'p Level, hash: u64, is_key: &dyn Fn(&T) -> bool) -> Walk<'p, T> {
        let load = level.loads();
        let probe = probe(hash, level.bits());
        let mut free = (usize::MAX, Word::EMPTY);
        let mut rival = None;
        let mut steps = level.len();
        for at in probe.clone() {
            let word = load(at);
            if word.is_empty() {
                if free.0 > at {
                    free = (at, word);
                }
                steps = at - probe.start + 1;
                break;
            }
            if word.is_passed(hash) {
                // The first tombstone, and again without a branch: other words give `usize::MAX`.
                let tomb = at | (word.tomb_bit() as usize).wrapping_sub(1);
                let first = tomb < free.0;
                free = (tomb.min(free.0), if first { word } else { free.1 });
                continue;
            }
            if word.is_moving() {
                return Walk::Moving;
            }
            if word.could_be(hash) && is_key(object_of(level, word)) {
                if word.is_live() {
                    return Walk::Found(Spot::new(level, at, word));
                }
                // Not yet the key's word: that may stand behind it.
                rival = Some((at, word));
            }
        }
        match (rival, free) {
            (Some((at, word)), _) => Walk::Rival(at, word),
            (None, (usize::MAX, _)) => Walk::Full,
            (None, (at, word)) => Walk::Free(at, word, steps),
        }
    }

    /// The second step of an insert: after our word was placed, look once more at every word that
    /// could be of the same key, then confirm. False: our word is out of the table again.
    ///
    /// First backwards to the key's home, so that nothing on the way to our word can be cleared
    /// after we have passed it (`table/clear.rs`), then on to the next `EMPTY`. `ours` is counted
    /// from the home on.
    ///
    /// User code (`Eq`) runs in between. If it panics the word is withdrawn.
    fn settle(
        level: &Level,
        hash: u64,
        ours: usize,
        word: Word,
        is_key: &dyn Fn(&T) -> bool,
    ) -> bool {
        let withdraw = Withdraw {
            level,
            at: ours,
            word,
        };
        // Our placing (SeqCst) comes before the loads of this walk (SeqCst). For two inserts of
        // one key: if the other's word is placed before our walk reads its position, we see it.
        // If it is placed after, then it is placed after ours, and its walk sees ours.
        store_load();
        let is_rival = |other: Word| other.could_be(hash) && is_key(object_of(level, other));
        let load = level.loads();
        let probe = probe(hash, level.bits());
        for at in (probe.start..ours).rev() {
            loop {
                let other = load(at);
                if other.is_settled_and_other(hash) {
                    break;
                }
                // The object of a word that moves may have been of our key, and be in the next
                // level now. An `EMPTY` hides our word from walks that reach it.
                if other.is_moving() || other.is_empty() || is_rival(other) {
                    return false;
                }
                if !other.is_being_cleared() || level.swap(at, other, Word::TOMB) {
                    break;
                }
            }
        }
        for at in ours + 1..probe.end {
            let other = load(at);
            if other.is_empty() {
                break;
            }
            if other.is_passed(hash) {
                continue;
            }
            if other.is_moving() {
                return false;
            }
            // Of two that are tentative the earlier one stays.
            let killed = || other.is_tentative() && level.swap(at, other, Word::TOMB);
            if is_rival(other) && !killed() {
                return false;
            }
        }
        withdraw.confirm()
    }

    /// Puts `object`, of the same key, in the place of the one at `spot`.
    pub(crate) fn replace(&self, spot: &Spot<'_, T>, object: *const T) -> bool {
        // A word that is not fresh and not frozen changes by this swap or not at all.
        !spot.word.is_pinned_down()
            && spot
                .level
                .swap(spot.at, spot.word, spot.word.of_object(object as usize))
    }

    /// Takes the object at `spot` out.
    pub(crate) fn unlink(&self, spot: &Spot<'_, T>) -> bool {
        let unlinked =
            !spot.word.is_pinned_down() && spot.level.swap(spot.at, spot.word, Word::TOMB);
        if unlinked {
            self.probation_ends(spot.mark());
            spot.level.clear_tombs(spot.at);
        }
        unlinked
    }

    /// Takes `object` out (or puts `instead` in its place) wherever it stands. Returns the mark of
    /// its word; `None` when it is not in the table.
    ///
    /// It is looked for by address, first where `hash` says, then, if `still_linked`, everywhere: a
    /// key with a `Hash` that answers differently each time may stand anywhere.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn exchange(
        &self,
        hash: u64,
        object: *const T,
        instead: Option<*const T>,
        pin: &Pin,
        rehash: &dyn Rehash<T>,
        domain: &Domain,
        still_linked: &dyn Fn() -> bool,
    ) -> Option<u8> {
        let is_it = |other: &T| std::ptr::eq(other, object);
        let change = |spot: &Spot<'_, T>| match instead {
            Some(other) => self.replace(spot, other),
            None => self.unlink(spot),
        };
        while let Some(spot) = self.find_to_change(hash, pin, rehash, domain, &is_it) {
            if change(&spot) {
                return Some(spot.mark());
            }
        }
        for turn in 0.. {
            if !still_linked() {
                return None;
            }
            // Most likely another thread has just taken it out and is about to report so.
            if turn < PATIENCE {
                relax(turn);
                continue;
            }
            let level = self.whole(pin, rehash, domain);
            let Some(spot) = level.position_of(object as usize) else {
                if level.next().is_some() {
                    // A resize has begun meanwhile, and may have moved it behind our back.
                    continue;
                }
                return None;
            };
            level.settle_fresh(spot.at, object as usize);
            if change(&spot) {
                return Some(spot.mark());
            }
        }
        None
    }
}

/// Takes a tentative word out again, unless it is confirmed.
struct Withdraw<'a> {
    level: &'a Level,
    at: usize,
    word: Word,
}

impl Withdraw<'_> {
    fn confirm(self) -> bool {
        let confirmed = self.level.swap(self.at, self.word, self.word.confirmed());
        std::mem::forget(self);
        confirmed
    }
}

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        // Fails when it has been killed: then there is nothing to take out.
        self.level.swap(self.at, self.word, Word::TOMB);
    }
}
