//! The one source of atomics, locks, parking and thread identity.
//!
//! All other files take these names from here. So a build with `--cfg atomic_cache_loom` swaps all
//! of them for loom's, and the models see every access.

#[cfg(not(atomic_cache_loom))]
mod real {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
    pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard};
    pub(crate) use std::thread::yield_now;

    /// A number that orders nothing and decides nothing. Under loom too it is std's, so that a
    /// model explores no interleavings for it.
    pub(crate) type Tally = std::sync::atomic::AtomicU64;

    /// The value cell of a slot; loom's has the same shape and checks every access for a race.
    #[derive(Debug)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        #[inline(always)]
        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }

    /// Returns `n` words of zero. Large tables come straight from the kernel's zero pages, which
    /// cost nothing until they are touched.
    pub(crate) fn zeroed_words(n: usize) -> Box<[AtomicU64]> {
        let words: Box<[u64]> = vec![0_u64; n].into_boxed_slice();
        // SAFETY: `AtomicU64` has the size and bit validity of `u64`, and on the 64-bit targets
        // this crate is limited to (lib.rs) the same alignment; the box is owned.
        unsafe { Box::from_raw(Box::into_raw(words) as *mut [AtomicU64]) }
    }

    /// Orders an earlier `SeqCst` read-modify-write before later `SeqCst` loads.
    ///
    /// In the language's model and on every target the accesses alone do that, so this is empty
    /// here. loom treats `SeqCst` accesses as `AcqRel`. There this is a fence, which gives the
    /// model the strength that the program has.
    #[inline(always)]
    pub(crate) fn store_load() {}

    /// One turn of a short, bounded wait for another thread's next instruction.
    #[inline]
    pub(crate) fn relax(turn: u32) {
        if turn < 64 {
            std::hint::spin_loop();
        } else {
            yield_now();
        }
    }

    /// One turn of a wait that may be long: does what [`relax`] does at first, and then sleeps,
    /// longer each time, up to a millisecond.
    pub(crate) fn back_off(turn: u32) {
        const YIELDS: u32 = 72;
        if turn < YIELDS {
            return relax(turn);
        }
        let micros = 16_u64 << (turn - YIELDS).min(6);
        std::thread::sleep(std::time::Duration::from_micros(micros.min(1_000)));
    }

    /// Turns of [`relax`] for a thread that is between two instructions.
    pub(crate) const PATIENCE: u32 = if cfg!(test) { 1 } else { 80 };

    macro_rules! thread_cell {
        ($(#[$attr:meta])* $name:ident: $ty:ty = $init:expr) => {
            std::thread_local! {
                $(#[$attr])*
                // `const` and without a destructor: readable until the thread's very end, also
                // from the destructors of other thread-locals.
                static $name: std::cell::Cell<$ty> = const { std::cell::Cell::new($init) };
            }
        };
    }

    macro_rules! global {
        ($(#[$attr:meta])* $name:ident: $ty:ty = $init:expr) => {
            $(#[$attr])*
            pub(crate) static $name: std::sync::LazyLock<$ty> = std::sync::LazyLock::new(|| $init);
        };
    }

    pub(crate) use {global, thread_cell};
}

#[cfg(atomic_cache_loom)]
mod real {
    pub(crate) use loom::cell::UnsafeCell as LoomCell;
    pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use loom::thread::yield_now;
    pub(crate) use std::sync::Arc;

    pub(crate) type Tally = std::sync::atomic::AtomicU64;

    #[derive(Debug)]
    pub(crate) struct UnsafeCell<T>(LoomCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(LoomCell::new(value))
        }

        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            self.0.with(f)
        }

        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            self.0.with_mut(f)
        }
    }

    pub(crate) fn zeroed_words(n: usize) -> Box<[AtomicU64]> {
        (0..n).map(|_| AtomicU64::new(0)).collect()
    }

    pub(crate) fn store_load() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }

    pub(crate) fn relax(_turn: u32) {
        yield_now();
    }

    pub(crate) fn back_off(turn: u32) {
        relax(turn);
    }

    pub(crate) const PATIENCE: u32 = 1;

    macro_rules! thread_cell {
        ($(#[$attr:meta])* $name:ident: $ty:ty = $init:expr) => {
            loom::thread_local! {
                $(#[$attr])*
                static $name: std::cell::Cell<$ty> = std::cell::Cell::new($init);
            }
        };
    }

    macro_rules! global {
        ($(#[$attr:meta])* $name:ident: $ty:ty = $init:expr) => {
            loom::lazy_static! {
                $(#[$attr])*
                pub(crate) static ref $name: $ty = $init;
            }
        };
    }

    pub(crate) use {global, thread_cell};
}

pub(crate) use real::*;

#[cfg(any(
    atomic_cache_loom,
    all(target_os = "linux", not(atomic_cache_crossbeam))
))]
pub(crate) mod barrier;

/// Names that no model has: a thread of our own, and its way to sleep.
pub(crate) mod os {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    pub(crate) use std::sync::{Arc, Condvar, Mutex, PoisonError};
    pub(crate) use std::thread;
}

/// Asks the processor to fetch the memory at an address that will be read soon. Only a hint: does
/// nothing where the target has none.
#[inline(always)]
pub(crate) fn prefetch(address: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and faults on no address; SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::without_provenance(address)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Takes a lock whose critical sections never panic, so poisoning carries no news.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Puts one thread to sleep until it is woken. It becomes a [`Waker`](std::task::Waker), so that a
/// flight's waitlist holds threads and tasks alike.
#[derive(Debug)]
pub(crate) struct Parker {
    woken: Mutex<bool>,
    bell: Condvar,
}

impl Parker {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            woken: Mutex::new(false),
            bell: Condvar::new(),
        })
    }

    /// Sleeps until the next wake. A wake before the call is not lost.
    pub(crate) fn park(&self) {
        let mut woken = lock(&self.woken);
        while !*woken {
            woken = self
                .bell
                .wait(woken)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        *woken = false;
    }

    /// In a model every deadline has passed already: a waiter with a deadline leaves at once,
    /// whatever the other threads have done by then.
    #[cfg(atomic_cache_loom)]
    pub(crate) fn park_until(&self, _: std::time::Instant) -> bool {
        false
    }

    /// Does what [`park`](Self::park) does, until `deadline` at most; returns false if that passes
    /// first.
    #[cfg(not(atomic_cache_loom))]
    pub(crate) fn park_until(&self, deadline: std::time::Instant) -> bool {
        let mut woken = lock(&self.woken);
        while !*woken {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return false;
            }
            woken = self
                .bell
                .wait_timeout(woken, left)
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .0;
        }
        *woken = false;
        true
    }
}

impl std::task::Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        *lock(&self.woken) = true;
        self.bell.notify_one();
    }
}
