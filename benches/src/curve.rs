//! Hit ratios by capacity: this cache beside its peers and the optimum, over several logs.

use std::{
    num::NonZeroUsize,
    panic::resume_unwind,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread::{self, available_parallelism},
    time::Duration,
};

use crate::{
    belady,
    capacity::{Capacity, LEAST},
    error::Error,
    numbered::Numbered,
    policies::{self, PEERS, Peer},
    progress::Progress,
    replay::{Plan, replay, replay_recorded},
};

/// The capacities of a curve unless told otherwise.
pub const CAPACITIES: [Capacity; 4] = [
    Capacity::Percent(1.0),
    Capacity::Percent(5.0),
    Capacity::Percent(10.0),
    Capacity::Percent(30.0),
];

/// Progress is shown after this many accesses.
const STEP: usize = 1 << 16;

/// One column of a curve.
#[derive(Debug, Clone, Copy)]
pub enum Contender {
    /// This cache, on so many threads that take turns.
    Ours(NonZeroUsize),
    /// This cache on one thread, in the order in which so many threads made the accesses in the run of
    /// [`Contender::Ours`] before it: the difference between the two is the cost of running at once.
    SameOrder(NonZeroUsize),
    /// A peer.
    Peer(&'static Peer),
    /// Bélády's optimum.
    Optimum,
}

impl Contender {
    /// All of them; with more than one thread, this cache once more on that many, and once in their order.
    #[must_use]
    pub fn all(threads: NonZeroUsize) -> Vec<Self> {
        let mut all = vec![Self::Ours(NonZeroUsize::MIN)];
        if threads > NonZeroUsize::MIN {
            all.extend([Self::Ours(threads), Self::SameOrder(threads)]);
        }
        all.extend(PEERS.iter().map(Self::Peer));
        all.push(Self::Optimum);
        all
    }

    /// Returns its name in the JSON and the plot.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ours(_) | Self::SameOrder(_) => "atomic-cache",
            Self::Peer(peer) => peer.name,
            Self::Optimum => "optimum",
        }
    }

    /// On how many threads it runs.
    #[must_use]
    pub fn threads(&self) -> NonZeroUsize {
        match self {
            Self::Ours(threads) => *threads,
            _ => NonZeroUsize::MIN,
        }
    }

    /// In the order of how many threads it makes the accesses, if not in an order of its own.
    #[must_use]
    pub fn order_of_threads(&self) -> Option<NonZeroUsize> {
        match self {
            Self::SameOrder(threads) => Some(*threads),
            _ => None,
        }
    }

    /// How many accesses of `log` it hits with room for `capacity` entries.
    ///
    /// A run on several threads has the figure of the same order too, which is next; that one has no run of its own.
    fn hits(&self, log: &Numbered, capacity: u64, progress: &Progress) -> Result<Vec<u64>, Error> {
        // No contender can fill more, and some take all their memory at once.
        let most = 2 * log.distinct_keys as u64 + LEAST;
        let capacity = capacity.min(most);
        match self {
            Self::Ours(NonZeroUsize::MIN) => Ok(vec![ours(&log.keys, capacity, progress)?]),
            Self::Ours(threads) => ours_twice(&log.keys, capacity, *threads, progress),
            Self::SameOrder(_) => Ok(Vec::new()),
            Self::Peer(peer) => Ok(vec![peers(peer, log, capacity, progress)]),
            Self::Optimum => {
                let hits = belady::hits(&log.keys, log.distinct_keys, capacity);
                progress.advance(log.keys.len());
                Ok(vec![hits])
            }
        }
    }
}

/// How this cache is replayed.
fn plan(threads: NonZeroUsize, capacity: u64) -> Plan {
    Plan {
        threads,
        capacity: Some(capacity),
        ttl: None,
        fill_time: Duration::ZERO,
    }
}

/// Counts the hits of this cache on one thread: the same as a replay of that capacity.
fn ours(keys: &[u32], capacity: u64, progress: &Progress) -> Result<u64, Error> {
    let plan = plan(NonZeroUsize::MIN, capacity);
    let outcome = replay::<u32, u32>(keys, plan, &Progress::hidden())?;
    progress.advance(keys.len());
    Ok(outcome.hits)
}

/// Counts the hits of this cache on several threads, and then on one in the order that they had.
fn ours_twice(
    keys: &[u32],
    capacity: u64,
    threads: NonZeroUsize,
    progress: &Progress,
) -> Result<Vec<u64>, Error> {
    let plan = plan(threads, capacity);
    let (outcome, order) = replay_recorded::<u32, u32>(keys, plan, &Progress::hidden())?;
    progress.advance(keys.len());
    let keys: Vec<u32> = order.into_iter().map(|index| keys[index]).collect();
    Ok(vec![outcome.hits, ours(&keys, capacity, progress)?])
}

