//! The contract, clause by clause: a test's name begins with the number of the clause it proves.
//! Clause 7 is in `alloc.rs` and in the benches. What is hostile is in `hostile.rs`.

use crate::common::*;
use atomic_cache::{
    AtomicCache, BuildError, Cache, CompResult, CycleError, GuardResult, ManualClock, Op,
    TryGetError,
};
use std::collections::HashSet;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const NANOSECOND: Duration = Duration::from_nanos(1);
const ALMOST_A_SECOND: Duration = Duration::from_nanos(999_999_999);

fn plain() -> Cache<u64, u64> {
    Cache::unbounded()
}

// ---- 1. One flight per key.

/// One flight that `leader` leads and three callers of `joiner` join: what came of each call, and
/// how many fills ran. The leader's fill returns 10, the joiners' own would return 20.
fn one_flight(cache: &Cache<u64, u64>, leader: Verb, joiner: Verb) -> (Came, Vec<Came>, u64) {
    let (fills, held) = (Tally::default(), Held::new());
    let lead = {
        let (cache, fills, held) = (cache.clone(), fills.clone(), held.clone());
        thread::spawn(move || {
            leader.ask(&cache, 1, || {
                fills.add();
                Ok(held.hold(10))
            })
        })
    };
    held.begun.pass();
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let (cache, ran) = (cache.clone(), fills.clone());
            thread::spawn(move || {
                joiner.ask(&cache, 1, || {
                    ran.add();
                    Ok(20)
                })
            })
        })
        .collect();
    await_joined(|| cache.stats(), 3);
    held.end.open();
    let came = lead.join().unwrap();
    let others = callers.into_iter().map(|caller| caller.join().unwrap());
    (came, others.collect(), fills.get())
}

#[test]
fn c01_every_verb_joins_the_flight_of_every_verb() {
    watched(|| {
        for leader in Verb::ALL {
            for joiner in Verb::ALL {
                let cache = plain();
                let (led, joined, fills) = one_flight(&cache, leader, joiner);
                assert_eq!(led, Ok(10), "{leader:?} leads");
                assert_eq!(joined, vec![Ok(10); 3], "{joiner:?} joins {leader:?}");
                assert_eq!(fills, 1, "{joiner:?} joins {leader:?}");
                assert_eq!(cache.get(&1), Some(10));
            }
        }
    });
}

/// With a lifetime of zero nothing is kept, and the waiters get the flight's value all the same.
#[test]
fn c01_every_verb_joins_the_flight_of_every_verb_also_with_ttl_zero() {
    watched(|| {
        for leader in Verb::ALL {
            for joiner in Verb::joining() {
                let (_clock, cache) = timed(Duration::ZERO);
                let (led, joined, fills) = one_flight(&cache, leader, joiner);
                assert_eq!(led, Ok(10), "{leader:?} leads");
                assert_eq!(joined, vec![Ok(10); 3], "{joiner:?} joins {leader:?}");
                assert_eq!(fills, 1, "{joiner:?} joins {leader:?}");
                assert_eq!((cache.get(&1), cache.len()), (None, 0));
            }
        }
    });
}

/// All verbs at once on one flight; and on the flight that renews an expired entry.
#[test]
fn c01_all_verbs_together_join_one_flight_also_of_an_expired_entry() {
    watched(|| {
        for leader in Verb::ALL {
            for expired in [false, true] {
                let (clock, cache) = timed(SECOND);
                if expired {
                    cache.insert(1, 5);
                    clock.advance(SECOND);
                }
                let (fills, held) = (Tally::default(), Held::new());
                thread::scope(|scope| {
                    let lead = scope.spawn(|| {
                        leader.ask(&cache, 1, || {
                            fills.add();
                            Ok(held.hold(10))
                        })
                    });
                    held.begun.pass();
                    let joined: Vec<_> = Verb::ALL
                        .into_iter()
                        .map(|verb| {
                            let (cache, fills) = (&cache, &fills);
                            scope.spawn(move || {
                                verb.ask(cache, 1, || {
                                    fills.add();
                                    Ok(20)
                                })
                            })
                        })
                        .collect();
                    await_joined(|| cache.stats(), Verb::ALL.len() as u64);
                    held.end.open();
                    assert_eq!(lead.join().unwrap(), Ok(10), "{leader:?} leads");
                    for (verb, join) in Verb::ALL.into_iter().zip(joined) {
                        assert_eq!(join.join().unwrap(), Ok(10), "{verb:?} joins {leader:?}");
                    }
                });
                assert_eq!(fills.get(), 1);
            }
        }
    });
}

#[test]
fn c01_every_verb_of_an_atomic_cache_joins_the_flight_of_every_other() {
    watched(|| {
        for leader in AtomicVerb::ALL {
            let joiners = Way::ALL.map(|way| AtomicVerb::ALL.map(|verb| (verb, way)));
            for (joiner, way) in joiners.into_iter().flatten() {
                let (fills, held) = (Tally::default(), Held::new());
                let cache = {
                    let (fills, held) = (fills.clone(), held.clone());
                    way.cache(move |key| held.hold(key + fills.add()))
                };
                let ask = |verb: AtomicVerb| {
                    let cache = cache.clone();
                    thread::spawn(move || verb.ask(&cache, 10))
                };
                let mut calls = vec![ask(leader)];
                held.begun.pass();
                calls.extend((0..3).map(|_| ask(joiner)));
                await_joined(|| cache.stats(), 3);
                held.end.open();
                for call in calls {
                    assert_eq!(call.join().unwrap(), 10, "{joiner:?} joins {leader:?}");
                }
                assert_eq!(fills.get(), 1, "{joiner:?} joins {leader:?}");
                assert_eq!(cache.peek(&10), Some(10));
            }
        }
    });
}

/// A refresh is a flight like any other: those who refresh join it, those who read do not wait.
#[test]
fn c01_refreshes_join_one_flight_while_readers_get_the_old_value() {
    watched(|| {
        let (fills, held) = (Tally::default(), Held::new());
        let cache = {
            let (fills, held) = (fills.clone(), held.clone());
            AtomicCache::new(
                move |_: &u64| match fills.add() {
                    0 => 0,
                    fill => held.hold(fill),
                },
                None,
            )
        };
        assert_eq!(cache.get(&1), 0);
        let refresh = || {
            let cache = cache.clone();
            thread::spawn(move || cache.refresh(&1))
        };
        let mut refreshes = vec![refresh()];
        held.begun.pass();
        refreshes.extend((0..3).map(|_| refresh()));
        await_joined(|| cache.stats(), 3);
        assert_eq!((cache.get(&1), cache.peek(&1)), (0, Some(0)));
        assert_eq!(cache.with(&1, |value| *value), 0);
        assert_eq!(*cache.pin().get_or_fill(&1), 0);
        assert!(cache.contains(&1));
        assert_eq!(cache.len(), 1);
        held.end.open();
        for refresh in refreshes {
            assert_eq!(refresh.join().unwrap(), 1);
        }
        assert_eq!((cache.get(&1), fills.get(), cache.len()), (1, 2, 1));
    });
}

/// The waiters' outcome is the flight's: that the entry is removed, and another value put in its
/// place, before they wake up changes nothing.
#[test]
fn c01_waiters_do_not_read_the_table_again() {
    watched(|| {
        for round in 0..200 {
            let cache = plain();
            let held = Held::new();
            let leader = {
                let (cache, held) = (cache.clone(), held.clone());
                thread::spawn(move || {
                    let value = cache.get_with(&1, || held.hold(10));
                    match round % 3 {
                        0 => assert!(cache.invalidate(&1)),
                        1 => cache.insert(1, 30),
                        _ => cache.invalidate_all(),
                    }
                    value
                })
            };
            held.begun.pass();
            let waiters = join_flight(&cache, 1, 4, 20);
            held.end.open();
            assert_eq!(leader.join().unwrap(), 10);
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), 10);
            }
            assert_eq!(cache.stats().fills, 1);
        }
    });
}

#[test]
fn c01_a_herd_fills_each_key_once() {
    watched(|| {
        const KEYS: u64 = 64;
        for round in 0..60 {
            let cache = plain();
            let (fills, barrier) = (Tally::default(), Barrier::new(THREADS));
            thread::scope(|scope| {
                for thread in 0..THREADS {
                    let (cache, fills, barrier) = (&cache, &fills, &barrier);
                    scope.spawn(move || {
                        let verb = Verb::ALL[(round + thread) % Verb::ALL.len()];
                        barrier.wait();
                        for key in 0..KEYS {
                            let came = verb.ask(cache, key, || {
                                fills.add();
                                Ok(key * 3)
                            });
                            assert_eq!(came, Ok(key * 3), "{verb:?}");
                        }
                    });
                }
            });
            assert_eq!(fills.get(), KEYS);
            assert_eq!(cache.len() as u64, KEYS);
            let entries: HashSet<_> = cache.iter().collect();
            assert_eq!(entries, (0..KEYS).map(|key| (key, key * 3)).collect());
        }
    });
}

/// As above while the table grows from its smallest size, over and over.
#[test]
fn c01_a_herd_fills_each_key_once_while_the_table_grows() {
    watched(|| {
        for _ in 0..8 {
            let cache = plain();
            let (fills, barrier) = (Tally::default(), Barrier::new(THREADS));
            thread::scope(|scope| {
                for thread in 0..THREADS as u64 {
                    let (cache, fills, barrier) = (&cache, &fills, &barrier);
                    scope.spawn(move || {
                        let mut dice = Dice::new(thread + 1);
                        barrier.wait();
                        for _ in 0..4000 {
                            let key = dice.roll(2000);
                            let value = cache.get_with(&key, || {
                                fills.add();
                                key
                            });
                            assert_eq!(value, key);
                        }
                    });
                }
            });
            assert_eq!(fills.get(), cache.len() as u64);
            assert_eq!(cache.iter().count(), cache.len());
        }
    });
}

