//! Hostile inputs, as far as tasks go: H1, H5, H14 to H18, H24 and H25 of the table of hostile inputs, and others that
//! were found on the way.

use crate::support::common::*;
use crate::support::task_tools::*;
use atomic_cache::{AtomicCache, Cache, CompResult, GuardResult, Op, TryGetError};
use std::pin::{Pin, pin};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Wake};
use std::thread;

// ---- Wake-ups.

/// A stored fill that asks at once to be polled again is polled again, with one waiter and with several, by tasks and
/// by threads.
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

/// The acts of a waker when it is cloned, woken and dropped: each once.
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
fn c06_a_waker_is_not_dropped_under_a_pin() {
    watched(|| {
        for insert in [true, false] {
            let (cache, held) = (plain(), Held::new());
            let leader = Arc::new(start_fill(&cache, 1, 10, &held));
            let mut waiter = pin!(cache.get_with_async(&1, || async { unreachable!() }));
            let acts = Arc::new(Acts::default());
            let (inner, end) = (cache.clone(), held.end.clone());
            let ends = Arc::clone(&leader);
            acts.at_clone(move || {
                if insert {
                    inner.insert(1, 11);
                } else {
                    end.open();
                    // The leader has woken the waiters on the list, which this waker is not on yet.
                    spin_until(|| ends.is_finished());
                }
            });
            let inner = cache.clone();
            acts.at_drop(move || inner.quiesce());
            let waker = acting::waker(&acts);
            let answer = waiter.as_mut().poll(&mut Context::from_waker(&waker));
            assert_eq!(answer, Poll::Ready(if insert { 11 } else { 10 }));
            assert!(acts.done());
            held.end.open();
            let leader = Arc::try_unwrap(leader).expect("nobody else has it");
            assert_eq!(leader.join().expect("it fills"), 10);
        }
    });
}

/// A wait that is polled first outside any fill, and then inside one, is the same wait.
#[test]
fn c01_a_stored_fill_goes_on_when_its_only_waiter_is_polled_inside_another_fill() {
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

/// A key with a `Debug` that acts, once.
#[derive(Clone)]
struct Talks(u64, Arc<Mutex<Option<Act>>>);

impl PartialEq for Talks {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Talks {}

impl std::hash::Hash for Talks {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl std::fmt::Debug for Talks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        act(&self.1);
        write!(f, "{}", self.0)
    }
}

/// A caller that leaves at once, between the begin of a stored fill and the wait of the caller that began it, does not
/// take the fill with it.
#[test]
fn c01_a_stored_fill_is_kept_for_the_caller_that_began_it() {
    watched(|| {
        let (latch, begun) = (Latch::new(), Tally::default());
        let (opened, count) = (latch.clone(), begun.clone());
        let fill = move |key: Talks| {
            count.add();
            let opened = opened.clone();
            async move {
                opened.await;
                key.0 * 10
            }
        };
        let cache = AtomicCache::new_async(fill, None);
        let key = Talks(1, Arc::default());
        let (inner, same) = (cache.clone(), key.clone());
        let leaves = move || assert!(poll(pin!(inner.get_async(&same))).is_pending());
        *key.1.lock().expect("never poisoned") = Some(Box::new(leaves));
        // Inside a fill a key is put into words before it is waited for.
        let outer = plain();
        let mut outer = pin!(outer.get_with_async(&2, || cache.get_async(&key)));
        assert!(poll(outer.as_mut()).is_pending());
        assert!(key.1.lock().expect("never poisoned").is_none());
        latch.open();
        assert_eq!(poll(outer.as_mut()), Poll::Ready(10));
        assert_eq!((begun.get(), cache.stats().fills), (1, 1));
    });
}

/// Fills that block on other keys of their own cache: no cycle.
#[test]
fn c05_a_stored_fill_may_block_on_other_keys() {
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

/// A waiter that was woken to lead and forgotten runs no fill: it holds up no other caller.
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

/// As above, of callers that wait for the end of the fill and do not detach it.
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
        assert_eq!(result, CompResult::Inserted(12));
        assert_eq!(poll(forgotten.as_mut()), Poll::Ready(12));
    });
}

/// A waiter that has been handed the lead, and has not come for it, gets the inserted value too.
#[test]
fn c03_an_insert_is_told_to_those_who_were_about_to_lead() {
    watched(|| {
        let cache = plain();
        let mut leader = Box::pin(cache.get_with_async(&1, std::future::pending));
        assert!(poll(leader.as_mut()).is_pending());
        let mut waiters = [(); 2].map(|()| Box::pin(cache.get_with_async(&1, || async { 11 })));
        for waiter in &mut waiters {
            assert!(poll(waiter.as_mut()).is_pending());
        }
        drop(leader);
        cache.insert(1, 12);
        for waiter in &mut waiters {
            assert_eq!(poll(waiter.as_mut()), Poll::Ready(12));
        }
        let stats = cache.stats();
        assert_fills_add_up(&stats, 0);
    });
}

// ---- H24: wakers.