/// Counts the hits of a peer.
fn peers(peer: &Peer, log: &Numbered, capacity: u64, progress: &Progress) -> u64 {
    let mut policy = (peer.build)(usize::try_from(capacity).unwrap_or(usize::MAX));
    let step = |keys: &[u32]| {
        let hits = policies::drive(&mut *policy, keys);
        progress.advance(keys.len());
        hits
    };
    log.keys.chunks(STEP).map(step).sum()
}

/// One capacity of one log.
#[derive(Debug, Clone)]
pub struct Row {
    /// The name of the log.
    pub trace: String,
    /// The file of the log as given.
    pub file: Option<String>,
    /// The capacity as it was asked for.
    pub asked: Capacity,
    /// The capacity in entries.
    pub capacity: u64,
    /// The capacity as a share of the distinct keys.
    pub share: f64,
    /// How many accesses there are.
    pub accesses: u64,
    /// How many of them each contender hits.
    pub hits: Vec<u64>,
}

impl Row {
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    fn new(log: &Numbered, asked: Capacity) -> Self {
        let capacity = asked.entries(log.distinct_keys);
        Self {
            trace: log.name.clone(),
            file: log.file.clone(),
            asked,
            capacity,
            share: capacity as f64 / log.distinct_keys.max(1) as f64,
            accesses: log.keys.len() as u64,
            hits: Vec::new(),
        }
    }

    /// The hits per access of each contender, from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    pub fn hit_ratios(&self) -> impl Iterator<Item = f64> {
        let accesses = self.accesses.max(1) as f64;
        self.hits.iter().map(move |&hits| hits as f64 / accesses)
    }
}

/// The hits of every contender in every capacity of every log.
#[derive(Debug, Clone)]
pub struct Curve {
    /// The contenders, in the order of [`Row::hits`].
    pub contenders: Vec<Contender>,
    /// The capacities of the first log, then those of the next.
    pub rows: Vec<Row>,
}

impl Curve {
    /// Runs every contender through every log.
    ///
    /// # Errors
    ///
    /// When the cache cannot be built or a thread cannot be started.
    pub fn measure(
        logs: &[Numbered],
        capacities: &[Capacity],
        threads: NonZeroUsize,
    ) -> Result<Self, Error> {
        let contenders = Contender::all(threads);
        let cells = cells(logs, capacities, &contenders);
        let steps = cells.iter().map(|cell| cell.log.keys.len()).sum();
        let progress = Progress::new(steps);
        let hits = run(&cells, &progress);
        progress.clear();
        let mut hits = hits?.into_iter();
        let fill = |cells: &[Cell<'_>]| Row {
            hits: hits.by_ref().take(cells.len()).flatten().collect(),
            ..Row::new(cells[0].log, cells[0].asked)
        };
        let rows = cells.chunks(contenders.len()).map(fill).collect();
        Ok(Self { contenders, rows })
    }

    /// The mean hit ratio of each contender over all rows.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "there are few rows")]
    pub fn means(&self) -> Vec<f64> {
        let mut sums = vec![0.0; self.contenders.len()];
        for row in &self.rows {
            sums.iter_mut()
                .zip(row.hit_ratios())
                .for_each(|(sum, ratio)| *sum += ratio);
        }
        let rows = self.rows.len().max(1) as f64;
        sums.into_iter().map(|sum| sum / rows).collect()
    }
}

/// One contender in one capacity of one log.
struct Cell<'a> {
    log: &'a Numbered,
    asked: Capacity,
    contender: Contender,
}

impl Cell<'_> {
    fn hits(&self, progress: &Progress) -> Result<Vec<u64>, Error> {
        let capacity = self.asked.entries(self.log.distinct_keys);
        self.contender.hits(self.log, capacity, progress)
    }

    /// Whether it wants the processors for itself.
    fn is_alone(&self) -> bool {
        self.contender.threads() > NonZeroUsize::MIN
    }
}

/// Every cell, log by log. Where two capacities of a small log are equal, only the first counts.
fn cells<'a>(
    logs: &'a [Numbered],
    capacities: &[Capacity],
    contenders: &[Contender],
) -> Vec<Cell<'a>> {
    let mut cells = Vec::new();
    for log in logs {
        let mut seen = Vec::new();
        for &asked in capacities {
            let entries = asked.entries(log.distinct_keys);
            if seen.contains(&entries) {
                continue;
            }
            seen.push(entries);
            cells.extend(contenders.iter().map(|&contender| Cell {
                log,
                asked,
                contender,
            }));
        }
    }
    cells
}

