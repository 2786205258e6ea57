//! This cache. In the works that hit it is bounded, as most caches of users are: a bounded cache counts uses. It has
//! one capacity, not one for each part, so it is made for exactly the entries it has to keep.

use std::time::Duration;

use atomic_cache::{Cache, Pinned as View};

use super::{Contender, Kind, OURS};
use crate::peers::{
    family::{self, Ask, Forget, Lend, Look, ReadThrough, Texts},
    lap::Entrant,
    loops::{ByText, Fills, Hits, Hot, Inserts, Lent, New, Pinned, Refill, Skewed, Through},
    stage::Stage,
    tasks::Fetch,
    work::Work,
};

/// This contender's row in the table.
pub const CONTENDER: Contender = Contender {
    name: OURS,
    single_flight: true,
    enter,
    cache,
    tasks: Some(|| Box::new(Numbers::unbounded())),
};

const HOUR: Duration = Duration::from_hours(1);

/// A cache from number to number.
type Numbers = Cache<u64, u64>;

#[expect(clippy::unnecessary_wraps, reason = "others cannot do every work")]
fn enter(work: Work, stage: &Stage) -> Option<Box<dyn Entrant>> {
    let room = stage.keys;
    Some(match work {
        Work::Hit => Hits::boxed(bounded(room), stage),
        Work::HotKey => Hot::boxed(bounded(room), stage),
        Work::Strings => ByText::boxed(texts(room), stage),
        Work::Ttl => Hits::boxed(expiring(room), stage),
        Work::Pin => Pinned::boxed(bounded(room), stage),
        Work::With => Lent::boxed(bounded(room), stage),
        Work::Through => Through::boxed(bounded(room), stage),
        Work::Zipf => Skewed::boxed(bounded(stage.keys), stage),
        Work::NewKeys => New::boxed(bounded(stage.keys), stage),
        Work::Inserts => Inserts::boxed(bounded(room), stage),
        Work::Refill => Refill::boxed(bounded(room), stage),
        Work::Fill => Fills::boxed(|_| Numbers::unbounded()),
        Work::FillSized => Fills::boxed(sized),
    })
}

/// Room for `capacity` entries, and no more.
fn bounded(capacity: usize) -> Numbers {
    let builder = Cache::builder().max_capacity(capacity as u64);
    builder.build().expect("the capacity is allowed")
}

/// As [`bounded`], each entry for an hour.
fn expiring(capacity: usize) -> Numbers {
    let builder = Cache::builder()
        .max_capacity(capacity as u64)
        .time_to_live(HOUR);
    builder.build().expect("the capacity is allowed")
}

/// Without a bound, and with room for `entries` from the start.
fn sized(entries: usize) -> Numbers {
    let builder = Cache::builder().initial_capacity(entries);
    builder.build().expect("the capacity is allowed")
}

/// As [`bounded`], by text.
fn texts(capacity: usize) -> Cache<String, u64> {
    let builder = Cache::builder().max_capacity(capacity as u64);
    builder.build().expect("the capacity is allowed")
}

#[expect(clippy::unnecessary_wraps, reason = "others do not have every kind")]
fn cache(kind: Kind, number: usize) -> Option<Box<dyn Ask>> {
    let growing = Cache::builder().time_to_live(HOUR);
    Some(Box::new(match kind {
        Kind::Growing => Numbers::unbounded(),
        Kind::Bounded => bounded(number),
        Kind::Expiring => growing.build().expect("the lifetime is allowed"),
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

impl Lend for Numbers {
    #[inline]
    fn lend(&self, key: u64, read: impl FnOnce(&u64) -> u64) -> Option<u64> {
        self.with(&key, read)
    }
}

impl family::View for Numbers {
    type Guard<'a> = View<'a, u64, u64>;

    #[inline]
    fn view(&self) -> Self::Guard<'_> {
        self.pin()
    }

    #[inline]
    fn see<'g>(guard: &'g Self::Guard<'_>, key: u64) -> Option<&'g u64> {
        guard.get(&key)
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
        self.get_with(&key, make)
    }
}

impl Forget for Numbers {
    #[inline]
    fn forget(&self, key: u64) {
        self.invalidate(&key);
    }
}

impl Fetch for Numbers {
    async fn fetch(self, key: u64, make: impl Future<Output = u64> + Send + 'static) -> u64 {
        self.get_with_async(&key, || make).await
    }
}
