//! The lead of a flight: running the fill, and every way in which that ends.

use super::{Core, Node, Part};
use crate::actor::is_fill;
use crate::bound::MAX_WEIGHT;
use crate::cycle::{Leading, within};
use crate::flight::{Outcome, SharedError};
use crate::foreign::contain;
use crate::interlude::come_by;
use crate::reclaim::{Pin, pin};
use crate::slot::{Leaves, Publish, Removal, Slot, State, Takes};
use crate::stats::Event;
use std::hash::{BuildHasher, Hash};

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

    /// Returns the value and the pin that keeps it, for a guard that lends both on.
    ///
    /// The reference is good for as long as the pin is held.
    pub(crate) fn into_parts(self) -> (Pin, *const V) {
        let value = std::ptr::from_ref(self.value());
        (self.pin, value)
    }
}

/// The right, and the duty, to end a flight. Dropped without a value it passes the lead on, or ends the flight without
/// one: the one way that all failures take.
pub(crate) struct Leader<'c, K: Hash + Eq, V, S: BuildHasher> {
    core: &'c Core<K, V, S>,
    /// The node that is filled.
    node: *const Node<K, V>,
    /// The node that it is to replace; null for a first fill.
    pub(super) current: *const Node<K, V>,
    pub(super) hash: u64,
    /// The number of the thread or fill that leads.
    pub(super) actor: u64,
    /// The end of the flight, unless another is chosen.
    ending: Ending,
    /// The value is in the slot's cell, and not yet published: the leader owns it.
    full: bool,
    pub(super) leading: Option<Leading>,
}

/// The empty cell of a slot, lent to a fill. The fill writes its value there at once, so that a large value is not
/// copied from frame to frame.
pub(crate) struct Blank<'a, V> {
    slot: &'a Slot<V>,
    full: &'a mut bool,
}

