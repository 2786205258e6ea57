//! Slot, flight, waiters and the core above them, through the cache's own methods.
//!
//! "Cold" models begin with an empty cache, and the claim in the table is part of them. In the
//! others a fill is under way when the threads start. That leaves out the race for the lead, which
//! the cold models have, and buys more preemptions.

use super::harness::{Actor, Explore, Fills, TestCache, Token, builder, cache, models, start};
use crate::blocking::verbs::REFRESH;
use crate::core::Aim;
use crate::flight::{Flight, Look, Outcome, Ticket, Verdict, WaitFor};
use crate::guard::{GuardResult, PlaceholderGuard};
use crate::slot::{Publish, Slot};
use crate::sync::{Parker, UnsafeCell};
use crate::time::{Deadline, ManualClock};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

type Guard<'c> = PlaceholderGuard<'c, Token, Token, super::harness::TestHasher>;

fn key() -> Token {
    Token::new(1)
}

/// A thread that does `act` with the cache.
fn actor(cache: &TestCache, act: impl FnOnce(&TestCache) + 'static) -> Actor {
    let cache = cache.clone();
    Box::new(move || act(&cache))
}

fn lead(cache: &TestCache) -> Guard<'_> {
    match cache.get_value_or_guard(&key(), None) {
        GuardResult::Guard(guard) => guard,
        other => panic!("nobody else is there: {other:?}"),
    }
}

/// `get_with`, with a fill that returns 100 and more.
fn get(cache: &TestCache, fills: &Fills) -> u64 {
    cache
        .get_with(&key(), || Token::new(100 + fills.fill()))
        .number()
}

/// `try_get_with`; the first fill of all fails.
fn try_get(cache: &TestCache, fills: &Fills) -> Result<u64, u64> {
    let fill = || match fills.fill() {
        0 => Err(0_u64),
        n => Ok(Token::new(100 + n)),
    };
    match cache.try_get_with(&key(), fill) {
        Ok(value) => Ok(value.number()),
        Err(crate::TryGetError::Fill(error)) => Err(error),
        Err(other) => panic!("{other:?}"),
    }
}

/// At rest: the cache holds `expected` and nothing else.
fn assert_holds(cache: &TestCache, expected: Option<u64>) {
    assert_eq!(cache.peek(&key()).map(|value| value.number()), expected);
    assert_eq!(cache.len(), usize::from(expected.is_some()));
    assert_eq!(cache.retired(), 0);
}

/// Takes the entry out; then nothing is left. (The harness counts keys and values.)
fn empty(cache: &TestCache) {
    cache.invalidate(&key());
    assert_holds(cache, None);
}

// ---- L1 ----------------------------------------------------------------------------------------

fn one_fill(others: usize) {
    let cache = cache();
    let fills = Fills::new();
    let other = || {
        let fills = fills.clone();
        actor(&cache, move |cache| assert_eq!(get(cache, &fills), 100))
    };
    let us = {
        let fills = fills.clone();
        move |cache: &TestCache| assert_eq!(get(cache, &fills), 100)
    };
    if others == 1 {
        let others = start([other()]);
        us(&cache);
        others.join();
    } else {
        let others = start([other(), other()]);
        us(&cache);
        others.join();
    }
    assert_eq!(fills.count(), 1);
    assert_holds(&cache, Some(100));
    empty(&cache);
}

// ---- L2 ----------------------------------------------------------------------------------------

fn first_fill_fails(others: usize) {
    let cache = cache();
    let fills = Fills::new();
    let failed = Rc::new(Cell::new(0));
    let act = {
        let (fills, failed) = (fills.clone(), failed.clone());
        move |cache: &TestCache| match try_get(cache, &fills) {
            Ok(value) => assert_eq!(value, 101),
            Err(error) => {
                assert_eq!(error, 0);
                failed.set(failed.get() + 1);
            }
        }
    };
    let other = || actor(&cache, act.clone());
    if others == 1 {
        let others = start([other()]);
        act(&cache);
        others.join();
    } else {
        let others = start([other(), other()]);
        act(&cache);
        others.join();
    }
    // All waiters of its flight get the error; later callers share one more fill.
    let all_failed = failed.get() == others + 1;
    assert!(failed.get() >= 1);
    if others == 1 {
        assert_eq!(all_failed, cache.stats().joined > 0);
    }
    assert_eq!(fills.count(), if all_failed { 1 } else { 2 });
    assert_holds(&cache, if all_failed { None } else { Some(101) });
    empty(&cache);
}

// ---- L6 ----------------------------------------------------------------------------------------

/// A task's waker, made by hand: it comes back to the flight whenever it can.
struct ComesBack {
    flight: Arc<Flight>,
    wakes: Arc<Parker>,
}

impl ComesBack {
    fn waker(flight: &Arc<Flight>, wakes: &Arc<Parker>) -> Waker {
        let (flight, wakes) = (flight.clone(), wakes.clone());
        Waker::from(Arc::new(Self { flight, wakes }))
    }
}

