//! Sharing in a flight that another thread or task leads: waiting for its outcome, or for its end.

use super::remove::After;
use super::{Core, Detached, Found, Leader, Node};
use crate::actor::actor;
use crate::blocking::{Verb, in_poll};
use crate::cycle::{Waiting, Who, Words, who_awaits, who_blocks};
use crate::error::CycleError;
use crate::flight::{Flight, Job, Look, Outcome, SharedError, Ticket, Verdict, WaitFor};
use crate::foreign::contain;
use crate::reclaim::{Pin, pin};
use crate::sync::{Arc, Parker};
use std::hash::{BuildHasher, Hash};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// A share in a flight that another thread or task leads. Keeps the slot and the flight.
pub(crate) struct Part<'c, K: Hash + Eq, V, S: BuildHasher> {
    pub(super) core: &'c Core<K, V, S>,
    pub(super) node: *const Node<K, V>,
    /// The node that this one is to replace; null for a first fill.
    pub(super) current: *const Node<K, V>,
    pub(super) flight: *const Flight,
    pub(super) waits_for: WaitFor,
}

/// The result of a wait.
pub(crate) enum Waited<'c, K: Hash + Eq, V, S: BuildHasher> {
    Found(Found<'c, K, V>),
    Lead(Leader<'c, K, V, S>),
    Failed(SharedError),
    /// Look into the table again.
    Again,
    TimedOut,
}

impl<'c, K: Hash + Eq, V, S: BuildHasher> Part<'c, K, V, S> {
    /// Returns the share of a caller that has joined the flight.
    pub(super) fn new(
        core: &'c Core<K, V, S>,
        node: &Node<K, V>,
        current: *const Node<K, V>,
        flight: *const Flight,
        waits_for: WaitFor,
    ) -> Self {
        Self {
            core,
            node,
            current,
            flight,
            waits_for,
        }
    }

    /// Returns the node in the table for a fill that runs: the node that is filled, or the one that it is to replace.
    /// `None`: the fill has ended, or was abandoned.
    pub(super) fn in_table<'p>(&self, _pin: &'p Pin) -> Option<&'p Node<K, V>> {
        let state = self.node().slot.state();
        if !state.is_filling() || state.is_unhooked() {
            return None;
        }
        if self.current.is_null() {
            // SAFETY: our share keeps it; once the share is gone, the pin does.
            return Some(unsafe { &*self.node });
        }
        // SAFETY: the fill ran after the pin was taken, and until its end the refresh holds the current node.
        Some(unsafe { &*self.current })
    }

    pub(super) fn node(&self) -> &'c Node<K, V> {
        // SAFETY: the slot is held for as long as there is a share in its flight.
        unsafe { &*self.node }
    }

    pub(super) fn flight(&self) -> &'c Flight {
        // SAFETY: our share keeps the flight.
        unsafe { &*self.flight }
    }

    /// Returns the key of the flight.
    pub(crate) fn key(&self) -> &'c K {
        &self.node().key
    }

    /// Takes one more count on the flight, for a holder that outlives our share.
    fn shared_flight(&self) -> Arc<Flight> {
        // SAFETY: the address is from `Arc::into_raw`, and our share keeps the flight.
        unsafe {
            Arc::increment_strong_count(self.flight);
            Arc::from_raw(self.flight)
        }
    }

    /// Gives a fill that no caller waits for any more to the spawner, or drops it.
    pub(super) fn abandon(&self, job: Job) {
        contain(|| match &self.core.spawner {
            Some(spawner) if !self.node().slot.state().is_detached() => spawner(Box::pin(Orphan {
                job: Some(job),
                flight: self.shared_flight(),
            })),
            _ => drop(job),
        });
    }

    /// Takes one more share in the same flight.
    pub(crate) fn again(&self) -> Self {
        // We have a share, so the flight is not over.
        let joined = self.flight().join();
        debug_assert!(joined);
        Part { ..*self }
    }

    /// Starts to wait. If the waiter has to lead, it leads as `actor`.
    pub(crate) fn wait_as(self, actor: u64, hash: u64) -> Wait<'c, K, V, S> {
        Wait {
            part: Some(self),
            place: None,
            hash,
            actor,
        }
    }

    /// Starts to wait, as [`wait_as`](Self::wait_as) does, and puts the waiter on the list at once.
    pub(super) fn enlisted_as(self, actor: u64, hash: u64) -> Wait<'c, K, V, S> {
        let place = Place {
            ticket: self.flight().enlist(self.waits_for, actor),
            waits: None,
            edge: None,
        };
        let mut wait = self.wait_as(actor, hash);
        wait.place = Some(place);
        wait
    }

    /// Sleeps until the outcome, or the end, that this share waits for has come. Fails at once if the wait would close
    /// a cycle.
    #[track_caller]
    pub(crate) fn wait(
        self,
        hash: u64,
        until: Option<Instant>,
        verb: &Verb,
    ) -> Result<Waited<'c, K, V, S>, CycleError> {
        self.wait_as(actor(), hash).block(until, verb)
    }
}

