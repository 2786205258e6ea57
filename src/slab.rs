//! The memory of nodes: cells of one size, in chunks that belong to one cache.
//!
//! A miss makes a node and, in a full cache, drops another. A hit reads a node that may lie
//! anywhere. So it pays not to ask the program's allocator for each:
//!
//! * A node of 32 bytes takes 32, and not the 48 that malloc gives it.
//! * Chunks grow to two mebibytes, aligned, and the kernel is asked for huge pages. Then one entry
//!   of the processor's address cache leads to 65,536 nodes instead of 85.
//! * Making and dropping a node cost one locked instruction each.
//!
//! The price: chunks go back to the allocator with the cache and not before. A cache keeps memory
//! for as many nodes as it has ever had at once. So the program's allocator serves nodes of more
//! than 256 bytes, which hold large values inline.
//!
//! # No thread waits
//!
//! Each stripe has a *stock* of free cells behind a turnstile. A thread that finds the turnstile
//! taken goes to the next stripe. If all are taken it goes to the chunk, which deals cells by one
//! addition. Cells come back by a push to a stripe's list of *returned* ones. Threads only ever
//! take the whole list. So there is no pop from a shared list, and no A-B-A.
//!
//! # Orderings
//! * The stock: see `turnstile.rs`.
//! * `returned`: pushed with Release, taken with Acquire. The thread that takes the list sees the
//!   links in its cells, and all uses of a cell before its return come before the next use.
//! * `chunks`: set with Release, loaded with Acquire. A thread that finds a chunk sees it
//!   initialised.

#[cfg(any(atomic_cache_loom, atomic_cache_boxed))]
pub(crate) use boxed::Slab;
#[cfg(not(any(atomic_cache_loom, atomic_cache_boxed)))]
pub(crate) use pooled::Slab;

#[cfg(any(not(any(atomic_cache_loom, atomic_cache_boxed)), test))]
#[cfg_attr(atomic_cache_boxed, allow(dead_code))]
pub(crate) mod pooled {
    use crate::pages::{HUGE, prefer_huge};
    use crate::stats::{STRIPES, stripe};
    use crate::sync::{AtomicPtr, AtomicUsize, Ordering, UnsafeCell};
    use crate::turnstile::Turnstile;
    use crossbeam_utils::CachePadded;
    use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
    use std::marker::PhantomData;
    use std::mem::{ManuallyDrop, MaybeUninit};
    use std::ptr::null_mut;

    /// The largest node that lives in a slab, in bytes: four cache lines.
    const LARGEST: usize = 256;

    /// The first chunk, in bytes; each is twice as large as the one before it ...
    const SMALLEST_CHUNK: usize = if cfg!(any(test, atomic_cache_loom)) {
        4 * 64
    } else {
        2 << 10
    };
    /// ... up to a huge page.
    const LARGEST_CHUNK: usize = HUGE;

    /// Cells that a stripe is dealt at once.
    const RUN: usize = if cfg!(any(test, atomic_cache_loom)) {
        2
    } else {
        32
    };

    /// The contents of a cell: a node, or a link while it is free.
    union Cell<T> {
        _node: ManuallyDrop<MaybeUninit<T>>,
        _free: ManuallyDrop<Free>,
    }

    /// A free cell. `UnsafeCell` so that a model sees every access to the link.
    struct Free {
        next: UnsafeCell<*mut Free>,
    }

    /// The free cells of a stripe, used by one thread at a time.
    struct Stock {
        free: *mut Free,
        /// Cells that were dealt and never used: the first, and their number.
        run: *mut u8,
        left: usize,
    }

    // SAFETY: the cells belong to the stock, and go with it to the thread that has it.
    unsafe impl Send for Stock {}

    struct Stripe {
        stock: Turnstile<Stock>,
        returned: AtomicPtr<Free>,
    }

    struct Chunk {
        before: *mut Chunk,
        cells: *mut u8,
        /// In bytes.
        size: usize,
        /// Cells that have been dealt; may run past the number of cells.
        dealt: AtomicUsize,
    }

    /// The cells of one cache.
    pub(crate) struct Slab<T> {
        stripes: Box<[CachePadded<Stripe>]>,
        /// The newest chunk.
        chunks: AtomicPtr<Chunk>,
        _nodes: PhantomData<*mut T>,
    }

    impl<T> Slab<T> {
        const POOLED: bool = size_of::<T>() <= LARGEST;
        const CELL: usize = size_of::<Cell<T>>();

        pub(crate) fn new() -> Self {
            let stripe = || Stripe {
                stock: Turnstile::new(Stock {
                    free: null_mut(),
                    run: null_mut(),
                    left: 0,
                }),
                returned: AtomicPtr::new(null_mut()),
            };
            let stripes = if Self::POOLED { *STRIPES } else { 0 };
            Self {
                stripes: (0..stripes).map(|_| CachePadded::new(stripe())).collect(),
                chunks: AtomicPtr::new(null_mut()),
                _nodes: PhantomData,
            }
        }

