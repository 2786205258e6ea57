//! Capacity, weights and the books: clause 9 of the contract, H9 and H10 of the hostile inputs,
//! R10 of the proof plan.
//!
//! Which entry makes room is the policy's business. Nothing here depends on it beyond the promises of the
//! documentation.

use super::counted;
use crate::support::common::*;
use atomic_cache::{AtomicCache, BuildError, Builder, Cache, CompResult, ManualClock, Op};
use atomic_cache::{GuardResult, OversizeError, RemovalCause};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The heaviest weight that is kept.
const HEAVIEST: u64 = (1 << 48) - 1;

/// A cache of numbers that weigh as much as they say.
fn weighed(capacity: u64) -> Cache<u64, u64> {
    weighing(capacity).build().expect("good settings")
}

fn weighing(capacity: u64) -> Builder<u64, u64> {
    Cache::builder()
        .max_capacity(capacity)
        .weigher(|_, &value| value)
}

/// R10, and clause 9: the facts that hold of a bounded cache while no thread uses it.
#[track_caller]
fn assert_at_rest(cache: &Cache<u64, u64>) {
    let capacity = cache.capacity().expect("bounded");
    let total = cache.weighted_size();
    assert!(total <= capacity, "{total} of {capacity}");
    let keys: HashSet<u64> = cache.keys().collect();
    let weights = keys.iter().map(|key| cache.weight(key).expect("there"));
    assert_eq!(total, weights.sum::<u64>());
    assert_eq!(cache.len(), keys.len());
    assert_eq!(cache.len(), cache.iter().count());
}

// ---------------------------------------------------------------------------------------------
// Clause 9

/// Twice as many threads as elsewhere: far more than cores.
const CROWD: usize = 2 * THREADS;

/// Puts, fills, computes, uses and removes at full speed on `CROWD` threads while another looks at
/// the total. No value is heavier than `heaviest`.
fn crowd_keeps_the_bound(cache: &Cache<u64, u64>, heaviest: u64, keys: u64, steps: u64) {
    let capacity = cache.capacity().expect("bounded");
    // Each has one insert in progress at most.
    let most = capacity + CROWD as u64 * heaviest;
    let (start, over) = (Barrier::new(CROWD + 1), Flag::default());
    thread::scope(|scope| {
        let busy: Vec<_> = (0..CROWD as u64)
            .map(|seed| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    let mut dice = Dice::new(seed + 1);
                    for _ in 0..steps {
                        let (key, value) = (dice.roll(keys), dice.roll(heaviest + 1));
                        match dice.roll(16) {
                            0..=4 => cache.insert(key, value),
                            5..=9 => drop(cache.get_with(&key, || value)),
                            10 => drop(cache.entry(key).and_compute_with(|_| Op::Put(value))),
                            11 => drop(cache.entry(key).and_compute_with(|_| Op::Nop)),
                            12 => drop(cache.invalidate(&key)),
                            _ => drop(cache.get(&key)),
                        }
                    }
                })
            })
            .collect();
        let sampler = scope.spawn(|| {
            start.wait();
            let mut samples = 0_u64;
            while !over.is_up() {
                let total = cache.weighted_size();
                assert!(total <= most, "{total} of {capacity}, at most {most}");
                samples += 1;
            }
            samples
        });
        let ends: Vec<_> = busy
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        over.raise();
        assert!(sampler.join().expect("never above the bound") > 0);
        assert!(ends.into_iter().all(|end| end.is_ok()));
    });
    assert_at_rest(cache);
}

#[test]
fn c09_entries_never_exceed_the_capacity_by_more_than_the_inserts_in_progress() {
    watched_for(Duration::from_secs(120), || {
        for capacity in [0, 1, 2, 7, 64, 1000] {
            let cache = counted(capacity);
            // Of a cache that counts entries each value weighs one, whatever it is.
            crowd_keeps_the_bound(&cache, 1, capacity * 2 + 3, rounds("", 10_000));
        }
    });
}

#[test]
fn c09_weights_never_exceed_the_capacity_by_more_than_the_inserts_in_progress() {
    watched_for(Duration::from_secs(120), || {
        for (capacity, heaviest) in [(0, 3), (1, 1), (9, 9), (64, 7), (1000, 1000), (5000, 40)] {
            let cache = weighed(capacity);
            crowd_keeps_the_bound(&cache, heaviest, 300, rounds("", 10_000));
        }
    });
}

/// The capacity is one for the whole cache: keys that hash alike are not evicted while there is room elsewhere.
#[test]
fn c09_the_capacity_is_global() {
    for capacity in [1, 10, 100, 1000, 12_345] {
        let cache = counted(capacity);
        (0..capacity).for_each(|key| cache.insert(key * 4096, key));
        assert_eq!(cache.len() as u64, capacity);
        assert_eq!(cache.stats().evicted, 0);
        cache.insert(1, 1);
        assert_eq!(cache.len() as u64, capacity);
        assert_eq!(cache.stats().evicted + cache.stats().gave_up, 1);
        assert_at_rest(&cache);
    }
}

/// One that takes the place of another of its key takes no more room than the difference.
#[test]
fn c09_replacing_an_entry_evicts_nothing_if_it_is_no_heavier() {
    let cache = weighed(30);
    (0..3).for_each(|key| cache.insert(key, 10));
    for round in 0..50 {
        let key = round % 3;
        cache.insert(key, 10 - round % 2);
        let put = cache.entry(key).and_compute_with(|_| Op::Put(10));
        assert_eq!(put, CompResult::ReplacedWith(10));
        assert_eq!((cache.len(), cache.weighted_size()), (3, 30));
    }
    assert_eq!(cache.stats().evicted, 0);
    assert_at_rest(&cache);
}

/// While every other entry is being computed anew, a newcomer finds nothing to take out: it goes
/// itself, and the bound holds.
#[test]
fn c09_a_newcomer_that_finds_no_victim_goes_itself() {
    watched(|| {
        let cache = counted(2);
        (0..2).for_each(|key| cache.insert(key, 10));
        let held: Vec<_> = (0..2).map(|_| Held::new()).collect();
        let computes: Vec<_> = (0..2)
            .map(|key| start_compute(&cache, key, 11, &held[key as usize]))
            .collect();
        cache.insert(2, 12);
        assert_eq!(cache.get_with(&3, || 13), 13);
        assert_eq!((cache.get(&0), cache.get(&1)), (Some(10), Some(10)));
        assert_eq!((cache.peek(&2), cache.peek(&3)), (None, None));
        assert_eq!((cache.weighted_size(), cache.stats().gave_up), (2, 2));
        for held in &held {
            held.end.open();
        }
        for compute in computes {
            assert_eq!(compute.join().unwrap(), CompResult::ReplacedWith(11));
        }
        assert_eq!((cache.get(&0), cache.get(&1)), (Some(11), Some(11)));
        assert_at_rest(&cache);
    });
}

/// Without a capacity there is no bound, and the weights are summed up all the same.
#[test]
fn c09_weights_without_a_capacity_are_summed_up() {
    let cache: Cache<u64, u64> = Cache::builder().weigher(|_, &value| value).build().unwrap();
    (0..1000).for_each(|key| cache.insert(key, key));
    assert_eq!(cache.weighted_size(), 999 * 1000 / 2);
    assert_eq!((cache.len(), cache.weight(&7)), (1000, Some(7)));
    assert!((0..500).all(|key| cache.invalidate(&key)));
    assert_eq!(cache.weighted_size(), (500..1000).sum::<u64>());
}

