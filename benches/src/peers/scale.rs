//! How the cost of a hit grows with the entries, and with the threads.

use serde::Serialize;

use super::{
    contenders::{ALL, Contender, FLOOR, OURS, QUICK},
    figures::Race,
    rounds::{Effort, measure},
    stage::Stage,
    work::Work,
};

/// The fewest entries.
const FEWEST: usize = 1000;

/// The numbers of threads.
const THREADS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// With more entries than this there are at most [`FEW`] rounds.
const MANY: usize = 1_000_000;

/// So few rounds are enough where the processor's caches decide nothing.
const FEW: usize = 3;

/// How the cost grows. Its fields are those of the JSON line.
#[derive(Debug, Clone, Serialize)]
pub struct Scale {
    /// Hits on one thread, for each number of entries.
    pub entries: Vec<Size>,
    /// Hits on more and more threads.
    pub threads: Vec<Race>,
}

/// Hits of so many entries.
#[derive(Debug, Clone, Serialize)]
pub struct Size {
    /// How many.
    pub entries: usize,
    /// By look-ups one by one, and pinned.
    pub races: Vec<Race>,
}

/// Measures this cache, quick_cache and the floor with 1,000 to `most` entries, and with `stage` on 1 to 64 threads.
#[must_use]
pub fn scale(stage: &Stage, most: usize, effort: Effort) -> Scale {
    let named = |contender: &Contender| [OURS, QUICK, FLOOR].contains(&contender.name);
    let contenders: Vec<Contender> = ALL.into_iter().filter(named).collect();
    let sizes = std::iter::successors(Some(FEWEST), |entries| entries.checked_mul(10));
    let entries = sizes
        .take_while(|&entries| entries <= most)
        .map(|entries| size(&contenders, entries, effort))
        .collect();
    let works = [Work::Hit, Work::HotKey];
    Scale {
        entries,
        threads: measure(&contenders, &works, &THREADS, stage, effort),
    }
}

fn size(contenders: &[Contender], entries: usize, effort: Effort) -> Size {
    let stage = Stage::new(entries, 1);
    let rounds = if entries > MANY {
        effort.rounds.min(FEW)
    } else {
        effort.rounds
    };
    let effort = Effort { rounds, ..effort };
    let races = measure(contenders, &[Work::Hit, Work::Pin], &[1], &stage, effort);
    Size { entries, races }
}
