//! [`AtomicCache`]: a [`Cache`] plus its own fill.

use crate::blocking::verbs;
use crate::builder::Builder;
use crate::byte_size::ByteSize;
use crate::cache::{Cache, DefaultHashBuilder, Iter, sure};
use crate::core::{Aim, Blank, Glance, Leader, Wait};
use crate::error::{BuildError, TryGetError};
use crate::fill::{Explain, Fill, Keeper, Obstacle, OwnError};
use crate::flight::SharedError;
use crate::in_flight::InFlight;
use crate::key::{Equivalent, ToKey};
use crate::pinned::AtomicPinned;
use crate::stats::CacheStats;
use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::time::Duration;

/// How a cache's values are computed.
pub(crate) enum StoredFill<K, V, E, S> {
    /// By a call, on the leader's thread.
    Call(Box<dyn Fn(&AtomicCache<K, V, E, S>, &K) -> Result<V, E> + Send + Sync>),
    /// By a future, which this makes and hands to the flight to own.
    Future(Box<dyn Keep<K, V, E, S>>),
}

/// Makes the fill of a flight, and stores it in the flight.
pub(crate) trait Keep<K, V, E, S>: Send + Sync {
    fn keep<'c>(
        &self,
        cache: &AtomicCache<K, V, E, S>,
        leader: Leader<'c, K, V, S>,
    ) -> Wait<'c, K, V, S>
    where
        K: Hash + Eq,
        S: BuildHasher;
}

/// A cache that knows how its values are computed: [`get`](Self::get) computes absent ones.
///
/// Its methods are those of a [`Cache`]: see [`which_verb`](crate::which_verb). Settings come from
/// [`builder`](AtomicCache::builder), which names the types of key and value only; the error type
/// is the fill's.
///
/// It is a handle of a [`Cache`] together with a fill, and is shared by [`Clone`]. Its guarantees
/// and its costs are those of [`Cache`]; the fill is called by pointer, on misses only.
///
/// There is no `insert`: an assignment would race the fill.
///
/// ```compile_fail
/// let cache = atomic_cache::AtomicCache::new(|n: &u64| n * n, None);
/// cache.insert(2, 5);
/// ```
///
/// It is [`Send`] and [`Sync`] when keys and values are both:
///
/// ```
/// fn shared<T: Send + Sync>(_: T) {}
/// shared(atomic_cache::AtomicCache::new(|n: &u64| n.to_string(), None));
/// ```
/// ```compile_fail
/// fn shared<T: Send>(_: T) {}
/// shared(atomic_cache::AtomicCache::new(|n: &u64| std::rc::Rc::new(*n), None));
/// ```
/// ```compile_fail
/// fn shared<T: Sync>(_: T) {}
/// shared(atomic_cache::AtomicCache::new(|n: &u64| std::cell::Cell::new(*n), None));
/// ```
///
/// Its type can be named, in a struct or a static:
///
/// ```
/// use std::sync::LazyLock;
/// use std::time::Duration;
/// use atomic_cache::AtomicCache;
///
/// static SQUARES: LazyLock<AtomicCache<u64, u64>> =
///     LazyLock::new(|| AtomicCache::new(|n| n * n, Duration::from_secs(60)));
/// assert_eq!(SQUARES.get(&12), 144);
/// ```
pub struct AtomicCache<K, V, E = Infallible, S = DefaultHashBuilder> {
    pub(crate) cache: Cache<K, V, S>,
    fill: Arc<StoredFill<K, V, E, S>>,
}

impl<K, V, E, S> Clone for AtomicCache<K, V, E, S> {
    /// Makes another handle on the same cache; costs two reference counts.
    fn clone(&self) -> Self {
        Self {
            cache: self.cache.clone(),
            fill: Arc::clone(&self.fill),
        }
    }
}

impl<K, V, E, S> fmt::Debug for AtomicCache<K, V, E, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtomicCache")
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