#[test]
fn an_unbounded_cache_counts_its_entries() {
    let cache: Cache<u64, u64> = Cache::unbounded();
    (0..10).for_each(|key| cache.insert(key, key));
    assert_eq!((cache.weighted_size(), cache.capacity()), (10, None));
    assert_eq!((cache.weight(&7), cache.weight(&10)), (Some(1), None));
}

#[test]
fn c09_a_cache_made_with_a_number_alone_holds_as_many_entries() {
    for capacity in [0, 1, 100, u64::MAX] {
        let cache: Cache<u64, u64> = Cache::new(capacity);
        assert_eq!(cache.capacity(), Some(capacity));
        for key in 0..1_000 {
            assert_eq!(cache.get_with(&key, || key + 1), key + 1);
        }
        assert_eq!(cache.len() as u64, capacity.min(1_000));
    }
}

// ---------------------------------------------------------------------------------------------
// H9: capacity 0 and 1

/// Any method leads and any method joins: one fill, and its value for every caller.
#[test]
fn h09_c01_with_capacity_0_or_1_concurrent_callers_share_one_fill() {
    watched(|| {
        for (capacity, lead) in [0, 1]
            .into_iter()
            .flat_map(|n| Verb::ALL.map(|verb| (n, verb)))
        {
            let cache = counted(capacity);
            if capacity == 1 {
                cache.insert(1000, 0);
            }
            for (key, join) in (0..).zip(Verb::joining()) {
                let held = Held::new();
                let (of_leader, inner) = (cache.clone(), held.clone());
                let leader =
                    thread::spawn(move || lead.ask(&of_leader, key, || Ok(inner.hold(key + 100))));
                held.begun.pass();
                let before = cache.stats().joined;
                let waiters: Vec<_> = (0..2)
                    .map(|_| {
                        let cache = cache.clone();
                        thread::spawn(move || join.ask(&cache, key, || unreachable!("one fill")))
                    })
                    .collect();
                await_joined(|| cache.stats(), before + 2);
                held.end.open();
                for came in waiters.into_iter().chain([leader]) {
                    assert_eq!(came.join().unwrap(), Ok(key + 100), "{lead:?}, {join:?}");
                }
                assert!(cache.len() as u64 <= capacity, "{lead:?}, {join:?}");
                assert_at_rest(&cache);
            }
            assert_eq!(cache.len() as u64, capacity);
            assert_eq!(cache.stats().fills, Verb::joining().count() as u64);
        }
    });
}

#[test]
fn h09_a_cache_with_its_own_fill_and_capacity_0_or_1_gives_the_value() {
    for capacity in [0, 1] {
        for verb in AtomicVerb::ALL {
            let cache: AtomicCache<u64, u64> = AtomicCache::<u64, u64>::builder()
                .max_capacity(capacity)
                .build_with(|key| key + 100)
                .unwrap();
            for round in 0..3 {
                for key in 0..3 {
                    assert_eq!(verb.ask(&cache, key), key + 100, "{verb:?}");
                    assert!(cache.len() as u64 <= capacity, "{verb:?}");
                }
                assert_eq!(cache.len() as u64, capacity, "{verb:?}, {round}");
            }
        }
    }
}

#[test]
fn h09_an_insert_with_capacity_0_is_an_error_that_says_so() {
    let cache = counted(0);
    let error: OversizeError<u64> = cache.try_insert(1, 10).unwrap_err();
    assert_eq!((error.weight(), error.capacity()), (Some(1), 0));
    let text = error.to_string();
    assert!(
        text.contains("weight 1") && text.contains("capacity 0"),
        "{text}"
    );
    assert_eq!(cache.get(&1), None);
    assert_eq!((cache.len(), cache.stats().oversize), (0, 1));
    assert_eq!(cache.get_with(&1, || 11), 11);
    assert_eq!(cache.entry(1).or_insert(12).into_value(), 12);
    assert!(cache.entry(1).or_insert(13).is_fresh());
    match cache.get_value_or_guard(&1, None) {
        GuardResult::Guard(guard) => assert_eq!(guard.insert(14), 14),
        other => panic!("{other:?}"),
    }
    let put = cache.entry(1).and_compute_with(|seen| {
        assert_eq!(seen, None);
        Op::Put(15)
    });
    assert_eq!(put, CompResult::Inserted(15));
    let mut view = cache.pin();
    assert_eq!(*view.get_or_fill_with(&1, || 16), 16);
    assert_eq!(view.get(&1), None);
    drop(view);
    assert_eq!(cache.len(), 0);
    assert_at_rest(&cache);
}

/// Clause 3: a waiter of a fill gets the newer value at once, also one that is too heavy to be kept.
#[test]
fn h09_c03_an_insert_that_is_not_kept_is_what_waiters_get() {
    watched(|| {
        let cache = counted(0);
        let held = Held::new();
        let leader = start_fill(&cache, 1, 10, &held);
        let waiters = join_flight(&cache, 1, 3, 99);
        cache.insert(1, 11);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), 11);
        }
        held.end.open();
        assert_eq!(leader.join().unwrap(), 10);
        assert_eq!((cache.stats().fills, cache.get(&1)), (1, None));
        cache.quiesce();
        assert_at_rest(&cache);
    });
}

/// Clause 3: a value that is given back detaches the fill that it would have beaten. The waiters get the value which
/// that fill computes, and no other caller does.
#[test]
fn h09_c03_a_try_insert_that_is_refused_detaches_a_running_fill() {
    watched(|| {
        let cache = counted(0);
        let held = Held::new();
        let leader = start_fill(&cache, 1, 10, &held);
        let waiters = join_flight(&cache, 1, 3, 99);
        assert_eq!(cache.try_insert(1, 11).unwrap_err().into_value(), 11);
        assert_eq!(cache.get_with(&1, || 12), 12);
        held.end.open();
        assert_eq!(leader.join().unwrap(), 10);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), 10);
        }
        assert_eq!(cache.stats().fills, 2);
    });
}

#[test]
fn h09_capacity_1_keeps_one_at_a_time() {
    let cache = counted(1);
    for key in 0..1000 {
        cache.insert(key, key);
        assert_eq!(cache.len(), 1);
        assert_at_rest(&cache);
    }
    for key in 1000..2000 {
        assert_eq!(cache.get_with(&key, || key), key);
        assert_eq!(cache.len(), 1);
    }
    assert_at_rest(&cache);
}

// ---------------------------------------------------------------------------------------------
// H10: weights

#[test]
fn h10_what_weighs_nothing_takes_no_room_and_makes_none() {
    let cache = weighed(10);
    (0..100).for_each(|key| cache.insert(key, 0));
    assert_eq!((cache.len(), cache.weighted_size()), (100, 0));
    for key in 100..200 {
        cache.insert(key, 4);
        assert!(cache.weighted_size() <= 10);
    }
    for key in 0..100 {
        assert_eq!((cache.peek(&key), cache.weight(&key)), (Some(0), Some(0)));
    }
    assert_at_rest(&cache);
    // Not even a capacity of nothing drives them out; removal does.
    cache.set_max_capacity(0).unwrap();
    assert_eq!((cache.len(), cache.weighted_size()), (100, 0));
    cache.insert(1000, 0);
    assert_eq!(cache.get(&1000), Some(0));
    cache.clear();
    assert_eq!((cache.len(), cache.weighted_size()), (0, 0));
}

