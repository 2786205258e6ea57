//! The peers, bounded, driven alike through one small trait: a look-up, and an insert when it misses.
//!
//! Each is as its crate makes it, but for settings that would lower its hit ratio, or make the figures differ between
//! runs:
//!
//! * quick_cache and foyer have one shard. With more, each shard bounds its own part: the parts of a small cache are
//!   filled unevenly, their bounds are rounded up, and the figures depend on the number of processors. Over the logs of
//!   the main README quick_cache has a mean of 43.9 % so, and of 43.9 to 44.2 % with 2 to 16 shards; only one small
//!   cache differs, `corda` at 1 %.
//! * moka does its pending work after every 64 accesses, as it would by itself under load, but in a small cache after
//!   an eighth of its capacity: in between it holds too many entries, and with 64 too many of 16 it would hit more than
//!   the optimum can. Over the same logs it hits 42.4 % so, and 39.5 % with that work after every insert, presumably
//!   because a new entry is then turned away before it is read again.
//! * foyer's LFU gets a count-min sketch that grows with the capacity, as those of the others do: 43.6 %, and
//!   43.4 % with the one size that it has by default.
//! * All but tinyufo, which brings its own hasher, hash with fixed seeds, so that they hit the same every time.

use std::num::NonZeroUsize;

use foldhash::fast::FixedState;
use foyer_memory::{EvictionConfig, LfuConfig, S3FifoConfig};
use quick_cache::{OptionsBuilder, UnitWeighter, sync::DefaultLifecycle};

/// A bounded cache.
pub trait Policy {
    /// Whether `key` is there. A hit counts for the cache as a use.
    fn get(&mut self, key: u32) -> bool;

    /// Puts `key` in, or leaves it out if the cache so decides.
    fn insert(&mut self, key: u32);
}

/// How many of `keys` hit, each being put in when it misses.
pub fn drive(policy: &mut dyn Policy, keys: &[u32]) -> u64 {
    let mut hits = 0;
    for &key in keys {
        if policy.get(key) {
            hits += 1;
        } else {
            policy.insert(key);
        }
    }
    hits
}

/// One of the caches that stand beside ours.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Its name in tables and plots.
    pub name: &'static str,
    /// Makes an empty one that holds at most so many entries.
    pub build: fn(usize) -> Box<dyn Policy>,
}

/// Every peer, in the order of the columns.
pub const PEERS: [Peer; 6] = [
    Peer {
        name: "moka",
        build: |capacity| Box::new(Moka::new(capacity)),
    },
    Peer {
        name: "quick_cache",
        build: |capacity| Box::new(Quick::new(capacity)),
    },
    Peer {
        name: "tinyufo",
        build: |capacity| Box::new(Ufo(tinyufo::TinyUfo::new(capacity, capacity))),
    },
    Peer {
        name: "foyer s3-fifo",
        build: |capacity| Box::new(Foyer::new(capacity, S3FifoConfig::default())),
    },
    Peer {
        name: "foyer lfu",
        build: |capacity| Box::new(Foyer::new(capacity, lfu(capacity))),
    },
    Peer {
        name: "lru",
        build: |capacity| Box::new(Lru::new(capacity)),
    },
];

/// After at most this many accesses moka does its pending work.
const MOST_PENDING: usize = 64;

/// `moka`, with its default policy.
struct Moka {
    cache: moka::sync::Cache<u32, (), FixedState>,
    /// After this many accesses it does its pending work.
    batch: usize,
    accesses: usize,
}

impl Moka {
    fn new(capacity: usize) -> Self {
        let builder = moka::sync::Cache::builder().max_capacity(capacity as u64);
        Self {
            cache: builder.build_with_hasher(FixedState::default()),
            batch: (capacity / 8).clamp(1, MOST_PENDING),
            accesses: 0,
        }
    }
}

impl Policy for Moka {
    fn get(&mut self, key: u32) -> bool {
        self.accesses = self.accesses.wrapping_add(1);
        if self.accesses.is_multiple_of(self.batch) {
            self.cache.run_pending_tasks();
        }
        self.cache.get(&key).is_some()
    }

    fn insert(&mut self, key: u32) {
        self.cache.insert(key, ());
    }
}

/// `quick_cache`, in one shard.
struct Quick(quick_cache::sync::Cache<u32, (), UnitWeighter, FixedState>);

