//! Hostile inputs, as far as tasks go: H14 to H18, H22 (wakers), H24, H25 of the table in
//! `hostile.rs`, fills that panic, and what else was found.

use crate::common::*;
use crate::task_tools::*;
use atomic_cache::{AtomicCache, Cache};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

fn plain() -> Cache<u64, u64> {
    Cache::unbounded()
}

// ---- Wake-ups.

/// A stored fill that asks at once to be polled again is, with one who waits and with several, by
/// tasks and by threads.
#[test]
fn h24_a_stored_fill_that_wakes_itself_in_its_first_poll_is_polled_again() {
    watched(|| {
        for times in 0..4 {
            let fill = move |key: u64| async move {
                yields(times).await;
                key * 10
            };
            let cache = AtomicCache::new_async(fill, None);
            assert_eq!(run_until_asleep(pin!(cache.get_async(&1))), Some(10));
            assert_eq!(cache.get(&2), 20);
            let mut other = pin!(cache.get_async(&3));
            let mut one = pin!(cache.get_async(&3));
            if poll(other.as_mut()).is_pending() {
                assert_eq!(run_until_asleep(one.as_mut()), Some(30));
                assert_eq!(poll(other.as_mut()), Poll::Ready(30));
            }
        }
    });
}

type Act = Box<dyn FnOnce() + Send>;

/// What a waker does when it is cloned, woken and dropped: each once.
#[derive(Default)]
struct Acts {
    clone: Mutex<Option<Act>>,
    wake: Mutex<Option<Act>>,
    drop: Mutex<Option<Act>>,
}

impl Acts {
    fn at_clone(self: &Arc<Self>, act: impl FnOnce() + Send + 'static) {
        *self.clone.lock().expect("never poisoned") = Some(Box::new(act));
    }

    fn at_wake(self: &Arc<Self>, act: impl FnOnce() + Send + 'static) {
        *self.wake.lock().expect("never poisoned") = Some(Box::new(act));
    }

    fn at_drop(self: &Arc<Self>, act: impl FnOnce() + Send + 'static) {
        *self.drop.lock().expect("never poisoned") = Some(Box::new(act));
    }

    /// Nothing of them is left to be done.
    fn done(&self) -> bool {
        let all = [&self.clone, &self.wake, &self.drop];
        all.iter()
            .all(|act| act.lock().expect("never poisoned").is_none())
    }
}

fn act(what: &Mutex<Option<Act>>) {
    let act = what.lock().expect("never poisoned").take();
    if let Some(act) = act {
        act();
    }
}

/// Wakers made of `Acts` by hand, because `Wake` does not tell of clones and drops.
mod acting {
    use super::{Acts, act};
    use std::sync::Arc;
    use std::task::{RawWaker, RawWakerVTable, Waker};

    static TABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop);

    pub(super) fn waker(acts: &Arc<Acts>) -> Waker {
        // SAFETY: the table treats the pointer as the `Arc` that it is from.
        unsafe { Waker::new(Arc::into_raw(Arc::clone(acts)).cast(), &TABLE) }
    }

    fn clone(acts: *const ()) -> RawWaker {
        // SAFETY: from `Arc::into_raw`; the caller's waker has a count of it, and here is one more.
        let acts = unsafe {
            Arc::increment_strong_count(acts.cast::<Acts>());
            Arc::from_raw(acts.cast::<Acts>())
        };
        act(&acts.clone);
        RawWaker::new(Arc::into_raw(acts).cast(), &TABLE)
    }

    fn wake(acts: *const ()) {
        // SAFETY: as above; the count is given up.
        let acts = unsafe { Arc::from_raw(acts.cast::<Acts>()) };
        act(&acts.wake);
    }

    fn wake_by_ref(acts: *const ()) {
        // SAFETY: as above, and the waker keeps its count.
        act(unsafe { &(*acts.cast::<Acts>()).wake });
    }

    fn drop(acts: *const ()) {
        // SAFETY: as above; the count is given up.
        let acts = unsafe { Arc::from_raw(acts.cast::<Acts>()) };
        act(&acts.drop);
    }
}

/// The value comes while the waker is being given: the list drops that waker again, and not under
/// a pin, where `quiesce` would refuse to wait.
#[test]
fn c6_a_waker_is_not_dropped_under_a_pin() {
    watched(|| {
        for insert in [true, false] {
            let (cache, held) = (plain(), Held::new());
            let leader = start_fill(&cache, 1, 10, &held);
            let mut waiter = pin!(cache.get_with_async(&1, || async { unreachable!() }));
            let acts = Arc::new(Acts::default());
            let (inner, end) = (cache.clone(), held.end.clone());
            acts.at_clone(move || {
                if insert {
                    inner.insert(1, 11).expect("not too heavy");
                } else {
                    end.open();
                    spin_until(|| inner.contains(&1));
                }
            });
            let inner = cache.clone();
            acts.at_drop(move || inner.quiesce());
            let waker = acting::waker(&acts);
            let answer = waiter.as_mut().poll(&mut Context::from_waker(&waker));
            assert_eq!(answer, Poll::Ready(if insert { 11 } else { 10 }));
            assert!(acts.done());
            held.end.open();
            assert_eq!(leader.join().expect("it fills"), 10);
        }
    });
}

