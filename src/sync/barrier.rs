//! A fence in two halves, of which one costs nothing.
//!
//! Where one thread often stores and then loads, and another seldom does the same the other way
//! round, each must not let its load go ahead of its store. Two full fences do that. Here the
//! frequent side has [`light`], which only keeps the compiler in order, and the seldom one has
//! [`heavy`], which makes the kernel run a full fence on every processor that runs a thread of this
//! process (Linux, `membarrier` "private expedited"; Desnoyers, `LWN` 728795; folly's and liburcu's
//! asymmetric fences, proposed to C++ as P1202). So, whatever the frequent side was doing:
//!
//! * its light barrier came before that fence: then its store is seen by the loads after `heavy`;
//! * or it came after: then its loads see the stores before `heavy`.
//!
//! The language's model has no word for that; the machine has, and the kernel's documentation
//! promises it. In a model (loom) both halves are full fences, which says the same.

#[cfg(not(atomic_cache_loom))]
pub(crate) use real::{heavy, is_split, light, whole};

#[cfg(atomic_cache_loom)]
pub(crate) use model::{heavy, light, whole};

#[cfg(not(atomic_cache_loom))]
mod real {
    use std::sync::LazyLock;
    use std::sync::atomic::{Ordering, compiler_fence, fence};

    /// Whether the kernel takes the other half. Asked once, before the first use of either: all
    /// threads of the process agree.
    /// (Miri knows no such call.)
    static SPLIT: LazyLock<bool> = LazyLock::new(|| {
        !cfg!(miri) && membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)
    });

    /// Whether [`light`] is enough. If not (a kernel before 4.14, a sandbox that forbids it), a full
    /// fence belongs in its place, and `heavy` is one.
    pub(crate) fn is_split() -> bool {
        *SPLIT
    }

    /// The half of the frequent side: no instruction.
    #[inline(always)]
    pub(crate) fn light() {
        compiler_fence(Ordering::SeqCst);
    }

    /// A whole one: both halves, where [`is_split`] says no.
    pub(crate) fn whole() {
        fence(Ordering::SeqCst);
    }

    /// The half of the seldom side: about a microsecond for each processor that is at work for this
    /// process. False: there was none, because the kernel has granted it to this process and now refuses it (a
    /// sandbox that was entered later, or no memory just now).
    pub(crate) fn heavy() -> bool {
        if !is_split() {
            whole();
            return true;
        }
        // A process that came from a fork might have to register again.
        membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED)
            || membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)
                && membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED)
            // The older one, which takes milliseconds, but may be allowed where the others are not.
            || membarrier(libc::MEMBARRIER_CMD_GLOBAL)
    }

    fn membarrier(command: libc::c_int) -> bool {
        let (flags, cpu): (libc::c_int, libc::c_int) = (0, 0);
        // SAFETY: the call takes three integers, and reads and writes no memory of ours.
        unsafe { libc::syscall(libc::SYS_membarrier, command, flags, cpu) == 0 }
    }
}

#[cfg(atomic_cache_loom)]
mod model {
    use loom::sync::atomic::{Ordering, fence};

    pub(crate) fn light() {
        whole();
    }

    pub(crate) fn heavy() -> bool {
        whole();
        true
    }

    pub(crate) fn whole() {
        fence(Ordering::SeqCst);
    }
}
