//! [`Builder`]: every setting, and every check of one.

use crate::atomic_cache::AtomicCache;
use crate::bound::{Bound, Weigher};
use crate::byte_size::ByteSize;
use crate::cache::{Cache, DefaultHashBuilder};
use crate::core::{Config, Core, Describe, Spawner, Watch};
use crate::error::BuildError;
use crate::janitor::{GoOn, Janitor};
use crate::listener::{Listener, RemovalCause};
use crate::table::MAX_OBJECTS;
use crate::time::Clock;
use crate::weigh::Weigh;
use std::fmt::{self, Debug, Write};
use std::hash::{BuildHasher, Hash};
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// The largest capacity for which a cache bounded in entries takes its whole table at once.
const MOST_AT_ONCE: u64 = 1 << 24;

/// Cycle errors name keys by their [`Debug`]. The default of a [`Builder`].
#[derive(Clone, Copy, Debug)]
pub struct NamedKeys;

/// Cycle errors do not name keys: see [`Builder::opaque_keys`].
#[derive(Clone, Copy, Debug)]
pub struct OpaqueKeys;

/// Settings for a [`Cache`] or an [`AtomicCache`].
///
/// ```
/// use std::time::Duration;
/// use atomic_cache::AtomicCache;
///
/// let lengths = AtomicCache::<String, usize>::builder()
///     .time_to_live(Duration::from_secs(30))
///     .record_stats(true)
///     .build_with(|text| text.len())?;
/// assert_eq!(lengths.get("spam"), 4);
/// assert_eq!(lengths.get("spam"), 4);
/// assert_eq!(lengths.stats().hits, Some(1));
/// # Ok::<(), atomic_cache::BuildError>(())
/// ```
#[must_use = "settings do nothing until the cache is built"]
pub struct Builder<K, V, S = DefaultHashBuilder, N = NamedKeys> {
    hasher: S,
    settings: Settings<K, V>,
    janitor: Hook<K, V, S>,
    _naming: PhantomData<fn() -> N>,
}

/// Starts the janitor once there is a cache. It is made where key, value and hasher are known to be
/// `Send + Sync + 'static`.
enum Hook<K, V, S> {
    None,
    Start(
        Duration,
        fn(&Arc<Core<K, V, S>>, Duration) -> io::Result<Janitor>,
    ),
    /// The hasher was changed after it was set.
    Lost,
}

impl<K, V, S> Hook<K, V, S> {
    fn interval(&self) -> Option<Duration> {
        match self {
            Self::Start(interval, _) => Some(*interval),
            _ => None,
        }
    }
}

/// The settings that do not change a builder's type.
struct Settings<K, V> {
    ttl: Option<Duration>,
    clock: Clock,
    initial_capacity: usize,
    max_capacity: Option<u64>,
    max_bytes: Option<Result<u64, BuildError>>,
    weigher: Option<Weigher<K, V>>,
    listener: Option<Listener<K, V>>,
    spawner: Option<Spawner>,
    watch: Watch<K>,
    record_stats: bool,
    name: Option<Box<str>>,
}

impl<K, V> Builder<K, V> {
    pub(crate) fn new() -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            settings: Settings {
                ttl: None,
                clock: Clock::system(),
                initial_capacity: 0,
                max_capacity: None,
                max_bytes: None,
                weigher: None,
                listener: None,
                spawner: None,
                watch: Watch::default(),
                record_stats: false,
                name: None,
            },
            janitor: Hook::None,
            _naming: PhantomData,
        }
    }
}

