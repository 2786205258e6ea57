//! Races that were lost once, found by `history.rs`, each as small as it gets. What they need
//! happens between two instructions: each tries often, and would rather miss it than fail for
//! nothing.

use atomic_cache::{AtomicCache, Cache, Op, TryGetError};
use std::hint;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

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
    cache.insert(1, 0).unwrap();
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

/// `invalidate_all` and `invalidate_if` beat a compute that begins or ends while they walk: what
/// was there before them is not put back.
#[test]
fn a_walk_that_invalidates_beats_a_compute() {
    let cache: Cache<u32, u32> = Cache::unbounded();
    let leave = || {
        cache.entry(1).and_compute_with(|_| Op::Nop);
    };
    let mut id = 0;
    beside(leave, || {
        id += 1;
        cache.insert(1, id).unwrap();
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
            // Nobody ever asks for 1 from inside 2.
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

/// A compute that an `insert` cuts off before it has looked is shown something all the same.
#[test]
fn a_compute_is_shown_what_is_there_all_along() {
    let cache: Cache<u32, u32> = Cache::unbounded();
    cache.insert(1, 0).unwrap();
    beside(
        || cache.insert(1, 0).unwrap(),
        || {
            cache.entry(1).and_compute_with(|seen| {
                assert!(seen.is_some(), "nobody removes it");
                Op::Put(1)
            });
        },
    );
}

/// A compute that was shown nothing comes after the `invalidate`, so what it puts in is kept: it
/// is not cut off by that `invalidate` before it has looked.
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
            cache.insert(1, 1).unwrap();
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
