//! H1, H2, H5: fills, clones and drops that panic.

use crate::support::common::*;
use atomic_cache::{Cache, Op};
use std::hash::{Hash, Hasher};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;

// ---- H1, H2: fills and clones that panic.

/// All callers' fills but one panic; a waiter runs the next, in turn.
#[test]
fn h01_of_many_fills_that_panic_the_one_that_does_not_is_cached() {
    watched(|| {
        for round in 0..100 {
            let cache = plain();
            let (runs, barrier) = (Tally::default(), Barrier::new(THREADS));
            let good = round % THREADS as u64;
            let panicked = thread::scope(|scope| {
                let callers: Vec<_> = (0..THREADS)
                    .map(|_| {
                        scope.spawn(|| {
                            barrier.wait();
                            cache.get_with(&1, || {
                                if runs.add() != good {
                                    unwind("on purpose");
                                }
                                10
                            })
                        })
                    })
                    .collect();
                let ends = callers.into_iter().map(thread::ScopedJoinHandle::join);
                ends.filter(|end| !matches!(end, Ok(10))).count() as u64
            });
            assert_eq!((panicked, runs.get()), (good, good + 1));
            assert_eq!(cache.get(&1), Some(10));
            assert_eq!(cache.stats().fill_panics, good);
        }
    });
}

/// A value, and a key, with a `Clone` that panics when the test tells it to.
struct Picky {
    counted: Counted,
    refuse: Arc<AtomicUsize>,
}

impl Picky {
    fn new(ledger: &Arc<Ledger>, id: u64, refuse: &Arc<AtomicUsize>) -> Self {
        Self {
            counted: ledger.make(id),
            refuse: Arc::clone(refuse),
        }
    }
}

impl Clone for Picky {
    fn clone(&self) -> Self {
        let refused = self
            .refuse
            .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        if refused.is_ok() {
            unwind("no clone");
        }
        Self {
            counted: self.counted.clone(),
            refuse: Arc::clone(&self.refuse),
        }
    }
}

impl PartialEq for Picky {
    fn eq(&self, other: &Self) -> bool {
        self.counted == other.counted
    }
}

impl Eq for Picky {}

impl Hash for Picky {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.counted.hash(state);
    }
}

#[test]
fn h02_a_clone_that_panics_as_the_value_is_handed_out_leaves_the_key_usable() {
    watched(|| {
        for refusals in 1..=5 {
            let ledger = Ledger::new();
            let refuse = Arc::new(AtomicUsize::new(0));
            let cache: Cache<u64, Picky> = Cache::unbounded();
            let held = Held::new();
            let ask = |held: Option<Held>| {
                let (cache, value) = (cache.clone(), Picky::new(&ledger, 10, &refuse));
                thread::spawn(move || {
                    cache
                        .get_with(&1, || {
                            if let Some(held) = held {
                                held.hold(());
                            }
                            value
                        })
                        .counted
                        .id()
                })
            };
            let leader = ask(Some(held.clone()));
            held.begun.pass();
            let waiters = [(); 4].map(|()| ask(None));
            await_joined(|| cache.stats(), 4);
            refuse.store(refusals, SeqCst);
            held.end.open();
            let mut ends = vec![leader.join()];
            ends.extend(waiters.into_iter().map(thread::JoinHandle::join));
            // As many clones were refused as were to be; all other callers have the value.
            let panicked = ends.iter().filter(|end| end.is_err()).count();
            assert_eq!(panicked, refusals);
            assert!(ends.into_iter().flatten().all(|id| id == 10));
            // The value is there: it was published before it was cloned.
            assert_eq!(cache.with(&1, |value| value.counted.id()), Some(10));
            assert_eq!(cache.get(&1).unwrap().counted.id(), 10);
            assert_eq!(cache.stats().fills, 1);
            refuse.store(1, SeqCst);
            assert!(panics(|| cache.get(&1)));
            refuse.store(1, SeqCst);
            assert!(panics(|| cache.peek(&1)));
            refuse.store(1, SeqCst);
            assert!(panics(|| cache.iter().count()));
            refuse.store(1, SeqCst);
            assert!(panics(|| cache.entry(1).and_compute_with(|_| Op::Nop)));
            assert_eq!(cache.len(), 1);
            refuse.store(1, SeqCst);
            assert!(panics(|| cache.remove(&1)));
            assert!(
                !cache.contains(&1),
                "removed, though nobody was told the value"
            );
            cache.quiesce();
            assert_eq!((ledger.alive(), cache.len(), cache.retired()), (0, 0, 0));
        }
    });
}

