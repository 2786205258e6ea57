//! Numbers for actors: threads, and fills that are futures.
//!
//! A thread acts for itself. While it polls a fill that is a future, it acts for that fill: the
//! fill goes on waiting for its flights when the thread has left it.

use crate::sync::{Ordering, Tally, thread_cell};
use std::cell::Cell;

/// Numbers stay below 2^48. A program that starts a million threads a second gets there in four
/// years.
static NEXT_THREAD: Tally = Tally::new(1);
/// Blocks of numbers for fills.
static NEXT_BLOCK: Tally = Tally::new(0);

/// Numbers that a thread takes at once for the fills it starts.
const BLOCK: u64 = 64;

/// The bit of an actor's number that marks a fill.
const FILL: u64 = 1;

thread_cell! {
    /// This thread's number; 0 before the first use.
    THREAD: u64 = 0
}

thread_cell! {
    /// The number of the fill that this thread polls; 0 for none.
    POLLED: u64 = 0
}

thread_cell! {
    /// The next number for a fill; at the end of a block, the thread takes a new block.
    NEXT_FILL: u64 = 0
}

/// Returns this thread's number: never 0, and even.
pub(crate) fn thread() -> u64 {
    let thread = THREAD.with(Cell::get);
    if thread != 0 {
        return thread;
    }
    let thread = NEXT_THREAD.fetch_add(1, Ordering::Relaxed) << 1;
    THREAD.with(|cell| cell.set(thread));
    thread
}

/// Returns the current actor: the fill that is being polled, or else this thread.
pub(crate) fn actor() -> u64 {
    polled().unwrap_or_else(thread)
}

/// Returns the fill that this thread polls.
pub(crate) fn polled() -> Option<u64> {
    Some(POLLED.with(Cell::get)).filter(|&fill| fill != 0)
}

/// Returns a number for one more fill that is a future.
pub(crate) fn new_fill() -> u64 {
    let mut next = NEXT_FILL.with(Cell::get);
    if next % BLOCK == 0 {
        next = NEXT_BLOCK.fetch_add(1, Ordering::Relaxed) * BLOCK;
    }
    NEXT_FILL.with(|cell| cell.set(next + 1));
    next << 1 | FILL
}

/// Returns whether a number belongs to a fill.
pub(crate) const fn is_fill(actor: u64) -> bool {
    actor & FILL != 0
}

/// Acts for `fill` until the returned guard is dropped.
pub(crate) fn polling(fill: u64) -> Polling {
    Polling(POLLED.with(|cell| cell.replace(fill)))
}

/// See [`polling`].
pub(crate) struct Polling(u64);

impl Drop for Polling {
    fn drop(&mut self) {
        POLLED.with(|cell| cell.set(self.0));
    }
}
