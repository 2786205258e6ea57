//! Taking part in a flight: as its leader, as one who waits, and what comes out of it.

use super::{Core, Node};
use crate::actor::actor;
use crate::cycle::{Leading, Waiting, Words, leads_any, within};
use crate::error::CycleError;
use crate::flight::{Flight, Outcome, SharedError, Ticket, Verdict, WaitFor};
use crate::reclaim::{Pin, pin};
use crate::slot::State;
use crate::stats::Event;
use crate::sync::{Arc, Parker};
use std::hash::{BuildHasher, Hash};
use std::time::Instant;

/// A value, kept by the pin that comes with it.
pub(crate) struct Found<'c, K, V> {
    pin: Pin,
    node: *const Node<K, V>,
    _core: std::marker::PhantomData<&'c Node<K, V>>,
}

impl<K, V> Found<'_, K, V> {
    /// # Safety
    /// `node` has a value, and was linked or held at some moment since `pin` was taken.
    pub(super) unsafe fn new(pin: Pin, node: *const Node<K, V>) -> Self {
        Self {
            pin,
            node,
            _core: std::marker::PhantomData,
        }
    }

    pub(crate) fn value(&self) -> &V {
        // SAFETY: `new` was promised a node with a value, which our pin keeps.
        unsafe { crate::reclaim::deref(self.node, &self.pin).slot.value() }
    }

    /// The value and the pin that keeps it, for a view that lends both on.
    ///
    /// The reference is good for as long as the pin is held.
    pub(crate) fn into_parts(self) -> (Pin, *const V) {
        let value = std::ptr::from_ref(self.value());
        (self.pin, value)
    }
}

/// The right, and the duty, to end a flight. Dropped without a value it passes the lead on, or
/// ends the flight without one: the one way all failures take.
pub(crate) struct Leader<'c, K: Hash + Eq, V, S: BuildHasher> {
    core: &'c Core<K, V, S>,
    node: *const Node<K, V>,
    hash: u64,
    /// What becomes of the flight if nothing else is said.
    ending: Ending,
    leading: Option<Leading>,
}

/// How a flight ends that has no value.
enum Ending {
    /// The leader is lost: another waiter leads, if there is one.
    Lost,
    /// The fill said so. With `keep_prior` what was there before is put back.
    Without { outcome: Outcome, keep_prior: bool },
    /// The slot is `GONE` already, and was in this state before.
    Finished(State),
    /// It has a value.
    Over,
}

impl<'c, K: Hash + Eq, V, S: BuildHasher> Leader<'c, K, V, S> {
    /// The lead of a slot that this thread has just put into the table, or been handed.
    pub(super) fn new(core: &'c Core<K, V, S>, node: *const Node<K, V>, hash: u64) -> Self {
        core.stats.count(Event::Fill);
        Self {
            core,
            node,
            hash,
            ending: Ending::Lost,
            leading: Some(Leading::begin()),
        }
    }

