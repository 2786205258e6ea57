//! Clause 9 in a sandbox that is entered late.

use crate::support::common::*;
use atomic_cache::Cache;
use std::sync::Barrier;
use std::thread;

/// Refuses `membarrier` from now on, to all threads, as seccomp does: with `EPERM`. With `shootdowns`, it also refuses
/// to give pages of 4,096 bytes back, which takes the place of `membarrier`.
fn refuse_membarrier(shootdowns: bool) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUALS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let number = |number: libc::c_long| u32::try_from(number).unwrap();
    let second = if shootdowns {
        number(libc::SYS_munmap)
    } else {
        u32::MAX
    };
    let mut program = [
        // The number of the call, and of `munmap` the second argument's lower half.
        step(LOAD, 0, 0, 0),
        step(EQUALS, 4, 0, number(libc::SYS_membarrier)),
        step(EQUALS, 0, 2, second),
        step(LOAD, 0, 0, 24),
        step(EQUALS, 1, 0, 4096),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: a program that is read by the kernel before the call returns, for a process of the test's own.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let installed = libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const program,
        );
        assert_eq!(installed, 0, "{}", std::io::Error::last_os_error());
        // It is refused.
        assert_eq!(libc::syscall(libc::SYS_membarrier, 0, 0, 0), -1);
    }
}

fn goes_on(shootdowns: bool) {
    let cache: Cache<u64, Vec<u8>> = Cache::new(100);
    let value = || vec![1_u8; 1_024];
    // The first use, by several threads, which go on after.
    let (start, refused) = (Barrier::new(3), Barrier::new(3));
    thread::scope(|scope| {
        for thread in 0..2_u64 {
            let (cache, start, refused) = (&cache, &start, &refused);
            scope.spawn(move || {
                cache.get_with(&thread, value);
                start.wait();
                refused.wait();
                for n in 0..rounds("SANDBOX", 1_000_000) {
                    let key = (thread << 32 | n) + 10;
                    assert_eq!(cache.get_with(&key, value)[1_000], 1);
                    assert!(cache.get(&key).is_none_or(|value| value[1_000] == 1));
                }
            });
        }
        cache.insert(1, value());
        start.wait();
        refuse_membarrier(shootdowns);
        let before = live_bytes();
        refused.wait();
        let mut most = 0;
        for n in 0..rounds("SANDBOX", 1_000_000) {
            cache.insert(n, value());
            most = most.max(live_bytes().saturating_sub(before));
        }
        assert!(most < 16 << 20, "{most} bytes more");
    });
    cache.clear();
    cache.quiesce();
    assert_eq!(cache.retired(), 0);
}

#[test]
fn c09_a_sandbox_that_refuses_membarrier_late_keeps_no_garbage() {
    let name = test_name!();
    in_child(name, A_WHILE, || goes_on(false));
}

/// Nor where the call in the barrier's place is no barrier: then all threads go over to fences.
#[test]
fn c09_all_threads_go_over_to_fences_if_nothing_takes_the_place_of_membarrier() {
    let name = test_name!();
    in_child(name, A_WHILE, || goes_on(true));
}
