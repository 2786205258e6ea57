//! [`Cache::entry`]: an operation on one key, which it takes by value.

use crate::actor::actor;
use crate::blocking::{Verb, verbs};
use crate::cache::{Cache, DefaultHashBuilder, sure};
use crate::core::{Aim, Blank, Core, Found, Leader, Spare, Turn, Waited, Wanted};
use crate::error::{Refusal, TryGetError};
use crate::fill::{Call, Explain};
use crate::reclaim::pin;
use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher, Hash};

/// Holds one key, for the one operation on it that is called next: see [`Cache::entry`].
#[must_use = "an entry does nothing until one of its methods is called"]
pub struct EntrySelector<'c, K, V, S = DefaultHashBuilder> {
    pub(crate) cache: &'c Cache<K, V, S>,
    pub(crate) key: K,
}

impl<K: fmt::Debug, V, S> fmt::Debug for EntrySelector<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntrySelector")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// Holds a value, and says whether this call computed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<V> {
    value: V,
    fresh: bool,
}

impl<V> Entry<V> {
    pub(crate) fn new(value: V, fresh: bool) -> Self {
        Self { value, fresh }
    }

    /// Lends the value.
    pub fn value(&self) -> &V {
        &self.value
    }

    /// Returns the value.
    pub fn into_value(self) -> V {
        self.value
    }

    /// Returns `true` if this call computed the value.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }
}

/// Says how [`EntrySelector::and_compute_with`] changes the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<V> {
    /// Puts this value in.
    Put(V),
    /// Removes the entry.
    Remove,
    /// Leaves everything as it is.
    Nop,
}

/// Says how [`EntrySelector::and_compute_with`] has changed the key, in one step, at one moment. The values are those
/// of that moment; other calls may have put in or removed a value since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompResult<V> {
    /// The key had no value; this one was put in.
    Inserted(V),
    /// The key had a value; this one is in its place.
    ReplacedWith(V),
    /// The key had this value, and the compute has removed it.
    Removed(V),
    /// The compute has read this value and left it alone: [`Op::Nop`].
    Unchanged(V),
    /// The key had no value, and the compute has put none in.
    StillNone,
    /// The compute has had no effect, because another operation came between its reading and its end. This is the
    /// operation that it would have done, an [`Op::Put`] or an [`Op::Remove`]. To do it to the value that the key has
    /// now, call again. It is one of these that came between:
    ///
    /// * a removal that does not wait, such as [`remove_nowait`](Cache::remove_nowait), also of a key without a value;
    /// * any removal of the key from inside this compute;
    /// * a [`takeover`](Cache::takeover), or the builder's [`fill_timeout`](crate::Builder::fill_timeout).
    Superseded(Op<V>),
}