#[test]
fn c01_borrowed_and_owned_keys_join_one_flight() {
    watched(|| {
        let cache: Cache<String, u64> = Cache::unbounded();
        let (fills, held) = (Tally::default(), Held::new());
        thread::scope(|scope| {
            let leader = scope.spawn(|| cache.get_with("spam", || held.hold(10 + fills.add())));
            held.begun.pass();
            let owned = scope.spawn(|| {
                let entry = cache.entry("spam".to_owned()).or_insert_with(|| 20);
                (entry.is_fresh(), entry.into_value())
            });
            let by_reference = scope.spawn(|| cache.get_with(&"spam".to_owned(), || 30));
            await_joined(|| cache.stats(), 2);
            held.end.open();
            assert_eq!(leader.join().unwrap(), 10);
            assert_eq!(owned.join().unwrap(), (false, 10));
            assert_eq!(by_reference.join().unwrap(), 10);
        });
    });
}

/// Computes of one key take turns (with fills too), so no increment is lost.
#[test]
fn c01_computes_of_one_key_never_overlap() {
    watched(|| {
        const EACH: u64 = 500;
        let cache = plain();
        let (inside, barrier) = (AtomicUsize::new(0), Barrier::new(THREADS));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    barrier.wait();
                    for _ in 0..EACH {
                        cache.entry(1).and_compute_with(|count| {
                            assert_eq!(inside.fetch_add(1, SeqCst), 0, "two at once");
                            let count = count.map_or(1, |count| count + 1);
                            inside.fetch_sub(1, SeqCst);
                            Op::Put(count)
                        });
                    }
                });
            }
        });
        assert_eq!(cache.get(&1), Some(EACH * THREADS as u64));
    });
}

// ---- 2. `invalidate` is linearizable and waits.

/// The verbs that remove a key and wait for its fill.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Eraser {
    Invalidate,
    Remove,
    InvalidateAll,
    InvalidateIf,
    InvalidateAsync,
    RemoveAsync,
    InvalidateAllAsync,
    InvalidateIfAsync,
}

impl Eraser {
    const ALL: [Self; 8] = [
        Self::Invalidate,
        Self::Remove,
        Self::InvalidateAll,
        Self::InvalidateIf,
        Self::InvalidateAsync,
        Self::RemoveAsync,
        Self::InvalidateAllAsync,
        Self::InvalidateIfAsync,
    ];

    fn erase(self, cache: &Cache<u64, u64>, key: u64) {
        match self {
            Self::Invalidate => {
                cache.invalidate(&key);
            }
            Self::Remove => {
                cache.remove(&key);
            }
            Self::InvalidateAll => cache.invalidate_all(),
            Self::InvalidateIf => cache.invalidate_if(|&other, _| other == key),
            Self::InvalidateAsync => {
                block_on(cache.invalidate_async(&key));
            }
            Self::RemoveAsync => {
                block_on(cache.remove_async(&key));
            }
            Self::InvalidateAllAsync => block_on(cache.invalidate_all_async()),
            Self::InvalidateIfAsync => {
                block_on(cache.invalidate_if_async(|&other, _| other == key));
            }
        }
    }
}

#[test]
fn c02_invalidate_waits_for_a_running_fill() {
    watched(|| {
        // (`invalidate_if` waits for fills of the values that it picks, and here is none yet.)
        let only_picked =
            |eraser: &Eraser| matches!(eraser, Eraser::InvalidateIf | Eraser::InvalidateIfAsync);
        for eraser in Eraser::ALL.into_iter().filter(|it| !only_picked(it)) {
            for with_waiters in [false, true] {
                let cache = plain();
                let held = Held::new();
                let leader = start_fill(&cache, 1, 10, &held);
                let waiters = if with_waiters {
                    join_flight(&cache, 1, 2, 20)
                } else {
                    vec![]
                };
                let erased = Flag::default();
                let erasing = {
                    let (cache, erased, end) = (cache.clone(), erased.clone(), held.end.clone());
                    thread::spawn(move || {
                        eraser.erase(&cache, 1);
                        assert!(end.is_open(), "{eraser:?} did not wait");
                        erased.raise();
                    })
                };
                let_others_run();
                assert!(!erased.is_up(), "{eraser:?} did not wait");
                held.end.open();
                erasing.join().unwrap();
                // The fill has ended by now, and its value is not there.
                assert_eq!(cache.get(&1), None, "after {eraser:?}");
                assert_eq!((cache.len(), cache.iter().count()), (0, 0));
                // Those who had joined get it all the same.
                assert_eq!(leader.join().unwrap(), 10);
                for waiter in waiters {
                    assert_eq!(waiter.join().unwrap(), 10);
                }
            }
        }
    });
}

#[test]
fn c02_those_who_had_joined_get_the_value_of_an_invalidated_flight() {
    watched(|| {
        let mut in_time = 0;
        for _ in 0..50 {
            let cache = plain();
            let held = Held::new();
            let leader = start_fill(&cache, 1, 10, &held);
            let waiters = join_flight(&cache, 1, 3, 20);
            let erasing = {
                let cache = cache.clone();
                thread::spawn(move || cache.invalidate(&1))
            };
            let_others_run();
            held.end.open();
            // It found no value, unless it came when the fill had ended.
            in_time += u64::from(!erasing.join().unwrap());
            assert_eq!(leader.join().unwrap(), 10);
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), 10);
            }
            assert_eq!(cache.stats().fills, 1);
            assert!(!cache.contains(&1));
        }
        assert!(in_time > 0, "no invalidation has met a running fill");
    });
}

/// A compute over a live value, which is served until that has ended.
#[test]
fn c02_who_comes_while_invalidate_waits_fills_after_the_old_fill_has_ended() {
    watched(|| {
        for eraser in [
            Eraser::Invalidate,
            Eraser::Remove,
            Eraser::InvalidateAll,
            Eraser::InvalidateAsync,
            Eraser::RemoveAsync,
            Eraser::InvalidateAllAsync,
        ] {
            let cache = plain();
            cache.insert(1, 5);
            let held = Held::new();
            let leader = start_compute(&cache, 1, 10, &held);
            assert_eq!(cache.get(&1), Some(5));
            let erased = Flag::default();
            let erasing = {
                let (cache, erased) = (cache.clone(), erased.clone());
                thread::spawn(move || {
                    eraser.erase(&cache, 1);
                    erased.raise();
                })
            };
            spin_until(|| cache.in_flight()[0].fenced_off);
            assert_eq!((cache.get(&1), cache.peek(&1)), (Some(5), Some(5)));
            assert_eq!(cache.with(&1, |value| *value), Some(5));
            assert_eq!(cache.pin().get(&1), Some(&5));
            assert_eq!((cache.iter().count(), cache.len()), (1, 1));
            let fills = Tally::default();
            // Who wants a newer value waits for the end.
            let newcomers: Vec<_> = (0..4)
                .map(|_| {
                    let (cache, end, fills) = (cache.clone(), held.end.clone(), fills.clone());
                    thread::spawn(move || {
                        cache.entry(1).and_compute_with(|there| {
                            assert!(end.is_open(), "two fills of one key overlap");
                            assert_ne!(there, Some(&5));
                            fills.add();
                            Op::Put(20)
                        });
                    })
                })
                .collect();
            await_joined(|| cache.stats(), 4);
            let_others_run();
            assert!(!erased.is_up(), "{eraser:?} did not wait");
            held.end.open();
            erasing.join().unwrap();
            for newcomer in newcomers {
                newcomer.join().unwrap();
            }
            assert_eq!(leader.join().unwrap(), CompResult::ReplacedWith(10));
            assert_eq!((cache.get(&1), cache.len()), (Some(20), 1));
            assert_eq!(fills.get(), 4);
        }
    });
}

#[test]
fn c02_invalidate_nowait_cuts_the_flight_off() {
    watched(|| {
        for verb in Verb::ALL {
            let cache = plain();
            let held = Held::new();
            let leader = start_fill(&cache, 1, 10, &held);
            let waiters = join_flight(&cache, 1, 2, 20);
            // It returns although the fill does not end.
            assert!(!cache.invalidate_nowait(&1));
            assert!(!cache.contains(&1));
            // A new flight begins, and ends, beside the old one.
            assert_eq!(verb.ask(&cache, 1, || Ok(30)), Ok(30), "{verb:?}");
            assert_eq!(cache.get(&1), Some(30));
            held.end.open();
            assert_eq!(leader.join().unwrap(), 10);
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), 10);
            }
            // The old value is nowhere.
            assert_eq!(cache.get(&1), Some(30));
            assert_eq!((cache.len(), cache.stats().fills), (1, 2));
        }
    });
}

#[test]
fn c02_invalidate_nowait_hides_the_value_that_a_compute_is_about_to_replace() {
    watched(|| {
        let cache = plain();
        cache.insert(1, 5);
        let held = Held::new();
        let leader = start_compute(&cache, 1, 10, &held);
        assert!(cache.invalidate_nowait(&1));
        assert!(!cache.contains(&1));
        assert!(!cache.invalidate_nowait(&1));
        assert_eq!(cache.get_with(&1, || 20), 20);
        held.end.open();
        let superseded = CompResult::Superseded(Op::Put(10));
        assert_eq!(leader.join().unwrap(), superseded);
        assert_eq!((cache.get(&1), cache.len()), (Some(20), 1));
    });
}