#[test]
fn h24_the_last_waker_is_the_one_that_is_woken() {
    let latch = Latch::new();
    let (stored, _) = behind(&latch);
    let cache = plain();
    let opened = latch.clone();
    let mut leader = pin!(cache.get_with_async(&1, || async move {
        opened.await;
        10
    }));
    assert!(poll(leader.as_mut()).is_pending());
    let futures: [Pin<Box<dyn Future<Output = u64> + '_>>; 2] = [
        Box::pin(cache.get_with_async(&1, || async { unreachable!() })),
        Box::pin(stored.get_async(&1)),
    ];
    let mut waiting = futures.map(|mut future| {
        let bells = [Bell::new(), Bell::new(), Bell::new()];
        for bell in &bells {
            assert!(poll_with(future.as_mut(), bell).is_pending());
        }
        assert_eq!(Arc::strong_count(&bells[0]), 1, "the waker is kept in vain");
        (future, bells)
    });
    latch.open();
    assert_eq!(poll(leader.as_mut()), Poll::Ready(10));
    for (future, bells) in &mut waiting {
        assert_eq!(bells.each_ref().map(|bell| bell.rung()), [0, 0, 1]);
        assert_eq!(poll(future.as_mut()), Poll::Ready(10));
        assert!(bells.iter().all(|bell| Arc::strong_count(bell) == 1));
    }
}

/// The calls that a waker may make to the cache, the key being filled.
fn re_enter(cache: &Cache<u64, u64>) {
    assert_eq!(cache.get_with(&7, || 70), 70);
    assert!(cache.invalidate(&7));
    cache.insert(8, 80);
    assert_eq!(cache.remove(&8), Some(80));
    cache.peek(&1);
    cache.quiesce();
    let mut other = pin!(cache.get_with_async(&1, std::future::pending));
    let _ = poll(other.as_mut());
}

#[test]
fn h24_a_waker_may_re_enter_the_cache_as_it_is_cloned_woken_and_dropped() {
    watched(|| {
        for publish in [true, false] {
            let cache = plain();
            let latch = Latch::new();
            let opened = latch.clone();
            let mut leader = Box::pin(cache.get_with_async(&1, || async move {
                opened.await;
                10
            }));
            assert!(poll(leader.as_mut()).is_pending());
            let acts = Arc::new(Acts::default());
            let inner = [(); 3].map(|()| cache.clone());
            let [at_clone, at_wake, at_drop] = inner.map(|cache| move || re_enter(&cache));
            acts.at_clone(at_clone);
            acts.at_wake(at_wake);
            acts.at_drop(at_drop);
            let waker = acting::waker(&acts);
            let mut waiter = pin!(cache.get_with_async(&1, || async { 11 }));
            let again = waiter.as_mut().poll(&mut Context::from_waker(&waker));
            // Another one takes its place, and then it comes back.
            assert!(again.is_pending() && poll(waiter.as_mut()).is_pending());
            let again = waiter.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(again.is_pending());
            if publish {
                latch.open();
                assert_eq!(poll(leader.as_mut()), Poll::Ready(10));
            } else {
                drop(leader);
            }
            let value = if publish { 10 } else { 11 };
            assert_eq!(poll(waiter.as_mut()), Poll::Ready(value));
            assert!(acts.done());
            assert_eq!(Arc::strong_count(&acts), 2, "ours, and our waker's");
        }
    });
}

/// Polls a future as soon as it is woken, inside the call that wakes it.
struct AtOnce(Mutex<Option<Pin<Box<dyn Future<Output = u64> + Send>>>>);

impl Wake for AtOnce {
    fn wake(self: Arc<Self>) {
        // A future that is being polled is polled again by its poller.
        let future = self.0.lock().expect("never poisoned").take();
        if let Some(mut future) = future {
            assert_eq!(poll(future.as_mut()), Poll::Ready(10));
        }
    }
}

#[test]
fn h24_a_waker_may_poll_what_it_wakes_at_once() {
    watched(|| {
        let latch = Latch::new();
        let (stored, begun) = behind(&latch);
        let per_call = plain();
        let opened = latch.clone();
        let mut leader = pin!(per_call.get_with_async(&1, || async move {
            opened.await;
            10
        }));
        assert!(poll(leader.as_mut()).is_pending());
        let at_once = [(); 6].map(|()| Arc::new(AtOnce(Mutex::new(None))));
        for (at, bell) in at_once.iter().enumerate() {
            let (stored, per_call) = (stored.clone(), per_call.clone());
            let mut future: Pin<Box<dyn Future<Output = u64> + Send>> = if at % 2 == 0 {
                Box::pin(async move { stored.get_async(&1).await })
            } else {
                Box::pin(async move { per_call.get_with_async(&1, || async { 11 }).await })
            };
            assert!(poll_with(future.as_mut(), bell).is_pending());
            *bell.0.lock().expect("never poisoned") = Some(future);
        }
        latch.open();
        assert_eq!(poll(leader.as_mut()), Poll::Ready(10));
        for bell in at_once {
            assert!(bell.0.lock().expect("never poisoned").is_none(), "woken");
        }
        assert_eq!(begun.get(), 1);
    });
}

