//! R10 of the specification, accounting at rest: the length is the number of live entries; keys,
//! values and errors that were made and not dropped are those that are live or held by callers;
//! fills started = ended with a value + with an error + by a panic + given up; nothing is retired,
//! no thread is pinned (or `quiesce` would not return), no thread is parked (or the test would not
//! end).

use crate::support::common::*;
use atomic_cache::{Cache, GuardResult, ManualClock, Op, TryGetError};
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// A key, with a hash that is shared by four keys if the test wants collisions.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    counted: Counted,
    collides: bool,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let id = self.counted.id();
        if self.collides { id / 4 } else { id }.hash(state);
    }
}

/// The settings of a churn.
#[derive(Clone, Copy, Debug)]
struct Churn {
    seed: u64,
    /// Few: contention. Many: resizes.
    keys: u64,
    ttl: bool,
    collides: bool,
    operations: u64,
}

/// Counts of the three kinds of things that a churn makes.
struct Books {
    keys: Arc<Ledger>,
    values: Arc<Ledger>,
    errors: Arc<Ledger>,
}

impl Books {
    fn alive(&self) -> (usize, usize, usize) {
        (self.keys.alive(), self.values.alive(), self.errors.alive())
    }
}

/// One operation, chosen by the dice. The caller holds its result for a while.
#[allow(clippy::too_many_lines)]
fn operate(
    cache: &Cache<Key, Counted>,
    books: &Books,
    clock: &ManualClock,
    dice: &mut Dice,
    churn: Churn,
) -> Option<Counted> {
    let id = dice.roll(churn.keys);
    let key = || Key {
        counted: books.keys.make(id),
        collides: churn.collides,
    };
    let value = || books.values.make(id);
    let error = || books.errors.make(id);
    match dice.roll(64) {
        0..10 => Some(cache.get_with(&key(), value)),
        10..14 => match cache.try_get_with(&key(), || Err::<Counted, _>(error())) {
            Ok(value) => Some(value),
            Err(TryGetError::Fill(error)) => {
                assert!(error.is_of(&books.errors));
                None
            }
            Err(other) => panic!("{other:?}"),
        },
        14..18 => cache.optionally_get_with(&key(), || (id % 2 == 0).then(value)),
        18..22 => {
            let end = catch_unwind(AssertUnwindSafe(|| {
                cache.get_with(&key(), || unwind("on purpose"))
            }));
            end.ok()
        }
        22..26 => Some(cache.entry(key()).or_insert_with(value).into_value()),
        26..30 => {
            cache.insert(key(), value());
            None
        }
        30..34 => {
            cache.invalidate(&key());
            None
        }
        34..38 => {
            cache.invalidate_nowait(&key());
            None
        }
        38..40 => cache.remove(&key()),
        40..44 => {
            let op = dice.roll(4);
            cache.entry(key()).and_compute_with(|there| match op {
                0 => Op::Remove,
                1 => Op::Nop,
                _ => Op::Put(there.map_or_else(value, Clone::clone)),
            });
            None
        }
        44 => {
            let compute = || {
                cache
                    .entry(key())
                    .and_compute_with(|_| unwind("on purpose"))
            };
            assert!(catch_unwind(AssertUnwindSafe(compute)).is_err());
            None
        }
        45..48 => match cache.get_value_or_guard(&key(), Some(Duration::from_micros(id))) {
            GuardResult::Value(value) => Some(value),
            GuardResult::Guard(guard) if id % 2 == 0 => Some(guard.insert(value())),
            GuardResult::Guard(_) | GuardResult::Timeout => None,
            other => panic!("{other:?}"),
        },
        48..52 => cache.get(&key()),
        52..55 => Some(cache.pin().get_or_fill_with(&key(), value).clone()),
        // A fill that fills another key: a lower one, so that there is no cycle.
        55..57 => Some(cache.get_with(&key(), || {
            if id > 0 {
                let below = Key {
                    counted: books.keys.make(id - 1),
                    collides: churn.collides,
                };
                drop(cache.get_with(&below, value));
            }
            value()
        })),
        57 => {
            clock.advance(SECOND / 8);
            None
        }
        58 => {
            cache.invalidate_if(|key, _| key.counted.id() % 16 == id % 16);
            None
        }
        59 if id == 0 => {
            cache.invalidate_all();
            None
        }
        60 => {
            assert!(
                cache
                    .iter()
                    .all(|(key, value)| key.counted.id() == value.id()
                        || churn.ttl
                        || !value.is_of(&books.errors))
            );
            None
        }
        61 if id % 8 == 0 => {
            cache.quiesce();
            None
        }
        _ => cache.peek(&key()),
    }
}