#[test]
fn h02_a_clone_of_the_key_that_panics_leaves_the_key_usable() {
    watched(|| {
        let ledger = Ledger::new();
        let refuse = Arc::new(AtomicUsize::new(0));
        let cache: Cache<Picky, u64> = Cache::builder().opaque_keys().build().unwrap();
        let key = Picky::new(&ledger, 1, &refuse);
        for _ in 0..200 {
            refuse.store(1, SeqCst);
            assert!(panics(
                || cache.get_with(&key, || unreachable!("no slot, no fill"))
            ));
            refuse.store(1, SeqCst);
            assert!(panics(|| drop(cache.get_value_or_guard(&key, None))));
        }
        assert_eq!(cache.stats().fills, 0);
        assert_eq!(cache.get_with(&key, || 10), 10);
        assert_eq!(cache.get(&key), Some(10));
        refuse.store(1, SeqCst);
        assert_eq!(cache.get(&key), Some(10), "a hit clones no key");
        drop(cache);
        assert_eq!(ledger.alive(), 1);
    });
}

// ---- H5: drops that panic.

/// A key or value with a `Drop` that panics, if the test tells it to.
struct Explosive {
    counted: Counted,
    explodes: bool,
}

impl Drop for Explosive {
    fn drop(&mut self) {
        if self.explodes {
            unwind("a drop that panics");
        }
    }
}

impl PartialEq for Explosive {
    fn eq(&self, other: &Self) -> bool {
        self.counted == other.counted
    }
}

impl Eq for Explosive {}

impl Hash for Explosive {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.counted.hash(state);
    }
}

/// Values come and go, and every third panics when it is dropped: no method ever panics, every
/// value is dropped, and the panics are counted.
#[test]
fn h05_a_drop_that_panics_is_contained_and_every_other_value_is_dropped() {
    watched(|| {
        let ledger = Ledger::new();
        let cache: Cache<u64, Arc<Explosive>> = Cache::unbounded();
        let exploding = AtomicU64::new(0);
        let make = |id: u64| {
            let explodes = id % 3 == 0;
            exploding.fetch_add(u64::from(explodes), SeqCst);
            Arc::new(Explosive {
                counted: ledger.make(id),
                explodes,
            })
        };
        let held: Vec<_> = thread::scope(|scope| {
            let threads = [1, 2, 3, 4].map(|seed| {
                let (cache, make) = (&cache, &make);
                scope.spawn(move || {
                    let mut dice = Dice::new(seed);
                    let mut held = vec![];
                    for id in 0..2000 {
                        let key = dice.roll(32);
                        match dice.roll(4) {
                            0 => cache.insert(key, make(id)),
                            1 => {
                                cache.with(&key, |value| value.counted.id());
                                cache.invalidate(&key);
                            }
                            2 => {
                                held.push(cache.get_with(&key, || make(id)));
                                cache.invalidate(&key);
                            }
                            _ => drop(cache.pin().get(&key).map(|value| value.counted.id())),
                        }
                    }
                    held
                })
            });
            threads
                .into_iter()
                .flat_map(|it| it.join().unwrap())
                .collect()
        });
        cache.invalidate_all();
        cache.quiesce();
        assert_eq!((cache.len(), cache.retired()), (0, 0));
        let in_the_cache = cache.stats().panicked_drops;
        // The others explode in our hands: each value once, here or there.
        let here = held.into_iter().map(|value| panics(|| drop(value)));
        let here = here.filter(|panicked| *panicked).count() as u64;
        assert!(in_the_cache > 0 && here > 0, "{in_the_cache}, {here}");
        assert_eq!(in_the_cache + here, exploding.load(SeqCst));
        assert_eq!(ledger.alive(), 0);
    });
}

