//! Clauses 2, 5 and 6 of waits: which thread or task is charged with one, where one is refused, what runs while a
//! fill is led, and deadlines.

use crate::common::*;
use crate::task_tools::*;
use atomic_cache::{
    AtomicCache, Cache, CompResult, GuardResult, ManualClock, Op, RemovalCause, TaskGuardResult,
    TryGetError,
};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, OnceLock};
use std::task::Poll;
use std::thread;
use std::time::Duration;

fn plain() -> Cache<u64, u64> {
    Cache::unbounded()
}

fn one_thread_of_tokio() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime can be built")
}

fn two_threads_of_tokio() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime can be built")
}

type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;

// ---- Which thread or task is charged with a wait.

/// What a task does with key 1, which a thread fills that polls the task.
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

/// How a thread leads a key, and what it does meanwhile.
fn leads(cache: &Cache<u64, u64>, how: usize, meanwhile: &mut dyn FnMut()) {
    match how {
        0 => drop(cache.get_with(&1, || {
            meanwhile();
            1
        })),
        1 => {
            let GuardResult::Guard(guard) = cache.get_value_or_guard(&1, None) else {
                panic!("it is not there");
            };
            meanwhile();
            guard.insert(1);
        }
        2 => {
            let op = |_: Option<&u64>| {
                meanwhile();
                Op::Put(1)
            };
            cache.entry(1).and_compute_with(op);
        }
        // By a fill that is a future.
        _ => {
            let fill = || {
                meanwhile();
                async { 1 }
            };
            run_until_asleep(pin!(cache.get_with_async(&1, fill))).expect("waits for nothing");
        }
    }
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

/// 1 waits for 2 by `block_on`, 2 for 1 on a thread; whoever comes second is refused.
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

/// A guard inside which a task that waits is dropped leaves no wait behind.
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

// ---- Where a wait is refused.

/// A blocking method that has to wait for the fill of key 1; its name, and what its panic has to name.
type Waits<C> = (&'static str, [&'static str; 2], fn(&C));

