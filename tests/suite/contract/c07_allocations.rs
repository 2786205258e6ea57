//! Which calls allocate. Clause 7 of the contract: a hit allocates nothing. Section 3 of the proof plan: zero
//! allocations a hit, by a counting allocator. The costs that the documentation of `Cache` names: a fill without
//! waiters allocates once.
//!
//! Counted on this thread alone, so that tests that run beside do not disturb.

use crate::support::common::*;
use crate::support::task_tools::*;
use atomic_cache::{AtomicCache, Cache, Equivalent, ManualClock, Op, ToKey};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// The cache has room: no resize disturbs. It has some entries, so that the first allocations of a thread and a cache
/// are over.
fn warm() -> Cache<u64, u64> {
    let cache = Cache::builder().initial_capacity(4096).build().unwrap();
    (0..200).for_each(|key| cache.insert(key, key));
    (0..200).for_each(|key| assert_eq!(cache.get_with(&key, || 0), key));
    cache
}

/// How many allocations reclamation may need for each removal, in the place of one: with crossbeam-epoch each pin may
/// move the epoch on and allocate, and a slow machine pins more often between two batches.
const RECLAIMS: u64 = if cfg!(atomic_cache_crossbeam) { 4 } else { 1 };

/// Runs a test that pins and must allocate nothing for it. With crossbeam-epoch a pin now and then drops garbage of the
/// whole process, also of other tests: there the test is alone in a process.
#[track_caller]
fn pins_alone(name: &str, test: impl FnOnce()) {
    if cfg!(atomic_cache_crossbeam) {
        in_child(name, Duration::from_secs(120), test);
    } else {
        test();
    }
}

#[test]
fn c07_a_hit_allocates_nothing_whatever_the_verb() {
    let name = test_name!();
    pins_alone(name, a_hit_allocates_nothing_whatever_the_verb);
}

fn a_hit_allocates_nothing_whatever_the_verb() {
    let cache = warm();
    for verb in Verb::ALL {
        // An entry or a compute is given its key: it makes its slot first, or a new one.
        if verb.computes() {
            continue;
        }
        let allocated = allocations(|| {
            for key in 0..200 {
                assert_eq!(verb.ask(&cache, key, || unreachable!("a hit")), Ok(key));
            }
        });
        assert_eq!(allocated, 0, "{verb:?}");
    }
    let allocated = allocations(|| {
        for _ in 0..10 {
            for key in 0..200 {
                assert_eq!(cache.get(&key), Some(key));
                assert_eq!(cache.peek(&key), Some(key));
                assert!(cache.contains(&key));
                assert_eq!(cache.with(&key, |value| value + 1), Some(key + 1));
                let view = cache.pin();
                assert_eq!((view.get(&key), view[&key]), (Some(&key), key));
            }
        }
    });
    assert_eq!(allocated, 0);
}

#[test]
fn c07_a_hit_of_a_task_allocates_nothing() {
    pins_alone(test_name!(), a_hit_of_a_task_allocates_nothing);
}

fn a_hit_of_a_task_allocates_nothing() {
    let cache = warm();
    let stored = AtomicCache::new_async(|key: u64| async move { key }, None);
    (0..200).for_each(|key| assert_eq!(stored.get(&key), key));
    let allocated = allocations(|| {
        for key in 0..200 {
            let never = std::future::pending::<u64>;
            let never_ends = std::future::pending::<Result<u64, Refused>>;
            let none = std::future::pending::<Option<u64>>;
            assert_eq!(
                poll(pin!(cache.get_with_async(&key, never))),
                Poll::Ready(key)
            );
            assert!(poll(pin!(cache.try_get_with_async(&key, never_ends))).is_ready());
            assert!(poll(pin!(cache.optionally_get_with_async(&key, none))).is_ready());
            assert!(poll(pin!(cache.entry(key).or_insert_with_async(never))).is_ready());
            assert!(poll(pin!(cache.entry(key).or_try_insert_with_async(never_ends))).is_ready());
            assert_eq!(poll(pin!(stored.get_async(&key))), Poll::Ready(key));
            assert!(poll(pin!(stored.try_get_async(&key))).is_ready());
        }
    });
    assert_eq!(allocated, 0);
}

