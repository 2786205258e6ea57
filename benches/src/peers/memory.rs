//! The memory of an entry, and how often an operation allocates.

use std::cell::Cell;

use serde::Serialize;

use super::{
    contenders::{Contender, Kind},
    family::Ask,
    stage::{make, spread_key},
    tally::{Tally, counting},
};
use crate::progress::Progress;

/// How many entries are put in.
pub const ENTRIES: usize = 1_000_000;

/// The memory of one contender. Its fields are those of the JSON line.
#[derive(Debug, Clone, Serialize)]
pub struct Memory {
    /// The contender.
    pub name: &'static str,
    /// Whether entries have a time to live.
    pub ttl: bool,
    /// Whether it has a bound, which is the number of entries.
    pub bounded: bool,
    /// How many entries were put in.
    pub entries: usize,
    /// Bytes for each that it has kept, key and value included.
    pub bytes_an_entry: f64,
    /// Allocations for a hit; null where a bounded cache has not kept all, so that reading them fills too.
    pub allocations_a_hit: Option<f64>,
    /// Allocations for a fill without waiters, those of a growing table included.
    pub allocations_a_fill: f64,
}

/// Puts `entries` into each contender: as it grows without a bound where it can, and with a time to live where it can.
/// Empty when no allocator counts.
#[must_use]
pub fn measure(contenders: &[Contender], entries: usize) -> Vec<Memory> {
    let progress = Progress::new(contenders.len());
    let of = |contender: &Contender| {
        let kinds = [Kind::Growing, Kind::Bounded, Kind::Expiring];
        let figures = kinds.map(|kind| one(contender, kind, entries));
        progress.advance(1);
        let [growing, bounded, expiring] = figures;
        [growing.or(bounded), expiring]
    };
    let all = contenders.iter().flat_map(of).flatten().collect();
    progress.clear();
    all
}

fn one(contender: &Contender, kind: Kind, entries: usize) -> Option<Memory> {
    if kind == Kind::Bounded && contender.cache(Kind::Growing, 1).is_some() {
        return None;
    }
    counting(|| weigh(contender, kind, entries)).flatten()
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn weigh(contender: &Contender, kind: Kind, entries: usize) -> Option<Memory> {
    let empty = Tally::so_far();
    let cache = contender.cache(kind, entries)?;
    let before = Tally::so_far();
    ask_all(&*cache, entries);
    let full = Tally::so_far();
    let made = ask_all(&*cache, entries);
    let hits = Tally::so_far().since(full);
    let kept = entries - made.min(entries - 1);
    Some(Memory {
        name: contender.name,
        ttl: kind == Kind::Expiring,
        bounded: kind == Kind::Bounded,
        entries,
        bytes_an_entry: full.since(empty).bytes as f64 / kept as f64,
        allocations_a_hit: (made == 0).then(|| hits.allocations as f64 / entries as f64),
        allocations_a_fill: full.since(before).allocations as f64 / entries as f64,
    })
}

/// Asks for every key once; how many had to be made.
fn ask_all(cache: &dyn Ask, entries: usize) -> usize {
    let made = Cell::new(0);
    for key in (0..entries).map(spread_key) {
        cache.ask(key, &|| {
            made.set(made.get() + 1);
            make(key)
        });
    }
    made.get()
}
