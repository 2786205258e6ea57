//! The bars: the figures this cache is to reach in one and the same run.

use std::fmt;

use serde::Serialize;

use super::{
    contenders::{DASH, FLOOR, OURS, QUICK},
    figures::Results,
    rounds::within_rounds,
    topic::Topic,
    work::Work,
};

/// The topics of all bars.
pub const TOPICS: [Topic; 9] = [
    Topic::Timed(Work::Hit),
    Topic::Timed(Work::HotKey),
    Topic::Timed(Work::Ttl),
    Topic::Timed(Work::Pin),
    Topic::Timed(Work::Zipf),
    Topic::Timed(Work::NewKeys),
    Topic::Timed(Work::Fill),
    Topic::Timed(Work::FillSized),
    Topic::Memory,
];

/// The peers that some bar is about.
pub const PEERS: [&str; 3] = [QUICK, DASH, FLOOR];

/// One bar.
struct Bar {
    about: &'static str,
    /// The most that is allowed.
    most: f64,
    /// The figure seen; none when it was not measured.
    seen: fn(&Results) -> Option<f64>,
}

/// How many times the nanoseconds of `name` in the same round ours are.
fn to(results: &Results, work: Work, threads: usize, name: &str) -> Option<f64> {
    let (ours, theirs) = (
        results.rounds(work, threads, OURS)?,
        results.rounds(work, threads, name)?,
    );
    Some(within_rounds(ours, theirs, |ours, theirs| ours / theirs))
}

/// How many times as long our hit takes on two threads as on one.
fn on_two(results: &Results) -> Option<f64> {
    let (one, two) = (
        results.rounds(Work::Hit, 1, OURS)?,
        results.rounds(Work::Hit, 2, OURS)?,
    );
    Some(within_rounds(two, one, |two, one| two / one))
}

/// How many nanoseconds a time to live adds to our hit.
fn of_lifetimes(results: &Results) -> Option<f64> {
    let (with, without) = (
        results.rounds(Work::Ttl, 1, OURS)?,
        results.rounds(Work::Hit, 1, OURS)?,
    );
    Some(within_rounds(with, without, |with, without| with - without))
}

/// How many points the hit ratio of quick_cache is above ours.
fn points_below(results: &Results, threads: usize) -> Option<f64> {
    let ratio = |name| results.figure(Work::Zipf, threads, name)?.hit_ratio;
    Some(100.0 * (ratio(QUICK)? - ratio(OURS)?))
}

/// All of them.
const BARS: [Bar; 22] = [
    Bar {
        about: "hit, 1 thread, of quick_cache",
        most: 0.60,
        seen: |results| to(results, Work::Hit, 1, QUICK),
    },
    Bar {
        about: "hit, 1 thread, of the floor",
        most: 1.7,
        seen: |results| to(results, Work::Hit, 1, FLOOR),
    },
    Bar {
        about: "hit, 2 threads, of quick_cache",
        most: 0.20,
        seen: |results| to(results, Work::Hit, 2, QUICK),
    },
    Bar {
        about: "hit, 2 threads, of our own on 1",
        most: 1.10,
        seen: on_two,
    },
    Bar {
        about: "hit pinned, 1 thread, of the floor",
        most: 1.35,
        seen: |results| to(results, Work::Pin, 1, FLOOR),
    },
    Bar {
        about: "hot key, 1 thread, of quick_cache",
        most: 0.40,
        seen: |results| to(results, Work::HotKey, 1, QUICK),
    },
    Bar {
        about: "hot key, 2 threads, of quick_cache",
        most: 0.08,
        seen: |results| to(results, Work::HotKey, 2, QUICK),
    },
    Bar {
        about: "hit with TTL, 1 thread, ns more than without",
        most: 6.0,
        seen: of_lifetimes,
    },
    Bar {
        about: "zipf, 1 thread, of quick_cache",
        most: 0.60,
        seen: |results| to(results, Work::Zipf, 1, QUICK),
    },
    Bar {
        about: "zipf, 2 threads, of quick_cache",
        most: 0.30,
        seen: |results| to(results, Work::Zipf, 2, QUICK),
    },
    Bar {
        about: "zipf, 1 thread, points of hit ratio below quick_cache",
        most: 0.0,
        seen: |results| points_below(results, 1),
    },
    Bar {
        about: "zipf, 2 threads, points of hit ratio below quick_cache",
        most: 0.0,
        seen: |results| points_below(results, 2),
    },
    Bar {
        about: "every key new, 1 thread, of quick_cache",
        most: 0.60,
        seen: |results| to(results, Work::NewKeys, 1, QUICK),
    },
    Bar {
        about: "every key new, 2 threads, of quick_cache",
        most: 0.40,
        seen: |results| to(results, Work::NewKeys, 2, QUICK),
    },
    Bar {
        about: "fill, growing, 1 thread, of dashmap+once_cell",
        most: 1.0,
        seen: |results| to(results, Work::Fill, 1, DASH),
    },
    Bar {
        about: "fill, growing, 2 threads, of dashmap+once_cell",
        most: 1.0,
        seen: |results| to(results, Work::Fill, 2, DASH),
    },
    Bar {
        about: "fill, sized, 1 thread, of dashmap+once_cell",
        most: 1.0,
        seen: |results| to(results, Work::FillSized, 1, DASH),
    },
    Bar {
        about: "fill, sized, 2 threads, of dashmap+once_cell",
        most: 1.0,
        seen: |results| to(results, Work::FillSized, 2, DASH),
    },
    Bar {
        about: "bytes an entry of many",
        most: 56.0,
        seen: |results| Some(results.memory(OURS, false)?.bytes_an_entry),
    },
    Bar {
        about: "bytes an entry of many, with TTL",
        most: 56.0,
        seen: |results| Some(results.memory(OURS, true)?.bytes_an_entry),
    },
    Bar {
        about: "allocations a hit",
        most: 0.0,
        seen: |results| results.memory(OURS, true)?.allocations_a_hit,
    },
    Bar {
        about: "allocations a fill, those of a growing table included",
        most: 2.0,
        seen: |results| Some(results.memory(OURS, true)?.allocations_a_fill),
    },
];

