//! H6, H7: `Hash` and `Eq` that do not keep their promises. H8, H23: equal hashes.

use crate::support::common::*;
use atomic_cache::{Cache, Op};
use std::cell::Cell;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;

/// A hasher that gives every key the same hash.
#[derive(Clone, Default)]
struct OneHash;

impl Hasher for OneHash {
    fn write(&mut self, _: &[u8]) {}

    fn finish(&self) -> u64 {
        42
    }
}

type Colliding = BuildHasherDefault<OneHash>;

// ---- H6, H7: `Hash` and `Eq` that do not keep their promises.

/// The fault of a rogue key.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rogue {
    /// `Hash` panics now and then.
    HashPanics,
    /// `Hash` answers differently each time.
    HashFlips,
    /// Both.
    HashFlipsAndPanics,
    /// `Hash` gives few hashes, so that `Eq` is asked much; it panics now and then.
    EqPanics,
    /// Not reflexive: nothing is equal to anything.
    EqNever,
    /// Everything is.
    EqAlways,
    /// As a coin falls.
    EqRandom,
    /// As it likes, and panics, and the hash flips among a few.
    Everything,
}

impl Rogue {
    const ALL: [Self; 8] = [
        Self::HashPanics,
        Self::HashFlips,
        Self::HashFlipsAndPanics,
        Self::EqPanics,
        Self::EqNever,
        Self::EqAlways,
        Self::EqRandom,
        Self::Everything,
    ];
}

#[derive(Clone)]
struct RogueKey {
    counted: Counted,
    rogue: Rogue,
    caprice: Arc<Caprice>,
}

impl Hash for RogueKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let id = self.counted.id();
        let panics = match self.rogue {
            Rogue::HashPanics | Rogue::HashFlipsAndPanics => self.caprice.roll(20) == 0,
            Rogue::Everything => self.caprice.roll(50) == 0,
            _ => false,
        };
        if panics {
            unwind("no hash");
        }
        match self.rogue {
            Rogue::HashPanics => id,
            Rogue::HashFlips | Rogue::HashFlipsAndPanics => self.caprice.roll(1 << 40),
            Rogue::Everything => id % 64 + self.caprice.roll(2),
            Rogue::EqPanics | Rogue::EqNever | Rogue::EqAlways | Rogue::EqRandom => id % 64,
        }
        .hash(state);
    }
}

impl PartialEq for RogueKey {
    fn eq(&self, other: &Self) -> bool {
        let same = self.counted == other.counted;
        match self.rogue {
            Rogue::EqPanics | Rogue::Everything if self.caprice.roll(50) == 0 => unwind("no eq"),
            Rogue::EqNever => false,
            Rogue::EqAlways => true,
            Rogue::EqRandom | Rogue::Everything => self.caprice.roll(2) == 0,
            _ => same,
        }
    }
}

impl Eq for RogueKey {}

