//! The memory that removed values keep: clause 9, and clause 6 as far as it is about where they are dropped. Each test
//! is alone in a process, because a guard of any cache, in any other test, keeps them.

use crate::support::common::*;
use atomic_cache::{Cache, Op};
use std::panic::{AssertUnwindSafe, catch_unwind};
#[cfg(not(atomic_cache_crossbeam))]
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
#[cfg(not(atomic_cache_crossbeam))]
use std::time::Duration;

/// Removed at a low rate, values are dropped at once; crossbeam-epoch takes some rounds to be sure.
const A_FEW: usize = if cfg!(atomic_cache_crossbeam) { 64 } else { 16 };

/// A large value that is counted.
struct Large {
    _counted: Counted,
    bytes: Vec<u8>,
}

impl Large {
    fn new(ledger: &Arc<Ledger>, size: usize) -> Self {
        Self {
            _counted: ledger.make(0),
            bytes: vec![1; size],
        }
    }
}

/// One large value, refreshed by many threads in turn.
#[test]
fn c09_a_large_value_that_is_refreshed_in_turn_leaves_few_copies() {
    let name = test_name!();
    in_child(name, A_WHILE, || {
        let ledger = Ledger::new();
        let cache: Cache<u64, Arc<Large>> = Cache::new(1_000);
        let (turn, most) = (Mutex::new(()), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..64 {
                scope.spawn(|| {
                    for _ in 0..32 {
                        let _turn = turn.lock().unwrap();
                        cache.entry(1).and_compute_with(|_| {
                            Op::Put(Arc::new(Large::new(&ledger, 128 << 10)))
                        });
                        most.fetch_max(ledger.alive(), SeqCst);
                        assert!(cache.with(&1, |large| large.bytes[7] == 1).unwrap());
                    }
                });
            }
        });
        let most = most.into_inner();
        assert!(most <= A_FEW, "{most} copies");
    });
}

/// The same of values that `insert` replaces, and that `get_with` fills anew after `invalidate`.
#[test]
fn c09_what_is_replaced_or_filled_anew_now_and_then_leaves_few_copies() {
    let name = test_name!();
    in_child(name, A_WHILE, || {
        let ledger = Ledger::new();
        let cache: Cache<u64, Arc<Large>> = Cache::unbounded();
        let mut most = 0;
        for n in 0..400 {
            let large = || Arc::new(Large::new(&ledger, 128 << 10));
            if n % 2 == 0 {
                cache.insert(1, large());
            } else {
                cache.invalidate(&1);
                cache.get_with(&1, large);
            }
            most = most.max(ledger.alive());
        }
        assert!(most <= A_FEW, "{most} copies");
    });
}

/// A value that a reader has held up goes with the next removal or miss, however late that comes.
#[test]
fn c09_what_a_view_has_held_up_goes_with_a_later_miss() {
    let name = test_name!();
    in_child(name, A_WHILE, || {
        let ledger = Ledger::new();
        let cache: Cache<u64, Counted> = Cache::unbounded();
        (0..10).for_each(|key| cache.insert(key, ledger.make(key)));
        let (held, other) = (Held::new(), cache.clone());
        let reader = held.clone();
        let view = thread::spawn(move || {
            let _view = other.pin();
            reader.hold(());
        });
        held.begun.pass();
        (0..10).for_each(|key| assert!(cache.invalidate(&key)));
        assert_eq!(ledger.alive(), 10);
        held.end.open();
        view.join().unwrap();
        // Each comes by; the first of them in a stretch of time looks.
        let key = std::cell::Cell::new(100);
        spin_until(|| {
            cache.get_with(&key.replace(key.get() + 1), || ledger.make(0));
            cache.len() == ledger.alive()
        });
    });
}

/// Values that hold a scarce resource: here a descriptor each, of 64.
#[test]
#[cfg(all(target_os = "linux", not(atomic_cache_crossbeam)))]
fn c09_files_that_are_put_in_and_removed_are_closed() {
    let name = test_name!();
    in_child(name, A_WHILE, || {
        let limit = libc::rlimit {
            rlim_cur: 64,
            rlim_max: 64,
        };
        // SAFETY: reads a struct of ours; the process is the test's own.
        let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
        assert_eq!(set, 0);
        let ledger = Ledger::new();
        let cache: Cache<u64, Arc<(std::fs::File, Counted)>> = Cache::unbounded();
        let mut most = 0;
        for n in 0..10_000 {
            let file = std::fs::File::open("/dev/null")
                .unwrap_or_else(|error| panic!("{n}: {error}, len {}", cache.len()));
            cache.insert(1, Arc::new((file, ledger.make(n))));
            most = most.max(ledger.alive());
            assert!(cache.invalidate(&1));
        }
        assert!(most <= 16, "{most} open");
    });
}