const WAITS_OF_A_CACHE: [Waits<Cache<u64, u64>>; 20] = [
    ("Cache::get_with", ["`get_with_async`", "`get`"], |cache| {
        cache.get_with(&1, || 0);
    }),
    (
        "Cache::try_get_with",
        ["`try_get_with_async`", "`get`"],
        |cache| drop(cache.try_get_with(&1, || Ok::<_, ()>(0))),
    ),
    (
        "Cache::optionally_get_with",
        ["`optionally_get_with_async`", "`get`"],
        |cache| assert_eq!(cache.optionally_get_with(&1, || None), None),
    ),
    (
        "Cache::get_value_or_guard",
        ["`get_value_or_guard_async`", "`get`"],
        |cache| drop(cache.get_value_or_guard(&1, None)),
    ),
    (
        "Cache::get_value_or_guard",
        ["`get_value_or_guard_async`", "`get`"],
        |cache| drop(cache.get_value_or_guard(&1, Some(Duration::from_secs(3600)))),
    ),
    (
        "EntrySelector::or_insert",
        ["`or_insert_with_async`", "`Cache::get`"],
        |cache| {
            cache.entry(1).or_insert(0);
        },
    ),
    (
        "EntrySelector::or_insert_with",
        ["`or_insert_with_async`", "`Cache::get`"],
        |cache| {
            cache.entry(1).or_insert_with(|| 0);
        },
    ),
    (
        "EntrySelector::or_try_insert_with",
        ["`or_try_insert_with_async`", "`Cache::get`"],
        |cache| drop(cache.entry(1).or_try_insert_with(|| Ok::<_, ()>(0))),
    ),
    (
        "EntrySelector::and_compute_with",
        ["`and_compute_with_async`", "`Cache::insert`"],
        |cache| {
            cache.entry(1).and_compute_with(|_| Op::Nop);
        },
    ),
    (
        "Pinned::get_or_fill_with",
        ["`Cache::get_with_async`", "`get`"],
        |cache| {
            cache.pin().get_or_fill_with(&1, || 0);
        },
    ),
    (
        "Pinned::try_get_or_fill_with",
        ["`Cache::try_get_with_async`", "`get`"],
        |cache| drop(cache.pin().try_get_or_fill_with(&1, || Ok::<_, ()>(0))),
    ),
    (
        "Cache::invalidate",
        ["`invalidate_async`", "`invalidate_nowait`"],
        |cache| {
            cache.invalidate(&1);
        },
    ),
    (
        "Cache::remove",
        ["`remove_async`", "`remove_nowait`"],
        |cache| {
            cache.remove(&1);
        },
    ),
    (
        "Cache::invalidate_all",
        ["`invalidate_all_async`", "`invalidate_all_nowait`"],
        Cache::invalidate_all,
    ),
    (
        "Cache::clear",
        ["`clear_async`", "`clear_nowait`"],
        |cache| {
            cache.clear();
        },
    ),
    (
        "Cache::invalidate_if",
        ["`invalidate_if_async`", "`invalidate_if_nowait`"],
        // It waits only for a key that it picks: by its value.
        |cache| {
            cache.insert(2, 20);
            let forever = |_| std::future::pending::<Op<u64>>();
            let mut compute = pin!(cache.entry(2).and_compute_with_async(forever));
            assert!(poll(compute.as_mut()).is_pending());
            cache.invalidate_if(|key, _| *key == 2);
        },
    ),
    // Once it is fenced off.
    ("Cache::get_with", ["`get_with_async`", "`get`"], |cache| {
        assert!(panics(|| cache.invalidate(&1)));
        cache.get_with(&1, || 0);
    }),
    (
        "Cache::close_within",
        ["`close_async_until`", "`close_within(Duration::ZERO)`"],
        |cache| {
            cache.close_within(Duration::from_secs(3600));
        },
    ),
    (
        "Cache::close_within",
        ["`close_async_until`", "`close_within(Duration::ZERO)`"],
        |cache| {
            cache.close_within(Duration::MAX);
        },
    ),
    (
        "Cache::close",
        ["`close_async`", "`close_within(Duration::ZERO)`"],
        Cache::close,
    ),
];

type Stored = AtomicCache<u64, u64>;

const WAITS_OF_A_STORED_FILL: [Waits<Stored>; 12] = [
    ("AtomicCache::get", ["`get_async`", "`peek`"], |cache| {
        cache.get(&1);
    }),
    ("AtomicCache::with", ["`with_async`", "`peek`"], |cache| {
        cache.with(&1, |_| ());
    }),
    (
        "AtomicCache::try_get",
        ["`try_get_async`", "`peek`"],
        |cache| drop(cache.try_get(&1)),
    ),
    (
        "AtomicCache::refresh",
        ["`refresh_async`", "`invalidate_nowait`"],
        |cache| {
            cache.refresh(&1);
        },
    ),
    (
        "AtomicCache::try_refresh",
        ["`try_refresh_async`", "`invalidate_nowait`"],
        |cache| drop(cache.try_refresh(&1)),
    ),
    (
        "AtomicPinned::get_or_fill",
        ["`AtomicCache::get_async`", "`get`"],
        |cache| {
            cache.pin().get_or_fill(&1);
        },
    ),
    (
        "AtomicPinned::try_get_or_fill",
        ["`AtomicCache::try_get_async`", "`get`"],
        |cache| drop(cache.pin().try_get_or_fill(&1)),
    ),
    (
        "Cache::invalidate",
        ["`invalidate_async`", "`invalidate_nowait`"],
        |cache| {
            cache.invalidate(&1);
        },
    ),
    (
        "Cache::remove",
        ["`remove_async`", "`remove_nowait`"],
        |cache| {
            cache.remove(&1);
        },
    ),
    (
        "Cache::invalidate_all",
        ["`invalidate_all_async`", "`invalidate_all_nowait`"],
        AtomicCache::invalidate_all,
    ),
    (
        "Cache::close_within",
        ["`close_async_until`", "`close_within(Duration::ZERO)`"],
        |cache| {
            cache.close_within(Duration::from_secs(3600));
        },
    ),
    (
        "Cache::close",
        ["`close_async`", "`close_within(Duration::ZERO)`"],
        AtomicCache::close,
    ),
];

