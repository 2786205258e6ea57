//! Clause 3: `insert` beats an older fill.

use crate::support::common::*;
use atomic_cache::{Cache, Op};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

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
            // The leader's caller gets the value it computed; it is not cached.
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
        // How the old fill ends, the step done meanwhile, and the value that is there at last.
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

/// R5: a read after an insert gets that value or one begun later.
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
