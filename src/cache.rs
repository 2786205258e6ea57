//! [`Cache`]: the blocking methods. Each is a short loop around one step of the core.

use crate::actor::actor;
use crate::blocking::{Verb, verbs};
use crate::builder::Builder;
use crate::byte_size::ByteSize;
use crate::core::{Aim, Awaited, Core, Glance, Spare};
use crate::entry::EntrySelector;
use crate::error::{BuildError, OversizeError, TryGetError};
use crate::fill::{Borrowed, Call, Explain, Fill};
use crate::guard::GuardResult;
use crate::in_flight::InFlight;
use crate::key::{Equivalent, ToKey};
use crate::pinned::Pinned;
use crate::reclaim::{Brief, pin, pin_briefly};
use crate::stats::{CacheStats, Event};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The hasher of a cache that is given no other: foldhash, as in hashbrown.
///
/// It is fast, is seeded once a process, and does not withstand an attacker that can watch timings.
/// For keys that strangers choose, give [`Builder::hasher`] a `std::hash::RandomState`.
pub type DefaultHashBuilder = foldhash::fast::RandomState;

/// A concurrent map that computes each value once; each call brings its own fill.
///
/// A `Cache` is a handle: a [`Clone`] costs one reference count and shares the cache. For a cache
/// that always fills in the same way see [`AtomicCache`](crate::AtomicCache); for a table of the
/// methods see [`which_verb`](crate::which_verb).
///
/// # Guarantees
/// * One flight a key. Of all callers that ask for an absent key at once, through whichever method,
///   one runs its fill. The others wait for that one result.
/// * `invalidate` beats a running fill: see [`invalidate`](Self::invalidate).
/// * User code (fill, `Drop`, waker) runs while the cache holds no lock and no pin. `Hash`, `Eq`
///   and `Clone` run under an epoch pin. Any of them may panic: the cache stays usable.
/// * A fill may ask the cache for other keys. A wait that would never end is an error that names
///   the keys: the `try_` methods return it, the others panic with it.
///
/// # Where a thread may not wait
/// A thread that sleeps inside a task may be the very thread that has to end the fill it waits for:
/// then the runtime hangs. So a method that would have to sleep there until a fill ends panics
/// before it sleeps. The panic names the method's twins: the one that ends in `_async`, and the one
/// that does not wait. The method panics
/// * always, inside a poll, the creation or the drop of one of this crate's futures, async fills
///   included, on whichever thread they are polled;
/// * with the feature `tokio`, wherever tokio forbids blocking: in tasks and under `block_on`, not
///   in `spawn_blocking` and `block_in_place`. This crate asks tokio by a call that panics there.
///   So tokio's own message, "Cannot block the current thread from within a runtime", comes
///   first: **read the second one**. (With `panic = "abort"` there is only the first.)
///
/// These calls are not refused:
/// * a call that hits: it does not sleep;
/// * a call that runs the fill itself, unless the fill is a future that is pending;
/// * a call that would close a cycle: that is an error of its own.
///
/// A removal that panics in this way has taken effect all the same: the fills that it would have
/// waited for are detached. A removal on a thread that unwinds skips its wait.
///
/// [`quiesce`](Self::quiesce) and the end of a cache's [janitor](Builder::purge_interval) are not
/// refused either, because they do not wait for a fill. In a task they block its thread: call them
/// in `spawn_blocking`.
///
/// # Effects on a running fill
/// Each method that changes a key does one of these to a running fill of that key:
///
/// | the fill is | by | callers that have joined it get | the next caller |
/// |---|---|---|---|
/// | **detached**, and waited for | removals that wait, such as [`invalidate`](Self::invalidate) | its value | waits until it has ended, then runs its own |
/// | **detached** | removals that do not wait, such as [`invalidate_nowait`](Self::invalidate_nowait) | its value | runs its own at once, beside it |
/// | **replaced** | [`insert`](Self::insert) | the inserted value, at once | gets the inserted value |
/// | **abandoned** | [`takeover`](Self::takeover), [`fill_timeout`](Builder::fill_timeout) | the value of a new fill, which one of them runs | joins the new fill |
///
/// In none of these cases does the cache keep the value that the fill computes. The caller that
/// runs the fill gets it all the same.
///
/// # Costs
/// A hit takes no lock. In an unbounded cache it writes nothing that other threads read; in a
/// bounded one it may raise a small counter of the entry, until that reaches seven.
/// ([`record_stats`](Builder::record_stats) adds a count.) It hashes the key, pins (a nanosecond;
/// 11 where there is no `membarrier`), probes the table, and clones the value: see
/// [`how_a_hit_works`](crate::how_a_hit_works).
///
/// A fill without waiters allocates nothing but, now and then, a chunk of slots. The first waiter
/// allocates the flight that they meet in. A removal costs a compare-and-swap and a push to a
/// queue.
///
/// Where little is removed, unreachable objects are dropped at once. Else a batch of them is
/// dropped at a time: 32 to 256 of them, by the capacity; where entries are weighed, when they
/// weigh a thirty-second of the capacity. A batch takes some microseconds and the time of the
/// destructors.
///
/// ```
/// use atomic_cache::Cache;
///
/// let cache: Cache<String, usize> = Cache::unbounded();
/// let length = cache.get_with("spam", || "spam".len()); // computed
/// assert_eq!(cache.get("spam"), Some(length)); // kept
/// assert!(cache.invalidate("spam"));
/// assert_eq!(cache.get("spam"), None);
/// ```
///
/// # Large values
/// A value that is held inline (`[u8; 100_000]`, and not a `Box`, `Vec` or `Arc` of one) is moved
/// and cloned on the stack of the caller. For a value of N bytes these methods take up to so many
/// times N of stack in a release build, on top of the fill's own; in a debug build up to seven
/// times as much:
///
/// | method | times N |
/// |---|---|
/// | `insert`, `get`, `with` and the guard of `pin`; [`AtomicCache::with`](crate::AtomicCache::with) | 2 |
/// | `get_with`, `try_get_with`, `with_async` | 3 |
/// | `optionally_get_with`, `and_compute_with`, [`AtomicCache::get`](crate::AtomicCache::get) | 4 |
/// | `or_insert_with`, placeholder guards | 5 |
/// | `get_with_async`, `or_insert_with_async`, `get_async` | 5 |
/// | `and_compute_with_async`, guards of tasks | 8 |
///
/// The rest of the thread's stack is for the fill. Of the 2 MiB that a thread of std or tokio has,
/// `get_with_async` of 256 KiB inline takes more than half. **Put values of more than some KiB into
/// a `Box` or an `Arc`.**
///
/// Keys and values may borrow, from data that outlives the cache:
///
/// ```
/// let text = "spam and eggs".to_owned();
/// let words: atomic_cache::Cache<&str, &str> = atomic_cache::Cache::unbounded();
/// words.insert("first", &text[..4]);
/// assert_eq!(words.get("first"), Some("spam"));
/// ```
/// ```compile_fail
/// let words: atomic_cache::Cache<u32, &'static str> = atomic_cache::Cache::unbounded();
/// let text = "spam".to_owned();
/// let shorter: atomic_cache::Cache<u32, &str> = words.clone(); // not the same type
/// shorter.insert(1, &text);
/// drop(text);
/// println!("{:?}", words.get(&1));
/// ```
/// ```compile_fail
/// let words: atomic_cache::Cache<u32, &str> = atomic_cache::Cache::unbounded();
/// let text = "spam".to_owned();
/// words.insert(1, &text);
/// drop(text); // still borrowed by the cache
/// println!("{}", words.len());
/// ```
///
/// A cache is [`Send`] and [`Sync`] when keys and values are both:
///
/// ```
/// fn shared<T: Send + Sync>() {}
/// shared::<atomic_cache::Cache<String, Vec<u8>>>();
/// ```
/// ```compile_fail
/// fn shared<T: Send>() {}
/// shared::<atomic_cache::Cache<String, std::rc::Rc<u8>>>();
/// ```
/// ```compile_fail
/// fn shared<T: Send>() {}
/// shared::<atomic_cache::Cache<std::cell::Cell<u8>, u8>>();
/// ```
pub struct Cache<K, V, S = DefaultHashBuilder> {
    pub(crate) core: Arc<Core<K, V, S>>,
}

