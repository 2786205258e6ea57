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

/// Says how [`Cache::get_value_or_guard`](crate::Cache::get_value_or_guard) ended.
#[must_use = "a guard that is dropped gives up the lead"]
#[non_exhaustive]
pub enum GuardResult<'c, K: Hash + Eq, V, S: BuildHasher = DefaultHashBuilder> {
    /// The value: it was in the cache, or another caller has computed it meanwhile.
    Value(V),
    /// The key has no value: the caller is to compute it.
    Guard(PlaceholderGuard<'c, K, V, S>),
    /// The time was over before another caller had computed the value.
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
        // A timeout too long for the clock is no timeout.
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
                        // Tidies up only when the guard is gone.
                        Ok(leader) => Self::Guard(PlaceholderGuard { leader, tidied }),
                        Err(closed) => Self::Closed(closed),
                    };
                }
                Ok(Waited::TimedOut) => return Self::Timeout,
                // Check the deadline here too: fills that fail at once, again and again, hold up no caller.
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

/// Holds the lead of a key's flight. Every caller that asks for the key waits for the holder.
///
/// Dropped without a value it passes the lead to one of the waiting callers. It must not be leaked (`mem::forget`):
/// then those callers wait for ever.
///
/// It stays on its thread, because a wait of that thread is what could close a cycle. So do not hold it over an
/// `.await`: a wait of the task is not a wait of the thread, and cycles through it are not found. For a task there is
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
    /// Dropped after the leader: the listener may ask for the key.
    tidied: Afterwards<'c, K, V, S>,
}

// The same holds as for `Cache`: a guard that is dropped while its thread unwinds gives up the lead.
impl<K: Hash + Eq, V, S: BuildHasher> std::panic::UnwindSafe for PlaceholderGuard<'_, K, V, S> {}
impl<K: Hash + Eq, V, S: BuildHasher> std::panic::RefUnwindSafe for PlaceholderGuard<'_, K, V, S> {}

impl<K: Hash + Eq, V, S: BuildHasher> PlaceholderGuard<'_, K, V, S> {
    /// Puts the value in, and gives it to every waiting caller. Returns a clone of it.
    ///
    /// If an `insert` or a removal of the key came meanwhile, the cache does not keep the value. The waiting callers
    /// still get it; after an `insert` they have got the inserted one.
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

/// Says how [`Cache::get_value_or_guard_async`](crate::Cache::get_value_or_guard_async) ended.
#[cfg(feature = "async")]
#[must_use = "a guard that is dropped gives up the lead"]
#[non_exhaustive]
pub enum TaskGuardResult<'c, K: Hash + Eq, V, S: BuildHasher = DefaultHashBuilder> {
    /// The value: it was in the cache, or another caller has computed it meanwhile.
    Value(V),
    /// The key has no value: the caller is to compute it.
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

/// Holds the lead of a key's flight for a task, like [`PlaceholderGuard`] for a thread. It may be held over an
/// `.await`, and sent to another thread.
///
/// Dropped without a value it passes the lead to one of the waiting callers. While it is held, cycles through it are
/// **not** found: the cache does not know which task computes the value. So the task that holds it must not wait for
/// its key, nor for a fill that does. Nor must a [listener](crate::Builder::eviction_listener) that the task triggers
/// meanwhile.
#[cfg(feature = "async")]
#[must_use = "a guard that is dropped gives up the lead"]
pub struct TaskGuard<'c, K: Hash + Eq, V, S: BuildHasher = DefaultHashBuilder> {
    lead: TaskLead<'c, K, V, S>,
    /// Dropped after the lead: the listener may ask for the key.
    tidied: Afterwards<'c, K, V, S>,
}

// The same holds as for a `PlaceholderGuard`: dropped while its thread unwinds, it gives up the lead.
#[cfg(feature = "async")]
impl<K: Hash + Eq, V, S: BuildHasher> std::panic::UnwindSafe for TaskGuard<'_, K, V, S> {}
#[cfg(feature = "async")]
impl<K: Hash + Eq, V, S: BuildHasher> std::panic::RefUnwindSafe for TaskGuard<'_, K, V, S> {}

#[cfg(feature = "async")]
impl<'c, K: Hash + Eq, V, S: BuildHasher> TaskGuard<'c, K, V, S> {
    pub(crate) fn new(lead: TaskLead<'c, K, V, S>) -> Self {
        // Tidies up only when the guard is gone.
        let tidied = lead.core().afterwards();
        Self { lead, tidied }
    }

    /// Puts the value in, and gives it to every waiting caller: see [`PlaceholderGuard::insert`]. Returns a clone of
    /// it.
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
