//! Tasks: the methods that end in `_async`, polled by hand.

use crate::support::common::*;
use crate::support::task_tools::*;
use atomic_cache::{AtomicCache, Cache, Op, TryGetError};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Poll;

#[test]
fn c01_tasks_and_threads_share_one_flight() {
    let cache: Cache<u32, u32> = Cache::unbounded();
    let gate = Latch::default();
    let opened = gate.clone();
    let mut leader = pin!(cache.get_with_async(&1, || async move {
        opened.await;
        10
    }));
    assert!(poll(leader.as_mut()).is_pending());
    let bell = Arc::new(Bell::default());
    let mut waiter = pin!(cache.get_with_async(&1, || async { unreachable!() }));
    assert!(poll_with(waiter.as_mut(), &bell).is_pending());
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| cache.get_with(&1, || unreachable!()));
        while cache.stats().joined < 2 {
            std::thread::yield_now();
        }
        gate.open();
        assert_eq!(poll(leader.as_mut()), Poll::Ready(10));
        assert_eq!(thread.join().unwrap(), 10);
    });
    assert_eq!(bell.rung(), 1);
    assert_eq!(poll_with(waiter.as_mut(), &bell), Poll::Ready(10));
    assert_eq!(cache.get(&1), Some(10));
}

#[test]
fn h17_a_leader_that_is_dropped_is_followed_by_the_next() {
    let cache: Cache<u32, u32> = Cache::unbounded();
    let bell = Arc::new(Bell::default());
    let mut waiter = pin!(cache.get_with_async(&1, || async { 11 }));
    {
        let mut leader = pin!(cache.get_with_async(&1, std::future::pending::<u32>));
        assert!(poll(leader.as_mut()).is_pending());
        assert!(poll_with(waiter.as_mut(), &bell).is_pending());
        assert_eq!(bell.rung(), 0);
    }
    assert_eq!(bell.rung(), 1);
    assert_eq!(poll_with(waiter.as_mut(), &bell), Poll::Ready(11));
    assert_eq!(cache.stats().fill_cancelled, 1);
}

#[test]
fn h18_whoever_is_polled_polls_a_stored_fill() {
    let gate = Latch::default();
    let fills = Arc::new(AtomicUsize::new(0));
    let cache = {
        let (gate, fills) = (gate.clone(), fills.clone());
        AtomicCache::new_async(
            move |n: u32| {
                fills.fetch_add(1, SeqCst);
                let gate = gate.clone();
                async move {
                    gate.await;
                    n * 10
                }
            },
            None,
        )
    };
    let mut forgotten = pin!(cache.get_async(&1));
    assert!(poll(forgotten.as_mut()).is_pending());
    let bell = Arc::new(Bell::default());
    let mut other = pin!(cache.get_async(&1));
    assert!(poll_with(other.as_mut(), &bell).is_pending());
    gate.open();
    assert_eq!(bell.rung(), 1);
    assert_eq!(poll_with(other.as_mut(), &bell), Poll::Ready(10));
    assert_eq!(fills.load(SeqCst), 1);
    assert!(cache.contains(&1));
    assert_eq!(poll(forgotten.as_mut()), Poll::Ready(10));
}

#[test]
fn h14_a_fill_that_asks_for_its_own_key_is_refused() {
    let cache: Cache<u32, u32> = Cache::unbounded();
    let inner = cache.clone();
    let mut future = pin!(cache.try_get_with_async(&1, || async move {
        match inner
            .try_get_with_async(&1, || async { Ok::<_, ()>(2) })
            .await
        {
            Err(TryGetError::Cycle(cycle)) => {
                assert_eq!(cycle.keys(), ["1", "1"]);
                // The blocking method too.
                inner.try_get_with(&1, || Ok::<_, ()>(3)).unwrap_err();
                Err(())
            }
            other => panic!("{other:?}"),
        }
    }));
    assert_eq!(
        poll(future.as_mut()),
        Poll::Ready(Err(TryGetError::Fill(())))
    );
}

#[test]
fn a_stored_fill_that_asks_at_once_to_be_polled_again_is() {
    let fill = |n: u32| async move {
        futures_lite::future::yield_now().await;
        n * 10
    };
    let cache = AtomicCache::new_async(fill, None);
    let bell = Arc::new(Bell::default());
    let mut future = pin!(cache.get_async(&1));
    assert!(poll_with(future.as_mut(), &bell).is_pending());
    assert_eq!(bell.rung(), 1);
    assert_eq!(poll_with(future.as_mut(), &bell), Poll::Ready(10));
    assert_eq!(cache.get(&2), 20);
}

