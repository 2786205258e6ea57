//! The one future of every method that fills: the loop of [`Core::obtain`], polled.

use crate::actor::new_fill;
use crate::atomic_cache::{AtomicCache, StoredFill};
use crate::blocking::in_poll;
use crate::cache::Cache;
use crate::core::{
    Aim, Blank, BoxFill, Core, Found, Held, Leader, Part, Spare, TaskLead, Turn, Wait, Waited,
    Wanted,
};
use crate::error::{CycleError, TryGetError};
use crate::fill::Borrowed;
use crate::foreign::contain;

use crate::entry::{Entry, EntrySelector};
use crate::key::Equivalent;
use crate::reclaim::{Pin as EpochPin, pin};
use pin_project_lite::pin_project;
use std::hash::{BuildHasher, Hash};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// A wanted key that can be looked up.
pub(crate) trait Sought<K>: Wanted<K> {
    fn hash<V, S: BuildHasher>(&self, core: &Core<K, V, S>) -> u64
    where
        K: Hash + Eq;

    /// Returns the live value, if there is one: a hit.
    fn look_up<'p, V, S: BuildHasher>(
        &self,
        core: &'p Core<K, V, S>,
        hash: u64,
        pin: &'p EpochPin,
    ) -> Option<&'p V>
    where
        K: Hash + Eq;

    /// Prepares for a miss: sets the number of the fill that is to fill the spare node.
    fn prepare<'c, V, S: BuildHasher>(
        &mut self,
        _core: &'c Core<K, V, S>,
        spare: &mut Spare<'c, K, V, S>,
    ) where
        K: Hash + Eq,
    {
        spare.for_actor(new_fill());
    }
}

impl<K, Q: ?Sized + Hash + Equivalent<K>> Sought<K> for Borrowed<'_, Q>
where
    Self: Wanted<K>,
{
    fn hash<V, S: BuildHasher>(&self, core: &Core<K, V, S>) -> u64
    where
        K: Hash + Eq,
    {
        core.hash(self.0)
    }

    fn look_up<'p, V, S: BuildHasher>(
        &self,
        core: &'p Core<K, V, S>,
        hash: u64,
        pin: &'p EpochPin,
    ) -> Option<&'p V>
    where
        K: Hash + Eq,
    {
        core.look_up(hash, self.0, pin)
    }
}

/// A key taken by value: moved into a node when one is needed.
pub(crate) enum Given<K> {
    Key(K),
    Held(Held<K>),
    Moving,
}

impl<K: Eq> Wanted<K> for Given<K> {
    fn is(&self, key: &K) -> bool {
        match self {
            Self::Key(own) => own == key,
            Self::Held(held) => held.is(key),
            Self::Moving => unreachable!("for a moment only"),
        }
    }

    fn make(&mut self) -> K {
        unreachable!("the spare node holds the key")
    }
}

impl<K: Hash + Eq> Sought<K> for Given<K> {
    fn hash<V, S: BuildHasher>(&self, core: &Core<K, V, S>) -> u64 {
        core.hash(self.key())
    }

    fn look_up<'p, V, S: BuildHasher>(
        &self,
        core: &'p Core<K, V, S>,
        hash: u64,
        pin: &'p EpochPin,
    ) -> Option<&'p V> {
        core.look_up(hash, self.key(), pin)
    }

    fn prepare<'c, V, S: BuildHasher>(
        &mut self,
        core: &'c Core<K, V, S>,
        spare: &mut Spare<'c, K, V, S>,
    ) {
        if let Self::Key(key) = std::mem::replace(self, Self::Moving) {
            let (holding, held) = Spare::holding(core, new_fill(), key);
            *spare = holding;
            *self = Self::Held(held);
        }
    }
}

impl<K> Given<K> {
    fn key(&self) -> &K {
        match self {
            Self::Key(key) => key,
            _ => unreachable!("looked up before a node is needed"),
        }
    }
}

/// A caller's fill, as a future sees it.
pub(crate) trait AsyncFill<K: Hash + Eq, V, S: BuildHasher> {
    type Error;

