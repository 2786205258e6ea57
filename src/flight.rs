//! The waiters of a fill, and the leader that they wait for. They exist only while a caller waits.
//!
//! A fill without waiters has no flight, only a slot with its leader's number. The first
//! waiter hangs a flight on the slot. From then on the leader and each waiter *take part*; the
//! last to leave lets go of the slot and retires the flight (it may still be looked at by threads
//! that loaded its address from the slot, so it ripens like everything else).
//!
//! Waiters are [`Waker`]s on one list: a thread's is made from its
//! [`Parker`](crate::sync::Parker), a task brings its own. At the end of a flight the order is:
//! publish (the slot), take the list (under the lock), let go of everything, wake. No waker is
//! cloned, woken or dropped under the lock.
//!
//! # A fill that is kept
//!
//! A fill that is a future, and that the cache owns, is stored here as a [`Job`], and no caller leads it in
//! person: **each waiter that is awake polls it**. So nothing is lost or held up with a waiter that is
//! dropped, or that is polled once and forgotten. When the job asks to be polled ([`ring`]), every
//! waiter is woken, because it is not known which of them will come; the first that comes takes the
//! job out, polls it with nothing locked and puts it back. A ring that comes meanwhile is noted, and
//! rung when the job is back; the waiter that has polled it is not asleep then, and wakes itself. So a job that
//! wants to be polled is never here with waiters that all sleep.
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

/// A fill's error, as it is handed to all callers in the flight.
pub(crate) type SharedError = Arc<dyn Any + Send + Sync>;

/// The outcome for the callers that joined.
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

/// The aim of a waiter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WaitFor {
    /// The outcome; may be handed the lead.
    Value,
    /// The end of the fill, whatever comes of it.
    End,
}

/// The verdict for a waiter that looks.
pub(crate) enum Verdict {
    Outcome(Outcome),
    /// The leader is lost, and this waiter has the lead: to go on, or to end the flight.
    Lead,
    /// The fill has ended.
    Ended,
}

/// The next step of a waiter.
pub(crate) enum Look {
    /// Its value or its end has come.
    Verdict(Verdict),
    /// Poll this, and give it back.
    Drive(Job),
    /// [Say](Flight::give) how it is woken, and look again.
    GiveWaker,
    /// The fill is to be polled once more: wake itself, and let others have a turn.
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

/// Left behind by a waiter that leaves the list.
pub(crate) struct Delisted {
    /// It had been handed the lead, and must pass it on.
    pub(crate) had_baton: bool,
    /// The stored fill: it has no waiters for its value any more.
    pub(crate) job: Option<Job>,
    /// The object that was held for the waiters for a value: this was the last of them.
    pub(crate) replacement: Option<usize>,
}

struct Waiter {
    waits_for: WaitFor,
    /// The number under which it leads, if it is handed the lead.
    actor: u64,
    /// `None`: it has been woken since it last looked, or is about to look.
    waker: Option<Waker>,
}

/// The lead of a flight whose leader is lost, on its way to the next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Baton {
    /// The flight is led.
    None,
    /// For the holder of this ticket: a thread, which is sure to come.
    To(usize),
    /// For the first that comes.
    Open,
}

/// The fill that is kept here, if one is.
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
    /// The holders of tickets; `None` where one has been given back.
    waiters: Vec<Option<Waiter>>,
    /// The places that are free.
    free: Vec<usize>,
    /// How many wait for a value, or have it and have not read it yet.
    readers: usize,
}

/// The meeting place of one fill's waiters.
pub(crate) struct Flight {
    /// The address of the slot it hangs on: its name in the wait-for graph.
    slot: usize,
    /// How many shares there are. At zero the flight is over for good.
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

    /// The address of the slot it hangs on.
    pub(crate) fn slot(&self) -> usize {
        self.slot
    }

