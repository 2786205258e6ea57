//! Clause 2, between removals and computes of a key, and the twins of every method that waits.

use crate::support::common::*;
use crate::support::task_tools::{Latch, poll, run_until_asleep};
use atomic_cache::{AtomicCache, Cache, CompResult, ManualClock, Op, RemovalCause};
use futures_lite::future::block_on;
use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex};
use std::task::Poll;
use std::thread;
use std::time::Duration;

type Told = Arc<Mutex<Vec<(u64, RemovalCause)>>>;

/// A cache that notes the removals its listener is told of.
fn noting() -> (Cache<u64, u64>, Told) {
    let told = Told::default();
    let notes = told.clone();
    let cache = Cache::builder()
        .eviction_listener(move |_: &u64, &value: &u64, cause| {
            notes.lock().unwrap().push((value, cause));
        })
        .build()
        .expect("good settings");
    (cache, told)
}

fn heard(told: &Told) -> Vec<(u64, RemovalCause)> {
    let mut told = told.lock().unwrap().clone();
    told.sort_by_key(|&(value, _)| value);
    told
}

/// How a counter is drained.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Drain {
    Remove,
    Nowait,
    Compute,
    Async,
}

impl Drain {
    fn drain(self, cache: &Cache<u64, u64>) -> u64 {
        let drained = match self {
            Self::Remove => cache.remove(&1),
            Self::Nowait => cache.remove_nowait(&1),
            Self::Async => block_on(cache.remove_async(&1)),
            Self::Compute => match cache.entry(1).and_compute_with(|_| Op::Remove) {
                CompResult::Removed(value) => Some(value),
                _ => None,
            },
        };
        drained.unwrap_or(0)
    }
}

/// Counts up by computes, and drains meanwhile: nothing is lost, and nothing drained twice.
fn count_and_drain(tasks: bool, drains: &[Drain]) {
    let counts = rounds("REMOVALS_COUNTS", 400_000);
    let heard = Arc::new(AtomicU64::new(0));
    let hears = heard.clone();
    let cache: Cache<u64, u64> = Cache::builder()
        .eviction_listener(move |_: &u64, &value: &u64, cause| {
            if cause == RemovalCause::Explicit {
                hears.fetch_add(value, SeqCst);
            }
        })
        .build()
        .expect("good settings");
    let (left, over) = (AtomicU64::new(counts), AtomicBool::new(false));
    let begin = Barrier::new(3 + drains.len());
    let count = || {
        begin.wait();
        let mut superseded = 0_u64;
        while left
            .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1))
            .is_ok()
        {
            loop {
                let up = |seen: Option<u64>| Op::Put(seen.unwrap_or(0) + 1);
                let entry = cache.entry(1);
                let result = if tasks {
                    block_on(entry.and_compute_with_async(|seen| async move { up(seen) }))
                } else {
                    entry.and_compute_with(|seen| up(seen.copied()))
                };
                match result {
                    CompResult::Inserted(_) | CompResult::ReplacedWith(_) => break,
                    CompResult::Superseded(Op::Put(_)) => superseded += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
        superseded
    };
    let drain = |how: Drain| {
        begin.wait();
        let mut drained = 0;
        while !over.load(SeqCst) {
            drained += how.drain(&cache);
        }
        drained
    };
    let (drained, superseded) = thread::scope(|scope| {
        let drainers: Vec<_> = drains
            .iter()
            .map(|&how| scope.spawn(move || drain(how)))
            .collect();
        let counters: Vec<_> = (0..3).map(|_| scope.spawn(count)).collect();
        let superseded: u64 = counters.into_iter().map(|it| it.join().unwrap()).sum();
        over.store(true, SeqCst);
        let drained: u64 = drainers.into_iter().map(|it| it.join().unwrap()).sum();
        (drained, superseded)
    });
    cache.run_pending_tasks();
    assert_eq!(heard.load(SeqCst), drained, "the listener's sum");
    assert_eq!(drained + cache.remove(&1).unwrap_or(0), counts);
    assert!(drains.contains(&Drain::Nowait) || superseded == 0);
    assert_eq!((cache.len(), cache.weighted_size()), (0, 0));
}

const LONG: Duration = Duration::from_secs(300);

#[test]
fn c02_a_counter_drained_by_remove_loses_nothing() {
    watched_for(LONG, || {
        count_and_drain(false, &[Drain::Remove, Drain::Remove, Drain::Compute]);
    });
}

#[test]
fn c02_a_counter_drained_by_remove_nowait_loses_nothing() {
    watched_for(LONG, || {
        count_and_drain(false, &[Drain::Nowait, Drain::Nowait]);
        count_and_drain(false, &[Drain::Nowait, Drain::Remove, Drain::Compute]);
    });
}

#[test]
fn c02_a_counter_of_tasks_drained_by_tasks_loses_nothing() {
    watched_for(LONG, || {
        count_and_drain(true, &[Drain::Async, Drain::Async]);
        count_and_drain(true, &[Drain::Async, Drain::Nowait, Drain::Remove]);
    });
}

/// How a compute ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ends {
    Put,
    Remove,
    Nop,
    Panics,
    Dropped,
}