/// The length, which is not to count what nobody can get any more.
#[test]
fn c02_what_invalidate_nowait_has_removed_is_not_counted() {
    watched(|| {
        let cache = plain();
        cache.insert(1, 5);
        let held = Held::new();
        let leader = start_compute(&cache, 1, 10, &held);
        assert!(cache.invalidate_nowait(&1));
        let counted = cache.len();
        held.end.open();
        leader.join().unwrap();
        assert_eq!(cache.len(), 0);
        assert_eq!(counted, 0, "while the fill that was cut off runs");
    });
}

#[test]
fn c02_invalidate_says_whether_the_key_was_cached() {
    watched(|| {
        let (clock, cache) = timed(SECOND);
        for absent in [Cache::invalidate, Cache::invalidate_nowait] {
            assert!(!absent(&cache, &1));
            cache.insert(1, 10);
            assert!(absent(&cache, &1));
            assert!(!absent(&cache, &1));
            cache.get_with(&1, || 10);
            clock.advance(SECOND);
            assert!(!absent(&cache, &1), "it had expired");
        }
        assert_eq!(cache.remove(&1), None);
        cache.insert(1, 10);
        assert_eq!(cache.remove(&1), Some(10));
        assert_eq!(cache.remove(&1), None);
        // What a compute leaves is what `remove` returns.
        cache.insert(1, 10);
        let held = Held::new();
        let leader = start_compute(&cache, 1, 11, &held);
        let removing = {
            let cache = cache.clone();
            thread::spawn(move || cache.remove(&1))
        };
        spin_until(|| cache.in_flight()[0].fenced_off);
        held.end.open();
        assert_eq!(removing.join().unwrap(), Some(11));
        leader.join().unwrap();
        assert_eq!(cache.len(), 0);
    });
}

#[test]
fn c02_invalidate_if_detaches_a_first_fill_and_does_not_wait() {
    watched(|| {
        for odd in [false, true] {
            let cache = plain();
            (0..100).for_each(|key| cache.insert(key, key));
            let held = Held::new();
            let leader = start_fill(&cache, 1000, if odd { 11 } else { 10 }, &held);
            cache.invalidate_if(|_, value| value % 2 == 1);
            held.end.open();
            assert_eq!(leader.join().unwrap(), if odd { 11 } else { 10 });
            // There was no value to judge.
            assert!(!cache.contains(&1000));
            assert_eq!(cache.len(), 50);
            assert!(cache.iter().all(|(_, value)| value % 2 == 0));
        }
    });
}

#[test]
fn c02_invalidate_all_waits_for_every_fill_and_for_no_later_one() {
    watched(|| {
        let cache = plain();
        (0..500).for_each(|key| cache.insert(key, key));
        let fills: Vec<_> = (1000..1004)
            .map(|key| {
                let held = Held::new();
                (start_fill(&cache, key, key, &held), held)
            })
            .collect();
        let erasing = {
            let cache = cache.clone();
            thread::spawn(move || cache.invalidate_all())
        };
        spin_until(|| cache.is_empty());
        // This one has begun after the fence: it is not waited for, though it never ends.
        let later = Held::new();
        let late = start_fill(&cache, 2000, 2000, &later);
        for (number, (_, held)) in fills.iter().enumerate() {
            let_others_run();
            assert!(!erasing.is_finished(), "{number} of 4 fills have ended");
            held.end.open();
        }
        // Unless its place had not been walked past yet: then it may be waited for as well.
        let_others_run();
        later.end.open();
        erasing.join().unwrap();
        late.join().unwrap();
        for (leader, _) in fills {
            let key = leader.join().unwrap();
            assert!(!cache.contains(&key));
        }
    });
}

/// R4 of the specification, and R2: every value is the stamp that its fill or compute drew when
/// it began. What is read after an invalidation must have been begun after that was called.
///
/// `invalidate_if` leaves computes alone that have read nothing that it picks: so without `computes` none puts in.
fn no_value_outlives(erase: fn(&Cache<u64, u64>), waits: bool, computes: bool) {
    let cache = plain();
    let (stamps, running) = (AtomicU64::new(1), AtomicUsize::new(0));
    let (stop, barrier) = (AtomicBool::new(false), Barrier::new(7));
    let fill = || {
        let others = running.fetch_add(1, SeqCst);
        let stamp = stamps.fetch_add(1, SeqCst);
        assert!(others == 0 || !waits, "two fills of one key at once");
        if stamp % 5 == 0 {
            thread::yield_now();
        }
        running.fetch_sub(1, SeqCst);
        stamp
    };
    thread::scope(|scope| {
        let last = if computes {
            Verb::Compute
        } else {
            Verb::GetWith
        };
        for verb in [Verb::GetWith, Verb::Guard, Verb::Pinned, last] {
            let (cache, stop, barrier, fill) = (&cache, &stop, &barrier, &fill);
            scope.spawn(move || {
                barrier.wait();
                while !stop.load(SeqCst) {
                    let came = verb.ask(cache, 1, || Ok(fill()));
                    // One that does not wait comes before a compute, which has no effect then.
                    assert!(came.is_ok() || !waits && verb.computes(), "{came:?}");
                }
            });
        }
        // Computes that renew, and computes that put back what was there.
        scope.spawn(|| {
            barrier.wait();
            while !stop.load(SeqCst) {
                if computes {
                    cache.entry(1).and_compute_with(|_| Op::Put(fill()));
                }
                cache.entry(1).and_compute_with(|_| Op::Nop);
            }
        });
        let erasers = [(); 2].map(|()| {
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..400 {
                    let called = stamps.fetch_add(1, SeqCst);
                    erase(&cache);
                    let seen = cache.get(&1);
                    assert!(seen.is_none_or(|begun| begun > called), "{seen:?} {called}");
                    let seen = cache.get_with(&1, fill);
                    assert!(seen > called, "{seen} {called}");
                }
            })
        });
        let results = erasers.map(thread::ScopedJoinHandle::join);
        stop.store(true, SeqCst);
        for result in results {
            result.unwrap();
        }
    });
    let values = cache.iter().count();
    assert_eq!(cache.len(), values);
}

#[test]
fn c02_no_value_outlives_an_invalidate() {
    watched(|| {
        no_value_outlives(
            |cache| {
                cache.invalidate(&1);
            },
            true,
            true,
        );
    });
}

#[test]
fn c02_no_value_outlives_a_remove() {
    watched(|| {
        no_value_outlives(
            |cache| {
                cache.remove(&1);
            },
            true,
            true,
        );
    });
}

#[test]
fn c02_no_value_outlives_an_invalidate_nowait() {
    watched(|| {
        no_value_outlives(
            |cache| {
                cache.invalidate_nowait(&1);
            },
            false,
            true,
        );
    });
}

#[test]
fn c02_no_value_outlives_an_invalidate_all() {
    watched(|| no_value_outlives(Cache::invalidate_all, true, true));
}

#[test]
fn c02_no_value_outlives_an_invalidate_if() {
    watched(|| {
        no_value_outlives(|cache| cache.invalidate_if(|_, _| true), true, false);
    });
}

/// Computes that leave everything as it is put a slot in front of the live value for a while. An
/// `invalidate_if` (or `_all`) that comes to the value then must not miss it.
#[test]
fn c02_invalidate_if_removes_a_value_that_a_compute_has_stepped_in_front_of_meanwhile() {
    watched(|| {
        const KEYS: u64 = 16;
        let cache = plain();
        (0..KEYS).for_each(|key| cache.insert(key, key));
        let held = Held::new();
        let (begun, step_in_front) = (Tally::default(), Gate::new());
        let computes: Vec<_> = (0..KEYS)
            .map(|key| {
                let (cache, held, begun) = (cache.clone(), held.clone(), begun.clone());
                let go = step_in_front.clone();
                thread::spawn(move || {
                    go.pass();
                    cache.entry(key).and_compute_with(|_| {
                        begun.add();
                        held.hold(Op::Nop)
                    });
                })
            })
            .collect();
        let erasing = {
            let (cache, begun, go) = (cache.clone(), begun.clone(), step_in_front.clone());
            thread::spawn(move || {
                let mut first = true;
                cache.invalidate_if(|_, _| {
                    if std::mem::take(&mut first) {
                        go.open();
                        spin_until(|| begun.get() == KEYS);
                    }
                    true
                });
            })
        };
        spin_until(|| begun.get() == KEYS);
        for _ in 0..20 {
            let_others_run();
        }
        held.end.open();
        erasing.join().unwrap();
        for compute in computes {
            compute.join().unwrap();
        }
        assert_eq!(
            cache.iter().collect::<Vec<_>>(),
            [],
            "all had been there before"
        );
    });
}

/// A refresh that fails puts the old value back: not into the path of an `invalidate_all`.
#[test]
fn c02_invalidate_all_removes_a_value_that_a_failing_refresh_puts_back() {
    watched(|| {
        let cache: AtomicCache<u64, u64, Refused> = {
            let stamps = Tally::default();
            AtomicCache::try_new(
                move |_| match stamps.add() % 4 {
                    0 => Ok(stamps.get()),
                    _ => Err(Refused("no")),
                },
                None,
            )
        };
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(SeqCst) {
                        let _ = cache.try_refresh(&1);
                    }
                });
            }
            let mut result = Ok(());
            for _ in 0..3000 {
                let old = cache.peek(&1);
                cache.invalidate_all();
                let seen = cache.peek(&1);
                if old.is_some() && seen == old {
                    result = Err(seen);
                    break;
                }
            }
            stop.store(true, SeqCst);
            assert_eq!(result, Ok(()), "it had been there before");
        });
    });
}

