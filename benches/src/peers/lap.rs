//! One timing: threads that start at once, each for so many operations or so long.

use std::{
    num::NonZeroUsize,
    sync::Barrier,
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use super::{queue, stage::Stage};

/// Between two looks at the watch, and as many look-ups go through one pinned guard.
const BATCH: usize = 1000;

/// A cache of more keys is not read before its time starts: the processor's caches have no room for it.
const WARM: usize = 1_000_000;

/// The work of one thread.
#[derive(Debug, Clone, Copy)]
pub struct Lap<'a> {
    /// The inputs of the run.
    pub stage: &'a Stage,
    /// Which of the threads.
    pub thread: usize,
    /// How many there are.
    pub threads: usize,
    /// Which round.
    pub round: usize,
    /// Most operations.
    pub operations: usize,
    /// Most time, looked at after every batch.
    pub time: Duration,
}

/// The result of one thread.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// Operations.
    pub operations: usize,
    /// How many of them found nothing.
    pub misses: usize,
    /// The time they took.
    pub elapsed: Duration,
}

impl Span {
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    fn ns_per_op(&self) -> f64 {
        self.elapsed.as_nanos() as f64 / self.operations.max(1) as f64
    }
}

impl Lap<'_> {
    /// A number that differs from lap to lap.
    #[must_use]
    pub fn seed(&self) -> usize {
        self.round * self.threads + self.thread
    }

    /// Times batches: `batch` performs so many operations, and answers how many of them found nothing.
    #[expect(
        clippy::inline_always,
        reason = "a loop is to be compiled as one with what it does"
    )]
    #[inline(always)]
    pub fn batches(&self, mut batch: impl FnMut(usize) -> usize) -> Span {
        let (mut operations, mut misses) = (0, 0);
        let start = Instant::now();
        loop {
            let count = BATCH.min(self.operations - operations);
            misses += batch(count);
            operations += count;
            let elapsed = start.elapsed();
            if operations == self.operations || elapsed >= self.time {
                return Span {
                    operations,
                    misses,
                    elapsed,
                };
            }
        }
    }

    /// Times single operations, none of which can miss.
    #[expect(clippy::inline_always, reason = "as above")]
    #[inline(always)]
    pub fn each(&self, mut operation: impl FnMut()) -> Span {
        self.batches(|count| {
            for _ in 0..count {
                operation();
            }
            0
        })
    }
}

/// A contender at one work.
pub trait Entrant: Sync {
    /// Before a timing, once.
    fn begin(&mut self, _lap: &Lap<'_>) {}

    /// Before a timing, on every thread: reads the entries that `run` will read, as the contender before has pushed
    /// them out of the processor's caches.
    fn warm(&self, _lap: &Lap<'_>) {}

    /// The timed part.
    fn run(&self, lap: &Lap<'_>) -> Span;
}

/// The result of one timing.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Nanoseconds an operation: on the slowest thread; where there are more threads than processors, of the
    /// processors together.
    pub ns: f64,
    /// Operations of all threads.
    pub operations: usize,
    /// How many of them found nothing.
    pub misses: usize,
    /// From the first start to the last end.
    pub elapsed: Duration,
    /// The share of the threads' time in which they waited for a processor.
    pub waited: f64,
}

/// Runs `entrant` on as many threads as `lap` says, all at one time.
///
/// # Panics
///
/// When a contender does.
pub fn time(entrant: &mut dyn Entrant, lap: Lap<'_>) -> Timing {
    entrant.begin(&lap);
    let entrant = &*entrant;
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let barrier = Barrier::new(lap.threads);
    let timed = |thread| {
        let lap = Lap { thread, ..lap };
        if thread < processors && lap.stage.keys <= WARM {
            entrant.warm(&lap);
        }
        barrier.wait();
        let (waited, start) = (queue::waited(), Instant::now());
        let span = entrant.run(&lap);
        let (end, waited) = (Instant::now(), queue::waited().saturating_sub(waited));
        Run {
            start,
            span,
            end,
            waited,
        }
    };
    let runs = thread::scope(|scope| {
        let others: Vec<_> = (1..lap.threads)
            .map(|thread| scope.spawn(move || timed(thread)))
            .collect();
        let mut runs = vec![timed(0)];
        let joined = others.into_iter().map(ScopedJoinHandle::join);
        runs.extend(joined.map(|run| run.expect("contenders do not panic")));
        runs
    });
    sum_up(&runs, processors)
}

/// The result of one thread, and its start.
struct Run {
    start: Instant,
    span: Span,
    end: Instant,
    /// How much of that it waited for a processor.
    waited: Duration,
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn sum_up(runs: &[Run], processors: usize) -> Timing {
    let first = runs.iter().map(|run| run.start);
    let last = runs.iter().map(|run| run.end);
    let elapsed = last.max().zip(first.min());
    let elapsed = elapsed.map_or(Duration::ZERO, |(last, first)| last - first);
    let spans = || runs.iter().map(|run| run.span);
    let operations = spans().map(|span| span.operations).sum();
    let ns = if runs.len() > processors {
        elapsed.as_nanos() as f64 * processors as f64 / operations as f64
    } else {
        spans().map(|span| span.ns_per_op()).fold(0.0, f64::max)
    };
    Timing {
        ns,
        operations,
        misses: spans().map(|span| span.misses).sum(),
        elapsed,
        waited: share(runs),
    }
}

/// The share of the threads' time in which they waited for a processor.
fn share(runs: &[Run]) -> f64 {
    let waited: Duration = runs.iter().map(|run| run.waited).sum();
    let all: Duration = runs.iter().map(|run| run.end - run.start).sum();
    waited.as_secs_f64() / all.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    /// Counts its operations, every second of which misses.
    struct Counting(AtomicUsize);

    impl Entrant for Counting {
        fn run(&self, lap: &Lap<'_>) -> Span {
            lap.batches(|count| {
                self.0.fetch_add(count, Relaxed);
                count / 2
            })
        }
    }

    fn timed(threads: usize, time: Duration) -> (Timing, usize) {
        let stage = Stage::new(10, 10);
        let mut counting = Counting(AtomicUsize::new(0));
        let lap = Lap {
            stage: &stage,
            thread: 0,
            threads,
            round: 0,
            operations: 3500,
            time,
        };
        (super::time(&mut counting, lap), counting.0.into_inner())
    }

    #[test]
    fn every_thread_makes_its_operations() {
        let (timing, counted) = timed(3, Duration::MAX);
        assert_eq!((timing.operations, counted), (10_500, 10_500));
        assert_eq!(timing.misses, 5250);
        assert!(timing.ns > 0.0);
    }

    #[test]
    fn the_time_ends_it_after_a_batch() {
        let (timing, _) = timed(2, Duration::ZERO);
        assert_eq!(timing.operations, 2000);
    }
}