impl<K: Hash + Eq, V: Clone, S: BuildHasher> EntrySelector<'_, K, V, S> {
    pub(crate) fn new(cache: &Cache<K, V, S>, key: K) -> EntrySelector<'_, K, V, S> {
        EntrySelector { cache, key }
    }

    /// Lends the key.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// Returns the value of the key, or puts `value` in and returns that. Waits for a running fill.
    ///
    /// # Panics
    /// Panics as [`Cache::get_with`] does.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// assert!(cache.entry(1).or_insert(10).is_fresh());
    /// assert_eq!(cache.entry(1).or_insert(11).into_value(), 10);
    /// ```
    #[track_caller]
    pub fn or_insert(self, value: V) -> Entry<V> {
        sure(self.fill(|| Ok::<_, Infallible>(value), &verbs::OR_INSERT))
    }

    /// Does what [`Cache::get_with`] does, with a key that it takes by value.
    ///
    /// # Panics
    /// Panics as [`Cache::get_with`] does.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<String, usize> = atomic_cache::Cache::unbounded();
    /// let entry = cache.entry("spam".to_owned()).or_insert_with(|| 4);
    /// assert_eq!((*entry.value(), entry.is_fresh()), (4, true));
    /// ```
    #[track_caller]
    pub fn or_insert_with(self, fill: impl FnOnce() -> V) -> Entry<V> {
        let fill = || Ok::<_, Infallible>(fill());
        sure(self.fill(fill, &verbs::OR_INSERT_WITH))
    }

    /// Does what [`Cache::try_get_with`] does, with a key that it takes by value.
    ///
    /// # Errors
    /// Fails as [`Cache::try_get_with`] does.
    ///
    /// # Panics
    /// Panics as [`Cache::try_get_with`] does.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<String, u16> = atomic_cache::Cache::unbounded();
    /// assert!(cache.entry("x".to_owned()).or_try_insert_with(|| "x".parse()).is_err());
    /// assert!(cache.entry("x".to_owned()).or_try_insert_with(|| "7".parse()).is_ok());
    /// ```
    #[track_caller]
    pub fn or_try_insert_with<E>(
        self,
        fill: impl FnOnce() -> Result<V, E>,
    ) -> Result<Entry<V>, TryGetError<E>>
    where
        E: Clone + Send + Sync + 'static,
    {
        self.fill(fill, &verbs::OR_TRY_INSERT_WITH)
    }

    #[track_caller]
    fn fill<E>(
        self,
        fill: impl FnOnce() -> Result<V, E>,
        verb: &Verb,
    ) -> Result<Entry<V>, TryGetError<E>>
    where
        E: Clone + Send + Sync + 'static,
    {
        let core = &*self.cache.core;
        if let Some(value) = self.cache.get(&self.key) {
            return Ok(Entry {
                value,
                fresh: false,
            });
        }
        let _tidied = core.afterwards();
        let hash = core.hash(&self.key);
        let (mut spare, mut held) = Spare::holding(core, actor(), self.key);
        let mut call = Call::new(|_: &K| fill());
        let (aim, call_now) = (Aim::Value, &mut call);
        match core.obtain(pin(), hash, &mut held, aim, &mut spare, call_now, verb) {
            Ok(found) => Ok(Entry {
                value: found.value().clone(),
                fresh: call.ran(),
            }),
            Err(obstacle) => Err(call.explain(obstacle)),
        }
    }

    /// Reads and changes the entry in one step: no other fill or compute of the key runs
    /// beside `f`, so two increments are both kept. Waits for a running fill or compute of the key.
    ///
    /// `f` is called exactly once, with a clone of the live value, if there is one. Readers go on getting that value
    /// until `f` has returned. If `f` panics, the entry stays as it was. Other calls while `f` runs:
    ///
    /// * An [`insert`](Cache::insert) wins: the compute takes effect as if just before it.
    /// * A removal that waits, such as [`remove`](Cache::remove), takes out the value that `f` leaves. From the moment
    ///   it is called the key has no value for other callers. Called from inside `f` it cannot wait, and is of the
    ///   next kind.
    /// * A removal that does not wait, such as [`remove_nowait`](Cache::remove_nowait), takes out the value that `f`
    ///   has read, if no removal that waits came first. Then the compute has no effect, and returns
    ///   [`CompResult::Superseded`]; so it does after a [`takeover`](Cache::takeover). Call again, to go on from the
    ///   value that the key has now:
    ///
    /// ```
    /// use atomic_cache::{Cache, CompResult, Op};
    ///
    /// let hits: Cache<&str, u32> = Cache::unbounded();
    /// let count = || loop {
    ///     let done = hits.entry("/").and_compute_with(|seen| Op::Put(seen.map_or(1, |n| n + 1)));
    ///     if !matches!(done, CompResult::Superseded(_)) {
    ///         break;
    ///     }
    /// };
    /// let mut drained = 0;
    /// std::thread::scope(|scope| {
    ///     let counts = scope.spawn(|| (0..100).for_each(|_| count()));
    ///     while !counts.is_finished() {
    ///         drained += hits.remove_nowait("/").unwrap_or(0);
    ///     }
    /// });
    /// assert_eq!(drained + hits.remove("/").unwrap_or(0), 100);
    /// ```
    ///
    /// # Panics
    /// Panics with the text of a [`CycleError`](crate::CycleError) if the wait would never end, as inside a fill or
    /// compute of the same key. Panics with the text of a [`ClosedError`](crate::ClosedError) if the cache has been
    /// closed. Panics if it would have to wait where [a thread may not wait](Cache#where-a-thread-may-not-wait). Goes
    /// on with the panic of `f`.
    ///
    /// ```
    /// use atomic_cache::{Cache, CompResult, Op};
    ///
    /// let hits: Cache<&str, u32> = Cache::unbounded();
    /// let count = |page| {
    ///     hits.entry(page).and_compute_with(|seen| Op::Put(seen.map_or(1, |n| n + 1)))
    /// };
    /// assert_eq!(count("/"), CompResult::Inserted(1));
    /// assert_eq!(count("/"), CompResult::ReplacedWith(2));
    /// ```
    #[track_caller]
    pub fn and_compute_with(self, f: impl FnOnce(Option<&V>) -> Op<V>) -> CompResult<V> {
        let core = &*self.cache.core;
        let _tidied = core.afterwards();
        let hash = core.hash(&self.key);
        let (mut spare, mut held) = Spare::holding(core, actor(), self.key);
        match lead(core, hash, &mut held, &mut spare) {
            Ok((leader, seen)) => {
                let prior = seen.map(|seen| seen.value().clone());
                compute(leader, prior, f)
            }
            Err(refusal) => panic!("{refusal}"),
        }
    }
}