/// With traffic that never lets a key be without a fill, `invalidate_if` still ends.
#[test]
fn c02_invalidate_if_waits_for_no_fill_that_began_after_it_was_called() {
    watched(|| {
        let (_clock, cache) = timed(Duration::ZERO);
        let ends = [(); 3].map(|()| Held::new());
        let leader = start_fill(&cache, 1, 1, &ends[0]);
        let next = |own: &Held| {
            let (cache, own) = (cache.clone(), own.clone());
            thread::spawn(move || {
                // Does not get a value from the flight it finds, but a flight of its own.
                cache.entry(1).and_compute_with(|_| Op::Put(own.hold(2)))
            })
        };
        let second = next(&ends[1]);
        await_joined(|| cache.stats(), 1);
        let erasing = {
            let cache = cache.clone();
            thread::spawn(move || cache.invalidate_if(|_, _| true))
        };
        // It waits for the first fill; let it begin to, or it may well wait for the second.
        for _ in 0..10 {
            let_others_run();
        }
        ends[0].end.open();
        ends[1].begun.pass();
        let late = (0..300).all(|_| {
            let_others_run();
            !erasing.is_finished()
        });
        ends[1].end.open();
        erasing.join().unwrap();
        leader.join().unwrap();
        second.join().unwrap();
        assert!(!late, "it waits for a fill that began after it was called");
    });
}

// ---- 3. `insert` beats an older fill.

#[test]
fn c03_insert_beats_a_running_fill_whatever_leads_it() {
    watched(|| {
        for leader in Verb::ALL {
            let cache = plain();
            let held = Held::new();
            let leading = {
                let (cache, held) = (cache.clone(), held.clone());
                thread::spawn(move || leader.ask(&cache, 1, || Ok(held.hold(10))))
            };
            held.begun.pass();
            let joined: Vec<_> = Verb::joining()
                .map(|verb| {
                    let cache = cache.clone();
                    thread::spawn(move || assert_eq!(verb.ask(&cache, 1, || Ok(20)), Ok(99)))
                })
                .collect();
            await_joined(|| cache.stats(), joined.len() as u64);
            cache.insert(1, 99);
            assert_eq!(cache.get(&1), Some(99));
            // At once: the fill is still running.
            for joined in joined {
                joined.join().unwrap();
            }
            assert!(!held.end.is_open());
            held.end.open();
            // The leader's caller gets what it computed; it is not cached.
            assert_eq!(leading.join().unwrap(), Ok(10), "{leader:?}");
            assert_eq!((cache.get(&1), cache.len()), (Some(99), 1));
            assert_eq!(cache.stats().fills, 1);
        }
    });
}

#[test]
fn c03_insert_with_ttl_zero_still_reaches_the_waiters() {
    watched(|| {
        let (_clock, cache) = timed(Duration::ZERO);
        let held = Held::new();
        let leader = start_fill(&cache, 1, 10, &held);
        let waiters = join_flight(&cache, 1, 3, 20);
        cache.insert(1, 99);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), 99);
        }
        held.end.open();
        assert_eq!(leader.join().unwrap(), 10);
        assert_eq!(cache.len(), 0);
    });
}

/// However an older flight ends, it can undo nothing newer: neither an insert, nor a removal, nor
/// a newer fill.
#[test]
fn c03_an_older_flight_never_undoes_anything_newer() {
    watched(|| {
        // How the old fill ends, what is done meanwhile, and what is to be there at last.
        type Step = (&'static str, fn(&Cache<u64, u64>), Option<u64>);
        let steps: [Step; 5] = [
            ("insert", |cache| cache.insert(1, 30), Some(30)),
            (
                "insert, invalidate",
                |cache| {
                    cache.insert(1, 30);
                    assert!(cache.invalidate(&1));
                },
                None,
            ),
            (
                "insert, insert",
                |cache| {
                    cache.insert(1, 30);
                    cache.insert(1, 31);
                },
                Some(31),
            ),
            (
                "invalidate_nowait, fill",
                |cache| {
                    cache.invalidate_nowait(&1);
                    assert_eq!(cache.get_with(&1, || 40), 40);
                },
                Some(40),
            ),
            (
                "insert, compute",
                |cache| {
                    cache.insert(1, 30);
                    cache
                        .entry(1)
                        .and_compute_with(|there| Op::Put(there.unwrap() + 1));
                },
                Some(31),
            ),
        ];
        for (name, step, at_last) in steps {
            for ending in ["value", "error", "panic"] {
                for prior in [None, Some(5)] {
                    let cache = plain();
                    if let Some(prior) = prior {
                        cache.insert(1, prior);
                    }
                    let held = Held::new();
                    let old = {
                        let (cache, held) = (cache.clone(), held.clone());
                        thread::spawn(move || {
                            cache.entry(1).and_compute_with(|_| {
                                held.hold(());
                                match ending {
                                    "value" => Op::Put(10),
                                    "error" => Op::Nop,
                                    _ => unwind("on purpose"),
                                }
                            })
                        })
                    };
                    held.begun.pass();
                    step(&cache);
                    held.end.open();
                    assert_eq!(old.join().is_err(), ending == "panic");
                    let now = cache.get(&1);
                    assert_eq!(now, at_last, "{name}, then {ending} over {prior:?}");
                    assert_eq!(cache.len(), at_last.iter().len());
                }
            }
        }
    });
}

/// R5: of every insert, what is read next is it or something begun later.
#[test]
fn c03_reads_after_an_insert_see_it_or_something_newer() {
    watched(|| {
        let cache = plain();
        let (stamps, stop) = (AtomicU64::new(1), AtomicBool::new(false));
        let stamp = || stamps.fetch_add(1, SeqCst);
        thread::scope(|scope| {
            for worker in 0..4 {
                let (cache, stop, stamp) = (&cache, &stop, &stamp);
                scope.spawn(move || {
                    while !stop.load(SeqCst) {
                        match worker {
                            0 => {
                                cache.invalidate_nowait(&1);
                            }
                            1 => {
                                cache.invalidate(&1);
                            }
                            _ => {
                                cache.get_with(&1, || {
                                    let begun = stamp();
                                    thread::yield_now();
                                    begun
                                });
                            }
                        }
                    }
                });
            }
            // One alone: of two inserts that cross, either may come second.
            let inserter = scope.spawn(|| {
                for _ in 0..4000 {
                    let inserted = stamp();
                    cache.insert(1, inserted);
                    let seen = cache.get(&1);
                    assert!(
                        seen.is_none_or(|seen| seen >= inserted),
                        "{seen:?} after {inserted}"
                    );
                }
            });
            let result = inserter.join();
            stop.store(true, SeqCst);
            result.unwrap();
        });
    });
}

// ---- 4. Failure.

/// One flight whose leader's fill ends without a value, and three callers of `joiner` whose own
/// fill would return 20.
fn failed_flight(
    leader: Verb,
    joiner: Verb,
    fail: fn() -> Result<u64, Refused>,
) -> (thread::Result<Came>, Vec<Came>, u64) {
    let cache = plain();
    let (fills, held) = (Tally::default(), Held::new());
    let leading = {
        let (cache, fills, held) = (cache.clone(), fills.clone(), held.clone());
        thread::spawn(move || {
            leader.ask(&cache, 1, || {
                fills.add();
                held.hold(());
                fail()
            })
        })
    };
    held.begun.pass();
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let (cache, ran) = (cache.clone(), fills.clone());
            thread::spawn(move || {
                joiner.ask(&cache, 1, || {
                    ran.add();
                    Ok(20)
                })
            })
        })
        .collect();
    await_joined(|| cache.stats(), 3);
    assert_eq!(cache.get(&1), None);
    held.end.open();
    let led = leading.join();
    let others = callers.into_iter().map(|caller| caller.join().unwrap());
    let others = others.collect();
    // (A compute that leaves things as they are is counted as a fill.)
    if !leader.computes() && !joiner.computes() {
        assert_fills_add_up(&cache.stats(), u64::from(cache.contains(&1)));
    }
    (led, others, fills.get())
}

#[test]
fn c04_an_error_is_shared_with_everyone_of_its_type_and_not_cached() {
    watched(|| {
        for leader in Verb::FALLIBLE {
            for joiner in Verb::joining() {
                let (led, joined, fills) = failed_flight(leader, joiner, || Err(Refused("no")));
                let text = leader.shares_refusals().then(|| "no".to_owned());
                assert_eq!(led.unwrap(), Err(text), "{leader:?} leads");
                let shared = match (leader, joiner) {
                    _ if leader.is_optional() && joiner.is_optional() => Some(None),
                    _ if leader.shares_refusals() && joiner.shares_refusals() => {
                        Some(Some("no".to_owned()))
                    }
                    // Of another type, or none at all: they look again, and one fills.
                    _ => None,
                };
                let (came, ran) = shared.map_or((Ok(20), 2), |error| (Err(error), 1));
                assert_eq!(joined, vec![came; 3], "{joiner:?} joins {leader:?}");
                assert_eq!(fills, ran, "{joiner:?} joins {leader:?}");
            }
        }
    });
}

