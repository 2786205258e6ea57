//! The removals that the eviction listener is told of: H22 of the hostile inputs, clause 6 of the contract, and the
//! promises of `Builder::eviction_listener`.

use crate::support::common::*;
use atomic_cache::RemovalCause::{Expired, Explicit, Replaced, Size};
use atomic_cache::{AtomicCache, Builder, Cache, CompResult, GuardResult, ManualClock, Op};
use atomic_cache::{RemovalCause, TryGetError};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

/// More removals than may wait before others help to tell of them.
const PLENTY: u64 = 1024;

type Told = (u64, u64, RemovalCause);

/// The removals that a listener was told of, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Told>>>);

impl Log {
    fn listener(&self) -> impl Fn(&u64, &u64, RemovalCause) + Send + Sync + 'static {
        let log = Arc::clone(&self.0);
        move |&key, &value, cause| log.lock().unwrap().push((key, value, cause))
    }

    /// Returns those that came since the last call.
    fn news(&self) -> Vec<Told> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn logged(builder: Builder<u64, u64>) -> (Cache<u64, u64>, Log) {
    let log = Log::default();
    let cache = builder.eviction_listener(log.listener()).build();
    (cache.expect("good settings"), log)
}

const LIFETIME: Duration = Duration::from_secs(10);

fn logged_and_timed() -> (Cache<u64, u64>, Log, ManualClock) {
    let clock = ManualClock::new();
    let builder = Cache::builder().time_to_live(LIFETIME).clock(clock.clone());
    let (cache, log) = logged(builder);
    (cache, log, clock)
}

/// A handle that a closure has of the cache that owns the closure. Emptied, it lets go of it.
type Shared<C> = Arc<Mutex<Option<C>>>;

fn handle<C: Clone>(shared: &Shared<C>) -> C {
    shared.lock().unwrap().clone().expect("set")
}

fn put(cache: &Cache<u64, u64>, key: u64, value: u64) {
    cache.entry(key).and_compute_with(|_| Op::Put(value));
}

fn leave(cache: &Cache<u64, u64>, key: u64) {
    cache.entry(key).and_compute_with(|_| Op::Nop);
}

fn invalidate_during_a_compute(cache: &Cache<u64, u64>) {
    let put = cache.entry(1).and_compute_with(|_| {
        assert!(cache.invalidate(&1));
        Op::Put(11)
    });
    assert_eq!(put, CompResult::Superseded(Op::Put(11)));
}

fn clear_during_a_compute(cache: &Cache<u64, u64>) {
    cache.entry(1).and_compute_with(|_| {
        cache.clear();
        Op::Nop
    });
}

// ---------------------------------------------------------------------------------------------
// Every method that removes, its cause, once, before its call returns

#[test]
fn h22_every_verb_that_removes_a_live_entry_tells_once_with_its_cause() {
    type Deed = fn(&Cache<u64, u64>);
    let deeds: [(&str, Deed, &[Told]); 18] = [
        ("insert", |c| c.insert(1, 11), &[(1, 10, Replaced)]),
        ("another key", |c| c.insert(2, 20), &[]),
        ("compute puts", |c| put(c, 1, 11), &[(1, 10, Replaced)]),
        (
            "compute removes",
            |c| {
                c.entry(1).and_compute_with(|_| Op::Remove);
            },
            &[(1, 10, Explicit)],
        ),
        ("compute leaves", |c| leave(c, 1), &[]),
        (
            "compute panics",
            |c| assert!(panics(|| c.entry(1).and_compute_with(|_| unwind("no")))),
            &[],
        ),
        (
            "invalidate",
            |c| assert!(c.invalidate(&1)),
            &[(1, 10, Explicit)],
        ),
        (
            "invalidate_nowait",
            |c| assert!(c.invalidate_nowait(&1)),
            &[(1, 10, Explicit)],
        ),
        (
            "remove",
            |c| assert_eq!(c.remove(&1), Some(10)),
            &[(1, 10, Explicit)],
        ),
        (
            "invalidate_all",
            Cache::invalidate_all,
            &[(1, 10, Explicit)],
        ),
        ("clear", Cache::clear, &[(1, 10, Explicit)]),
        (
            "invalidate_if",
            |c| c.invalidate_if(|_, _| true),
            &[(1, 10, Explicit)],
        ),
        ("invalidate_if not", |c| c.invalidate_if(|_, _| false), &[]),
        (
            "invalidate during a compute",
            invalidate_during_a_compute,
            &[(1, 10, Explicit)],
        ),
        (
            "clear during a compute that leaves",
            clear_during_a_compute,
            &[(1, 10, Explicit)],
        ),
        (
            "insert and invalidate",
            |c| {
                c.insert(1, 11);
                c.invalidate(&1);
            },
            &[(1, 10, Replaced), (1, 11, Explicit)],
        ),
        (
            "a smaller capacity",
            |c| c.set_max_capacity(0).unwrap(),
            &[(1, 10, Size)],
        ),
        (
            "eviction",
            |c| {
                c.set_max_capacity(1).unwrap();
                c.demote(&1);
                c.insert(2, 20);
            },
            &[(1, 10, Size)],
        ),
    ];
    for (name, deed, expected) in deeds {
        let (cache, log) = logged(Cache::builder().max_capacity(100));
        cache.insert(1, 10);
        assert_eq!(log.news(), []);
        deed(&cache);
        assert_eq!(log.news(), expected, "{name}");
        // Once.
        cache.run_pending_tasks();
        cache.quiesce();
        assert_eq!(log.news(), [], "{name}");
        let removed = cache.stats();
        let removed = removed.explicit + removed.replaced + removed.evicted + removed.expired;
        assert_eq!(removed, expected.len() as u64, "{name}");
        // A value that the cache still holds when it goes is not told of.
        drop(cache);
        assert_eq!(log.news(), [], "{name}");
    }
}