    /// Begins to fill, or gives the fill away.
    fn begin<'c>(self: Pin<&mut Self>, leader: Leader<'c, K, V, S>) -> Begun<'c, K, V, S>;

    /// Goes on with the fill of a caller that runs its fill itself, until its value is in its cell.
    fn poll(
        self: Pin<&mut Self>,
        key: &K,
        cx: &mut Context<'_>,
        blank: &mut Blank<'_, V>,
    ) -> Poll<Result<(), Self::Error>>;

    /// Drops the fill, which ends only then.
    fn end(self: Pin<&mut Self>);
}

/// The course that a caller takes when it gets the lead.
pub(crate) enum Begun<'c, K: Hash + Eq, V, S: BuildHasher> {
    Leads(TaskLead<'c, K, V, S>),
    Waits(Wait<'c, K, V, S>),
}

pin_project! {
    /// A fill that comes with a call: the closure, and then the future that it has made.
    #[project = PerCallProjection]
    #[project_replace = PerCallReplacement]
    pub(crate) enum PerCall<C, F, M> {
        Closure { make: C, map: M },
        Future { #[pin] future: F, map: M },
        Ended,
    }
}

impl<C, F, M> PerCall<C, F, M> {
    /// `map` puts the value of the future's output into its cell, or returns the error.
    pub(crate) fn new(make: C, map: M) -> Self {
        Self::Closure { make, map }
    }
}

impl<K, V, S, E, C, F, M> AsyncFill<K, V, S> for PerCall<C, F, M>
where
    K: Hash + Eq,
    S: BuildHasher,
    C: FnOnce() -> F,
    F: Future,
    M: FnOnce(F::Output, &mut Blank<'_, V>) -> Result<(), E>,
{
    type Error = E;

    fn begin<'c>(self: Pin<&mut Self>, leader: Leader<'c, K, V, S>) -> Begun<'c, K, V, S> {
        Begun::Leads(TaskLead::new(leader))
    }

    /// Out of line: the stack space of a large value is given back before the flight is ended.
    #[inline(never)]
    fn poll(
        mut self: Pin<&mut Self>,
        _: &K,
        cx: &mut Context<'_>,
        blank: &mut Blank<'_, V>,
    ) -> Poll<Result<(), E>> {
        if matches!(*self, Self::Closure { .. }) {
            let closure = self.as_mut().project_replace(Self::Ended);
            let PerCallReplacement::Closure { make, map } = closure else {
                unreachable!("matched above");
            };
            let future = make();
            self.set(Self::Future { future, map });
        }
        let PerCallProjection::Future { future, .. } = self.as_mut().project() else {
            unreachable!("a caller leads at most once");
        };
        match future.poll(cx) {
            Poll::Ready(output) => match self.project_replace(Self::Ended) {
                PerCallReplacement::Future { map, .. } => Poll::Ready(map(output, blank)),
                _ => unreachable!("matched above"),
            },
            Poll::Pending => Poll::Pending,
        }
    }

    fn end(mut self: Pin<&mut Self>) {
        self.set(Self::Ended);
    }
}

/// A fill that comes with a call and is left to all waiters. Made anew if it is lost and the caller still waits.
pub(crate) struct LeftToAll<'a, K, V, S, M> {
    pub(crate) cache: &'a Cache<K, V, S>,
    pub(crate) make: M,
}

impl<K, V, S, M, E> AsyncFill<K, V, S> for LeftToAll<'_, K, V, S, M>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
    M: Fn() -> BoxFill<V, E>,
    E: Clone + Send + Sync + 'static,
{
    type Error = E;

    fn begin<'c>(self: Pin<&mut Self>, leader: Leader<'c, K, V, S>) -> Begun<'c, K, V, S> {
        Begun::Waits(leader.keep(&self.cache.core, |_| (self.make)()))
    }

    fn poll(
        self: Pin<&mut Self>,
        _: &K,
        _: &mut Context<'_>,
        _: &mut Blank<'_, V>,
    ) -> Poll<Result<(), E>> {
        unreachable!("a fill that is left to all is kept by its flight")
    }

    fn end(self: Pin<&mut Self>) {}
}

/// A cache's own fill, for one caller.
pub(crate) struct StoredAsync<'a, K, V, E, S>(pub(crate) &'a AtomicCache<K, V, E, S>);

