//! Acceptance: the services of cereggii's `AtomicCache` to a Python program, done by ours. Tests
//! are named after its behaviours. Its bugs are not copied; where we differ, the test says so.
//! (`memoize` is in `macros/memoize.rs`.)

use crate::support::common::*;
use atomic_cache::{AtomicCache, ManualClock};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

#[test]
fn the_fill_is_given_to_the_constructor_and_runs_lazily() {
    let fills = Tally::default();
    let cache = {
        let fills = fills.clone();
        AtomicCache::new(
            move |key: &u64| {
                fills.add();
                key * 10
            },
            None,
        )
    };
    assert_eq!(fills.get(), 0, "nothing is filled before it is asked for");
    assert_eq!(cache.get(&1), 10);
    assert_eq!(cache.get(&1), 10);
    assert_eq!(fills.get(), 1);
    assert_eq!(cache.get(&2), 20);
    assert_eq!((fills.get(), cache.len()), (2, 2));
}

#[test]
fn the_ttl_is_optional() {
    let for_ever = AtomicCache::new(|key: &u64| *key, None);
    let for_a_while = AtomicCache::new(|key: &u64| *key, SECOND);
    let optional = AtomicCache::new(|key: &u64| *key, Some(SECOND));
    for cache in [for_ever, for_a_while, optional] {
        assert_eq!(cache.get(&1), 1);
        assert_eq!(cache.peek(&1), Some(1));
    }
}

/// An expired entry is refilled by the next caller that asks for it, not before.
#[test]
fn the_ttl_is_lazy() {
    let (clock, fills) = (ManualClock::new(), Tally::default());
    let cache = {
        let fills = fills.clone();
        AtomicCache::<u64, u64>::builder()
            .time_to_live(SECOND)
            .clock(clock.clone())
            .build_with(move |_| fills.add())
            .unwrap()
    };
    assert_eq!(cache.get(&1), 0);
    clock.advance(Duration::from_nanos(999_999_999));
    assert_eq!(cache.get(&1), 0);
    clock.advance(Duration::from_nanos(1));
    assert!(!cache.contains(&1));
    clock.advance(SECOND * 1000);
    assert_eq!(fills.get(), 1, "time alone fills nothing");
    assert_eq!(cache.get(&1), 1);
    assert_eq!((cache.get(&1), fills.get()), (1, 2));
}

#[test]
fn one_fill_per_key_under_contention_and_waiters_block() {
    watched(|| {
        for _ in 0..40 {
            let (fills, held) = (Tally::default(), Held::new());
            let cache = {
                let (fills, held) = (fills.clone(), held.clone());
                AtomicCache::new(
                    move |key: &u64| {
                        fills.add();
                        held.hold(Arc::new(*key))
                    },
                    None,
                )
            };
            let returned = Arc::new(AtomicU64::new(0));
            let callers: Vec<_> = (0..THREADS)
                .map(|_| {
                    let (cache, returned) = (cache.clone(), Arc::clone(&returned));
                    thread::spawn(move || {
                        let value = cache.get(&7);
                        returned.fetch_add(1, SeqCst);
                        value
                    })
                })
                .collect();
            await_joined(|| cache.stats(), THREADS as u64 - 1);
            let_others_run();
            assert_eq!(returned.load(SeqCst), 0, "the waiters block");
            held.end.open();
            let values: Vec<_> = callers.into_iter().map(|it| it.join().unwrap()).collect();
            assert!(values.iter().all(|value| Arc::ptr_eq(value, &values[0])));
            assert_eq!((*values[0], fills.get()), (7, 1));
        }
    });
}

/// A fill of one key holds up no caller of another.
#[test]
fn a_slow_fill_blocks_no_other_key() {
    watched(|| {
        let held = Held::new();
        let cache = {
            let held = held.clone();
            AtomicCache::new(
                move |&key: &u64| if key == 0 { held.hold(0) } else { key },
                None,
            )
        };
        let slow = {
            let cache = cache.clone();
            thread::spawn(move || cache.get(&0))
        };
        held.begun.pass();
        for key in 1..2000 {
            assert_eq!(cache.get(&key), key);
        }
        held.end.open();
        assert_eq!(slow.join().unwrap(), 0);
        assert_eq!(cache.len(), 2000);
    });
}

/// `cache[key]`: a guard indexes. Ours does not fill (an index cannot wait without the pin that it
/// lends under); `get` and `get_or_fill` do.
#[test]
fn cache_of_key_indexes() {
    let cache = AtomicCache::new(|key: &String| key.len(), None);
    assert_eq!(cache.get("spam"), 4);
    let mut view = cache.pin();
    assert_eq!(view["spam"], 4);
    assert_eq!(view[&"spam".to_owned()], 4);
    assert!(panic_text(|| view["ham"]).contains("no entry found for key"));
    assert_eq!(view.get_or_fill("ham"), &3);
    assert_eq!(view["ham"], 3);
}

/// `key in cache`. (In cereggii it is true while the first fill runs; here it is not.)
#[test]
fn in_neither_fills_nor_blocks() {
    watched(|| {
        let (fills, held) = (Tally::default(), Held::new());
        let cache = {
            let (fills, held) = (fills.clone(), held.clone());
            AtomicCache::new(
                move |key: &u64| {
                    fills.add();
                    held.hold(*key)
                },
                None,
            )
        };
        assert!(!cache.contains(&1));
        assert_eq!(fills.get(), 0);
        let caller = {
            let cache = cache.clone();
            thread::spawn(move || cache.get(&1))
        };
        held.begun.pass();
        assert!(!cache.contains(&1));
        held.end.open();
        caller.join().unwrap();
        assert!(cache.contains(&1));
        assert_eq!(fills.get(), 1);
    });
}

