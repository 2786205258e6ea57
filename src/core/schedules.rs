//! Exact schedules, each of which a review found to break a clause: another thread acts at one place in the middle of
//! a step of this thread.

use crate::interlude::{all_done, at};
use crate::reclaim::{is_pinned, pin};
use crate::{Cache, CompResult, ManualClock, Op};
use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

fn four() -> Cache<u64, u64> {
    let cache: Cache<u64, u64> = Cache::new(4);
    (0..4).for_each(|key| cache.insert(key, key));
    cache
}

/// Four entries of which a hand sees none that it may take, so that it comes to the last look.
fn four_that_no_hand_sees() -> Cache<u64, u64> {
    let cache = four();
    cache.core.table.stall(&pin());
    cache
}

fn on_another_thread(act: impl FnOnce() + Send + 'static) {
    thread::spawn(act).join().unwrap();
}

/// At a place, this thread lets another go on, until that one tells what it sees then.
fn lets_go_on(
    place: &'static str,
    go: Sender<()>,
    told: Receiver<Option<u64>>,
) -> Rc<Cell<Option<u64>>> {
    let seen = Rc::new(Cell::new(None));
    let noted = seen.clone();
    at(place, move || {
        go.send(()).unwrap();
        noted.set(told.recv().unwrap());
    });
    seen
}

fn shows_no_more_than(cache: &Cache<u64, u64>, entries: usize) {
    assert!(all_done());
    assert_eq!((cache.len(), cache.iter().count()), (entries, entries));
}

/// Clause 9: every entry is used, each perhaps right before the last look would evict it.
#[test]
fn c09_hits_beside_the_last_look() {
    let cache = four_that_no_hand_sees();
    let other = cache.clone();
    at("take", move || {
        on_another_thread(move || (0..4).for_each(|key| assert!(other.get(&key).is_some())));
    });
    cache.set_max_capacity(0).unwrap();
    shows_no_more_than(&cache, 0);
}

/// Clause 9: every entry is inserted again, each perhaps right before the last look would evict it.
#[test]
fn c09_inserts_beside_the_last_look() {
    let cache = four_that_no_hand_sees();
    for _ in 0..2 {
        let other = cache.clone();
        at("take", move || {
            on_another_thread(move || (0..4).for_each(|key| other.insert(key, key)));
        });
    }
    cache.set_max_capacity(1).unwrap();
    // The first insert may have paid for all of them.
    all_done();
    assert_eq!(cache.len(), cache.iter().count());
    assert!(cache.len() <= 1, "{} of 1", cache.len());
}

/// Clause 9: a resize begins, and ends, in the middle of the last look.
#[test]
fn c09_a_growth_in_the_middle_of_the_last_look() {
    let cache = four_that_no_hand_sees();
    let other = cache.clone();
    at("take", move || {
        let (core, pin) = (&*other.core, pin());
        core.table.stall(&pin);
        core.table.dial_of_all(&pin, core, &core.domain);
    });
    cache.set_max_capacity(1).unwrap();
    shows_no_more_than(&cache, 1);
}

/// Clause 9: the last look evicts no more than is owed when it evicts, except for the entry that it has just chosen.
#[test]
fn c09_the_capacity_is_made_more_in_the_middle_of_the_last_look() {
    let cache = four_that_no_hand_sees();
    let other = cache.clone();
    at("take", move || {
        on_another_thread(move || other.set_max_capacity(4).unwrap());
    });
    cache.set_max_capacity(1).unwrap();
    shows_no_more_than(&cache, 3);
}

/// Clause 9: the weight allowed for garbage is reduced while another thread computes when to look at it.
#[test]
fn c09_garbage_is_bounded_by_a_capacity_that_was_made_less_beside_a_look() {
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(1 << 40)
        .weigher(|_, _| 300)
        .build()
        .unwrap();
    cache.insert(1, 1);
    let other = cache.clone();
    at("settle", move || {
        on_another_thread(move || other.set_max_capacity(320).unwrap());
    });
    // The old value is dropped at once; if a reader of another test holds it up, by the end of `quiesce`.
    cache.insert(1, 1);
    cache.quiesce();
    assert!(all_done());
    for n in 0..40 {
        cache.insert(1, n);
        let heft = cache.core.domain.weight_and_due();
        assert!(heft.1 <= heft.0 + heft.0 / 4 + 300, "{heft:?}");
    }
}