/// The operation that comes between the compute's read and its end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Comes {
    Remove,
    RemoveAsync,
    Invalidate,
    InvalidateAsync,
    Clear,
    ClearAsync,
    If,
    IfAsync,
    RemoveNowait,
    InvalidateNowait,
    ClearNowait,
    IfNowait,
    Takeover,
    Insert,
}

impl Comes {
    const ALL: [Self; 14] = [
        Self::Remove,
        Self::RemoveAsync,
        Self::Invalidate,
        Self::InvalidateAsync,
        Self::Clear,
        Self::ClearAsync,
        Self::If,
        Self::IfAsync,
        Self::RemoveNowait,
        Self::InvalidateNowait,
        Self::ClearNowait,
        Self::IfNowait,
        Self::Takeover,
        Self::Insert,
    ];

    fn waits(self) -> bool {
        (self as u8) < (Self::RemoveNowait as u8)
    }

    fn leaves_alone(self, prior: Option<u64>) -> bool {
        prior.is_none() && matches!(self, Self::If | Self::IfAsync | Self::IfNowait)
    }

    /// Its answer, as far as it gives one: the value, or zero for one of which it only says that it was there.
    async fn come(self, cache: &Cache<u64, u64>) -> Option<Option<u64>> {
        let named = |value: Option<u64>| Some(value);
        let there = |there: bool| Some(there.then_some(0));
        match self {
            Self::Remove => named(cache.remove(&1)),
            Self::RemoveAsync => named(cache.remove_async(&1).await),
            Self::RemoveNowait => named(cache.remove_nowait(&1)),
            Self::Invalidate => there(cache.invalidate(&1)),
            Self::InvalidateAsync => there(cache.invalidate_async(&1).await),
            Self::InvalidateNowait => there(cache.invalidate_nowait(&1)),
            Self::Clear => (cache.clear(), None).1,
            Self::ClearAsync => (cache.clear_async().await, None).1,
            Self::ClearNowait => (cache.clear_nowait(), None).1,
            Self::If => (cache.invalidate_if(|_, _| true), None).1,
            Self::IfAsync => (cache.invalidate_if_async(|_, _| true).await, None).1,
            Self::IfNowait => (cache.invalidate_if_nowait(|_, _| true), None).1,
            Self::Takeover => (assert!(cache.takeover(&1)), None).1,
            Self::Insert => (cache.insert(1, 20), None).1,
        }
    }

    fn is_named(self) -> bool {
        matches!(self, Self::Remove | Self::RemoveAsync | Self::RemoveNowait)
    }
}

