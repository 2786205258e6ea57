//! The steps after a removal: give up holds, tell the listener, and drop the values that no thread can see any more.

use super::{Core, Node};
use crate::cycle::leads_any;
use crate::interlude::come_by;
use crate::listener::{Bulletin, is_listening};
use crate::reclaim::{Garbage, Pin, is_pinned};
use crate::slot::{Released, Removal, State, Takes};
use crate::stats::Event;
use crate::table::{Rehash, Spot};
use std::hash::{BuildHasher, Hash};

/// The guard of [`Core::afterwards`].
#[must_use]
pub(crate) struct Afterwards<'c, K, V, S> {
    core: &'c Core<K, V, S>,
}

impl<K, V, S> Drop for Afterwards<'_, K, V, S> {
    fn drop(&mut self) {
        self.core.tell();
        self.core.domain.tidy_after_miss();
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Core<K, V, S> {
    /// Takes a node out of the table, or puts `instead` into its place, if it is in the table. Returns the mark of its
    /// word.
    pub(super) fn exchange(
        &self,
        hash: u64,
        node: &Node<K, V>,
        instead: Option<*const Node<K, V>>,
        pin: &Pin,
    ) -> Option<u8> {
        let linked = || node.slot.state().is_linked();
        let exchange = || {
            self.table
                .exchange(hash, node, instead, pin, self, &self.domain, &linked)
        };
        linked().then(exchange).flatten()
    }

    /// Takes a node without a live value out of the table; false if it is not there.
    pub(super) fn unlink_node(&self, hash: u64, node: &Node<K, V>, pin: &Pin) -> bool {
        let Some(mark) = self.exchange(hash, node, None, pin) else {
            return false;
        };
        self.remember(mark, || Some(hash), pin);
        self.unlinked(node);
        true
    }

    /// Does the same as [`unlink_node`](Self::unlink_node), for the node at `spot`. `hash` is its hash, if the caller
    /// knows it.
    pub(super) fn unlink_removed(&self, spot: &Spot<'_, Node<K, V>>, hash: Option<u64>, pin: &Pin) {
        let node = spot.object();
        if self.take_out(spot, hash, pin) {
            self.remember(spot.mark(), || hash.or_else(|| self.rehash(node)), pin);
        }
    }

    /// Takes the node at `spot`, which has no live value, out of the table; false if another thread does. A use may
    /// just have changed its word, or a resize may have moved it.
    #[inline]
    pub(super) fn take_out(
        &self,
        spot: &Spot<'_, Node<K, V>>,
        hash: Option<u64>,
        pin: &Pin,
    ) -> bool {
        let node = spot.object();
        come_by("unlink");
        let moved = || {
            let hash = hash.or_else(|| self.rehash(node)).unwrap_or(0);
            self.exchange(hash, node, None, pin).is_some()
        };
        let unlinked = self.table.unlink(spot) || moved();
        if unlinked {
            self.unlinked(node);
        }
        unlinked
    }
}

impl<K, V, S> Core<K, V, S> {
    /// Removes a live value, as long as `successor` is its successor: the one step in which the value leaves. Also
    /// accounts for it, unless the end of the refresh does. `link` says that the caller has taken the node out of the
    /// table. `None`: the state has changed.
    pub(super) fn try_remove_live(
        &self,
        node: &Node<K, V>,
        successor: Option<&Node<K, V>>,
        event: Event,
        link: bool,
    ) -> Option<Released> {
        let state = node.slot.state();
        let expected = successor.map(|successor| std::ptr::from_ref(successor).addr());
        if !state.is_live() || state.successor() != expected {
            return None;
        }
        let accounts = successor.is_none_or(|it| !it.slot.state().accounts_for_current());
        // A successor that has no effect keeps the weight.
        let parked = |it: &Node<K, V>| it.slot.parked().unwrap_or(0);
        let weight = successor.map_or(state.weight(), parked);
        if accounts {
            self.remove_seen(node, state, weight, event, link)
        } else {
            let how = Removal {
                value: Takes::Live,
                link,
                notify: false,
            };
            node.slot.remove(state, how)
        }
    }

    /// Removes a value of this weight, whose live state was `seen`, and accounts for it. `None`: the state has changed.
    #[inline]
    pub(super) fn remove_seen(
        &self,
        node: &Node<K, V>,
        seen: State,
        weight: u64,
        event: Event,
        link: bool,
    ) -> Option<Released> {
        let how = Removal {
            value: Takes::Live,
            link,
            notify: self.notifies(event),
        };
        let released = node.slot.remove(seen, how)?;
        self.account(node, weight, event);
        Some(released)
    }

    /// Does what [`try_remove_live`](Self::try_remove_live) does, with a node that is in the table.
    #[inline]
    pub(super) fn remove_live(
        &self,
        node: &Node<K, V>,
        successor: Option<&Node<K, V>>,
        event: Event,
    ) -> bool {
        self.try_remove_live(node, successor, event, false)
            .is_some()
    }

    /// Accounts for a value that was removed, and is held for the listener, if there is one.
    #[inline]
    pub(super) fn account(&self, node: &Node<K, V>, weight: u64, event: Event) {
        self.counts_out();
        self.stats.count(event);
        self.discharge(weight);
        self.post(node, event);
    }

    /// Says whether the listener is told of a removal by this event.
    pub(super) fn notifies(&self, event: Event) -> bool {
        self.bulletin.is_some() && event.cause().is_some()
    }

    /// Queues the removal of a value for the listener. The value's slot is held for that.
    pub(super) fn post(&self, node: &Node<K, V>, event: Event) {
        if let Some((bulletin, cause)) = self.bulletin.as_ref().zip(event.cause()) {
            bulletin.post(node, cause);
        }
    }

    /// Gives up the table's hold of a node that the caller has taken out of the table.
    #[inline]
    pub(super) fn unlinked(&self, node: &Node<K, V>) {
        let state = node.slot.state();
        if state.is_last_linked() {
            node.slot.release_last_linked(state);
            self.retire(std::ptr::from_ref(node).cast_mut());
        } else {
            self.end_hold(node, node.slot.release_linked());
        }
    }

    /// Returns the event of a removal: `Expired` if the TTL of the value is over, else `event`.
    pub(super) fn unless_expired(&self, node: &Node<K, V>, event: Event) -> Event {
        // (A slot that fills has no deadline yet.)
        let has_value = self.ttl.is_some() && node.slot.state().has_value();
        if has_value && node.slot.is_expired(self.clock.now()) {
            Event::Expired
        } else {
            event
        }
    }

    pub(super) fn release_held(&self, node: &Node<K, V>) {
        self.end_hold(node, node.slot.release_held());
    }

    pub(super) fn end_hold(&self, node: &Node<K, V>, released: Released) {
        if released.last {
            self.retire(std::ptr::from_ref(node).cast_mut());
        }
    }

    pub(super) fn retire(&self, node: *mut Node<K, V>) {
        let weight = if self.has_weigher() {
            // SAFETY: a node is dropped only after it has been retired, here.
            unsafe { (*node).slot.state() }.weight_of_value()
        } else {
            0
        };
        // SAFETY: nodes come from our slab. All holds are gone, or the node was never in the table, so this is the one
        // retire. Its state does not change any more.
        let garbage = unsafe { Garbage::new(node.cast(), Node::<K, V>::reap) };
        self.domain.retire_weighing(garbage, weight);
    }

    /// Tells the listener of the queued removals. Not on a thread that holds a pin, or the lead of a flight, because
    /// the listener may ask for its key; nor on a thread that unwinds. The next thread that comes by tells of the
    /// removals that stay queued.
    pub(super) fn tell(&self) {
        let Some(bulletin) = &self.bulletin else {
            return;
        };
        if bulletin.len() > 0 && !is_pinned() && !leads_any() && !std::thread::panicking() {
            self.tell_of(bulletin);
        }
    }

    #[cold]
    pub(super) fn tell_of(&self, bulletin: &Bulletin<K, V, Node<K, V>>) {
        bulletin.tell(
            |node| {
                // SAFETY: the node is held for the listener since its value was live, so it has a value.
                unsafe { (&(*node).key, (*node).slot.value()) }
            },
            |node| {
                // SAFETY: the listener's hold keeps the node until this call.
                let node = unsafe { &*node };
                self.end_hold(node, node.slot.release_notified());
            },
        );
    }

    #[track_caller]
    pub(crate) fn quiesce(&self) {
        self.tell();
        // A thread that holds a guard, or is about to read, may be waiting for a fill; and that fill may be ours.
        if leads_any() && !is_pinned() {
            return self.domain.flush_here();
        }
        self.domain.quiesce();
        // The removals of which the listener is being told now may be ours to tell; and none is told while this thread
        // unwinds.
        if !is_listening() && !std::thread::panicking() {
            self.tell();
            self.domain.quiesce();
        }
    }

    /// Does the housekeeping after removals: tells the listener, and drops the values that no thread can see any more.
    /// Does nothing on a thread that is pinned.
    #[inline]
    pub(crate) fn tidy(&self) {
        self.tell();
        self.domain.tidy();
    }

    /// Returns a guard that tidies up when it is dropped. A caller that is about to remove a value declares it first.
    pub(crate) fn afterwards(&self) -> Afterwards<'_, K, V, S> {
        Afterwards { core: self }
    }

    /// Does what [`tidy`](Self::tidy) does, also when there is little to drop. Waits for no other thread.
    pub(crate) fn tidy_all(&self) {
        self.tell();
        self.domain.flush();
    }

    /// Returns a pin for a miss: `pin`, or a later one. A miss puts an entry in, and so must also help to drop removed
    /// ones.
    pub(crate) fn pin_for_miss(&self, pin: Pin) -> Pin {
        if !self.domain.is_due() {
            return pin;
        }
        drop(pin);
        self.tidy();
        crate::reclaim::pin()
    }
}