impl Wake for ComesBack {
    fn wake(self: Arc<Self>) {
        let ticket = self.flight.enlist(WaitFor::End, 9);
        let _ = verdict(&self.flight, &ticket);
        assert!(!self.flight.delist(&ticket).had_baton);
        self.wakes.wake_by_ref();
    }
}

impl Drop for ComesBack {
    fn drop(&mut self) {
        self.flight.blocks(WaitFor::Value);
    }
}

/// Returns the result of a waiter that is not on its way to sleep, if it is there.
fn verdict(flight: &Flight, ticket: &Ticket) -> Option<Verdict> {
    match flight.look(ticket, None, false) {
        Look::Verdict(verdict) => Some(verdict),
        Look::GiveWaker | Look::Sleep => None,
        Look::Drive(_) | Look::ComeBack => panic!("nothing is kept here"),
    }
}

/// One poll of a wait: returns the result, or `waker` will be woken.
fn poll(flight: &Flight, ticket: &Ticket, waker: &Waker) -> Option<Verdict> {
    let mut ungiven = Some(waker);
    loop {
        match flight.look(ticket, ungiven, false) {
            Look::Verdict(verdict) => return Some(verdict),
            Look::GiveWaker => {
                flight.give(ticket, waker.clone());
                ungiven = None;
            }
            Look::Sleep => return None,
            Look::Drive(_) | Look::ComeBack => panic!("nothing is kept here"),
        }
    }
}

/// Polls like a future that is polled twice, each time with another waker, and then after each
/// wake.
fn poll_twice(flight: &Arc<Flight>) -> Verdict {
    let parkers = [Parker::new(), Parker::new()];
    let wakers = parkers
        .each_ref()
        .map(|parker| ComesBack::waker(flight, parker));
    let ticket = flight.enlist(WaitFor::Value, 2);
    let mut verdict = poll(flight, &ticket, &wakers[0]);
    while verdict.is_none() {
        verdict = poll(flight, &ticket, &wakers[1]);
        if verdict.is_none() {
            parkers[1].park();
        }
    }
    let _ = flight.delist(&ticket);
    verdict.expect("looped until there is one")
}

// ---- refresh, cycles ---------------------------------------------------------------------------

/// Asks for a newer value: `new`, if the fill does not fail.
fn refresh(cache: &TestCache, new: Option<u64>) -> Option<u64> {
    let fill = |_: &Token| new.map(Token::new).ok_or(());
    let read = |value: &Token| value.number();
    cache.fetch(&key(), Aim::Refresh, fill, read, &REFRESH).ok()
}

/// Fills `one` with a fill that asks for `other`.
fn ask_each_other(cache: &TestCache, one: u64, other: u64) {
    let _ = cache.try_get_with(&Token::new(one), || {
        cache
            .try_get_with(&Token::new(other), || Ok::<_, ()>(Token::new(other)))
            .map_err(|_| ())
    });
}

/// Starts a thread that runs `act` while a refresh runs. The fill of the refresh gives 6, and has
/// run `first` before. Returns the value that is seen after the refresh, before that thread has
/// ended.
fn refresh_beside(
    cache: &TestCache,
    first: &dyn Fn(),
    act: impl FnOnce(&TestCache) + 'static,
) -> Option<u64> {
    let (act, others) = (Cell::new(Some(act)), Cell::new(None));
    let fill = |_: &Token| {
        first();
        let act = act.take().expect("one fill");
        others.set(Some(start([actor(cache, act)])));
        Ok::<_, ()>(Token::new(6))
    };
    assert_eq!(
        cache.fetch(&key(), Aim::Refresh, fill, Token::number, &REFRESH),
        Ok(6)
    );
    let seen = cache.peek(&key()).map(|value| value.number());
    others.into_inner().expect("the fill has run").join();
    seen
}