/// Waits until the lead of the key's next flight is ours. Returns it with the live value that the flight is to
/// replace.
#[track_caller]
fn lead<'c, K: Hash + Eq, V, S: BuildHasher>(
    core: &'c Core<K, V, S>,
    hash: u64,
    wanted: &mut dyn Wanted<K>,
    spare: &mut Spare<'c, K, V, S>,
) -> Result<(Leader<'c, K, V, S>, Option<Found<'c, K, V>>), Refusal> {
    loop {
        match core.turn(core.pin_for_miss(pin()), hash, wanted, Aim::Lead, spare) {
            Turn::Lead(leader, seen) if core.admits() => return Ok((leader, seen)),
            Turn::Lead(leader, seen) => {
                // The value holds a pin.
                drop(seen);
                return Err(core.refuse(leader).into());
            }
            Turn::Wait(part) => {
                let came = part.wait(hash, None, &verbs::AND_COMPUTE_WITH)?;
                if let Waited::Lead(leader) = came {
                    return Ok((core.admit(leader)?, None));
                }
            }
            Turn::Ready(_) => unreachable!("who aims at the lead is served nothing else"),
        }
    }
}

fn compute<K: Hash + Eq, V: Clone, S: BuildHasher>(
    mut leader: Leader<'_, K, V, S>,
    mut prior: Option<V>,
    f: impl FnOnce(Option<&V>) -> Op<V>,
) -> CompResult<V> {
    let op = leader.fill(|_, blank| f(prior.as_ref()).settle(blank));
    computed(leader, &mut prior, op)
}

impl<V> Op<V> {
    /// Puts the value into its cell. Returns the rest of the operation.
    #[inline]
    pub(crate) fn settle(self, blank: &mut Blank<'_, V>) -> Op<()> {
        match self {
            Self::Put(value) => {
                blank.put(value);
                Op::Put(())
            }
            Self::Remove => Op::Remove,
            Self::Nop => Op::Nop,
        }
    }
}

/// Ends the compute's flight with `op`.
pub(crate) fn computed<K: Hash + Eq, V: Clone, S: BuildHasher>(
    leader: Leader<'_, K, V, S>,
    prior: &mut Option<V>,
    op: Op<()>,
) -> CompResult<V> {
    match op {
        Op::Put(()) => {
            let replaces = prior.is_some();
            // Before there is a result: dropping the old value may panic, and that is the compute's panic.
            *prior = None;
            let found = match leader.put() {
                Ok((found, _kept)) => found,
                Err(leader) => return CompResult::Superseded(Op::Put(leader.take_back())),
            };
            if replaces {
                return CompResult::ReplacedWith(found.value().clone());
            }
            CompResult::Inserted(found.value().clone())
        }
        Op::Remove if prior.is_some() => {
            if !leader.take_away() {
                *prior = None;
                return CompResult::Superseded(Op::Remove);
            }
            prior
                .take()
                .map_or(CompResult::StillNone, CompResult::Removed)
        }
        _ => {
            leader.withdraw();
            prior
                .take()
                .map_or(CompResult::StillNone, CompResult::Unchanged)
        }
    }
}