#[track_caller]
fn is_refused<C>(cache: &C, (name, twins, wait): Waits<C>, place: &str) {
    let text = panic_text(|| wait(cache));
    let begins = format!("`{name}` would block this thread, which is inside {place}, until");
    assert!(text.starts_with(&begins), "{text}");
    for twin in twins {
        assert!(text.contains(twin), "{text}");
    }
}

/// A fill of key 1 by a task of the runtime; then another task waits for it, blocking.
async fn refused_in_a_task(wait: Waits<Cache<u64, u64>>) {
    let (cache, latch) = (plain(), Latch::new());
    let (fills, opens) = (cache.clone(), latch.clone());
    let fill = tokio::spawn(async move {
        let fill = || async move {
            opens.await;
            10
        };
        fills.get_with_async(&1, fill).await
    });
    while cache.in_flight().is_empty() {
        tokio::task::yield_now().await;
    }
    let waits = cache.clone();
    tokio::spawn(async move { is_refused(&waits, wait, "an async task") })
        .await
        .expect(wait.0);
    // It has left nobody behind who waits.
    assert!(cache.in_flight().iter().all(|fill| fill.waiters == 0));
    latch.open();
    assert_eq!(fill.await.unwrap(), 10);
    cache.quiesce();
    assert!(cache.in_flight().is_empty());
}

async fn stored_refused_in_a_task(wait: Waits<Stored>) {
    let latch = Latch::new();
    let (cache, begun) = behind(&latch);
    let asks = cache.clone();
    let task = tokio::spawn(async move { asks.get_async(&1).await });
    while begun.get() == 0 {
        tokio::task::yield_now().await;
    }
    let waits = cache.clone();
    tokio::spawn(async move { is_refused(&waits, wait, "an async task") })
        .await
        .expect(wait.0);
    latch.open();
    assert_eq!(task.await.unwrap(), 10);
    assert_eq!(begun.get(), 1);
}

#[test]
fn c02_a_wait_on_the_only_thread_of_a_runtime_panics_with_its_twins() {
    for wait in WAITS_OF_A_CACHE {
        watched(move || one_thread_of_tokio().block_on(refused_in_a_task(wait)));
    }
    for wait in WAITS_OF_A_STORED_FILL {
        watched(move || one_thread_of_tokio().block_on(stored_refused_in_a_task(wait)));
    }
}

#[test]
fn c02_a_wait_on_the_threads_of_a_runtime_panics_with_its_twins() {
    for wait in WAITS_OF_A_CACHE {
        watched(move || two_threads_of_tokio().block_on(refused_in_a_task(wait)));
    }
    for wait in WAITS_OF_A_STORED_FILL {
        watched(move || two_threads_of_tokio().block_on(stored_refused_in_a_task(wait)));
    }
}

/// Both threads of two wait at once, as they did when the runtime hung.
#[test]
fn c02_all_threads_of_a_runtime_that_wait_at_once_panic() {
    watched(|| {
        two_threads_of_tokio().block_on(async {
            let (cache, latch) = (plain(), Latch::new());
            let (fills, opens) = (cache.clone(), latch.clone());
            let fill = tokio::spawn(async move {
                let fill = || async move {
                    opens.await;
                    10
                };
                fills.get_with_async(&1, fill).await
            });
            while cache.in_flight().is_empty() {
                tokio::task::yield_now().await;
            }
            let wait = || {
                let cache = cache.clone();
                tokio::spawn(async move { panics(|| cache.invalidate_all()) })
            };
            let waits: Vec<_> = (0..8).map(|_| wait()).collect();
            for wait in waits {
                assert!(wait.await.unwrap());
            }
            latch.open();
            assert_eq!(fill.await.unwrap(), 10);
            assert_eq!(cache.get(&1), None, "fenced off all the same");
        });
    });
}