impl<K, V, S> Clone for Cache<K, V, S> {
    /// Makes another handle on the same cache; costs one reference count.
    fn clone(&self) -> Self {
        if let Some(janitor) = self.core.janitor() {
            janitor.enter();
        }
        Self {
            core: Arc::clone(&self.core),
        }
    }
}

impl<K, V, S> Drop for Cache<K, V, S> {
    /// Releases this handle.
    ///
    /// The last handle drops every entry before this returns. It also ends the
    /// [janitor](Builder::purge_interval) and waits for the janitor's round. In a fill, in a
    /// listener, or in the `Drop` of a value it does not wait, because the round might wait for
    /// that: then the janitor drops the rest.
    fn drop(&mut self) {
        // Removed entries may hold handles of this cache, perhaps the last ones.
        if (std::mem::needs_drop::<V>() || std::mem::needs_drop::<K>())
            && self
                .core
                .may_be_held_by_garbage(Arc::strong_count(&self.core))
        {
            self.core.tidy_all();
        }
        if let Some(janitor) = self.core.janitor() {
            janitor.leave(Core::<K, V, S>::may_wait_for_a_round);
        }
    }
}

impl<K, V, S> fmt::Debug for Cache<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("name", &self.core.name())
            .field("len", &self.core.len())
            .finish_non_exhaustive()
    }
}

// A panic of user code leaves the cache usable: that is part of the contract.
impl<K, V, S> std::panic::UnwindSafe for Cache<K, V, S> {}
impl<K, V, S> std::panic::RefUnwindSafe for Cache<K, V, S> {}

impl<K: Hash + Eq + fmt::Debug, V> Cache<K, V> {
    /// Makes a cache for at most `max_capacity` entries, without a TTL.
    ///
    /// The same as a [`builder`](Self::builder) with a [`max_capacity`](Builder::max_capacity) and
    /// nothing else; see there for the details. Weights, a TTL and all other settings need a
    /// builder.
    ///
    /// Keys have to be [`Debug`](fmt::Debug) because cycle errors name them; for others see
    /// [`Builder::opaque_keys`].
    ///
    /// ```
    /// let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::new(100);
    /// for key in 0..1_000 {
    ///     cache.get_with(&key, || key * key);
    /// }
    /// assert!(cache.len() <= 100);
    /// ```
    pub fn new(max_capacity: u64) -> Self {
        Self::builder()
            .max_capacity(max_capacity)
            .build()
            .unwrap_or_else(|error| unreachable!("any capacity is good: {error}"))
    }

    /// Makes a cache without a bound and without a TTL.
    ///
    /// Keys have to be [`Debug`](fmt::Debug) because cycle errors name them; for others see
    /// [`Builder::opaque_keys`].
    ///
    /// ```
    /// let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// assert_eq!(cache.capacity(), None);
    /// ```
    pub fn unbounded() -> Self {
        Self::builder()
            .build()
            .unwrap_or_else(|error| unreachable!("the default settings are good: {error}"))
    }
}

impl<K: Hash + Eq + fmt::Debug, V> Cache<K, V> {
    /// An unbounded cache with this TTL.
    pub(crate) fn with_ttl(ttl: Option<Duration>) -> Self {
        let settings = Self::builder();
        let settings = match ttl {
            Some(ttl) => settings.time_to_live(ttl),
            None => settings,
        };
        settings
            .build()
            .unwrap_or_else(|error| unreachable!("every lifetime is good: {error}"))
    }
}

impl<K: Hash + Eq + fmt::Debug, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self::unbounded()
    }
}

impl<K, V> Cache<K, V> {
    /// Returns the settings for a cache; end with [`build`](Builder::build).
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use atomic_cache::Cache;
    ///
    /// let cache: Cache<u64, String> = Cache::builder()
    ///     .time_to_live(Duration::from_secs(30))
    ///     .initial_capacity(10_000)
    ///     .build()?;
    /// # assert!(cache.is_empty());
    /// # Ok::<(), atomic_cache::BuildError>(())
    /// ```
    pub fn builder() -> Builder<K, V> {
        Builder::new()
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// Returns the value of a key, if it is there.
    ///
    /// Never fills, never waits. `None` while the key's first fill runs.
    ///
    /// Cost: a hit, see [`Cache`], and a clone of the value. [`with`](Self::with) and
    /// [`pin`](Self::pin) lend the value instead.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, &str> = atomic_cache::Cache::unbounded();
    /// assert_eq!(cache.get(&1), None);
    /// cache.insert(1, "one");
    /// assert_eq!(cache.get(&1), Some("one"));
    /// ```
    #[inline]
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        Q: ?Sized + Hash + Equivalent<K>,
        V: Clone,
    {
        match self.glance(key, V::clone) {
            Glance::Found(value) => Some(value),
            Glance::Absent => None,
            Glance::Unclear => self.with_otherwise(key, V::clone),
        }
    }

    /// The fast path of a hit: answers most hits, and many misses.
    #[inline(always)]
    pub(crate) fn glance<Q, R>(&self, key: &Q, read: impl FnOnce(&V) -> R) -> Glance<R>
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        let core = &*self.core;
        match self.pin_for_hit() {
            Some(pin) => core.hit(core.hash(key), key, &pin).map(read),
            None => Glance::Unclear,
        }
    }

    /// The pin of the fast path, if this cache and this thread may take it.
    #[inline(always)]
    fn pin_for_hit(&self) -> Option<Brief> {
        if self.core.is_plain() {
            pin_briefly()
        } else {
            None
        }
    }