#[test]
fn c04_a_panic_unwinds_in_the_leader_and_one_waiter_leads() {
    watched(|| {
        for leader in Verb::ALL {
            for joiner in Verb::ALL {
                let (led, joined, fills) = failed_flight(leader, joiner, || unwind("on purpose"));
                let panic = led.unwrap_err();
                assert_eq!(text_of(&*panic), "on purpose", "{leader:?} leads");
                assert_eq!(joined, vec![Ok(20); 3], "{joiner:?} joins {leader:?}");
                assert_eq!(fills, 2, "{joiner:?} joins {leader:?}");
            }
        }
    });
}

#[test]
fn c04_an_atomic_caches_fill_that_panics_or_fails_is_run_by_the_next() {
    watched(|| {
        let ways = Way::ALL.map(|way| AtomicVerb::ALL.map(|verb| (verb, way)));
        for (verb, way) in ways.into_iter().flatten() {
            let (fills, held) = (Tally::default(), Held::new());
            let cache = {
                let (fills, held) = (fills.clone(), held.clone());
                way.cache(move |key| {
                    if fills.add() == 0 {
                        held.hold(());
                        unwind("on purpose");
                    }
                    key
                })
            };
            let ask = || {
                let cache = cache.clone();
                thread::spawn(move || verb.ask(&cache, 7))
            };
            let leader = ask();
            held.begun.pass();
            let waiters = [(); 3].map(|()| ask());
            await_joined(|| cache.stats(), 3);
            held.end.open();
            assert_eq!(text_of(&*leader.join().unwrap_err()), "on purpose");
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), 7, "{verb:?}");
            }
            assert_eq!(fills.get(), 2);
            assert_eq!((cache.stats().fill_panics, cache.stats().fills), (1, 2));
        }
    });
}

#[test]
fn c04_everyone_in_the_flight_gets_a_clone_of_one_error() {
    watched(|| {
        let cache = plain();
        let held = Held::new();
        let ask = |error: Arc<str>, held: Option<Held>| {
            let cache = cache.clone();
            thread::spawn(move || {
                let result = cache.try_get_with(&1, || {
                    if let Some(held) = held {
                        held.hold(());
                    }
                    Err(error)
                });
                match result {
                    Err(TryGetError::Fill(error)) => error,
                    other => panic!("{other:?}"),
                }
            })
        };
        let leader = ask(Arc::from("the leader's"), Some(held.clone()));
        held.begun.pass();
        let waiters = [(); 4].map(|()| ask(Arc::from("its own"), None));
        await_joined(|| cache.stats(), 4);
        held.end.open();
        let error = leader.join().unwrap();
        for waiter in waiters {
            assert!(Arc::ptr_eq(&waiter.join().unwrap(), &error));
        }
        // The next caller runs its own fill.
        assert_eq!(
            cache.try_get_with(&1, || Err::<u64, _>("fresh")),
            Err(TryGetError::Fill("fresh"))
        );
        assert_eq!(cache.stats().fill_errors, 2);
        // Nothing but the error in the caller's hand keeps it.
        cache.quiesce();
        assert_eq!(Arc::strong_count(&error), 1);
    });
}

/// A `Clone` of the error that panics is a panic in the leader: a waiter leads, and the fill is
/// counted once.
#[test]
fn c04_an_error_that_cannot_be_cloned_for_the_waiters_is_a_panic_in_the_leader() {
    struct Unclonable;

    impl Clone for Unclonable {
        fn clone(&self) -> Self {
            unwind("no clone")
        }
    }

    watched(|| {
        let cache = plain();
        let held = Held::new();
        let leader = {
            let (cache, held) = (cache.clone(), held.clone());
            thread::spawn(move || {
                cache
                    .try_get_with(&1, || held.hold(Err::<u64, _>(Unclonable)))
                    .is_err()
            })
        };
        held.begun.pass();
        let waiters = join_flight(&cache, 1, 3, 20);
        held.end.open();
        assert_eq!(text_of(&*leader.join().unwrap_err()), "no clone");
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), 20);
        }
        let stats = cache.stats();
        assert_eq!((stats.fills, cache.get(&1)), (2, Some(20)));
        assert_fills_add_up(&stats, 1);
    });
}

#[test]
fn c04_a_refresh_that_fails_or_panics_keeps_the_old_value() {
    watched(|| {
        let fills = Tally::default();
        let cache: AtomicCache<u64, u64, Refused> = {
            let fills = fills.clone();
            AtomicCache::try_new(
                move |_| match fills.add() {
                    0 => Ok(0),
                    1 => Err(Refused("not now")),
                    2 => unwind("on purpose"),
                    fill => Ok(fill),
                },
                None,
            )
        };
        assert_eq!(cache.try_get(&1), Ok(0));
        assert_eq!(
            cache.try_refresh(&1),
            Err(TryGetError::Fill(Refused("not now")))
        );
        assert_eq!((cache.peek(&1), cache.len()), (Some(0), 1));
        assert_eq!(panic_text(|| cache.try_refresh(&1)), "on purpose");
        assert_eq!((cache.peek(&1), cache.len()), (Some(0), 1));
        assert_eq!(cache.try_get(&1), Ok(0));
        assert_eq!(cache.try_refresh(&1), Ok(3));
        assert_eq!((cache.peek(&1), cache.len()), (Some(3), 1));
    });
}

#[test]
fn c04_nothing_is_poisoned_and_no_limit_of_retries_is_reached() {
    watched(|| {
        let cache = plain();
        for round in 0..2000 {
            assert!(panics(|| cache.get_with(&1, || unwind("on purpose"))));
            assert!(panics(|| {
                cache.entry(1).and_compute_with(|_| unwind("on purpose"))
            }));
            let refused = cache.try_get_with(&1, || Err::<u64, _>(Refused("no")));
            assert_eq!(refused, Err(TryGetError::Fill(Refused("no"))), "{round}");
            assert_eq!(cache.optionally_get_with(&1, || None), None);
            assert!(matches!(
                cache.get_value_or_guard(&1, None),
                GuardResult::Guard(_)
            ));
        }
        assert_eq!(cache.get_with(&1, || 10), 10);
        assert_eq!(cache.len(), 1);
        assert_fills_add_up(&cache.stats(), 1);
    });
}

/// Waiters give up at every possible moment, also when the lead has just been handed to them.
#[test]
fn c04_a_waiter_that_gives_up_passes_the_lead_on() {
    watched(|| {
        for round in 0..400 {
            let cache = plain();
            let held = Held::new();
            let leader = {
                let (cache, held) = (cache.clone(), held.clone());
                thread::spawn(move || match cache.get_value_or_guard(&1, None) {
                    GuardResult::Guard(guard) => {
                        held.hold(());
                        drop(guard);
                    }
                    other => panic!("{other:?}"),
                })
            };
            held.begun.pass();
            let impatient: Vec<_> = (0..3)
                .map(|waiter| {
                    let cache = cache.clone();
                    thread::spawn(move || {
                        let patience = Duration::from_micros(round * (waiter + 1) / 4);
                        match cache.get_value_or_guard(&1, Some(patience)) {
                            GuardResult::Timeout | GuardResult::Guard(_) => {}
                            GuardResult::Value(value) => assert_eq!(value, 20),
                            other => panic!("{other:?}"),
                        }
                    })
                })
                .collect();
            let patient = {
                let cache = cache.clone();
                thread::spawn(move || cache.get_with(&1, || 20))
            };
            held.end.open();
            assert_eq!(patient.join().unwrap(), 20);
            leader.join().unwrap();
            for waiter in impatient {
                waiter.join().unwrap();
            }
            assert_eq!(cache.get(&1), Some(20));
            assert_fills_add_up(&cache.stats(), 1);
        }
    });
}

#[test]
fn c04_a_bounded_wait_ends_and_leaves_nothing_behind() {
    watched(|| {
        let cache = plain();
        let held = Held::new();
        let leader = start_fill(&cache, 1, 10, &held);
        for patience in [Duration::ZERO, Duration::from_micros(50)] {
            let result = cache.get_value_or_guard(&1, Some(patience));
            assert!(matches!(result, GuardResult::Timeout), "{result:?}");
        }
        // A patience that no clock can add up is no limit.
        let patient = {
            let cache = cache.clone();
            thread::spawn(
                move || match cache.get_value_or_guard(&1, Some(Duration::MAX)) {
                    GuardResult::Value(value) => value,
                    other => panic!("{other:?}"),
                },
            )
        };
        await_joined(|| cache.stats(), 3);
        held.end.open();
        assert_eq!(leader.join().unwrap(), 10);
        assert_eq!(patient.join().unwrap(), 10);
        cache.invalidate(&1);
        cache.quiesce();
        assert_eq!(cache.retired(), 0);
    });
}

#[test]
fn c04_a_guard_that_is_dropped_passes_the_lead_on() {
    watched(|| {
        for verb in Verb::ALL {
            let cache = plain();
            let GuardResult::Guard(guard) = cache.get_value_or_guard(&1, None) else {
                panic!("there is nobody else");
            };
            assert_eq!(guard.key(), &1);
            let waiters: Vec<_> = (0..3)
                .map(|_| {
                    let cache = cache.clone();
                    thread::spawn(move || verb.ask(&cache, 1, || Ok(20)))
                })
                .collect();
            await_joined(|| cache.stats(), 3);
            drop(guard);
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), Ok(20), "{verb:?}");
            }
            let stats = cache.stats();
            let led = if verb.computes() { 4 } else { 2 };
            assert_eq!((stats.fills, stats.fill_cancelled), (led, 1), "{verb:?}");
        }
    });
}

