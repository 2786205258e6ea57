//! Options that are not there, or not written so.

mod unknown {
    atomic_cache::memoize! {
        #[memoize(tll = std::time::Duration::from_secs(1))]
        fn f(n: u64) -> u64 {
            n
        }
    }
}

mod unknown_after_known {
    atomic_cache::memoize! {
        #[memoize(key = n % 10, lru)]
        fn f(n: u64) -> u64 {
            n
        }
    }
}

mod twice {
    atomic_cache::memoize! {
        #[memoize(key = n % 10)]
        #[memoize(key = n % 100)]
        fn f(n: u64) -> u64 {
            n
        }
    }
}

mod ttl_form {
    atomic_cache::memoize! {
        #[memoize(ttl(60))]
        fn f(n: u64) -> u64 {
            n
        }
    }
}

mod clock_twice {
    atomic_cache::memoize! {
        #[memoize(clock = atomic_cache::Clock::system(), clock = atomic_cache::Clock::system())]
        fn f(n: u64) -> u64 {
            n
        }
    }
}

mod clock_form {
    atomic_cache::memoize! {
        #[memoize(clock)]
        fn f(n: u64) -> u64 {
            n
        }
    }
}

mod max_capacity_twice {
    atomic_cache::memoize! {
        #[memoize(max_capacity = 10, ttl = std::time::Duration::MAX, max_capacity = 20)]
        fn f(n: u64) -> u64 {
            n
        }
    }
}

mod max_bytes_twice {
    atomic_cache::memoize! {
        #[memoize(max_bytes = "1M")]
        #[memoize(max_bytes = "2M")]
        fn f(n: u64) -> u64 {
            n
        }
    }
}

mod entries_and_bytes {
    atomic_cache::memoize! {
        #[memoize(max_capacity = 10, max_bytes = "1M")]
        fn f(n: u64) -> u64 {
            n
        }
    }
}

mod bytes_and_entries {
    atomic_cache::memoize! {
        #[memoize(max_bytes = "1M")]
        #[memoize(max_capacity = 10)]
        fn f(n: u64) -> u64 {
            n
        }
    }
}

mod max_capacity_form {
    atomic_cache::memoize! {
        #[memoize(max_capacity(10))]
        fn f(n: u64) -> u64 {
            n
        }
    }
}

mod max_bytes_form {
    atomic_cache::memoize! {
        #[memoize(max_bytes)]
        fn f(n: u64) -> u64 {
            n
        }
    }
}

mod key_form {
    atomic_cache::memoize! {
        #[memoize(key)]
        fn f(n: u64) -> u64 {
            n
        }
    }
}

mod skip_form {
    atomic_cache::memoize! {
        #[memoize(skip = n)]
        fn f(n: u64) -> u64 {
            n
        }
    }
}

mod option_form {
    atomic_cache::memoize! {
        #[memoize = "60s"]
        fn f(n: u64) -> u64 {
            n
        }
    }
}

mod cache_err_form {
    atomic_cache::memoize! {
        #[memoize(cache_err = true)]
        fn f(n: u64) -> Result<u64, u64> {
            Ok(n)
        }
    }
}

mod cache_err_twice {
    atomic_cache::memoize! {
        #[memoize(cache_err, ttl = std::time::Duration::MAX, cache_err)]
        fn f(n: u64) -> Result<u64, u64> {
            Ok(n)
        }
    }
}

fn main() {}