#[test]
fn h22_a_refresh_tells_of_the_value_that_it_replaces() {
    let (log, values) = (Log::default(), Tally::default());
    let cache = AtomicCache::<u64, u64>::builder()
        .eviction_listener(log.listener())
        .try_build_with(move |_| match values.add() {
            2 => Err("no"),
            n => Ok(n),
        })
        .unwrap();
    assert_eq!(cache.try_get(&1), Ok(0));
    assert_eq!(cache.try_refresh(&1), Ok(1));
    assert_eq!(log.news(), [(1, 0, Replaced)]);
    // One that fails leaves the old one.
    assert_eq!(cache.try_refresh(&1), Err(TryGetError::Fill("no")));
    assert_eq!((cache.peek(&1), log.news()), (Some(1), vec![]));
    assert_eq!(cache.try_refresh(&1), Ok(3));
    assert_eq!(log.news(), [(1, 1, Replaced)]);
}

/// The first call that notices an expired entry tells of it: once, as expired, with the value that was there.
#[test]
fn h22_c08_whoever_notices_an_expiry_tells_of_it_once() {
    type Deed = fn(&Cache<u64, u64>);
    let deeds: [(&str, Deed); 13] = [
        ("insert", |c| c.insert(1, 11)),
        ("get_with", |c| assert_eq!(c.get_with(&1, || 11), 11)),
        ("a fill that fails", |c| {
            assert!(c.try_get_with(&1, || Err::<u64, _>("no")).is_err());
        }),
        ("entry", |c| assert!(c.entry(1).or_insert(11).is_fresh())),
        ("compute", |c| {
            let put = c.entry(1).and_compute_with(|seen| {
                assert_eq!(seen, None);
                Op::Put(11)
            });
            assert_eq!(put, CompResult::Inserted(11));
        }),
        ("compute leaves", |c| leave(c, 1)),
        ("a guard", |c| match c.get_value_or_guard(&1, None) {
            GuardResult::Guard(guard) => drop(guard.insert(11)),
            other => panic!("{other:?}"),
        }),
        ("a view", |c| {
            assert_eq!(*c.pin().get_or_fill_with(&1, || 11), 11);
        }),
        ("invalidate", |c| assert!(!c.invalidate(&1))),
        ("remove", |c| assert_eq!(c.remove(&1), None)),
        ("run_pending_tasks", Cache::run_pending_tasks),
        ("inserts of other keys", |c| {
            (2..500).for_each(|key| c.insert(key, 0));
        }),
        ("fills of other keys", |c| {
            (2..500).for_each(|key| assert_eq!(c.get_with(&key, || 0), 0));
        }),
    ];
    for (name, deed) in deeds {
        let (cache, log, clock) = logged_and_timed();
        cache.insert(1, 10);
        clock.advance(LIFETIME);
        // Looking removes nothing.
        assert_eq!(
            (cache.get(&1), cache.peek(&1), cache.contains(&1)),
            (None, None, false)
        );
        assert_eq!(log.news(), []);
        deed(&cache);
        assert_eq!(log.news(), [(1, 10, Expired)], "{name}");
        cache.run_pending_tasks();
        assert_eq!((log.news(), cache.stats().expired), (vec![], 1), "{name}");
    }
}

/// An expired entry that eviction comes by leaves as expired, one that is still good for its size.
#[test]
fn h22_c08_eviction_tells_what_has_expired_from_what_has_not() {
    let clock = ManualClock::new();
    let builder = Cache::builder()
        .max_capacity(10)
        .time_to_live(LIFETIME)
        .clock(clock.clone());
    let (cache, log) = logged(builder);
    (0..10).for_each(|key| cache.insert(key, 0));
    clock.advance(LIFETIME);
    (10..40).for_each(|key| cache.insert(key, 1));
    let news = log.news();
    assert_eq!((news.len(), cache.len()), (30, 10));
    let expected = |value| if value == 0 { Expired } else { Size };
    assert!(
        news.iter().all(|told| told.2 == expected(told.1)),
        "{news:?}"
    );
    assert_eq!(news.iter().filter(|told| told.2 == Expired).count(), 10);
}

