//! `papaya`: a map without a bound. `get_or_insert_with` may run the closure on two threads at once, so it is no
//! single flight.

use papaya::{HashMap, HashMapRef, LocalGuard};
use std::collections::hash_map::RandomState;

use super::{Contender, Kind};
use crate::peers::{
    family::{Ask, Forget, Lend, Look, ReadThrough, Texts, View},
    lap::Entrant,
    loops::{ByText, Fills, Hits, Hot, Inserts, Lent, Pinned, Refill, Through},
    stage::Stage,
    work::Work,
};

/// This contender's row in the table.
pub const CONTENDER: Contender = Contender {
    name: "papaya",
    single_flight: false,
    enter,
    cache,
    tasks: None,
};

/// A map from number to number.
type Numbers = HashMap<u64, u64>;

/// A map from text to number.
type ByName = HashMap<String, u64>;

fn enter(work: Work, stage: &Stage) -> Option<Box<dyn Entrant>> {
    let sized = || Numbers::with_capacity(stage.keys);
    Some(match work {
        Work::Hit => Hits::boxed(sized(), stage),
        Work::HotKey => Hot::boxed(sized(), stage),
        Work::Strings => ByText::boxed(ByName::with_capacity(stage.keys), stage),
        Work::Pin => Pinned::boxed(sized(), stage),
        Work::With => Lent::boxed(sized(), stage),
        Work::Through => Through::boxed(sized(), stage),
        Work::Inserts => Inserts::boxed(sized(), stage),
        Work::Refill => Refill::boxed(sized(), stage),
        Work::Fill => Fills::boxed(|_| Numbers::new()),
        Work::FillSized => Fills::boxed(Numbers::with_capacity),
        Work::Ttl | Work::Zipf | Work::NewKeys => return None,
    })
}

fn cache(kind: Kind, _number: usize) -> Option<Box<dyn Ask>> {
    (kind == Kind::Growing).then(|| Box::new(Numbers::new()) as Box<dyn Ask>)
}

impl Look for Numbers {
    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        self.pin().get(&key).copied()
    }

    #[inline]
    fn put(&self, key: u64, value: u64) {
        self.pin().insert(key, value);
    }
}

impl Lend for Numbers {
    #[inline]
    fn lend(&self, key: u64, read: impl FnOnce(&u64) -> u64) -> Option<u64> {
        self.pin().get(&key).map(read)
    }
}

impl View for Numbers {
    type Guard<'a> = HashMapRef<'a, u64, u64, RandomState, LocalGuard<'a>>;

    #[inline]
    fn view(&self) -> Self::Guard<'_> {
        self.pin()
    }

    #[inline]
    fn see<'g>(guard: &'g Self::Guard<'_>, key: u64) -> Option<&'g u64> {
        guard.get(&key)
    }
}

impl Texts for ByName {
    #[inline]
    fn get(&self, key: &str) -> Option<u64> {
        self.pin().get(key).copied()
    }

    fn put(&self, key: String, value: u64) {
        self.pin().insert(key, value);
    }
}

impl ReadThrough for Numbers {
    #[inline]
    fn read_with(&self, key: u64, make: impl FnOnce() -> u64) -> u64 {
        *self.pin().get_or_insert_with(key, make)
    }
}

impl Forget for Numbers {
    #[inline]
    fn forget(&self, key: u64) {
        self.pin().remove(&key);
    }
}