/// Random operations of four threads on rogue keys. They may panic and may answer nonsense.
/// They must end, drop every key and value once (`Counted` aborts otherwise), and leave
/// a cache that can be emptied.
fn rogue_churn(rogue: Rogue, ttl: bool, operations: u64) {
    let (keys, values) = (Ledger::new(), Ledger::new());
    let (caprice, clock) = (Arc::default(), atomic_cache::ManualClock::new());
    let builder = Cache::<RogueKey, Counted>::builder().opaque_keys();
    let cache = if ttl {
        builder.time_to_live(SECOND).clock(clock.clone())
    } else {
        builder
    }
    .build()
    .unwrap();
    let key = |id: u64| RogueKey {
        counted: keys.make(id),
        rogue,
        caprice: Arc::clone(&caprice),
    };
    thread::scope(|scope| {
        for thread in 0..4 {
            let (cache, key, values, clock) = (&cache, &key, &values, &clock);
            scope.spawn(move || {
                let mut dice = Dice::new(thread * 31 + rogue as u64);
                for _ in 0..operations {
                    let id = dice.roll(400);
                    let what = dice.roll(100);
                    if dice.roll(64) == 0 {
                        clock.advance(SECOND / 4);
                    }
                    // The key is made to panic.
                    let _ = catch_unwind(AssertUnwindSafe(|| match what {
                        0..25 => cache.insert(key(id), values.make(id)),
                        25..50 => drop(cache.get_with(&key(id), || values.make(id))),
                        50..60 => drop(cache.entry(key(id)).or_insert_with(|| values.make(id))),
                        60..70 => {
                            cache.invalidate(&key(id));
                        }
                        70..75 => {
                            cache.invalidate_nowait(&key(id));
                        }
                        75..80 => drop(cache.remove(&key(id))),
                        80..85 => drop(
                            cache
                                .entry(key(id))
                                .and_compute_with(|_| Op::Put(values.make(id))),
                        ),
                        85..90 => {
                            cache.contains(&key(id));
                        }
                        90..92 => {
                            let _ = cache.get_with(&key(id), || unwind("no fill"));
                        }
                        92..96 => drop(cache.get_value_or_guard(&key(id), None)),
                        96..98 => {
                            cache.pin().get_or_fill_with(&key(id), || values.make(id));
                        }
                        98 => cache.invalidate_if(|key, _| key.counted.id() % 7 == 0),
                        _ => {
                            cache.iter().count();
                        }
                    }));
                }
            });
        }
    });
    // At rest: everything that is linked is a key and a value, and there is nothing else.
    cache.quiesce();
    assert_eq!(cache.retired(), 0, "{rogue:?}");
    assert_eq!(values.alive(), cache.len(), "{rogue:?}, values");
    assert_eq!(keys.alive(), cache.len(), "{rogue:?}, keys");
    drop(cache);
    assert_eq!((keys.alive(), values.alive()), (0, 0), "{rogue:?}");
}

#[test]
fn h07_rogue_keys_cause_no_hang_and_no_leak() {
    for rogue in Rogue::ALL {
        watched(move || rogue_churn(rogue, false, 1200));
    }
}

#[test]
fn h07_rogue_keys_that_expire_cause_no_hang_and_no_leak() {
    for rogue in Rogue::ALL {
        watched(move || rogue_churn(rogue, true, 1200));
    }
}

/// A key that hashes well until it is told not to.
#[derive(Clone)]
struct Turncoat {
    counted: Counted,
    /// 1: the hash of even keys panics. 2: it is another one.
    turned: Arc<AtomicUsize>,
}

impl Hash for Turncoat {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let id = self.counted.id();
        match self.turned.load(SeqCst) {
            1 if id % 2 == 0 => unwind("no hash"),
            2 if id % 2 == 0 => (id ^ 0x5555).hash(state),
            _ => id.hash(state),
        }
    }
}

impl PartialEq for Turncoat {
    fn eq(&self, other: &Self) -> bool {
        self.counted == other.counted
    }
}

impl Eq for Turncoat {}

/// Keys that cannot be hashed, or hash otherwise, while the table grows: they may be lost, to
/// look-ups or altogether. Everything else is intact, and everything is dropped once.
#[test]
fn h07_the_table_grows_while_hashes_panic_and_flip() {
    watched(|| {
        for way in [1, 2] {
            let (keys, values) = (Ledger::new(), Ledger::new());
            let turned = Arc::new(AtomicUsize::new(0));
            let cache: Cache<Turncoat, Counted> = Cache::builder().opaque_keys().build().unwrap();
            let key = |id| Turncoat {
                counted: keys.make(id),
                turned: Arc::clone(&turned),
            };
            (0..140).for_each(|id| cache.insert(key(id), values.make(id)));
            turned.store(way, SeqCst);
            let odd = |id: &u64| id % 2 == 1;
            for id in (140..4000).filter(odd) {
                cache.insert(key(id), values.make(id));
            }
            for id in (0..4000).filter(odd) {
                let found = cache.with(&key(id), Counted::id);
                assert_eq!(found, Some(id));
            }
            if way == 1 {
                assert!(panics(|| cache.insert(key(2), values.make(2))));
                assert!(panics(|| cache.get(&key(2))));
                assert!(panics(|| cache.invalidate(&key(2))));
            }
            turned.store(0, SeqCst);
            cache.quiesce();
            let left = cache.len();
            assert!((2000..=2070).contains(&left), "{left}");
            assert_eq!((keys.alive(), values.alive()), (left, left));
            // Whatever has become of a key, it can be put in again.
            cache.insert(key(2), values.make(2));
            assert_eq!(cache.with(&key(2), Counted::id), Some(2));
            drop(cache);
            assert_eq!((keys.alive(), values.alive()), (0, 0));
        }
    });
}

