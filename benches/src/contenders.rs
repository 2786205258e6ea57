//! The cache and its peers behind one trait, so that all do the same work.
//!
//! The work is reading through: answer with the value of a key, making it when it is not there. Where a peer
//! has an operation for that, it is used; `papaya` may make a value twice in a race, the others never do.

use std::{
    convert::Infallible,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use atomic_cache::AtomicCache;
use once_cell::sync::OnceCell;

/// The hasher all contenders share when asked to.
pub type SharedHasher = foldhash::fast::RandomState;

/// Reads through a cache from `u64` to `u64`.
pub trait ReadThrough: Send + Sync + Sized + 'static {
    /// The name of the crate.
    const NAME: &'static str;

    /// An empty cache with room for `capacity` entries from the start.
    fn sized(capacity: usize) -> Self;

    /// An empty cache as small as the crate makes it, that never evicts before it holds `limit` entries.
    fn growing(limit: usize) -> Self;

    /// The value of `key`, made when it is not there.
    fn get(&self, key: u64) -> u64;
}

/// Makes the value of a key, which is cheap, so that the cache is what is measured.
#[must_use]
pub fn make(key: u64) -> u64 {
    key.wrapping_mul(3)
}

/// `atomic-cache`, with its own or another hasher.
pub struct Atomic<S = atomic_cache::DefaultHashBuilder>(AtomicCache<u64, u64, Infallible, S>);

impl<S: BuildHasher + Default + Send + Sync + 'static> ReadThrough for Atomic<S> {
    const NAME: &'static str = "atomic-cache";

    fn sized(capacity: usize) -> Self {
        let builder = AtomicCache::builder()
            .hasher(S::default())
            .initial_capacity(capacity);
        Self(
            builder
                .build_with(|&key| make(key))
                .expect("the capacity is allowed"),
        )
    }

    fn growing(_limit: usize) -> Self {
        let builder = AtomicCache::builder().hasher(S::default());
        Self(
            builder
                .build_with(|&key| make(key))
                .expect("the default settings are allowed"),
        )
    }

    fn get(&self, key: u64) -> u64 {
        self.0.get(&key)
    }
}

/// `moka`.
pub struct Moka<S = RandomState>(moka::sync::Cache<u64, u64, S>);

impl<S: BuildHasher + Default + Clone + Send + Sync + 'static> ReadThrough for Moka<S> {
    const NAME: &'static str = "moka";

    fn sized(capacity: usize) -> Self {
        let builder = moka::sync::Cache::builder().initial_capacity(capacity);
        Self(builder.build_with_hasher(S::default()))
    }

    fn growing(_limit: usize) -> Self {
        Self(moka::sync::Cache::builder().build_with_hasher(S::default()))
    }

    fn get(&self, key: u64) -> u64 {
        self.0.get_with(key, || make(key))
    }
}

/// `quick_cache`, which wants a capacity; it gets twice what it will hold, because each shard has
/// its own limit, and has that room from the start.
pub struct Quick<S = quick_cache::DefaultHashBuilder>(
    quick_cache::sync::Cache<u64, u64, quick_cache::UnitWeighter, S>,
);

impl<S: BuildHasher + Default + Clone + Send + Sync + 'static> ReadThrough for Quick<S> {
    const NAME: &'static str = "quick_cache";

    fn sized(capacity: usize) -> Self {
        use quick_cache::{UnitWeighter, sync::DefaultLifecycle};
        let (room, hasher) = (2 * capacity, S::default());
        let lifecycle = DefaultLifecycle::default();
        Self(quick_cache::sync::Cache::with(
            room,
            room as u64,
            UnitWeighter,
            hasher,
            lifecycle,
        ))
    }

    fn growing(limit: usize) -> Self {
        Self::sized(limit)
    }

    fn get(&self, key: u64) -> u64 {
        let value = self
            .0
            .get_or_insert_with(&key, || Ok::<_, Infallible>(make(key)));
        value.unwrap_or_else(|never| match never {})
    }
}

/// `papaya`.
pub struct Papaya<S = RandomState>(papaya::HashMap<u64, u64, S>);

impl<S: BuildHasher + Default + Send + Sync + 'static> ReadThrough for Papaya<S> {
    const NAME: &'static str = "papaya";

    fn sized(capacity: usize) -> Self {
        Self(papaya::HashMap::with_capacity_and_hasher(
            capacity,
            S::default(),
        ))
    }

    fn growing(_limit: usize) -> Self {
        Self(papaya::HashMap::with_hasher(S::default()))
    }

    fn get(&self, key: u64) -> u64 {
        *self.0.pin().get_or_insert_with(key, || make(key))
    }
}

/// `scc`: a read first, and an entry under its lock where there is none.
pub struct Scc<S: BuildHasher = RandomState>(scc::HashMap<u64, u64, S>);

impl<S: BuildHasher + Default + Send + Sync + 'static> ReadThrough for Scc<S> {
    const NAME: &'static str = "scc";

    fn sized(capacity: usize) -> Self {
        Self(scc::HashMap::with_capacity_and_hasher(
            capacity,
            S::default(),
        ))
    }

    fn growing(_limit: usize) -> Self {
        Self(scc::HashMap::with_hasher(S::default()))
    }

    fn get(&self, key: u64) -> u64 {
        let found = self.0.read_sync(&key, |_, &value| value);
        found.unwrap_or_else(|| *self.0.entry_sync(key).or_insert_with(|| make(key)).get())
    }
}

/// `dashmap` with an `OnceCell` of `once_cell` for each value, the usual way to make a value once.
pub struct Dash<S = RandomState>(dashmap::DashMap<u64, Arc<OnceCell<u64>>, S>);

impl<S: BuildHasher + Default + Clone + Send + Sync + 'static> ReadThrough for Dash<S> {
    const NAME: &'static str = "dashmap+once_cell";

    fn sized(capacity: usize) -> Self {
        Self(dashmap::DashMap::with_capacity_and_hasher(
            capacity,
            S::default(),
        ))
    }

    fn growing(_limit: usize) -> Self {
        Self(dashmap::DashMap::with_hasher(S::default()))
    }

    fn get(&self, key: u64) -> u64 {
        let found = self.0.get(&key).and_then(|cell| cell.get().copied());
        found.unwrap_or_else(|| {
            let cell = Arc::clone(&self.0.entry(key).or_default());
            *cell.get_or_init(|| make(key))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads_through<C: ReadThrough>() {
        for cache in [C::sized(1000), C::growing(1000)] {
            for key in (0..1000).chain(0..1000) {
                assert_eq!(cache.get(key), make(key), "{}", C::NAME);
            }
        }
    }

    #[test]
    fn every_contender_reads_through() {
        reads_through::<Atomic>();
        reads_through::<Atomic<SharedHasher>>();
        reads_through::<Moka>();
        reads_through::<Quick>();
        reads_through::<Papaya>();
        reads_through::<Scc>();
        reads_through::<Dash>();
    }
}