/// A waker that panics in `Drop` each time: nothing that is passed on is lost with it.
#[test]
fn h24_a_waker_that_panics_as_it_is_dropped_takes_nothing_with_it() {
    watched(|| {
        let ledger = Ledger::new();
        let cache: Cache<u64, Counted> = Cache::unbounded();
        let leader = Box::pin(cache.get_with_async(&1, std::future::pending));
        let mut leader = leader;
        assert!(poll(leader.as_mut()).is_pending());
        let acts = Arc::new(Acts::default());
        let waker = acting::waker(&acts);
        {
            let mut waiter = pin!(cache.get_with_async(&1, std::future::pending));
            let answer = waiter.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(answer.is_pending());
            acts.at_drop(|| unwind("a waker that cannot be dropped"));
        }
        assert!(acts.done());
        cache.insert(1, ledger.make(12));
        drop(leader);
        cache.invalidate_all();
        cache.quiesce();
        assert_eq!((ledger.alive(), cache.retired()), (0, 0));
    });
}

// ---- H1, H5: fills that panic.

#[test]
fn h01_a_fill_that_panics_is_followed_by_a_waiter_at_once() {
    let cache = plain();
    let latch = Latch::new();
    let opened = latch.clone();
    let mut leader = Box::pin(cache.get_with_async(&1, || async move {
        opened.await;
        unwind("on purpose")
    }));
    assert!(poll(leader.as_mut()).is_pending());
    let bell = Bell::new();
    let mut waiter = pin!(cache.get_with_async(&1, || async { 11 }));
    assert!(poll_with(waiter.as_mut(), &bell).is_pending());
    latch.open();
    assert_eq!(panic_text(|| poll(leader.as_mut())), "on purpose");
    // The future that has panicked is still there.
    assert_eq!(bell.rung(), 1);
    assert_eq!(poll_with(waiter.as_mut(), &bell), Poll::Ready(11));
    let stats = cache.stats();
    assert_eq!((stats.fills, stats.fill_panics), (2, 1));
    assert!(panics(|| poll(leader.as_mut())), "it has ended");
    assert_eq!(cache.get(&1), Some(11));
}

/// A stored fill that panics in its first run, once it is let go on.
fn panics_once(latch: &Latch) -> (AtomicCache<u64, u64>, Tally) {
    let (latch, runs) = (latch.clone(), Tally::default());
    let count = runs.clone();
    let fill = move |key: u64| {
        let (latch, first) = (latch.clone(), count.add() == 0);
        async move {
            latch.await;
            if first {
                unwind("on purpose");
            }
            key * 10
        }
    };
    (AtomicCache::new_async(fill, None), runs)
}

#[test]
fn h01_a_stored_fill_panics_in_whoever_polls_it_and_the_first_of_the_others_starts_anew() {
    let latch = Latch::new();
    let (cache, runs) = panics_once(&latch);
    let bells = [Bell::new(), Bell::new(), Bell::new()];
    let mut futures = [(); 3].map(|()| Box::pin(cache.get_async(&1)));
    for (future, bell) in futures.iter_mut().zip(&bells) {
        assert!(poll_with(future.as_mut(), bell).is_pending());
    }
    latch.open();
    assert_eq!(panic_text(|| poll(futures[1].as_mut())), "on purpose");
    assert!(bells.iter().all(|bell| bell.rung() >= 1));
    assert_eq!(poll(futures[2].as_mut()), Poll::Ready(10));
    assert_eq!(poll(futures[0].as_mut()), Poll::Ready(10));
    let stats = cache.stats();
    assert_eq!((runs.get(), stats.fills, stats.fill_panics), (2, 2, 1));
    assert_eq!(stats.fill_cancelled, 0);
}

#[test]
fn h01_a_stored_fill_that_panics_in_a_task_is_begun_anew_by_a_thread_that_waits() {
    watched(|| {
        let latch = Latch::new();
        let (cache, runs) = panics_once(&latch);
        let mut task = pin!(cache.get_async(&1));
        assert!(poll(task.as_mut()).is_pending());
        let thread = {
            let cache = cache.clone();
            thread::spawn(move || panics(|| cache.get(&1)))
        };
        await_joined(|| cache.stats(), 1);
        latch.open();
        // One of the two polls the first run.
        let panicked = panics(|| poll(task.as_mut()));
        assert_ne!(thread.join().expect("contained"), panicked);
        assert_eq!(cache.get(&1), 10);
        assert_eq!((runs.get(), cache.stats().fill_panics), (2, 1));
    });
}

#[test]
fn h01_a_stored_closure_that_panics_in_a_task_is_followed_by_the_next() {
    let runs = Tally::default();
    let count = runs.clone();
    let fill = move |key: &u64| {
        if count.add() == 0 {
            unwind("on purpose");
        }
        key * 10
    };
    let cache = AtomicCache::new(fill, None);
    let mut future = Box::pin(cache.get_async(&1));
    assert_eq!(panic_text(|| poll(future.as_mut())), "on purpose");
    assert_eq!(poll(pin!(cache.get_async(&1))), Poll::Ready(10));
    assert_eq!((runs.get(), cache.stats().fill_panics), (2, 1));
}

