//! The part of a fill that exists only while callers wait for it: the list of waiters, and the leader they wait for.
//!
//! A fill without waiters has no flight, only a slot with its leader's number. The first waiter hangs a flight on the
//! slot. From then on the leader and each waiter have a *share* in the flight. The last one to leave releases the slot
//! and retires the flight. Threads that loaded the flight's address from the slot may still look at it, so it is freed
//! only after their pins, like every retired object.
//!
//! Waiters are [`Waker`]s on one list: a thread's is made from its [`Parker`](crate::sync::Parker), a task brings its
//! own. At the end of a flight the order is: publish (the slot), take the list (under the lock), release all locks and
//! pins, wake. No waker is cloned, woken or dropped under the lock.
//!
//! # A stored fill
//!
//! A fill that is a future, and that the cache owns, is kept here as a [`Job`]. No single thread or task leads it:
//! **every waiter that is awake polls it**. So a waiter that is dropped, or that is polled once and forgotten, neither
//! loses the fill nor holds it up. When the job asks to be polled ([`ring`]), every waiter is woken, because any of
//! them may never come. The first that comes takes the job out, polls it with no lock held, and puts it back. A ring
//! that comes meanwhile is noted, and the other waiters are woken when the job is back; the waiter that has polled it
//! is not asleep then, and wakes itself. So a job that wants to be polled is never here while all waiters sleep.
//!
//! [`ring`]: Flight::ring

use crate::actor::is_fill;
use crate::foreign::contain;
use crate::sync::{AtomicUsize, Mutex, Ordering, lock};
use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Wake, Waker};

/// A fill that ends its flight by itself when it is done, and gives up the lead when it is dropped.
pub(crate) type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A fill's error, as every caller in the flight gets it.
pub(crate) type SharedError = Arc<dyn Any + Send + Sync>;

/// The outcome for the callers that joined.
#[derive(Clone)]
pub(crate) enum Outcome {
    /// The slot's own value.
    Published,
    /// The value of the object at this address, which replaced ours, and is held for the readers.
    Replaced(usize),
    /// The fill's error.
    Failed(SharedError),
    /// No value: look into the table again.
    Nothing,
}

/// The event that a waiter waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WaitFor {
    /// The outcome; may be handed the lead.
    Value,
    /// The end of the fill, with any outcome.
    End,
}

/// The answer to a waiter that looks.
pub(crate) enum Verdict {
    Outcome(Outcome),
    /// The leader is lost, and this waiter has the lead: to run its fill, or to end the flight.
    Lead,
    /// The fill has ended.
    Ended,
}

/// The next step of a waiter.
pub(crate) enum Look {
    /// The wait is over.
    Verdict(Verdict),
    /// Poll this job, and give it back.
    Drive(Job),
    /// [Give](Flight::give) a waker, and look again.
    GiveWaker,
    /// The fill is to be polled once more: wake yourself, and let the others have a turn.
    ComeBack,
    Sleep,
}

/// A place on the list.
#[derive(Debug)]
pub(crate) struct Ticket {
    /// Its holder's index in `Room::waiters`.
    at: usize,
    waits_for: WaitFor,
    actor: u64,
}

/// The duties that a waiter leaves behind when it leaves the list.
pub(crate) struct Delisted {
    /// It had been handed the lead, and must pass it on.
    pub(crate) had_baton: bool,
    /// The fill: no caller waits for its value any more.
    pub(crate) job: Option<Job>,
    /// The object that was held for the readers: this waiter was the last of them.
    pub(crate) replacement: Option<usize>,
}

struct Waiter {
    waits_for: WaitFor,
    /// The number under which it leads, if it is handed the lead.
    actor: u64,
    /// `None`: it has been woken since it last looked, or is about to look.
    waker: Option<Waker>,
}

/// The lead of a flight without a leader, on its way to the next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Baton {
    /// The flight is led.
    None,
    /// For the holder of this ticket: a thread, which is sure to come.
    To(usize),
    /// For the first waiter that comes.
    Open,
}

/// The stored fill, if there is one.
enum Kept {
    None,
    /// `awake`: it wants to be polled.
    Here {
        job: Job,
        awake: bool,
    },
    /// A waiter polls it. `awake`: it has asked to be polled again.
    Out {
        awake: bool,
    },
}

