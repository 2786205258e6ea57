//! The reference engine: crossbeam-epoch.
//!
//! It collects inside somebody's `pin()`. There it only raises the flag of a grace that is over.

use crate::sync::{Arc, AtomicBool, Ordering};
use crossbeam_epoch::{Collector, Guard, LocalHandle};
use std::cell::Cell;
use std::sync::LazyLock;

/// How many times the engine must move its epoch on before a grace is over, and once more to find
/// that out. It moves on once a flush.
pub(super) const ADVANCES: usize = 4;

static COLLECTOR: LazyLock<Collector> = LazyLock::new(Collector::new);

thread_local! {
    static HANDLE: LocalHandle = COLLECTOR.register();
    /// Pins that this thread has taken late: see [`Late`].
    static LATE_PINS: Cell<usize> = const { Cell::new(0) };
}

/// While it lives, nothing that this thread can reach is freed.
pub(crate) struct Pin {
    guard: Guard,
    _late: Late,
}

/// Whether a pin was taken in the destructors of this thread's thread-locals, where the thread's own
/// handle is gone and cannot say that it is pinned.
struct Late(bool);

impl Drop for Late {
    #[inline(always)]
    fn drop(&mut self) {
        if self.0 {
            LATE_PINS.set(LATE_PINS.get() - 1);
        }
    }
}

/// Pins the thread: about 11 ns, and nothing when it is pinned already.
#[inline]
pub(crate) fn pin() -> Pin {
    // In the destructors of thread-locals the handle may be gone: a fresh one then serves for this
    // pin alone.
    match HANDLE.try_with(LocalHandle::pin) {
        Ok(guard) => Pin {
            guard,
            _late: Late(false),
        },
        Err(_) => pin_late(),
    }
}

/// The pin of one look: this engine has none that is shorter.
pub(crate) type Brief = Box<Pin>;

/// None, so that the long way is taken.
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

/// Whether this thread holds a pin.
pub(crate) fn is_pinned() -> bool {
    HANDLE
        .try_with(LocalHandle::is_pinned)
        .unwrap_or(LATE_PINS.get() > 0)
}

/// A time after which nobody is pinned any more who was when it began.
///
/// The flag is raised by the engine. Release there, Acquire in `is_over`: what readers did under
/// their pins comes before what is done after it.
pub(super) struct Grace(Arc<AtomicBool>);

impl Grace {
    /// Begins now. What was unlinked before is out of reach for all who pin after.
    pub(super) fn begin() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let flag = over.clone();
        let pin = pin();
        pin.guard.defer(move || flag.store(true, Ordering::Release));
        // The engine keeps deferred functions in the thread until told otherwise.
        pin.guard.flush();
        Self(over)
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Lets graces end, if nobody holds them up.
pub(super) fn advance() {
    pin().guard.flush();
}

/// As [`advance`]: every thread does its part.
pub(super) fn advance_for_all() {
    advance();
}