impl<K: Hash + Eq, V, E, S: BuildHasher> AsyncFill<K, V, S> for StoredAsync<'_, K, V, E, S> {
    type Error = E;

    fn begin<'c>(self: Pin<&mut Self>, leader: Leader<'c, K, V, S>) -> Begun<'c, K, V, S> {
        match self.0.stored() {
            StoredFill::Call(_) => Begun::Leads(TaskLead::new(leader)),
            StoredFill::Future(keep) => Begun::Waits(keep.keep(self.0, leader)),
        }
    }

    #[inline(never)]
    fn poll(
        self: Pin<&mut Self>,
        key: &K,
        _: &mut Context<'_>,
        blank: &mut Blank<'_, V>,
    ) -> Poll<Result<(), E>> {
        match self.0.stored() {
            StoredFill::Call(fill) => Poll::Ready(blank.try_put(fill(self.0, key))),
            StoredFill::Future(_) => unreachable!("a future is kept by its flight"),
        }
    }

    fn end(self: Pin<&mut Self>) {}
}

/// The stage of a [`Fetch`].
enum Stage<'c, K: Hash + Eq, V, S: BuildHasher> {
    /// Not polled yet.
    New,
    /// About to look into the table.
    Look,
    Wait(Wait<'c, K, V, S>),
    Lead(TaskLead<'c, K, V, S>),
    /// It has answered, or panicked.
    Over,
}

/// The result of a [`Fetch`]: a value that is read in place, and answered with at once.
pub(crate) struct Fetched<'v, V> {
    pub(crate) value: &'v V,
    /// The call's own fill made the value.
    fresh: bool,
}

impl<V: Clone> Fetched<'_, V> {
    pub(crate) fn to_entry(&self) -> Entry<V> {
        Entry::new(self.value.clone(), self.fresh)
    }
}

pin_project! {
    /// The one future of every task's method that fills.
    ///
    /// Dropped, it gives its caller's share up: a fill that it runs itself is dropped and its lead passed on; a wait
    /// leaves nothing behind.
    #[must_use = "futures do nothing unless polled"]
    pub(crate) struct Fetch<'c, K, V, S, W, F, A>
    where
        K: Hash,
        K: Eq,
        S: BuildHasher,
        F: AsyncFill<K, V, S>,
    {
        core: &'c Core<K, V, S>,
        wanted: W,
        aim: Aim,
        hash: u64,
        // Dropped before the stage: a fill has ended before its lead is passed on.
        #[pin]
        fill: F,
        stage: Stage<'c, K, V, S>,
        spare: Spare<'c, K, V, S>,
        // Taken once it is used.
        answer: Option<A>,
    }

    impl<'c, K, V, S, W, F, A> PinnedDrop for Fetch<'c, K, V, S, W, F, A>
    where
        K: Hash,
        K: Eq,
        S: BuildHasher,
        F: AsyncFill<K, V, S>,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if !matches!(this.stage, Stage::New | Stage::Over) {
                drop_midway(this.core, this.fill, this.stage);
            }
        }
    }
}

/// Drops a caller that was no hit and has no answer. Its fill, if it has begun, comes first and as a part of itself.
#[cold]
fn drop_midway<K: Hash + Eq, V, S: BuildHasher, F: AsyncFill<K, V, S>>(
    core: &Core<K, V, S>,
    mut fill: Pin<&mut F>,
    stage: &mut Stage<'_, K, V, S>,
) {
    let _inside = in_poll();
    let _tidied = core.afterwards();
    if let Stage::Lead(lead) = stage {
        lead.drop_fill(|| fill.as_mut().end());
    }
    *stage = Stage::Over;
}

impl<'c, K, V, S, W, F, A> Fetch<'c, K, V, S, W, F, A>
where
    K: Hash + Eq,
    S: BuildHasher,
    F: AsyncFill<K, V, S>,
{
    /// `answer` makes the answer from the result, with the value under a pin.
    pub(crate) fn new(
        core: &'c Core<K, V, S>,
        spare: Spare<'c, K, V, S>,
        wanted: W,
        aim: Aim,
        fill: F,
        answer: A,
    ) -> Self {
        Self {
            core,
            wanted,
            aim,
            hash: 0,
            fill,
            stage: Stage::New,
            spare,
            answer: Some(answer),
        }
    }
}