// As of `Cache`: a panic of the fill leaves the cache usable.
impl<K, V, E, S> std::panic::UnwindSafe for AtomicCache<K, V, E, S> {}
impl<K, V, E, S> std::panic::RefUnwindSafe for AtomicCache<K, V, E, S> {}

impl<K: Hash + Eq + fmt::Debug, V> AtomicCache<K, V> {
    /// Makes a cache of the values that `fill` computes. Each is served for `ttl` from when it was
    /// computed; `None`: for ever.
    ///
    /// For more settings see [`builder`](Self::builder). Keys have to be [`Debug`](fmt::Debug)
    /// because cycle errors name them; for others see [`Builder::opaque_keys`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use atomic_cache::AtomicCache;
    ///
    /// let lengths = AtomicCache::new(|text: &String| text.len(), Duration::from_secs(60));
    /// assert_eq!(lengths.get("spam"), 4);
    ///
    /// let squares = AtomicCache::new(|n: &u64| n * n, None);
    /// assert_eq!(squares.get(&3), 9);
    /// ```
    pub fn new(
        fill: impl Fn(&K) -> V + Send + Sync + 'static,
        ttl: impl Into<Option<Duration>>,
    ) -> Self {
        Self::recursive(move |_, key| fill(key), ttl)
    }

    /// Makes a cache as [`new`](Self::new) does, with a fill that may ask the cache for other keys,
    /// to any depth.
    ///
    /// Each level of the recursion takes some of the thread's stack: see
    /// [`memoize!`](macro@crate::memoize).
    ///
    /// ```
    /// use atomic_cache::AtomicCache;
    ///
    /// let fib = AtomicCache::recursive(
    ///     |fib, &n: &u64| if n < 2 { n } else { fib.get(&(n - 1)) + fib.get(&(n - 2)) },
    ///     None,
    /// );
    /// assert_eq!(fib.get(&90), 2_880_067_194_370_816_120);
    /// ```
    pub fn recursive(
        fill: impl Fn(&Self, &K) -> V + Send + Sync + 'static,
        ttl: impl Into<Option<Duration>>,
    ) -> Self {
        Self::with_ttl(move |cache, key| Ok(fill(cache, key)), ttl.into())
    }
}

impl<K: Hash + Eq + fmt::Debug, V, E> AtomicCache<K, V, E> {
    /// Makes a cache as [`new`](AtomicCache::new) does, with a fill that can fail: see
    /// [`try_get`](Self::try_get).
    ///
    /// An error that is not `Clone` goes into an `Arc`: `.map_err(Arc::new)`.
    ///
    /// ```
    /// use atomic_cache::{AtomicCache, TryGetError};
    ///
    /// let ports = AtomicCache::try_new(|text: &String| text.parse::<u16>(), None);
    /// assert_eq!(ports.try_get("80"), Ok(80));
    /// assert!(matches!(ports.try_get("eighty"), Err(TryGetError::Fill(_))));
    /// ```
    pub fn try_new(
        fill: impl Fn(&K) -> Result<V, E> + Send + Sync + 'static,
        ttl: impl Into<Option<Duration>>,
    ) -> Self
    where
        E: Clone + Send + Sync + 'static,
    {
        Self::with_ttl(move |_, key| fill(key), ttl.into())
    }

    /// Makes a cache as [`try_new`](Self::try_new) does, with a fill that may ask the cache for
    /// other keys: see [`recursive`](AtomicCache::recursive).
    ///
    /// ```
    /// use atomic_cache::{AtomicCache, TryGetError};
    ///
    /// let factorials = AtomicCache::try_recursive(
    ///     |cache, &n: &u64| match n {
    ///         0 => Ok(1),
    ///         21.. => Err("too large"),
    ///         n => Ok(n * cache.try_get(&(n - 1)).map_err(|error| error.into_fill().unwrap())?),
    ///     },
    ///     None,
    /// );
    /// assert_eq!(factorials.try_get(&5), Ok(120));
    /// assert_eq!(factorials.try_get(&21), Err(TryGetError::Fill("too large")));
    /// ```
    pub fn try_recursive(
        fill: impl Fn(&Self, &K) -> Result<V, E> + Send + Sync + 'static,
        ttl: impl Into<Option<Duration>>,
    ) -> Self
    where
        E: Clone + Send + Sync + 'static,
    {
        Self::with_ttl(fill, ttl.into())
    }

