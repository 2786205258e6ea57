//! Running fills: shown, watched, abandoned; and the use of a cache after it is closed.

use crate::support::common::*;
use crate::support::schedule::*;
use crate::support::task_tools::*;
use atomic_cache::{
    AtomicCache, BuildError, Cache, GuardResult, LedBy, ManualClock, Op, TryGetError,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::Duration;

fn clocked() -> (Cache<u32, u32>, ManualClock) {
    let clock = ManualClock::new();
    let cache = Cache::builder().clock(clock.clone()).build().unwrap();
    (cache, clock)
}

/// The lead of the fill of key 1, on a thread of its own, until it is dropped or given a value.
struct Lead(Option<(Sender<u32>, JoinHandle<Option<u32>>)>);

fn lead(cache: &Cache<u32, u32>) -> Lead {
    let (cache, begun) = (cache.clone(), Arc::new(Barrier::new(2)));
    let (give, given) = channel();
    let begins = begun.clone();
    let thread = thread::spawn(move || {
        let GuardResult::Guard(guard) = cache.get_value_or_guard(&1, None) else {
            panic!("nobody else is there");
        };
        begins.wait();
        given.recv().ok().map(|value| guard.insert(value))
    });
    begun.wait();
    Lead(Some((give, thread)))
}

impl Lead {
    fn insert(mut self, value: u32) -> u32 {
        let (give, thread) = self.0.take().expect("once");
        give.send(value).unwrap();
        thread.join().unwrap().expect("it was given a value")
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if let Some((give, thread)) = self.0.take() {
            drop(give);
            thread.join().unwrap();
        }
    }
}

#[test]
fn in_flight_shows_key_age_waiters_and_leader() {
    let (cache, clock) = clocked();
    assert!(cache.in_flight().is_empty());
    let guard = lead(&cache);
    clock.advance(3 * SECOND);
    let mut waiter = pin!(cache.get_with_async(&1, || async { 11 }));
    assert!(poll(waiter.as_mut()).is_pending());
    let mut task = pin!(cache.get_with_async(&2, std::future::pending::<u32>));
    assert!(poll(task.as_mut()).is_pending());
    clock.advance(SECOND);
    let mut running = cache.in_flight();
    running.sort_by_key(|fill| fill.key);
    let [one, two] = &running[..] else {
        panic!("{running:?}");
    };
    assert_eq!(
        (one.age, one.waiters, one.led_by),
        (Some(4 * SECOND), 1, LedBy::Thread)
    );
    assert_eq!(
        (two.age, two.waiters, two.led_by),
        (Some(SECOND), 0, LedBy::Task)
    );
    assert!(!one.fenced_off);
    guard.insert(10);
    assert_eq!(poll(waiter.as_mut()), Poll::Ready(10));
    assert_eq!(cache.in_flight().len(), 1);
}

#[test]
fn in_flight_shows_what_is_fenced_off() {
    let (cache, _) = clocked();
    let guard = lead(&cache);
    let mut invalidation = pin!(cache.invalidate_async(&1));
    assert!(poll(invalidation.as_mut()).is_pending());
    assert!(cache.in_flight()[0].fenced_off);
    drop(guard);
    assert_eq!(poll(invalidation.as_mut()), Poll::Ready(false));
}

#[test]
fn c03_what_a_fill_that_was_taken_over_comes_to_is_not_kept() {
    let (cache, _) = clocked();
    let guard = lead(&cache);
    let bell = Arc::new(Bell::default());
    let mut waiter = pin!(cache.get_with_async(&1, || async { 11 }));
    assert!(poll_with(waiter.as_mut(), &bell).is_pending());
    assert!(cache.takeover(&1));
    assert!(!cache.takeover(&1), "once");
    // One of the waiters leads anew.
    assert_eq!(bell.rung(), 1);
    assert_eq!(poll_with(waiter.as_mut(), &bell), Poll::Ready(11));
    assert_eq!(guard.insert(10), 10);
    assert_eq!(cache.get(&1), Some(11));
    let stats = cache.stats();
    assert_eq!((stats.fills, stats.taken_over), (2, 1));
}

#[test]
fn takeover_of_a_fill_that_fails_or_is_dropped_later() {
    let (cache, _) = clocked();
    let guard = lead(&cache);
    assert!(cache.takeover(&1));
    cache.insert(1, 12);
    drop(guard);
    assert_eq!(cache.get(&1), Some(12));
    let failed = cache.try_get_with(&2, || {
        assert!(cache.takeover(&2));
        Err::<u32, _>("late")
    });
    assert_eq!(failed, Err(TryGetError::Fill("late")));
    assert_eq!(cache.get_with(&2, || 20), 20);
    assert!(!cache.takeover(&2), "nothing runs");
    assert!(!cache.takeover(&3), "not there");
}

#[test]
fn takeover_lets_those_go_on_who_invalidate() {
    watched(|| {
        let (cache, _) = clocked();
        let guard = lead(&cache);
        thread::scope(|scope| {
            let invalidation = scope.spawn(|| cache.invalidate(&1));
            while cache.in_flight()[0].waiters == 0 {
                thread::yield_now();
            }
            // Detached already: the callers that wait for its end need wait no more.
            cache.takeover(&1);
            drop(guard);
            assert!(!invalidation.join().unwrap());
        });
    });
}

#[test]
fn takeover_of_a_refresh_leaves_the_old_value() {
    let gate = Latch::default();
    let fills = Arc::new(Mutex::new(0));
    let cache = {
        let (gate, fills) = (gate.clone(), fills.clone());
        AtomicCache::new_async(
            move |_: u32| {
                let gate = gate.clone();
                let mut fills = fills.lock().unwrap();
                *fills += 1;
                let fill = *fills;
                async move {
                    if fill == 2 {
                        gate.await;
                    }
                    fill
                }
            },
            None,
        )
    };
    assert_eq!(cache.get(&1), 1);
    let mut refresh = pin!(cache.refresh_async(&1));
    assert!(poll(refresh.as_mut()).is_pending());
    assert!(cache.takeover(&1));
    assert_eq!(cache.peek(&1), Some(1));
    assert_eq!(cache.len(), 1);
    // The caller that wanted a newer value leads anew; the stuck fill is dropped.
    assert_eq!(poll(refresh.as_mut()), Poll::Ready(3));
    assert_eq!(cache.get(&1), 3);
    cache.quiesce();
    assert_eq!(cache.retired(), 0);
}

#[test]
fn fill_timeout_gives_a_stuck_fill_up() {
    let clock = ManualClock::new();
    let cache: Cache<u32, u32> = Cache::builder()
        .clock(clock.clone())
        .fill_timeout(10 * SECOND)
        .build()
        .unwrap();
    let guard = lead(&cache);
    clock.advance(9 * SECOND);
    cache.run_pending_tasks();
    assert_eq!(cache.stats().taken_over, 0);
    clock.advance(SECOND);
    cache.run_pending_tasks();
    assert_eq!(cache.stats().taken_over, 1);
    assert_eq!(cache.get_with(&1, || 11), 11);
    assert_eq!(guard.insert(10), 10);
    assert_eq!(cache.get(&1), Some(11));
}

#[test]
fn fill_timeout_holds_for_a_compute_over_a_value() {
    let clock = ManualClock::new();
    let cache: Cache<u32, u32> = Cache::builder()
        .clock(clock.clone())
        .fill_timeout(SECOND)
        .build()
        .unwrap();
    cache.insert(1, 10);
    cache.entry(1).and_compute_with(|_| {
        assert_eq!(cache.in_flight()[0].age, Some(Duration::ZERO));
        clock.advance(SECOND);
        cache.run_pending_tasks();
        assert_eq!(cache.get(&1), Some(10));
        atomic_cache::Op::Put(11)
    });
    assert_eq!(cache.get(&1), Some(10));
    assert_eq!(cache.stats().taken_over, 1);
}

#[test]
fn on_slow_fill_is_told_once_a_fill() {
    let clock = ManualClock::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let hears = told.clone();
    let cache: Cache<u32, u32> = Cache::builder()
        .clock(clock.clone())
        .on_slow_fill(10 * SECOND, move |&key, age| {
            hears.lock().unwrap().push((key, age));
            assert_ne!(key, 3, "a panic goes no further");
        })
        .build()
        .unwrap();
    // While it runs, and not again at its end.
    let guard = lead(&cache);
    clock.advance(10 * SECOND);
    cache.run_pending_tasks();
    cache.run_pending_tasks();
    guard.insert(10);
    // At its end; and one that fails.
    let slow = |key| {
        cache.try_get_with(&key, || {
            clock.advance(11 * SECOND);
            if key == 2 { Ok(20) } else { Err(()) }
        })
    };
    assert!(slow(2).is_ok() && slow(3).is_err());
    // Not slow.
    cache.get_with(&4, || 40);
    let told = told.lock().unwrap();
    assert_eq!(
        *told,
        [(1, 10 * SECOND), (2, 11 * SECOND), (3, 11 * SECOND)]
    );
}

#[test]
fn c11_a_timeout_of_nothing_is_refused() {
    let refused = Cache::<u32, u32>::builder()
        .fill_timeout(Duration::ZERO)
        .build();
    assert_eq!(refused.unwrap_err(), BuildError::FillTimeoutZero);
}

#[test]
fn a_closed_cache_refuses_fills_and_serves_what_it_has() {
    let (cache, _) = clocked();
    cache.insert(1, 10);
    cache.close();
    cache.close();
    assert!(cache.is_closed());
    assert_eq!(cache.get_with(&1, || unreachable!()), 10);
    let refused = cache.try_get_with::<_, ()>(&2, || unreachable!());
    assert!(
        matches!(refused, Err(TryGetError::Closed(_))),
        "{refused:?}"
    );
    let guard = cache.get_value_or_guard(&2, None);
    assert!(matches!(guard, GuardResult::Closed(_)), "{guard:?}");
    let panics = |verb: &dyn Fn()| {
        let panic = catch_unwind(AssertUnwindSafe(verb)).unwrap_err();
        let text = panic.downcast::<String>().expect("a text");
        assert!(text.contains("closed"), "{text}");
    };
    panics(&|| _ = cache.get_with(&2, || unreachable!()));
    panics(&|| _ = cache.optionally_get_with(&2, || unreachable!()));
    panics(&|| _ = cache.entry(2).or_insert(20));
    panics(&|| _ = cache.entry(2).and_compute_with(|_| unreachable!()));
    let mut future = pin!(cache.try_get_with_async(&2, || async { Ok::<_, ()>(20) }));
    assert!(matches!(
        poll(future.as_mut()),
        Poll::Ready(Err(TryGetError::Closed(_)))
    ));
    // Everything else works.
    cache.insert(3, 30);
    assert!(cache.invalidate(&1));
    assert_eq!((cache.get(&3), cache.len()), (Some(30), 1));
    assert!(cache.in_flight().is_empty());
}

#[test]
fn close_waits_for_the_fills_that_run() {
    watched(|| {
        let (cache, _) = clocked();
        let guard = lead(&cache);
        thread::scope(|scope| {
            let closing = scope.spawn(|| cache.close());
            while cache.in_flight()[0].waiters == 0 {
                thread::yield_now();
            }
            assert!(cache.is_closed() && !closing.is_finished());
            // A caller that has joined gets its value.
            guard.insert(10);
            closing.join().unwrap();
        });
        assert_eq!(cache.get(&1), Some(10));
    });
}

#[test]
fn close_from_inside_a_fill_does_not_wait_for_it() {
    watched(|| {
        let (cache, _) = clocked();
        let value = cache.get_with(&1, || {
            cache.close();
            10
        });
        assert_eq!((value, cache.get(&1)), (10, Some(10)));
        assert_eq!(cache.stats().taken_over, 0);
    });
}

#[test]
fn close_within_gives_up_what_runs_longer() {
    watched(|| {
        let (cache, _) = clocked();
        let guard = lead(&cache);
        let mut waiter = pin!(cache.try_get_with_async(&1, || async { Ok::<_, ()>(11) }));
        assert!(poll(waiter.as_mut()).is_pending());
        thread::scope(|scope| {
            let cut_off = scope.spawn(|| cache.close_within(Duration::from_millis(1)));
            assert_eq!(cut_off.join().unwrap(), 1);
        });
        let refused = poll(waiter.as_mut());
        assert!(
            matches!(refused, Poll::Ready(Err(TryGetError::Closed(_)))),
            "{refused:?}"
        );
        assert_eq!(guard.insert(10), 10);
        assert_eq!(cache.get(&1), None);
    });
}

#[test]
fn close_async_waits_and_cuts_off_at_its_deadline() {
    let (cache, _) = clocked();
    let mut leader = pin!(cache.get_with_async(&1, std::future::pending::<u32>));
    assert!(poll(leader.as_mut()).is_pending());
    let deadline = Latch::default();
    let bell = Arc::new(Bell::default());
    let mut closing = pin!(cache.close_async_until(deadline.clone()));
    assert!(poll_with(closing.as_mut(), &bell).is_pending());
    assert!(cache.is_closed());
    deadline.open();
    assert_eq!(bell.rung(), 1);
    assert_eq!(poll_with(closing.as_mut(), &bell), Poll::Ready(1));
    // Dropped midway, a closing leaves the cache closed.
    assert!(cache.is_closed());
}

#[test]
fn a_fill_never_begins_after_close_has_returned() {
    for _ in 0..200 {
        let cache: Cache<u32, u32> = Cache::unbounded();
        let closed = std::sync::atomic::AtomicBool::new(false);
        let barrier = Barrier::new(3);
        thread::scope(|scope| {
            for key in 0..2 {
                let (cache, closed, barrier) = (&cache, &closed, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let _ = cache.try_get_with(&key, || {
                        assert!(!closed.load(std::sync::atomic::Ordering::SeqCst));
                        Ok::<_, ()>(key)
                    });
                });
            }
            barrier.wait();
            cache.close();
            closed.store(true, std::sync::atomic::Ordering::SeqCst);
        });
    }
}

