//! Races that were lost once, found by `runs.rs`, each as small as it gets. They are lost between
//! two instructions: each tries often, and would rather miss the moment than fail for nothing.

use crate::support::common::*;
use atomic_cache::{AtomicCache, Cache, Op, TryGetError};
use std::hash::{BuildHasher, Hash, Hasher};
use std::hint;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

const TRIES: usize = 30_000;

/// Runs both at once, again and again, until each has been run often enough.
fn beside(other: impl Fn() + Sync, mut main: impl FnMut()) {
    struct Over<'a>(&'a AtomicBool);

    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let (over, turns) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                other();
                turns.fetch_add(1, Ordering::Relaxed);
            }
        });
        let _over = Over(&over);
        let mut tries = 0;
        while tries < TRIES || turns.load(Ordering::Relaxed) < TRIES {
            main();
            tries += 1;
        }
    });
}

/// While a compute puts its value in, the old one is there or the new one is, never neither.
#[test]
fn a_value_that_is_computed_anew_is_there_all_along() {
    let cache: Cache<u32, u32> = Cache::unbounded();
    cache.insert(1, 0);
    let increment = || {
        let seen = |seen: Option<&u32>| Op::Put(seen.expect("nobody removes it") + 1);
        cache.entry(1).and_compute_with(seen);
    };
    beside(increment, || {
        assert!(cache.contains(&1));
        assert!(cache.get(&1).is_some());
    });
    // A compute that leaves everything as it is puts the old value back.
    let leave = || {
        cache.entry(1).and_compute_with(|_| Op::Nop);
    };
    beside(leave, || assert!(cache.get(&1).is_some()));
    let own = AtomicCache::new(|n: &u32| *n, None);
    own.get(&1);
    let refresh = || {
        own.refresh(&1);
    };
    beside(refresh, || assert!(own.contains(&1)));
}

/// `invalidate_all` and `invalidate_if` beat a compute that begins or ends while they walk: the
/// value that was there before them is not put back.
#[test]
fn a_walk_that_invalidates_beats_a_compute() {
    let cache: Cache<u32, u32> = Cache::unbounded();
    let leave = || {
        cache.entry(1).and_compute_with(|_| Op::Nop);
    };
    let mut id = 0;
    beside(leave, || {
        id += 1;
        cache.insert(1, id);
        if id % 2 == 0 {
            cache.invalidate_all();
        } else {
            cache.invalidate_if(|_, value| *value == id);
        }
        assert_eq!(cache.get(&1), None, "it was there before the walk");
    });
}

/// A waiter that is handed the lead of the flight it waits for does not wait for itself.
#[test]
fn a_lead_that_is_handed_over_is_no_cycle() {
    for _ in 0..TRIES / 15 {
        let cache: Cache<u32, u32> = Cache::unbounded();
        let barrier = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = catch_unwind(AssertUnwindSafe(|| {
                    cache.get_with(&2, || {
                        barrier.wait();
                        resume_unwind(Box::new("planned"))
                    })
                }));
            });
            // No fill of 2 ever asks for 1.
            cache.get_with(&1, || {
                barrier.wait();
                match cache.try_get_with(&2, || Ok::<_, ()>(2)) {
                    Ok(two) => two - 1,
                    Err(TryGetError::Cycle(cycle)) => panic!("{cycle}"),
                    Err(error) => panic!("{error:?}"),
                }
            });
        });
    }
}

/// A compute that an `insert` detaches before it has looked is shown a value all the same.
#[test]
fn a_compute_is_shown_what_is_there_all_along() {
    let cache: Cache<u32, u32> = Cache::unbounded();
    cache.insert(1, 0);
    beside(
        || cache.insert(1, 0),
        || {
            cache.entry(1).and_compute_with(|seen| {
                assert!(seen.is_some(), "nobody removes it");
                Op::Put(1)
            });
        },
    );
}

/// A compute that was shown nothing comes after the `invalidate`, so its value is kept: that
/// `invalidate` does not detach it before it has looked.
#[test]
fn a_compute_is_shown_what_there_was_when_it_was_cut_off() {
    let cache: Cache<u32, u32> = Cache::unbounded();
    let shown_nothing = AtomicBool::new(false);
    let (begun, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let wait = |turns: &AtomicUsize, turn| {
        while turns.load(Ordering::SeqCst) < turn {
            thread::yield_now();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 1..=TRIES {
                wait(&begun, turn);
                cache.entry(1).and_compute_with(|seen| {
                    shown_nothing.store(seen.is_none(), Ordering::SeqCst);
                    Op::Put(2)
                });
                ended.store(turn, Ordering::SeqCst);
            }
        });
        let mut lost = 0;
        for turn in 1..=TRIES {
            cache.insert(1, 1);
            begun.store(turn, Ordering::SeqCst);
            (0..turn % 64).for_each(|_| hint::spin_loop());
            assert!(cache.invalidate_nowait(&1));
            wait(&ended, turn);
            let there = cache.get(&1);
            lost += usize::from(shown_nothing.load(Ordering::SeqCst) && there.is_none());
        }
        assert_eq!(
            lost, 0,
            "a compute saw nothing, and its value was thrown away"
        );
    });
}

/// Waits for a condition that need not come.
fn for_a_while(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() && start.elapsed() < Duration::from_millis(20) {
        thread::yield_now();
    }
}

