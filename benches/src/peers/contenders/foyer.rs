//! The in-memory cache of `foyer`: as `CacheBuilder::new` makes it, an LRU of eight shards. Only its async
//! `get_or_fetch` makes a value once, so reading through on a thread is a look-up and an insert when that misses.

use std::io;

use foyer_memory::{Cache, CacheBuilder};

use super::{Contender, Kind};
use crate::peers::{
    family::{Ask, Forget, Look, ReadThrough, Texts},
    lap::Entrant,
    loops::{ByText, Fills, Hits, Hot, Inserts, New, Refill, Skewed, Through},
    stage::{SPARE, Stage},
    tasks::Fetch,
    work::Work,
};

/// This contender's row in the table.
pub const CONTENDER: Contender = Contender {
    name: "foyer",
    single_flight: false,
    enter,
    cache,
    tasks: Some(|| Box::new(bounded(1000))),
};

/// A cache from number to number.
type Numbers = Cache<u64, u64>;

/// A cache from text to number.
type ByName = Cache<String, u64>;

fn enter(work: Work, stage: &Stage) -> Option<Box<dyn Entrant>> {
    let room = stage.keys * SPARE;
    Some(match work {
        Work::Hit => Hits::boxed(bounded(room), stage),
        Work::HotKey => Hot::boxed(bounded(room), stage),
        Work::Strings => ByText::<ByName>::boxed(CacheBuilder::new(room).build(), stage),
        Work::Through => Through::boxed(bounded(room), stage),
        Work::Zipf => Skewed::boxed(bounded(stage.keys), stage),
        Work::NewKeys => New::boxed(bounded(stage.keys), stage),
        Work::Inserts => Inserts::boxed(bounded(room), stage),
        Work::Refill => Refill::boxed(bounded(room), stage),
        Work::FillSized => Fills::boxed(|keys| bounded(keys * SPARE)),
        Work::Fill | Work::Ttl | Work::Pin | Work::With => return None,
    })
}

fn bounded(capacity: usize) -> Numbers {
    CacheBuilder::new(capacity).build()
}

fn cache(kind: Kind, number: usize) -> Option<Box<dyn Ask>> {
    (kind == Kind::Bounded).then(|| Box::new(bounded(number)) as Box<dyn Ask>)
}

impl Look for Numbers {
    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        Cache::get(self, &key).map(|entry| *entry.value())
    }

    #[inline]
    fn put(&self, key: u64, value: u64) {
        self.insert(key, value);
    }
}

impl Texts for ByName {
    #[inline]
    fn get(&self, key: &str) -> Option<u64> {
        Cache::get(self, key).map(|entry| *entry.value())
    }

    fn put(&self, key: String, value: u64) {
        self.insert(key, value);
    }
}

impl ReadThrough for Numbers {
    #[inline]
    fn read_with(&self, key: u64, make: impl FnOnce() -> u64) -> u64 {
        Look::get(self, key).unwrap_or_else(|| {
            let value = make();
            self.insert(key, value);
            value
        })
    }
}

impl Forget for Numbers {
    #[inline]
    fn forget(&self, key: u64) {
        self.remove(&key);
    }
}

impl Fetch for Numbers {
    async fn fetch(self, key: u64, make: impl Future<Output = u64> + Send + 'static) -> u64 {
        let entry = self.get_or_fetch(&key, || async { Ok::<_, io::Error>(make.await) });
        *entry.await.expect("a fetch that does not fail").value()
    }
}
