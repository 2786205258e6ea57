//! Clause 2, of waits: where a wait is refused, which calls do not wait, and deadlines.

use crate::support::common::*;
use crate::support::task_tools::*;
use atomic_cache::{AtomicCache, Cache, GuardResult, Op, TryGetError};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;
use std::time::Duration;

/// A blocking method that has to wait for the fill of key 1; its name, and the names that its panic has to give.
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
    // Once it is detached.
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
    // It has left no waiter in the flight.
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

/// A call that does not have to wait works anywhere.
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
    in_child(test_name!(), Duration::from_secs(30), || {
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

/// A thread inside `with`, with or without a guard, waits for a fill that calls `quiesce`: no thread hangs.
#[test]
fn c02_quiesce_in_a_fill_waits_for_no_reader() {
    watched(|| {
        for view in [false, true] {
            let cache: Cache<u64, u64> = Cache::unbounded();
            cache.insert(1, 10);
            let (filling, reading) = (Gate::new(), Gate::new());
            thread::scope(|scope| {
                scope.spawn(|| {
                    cache.get_with(&2, || {
                        filling.open();
                        reading.pass();
                        cache.invalidate_nowait(&1);
                        cache.quiesce();
                        20
                    })
                });
                filling.pass();
                let waits = || {
                    reading.open();
                    assert_eq!(cache.get_with(&2, || 21), 20);
                };
                if view {
                    let _view = cache.pin();
                    waits();
                } else {
                    cache.with(&1, |_| waits()).unwrap();
                }
            });
        }
    });
}

/// The same of a fill that is a future.
#[test]
#[cfg(feature = "async")]
fn c02_quiesce_in_a_fill_of_a_task_waits_for_no_reader() {
    watched(|| {
        let cache: Cache<u64, u64> = Cache::unbounded();
        cache.insert(1, 10);
        let (filling, reading) = (Gate::new(), Gate::new());
        thread::scope(|scope| {
            scope.spawn(|| {
                block_on(cache.get_with_async(&2, || async {
                    filling.open();
                    reading.pass();
                    cache.invalidate_nowait(&1);
                    cache.quiesce();
                    20
                }))
            });
            filling.pass();
            cache.with(&1, |_| {
                reading.open();
                assert_eq!(cache.get_with(&2, || 21), 20);
            });
        });
    });
}