#[test]
fn h22_evictions_and_a_smaller_capacity_tell_of_everyone_that_goes() {
    let (cache, log) = logged(
        Cache::builder()
            .max_capacity(100)
            .weigher(|_, &value| value % 8),
    );
    for key in 0..1000 {
        cache.get_with(&key, || key);
    }
    cache.set_max_capacity(17).unwrap();
    let there: HashSet<u64> = cache.keys().collect();
    let news = log.news();
    assert!(
        news.iter()
            .all(|&(key, value, cause)| key == value && cause == Size)
    );
    let told: HashSet<u64> = news.iter().map(|told| told.0).collect();
    assert_eq!((told.len(), told.len() + there.len()), (news.len(), 1000));
    assert!(told.is_disjoint(&there));
    assert_eq!(cache.stats().evicted, news.len() as u64);
}

/// In the order in which they were removed: no call is slow here.
#[test]
fn h22_removals_are_told_in_their_order() {
    let (cache, log) = logged(Cache::builder());
    cache.insert(1, 0);
    let view = cache.pin();
    (1..=500).for_each(|value| cache.insert(1, value));
    drop(view);
    let values: Vec<u64> = log.news().into_iter().map(|told| told.1).collect();
    assert!(values.into_iter().eq(0..500));
}

/// One thread at a time, and each thread's removals in their order, as long as no more than a
/// thousand wait.
#[test]
fn h22_one_thread_at_a_time_tells_and_each_ones_removals_in_their_order() {
    watched_for(Duration::from_secs(60), || {
        const EACH: u64 = PLENTY / THREADS as u64 - 1;
        let (inside, last) = (AtomicUsize::new(0), Mutex::new([0; THREADS]));
        let told = Tally::default();
        let heard = told.clone();
        let cache: Cache<u64, u64> = Cache::builder()
            .eviction_listener(move |&key, &value, _| {
                let before = inside.fetch_add(1, SeqCst);
                thread::yield_now();
                let mut last = last.lock().unwrap();
                let in_order = last[key as usize] < value;
                last[key as usize] = value;
                inside.fetch_sub(1, SeqCst);
                heard.add();
                assert!(before == 0 && in_order);
            })
            .build()
            .unwrap();
        let rounds = rounds("", 1_000);
        let turn = Barrier::new(THREADS);
        thread::scope(|scope| {
            for key in 0..THREADS as u64 {
                let (cache, turn, told) = (&cache, &turn, &told);
                scope.spawn(move || {
                    for round in 0..rounds {
                        turn.wait();
                        for value in 1..=EACH {
                            cache.insert(key, round * EACH + value);
                            cache.invalidate(&key);
                        }
                        // All of it is told of before more is removed.
                        turn.wait();
                        let all = (round + 1) * EACH * THREADS as u64;
                        spin_until(|| {
                            cache.run_pending_tasks();
                            told.get() == all
                        });
                    }
                });
            }
        });
        assert_eq!(cache.stats().panicked_listeners, 0);
    });
}

// ---------------------------------------------------------------------------------------------
// Values that were never kept

#[test]
fn h22_c01_what_was_never_kept_is_not_told_of() {
    watched(|| {
        // Their time is over at once.
        let (cache, log) = logged(Cache::builder().time_to_live(Duration::ZERO));
        for verb in Verb::ALL {
            assert_eq!(verb.ask(&cache, 1, || Ok(10)), Ok(10));
        }
        cache.run_pending_tasks();
        assert_eq!(log.news(), []);
        // Too heavy.
        for capacity in [0, 9] {
            let builder = Cache::builder()
                .max_capacity(capacity)
                .weigher(|_, &value| value);
            let (cache, log) = logged(builder);
            assert!(cache.try_insert(1, 10).is_err());
            cache.insert(1, 10);
            for verb in Verb::ALL {
                assert_eq!(verb.ask(&cache, 1, || Ok(10)), Ok(10));
            }
            cache.clear();
            cache.run_pending_tasks();
            assert_eq!(log.news(), []);
        }
        // Detached, or without a value.
        let (cache, log) = logged(Cache::builder());
        cache.get_with(&1, || {
            cache.invalidate_nowait(&1);
            10
        });
        cache.get_with(&2, || {
            cache.clear();
            10
        });
        for verb in Verb::FALLIBLE {
            drop(verb.ask(&cache, 3, || Err(Refused("no"))));
        }
        assert!(panics(|| cache.get_with(&4, || unwind("no"))));
        cache.run_pending_tasks();
        assert_eq!((log.news(), cache.len()), (vec![], 0));
        // Beaten by an insert: the insert's value is the one that was kept.
        cache.get_with(&5, || {
            cache.insert(5, 11);
            10
        });
        cache.invalidate(&5);
        assert_eq!(log.news(), [(5, 11, Explicit)]);
    });
}

// ---------------------------------------------------------------------------------------------
// Listeners that misbehave

#[test]
fn h22_a_listener_that_panics_is_counted_and_told_the_rest() {
    let (log, often) = (Log::default(), Tally::default());
    let tell = log.listener();
    let cache: Cache<u64, u64> = Cache::builder()
        .eviction_listener(move |key, value, cause| {
            tell(key, value, cause);
            if often.add() % 2 == 0 {
                unwind("do not tell me");
            }
        })
        .build()
        .unwrap();
    (0..100).for_each(|key| cache.insert(key, key));
    for key in 0..50 {
        assert!(cache.invalidate(&key));
    }
    cache.clear();
    assert_eq!(cache.stats().panicked_listeners, 50);
    let told: HashSet<u64> = log.news().into_iter().map(|told| told.0).collect();
    assert_eq!(told.len(), 100);
    assert_eq!(cache.get_with(&1, || 1), 1);
    cache.quiesce();
    assert_eq!(cache.retired(), 0);
}

