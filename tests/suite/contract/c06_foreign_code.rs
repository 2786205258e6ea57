//! Clause 6: no foreign code under anything of ours.

use crate::support::common::*;
use crate::support::task_tools::*;
use atomic_cache::{Cache, Op, TryGetError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

/// `quiesce` panics if this thread holds a pin, and drops nothing if it holds up reclamation in
/// another way. So a fill that calls it is run with nothing held.
#[test]
fn c06_fills_run_with_nothing_held_and_may_use_the_cache() {
    watched(|| {
        for verb in Verb::ALL {
            let cache = plain();
            cache.insert(2, 1);
            let came = verb.ask(&cache, 1, || {
                assert!(cache.invalidate(&2));
                // Inside a fill it waits for no reader, so not for one of another test either.
                while cache.retired() > 0 {
                    cache.quiesce();
                }
                assert_eq!(cache.get(&1), None);
                cache.insert(3, 30);
                assert_eq!(cache.get_with(&4, || 40), 40);
                assert_eq!(cache.iter().count(), 2);
                let view = cache.pin();
                Ok(view[&3] + view[&4])
            });
            assert_eq!(came, Ok(70), "{verb:?}");
        }
        for way in Way::ALL {
            for verb in AtomicVerb::ALL {
                let cache = way.chain(|cache, key| {
                    cache.quiesce();
                    key.checked_sub(1)
                });
                assert_eq!(verb.ask(&cache, 20), 20, "{verb:?}");
            }
        }
    });
}

/// A value that in its drop uses its own cache and, on another thread, reclaims another one: that would hang if the
/// dropping thread were pinned.
struct Restless {
    home: Option<Cache<u64, Arc<Restless>>>,
    drops: Tally,
}

impl Drop for Restless {
    fn drop(&mut self) {
        let Some(home) = self.home.take() else {
            return;
        };
        let number = self.drops.add();
        if number >= 2000 {
            return;
        }
        // The destructor of a value may do anything with the cache that the value was in.
        let key = 1000 + number % 8;
        let (inner, drops) = (home.clone(), self.drops.clone());
        home.get_with(&key, || {
            Arc::new(Restless {
                home: Some(inner),
                drops,
            })
        });
        home.invalidate(&(key ^ 1));
        home.contains(&key);
        home.quiesce();
        if number % 100 == 0 {
            thread::spawn(|| {
                let other = plain();
                other.insert(1, 1);
                other.invalidate(&1);
                other.quiesce();
                assert_eq!(other.retired(), 0);
            })
            .join()
            .unwrap();
        }
    }
}

#[test]
fn c06_values_are_dropped_with_nothing_held_and_may_use_the_cache() {
    watched(|| {
        let home: Cache<u64, Arc<Restless>> = Cache::unbounded();
        let drops = Tally::default();
        for key in 0..400 {
            let value = Arc::new(Restless {
                home: Some(home.clone()),
                drops: drops.clone(),
            });
            home.insert(key % 16, value);
        }
        home.invalidate_all();
        home.quiesce();
        assert!(drops.get() >= 400, "{}", drops.get());
        assert_eq!(home.stats().panicked_drops, 0);
        // The rest hold their own cache alive: take them out.
        while !home.is_empty() || home.retired() > 0 {
            home.invalidate_all();
            home.quiesce();
        }
    });
}

/// A waiter is woken, and an error dropped, by a thread that holds nothing either.
#[test]
fn c06_errors_are_dropped_with_nothing_held() {
    #[derive(Clone)]
    struct Loud(Cache<u64, u64>);

    impl Drop for Loud {
        fn drop(&mut self) {
            self.0.get_with(&2, || 20);
            self.0.invalidate(&2);
        }
    }

    watched(|| {
        let cache = plain();
        for _ in 0..200 {
            let held = Held::new();
            let ask = |held: Option<Held>| {
                let cache = cache.clone();
                thread::spawn(move || {
                    let result = cache.try_get_with(&1, || {
                        if let Some(held) = held {
                            held.hold(());
                        }
                        Err(Loud(cache.clone()))
                    });
                    assert!(matches!(result, Err(TryGetError::Fill(_))));
                })
            };
            let before = cache.stats().joined;
            let leader = ask(Some(held.clone()));
            held.begun.pass();
            let waiter = ask(None);
            spin_until(|| cache.stats().joined > before);
            held.end.open();
            leader.join().unwrap();
            waiter.join().unwrap();
        }
        assert_eq!(cache.get_with(&1, || 10), 10);
        // The value that waits for its drop holds the cache that it waits in.
        cache.quiesce();
    });
}

#[test]
fn c06_what_lends_a_value_may_use_the_cache() {
    watched(|| {
        let cache = plain();
        cache.insert(1, 10);
        let sum = cache.with(&1, |ten| {
            cache.insert(2, 20);
            assert!(cache.invalidate(&1));
            // Lent is lent: it is not dropped while it is looked at.
            ten + cache.get_with(&3, || 3) + cache.get(&2).unwrap()
        });
        assert_eq!(sum, Some(33));
        cache.invalidate_if(|&key, _| {
            cache.insert(key + 100, 1);
            key < 100
        });
        assert!(!cache.contains(&2) && !cache.contains(&3));
        assert!(cache.contains(&102) && cache.contains(&103));
        for (key, _) in &cache {
            cache.invalidate(&key);
        }
        assert!(cache.is_empty());
    });
}

#[test]
fn c06_a_predicate_that_panics_leaves_the_cache_usable() {
    watched(|| {
        let cache = plain();
        (0..100).for_each(|key| cache.insert(key, key));
        let held = Held::new();
        let leader = start_fill(&cache, 1000, 1000, &held);
        let mut calls = 0;
        assert!(panics(|| cache.invalidate_if(|_, _| {
            calls += 1;
            if calls == 50 {
                unwind("on purpose");
            }
            true
        })));
        assert!((50..=51).contains(&cache.len()), "{}", cache.len());
        held.end.open();
        assert_eq!(leader.join().unwrap(), 1000);
        cache.invalidate_if(|_, _| true);
        assert!(cache.is_empty());
        cache.quiesce();
        assert_eq!(cache.retired(), 0);
    });
}

/// A walk with a caller that catches the panic of a `Clone` and goes on sees each entry once.
#[test]
fn c06_a_clone_that_panics_in_a_walk_leaves_it_where_it_was() {
    struct Fragile<'a>(u64, &'a AtomicUsize);

    impl Clone for Fragile<'_> {
        fn clone(&self) -> Self {
            if self.1.fetch_add(1, SeqCst) % 37 == 5 {
                unwind("on purpose");
            }
            Self(self.0, self.1)
        }
    }

    let clones = AtomicUsize::new(0);
    let cache: Cache<u64, Fragile<'_>> = Cache::unbounded();
    (0..100).for_each(|key| cache.insert(key, Fragile(key, &clones)));
    let mut entries = cache.iter();
    let (mut seen, mut panicked) = (vec![], 0);
    loop {
        match catch_unwind(AssertUnwindSafe(|| entries.next())) {
            Ok(Some((key, value))) => {
                assert_eq!(key, value.0);
                seen.push(key);
            }
            Ok(None) => break,
            Err(_) => panicked += 1,
        }
    }
    seen.sort_unstable();
    assert!(seen.iter().copied().eq(0..100), "{seen:?}");
    assert!(panicked > 0);
}