/// Making the future may panic too.
#[test]
fn h01_a_closure_that_panics_before_it_has_made_a_future_leaves_the_key_usable() {
    let cache = plain();
    let make = || -> std::future::Ready<u64> { unwind("no future") };
    let mut future = Box::pin(cache.get_with_async(&1, make));
    assert_eq!(panic_text(|| poll(future.as_mut())), "no future");
    assert_eq!(
        poll(pin!(cache.get_with_async(&1, || async { 10 }))),
        Poll::Ready(10)
    );
    let first = Tally::default();
    let count = first.clone();
    let make = move |key: u64| {
        if count.add() == 0 {
            unwind("no future");
        }
        std::future::ready(key)
    };
    let stored = AtomicCache::new_async(make, None);
    let mut future = Box::pin(stored.get_async(&1));
    assert_eq!(panic_text(|| poll(future.as_mut())), "no future");
    assert_eq!(poll(pin!(stored.get_async(&1))), Poll::Ready(1));
    assert_eq!(
        (cache.stats().fill_panics, stored.stats().fill_panics),
        (1, 1)
    );
}

#[test]
fn h05_a_future_whose_drop_panics_gives_up_its_lead_all_the_same() {
    watched(|| {
        let cache = plain();
        let refuses = || async {
            let _refuses = OnDrop(|| unwind("no drop"));
            std::future::pending().await
        };
        let mut leader = Box::pin(cache.get_with_async(&1, refuses));
        assert!(poll(leader.as_mut()).is_pending());
        let mut waiter = pin!(cache.get_with_async(&1, || async { 11 }));
        assert!(poll(waiter.as_mut()).is_pending());
        assert_eq!(panic_text(|| drop(leader)), "no drop");
        assert_eq!(poll(waiter.as_mut()), Poll::Ready(11));
        assert_fills_add_up(&cache.stats(), 1);
    });
}

/// A future that panics in `Drop`, and in a poll does as the test tells it.
struct Refuses(fn() -> Poll<u64>);

impl Future for Refuses {
    type Output = u64;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<u64> {
        (self.0)()
    }
}

impl Drop for Refuses {
    fn drop(&mut self) {
        unwind("no drop");
    }
}

/// The last waiter drops it and has no part in its panic; or it goes with the caller in which it panics.
#[test]
fn h05_a_stored_future_whose_drop_panics_is_contained() {
    watched(|| {
        let ways: [fn() -> Poll<u64>; 2] = [|| Poll::Pending, || unwind("on purpose")];
        for (way, poll_it) in ways.into_iter().enumerate() {
            let cache = AtomicCache::new_async(move |_: u64| Refuses(poll_it), None);
            for _ in 0..3 {
                let mut future = Box::pin(cache.get_async(&1));
                let panicked = panics(|| assert!(poll(future.as_mut()).is_pending()));
                assert_eq!(usize::from(panicked), way);
                drop(future);
                assert!(!cache.contains(&1));
            }
            let stats = cache.stats();
            assert_eq!(stats.fills, 3);
            assert_fills_add_up(&stats, 0);
        }
    });
}

/// A per-call fill panics as it is polled, and then as it is dropped: its lead is passed on at once.
#[test]
fn h05_a_future_that_panics_twice_passes_its_lead_on() {
    watched(|| {
        let cache = plain();
        let mut leader = Box::pin(cache.get_with_async(&1, || Refuses(|| unwind("on purpose"))));
        assert_eq!(panic_text(|| poll(leader.as_mut())), "on purpose");
        assert_eq!(cache.get_with(&1, || 11), 11);
        assert_fills_add_up(&cache.stats(), 1);
    });
}

/// The fill is ready, and then its future's `Drop` panics.
#[test]
fn h05_a_future_whose_drop_panics_at_its_end_passes_its_lead_on_at_once() {
    watched(|| {
        let cache = plain();
        let mut leader = Box::pin(cache.get_with_async(&1, || Refuses(|| Poll::Ready(10))));
        assert_eq!(panic_text(|| poll(leader.as_mut())), "no drop");
        assert_eq!(cache.get_with(&1, || 11), 11);
        let stored = AtomicCache::new_async(|_: u64| Refuses(|| Poll::Ready(10)), None);
        let mut future = Box::pin(stored.get_async(&1));
        assert_eq!(panic_text(|| poll(future.as_mut())), "no drop");
        assert_eq!(panic_text(|| stored.get(&1)), "no drop");
        assert_fills_add_up(&cache.stats(), 1);
        assert_fills_add_up(&stored.stats(), 0);
    });
}

// ---- H14, H15: cycles.

/// Whether a fill that asks for its own key by `ask` is told of the cycle; by a panic, or an error.
#[track_caller]
fn refused(ask: impl AsyncFnOnce(&Cache<u64, u64>)) {
    let cache = plain();
    let mut future = Box::pin(cache.get_with_async(&1, || async {
        ask(&cache).await;
        10
    }));
    let text = panic_text(|| poll(future.as_mut()));
    assert!(text.contains("1 -> 1"), "{text}");
    drop(future);
    assert_eq!(cache.get_with(&1, || 11), 11);
}