/// The same while such a key is being filled, or computed over a live value, and others wait.
#[test]
fn h07_a_key_that_is_being_filled_while_its_hash_panics_and_flips_resolves_its_flight() {
    watched(|| {
        for (way, ending, live) in [1, 2].into_iter().flat_map(|way| {
            ["value", "nothing", "panic"]
                .into_iter()
                .flat_map(move |ending| [false, true].map(|live| (way, ending, live)))
        }) {
            let (keys, values) = (Ledger::new(), Ledger::new());
            let turned = Arc::new(AtomicUsize::new(0));
            let clock = atomic_cache::ManualClock::new();
            let cache: Cache<Turncoat, Counted> = Cache::builder()
                .opaque_keys()
                .time_to_live(SECOND)
                .clock(clock.clone())
                .build()
                .unwrap();
            let key = |id| Turncoat {
                counted: keys.make(id),
                turned: Arc::clone(&turned),
            };
            if live {
                cache.insert(key(2), values.make(5));
            }
            let held = Held::new();
            thread::scope(|scope| {
                let leader = scope.spawn(|| {
                    cache.entry(key(2)).and_compute_with(|_| {
                        held.hold(());
                        match ending {
                            "value" => Op::Put(values.make(10)),
                            "nothing" => Op::Nop,
                            _ => unwind("on purpose"),
                        }
                    })
                });
                held.begun.pass();
                // The old value is served while it lives: let it expire, and they join.
                clock.advance(SECOND);
                let waiters = [(); 3]
                    .map(|()| scope.spawn(|| cache.get_with(&key(2), || values.make(20)).id()));
                await_joined(|| cache.stats(), 3);
                turned.store(way, SeqCst);
                for id in (1..4000).step_by(2) {
                    cache.insert(key(id), values.make(id));
                }
                assert_eq!(cache.with(&key(1), Counted::id), Some(1));
                turned.store(0, SeqCst);
                held.end.open();
                assert_eq!(leader.join().is_err(), ending == "panic");
                let expected = if ending == "value" { 10 } else { 20 };
                for waiter in waiters {
                    assert_eq!(waiter.join().unwrap(), expected, "{way}, {ending}, {live}");
                }
            });
            cache.quiesce();
            let left = cache.len();
            assert!((2000..=2002).contains(&left), "{left}");
            assert_eq!((keys.alive(), values.alive()), (left, left));
            drop(cache);
            assert_eq!((keys.alive(), values.alive()), (0, 0));
        }
    });
}

#[test]
fn h06_a_hash_that_panics_leaves_other_keys_intact_whatever_the_verb() {
    /// A hasher that panics in `finish` for one key.
    #[derive(Clone, Default)]
    struct Touchy(std::collections::hash_map::RandomState);

    impl BuildHasher for Touchy {
        type Hasher = <std::collections::hash_map::RandomState as BuildHasher>::Hasher;

        fn build_hasher(&self) -> Self::Hasher {
            self.0.build_hasher()
        }

        fn hash_one<T: Hash>(&self, key: T) -> u64 {
            let hash = self.0.hash_one(&key);
            if hash == self.0.hash_one(13_u64) {
                unwind("thirteen");
            }
            hash
        }
    }

    watched(|| {
        let cache: Cache<u64, u64, Touchy> =
            Cache::builder().hasher(Touchy::default()).build().unwrap();
        let others = |cache: &Cache<u64, u64, Touchy>| {
            (0..13).for_each(|key| assert_eq!(cache.get_with(&key, || key), key));
            assert_eq!((cache.len(), cache.iter().count()), (13, 13));
        };
        others(&cache);
        assert!(panics(|| cache.get(&13)));
        assert!(panics(|| cache.contains(&13)));
        assert!(panics(|| cache.get_with(&13, || 1)));
        assert!(panics(|| cache.entry(13).or_insert(1)));
        assert!(panics(|| cache.entry(13).and_compute_with(|_| Op::Put(1))));
        assert!(panics(|| drop(cache.get_value_or_guard(&13, None))));
        assert!(panics(|| *cache.pin().get_or_fill_with(&13, || 1)));
        assert!(panics(|| cache.insert(13, 1)));
        assert!(panics(|| cache.invalidate(&13)));
        assert!(panics(|| cache.remove(&13)));
        others(&cache);
        assert_eq!(cache.stats().fills, 13);
        cache.quiesce();
    });
}