impl<K, V, S, N> Builder<K, V, S, N> {
    /// Bounds the number of entries, or, with a [`weigher`](Self::weigher), their total weight. Not
    /// set: there is no bound, and nothing is evicted.
    ///
    /// The total never exceeds it by more than the inserts in progress. To make room the cache
    /// evicts entries that were not used, or less often than others: see the
    /// [policy](crate::internals#the-policy). Expired entries go before all others. A capacity of
    /// zero is fine: concurrent callers still share one fill, and nothing is kept.
    ///
    /// In a cache of a few entries eviction is partly chance. With random keys, an entry was read,
    /// and then as many other keys came as fit beside it: in 48, 71, 84 and 64 of 100 runs it was
    /// gone, at a capacity of 2, 4, 8 and 16. An entry that must outlive the next few can be
    /// [promoted](crate::Cache::promote).
    ///
    /// A cache bounded in entries takes its table at once: 16 to 32 bytes an entry of address
    /// space, and memory as that is touched. With a capacity of more than 2^24 the table starts
    /// small and is resized.
    ///
    /// ```
    /// use atomic_cache::Cache;
    ///
    /// let cache: Cache<u32, u32> = Cache::builder().max_capacity(100).build()?;
    /// for key in 0..1_000 {
    ///     cache.insert(key, key);
    ///     assert!(cache.len() <= 100);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_capacity(mut self, capacity: u64) -> Self {
        self.settings.max_capacity = Some(capacity);
        self
    }

    /// Bounds the memory that the entries keep, in bytes: a number, or a text such as `"128M"` (see
    /// [`ByteSize`]).
    ///
    /// It is a [`max_capacity`](Self::max_capacity) with a [`weigher`](Self::weigher). The weigher
    /// adds up the bytes that key and value own by [`Weigh`], the entry's own bytes, and its share
    /// of the table.
    ///
    /// Two things are not counted, and come on top. One is the rounding by the allocator of the
    /// blocks that keys and values own, which cannot be known. The other is the weight of removed
    /// entries that are not dropped yet ([`retired`](Cache::retired)): as a rule up to a
    /// thirty-second of the bound. Entries that readers hold up, or that a slow listener is still
    /// to be told of, come on top of that.
    ///
    /// There is one bound: `build` refuses a `max_capacity` beside it.
    /// [`set_max_capacity`](Cache::set_max_capacity) of such a cache counts bytes. A weigher of
    /// your own that counts bytes may be given after it. For keys and values that are not
    /// [`Weigh`]: `.max_capacity(bytes).weigher(..)`. A `usize` is written `n as u64`.
    ///
    /// ```
    /// use atomic_cache::AtomicCache;
    ///
    /// let pages = AtomicCache::<u32, String>::builder()
    ///     .max_bytes("1M")
    ///     .build_with(|&n| "x".repeat(n as usize))?;
    /// (100_000..100_100).for_each(|n| drop(pages.get(&n)));
    /// assert!(pages.len() == 10 && pages.weighted_size() <= 1 << 20);
    /// # Ok::<(), atomic_cache::BuildError>(())
    /// ```
    pub fn max_bytes(mut self, size: impl Into<ByteSize>) -> Self
    where
        K: Weigh,
        V: Weigh,
    {
        let bytes = size.into().into_bytes();
        self.settings.max_bytes = Some(bytes.map_err(BuildError::MaxBytes));
        self.settings.weigher = Some(Weigher::Bytes(entry_bytes));
        self
    }

    /// Sets the function that weighs an entry. Not set: each entry weighs one.
    ///
    /// The cache calls the weigher once, when the value has been computed or is put in, while it
    /// holds no lock and no pin. It stores the weight with the entry, so the weigher may return
    /// another number another time.
    ///
    /// An entry that is heavier than the whole capacity (or than 2^48 - 1) is handed out and not
    /// kept; so is one on which the weigher panics.
    ///
    /// An entry of weight zero takes no room, and is never evicted to make some. (The search for a
    /// victim passes over such entries, at a look each. Where there are thousands of them to every
    /// one that weighs more, it does not reach far enough.) Without a `max_capacity` the weights
    /// are only summed up: [`weighted_size`](Cache::weighted_size).
    ///
    /// ```
    /// use atomic_cache::AtomicCache;
    ///
    /// let pages = AtomicCache::<u32, String>::builder()
    ///     .max_capacity(10)
    ///     .weigher(|_, page| 1 + page.len() as u64)
    ///     .build_with(|&n| "x".repeat(n as usize))?;
    /// pages.get(&6);
    /// pages.get(&7);
    /// assert_eq!(pages.weighted_size(), 8);
    /// # Ok::<(), atomic_cache::BuildError>(())
    /// ```
    pub fn weigher(mut self, weigher: impl Fn(&K, &V) -> u64 + Send + Sync + 'static) -> Self {
        self.settings.weigher = Some(Weigher::Closure(Box::new(weigher)));
        self
    }

    /// Sets a listener, which is called once for every removed entry, with the cause.
    ///
    /// **Where it runs.** As a rule on the thread that has removed the entry, before its call
    /// returns. That thread holds no lock and no pin of the cache then, so the listener may use the
    /// cache. It is called later
    /// * on a thread that holds a pinned guard: when the guard is dropped;
    /// * inside a fill, or while the thread or the future leads one or holds its guard: when the
    ///   fill has ended;
    /// * while something unwinds, or while another thread is calling it: by the next thread that
    ///   can.
    ///
    /// At the latest [`run_pending_tasks`](Cache::run_pending_tasks) or [`quiesce`](Cache::quiesce)
    /// calls it.
    ///
    /// **In which order.** One thread at a time calls it, unless more than a thousand removals wait
    /// because it is slow. It hears of one thread's removals in their order. Removals of different
    /// threads, also of one key, may be told either way round. Its own removals are told when it
    /// has returned.
    ///
    /// **To remove other entries, let it use the `_nowait` methods**, such as
    /// [`invalidate_nowait`](Cache::invalidate_nowait). On a plain thread the others work too, and
    /// hold up the caller that has removed the entry. But the listener may be called inside a task,
    /// or inside the poll of one of this crate's futures. There a wait for a fill is a
    /// [panic](Cache#where-a-thread-may-not-wait), because the cache cannot know which fills that
    /// task leads by another of its futures.
    ///
    /// If it panics, the panic is counted
    /// ([`panicked_listeners`](crate::CacheStats::panicked_listeners)) and goes no further.
    ///
    /// It is not told of values that were never kept, nor of the entries that the cache still holds
    /// when its last handle is dropped.
    ///
    /// ```
    /// use atomic_cache::{Cache, RemovalCause};
    /// use std::sync::{Arc, Mutex};
    ///
    /// let removed = Arc::new(Mutex::new(vec![]));
    /// let log = removed.clone();
    /// let cache: Cache<u32, u32> = Cache::builder()
    ///     .eviction_listener(move |&key, &value, cause| log.lock().unwrap().push((key, value, cause)))
    ///     .build()?;
    /// cache.insert(1, 10);
    /// cache.insert(1, 11);
    /// cache.invalidate(&1);
    /// assert_eq!(
    ///     *removed.lock().unwrap(),
    ///     [(1, 10, RemovalCause::Replaced), (1, 11, RemovalCause::Explicit)],
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn eviction_listener(
        mut self,
        listener: impl Fn(&K, &V, RemovalCause) + Send + Sync + 'static,
    ) -> Self {
        self.settings.listener = Some(Box::new(listener));
        self
    }

    /// Sets the TTL: how long a value is served, from when it was published. Not set: for ever.
    ///
    /// Zero is fine: a fill's value goes to all callers that joined its flight, and is not kept. So
    /// is `Duration::MAX`. An expired entry is never served.
    ///
    /// Later inserts and fills remove expired entries, a few each; look-ups remove none. So in a
    /// cache that is only read they stay in memory, and the listener is not told of them, until
    /// [`run_pending_tasks`](Cache::run_pending_tasks) or a janitor
    /// ([`purge_interval`](Self::purge_interval)) removes them. In a bounded cache an expired entry
    /// makes room before any live one: now and then an insert looks at all entries for those that
    /// expire next, once for an eighth of them that leave.
    ///
    /// The time is that of [`Instant`](std::time::Instant): on Linux `CLOCK_MONOTONIC`, which
    /// stands still while the machine sleeps. An entry with a TTL of one minute that was put in
    /// before a night of sleep is served in the morning for the rest of its minute. If that
    /// matters, call [`invalidate_all`](Cache::invalidate_all) at wake-up.
    pub fn time_to_live(mut self, ttl: Duration) -> Self {
        self.settings.ttl = Some(ttl);
        self
    }

    /// Makes room for this many entries before the table is resized. The table takes 16 bytes an
    /// entry of address space at once, and memory as it is touched.
    pub fn initial_capacity(mut self, entries: usize) -> Self {
        self.settings.initial_capacity = entries;
        self
    }

    /// Starts a thread, the *janitor*, that every `interval` removes expired entries, tells the
    /// listener, and drops removed values that no reader sees any more. Not set: inserts and fills
    /// do that in passing, without a thread. Set it after the [`hasher`](Self::hasher).
    ///
    /// The janitor keeps no cache alive: it ends when the last handle is dropped, or at
    /// [`Cache::close`]. Both wait for its current round, and so does `close_async`, which blocks
    /// its thread for that. The interval is measured by the system's clock, whatever the cache's
    /// own clock is.
    ///
    /// Cost: once an interval, if an entry may have expired since, a walk over the table. It takes
    /// some tens of nanoseconds an entry, and about a nanosecond for each position of an empty
    /// table (a capacity of 16 million: some 60 ms).
    ///
    /// ```
    /// use std::time::Duration;
    /// use atomic_cache::Cache;
    ///
    /// let cache: Cache<u32, u32> = Cache::builder()
    ///     .time_to_live(Duration::from_secs(60))
    ///     .purge_interval(Duration::from_secs(10))
    ///     .build()?;
    /// cache.close();
    /// # Ok::<(), atomic_cache::BuildError>(())
    /// ```
    pub fn purge_interval(mut self, interval: Duration) -> Self
    where
        K: Hash + Eq + Send + Sync + 'static,
        V: Send + Sync + 'static,
        S: BuildHasher + Send + Sync + 'static,
    {
        let interval = self
            .janitor
            .interval()
            .map_or(interval, |set| set.min(interval));
        self.janitor = Hook::Start(interval, start_janitor);
        self
    }

    /// Sets a function that is told of each fill that has been running for `threshold`: its key,
    /// and for how long, by the cache's clock. It is told once a fill: while the fill runs, if the
    /// watch comes by, or at its end.
    ///
    /// It is called while no lock and no pin is held, but at the end of a fill with that fill's
    /// lead: the waiters wait for it too. If it panics, the panic goes no further.
    ///
    /// The watch is the [janitor](Self::purge_interval)'s thread, which this starts. It looks every
    /// half threshold, and so does [`run_pending_tasks`](Cache::run_pending_tasks). Cost: a walk
    /// over the table each time. Set it after the [`hasher`](Self::hasher).
    ///
    /// ```
    /// use std::time::Duration;
    /// use atomic_cache::Cache;
    ///
    /// let cache: Cache<String, u32> = Cache::builder()
    ///     .on_slow_fill(Duration::from_secs(1), |key, age| eprintln!("{key}: {age:?}"))
    ///     .build()?;
    /// # cache.close();
    /// # Ok::<(), atomic_cache::BuildError>(())
    /// ```
    pub fn on_slow_fill(
        mut self,
        threshold: Duration,
        on_slow: impl Fn(&K, Duration) + Send + Sync + 'static,
    ) -> Self
    where
        K: Hash + Eq + Send + Sync + 'static,
        V: Send + Sync + 'static,
        S: BuildHasher + Send + Sync + 'static,
    {
        self.settings.watch.slow = Some((threshold, Box::new(on_slow)));
        self.watched_every(threshold / 2)
    }

    /// Sets a timeout for fills: each fill that has been running for `timeout`, by the cache's
    /// clock, is [abandoned](Cache::takeover). One waiter runs its own, and the cache does not keep
    /// the value of the abandoned one.
    ///
    /// The abandoned fill's own caller goes on, if it has one. An async fill that the cache owns
    /// has none: it is dropped, and begun anew if a caller waits.
    ///
    /// The timeout bounds for how long others are held up by one fill, and not how long a call
    /// takes. For that put a timeout of your runtime around the call, or into the fill.
    ///
    /// The watch and its cost are those of [`on_slow_fill`](Self::on_slow_fill): a fill is
    /// abandoned at the latest half as much time again after its timeout.
    pub fn fill_timeout(mut self, timeout: Duration) -> Self
    where
        K: Hash + Eq + Send + Sync + 'static,
        V: Send + Sync + 'static,
        S: BuildHasher + Send + Sync + 'static,
    {
        self.settings.watch.timeout = Some(timeout);
        self.watched_every(timeout / 2)
    }

    /// Makes the janitor do its round at least so often.
    fn watched_every(mut self, interval: Duration) -> Self
    where
        K: Hash + Eq + Send + Sync + 'static,
        V: Send + Sync + 'static,
        S: BuildHasher + Send + Sync + 'static,
    {
        let interval = interval.max(SHORTEST_WATCH);
        let interval = self
            .janitor
            .interval()
            .map_or(interval, |set| set.min(interval));
        self.janitor = Hook::Start(interval, start_janitor);
        self
    }

    /// Sets the clock that times are measured with. Not set: [`Clock::system`].
    pub fn clock(mut self, clock: impl Into<Clock>) -> Self {
        self.settings.clock = clock.into();
        self
    }

    /// Sets whether hits and misses are counted. Not set: no, because then a hit of an entry that
    /// is much used writes nothing that another thread reads. All other counts of
    /// [`CacheStats`](crate::CacheStats) are always on.
    pub fn record_stats(mut self, record: bool) -> Self {
        self.settings.record_stats = record;
        self
    }

    /// Sets a name, shown by [`Debug`] and by [`Cache::name`].
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = Some(name.into().into_boxed_str());
        self
    }

    /// Sets the hasher. Not set: [`DefaultHashBuilder`]. Set it before
    /// [`purge_interval`](Self::purge_interval), [`on_slow_fill`](Self::on_slow_fill) and
    /// [`fill_timeout`](Self::fill_timeout).
    ///
    /// The cache spreads its hashes once more, so a weak one will do. One that gives many keys the
    /// same hash makes the operations on them linear in their number.
    pub fn hasher<T>(self, hasher: T) -> Builder<K, V, T, N> {
        Builder {
            hasher,
            settings: self.settings,
            janitor: match self.janitor {
                Hook::None => Hook::None,
                _ => Hook::Lost,
            },
            _naming: PhantomData,
        }
    }

    /// Allows keys that are not [`Debug`]: a cycle error then shows the name of their type.
    ///
    /// ```
    /// #[derive(Hash, PartialEq, Eq, Clone)]
    /// struct Secret(u32);
    ///
    /// let cache: atomic_cache::Cache<Secret, u32> =
    ///     atomic_cache::Cache::builder().opaque_keys().build()?;
    /// cache.get_with(&Secret(1), || 10);
    /// # Ok::<(), atomic_cache::BuildError>(())
    /// ```
    pub fn opaque_keys(self) -> Builder<K, V, S, OpaqueKeys> {
        Builder {
            hasher: self.hasher,
            settings: self.settings,
            janitor: self.janitor,
            _naming: PhantomData,
        }
    }

    fn config(self, describe: Option<Describe<K>>) -> Result<Config<K, V, S>, BuildError> {
        let settings = self.settings;
        if settings.initial_capacity > MAX_OBJECTS {
            return Err(BuildError::InitialCapacity {
                given: settings.initial_capacity,
                limit: MAX_OBJECTS,
            });
        }
        let bytes = settings.max_bytes.transpose()?;
        if bytes.is_some() && settings.max_capacity.is_some() {
            return Err(BuildError::TwoBounds);
        }
        let capacity = settings.max_capacity.or(bytes);
        // A cache bounded in entries is never resized, and has no use for room beyond the bound.
        let initial_capacity = match (capacity, &settings.weigher) {
            (Some(capacity @ ..=MOST_AT_ONCE), None) => capacity as usize,
            _ => settings.initial_capacity,
        };
        // Weights without a capacity are summed up, and no sum is too large.
        let capacity = capacity.or_else(|| settings.weigher.as_ref().map(|_| u64::MAX));
        Ok(Config {
            hasher: self.hasher,
            ttl: settings.ttl,
            clock: settings.clock,
            initial_capacity,
            bound: capacity.map(|capacity| Bound::new(capacity, settings.weigher)),
            listener: settings.listener,
            spawner: settings.spawner,
            watch: settings.watch,
            record_stats: settings.record_stats,
            name: settings.name,
            describe,
        })
    }
}

