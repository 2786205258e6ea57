//! What was found in use of the memory that removed values keep: clause 9, and clause 6 as far as it is about where
//! they are dropped. Each test is alone in a process, because a view of any cache, in any other test, keeps them.

use crate::common::*;
use atomic_cache::{Cache, ManualClock, Op};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

const A_WHILE: Duration = Duration::from_secs(120);

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
    let name = "memory_found::c09_a_large_value_that_is_refreshed_in_turn_leaves_few_copies";
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

/// The same of what `insert` replaces, and `get_with` fills anew after `invalidate`.
#[test]
fn c09_what_is_replaced_or_filled_anew_now_and_then_leaves_few_copies() {
    let name = "memory_found::c09_what_is_replaced_or_filled_anew_now_and_then_leaves_few_copies";
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

/// What a reader has held up goes with the next removal or miss, however late that comes.
#[test]
fn c09_what_a_view_has_held_up_goes_with_a_later_miss() {
    let name = "memory_found::c09_what_a_view_has_held_up_goes_with_a_later_miss";
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

/// Values that hold what there is little of: here a descriptor each, of 64.
#[test]
#[cfg(all(target_os = "linux", not(atomic_cache_crossbeam)))]
fn c09_files_that_are_put_in_and_removed_are_closed() {
    let name = "memory_found::c09_files_that_are_put_in_and_removed_are_closed";
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
    let name = "memory_found::c09_removed_values_are_gone_although_nothing_comes_after";
    in_child(name, A_WHILE, || {
        let ledger = Ledger::new();
        let cache: Cache<u64, Large> = Cache::unbounded();
        for key in 0..100 {
            // Untouched but for what the count takes: the test shall run on small machines.
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

/// Threads, of which there are more than processors, fill a small cache with what costs nothing. At most
/// twice the capacity and 1,024 values are alive.
#[test]
#[cfg(not(atomic_cache_crossbeam))]
fn c09_values_alive_are_bounded_on_a_busy_machine() {
    let name = "memory_found::c09_values_alive_are_bounded_on_a_busy_machine";
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
struct Holds {
    _cache: Cache<u64, Holds>,
    _counted: Counted,
}

/// All are removed, at once or in a burst, and then the last handle goes: nothing is left.
#[test]
fn c09_removed_values_that_hold_their_cache_keep_nothing_alive() {
    let name = "memory_found::c09_removed_values_that_hold_their_cache_keep_nothing_alive";
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

    let name = "memory_found::c09_a_burst_of_values_of_which_the_last_hold_their_cache";
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

/// What takes out many drops them before it returns.
#[test]
fn c09_who_takes_out_many_drops_them_before_it_returns() {
    let name = "memory_found::c09_who_takes_out_many_drops_them_before_it_returns";
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

/// No removed value is dropped by a thread that unwinds: by one whose fill has panicked, or who removes while it
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

    let name = "memory_found::c06_no_value_is_dropped_while_a_fill_unwinds";
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
    let name = "memory_found::c06_no_value_is_dropped_inside_a_fill_unless_there_are_many";
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

/// A janitor that is always in its round: the last handle goes, and everything is dropped when that returns.
#[test]
fn c09_the_last_handle_drops_everything_although_a_janitor_is_in_its_round() {
    let name =
        "memory_found::c09_the_last_handle_drops_everything_although_a_janitor_is_in_its_round";
    in_child(name, A_WHILE, || {
        let size = rounds("JANITOR", 200_000);
        for round in 0..40_u64 {
            let ledger = Ledger::new();
            let clock = ManualClock::new();
            let cache: Cache<u64, Counted> = Cache::builder()
                .time_to_live(Duration::from_secs(1))
                .clock(clock.clone())
                .purge_interval(Duration::from_micros(50))
                .initial_capacity(size as usize)
                .build()
                .unwrap();
            for key in 0..size {
                cache.insert(key, ledger.make(key));
            }
            // All expire at once, or each round looks at all.
            if round % 2 == 0 {
                clock.advance(Duration::from_secs(1));
            }
            (0..round * 20).for_each(|_| thread::yield_now());
            let other = cache.clone();
            let elsewhere = thread::spawn(move || drop(other));
            drop(cache);
            // Whichever of the two was the last.
            elsewhere.join().unwrap();
            assert_eq!(ledger.alive(), 0, "round {round}");
        }
    });
}

/// Values hold the handles, and the janitor itself drops the last of them, in its round.
#[test]
fn c09_a_janitor_may_drop_the_last_handle_itself() {
    let name = "memory_found::c09_a_janitor_may_drop_the_last_handle_itself";
    in_child(name, A_WHILE, || {
        for round in 0..20 {
            let ledger = Ledger::new();
            let clock = ManualClock::new();
            let cache: Cache<u64, Holds> = Cache::builder()
                .time_to_live(Duration::from_secs(1))
                .clock(clock.clone())
                .purge_interval(Duration::from_micros(50))
                .build()
                .unwrap();
            for key in 0..100 {
                let value = Holds {
                    _cache: cache.clone(),
                    _counted: ledger.make(key),
                };
                cache.insert(key, value);
            }
            if round % 2 == 0 {
                drop(cache);
                clock.advance(Duration::from_secs(1));
            } else {
                clock.advance(Duration::from_secs(1));
                drop(cache);
            }
            spin_until(|| ledger.alive() == 0);
        }
    });
}

/// Inside a fill, the last handle of another cache, whose janitor's round waits for that fill: nobody waits for the
/// round.
#[test]
fn c09_the_last_handle_dropped_in_a_fill_waits_for_no_round() {
    watched(|| {
        let outer: Cache<u64, u64> = Cache::unbounded();
        let (clock, held) = (ManualClock::new(), Held::new());
        let (asked, round) = (outer.clone(), held.clone());
        let cache: Cache<u64, u64> = Cache::builder()
            .time_to_live(Duration::from_secs(1))
            .clock(clock.clone())
            .purge_interval(Duration::from_micros(50))
            .eviction_listener(move |_, _, _| {
                round.begun.open();
                assert_eq!(asked.get_with(&1, || 11), 10);
            })
            .build()
            .unwrap();
        cache.insert(1, 10);
        let value = outer.get_with(&1, || {
            clock.advance(Duration::from_secs(1));
            held.begun.pass();
            drop(cache);
            10
        });
        assert_eq!(value, 10);
    });
}

/// A janitor of a cache with few entries and much room looks at that when something may have expired.
#[test]
#[cfg(target_os = "linux")]
fn c08_a_janitor_of_few_entries_in_a_large_table_costs_little() {
    fn processor_time() -> Duration {
        let mut time = std::mem::MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: the call writes to what the pointer leads to, and this clock is always there.
        let time = unsafe {
            libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, time.as_mut_ptr());
            time.assume_init()
        };
        let whole = |part: i64| u64::try_from(part).expect("not negative");
        Duration::from_secs(whole(time.tv_sec)) + Duration::from_nanos(whole(time.tv_nsec))
    }

    let name = "memory_found::c08_a_janitor_of_few_entries_in_a_large_table_costs_little";
    in_child(name, A_WHILE, || {
        let clock = ManualClock::new();
        let told = Tally::default();
        let heard = told.clone();
        let cache: Cache<u64, u64> = Cache::builder()
            .max_capacity(16_000_000)
            .time_to_live(Duration::from_secs(10))
            .clock(clock.clone())
            .eviction_listener(move |_, _, _| {
                heard.add();
            })
            .build()
            .unwrap();
        (0..10).for_each(|key| cache.insert(key, key));
        // The first look finds out what there is.
        cache.run_pending_tasks();
        let before = processor_time();
        (0..1_000).for_each(|_| cache.run_pending_tasks());
        let took = processor_time().saturating_sub(before);
        assert!(
            took < Duration::from_millis(500),
            "{took:?} for 1,000 rounds"
        );
        // Nothing is overlooked: neither these ten, nor what was put in since.
        clock.advance(Duration::from_secs(5));
        (10..20).for_each(|key| cache.insert(key, key));
        cache.run_pending_tasks();
        clock.advance(Duration::from_secs(5));
        cache.run_pending_tasks();
        assert_eq!((told.get(), cache.len()), (10, 10));
        clock.advance(Duration::from_secs(5));
        cache.run_pending_tasks();
        assert_eq!((told.get(), cache.len()), (20, 0));
    });
}

/// Nor is a value overlooked that a failed refresh has put back.
#[test]
fn c08_a_value_that_was_put_back_expires_too() {
    let clock = ManualClock::new();
    let cache: Cache<u64, u64> = Cache::builder()
        .time_to_live(Duration::from_secs(10))
        .clock(clock.clone())
        .build()
        .unwrap();
    cache.insert(1, 10);
    clock.advance(Duration::from_secs(5));
    cache.entry(1).and_compute_with(|_| {
        cache.run_pending_tasks();
        Op::Nop
    });
    assert_eq!(cache.get(&1), Some(10));
    clock.advance(Duration::from_secs(5));
    cache.run_pending_tasks();
    assert_eq!(cache.len(), 0);
}

/// In a child of `fork`, where the janitor of the parent is no thread: closing and dropping end.
#[test]
#[cfg(target_os = "linux")]
fn h19_c09_a_child_of_a_fork_closes_and_drops_a_cache_with_a_janitor() {
    let name = "memory_found::h19_c09_a_child_of_a_fork_closes_and_drops_a_cache_with_a_janitor";
    in_child(name, A_WHILE, || {
        for closes in [true, false] {
            let ledger = Ledger::new();
            let cache: Cache<u64, Counted> = Cache::builder()
                .time_to_live(Duration::from_secs(1_000))
                .purge_interval(Duration::from_secs(1_000))
                .build()
                .unwrap();
            (0..10).for_each(|key| cache.insert(key, ledger.make(key)));
            // SAFETY: no other thread holds anything: the janitor sleeps. The child ends by `_exit`.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                let all = catch_unwind(AssertUnwindSafe(|| {
                    assert_eq!(cache.get(&1).map(|value| value.id()), Some(1));
                    if closes {
                        cache.close();
                        cache.close();
                    }
                    drop(cache);
                    assert_eq!(ledger.alive(), 0);
                }));
                // SAFETY: ends the child.
                unsafe { libc::_exit(i32::from(all.is_err())) };
            }
            let mut status = 0;
            // SAFETY: waits for our child, and writes to our number.
            let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
            assert_eq!(waited, pid);
            assert_eq!(status, 0, "closes: {closes}");
            cache.close();
            drop(cache);
            assert_eq!(ledger.alive(), 0);
        }
    });
}

/// A thread inside `with`, beside a view or not, waits for a fill that calls `quiesce`: nobody hangs.
#[test]
fn c02_quiesce_in_a_fill_waits_for_no_reader() {
    watched(|| {
        for view in [false, true] {
            let cache: Cache<u64, u64> = Cache::unbounded();
            cache.insert(1, 10);
            let (filling, reading) = (Gate::new(), Gate::new());
            thread::scope(|scope| {
                scope.spawn(|| {
                    cache.get_with(&2, || {
                        filling.open();
                        reading.pass();
                        cache.invalidate_nowait(&1);
                        cache.quiesce();
                        20
                    })
                });
                filling.pass();
                let waits = || {
                    reading.open();
                    assert_eq!(cache.get_with(&2, || 21), 20);
                };
                if view {
                    let _view = cache.pin();
                    waits();
                } else {
                    cache.with(&1, |_| waits()).unwrap();
                }
            });
        }
    });
}

/// The same of a fill that is a future.
#[test]
#[cfg(feature = "async")]
fn c02_quiesce_in_a_fill_of_a_task_waits_for_no_reader() {
    watched(|| {
        let cache: Cache<u64, u64> = Cache::unbounded();
        cache.insert(1, 10);
        let (filling, reading) = (Gate::new(), Gate::new());
        thread::scope(|scope| {
            scope.spawn(|| {
                block_on(cache.get_with_async(&2, || async {
                    filling.open();
                    reading.pass();
                    cache.invalidate_nowait(&1);
                    cache.quiesce();
                    20
                }))
            });
            filling.pass();
            cache.with(&1, |_| {
                reading.open();
                assert_eq!(cache.get_with(&2, || 21), 20);
            });
        });
    });
}

/// A sandbox that is entered late.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod sandbox {
    use super::*;

    /// Refuses `membarrier` from now on, to all threads, as seccomp does: with `EPERM`. With `shootdowns`, also to give
    /// pages of 4,096 bytes back, which is what takes its place.
    fn refuse_membarrier(shootdowns: bool) {
        const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
        const EQUALS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
        let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let number = |number: libc::c_long| u32::try_from(number).unwrap();
        let second = if shootdowns {
            number(libc::SYS_munmap)
        } else {
            u32::MAX
        };
        let mut program = [
            // The number of the call, and of `munmap` the second argument's lower half.
            step(LOAD, 0, 0, 0),
            step(EQUALS, 4, 0, number(libc::SYS_membarrier)),
            step(EQUALS, 0, 2, second),
            step(LOAD, 0, 0, 24),
            step(EQUALS, 1, 0, 4096),
            step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
            step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        ];
        let program = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_mut_ptr(),
        };
        // SAFETY: a program that is read by the kernel before the call returns, for a process of the test's own.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            let installed = libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_TSYNC,
                &raw const program,
            );
            assert_eq!(installed, 0, "{}", std::io::Error::last_os_error());
            // It is refused.
            assert_eq!(libc::syscall(libc::SYS_membarrier, 0, 0, 0), -1);
        }
    }

    fn goes_on(shootdowns: bool) {
        let cache: Cache<u64, Vec<u8>> = Cache::new(100);
        let value = || vec![1_u8; 1_024];
        // The first use, by several threads, which go on after.
        let (start, refused) = (Barrier::new(3), Barrier::new(3));
        thread::scope(|scope| {
            for thread in 0..2_u64 {
                let (cache, start, refused) = (&cache, &start, &refused);
                scope.spawn(move || {
                    cache.get_with(&thread, value);
                    start.wait();
                    refused.wait();
                    for n in 0..rounds("SANDBOX", 1_000_000) {
                        let key = (thread << 32 | n) + 10;
                        assert_eq!(cache.get_with(&key, value)[1_000], 1);
                        assert!(cache.get(&key).is_none_or(|value| value[1_000] == 1));
                    }
                });
            }
            cache.insert(1, value());
            start.wait();
            refuse_membarrier(shootdowns);
            let before = live_bytes();
            refused.wait();
            let mut most = 0;
            for n in 0..rounds("SANDBOX", 1_000_000) {
                cache.insert(n, value());
                most = most.max(live_bytes().saturating_sub(before));
            }
            assert!(most < 16 << 20, "{most} bytes more");
        });
        cache.clear();
        cache.quiesce();
        assert_eq!(cache.retired(), 0);
    }

    #[test]
    fn c09_a_sandbox_that_refuses_membarrier_late_keeps_no_garbage() {
        let name =
            "memory_found::sandbox::c09_a_sandbox_that_refuses_membarrier_late_keeps_no_garbage";
        in_child(name, A_WHILE, || goes_on(false));
    }

    /// Nor where what takes the barrier's place is none: then all threads go over to fences.
    #[test]
    fn c09_all_threads_go_over_to_fences_if_nothing_takes_the_place_of_membarrier() {
        let name = "memory_found::sandbox::c09_all_threads_go_over_to_fences_if_nothing_takes_the_place_of_membarrier";
        in_child(name, A_WHILE, || goes_on(true));
    }
}
