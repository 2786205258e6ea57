//! Clause 9: an expired entry never pushes out a live one.

use crate::support::common::*;
use atomic_cache::{Builder, Cache, ManualClock, Op, RemovalCause};
use std::collections::HashMap;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

const TTL: Duration = Duration::from_secs(60);
const HALF: Duration = Duration::from_secs(30);

/// The removals that a listener was told of: the cause for each key.
type Told = Arc<Mutex<HashMap<u64, RemovalCause>>>;

/// A cache whose entries live for a minute of a clock that the test moves, and the removals its listener is told of.
fn listened(builder: Builder<u64, u64>) -> (ManualClock, Cache<u64, u64>, Told) {
    let clock = ManualClock::new();
    let told = Told::default();
    let log = Arc::clone(&told);
    let cache = builder
        .time_to_live(TTL)
        .clock(clock.clone())
        .eviction_listener(move |&key, _, cause| {
            log.lock().unwrap().insert(key, cause);
        })
        .build()
        .expect("good settings");
    (clock, cache, told)
}

fn counted(capacity: u64) -> Builder<u64, u64> {
    Cache::builder().max_capacity(capacity)
}

/// Every entry weighs its value.
fn weighed(capacity: u64) -> Builder<u64, u64> {
    counted(capacity).weigher(|_, &value| value)
}

fn live(cache: &Cache<u64, u64>, keys: impl IntoIterator<Item = u64>) -> usize {
    keys.into_iter().filter(|key| cache.contains(key)).count()
}

/// Asserts that only expired entries, those with the keys of `old`, were removed.
#[track_caller]
fn only_the_expired_went(told: &Told, old: impl Fn(u64) -> bool) {
    for (&key, &cause) in told.lock().unwrap().iter() {
        assert!(
            old(key) && cause == RemovalCause::Expired,
            "{key}: {cause:?}"
        );
    }
}

/// 61 entries, 11 of them expired, and room for 50 from now on: the eleven go, and their cause is `Expired`.
#[test]
fn c09_a_shrink_takes_what_has_expired_first() {
    for round in 0..200 {
        let (clock, cache, told) = listened(counted(100));
        (0..11).for_each(|key| cache.insert(key, 1));
        clock.advance(HALF);
        (100..150).for_each(|key| cache.insert(key, 1));
        if round % 2 == 0 {
            // The expired were the hottest.
            (0..11).for_each(|key| drop((0..9).map(|_| cache.get(&key)).collect::<Vec<_>>()));
        }
        clock.advance(HALF);
        cache.set_max_capacity(50).unwrap();
        assert_eq!(
            (cache.len(), live(&cache, 100..150)),
            (50, 50),
            "round {round}"
        );
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 11);
        assert!((0..11).all(|key| told[&key] == RemovalCause::Expired));
    }
}

/// By weight and in bytes, and with a capacity that leaves some of the expired.
#[test]
fn c09_a_shrink_of_weights_takes_what_has_expired_first() {
    for to in [500, 560, 609] {
        let (clock, cache, told) = listened(weighed(1000));
        (0..11).for_each(|key| cache.insert(key, 10));
        clock.advance(HALF);
        (100..150).for_each(|key| cache.insert(key, 10));
        clock.advance(HALF);
        cache.set_max_capacity(to).unwrap();
        assert_eq!(live(&cache, 100..150), 50, "to {to}");
        only_the_expired_went(&told, |key| key < 11);
        assert!(cache.weighted_size() <= to);
    }
    let clock = ManualClock::new();
    let cache: Cache<u64, Vec<u8>> = Cache::builder()
        .max_bytes("1M")
        .time_to_live(TTL)
        .clock(clock.clone())
        .build()
        .unwrap();
    (0..11).for_each(|key| cache.insert(key, vec![0; 10_000]));
    clock.advance(HALF);
    (100..150).for_each(|key| cache.insert(key, vec![0; 10_000]));
    let a_sixth = cache.weighted_size() / 61 * 50 + 100;
    clock.advance(HALF);
    cache.set_max_bytes(a_sixth).unwrap();
    assert_eq!((100..150).filter(|key| cache.contains(key)).count(), 50);
}