#[cfg(feature = "async")]
impl<K, V, S, N> Builder<K, V, S, N> {
    pub(crate) fn set_spawner(&mut self, spawner: Spawner) {
        self.settings.spawner = Some(spawner);
    }
}

impl<K, V, S, N> Builder<K, V, S, N>
where
    K: Hash + Eq,
    S: BuildHasher,
    N: Naming<K>,
{
    /// Makes a cache that is filled call by call.
    ///
    /// # Errors
    /// If a setting is not possible: see [`BuildError`].
    pub fn build(mut self) -> Result<Cache<K, V, S>, BuildError> {
        if self.janitor.interval() == Some(Duration::ZERO) {
            return Err(BuildError::PurgeIntervalZero);
        }
        if self.settings.watch.timeout == Some(Duration::ZERO) {
            return Err(BuildError::FillTimeoutZero);
        }
        let janitor = std::mem::replace(&mut self.janitor, Hook::None);
        let core = Arc::new(Core::new(self.config(N::DESCRIBE)?));
        match janitor {
            Hook::None => {}
            Hook::Lost => return Err(BuildError::PurgeIntervalBeforeHasher),
            Hook::Start(interval, start) => {
                let janitor = start(&core, interval);
                core.set_janitor(janitor.map_err(|error| BuildError::Janitor(error.to_string()))?);
            }
        }
        Ok(Cache { core })
    }

    /// Makes a cache with its own fill: see [`AtomicCache::new`].
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_with(
        self,
        fill: impl Fn(&K) -> V + Send + Sync + 'static,
    ) -> Result<AtomicCache<K, V, std::convert::Infallible, S>, BuildError> {
        Ok(AtomicCache::over(self.build()?, move |_, key| {
            Ok(fill(key))
        }))
    }

    /// Makes a cache with its own fill, which may use the cache: see [`AtomicCache::recursive`].
    ///
    /// # Errors
    /// As [`build`](Self::build).
    #[allow(clippy::type_complexity)]
    pub fn build_recursive(
        self,
        fill: impl Fn(&AtomicCache<K, V, std::convert::Infallible, S>, &K) -> V + Send + Sync + 'static,
    ) -> Result<AtomicCache<K, V, std::convert::Infallible, S>, BuildError> {
        Ok(AtomicCache::over(self.build()?, move |cache, key| {
            Ok(fill(cache, key))
        }))
    }

    /// Makes a cache with its own fill, which can fail: see [`AtomicCache::try_new`].
    ///
    /// # Errors
    /// As [`build`](Self::build).
    ///
    /// ```
    /// use atomic_cache::AtomicCache;
    ///
    /// let ports = AtomicCache::<String, u16>::builder().try_build_with(|text| text.parse::<u16>())?;
    /// assert_eq!(ports.try_get("80"), Ok(80));
    /// # Ok::<(), atomic_cache::BuildError>(())
    /// ```
    pub fn try_build_with<E>(
        self,
        fill: impl Fn(&K) -> Result<V, E> + Send + Sync + 'static,
    ) -> Result<AtomicCache<K, V, E, S>, BuildError>
    where
        E: Clone + Send + Sync + 'static,
    {
        Ok(AtomicCache::over(self.build()?, move |_, key| fill(key)))
    }

    /// Makes a cache with its own fill, which can fail and may use the cache: see
    /// [`AtomicCache::try_recursive`].
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn try_build_recursive<E>(
        self,
        fill: impl Fn(&AtomicCache<K, V, E, S>, &K) -> Result<V, E> + Send + Sync + 'static,
    ) -> Result<AtomicCache<K, V, E, S>, BuildError>
    where
        E: Clone + Send + Sync + 'static,
    {
        Ok(AtomicCache::over(self.build()?, fill))
    }
}

