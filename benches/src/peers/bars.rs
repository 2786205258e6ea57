//! The bars: what this cache is to reach in one and the same run.

use std::fmt;

use serde::Serialize;

use super::{
    contenders::{DASH, FLOOR, OURS, QUICK},
    figures::Results,
    work::Work,
};

/// The works that some bar is about.
pub const WORKS: [Work; 8] = [
    Work::Hit,
    Work::HotKey,
    Work::Ttl,
    Work::Pin,
    Work::Zipf,
    Work::NewKeys,
    Work::Fill,
    Work::FillSized,
];

/// The peers that some bar is about.
pub const PEERS: [&str; 3] = [QUICK, DASH, FLOOR];

/// One bar.
struct Bar {
    about: &'static str,
    /// The most that is allowed.
    most: f64,
    /// What was seen; none when it was not measured.
    seen: fn(&Results) -> Option<f64>,
}

/// How many times the nanoseconds of `name` ours are.
fn to(results: &Results, work: Work, threads: usize, name: &str) -> Option<f64> {
    Some(results.ns(work, threads, OURS)? / results.ns(work, threads, name)?)
}

/// How many points the hit ratio of quick_cache is above ours.
fn points_below(results: &Results, threads: usize) -> Option<f64> {
    let ratio = |name| results.figure(Work::Zipf, threads, name)?.hit_ratio;
    Some(100.0 * (ratio(QUICK)? - ratio(OURS)?))
}

/// All of them.
const BARS: [Bar; 18] = [
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
        seen: |results| Some(results.ns(Work::Hit, 2, OURS)? / results.ns(Work::Hit, 1, OURS)?),
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
        seen: |results| Some(results.ns(Work::Ttl, 1, OURS)? - results.ns(Work::Hit, 1, OURS)?),
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
];

/// Whether one bar is met. Its fields are those of the JSON line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// What it is about.
    pub about: &'static str,
    /// The most that is allowed.
    pub most: f64,
    /// What was seen; null when it was not measured.
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
