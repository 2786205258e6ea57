//! Replaying accesses through the cache.

use std::{
    borrow::Borrow,
    cell::Cell,
    fmt::Debug,
    hash::Hash,
    hint::black_box,
    io,
    num::NonZeroUsize,
    panic::resume_unwind,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, Scope, ScopedJoinHandle},
    time::{Duration, Instant},
};

use atomic_cache::{AtomicCache, Builder, CacheStats};

use crate::{alloc_counter::live_bytes, error::Error, progress::Progress};

/// A thread takes this many accesses at a time, so that the order of the log is roughly kept.
const BATCH: usize = 64;

/// How often the entries are counted and progress is shown.
const GLANCE: Duration = Duration::from_millis(20);

/// Shorter fills spin, because sleeping is not that exact.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// How to replay.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// On how many threads.
    pub threads: NonZeroUsize,
    /// The most entries, `None` for no bound.
    pub capacity: Option<u64>,
    /// How long a value lives, `None` for ever.
    pub ttl: Option<Duration>,
    /// How long making a value takes.
    pub fill_time: Duration,
}

/// The result of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Accesses answered by a value already there.
    pub hits: u64,
    /// Accesses that waited for the fill of another thread.
    pub joined: u64,
    /// Accesses that made the value.
    pub fills: u64,
    /// From the start of the first thread to the end of the last.
    pub elapsed: Duration,
    /// Entries that had to go to make room.
    pub evictions: u64,
    /// The most entries seen at one time.
    pub peak_entries: usize,
    /// The entries at the end.
    pub entries: usize,
    /// By how many bytes the memory in use grew from before the cache was built to the end.
    pub grown_bytes: usize,
}

thread_local! {
    /// How many fills this thread ran.
    static FILLS: Cell<u64> = const { Cell::new(0) };
}

/// Makes a value: takes its time, and counts.
fn fill(fill_time: Duration) -> u64 {
    if fill_time >= SHORTEST_SLEEP {
        thread::sleep(fill_time);
    } else if !fill_time.is_zero() {
        let start = Instant::now();
        while start.elapsed() < fill_time {
            std::hint::spin_loop();
        }
    }
    let count = FILLS.get() + 1;
    FILLS.set(count);
    count
}

/// Lets the cache hold at most `capacity` entries.
fn bounded<K, V>(builder: Builder<K, V>, capacity: u64) -> Builder<K, V> {
    builder.max_capacity(capacity)
}

/// How many entries had to go to make room.
fn evictions(stats: CacheStats) -> u64 {
    stats.evicted
}

/// Sends `accesses` through a new cache from keys to `u64` values, the threads taking turns at small batches.
///
/// # Errors
///
/// When the cache cannot be built or a thread cannot be started.
pub fn replay<A, Q>(accesses: &[A], plan: Plan, progress: &Progress) -> Result<Outcome, Error>
where
    A: Borrow<Q> + Sync,
    Q: ?Sized + ToOwned + Hash + Eq,
    Q::Owned: Hash + Eq + Debug + Send + Sync + 'static,
{
    replay_noting::<A, Q>(accesses, plan, progress, &|_| ())
}

/// As [`replay`], and the order in which the threads made their accesses, as indices of the log.
///
/// # Errors
///
/// As for [`replay`].
pub fn replay_recorded<A, Q>(
    accesses: &[A],
    plan: Plan,
    progress: &Progress,
) -> Result<(Outcome, Vec<usize>), Error>
where
    A: Borrow<Q> + Sync,
    Q: ?Sized + ToOwned + Hash + Eq,
    Q::Owned: Hash + Eq + Debug + Send + Sync + 'static,
{
    let order = Order::new(accesses.len());
    let outcome = replay_noting::<A, Q>(accesses, plan, progress, &|index| order.note(index))?;
    Ok((outcome, order.into_indices()))
}

