//! What a run that outlives its caller cannot have.

use std::rc::Rc;

async fn pause() {}

mod not_send {
    atomic_cache::memoize! {
        async fn f(n: u64) -> u64 {
            let count = super::Rc::new(n);
            super::pause().await;
            *count
        }
    }
}

mod skipped_and_not_cloned {
    pub(crate) struct Pool;

    atomic_cache::memoize! {
        #[memoize(skip(pool))]
        async fn f(n: u64, pool: &Pool) -> u64 {
            let _ = pool;
            n
        }
    }
}

mod skipped_and_lent {
    atomic_cache::memoize! {
        #[memoize(skip(log))]
        async fn f(n: u64, log: Option<&str>) -> u64 {
            n + log.map_or(0, str::len) as u64
        }
    }
}

fn main() {}