/// Large values of a cache that weighs nothing, removed, and then nothing more happens.
#[test]
fn c09_removed_values_are_gone_although_nothing_comes_after() {
    let name = test_name!();
    in_child(name, A_WHILE, || {
        let ledger = Ledger::new();
        let cache: Cache<u64, Large> = Cache::unbounded();
        for key in 0..100 {
            // Untouched but for the bytes of the count: the test shall run on small machines.
            let counted = ledger.make(key);
            let bytes = Vec::with_capacity(10 << 20);
            cache.insert(
                key,
                Large {
                    _counted: counted,
                    bytes,
                },
            );
        }
        for key in 0..100 {
            assert!(cache.invalidate(&key));
        }
        // crossbeam-epoch takes some rounds to be sure.
        let left = if cfg!(atomic_cache_crossbeam) { 4 } else { 0 };
        assert!(ledger.alive() <= left, "{} alive", ledger.alive());
    });
}

/// Threads, of which there are more than processors, fill a small cache with values that cost nothing. At most twice
/// the capacity and 1,024 values are alive.
#[test]
#[cfg(not(atomic_cache_crossbeam))]
fn c09_values_alive_are_bounded_on_a_busy_machine() {
    let name = test_name!();
    in_child(name, Duration::from_secs(240), || {
        let mut worst = 0;
        for capacity in [1, 1_000] {
            for threads in [8, 32] {
                for round in 0..rounds("CROWDS", 50) {
                    let most = most_alive(capacity, threads, rounds("CROWD", 40_000));
                    println!("{threads} threads, capacity {capacity}, round {round}: {most}");
                    worst = worst.max(most.saturating_sub(2 * capacity as usize));
                }
            }
        }
        assert!(worst <= 1_024, "twice the capacity and {worst}");
    });
}

#[cfg(not(atomic_cache_crossbeam))]
fn most_alive(capacity: u64, threads: u64, misses: u64) -> usize {
    let ledger = Ledger::new();
    let cache: Cache<u64, Counted> = Cache::new(capacity);
    let (start, most) = (Barrier::new(threads as usize), AtomicUsize::new(0));
    thread::scope(|scope| {
        for thread in 0..threads {
            let (cache, ledger, start, most) = (&cache, &ledger, &start, &most);
            scope.spawn(move || {
                start.wait();
                for n in 0..misses / threads {
                    let key = thread << 32 | n;
                    let value = cache.get_with(&key, || ledger.make(key));
                    most.fetch_max(ledger.alive(), SeqCst);
                    drop(value);
                }
            });
        }
    });
    most.into_inner()
}

/// A value that holds its own cache.
pub(super) struct Holds {
    pub(super) _cache: Cache<u64, Holds>,
    pub(super) _counted: Counted,
}

/// All are removed, at once or in a burst, and then the last handle goes: nothing is left.
#[test]
fn c09_removed_values_that_hold_their_cache_keep_nothing_alive() {
    let name = test_name!();
    in_child(name, A_WHILE, || {
        for all_at_once in [false, true] {
            for n in [1, 10, 1_000, 5_000] {
                let ledger = Ledger::new();
                let cache: Cache<u64, Holds> = Cache::unbounded();
                let value = |key| Holds {
                    _cache: cache.clone(),
                    _counted: ledger.make(key),
                };
                (0..n).for_each(|key| cache.insert(key, value(key)));
                if all_at_once {
                    cache.clear();
                } else {
                    (0..n).for_each(|key| assert!(cache.invalidate(&key)));
                }
                let others: Vec<_> = (0..3).map(|_| cache.clone()).collect();
                drop(cache);
                drop(others);
                assert_eq!(ledger.alive(), 0, "of {n}");
            }
        }
    });
}

