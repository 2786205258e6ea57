//! The rounds: the order in which contenders are timed, and the median of their figures.
//!
//! The machine is never the same for long, so every round times every contender once, in an order that moves on by
//! one each round, and the median over the rounds counts.

use std::time::Duration;

use super::{
    contenders::Contender,
    figures::{Figure, Race},
    lap::{Entrant, Lap, Timing, time},
    loops,
    stage::Stage,
    work::Work,
};
use crate::progress::Progress;

/// Work that has a course is timed over this part of the operations.
const COURSE: usize = 5;

/// How long to measure.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// How many rounds.
    pub rounds: usize,
    /// The most operations a thread makes in one of them.
    pub operations: usize,
    /// The most time it takes.
    pub time: Duration,
}

impl Effort {
    /// How many accesses to skewed keys a cache sees in all rounds.
    #[must_use]
    pub fn skewed_accesses(&self, threads: &[usize]) -> usize {
        let laps = self.rounds * threads.iter().sum::<usize>();
        laps * loops::stretch(self.operations / COURSE)
    }

    fn lap<'a>(&self, stage: &'a Stage, work: Work, threads: usize, round: usize) -> Lap<'a> {
        let (operations, time) = if work.is_whole() {
            ((self.operations / COURSE).max(1), Duration::MAX)
        } else {
            (self.operations, self.time)
        };
        Lap {
            stage,
            thread: 0,
            threads,
            round,
            operations,
            time,
        }
    }
}

/// One work, with all contenders that can do it.
struct Field {
    work: Work,
    entrants: Vec<(Contender, Box<dyn Entrant>)>,
    /// Its timings: by number of threads, and by entrant.
    timings: Vec<Vec<Vec<Timing>>>,
}

impl Field {
    fn new(work: Work, contenders: &[Contender], threads: &[usize], stage: &Stage) -> Self {
        let enter = |contender: &Contender| Some((*contender, (contender.enter)(work, stage)?));
        let entrants: Vec<_> = contenders.iter().filter_map(enter).collect();
        let timings = vec![vec![Vec::new(); entrants.len()]; threads.len()];
        Self {
            work,
            entrants,
            timings,
        }
    }

    fn round(&mut self, lap: Lap<'_>, which: usize) {
        let entrants = self.entrants.len();
        for turn in 0..entrants {
            let index = (turn + lap.round) % entrants;
            let timing = time(&mut *self.entrants[index].1, lap);
            self.timings[which][index].push(timing);
        }
    }

    fn races(self, threads: &[usize]) -> impl Iterator<Item = Race> {
        let (work, entrants) = (self.work, self.entrants);
        let threads = threads.to_vec();
        threads
            .into_iter()
            .zip(self.timings)
            .map(move |(threads, timings)| Race {
                work,
                threads,
                waited: waited(&timings),
                contenders: figures(work, &entrants, &timings),
            })
    }
}

/// Runs the rounds of `works`.
#[must_use]
pub fn measure(
    contenders: &[Contender],
    works: &[Work],
    threads: &[usize],
    stage: &Stage,
    effort: Effort,
) -> Vec<Race> {
    let progress = Progress::new(works.len() * (1 + effort.rounds));
    let enter = |&work| {
        let field = Field::new(work, contenders, threads, stage);
        progress.advance(1);
        field
    };
    let mut fields: Vec<Field> = works.iter().map(enter).collect();
    for round in 0..effort.rounds {
        for field in &mut fields {
            for (which, &threads) in threads.iter().enumerate() {
                field.round(effort.lap(stage, field.work, threads, round), which);
            }
            progress.advance(1);
        }
    }
    progress.clear();
    fields
        .into_iter()
        .flat_map(|field| field.races(threads))
        .collect()
}

/// The mean share of their time in which threads waited for a processor.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn waited(timings: &[Vec<Timing>]) -> f64 {
    let shares = || timings.iter().flatten().map(|timing| timing.waited);
    shares().sum::<f64>() / shares().count().max(1) as f64
}

