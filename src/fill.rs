//! A caller's key and a caller's fill, as the core sees them: erased, so that the miss path is compiled once for each
//! key and value type, not for each closure.

use crate::actor::actor;
use crate::blocking::Verb;
use crate::core::{Aim, Blank, Core, Found, Leader, Spare, Turn, Wait, Waited, Wanted};
use crate::error::{ClosedError, CycleError, TryGetError};
use crate::flight::SharedError;
use crate::key::ToKey;
use crate::reclaim::Pin;
use equivalent::Equivalent;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

/// A borrowed key. It is made owned when a slot is.
pub(crate) struct Borrowed<'a, Q: ?Sized>(pub(crate) &'a Q);

impl<K, Q: ?Sized + Equivalent<K> + ToKey<K>> Wanted<K> for Borrowed<'_, Q> {
    fn is(&self, key: &K) -> bool {
        self.0.equivalent(key)
    }

    fn make(&mut self) -> K {
        self.0.to_key()
    }
}

/// A fill that begins at most once, with the error that it may end with.
pub(crate) trait Fill<K: Hash + Eq, V, S: BuildHasher> {
    /// Returns the keeper that gives the fill to the flight, unless the caller is to run the fill itself.
    fn keeper(&self) -> Option<&dyn Keeper<K, V, S>> {
        None
    }
    /// Puts the value into its cell. False: the fill has failed, and `self` keeps its error.
    fn run(&mut self, key: &K, blank: &mut Blank<'_, V>) -> bool;
    /// Returns the error that `run` kept, for every waiter.
    fn share(&self) -> SharedError;
    /// Takes the error of another caller's fill as its own, if it is of the same type.
    fn accept(&mut self, error: &SharedError) -> bool;
}

/// Gives a flight its fill to keep; then the caller that had the lead waits like every other.
pub(crate) trait Keeper<K: Hash + Eq, V, S: BuildHasher> {
    fn keep<'c>(&self, leader: Leader<'c, K, V, S>) -> Wait<'c, K, V, S>;
}

/// A [`Fill`] that can say why there is no value.
pub(crate) trait Explain {
    type Error;

    /// Returns the reason why there is no value, as the caller sees it.
    fn explain(self, obstacle: Obstacle) -> TryGetError<Self::Error>;
}

/// The error of a caller's fill, or of a fill that it has joined, if that has failed.
pub(crate) struct OwnError<E>(Option<E>);

impl<E> OwnError<E> {
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Puts the value of a fill into its cell, or keeps its error for the waiters. True: a value.
    #[inline]
    pub(crate) fn settle<V>(&mut self, result: Result<V, E>, blank: &mut Blank<'_, V>) -> bool {
        match blank.try_put(result) {
            Ok(()) => true,
            Err(error) => {
                self.0 = Some(error);
                false
            }
        }
    }

    /// Returns the caller's error: see [`Explain::explain`].
    pub(crate) fn explain(self, obstacle: Obstacle) -> TryGetError<E> {
        match (obstacle, self.0) {
            (Obstacle::Cycle(cycle), _) => TryGetError::Cycle(cycle),
            (Obstacle::Closed(closed), _) => TryGetError::Closed(closed),
            (Obstacle::Failed, Some(error)) => TryGetError::Fill(error),
            (Obstacle::Failed, None) => unreachable!("a failed fill keeps its error"),
        }
    }
}

impl<E: Clone + Send + Sync + 'static> OwnError<E> {
    /// Returns the kept error, shared: see [`Fill::share`].
    pub(crate) fn share(&self) -> SharedError {
        Arc::new(self.0.clone().expect("`run` kept an error"))
    }

    /// Takes another caller's error: see [`Fill::accept`].
    pub(crate) fn accept(&mut self, error: &SharedError) -> bool {
        self.0 = error.downcast_ref::<E>().cloned();
        self.0.is_some()
    }
}

