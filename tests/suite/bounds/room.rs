//! Clause 9: an insert, a fill or a compute that owes room pays for it, whatever happens meanwhile.

use super::counted;
use crate::support::common::*;
use crate::support::schedule::*;
use atomic_cache::{AtomicCache, Cache, CompResult, Op};
use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::thread;

/// Clause 9. In a table that just then gets rid of its tombstones a hand may see no entry that it can take. The debt
/// was forgotten over that, for good.
#[test]
fn c09_what_is_owed_in_the_smallest_tables_is_paid() {
    watched(|| {
        for (capacity, threads, rounds) in [(2, 4, 20), (8, 8, 10)] {
            for round in 0..rounds {
                let cache = counted(capacity);
                thread::scope(|scope| {
                    for thread in 0..threads {
                        let cache = &cache;
                        scope.spawn(move || {
                            for key in 0..5_000 {
                                cache.insert(thread << 32 | key, key);
                            }
                        });
                    }
                });
                let (total, len) = (cache.weighted_size(), cache.iter().count() as u64);
                assert_eq!(total, len, "round {round}");
                assert!(len <= capacity, "{len} of {capacity} in round {round}");
            }
        }
    });
}

/// Clause 9. A smaller capacity cannot take out the previous value of a running compute. When the compute puts that
/// value back, its thread has to pay for it.
#[test]
fn c09_what_a_compute_puts_back_is_within_a_capacity_that_was_made_less() {
    for op in [Op::Nop, Op::Put(7)] {
        let cache = counted(10);
        (0..5).for_each(|key| cache.insert(key, key));
        cache.entry(1).and_compute_with(|_| {
            cache.set_max_capacity(0).unwrap();
            op
        });
        assert_eq!((cache.weighted_size(), cache.len()), (0, 0), "{op:?}");
    }
    // A refresh that fails puts back as well.
    let (fails, held) = (Flag::default(), Held::new());
    let (inner, fill) = (fails.clone(), held.clone());
    let cache = AtomicCache::<u64, u64>::builder()
        .max_capacity(10)
        .try_build_with(move |_| {
            if inner.is_up() {
                return fill.hold(Err(()));
            }
            Ok(1)
        })
        .unwrap();
    assert!((0..10).all(|key| cache.try_get(&key).is_ok()));
    fails.raise();
    let other = cache.clone();
    let refresh = thread::spawn(move || assert!(other.try_refresh(&3).is_err()));
    held.begun.pass();
    cache.set_max_capacity(0).unwrap();
    held.end.open();
    refresh.join().unwrap();
    assert_eq!((cache.weighted_size(), cache.len()), (0, 0));
}

thread_local! {
    /// In how many more calls of `Hash` this thread stops; 0 is never.
    static STOPS_IN: Cell<u32> = const { Cell::new(0) };
}

/// A key whose `Hash` stops at the call that `STOPS_IN` says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stopping(u64, Held);

impl Hash for Stopping {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if STOPS_IN.get() > 0 {
            STOPS_IN.set(STOPS_IN.get() - 1);
            if STOPS_IN.get() == 0 {
                self.1.hold(());
            }
        }
        self.0.hash(state);
    }
}

impl PartialEq for Held {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Held {}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held")
    }
}

/// Clause 9. An insert that owes room looks for a victim. Meanwhile another thread evicts the very entry it has put in,
/// and all other entries are being computed anew. It finds nothing, and its own entry is gone and cannot pay: it still
/// owes the same.
#[test]
fn c09_who_finds_no_victim_and_has_lost_its_own_entry_still_owes() {
    watched(|| {
        let stop = Held::new();
        let key = |n| Stopping(n, stop.clone());
        let cache: Cache<Stopping, u64> = Cache::builder().max_capacity(2).build().unwrap();
        cache.insert(key(0), 0);
        cache.insert(key(1), 1);
        let compute = |n: u64, held: &Held| {
            let (cache, key, inner) = (cache.clone(), key(n), held.clone());
            let thread = thread::spawn(move || {
                cache.entry(key).and_compute_with(|_| {
                    inner.hold(());
                    Op::Nop
                })
            });
            held.begun.pass();
            thread
        };
        let held: [Held; 3] = std::array::from_fn(|_| Held::new());
        let first = compute(0, &held[0]);
        // It owes one, and stops at its first victim: the first hash is of its own key.
        let (of_inserter, its) = (cache.clone(), key(2));
        let inserter = thread::spawn(move || {
            STOPS_IN.set(2);
            of_inserter.insert(its, 2);
        });
        stop.begun.pass();
        // Its entry goes for another one's sake.
        assert!(cache.demote(&key(2)));
        cache.insert(key(3), 3);
        assert!(!cache.contains(&key(2)));
        let others = [compute(1, &held[1]), compute(3, &held[2])];
        stop.end.open();
        inserter.join().unwrap();
        for held in &held {
            held.end.open();
        }
        for compute in others.into_iter().chain([first]) {
            assert!(matches!(compute.join().unwrap(), CompResult::Unchanged(_)));
        }
        assert!(cache.weighted_size() <= 2, "{} of 2", cache.weighted_size());
    });
}

