//! Memory reclamation: frees an unlinked object when no reader can still hold it. Pin, retire,
//! quiesce.
//!
//! There are two engines of one shape: `pin`, `is_pinned`, a `Grace` that begins and is over, and
//! `advance`, which lets graces end. An engine guarantees one fact: **a thread that was pinned when
//! a grace began has been unpinned by the time it is over.**
//!
//! * `reclaim/asymmetric.rs`, ours, on Linux: a pin is two plain stores, and the freeing thread
//!   pays for both sides.
//! * `reclaim/crossbeam.rs`: crossbeam-epoch, the reference, everywhere else, and on Linux too with
//!   `--cfg atomic_cache_crossbeam`. The whole suite runs over both.
//!
//! All else is in `reclaim/domain.rs`, over either engine. An engine's own bags do not suit values
//! that belong to users:
//!
//! * **No garbage stays in a thread.** An object is retired to its cache's own queues.
//!   [`Domain::quiesce`] finds it there, even when the thread that retired it has gone to sleep.
//! * **No user code under a pin.** [`Domain::tidy`] drops objects while its thread holds no pin,
//!   and catches the panic of each drop: it counts the panic and drops the next object.
//! * **A domain of our own.** A long `crossbeam_epoch::pin()` elsewhere in the program keeps none
//!   of our garbage. All caches of a program share the pins; each cache has its own queues.
//!
//! The life of an object: *unlinked* by its owner, *retired* to a queue, *sealed* with others into
//! a batch, *ripe* after a grace period, *reaped*.

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
    Brief, Domain, Pin, deref, is_pinned, is_reaping, pin, pin_briefly, reach,
};
#[cfg(not(atomic_cache_loom))]
pub(crate) use domain::{Domain, is_reaping};
#[cfg(not(atomic_cache_loom))]
pub(crate) use engine::{Brief, Pin, is_pinned, pin, pin_briefly};

/// Drops an object and gives its memory back to `Home`.
pub(crate) type Reap = unsafe fn(*mut (), Home) -> Reaped;

/// The result of a [`Reap`].
#[derive(Clone, Copy, Default)]
pub(crate) struct Reaped {
    /// A destructor panicked.
    pub(crate) panicked: bool,
    /// It was retired as something large.
    pub(crate) large: bool,
    /// Its weight, in a domain that weighs: see [`Domain::retire_weighing`].
    pub(crate) weight: u64,
}

/// The allocator of a domain's objects, if that is not the program's. The address means something
/// only to the objects' [`Reap`].
pub(crate) type Home = *const ();

/// A retired object: its address, and how to drop it.
pub(crate) struct Garbage {
    object: *mut (),
    /// Called once, with `object` and the domain's home, when no thread can be reading the object
    /// any more. Catches the panics of user code.
    reap: Reap,
}

// SAFETY: the caller of `new` promises an object that may be dropped on any thread that may use its
// cache. A `Garbage` does nothing else with it.
unsafe impl Send for Garbage {}

impl Garbage {
    /// # Safety
    /// `object` is unlinked, retired nowhere else, and may be handed to `reap`, with the home of the
    /// domain that it is retired to, from any thread that may use the cache it belongs to.
    pub(crate) unsafe fn new(object: *mut (), reap: Reap) -> Self {
        Self { object, reap }
    }

    /// Takes a boxed object that was published with `Box::into_raw`.
    ///
    /// # Safety
    /// As for [`new`](Self::new), and `object` came from `Box::into_raw`.
    pub(crate) unsafe fn boxed<T>(object: *mut T) -> Self {
        unsafe fn reap<T>(object: *mut (), _: Home) -> Reaped {
            // SAFETY: the caller of `Garbage::boxed` promised a pointer from `Box::into_raw::<T>`,
            // and `reap` is called once.
            let panicked = contain(|| drop(unsafe { Box::from_raw(object.cast::<T>()) }));
            Reaped {
                panicked,
                ..Reaped::default()
            }
        }
        // SAFETY: our caller promises the same for `object`; `reap::<T>` fits a `Box<T>`.
        unsafe { Self::new(object.cast(), reap::<T>) }
    }

    /// Does what [`boxed`](Self::boxed) does, for `Domain::retire_large`.
    ///
    /// # Safety
    /// As for [`boxed`](Self::boxed).
    pub(crate) unsafe fn large<T>(object: *mut T) -> Self {
        unsafe fn reap<T>(object: *mut (), home: Home) -> Reaped {
            // SAFETY: the caller of `Garbage::large` promised what `boxed` asks for, and `reap` is
            // called once.
            let reaped = unsafe { Garbage::boxed(object.cast::<T>()).reap(home) };
            Reaped {
                large: true,
                ..reaped
            }
        }
        // SAFETY: our caller promises the same for `object`; `reap::<T>` fits a `Box<T>`.
        unsafe { Self::new(object.cast(), reap::<T>) }
    }

    /// Takes a counted object that was published with `Arc::into_raw`: reaping gives that count up.
    ///
    /// # Safety
    /// As for [`new`](Self::new), and `object` came from `Arc::into_raw`.
    pub(crate) unsafe fn counted<T>(object: *const T) -> Self {
        unsafe fn reap<T>(object: *mut (), _: Home) -> Reaped {
            // SAFETY: the caller of `Garbage::counted` promised a pointer from
            // `Arc::into_raw::<T>`, and `reap` is called once.
            let panicked = contain(|| drop(unsafe { Arc::from_raw(object.cast::<T>()) }));
            Reaped {
                panicked,
                ..Reaped::default()
            }
        }
        // SAFETY: our caller promises the same for `object`; `reap::<T>` fits an `Arc<T>`.
        unsafe { Self::new(object.cast_mut().cast(), reap::<T>) }
    }

    /// Drops the object.
    pub(crate) fn reap(self, home: Home) -> Reaped {
        // SAFETY: `self` is consumed, so this is the only call. The caller has waited for the grace
        // period, or owns the domain alone. The caller of `new` promised the rest.
        unsafe { (self.reap)(self.object, home) }
    }

    #[cfg(atomic_cache_loom)]
    pub(crate) fn address(&self) -> usize {
        self.object as usize
    }
}

/// Lends a shared object for as long as the pin that `'p` borrows. (The models check here that it has not been freed.)
///
/// # Safety
/// `object` was reachable, or held, at some moment since that pin was taken.
#[cfg(not(atomic_cache_loom))]
#[inline(always)]
pub(crate) unsafe fn reach<'p, T>(object: *const T) -> &'p T {
    // SAFETY: the caller's promise: what is unlinked after the pin was taken is freed only after the pin is dropped.
    unsafe { &*object }
}

/// Borrows a shared object, which `_pin` protects. (The models check here that it is not freed.)
///
/// # Safety
/// `object` was reachable, or held, at some moment since `_pin` was taken.
#[cfg(not(atomic_cache_loom))]
#[inline(always)]
pub(crate) unsafe fn deref<T>(object: *const T, _pin: &Pin) -> &T {
    // SAFETY: by the caller's promise the object has not been reaped: an object that is unlinked
    // after the pin was taken ripens only after the pin is dropped.
    unsafe { &*object }
}
