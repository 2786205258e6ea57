//! A global allocator that counts the bytes in use.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// The bytes allocated and not yet freed; 0 unless [`CountingAllocator`] is the global allocator.
#[must_use]
pub fn live_bytes() -> usize {
    LIVE.load(Relaxed)
}

/// The system allocator, counting the bytes in use.
///
/// A binary installs it with `#[global_allocator]` and reads the count with [`live_bytes`].
#[derive(Debug, Clone, Copy, Default)]
pub struct CountingAllocator;

// SAFETY: every call is passed on unchanged to `System`; the counter is no part of the allocation.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, the same one.
        counted(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc_zeroed`, the same one.
        counted(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: `block` came from `System` with this layout, as every allocation here does.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: `block` came from `System` with this layout; the caller vouches for `size`.
        let moved = counted(unsafe { System.realloc(block, layout, size) }, size);
        if !moved.is_null() {
            LIVE.fetch_sub(layout.size(), Relaxed);
        }
        moved
    }
}

/// Adds `size` to the count unless the allocation failed.
fn counted(block: *mut u8, size: usize) -> *mut u8 {
    if !block.is_null() {
        LIVE.fetch_add(size, Relaxed);
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_through_every_method() {
        let before = live_bytes();
        let layout = Layout::array::<u8>(100).expect("a small layout");
        // SAFETY: the layout is not of size 0, and the block is freed with the size it has by then.
        unsafe {
            let block = CountingAllocator.alloc_zeroed(layout);
            assert_eq!(live_bytes() - before, 100);
            let block = CountingAllocator.realloc(block, layout, 300);
            assert_eq!(live_bytes() - before, 300);
            CountingAllocator.dealloc(block, Layout::array::<u8>(300).expect("a small layout"));
        }
        assert_eq!(live_bytes(), before);
    }
}
