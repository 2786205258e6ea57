//! What a hostile review has found in the verbs of tasks.

use crate::common::*;
use crate::task_tools::*;
use atomic_cache::{AtomicCache, Cache, ManualClock, Op, TryGetError};
use std::pin::pin;
use std::sync::{Arc, Barrier, Mutex};
use std::task::Poll;
use std::thread;
use std::time::Duration;

/// What became of the waits that fills made.
type Noted = Arc<Mutex<Vec<bool>>>;

/// A cache whose fill asks, blocking, for `next` of its key before it makes its future; and
/// whether it was refused, fill by fill.
fn asks_before_it_is_a_future(next: fn(u64) -> u64) -> (AtomicCache<u64, u64>, Noted) {
    let refused = Noted::default();
    let notes = refused.clone();
    let cache = AtomicCache::recursive_async(
        move |cache: AtomicCache<u64, u64>, key| {
            let asked = cache.try_get(&next(key));
            let is_refused = matches!(asked, Err(TryGetError::Cycle(_)));
            notes.lock().unwrap().push(is_refused);
            async move { key }
        },
        None,
    );
    (cache, refused)
}

#[test]
fn c05_the_closure_of_a_stored_fill_that_asks_for_its_own_key_is_refused() {
    watched(|| {
        let (cache, refused) = asks_before_it_is_a_future(|key| key);
        assert_eq!(cache.get(&1), 1);
        assert_eq!(run_until_asleep(pin!(cache.get_async(&2))), Some(2));
        assert_eq!(*refused.lock().unwrap(), [true, true]);
    });
}

#[test]
fn c05_closures_of_stored_fills_that_ask_for_each_other_are_refused() {
    watched(|| {
        let (cache, refused) = asks_before_it_is_a_future(|key| key ^ 1);
        assert_eq!(cache.get(&0), 0);
        // The one of key 1, inside the one of key 0.
        assert_eq!(*refused.lock().unwrap(), [true, false]);
    });
}

#[test]
fn c05_the_closure_of_a_stored_fill_that_asks_for_the_fill_it_is_made_for_is_refused() {
    watched(|| {
        let cache = AtomicCache::recursive_async(
            |cache: AtomicCache<u64, u64>, key| {
                // Made inside the future of key 0.
                let refused = key == 1 && matches!(cache.try_get(&0), Err(TryGetError::Cycle(_)));
                async move {
                    if key == 0 {
                        cache.get_async(&1).await
                    } else {
                        u64::from(refused)
                    }
                }
            },
            None,
        );
        assert_eq!(run_until_asleep(pin!(cache.get_async(&0))), Some(1));
        cache.invalidate_all();
        assert_eq!(cache.get(&0), 1);
    });
}

#[test]
fn c05_the_closure_of_a_compute_that_asks_for_its_own_key_is_refused() {
    watched(|| {
        let cache: Cache<u64, u64> = Cache::unbounded();
        let asks = cache.clone();
        let compute = cache.entry(1).and_compute_with_async(move |_| {
            let asked = asks.try_get_with(&1, || Ok::<_, ()>(10));
            let refused = matches!(asked, Err(TryGetError::Cycle(_)));
            async move { Op::Put(u64::from(refused)) }
        });
        run_until_asleep(pin!(compute)).expect("waits for nothing");
        assert_eq!(cache.get(&1), Some(1));
    });
}

#[test]
fn c05_who_is_told_of_a_slow_fill_at_its_end_and_asks_for_its_key_is_refused() {
    watched(|| {
        let clock = ManualClock::new();
        let handle: Arc<Mutex<Option<Cache<u64, u64>>>> = Arc::default();
        let refused = Noted::default();
        let (asks, notes) = (handle.clone(), refused.clone());
        let cache = Cache::builder()
            .clock(clock.clone())
            .purge_interval(Duration::from_secs(3600))
            .on_slow_fill(Duration::from_secs(3600), move |key: &u64, _| {
                let cache = asks.lock().unwrap().clone().expect("set below");
                let asked = cache.try_get_with(key, || Ok::<_, ()>(10));
                let is_refused = matches!(asked, Err(TryGetError::Cycle(_)));
                notes.lock().unwrap().push(is_refused);
            })
            .build()
            .expect("good settings");
        *handle.lock().unwrap() = Some(cache.clone());
        let slow = || async {
            clock.advance(Duration::from_secs(7200));
            1
        };
        let got = run_until_asleep(pin!(cache.get_with_async(&1, slow)));
        assert_eq!(got, Some(1));
        let failed = || async {
            clock.advance(Duration::from_secs(7200));
            Err::<u64, _>(())
        };
        let got = run_until_asleep(pin!(cache.try_get_with_async(&2, failed)));
        assert_eq!(got, Some(Err(TryGetError::Fill(()))));
        assert_eq!(*refused.lock().unwrap(), [true, true]);
        *handle.lock().unwrap() = None;
    });
}
/// R4: an old value that a fill has stood before is not put back after an invalidation has returned.
#[test]
fn r04_a_takeover_beside_an_invalidation_puts_nothing_back() {
    watched(|| {
        let cache: Cache<u64, u64> = Cache::unbounded();
        for round in 0..rounds("ATOMIC_CACHE_ROUNDS", 20_000) {
            cache.insert(1, round);
            let compute = cache
                .entry(1)
                .and_compute_with_async(|_| std::future::pending());
            let mut compute = pin!(compute);
            assert!(poll(compute.as_mut()).is_pending());
            let both = Barrier::new(2);
            thread::scope(|scope| {
                scope.spawn(|| {
                    both.wait();
                    cache.takeover(&1)
                });
                both.wait();
                cache.invalidate_nowait(&1);
                assert_eq!(cache.peek(&1), None, "in round {round}");
            });
        }
    });
}

