//! Clause 6: where listeners run.

use crate::support::common::*;
use crate::support::task_tools::*;
use atomic_cache::{
    AtomicCache, Cache, GuardResult, ManualClock, Op, RemovalCause, TaskGuardResult,
};
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Poll;
use std::thread;
use std::time::Duration;

type Told = Arc<Mutex<Vec<(u64, bool)>>>;

/// A cache with a listener that invalidates key 1 at every removal. It notes each removal, and whether its thread
/// unwinds meanwhile.
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
                    // A removal of its own is told when it has ended.
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

/// A task leads by another future of its own: the cache cannot know. The wait is refused, and counted.
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

/// In a task of tokio that is so of a removal that blocks no caller, too.
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
        // No removal is kept back for ever: the next caller tells the listener.
        cache.insert(7, 7);
        let told = told.lock().unwrap();
        let mut keys: Vec<_> = told.iter().map(|&(key, _)| key).collect();
        keys.sort_unstable();
        assert_eq!(keys, [2, 3, 4, 5, 6]);
        assert!(told.iter().all(|&(_, unwinding)| !unwinding), "{told:?}");
    });
}

/// A removal that is not told while a thread unwinds is not waited for there.
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

/// A spawner goes on with a fill that has no waiters: the task that ends it tells the listener.
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
