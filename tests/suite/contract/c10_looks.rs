//! Clause 10: `contains` and `peek` never fill and never block.

use crate::support::common::*;
use atomic_cache::{AtomicCache, Cache};

#[test]
fn c10_looking_never_fills_nor_blocks_and_sees_nothing_while_filling() {
    watched(|| {
        let cache = Cache::builder().record_stats(true).build().unwrap();
        let look = |there: Option<u64>| {
            assert_eq!(cache.contains(&1), there.is_some());
            assert_eq!(cache.peek(&1), there);
            let view = cache.pin();
            assert_eq!(view.contains(&1), there.is_some());
            assert_eq!(view.peek(&1).copied(), there);
        };
        look(None);
        let held = Held::new();
        let leader = start_fill(&cache, 1, 10, &held);
        look(None);
        let waiters = join_flight(&cache, 1, 2, 20);
        look(None);
        let before = cache.stats();
        look(None);
        assert_eq!(cache.stats(), before, "a look is not counted");
        held.end.open();
        leader.join().unwrap();
        for waiter in waiters {
            waiter.join().unwrap();
        }
        let before = cache.stats();
        look(Some(10));
        assert_eq!(cache.stats(), before, "a look is not counted");
        // While a newer value is computed, the old one is there.
        let held = Held::new();
        let leader = start_compute(&cache, 1, 11, &held);
        look(Some(10));
        held.end.open();
        leader.join().unwrap();
        look(Some(11));
        assert_eq!(cache.stats().fills, 2);
    });
}

#[test]
fn c10_looking_at_an_atomic_cache_never_fills() {
    let cache = AtomicCache::new(|_: &u64| -> u64 { panic!("a look has filled") }, None);
    assert!(!cache.contains(&1));
    assert_eq!(cache.peek(&1), None);
    assert_eq!(cache.pin().get(&1), None);
    assert_eq!(cache.pin().peek(&1), None);
    assert!(!cache.invalidate(&1) && !cache.invalidate_nowait(&1));
    cache.invalidate_if(|_, _| true);
    cache.invalidate_all();
    assert_eq!((cache.iter().count(), cache.len()), (0, 0));
    assert!(cache.is_empty());
    assert_eq!(cache.stats().fills, 0);
}

#[test]
fn c10_hits_and_misses_are_counted_by_the_verbs_that_use_an_entry() {
    let cache = Cache::builder().record_stats(true).build().unwrap();
    let counts = |cache: &Cache<u64, u64>| {
        let stats = cache.stats();
        (stats.hits.unwrap(), stats.misses.unwrap())
    };
    assert_eq!(cache.get(&1), None);
    assert_eq!(counts(&cache), (0, 1));
    cache.get_with(&1, || 10);
    assert_eq!(counts(&cache), (0, 2));
    cache.get_with(&1, || 10);
    cache.get(&1);
    cache.with(&1, |_| ());
    cache.pin().get(&1);
    cache.pin().get_or_fill_with(&1, || 10);
    cache.entry(1).or_insert(10);
    assert_eq!(counts(&cache), (6, 2));
    assert_eq!(plain().stats().hits, None);
}
