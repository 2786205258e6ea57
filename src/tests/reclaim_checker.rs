//! An engine for `reclaim.rs` that frees nothing and checks everything.
//!
//! It has the shape of the epoch engine. Its state is in plain `std` cells, so that reclamation
//! lends the protocol no order that the protocol lacks. (loom runs all threads of a model on one
//! thread of the system and switches only in operations of its own, of which there is none in
//! here.) It makes one order, the one that every engine has to make: a thread that pins after a
//! retire sees everything before the retire, above all the unlinking. A pin before the first retire
//! orders nothing.
//!
//! * An object that is retired waits for the pins alive at that moment. When the last of them is
//!   gone the object is *freed*: at the first moment that the rule of reclamation allows, where a
//!   real engine would take its time.
//! * [`deref`] asserts that its object is not freed, [`Domain::retire`] that an object is retired
//!   once.
//! * The memory stays, and no address is used twice, until the domain is dropped. Only then the
//!   destructors run, after every thread has been joined. So loom's own check of the value's cell
//!   tests the protocol, and not an order that an engine would have made.
//!
//! It misses a use after the free by way of a hold (a count on a flight or a slot) instead of a
//! pin, unless that ends in a second retire or in none. It also misses events between an unlock, or
//! a load, and a `pin` that follows it with nothing of loom's in between.

use crate::reclaim::{Garbage, Home};
use crate::sync::thread_cell;
use loom::sync::atomic::{Ordering, fence};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

#[derive(Default)]
struct Books {
    next_pin: u64,
    pinned: BTreeSet<u64>,
    /// By the address of a retired object: the pins that it waits for. None: it is freed.
    retired: HashMap<usize, BTreeSet<u64>>,
}

thread_local! {
    static BOOKS: RefCell<Books> = RefCell::default();
    /// The first failure. Stored, because a `catch_unwind` may swallow an assertion that fails
    /// under it.
    static WRONG: Cell<Option<&'static str>> = const { Cell::new(None) };
}

thread_cell! {
    /// Pins of this thread of the model.
    PINS: usize = 0
}

fn books<R>(f: impl FnOnce(&mut Books) -> R) -> R {
    BOOKS.with_borrow_mut(f)
}

#[track_caller]
fn check(good: bool, wrong: &'static str) {
    if !good {
        WRONG.set(WRONG.get().or(Some(wrong)));
        // A second panic while unwinding would hide the first.
        assert!(std::thread::panicking(), "{wrong}");
    }
}

/// Before each execution of a model.
#[cfg(test)]
pub(super) fn begin() {
    books(|books| *books = Books::default());
    WRONG.set(None);
}

/// After each execution of a model.
#[cfg(test)]
pub(super) fn end() {
    assert_eq!(WRONG.get(), None);
    books(|books| assert!(books.pinned.is_empty(), "somebody is still pinned"));
}

/// This engine has none.
pub(crate) type Brief = Box<Pin>;

/// While it lives, no object is freed that was retired after it was taken.
pub(crate) struct Pin {
    id: u64,
}

pub(crate) fn pin() -> Pin {
    PINS.with(|pins| pins.set(pins.get() + 1));
    books(|books| {
        let id = books.next_pin;
        books.next_pin += 1;
        books.pinned.insert(id);
        if !books.retired.is_empty() {
            // With the one in `retire`. loom does not switch at a fence.
            fence(Ordering::SeqCst);
        }
        Pin { id }
    })
}

/// Returns `None`: the slow path looks at the same words.
pub(crate) fn pin_briefly() -> Option<Brief> {
    None
}

/// As in the engines: no notification runs under a pin.
pub(crate) fn is_pinned() -> bool {
    PINS.with(Cell::get) > 0
}

impl Drop for Pin {
    fn drop(&mut self) {
        PINS.with(|pins| pins.set(pins.get() - 1));
        books(|books| {
            books.pinned.remove(&self.id);
            for waits_for in books.retired.values_mut() {
                waits_for.remove(&self.id);
            }
        });
    }
}

