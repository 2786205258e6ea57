//! Clause 2: `invalidate` is linearizable and waits.

use crate::support::common::*;
use atomic_cache::{AtomicCache, Cache, CompResult, Op};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

/// The methods that remove a key and wait for its fill.
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
                // The callers that had joined get it all the same.
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
            spin_until(|| cache.peek(&1).is_none());
            assert_eq!(cache.get(&1), None);
            assert_eq!(cache.with(&1, |value| *value), None);
            assert_eq!(cache.pin().get(&1), None);
            assert_eq!(cache.iter().count(), 0);
            let fills = Tally::default();
            // A caller that wants a newer value waits for the end.
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

/// The length, which is not to count a value that no caller can get any more.
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
        // The value that a compute leaves is the one that `remove` returns.
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
        // This one has begun after the detach: it is not waited for, though it never ends.
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

/// R4 of the specification, and R2: every value is the stamp that its fill or compute drew when it began. A value read
/// after an invalidation must have been begun after that was called.
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
        // Computes that renew, and computes that put the old value back.
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