/// Whether one bar is met. Its fields are those of the JSON line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// The subject of the bar.
    pub about: &'static str,
    /// The most that is allowed.
    pub most: f64,
    /// The figure seen; null when it was not measured.
    pub seen: Option<f64>,
    /// Whether that is allowed.
    pub met: bool,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, seen) = match self.seen {
            Some(seen) => (
                if self.met { "met" } else { "not met" },
                format!("{seen:.2}"),
            ),
            None => ("not measured", "-".into()),
        };
        write!(
            f,
            "{word:<12} {:<56} at most {:>5.2}, seen {seen:>6}",
            self.about, self.most
        )
    }
}

/// Judges `results` by every bar.
#[must_use]
pub fn judge(results: &Results) -> Vec<Verdict> {
    let verdict = |bar: &Bar| {
        let seen = (bar.seen)(results);
        Verdict {
            about: bar.about,
            most: bar.most,
            seen,
            met: seen.is_some_and(|seen| seen <= bar.most),
        }
    };
    BARS.iter().map(verdict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::figures::{Figure, Race};

    fn figure(name: &'static str, ns: f64, hit_ratio: Option<f64>) -> Figure {
        Figure {
            hit_ratio,
            ..Figure::of_rounds(name, vec![ns])
        }
    }

    fn race(work: Work, threads: usize, contenders: Vec<Figure>) -> Race {
        Race {
            work,
            threads,
            waited: 0.0,
            contenders,
        }
    }

    fn verdict(verdicts: &[Verdict], about: &str) -> Verdict {
        let mut verdicts = verdicts.iter();
        let found = verdicts.find(|verdict| verdict.about == about);
        found.cloned().expect("a bar about that")
    }

    #[test]
    fn bars_are_met_missed_or_not_measured() {
        let zipf = vec![
            figure(OURS, 5.0, Some(0.75)),
            figure(QUICK, 10.0, Some(0.76)),
        ];
        let races = vec![
            race(
                Work::Hit,
                1,
                vec![figure(OURS, 6.0, None), figure(QUICK, 10.0, None)],
            ),
            race(
                Work::Hit,
                2,
                vec![figure(OURS, 7.0, None), figure(QUICK, 10.0, None)],
            ),
            race(Work::Ttl, 1, vec![figure(OURS, 11.0, None)]),
            race(Work::Zipf, 1, zipf),
        ];
        let verdicts = judge(&Results {
            races,
            ..Results::default()
        });
        let seen = |about| {
            let Verdict { seen, met, .. } = verdict(&verdicts, about);
            (seen.map(|seen| (1000.0 * seen).round()), met)
        };
        assert_eq!(seen("hit, 1 thread, of quick_cache"), (Some(600.0), true));
        assert_eq!(seen("hit, 2 threads, of quick_cache"), (Some(700.0), false));
        assert_eq!(
            seen("hit, 2 threads, of our own on 1"),
            (Some(1167.0), false)
        );
        assert_eq!(seen("hit, 1 thread, of the floor"), (None, false));
        assert_eq!(
            seen("hit with TTL, 1 thread, ns more than without"),
            (Some(5000.0), true)
        );
        assert_eq!(seen("zipf, 1 thread, of quick_cache"), (Some(500.0), true));
        let below = "zipf, 1 thread, points of hit ratio below quick_cache";
        assert_eq!(seen(below), (Some(1000.0), false));
    }

    #[test]
    fn a_verdict_is_a_line() {
        let verdict = |seen, met| Verdict {
            about: "hit",
            most: 0.6,
            seen,
            met,
        };
        let line = |seen, met| verdict(seen, met).to_string();
        assert!(line(Some(0.5), true).starts_with("met "));
        assert!(line(Some(0.7), false).starts_with("not met "));
        assert!(line(None, false).starts_with("not measured "));
        assert!(line(Some(0.5), true).ends_with("at most  0.60, seen   0.50"));
    }
}
