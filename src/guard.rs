//! Filling without a closure: the lead of a flight as a guard.

use crate::actor::actor;
use crate::blocking::verbs::GET_VALUE_OR_GUARD;
use crate::cache::DefaultHashBuilder;
#[cfg(feature = "async")]
use crate::core::TaskLead;
use crate::core::{Afterwards, Aim, Core, Leader, Spare, Turn, Waited};
use crate::error::{ClosedError, CycleError};
use crate::fill::Borrowed;
use crate::key::{Equivalent, ToKey};
use crate::reclaim::pin;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::time::{Duration, Instant};

/// Holds the result of [`Cache::get_value_or_guard`](crate::Cache::get_value_or_guard).
#[must_use = "a guard that is dropped gives up the lead"]
#[non_exhaustive]
pub enum GuardResult<'c, K: Hash + Eq, V, S: BuildHasher = DefaultHashBuilder> {
    /// The value: it was there, or another caller has computed it meanwhile.
    Value(V),
    /// There is none: the caller is to compute it.
    Guard(PlaceholderGuard<'c, K, V, S>),
    /// The time was over before another caller had computed it.
    Timeout,
    /// The wait would never end.
    Cycle(CycleError),
    /// The cache has been closed.
    Closed(ClosedError),
}

impl<K: Hash + Eq, V: fmt::Debug, S: BuildHasher> fmt::Debug for GuardResult<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => f.debug_tuple("Value").field(value).finish(),
            Self::Guard(_) => f.write_str("Guard(..)"),
            Self::Timeout => f.write_str("Timeout"),
            Self::Cycle(cycle) => f.debug_tuple("Cycle").field(cycle).finish(),
            Self::Closed(closed) => f.debug_tuple("Closed").field(closed).finish(),
        }
    }
}

impl<'c, K: Hash + Eq, V: Clone, S: BuildHasher> GuardResult<'c, K, V, S> {
    #[track_caller]
    pub(crate) fn obtain<Q>(core: &'c Core<K, V, S>, key: &Q, timeout: Option<Duration>) -> Self
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
    {
        // A timeout too long for the clock is none.
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let hash = core.hash(key);
        let tidied = core.afterwards();
        let mut spare = Spare::none(core, actor());
        loop {
            let pin = core.pin_for_miss(pin());
            let waited = match core.turn(pin, hash, &mut Borrowed(key), Aim::Value, &mut spare) {
                Turn::Ready(found) => Ok(Waited::Found(found)),
                Turn::Lead(leader, _) => Ok(Waited::Lead(leader)),
                Turn::Wait(part) => part.wait(hash, until, &GET_VALUE_OR_GUARD),
            };
            match waited {
                Ok(Waited::Found(found)) => return Self::Value(found.value().clone()),
                Ok(Waited::Lead(leader)) => {
                    return match core.admit(leader) {
                        // Not before the guard has gone.
                        Ok(leader) => Self::Guard(PlaceholderGuard { leader, tidied }),
                        Err(closed) => Self::Closed(closed),
                    };
                }
                Ok(Waited::TimedOut) => return Self::Timeout,
                // As in a wait: fills that fail at once, again and again, do not hold us up.
                Ok(Waited::Failed(_) | Waited::Again)
                    if until.is_some_and(|until| Instant::now() >= until) =>
                {
                    return Self::Timeout;
                }
                Ok(Waited::Failed(_) | Waited::Again) => {}
                Err(cycle) => return Self::Cycle(cycle),
            }
        }
    }
}

/// Leads the flight of a key: all callers that ask for the key wait until its holder inserts a value or drops the guard.
///
/// Dropped without a value it passes the lead to one of the waiters. It must not be leaked
/// (`mem::forget`): then they wait for ever.
///
/// It stays on its thread, because only a wait of that thread could close a cycle. So do not hold it
/// over an `.await`: an await is no wait of the thread's, and is not seen. A task has
/// [`TaskGuard`].
///
/// ```compile_fail
/// fn send<T: Send>(_: T) {}
/// let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
/// if let atomic_cache::GuardResult::Guard(guard) = cache.get_value_or_guard(&1, None) {
///     send(guard);
/// }
/// ```
#[must_use = "a guard that is dropped gives up the lead"]
pub struct PlaceholderGuard<'c, K: Hash + Eq, V, S: BuildHasher = DefaultHashBuilder> {
    leader: Leader<'c, K, V, S>,
    /// After that: the listener may ask for the key.
    tidied: Afterwards<'c, K, V, S>,
}

