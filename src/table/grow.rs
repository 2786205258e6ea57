//! Levels, and how words move from one to the next.
//!
//! A level that is crowded gets a *resize*: a next level hangs off it and every writer moves a
//! block of words, and first of all the whole probe of its own key. Only words move; objects stay
//! where they are, so fills, waiters and readers do not notice. The next level has twice the words,
//! or as many when tombstones crowded the old one; or fewer, when a bounded cache has come to hold
//! far fewer objects than it did.
//!
//! # A word is copied exactly once
//!
//! Any number of threads may help with one word, and any of them may stop for long between two
//! instructions. Copying a word again after it was unlinked would bring a freed object back. So for
//! each word `old[i]`:
//!
//! 1. **Freeze** `old[i]`: from now on it changes into `MOVED` and into nothing else.
//! 2. **Agree** on the destination: `ledger[i]` is set to `q`, a position of the next level that
//!    was `EMPTY`, with the tag that the copy is to have.
//! 3. **Copy**: swap `next[q]` from `EMPTY` to the word, marked *fresh*. `EMPTY` does not come back
//!    there while a helper might still try, so of all helpers one succeeds at `q`.
//! 4. If `q` was taken by another key first, agree on another `q` - but only after having seen
//!    `old[i]` still frozen *after* having seen `next[q]` hold something else. A fresh word is
//!    neither replaced nor unlinked, and it is fresh until `old[i]` is `MOVED`; so if our copy had
//!    ever stood at `q`, it would have stood there still.
//! 5. **Seal**: `old[i]` becomes `MOVED`; then the copy's *fresh* mark is taken away.
//!
//! Nothing of this trusts the key's `Hash`, which may answer as it likes. Positions and tags are
//! agreed on as numbers. An object is agreed to be lost if its `Hash` panics. A writer that meets a
//! fresh word finishes the whole resize before it changes it.

use super::probe::probe;
use super::word::Word;
use super::words::Words;
use super::{Rehash, Spot, Table};
use crate::reclaim::{Domain, Garbage, Pin};
use crate::stats::{STRIPES, Striped};
use crate::sync::{Arc, AtomicPtr, AtomicU64, AtomicUsize, Ordering, prefetch, zeroed_words};
use std::ops::Range;

/// The smallest level there is: 16 words. A hand goes over all of them for a victim of a cache that
/// may hold few.
const FEWEST_BITS: u32 = 4;
/// The first level of a table that was made for no number of objects: 256 words, 2 KiB.
const MIN_BITS: u32 = if cfg!(any(test, atomic_cache_loom)) {
    4
} else {
    8
};
/// The largest: its positions fit the ledger's 32 bits.
pub(super) const MAX_BITS: u32 = 31;
/// Words moved by every writer that meets a resize.
const BLOCK: usize = if cfg!(any(test, atomic_cache_loom)) {
    4
} else {
    32
};
/// A probe longer than this makes an insert ask whether the level is crowded.
const LONG_PROBE: usize = 16;
/// The eighths of a growing table's words that may be in use: at five an unsuccessful probe is four
/// steps on average (Knuth, volume 3, 6.4: (1 + 1 / (1 - 5/8)^2) / 2).
const GROWING: usize = 5;
/// Of a table that was made for a number of objects, at most half of the words: the rest may be
/// tombstones, and at six it is seldom that there are as many. An unsuccessful probe is then eight
/// steps.
const MADE_FOR: usize = 6;
/// Levels up to this many words ask at every insert.
const SMALL: usize = 4096;

/// An array of words, and the resize that hangs off it.
pub(super) struct Level {
    words: Words,
    /// From a hash to its home: `probe::home`, specialised for the level.
    shift: u32,
    bits: u32,
    /// How many words may be in use before it is crowded.
    crowd: usize,
    /// A stripe asks whether it is when its own count has none of these bits: always, in a small level, and else
    /// sixteen times until the level is full.
    seldom: u64,
    /// Words that are not `EMPTY` any more.
    used: Striped,
    /// Set once. Release when set, Acquire when read: the reader sees the next level's words.
    growth: AtomicPtr<Growth>,
    /// Whether tombstones may become `EMPTY` again here (clear.rs): not before the last thread that
    /// might copy into this level is gone. Shared with the resize that leads here.
    settled: Arc<AtomicUsize>,
}