/// One call of the listener blocks: others go on at once, and tell of their own removals when too many wait. So the
/// removals kept for the listener are bounded. In the end all are told, once.
#[test]
fn h22_c09_while_a_listener_blocks_others_go_on_and_memory_is_bounded() {
    // Alone: the guards of other tests keep garbage too.
    let name = test_name!();
    in_child(name, Duration::from_secs(60), || {
        let (log, held) = (Log::default(), Held::new());
        let (tell, inner) = (log.listener(), held.clone());
        let cache: Cache<u64, u64> = Cache::builder()
            .eviction_listener(move |key, value, cause| {
                if *key == u64::MAX {
                    inner.hold(());
                }
                tell(key, value, cause);
            })
            .build()
            .unwrap();
        cache.insert(u64::MAX, 0);
        let of_blocked = cache.clone();
        let blocked = thread::spawn(move || assert!(of_blocked.invalidate(&u64::MAX)));
        held.begun.pass();
        let rounds = 20_000;
        let most = AtomicUsize::new(0);
        thread::scope(|scope| {
            for thread in 0..4 {
                let (cache, most) = (&cache, &most);
                scope.spawn(move || {
                    for round in 0..rounds {
                        cache.insert(thread, round);
                        most.fetch_max(cache.retired(), SeqCst);
                    }
                });
            }
        });
        // Those that may wait, and the removed entries that are kept anyway: more than a thousand, and more while a
        // reader is preempted. Of eighty thousand.
        let most = most.into_inner();
        assert!(
            most < 16 * PLENTY as usize,
            "{most} removed entries were kept"
        );
        let early = log.0.lock().unwrap().len() as u64;
        assert!(
            early > 4 * rounds - 4 - 2 * PLENTY,
            "only {early} were told of"
        );
        held.end.open();
        blocked.join().unwrap();
        cache.run_pending_tasks();
        let news = log.news();
        let told: HashSet<(u64, u64)> = news.iter().map(|told| (told.0, told.1)).collect();
        assert_eq!(
            (news.len(), told.len() as u64),
            (told.len(), 4 * rounds - 4 + 1)
        );
        cache.quiesce();
        assert_eq!(cache.retired(), 0);
    });
}

/// Few removals wait for a listener that blocks, and no thread waits with them.
#[test]
fn h22_a_few_removals_wait_for_a_listener_that_blocks_and_are_told_by_it() {
    watched(|| {
        let (log, held) = (Log::default(), Held::new());
        let (tell, inner) = (log.listener(), held.clone());
        let (sender, threads) = channel();
        let sender = Mutex::new(sender);
        let cache: Cache<u64, u64> = Cache::builder()
            .eviction_listener(move |key, value, cause| {
                inner.hold(());
                sender.lock().unwrap().send(thread::current().id()).unwrap();
                tell(key, value, cause);
            })
            .build()
            .unwrap();
        (0..100).for_each(|key| cache.insert(key, key));
        let of_blocked = cache.clone();
        let blocked = thread::spawn(move || assert!(of_blocked.invalidate(&0)));
        held.begun.pass();
        for key in 1..100 {
            assert!(cache.invalidate(&key));
        }
        cache.run_pending_tasks();
        assert_eq!((log.news(), cache.len()), (vec![], 0));
        assert!(cache.retired() >= 99);
        held.end.open();
        let teller = blocked.thread().id();
        blocked.join().unwrap();
        let told: Vec<u64> = log.news().into_iter().map(|told| told.0).collect();
        assert!(told.into_iter().eq(0..100), "in their order");
        assert!(threads.try_iter().all(|id| id == teller));
    });
}

/// A value that another thread is telling the listener of is held by that thread: `quiesce` does not wait for it.
#[test]
fn h22_c09_quiesce_does_not_wait_for_a_listener_that_is_being_told() {
    watched(|| {
        let held = Held::new();
        let inner = held.clone();
        let ledger = Ledger::new();
        let cache: Cache<u64, Counted> = Cache::builder()
            .eviction_listener(move |_, value: &Counted, _| {
                inner.hold(());
                value.id();
            })
            .build()
            .unwrap();
        (0..10).for_each(|key| cache.insert(key, ledger.make(key)));
        let of_blocked = cache.clone();
        let blocked = thread::spawn(move || of_blocked.clear());
        held.begun.pass();
        cache.quiesce();
        assert!(ledger.alive() >= 1, "dropped while the listener reads it");
        held.end.open();
        blocked.join().unwrap();
        cache.quiesce();
        assert_eq!((ledger.alive(), cache.retired()), (0, 0));
    });
}

