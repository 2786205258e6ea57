//! The clock, and deadlines as numbers.
//!
//! A cache counts time in nanoseconds since an origin of its own clock. A deadline is such a number
//! below 2^63, so that a slot can keep it in one word and still tell it from a pointer.
//!
//! # A hit reads the coarse clock
//!
//! The exact time costs 23 ns on the development machine, more than all the rest of a hit. The time
//! that the kernel noted at its last tick (`CLOCK_MONOTONIC_COARSE`) costs 5. It is never ahead of
//! the exact time, and behind it by a tick, 1 to 10 ms. So a deadline that it has reached is over,
//! and one that is more than [`SLACK`] ahead of it is not. Only in between the hit reads the exact
//! clock.
//!
//! (A virtual machine may stop the processor that keeps the time for longer than that while another
//! goes on. Then an entry is served until the next tick: before its deadline by the clock that was
//! read.)
//!
//! (Tried instead of the call: to note that time, and to ask the processor's counter whether the
//! note is old. But on the development machine `rdtsc` waits for every load before it, without a
//! fence too, and hits took two to three times as long.)

use std::time::Duration;

#[cfg(any(test, feature = "test-util"))]
use crate::sync::{Arc, AtomicU64, Ordering};

/// The deadline of an entry that never expires. Such an entry is judged without a clock.
pub(crate) const NEVER: u64 = (1 << 63) - 1;

/// The source of a cache's time: the system's monotonic clock, or one that a test moves.
///
/// Cost: an entry without a deadline reads no clock. One with a deadline reads it on every hit. On
/// Linux it reads the coarse clock, some 5 ns, and in the last tenth of a second before the
/// deadline the exact one. Elsewhere it always reads the exact clock: 20 to 50 ns.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

/// How far the coarse clock may be behind before an expired entry could be served: ten ticks of the
/// slowest kernel there is (`CONFIG_HZ=100`), for ticks that come late.
#[cfg(target_os = "linux")]
const SLACK: u64 = 100_000_000;

#[derive(Clone, Debug)]
enum Kind {
    System(System),
    #[cfg(any(test, feature = "test-util"))]
    Manual(ManualClock),
}

impl Clock {
    /// Returns the system's monotonic clock: that of [`Instant`](std::time::Instant). This is the
    /// default. On Linux it stands still while the machine sleeps: see
    /// [`time_to_live`](crate::Builder::time_to_live).
    pub fn system() -> Self {
        Self(Kind::System(System::new()))
    }

    /// Nanoseconds since this clock's origin, below [`NEVER`].
    pub(crate) fn now(&self) -> u64 {
        match &self.0 {
            Kind::System(system) => system.now().min(NEVER - 1),
            #[cfg(any(test, feature = "test-util"))]
            Kind::Manual(clock) => clock.nanos.load(Ordering::Acquire).min(NEVER - 1),
        }
    }

    /// Like [`now`](Self::now), but may be some milliseconds behind.
    pub(crate) fn lately(&self) -> u64 {
        match &self.0 {
            Kind::System(system) => system.lately().min(NEVER - 1),
            #[cfg(any(test, feature = "test-util"))]
            Kind::Manual(_) => self.now(),
        }
    }

    /// Whether a deadline has not come yet.
    #[inline]
    pub(crate) fn is_before(&self, deadline: u64) -> bool {
        match &self.0 {
            Kind::System(system) => system.is_before(deadline),
            #[cfg(any(test, feature = "test-util"))]
            Kind::Manual(_) => self.now() < deadline,
        }
    }

    /// The deadline of a value with this TTL that is published now.
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

/// The system's monotonic clock, and its first reading.
#[cfg(target_os = "linux")]
#[derive(Clone, Debug)]
struct System {
    origin: u64,
}

#[cfg(target_os = "linux")]
impl System {
    fn new() -> Self {
        // The coarse clock's reading, which is the lower one: neither clock is ever before it.
        let origin = Self::read(libc::CLOCK_MONOTONIC_COARSE);
        Self { origin }
    }

    fn now(&self) -> u64 {
        Self::read(libc::CLOCK_MONOTONIC).saturating_sub(self.origin)
    }

    fn lately(&self) -> u64 {
        Self::read(libc::CLOCK_MONOTONIC_COARSE).saturating_sub(self.origin)
    }