/// Churns on more threads than cores, and balances the books.
fn churn(churn: Churn) {
    let books = Books {
        keys: Ledger::new(),
        values: Ledger::new(),
        errors: Ledger::new(),
    };
    let clock = ManualClock::new();
    let settings = Cache::<Key, Counted>::builder();
    let cache = if churn.ttl {
        settings.time_to_live(SECOND).clock(clock.clone())
    } else {
        settings
    }
    .build()
    .unwrap();
    let held: Vec<Vec<Counted>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS as u64)
            .map(|thread| {
                let (cache, books, clock) = (&cache, &books, &clock);
                scope.spawn(move || {
                    let mut dice = Dice::new(churn.seed * 1000 + thread);
                    let mut held = vec![];
                    for _ in 0..churn.operations {
                        held.extend(operate(cache, books, clock, &mut dice, churn));
                        if held.len() > 20 {
                            held.clear();
                        }
                    }
                    held
                })
            })
            .collect();
        threads.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let held_count: usize = held.iter().map(Vec::len).sum();
    assert!(held.iter().flatten().all(|it| it.is_of(&books.values)));
    cache.quiesce();
    let stats = cache.stats();
    assert_fills_add_up(&stats, stats.fill_successes());
    assert_eq!((cache.retired(), stats.panicked_drops), (0, 0));
    assert_eq!(
        books.alive(),
        (cache.len(), cache.len() + held_count, 0),
        "{churn:?}, {stats:?}"
    );
    assert!(
        churn.ttl || cache.iter().count() == cache.len(),
        "{churn:?}"
    );
    drop(held);
    // Removing everything leaves nothing.
    cache.invalidate_all();
    cache.quiesce();
    assert_eq!((cache.len(), cache.retired()), (0, 0));
    assert_eq!(books.alive(), (0, 0, 0), "{churn:?}, {stats:?}");
    // The cache's own end drops the live values.
    let key = |id| Key {
        counted: books.keys.make(id),
        collides: churn.collides,
    };
    for id in 0..1000 {
        cache.insert(key(id), books.values.make(id));
        cache.invalidate(&key(id / 3));
    }
    drop(cache);
    assert_eq!(books.alive(), (0, 0, 0), "{churn:?}");
}

#[test]
fn r10_the_books_balance_under_contention() {
    watched(|| {
        for seed in 1..=6 {
            churn(Churn {
                seed,
                keys: 6,
                ttl: false,
                collides: seed % 2 == 0,
                operations: 1500,
            });
        }
    });
}

#[test]
fn r10_the_books_balance_while_the_table_grows() {
    watched(|| {
        for seed in 1..=4 {
            churn(Churn {
                seed,
                keys: 3000,
                ttl: false,
                collides: seed % 2 == 0,
                operations: 2500,
            });
        }
    });
}

#[test]
fn r10_the_books_balance_while_entries_expire() {
    watched(|| {
        for seed in 1..=6 {
            churn(Churn {
                seed,
                keys: if seed % 2 == 0 { 12 } else { 1000 },
                ttl: true,
                collides: false,
                operations: 1500,
            });
        }
    });
}

/// An insert that finds a running fill in its place, and a moment later, because that fill has
/// failed, nothing.
///
/// Each round hands over between two threads twice, which takes a turn of the scheduler each time
/// on a machine with other work: the watchdog looks at a tenth of the rounds at a time.
#[test]
fn r10_an_insert_that_races_a_failing_fill_leaks_nothing() {
    (0..10).for_each(|part| watched(move || insert_races_a_failing_fill(6_000, part)));
}

fn insert_races_a_failing_fill(rounds: u64, seed: u64) {
    let ledger = Ledger::new();
    let cache: Cache<u64, Counted> = Cache::unbounded();
    // Rounds that have their fill running, and rounds that have their insert done.
    let (filling, inserted) = (Tally::default(), Tally::default());
    let spin = |turns| (0..turns).for_each(|_| std::hint::spin_loop());
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut dice = Dice::new(2 * seed + 1);
            for round in 1..=rounds {
                let none = cache.optionally_get_with(&1, || {
                    filling.add();
                    spin(dice.roll(60));
                    None
                });
                drop(none);
                spin_until(|| inserted.get() == round);
                cache.invalidate(&1);
            }
        });
        scope.spawn(|| {
            let mut dice = Dice::new(2 * seed + 2);
            for round in 1..=rounds {
                spin_until(|| filling.get() == round);
                spin(dice.roll(60));
                cache.insert(1, ledger.make(round));
                inserted.add();
            }
        });
    });
    cache.quiesce();
    assert_eq!((ledger.alive(), cache.len(), cache.retired()), (0, 0, 0));
}