fn figures(
    work: Work,
    entrants: &[(Contender, Box<dyn Entrant>)],
    timings: &[Vec<Timing>],
) -> Vec<Figure> {
    let contenders = entrants.iter().map(|(contender, _)| contender);
    let mut figures: Vec<_> = contenders
        .zip(timings)
        .map(|(contender, timings)| figure(work, contender, timings))
        .collect();
    let ours = figures
        .first()
        .map_or_else(Vec::new, |figure| figure.rounds.clone());
    for figure in &mut figures {
        figure.ratio = within_rounds(&figure.rounds, &ours, |one, ours| one / ours);
    }
    figures
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn figure(work: Work, contender: &Contender, timings: &[Timing]) -> Figure {
    let times: Vec<f64> = timings.iter().map(|timing| timing.ns).collect();
    let operations: usize = timings.iter().map(|timing| timing.operations).sum();
    let misses: usize = timings.iter().map(|timing| timing.misses).sum();
    let hits = 1.0 - misses as f64 / operations.max(1) as f64;
    Figure {
        single_flight: contender.single_flight,
        hit_ratio: work.can_miss().then_some(hits),
        ..Figure::of_rounds(contender.name, times)
    }
}

/// Compares two figures round by round, as the machine is more alike to itself within a round than over all. Returns
/// the median of the results of `compare`.
#[must_use]
pub fn within_rounds(one: &[f64], other: &[f64], compare: fn(f64, f64) -> f64) -> f64 {
    let pairs = one.iter().zip(other);
    median(
        &pairs
            .map(|(&one, &other)| compare(one, other))
            .collect::<Vec<_>>(),
    )
}

/// The middle one of `times`, the upper of two; NaN for none.
#[must_use]
pub fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::lap::Span;

    /// Takes a fixed time for an operation.
    struct Fixed(u64);

    impl Entrant for Fixed {
        fn run(&self, lap: &Lap<'_>) -> Span {
            let ns = self.0 * (lap.threads * lap.operations) as u64;
            Span {
                operations: lap.operations,
                misses: lap.operations / 4,
                elapsed: Duration::from_nanos(ns),
            }
        }
    }

    fn contender(
        name: &'static str,
        enter: fn(Work, &Stage) -> Option<Box<dyn Entrant>>,
    ) -> Contender {
        Contender {
            name,
            single_flight: true,
            enter,
            cache: |_, _| None,
            tasks: None,
        }
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn rounds_are_compared_by_themselves() {
        let ratio =
            |one: &[f64], other: &[f64]| within_rounds(one, other, |one, other| one / other);
        // The machine was slow in the second round, for both.
        assert!((ratio(&[2.0, 8.0, 2.0], &[1.0, 4.0, 1.5]) - 2.0).abs() < 1e-9);
        assert!(ratio(&[], &[]).is_nan());
    }

    #[test]
    fn ratios_are_to_the_first_and_who_cannot_is_left_out() {
        let contenders = [
            contender("ours", |_, _| Some(Box::new(Fixed(10)))),
            contender("other", |_, _| Some(Box::new(Fixed(25)))),
            contender("unable", |work, _| {
                (work == Work::Hit).then(|| Box::new(Fixed(1)) as Box<dyn Entrant>)
            }),
        ];
        let stage = Stage::new(10, 100);
        let effort = Effort {
            rounds: 3,
            operations: 100,
            time: Duration::MAX,
        };
        let races = measure(
            &contenders,
            &[Work::Hit, Work::Zipf],
            &[1, 2],
            &stage,
            effort,
        );
        assert_eq!(races.len(), 4);
        assert_eq!(races[0].contenders.len(), 3);
        assert_eq!(races[3].contenders.len(), 2);
        assert_eq!((races[3].work, races[3].threads), (Work::Zipf, 2));
        assert!(
            races
                .iter()
                .all(|race| (race.contenders[1].ratio - 2.5).abs() < 1e-9)
        );
        assert!((races[3].contenders[0].ns - 20.0).abs() < 1e-9);
        assert_eq!(races[0].contenders[0].hit_ratio, None);
        assert_eq!(races[3].contenders[0].hit_ratio, Some(0.75));
    }
}
