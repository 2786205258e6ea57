//! `HashCache` of `scc`: a table of buckets of 32 entries, each of which evicts for itself, with a capacity that is
//! rounded up to a power of two; so with the default of 100,000 keys it has room for 131,072 where others have
//! 100,000.
//!
//! It gets all its room from the start, as it evicts while it grows, also where there is room left.
//!
//! A hit is `read_sync`, which its documentation recommends for reading. Reading through is its entry, which counts
//! as a use, and makes the value under the lock of the bucket.

use scc::{HashCache, hash_cache::Entry};

use super::{Contender, Kind};
use crate::peers::{
    family::{Ask, Forget, Lend, Look, ReadThrough, Texts},
    lap::Entrant,
    loops::{ByText, Fills, Hits, Hot, Inserts, Lent, New, Refill, Skewed, Through},
    stage::{SPARE, Stage},
    work::Work,
};

/// This contender's row in the table.
pub const CONTENDER: Contender = Contender {
    name: "scc HashCache",
    single_flight: true,
    enter,
    cache,
    tasks: None,
};

/// A cache from number to number.
type Numbers = HashCache<u64, u64>;

/// A cache from text to number.
type ByName = HashCache<String, u64>;

fn enter(work: Work, stage: &Stage) -> Option<Box<dyn Entrant>> {
    let bounded = |capacity| Numbers::with_capacity(capacity, capacity);
    let room = stage.keys * SPARE;
    Some(match work {
        Work::Hit => Hits::boxed(bounded(room), stage),
        Work::HotKey => Hot::boxed(bounded(room), stage),
        Work::Strings => ByText::boxed(ByName::with_capacity(room, room), stage),
        Work::With => Lent::boxed(bounded(room), stage),
        Work::Through => Through::boxed(bounded(room), stage),
        Work::Zipf => Skewed::boxed(bounded(stage.keys), stage),
        Work::NewKeys => New::boxed(bounded(stage.keys), stage),
        Work::Inserts => Inserts::boxed(bounded(room), stage),
        Work::Refill => Refill::boxed(bounded(room), stage),
        Work::FillSized => Fills::boxed(|keys| Numbers::with_capacity(keys * SPARE, keys * SPARE)),
        Work::Fill | Work::Ttl | Work::Pin => return None,
    })
}

fn cache(kind: Kind, number: usize) -> Option<Box<dyn Ask>> {
    let bounded = || Numbers::with_capacity(number, number);
    (kind == Kind::Bounded).then(|| Box::new(bounded()) as Box<dyn Ask>)
}

impl Look for Numbers {
    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        self.read_sync(&key, |_, &value| value)
    }

    #[inline]
    fn put(&self, key: u64, value: u64) {
        self.entry_sync(key).put_entry(value);
    }
}

impl Lend for Numbers {
    #[inline]
    fn lend(&self, key: u64, read: impl FnOnce(&u64) -> u64) -> Option<u64> {
        self.read_sync(&key, |_, value| read(value))
    }
}

impl Texts for ByName {
    #[inline]
    fn get(&self, key: &str) -> Option<u64> {
        self.read_sync(key, |_, &value| value)
    }

    fn put(&self, key: String, value: u64) {
        self.entry_sync(key).put_entry(value);
    }
}

impl ReadThrough for Numbers {
    #[inline]
    fn read_with(&self, key: u64, make: impl FnOnce() -> u64) -> u64 {
        match self.entry_sync(key) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => *entry.put_entry(make()).1.get(),
        }
    }
}

impl Forget for Numbers {
    #[inline]
    fn forget(&self, key: u64) {
        self.remove_sync(&key);
    }
}
