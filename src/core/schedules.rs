//! Exact schedules, each of which a review found to break a clause: what happens at one place in the middle of a
//! step of this thread.

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

/// Four of one: a hand sees none that it may take, and so it comes to the last look.
fn four_that_no_hand_sees() -> Cache<u64, u64> {
    let cache = four();
    cache.core.table.stall(&pin());
    cache
}

fn on_another_thread(act: impl FnOnce() + Send + 'static) {
    thread::spawn(act).join().unwrap();
}

/// At a place this thread lets another go on, until that says what it sees then.
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

/// Clause 9: all entries are used, each perhaps right before it would be taken out by the last look.
#[test]
fn c9_hits_beside_the_last_look() {
    let cache = four_that_no_hand_sees();
    let other = cache.clone();
    at("take", move || {
        on_another_thread(move || (0..4).for_each(|key| assert!(other.get(&key).is_some())));
    });
    cache.set_max_capacity(0).unwrap();
    shows_no_more_than(&cache, 0);
}

/// Clause 9: entries are put in anew, each perhaps right before it would be taken out by the last look.
#[test]
fn c9_inserts_beside_the_last_look() {
    let cache = four_that_no_hand_sees();
    for _ in 0..2 {
        let other = cache.clone();
        at("take", move || {
            on_another_thread(move || (0..4).for_each(|key| other.insert(key, key)));
        });
    }
    cache.set_max_capacity(1).unwrap();
    // The first who put in may have paid for all.
    all_done();
    assert_eq!(cache.len(), cache.iter().count());
    assert!(cache.len() <= 1, "{} of 1", cache.len());
}