/// One of several waits for the ends of fills.
pub(crate) struct Awaited<'c, K: Hash + Eq, V, S: BuildHasher> {
    wait: Wait<'c, K, V, S>,
    /// Kept until the fill has ended, and no longer: then the slot goes with it.
    fill: Detached<'c, K, V, S>,
}

impl<'c, K: Hash + Eq, V, S: BuildHasher> Awaited<'c, K, V, S> {
    pub(crate) fn new(fill: Detached<'c, K, V, S>, actor: u64) -> Self {
        let hash = fill.part.core.hash(fill.part.key());
        let wait = fill.part.again().wait_as(actor, hash);
        Self { wait, fill }
    }

    /// Returns the share in the fill.
    pub(crate) fn into_part(self) -> Part<'c, K, V, S> {
        self.fill.part
    }

    /// Takes one `step` of each wait, and ends those that are over, in any order. Returns true when none is left.
    /// `over` is told of each that ends, and whether it would have closed a cycle; it may return one more flight to
    /// wait for.
    fn step_all(
        all: &mut Vec<Self>,
        step: &mut dyn FnMut(
            &mut Wait<'c, K, V, S>,
        ) -> Poll<Result<Waited<'c, K, V, S>, CycleError>>,
        over: Over<'_, 'c, K, V, S>,
    ) -> bool {
        let mut at = 0;
        while let Some(this) = all.get_mut(at) {
            let Poll::Ready(waited) = step(&mut this.wait) else {
                at += 1;
                continue;
            };
            let is_cycle = waited.is_err();
            drop(waited);
            let more = all.swap_remove(at).ended(is_cycle, over);
            all.extend(more);
        }
        all.is_empty()
    }

    /// Leaves the flight's list and tells `over`. Returns the wait for one more flight, if `over` named one.
    fn ended(self, is_cycle: bool, over: Over<'_, 'c, K, V, S>) -> Option<Self> {
        let Self { wait, fill } = self;
        let (core, actor) = (fill.part.core, wait.actor);
        drop(wait);
        let more = over(&fill, is_cycle);
        drop(fill);
        core.tidy();
        more.map(|more| Self::new(more, actor))
    }

    /// Takes one step of each of these waits of a task: see [`step_all`](Self::step_all).
    pub(crate) fn poll_all(
        all: &mut Vec<Self>,
        waker: &Waker,
        over: Over<'_, 'c, K, V, S>,
    ) -> bool {
        let _inside = in_poll();
        Self::step_all(all, &mut |wait| wait.step(waker, who_awaits()), over)
    }

    /// Sleeps until all of these waits are over, as [`Wait::block`] does. Returns the waits that are not over by
    /// `until`.
    #[track_caller]
    pub(crate) fn block_all(
        mut all: Vec<Self>,
        until: Option<Instant>,
        verb: &Verb,
        over: Over<'_, 'c, K, V, S>,
    ) -> Vec<Self> {
        if all.is_empty() {
            return all;
        }
        let parker = Parker::new();
        let waker = Arc::clone(&parker).into();
        let mut may_sleep = false;
        loop {
            // Look, and only then sleep: an event that came before we were on the lists has woken no thread.
            let step = &mut |wait: &mut Wait<'c, K, V, S>| wait.step(&waker, who_blocks());
            if Self::step_all(&mut all, step, over) || until.is_some_and(is_over) {
                return all;
            }
            if !may_sleep {
                if let Some(place) = Verb::forbidden() {
                    let goes_on = verb.goes_on();
                    // Ends the waits here: a detached fill stays so, and one that is still to be judged is given up.
                    all.retain(|this| goes_on || this.fill.after == After::Judge);
                    while let Some(this) = all.pop() {
                        this.ended(true, over);
                    }
                    if !goes_on {
                        verb.refuse(place);
                    }
                    return all;
                }
                may_sleep = true;
            }
            if !park(&parker, until) {
                return all;
            }
        }
    }
}

