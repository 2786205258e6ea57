//! H14: a fill asks for its own key. H15: cycles round several threads. H16: a fill that removes or sets its own key.

use crate::support::common::*;
use atomic_cache::{AtomicCache, Cache, GuardResult, Op, TryGetError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;

// ---- H14: a fill asks for its own key.

/// The error or panic of `verb` when its fill would wait for itself.
fn cycle_text(verb: Verb, ask: impl FnOnce() -> Came) -> String {
    match verb {
        Verb::TryGetWith
        | Verb::OrTryInsertWith
        | Verb::PinnedTry
        | Verb::Guard
        | Verb::TryGetWithAsync
        | Verb::OrTryInsertWithAsync => ask().unwrap_err().expect("an error with a text"),
        _ => panic_text(ask),
    }
}

#[test]
fn h14_a_fill_that_asks_for_its_own_key_is_told_so_by_every_verb_in_every_verb() {
    watched(|| {
        for outer in Verb::ALL {
            for inner in Verb::ALL {
                let cache = plain();
                let came = outer.ask(&cache, 17, || {
                    let text = cycle_text(inner, || {
                        inner.ask(&cache, 17, || unreachable!("the key has a fill"))
                    });
                    assert!(text.contains("17 -> 17"), "{inner:?} in {outer:?}: {text}");
                    Ok(10)
                });
                assert_eq!(came, Ok(10), "{inner:?} in {outer:?}");
                assert_eq!((cache.get(&17), cache.stats().fills), (Some(10), 1));
            }
        }
        // Not caught, it is the outer caller's panic, and the key is usable afterwards.
        let cache = plain();
        let text = panic_text(|| cache.get_with(&17, || cache.get_with(&17, || 1)));
        assert!(text.contains("17 -> 17"), "{text}");
        assert_eq!(cache.get_with(&17, || 10), 10);
    });
}

#[test]
fn h14_a_recursion_that_comes_back_names_all_keys_on_its_way() {
    watched(|| {
        for way in Way::ALL {
            // 1 -> 2 -> 3 -> 4 -> 2.
            let ring = way.chain(|_, key| Some(if key == 4 { 2 } else { key + 1 }));
            for verb in AtomicVerb::ALL {
                let text = panic_text(|| verb.ask(&ring, 1));
                assert!(text.contains("2 -> 3 -> 4 -> 2"), "{text}");
                assert!(!text.contains("1 ->"), "1 is not on the cycle: {text}");
                assert!(ring.is_empty());
            }
        }
        // A refresh inside a fill is a flight of the same key as well.
        let again = AtomicCache::recursive(
            |again: &AtomicCache<u64, u64>, &key: &u64| match again.try_refresh(&key) {
                Err(TryGetError::Cycle(cycle)) => {
                    assert_eq!(cycle.keys(), ["5", "5"]);
                    key
                }
                other => panic!("{other:?}"),
            },
            None,
        );
        assert_eq!((again.get(&5), again.refresh(&5)), (5, 5));
    });
}

/// Sixteen fills on one stack, and more.
#[test]
fn h14_a_long_cycle_is_found_at_any_depth() {
    watched(|| {
        for length in [2, 15, 16, 17, 100] {
            let ring = AtomicCache::recursive(
                move |ring: &AtomicCache<u64, u64>, &key: &u64| ring.get(&((key + 1) % length)),
                None,
            );
            let text = panic_text(|| ring.get(&0));
            let last = format!("{} -> 0", length - 1);
            if length <= 16 {
                assert!(text.contains(&last), "{length}: {text}");
            }
            assert!(text.contains(" -> 0"), "{length}: {text}");
            assert!(ring.is_empty());
        }
    });
}

#[test]
fn h14_a_cycle_over_two_caches_is_found() {
    watched(|| {
        let (numbers, words) = (plain(), Cache::<String, u64>::unbounded());
        let error = numbers.try_get_with(&1, || {
            words.get_with("spam", || {
                match numbers.try_get_with(&1, || Ok::<_, String>(3)) {
                    Err(TryGetError::Cycle(cycle)) => {
                        assert_eq!(cycle.keys(), ["1", "\"spam\"", "1"]);
                        2
                    }
                    other => panic!("{other:?}"),
                }
            });
            Err::<u64, _>("seen")
        });
        assert_eq!(error, Err(TryGetError::Fill("seen")));
        assert_eq!(words.get("spam"), Some(2));
    });
}

#[test]
fn h14_who_holds_a_guard_cannot_wait_for_its_key() {
    watched(|| {
        for verb in Verb::ALL {
            let cache = plain();
            let GuardResult::Guard(guard) = cache.get_value_or_guard(&17, None) else {
                panic!("there is nobody else")
            };
            let text = cycle_text(verb, || verb.ask(&cache, 17, || Ok(1)));
            assert!(text.contains("17 -> 17"), "{verb:?}: {text}");
            // Other keys are no cycle.
            assert_eq!(verb.ask(&cache, 18, || Ok(1)), Ok(1));
            assert_eq!(guard.insert(10), 10);
            assert_eq!(verb.ask(&cache, 17, || Ok(1)), Ok(10));
        }
    });
}

// ---- H15: cycles round several threads.

/// Each of `threads` fills its own key and, once all fills run, asks for the next one's. Returns
/// the texts of the cycles that were reported; all callers must come back.
fn ring_of_threads(threads: u64, outer: Verb, inner: Verb) -> Vec<String> {
    let cache = plain();
    let barrier = Arc::new(Barrier::new(threads as usize));
    let (send, receive) = channel();
    let callers: Vec<_> = (0..threads)
        .map(|key| {
            let (cache, barrier, send) = (cache.clone(), Arc::clone(&barrier), send.clone());
            thread::spawn(move || {
                let fill = || {
                    barrier.wait();
                    let next = (key + 1) % threads;
                    let ask = || inner.ask(&cache, next, || Ok(1000 + next));
                    let came = catch_unwind(AssertUnwindSafe(ask))
                        .unwrap_or_else(|panic| Err(Some(text_of(&*panic))));
                    match came {
                        // From its leader, or by a fill of our own if the cache had none.
                        Ok(value) => assert!([100 + next, 1000 + next].contains(&value)),
                        Err(text) => send.send(text.unwrap()).unwrap(),
                    }
                    Ok(100 + key)
                };
                assert_eq!(outer.ask(&cache, key, fill), Ok(100 + key));
            })
        })
        .collect();
    for caller in callers {
        caller.join().unwrap();
    }
    drop(send);
    for key in 0..threads {
        assert_eq!(cache.get(&key), Some(100 + key));
    }
    receive.into_iter().collect()
}

#[test]
fn h15_of_two_threads_that_wait_for_each_other_one_gets_the_error() {
    watched(|| {
        for outer in Verb::ALL {
            for inner in Verb::ALL {
                let errors = ring_of_threads(2, outer, inner);
                if outer.is_async() && !inner.is_async() {
                    // Inside a poll: it would block, cycle or not.
                    assert!(!errors.is_empty(), "{inner:?} in {outer:?}");
                    continue;
                }
                assert_eq!(errors.len(), 1, "{inner:?} in {outer:?}: {errors:?}");
                let named = ["0 -> 1 -> 0", "1 -> 0 -> 1"];
                let named = named.iter().any(|cycle| errors[0].contains(cycle));
                assert!(named, "{inner:?} in {outer:?}: {errors:?}");
            }
        }
    });
}

#[test]
fn h15_of_three_and_more_threads_in_a_ring_one_gets_the_error() {
    watched(|| {
        for threads in [3, 4, 8] {
            for round in 0..40 {
                let outer = Verb::ALL[round % Verb::ALL.len()];
                let inner = Verb::ALL[(round / 2) % Verb::ALL.len()];
                let errors = ring_of_threads(threads, outer, inner);
                if outer.is_async() && !inner.is_async() {
                    assert!(!errors.is_empty(), "{inner:?} in {outer:?}");
                    continue;
                }
                assert_eq!(errors.len(), 1, "{inner:?} in {outer:?}: {errors:?}");
                for key in 0..threads {
                    let step = format!("{key} -> {}", (key + 1) % threads);
                    assert!(errors[0].contains(&step), "{errors:?}");
                }
            }
        }
    });
}

#[test]
fn h15_a_cycle_over_two_threads_and_three_caches_is_found() {
    watched(|| {
        for _ in 0..100 {
            let (a, b): (Cache<u64, u64>, Cache<u64, u64>) = (plain(), plain());
            let words: Cache<String, u64> = Cache::unbounded();
            let barrier = Barrier::new(2);
            let errors = AtomicUsize::new(0);
            let note = |result: Result<u64, TryGetError<Refused>>| match result {
                Ok(value) => value,
                Err(TryGetError::Cycle(cycle)) => {
                    assert_eq!(cycle.keys().len(), 4, "{cycle}");
                    assert!(cycle.to_string().contains("\"spam\" -> "), "{cycle}");
                    errors.fetch_add(1, SeqCst);
                    0
                }
                Err(other) => panic!("{other}"),
            };
            thread::scope(|scope| {
                // a/1 -> words/spam -> b/2 on one thread, b/2 -> a/1 on the other.
                scope.spawn(|| {
                    a.get_with(&1, || {
                        words.get_with("spam", || {
                            barrier.wait();
                            note(b.try_get_with(&2, || Ok(22)))
                        })
                    });
                });
                scope.spawn(|| {
                    b.get_with(&2, || {
                        barrier.wait();
                        note(a.try_get_with(&1, || Ok(11)))
                    });
                });
            });
            assert_eq!(errors.load(SeqCst), 1);
        }
    });
}

/// The plain methods panic with it. The fill that panics hands its key to the caller that waits for it, and that
/// caller's own fill ends.
#[test]
fn h15_a_cycle_that_nobody_catches_ends_in_one_panic() {
    watched(|| {
        for _ in 0..200 {
            let cache = plain();
            let barrier = Arc::new(Barrier::new(2));
            let callers = [(1, 2), (2, 1)].map(|(own, other)| {
                let (cache, barrier) = (cache.clone(), Arc::clone(&barrier));
                thread::spawn(move || {
                    cache.get_with(&own, || {
                        barrier.wait();
                        cache.get_with(&other, || 1000 + other) + 1
                    })
                })
            });
            let ends = callers.map(thread::JoinHandle::join);
            let panics: Vec<_> = ends.iter().filter_map(|end| end.as_ref().err()).collect();
            assert_eq!(panics.len(), 1);
            assert!(text_of(&**panics[0]).contains(" -> "));
            // The other one has filled both keys.
            assert_eq!(cache.len(), 2);
        }
    });
}

#[test]
fn h15_guards_that_wait_for_each_other_get_one_error() {
    watched(|| {
        for _ in 0..200 {
            let cache = plain();
            let barrier = Arc::new(Barrier::new(2));
            let holders = [(1, 2), (2, 1)].map(|(own, other)| {
                let (cache, barrier) = (cache.clone(), Arc::clone(&barrier));
                thread::spawn(move || {
                    let GuardResult::Guard(guard) = cache.get_value_or_guard(&own, None) else {
                        panic!("there is nobody else")
                    };
                    barrier.wait();
                    let met = match cache.get_value_or_guard(&other, Some(SECOND * 60)) {
                        GuardResult::Cycle(cycle) => {
                            let keys = cycle.keys();
                            assert_eq!((keys.first(), keys.last()), (keys.last(), keys.first()));
                            assert!(keys.contains(&own.to_string()), "{cycle}");
                            assert!(keys.contains(&other.to_string()), "{cycle}");
                            1
                        }
                        GuardResult::Value(value) => {
                            assert_eq!(value, other * 10);
                            0
                        }
                        result => panic!("{result:?}"),
                    };
                    guard.insert(own * 10);
                    met
                })
            });
            let met = holders.map(|holder| holder.join().unwrap());
            assert_eq!(met[0] + met[1], 1);
            assert_eq!((cache.get(&1), cache.get(&2)), (Some(10), Some(20)));
        }
    });
}

/// Waiting by `invalidate` is waiting: of fills that invalidate each other's keys one is detached instead, so both end,
/// and neither value is kept.
#[test]
fn h15_fills_that_invalidate_each_others_keys_both_end() {
    type Way = fn(&Cache<u64, u64>, u64);
    let ways: [(&str, Way); 4] = [
        ("invalidate", |cache, other| {
            cache.invalidate(&other);
        }),
        ("remove", |cache, other| {
            cache.remove(&other);
        }),
        ("invalidate_all", |cache, _| cache.invalidate_all()),
        ("invalidate_if", |cache, _| cache.invalidate_if(|_, _| true)),
    ];
    for (_, one) in ways {
        for (_, two) in ways {
            watched(move || {
                for round in 0..20 {
                    let cache = plain();
                    if round % 2 == 0 {
                        cache.insert(1, 5);
                    }
                    let barrier = Arc::new(Barrier::new(2));
                    let fills = [(1, 2, one), (2, 1, two)].map(|(own, other, way)| {
                        let (cache, barrier) = (cache.clone(), Arc::clone(&barrier));
                        thread::spawn(move || {
                            cache.entry(own).and_compute_with(|_| {
                                barrier.wait();
                                way(&cache, other);
                                Op::Put(own)
                            })
                        })
                    });
                    for fill in fills {
                        fill.join().unwrap();
                    }
                    // `invalidate_if` sees its own key too, and the second to end is judged.
                    assert_eq!(cache.iter().count(), cache.len());
                    cache.invalidate_all();
                    assert!(cache.is_empty());
                }
            });
        }
    }
}

#[test]
fn h15_fills_that_invalidate_each_others_keys_keep_neither_value() {
    watched(|| {
        for _ in 0..200 {
            let cache = plain();
            let barrier = Arc::new(Barrier::new(2));
            let fills = [(1, 2), (2, 1)].map(|(own, other)| {
                let (cache, barrier) = (cache.clone(), Arc::clone(&barrier));
                thread::spawn(move || {
                    cache.get_with(&own, || {
                        barrier.wait();
                        cache.invalidate(&other);
                        own
                    })
                })
            });
            // Each has called `invalidate` after both fills had begun. One of them may have come when the other's fill
            // had ended: then it has removed the value of that one.
            for (fill, own) in fills.into_iter().zip([1, 2]) {
                assert_eq!(fill.join().unwrap(), own);
            }
            assert_eq!(cache.iter().collect::<Vec<_>>(), []);
        }
    });
}

/// One waits for the other's value, the other for the end of the first. The second to wait gets an error, or detaches
/// the fill.
#[test]
fn h15_a_get_and_an_invalidate_that_wait_for_each_other_both_end() {
    watched(|| {
        for _ in 0..200 {
            let cache = plain();
            let barrier = Arc::new(Barrier::new(2));
            let getting = {
                let (cache, barrier) = (cache.clone(), Arc::clone(&barrier));
                thread::spawn(move || {
                    cache.get_with(&1, || {
                        barrier.wait();
                        match cache.try_get_with(&2, || Ok::<_, Refused>(20)) {
                            Ok(value) => value,
                            Err(TryGetError::Cycle(cycle)) => {
                                assert_eq!(cycle.keys(), ["2", "1", "2"]);
                                0
                            }
                            Err(other) => panic!("{other}"),
                        }
                    })
                })
            };
            let invalidating = {
                let (cache, barrier) = (cache.clone(), Arc::clone(&barrier));
                thread::spawn(move || {
                    cache.get_with(&2, || {
                        barrier.wait();
                        cache.invalidate(&1);
                        2
                    })
                })
            };
            assert!([0, 2].contains(&getting.join().unwrap()));
            assert_eq!(invalidating.join().unwrap(), 2);
            assert!(!cache.contains(&1));
            assert!(cache.contains(&2));
        }
    });
}

/// Random graphs with cycles, walked by many threads at once, with panics and invalidations: every call returns, with a
/// value or with an error that names keys.
#[test]
fn h15_nobody_hangs_on_random_graphs_with_cycles() {
    watched(|| {
        const NODES: u64 = 12;
        for round in 0..30 {
            let caprice = Arc::new(Caprice::default());
            let cache: AtomicCache<u64, u64> = AtomicCache::recursive(
                move |cache, &node: &u64| {
                    let edges = caprice.roll(3);
                    for _ in 0..edges {
                        let next = caprice.roll(NODES);
                        match caprice.roll(12) {
                            0 => drop(cache.invalidate(&next)),
                            1 => drop(cache.try_refresh(&next)),
                            2 => {
                                // May panic, and then so do we.
                                cache.get(&next);
                            }
                            3 => unwind("on purpose"),
                            _ => {
                                if let Err(error) = cache.try_get(&next) {
                                    assert!(error.to_string().contains(" -> "), "{error}");
                                }
                            }
                        }
                    }
                    node
                },
                None,
            );
            let barrier = Barrier::new(THREADS);
            thread::scope(|scope| {
                for thread in 0..THREADS as u64 {
                    let (cache, barrier) = (&cache, &barrier);
                    scope.spawn(move || {
                        let mut dice = Dice::new(round * 100 + thread);
                        barrier.wait();
                        for _ in 0..60 {
                            let node = dice.roll(NODES);
                            match dice.roll(10) {
                                0 => drop(cache.invalidate(&node)),
                                1 => cache.invalidate_all(),
                                _ => {
                                    let got = catch_unwind(AssertUnwindSafe(|| cache.get(&node)));
                                    assert!(got.is_err() || got.is_ok_and(|got| got == node));
                                }
                            }
                        }
                    });
                }
            });
            // At rest no thread leads and none waits: every key can be filled.
            for node in 0..NODES {
                cache.invalidate(&node);
                assert!(!cache.contains(&node));
            }
            assert_eq!(cache.len(), 0);
        }
    });
}

// ---- H16: a fill that removes or sets its own key.

#[test]
fn h16_a_fill_that_removes_its_own_key_does_not_wait_for_itself() {
    type Way = fn(&Cache<u64, u64>);
    let ways: [(&str, Way); 6] = [
        ("invalidate_if_nowait", |cache| {
            cache.invalidate_if_nowait(|_, _| true);
        }),
        ("invalidate", |cache| {
            cache.invalidate(&1);
        }),
        ("invalidate_nowait", |cache| {
            cache.invalidate_nowait(&1);
        }),
        ("remove", |cache| {
            cache.remove(&1);
        }),
        ("invalidate_all", Cache::invalidate_all),
        ("twice", |cache| {
            cache.invalidate(&1);
            cache.invalidate(&1);
            cache.invalidate_all();
        }),
    ];
    watched(move || {
        for (name, way) in ways {
            for verb in Verb::ALL {
                // It comes before a compute, which has no effect then; `invalidate_if` leaves that alone.
                if verb.computes() && name == "invalidate_if_nowait" {
                    continue;
                }
                let put = |value| {
                    if verb.computes() {
                        Err(None)
                    } else {
                        Ok(value)
                    }
                };
                let cache = plain();
                cache.insert(2, 20);
                let came = verb.ask(&cache, 1, || {
                    way(&cache);
                    assert!(!cache.contains(&1));
                    // Detached: a new flight of the key runs inside the old one.
                    assert_eq!(cache.get_with(&1, || 11), 11, "{name} in {verb:?}");
                    Ok(10)
                });
                assert_eq!(came, put(10), "{name} in {verb:?}");
                assert_eq!(cache.get(&1), Some(11), "{name} in {verb:?}");
                // Without the inner one: nothing is kept.
                let came = verb.ask(&cache, 3, || {
                    cache.invalidate_all();
                    Ok(30)
                });
                assert_eq!((came, cache.len()), (put(30), 0), "{name} in {verb:?}");
            }
        }
    });
}

#[test]
fn h16_a_compute_or_refresh_that_removes_its_own_live_key_keeps_nothing() {
    watched(|| {
        type Way = fn(&Cache<u64, u64>);
        let ways: [(&str, Way); 4] = [
            ("invalidate", |cache| assert!(cache.invalidate(&1))),
            ("remove", |cache| assert_eq!(cache.remove(&1), Some(5))),
            ("invalidate_all", Cache::invalidate_all),
            ("invalidate_if", |cache| cache.invalidate_if(|_, _| true)),
        ];
        for (name, way) in ways {
            for op in [Op::Put(10), Op::Nop, Op::Remove] {
                let cache = plain();
                cache.insert(1, 5);
                cache.entry(1).and_compute_with(|there| {
                    way(&cache);
                    assert!(!cache.contains(&1), "{name}");
                    // A value that is lent stays.
                    assert_eq!(there, Some(&5));
                    op
                });
                assert_eq!((cache.get(&1), cache.len()), (None, 0), "{name}, {op:?}");
            }
        }
        // The keys' waiters from other threads: they had joined, they get the value.
        let cache = plain();
        let held = Held::new();
        let leader = {
            let (cache, held) = (cache.clone(), held.clone());
            thread::spawn(move || {
                cache.get_with(&1, || {
                    held.hold(());
                    cache.invalidate(&1);
                    10
                })
            })
        };
        held.begun.pass();
        let waiters = join_flight(&cache, 1, 3, 20);
        held.end.open();
        assert_eq!(leader.join().unwrap(), 10);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), 10);
        }
        assert_eq!(cache.len(), 0);
    });
}

#[test]
fn h16_a_fill_that_inserts_its_own_key_is_overruled_by_it() {
    watched(|| {
        for verb in Verb::ALL {
            let cache = plain();
            let came = verb.ask(&cache, 1, || {
                cache.insert(1, 11);
                assert_eq!(verb.ask(&cache, 1, || Ok(12)), Ok(11));
                Ok(10)
            });
            assert_eq!((came, cache.get(&1)), (Ok(10), Some(11)), "{verb:?}");
            // And if it fails after that.
            let cache = plain();
            let end = catch_unwind(AssertUnwindSafe(|| {
                verb.ask(&cache, 1, || {
                    cache.insert(1, 11);
                    unwind("on purpose")
                })
            }));
            assert!(end.is_err());
            assert_eq!((cache.get(&1), cache.len()), (Some(11), 1), "{verb:?}");
        }
    });
}
