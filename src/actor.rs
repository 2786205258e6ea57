//! Numbers for those who act.

use crate::sync::{Ordering, Tally, thread_cell};

static NEXT_ACTOR: Tally = Tally::new(1);

thread_cell! {
    /// This thread's number, from 1; 0 before it is asked for. Below 2^48: a program that starts
    /// a million threads a second reaches that after nine years.
    ACTOR: u64 = 0
}

/// This thread's number.
pub(crate) fn actor() -> u64 {
    let actor = ACTOR.with(std::cell::Cell::get);
    if actor != 0 {
        return actor;
    }
    let actor = NEXT_ACTOR.fetch_add(1, Ordering::Relaxed);
    ACTOR.with(|cell| cell.set(actor));
    actor
}