/// The listener uses the cache for the key that it is told of: no thread hangs, no call is inside another, and the
/// entry it removes is told of afterwards.
#[test]
fn h22_c06_a_listener_may_use_the_cache_for_the_same_key() {
    watched(|| {
        let shared: Shared<Cache<u64, u64>> = Arc::default();
        let (log, depth) = (Log::default(), AtomicUsize::new(0));
        let (tell, inner) = (log.listener(), Arc::clone(&shared));
        let cache: Cache<u64, u64> = Cache::builder()
            .max_capacity(10)
            .time_to_live(Duration::from_secs(3600))
            .eviction_listener(move |&key, &value, cause| {
                assert_eq!(depth.fetch_add(1, SeqCst), 0, "one call at a time");
                let cache = handle(&inner);
                assert!(cache.pin().get(&key).is_none(), "it is gone");
                match value {
                    0..20 => cache.insert(key, value + 1),
                    20..40 => assert_eq!(cache.get_with(&key, || value + 1), value + 1),
                    40..60 => drop(cache.entry(key).and_compute_with(|_| Op::Put(value + 1))),
                    _ => assert!(!cache.invalidate(&key)),
                }
                if value < 60 {
                    assert_eq!(cache.get(&key), Some(value + 1));
                    match value % 4 {
                        0 => assert!(cache.invalidate(&key)),
                        1 => assert_eq!(cache.remove(&key), Some(value + 1)),
                        2 => cache.clear(),
                        _ => cache.invalidate_if(|_, _| true),
                    }
                }
                cache.run_pending_tasks();
                cache.quiesce();
                tell(&key, &value, cause);
                depth.fetch_sub(1, SeqCst);
            })
            .build()
            .unwrap();
        *shared.lock().unwrap() = Some(cache.clone());
        cache.insert(1, 0);
        assert!(cache.invalidate(&1));
        let news = log.news();
        assert!(news.iter().map(|told| told.1).eq(0..=60), "{news:?}");
        assert!(news.iter().all(|told| told.0 == 1 && told.2 == Explicit));
        assert_eq!((cache.stats().panicked_listeners, cache.len()), (0, 0));
        *shared.lock().unwrap() = None;
    });
}

/// A listener that puts evicted entries back evicts others: that must end, and the bound hold.
#[test]
fn h22_c09_a_listener_that_puts_back_what_is_evicted_gets_tired_of_it() {
    watched(|| {
        let shared: Shared<Cache<u64, u64>> = Arc::default();
        let inner = Arc::clone(&shared);
        let cache: Cache<u64, u64> = Cache::builder()
            .max_capacity(10)
            .eviction_listener(move |&key, &value, _| {
                if let Some(cache) = inner.lock().unwrap().clone() {
                    cache.insert(key, value);
                }
            })
            .build()
            .unwrap();
        *shared.lock().unwrap() = Some(cache.clone());
        (0..12).for_each(|key| cache.insert(key, key));
        assert_eq!((cache.len(), cache.weighted_size()), (10, 10));
        // Two keys are never there: those that wait to be told of.
        assert!(cache.retired() < 4 * PLENTY as usize);
        *shared.lock().unwrap() = None;
    });
}

/// A removal that a listener of one cache makes in another is told to that one's listener at once.
#[test]
fn h22_a_listener_may_use_another_cache_that_has_one() {
    let (second, log) = logged(Cache::builder());
    let inner = second.clone();
    let first: Cache<u64, u64> = Cache::builder()
        .eviction_listener(move |&key, &value, _| inner.insert(key % 10, value))
        .build()
        .unwrap();
    (0..100).for_each(|key| first.insert(key, key));
    (0..100).for_each(|key| assert!(first.invalidate(&key)));
    assert_eq!((second.len(), log.news().len()), (10, 90));
}

/// The last handle of a cache goes inside a listener: of its own, which the call that tells keeps
/// alive until it returns, and of another cache's.
#[test]
fn h22_h21_a_listener_may_drop_handles_also_the_last_one() {
    watched(|| {
        let ledger = Ledger::new();
        let told = Tally::default();
        let second_shared: Shared<Cache<u64, Counted>> = Arc::default();
        let shared: Shared<Cache<u64, Counted>> = Arc::default();
        let heard = told.clone();
        let second: Cache<u64, Counted> = Cache::builder()
            .eviction_listener(move |_, value: &Counted, _| {
                value.id();
                heard.add();
            })
            .build()
            .unwrap();
        (0..10).for_each(|key| second.insert(key, ledger.make(key)));
        *second_shared.lock().unwrap() = Some(second);
        let (of_other, of_own) = (Arc::clone(&second_shared), Arc::clone(&shared));
        let cache: Cache<u64, Counted> = Cache::builder()
            .eviction_listener(move |_, value: &Counted, _| {
                let own = of_own.lock().unwrap().take();
                let other = of_other.lock().unwrap().take();
                if let Some(other) = &other {
                    assert!(other.invalidate(&1));
                }
                drop((own, other));
                value.id();
            })
            .build()
            .unwrap();
        (0..10).for_each(|key| cache.insert(key, ledger.make(key)));
        *shared.lock().unwrap() = Some(cache.clone());
        thread::spawn(move || {
            cache.invalidate(&1);
            cache.invalidate(&2);
        })
        .join()
        .unwrap();
        assert_eq!((told.get(), ledger.alive()), (1, 0));
        assert!(second_shared.lock().unwrap().is_none());
    });
}