#[test]
fn h05_every_way_to_remove_survives_a_drop_that_panics() {
    watched(|| {
        for explosive_keys in [false, true] {
            let ledger = Ledger::new();
            let make = |id: u64, explodes: bool| Explosive {
                counted: ledger.make(id),
                explodes,
            };
            let cache: Cache<Explosive, Explosive> =
                Cache::builder().opaque_keys().build().unwrap();
            let put = |id: u64| {
                let key = make(id, explosive_keys && id % 2 == 0);
                cache.insert(key, make(id, !explosive_keys && id % 2 == 0));
            };
            let probe = |id: u64| make(id, false);
            (0..400).for_each(put);
            (0..100).for_each(put);
            (100..200).for_each(|id| assert!(cache.invalidate(&probe(id))));
            cache.invalidate_if(|key, _| (200..300).contains(&key.counted.id()));
            cache.quiesce();
            assert_eq!(cache.len(), 200);
            // 50 of each hundred: replaced, invalidated one by one, invalidated by predicate.
            assert_eq!(cache.stats().panicked_drops, 150);
            assert_eq!((ledger.alive(), cache.retired()), (400, 0));
            cache.invalidate_all();
            cache.quiesce();
            assert_eq!(cache.stats().panicked_drops, 250);
            assert_eq!(ledger.alive(), 0);
            // Dropped by the cache's own end: retired ones, and live ones.
            (0..100).for_each(put);
            (0..50).for_each(|id| assert!(cache.invalidate(&probe(id))));
            drop(cache);
            assert_eq!(ledger.alive(), 0);
        }
    });
}

/// The panic of a drop may carry a payload that panics in its own drop.
#[test]
fn h05_a_drop_whose_panic_carries_a_bomb_is_contained() {
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            unwind("the payload's drop");
        }
    }

    struct Carrier(#[allow(dead_code)] Counted);

    impl Drop for Carrier {
        fn drop(&mut self) {
            resume_unwind(Box::new(Bomb));
        }
    }

    let name = test_name!();
    in_child(name, SECOND * 20, || {
        let ledger = Ledger::new();
        let cache: Cache<u64, Carrier> = Cache::unbounded();
        for id in 0..10 {
            cache.insert(id, Carrier(ledger.make(id)));
            cache.invalidate(&id);
        }
        cache.quiesce();
        assert_eq!((ledger.alive(), cache.retired()), (0, 0));
        assert_eq!(cache.stats().panicked_drops, 10);
        // And in the hash of a key that is moved, and so on: everywhere we catch.
        let other = plain();
        other.insert(1, 1);
        other.invalidate(&1);
        other.quiesce();
        assert_eq!(other.retired(), 0);
    });
}

/// Clause 6: `Hash` may panic, with any payload. A key that does so while its word is moved is let
/// go of, and no caller gets the panic: each of them asked for another key.
#[test]
fn h06_a_hash_whose_panic_carries_a_bomb_is_contained_while_the_table_grows() {
    static ARMED: AtomicBool = AtomicBool::new(false);

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            if !thread::panicking() {
                unwind("the payload's drop");
            }
        }
    }

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Mined(u64);

    impl Hash for Mined {
        fn hash<H: Hasher>(&self, state: &mut H) {
            if self.0 == 0 && ARMED.load(SeqCst) {
                resume_unwind(Box::new(Bomb));
            }
            self.0.hash(state);
        }
    }

    let name = test_name!();
    in_child(name, SECOND * 20, || {
        let cache: Cache<Mined, u64> = Cache::unbounded();
        cache.insert(Mined(0), 0);
        ARMED.store(true, SeqCst);
        for id in 1..5000 {
            assert!(!panics(|| cache.insert(Mined(id), id)), "{id}");
        }
        // 0 is lost: a resize had no hash to move it by.
        assert_eq!((cache.len(), cache.iter().count()), (4999, 4999));
        for id in 1..5000 {
            assert_eq!(cache.get(&Mined(id)), Some(id));
        }
    });
}

/// In a process of its own: two panics at once abort it.
#[test]
fn h05_a_key_and_its_value_may_both_panic_when_they_are_dropped() {
    let name = test_name!();
    in_child(name, SECOND * 20, || {
        let ledger = Ledger::new();
        let cache: Cache<Explosive, Explosive> = Cache::builder().opaque_keys().build().unwrap();
        let make = |id: u64, explodes| Explosive {
            counted: ledger.make(id),
            explodes,
        };
        (0..10).for_each(|id| cache.insert(make(id, true), make(id, true)));
        let probe = |id: u64| make(id, false);
        (0..5).for_each(|id| assert!(cache.invalidate(&probe(id))));
        cache.quiesce();
        assert_eq!(ledger.alive(), 10);
        drop(cache);
        assert_eq!(ledger.alive(), 0);
    });
}