/// Clause 5: a waiter is taken out of the wait-for graph before its flight may be freed. Another
/// thread walks the graph for as long as an allocation takes. Meanwhile the flight that it comes to
/// fails, and all that can be freed is freed.
///
/// In a process of its own: the flight would be freed memory, with a lock that is never released.
#[test]
fn a_wait_leaves_the_graph_before_it_leaves_its_flight() {
    let name = test_name!();
    in_child(name, Duration::from_secs(60), || {
        poison_what_is_freed();
        // One that joins a flight and looks for cycles allocates about ten times.
        for stop in 1..=24 {
            let cache: Cache<u32, u32> = Cache::unbounded();
            let (fails, ends) = (Held::new(), Gate::new());
            prepare_to_stop();
            thread::scope(|scope| {
                let failing = scope.spawn(|| {
                    let failed = cache.try_get_with(&3, || {
                        fails.hold(());
                        Err::<u32, u8>(1)
                    });
                    assert_eq!(failed, Err(TryGetError::Fill(1)));
                });
                fails.begun.pass();
                scope.spawn(|| {
                    cache.get_with(&2, || {
                        let failed = cache.try_get_with(&3, || Ok::<u32, u8>(7));
                        assert_eq!(failed, Err(TryGetError::Fill(1)));
                        ends.pass();
                        2
                    })
                });
                // 2 waits for 3 ...
                await_joined(|| cache.stats(), 1);
                let_others_run();
                // ... and 1 for 2, which looks whether 3 waits for 1.
                let walking = scope.spawn(|| {
                    cache.get_with(&1, || stopping_at(stop, || cache.get_with(&2, || 0)))
                });
                for_a_while(has_stopped);
                fails.end.open();
                failing.join().unwrap();
                let quiescing = scope.spawn(|| cache.quiesce());
                for_a_while(|| quiescing.is_finished());
                let_others_run();
                resume();
                ends.open();
                assert_eq!(walking.join().unwrap(), 2);
            });
        }
    });
}

/// The `Hash` of a key changes while it is computed anew. Then the cache looks for the key
/// everywhere when it puts the old entry back. A resize that begins at that moment moves it, and
/// must not hide it: the entry would be freed and still be referred to.
///
/// In a process of its own: there it aborts.
#[test]
fn a_key_that_lies_is_put_back_although_a_growth_begins() {
    /// All the hash there is: the number that a key gives away.
    #[derive(Clone, Default)]
    struct Bare(u64);

    impl BuildHasher for Bare {
        type Hasher = Self;

        fn build_hasher(&self) -> Self {
            Self(0)
        }
    }

    impl Hasher for Bare {
        fn finish(&self) -> u64 {
            self.0
        }

        fn write(&mut self, _: &[u8]) {
            unreachable!("keys are numbers")
        }

        fn write_u64(&mut self, number: u64) {
            self.0 = number;
        }
    }

    /// The number that is the hash.
    #[derive(Clone)]
    struct Key(Arc<AtomicU64>);

    impl Hash for Key {
        fn hash<H: Hasher>(&self, state: &mut H) {
            state.write_u64(self.0.load(Ordering::SeqCst));
        }
    }

    impl PartialEq for Key {
        fn eq(&self, other: &Self) -> bool {
            Arc::ptr_eq(&self.0, &other.0)
        }
    }

    impl Eq for Key {}

    let name = test_name!();
    in_child(name, Duration::from_secs(120), || {
        let key = |number| Key(Arc::new(AtomicU64::new(number)));
        // Numbers with homes near each other, at the end of the table: the cache spreads the hashes
        // by this multiplication.
        let home = |number: u64| {
            let product = u128::from(number) * 0x9E37_79B9_7F4A_7C15;
            ((product >> 64) as u64 ^ product as u64) >> 52
        };
        let near: Vec<u64> = (1 << 40..).filter(|&n| home(n) == 0xFE0).take(60).collect();
        let (&lie, near) = near.split_last().unwrap();
        let mut dice = Dice::new(1);
        for _ in 0..rounds("ATOMIC_CACHE_R12", 2_000) {
            let ledger = Ledger::new();
            let cache: Cache<Key, Counted, Bare> = Cache::builder()
                .opaque_keys()
                .initial_capacity(1024)
                .hasher(Bare::default())
                .build()
                .unwrap();
            let liar = key(12_345);
            cache.insert(liar.clone(), ledger.make(7));
            // A table of 4096 words grows at 2561: how many inserts before that are left to the
            // other thread, and when that begins.
            let (spare, delay) = (dice.roll(60), dice.roll(400));
            let go = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !go.load(Ordering::SeqCst) {
                        hint::spin_loop();
                    }
                    for n in 0..spare {
                        cache.insert(key(1_000_000 + n), ledger.make(1));
                    }
                    for (&n, other) in near.iter().zip(2_000_000..) {
                        cache.insert(key(n), ledger.make(1));
                        cache.insert(key(other), ledger.make(1));
                    }
                });
                cache.entry(liar.clone()).and_compute_with(|_| {
                    liar.0.store(lie, Ordering::SeqCst);
                    (0..2545).for_each(|n| cache.insert(key(n * 7919), ledger.make(1)));
                    go.store(true, Ordering::SeqCst);
                    (0..delay).for_each(|_| hint::spin_loop());
                    Op::Nop
                });
            });
            cache.quiesce();
            let left: Vec<_> = cache.iter().collect();
            assert!(left.iter().all(|(_, value)| [1, 7].contains(&value.id())));
            let entries = left.len();
            drop(left);
            assert_eq!((entries, entries), (cache.len(), ledger.alive()));
            drop(cache);
            assert_eq!(ledger.alive(), 0);
        }
    });
}