/// 200 live entries that all fit, beside several hundred that have expired; inserts go on.
#[test]
fn c09_what_lives_and_fits_stays_beside_what_has_expired() {
    for round in 0..50 {
        let (clock, cache, told) = listened(weighed(10_000));
        // Of 10 to 50 each: 330 of them are the whole capacity.
        let weight = |key: u64| 10 + key * 7 % 41;
        (1000..1270).for_each(|key| cache.insert(key, weight(key)));
        clock.advance(HALF);
        (0..200).for_each(|key| cache.insert(key, 10));
        clock.advance(HALF);
        let told_before = told.lock().unwrap().clone();
        assert!(told_before.is_empty() || told_before.keys().all(|key| !(200..1000).contains(key)));
        let before: Vec<u64> = (0..200).filter(|key| cache.contains(key)).collect();
        told.lock().unwrap().clear();
        // The live entries weigh 2,000, and the new ones 7,900.
        for key in 2000..2395 {
            cache.insert(key, 20);
        }
        assert_eq!(
            live(&cache, before.iter().copied()),
            before.len(),
            "round {round}"
        );
        only_the_expired_went(&told, |key| (1000..1270).contains(&key));
    }
}

/// room for 10,000, half of it expired, and 2,500 that come.
#[test]
fn c09_half_of_a_full_cache_has_expired() {
    // Put in, filled, computed.
    for how in 0..3 {
        let (clock, cache, told) = listened(counted(10_000));
        (0..5000).for_each(|key| cache.insert(key, 1));
        clock.advance(HALF);
        (10_000..15_000).for_each(|key| cache.insert(key, 1));
        // All expired entries were used more than the live ones.
        (0..5000).for_each(|key| assert_eq!(cache.get(&key), cache.get(&key)));
        clock.advance(HALF);
        for key in 20_000..22_500 {
            match how {
                0 => cache.insert(key, 1),
                1 => drop(cache.get_with(&key, || 1)),
                _ => drop(cache.entry(key).or_insert_with(|| 1)),
            }
        }
        assert_eq!(live(&cache, 10_000..15_000), 5000);
        assert_eq!(live(&cache, 20_000..22_500), 2500);
        only_the_expired_went(&told, |key| key < 5000);
    }
}

/// By threads at once: a thread that finds another looking for expired entries takes nothing live meanwhile.
#[test]
fn c09_half_of_a_full_cache_has_expired_and_threads_insert() {
    watched(|| {
        for _ in 0..5 {
            let (clock, cache, told) = listened(counted(10_000));
            (0..5000).for_each(|key| cache.insert(key, 1));
            clock.advance(HALF);
            (10_000..15_000).for_each(|key| cache.insert(key, 1));
            clock.advance(HALF);
            let start = Barrier::new(4);
            thread::scope(|scope| {
                for thread in 0..4 {
                    let (cache, start) = (&cache, &start);
                    scope.spawn(move || {
                        start.wait();
                        for n in 0..600 {
                            cache.insert(20_000 + 4 * n + thread, 1);
                        }
                    });
                }
            });
            assert_eq!(live(&cache, 10_000..15_000), 5000);
            only_the_expired_went(&told, |key| key < 5000);
        }
    });
}

