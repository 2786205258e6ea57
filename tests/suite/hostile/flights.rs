//! H3, H4, H26, H27: a fill that is overtaken, that fails late, and looks while it runs. (More: clauses 2 and 3 in
//! `contract/`.)

use crate::support::common::*;
use atomic_cache::AtomicCache;
use std::thread;

#[test]
fn h03_a_value_invalidated_during_its_fill_is_never_seen_later() {
    watched(|| {
        for round in 0..300 {
            let (fills, held) = (Tally::default(), Held::new());
            let cache = {
                let (fills, held) = (fills.clone(), held.clone());
                AtomicCache::new(
                    move |_: &u64| match fills.add() {
                        0 => held.hold(0),
                        fill => fill,
                    },
                    None,
                )
            };
            let leader = {
                let cache = cache.clone();
                thread::spawn(move || cache.get(&1))
            };
            held.begun.pass();
            let invalidating = {
                let cache = cache.clone();
                thread::spawn(move || {
                    if round % 2 == 0 {
                        cache.invalidate(&1);
                    } else {
                        cache.invalidate_nowait(&1);
                    }
                    (cache.peek(&1), cache.get(&1))
                })
            };
            if round % 2 == 0 {
                held.end.open();
            }
            let (peeked, got) = invalidating.join().unwrap();
            assert_eq!((peeked, got), (None, 1));
            held.end.open();
            assert_eq!(leader.join().unwrap(), 0);
            assert_eq!((cache.get(&1), fills.get()), (1, 2));
        }
    });
}

#[test]
fn h04_an_insert_during_a_fill_is_not_overwritten_by_it() {
    watched(|| {
        for verb in Verb::ALL {
            let cache = plain();
            // From inside, and from another thread.
            let came = verb.ask(&cache, 1, || {
                cache.insert(1, 11);
                assert_eq!(cache.get(&1), Some(11));
                let other = cache.clone();
                thread::spawn(move || other.insert(1, 12)).join().unwrap();
                assert_eq!(cache.get_with(&1, || 13), 12);
                Ok(10)
            });
            assert_eq!(came, Ok(10), "{verb:?}");
            assert_eq!((cache.get(&1), cache.len()), (Some(12), 1));
        }
    });
}

/// With waiters of its own: they look again, and get the newer value.
#[test]
fn h26_an_old_flight_that_fails_after_a_newer_one_succeeded_changes_nothing() {
    watched(|| {
        for ending in ["error", "panic", "none"] {
            for _ in 0..20 {
                let cache = plain();
                let held = Held::new();
                let old = {
                    let (cache, held) = (cache.clone(), held.clone());
                    thread::spawn(move || {
                        cache.entry(1).or_try_insert_with(|| {
                            held.hold(());
                            match ending {
                                "panic" => unwind("on purpose"),
                                _ => Err::<u64, _>(Refused("late")),
                            }
                        })
                    })
                };
                held.begun.pass();
                let waiters = join_flight(&cache, 1, 3, 20);
                cache.invalidate_nowait(&1);
                assert_eq!(cache.get_with(&1, || 30), 30);
                held.end.open();
                assert_eq!(old.join().is_err(), ending == "panic");
                for waiter in waiters {
                    assert_eq!(waiter.join().unwrap(), 30);
                }
                assert_eq!((cache.get(&1), cache.len()), (Some(30), 1));
                assert_eq!(cache.stats().fills, 2);
            }
        }
    });
}

#[test]
fn h27_a_key_that_is_being_filled_is_not_there_yet() {
    watched(|| {
        let cache = plain();
        cache.insert(2, 20);
        for verb in Verb::ALL {
            let came = verb.ask(&cache, 1, || {
                let look = || {
                    assert!(!cache.contains(&1));
                    assert_eq!((cache.peek(&1), cache.get(&1)), (None, None));
                    assert_eq!((cache.len(), cache.is_empty()), (1, false));
                    assert_eq!(cache.iter().collect::<Vec<_>>(), [(2, 20)]);
                    let view = cache.pin();
                    assert_eq!(view.iter().collect::<Vec<_>>(), [(&2, &20)]);
                };
                look();
                // As others see it.
                thread::scope(|scope| scope.spawn(look).join().unwrap());
                Ok(10)
            });
            assert_eq!(came, Ok(10));
            assert_eq!((cache.len(), cache.iter().count()), (2, 2));
            assert_eq!(cache.remove(&1), Some(10));
        }
    });
}