/// H10. The total is one number of 64 bits, and 65,537 of the heaviest are more than that. Whether the last of them is
/// kept or not, the total is the sum of the entries that are there.
#[test]
fn h10_the_total_does_not_overflow() {
    const HEAVIEST: u64 = (1 << 48) - 1;
    watched(|| {
        for builder in [Cache::builder(), Cache::builder().max_capacity(u64::MAX)] {
            let cache: Cache<u64, u64> = builder.weigher(|_, _| HEAVIEST).build().unwrap();
            for key in 0..65_600 {
                cache.insert(key, key);
            }
            let sum = u128::from(HEAVIEST) * cache.len() as u128;
            assert_eq!(u128::from(cache.weighted_size()), sum);
            assert!(cache.len() > 1000);
        }
    });
}

fn at_rest<K: Clone + Hash + Eq, V: Clone>(cache: &Cache<K, V>) -> (u64, usize) {
    (cache.weighted_size(), cache.iter().count())
}

/// Clause 9. The capacity is made less while every entry is being computed anew, and so cannot be taken out; then the
/// computes put in their values.
#[test]
fn c09_computes_that_put_in_under_a_capacity_that_was_made_less() {
    fn compute_all(cache: &Cache<u64, u64>, key: u64, within: &dyn Fn()) {
        if key == 4 {
            return within();
        }
        cache.entry(key).and_compute_with(|_| {
            compute_all(cache, key + 1, within);
            Op::Put(key + 100)
        });
    }
    watched(|| {
        let cache: Cache<u64, u64> = Cache::new(4);
        (0..4).for_each(|key| cache.insert(key, key));
        compute_all(&cache, 0, &|| cache.set_max_capacity(1).unwrap());
        assert_eq!(at_rest(&cache), (1, 1));
        for key in 100..200 {
            cache.insert(key, key);
            cache.get_with(&(key + 1000), || 1);
        }
        assert_eq!(at_rest(&cache), (1, 1));
    });
}

/// Clause 9. The same of one entry with a new value that weighs less than the old one, and too much.
#[test]
fn c09_a_compute_that_puts_in_something_lighter_that_is_too_heavy_by_now() {
    watched(|| {
        let (weighs, held) = (Flag::default(), Held::new());
        let (slow, inner) = (weighs.clone(), held.clone());
        let cache: Cache<u64, u64> = Cache::builder()
            .max_capacity(10)
            .weigher(move |_, &value| {
                if slow.is_up() {
                    inner.hold(());
                }
                value
            })
            .build()
            .unwrap();
        cache.insert(1, 10);
        weighs.raise();
        thread::scope(|scope| {
            scope.spawn(|| cache.entry(1).and_compute_with(|_| Op::Put(5)));
            held.begun.pass();
            cache.set_max_capacity(1).unwrap();
            held.end.open();
        });
        assert_eq!(at_rest(&cache), (0, 0));
    });
}

/// Clause 9. An insert has charged, under a capacity that is made less before it has put its entry in.
#[test]
fn c09_an_insert_that_has_charged_when_the_capacity_is_made_less() {
    watched(|| {
        let cache: Cache<Hooked, u64> = Cache::new(10);
        cache.insert(Hooked(1), 1);
        let other = cache.clone();
        next_time(&ON_EQ, move || {
            on_another_thread(move || other.set_max_capacity(0).unwrap());
        });
        cache.insert(Hooked(1), 2);
        assert!(is_over(&ON_EQ));
        assert_eq!(at_rest(&cache), (0, 0));
    });
}

/// Clause 9. An insert owes, and both its own entry and the only other one are computed anew before it has paid.
#[test]
fn c09_an_insert_whose_own_entry_is_computed_before_it_has_paid() {
    watched(|| {
        let cache: Cache<Hooked, u64> = Cache::new(1);
        let (old, new) = (Held::new(), Held::new());
        cache.insert(Hooked(1_000), 1);
        let compute = |key, held: &Held| {
            let (cache, holds) = (cache.clone(), held.clone());
            let put = move |_: Option<&u64>| holds.hold(Op::Put(2));
            let computes = thread::spawn(move || {
                cache.entry(key).and_compute_with(put);
            });
            held.begun.pass();
            computes
        };
        let first = compute(Hooked(1_000), &old);
        let second: Arc<Mutex<Option<thread::JoinHandle<()>>>> = Arc::default();
        let (slot, other, holds) = (second.clone(), cache.clone(), new.clone());
        // It looks for a victim, and hashes the one there is.
        next_time(&ON_HASH, move || {
            let begun = holds.begun.clone();
            *slot.lock().unwrap() = Some(thread::spawn(move || {
                other
                    .entry(Hooked(7))
                    .and_compute_with(|_| holds.hold(Op::Put(4)));
            }));
            begun.pass();
        });
        cache.insert(Hooked(7), 3);
        assert!(is_over(&ON_HASH));
        old.end.open();
        new.end.open();
        first.join().unwrap();
        let second = second.lock().unwrap().take().expect("begun");
        second.join().unwrap();
        let (weight, entries) = at_rest(&cache);
        assert_eq!(weight, entries as u64);
        // Each of the two may have made room for the other.
        assert!(weight <= 1, "{weight} of 1");
    });
}