/// Tests the same for the dial alone.
#[test]
fn a_dial_says_when_it_does_not_show_all() {
    let cache = four();
    let (core, pin) = (&*cache.core, pin());
    let dial = core.table.dial_of_all(&pin, core, &core.domain);
    assert!(dial.shows_all());
    core.table.stall(&pin);
    assert!(!dial.shows_all());
}

/// Clause 9: a leader has charged its weight; the capacity is reduced; the leader publishes.
#[test]
fn c09_a_fill_that_has_charged_when_the_capacity_is_made_less() {
    let cache: Cache<u64, u64> = Cache::new(4);
    let other = cache.clone();
    at("charged", move || {
        on_another_thread(move || other.set_max_capacity(0).unwrap());
    });
    assert_eq!(cache.get_with(&1, || 1), 1);
    shows_no_more_than(&cache, 0);
}

/// Clause 4: `invalidate_if` picks 5. A compute that has begun since puts 6 in right before 5 would be removed: the
/// predicate is shown 6 too, and does not pick it.
#[test]
fn c04_invalidate_if_leaves_what_it_has_not_picked() {
    let cache: Cache<u64, u64> = Cache::unbounded();
    cache.insert(1, 5);
    let (go, may_go) = channel::<()>();
    let (tell, told) = channel();
    let (say, has_begun) = channel();
    let other = cache.clone();
    let mut compute = Some(move || {
        thread::spawn(move || {
            other.entry(1).and_compute_with(|_| {
                say.send(()).unwrap();
                may_go.recv().unwrap();
                Op::Put(6)
            });
            tell.send(other.peek(&1)).unwrap();
        });
        has_begun.recv().unwrap();
    });
    let seen = lets_go_on("picked", go, told);
    let mut judged = Vec::new();
    cache.invalidate_if(|_, &value| {
        if let Some(compute) = compute.take() {
            compute();
        }
        judged.push(value);
        value == 5
    });
    assert!(all_done());
    assert_eq!((seen.get(), cache.peek(&1)), (Some(6), Some(6)));
    assert_eq!(judged, [5, 6]);
}

/// Clause 1: the current value has expired, and its refresh is just publishing as another thread asks for the key.
#[test]
fn c01_a_fill_beside_a_refresh_of_the_expired_that_is_just_publishing() {
    let (clock, ttl) = (ManualClock::new(), Duration::from_secs(10));
    let cache: Cache<u64, u64> = Cache::builder()
        .time_to_live(ttl)
        .clock(clock.clone())
        .build()
        .unwrap();
    cache.insert(1, 5);
    let (come, has_come) = channel();
    let (go, may_go) = channel::<()>();
    let (tell, told) = channel();
    let other = cache.clone();
    thread::spawn(move || {
        at("publishing", move || {
            come.send(()).unwrap();
            may_go.recv().unwrap();
        });
        other.entry(1).and_compute_with(|_| {
            clock.advance(2 * ttl);
            Op::Put(6)
        });
        tell.send(other.peek(&1)).unwrap();
    });
    has_come.recv().unwrap();
    let seen = lets_go_on("judge", go, told);
    let got = cache.get_with(&1, || 7);
    assert!(all_done());
    // No time has passed since 6 was put in, and another thread has seen it.
    assert_eq!((seen.get(), got), (Some(6), 6));
}

