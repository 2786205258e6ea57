//! Taking keys out: one, all, or those a predicate picks.
//!
//! A removal first detaches the fill of a key, then hides its value, then waits. Once a fill is detached no newcomer gets its
//! value, whatever becomes of the removal. See slot.rs for the order of a removal and a compute.

use super::{Core, Node, Part};
use crate::flight::WaitFor;
use crate::interlude::come_by;
use crate::reclaim::{Pin, pin};
use crate::slot::{Removal, State, Takes};
use crate::stats::Event;
use crate::table::{Rehash, Spot};
use std::hash::{BuildHasher, Hash};

/// A fill that a removal waits for.
pub(crate) struct Detached<'c, K: Hash + Eq, V, S: BuildHasher> {
    pub(crate) part: Part<'c, K, V, S>,
    pub(crate) after: After,
}

/// The step of a removal after the fill that it waits for has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    Nothing,
    /// Answers with the value that the compute leaves.
    Claim,
    /// Judges the newer value: the fill is not detached.
    Judge,
}

/// The removal that a caller asks for.
struct Request<K, V> {
    /// Of the node's key, if the caller knows it.
    hash: Option<u64>,
    /// The caller waits for a fill that runs.
    waits: bool,
    event: Event,
    /// Remove the value of this node and no other; null: of any.
    only: *const Node<K, V>,
}

/// The result of one try to remove a node's value.
enum Tried<'c, K: Hash + Eq, V, S: BuildHasher> {
    /// Says whether there was an unexpired value, and holds the fill to wait for.
    Removed(bool, Option<Detached<'c, K, V, S>>),
    /// The state has changed.
    Again,
    /// The value was removed or replaced by another thread.
    Lost,
}

impl<'c, K: Hash + Eq, V, S: BuildHasher> Detached<'c, K, V, S> {
    pub(super) fn new(part: Part<'c, K, V, S>, after: After) -> Self {
        Self { part, after }
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Core<K, V, S> {
    /// Removes a key, and shows its value to `read`. If the caller `waits` for a fill that runs, the fill is returned,
    /// and after its end the caller [claims](Self::claim) the value that a compute has left.
    ///
    /// The first result says whether there was an unexpired value.
    pub(crate) fn remove<'c>(
        &'c self,
        hash: u64,
        is_key: &dyn Fn(&K) -> bool,
        waits: bool,
        event: Event,
        read: &mut dyn FnMut(&V),
    ) -> (bool, Option<Detached<'c, K, V, S>>) {
        let pin = pin();
        let request = Request {
            hash: Some(hash),
            waits,
            event,
            only: std::ptr::null(),
        };
        let mut lost = std::ptr::null();
        while let Some(spot) = self.find(hash, &pin, is_key) {
            match self.try_remove(&spot, &request, &pin, read) {
                Tried::Removed(had, fill) => return (had, fill),
                // Another thread has removed the value, and not unlinked the node yet. A node that is seen once may
                // just have been replaced.
                Tried::Lost if std::ptr::eq(lost, spot.address()) => break,
                Tried::Lost => lost = spot.address(),
                Tried::Again => {}
            }
        }
        (false, None)
    }

    /// Tries once to remove the value of the node at `spot`.
    fn try_remove<'p, 'c>(
        &'c self,
        spot: &Spot<'p, Node<K, V>>,
        request: &Request<K, V>,
        pin: &'p Pin,
        read: &mut dyn FnMut(&V),
    ) -> Tried<'c, K, V, S> {
        let node = spot.object();
        let (state, successor) = self.state_of(node, pin);
        if state.is_filling() {
            return self.remove_first_fill(spot, request, pin);
        }
        let event = self.unless_expired(node, request.event);
        if let Some(successor) = successor {
            let fill = successor.slot.state();
            if fill.is_filling() && !fill.is_unhooked() {
                return self.remove_refreshed(spot, successor, request, pin, read);
            }
            if fill.is_committed() {
                return self.remove_committed(node, successor, request, pin, read);
            }
            if state.is_live() && fill.is_removed() {
                // Another removal was first, and answers with this value. It may not have hidden it yet.
                if fill.accounts_for_current() {
                    self.hide(node);
                } else {
                    self.hide_and_account(node, event, pin);
                }
                return Tried::Removed(false, None);
            }
        }
        if !state.is_live() {
            return Tried::Lost;
        }
        // No fill runs; one that has ended has had no effect.
        let unexpired = node.slot.live().filter(|_| self.is_unexpired(node));
        if !self.remove_live(node, successor, event) {
            return Tried::Again;
        }
        // Unlink before the read: that runs user code, which may panic.
        self.unlink_removed(spot, request.hash, pin);
        unexpired.into_iter().for_each(read);
        Tried::Removed(unexpired.is_some(), None)
    }

