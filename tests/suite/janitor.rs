//! The janitor: `Builder::purge_interval` and `Cache::close`. Clause 8 of the contract (expired
//! entries are reclaimed), clause 6 (nothing is held while the listener runs), H21 and K4 (caches
//! that live short leave nothing behind).
//!
//! Its interval is real time, however short; what it does is waited for by a channel from the
//! listener, never by sleeping.

use crate::common::*;
use atomic_cache::{AtomicCache, BuildError, Builder, Cache, ManualClock, RemovalCause};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// As short as makes sense.
const OFTEN: Duration = Duration::from_millis(1);
const LIFETIME: Duration = Duration::from_secs(10);
/// How long a round may keep us waiting before it is a failure.
const PATIENCE: Duration = Duration::from_secs(20);

/// A cache with a janitor, a clock that stands until it is moved, and what its listener hears on
/// which thread.
struct Kept {
    cache: Cache<u64, u64>,
    clock: ManualClock,
    told: Receiver<(u64, RemovalCause, Option<String>)>,
}

fn kept(builder: Builder<u64, u64>) -> Kept {
    let clock = ManualClock::new();
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let cache = builder
        .time_to_live(LIFETIME)
        .clock(clock.clone())
        .purge_interval(OFTEN)
        .eviction_listener(move |&key, _, cause| {
            let thread = thread::current().name().map(str::to_owned);
            // The test may have heard enough.
            let _ = tell.lock().unwrap().send((key, cause, thread));
        })
        .build()
        .expect("good settings");
    Kept { cache, clock, told }
}

#[test]
fn c08_the_janitor_removes_what_has_expired_without_any_traffic_and_tells() {
    watched(|| {
        let Kept { cache, clock, told } = kept(Cache::builder().max_capacity(1000));
        (0..100).for_each(|key| cache.insert(key, key));
        clock.advance(Duration::from_secs(5));
        (100..150).for_each(|key| cache.insert(key, key));
        clock.advance(Duration::from_secs(5));
        let mut keys: Vec<u64> = (0..100)
            .map(|_| {
                let (key, cause, thread) = told.recv_timeout(PATIENCE).expect("told of");
                assert_eq!(cause, RemovalCause::Expired);
                assert!(thread.is_some_and(|name| name.contains("janitor")));
                key
            })
            .collect();
        keys.sort_unstable();
        assert!(keys.into_iter().eq(0..100));
        assert_eq!(
            (cache.len(), cache.weighted_size(), cache.stats().expired),
            (50, 50, 100)
        );
        clock.advance(Duration::from_secs(5));
        for _ in 0..50 {
            assert!(told.recv_timeout(PATIENCE).expect("told of").0 >= 100);
        }
        assert!(cache.is_empty());
        assert!(told.try_recv().is_err());
    });
}

/// What it removes is garbage like any other.
#[test]
fn c09_what_the_janitor_removes_is_dropped() {
    watched(|| {
        let (clock, ledger) = (ManualClock::new(), Ledger::new());
        let cache: Cache<u64, Counted> = Cache::builder()
            .time_to_live(LIFETIME)
            .clock(clock.clone())
            .purge_interval(OFTEN)
            .build()
            .unwrap();
        (0..2000).for_each(|key| cache.insert(key, ledger.make(key)));
        clock.advance(LIFETIME);
        spin_until(|| cache.is_empty());
        cache.quiesce();
        assert_eq!((ledger.alive(), cache.retired()), (0, 0));
    });
}

/// Something that says when it is dropped, for closures to own.
struct LastWords(std::sync::mpsc::Sender<()>);

