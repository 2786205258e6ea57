//! H20, H21: ends of threads and of caches.

use crate::support::common::*;
use atomic_cache::{Cache, GuardResult, PlaceholderGuard};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;
use std::sync::mpsc::channel;
use std::thread;

static AT_THE_END: LazyLock<Cache<u64, u64>> = LazyLock::new(Cache::unbounded);

/// Uses a cache when its thread ends. (A panic there would abort: it is caught and reported.)
struct Last(Option<Box<dyn FnOnce()>>);

impl Drop for Last {
    fn drop(&mut self) {
        if let Some(last) = self.0.take() {
            last();
        }
    }
}

thread_local! {
    static EARLY: RefCell<Last> = const { RefCell::new(Last(None)) };
}

/// Runs `last` when a new thread ends: before the cache's own thread-locals go (`touched_first`:
/// they were made first, and go last), or after. Returns its panic's text, if it panics.
fn at_the_end_of_a_thread(
    touched_first: bool,
    last: impl FnOnce() + Send + 'static,
) -> Option<String> {
    let (send, receive) = channel();
    thread::spawn(move || {
        let touch = || assert!(!plain().contains(&1));
        let last: Box<dyn FnOnce()> = Box::new(move || {
            let end = catch_unwind(AssertUnwindSafe(last));
            let _ = send.send(end.err().map(|panic| text_of(&*panic)));
        });
        if touched_first {
            touch();
        }
        EARLY.with(|early| early.borrow_mut().0 = Some(last));
        if !touched_first {
            touch();
        }
    });
    receive.recv().expect("it is run")
}

#[test]
fn h20_everything_works_in_the_destructors_of_thread_locals() {
    watched(|| {
        for touched_first in [true, false] {
            let end = at_the_end_of_a_thread(touched_first, move || {
                let ledger = Ledger::new();
                let cache: Cache<u64, Counted> = Cache::unbounded();
                let fill = |key: u64| cache.get_with(&key, || ledger.make(key)).id();
                (0..500).for_each(|key| assert_eq!(fill(key), key));
                (0..500).for_each(|key| assert_eq!(fill(key), key));
                assert_eq!(cache.get(&3).map(|value| value.id()), Some(3));
                assert_eq!(cache.with(&3, Counted::id), Some(3));
                assert_eq!(cache.pin()[&3].id(), 3);
                assert_eq!(
                    cache.pin().get_or_fill_with(&600, || ledger.make(6)).id(),
                    6
                );
                (0..300).for_each(|key| assert!(cache.invalidate(&key)));
                cache.quiesce();
                assert_eq!((cache.len(), cache.retired()), (201, 0));
                assert_eq!(ledger.alive(), 201);
                // A fill that fails, one that panics, one in a cycle.
                assert!(cache.optionally_get_with(&1, || None).is_none());
                assert!(panics(|| cache.get_with(&1, || unwind("on purpose"))));
                let text =
                    panic_text(|| cache.get_with(&1, || cache.get_with(&1, || ledger.make(1))));
                assert!(text.contains("1 -> 1"), "{text}");
                cache.invalidate_all();
                cache.quiesce();
                assert_eq!((ledger.alive(), cache.retired()), (0, 0));
            });
            assert_eq!(end, None, "touched first: {touched_first}");
        }
    });
}

#[test]
fn h20_a_thread_may_lead_and_wait_in_the_destructors_of_its_thread_locals() {
    watched(|| {
        for touched_first in [true, false] {
            let cache = plain();
            // It leads, and others wait.
            let held = Held::new();
            let leader = {
                let (cache, held) = (cache.clone(), held.clone());
                thread::spawn(move || {
                    at_the_end_of_a_thread(touched_first, move || {
                        assert_eq!(cache.get_with(&1, || held.hold(10)), 10);
                    })
                })
            };
            held.begun.pass();
            let waiters = join_flight(&cache, 1, 2, 20);
            held.end.open();
            assert_eq!(leader.join().unwrap(), None);
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), 10);
            }
            // It waits for another thread's fill, and for an end.
            let held = Held::new();
            let leader = start_fill(&cache, 2, 20, &held);
            let before = cache.stats().joined;
            let waiter = {
                let cache = cache.clone();
                thread::spawn(move || {
                    at_the_end_of_a_thread(touched_first, move || {
                        assert_eq!(cache.get_with(&2, || 21), 20);
                        cache.invalidate(&2);
                    })
                })
            };
            await_joined(|| cache.stats(), before + 1);
            held.end.open();
            assert_eq!(leader.join().unwrap(), 20);
            assert_eq!(waiter.join().unwrap(), None);
            assert!(!cache.contains(&2));
        }
    });
}

/// In a process of its own: a thread that hangs there spins.
#[test]
fn h20_quiesce_under_a_view_is_refused_in_the_destructors_of_thread_locals_too() {
    let name = test_name!();
    in_child(name, SECOND * 10, || {
        for touched_first in [true, false] {
            let end = at_the_end_of_a_thread(touched_first, || {
                let cache = plain();
                let view = cache.pin();
                cache.insert(1, 10);
                cache.invalidate(&1);
                let text = panic_text(|| cache.quiesce());
                assert!(text.contains("drop the view first"), "{text}");
                drop(view);
            });
            assert_eq!(end, None, "touched first: {touched_first}");
        }
    });
}

