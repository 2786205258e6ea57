//! The janitor: `Builder::purge_interval` and `Cache::close`. Clause 8 of the contract (expired
//! entries are reclaimed), clause 6 (nothing is held while the listener runs), H21 and K4 (caches
//! that live short leave nothing behind).
//!
//! Its interval is real time, however short; a test waits for its work by a channel from the listener, never by
//! sleeping.

use super::removed_values::Holds;
use crate::support::common::*;
use atomic_cache::{AtomicCache, BuildError, Builder, Cache, ManualClock, Op, RemovalCause};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// As short as makes sense.
const OFTEN: Duration = Duration::from_millis(1);
const LIFETIME: Duration = Duration::from_secs(10);
/// How long a round may keep us waiting before it is a failure.
const PATIENCE: Duration = Duration::from_secs(20);

/// A cache with a janitor, a clock that stands until it is moved, and the removals its listener is told of on which
/// thread.
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

/// A value that it removes is garbage like any other.
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
        // From here on there is no round: an expired entry waits for traffic.
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
        // Meanwhile the entries in the cache are as usable as ever.
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

    let name = test_name!();
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

/// The janitor has not done its work while the values it has removed are kept for want of more.
#[test]
fn c09_the_janitor_drops_what_it_has_removed() {
    let name = test_name!();
    in_child(name, A_MOMENT, || {
        let (clock, ledger) = (ManualClock::new(), Ledger::new());
        let cache: Cache<u64, Counted> = Cache::builder()
            .time_to_live(Duration::from_secs(1))
            .clock(clock.clone())
            .purge_interval(Duration::from_millis(1))
            .build()
            .unwrap();
        (0..10).for_each(|key| cache.insert(key, ledger.make(key)));
        clock.advance(Duration::from_secs(1));
        spin_until(|| cache.is_empty());
        spin_until(|| ledger.alive() == 0);
    });
}

/// H22. One thread is in `close`, and waits for the round; the round's listener closes, too.
#[test]
fn h22_close_from_inside_its_own_listener_does_not_wait_for_another_that_closes() {
    watched_for(A_MOMENT, || {
        let shared: Arc<Mutex<Option<Cache<u64, u64>>>> = Arc::default();
        let (inner, clock, held) = (Arc::clone(&shared), ManualClock::new(), Held::new());
        let round = held.clone();
        let cache: Cache<u64, u64> = Cache::builder()
            .time_to_live(Duration::from_secs(1))
            .clock(clock.clone())
            .purge_interval(Duration::from_millis(1))
            .eviction_listener(move |_, _, _| {
                round.hold(());
                let cache = inner.lock().unwrap().clone().expect("set");
                cache.close();
            })
            .build()
            .unwrap();
        *shared.lock().unwrap() = Some(cache.clone());
        cache.insert(1, 10);
        clock.advance(Duration::from_secs(1));
        held.begun.pass();
        let of_other = cache.clone();
        let other = thread::spawn(move || of_other.close());
        // It joins by now; if it has not yet come to that, this test finds nothing.
        let_others_run();
        held.end.open();
        other.join().unwrap();
        *shared.lock().unwrap() = None;
    });
}

/// A janitor that is always in its round: the last handle goes, and everything is dropped when that returns.
#[test]
fn c09_the_last_handle_drops_everything_although_a_janitor_is_in_its_round() {
    let name = test_name!();
    in_child(name, A_WHILE, || {
        let size = rounds("JANITOR", 200_000);
        for round in 0..40_u64 {
            let ledger = Ledger::new();
            let clock = ManualClock::new();
            let cache: Cache<u64, Counted> = Cache::builder()
                .time_to_live(Duration::from_secs(1))
                .clock(clock.clone())
                .purge_interval(Duration::from_micros(50))
                .initial_capacity(size as usize)
                .build()
                .unwrap();
            for key in 0..size {
                cache.insert(key, ledger.make(key));
            }
            // All expire at once, or each round looks at all.
            if round % 2 == 0 {
                clock.advance(Duration::from_secs(1));
            }
            (0..round * 20).for_each(|_| thread::yield_now());
            let other = cache.clone();
            let elsewhere = thread::spawn(move || drop(other));
            drop(cache);
            // Whichever of the two was the last.
            elsewhere.join().unwrap();
            assert_eq!(ledger.alive(), 0, "round {round}");
        }
    });
}

/// Values hold the handles, and the janitor itself drops the last of them, in its round.
#[test]
fn c09_a_janitor_may_drop_the_last_handle_itself() {
    let name = test_name!();
    in_child(name, A_WHILE, || {
        for round in 0..20 {
            let ledger = Ledger::new();
            let clock = ManualClock::new();
            let cache: Cache<u64, Holds> = Cache::builder()
                .time_to_live(Duration::from_secs(1))
                .clock(clock.clone())
                .purge_interval(Duration::from_micros(50))
                .build()
                .unwrap();
            for key in 0..100 {
                let value = Holds {
                    _cache: cache.clone(),
                    _counted: ledger.make(key),
                };
                cache.insert(key, value);
            }
            if round % 2 == 0 {
                drop(cache);
                clock.advance(Duration::from_secs(1));
            } else {
                clock.advance(Duration::from_secs(1));
                drop(cache);
            }
            spin_until(|| ledger.alive() == 0);
        }
    });
}