impl Drop for LastWords {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[test]
fn h21_the_janitor_keeps_no_cache_alive() {
    watched(|| {
        for interval in [
            Duration::from_nanos(1),
            OFTEN,
            Duration::from_secs(3600),
            Duration::MAX,
        ] {
            let (tell, gone) = channel();
            let words = Mutex::new(LastWords(tell));
            let ledger = Ledger::new();
            let cache: Cache<u64, Counted> = Cache::builder()
                .time_to_live(LIFETIME)
                .purge_interval(interval)
                .eviction_listener(move |_, _, _| drop(words.lock()))
                .build()
                .unwrap();
            cache.insert(1, ledger.make(1));
            let other = cache.clone();
            drop(cache);
            assert_eq!(other.len(), 1);
            drop(other);
            gone.recv_timeout(PATIENCE)
                .expect("the cache is gone, and its listener");
            assert_eq!(ledger.alive(), 0);
        }
    });
}

/// The only handle goes while the janitor is in its round, inside the listener: the janitor has the
/// last hold of the cache then, and drops it, and itself.
#[test]
fn h21_h22_the_listener_in_a_round_may_drop_the_last_handle() {
    watched(|| {
        let shared: Arc<Mutex<Option<Cache<u64, u64>>>> = Arc::default();
        let (tell, gone) = channel();
        let (words, inner) = (Mutex::new(LastWords(tell)), Arc::clone(&shared));
        let clock = ManualClock::new();
        let cache: Cache<u64, u64> = Cache::builder()
            .time_to_live(LIFETIME)
            .clock(clock.clone())
            .purge_interval(OFTEN)
            .eviction_listener(move |_, _, _| {
                drop(words.lock());
                let last = inner.lock().unwrap().take();
                drop(last);
            })
            .build()
            .unwrap();
        (0..10).for_each(|key| cache.insert(key, key));
        *shared.lock().unwrap() = Some(cache);
        clock.advance(LIFETIME);
        gone.recv_timeout(PATIENCE)
            .expect("the cache is gone, and its listener");
        assert!(shared.lock().unwrap().is_none());
    });
}

#[test]
fn close_ends_the_janitor_and_the_cache_goes_on() {
    watched(|| {
        let Kept { cache, clock, told } = kept(Cache::builder());
        cache.insert(1, 10);
        clock.advance(LIFETIME);
        told.recv_timeout(PATIENCE).expect("told of");
        cache.close();
        cache.close();
        // From here on there is no round: what expires waits for traffic.
        cache.insert(2, 20);
        clock.advance(LIFETIME);
        assert!(told.recv_timeout(20 * OFTEN).is_err());
        assert_eq!(cache.len(), 1);
        cache.insert(2, 21);
        assert_eq!(told.recv_timeout(PATIENCE).expect("told of").0, 2);
        cache.close();
    });
}

/// It waits for the round that runs.
#[test]
fn close_waits_for_the_last_round() {
    watched(|| {
        let (clock, held) = (ManualClock::new(), Held::new());
        let (inner, ended) = (held.clone(), Flag::default());
        let end = ended.clone();
        let cache: Cache<u64, u64> = Cache::builder()
            .time_to_live(LIFETIME)
            .clock(clock.clone())
            .purge_interval(OFTEN)
            .eviction_listener(move |_, _, _| {
                inner.hold(());
                end.raise();
            })
            .build()
            .unwrap();
        cache.insert(1, 10);
        clock.advance(LIFETIME);
        held.begun.pass();
        let (of_closer, closed) = (cache.clone(), Flag::default());
        let (done, round_ended) = (closed.clone(), ended.clone());
        let waiting = thread::spawn(move || {
            of_closer.close();
            assert!(round_ended.is_up());
            done.raise();
        });
        let_others_run();
        assert!(!closed.is_up());
        // Meanwhile what is in the cache is as usable as ever.
        cache.insert(2, 20);
        assert_eq!(cache.get(&2), Some(20));
        held.end.open();
        waiting.join().unwrap();
    });
}

#[test]
fn h22_close_from_inside_its_own_listener_does_not_wait_for_itself() {
    watched(|| {
        let shared: Arc<Mutex<Option<Cache<u64, u64>>>> = Arc::default();
        let (inner, clock, closed) = (Arc::clone(&shared), ManualClock::new(), Gate::new());
        let done = closed.clone();
        let cache: Cache<u64, u64> = Cache::builder()
            .time_to_live(LIFETIME)
            .clock(clock.clone())
            .purge_interval(OFTEN)
            .eviction_listener(move |_, _, _| {
                let cache = inner.lock().unwrap().clone().expect("set");
                cache.close();
                done.open();
            })
            .build()
            .unwrap();
        *shared.lock().unwrap() = Some(cache.clone());
        cache.insert(1, 10);
        clock.advance(LIFETIME);
        closed.pass();
        cache.close();
        *shared.lock().unwrap() = None;
    });
}

/// And from inside a listener that another thread calls.
#[test]
fn h22_close_from_inside_a_listener_elsewhere_waits_for_the_janitor() {
    watched(|| {
        let shared: Arc<Mutex<Option<Cache<u64, u64>>>> = Arc::default();
        let inner = Arc::clone(&shared);
        let cache: Cache<u64, u64> = Cache::builder()
            .time_to_live(LIFETIME)
            .purge_interval(OFTEN)
            .eviction_listener(move |_, _, _| {
                inner.lock().unwrap().clone().expect("set").close();
            })
            .build()
            .unwrap();
        *shared.lock().unwrap() = Some(cache.clone());
        (0..100).for_each(|key| cache.insert(key, key));
        cache.clear();
        assert_eq!(cache.stats().panicked_listeners, 0);
        *shared.lock().unwrap() = None;
    });
}

/// From inside a fill that the janitor's round waits for, by its listener: that is no more waited for than the fill.
#[test]
fn c05_close_from_inside_a_fill_that_the_janitor_waits_for_does_not_hang() {
    watched(|| {
        let shared: Arc<Mutex<Option<Cache<u64, u64>>>> = Arc::default();
        let (inner, clock) = (Arc::clone(&shared), ManualClock::new());
        let (begun, waited) = (Gate::new(), Gate::new());
        let (begins, has_waited) = (begun.clone(), waited.clone());
        let cache: Cache<u64, u64> = Cache::builder()
            .time_to_live(LIFETIME)
            .clock(clock.clone())
            .purge_interval(OFTEN)
            .eviction_listener(move |&key, _, _| {
                if key == 1 {
                    let cache = inner.lock().unwrap().clone().expect("set");
                    begins.open();
                    cache.invalidate(&2);
                    has_waited.open();
                }
            })
            .build()
            .unwrap();
        *shared.lock().unwrap() = Some(cache.clone());
        cache.insert(1, 10);
        let value = cache.get_with(&2, || {
            clock.advance(LIFETIME);
            begun.pass();
            while cache.in_flight().iter().all(|fill| fill.waiters == 0) {
                thread::yield_now();
            }
            cache.close();
            20
        });
        assert_eq!(value, 20);
        waited.pass();
        *shared.lock().unwrap() = None;
    });
}

/// A listener that panics in the janitor's round does not end it.
#[test]
fn h22_the_janitor_survives_a_listener_and_a_value_that_panic() {
    struct Grenade(u64);

    impl Drop for Grenade {
        fn drop(&mut self) {
            if self.0 == 66 {
                unwind("a value that panics");
            }
        }
    }

    watched(|| {
        let clock = ManualClock::new();
        let (tell, told) = channel();
        let tell = Mutex::new(tell);
        let cache: Cache<u64, Grenade> = Cache::builder()
            .time_to_live(LIFETIME)
            .clock(clock.clone())
            .purge_interval(OFTEN)
            .eviction_listener(move |&key, _, _| {
                let _ = tell.lock().unwrap().send(key);
                unwind("do not tell me");
            })
            .build()
            .unwrap();
        for round in 0..5 {
            (0..100).for_each(|key| cache.insert(round * 100 + key, Grenade(66)));
            clock.advance(LIFETIME);
            for _ in 0..100 {
                assert_eq!(told.recv_timeout(PATIENCE).expect("told of") / 100, round);
            }
        }
        cache.close();
        cache.quiesce();
        let stats = cache.stats();
        assert_eq!((stats.panicked_listeners, stats.panicked_drops), (500, 500));
    });
}

/// One without anything that expires, and one of a cache with its own fill.
#[test]
fn a_janitor_may_have_nothing_to_do() {
    watched(|| {
        let cache: AtomicCache<u64, u64> = AtomicCache::<u64, u64>::builder()
            .purge_interval(Duration::from_nanos(1))
            .build_with(|key| key + 1)
            .unwrap();
        (0..1000).for_each(|key| assert_eq!(cache.get(&key), key + 1));
        assert_eq!(cache.len(), 1000);
        cache.close();
        let without: Cache<u64, u64> = Cache::unbounded();
        without.close();
    });
}

#[test]
fn c11_a_purge_interval_before_the_hasher_is_refused_and_says_what_to_do() {
    let builder = || Cache::<u64, u64>::builder().time_to_live(LIFETIME);
    let hasher = std::hash::RandomState::new;
    let error = builder()
        .purge_interval(OFTEN)
        .hasher(hasher())
        .build()
        .unwrap_err();
    assert_eq!(error, BuildError::PurgeIntervalBeforeHasher);
    let text = error.to_string();
    assert!(
        text.contains("purge_interval(..)") && text.contains("hasher(..)"),
        "{text}"
    );
    // The other way round, and once more after the hasher, it is good.
    builder()
        .hasher(hasher())
        .purge_interval(OFTEN)
        .build()
        .unwrap()
        .close();
    let again = builder().purge_interval(OFTEN).hasher(hasher());
    again.purge_interval(OFTEN).build().unwrap().close();
    // It goes with any other setting, in any order.
    let opaque = builder()
        .purge_interval(OFTEN)
        .opaque_keys()
        .max_capacity(10);
    opaque.build().unwrap().close();
}

/// K4: they come and go by the thousand, most of them not closed, and leave no thread.
#[test]
#[cfg(target_os = "linux")]
fn k4_short_lived_caches_leave_no_janitor_behind() {
    fn threads() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("Threads:"));
        line.expect("it says so").trim().parse().expect("a number")
    }

    let name = "janitor::k4_short_lived_caches_leave_no_janitor_behind";
    in_child(name, Duration::from_secs(60), || {
        let ledger = Ledger::new();
        let before = threads();
        for round in 0..2000_u64 {
            let cache: Cache<u64, Counted> = Cache::builder()
                .time_to_live(Duration::from_micros(1))
                .purge_interval([OFTEN, Duration::from_secs(3600)][round as usize % 2])
                .build()
                .unwrap();
            cache.insert(round, ledger.make(round));
            if round % 10 == 0 {
                cache.close();
            }
            drop(cache);
            // Those that are about to end have not ended yet; but they do not pile up.
            if round % 100 == 0 {
                spin_until(|| threads() < before + 20);
            }
        }
        spin_until(|| threads() == before);
        assert_eq!(ledger.alive(), 0);
    });
}