    fn node(&self) -> &'c Node<K, V> {
        // SAFETY: a leader has the slot's `HELD` hold until its flight has ended.
        unsafe { &*self.node }
    }

    pub(crate) fn core(&self) -> &'c Core<K, V, S> {
        self.core
    }

    /// The key that is filled.
    pub(crate) fn key(&self) -> &K {
        &self.node().key
    }

    /// Runs a fill of this flight, with nothing held but the lead.
    pub(crate) fn run<R>(&self, fill: impl FnOnce(&K) -> R) -> R {
        let node = self.node();
        let describe = || self.core.describe(&node.key);
        within(node.slot.address(), &describe, || fill(&node.key))
    }

    /// What the value weighs; `None`: too much.
    fn weigh(&self, value: &V) -> Option<u64> {
        if !self.core.has_weigher() {
            return self.core.weigh(self.key(), value).ok();
        }
        // Foreign code, and as much a part of the fill as what made the value.
        self.run(|key| self.core.weigh(key, value)).ok()
    }

    /// Ends the flight with a value. The second answer says whether the cache keeps it: not if
    /// the flight was fenced off, the value's time is over at once, or it is too heavy.
    pub(crate) fn publish(mut self, value: V) -> (Found<'c, K, V>, bool) {
        let weight = self.weigh(&value);
        let deadline = self.core.deadline();
        let node = self.node();
        let owed = self.core.charge(weight.unwrap_or(0));
        let mut pin = pin();
        // SAFETY: we are the leader, and `Ending::Over` below makes this the one end.
        let (before, prior) = unsafe { node.slot.publish(value, deadline, weight) };
        self.ending = Ending::Over;
        let mut replaced = 0;
        if let Some(prior) = prior {
            // SAFETY: held by our slot until now.
            let prior = unsafe { &*(prior as *const Node<K, V>) };
            let event = self.core.unless_expired(prior, Event::Replaced);
            replaced = self.core.released(prior, event);
        }
        // Not live: it was fenced off before, or its time is over at once.
        let live = node.slot.state().is_live();
        let kept = live && before.is_linked();
        if kept {
            self.core.len.add(1);
        } else {
            self.core.discharge(weight.unwrap_or(0));
        }
        if !live {
            self.core
                .unlink_node(self.hash, node, Event::Explicit, &pin);
        }
        if let Some(flight) = before.flight() {
            // Wakers are foreign code: no pin.
            drop(pin);
            // SAFETY: the leader takes part, which keeps the flight.
            let flight = unsafe { &*flight };
            // They have one already if an insert cut the flight off.
            let _ = flight.resolve(Outcome::Published);
            flight.end();
            pin = crate::reclaim::pin();
        }
        if kept {
            let owed = owed.saturating_sub(replaced);
            self.core.make_room(owed, self.hash, node, &pin);
        }
        if !before.lets_go() {
            self.core.leave(node, before.flight());
        }
        // SAFETY: published, and held by us until after the pin was taken.
        (unsafe { Found::new(pin, node) }, kept)
    }

    /// Ends the flight with the fill's error, which `share` makes if anybody waits for it.
    pub(crate) fn fail(mut self, share: impl FnOnce() -> SharedError) {
        let slot = &self.node().slot;
        loop {
            let seen = slot.state();
            if seen.flight().is_some() {
                // A clone of an error is foreign code; until it is there we are a leader like
                // any other.
                let outcome = Outcome::Failed(share());
                self.ending = Ending::Without {
                    outcome,
                    keep_prior: true,
                };
                break;
            }
            // Fails if somebody has begun to wait since: they are to have the error.
            if let Some(before) = slot.finish(seen, false) {
                self.ending = Ending::Finished(before);
                break;
            }
        }
        self.core.stats.count(Event::FillError);
    }

    /// Ends the flight without a value, and takes what was there before with it unless
    /// `keep_prior`.
    pub(crate) fn withdraw(mut self, keep_prior: bool) {
        self.core.stats.count(Event::FillError);
        self.ending = Ending::Without {
            outcome: Outcome::Nothing,
            keep_prior,
        };
    }

    /// Passes the lead on. False: nobody waits, and the slot was finished for all.
    fn hand_over(&self) -> Result<(), State> {
        let slot = &self.node().slot;
        loop {
            let seen = slot.state();
            // A flight that was fenced off is not worth another fill: look again, all.
            if let (Some(flight), false) = (seen.flight(), seen.is_cut()) {
                // SAFETY: the leader takes part, which keeps the flight.
                if unsafe { &*flight }.hand_over() {
                    self.core.leave_part(self.node(), flight);
                    return Ok(());
                }
            }
            if let Some(before) = slot.finish(seen, false) {
                return Err(before);
            }
        }
    }

    fn finish(&self, keep_prior: bool) -> State {
        let slot = &self.node().slot;
        loop {
            if let Some(before) = slot.finish(slot.state(), !keep_prior) {
                return before;
            }
        }
    }

    /// The slot is `GONE`: takes it out of the table, or puts back what it stood before.
    fn clear_away(&self, cut: bool, keep_prior: bool) {
        let (core, node) = (self.core, self.node());
        let pin = pin();
        if cut || !keep_prior {
            core.unlink_node(self.hash, node, Event::Explicit, &pin);
            core.drop_prior(node, Event::Explicit);
            return;
        }
        // Nobody cuts off what has ended: what it stands before is ours to put back. The slot goes
        // on saying what that is: a reader that comes from the table a moment late is to find it.
        // Its pin keeps that, as it keeps the slot.
        let Some(prior) = node.slot.prior() else {
            core.unlink_node(self.hash, node, Event::Explicit, &pin);
            return;
        };
        let prior = prior as *const Node<K, V>;
        if !core.restore(self.hash, node, prior, &pin) {
            // SAFETY: held by our slot, which has lost its place.
            core.released(unsafe { &*prior }, Event::Explicit);
        }
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Drop for Leader<'_, K, V, S> {
    fn drop(&mut self) {
        // First of all: what follows runs no fill, and this thread leads one less.
        self.leading = None;
        let (before, outcome, keep_prior) = match std::mem::replace(&mut self.ending, Ending::Over)
        {
            Ending::Over => return,
            Ending::Finished(before) => (before, Outcome::Nothing, true),
            Ending::Without {
                outcome,
                keep_prior,
            } => (self.finish(keep_prior), outcome, keep_prior),
            Ending::Lost => {
                self.core.stats.count(if std::thread::panicking() {
                    Event::FillPanic
                } else {
                    Event::FillCancelled
                });
                match self.hand_over() {
                    Ok(()) => return,
                    Err(before) => (before, Outcome::Nothing, true),
                }
            }
        };
        self.clear_away(before.is_cut(), keep_prior);
        // An error that nobody wants is dropped last: that is foreign code.
        let mut _unwanted = None;
        if let Some(flight) = before.flight() {
            // SAFETY: the leader takes part, which keeps the flight.
            let flight = unsafe { &*flight };
            _unwanted = flight.resolve(outcome).err();
            flight.end();
        }
        self.core.leave(self.node(), before.flight());
    }
}