    /// The slow path of a hit.
    #[inline(never)]
    fn with_otherwise<Q, R>(&self, key: &Q, f: impl FnOnce(&V) -> R) -> Option<R>
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        self.core.look_up(self.core.hash(key), key, &pin()).map(f)
    }

    /// Shows the value of a key to `f` without cloning it, if it is there; returns the result of
    /// `f`.
    ///
    /// Never fills, never waits. `f` runs under an epoch pin: meanwhile nothing that is removed
    /// from any cache can be dropped, so keep it short. `f` may use the cache.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, String> = atomic_cache::Cache::unbounded();
    /// cache.insert(1, "one".to_owned());
    /// assert_eq!(cache.with(&1, |text| text.len()), Some(3));
    /// ```
    #[inline]
    pub fn with<Q, R>(&self, key: &Q, f: impl FnOnce(&V) -> R) -> Option<R>
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        let core = &*self.core;
        if let Some(pin) = self.pin_for_hit() {
            match core.hit(core.hash(key), key, &pin) {
                Glance::Found(value) => return Some(f(value)),
                Glance::Absent => return None,
                Glance::Unclear => {}
            }
        }
        self.with_otherwise(key, f)
    }

    /// Returns the value of a key, if it is there, as [`get`](Self::get) does, but does not count
    /// as a use of the entry.
    ///
    /// It changes neither the statistics nor, in a bounded cache, the order of eviction. Never
    /// fills, never waits.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// cache.insert(1, 10);
    /// assert_eq!(cache.peek(&1), Some(10));
    /// ```
    pub fn peek<Q>(&self, key: &Q) -> Option<V>
    where
        Q: ?Sized + Hash + Equivalent<K>,
        V: Clone,
    {
        self.core.look(self.core.hash(key), key, &pin()).cloned()
    }

    /// Returns whether a key is there.
    ///
    /// Never fills, never waits, does not count as a use of the entry. `false` while the key's
    /// first fill runs.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// cache.get_with(&1, || {
    ///     assert!(!cache.contains(&1)); // not there yet
    ///     10
    /// });
    /// assert!(cache.contains(&1));
    /// ```
    pub fn contains<Q>(&self, key: &Q) -> bool
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        self.core.look(self.core.hash(key), key, &pin()).is_some()
    }

    /// Returns the value of a key, computed by `fill` if it is not there.
    ///
    /// Of all callers that ask at once, one runs its fill. The others block, and get a clone of its
    /// value. If that fill panics, the panic goes on in its caller, and one of the waiters runs its
    /// own fill.
    ///
    /// Twins: [`get_with_async`](Self::get_with_async) blocks no thread, and [`get`](Self::get)
    /// never waits.
    ///
    /// # Panics
    /// * With the text of a [`CycleError`](crate::CycleError) if the wait would never end, and of a
    ///   [`ClosedError`](crate::ClosedError) if the cache has been closed;
    ///   [`try_get_with`](Self::try_get_with) returns both instead.
    /// * If it would have to wait where [a thread may not wait](Self#where-a-thread-may-not-wait).
    /// * With the panic of `fill`.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<String, usize> = atomic_cache::Cache::unbounded();
    /// assert_eq!(cache.get_with("spam", || 4), 4);
    /// assert_eq!(cache.get_with("spam", || unreachable!()), 4);
    /// ```
    #[inline]
    #[track_caller]
    pub fn get_with<Q>(&self, key: &Q, fill: impl FnOnce() -> V) -> V
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
        V: Clone,
    {
        let fill = |_: &K| Ok::<_, Infallible>(fill());
        sure(self.fetch(key, Aim::Value, fill, V::clone, &verbs::GET_WITH))
    }

    /// Returns the value of a key, computed if it is not there by a `fill` that can fail.
    ///
    /// Waits as [`get_with`](Self::get_with) does. Twins:
    /// [`try_get_with_async`](Self::try_get_with_async) blocks no thread, and [`get`](Self::get)
    /// never waits.
    ///
    /// # Errors
    /// * [`TryGetError::Fill`]: the fill failed. Each waiter with a fill of the same error type
    ///   gets a clone of the error; the others run their own fill. Errors are not cached.
    /// * [`TryGetError::Cycle`]: the fill that this call would wait for waits itself, perhaps by
    ///   way of other keys, for a fill that this thread runs.
    /// * [`TryGetError::Closed`]: the cache has been [closed](Self::close).
    ///
    /// # Panics
    /// * If it would have to wait where [a thread may not wait](Self#where-a-thread-may-not-wait).
    /// * With the panic of `fill`.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<String, u16> = atomic_cache::Cache::unbounded();
    /// let port = |text: &str| cache.try_get_with(text, || text.parse());
    /// assert_eq!(port("80"), Ok(80));
    /// assert!(port("eighty").is_err());
    /// assert!(!cache.contains("eighty"));
    /// ```
    #[inline]
    #[track_caller]
    pub fn try_get_with<Q, E>(
        &self,
        key: &Q,
        fill: impl FnOnce() -> Result<V, E>,
    ) -> Result<V, TryGetError<E>>
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
        V: Clone,
        E: Clone + Send + Sync + 'static,
    {
        let verb = &verbs::TRY_GET_WITH;
        self.fetch(key, Aim::Value, |_| fill(), V::clone, verb)
    }

    /// Returns the value of a key, computed if it is not there by a `fill` that may find that there
    /// is no value.
    ///
    /// Its `None` goes to all waiters, and is not cached. Waits as [`get_with`](Self::get_with)
    /// does. Twins: [`optionally_get_with_async`](Self::optionally_get_with_async) blocks no
    /// thread, and [`get`](Self::get) never waits.
    ///
    /// # Panics
    /// As [`get_with`](Self::get_with).
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// assert_eq!(cache.optionally_get_with(&1, || None), None);
    /// assert_eq!(cache.optionally_get_with(&1, || Some(10)), Some(10));
    /// ```
    #[inline]
    #[track_caller]
    pub fn optionally_get_with<Q>(&self, key: &Q, fill: impl FnOnce() -> Option<V>) -> Option<V>
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
        V: Clone,
    {
        let fill = |_: &K| fill().ok_or(NoValue);
        match self.fetch(key, Aim::Value, fill, V::clone, &verbs::OPTIONALLY_GET_WITH) {
            Ok(value) => Some(value),
            Err(TryGetError::Fill(NoValue)) => None,
            Err(TryGetError::Cycle(cycle)) => panic!("{cycle}"),
            Err(TryGetError::Closed(closed)) => panic!("{closed}"),
        }
    }

    /// Calls [`fetch_by`](Self::fetch_by) with a closure as the fill.
    #[inline]
    #[track_caller]
    pub(crate) fn fetch<Q, R, E>(
        &self,
        key: &Q,
        aim: Aim,
        fill: impl FnOnce(&K) -> Result<V, E>,
        read: impl FnOnce(&V) -> R,
        verb: &'static Verb,
    ) -> Result<R, TryGetError<E>>
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
        E: Clone + Send + Sync + 'static,
    {
        self.fetch_by(key, aim, Call::new(fill), read, verb)
    }

    /// The one path of every method that fills: looks the key up; else takes steps and waits; reads
    /// the value it finds.
    #[inline]
    #[track_caller]
    pub(crate) fn fetch_by<Q, R, F>(
        &self,
        key: &Q,
        aim: Aim,
        call: F,
        read: impl FnOnce(&V) -> R,
        verb: &'static Verb,
    ) -> Result<R, TryGetError<F::Error>>
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
        F: Fill<K, V, S> + Explain,
    {
        let core = &*self.core;
        let mut absent = aim != Aim::Value;
        if let Some(pin) = self.pin_for_hit().filter(|_| !absent) {
            match core.hit(core.hash(key), key, &pin) {
                Glance::Found(value) => return Ok(read(value)),
                Glance::Absent => absent = true,
                Glance::Unclear => {}
            }
        }
        self.fetch_otherwise(key, aim, absent, call, read, verb)
    }

    /// The slow path of [`fetch_by`](Self::fetch_by). `absent`: the first step needs no look-up
    /// before it.
    #[inline(never)]
    #[track_caller]
    pub(crate) fn fetch_otherwise<Q, R, F>(
        &self,
        key: &Q,
        aim: Aim,
        absent: bool,
        mut call: F,
        read: impl FnOnce(&V) -> R,
        verb: &'static Verb,
    ) -> Result<R, TryGetError<F::Error>>
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
        F: Fill<K, V, S> + Explain,
    {
        let core = &*self.core;
        let hash = core.hash(key);
        let pin = pin();
        if !absent {
            if let Some(value) = core.look_up(hash, key, &pin) {
                return Ok(read(value));
            }
        }
        let _tidied = core.afterwards();
        let mut spare = Spare::none(core, actor());
        let (wanted, call_now) = (&mut Borrowed(key), &mut call);
        match core.obtain(pin, hash, wanted, aim, &mut spare, call_now, verb) {
            Ok(found) => Ok(read(found.value())),
            Err(obstacle) => Err(call.explain(obstacle)),
        }
    }

    /// Waits for the value of a key, or makes the caller the one that computes it, without a
    /// closure.
    ///
    /// The caller that gets the [`PlaceholderGuard`](crate::PlaceholderGuard) leads the key's
    /// flight. All other callers that ask for the key wait until it puts a value in or drops the
    /// guard.
    ///
    /// With a `timeout` this call waits no longer than that; without one, as long as the fill
    /// takes. If two waits close a cycle, the later one gets the error, even if the earlier one
    /// would have ended by its timeout.
    ///
    /// Twins: [`get_value_or_guard_async`](Self::get_value_or_guard_async) blocks no thread; a
    /// `timeout` of zero does not wait.
    ///
    /// # Panics
    /// If it would have to wait where [a thread may not wait](Self#where-a-thread-may-not-wait).
    ///
    /// ```
    /// use atomic_cache::{Cache, GuardResult};
    ///
    /// let cache: Cache<u32, String> = Cache::unbounded();
    /// match cache.get_value_or_guard(&1, None) {
    ///     GuardResult::Guard(guard) => assert_eq!(guard.insert("one".into()), "one"),
    ///     other => panic!("{other:?}"),
    /// }
    /// assert_eq!(cache.get(&1).as_deref(), Some("one"));
    /// ```
    #[track_caller]
    pub fn get_value_or_guard<Q>(
        &self,
        key: &Q,
        timeout: Option<Duration>,
    ) -> GuardResult<'_, K, V, S>
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
        V: Clone,
    {
        if let Some(value) = self.get(key) {
            return GuardResult::Value(value);
        }
        GuardResult::obtain(&self.core, key, timeout)
    }

    /// Puts a value in, in place of any older one. Never waits.
    ///
    /// After it returns, reads see `value` or a newer one. A running fill of the key is
    /// [replaced](Self#effects-on-a-running-fill): each waiter gets a clone of `value` now. The
    /// fill's own caller gets the value that it computed, which is not kept.
    ///
    /// The cache cannot keep a value that is heavier than the whole capacity
    /// ([`max_capacity`](Builder::max_capacity)), nor one on which the weigher panics. Such a value
    /// goes to the waiters, and is dropped. It still removes the older value, so that reads never
    /// return a value older than the last one put in. The listener is told of the older one with
    /// [`RemovalCause::Size`](crate::RemovalCause::Size), and [`CacheStats::oversize`] counts the
    /// new one. [`try_insert`](Self::try_insert) gives it back.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// let computed = cache.get_with(&1, || {
    ///     cache.insert(1, 11);
    ///     10
    /// });
    /// assert_eq!((computed, cache.get(&1)), (10, Some(11)));
    /// ```
    pub fn insert(&self, key: K, value: V) {
        self.core.insert(self.core.hash(&key), key, value);
    }

    /// Puts a value in, in place of any older one, and gives it back if the cache cannot keep it.
    /// Never waits.
    ///
    /// # Errors
    /// If the entry is heavier than the whole capacity, or its weigher panicked. The error holds
    /// the value.
    ///
    /// The older value is removed then, as by [`insert`](Self::insert). A running fill of the key
    /// is [detached](Self#effects-on-a-running-fill), without a wait. Unlike with `insert`, the
    /// callers that have joined it get the value that it computes, because yours goes back to you.
    ///
    /// Without a [`weigher`](Builder::weigher) and [`max_bytes`](Builder::max_bytes) it fails in a
    /// cache of capacity zero only.
    ///
    /// ```
    /// use atomic_cache::Cache;
    ///
    /// let cache: Cache<&str, String> = Cache::builder()
    ///     .max_capacity(10)
    ///     .weigher(|_, text: &String| text.len() as u64)
    ///     .build()?;
    /// assert!(cache.try_insert("spam", "eggs".to_owned()).is_ok());
    /// let error = cache.try_insert("spam", "more than ten".to_owned()).unwrap_err();
    /// assert_eq!((error.weight(), error.capacity()), (Some(13), 10));
    /// assert_eq!(error.into_value(), "more than ten");
    /// assert_eq!(cache.get("spam"), None);
    /// # Ok::<(), atomic_cache::BuildError>(())
    /// ```
    pub fn try_insert(&self, key: K, value: V) -> Result<(), OversizeError<V>> {
        self.core.try_insert(self.core.hash(&key), key, value)
    }

    /// Starts an operation on one key, which it takes by value.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<String, u32> = atomic_cache::Cache::unbounded();
    /// let entry = cache.entry("spam".to_owned()).or_insert_with(|| 1);
    /// assert!(entry.is_fresh());
    /// ```
    pub fn entry(&self, key: K) -> EntrySelector<'_, K, V, S>
    where
        V: Clone,
    {
        EntrySelector::new(self, key)
    }

    /// Removes a key, and waits for a running fill of it. Returns whether it has removed a value;
    /// an expired one does not count.
    ///
    /// Twins: [`invalidate_nowait`](Self::invalidate_nowait) never waits, and
    /// [`invalidate_async`](Self::invalidate_async) blocks no thread.
    ///
    /// It beats a running fill. First it [detaches](Self#effects-on-a-running-fill) the fill, then
    /// it waits for its end. After it returns, no call that starts later sees a value of a fill
    /// that had started before `invalidate` was called. The callers that have joined the fill still
    /// get its value. Callers that ask while it runs wait for its end, and then one of them runs
    /// its own: fills of one key do not overlap.
    ///
    /// A running [compute](EntrySelector::and_compute_with) comes first, and the removal after it.
    /// Readers get the older value until the compute ends. Then the value that it has put in is
    /// removed, and its caller is told that it was put in.
    ///
    /// If the fill that it would have to wait for is the caller's own, it does the same as
    /// [`invalidate_nowait`](Self::invalidate_nowait). It does not wait for a fill that was
    /// detached by a method that does not wait.
    ///
    /// # Panics
    /// If it would have to wait where [a thread may not wait](Self#where-a-thread-may-not-wait). So
    /// do all removals that wait.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// cache.insert(1, 10);
    /// assert!(cache.invalidate(&1));
    /// assert!(!cache.invalidate(&1));
    /// ```
    #[track_caller]
    pub fn invalidate<Q>(&self, key: &Q) -> bool
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        self.take(key, Some(&verbs::INVALIDATE), &mut |_| {})
    }

    /// Removes a key and never waits: it [detaches](Self#effects-on-a-running-fill) a running fill
    /// of it. Returns whether it has removed a value.
    ///
    /// Twins, which wait for that fill: [`invalidate`](Self::invalidate), and
    /// [`invalidate_async`](Self::invalidate_async), which blocks no thread.
    ///
    /// It gives the same guarantee: no call that starts later sees a value of a fill that had
    /// started before. The callers that have joined the fill still get its value. The next caller
    /// runs its own fill at once, so two fills of the key may run beside each other.
    ///
    /// It comes before a running [compute](EntrySelector::and_compute_with): it removes the value
    /// that the compute has read, and the compute answers
    /// [`Superseded`](crate::CompResult::Superseded).
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// let value = cache.get_with(&1, || {
    ///     cache.invalidate_nowait(&1);
    ///     10
    /// });
    /// assert_eq!((value, cache.get(&1)), (10, None));
    /// ```
    pub fn invalidate_nowait<Q>(&self, key: &Q) -> bool
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        self.take(key, None, &mut |_| {})
    }

    /// Removes a key, waits for a running fill of it, and returns a clone of the value that was
    /// removed. Apart from the value it does the same as [`invalidate`](Self::invalidate).
    ///
    /// Twins: [`remove_nowait`](Self::remove_nowait) never waits, and
    /// [`remove_async`](Self::remove_async) blocks no thread.
    ///
    /// Beside a running [compute](EntrySelector::and_compute_with) it returns the value that the
    /// compute leaves. If several removals wait for one compute, one of them returns that value,
    /// and the others `None`.
    ///
    /// # Panics
    /// As [`invalidate`](Self::invalidate).
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// cache.insert(1, 10);
    /// assert_eq!(cache.remove(&1), Some(10));
    /// assert_eq!(cache.remove(&1), None);
    /// ```
    #[track_caller]
    pub fn remove<Q>(&self, key: &Q) -> Option<V>
    where
        Q: ?Sized + Hash + Equivalent<K>,
        V: Clone,
    {
        let mut removed = None;
        let read = &mut |value: &V| removed = Some(value.clone());
        let was_there = self.take(key, Some(&verbs::REMOVE), read);
        removed.filter(|_| was_there)
    }

    /// Removes a key, never waits, and returns a clone of the value that was removed. Apart from
    /// the value it does the same as [`invalidate_nowait`](Self::invalidate_nowait).
    ///
    /// Twins, which wait for a running fill: [`remove`](Self::remove), and
    /// [`remove_async`](Self::remove_async), which blocks no thread.
    ///
    /// ```
    /// use atomic_cache::{Cache, CompResult, Op};
    /// let cache: Cache<u32, u32> = Cache::unbounded();
    /// cache.insert(1, 10);
    /// let computed = cache.entry(1).and_compute_with(|_| {
    ///     assert_eq!(cache.remove_nowait(&1), Some(10));
    ///     Op::Put(11)
    /// });
    /// assert_eq!(computed, CompResult::Superseded(Op::Put(11)));
    /// assert_eq!(cache.get(&1), None);
    /// ```
    pub fn remove_nowait<Q>(&self, key: &Q) -> Option<V>
    where
        Q: ?Sized + Hash + Equivalent<K>,
        V: Clone,
    {
        let mut removed = None;
        self.take(key, None, &mut |value| removed = Some(value.clone()));
        removed
    }

    /// Removes a key; `verb` is the method that waits, if one does.
    #[track_caller]
    fn take<Q>(&self, key: &Q, verb: Option<&Verb>, read: &mut dyn FnMut(&V)) -> bool
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        let core = &*self.core;
        let hash = core.hash(key);
        let is_key = |other: &K| key.equivalent(other);
        let (mut was_there, fill) =
            core.remove(hash, &is_key, verb.is_some(), Event::Explicit, read);
        if let Some((fill, verb)) = fill.zip(verb) {
            // Entries that are removed by now are told of and dropped before the wait.
            core.tidy();
            was_there = if fill.part.again().wait(hash, None, verb).is_err() {
                core.give_up(&fill, was_there, read)
            } else {
                core.claim(&fill, was_there, read)
            };
        }
        core.tidy();
        was_there
    }

    /// Removes every key, and waits for the fills that run when the walk reaches their keys.
    ///
    /// It gives the guarantee of [`invalidate`](Self::invalidate) for each key. After it returns,
    /// no call that starts later sees a value that was inserted, or computed by a fill that had
    /// started, before it was called.
    ///
    /// Twins: [`invalidate_all_nowait`](Self::invalidate_all_nowait) never waits, and
    /// [`invalidate_all_async`](Self::invalidate_all_async) blocks no thread. Cost: a walk over the
    /// whole table.
    ///
    /// # Panics
    /// As [`invalidate`](Self::invalidate).
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// cache.insert(1, 10);
    /// cache.invalidate_all();
    /// assert!(cache.is_empty());
    /// ```
    #[track_caller]
    pub fn invalidate_all(&self) {
        self.take_all(&verbs::INVALIDATE_ALL);
    }

    #[track_caller]
    fn take_all(&self, verb: &Verb) {
        let core = &*self.core;
        let fenced = core.remove_all(true, None);
        let all = fenced.into_iter().map(|it| Awaited::new(it, actor()));
        Awaited::block_all(all.collect(), None, verb, &mut |fenced, is_cycle| {
            if is_cycle {
                core.give_up(fenced, false, &mut |_| {});
            }
            None
        });
        core.tidy_all();
    }

    /// Removes every key and never waits: it detaches the running fills, as
    /// [`invalidate_nowait`](Self::invalidate_nowait) does.
    ///
    /// Twins, which wait for those fills: [`invalidate_all`](Self::invalidate_all), and
    /// [`invalidate_all_async`](Self::invalidate_all_async), which blocks no thread. Cost: a walk
    /// over the whole table.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// let value = cache.get_with(&1, || {
    ///     cache.invalidate_all_nowait();
    ///     10
    /// });
    /// assert_eq!((value, cache.get(&1)), (10, None));
    /// ```
    pub fn invalidate_all_nowait(&self) {
        self.core.remove_all(false, None);
        self.core.tidy_all();
    }

    /// Removes every key, and waits for the running fills: [`invalidate_all`](Self::invalidate_all)
    /// by the name that it has in std's maps.
    ///
    /// Twins: [`clear_nowait`](Self::clear_nowait) never waits, and
    /// [`clear_async`](Self::clear_async) blocks no thread.
    ///
    /// # Panics
    /// As [`invalidate`](Self::invalidate).
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// cache.insert(1, 10);
    /// cache.clear();
    /// assert!(cache.is_empty());
    /// ```
    #[track_caller]
    pub fn clear(&self) {
        self.take_all(&verbs::CLEAR);
    }

    /// Removes every key and never waits: another name for
    /// [`invalidate_all_nowait`](Self::invalidate_all_nowait).
    ///
    /// Twins, which wait for running fills: [`clear`](Self::clear), and
    /// [`clear_async`](Self::clear_async), which blocks no thread.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// cache.insert(1, 10);
    /// cache.clear_nowait();
    /// assert!(cache.is_empty());
    /// ```
    pub fn clear_nowait(&self) {
        self.invalidate_all_nowait();
    }

    /// Removes every entry that `which` picks, and waits for the running fills of these keys. It
    /// gives the guarantee of [`invalidate`](Self::invalidate) for each of them.
    ///
    /// Twins: [`invalidate_if_nowait`](Self::invalidate_if_nowait) never waits, and
    /// [`invalidate_if_async`](Self::invalidate_if_async) blocks no thread.
    ///
    /// It judges the value that a key has when the walk reaches it. For a key with a fill that runs
    /// then, it depends:
    ///
    /// * A first fill has no value to judge. It is
    ///   [detached](Self#effects-on-a-running-fill) **whatever `which` picks**, and not waited for:
    ///   the callers that have joined it get its value, and the cache does not keep it.
    /// * A [refresh](crate::AtomicCache::refresh) over a value that is picked: the value is
    ///   removed, and the refresh waited for.
    /// * A refresh over a value that is not picked: it is waited for, and then the newer value is
    ///   judged. (Called from inside that refresh, it abandons it instead.)
    /// * A [compute](EntrySelector::and_compute_with) over a value that is picked: it is waited
    ///   for, and the value that it leaves is removed, as by [`remove`](Self::remove).
    /// * A compute over a value that is not picked, or over none: it is left alone, and comes after
    ///   the removal.
    ///
    /// `which` runs under an epoch pin. Cost: a walk over the whole table.
    ///
    /// # Panics
    /// As [`invalidate`](Self::invalidate).
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// (0..10).for_each(|i| cache.insert(i, i));
    /// cache.invalidate_if(|key, _value| key % 2 == 0);
    /// assert_eq!(cache.len(), 5);
    /// ```
    #[track_caller]
    pub fn invalidate_if(&self, mut which: impl FnMut(&K, &V) -> bool) {
        let core = &*self.core;
        let fenced = core.remove_all(true, Some(&mut which));
        let all = fenced.into_iter().map(|it| Awaited::new(it, actor()));
        let verb = &verbs::INVALIDATE_IF;
        Awaited::block_all(all.collect(), None, verb, &mut |fenced, is_cycle| {
            core.judge_ended(fenced, is_cycle, &mut which)
        });
        core.tidy_all();
    }

    /// Removes every entry that `which` picks, and never waits: it detaches the fills of these
    /// keys, as [`invalidate_nowait`](Self::invalidate_nowait) does.
    ///
    /// Twins, which wait: [`invalidate_if`](Self::invalidate_if), which says which value is judged,
    /// and [`invalidate_if_async`](Self::invalidate_if_async), which blocks no thread.
    ///
    /// A first fill, of a key without a value, is detached whatever `which` picks. A refresh over a
    /// value that is not picked is abandoned, as by [`takeover`](Self::takeover): the older value
    /// stays.
    ///
    /// `which` runs under an epoch pin. Cost: a walk over the whole table.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// (0..10).for_each(|i| cache.insert(i, i));
    /// cache.invalidate_if_nowait(|key, _value| key % 2 == 0);
    /// assert_eq!(cache.len(), 5);
    /// ```
    pub fn invalidate_if_nowait(&self, mut which: impl FnMut(&K, &V) -> bool) {
        let core = &*self.core;
        for fenced in core.remove_all(false, Some(&mut which)) {
            core.give_up_unjudged(&fenced.part, &mut which);
        }
        core.tidy_all();
    }

    /// Returns the number of entries.
    ///
    /// While other threads write, the number is a moment behind or, in a bounded cache, ahead.
    /// Expired entries count until they are removed; running fills do not count.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// cache.insert(1, 10);
    /// assert_eq!(cache.len(), 1);
    /// ```
    pub fn len(&self) -> usize {
        self.core.len()
    }

    /// Returns whether there are no entries; see [`len`](Self::len).
    ///
    /// ```
    /// assert!(atomic_cache::Cache::<u32, u32>::unbounded().is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the capacity, in entries or in weight: see [`Builder::max_capacity`]. `None`: the
    /// cache is unbounded. With a weigher and no bound it is `u64::MAX`.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// assert_eq!(cache.capacity(), None);
    /// ```
    pub fn capacity(&self) -> Option<u64> {
        self.core.capacity()
    }

    /// Returns the total weight of all entries; without a [`weigher`](Builder::weigher), their
    /// number.
    ///
    /// It exceeds the [`capacity`](Self::capacity) by no more than the weight of the entries that
    /// are being put in and removed at that moment: an entry counts from before it can be seen
    /// until its removal is complete. Removed entries that are not dropped yet do not count: see
    /// [`retired`](Self::retired).
    ///
    /// ```
    /// use atomic_cache::Cache;
    /// let cache: Cache<u32, String> = Cache::builder()
    ///     .max_capacity(100)
    ///     .weigher(|_, text: &String| 1 + text.len() as u64)
    ///     .build()?;
    /// cache.insert(1, "spam".to_owned());
    /// assert_eq!((cache.weighted_size(), cache.weight(&1)), (5, Some(5)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn weighted_size(&self) -> u64 {
        self.core.weighted_size()
    }

    /// Returns the weight of a key's entry; without a [`weigher`](Builder::weigher), one. `None`:
    /// the key is not there. Does not count as a use of the entry.
    pub fn weight<Q>(&self, key: &Q) -> Option<u64>
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        self.core.weight(self.core.hash(key), key)
    }

    /// Changes the capacity of a bounded cache. If it becomes less, evicts the excess before it
    /// returns; a fill that is running is not evicted.
    ///
    /// Expired entries go first, then the least used ones. An entry that another thread uses
    /// meanwhile may go with them.
    ///
    /// Cost: to make it less, three walks over the table, some tens of nanoseconds an entry, and
    /// each eviction. To make it more, the resize of the table, when the entries come.
    ///
    /// # Errors
    /// If the cache was built without a bound. For one that may be bounded later, build with
    /// `max_capacity(u64::MAX)`, or with a weigher.
    ///
    /// ```
    /// use atomic_cache::Cache;
    /// let cache: Cache<u32, u32> = Cache::builder().max_capacity(100).build()?;
    /// (0..100).for_each(|key| cache.insert(key, key));
    /// cache.set_max_capacity(10)?;
    /// assert_eq!(cache.len(), 10);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_max_capacity(&self, capacity: u64) -> Result<(), BuildError> {
        if self.core.set_capacity(capacity) {
            return Ok(());
        }
        Err(BuildError::Unbounded)
    }

    /// Changes the capacity of a cache that is bounded in bytes: see [`Builder::max_bytes`]. Else
    /// it does the same as [`set_max_capacity`](Self::set_max_capacity).
    ///
    /// # Errors
    /// As there, and if the text is not a number of bytes, or the cache counts entries.
    ///
    /// ```
    /// use atomic_cache::Cache;
    /// let cache: Cache<u32, String> = Cache::builder().max_bytes("128M").build()?;
    /// cache.set_max_bytes("64M")?;
    /// assert_eq!(cache.capacity(), Some(64 << 20));
    /// # Ok::<(), atomic_cache::BuildError>(())
    /// ```
    pub fn set_max_bytes(&self, size: impl Into<ByteSize>) -> Result<(), BuildError> {
        let bytes = size.into().into_bytes().map_err(BuildError::MaxBytes)?;
        if self.core.counts_entries() {
            return Err(BuildError::CountsEntries);
        }
        self.set_max_capacity(bytes)
    }

    /// Makes the entry of a key one of the last to be evicted, until it has not been used for long.
    ///
    /// Returns `false` if the key is not there. A [pinned guard](Self::pin) has no such method;
    /// this one works beside it.
    ///
    /// ```
    /// use atomic_cache::Cache;
    /// let cache: Cache<u32, u32> = Cache::builder().max_capacity(10).build()?;
    /// cache.insert(0, 0);
    /// assert!(cache.promote(&0));
    /// (1..30).for_each(|key| cache.insert(key, key));
    /// assert!(cache.contains(&0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn promote<Q>(&self, key: &Q) -> bool
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        self.core.promote(self.core.hash(key), key)
    }

    /// Makes the entry of a key the first to be evicted, unless it is used before. Returns `false`
    /// if the key is not there.
    ///
    /// ```
    /// use atomic_cache::Cache;
    /// let cache: Cache<u32, u32> = Cache::builder().max_capacity(10).build()?;
    /// (0..10).for_each(|key| cache.insert(key, key));
    /// assert!(cache.demote(&7));
    /// cache.insert(10, 10);
    /// assert_eq!((cache.contains(&7), cache.len()), (false, 10));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn demote<Q>(&self, key: &Q) -> bool
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        self.core.demote(self.core.hash(key), key)
    }

    /// Returns at most `limit` entries, cloned: the most used ones, the hottest first. Of an
    /// unbounded cache, any entries.
    ///
    /// They are ranked by the number of their latest uses, as far as the cache counts it: up to
    /// seven. Entries of one rank come in no particular order. [`coldest`](Self::coldest) says how
    /// that relates to evictions.
    ///
    /// Cost: a walk over the whole table, and clones of the entries that are, for the time being,
    /// among the hottest. Does not count as a use of the entries. Blocks no other thread.
    ///
    /// ```
    /// use atomic_cache::Cache;
    /// let cache: Cache<u32, u32> = Cache::builder().max_capacity(10).build()?;
    /// (0..10).for_each(|key| cache.insert(key, key));
    /// cache.get(&7);
    /// assert_eq!(cache.hottest(1), [(7, 7)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn hottest(&self, limit: usize) -> Vec<(K, V)>
    where
        K: Clone,
        V: Clone,
    {
        self.core.by_heat(limit, true)
    }

    /// Returns at most `limit` entries, cloned: the least used ones, the coldest first. Ranked, and
    /// at the cost, of [`hottest`](Self::hottest).
    ///
    /// This is the order in which [`set_max_capacity`](Self::set_max_capacity) evicts. For the
    /// evictions that inserts make it is an approximation: these compare a few entries at a time,
    /// and the newest keys are among them. Measured on the next hundred of a thousand entries that
    /// were evicted: `coldest(100)` had named 73 where use followed Zipf's law, 75 where no entry
    /// was used twice, and 18 where all were used alike.
    pub fn coldest(&self, limit: usize) -> Vec<(K, V)>
    where
        K: Clone,
        V: Clone,
    {
        self.core.by_heat(limit, false)
    }

    /// Returns every key, cloned, in no particular order; weakly consistent as [`iter`](Self::iter)
    /// is.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// cache.insert(1, 10);
    /// assert!(cache.keys().eq([1]));
    /// ```
    pub fn keys(&self) -> impl Iterator<Item = K> + '_
    where
        K: Clone,
    {
        Keys::new(&self.core)
    }

    /// Does at once the work that ordinary calls and the janitor do in passing. It removes expired
    /// entries, tells the listener, drops unreachable values, and looks for fills that [run
    /// long](Builder::fill_timeout).
    ///
    /// Cost: without a TTL next to nothing; with one, a walk over the whole table.
    ///
    /// ```
    /// # use std::time::{Duration, Instant};
    /// # use atomic_cache::{Cache, ManualClock};
    /// # let clock = ManualClock::new();
    /// let cache: Cache<u32, u32> = Cache::builder()
    ///     .time_to_live(Duration::from_secs(1))
    ///     .clock(clock.clone())
    ///     .build()?;
    /// cache.insert(1, 10);
    /// clock.advance(Duration::from_secs(1));
    /// cache.run_pending_tasks();
    /// assert_eq!(cache.len(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn run_pending_tasks(&self) {
        self.core.purge();
        self.core.watch();
        self.core.tidy_all();
    }

    /// Returns the running fills, in no particular order, to show which are slow.
    ///
    /// Cost: a walk over the whole table, and a clone of the key of each fill. Blocks no other
    /// thread.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// cache.get_with(&1, || {
    ///     let running = cache.in_flight();
    ///     assert_eq!((running[0].key, running[0].waiters), (1, 0));
    ///     10
    /// });
    /// assert!(cache.in_flight().is_empty());
    /// ```
    pub fn in_flight(&self) -> Vec<InFlight<K>>
    where
        K: Clone,
    {
        self.core.in_flight()
    }

    /// [Abandons](Self#effects-on-a-running-fill) the running fill of a key, and lets one waiter
    /// start its own. Never waits. Returns `false` if no fill of the key was running.
    ///
    /// The result of the abandoned fill goes to its own caller, and is not cached. (If the fill
    /// ends at that very moment, the callers that had joined get it too.)
    ///
    /// If the fill was a refresh, reads go on getting the value it was to replace. An abandoned
    /// compute has no effect, and answers [`Superseded`](crate::CompResult::Superseded). An async
    /// fill that the cache owns is dropped. After this call two fills of the key may run beside
    /// each other: that is its purpose.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// let stuck = cache.get_with(&1, || {
    ///     assert!(cache.takeover(&1));
    ///     assert_eq!(cache.get_with(&1, || 11), 11); // a new fill
    ///     10
    /// });
    /// assert_eq!((stuck, cache.get(&1)), (10, Some(11)));
    /// ```
    pub fn takeover<Q>(&self, key: &Q) -> bool
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        let is_key = |other: &K| key.equivalent(other);
        self.core.take_over(self.core.hash(key), &is_key)
    }

    /// Closes the cache, for all its handles. It refuses fills from now on with a
    /// [`ClosedError`](crate::ClosedError), waits for the running ones, and stops the
    /// [janitor](Builder::purge_interval).
    ///
    /// Entries can still be read and removed, and `insert` puts values in. Computes, refreshes and
    /// placeholder guards are refused.
    ///
    /// Twins: [`close_async`](Self::close_async) blocks no thread while it waits for fills;
    /// [`close_within`](Self::close_within) bounds the wait, and does not wait for them if the time
    /// is zero.
    ///
    /// It does not wait for fills that were [abandoned](Self::takeover) before, or detached without
    /// a wait ([`invalidate_nowait`](Self::invalidate_nowait)). Those on threads run to their end,
    /// and their callers get the values.
    ///
    /// While it waits for an async fill that the cache owns, this thread polls the fill too: call
    /// it where the fill finds its runtime (inside a tokio runtime's `enter`, say).
    ///
    /// Called from inside a fill, it does not wait for that fill, nor for the janitor's round,
    /// which may wait for it. Called from inside that round (by a listener), it does not wait for
    /// the round. You need not call it before you drop the last handle.
    ///
    /// # Panics
    /// If it would have to wait where [a thread may not wait](Self#where-a-thread-may-not-wait).
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// cache.insert(1, 10);
    /// cache.close();
    /// assert_eq!(cache.get_with(&1, || 11), 10);
    /// let refused = cache.try_get_with(&2, || Ok::<_, ()>(20));
    /// assert!(matches!(refused, Err(atomic_cache::TryGetError::Closed(_))));
    /// ```
    #[track_caller]
    pub fn close(&self) {
        self.core.close(None, &verbs::CLOSE);
    }

    /// Closes the cache as [`close`](Self::close) does, but waits no longer than `timeout`. Then it
    /// [abandons](Self::takeover) the fills that still run, and refuses their waiters. Returns the
    /// number of abandoned fills.
    ///
    /// It checks the time whenever a fill that this thread polls is pending; a poll that keeps the
    /// thread busy is not interrupted. Twin: [`close_async_until`](Self::close_async_until) blocks
    /// no thread while it waits for fills.
    ///
    /// # Panics
    /// As [`close`](Self::close), unless `timeout` is zero.
    #[track_caller]
    pub fn close_within(&self, timeout: Duration) -> usize {
        // A timeout too long for the clock is none.
        let until = Instant::now().checked_add(timeout);
        self.core.close(until, &verbs::CLOSE_WITHIN)
    }

    /// Returns whether the cache has been [closed](Self::close).
    pub fn is_closed(&self) -> bool {
        self.core.is_closed()
    }

    /// Returns every entry, cloned, in no particular order.
    ///
    /// Weakly consistent, and blocks no other thread. An entry that is there from start to end is
    /// seen exactly once, also while the table is resized; one that comes or goes may be seen or
    /// not. Does not count as a use of the entries. Holds no pin between two items.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// (0..10).for_each(|i| cache.insert(i, i * i));
    /// assert_eq!(cache.iter().map(|(_, square)| square).sum::<u32>(), 285);
    /// ```
    pub fn iter(&self) -> Iter<'_, K, V, S>
    where
        K: Clone,
        V: Clone,
    {
        Iter {
            core: &self.core,
            from: Some(0),
            batch: VecDeque::new(),
        }
    }

    /// Returns a guard that holds one epoch pin for many look-ups, and lends values without cloning
    /// them.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<String, u32> = atomic_cache::Cache::unbounded();
    /// cache.insert("spam".to_owned(), 1);
    /// let view = cache.pin();
    /// assert_eq!(view["spam"], 1);
    /// assert_eq!(view.get("eggs"), None);
    /// ```
    pub fn pin(&self) -> Pinned<'_, K, V, S> {
        Pinned::new(self)
    }

    /// Returns the counts of all events so far. Hits and misses are counted only if the cache was
    /// built with [`record_stats`](Builder::record_stats).
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// cache.get_with(&1, || 10);
    /// assert_eq!(cache.stats().fills, 1);
    /// ```
    pub fn stats(&self) -> CacheStats {
        self.core.stats()
    }

    /// Returns the number of removed objects that are not dropped yet: because many are being
    /// removed and their batch is not full, or because a reader may still see them.
    ///
    /// The leftovers of an idle cache are dropped by the next removal or miss, by
    /// [`run_pending_tasks`](Self::run_pending_tasks), or by [`quiesce`](Self::quiesce).
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// cache.insert(1, 10);
    /// cache.invalidate(&1);
    /// cache.quiesce();
    /// assert_eq!(cache.retired(), 0);
    /// ```
    pub fn retired(&self) -> usize {
        self.core.retired()
    }

    /// Waits until all values that were removed before the call have been dropped. First tells the
    /// listener of the removals that it has not heard of yet.
    ///
    /// It blocks while other threads hold pinned guards, or run [`with`](Self::with), of any cache;
    /// for ever if a guard was leaked (`mem::forget`). In a task it blocks too, [without a
    /// panic](Self#where-a-thread-may-not-wait), and it has no `_async` twin: call it in your
    /// runtime's `spawn_blocking`.
    ///
    /// Where that could hang, it waits for less:
    ///
    /// * Called from inside a fill, it does not wait, because a reader may be waiting for that
    ///   fill. It drops as much as it can; [`retired`](Self::retired) says when the rest goes.
    /// * Called from the `Drop` of a value that a cache is dropping, of whichever cache, or while
    ///   its thread unwinds, it returns at once.
    /// * Called from inside a listener, of whichever cache, it does not wait for the entry that the
    ///   listener is being told of.
    ///
    /// # Panics
    /// If this thread itself holds a pinned guard: it would wait for itself.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// let cache: atomic_cache::Cache<u32, Arc<u32>> = atomic_cache::Cache::unbounded();
    /// let value = cache.get_with(&1, || Arc::new(10));
    /// cache.invalidate(&1);
    /// cache.quiesce();
    /// assert_eq!(Arc::strong_count(&value), 1);
    /// ```
    #[track_caller]
    pub fn quiesce(&self) {
        self.core.quiesce();
    }

    /// Returns the name that the builder was given.
    ///
    /// ```
    /// let cache: atomic_cache::Cache<u32, u32> =
    ///     atomic_cache::Cache::builder().name("users").build()?;
    /// assert_eq!(cache.name(), Some("users"));
    /// # Ok::<(), atomic_cache::BuildError>(())
    /// ```
    pub fn name(&self) -> Option<&str> {
        self.core.name()
    }
}

