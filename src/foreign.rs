//! Catches panics of user code where no caller could take them: destructors, wakers, and the keys'
//! traits where the cache calls them for itself.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs user code and catches its panic; returns true if it panicked.
///
/// The panic's payload is dropped, and that may panic in its turn. The payload of that panic is
/// leaked, because dropping it could go on for ever.
pub(crate) fn contain(foreign: impl FnOnce()) -> bool {
    answer_of(foreign).is_none()
}

/// Does what [`contain`] does for user code that returns a value; `None` if it panicked.
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