/// More than the capacity, or more than can be kept: every caller in the flight gets the value.
#[test]
fn h10_an_oversize_value_goes_to_everyone_in_its_flight_and_is_not_kept() {
    watched(|| {
        for (capacity, weight) in [
            (10, 11),
            (10, HEAVIEST + 1),
            (10, u64::MAX),
            (u64::MAX, HEAVIEST + 1),
            (u64::MAX, u64::MAX),
        ] {
            for lead in Verb::ALL {
                let cache = weighed(capacity);
                cache.insert(5, 5);
                let held = Held::new();
                let (of_leader, inner) = (cache.clone(), held.clone());
                let leader =
                    thread::spawn(move || lead.ask(&of_leader, 1, || Ok(inner.hold(weight))));
                held.begun.pass();
                let waiters = join_flight(&cache, 1, 2, 3);
                held.end.open();
                for waiter in waiters {
                    assert_eq!(waiter.join().unwrap(), weight, "{lead:?}");
                }
                assert_eq!(leader.join().unwrap(), Ok(weight), "{lead:?}");
                assert_eq!(cache.peek(&1), None, "{lead:?}");
                let stats = cache.stats();
                assert_eq!((stats.oversize, stats.fills), (1, 1), "{lead:?}");
                assert_eq!((cache.len(), cache.weighted_size()), (1, 5), "{lead:?}");
                assert_at_rest(&cache);
            }
        }
    });
}

#[test]
fn h10_the_heaviest_that_can_be_kept_is_kept() {
    for capacity in [HEAVIEST, u64::MAX] {
        let cache = weighed(capacity);
        cache.insert(1, HEAVIEST);
        assert_eq!(cache.get_with(&1, || 0), HEAVIEST);
        assert_eq!(
            (cache.weighted_size(), cache.weight(&1)),
            (HEAVIEST, Some(HEAVIEST))
        );
        assert_at_rest(&cache);
        assert_eq!(cache.remove(&1), Some(HEAVIEST));
        assert_eq!(cache.weighted_size(), 0);
    }
}

/// The first answer of the weigher is the weight that is taken away in the end.
#[test]
fn h10_a_weigher_may_change_its_mind() {
    let says = Arc::new(AtomicU64::new(0));
    let heard = Arc::clone(&says);
    let asked = Tally::default();
    let counts = asked.clone();
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(100)
        .weigher(move |_, _| {
            counts.add();
            heard.load(SeqCst)
        })
        .build()
        .unwrap();
    let mut dice = Dice::new(10);
    let mut asks = 0;
    for round in 0..5000 {
        says.store(dice.roll(12), SeqCst);
        let key = dice.roll(40);
        match dice.roll(6) {
            0 | 1 => {
                cache.insert(key, round);
                asks += 1;
            }
            2 => {
                let before = cache.stats().fills;
                cache.get_with(&key, || round);
                asks += cache.stats().fills - before;
            }
            3 => {
                let weight = cache.weight(&key);
                cache.entry(key).and_compute_with(|_| Op::Nop);
                assert_eq!(cache.weight(&key), weight);
            }
            4 => drop(cache.get(&key)),
            _ => drop(cache.remove(&key)),
        }
        assert_eq!(asked.get(), asks, "once a value");
        assert_at_rest(&cache);
    }
    says.store(u64::MAX, SeqCst);
    cache.clear();
    assert_eq!((cache.len(), cache.weighted_size()), (0, 0));
}

/// Clause 3: a value that is too heavy is not kept, and the older value goes with cause `Size`.
#[test]
fn h10_c03_an_oversize_insert_takes_the_older_value_out() {
    for tries in [false, true] {
        let told = Arc::new(Mutex::new(vec![]));
        let its = Arc::clone(&told);
        let cache: Cache<u64, u64> = Cache::builder()
            .max_capacity(10)
            .weigher(|_, &weight| weight)
            .eviction_listener(move |_, &value, cause| its.lock().unwrap().push((value, cause)))
            .build()
            .unwrap();
        for weight in [11, 12, HEAVIEST + 1, u64::MAX] {
            cache.insert(1, 7);
            if tries {
                let error = cache.try_insert(1, weight).unwrap_err();
                assert_eq!((error.weight(), error.capacity()), (Some(weight), 10));
                let text = error.to_string();
                assert!(
                    text.contains(&weight.to_string()) && text.contains("capacity 10"),
                    "{text}"
                );
                assert_eq!(error.into_value(), weight);
            } else {
                cache.insert(1, weight);
            }
            assert_eq!((cache.get(&1), cache.weight(&1)), (None, None));
            assert_eq!(*told.lock().unwrap(), [(7, RemovalCause::Size)]);
            told.lock().unwrap().clear();
        }
        let stats = cache.stats();
        assert_eq!((stats.oversize, stats.inserts, stats.evicted), (4, 4, 4));
        assert_at_rest(&cache);
    }
}

/// The old value is older than one that has been handed out: it is not served again (R6).
#[test]
fn h10_r06_a_refresh_with_an_oversize_value_hands_it_out_and_keeps_neither() {
    let (values, told) = (Tally::default(), Arc::new(Mutex::new(vec![])));
    let log = Arc::clone(&told);
    let cache = AtomicCache::<u64, u64>::builder()
        .max_capacity(10)
        .weigher(|_, &value| value)
        .eviction_listener(move |_, &value, cause: RemovalCause| {
            log.lock().unwrap().push((value, cause));
        })
        .build_with(move |_| 7 + 10 * values.add())
        .unwrap();
    assert_eq!(cache.get(&1), 7);
    assert_eq!(cache.refresh(&1), 17);
    assert_eq!(
        (cache.peek(&1), cache.len(), cache.weighted_size()),
        (None, 0, 0)
    );
    assert_eq!((cache.stats().oversize, cache.stats().fills), (1, 2));
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0, 7);
    assert_eq!(told[0].1, RemovalCause::Size);
}

#[test]
fn h10_r06_a_compute_that_puts_an_oversize_value_hands_it_out_and_keeps_neither() {
    let cache = weighed(10);
    let put = |key: u64, value| cache.entry(key).and_compute_with(|_| Op::Put(value));
    assert_eq!(put(1, 7), CompResult::Inserted(7));
    assert_eq!(put(1, 11), CompResult::ReplacedWith(11));
    assert_eq!((cache.peek(&1), cache.weighted_size()), (None, 0));
    assert_eq!(put(1, u64::MAX), CompResult::Inserted(u64::MAX));
    assert_eq!((cache.peek(&1), cache.stats().oversize), (None, 2));
    assert_at_rest(&cache);
}

