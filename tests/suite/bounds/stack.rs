//! The stack that large values take, as the documentation of `Cache` has it.

use crate::support::common::{in_child, test_name};
use atomic_cache::{AtomicCache, Cache, CompResult, GuardResult, Op, TaskGuardResult};
use futures_lite::future::block_on;
use std::hint::black_box;
use std::thread;
use std::time::Duration;

const LARGE: usize = 256 << 10;

/// How many times more a debug build takes: the documented figures are those of a release build.
const DEBUG: usize = if cfg!(debug_assertions) { 7 } else { 1 };

type Value = [u8; LARGE];

struct Caches {
    plain: Cache<u64, Value>,
    by_call: AtomicCache<u64, Value>,
    by_future: AtomicCache<u64, Value>,
}

#[allow(clippy::large_stack_arrays)]
#[inline(never)]
fn make<const N: usize>(key: u64) -> [u8; N] {
    black_box([key as u8; N])
}

/// One call on a thread with a stack of so many values, and a little for all else.
fn on_a_stack_of(values: usize, call: fn(&Caches)) {
    let caches = Caches {
        plain: Cache::unbounded(),
        by_call: AtomicCache::new(|key: &u64| make(*key), None),
        by_future: AtomicCache::new_async(|key: u64| async move { make(key) }, None),
    };
    let thread = thread::Builder::new()
        .stack_size(values * DEBUG * LARGE + (64 << 10))
        .spawn(move || call(&caches));
    thread.unwrap().join().unwrap();
}

#[test]
#[allow(clippy::large_futures)]
#[cfg_attr(miri, ignore = "needs a process")]
fn c09_values_of_256_kib_take_no_more_stack_than_is_documented() {
    in_child(test_name!(), Duration::from_secs(60), || {
        on_a_stack_of(2, |caches| caches.plain.insert(1, make(1)));
        on_a_stack_of(2, |caches| {
            black_box(&caches.plain.get(&1));
        });
        on_a_stack_of(2, |caches| {
            assert_eq!(caches.by_call.with(&1, |value| value[0]), 1);
        });
        on_a_stack_of(3, |caches| {
            black_box(&caches.plain.get_with(&1, || make(1)));
        });
        on_a_stack_of(3, |caches| {
            let got = caches.plain.try_get_with(&1, || Ok::<_, u8>(make(1)));
            assert!(black_box(&got).is_ok());
        });
        on_a_stack_of(3, |caches| {
            let first = caches.by_future.with_async(&1, |value| value[0]);
            assert_eq!(block_on(first), 1);
        });
        on_a_stack_of(4, |caches| {
            let got = caches.plain.optionally_get_with(&1, || Some(make(1)));
            assert!(black_box(&got).is_some());
        });
        on_a_stack_of(4, |caches| {
            let put = |_: Option<&Value>| Op::Put(make(1));
            let computed = caches.plain.entry(1).and_compute_with(put);
            assert!(matches!(black_box(&computed), CompResult::Inserted(_)));
        });
        on_a_stack_of(4, |caches| {
            black_box(&caches.by_call.get(&1));
        });
        on_a_stack_of(5, |caches| {
            black_box(&caches.plain.entry(1).or_insert_with(|| make(1)));
        });
        on_a_stack_of(5, |caches| {
            match caches.plain.get_value_or_guard(&1, None) {
                GuardResult::Guard(guard) => {
                    black_box(&guard.insert(make(1)));
                }
                _ => unreachable!("nobody else is there"),
            }
        });
        on_a_stack_of(5, |caches| {
            block_on(async {
                black_box(&caches.plain.get_with_async(&1, || async { make(1) }).await);
            });
        });
        on_a_stack_of(5, |caches| {
            block_on(async {
                black_box(&caches.by_future.get_async(&1).await);
            });
        });
        on_a_stack_of(5, |caches| {
            let entry = caches.plain.entry(1);
            block_on(async {
                black_box(&entry.or_insert_with_async(|| async { make(1) }).await);
            });
        });
        on_a_stack_of(8, |caches| {
            let entry = caches.plain.entry(1);
            block_on(async {
                let put = |_| async { Op::Put(make(1)) };
                black_box(&entry.and_compute_with_async(put).await);
            });
        });
        on_a_stack_of(8, |caches| {
            block_on(async {
                match caches.plain.get_value_or_guard_async(&1).await {
                    TaskGuardResult::Guard(guard) => {
                        black_box(&guard.insert(make(1)));
                    }
                    _ => unreachable!("nobody else is there"),
                }
            });
        });
        // A hit that lends takes nothing.
        let caches: Cache<u64, Box<Value>> = Cache::unbounded();
        caches.insert(1, vec![1; LARGE].into_boxed_slice().try_into().unwrap());
        let caches = caches.clone();
        let lent = move || caches.with(&1, |value| value[0]);
        let thread = thread::Builder::new().stack_size(64 << 10).spawn(lent);
        assert_eq!(thread.unwrap().join().unwrap(), Some(1));
    });
}

/// On the 2 MiB of a thread of std. In a debug build the value is so many times smaller as such a build takes more.
#[test]
#[allow(clippy::large_futures)]
#[cfg_attr(miri, ignore = "needs a process")]
fn c09_what_fits_a_thread_of_std_can_be_filled_in() {
    const HALF: usize = (512 << 10) / DEBUG;
    const QUARTER: usize = (256 << 10) / DEBUG;
    in_child(test_name!(), Duration::from_secs(60), || {
        let on_2_mib = |call: fn()| {
            let thread = thread::Builder::new().stack_size(2 << 20).spawn(call);
            thread.unwrap().join().unwrap();
        };
        on_2_mib(|| {
            let cache: Cache<u64, [u8; HALF]> = Cache::unbounded();
            assert_eq!(black_box(&cache.get_with(&1, || make(1)))[0], 1);
            assert_eq!(black_box(&cache.get_with(&1, || make(2)))[0], 1);
        });
        on_2_mib(|| {
            let cache: Cache<u64, [u8; QUARTER]> = Cache::unbounded();
            block_on(async {
                let first = cache.get_with_async(&1, || async { make(1) }).await;
                assert_eq!(black_box(&first)[0], 1);
            });
        });
    });
}
