//! Tasks: the verbs that end in `_async`, polled by hand.

use crate::task_tools::*;
use atomic_cache::{AtomicCache, Cache, TryGetError};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Poll;

#[test]
fn clause_1_tasks_and_threads_share_one_flight() {
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
                // The blocking verb too.
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