/// Clause 9: a growth begins, and ends, in the middle of the last look.
#[test]
fn c9_a_growth_in_the_middle_of_the_last_look() {
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

/// Clause 9: the last look takes no more than is owed when it takes.
#[test]
fn c9_the_capacity_is_made_more_in_the_middle_of_the_last_look() {
    let cache = four_that_no_hand_sees();
    let other = cache.clone();
    at("take", move || {
        on_another_thread(move || {
            // Used, so that what was about to be taken is not what it was.
            (0..4).for_each(|key| assert!(other.get(&key).is_some()));
            other.set_max_capacity(4).unwrap();
        });
    });
    cache.set_max_capacity(1).unwrap();
    shows_no_more_than(&cache, 4);
}

/// Clause 9: what garbage may weigh is made less while another thread settles when to look at it.
#[test]
fn c9_garbage_is_bounded_by_a_capacity_that_was_made_less_beside_a_look() {
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
    // Dropped at once, or, if another test's reader holds it up, by then.
    cache.insert(1, 1);
    cache.quiesce();
    assert!(all_done());
    for n in 0..40 {
        cache.insert(1, n);
        let heft = cache.core.domain.weight_and_due();
        assert!(heft.1 <= heft.0 + heft.0 / 4 + 300, "{heft:?}");
    }
}

/// The same of the dial alone.
#[test]
fn a_dial_says_when_it_does_not_show_all() {
    let cache = four();
    let (core, pin) = (&*cache.core, pin());
    let dial = core.table.dial_of_all(&pin, core, &core.domain);
    assert!(dial.shows_all());
    core.table.stall(&pin);
    assert!(!dial.shows_all());
}

/// Clause 9: a leader has charged; the capacity is made less; the leader publishes.
#[test]
fn c9_a_fill_that_has_charged_when_the_capacity_is_made_less() {
    let cache: Cache<u64, u64> = Cache::new(4);
    let other = cache.clone();
    at("charged", move || {
        on_another_thread(move || other.set_max_capacity(0).unwrap());
    });
    assert_eq!(cache.get_with(&1, || 1), 1);
    shows_no_more_than(&cache, 0);
}

/// Clause 4: `invalidate_if` picks 5. A compute that has begun since puts 6 in right before 5 would be cut off: 6
/// has been read, and is not picked.
#[test]
fn c4_invalidate_if_leaves_what_it_has_not_picked() {
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
    let seen = lets_go_on("take_out", go, told);
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

/// Clause 1: a refresh, whose value before has expired meanwhile, is just publishing as another asks for the key.
#[test]
fn c1_a_fill_beside_a_refresh_of_the_expired_that_is_just_publishing() {
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
    // No time has passed since 6 was put in, and it was seen.
    assert_eq!((seen.get(), got), (Some(6), 6));
}

/// Row B10: a leader is descheduled between the two stores of a publish. Who does not wait takes the new value out, and
/// does not wait for it.
#[test]
fn c2_b10_what_does_not_wait_passes_a_leader_that_is_publishing() {
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
        // Up to the second store the older value is served.
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

/// Row A1: a removal that does not wait has superseded a compute, and stops before it takes what that has read. A
/// removal that waits for the compute may have that then, and one of them has it.
#[test]
fn c2_a1_what_a_superseded_compute_has_read_is_taken_once() {
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
    while cache.in_flight().iter().all(|fill| fill.waiters == 0) {
        thread::yield_now();
    }
    let removed = Rc::new(Cell::new(None));
    let noted = removed.clone();
    at("take prior", move || {
        go.send(()).unwrap();
        let superseded = CompResult::Superseded(Op::Put(6));
        assert_eq!(compute.join().unwrap(), superseded);
        noted.set(removal.join().unwrap());
    });
    let ours = cache.remove_nowait(&1);
    assert!(all_done());
    assert_eq!((ours, removed.get()), (None, Some(5)));
    assert_eq!((cache.peek(&1), cache.len()), (None, 0));
    cache.quiesce();
    assert_eq!(cache.retired(), 0);
}

/// Clause 2: a removal goes on without its wait just when the compute that it was to wait for has ended by removing, and
/// has not yet let go of what it has removed. That goes to one of them.
#[cfg(feature = "async")]
#[test]
fn c2_what_a_compute_has_removed_is_not_removed_once_more() {
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

/// Clause 2: an `invalidate_if` that may not wait has taken effect when it panics: a refresh that had begun before it, and
/// whose value it was to judge, puts in nothing that it would pick.
#[cfg(feature = "async")]
#[test]
fn c2_b1_invalidate_if_that_may_not_wait_has_taken_effect() {
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

/// Clause 6: a compute over a live value leads, a task joins, and the cache is closed: the task is woken with nothing
/// held.
#[cfg(feature = "async")]
#[test]
fn c6_who_waits_for_a_lead_that_is_refused_is_woken_without_a_pin() {
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
            // It stays joined until the test is over.
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

/// Clause 2: `invalidate_if` inside a fill that a compute waits for. It gives that compute up, which is taken over just
/// then: the value that is put back is judged.
#[test]
fn c2_invalidate_if_judges_what_a_takeover_has_put_back() {
    // Who is the last to begin to wait is told of the cycle. If that is the compute, it is not given up: again.
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
    /// What this thread does when it next hashes a [`Hooked`] key.
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

/// Clause 6. A takeover meets a growth, moves words, and so runs a `Hash`, which waits for another thread: that
/// `removes` the same key, and says how many entries are left. Returns what is there then.
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
        ON_HASH.set(Some(Box::new(move || {
            let (tell, told) = channel();
            thread::spawn(move || {
                let _ = tell.send(removes(&other) == other.len());
            });
            noted.set(told.recv_timeout(Duration::from_secs(10)).ok());
        })));
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
fn c6_invalidate_nowait_while_a_takeover_hashes() {
    for refreshes in [false, true] {
        let left = while_a_takeover_hashes(refreshes, move |cache| {
            assert_eq!(cache.invalidate_nowait(&Hooked(1)), refreshes);
            4
        });
        assert_eq!(left, None);
    }
}

#[test]
fn c6_remove_while_a_takeover_hashes() {
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
fn c6_invalidate_all_while_a_takeover_hashes() {
    for refreshes in [false, true] {
        let left = while_a_takeover_hashes(refreshes, |cache| {
            cache.invalidate_all();
            0
        });
        assert_eq!(left, None);
    }
}

#[test]
fn c6_invalidate_if_while_a_takeover_hashes() {
    for refreshes in [false, true] {
        let left = while_a_takeover_hashes(refreshes, |cache| {
            cache.invalidate_if(|key, _| *key == Hooked(1));
            4
        });
        assert_eq!(left, None);
    }
}

/// Clauses 2 and 6. A `Hash` panics once while the walk takes out what it has picked, and by then that is behind a compute
/// that is just being taken over: it is not there again when the takeover has put back what it found.
fn beside_a_takeover_and_a_hash_that_panics(walk: impl FnOnce(&Cache<Hooked, u64>)) {
    let cache: Cache<Hooked, u64> = Cache::unbounded();
    cache.insert(Hooked(1), 5);
    let (end, ended) = channel::<()>();
    let (lets_go, is_let) = channel::<()>();
    let (tells, told) = channel();
    let (one, another) = (cache.clone(), cache.clone());
    let threads = Rc::new(Cell::new(Vec::new()));
    let started = threads.clone();
    let panics = move || {
        let (begin, is_begun) = channel();
        let compute = thread::spawn(move || {
            one.entry(Hooked(1)).and_compute_with(|_| {
                begin.send(()).unwrap();
                let _ = ended.recv();
                Op::Nop
            });
        });
        is_begun.recv().unwrap();
        let takeover = thread::spawn(move || {
            at("taken", move || {
                tells.send(()).unwrap();
                let _ = is_let.recv();
            });
            assert!(another.takeover(&Hooked(1)));
        });
        told.recv().unwrap();
        started.set(vec![compute, takeover]);
        panic!("Hash");
    };
    // After that of the scan.
    ON_HASH.set(Some(Box::new(|| ON_HASH.set(Some(Box::new(panics))))));
    walk(&cache);
    drop((lets_go, end));
    let threads = threads.take();
    assert_eq!(threads.len(), 2);
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!((cache.peek(&Hooked(1)), cache.len()), (None, 0));
}

#[test]
fn c2_invalidate_all_beside_a_takeover_and_a_hash_that_panics() {
    beside_a_takeover_and_a_hash_that_panics(Cache::invalidate_all);
}

#[test]
fn c2_invalidate_if_beside_a_takeover_and_a_hash_that_panics() {
    beside_a_takeover_and_a_hash_that_panics(|cache| cache.invalidate_if(|_, _| true));
}

/// Clause 6, and soundness: who lets go of what stands behind a flight has no pin here, so it may be dropped, and its
/// memory given back (as `scripts/asan.sh` sees), before anything else is done.
#[test]
fn c6_what_is_let_go_of_without_a_pin_is_not_looked_at_again() {
    let cache: Cache<u64, u64> = Cache::unbounded();
    cache.insert(1, 5);
    cache.entry(1).and_compute_with(|_| {
        let other = cache.clone();
        at("let go", move || on_another_thread(move || other.quiesce()));
        cache.invalidate_if(|_, _| true);
        Op::Nop
    });
    assert!(all_done());
    assert_eq!((cache.peek(&1), cache.len()), (None, 0));
}

/// Clause 9: what an insert puts out of the way of a takeover no longer counts when it returns.
#[test]
fn c9_insert_while_a_takeover_hashes() {
    let left = while_a_takeover_hashes(true, |cache| {
        cache.insert(Hooked(1), 7);
        assert_eq!((cache.len(), cache.remove(&Hooked(1))), (5, Some(7)));
        4
    });
    assert_eq!(left, None);
}

/// Clause 2, B4: a stored fill that wakes whoever polls it lets nobody sleep; a deadline is looked at all the same.
#[cfg(feature = "async")]
#[test]
fn c2_b4_a_fill_that_wakes_itself_does_not_hold_up_a_guard_with_a_timeout() {
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