#[test]
fn h14_every_verb_refuses_the_key_of_the_fill_that_calls_it() {
    watched(|| {
        let ready = || async { 1 };
        refused(async |cache| _ = cache.get_with_async(&1, ready).await);
        refused(async |cache| _ = cache.optionally_get_with_async(&1, || async { None }).await);
        refused(async |cache| _ = cache.entry(1).or_insert_with_async(ready).await);
        refused(async |cache| {
            let put = |_| async { Op::Put(1) };
            cache.entry(1).and_compute_with_async(put).await;
        });
        refused(async |cache| {
            let asked = cache.try_get_with_async(&1, || async { Ok::<_, ()>(1) });
            if let Err(TryGetError::Cycle(cycle)) = asked.await {
                panic!("{cycle}");
            }
        });
        refused(async |cache| {
            let entry = cache.entry(1);
            let asked = entry.or_try_insert_with_async(|| async { Ok::<_, ()>(1) });
            if let Err(TryGetError::Cycle(cycle)) = asked.await {
                panic!("{cycle}");
            }
        });
        // The methods that block.
        for verb in Verb::ALL {
            refused(async |cache| {
                if let Err(Some(text)) = verb.ask(cache, 1, || Ok(1)) {
                    panic!("{text}");
                }
            });
        }
    });
}

#[test]
fn h14_a_stored_fill_that_asks_for_its_own_key_is_refused() {
    watched(|| {
        for blocking in [false, true] {
            let fill = move |cache: AtomicCache<u64, u64>, key| async move {
                let asked = if blocking {
                    cache.try_get(&key)
                } else {
                    cache.try_get_async(&key).await
                };
                match asked {
                    Err(TryGetError::Cycle(cycle)) => {
                        assert_eq!(cycle.keys(), ["1", "1"]);
                        10
                    }
                    other => panic!("{other:?}"),
                }
            };
            let cache = AtomicCache::recursive_async(fill, None);
            assert_eq!(poll(pin!(cache.get_async(&1))), Poll::Ready(10));
            assert_eq!(cache.get(&1), 10);
        }
    });
}

/// A fill of each key in a ring asks for the next one, once all run: one is refused, and with the answer it then gives
/// the others complete.
#[test]
fn h15_of_tasks_that_wait_in_a_ring_one_is_refused_and_all_complete() {
    for keys in 2..=5 {
        let (cache, refused) = (plain(), Tally::default());
        let mut tasks: Vec<_> = (0..keys)
            .map(|key| {
                let (cache, refused) = (cache.clone(), refused.clone());
                Box::pin(async move {
                    let fill = || async {
                        yields(1).await;
                        let next = (key + 1) % keys;
                        let fill = || std::future::pending::<Result<u64, ()>>();
                        match cache.try_get_with_async(&next, fill).await {
                            Ok(value) => value + 1,
                            Err(TryGetError::Cycle(cycle)) => {
                                assert_eq!(cycle.keys().len() as u64, keys + 1);
                                refused.add();
                                100
                            }
                            Err(other) => panic!("{other:?}"),
                        }
                    };
                    cache.get_with_async(&key, fill).await
                })
            })
            .collect();
        let mut values = vec![];
        for _ in 0..2 * keys {
            tasks.retain_mut(|task| match poll(task.as_mut()) {
                Poll::Ready(value) => {
                    values.push(value);
                    false
                }
                Poll::Pending => true,
            });
        }
        values.sort_unstable();
        assert_eq!(values, (100..100 + keys).collect::<Vec<_>>());
        assert_eq!(refused.get(), 1);
    }
}

#[test]
fn h15_of_stored_fills_that_wait_in_a_ring_one_is_refused() {
    watched(|| {
        let refused = Tally::default();
        let count = refused.clone();
        let fill = move |cache: AtomicCache<u64, u64>, key: u64| {
            let refused = count.clone();
            async move {
                yields(1).await;
                match cache.try_get_async(&((key + 1) % 3)).await {
                    Ok(value) => value + 1,
                    Err(_) => 100 * refused.add() + 100,
                }
            }
        };
        let cache = AtomicCache::recursive_async(fill, None);
        let value = run_until_asleep(pin!(cache.get_async(&0)));
        assert_eq!((value, refused.get()), (Some(102), 1));
        cache.invalidate_all();
        assert_eq!(cache.get(&1), 202);
    });
}

#[test]
fn h15_of_a_task_and_a_thread_that_wait_for_each_other_one_is_refused() {
    watched(|| {
        for _ in 0..50 {
            let (cache, both) = (plain(), Arc::new(Barrier::new(2)));
            let refused = Tally::default();
            let answer = |asked: Result<u64, TryGetError<()>>| {
                if asked.is_err() {
                    refused.add();
                }
                asked.map_or(100, |value| value + 1)
            };
            thread::scope(|scope| {
                let thread = scope.spawn(|| {
                    cache.get_with(&1, || {
                        both.wait();
                        answer(cache.try_get_with(&2, || unreachable!("it runs")))
                    })
                });
                let task = cache.get_with_async(&2, || async {
                    both.wait();
                    let fill = || async { unreachable!("it runs") };
                    answer(cache.try_get_with_async(&1, fill).await)
                });
                let mut values = [
                    futures_lite::future::block_on(task),
                    thread.join().expect("it does not panic"),
                ];
                values.sort_unstable();
                assert_eq!(values, [100, 101]);
            });
            assert_eq!(refused.get(), 1);
        }
    });
}

// ---- H16: fills that change their own key.