/// Row B10: a leader is descheduled between the two stores of a publish. A removal that does not wait removes the new
/// value, and does not wait for the leader.
#[test]
fn c02_what_does_not_wait_passes_a_leader_that_is_publishing() {
    type Removes = fn(&Cache<u64, u64>);
    let ways: [Removes; 6] = [
        |cache| assert_eq!(cache.remove_nowait(&1), Some(6)),
        |cache| assert!(cache.invalidate_nowait(&1)),
        Cache::clear_nowait,
        |cache| cache.invalidate_if_nowait(|_, &value| value == 6),
        |cache| assert_eq!(cache.remove(&1), Some(6)),
        |cache| cache.invalidate_if(|_, &value| value == 6),
    ];
    for way in ways {
        let cache: Cache<u64, u64> = Cache::unbounded();
        cache.insert(1, 5);
        let (come, has_come) = channel();
        let (go, may_go) = channel::<()>();
        let other = cache.clone();
        let leader = thread::spawn(move || {
            at("publishing", move || {
                come.send(()).unwrap();
                may_go.recv().unwrap();
            });
            other.entry(1).and_compute_with(|_| Op::Put(6))
        });
        has_come.recv().unwrap();
        // Until the second store the older value is served.
        assert_eq!(cache.peek(&1), Some(5));
        let (removes, (done, is_done)) = (cache.clone(), channel());
        thread::spawn(move || {
            way(&removes);
            done.send(removes.peek(&1)).unwrap();
        });
        let left = is_done.recv_timeout(Duration::from_secs(30));
        assert_eq!(left, Ok(None), "it waits for the leader");
        go.send(()).unwrap();
        assert_eq!(leader.join().unwrap(), CompResult::ReplacedWith(6));
        assert_eq!((cache.peek(&1), cache.len()), (None, 0));
        cache.quiesce();
        assert_eq!(cache.retired(), 0);
    }
}

/// Row A1: a removal waits for a compute. One that does not wait comes after both, and stops right before it takes the
/// key out of the table; the compute ends meanwhile. The removal that waits answers with the value that the compute
/// leaves.
#[test]
fn c02_what_an_awaited_compute_leaves_is_taken_once() {
    let cache: Cache<u64, u64> = Cache::unbounded();
    cache.insert(1, 5);
    let (begun, has_begun) = channel();
    let (go, may_go) = channel::<()>();
    let computes = cache.clone();
    let compute = thread::spawn(move || {
        computes.entry(1).and_compute_with(|_| {
            begun.send(()).unwrap();
            may_go.recv().unwrap();
            Op::Put(6)
        })
    });
    has_begun.recv().unwrap();
    let removes = cache.clone();
    let removal = thread::spawn(move || removes.remove(&1));
    while cache.in_flight().iter().all(|fill| !fill.fenced_off) {
        thread::yield_now();
    }
    let removed = Rc::new(Cell::new(None));
    let noted = removed.clone();
    at("hide", move || {
        go.send(()).unwrap();
        assert_eq!(compute.join().unwrap(), CompResult::ReplacedWith(6));
        noted.set(removal.join().unwrap());
    });
    let ours = cache.remove_nowait(&1);
    assert!(all_done());
    assert_eq!((ours, removed.get()), (None, Some(6)));
    assert_eq!((cache.peek(&1), cache.len()), (None, 0));
    cache.quiesce();
    assert_eq!(cache.retired(), 0);
}