    /// Takes a share, unless all have been given back. The caller is pinned, which keeps the flight until it knows.
    pub(crate) fn join(&self) -> bool {
        // AcqRel on success, as a reference count has: see `leave`.
        self.parts
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |parts| {
                (parts > 0).then(|| parts + 1)
            })
            .is_ok()
    }

    /// Gives a share back. True: it was the last one, and the caller lets go of all that the flight held.
    pub(crate) fn leave(&self) -> bool {
        // Release: our use of the flight comes before the cleaning up of the last to leave (Acquire).
        self.parts.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Puts a waiter on the list, which leads as `actor` if it has to. It must look
    /// ([`look`](Self::look)) before it sleeps: an end that came before it was on the list does not wake it.
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

    /// Returns the outcome for the ticket's holder, or its next step. With `may_drive` that may be to poll the stored fill. `waker`: how it is woken, if it has not given that just now.
    pub(crate) fn look(&self, ticket: &Ticket, waker: Option<&Waker>, may_drive: bool) -> Look {
        let mut room = lock(&self.room);
        if let Some(verdict) = room.verdict(ticket) {
            // Here and not as it leaves the list, when it may be pinned.
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
        // `will_wake` compares addresses, and may be wrong when it says no; it runs none of the waker's code.
        match (waker, given) {
            // If it is not there any more, it has been woken.
            (None, _) => Look::Sleep,
            (Some(waker), Some(given)) if given.will_wake(waker) => Look::Sleep,
            _ => Look::GiveWaker,
        }
    }

    /// Says how a waiter is woken. It must look again.
    pub(crate) fn give(&self, ticket: &Ticket, waker: Waker) {
        let mut room = lock(&self.room);
        let other = room.waiter(ticket).waker.replace(waker);
        drop(room);
        // A waker's `Drop` is foreign code.
        contain(|| drop(other));
    }

    /// Takes a waiter off the list, when it has read the outcome or gives up.
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
            // It was the last that could take it.
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
        // A waker's `Drop` is foreign code.
        contain(|| drop(gone));
        Delisted {
            had_baton,
            job,
            replacement,
        }
    }

    /// Keeps a fill, which is to be polled, and is led by `leader`.
    pub(crate) fn keep(&self, job: Job, leader: u64) {
        let mut room = lock(&self.room);
        room.leader = leader;
        room.kept = Kept::Here { job, awake: true };
    }

    /// Keeps a fill again that has been polled and is not done. It comes back if it has no waiters
    /// any more.
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

    /// The fill that was taken to be polled is done.
    pub(crate) fn keep_none(&self) {
        lock(&self.room).kept = Kept::None;
    }

    /// The fill goes on elsewhere, and is to be woken by `waker` when the flight ends without it. True:
    /// it has ended.
    pub(crate) fn adopt(&self, waker: Waker) -> bool {
        let mut room = lock(&self.room);
        let before = room.orphan.replace(waker);
        let ended = room.ended;
        drop(room);
        // A waker's `Drop` is foreign code.
        contain(|| drop(before));
        ended
    }

    /// The fill that is kept asks to be polled.
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

    /// Gives `outcome` to all that wait for a value. If they have one already, it comes back.
    ///
    /// An object that is held for no waiter comes back too; a caller that is about to wait looks again.
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

    /// Ends the flight, because the fill has ended: wakes all that are left.
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
    /// A thread, if there is one: it is sure to come. A task may have been forgotten, so all of them
    /// are woken, and the first that comes leads. A waiter for the end is woken too, because it must
    /// not wait for them.
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

    /// When the fill began, if that was noted.
    pub(crate) fn began(&self) -> Option<u64> {
        lock(&self.room).began
    }

    /// Returns the leader, and how many wait.
    pub(crate) fn crew(&self) -> (u64, usize) {
        let room = lock(&self.room);
        (room.leader, room.waiters.len() - room.free.len())
    }

    /// Takes the stored fill, if it has no waiters for its value any more.
    pub(crate) fn take_unwanted(&self) -> Option<Job> {
        lock(&self.room).take_unwanted()
    }

    /// Returns the leader that a waiter depends on; none once its value or its end has come.
    pub(crate) fn blocks(&self, waits_for: WaitFor) -> Option<u64> {
        let room = lock(&self.room);
        let over = room.ended || waits_for == WaitFor::Value && room.outcome.is_some();
        // While the lead is on its way a waiter is about to wake up and lead: none is blocked. (It may be the caller
        // itself, handed the lead between its enlisting and its asking.)
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

    /// Takes the wakers of the sleeping waiters, who stay on the list.
    fn take_wakers(&mut self, which: impl Fn(&Waiter) -> bool) -> Vec<Waker> {
        let waiters = self.waiters.iter_mut().flatten();
        let woken = waiters.filter(|waiter| which(waiter));
        woken.filter_map(|waiter| waiter.waker.take()).collect()
    }

    /// Takes the stored fill, if no waiter for its value is left.
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

/// Wakes all of these, the first to come first. One waker that panics does not keep the next asleep.
fn wake(wakers: Vec<Waker>) {
    for waker in wakers {
        // The panic of a waker has no one caller to go to: the waiter that it wakes is not on this stack.
        contain(|| waker.wake());
    }
}