/// H22: a value whose weigher panics is not kept, and other values are kept all the same.
#[test]
fn h22_a_weigher_that_panics_is_counted_and_its_value_handed_out() {
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(10)
        .weigher(|_, &value| if value == 66 { unwind("no idea") } else { 1 })
        .build()
        .unwrap();
    cache.insert(1, 10);
    // The error does not tell the caller to give the cache more capacity.
    let error = cache.try_insert(1, 66).unwrap_err();
    assert_eq!((error.weight(), error.capacity()), (None, 10));
    let text = error.to_string();
    assert!(
        text.contains("weigher panicked") && !text.contains("18446744073709551615"),
        "{text}"
    );
    assert_eq!(cache.get(&1), None);
    for (key, verb) in (2..).zip(Verb::ALL) {
        assert_eq!(verb.ask(&cache, key, || Ok(66)), Ok(66), "{verb:?}");
        assert_eq!(cache.peek(&key), None, "{verb:?}");
        assert_eq!(verb.ask(&cache, key, || Ok(5)), Ok(5), "{verb:?}");
    }
    let stats = cache.stats();
    let often = 1 + Verb::ALL.len() as u64;
    assert_eq!((stats.panicked_weighers, stats.oversize), (often, often));
    assert_eq!(stats.fill_panics, 0);
    assert_fills_add_up(&stats, 2 * Verb::ALL.len() as u64);
    assert_at_rest(&cache);
}

/// A flight whose weigher panics: the waiters get the value, once, and no thread hangs.
#[test]
fn h22_c01_waiters_get_the_value_of_a_flight_whose_weigher_panics() {
    watched(|| {
        let cache: Cache<u64, u64> = Cache::builder()
            .max_capacity(10)
            .weigher(|_, _| unwind("no idea"))
            .build()
            .unwrap();
        let held = Held::new();
        let leader = start_fill(&cache, 1, 10, &held);
        let waiters = join_flight(&cache, 1, 4, 99);
        held.end.open();
        assert_eq!(leader.join().unwrap(), 10);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), 10);
        }
        assert_eq!((cache.len(), cache.weighted_size()), (0, 0));
    });
}

/// The weigher belongs to the fill: asking for its own key is the cycle that it would be there.
#[test]
fn h22_c05_a_weigher_may_use_the_cache_also_for_its_own_key() {
    watched(|| {
        let shared: Arc<Mutex<Option<Cache<u64, u64>>>> = Arc::default();
        let inner = Arc::clone(&shared);
        let cache: Cache<u64, u64> = Cache::builder()
            .max_capacity(100)
            .weigher(move |&key, &value| {
                let cache = inner.lock().unwrap().clone().expect("set");
                match value {
                    // Reads and removals of its own key, and fills of others, are fine.
                    1 => {
                        assert_eq!(cache.get(&key), None);
                        assert!(!cache.contains(&key));
                        cache.get_with(&(key + 1000), || 0) + 1
                    }
                    2 => cache.get_with(&key, || 0),
                    3 => {
                        cache.insert(key, 0);
                        1
                    }
                    4 => {
                        assert!(!cache.invalidate(&key));
                        1
                    }
                    _ => 1,
                }
            })
            .build()
            .unwrap();
        *shared.lock().unwrap() = Some(cache.clone());
        assert_eq!(cache.get_with(&1, || 1), 1);
        assert_eq!((cache.get(&1), cache.get(&1001)), (Some(1), Some(0)));
        // A cycle is a panic of the weigher's.
        assert_eq!(cache.get_with(&2, || 2), 2);
        assert_eq!((cache.get(&2), cache.stats().panicked_weighers), (None, 1));
        // Clause 3: the insert stays, the fill's caller gets its own.
        assert_eq!(cache.get_with(&3, || 3), 3);
        assert_eq!(cache.get(&3), Some(0));
        // Clause 2: it was detached.
        assert_eq!(cache.get_with(&4, || 4), 4);
        assert_eq!(cache.get(&4), None);
        // An insert's weigher runs before anything: no fill, no cycle.
        cache.insert(5, 2);
        assert_eq!(cache.get(&5), Some(2));
        assert_at_rest(&cache);
        *shared.lock().unwrap() = None;
    });
}

/// The weigher blocks: no caller waits but those of that very value.
#[test]
fn h22_a_weigher_that_blocks_holds_up_only_its_own_key() {
    watched(|| {
        let held = Held::new();
        let inner = held.clone();
        let cache: Cache<u64, u64> = Cache::builder()
            .max_capacity(10)
            .weigher(move |&key, _| if key == 1 { inner.hold(1) } else { 1 })
            .build()
            .unwrap();
        let of_leader = cache.clone();
        let leader = thread::spawn(move || of_leader.get_with(&1, || 10));
        held.begun.pass();
        for key in 2..200 {
            assert_eq!(cache.get_with(&key, || key), key);
            cache.insert(key, key);
        }
        assert_eq!(cache.peek(&1), None);
        let waiters = join_flight(&cache, 1, 2, 99);
        held.end.open();
        assert_eq!(leader.join().unwrap(), 10);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), 10);
        }
        cache.quiesce();
        assert_at_rest(&cache);
    });
}

// ---------------------------------------------------------------------------------------------
// A capacity that changes

#[test]
fn c11_a_capacity_for_an_unbounded_cache_is_an_error_that_says_what_to_do() {
    let cache: Cache<u64, u64> = Cache::unbounded();
    let error = cache.set_max_capacity(10).unwrap_err();
    assert_eq!(error, BuildError::Unbounded);
    assert!(error.to_string().contains("max_capacity(..)"), "{error}");
    assert_eq!(
        (cache.capacity(), cache.set_max_bytes("1M").is_err()),
        (None, true)
    );
    let own = AtomicCache::new(|key: &u64| *key, None);
    assert_eq!(own.set_max_capacity(10), Err(BuildError::Unbounded));
    // A weigher alone is no bound that one would have asked for; but it counts already.
    let cache: Cache<u64, u64> = Cache::builder().weigher(|_, &n| n).build().unwrap();
    if cache.set_max_capacity(10).is_ok() {
        assert_eq!(cache.capacity(), Some(10));
    }
}

#[test]
fn a_smaller_capacity_evicts_at_once() {
    for cache in [counted(1000), weighed(1000)] {
        (0..1000).for_each(|key| cache.insert(key, 1));
        let mut evicted = 0;
        for capacity in [1000, 999, 500, 37, 1, 0] {
            cache.set_max_capacity(capacity).unwrap();
            assert_eq!(cache.capacity(), Some(capacity));
            assert_eq!(cache.len() as u64, capacity);
            evicted = 1000 - capacity;
            assert_eq!(cache.stats().evicted, evicted);
            assert_at_rest(&cache);
        }
        assert_eq!(evicted, 1000);
        assert!(cache.try_insert(1, 1).is_err());
        assert_eq!(cache.get_with(&1, || 1), 1);
        assert!(cache.is_empty());
        cache.set_max_capacity(2).unwrap();
        (0..9).for_each(|key| cache.insert(key, 1));
        assert_eq!(cache.len(), 2);
        assert_at_rest(&cache);
    }
}

/// Also of entries that are in constant use: the search may go round as often as it must.
#[test]
fn shrinking_to_nothing_empties_also_what_is_hot_and_what_was_promoted() {
    let cache = counted(500);
    (0..500).for_each(|key| cache.insert(key, key));
    for _ in 0..20 {
        (0..500).for_each(|key| assert_eq!(cache.get(&key), Some(key)));
    }
    assert!((0..250).all(|key| cache.promote(&key)));
    cache.set_max_capacity(0).unwrap();
    assert_eq!(
        (cache.len(), cache.weighted_size(), cache.iter().count()),
        (0, 0, 0)
    );
}