/// One compute, and one thing that comes between its read and its end.
#[allow(clippy::too_many_lines)]
fn beside_a_compute(ends: Ends, comes: Comes, prior: Option<u64>) {
    use RemovalCause::{Explicit, Replaced};
    let case = format!("{ends:?}, {comes:?}, {prior:?}");
    let (cache, told) = noting();
    if let Some(prior) = prior {
        cache.insert(1, prior);
    }
    let (latch, handle) = (Latch::new(), cache.clone());
    let mut compute = {
        let latch = latch.clone();
        Box::pin(async move {
            let f = |seen| {
                assert_eq!(seen, prior);
                async move {
                    latch.await;
                    match ends {
                        Ends::Put => Op::Put(11),
                        Ends::Remove => Op::Remove,
                        Ends::Nop => Op::Nop,
                        Ends::Panics => unwind("on purpose"),
                        Ends::Dropped => unreachable!("dropped before"),
                    }
                }
            };
            handle.entry(1).and_compute_with_async(f).await
        })
    };
    assert!(run_until_asleep(compute.as_mut()).is_none());
    let waits = comes.waits() && !comes.leaves_alone(prior);
    let remover = cache.clone();
    let removing = thread::spawn(move || block_on(comes.come(&remover)));
    if waits {
        spin_until(|| cache.in_flight().iter().any(|fill| fill.fenced_off));
        let_others_run();
        assert!(!removing.is_finished(), "{case}: it does not wait");
        // The value that the compute has read is hidden.
        spin_until(|| cache.get(&1).is_none());
        // It counts until it is known how it goes.
        assert_eq!(cache.len(), usize::from(prior.is_some()), "{case}");
        assert_eq!(heard(&told), [], "{case}");
    } else {
        spin_until(|| removing.is_finished());
    }
    let computed = if ends == Ends::Dropped {
        drop(compute);
        None
    } else {
        latch.open();
        let mut end = || run_until_asleep(compute.as_mut()).expect("nothing holds it");
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut end)).ok()
    };
    let removed = removing.join().unwrap();
    cache.run_pending_tasks();

    // As the contract has it.
    let first = !waits && !comes.leaves_alone(prior) && comes != Comes::Insert;
    let done = match (ends, prior) {
        (Ends::Put, _) if first => Some(CompResult::Superseded(Op::Put(11))),
        (Ends::Put, None) => Some(CompResult::Inserted(11)),
        (Ends::Put, Some(_)) => Some(CompResult::ReplacedWith(11)),
        (Ends::Remove, Some(_)) if first => Some(CompResult::Superseded(Op::Remove)),
        (Ends::Remove, Some(prior)) => Some(CompResult::Removed(prior)),
        (Ends::Nop, Some(prior)) => Some(CompResult::Unchanged(prior)),
        (Ends::Remove | Ends::Nop, None) => Some(CompResult::StillNone),
        (Ends::Panics | Ends::Dropped, _) => None,
    };
    assert_eq!(computed, done, "{case}");
    let left_by_compute = match ends {
        Ends::Put => Some(11),
        Ends::Remove => None,
        _ => prior,
    };
    let replaced = prior
        .filter(|_| ends == Ends::Put)
        .map(|prior| (prior, Replaced));
    let taken_away = prior
        .filter(|_| ends == Ends::Remove)
        .map(|prior| (prior, Explicit));
    let (answer, left, expected) = match comes {
        Comes::Takeover => (None, prior, vec![]),
        Comes::Insert => (
            None,
            Some(20),
            prior.map(|prior| (prior, Replaced)).into_iter().collect(),
        ),
        _ if comes.leaves_alone(prior) => (None, left_by_compute, vec![]),
        _ if waits => {
            let taken = left_by_compute.map(|value| (value, Explicit));
            let told = replaced.into_iter().chain(taken_away).chain(taken);
            (left_by_compute, None, told.collect())
        }
        _ => (
            prior,
            None,
            prior.map(|prior| (prior, Explicit)).into_iter().collect(),
        ),
    };
    if let Some(removed) = removed {
        let answer = if comes.is_named() {
            answer
        } else {
            answer.map(|_| 0)
        };
        assert_eq!(removed, answer, "{case}: the removal's answer");
    }
    assert_eq!(heard(&told), expected, "{case}: what the listener hears");
    assert_eq!(cache.get(&1), left, "{case}: what is left");
    assert_eq!(cache.len(), usize::from(left.is_some()), "{case}");
    assert_eq!(
        cache.weighted_size(),
        u64::from(left.is_some()),
        "{case}: weight"
    );
}

#[test]
fn c02_every_end_of_a_compute_beside_every_removal() {
    watched(|| {
        for ends in [
            Ends::Put,
            Ends::Remove,
            Ends::Nop,
            Ends::Panics,
            Ends::Dropped,
        ] {
            for comes in Comes::ALL {
                for prior in [None, Some(10)] {
                    beside_a_compute(ends, comes, prior);
                }
            }
        }
    });
}

#[test]
fn c02_of_several_removals_that_wait_for_a_compute_one_answers() {
    watched(|| {
        for nop in [false, true] {
            let (cache, told) = noting();
            cache.insert(1, 10);
            let held = Held::new();
            let (computes, inner) = (cache.clone(), held.clone());
            let compute = thread::spawn(move || {
                computes.entry(1).and_compute_with(|_| {
                    let value = inner.hold(11);
                    if nop { Op::Nop } else { Op::Put(value) }
                })
            });
            held.begun.pass();
            let removals: Vec<_> = (0..4)
                .map(|at| {
                    let cache = cache.clone();
                    thread::spawn(move || match at {
                        0 | 1 => block_on(cache.remove_async(&1)),
                        _ => cache.remove(&1),
                    })
                })
                .collect();
            spin_until(|| cache.in_flight().iter().any(|fill| fill.waiters == 4));
            held.end.open();
            compute.join().unwrap();
            let answers = removals.into_iter().map(|it| it.join().unwrap());
            let answers: Vec<_> = answers.flatten().collect();
            assert_eq!(answers, [if nop { 10 } else { 11 }]);
            cache.run_pending_tasks();
            let explicit = (answers[0], RemovalCause::Explicit);
            assert!(heard(&told).contains(&explicit));
            assert_eq!(heard(&told).len(), if nop { 1 } else { 2 });
            assert_eq!((cache.get(&1), cache.len()), (None, 0));
        }
    });
}

/// A value that is dropped is counted.
fn counting(ledger: &Arc<Ledger>) -> Cache<u64, Counted> {
    let cache = Cache::unbounded();
    cache.insert(1, ledger.make(10));
    cache
}