/// A share in a flight that somebody else leads. Keeps its slot and the flight.
pub(crate) struct Part<'c, K: Hash + Eq, V, S: BuildHasher> {
    pub(super) core: &'c Core<K, V, S>,
    pub(super) node: *const Node<K, V>,
    pub(super) flight: *const Flight,
    pub(super) waits_for: WaitFor,
}

/// What a wait ended with.
pub(crate) enum Waited<'c, K: Hash + Eq, V, S: BuildHasher> {
    Found(Found<'c, K, V>),
    Lead(Leader<'c, K, V, S>),
    Failed(SharedError),
    /// Look into the table again.
    Again,
    TimedOut,
}

impl<'c, K: Hash + Eq, V, S: BuildHasher> Part<'c, K, V, S> {
    pub(super) fn node(&self) -> &'c Node<K, V> {
        // SAFETY: the slot is held for as long as anybody takes part in its flight.
        unsafe { &*self.node }
    }

    pub(super) fn flight(&self) -> &'c Flight {
        // SAFETY: who takes part keeps the flight.
        unsafe { &*self.flight }
    }

    /// The key whose flight this is.
    pub(crate) fn key(&self) -> &'c K {
        &self.node().key
    }

    /// One more part in the same flight.
    pub(crate) fn again(&self) -> Self {
        // We take part, so the flight is not over.
        let joined = self.flight().join();
        debug_assert!(joined);
        Part {
            core: self.core,
            node: self.node,
            flight: self.flight,
            waits_for: self.waits_for,
        }
    }

    /// Sleeps until what this part waits for has come. Fails at once if that would close a
    /// cycle.
    pub(crate) fn wait(
        self,
        hash: u64,
        until: Option<Instant>,
    ) -> Result<Waited<'c, K, V, S>, CycleError> {
        // A thread that leads nothing closes no cycle, and stays out of the graph. What is said of
        // the keys is foreign code (`Debug`), which may wait here itself: before we are on a list.
        let words = leads_any().then(|| Words::of(self.core.describe(&self.node().key)));
        let parker = Parker::new();
        let ticket = self
            .flight()
            .enlist(self.waits_for, actor(), Arc::clone(&parker).into());
        let enlisted = Enlisted {
            part: Some(self),
            ticket,
            hash,
        };
        let edge = words.map(|words| enlisted.enter_graph(words)).transpose()?;
        loop {
            // Look, and only then sleep: what came before we were on the list woke nobody.
            if let Some(verdict) = enlisted.look() {
                // Before our part: who follows the edge comes to the flight.
                drop(edge);
                return Ok(enlisted.conclude(verdict));
            }
            if !park(&parker, until) {
                drop(edge);
                return Ok(Waited::TimedOut);
            }
        }
    }
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

