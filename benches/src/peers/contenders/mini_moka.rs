//! `mini-moka`: as `Cache::new` makes it. It has no operation that makes a value once, so reading through is a look-up
//! and an insert when that misses; and none that looks a `String` up by `&str`.

use std::time::Duration;

use mini_moka::sync::Cache;

use super::{Contender, Kind};
use crate::peers::{
    family::{Ask, Forget, Look, ReadThrough},
    lap::Entrant,
    loops::{Fills, Hits, Hot, Inserts, New, Refill, Skewed, Through},
    stage::{SPARE, Stage},
    work::Work,
};

/// This contender's row in the table.
pub const CONTENDER: Contender = Contender {
    name: "mini-moka",
    single_flight: false,
    enter,
    cache,
    tasks: None,
};

const HOUR: Duration = Duration::from_hours(1);

/// A cache from number to number.
type Numbers = Cache<u64, u64>;

fn enter(work: Work, stage: &Stage) -> Option<Box<dyn Entrant>> {
    let room = stage.keys * SPARE;
    Some(match work {
        Work::Hit => Hits::boxed(bounded(room), stage),
        Work::HotKey => Hot::boxed(bounded(room), stage),
        Work::Ttl => Hits::boxed(expiring(room), stage),
        Work::Through => Through::boxed(bounded(room), stage),
        Work::Zipf => Skewed::boxed(bounded(stage.keys), stage),
        Work::NewKeys => New::boxed(bounded(stage.keys), stage),
        Work::Inserts => Inserts::boxed(bounded(room), stage),
        Work::Refill => Refill::boxed(bounded(room), stage),
        Work::Fill => Fills::boxed(|_| Numbers::builder().build()),
        Work::FillSized => Fills::boxed(|keys| Numbers::builder().initial_capacity(keys).build()),
        Work::Strings | Work::Pin | Work::With => return None,
    })
}

fn bounded(capacity: usize) -> Numbers {
    Numbers::new(capacity as u64)
}

fn expiring(capacity: usize) -> Numbers {
    let builder = Numbers::builder().max_capacity(capacity as u64);
    builder.time_to_live(HOUR).build()
}

#[expect(clippy::unnecessary_wraps, reason = "others do not have every kind")]
fn cache(kind: Kind, number: usize) -> Option<Box<dyn Ask>> {
    Some(Box::new(match kind {
        Kind::Growing => Numbers::builder().build(),
        Kind::Bounded => bounded(number),
        Kind::Expiring => Numbers::builder().time_to_live(HOUR).build(),
    }))
}

impl Look for Numbers {
    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        Cache::get(self, &key)
    }

    #[inline]
    fn put(&self, key: u64, value: u64) {
        self.insert(key, value);
    }
}

impl ReadThrough for Numbers {
    #[inline]
    fn read_with(&self, key: u64, make: impl FnOnce() -> u64) -> u64 {
        Cache::get(self, &key).unwrap_or_else(|| {
            let value = make();
            self.insert(key, value);
            value
        })
    }
}

impl Forget for Numbers {
    #[inline]
    fn forget(&self, key: u64) {
        self.invalidate(&key);
    }
}
