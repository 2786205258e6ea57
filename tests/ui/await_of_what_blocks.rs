//! A method that waits and is no future, awaited.

use atomic_cache::{AtomicCache, Cache};

async fn task(cache: Cache<u64, u32>, squares: AtomicCache<u64, u64>) {
    cache.invalidate(&1).await;
    cache.invalidate_all().await;
    cache.remove(&1).await;
    cache.get_with(&1, || 1).await;
    squares.get(&1).await;
}

fn main() {}