/// Called when one of several waits is over: see [`Awaited::step_all`].
pub(crate) type Over<'o, 'c, K, V, S> =
    &'o mut dyn FnMut(&Detached<'c, K, V, S>, bool) -> Option<Detached<'c, K, V, S>>;

/// Says whether a deadline has passed.
fn is_over(until: Instant) -> bool {
    // In a model time does not pass: see `Parker::park_until`.
    !cfg!(atomic_cache_loom) && Instant::now() >= until
}

fn park(parker: &Parker, until: Option<Instant>) -> bool {
    if let Some(until) = until {
        return parker.park_until(until);
    }
    parker.park();
    true
}

impl<K: Hash + Eq, V, S: BuildHasher> Drop for Part<'_, K, V, S> {
    fn drop(&mut self) {
        self.core.leave_part(self.node(), self.flight);
    }
}

// SAFETY: a share is two counts (on the slot and on the flight) and a reference. The objects behind them are shared by
// threads that have a handle (`Core: Sync`), and dropped on any thread (`Send`).
unsafe impl<K: Hash + Eq, V, S: BuildHasher> Send for Part<'_, K, V, S>
where
    K: Send + Sync,
    V: Send + Sync,
    S: Send + Sync,
{
}

/// A wait, of a thread or of a task. Dropped early, it leaves nothing behind.
pub(crate) struct Wait<'c, K: Hash + Eq, V, S: BuildHasher> {
    /// Dropped after our place on its list.
    part: Option<Part<'c, K, V, S>>,
    place: Option<Place>,
    hash: u64,
    /// The number under which we lead, if the lead is handed to us.
    actor: u64,
}

/// A place on a flight's list, and in the wait-for graph.
struct Place {
    ticket: Ticket,
    /// The waiter's number in the graph. `None`: the waiter leads nothing, and is not in the graph.
    waits: Option<Who>,
    edge: Option<Waiting>,
}

impl Place {
    /// Leaves the graph. Comes before our share is given up, because a thread that follows the edge comes to the
    /// flight.
    fn without_edge(self) -> Self {
        Self { edge: None, ..self }
    }
}

