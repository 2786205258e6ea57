//! What comes after a removal: holds are given up, the listener is told, and what nobody can see any
//! more is dropped.

use super::{Core, Node};
use crate::cycle::leads_any;
use crate::interlude::come_by;
use crate::listener::{Bulletin, is_listening};
use crate::reclaim::{Garbage, Pin, is_pinned};
use crate::slot::{Released, State};
use crate::stats::Event;

/// See [`Core::afterwards`].
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

/// How many turns `quiesce` gives those who are about to read, before it lends a hand.
const SETTLING: u32 = 200;

impl<K, V, S> Core<K, V, S> {
    /// The table has let go of a node, or of one that another stood before. The weight that this
    /// has discharged.
    ///
    /// If it is to be given back what it stands before, because its fill has been taken over, that goes with it.
    pub(super) fn released(&self, node: &Node<K, V>, event: Event) -> u64 {
        // Asked for first: the caller may have no pin, and then the node may be gone right after. It is not another
        // in the end, because from a slot that `restores` nobody takes it.
        let prior = node.slot.prior();
        let (before, discharged) = self.let_go(node, event);
        come_by("let go");
        let Some(prior) = prior.filter(|_| before.restores()) else {
            return discharged;
        };
        // SAFETY: held by that slot, and since it is out of the table ours to let go of: who took it over had
        // not put it back.
        let prior = unsafe { &*(prior as *const Node<K, V>) };
        discharged + self.let_go(prior, self.unless_expired(prior, event)).1
    }

    /// As [`released`](Self::released), of this node alone; with its state before.
    pub(super) fn let_go(&self, node: &Node<K, V>, event: Event) -> (State, u64) {
        let mut discharged = 0;
        let told = self.bulletin.as_ref().zip(event.cause());
        let released = node.slot.release_linked(&self.lingering, told.is_some());
        let before = released.before;
        if before.counts() {
            self.counts_out();
            self.stats.count(event);
            discharged = before.weight();
            self.discharge(discharged);
            if let Some((bulletin, cause)) = told {
                // Held for the listener.
                bulletin.post(node, cause);
                return (before, discharged);
            }
        }
        self.end_hold(node, &released);
        (before, discharged)
    }

    /// What it is called when a node goes for some reason: if its time is over, that is the reason.
    pub(super) fn unless_expired(&self, node: &Node<K, V>, event: Event) -> Event {
        // (Of a slot that fills there is no deadline yet.)
        let live = self.ttl.is_some() && node.slot.state().is_live();
        if live && node.slot.is_expired(self.clock.now()) {
            Event::Expired
        } else {
            event
        }
    }

    pub(super) fn release_held(&self, node: &Node<K, V>) {
        let released = node.slot.release_held();
        self.end_hold(node, &released);
    }

    fn end_hold(&self, node: &Node<K, V>, released: &Released) {
        if released.last {
            self.retire(std::ptr::from_ref(node).cast_mut());
        }
        if let Some(generation) = released.lingered() {
            self.lingering.leave(generation);
        }
    }

    pub(super) fn retire(&self, node: *mut Node<K, V>) {
        let weight = if self.has_weigher() {
            // SAFETY: not dropped before it has been retired.
            unsafe { (*node).slot.state() }.weight_of_value()
        } else {
            0
        };
        // SAFETY: nodes come from our slab; all holds are gone, or it was never in the
        // table, so this is the one retire. Its state does not change any more.
        let garbage = unsafe { Garbage::new(node.cast(), Node::<K, V>::reap) };
        self.domain.retire_weighing(garbage, weight);
    }

    /// Tells the listener what has been removed, unless this thread holds something: a pin, or the
    /// lead of a flight, whose key the listener may ask for; or it unwinds. What is not told now is told
    /// by who comes by next.
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
                // SAFETY: held for the listener, since it was a live entry: it has a value.
                unsafe { (&(*node).key, (*node).slot.value()) }
            },
            |node| {
                // SAFETY: held until this call.
                let node = unsafe { &*node };
                let released = node.slot.release_told();
                self.end_hold(node, &released);
            },
        );
    }

    #[track_caller]
    pub(crate) fn quiesce(&self) {
        self.tell();
        // Whoever holds a view, or is about to read, may be waiting for a fill, and that fill may be ours.
        if leads_any() && !is_pinned() {
            return self.domain.flush_here();
        }
        self.domain.quiesce();
        // What the listener is being told of may be told by us; or it is not told while we unwind.
        if !is_listening() && !std::thread::panicking() {
            // The listener is told between the looks, not under the lock of one.
            self.lingering.settle(SETTLING, || self.tell());
            self.domain.quiesce();
        }
    }

    /// Housekeeping after removals: tells the listener, and drops what nobody can see any more.
    /// Does nothing on a thread that is pinned.
    #[inline]
    pub(crate) fn tidy(&self) {
        self.tell();
        self.domain.tidy();
    }

    /// Tidies up when it is dropped: of those who are about to remove something, declared first.
    pub(crate) fn afterwards(&self) -> Afterwards<'_, K, V, S> {
        Afterwards { core: self }
    }

    /// As [`tidy`](Self::tidy), also when there is little to drop. Waits for nobody.
    pub(crate) fn tidy_all(&self) {
        self.tell();
        self.domain.flush();
    }

    /// A pin for a miss, which puts things in and so must also help to get rid of things: `pin`,
    /// or a later one.
    pub(crate) fn pin_for_miss(&self, pin: Pin) -> Pin {
        if !self.domain.is_due() {
            return pin;
        }
        drop(pin);
        self.tidy();
        crate::reclaim::pin()
    }
}