#[test]
fn a_capacity_grows_from_ten_to_a_hundred_thousand() {
    let cache = counted(10);
    (0..100).for_each(|key| cache.insert(key, key));
    assert_eq!(cache.len(), 10);
    let capacity = rounds("", 1_000_000).min(100_000);
    cache.set_max_capacity(capacity).unwrap();
    let before = cache.stats().evicted;
    for key in 1000..1000 + capacity - 10 {
        assert_eq!(cache.get_with(&key, || key), key);
    }
    // There was room for all of them.
    assert_eq!(cache.stats().evicted, before);
    assert_eq!(
        (cache.len() as u64, cache.weighted_size()),
        (capacity, capacity)
    );
    for key in 1_000_000..1_001_000 {
        cache.insert(key, key);
        assert!(cache.weighted_size() <= capacity);
    }
    assert_at_rest(&cache);
    cache.set_max_capacity(10).unwrap();
    assert_eq!(cache.len(), 10);
    assert_at_rest(&cache);
}

/// A running fill is not evicted; its value is judged by the new capacity.
#[test]
fn a_fill_that_runs_while_the_capacity_goes_to_nothing_is_handed_out_and_not_kept() {
    watched(|| {
        for cache in [counted(10), weighed(10)] {
            let held = Held::new();
            let leader = start_fill(&cache, 1, 5, &held);
            let waiters = join_flight(&cache, 1, 2, 99);
            cache.set_max_capacity(0).unwrap();
            held.end.open();
            assert_eq!(leader.join().unwrap(), 5);
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), 5);
            }
            assert!(cache.is_empty());
            assert_at_rest(&cache);
        }
    });
}

#[test]
fn c09_a_capacity_that_changes_under_load_is_kept_in_the_end() {
    watched_for(Duration::from_secs(120), || {
        for cache in [counted(64), weighed(64)] {
            let heaviest = if cache.weight(&0).is_none() { 4 } else { 1 };
            let (start, over) = (Barrier::new(THREADS + 2), Flag::default());
            thread::scope(|scope| {
                for seed in 0..THREADS as u64 {
                    let (start, over, cache) = (&start, &over, &cache);
                    scope.spawn(move || {
                        start.wait();
                        let mut dice = Dice::new(seed + 50);
                        while !over.is_up() {
                            let (key, value) = (dice.roll(200), dice.roll(heaviest + 1));
                            match dice.roll(4) {
                                0 => cache.insert(key, value),
                                1 => drop(cache.get_with(&key, || value)),
                                2 => drop(cache.entry(key).and_compute_with(|_| Op::Put(value))),
                                _ => drop(cache.get(&key)),
                            }
                        }
                    });
                }
                scope.spawn(|| {
                    start.wait();
                    while !over.is_up() {
                        // The largest capacity of all, and the inserts that may be in progress.
                        let most = 500 + (THREADS as u64 + 1) * heaviest;
                        assert!(cache.weighted_size() <= most);
                    }
                });
                start.wait();
                let mut dice = Dice::new(7);
                for _ in 0..rounds("", 3_000) {
                    let capacity = [0, 1, 2, 10, 64, 500][dice.roll(6) as usize];
                    cache.set_max_capacity(capacity).unwrap();
                    thread::yield_now();
                }
                cache.set_max_capacity(40).unwrap();
                over.raise();
            });
            assert_at_rest(&cache);
        }
    });
}

// ---------------------------------------------------------------------------------------------
// Which entries go first and which last

#[test]
fn a_promoted_entry_outlives_newcomers_and_a_demoted_one_does_not() {
    let cache = counted(10);
    (0..10).for_each(|key| cache.insert(key, key));
    assert!(cache.promote(&3));
    assert!(cache.demote(&7));
    cache.insert(10, 10);
    assert_eq!((cache.peek(&7), cache.len()), (None, 10));
    (11..30).for_each(|key| cache.insert(key, key));
    assert_eq!(cache.peek(&3), Some(3));
    assert!(
        !cache.promote(&7) && !cache.demote(&7),
        "they are not there"
    );
    assert_at_rest(&cache);
}

/// The one last demoted is not the only one: all of them go before the others.
#[test]
fn all_that_were_demoted_go_before_anything_else() {
    let cache = counted(20);
    (0..20).for_each(|key| cache.insert(key, key));
    assert!((5..10).all(|key| cache.demote(&key)));
    (20..25).for_each(|key| cache.insert(key, key));
    assert!((5..10).all(|key| !cache.contains(&key)));
    assert!((0..5).chain(10..25).all(|key| cache.contains(&key)));
    // An entry that has gone by itself has no effect on the key's next entry.
    assert!(cache.demote(&0));
    cache.invalidate(&0);
    cache.insert(0, 1);
    assert!(cache.promote(&0));
    (30..40).for_each(|key| cache.insert(key, key));
    assert_eq!(cache.peek(&0), Some(1));
    assert_at_rest(&cache);
}

#[test]
fn a_demoted_entry_that_is_used_is_not_the_first_to_go() {
    let cache = counted(10);
    (0..10).for_each(|key| cache.insert(key, key));
    assert!(cache.demote(&7));
    for _ in 0..20 {
        assert_eq!(cache.get(&7), Some(7));
    }
    cache.insert(10, 10);
    assert!(cache.contains(&7));
    // Promoting it takes the demotion back as well.
    let cache = counted(10);
    (0..10).for_each(|key| cache.insert(key, key));
    assert!(cache.demote(&3) && cache.promote(&3));
    cache.insert(10, 10);
    assert!(cache.contains(&3));
}

/// A key that was used often is hotter than one that was never used; looking is no use.
#[test]
fn hottest_and_coldest_go_by_use() {
    let cache = counted(100);
    (0..10).for_each(|key| cache.insert(key, key + 100));
    for _ in 0..20 {
        assert_eq!(cache.get(&4), Some(104));
        for key in 0..10 {
            assert!(cache.contains(&key));
            cache.peek(&key);
        }
        assert_eq!((cache.iter().count(), cache.keys().count()), (10, 10));
    }
    assert_eq!(cache.hottest(1), [(4, 104)]);
    assert_eq!(cache.hottest(100)[0], (4, 104));
    assert_eq!(cache.coldest(100)[9], (4, 104));
    assert!(cache.promote(&6));
    assert!([4, 6].contains(&cache.hottest(1)[0].0));
    assert!(cache.demote(&2));
    let (hottest, coldest) = (cache.hottest(usize::MAX), cache.coldest(usize::MAX));
    for entries in [hottest, coldest] {
        let keys: HashSet<u64> = entries.iter().map(|entry| entry.0).collect();
        assert_eq!((entries.len(), keys.len()), (10, 10));
        assert!(entries.iter().all(|&(key, value)| value == key + 100));
    }
}

#[test]
fn heat_of_no_entries_and_of_an_unbounded_cache() {
    for cache in [counted(10), Cache::unbounded()] {
        assert!(cache.hottest(5).is_empty() && cache.coldest(5).is_empty());
        assert_eq!(cache.keys().next(), None);
        assert!(!cache.promote(&1) && !cache.demote(&1));
        assert_eq!(cache.weight(&1), None);
    }
    let cache: Cache<u64, u64> = Cache::unbounded();
    (0..10).for_each(|key| cache.insert(key, key));
    assert_eq!((cache.hottest(3).len(), cache.coldest(30).len()), (3, 10));
    assert!(cache.promote(&1) && cache.demote(&2));
    assert_eq!(cache.len(), 10);
}