// As of `Cache`: a guard that is dropped while its thread unwinds gives up the lead.
impl<K: Hash + Eq, V, S: BuildHasher> std::panic::UnwindSafe for PlaceholderGuard<'_, K, V, S> {}
impl<K: Hash + Eq, V, S: BuildHasher> std::panic::RefUnwindSafe for PlaceholderGuard<'_, K, V, S> {}

impl<K: Hash + Eq, V, S: BuildHasher> PlaceholderGuard<'_, K, V, S> {
    /// Puts the value in: all waiters get it. Returns a clone of it.
    ///
    /// If an `insert` or a removal of the key came meanwhile, the cache does not keep the value. The waiters still get it, or,
    /// after an `insert`, have got the inserted one.
    pub fn insert(self, value: V) -> V
    where
        V: Clone,
    {
        let Self { leader, tidied } = self;
        let _tidied = tidied;
        leader.publish_given(value)
    }

    /// Lends the key.
    pub fn key(&self) -> &K {
        self.leader.key()
    }
}

impl<K: Hash + Eq + fmt::Debug, V, S: BuildHasher> fmt::Debug for PlaceholderGuard<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlaceholderGuard")
            .field("key", self.key())
            .finish_non_exhaustive()
    }
}

/// Holds the result of [`Cache::get_value_or_guard_async`](crate::Cache::get_value_or_guard_async).
#[cfg(feature = "async")]
#[must_use = "a guard that is dropped gives up the lead"]
#[non_exhaustive]
pub enum TaskGuardResult<'c, K: Hash + Eq, V, S: BuildHasher = DefaultHashBuilder> {
    /// The value: it was there, or another caller has computed it meanwhile.
    Value(V),
    /// There is none: the caller is to compute it.
    Guard(TaskGuard<'c, K, V, S>),
    /// The wait would never end.
    Cycle(CycleError),
    /// The cache has been closed.
    Closed(ClosedError),
}

#[cfg(feature = "async")]
impl<K: Hash + Eq, V: fmt::Debug, S: BuildHasher> fmt::Debug for TaskGuardResult<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => f.debug_tuple("Value").field(value).finish(),
            Self::Guard(_) => f.write_str("Guard(..)"),
            Self::Cycle(cycle) => f.debug_tuple("Cycle").field(cycle).finish(),
            Self::Closed(closed) => f.debug_tuple("Closed").field(closed).finish(),
        }
    }
}

/// Leads the flight of a key for a task: as a [`PlaceholderGuard`], but it may be held over an `.await`, and go to another
/// thread.
///
/// Dropped without a value it passes the lead to one of the waiters. While it is held, cycles by way of
/// it are **not** found: it is not known which task computes the value. So its holder must
/// not wait for its key, nor for a fill that does; nor must a [listener](crate::Builder::eviction_listener) that
/// its other calls run meanwhile.
#[cfg(feature = "async")]
#[must_use = "a guard that is dropped gives up the lead"]
pub struct TaskGuard<'c, K: Hash + Eq, V, S: BuildHasher = DefaultHashBuilder> {
    lead: TaskLead<'c, K, V, S>,
    /// After that: the listener may ask for the key.
    tidied: Afterwards<'c, K, V, S>,
}

// As of a `PlaceholderGuard`.
#[cfg(feature = "async")]
impl<K: Hash + Eq, V, S: BuildHasher> std::panic::UnwindSafe for TaskGuard<'_, K, V, S> {}
#[cfg(feature = "async")]
impl<K: Hash + Eq, V, S: BuildHasher> std::panic::RefUnwindSafe for TaskGuard<'_, K, V, S> {}

#[cfg(feature = "async")]
impl<'c, K: Hash + Eq, V, S: BuildHasher> TaskGuard<'c, K, V, S> {
    pub(crate) fn new(lead: TaskLead<'c, K, V, S>) -> Self {
        // Not before the guard has gone.
        let tidied = lead.core().afterwards();
        Self { lead, tidied }
    }

    /// Puts the value in: all waiters get it. Returns a clone of it. The cache does not keep it if an `insert` or a removal of
    /// the key came meanwhile: see [`PlaceholderGuard::insert`].
    pub fn insert(self, value: V) -> V
    where
        V: Clone,
    {
        let Self { lead, tidied } = self;
        let _tidied = tidied;
        lead.end(|leader| leader.publish_given(value))
    }

    /// Lends the key.
    pub fn key(&self) -> &K {
        self.lead.key()
    }
}

#[cfg(feature = "async")]
impl<K: Hash + Eq + fmt::Debug, V, S: BuildHasher> fmt::Debug for TaskGuard<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskGuard")
            .field("key", self.key())
            .finish_non_exhaustive()
    }
}
