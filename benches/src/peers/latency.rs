//! The slowest operations: while a cache grows, and of hits while another thread evicts at full speed.
//!
//! Every operation is timed by itself, which adds the time of two looks at the clock, some tens of nanoseconds.

use std::{
    cell::Cell,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::Instant,
};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    contenders::{ALL, Contender, Kind},
    family::Ask,
    stage::{Dice, make, spread_key},
};
use crate::progress::Progress;

/// The contenders that grow.
const GROWING: [&str; 3] = ["atomic-cache", "dashmap+once_cell", "papaya"];

/// The contenders that are hit beside evictions.
const EVICTING: [&str; 3] = ["atomic-cache", "moka", "quick_cache"];

/// How many keys are hit beside evictions: few, so that they stay.
const HOT: usize = 1000;

/// The most nanoseconds that are told apart: a minute.
const LONGEST: u64 = 60_000_000_000;

/// Both. The fields are those of the JSON line.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    /// Fills of new keys into a cache that starts empty.
    pub growth: Vec<Slowest>,
    /// Hits while another thread fills new keys into the same full cache.
    pub hits_beside_evictions: Vec<Slowest>,
}

/// How long the operations of one contender took, in nanoseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Slowest {
    /// The contender.
    pub name: &'static str,
    /// How many operations.
    pub operations: u64,
    /// The median.
    pub median: u64,
    /// Of a hundred one took longer.
    pub p99: u64,
    /// Of ten thousand one took longer.
    pub p99_99: u64,
    /// The longest.
    pub longest: u64,
    /// How many the other thread put in meanwhile.
    pub put_in_beside: Option<usize>,
}

/// Lets caches grow to `entries`, and hits a cache with room for `keys` `entries / 5` times.
#[must_use]
pub fn latency(keys: usize, entries: usize) -> Latency {
    let progress = Progress::new(GROWING.len() + EVICTING.len());
    let step = |slowest| {
        progress.advance(1);
        slowest
    };
    let growth = named(&GROWING).filter_map(|contender| {
        let cache = contender.cache(Kind::Growing, entries)?;
        Some(step(grow(contender.name, &*cache, entries)))
    });
    let growth = growth.collect();
    let hits = named(&EVICTING).filter_map(|contender| {
        let cache = contender.cache(Kind::Bounded, keys)?;
        Some(step(hit(contender.name, &*cache, keys, entries / 5)))
    });
    let hits_beside_evictions = hits.collect();
    progress.clear();
    Latency {
        growth,
        hits_beside_evictions,
    }
}

fn named(names: &'static [&str]) -> impl Iterator<Item = Contender> {
    ALL.into_iter()
        .filter(|contender| names.contains(&contender.name))
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 3).expect("good bounds")
}

fn since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn grow(name: &'static str, cache: &dyn Ask, entries: usize) -> Slowest {
    let mut times = histogram();
    for key in (0..entries).map(spread_key) {
        let start = Instant::now();
        cache.ask(key, &|| make(key));
        times.saturating_record(since(start));
    }
    slowest(name, &times, None)
}

fn hit(name: &'static str, cache: &dyn Ask, keys: usize, hits: usize) -> Slowest {
    let hot = HOT.min(keys / 10).max(1);
    let (done, next) = (AtomicBool::new(false), AtomicUsize::new(hot));
    let put_in = |count| {
        for key in (0..count).map(|_| spread_key(next.fetch_add(1, Relaxed))) {
            cache.ask(key, &|| make(key));
        }
    };
    put_in(2 * keys);
    let before = next.load(Relaxed);
    let times = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                put_in(1);
            }
        });
        let times = hit_hot(cache, hot, hits);
        done.store(true, Relaxed);
        times
    });
    slowest(name, &times, Some(next.into_inner() - before))
}

/// Times hits of `hot` keys; leaves out calls that turn out to have been fills.
fn hit_hot(cache: &dyn Ask, hot: usize, hits: usize) -> Histogram<u64> {
    let mut times = histogram();
    let mut dice = Dice::new(1);
    for _ in 0..hits {
        let key = spread_key(dice.below(hot));
        let made = Cell::new(false);
        let start = Instant::now();
        cache.ask(key, &|| {
            made.set(true);
            make(key)
        });
        let time = since(start);
        if !made.get() {
            times.saturating_record(time);
        }
    }
    times
}

fn slowest(name: &'static str, times: &Histogram<u64>, put_in_beside: Option<usize>) -> Slowest {
    Slowest {
        name,
        operations: times.len(),
        median: times.value_at_quantile(0.5),
        p99: times.value_at_quantile(0.99),
        p99_99: times.value_at_quantile(0.9999),
        longest: times.max(),
        put_in_beside,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_is_the_longest() {
        let Latency {
            growth,
            hits_beside_evictions,
        } = latency(100, 2000);
        assert_eq!((growth.len(), hits_beside_evictions.len()), (3, 3));
        assert!(growth.iter().all(|slowest| slowest.operations == 2000));
        for slowest in growth.iter().chain(&hits_beside_evictions) {
            assert!(slowest.operations > 0, "{slowest:?}");
            assert!(slowest.median <= slowest.p99 && slowest.p99 <= slowest.p99_99);
            assert!(slowest.p99_99 <= slowest.longest, "{slowest:?}");
        }
    }
}
