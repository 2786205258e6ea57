//! The results of a run. The fields are those of the JSON line.

use serde::Serialize;

use super::{
    bars::Verdict, herd::Herd, latency::Latency, memory::Memory, rounds::median, scale::Scale,
    tasks::Tasks, work::Work,
};

/// The figure of one contender.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// The contender.
    pub name: &'static str,
    /// Whether it makes each value once.
    pub single_flight: bool,
    /// Nanoseconds the slowest thread needs for an operation: the median over the rounds.
    pub ns: f64,
    /// The least of the rounds.
    pub least: f64,
    /// The most of them.
    pub most: f64,
    /// All of them.
    pub rounds: Vec<f64>,
    /// How many times the nanoseconds of this cache in the same round that is: the median over the rounds.
    pub ratio: f64,
    /// The share of accesses that found their key, in works that can miss.
    pub hit_ratio: Option<f64>,
}

impl Figure {
    /// Makes the figure of a contender that took so many nanoseconds in each round, not yet compared with others.
    #[must_use]
    pub fn of_rounds(name: &'static str, rounds: Vec<f64>) -> Self {
        Self {
            name,
            single_flight: true,
            ns: median(&rounds),
            least: rounds.iter().copied().fold(f64::INFINITY, f64::min),
            most: rounds.iter().copied().fold(0.0, f64::max),
            rounds,
            ratio: f64::NAN,
            hit_ratio: None,
        }
    }
}

/// All contenders that can do one work, on one number of threads.
#[derive(Debug, Clone, Serialize)]
pub struct Race {
    /// The work.
    pub work: Work,
    /// How many threads at a time.
    pub threads: usize,
    /// The share of their time in which threads waited for a processor, because the machine had other things to do
    /// or because they are more than it has processors.
    pub waited: f64,
    /// Those that took part, this cache first.
    pub contenders: Vec<Figure>,
}

/// All figures of a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Results {
    /// How many rounds.
    pub rounds: usize,
    /// The most operations of a thread in a round.
    pub operations: usize,
    /// The most milliseconds of a thread in a round.
    pub milliseconds: u64,
    /// How many keys are in a cache that is hit.
    pub keys: usize,
    /// Every work on every number of threads.
    pub races: Vec<Race>,
    /// Many threads that ask for one absent key.
    pub herd: Vec<Herd>,
    /// Many tasks that do.
    pub tasks: Vec<Tasks>,
    /// Bytes an entry and allocations an operation.
    pub memory: Vec<Memory>,
    /// How the cost grows.
    pub scale: Option<Scale>,
    /// The slowest operations.
    pub latency: Option<Latency>,
    /// Which bars are met.
    pub bars: Vec<Verdict>,
}

impl Results {
    /// The figure of `name` at `work` on `threads` threads.
    #[must_use]
    pub fn figure(&self, work: Work, threads: usize, name: &str) -> Option<&Figure> {
        let race = self
            .races
            .iter()
            .find(|race| race.work == work && race.threads == threads)?;
        race.contenders.iter().find(|figure| figure.name == name)
    }

    /// Returns how much memory `name` takes, with or without a time to live.
    #[must_use]
    pub fn memory(&self, name: &str, ttl: bool) -> Option<&Memory> {
        let mut figures = self.memory.iter();
        figures.find(|memory| memory.name == name && memory.ttl == ttl)
    }

    /// The nanoseconds of that figure in each round.
    #[must_use]
    pub fn rounds(&self, work: Work, threads: usize, name: &str) -> Option<&[f64]> {
        Some(&self.figure(work, threads, name)?.rounds)
    }
}