    fn with_ttl(
        fill: impl Fn(&Self, &K) -> Result<V, E> + Send + Sync + 'static,
        ttl: Option<Duration>,
    ) -> Self {
        Self::over(Cache::with_ttl(ttl), fill)
    }
}

impl<K, V> AtomicCache<K, V> {
    /// Returns the settings for a cache; end with [`build_with`](Builder::build_with).
    ///
    /// ```
    /// use atomic_cache::AtomicCache;
    ///
    /// let squares = AtomicCache::<u64, u64>::builder().name("squares").build_with(|n| n * n)?;
    /// assert_eq!(squares.get(&4), 16);
    /// # Ok::<(), atomic_cache::BuildError>(())
    /// ```
    pub fn builder() -> Builder<K, V> {
        Builder::new()
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> AtomicCache<K, V, Infallible, S> {
    /// Returns the value of a key, **computed if it is not there**.
    ///
    /// Of all callers that ask at once, one runs the fill. The others block, and get a clone of its
    /// value. If the fill panics, the panic goes on in its caller, and one of the waiters runs the
    /// fill again.
    ///
    /// Cost of a hit: see [`Cache`]. Twins: [`get_async`](Self::get_async) blocks no thread;
    /// [`peek`](Self::peek) and [`contains`](Self::contains) neither fill nor wait.
    ///
    /// # Panics
    /// * With the text of a [`CycleError`](crate::CycleError) if the wait would never end, and of a
    ///   [`ClosedError`](crate::ClosedError) if the cache has been closed;
    ///   [`try_get`](Self::try_get) returns both instead.
    /// * If it would have to wait where [a thread may not wait](Cache#where-a-thread-may-not-wait).
    /// * With the panic of the fill.
    ///
    /// ```
    /// let squares = atomic_cache::AtomicCache::new(|n: &u64| n * n, None);
    /// assert_eq!(squares.get(&5), 25);
    /// ```
    #[inline]
    #[track_caller]
    pub fn get<Q>(&self, key: &Q) -> V
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
        V: Clone,
    {
        match self.cache.glance(key, V::clone) {
            Glance::Found(value) => value,
            glance => self.get_otherwise(key, matches!(glance, Glance::Absent)),
        }
    }

    /// The slow path of a hit. `absent`: the first step needs no look-up before it.
    #[inline(never)]
    #[track_caller]
    fn get_otherwise<Q>(&self, key: &Q, absent: bool) -> V
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
        V: Clone,
    {
        let fill = Stored::new(self);
        sure(
            self.cache
                .fetch_otherwise(key, Aim::Value, absent, fill, V::clone, &verbs::GET),
        )
    }

    /// Shows the value of a key, **computed if it is not there**, to `f` without cloning it;
    /// returns the result of `f`.
    ///
    /// Waits as [`get`](Self::get) does; its twin [`with_async`](Self::with_async) blocks no
    /// thread. `f` runs under an epoch pin: see [`Cache::with`].
    ///
    /// # Panics
    /// As [`get`](Self::get), and with the panic of `f`.
    ///
    /// ```
    /// let words = atomic_cache::AtomicCache::new(|n: &usize| "spam ".repeat(*n), None);
    /// assert_eq!(words.with(&3, |text| text.len()), 15);
    /// ```
    #[inline]
    #[track_caller]
    pub fn with<Q, R>(&self, key: &Q, f: impl FnOnce(&V) -> R) -> R
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
    {
        let fill = Stored::new(self);
        sure(self.cache.fetch_by(key, Aim::Value, fill, f, &verbs::WITH))
    }

    /// Computes the value of a key anew, and returns the new one.
    ///
    /// While the fill runs, reads go on getting the old value, if there is one. If a fill of the
    /// key runs already, waits for that one, and takes its value. If the fill panics, the old value
    /// stays.
    ///
    /// Twin: [`refresh_async`](Self::refresh_async) blocks no thread.
    ///
    /// # Panics
    /// As [`get`](Self::get).
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    ///
    /// let calls = AtomicU32::new(0);
    /// let cache = atomic_cache::AtomicCache::new(move |_: &u32| calls.fetch_add(1, Relaxed), None);
    /// assert_eq!((cache.get(&1), cache.get(&1)), (0, 0));
    /// assert_eq!(cache.refresh(&1), 1);
    /// assert_eq!(cache.get(&1), 1);
    /// ```
    #[track_caller]
    pub fn refresh<Q>(&self, key: &Q) -> V
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
        V: Clone,
    {
        let fill = Stored::new(self);
        sure(
            self.cache
                .fetch_by(key, Aim::Refresh, fill, V::clone, &verbs::REFRESH),
        )
    }
}

impl<K, V, E, S> AtomicCache<K, V, E, S>
where
    K: Hash + Eq,
    S: BuildHasher,
    E: Clone + Send + Sync + 'static,
{
    /// Returns the value of a key, **computed if it is not there**, or the error of the fill.
    ///
    /// Waits as [`get`](AtomicCache::get) does; its twin [`try_get_async`](Self::try_get_async)
    /// blocks no thread. It is also for callers that want a cycle or a closed cache as an error.
    ///
    /// # Errors
    /// As [`Cache::try_get_with`]. All waiters get a clone of an error, and it is not cached. (To
    /// cache errors, let the value be a `Result`.)
    ///
    /// # Panics
    /// * If it would have to wait where [a thread may not wait](Cache#where-a-thread-may-not-wait).
    /// * With the panic of the fill.
    ///
    /// ```
    /// let ports = atomic_cache::AtomicCache::try_new(|text: &String| text.parse::<u16>(), None);
    /// assert_eq!(ports.try_get("80"), Ok(80));
    /// ```
    #[inline]
    #[track_caller]
    pub fn try_get<Q>(&self, key: &Q) -> Result<V, TryGetError<E>>
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
        V: Clone,
    {
        self.cache.fetch_by(
            key,
            Aim::Value,
            Stored::new(self),
            V::clone,
            &verbs::TRY_GET,
        )
    }

    /// Computes the value of a key anew by a fill that can fail, and returns the new one. If the
    /// fill fails, the old value stays.
    ///
    /// Waits as [`refresh`](AtomicCache::refresh) does; its twin
    /// [`try_refresh_async`](Self::try_refresh_async) blocks no thread.
    ///
    /// # Errors
    /// As [`try_get`](Self::try_get).
    ///
    /// # Panics
    /// As [`try_get`](Self::try_get).
    #[track_caller]
    pub fn try_refresh<Q>(&self, key: &Q) -> Result<V, TryGetError<E>>
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
        V: Clone,
    {
        self.cache.fetch_by(
            key,
            Aim::Refresh,
            Stored::new(self),
            V::clone,
            &verbs::TRY_REFRESH,
        )
    }
}

impl<K: Hash + Eq, V, E, S: BuildHasher> AtomicCache<K, V, E, S> {
    pub(crate) fn over(
        cache: Cache<K, V, S>,
        fill: impl Fn(&Self, &K) -> Result<V, E> + Send + Sync + 'static,
    ) -> Self {
        Self::by(cache, StoredFill::Call(Box::new(fill)))
    }

    /// How its values are computed.
    pub(crate) fn stored(&self) -> &StoredFill<K, V, E, S> {
        &self.fill
    }

    pub(crate) fn by(cache: Cache<K, V, S>, fill: StoredFill<K, V, E, S>) -> Self {
        Self {
            cache,
            fill: Arc::new(fill),
        }
    }

    /// Returns the value of a key, if it is there. Never fills, never waits, does not count as a
    /// use of the entry.
    pub fn peek<Q>(&self, key: &Q) -> Option<V>
    where
        Q: ?Sized + Hash + Equivalent<K>,
        V: Clone,
    {
        self.cache.peek(key)
    }

    /// Returns whether a key is there. Never fills, never waits. `false` while the key's first fill
    /// runs.
    ///
    /// ```
    /// let squares = atomic_cache::AtomicCache::new(|n: &u64| n * n, None);
    /// assert!(!squares.contains(&5));
    /// squares.get(&5);
    /// assert!(squares.contains(&5));
    /// ```
    pub fn contains<Q>(&self, key: &Q) -> bool
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        self.cache.contains(key)
    }

    /// Removes a key, and waits for a running fill of it. Returns whether it has removed a value:
    /// see [`Cache::invalidate`].
    ///
    /// Twins: [`invalidate_nowait`](Self::invalidate_nowait) never waits, and
    /// [`invalidate_async`](Self::invalidate_async) blocks no thread.
    ///
    /// # Panics
    /// As [`Cache::invalidate`].
    ///
    /// ```
    /// let squares = atomic_cache::AtomicCache::new(|n: &u64| n * n, None);
    /// squares.get(&5);
    /// assert!(squares.invalidate(&5));
    /// assert!(!squares.contains(&5));
    /// ```
    #[track_caller]
    pub fn invalidate<Q>(&self, key: &Q) -> bool
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        self.cache.invalidate(key)
    }

