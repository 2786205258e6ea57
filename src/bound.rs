//! Capacity and weights: how much a cache may hold, and how much it holds.
//!
//! Every entry has a weight: the weigher's answer, or one. An inserter *charges* it before other
//! threads can see the entry. The thread that takes the entry out finds the weight in its slot and
//! *discharges* it. So the total never goes below zero.
//!
//! # The total never exceeds the capacity by more than the inserts in progress
//!
//! A thread that charges learns the new total. It owes the part of its own weight that lies above
//! the capacity. Before it returns it pays, by evicting as much, or its own entry if it finds
//! nothing else. The excess over the capacity is never more than all debts together: a charge adds
//! to both alike, and a discharge can only reduce both. (That holds for the entries in the table.
//! The total itself runs ahead of them: it includes entries that are not visible yet, and some that
//! were just taken out.)
//!
//! A thread that lowers the capacity owes the new excess. It and a thread that charges each write
//! (`SeqCst`) before they read the other's number. So at least one of the two sees both numbers,
//! and owes.
//!
//! A thread that owes may find nothing to evict: all entries are being filled, or are charged and
//! not in place yet. Then it *leaves* the debt to the threads that put those entries in. It sets
//! `left`, and then looks at every entry. A thread that puts an entry in, or back, first makes it
//! evictable, and then reads `left`. If the debt is left before that read, the inserter sees it and
//! pays up to its weight. If it is left after, the look sees the entry.

use crate::foreign::answer_of;
use crate::sync::{AtomicU64, Ordering, store_load};
use crossbeam_utils::CachePadded;

/// The largest total. Above it, 64 bits have room for the inserts of 2^15 threads.
const MOST: u64 = 1 << 63;

/// Weights are kept in 48 bits of a slot's state. A heavier value is not kept.
pub(crate) const MAX_WEIGHT: u64 = (1 << 48) - 1;

/// Computes the weight of an entry. All of it is user code.
pub(crate) enum Weigher<K, V> {
    /// A user's closure.
    Closure(Box<dyn Fn(&K, &V) -> u64 + Send + Sync>),
    /// Ours, over [`Weigh`](crate::Weigh); not boxed, so that keys and values may borrow.
    Bytes(fn(&K, &V) -> u64),
}

impl<K, V> Weigher<K, V> {
    /// Returns `None` when it panicked.
    fn weigh(&self, key: &K, value: &V) -> Option<u64> {
        match self {
            Self::Closure(weigher) => answer_of(|| weigher(key, value)),
            Self::Bytes(weigher) => answer_of(|| weigher(key, value)),
        }
    }
}

/// The capacity of a cache, and its total weight.
pub(crate) struct Bound<K, V> {
    capacity: AtomicU64,
    /// On a cache line of its own: every miss changes it, and reads the rest.
    total: CachePadded<AtomicU64>,
    weigher: Option<Weigher<K, V>>,
    /// Odd while a debt is left to other threads; changes each time.
    left: AtomicU64,
    /// Whether an entry of weight zero was ever put in.
    weightless: AtomicU64,
}

/// A weight, or the reason why there is none that can be kept.
pub(crate) type Weight = Result<u64, TooHeavy>;

/// The value weighs more than the whole capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooHeavy {
    /// `None`: the weigher panicked.
    pub(crate) weight: Option<u64>,
    pub(crate) capacity: u64,
}