impl<K, V, S, W, F, A, T> Future for Fetch<'_, K, V, S, W, F, A>
where
    K: Hash + Eq,
    S: BuildHasher,
    W: Sought<K>,
    F: AsyncFill<K, V, S>,
    F::Error: Clone + Send + Sync + 'static,
    A: FnOnce(Result<Fetched<'_, V>, TryGetError<F::Error>>) -> T,
{
    type Output = T;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let this = self.project();
        let core = *this.core;
        if matches!(this.stage, Stage::New) {
            *this.hash = this.wanted.hash(core);
            if *this.aim == Aim::Value {
                let pin = pin();
                if let Some(value) = this.wanted.look_up(core, *this.hash, &pin) {
                    *this.stage = Stage::Over;
                    let fresh = false;
                    return Poll::Ready(take(this.answer)(Ok(Fetched { value, fresh })));
                }
            }
            *this.stage = Stage::Look;
            this.wanted.prepare(core, this.spare);
        }
        let mut miss = Miss {
            core,
            wanted: this.wanted,
            aim: *this.aim,
            hash: *this.hash,
            fill: this.fill,
            stage: this.stage,
            spare: this.spare,
        };
        let inside = in_poll();
        let got = miss.go_on(cx);
        // Not while this future leads. A listener that waits for that lead would hang: no thread is known to hold the
        // lead, so the cycle is not found.
        let tidy = || {
            drop(core.afterwards());
            drop(inside);
        };
        match got {
            Poll::Pending => {
                if !matches!(miss.stage, Stage::Lead(_)) {
                    tidy();
                }
                Poll::Pending
            }
            Poll::Ready(Ok((found, fresh))) => {
                let value = found.value();
                let answer = take(this.answer)(Ok(Fetched { value, fresh }));
                drop(found);
                tidy();
                Poll::Ready(answer)
            }
            Poll::Ready(Err(error)) => {
                tidy();
                Poll::Ready(take(this.answer)(Err(error)))
            }
        }
    }
}

fn take<A>(answer: &mut Option<A>) -> A {
    answer.take().expect("a future answers once")
}

/// Drops a fill that panics while it is polled, and passes its lead on: at once, and not when the future is dropped,
/// which may be much later.
struct Unwound<'a, 'c, K: Hash + Eq, V, S: BuildHasher, F: AsyncFill<K, V, S>> {
    fill: Pin<&'a mut F>,
    stage: &'a mut Stage<'c, K, V, S>,
}

impl<K: Hash + Eq, V, S: BuildHasher, F: AsyncFill<K, V, S>> Unwound<'_, '_, K, V, S, F> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Result<Poll<Result<(), F::Error>>, CycleError> {
        let Stage::Lead(lead) = self.stage else {
            unreachable!("called in this stage");
        };
        let fill = self.fill.as_mut();
        lead.poll(|key, blank| fill.poll(key, cx, blank))
    }
}

impl<K: Hash + Eq, V, S: BuildHasher, F: AsyncFill<K, V, S>> Drop for Unwound<'_, '_, K, V, S, F> {
    fn drop(&mut self) {
        let Self { fill, stage } = self;
        if let Stage::Lead(lead) = stage {
            contain(|| lead.drop_fill(|| fill.as_mut().end()));
        }
        **stage = Stage::Over;
    }
}

/// A [`Fetch`] that was no hit.
struct Miss<'a, 'c, K: Hash + Eq, V, S: BuildHasher, F> {
    core: &'c Core<K, V, S>,
    wanted: &'a mut dyn Wanted<K>,
    aim: Aim,
    hash: u64,
    fill: Pin<&'a mut F>,
    stage: &'a mut Stage<'c, K, V, S>,
    spare: &'a mut Spare<'c, K, V, S>,
}

/// The result of a [`Miss`], and whether its own fill made it.
type Answer<'c, K, V, E> = Result<(Found<'c, K, V>, bool), TryGetError<E>>;

