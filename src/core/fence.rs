//! Taking keys out: one, all, or those a predicate picks.
//!
//! The order is always the same: fence first, then wait. Once a flight is fenced off no newcomer
//! gets its value, whatever becomes of the one who fenced it.

use super::{Core, GIVE_WAY, Node, Part};
use crate::flight::WaitFor;
use crate::interlude::come_by;
use crate::reclaim::{Pin, deref, pin};
use crate::stats::Event;
use crate::sync::relax;
use crate::table::Rehash;
use std::hash::{BuildHasher, Hash};

impl<K: Hash + Eq, V, S: BuildHasher> Core<K, V, S> {
    /// Takes a key out: fences off its flight, or unlinks its entry, which `read` is shown. The
    /// part, if any, is one to wait for the end of the fill with.
    ///
    /// The wait is `actor`'s. The first answer says whether there was a live value.
    pub(crate) fn fence<'c>(
        &'c self,
        hash: u64,
        is_key: &dyn Fn(&K) -> bool,
        wait: bool,
        actor: u64,
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
            // What it serves is about to change: which of the two is taken out could not be said.
            if node.slot.is_publishing() {
                relax(GIVE_WAY);
                continue;
            }
            // SAFETY: it serves: live was loaded, the pin keeps it.
            let mut value = self
                .serving(node, &pin)
                .map(|node| unsafe { node.slot.value() });
            if state.is_filling() {
                // From here on no newcomer gets this flight's value, nor what it stands before.
                match self.cut(node, event) {
                    // An insert has put its node in the place of this one, and cut it off before us: what
                    // the key has now is for us to take out. (Before the cut, we are before the insert.)
                    Ok(before) if before.is_cut() && !before.is_linked() => continue,
                    Ok(before) => {
                        let value = value.filter(|_| !before.is_cut());
                        if let Some(value) = value {
                            read(value);
                        }
                        if wait {
                            return (value.is_some(), self.join(node, WaitFor::End, actor));
                        }
                        self.unlink_node(hash, node, event, &pin);
                        return (value.is_some(), None);
                    }
                    // A takeover has fenced it off, and its fill may never end. What it stands before goes with
                    // it, here and now: that takeover may take long to find its place, which runs `Hash`.
                    Err(state) if state.is_taken() && state.is_linked() => {
                        value = value.filter(|_| state.restores());
                    }
                    Err(_) => continue,
                }
            }
            if self.table.unlink(&spot) {
                self.remember(spot.mark(), || Some(hash), &pin);
                let event = if value.is_some() {
                    event
                } else {
                    Event::Expired
                };
                self.released(node, event);
                if let Some(value) = value {
                    read(value);
                }
                return (value.is_some(), None);
            }
        }
    }

    /// Lets go of a fenced-off flight that is not to be waited for.
    pub(crate) fn give_up(&self, hash: u64, part: &Part<'_, K, V, S>) {
        self.unlink_node(hash, part.node(), Event::Explicit, &pin());
    }

    /// Cuts off a flight whose value was to be judged, and lets go of it. If it has ended by now, or was taken over,
    /// what its key has is judged.
    pub(crate) fn cut_and_give_up(
        &self,
        hash: u64,
        part: &Part<'_, K, V, S>,
        which: &mut dyn FnMut(&K, &V) -> bool,
    ) {
        come_by("give up");
        let cut = self.cut(part.node(), Event::Explicit).is_ok();
        if !cut || !self.take_out(hash, part.node(), false, &pin()) {
            self.fence_again(hash, part, which);
        }
    }

    /// Fences every key whose value `which` picks; all, without it. Returns the flights to wait
    /// for: those fenced off, or, with `which`, those whose value is not known yet.
    pub(crate) fn fence_all<'c>(
        &'c self,
        actor: u64,
        mut which: Option<&mut dyn FnMut(&K, &V) -> bool>,
    ) -> Vec<Part<'c, K, V, S>> {
        let mut parts = Vec::new();
        let mut from = Some(0);
        while let Some(hash) = from {
            let pin = pin();
            let mut spots = Vec::new();
            from = self.table.scan(hash, &pin, self, &self.domain, &mut spots);
            for spot in spots {
                // SAFETY: linked at the load of its word, under this pin.
                let node = unsafe { deref(spot.object::<Node<K, V>>(), &pin) };
                parts.extend(self.fence_one(node, actor, &pin, &mut which));
            }
            drop(pin);
            self.tidy();
        }
        parts
    }

    /// One node of [`fence_all`](Self::fence_all).
    fn fence_one<'c, 'p>(
        &'c self,
        mut node: &'p Node<K, V>,
        actor: u64,
        pin: &'p Pin,
        which: &mut Option<&mut dyn FnMut(&K, &V) -> bool>,
    ) -> Option<Part<'c, K, V, S>> {
        let mut again = false;
        loop {
            if node.slot.state().is_filling() {
                if which.is_none() {
                    match self.cut(node, Event::Explicit) {
                        Ok(_) => {}
                        Err(state) if state.is_taken() => {
                            node = self.instead_of_taken(node, pin)?;
                            continue;
                        }
                        Err(_) => continue,
                    }
                }
                // A fill that has been taken over may never end: what is given back, or about to be, is judged.
                if !node.slot.state().is_taken() {
                    let part = self.join(node, WaitFor::End, actor);
                    if part.is_some() {
                        return part;
                    }
                    if node.slot.state().is_filling() {
                        continue;
                    }
                }
            }
            // Its fill had begun before us: its value goes, not the one before, which would be the last that could
            // be read of it.
            if node.slot.is_publishing() {
                relax(GIVE_WAY);
                continue;
            }
            let serving = self.serving(node, pin);
            let picked = match (serving, &mut *which) {
                // SAFETY: it serves: live was loaded, the pin keeps it.
                (Some(serving), Some(which)) => which(&node.key, unsafe { serving.slot.value() }),
                (None, Some(_)) => false,
                (_, None) => true,
            };
            if !picked {
                return None;
            }
            let hash = self.rehash(node).unwrap_or(0);
            let picked = serving.unwrap_or(node);
            if self.take_out(hash, picked, which.is_some(), pin) {
                return None;
            }
            // It was read for as long as what has replaced it was being filled: we may come after that fill's
            // beginning, and so its value is for us to judge too. Once: what comes later was put in since. So was
            // begun what is being filled by now.
            let next = self.instead_of(node, pin)?;
            // Nor has it been found behind such a fill, if its `Hash` has panicked.
            if next.slot.prior() == Some(std::ptr::from_ref(picked).addr()) {
                let hash = self.rehash(next).unwrap_or(0);
                if self.take_out(hash, picked, which.is_some(), pin) {
                    return None;
                }
            }
            if again || next.slot.state().is_filling() {
                return None;
            }
            (node, again) = (next, true);
        }
    }

    /// Of a flight that a takeover has fenced off, and whose fill may never end: takes it out with what it stands
    /// before. If that has been put back already, what the key has now is for us to fence.
    fn instead_of_taken<'p>(&self, node: &Node<K, V>, pin: &'p Pin) -> Option<&'p Node<K, V>> {
        let hash = self.rehash(node).unwrap_or(0);
        if self.take_out(hash, node, false, pin) {
            return None;
        }
        let next = self.instead_of(node, pin)?;
        // A fill that has begun since is not waited for. But it may stand before what has been put back.
        let is_new = next.slot.state().is_filling()
            && (next.slot.prior().is_none() || self.cut(next, Event::Explicit).is_ok());
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
    /// and stands before it: that is cut off. False: it has lost its place to another, which is left there if
    /// `only` this one is to go and that has a value.
    fn take_out(&self, hash: u64, node: &Node<K, V>, only: bool, pin: &Pin) -> bool {
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
                // Where its hash says it is not: only a `Hash` that lies does that.
                return self.unlink_node(hash, node, Event::Explicit, pin);
            };
            // SAFETY: as above.
            let there = unsafe { deref(spot.object::<Node<K, V>>(), pin) };
            come_by("take_out");
            let is_it = std::ptr::eq(there, node);
            // A flight that is cut off does not let be read what it stands before.
            if !is_it && self.cut(there, Event::Explicit).is_ok() {
                return true;
            }
            if only && !is_it && there.slot.state().is_live() {
                return false;
            }
            if self.table.unlink(&spot) {
                self.remember(spot.mark(), || Some(hash), pin);
                // If that was a flight at its end: its leader takes away what is behind it.
                self.released(there, self.unless_expired(there, Event::Explicit));
                return true;
            }
        }
        false
    }

    /// After the flight of `part` has ended: takes out what its key has now, if `which` picks it.
    ///
    /// A flight that is found then was begun since, and is not waited for; but it may stand before
    /// an older value that the one waited for had to put back.
    pub(crate) fn fence_again(
        &self,
        hash: u64,
        part: &Part<'_, K, V, S>,
        which: &mut dyn FnMut(&K, &V) -> bool,
    ) {
        let pin = pin();
        let key = &part.node().key;
        let mut again = false;
        while let Some(spot) = self.find(hash, &pin, &|other| key == other) {
            // SAFETY: linked at the load of its word, under this pin.
            let node = unsafe { deref(spot.object::<Node<K, V>>(), &pin) };
            if node.slot.is_publishing() {
                relax(GIVE_WAY);
                continue;
            }
            let picked = self.serving(node, &pin).filter(|serving| {
                // SAFETY: it serves: live was loaded, the pin keeps it.
                which(key, unsafe { serving.slot.value() })
            });
            let done = picked.is_none_or(|picked| self.take_out(hash, picked, true, &pin));
            // Once more if it has lost its place, as in `fence_one`.
            if done || std::mem::replace(&mut again, true) {
                return;
            }
        }
    }
}
