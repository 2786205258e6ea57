//! Clause 4: failure.

use crate::support::common::*;
use atomic_cache::{AtomicCache, CompResult, GuardResult, Op, TryGetError};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// One flight with a leader whose fill ends without a value, and three callers of `joiner` with a
/// fill of their own that would return 20.
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
