//! The reference engine: crossbeam-epoch.
//!
//! It runs deferred functions inside any thread's `pin()`. Ours only raises the flag of a grace.

use crate::sync::{Arc, AtomicBool, Ordering};
use crossbeam_epoch::{Collector, Guard, LocalHandle};
use std::cell::Cell;
use std::sync::LazyLock;

/// How many epochs must pass before a grace is over, and one more to find that out. Each flush may
/// pass one.
pub(super) const ADVANCES: usize = 4;

static COLLECTOR: LazyLock<Collector> = LazyLock::new(Collector::new);

thread_local! {
    static HANDLE: LocalHandle = COLLECTOR.register();
    /// The number of pins that this thread holds which were taken late: see [`Late`].
    static LATE_PINS: Cell<usize> = const { Cell::new(0) };
}

/// While it lives, no object that this thread can reach is freed.
pub(crate) struct Pin {
    guard: Guard,
    _late: Late,
}

/// Whether a pin was taken in the destructors of this thread's thread-locals. There the thread's
/// own handle is gone and cannot say that the thread is pinned.
struct Late(bool);

impl Drop for Late {
    #[inline(always)]
    fn drop(&mut self) {
        if self.0 {
            LATE_PINS.set(LATE_PINS.get() - 1);
        }
    }
}

/// Pins the thread: about 11 ns, and almost nothing when it is pinned already.
#[inline]
pub(crate) fn pin() -> Pin {
    // In the destructors of thread-locals the handle may be gone: then a new one serves for this
    // pin alone.
    match HANDLE.try_with(LocalHandle::pin) {
        Ok(guard) => Pin {
            guard,
            _late: Late(false),
        },
        Err(_) => pin_late(),
    }
}

/// A pin for one look-up. This engine has no shorter one.
pub(crate) type Brief = Box<Pin>;

/// Returns `None`, so that the caller takes the slow path.
#[inline]
pub(crate) fn pin_briefly() -> Option<Brief> {
    None
}

#[cold]
fn pin_late() -> Pin {
    LATE_PINS.set(LATE_PINS.get() + 1);
    Pin {
        guard: COLLECTOR.register().pin(),
        _late: Late(true),
    }
}

/// Returns whether this thread holds a pin.
pub(crate) fn is_pinned() -> bool {
    HANDLE
        .try_with(LocalHandle::is_pinned)
        .unwrap_or(LATE_PINS.get() > 0)
}

/// A period. Every thread that was pinned at its beginning has been unpinned by its end.
///
/// The engine raises the flag. Release there, Acquire in `is_over`: the reads under the pins it
/// waited for come before the steps of the thread that sees the flag.
pub(super) struct Grace(Arc<AtomicBool>);

impl Grace {
    /// Begins now. An object that was unlinked before is out of reach of later pins.
    pub(super) fn begin() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let flag = over.clone();
        let pin = pin();
        pin.guard.defer(move || flag.store(true, Ordering::Release));
        // The engine keeps deferred functions in the thread until a flush.
        pin.guard.flush();
        Self(over)
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Ends the graces that no pinned thread holds up.
pub(super) fn advance() {
    pin().guard.flush();
}

/// Does what [`advance`] does: with this engine every thread does its part.
pub(super) fn advance_for_all() {
    advance();
}