#[test]
fn c02_what_a_compute_leaves_goes_if_the_removal_is_dropped() {
    watched(|| {
        for (puts, end_first) in [(false, false), (false, true), (true, false), (true, true)] {
            let ledger = Ledger::new();
            let cache = counting(&ledger);
            let latch = Latch::new();
            let (waits, makes) = (latch.clone(), ledger.clone());
            let mut compute = Box::pin(cache.entry(1).and_compute_with_async(|_| async move {
                waits.await;
                if puts {
                    Op::Put(makes.make(11))
                } else {
                    Op::Nop
                }
            }));
            assert!(run_until_asleep(compute.as_mut()).is_none());
            let mut removal = Box::pin(cache.remove_async(&1));
            assert!(poll(removal.as_mut()).is_pending());
            if end_first {
                latch.open();
                drop(run_until_asleep(compute.as_mut()).unwrap());
                // The removal does not hold up the counts.
                assert_eq!((cache.len(), cache.weighted_size()), (0, 0));
                drop(removal);
            } else {
                drop(removal);
                assert!(!cache.contains(&1));
                latch.open();
                drop(run_until_asleep(compute.as_mut()).unwrap());
            }
            drop(compute);
            assert!(!cache.contains(&1));
            cache.quiesce();
            assert_eq!(ledger.alive(), 0, "puts {puts}, ends first {end_first}");
        }
    });
}

/// Clause 9: and at once, if the removal was the last to hold it.
#[test]
fn c09_what_a_removal_has_held_goes_with_it() {
    let name = test_name!();
    in_child(name, LONG, || {
        type Removal<'c> = Pin<Box<dyn Future<Output = ()> + 'c>>;
        let ways: [fn(&Cache<u64, Counted>) -> Removal<'_>; 3] = [
            |cache| Box::pin(async { drop(cache.remove_async(&1).await) }),
            |cache| Box::pin(cache.clear_async()),
            |cache| Box::pin(cache.invalidate_if_async(|_, _| true)),
        ];
        for way in ways {
            let ledger = Ledger::new();
            let cache = counting(&ledger);
            let latch = Latch::new();
            let waits = latch.clone();
            let mut compute = Box::pin(cache.entry(1).and_compute_with_async(|_| async move {
                waits.await;
                Op::Nop
            }));
            assert!(run_until_asleep(compute.as_mut()).is_none());
            let mut removal = way(&cache);
            assert!(poll(removal.as_mut()).is_pending());
            latch.open();
            drop(run_until_asleep(compute.as_mut()).unwrap());
            drop(compute);
            assert!(ledger.alive() <= 1);
            assert_eq!(cache.len(), 0);
            drop(removal);
            // crossbeam-epoch takes some rounds to be sure.
            let left = u64::from(cfg!(atomic_cache_crossbeam));
            assert!(u64::try_from(ledger.alive()).unwrap() <= left);
        }
    });
}

#[test]
fn c02_what_only_a_clear_has_waited_for_is_dropped() {
    watched(|| {
        let ledger = Ledger::new();
        let cache = counting(&ledger);
        let held = Held::new();
        let (computes, inner) = (cache.clone(), held.clone());
        let compute = thread::spawn(move || {
            drop(computes.entry(1).and_compute_with(|_| {
                inner.hold(());
                Op::Nop
            }));
        });
        held.begun.pass();
        let clears = cache.clone();
        let clearing = thread::spawn(move || clears.clear());
        spin_until(|| cache.in_flight().iter().any(|fill| fill.waiters == 1));
        held.end.open();
        clearing.join().unwrap();
        compute.join().unwrap();
        cache.quiesce();
        assert_eq!((ledger.alive(), cache.len()), (0, 0));
    });
}

