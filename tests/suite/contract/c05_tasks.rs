//! Clause 5, of tasks: which thread or task is charged with a wait, and the calls a fill may make while it is dropped.

use crate::support::common::*;
use crate::support::task_tools::*;
use atomic_cache::{AtomicCache, Cache, CompResult, GuardResult, Op, TaskGuardResult, TryGetError};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Barrier, OnceLock};
use std::task::Poll;
use std::thread;
use std::time::Duration;

/// The calls a task makes for key 1, which a thread fills that polls the task.
fn waits_of_tasks(cache: &Cache<u64, u64>) -> Vec<Task<()>> {
    let tasks: [fn(Cache<u64, u64>) -> Task<()>; 6] = [
        |cache| {
            Box::pin(async move {
                let fill = || async { Ok::<_, ()>(11) };
                assert_eq!(cache.try_get_with_async(&1, fill).await, Ok(10));
            })
        },
        |cache| {
            Box::pin(async move {
                // By a fill of its own.
                let asks = cache.clone();
                let fill = || async move { asks.get_with_async(&1, || async { 11 }).await + 1 };
                assert_eq!(cache.get_with_async(&2, fill).await, 11);
            })
        },
        |cache| {
            Box::pin(async move {
                let compute = |seen: Option<u64>| async move { Op::Put(seen.unwrap_or(0) + 1) };
                let done = cache.entry(1).and_compute_with_async(compute).await;
                assert!(!matches!(done, CompResult::StillNone));
            })
        },
        |cache| {
            Box::pin(async move {
                match cache.get_value_or_guard_async(&1).await {
                    TaskGuardResult::Value(value) => assert_eq!(value, 10),
                    other => panic!("{other:?}"),
                }
            })
        },
        |cache| {
            Box::pin(async move {
                cache.invalidate_async(&1).await;
                // It has waited: the fill is over.
                assert!(cache.in_flight().is_empty());
            })
        },
        |cache| {
            Box::pin(async move {
                cache.invalidate_all_async().await;
                assert!(cache.in_flight().is_empty());
            })
        },
    ];
    let tasks = tasks.into_iter().map(|task| task(cache.clone()));
    tasks.collect()
}

/// How many tasks that wait there are in the table of [`waits_of_tasks`].
const WAITS: usize = 6;

