//! Bugs of bounds, listener and janitor, each with a test of its own that named it first.

use crate::common::*;
use atomic_cache::RemovalCause::{Explicit, Replaced};
use atomic_cache::{AtomicCache, Cache, CompResult, ManualClock, Op, RemovalCause};
use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const A_MOMENT: Duration = Duration::from_secs(10);

fn counted(capacity: u64) -> Cache<u64, u64> {
    Cache::builder().max_capacity(capacity).build().unwrap()
}

/// A cache of counted values, and how many its listener has been told of.
fn telling() -> (Cache<u64, Counted>, Tally) {
    let told = Tally::default();
    let heard = told.clone();
    let cache = Cache::builder()
        .eviction_listener(move |_, value: &Counted, _| {
            value.id();
            heard.add();
        })
        .build()
        .unwrap();
    (cache, told)
}

// ---------------------------------------------------------------------------------------------
// The bound

/// Clause 9. Of a table that just then gets rid of its tombs a hand may see nothing that it can take; what is owed
/// was forgotten over that, for good.
#[test]
fn c09_what_is_owed_in_the_smallest_tables_is_paid() {
    watched(|| {
        for (capacity, threads, rounds) in [(2, 4, 20), (8, 8, 10)] {
            for round in 0..rounds {
                let cache = counted(capacity);
                thread::scope(|scope| {
                    for thread in 0..threads {
                        let cache = &cache;
                        scope.spawn(move || {
                            for key in 0..5_000 {
                                cache.insert(thread << 32 | key, key);
                            }
                        });
                    }
                });
                let (total, len) = (cache.weighted_size(), cache.iter().count() as u64);
                assert_eq!(total, len, "round {round}");
                assert!(len <= capacity, "{len} of {capacity} in round {round}");
            }
        }
    });
}

/// Clause 9. A smaller capacity cannot take out what a compute stands before; when the compute puts
/// that back, somebody has to pay for it.
#[test]
fn c09_what_a_compute_puts_back_is_within_a_capacity_that_was_made_less() {
    for op in [Op::Nop, Op::Put(7)] {
        let cache = counted(10);
        (0..5).for_each(|key| cache.insert(key, key));
        cache.entry(1).and_compute_with(|_| {
            cache.set_max_capacity(0).unwrap();
            op
        });
        assert_eq!((cache.weighted_size(), cache.len()), (0, 0), "{op:?}");
    }
    // A refresh that fails puts back as well.
    let (fails, held) = (Flag::default(), Held::new());
    let (inner, fill) = (fails.clone(), held.clone());
    let cache = AtomicCache::<u64, u64>::builder()
        .max_capacity(10)
        .try_build_with(move |_| {
            if inner.is_up() {
                return fill.hold(Err(()));
            }
            Ok(1)
        })
        .unwrap();
    assert!((0..10).all(|key| cache.try_get(&key).is_ok()));
    fails.raise();
    let other = cache.clone();
    let refresh = thread::spawn(move || assert!(other.try_refresh(&3).is_err()));
    held.begun.pass();
    cache.set_max_capacity(0).unwrap();
    held.end.open();
    refresh.join().unwrap();
    assert_eq!((cache.weighted_size(), cache.len()), (0, 0));
}

thread_local! {
    /// In how many more calls of `Hash` this thread stops; 0 is never.
    static STOPS_IN: Cell<u32> = const { Cell::new(0) };
}

/// A key whose `Hash` stops where it is told to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stopping(u64, Held);

impl Hash for Stopping {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if STOPS_IN.get() > 0 {
            STOPS_IN.set(STOPS_IN.get() - 1);
            if STOPS_IN.get() == 0 {
                self.1.hold(());
            }
        }
        self.0.hash(state);
    }
}

impl PartialEq for Held {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Held {}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held")
    }
}

/// Clause 9. An insert that owes room looks for a victim; meanwhile another evicts the very entry it
/// has put in, and all that is left is being computed anew. It finds nothing, and cannot give up
/// what has gone: what it owes is still owed.
#[test]
fn c09_who_finds_no_victim_and_has_lost_its_own_entry_still_owes() {
    watched(|| {
        let stop = Held::new();
        let key = |n| Stopping(n, stop.clone());
        let cache: Cache<Stopping, u64> = Cache::builder().max_capacity(2).build().unwrap();
        cache.insert(key(0), 0);
        cache.insert(key(1), 1);
        let compute = |n: u64, held: &Held| {
            let (cache, key, inner) = (cache.clone(), key(n), held.clone());
            let thread = thread::spawn(move || {
                cache.entry(key).and_compute_with(|_| {
                    inner.hold(());
                    Op::Nop
                })
            });
            held.begun.pass();
            thread
        };
        let held: [Held; 3] = std::array::from_fn(|_| Held::new());
        let first = compute(0, &held[0]);
        // It owes one, and stops at its first victim: the first hash is of its own key.
        let (of_inserter, its) = (cache.clone(), key(2));
        let inserter = thread::spawn(move || {
            STOPS_IN.set(2);
            of_inserter.insert(its, 2);
        });
        stop.begun.pass();
        // Its entry goes for another one's sake.
        assert!(cache.demote(&key(2)));
        cache.insert(key(3), 3);
        assert!(!cache.contains(&key(2)));
        let others = [compute(1, &held[1]), compute(3, &held[2])];
        stop.end.open();
        inserter.join().unwrap();
        for held in &held {
            held.end.open();
        }
        for compute in others.into_iter().chain([first]) {
            assert!(matches!(compute.join().unwrap(), CompResult::Unchanged(_)));
        }
        assert!(cache.weighted_size() <= 2, "{} of 2", cache.weighted_size());
    });
}