models! {
    /// L1, clause 1, cold: two callers, one fill, one value; it can be read by both.
    l01_one_fill_for_two: Explore::AtMost(5) => || one_fill(1);

    /// L1 with three.
    l01_one_fill_for_three: Explore::AtMost(1) => || one_fill(2);

    /// L2, clause 4, cold: all waiters that joined get the first fill's error, once. A later caller
    /// fills again, and its fill comes after the first (`Fills`).
    l02_an_error_is_shared_and_not_kept_by_two: Explore::AtMost(4) => || first_fill_fails(1);

    /// L2 with three.
    l02_an_error_is_shared_and_not_kept_by_three: Explore::AtMost(1) => || first_fill_fails(2);


    /// L3, clause 4: a leader is lost while one waiter waits for it, or is about to. The waiter
    /// leads; afterwards the key is as good as ever.
    l03_a_waiter_takes_a_lost_lead: Explore::AtMost(5) => || {
        let cache = cache();
        let fills = Fills::new();
        let guard = lead(&cache);
        let waiter = fills.clone();
        let others = start([actor(&cache, move |cache| assert_eq!(get(cache, &waiter), 100))]);
        drop(guard);
        others.join();
        assert_eq!(fills.count(), 1);
        assert_holds(&cache, Some(100));
        empty(&cache);
        assert_eq!(get(&cache, &fills), 101);
    };

    /// L3 with two waiters: one of them leads, the other gets its value.
    l03_one_of_two_waiters_takes_a_lost_lead: Explore::Long(2) => || {
        let cache = cache();
        let fills = Fills::new();
        let guard = lead(&cache);
        let waiter = || {
            let fills = fills.clone();
            actor(&cache, move |cache| assert_eq!(get(cache, &fills), 100))
        };
        let others = start([waiter(), waiter()]);
        drop(guard);
        others.join();
        assert_eq!(fills.count(), 1);
        assert_holds(&cache, Some(100));
        empty(&cache);
    };

    /// L4, clause 4 (no caller hangs): a publisher looks for waiters while one enlists. That the
    /// model ends is the proof: a lost wake-up is a deadlock.
    l04_no_lost_wake_up_of_one: Explore::AtMost(5) => || {
        let cache = cache();
        let fills = Fills::new();
        let guard = lead(&cache);
        let waiter = fills.clone();
        let others = start([actor(&cache, move |cache| assert_eq!(get(cache, &waiter), 7))]);
        assert_eq!(guard.insert(Token::new(7)).number(), 7);
        others.join();
        assert_eq!(fills.count(), 0);
        assert_holds(&cache, Some(7));
        empty(&cache);
    };

    /// L4 with two waiters that enlist.
    l04_no_lost_wake_up: Explore::AtMost(2) => || {
        let cache = cache();
        let fills = Fills::new();
        let guard = lead(&cache);
        let waiter = || {
            let fills = fills.clone();
            actor(&cache, move |cache| assert_eq!(get(cache, &fills), 7))
        };
        let others = start([waiter(), waiter()]);
        assert_eq!(guard.insert(Token::new(7)).number(), 7);
        others.join();
        assert_eq!(fills.count(), 0);
        assert_holds(&cache, Some(7));
        empty(&cache);
    };

    /// L5: a waiter leaves while the publisher takes the list; another stays. All is freed once.
    l05_a_waiter_leaves_while_its_flight_ends: Explore::AtMost(2) => || {
        let cache = cache();
        let fills = Fills::new();
        let guard = lead(&cache);
        let leaver = actor(&cache, |cache| {
            match cache.get_value_or_guard(&key(), Some(Duration::from_secs(1))) {
                GuardResult::Value(value) => assert_eq!(value.number(), 7),
                GuardResult::Timeout => {}
                other => panic!("{other:?}"),
            }
        });
        let stays = fills.clone();
        let waiter = actor(&cache, move |cache| assert_eq!(get(cache, &stays), 7));
        let others = start([leaver, waiter]);
        guard.insert(Token::new(7));
        others.join();
        assert_eq!(fills.count(), 0);
        assert_holds(&cache, Some(7));
        empty(&cache);
    };

    /// L5: the lead is lost, and handed to a waiter that is just leaving. The waiter passes it on
    /// to the one that stays.
    l05_a_leaver_passes_the_lead_on: Explore::AtMost(2) => || {
        let cache = cache();
        let fills = Fills::new();
        let guard = lead(&cache);
        let leaver = actor(&cache, |cache| {
            match cache.get_value_or_guard(&key(), Some(Duration::from_secs(1))) {
                GuardResult::Value(value) => assert_eq!(value.number(), 100),
                GuardResult::Timeout => {}
                GuardResult::Guard(guard) => drop(guard),
                other => panic!("{other:?}"),
            }
        });
        let stays = fills.clone();
        let waiter = actor(&cache, move |cache| assert_eq!(get(cache, &stays), 100));
        let others = start([leaver, waiter]);
        drop(guard);
        others.join();
        assert_eq!(fills.count(), 1);
        assert_holds(&cache, Some(100));
        empty(&cache);
    };

    /// L6, the flight's half: a task comes back with another waker while its flight ends. It sees
    /// the outcome or its last waker is woken. Wakers that come back to the flight, when they are
    /// woken and when they are dropped, find nothing locked.
    l06_a_waker_is_swapped_while_the_flight_ends: Explore::All => || {
        let flight = Arc::new(Flight::new(0, 1));
        let leader = flight.clone();
        let others = start([Box::new(move || {
            assert!(leader.resolve(Outcome::Published).is_ok());
            leader.end();
            leader.leave();
        }) as Actor]);
        let verdict = poll_twice(&flight);
        assert!(matches!(verdict, Verdict::Outcome(Outcome::Published)));
        flight.leave();
        others.join();
        assert_eq!(Arc::strong_count(&flight), 1, "a waker was left behind");
    };

    /// L6 for a leader that is lost: the lead is taken, or there was no waiter to take it; not
    /// both, and not neither.
    l06_a_waker_is_swapped_while_the_lead_is_handed_over: Explore::All => || {
        let flight = Arc::new(Flight::new(0, 1));
        let leader = flight.clone();
        let handed = Rc::new(Cell::new(false));
        let hands = handed.clone();
        let others = start([Box::new(move || {
            if leader.hand_over() {
                hands.set(true);
            } else {
                assert!(leader.resolve(Outcome::Nothing).is_ok());
                leader.end();
            }
            leader.leave();
        }) as Actor]);
        let verdict = poll_twice(&flight);
        flight.leave();
        others.join();
        match verdict {
            Verdict::Lead => assert!(handed.get()),
            Verdict::Outcome(Outcome::Nothing) => assert!(!handed.get()),
            _ => panic!("a verdict that nobody gave"),
        }
        assert_eq!(Arc::strong_count(&flight), 1, "a waker was left behind");
    };

    /// L7, clause 2: `invalidate` against a fill that began before it. When it returns the fill has
    /// ended (all its effects come before: `Fills`), and its value is not seen again.
    l07_invalidate_waits_for_the_fill: Explore::AtMost(5) => || {
        let cache = cache();
        let fills = Fills::new();
        let guard = lead(&cache);
        let seen = fills.clone();
        let others = start([actor(&cache, move |cache| {
            cache.invalidate(&key());
            assert_eq!(seen.count(), 1);
            assert_eq!(cache.peek(&key()), None);
        })]);
        fills.fill();
        assert_eq!(guard.insert(Token::new(7)).number(), 7);
        others.join();
        assert_holds(&cache, None);
    };

    /// L7 with a reader: it gets the old flight's value if it joined that, and a new one if not. A
    /// call after the `invalidate` never gets the old one.
    l07_invalidate_beats_a_fill_that_is_read: Explore::AtMost(1) => || {
        let cache = cache();
        let fills = Fills::new();
        let guard = lead(&cache);
        let (one, other) = (fills.clone(), fills.clone());
        let others = start([
            actor(&cache, move |cache| {
                cache.invalidate(&key());
                assert!(get(cache, &one) > 100);
            }),
            actor(&cache, move |cache| {
                let value = get(cache, &other);
                assert!(value == 7 || value > 100);
            }),
        ]);
        fills.fill();
        guard.insert(Token::new(7));
        others.join();
        assert!((2..=3).contains(&fills.count()));
        assert_holds(&cache, Some(99 + fills.count()));
        empty(&cache);
    };

    /// L7, clause 2: `invalidate_nowait` detaches the flight. A later caller fills at once, however
    /// the old fill ends, and its value is the one that is kept.
    l07_nowait_cuts_a_fill_off: Explore::Long(2) => || {
        let cache = cache();
        let fills = Fills::new();
        let guard = lead(&cache);
        let (one, joined) = (fills.clone(), fills.clone());
        let others = start([
            actor(&cache, move |cache| {
                cache.invalidate_nowait(&key());
                assert_eq!(get(cache, &one), 100);
            }),
            actor(&cache, move |cache| {
                let value = get(cache, &joined);
                assert!(value == 7 || value == 100);
            }),
        ]);
        assert_eq!(guard.insert(Token::new(7)).number(), 7);
        others.join();
        assert_eq!(fills.count(), 1);
        assert_holds(&cache, Some(100));
        empty(&cache);
    };

    /// L7, clause 2: after `invalidate_nowait` no caller waits for the detached fill.
    l07_nowait_does_not_wait: Explore::All => || {
        let cache = cache();
        let fills = Fills::new();
        let guard = lead(&cache);
        let other = fills.clone();
        let others = start([actor(&cache, move |cache| {
            cache.invalidate_nowait(&key());
            assert_eq!(get(cache, &other), 100);
        })]);
        others.join();
        assert_eq!(guard.insert(Token::new(7)).number(), 7);
        assert_holds(&cache, Some(100));
        empty(&cache);
    };

    /// L7, clause 2: `invalidate_all` against a fill that began before it.
    l07_invalidate_all_beats_a_fill: Explore::AtMost(5) => || {
        let cache = cache();
        let fills = Fills::new();
        let guard = lead(&cache);
        let seen = fills.clone();
        let others = start([actor(&cache, move |cache| {
            cache.invalidate_all();
            assert_eq!(seen.count(), 1);
            assert_eq!(cache.peek(&key()), None);
        })]);
        fills.fill();
        guard.insert(Token::new(7));
        others.join();
        assert_holds(&cache, None);
    };

    /// L7: the leader is lost while its fill is being detached and a caller waits.
    l07_invalidate_meets_a_lost_lead: Explore::Long(2) => || {
        let cache = cache();
        let fills = Fills::new();
        let guard = lead(&cache);
        let waiter = fills.clone();
        let others = start([
            actor(&cache, |cache| {
                cache.invalidate(&key());
            }),
            actor(&cache, move |cache| assert!(get(cache, &waiter) == 100)),
        ]);
        drop(guard);
        others.join();
        assert_eq!(fills.count(), 1);
        empty(&cache);
    };

    // ---- L8 ------------------------------------------------------------------------------------

    /// L8, clause 3, cold: `insert` against a `get_with`. Either the fill came first and was
    /// replaced, or it never ran; the inserted value stays.
    l08_insert_wins: Explore::AtMost(5) => || {
        let cache = cache();
        let fills = Fills::new();
        let filler = fills.clone();
        let others = start([actor(&cache, move |cache| {
            assert!([100, 200].contains(&get(cache, &filler)));
        })]);
        cache.insert(key(), Token::new(200));
        assert_eq!(cache.peek(&key()).map(|value| value.number()), Some(200));
        others.join();
        assert_holds(&cache, Some(200));
        empty(&cache);
    };

    /// L8 with a fill under way and a waiter: the waiter gets either value, the leader its own, and
    /// the inserted one stays.
    l08_insert_beats_a_fill_that_is_waited_for: Explore::Long(3) => || {
        let cache = cache();
        let fills = Fills::new();
        let guard = lead(&cache);
        let waiter = fills.clone();
        let others = start([
            actor(&cache, |cache| {
                cache.insert(key(), Token::new(200));
                assert_eq!(cache.peek(&key()).map(|value| value.number()), Some(200));
            }),
            actor(&cache, move |cache| {
                assert!([7, 200].contains(&get(cache, &waiter)));
            }),
        ]);
        assert_eq!(guard.insert(Token::new(7)).number(), 7);
        others.join();
        assert_eq!(fills.count(), 0);
        assert_holds(&cache, Some(200));
        empty(&cache);
    };

    /// L8: the inserted value is taken out again at once. It is held for the waiters of the fill
    /// that it replaced, as long as they need it, and dropped once.
    l08_an_inserted_value_is_held_for_the_waiters: Explore::AtMost(2) => || {
        let cache = cache();
        let guard = lead(&cache);
        let others = start([
            actor(&cache, |cache| {
                cache.insert(key(), Token::new(200));
                cache.invalidate_nowait(&key());
                let value = cache.peek(&key()).map(|value| value.number());
                assert!([None, Some(300)].contains(&value));
            }),
            actor(&cache, |cache| {
                let value = cache.get_with(&key(), || Token::new(300));
                assert!([7, 200, 300].contains(&value.number()));
            }),
        ]);
        assert_eq!(guard.insert(Token::new(7)).number(), 7);
        others.join();
        let last = cache.peek(&key()).map(|value| value.number());
        assert!([None, Some(300)].contains(&last));
        assert_holds(&cache, last);
        empty(&cache);
    };

    /// L8, the flight's half: two waiters have been told of the inserted value and read it. The
    /// last of them releases it, once, after both have read (loom checks that of the cell). Through
    /// the cache this cannot be seen: between the look and the pin there is nothing at which loom
    /// would switch.
    l08_an_inserted_value_is_let_go_of_by_its_last_reader: Explore::All => || {
        let flight = Arc::new(Flight::new(0, 1));
        let value = Rc::new(UnsafeCell::new(7));
        let let_go = Rc::new(Cell::new(0));
        let enlist = || flight.enlist(WaitFor::Value, 2);
        let reader = |ticket| {
            let (flight, value, let_go) = (flight.clone(), value.clone(), let_go.clone());
            move || {
                let told = verdict(&flight, &ticket);
                assert!(matches!(told, Some(Verdict::Outcome(Outcome::Replaced(200)))));
                // SAFETY: loom checks that no thread writes.
                assert_eq!(value.with(|value| unsafe { *value }), 7);
                if let Some(object) = flight.delist(&ticket).replacement {
                    assert_eq!(object, 200);
                    // SAFETY: loom checks that no other thread has access.
                    value.with_mut(|value| unsafe { *value = 0 });
                    let_go.set(let_go.get() + 1);
                }
            }
        };
        let (one, other) = (reader(enlist()), reader(enlist()));
        assert!(flight.resolve(Outcome::Replaced(200)).is_ok());
        let others = start([Box::new(one) as Actor]);
        other();
        others.join();
        assert_eq!(let_go.get(), 1);
    };

    /// L8, clause 3: a caller that comes while a fill runs and an `insert` comes gets the inserted
    /// value at once, and never waits for the end of the fill. (That the model ends is the proof:
    /// the fill ends after the callers.)
    l08_nobody_waits_for_a_fill_that_was_replaced: Explore::AtMost(5) => || {
        let cache = cache();
        let guard = lead(&cache);
        let others = start([actor(&cache, |cache| {
            assert_eq!(cache.get_with(&key(), || Token::new(300)).number(), 200);
        })]);
        cache.insert(key(), Token::new(200));
        others.join();
        assert_eq!(guard.insert(Token::new(7)).number(), 7);
        assert_holds(&cache, Some(200));
        empty(&cache);
    };

    /// L8: `insert` against a fill that ends without a value.
    l08_insert_meets_a_lost_lead: Explore::All => || {
        let cache = cache();
        let guard = lead(&cache);
        let others = start([actor(&cache, |cache| cache.insert(key(), Token::new(200)))]);
        drop(guard);
        others.join();
        assert_holds(&cache, Some(200));
        empty(&cache);
    };

    /// L8: two inserts and a reader. The reader never goes back (R6).
    l08_two_inserts_and_a_reader: Explore::AtMost(4) => || {
        let cache = cache();
        let read = Rc::new(Cell::new((None, None)));
        let reader = read.clone();
        let others = start([
            actor(&cache, |cache| cache.insert(key(), Token::new(200))),
            actor(&cache, move |cache| {
                let peek = || cache.peek(&key()).map(|value| value.number());
                reader.set((peek(), peek()));
            }),
        ]);
        cache.insert(key(), Token::new(300));
        others.join();
        let last = cache.peek(&key()).map(|value| value.number());
        let (first, second) = read.get();
        assert!(first.is_none() || second.is_some());
        assert!(first != last || second == last);
        assert_holds(&cache, last);
        empty(&cache);
    };

    // ---- L9 ------------------------------------------------------------------------------------

    /// L9: a reader, a remover and an inserter at one entry. (The table alone, with two keys at
    /// one position, is in `table_models.rs`.)
    l09_read_remove_insert: Explore::AtMost(5) => || {
        let cache = cache();
        cache.insert(key(), Token::new(5));
        let others = start([
            actor(&cache, |cache| {
                let value = cache.peek(&key()).map(|value| value.number());
                assert!([None, Some(5), Some(6)].contains(&value));
            }),
            actor(&cache, |cache| {
                cache.invalidate(&key());
            }),
        ]);
        cache.insert(key(), Token::new(6));
        others.join();
        let last = cache.peek(&key()).map(|value| value.number());
        assert!([None, Some(6)].contains(&last));
        assert_holds(&cache, last);
        empty(&cache);
    };

    // ---- Refresh -------------------------------------------------------------------------------

    /// A refresh that fails leaves the entry as it was, at every moment.
    refresh_that_fails_keeps_the_entry: Explore::All => || {
        let cache = cache();
        cache.insert(key(), Token::new(5));
        let others = start([actor(&cache, |cache| assert!(refresh(cache, None).is_none()))]);
        assert_eq!(cache.peek(&key()).map(|value| value.number()), Some(5));
        assert_eq!(cache.peek(&key()).map(|value| value.number()), Some(5));
        others.join();
        assert_holds(&cache, Some(5));
        empty(&cache);
    };

    /// A refresh that succeeds takes the entry's place; a reader sees the one or the other, and
    /// never goes back.
    refresh_replaces_the_entry: Explore::All => || {
        let cache = cache();
        cache.insert(key(), Token::new(5));
        let others = start([actor(&cache, |cache| assert_eq!(refresh(cache, Some(6)), Some(6)))]);
        let peek = || cache.peek(&key()).map(|value| value.number());
        let (first, second) = (peek(), peek());
        assert!([(Some(5), Some(5)), (Some(5), Some(6)), (Some(6), Some(6))].contains(&(first, second)));
        others.join();
        assert_holds(&cache, Some(6));
        empty(&cache);
    };

    /// L7 for a refresh: its previous value goes with it, once, whether it succeeds ...
    refresh_meets_invalidate: Explore::AtMost(4) => || {
        let cache = cache();
        cache.insert(key(), Token::new(5));
        let others = start([actor(&cache, |cache| assert_eq!(refresh(cache, Some(6)), Some(6)))]);
        cache.invalidate(&key());
        assert_ne!(cache.peek(&key()).map(|value| value.number()), Some(5));
        others.join();
        let last = cache.peek(&key()).map(|value| value.number());
        assert!([None, Some(6)].contains(&last));
        assert_holds(&cache, last);
        empty(&cache);
    };

    /// ... or fails.
    refresh_that_fails_meets_invalidate: Explore::AtMost(4) => || {
        let cache = cache();
        cache.insert(key(), Token::new(5));
        let others = start([actor(&cache, |cache| assert!(refresh(cache, None).is_none()))]);
        cache.invalidate(&key());
        assert_eq!(cache.peek(&key()), None);
        others.join();
        assert_holds(&cache, None);
    };

    /// Clause 2 for a refresh that fails: `invalidate_if` takes the entries it picks out, whether
    /// it meets the flight, the previous value, or a value that the flight has just restored.
    refresh_that_fails_meets_invalidate_if: Explore::AtMost(4) => || {
        let cache = cache();
        cache.insert(key(), Token::new(5));
        let others = start([actor(&cache, |cache| assert!(refresh(cache, None).is_none()))]);
        cache.invalidate_if(|_, value| value.number() == 5);
        assert_eq!(cache.peek(&key()), None);
        others.join();
        assert_holds(&cache, None);
    };

    /// L8 for a refresh that fails: the inserted value stays.
    refresh_that_fails_meets_insert: Explore::AtMost(4) => || {
        let cache = cache();
        cache.insert(key(), Token::new(5));
        let others = start([actor(&cache, |cache| assert!(refresh(cache, None).is_none()))]);
        cache.insert(key(), Token::new(6));
        assert_eq!(cache.peek(&key()).map(|value| value.number()), Some(6));
        others.join();
        assert_holds(&cache, Some(6));
        empty(&cache);
    };

    /// Clause 2's answer beside a refresh that is publishing: a thread that has removed the old
    /// value has not left the new one to be read before.
    refresh_publishes_beside_remove: Explore::AtMost(3) => || {
        let cache = cache();
        cache.insert(key(), Token::new(5));
        let removed = Rc::new(Cell::new(None));
        let answer = removed.clone();
        let seen = refresh_beside(&cache, &|| (), move |cache| {
            answer.set(cache.remove(&key()).map(|value| value.number()));
        });
        assert!(seen != Some(6) || removed.get() != Some(5));
        assert_ne!(removed.get(), None);
        assert!(cache.peek(&key()).is_none());
        assert_eq!((cache.len(), cache.retired()), (0, 0));
    };

    /// The same when the previous value has expired during the fill: the removal does not return it
    /// then.
    refresh_of_the_expired_publishes_beside_invalidate: Explore::AtMost(3) => || {
        let clock = ManualClock::new();
        let ttl = Duration::from_secs(10);
        let cache = builder().time_to_live(ttl).clock(clock.clone()).build().unwrap();
        cache.insert(key(), Token::new(5));
        let removed = Rc::new(Cell::new(None));
        let answer = removed.clone();
        let seen = refresh_beside(&cache, &|| clock.advance(2 * ttl), move |cache| {
            answer.set(Some(cache.invalidate(&key())));
        });
        assert!(seen != Some(6) || removed.get() != Some(false));
    };

    /// Clause 2 for a refresh that began before an `invalidate_all` and publishes beside it:
    /// neither its value stays, nor the previous one.
    refresh_publishes_beside_invalidate_all: Explore::AtMost(4) => || {
        let cache = cache();
        cache.insert(key(), Token::new(5));
        refresh_beside(&cache, &|| (), |cache| {
            cache.invalidate_all();
            assert_eq!(cache.peek(&key()), None);
        });
        assert_holds(&cache, None);
    };

    /// The same for `invalidate_if`, which picks both.
    refresh_publishes_beside_invalidate_if: Explore::AtMost(4) => || {
        let cache = cache();
        cache.insert(key(), Token::new(5));
        refresh_beside(&cache, &|| (), |cache| {
            cache.invalidate_if(|_, value| value.number() >= 5);
            assert_eq!(cache.peek(&key()), None);
        });
        assert_holds(&cache, None);
    };

    /// Clause 2 of a refresh that begins beside an `invalidate_if`: a value that was not picked
    /// stays readable.
    refresh_begins_beside_invalidate_if: Explore::AtMost(3) => || {
        let cache = cache();
        cache.insert(key(), Token::new(5));
        let others = start([actor(&cache, |cache| {
            cache.invalidate_if(|_, value| value.number() == 5);
        })]);
        let fill = |_: &Token| Ok::<_, ()>(Token::new(6));
        assert_eq!(cache.fetch(&key(), Aim::Refresh, fill, Token::number, &REFRESH), Ok(6));
        let seen = cache.peek(&key()).map(|value| value.number());
        others.join();
        assert_ne!(seen, Some(5));
        assert_holds(&cache, seen);
    };

    /// A refresh begins beside a removal that does not wait: the removal comes first, and the refresh is a first fill or is
    /// detached; or it finds the successor whole.
    refresh_begins_beside_invalidate_nowait: Explore::AtMost(3) => || {
        let cache = cache();
        cache.insert(key(), Token::new(5));
        let others = start([actor(&cache, |cache| assert!(cache.invalidate_nowait(&key())))]);
        let fill = |_: &Token| Ok::<_, ()>(Token::new(6));
        assert_eq!(cache.fetch(&key(), Aim::Refresh, fill, Token::number, &REFRESH), Ok(6));
        others.join();
        let left = cache.peek(&key()).map(|value| value.number());
        assert!([None, Some(6)].contains(&left), "{left:?}");
        assert_eq!(cache.len(), usize::from(left.is_some()));
    };

    /// A thread that asks a successor for the weight of the current value finds that, or a slot that has its own.
    refresh_shows_one_weight_or_the_other: Explore::All => || {
        let slot = Rc::new(Slot::<u64>::filling(1));
        slot.prepare(1, Some(7), 0, false);
        let seen = slot.clone();
        let others = start([Box::new(move || match seen.parked() {
            Some(weight) => assert_eq!(weight, 7),
            None => assert_eq!(seen.state().weight_of_value(), 3),
        }) as Actor]);
        let end = Publish {
            deadline: Deadline::Never,
            weight: 3,
            kept: true,
            tell: false,
            is_successor: true,
        };
        // SAFETY: this thread is the leader, and ends the flight once, with the value that it has written.
        let published = unsafe {
            slot.write(5);
            slot.publish(end)
        };
        assert!(published.is_ok());
        slot.set_deadline(Deadline::Never);
        others.join();
    };

    /// Clause 1 of a refresh with an expired previous value that publishes beside a caller: the
    /// caller finds a value, and there is no second fill.
    refresh_of_the_expired_publishes_beside_a_fill: Explore::AtMost(3) => || {
        let clock = ManualClock::new();
        let ttl = Duration::from_secs(10);
        let cache = builder().time_to_live(ttl).clock(clock.clone()).build().unwrap();
        cache.insert(key(), Token::new(5));
        refresh_beside(&cache, &|| clock.advance(2 * ttl), move |cache| {
            assert_eq!(cache.get_with(&key(), || Token::new(7)).number(), 6);
        });
    };

    /// Clause 2's answer beside an insert over a refresh: at every moment a value is served, the
    /// previous one or the inserted one. So a thread that removes the key has found one.
    refresh_meets_insert_and_nowait: Explore::AtMost(4) => || {
        let cache = cache();
        cache.insert(key(), Token::new(5));
        let meanwhile = cache.clone();
        let fill = move |_: &Token| {
            let others = start([actor(&meanwhile, |cache| cache.insert(key(), Token::new(6)))]);
            assert!(meanwhile.invalidate_nowait(&key()));
            others.join();
            Err::<Token, ()>(())
        };
        assert_eq!(cache.fetch(&key(), Aim::Refresh, fill, Token::number, &REFRESH), Err(crate::TryGetError::Fill(())));
        let last = cache.peek(&key()).map(|value| value.number());
        assert!([None, Some(6)].contains(&last));
        assert_holds(&cache, last);
        empty(&cache);
    };

    // ---- L13 -----------------------------------------------------------------------------------

    /// L13, clause 5: 1 asks for 2 and 2 asks for 1 on two threads. Without the error that would be
    /// a deadlock. That the model ends is the proof.
    l13_a_cycle_over_two_threads_is_an_error: Explore::AtMost(4) => || {
        let cache = cache();
        let others = start([actor(&cache, |cache| ask_each_other(cache, 1, 2))]);
        ask_each_other(&cache, 2, 1);
        others.join();
    };

    // ---- L14 -----------------------------------------------------------------------------------

    /// L14, clauses 1 and 8: two callers find an entry expired. One leads, one waits; the old value
    /// is retired once. The sweep for expired entries runs too.
    l14_an_expired_entry_is_refilled_once: Explore::AtMost(3) => || {
        let clock = ManualClock::new();
        let ttl = Duration::from_secs(10);
        let cache = builder().time_to_live(ttl).clock(clock.clone()).build().expect("good");
        cache.insert(key(), Token::new(5));
        clock.advance(ttl);
        let fills = Fills::new();
        let other = fills.clone();
        let others = start([actor(&cache, move |cache| assert_eq!(get(cache, &other), 100))]);
        assert_eq!(get(&cache, &fills), 100);
        others.join();
        assert_eq!(fills.count(), 1);
        assert_holds(&cache, Some(100));
        empty(&cache);
    };

    // ---- L15 -----------------------------------------------------------------------------------

    /// L15: the last handle of a cache is dropped beside its last waiter. All is freed, and nothing
    /// is touched after that. (loom's `Arc` counts the handles, with the orderings of std's.)
    l15_the_cache_is_dropped_with_its_last_waiter: Explore::AtMost(5) => || {
        let cache = loom::sync::Arc::new(cache());
        let fills = Fills::new();
        let (handle, other) = (cache.clone(), fills.clone());
        let others = start([Box::new(move || {
            get(&handle, &other);
            drop(handle);
        }) as Actor]);
        get(&cache, &fills);
        drop(cache);
        others.join();
        assert_eq!(fills.count(), 1);
    };

    // ---- waiting -------------------------------------------------------------------------------

    /// A wake that comes before the sleep is not lost, and each wake ends one sleep.
    a_parked_thread_is_woken: Explore::All => || {
        let parker = Parker::new();
        let waker: std::task::Waker = Arc::clone(&parker).into();
        let others = start([Box::new(move || {
            waker.wake_by_ref();
        }) as Actor]);
        parker.park();
        others.join();
    };
}