thread_local! {
    static HELD_GUARD: RefCell<Option<PlaceholderGuard<'static, u64, u64>>> =
        const { RefCell::new(None) };
}

/// A thread ends, and with it the guard that it keeps in a thread-local: its waiters go on.
#[test]
fn h21_a_thread_that_ends_while_it_leads_passes_the_lead_on() {
    watched(|| {
        let cache = &*AT_THE_END;
        for key in 0..100 {
            let (leads, end) = (Gate::new(), Gate::new());
            let leader = {
                let (leads, end) = (leads.clone(), end.clone());
                thread::spawn(move || {
                    // Half the time the guard outlives the cache's own thread-locals.
                    if key % 2 == 0 {
                        cache.contains(&key);
                    }
                    HELD_GUARD.with(|held| match cache.get_value_or_guard(&key, None) {
                        GuardResult::Guard(guard) => *held.borrow_mut() = Some(guard),
                        other => panic!("{other:?}"),
                    });
                    leads.open();
                    end.pass();
                })
            };
            leads.pass();
            let waiters = join_flight(cache, key, 2, key + 1);
            end.open();
            leader.join().unwrap();
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), key + 1);
            }
            assert_eq!(cache.get(&key), Some(key + 1));
        }
        let stats = cache.stats();
        assert_eq!((stats.fills, stats.fill_cancelled), (200, 100));
    });
}

/// A thread that dies of a panic in its fill, which it does not catch.
#[test]
fn h21_a_thread_that_dies_while_it_leads_passes_the_lead_on() {
    watched(|| {
        for _ in 0..50 {
            let cache = plain();
            let held = Held::new();
            let leader = {
                let (cache, held) = (cache.clone(), held.clone());
                thread::spawn(move || {
                    let _guard = cache.get_value_or_guard(&2, None);
                    cache.get_with(&1, || {
                        held.hold(());
                        unwind("on purpose")
                    })
                })
            };
            held.begun.pass();
            let mut waiters = join_flight(&cache, 1, 2, 20);
            waiters.extend(join_flight(&cache, 2, 2, 20));
            held.end.open();
            assert!(leader.join().is_err());
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), 20);
            }
            assert_eq!(cache.len(), 2);
        }
    });
}

/// Handles go one by one while a fill runs, is waited for, and is invalidated; the last one goes
/// with the last caller. Everything is dropped then.
#[test]
fn h21_a_cache_whose_handles_are_dropped_while_others_wait_leaves_nothing_behind() {
    watched(|| {
        for round in 0..100 {
            let (keys, values) = (Ledger::new(), Ledger::new());
            let cache: Cache<Counted, Counted> = Cache::unbounded();
            for id in 0..20 {
                cache.insert(keys.make(id), values.make(id));
                cache.invalidate(&keys.make(id / 2));
            }
            let held = Held::new();
            let ask = |held: Option<Held>| {
                let (cache, key) = (cache.clone(), keys.make(100));
                let value = values.make(100);
                thread::spawn(move || {
                    let value = cache.get_with(&key, || {
                        if let Some(held) = held {
                            held.hold(());
                        }
                        if round % 3 == 0 {
                            unwind("on purpose");
                        }
                        value
                    });
                    value.id()
                })
            };
            let leader = ask(Some(held.clone()));
            held.begun.pass();
            let waiters = [(); 3].map(|()| ask(None));
            await_joined(|| cache.stats(), 3);
            let other = {
                let (cache, key) = (cache.clone(), keys.make(100));
                thread::spawn(move || {
                    if round % 2 == 0 {
                        cache.invalidate(&key);
                    }
                    // A guard holds its handle too.
                    let view = cache.pin();
                    view.get(&key).map(Counted::id)
                })
            };
            drop(cache);
            held.end.open();
            let mut ends = vec![leader.join()];
            ends.extend(waiters.into_iter().map(thread::JoinHandle::join));
            for end in ends {
                assert!(matches!(end, Ok(100)) || round % 3 == 0 && end.is_err());
            }
            other.join().unwrap();
            assert_eq!((keys.alive(), values.alive()), (0, 0), "round {round}");
        }
    });
}

/// The last handle goes inside a fill, and inside the drop of a value of another cache.
#[test]
fn h21_the_last_handle_may_go_anywhere() {
    watched(|| {
        let values = Ledger::new();
        let outer: Cache<u64, Cache<u64, Counted>> = Cache::unbounded();
        for round in 0..300 {
            let inner: Cache<u64, Counted> = Cache::unbounded();
            (0..3).for_each(|id| inner.insert(id, values.make(id)));
            inner.invalidate(&1);
            outer.insert(round % 4, inner);
            let inner: Cache<u64, Counted> = Cache::unbounded();
            inner.insert(1, values.make(1));
            assert_eq!(
                outer
                    .get_with(&9, || {
                        drop(inner);
                        Cache::unbounded()
                    })
                    .len(),
                0
            );
            outer.invalidate(&9);
        }
        outer.invalidate_all();
        outer.quiesce();
        assert_eq!((values.alive(), outer.retired()), (0, 0));
    });
}