/// Clause 2: a removal gives up its wait just when the compute that it waits for has ended by removing, and has not
/// yet released the value. One of the two answers with that value.
#[cfg(feature = "async")]
#[test]
fn c02_what_a_compute_has_removed_is_not_removed_once_more() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Waker};

    type Removed = Arc<Mutex<Option<Option<u64>>>>;

    /// Removes while its thread unwinds inside a poll: does not wait there.
    struct RemovesInDrop(Cache<u64, u64>, Removed);

    impl Drop for RemovesInDrop {
        fn drop(&mut self) {
            *self.1.lock().unwrap() = Some(self.0.remove(&1));
        }
    }

    let cache: Cache<u64, u64> = Cache::unbounded();
    cache.insert(1, 5);
    let (begun, has_begun) = channel();
    let (go, may_go) = channel::<()>();
    let (come, has_come) = channel::<()>();
    let (end, may_end) = channel::<()>();
    let computes = cache.clone();
    let compute = thread::spawn(move || {
        at("let go", move || {
            come.send(()).unwrap();
            may_end.recv().unwrap();
        });
        computes.entry(1).and_compute_with(|_| {
            begun.send(()).unwrap();
            may_go.recv().unwrap();
            Op::Remove
        })
    });
    has_begun.recv().unwrap();
    at("give up", move || {
        go.send(()).unwrap();
        has_come.recv().unwrap();
    });
    let removed = Removed::default();
    let local = RemovesInDrop(cache.clone(), removed.clone());
    let mut fill = std::pin::pin!(cache.get_with_async(&2, || async move {
        let _local = local;
        panic!("so that what it holds is dropped")
    }));
    let poll = || {
        fill.as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    };
    assert!(catch_unwind(AssertUnwindSafe(poll)).is_err());
    assert!(all_done());
    end.send(()).unwrap();
    let ours = removed.lock().unwrap().take().expect("it has been called");
    let computed = compute.join().unwrap();
    assert_eq!((computed, ours), (CompResult::Removed(5), None));
    assert_eq!((cache.peek(&1), cache.len()), (None, 0));
    cache.quiesce();
    assert_eq!(cache.retired(), 0);
}

/// Clause 2: an `invalidate_if` that may not wait has taken effect when it panics. A refresh had begun before it, and
/// it was to judge the value of that refresh: that value is not put in if the predicate would pick it.
#[cfg(feature = "async")]
#[test]
fn c02_invalidate_if_that_may_not_wait_has_taken_effect() {
    use crate::blocking::{in_poll, verbs::REFRESH};
    use crate::core::Aim;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    let cache: Cache<u64, u64> = Cache::unbounded();
    cache.insert(1, 5);
    let (begun, has_begun) = channel();
    let (go, may_go) = channel::<()>();
    let refreshes = cache.clone();
    let refresh = thread::spawn(move || {
        let fill = |_: &u64| {
            begun.send(()).unwrap();
            may_go.recv().unwrap();
            Ok::<_, ()>(6)
        };
        refreshes.fetch(&1, Aim::Refresh, fill, |&value| value, &REFRESH)
    });
    has_begun.recv().unwrap();
    let removal = catch_unwind(AssertUnwindSafe(|| {
        let _inside = in_poll();
        cache.invalidate_if(|_, &value| value == 6);
    }));
    assert!(removal.is_err(), "it waits inside a poll");
    go.send(()).unwrap();
    assert_eq!(refresh.join().unwrap(), Ok(6));
    assert_eq!((cache.peek(&1), cache.len()), (Some(5), 1));
}

/// Clause 6: a compute over a live value leads, a task joins, and the cache is closed. The task is woken while the
/// closing thread holds no lock and no pin.
#[cfg(feature = "async")]
#[test]
fn c06_who_waits_for_a_lead_that_is_refused_is_woken_without_a_pin() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Wake, Waker};

    struct Wakes(Mutex<Vec<bool>>);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.lock().unwrap().push(is_pinned());
        }
    }

    let cache: Cache<u64, u64> = Cache::new(4);
    cache.insert(1, 1);
    let log = Arc::new(Wakes(Mutex::default()));
    let waker = Waker::from(log.clone());
    let other = cache.clone();
    let (end, ended) = channel::<()>();
    at("admit", move || {
        let (join, joined) = channel();
        let (task, closer) = (other.clone(), other.clone());
        thread::spawn(move || {
            let compute = task.entry(1).and_compute_with_async(|_| async { Op::Nop });
            let mut compute = Box::pin(compute);
            assert!(
                compute
                    .as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
            );
            join.send(()).unwrap();
            // The task stays joined until the test is over.
            assert!(ended.recv().is_err());
        });
        joined.recv().unwrap();
        thread::spawn(move || closer.close());
        while !other.is_closed() {
            thread::yield_now();
        }
    });
    let refused = catch_unwind(AssertUnwindSafe(|| {
        cache.entry(1).and_compute_with(|_| Op::Put(2))
    }));
    assert!(refused.is_err());
    drop(end);
    assert_eq!(*log.0.lock().unwrap(), [false]);
}

