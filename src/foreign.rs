//! Foreign code that nobody is there to take a panic from: destructors and wakers.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs foreign code whose panic nobody is there to take; true when it did panic.
///
/// What it panicked with is dropped, and that may panic in its turn; what that panics with is
/// leaked rather than tried for ever.
pub(crate) fn contain(foreign: impl FnOnce()) -> bool {
    let Err(payload) = catch_unwind(AssertUnwindSafe(foreign)) else {
        return false;
    };
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(payload);
    }
    true
}