/// The watch does not look for fills more often than this.
const SHORTEST_WATCH: Duration = Duration::from_millis(1);

/// About how many bytes an allocation takes beyond those that were asked for: a header, and half a
/// step of the allocator's sizes (glibc and jemalloc: 8 and 16 bytes).
const ALLOCATOR_BYTES: u64 = 16;

/// The bytes of the table that an entry takes: two to four words of eight bytes, less the part that
/// the rounding up to a power of two leaves unused and untouched.
const TABLE_BYTES: u64 = 24;

fn entry_bytes<K: Weigh, V: Weigh>(key: &K, value: &V) -> u64 {
    let own = Core::<K, V, ()>::ENTRY_BYTES + ALLOCATOR_BYTES + TABLE_BYTES;
    own.saturating_add(key.heap_bytes())
        .saturating_add(value.heap_bytes())
}

fn start_janitor<K, V, S>(core: &Arc<Core<K, V, S>>, interval: Duration) -> io::Result<Janitor>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    let core = Arc::downgrade(core);
    let round = move |go_on: &GoOn| {
        let Some(core) = core.upgrade() else {
            return false;
        };
        core.purge_while(|| go_on.yes());
        if go_on.yes() {
            core.watch();
            core.tidy_all();
        }
        true
    };
    Janitor::start(interval, Box::new(round))
}

