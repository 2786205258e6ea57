//! What exists only while somebody waits for a fill: the waiters, and whom they wait for.
//!
//! A fill that nobody waits for has no flight, only a slot with its leader's number. The first
//! waiter hangs a flight on the slot. From then on the leader and each waiter *take part*; the
//! last to leave lets go of the slot and retires the flight (it may still be looked at by threads
//! that loaded its address from the slot, so it ripens like everything else).
//!
//! Waiters are [`Waker`]s on one list: a thread's is made from its
//! [`Parker`](crate::sync::Parker), a task brings its own. At the end of a flight the order is:
//! publish (the slot), take the list (under the lock), let go of everything, wake. No waker is
//! cloned, woken or dropped under the lock.

use crate::foreign::contain;
use crate::sync::{AtomicUsize, Mutex, Ordering, lock};
use std::any::Any;
use std::sync::Arc;
use std::task::Waker;

/// A fill's error, as it is handed to everyone in the flight.
pub(crate) type SharedError = Arc<dyn Any + Send + Sync>;

/// What those who joined get.
#[derive(Clone)]
pub(crate) enum Outcome {
    /// The slot's own value.
    Published,
    /// The value of the object at this address, put in the place of ours and held for us.
    Replaced(usize),
    /// The fill's error.
    Failed(SharedError),
    /// Nothing: look into the table again.
    Nothing,
}

/// What a waiter waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WaitFor {
    /// The outcome; may be handed the lead.
    Value,
    /// The end of the fill, whatever comes of it.
    End,
}

/// What a waiter that looks is told.
pub(crate) enum Verdict {
    Outcome(Outcome),
    /// The leader is lost, and this waiter is the next.
    Lead,
    /// The fill has ended.
    Ended,
}

/// A place on the list.
#[derive(Debug)]
pub(crate) struct Ticket {
    number: u64,
    waits_for: WaitFor,
}

/// What one who leaves the list leaves behind.
pub(crate) struct Delisted {
    /// It had been handed the lead, and must pass it on.
    pub(crate) had_baton: bool,
    /// The object that was held for those who waited for a value: it was the last of them.
    pub(crate) replacement: Option<usize>,
}

struct Waiter {
    ticket: u64,
    waits_for: WaitFor,
    /// The number of the thread or task, for the wait-for graph.
    actor: u64,
    waker: Waker,
}

struct Room {
    /// The actor that fills now.
    leader: u64,
    outcome: Option<Outcome>,
    ended: bool,
    /// The ticket that has been handed the lead and has not taken it yet.
    baton: Option<u64>,
    next_ticket: u64,
    /// Those who wait for a value, or have it and have not read it yet.
    readers: usize,
    waiters: Vec<Waiter>,
}

/// The meeting place of one fill's waiters.
pub(crate) struct Flight {
    /// The address of the slot it hangs on: its name in the wait-for graph.
    slot: usize,
    /// Those who take part. At zero the flight is over for good.
    parts: AtomicUsize,
    /// Held for a few instructions, never over foreign code.
    room: Mutex<Room>,
}

impl Flight {
    /// A flight in which its leader and its first waiter take part.
    pub(crate) fn new(slot: usize, leader: u64) -> Self {
        Self {
            slot,
            parts: AtomicUsize::new(2),
            room: Mutex::new(Room {
                leader,
                outcome: None,
                ended: false,
                baton: None,
                next_ticket: 0,
                readers: 0,
                waiters: Vec::new(),
            }),
        }
    }

    /// The address of the slot it hangs on.
    pub(crate) fn slot(&self) -> usize {
        self.slot
    }

