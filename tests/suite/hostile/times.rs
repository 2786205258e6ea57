//! H11, H12, H13: times.

use crate::support::common::*;
use atomic_cache::{AtomicCache, Cache, CompResult, GuardResult, Op};
use std::time::Duration;

#[test]
fn h11_with_ttl_zero_nothing_is_ever_a_hit() {
    watched(|| {
        let (clock, cache) = timed(Duration::ZERO);
        for fill in 0..50 {
            assert_eq!(cache.get_with(&1, || fill), fill);
            assert_eq!((cache.get(&1), cache.peek(&1)), (None, None));
            cache.insert(1, 99);
            assert_eq!((cache.contains(&1), cache.len()), (false, 0));
            assert!(!cache.invalidate(&1));
            let computed = cache.entry(1).and_compute_with(|there| {
                assert_eq!(there, None);
                Op::Put(fill)
            });
            assert_eq!(computed, CompResult::Inserted(fill));
            let mut view = cache.pin();
            assert_eq!(view.get_or_fill_with(&1, || fill + 1), &(fill + 1));
            assert_eq!(view.get(&1), None);
            if fill == 25 {
                clock.advance(SECOND);
            }
        }
        cache.quiesce();
        assert_eq!(
            (cache.len(), cache.iter().count(), cache.retired()),
            (0, 0, 0)
        );
    });
}

#[test]
fn h12_a_ttl_of_duration_max_is_taken_and_never_ends() {
    let (clock, cache) = timed(Duration::MAX);
    cache.insert(1, 10);
    assert_eq!(cache.get_with(&2, || 20), 20);
    clock.advance(Duration::MAX);
    assert_eq!((cache.get(&1), cache.get(&2)), (Some(10), Some(20)));
    let system = AtomicCache::new(|key: &u64| *key, Duration::MAX);
    assert_eq!((system.get(&1), system.peek(&1)), (1, Some(1)));
    // One less than the longest there is, too.
    let (clock, cache) = timed(Duration::from_nanos(i64::MAX as u64 - 1));
    clock.advance(SECOND);
    cache.insert(1, 10);
    clock.advance(SECOND);
    assert_eq!(cache.get(&1), Some(10));
}

#[test]
fn c08_a_clock_advanced_past_its_end_stops_there_and_serves_nothing_expired() {
    watched(|| {
        let (clock, cache) = timed(SECOND * 60);
        clock.advance(SECOND);
        cache.insert(1, 10);
        // Three steps of the longest span pass 2^64 nanoseconds.
        let mut before = clock.now();
        for _ in 0..5 {
            clock.advance(Duration::MAX);
            assert!(clock.now() >= before, "went back to {:?}", clock.now());
            before = clock.now();
            assert_eq!((cache.get(&1), cache.peek(&1)), (None, None));
            assert!(!cache.contains(&1));
        }
        clock.advance(Duration::from_nanos(1));
        assert_eq!(clock.now(), before);
        clock.set(Duration::MAX);
        assert_eq!(clock.now(), before);
        // Fills and computes go on there.
        assert_eq!(cache.get_with(&1, || 11), 11);
        cache.insert(2, 20);
        assert_eq!(cache.get(&2), Some(20));
    });
}

#[test]
fn c08_threads_that_advance_one_clock_lose_no_step() {
    let (clock, _) = timed(SECOND);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1000).for_each(|_| clock.advance(Duration::from_nanos(1))));
        }
    });
    assert_eq!(clock.now(), Duration::from_micros(4));
}

#[test]
fn c08_every_setting_and_wait_takes_the_longest_duration() {
    watched(|| {
        let clock = atomic_cache::ManualClock::new();
        let build = || Cache::<u64, u64>::builder().clock(clock.clone());
        let cache = build()
            .time_to_live(Duration::MAX)
            .purge_interval(Duration::MAX)
            .fill_timeout(Duration::MAX)
            .on_slow_fill(Duration::MAX, |_, _| panic!("none is that slow"))
            .build()
            .unwrap();
        // The clock passes its end during a fill: the fill has an age, and nothing wraps.
        let value = cache.get_with(&1, || {
            clock.advance(Duration::MAX);
            let age = cache.in_flight()[0].age;
            assert!(age >= Some(Duration::from_secs(9_000_000_000)), "{age:?}");
            clock.advance(Duration::MAX);
            assert!(cache.in_flight()[0].age >= age);
            cache.run_pending_tasks();
            10
        });
        assert_eq!((value, cache.get(&1)), (10, Some(10)));
        assert!(matches!(
            cache.get_value_or_guard(&1, Some(Duration::MAX)),
            GuardResult::Value(10)
        ));
        assert!(matches!(
            cache.get_value_or_guard(&2, Some(Duration::MAX)),
            GuardResult::Guard(_)
        ));
        assert_eq!(cache.close_within(Duration::MAX), 0);

        // A fill that began late has no negative age once the clock is set back.
        let cache = build().fill_timeout(SECOND).build().unwrap();
        assert_eq!(
            cache.get_with(&1, || {
                clock.set(Duration::ZERO);
                assert_eq!(cache.in_flight()[0].age, Some(Duration::ZERO));
                10
            }),
            10
        );
    });
}

#[test]
fn h13_a_clock_that_stalls_steps_back_or_jumps_expires_nothing_early_and_nothing_late() {
    watched(|| {
        let (clock, cache) = timed(SECOND);
        clock.set(SECOND * 100);
        cache.insert(1, 10);
        // It stalls: nothing expires.
        for key in 2..2000 {
            cache.insert(key, key);
        }
        assert_eq!((cache.get(&1), cache.len()), (Some(10), 1999));
        // It steps back: nothing expires.
        clock.set(SECOND * 50);
        assert_eq!(cache.get(&1), Some(10));
        // A value put in meanwhile lives by the clock as it is.
        cache.insert(1, 11);
        clock.set(Duration::from_nanos(50_999_999_999));
        assert_eq!(cache.get(&1), Some(11));
        clock.set(SECOND * 51);
        assert_eq!(cache.get(&1), None);
        // It recovers: a value put in before lives for its second and not longer.
        clock.set(Duration::from_nanos(100_999_999_999));
        assert_eq!(cache.get(&2), Some(2));
        clock.set(SECOND * 101);
        assert_eq!((cache.get(&2), cache.iter().count()), (None, 0));
        // It jumps to its very end, and time still is counted.
        clock.set(Duration::from_nanos(u64::MAX));
        cache.insert(1, 12);
        assert_eq!(cache.get_with(&3, || 30), 30);
        assert_eq!(cache.get(&2), None);
    });
}
