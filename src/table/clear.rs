//! Tombstones become `EMPTY` again, from the end of a run backwards.
//!
//! Without that every word would be used up in time, and each absent key be looked for all round
//! the table. A tombstone in front of an `EMPTY` keeps nothing reachable - unless an inserter is
//! just placing a word behind it. So the clearing thread, *C*, and the inserter, *I*, each announce
//! their step before they look at the other's:
//!
//! ```text
//!   C: 1. put its own number into the tombstone p     I: 1. place a word at q, in an EMPTY or TOMB
//!      2. is p + 1 still EMPTY?                          2. walk from q back to its home: take away
//!      3. swap p from that number to EMPTY                  numbers, withdraw if there is an EMPTY
//! ```
//!
//! *After I's walk has passed p, p does not become `EMPTY` for as long as I's word stands at q.* By
//! induction from q back. Suppose C's step 3 succeeds at p after I has passed it.
//!
//! * p = q - 1. If C began (1) before I passed p, then I found the number there and took it away,
//!   and C's swap fails: a number is put there only by the thread it belongs to, which does one
//!   thing at a time. If C began after, it is after I's step 1, and its step 2 finds q taken.
//! * p < q - 1. C's step 2 found p + 1 `EMPTY`. Not after I had passed p + 1, by induction. So
//!   before, and I passes p + 1 before p: C had put its number into p by the time I came there, and
//!   I took it away, as in the first case.
//!
//! All these accesses are `SeqCst` (`store_load` stands for that in the models).
//!
//! A copy that a resize makes goes to a word that is `EMPTY`, and is right only because `EMPTY`
//! never comes back (grow.rs). So in a level that is moved to, nothing is cleared before the last
//! helper of that resize is gone: when the level before it is freed, a grace period after.

#[cfg(atomic_cache_loom)]
use super::Table;
use super::grow::Level;
use super::word::Word;
use crate::actor::thread;
#[cfg(atomic_cache_loom)]
use crate::reclaim::Pin;
use crate::sync::store_load;

impl Level {
    /// Clears the tombstone at `at`, and those right before it, if they are the end of a run.
    ///
    /// A tombstone is made by one unlink and cleared once, so this costs an unlink one more step on
    /// average, however many tombstones there are in a row.
    pub(super) fn clear_tombs(&self, at: usize) {
        let mask = self.len() - 1;
        let ends_run = |at: usize| self.load((at + 1) & mask).is_empty();
        // Words that are being moved are left to the movers.
        if !self.may_clear() || self.growth().is_some() || !ends_run(at) {
            return;
        }
        for step in 0..self.len() {
            let at = at.wrapping_sub(step) & mask;
            let tomb = self.load(at);
            let ours = Word::tomb_of(thread());
            if !tomb.is_tomb() || tomb.is_being_cleared() || !self.swap(at, tomb, ours) {
                return;
            }
            store_load();
            if !ends_run(at) {
                self.swap(at, ours, Word::TOMB);
                return;
            }
            if !self.swap(at, ours, Word::EMPTY) {
                return;
            }
            self.unreserve();
        }
    }
}

#[cfg(atomic_cache_loom)]
impl<T> Table<T> {
    /// Makes an `EMPTY` word a tombstone; for a model that begins with some.
    pub(crate) fn entomb(&self, at: usize, pin: &Pin) {
        let level = self.root(pin);
        assert!(level.reserve(0) && level.swap(at, Word::EMPTY, Word::TOMB));
    }
}