/// A fill without waiters, which the spawner has got: abandoned, it is woken and dropped.
#[test]
fn takeover_drops_a_fill_that_goes_on_elsewhere() {
    let spawned: Arc<Mutex<Vec<Spawned>>> = Arc::default();
    let (gate, keeps) = (Latch::default(), spawned.clone());
    let alive = Arc::new(());
    let cache = {
        let (gate, alive) = (gate.clone(), alive.clone());
        AtomicCache::<u32, u32>::builder()
            .spawner(move |fill| keeps.lock().unwrap().push(fill))
            .build_with_async(move |key| {
                let (gate, alive) = (gate.clone(), alive.clone());
                async move {
                    gate.await;
                    drop(alive);
                    key
                }
            })
            .unwrap()
    };
    let before = Arc::strong_count(&alive);
    {
        let mut caller = pin!(cache.get_async(&1));
        assert!(poll(caller.as_mut()).is_pending());
    }
    let mut orphan = spawned.lock().unwrap().pop().expect("nobody waits for it");
    let bell = Arc::new(Bell::default());
    assert!(poll_with(orphan.as_mut(), &bell).is_pending());
    assert_eq!(cache.in_flight().len(), 1);
    assert!(cache.takeover(&1));
    assert_eq!(bell.rung(), 1);
    assert!(poll_with(orphan.as_mut(), &bell).is_ready());
    assert_eq!(Arc::strong_count(&alive), before, "it is dropped");
    assert_eq!(cache.stats().fill_cancelled, 1);
    // One that is not given up ends by itself, and others may join it meanwhile.
    {
        let mut caller = pin!(cache.get_async(&2));
        assert!(poll(caller.as_mut()).is_pending());
    }
    let mut orphan = spawned.lock().unwrap().pop().expect("nobody waits for it");
    let mut late = pin!(cache.get_async(&2));
    assert!(poll_with(orphan.as_mut(), &bell).is_pending());
    assert!(poll(late.as_mut()).is_pending());
    gate.open();
    assert!(poll_with(orphan.as_mut(), &bell).is_ready());
    assert_eq!(poll(late.as_mut()), Poll::Ready(2));
}