/// H10. The total is one number of 64 bits, and 65,537 of the heaviest are more than that: whatever
/// becomes of the last of them, the total is the sum of what is there.
#[test]
fn h10_the_total_does_not_overflow() {
    const HEAVIEST: u64 = (1 << 48) - 1;
    watched(|| {
        for builder in [Cache::builder(), Cache::builder().max_capacity(u64::MAX)] {
            let cache: Cache<u64, u64> = builder.weigher(|_, _| HEAVIEST).build().unwrap();
            for key in 0..65_600 {
                cache.insert(key, key);
            }
            let sum = u128::from(HEAVIEST) * cache.len() as u128;
            assert_eq!(u128::from(cache.weighted_size()), sum);
            assert!(cache.len() > 1000);
        }
    });
}

/// H6, H7. What was charged for an entry that then was not put in.
#[test]
fn h07_r10_an_insert_whose_eq_panics_weighs_nothing() {
    thread_local! {
        static PANICS: Cell<bool> = const { Cell::new(false) };
    }

    #[derive(Debug)]
    struct Touchy(u64);

    impl Hash for Touchy {
        fn hash<H: Hasher>(&self, state: &mut H) {
            7.hash(state);
        }
    }

    impl PartialEq for Touchy {
        fn eq(&self, other: &Self) -> bool {
            if PANICS.get() {
                unwind("do not compare me");
            }
            self.0 == other.0
        }
    }

    impl Eq for Touchy {}

    let cache: Cache<Touchy, u64> = Cache::builder().max_capacity(3).build().unwrap();
    cache.insert(Touchy(1), 1);
    PANICS.set(true);
    for _ in 0..5 {
        assert!(panics(|| cache.insert(Touchy(2), 2)));
    }
    PANICS.set(false);
    assert_eq!((cache.len(), cache.weighted_size()), (1, 1));
    cache.insert(Touchy(2), 2);
    cache.insert(Touchy(3), 3);
    assert_eq!((cache.len(), cache.weighted_size()), (3, 3));
}

// ---------------------------------------------------------------------------------------------
// What goes first and what goes last

#[test]
fn none_of_the_hottest_is_none() {
    let cache = counted(10);
    cache.insert(1, 10);
    assert_eq!((cache.hottest(0), cache.coldest(0)), (vec![], vec![]));
}

/// What is kept of the walk must be the hottest so far from the first full list on.
#[test]
fn the_hottest_are_the_hottest_wherever_they_stand() {
    for round in 0..50 {
        let cache = counted(100);
        let keys = |from: u64, to: u64| (from..to).map(move |n| round * 1000 + n);
        keys(0, 60).for_each(|key| cache.insert(key, key));
        for _ in 0..50 {
            assert!(keys(0, 10).all(|key| cache.get(&key).is_some()));
        }
        let mut hottest: Vec<u64> = cache.hottest(10).into_iter().map(|e| e.0).collect();
        hottest.sort_unstable();
        assert!(hottest.into_iter().eq(keys(0, 10)), "round {round}");
        let coldest = cache.coldest(50);
        assert!(coldest.iter().all(|entry| entry.0 >= round * 1000 + 10));
    }
}

/// The first to go is the coldest there is.
#[test]
fn a_demoted_entry_is_the_coldest() {
    for key in 0..10 {
        let cache = counted(10);
        (0..10).for_each(|key| cache.insert(key, key));
        assert!(cache.demote(&key));
        assert_eq!(cache.coldest(1), [(key, key)]);
    }
}

/// H28: demoting an entry again and again keeps nothing.
#[test]
fn h28_demoting_keeps_no_memory() {
    let name = "bounds_found::h28_demoting_keeps_no_memory";
    in_child(name, Duration::from_secs(60), || {
        let cache = counted(10);
        cache.insert(1, 1);
        assert!(cache.demote(&1));
        let before = live_bytes();
        for round in 0..200_000 {
            assert!(cache.demote(&1));
            if round % 2 == 0 {
                cache.insert(1, round);
            }
        }
        cache.quiesce();
        let more = live_bytes().saturating_sub(before);
        assert!(more < 100_000, "{more} bytes");
    });
}

// ---------------------------------------------------------------------------------------------
// The listener