// ---------------------------------------------------------------------------------------------
// With nothing held

#[test]
fn h22_c06_on_a_thread_with_a_view_the_listener_is_told_when_the_view_is_gone() {
    let (cache, log) = logged(Cache::builder().max_capacity(100));
    let other: Cache<u64, u64> = Cache::unbounded();
    (0..10).for_each(|key| cache.insert(key, key));
    let (outer, view) = (other.pin(), cache.pin());
    let lent = view.get(&1).unwrap();
    cache.invalidate(&1);
    cache.insert(2, 20);
    cache.set_max_capacity(5).unwrap();
    cache.run_pending_tasks();
    assert_eq!((log.news(), *lent), (vec![], 1));
    assert!(cache.retired() >= 1 + 1 + 4);
    drop(view);
    // There is the other one still.
    assert_eq!(log.news(), []);
    drop(outer);
    cache.run_pending_tasks();
    let news = log.news();
    assert_eq!(news[..2], [(1, 1, Explicit), (2, 2, Replaced)]);
    assert_eq!(news[2..].iter().filter(|told| told.2 == Size).count(), 4);
    assert_eq!(news.len(), 6);
    // Dropping the one guard is enough if there is no other.
    let view = cache.pin();
    cache.clear();
    assert_eq!(log.news(), []);
    drop(view);
    assert_eq!(log.news().len(), 5);
}

/// The guard of one thread does not keep others from telling of its removals.
#[test]
fn h22_others_tell_for_a_thread_that_holds_a_view() {
    let (cache, log) = logged(Cache::builder());
    (0..10).for_each(|key| cache.insert(key, key));
    let view = cache.pin();
    cache.invalidate(&1);
    assert_eq!(log.news(), []);
    let of_other = cache.clone();
    thread::spawn(move || of_other.run_pending_tasks())
        .join()
        .unwrap();
    assert_eq!(log.news(), [(1, 1, Explicit)]);
    drop(view);
    assert_eq!(log.news(), []);
}

#[test]
fn h22_c06_what_is_removed_inside_with_is_told_of_after_it() {
    let (cache, log) = logged(Cache::builder());
    cache.insert(1, 10);
    let removed = cache.with(&1, |&value| {
        assert!(cache.invalidate(&1));
        cache.run_pending_tasks();
        assert_eq!(log.news(), []);
        value
    });
    assert_eq!(removed, Some(10));
    cache.run_pending_tasks();
    assert_eq!(log.news(), [(1, 10, Explicit)]);
}

/// The listener holds up nothing: it may wait for another thread that uses the cache in every way.
#[test]
fn h22_c06_a_listener_may_wait_for_others_that_use_the_cache() {
    watched(|| {
        let shared: Shared<Cache<u64, u64>> = Arc::default();
        let inner = Arc::clone(&shared);
        let cache: Cache<u64, u64> = Cache::builder()
            .max_capacity(10)
            .time_to_live(Duration::from_secs(3600))
            .eviction_listener(move |&key, _, _| {
                if key >= 10 {
                    return;
                }
                let cache = handle(&inner);
                let other = thread::spawn(move || {
                    assert_eq!(cache.get_with(&key, || 77), 77);
                    assert!(cache.invalidate(&key));
                    cache.insert(100, 1);
                    cache.clear();
                    cache.set_max_capacity(9).unwrap();
                    cache.run_pending_tasks();
                });
                other.join().unwrap();
            })
            .build()
            .unwrap();
        *shared.lock().unwrap() = Some(cache.clone());
        cache.insert(1, 10);
        assert!(cache.invalidate(&1));
        assert_eq!(cache.stats().panicked_listeners, 0);
        *shared.lock().unwrap() = None;
    });
}

// ---------------------------------------------------------------------------------------------
// Exactly once, under load

/// One step of a thread of the soak; the number of the value that it has put in by `insert`.
fn one_step(
    cache: &Cache<u64, Counted>,
    dice: &mut Dice,
    clock: Option<&ManualClock>,
    make: impl Fn() -> Counted,
) -> Option<u64> {
    let key = dice.roll(60);
    match dice.roll(24) {
        0..=5 => {
            let value = make();
            let id = value.id();
            if cache.try_insert(key, value).is_ok() {
                return Some(id);
            }
        }
        6..=11 => drop(cache.get_with(&key, make)),
        12 => drop(cache.entry(key).and_compute_with(|_| Op::Put(make()))),
        13 => drop(cache.entry(key).and_compute_with(|_| Op::Remove)),
        14 => drop(cache.entry(key).and_compute_with(|_| Op::Nop)),
        15 => drop(cache.invalidate(&key)),
        16 => drop(cache.invalidate_nowait(&key)),
        17 => drop(cache.remove(&key)),
        18 => match dice.roll(40) {
            0 => cache.clear(),
            1 => cache.invalidate_if(|key, _| key % 3 == 0),
            2 => cache.run_pending_tasks(),
            3 => {
                // Of one that has no bound it is an error.
                let _ = cache.set_max_capacity(5 + dice.roll(50));
            }
            _ => drop(cache.try_get_with(&key, || Err::<Counted, _>(()))),
        },
        19 => {
            let view = cache.pin();
            view.get(&key).map(Counted::id);
            cache.invalidate(&key);
        }
        20 => {
            if let Some(clock) = clock {
                clock.advance(Duration::from_nanos(dice.roll(3)));
            }
        }
        _ => drop(cache.get(&key)),
    }
    None
}