/// A removal waits for a compute, and something else comes: after both, unless the compute has no effect then.
#[test]
fn c02_what_comes_beside_a_removal_that_waits_for_a_compute() {
    use RemovalCause::{Explicit, Replaced};
    watched(|| {
        for first in ["insert", "takeover", "nowait", "inside"] {
            for puts in [false, true] {
                let (cache, told) = noting();
                cache.insert(1, 10);
                let held = Held::new();
                let (computes, inner) = (cache.clone(), held.clone());
                let compute = thread::spawn(move || {
                    let mut removed = None;
                    let computed = computes.entry(1).and_compute_with(|_| {
                        inner.hold(());
                        if first == "inside" {
                            removed = computes.remove(&1);
                        }
                        if puts { Op::Put(11) } else { Op::Nop }
                    });
                    (computed, removed)
                });
                held.begun.pass();
                let removes = cache.clone();
                let removing = thread::spawn(move || removes.remove(&1));
                spin_until(|| cache.in_flight().iter().any(|fill| fill.waiters == 1));
                let mut taken = None;
                match first {
                    "insert" => cache.insert(1, 20),
                    "takeover" => {
                        assert!(cache.takeover(&1));
                        assert_eq!(cache.get(&1), None);
                        // No call waits for an abandoned fill.
                        spin_until(|| removing.is_finished());
                    }
                    "nowait" => taken = cache.remove_nowait(&1),
                    _ => {}
                }
                held.end.open();
                let (computed, inside) = compute.join().unwrap();
                let answers = [taken, inside, removing.join().unwrap()];
                let answers: Vec<_> = answers.into_iter().flatten().collect();
                let comes_after = matches!(first, "insert" | "nowait");
                let left = if comes_after && puts { 11 } else { 10 };
                assert_eq!(answers, [left], "{first}");
                let done = match (puts, comes_after) {
                    (true, true) => CompResult::ReplacedWith(11),
                    (true, false) => CompResult::Superseded(Op::Put(11)),
                    (false, _) => CompResult::Unchanged(10),
                };
                assert_eq!(computed, done, "{first}");
                cache.run_pending_tasks();
                let replaced = [(10, Replaced), (11, Explicit)];
                let removed = [(10, Explicit)];
                let expected = if left == 11 { &replaced[..] } else { &removed };
                assert_eq!(heard(&told), expected, "{first}");
                let left = (first == "insert").then_some(20);
                assert_eq!(cache.get(&1), left, "{first}");
                assert_eq!(cache.len(), usize::from(left.is_some()), "{first}");
            }
        }
    });
}

#[test]
fn c02_what_has_expired_when_a_compute_ends_is_removed_by_nobody() {
    watched(|| {
        let clock = ManualClock::new();
        let cache: Cache<u64, u64> = Cache::builder()
            .time_to_live(Duration::from_secs(1))
            .clock(clock.clone())
            .build()
            .expect("good settings");
        cache.insert(1, 10);
        let latch = Latch::new();
        let waits = latch.clone();
        let mut compute = Box::pin(cache.entry(1).and_compute_with_async(|_| async move {
            waits.await;
            Op::Nop
        }));
        assert!(run_until_asleep(compute.as_mut()).is_none());
        let mut removal = Box::pin(cache.remove_async(&1));
        assert!(poll(removal.as_mut()).is_pending());
        clock.advance(Duration::from_secs(1));
        latch.open();
        assert!(run_until_asleep(compute.as_mut()).is_some());
        assert_eq!(run_until_asleep(removal.as_mut()), Some(None));
        assert_eq!(cache.len(), 0);
    });
}

#[test]
fn c02_a_value_that_is_too_heavy_is_not_what_a_removal_takes() {
    watched(|| {
        let cache: Cache<u64, u64> = Cache::builder()
            .max_capacity(100)
            .weigher(|_, &value: &u64| value)
            .build()
            .expect("good settings");
        cache.insert(1, 10);
        let latch = Latch::new();
        let waits = latch.clone();
        let mut compute = Box::pin(cache.entry(1).and_compute_with_async(|_| async move {
            waits.await;
            Op::Put(1000)
        }));
        assert!(run_until_asleep(compute.as_mut()).is_none());
        let mut removal = Box::pin(cache.remove_async(&1));
        assert!(poll(removal.as_mut()).is_pending());
        latch.open();
        assert!(run_until_asleep(compute.as_mut()).is_some());
        assert_eq!(run_until_asleep(removal.as_mut()), Some(None));
        assert_eq!((cache.len(), cache.weighted_size()), (0, 0));
    });
}

/// Clause 3, as of an insert: the old value goes for the sake of a value that is not kept, and nothing has taken its
/// place.
#[test]
fn c03_what_a_compute_of_a_value_too_heavy_takes_out_goes_by_its_size() {
    let told = Told::default();
    let notes = told.clone();
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(100)
        .weigher(|_, &value: &u64| value)
        .eviction_listener(move |_: &u64, &value: &u64, cause| {
            notes.lock().unwrap().push((value, cause));
        })
        .build()
        .expect("good settings");
    cache.insert(1, 10);
    let result = cache.entry(1).and_compute_with(|_| Op::Put(1000));
    assert_eq!(result, CompResult::ReplacedWith(1000));
    assert_eq!(heard(&told), [(10, RemovalCause::Size)]);
    assert_eq!(
        (cache.len(), cache.weighted_size(), cache.stats().oversize),
        (0, 0, 1)
    );
}

