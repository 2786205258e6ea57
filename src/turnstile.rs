//! A try-lock without a queue: a thread that finds it taken does not wait, but goes on elsewhere.
//!
//! One locked instruction to enter, none to leave. (A mutex takes two, and has waiters to look
//! after.) Orderings: Acquire to enter, Release to leave, so the next thread inside sees all that
//! the previous one did there.

use crate::sync::{AtomicUsize, Ordering, UnsafeCell};

/// A value that one thread at a time has for itself.
pub(crate) struct Turnstile<T> {
    taken: AtomicUsize,
    inside: UnsafeCell<T>,
}

// SAFETY: one thread at a time has the value, handed on with Release and Acquire.
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

    /// Runs `f` on the value, or returns `None` if another thread is inside. `f` runs no user code.
    #[inline]
    pub(crate) fn try_in<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        if self.taken.swap(1, Ordering::Acquire) != 0 {
            return None;
        }
        let _leaves = Leaves(&self.taken);
        // SAFETY: we have swapped the flag from 0 to 1, so no other thread is inside until `Leaves`
        // resets it.
        Some(self.inside.with_mut(|inside| f(unsafe { &mut *inside })))
    }
}

/// Lets the next thread in, also after a panic.
struct Leaves<'a>(&'a AtomicUsize);

impl Drop for Leaves<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}