/// Each value has a number of its own. In the end each that was kept has been told of once, or is
/// there: created = told + there + never kept; and none is leaked or dropped twice.
fn soak_exactly_once(builder: Builder<u64, Counted>, clock: Option<&ManualClock>, steps: u64) {
    const MOST: usize = 1 << 20;
    let told: Arc<[AtomicU8]> = (0..MOST).map(|_| AtomicU8::new(0)).collect();
    let (often, causes) = (
        Tally::default(),
        Arc::new([const { AtomicUsize::new(0) }; 4]),
    );
    let (heard, counted, by_cause) = (Arc::clone(&told), often.clone(), Arc::clone(&causes));
    let ledger = Ledger::new();
    let ids = AtomicUsize::new(0);
    let inserted: Mutex<HashSet<u64>> = Mutex::default();
    let cache = builder
        .eviction_listener(move |_, value: &Counted, cause| {
            assert_eq!(heard[value.id() as usize].fetch_add(1, SeqCst), 0);
            let cause = match cause {
                Expired => 0,
                Explicit => 1,
                Replaced => 2,
                Size => 3,
                other => panic!("{other:?}"),
            };
            by_cause[cause].fetch_add(1, SeqCst);
            if counted.add() % 1000 == 0 {
                unwind("do not tell me");
            }
        })
        .build()
        .unwrap();
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for seed in 0..THREADS as u64 {
            let (cache, ledger, ids, start) = (&cache, &ledger, &ids, &start);
            let inserted = &inserted;
            scope.spawn(move || {
                start.wait();
                let mut dice = Dice::new(seed + 99);
                let mut own = vec![];
                let make = || ledger.make(ids.fetch_add(1, SeqCst) as u64);
                for _ in 0..steps {
                    own.extend(one_step(cache, &mut dice, clock, make));
                }
                inserted.lock().unwrap().extend(own);
            });
        }
    });
    let made = ids.into_inner();
    assert!(made < MOST);
    cache.run_pending_tasks();
    cache.quiesce();
    let there: HashSet<u64> = cache.iter().map(|(_, value)| value.id()).collect();
    assert_eq!((there.len(), cache.retired()), (cache.len(), 0));
    let (mut count, mut lost) = (0, vec![]);
    let inserted = inserted.into_inner().unwrap();
    for id in 0..made as u64 {
        let times = told[id as usize].load(SeqCst);
        assert!(times <= 1, "{id} was told of {times} times");
        assert!(
            times == 0 || !there.contains(&id),
            "{id} was told of, and is there"
        );
        count += u64::from(times);
        if times == 0 && !there.contains(&id) && inserted.contains(&id) {
            lost.push(id);
        }
    }
    assert_eq!(lost, [0; 0], "put in, not there, and not told of");
    let stats = cache.stats();
    let causes: Vec<u64> = causes.iter().map(|n| n.load(SeqCst) as u64).collect();
    assert_eq!(
        causes,
        [stats.expired, stats.explicit, stats.replaced, stats.evicted]
    );
    assert_eq!((count, often.get()), (causes.iter().sum(), count));
    assert!(stats.panicked_listeners > 0);
    // Nothing is held any more but by the table.
    drop(there);
    assert_eq!(ledger.alive(), cache.len());
    drop(cache);
    assert_eq!(ledger.alive(), 0);
}

#[test]
fn h22_r10_each_value_that_was_kept_is_told_of_once_or_is_there() {
    watched_for(Duration::from_secs(120), || {
        let steps = rounds("", 40_000);
        soak_exactly_once(Cache::builder(), None, steps);
        soak_exactly_once(Cache::builder().max_capacity(20), None, steps);
        let weighed = Cache::builder()
            .max_capacity(100)
            .weigher(|key, value: &Counted| key % 3 + value.id() % 11);
        soak_exactly_once(weighed, None, steps);
        let clock = ManualClock::new();
        let timed = Cache::builder()
            .max_capacity(30)
            .time_to_live(Duration::from_nanos(200))
            .clock(clock.clone());
        soak_exactly_once(timed, Some(&clock), steps);
    });
}

/// R10: the events are the entries that were put in, less those that are there.
#[test]
fn h22_r10_events_are_what_was_put_in_less_what_is_there() {
    watched(|| {
        let told = Tally::default();
        let heard = told.clone();
        let cache: Cache<u64, u64> = Cache::builder()
            .max_capacity(50)
            .eviction_listener(move |_, _, _| {
                heard.add();
            })
            .build()
            .unwrap();
        let steps = rounds("", 30_000);
        thread::scope(|scope| {
            for seed in 0..THREADS as u64 {
                let cache = &cache;
                scope.spawn(move || {
                    let mut dice = Dice::new(seed + 5);
                    for value in 0..steps {
                        cache.insert(dice.roll(100), value);
                    }
                });
            }
        });
        cache.run_pending_tasks();
        let put = THREADS as u64 * steps;
        assert_eq!((cache.stats().inserts, cache.len()), (put, 50));
        assert_eq!(told.get(), put - 50);
    });
}

