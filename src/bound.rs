//! How much a cache may hold, and how much it does: capacity and weights.
//!
//! Every entry has a weight: what the weigher says, or one. It is *charged* before the entry can
//! be seen, and *discharged* by whoever takes the entry out, who finds the weight in its slot. So
//! the total never goes under zero.
//!
//! # The total never exceeds the capacity by more than the inserts in progress
//!
//! Who charges learns the new total, and owes the part of its own weight that lies above the
//! capacity. It pays by taking out as much before it returns, or, if it finds nothing else, its
//! own entry. What lies above the capacity is never more than what is owed together: a charge
//! adds to both alike, and a discharge can only make both less. (That is said of the entries in
//! the table. The total itself runs ahead of them: it has what is not yet seen, and what has just
//! been taken out.)
//!
//! Who makes the capacity less owes what then lies above it. It and one who charges each write
//! (`SeqCst`) before they read what the other writes: so at least one of two sees both, and owes.
//!
//! Who owes may find that it cannot pay: all that is there is being filled, or not in its place yet,
//! though it has been charged. Then the debt is *left*, to those who will put that in. Who leaves
//! a debt says so and then looks at every entry; who puts one in, or back, first makes it an entry that can be
//! taken out, and then asks whether a debt was left. So of the two one sees the other: and whoever puts in
//! what was not seen pays as much as that weighs.

use crate::foreign::answer_of;
use crate::sync::{AtomicU64, Ordering, store_load};
use crossbeam_utils::CachePadded;

/// The most a total is allowed to be. From here to the end of 64 bits there is room for what 2^15
/// threads are putting in.
const MOST: u64 = 1 << 63;

/// Weights are kept in 48 bits of a slot's state. Nothing heavier is kept.
pub(crate) const MAX_WEIGHT: u64 = (1 << 48) - 1;

/// What says how much an entry weighs: foreign code, all of it.
pub(crate) enum Weigher<K, V> {
    /// A user's closure.
    Closure(Box<dyn Fn(&K, &V) -> u64 + Send + Sync>),
    /// One of ours, over [`Weigh`](crate::Weigh); not boxed, so that keys and values may borrow.
    Bytes(fn(&K, &V) -> u64),
}

impl<K, V> Weigher<K, V> {
    /// `None` when it panicked.
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
    /// On a line of its own: every miss changes it, and reads the rest.
    total: CachePadded<AtomicU64>,
    weigher: Option<Weigher<K, V>>,
    /// Odd while somebody has left something above the capacity to others; another number each time.
    left: AtomicU64,
    /// Whether something that weighs nothing was ever put in.
    weightless: AtomicU64,
}

/// A weight, or why there is none that can be kept.
pub(crate) type Weight = Result<u64, TooHeavy>;

/// More than the whole capacity.
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

    /// Changes the capacity; what is owed for that.
    pub(crate) fn set_capacity(&self, capacity: u64) -> u64 {
        self.capacity.swap(capacity, Ordering::SeqCst);
        store_load();
        self.excess()
    }

    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::SeqCst)
    }

    /// Whether the capacity is one in entries.
    pub(crate) fn counts_entries(&self) -> bool {
        self.weigher.is_none()
    }

    /// The capacity, if it is one in entries.
    pub(crate) fn entries(&self) -> Option<usize> {
        let capacity = self.counts_entries().then(|| self.capacity())?;
        Some(usize::try_from(capacity).unwrap_or(usize::MAX))
    }

    /// How many entries there will be when it is full, about, in a table of so many positions.
    pub(crate) fn likely_entries(&self, positions: usize) -> usize {
        let most = positions / 2;
        if self.counts_entries() {
            usize::try_from(self.capacity()).map_or(most, |capacity| capacity.min(most))
        } else {
            most
        }
    }

    /// Asks the weigher: with nothing held.
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

    /// Whether there may be entries that make no room.
    pub(crate) fn has_weightless(&self) -> bool {
        self.weightless.load(Ordering::Relaxed) != 0
    }

    /// Takes a weight in; what is owed for it.
    pub(crate) fn charge(&self, weight: u64) -> u64 {
        let total = self.total.fetch_add(weight, Ordering::SeqCst) + weight;
        store_load();
        total.saturating_sub(self.capacity().min(MOST)).min(weight)
    }

    pub(crate) fn discharge(&self, weight: u64) {
        // Relaxed: whose charge comes after whose is settled by the one word that they all change.
        let before = self.total.fetch_sub(weight, Ordering::Relaxed);
        debug_assert!(before >= weight, "charged before it is discharged");
    }

    /// Says that what lies above the capacity is left to others. Before a look at every entry: see
    /// the module.
    pub(crate) fn leave(&self) {
        // SeqCst, with `left_to`: it makes its entry one that can be taken out, and then asks.
        let _ = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::Relaxed, |left| {
                Some(left + 1 + left % 2)
            });
        store_load();
    }

    /// What was left to who has put in, or back, an entry of this weight.
    #[inline]
    pub(crate) fn left_to(&self, weight: u64) -> u64 {
        store_load();
        let left = self.left.load(Ordering::SeqCst);
        if left % 2 == 0 {
            return 0;
        }
        let excess = self.excess();
        if excess == 0 {
            // It has been paid. (Not, if another was left since: that has another number.)
            let _ = self
                .left
                .compare_exchange(left, left + 1, Ordering::SeqCst, Ordering::Relaxed);
        }
        excess.min(weight)
    }

    /// By how much the total exceeds the capacity.
    pub(crate) fn excess(&self) -> u64 {
        self.total().saturating_sub(self.capacity().min(MOST))
    }

    /// About how many of so many entries lie above the capacity, at least one.
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

    /// Whether something that weighs one would still fit.
    pub(crate) fn has_room(&self) -> bool {
        self.total() < self.capacity().min(MOST)
    }
}
