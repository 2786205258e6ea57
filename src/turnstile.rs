//! A door for one at a time, at which nobody waits: who finds it taken goes elsewhere.
//!
//! One locked instruction to go in, none to go out. (A mutex takes two, and has waiters to look after.)
//! Orderings: in with Acquire, out with Release: what is done inside is seen by whoever is next.

use crate::sync::{AtomicUsize, Ordering, UnsafeCell};

/// Something that one thread at a time has for itself.
pub(crate) struct Turnstile<T> {
    taken: AtomicUsize,
    inside: UnsafeCell<T>,
}

// SAFETY: one thread at a time has what is inside, handed on with Release and Acquire.
unsafe impl<T: Send> Sync for Turnstile<T> {}

impl<T> Turnstile<T> {
    #[cfg(not(atomic_cache_loom))]
    pub(crate) const fn new(inside: T) -> Self {
        Self {
            taken: AtomicUsize::new(0),
            inside: UnsafeCell::new(inside),
        }
    }

    #[cfg(atomic_cache_loom)]
    pub(crate) fn new(inside: T) -> Self {
        Self {
            taken: AtomicUsize::new(0),
            inside: UnsafeCell::new(inside),
        }
    }

    /// Does something with what is inside, unless somebody is in there. `f` runs nothing foreign.
    #[inline]
    pub(crate) fn try_in<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        if self.taken.swap(1, Ordering::Acquire) != 0 {
            return None;
        }
        let _leaves = Leaves(&self.taken);
        // SAFETY: the flag is ours, so nobody else is in here.
        Some(self.inside.with_mut(|inside| f(unsafe { &mut *inside })))
    }
}

/// Lets the next one in, also after a panic.
struct Leaves<'a>(&'a AtomicUsize);

impl Drop for Leaves<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}