/// A closure as a [`Fill`].
pub(crate) struct Call<F, E> {
    fill: Option<F>,
    error: OwnError<E>,
}

impl<F, E> Call<F, E> {
    pub(crate) fn new(fill: F) -> Self {
        Self {
            fill: Some(fill),
            error: OwnError::none(),
        }
    }

    /// Says whether the closure has been run.
    pub(crate) fn ran(&self) -> bool {
        self.fill.is_none()
    }
}

impl<F, E> Explain for Call<F, E> {
    type Error = E;

    fn explain(self, obstacle: Obstacle) -> TryGetError<E> {
        self.error.explain(obstacle)
    }
}

impl<K: Hash + Eq, V, S: BuildHasher, F, E> Fill<K, V, S> for Call<F, E>
where
    F: FnOnce(&K) -> Result<V, E>,
    E: Clone + Send + Sync + 'static,
{
    fn run(&mut self, key: &K, blank: &mut Blank<'_, V>) -> bool {
        let fill = self.fill.take().expect("a caller leads at most once");
        self.error.settle(fill(key), blank)
    }

    fn share(&self) -> SharedError {
        self.error.share()
    }

    fn accept(&mut self, error: &SharedError) -> bool {
        self.error.accept(error)
    }
}

/// The reason why there is no value.
pub(crate) enum Obstacle {
    Cycle(CycleError),
    Closed(ClosedError),
    /// The error is in the caller's [`Fill`].
    Failed,
}

impl From<ClosedError> for Obstacle {
    fn from(closed: ClosedError) -> Self {
        Self::Closed(closed)
    }
}

impl From<CycleError> for Obstacle {
    fn from(cycle: CycleError) -> Self {
        Self::Cycle(cycle)
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Core<K, V, S> {
    /// Runs the blocking loop: turn, and wait, until there is a value or a reason why there is none.
    #[cold]
    #[track_caller]
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn obtain<'c>(
        &'c self,
        pin: Pin,
        hash: u64,
        wanted: &mut dyn Wanted<K>,
        aim: Aim,
        spare: &mut Spare<'c, K, V, S>,
        fill: &mut dyn Fill<K, V, S>,
        verb: &Verb,
    ) -> Result<Found<'c, K, V>, Obstacle> {
        let mut first = Some(self.pin_for_miss(pin));
        let mut joined: Option<Wait<'_, K, V, S>> = None;
        loop {
            let leader = if let Some(wait) = joined.take() {
                match wait.block(None, verb)? {
                    Waited::Found(found) => return Ok(found),
                    Waited::Lead(leader) => leader,
                    Waited::Failed(error) if fill.accept(&error) => return Err(Obstacle::Failed),
                    // An error of another type is not ours: we lead with our own fill.
                    Waited::Failed(_) | Waited::Again | Waited::TimedOut => continue,
                }
            } else {
                let pin = first.take().unwrap_or_else(crate::reclaim::pin);
                match self.turn(pin, hash, wanted, aim, spare) {
                    Turn::Ready(found) => return Ok(found),
                    Turn::Lead(leader, _) => leader,
                    Turn::Wait(part) => {
                        joined = Some(part.wait_as(actor(), hash));
                        continue;
                    }
                }
            };
            let leader = self.admit(leader)?;
            match fill.keeper() {
                None => return lead(leader, fill),
                Some(keeper) => joined = Some(keeper.keep(leader)),
            }
        }
    }
}

/// Runs the fill while this thread holds nothing but the lead.
fn lead<'c, K: Hash + Eq, V, S: BuildHasher>(
    mut leader: Leader<'c, K, V, S>,
    fill: &mut dyn Fill<K, V, S>,
) -> Result<Found<'c, K, V>, Obstacle> {
    if !leader.fill(|key, blank| fill.run(key, blank)) {
        leader.fail(|| fill.share());
        return Err(Obstacle::Failed);
    }
    Ok(leader.publish().0)
}