    /// Removes a key, waits for a running fill of it, and returns the removed value: see
    /// [`Cache::remove`].
    ///
    /// Twins: [`remove_nowait`](Self::remove_nowait) never waits, and
    /// [`remove_async`](Self::remove_async) blocks no thread.
    ///
    /// # Panics
    /// As [`Cache::invalidate`].
    #[track_caller]
    pub fn remove<Q>(&self, key: &Q) -> Option<V>
    where
        Q: ?Sized + Hash + Equivalent<K>,
        V: Clone,
    {
        self.cache.remove(key)
    }

    /// Removes a key, never waits, and returns the removed value: see [`Cache::remove_nowait`].
    ///
    /// Twins, which wait: [`remove`](Self::remove) and [`remove_async`](Self::remove_async).
    pub fn remove_nowait<Q>(&self, key: &Q) -> Option<V>
    where
        Q: ?Sized + Hash + Equivalent<K>,
        V: Clone,
    {
        self.cache.remove_nowait(key)
    }

    /// Removes a key and never waits: it detaches a running fill of it. Returns whether it has
    /// removed a value: see [`Cache::invalidate_nowait`].
    ///
    /// Twins, which wait: [`invalidate`](Self::invalidate) and
    /// [`invalidate_async`](Self::invalidate_async).
    pub fn invalidate_nowait<Q>(&self, key: &Q) -> bool
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        self.cache.invalidate_nowait(key)
    }

    /// Removes every key, and waits for the running fills: see [`Cache::invalidate_all`].
    ///
    /// Twins: [`invalidate_all_nowait`](Self::invalidate_all_nowait) never waits, and
    /// [`invalidate_all_async`](Self::invalidate_all_async) blocks no thread.
    ///
    /// # Panics
    /// As [`Cache::invalidate`].
    #[track_caller]
    pub fn invalidate_all(&self) {
        self.cache.invalidate_all();
    }

    /// Removes every key and never waits: it detaches the running fills. See
    /// [`Cache::invalidate_all_nowait`].
    ///
    /// Twins, which wait: [`invalidate_all`](Self::invalidate_all) and
    /// [`invalidate_all_async`](Self::invalidate_all_async).
    pub fn invalidate_all_nowait(&self) {
        self.cache.invalidate_all_nowait();
    }

    /// Removes the entries that `which` picks, and waits for running fills of their keys.
    /// [`Cache::invalidate_if`] says more, also of keys that have no value yet.
    ///
    /// Twins: [`invalidate_if_nowait`](Self::invalidate_if_nowait) never waits, and
    /// [`invalidate_if_async`](Self::invalidate_if_async) blocks no thread.
    ///
    /// # Panics
    /// As [`Cache::invalidate`].
    #[track_caller]
    pub fn invalidate_if(&self, which: impl FnMut(&K, &V) -> bool) {
        self.cache.invalidate_if(which);
    }

    /// Removes the entries that `which` picks, and never waits: see
    /// [`Cache::invalidate_if_nowait`].
    ///
    /// Twins, which wait: [`invalidate_if`](Self::invalidate_if) and
    /// [`invalidate_if_async`](Self::invalidate_if_async).
    pub fn invalidate_if_nowait(&self, which: impl FnMut(&K, &V) -> bool) {
        self.cache.invalidate_if_nowait(which);
    }

    /// Returns the number of entries: see [`Cache::len`].
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Returns whether there are no entries: see [`Cache::len`].
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    /// Returns the capacity, in entries or in weight: see [`Cache::capacity`].
    pub fn capacity(&self) -> Option<u64> {
        self.cache.capacity()
    }

    /// Returns the total weight of all entries: see [`Cache::weighted_size`].
    pub fn weighted_size(&self) -> u64 {
        self.cache.weighted_size()
    }

    /// Returns the weight of a key's entry: see [`Cache::weight`].
    pub fn weight<Q>(&self, key: &Q) -> Option<u64>
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        self.cache.weight(key)
    }

    /// Changes the capacity, and evicts the excess: see [`Cache::set_max_capacity`].
    ///
    /// # Errors
    /// As there.
    pub fn set_max_capacity(&self, capacity: u64) -> Result<(), BuildError> {
        self.cache.set_max_capacity(capacity)
    }

    /// Changes the capacity, in bytes, and evicts the excess: see [`Cache::set_max_bytes`].
    ///
    /// # Errors
    /// As there.
    pub fn set_max_bytes(&self, size: impl Into<ByteSize>) -> Result<(), BuildError> {
        self.cache.set_max_bytes(size)
    }

    /// Makes the entry of a key one of the last to be evicted: see [`Cache::promote`]. Returns
    /// `false` if the key is not there.
    pub fn promote<Q>(&self, key: &Q) -> bool
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        self.cache.promote(key)
    }

    /// Makes the entry of a key the first to be evicted: see [`Cache::demote`]. Returns `false` if
    /// the key is not there.
    pub fn demote<Q>(&self, key: &Q) -> bool
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        self.cache.demote(key)
    }

    /// Returns at most `limit` entries, cloned, the most used first: see [`Cache::hottest`].
    pub fn hottest(&self, limit: usize) -> Vec<(K, V)>
    where
        K: Clone,
        V: Clone,
    {
        self.cache.hottest(limit)
    }

    /// Returns at most `limit` entries, cloned, the least used first: see [`Cache::coldest`].
    pub fn coldest(&self, limit: usize) -> Vec<(K, V)>
    where
        K: Clone,
        V: Clone,
    {
        self.cache.coldest(limit)
    }

    /// Returns every key, cloned: see [`Cache::keys`].
    pub fn keys(&self) -> impl Iterator<Item = K> + '_
    where
        K: Clone,
    {
        self.cache.keys()
    }

    /// Does at once the work that ordinary calls and the janitor do in passing: see
    /// [`Cache::run_pending_tasks`].
    pub fn run_pending_tasks(&self) {
        self.cache.run_pending_tasks();
    }

    /// Returns the running fills: see [`Cache::in_flight`].
    pub fn in_flight(&self) -> Vec<InFlight<K>>
    where
        K: Clone,
    {
        self.cache.in_flight()
    }

    /// Abandons the running fill of a key, and lets one waiter start its own: see
    /// [`Cache::takeover`]. Returns `false` if no fill was running.
    pub fn takeover<Q>(&self, key: &Q) -> bool
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        self.cache.takeover(key)
    }

    /// Refuses fills from now on, and waits for the running ones: see [`Cache::close`].
    ///
    /// # Panics
    /// As [`Cache::close`].
    #[track_caller]
    pub fn close(&self) {
        self.cache.close();
    }

    /// Closes the cache, and abandons the fills that still run after `timeout`: see
    /// [`Cache::close_within`]. Returns the number of abandoned fills.
    ///
    /// # Panics
    /// As [`Cache::close_within`].
    #[track_caller]
    pub fn close_within(&self, timeout: Duration) -> usize {
        self.cache.close_within(timeout)
    }

    /// Returns whether the cache has been closed: see [`Cache::is_closed`].
    pub fn is_closed(&self) -> bool {
        self.cache.is_closed()
    }

    /// Returns every entry, cloned: see [`Cache::iter`].
    pub fn iter(&self) -> Iter<'_, K, V, S>
    where
        K: Clone,
        V: Clone,
    {
        self.cache.iter()
    }

    /// Returns a guard that holds one epoch pin for many look-ups, and lends values: see
    /// [`Cache::pin`].
    pub fn pin(&self) -> AtomicPinned<'_, K, V, E, S> {
        AtomicPinned::new(self)
    }

    /// Returns the counts of all events so far: see [`Cache::stats`].
    pub fn stats(&self) -> CacheStats {
        self.cache.stats()
    }

    /// Returns the number of removed objects that are not dropped yet: see [`Cache::retired`].
    pub fn retired(&self) -> usize {
        self.cache.retired()
    }

    /// Waits until all values that were removed before the call have been dropped: see
    /// [`Cache::quiesce`]. It blocks its thread, also in a task.
    ///
    /// # Panics
    /// If this thread holds a pinned guard.
    #[track_caller]
    pub fn quiesce(&self) {
        self.cache.quiesce();
    }

    /// Returns the name that the builder was given.
    pub fn name(&self) -> Option<&str> {
        self.cache.name()
    }
}