/// Without a runtime, inside a future of ours: as it is polled, made, and dropped.
#[test]
fn c02_a_wait_inside_a_future_of_ours_panics_with_its_twins() {
    let place = "a poll of one of this crate's futures";
    for wait in WAITS_OF_A_CACHE {
        watched(move || {
            for at in 0..4 {
                let (cache, latch) = (plain(), Latch::new());
                let opens = latch.clone();
                let fill = || async move {
                    opens.await;
                    10
                };
                let mut led = pin!(cache.get_with_async(&1, fill));
                assert!(poll(led.as_mut()).is_pending());
                let refuse = || is_refused(&cache, wait, place);
                match at {
                    0 => {
                        let fill = || async { refuse() };
                        let other: Cache<u64, ()> = Cache::unbounded();
                        let asked = pin!(other.get_with_async(&1, fill));
                        assert!(run_until_asleep(asked).is_some());
                    }
                    1 => {
                        let fill = || {
                            refuse();
                            async {}
                        };
                        let other: Cache<u64, ()> = Cache::unbounded();
                        let asked = pin!(other.get_with_async(&1, fill));
                        assert!(run_until_asleep(asked).is_some());
                    }
                    2 => {
                        let compute = |_: Option<u64>| async {
                            refuse();
                            Op::Put(2)
                        };
                        let other = plain();
                        let asked = pin!(other.entry(1).and_compute_with_async(compute));
                        assert!(run_until_asleep(asked).is_some());
                    }
                    _ => {
                        let dropped = Tally::default();
                        let counts = dropped.clone();
                        let fill = || async {
                            let _last = OnDrop(|| {
                                refuse();
                                counts.add();
                            });
                            std::future::pending::<()>().await;
                        };
                        let other: Cache<u64, ()> = Cache::unbounded();
                        let mut asked = Box::pin(other.get_with_async(&1, fill));
                        assert!(poll(asked.as_mut()).is_pending());
                        drop(asked);
                        assert_eq!(dropped.get(), 1);
                    }
                }
                assert!(cache.in_flight().iter().all(|fill| fill.waiters == 0));
                latch.open();
                assert_eq!(poll(led.as_mut()), Poll::Ready(10));
            }
        });
    }
}

/// A stored fill is a future of ours wherever it is polled, made and dropped, by a thread too.
#[test]
fn c02_a_wait_inside_a_stored_fill_panics() {
    watched(|| {
        let other = plain();
        let latch = Latch::new();
        let opens = latch.clone();
        let fill = || async move {
            opens.await;
            10
        };
        let mut led = pin!(other.get_with_async(&1, fill));
        assert!(poll(led.as_mut()).is_pending());
        let told = Arc::new(Mutex::new(vec![]));
        let (asks, notes) = (other.clone(), told.clone());
        let cache = AtomicCache::new_async(
            move |key: u64| {
                let ask = {
                    let (asks, notes) = (asks.clone(), notes.clone());
                    move || {
                        let text = panic_text(|| asks.get_with(&1, || 0));
                        notes.lock().unwrap().push(text);
                    }
                };
                if key == 0 {
                    ask();
                }
                async move {
                    let mut last = None;
                    match key {
                        1 => ask(),
                        2 => last = Some(OnDrop(ask)),
                        _ => {}
                    }
                    if key == 2 {
                        std::future::pending::<()>().await;
                    }
                    drop(last);
                    key
                }
            },
            None,
        );
        assert_eq!((cache.get(&0), cache.get(&1)), (0, 1));
        let mut waits = Box::pin(cache.get_async(&2));
        assert!(poll(waits.as_mut()).is_pending());
        drop(waits);
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 3, "{told:?}");
        let refused = |text: &String| text.starts_with("`Cache::get_with` would block");
        assert!(told.iter().all(refused), "{told:?}");
        latch.open();
        assert_eq!(poll(led.as_mut()), Poll::Ready(10));
    });
}