/// An invalidation that waits for a fill that hangs is let go of by the timeout as everybody is.
#[test]
fn fill_timeout_gives_up_a_fill_that_is_fenced_off() {
    let clock = ManualClock::new();
    let cache: Cache<u64, u64> = Cache::builder()
        .clock(clock.clone())
        .purge_interval(Duration::from_secs(3600))
        .fill_timeout(Duration::from_secs(7200))
        .build()
        .expect("good settings");
    let mut stuck = pin!(cache.get_with_async(&1, std::future::pending::<u64>));
    assert!(poll(stuck.as_mut()).is_pending());
    let mut invalidation = pin!(cache.invalidate_async(&1));
    assert!(poll(invalidation.as_mut()).is_pending());
    clock.advance(Duration::from_secs(7200));
    cache.run_pending_tasks();
    assert_eq!(poll(invalidation.as_mut()), Poll::Ready(false));
    assert_eq!(cache.get_with(&1, || 10), 10);
}

/// A value that comes after all, of a fill that was taken over, is dropped once, and so is its error.
#[test]
fn r10_what_a_fill_that_was_taken_over_comes_to_is_accounted_for() {
    let ledger = Ledger::new();
    let cache: Cache<u64, Counted> = Cache::builder()
        .max_capacity(10)
        .build()
        .expect("good settings");
    cache.insert(1, ledger.make(1));
    for (key, old) in [(1, 1), (2, 0)] {
        for value in [Some(7), None] {
            let latch = Latch::new();
            let compute = cache.entry(key).and_compute_with_async(|_| {
                let (latch, ledger) = (latch.clone(), ledger.clone());
                async move {
                    latch.await;
                    value.map_or(Op::Remove, |id| Op::Put(ledger.make(id)))
                }
            });
            let mut compute = pin!(compute);
            assert!(poll(compute.as_mut()).is_pending());
            assert!(cache.takeover(&key));
            assert!(!cache.takeover(&key), "once");
            assert!(cache.in_flight().is_empty());
            latch.open();
            assert!(poll(compute.as_mut()).is_ready());
            assert_eq!(cache.peek(&key).map_or(0, |value| value.id()), old);
            assert_eq!((cache.len(), cache.weighted_size()), (1, 1));
        }
    }
    cache.quiesce();
    assert_eq!(cache.retired(), 0);
    assert_eq!(ledger.alive(), 1);
    drop(cache);
    assert_eq!(ledger.alive(), 0);
}

/// A fill that is taken over while somebody polls it, or that its spawner has got.
#[test]
fn a_stored_fill_that_is_taken_over_from_inside_is_not_spawned() {
    watched(|| {
        let spawned = Arc::new(Mutex::new(0));
        let count = spawned.clone();
        let cache = AtomicCache::<u64, u64>::builder()
            .spawner(move |_| *count.lock().unwrap() += 1)
            .build_recursive_async({
                let begun = Arc::new(Mutex::new(0));
                move |cache, key| {
                    let begun = begun.clone();
                    async move {
                        let mine = {
                            let mut begun = begun.lock().unwrap();
                            *begun += 1;
                            *begun
                        };
                        if mine == 1 {
                            assert!(cache.takeover(&key));
                            std::future::pending::<()>().await;
                        }
                        mine
                    }
                }
            })
            .expect("good settings");
        assert_eq!(run_until_asleep(pin!(cache.get_async(&1))), Some(2));
        assert_eq!(*spawned.lock().unwrap(), 0);
        assert_eq!((cache.len(), cache.get(&1)), (1, 2));
    });
}

/// A value that takes key 1 out when it is dropped, if it has been given the cache.
#[derive(Clone)]
struct Invalidates(Arc<Mutex<Option<Cache<u64, Self>>>>);

impl Drop for Invalidates {
    fn drop(&mut self) {
        let cache = self.0.lock().unwrap().take();
        if let Some(cache) = cache {
            cache.invalidate(&1);
        }
    }
}

/// Clauses 4 and 6: a closed cache refuses the lead before anything foreign is dropped, which may wait for it.
#[test]
fn c06_the_value_before_may_wait_for_the_lead_that_a_closed_cache_refuses() {
    watched(|| {
        let cache = Cache::unbounded();
        let armed = Arc::new(Mutex::new(None));
        cache.insert(1, Invalidates(armed.clone()));
        cache.close();
        *armed.lock().unwrap() = Some(cache.clone());
        let compute = cache.entry(1).and_compute_with_async(|_| async { Op::Nop });
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run_until_asleep(pin!(compute))
        }));
        assert!(refused.is_err(), "it does not say that it is closed");
        assert!(armed.lock().unwrap().is_none(), "nothing was dropped");
    });
}