/// Clause 2: `invalidate_if` inside a fill that a compute waits for. It gives that compute up, which is abandoned just
/// then: the current value is judged.
#[test]
fn c02_invalidate_if_judges_what_a_takeover_has_put_back() {
    // The last waiter to arrive is told of the cycle. If that is the compute, it is not given up: try again.
    let reached = (0..100).any(|_| {
        let cache: Cache<u64, u64> = Cache::unbounded();
        cache.insert(2, 5);
        let (other, left) = (cache.clone(), Rc::new(Cell::new(None)));
        let noted = left.clone();
        cache.get_with(&1, move || {
            let (say, has_begun) = channel();
            let computes = other.clone();
            thread::spawn(move || {
                computes.entry(2).and_compute_with(|_| {
                    say.send(()).unwrap();
                    let one = computes.try_get_with(&1, || Err::<u64, ()>(()));
                    one.map_or(Op::Nop, Op::Put)
                });
            });
            has_begun.recv().unwrap();
            while other.in_flight().iter().all(|fill| fill.waiters == 0) {
                thread::yield_now();
            }
            (0..100).for_each(|_| thread::yield_now());
            let taker = other.clone();
            at("give up", move || {
                on_another_thread(move || assert!(taker.takeover(&2)));
            });
            other.invalidate_if(|_, &value| value == 5);
            noted.set(other.peek(&2));
            1
        });
        assert_eq!(left.get(), None);
        all_done()
    });
    assert!(reached);
}

thread_local! {
    /// The step of this thread when it next hashes a [`Hooked`] key.
    static ON_HASH: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) };
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Hooked(u64);

impl Hash for Hooked {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if let Some(act) = ON_HASH.take() {
            act();
        }
        state.write_u64(self.0);
    }
}

/// Clause 6. A takeover meets a resize, moves words, and so runs a `Hash`, which waits for another thread. That thread
/// `removes` the same key, and tells how many entries are left. Returns the entries that are there then.
fn while_a_takeover_hashes(
    refreshes: bool,
    removes: impl FnOnce(&Cache<Hooked, u64>) -> usize + Send + 'static,
) -> Option<u64> {
    let cache: Cache<Hooked, u64> = Cache::unbounded();
    (2..6).for_each(|key| cache.insert(Hooked(key), key));
    if refreshes {
        cache.insert(Hooked(1), 0);
    }
    let (runs, running) = channel();
    let (end, ended) = channel::<()>();
    let other = cache.clone();
    let fills = thread::spawn(move || {
        other.entry(Hooked(1)).and_compute_with(|_| {
            runs.send(()).unwrap();
            let _ = ended.recv();
            Op::Put(1)
        });
    });
    running.recv().unwrap();
    let (there, timely) = (cache.clone(), Rc::new(Cell::new(None)));
    let noted = timely.clone();
    at("taken", move || {
        let other = there.clone();
        there.core.table.stall(&pin());
        let remove = move || {
            let (tell, told) = channel();
            thread::spawn(move || {
                let _ = tell.send(removes(&other) == other.len());
            });
            noted.set(told.recv_timeout(Duration::from_secs(10)).ok());
        };
        if refreshes {
            // The current value is in its place, so no search runs.
            remove();
        } else {
            ON_HASH.set(Some(Box::new(remove)));
        }
    });
    assert!(cache.takeover(&Hooked(1)));
    assert!(all_done());
    assert_eq!(
        timely.get(),
        Some(true),
        "it waits for a `Hash`, or has not let go"
    );
    let left = cache.peek(&Hooked(1));
    drop(end);
    fills.join().unwrap();
    assert_eq!(cache.peek(&Hooked(1)), left);
    left
}