/// The value that is there after a fill has done `change` to its own key, and answered 10.
fn after(change: impl AsyncFnOnce(&Cache<u64, u64>)) -> Option<u64> {
    let cache = plain();
    let mut future = Box::pin(cache.get_with_async(&1, || async {
        change(&cache).await;
        10
    }));
    // A waiter joined before the change, or not at all.
    assert_eq!(run_until_asleep(future.as_mut()), Some(10));
    drop(future);
    let there = cache.get(&1);
    assert_eq!(cache.get_with(&1, || 11), there.unwrap_or(11));
    assert_fills_add_up(&cache.stats(), 1 + u64::from(there.is_none()));
    there
}

#[test]
fn h16_a_fill_may_take_out_or_put_in_its_own_key() {
    watched(|| {
        assert_eq!(
            after(async |cache| _ = cache.invalidate_async(&1).await),
            None
        );
        assert_eq!(after(async |cache| _ = cache.remove_async(&1).await), None);
        assert_eq!(
            after(async |cache| cache.invalidate_all_async().await),
            None
        );
        assert_eq!(
            after(async |cache| cache.invalidate_if_async(|_, _| true).await),
            None
        );
        assert_eq!(after(async |cache| _ = cache.invalidate(&1)), None);
        assert_eq!(after(async |cache| _ = cache.remove(&1)), None);
        assert_eq!(after(async |cache| cache.invalidate_all()), None);
        assert_eq!(after(async |cache| cache.clear()), None);
        assert_eq!(after(async |cache| cache.invalidate_if(|_, _| true)), None);
        let put = async |cache: &Cache<u64, u64>| cache.insert(1, 5);
        assert_eq!(after(put), Some(5));
        assert_eq!(after(async |_| yields(3).await), Some(10));
    });
}

#[test]
fn h16_a_stored_fill_may_take_out_its_own_key() {
    watched(|| {
        for way in 0..5 {
            let fill = move |cache: AtomicCache<u64, u64>, key: u64| async move {
                match way {
                    0 => drop(cache.invalidate_async(&key).await),
                    1 => cache.invalidate_all_async().await,
                    2 => cache.invalidate_if_async(|_, _| true).await,
                    3 => drop(cache.invalidate(&key)),
                    _ => cache.invalidate_all(),
                }
                yields(1).await;
                key * 10
            };
            let cache = AtomicCache::recursive_async(fill, None);
            assert_eq!(run_until_asleep(pin!(cache.get_async(&1))), Some(10));
            assert!(!cache.contains(&1));
            assert_eq!(cache.get(&1), 10);
            assert!(!cache.contains(&1));
            cache.quiesce();
            assert_eq!(cache.retired(), 0);
        }
    });
}

// ---- H17, H18, H25: futures that are dropped, or kept and not polled.

#[test]
fn h17_a_future_that_was_never_polled_has_done_nothing() {
    let cache = plain();
    drop(cache.get_with_async(&1, || async { 10 }));
    drop(cache.entry(1).or_insert_with_async(|| async { 10 }));
    drop(cache.invalidate_async(&1));
    let stats = cache.stats();
    assert_eq!((stats.fills, stats.joined, cache.len()), (0, 0, 0));
    cache.quiesce();
    assert_eq!(cache.retired(), 0);
}

#[test]
fn h17_a_waiter_that_is_dropped_with_its_value_ready_leaves_nothing() {
    let cache = plain();
    let latch = Latch::new();
    let opened = latch.clone();
    let mut leader = pin!(cache.get_with_async(&1, || async move {
        opened.await;
        10
    }));
    assert!(poll(leader.as_mut()).is_pending());
    let bell = Bell::new();
    let mut waiter = Box::pin(cache.get_with_async(&1, || async { unreachable!() }));
    assert!(poll_with(waiter.as_mut(), &bell).is_pending());
    latch.open();
    // Ready by now, and not polled: dropped, it has run and is cancelled all the same.
    assert_eq!(poll(leader.as_mut()), Poll::Ready(10));
    assert_eq!(bell.rung(), 1);
    drop(waiter);
    assert_eq!((Arc::strong_count(&bell), cache.get(&1)), (1, Some(10)));
    cache.invalidate(&1);
    cache.quiesce();
    assert_eq!(cache.retired(), 0);
}

#[test]
fn h17_a_stored_fill_that_is_ready_is_finished_by_another_than_the_one_that_was_woken() {
    let latch = Latch::new();
    let (cache, begun) = behind(&latch);
    let bells = [Bell::new(), Bell::new()];
    let mut futures = [(); 2].map(|()| Some(Box::pin(cache.get_async(&1))));
    for (future, bell) in futures.iter_mut().flatten().zip(&bells) {
        assert!(poll_with(future.as_mut(), bell).is_pending());
    }
    latch.open();
    assert_eq!(bells.each_ref().map(|bell| bell.rung()), [1, 1]);
    futures[0] = None;
    let mut other = futures[1].take().expect("kept");
    assert_eq!(poll(other.as_mut()), Poll::Ready(10));
    assert_eq!(begun.get(), 1);
}

