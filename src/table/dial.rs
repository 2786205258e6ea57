//! The words in a row, as the clock of a bounded cache's policy: marks are read and changed by
//! position, without a look at any object.

use super::grow::Level;
use super::probe::probe;
use super::{Rehash, Spot, Table};
use crate::reclaim::{Domain, Pin};
use crate::sync::{Ordering, prefetch};
use std::marker::PhantomData;
use std::ops::Range;

/// The bit of a mark that says *on probation*. The table counts the words that have it.
pub(crate) const PROBATION: u8 = 1 << 4;

/// Blocks of words that an evictor moves when it meets a resize.
const HELP: usize = 4;

/// All positions of a level.
pub(crate) struct Dial<'p, T> {
    level: &'p Level,
    _objects: PhantomData<&'p T>,
}

impl<'p, T> Dial<'p, T> {
    fn new(level: &'p Level) -> Self {
        Self {
            level,
            _objects: PhantomData,
        }
    }

    /// How many positions there are: a power of two.
    pub(crate) fn positions(&self) -> usize {
        self.level.len()
    }

    /// Whether it still shows everything in the table, and has since it was made of all: no resize
    /// has begun that takes words away.
    pub(crate) fn shows_all(&self) -> bool {
        self.level.growth().is_none()
    }

    /// The word at a position, counted on round and round, if it may be changed now.
    #[inline]
    pub(crate) fn spot(&self, at: usize) -> Option<Spot<'p, T>> {
        let at = at & (self.level.len() - 1);
        let word = self.level.load(at);
        let level = self.level;
        word.is_settled().then_some(Spot::new(level, at, word))
    }

    /// Of a stretch of positions the first that may be changed now and is on probation, or is not.
    #[inline]
    pub(crate) fn next(&self, stretch: Range<usize>, on_probation: bool) -> Option<(usize, u8)> {
        // Twice, so that each loop asks one thing.
        let first = if on_probation {
            self.level
                .first_of(stretch, |word| word.is_settled_with(PROBATION, true))
        } else {
            self.level
                .first_of(stretch, |word| word.is_settled_with(PROBATION, false))
        };
        first.map(|(at, word)| (at, word.mark()))
    }

    /// The position of the first entry of a stretch that is on probation, which is prefetched; or
    /// the end.
    pub(crate) fn rest(&self, stretch: Range<usize>) -> usize {
        let end = stretch.end;
        let next = self
            .level
            .first_of(stretch, |word| word.is_settled_with(PROBATION, true));
        next.map_or(end, |(at, word)| {
            prefetch(word.pointer());
            at
        })
    }
}

impl<T> Spot<'_, T> {
    /// The mark that was seen.
    #[inline(always)]
    pub(crate) fn mark(&self) -> u8 {
        self.word.mark()
    }

    /// Changes the mark of a word on behalf of a reader: once, and if it fails it is forgotten.
    /// Not for the bit that is counted.
    #[cold]
    pub(crate) fn touch(&self, mark: u8) {
        debug_assert_eq!((mark ^ self.mark()) & PROBATION, 0);
        if !self.word.is_pinned_down() {
            self.level
                .swap(self.at, self.word, self.word.with_mark(mark));
        }
    }
}

impl<T> Table<T> {
    /// The words of the table. While it resizes, those of the level where most of them are; and the
    /// resize goes on a little.
    ///
    /// In either level a word that is neither frozen nor fresh is its object's only one, and may be
    /// changed. In the old level no helper has begun to move it, because that needs a swap of this
    /// very word. In the new one its source is `MOVED`.
    pub(crate) fn dial<'p>(
        &self,
        pin: &'p Pin,
        rehash: &dyn Rehash<T>,
        domain: &Domain,
    ) -> Dial<'p, T> {
        let level = self.root(pin);
        let Some(growth) = level.growth() else {
            return Dial::new(level);
        };
        for _ in 0..HELP {
            self.move_a_block(level, growth, rehash, domain);
        }
        let next = level.next().filter(|_| !growth.is_young());
        Dial::new(next.unwrap_or(level))
    }

    /// Does what [`dial`](Self::dial) does, for all words of the table: finishes a resize.
    pub(crate) fn dial_of_all<'p>(
        &self,
        pin: &'p Pin,
        rehash: &dyn Rehash<T>,
        domain: &Domain,
    ) -> Dial<'p, T> {
        let level = self.whole(pin, rehash, domain);
        for at in 0..level.len() {
            let word = level.load(at);
            if word.is_fresh() {
                // The level it was copied from is gone: its source is `MOVED`.
                level.settle_fresh(at, word.pointer());
            }
        }
        Dial::new(level)
    }

    /// How many words the table has now.
    pub(crate) fn positions(&self, pin: &Pin) -> usize {
        self.root(pin).len()
    }

    /// A word that could be of a key with this hash, and that `which` picks by its mark.
    pub(crate) fn find_spot<'p>(
        &self,
        hash: u64,
        pin: &'p Pin,
        which: impl Fn(&Spot<'p, T>) -> bool,
    ) -> Option<Spot<'p, T>> {
        let level = self.root(pin);
        let load = level.loads();
        probe(hash, level.bits())
            .map(|at| (at, load(at)))
            .take_while(|(_, word)| !word.ends_probe())
            .filter(|(_, word)| word.matches(hash) && !word.is_pinned_down())
            .map(|(at, word)| Spot::new(level, at, word))
            .find(which)
    }

    /// Changes a mark; returns false if the word has changed.
    pub(crate) fn remark(&self, spot: &Spot<'_, T>, mark: u8) -> bool {
        let changed = !spot.word.is_pinned_down()
            && spot
                .level
                .swap(spot.at, spot.word, spot.word.with_mark(mark));
        if changed && (mark ^ spot.mark()) & PROBATION != 0 {
            self.probation_ends(spot.mark());
            self.probation_begins(mark);
        }
        changed
    }

    /// How many words are on probation; a moment behind, and not exact while words change.
    pub(crate) fn on_probation(&self) -> usize {
        // One thread may count a word out before another has counted it in.
        let words = self.probation.load(Ordering::Relaxed);
        if words > usize::MAX / 2 { 0 } else { words }
    }

    /// A word that comes with this mark is in the table.
    pub(super) fn probation_begins(&self, mark: u8) {
        if mark & PROBATION != 0 {
            // Relaxed, here and below: a count that orders nothing.
            self.probation.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A word that had this mark is out of the table.
    pub(super) fn probation_ends(&self, mark: u8) {
        if mark & PROBATION != 0 {
            self.probation.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