/// `cache[key] = value` raises there, and does not compile here: that is the `compile_fail` example
/// in the documentation of `AtomicCache`. The methods that change an entry are `refresh` and
/// `invalidate`, and after them the entry has the value that the fill computes.
#[test]
fn direct_assignment_is_refused_so_every_value_is_the_fills() {
    let fills = Tally::default();
    let cache = {
        let fills = fills.clone();
        AtomicCache::new(move |key: &u64| key * 100 + fills.add(), None)
    };
    assert_eq!(cache.get(&1), 100);
    assert_eq!(cache.refresh(&1), 101);
    assert_eq!(cache.get(&1), 101);
    assert!(cache.invalidate(&1));
    assert_eq!(cache.get(&1), 102);
    assert_eq!(cache.iter().collect::<Vec<_>>(), [(1, 102)]);
}

#[test]
fn invalidate_waits_for_the_fill() {
    watched(|| {
        for _ in 0..20 {
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
            let caller = {
                let cache = cache.clone();
                thread::spawn(move || cache.get(&1))
            };
            held.begun.pass();
            let invalidating = {
                let (cache, end) = (cache.clone(), held.end.clone());
                thread::spawn(move || {
                    cache.invalidate(&1);
                    assert!(end.is_open(), "it did not wait");
                })
            };
            let_others_run();
            assert!(!invalidating.is_finished());
            held.end.open();
            invalidating.join().unwrap();
            assert!(!cache.contains(&1));
            assert_eq!(cache.get(&1), 1);
            assert_eq!(caller.join().unwrap(), 0);
        }
    });
}

#[test]
fn invalidate_of_what_is_not_there_is_harmless() {
    let cache = AtomicCache::new(|key: &u64| *key, None);
    assert!(!cache.invalidate(&1));
    assert_eq!(cache.get(&1), 1);
    assert!(cache.invalidate(&1));
    assert!(!cache.invalidate(&1));
}

/// There, an exception is cached and raised to every caller. Here a failure is cached if it is the
/// value: let that be a `Result`.
#[test]
fn failures_are_cached_as_results() {
    watched(|| {
        let fills = Tally::default();
        let ports: AtomicCache<String, Result<u16, std::num::ParseIntError>> = {
            let fills = fills.clone();
            AtomicCache::new(
                move |text: &String| {
                    fills.add();
                    text.parse()
                },
                None,
            )
        };
        let barrier = Barrier::new(THREADS);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    barrier.wait();
                    for _ in 0..10 {
                        assert!(ports.get("eighty").is_err());
                        assert_eq!(ports.get("80"), Ok(80));
                    }
                });
            }
        });
        assert_eq!(fills.get(), 2);
        assert!(ports.contains("eighty"));
        // Until it is invalidated.
        assert!(ports.invalidate("eighty"));
        assert!(ports.get("eighty").is_err());
        assert_eq!(fills.get(), 3);
    });
}

/// There, a fill that is ended by something which is not an `Exception` leaves every later
/// caller hanging. Here a fill may end as it likes.
#[test]
fn a_fill_that_is_torn_down_leaves_nobody_hanging() {
    watched(|| {
        let fills = Tally::default();
        let cache = {
            let fills = fills.clone();
            AtomicCache::new(
                move |key: &u64| match fills.add() {
                    0 => unwind("torn down"),
                    _ => *key,
                },
                None,
            )
        };
        assert!(panics(|| cache.get(&1)));
        let caller = {
            let cache = cache.clone();
            thread::spawn(move || cache.get(&1))
        };
        assert_eq!(caller.join().unwrap(), 1);
        assert_eq!(cache.get(&1), 1);
    });
}

/// There, waiters read again, so that with a TTL of zero one flight of eight callers turns into
/// eight fills in a row. Here they get the flight's value.
#[test]
fn a_ttl_of_zero_makes_one_fill_of_one_flight() {
    watched(|| {
        let (fills, held) = (Tally::default(), Held::new());
        let cache = {
            let (fills, held) = (fills.clone(), held.clone());
            AtomicCache::new(
                move |key: &u64| {
                    fills.add();
                    held.hold(*key)
                },
                Duration::ZERO,
            )
        };
        let callers = [(); THREADS].map(|()| {
            let cache = cache.clone();
            thread::spawn(move || cache.get(&3))
        });
        await_joined(|| cache.stats(), THREADS as u64 - 1);
        held.end.open();
        for caller in callers {
            assert_eq!(caller.join().unwrap(), 3);
        }
        assert_eq!((fills.get(), cache.len()), (1, 0));
    });
}

/// There, tombstones are never freed. Here an invalidated value is dropped.
#[test]
fn what_is_invalidated_is_freed() {
    watched(|| {
        let (keys, values) = (Ledger::new(), Ledger::new());
        let cache: AtomicCache<Counted, Counted> = {
            let values = Arc::clone(&values);
            AtomicCache::new(move |key: &Counted| values.make(key.id()), None)
        };
        for id in 0..5000 {
            let key = keys.make(id);
            assert_eq!(cache.get(&key).id(), id);
            assert!(cache.invalidate(&key));
        }
        cache.quiesce();
        assert_eq!((keys.alive(), values.alive(), cache.retired()), (0, 0, 0));
    });
}