impl<V> Blank<'_, V> {
    #[inline]
    pub(crate) fn put(&mut self, value: V) {
        assert!(!*self.full, "a fill has one value");
        // SAFETY: it borrows the leader, and a flight's end takes the leader by value, so the flight has not ended.
        unsafe { self.slot.write(value) };
        *self.full = true;
    }

    /// Puts in the value of a fill that can fail, or returns the fill's error.
    #[inline]
    pub(crate) fn try_put<E>(&mut self, result: Result<V, E>) -> Result<(), E> {
        match result {
            Ok(value) => self.put(value),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// The end of a flight that has no value.
enum Ending {
    /// The leader is lost: another waiter leads, if there is one.
    Lost,
    /// The leader is lost, and has run no fill.
    Declined,
    /// The fill ended without a value, with this outcome.
    Without(Outcome),
    /// The slot is `GONE` already, and was in this state before.
    Finished(State),
    /// The flight has ended: with a value.
    Over,
}

impl<'c, K: Hash + Eq, V, S: BuildHasher> Leader<'c, K, V, S> {
    /// Returns the lead of a slot that `actor` has just claimed, or been handed.
    pub(super) fn new(
        core: &'c Core<K, V, S>,
        node: *const Node<K, V>,
        current: *const Node<K, V>,
        hash: u64,
        actor: u64,
    ) -> Self {
        core.stats.count(Event::Fill);
        Self {
            core,
            node,
            current,
            hash,
            actor,
            ending: Ending::Lost,
            full: false,
            // A polled fill's lead is known by its number, a thread's lead by this.
            leading: (!is_fill(actor)).then(Leading::begin),
        }
    }

    /// Returns the lead of a caller that is going to run no fill, and to pass the lead on. The caller's share in the
    /// flight becomes the leader's.
    pub(super) fn declining(part: Part<'c, K, V, S>, hash: u64) -> Self {
        Self::to_end(part, hash, Ending::Declined)
    }

    /// Returns the lead of a caller that is going to run no fill, and to end the flight, because it is not worth
    /// another fill.
    pub(super) fn ending(part: Part<'c, K, V, S>, hash: u64) -> Self {
        Self::to_end(part, hash, Ending::Without(Outcome::Nothing))
    }

    fn to_end(part: Part<'c, K, V, S>, hash: u64, ending: Ending) -> Self {
        let leader = Self {
            core: part.core,
            node: part.node,
            current: part.current,
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

    /// Returns the key that is filled.
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

    /// Runs a fill of this flight that puts the value into its cell.
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

    /// Ends the flight with a value that no fill has made. Returns a clone of it.
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

    /// Returns the weight of the value, and whether it can be kept.
    fn weigh(&self) -> (u64, bool) {
        assert!(self.full, "there is a value to publish");
        // SAFETY: we lead, and `full` says that the value is written.
        let value = unsafe { self.node().slot.value() };
        let weight = if self.core.has_weigher() {
            // The weigher is user code, and as much a part of the fill as the code that made the value.
            self.run(|key| self.core.weigh(key, value))
        } else {
            self.core.weigh(self.key(), value)
        };
        match weight {
            Ok(weight) => (weight, true),
            // As garbage a value that is too heavy counts by its weight, up to the most a state word holds; by
            // nothing, if the weigher could not say it.
            Err(heavy) => (
                heavy.weight.map_or(0, |weight| weight.min(MAX_WEIGHT)),
                false,
            ),
        }
    }

    /// Returns the node that this fill is to replace. `None`: there is none, or another thread abandoned the fill
    /// before, and takes the successor off. `seen` is a state of our slot: loaded under this pin, or the one that the
    /// end of the flight replaced.
    fn current<'p>(&self, seen: State, _pin: &'p Pin) -> Option<&'p Node<K, V>> {
        if self.current.is_null() || seen.is_unhooked() {
            return None;
        }
        // SAFETY: the refresh's hold keeps the current node until it is given up, by us or by the thread that abandons
        // the fill. We have not yet, and `seen` says that no thread had abandoned the fill. A thread that abandons it
        // after that retires the node after our pin was taken.
        Some(unsafe { &*self.current })
    }

    /// Ends the flight with the value that is in its cell. The second result says whether the cache keeps it: not if
    /// the flight was detached, the value's TTL is zero, or it is too heavy.
    pub(crate) fn publish(self) -> (Found<'c, K, V>, bool) {
        let Ok(published) = self.put() else {
            unreachable!("only computes are superseded");
        };
        published
    }

    /// Does what [`publish`](Self::publish) does, of a compute too. `Err`: the compute is superseded and has no
    /// effect, and the caller is to [take the value back](Self::take_back).
    pub(crate) fn put(mut self) -> Result<(Found<'c, K, V>, bool), Self> {
        self.core.judge_age(&self);
        let (weight, fits) = self.weigh();
        let core = self.core;
        let deadline = core.deadline();
        let node = self.node();
        let charged = if fits { weight } else { 0 };
        let owed = core.charge(charged);
        come_by("charged");
        let mut pin = pin();
        let end = Publish {
            deadline,
            weight,
            kept: fits,
            tell: core.bulletin.is_some(),
            is_successor: !self.current.is_null(),
        };
        // SAFETY: we are the leader, have written the value (`weigh` has looked), and `Ending::Over` below makes this
        // the one end.
        let Ok(before) = (unsafe { node.slot.publish(end) }) else {
            core.discharge(charged);
            core.stats.count(Event::FillError);
            drop(pin);
            self.ending = Ending::Without(Outcome::Nothing);
            return Err(self);
        };
        self.ending = Ending::Over;
        // The slot owns the value now.
        self.full = false;
        let stays = end.stays();
        let takes_place = stays && !before.is_detached();
        let mut replaced = 0;
        let kept = match self.current(before, &pin) {
            Some(current) if !before.is_detached() => {
                replaced = weight_behind(node);
                self.take_the_place_of(current, replaced, &end, charged, &pin)
            }
            Some(current) => {
                core.discharge(charged);
                core.end_detached(self.hash, node, current, Event::Replaced, &pin);
                false
            }
            None if takes_place && before.is_linked() => {
                core.counts_in();
                true
            }
            None => {
                core.discharge(charged);
                if self.current.is_null() {
                    core.unlink_node(self.hash, node, &pin);
                }
                false
            }
        };
        // A removal waits for this compute, and has its value.
        if before.is_awaited() && stays {
            core.stats.count(Event::Explicit);
            core.post(node, Event::Explicit);
        }
        if let Some(flight) = before.flight() {
            // Wakers are user code: no pin is held, and this thread leads one flight less.
            drop(pin);
            self.leading = None;
            // SAFETY: the leader has a share in the flight, which keeps it.
            let flight = unsafe { &*flight };
            // The waiters have an outcome already if an insert detached the flight.
            let _ = flight.resolve(Outcome::Published);
            flight.end();
            pin = crate::reclaim::pin();
        }
        if kept {
            let owed = owed.saturating_sub(replaced);
            core.make_room(owed, self.hash, node, &pin);
        }
        // Without a flight, and if the table holds or is about to hold the slot, `publish` has given up the leader's
        // hold.
        let is_first = self.current.is_null();
        let linked = if is_first {
            before.is_linked()
        } else {
            takes_place
        };
        if before.flight().is_some() || !linked {
            core.leave(node, before.flight());
        }
        // SAFETY: published, and we held it until after the pin was taken.
        Ok((unsafe { Found::new(pin, node) }, kept))
    }

    /// Puts our node, which is committed, into the place of the current one, which weighs `weight`. If our value does not stay, takes the
    /// current node out of the table. Returns whether the cache keeps our value.
    fn take_the_place_of(
        &self,
        current: &Node<K, V>,
        weight: u64,
        end: &Publish,
        charged: u64,
        pin: &Pin,
    ) -> bool {
        let (core, node) = (self.core, self.node());
        let stays = end.stays();
        if stays {
            node.slot.set_deadline(end.deadline);
            core.counts_in();
        }
        come_by("publishing");
        let successor = stays.then_some(std::ptr::from_ref(node));
        let placed = core.exchange(self.hash, current, successor, pin);
        let event = if end.kept {
            Event::Replaced
        } else {
            Event::Evicted
        };
        core.end_refresh(current, weight, Some(event), placed.is_some());
        if !stays {
            core.unlinked(node);
            core.discharge(charged);
            if let Some(mark) = placed {
                core.remember(mark, || Some(self.hash), pin);
            }
            return false;
        }
        if placed.is_some() {
            let live = node.slot.state().is_live();
            if !live {
                // A removal has removed our value, and accounted for it, before we put it into its place.
                core.unlink_node(self.hash, node, pin);
            }
            return live;
        }
        // An insert has taken the place; or a removal has removed both values, and a later call has taken the place.
        let gone = Removal {
            value: Takes::Live,
            link: true,
            notify: false,
        };
        loop {
            let state = node.slot.state();
            if !state.is_live() {
                core.unlinked(node);
                return false;
            }
            if let Some(released) = node.slot.remove(state, gone) {
                core.counts_out();
                core.discharge(charged);
                core.end_hold(node, released);
                return false;
            }
        }
    }

    /// Ends the flight of a compute that is superseded. Returns its value.
    pub(crate) fn take_back(mut self) -> V {
        let full = std::mem::replace(&mut self.full, false);
        assert!(full, "there is a value to take back");
        // SAFETY: we lead, `full` said that the value is written, and it was ours until now.
        unsafe { self.node().slot.take_back() }
    }

    /// Ends the flight with the fill's error. If a caller waits for that, `share` makes the error for it.
    pub(crate) fn fail(mut self, share: impl FnOnce() -> SharedError) {
        self.core.judge_age(&self);
        let slot = &self.node().slot;
        loop {
            let seen = slot.state();
            if seen.flight().is_some() {
                // Cloning an error is user code; until the clone is made we are a leader like any other.
                self.ending = Ending::Without(Outcome::Failed(self.run(|_| share())));
                break;
            }
            // Fails if a caller has begun to wait since `seen`: that caller is to have the error.
            if let Some(before) = self.try_finish(seen, false) {
                self.ending = Ending::Finished(before);
                break;
            }
        }
        self.core.stats.count(Event::FillError);
    }

    /// Ends the flight without a value, and leaves the current value.
    pub(crate) fn withdraw(mut self) {
        self.core.stats.count(Event::FillError);
        self.ending = Ending::Without(Outcome::Nothing);
    }

    /// Ends the flight of a compute without a value, and removes the current value. False: it is superseded, and has no
    /// effect.
    pub(crate) fn take_away(mut self) -> bool {
        self.core.stats.count(Event::FillError);
        let before = self.finish(true);
        self.ending = Ending::Finished(before);
        !before.is_superseded()
    }

    /// Passes the lead on without having run a fill.
    pub(super) fn decline(mut self) {
        self.ending = Ending::Declined;
    }

    /// Passes the lead on. `Err`: no caller waits, and the slot was finished for all.
    fn hand_over(&self) -> Result<(), State> {
        let slot = &self.node().slot;
        loop {
            let seen = slot.state();
            // A flight that was detached is not worth another fill: all its callers look again.
            if let (Some(flight), false) = (seen.flight(), seen.is_detached()) {
                // The next leader runs its own fill, which has read no current value.
                if seen.is_compute() && !slot.compute_is_lost() {
                    continue;
                }
                // SAFETY: the leader has a share in the flight, which keeps it.
                if unsafe { &*flight }.hand_over() {
                    self.core.leave_part(self.node(), flight);
                    return Ok(());
                }
            }
            if let Some(before) = self.try_finish(seen, false) {
                return Err(before);
            }
        }
    }

    fn finish(&self, removes: bool) -> State {
        loop {
            let seen = self.node().slot.state();
            if let Some(before) = self.try_finish(seen, removes) {
                return before;
            }
        }
    }

    /// Ends the slot without a value, if no caller has begun to wait since `seen`. Returns the state before.
    fn try_finish(&self, seen: State, removes: bool) -> Option<State> {
        let pin = pin();
        // Load the state after the pin was taken: if the fill was abandoned before, we leave its current node alone.
        let now = self.node().slot.state();
        let leaves = match self.current(now, &pin) {
            _ if removes => Leaves::Nothing,
            Some(current) if now.is_awaited() && !self.core.is_unexpired(current) => {
                Leaves::Expired
            }
            _ => Leaves::Current,
        };
        self.node().slot.finish(seen, leaves)
    }

    /// Takes the slot, which is `GONE`, out of the table, or off the current node.
    fn clear_away(&self, before: State) {
        let (core, node) = (self.core, self.node());
        let pin = pin();
        let Some(current) = self.current(before, &pin) else {
            if self.current.is_null() {
                core.unlink_node(self.hash, node, &pin);
            }
            return;
        };
        come_by("let go");
        if node.slot.state().is_committed() {
            core.end_refresh_without(current, node, Some(Event::Explicit));
            core.unlink_node(self.hash, current, &pin);
        } else if before.is_detached() {
            core.end_detached(self.hash, node, current, Event::Explicit, &pin);
        } else {
            core.end_refresh_without(current, node, None);
            core.make_room(0, self.hash, current, &pin);
        }
    }
}

/// Returns the weight of the value that this successor has not replaced.
fn weight_behind<K, V>(node: &Node<K, V>) -> u64 {
    node.slot
        .parked()
        .expect("a successor that did not take the place keeps the weight")
}

impl<K: Hash + Eq, V, S: BuildHasher> Core<K, V, S> {
    /// Takes a detached successor off its current node, and removes that value by `event`, if it is live. `unlinked` says that
    /// the caller has taken the current node out of the table. Returns the weight that this has freed.
    pub(super) fn unhook(
        &self,
        current: &Node<K, V>,
        successor: &Node<K, V>,
        event: Event,
        unlinked: bool,
    ) -> u64 {
        let weight = weight_behind(successor);
        let how = Removal {
            value: Takes::Live,
            link: unlinked,
            notify: self.notifies(event),
        };
        come_by("unhook");
        let released = current.slot.end_refresh(weight, how);
        if released.was_live {
            self.account(current, weight, event);
        }
        self.end_hold(current, released);
        // Only now: until it was taken off, a thread could find it by way of the current node.
        self.unlinked(successor);
        if released.was_live { weight } else { 0 }
    }

    /// Ends a refresh: takes the successor off its current node, which weighs `weight`. With an `event` the current value is
    /// removed by that, and accounted for. `unlinked` says that the caller has taken the current node out of the table.
    ///
    /// The current node's hold of the successor is left to the caller.
    pub(super) fn end_refresh(
        &self,
        current: &Node<K, V>,
        weight: u64,
        event: Option<Event>,
        unlinked: bool,
    ) {
        let event = event.map(|event| self.unless_expired(current, event));
        let notify = event.is_some_and(|event| self.notifies(event));
        let how = Removal {
            value: event.map_or(Takes::Nothing, |_| Takes::Hidden),
            link: unlinked,
            notify,
        };
        let released = current.slot.end_refresh(weight, how);
        if let Some(event) = event {
            self.account(current, weight, event);
        }
        self.end_hold(current, released);
    }

    /// Ends a refresh whose successor does not take the place of the current node.
    pub(super) fn end_refresh_without(
        &self,
        current: &Node<K, V>,
        successor: &Node<K, V>,
        event: Option<Event>,
    ) {
        self.end_refresh(current, weight_behind(successor), event, false);
        // Only now: until it was taken off, a thread could find it by way of the current node.
        self.unlinked(successor);
    }

    /// Takes a detached successor off its current node, and the node out of the table. A removal that waits leaves it in its
    /// place until now. It has hidden the value, or is about to; a caller that comes after the end of the fill must not see
    /// it. Of an awaited compute, accounts for the current value in any case, by `event`.
    pub(super) fn end_detached(
        &self,
        hash: u64,
        successor: &Node<K, V>,
        current: &Node<K, V>,
        event: Event,
        pin: &Pin,
    ) {
        if successor.slot.state().is_awaited() {
            self.end_refresh_without(current, successor, Some(event));
        } else {
            let event = self.unless_expired(current, Event::Explicit);
            self.unhook(current, successor, event, false);
        }
        self.unlink_node(hash, current, pin);
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Drop for Leader<'_, K, V, S> {
    fn drop(&mut self) {
        // The leader has panicked between the write and the publish. Drop the value first, because the next leader
        // writes to the same cell.
        if std::mem::replace(&mut self.full, false) {
            // SAFETY: we lead, `full` said that the value is written, and it was ours until now.
            contain(|| unsafe { self.node().slot.drop_written() });
        }
        // The rest runs no fill, and this thread leads one flight less.
        self.leading = None;
        let (before, outcome) = match std::mem::replace(&mut self.ending, Ending::Over) {
            Ending::Over => return,
            Ending::Finished(before) => (before, Outcome::Nothing),
            Ending::Without(outcome) => (self.finish(false), outcome),
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
                    Err(before) => (before, Outcome::Nothing),
                }
            }
        };
        self.clear_away(before);
        // An error that no caller wants is dropped last: its destructor is user code.
        let mut _unwanted = None;
        if let Some(flight) = before.flight() {
            // SAFETY: the leader has a share in the flight, which keeps it.
            let flight = unsafe { &*flight };
            _unwanted = flight.resolve(outcome).err();
            flight.end();
        }
        self.core.leave(self.node(), before.flight());
    }
}
