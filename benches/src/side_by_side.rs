//! The command `side_by_side`: the cache and its peers timed in turns within one run.
//!
//! The machine is never the same for long, so every round times every contender once, in an order that moves
//! on by one each round, and the median over the rounds counts.

use std::{
    collections::hash_map::RandomState,
    hint::black_box,
    io::{self, Write, stdout},
    num::NonZeroUsize,
    ops::Range,
    process::ExitCode,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde::Serialize;

use crate::{
    cli::{finish, refuse},
    contenders::{Atomic, Dash, Moka, Papaya, Quick, ReadThrough, Scc, SharedHasher},
    error::Error,
    progress::Progress,
};

/// How many keys are in a cache that is hit.
pub const KEYS: usize = 100_000;

/// The numbers of threads.
const THREADS: [usize; 2] = [1, 2];

/// Times atomic-cache beside moka, `quick_cache`, papaya, scc and dashmap in one run
///
/// Each figure is the median over the rounds of the nanoseconds one thread needs for one operation, and in
/// brackets how many times those of atomic-cache it is. Perfect scaling leaves a figure on two threads as it is
/// on one.
#[derive(Debug, Parser)]
#[command(name = "side_by_side", version)]
pub struct Args {
    /// How many rounds to run
    #[arg(long, value_name = "N", default_value = "9")]
    rounds: NonZeroUsize,

    /// How many operations each thread is timed over
    #[arg(long, value_name = "N", default_value = "200000")]
    operations: NonZeroUsize,

    /// Give every contender the same hasher (foldhash) and not its own default
    #[arg(long)]
    same_hasher: bool,

    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Reads of keys that are there, drawn uniformly from 100,000.
    Hit,
    /// Reads of one key that is there.
    HotKey,
    /// Fills of new keys into an empty cache.
    Fill,
}

impl Work {
    /// All that is timed.
    pub const ALL: [Self; 3] = [Self::Hit, Self::HotKey, Self::Fill];

    fn title(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::HotKey => "hot key",
            Self::Fill => "fill of new key",
        }
    }
}

/// The `index`th of keys that are spread over all bits.
#[must_use]
pub fn spread_key(index: usize) -> u64 {
    (index as u64)
        .wrapping_add(1)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// A cache that holds the first [`KEYS`] keys and was made for as many.
///
/// So a hit is that of a settled cache; `papaya` for one would still be moving to its last table.
#[must_use]
pub fn filled<C: ReadThrough>() -> C {
    let cache = C::sized(KEYS);
    warm(&cache);
    cache
}

/// One contender, ready for any work.
trait Contender {
    fn name(&self) -> &'static str;

    /// Nanoseconds one thread needs for one of `operations`.
    fn time(&self, work: Work, threads: usize, operations: usize) -> f64;
}

/// A contender with a cache to hit.
struct Subject<C>(C);

impl<C: ReadThrough> Contender for Subject<C> {
    fn name(&self) -> &'static str {
        C::NAME
    }

    fn time(&self, work: Work, threads: usize, operations: usize) -> f64 {
        match work {
            Work::Hit => {
                let read = |thread| read_uniformly(&self.0, thread, operations);
                time_threads(threads, operations, || warm(&self.0), read)
            }
            Work::HotKey => time_threads(
                threads,
                operations,
                || (),
                |_| read_one(&self.0, operations),
            ),
            Work::Fill => {
                let empty = C::growing(threads * operations);
                let part = |thread| thread * operations..(thread + 1) * operations;
                time_threads(
                    threads,
                    operations,
                    || (),
                    |thread| fill_new(&empty, part(thread)),
                )
            }
        }
    }
}

/// Reads every key once: fills a new cache, and takes the processor's caches back from the contender before.
fn warm(cache: &impl ReadThrough) {
    for index in 0..KEYS {
        black_box(cache.get(spread_key(index)));
    }
}

fn read_uniformly(cache: &impl ReadThrough, thread: usize, operations: usize) {
    let mut random = SmallRng::seed_from_u64(thread as u64);
    for _ in 0..operations {
        black_box(cache.get(spread_key(random.random_range(0..KEYS))));
    }
}

fn read_one(cache: &impl ReadThrough, operations: usize) {
    for _ in 0..operations {
        black_box(cache.get(black_box(spread_key(0))));
    }
}

fn fill_new(cache: &impl ReadThrough, indices: Range<usize>) {
    for index in indices {
        black_box(cache.get(spread_key(index)));
    }
}

/// Runs `work` on that many threads at one time, each after its `prepare`; the nanoseconds the slowest needs for
/// one of `operations`.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn time_threads(
    threads: usize,
    operations: usize,
    prepare: impl Fn() + Sync,
    work: impl Fn(usize) + Sync,
) -> f64 {
    let barrier = Barrier::new(threads);
    let timed = |thread| {
        prepare();
        barrier.wait();
        let start = Instant::now();
        work(thread);
        start.elapsed()
    };
    let slowest = thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map(|thread| scope.spawn(move || timed(thread)))
            .collect();
        let own = timed(0);
        others
            .into_iter()
            .filter_map(|other| other.join().ok())
            .fold(own, Duration::max)
    });
    slowest.as_nanos() as f64 / operations as f64
}