impl<'c, K: Hash + Eq + Clone, V: Clone, S: BuildHasher> IntoIterator for &'c Cache<K, V, S> {
    type Item = (K, V);
    type IntoIter = Iter<'c, K, V, S>;

    fn into_iter(self) -> Iter<'c, K, V, S> {
        self.iter()
    }
}

/// The fill of `optionally_get_with` found no value.
#[derive(Clone, Copy)]
pub(crate) struct NoValue;

/// The value of a fill that cannot fail; a cycle or a closed cache is a panic.
#[track_caller]
pub(crate) fn sure<T>(result: Result<T, TryGetError<Infallible>>) -> T {
    match result {
        Ok(value) => value,
        Err(TryGetError::Cycle(cycle)) => panic!("{cycle}"),
        Err(TryGetError::Closed(closed)) => panic!("{closed}"),
        Err(TryGetError::Fill(never)) => match never {},
    }
}

// As of `Cache`: an iterator goes on after a clone that panicked.
impl<K, V, S> std::panic::UnwindSafe for Iter<'_, K, V, S> {}
impl<K, V, S> std::panic::RefUnwindSafe for Iter<'_, K, V, S> {}

/// The entries of a cache: see [`Cache::iter`].
pub struct Iter<'c, K, V, S = DefaultHashBuilder> {
    core: &'c Core<K, V, S>,
    from: Option<u64>,
    batch: VecDeque<(K, V)>,
}

