//! Taking keys out: one, all, or those a predicate picks.
//!
//! The order is always the same: fence first, then wait. Once a flight is fenced off no newcomer
//! gets its value, whatever becomes of the one who fenced it.

use super::{Core, Node, Part};
use crate::flight::WaitFor;
use crate::interlude::come_by;
use crate::reclaim::{Pin, deref, pin};
use crate::slot::State;
use crate::stats::Event;
use crate::table::Rehash;
use std::hash::{BuildHasher, Hash};

/// The result of [`detach`](Core::detach).
struct Detached<'c, 'p, K: Hash + Eq, V, S: BuildHasher> {
    before: State,
    /// The value that this has removed. `None` of a compute that the caller waits for: that leaves its value at its end.
    removed: Option<&'p Node<K, V>>,
    /// The caller's share in the flight, if it waits for the end.
    part: Option<Part<'c, K, V, S>>,
}

/// The result of [`take_out`](Core::take_out).
enum TakenOut<'c, K: Hash + Eq, V, S: BuildHasher> {
    Gone,
    /// It stands behind a compute, which is detached, and goes when that ends.
    Goes(Part<'c, K, V, S>),
    /// It has lost its place to another.
    Lost,
}

/// A fill that [`fence_all`](Core::fence_all) has met.
pub(crate) struct Fenced<'c, K: Hash + Eq, V, S: BuildHasher> {
    pub(crate) part: Part<'c, K, V, S>,
    /// The fill is not detached: its value is judged when it has ended.
    pub(crate) judged: bool,
}

impl<'c, K: Hash + Eq, V, S: BuildHasher> Fenced<'c, K, V, S> {
    /// A fill that is detached.
    pub(super) fn detached(part: Part<'c, K, V, S>) -> Self {
        Self {
            part,
            judged: false,
        }
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Core<K, V, S> {
    /// Takes a key out: fences off its flight, or unlinks its entry, which `read` is shown. The
    /// part, if any, is one to wait for the end of the fill with; after that it [claims](Self::claim) what a compute
    /// has left.
    ///
    /// The wait is `actor`'s. The first answer says whether there was a live value.
    pub(crate) fn fence<'c>(
        &'c self,
        hash: u64,
        is_key: &dyn Fn(&K) -> bool,
        wait: Option<u64>,
        event: Event,
        read: &mut dyn FnMut(&V),
    ) -> (bool, Option<Part<'c, K, V, S>>) {
        let pin = pin();
        loop {
            let Some(spot) = self.find(hash, &pin, is_key) else {
                return (false, None);
            };
            // SAFETY: linked at the load of its word, under this pin.
            let node = unsafe { deref(spot.object::<Node<K, V>>(), &pin) };
            let state = node.slot.state();
            let mut going = self.going(node, &pin);
            if state.is_filling() {
                // From here on no newcomer gets this flight's value, nor what it stands before (which a compute
                // serves up to its end).
                match self.detach(node, wait, event, &pin) {
                    // An insert has put its node in the place of this one, and cut it off before us: what
                    // the key has now is for us to take out. (Before the cut, we are before the insert.)
                    Ok(done) if done.before.is_cut() && !done.before.is_linked() => continue,
                    Ok(done) => {
                        if done.part.is_none() {
                            self.unlink_node(hash, node, event, &pin);
                        }
                        if let Some(removed) = done.removed {
                            // SAFETY: it was live, the pin keeps it.
                            read(unsafe { removed.slot.value() });
                        }
                        return (done.removed.is_some(), done.part);
                    }
                    // A takeover has fenced it off, and its fill may never end. What it stands before goes with
                    // it, here and now: that takeover may take long to find its place, which runs `Hash`.
                    // Or who has superseded a compute is about to unlink it.
                    Err(state) if is_given_up(state) && state.is_linked() => {
                        going = going.filter(|_| state.restores());
                    }
                    Err(_) => continue,
                }
            }
            if self.table.unlink(&spot) {
                self.remember(spot.mark(), || Some(hash), &pin);
                let event = if going.is_some() {
                    event
                } else {
                    Event::Expired
                };
                self.released(node, event);
                if let Some(going) = going {
                    // SAFETY: it was live, the pin keeps it.
                    read(unsafe { going.slot.value() });
                }
                return (going.is_some(), None);
            }
        }
    }

    /// Detaches a fill, for one who waits as `wait` says, or for one who does not: that one supersedes a compute.
    /// `Err`: it has ended, or somebody else has detached it and does not wait.
    fn detach<'p, 'c: 'p>(
        &'c self,
        node: &'p Node<K, V>,
        wait: Option<u64>,
        event: Event,
        pin: &'p Pin,
    ) -> Result<Detached<'c, 'p, K, V, S>, State> {
        let state = node.slot.state();
        let serving = self.serving(node, pin);
        let joined = wait.map(|actor| self.join(node, WaitFor::End, actor));
        let part = match joined {
            // First: a compute is to leave its value to somebody.
            Some(Some(part)) => Some(part),
            Some(None) => return Err(node.slot.state()),
            None => None,
        };
        come_by("detach");
        let before = if part.is_some() {
            node.slot.cut()?
        } else {
            node.slot.supersede()?
        };
        debug_assert!(state.is_compute() || !before.is_compute());
        let removed = if !before.is_compute() {
            self.drop_prior(node, event);
            serving.filter(|_| !before.is_cut())
        } else if part.is_none() {
            self.take_prior(node, event, pin)
        } else {
            None
        };
        Ok(Detached {
            before,
            removed,
            part,
        })
    }

