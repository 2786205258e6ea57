//! The errors, one type a topic.

use crate::byte_size::ByteSizeError;
use std::fmt;

/// A fill asked, perhaps by way of other fills, for a key that is being computed for its sake: the
/// wait would never end.
///
/// The `try_` methods return it inside [`TryGetError`]; the others panic with its text.
///
/// ```
/// use atomic_cache::{Cache, TryGetError};
///
/// let cache: Cache<&str, u32> = Cache::unbounded();
/// let inner = cache.clone();
/// let error = cache
///     .try_get_with(&"a", || match inner.try_get_with(&"a", || Ok::<_, String>(1)) {
///         Err(TryGetError::Cycle(cycle)) => Err(cycle.to_string()),
///         other => panic!("{other:?}"),
///     })
///     .unwrap_err();
/// assert!(error.to_string().contains(r#""a" -> "a""#));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CycleError {
    keys: Vec<String>,
}

impl CycleError {
    pub(crate) fn new(keys: Vec<String>) -> Self {
        Self { keys }
    }

    /// Returns the keys along the cycle, in the order in which they wait for each other. The first
    /// one is also the last.
    ///
    /// Each is shown as its `Debug` prints it, and in a cache with a [name](crate::Builder::name)
    /// as `name[key]`. Long texts are cut.
    pub fn keys(&self) -> &[String] {
        &self.keys
    }
}

impl fmt::Display for CycleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a fill would wait for itself along the keys {}: make the fill of one of them not ask for the next",
            self.keys.join(" -> ")
        )
    }
}

impl std::error::Error for CycleError {}

/// The cache has been closed, and computes no more values: see
/// [`Cache::close`](crate::Cache::close).
///
/// The `try_` methods return it inside [`TryGetError`]; the others panic with its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedError;

impl fmt::Display for ClosedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the cache has been closed and computes nothing any more: what is in it can still be read",
        )
    }
}

impl std::error::Error for ClosedError {}

/// The reason why a fill is not waited for, or not run.
pub(crate) type Refusal = TryGetError<std::convert::Infallible>;

impl<E> From<CycleError> for TryGetError<E> {
    fn from(cycle: CycleError) -> Self {
        Self::Cycle(cycle)
    }
}

impl<E> From<ClosedError> for TryGetError<E> {
    fn from(closed: ClosedError) -> Self {
        Self::Closed(closed)
    }
}

/// The reason why a `try_` method has no value.
///
/// Each caller in the flight gets a clone of the fill's own error `E`. One that is not `Clone` goes
/// into an `Arc` first: `.map_err(Arc::new)`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryGetError<E> {
    /// The fill's own error: of the fill that this caller ran, or of the one that it waited for.
    Fill(E),
    /// The wait would have closed a cycle.
    Cycle(CycleError),
    /// The cache has been closed.
    Closed(ClosedError),
}

impl<E> TryGetError<E> {
    /// Returns the fill's own error.
    ///
    /// # Errors
    /// If this is not an error of the fill: returns `self`.
    ///
    /// ```
    /// use atomic_cache::TryGetError;
    /// assert_eq!(TryGetError::Fill("no").into_fill(), Ok("no"));
    /// ```
    pub fn into_fill(self) -> Result<E, Self> {
        match self {
            Self::Fill(error) => Ok(error),
            other => Err(other),
        }
    }
}

impl<E: fmt::Display> fmt::Display for TryGetError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fill(error) => error.fmt(f),
            Self::Cycle(cycle) => cycle.fmt(f),
            Self::Closed(closed) => closed.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for TryGetError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // `Display` shows the fill's error itself, so its source is our source.
            Self::Fill(error) => error.source(),
            Self::Cycle(_) | Self::Closed(_) => None,
        }
    }
}

/// A value that [`try_insert`](crate::Cache::try_insert) could not keep and gives back: it is
/// heavier than the whole capacity, or the weigher panicked on it.
///
/// ```
/// use atomic_cache::Cache;
///
/// let cache: Cache<&str, String> = Cache::builder()
///     .max_capacity(10)
///     .weigher(|_, text: &String| text.len() as u64)
///     .build()?;
/// let error = cache.try_insert("spam", "more than ten".to_owned()).unwrap_err();
/// assert_eq!((error.weight(), error.capacity()), (Some(13), 10));
/// # Ok::<(), atomic_cache::BuildError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct OversizeError<V> {
    value: V,
    weight: Option<u64>,
    capacity: u64,
}