/// An expired entry is not there for any of them, and neither is one that is being filled.
#[test]
fn c08_c10_heat_weight_and_keys_pass_over_what_has_expired_or_is_filled() {
    watched(|| {
        let clock = ManualClock::new();
        let cache: Cache<u64, u64> = weighing(100)
            .time_to_live(Duration::from_secs(10))
            .clock(clock.clone())
            .build()
            .unwrap();
        cache.insert(1, 10);
        clock.advance(Duration::from_secs(9));
        let held = Held::new();
        let leader = start_fill(&cache, 2, 20, &held);
        assert_eq!((cache.weight(&1), cache.weight(&2)), (Some(10), None));
        assert!(!cache.promote(&2) && !cache.demote(&2));
        assert_eq!(cache.hottest(9), [(1, 10)]);
        clock.advance(Duration::from_secs(1));
        assert_eq!(
            (cache.weight(&1), cache.promote(&1), cache.demote(&1)),
            (None, false, false)
        );
        assert!(cache.hottest(9).is_empty() && cache.coldest(9).is_empty());
        assert_eq!(cache.keys().count(), 0);
        held.end.open();
        leader.join().unwrap();
        assert!(cache.keys().eq([2]));
        cache.run_pending_tasks();
        assert_eq!((cache.weighted_size(), cache.len()), (20, 1));
    });
}

/// While a compute runs, the value that it is to replace is the one that is there.
#[test]
fn weight_and_heat_during_a_compute_are_those_of_the_old_value() {
    watched(|| {
        let cache = weighed(100);
        cache.insert(1, 10);
        let held = Held::new();
        let compute = start_compute(&cache, 1, 20, &held);
        assert_eq!((cache.weight(&1), cache.weighted_size()), (Some(10), 10));
        assert_eq!(cache.hottest(9), [(1, 10)]);
        assert!(cache.promote(&1));
        held.end.open();
        assert_eq!(compute.join().unwrap(), CompResult::ReplacedWith(20));
        assert_eq!((cache.weight(&1), cache.weighted_size()), (Some(20), 20));
        assert_at_rest(&cache);
    });
}

/// The same methods of a cache with its own fill.
#[test]
fn an_atomic_cache_has_them_too() {
    let cache = AtomicCache::<u64, u64>::builder()
        .max_capacity(10)
        .weigher(|_, _| 1)
        .build_with(|key| key + 100)
        .unwrap();
    (0..10).for_each(|key| assert_eq!(cache.get(&key), key + 100));
    assert_eq!(
        (cache.capacity(), cache.weighted_size(), cache.weight(&3)),
        (Some(10), 10, Some(1))
    );
    assert_eq!((cache.keys().count(), cache.weight(&99)), (10, None));
    assert!(cache.promote(&3) && cache.demote(&7) && !cache.promote(&99) && !cache.demote(&99));
    assert_eq!(
        (cache.hottest(1), cache.coldest(20).len()),
        (vec![(3, 103)], 10)
    );
    cache.get(&10);
    assert!(cache.contains(&3) && !cache.contains(&7));
    cache.set_max_capacity(2).unwrap();
    assert_eq!((cache.len(), cache.weighted_size()), (2, 2));
    cache.run_pending_tasks();
    cache.close();
}

// ---------------------------------------------------------------------------------------------
// R10: the books against a plain map

#[derive(Clone, Debug)]
enum Deed {
    Insert(u64, u64),
    Fill(u64, u64),
    Put(u64, u64),
    Drop(u64),
    Leave(u64),
    Get(u64),
    Invalidate(u64),
    InvalidateIf(u64),
    Clear,
    Tick(u64),
    Capacity(u64),
    Promote(u64),
    Demote(u64),
    Tasks,
    Quiesce,
}

/// A value has its weight in its lowest six bits: up to 63.
const WEIGHTS: u64 = 64;
const LIFETIME: u64 = 10;

fn deeds() -> impl Strategy<Value = Deed> {
    let key = || 0..12_u64;
    let weight = || prop_oneof![4 => 0..12_u64, 1 => 12..WEIGHTS];
    prop_oneof![
        6 => (key(), weight()).prop_map(|(k, w)| Deed::Insert(k, w)),
        6 => (key(), weight()).prop_map(|(k, w)| Deed::Fill(k, w)),
        3 => (key(), weight()).prop_map(|(k, w)| Deed::Put(k, w)),
        1 => key().prop_map(Deed::Drop),
        1 => key().prop_map(Deed::Leave),
        4 => key().prop_map(Deed::Get),
        2 => key().prop_map(Deed::Invalidate),
        1 => (1..4_u64).prop_map(Deed::InvalidateIf),
        1 => Just(Deed::Clear),
        3 => (0..LIFETIME + 2).prop_map(Deed::Tick),
        2 => prop_oneof![0..40_u64, Just(u64::MAX)].prop_map(Deed::Capacity),
        1 => key().prop_map(Deed::Promote),
        1 => key().prop_map(Deed::Demote),
        1 => Just(Deed::Tasks),
        1 => Just(Deed::Quiesce),
    ]
}

/// A cache, and the values it may still have at most.
struct Books {
    cache: Cache<u64, u64>,
    clock: ManualClock,
    told: Arc<Mutex<Vec<(u64, u64)>>>,
    weigh: bool,
    ttl: bool,
    capacity: u64,
    now: u64,
    /// The latest value of each key, with its deadline.
    latest: HashMap<u64, (u64, u64)>,
    /// The values that were kept, with their keys; each is to be told of, or to be there.
    kept: BTreeMap<u64, u64>,
    /// How many values there have been.
    values: u64,
}

impl Books {
    fn new(weigh: bool, ttl: bool, capacity: u64) -> Self {
        let clock = ManualClock::new();
        let told: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
        let log = Arc::clone(&told);
        let mut builder = Cache::<u64, u64>::builder()
            .max_capacity(capacity)
            .clock(clock.clone())
            .eviction_listener(move |&key, &value, _| log.lock().unwrap().push((key, value)));
        if weigh {
            builder = builder.weigher(|_, &value| value % WEIGHTS);
        }
        if ttl {
            builder = builder.time_to_live(Duration::from_nanos(LIFETIME));
        }
        Self {
            cache: builder.build().unwrap(),
            clock,
            told,
            weigh,
            ttl,
            capacity,
            now: 0,
            latest: HashMap::new(),
            kept: BTreeMap::new(),
            values: 0,
        }
    }

    fn weight_of(&self, value: u64) -> u64 {
        if self.weigh { value % WEIGHTS } else { 1 }
    }

    fn value(&mut self, weight: u64) -> u64 {
        self.values += 1;
        self.values * WEIGHTS + weight
    }

    /// A newer value of the key has been handed out; whether it is to be kept.
    fn note(&mut self, key: u64, value: u64) -> bool {
        let fits = self.weight_of(value) <= self.capacity;
        self.latest.remove(&key);
        if fits {
            let deadline = if self.ttl {
                self.now + LIFETIME
            } else {
                u64::MAX
            };
            self.latest.insert(key, (value, deadline));
            self.kept.insert(value, key);
        }
        fits
    }