/// The hits of all cells: as many at a time as there are processors, and then, one at a time, those that
/// run on several threads.
fn run(cells: &[Cell<'_>], progress: &Progress) -> Result<Vec<Vec<u64>>, Error> {
    let mut found = vec![Vec::new(); cells.len()];
    let workers = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    for (alone, workers) in [(false, workers), (true, NonZeroUsize::MIN)] {
        let chosen = || {
            cells
                .iter()
                .enumerate()
                .filter(|(_, cell)| cell.is_alone() == alone)
        };
        let chosen: Vec<_> = chosen().collect();
        for (index, hits) in share_out(&chosen, workers.get(), progress) {
            found[index] = hits?;
        }
    }
    Ok(found)
}

/// A cell's hits, and its index.
type Found = (usize, Result<Vec<u64>, Error>);

/// The hits of `cells`, which so many workers take one by one.
fn share_out(cells: &[(usize, &Cell<'_>)], workers: usize, progress: &Progress) -> Vec<Found> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        while let Some(&(index, cell)) = cells.get(next.fetch_add(1, Relaxed)) {
            found.push((index, cell.hits(progress)));
        }
        found
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let join = |worker: thread::ScopedJoinHandle<'_, Vec<Found>>| {
            worker.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        workers.into_iter().flat_map(join).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(name: &str, keys: Vec<u32>) -> Numbered {
        Numbered {
            name: name.into(),
            file: None,
            distinct_keys: keys.iter().max().map_or(0, |&key| key as usize + 1),
            keys,
        }
    }

    fn measure(logs: &[Numbered], capacities: &[Capacity], threads: usize) -> Curve {
        let threads = NonZeroUsize::new(threads).expect("not zero");
        Curve::measure(logs, capacities, threads).expect("a run")
    }

    #[test]
    fn rows_are_log_by_log() {
        let logs = [log("a", (0..50).collect()), log("b", vec![0; 10])];
        let curve = measure(&logs, &[Capacity::Entries(20), Capacity::Entries(30)], 1);
        let rows = curve
            .rows
            .iter()
            .map(|row| (row.trace.as_str(), row.capacity, row.accesses));
        let expected = [("a", 20, 50), ("a", 30, 50), ("b", 20, 10), ("b", 30, 10)];
        assert_eq!(rows.collect::<Vec<_>>(), expected);
        for row in &curve.rows {
            let hits = if row.trace == "b" { 9 } else { 0 };
            assert_eq!(
                row.hits,
                vec![hits; curve.contenders.len()],
                "{}",
                row.trace
            );
        }
        assert!(curve.means().iter().all(|mean| (mean - 0.45).abs() < 1e-9));
    }

    #[test]
    fn equal_capacities_are_one_row() {
        let curve = measure(&[log("a", vec![0, 1, 0])], &CAPACITIES, 1);
        let rows: Vec<_> = curve.rows.iter().map(|row| row.capacity).collect();
        assert_eq!(rows, [LEAST]);
    }

    #[test]
    fn more_threads_are_two_columns_more() {
        let keys = (0..5000).map(|index| index * index % 97).collect();
        let curve = measure(&[log("a", keys)], &[Capacity::Entries(97)], 3);
        assert_eq!(curve.contenders.len(), PEERS.len() + 4);
        let row = &curve.rows[0];
        assert_eq!(row.hits.len(), curve.contenders.len());
        let optimum = *row.hits.last().expect("the optimum");
        assert_eq!(row.hits[0], optimum, "everything fits");
        assert!(row.hits[1] <= optimum && row.hits[1] > optimum / 2);
        assert_eq!(row.hits[2], optimum, "everything fits, in any order");
    }

    #[test]
    fn the_order_of_threads_needs_threads() {
        for threads in 1..4 {
            let threads = NonZeroUsize::new(threads).expect("not zero");
            let all = Contender::all(threads);
            let ours = all.iter().filter(|each| each.name() == "atomic-cache");
            let ours: Vec<_> = ours
                .map(|each| (each.threads().get(), each.order_of_threads()))
                .collect();
            let several = [(1, None), (threads.get(), None), (1, Some(threads))];
            let expected = if threads.get() == 1 {
                &several[..1]
            } else {
                &several
            };
            assert_eq!(ours, expected);
        }
    }

    #[test]
    fn a_vast_capacity_takes_no_vast_memory() {
        let curve = measure(
            &[log("a", vec![0, 1, 0])],
            &[Capacity::Entries(u64::MAX)],
            1,
        );
        assert!(curve.rows[0].hits.iter().all(|&hits| hits == 1));
    }
}