impl<'c, K: Hash + Eq, V, S: BuildHasher> Wait<'c, K, V, S> {
    fn part(&self) -> &Part<'c, K, V, S> {
        self.part.as_ref().expect("there until the wait is over")
    }

    /// Sleeps until the wait is over. Panics where this thread may not sleep, and names the methods to use instead of
    /// `verb`.
    #[track_caller]
    pub(crate) fn block(
        mut self,
        until: Option<Instant>,
        verb: &Verb,
    ) -> Result<Waited<'c, K, V, S>, CycleError> {
        let parker = Parker::new();
        let waker = Arc::clone(&parker).into();
        let mut may_sleep = false;
        loop {
            // Look, and only then sleep: an event that came before we were on the list has woken no thread.
            if let Poll::Ready(waited) = self.step(&waker, who_blocks()) {
                return waited;
            }
            // On every turn: a fill that wakes each thread that polls it lets none of them sleep.
            if until.is_some_and(is_over) {
                return Ok(Waited::TimedOut);
            }
            if !may_sleep {
                if let Some(place) = Verb::forbidden() {
                    drop(self);
                    if verb.goes_on() {
                        return Err(CycleError::new(vec![]));
                    }
                    verb.refuse(place);
                }
                may_sleep = true;
            }
            if !park(&parker, until) {
                return Ok(Waited::TimedOut);
            }
        }
    }

    /// Takes one step of a task's wait. Returns the result, or `Pending`: then `waker` is to be woken. Polls the fill
    /// if that is needed. Fails at once if waiting would close a cycle.
    pub(crate) fn poll(&mut self, waker: &Waker) -> Poll<Result<Waited<'c, K, V, S>, CycleError>> {
        let _inside = in_poll();
        self.step(waker, who_awaits())
    }

    /// Takes one step of the wait, for a thread or a task; `waits` names the waiter in the wait-for graph.
    fn step(
        &mut self,
        waker: &Waker,
        waits: Option<Who>,
    ) -> Poll<Result<Waited<'c, K, V, S>, CycleError>> {
        // A future may be polled by one fill and then by another.
        if self.place.as_ref().is_none_or(|place| place.waits != waits) {
            let before = self.place.take().map(Place::without_edge);
            let enlisted = self.enlist(waits);
            // Only now: when the last waiter of a stored fill leaves, the fill goes with it.
            if before.is_some_and(|place| self.leave(place)) {
                return Poll::Ready(Ok(Waited::Lead(self.take_lead())));
            }
            enlisted?;
        }
        let (mut may_drive, mut ungiven) = (true, Some(waker));
        loop {
            let flight = self.part().flight();
            let place = self.place.as_ref().expect("enlisted above");
            match flight.look(&place.ticket, ungiven, may_drive) {
                Look::Verdict(Verdict::Lead) if !self.is_to_lead() => self.end_flight(),
                Look::Verdict(verdict) => {
                    self.place = self.place.take().map(Place::without_edge);
                    return Poll::Ready(Ok(self.conclude(verdict)));
                }
                Look::Drive(job) => {
                    if self.part().waits_for == WaitFor::Value {
                        self.drive(job);
                    } else {
                        // This waiter has not asked for the value, so a panic of the fill is not for it.
                        contain(|| self.drive(job));
                    }
                    // Once: a fill that asks at once to be polled again lets the others have a turn.
                    may_drive = false;
                }
                Look::GiveWaker => {
                    // Cloning a waker is user code.
                    flight.give(&place.ticket, waker.clone());
                    ungiven = None;
                }
                Look::ComeBack => {
                    contain(|| waker.wake_by_ref());
                    return Poll::Pending;
                }
                Look::Sleep => return Poll::Pending,
            }
        }
    }

    /// Gets on the list, and into the graph if the waiter leads a fill.
    fn enlist(&mut self, waits: Option<Who>) -> Result<(), CycleError> {
        let part = self.part();
        // Describing the key runs user code (`Debug`), which may itself wait here: so before we are on a list.
        let words = waits.map(|_| Words::of(part.core.describe(&part.node().key)));
        let ticket = part.flight().enlist(part.waits_for, self.actor);
        let (flight, waits_for) = (part.flight, part.waits_for);
        let place = self.place.insert(Place {
            ticket,
            waits,
            edge: None,
        });
        if let Some((us, words)) = waits.zip(words) {
            let edge = Waiting::enter(us, flight, waits_for, words);
            place.edge = Some(edge.map_err(CycleError::new)?);
        }
        Ok(())
    }

    /// Polls the fill that is kept in the flight, on behalf of every waiter.
    fn drive(&self, job: Job) {
        let part = self.part();
        let waker = Waker::from(part.shared_flight());
        let mut driving = Driving {
            flight: part.flight(),
            job: Some(job),
        };
        let job = driving.job.as_mut().expect("put in above");
        if job
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
        {
            let job = driving.job.take().expect("put in above");
            if let Some(job) = part.flight().keep_on(job) {
                part.abandon(job);
            }
        }
    }

    fn conclude(&mut self, verdict: Verdict) -> Waited<'c, K, V, S> {
        let part = self.part();
        let waited = match verdict {
            Verdict::Lead => return Waited::Lead(self.take_lead()),
            Verdict::Ended | Verdict::Outcome(Outcome::Nothing) => Waited::Again,
            Verdict::Outcome(Outcome::Failed(error)) => Waited::Failed(error),
            Verdict::Outcome(Outcome::Published) => {
                // SAFETY: the outcome says that the slot has its value. Our share holds the slot, and is dropped after
                // the pin was taken.
                Waited::Found(unsafe { Found::new(pin(), part.node) })
            }
            Verdict::Outcome(Outcome::Replaced(object)) => {
                // SAFETY: the outcome says that the object has a value. The flight holds the object for its readers,
                // and we are one of them until we are off the list, which is after the pin was taken.
                Waited::Found(unsafe { Found::new(pin(), object as *const Node<K, V>) })
            }
        };
        // Leave the list only now that the pin has been taken.
        self.give_up();
        waited
    }

    /// Says whether we go on with a lead. A waiter for the end does not, and a flight that has been detached is not
    /// worth another fill.
    fn is_to_lead(&self) -> bool {
        let part = self.part();
        part.waits_for == WaitFor::Value && !part.node().slot.state().is_detached()
    }

    /// Ends a flight whose lead is not for us to go on with. No fill runs, and no caller is to wait for a waiter that
    /// was handed the lead and has not come. All callers look again, unless they have got their value.
    fn end_flight(&self) {
        drop(Leader::ending(self.part().again(), self.hash));
    }

    /// Makes our share in the flight the leader's.
    fn take_lead(&mut self) -> Leader<'c, K, V, S> {
        let Part {
            core,
            node,
            current,
            ..
        } = *self.part();
        let leader = Leader::new(core, node, current, self.hash, self.actor);
        self.leave_list();
        std::mem::forget(self.part.take());
        leader
    }

    /// Leaves the list. True: the lead was handed to us.
    fn leave_list(&mut self) -> bool {
        self.place.take().is_some_and(|place| self.leave(place))
    }

    /// Leaves the list at `place`, which was taken out of this wait before. True: the lead was handed to us.
    fn leave(&self, place: Place) -> bool {
        let Place { ticket, .. } = place.without_edge();
        let part = self.part();
        let delisted = part.flight().delist(&ticket);
        if let Some(replacement) = delisted.replacement {
            // SAFETY: it is held for the flight's readers, and we were the last of them.
            part.core
                .release_held(unsafe { &*(replacement as *const Node<K, V>) });
        }
        if let Some(job) = delisted.job {
            part.abandon(job);
        }
        delisted.had_baton
    }

    /// Leaves the list and the flight; a lead that was handed to us is passed on.
    fn give_up(&mut self) {
        if self.part.is_none() {
            return;
        }
        let had_baton = self.leave_list();
        if let (true, Some(part)) = (had_baton, self.part.take()) {
            drop(Leader::declining(part, self.hash));
        }
        self.part = None;
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Drop for Wait<'_, K, V, S> {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// A fill that has been taken from its flight to be polled. Dropped with the fill inside when that is done or panics:
/// drops the rest of the fill, which passes its lead on.
struct Driving<'c> {
    flight: &'c Flight,
    job: Option<Job>,
}

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            // First: the next leader may have a fill to be kept.
            self.flight.keep_none();
            contain(|| drop(job));
        }
    }
}

/// A fill that goes on elsewhere, and that no caller waits for. Drops the fill when it is abandoned.
struct Orphan {
    job: Option<Job>,
    flight: Arc<Flight>,
}

impl Future for Orphan {
    type Output = ();

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let _inside = in_poll();
        // Before the fill is polled: a thread that abandons it wakes us.
        if self.flight.adopt(cx.waker().clone()) {
            self.job = None;
        }
        match &mut self.job {
            Some(job) => job.as_mut().poll(cx),
            None => Poll::Ready(()),
        }
    }
}