impl<V> OversizeError<V> {
    pub(crate) fn new(value: V, weight: Option<u64>, capacity: u64) -> Self {
        Self {
            value,
            weight,
            capacity,
        }
    }

    /// Returns the weight of the entry; `None` if its weigher panicked.
    pub fn weight(&self) -> Option<u64> {
        self.weight
    }

    /// Returns the cache's capacity at the time of the call.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Returns a reference to the value.
    pub fn value(&self) -> &V {
        &self.value
    }

    /// Returns the value.
    pub fn into_value(self) -> V {
        self.value
    }
}

impl<V> fmt::Debug for OversizeError<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OversizeError")
            .field("weight", &self.weight)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

impl<V> fmt::Display for OversizeError<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let capacity = self.capacity;
        match self.weight {
            Some(weight) => write!(
                f,
                "a value of weight {weight} does not fit a cache of capacity {capacity}: give the \
                 cache more capacity, or keep such values elsewhere"
            ),
            None => f.write_str(
                "the cache's weigher panicked on this value, so nobody knows what it weighs, and it \
                 is not kept: mend the weigher",
            ),
        }
    }
}

impl<V> std::error::Error for OversizeError<V> {}

/// A setting that [`Builder::build`](crate::Builder::build) refuses.
///
/// ```
/// use atomic_cache::Cache;
/// let error = Cache::<u32, u32>::builder().initial_capacity(usize::MAX).build().unwrap_err();
/// assert!(error.to_string().starts_with("initial_capacity(18446744073709551615)"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// `initial_capacity` asks for more than a table can hold.
    InitialCapacity {
        /// The number of entries that was asked for.
        given: usize,
        /// The largest possible number.
        limit: usize,
    },
    /// Both `max_capacity` and `max_bytes`.
    TwoBounds,
    /// `set_max_bytes` of a cache that counts entries.
    CountsEntries,
    /// `max_bytes` was given a text that is not a number of bytes.
    MaxBytes(ByteSizeError),
    /// `purge_interval` of zero: the janitor would never rest.
    PurgeIntervalZero,
    /// `fill_timeout` of zero: every fill would be abandoned.
    FillTimeoutZero,
    /// `purge_interval`, `on_slow_fill` or `fill_timeout` was set before the hasher: the janitor
    /// that it starts does not know that hasher.
    PurgeIntervalBeforeHasher,
    /// The janitor's thread could not be started; the text is the system's.
    Janitor(String),
    /// A new capacity for a cache that was built without a bound, and without a weigher.
    Unbounded,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InitialCapacity { given, limit } => write!(
                f,
                "initial_capacity({given}) is more than a table can hold: give at most {limit}, \
                 or leave the setting out and let the table grow"
            ),
            Self::TwoBounds => f.write_str(
                "max_capacity(..) and max_bytes(..) are one bound, in entries or in bytes: give one of \
                 them (or max_capacity(..) with a weigher(..) that counts bytes)",
            ),
            Self::CountsEntries => f.write_str(
                "set_max_bytes(..) of a cache that counts entries: use set_max_capacity(..), or build \
                 it with max_bytes(..)",
            ),
            Self::MaxBytes(error) => write!(f, "max_bytes: {error}"),
            Self::PurgeIntervalZero => f.write_str(
                "purge_interval(0ns) leaves the janitor no rest: give how often it shall look, or \
                 leave the setting out",
            ),
            Self::FillTimeoutZero => f.write_str(
                "fill_timeout(0ns) would give up every fill: give how long one may take, or leave \
                 the setting out",
            ),
            Self::PurgeIntervalBeforeHasher => f.write_str(
                "purge_interval(..), on_slow_fill(..) or fill_timeout(..) came before hasher(..): set \
                 the hasher first",
            ),
            Self::Janitor(reason) => write!(
                f,
                "the thread for purge_interval(..), on_slow_fill(..) or fill_timeout(..) could not be \
                 started: {reason}; without these settings none is needed"
            ),
            Self::Unbounded => f.write_str(
                "a new capacity for a cache that was built without a bound: build it with \
                 max_capacity(..), u64::MAX for none as yet",
            ),
        }
    }
}

impl std::error::Error for BuildError {}
