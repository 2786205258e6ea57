//! Fills that are futures: polled by the one task that brought the fill, or owned by the cache and kept by their
//! flight, where each waiter may poll them.

use super::{Blank, Core, Leader, Node, Part, Wait};
use crate::actor::new_fill;
use crate::blocking::in_poll;
use crate::cycle::{Waiting, Who, Words, who_awaits};
use crate::error::CycleError;
use crate::flight::WaitFor;
use crate::foreign::contain;
use crate::sync::Arc;
use std::hash::{BuildHasher, Hash};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A fill that has been made and is not done.
pub(crate) type BoxFill<V, E> = Pin<Box<dyn Future<Output = Result<V, E>> + Send>>;

/// A fill together with the lead of its flight: the [`Job`](crate::flight::Job) of that flight.
/// Dropped before it is done, it drops the fill and then the lead: fills of one key never overlap.
struct Kept<K, V, E, S>
where
    K: Hash + Eq + 'static,
    V: 'static,
    S: BuildHasher + 'static,
{
    fill: Option<BoxFill<V, E>>,
    /// Its core is the one below.
    lead: Option<Leader<'static, K, V, S>>,
    /// Last, because the lead refers to it.
    core: Arc<Core<K, V, S>>,
}

// SAFETY: the lead of a fill that is polled (`is_fill`) is bound to no thread. The objects behind it are shared by
// threads that have a handle (`Core: Sync`), and dropped on any thread (`Send`).
unsafe impl<K, V, E, S> Send for Kept<K, V, E, S>
where
    K: Hash + Eq + Send + Sync,
    V: Send + Sync,
    S: BuildHasher + Send + Sync,
{
}

impl<K, V, E, S> Drop for Kept<K, V, E, S>
where
    K: Hash + Eq + 'static,
    V: 'static,
    S: BuildHasher + 'static,
{
    /// Drops the fill first, as a part of itself: the waits of its destructors are the fill's. The drop itself may run
    /// while another destructor's panic unwinds.
    fn drop(&mut self) {
        let Self { fill, lead, .. } = self;
        if let (Some(lead), true) = (lead, fill.is_some()) {
            let _inside = in_poll();
            contain(|| lead.run(|_| *fill = None));
        }
    }
}

/// Out of line: the stack space of a large value is given back before the flight is ended.
#[inline(never)]
fn poll_into<V, E>(
    fill: &mut BoxFill<V, E>,
    cx: &mut Context<'_>,
    blank: &mut Blank<'_, V>,
) -> Poll<Result<(), E>> {
    match fill.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(blank.try_put(result)),
        Poll::Pending => Poll::Pending,
    }
}

impl<K, V, E, S> Future for Kept<K, V, E, S>
where
    K: Hash + Eq,
    S: BuildHasher,
    E: Clone + Send + Sync + 'static,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let _inside = in_poll();
        let (Some(lead), Some(fill)) = (&mut this.lead, &mut this.fill) else {
            return Poll::Ready(());
        };
        let Poll::Ready(result) = lead.fill(|_, blank| poll_into(fill, cx, blank)) else {
            return Poll::Pending;
        };
        // The fill has ended once it is dropped.
        lead.run(|_| this.fill = None);
        let lead = this.lead.take().expect("there while the fill is");
        let nobody_waits = lead.take_part().flight().crew().1 == 0;
        match result {
            Ok(()) => drop(lead.publish()),
            Err(error) => lead.fail(|| Arc::new(error)),
        }
        if nobody_waits {
            // Waiters would tidy up.
            this.core.tidy();
        }
        Poll::Ready(())
    }
}

impl<'c, K, V, S> Leader<'c, K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// Leaves the lead, and the fill that `make` makes, to all waiters. Returns the wait of one of them, the caller.
    /// The fill has begun: it is dropped once no caller waits for it.
    pub(crate) fn keep<E>(
        mut self,
        core: &Arc<Core<K, V, S>>,
        make: impl FnOnce(&K) -> BoxFill<V, E>,
    ) -> Wait<'c, K, V, S>
    where
        E: Clone + Send + Sync + 'static,
    {
        debug_assert!(std::ptr::eq(self.core(), Arc::as_ptr(core)));
        let (us, hash) = (self.actor, self.hash);
        // `make` is user code that may block, and it is not yet the fill. It runs as the current leader, with an edge
        // in the graph from the fill that encloses this call.
        let asking = who_awaits().filter(|asks| asks.actor != us);
        // The current leader waits for nothing yet, so this closes no cycle.
        let nested = asking.and_then(|asks| self.nest(asks).ok());
        let fill = {
            let _inside = in_poll();
            self.run(make)
        };
        drop(nested);
        let actor = self.lead_for_all();
        let part = self.take_part();
        let flight = part.flight();
        let wait = part.enlisted_as(us, hash);
        // SAFETY: the lead is good for as long as the core lives, which is kept beside it and dropped after it.
        let lead =
            unsafe { std::mem::transmute::<Leader<'c, K, V, S>, Leader<'static, K, V, S>>(self) };
        let kept = Kept {
            fill: Some(fill),
            lead: Some(lead),
            core: Arc::clone(core),
        };
        flight.keep(Box::pin(kept), actor);
        wait
    }

    /// Makes a fill the leader, in place of a thread or task. The fill's number is new, so nothing is known of it yet:
    /// the actor that has asked for the fill is another one, and may ask again.
    fn lead_for_all(&mut self) -> u64 {
        self.leading = None;
        self.actor = new_fill();
        self.actor
    }
}