/// Also if the removals that are left are the first that hold a handle.
#[test]
fn c09_a_burst_of_values_of_which_the_last_hold_their_cache() {
    struct May(Option<Cache<u64, May>>, #[allow(dead_code)] Counted);

    let name = test_name!();
    in_child(name, A_WHILE, || {
        for n in [0, 500, 2_000, 20_000] {
            let ledger = Ledger::new();
            let cache: Cache<u64, May> = Cache::unbounded();
            for key in 0..n + 10 {
                let holds = (key >= n).then(|| cache.clone());
                cache.insert(key, May(holds, ledger.make(key)));
            }
            (0..n + 10).for_each(|key| assert!(cache.invalidate_nowait(&key)));
            drop(cache);
            assert_eq!(ledger.alive(), 0, "after {n}");
            let _ = May(None, ledger.make(0)).0;
        }
    });
}

/// A call that removes many values drops them before it returns.
#[test]
fn c09_who_takes_out_many_drops_them_before_it_returns() {
    let name = test_name!();
    in_child(name, A_WHILE, || {
        for n in [1, 50, 3_000] {
            for round in 0..8 {
                let ledger = Ledger::new();
                let cache: Cache<u64, Counted> = Cache::builder()
                    .max_capacity(10_000)
                    .weigher(|_, _| 1)
                    .build()
                    .unwrap();
                (0..n).for_each(|key| cache.insert(key, ledger.make(key)));
                assert_eq!(ledger.alive(), n as usize);
                let mut left = 0;
                match round {
                    0 => cache.clear(),
                    1 => cache.invalidate_all(),
                    2 => cache.invalidate_if(|_, _| true),
                    3 => {
                        left = n.div_ceil(2) as usize;
                        cache.set_max_capacity(left as u64).unwrap();
                    }
                    4 => cache.set_max_bytes(0).unwrap(),
                    5 => {
                        (0..n).for_each(|key| drop(cache.remove(&key)));
                        cache.run_pending_tasks();
                    }
                    #[cfg(feature = "async")]
                    6 => block_on(cache.invalidate_all_async()),
                    #[cfg(feature = "async")]
                    7 => block_on(cache.invalidate_if_async(|_, _| true)),
                    _ => continue,
                }
                assert_eq!(ledger.alive(), left, "round {round} of {n}");
            }
        }
    });
}

thread_local! {
    /// Whether this thread is inside a fill of these tests.
    static IN_FILL: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// A value that notes where it is dropped.
#[derive(Clone)]
struct Witness {
    unwinding: Tally,
    in_fill: Tally,
}

impl Witness {
    fn new() -> Self {
        Self {
            unwinding: Tally::default(),
            in_fill: Tally::default(),
        }
    }

    fn value(&self) -> Witnessed {
        Witnessed(self.clone())
    }
}

struct Witnessed(Witness);

impl Drop for Witnessed {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.unwinding.add();
        }
        if IN_FILL.get() {
            self.0.in_fill.add();
        }
    }
}

/// No thread drops a removed value while it unwinds: neither one whose fill has panicked, nor one that removes while it
/// unwinds.
#[test]
fn c06_no_value_is_dropped_while_a_fill_unwinds() {
    struct RemovesAtTheEnd<'c>(&'c Cache<u64, Arc<Witnessed>>, u64);

    impl Drop for RemovesAtTheEnd<'_> {
        fn drop(&mut self) {
            self.0.invalidate(&self.1);
            self.0.run_pending_tasks();
            self.0.invalidate_if(|key, _| *key == self.1 + 1);
            self.0.quiesce();
        }
    }

    let name = test_name!();
    in_child(name, A_WHILE, || {
        let witness = Witness::new();
        let cache: Cache<u64, Arc<Witnessed>> = Cache::new(500);
        for key in 0..2_000 {
            cache.insert(2 * key, Arc::new(witness.value()));
            cache.insert(2 * key + 1, Arc::new(witness.value()));
            let fills = || {
                let _removes = (key % 2 == 0).then(|| RemovesAtTheEnd(&cache, 2 * key));
                cache.get_with(&u64::MAX, || {
                    cache.invalidate_nowait(&(2 * key));
                    unwind("a fill that panics")
                });
            };
            assert!(catch_unwind(AssertUnwindSafe(fills)).is_err());
        }
        assert_eq!(witness.unwinding.get(), 0);
        cache.insert(1, Arc::new(witness.value()));
        cache.clear();
        cache.quiesce();
        assert_eq!(cache.retired(), 0);
    });
}

/// Nor beneath a lead, as long as that is not too much: then a fill that removes without end drops some.
#[test]
fn c06_no_value_is_dropped_inside_a_fill_unless_there_are_many() {
    let name = test_name!();
    in_child(name, A_WHILE, || {
        let witness = Witness::new();
        let cache: Cache<u64, Arc<Witnessed>> = Cache::unbounded();
        for round in 0..200 {
            cache.insert(1, Arc::new(witness.value()));
            cache.get_with(&(1_000 + round), || {
                IN_FILL.set(true);
                assert!(cache.invalidate(&1));
                cache.insert(2, Arc::new(witness.value()));
                cache.insert(2, Arc::new(witness.value()));
                IN_FILL.set(false);
                Arc::new(witness.value())
            });
        }
        assert_eq!(witness.in_fill.get(), 0);
        // They go at the end of each fill; the last few wait for more, because there are many just now.
        assert!(cache.retired() <= 16, "{} left", cache.retired());
        cache.run_pending_tasks();
        assert_eq!(cache.retired(), 0);
        let ledger = Ledger::new();
        let many: Cache<u64, Counted> = Cache::new(100);
        let most = AtomicUsize::new(0);
        many.get_with(&u64::MAX, || {
            for key in 0..50_000 {
                many.insert(key, ledger.make(key));
                most.fetch_max(ledger.alive(), SeqCst);
            }
            ledger.make(0)
        });
        let most = most.into_inner();
        assert!(most <= 2 * 100 + 1_024, "{most} alive");
    });
}