#[test]
fn c06_invalidate_nowait_while_a_takeover_hashes() {
    for refreshes in [false, true] {
        let left = while_a_takeover_hashes(refreshes, move |cache| {
            assert_eq!(cache.invalidate_nowait(&Hooked(1)), refreshes);
            4
        });
        assert_eq!(left, None);
    }
}

#[test]
fn c06_remove_while_a_takeover_hashes() {
    for refreshes in [false, true] {
        let left = while_a_takeover_hashes(refreshes, move |cache| {
            assert_eq!(cache.remove(&Hooked(1)), refreshes.then_some(0));
            assert_eq!(cache.remove(&Hooked(1)), None);
            4
        });
        assert_eq!(left, None);
    }
}

#[test]
fn c06_invalidate_all_while_a_takeover_hashes() {
    for refreshes in [false, true] {
        let left = while_a_takeover_hashes(refreshes, |cache| {
            cache.invalidate_all();
            0
        });
        assert_eq!(left, None);
    }
}

#[test]
fn c06_invalidate_if_while_a_takeover_hashes() {
    for refreshes in [false, true] {
        let left = while_a_takeover_hashes(refreshes, |cache| {
            cache.invalidate_if(|key, _| *key == Hooked(1));
            4
        });
        assert_eq!(left, None);
    }
}

/// Clauses 2 and 6. A walk has removed a value. Before it takes the node out a resize has moved its word, and a `Hash`
/// panics as the walk looks for it.
fn beside_a_growth_and_a_hash_that_panics(walk: impl FnOnce(&Cache<Hooked, u64>)) {
    let cache: Cache<Hooked, u64> = Cache::unbounded();
    cache.insert(Hooked(1), 5);
    let other = cache.clone();
    at("unlink", move || {
        let (core, pin) = (&*other.core, pin());
        core.table.stall(&pin);
        core.table.dial_of_all(&pin, core, &core.domain);
        ON_HASH.set(Some(Box::new(|| panic!("Hash"))));
    });
    walk(&cache);
    assert!(all_done());
    assert!(ON_HASH.take().is_none());
    assert_eq!((cache.peek(&Hooked(1)), cache.len()), (None, 0));
    assert_eq!(cache.get_with(&Hooked(1), || 6), 6);
    assert_eq!((cache.remove(&Hooked(1)), cache.len()), (Some(6), 0));
    cache.quiesce();
    assert_eq!(cache.retired(), 0);
}

#[test]
fn c02_invalidate_all_beside_a_growth_and_a_hash_that_panics() {
    beside_a_growth_and_a_hash_that_panics(Cache::invalidate_all);
}

#[test]
fn c02_invalidate_if_beside_a_growth_and_a_hash_that_panics() {
    beside_a_growth_and_a_hash_that_panics(|cache| cache.invalidate_if(|_, _| true));
}

/// Clause 9: an entry that an insert takes out of the way of a takeover no longer counts when the insert returns.
#[test]
fn c09_insert_while_a_takeover_hashes() {
    let left = while_a_takeover_hashes(true, |cache| {
        cache.insert(Hooked(1), 7);
        assert_eq!((cache.len(), cache.remove(&Hooked(1))), (5, Some(7)));
        4
    });
    assert_eq!(left, None);
}

/// Clause 2, B4: a stored fill that wakes its poller lets no caller sleep; a deadline is checked all the same.
#[cfg(feature = "async")]
#[test]
fn c02_a_fill_that_wakes_itself_does_not_hold_up_a_guard_with_a_timeout() {
    use crate::{AtomicCache, GuardResult};
    use std::future::poll_fn;
    use std::task::{Context, Poll, Waker};

    let (end, ended) = channel();
    thread::spawn(move || {
        let fill = |_: u64| {
            poll_fn(|cx| {
                cx.waker().wake_by_ref();
                Poll::<u64>::Pending
            })
        };
        let cache = AtomicCache::new_async(fill, None);
        let mut task = Box::pin(cache.get_async(&1));
        let mut context = Context::from_waker(Waker::noop());
        assert!(task.as_mut().poll(&mut context).is_pending());
        let timeout = Some(Duration::from_millis(20));
        let came = cache.cache.get_value_or_guard(&1, timeout);
        let timed_out = matches!(came, GuardResult::Timeout);
        end.send(timed_out).unwrap();
    });
    assert!(ended.recv_timeout(Duration::from_secs(30)).expect("hangs"));
}