/// A waiter that is handed the lead by a compute fills: removals beside it are those beside a fill.
#[test]
fn c02_a_fill_that_goes_on_from_a_compute_is_no_compute() {
    watched(|| {
        let cache: Cache<u64, u64> = Cache::unbounded();
        let latch = Latch::new();
        let waits = latch.clone();
        let mut compute = Box::pin(cache.entry(1).and_compute_with_async(|_| async move {
            waits.await;
            Op::Nop
        }));
        assert!(run_until_asleep(compute.as_mut()).is_none());
        let held = Held::new();
        let (fills, inner) = (cache.clone(), held.clone());
        let filling = thread::spawn(move || fills.get_with(&1, || inner.hold(20)));
        await_joined(|| cache.stats(), 1);
        drop(compute);
        held.begun.pass();
        assert_eq!(cache.remove_nowait(&1), None);
        held.end.open();
        // Its value is its caller's, and not kept.
        assert_eq!(filling.join().unwrap(), 20);
        assert_eq!(cache.get(&1), None);
    });
}

/// Row E: the listener is told of a removed value before the removal waits, and of a compute's when that ends.
#[test]
fn c06_the_listener_hears_of_a_removal_that_still_waits() {
    watched(|| {
        // A refresh: the value before goes at once.
        let told = Told::default();
        let notes = told.clone();
        let latch = Latch::new();
        let waits = Arc::new(Mutex::new(None::<Latch>));
        let gate = waits.clone();
        let cache = Cache::<u64, u64>::builder()
            .eviction_listener(move |_: &u64, &value: &u64, cause| {
                notes.lock().unwrap().push((value, cause));
            })
            .build_with_async(move |key: u64| {
                let latch = gate.lock().unwrap().clone();
                async move {
                    if let Some(latch) = latch {
                        latch.await;
                    }
                    key * 10
                }
            })
            .expect("good settings");
        assert_eq!(block_on(cache.get_async(&1)), 10);
        *waits.lock().unwrap() = Some(latch.clone());
        let mut refresh = Box::pin(cache.refresh_async(&1));
        assert!(run_until_asleep(refresh.as_mut()).is_none());
        let mut removal = Box::pin(cache.invalidate_async(&1));
        assert!(poll(removal.as_mut()).is_pending());
        assert_eq!(heard(&told), [(10, RemovalCause::Explicit)]);
        latch.open();
        drop((refresh, removal));
        // A compute: the value it leaves goes when it ends.
        let (cache, told) = noting();
        cache.insert(1, 10);
        let latch = Latch::new();
        let waits = latch.clone();
        let mut compute = Box::pin(cache.entry(1).and_compute_with_async(|_| async move {
            waits.await;
            Op::Put(11)
        }));
        assert!(run_until_asleep(compute.as_mut()).is_none());
        let mut removal = Box::pin(cache.invalidate_async(&1));
        assert!(poll(removal.as_mut()).is_pending());
        latch.open();
        assert!(run_until_asleep(compute.as_mut()).is_some());
        let both = [(10, RemovalCause::Replaced), (11, RemovalCause::Explicit)];
        assert_eq!(heard(&told), both);
        assert_eq!(run_until_asleep(removal.as_mut()), Some(true));
    });
}

thread_local! {
    /// Of how many clones the next one panics in its `Drop`.
    static PANICS: Cell<bool> = const { Cell::new(false) };
}

/// A counted value with a clone that may panic when it is dropped.
struct Bomb {
    counted: Counted,
    armed: bool,
}

impl Clone for Bomb {
    fn clone(&self) -> Self {
        Self {
            counted: self.counted.clone(),
            armed: self.counted.id() == 10 && PANICS.replace(false),
        }
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.armed {
            unwind("in a destructor");
        }
    }
}

/// Ready at once, and panics when it is dropped.
struct DropsBadly(Option<Op<Counted>>);

impl Future for DropsBadly {
    type Output = Op<Counted>;

    fn poll(mut self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(self.0.take().expect("polled once"))
    }
}

impl Drop for DropsBadly {
    fn drop(&mut self) {
        unwind("in a destructor");
    }
}

/// The same of the result of a compute's future, if the future panics in its `Drop`.
#[test]
fn c06_a_compute_leaks_nothing_if_its_future_panics_in_its_drop() {
    watched(|| {
        let ledger = Ledger::new();
        let cache = counting(&ledger);
        let put = |_| DropsBadly(Some(Op::Put(ledger.make(11))));
        let compute = || run_until_asleep(pin!(cache.entry(1).and_compute_with_async(put)));
        assert!(panics(compute));
        assert_eq!(cache.get(&1).map(|value| value.id()), Some(10));
        cache.clear();
        cache.quiesce();
        assert_eq!(ledger.alive(), 0);
    });
}

