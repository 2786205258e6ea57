//! Errors that cannot be shared, and errors that are kept where there are none.

mod not_clone {
    atomic_cache::memoize! {
        fn f(path: &str) -> std::io::Result<String> {
            std::fs::read_to_string(path)
        }
    }
}

mod not_clone_async {
    atomic_cache::memoize! {
        async fn f(n: u64) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
            Ok(n)
        }
    }
}

mod not_clone_kept {
    atomic_cache::memoize! {
        #[memoize(cache_err)]
        fn f(path: &str) -> std::io::Result<String> {
            std::fs::read_to_string(path)
        }
    }
}

mod no_result {
    atomic_cache::memoize! {
        #[memoize(cache_err)]
        fn f(n: u64) -> Option<u64> {
            Some(n)
        }
    }
}

mod nothing {
    atomic_cache::memoize! {
        #[memoize(cache_err)]
        fn f(n: u64) {
            let _ = n;
        }
    }
}

fn main() {}
