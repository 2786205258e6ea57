//! The wait-for graph: a wait that would never end is an error.
//!
//! An *actor* is a thread, or a fill that is a future (whichever thread polls it). The graph has an
//! edge from an actor to each flight it waits for (a future may wait for several at once), and from
//! a flight to the actor that leads it. Only an actor that leads a fill can close a cycle. So only
//! such an actor enters the graph; all others wait without touching it.
//!
//! When a future of ours is pending, the waiter is the fill that is being polled, and not the
//! thread that polls. That thread may drive a runtime inside a fill of its own, and then polls
//! tasks that have nothing to do with that fill. With the feature `tokio` the runtime tells tasks
//! apart. Then a thread that leads is known to wait too: if it is in the very task in which its
//! lead began, or, like its lead, outside of all tasks. When a thread blocks, it waits itself.
//!
//! One mutex guards all edges. An actor adds its edge after its walk has found no cycle, and before
//! it releases the lock. So if two actors close a cycle together, the second one sees the first
//! one's edge.
//!
//! A cycle that is found is real. The walk starts at a running actor, us, and saw every flight on
//! the cycle unended. We lead the last flight, so it cannot end while we walk. The leader of each
//! earlier flight has declared that it goes on when the next one ends, so its flight cannot end
//! either. (A future that waits for one of several events, or for a limited time, has declared that
//! too. It is refused, though it might have gone on.)

use crate::actor::{is_fill, polled, polling, thread};
use crate::flight::{Flight, WaitFor};
use crate::runtime::{KNOWS_TASKS, NO_TASK, Task, task};
use crate::sync::{Mutex, global, lock, thread_cell};
use std::collections::{HashMap, HashSet};

global! {
    WAITING: Mutex<Graph> = Mutex::new(Graph::default())
}

thread_cell! {
    /// The number of fills that this thread leads.
    LEADS: usize = 0
}

thread_cell! {
    /// The innermost lead of this thread; 0 for none. Only where tasks are [known](KNOWS_TASKS).
    LEAD: u64 = 0
}

thread_cell! {
    /// The number of leads that this thread has had. Only where tasks are known, like `LEAD`.
    LED: u64 = 0
}

thread_cell! {
    /// The task in which this thread's innermost lead, or fill, began or was polled.
    TASK: Task = NO_TASK
}

thread_cell! {
    /// Whether this thread may have waits in the graph that outlive the call that made them, by
    /// futures that were polled and stored.
    AWAITS: bool = false
}

thread_cell! {
    /// The innermost fill that this thread runs.
    TOP: *const Frame<'static> = std::ptr::null()
}

/// A fill that this thread runs, on its stack. The error of a cycle names the keys by which one
/// fill came to ask for the other.
struct Frame<'a> {
    slot: usize,
    describe: &'a dyn Fn() -> String,
    up: *const Frame<'static>,
}

/// The most of a thread's nested fills that a cycle names: those nearest to the wait.
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

/// Returns the innermost fills of this thread, outermost first: their slots, and their keys in
/// words.
fn nested_fills() -> Vec<(usize, String)> {
    let mut fills = vec![];
    let mut frame = TOP.with(std::cell::Cell::get);
    // SAFETY: each frame is on this thread's stack, and `Pop` takes it from `TOP` before it goes.
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

/// The description of a wait in an error: the key waited for, and the fills that wait.
pub(crate) struct Words {
    key: String,
    fills: Vec<(usize, String)>,
}

impl Words {
    /// Describes this thread's fills too.
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
    /// The actor's own fills, from [`nested_fills`].
    fills: Vec<(usize, String)>,
}

impl Edge {
    /// Appends the keys from the flight of `slot`, which this actor leads, to the wait.
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

// SAFETY: threads follow `flight` only under the lock of `WAITING`, while the edge is in the graph.
// The actor takes its edge out before it leaves the flight.
unsafe impl Send for Edge {}

/// Counts a fill that this thread leads, while it lives. Not `Send`: it belongs to this thread.
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

/// Removes the waits of an actor's ended leads from the graph. A future that was polled there and
/// stored holds no lead up any more.
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

/// A waiter in the graph.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) actor: u64,
    /// The innermost lead of a thread, where that is known; its waits last no longer than this
    /// lead.
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

/// Returns the waiter if this thread blocks here and that could close a cycle: the fill that it
/// polls, or else the thread, if it leads a fill.
pub(crate) fn who_blocks() -> Option<Who> {
    let leads = LEADS.with(std::cell::Cell::get) > 0;
    polled()
        .map(Who::fill)
        .or_else(|| leads.then(Who::this_thread))
}

/// Returns the waiter if a future of ours is pending here: the fill that this thread polls. If
/// there is none: the thread, if it leads a fill and is known to be in no other task.
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

/// Returns whether a wait here could close a cycle.
pub(crate) fn leads_any() -> bool {
    who_blocks().is_some()
}

/// All edges.
#[derive(Default)]
pub(crate) struct Graph {
    edges: HashMap<u64, Vec<(u64, Edge)>>,
    /// The number of the next edge.
    next: u64,
}

/// An actor's edge in the graph; dropping it removes the edge.
pub(crate) struct Waiting {
    actor: u64,
    edge: u64,
}

impl Waiting {
    /// Enters the graph as `who`. Fails with the keys along the cycle that this wait would close;
    /// the key waited for is the first and the last.
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

/// One edge of a walk, and the step that led to it.
struct Step<'g> {
    edge: &'g Edge,
    from: usize,
}

/// Follows the edges from `ours`, the nearest first. Returns the keys on the way if they lead back
/// to `us`.
fn walk(us: u64, ours: &Edge, graph: &Graph) -> Option<Vec<String>> {
    let mut steps = vec![Step {
        edge: ours,
        from: 0,
    }];
    let mut seen = HashSet::new();
    let mut at = 0;
    while let Some(&Step { edge, .. }) = steps.get(at) {
        // SAFETY: our caller keeps our own flight. The other flights are kept by the actors that
        // have edges in the graph, which we hold locked.
        let flight = unsafe { &*edge.flight };
        match flight.blocks(edge.waits_for) {
            Some(leader) if leader == us => return Some(path(&steps, at)),
            // An actor that was seen before leads nowhere new. (An actor that waits for a flight it
            // leads has just been handed that lead, and is about to wake up.)
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

/// Returns the keys along the steps from the first to `last`. The first step's actor leads the
/// flight of `last`.
fn path(steps: &[Step<'_>], last: usize) -> Vec<String> {
    let mut way = vec![steps[0].edge];
    let mut at = last;
    while at != 0 {
        way.insert(1, steps[at].edge);
        at = steps[at].from;
    }
    let mut keys = vec![];
    for (before, edge) in way.iter().zip(way[1..].iter().chain(&way[..1])) {
        // SAFETY: the graph is still locked, so the edges of the walk and their flights are still
        // there.
        let flight = unsafe { &*before.flight };
        edge.path_from(flight.slot(), &before.key, &mut keys);
    }
    keys
}