/// Replays, and calls `note` with the index of each access just before it is made.
fn replay_noting<A, Q>(
    accesses: &[A],
    plan: Plan,
    progress: &Progress,
    note: &(impl Fn(usize) + Sync),
) -> Result<Outcome, Error>
where
    A: Borrow<Q> + Sync,
    Q: ?Sized + ToOwned + Hash + Eq,
    Q::Owned: Hash + Eq + Debug + Send + Sync + 'static,
{
    let bytes_before = live_bytes();
    let mut builder = AtomicCache::<Q::Owned, u64>::builder();
    if let Some(ttl) = plan.ttl {
        builder = builder.time_to_live(ttl);
    }
    if let Some(capacity) = plan.capacity {
        builder = bounded(builder, capacity);
    }
    let cache = builder.build_with(move |_: &Q::Owned| fill(plan.fill_time))?;
    let course = Course::new(accesses, plan.threads);
    let get = |index: usize, access: &A| {
        note(index);
        black_box(cache.get(access.borrow()));
    };
    let (times, peak) = thread::scope(|scope| course.run(scope, &get, || cache.len(), progress))?;
    cache.quiesce();
    let entries = cache.len();
    let grown_bytes = live_bytes().saturating_sub(bytes_before);
    progress.clear();
    let others = accesses.len() as u64 - times.fills;
    let stats = cache.stats();
    let joined = stats.joined.min(others);
    Ok(Outcome {
        hits: others - joined,
        joined,
        fills: times.fills,
        elapsed: times.elapsed,
        evictions: evictions(stats),
        peak_entries: peak.max(entries),
        entries,
        grown_bytes,
    })
}

/// The order in which threads make accesses.
///
/// A thread that is preempted between its note and its access has that one access in too early a place.
struct Order {
    /// The place of the next access.
    next: AtomicUsize,
    /// The index of the access in each place.
    indices: Vec<AtomicUsize>,
}

impl Order {
    fn new(accesses: usize) -> Self {
        Self {
            next: AtomicUsize::new(0),
            indices: (0..accesses).map(|_| AtomicUsize::new(0)).collect(),
        }
    }

    /// Access `index` comes now.
    fn note(&self, index: usize) {
        let place = self.next.fetch_add(1, Relaxed);
        self.indices[place].store(index, Relaxed);
    }

    fn into_indices(self) -> Vec<usize> {
        let indices = self.indices.into_iter();
        indices.map(AtomicUsize::into_inner).collect()
    }
}

/// The work done by one thread, or by all of them.
#[derive(Debug, Clone, Copy, Default)]
struct Leg {
    fills: u64,
    elapsed: Duration,
}

impl Leg {
    /// Two threads as one.
    fn and(self, other: Self) -> Self {
        Self {
            fills: self.fills + other.fills,
            elapsed: self.elapsed.max(other.elapsed),
        }
    }
}

/// The accesses as the threads share them.
struct Course<'a, A> {
    accesses: &'a [A],
    threads: usize,
    next: AtomicUsize,
    /// When the threads may start, `None` when they shall not.
    start: OnceLock<Option<Instant>>,
}

impl<'a, A: Sync> Course<'a, A> {
    fn new(accesses: &'a [A], threads: NonZeroUsize) -> Self {
        Self {
            accesses,
            threads: threads.get(),
            next: AtomicUsize::new(0),
            start: OnceLock::new(),
        }
    }