impl<'c, K, V, E, S> IntoIterator for &'c AtomicCache<K, V, E, S>
where
    K: Hash + Eq + Clone,
    V: Clone,
    S: BuildHasher,
{
    type Item = (K, V);
    type IntoIter = Iter<'c, K, V, S>;

    fn into_iter(self) -> Iter<'c, K, V, S> {
        self.iter()
    }
}

/// A cache's own fill, in one call.
pub(crate) struct Stored<'a, K: Hash + Eq, V, E, S: BuildHasher> {
    cache: &'a AtomicCache<K, V, E, S>,
    error: OwnError<E>,
}

impl<'a, K: Hash + Eq, V, E, S: BuildHasher> Stored<'a, K, V, E, S> {
    pub(crate) fn new(cache: &'a AtomicCache<K, V, E, S>) -> Self {
        let error = OwnError::none();
        Self { cache, error }
    }
}

impl<K: Hash + Eq, V, E, S: BuildHasher> Fill<K, V, S> for Stored<'_, K, V, E, S>
where
    E: Clone + Send + Sync + 'static,
{
    fn keeper(&self) -> Option<&dyn Keeper<K, V, S>> {
        match &*self.cache.fill {
            StoredFill::Call(_) => None,
            StoredFill::Future(_) => Some(self),
        }
    }

    fn run(&mut self, key: &K, blank: &mut Blank<'_, V>) -> bool {
        let StoredFill::Call(fill) = &*self.cache.fill else {
            unreachable!("a future is kept by its flight");
        };
        self.error.settle(fill(self.cache, key), blank)
    }

    fn share(&self) -> SharedError {
        self.error.share()
    }

    fn accept(&mut self, error: &SharedError) -> bool {
        self.error.accept(error)
    }
}

impl<K: Hash + Eq, V, E, S: BuildHasher> Keeper<K, V, S> for Stored<'_, K, V, E, S> {
    fn keep<'c>(&self, leader: Leader<'c, K, V, S>) -> Wait<'c, K, V, S> {
        let StoredFill::Future(keep) = &*self.cache.fill else {
            unreachable!("a call is its caller's");
        };
        keep.keep(self.cache, leader)
    }
}

impl<K: Hash + Eq, V, E, S: BuildHasher> Explain for Stored<'_, K, V, E, S> {
    type Error = E;

    fn explain(self, obstacle: Obstacle) -> TryGetError<E> {
        self.error.explain(obstacle)
    }
}