/// What does not have to wait works anywhere.
#[test]
fn c02_hits_and_leads_and_what_does_not_wait_work_in_a_task() {
    watched(|| {
        for runtime in [one_thread_of_tokio(), two_threads_of_tokio()] {
            runtime.block_on(async {
                let cache = plain();
                assert_eq!(cache.get_with(&1, || 10), 10);
                assert_eq!(cache.get_with(&1, || 11), 10);
                cache.entry(1).and_compute_with(|_| Op::Put(12));
                assert_eq!(cache.remove(&1), Some(12));
                cache.invalidate_all();
                let fill = || async {
                    // Its own key is a cycle, and not this.
                    let asked = cache.try_get_with(&1, || Ok::<_, ()>(0));
                    assert!(matches!(asked, Err(TryGetError::Cycle(_))));
                    assert!(!cache.invalidate(&1));
                    1
                };
                assert_eq!(cache.get_with_async(&1, fill).await, 1);
                let mut led = pin!(cache.get_with_async(&2, std::future::pending));
                assert!(poll(led.as_mut()).is_pending());
                let at_once = cache.get_value_or_guard(&2, Some(Duration::ZERO));
                assert!(matches!(at_once, GuardResult::Timeout));
                assert!(!cache.invalidate_nowait(&2));
                assert_eq!(cache.close_within(Duration::ZERO), 0);
                let stored = AtomicCache::new_async(|n: u64| async move { n }, None);
                assert_eq!(stored.get(&1), 1, "polled here to its end");
                assert_eq!(stored.refresh(&1), 1);
            });
        }
    });
}

/// Tokio's own exceptions are ours.
#[test]
fn c02_a_wait_in_spawn_blocking_and_block_in_place_is_one() {
    watched(|| {
        two_threads_of_tokio().block_on(async {
            for blocking in [true, false] {
                let (cache, latch) = (plain(), Latch::new());
                let opens = latch.clone();
                let fills = cache.clone();
                let fill = tokio::spawn(async move {
                    let fill = || async move {
                        opens.await;
                        10
                    };
                    fills.get_with_async(&1, fill).await
                });
                while cache.in_flight().is_empty() {
                    tokio::task::yield_now().await;
                }
                let waits = cache.clone();
                let ask = move || waits.get_with(&1, || 11);
                let wait = if blocking {
                    tokio::task::spawn_blocking(ask)
                } else {
                    tokio::spawn(async { tokio::task::block_in_place(ask) })
                };
                while cache.stats().joined == 0 {
                    tokio::task::yield_now().await;
                }
                latch.open();
                assert_eq!((wait.await.unwrap(), fill.await.unwrap()), (10, 10));
            }
        });
    });
}

/// A removal by a destructor while a task unwinds: to panic would end the program, so it goes on without its wait.
#[test]
fn c02_a_removal_while_a_task_unwinds_does_not_wait() {
    in_child(
        "waits::c02_a_removal_while_a_task_unwinds_does_not_wait",
        Duration::from_secs(30),
        || {
            one_thread_of_tokio().block_on(async {
                let cache = plain();
                let mut led = pin!(cache.get_with_async(&1, std::future::pending));
                assert!(poll(led.as_mut()).is_pending());
                let inside = cache.clone();
                let task = tokio::spawn(async move {
                    let _last = OnDrop(|| assert!(!inside.invalidate(&1)));
                    unwind("on purpose")
                });
                assert!(task.await.unwrap_err().is_panic());
                assert!(cache.in_flight().is_empty(), "let go of");
            });
        },
    );
}

// ---- The drop of a fill is a part of it.

