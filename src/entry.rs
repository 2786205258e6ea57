//! [`Cache::entry`]: an operation on one key that is given away.

use crate::actor::actor;
use crate::blocking::{Verb, verbs};
use crate::cache::{Cache, DefaultHashBuilder, sure};
use crate::core::{Aim, Core, Found, Leader, Spare, Turn, Waited, Wanted};
use crate::error::{Refusal, TryGetError};
use crate::fill::{Call, Explain};
use crate::reclaim::pin;
use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher, Hash};

/// One key, and what is to be done with it: see [`Cache::entry`].
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

/// A value, and whether this call computed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<V> {
    value: V,
    fresh: bool,
}

impl<V> Entry<V> {
    pub(crate) fn new(value: V, fresh: bool) -> Self {
        Self { value, fresh }
    }

    /// The value.
    pub fn value(&self) -> &V {
        &self.value
    }

    /// The value, given away.
    pub fn into_value(self) -> V {
        self.value
    }

    /// Whether this very call computed the value.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }
}

/// What [`EntrySelector::and_compute_with`] is to do with the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<V> {
    /// Put this value in.
    Put(V),
    /// Remove the entry.
    Remove,
    /// Leave everything as it is.
    Nop,
}

/// What [`EntrySelector::and_compute_with`] has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompResult<V> {
    /// There was none; this was put in.
    Inserted(V),
    /// There was one; this is in its place.
    ReplacedWith(V),
    /// This was there, and is removed.
    Removed(V),
    /// This is there still.
    Unchanged(V),
    /// There was none, and there still is none.
    StillNone,
    /// Nothing was done, and this was to be done: what had been read was taken out before that, by a removal that does
    /// not wait ([`remove_nowait`](Cache::remove_nowait) and its like, or any from inside this compute), by an
    /// [`insert`](Cache::insert) beside a removal that waits, or the compute was given up by
    /// [`takeover`](Cache::takeover). To do it to what the key has now, call again.
    Superseded(Op<V>),
}

impl<K: Hash + Eq, V: Clone, S: BuildHasher> EntrySelector<'_, K, V, S> {
    pub(crate) fn new(cache: &Cache<K, V, S>, key: K) -> EntrySelector<'_, K, V, S> {
        EntrySelector { cache, key }
    }

    /// The key.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// The value of the key, or `value`, which is then put in. Waits for a running fill.
    ///
    /// # Panics
    /// As [`Cache::get_with`].
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

    /// As [`Cache::get_with`], with a key that is given away.
    ///
    /// # Panics
    /// As [`Cache::get_with`].
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

    /// As [`Cache::try_get_with`], with a key that is given away.
    ///
    /// # Errors
    /// As [`Cache::try_get_with`].
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
    /// beside `f`, so two increments are both kept.
    ///
    /// `f` is called exactly once, with a clone of the live value, if there is one; readers go on seeing
    /// that until `f` has returned. If `f` panics, the entry is what it was. What comes meanwhile:
    ///
    /// * An [`insert`](Cache::insert) wins: what `f` puts in is as if it had been put in just before.
    /// * A removal that waits, such as [`remove`](Cache::remove), comes after: it has what `f` leaves.
    /// * One that does not, such as [`remove_nowait`](Cache::remove_nowait), comes before, and so does
    ///   [`takeover`](Cache::takeover): then `f` has read what is not there any more, nothing is done, and the answer is
    ///   [`CompResult::Superseded`]. To go on from what the key has now, call again.
    ///
    /// Waits for a running fill or compute of the key.
    ///
    /// # Panics
    /// With the text of a [`CycleError`](crate::CycleError) if that wait would never end: from a fill or compute of
    /// the same key, for one. And with whatever `f` panics with.
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

/// Waits until the lead of the key's next flight is ours; with the live value that it replaces.
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
                // It holds a pin.
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
    leader: Leader<'_, K, V, S>,
    prior: Option<V>,
    f: impl FnOnce(Option<&V>) -> Op<V>,
) -> CompResult<V> {
    let op = leader.run(|_| f(prior.as_ref()));
    computed(leader, prior, op)
}

/// Does to the entry what was decided.
pub(crate) fn computed<K: Hash + Eq, V: Clone, S: BuildHasher>(
    leader: Leader<'_, K, V, S>,
    prior: Option<V>,
    op: Op<V>,
) -> CompResult<V> {
    match (op, prior) {
        (Op::Put(value), prior) => {
            let replaces = prior.is_some();
            // Before there is an answer: it may panic, which would be the compute's panic.
            drop(prior);
            let found = match leader.put(value) {
                Ok((found, _kept)) => found,
                Err(value) => return CompResult::Superseded(Op::Put(value)),
            };
            let value = found.value().clone();
            if replaces {
                CompResult::ReplacedWith(value)
            } else {
                CompResult::Inserted(value)
            }
        }
        (Op::Remove, Some(prior)) => {
            if !leader.take_away() {
                return CompResult::Superseded(Op::Remove);
            }
            CompResult::Removed(prior)
        }
        (Op::Nop, Some(prior)) => {
            leader.withdraw();
            CompResult::Unchanged(prior)
        }
        (_, None) => {
            leader.withdraw();
            CompResult::StillNone
        }
    }
}