/// Polls the runtime from inside a lead until the task has had its turn.
fn drive(runtime: &tokio::runtime::Runtime) {
    runtime.block_on(async {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn c05_a_task_that_is_polled_inside_a_blocking_fill_may_wait_for_it() {
    watched(|| {
        for at in 0..WAITS {
            let (cache, runtime) = (plain(), one_thread_of_tokio());
            let task = runtime.spawn(waits_of_tasks(&cache).swap_remove(at));
            let value = cache.get_with(&1, || {
                drive(&runtime);
                10
            });
            assert_eq!(value, 10);
            runtime.block_on(task).expect("task {at}");
        }
    });
}

#[test]
fn c05_a_task_that_is_polled_beside_a_guard_may_wait_for_it() {
    watched(|| {
        for at in 0..WAITS {
            let (cache, runtime) = (plain(), one_thread_of_tokio());
            let task = runtime.spawn(waits_of_tasks(&cache).swap_remove(at));
            let GuardResult::Guard(guard) = cache.get_value_or_guard(&1, None) else {
                panic!("it is not there");
            };
            drive(&runtime);
            assert_eq!(guard.insert(10), 10);
            runtime.block_on(task).expect("task {at}");
        }
    });
}

#[test]
fn c05_a_task_that_is_polled_inside_a_compute_may_ask_a_cache_with_a_stored_fill() {
    watched(|| {
        let (latch, runtime) = (Latch::new(), one_thread_of_tokio());
        let (stored, _) = behind(&latch);
        let computes = plain();
        let (asked, behind) = (stored.clone(), computes.clone());
        let task = runtime.spawn(async move {
            let tens = asked.get_async(&1).await;
            behind.get_with_async(&1, || async { 0 }).await + tens
        });
        computes.entry(1).and_compute_with(|_| {
            drive(&runtime);
            latch.open();
            drive(&runtime);
            Op::Put(1)
        });
        assert_eq!(runtime.block_on(task).unwrap(), 11);
    });
}

#[test]
fn c05_a_future_that_was_polled_once_and_kept_holds_nobody_up() {
    watched(|| {
        for how in 0..4 {
            let cache = plain();
            let go = Gate::new();
            let begun = Gate::new();
            thread::scope(|scope| {
                let other = scope.spawn(|| {
                    cache.try_get_with(&2, || {
                        begun.open();
                        go.pass();
                        let asked = cache.try_get_with(&5, || Ok::<_, ()>(0));
                        asked.map_err(|error| matches!(error, TryGetError::Cycle(_)))
                    })
                });
                begun.pass();
                let mut kept = pin!(cache.get_with_async(&2, || async { 0 }));
                leads(&cache, how, &mut || {
                    assert!(poll(kept.as_mut()).is_pending());
                });
                let joined = cache.stats().joined;
                let five = cache.get_with(&5, || {
                    go.open();
                    // The other one waits for this fill, or was refused.
                    spin_until(|| cache.stats().joined > joined);
                    let_others_run();
                    50
                });
                assert_eq!(five, 50);
                assert_eq!(other.join().unwrap(), Ok(50), "lead {how}");
                assert_eq!(poll(kept.as_mut()), Poll::Ready(50));
            });
        }
    });
}

/// A thread under `block_on`, in no other task than its fill, does await.
#[test]
fn c05_a_blocking_fill_that_blocks_on_its_own_key_is_refused() {
    let ask = |cache: Cache<u64, u64>| async move {
        let asked = cache.try_get_with_async(&1, || async { Ok::<_, ()>(0) });
        matches!(asked.await, Err(TryGetError::Cycle(_)))
    };
    watched(move || {
        let cache = plain();
        let runtime = one_thread_of_tokio();
        let refused = cache.get_with(&1, || u64::from(runtime.block_on(ask(cache.clone()))));
        assert_eq!(refused, 1);
        // A guard, and any `block_on`.
        cache.invalidate(&1);
        let GuardResult::Guard(guard) = cache.get_value_or_guard(&1, None) else {
            panic!("it is not there");
        };
        assert!(block_on(ask(cache.clone())));
        drop(guard);
        // In a blocking task, which is a task too.
        let asks = cache.clone();
        let blocking = runtime.spawn_blocking(move || {
            let inside = asks.clone();
            asks.get_with(&1, || {
                u64::from(tokio::runtime::Handle::current().block_on(ask(inside)))
            })
        });
        assert_eq!(runtime.block_on(blocking).unwrap(), 1);
        // By way of a fill of a future, which awaits: 1, 2, 1.
        cache.invalidate(&1);
        let way = |cache: Cache<u64, u64>| async move {
            let inside = cache.clone();
            let fill = || async move { u64::from(ask(inside).await) };
            cache.get_with_async(&2, fill).await
        };
        assert_eq!(
            cache.get_with(&1, || runtime.block_on(way(cache.clone()))),
            1
        );
    });
}

/// 1 waits for 2 by `block_on`, 2 for 1 on a thread; the second to wait is refused.
#[test]
fn c05_of_a_thread_that_blocks_on_a_task_and_one_that_waits_one_is_refused() {
    watched(|| {
        for _ in 0..50 {
            let (cache, both) = (plain(), Barrier::new(2));
            let refused = Tally::default();
            let answer = |asked: Result<u64, TryGetError<()>>| {
                if asked.is_err() {
                    refused.add();
                }
                asked.map_or(100, |value| value + 1)
            };
            thread::scope(|scope| {
                let one = scope.spawn(|| {
                    cache.get_with(&1, || {
                        both.wait();
                        let fill = || async { unreachable!("it runs") };
                        answer(block_on(cache.try_get_with_async(&2, fill)))
                    })
                });
                let two = cache.get_with(&2, || {
                    both.wait();
                    answer(cache.try_get_with(&1, || unreachable!("it runs")))
                });
                let mut values = [one.join().unwrap(), two];
                values.sort_unstable();
                assert_eq!(values, [100, 101]);
            });
            assert_eq!(refused.get(), 1);
        }
    });
}

/// A guard inside which a waiting task is dropped leaves no wait in the graph.
#[test]
fn c05_what_a_guard_awaited_is_forgotten_with_it() {
    watched(|| {
        let cache = plain();
        let begun = Held::new();
        thread::scope(|scope| {
            let other = scope.spawn(|| cache.get_with(&2, || begun.hold(20)));
            begun.begun.pass();
            let mut kept = pin!(cache.get_with_async(&2, || async { 0 }));
            for _ in 0..3 {
                let GuardResult::Guard(guard) = cache.get_value_or_guard(&1, None) else {
                    panic!("it is not there");
                };
                // Each time it is this guard that waits.
                assert!(poll(kept.as_mut()).is_pending());
                drop(guard);
            }
            begun.end.open();
            assert_eq!(other.join().unwrap(), 20);
            assert_eq!(poll(kept.as_mut()), Poll::Ready(20));
        });
    });
}

// ---- The drop of a fill is a part of it.

type Use = (&'static str, fn(&Cache<u64, u64>));

fn is_cycle<T>(asked: &Result<T, TryGetError<()>>) -> bool {
    matches!(asked, Err(TryGetError::Cycle(_)))
}

/// The calls that a destructor of a fill of key 1 makes for that key.
const USES: [Use; 11] = [
    ("get", |cache| assert_eq!(cache.get(&1), None)),
    ("get_with", |cache| {
        let text = panic_text(|| cache.get_with(&1, || 0));
        assert!(text.contains("1 -> 1"), "{text}");
    }),
    ("try_get_with", |cache| {
        assert!(is_cycle(&cache.try_get_with(&1, || Ok(0))));
    }),
    ("invalidate", |cache| assert!(!cache.invalidate(&1))),
    ("remove", |cache| assert_eq!(cache.remove(&1), None)),
    ("invalidate_all", Cache::invalidate_all),
    ("invalidate_if", |cache| cache.invalidate_if(|_, _| true)),
    ("insert", |cache| cache.insert(1, 11)),
    ("or_try_insert_with", |cache| {
        assert!(is_cycle(&cache.entry(1).or_try_insert_with(|| Ok(0))));
    }),
    ("compute", |cache| {
        let text = panic_text(|| cache.entry(1).and_compute_with(|_| Op::Put(0)));
        assert!(text.contains("1 -> 1"), "{text}");
    }),
    ("guard", |cache| {
        let got = cache.get_value_or_guard(&1, None);
        assert!(matches!(got, GuardResult::Cycle(_)), "{got:?}");
    }),
];

/// A future that uses the cache when it is dropped, pending so many times before that.
struct UsesInDrop {
    cache: Cache<u64, u64>,
    act: fn(&Cache<u64, u64>),
    used: Tally,
    polls: usize,
}

impl Future for UsesInDrop {
    type Output = u64;

    fn poll(mut self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<u64> {
        self.polls += 1;
        Poll::Pending
    }
}

impl Drop for UsesInDrop {
    fn drop(&mut self) {
        if self.polls > 0 {
            (self.act)(&self.cache);
        }
        self.used.add();
    }
}

#[test]
fn c05_a_fill_that_is_dropped_may_use_its_own_key() {
    for (name, act) in USES {
        for polls in 0..3 {
            watched(move || {
                let cache = plain();
                let used = Tally::default();
                let fill = || UsesInDrop {
                    cache: cache.clone(),
                    act,
                    used: used.clone(),
                    polls: 0,
                };
                let once = u64::from(polls > 0);
                drop_after(polls, cache.get_with_async(&1, &fill));
                assert_eq!(used.get(), once, "{name}");
                cache.invalidate(&1);
                drop_after(
                    polls,
                    cache.try_get_with_async(&1, || async {
                        let _last = fill();
                        Ok::<_, ()>(fill().await)
                    }),
                );
                cache.invalidate(&1);
                drop_after(polls, cache.entry(1).or_insert_with_async(&fill));
                cache.invalidate(&1);
                let compute = cache.entry(1).and_compute_with_async(|_| async {
                    let value = fill().await;
                    Op::Put(value)
                });
                drop_after(polls, compute);
                assert_eq!(used.get(), 5 * once, "{name}");
                cache.invalidate(&1);
                assert_eq!(cache.get_with(&1, || 5), 5);
                assert!(cache.in_flight().is_empty());
            });
        }
    }
}

#[test]
fn c05_a_stored_fill_that_is_dropped_may_use_its_own_key() {
    // It is dropped by its last caller, by `takeover`, by a closed cache, by a spawner.
    for (name, act) in STORED_USES {
        for by in 0..5 {
            watched(move || {
                let handle: Arc<OnceLock<AtomicCache<u64, u64>>> = Arc::default();
                let (used, done) = (Tally::default(), Tally::default());
                let (shared, count, ended) = (handle.clone(), used.clone(), done.clone());
                let builder = AtomicCache::<u64, u64>::builder();
                let builder = if by == 3 {
                    builder.spawner(drop)
                } else {
                    builder
                };
                let cache = builder
                    .build_with_async(move |key| {
                        let (shared, count) = (shared.clone(), count.clone());
                        let ended = ended.clone();
                        async move {
                            let is_first = count.get() == 0;
                            let _last = OnDrop(move || {
                                if count.add() == 0 {
                                    act(shared.get().expect("set below"));
                                    ended.add();
                                }
                            });
                            if is_first {
                                std::future::pending::<()>().await;
                            }
                            key
                        }
                    })
                    .expect("good settings");
                handle.set(cache.clone()).expect("once");
                let mut caller = Box::pin(cache.get_async(&1));
                assert!(poll(caller.as_mut()).is_pending());
                match by {
                    0 | 3 => drop(caller),
                    1 => {
                        assert!(cache.takeover(&1));
                        drop(caller);
                    }
                    2 => {
                        assert_eq!(cache.close_within(Duration::ZERO), 1);
                        drop(caller);
                    }
                    // The fill goes with the caller that waits for its end.
                    _ => {
                        let mut ends = Box::pin(cache.invalidate_async(&1));
                        assert!(poll(ends.as_mut()).is_pending());
                        drop(caller);
                        assert_eq!(poll(ends.as_mut()), Poll::Ready(false));
                    }
                }
                assert_eq!(done.get(), 1, "{name} {by}");
                cache.invalidate(&1);
                assert!(cache.in_flight().is_empty());
            });
        }
    }
}

/// As [`USES`], of a cache with its own fill.
const STORED_USES: [(&str, fn(&AtomicCache<u64, u64>)); 6] = [
    ("get", |cache| {
        panics(|| cache.get(&1));
    }),
    ("try_get", |cache| {
        let asked = cache.try_get(&1);
        assert!(!matches!(asked, Err(TryGetError::Fill(_))));
    }),
    ("invalidate", |cache| assert!(!cache.invalidate(&1))),
    ("remove", |cache| assert_eq!(cache.remove(&1), None)),
    ("invalidate_all", AtomicCache::invalidate_all),
    ("refresh", |cache| {
        panics(|| cache.refresh(&1));
    }),
];

/// A value with a destructor that invalidates key 1, once, when the test tells it to.
#[derive(Clone)]
struct Invalidates(Cache<u64, Invalidates>, Arc<AtomicBool>);

impl Drop for Invalidates {
    fn drop(&mut self) {
        if self.1.swap(false, SeqCst) {
            self.0.invalidate(&1);
        }
    }
}

/// The value that a compute was given is dropped with it, as a part of it.
#[test]
fn c05_the_value_that_a_compute_was_given_may_invalidate_its_key_as_it_is_dropped() {
    watched(|| {
        // The clone that the future has, and the one that the compute has kept.
        for kept in [false, true] {
            let cache: Cache<u64, Invalidates> = Cache::unbounded();
            let armed = Arc::<AtomicBool>::default();
            cache.insert(1, Invalidates(cache.clone(), armed.clone()));
            let compute = cache.entry(1).and_compute_with_async(|seen| async move {
                let _seen = seen.filter(|_| !kept);
                std::future::pending().await
            });
            let mut compute = Box::pin(compute);
            assert!(poll(compute.as_mut()).is_pending());
            armed.store(true, SeqCst);
            drop(compute);
            assert!(!armed.load(SeqCst));
            assert!(!cache.contains(&1));
            assert!(cache.in_flight().is_empty());
            cache.quiesce();
        }
    });
}

/// A fill that panics is dropped as a part of itself, too.
#[test]
fn c05_a_fill_that_panics_may_use_its_own_key_as_it_is_dropped() {
    struct Panics(UsesInDrop);

    impl Future for Panics {
        type Output = u64;

        fn poll(mut self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<u64> {
            self.0.polls += 1;
            unwind("on purpose")
        }
    }

    for (name, act) in USES {
        watched(move || {
            let cache = plain();
            let used = Tally::default();
            let fill = || {
                Panics(UsesInDrop {
                    cache: cache.clone(),
                    act,
                    used: used.clone(),
                    polls: 0,
                })
            };
            assert!(panics(|| poll(pin!(cache.get_with_async(&1, &fill)))));
            assert_eq!(used.get(), 1, "{name}");
            cache.invalidate(&1);
            let compute = |_| {
                let fill = fill();
                async { Op::Put(fill.await) }
            };
            assert!(panics(|| poll(pin!(
                cache.entry(1).and_compute_with_async(compute)
            ))));
            assert_eq!(used.get(), 2, "{name}");
            cache.invalidate(&1);
            assert_eq!(cache.get_with(&1, || 5), 5);
        });
    }
}

/// A guard, and beside it a destructor that asks for its key: of a thread's guard that is known.
#[test]
fn c05_beside_a_guard_a_destructor_may_ask_for_its_key() {
    for (_, act) in USES {
        watched(move || {
            let cache = plain();
            let inside = cache.clone();
            {
                let GuardResult::Guard(_guard) = cache.get_value_or_guard(&1, None) else {
                    panic!("it is not there");
                };
                let _last = OnDrop(move || act(&inside));
            }
            cache.invalidate(&1);
            assert_eq!(cache.get_with(&1, || 5), 5);
        });
    }
}

/// Of a task's guard it is not known: it panics in a runtime, and does not hang.
#[test]
fn c05_beside_a_guard_of_a_task_a_destructor_that_asks_for_its_key_is_refused() {
    watched(|| {
        let cache = plain();
        let inside = cache.clone();
        one_thread_of_tokio().block_on(async {
            let task = tokio::spawn(async move {
                let TaskGuardResult::Guard(guard) = inside.get_value_or_guard_async(&1).await
                else {
                    panic!("it is not there");
                };
                let text = panic_text(|| inside.get_with(&1, || 0));
                assert!(text.contains("`get_with_async`"), "{text}");
                guard.insert(1);
            });
            task.await.unwrap();
        });
        assert_eq!(cache.get(&1), Some(1));
    });
}
