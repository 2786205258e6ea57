//! `TinyUFO`: as `TinyUfo::new` makes it, the fast variant. It has no operation that makes a value once, so reading
//! through is a look-up and a `put` when that misses; and none that looks a `String` up by `&str`. One key taken out and put in by two
//! threads makes its count of weights overflow (0.9.1: a debug build panics), so it is left out of that work.

use tinyufo::TinyUfo;

use super::{Contender, Kind};
use crate::peers::{
    family::{Ask, Look, ReadThrough},
    lap::Entrant,
    loops::{Fills, Hits, Hot, Inserts, New, Skewed, Through},
    stage::{SPARE, Stage},
    work::Work,
};

/// This contender's row in the table.
pub const CONTENDER: Contender = Contender {
    name: "tinyufo",
    single_flight: false,
    enter,
    cache,
    tasks: None,
};

/// A cache from number to number.
type Numbers = TinyUfo<u64, u64>;

fn enter(work: Work, stage: &Stage) -> Option<Box<dyn Entrant>> {
    let room = stage.keys * SPARE;
    Some(match work {
        Work::Hit => Hits::boxed(bounded(room), stage),
        Work::HotKey => Hot::boxed(bounded(room), stage),
        Work::Through => Through::boxed(bounded(room), stage),
        Work::Zipf => Skewed::boxed(bounded(stage.keys), stage),
        Work::NewKeys => New::boxed(bounded(stage.keys), stage),
        Work::Inserts => Inserts::boxed(bounded(room), stage),
        Work::FillSized => Fills::boxed(|keys| bounded(keys * SPARE)),
        Work::Refill | Work::Fill | Work::Ttl | Work::Strings | Work::Pin | Work::With => {
            return None;
        }
    })
}

/// Room for `capacity` entries of weight 1, and sketches for as many.
fn bounded(capacity: usize) -> Numbers {
    TinyUfo::new(capacity, capacity)
}

fn cache(kind: Kind, number: usize) -> Option<Box<dyn Ask>> {
    (kind == Kind::Bounded).then(|| Box::new(bounded(number)) as Box<dyn Ask>)
}

impl Look for Numbers {
    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        TinyUfo::get(self, &key)
    }

    #[inline]
    fn put(&self, key: u64, value: u64) {
        TinyUfo::put(self, key, value, 1);
    }
}

impl ReadThrough for Numbers {
    #[inline]
    fn read_with(&self, key: u64, make: impl FnOnce() -> u64) -> u64 {
        TinyUfo::get(self, &key).unwrap_or_else(|| {
            let value = make();
            TinyUfo::put(self, key, value, 1);
            value
        })
    }
}
