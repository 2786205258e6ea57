//! A global allocator that counts, when asked, the allocations of one thread.
//!
//! It counts nothing while times are measured: a count that all threads share would slow them all down.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    hint::black_box,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

/// Whether anything is counted.
static COUNTING: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The allocations of this thread since counting began.
    static TALLY: Cell<Tally> = const { Cell::new(Tally { allocations: 0, bytes: 0 }) };
}

/// The allocations of one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// How often.
    pub allocations: u64,
    /// Bytes allocated less bytes freed.
    pub bytes: isize,
}

impl Tally {
    /// Returns the allocations of this thread so far, while [`counting`].
    #[must_use]
    pub fn so_far() -> Self {
        TALLY.get()
    }

    /// Returns the allocations since an `earlier` tally.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            allocations: self.allocations - earlier.allocations,
            bytes: self.bytes - earlier.bytes,
        }
    }
}

/// Runs `work` with counting on; none when [`TallyingAllocator`] is not the global allocator.
pub fn counting<T>(work: impl FnOnce() -> T) -> Option<T> {
    COUNTING.store(true, Relaxed);
    let before = Tally::so_far();
    drop(black_box(Box::new(0_u64)));
    let counts = Tally::so_far() != before;
    let result = counts.then(work);
    COUNTING.store(false, Relaxed);
    result
}

/// The system allocator, counting when asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct TallyingAllocator;

fn count(allocations: u64, allocated: usize, freed: usize) {
    if COUNTING.load(Relaxed) {
        // A thread that is ending counts no more.
        let _ = TALLY.try_with(|tally| {
            let Tally {
                allocations: others,
                bytes,
            } = tally.get();
            tally.set(Tally {
                allocations: others + allocations,
                bytes: bytes + allocated.cast_signed() - freed.cast_signed(),
            });
        });
    }
}

// SAFETY: every call is passed on unchanged to `System`; the count is no part of the allocation.
unsafe impl GlobalAlloc for TallyingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size(), 0);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, the same one.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size(), 0);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc_zeroed`, the same one.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(0, 0, layout.size());
        // SAFETY: `block` came from `System` with this layout, as every allocation here does.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size, layout.size());
        // SAFETY: `block` came from `System` with this layout; the caller vouches for `size`.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_only_when_installed() {
        // The tests have the usual allocator.
        assert_eq!(counting(|| ()), None);
        let before = Tally::so_far();
        COUNTING.store(true, Relaxed);
        let layout = Layout::array::<u8>(100).expect("a small layout");
        // SAFETY: the layout is not of size 0, and the block is freed with the size it has by then.
        unsafe {
            let block = TallyingAllocator.alloc(layout);
            let block = TallyingAllocator.realloc(block, layout, 300);
            let large = Layout::array::<u8>(300).expect("a small layout");
            let (allocations, bytes) = (2, 300);
            assert_eq!(Tally::so_far().since(before), Tally { allocations, bytes });
            TallyingAllocator.dealloc(block, large);
        }
        COUNTING.store(false, Relaxed);
        let (allocations, bytes) = (2, 0);
        assert_eq!(Tally::so_far().since(before), Tally { allocations, bytes });
    }
}
