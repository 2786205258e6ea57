//! Taking part in a flight: as its leader, as one who waits, and what comes out of it.

use super::{Core, Fenced, Node};
use crate::actor::{actor, is_fill};
use crate::blocking::{Verb, in_poll};
use crate::bound::MAX_WEIGHT;
use crate::cycle::{Leading, Waiting, Who, Words, who_awaits, who_blocks, within};
use crate::error::CycleError;
use crate::flight::{Flight, Job, Look, Outcome, SharedError, Ticket, Verdict, WaitFor};
use crate::foreign::contain;
use crate::interlude::come_by;
use crate::reclaim::{Pin, pin};
use crate::slot::{Slot, State};
use crate::stats::Event;
use crate::sync::{Arc, Parker};
use crate::time::Deadline;
use std::hash::{BuildHasher, Hash};
use std::task::{Context, Poll, Waker};
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
    pub(super) hash: u64,
    /// Who leads.
    pub(super) actor: u64,
    /// What becomes of the flight if nothing else is said.
    ending: Ending,
    /// The value is in the slot's cell, and not yet published: it is ours.
    full: bool,
    pub(super) leading: Option<Leading>,
}

/// The empty cell of a slot, lent to a fill. The fill writes its value there at once, so that a large value is not copied
/// from frame to frame.
pub(crate) struct Blank<'a, V> {
    slot: &'a Slot<V>,
    full: &'a mut bool,
}

