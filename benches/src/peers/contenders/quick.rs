//! `quick_cache`: as `Cache::new` makes it, sharded, with its own hasher. It has no entries without a bound: where
//! others grow it gets twice the room it needs, and has that from the start.

use std::{convert::Infallible, sync::Arc};

use quick_cache::sync::Cache;

use super::{Contender, Kind, QUICK};
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
    name: QUICK,
    single_flight: true,
    enter,
    cache,
    tasks: Some(|| Box::new(Arc::new(Numbers::new(1000)))),
};

/// A cache from number to number.
type Numbers = Cache<u64, u64>;

fn enter(work: Work, stage: &Stage) -> Option<Box<dyn Entrant>> {
    let room = stage.keys * SPARE;
    Some(match work {
        Work::Hit => Hits::boxed(Numbers::new(room), stage),
        Work::HotKey => Hot::boxed(Numbers::new(room), stage),
        Work::Strings => ByText::boxed(Cache::<String, u64>::new(room), stage),
        Work::Through => Through::boxed(Numbers::new(room), stage),
        Work::Zipf => Skewed::boxed(Numbers::new(stage.keys), stage),
        Work::NewKeys => New::boxed(Numbers::new(stage.keys), stage),
        Work::Inserts => Inserts::boxed(Numbers::new(room), stage),
        Work::Refill => Refill::boxed(Numbers::new(room), stage),
        Work::FillSized => Fills::boxed(|keys| Numbers::new(keys * SPARE)),
        Work::Fill | Work::Ttl | Work::Pin | Work::With => return None,
    })
}

fn cache(kind: Kind, number: usize) -> Option<Box<dyn Ask>> {
    (kind == Kind::Bounded).then(|| Box::new(Numbers::new(number)) as Box<dyn Ask>)
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

impl Texts for Cache<String, u64> {
    #[inline]
    fn get(&self, key: &str) -> Option<u64> {
        Cache::get(self, key)
    }

    fn put(&self, key: String, value: u64) {
        self.insert(key, value);
    }
}

impl ReadThrough for Numbers {
    #[inline]
    fn read_with(&self, key: u64, make: impl FnOnce() -> u64) -> u64 {
        let value = self.get_or_insert_with(&key, || Ok::<_, Infallible>(make()));
        value.unwrap_or_else(|never| match never {})
    }
}

impl Forget for Numbers {
    #[inline]
    fn forget(&self, key: u64) {
        self.remove(&key);
    }
}

impl Fetch for Arc<Numbers> {
    async fn fetch(self, key: u64, make: impl Future<Output = u64> + Send + 'static) -> u64 {
        let make = async { Ok::<_, Infallible>(make.await) };
        let value = self.get_or_insert_async(&key, make).await;
        value.unwrap_or_else(|never| match never {})
    }
}
