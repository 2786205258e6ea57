#![doc = include_str!("../README.md")]
// One state machine for threads and tasks: without the methods of tasks, parts of it have no user.
#![cfg_attr(not(feature = "async"), allow(dead_code, unused_imports))]

#[cfg(not(target_pointer_width = "64"))]
compile_error!(
    "atomic-cache packs a 48-bit pointer, a tag and the clock bits of an entry into one 64-bit \
     word: it needs a 64-bit target"
);

#[cfg(all(target_os = "android", target_arch = "aarch64"))]
compile_error!(
    "atomic-cache packs the address of an entry into 48 bits, and the allocator of 64-bit Android \
     puts a tag into the highest byte of its addresses"
);

mod actor;
mod atomic_cache;
mod blocking;
mod bound;
mod builder;
mod byte_size;
mod cache;
pub mod contract;
mod core;
mod cycle;
mod entry;
mod error;
mod fill;
mod flight;
mod foreign;
#[cfg(feature = "async")]
mod future;
mod guard;
pub mod how_a_hit_works;
mod in_flight;
mod interlude;
pub mod internals;
mod janitor;
mod key;
mod listener;
mod memoize;
mod pages;
mod pinned;
mod policy;
mod reclaim;
mod runtime;
mod slab;
mod slot;
mod stats;
mod sync;
mod table;
mod time;
mod turnstile;
mod weigh;
pub mod which_verb;

#[cfg(any(test, atomic_cache_loom))]
mod tests;

pub use crate::atomic_cache::AtomicCache;
pub use crate::builder::{Builder, NamedKeys, Naming, OpaqueKeys};
pub use crate::byte_size::{ByteSize, ByteSizeError};
pub use crate::cache::{Cache, DefaultHashBuilder, Iter};
pub use crate::entry::{CompResult, Entry, EntrySelector, Op};
pub use crate::error::{BuildError, ClosedError, CycleError, OversizeError, TryGetError};
pub use crate::guard::{GuardResult, PlaceholderGuard};
#[cfg(feature = "async")]
pub use crate::guard::{TaskGuard, TaskGuardResult};
pub use crate::in_flight::{InFlight, LedBy};
#[doc(hidden)]
pub use crate::key::IsKey;
pub use crate::key::{Equivalent, ToKey};
pub use crate::listener::RemovalCause;
#[doc(hidden)]
pub use crate::memoize::__memoize;
pub use crate::pinned::{AtomicPinned, Pinned, PinnedIter};
pub use crate::stats::CacheStats;
pub use crate::time::Clock;
#[cfg(any(test, feature = "test-util"))]
pub use crate::time::ManualClock;
pub use crate::weigh::Weigh;
