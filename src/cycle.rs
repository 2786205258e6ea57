//! Who waits for whom: a wait that would never end is an error.
//!
//! An *actor* is a thread, or a fill that is a future (whoever polls it). The graph has an edge from
//! an actor to each flight it waits for (a future may wait for several at once), and from a flight to the
//! actor that leads it. Only an actor that leads a fill can close a cycle, so only such an actor
//! enters the graph; everybody else waits without touching it.
//!
//! Who awaits is the fill inside whose poll it does so, and not the thread that polls: that may drive a
//! runtime inside a fill of its own, and comes by tasks that have nothing to do with it. Only where the runtime tells
//! tasks apart (feature `tokio`) a thread that leads is known to await too: when it is in the very task, or
//! outside of all, in which its lead began. A thread that blocks is charged with that itself.
//!
//! One mutex guards all edges. Edges are added after the walk has found no cycle and before the
//! lock is let go, so of two actors that close a cycle together the second one sees the first
//! one's edge. A cycle that is found is a real one: the walk starts at an actor that is running,
//! us, and every flight on it was seen unended, from the last, which we lead and which
//! cannot end while we walk, back to the first: each is waited for by an actor that, as it has said,
//! goes on when the next one ends. (A future that waits for one of several things, or for a time
//! only, has said so too: it is refused, though it might have gone on.)

use crate::actor::{is_fill, polled, polling, thread};
use crate::flight::{Flight, WaitFor};
use crate::runtime::{KNOWS_TASKS, NO_TASK, Task, task};
use crate::sync::{Mutex, global, lock, thread_cell};
use std::collections::{HashMap, HashSet};

global! {
    WAITING: Mutex<Graph> = Mutex::new(Graph::default())
}

thread_cell! {
    /// How many fills this thread leads just now.
    LEADS: usize = 0
}

thread_cell! {
    /// The innermost lead of this thread; 0 for none. Only where tasks are [known](KNOWS_TASKS).
    LEAD: u64 = 0
}

thread_cell! {
    /// How many leads this thread has had. As of `LEAD`.
    LED: u64 = 0
}

thread_cell! {
    /// The task in which its innermost lead, or fill, has begun or been polled.
    TASK: Task = NO_TASK
}