type Spawned = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// A caller that waits for the end of a fill polls it, if the cache stores it. Its panic reaches only the callers that
/// asked for its value.
#[test]
fn c04_who_waits_for_the_end_does_not_take_a_fills_panic() {
    watched(|| {
        for closes in [false, true] {
            let fills = Arc::new(Mutex::new(0));
            let count = fills.clone();
            let cache = AtomicCache::new_async(
                move |key: u32| {
                    *count.lock().unwrap() += 1;
                    async move {
                        futures_lite::future::yield_now().await;
                        assert_ne!(key, 1, "on purpose");
                        key
                    }
                },
                None,
            );
            let mut caller = pin!(cache.try_get_async(&1));
            assert!(poll(caller.as_mut()).is_pending());
            if closes {
                cache.close();
            } else {
                cache.invalidate(&1);
            }
            assert_eq!(cache.stats().fill_panics, 1);
            assert!(cache.in_flight().is_empty());
        }
    });
}

#[test]
fn what_is_refused_is_no_fill() {
    let (cache, _) = clocked();
    cache.close();
    for key in 0..3 {
        assert!(cache.try_get_with(&key, || Ok::<_, ()>(key)).is_err());
    }
    let stats = cache.stats();
    assert_eq!(
        (stats.fills, stats.refused, stats.fill_cancelled),
        (0, 3, 0)
    );
}

