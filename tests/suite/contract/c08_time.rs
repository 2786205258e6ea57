//! Clause 8: time.

use crate::support::common::*;
use atomic_cache::{AtomicCache, Cache, ManualClock, Op};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

const NANOSECOND: Duration = Duration::from_nanos(1);

const ALMOST_A_SECOND: Duration = Duration::from_nanos(999_999_999);

#[test]
fn c08_an_entry_is_served_before_its_deadline_and_not_at_it() {
    watched(|| {
        let (clock, cache) = timed(SECOND);
        let is_there = |there: bool| {
            assert_eq!(cache.get(&1).is_some(), there);
            assert_eq!(cache.peek(&1).is_some(), there);
            assert_eq!(cache.contains(&1), there);
            assert_eq!(cache.with(&1, |_| ()).is_some(), there);
            assert_eq!(cache.pin().get(&1).is_some(), there);
            assert_eq!(cache.pin().contains(&1), there);
            assert_eq!(cache.iter().count() == 1, there);
            assert_eq!(cache.pin().iter().count() == 1, there);
        };
        for verb in Verb::ALL {
            for way in ["insert", "fill"] {
                match way {
                    "insert" => cache.insert(1, 10),
                    _ => assert_eq!(verb.ask(&cache, 1, || Ok(10)), Ok(10)),
                }
                is_there(true);
                clock.advance(ALMOST_A_SECOND);
                is_there(true);
                assert_eq!(verb.ask(&cache, 1, || Ok(11)), Ok(10), "{verb:?}, {way}");
                clock.advance(NANOSECOND);
                is_there(false);
                assert_eq!(verb.ask(&cache, 1, || Ok(11)), Ok(11), "{verb:?}, {way}");
                is_there(true);
                assert_eq!(cache.remove(&1), Some(11));
            }
        }
    });
}

#[test]
fn c08_ttl_counts_from_publish() {
    watched(|| {
        let (clock, cache) = timed(SECOND);
        cache.get_with(&1, || {
            clock.advance(SECOND * 10);
            10
        });
        clock.advance(ALMOST_A_SECOND);
        assert_eq!(cache.get(&1), Some(10));
        clock.advance(NANOSECOND);
        assert_eq!(cache.get(&1), None);

        let refreshed = {
            let clock = clock.clone();
            AtomicCache::<u64, u64>::builder()
                .time_to_live(SECOND)
                .clock(clock.clone())
                .build_with(move |&key| {
                    clock.advance(SECOND / 2);
                    key
                })
                .unwrap()
        };
        refreshed.get(&1);
        clock.advance(SECOND / 4);
        refreshed.refresh(&1);
        clock.advance(ALMOST_A_SECOND);
        assert_eq!(refreshed.peek(&1), Some(1));
        clock.advance(NANOSECOND);
        assert_eq!(refreshed.peek(&1), None);
    });
}

/// The value that a refresh is about to replace expires while it runs: from then on readers wait
/// for the new one.
#[test]
fn c08_the_old_value_is_not_served_beyond_its_deadline_while_a_refresh_runs() {
    watched(|| {
        let (clock, cache) = timed(SECOND);
        cache.insert(1, 5);
        let held = Held::new();
        let leader = start_compute(&cache, 1, 10, &held);
        assert_eq!(cache.get(&1), Some(5));
        clock.advance(SECOND);
        assert_eq!((cache.get(&1), cache.contains(&1)), (None, false));
        let waiters = join_flight(&cache, 1, 3, 20);
        held.end.open();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), 10);
        }
        leader.join().unwrap();
        assert_eq!((cache.get(&1), cache.len()), (Some(10), 1));
    });
}

#[test]
fn c08_an_expired_entry_is_filled_once_by_a_herd() {
    watched(|| {
        let (clock, cache) = timed(SECOND);
        let fills = AtomicU64::new(0);
        for round in 0..300 {
            let barrier = Barrier::new(THREADS);
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        barrier.wait();
                        let value = cache.get_with(&1, || fills.fetch_add(1, SeqCst));
                        assert_eq!(value, round);
                    });
                }
            });
            clock.advance(SECOND);
        }
        assert_eq!(fills.into_inner(), 300);
    });
}

#[test]
fn c08_expired_entries_are_reclaimed_by_inserts_and_fills_of_other_keys() {
    watched(|| {
        for fill in [false, true] {
            let (clock, cache) = timed(SECOND);
            (0..1000).for_each(|key| cache.insert(key, key));
            clock.advance(SECOND);
            for key in 1000..3000 {
                if fill {
                    cache.get_with(&key, || key);
                } else {
                    cache.insert(key, key);
                }
            }
            assert_eq!(cache.len(), 2000, "fills: {fill}");
            assert_eq!(cache.stats().expired, 1000);
        }
    });
}

/// Traffic on one key that is there already (or has expired) is ordinary traffic too.
#[test]
fn c08_expired_entries_are_reclaimed_by_traffic_on_one_hot_key() {
    watched(|| {
        type Hot = fn(&Cache<u64, u64>);
        let ways: [(&str, Hot); 3] = [
            ("insert", |cache| cache.insert(0, 0)),
            ("fill", |cache| {
                cache.get_with(&0, || 0);
            }),
            ("compute", |cache| {
                cache.entry(0).and_compute_with(|_| Op::Put(0));
            }),
        ];
        for (way, touch) in ways {
            let (clock, cache) = timed(SECOND);
            (0..1000).for_each(|key| cache.insert(key, key));
            for _ in 0..2000 {
                clock.advance(SECOND);
                touch(&cache);
            }
            assert_eq!(cache.len(), 1, "{way}");
        }
    });
}

#[test]
fn c08_maximal_and_absent_lifetimes_never_end() {
    watched(|| {
        for ttl in [
            Some(Duration::MAX),
            Some(Duration::from_nanos(u64::MAX)),
            None,
        ] {
            let clock = ManualClock::new();
            let builder = Cache::<u64, u64>::builder().clock(clock.clone());
            let cache = match ttl {
                Some(ttl) => builder.time_to_live(ttl),
                None => builder,
            }
            .build()
            .unwrap();
            clock.advance(SECOND);
            cache.insert(1, 10);
            cache.get_with(&2, || 20);
            clock.set(Duration::from_nanos(u64::MAX));
            assert_eq!((cache.get(&1), cache.get(&2)), (Some(10), Some(20)));
            cache.insert(3, 30);
            assert_eq!(cache.get(&3), Some(30));
        }
    });
}