impl<V> Blank<'_, V> {
    #[inline]
    pub(crate) fn put(&mut self, value: V) {
        assert!(!*self.full, "a fill has one value");
        // SAFETY: it borrows the leader, which has not ended the flight: that takes it by value.
        unsafe { self.slot.write(value) };
        *self.full = true;
    }

    /// The value of a fill that can fail.
    #[inline]
    pub(crate) fn try_put<E>(&mut self, result: Result<V, E>) -> Result<(), E> {
        match result {
            Ok(value) => self.put(value),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// How a flight ends that has no value.
enum Ending {
    /// The leader is lost: another waiter leads, if there is one.
    Lost,
    /// As `Lost`, of a leader that has run no fill.
    Declined,
    /// The fill said so. With `keep_prior` what was there before is put back.
    Without { outcome: Outcome, keep_prior: bool },
    /// The slot is `GONE` already, and was in this state before.
    Finished { before: State, keep_prior: bool },
    /// It has a value.
    Over,
}

impl<'c, K: Hash + Eq, V, S: BuildHasher> Leader<'c, K, V, S> {
    /// The lead of a slot that `actor` has just put into the table, or been handed.
    pub(super) fn new(
        core: &'c Core<K, V, S>,
        node: *const Node<K, V>,
        hash: u64,
        actor: u64,
    ) -> Self {
        core.stats.count(Event::Fill);
        Self {
            core,
            node,
            hash,
            actor,
            ending: Ending::Lost,
            full: false,
            // A fill that is polled is known by that.
            leading: (!is_fill(actor)).then(Leading::begin),
        }
    }

    /// The lead of one who is going to run no fill. Our caller's share in the flight is now ours.
    fn to_end(part: Part<'c, K, V, S>, hash: u64, ending: Ending) -> Self {
        let leader = Self {
            core: part.core,
            node: part.node,
            hash,
            actor: 0,
            ending,
            full: false,
            leading: None,
        };
        std::mem::forget(part);
        leader
    }

    pub(super) fn node(&self) -> &'c Node<K, V> {
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

    /// Runs a fill of this flight, or a part of it, with nothing held but the lead.
    pub(crate) fn run<R>(&self, fill: impl FnOnce(&K) -> R) -> R {
        let node = self.node();
        let describe = || self.core.describe(&node.key);
        within(self.actor, node.slot.address(), &describe, || {
            fill(&node.key)
        })
    }

    /// As [`run`](Self::run), of what puts the value into its cell.
    pub(crate) fn fill<R>(&mut self, fill: impl FnOnce(&K, &mut Blank<'_, V>) -> R) -> R {
        let (core, node) = (self.core, self.node());
        let describe = || core.describe(&node.key);
        let mut blank = Blank {
            slot: &node.slot,
            full: &mut self.full,
        };
        within(self.actor, node.slot.address(), &describe, || {
            fill(&node.key, &mut blank)
        })
    }

    /// Ends the flight with a value that no fill has made; a clone of it.
    pub(crate) fn publish_given(mut self, value: V) -> V
    where
        V: Clone,
    {
        let mut blank = Blank {
            slot: &self.node().slot,
            full: &mut self.full,
        };
        blank.put(value);
        self.publish().0.value().clone()
    }

    /// What the value weighs, and whether it can be kept.
    fn weigh(&self) -> (u64, bool) {
        assert!(self.full, "there is a value to publish");
        // SAFETY: we lead, and have written it.
        let value = unsafe { self.node().slot.value() };
        let weight = if self.core.has_weigher() {
            // Foreign code, and as much a part of the fill as what made the value.
            self.run(|key| self.core.weigh(key, value))
        } else {
            self.core.weigh(self.key(), value)
        };
        match weight {
            Ok(weight) => (weight, true),
            // As garbage it weighs what it can; nothing, if nobody can say what.
            Err(heavy) => (
                heavy.weight.map_or(0, |weight| weight.min(MAX_WEIGHT)),
                false,
            ),
        }
    }

    /// Ends the flight with the value that is in its cell. The second answer says whether the cache keeps it: not if
    /// the flight was fenced off, the value's time is over at once, or it is too heavy.
    pub(crate) fn publish(self) -> (Found<'c, K, V>, bool) {
        let Ok(published) = self.put() else {
            unreachable!("only computes are superseded");
        };
        published
    }

    /// As [`publish`](Self::publish), of a compute too: one that is superseded has no effect, and its value is
    /// to be [taken back](Self::take_back).
    pub(crate) fn put(mut self) -> Result<(Found<'c, K, V>, bool), Self> {
        self.core.judge_age(&self);
        let (weight, fits) = self.weigh();
        let deadline = self.core.deadline();
        let node = self.node();
        let charged = if fits { weight } else { 0 };
        let owed = self.core.charge(charged);
        come_by("charged");
        let mut pin = pin();
        let tell = self.core.bulletin.is_some();
        // SAFETY: we are the leader, have written the value (`weigh` has looked), and `Ending::Over` below makes this
        // the one end.
        let published = unsafe { node.slot.publish(deadline, weight, fits, tell) };
        let Some((before, prior)) = published else {
            self.core.discharge(charged);
            self.core.stats.count(Event::FillError);
            drop(pin);
            self.ending = Ending::Without {
                outcome: Outcome::Nothing,
                keep_prior: true,
            };
            return Err(self);
        };
        self.ending = Ending::Over;
        // It is the slot's now.
        self.full = false;
        let mut replaced = 0;
        if let Some(prior) = prior {
            // SAFETY: held by our slot until now.
            let prior = unsafe { &*(prior as *const Node<K, V>) };
            let event = if fits {
                Event::Replaced
            } else {
                Event::Evicted
            };
            let event = self.core.unless_expired(prior, event);
            replaced = self.core.released(prior, event);
        }
        // Not live: it was fenced off before, or its time is over at once.
        let live = node.slot.state().is_live();
        let kept = live && before.is_linked();
        if kept {
            self.core.counts_in();
        } else {
            self.core.discharge(charged);
        }
        // (Who took over takes it out, and puts back what it stood before.)
        if !live && !before.is_taken() {
            self.core
                .unlink_node(self.hash, node, Event::Explicit, &pin);
        }
        // A removal waits for this compute, and has its value.
        if before.leaves_to_removals() && fits && deadline != Deadline::Past {
            self.core.stats.count(Event::Explicit);
            self.core.post_told(node);
        }
        if let Some(flight) = before.flight() {
            // Wakers are foreign code: no pin, and this thread leads one less.
            drop(pin);
            self.leading = None;
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
        Ok((unsafe { Found::new(pin, node) }, kept))
    }

    /// Ends the flight of a compute that is superseded; its value.
    pub(crate) fn take_back(mut self) -> V {
        let full = std::mem::replace(&mut self.full, false);
        assert!(full, "there is a value to take back");
        // SAFETY: we lead, and it was ours until now.
        unsafe { self.node().slot.take_back() }
    }

    /// Ends the flight with the fill's error, which `share` makes if anybody waits for it.
    pub(crate) fn fail(mut self, share: impl FnOnce() -> SharedError) {
        self.core.judge_age(&self);
        let slot = &self.node().slot;
        loop {
            let seen = slot.state();
            if seen.flight().is_some() {
                // A clone of an error is foreign code; until it is there we are a leader like
                // any other.
                let outcome = Outcome::Failed(self.run(|_| share()));
                self.ending = Ending::Without {
                    outcome,
                    keep_prior: true,
                };
                break;
            }
            // Fails if somebody has begun to wait since: they are to have the error.
            if let Some(before) = slot.finish(seen, false) {
                self.ending = Ending::Finished {
                    before,
                    keep_prior: true,
                };
                break;
            }
        }
        self.core.stats.count(Event::FillError);
    }

    /// Ends the flight without a value, and leaves what was there before.
    pub(crate) fn withdraw(mut self) {
        self.core.stats.count(Event::FillError);
        self.ending = Ending::Without {
            outcome: Outcome::Nothing,
            keep_prior: true,
        };
    }

    /// Ends the flight of a compute without a value, and takes what was there before with it. False: it is
    /// superseded, and has no effect.
    pub(crate) fn take_away(mut self) -> bool {
        self.core.stats.count(Event::FillError);
        let before = self.finish(false);
        self.ending = Ending::Finished {
            before,
            keep_prior: false,
        };
        !before.is_superseded()
    }

    /// Passes the lead on without having run a fill.
    pub(super) fn decline(mut self) {
        self.ending = Ending::Declined;
    }

    /// Passes the lead on. False: nobody waits, and the slot was finished for all.
    fn hand_over(&self) -> Result<(), State> {
        let slot = &self.node().slot;
        loop {
            let seen = slot.state();
            // A flight that was fenced off is not worth another fill: look again, all.
            if let (Some(flight), false) = (seen.flight(), seen.is_cut()) {
                // Who goes on fills, and has read nothing.
                if seen.is_compute() && !slot.compute_is_lost() {
                    continue;
                }
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
    fn clear_away(&self, before: State, keep_prior: bool) {
        if before.is_taken() {
            return;
        }
        let (core, node) = (self.core, self.node());
        let pin = pin();
        if before.is_cut() || !keep_prior {
            if before.leaves_to_removals() && keep_prior {
                come_by("ended");
                core.remove_prior(node);
            }
            core.unlink_node(self.hash, node, Event::Explicit, &pin);
            // Who supersedes a compute takes what it stands before, and who waits for it has that.
            if !keep_prior && !before.is_superseded() || !before.is_compute() {
                core.drop_prior(node, Event::Explicit);
            }
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
        // The leader has panicked between the write and the publish. The value goes first, because the next leader writes
        // to the same cell.
        if std::mem::replace(&mut self.full, false) {
            // SAFETY: we lead, and it was ours until now.
            contain(|| unsafe { self.node().slot.drop_written() });
        }
        // What follows runs no fill, and this thread leads one less.
        self.leading = None;
        let (before, outcome, keep_prior) = match std::mem::replace(&mut self.ending, Ending::Over)
        {
            Ending::Over => return,
            Ending::Finished { before, keep_prior } => (before, Outcome::Nothing, keep_prior),
            Ending::Without {
                outcome,
                keep_prior,
            } => (self.finish(keep_prior), outcome, keep_prior),
            ending @ (Ending::Lost | Ending::Declined) => {
                if matches!(ending, Ending::Lost) {
                    self.core.stats.count(if std::thread::panicking() {
                        Event::FillPanic
                    } else {
                        Event::FillCancelled
                    });
                }
                match self.hand_over() {
                    Ok(()) => return,
                    Err(before) => (before, Outcome::Nothing, true),
                }
            }
        };
        self.clear_away(before, keep_prior);
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

    /// One more count on the flight, for what outlives our part.
    fn shared_flight(&self) -> Arc<Flight> {
        // SAFETY: from `Arc::into_raw`, kept by our part.
        unsafe {
            Arc::increment_strong_count(self.flight);
            Arc::from_raw(self.flight)
        }
    }

    /// A fill that nobody waits for any more: goes on elsewhere, or ends here.
    pub(super) fn abandon(&self, job: Job) {
        contain(|| match &self.core.spawner {
            Some(spawner) if !self.node().slot.state().is_cut() => spawner(Box::pin(Orphan {
                job: Some(job),
                flight: self.shared_flight(),
            })),
            _ => drop(job),
        });
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

    /// Starts to wait, for one who leads as `actor` if it has to.
    pub(crate) fn wait_as(self, actor: u64, hash: u64) -> Wait<'c, K, V, S> {
        Wait {
            part: Some(self),
            place: None,
            hash,
            actor,
        }
    }

    /// As [`wait_as`](Self::wait_as), and is on the list from now on.
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

    /// Sleeps until what this part waits for has come. Fails at once if that would close a
    /// cycle.
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
    /// Kept until the fill has ended, and no longer: with it the slot goes.
    fenced: Fenced<'c, K, V, S>,
}

impl<'c, K: Hash + Eq, V, S: BuildHasher> Awaited<'c, K, V, S> {
    pub(crate) fn new(fenced: Fenced<'c, K, V, S>, actor: u64) -> Self {
        let hash = fenced.part.core.hash(fenced.part.key());
        let wait = fenced.part.again().wait_as(actor, hash);
        Self { wait, fenced }
    }

    /// A part in the fill.
    pub(crate) fn into_part(self) -> Part<'c, K, V, S> {
        self.fenced.part
    }

    /// Takes one `step` of each wait, and ends those that are over, in whatever order. Returns true when none is left.
    /// `over` is told of each that ends, and whether it would have closed a cycle; it may return one more flight to wait
    /// for.
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
        let Self { wait, fenced } = self;
        let (core, actor) = (fenced.part.core, wait.actor);
        drop(wait);
        let more = over(&fenced, is_cycle);
        drop(fenced);
        core.tidy();
        more.map(|part| Self::new(Fenced::detached(part), actor))
    }

    /// Looks at every one of these waits, of a task: see [`step_all`](Self::step_all).
    pub(crate) fn poll_all(
        all: &mut Vec<Self>,
        waker: &Waker,
        over: Over<'_, 'c, K, V, S>,
    ) -> bool {
        let _inside = in_poll();
        Self::step_all(all, &mut |wait| wait.step(waker, who_awaits()), over)
    }

    /// Sleeps until all of these waits are over, as [`Wait::block`] does. Those that are not by `until` are given back.
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
            // Look, and only then sleep: what came before we were on the lists woke nobody.
            let step = &mut |wait: &mut Wait<'c, K, V, S>| wait.step(&waker, who_blocks());
            if Self::step_all(&mut all, step, over) || until.is_some_and(is_over) {
                return all;
            }
            if !may_sleep {
                if let Some(place) = Verb::forbidden() {
                    let goes_on = verb.goes_on();
                    // Without the wait: a detached fill stays so, and one that is still to be judged is given up.
                    all.retain(|this| goes_on || this.fenced.judged);
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
    &'o mut dyn FnMut(&Fenced<'c, K, V, S>, bool) -> Option<Part<'c, K, V, S>>;

/// Whether a deadline has passed.
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

// SAFETY: a part is two counts (on the slot and on the flight) and a reference; what it leads to is
// shared by threads that have a handle (`Core: Sync`), and dropped on any (`Send`).
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
    /// Who leads, if the lead is handed to us.
    actor: u64,
}

/// A place on a flight's list, and in the wait-for graph.
struct Place {
    ticket: Ticket,
    /// Who waits, for the graph; nobody there who leads nothing.
    waits: Option<Who>,
    edge: Option<Waiting>,
}

impl Place {
    /// Out of the graph: before our part, because who follows the edge comes to the flight.
    fn without_edge(self) -> Self {
        Self { edge: None, ..self }
    }
}

impl<'c, K: Hash + Eq, V, S: BuildHasher> Wait<'c, K, V, S> {
    fn part(&self) -> &Part<'c, K, V, S> {
        self.part.as_ref().expect("there until the wait is over")
    }

    /// Sleeps until it is over. Panics where this thread may not sleep, with the names of the methods to use in
    /// the place of `verb`.
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
            // Look, and only then sleep: what came before we were on the list woke nobody.
            if let Poll::Ready(waited) = self.step(&waker, who_blocks()) {
                return waited;
            }
            // Each time: a fill that wakes whoever polls it lets nobody sleep.
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

    /// One look, of a task: what has come, or `waker` is to be woken. Polls the fill if that is what is needed.
    /// Fails at once if waiting would close a cycle.
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
            // Only now: the last who waits for a fill that is kept takes that away with it.
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
                        // Not who has asked for the value: a panic of the fill is not for it to take.
                        contain(|| self.drive(job));
                    }
                    // Once: a fill that asks at once to be polled again lets others have a turn.
                    may_drive = false;
                }
                Look::GiveWaker => {
                    // Foreign code.
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

    /// Gets on the list, and into the graph if we lead something.
    fn enlist(&mut self, waits: Option<Who>) -> Result<(), CycleError> {
        let part = self.part();
        // What is said of the keys is foreign code (`Debug`), which may wait here itself: before we
        // are on a list.
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

    /// Polls the fill that is kept in the flight, for everybody.
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
        self.give_up();
        waited
    }

    /// Whether a lead is for us to go on with: not who waits for the end, and a flight that has been
    /// fenced off is not worth another fill.
    fn is_to_lead(&self) -> bool {
        let part = self.part();
        part.waits_for == WaitFor::Value && !part.node().slot.state().is_cut()
    }

    /// With a lead that is not for us to go on with: no fill runs, and nobody is to wait for one who
    /// was handed the lead and has not come. All look again, unless they have got their value.
    fn end_flight(&self) {
        let ending = Ending::Without {
            outcome: Outcome::Nothing,
            keep_prior: true,
        };
        drop(Leader::to_end(self.part().again(), self.hash, ending));
    }

    /// Our share in the flight becomes the leader's.
    fn take_lead(&mut self) -> Leader<'c, K, V, S> {
        let leader = Leader::new(self.part().core, self.part().node, self.hash, self.actor);
        self.leave_list();
        std::mem::forget(self.part.take());
        leader
    }

    /// True: the lead was ours for the taking.
    fn leave_list(&mut self) -> bool {
        self.place.take().is_some_and(|place| self.leave(place))
    }

    /// As [`leave_list`](Self::leave_list), of a place that is not ours any more.
    fn leave(&self, place: Place) -> bool {
        let Place { ticket, .. } = place.without_edge();
        let part = self.part();
        let delisted = part.flight().delist(&ticket);
        if let Some(replacement) = delisted.replacement {
            // SAFETY: held for the flight's readers, of whom we were the last.
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
            drop(Leader::to_end(part, self.hash, Ending::Declined));
        }
        self.part = None;
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Drop for Wait<'_, K, V, S> {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// A fill that has been taken from its flight to be polled. Dropped with it when it is done or panics:
/// what is left of the fill is dropped, and its lead passed on.
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

/// A fill that goes on elsewhere, with nobody who waits for it; dropped when it is given up.
struct Orphan {
    job: Option<Job>,
    flight: Arc<Flight>,
}

impl Future for Orphan {
    type Output = ();

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let _inside = in_poll();
        // Before it is polled: who gives the fill up wakes us.
        if self.flight.adopt(cx.waker().clone()) {
            self.job = None;
        }
        match &mut self.job {
            Some(job) => job.as_mut().poll(cx),
            None => Poll::Ready(()),
        }
    }
}