#[test]
fn c05_a_cycle_names_its_caches_if_they_have_names() {
    let [users, groups] =
        ["users", "groups"].map(|name| Cache::<u32, u32>::builder().name(name).build().unwrap());
    let seen = Mutex::new(String::new());
    let _ = users.try_get_with(&1, || {
        groups.get_with(&2, || {
            let error = users.try_get_with(&1, || Ok::<_, ()>(0)).unwrap_err();
            *seen.lock().unwrap() = format!("{error:?}");
            0
        });
        Err::<u32, _>(())
    });
    let seen = seen.into_inner().unwrap();
    assert!(
        seen.contains("users[1]") && seen.contains("groups[2]"),
        "{seen}"
    );
}

/// R4: the previous value of a running fill is not put back after an invalidation has returned.
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

/// An invalidation that waits for a fill that hangs is released by the timeout like any other waiter.
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

/// A value that comes after all, of an abandoned fill, is dropped once, and so is its error.
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

/// A fill that is abandoned while a caller polls it, or that its spawner has got.
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

/// A walk over all keys has come to a fill that hangs, and stops there until another thread abandons that fill.
fn beside_a_takeover(walk: impl FnOnce(&Cache<Hooked, u64, OneHome>) + Send + 'static) {
    in_front_of_a_fill_that_hangs(|cache| {
        takeover_on_hash(cache.clone());
        walk(cache);
    });
}

/// Clauses 2, 4. It does not wait for the abandoned fill, which may never end.
#[test]
fn c04_invalidate_all_beside_a_takeover() {
    beside_a_takeover(Cache::invalidate_all);
}

#[test]
fn c04_invalidate_if_beside_a_takeover() {
    beside_a_takeover(|cache| cache.invalidate_if(|_, _| true));
}

#[test]
fn c04_close_within_beside_a_takeover() {
    beside_a_takeover(|cache| {
        cache.close_within(Duration::from_millis(10));
    });
}

/// Clauses 2, 4. The same from within the fill that is abandoned: it would wait for itself.
#[test]
fn c04_invalidate_all_inside_a_fill_that_is_taken_over() {
    watched_for(A_MOMENT, || {
        let cache: Cache<Hooked, u64, OneHome> = Cache::builder().hasher(OneHome).build().unwrap();
        let of_fill = cache.clone();
        cache.get_with(&Hooked(1), move || {
            of_fill.insert(Hooked(1_000), 1);
            takeover_on_hash(of_fill.clone());
            of_fill.invalidate_all();
            assert!(is_over(&ON_HASH));
            1
        });
        assert!(!cache.contains(&Hooked(1_000)));
    });
}
