//! Clause 9: `quiesce`, and garbage is bounded. (Capacity and weights: `bounds/`. When values are dropped: `reclaim/`.)

use crate::support::common::*;
use atomic_cache::{Cache, Op};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

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

/// Garbage that another thread has retired is waited for as well, also when that thread is gone.
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

/// A value with clones that say that they are clones.
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
/// value that is removed meanwhile is dropped when they have; `quiesce` does not wait for them.
#[test]
fn c09_quiesce_drops_a_removed_value_when_the_last_waiter_has_read_it() {
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
            });
            cache.quiesce();
            assert!(dropped.load(SeqCst), "in round {round}");
        }
    });
}

/// In a fill that others wait for: `quiesce` must wait for nothing that waits for the fill. Here that is the slot that
/// the fill itself holds, replaced and out of the table.
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
            // The inserted value, or one made after its removal.
            assert!([11, 12].contains(&waiter.join().unwrap()));
        }
    });
}

/// The same round a corner: an `invalidate_all` takes part in two flights and waits for one after the other. It holds
/// the flight it still takes part in, and it waits for the fill that calls `quiesce`.
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
    let name = test_name!();
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
    let name = test_name!();
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
