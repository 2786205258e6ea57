//! A fence in two halves, one of which costs nothing.
//!
//! Suppose one thread often stores and then loads, and another seldom does the same the other way
//! round. Neither may let its load go ahead of its store. Two full fences do that. Here the
//! frequent side has [`light`], which only keeps the compiler in order. The seldom side has
//! [`heavy`], which makes the kernel run a full fence on every processor that runs a thread of this
//! process (Linux, `membarrier` "private expedited"; Desnoyers, `LWN` 728795; folly's and liburcu's
//! asymmetric fences, proposed to C++ as P1202). That fence falls somewhere in the frequent side's
//! code:
//!
//! * If the light barrier came before that fence, its store is seen by the loads after `heavy`.
//! * If it came after that fence, its loads see the stores before `heavy`.
//!
//! The language's memory model has no term for that. The machine does it, and the kernel's
//! documentation promises it. In a model (loom) both halves are full fences, which says the same.

#[cfg(all(test, not(atomic_cache_loom)))]
pub(crate) use real::HEAVY_OF_THIS_THREAD;
#[cfg(not(atomic_cache_loom))]
pub(crate) use real::{heavy, is_split, light, whole};

#[cfg(atomic_cache_loom)]
pub(crate) use model::{heavy, light, whole};

#[cfg(not(atomic_cache_loom))]
mod real {
    use std::sync::LazyLock;
    use std::sync::atomic::{Ordering, compiler_fence, fence};

    /// Whether the kernel offers the heavy half. Asked once, before the first use of either half,
    /// so that all threads of the process agree. (Miri knows no such call.)
    static SPLIT: LazyLock<bool> = LazyLock::new(|| {
        !cfg!(miri) && membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)
    });

    /// Returns whether [`light`] is enough. If not (a kernel before 4.14, a sandbox that forbids
    /// the call), a full fence belongs in its place, and `heavy` is one too.
    pub(crate) fn is_split() -> bool {
        *SPLIT
    }

    /// The half of the frequent side: no instruction.
    #[inline(always)]
    pub(crate) fn light() {
        compiler_fence(Ordering::SeqCst);
    }

    /// A full fence, for both sides where [`is_split`] returns false.
    pub(crate) fn whole() {
        fence(Ordering::SeqCst);
    }

    /// The half of the seldom side: about a microsecond for each processor that runs this process.
    /// Returns false if there was no fence and no substitute. Then the kernel had granted the call
    /// to this process and now refuses it (a sandbox that was entered later, or no memory just
    /// now).
    pub(crate) fn heavy() -> bool {
        #[cfg(test)]
        HEAVY_OF_THIS_THREAD.set(HEAVY_OF_THIS_THREAD.get() + 1);
        if !is_split() {
            whole();
            return true;
        }
        // A forked process may have to register again.
        membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED)
            || membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)
                && membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED)
            // The older call takes milliseconds, but may be allowed where the others are not.
            || membarrier(libc::MEMBARRIER_CMD_GLOBAL)
            || shootdown()
    }

    #[cfg(test)]
    std::thread_local! {
        /// The number of heavy barriers on this thread.
        pub(crate) static HEAVY_OF_THIS_THREAD: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    }

    /// The substitute: unmaps a page that this thread has just written to. On x86-64 the kernel
    /// then interrupts every processor that runs a thread of this process, to make it forget the
    /// page. An interrupt is a full fence, and a thread that does not run had one when it stopped.
    /// (Compare the serialization page of Java's virtual machine and folly's asymmetric fence. If
    /// the page is moved or swapped out in between, the processors have been told of that.)
    ///
    /// Returns false where it is no fence: on other processors, and if the calls are refused. Some
    /// processors of AMD tell the others without an interrupt (INVLPGB), and Hyper-V may do that
    /// for its guests.
    #[cfg(target_arch = "x86_64")]
    fn shootdown() -> bool {
        const PAGE: usize = 4096;
        static INTERRUPTS: LazyLock<bool> = LazyLock::new(|| {
            use std::arch::x86_64::__cpuid;
            let most = __cpuid(0x8000_0000).eax;
            let invlpgb = most >= 0x8000_0008 && __cpuid(0x8000_0008).ebx & 1 << 3 != 0;
            let is_guest = __cpuid(1).ecx & 1 << 31 != 0;
            // "Micr", of "Microsoft Hv".
            let hyper_v = is_guest && __cpuid(0x4000_0000).ebx == 0x7263_694d;
            !invlpgb && !hyper_v
        });
        if cfg!(miri) || !*INTERRUPTS {
            return false;
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: the page is our own, mapped here at an address the kernel chose, written to
        // before it is unmapped, and used by no other code.
        unsafe {
            let both = libc::PROT_READ | libc::PROT_WRITE;
            let page = libc::mmap(std::ptr::null_mut(), PAGE, both, flags, -1, 0);
            if page == libc::MAP_FAILED {
                return false;
            }
            page.cast::<u8>().write_volatile(1);
            whole();
            libc::munmap(page, PAGE) == 0
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn shootdown() -> bool {
        false
    }

    fn membarrier(command: libc::c_int) -> bool {
        let (flags, cpu): (libc::c_int, libc::c_int) = (0, 0);
        // SAFETY: the call takes three integers, and reads and writes no memory of ours.
        unsafe { libc::syscall(libc::SYS_membarrier, command, flags, cpu) == 0 }
    }
}

#[cfg(all(test, atomic_cache_loom))]
pub(crate) use model::refuse;

#[cfg(atomic_cache_loom)]
mod model {
    use loom::sync::atomic::{Ordering, fence};
    use std::cell::Cell;

    std::thread_local! {
        /// Whether the heavy half is refused: then the light half is empty. (loom runs all threads
        /// of a model on one thread, so this is one flag for all.)
        static REFUSED: Cell<bool> = const { Cell::new(false) };
    }

    pub(crate) fn refuse(refused: bool) {
        REFUSED.set(refused);
    }

    pub(crate) fn light() {
        if !REFUSED.get() {
            whole();
        }
    }

    pub(crate) fn heavy() -> bool {
        if REFUSED.get() {
            return false;
        }
        whole();
        true
    }

    pub(crate) fn whole() {
        fence(Ordering::SeqCst);
    }
}