impl Quick {
    fn new(capacity: usize) -> Self {
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(capacity)
            .weight_capacity(capacity as u64)
            .build()
            .expect("both capacities are set");
        let lifecycle = DefaultLifecycle::default();
        let hasher = FixedState::default();
        Self(quick_cache::sync::Cache::with_options(
            options,
            UnitWeighter,
            hasher,
            lifecycle,
        ))
    }
}

impl Policy for Quick {
    fn get(&mut self, key: u32) -> bool {
        self.0.get(&key).is_some()
    }

    fn insert(&mut self, key: u32) {
        self.0.insert(key, ());
    }
}

/// `TinyUFO`.
struct Ufo(tinyufo::TinyUfo<u32, ()>);

impl Policy for Ufo {
    fn get(&mut self, key: u32) -> bool {
        self.0.get(&key).is_some()
    }

    fn insert(&mut self, key: u32) {
        self.0.put(key, (), 1);
    }
}

/// The in-memory cache of `foyer`, in one shard.
struct Foyer(foyer_memory::Cache<u32, (), FixedState>);

impl Foyer {
    fn new(capacity: usize, eviction: impl Into<EvictionConfig>) -> Self {
        let builder = foyer_memory::CacheBuilder::new(capacity)
            .with_shards(1)
            .with_eviction_config(eviction)
            .with_hash_builder(FixedState::default());
        Self(builder.build())
    }
}

/// foyer's LFU with a sketch of at least one counter for each entry.
#[expect(
    clippy::cast_precision_loss,
    reason = "an error bound need not be exact"
)]
fn lfu(capacity: usize) -> LfuConfig {
    let default = LfuConfig::default();
    LfuConfig {
        cmsketch_eps: default.cmsketch_eps.min(1.0 / capacity as f64),
        ..default
    }
}

impl Policy for Foyer {
    fn get(&mut self, key: u32) -> bool {
        self.0.get(&key).is_some()
    }

    fn insert(&mut self, key: u32) {
        self.0.insert(key, ());
    }
}

/// `lru`: exactly the least recently used entry goes.
struct Lru(lru::LruCache<u32, (), FixedState>);

impl Lru {
    fn new(capacity: usize) -> Self {
        let capacity = NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN);
        Self(lru::LruCache::with_hasher(capacity, FixedState::default()))
    }
}

impl Policy for Lru {
    fn get(&mut self, key: u32) -> bool {
        self.0.get(&key).is_some()
    }

    fn insert(&mut self, key: u32) {
        self.0.put(key, ());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::belady;

    /// Accesses to 1,000 keys, some far more often than others.
    fn skewed() -> Vec<u32> {
        let square = |index: u32| (index * 7919 % 1000).pow(2) / 1000;
        (0..20_000).map(square).collect()
    }

    #[test]
    fn every_peer_obeys_its_capacity() {
        for peer in PEERS {
            for capacity in [1, 2, 16, 100, 333] {
                let mut policy = (peer.build)(capacity);
                drive(&mut *policy, &skewed());
                // The first walk gives moka time to do its pending work.
                let mut held = || (0..1000).filter(|&key| policy.get(key)).count();
                held();
                let held = held();
                assert!(held <= capacity, "{}: {held} in {capacity}", peer.name);
            }
        }
    }

    #[test]
    fn every_peer_keeps_what_it_has_room_for() {
        let keys: Vec<u32> = (0..30).chain(0..30).collect();
        for peer in PEERS {
            let hits = drive(&mut *(peer.build)(60), &keys);
            assert_eq!(hits, 30, "{}", peer.name);
        }
    }

    #[test]
    fn no_peer_hits_more_than_the_optimum() {
        let keys = skewed();
        for peer in PEERS {
            for capacity in [16, 50, 100, 333] {
                let hits = drive(&mut *(peer.build)(capacity), &keys);
                let optimum = belady::hits(&keys, 1000, capacity as u64);
                assert!(hits <= optimum, "{}: {hits} in {capacity}", peer.name);
            }
        }
    }

    #[test]
    fn the_lru_hits_what_was_used_last() {
        for (capacity, hits) in [(1, 1), (2, 2), (3, 5), (4, 5)] {
            let found = drive(&mut Lru::new(capacity), &[1, 2, 1, 3, 3, 2, 1, 4, 2]);
            assert_eq!(found, hits, "{capacity}");
        }
    }
}
