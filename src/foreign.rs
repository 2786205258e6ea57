//! Foreign code that nobody is there to take a panic from: destructors, wakers, and the keys'
//! traits where they are not asked for their caller's sake.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs foreign code whose panic nobody is there to take; true when it did panic.
///
/// What it panicked with is dropped, and that may panic in its turn; what that panics with is
/// leaked rather than tried for ever.
pub(crate) fn contain(foreign: impl FnOnce()) -> bool {
    answer_of(foreign).is_none()
}

/// As [`contain`], of foreign code that answers; `None` when it panicked.
pub(crate) fn answer_of<R>(foreign: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(foreign)) {
        Ok(answer) => Some(answer),
        Err(payload) => {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                std::mem::forget(payload);
            }
            None
        }
    }
}