        /// Returns a cell with `node` in it.
        pub(crate) fn make(&self, node: T) -> *mut T {
            let cell: *mut T = if Self::POOLED {
                self.take().cast()
            } else {
                Box::into_raw(Box::<T>::new_uninit()).cast()
            };
            // SAFETY: a cell has the size and alignment of a node, and only this thread has this
            // one.
            unsafe { cell.write(node) };
            cell
        }

        /// Takes a cell back.
        ///
        /// # Safety
        /// `node` is from [`make`](Self::make) of this slab and was not given back since. No thread
        /// uses it any more, and its contents have been dropped.
        pub(crate) unsafe fn give_back(&self, node: *mut T) {
            if !Self::POOLED {
                // SAFETY: `make` has boxed it; `MaybeUninit` drops nothing.
                return drop(unsafe { Box::from_raw(node.cast::<MaybeUninit<T>>()) });
            }
            let free = node.cast::<Free>();
            // SAFETY: the cell is ours now, and large enough for a link.
            unsafe {
                free.write(Free {
                    next: UnsafeCell::new(null_mut()),
                });
            }
            self.stripes[stripe()].returned(free);
        }

        fn take(&self) -> *mut u8 {
            let own = stripe();
            let stripes = self.stripes.len();
            (0..stripes)
                .find_map(|step| self.take_from((own + step) & (stripes - 1)))
                // Every stripe is busy: other threads have stopped in the middle.
                .unwrap_or_else(|| self.deal(1).0)
        }

        /// Takes a cell from a stripe. `None` if another thread is at its turnstile.
        fn take_from(&self, at: usize) -> Option<*mut u8> {
            self.stripes[at].stock.try_in(|stock| {
                if let Some(cell) = stock.take(Self::CELL) {
                    return cell;
                }
                self.restock(stock, at);
                stock.take(Self::CELL).expect("stocked just now")
            })
        }

        /// Puts cells into an empty stock: used ones first, then new ones.
        #[cold]
        fn restock(&self, stock: &mut Stock, at: usize) {
            let others = || {
                let stripes = self.stripes.len();
                (1..stripes).map(move |step| &self.stripes[(at + step) & (stripes - 1)])
            };
            let returned = std::iter::once(&self.stripes[at]).chain(others());
            stock.free = returned
                .map(|stripe| stripe.take_returned())
                .find(|free| !free.is_null())
                .unwrap_or(null_mut());
            if !stock.free.is_null() {
                return;
            }
            if !self.has_cells_to_deal() {
                // Before asking for more memory, take a stock that lies idle in another stripe.
                let stock_of = |stripe: &CachePadded<Stripe>| {
                    let free = stripe
                        .stock
                        .try_in(|stock| std::mem::replace(&mut stock.free, null_mut()));
                    free.filter(|free| !free.is_null())
                };
                if let Some(free) = others().find_map(stock_of) {
                    stock.free = free;
                    return;
                }
            }
            (stock.run, stock.left) = self.deal(RUN);
        }

        fn has_cells_to_deal(&self) -> bool {
            let chunk = self.chunks.load(Ordering::Acquire);
            // SAFETY: null, or a chunk, which lives as long as `self`.
            let chunk = unsafe { chunk.as_ref() };
            chunk.is_some_and(|chunk| chunk.dealt.load(Ordering::Relaxed) < chunk.size / Self::CELL)
        }

        /// Deals cells that have never been used: at most `most`, in a row.
        fn deal(&self, most: usize) -> (*mut u8, usize) {
            loop {
                let newest = self.chunks.load(Ordering::Acquire);
                // SAFETY: null, or a chunk, which lives as long as `self`.
                if let Some(chunk) = unsafe { newest.as_ref() } {
                    let cells = chunk.size / Self::CELL;
                    // Relaxed: the one counter decides which thread gets which cells. The load
                    // comes first so that the counter does not grow for ever.
                    if chunk.dealt.load(Ordering::Relaxed) < cells {
                        let first = chunk.dealt.fetch_add(most, Ordering::Relaxed);
                        if first < cells {
                            // SAFETY: `first < cells`, so it is within the chunk.
                            let run = unsafe { chunk.cells.add(first * Self::CELL) };
                            return (run, most.min(cells - first));
                        }
                    }
                }
                self.add_chunk(newest);
            }
        }

