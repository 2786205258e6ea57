//! Striped counters and their snapshot.

use crate::listener::RemovalCause;
use crate::sync::{Ordering, Tally, global, thread_cell};
use crossbeam_utils::CachePadded;

pub(crate) const MOST_STRIPES: usize = 16;

global! {
    /// The number of stripes of a striped counter or queue: a power of two, as many as the machine
    /// runs threads at once, at most 16.
    STRIPES: usize = stripe_count()
}

#[cfg(not(atomic_cache_loom))]
fn stripe_count() -> usize {
    std::thread::available_parallelism()
        .map_or(1, usize::from)
        .next_power_of_two()
        .min(MOST_STRIPES)
}

#[cfg(atomic_cache_loom)]
fn stripe_count() -> usize {
    1
}

static NEXT_STRIPE: Tally = Tally::new(0);

thread_cell! {
    STRIPE: usize = usize::MAX
}

/// This thread's stripe, assigned round robin.
#[inline]
pub(crate) fn stripe() -> usize {
    unmasked_stripe() & (*STRIPES - 1)
}

/// This thread's stripe of [`MOST_STRIPES`].
#[inline]
pub(crate) fn unmasked_stripe() -> usize {
    let stripe = STRIPE.with(std::cell::Cell::get);
    if stripe != usize::MAX {
        return stripe;
    }
    let stripe = NEXT_STRIPE.fetch_add(1, Ordering::Relaxed) as usize & (MOST_STRIPES - 1);
    STRIPE.with(|cell| cell.set(stripe));
    stripe
}

/// A counter in which threads write different cache lines. Its sum may be a little behind.
#[derive(Debug)]
pub(crate) struct Striped(Box<[CachePadded<Tally>]>);

impl Striped {
    pub(crate) fn new() -> Self {
        Self(
            (0..*STRIPES)
                .map(|_| CachePadded::new(Tally::new(0)))
                .collect(),
        )
    }

    pub(crate) fn add(&self, n: u64) {
        // Relaxed: a count orders nothing.
        self.0[stripe()].fetch_add(n, Ordering::Relaxed);
    }

    /// Adds, and returns the sum of this thread's stripe. `SeqCst`, as the loads of
    /// [`sum`](Self::sum): of two threads that add and then sum, one sees both.
    pub(crate) fn add_and_get(&self, n: u64) -> u64 {
        self.0[stripe()]
            .fetch_add(n, Ordering::SeqCst)
            .wrapping_add(n)
    }

    /// One thread may subtract an amount that another has added: stripes wrap, their sum does not.
    pub(crate) fn sub(&self, n: u64) {
        self.0[stripe()].fetch_sub(n, Ordering::Relaxed);
    }

    /// The sum; zero when a subtraction is seen ahead of its addition.
    pub(crate) fn sum(&self) -> usize {
        let sum = self.wrapping_sum();
        if sum > u64::MAX / 2 {
            0
        } else {
            usize::try_from(sum).unwrap_or(usize::MAX)
        }
    }

    fn wrapping_sum(&self) -> u64 {
        self.0
            .iter()
            .map(|stripe| stripe.load(Ordering::SeqCst))
            .fold(0, u64::wrapping_add)
    }
}

/// The events that a cache counts. One stripe holds all counts of a thread, so an event touches one
/// line or two.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Hit,
    Miss,
    Fill,
    FillError,
    FillPanic,
    FillCancelled,
    Joined,
    Inserted,
    Expired,
    Explicit,
    Replaced,
    Evicted,
    Oversize,
    GaveUp,
    WeigherPanic,
    TakenOver,
    Refused,
    // Keep last: the number of events.
    Count,
}

impl Event {
    /// The cause of a removal, as the listener is told it; `None` for other events.
    pub(crate) const fn cause(self) -> Option<RemovalCause> {
        match self {
            Self::Expired => Some(RemovalCause::Expired),
            Self::Explicit => Some(RemovalCause::Explicit),
            Self::Replaced => Some(RemovalCause::Replaced),
            Self::Evicted => Some(RemovalCause::Size),
            _ => None,
        }
    }
}

const EVENTS: usize = Event::Count as usize;

type Counts = [Tally; EVENTS];

/// The counters of one cache.
#[derive(Debug)]
pub(crate) struct Stats {
    stripes: Box<[CachePadded<Counts>]>,
    look_ups: bool,
}

impl Stats {
    /// With `look_ups`, hits and misses are counted too.
    pub(crate) fn new(look_ups: bool) -> Self {
        let counts = || CachePadded::new(std::array::from_fn(|_| Tally::new(0)));
        Self {
            stripes: (0..*STRIPES).map(|_| counts()).collect(),
            look_ups,
        }
    }