/// Clause 6/9, use after free: a removal that does not wait has detached a refresh, and has not yet taken it off its
/// value, which is still in the table. The leader does not take it off, ends, and retires the successor. A thread that pins only then
/// finds the successor by the value: its pin keeps it.
#[test]
fn c06_a_successor_is_not_dropped_under_a_reader_that_has_found_it() {
    use crate::blocking::verbs::REFRESH;
    use crate::core::Aim;
    use std::sync::Arc;
    use std::time::Instant;

    let cache: Cache<u64, Arc<u64>> = Cache::unbounded();
    cache.insert(1, Arc::new(5));
    let (begun, has_begun) = channel();
    let (go, may_go) = channel::<()>();
    let refreshes = cache.clone();
    let newer = Arc::new(6);
    let dropped = Arc::downgrade(&newer);
    let leader = thread::spawn(move || {
        let fill = move |_: &u64| {
            begun.send(()).unwrap();
            may_go.recv().unwrap();
            Ok::<_, ()>(newer)
        };
        let _ = refreshes.fetch(&1, Aim::Refresh, fill, |_| (), &REFRESH);
        refreshes.core.tidy_all();
    });
    has_begun.recv().unwrap();
    let (stop, has_stopped) = channel();
    let (unhook, may_unhook) = channel::<()>();
    let removes = cache.clone();
    let remover = thread::spawn(move || {
        at("unhook", move || {
            stop.send(()).unwrap();
            may_unhook.recv().unwrap();
        });
        assert!(removes.invalidate_nowait(&1));
    });
    has_stopped.recv().unwrap();
    go.send(()).unwrap();
    leader.join().unwrap();
    let early = Rc::new(Cell::new(false));
    let (noted, other) = (early.clone(), cache.clone());
    // Here we are pinned, and have the successor's address.
    at("judge", move || {
        assert!(is_pinned());
        assert!(dropped.upgrade().is_some());
        unhook.send(()).unwrap();
        remover.join().unwrap();
        let until = Instant::now() + Duration::from_secs(3);
        while dropped.upgrade().is_some() && Instant::now() < until {
            let other = other.clone();
            on_another_thread(move || other.core.tidy_all());
        }
        noted.set(dropped.upgrade().is_none());
    });
    cache.entry(1).and_compute_with(|_| Op::Nop);
    assert!(all_done());
    assert!(!early.get(), "the successor was dropped under our pin");
}

/// Clause 9: a removal finds a committed successor, and is descheduled; the leader puts that in its place and goes.
/// The removal then removes it, and takes its node out of the table.
#[test]
fn c09_a_removed_successor_does_not_stay_in_the_table() {
    use std::sync::Arc;
    let cache: Cache<u64, Arc<u64>> = Cache::unbounded();
    cache.insert(1, Arc::new(5));
    let (come, has_come) = channel();
    let (go, may_go) = channel::<()>();
    let other = cache.clone();
    let newer = Arc::new(6);
    let dropped = Arc::downgrade(&newer);
    let leader = thread::spawn(move || {
        at("publishing", move || {
            come.send(()).unwrap();
            may_go.recv().unwrap();
        });
        other.entry(1).and_compute_with(|_| Op::Put(newer));
    });
    has_come.recv().unwrap();
    at("committed", move || {
        go.send(()).unwrap();
        leader.join().unwrap();
    });
    assert_eq!(cache.remove(&1).as_deref(), Some(&6));
    assert!(all_done());
    cache.quiesce();
    assert_eq!((cache.len(), cache.retired()), (0, 0));
    // Nor by a walk that looks for dead ones.
    cache.run_pending_tasks();
    cache.invalidate_all();
    cache.quiesce();
    assert!(
        dropped.upgrade().is_none(),
        "removed, and still in the table"
    );
}

