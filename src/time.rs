//! The clock, and deadlines as numbers.
//!
//! A cache counts time in nanoseconds since an origin of its own clock. A deadline is such a
//! number below 2^63, so that a slot can keep it in one word and still tell it from a pointer.

use std::time::{Duration, Instant};

#[cfg(any(test, feature = "test-util"))]
use crate::sync::{Arc, AtomicU64, Ordering};

/// The deadline of an entry that never expires. Such an entry is judged without a clock.
pub(crate) const NEVER: u64 = (1 << 63) - 1;

/// Where a cache gets its time from: the system's monotonic clock, or one that a test moves.
///
/// Cost: an entry without a deadline reads no clock. One with a deadline reads it on every hit;
/// the system clock is [`Instant::now`], some 20 to 30 ns on Linux.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    System(Instant),
    #[cfg(any(test, feature = "test-util"))]
    Manual(ManualClock),
}

impl Clock {
    /// The system's monotonic clock, [`Instant`]. This is the default.
    pub fn system() -> Self {
        Self(Kind::System(Instant::now()))
    }

    /// Nanoseconds since this clock's origin, below [`NEVER`].
    pub(crate) fn now(&self) -> u64 {
        match &self.0 {
            Kind::System(origin) => nanos(origin.elapsed()),
            #[cfg(any(test, feature = "test-util"))]
            Kind::Manual(clock) => clock.nanos.load(Ordering::Acquire).min(NEVER - 1),
        }
    }

    /// The deadline of a value published now that lives for `ttl`.
    pub(crate) fn deadline(&self, ttl: Option<Duration>) -> Deadline {
        match ttl.map(nanos) {
            None | Some(NEVER) => Deadline::Never,
            Some(0) => Deadline::Past,
            Some(ttl) => match self.now().saturating_add(ttl) {
                NEVER.. => Deadline::Never,
                at => Deadline::At(at),
            },
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

/// When a value stops being served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// Before it was published: it is handed to its flight and not kept.
    Past,
    At(u64),
    Never,
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(NEVER).min(NEVER)
}

/// A clock that stands still until it is moved. Clones share the time.
///
/// Only with the feature `test-util`.
///
/// ```
/// use std::time::Duration;
/// use atomic_cache::{Cache, Clock, ManualClock};
///
/// let clock = ManualClock::new();
/// let cache: Cache<u32, u32> = Cache::builder()
///     .time_to_live(Duration::from_secs(60))
///     .clock(clock.clone())
///     .build()?;
/// cache.insert(1, 10).unwrap();
/// clock.advance(Duration::from_secs(59));
/// assert_eq!(cache.get(&1), Some(10));
/// clock.advance(Duration::from_secs(1));
/// assert_eq!(cache.get(&1), None);
/// # Ok::<(), atomic_cache::BuildError>(())
/// ```
#[cfg(any(test, feature = "test-util"))]
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    nanos: Arc<AtomicU64>,
}

#[cfg(any(test, feature = "test-util"))]
impl ManualClock {
    /// A clock that stands at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the time forward by `span`.
    pub fn advance(&self, span: Duration) {
        self.nanos.fetch_add(nanos(span), Ordering::AcqRel);
    }

    /// Sets the time to `since_start`, forward or back: a test of what a broken clock does.
    pub fn set(&self, since_start: Duration) {
        self.nanos.store(nanos(since_start), Ordering::Release);
    }

    /// The time since the clock's start.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Acquire))
    }
}

#[cfg(any(test, feature = "test-util"))]
impl From<ManualClock> for Clock {
    fn from(clock: ManualClock) -> Self {
        Self(Kind::Manual(clock))
    }
}