/// Row E: the new value's clone is not leaked if the old one's `Drop` panics.
#[test]
fn c06_a_compute_leaks_nothing_if_what_it_has_read_panics_in_its_drop() {
    watched(|| {
        for is_async in [false, true] {
            let ledger = Ledger::new();
            let cache: Cache<u64, Bomb> = Cache::unbounded();
            let make = |id| Bomb {
                counted: ledger.make(id),
                armed: false,
            };
            cache.insert(1, make(10));
            PANICS.set(true);
            let panicked = panics(|| {
                if is_async {
                    // The clone of the clone is not armed; the one that the compute keeps is dropped at its end.
                    let put = |seen: Option<Bomb>| async {
                        drop(seen);
                        Op::Put(make(11))
                    };
                    drop(run_until_asleep(pin!(
                        cache.entry(1).and_compute_with_async(put)
                    )));
                } else {
                    drop(cache.entry(1).and_compute_with(|_| Op::Put(make(11))));
                }
            });
            assert!(panicked);
            // As any panic of a compute: nothing was done.
            assert_eq!(cache.get(&1).map(|value| value.counted.id()), Some(10));
            cache.clear();
            cache.quiesce();
            assert_eq!(ledger.alive(), 0, "is_async {is_async}");
        }
    });
}

/// A long fill of one key holds up nothing of another's.
fn long_and_short(waits: impl FnOnce(&Cache<u64, Counted>) + Send + 'static, keeps: bool) {
    let ledger = Ledger::new();
    let cache: Cache<u64, Counted> = Cache::unbounded();
    let fill = |key: u64, held: &Held| {
        let (cache, held, ledger) = (cache.clone(), held.clone(), ledger.clone());
        thread::spawn(move || {
            drop(cache.get_with(&key, || {
                held.hold(());
                ledger.make(key)
            }));
        })
    };
    let (long, short) = (Held::new(), Held::new());
    let fills = [fill(1, &long), fill(2, &short)];
    long.begun.pass();
    short.begun.pass();
    let waiter = cache.clone();
    let waiting = thread::spawn(move || waits(&waiter));
    spin_until(|| {
        let fills = cache.in_flight();
        fills.len() == 2 && fills.iter().all(|fill| fill.waiters == 1)
    });
    short.end.open();
    spin_until(|| cache.in_flight().len() == 1);
    let [one, two] = fills;
    two.join().unwrap();
    if keeps {
        cache.remove_nowait(&2);
    }
    // The other one has left the flight, or is about to.
    let gone = || {
        cache.quiesce();
        ledger.alive() == 0 && cache.retired() == 0
    };
    spin_until(gone);
    assert!(!waiting.is_finished());
    long.end.open();
    one.join().unwrap();
    waiting.join().unwrap();
}

#[test]
fn c09_who_waits_for_many_fills_lets_go_of_each_as_it_ends() {
    watched(|| {
        long_and_short(Cache::invalidate_all, false);
        long_and_short(|cache| block_on(cache.invalidate_all_async()), false);
        long_and_short(Cache::close, true);
        long_and_short(|cache| block_on(cache.close_async()), true);
        long_and_short(
            |cache| assert_eq!(cache.close_within(Duration::from_secs(1000)), 0),
            true,
        );
    });
}

/// A stored fill with refreshes that wait: `(cache, latch)`; the first fill of a key does not.
fn refreshing() -> (AtomicCache<u64, u64>, Latch) {
    let latch = Latch::new();
    let (waits, begun) = (latch.clone(), Arc::new(AtomicU64::new(0)));
    let cache = AtomicCache::new_async(
        move |key: u64| {
            let (latch, n) = (waits.clone(), begun.fetch_add(1, SeqCst));
            async move {
                if n > 0 {
                    latch.await;
                }
                key * 10 + n
            }
        },
        None,
    );
    (cache, latch)
}