/// Slots come in chunks, each twice as large as the one before: of so many fills a few allocate one, and
/// the others nothing.
fn assert_allocates_chunks_alone(mut fill: impl FnMut(u64)) {
    let mut in_all = 0;
    for key in 1000..1500 {
        let allocated = allocations(|| fill(key));
        assert!(allocated <= 2, "{allocated} for key {key}");
        in_all += allocated;
    }
    assert!(in_all <= 2 * 8, "{in_all} for 500 fills");
}

#[test]
fn a_fill_of_a_task_without_waiters_allocates_chunks_alone() {
    let cache = warm();
    assert_allocates_chunks_alone(|key| {
        let future = pin!(cache.get_with_async(&key, || async move { key }));
        assert_eq!(poll(future), Poll::Ready(key));
    });
}

#[test]
fn c07_a_miss_that_does_not_fill_allocates_nothing() {
    pins_alone(test_name!(), a_miss_that_does_not_fill_allocates_nothing);
}

fn a_miss_that_does_not_fill_allocates_nothing() {
    let cache = warm();
    let allocated = allocations(|| {
        for key in 1000..3000 {
            assert_eq!(cache.get(&key), None);
            assert_eq!(cache.peek(&key), None);
            assert!(!cache.contains(&key));
            assert!(!cache.invalidate(&key));
            assert_eq!(cache.remove(&key), None);
        }
    });
    assert_eq!(allocated, 0);
}

#[test]
fn c07_a_hit_of_an_atomic_cache_allocates_nothing() {
    pins_alone(test_name!(), a_hit_of_an_atomic_cache_allocates_nothing);
}

fn a_hit_of_an_atomic_cache_allocates_nothing() {
    let cache = AtomicCache::new(|key: &u64| *key, None);
    (0..200).for_each(|key| assert_eq!(cache.get(&key), key));
    for verb in AtomicVerb::ALL {
        if verb.refreshes() {
            continue;
        }
        let allocated = allocations(|| {
            (0..200).for_each(|key| assert_eq!(verb.ask(&cache, key), key));
        });
        assert_eq!(allocated, 0, "{verb:?}");
    }
}

#[test]
fn c07_a_hit_with_a_lifetime_and_with_statistics_allocates_nothing() {
    pins_alone(
        test_name!(),
        a_hit_with_a_lifetime_and_with_statistics_allocates_nothing,
    );
}

fn a_hit_with_a_lifetime_and_with_statistics_allocates_nothing() {
    let clocks: [atomic_cache::Clock; 2] =
        [atomic_cache::Clock::system(), ManualClock::new().into()];
    for clock in clocks {
        let cache: Cache<u64, u64> = Cache::builder()
            .time_to_live(Duration::from_secs(3600))
            .record_stats(true)
            .clock(clock)
            .build()
            .unwrap();
        (0..100).for_each(|key| cache.insert(key, key));
        let allocated = allocations(|| {
            (0..100).for_each(|key| assert_eq!(cache.get(&key), Some(key)));
            (0..100).for_each(|key| assert_eq!(cache.get_with(&key, || 0), key));
        });
        assert_eq!(allocated, 0);
        assert_eq!(cache.stats().hits, Some(200));
    }
}

/// Looking up by a borrowed or composed key makes no owned key on a hit.
#[test]
fn c07_a_hit_by_a_borrowed_or_composed_key_allocates_nothing() {
    pins_alone(
        test_name!(),
        a_hit_by_a_borrowed_or_composed_key_allocates_nothing,
    );
}