    /// The module's first chapter explains it. Not inlined, so that hits of other entries save no
    /// registers for it.
    #[inline(never)]
    fn is_before(&self, deadline: u64) -> bool {
        let deadline = self.origin.saturating_add(deadline);
        let lately = Self::read(libc::CLOCK_MONOTONIC_COARSE);
        match deadline.checked_sub(lately) {
            Some(left @ 1..) => left > SLACK || self.is_just_before(deadline),
            _ => false,
        }
    }

    #[cold]
    fn is_just_before(&self, deadline: u64) -> bool {
        Self::read(libc::CLOCK_MONOTONIC) < deadline
    }

    #[inline]
    #[allow(clippy::cast_sign_loss)]
    fn read(clock: libc::clockid_t) -> u64 {
        let mut time = std::mem::MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: the call writes to the place that the pointer points to. Both clocks are there
        // since Linux 2.6.32, and it fails for no other reason.
        let time = unsafe {
            libc::clock_gettime(clock, time.as_mut_ptr());
            time.assume_init()
        };
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }
}

/// The system's monotonic clock, and its first reading.
#[cfg(not(target_os = "linux"))]
#[derive(Clone, Debug)]
struct System {
    origin: std::time::Instant,
}

#[cfg(not(target_os = "linux"))]
impl System {
    fn new() -> Self {
        let origin = std::time::Instant::now();
        Self { origin }
    }

    fn now(&self) -> u64 {
        nanos(self.origin.elapsed())
    }

    /// No coarse clock is known to be as old as the rest of the system: this reads the exact one.
    fn lately(&self) -> u64 {
        self.now()
    }

    fn is_before(&self, deadline: u64) -> bool {
        self.now() < deadline
    }
}

/// The time of the system's coarse clock, whatever the cache's own is, in nanoseconds since some moment.
#[cfg(target_os = "linux")]
pub(crate) fn coarse_now() -> u64 {
    System::read(libc::CLOCK_MONOTONIC_COARSE)
}

/// The time of the system's clock, whatever the cache's own is, in nanoseconds since some moment.
#[cfg(not(target_os = "linux"))]
pub(crate) fn coarse_now() -> u64 {
    static ORIGIN: std::sync::LazyLock<std::time::Instant> =
        std::sync::LazyLock::new(std::time::Instant::now);
    // Not zero: the first stretch of time is over.
    nanos(ORIGIN.elapsed()) + (1 << 32)
}

/// The time at which a value stops being served.
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
/// cache.insert(1, 10);
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
    /// Returns a clock that stands at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the time forward by `span`. The clock stops at 2^63 - 1 nanoseconds (292 years), where
    /// every deadline has passed but that of an entry without one.
    pub fn advance(&self, span: Duration) {
        let span = nanos(span);
        let later = |now: u64| Some(now.saturating_add(span).min(NEVER));
        // Cannot fail: there is always a later time, or the same.
        let _ = (self.nanos).fetch_update(Ordering::AcqRel, Ordering::Acquire, later);
    }

    /// Sets the time to `since_start`, forward or back, to test the effects of a broken clock.
    /// Stops where [`advance`](Self::advance) does.
    pub fn set(&self, since_start: Duration) {
        self.nanos.store(nanos(since_start), Ordering::Release);
    }

    /// Returns the time since the clock's start.
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

#[cfg(all(test, not(atomic_cache_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_coarse_clock_is_never_ahead_and_never_wrong() {
        let clock = Clock::system();
        for _ in 0..10_000 {
            let (lately, now) = (clock.lately(), clock.now());
            assert!(lately <= now);
            // At its deadline, and after it, nothing is served ...
            assert!(!clock.is_before(now) && !clock.is_before(now / 2) && !clock.is_before(0));
            // ... and before it everything is, near it or not.
            let hour = 3_600_000_000_000;
            assert!(clock.is_before(clock.now() + hour) && clock.is_before(NEVER - 1));
            let (deadline, before) = (clock.now() + 50_000_000, clock.now());
            let is_before = clock.is_before(deadline);
            let after = clock.now();
            assert!(
                is_before || after >= deadline,
                "{before}, {deadline}, {after}"
            );
        }
    }
}