#[test]
fn h18_a_stored_fill_is_finished_by_those_who_invalidate() {
    watched(|| {
        let latch = Latch::new();
        let (cache, begun) = behind(&latch);
        let mut forgotten = pin!(cache.get_async(&1));
        assert!(poll(forgotten.as_mut()).is_pending());
        let mut fence = Box::pin(cache.invalidate_async(&1));
        assert!(poll(fence.as_mut()).is_pending());
        latch.open();
        assert_eq!(poll(fence.as_mut()), Poll::Ready(false));
        assert_eq!(poll(forgotten.as_mut()), Poll::Ready(10));
        assert!(!cache.contains(&1));
        assert_eq!(begun.get(), 1);
    });
}

/// A per-call fill can only be finished by its leader: a waiter bounds its wait.
#[test]
fn h18_a_bounded_wait_for_a_leader_that_is_not_polled_ends() {
    watched(|| {
        let cache = plain();
        let mut leader = Box::pin(cache.get_with_async(&1, std::future::pending));
        assert!(poll(leader.as_mut()).is_pending());
        let short = std::time::Duration::from_millis(5);
        assert!(matches!(
            cache.get_value_or_guard(&1, Some(short)),
            GuardResult::Timeout
        ));
        let wait = async { Some(cache.get_with_async(&1, || async { 11 }).await) };
        let timeout = async {
            smol::Timer::after(short).await;
            None
        };
        assert_eq!(
            smol::block_on(futures_lite::future::or(wait, timeout)),
            None
        );
        drop(leader);
        assert_eq!(cache.get_with(&1, || 12), 12);
        assert_eq!(cache.stats().fill_cancelled, 1);
    });
}

#[test]
fn h25_callers_that_give_up_do_not_begin_a_stored_fill_anew() {
    let latch = Latch::new();
    let (cache, begun) = behind(&latch);
    let mut stays = pin!(cache.get_async(&1));
    for _ in 0..5 {
        let mut gives_up = Box::pin(cache.get_async(&1));
        assert!(poll(gives_up.as_mut()).is_pending());
        assert!(begun.get() == 1 && poll(stays.as_mut()).is_pending());
    }
    latch.open();
    assert_eq!(poll(stays.as_mut()), Poll::Ready(10));
    assert_eq!((begun.get(), cache.peek(&1)), (1, Some(10)));
}

type Spawned = Arc<Mutex<Vec<Pin<Box<dyn Future<Output = ()> + Send>>>>>;

/// As `behind`, with a spawner that keeps the fills it is given.
fn spawned_behind(latch: &Latch) -> (AtomicCache<u64, u64>, Tally, Spawned) {
    let (latch, begun, spawned) = (latch.clone(), Tally::default(), Spawned::default());
    let (count, list) = (begun.clone(), Arc::clone(&spawned));
    let cache = AtomicCache::builder()
        .spawner(move |fill| list.lock().expect("never poisoned").push(fill))
        .build_with_async(move |key: u64| {
            count.add();
            let latch = latch.clone();
            async move {
                latch.await;
                key * 10
            }
        })
        .expect("good settings");
    (cache, begun, spawned)
}

#[test]
fn h25_with_a_spawner_the_fill_goes_on_when_nobody_stays() {
    let latch = Latch::new();
    let (cache, begun, spawned) = spawned_behind(&latch);
    for _ in 0..5 {
        let mut gives_up = Box::pin(cache.get_async(&1));
        assert!(poll(gives_up.as_mut()).is_pending());
    }
    assert_eq!(begun.get(), 1);
    let mut fill = spawned
        .lock()
        .expect("never poisoned")
        .pop()
        .expect("spawned once");
    let mut late = pin!(cache.get_async(&1));
    assert!(poll(late.as_mut()).is_pending());
    assert!(poll(fill.as_mut()).is_pending());
    latch.open();
    assert!(poll(late.as_mut()).is_pending(), "others poll it now");
    assert!(poll(fill.as_mut()).is_ready());
    assert_eq!(poll(late.as_mut()), Poll::Ready(10));
    assert_eq!((begun.get(), cache.peek(&1)), (1, Some(10)));
    assert_fills_add_up(&cache.stats(), 1);
}

#[test]
fn h25_a_spawned_fill_that_is_dropped_is_begun_anew_by_those_who_wait() {
    let latch = Latch::new();
    let (cache, begun, spawned) = spawned_behind(&latch);
    drop_pending(&cache);
    let bell = Bell::new();
    let mut late = pin!(cache.get_async(&1));
    assert!(poll_with(late.as_mut(), &bell).is_pending());
    spawned.lock().expect("never poisoned").clear();
    assert_eq!(bell.rung(), 1);
    latch.open();
    assert_eq!(poll(late.as_mut()), Poll::Ready(10));
    assert_eq!((begun.get(), cache.stats().fill_cancelled), (2, 1));
}

fn drop_pending(cache: &AtomicCache<u64, u64>) {
    let mut gives_up = Box::pin(cache.get_async(&1));
    assert!(poll(gives_up.as_mut()).is_pending());
}

/// A detached fill is not worth finishing; nor is it spawned twice.
#[test]
fn h25_a_fill_that_is_fenced_off_is_not_spawned() {
    let latch = Latch::new();
    let (cache, _, spawned) = spawned_behind(&latch);
    {
        let mut gives_up = pin!(cache.get_async(&1));
        assert!(poll(gives_up.as_mut()).is_pending());
        let mut fence = Box::pin(cache.invalidate_async(&1));
        assert!(poll(fence.as_mut()).is_pending());
    }
    assert!(spawned.lock().expect("never poisoned").is_empty());
    cache.quiesce();
    assert_eq!((cache.len(), cache.retired()), (0, 0));
}

