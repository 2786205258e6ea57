//! Huge pages: what is large and read at random is asked to lie in them.
//!
//! A processor knows the addresses of some two thousand pages. With pages of 4 KiB that is 8 MiB; a cache of
//! a few hundred thousand entries is more, and then most hits wait for a walk through the page tables, in a
//! virtual machine through two of them. On the development machine this halved the time of a hit of
//! 100,000 entries.

/// A huge page of x86-64, and of 64-bit Arm with pages of 4 KiB.
pub(crate) const HUGE: usize = 2 << 20;

/// Asks for huge pages for what lies between these addresses: for those that lie in it whole. Memory is then
/// taken and zeroed two mebibytes at a time, when it is first touched. Nothing where the kernel has none.
pub(crate) fn prefer_huge(start: *mut u8, bytes: usize) {
    #[cfg(all(target_os = "linux", not(miri)))]
    {
        let first = start.addr().next_multiple_of(HUGE);
        let end = (start.addr() + bytes) / HUGE * HUGE;
        if first < end {
            // SAFETY: whole pages of the caller's memory; the advice changes nothing of what is in them,
            // and may be refused.
            unsafe {
                libc::madvise(
                    start.with_addr(first).cast(),
                    end - first,
                    libc::MADV_HUGEPAGE,
                )
            };
        }
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = (start, bytes);
}