    /// Runs every thread to the end. Returns their work, and the most entries seen.
    fn run<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        get: &'s (impl Fn(usize, &A) + Sync),
        entries: impl Fn() -> usize,
        progress: &Progress,
    ) -> Result<(Leg, usize), Error> {
        let threads = self.spawn(scope, get)?;
        let mut peak = 0;
        while !threads.iter().all(ScopedJoinHandle::is_finished) {
            thread::sleep(GLANCE);
            peak = peak.max(entries());
            progress.show(self.next.load(Relaxed).min(self.accesses.len()));
        }
        let join = |thread: ScopedJoinHandle<'_, Leg>| {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        Ok((
            threads.into_iter().map(join).fold(Leg::default(), Leg::and),
            peak,
        ))
    }

    /// Starts every thread at one time, or none.
    fn spawn<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        get: &'s (impl Fn(usize, &A) + Sync),
    ) -> Result<Vec<ScopedJoinHandle<'s, Leg>>, Error> {
        let spawn = |_| thread::Builder::new().spawn_scoped(scope, || self.leg(get));
        let threads: io::Result<Vec<_>> = (0..self.threads).map(spawn).collect();
        self.start
            .get_or_init(|| threads.is_ok().then(Instant::now));
        threads.map_err(|source| Error::Spawn {
            threads: self.threads,
            source,
        })
    }

    /// Runs one thread.
    fn leg(&self, get: &impl Fn(usize, &A)) -> Leg {
        let Some(start) = self.start.wait() else {
            return Leg::default();
        };
        loop {
            let from = self.next.fetch_add(BATCH, Relaxed);
            let Some(rest) = self.accesses.get(from..) else {
                break;
            };
            let batch = (from..).zip(rest).take(BATCH);
            batch.for_each(|(index, access)| get(index, access));
        }
        Leg {
            fills: FILLS.get(),
            elapsed: start.elapsed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn plan(threads: usize) -> Plan {
        Plan {
            threads: NonZeroUsize::new(threads).expect("not zero"),
            capacity: None,
            ttl: None,
            fill_time: Duration::ZERO,
        }
    }

    #[test]
    fn counts_add_up() {
        let accesses: Vec<u64> = (0..10_000).map(|i| i * i % 997).collect();
        for threads in 1..4 {
            let outcome =
                replay::<u64, u64>(&accesses, plan(threads), &Progress::hidden()).expect("a run");
            assert_eq!(outcome.hits + outcome.joined + outcome.fills, 10_000);
            let distinct = accesses
                .iter()
                .collect::<std::collections::HashSet<_>>()
                .len();
            assert_eq!(outcome.fills, distinct as u64, "one fill for each key");
            assert_eq!(
                (outcome.entries, outcome.peak_entries),
                (distinct, distinct)
            );
        }
    }

    #[test]
    fn replays_strings() {
        let accesses: Vec<Arc<str>> = ["a", "b", "a", "a"].map(Arc::from).into();
        let outcome =
            replay::<Arc<str>, str>(&accesses, plan(1), &Progress::hidden()).expect("a run");
        assert_eq!((outcome.hits, outcome.joined, outcome.fills), (2, 0, 2));
    }

    /// The order of a replay of many accesses.
    fn order(threads: usize) -> Vec<usize> {
        let accesses: Vec<u64> = (0..10_000).map(|i| i * i % 997).collect();
        let recorded = replay_recorded::<u64, u64>(&accesses, plan(threads), &Progress::hidden());
        let (outcome, order) = recorded.expect("a run");
        assert_eq!(outcome.hits + outcome.joined + outcome.fills, 10_000);
        order
    }

    #[test]
    fn one_thread_keeps_the_order_of_the_log() {
        assert!(order(1).into_iter().eq(0..10_000));
    }

    #[test]
    fn the_order_of_threads_has_every_access_once() {
        for threads in 2..5 {
            let mut order = order(threads);
            order.sort_unstable();
            assert!(order.into_iter().eq(0..10_000), "{threads} threads");
        }
    }

    #[test]
    fn a_thread_makes_its_batch_in_order() {
        let order = order(3);
        let mut places = vec![0; order.len()];
        for (place, &index) in order.iter().enumerate() {
            places[index] = place;
        }
        assert!(places.chunks(BATCH).all(<[usize]>::is_sorted));
    }

    #[test]
    fn a_capacity_is_obeyed() {
        let accesses: Vec<u64> = (0..10_000).map(|i| i * i % 997).collect();
        let bounded = Plan {
            capacity: Some(50),
            ..plan(1)
        };
        let outcome = replay::<u64, u64>(&accesses, bounded, &Progress::hidden()).expect("a run");
        // At the peak one may be coming in, for which another is about to go.
        assert!(outcome.entries <= 50 && outcome.peak_entries <= 51);
        assert_eq!(
            outcome.evictions + outcome.entries as u64,
            outcome.fills,
            "what was made is there or was evicted"
        );
    }

    #[test]
    fn a_value_that_expires_is_filled_again() {
        let spun = Plan {
            ttl: Some(Duration::from_nanos(1)),
            fill_time: Duration::from_micros(2),
            ..plan(1)
        };
        let outcome = replay::<u64, u64>(&[1; 50], spun, &Progress::hidden()).expect("a run");
        assert!(outcome.fills > 1);
        assert_eq!(outcome.hits + outcome.joined + outcome.fills, 50);
    }
}