    /// Detaches a first fill, which has no value.
    fn remove_first_fill<'p, 'c>(
        &'c self,
        spot: &Spot<'p, Node<K, V>>,
        request: &Request<K, V>,
        pin: &'p Pin,
    ) -> Tried<'c, K, V, S> {
        let Some((before, part)) = self.detach(spot.object(), None, request.waits) else {
            return Tried::Again;
        };
        // An insert came first: the key's newer value is for us to remove.
        if before.is_replaced() {
            return Tried::Lost;
        }
        // A fill that was abandoned may never end.
        let part = part.filter(|_| !before.is_unhooked());
        if part.is_none() {
            self.unlink_removed(spot, request.hash, pin);
        }
        Tried::Removed(false, part.map(|part| Detached::after(before, part)))
    }

    /// Detaches the refresh of a value, or the compute over it, and hides the value.
    fn remove_refreshed<'p, 'c>(
        &'c self,
        spot: &Spot<'p, Node<K, V>>,
        successor: &'p Node<K, V>,
        request: &Request<K, V>,
        pin: &'p Pin,
        read: &mut dyn FnMut(&V),
    ) -> Tried<'c, K, V, S> {
        let node = spot.object();
        let unexpired = node.slot.live().filter(|_| self.is_unexpired(node));
        let Some((before, part)) = self.detach(successor, Some(node), request.waits) else {
            return Tried::Again;
        };
        if before.is_replaced() {
            return Tried::Lost;
        }
        if before.is_unhooked() {
            return Tried::Again;
        }
        // The first thread to detach the fill has removed the value. No other thread answers with it, although the end
        // of the fill, an insert or a second removal may be the one that hides it.
        let first = !before.is_detached();
        let event = self.unless_expired(node, request.event);
        let fill = part.map(|part| Detached::after(before, part));
        let claims = fill.as_ref().is_some_and(|fill| fill.after == After::Claim);
        if claims || before.is_awaited() {
            // The compute comes before the removal. Its end accounts for the current value, and tells the listener.
            self.hide(node);
        } else if fill.is_some() || !before.unhooks() {
            self.hide_and_account(node, event, pin);
        } else {
            self.unhook(node, successor, event, false);
        }
        // Unlink before the read: that runs user code, which may panic.
        if fill.is_none() {
            self.unlink_removed(spot, request.hash, pin);
        }
        let had = first && unexpired.is_some();
        if had {
            unexpired.into_iter().for_each(read);
        }
        Tried::Removed(had, fill)
    }

    /// Removes a value that has a committed successor. The fill has ended. Its leader is about to put the successor
    /// into the place of the node, or to take the node out. The leader may have been descheduled there, so no thread
    /// waits for it. Instead the successor's value is removed before the leader puts it in.
    fn remove_committed<'c>(
        &'c self,
        node: &Node<K, V>,
        successor: &Node<K, V>,
        request: &Request<K, V>,
        pin: &Pin,
        read: &mut dyn FnMut(&V),
    ) -> Tried<'c, K, V, S> {
        let value = successor.slot.live();
        let is_other = !request.only.is_null() && !std::ptr::eq(request.only, successor);
        if value.is_some() && is_other {
            return Tried::Again;
        }
        come_by("committed");
        let event = self.unless_expired(successor, request.event);
        let won = value.is_some() && self.remove_live(successor, None, event);
        // If this call hides the current value, its leader finds the successor removed when it has taken it off, and takes it
        // out of the table. Else the leader may have gone.
        let leader_comes = self.hide(node);
        if !won {
            // Another removal has it, or an insert has taken its place, or the fill has put nothing in.
            return Tried::Lost;
        }
        if !leader_comes {
            let hash = request.hash.or_else(|| self.rehash(successor));
            self.unlink_node(hash.unwrap_or(0), successor, pin);
        }
        value.into_iter().for_each(read);
        Tried::Removed(true, None)
    }

    /// Detaches a fill, for a caller that `waits`, or does not. Returns its state before, and the share of a caller
    /// that waits. `None`: the fill has ended.
    fn detach<'c>(
        &'c self,
        node: &Node<K, V>,
        current: Option<&Node<K, V>>,
        waits: bool,
    ) -> Option<(State, Option<Part<'c, K, V, S>>)> {
        // The share comes first: a compute is to leave its value only to a removal that is sure to look.
        let part = if waits {
            Some(self.join(node, current, WaitFor::End)?)
        } else {
            None
        };
        come_by("detach");
        let before = node.slot.detach(part.is_some()).ok()?;
        Some((before, part))
    }

    /// Hides a value from newcomers, for which another thread accounts. Returns whether it was this call that did, while the
    /// value was being refreshed.
    fn hide(&self, node: &Node<K, V>) -> bool {
        come_by("hide");
        let how = Removal {
            value: Takes::Live,
            ..Removal::default()
        };
        loop {
            let state = node.slot.state();
            if !state.is_live() {
                return false;
            }
            if node.slot.remove(state, how).is_some() {
                return state.successor().is_some();
            }
        }
    }

    /// Hides a value after its fill was detached, and accounts for it, unless another thread has.
    fn hide_and_account(&self, node: &Node<K, V>, event: Event, pin: &Pin) {
        come_by("hide");
        loop {
            let (state, successor) = self.state_of(node, pin);
            if !state.is_live() || self.remove_live(node, successor, event) {
                return;
            }
        }
    }

    /// Shows the value that a compute has left to `read`, after the end of the fill that the removal has waited for.
    /// `had` says whether the removal has shown the current value already: a compute without effect leaves that.
    /// Returns whether the removal has removed a value.
    pub(crate) fn claim(
        &self,
        fill: &Detached<'_, K, V, S>,
        had: bool,
        read: &mut dyn FnMut(&V),
    ) -> bool {
        let slot = &fill.part.node().slot;
        let state = slot.state();
        if fill.after != After::Claim || state.is_superseded() {
            return had;
        }
        if state.is_empty() {
            return false;
        }
        let left = slot.read();
        left.into_iter().for_each(read);
        had || left.is_some()
    }

    /// Gives up the wait for a detached fill, which goes on: a compute has no effect, unless it has ended by now. A
    /// new fill of the key may begin. Returns the answer of [`claim`](Self::claim).
    pub(crate) fn give_up(
        &self,
        fill: &Detached<'_, K, V, S>,
        had: bool,
        read: &mut dyn FnMut(&V),
    ) -> bool {
        come_by("give up");
        // If the fill has ended by now, the value that it has left stands.
        let _ = fill.part.node().slot.supersede();
        {
            let pin = pin();
            if let Some(node) = fill.part.in_table(&pin) {
                let hash = self.rehash(node).unwrap_or(0);
                self.unlink_node(hash, node, &pin);
            }
        }
        self.claim(fill, had, read)
    }

    /// Goes on with a key of `invalidate_if` when the wait for its fill is over, or would close a cycle. Returns one
    /// more fill to wait for, if there is one.
    pub(crate) fn judge_ended<'c>(
        &'c self,
        fill: &Detached<'c, K, V, S>,
        is_cycle: bool,
        which: &mut dyn FnMut(&K, &V) -> bool,
    ) -> Option<Detached<'c, K, V, S>> {
        match (fill.after == After::Judge, is_cycle) {
            (true, true) => self.give_up_unjudged(&fill.part, which),
            (true, false) => return self.judge_again(&fill.part, true, which),
            (false, true) => _ = self.give_up(fill, false, &mut |_| {}),
            (false, false) => {}
        }
        None
    }

    /// Gives up a refresh that was to be waited for and its value judged. The older value, which was judged, goes on
    /// being served. If the refresh has ended by now, the key's value is judged.
    pub(crate) fn give_up_unjudged(
        &self,
        part: &Part<'_, K, V, S>,
        which: &mut dyn FnMut(&K, &V) -> bool,
    ) {
        come_by("give up");
        if !self.take_over_part(part) {
            self.judge_again(part, false, which);
        }
    }

    /// Removes the value that the key has now, after the end of the refresh of `part`, if `which` picks it. Of the
    /// fills that have begun since, only that of a picked value is waited for.
    fn judge_again<'c>(
        &'c self,
        part: &Part<'_, K, V, S>,
        waits: bool,
        which: &mut dyn FnMut(&K, &V) -> bool,
    ) -> Option<Detached<'c, K, V, S>> {
        let pin = pin();
        let spot = self.instead_of(part.node(), &pin)?;
        if spot.object().slot.state().is_filling() {
            return None;
        }
        let fill = self.remove_one(spot, waits, &pin, &mut Some(which));
        fill.filter(|fill| fill.after != After::Judge)
    }

    /// Removes every key, or those with a value that `which` picks. Returns the fills to wait for, if the caller
    /// waits; else the fills that are to be given up.
    pub(crate) fn remove_all<'c>(
        &'c self,
        waits: bool,
        mut which: Option<&mut dyn FnMut(&K, &V) -> bool>,
    ) -> Vec<Detached<'c, K, V, S>> {
        let mut all = Vec::new();
        self.each_node(
            |spot, pin| all.extend(self.remove_one(spot, waits, pin, &mut which)),
            || self.tidy(),
        );
        all
    }

    /// Removes one node, for [`remove_all`](Self::remove_all).
    fn remove_one<'p, 'c>(
        &'c self,
        mut spot: Spot<'p, Node<K, V>>,
        waits: bool,
        pin: &'p Pin,
        which: &mut Option<&mut dyn FnMut(&K, &V) -> bool>,
    ) -> Option<Detached<'c, K, V, S>> {
        let mut is_newer = false;
        loop {
            let tried = match which {
                None => {
                    let all = Request {
                        hash: None,
                        waits,
                        event: Event::Explicit,
                        only: std::ptr::null(),
                    };
                    self.try_remove(&spot, &all, pin, &mut |_| {})
                }
                Some(which) => self.try_remove_if(&spot, waits, pin, which),
            };
            match tried {
                Tried::Removed(_, fill) => return fill,
                Tried::Again => continue,
                Tried::Lost => {}
            }
            // The fill that has replaced the value began while that value was there. This call may have begun after
            // it, so the fill's value is for us too. Only once: a value that comes later was put in since, and a fill
            // that runs now has begun since.
            let newer = self.instead_of(spot.object(), pin)?;
            if is_newer || newer.object().slot.state().is_filling() {
                return None;
            }
            (spot, is_newer) = (newer, true);
        }
    }

    /// Tries once to remove the value of the node at `spot`, if `which` picks it.
    fn try_remove_if<'p, 'c>(
        &'c self,
        spot: &Spot<'p, Node<K, V>>,
        waits: bool,
        pin: &'p Pin,
        which: &mut dyn FnMut(&K, &V) -> bool,
    ) -> Tried<'c, K, V, S> {
        let node = spot.object();
        let (state, successor) = self.state_of(node, pin);
        if state.is_filling() {
            return self.detach_unpicked(spot, state, waits, pin);
        }
        // A committed successor began before us: its value is judged.
        let newer = successor.filter(|it| it.slot.state().is_committed());
        let judged = newer.filter(|it| it.slot.state().is_live()).unwrap_or(node);
        let Some(value) = judged.slot.live() else {
            return Tried::Lost;
        };
        if self.is_unexpired(judged) && which(&node.key, value) {
            come_by("picked");
            let picked = Request {
                hash: None,
                waits,
                event: Event::Explicit,
                only: judged,
            };
            return self.try_remove(spot, &picked, pin, &mut |_| {});
        }
        let refresh = successor.filter(|_| std::ptr::eq(judged, node));
        let refresh = refresh.filter(|it| {
            let fill = it.slot.state();
            // A compute comes after us. A detached fill puts nothing in, nor does one that has failed.
            fill.is_filling() && !fill.is_compute() && !fill.is_detached()
        });
        let Some(refresh) = refresh else {
            return Tried::Removed(false, None);
        };
        let Some(part) = self.join(refresh, Some(node), WaitFor::End) else {
            return Tried::Again;
        };
        Tried::Removed(false, Some(Detached::new(part, After::Judge)))
    }

    /// Detaches a first fill, which has no value to be judged. If the caller `waits`, the fill stays in its place
    /// until it has ended, so that no other begins before; else it is taken out. A compute comes after us.
    fn detach_unpicked<'p, 'c>(
        &'c self,
        spot: &Spot<'p, Node<K, V>>,
        state: State,
        waits: bool,
        pin: &'p Pin,
    ) -> Tried<'c, K, V, S> {
        if state.is_compute() {
            return Tried::Removed(false, None);
        }
        let Ok(before) = spot.object().slot.detach(waits) else {
            return Tried::Again;
        };
        if !waits || before.is_unhooked() {
            self.unlink_removed(spot, None, pin);
        }
        Tried::Removed(false, None)
    }

    /// Finds the node that the key of `node` has now.
    fn instead_of<'p>(&self, node: &Node<K, V>, pin: &'p Pin) -> Option<Spot<'p, Node<K, V>>> {
        let hash = self.rehash(node)?;
        self.find(hash, pin, &|other| *other == node.key)
    }
}

impl<'c, K: Hash + Eq, V, S: BuildHasher> Detached<'c, K, V, S> {
    /// Wraps a fill that a removal has just detached; its state was `before`.
    fn after(before: State, part: Part<'c, K, V, S>) -> Self {
        let claims = before.is_compute() && !before.is_detached();
        let after = if claims { After::Claim } else { After::Nothing };
        Self { part, after }
    }
}
