//! [`Cache`]: the blocking verbs. Each is a short loop around one step of the core.

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

/// The hasher a cache has unless it is given another: foldhash, as in hashbrown. Fast, seeded
/// once a process, and not meant to withstand an attacker who can watch timings: for keys that
/// strangers choose, give [`Builder::hasher`] a `std::hash::RandomState`.
pub type DefaultHashBuilder = foldhash::fast::RandomState;

/// A concurrent map that computes each value once, and is filled call by call.
///
/// A `Cache` is a handle: [`Clone`] is one reference count and shares the cache. For a cache that
/// always fills in the same way see [`AtomicCache`](crate::AtomicCache); for a table of the verbs
/// [`which_verb`](crate::which_verb).
///
/// # What a caller can rely on
/// * One flight a key: of all who ask for a key that is not there, whichever verb they use, one
///   runs its fill, and the others wait for that one result.
/// * `invalidate` beats a running fill: see [`invalidate`](Self::invalidate).
/// * No foreign code (fill, `Drop`, waker) runs with anything of the cache held. `Hash`, `Eq` and
///   `Clone` run under an epoch pin. Any of them may panic: the cache stays usable.
/// * A fill may ask the cache for other keys. A wait that would never end is an error that names
///   the keys: the `try_` verbs return it, the others panic with it.
///
/// # Where a thread may not wait
/// A thread that sleeps inside a task may be the one that would have to end what it waits for: then the runtime hangs. So
/// a method that would have to sleep there until a fill ends panics before it sleeps. It names its twins: the one that
/// ends in `_async`, and the one that does not wait. It does so
/// * always, inside a poll, the creation or the drop of one of this crate's futures, async fills included, on whichever
///   thread they are polled;
/// * with the feature `tokio`, wherever tokio forbids to block: in tasks and under `block_on`, not in `spawn_blocking`
///   and `block_in_place`. This crate asks tokio by a call that panics there, so tokio's own message, "Cannot block the
///   current thread from within a runtime", comes first: **read the second one**. (With `panic = "abort"` there is only
///   the first.)
///
/// A call that hits does not sleep, and is not refused; nor is one that runs the fill itself, unless that is a future which
/// is pending, nor one whose wait would close a cycle, which is an error of its own. A removal that panics in this way has
/// taken effect all the same: the fills that it would have waited for are detached. A removal on a thread that unwinds goes on without its wait.
///
/// Not refused, because it is not a fill that they wait for: [`quiesce`](Self::quiesce), and the end of a cache's
/// [janitor](Builder::purge_interval). In a task they block its thread; give them to `spawn_blocking`.
///
/// # What becomes of a fill that runs
/// Each method that changes a key says what it does to a fill of that key, in one of these words:
///
/// | the fill is | by | who has joined gets | who asks next |
/// |---|---|---|---|
/// | **detached** | removals that wait, such as [`invalidate`](Self::invalidate) | its value | waits until it has ended, then runs its own |
/// | **cut off** | removals that do not, such as [`invalidate_nowait`](Self::invalidate_nowait) | its value | runs its own at once, beside it |
/// | **replaced** | [`insert`](Self::insert) | the inserted value, at once | gets the inserted value |
/// | **given up** | [`takeover`](Self::takeover), [`fill_timeout`](Builder::fill_timeout) | the value of one of them, who runs its own | the same |
///
/// In none of these does the cache keep what the fill computes. The caller that runs the fill gets it all the same.
///
/// # Costs
/// A hit takes no lock and writes nothing that other threads read: a hash, a pin (a nanosecond; 11 where there is
/// no `membarrier`), a probe of the table, a clone of the value: [`how_a_hit_works`](crate::how_a_hit_works). A
/// fill without waiters allocates nothing but, now and then, a chunk of slots; the first waiter allocates the
/// meeting place. Removing costs a compare-and-swap and a push to a queue. What has become unreachable is dropped at
/// once where little is removed, and else by every so many (32 to 256, by the capacity; where entries are weighed, when
/// they weigh a thirty-second of it), for some microseconds and what the destructors take.
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
/// A value that is held inline (`[u8; 100_000]`, and not a `Box`, `Vec` or `Arc` of one) is moved and cloned on the
/// stack of whoever calls. Of a value of N bytes these methods take up to so many times N of stack, on top of
/// what the fill itself takes, in a release build; in a debug build up to seven times as much:
///
/// | method | times N |
/// |---|---|
/// | `insert`, `get`, `with` and the guard of `pin`; [`AtomicCache::with`](crate::AtomicCache::with) | 2 |
/// | `get_with`, `try_get_with`, `with_async` | 3 |
/// | `optionally_get_with`, `and_compute_with`, [`AtomicCache::get`](crate::AtomicCache::get) | 4 |
/// | `or_insert_with`, guards | 5 |
/// | `get_with_async`, `or_insert_with_async`, `get_async` | 5 |
/// | `and_compute_with_async`, guards of tasks | 8 |
///
/// What is left of a thread's stack is for the fill: of the 2 MiB that a thread of std or tokio has, `get_with_async` of
/// 256 KiB inline takes more than half. **Put what is larger than some KiB into a `Box` or an `Arc`.**
///
/// Keys and values may borrow, from what outlives the cache:
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
/// It is [`Send`] and [`Sync`] when keys and values are both:
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
    /// Makes another handle on the same cache; one reference count.
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
    /// Lets go of the cache. The last handle drops everything before this returns, and ends the
    /// [janitor](Builder::purge_interval), waiting for its round; in a fill, in a listener, or in the `Drop` of a
    /// value, it does not wait, because the round might wait for that: then the janitor drops what is left.
    fn drop(&mut self) {
        // What has been removed may hold handles: the last ones, perhaps.
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

// A panic of foreign code leaves the cache usable: that is part of the contract.
impl<K, V, S> std::panic::UnwindSafe for Cache<K, V, S> {}
impl<K, V, S> std::panic::RefUnwindSafe for Cache<K, V, S> {}

impl<K: Hash + Eq + fmt::Debug, V> Cache<K, V> {
    /// Makes a cache for at most so many entries, without expiry: a
    /// [`max_capacity`](Builder::max_capacity), which has the details, and nothing else. Weights, lifetimes and
    /// all else are settled with a [`builder`](Self::builder).
    ///
    /// Keys are asked to be [`Debug`](fmt::Debug) as by [`unbounded`](Self::unbounded).
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

    /// Makes a cache without a bound and without expiry.
    ///
    /// Keys are asked to be [`Debug`](fmt::Debug) because cycle errors name them; for others see
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
    /// A cache without a bound, whose entries live so long.
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
    /// Returns the settings for a cache.
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
    /// Returns the value of a key, if it is there. Never fills, never waits; `None` while the key's first
    /// fill runs.
    ///
    /// Cost: a hit, see [`Cache`]; clones the value. [`with`](Self::with) and
    /// [`pin`](Self::pin) lend it instead.
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

    /// The short way of a hit: most hits, and many misses.
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

    /// The pin of the short way, if this cache and this thread may take it.
    #[inline(always)]
    fn pin_for_hit(&self) -> Option<Brief> {
        if self.core.is_plain() {
            pin_briefly()
        } else {
            None
        }
    }

    /// What is not the short way of a hit.
    #[inline(never)]
    fn with_otherwise<Q, R>(&self, key: &Q, f: impl FnOnce(&V) -> R) -> Option<R>
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        self.core.look_up(self.core.hash(key), key, &pin()).map(f)
    }

    /// Shows the value of a key to `f`, if it is there, without cloning it. Never fills or waits.
    ///
    /// `f` runs under an epoch pin: while it does, nothing that is removed from any cache can be
    /// dropped, so keep it short. It may use the cache.
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

    /// Returns what [`get`](Self::get) would, and is not counted as a use of the entry: it changes neither the
    /// statistics nor, in a bounded cache, what is evicted next.
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

    /// Says whether a key is there. Never fills, never waits, is not a use of the entry; false while
    /// the key's first fill runs.
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
    /// Of all who ask at once one runs its fill; the others wait, and get a clone of the one
    /// value. If that fill panics, the panic goes on in its caller, and one of those who wait
    /// runs its own.
    ///
    /// Blocks while somebody else computes the value.
    ///
    /// # Panics
    /// With the text of a [`CycleError`](crate::CycleError) if waiting would never end, and of a
    /// [`ClosedError`](crate::ClosedError) if the cache has been closed; see
    /// [`try_get_with`](Self::try_get_with). If it would have to wait where [a thread may not
    /// wait](Self#where-a-thread-may-not-wait): take [`get_with_async`](Self::get_with_async) or [`get`](Self::get). And with
    /// whatever `fill` panics with.
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

    /// Does what [`get_with`](Self::get_with) does, with a fill that can fail.
    ///
    /// # Errors
    /// [`TryGetError::Fill`]: the fill's error, a clone of which goes to everyone who waits with a
    /// fill of the same error type. (Others run their own fill.) Errors are not cached.
    /// [`TryGetError::Cycle`]: the fill that this would wait for waits, by way of other keys, for
    /// a fill that this thread runs. [`TryGetError::Closed`]: the cache has been [closed](Self::close).
    ///
    /// # Panics
    /// If it would have to wait where [a thread may not wait](Self#where-a-thread-may-not-wait).
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

    /// Does what [`get_with`](Self::get_with) does, with a fill that may find that there is no value. `None`
    /// goes to everyone who waits, and is not cached.
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

    /// As [`fetch_by`](Self::fetch_by), by a closure.
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

    /// The one way of every verb that fills: look, or turn and wait, and read what is found.
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

    /// What is not the short way of a hit. `absent`: there is no need to look before turning.
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

    /// Waits for the value of a key, or takes on to compute it: a fill without a closure.
    ///
    /// Whoever gets the [`PlaceholderGuard`](crate::PlaceholderGuard) leads the key's flight, and
    /// everyone else who asks for the key waits for it: put a value in, or drop it. With a
    /// `timeout`, waits no longer than that; without, as long as it takes. A wait that closes a
    /// cycle is one for whoever comes second, also if this one would have ended by its timeout.
    ///
    /// # Panics
    /// If it would have to wait where [a thread may not wait](Self#where-a-thread-may-not-wait): take
    /// [`get_value_or_guard_async`](Self::get_value_or_guard_async), or a timeout of zero.
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

    /// Puts a value in, over whatever there is. Never waits.
    ///
    /// After it returns, reads see `value` or something newer. A fill of the key that runs is
    /// [replaced](Self#what-becomes-of-a-fill-that-runs): everyone who waits for it gets a clone of `value` now, and its own
    /// caller gets what it computed, which is not kept.
    ///
    /// The cache cannot keep a value that is heavier than the whole capacity ([`max_capacity`](Builder::max_capacity)), nor
    /// one whose weigher panics. Such a value goes to those who wait, and is dropped. It still takes the older value out,
    /// because what is served is never older than what was put in. The listener is told of the older one with
    /// [`RemovalCause::Size`](crate::RemovalCause::Size), and [`CacheStats::oversize`] counts the new one. To have it back use
    /// [`try_insert`](Self::try_insert).
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

    /// Puts a value in as [`insert`](Self::insert) does, and gives it back if the cache cannot keep it. Never waits.
    ///
    /// # Errors
    /// If the entry is heavier than the whole capacity, or its weigher panicked; the error has the value. The older value is
    /// gone then, as after `insert`. A fill of the key that runs is [cut off](Self#what-becomes-of-a-fill-that-runs): unlike
    /// with `insert`, those who have joined it get what it computes, because the value goes back to you.
    ///
    /// Without a [`weigher`](Builder::weigher) and [`max_bytes`](Builder::max_bytes) it fails in a cache of capacity
    /// zero only.
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

    /// Starts an operation on one key that is given away.
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

    /// Removes a key, and waits for a fill of it that runs. True if it has removed a value; one that had expired does not
    /// count.
    ///
    /// Its twins: [`invalidate_nowait`](Self::invalidate_nowait), which never waits, and
    /// [`invalidate_async`](Self::invalidate_async).
    ///
    /// It beats a running fill. First it [detaches](Self#what-becomes-of-a-fill-that-runs) it, then it waits until that has
    /// ended. After it returns, no call that starts later sees a value whose fill had started before `invalidate` was called.
    /// Those who have joined the fill still get its value. Those who ask while it runs wait for its end, and then one of them
    /// runs its own: fills of one key do not overlap.
    ///
    /// A [compute](EntrySelector::and_compute_with) that runs comes first, and the removal after it. Readers get the older
    /// value until the compute ends; then what it has put in is removed, and its caller is told that it was put in.
    ///
    /// Called from inside the very fill that it would have to wait for, it does what
    /// [`invalidate_nowait`](Self::invalidate_nowait) does. It does not wait for a fill that was cut off before.
    ///
    /// # Panics
    /// If it would have to wait where [a thread may not wait](Self#where-a-thread-may-not-wait). So do all removals
    /// that wait.
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

    /// Removes a key and never waits: it [cuts off](Self#what-becomes-of-a-fill-that-runs) a fill of it that runs. True if it
    /// has removed a value.
    ///
    /// Its twins, which wait for that fill: [`invalidate`](Self::invalidate) and [`invalidate_async`](Self::invalidate_async).
    ///
    /// It gives the same guarantee: no call that starts later sees a value whose fill had started before. Those who have joined
    /// the fill still get its value. Who asks next runs its own at once, so two fills of the key may run beside each other.
    ///
    /// It comes before a [compute](EntrySelector::and_compute_with) that runs: it takes the value out that the compute has read,
    /// and the compute answers [`Superseded`](crate::CompResult::Superseded).
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

    /// Removes a key, waits for a fill of it that runs, and returns a clone of the value that was removed: see
    /// [`invalidate`](Self::invalidate).
    ///
    /// Its twins: [`remove_nowait`](Self::remove_nowait), which never waits, and
    /// [`remove_async`](Self::remove_async).
    ///
    /// Beside a [compute](EntrySelector::and_compute_with) that runs, it returns what the compute leaves. Where several
    /// removals wait for one compute, one of them returns that, and the others `None`.
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
        self.take(key, Some(&verbs::REMOVE), read);
        removed
    }

    /// Removes a key, never waits, and returns a clone of the value that was removed: see
    /// [`invalidate_nowait`](Self::invalidate_nowait).
    ///
    /// Its twins, which wait for a fill that runs: [`remove`](Self::remove) and [`remove_async`](Self::remove_async).
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

    /// Takes a key out; `verb` is the method that waits, if one does.
    #[track_caller]
    fn take<Q>(&self, key: &Q, verb: Option<&Verb>, read: &mut dyn FnMut(&V)) -> bool
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        let core = &*self.core;
        let hash = core.hash(key);
        let is_key = |other: &K| key.equivalent(other);
        let wait = verb.map(|_| actor());
        let (mut was_there, part) = core.fence(hash, &is_key, wait, Event::Explicit, read);
        if let Some((part, verb)) = part.zip(verb) {
            // What is removed by now is told of and dropped now.
            core.tidy();
            let left = part.again();
            was_there |= if part.wait(hash, None, verb).is_err() {
                core.give_up(hash, &left, read)
            } else {
                core.claim(&left, read)
            };
        }
        core.tidy();
        was_there
    }

    /// Removes every key, and waits for the fills that run when it comes by their keys. It gives the guarantee of
    /// [`invalidate`](Self::invalidate) for each: after it returns, no call that starts later sees a value that was inserted,
    /// or whose fill had started, before it was called.
    ///
    /// Its twins: [`invalidate_all_nowait`](Self::invalidate_all_nowait), which never waits, and
    /// [`invalidate_all_async`](Self::invalidate_all_async). Cost: a walk over the whole table.
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
        let fenced = core.fence_all(Some(actor()), None);
        let all = fenced.into_iter().map(|it| Awaited::new(it, actor()));
        Awaited::block_all(all.collect(), None, verb, &mut |fenced, is_cycle| {
            if is_cycle {
                core.give_up(core.hash(fenced.part.key()), &fenced.part, &mut |_| {});
            }
            None
        });
        core.tidy_all();
    }

    /// Removes every key and never waits: it cuts off the fills that run, as
    /// [`invalidate_nowait`](Self::invalidate_nowait) does.
    ///
    /// Its twins, which wait for those fills: [`invalidate_all`](Self::invalidate_all) and
    /// [`invalidate_all_async`](Self::invalidate_all_async). Cost: a walk over the whole table.
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
        self.core.fence_all(None, None);
        self.core.tidy_all();
    }

    /// Removes every key, and waits for the fills that run: another name for
    /// [`invalidate_all`](Self::invalidate_all), the one that std's maps have.
    ///
    /// Its twins: [`clear_nowait`](Self::clear_nowait), which never waits, and [`clear_async`](Self::clear_async).
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
    /// Its twins, which wait for fills that run: [`clear`](Self::clear) and [`clear_async`](Self::clear_async).
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

    /// Removes every key whose value `which` picks, and waits for the fills of these keys that run. It gives the guarantee of
    /// [`invalidate`](Self::invalidate) for each.
    ///
    /// Its twins: [`invalidate_if_nowait`](Self::invalidate_if_nowait), which never waits, and
    /// [`invalidate_if_async`](Self::invalidate_if_async).
    ///
    /// It judges the value that a key has when it comes by. For a key whose fill runs then, it depends:
    ///
    /// * A first fill has no value that could be judged. It is [detached](Self#what-becomes-of-a-fill-that-runs) **whatever
    ///   `which` picks**, and not waited for: those who have joined it get its value, and the cache does not keep it.
    /// * A [refresh](crate::AtomicCache::refresh) over a value that is picked: that is removed, and the refresh waited for.
    /// * A refresh over a value that is not picked: is waited for, and then the newer value is judged. (Called from inside that
    ///   refresh, it gives it up instead.)
    /// * A [compute](EntrySelector::and_compute_with) over a value that is picked: is waited for, and what it leaves is removed,
    ///   as by [`remove`](Self::remove).
    /// * A compute over a value that is not picked, or over none: is left alone, and comes after.
    ///
    /// `which` runs under an epoch pin. Cost: a walk over the whole table.
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
        let fenced = core.fence_all(Some(actor()), Some(&mut which));
        let all = fenced.into_iter().map(|it| Awaited::new(it, actor()));
        let verb = &verbs::INVALIDATE_IF;
        Awaited::block_all(all.collect(), None, verb, &mut |fenced, is_cycle| {
            core.judge_ended(fenced, is_cycle, actor(), &mut which)
        });
        core.tidy_all();
    }

    /// Removes every key whose value `which` picks, and never waits: it cuts off the fills of these keys, as
    /// [`invalidate_nowait`](Self::invalidate_nowait) does.
    ///
    /// Its twins, which wait: [`invalidate_if`](Self::invalidate_if), which says what is judged, and
    /// [`invalidate_if_async`](Self::invalidate_if_async). A first fill, of a key without a value, is cut off whatever `which`
    /// picks. A refresh over a value that is not picked is given up, as by [`takeover`](Self::takeover): the older value stays.
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
        for fenced in core.fence_all(None, Some(&mut which)) {
            let hash = core.hash(fenced.part.key());
            core.give_up_unjudged(hash, &fenced.part, &mut which);
        }
        core.tidy_all();
    }

    /// Counts the entries. A moment behind or, in a bounded cache, ahead while others write; entries that
    /// have expired count until they are reclaimed, fills that run do not.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// cache.insert(1, 10);
    /// assert_eq!(cache.len(), 1);
    /// ```
    pub fn len(&self) -> usize {
        self.core.len()
    }

    /// Says whether there are no entries; see [`len`](Self::len).
    ///
    /// ```
    /// assert!(atomic_cache::Cache::<u32, u32>::unbounded().is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the most the cache may hold: see [`Builder::max_capacity`]. `None`: it is unbounded. With a
    /// weigher and no bound it is `u64::MAX`.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// assert_eq!(cache.capacity(), None);
    /// ```
    pub fn capacity(&self) -> Option<u64> {
        self.core.capacity()
    }

    /// Returns what all entries weigh together; without a [`weigher`](Builder::weigher), how many there
    /// are. It exceeds the [`capacity`](Self::capacity) by no more than what is being put in and taken out at that moment: an
    /// entry counts from before it can be seen until its removal is complete. What was removed and is not dropped yet does not
    /// count: see [`retired`](Self::retired).
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

    /// Returns what the entry of a key weighs; without a [`weigher`](Builder::weigher), one. `None`: it is
    /// not there. Not a use of the entry.
    pub fn weight<Q>(&self, key: &Q) -> Option<u64>
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        self.core.weight(self.core.hash(key), key)
    }

    /// Changes the capacity of a cache that has one. If that makes it less, what is too much is
    /// evicted before the call returns (a fill that is running is not).
    ///
    /// What has expired goes first, then what was used least. What is used by another thread meanwhile may go with the rest.
    ///
    /// Cost: of making it less, three walks over the table, some tens of nanoseconds an entry, and each eviction; of
    /// making it more, that of the table's growth, when the entries come.
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

    /// Does what [`set_max_capacity`](Self::set_max_capacity) does, for a cache whose capacity is in bytes: see
    /// [`Builder::max_bytes`].
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
    /// It is not a method of a [view](Self::pin), and works beside one. False:
    /// it is not there.
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

    /// Makes the entry of a key the first to be evicted, unless it is used before. False: it is
    /// not there.
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

    /// Returns at most `limit` entries, cloned: the most used ones, the hottest first. Of a cache without a bound, any.
    ///
    /// They are ranked by how often they were used, lately, as far as the cache counts that: up to seven times. Entries
    /// of one rank come in no particular order. See [`coldest`](Self::coldest) for what that tells of evictions.
    ///
    /// Cost: a walk over the whole table, and clones of the entries that are, for the time being,
    /// among the hottest. Not a use of the entries. Blocks nobody.
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

    /// Returns at most `limit` entries, cloned: the least used ones, the coldest first. As [`hottest`](Self::hottest), the
    /// other way round.
    ///
    /// This is the order in which [`set_max_capacity`](Self::set_max_capacity) takes entries out. For the evictions that
    /// inserts make it is an approximation: these compare a few entries at a time, and the newest keys are among them. Of
    /// the next hundred of a thousand entries that went, `coldest(100)` had named 73 where use followed Zipf's law, 75 where
    /// nothing was used twice, and 18 where all were used alike.
    pub fn coldest(&self, limit: usize) -> Vec<(K, V)>
    where
        K: Clone,
        V: Clone,
    {
        self.core.by_heat(limit, false)
    }

    /// Returns every key, cloned, in no particular order; weakly consistent as [`iter`](Self::iter) is.
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

    /// Does at once what ordinary traffic and the janitor do in passing: removes what has expired, tells
    /// the listener, drops what nobody can see any more, and looks for fills that
    /// [run long](Builder::fill_timeout).
    ///
    /// Cost: without a lifetime next to nothing, with one a walk over the whole table.
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

    /// Returns the fills that are running, in no particular order: for a look at what is slow.
    ///
    /// Cost: a walk over the whole table, and a clone of each such key. Blocks nobody.
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

    /// [Gives up](Self#what-becomes-of-a-fill-that-runs) a fill that is stuck: has one of those who wait run its own. What
    /// the old one comes to after all goes to its own caller (and to those who had joined, if it comes
    /// to it at that very moment), and is not kept. False: no fill of the key was running.
    ///
    /// A value that was being served while the fill ran, of a refresh, goes on being served. A compute that is given up
    /// has no effect, and answers [`Superseded`](crate::CompResult::Superseded). An async
    /// fill that its flight keeps is dropped. Two fills of the key may run beside each other after
    /// this: that is what it is for. Waits for nobody.
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

    /// Closes the cache, for all its handles: refuses fills from now on with a
    /// [`ClosedError`](crate::ClosedError), waits for those that run, and stops the
    /// [janitor](Builder::purge_interval). What is in it can still be read and removed, and `insert` puts
    /// in; computes, refreshes and guards are refused.
    ///
    /// Not waited for: fills that were cut off ([`invalidate_nowait`](Self::invalidate_nowait)) or [given
    /// up](Self::takeover) before. Those on threads run to their end, and their callers get their
    /// values.
    ///
    /// Of an async fill that its flight keeps this thread polls too while it waits: call it where the fill
    /// finds its runtime (inside a tokio runtime's `enter`, say).
    ///
    /// # Panics
    /// If it would have to wait where [a thread may not wait](Self#where-a-thread-may-not-wait): take
    /// [`close_async`](Self::close_async), or [`close_within`](Self::close_within) with no time.
    ///
    /// Dropping the last handle needs none of this. Called from inside a fill, it does not wait for
    /// that, nor for the janitor's round, which may wait for it; from inside that round (by a listener), not for the
    /// round.
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

    /// Does what [`close`](Self::close) does, and waits no longer than `timeout`: fills that run then are [given
    /// up](Self::takeover), and those who wait for them are refused. Returns how many those were.
    ///
    /// The time is looked at whenever a fill that this thread polls is pending: one that keeps it busy does not hold it up.
    ///
    /// # Panics
    /// As [`close`](Self::close), unless `timeout` is zero.
    #[track_caller]
    pub fn close_within(&self, timeout: Duration) -> usize {
        // A timeout too long for the clock is none.
        let until = Instant::now().checked_add(timeout);
        self.core.close(until, &verbs::CLOSE_WITHIN)
    }

    /// Says whether the cache has been [closed](Self::close).
    pub fn is_closed(&self) -> bool {
        self.core.is_closed()
    }

    /// Returns every entry, cloned, in no particular order.
    ///
    /// Weakly consistent, and blocks nobody: an entry that is there from start to end is seen
    /// exactly once, also while the table grows; one that comes or goes may be seen or not. Not
    /// a use of the entries. Holds no pin between two items.
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

    /// Makes a view that holds one epoch pin for many look-ups, and lends values without cloning them.
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

    /// Returns what has happened so far. Hits and misses are counted only if the builder was told to
    /// [`record_stats`](Builder::record_stats).
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// cache.get_with(&1, || 10);
    /// assert_eq!(cache.stats().fills, 1);
    /// ```
    pub fn stats(&self) -> CacheStats {
        self.core.stats()
    }

    /// Counts the removed objects that are not dropped yet: because many are removed just now and their batch is not full, or
    /// because a reader may still see them. What an idle cache has left goes with the next removal or miss, with
    /// [`run_pending_tasks`](Self::run_pending_tasks), or with [`quiesce`](Self::quiesce).
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

    /// Waits until everything that was removed before the call has been dropped.
    ///
    /// First it tells the listener of what that has not been told of.
    ///
    /// It blocks while other threads hold pinned views, or run [`with`](Self::with), of any cache; for ever if a view was
    /// leaked (`mem::forget`). In a task it blocks too, [without a panic](Self#where-a-thread-may-not-wait), and it has no
    /// `_async` twin: call it in your runtime's `spawn_blocking`.
    ///
    /// Where that could hang, it waits for less:
    ///
    /// * Called from inside a fill, it does not wait, because a reader may be waiting for that fill. It drops what it can, and
    ///   the rest goes as [`retired`](Self::retired) says.
    /// * Called from the `Drop` of a value that a cache is dropping, of whichever cache, or while its thread unwinds, it returns
    ///   at once.
    /// * Called from inside a listener, of whichever cache, it does not wait for what that is being told of.
    ///
    /// # Panics
    /// If this thread itself holds a pinned view: it would wait for itself.
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

/// The fill of `optionally_get_with` found nothing.
#[derive(Clone, Copy)]
pub(crate) struct NoValue;

/// The value of a fill that cannot fail, or a panic with the cycle it met.
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
