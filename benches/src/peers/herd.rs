//! Many threads that ask for one absent key at once: how often its value is made, and how long the waiters sleep on.

use std::{
    sync::{
        Barrier, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    contenders::{Contender, Kind},
    family::Ask,
    stage::{make, spread_key},
};
use crate::progress::Progress;

/// How many threads ask.
const THREADS: usize = 64;

/// How long a value takes to make: long enough for all to have asked meanwhile.
const FILL: Duration = Duration::from_millis(5);

/// How one contender fared. Its fields are those of the JSON line.
#[derive(Debug, Clone, Serialize)]
pub struct Herd {
    /// The contender.
    pub name: &'static str,
    /// The most times that a value was made.
    pub fills: usize,
    /// Microseconds from the end of the fill to the return of a waiter: the median over all waiters, in all rounds;
    /// null when a value was made more than once, so that no caller waited.
    pub wake_us: Option<f64>,
    /// The longest of them; null too.
    pub longest_us: Option<f64>,
}

/// One round of one contender.
struct Run {
    fills: usize,
    wakes: Vec<Duration>,
}

/// Lets a herd of `THREADS` ask each contender once a round, in turns.
#[must_use]
pub fn measure(contenders: &[Contender], rounds: usize) -> Vec<Herd> {
    let enter =
        |contender: &Contender| Some((contender.name, contender.some(Kind::Growing, 1000)?));
    let caches: Vec<_> = contenders.iter().filter_map(enter).collect();
    let mut runs: Vec<Vec<Run>> = caches.iter().map(|_| Vec::new()).collect();
    let progress = Progress::new(rounds);
    for round in 0..rounds {
        for turn in 0..caches.len() {
            let index = (turn + round) % caches.len();
            runs[index].push(ask_at_once(&*caches[index].1, spread_key(round)));
        }
        progress.advance(1);
    }
    progress.clear();
    let names = caches.iter().map(|(name, _)| *name);
    names
        .zip(runs)
        .map(|(name, runs)| herd(name, &runs))
        .collect()
}

fn ask_at_once(cache: &dyn Ask, key: u64) -> Run {
    let (barrier, fills, made) = (Barrier::new(THREADS), AtomicUsize::new(0), OnceLock::new());
    let fill = || {
        fills.fetch_add(1, Relaxed);
        thread::sleep(FILL);
        made.get_or_init(|| (thread::current().id(), Instant::now()));
        make(key)
    };
    let ask = || {
        barrier.wait();
        let asked = Instant::now();
        assert_eq!(cache.ask(key, &fill), make(key), "the value of the key");
        let returned = Instant::now();
        let &(maker, end) = made.get().expect("made by now");
        let waited = maker != thread::current().id() && asked < end;
        waited.then(|| returned.saturating_duration_since(end))
    };
    let wakes = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
        let wakes = threads.into_iter().map(ScopedJoinHandle::join);
        wakes
            .filter_map(|wake| wake.expect("contenders do not panic"))
            .collect()
    });
    let fills = fills.into_inner();
    Run { fills, wakes }
}

fn herd(name: &'static str, runs: &[Run]) -> Herd {
    let fills = runs.iter().map(|run| run.fills).max().unwrap_or(0);
    let mut wakes: Vec<Duration> = runs.iter().flat_map(|run| run.wakes.clone()).collect();
    wakes.sort();
    let waited = |wake: Option<&Duration>| {
        let wake = wake.filter(|_| fills == 1)?;
        Some(1e6 * wake.as_secs_f64())
    };
    Herd {
        name,
        fills,
        wake_us: waited(wakes.get(wakes.len() / 2)),
        longest_us: waited(wakes.last()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::contenders::{ALL, FLOOR};

    #[test]
    fn who_is_not_marked_makes_a_value_once() {
        for herd in measure(&ALL, 2) {
            let contender = ALL.iter().find(|contender| contender.name == herd.name);
            let contender = contender.expect("one of them");
            assert_ne!(herd.name, FLOOR);
            // On a busy machine the others may happen to make it once, too.
            assert!(herd.fills == 1 || !contender.single_flight, "{herd:?}");
            assert!(herd.fills == 1 || herd.wake_us.is_none(), "{herd:?}");
            assert!(herd.wake_us <= herd.longest_us);
        }
    }
}
