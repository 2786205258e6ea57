//! Keys of another type.

use atomic_cache::Cache;

struct NotAKey;

fn main() {
    let cache: Cache<u64, u32> = Cache::unbounded();
    cache.get_with("a", || 1);
    cache.get(&1_i32);
    cache.get_with(&1_i32, || 1);
    cache.invalidate(&NotAKey);
}
