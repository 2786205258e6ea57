//! Schedules for tests: what happens at a named place, in the middle of another thread's step.
//!
//! [`come_by`] is called at the places where the exact moment matters; it is nothing but in this crate's own
//! tests. There, `at` says what the calling thread does when it next comes by.

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

    /// When this thread comes by a place, it does what is said of that, if that is the next thing said.
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

    /// What this thread does when it comes by a place, after all that was said before.
    pub(crate) fn at(place: &'static str, act: impl FnOnce() + 'static) {
        NEXT.with(|all| all.borrow_mut().push((place, Box::new(act))));
    }

    /// Whether all that was said so far has been done.
    pub(crate) fn is_done() -> bool {
        NEXT.with_borrow(Vec::is_empty)
    }

    /// Whether all that was said has been done; what has not been is forgotten.
    pub(crate) fn all_done() -> bool {
        NEXT.take().is_empty()
    }
}