#[test]
fn c02_invalidate_if_waits_only_for_what_it_picks() {
    watched(|| {
        // A first fill: detached, and not waited for.
        for which in [true, false] {
            let cache = plain();
            let held = Held::new();
            let leader = start_fill(&cache, 1, 10, &held);
            let waiters = join_flight(&cache, 1, 2, 20);
            cache.invalidate_if(|_, _| which);
            assert!(block_on(async {
                let mut it = pin!(cache.invalidate_if_async(|_, _| which));
                poll_fn(|cx| Poll::Ready(it.as_mut().poll(cx).is_ready())).await
            }));
            assert!(cache.in_flight()[0].fenced_off);
            held.end.open();
            assert_eq!(leader.join().unwrap(), 10);
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), 10);
            }
            assert_eq!((cache.get(&1), cache.len()), (None, 0));
        }
        // A refresh of a value that is picked: that goes at once, and the fill is waited for.
        let (cache, latch) = refreshing();
        assert_eq!(block_on(cache.get_async(&1)), 10);
        let mut refresh = Box::pin(cache.refresh_async(&1));
        assert!(run_until_asleep(refresh.as_mut()).is_none());
        let mut removal = Box::pin(cache.invalidate_if_async(|_, &value| value == 10));
        assert!(poll(removal.as_mut()).is_pending());
        assert_eq!(cache.peek(&1), None);
        latch.open();
        assert_eq!(run_until_asleep(refresh.as_mut()), Some(11));
        assert!(run_until_asleep(removal.as_mut()).is_some());
        assert_eq!((cache.peek(&1), cache.len()), (None, 0));
        // One of a value that is not picked: waited for, and judged.
        for picked in [true, false] {
            let (cache, latch) = refreshing();
            assert_eq!(block_on(cache.get_async(&1)), 10);
            let mut refresh = Box::pin(cache.refresh_async(&1));
            assert!(run_until_asleep(refresh.as_mut()).is_none());
            let which = |_: &u64, &value: &u64| value == if picked { 11 } else { 12 };
            let mut removal = Box::pin(cache.invalidate_if_async(which));
            assert!(poll(removal.as_mut()).is_pending());
            assert_eq!(cache.peek(&1), Some(10));
            latch.open();
            assert_eq!(run_until_asleep(refresh.as_mut()), Some(11));
            assert!(run_until_asleep(removal.as_mut()).is_some());
            assert_eq!(cache.peek(&1), (!picked).then_some(11));
        }
        // A compute over a value that is not picked: left alone.
        let cache = plain();
        cache.insert(1, 10);
        let held = Held::new();
        let compute = start_compute(&cache, 1, 11, &held);
        cache.invalidate_if(|_, &value| value == 11);
        cache.invalidate_if_nowait(|_, &value| value == 11);
        held.end.open();
        assert_eq!(compute.join().unwrap(), CompResult::ReplacedWith(11));
        assert_eq!(cache.get(&1), Some(11));
    });
}

#[test]
fn c02_invalidate_if_nowait_waits_for_nobody() {
    watched(|| {
        // A first fill is detached.
        let cache = plain();
        let held = Held::new();
        let leader = start_fill(&cache, 1, 10, &held);
        cache.invalidate_if_nowait(|_, _| false);
        assert_eq!(cache.get_with(&1, || 30), 30);
        held.end.open();
        assert_eq!(leader.join().unwrap(), 10);
        assert_eq!(cache.get(&1), Some(30));
        // A refresh of a value that is picked, and of one that is not.
        for picked in [true, false] {
            let (cache, latch) = refreshing();
            assert_eq!(block_on(cache.get_async(&1)), 10);
            let mut refresh = Box::pin(cache.refresh_async(&1));
            assert!(run_until_asleep(refresh.as_mut()).is_none());
            cache.invalidate_if_nowait(|_, _| picked);
            assert_eq!(cache.peek(&1), (!picked).then_some(10));
            latch.open();
            run_until_asleep(refresh.as_mut());
            drop(refresh);
            assert_ne!(cache.peek(&1), Some(11), "begun before");
        }
    });
}

#[test]
fn c02_what_does_not_wait_returns_while_fills_run() {
    watched(|| {
        let stored = AtomicCache::<u64, u64>::new(|key: &u64| *key, None);
        stored.get(&1);
        assert_eq!(stored.remove_nowait(&1), Some(1));
        stored.get(&2);
        stored.invalidate_if_nowait(|key, _| *key == 2);
        stored.get(&3);
        stored.invalidate_all_nowait();
        assert!(stored.is_empty());

        let verbs: [fn(&Cache<u64, u64>); 5] = [
            |cache| _ = cache.remove_nowait(&1),
            |cache| _ = cache.invalidate_nowait(&1),
            Cache::clear_nowait,
            Cache::invalidate_all_nowait,
            |cache| cache.invalidate_if_nowait(|_, _| true),
        ];
        for verb in verbs {
            let cache = plain();
            let held = Held::new();
            let leader = start_fill(&cache, 1, 10, &held);
            verb(&cache);
            // A new flight begins beside the old one.
            assert_eq!(cache.get_with(&1, || 30), 30);
            held.end.open();
            assert_eq!(leader.join().unwrap(), 10);
            assert_eq!(cache.get(&1), Some(30));
        }
        let cache = plain();
        cache.insert(1, 10);
        block_on(cache.clear_async());
        assert!(cache.is_empty());
    });
}

/// The async twins of all of these are `Send`.
#[test]
fn c02_removals_of_tasks_can_be_spawned() {
    fn spawned<T>(_: Pin<Box<dyn Future<Output = T> + Send + '_>>) {}
    let cache = plain();
    spawned(Box::pin(cache.remove_async(&1)));
    spawned(Box::pin(cache.invalidate_async(&1)));
    spawned(Box::pin(cache.invalidate_all_async()));
    spawned(Box::pin(cache.clear_async()));
    spawned(Box::pin(cache.invalidate_if_async(|_, _| true)));
    spawned(Box::pin(cache.close_async()));
}
