//! `dashmap` with an `OnceCell` of `once_cell` for each value: the usual way to make a value once by hand. It has
//! no bound.

use std::sync::Arc;

use dashmap::DashMap;
use once_cell::sync::OnceCell;

use super::{Contender, DASH, Kind};
use crate::peers::{
    family::{Ask, Forget, Lend, Look, ReadThrough, Texts},
    lap::Entrant,
    loops::{ByText, Fills, Hits, Hot, Inserts, Lent, Refill, Through},
    stage::Stage,
    work::Work,
};

/// This contender's row in the table.
pub const CONTENDER: Contender = Contender {
    name: DASH,
    single_flight: true,
    enter,
    cache,
    tasks: None,
};

/// A map from number to number.
type Numbers = DashMap<u64, Arc<OnceCell<u64>>>;

/// A map from text to number.
type ByName = DashMap<String, Arc<OnceCell<u64>>>;

fn enter(work: Work, stage: &Stage) -> Option<Box<dyn Entrant>> {
    let sized = || Numbers::with_capacity(stage.keys);
    Some(match work {
        Work::Hit => Hits::boxed(sized(), stage),
        Work::HotKey => Hot::boxed(sized(), stage),
        Work::Strings => ByText::boxed(ByName::with_capacity(stage.keys), stage),
        Work::With => Lent::boxed(sized(), stage),
        Work::Through => Through::boxed(sized(), stage),
        Work::Inserts => Inserts::boxed(sized(), stage),
        Work::Refill => Refill::boxed(sized(), stage),
        Work::Fill => Fills::boxed(|_| Numbers::new()),
        Work::FillSized => Fills::boxed(Numbers::with_capacity),
        Work::Ttl | Work::Pin | Work::Zipf | Work::NewKeys => return None,
    })
}

fn made(value: u64) -> Arc<OnceCell<u64>> {
    Arc::new(OnceCell::with_value(value))
}

fn cache(kind: Kind, _number: usize) -> Option<Box<dyn Ask>> {
    (kind == Kind::Growing).then(|| Box::new(Numbers::new()) as Box<dyn Ask>)
}

impl Look for Numbers {
    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        DashMap::get(self, &key).and_then(|cell| cell.get().copied())
    }

    #[inline]
    fn put(&self, key: u64, value: u64) {
        self.insert(key, made(value));
    }
}

impl Lend for Numbers {
    #[inline]
    fn lend(&self, key: u64, read: impl FnOnce(&u64) -> u64) -> Option<u64> {
        DashMap::get(self, &key).and_then(|cell| cell.get().map(read))
    }
}

impl Texts for ByName {
    #[inline]
    fn get(&self, key: &str) -> Option<u64> {
        DashMap::get(self, key).and_then(|cell| cell.get().copied())
    }

    fn put(&self, key: String, value: u64) {
        self.insert(key, made(value));
    }
}

impl ReadThrough for Numbers {
    /// The lock of the shard is not held while the value is made.
    #[inline]
    fn read_with(&self, key: u64, make: impl FnOnce() -> u64) -> u64 {
        let found = Look::get(self, key);
        found.unwrap_or_else(|| {
            let cell = Arc::clone(&self.entry(key).or_default());
            *cell.get_or_init(make)
        })
    }
}

impl Forget for Numbers {
    #[inline]
    fn forget(&self, key: u64) {
        self.remove(&key);
    }
}
