//! Walks over everything in a table: in stretches beside other threads, a few words at a time, or
//! alone at the end.

use super::grow::Level;
use super::probe::home;
use super::{Rehash, Spot, Table};
use crate::reclaim::{Domain, Pin};
#[cfg(atomic_cache_loom)]
use crate::sync::Ordering;

/// How many home positions one step of a scan covers.
const STRIDE: usize = if cfg!(any(test, atomic_cache_loom)) {
    2
} else {
    64
};

impl<T> Table<T> {
    /// One step of a walk over all objects: appends to `found` those in the next stretch of hashes
    /// from `from` on, and returns where the stretch after it begins; `None` at the end.
    ///
    /// An object that is there from the first step to the last is found exactly once, also while
    /// the table resizes: a stretch is a range of *hashes*, levels are ordered by hash, and a wider
    /// level refines the stretches of a narrower one.
    pub(crate) fn scan<'p>(
        &self,
        from: u64,
        pin: &'p Pin,
        rehash: &dyn Rehash<T>,
        domain: &Domain,
        found: &mut Vec<Spot<'p, T>>,
    ) -> Option<u64> {
        'level: loop {
            found.clear();
            let level = self.whole(pin, rehash, domain);
            let first = home(from, level.bits());
            let last = level.len().min(first + STRIDE);
            // The stretch's objects stand from its first position to the first `EMPTY` behind it.
            for step in 0..level.len() {
                let at = (first + step) & (level.len() - 1);
                let word = level.load(at);
                if word.is_moving() {
                    continue 'level;
                }
                if word.is_empty() && first + step >= last {
                    break;
                }
                if !word.is_live() {
                    continue;
                }
                // SAFETY: a live word's object is linked, and we are pinned.
                let hash = rehash.rehash(unsafe { &*(word.pointer() as *const T) });
                // An object that has no hash just now is taken to be at home.
                let home = hash.map_or(at, |hash| home(hash, level.bits()));
                // In a level that is narrower than the one the last stretch ended in, the first
                // home may have been half walked over.
                let seen = hash.is_some_and(|hash| hash < from);
                if (first..last).contains(&home) && !seen {
                    found.push(Spot::new(level, at, word));
                }
            }
            return (last < level.len()).then(|| (last as u64) << (64 - level.bits()));
        }
    }

    /// Looks at `n` positions of the root from `hand` on, unless it is being moved from.
    pub(crate) fn sweep<'p>(
        &self,
        hand: usize,
        n: usize,
        pin: &'p Pin,
        visit: &mut dyn FnMut(Spot<'p, T>),
    ) {
        let level = self.root(pin);
        if level.next().is_some() {
            return;
        }
        for step in 0..n {
            let at = hand.wrapping_add(step) & (level.len() - 1);
            let word = level.load(at);
            if word.is_live() && !word.is_pinned_down() {
                visit(Spot::new(level, at, word));
            }
        }
    }

    /// Every object in the table, each once; for an owner that is alone.
    pub(crate) fn drain(&mut self) -> Vec<*const T> {
        let mut objects = Vec::new();
        let mut level = *self.root_mut();
        while !level.is_null() {
            // SAFETY: the root, or the next level of it: owned by this table.
            let this = unsafe { &*level };
            for at in 0..this.len() {
                let word = this.load(at);
                if word.is_live() {
                    objects.push(word.pointer() as *const T);
                }
                this.clear(at);
            }
            level = this.next_or_null();
        }
        // A word that was being copied stands in both levels.
        objects.sort_unstable();
        objects.dedup();
        objects
    }

    #[cfg(not(atomic_cache_loom))]
    fn root_mut(&mut self) -> &mut *mut Level {
        self.root.get_mut()
    }

    #[cfg(atomic_cache_loom)]
    fn root_mut(&mut self) -> Box<*mut Level> {
        Box::new(self.root.load(Ordering::Acquire))
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        let mut level = *self.root_mut();
        while !level.is_null() {
            // SAFETY: the root, or the next level of it: owned by this table, and from
            // `Box::into_raw`.
            let this = unsafe { Box::from_raw(level) };
            level = this.next_or_null();
        }
    }
}