// ---- The traits of the futures.

fn is_send<T: Send>(_: T) {}

async fn a_value() -> u64 {
    10
}

async fn a_result() -> Result<u64, Refused> {
    Ok(10)
}

/// For runtimes of several threads. (That they are not `Send` if a fill is not is in the docs of the
/// future, as an example that must not compile.)
#[test]
fn the_futures_are_send_if_their_parts_are() {
    let cache: Cache<u64, u64> = Cache::unbounded();
    is_send(cache.get_with_async(&1, a_value));
    is_send(cache.try_get_with_async(&1, a_result));
    is_send(cache.optionally_get_with_async(&1, || async { Some(10) }));
    is_send(cache.entry(1).or_insert_with_async(a_value));
    is_send(cache.entry(1).or_try_insert_with_async(a_result));
    is_send(
        cache
            .entry(1)
            .and_compute_with_async(|_| async { Op::Put(10) }),
    );
    is_send(cache.invalidate_async(&1));
    is_send(cache.remove_async(&1));
    is_send(cache.invalidate_all_async());
    is_send(cache.invalidate_if_async(|_, _| true));
    for stored in [
        AtomicCache::new(|key: &u64| *key, None),
        AtomicCache::new_async(|key: u64| async move { key }, None),
    ] {
        is_send(stored.get_async(&1));
        is_send(stored.try_get_async(&1));
        is_send(stored.refresh_async(&1));
        is_send(stored.try_refresh_async(&1));
        is_send(stored.invalidate_async(&1));
        is_send(stored.invalidate_all_async());
        is_send(stored.invalidate_if_async(|_, _| true));
    }
}

#[test]
fn the_futures_are_small() {
    let cache: Cache<u64, u64> = Cache::unbounded();
    let large = || async {
        let buffer = [1_u8; 1024];
        yields(1).await;
        u64::from(buffer[0])
    };
    let (fill, with) = (size_of_val(&large()), cache.get_with_async(&1, large));
    let with = size_of_val(&with);
    let entry = size_of_val(&cache.entry(1).or_insert_with_async(large));
    let compute = size_of_val(
        &cache
            .entry(1)
            .and_compute_with_async(|_| async { Op::<u64>::Nop }),
    );
    let invalidate = size_of_val(&cache.invalidate_async(&1));
    let small = AtomicCache::new_async(|key: u64| async move { key }, None);
    let big = AtomicCache::new_async(move |_: u64| large(), None);
    let (small, big) = (
        size_of_val(&small.get_async(&1)),
        size_of_val(&big.get_async(&1)),
    );
    println!(
        "fill {fill}, get_with_async {with}, or_insert_with_async {entry}, \
         and_compute_with_async {compute}, invalidate_async {invalidate}, get_async {small}"
    );
    assert!(with < 1024 + 512 && entry < 1024 + 512, "{with}, {entry}");
    assert!(small == big && small < 512, "{small}, {big}");
}

/// A hit answers at the first poll.
#[test]
fn c07_a_hit_never_waits() {
    let cache: Cache<u64, u64> = Cache::unbounded();
    cache.insert(1, 10);
    let never = std::future::pending::<u64>;
    let never_ends = std::future::pending::<Result<u64, Refused>>;
    assert_eq!(poll(pin!(cache.get_with_async(&1, never))), Poll::Ready(10));
    assert_eq!(
        poll(pin!(cache.try_get_with_async(&1, never_ends))),
        Poll::Ready(Ok(10))
    );
    let none = std::future::pending::<Option<u64>>;
    assert_eq!(
        poll(pin!(cache.optionally_get_with_async(&1, none))),
        Poll::Ready(Some(10))
    );
    let entry = poll(pin!(cache.entry(1).or_insert_with_async(never)));
    assert!(matches!(entry, Poll::Ready(entry) if !entry.is_fresh() && *entry.value() == 10));
    let entry = poll(pin!(cache.entry(1).or_try_insert_with_async(never_ends)));
    assert!(matches!(entry, Poll::Ready(Ok(entry)) if !entry.is_fresh()));
    // Also while an insert puts in a newer value.
    let mut compute = pin!(
        cache
            .entry(1)
            .and_compute_with_async(|_| std::future::pending())
    );
    assert!(poll(compute.as_mut()).is_pending());
    assert_eq!(poll(pin!(cache.get_with_async(&1, never))), Poll::Ready(10));
}