#[test]
fn c04_a_compute_ends_as_it_says() {
    let cache = plain();
    let compute = |op: fn(Option<&u64>) -> Op<u64>| cache.entry(1).and_compute_with(op);
    assert_eq!(compute(|_| Op::Nop), CompResult::StillNone);
    assert_eq!(compute(|_| Op::Remove), CompResult::StillNone);
    assert_eq!(compute(|_| Op::Put(1)), CompResult::Inserted(1));
    assert_eq!(compute(|_| Op::Nop), CompResult::Unchanged(1));
    assert_eq!(
        compute(|there| Op::Put(there.unwrap() + 1)),
        CompResult::ReplacedWith(2)
    );
    assert_eq!((cache.get(&1), cache.len()), (Some(2), 1));
    assert!(panics(|| compute(|_| unwind("on purpose"))));
    assert_eq!((cache.get(&1), cache.len()), (Some(2), 1));
    assert_eq!(compute(|_| Op::Remove), CompResult::Removed(2));
    assert_eq!((cache.get(&1), cache.len()), (None, 0));
}

/// The statistics' own words: "fills that ended with a value", and "with an error, or without a
/// value".
#[test]
fn c04_a_compute_that_puts_nothing_in_is_not_counted_as_one_with_a_value() {
    let cache = plain();
    cache.entry(1).and_compute_with(|_| Op::Nop);
    cache.entry(1).and_compute_with(|_| Op::Remove);
    assert_eq!(cache.stats().fill_successes(), 0, "{:?}", cache.stats());
}

// ---- 5. Cycles are errors, not hangs. (More of them: H14 and H15 in `hostile.rs`.)

#[test]
fn c05_a_fill_may_ask_for_other_keys_to_any_depth() {
    watched(|| {
        let deep = thread::Builder::new().stack_size(256 << 20).spawn(|| {
            let sum = AtomicCache::recursive(
                |sum, &n: &u64| if n == 0 { 0 } else { n + sum.get(&(n - 1)) },
                None,
            );
            (sum.get(&5000), sum.len(), sum.stats().fills)
        });
        assert_eq!(deep.unwrap().join().unwrap(), (12_502_500, 5001, 5001));
    });
}

/// Threads that walk one graph of dependencies from all sides wait for each other a lot, and
/// never in a circle: no error is ever seen, and every key is filled once.
#[test]
fn c05_no_false_alarm_on_a_graph_without_cycles() {
    watched(|| {
        const NODES: u64 = 48;
        for round in 1..40 {
            let fills = Tally::default();
            let cache: AtomicCache<u64, u64> = {
                let fills = fills.clone();
                AtomicCache::recursive(
                    move |cache, &node: &u64| {
                        fills.add();
                        let mut dice = Dice::new(round * NODES + node);
                        let mut sum = 1;
                        for _ in 0..3.min(node) {
                            let below = dice.roll(node);
                            sum += match cache.try_get(&below) {
                                Ok(value) => value % 1000,
                                Err(error) => panic!("a false alarm: {error}"),
                            };
                            thread::yield_now();
                        }
                        sum
                    },
                    None,
                )
            };
            let barrier = Barrier::new(THREADS);
            thread::scope(|scope| {
                for thread in 0..THREADS as u64 {
                    let (cache, barrier) = (&cache, &barrier);
                    scope.spawn(move || {
                        let mut dice = Dice::new(thread + 77);
                        barrier.wait();
                        for _ in 0..NODES {
                            assert!(cache.get(&dice.roll(NODES)) > 0);
                        }
                        assert!(cache.get(&(NODES - 1)) > 0);
                    });
                }
            });
            assert_eq!(fills.get(), cache.len() as u64);
        }
    });
}

/// As above, with invalidations, which wait too, inside and outside of the fills. They go down
/// the graph like the fills do, so there still is no cycle.
#[test]
fn c05_no_false_alarm_and_no_hang_when_fills_invalidate_what_is_below_them() {
    watched(|| {
        const NODES: u64 = 16;
        let cache: AtomicCache<u64, u64> = AtomicCache::recursive(
            move |cache, &node: &u64| {
                if node > 0 {
                    cache.invalidate(&(node / 2));
                    if let Err(error) = cache.try_get(&(node - 1)) {
                        panic!("a false alarm: {error}");
                    }
                }
                node
            },
            None,
        );
        thread::scope(|scope| {
            for thread in 0..THREADS as u64 {
                let cache = &cache;
                scope.spawn(move || {
                    let mut dice = Dice::new(thread + 5);
                    for _ in 0..150 {
                        let node = dice.roll(NODES);
                        match dice.roll(4) {
                            0 => {
                                cache.invalidate(&node);
                            }
                            1 => {
                                cache.invalidate_nowait(&node);
                            }
                            2 => assert_eq!(cache.refresh(&node), node),
                            _ => assert_eq!(cache.get(&node), node),
                        }
                    }
                });
            }
        });
    });
}

/// A key whose `Debug` can be used to stop a caller between joining a flight and looking for
/// cycles: keys are put into words there.
#[derive(Clone)]
struct Stopping {
    key: u64,
    armed: Arc<AtomicBool>,
    reached: Gate,
    go_on: Gate,
}

impl std::fmt::Debug for Stopping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.armed.swap(false, SeqCst) {
            self.reached.open();
            self.go_on.pass();
        }
        self.key.fmt(f)
    }
}

impl PartialEq for Stopping {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Stopping {}

impl std::hash::Hash for Stopping {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

/// The leader is lost just when a caller that leads another key has joined, and before it has
/// looked for cycles: the lead is now its own, which is no cycle.
#[test]
fn c05_being_handed_the_lead_while_one_looks_for_cycles_is_no_cycle() {
    watched(|| {
        let cache: Cache<Stopping, u64> = Cache::unbounded();
        let (armed, reached, go_on) = (Arc::new(AtomicBool::new(false)), Gate::new(), Gate::new());
        let key = |key| Stopping {
            key,
            armed: Arc::clone(&armed),
            reached: reached.clone(),
            go_on: go_on.clone(),
        };
        let held = Held::new();
        thread::scope(|scope| {
            let leader = scope.spawn(|| {
                let lost = panics(|| {
                    cache.get_with(&key(1), || {
                        held.hold(());
                        unwind("on purpose")
                    })
                });
                go_on.open();
                assert!(lost);
            });
            held.begun.pass();
            armed.store(true, SeqCst);
            let other = scope.spawn(|| {
                cache.get_with(&key(2), || {
                    let waited = cache.try_get_with(&key(1), || Ok::<_, Refused>(10));
                    assert_eq!(waited, Ok(10));
                    20
                })
            });
            reached.pass();
            held.end.open();
            leader.join().unwrap();
            assert_eq!(other.join().unwrap(), 20);
        });
        assert_eq!(cache.len(), 2);
    });
}

// ---- 6. No foreign code under anything of ours.

/// `quiesce` panics if this thread holds a pin, and drops nothing if it holds up reclamation in
/// another way. So a fill that calls it is run with nothing held.
#[test]
fn c06_fills_run_with_nothing_held_and_may_use_the_cache() {
    watched(|| {
        for verb in Verb::ALL {
            let cache = plain();
            cache.insert(2, 1);
            let came = verb.ask(&cache, 1, || {
                assert!(cache.invalidate(&2));
                // Inside a fill it waits for no reader, so not for one of another test either.
                while cache.retired() > 0 {
                    cache.quiesce();
                }
                assert_eq!(cache.get(&1), None);
                cache.insert(3, 30);
                assert_eq!(cache.get_with(&4, || 40), 40);
                assert_eq!(cache.iter().count(), 2);
                let view = cache.pin();
                Ok(view[&3] + view[&4])
            });
            assert_eq!(came, Ok(70), "{verb:?}");
        }
        for way in Way::ALL {
            for verb in AtomicVerb::ALL {
                let cache = way.chain(|cache, key| {
                    cache.quiesce();
                    key.checked_sub(1)
                });
                assert_eq!(verb.ask(&cache, 20), 20, "{verb:?}");
            }
        }
    });
}

/// A value whose drop uses its own cache and, on another thread, reclaims another one: that
/// would hang if the dropping thread were pinned.
struct Restless {
    home: Option<Cache<u64, Arc<Restless>>>,
    drops: Tally,
}

impl Drop for Restless {
    fn drop(&mut self) {
        let Some(home) = self.home.take() else {
            return;
        };
        let number = self.drops.add();
        if number >= 2000 {
            return;
        }
        // The destructor of a value may do anything with the cache that the value was in.
        let key = 1000 + number % 8;
        let (inner, drops) = (home.clone(), self.drops.clone());
        home.get_with(&key, || {
            Arc::new(Restless {
                home: Some(inner),
                drops,
            })
        });
        home.invalidate(&(key ^ 1));
        home.contains(&key);
        home.quiesce();
        if number % 100 == 0 {
            thread::spawn(|| {
                let other = plain();
                other.insert(1, 1);
                other.invalidate(&1);
                other.quiesce();
                assert_eq!(other.retired(), 0);
            })
            .join()
            .unwrap();
        }
    }
}

#[test]
fn c06_values_are_dropped_with_nothing_held_and_may_use_the_cache() {
    watched(|| {
        let home: Cache<u64, Arc<Restless>> = Cache::unbounded();
        let drops = Tally::default();
        for key in 0..400 {
            let value = Arc::new(Restless {
                home: Some(home.clone()),
                drops: drops.clone(),
            });
            home.insert(key % 16, value);
        }
        home.invalidate_all();
        home.quiesce();
        assert!(drops.get() >= 400, "{}", drops.get());
        assert_eq!(home.stats().panicked_drops, 0);
        // The rest hold their own cache alive: take them out.
        while !home.is_empty() || home.retired() > 0 {
            home.invalidate_all();
            home.quiesce();
        }
    });
}

/// A waiter is woken, and an error dropped, by a thread that holds nothing either.
#[test]
fn c06_errors_are_dropped_with_nothing_held() {
    #[derive(Clone)]
    struct Loud(Cache<u64, u64>);

    impl Drop for Loud {
        fn drop(&mut self) {
            self.0.get_with(&2, || 20);
            self.0.invalidate(&2);
        }
    }

    watched(|| {
        let cache = plain();
        for _ in 0..200 {
            let held = Held::new();
            let ask = |held: Option<Held>| {
                let cache = cache.clone();
                thread::spawn(move || {
                    let result = cache.try_get_with(&1, || {
                        if let Some(held) = held {
                            held.hold(());
                        }
                        Err(Loud(cache.clone()))
                    });
                    assert!(matches!(result, Err(TryGetError::Fill(_))));
                })
            };
            let before = cache.stats().joined;
            let leader = ask(Some(held.clone()));
            held.begun.pass();
            let waiter = ask(None);
            spin_until(|| cache.stats().joined > before);
            held.end.open();
            leader.join().unwrap();
            waiter.join().unwrap();
        }
        assert_eq!(cache.get_with(&1, || 10), 10);
        // What waits for its drop holds the cache that it waits in.
        cache.quiesce();
    });
}

#[test]
fn c06_what_lends_a_value_may_use_the_cache() {
    watched(|| {
        let cache = plain();
        cache.insert(1, 10);
        let sum = cache.with(&1, |ten| {
            cache.insert(2, 20);
            assert!(cache.invalidate(&1));
            // Lent is lent: it is not dropped while it is looked at.
            ten + cache.get_with(&3, || 3) + cache.get(&2).unwrap()
        });
        assert_eq!(sum, Some(33));
        cache.invalidate_if(|&key, _| {
            cache.insert(key + 100, 1);
            key < 100
        });
        assert!(!cache.contains(&2) && !cache.contains(&3));
        assert!(cache.contains(&102) && cache.contains(&103));
        for (key, _) in &cache {
            cache.invalidate(&key);
        }
        assert!(cache.is_empty());
    });
}

#[test]
fn c06_a_predicate_that_panics_leaves_the_cache_usable() {
    watched(|| {
        let cache = plain();
        (0..100).for_each(|key| cache.insert(key, key));
        let held = Held::new();
        let leader = start_fill(&cache, 1000, 1000, &held);
        let mut calls = 0;
        assert!(panics(|| cache.invalidate_if(|_, _| {
            calls += 1;
            if calls == 50 {
                unwind("on purpose");
            }
            true
        })));
        assert!((50..=51).contains(&cache.len()), "{}", cache.len());
        held.end.open();
        assert_eq!(leader.join().unwrap(), 1000);
        cache.invalidate_if(|_, _| true);
        assert!(cache.is_empty());
        cache.quiesce();
        assert_eq!(cache.retired(), 0);
    });
}

/// A walk whose caller catches the panic of a `Clone` and goes on sees each entry once.
#[test]
fn c06_a_clone_that_panics_in_a_walk_leaves_it_where_it_was() {
    struct Fragile<'a>(u64, &'a AtomicUsize);