impl<K, V, S: Debug, N> Debug for Builder<K, V, S, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.settings;
        f.debug_struct("Builder")
            .field("time_to_live", &settings.ttl)
            .field("max_capacity", &settings.max_capacity)
            .field("max_bytes", &settings.max_bytes)
            .field("weigher", &settings.weigher.is_some())
            .field("eviction_listener", &settings.listener.is_some())
            .field("initial_capacity", &settings.initial_capacity)
            .field("purge_interval", &self.janitor.interval())
            .field("clock", &settings.clock)
            .field("record_stats", &settings.record_stats)
            .field("name", &settings.name)
            .field("hasher", &self.hasher)
            .finish()
    }
}

/// How a builder's keys are named. Sealed: [`NamedKeys`] and [`OpaqueKeys`].
#[diagnostic::on_unimplemented(
    message = "`{K}` is not `Debug`, and errors about cycles of fills name keys",
    note = "derive `Debug` for it, or say `.opaque_keys()` before the builder's last call"
)]
pub trait Naming<K>: sealed::Sealed {
    #[doc(hidden)]
    const DESCRIBE: Option<Describe<K>>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::NamedKeys {}
    impl Sealed for super::OpaqueKeys {}
}

impl<K: Debug> Naming<K> for NamedKeys {
    const DESCRIBE: Option<Describe<K>> = Some(describe::<K>);
}

impl<K> Naming<K> for OpaqueKeys {
    const DESCRIBE: Option<Describe<K>> = None;
}

/// A key as its `Debug` prints it, the first 120 characters.
fn describe<K: Debug>(key: &K) -> String {
    struct Limited(String);

    impl Write for Limited {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            const LIMIT: usize = 120;
            for character in text.chars() {
                if self.0.chars().count() == LIMIT {
                    self.0.push('…');
                    return Err(fmt::Error);
                }
                self.0.push(character);
            }
            Ok(())
        }
    }

    let mut text = Limited(String::new());
    // An error means that the text is long enough: the part that has been written is shown.
    let _ = write!(text, "{key:?}");
    text.0
}