impl<'c, K, V, S, F> Miss<'_, 'c, K, V, S, F>
where
    K: Hash + Eq,
    S: BuildHasher,
    F: AsyncFill<K, V, S>,
    F::Error: Clone + Send + Sync + 'static,
{
    /// Runs the loop: turn, and wait, until there is a value or a reason why there is none.
    #[inline(never)]
    fn go_on(&mut self, cx: &mut Context<'_>) -> Poll<Answer<'c, K, V, F::Error>> {
        loop {
            let waited = match self.stage {
                Stage::Look => Ok(self.turn()),
                Stage::Wait(wait) => ready!(wait.poll(cx.waker())).map(Some),
                Stage::Lead(_) => return self.lead(cx),
                Stage::New | Stage::Over => panic!("a future is not polled after it has answered"),
            };
            let waited = match waited {
                Ok(Some(waited)) => waited,
                Ok(None) => continue,
                Err(cycle) => return self.over(Err(TryGetError::Cycle(cycle))),
            };
            match waited {
                Waited::Found(found) => return self.over(Ok((found, false))),
                Waited::Lead(leader) => match self.core.admit(leader) {
                    Ok(leader) => self.begin(leader),
                    Err(closed) => return self.over(Err(TryGetError::Closed(closed))),
                },
                Waited::Failed(error) => match error.downcast_ref::<F::Error>() {
                    Some(error) => return self.over(Err(TryGetError::Fill(error.clone()))),
                    // An error of another type is not ours: we lead with our own fill.
                    None => *self.stage = Stage::Look,
                },
                Waited::Again | Waited::TimedOut => *self.stage = Stage::Look,
            }
        }
    }

    fn over<T>(&mut self, result: T) -> Poll<T> {
        *self.stage = Stage::Over;
        Poll::Ready(result)
    }

    /// Looks into the table. `None`: the stage says the next step.
    fn turn(&mut self) -> Option<Waited<'c, K, V, S>> {
        let pin = self.core.pin_for_miss(pin());
        match self
            .core
            .turn(pin, self.hash, self.wanted, self.aim, self.spare)
        {
            Turn::Ready(found) => Some(Waited::Found(found)),
            Turn::Lead(leader, _) => Some(Waited::Lead(leader)),
            Turn::Wait(part) => {
                self.wait(part);
                None
            }
        }
    }

    fn wait(&mut self, part: Part<'c, K, V, S>) {
        *self.stage = Stage::Wait(part.wait_as(self.spare.actor(), self.hash));
    }

    /// Drops our own fill.
    fn end_fill(&mut self) {
        let Self { fill, stage, .. } = self;
        if let Stage::Lead(lead) = stage {
            contain(|| lead.drop_fill(|| fill.as_mut().end()));
        }
    }

    fn begin(&mut self, leader: Leader<'c, K, V, S>) {
        match self.fill.as_mut().begin(leader) {
            Begun::Leads(lead) => *self.stage = Stage::Lead(lead),
            Begun::Waits(wait) => *self.stage = Stage::Wait(wait),
        }
    }

    /// Goes on with our own fill.
    fn lead(&mut self, cx: &mut Context<'_>) -> Poll<Answer<'c, K, V, F::Error>> {
        let result = {
            let mut unwound = Unwound {
                fill: self.fill.as_mut(),
                stage: self.stage,
            };
            let result = unwound.poll(cx);
            std::mem::forget(unwound);
            result
        };
        let result = match result {
            Ok(result) => ready!(result),
            Err(cycle) => {
                self.end_fill();
                return self.over(Err(TryGetError::Cycle(cycle)));
            }
        };
        // The fill has ended once it is dropped. A panic of its destructor reaches no caller: the value is there.
        self.end_fill();
        let Stage::Lead(lead) = std::mem::replace(self.stage, Stage::Over) else {
            unreachable!("as above");
        };
        Poll::Ready(lead.end(|leader| match result {
            Ok(()) => Ok((leader.publish().0, true)),
            Err(error) => {
                leader.fail(|| Arc::new(error.clone()));
                Err(TryGetError::Fill(error))
            }
        }))
    }
}

impl<'c, K: Hash + Eq, V: Clone, S: BuildHasher> EntrySelector<'c, K, V, S> {
    pub(super) fn fetch_async<F, A, T>(
        self,
        fill: F,
        answer: A,
    ) -> Fetch<'c, K, V, S, Given<K>, F, A>
    where
        F: AsyncFill<K, V, S>,
        A: FnOnce(Result<Fetched<'_, V>, TryGetError<F::Error>>) -> T,
    {
        let core = &*self.cache.core;
        let spare = Spare::none(core, 0);
        let given = Given::Key(self.key);
        Fetch::new(core, spare, given, Aim::Value, fill, answer)
    }
}