    fn fill(&mut self, key: u64, weight: u64) {
        let (value, before) = (self.value(weight), self.cache.peek(&key));
        let got = self.cache.get_with(&key, || value);
        assert_eq!(got, before.unwrap_or(value));
        if before.is_none() {
            self.note(key, value);
        }
    }

    fn compute(&mut self, key: u64, op: Op<u64>) {
        let before = self.cache.peek(&key);
        let done = self.cache.entry(key).and_compute_with(|seen| {
            assert_eq!(seen.copied(), before);
            op
        });
        let expected = match (op, before) {
            (Op::Put(value), None) => CompResult::Inserted(value),
            (Op::Put(value), Some(_)) => CompResult::ReplacedWith(value),
            (Op::Remove, Some(value)) => CompResult::Removed(value),
            (Op::Nop, Some(value)) => CompResult::Unchanged(value),
            (_, None) => CompResult::StillNone,
        };
        assert_eq!(done, expected);
        match op {
            Op::Put(value) => drop(self.note(key, value)),
            Op::Remove => drop(self.latest.remove(&key)),
            Op::Nop => assert_eq!(self.cache.peek(&key), before),
        }
    }

    fn run(&mut self, deed: &Deed) {
        match *deed {
            Deed::Insert(key, weight) => {
                let value = self.value(weight);
                let fits = self.note(key, value);
                // Both have one effect; by turns.
                if value % 2 == 0 {
                    self.cache.insert(key, value);
                } else if let Err(error) = self.cache.try_insert(key, value) {
                    assert!(!fits);
                    assert_eq!(
                        (error.capacity(), error.into_value()),
                        (self.capacity, value)
                    );
                } else {
                    assert!(fits);
                }
            }
            Deed::Fill(key, weight) => self.fill(key, weight),
            Deed::Put(key, weight) => {
                let value = self.value(weight);
                self.compute(key, Op::Put(value));
            }
            Deed::Drop(key) => self.compute(key, Op::Remove),
            Deed::Leave(key) => self.compute(key, Op::Nop),
            Deed::Get(key) => assert_eq!(self.cache.get(&key), self.cache.peek(&key)),
            Deed::Invalidate(key) => {
                assert_eq!(self.cache.contains(&key), self.cache.invalidate(&key));
                self.latest.remove(&key);
            }
            Deed::InvalidateIf(divisor) => {
                self.cache.invalidate_if(|key, _| key % divisor == 0);
                self.latest.retain(|key, _| key % divisor != 0);
            }
            Deed::Clear => {
                self.cache.clear();
                self.latest.clear();
                assert_eq!((self.cache.len(), self.cache.weighted_size()), (0, 0));
            }
            Deed::Tick(nanos) => {
                self.clock.advance(Duration::from_nanos(nanos));
                self.now += nanos;
            }
            Deed::Capacity(capacity) => {
                self.cache.set_max_capacity(capacity).unwrap();
                self.capacity = capacity;
            }
            Deed::Promote(key) => assert_eq!(self.cache.promote(&key), self.cache.contains(&key)),
            Deed::Demote(key) => assert_eq!(self.cache.demote(&key), self.cache.contains(&key)),
            Deed::Tasks => {
                self.cache.run_pending_tasks();
                assert_eq!(self.cache.len(), self.cache.iter().count());
            }
            Deed::Quiesce => {
                self.cache.quiesce();
                assert_eq!(self.cache.retired(), 0);
            }
        }
    }

    /// Checks the facts that hold after every operation.
    fn check(&mut self, deed: &Deed) {
        let cache = &self.cache;
        let there: HashMap<u64, u64> = cache.iter().collect();
        // Whatever is there is the latest of its key, and within its time.
        for key in 0..12 {
            let read = cache.peek(&key);
            assert_eq!(read, there.get(&key).copied(), "{deed:?}, key {key}");
            if let Some(value) = read {
                let (latest, deadline) = self.latest[&key];
                assert_eq!(value, latest, "{deed:?}, key {key}");
                assert!(
                    self.now < deadline,
                    "{deed:?}, key {key}: past its deadline"
                );
                assert_eq!(cache.weight(&key), Some(self.weight_of(value)));
            }
        }
        assert!(cache.weighted_size() <= self.capacity, "{deed:?}");
        // A value that the listener is told of was kept, and is told of once.
        for (key, value) in self.told.lock().unwrap().drain(..) {
            assert_eq!(
                self.kept.remove(&value),
                Some(key),
                "{deed:?}: {value} told of"
            );
            assert!(
                there.get(&key) != Some(&value),
                "{deed:?}: {value} told of and there"
            );
        }
        // A value that the listener was not told of is there, or has expired and waits to be reclaimed.
        let weights = self.kept.keys().map(|&value| self.weight_of(value));
        assert_eq!(cache.weighted_size(), weights.sum::<u64>(), "{deed:?}");
        assert_eq!(cache.len(), self.kept.len(), "{deed:?}");
        for (value, key) in &self.kept {
            let latest = self.latest.get(key);
            let expired = self.ttl && latest.is_none_or(|latest| latest.1 <= self.now);
            let is_there = there.get(key) == Some(value);
            assert!(is_there || expired, "{deed:?}: {value} is lost");
        }
    }
}

