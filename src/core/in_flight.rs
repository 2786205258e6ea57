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

/// Is told of a fill that is slow: foreign code.
pub(crate) type OnSlow<K> = Box<dyn Fn(&K, Duration) + Send + Sync>;

/// The watch over fills that run long.
pub(crate) struct Watch<K> {
    pub(crate) slow: Option<(Duration, OnSlow<K>)>,
    pub(crate) timeout: Option<Duration>,
}

impl<K> Default for Watch<K> {
    /// Nothing.
    fn default() -> Self {
        Self {
            slow: None,
            timeout: None,
        }
    }
}

impl<K> Watch<K> {
    /// Whether there is anything to do.
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
    /// Whether fills are refused.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is()
    }

    /// Lets a lead pass, unless the cache is closed. Then the lead is given up here and now: its holder may have user code to
    /// drop besides, which may wait for the lead.
    ///
    /// Not under a pin: it wakes the waiters.
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

    /// Whether a lead may pass: asked by its leader.
    ///
    /// `SeqCst`, with `close`: a leader puts its slot into the table and then asks; the thread that
    /// closes says so and then walks over the table. So one of them sees the other.
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

    /// Refuses fills from now on. The waits of `waiter` for the ends of those that run.
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
        // `Awaited::new` hashes the key, which may panic: not under the walk's pin.
        let awaited = |part| Awaited::new(Detached::new(part, After::Nothing), waiter);
        parts.into_iter().map(awaited).collect()
    }

    /// Refuses fills from now on, and waits for those that run: until then, when they are cut off.
    /// How many were.
    #[track_caller]
    pub(crate) fn close(&self, until: Option<Instant>, verb: &Verb) -> usize {
        let mut cut_off = 0;
        // A fill that waits for us is not waited for.
        for left in Awaited::block_all(self.shut(actor()), until, verb, &mut |_, _| None) {
            cut_off += usize::from(self.take_over_part(&left.into_part()));
        }
        self.stop_janitor();
        self.tidy();
        cut_off
    }

    /// Shows every node that fills to `show`, with the one that it is to replace.
    fn each_filling(&self, mut show: impl FnMut(&Node<K, V>, Option<&Node<K, V>>)) {
        self.each_node(
            |spot, pin| {
                let node = spot.object();
                let (state, successor) = self.state_of(node, pin);
                let successor = successor.filter(|it| it.slot.state().is_filling());
                if state.is_filling() {
                    show(node, None);
                } else if let Some(successor) = successor {
                    show(successor, Some(node));
                }
            },
            || {},
        );
    }

    /// Which fills run.
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
                // SAFETY: a flight ripens after every pin that could load its address.
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

    /// Notes when a refresh began, if the cache watches its fills: its slot has no room for that.
    pub(super) fn note_beginning(&self, leader: &Leader<'_, K, V, S>) {
        if self.watch.is_on() {
            leader.take_part().flight().begins(self.clock.now());
        }
    }

    /// For how long a fill has been running, if that is known.
    fn age(&self, node: &Node<K, V>) -> Option<Duration> {
        let began = node.slot.began().or_else(|| {
            let flight = node.slot.state().flight()?;
            // SAFETY: a flight ripens after every pin that could load its address; the caller is
            // pinned, or takes part.
            unsafe { &*flight }.began()
        })?;
        Some(Duration::from_nanos(self.clock.now().saturating_sub(began)))
    }

    /// Abandons the running fill of a key, and lets one of its waiters lead a new one. False: none ran.
    pub(crate) fn take_over(&self, hash: u64, is_key: &dyn Fn(&K) -> bool) -> bool {
        let part = {
            let pin = pin();
            let Some(spot) = self.find(hash, &pin, is_key) else {
                return false;
            };
            let node = spot.object();
            let (_, successor) = self.state_of(node, &pin);
            let current = successor.map(|_| node);
            self.join(successor.unwrap_or(node), current, WaitFor::End)
        };
        let taken = part.is_some_and(|part| self.take_over_part(&part));
        self.tidy();
        taken
    }

    /// Abandons the fill that `part` is a share in. The share makes sure that there is a flight: a caller that comes meanwhile
    /// finds that it has ended.
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
        // SAFETY: the refresh held it when the pin was taken, because it had not ended.
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
        // They have an outcome already if an insert cut the flight off.
        let _ = flight.resolve(Outcome::Nothing);
        flight.end();
        if let Some(job) = flight.take_unwanted() {
            part.abandon(job);
        }
        true
    }

    /// One round of the watch: tells of slow fills, and takes over those that have run out of time.
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
            // Before it is marked as told of: if it has ended by now, its leader tells.
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

    /// Whether a fill has become slow, and its listener has not been told yet.
    fn is_news(&self, node: &Node<K, V>, age: Duration) -> bool {
        let slow = self.watch.slow.as_ref();
        slow.is_some_and(|(threshold, _)| age >= *threshold) && node.slot.mark_slow()
    }

    fn tell_slow(&self, key: &K, age: Duration) {
        if let Some((_, on_slow)) = &self.watch.slow {
            contain(|| on_slow(key, age));
        }
    }

    /// A fill is about to end: was it slow? It is told of by its leader, which others may wait for.
    pub(super) fn judge_age(&self, leader: &Leader<'_, K, V, S>) {
        if self.watch.slow.is_none() {
            return;
        }
        let node = leader.node();
        if let Some(age) = self.age(node).filter(|&age| self.is_news(node, age)) {
            leader.run(|key| self.tell_slow(key, age));
        }
    }

    /// When a fill that begins now has begun: to some milliseconds, unless something is done by its age.
    pub(super) fn begins(&self) -> u64 {
        if self.watch.is_on() {
            self.clock.now()
        } else {
            self.clock.lately()
        }
    }
}