/// H22. What takes the old value's place is the insert's, whatever stood before it meanwhile.
#[test]
fn h22_an_insert_during_a_compute_replaces_the_old_value() {
    let told: Arc<Mutex<Vec<(u64, RemovalCause)>>> = Arc::default();
    let log = Arc::clone(&told);
    let cache: Cache<u64, u64> = Cache::builder()
        .eviction_listener(move |_, &value, cause| log.lock().unwrap().push((value, cause)))
        .build()
        .unwrap();
    cache.insert(1, 10);
    cache.entry(1).and_compute_with(|_| {
        cache.insert(1, 11);
        Op::Put(12)
    });
    cache.invalidate(&1);
    assert_eq!(*told.lock().unwrap(), [(10, Replaced), (11, Explicit)]);
    assert_eq!((cache.stats().replaced, cache.stats().explicit), (1, 1));
}

/// H22, clause 1: what is inserted with a lifetime of zero is not kept, no more than a fill's value.
#[test]
fn h22_an_insert_with_a_lifetime_of_zero_is_not_told_of() {
    let told = Tally::default();
    let heard = told.clone();
    let cache: Cache<u64, u64> = Cache::builder()
        .time_to_live(Duration::ZERO)
        .eviction_listener(move |_, _, _| {
            heard.add();
        })
        .build()
        .unwrap();
    cache.insert(1, 10);
    cache.get_with(&1, || 11);
    cache.run_pending_tasks();
    assert_eq!((told.get(), cache.len()), (0, 0));
}

/// H22, R10: the last handle goes while this thread holds another cache's view. What had been
/// removed is told of, by then or when the view is gone, and dropped.
#[test]
fn h22_h21_removals_are_told_of_and_dropped_if_the_cache_goes_under_a_pin() {
    let ledger = Ledger::new();
    let (cache, told) = telling();
    let other: Cache<u64, u64> = Cache::unbounded();
    cache.insert(1, ledger.make(1));
    let view = other.pin();
    cache.invalidate(&1);
    drop(cache);
    drop(view);
    other.run_pending_tasks();
    assert_eq!(ledger.alive(), 0, "leaked");
    assert_eq!(told.get(), 1, "told of");
}

/// H22, R10: more removals wait than one caller tells of in one go.
#[test]
fn h22_run_pending_tasks_tells_of_all_that_waits() {
    let ledger = Ledger::new();
    let (cache, told) = telling();
    let other: Cache<u64, u64> = Cache::unbounded();
    (0..20_000).for_each(|key| cache.insert(key, ledger.make(key)));
    let view = other.pin();
    cache.clear();
    drop(view);
    cache.run_pending_tasks();
    assert_eq!(told.get(), 20_000);
}

/// The same, if the cache goes first.
#[test]
fn h22_h21_a_cache_that_goes_tells_of_all_that_waits_and_leaks_nothing() {
    let ledger = Ledger::new();
    let (cache, told) = telling();
    let other: Cache<u64, u64> = Cache::unbounded();
    (0..20_000).for_each(|key| cache.insert(key, ledger.make(key)));
    let view = other.pin();
    cache.clear();
    drop(view);
    drop(cache);
    assert_eq!((told.get(), ledger.alive()), (20_000, 0));
}

/// H22, clause 6: the listener runs with nothing held, also no lead. What is removed inside a fill
/// is told of after it; for then the listener may ask for that fill's key.
#[test]
fn h22_c06_a_listener_is_not_told_inside_a_fill() {
    watched(|| {
        let shared: Arc<Mutex<Option<Cache<u64, u64>>>> = Arc::default();
        let (inner, told) = (Arc::clone(&shared), Tally::default());
        let heard = told.clone();
        let cache: Cache<u64, u64> = Cache::builder()
            .eviction_listener(move |_, _, _| {
                heard.add();
                let cache = inner.lock().unwrap().clone().expect("set");
                assert_eq!(cache.get_with(&1, || 77), 10);
            })
            .build()
            .unwrap();
        *shared.lock().unwrap() = Some(cache.clone());
        cache.insert(2, 20);
        cache.get_with(&1, || {
            assert!(cache.invalidate(&2));
            10
        });
        assert_eq!((told.get(), cache.stats().panicked_listeners), (1, 0));
        *shared.lock().unwrap() = None;
    });
}

// ---------------------------------------------------------------------------------------------
// Housekeeping and the janitor

/// "Drops what nobody can see any more", also when that is little.
#[test]
fn c09_run_pending_tasks_drops_what_nobody_can_see() {
    let name = "bounds_found::c09_run_pending_tasks_drops_what_nobody_can_see";
    in_child(name, A_MOMENT, || {
        let ledger = Ledger::new();
        let cache: Cache<u64, Counted> = Cache::unbounded();
        (0..10).for_each(|key| cache.insert(key, ledger.make(key)));
        cache.clear();
        // The engine may want to be asked more than once; nobody else is pinned.
        (0..100).for_each(|_| cache.run_pending_tasks());
        assert_eq!((ledger.alive(), cache.retired()), (0, 0));
    });
}

/// Nor has the janitor done its work while what it has removed is kept for want of more.
#[test]
fn c09_the_janitor_drops_what_it_has_removed() {
    let name = "bounds_found::c09_the_janitor_drops_what_it_has_removed";
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