struct Room {
    /// The actor that fills now.
    leader: u64,
    outcome: Option<Outcome>,
    ended: bool,
    /// Wakes a fill that goes on without waiters.
    orphan: Option<Waker>,
    /// See [`Flight::begins`].
    began: Option<u64>,
    baton: Baton,
    kept: Kept,
    /// The waiters that hold a ticket; `None` where a ticket has been given back.
    waiters: Vec<Option<Waiter>>,
    /// The places of those `None`s.
    free: Vec<usize>,
    /// The number of waiters for a value, including those that have not read it yet.
    readers: usize,
}

/// The meeting place of one fill's waiters.
pub(crate) struct Flight {
    /// The address of the slot it hangs on: its name in the wait-for graph.
    slot: usize,
    /// The number of shares. At zero the flight is over for good.
    parts: AtomicUsize,
    /// Held for a few instructions, never over user code.
    room: Mutex<Room>,
}

impl Flight {
    /// A flight with two shares: of its leader and of its first waiter.
    pub(crate) fn new(slot: usize, leader: u64) -> Self {
        Self {
            slot,
            parts: AtomicUsize::new(2),
            room: Mutex::new(Room {
                leader,
                outcome: None,
                ended: false,
                orphan: None,
                began: None,
                baton: Baton::None,
                kept: Kept::None,
                waiters: Vec::new(),
                free: Vec::new(),
                readers: 0,
            }),
        }
    }

    /// Returns the address of the slot it hangs on.
    pub(crate) fn slot(&self) -> usize {
        self.slot
    }

