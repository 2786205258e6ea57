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

fn main() {}