/// A spawner that panics, or runs the fill on the spot; the cache may be gone when it ends.
#[test]
fn h25_a_spawner_may_panic_or_run_the_fill_at_once_or_outlive_the_cache() {
    watched(|| {
        let latch = Latch::new();
        let build = |spawner: fn(Pin<Box<dyn Future<Output = ()> + Send>>)| {
            let latch = latch.clone();
            AtomicCache::<u64, u64>::builder()
                .spawner(spawner)
                .build_with_async(move |key| {
                    let latch = latch.clone();
                    async move {
                        latch.await;
                        key * 10
                    }
                })
                .expect("good settings")
        };
        let cache = build(|_| unwind("no room"));
        drop_pending(&cache);
        assert_eq!(cache.stats().fill_cancelled + cache.stats().fill_panics, 1);
        let at_once = build(|mut fill| assert!(poll(fill.as_mut()).is_pending()));
        drop_pending(&at_once);
        assert_eq!(at_once.stats().fill_cancelled, 1);
        let (gone, _, spawned) = spawned_behind(&latch);
        drop_pending(&gone);
        drop(gone);
        latch.open();
        let fills: Vec<_> = spawned.lock().expect("never poisoned").drain(..).collect();
        for mut fill in fills {
            assert!(poll(fill.as_mut()).is_ready());
        }
        assert_eq!(run_until_asleep(pin!(cache.get_async(&1))), Some(10));
    });
}

// ---- `quiesce` beside tasks that have been woken and not polled.

#[test]
fn c09_quiesce_does_not_wait_for_a_task_that_has_been_given_a_value() {
    watched(|| {
        for way in 0..4 {
            let (ledger, latch) = (Ledger::new(), Latch::new());
            let cache: Cache<u64, Counted> = Cache::unbounded();
            let fill = || async {
                latch.clone().await;
                ledger.make(10)
            };
            let mut leader = Box::pin(cache.get_with_async(&1, fill));
            assert!(poll(leader.as_mut()).is_pending());
            let mut woken = Box::pin(cache.get_with_async(&1, || async { unreachable!() }));
            let mut entry = Box::pin(
                cache
                    .entry(1)
                    .or_insert_with_async(|| async { unreachable!() }),
            );
            assert!(poll(woken.as_mut()).is_pending());
            assert!(poll(entry.as_mut()).is_pending());
            if way % 2 == 0 {
                cache.insert(1, ledger.make(11));
            } else {
                latch.open();
                assert!(poll(leader.as_mut()).is_ready());
            }
            if way < 2 {
                cache.invalidate_nowait(&1);
            } else {
                cache.insert(1, ledger.make(12));
            }
            // On this thread and on another.
            cache.quiesce();
            thread::scope(|scope| drop(scope.spawn(|| cache.quiesce())));
            let id = if way % 2 == 0 { 11 } else { 10 };
            let value = run_until_asleep(woken.as_mut()).expect("it was woken");
            assert_eq!(value.id(), id);
            drop((value, woken, leader));
            // The other one is dropped with its value unread.
            drop(entry);
            cache.quiesce();
            assert_eq!(cache.retired(), 0);
            assert_eq!(ledger.alive(), cache.len());
        }
    });
}

#[test]
fn c09_quiesce_does_not_wait_for_a_task_that_a_thread_has_given_a_value() {
    watched(|| {
        for insert in [false, true] {
            let (cache, held) = (plain(), Held::new());
            let leader = start_fill(&cache, 1, 10, &held);
            let threads = join_flight(&cache, 1, 2, 99);
            let mut woken = pin!(cache.get_with_async(&1, || async { unreachable!() }));
            assert!(poll(woken.as_mut()).is_pending());
            if insert {
                cache.insert(1, 11);
            }
            held.end.open();
            assert_eq!(leader.join().expect("it fills"), 10);
            let value = if insert { 11 } else { 10 };
            for thread in threads {
                assert_eq!(thread.join().expect("it waits"), value);
            }
            cache.invalidate(&1);
            cache.quiesce();
            assert_eq!(poll(woken.as_mut()), Poll::Ready(value));
            cache.quiesce();
            assert_eq!(cache.retired(), 0);
        }
    });
}

#[test]
fn c09_quiesce_does_not_wait_for_a_task_that_a_stored_fill_has_given_a_value() {
    watched(|| {
        let latch = Latch::new();
        let (cache, _) = behind(&latch);
        let mut woken = pin!(cache.get_async(&1));
        assert!(poll(woken.as_mut()).is_pending());
        let thread = {
            let cache = cache.clone();
            thread::spawn(move || cache.get(&1))
        };
        await_joined(|| cache.stats(), 1);
        latch.open();
        assert_eq!(thread.join().expect("it drives"), 10);
        cache.invalidate(&1);
        cache.quiesce();
        assert_eq!(poll(woken.as_mut()), Poll::Ready(10));
    });
}