/// Borrows a shared object, which must not have been freed.
///
/// # Safety
/// As in the engines that free: `object` was reachable, or held, at some moment since `pin` was
/// taken. A model checks that; the memory itself is there in any case.
#[track_caller]
pub(crate) unsafe fn deref<T>(object: *const T, pin: &Pin) -> &T {
    books(|books| check(books.pinned.contains(&pin.id), "a pin that is gone"));
    // SAFETY: the caller's promise.
    unsafe { reach(object) }
}

/// Lends a shared object for as long as the pin that `'p` borrows, which must not have been freed.
///
/// # Safety
/// As of the engines that free: `object` was reachable, or held, at some moment since that pin was taken.
#[track_caller]
pub(crate) unsafe fn reach<'p, T>(object: *const T) -> &'p T {
    books(|books| {
        let freed = books
            .retired
            .get(&object.addr())
            .is_some_and(BTreeSet::is_empty);
        check(!freed, "use after free");
    });
    // SAFETY: retired objects are kept until their domain is dropped, in this domain or in its
    // cache.
    unsafe { &*object }
}

/// The retired objects of one cache, or of one table.
pub(crate) struct Domain {
    /// Each with the weight it was retired with. A mutex only to be `Sync`: no thread waits for it.
    retired: Mutex<Vec<(Garbage, u64)>>,
    home: Home,
}

// SAFETY: loom runs all threads of a model on one thread.
unsafe impl Send for Domain {}
// SAFETY: loom runs all threads of a model on one thread, so no two use the domain at once.
unsafe impl Sync for Domain {}

impl Domain {
    pub(crate) fn new(home: Home, _batch: Option<usize>) -> Self {
        Self {
            retired: Mutex::default(),
            home,
        }
    }

    pub(crate) fn set_most_weight(&self, _most: u64) {}

    #[track_caller]
    pub(crate) fn retire(&self, garbage: Garbage) {
        self.retire_weighing(garbage, 0);
    }

    #[track_caller]
    pub(crate) fn retire_weighing(&self, garbage: Garbage, weight: u64) {
        fence(Ordering::SeqCst);
        let before = books(|books| {
            let pinned = books.pinned.clone();
            books.retired.insert(garbage.address(), pinned)
        });
        check(before.is_none(), "retired twice");
        let mut retired = self.retired.lock().expect("no panic inside");
        retired.push((garbage, weight));
    }

    #[track_caller]
    pub(crate) fn retire_large(&self, garbage: Garbage) {
        self.retire(garbage);
    }

    /// How many objects are not freed yet.
    pub(crate) fn retired(&self) -> usize {
        let retired = self.retired.lock().expect("no panic inside");
        let not_freed = |(garbage, _): &&(Garbage, u64)| {
            books(|books| {
                let waits_for = books.retired.get(&garbage.address());
                waits_for.is_some_and(|pins| !pins.is_empty())
            })
        };
        retired.iter().filter(not_freed).count()
    }

    pub(crate) fn panicked_drops(&self) -> usize {
        0
    }

    /// Nothing is put off here.
    pub(crate) fn tidy(&self) {}

    pub(crate) fn tidy_after_miss(&self) {}

    pub(crate) fn flush(&self) {}

    pub(crate) fn flush_here(&self) {}

    pub(crate) fn note_handle(&self) {}

    pub(crate) fn may_hold_handles(&self) -> bool {
        false
    }

    pub(crate) fn has_garbage(&self) -> bool {
        false
    }

    pub(crate) fn is_due(&self) -> bool {
        false
    }

    pub(crate) fn quiesce(&self) {
        for turn in 0.. {
            if self.retired() == 0 {
                return;
            }
            crate::sync::relax(turn);
        }
    }
}

pub(crate) fn is_reaping() -> bool {
    false
}

impl Drop for Domain {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Destructors may stumble over the cause of the failure: leave it all.
            return;
        }
        check(self.retired() == 0, "not freed, although nobody is pinned");
        let retired = std::mem::take(self.retired.get_mut().expect("no panic inside"));
        for (garbage, weight) in retired {
            books(|books| books.retired.remove(&garbage.address()));
            let reaped = garbage.reap(self.home);
            check(!reaped.panicked, "a destructor panicked");
            check(
                weight == 0 || reaped.weight == weight,
                "its weight has changed",
            );
        }
    }
}