/// The moving from one level to the next. Owned by the level it moves from.
pub(super) struct Growth {
    next: *mut Level,
    /// For each old position a [`Note`].
    ledger: Box<[AtomicU64]>,
    /// The next block that no thread has begun to move.
    cursor: AtomicUsize,
    /// Words moved by the threads that began a block.
    moved: AtomicUsize,
    /// Of the next level; it may be gone before the resize is.
    settles: Arc<AtomicUsize>,
}

impl Level {
    /// At most `eighths` of 8 in use. `dense`: it will be filled at once.
    fn new(bits: u32, eighths: usize, dense: bool) -> Self {
        Self {
            words: Words::new(1 << bits, dense),
            shift: u64::BITS - bits,
            bits,
            crowd: (1 << bits) / 8 * eighths,
            seldom: if 1 << bits <= SMALL {
                0
            } else {
                ((1_usize << bits) / 16 / *STRIPES).next_power_of_two() as u64 - 1
            },
            used: Striped::new(),
            growth: AtomicPtr::new(std::ptr::null_mut()),
            settled: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// The first level of a table: nothing is moved to it.
    pub(super) fn for_objects(n: usize, no_more: bool) -> Self {
        let (least, eighths) = if no_more && n > 0 {
            (FEWEST_BITS, MADE_FOR)
        } else {
            (MIN_BITS, GROWING)
        };
        let words = n.saturating_mul(2).max(1).next_power_of_two();
        let level = Self::new(
            words.trailing_zeros().clamp(least, MAX_BITS),
            eighths,
            false,
        );
        level.settled.store(1, Ordering::Release);
        level
    }

    /// Acquire: pairs with the Release in `Level::drop`; the last copy comes before.
    pub(super) fn may_clear(&self) -> bool {
        self.settled.load(Ordering::Acquire) == 1
    }

    #[inline(always)]
    pub(super) fn bits(&self) -> u32 {
        self.bits
    }

    #[inline(always)]
    pub(super) fn home(&self, hash: u64) -> usize {
        (hash >> self.shift) as usize
    }

    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    /// `SeqCst`: for an insert's second walk, see `settle`. On the machines at hand it costs as
    /// much as Acquire, which is enough for every other caller: a reader of the word sees its
    /// object initialised.
    ///
    /// Positions are counted on round and round.
    #[inline(always)]
    pub(super) fn load(&self, at: usize) -> Word {
        self.loads()(at)
    }

    /// [`load`](Self::load), for a walk.
    #[inline(always)]
    pub(super) fn loads(&self) -> impl Fn(usize) -> Word {
        let words = self.words.view();
        move |at| Word(words.at(at).load(Ordering::SeqCst))
    }

    /// `SeqCst`: the placing step of an insert, see `settle`. Release in all else: a thread that
    /// loads the word sees the object it points to.
    pub(super) fn swap(&self, at: usize, from: Word, to: Word) -> bool {
        self.words
            .view()
            .at(at)
            .compare_exchange(from.0, to.0, Ordering::SeqCst, Ordering::Acquire)
            .is_ok()
    }

    pub(super) fn growth(&self) -> Option<&Growth> {
        let growth = self.growth.load(Ordering::Acquire);
        // SAFETY: set once, and freed with the level.
        unsafe { growth.as_ref() }
    }

    /// The level that this one is moved to.
    pub(super) fn next(&self) -> Option<&Level> {
        // SAFETY: a next level outlives the one before it: it becomes root when that is retired.
        self.growth().map(|growth| unsafe { &*growth.next })
    }

    /// Returns the level that [`next`](Self::next) does, or null, for an owner that walks down to
    /// free.
    pub(super) fn next_or_null(&self) -> *mut Level {
        self.growth()
            .map_or(std::ptr::null_mut(), |growth| growth.next)
    }

    /// Forgets the word at a position; for an owner that is alone.
    pub(super) fn clear(&self, at: usize) {
        self.words.view().at(at).store(0, Ordering::Relaxed);
    }

    /// Takes note of one more word in use. False, and no note taken, when the level has no room for
    /// it and must be resized. It always asks after a long probe.
    ///
    /// Note first, ask then: of any number of threads that pass here at once, no more are let
    /// through than there is room for (in levels that ask every time; in large ones a stripe asks
    /// now and then, and the rest of the level is the slack).
    pub(super) fn reserve(&self, steps: usize) -> bool {
        let mine = self.used.add_and_get(1);
        let ask = steps > LONG_PROBE || mine & self.seldom == 0;
        if ask && self.is_crowded() {
            self.used.sub(1);
            return false;
        }
        true
    }

    /// Takes a note back: the word was not placed, or is `EMPTY` again.
    pub(super) fn unreserve(&self) {
        self.used.sub(1);
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.used.sum() > self.crowd
    }

    /// Of a stretch of positions, counted on round and round, the first whose word is picked.
    #[inline]
    pub(super) fn first_of(
        &self,
        stretch: Range<usize>,
        which: impl Fn(Word) -> bool,
    ) -> Option<(usize, Word)> {
        let mask = self.len() - 1;
        let mut from = stretch.start;
        while from < stretch.end {
            // Up to the last word of the level, in a row.
            let row = (self.len() - (from & mask)).min(stretch.end - from);
            let row = self.words.row(from & mask, row);
            let picked = |word: &AtomicU64| {
                let word = Word(word.load(Ordering::SeqCst));
                which(word).then_some(word)
            };
            // Four to a turn of the loop: a hand goes over some fifty words for each miss.
            let fours = row.chunks_exact(4);
            let rest = fours.remainder();
            for four in fours {
                for (step, word) in four.iter().enumerate() {
                    if let Some(word) = picked(word) {
                        return Some((from + step, word));
                    }
                }
                from += 4;
            }
            for word in rest {
                if let Some(word) = picked(word) {
                    return Some((from, word));
                }
                from += 1;
            }
        }
        None
    }

    fn eighths(&self) -> usize {
        self.crowd * 8 / self.len()
    }

    fn is_made_for_a_number(&self) -> bool {
        self.eighths() == MADE_FOR
    }

    fn count_live(&self) -> usize {
        let is_live = |&at: &usize| self.load(at).is_live();
        (0..self.len()).filter(is_live).count()
    }

    /// Finds the position of an object, by looking everywhere.
    pub(super) fn position_of<T>(&self, object: usize) -> Option<Spot<'_, T>> {
        (0..self.len())
            .map(|at| Spot::new(self, at, self.load(at)))
            .find(|spot| spot.word.is_live() && spot.word.pointer() == object)
    }
}

impl Growth {
    /// Whether less than half of the words have been begun to be moved.
    pub(super) fn is_young(&self) -> bool {
        // Relaxed: only a guess at where more is found.
        self.cursor.load(Ordering::Relaxed) < self.ledger.len() / 2
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        let growth = self.growth.load(Ordering::Acquire);
        if !growth.is_null() {
            // SAFETY: made by `Box::into_raw`, set once, owned by this level.
            let growth = unsafe { Box::from_raw(growth) };
            // A grace period has passed since this level was replaced: no thread copies any more.
            growth.settles.store(1, Ordering::Release);
        }
    }
}

impl<T> Table<T> {
    /// The level in which the key of `hash` is changed now. The words of its probe in older levels
    /// have been moved there.
    pub(super) fn writable<'p>(
        &self,
        hash: u64,
        pin: &'p Pin,
        rehash: &dyn Rehash<T>,
        domain: &Domain,
    ) -> &'p Level {
        let mut level = self.root(pin);
        while let Some(growth) = level.growth() {
            for at in probe(hash, level.bits) {
                if self.move_word(level, growth, at, rehash) == Word::MOVED_END {
                    break;
                }
            }
            self.move_a_block(level, growth, rehash, domain);
            // SAFETY: the next level outlives this one, which the pin keeps.
            level = unsafe { &*growth.next };
        }
        level
    }

    /// The root, with no resize hanging off it when it was looked at. Finishes one that does.
    pub(super) fn whole<'p>(
        &self,
        pin: &'p Pin,
        rehash: &dyn Rehash<T>,
        domain: &Domain,
    ) -> &'p Level {
        loop {
            let level = self.root(pin);
            let Some(growth) = level.growth() else {
                return level;
            };
            // Every word, also those of blocks that other threads have begun: they may have
            // stopped.
            for at in 0..level.len() {
                self.move_word(level, growth, at, rehash);
            }
            self.promote(level, growth, domain);
        }
    }

    /// Begins a resize of `level`, unless there is one.
    #[cold]
    pub(super) fn grow(&self, level: &Level, pin: &Pin, rehash: &dyn Rehash<T>, domain: &Domain) {
        // There are never more than two levels: the one before must have been left first.
        let root = self.whole(pin, rehash, domain);
        if !std::ptr::eq(root, level) {
            return;
        }
        // Few live: a level of the same size gets rid of the tombstones and is used well. More:
        // twice the size. (Counting costs little beside moving.)
        let live = level.count_live();
        let few = if level.is_made_for_a_number() {
            level.len() / 8 * 5
        } else {
            level.len() / 4
        };
        let bits = level.bits + u32::from(live > few && level.bits < MAX_BITS);
        Self::begin(level, bits);
    }

    /// Moves everything to a smaller level, if there is one in which the objects are at home: of a
    /// table that held many more of them. A hand would hardly find one in the old one.
    #[cold]
    pub(crate) fn shrink(&self, pin: &Pin, rehash: &dyn Rehash<T>, domain: &Domain) {
        let level = self.whole(pin, rehash, domain);
        let live = level.count_live();
        // A quarter live, as in a level that has just been moved to.
        let words = live.saturating_mul(4).next_power_of_two();
        let bits = words.trailing_zeros().max(FEWEST_BITS);
        if bits < level.bits {
            Self::begin(level, bits);
            self.whole(pin, rehash, domain);
        }
    }

    /// Hangs a next level off one, unless there is one.
    fn begin(level: &Level, bits: u32) {
        let next = Level::new(bits, level.eighths(), true);
        let growth = Box::into_raw(Box::new(Growth {
            settles: next.settled.clone(),
            next: Box::into_raw(Box::new(next)),
            ledger: zeroed_words(level.len()),
            cursor: AtomicUsize::new(0),
            moved: AtomicUsize::new(0),
        }));
        // Release: pairs with the Acquire in `Level::growth`.
        let set = level.growth.compare_exchange(
            std::ptr::null_mut(),
            growth,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        if set.is_err() {
            // SAFETY: ours is not shared; nothing else refers to its next level.
            unsafe {
                let growth = Box::from_raw(growth);
                drop(Box::from_raw(growth.next));
            }
        }
    }

    pub(super) fn move_a_block(
        &self,
        level: &Level,
        growth: &Growth,
        rehash: &dyn Rehash<T>,
        domain: &Domain,
    ) {
        let size = level.len();
        // Relaxed: the cursor only deals out work; the words carry all order themselves.
        if growth.cursor.load(Ordering::Relaxed) >= size {
            return;
        }
        let start = growth.cursor.fetch_add(BLOCK, Ordering::Relaxed);
        let block = start..size.min(start.saturating_add(BLOCK));
        let moved = block.len();
        // Every object of the block will be asked for its hash, and most are not in the cache:
        // fetched together their latencies overlap.
        for at in block.clone() {
            prefetch(level.load(at).pointer());
        }
        for at in block {
            self.move_word(level, growth, at, rehash);
        }
        if moved > 0 && growth.moved.fetch_add(moved, Ordering::AcqRel) + moved == size {
            self.promote(level, growth, domain);
        }
    }

    /// Every word of `level` is `MOVED`: the next level becomes the root.
    fn promote(&self, level: &Level, growth: &Growth, domain: &Domain) {
        let old = std::ptr::from_ref(level).cast_mut();
        // Release: pairs with the Acquire in `root`.
        let promoted = self
            .root
            .compare_exchange(old, growth.next, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if promoted {
            // SAFETY: levels come from `Box::into_raw`. Of all threads that try, one swings the
            // root, so it is retired once; it holds no object any more.
            domain.retire_large(unsafe { Garbage::large(old) });
        }
    }

    /// Moves one word, or helps to; returns the word there now: `MOVED` or `MOVED_END`.
    fn move_word(&self, level: &Level, growth: &Growth, at: usize, rehash: &dyn Rehash<T>) -> Word {
        loop {
            let word = level.load(at);
            let to = match word {
                Word::MOVED | Word::MOVED_END => return word,
                Word::EMPTY => Word::MOVED_END,
                // A tentative word is killed: its owner starts again in the next level.
                _ if word.is_free() || word.is_tentative() => Word::MOVED,
                // Its own source is moved, or `whole` would not have let this resize begin: the
                // mark is one that a helper has not yet come to take away.
                _ if word.is_fresh() => word.settled(),
                _ if word.is_frozen() => {
                    self.copy(level, growth, at, word, rehash);
                    return Word::MOVED;
                }
                _ => word.frozen(),
            };
            level.swap(at, word, to);
        }
    }

    /// Steps 2 to 5 of a frozen word's way.
    fn copy(
        &self,
        level: &Level,
        growth: &Growth,
        at: usize,
        frozen: Word,
        rehash: &dyn Rehash<T>,
    ) {
        // SAFETY: the next level outlives this one.
        let next = unsafe { &*growth.next };
        // SAFETY: a frozen word's object is linked, and the caller is pinned.
        let object = unsafe { &*(frozen.pointer() as *const T) };
        let ledger = &growth.ledger[at & (level.len() - 1)];
        loop {
            let note = ledger.load(Ordering::Acquire);
            if note == Note::LOST {
                // Of all helpers one seals the word, and lets go of the object.
                if level.swap(at, frozen, Word::MOVED) {
                    self.probation_ends(frozen.mark());
                    rehash.lost(object);
                }
                return;
            }
            if let Some((q, hash)) = Note::agreed(note) {
                if next.swap(q, Word::EMPTY, frozen.fresh_copy(hash)) {
                    next.used.add(1);
                }
                if next.load(q).pointer() == frozen.pointer() {
                    level.swap(at, frozen, Word::MOVED);
                    next.settle_fresh(q, frozen.pointer());
                    return;
                }
            }
            // Step 4: first the word there, then whether the source is still frozen.
            if level.load(at) != frozen {
                return;
            }
            // No hash, or no room. Room there is: inserts leave 3/8 of a level free, and a level is
            // left with at most 5/16 of the next one's words to copy. But where many threads have
            // stopped in the middle of many words at once, letting go of an entry is allowed to a
            // cache.
            let proposal = rehash
                .rehash(object)
                .and_then(|hash| Some(Note::propose(next.first_empty(hash)?, hash)))
                .unwrap_or(Note::LOST);
            // AcqRel: nothing but the note travels; it must not go back to an older one.
            let _ = ledger.compare_exchange(note, proposal, Ordering::AcqRel, Ordering::Acquire);
        }
    }
}

/// The ledger's entry for one word: nothing (0), its destination, or that it is lost.
///
/// The tag travels with the position, so that the helpers agree on the whole word: a `Hash` may
/// answer each of them differently.
struct Note;

impl Note {
    /// Its key's `Hash` panicked, or there is no room: it has no place to go to, and is let go of.
    const LOST: u64 = u64::MAX;

    /// The tag above the position, which is counted from one: levels end at 2^31 words.
    fn propose(q: usize, hash: u64) -> u64 {
        (hash & 0xFF) << 48 | (q as u64 + 1)
    }

    /// The position, and a hash with the tag.
    fn agreed(note: u64) -> Option<(usize, u64)> {
        let q = (note & 0xFFFF_FFFF).checked_sub(1)?;
        Some((q as usize, note >> 48))
    }
}

#[cfg(all(test, not(atomic_cache_loom)))]
impl<T> Table<T> {
    /// Begins a resize in which other threads have begun to move every block, and then stopped.
    pub(crate) fn stall(&self, pin: &Pin) {
        let level = self.root(pin);
        Self::begin(level, level.bits);
        let growth = level.growth().expect("begun just now");
        growth.cursor.store(level.len(), Ordering::Relaxed);
    }

    /// Leaves every word as one whose mover stopped right before the last of its steps.
    pub(crate) fn leave_fresh(&self, pin: &Pin) {
        let level = self.root(pin);
        for at in 0..level.len() {
            let word = level.load(at);
            if word.is_live() {
                assert!(level.swap(at, word, word.fresh()));
            }
        }
    }
}

impl Level {
    /// Step 5: the source of the copy at `at` is `MOVED`; the copy may now be changed.
    pub(super) fn settle_fresh(&self, at: usize, pointer: usize) {
        loop {
            let word = self.load(at);
            if word.pointer() != pointer || !word.is_fresh() || self.swap(at, word, word.settled())
            {
                return;
            }
        }
    }

    /// A place for a copy.
    fn first_empty(&self, hash: u64) -> Option<usize> {
        let load = self.loads();
        let at = probe(hash, self.bits).find(|&at| load(at).is_empty())?;
        Some(at & (self.len() - 1))
    }
}
