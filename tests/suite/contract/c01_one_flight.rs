//! Clause 1: one flight per key.

use crate::support::common::*;
use atomic_cache::{AtomicCache, Cache, Op};
use std::collections::HashSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

/// One flight that `leader` leads and three callers of `joiner` join: the result of each call, and
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

/// With a TTL of zero nothing is kept, and the waiters get the flight's value all the same.
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

/// All methods at once on one flight; and on the flight that renews an expired entry.
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

/// A refresh is a flight like any other: other refreshes join it, and readers do not wait.
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