    /// Takes a share, unless none is left. The caller is pinned, or has a share, which keeps the flight until this
    /// returns.
    pub(crate) fn join(&self) -> bool {
        // AcqRel on success, as a reference count has: see `leave`.
        self.parts
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |parts| {
                (parts > 0).then(|| parts + 1)
            })
            .is_ok()
    }

    /// Gives a share up. True: it was the last one, and the caller releases the slot and the flight.
    pub(crate) fn leave(&self) -> bool {
        // Release: all that we did in the flight comes before the cleaning up after the last leave (Acquire).
        self.parts.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Puts a waiter on the list, which leads as `actor` if it has to. It must [`look`](Self::look) before it sleeps:
    /// an event before it was on the list wakes no waiter.
    pub(crate) fn enlist(&self, waits_for: WaitFor, actor: u64) -> Ticket {
        let mut room = lock(&self.room);
        let waiter = Some(Waiter {
            waits_for,
            actor,
            waker: None,
        });
        let at = if let Some(at) = room.free.pop() {
            room.waiters[at] = waiter;
            at
        } else {
            room.waiters.push(waiter);
            room.waiters.len() - 1
        };
        if waits_for == WaitFor::Value {
            room.readers += 1;
        }
        Ticket {
            at,
            waits_for,
            actor,
        }
    }

    /// Checks whether the wait of the ticket's holder is over; if not, returns its next step. With `may_drive` that
    /// may be to poll the fill. `waker` wakes the holder; `None`: it has given that in this step.
    pub(crate) fn look(&self, ticket: &Ticket, waker: Option<&Waker>, may_drive: bool) -> Look {
        let mut room = lock(&self.room);
        if let Some(verdict) = room.verdict(ticket) {
            // Here, and not as the waiter leaves the list, when it may be pinned.
            let waker = room.waiter(ticket).waker.take();
            drop(room);
            contain(|| drop(waker));
            return Look::Verdict(verdict);
        }
        if matches!(room.kept, Kept::Here { awake: true, .. }) {
            if !may_drive {
                return Look::ComeBack;
            }
            return match std::mem::replace(&mut room.kept, Kept::Out { awake: false }) {
                Kept::Here { job, .. } => Look::Drive(job),
                _ => unreachable!("matched above"),
            };
        }
        let given = &room.waiter(ticket).waker;
        // `will_wake` compares addresses, and may wrongly say no; it runs no code of the waker's.
        match (waker, given) {
            // If the waker that was given is gone, it has been woken.
            (None, _) => Look::Sleep,
            (Some(waker), Some(given)) if given.will_wake(waker) => Look::Sleep,
            _ => Look::GiveWaker,
        }
    }

    /// Sets the waker of a waiter. The waiter must look again.
    pub(crate) fn give(&self, ticket: &Ticket, waker: Waker) {
        let mut room = lock(&self.room);
        let other = room.waiter(ticket).waker.replace(waker);
        drop(room);
        // A waker's `Drop` is user code.
        contain(|| drop(other));
    }

    /// Takes a waiter off the list, when it has read its outcome or gives up.
    #[must_use]
    pub(crate) fn delist(&self, ticket: &Ticket) -> Delisted {
        let mut room = lock(&self.room);
        let gone = room.waiters[ticket.at].take();
        room.free.push(ticket.at);
        if ticket.waits_for == WaitFor::Value {
            room.readers -= 1;
        }
        let had_baton = match room.baton {
            Baton::To(at) => at == ticket.at,
            // This was the last waiter that could take it.
            Baton::Open => room.readers == 0,
            Baton::None => false,
        };
        if had_baton {
            room.baton = Baton::None;
            room.leader = ticket.actor;
        }
        let replacement = match room.outcome {
            Some(Outcome::Replaced(object)) if room.readers == 0 => {
                room.outcome = Some(Outcome::Nothing);
                Some(object)
            }
            _ => None,
        };
        let job = room.take_unwanted();
        drop(room);
        // A waker's `Drop` is user code.
        contain(|| drop(gone));
        Delisted {
            had_baton,
            job,
            replacement,
        }
    }

    /// Stores a fill that is to be polled, led as `leader`.
    pub(crate) fn keep(&self, job: Job, leader: u64) {
        let mut room = lock(&self.room);
        room.leader = leader;
        room.kept = Kept::Here { job, awake: true };
    }

    /// Stores a fill again that has been polled and is not done. Returns the fill if no caller waits for it any more.
    pub(crate) fn keep_on(&self, job: Job) -> Option<Job> {
        let mut room = lock(&self.room);
        let awake = matches!(room.kept, Kept::Out { awake: true });
        room.kept = Kept::Here { job, awake };
        let unwanted = room.take_unwanted();
        let rung = if awake {
            room.take_wakers(|_| true)
        } else {
            vec![]
        };
        drop(room);
        wake(rung);
        unwanted
    }

    /// Forgets the fill that was taken to be polled, which is done.
    pub(crate) fn keep_none(&self) {
        lock(&self.room).kept = Kept::None;
    }

    /// Notes that the fill goes on elsewhere. `waker` wakes it if the flight ends without it. True: the flight has
    /// ended.
    pub(crate) fn adopt(&self, waker: Waker) -> bool {
        let mut room = lock(&self.room);
        let before = room.orphan.replace(waker);
        let ended = room.ended;
        drop(room);
        // A waker's `Drop` is user code.
        contain(|| drop(before));
        ended
    }

    /// Notes that the stored fill asks to be polled, and wakes the waiters.
    fn ring(&self) {
        let mut room = lock(&self.room);
        let rung = match &mut room.kept {
            Kept::None => return,
            Kept::Out { awake } => {
                *awake = true;
                return;
            }
            Kept::Here { awake, .. } => {
                *awake = true;
                room.take_wakers(|_| true)
            }
        };
        drop(room);
        wake(rung);
    }

    /// Gives `outcome` to every waiter for a value. `Err`: they have one already, and this one is given back.
    ///
    /// An object without readers is given back too; a caller that is about to wait then looks again.
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
        let woken = room.take_wakers(|waiter| waiter.waits_for == WaitFor::Value);
        drop(room);
        wake(woken);
        Ok(())
    }

    /// Ends the fill: wakes every waiter that is left.
    pub(crate) fn end(&self) {
        let mut room = lock(&self.room);
        room.ended = true;
        let mut woken = room.take_wakers(|_| true);
        woken.extend(room.orphan.take());
        drop(room);
        wake(woken);
    }

    /// Hands the lead to a waiter for the value. False: there is none, or they have an outcome.
    ///
    /// A thread gets it, if there is one: a thread is sure to come. A task may have been forgotten, so all tasks are
    /// woken, and the first that comes leads. Waiters for the end are woken too, because they must not wait for those
    /// tasks.
    pub(crate) fn hand_over(&self) -> bool {
        let mut room = lock(&self.room);
        if room.outcome.is_some() || room.readers == 0 {
            return false;
        }
        let waits = |waiter: &Waiter| waiter.waits_for == WaitFor::Value;
        let thread = |waiter: &Waiter| waits(waiter) && !is_fill(waiter.actor);
        let next = room
            .waiters
            .iter()
            .position(|it| it.as_ref().is_some_and(thread));
        let woken = if let Some(next) = next {
            room.baton = Baton::To(next);
            let waiter = room.waiters[next].as_mut();
            waiter
                .and_then(|waiter| waiter.waker.take())
                .into_iter()
                .collect()
        } else {
            room.baton = Baton::Open;
            room.take_wakers(|_| true)
        };
        drop(room);
        wake(woken);
        true
    }

    /// Notes when the fill began.
    pub(crate) fn begins(&self, now: u64) {
        lock(&self.room).began = Some(now);
    }

    /// Returns the time when the fill began, if that was noted.
    pub(crate) fn began(&self) -> Option<u64> {
        lock(&self.room).began
    }

    /// Returns the leader's number, and the number of waiters.
    pub(crate) fn crew(&self) -> (u64, usize) {
        let room = lock(&self.room);
        (room.leader, room.waiters.len() - room.free.len())
    }

    /// Returns the stored fill, if no caller waits for its value any more.
    pub(crate) fn take_unwanted(&self) -> Option<Job> {
        lock(&self.room).take_unwanted()
    }

    /// Returns the actor that a waiter depends on; `None` once the wait is over.
    pub(crate) fn blocks(&self, waits_for: WaitFor) -> Option<u64> {
        let room = lock(&self.room);
        let over = room.ended || waits_for == WaitFor::Value && room.outcome.is_some();
        // While the baton is out a waiter is about to wake up and lead, so no actor blocks. (It may be the waiter that
        // asks: it may be handed the lead between its enlisting and its asking.)
        (!over && room.baton == Baton::None).then_some(room.leader)
    }
}

