//! Running fills: the list of them, and the end of those that run too long, or of all when the cache is closed.

use super::remove::After;
use super::{Awaited, Core, Detached, Leader, Node, Part};
use crate::actor::{actor, is_fill};
use crate::blocking::Verb;
use crate::error::ClosedError;
use crate::flight::{Outcome, WaitFor};
use crate::foreign::contain;
use crate::in_flight::{InFlight, LedBy};
use crate::interlude::come_by;
use crate::reclaim::pin;
use crate::stats::Event;
use crate::sync::{AtomicUsize, Ordering, store_load};
use crate::table::Rehash;
use std::hash::{BuildHasher, Hash};
use std::time::{Duration, Instant};

/// Hears of a fill that is slow: user code.
pub(crate) type OnSlow<K> = Box<dyn Fn(&K, Duration) + Send + Sync>;

/// The actions on fills that run long.
pub(crate) struct Watch<K> {
    pub(crate) slow: Option<(Duration, OnSlow<K>)>,
    pub(crate) timeout: Option<Duration>,
}

impl<K> Default for Watch<K> {
    /// No action.
    fn default() -> Self {
        Self {
            slow: None,
            timeout: None,
        }
    }
}

impl<K> Watch<K> {
    /// Says whether there is any action.
    pub(crate) fn is_on(&self) -> bool {
        self.slow.is_some() || self.timeout.is_some()
    }
}

/// Whether a cache has been closed.
pub(super) struct Closed(AtomicUsize);