/// A part that is on its flight's list. Dropped early, it leaves nothing behind.
struct Enlisted<'c, K: Hash + Eq, V, S: BuildHasher> {
    part: Option<Part<'c, K, V, S>>,
    ticket: Ticket,
    hash: u64,
}

impl<'c, K: Hash + Eq, V, S: BuildHasher> Enlisted<'c, K, V, S> {
    fn part(&self) -> &Part<'c, K, V, S> {
        self.part.as_ref().expect("there until it is concluded")
    }

    fn look(&self) -> Option<Verdict> {
        let part = self.part();
        part.flight().look(&self.ticket)
    }

    fn enter_graph(&self, words: Words) -> Result<Waiting, CycleError> {
        let part = self.part();
        Waiting::enter(part.flight, part.waits_for, words).map_err(CycleError::new)
    }

    fn conclude(mut self, verdict: Verdict) -> Waited<'c, K, V, S> {
        let part = self.part();
        let waited = match verdict {
            Verdict::Lead => Waited::Lead(self.take_lead()),
            Verdict::Ended | Verdict::Outcome(Outcome::Nothing) => Waited::Again,
            Verdict::Outcome(Outcome::Failed(error)) => Waited::Failed(error),
            Verdict::Outcome(Outcome::Published) => {
                // SAFETY: the outcome says that the slot has its value; our part, which is
                // dropped after the pin was taken, holds it.
                Waited::Found(unsafe { Found::new(pin(), part.node) })
            }
            Verdict::Outcome(Outcome::Replaced(object)) => {
                // SAFETY: as above, of the object that the flight holds for its readers; we are
                // one until we are off the list.
                Waited::Found(unsafe { Found::new(pin(), object as *const Node<K, V>) })
            }
        };
        // Off the list only now that the pin has been taken.
        drop(self);
        waited
    }

    /// Our share in the flight becomes the leader's.
    fn take_lead(&mut self) -> Leader<'c, K, V, S> {
        let leader = Leader::new(self.part().core, self.part().node, self.hash);
        let part = self.part.take().expect("taken once");
        self.leave_list(&part);
        std::mem::forget(part);
        leader
    }

    /// True: the lead was ours for the taking.
    fn leave_list(&self, part: &Part<'c, K, V, S>) -> bool {
        let delisted = part.flight().delist(&self.ticket);
        if let Some(replacement) = delisted.replacement {
            // SAFETY: held for the flight's readers, of whom we were the last.
            part.core
                .release_held(unsafe { &*(replacement as *const Node<K, V>) });
        }
        delisted.had_baton
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Drop for Enlisted<'_, K, V, S> {
    fn drop(&mut self) {
        let Some(part) = self.part.take() else {
            return;
        };
        if self.leave_list(&part) {
            // Take the lead, and pass it on by dropping it.
            drop(Leader::new(part.core, part.node, self.hash));
            std::mem::forget(part);
        }
    }
}