impl<'c, K: Hash + Eq, V, S: BuildHasher> Leader<'c, K, V, S> {
    /// Takes a share in the flight, beside the lead's: like a caller that joined, also if the flight is detached by
    /// now.
    pub(super) fn take_part(&self) -> Part<'c, K, V, S> {
        let node: &Node<K, V> = self.node();
        let mut part = loop {
            // Fails only while another thread hangs the flight.
            if let Some(part) = self.core().join(node, None, WaitFor::End) {
                break part;
            }
        };
        part.current = self.current;
        part.waits_for = WaitFor::Value;
        part
    }

    /// Enters an edge: `us` polls the fill that is led here, and so waits for it.
    fn nest(&self, us: Who) -> Result<Nested<'c, K, V, S>, CycleError> {
        let part = self.take_part();
        let words = Words::of(part.core.describe(part.key()));
        let edge = Waiting::enter(us, part.flight, WaitFor::End, words);
        Ok(Nested {
            _edge: edge.map_err(CycleError::new)?,
            waits: us,
            _part: part,
        })
    }
}

/// The lead of a fill that one task polls.
pub(crate) struct TaskLead<'c, K: Hash + Eq, V, S: BuildHasher> {
    nested: Option<Nested<'c, K, V, S>>,
    leader: Leader<'c, K, V, S>,
}

/// An edge of the wait-for graph: the enclosing fill polls another one, and so waits for it. The edge goes before the
/// share that keeps its flight.
struct Nested<'c, K: Hash + Eq, V, S: BuildHasher> {
    _edge: Waiting,
    waits: Who,
    _part: Part<'c, K, V, S>,
}

// SAFETY: the lead of a fill that is polled (`is_fill`) is bound to no thread. The nested edge is an actor's number
// and a share, which may go to any thread (`Send`).
unsafe impl<K, V, S> Send for TaskLead<'_, K, V, S>
where
    K: Hash + Eq + Send + Sync,
    V: Send + Sync,
    S: BuildHasher + Send + Sync,
{
}

impl<'c, K: Hash + Eq, V, S: BuildHasher> TaskLead<'c, K, V, S> {
    /// Makes the lead of a task, from a leader that is a fill, as all leaders of tasks are.
    pub(crate) fn new(leader: Leader<'c, K, V, S>) -> Self {
        assert!(leader.leading.is_none(), "led by no thread");
        Self {
            nested: None,
            leader,
        }
    }

    /// Goes on with the fill. Fails if that closes a cycle through the fill that polls this.
    pub(crate) fn poll<R>(
        &mut self,
        fill: impl FnOnce(&K, &mut Blank<'_, V>) -> R,
    ) -> Result<R, CycleError> {
        self.nest()?;
        Ok(self.leader.fill(fill))
    }

    /// Enters the fill that polls this into the graph.
    fn nest(&mut self) -> Result<(), CycleError> {
        let waits = who_awaits();
        if self.nested.as_ref().map(|nested| nested.waits) != waits {
            self.nested = None;
            self.nested = waits.map(|us| self.leader.nest(us)).transpose()?;
        }
        Ok(())
    }

    /// Drops the rest of the fill, as a part of it: the waits of its destructors are the fill's. Only then the fill
    /// has ended.
    pub(crate) fn drop_fill(&mut self, fill: impl FnOnce()) {
        // The result does not matter: the fill is polled no more, so a drop by a fill that it waits for is no cycle.
        let _ = self.nest();
        self.leader.run(|_| fill());
    }

    /// Returns the key that is filled.
    pub(crate) fn key(&self) -> &K {
        self.leader.key()
    }

    pub(crate) fn core(&self) -> &'c Core<K, V, S> {
        self.leader.core()
    }

    /// Ends the flight, still under the fill that polled it: the end of a fill runs user code too.
    pub(crate) fn end<R>(self, end: impl FnOnce(Leader<'c, K, V, S>) -> R) -> R {
        let Self { nested, leader } = self;
        let ended = end(leader);
        drop(nested);
        ended
    }
}