/// Refreshes that replace, fail, panic and are overtaken.
#[test]
fn r10_refreshes_leak_neither_the_old_values_nor_the_new() {
    watched(|| {
        let (values, errors) = (Ledger::new(), Ledger::new());
        let cache = {
            let (values, errors) = (Arc::clone(&values), Arc::clone(&errors));
            let fills = Tally::default();
            atomic_cache::AtomicCache::try_new(
                move |&key: &u64| match fills.add() % 7 {
                    0 => Err(errors.make(key)),
                    1 => unwind("on purpose"),
                    _ => Ok(values.make(key)),
                },
                None,
            )
        };
        thread::scope(|scope| {
            for thread in 0..THREADS as u64 {
                let cache = &cache;
                scope.spawn(move || {
                    let mut dice = Dice::new(thread + 40);
                    for _ in 0..2000 {
                        let key = dice.roll(3);
                        let ask = || match dice.roll(8) {
                            0 => drop(cache.invalidate(&key)),
                            1 => drop(cache.invalidate_nowait(&key)),
                            2 => cache.invalidate_all(),
                            3 | 4 => drop(cache.try_get(&key)),
                            _ => drop(cache.try_refresh(&key)),
                        };
                        let _ = catch_unwind(AssertUnwindSafe(ask));
                    }
                });
            }
        });
        cache.quiesce();
        assert_eq!((values.alive(), errors.alive()), (cache.len(), 0));
        assert_eq!(cache.iter().count(), cache.len());
        let stats = cache.stats();
        assert_fills_add_up(&stats, stats.fill_successes());
        // Detached refreshes have dropped their previous values.
        cache.invalidate_all();
        cache.quiesce();
        assert_eq!((values.alive(), cache.retired()), (0, 0));
    });
}

/// The previous value of a compute or refresh is removed with it. While the detached fill runs on,
/// `quiesce` is to return when the old value has been dropped.
#[test]
fn c09_a_value_removed_under_a_running_refresh_is_dropped_by_quiesce() {
    watched(|| {
        let ledger = Ledger::new();
        let held = Held::new();
        let cache = {
            let (ledger, held, fills) = (Arc::clone(&ledger), held.clone(), Tally::default());
            atomic_cache::AtomicCache::new(
                move |_: &u64| {
                    if fills.add() > 0 {
                        held.hold(());
                    }
                    ledger.make(1)
                },
                None,
            )
        };
        drop(cache.get(&1));
        let refreshing = {
            let cache = cache.clone();
            thread::spawn(move || drop(cache.refresh(&1)))
        };
        held.begun.pass();
        assert!(cache.invalidate_nowait(&1));
        cache.quiesce();
        let alive = ledger.alive();
        held.end.open();
        refreshing.join().unwrap();
        cache.quiesce();
        assert_eq!(ledger.alive(), 0);
        assert_eq!(alive, 0, "while the refresh that was cut off ran");
    });
}

/// In a process of its own. Flights, their waiters, errors, timeouts, cycles, guards, resizes and
/// whole caches: no byte is left of any of them.
#[test]
fn r10_memory_at_rest_is_what_it_was() {
    let name = test_name!();
    in_child(name, SECOND * 60, || {
        let round = |seed: u64| {
            churn(Churn {
                seed,
                keys: 40 + seed % 2 * 1000,
                ttl: seed % 3 == 0,
                collides: false,
                operations: 300,
            });
            // Errors that are shared.
            let cache: Cache<u64, u64> = Cache::unbounded();
            let held = Held::new();
            let leader = {
                let (cache, held) = (cache.clone(), held.clone());
                thread::spawn(move || {
                    let failed = cache.try_get_with(&1, || Err::<u64, _>(held.hold(Refused("no"))));
                    assert!(failed.is_err());
                    // A cycle, and its error.
                    assert!(panics(|| cache.get_with(&2, || cache.get_with(&2, || 1))));
                })
            };
            held.begun.pass();
            let waiters = join_flight(&cache, 1, 3, 20);
            held.end.open();
            leader.join().unwrap();
            for waiter in waiters {
                waiter.join().unwrap();
            }
        };
        // The panic hook, thread-locals and the engine's bags take their part once.
        let rest = |seeds: std::ops::Range<u64>| {
            seeds.for_each(round);
            // Deferred flags of caches that are gone are freed by the engine in its own time.
            let cache: Cache<u64, u64> = Cache::unbounded();
            for _ in 0..20 {
                cache.insert(1, 1);
                cache.invalidate(&1);
                cache.quiesce();
            }
            drop(cache);
            live_bytes()
        };
        let before = rest(0..12);
        let after = rest(12..36);
        assert!(
            after <= before + 32 * 1024,
            "{before} bytes, and {after} after three times as much"
        );
    });
}

/// In a process of its own: many short-lived caches and threads, and no memory left of them.
#[test]
fn k4_r10_short_lived_caches_and_threads_leave_nothing() {
    let name = test_name!();
    in_child(name, SECOND * 60, || {
        let generation = |caches: u64| {
            for number in 0..caches {
                let cache: Cache<u64, String> = Cache::unbounded();
                for key in 0..20 {
                    cache.get_with(&key, || "spam".repeat(10));
                    cache.insert(key / 2, String::from("ham"));
                    cache.invalidate(&(key / 3));
                }
                if number % 16 == 0 {
                    let other = cache.clone();
                    thread::spawn(move || {
                        (0..300).for_each(|key| other.insert(key, String::from("eggs")));
                        other.invalidate_all();
                    })
                    .join()
                    .unwrap();
                }
            }
            live_bytes()
        };
        let before = generation(500);
        let after = generation(rounds("ATOMIC_CACHE_K4", 20_000));
        assert!(after <= before + 32 * 1024, "{before}, then {after} bytes");
    });
}