impl<K, V> Bound<K, V> {
    pub(crate) fn new(capacity: u64, weigher: Option<Weigher<K, V>>) -> Self {
        Self {
            capacity: AtomicU64::new(capacity),
            total: CachePadded::new(AtomicU64::new(0)),
            weigher,
            left: AtomicU64::new(0),
            weightless: AtomicU64::new(0),
        }
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::SeqCst)
    }

    /// Changes the capacity; returns the weight owed for that.
    pub(crate) fn set_capacity(&self, capacity: u64) -> u64 {
        self.capacity.swap(capacity, Ordering::SeqCst);
        store_load();
        self.excess()
    }

    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::SeqCst)
    }

    /// Returns whether the capacity counts entries.
    pub(crate) fn counts_entries(&self) -> bool {
        self.weigher.is_none()
    }

    /// Returns the capacity, if it counts entries.
    pub(crate) fn entries(&self) -> Option<usize> {
        let capacity = self.counts_entries().then(|| self.capacity())?;
        Some(usize::try_from(capacity).unwrap_or(usize::MAX))
    }

    /// Returns about how many entries a full cache has, in a table of so many positions.
    pub(crate) fn likely_entries(&self, positions: usize) -> usize {
        let most = positions / 2;
        if self.counts_entries() {
            usize::try_from(self.capacity()).map_or(most, |capacity| capacity.min(most))
        } else {
            most
        }
    }

    /// Asks the weigher. The caller holds no lock and no pin.
    pub(crate) fn weigh(&self, key: &K, value: &V) -> Weight {
        let capacity = self.capacity();
        let weight = match &self.weigher {
            None => Some(1),
            Some(weigher) => weigher.weigh(key, value),
        };
        if weight == Some(0) && !self.has_weightless() {
            // Relaxed: a hint.
            self.weightless.store(1, Ordering::Relaxed);
        }
        match weight {
            Some(weight) if weight <= capacity.min(MAX_WEIGHT) => Ok(weight),
            _ => Err(TooHeavy { weight, capacity }),
        }
    }

    /// Returns whether there may be entries of weight zero, which make no room when they go.
    pub(crate) fn has_weightless(&self) -> bool {
        self.weightless.load(Ordering::Relaxed) != 0
    }

    /// Adds a weight; returns the weight owed for it.
    pub(crate) fn charge(&self, weight: u64) -> u64 {
        let total = self.total.fetch_add(weight, Ordering::SeqCst) + weight;
        store_load();
        total.saturating_sub(self.capacity().min(MOST)).min(weight)
    }

    pub(crate) fn discharge(&self, weight: u64) {
        // Relaxed: all charges and discharges change this one word, so its modification order
        // decides.
        let before = self.total.fetch_sub(weight, Ordering::Relaxed);
        debug_assert!(before >= weight, "charged before it is discharged");
    }

    /// Leaves the excess over the capacity to other threads. Called before a look at every entry:
    /// see the module.
    pub(crate) fn leave(&self) {
        // SeqCst: pairs with `left_to`. If this write comes before its load, the inserter sees the
        // debt. If it comes after, the inserter's entry was evictable before, and our look sees it.
        let _ = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::Relaxed, |left| {
                Some(left + 1 + left % 2)
            });
        store_load();
    }

    /// Returns the debt that was left to the caller, which has put in, or back, an entry of this
    /// weight.
    #[inline]
    pub(crate) fn left_to(&self, weight: u64) -> u64 {
        store_load();
        let left = self.left.load(Ordering::SeqCst);
        if left % 2 == 0 {
            return 0;
        }
        let excess = self.excess();
        if excess == 0 {
            // The debt has been paid: even again. (If another debt was left since, the number
            // differs, and this swap fails.)
            let _ = self
                .left
                .compare_exchange(left, left + 1, Ordering::SeqCst, Ordering::Relaxed);
        }
        excess.min(weight)
    }

    /// Returns by how much the total exceeds the capacity.
    pub(crate) fn excess(&self) -> u64 {
        self.total().saturating_sub(self.capacity().min(MOST))
    }

    /// Returns about how many of `entries` lie above the capacity, at least one.
    pub(crate) fn surplus(&self, entries: usize) -> usize {
        let (total, excess) = (self.total(), self.excess());
        let surplus = if self.counts_entries() {
            excess
        } else {
            let of = u128::from(excess) * entries as u128;
            u64::try_from(of / u128::from(total.max(1))).unwrap_or(u64::MAX)
        };
        usize::try_from(surplus).map_or(usize::MAX / 2, |surplus| surplus.max(1))
    }

    /// Returns whether an entry of weight one would still fit.
    pub(crate) fn has_room(&self) -> bool {
        self.total() < self.capacity().min(MOST)
    }
}