    /// Takes what a compute stands before, for whoever asks first, and lets go of it. `None` if its time was over.
    fn take_prior<'p>(
        &self,
        node: &Node<K, V>,
        event: Event,
        pin: &'p Pin,
    ) -> Option<&'p Node<K, V>> {
        come_by("take prior");
        let prior = node.slot.take_prior()?;
        // SAFETY: held by that slot until `take_prior`, which answers once; and then kept by the pin.
        let prior = unsafe { deref(prior as *const Node<K, V>, pin) };
        // It has been removed already if the compute has ended.
        let had_value = prior.slot.state().is_cut() || self.is_fresh(prior);
        self.released(prior, self.unless_expired(prior, event));
        had_value.then_some(prior)
    }

    /// After the end of the compute that `part` has waited for, or that is superseded: reads what it has left to the
    /// removals that wait for it. True for one of them.
    pub(crate) fn claim(&self, part: &Part<'_, K, V, S>, read: &mut dyn FnMut(&V)) -> bool {
        let slot = &part.node().slot;
        let state = slot.state();
        // One that has removed what it stood before may not have let go of that yet.
        if !state.is_compute() || !state.is_cut() || state.restores() || state.has_removed() {
            return false;
        }
        let pin = pin();
        let left = if state.has_value() {
            slot.claim().then(|| part.node())
        } else {
            self.take_prior(part.node(), Event::Explicit, &pin)
        };
        if let Some(left) = left {
            // SAFETY: it has a value; our part keeps the one, the pin the other.
            read(unsafe { left.slot.value() });
        }
        left.is_some()
    }

    /// Lets go of a fenced-off flight that is not to be waited for. Whether that has taken out what a compute has
    /// read, or left.
    pub(crate) fn give_up(
        &self,
        hash: u64,
        part: &Part<'_, K, V, S>,
        read: &mut dyn FnMut(&V),
    ) -> bool {
        come_by("give up");
        // If it has ended by now, it has left what it has.
        let _ = part.node().slot.supersede_unlinked();
        self.unlink_node(hash, part.node(), Event::Explicit, &pin());
        self.claim(part, read)
    }

    /// Gives up a refresh whose value was to be judged, and is not waited for: the older value, which was judged, goes
    /// on being served. If it has ended by now, what its key has is judged.
    pub(crate) fn give_up_unjudged(
        &self,
        hash: u64,
        part: &Part<'_, K, V, S>,
        which: &mut dyn FnMut(&K, &V) -> bool,
    ) {
        come_by("give up");
        if !self.take_over_part(part) {
            self.fence_again(hash, part, None, which);
        }
    }

    /// Goes on with a key of `invalidate_if` when the wait for its fill is over, or would close a cycle. Returns one more
    /// flight to wait for, if there is one.
    pub(crate) fn judge_ended<'c>(
        &'c self,
        fenced: &Fenced<'c, K, V, S>,
        is_cycle: bool,
        actor: u64,
        which: &mut dyn FnMut(&K, &V) -> bool,
    ) -> Option<Part<'c, K, V, S>> {
        let hash = self.hash(fenced.part.key());
        match (fenced.judged, is_cycle) {
            (true, true) => self.give_up_unjudged(hash, &fenced.part, which),
            (true, false) => return self.fence_again(hash, &fenced.part, Some(actor), which),
            (false, true) => _ = self.give_up(hash, &fenced.part, &mut |_| {}),
            (false, false) => {}
        }
        None
    }

    /// Fences every key whose value `which` picks; all, without it. Returns the flights to wait for, by who waits;
    /// else those that are to be given up.
    pub(crate) fn fence_all<'c>(
        &'c self,
        wait: Option<u64>,
        mut which: Option<&mut dyn FnMut(&K, &V) -> bool>,
    ) -> Vec<Fenced<'c, K, V, S>> {
        let mut all = Vec::new();
        self.each_node(
            |_, node, pin| all.extend(self.fence_one(node, wait, pin, &mut which)),
            || self.tidy(),
        );
        all
    }

    /// One node of [`fence_all`](Self::fence_all).
    fn fence_one<'p, 'c: 'p>(
        &'c self,
        mut node: &'p Node<K, V>,
        wait: Option<u64>,
        pin: &'p Pin,
        which: &mut Option<&mut dyn FnMut(&K, &V) -> bool>,
    ) -> Option<Fenced<'c, K, V, S>> {
        let mut again = false;
        loop {
            let state = node.slot.state();
            if state.is_filling() && which.is_none() {
                match self.detach(node, wait, Event::Explicit, pin) {
                    Ok(done) => {
                        if done.part.is_none() {
                            self.unlink(node, pin);
                        }
                        return done.part.map(Fenced::detached);
                    }
                    Err(state) if is_given_up(state) => {
                        node = self.instead_of_given_up(node, wait, pin)?;
                    }
                    Err(state) if is_replaced(state) => return self.await_replaced(node, wait),
                    Err(_) => {}
                }
                continue;
            }
            // A fill that has been taken over may never end: what is given back, or about to be, is judged.
            if let (true, false, Some(which)) =
                (state.is_filling(), is_given_up(state), &mut *which)
            {
                let serving = self.serving(node, pin);
                let picked = serving.map(|serving| {
                    // SAFETY: it serves: live was loaded, the pin keeps it.
                    which(&node.key, unsafe { serving.slot.value() })
                });
                match picked {
                    // It comes after us.
                    None | Some(false) if state.is_compute() => return None,
                    // There is nothing to pick by: those who have joined get what it computes, and nobody else.
                    None => {
                        if self.detach_unpicked(node, wait.is_some(), pin) {
                            return None;
                        }
                    }
                    Some(false) => {
                        let waits = wait.unwrap_or(0);
                        if let Some(part) = self.join(node, WaitFor::End, waits) {
                            return Some(Fenced { part, judged: true });
                        }
                    }
                    Some(true) => match self.detach(node, wait, Event::Explicit, pin) {
                        Ok(done) => {
                            if done.part.is_none() {
                                self.unlink(node, pin);
                            }
                            return done.part.map(Fenced::detached);
                        }
                        Err(state) if is_replaced(state) => return self.await_replaced(node, wait),
                        Err(_) => {}
                    },
                }
                continue;
            }
            // One that is being published had begun before us: its value goes, not the one before, which would be the
            // last that could be read of it.
            let going = self.going(node, pin);
            let picked = match (going, &mut *which) {
                // SAFETY: it is live, the pin keeps it.
                (Some(going), Some(which)) => which(&node.key, unsafe { going.slot.value() }),
                (None, Some(_)) => false,
                (_, None) => true,
            };
            if !picked {
                return None;
            }
            let hash = self.rehash(node).unwrap_or(0);
            let picked = going.unwrap_or(node);
            match self.take_out(hash, picked, which.is_some(), wait, pin) {
                TakenOut::Gone => return None,
                TakenOut::Goes(part) => return Some(Fenced::detached(part)),
                TakenOut::Lost => {}
            }
            // It was read for as long as what has replaced it was being filled: we may come after that fill's
            // beginning, and so its value is for us to judge too. Once: what comes later was put in since. So was
            // begun what is being filled by now.
            let next = self.instead_of(node, pin)?;
            // Nor has it been found behind such a fill, if its `Hash` has panicked.
            if next.slot.prior() == Some(std::ptr::from_ref(picked).addr()) {
                let hash = self.rehash(next).unwrap_or(0);
                match self.take_out(hash, picked, which.is_some(), wait, pin) {
                    TakenOut::Gone => return None,
                    TakenOut::Goes(part) => return Some(Fenced::detached(part)),
                    TakenOut::Lost => {}
                }
            }
            if again || next.slot.state().is_filling() {
                return None;
            }
            (node, again) = (next, true);
        }
    }

    /// Detaches a first fill, which has no value to be judged: in its place, where it ends before another begins, if
    /// its end may be `awaited`; or cuts it off. False: it has ended.
    fn detach_unpicked(&self, node: &Node<K, V>, awaited: bool, pin: &Pin) -> bool {
        if awaited {
            return self.cut(node, Event::Explicit).is_ok();
        }
        let done = self.detach(node, None, Event::Explicit, pin).is_ok();
        if done {
            self.unlink(node, pin);
        }
        done
    }

    /// Joins a compute that an insert has just replaced, and is about to detach. The removal is ordered after the compute,
    /// so it waits for its end, and before the insert, so it leaves the inserted value.
    fn await_replaced<'c>(
        &'c self,
        node: &Node<K, V>,
        wait: Option<u64>,
    ) -> Option<Fenced<'c, K, V, S>> {
        self.join(node, WaitFor::End, wait?).map(Fenced::detached)
    }

    fn unlink(&self, node: &Node<K, V>, pin: &Pin) {
        let hash = self.rehash(node).unwrap_or(0);
        self.unlink_node(hash, node, Event::Explicit, pin);
    }

    /// Takes a given-up flight out with the value that it stands before, without waiting: its fill may never end. If the
    /// takeover has put that value back already, returns the node that the key has now, for the caller to fence.
    fn instead_of_given_up<'p>(
        &self,
        node: &Node<K, V>,
        wait: Option<u64>,
        pin: &'p Pin,
    ) -> Option<&'p Node<K, V>> {
        let hash = self.rehash(node).unwrap_or(0);
        if let TakenOut::Gone = self.take_out(hash, node, false, None, pin) {
            return None;
        }
        let next = self.instead_of(node, pin)?;
        let state = next.slot.state();
        // A fill that has begun since is not waited for. But it may stand before what has been put back.
        let is_new = state.is_filling()
            && (next.slot.prior().is_none()
                || (wait.is_some()
                    && !state.is_compute()
                    && self.cut(next, Event::Explicit).is_ok()));
        (!is_new).then_some(next)
    }

    /// What the key of a node has now.
    fn instead_of<'p>(&self, node: &Node<K, V>, pin: &'p Pin) -> Option<&'p Node<K, V>> {
        let hash = self.rehash(node)?;
        let spot = self.find(hash, pin, &|other| *other == node.key)?;
        // SAFETY: linked at the load of its word, under this pin.
        Some(unsafe { deref(spot.object::<Node<K, V>>(), pin) })
    }

    /// Takes a node that has ended out of the table, or from behind a flight that was begun since
    /// and stands before it: that is cut off. A compute is waited for, if `wait` says by whom. If the node has lost its
    /// place to another, that is left there if `only` this one is to go and that has a value.
    fn take_out<'c>(
        &'c self,
        hash: u64,
        node: &Node<K, V>,
        only: bool,
        wait: Option<u64>,
        pin: &Pin,
    ) -> TakenOut<'c, K, V, S> {
        let address = std::ptr::from_ref(node).addr();
        let stands_for = |other: *const Node<K, V>| {
            // SAFETY: in the table at the load of its word, under this pin.
            let other = unsafe { deref(other, pin) };
            std::ptr::eq(other, node) || other.slot.prior() == Some(address)
        };
        while node.slot.state().is_linked() {
            let found = self
                .table
                .find_to_change(hash, pin, self, &self.domain, &stands_for);
            let Some(spot) = found else {
                // Where its hash says it is not: only a `Hash` that lies does that. Or it is out of the table, and left
                // to the removals that wait for a compute.
                let linked = || node.slot.state().is_linked() && !node.slot.state().was_removed();
                let unlinked = self.unlink_while(hash, node, Event::Explicit, pin, &linked);
                return if unlinked {
                    TakenOut::Gone
                } else {
                    TakenOut::Lost
                };
            };
            // SAFETY: as above.
            let there = unsafe { deref(spot.object::<Node<K, V>>(), pin) };
            come_by("take_out");
            let is_it = std::ptr::eq(there, node);
            let state = there.slot.state();
            // A flight that is cut off does not let be read what it stands before; a compute does, until it ends.
            if !is_it && state.is_filling() {
                let waits = wait.is_some() && state.is_compute();
                if wait.is_some() && !waits {
                    if self.cut(there, Event::Explicit).is_ok() {
                        return TakenOut::Gone;
                    }
                } else if let Ok(done) = self.detach(there, wait, Event::Explicit, pin) {
                    if let Some(part) = done.part {
                        return TakenOut::Goes(part);
                    }
                    self.unlink_node(hash, there, Event::Explicit, pin);
                    return TakenOut::Gone;
                }
            }
            if only && !is_it && there.slot.state().is_live() {
                return TakenOut::Lost;
            }
            if self.table.unlink(&spot) {
                self.remember(spot.mark(), || Some(hash), pin);
                // If that was a flight at its end: its leader takes away what is behind it.
                self.released(there, self.unless_expired(there, Event::Explicit));
                return TakenOut::Gone;
            }
        }
        TakenOut::Lost
    }

    /// After the flight of `part` has ended: takes out what its key has now, if `which` picks it. If that is behind a
    /// compute, it goes when that ends.
    ///
    /// A flight that is found then was begun since, and is not waited for; but it may stand before
    /// an older value that the one waited for had to put back.
    pub(crate) fn fence_again<'c>(
        &'c self,
        hash: u64,
        part: &Part<'_, K, V, S>,
        wait: Option<u64>,
        which: &mut dyn FnMut(&K, &V) -> bool,
    ) -> Option<Part<'c, K, V, S>> {
        let pin = pin();
        let key = &part.node().key;
        let mut again = false;
        while let Some(spot) = self.find(hash, &pin, &|other| key == other) {
            // SAFETY: linked at the load of its word, under this pin.
            let node = unsafe { deref(spot.object::<Node<K, V>>(), &pin) };
            let picked = self.going(node, &pin).filter(|going| {
                // SAFETY: it is live, the pin keeps it.
                which(key, unsafe { going.slot.value() })
            });
            match picked.map(|picked| self.take_out(hash, picked, true, wait, &pin)) {
                None | Some(TakenOut::Gone) => return None,
                Some(TakenOut::Goes(part)) => return Some(part),
                // Once more if it has lost its place, as in `fence_one`.
                Some(TakenOut::Lost) if std::mem::replace(&mut again, true) => return None,
                Some(TakenOut::Lost) => {}
            }
        }
        None
    }
}

/// Returns whether an insert has replaced this compute. (A takeover also takes a slot out while it fills, and puts the
/// older value back: that one is given up.)
fn is_replaced(state: State) -> bool {
    state.is_filling() && !state.is_linked() && !is_given_up(state)
}

/// Returns whether a takeover, or a removal that does not wait, has detached this fill: it may never end.
fn is_given_up(state: State) -> bool {
    state.is_filling() && (state.is_taken() || state.is_superseded())
}
