//! The memory of a level's words.

#[cfg(not(atomic_cache_loom))]
pub(super) use real::Words;

#[cfg(not(atomic_cache_loom))]
mod real {
    use crate::pages::{HUGE, prefer_huge};
    use crate::sync::AtomicU64;
    use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
    use std::ptr::NonNull;

    /// From this size on the words lie in huge pages also if they are not aligned to them: seven eighths do
    /// at least, and the kernel's zero pages cost nothing until they are touched.
    const LARGE: usize = 4 * HUGE;

    /// Up to this size a table gets huge pages although it may never be filled: 4 million entries.
    const MAY_BE_SPARSE: usize = 64 << 20;

    /// A power of two of words, zero at first.
    pub(in crate::table) struct Words {
        first: NonNull<AtomicU64>,
        mask: usize,
        layout: Layout,
    }

    // SAFETY: it owns words that are atomic.
    unsafe impl Send for Words {}
    // SAFETY: as above.
    unsafe impl Sync for Words {}

    impl Words {
        /// `n` words, a power of two. `dense`: most of their pages will soon be touched.
        pub(in crate::table) fn new(n: usize, dense: bool) -> Self {
            assert!(n.is_power_of_two());
            let bytes = n * size_of::<AtomicU64>();
            let huge = bytes >= HUGE && (dense || bytes <= MAY_BE_SPARSE);
            let align = if huge && bytes < LARGE {
                HUGE
            } else {
                align_of::<AtomicU64>()
            };
            let layout = Layout::from_size_align(bytes, align).expect("no table is that large");
            // Zeroed by us where aligned memory cannot be asked for that is zero without being touched.
            let first = if align == HUGE {
                // SAFETY: not of no size; `first` is as large.
                unsafe { alloc(layout) }
            } else {
                // SAFETY: as above.
                unsafe { alloc_zeroed(layout) }
            };
            let Some(words) = NonNull::new(first.cast()) else {
                handle_alloc_error(layout)
            };
            if huge {
                prefer_huge(first, bytes);
            }
            if align == HUGE {
                // SAFETY: all of it is ours.
                unsafe { first.write_bytes(0, bytes) };
            }
            Self {
                first: words,
                mask: n - 1,
                layout,
            }
        }

        #[inline(always)]
        pub(in crate::table) fn len(&self) -> usize {
            self.mask + 1
        }

        /// The word at a position, counted on round and round.
        #[inline(always)]
        pub(in crate::table) fn at(&self, at: usize) -> &AtomicU64 {
            // SAFETY: masked it is one of the words, which are ours and were written (with zeros, of which an
            // atomic may consist).
            unsafe { self.first.add(at & self.mask).as_ref() }
        }

        /// So many words from a position on, which there are.
        #[inline]
        pub(in crate::table) fn row(&self, from: usize, n: usize) -> &[AtomicU64] {
            assert!(from + n <= self.len());
            // SAFETY: within what is ours, as just asserted; for the rest see `at`.
            unsafe { std::slice::from_raw_parts(self.first.add(from).as_ptr(), n) }
        }
    }

    impl Drop for Words {
        fn drop(&mut self) {
            // SAFETY: allocated with this layout.
            unsafe { dealloc(self.first.as_ptr().cast(), self.layout) };
        }
    }
}

#[cfg(atomic_cache_loom)]
pub(super) struct Words(Box<[crate::sync::AtomicU64]>);

#[cfg(atomic_cache_loom)]
impl Words {
    pub(super) fn new(n: usize, _dense: bool) -> Self {
        Self(crate::sync::zeroed_words(n))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn at(&self, at: usize) -> &crate::sync::AtomicU64 {
        &self.0[at & (self.0.len() - 1)]
    }

    pub(super) fn row(&self, from: usize, n: usize) -> &[crate::sync::AtomicU64] {
        &self.0[from..from + n]
    }
}
