//! Who may still be reading what has been unlinked: pin, retire, quiesce.
//!
//! There are two engines of one shape: `pin`, `is_pinned`, a `Grace` that begins and is over, and
//! `advance`, which lets it end. What an engine gives is one fact: **a thread that was pinned when a
//! grace began has been unpinned by the time it is over.**
//!
//! * `reclaim/asymmetric.rs`, ours, on Linux: a pin is two plain stores, and who frees pays for both
//!   sides.
//! * `reclaim/crossbeam.rs`: crossbeam-epoch, the reference, everywhere else, and on Linux too with
//!   `--cfg atomic_cache_crossbeam`. The whole suite runs over both.
//!
//! All else is in `reclaim/domain.rs`, over either, because no engine's own bags do for values that
//! belong to users:
//!
//! * **Nothing is kept in a thread.** An object is retired to its cache's own queues, where
//!   [`Domain::quiesce`] finds it even when the thread that retired it has gone to sleep.
//! * **No foreign code under a pin.** Objects are dropped by [`Domain::tidy`], with no pin held by
//!   this thread, and each drop is contained: one that panics is counted and the next goes on.
//! * **A domain of our own.** A long `crossbeam_epoch::pin()` elsewhere in the program keeps
//!   none of our garbage. All caches of a program share the pins, each has its own queues.
//!
//! An object goes: *unlinked* by its owner, *retired* to a queue, *sealed* with up to 63 others
//! into a batch, *ripe* after a grace period, *reaped*.

use crate::foreign::contain;
use std::sync::Arc;

#[cfg(any(
    atomic_cache_loom,
    all(target_os = "linux", not(atomic_cache_crossbeam))
))]
pub(crate) mod asymmetric;
#[cfg(all(
    not(atomic_cache_loom),
    any(not(target_os = "linux"), atomic_cache_crossbeam)
))]
mod crossbeam;
#[cfg(not(atomic_cache_loom))]
mod domain;

#[cfg(all(
    not(atomic_cache_loom),
    target_os = "linux",
    not(atomic_cache_crossbeam)
))]
use asymmetric::process as engine;
#[cfg(all(
    not(atomic_cache_loom),
    any(not(target_os = "linux"), atomic_cache_crossbeam)
))]
use crossbeam as engine;

#[cfg(atomic_cache_loom)]
pub(crate) use crate::tests::reclaim_checker::{
    Brief, Domain, Pin, deref, is_pinned, is_reaping, pin, pin_briefly,
};
#[cfg(not(atomic_cache_loom))]
pub(crate) use domain::{Domain, is_reaping};
#[cfg(not(atomic_cache_loom))]
pub(crate) use engine::{Brief, Pin, is_pinned, pin, pin_briefly};

/// Drops an object, which goes back to its home.
pub(crate) type Reap = unsafe fn(*mut (), Home) -> Reaped;

/// What came of that.
#[derive(Clone, Copy, Default)]
pub(crate) struct Reaped {
    /// A destructor panicked.
    pub(crate) panicked: bool,
    /// It was retired as something large.
    pub(crate) large: bool,
    /// What it weighed, of a domain that weighs: see [`Domain::retire_weighing`].
    pub(crate) weight: u64,
}

/// Where the memory of a domain's objects comes from, if it is not the program's allocator: an address
/// that only its objects' [`Reap`] knows what to do with.
pub(crate) type Home = *const ();

/// A retired object: where it is, and how to drop it.
pub(crate) struct Garbage {
    object: *mut (),
    /// Called once, with `object` and the domain's home, when nobody can be reading it any more.
    /// Contains what panics.
    reap: Reap,
}

// SAFETY: `new` was promised an object that may be dropped on any thread that may use its cache, and
// nothing else is ever done with it.
unsafe impl Send for Garbage {}

impl Garbage {
    /// # Safety
    /// `object` is unlinked, retired nowhere else, and may be handed to `reap`, with the home of the
    /// domain that it is retired to, from any thread that may use the cache it belongs to.
    pub(crate) unsafe fn new(object: *mut (), reap: Reap) -> Self {
        Self { object, reap }
    }

    /// A boxed object that was published with `Box::into_raw`.
    ///
    /// # Safety
    /// As for [`new`](Self::new), and `object` came from `Box::into_raw`.
    pub(crate) unsafe fn boxed<T>(object: *mut T) -> Self {
        unsafe fn reap<T>(object: *mut (), _: Home) -> Reaped {
            // SAFETY: `Garbage::boxed` was promised a pointer from `Box::into_raw::<T>`, and
            // `reap` is called once.
            let panicked = contain(|| drop(unsafe { Box::from_raw(object.cast::<T>()) }));
            Reaped {
                panicked,
                ..Reaped::default()
            }
        }
        // SAFETY: passed on to our caller.
        unsafe { Self::new(object.cast(), reap::<T>) }
    }

    /// As [`boxed`](Self::boxed), for `Domain::retire_large`.
    ///
    /// # Safety
    /// As for [`boxed`](Self::boxed).
    pub(crate) unsafe fn large<T>(object: *mut T) -> Self {
        unsafe fn reap<T>(object: *mut (), home: Home) -> Reaped {
            // SAFETY: as promised to `Garbage::large`, which promised it to this one.
            let reaped = unsafe { Garbage::boxed(object.cast::<T>()).reap(home) };
            Reaped {
                large: true,
                ..reaped
            }
        }
        // SAFETY: passed on to our caller.
        unsafe { Self::new(object.cast(), reap::<T>) }
    }

    /// A counted object that was published with `Arc::into_raw`: that count is given up.
    ///
    /// # Safety
    /// As for [`new`](Self::new), and `object` came from `Arc::into_raw`.
    pub(crate) unsafe fn counted<T>(object: *const T) -> Self {
        unsafe fn reap<T>(object: *mut (), _: Home) -> Reaped {
            // SAFETY: `Garbage::counted` was promised a pointer from `Arc::into_raw::<T>`, and
            // `reap` is called once.
            let panicked = contain(|| drop(unsafe { Arc::from_raw(object.cast::<T>()) }));
            Reaped {
                panicked,
                ..Reaped::default()
            }
        }
        // SAFETY: passed on to our caller.
        unsafe { Self::new(object.cast_mut().cast(), reap::<T>) }
    }

    /// Drops the object.
    pub(crate) fn reap(self, home: Home) -> Reaped {
        // SAFETY: `self` is consumed, so this is the one call; the caller has waited out the grace
        // period or owns the domain alone, and `new` promised the rest.
        unsafe { (self.reap)(self.object, home) }
    }

    #[cfg(atomic_cache_loom)]
    pub(crate) fn address(&self) -> usize {
        self.object as usize
    }
}

/// A look at a shared object, which `_pin` keeps. (The models check here that it has not been
/// freed.)
///
/// # Safety
/// `object` was reachable, or held, at some moment since `_pin` was taken.
#[cfg(not(atomic_cache_loom))]
#[inline(always)]
pub(crate) unsafe fn deref<T>(object: *const T, _pin: &Pin) -> &T {
    // SAFETY: by the caller's promise it has not been reaped: what is unlinked after the pin
    // was taken ripens only after it is let go.
    unsafe { &*object }
}
