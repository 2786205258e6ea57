//! Schedules for tests: run code at a named place, in the middle of another thread's step.
//!
//! [`come_by`] marks the places where the exact moment matters; it is empty outside this crate's
//! own tests. There, `at` sets the action of the calling thread for its next pass.

#[cfg(any(not(test), atomic_cache_loom))]
#[inline(always)]
pub(crate) fn come_by(_place: &str) {}

#[cfg(all(test, not(atomic_cache_loom)))]
pub(crate) use tests::{all_done, at, come_by};

#[cfg(all(test, not(atomic_cache_loom)))]
pub(crate) mod tests {
    use std::cell::RefCell;

    type Act = Box<dyn FnOnce()>;

    thread_local! {
        static NEXT: RefCell<Vec<(&'static str, Act)>> = const { RefCell::new(Vec::new()) };
    }

    /// Runs this thread's next action, if it is one for this place.
    pub(crate) fn come_by(place: &str) {
        let next = NEXT.with(|all| {
            let mut all = all.borrow_mut();
            let is_next = all.first().is_some_and(|(name, _)| *name == place);
            is_next.then(|| all.remove(0))
        });
        if let Some((_, act)) = next {
            act();
        }
    }

    /// Sets an action for this thread's pass of a place, after all actions set before.
    pub(crate) fn at(place: &'static str, act: impl FnOnce() + 'static) {
        NEXT.with(|all| all.borrow_mut().push((place, Box::new(act))));
    }

    /// Returns whether all actions set so far have run.
    pub(crate) fn is_done() -> bool {
        NEXT.with_borrow(Vec::is_empty)
    }

    /// Returns whether all actions have run, and forgets the rest.
    pub(crate) fn all_done() -> bool {
        NEXT.take().is_empty()
    }
}
