//! Capacity, weights, and which entries go: clause 9.

mod capacity;
mod eviction;
mod expired_first;
mod room;
mod stack;
mod weigh;

use atomic_cache::Cache;

fn counted(capacity: u64) -> Cache<u64, u64> {
    Cache::builder().max_capacity(capacity).build().unwrap()
}