/// A value that takes key 1 out when it is dropped, if it has been given the cache.
#[derive(Clone)]
struct Invalidates(Arc<Mutex<Option<Cache<u64, Self>>>>);

impl Drop for Invalidates {
    fn drop(&mut self) {
        let cache = self.0.lock().unwrap().take();
        if let Some(cache) = cache {
            cache.invalidate(&1);
        }
    }
}

/// Clauses 4 and 6: a closed cache refuses the lead before anything foreign is dropped, which may wait for it.
#[test]
fn c06_the_value_before_may_wait_for_the_lead_that_a_closed_cache_refuses() {
    watched(|| {
        let cache = Cache::unbounded();
        let armed = Arc::new(Mutex::new(None));
        cache.insert(1, Invalidates(armed.clone()));
        cache.close();
        *armed.lock().unwrap() = Some(cache.clone());
        let compute = cache.entry(1).and_compute_with_async(|_| async { Op::Nop });
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run_until_asleep(pin!(compute))
        }));
        assert!(refused.is_err(), "it does not say that it is closed");
        assert!(armed.lock().unwrap().is_none(), "nothing was dropped");
    });
}

/// A panic leaves the cache usable: so all handles to it may cross a `catch_unwind`, with values of any type.
#[test]
fn c06_what_leads_to_a_cache_is_unwind_safe() {
    use atomic_cache::*;
    use std::cell::Cell;
    use std::panic::{RefUnwindSafe, UnwindSafe, catch_unwind};

    fn is<T: UnwindSafe + RefUnwindSafe>() {}

    type Of = Cell<u8>;
    is::<Cache<u64, Of>>();
    is::<AtomicCache<u64, Of, Of>>();
    is::<Pinned<'_, u64, Of>>();
    is::<PinnedIter<'_, u64, Of>>();
    is::<AtomicPinned<'_, u64, Of, Of>>();
    is::<Iter<'_, u64, Of>>();
    is::<EntrySelector<'_, u64, Of>>();
    is::<PlaceholderGuard<'_, u64, Of>>();
    is::<GuardResult<'_, u64, u8>>();
    #[cfg(feature = "async")]
    is::<TaskGuard<'_, u64, Of>>();
    #[cfg(feature = "async")]
    is::<TaskGuardResult<'_, u64, u8>>();
    is::<(Entry<u8>, Op<u8>, CompResult<u8>, InFlight<u8>, LedBy)>();
    is::<(Clock, ManualClock, CacheStats, RemovalCause)>();
    is::<(ByteSize, ByteSizeError, BuildError, CycleError, ClosedError)>();
    is::<(TryGetError<u8>, OversizeError<u8>)>();

    let cache = AtomicCache::new(
        |&key: &u64| {
            assert!(key < 2, "no such key");
            key * 10
        },
        None,
    );
    let view = cache.pin();
    assert!(catch_unwind(|| cache.get(&2)).is_err());
    assert!(
        catch_unwind(|| {
            let mut inner = cache.pin();
            *inner.get_or_fill(&3)
        })
        .is_err()
    );
    assert!(catch_unwind(|| view[&4]).is_err());
    assert_eq!((cache.get(&1), view.get(&1)), (10, Some(&10)));

    let plain: Cache<u64, u64> = Cache::unbounded();
    let GuardResult::Guard(guard) = plain.get_value_or_guard(&1, None) else {
        unreachable!("nobody else is there");
    };
    assert!(catch_unwind(move || panic!("with {guard:?}")).is_err());
    assert_eq!(plain.get_with(&1, || 10), 10);
}