impl Closed {
    pub(super) fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    fn is(&self) -> bool {
        self.0.load(Ordering::SeqCst) != 0
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Core<K, V, S> {
    /// Says whether fills are refused.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is()
    }

    /// Lets a lead pass, unless the cache is closed. Then it gives the lead up at once: the lead's holder may have
    /// user values besides, and if dropping them waited for the lead, it would never end.
    ///
    /// Not under a pin: a waiter for the lead is woken.
    #[inline]
    pub(crate) fn admit<'c>(
        &self,
        leader: Leader<'c, K, V, S>,
    ) -> Result<Leader<'c, K, V, S>, ClosedError> {
        if self.admits() {
            Ok(leader)
        } else {
            Err(self.refuse(leader))
        }
    }

    /// Says whether a lead may pass. The lead's holder asks.
    ///
    /// `SeqCst`, with `close`: a leader puts its slot into the table and then asks; a closing thread sets the flag and
    /// then walks over the table. So the leader sees the flag, or the walk sees the slot.
    #[inline]
    pub(crate) fn admits(&self) -> bool {
        come_by("admit");
        store_load();
        !self.closed.is()
    }

    /// Gives up the lead in a cache that is closed. Not under a pin.
    #[cold]
    pub(crate) fn refuse(&self, leader: Leader<'_, K, V, S>) -> ClosedError {
        self.stats.count(Event::Refused);
        leader.decline();
        ClosedError
    }

    /// Refuses fills from now on. Returns the waits of `waiter` for the ends of the fills that run.
    pub(crate) fn shut(&self, waiter: u64) -> Vec<Awaited<'_, K, V, S>> {
        self.closed.0.swap(1, Ordering::SeqCst);
        store_load();
        let mut parts = Vec::new();
        self.each_filling(|node, current| {
            while node.slot.state().is_filling() {
                if let Some(part) = self.join(node, current, WaitFor::End) {
                    parts.push(part);
                    return;
                }
            }
        });
        // `Awaited::new` hashes the key, which may panic: so not under the walk's pin.
        let awaited = |part| Awaited::new(Detached::new(part, After::Nothing), waiter);
        parts.into_iter().map(awaited).collect()
    }

    /// Refuses fills from now on, and waits for the fills that run. At `until` it abandons the rest. Returns the
    /// number of abandoned fills.
    #[track_caller]
    pub(crate) fn close(&self, until: Option<Instant>, verb: &Verb) -> usize {
        let mut cut_off = 0;
        // A fill that waits for this thread is not waited for.
        for left in Awaited::block_all(self.shut(actor()), until, verb, &mut |_, _| None) {
            cut_off += usize::from(self.take_over_part(&left.into_part()));
        }
        self.stop_janitor();
        self.tidy();
        cut_off
    }

    /// Shows every node that fills to `show`, with the current node that it is to replace.
    fn each_filling(&self, mut show: impl FnMut(&Node<K, V>, Option<&Node<K, V>>)) {
        self.each_node(
            |spot, pin| {
                let node = spot.object();
                let filling = self.filling_of(node, pin);
                if let Some(filling) = filling.filter(|it| it.slot.state().is_filling()) {
                    show(filling, (!std::ptr::eq(filling, node)).then_some(node));
                }
            },
            || {},
        );
    }

    /// Lists the fills that run.
    pub(crate) fn in_flight(&self) -> Vec<InFlight<K>>
    where
        K: Clone,
    {
        let mut all = Vec::new();
        self.each_filling(|node, _| {
            let state = node.slot.state();
            if !state.is_filling() {
                return;
            }
            let (leader, waiters) = match state.flight() {
                // SAFETY: the flight was loaded under this pin, and is freed after every pin that could load it.
                Some(flight) => unsafe { &*flight }.crew(),
                None => (state.leader(), 0),
            };
            all.push(InFlight {
                key: node.key.clone(),
                age: self.age(node),
                waiters,
                led_by: if is_fill(leader) {
                    LedBy::Task
                } else {
                    LedBy::Thread
                },
                fenced_off: state.is_detached(),
            });
        });
        all
    }

    /// Notes in the flight when a refresh began, if the watch is on: its slot has no room for that.
    pub(super) fn note_beginning(&self, leader: &Leader<'_, K, V, S>) {
        if self.watch.is_on() {
            leader.take_part().flight().begins(self.clock.now());
        }
    }

    /// Returns how long a fill has been running, if that is known.
    fn age(&self, node: &Node<K, V>) -> Option<Duration> {
        let began = node.slot.began().or_else(|| {
            let flight = node.slot.state().flight()?;
            // SAFETY: a flight is freed after every pin that could load its address, and after the last share in it is
            // gone; the caller is pinned, or has a share.
            unsafe { &*flight }.began()
        })?;
        Some(Duration::from_nanos(self.clock.now().saturating_sub(began)))
    }

    /// Abandons a running fill of a key, and lets its waiters choose a new leader. False: none ran.
    pub(crate) fn take_over(&self, hash: u64, is_key: &dyn Fn(&K) -> bool) -> bool {
        let part = {
            let pin = pin();
            let Some(spot) = self.find(hash, &pin, is_key) else {
                return false;
            };
            let node = spot.object();
            let Some(filling) = self.filling_of(node, &pin) else {
                return false;
            };
            let current = (!std::ptr::eq(filling, node)).then_some(node);
            self.join(filling, current, WaitFor::End)
        };
        let taken = part.is_some_and(|part| self.take_over_part(&part));
        self.tidy();
        taken
    }

    /// Abandons the fill of this share. The share makes sure that there is a flight: a caller that comes while the
    /// fill is being detached finds that it has ended.
    pub(crate) fn take_over_part(&self, part: &Part<'_, K, V, S>) -> bool {
        let node = part.node();
        let Some(hash) = self.rehash(node) else {
            return false;
        };
        let pinned = pin();
        let Ok(before) = node.slot.abandon() else {
            return false;
        };
        come_by("taken");
        // SAFETY: the fill had not ended when the pin was taken, so the refresh held the current node then.
        let current = unsafe { part.current.as_ref() };
        match current {
            None => _ = self.unlink_node(hash, node, &pinned),
            Some(current) if before.is_detached() => {
                self.end_detached(hash, node, current, Event::Explicit, &pinned);
            }
            Some(current) => {
                self.end_refresh_without(current, node, None);
                self.make_room(0, hash, current, &pinned);
            }
        }
        drop(pinned);
        self.stats.count(Event::TakenOver);
        let flight = part.flight();
        // The waiters have an outcome already if an insert detached the fill.
        let _ = flight.resolve(Outcome::Nothing);
        flight.end();
        if let Some(job) = flight.take_unwanted() {
            part.abandon(job);
        }
        true
    }

    /// Does one round of the watch: reports slow fills, and abandons those that have run out of time.
    pub(crate) fn watch(&self) {
        if !self.watch.is_on() {
            return;
        }
        let mut slow = Vec::new();
        let mut over = Vec::new();
        self.each_filling(|node, current| {
            let Some(age) = self.age(node) else {
                return;
            };
            let is_over = self.watch.timeout.is_some_and(|timeout| age >= timeout);
            let slow_by = self.watch.slow.as_ref().map(|(threshold, _)| *threshold);
            if !is_over && slow_by.is_none_or(|threshold| age < threshold) {
                return;
            }
            // Join before the fill is marked as reported: if it has ended by now, its leader reports it.
            if let Some(part) = self.join(node, current, WaitFor::End) {
                if self.is_news(node, age) {
                    slow.push((part.again(), age));
                }
                if is_over {
                    over.push(part);
                }
            }
        });
        for (part, age) in slow {
            self.tell_slow(part.key(), age);
        }
        for part in over {
            self.take_over_part(&part);
        }
        self.tidy();
    }

    /// Says whether a fill has become slow, and this is the first call to find so.
    fn is_news(&self, node: &Node<K, V>, age: Duration) -> bool {
        let slow = self.watch.slow.as_ref();
        slow.is_some_and(|(threshold, _)| age >= *threshold) && node.slot.mark_slow()
    }

    fn tell_slow(&self, key: &K, age: Duration) {
        if let Some((_, on_slow)) = &self.watch.slow {
            contain(|| on_slow(key, age));
        }
    }

    /// Reports a fill that is about to end, if it was slow. Its leader reports it, as a part of the fill, for which
    /// others may wait.
    pub(super) fn judge_age(&self, leader: &Leader<'_, K, V, S>) {
        if self.watch.slow.is_none() {
            return;
        }
        let node = leader.node();
        if let Some(age) = self.age(node).filter(|&age| self.is_news(node, age)) {
            leader.run(|key| self.tell_slow(key, age));
        }
    }

    /// Returns the time at which a fill that begins now has begun. Exact if the watch is on, else good to some
    /// milliseconds.
    pub(super) fn begins(&self) -> u64 {
        if self.watch.is_on() {
            self.clock.now()
        } else {
            self.clock.lately()
        }
    }
}