/// Beside a janitor, and while the table grows: a weighed cache is made for no number of entries.
#[test]
fn c09_beside_a_janitor_and_a_growth() {
    watched(|| {
        let (clock, cache, told) = listened(
            weighed(20_000)
                .initial_capacity(1)
                .purge_interval(Duration::from_micros(200)),
        );
        for round in 0..20 {
            let of = |n: u64| round * 100_000 + n;
            (0..500).for_each(|n| cache.insert(of(n), 10));
            clock.advance(HALF);
            (10_000..10_500).for_each(|n| cache.insert(of(n), 10));
            clock.advance(HALF);
            // Some 5,000 live ones, of two units each beside the 500: all fit, without the expired entries.
            (20_000..25_000).for_each(|n| cache.insert(of(n), 2));
            assert_eq!(live(&cache, (10_000..10_500).map(of)), 500, "round {round}");
            assert_eq!(
                live(&cache, (20_000..25_000).map(of)),
                5000,
                "round {round}"
            );
            let mut causes = told.lock().unwrap().clone().into_values();
            assert!(
                causes.all(|cause| cause != RemovalCause::Size),
                "round {round}"
            );
            cache.invalidate_all();
        }
    });
}

/// Entries expire one by one, each nanosecond, and each goes for the next one that comes.
#[test]
fn c09_one_expires_for_each_that_comes() {
    let clock = ManualClock::new();
    let told = Told::default();
    let log = Arc::clone(&told);
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(1000)
        .time_to_live(Duration::from_micros(1))
        .clock(clock.clone())
        .eviction_listener(move |&key, _, cause| {
            log.lock().unwrap().insert(key, cause);
        })
        .build()
        .unwrap();
    for key in 0..20_000 {
        cache.insert(key, key);
        clock.advance(Duration::from_nanos(1));
    }
    only_the_expired_went(&told, |_| true);
    assert_eq!(live(&cache, 19_001..20_000), 999);
}

/// A clock that is set back: entries put in then expire before those that are there. And one that stands still, at
/// which nothing expires, or every entry at once.
#[test]
fn c08_c09_a_clock_that_is_set_back_and_one_that_stands_still() {
    let (clock, cache, told) = listened(counted(1000));
    clock.set(TTL * 10);
    (0..500).for_each(|key| cache.insert(key, 1));
    clock.set(TTL);
    (500..1000).for_each(|key| cache.insert(key, 1));
    clock.set(TTL * 3);
    (1000..1500).for_each(|key| cache.insert(key, 1));
    assert_eq!((live(&cache, 0..500), live(&cache, 1000..1500)), (500, 500));
    only_the_expired_went(&told, |key| (500..1000).contains(&key));

    let (clock, cache, told) = listened(counted(1000));
    (0..5000).for_each(|key| cache.insert(key, 1));
    assert!(
        told.lock()
            .unwrap()
            .values()
            .all(|&cause| cause == RemovalCause::Size)
    );
    assert_eq!(told.lock().unwrap().len(), 4000);
    told.lock().unwrap().clear();
    clock.advance(TTL);
    (5000..6000).for_each(|key| cache.insert(key, 1));
    assert_eq!(live(&cache, 5000..6000), 1000);
    only_the_expired_went(&told, |key| key < 5000);
}

/// A compute that changes nothing puts back a value that expires before all the rest: it is known of too.
#[test]
fn c09_what_is_put_back_from_behind_a_compute_expires_first() {
    let (clock, cache, told) = listened(counted(100));
    cache.insert(1000, 1);
    clock.advance(HALF);
    cache.insert(0, 1);
    clock.advance(HALF / 2);
    (1..99).for_each(|key| cache.insert(key, 1));
    clock.advance(HALF / 2);
    cache.entry(0).and_compute_with(|_| {
        // Entry 1000 has expired. The cache now looks for the next entry to expire, and does not see 0: this compute
        // holds its value.
        cache.insert(1001, 1);
        Op::Nop
    });
    assert!(cache.contains(&0) && cache.len() == 100);
    only_the_expired_went(&told, |key| key == 1000);
    clock.advance(HALF);
    cache.insert(1002, 1);
    assert_eq!((live(&cache, 1..99), cache.len()), (98, 100));
    only_the_expired_went(&told, |key| key == 1000 || key == 0);
}