fn a_hit_by_a_borrowed_or_composed_key_allocates_nothing() {
    #[derive(Hash)]
    struct Site<'a>(&'a str, &'a str);

    impl Equivalent<(String, String)> for Site<'_> {
        fn equivalent(&self, key: &(String, String)) -> bool {
            self.0 == key.0 && self.1 == key.1
        }
    }

    impl ToKey<(String, String)> for Site<'_> {
        fn to_key(&self) -> (String, String) {
            (self.0.to_owned(), self.1.to_owned())
        }
    }

    let lengths = AtomicCache::new(|text: &String| text.len(), None);
    let sites = AtomicCache::new(
        |(host, page): &(String, String)| host.len() + page.len(),
        None,
    );
    assert_eq!(
        (lengths.get("spam"), sites.get(&Site("spam", "ham"))),
        (4, 7)
    );
    let allocated = allocations(|| {
        for _ in 0..200 {
            assert_eq!(lengths.get("spam"), 4);
            assert_eq!(lengths.peek("spam"), Some(4));
            assert_eq!(sites.get(&Site("spam", "ham")), 7);
            assert!(sites.contains(&Site("spam", "ham")));
        }
    });
    assert_eq!(allocated, 0);
}

#[test]
fn a_fill_without_waiters_allocates_chunks_alone() {
    for verb in Verb::ALL {
        let cache = warm();
        assert_allocates_chunks_alone(|key| {
            assert_eq!(verb.ask(&cache, key, || Ok(key)), Ok(key));
        });
    }
    let cache = warm();
    assert_allocates_chunks_alone(|key| cache.insert(key, key));
}

/// Retired memory is reused: a bounded cache that is full asks for no more memory, however many fills come.
#[test]
fn a_full_cache_reuses_what_it_has() {
    // Alone in a process: entries that another test's guard holds up are in batches that are not used again yet.
    let name = test_name!();
    in_child(name, std::time::Duration::from_secs(120), || {
        let cache: Cache<u64, u64> = Cache::builder().max_capacity(100).build().unwrap();
        let fill = |keys: std::ops::Range<u64>| {
            keys.for_each(|key| assert_eq!(cache.get_with(&key, || key), key));
        };
        fill(0..10_000);
        let fills = 100_000;
        let allocated = allocations(|| fill(10_000..10_000 + fills));
        // The rest is the reclamation's: a few for every batch of 32.
        let most = if RECLAIMS == 1 {
            fills / 10
        } else {
            RECLAIMS * fills
        };
        assert!(allocated <= most, "{allocated} for {fills} fills");
    });
}

/// One for the owned key, and now and then one for a chunk of slots, and its head.
#[test]
fn a_fill_by_a_borrowed_key_allocates_the_key() {
    let cache: Cache<String, u64> = Cache::builder().initial_capacity(4096).build().unwrap();
    cache.get_with("spam", || 4);
    for text in ["ham", "eggs", "bacon"] {
        let allocated = allocations(|| assert_eq!(cache.get_with(text, || 1), 1));
        assert!([1, 3].contains(&allocated), "{allocated} for {text}");
    }
}

/// Amortised: with resizes, and with the allocations of removals, it is at most two each.
#[test]
fn fills_and_removals_allocate_at_most_two_each_with_growth() {
    let cache: Cache<u64, u64> = Cache::unbounded();
    cache.insert(0, 0);
    let fills = 20_000;
    let allocated = allocations(|| {
        for key in 0..fills {
            assert_eq!(cache.get_with(&key, || key), key);
        }
    });
    assert!(allocated <= fills + fills / 50, "{allocated} for {fills}");
    let allocated = allocations(|| {
        for key in 0..fills {
            assert!(cache.invalidate(&key));
            cache.insert(key, key);
        }
    });
    assert!(
        allocated <= (1 + RECLAIMS) * fills,
        "{allocated} for {fills}"
    );
}

/// A fill that fails, or panics, or a compute that changes nothing: the slot, and nothing else.
#[test]
fn a_fill_without_a_value_allocates_its_slot() {
    // Alone in a process, as `a_full_cache_reuses_what_it_has`.
    let name = test_name!();
    in_child(name, std::time::Duration::from_secs(120), || {
        let cache = warm();
        let rounds = 500;
        let allocated = allocations(|| {
            for _ in 0..rounds {
                assert!(cache.try_get_with(&1000, || Err::<u64, _>(())).is_err());
                assert_eq!(cache.optionally_get_with(&1000, || None), None);
                cache.entry(1).and_compute_with(|_| Op::Nop);
            }
        });
        // Three slots a round, and a little for their reclamation.
        assert!(
            allocated <= (3 + RECLAIMS) * rounds,
            "{allocated} in {rounds} rounds"
        );
    });
}
