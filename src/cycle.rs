//! Who waits for whom: a wait that would never end is an error.
//!
//! An *actor* is a thread. (A task will be one too.) The graph has an edge from an actor to the
//! flight it waits for, and from a flight to the actor that leads it. Only an actor that leads a
//! fill can close a cycle, so only such an actor enters the graph; everybody else waits without
//! touching it.
//!
//! One mutex guards all edges. Edges are added after the walk has found no cycle and before the
//! lock is let go, so of two actors that close a cycle together the second one sees the first
//! one's edge. A cycle that is found is a real one: the walk starts at an actor that is running,
//! us, and every flight on it was seen unended, from the last, which we lead and which
//! cannot end while we walk, back to the first: each is waited for by an actor that can only go on
//! when the next one ends.

use crate::actor::actor;
use crate::flight::{Flight, WaitFor};
use crate::sync::{Mutex, global, lock, thread_cell};
use std::collections::HashMap;

global! {
    WAITING: Mutex<HashMap<u64, Edge>> = Mutex::new(HashMap::new())
}

thread_cell! {
    /// How many fills this thread leads just now.
    LEADS: usize = 0
}

thread_cell! {
    /// The innermost fill that this thread runs.
    TOP: *const Frame<'static> = std::ptr::null()
}

/// A fill that this thread runs, on its stack: who reads an error wants to know by which keys
/// one fill came to ask for the other.
struct Frame<'a> {
    slot: usize,
    describe: &'a dyn Fn() -> String,
    up: *const Frame<'static>,
}

/// How many of a thread's nested fills a cycle names: those nearest to the wait.
const NAMED: usize = 16;

/// Runs `fill` as the fill of `slot`, whose key `describe` puts into words.
pub(crate) fn within<R>(slot: usize, describe: &dyn Fn() -> String, fill: impl FnOnce() -> R) -> R {
    struct Pop(*const Frame<'static>);

    impl Drop for Pop {
        fn drop(&mut self) {
            TOP.with(|top| top.set(self.0));
        }
    }

    let up = TOP.with(std::cell::Cell::get);
    let frame = Frame { slot, describe, up };
    let _pop = Pop(up);
    TOP.with(|top| top.set(std::ptr::from_ref(&frame).cast()));
    fill()
}

/// The innermost fills of this thread, outermost first: their slots, and their keys in words.
fn nested_fills() -> Vec<(usize, String)> {
    let mut fills = vec![];
    let mut frame = TOP.with(std::cell::Cell::get);
    // SAFETY: frames are on this thread's stack, and are taken from `TOP` before they go.
    while let Some(this) = unsafe { frame.as_ref() } {
        fills.push((this.slot, (this.describe)()));
        if fills.len() == NAMED {
            break;
        }
        frame = this.up;
    }
    fills.reverse();
    fills
}

/// What a wait is called in an error: the key waited for, and the fills that wait.
pub(crate) struct Words {
    key: String,
    fills: Vec<(usize, String)>,
}

impl Words {
    /// Puts this thread's fills into words too.
    pub(crate) fn of(key: String) -> Self {
        Self {
            key,
            fills: nested_fills(),
        }
    }
}

/// An actor's wait.
pub(crate) struct Edge {
    flight: *const Flight,
    waits_for: WaitFor,
    /// The key waited for, in words.
    key: String,
    /// The actor's own fills, as of [`nested_fills`].
    fills: Vec<(usize, String)>,
}

impl Edge {
    /// The keys from the flight of `slot`, which this actor leads, to where it waits.
    fn path_from(&self, slot: usize, key: &str, keys: &mut Vec<String>) {
        if let Some(from) = self.fills.iter().position(|fill| fill.0 == slot) {
            keys.extend(self.fills[from..].iter().map(|fill| fill.1.clone()));
            return;
        }
        keys.push(key.to_owned());
        if self.fills.len() == NAMED {
            keys.push("…".to_owned());
        }
    }
}

// SAFETY: the flight is followed only under the lock of `WAITING`, while the edge is in it; the
// actor takes its edge out before it leaves the flight.
unsafe impl Send for Edge {}

/// Counts a fill that this thread leads, for as long as it lives. Not `Send`: it is this thread's.
pub(crate) struct Leading {
    _this_thread: std::marker::PhantomData<*const ()>,
}

impl Leading {
    pub(crate) fn begin() -> Self {
        LEADS.with(|leads| leads.set(leads.get() + 1));
        Self {
            _this_thread: std::marker::PhantomData,
        }
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        LEADS.with(|leads| leads.set(leads.get() - 1));
    }
}

/// Whether a wait of this thread could close a cycle.
pub(crate) fn leads_any() -> bool {
    LEADS.with(std::cell::Cell::get) > 0
}

/// This actor's edge in the graph; taken out when it goes.
pub(crate) struct Waiting {
    actor: u64,
}

impl Waiting {
    /// Enters the graph, or fails with the keys along the cycle that this wait would close, the
    /// one waited for first and last.
    ///
    /// The caller takes part in `flight` until after the returned guard is gone.
    pub(crate) fn enter(
        flight: *const Flight,
        waits_for: WaitFor,
        words: Words,
    ) -> Result<Self, Vec<String>> {
        let us = actor();
        let edge = Edge {
            flight,
            waits_for,
            key: words.key,
            fills: words.fills,
        };
        let mut waiting = lock(&WAITING);
        if let Some(mut keys) = walk(us, &edge, &waiting) {
            drop(waiting);
            keys.push(edge.key);
            return Err(keys);
        }
        waiting.insert(us, edge);
        Ok(Self { actor: us })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let edge = lock(&WAITING).remove(&self.actor);
        drop(edge);
    }
}

/// Follows the edges from `ours`; the keys on the way if they lead back to `us`.
fn walk(us: u64, ours: &Edge, waiting: &HashMap<u64, Edge>) -> Option<Vec<String>> {
    let mut keys = vec![];
    let mut edge = ours;
    // No walk is longer than the map, whatever moves meanwhile.
    for _ in 0..=waiting.len() {
        // SAFETY: our own flight is kept by our caller, the others' by the actors whose edges are
        // in the map, which we hold locked.
        let flight = unsafe { &*edge.flight };
        let leader = flight.blocks(edge.waits_for)?;
        if leader == us {
            ours.path_from(flight.slot(), &edge.key, &mut keys);
            return Some(keys);
        }
        let next = waiting.get(&leader)?;
        // A waiter that has been handed the lead of what it waited for is about to wake up.
        if std::ptr::eq(next.flight, edge.flight) {
            return None;
        }
        next.path_from(flight.slot(), &edge.key, &mut keys);
        edge = next;
    }
    None
}