    impl Clone for Fragile<'_> {
        fn clone(&self) -> Self {
            if self.1.fetch_add(1, SeqCst) % 37 == 5 {
                unwind("on purpose");
            }
            Self(self.0, self.1)
        }
    }

    let clones = AtomicUsize::new(0);
    let cache: Cache<u64, Fragile<'_>> = Cache::unbounded();
    (0..100).for_each(|key| cache.insert(key, Fragile(key, &clones)));
    let mut entries = cache.iter();
    let (mut seen, mut panicked) = (vec![], 0);
    loop {
        match catch_unwind(AssertUnwindSafe(|| entries.next())) {
            Ok(Some((key, value))) => {
                assert_eq!(key, value.0);
                seen.push(key);
            }
            Ok(None) => break,
            Err(_) => panicked += 1,
        }
    }
    seen.sort_unstable();
    assert!(seen.iter().copied().eq(0..100), "{seen:?}");
    assert!(panicked > 0);
}

// ---- 8. Time.

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

// ---- 9. Bounds.

#[test]
fn c09_quiesce_returns_when_everything_removed_has_been_dropped() {
    watched(|| {
        type Way = fn(&Cache<u64, Counted>, &Arc<Ledger>);
        let ways: [(&str, Way); 7] = [
            ("invalidate", |cache, _| {
                (0..500).for_each(|key| {
                    cache.invalidate(&key);
                });
            }),
            ("invalidate_nowait", |cache, _| {
                (0..500).for_each(|key| {
                    cache.invalidate_nowait(&key);
                });
            }),
            ("remove", |cache, _| {
                (0..500).for_each(|key| {
                    cache.remove(&key);
                });
            }),
            ("invalidate_all", |cache, _| cache.invalidate_all()),
            ("invalidate_if", |cache, _| cache.invalidate_if(|_, _| true)),
            ("compute", |cache, _| {
                for key in 0..500 {
                    cache.entry(key).and_compute_with(|_| Op::Remove);
                }
            }),
            ("insert", |cache, other| {
                (0..500).for_each(|key| cache.insert(key, other.make(key)));
            }),
        ];
        for (name, way) in ways {
            let (ledger, other) = (Ledger::new(), Ledger::new());
            let cache: Cache<u64, Counted> = Cache::unbounded();
            for key in 0..500 {
                if key % 2 == 0 {
                    cache.insert(key, ledger.make(key));
                } else {
                    drop(cache.get_with(&key, || ledger.make(key)));
                }
            }
            assert_eq!(ledger.alive(), 500);
            way(&cache, &other);
            cache.quiesce();
            assert_eq!((ledger.alive(), cache.retired()), (0, 0), "{name}");
        }
    });
}

/// What another thread has retired is waited for as well, also when that thread is gone.
#[test]
fn c09_quiesce_is_not_of_one_thread() {
    watched(|| {
        let ledger = Ledger::new();
        let cache: Cache<u64, Counted> = Cache::unbounded();
        thread::scope(|scope| {
            for thread in 0..THREADS as u64 {
                let (cache, ledger) = (&cache, &ledger);
                scope.spawn(move || {
                    for key in 0..50 {
                        cache.insert(thread * 50 + key, ledger.make(key));
                        cache.invalidate(&(thread * 50 + key));
                    }
                });
            }
        });
        cache.quiesce();
        assert_eq!((ledger.alive(), cache.retired()), (0, 0));
    });
}

#[test]
fn c09_garbage_is_visible_and_quiesce_waits_for_those_who_still_look_at_it() {
    watched(|| {
        let ledger = Ledger::new();
        let cache: Cache<u64, Counted> = Cache::unbounded();
        cache.insert(1, ledger.make(1));
        let (looking, enough) = (Gate::new(), Gate::new());
        let reader = {
            let (cache, looking, enough) = (cache.clone(), looking.clone(), enough.clone());
            thread::spawn(move || {
                let view = cache.pin();
                let lent = view.get(&1).unwrap();
                looking.open();
                enough.pass();
                assert_eq!(lent.id(), 1);
            })
        };
        looking.pass();
        assert!(cache.invalidate(&1));
        assert_eq!(cache.retired(), 1);
        let quiet = Flag::default();
        let quiescing = {
            let (cache, quiet) = (cache.clone(), quiet.clone());
            thread::spawn(move || {
                cache.quiesce();
                quiet.raise();
            })
        };
        let_others_run();
        assert!(!quiet.is_up());
        assert_eq!((ledger.alive(), cache.retired()), (1, 1));
        enough.open();
        reader.join().unwrap();
        quiescing.join().unwrap();
        assert_eq!((ledger.alive(), cache.retired()), (0, 0));
    });
}

#[test]
fn c09_quiesce_under_a_view_says_what_to_do() {
    watched(|| {
        let cache = plain();
        cache.insert(1, 10);
        let view = cache.pin();
        let text = panic_text(|| cache.quiesce());
        assert!(text.contains("drop the view first"), "{text}");
        let text = panic_text(|| cache.with(&1, |_| cache.quiesce()));
        assert!(text.contains("drop the view first"), "{text}");
        assert_eq!(view[&1], 10);
        drop(view);
        cache.quiesce();
    });
}

/// A value whose clones say that they are clones.
struct Original {
    original: bool,
    dropped: Arc<AtomicBool>,
}

impl Clone for Original {
    fn clone(&self) -> Self {
        Self {
            original: false,
            dropped: Arc::clone(&self.dropped),
        }
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        if self.original {
            self.dropped.store(true, SeqCst);
        }
    }
}

/// Waiters that have been woken, and have not run yet, keep the slot that they are to read. A
/// value that is removed meanwhile is dropped when they have; `quiesce` is to wait for them.
#[test]
fn c09_quiesce_waits_for_waiters_that_are_about_to_read_a_removed_value() {
    watched(|| {
        for round in 0..50 {
            let cache: Cache<u64, Original> = Cache::unbounded();
            let (held, dropped) = (Held::new(), Arc::new(AtomicBool::new(false)));
            let make = |original| Original {
                original,
                dropped: Arc::clone(&dropped),
            };
            thread::scope(|scope| {
                let leader = scope.spawn(|| drop(cache.get_with(&1, || held.hold(make(true)))));
                held.begun.pass();
                for _ in 0..THREADS {
                    scope.spawn(|| drop(cache.get_with(&1, || make(false))));
                }
                await_joined(|| cache.stats(), THREADS as u64);
                held.end.open();
                leader.join().unwrap();
                assert!(cache.invalidate(&1));
                cache.quiesce();
                assert!(dropped.load(SeqCst), "in round {round}");
            });
        }
    });
}