impl Wake for Flight {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

impl Room {
    fn verdict(&mut self, ticket: &Ticket) -> Option<Verdict> {
        let ours = match self.baton {
            Baton::To(at) => at == ticket.at,
            Baton::Open => true,
            Baton::None => false,
        };
        if ours {
            self.baton = Baton::None;
            self.leader = ticket.actor;
            return Some(Verdict::Lead);
        }
        match ticket.waits_for {
            WaitFor::Value => self.outcome.clone().map(Verdict::Outcome),
            WaitFor::End => self.ended.then_some(Verdict::Ended),
        }
    }

    fn waiter(&mut self, ticket: &Ticket) -> &mut Waiter {
        self.waiters[ticket.at]
            .as_mut()
            .expect("who holds a ticket is on the list")
    }

    /// Takes the wakers of the waiters that sleep; the waiters stay on the list.
    fn take_wakers(&mut self, which: impl Fn(&Waiter) -> bool) -> Vec<Waker> {
        let waiters = self.waiters.iter_mut().flatten();
        let woken = waiters.filter(|waiter| which(waiter));
        woken.filter_map(|waiter| waiter.waker.take()).collect()
    }

    /// Returns the stored fill, if no caller waits for its value any more.
    fn take_unwanted(&mut self) -> Option<Job> {
        let wanted = self.readers > 0 && self.outcome.is_none();
        if wanted || !matches!(self.kept, Kept::Here { .. }) {
            return None;
        }
        match std::mem::replace(&mut self.kept, Kept::None) {
            Kept::Here { job, .. } => Some(job),
            _ => unreachable!("matched above"),
        }
    }
}

/// Wakes each of these, in the order of the list. One waker that panics does not keep the next waiter asleep.
fn wake(wakers: Vec<Waker>) {
    for waker in wakers {
        // A waker's panic is contained: the waiter that it wakes is not on this stack.
        contain(|| waker.wake());
    }
}