    /// Takes part, unless everybody has left. The caller is pinned, which keeps the flight until
    /// it knows.
    pub(crate) fn join(&self) -> bool {
        // AcqRel on success, as a reference count has: see `leave`.
        self.parts
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |parts| {
                (parts > 0).then(|| parts + 1)
            })
            .is_ok()
    }

    /// Leaves. True: everybody has left, and the caller lets go of what the flight held.
    pub(crate) fn leave(&self) -> bool {
        // Release: what we did in the flight comes before the last one's cleaning up (Acquire).
        self.parts.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Puts a waiter on the list. It must then look ([`look`](Self::look)) before it sleeps: what
    /// happened before it was on the list wakes nobody.
    pub(crate) fn enlist(&self, waits_for: WaitFor, actor: u64, waker: Waker) -> Ticket {
        let mut room = lock(&self.room);
        let ticket = room.next_ticket;
        room.next_ticket += 1;
        room.waiters.push(Waiter {
            ticket,
            waits_for,
            actor,
            waker,
        });
        if waits_for == WaitFor::Value {
            room.readers += 1;
        }
        Ticket {
            number: ticket,
            waits_for,
        }
    }

    /// Whether what the ticket's holder waits for has come.
    pub(crate) fn look(&self, ticket: &Ticket) -> Option<Verdict> {
        let mut room = lock(&self.room);
        if room.baton == Some(ticket.number) {
            room.baton = None;
            return Some(Verdict::Lead);
        }
        match ticket.waits_for {
            WaitFor::Value => room.outcome.clone().map(Verdict::Outcome),
            WaitFor::End => room.ended.then_some(Verdict::Ended),
        }
    }

    /// Takes a waiter off the list, when it has read what it waited for or gives up.
    #[must_use]
    pub(crate) fn delist(&self, ticket: &Ticket) -> Delisted {
        let mut room = lock(&self.room);
        let at = room
            .waiters
            .iter()
            .position(|waiter| waiter.ticket == ticket.number);
        let gone = at.map(|at| room.waiters.swap_remove(at));
        let had_baton = room.baton == Some(ticket.number);
        if had_baton {
            room.baton = None;
        }
        if ticket.waits_for == WaitFor::Value {
            room.readers -= 1;
        }
        let replacement = match room.outcome {
            Some(Outcome::Replaced(object)) if room.readers == 0 => {
                room.outcome = Some(Outcome::Nothing);
                Some(object)
            }
            _ => None,
        };
        drop(room);
        // A waker's `Drop` is foreign code.
        drop(gone);
        Delisted {
            had_baton,
            replacement,
        }
    }

    /// Gives everyone who waits for a value `outcome`. If they have one already, it comes back.
    ///
    /// An object that is held for nobody comes back too; who is about to wait looks again.
    pub(crate) fn resolve(&self, outcome: Outcome) -> Result<(), Outcome> {
        let mut room = lock(&self.room);
        if room.outcome.is_some() {
            return Err(outcome);
        }
        if matches!(outcome, Outcome::Replaced(_)) && room.readers == 0 {
            room.outcome = Some(Outcome::Nothing);
            return Err(outcome);
        }
        room.outcome = Some(outcome);
        let woken = Room::take(&mut room.waiters, |waiter| {
            waiter.waits_for == WaitFor::Value
        });
        drop(room);
        wake(woken);
        Ok(())
    }

    /// The fill has ended: wakes whoever is left.
    pub(crate) fn end(&self) {
        let mut room = lock(&self.room);
        room.ended = true;
        let woken = std::mem::take(&mut room.waiters);
        drop(room);
        wake(woken);
    }

    /// Hands the lead to a waiter for the value. False: there is none, or they have an outcome.
    pub(crate) fn hand_over(&self) -> bool {
        let mut room = lock(&self.room);
        if room.outcome.is_some() {
            return false;
        }
        let next = room
            .waiters
            .iter()
            .position(|waiter| waiter.waits_for == WaitFor::Value);
        let Some(next) = next.map(|at| room.waiters.remove(at)) else {
            return false;
        };
        room.baton = Some(next.ticket);
        room.leader = next.actor;
        drop(room);
        wake(vec![next]);
        true
    }

    /// The actor that one who waits depends on; none once what is waited for has come.
    pub(crate) fn blocks(&self, waits_for: WaitFor) -> Option<u64> {
        let room = lock(&self.room);
        let over = room.ended || waits_for == WaitFor::Value && room.outcome.is_some();
        // With the baton in hand somebody is about to wake up and lead: blocked is nobody. (It may
        // be the one who asks, handed the lead between its enlisting and its asking.)
        (!over && room.baton.is_none()).then_some(room.leader)
    }
}

impl Room {
    fn take(waiters: &mut Vec<Waiter>, which: impl Fn(&Waiter) -> bool) -> Vec<Waiter> {
        let (taken, left) = std::mem::take(waiters).into_iter().partition(which);
        *waiters = left;
        taken
    }
}

/// Wakes everyone, the first to come first. One waker that panics does not keep the next asleep.
fn wake(waiters: Vec<Waiter>) {
    for waiter in waiters {
        // A waker has nobody to tell of its panic: what it wakes is not on this stack.
        contain(|| waiter.waker.wake());
    }
}