type Use = (&'static str, fn(&Cache<u64, u64>));

fn is_cycle<T>(asked: &Result<T, TryGetError<()>>) -> bool {
    matches!(asked, Err(TryGetError::Cycle(_)))
}

/// What a destructor of a fill of key 1 does with that key.
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

/// Of a future that is dropped by its caller after so many polls, as a timeout does it.
fn drop_after(polls: usize, future: impl Future) {
    let mut future = Box::pin(future);
    for _ in 0..polls {
        assert!(poll(future.as_mut()).is_pending());
    }
    drop(future);
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
    // By whom it is dropped: its last caller, a takeover, a closed cache, a spawner.
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
                    // Those who wait for the end take it along.
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

/// A value whose destructor invalidates key 1, once, when it is told to.
#[derive(Clone)]
struct Invalidates(Cache<u64, Invalidates>, Arc<AtomicBool>);

impl Drop for Invalidates {
    fn drop(&mut self) {
        if self.1.swap(false, SeqCst) {
            self.0.invalidate(&1);
        }
    }
}

/// What a compute was given is dropped with it, as a part of it.
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

// ---- Where listeners run.

type Told = Arc<Mutex<Vec<(u64, bool)>>>;

/// A cache whose listener invalidates key 1, whatever it is told of; notes what it is told, and whether
/// something unwinds meanwhile.
fn invalidates_1(clock: &ManualClock) -> (Cache<u64, u64>, Told) {
    let handle: Arc<OnceLock<Cache<u64, u64>>> = Arc::default();
    let told = Told::default();
    let (shared, notes) = (handle.clone(), told.clone());
    let cache = Cache::builder()
        .time_to_live(Duration::from_secs(1))
        .clock(clock.clone())
        .eviction_listener(move |&key: &u64, _: &u64, _: RemovalCause| {
            notes.lock().unwrap().push((key, thread::panicking()));
            if let Some(cache) = shared.get() {
                cache.invalidate(&1);
            }
        })
        .build()
        .expect("good settings");
    assert!(handle.set(cache.clone()).is_ok());
    (cache, told)
}

#[test]
fn c06_a_listener_is_not_told_by_a_future_that_leads() {
    // How key 1 is led by a task, with a removal that is to be told of: its own expired value.
    let ways: [fn(Cache<u64, u64>, Latch) -> Task<()>; 5] = [
        |cache, latch| {
            Box::pin(async move {
                let fill = || async move {
                    latch.await;
                    10
                };
                assert_eq!(cache.get_with_async(&1, fill).await, 10);
            })
        },
        |cache, latch| {
            Box::pin(async move {
                let puts = cache.clone();
                let fill = || async move {
                    // What it has put in and taken out itself is told when it has ended.
                    puts.insert(2, 2);
                    puts.invalidate(&2);
                    latch.await;
                    10
                };
                assert_eq!(
                    cache.entry(1).or_insert_with_async(fill).await.into_value(),
                    10
                );
            })
        },
        |cache, latch| {
            Box::pin(async move {
                let compute = |_| async move {
                    latch.await;
                    Op::Put(10)
                };
                cache.entry(1).and_compute_with_async(compute).await;
            })
        },
        |cache, latch| {
            Box::pin(async move {
                let TaskGuardResult::Guard(guard) = cache.get_value_or_guard_async(&1).await else {
                    panic!("it is not there");
                };
                latch.await;
                guard.insert(10);
            })
        },
        |cache, latch| {
            Box::pin(async move {
                let guard = cache.get_value_or_guard_async(&1).await;
                latch.await;
                drop(guard);
            })
        },
    ];
    for way in ways {
        for dropped in [false, true] {
            watched(move || {
                let clock = ManualClock::new();
                let (cache, told) = invalidates_1(&clock);
                cache.insert(1, 1);
                clock.advance(Duration::from_secs(1));
                let latch = Latch::new();
                let mut task = way(cache.clone(), latch.clone());
                assert!(poll(task.as_mut()).is_pending());
                assert!(told.lock().unwrap().is_empty(), "it leads");
                if dropped {
                    drop(task);
                } else {
                    latch.open();
                    assert_eq!(poll(task.as_mut()), Poll::Ready(()));
                }
                assert_eq!(told.lock().unwrap()[0], (1, false));
                assert_eq!(cache.stats().panicked_listeners, 0);
            });
        }
    }
}

#[test]
fn c06_a_listener_is_not_told_beside_a_guard() {
    for dropped in [false, true] {
        watched(move || {
            let clock = ManualClock::new();
            let (cache, told) = invalidates_1(&clock);
            cache.insert(1, 1);
            clock.advance(Duration::from_secs(1));
            let GuardResult::Guard(guard) = cache.get_value_or_guard(&1, None) else {
                panic!("it is not there");
            };
            assert!(told.lock().unwrap().is_empty());
            if dropped {
                drop(guard);
            } else {
                guard.insert(10);
            }
            assert_eq!(told.lock().unwrap()[0], (1, false));
        });
    }
}

/// A task leads by another future of it: nobody knows. The wait is refused, and counted.
#[test]
fn c06_a_listener_that_waits_for_a_sibling_of_the_future_that_tells_it_is_refused() {
    watched(|| {
        let clock = ManualClock::new();
        let (cache, told) = invalidates_1(&clock);
        let latch = Latch::new();
        let opens = latch.clone();
        let fill = || async move {
            opens.await;
            10
        };
        let mut sibling = pin!(cache.get_with_async(&1, fill));
        assert!(poll(sibling.as_mut()).is_pending());
        cache.insert(2, 2);
        let mut remove = pin!(cache.remove_async(&2));
        assert_eq!(poll(remove.as_mut()), Poll::Ready(Some(2)));
        assert_eq!(*told.lock().unwrap(), [(2, false)]);
        assert_eq!(cache.stats().panicked_listeners, 1);
        latch.open();
        assert_eq!(poll(sibling.as_mut()), Poll::Ready(10));
        assert_eq!(cache.get(&1), None, "it was fenced off all the same");
    });
}

/// In a task of tokio that is so of a removal that blocks nobody, too.
#[test]
fn c06_a_listener_that_waits_inside_a_task_is_refused() {
    watched(|| {
        one_thread_of_tokio().block_on(async {
            let clock = ManualClock::new();
            let (cache, told) = invalidates_1(&clock);
            let TaskGuardResult::Guard(guard) = cache.get_value_or_guard_async(&1).await else {
                panic!("it is not there");
            };
            cache.insert(2, 2);
            assert!(cache.invalidate_nowait(&2));
            assert_eq!(*told.lock().unwrap(), [(2, false)]);
            assert_eq!(cache.stats().panicked_listeners, 1);
            guard.insert(10);
        });
    });
}

#[test]
fn c06_a_listener_is_not_told_while_a_fill_unwinds() {
    watched(|| {
        let clock = ManualClock::new();
        let (cache, told) = invalidates_1(&clock);
        let spoil = |key: u64| {
            cache.insert(key, key);
            cache.invalidate_nowait(&key);
        };
        let fills: [&dyn Fn(); 5] = [
            &|| {
                cache.get_with(&10, || {
                    spoil(2);
                    unwind("on purpose")
                });
            },
            &|| {
                let fill = || async {
                    spoil(3);
                    unwind("on purpose")
                };
                let _ = poll(pin!(cache.get_with_async(&10, fill)));
            },
            &|| {
                cache.entry(10).and_compute_with(|_| {
                    spoil(4);
                    unwind("on purpose")
                });
            },
            &|| {
                let compute = |_| async {
                    spoil(5);
                    unwind("on purpose")
                };
                let _ = poll(pin!(cache.entry(10).and_compute_with_async(compute)));
            },
            &|| {
                let _guard = cache.get_value_or_guard(&10, None);
                spoil(6);
                unwind("on purpose")
            },
        ];
        for fill in fills {
            assert!(panics(fill));
        }
        // Nothing is kept for ever: whoever comes by next tells.
        cache.insert(7, 7);
        let told = told.lock().unwrap();
        let mut keys: Vec<_> = told.iter().map(|&(key, _)| key).collect();
        keys.sort_unstable();
        assert_eq!(keys, [2, 3, 4, 5, 6]);
        assert!(told.iter().all(|&(_, unwinding)| !unwinding), "{told:?}");
    });
}

/// What is not told while something unwinds is not waited for there.
#[test]
fn c09_quiesce_while_something_unwinds_does_not_wait_for_the_listener() {
    watched(|| {
        let clock = ManualClock::new();
        let (cache, told) = invalidates_1(&clock);
        let unwinds = || {
            let _last = OnDrop(|| {
                cache.insert(2, 2);
                cache.invalidate_nowait(&2);
                cache.quiesce();
            });
            unwind("on purpose")
        };
        assert!(panics(unwinds));
        assert!(told.lock().unwrap().is_empty());
        cache.quiesce();
        assert_eq!(*told.lock().unwrap(), [(2, false)]);
    });
}

/// Nobody waits for a fill that a spawner goes on with: who ends it tells.
#[test]
fn c06_what_a_fill_that_nobody_waits_for_has_removed_is_told_at_its_end() {
    watched(|| {
        let latch = Latch::new();
        let (opens, told) = (latch.clone(), Told::default());
        let spawned: Arc<Mutex<Vec<Task<()>>>> = Arc::default();
        let (notes, queue) = (told.clone(), spawned.clone());
        let fill = move |cache: AtomicCache<u64, u64>, key: u64| {
            let opens = opens.clone();
            async move {
                if key == 1 {
                    assert_eq!(cache.get_async(&2).await, 2);
                    opens.await;
                    cache.invalidate_nowait(&2);
                }
                key
            }
        };
        let cache = AtomicCache::<u64, u64>::builder()
            .eviction_listener(move |&key: &u64, _: &u64, _: RemovalCause| {
                notes.lock().unwrap().push((key, thread::panicking()));
            })
            .spawner(move |fill| queue.lock().unwrap().push(fill))
            .build_recursive_async(fill)
            .expect("good settings");
        drop_after(1, cache.get_async(&1));
        let mut orphan = spawned.lock().unwrap().pop().expect("nobody waits");
        latch.open();
        assert_eq!(poll(orphan.as_mut()), Poll::Ready(()));
        assert_eq!(*told.lock().unwrap(), [(2, false)]);
    });
}

// ---- Deadlines.

/// A stored fill that wakes itself each time it is polled, until it is told to end.
fn restless(end: &Arc<AtomicBool>, polls: &Arc<AtomicU64>) -> AtomicCache<u64, u64> {
    let (end, polls) = (end.clone(), polls.clone());
    let fill = move |key: u64| {
        let (end, polls) = (end.clone(), polls.clone());
        poll_fn(move |cx| {
            polls.fetch_add(1, SeqCst);
            if end.load(SeqCst) {
                return Poll::Ready(key);
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    };
    AtomicCache::new_async(fill, None)
}

#[test]
fn c02_a_fill_that_wakes_itself_does_not_hold_up_close_within() {
    watched(|| {
        // Alone, and beside a thread that polls it too.
        for beside in [false, true] {
            let (end, polls) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
            let cache = restless(&end, &polls);
            thread::scope(|scope| {
                let mut task = Box::pin(cache.get_async(&1));
                assert!(poll(task.as_mut()).is_pending());
                let caller = beside.then(|| scope.spawn(|| panics(|| cache.get(&1))));
                if beside {
                    await_joined(|| cache.stats(), 1);
                }
                assert_eq!(cache.close_within(Duration::from_millis(50)), 1);
                assert!(!end.load(SeqCst));
                if let Some(caller) = caller {
                    assert!(caller.join().unwrap(), "refused");
                }
                drop(task);
            });
            assert!(polls.load(SeqCst) > 1, "whoever waits polls it");
        }
    });
}

#[test]
fn c02_a_fill_that_wakes_itself_does_not_hold_up_close_async_until() {
    watched(|| {
        let (end, polls) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let cache = restless(&end, &polls);
        let mut task = Box::pin(cache.get_async(&1));
        assert!(poll(task.as_mut()).is_pending());
        let deadline = poll_fn(|cx| {
            if polls.load(SeqCst) > 10 {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        });
        assert_eq!(block_on(cache.close_async_until(deadline)), 1);
        drop(task);
    });
}

#[test]
fn c05_a_close_async_until_in_tokio_ends_by_its_timer() {
    watched(|| {
        let (end, polls) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let cache = restless(&end, &polls);
        one_thread_of_tokio().block_on(async {
            let asks = cache.clone();
            let asked = tokio::spawn(async move { asks.try_get_async(&1).await.is_err() });
            while polls.load(SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            let timer = tokio::time::sleep(Duration::from_millis(20));
            assert_eq!(cache.close_async_until(timer).await, 1);
            assert!(asked.await.unwrap());
        });
    });
}