        /// Puts a new chunk on `newest`, unless another thread has done so.
        #[cold]
        fn add_chunk(&self, newest: *mut Chunk) {
            // SAFETY: null, or a chunk, which lives as long as `self`.
            let before = unsafe { newest.as_ref() };
            let size = before.map_or(SMALLEST_CHUNK, |chunk| (2 * chunk.size).min(LARGEST_CHUNK));
            let size = size.max(4 * LARGEST);
            let layout = Self::layout(size);
            // SAFETY: `size` is not zero.
            let cells = unsafe { alloc(layout) };
            if cells.is_null() {
                handle_alloc_error(layout);
            }
            if size == LARGEST_CHUNK {
                prefer_huge(cells, size);
            }
            let chunk = Box::into_raw(Box::new(Chunk {
                before: newest,
                cells,
                size,
                dealt: AtomicUsize::new(0),
            }));
            // Release: the chunk is initialised. Acquire: for the chunk below it. See Orderings.
            let added =
                self.chunks
                    .compare_exchange(newest, chunk, Ordering::AcqRel, Ordering::Acquire);
            if added.is_err() {
                // SAFETY: made above and never shared.
                unsafe { Self::free_chunk(chunk) };
            }
        }

        /// Aligned to a cache line, so that no node of a power of two bytes lies on two. The
        /// largest chunk is aligned to its size, so that it is one huge page.
        fn layout(size: usize) -> Layout {
            let align = if size == LARGEST_CHUNK { size } else { 64 };
            let align = align.max(align_of::<Cell<T>>());
            Layout::from_size_align(size, align).expect("a few mebibytes at most")
        }

        /// # Safety
        /// `chunk` is from `add_chunk`; no thread uses it or a cell of it any more.
        unsafe fn free_chunk(chunk: *mut Chunk) -> *mut Chunk {
            // SAFETY: by the caller's promise `chunk` is from `Box::into_raw`, and `cells` from
            // `alloc` with this layout.
            unsafe {
                let chunk = Box::from_raw(chunk);
                dealloc(chunk.cells, Self::layout(chunk.size));
                chunk.before
            }
        }
    }

    impl Stock {
        fn take(&mut self, cell: usize) -> Option<*mut u8> {
            if !self.free.is_null() {
                // SAFETY: a free cell of this stock has a link, and only the thread inside the
                // turnstile reads it.
                let free = unsafe { self.free.read() };
                let first = std::mem::replace(
                    &mut self.free,
                    // SAFETY: `free` is our copy of the link; no other thread has it.
                    free.next.with(|next| unsafe { *next }),
                );
                return Some(first.cast());
            }
            self.left = self.left.checked_sub(1)?;
            let first = self.run;
            // SAFETY: `left` more cells follow, or this is the end of the run.
            self.run = unsafe { first.add(cell) };
            Some(first)
        }
    }

    impl Stripe {
        fn returned(&self, free: *mut Free) {
            let mut head = self.returned.load(Ordering::Relaxed);
            loop {
                // SAFETY: the cell is ours until it is pushed.
                unsafe { (*free).next.with_mut(|next| *next = head) };
                let pushed = self.returned.compare_exchange_weak(
                    head,
                    free,
                    Ordering::Release,
                    Ordering::Relaxed,
                );
                match pushed {
                    Ok(_) => return,
                    Err(other) => head = other,
                }
            }
        }

        fn take_returned(&self) -> *mut Free {
            if self.returned.load(Ordering::Relaxed).is_null() {
                return null_mut();
            }
            self.returned.swap(null_mut(), Ordering::Acquire)
        }
    }

    impl<T> Drop for Slab<T> {
        /// Does not drop the nodes that are still there: their owner has done that.
        fn drop(&mut self) {
            let mut chunk = self.chunks.load(Ordering::Acquire);
            while !chunk.is_null() {
                // SAFETY: each chunk is in the list once, and no other thread has the slab.
                chunk = unsafe { Self::free_chunk(chunk) };
            }
        }
    }
}

/// Every node is a box of its own. In a model loom then sees a leak, and no address is used twice.
/// With `--cfg atomic_cache_boxed` AddressSanitizer sees a use after the free.
#[cfg(any(atomic_cache_loom, atomic_cache_boxed))]
mod boxed {
    use std::marker::PhantomData;
    use std::mem::MaybeUninit;

    pub(crate) struct Slab<T>(PhantomData<*mut T>);

    impl<T> Slab<T> {
        pub(crate) fn new() -> Self {
            Self(PhantomData)
        }

        pub(crate) fn make(&self, node: T) -> *mut T {
            Box::into_raw(Box::new(node))
        }

        /// # Safety
        /// As for `pooled::Slab::give_back`: `node` is from `make` of this slab, was not given back
        /// since, no thread uses it any more, and its contents have been dropped.
        pub(crate) unsafe fn give_back(&self, node: *mut T) {
            // SAFETY: `make` has boxed it; `MaybeUninit` drops nothing.
            drop(unsafe { Box::from_raw(node.cast::<MaybeUninit<T>>()) });
        }
    }
}
