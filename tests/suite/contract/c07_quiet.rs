//! Clause 7 of the contract: a hit takes no lock, and once its entry's count is full it writes no
//! memory that other threads read.
//!
//! The test takes it literally. A cache is built with all of its memory - handle, table, entries,
//! counters - in pages of its own, which are then made read-only. A thread that stores into them,
//! or only tries to by a locked instruction, ends the process. So the test runs in a process of its
//! own.
//!
//! Not in these pages, and so not covered, is the memory of the epoch engine: this thread's own
//! record, into which a pin is written, and the engine's global epoch, which one pin in 128 tries
//! to advance.
#![cfg(unix)]

use crate::support::common::*;
use atomic_cache::{AtomicCache, Builder, Cache, ManualClock};
use std::time::Duration;

const KEYS: u64 = 500;

/// More than any count goes to.
const ENOUGH: usize = 64;

/// Each way to hit `key`; its value is the key as a text.
fn hit(cache: &Cache<u64, String>, key: u64) {
    let text = key.to_string();
    assert_eq!(cache.get(&key).as_deref(), Some(&*text));
    assert_eq!(cache.with(&key, String::len), Some(text.len()));
    assert_eq!(cache.get_with(&key, || unreachable!("a hit")), text);
    assert_eq!(cache.peek(&key).as_deref(), Some(&*text));
    assert!(cache.contains(&key));
    assert_eq!(cache.weight(&key), Some(1));
    let mut view = cache.pin();
    assert_eq!(
        (view.get(&key), view.peek(&key)),
        (Some(&text), Some(&text))
    );
    assert_eq!((&view[&key], view.contains(&key)), (&text, true));
    assert_eq!(view.get_or_fill_with(&key, || unreachable!("a hit")), &text);
    // A miss that does not fill is as quiet.
    assert_eq!(
        (cache.get(&(key + KEYS)), view.get(&(key + KEYS))),
        (None, None)
    );
}

/// The allocations of this thread and the program for their first cache are of no cache.
fn use_another_first() {
    let first: Cache<u64, String> = Cache::builder().max_capacity(9).build().unwrap();
    (0..9).for_each(|key| first.insert(key, key.to_string()));
    hit(&first, 1);
}

/// Builds a cache in pages of their own, uses each entry `warm` times, makes the pages read-only,
/// and hits all entries.
fn hits_of_read_only_memory(builder: Builder<u64, String>, warm: usize) {
    use_another_first();
    let cache = in_arena(|| {
        let cache = builder.build().unwrap();
        (0..KEYS).for_each(|key| cache.insert(key, key.to_string()));
        cache
    });
    for _ in 0..warm {
        (0..KEYS).for_each(|key| assert!(cache.get(&key).is_some()));
    }
    with_read_only_arena(|| {
        for _ in 0..3 {
            (0..KEYS).for_each(|key| hit(&cache, key));
        }
        assert_eq!((cache.len(), cache.weighted_size()), (KEYS as usize, KEYS));
    });
    // And writable again, so that nothing has been broken.
    assert!(cache.invalidate(&1));
}

fn bounded() -> Builder<u64, String> {
    Cache::builder().max_capacity(KEYS)
}

/// A process that stores into read-only memory ends by a signal.
#[track_caller]
fn assert_stores(name: &str, test: impl FnOnce()) {
    let said = panic_text(|| in_child(name, Duration::from_secs(60), test));
    let stored = said.contains("signal: ");
    assert!(stored, "it was to store, and did not: {said}");
}

#[test]
fn c07_a_warm_hit_in_a_bounded_cache_stores_nothing() {
    let name = test_name!();
    in_child(name, Duration::from_secs(60), || {
        hits_of_read_only_memory(bounded(), ENOUGH);
    });
}

#[test]
fn c07_a_hit_in_an_unbounded_cache_stores_nothing_ever() {
    let name = test_name!();
    in_child(name, Duration::from_secs(60), || {
        hits_of_read_only_memory(Cache::builder(), 0);
    });
}

#[test]
fn c07_nor_with_weights_a_lifetime_and_a_listener() {
    let name = test_name!();
    in_child(name, Duration::from_secs(60), || {
        let builder = bounded()
            .weigher(|_, _| 1)
            .time_to_live(Duration::from_secs(3600))
            .eviction_listener(|_, _, _| {});
        hits_of_read_only_memory(builder, ENOUGH);
    });
}

#[test]
fn c07_nor_with_a_clock_of_its_own() {
    let name = test_name!();
    in_child(name, Duration::from_secs(60), || {
        let clock = in_arena(ManualClock::new);
        let builder = bounded().time_to_live(Duration::from_secs(1)).clock(clock);
        hits_of_read_only_memory(builder, ENOUGH);
    });
}

#[test]
fn c07_nor_does_a_warm_hit_of_a_cache_with_its_own_fill() {
    let name = test_name!();
    in_child(name, Duration::from_secs(60), || {
        use_another_first();
        let cache = in_arena(|| {
            let cache = AtomicCache::<u64, u64>::builder()
                .max_capacity(KEYS)
                .build_with(|key| key + 1)
                .unwrap();
            (0..KEYS).for_each(|key| assert_eq!(cache.get(&key), key + 1));
            cache
        });
        for _ in 0..ENOUGH {
            (0..KEYS).for_each(|key| assert_eq!(cache.get(&key), key + 1));
        }
        with_read_only_arena(|| {
            for key in 0..KEYS {
                for verb in [AtomicVerb::Get, AtomicVerb::TryGet, AtomicVerb::With] {
                    assert_eq!(verb.ask(&cache, key), key + 1, "{verb:?}");
                }
                for verb in [AtomicVerb::Pinned, AtomicVerb::PinnedTry] {
                    assert_eq!(verb.ask(&cache, key), key + 1, "{verb:?}");
                }
                assert!(cache.contains(&key) && cache.peek(&key).is_some());
            }
        });
    });
}

/// Clause 10: looking is no use of an entry, however often it was used.
#[test]
fn c07_c10_looking_stores_nothing_ever() {
    let name = test_name!();
    in_child(name, Duration::from_secs(60), || {
        use_another_first();
        let cache = in_arena(|| {
            let cache = bounded().record_stats(true).build().unwrap();
            (0..KEYS).for_each(|key| cache.insert(key, key.to_string()));
            cache
        });
        with_read_only_arena(|| {
            for key in 0..KEYS {
                assert!(cache.peek(&key).is_some() && cache.contains(&key));
                assert!(cache.pin().peek(&key).is_some());
                assert_eq!(cache.weight(&key), Some(1));
            }
        });
    });
}

/// The test can fail: an entry that has been used less often than it counts is written to.
#[test]
fn control_a_hit_that_is_not_warm_stores() {
    assert_stores(test_name!(), || {
        hits_of_read_only_memory(bounded(), 0);
    });
}

/// So are the counters of a cache that counts hits.
#[test]
fn control_a_hit_that_is_counted_stores() {
    assert_stores(test_name!(), || {
        hits_of_read_only_memory(bounded().record_stats(true), ENOUGH);
    });
}

/// And so is anything that writes.
#[test]
fn control_a_removal_stores() {
    assert_stores(test_name!(), || {
        use_another_first();
        let cache = in_arena(|| {
            let cache: Cache<u64, u64> = Cache::unbounded();
            cache.insert(1, 1);
            cache
        });
        with_read_only_arena(|| assert!(cache.invalidate(&1)));
    });
}