/// A cache of counted values, and how many its listener has been told of.
fn telling() -> (Cache<u64, Counted>, Tally) {
    let told = Tally::default();
    let heard = told.clone();
    let cache = Cache::builder()
        .eviction_listener(move |_, value: &Counted, _| {
            value.id();
            heard.add();
        })
        .build()
        .unwrap();
    (cache, told)
}

/// H22. The inserted value takes the old value's place, also while a compute runs.
#[test]
fn h22_an_insert_during_a_compute_replaces_the_old_value() {
    let told: Arc<Mutex<Vec<(u64, RemovalCause)>>> = Arc::default();
    let log = Arc::clone(&told);
    let cache: Cache<u64, u64> = Cache::builder()
        .eviction_listener(move |_, &value, cause| log.lock().unwrap().push((value, cause)))
        .build()
        .unwrap();
    cache.insert(1, 10);
    cache.entry(1).and_compute_with(|_| {
        cache.insert(1, 11);
        Op::Put(12)
    });
    cache.invalidate(&1);
    assert_eq!(*told.lock().unwrap(), [(10, Replaced), (11, Explicit)]);
    assert_eq!((cache.stats().replaced, cache.stats().explicit), (1, 1));
}

/// H22, clause 1: a value inserted with a TTL of zero is not kept, no more than a fill's value.
#[test]
fn h22_an_insert_with_a_lifetime_of_zero_is_not_told_of() {
    let told = Tally::default();
    let heard = told.clone();
    let cache: Cache<u64, u64> = Cache::builder()
        .time_to_live(Duration::ZERO)
        .eviction_listener(move |_, _, _| {
            heard.add();
        })
        .build()
        .unwrap();
    cache.insert(1, 10);
    cache.get_with(&1, || 11);
    cache.run_pending_tasks();
    assert_eq!((told.get(), cache.len()), (0, 0));
}

/// H22, R10: the last handle goes while this thread holds another cache's guard. The values removed before are told of,
/// by then or when the guard is gone, and dropped.
#[test]
fn h22_h21_removals_are_told_of_and_dropped_if_the_cache_goes_under_a_pin() {
    let ledger = Ledger::new();
    let (cache, told) = telling();
    let other: Cache<u64, u64> = Cache::unbounded();
    cache.insert(1, ledger.make(1));
    let view = other.pin();
    cache.invalidate(&1);
    drop(cache);
    drop(view);
    other.run_pending_tasks();
    assert_eq!(ledger.alive(), 0, "leaked");
    assert_eq!(told.get(), 1, "told of");
}

/// H22, R10: more removals wait than one caller tells of in one go.
#[test]
fn h22_run_pending_tasks_tells_of_all_that_waits() {
    let ledger = Ledger::new();
    let (cache, told) = telling();
    let other: Cache<u64, u64> = Cache::unbounded();
    (0..20_000).for_each(|key| cache.insert(key, ledger.make(key)));
    let view = other.pin();
    cache.clear();
    drop(view);
    cache.run_pending_tasks();
    assert_eq!(told.get(), 20_000);
}

/// The same, if the cache goes first.
#[test]
fn h22_h21_a_cache_that_goes_tells_of_all_that_waits_and_leaks_nothing() {
    let ledger = Ledger::new();
    let (cache, told) = telling();
    let other: Cache<u64, u64> = Cache::unbounded();
    (0..20_000).for_each(|key| cache.insert(key, ledger.make(key)));
    let view = other.pin();
    cache.clear();
    drop(view);
    drop(cache);
    assert_eq!((told.get(), ledger.alive()), (20_000, 0));
}

/// H22, clause 6: the listener runs with nothing held, also no lead. A removal inside a fill is told of after it; for
/// then the listener may ask for that fill's key.
#[test]
fn h22_c06_a_listener_is_not_told_inside_a_fill() {
    watched(|| {
        let shared: Arc<Mutex<Option<Cache<u64, u64>>>> = Arc::default();
        let (inner, told) = (Arc::clone(&shared), Tally::default());
        let heard = told.clone();
        let cache: Cache<u64, u64> = Cache::builder()
            .eviction_listener(move |_, _, _| {
                heard.add();
                let cache = inner.lock().unwrap().clone().expect("set");
                assert_eq!(cache.get_with(&1, || 77), 10);
            })
            .build()
            .unwrap();
        *shared.lock().unwrap() = Some(cache.clone());
        cache.insert(2, 20);
        cache.get_with(&1, || {
            assert!(cache.invalidate(&2));
            10
        });
        assert_eq!((told.get(), cache.stats().panicked_listeners), (1, 0));
        *shared.lock().unwrap() = None;
    });
}