/// What is polled at first by nobody, and then inside a fill, is the same wait.
#[test]
fn c1_a_stored_fill_goes_on_when_its_only_waiter_is_polled_inside_another_fill() {
    watched(|| {
        let latch = Latch::new();
        let (stored, begun) = behind(&latch);
        let per_call = plain();
        let mut waiter = Box::pin(stored.get_async(&1));
        assert!(poll(waiter.as_mut()).is_pending());
        let mut outer = pin!(per_call.get_with_async(&2, || waiter));
        assert!(poll(outer.as_mut()).is_pending());
        latch.open();
        assert_eq!(poll(outer.as_mut()), Poll::Ready(10));
        assert_eq!((begun.get(), stored.stats().fills), (1, 1));
    });
}

/// Fills that block on other keys of their own cache: no cycle.
#[test]
fn c5_a_stored_fill_may_block_on_other_keys() {
    watched(|| {
        let cache = AtomicCache::recursive_async(
            |cache: AtomicCache<u64, u64>, n| async move {
                if n == 0 { 0 } else { cache.get(&(n - 1)) + 1 }
            },
            None,
        );
        assert_eq!(run_until_asleep(pin!(cache.get_async(&5))), Some(5));
        assert_eq!(cache.get(&9), 9);
    });
}

/// One fill, one panic, however the caller's future goes.
#[test]
fn h01_a_stored_fill_that_panics_is_counted_once() {
    let cache = AtomicCache::new_async(|_: u64| async { unwind("on purpose") }, None);
    let _: &AtomicCache<u64, u64> = &cache;
    let mut future = Box::pin(cache.get_async(&1));
    assert!(panics(|| poll(future.as_mut())));
    drop(future);
    let stats = cache.stats();
    assert_eq!((stats.fills, stats.fill_panics), (1, 1), "{stats:?}");
    assert!(panics(|| futures_lite::future::block_on(
        cache.get_async(&1)
    )));
    assert!(panics(|| cache.get(&1)));
    let stats = cache.stats();
    assert_eq!((stats.fills, stats.fill_panics), (3, 3), "{stats:?}");
}

/// One that was woken to lead and forgotten runs no fill: it holds up nobody.
#[test]
fn h18_who_was_handed_the_lead_and_is_not_polled_holds_up_no_invalidate() {
    watched(|| {
        let cache = plain();
        let mut leader = Box::pin(cache.get_with_async(&1, std::future::pending));
        assert!(poll(leader.as_mut()).is_pending());
        let mut forgotten = pin!(cache.get_with_async(&1, || async { 11 }));
        assert!(poll(forgotten.as_mut()).is_pending());
        let bell = Bell::new();
        let mut early = pin!(cache.invalidate_async(&1));
        assert!(poll_with(early.as_mut(), &bell).is_pending());
        drop(leader);
        assert_eq!((bell.rung(), poll(early.as_mut())), (1, Poll::Ready(false)));
        assert!(!cache.invalidate(&1));
        assert_eq!(cache.get_with(&1, || 12), 12);
        assert_eq!(poll(forgotten.as_mut()), Poll::Ready(12));
    });
}

#[test]
fn h18_who_was_handed_the_lead_before_an_invalidate_does_not_hold_it_up() {
    watched(|| {
        let cache = plain();
        let mut leader = Box::pin(cache.get_with_async(&1, std::future::pending));
        assert!(poll(leader.as_mut()).is_pending());
        let mut forgotten = pin!(cache.get_with_async(&1, || async { 11 }));
        assert!(poll(forgotten.as_mut()).is_pending());
        drop(leader);
        assert!(!cache.invalidate(&1));
        assert_eq!(cache.get_with(&1, || 12), 12);
        assert_eq!(poll(forgotten.as_mut()), Poll::Ready(12));
    });
}

/// As above, of those who wait for the end of the fill and do not fence it off.
#[test]
fn h18_who_was_handed_the_lead_and_is_not_polled_holds_up_no_compute() {
    watched(|| {
        let cache = plain();
        let mut leader = Box::pin(cache.get_with_async(&1, std::future::pending));
        assert!(poll(leader.as_mut()).is_pending());
        let mut forgotten = pin!(cache.get_with_async(&1, || async { 11 }));
        assert!(poll(forgotten.as_mut()).is_pending());
        drop(leader);
        cache.invalidate_if(|_, _| true);
        let result = cache
            .entry(1)
            .and_compute_with(|_| atomic_cache::Op::Put(12));
        assert_eq!(result, atomic_cache::CompResult::Inserted(12));
        assert_eq!(poll(forgotten.as_mut()), Poll::Ready(12));
    });
}

/// Who has been handed the lead, and has not come for it, gets the inserted value too.
#[test]
fn c3_an_insert_is_told_to_those_who_were_about_to_lead() {
    watched(|| {
        let cache = plain();
        let mut leader = Box::pin(cache.get_with_async(&1, std::future::pending));
        assert!(poll(leader.as_mut()).is_pending());
        let mut waiters = [(); 2].map(|()| Box::pin(cache.get_with_async(&1, || async { 11 })));
        for waiter in &mut waiters {
            assert!(poll(waiter.as_mut()).is_pending());
        }
        drop(leader);
        cache.insert(1, 12).expect("not too heavy");
        for waiter in &mut waiters {
            assert_eq!(poll(waiter.as_mut()), Poll::Ready(12));
        }
        let stats = cache.stats();
        assert_fills_add_up(&stats, 0);
    });
}
