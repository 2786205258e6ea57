//! A cache whose keys are references is asked by a reference to one.

use atomic_cache::{AtomicCache, Cache};

fn main() {
    let cache: Cache<&str, u32> = Cache::unbounded();
    cache.get("a"); // a look needs no owned key
    cache.get_with("a", || 1);
    cache.get_with(&"a", || 1);

    let lengths = AtomicCache::new(|text: &&'static str| text.len(), None);
    lengths.get("a");
    lengths.get(&"a");
}
