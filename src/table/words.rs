//! The memory of a level's words.

#[cfg(not(atomic_cache_loom))]
pub(super) use real::Words;

#[cfg(not(atomic_cache_loom))]
mod real {
    use crate::pages::{HUGE, prefer_huge};
    use crate::sync::AtomicU64;
    use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
    use std::marker::PhantomData;
    use std::ptr::NonNull;

    /// From this size on the words lie in huge pages also if they are not aligned to them: seven eighths do at
    /// least.
    const LARGE: usize = 4 * HUGE;

    /// Up to this size a table gets huge pages although it may never be filled: 250,000 entries. A larger one
    /// would take all of its memory for the sake of a few; it has to do with small pages until it is moved.
    const MAY_BE_SPARSE: usize = 2 * HUGE;

    /// A power of two of words, zero at first. They come from the kernel's zero pages, which cost nothing until
    /// they are touched.
    pub(in crate::table) struct Words {
        first: NonNull<AtomicU64>,
        mask: usize,
        memory: NonNull<u8>,
        layout: Layout,
    }

    // SAFETY: it owns words that are atomic.
    unsafe impl Send for Words {}
    // SAFETY: the words are atomic, and nothing else in it changes.
    unsafe impl Sync for Words {}

    impl Words {
        /// `n` words, a power of two. `dense`: most of their pages will soon be touched.
        pub(in crate::table) fn new(n: usize, dense: bool) -> Self {
            assert!(n.is_power_of_two());
            let bytes = n * size_of::<AtomicU64>();
            let huge = bytes >= HUGE && (dense || bytes <= MAY_BE_SPARSE);
            // A small multiple of huge pages begins at one: there is that much more memory, and the
            // spare part is never touched.
            let aligned = huge && bytes < LARGE;
            let spare = if aligned { HUGE } else { 0 };
            let layout = Layout::from_size_align(bytes + spare, align_of::<AtomicU64>())
                .expect("no table is that large");
            // SAFETY: the size is not zero.
            let Some(memory) = NonNull::new(unsafe { alloc_zeroed(layout) }) else {
                handle_alloc_error(layout)
            };
            let skip = if aligned {
                memory.as_ptr().align_offset(HUGE).min(spare)
            } else {
                0
            };
            // SAFETY: `skip` is within the spare part.
            let first = unsafe { memory.add(skip) };
            if huge {
                prefer_huge(first.as_ptr(), bytes);
            }
            Self {
                first: first.cast(),
                mask: n - 1,
                memory,
                layout,
            }
        }

        #[inline(always)]
        pub(in crate::table) fn len(&self) -> usize {
            self.mask + 1
        }

        /// The words, for a thread that walks over them.
        #[inline(always)]
        pub(in crate::table) fn view(&self) -> View<'_> {
            View {
                first: self.first,
                mask: self.mask,
                _words: PhantomData,
            }
        }

        /// So many words from a position on, which there are.
        #[inline]
        pub(in crate::table) fn row(&self, from: usize, n: usize) -> &[AtomicU64] {
            assert!(from + n <= self.len());
            // SAFETY: within our words, as just asserted; for the rest see `at`.
            unsafe { std::slice::from_raw_parts(self.first.add(from).as_ptr(), n) }
        }
    }

    /// The address of the words. A local copy stays in registers. Behind a reference, the compiler
    /// must assume after each atomic load that it has changed.
    #[derive(Clone, Copy)]
    pub(in crate::table) struct View<'a> {
        first: NonNull<AtomicU64>,
        mask: usize,
        _words: PhantomData<&'a Words>,
    }

    impl<'a> View<'a> {
        /// The word at a position, counted on round and round.
        #[inline(always)]
        pub(in crate::table) fn at(self, at: usize) -> &'a AtomicU64 {
            // SAFETY: masked it is one of the words, which are lent for `'a` and were written (with zeros, of which
            // an atomic may consist).
            unsafe { self.first.add(at & self.mask).as_ref() }
        }
    }

    impl Drop for Words {
        fn drop(&mut self) {
            // SAFETY: allocated with this layout.
            unsafe { dealloc(self.memory.as_ptr(), self.layout) };
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

    pub(super) fn view(&self) -> View<'_> {
        View(&self.0)
    }

    pub(super) fn row(&self, from: usize, n: usize) -> &[crate::sync::AtomicU64] {
        &self.0[from..from + n]
    }
}

#[cfg(atomic_cache_loom)]
#[derive(Clone, Copy)]
pub(super) struct View<'a>(&'a [crate::sync::AtomicU64]);

#[cfg(atomic_cache_loom)]
impl<'a> View<'a> {
    pub(super) fn at(self, at: usize) -> &'a crate::sync::AtomicU64 {
        &self.0[at & (self.0.len() - 1)]
    }
}
