//! Many tasks that ask for one absent key: the cost of one of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::{
    runtime::{Builder, Runtime},
    time::sleep,
};

use super::{
    contenders::Contender,
    rounds::median,
    stage::{make, spread_key},
};
use crate::{error::Error, progress::Progress};

/// How many tasks ask.
pub const TASKS: usize = 10_000;

/// How many threads of the runtime run them.
const WORKERS: usize = 2;

/// How long a value takes to make.
const FILL: Duration = Duration::from_millis(1);

/// A cache that tasks read through.
pub trait Fetch: Clone + Send + Sync + 'static {
    /// The value of `key`, made by `make` when it is not there.
    fn fetch(
        self,
        key: u64,
        make: impl Future<Output = u64> + Send + 'static,
    ) -> impl Future<Output = u64> + Send;
}

/// A cache that was made ready for tasks.
pub trait Crowd {
    /// Spawns so many tasks that ask for `key`, and waits for all of them.
    fn ask(&self, runtime: &Runtime, tasks: usize, key: u64) -> Run;
}

/// One round of one contender.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// How often the value was made.
    pub fills: usize,
    /// From the first spawn to the end of the last task.
    pub elapsed: Duration,
}

impl<C: Fetch> Crowd for C {
    fn ask(&self, runtime: &Runtime, tasks: usize, key: u64) -> Run {
        let fills = Arc::new(AtomicUsize::new(0));
        let task = || {
            let (cache, fills) = (self.clone(), Arc::clone(&fills));
            let make = async move {
                fills.fetch_add(1, Relaxed);
                sleep(FILL).await;
                make(key)
            };
            cache.fetch(key, make)
        };
        let start = Instant::now();
        runtime.block_on(async {
            let spawned: Vec<_> = (0..tasks).map(|_| tokio::spawn(task())).collect();
            for task in spawned {
                assert_eq!(task.await.ok(), Some(make(key)), "the value of the key");
            }
        });
        let elapsed = start.elapsed();
        let fills = fills.load(Relaxed);
        Run { fills, elapsed }
    }
}

/// How one contender fared. Its fields are those of the JSON line.
#[derive(Debug, Clone, Serialize)]
pub struct Tasks {
    /// The contender.
    pub name: &'static str,
    /// How many asked.
    pub tasks: usize,
    /// The most times that a value was made.
    pub fills: usize,
    /// Nanoseconds for one task, spawning it included: the median over the rounds.
    pub ns: f64,
    /// The least of the rounds.
    pub least: f64,
    /// The most of them.
    pub most: f64,
}

/// Lets so many tasks ask each contender once a round, in turns.
///
/// # Errors
///
/// When there is no runtime.
pub fn measure(contenders: &[Contender], rounds: usize, tasks: usize) -> Result<Vec<Tasks>, Error> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_time()
        .build();
    let runtime = runtime.map_err(|source| Error::Spawn {
        threads: WORKERS,
        source,
    })?;
    let enter = |contender: &Contender| Some((contender.name, contender.tasks?()));
    let crowds: Vec<_> = contenders.iter().filter_map(enter).collect();
    let mut runs = vec![Vec::new(); crowds.len()];
    let progress = Progress::new(rounds);
    for round in 0..rounds {
        for turn in 0..crowds.len() {
            let index = (turn + round) % crowds.len();
            let run = crowds[index].1.ask(&runtime, tasks, spread_key(round));
            runs[index].push(run);
        }
        progress.advance(1);
    }
    progress.clear();
    let names = crowds.iter().map(|(name, _)| *name);
    Ok(names
        .zip(runs)
        .map(|(name, runs)| figure(name, tasks, &runs))
        .collect())
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn figure(name: &'static str, tasks: usize, runs: &[Run]) -> Tasks {
    let ns = |run: &Run| run.elapsed.as_nanos() as f64 / tasks as f64;
    let times: Vec<f64> = runs.iter().map(ns).collect();
    Tasks {
        name,
        tasks,
        fills: runs.iter().map(|run| run.fills).max().unwrap_or(0),
        ns: median(&times),
        least: times.iter().copied().fold(f64::INFINITY, f64::min),
        most: times.iter().copied().fold(0.0, f64::max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::contenders::ALL;

    #[test]
    fn of_all_tasks_one_makes_the_value() {
        let figures = measure(&ALL, 2, 200).expect("a runtime");
        assert_eq!(figures.len(), 4);
        for figure in figures {
            assert_eq!(figure.fills, 1, "{figure:?}");
            assert!(figure.least <= figure.ns && figure.ns <= figure.most);
        }
    }
}