/// Clause 2: `invalidate_if_nowait` never waits; not for a leader that is descheduled between two steps either.
fn passes_a_leader_that_stands(
    place: &'static str,
    picks: bool,
    leads: impl FnOnce(&Cache<u64, u64>) + Send + 'static,
) {
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(100)
        .weigher(|_, &value| value)
        .build()
        .unwrap();
    cache.insert(1, 5);
    let (come, has_come) = channel();
    let (go, may_go) = channel::<()>();
    let other = cache.clone();
    let leader = thread::spawn(move || {
        at(place, move || {
            come.send(()).unwrap();
            may_go.recv().unwrap();
        });
        leads(&other);
    });
    has_come.recv().unwrap();
    let (removes, (done, is_done)) = (cache.clone(), channel());
    let remover = thread::spawn(move || {
        let mut asked = 0_u64;
        removes.invalidate_if_nowait(|_, _| {
            asked += 1;
            picks
        });
        let _ = done.send(());
        asked
    });
    let passed = is_done.recv_timeout(Duration::from_secs(3)).is_ok();
    go.send(()).unwrap();
    leader.join().unwrap();
    let asked = remover.join().unwrap();
    assert!(
        passed,
        "it waits for the leader; the predicate was asked {asked} times"
    );
    assert!(asked < 10, "{asked}");
}

#[test]
fn c02_invalidate_if_nowait_beside_a_compute_that_removes() {
    passes_a_leader_that_stands("let go", true, |cache| {
        cache.entry(1).and_compute_with(|_| Op::Remove);
    });
}

#[test]
fn c02_invalidate_if_nowait_beside_a_compute_that_is_too_heavy() {
    passes_a_leader_that_stands("publishing", true, |cache| {
        cache.entry(1).and_compute_with(|_| Op::Put(1000));
    });
}

#[test]
fn c02_invalidate_if_nowait_beside_a_refresh_that_has_failed() {
    passes_a_leader_that_stands("let go", false, |cache| {
        use crate::blocking::verbs::REFRESH;
        use crate::core::Aim;
        let _ = cache.fetch(&1, Aim::Refresh, |_| Err::<u64, ()>(()), |_| (), &REFRESH);
    });
}

/// Clauses 6 and 9: a growth lets go of a first fill whose `Hash` panics; it ends just between the growth's look at
/// its state and the loss of its word.
#[test]
fn c09_a_first_fill_that_is_lost_as_it_ends() {
    let cache: Cache<Hooked, u64> = Cache::unbounded();
    let (begun, has_begun) = channel();
    let (go, may_go) = channel::<()>();
    let other = cache.clone();
    let leader = thread::spawn(move || {
        other.get_with(&Hooked(1), || {
            begun.send(()).unwrap();
            may_go.recv().unwrap();
            6
        })
    });
    has_begun.recv().unwrap();
    at("displace", move || {
        go.send(()).unwrap();
        assert_eq!(leader.join().unwrap(), 6);
    });
    {
        let (core, pin) = (&*cache.core, pin());
        core.table.stall(&pin);
        ON_HASH.set(Some(Box::new(|| panic!("Hash"))));
        core.table.dial_of_all(&pin, core, &core.domain);
    }
    assert!(all_done());
    assert!(ON_HASH.take().is_none());
    assert_eq!(
        (cache.peek(&Hooked(1)), cache.len(), cache.iter().count()),
        (None, 0, 0)
    );
}

/// Clause 6. As above, of a caller that wants the value.
#[test]
fn c06_get_while_a_takeover_hashes() {
    for refreshes in [false, true] {
        while_a_takeover_hashes(refreshes, move |cache| {
            assert_eq!(
                cache.get_with(&Hooked(1), || 7),
                if refreshes { 0 } else { 7 }
            );
            5
        });
    }
}