    pub(crate) fn count(&self, event: Event) {
        self.stripes[stripe()][event as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a look-up, if this cache counts them. If not, a hit writes no counter.
    #[inline(always)]
    pub(crate) fn look_up(&self, hit: bool) {
        if self.look_ups {
            self.count_look_up(hit);
        }
    }

    #[cold]
    fn count_look_up(&self, hit: bool) {
        self.count(if hit { Event::Hit } else { Event::Miss });
    }

    fn sum(&self, event: Event) -> u64 {
        self.stripes
            .iter()
            .map(|counts| counts[event as usize].load(Ordering::Relaxed))
            .sum()
    }

    pub(crate) fn snapshot(&self, panicked_drops: usize, panicked_listeners: usize) -> CacheStats {
        CacheStats {
            hits: self.look_ups.then(|| self.sum(Event::Hit)),
            misses: self.look_ups.then(|| self.sum(Event::Miss)),
            fills: self
                .sum(Event::Fill)
                .saturating_sub(self.sum(Event::Refused)),
            fill_errors: self.sum(Event::FillError),
            fill_panics: self.sum(Event::FillPanic),
            fill_cancelled: self.sum(Event::FillCancelled),
            joined: self.sum(Event::Joined),
            inserts: self.sum(Event::Inserted),
            expired: self.sum(Event::Expired),
            explicit: self.sum(Event::Explicit),
            replaced: self.sum(Event::Replaced),
            evicted: self.sum(Event::Evicted),
            oversize: self.sum(Event::Oversize),
            gave_up: self.sum(Event::GaveUp),
            panicked_listeners: panicked_listeners as u64,
            panicked_weighers: self.sum(Event::WeigherPanic),
            taken_over: self.sum(Event::TakenOver),
            refused: self.sum(Event::Refused),
            panicked_drops: panicked_drops as u64,
        }
    }
}

/// The counts of all events in a cache since it was built.
///
/// While threads run, the counts may be a moment behind. At rest
/// `fills == fill_successes() + fill_errors + fill_panics + fill_cancelled`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Look-ups that hit; `None` unless the cache was built with
    /// [`record_stats(true)`](crate::Builder::record_stats), because counting makes a hit write.
    pub hits: Option<u64>,
    /// Look-ups that missed; `None` as for `hits`.
    pub misses: Option<u64>,
    /// Fills started.
    pub fills: u64,
    /// Fills that ended with an error, or without a value.
    pub fill_errors: u64,
    /// Fills that panicked.
    pub fill_panics: u64,
    /// Fills that were dropped: a placeholder guard without a value, or a task's fill before its
    /// end.
    pub fill_cancelled: u64,
    /// Calls that joined a flight led by another caller.
    pub joined: u64,
    /// Fills that were abandoned: by [`takeover`](crate::Cache::takeover), after a
    /// [`fill_timeout`](crate::Builder::fill_timeout), or when the cache was closed.
    pub taken_over: u64,
    /// Fills that were refused because the cache has been closed; they are not in `fills`.
    pub refused: u64,
    /// Values put in by `insert` and its kin.
    pub inserts: u64,
    /// Entries removed because they had expired.
    pub expired: u64,
    /// Entries removed by `invalidate` and its kin.
    pub explicit: u64,
    /// Entries replaced by a newer value.
    pub replaced: u64,
    /// Entries removed to make room, and entries removed by a newer value that was too heavy to be
    /// kept. Includes `gave_up`.
    pub evicted: u64,
    /// Values that were heavier than the whole capacity, or on which the weigher panicked: handed
    /// out, and not kept.
    pub oversize: u64,
    /// Entries that were removed right after they had been put in, because the search for a victim
    /// had reached its bound: a sign that all other entries were being filled, or weigh nothing.
    /// They are part of `evicted`: do not add the two.
    pub gave_up: u64,
    /// Calls of the eviction listener that panicked.
    pub panicked_listeners: u64,
    /// Calls of the weigher that panicked.
    pub panicked_weighers: u64,
    /// Keys or values with a `Drop` that panicked while the cache dropped them.
    pub panicked_drops: u64,
}

impl CacheStats {
    /// Returns the number of fills that ended with a value. Running fills count too.
    ///
    /// ```
    /// use atomic_cache::Cache;
    /// let cache: Cache<u32, u32> = Cache::unbounded();
    /// cache.get_with(&1, || 10);
    /// assert_eq!(cache.stats().fill_successes(), 1);
    /// ```
    pub fn fill_successes(&self) -> u64 {
        self.fills
            .saturating_sub(self.fill_errors)
            .saturating_sub(self.fill_panics)
            .saturating_sub(self.fill_cancelled)
    }
}
