//! [`Builder`]: every setting, and every check of one.

use crate::atomic_cache::AtomicCache;
use crate::cache::{Cache, DefaultHashBuilder};
use crate::core::{Config, Core, Describe};
use crate::error::BuildError;
use crate::table::MAX_OBJECTS;
use crate::time::Clock;
use std::fmt::{self, Debug, Write};
use std::hash::{BuildHasher, Hash};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// Keys are named in cycle errors: they are [`Debug`]. The default of a [`Builder`].
#[derive(Clone, Copy, Debug)]
pub struct NamedKeys;

/// Keys are not named: see [`Builder::opaque_keys`].
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
    ttl: Option<Duration>,
    clock: Clock,
    initial_capacity: usize,
    record_stats: bool,
    name: Option<Box<str>>,
    _cache: PhantomData<fn() -> (K, V, N)>,
}

impl<K, V> Builder<K, V> {
    pub(crate) fn new() -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            ttl: None,
            clock: Clock::system(),
            initial_capacity: 0,
            record_stats: false,
            name: None,
            _cache: PhantomData,
        }
    }
}

impl<K, V, S, N> Builder<K, V, S, N> {
    /// How long a value is served, from when it was published. Not set: for ever.
    ///
    /// Zero is fine: a fill's value goes to everyone who joined its flight and is not kept. So
    /// is `Duration::MAX`. An expired entry is never served; it is reclaimed by later traffic.
    pub fn time_to_live(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Room for this many entries before the table grows. The table takes 16 bytes an entry of
    /// address space at once, and memory as it is touched.
    pub fn initial_capacity(mut self, entries: usize) -> Self {
        self.initial_capacity = entries;
        self
    }

    /// The clock that times are measured with. Not set: [`Clock::system`].
    pub fn clock(mut self, clock: impl Into<Clock>) -> Self {
        self.clock = clock.into();
        self
    }

    /// Whether hits and misses are counted. Not set: no, because then a hit writes no memory.
    /// Everything else in [`CacheStats`](crate::CacheStats) is always counted.
    pub fn record_stats(mut self, record: bool) -> Self {
        self.record_stats = record;
        self
    }

    /// A name, shown by [`Debug`] and by [`Cache::name`].
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into().into_boxed_str());
        self
    }

    /// The hasher. Not set: [`DefaultHashBuilder`].
    ///
    /// The cache spreads its hashes once more, so a weak one will do; one that gives many keys
    /// the same hash makes the operations on them linear in their number.
    pub fn hasher<T>(self, hasher: T) -> Builder<K, V, T, N> {
        Builder {
            hasher,
            ttl: self.ttl,
            clock: self.clock,
            initial_capacity: self.initial_capacity,
            record_stats: self.record_stats,
            name: self.name,
            _cache: PhantomData,
        }
    }

    /// Lets keys be used that are not [`Debug`]: a cycle error then shows their type's name.
    ///
    /// ```
    /// #[derive(Hash, PartialEq, Eq, Clone)]
    /// struct Secret(u32);
    ///
    /// let cache: atomic_cache::Cache<Secret, u32> =
    ///     atomic_cache::Cache::builder().opaque_keys().build()?;
    /// cache.insert(Secret(1), 10);
    /// # Ok::<(), atomic_cache::BuildError>(())
    /// ```
    pub fn opaque_keys(self) -> Builder<K, V, S, OpaqueKeys> {
        Builder {
            hasher: self.hasher,
            ttl: self.ttl,
            clock: self.clock,
            initial_capacity: self.initial_capacity,
            record_stats: self.record_stats,
            name: self.name,
            _cache: PhantomData,
        }
    }

    fn config(self, describe: Option<Describe<K>>) -> Result<Config<K, S>, BuildError> {
        if self.initial_capacity > MAX_OBJECTS {
            return Err(BuildError::InitialCapacity {
                given: self.initial_capacity,
                limit: MAX_OBJECTS,
            });
        }
        Ok(Config {
            hasher: self.hasher,
            ttl: self.ttl,
            clock: self.clock,
            initial_capacity: self.initial_capacity,
            record_stats: self.record_stats,
            name: self.name,
            describe,
        })
    }
}

impl<K, V, S, N> Builder<K, V, S, N>
where
    K: Hash + Eq,
    S: BuildHasher,
    N: Naming<K>,
{
    /// A cache that is filled call by call.
    ///
    /// # Errors
    /// A setting that cannot be: see [`BuildError`].
    pub fn build(self) -> Result<Cache<K, V, S>, BuildError> {
        let config = self.config(N::DESCRIBE)?;
        Ok(Cache {
            core: Arc::new(Core::new(config)),
        })
    }

    /// A cache with its own fill: see [`AtomicCache::new`].
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

    /// A cache with its own fill, which may use the cache: see [`AtomicCache::recursive`].
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

    /// A cache with its own fill, which can fail: see [`AtomicCache::try_new`].
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
}

impl<K, V, S: Debug, N> Debug for Builder<K, V, S, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("time_to_live", &self.ttl)
            .field("initial_capacity", &self.initial_capacity)
            .field("clock", &self.clock)
            .field("record_stats", &self.record_stats)
            .field("name", &self.name)
            .field("hasher", &self.hasher)
            .finish()
    }
}

/// How a builder's keys are put into words. Sealed: [`NamedKeys`] and [`OpaqueKeys`].
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
    // An error says that the text is long enough: what has been written is what is shown.
    let _ = write!(text, "{key:?}");
    text.0
}