/// In a fill, which others wait for: among what `quiesce` waits for there must be nothing that
/// waits for the fill. Here the slot that the fill itself holds, replaced and out of the table.
#[test]
fn c09_quiesce_in_a_fill_does_not_wait_for_its_own_flight() {
    watched(|| {
        let cache = plain();
        let held = Held::new();
        let leader = {
            let (cache, held) = (cache.clone(), held.clone());
            thread::spawn(move || {
                cache.get_with(&1, || {
                    held.hold(());
                    cache.insert(1, 11);
                    cache.invalidate_nowait(&1);
                    cache.quiesce();
                    10
                })
            })
        };
        held.begun.pass();
        let waiters = join_flight(&cache, 1, 2, 12);
        held.end.open();
        assert_eq!(leader.join().unwrap(), 10);
        for waiter in waiters {
            // What was inserted, or what came after its removal.
            assert!([11, 12].contains(&waiter.join().unwrap()));
        }
    });
}

/// The same round a corner: an `invalidate_all` takes part in two flights and waits for one after
/// the other. What it takes part in still is held by it, and it waits for the fill that calls
/// `quiesce`.
#[test]
fn c09_quiesce_in_a_fill_does_not_wait_for_an_invalidate_all_that_waits_for_the_fill() {
    watched(|| {
        for first in [0, 1] {
            let cache = plain();
            let held = [Held::new(), Held::new()];
            let [one, other] = [first, 1 - first].map(|at| {
                let (cache, held, quiesces) = (cache.clone(), held[at].clone(), at != first);
                thread::spawn(move || {
                    cache.get_with(&(at as u64), || {
                        held.hold(());
                        if quiesces {
                            cache.quiesce();
                        }
                        1
                    })
                })
            });
            for held in &held {
                held.begun.pass();
            }
            (2..2000).for_each(|key| cache.insert(key, key));
            let invalidating = {
                let cache = cache.clone();
                thread::spawn(move || cache.invalidate_all())
            };
            // Its walk is at the end, and then it waits.
            spin_until(|| cache.is_empty());
            let_others_run();
            held[first].end.open();
            one.join().unwrap();
            held[1 - first].end.open();
            other.join().unwrap();
            invalidating.join().unwrap();
            cache.quiesce();
            assert_eq!((cache.len(), cache.retired()), (0, 0));
        }
    });
}

/// In a process of its own: a pin that another test holds would hold up this one's garbage.
#[test]
fn c09_garbage_is_bounded_on_one_thread() {
    let name = "contract::c09_garbage_is_bounded_on_one_thread";
    in_child(name, SECOND * 60, || {
        let ledger = Ledger::new();
        let cache: Cache<u64, Counted> = Cache::unbounded();
        let (mut retired, mut alive) = (0, 0);
        for key in 0..50_000 {
            match key % 3 {
                0 => {
                    cache.insert(1, ledger.make(key));
                }
                1 => {
                    drop(cache.get_with(&2, || ledger.make(key)));
                    cache.invalidate(&2);
                }
                _ => {
                    let counted = ledger.make(key);
                    cache.entry(3).and_compute_with(|_| Op::Put(counted));
                }
            }
            retired = retired.max(cache.retired());
            alive = alive.max(ledger.alive());
        }
        assert!(retired <= 512, "{retired} retired");
        assert!(alive <= 520, "{alive} alive");
        cache.invalidate_all();
        cache.quiesce();
        assert_eq!((ledger.alive(), cache.retired()), (0, 0));
    });
}

/// More threads than cores: one that is preempted while pinned holds up all others' garbage.
#[test]
fn c09_garbage_is_bounded_on_many_threads() {
    let name = "contract::c09_garbage_is_bounded_on_many_threads";
    in_child(name, SECOND * 60, || {
        let ledger = Ledger::new();
        let cache: Cache<u64, Counted> = Cache::unbounded();
        let peak = AtomicUsize::new(0);
        thread::scope(|scope| {
            for thread in 0..THREADS as u64 {
                let (cache, ledger, peak) = (&cache, &ledger, &peak);
                scope.spawn(move || {
                    let mut dice = Dice::new(thread + 9);
                    for _ in 0..20_000 {
                        let key = dice.roll(64);
                        cache.insert(key, ledger.make(key));
                        cache.invalidate(&dice.roll(64));
                        peak.fetch_max(cache.retired(), SeqCst);
                    }
                });
            }
        });
        let peak = peak.into_inner();
        println!("at most {peak} objects were retired and not dropped");
        // (crossbeam-epoch needs several turns of all threads for each batch.)
        let most = if cfg!(atomic_cache_crossbeam) {
            80_000
        } else {
            20_000
        };
        assert!(peak <= most, "{peak} retired");
        cache.invalidate_all();
        cache.quiesce();
        assert_eq!((ledger.alive(), cache.retired()), (0, 0));
    });
}

// ---- 10. `contains` and `peek` never fill and never block.

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

// ---- 11. Errors say what to do.

#[test]
fn c11_a_setting_that_cannot_be_is_refused_by_name_and_value() {
    let given = usize::MAX - 7;
    let error = Cache::<u64, u64>::builder()
        .initial_capacity(given)
        .build()
        .unwrap_err();
    assert!(matches!(error, BuildError::InitialCapacity { given: value, .. } if value == given));
    let text = error.to_string();
    let refused = format!("initial_capacity({given})");
    assert!(
        text.starts_with(&refused) && text.contains("at most"),
        "{text}"
    );
    assert!(error.source().is_none());
    for settings in [
        AtomicCache::<u64, u64>::builder().initial_capacity(given),
        AtomicCache::builder().initial_capacity(given),
    ] {
        assert_eq!(settings.build_with(|key| *key).unwrap_err(), error);
    }
    let settings = AtomicCache::<u64, u64>::builder().initial_capacity(given);
    let refused = settings.build_recursive(|_, key| *key);
    assert_eq!(refused.unwrap_err(), error);
    let settings = AtomicCache::<u64, u64>::builder().initial_capacity(given);
    let refused = settings.try_build_with(|key| Err(*key));
    assert_eq!(refused.unwrap_err(), error);
    // Any other number of entries will do.
    for entries in [0, 1, 3, 1000] {
        let cache: Cache<u64, u64> = Cache::builder().initial_capacity(entries).build().unwrap();
        (0..2000).for_each(|key| cache.insert(key, key));
        assert_eq!(cache.len(), 2000);
    }
}

#[test]
fn c11_errors_name_the_keys_and_carry_the_fills_own_error() {
    watched(|| {
        let cache: Cache<&str, u64> = Cache::unbounded();
        let cycle = cache.try_get_with(&"spam", || {
            match cache.try_get_with(&"spam", || Err(Refused("never run"))) {
                Err(TryGetError::Cycle(cycle)) => Err(cycle),
                other => panic!("{other:?}"),
            }
        });
        let Err(TryGetError::Fill(cycle)) = cycle else {
            panic!("{cycle:?}")
        };
        assert_eq!(cycle.keys(), [r#""spam""#, r#""spam""#]);
        let text = cycle.to_string();
        assert!(
            text.contains(r#""spam" -> "spam""#) && text.contains("make the fill"),
            "{text}"
        );
        let wrapped: TryGetError<Refused> = TryGetError::Cycle(cycle);
        assert_eq!(wrapped.to_string(), text);
        assert!(wrapped.source().is_none());
        // A fill's error is shown as it is, without a layer of ours.
        let refused = cache.try_get_with(&"eggs", || Err(Refused("no eggs")));
        assert_eq!(refused.as_ref().unwrap_err().to_string(), "no eggs");
        assert!(refused.unwrap_err().source().is_none());
    });
}

/// Keys that are not `Debug`, and keys whose `Debug` is long.
#[test]
fn c11_a_cycle_of_keys_that_cannot_be_shown_names_their_type() {
    #[derive(Clone, PartialEq, Eq, Hash)]
    struct Secret(u64);

    watched(|| {
        let cycle_of = |result: Result<u64, TryGetError<CycleError>>| match result {
            Err(TryGetError::Cycle(cycle)) => cycle,
            other => panic!("{other:?}"),
        };
        let cache: Cache<Secret, u64> = Cache::builder().opaque_keys().build().unwrap();
        let inner = cache.try_get_with(&Secret(1), || {
            Err(cycle_of(cache.try_get_with(&Secret(1), || Ok(1))))
        });
        let Err(TryGetError::Fill(cycle)) = inner else {
            panic!("{inner:?}")
        };
        assert!(cycle.keys()[0].contains("Secret"), "{cycle}");

        let cache: Cache<String, u64> = Cache::unbounded();
        let long = "spam".repeat(1000);
        let inner =
            cache.try_get_with(&long, || Err(cycle_of(cache.try_get_with(&long, || Ok(1)))));
        let Err(TryGetError::Fill(cycle)) = inner else {
            panic!("{inner:?}")
        };
        assert!(cycle.keys()[0].chars().count() <= 121, "{cycle}");
    });
}
