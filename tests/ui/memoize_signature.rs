//! What a memoized function cannot be, each with what to do instead.

mod generic {
    atomic_cache::memoize! {
        pub fn f<T: Clone>(x: T) -> T {
            x.clone()
        }
    }
}

mod lifetime {
    atomic_cache::memoize! {
        fn f<'a>(x: &'a str) -> usize {
            x.len()
        }
    }
}

mod bounded {
    atomic_cache::memoize! {
        fn f(x: u64) -> u64
        where
            u64: Copy,
        {
            x
        }
    }
}

mod asynchronous_and_generic {
    atomic_cache::memoize! {
        pub async fn f<T: Clone>(x: T) -> T {
            x.clone()
        }
    }
}

mod asynchronous_and_not_safe {
    atomic_cache::memoize! {
        async unsafe fn f(x: u64) -> u64 {
            x
        }
    }
}

mod asynchronous_and_bodiless {
    atomic_cache::memoize! {
        async fn f(x: u64) -> u64;
    }
}

mod constant {
    atomic_cache::memoize! {
        pub const fn f(x: u64) -> u64 {
            x
        }
    }
}

mod not_safe {
    atomic_cache::memoize! {
        unsafe fn f(x: u64) -> u64 {
            x
        }
    }
}

mod not_safe_and_foreign {
    atomic_cache::memoize! {
        pub unsafe extern "C" fn f(x: u64) -> u64 {
            x
        }
    }
}

mod foreign {
    atomic_cache::memoize! {
        pub(crate) extern "C" fn f(x: u64) -> u64 {
            x
        }
    }
}

mod bodiless {
    atomic_cache::memoize! {
        fn f(x: u64) -> u64;
    }
}

mod no_function {
    atomic_cache::memoize! {
        struct S;
    }
}

// The ones before it are none the worse for it.
mod second {
    atomic_cache::memoize! {
        pub fn f(x: u64) -> u64 {
            x
        }

        pub const fn g(x: u64) -> u64 {
            x
        }
    }
}

fn main() {
    second::f(1);
}
