//! Clause 5: cycles are errors, not hangs. (More of them: H14 and H15 in `hostile/cycles.rs`.)

use crate::support::common::*;
use crate::support::task_tools::*;
use atomic_cache::{AtomicCache, Cache, ManualClock, Op, TryGetError};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

#[test]
fn c05_a_fill_may_ask_for_other_keys_to_any_depth() {
    watched(|| {
        let deep = thread::Builder::new().stack_size(256 << 20).spawn(|| {
            let sum = AtomicCache::recursive(
                |sum, &n: &u64| if n == 0 { 0 } else { n + sum.get(&(n - 1)) },
                None,
            );
            (sum.get(&5000), sum.len(), sum.stats().fills)
        });
        assert_eq!(deep.unwrap().join().unwrap(), (12_502_500, 5001, 5001));
    });
}

/// Threads that walk one graph of dependencies from all sides wait for each other a lot, and
/// never in a circle: no error is ever seen, and every key is filled once.
#[test]
fn c05_no_false_alarm_on_a_graph_without_cycles() {
    watched(|| {
        const NODES: u64 = 48;
        for round in 1..40 {
            let fills = Tally::default();
            let cache: AtomicCache<u64, u64> = {
                let fills = fills.clone();
                AtomicCache::recursive(
                    move |cache, &node: &u64| {
                        fills.add();
                        let mut dice = Dice::new(round * NODES + node);
                        let mut sum = 1;
                        for _ in 0..3.min(node) {
                            let below = dice.roll(node);
                            sum += match cache.try_get(&below) {
                                Ok(value) => value % 1000,
                                Err(error) => panic!("a false alarm: {error}"),
                            };
                            thread::yield_now();
                        }
                        sum
                    },
                    None,
                )
            };
            let barrier = Barrier::new(THREADS);
            thread::scope(|scope| {
                for thread in 0..THREADS as u64 {
                    let (cache, barrier) = (&cache, &barrier);
                    scope.spawn(move || {
                        let mut dice = Dice::new(thread + 77);
                        barrier.wait();
                        for _ in 0..NODES {
                            assert!(cache.get(&dice.roll(NODES)) > 0);
                        }
                        assert!(cache.get(&(NODES - 1)) > 0);
                    });
                }
            });
            assert_eq!(fills.get(), cache.len() as u64);
        }
    });
}

/// As above, with invalidations, which wait too, inside and outside of the fills. They go down
/// the graph like the fills do, so there still is no cycle.
#[test]
fn c05_no_false_alarm_and_no_hang_when_fills_invalidate_what_is_below_them() {
    watched(|| {
        const NODES: u64 = 16;
        let cache: AtomicCache<u64, u64> = AtomicCache::recursive(
            move |cache, &node: &u64| {
                if node > 0 {
                    cache.invalidate(&(node / 2));
                    if let Err(error) = cache.try_get(&(node - 1)) {
                        panic!("a false alarm: {error}");
                    }
                }
                node
            },
            None,
        );
        thread::scope(|scope| {
            for thread in 0..THREADS as u64 {
                let cache = &cache;
                scope.spawn(move || {
                    let mut dice = Dice::new(thread + 5);
                    for _ in 0..150 {
                        let node = dice.roll(NODES);
                        match dice.roll(4) {
                            0 => {
                                cache.invalidate(&node);
                            }
                            1 => {
                                cache.invalidate_nowait(&node);
                            }
                            2 => assert_eq!(cache.refresh(&node), node),
                            _ => assert_eq!(cache.get(&node), node),
                        }
                    }
                });
            }
        });
    });
}

/// A key that can stop a caller in `Debug`, between joining a flight and looking for cycles: keys
/// are put into words there.
#[derive(Clone)]
struct Stopping {
    key: u64,
    armed: Arc<AtomicBool>,
    reached: Gate,
    go_on: Gate,
}

impl std::fmt::Debug for Stopping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.armed.swap(false, SeqCst) {
            self.reached.open();
            self.go_on.pass();
        }
        self.key.fmt(f)
    }
}

impl PartialEq for Stopping {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Stopping {}

impl std::hash::Hash for Stopping {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

/// The leader is lost just when a caller that leads another key has joined, and before it has
/// looked for cycles: the lead is now its own, which is no cycle.
#[test]
fn c05_being_handed_the_lead_while_one_looks_for_cycles_is_no_cycle() {
    watched(|| {
        let cache: Cache<Stopping, u64> = Cache::unbounded();
        let (armed, reached, go_on) = (Arc::new(AtomicBool::new(false)), Gate::new(), Gate::new());
        let key = |key| Stopping {
            key,
            armed: Arc::clone(&armed),
            reached: reached.clone(),
            go_on: go_on.clone(),
        };
        let held = Held::new();
        thread::scope(|scope| {
            let leader = scope.spawn(|| {
                let lost = panics(|| {
                    cache.get_with(&key(1), || {
                        held.hold(());
                        unwind("on purpose")
                    })
                });
                go_on.open();
                assert!(lost);
            });
            held.begun.pass();
            armed.store(true, SeqCst);
            let other = scope.spawn(|| {
                cache.get_with(&key(2), || {
                    let waited = cache.try_get_with(&key(1), || Ok::<_, Refused>(10));
                    assert_eq!(waited, Ok(10));
                    20
                })
            });
            reached.pass();
            held.end.open();
            leader.join().unwrap();
            assert_eq!(other.join().unwrap(), 20);
        });
        assert_eq!(cache.len(), 2);
    });
}

/// The results of the waits that fills made.
type Noted = Arc<Mutex<Vec<bool>>>;

/// A cache with a fill that asks, blocking, for `next` of its key before it makes its future; and
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