impl<K: Hash + Eq + Clone, V: Clone, S: BuildHasher> Iterator for Iter<'_, K, V, S> {
    type Item = (K, V);

    fn next(&mut self) -> Option<(K, V)> {
        while self.batch.is_empty() {
            let pin = pin();
            // A clone that panics leaves the walk where it was.
            let mut batch = VecDeque::new();
            self.from = self.core.stretch(self.from?, &pin, &mut |key, value| {
                batch.push_back((key.clone(), value.clone()));
            });
            self.batch = batch;
        }
        self.batch.pop_front()
    }
}

/// The keys of a cache: see [`Cache::keys`].
struct Keys<'c, K, V, S> {
    core: &'c Core<K, V, S>,
    from: Option<u64>,
    batch: VecDeque<K>,
}

impl<'c, K, V, S> Keys<'c, K, V, S> {
    fn new(core: &'c Core<K, V, S>) -> Self {
        Self {
            core,
            from: Some(0),
            batch: VecDeque::new(),
        }
    }
}

impl<K: Hash + Eq + Clone, V, S: BuildHasher> Iterator for Keys<'_, K, V, S> {
    type Item = K;

    fn next(&mut self) -> Option<K> {
        while self.batch.is_empty() {
            let pin = pin();
            let mut batch = VecDeque::new();
            self.from = self.core.stretch(self.from?, &pin, &mut |key, _| {
                batch.push_back(key.clone());
            });
            self.batch = batch;
        }
        self.batch.pop_front()
    }
}

impl<K, V, S> fmt::Debug for Iter<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").finish_non_exhaustive()
    }
}