/// Inside a fill, the last handle of another cache, with a janitor in a round that waits for that fill: the drop does
/// not wait for the round.
#[test]
fn c09_the_last_handle_dropped_in_a_fill_waits_for_no_round() {
    watched(|| {
        let outer: Cache<u64, u64> = Cache::unbounded();
        let (clock, held) = (ManualClock::new(), Held::new());
        let (asked, round) = (outer.clone(), held.clone());
        let cache: Cache<u64, u64> = Cache::builder()
            .time_to_live(Duration::from_secs(1))
            .clock(clock.clone())
            .purge_interval(Duration::from_micros(50))
            .eviction_listener(move |_, _, _| {
                round.begun.open();
                assert_eq!(asked.get_with(&1, || 11), 10);
            })
            .build()
            .unwrap();
        cache.insert(1, 10);
        let value = outer.get_with(&1, || {
            clock.advance(Duration::from_secs(1));
            held.begun.pass();
            drop(cache);
            10
        });
        assert_eq!(value, 10);
    });
}

/// A janitor of a cache with few entries and much room looks at that when something may have expired.
#[test]
#[cfg(target_os = "linux")]
fn c08_a_janitor_of_few_entries_in_a_large_table_costs_little() {
    fn processor_time() -> Duration {
        let mut time = std::mem::MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: the call writes to the target of the pointer, and this clock is always there.
        let time = unsafe {
            libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, time.as_mut_ptr());
            time.assume_init()
        };
        let whole = |part: i64| u64::try_from(part).expect("not negative");
        Duration::from_secs(whole(time.tv_sec)) + Duration::from_nanos(whole(time.tv_nsec))
    }

    let name = test_name!();
    in_child(name, A_WHILE, || {
        let clock = ManualClock::new();
        let told = Tally::default();
        let heard = told.clone();
        let cache: Cache<u64, u64> = Cache::builder()
            .max_capacity(16_000_000)
            .time_to_live(Duration::from_secs(10))
            .clock(clock.clone())
            .eviction_listener(move |_, _, _| {
                heard.add();
            })
            .build()
            .unwrap();
        (0..10).for_each(|key| cache.insert(key, key));
        // The first look finds out which entries there are.
        cache.run_pending_tasks();
        let before = processor_time();
        (0..1_000).for_each(|_| cache.run_pending_tasks());
        let took = processor_time().saturating_sub(before);
        assert!(
            took < Duration::from_millis(500),
            "{took:?} for 1,000 rounds"
        );
        // Nothing is overlooked: neither these ten, nor those put in since.
        clock.advance(Duration::from_secs(5));
        (10..20).for_each(|key| cache.insert(key, key));
        cache.run_pending_tasks();
        clock.advance(Duration::from_secs(5));
        cache.run_pending_tasks();
        assert_eq!((told.get(), cache.len()), (10, 10));
        clock.advance(Duration::from_secs(5));
        cache.run_pending_tasks();
        assert_eq!((told.get(), cache.len()), (20, 0));
    });
}

/// Nor is a value overlooked that a failed refresh has put back.
#[test]
fn c08_a_value_that_was_put_back_expires_too() {
    let clock = ManualClock::new();
    let cache: Cache<u64, u64> = Cache::builder()
        .time_to_live(Duration::from_secs(10))
        .clock(clock.clone())
        .build()
        .unwrap();
    cache.insert(1, 10);
    clock.advance(Duration::from_secs(5));
    cache.entry(1).and_compute_with(|_| {
        cache.run_pending_tasks();
        Op::Nop
    });
    assert_eq!(cache.get(&1), Some(10));
    clock.advance(Duration::from_secs(5));
    cache.run_pending_tasks();
    assert_eq!(cache.len(), 0);
}

/// In a child of `fork`, where the janitor of the parent is no thread: closing and dropping end.
#[test]
#[cfg(target_os = "linux")]
fn h19_c09_a_child_of_a_fork_closes_and_drops_a_cache_with_a_janitor() {
    let name = test_name!();
    in_child(name, A_WHILE, || {
        for closes in [true, false] {
            let ledger = Ledger::new();
            let cache: Cache<u64, Counted> = Cache::builder()
                .time_to_live(Duration::from_secs(1_000))
                .purge_interval(Duration::from_secs(1_000))
                .build()
                .unwrap();
            (0..10).for_each(|key| cache.insert(key, ledger.make(key)));
            // SAFETY: no other thread holds anything: the janitor sleeps. The child ends by `_exit`.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                let all = catch_unwind(AssertUnwindSafe(|| {
                    assert_eq!(cache.get(&1).map(|value| value.id()), Some(1));
                    if closes {
                        cache.close();
                        cache.close();
                    }
                    drop(cache);
                    assert_eq!(ledger.alive(), 0);
                }));
                // SAFETY: ends the child.
                unsafe { libc::_exit(i32::from(all.is_err())) };
            }
            let mut status = 0;
            // SAFETY: waits for our child, and writes to our number.
            let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
            assert_eq!(waited, pid);
            assert_eq!(status, 0, "closes: {closes}");
            cache.close();
            drop(cache);
            assert_eq!(ledger.alive(), 0);
        }
    });
}