/// H6, H7. The charge for an entry that then was not put in.
#[test]
fn h07_r10_an_insert_whose_eq_panics_weighs_nothing() {
    thread_local! {
        static PANICS: Cell<bool> = const { Cell::new(false) };
    }

    #[derive(Debug)]
    struct Touchy(u64);

    impl Hash for Touchy {
        fn hash<H: Hasher>(&self, state: &mut H) {
            7.hash(state);
        }
    }

    impl PartialEq for Touchy {
        fn eq(&self, other: &Self) -> bool {
            if PANICS.get() {
                unwind("do not compare me");
            }
            self.0 == other.0
        }
    }

    impl Eq for Touchy {}

    let cache: Cache<Touchy, u64> = Cache::builder().max_capacity(3).build().unwrap();
    cache.insert(Touchy(1), 1);
    PANICS.set(true);
    for _ in 0..5 {
        assert!(panics(|| cache.insert(Touchy(2), 2)));
    }
    PANICS.set(false);
    assert_eq!((cache.len(), cache.weighted_size()), (1, 1));
    cache.insert(Touchy(2), 2);
    cache.insert(Touchy(3), 3);
    assert_eq!((cache.len(), cache.weighted_size()), (3, 3));
}

// ---- H8, H23: equal hashes.

/// 10,000 keys with one hash; a tenth of that without optimization. The cost is linear in
/// their number, as `Builder::hasher` says.
#[test]
fn h08_many_keys_with_one_hash() {
    watched_for(SECOND * 120, || {
        let keys = rounds("ATOMIC_CACHE_H8", 10_000);
        let cache: Cache<u64, u64, Colliding> = Cache::builder()
            .hasher(Colliding::default())
            .build()
            .unwrap();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for key in 0..keys {
                        assert_eq!(cache.get_with(&key, || key + 1), key + 1);
                    }
                });
            }
        });
        assert_eq!(cache.stats().fills, keys);
        assert_eq!(
            (cache.len(), cache.iter().count()),
            (keys as usize, keys as usize)
        );
        for key in (0..keys).step_by(7) {
            assert_eq!(cache.remove(&key), Some(key + 1));
        }
        for key in (0..keys).step_by(5) {
            assert_eq!(cache.get(&key), (key % 7 != 0).then_some(key + 1));
        }
    });
}

#[test]
fn h23_keys_with_equal_hashes_have_each_their_own_value_and_flight() {
    watched(|| {
        for _ in 0..50 {
            let cache: Cache<u64, u64, Colliding> = Cache::builder()
                .hasher(Colliding::default())
                .build()
                .unwrap();
            let (fills, barrier) = (Tally::default(), Barrier::new(THREADS));
            thread::scope(|scope| {
                for thread in 0..THREADS as u64 {
                    let (cache, fills, barrier) = (&cache, &fills, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        for step in 0..16 {
                            let key = (thread + step) % 16;
                            let value = cache.get_with(&key, || {
                                fills.add();
                                key * 7
                            });
                            assert_eq!(value, key * 7);
                        }
                    });
                }
            });
            assert_eq!(fills.get(), 16);
            assert!(cache.invalidate(&3));
            assert_eq!((cache.get(&3), cache.get(&4)), (None, Some(28)));
        }
    });
}
