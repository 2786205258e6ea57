//! H28: memory stays flat.
//!
//! A tenth of the keys without optimization. All of them, optimized:
//! `ATOMIC_CACHE_H28=10000000 cargo test --release --test suite h28`

use crate::support::common::*;
use atomic_cache::Cache;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

/// Runs `step` for every number below `usual`; the process's memory must not grow by more than
/// `slack` bytes after the first tenth. (A megabyte is one or two resizes of the table, and a tenth
/// of a byte a key.)
fn memory_stays_flat(usual: u64, slack: usize, mut step: impl FnMut(u64)) {
    let keys = rounds("ATOMIC_CACHE_H28", usual);
    let mut warm = 0;
    for key in 0..keys {
        step(key);
        if key < keys / 10 {
            warm = warm.max(live_bytes());
        } else if key % 1024 == 0 {
            let now = live_bytes();
            assert!(
                now <= warm + slack,
                "{now} bytes at key {key}, {warm} before"
            );
        }
    }
}

#[test]
fn h28_memory_is_flat_over_distinct_keys_that_expire() {
    let name = test_name!();
    in_child(name, SECOND * 300, || {
        let clock = atomic_cache::ManualClock::new();
        let cache: Cache<u64, [u64; 4]> = Cache::builder()
            .time_to_live(Duration::from_micros(1))
            .clock(clock.clone())
            .build()
            .unwrap();
        memory_stays_flat(10_000_000, 1 << 20, |key| {
            if key % 2 == 0 {
                cache.insert(key, [key; 4]);
            } else {
                assert_eq!(cache.get_with(&key, || [key; 4]), [key; 4]);
            }
            clock.advance(Duration::from_nanos(1));
        });
        // A thousand live ones, and those not swept yet: a few times as many.
        assert!(cache.len() <= 5000, "{}", cache.len());
    });
}

#[test]
fn h28_memory_is_flat_over_distinct_keys_that_are_invalidated() {
    let name = test_name!();
    in_child(name, SECOND * 300, || {
        let cache: Cache<u64, [u64; 4]> = Cache::unbounded();
        memory_stays_flat(10_000_000, 1 << 20, |key| {
            cache.insert(key, [key; 4]);
            assert!(cache.invalidate(&key));
        });
        assert_eq!(cache.len(), 0);
    });
}

/// And with everything at once, on four threads.
#[test]
fn h28_memory_is_flat_under_concurrent_churn() {
    let name = test_name!();
    in_child(name, SECOND * 300, || {
        let cache: Cache<u64, [u64; 4]> = Cache::unbounded();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for thread in 1..4 {
                let (cache, stop) = (&cache, &stop);
                scope.spawn(move || {
                    let mut key = thread << 40;
                    while !stop.load(SeqCst) {
                        key += 1;
                        cache.get_with(&key, || [key; 4]);
                        cache.invalidate(&key);
                    }
                });
            }
            let run = catch_unwind(AssertUnwindSafe(|| {
                // The slack is for the garbage that threads preempted while pinned may hold up.
                memory_stays_flat(1_000_000, 16 << 20, |key| {
                    cache.insert(key, [key; 4]);
                    cache.invalidate(&key);
                });
            }));
            stop.store(true, SeqCst);
            if let Err(panic) = run {
                resume_unwind(panic);
            }
        });
        assert_eq!(cache.len(), 0);
    });
}
