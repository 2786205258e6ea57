//! The methods of tasks that want the lead itself: computes, and guards.

use crate::actor::new_fill;
use crate::blocking::in_poll;
use crate::core::{Aim, Blank, Core, Leader, Spare, TaskLead, Turn, Wait, Waited, Wanted};
use crate::entry::{CompResult, EntrySelector, Op, computed};
use crate::error::{CycleError, Refusal, TryGetError};
use crate::fill::Borrowed;
use crate::guard::{TaskGuard, TaskGuardResult};
use crate::reclaim::pin;
use pin_project_lite::pin_project;
use std::hash::{BuildHasher, Hash};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The result for a caller that wants the lead.
enum Got<'c, K: Hash + Eq, V, S: BuildHasher> {
    /// There is a value, and it has been read; for a caller that accepts one.
    Value,
    /// The lead. For [`Aim::Lead`] the live value that the flight is to replace has been read.
    Lead(TaskLead<'c, K, V, S>),
    Wait(Wait<'c, K, V, S>),
}

/// Waits until the lead of the key's flight is ours, or there is a value. A clone of the live value is put into
/// `read`, and not handed from future to future: it may be large.
async fn obtain<'c, K, V, S>(
    core: &'c Core<K, V, S>,
    hash: u64,
    mut wanted: impl Wanted<K>,
    aim: Aim,
    mut spare: Spare<'c, K, V, S>,
    read: &mut Option<V>,
) -> Result<Got<'c, K, V, S>, Refusal>
where
    K: Hash + Eq,
    V: Clone,
    S: BuildHasher,
{
    loop {
        let got = match turn(core, hash, &mut wanted, aim, &mut spare, read)? {
            Got::Wait(wait) => Looks { core, wait, read }.await?,
            got => Some(got),
        };
        if let Some(got) = got {
            return Ok(got);
        }
    }
}

/// Looks into the table once.
fn turn<'c, K, V, S>(
    core: &'c Core<K, V, S>,
    hash: u64,
    wanted: &mut dyn Wanted<K>,
    aim: Aim,
    spare: &mut Spare<'c, K, V, S>,
    read: &mut Option<V>,
) -> Result<Got<'c, K, V, S>, Refusal>
where
    K: Hash + Eq,
    V: Clone,
    S: BuildHasher,
{
    let _inside = in_poll();
    let pin = core.pin_for_miss(pin());
    Ok(match core.turn(pin, hash, wanted, aim, spare) {
        Turn::Ready(found) => {
            *read = Some(found.value().clone());
            Got::Value
        }
        Turn::Lead(leader, seen) => {
            *read = seen.map(|seen| seen.value().clone());
            lead(core, leader)?
        }
        Turn::Wait(part) => Got::Wait(part.wait_as(spare.actor(), hash)),
    })
}

fn lead<'c, K: Hash + Eq, V, S: BuildHasher>(
    core: &Core<K, V, S>,
    leader: Leader<'c, K, V, S>,
) -> Result<Got<'c, K, V, S>, Refusal> {
    Ok(Got::Lead(TaskLead::new(core.admit(leader)?)))
}

/// A wait. `None`: look into the table again.
struct Looks<'a, 'c, K: Hash + Eq, V, S: BuildHasher> {
    core: &'c Core<K, V, S>,
    wait: Wait<'c, K, V, S>,
    read: &'a mut Option<V>,
}

impl<'c, K: Hash + Eq, V: Clone, S: BuildHasher> Future for Looks<'_, 'c, K, V, S> {
    type Output = Result<Option<Got<'c, K, V, S>>, Refusal>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready(waited) = self.wait.poll(cx.waker()) else {
            return Poll::Pending;
        };
        Poll::Ready(match waited? {
            Waited::Found(found) => {
                *self.read = Some(found.value().clone());
                Ok(Some(Got::Value))
            }
            Waited::Lead(leader) => lead(self.core, leader).map(Some),
            Waited::Failed(_) | Waited::Again | Waited::TimedOut => Ok(None),
        })
    }
}

pin_project! {
    /// A compute: the lead, and the user code that it runs, which is dropped as a part of the compute at every exit.
    struct Compute<'a, 'c, K, V, S, C, F>
    where
        K: Hash,
        K: Eq,
        S: BuildHasher,
    {
        core: &'c Core<K, V, S>,
        // Held until the compute has ended. Declared before the rest: if a destructor panics, the fields that it
        // leaves are dropped after the lead.
        lead: Option<TaskLead<'c, K, V, S>>,
        make: Option<C>,
        #[pin]
        future: Option<F>,
        prior: &'a mut Option<V>,
    }

    impl<'a, 'c, K, V, S, C, F> PinnedDrop for Compute<'a, 'c, K, V, S, C, F>
    where
        K: Hash,
        K: Eq,
        S: BuildHasher,
    {
        fn drop(this: Pin<&mut Self>) {
            let _inside = in_poll();
            let this = this.project();
            let _tidied = this.core.afterwards();
            if let Some(lead) = this.lead {
                let (make, mut future, prior) = (this.make, this.future, this.prior);
                lead.drop_fill(|| {
                    future.set(None);
                    *make = None;
                    **prior = None;
                });
            }
            *this.lead = None;
        }
    }
}

