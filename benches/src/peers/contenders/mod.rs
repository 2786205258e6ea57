//! The contenders: this cache, its peers, and the floor. A file each says how it is set up.
//!
//! Each is as its crate makes it by default, hasher included. Where nothing is to be evicted, a bounded cache gets
//! [`SPARE`](super::stage::SPARE) times the room it needs, because the parts of a sharded one fill unevenly.

mod dash;
mod floor;
mod foyer;
mod mini_moka;
mod moka;
mod ours;
mod papaya;
mod quick;
mod scc;
mod tinyufo;

use super::{family::Ask, lap::Entrant, stage::Stage, tasks::Crowd, work::Work};

/// One contender.
#[derive(Debug, Clone, Copy)]
pub struct Contender {
    /// Its name in tables.
    pub name: &'static str,
    /// Whether only one of the callers that ask for an absent key at once makes the value.
    pub single_flight: bool,
    /// Makes it ready for a work; none when it cannot do that.
    pub enter: fn(Work, &Stage) -> Option<Box<dyn Entrant>>,
    /// An empty cache of a kind; none when it has none of that kind.
    pub cache: fn(Kind, usize) -> Option<Box<dyn Ask>>,
    /// An empty cache for tasks that makes each value once; none when it has none.
    pub tasks: Option<fn() -> Box<dyn Crowd>>,
}

/// Returns the mark of a contender in tables and charts: it is a cache, and has no single flight on threads. A footnote
/// explains the mark.
#[must_use]
pub fn mark(name: &str, single_flight: bool) -> &'static str {
    if single_flight || name == FLOOR {
        ""
    } else {
        " *"
    }
}

/// A kind of cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Without a bound, and small as long as it is empty. The number is how many entries will come.
    Growing,
    /// With room for that number.
    Bounded,
    /// As growing, each entry for an hour.
    Expiring,
}

impl Contender {
    /// An empty cache of a kind; none when it has none of that kind.
    #[must_use]
    pub fn cache(&self, kind: Kind, number: usize) -> Option<Box<dyn Ask>> {
        (self.cache)(kind, number)
    }

    /// A cache of that kind if it has one, or else a bounded one.
    #[must_use]
    pub fn some(&self, kind: Kind, number: usize) -> Option<Box<dyn Ask>> {
        let cache = self.cache(kind, number);
        cache.or_else(|| self.cache(Kind::Bounded, number))
    }
}

/// The name of this cache.
pub const OURS: &str = "atomic-cache";

/// The name of the peer that the bars are about.
pub const QUICK: &str = "quick_cache";

/// The name of the usual hand-written cache.
pub const DASH: &str = "dashmap+once_cell";

/// The name of the floor.
pub const FLOOR: &str = "floor";

/// All of them, this cache first and the floor last.
pub const ALL: [Contender; 10] = [
    ours::CONTENDER,
    moka::CONTENDER,
    quick::CONTENDER,
    papaya::CONTENDER,
    scc::CONTENDER,
    dash::CONTENDER,
    mini_moka::CONTENDER,
    tinyufo::CONTENDER,
    foyer::CONTENDER,
    floor::CONTENDER,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::lap::{Lap, Timing, time};
    use clap::ValueEnum;
    use std::time::Duration;

    fn lap(stage: &Stage, threads: usize) -> Lap<'_> {
        Lap {
            stage,
            thread: 0,
            threads,
            round: 0,
            operations: 500,
            time: Duration::MAX,
        }
    }

    /// Times `contender` at `work`, if it can do it.
    fn timed(contender: Contender, work: Work, stage: &Stage, threads: usize) -> Option<Timing> {
        let mut entrant = (contender.enter)(work, stage)?;
        Some(time(&mut *entrant, lap(stage, threads)))
    }

    #[test]
    fn everybody_does_every_work_they_can() {
        let stage = Stage::new(500, 10_000);
        for contender in ALL {
            for &work in Work::value_variants() {
                let Some(timing) = timed(contender, work, &stage, 2) else {
                    continue;
                };
                assert_eq!(timing.operations, 1000, "{} at {work:?}", contender.name);
                let misses = match work {
                    Work::Fill | Work::FillSized | Work::NewKeys => 1000..=1000,
                    Work::Refill => 1..=1000,
                    Work::Zipf => 100..=800,
                    _ => 0..=0,
                };
                let name = contender.name;
                assert!(
                    misses.contains(&timing.misses),
                    "{name} at {work:?}: {timing:?}"
                );
            }
        }
    }

    #[test]
    fn this_cache_does_every_work() {
        let stage = Stage::new(100, 1000);
        let works = Work::value_variants().iter();
        assert!(
            works
                .copied()
                .all(|work| (ALL[0].enter)(work, &stage).is_some())
        );
        assert_eq!((ALL[0].name, ALL[9].name), (OURS, FLOOR));
    }
}
