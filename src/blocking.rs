//! Contexts where a thread may not sleep: inside a poll of one of our futures, or inside an async
//! context.
//!
//! A thread that sleeps there may wait for itself: the fill may be another future of the same task,
//! or another task of the same runtime. So the wait is refused with a panic that names the methods
//! to use instead. A wait that closes a cycle is an error before that. A result that is ready needs
//! no wait.

use crate::runtime::forbids_blocking;
use crate::sync::thread_cell;
use std::marker::PhantomData;

thread_cell! {
    /// The polls, creations and drops of our futures that this thread is in. Hits are not counted.
    POLLS: usize = 0
}

/// While it lives, this thread is inside a future of ours. Not `Send`: it belongs to this thread.
pub(crate) struct InPoll {
    _this_thread: PhantomData<*const ()>,
}

/// See [`InPoll`].
pub(crate) fn in_poll() -> InPoll {
    POLLS.with(|polls| polls.set(polls.get() + 1));
    InPoll {
        _this_thread: PhantomData,
    }
}

impl Drop for InPoll {
    fn drop(&mut self) {
        POLLS.with(|polls| polls.set(polls.get() - 1));
    }
}

/// A method that may block its thread, and the methods to use where that is not possible.
pub(crate) struct Verb {
    name: &'static str,
    instead: &'static str,
    /// Whether it is a removal, which can do without its wait.
    removes: bool,
}

impl Verb {
    const fn fills(name: &'static str, instead: &'static str) -> Self {
        Self {
            name,
            instead,
            removes: false,
        }
    }

    const fn removes(name: &'static str, instead: &'static str) -> Self {
        Self {
            name,
            instead,
            removes: true,
        }
    }

    /// Returns where this thread is, if it may not sleep there.
    pub(crate) fn forbidden() -> Option<&'static str> {
        if POLLS.with(std::cell::Cell::get) > 0 {
            return Some("inside a poll of one of this crate's futures");
        }
        forbids_blocking().then_some("inside an async task")
    }

    /// Returns whether the method may skip its wait: this thread unwinds, so a panic would end the
    /// program.
    pub(crate) fn goes_on(&self) -> bool {
        self.removes && std::thread::panicking()
    }

    #[track_caller]
    #[cold]
    pub(crate) fn refuse(&self, place: &str) -> ! {
        panic!(
            "`{}` would block this thread, which is {place}, until a fill ends: use {}",
            self.name, self.instead
        )
    }
}

/// The methods that may block.
pub(crate) mod verbs {
    use super::Verb;

    macro_rules! verbs {
        ($($kind:ident $verb:ident $name:literal: $instead:literal;)*) => {
            $(pub(crate) static $verb: Verb = Verb::$kind($name, $instead);)*
        };
    }

    verbs! {
        fills GET_WITH "Cache::get_with":
            "`get_with_async`, or `get`, which does not wait";
        fills TRY_GET_WITH "Cache::try_get_with":
            "`try_get_with_async`, or `get`, which does not wait";
        fills OPTIONALLY_GET_WITH "Cache::optionally_get_with":
            "`optionally_get_with_async`, or `get`, which does not wait";
        fills GET_VALUE_OR_GUARD "Cache::get_value_or_guard":
            "`get_value_or_guard_async`, or `get`, which does not wait";
        fills OR_INSERT "EntrySelector::or_insert":
            "`or_insert_with_async`, or `Cache::get`, which does not wait";
        fills OR_INSERT_WITH "EntrySelector::or_insert_with":
            "`or_insert_with_async`, or `Cache::get`, which does not wait";
        fills OR_TRY_INSERT_WITH "EntrySelector::or_try_insert_with":
            "`or_try_insert_with_async`, or `Cache::get`, which does not wait";
        fills AND_COMPUTE_WITH "EntrySelector::and_compute_with":
            "`and_compute_with_async`, or `Cache::insert`, which does not wait";
        fills GET_OR_FILL_WITH "Pinned::get_or_fill_with":
            "`Cache::get_with_async`, or `get`, which does not wait";
        fills TRY_GET_OR_FILL_WITH "Pinned::try_get_or_fill_with":
            "`Cache::try_get_with_async`, or `get`, which does not wait";
        fills GET_OR_FILL "AtomicPinned::get_or_fill":
            "`AtomicCache::get_async`, or `get`, which does not wait";
        fills TRY_GET_OR_FILL "AtomicPinned::try_get_or_fill":
            "`AtomicCache::try_get_async`, or `get`, which does not wait";
        fills GET "AtomicCache::get":
            "`get_async`, or `peek`, which does not wait";
        fills WITH "AtomicCache::with":
            "`with_async`, or `peek`, which does not wait";
        fills TRY_GET "AtomicCache::try_get":
            "`try_get_async`, or `peek`, which does not wait";
        fills REFRESH "AtomicCache::refresh":
            "`refresh_async`, or `invalidate_nowait`, which does not wait";
        fills TRY_REFRESH "AtomicCache::try_refresh":
            "`try_refresh_async`, or `invalidate_nowait`, which does not wait";
        fills MEMOIZE "memoize!":
            "an `async fn`, or the function's `peek`, which does not wait";
        removes INVALIDATE "Cache::invalidate":
            "`invalidate_async`, or `invalidate_nowait`, which does not wait";
        removes REMOVE "Cache::remove":
            "`remove_async`, or `remove_nowait`, which does not wait";
        removes INVALIDATE_ALL "Cache::invalidate_all":
            "`invalidate_all_async`, or `invalidate_all_nowait`, which does not wait";
        removes CLEAR "Cache::clear":
            "`clear_async`, or `clear_nowait`, which does not wait";
        removes INVALIDATE_IF "Cache::invalidate_if":
            "`invalidate_if_async`, or `invalidate_if_nowait`, which does not wait";
        removes CLOSE "Cache::close":
            "`close_async`, or `close_within(Duration::ZERO)`, which does not wait";
        removes CLOSE_WITHIN "Cache::close_within":
            "`close_async_until`, or `close_within(Duration::ZERO)`, which does not wait";
    }
}