/// Out of line, like the next function: the stack space of a large value is given back before the flight is ended.
#[inline(never)]
fn set_made<V: Clone, F>(
    mut future: Pin<&mut Option<F>>,
    make: impl FnOnce(Option<V>) -> F,
    prior: Option<&V>,
) {
    future.set(Some(make(prior.cloned())));
}

#[inline(never)]
fn poll_into<V>(
    future: Pin<&mut impl Future<Output = Op<V>>>,
    cx: &mut Context<'_>,
    blank: &mut Blank<'_, V>,
) -> Poll<Op<()>> {
    match future.poll(cx) {
        Poll::Ready(op) => Poll::Ready(op.settle(blank)),
        Poll::Pending => Poll::Pending,
    }
}

impl<K, V, S, C, F> Future for Compute<'_, '_, K, V, S, C, F>
where
    K: Hash + Eq,
    V: Clone,
    S: BuildHasher,
    C: FnOnce(Option<V>) -> F,
    F: Future<Output = Op<V>>,
{
    type Output = Result<CompResult<V>, CycleError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let _inside = in_poll();
        let mut this = self.project();
        let lead = this.lead.as_mut().expect("polled until it has answered");
        let op = lead.poll(|_, blank| {
            // Making the future is user code, which may block, and as much a part of the compute as the future.
            if let Some(make) = this.make.take() {
                set_made(this.future.as_mut(), make, this.prior.as_ref());
            }
            let future = this.future.as_mut().as_pin_mut().expect("made above");
            let op = ready!(poll_into(future, cx, blank));
            // The compute has ended once the future is dropped.
            this.future.set(None);
            Poll::Ready(op)
        });
        let op = match op {
            Ok(op) => ready!(op),
            Err(cycle) => return Poll::Ready(Err(cycle)),
        };
        let lead = this.lead.take().expect("as above");
        Poll::Ready(Ok(lead.end(|leader| computed(leader, this.prior, op))))
    }
}

/// Runs [`EntrySelector::and_compute_with_async`].
pub(super) async fn compute<K, V, S, F>(
    entry: EntrySelector<'_, K, V, S>,
    f: impl FnOnce(Option<V>) -> F,
) -> CompResult<V>
where
    K: Hash + Eq,
    V: Clone,
    S: BuildHasher,
    F: Future<Output = Op<V>>,
{
    let core = &*entry.cache.core;
    let hash = core.hash(&entry.key);
    let (spare, held) = Spare::holding(core, new_fill(), entry.key);
    let mut prior = None;
    let lead = match obtain(core, hash, held, Aim::Lead, spare, &mut prior).await {
        Ok(Got::Lead(lead)) => lead,
        Ok(_) => unreachable!("who aims at the lead is served nothing else"),
        Err(refusal) => panic!("{refusal}"),
    };
    let compute = Compute {
        core,
        lead: Some(lead),
        make: Some(f),
        future: None,
        prior: &mut prior,
    };
    // The compute is dropped before this panics.
    let result = compute.await;
    result.unwrap_or_else(|cycle| panic!("{cycle}"))
}

/// Runs [`Cache::get_value_or_guard_async`](crate::Cache::get_value_or_guard_async) on a miss.
pub(super) async fn guard<'c, K, V, S, Q>(
    core: &'c Core<K, V, S>,
    hash: u64,
    key: &Q,
) -> TaskGuardResult<'c, K, V, S>
where
    K: Hash + Eq,
    V: Clone,
    S: BuildHasher,
    Q: ?Sized,
    for<'q> Borrowed<'q, Q>: Wanted<K>,
{
    let spare = Spare::none(core, new_fill());
    let mut read = None;
    let result = match obtain(core, hash, Borrowed(key), Aim::Value, spare, &mut read).await {
        Ok(Got::Value) => TaskGuardResult::Value(read.expect("there is a value")),
        // The guard tidies up when it is dropped.
        Ok(Got::Lead(lead)) => return TaskGuardResult::Guard(TaskGuard::new(lead)),
        Ok(Got::Wait(_)) => unreachable!("waited for"),
        Err(TryGetError::Cycle(cycle)) => TaskGuardResult::Cycle(cycle),
        Err(TryGetError::Closed(closed)) => TaskGuardResult::Closed(closed),
        Err(TryGetError::Fill(never)) => match never {},
    };
    core.tidy_in_poll();
    result
}