thread_cell! {
    /// This thread may have waits in the graph that outlive the call that made them: futures that are kept.
    AWAITS: bool = false
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

/// Runs `fill`, or a part of it, as the fill of `slot` that `leader` leads; `describe` puts its key
/// into words.
pub(crate) fn within<R>(
    leader: u64,
    slot: usize,
    describe: &dyn Fn() -> String,
    fill: impl FnOnce() -> R,
) -> R {
    struct Pop(*const Frame<'static>, Task);

    impl Drop for Pop {
        fn drop(&mut self) {
            TOP.with(|top| top.set(self.0));
            TASK.with(|cell| cell.set(self.1));
        }
    }

    let _polling = is_fill(leader).then(|| polling(leader));
    let up = TOP.with(std::cell::Cell::get);
    let frame = Frame { slot, describe, up };
    let _pop = Pop(up, TASK.with(|cell| cell.replace(task())));
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
    /// See [`Who`].
    lead: u64,
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
    lead: u64,
    before: (u64, Task),
    _this_thread: std::marker::PhantomData<*const ()>,
}

impl Leading {
    pub(crate) fn begin() -> Self {
        LEADS.with(|leads| leads.set(leads.get() + 1));
        let (mut lead, mut before) = (0, (0, NO_TASK));
        if KNOWS_TASKS {
            lead = LED.with(|led| led.replace(led.get() + 1)) + 1;
            before.0 = LEAD.with(|cell| cell.replace(lead));
            before.1 = TASK.with(|cell| cell.replace(task()));
        }
        Self {
            lead,
            before,
            _this_thread: std::marker::PhantomData,
        }
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        let left = LEADS.with(|leads| leads.replace(leads.get() - 1)) - 1;
        if !KNOWS_TASKS {
            return;
        }
        // Guards may be dropped in any order.
        if LEAD.with(std::cell::Cell::get) == self.lead {
            LEAD.with(|cell| cell.set(self.before.0));
            TASK.with(|cell| cell.set(self.before.1));
        }
        if AWAITS.with(std::cell::Cell::get) {
            AWAITS.with(|awaits| awaits.set(left > 0));
            awaits_no_more(thread(), |lead| lead == self.lead || left == 0);
        }
    }
}

/// Takes the waits of an actor's leads out of the graph that have ended: a future that it has polled there and kept
/// holds nobody up.
fn awaits_no_more(actor: u64, ended: impl Fn(u64) -> bool) {
    let mut graph = lock(&WAITING);
    let Some(edges) = graph.edges.get_mut(&actor) else {
        return;
    };
    let (gone, left) = std::mem::take(edges)
        .into_iter()
        .partition(|(_, edge)| ended(edge.lead));
    let gone: Vec<(u64, Edge)> = gone;
    *edges = left;
    if edges.is_empty() {
        graph.edges.remove(&actor);
    }
    drop(graph);
    drop(gone);
}

/// Who waits, as the graph has it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) actor: u64,
    /// The innermost of its leads, of a thread, where that is known: what it awaits there it awaits no longer than
    /// that is led.
    lead: u64,
}

impl Who {
    fn fill(actor: u64) -> Self {
        Self { actor, lead: 0 }
    }

    fn this_thread() -> Self {
        Self {
            actor: thread(),
            lead: LEAD.with(std::cell::Cell::get),
        }
    }
}

/// Whose wait it is if this thread blocks here, if that could close a cycle: the fill's that is polled, or else
/// the thread's, if it leads a fill.
pub(crate) fn who_blocks() -> Option<Who> {
    let leads = LEADS.with(std::cell::Cell::get) > 0;
    polled()
        .map(Who::fill)
        .or_else(|| leads.then(Who::this_thread))
}

/// Whose wait it is if a future of ours is pending here: the fill's that is polled; and if none is, the thread's that
/// leads one, if it is known to be in no other task.
pub(crate) fn who_awaits() -> Option<Who> {
    if !KNOWS_TASKS {
        return polled().map(Who::fill);
    }
    let who = who_blocks()?;
    if TASK.with(std::cell::Cell::get) != task() {
        return None;
    }
    if !is_fill(who.actor) {
        AWAITS.with(|awaits| awaits.set(true));
    }
    Some(who)
}

/// Whether a wait here could close a cycle.
pub(crate) fn leads_any() -> bool {
    who_blocks().is_some()
}

/// All edges.
#[derive(Default)]
pub(crate) struct Graph {
    edges: HashMap<u64, Vec<(u64, Edge)>>,
    /// The name of the next edge.
    next: u64,
}

/// An actor's edge in the graph; taken out when it goes.
pub(crate) struct Waiting {
    actor: u64,
    edge: u64,
}

impl Waiting {
    /// Enters the graph for `us`, or fails with the keys along the cycle that this wait would close,
    /// the one waited for first and last.
    ///
    /// The caller takes part in `flight` until after the returned guard is gone.
    pub(crate) fn enter(
        who: Who,
        flight: *const Flight,
        waits_for: WaitFor,
        words: Words,
    ) -> Result<Self, Vec<String>> {
        let us = who.actor;
        let edge = Edge {
            lead: who.lead,
            flight,
            waits_for,
            key: words.key,
            fills: words.fills,
        };
        let mut graph = lock(&WAITING);
        if let Some(mut keys) = walk(us, &edge, &graph) {
            drop(graph);
            keys.push(edge.key);
            return Err(keys);
        }
        let name = graph.next;
        graph.next += 1;
        graph.edges.entry(us).or_default().push((name, edge));
        Ok(Self {
            actor: us,
            edge: name,
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut graph = lock(&WAITING);
        let Some(edges) = graph.edges.get_mut(&self.actor) else {
            return;
        };
        let at = edges.iter().position(|(name, _)| *name == self.edge);
        let gone = at.map(|at| edges.swap_remove(at));
        if edges.is_empty() {
            graph.edges.remove(&self.actor);
        }
        drop(graph);
        drop(gone);
    }
}

/// One edge of a walk, and the step it was reached from.
struct Step<'g> {
    edge: &'g Edge,
    from: usize,
}

/// Follows the edges from `ours`, the nearest first; the keys on the way if they lead back to `us`.
fn walk(us: u64, ours: &Edge, graph: &Graph) -> Option<Vec<String>> {
    let mut steps = vec![Step {
        edge: ours,
        from: 0,
    }];
    let mut seen = HashSet::new();
    let mut at = 0;
    while let Some(&Step { edge, .. }) = steps.get(at) {
        // SAFETY: our own flight is kept by our caller, the others' by the actors whose edges are
        // in the graph, which we hold locked.
        let flight = unsafe { &*edge.flight };
        match flight.blocks(edge.waits_for) {
            Some(leader) if leader == us => return Some(path(&steps, at)),
            // An actor once seen leads nowhere new. (One that waits for what it leads itself has been
            // handed that lead, and is about to wake up.)
            Some(leader) if seen.insert(leader) => {
                let next = graph.edges.get(&leader).into_iter().flatten();
                steps.extend(next.map(|(_, edge)| Step { edge, from: at }));
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// The keys along the steps from the first to `last`, whose flight the first one's actor leads.
fn path(steps: &[Step<'_>], last: usize) -> Vec<String> {
    let mut way = vec![steps[0].edge];
    let mut at = last;
    while at != 0 {
        way.insert(1, steps[at].edge);
        at = steps[at].from;
    }
    let mut keys = vec![];
    for (before, edge) in way.iter().zip(way[1..].iter().chain(&way[..1])) {
        // SAFETY: as in `walk`, under the same lock.
        let flight = unsafe { &*before.flight };
        edge.path_from(flight.slot(), &before.key, &mut keys);
    }
    keys
}