fn books_balance(weigh: bool, ttl: bool, capacity: u64, deeds: &[Deed]) {
    let mut books = Books::new(weigh, ttl, capacity);
    for deed in deeds {
        books.run(deed);
        books.check(deed);
    }
    books.cache.run_pending_tasks();
    assert_at_rest(&books.cache);
    assert_eq!(books.cache.stats().panicked_listeners, 0);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(debug_assertions) { 300 } else { 3000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn r10_the_books_balance_after_every_operation(
        weigh in any::<bool>(),
        ttl in any::<bool>(),
        capacity in prop_oneof![0..40_u64, Just(u64::MAX)],
        deeds in prop::collection::vec(deeds(), 1..120),
    ) {
        // Of a count, the largest possible takes a table to match.
        let capacity = if weigh { capacity } else { capacity.min(1000) };
        books_balance(weigh, ttl, capacity, &deeds);
    }
}

// ---------------------------------------------------------------------------------------------
// Soak K2

/// A key that is the rarer the larger it is, as by Zipf's law: each octave is as likely as the others.
fn zipf(dice: &mut Dice, keys: u64) -> u64 {
    let octave = dice.roll(u64::from(keys.ilog2()) + 1);
    ((1 << octave) - 1 + dice.roll(1 << octave)).min(keys - 1)
}

/// K2 of the proof plan: eviction at Zipf and scans with weights, the bound sampled all along.
/// `ATOMIC_CACHE_SOAK` says for how many seconds; else a moment.
#[test]
fn soak_k2_zipf_and_scans_with_weights_keep_the_bound() {
    let seconds = std::env::var("ATOMIC_CACHE_SOAK").map_or(0, |seconds| {
        seconds
            .parse()
            .expect("ATOMIC_CACHE_SOAK is a number of seconds")
    });
    let length = Duration::from_secs(seconds).max(Duration::from_millis(500));
    watched_for(length + Duration::from_secs(60), move || {
        const KEYS: u64 = 20_000;
        const HEAVIEST: u64 = 50;
        let capacity = 30_000;
        let (end, told) = (Instant::now() + length, Tally::default());
        let heard = told.clone();
        let cache: Cache<u64, u64> = Cache::builder()
            .max_capacity(capacity)
            .weigher(|_, &value| value % (HEAVIEST + 1))
            .eviction_listener(move |_, _, _| {
                heard.add();
            })
            .build()
            .unwrap();
        let put = Tally::default();
        thread::scope(|scope| {
            for seed in 0..THREADS as u64 {
                let (cache, put) = (&cache, &put);
                scope.spawn(move || {
                    let mut dice = Dice::new(seed + 1);
                    let mut scan = seed * KEYS;
                    while Instant::now() < end {
                        for _ in 0..100 {
                            let key = zipf(&mut dice, KEYS);
                            let fill = || {
                                put.add();
                                key + dice.roll(1000)
                            };
                            cache.get_with(&key, fill);
                        }
                        if dice.roll(20) == 0 {
                            for _ in 0..500 {
                                scan += 1;
                                let fill = || {
                                    put.add();
                                    scan
                                };
                                cache.get_with(&(KEYS + scan), fill);
                            }
                        }
                        let key = zipf(&mut dice, KEYS);
                        if dice.roll(3) == 0 {
                            cache.invalidate(&key);
                        } else {
                            put.add();
                            cache.insert(key, key);
                        }
                    }
                });
            }
            scope.spawn(|| {
                let most = capacity + THREADS as u64 * HEAVIEST;
                while Instant::now() < end {
                    let total = cache.weighted_size();
                    assert!(total <= most, "{total} of {capacity}");
                }
            });
        });
        cache.run_pending_tasks();
        assert_at_rest(&cache);
        let stats = cache.stats();
        assert!(stats.evicted > 0);
        assert_eq!(
            stats.panicked_listeners + stats.panicked_weighers + stats.oversize,
            0
        );
        // R10: each value was told of, or is there, or was never kept because its fill was detached.
        assert!(told.get() + cache.len() as u64 <= put.get());
        assert_eq!(
            told.get(),
            stats.evicted + stats.explicit + stats.replaced + stats.expired
        );
    });
}

// ---------------------------------------------------------------------------------------------
// A table that is far too large

/// Clause 9. Of a hundred thousand entries ten are left; a new entry then finds its victims, and is not turned away
/// because the hands meet no entry.
#[test]
fn a_cache_that_has_shrunk_goes_on_to_take_entries_in() {
    let counted: Cache<u64, u64> = Cache::builder().max_capacity(100_000).build().unwrap();
    let sized: Cache<u64, u64> = Cache::builder()
        .max_capacity(100_000)
        .weigher(|_, _| 1)
        .build()
        .unwrap();
    let far_too_large: Cache<u64, u64> = Cache::builder()
        .max_capacity(10)
        .initial_capacity(1 << 20)
        .build()
        .unwrap();
    for cache in [counted, sized, far_too_large] {
        (0..100_000).for_each(|key| cache.insert(key, key));
        cache.set_max_capacity(10).unwrap();
        assert_eq!(cache.len(), 10);
        for key in 200_000..201_000 {
            cache.insert(key, key);
            assert!(cache.contains(&key), "{key}");
            assert_eq!(cache.iter().count(), 10);
        }
        assert_eq!(cache.stats().gave_up, 0);
        assert_at_rest(&cache);
    }
}

/// A walk sees each entry that is there all along once, also if the table becomes smaller under it.
#[test]
fn a_walk_sees_each_entry_once_while_the_table_shrinks() {
    for at in [1, 5, 9] {
        let cache: Cache<u64, u64> = Cache::builder().max_capacity(50_000).build().unwrap();
        (0..50_000).for_each(|key| cache.insert(key, key));
        cache.set_max_capacity(10).unwrap();
        let mut there: Vec<_> = cache.keys().collect();
        let mut walk = cache.keys();
        let mut seen: Vec<_> = walk.by_ref().take(at).collect();
        // The next to come makes the table smaller, and one entry goes for it.
        cache.insert(100_000, 0);
        seen.extend(walk);
        let left: Vec<_> = cache.keys().collect();
        there.retain(|key| left.contains(key));
        for key in there {
            assert_eq!(seen.iter().filter(|&&other| other == key).count(), 1);
        }
    }
}

// ---------------------------------------------------------------------------------------------
// One bound

/// Clause 11. Entries and bytes are never taken for each other.
#[test]
fn c11_entries_and_bytes_are_not_mixed() {
    let both = Cache::<u64, u64>::builder()
        .max_bytes("64M")
        .max_capacity(10)
        .build();
    assert!(both.unwrap_err().to_string().contains("one bound"));
    let counted: Cache<u64, u64> = Cache::builder().max_capacity(10).build().unwrap();
    let error = counted.set_max_bytes("1M").unwrap_err().to_string();
    assert!(error.contains("set_max_capacity"), "{error}");
    assert_eq!(counted.capacity(), Some(10));
}

/// A hostile review: entries that weigh nothing hid the others from the hands.
#[test]
fn h10_weightless_entries_do_not_freeze_the_policy() {
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(100)
        .weigher(|key, _| u64::from(key % 2 == 1))
        .build()
        .unwrap();
    let mut hits = 0;
    for round in 0..100 {
        for key in 0..160 {
            hits += usize::from(round > 10 && key % 2 == 1 && cache.contains(&key));
            cache.get_with(&key, || key);
        }
    }
    assert!(hits > 89 * 80 * 9 / 10, "{hits} of {}", 89 * 80);
    assert_eq!(cache.stats().gave_up, 0);
    // And so that something must leave, again and again.
    for key in 1_000..10_000 {
        cache.get_with(&key, || key);
    }
    assert!(cache.stats().gave_up < 90, "{:?}", cache.stats());
}

/// The same: an insert of an entry that is there already evicts no others for it.
#[test]
fn c09_threads_that_put_one_heavy_entry_in_anew_evict_nothing() {
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(1000)
        .weigher(|_, &weight| weight)
        .build()
        .unwrap();
    cache.insert(0, 500);
    (1..=490).for_each(|key| cache.insert(key, 1));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..2000).for_each(|_| cache.insert(0, 500)));
        }
    });
    assert_eq!((cache.len(), cache.stats().evicted), (491, 0));
}

/// The same: a listener that puts evicted entries back keeps no thread waiting.
#[test]
fn c09_quiesce_returns_although_the_listener_puts_things_back() {
    watched(|| {
        let shared: Arc<Mutex<Option<Cache<u64, u64>>>> = Arc::default();
        let inner = Arc::clone(&shared);
        let cache: Cache<u64, u64> = Cache::builder()
            .max_capacity(4)
            .eviction_listener(move |&key, &value, cause| {
                let cache = inner.lock().unwrap().clone();
                if let (RemovalCause::Size, Some(cache)) = (cause, cache) {
                    cache.insert(key, value);
                }
            })
            .build()
            .unwrap();
        *shared.lock().unwrap() = Some(cache.clone());
        (0..6).for_each(|key| cache.insert(key, key));
        cache.quiesce();
        *shared.lock().unwrap() = None;
    });
}