/// Every contender, `atomic-cache` first.
fn contenders(same_hasher: bool) -> Vec<Box<dyn Contender>> {
    fn boxed<C: ReadThrough>() -> Box<dyn Contender> {
        Box::new(Subject(filled::<C>()))
    }
    type Same = SharedHasher;
    if same_hasher {
        return vec![
            boxed::<Atomic<Same>>(),
            boxed::<Moka<Same>>(),
            boxed::<Quick<Same>>(),
            boxed::<Papaya<Same>>(),
            boxed::<Scc<Same>>(),
            boxed::<Dash<Same>>(),
        ];
    }
    vec![
        boxed::<Atomic>(),
        boxed::<Moka<RandomState>>(),
        boxed::<Quick>(),
        boxed::<Papaya<RandomState>>(),
        boxed::<Scc<RandomState>>(),
        boxed::<Dash<RandomState>>(),
    ]
}

/// The figure of one contender.
#[derive(Debug, Clone, Serialize)]
struct Figure {
    name: &'static str,
    ns_per_op: f64,
    ratio: f64,
}

/// The figures of all contenders at one work.
#[derive(Debug, Clone, Serialize)]
struct Race {
    work: Work,
    threads: usize,
    contenders: Vec<Figure>,
}

/// All figures of a run. Its fields are those of the JSON line.
#[derive(Debug, Clone, Serialize)]
struct Results {
    rounds: usize,
    operations: usize,
    same_hasher: bool,
    races: Vec<Race>,
}

/// Every work on every number of threads.
fn all_races() -> impl Iterator<Item = (Work, usize)> {
    Work::ALL
        .into_iter()
        .flat_map(|work| THREADS.map(|threads| (work, threads)))
}

/// Runs the rounds.
fn measure(
    contenders: &[Box<dyn Contender>],
    rounds: usize,
    operations: usize,
    progress: &Progress,
) -> Vec<Race> {
    let races = all_races().count();
    let mut times = vec![vec![Vec::with_capacity(rounds); contenders.len()]; races];
    for round in 0..rounds {
        for ((work, threads), times) in all_races().zip(&mut times) {
            for turn in 0..contenders.len() {
                let index = (turn + round) % contenders.len();
                times[index].push(contenders[index].time(work, threads, operations));
            }
        }
        progress.show(round + 1);
    }
    let race = |((work, threads), times)| Race {
        work,
        threads,
        contenders: figures(contenders, times),
    };
    all_races().zip(times).map(race).collect()
}

/// The medians and how they compare with the first one.
fn figures(contenders: &[Box<dyn Contender>], times: Vec<Vec<f64>>) -> Vec<Figure> {
    let medians: Vec<f64> = times.into_iter().map(median).collect();
    let first = medians.first().copied().unwrap_or(f64::NAN);
    let names = contenders.iter().map(|contender| contender.name());
    let figure = |(name, ns_per_op): (&'static str, f64)| Figure {
        name,
        ns_per_op,
        ratio: ns_per_op / first,
    };
    names.zip(medians).map(figure).collect()
}

/// The middle one of `times`, the upper of two; NaN for none.
fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Results {
    /// A table for people: a line for each contender, a column for each race.
    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        let plural = |threads| if threads == 1 { "" } else { "s" };
        let title = |race: &Race| {
            format!(
                "{}\n{} thread{}",
                race.work.title(),
                race.threads,
                plural(race.threads)
            )
        };
        table.set_header(
            std::iter::once("ns an operation".to_owned()).chain(self.races.iter().map(title)),
        );
        let names = self.races.first().map_or(&[][..], |race| &race.contenders);
        for (index, Figure { name, .. }) in names.iter().enumerate() {
            let cell = |race: &Race| {
                let figure = &race.contenders[index];
                format!("{:.1} ({:.2})", figure.ns_per_op, figure.ratio)
            };
            table.add_row(std::iter::once((*name).to_owned()).chain(self.races.iter().map(cell)));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string()
    }
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    match Args::try_parse() {
        Ok(args) => finish(run(&args)),
        Err(error) => refuse(&error),
    }
}

/// Times everything and prints the figures.
///
/// # Errors
///
/// When the figures cannot be written.
pub fn run(args: &Args) -> Result<(), Error> {
    let (rounds, operations, same_hasher) =
        (args.rounds.get(), args.operations.get(), args.same_hasher);
    let progress = Progress::new(rounds);
    let races = measure(&contenders(same_hasher), rounds, operations, &progress);
    progress.clear();
    let results = Results {
        rounds,
        operations,
        same_hasher,
        races,
    };
    let text = if args.json {
        serde_json::to_string(&results).map_err(io::Error::from)?
    } else {
        results.table()
    };
    let mut out = stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a fixed time.
    struct Fixed(f64);

    impl Contender for Fixed {
        fn name(&self) -> &'static str {
            "fixed"
        }

        fn time(&self, _work: Work, threads: usize, _operations: usize) -> f64 {
            self.0 * f64::from(u8::try_from(threads).expect("few threads"))
        }
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn ratios_are_to_the_first() {
        let fixed: Vec<Box<dyn Contender>> = vec![Box::new(Fixed(10.0)), Box::new(Fixed(25.0))];
        let races = measure(&fixed, 3, 1, &Progress::hidden());
        assert_eq!(races.len(), 6);
        assert!(
            races
                .iter()
                .all(|race| (race.contenders[1].ratio - 2.5).abs() < 1e-9)
        );
        let table = Results {
            rounds: 3,
            operations: 1,
            same_hasher: false,
            races,
        }
        .table();
        assert!(
            table.contains("25.0 (2.50)") && table.contains("hot key"),
            "{table}"
        );
    }
}
