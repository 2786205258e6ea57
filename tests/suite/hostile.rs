//! Hostile inputs. A test's name begins with the number of its row in the table of hostile
//! inputs: H1 to H8, H11 to H16, H20 to H23, H26 to H28, each as far as threads go. (Capacity,
//! weights, listeners, tasks and `fork` are not here.)
//!
//! What each row demands:
//!
//! * H1 a waiter refills after a panic · H2 a `Clone` that panics leaves the key usable · H3, H4
//!   `invalidate` and `insert` beat a running fill · H5 a `Drop` that panics is contained, all
//!   else is dropped · H6, H7 `Hash` and `Eq` that panic or lie: no undefined behaviour, no hang,
//!   other keys intact · H8, H23 equal hashes: each key its own value
//! * H11, H12, H13 lifetimes of zero and of `Duration::MAX`, clocks that misbehave
//! * H14, H15, H16 fills that ask for, remove or set their own key, also round several threads
//! * H20, H21 ends of threads and of caches · H22 (its part without listeners) predicates
//! * H26 an old flight that fails late · H27 looks during a fill · H28 memory stays flat

use crate::common::*;
use atomic_cache::{
    AtomicCache, Cache, CompResult, GuardResult, Op, PlaceholderGuard, TryGetError,
};
use std::cell::RefCell;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, LazyLock};
use std::thread;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn plain() -> Cache<u64, u64> {
    Cache::unbounded()
}

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

// ---- H1, H2: fills and clones that panic.

/// All callers' fills but one panic; whoever waits runs the next, in turn.
#[test]
fn h01_of_many_fills_that_panic_the_one_that_does_not_is_cached() {
    watched(|| {
        for round in 0..100 {
            let cache = plain();
            let (runs, barrier) = (Tally::default(), Barrier::new(THREADS));
            let good = round % THREADS as u64;
            let panicked = thread::scope(|scope| {
                let callers: Vec<_> = (0..THREADS)
                    .map(|_| {
                        scope.spawn(|| {
                            barrier.wait();
                            cache.get_with(&1, || {
                                if runs.add() != good {
                                    unwind("on purpose");
                                }
                                10
                            })
                        })
                    })
                    .collect();
                let ends = callers.into_iter().map(thread::ScopedJoinHandle::join);
                ends.filter(|end| !matches!(end, Ok(10))).count() as u64
            });
            assert_eq!((panicked, runs.get()), (good, good + 1));
            assert_eq!(cache.get(&1), Some(10));
            assert_eq!(cache.stats().fill_panics, good);
        }
    });
}

/// A value, and a key, whose clone panics when it is told to.
struct Picky {
    counted: Counted,
    refuse: Arc<AtomicUsize>,
}

impl Picky {
    fn new(ledger: &Arc<Ledger>, id: u64, refuse: &Arc<AtomicUsize>) -> Self {
        Self {
            counted: ledger.make(id),
            refuse: Arc::clone(refuse),
        }
    }
}

impl Clone for Picky {
    fn clone(&self) -> Self {
        let refused = self
            .refuse
            .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        if refused.is_ok() {
            unwind("no clone");
        }
        Self {
            counted: self.counted.clone(),
            refuse: Arc::clone(&self.refuse),
        }
    }
}

impl PartialEq for Picky {
    fn eq(&self, other: &Self) -> bool {
        self.counted == other.counted
    }
}

impl Eq for Picky {}

impl Hash for Picky {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.counted.hash(state);
    }
}

#[test]
fn h02_a_clone_that_panics_as_the_value_is_handed_out_leaves_the_key_usable() {
    watched(|| {
        for refusals in 1..=5 {
            let ledger = Ledger::new();
            let refuse = Arc::new(AtomicUsize::new(0));
            let cache: Cache<u64, Picky> = Cache::unbounded();
            let held = Held::new();
            let ask = |held: Option<Held>| {
                let (cache, value) = (cache.clone(), Picky::new(&ledger, 10, &refuse));
                thread::spawn(move || {
                    cache
                        .get_with(&1, || {
                            if let Some(held) = held {
                                held.hold(());
                            }
                            value
                        })
                        .counted
                        .id()
                })
            };
            let leader = ask(Some(held.clone()));
            held.begun.pass();
            let waiters = [(); 4].map(|()| ask(None));
            await_joined(|| cache.stats(), 4);
            refuse.store(refusals, SeqCst);
            held.end.open();
            let mut ends = vec![leader.join()];
            ends.extend(waiters.into_iter().map(thread::JoinHandle::join));
            // As many clones were refused as were to be; all other callers have the value.
            let panicked = ends.iter().filter(|end| end.is_err()).count();
            assert_eq!(panicked, refusals);
            assert!(ends.into_iter().flatten().all(|id| id == 10));
            // The value is there: it was published before it was cloned.
            assert_eq!(cache.with(&1, |value| value.counted.id()), Some(10));
            assert_eq!(cache.get(&1).unwrap().counted.id(), 10);
            assert_eq!(cache.stats().fills, 1);
            refuse.store(1, SeqCst);
            assert!(panics(|| cache.get(&1)));
            refuse.store(1, SeqCst);
            assert!(panics(|| cache.peek(&1)));
            refuse.store(1, SeqCst);
            assert!(panics(|| cache.iter().count()));
            refuse.store(1, SeqCst);
            assert!(panics(|| cache.entry(1).and_compute_with(|_| Op::Nop)));
            assert_eq!(cache.len(), 1);
            refuse.store(1, SeqCst);
            assert!(panics(|| cache.remove(&1)));
            assert!(
                !cache.contains(&1),
                "removed, though nobody was told the value"
            );
            cache.quiesce();
            assert_eq!((ledger.alive(), cache.len(), cache.retired()), (0, 0, 0));
        }
    });
}

#[test]
fn h02_a_clone_of_the_key_that_panics_leaves_the_key_usable() {
    watched(|| {
        let ledger = Ledger::new();
        let refuse = Arc::new(AtomicUsize::new(0));
        let cache: Cache<Picky, u64> = Cache::builder().opaque_keys().build().unwrap();
        let key = Picky::new(&ledger, 1, &refuse);
        for _ in 0..200 {
            refuse.store(1, SeqCst);
            assert!(panics(
                || cache.get_with(&key, || unreachable!("no slot, no fill"))
            ));
            refuse.store(1, SeqCst);
            assert!(panics(|| drop(cache.get_value_or_guard(&key, None))));
        }
        assert_eq!(cache.stats().fills, 0);
        assert_eq!(cache.get_with(&key, || 10), 10);
        assert_eq!(cache.get(&key), Some(10));
        refuse.store(1, SeqCst);
        assert_eq!(cache.get(&key), Some(10), "a hit clones no key");
        drop(cache);
        assert_eq!(ledger.alive(), 1);
    });
}

// ---- H3, H4: a fill that is overtaken. (More in `contract.rs`, c2 and c3.)

#[test]
fn h03_a_value_invalidated_during_its_fill_is_never_seen_later() {
    watched(|| {
        for round in 0..300 {
            let (fills, held) = (Tally::default(), Held::new());
            let cache = {
                let (fills, held) = (fills.clone(), held.clone());
                AtomicCache::new(
                    move |_: &u64| match fills.add() {
                        0 => held.hold(0),
                        fill => fill,
                    },
                    None,
                )
            };
            let leader = {
                let cache = cache.clone();
                thread::spawn(move || cache.get(&1))
            };
            held.begun.pass();
            let invalidating = {
                let cache = cache.clone();
                thread::spawn(move || {
                    if round % 2 == 0 {
                        cache.invalidate(&1);
                    } else {
                        cache.invalidate_nowait(&1);
                    }
                    (cache.peek(&1), cache.get(&1))
                })
            };
            if round % 2 == 0 {
                held.end.open();
            }
            let (peeked, got) = invalidating.join().unwrap();
            assert_eq!((peeked, got), (None, 1));
            held.end.open();
            assert_eq!(leader.join().unwrap(), 0);
            assert_eq!((cache.get(&1), fills.get()), (1, 2));
        }
    });
}

#[test]
fn h04_an_insert_during_a_fill_is_not_overwritten_by_it() {
    watched(|| {
        for verb in Verb::ALL {
            let cache = plain();
            // From inside, and from another thread.
            let came = verb.ask(&cache, 1, || {
                cache.insert(1, 11);
                assert_eq!(cache.get(&1), Some(11));
                let other = cache.clone();
                thread::spawn(move || other.insert(1, 12)).join().unwrap();
                assert_eq!(cache.get_with(&1, || 13), 12);
                Ok(10)
            });
            assert_eq!(came, Ok(10), "{verb:?}");
            assert_eq!((cache.get(&1), cache.len()), (Some(12), 1));
        }
    });
}

// ---- H5: drops that panic.

/// A key or value whose drop panics, if it is told to.
struct Explosive {
    counted: Counted,
    explodes: bool,
}

impl Drop for Explosive {
    fn drop(&mut self) {
        if self.explodes {
            unwind("a drop that panics");
        }
    }
}

impl PartialEq for Explosive {
    fn eq(&self, other: &Self) -> bool {
        self.counted == other.counted
    }
}

impl Eq for Explosive {}

impl Hash for Explosive {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.counted.hash(state);
    }
}

/// Values that come and go, every third of which panics when it is dropped: no verb ever panics,
/// every value is dropped, and the panics are counted.
#[test]
fn h05_a_drop_that_panics_is_contained_and_every_other_value_is_dropped() {
    watched(|| {
        let ledger = Ledger::new();
        let cache: Cache<u64, Arc<Explosive>> = Cache::unbounded();
        let exploding = AtomicU64::new(0);
        let make = |id: u64| {
            let explodes = id % 3 == 0;
            exploding.fetch_add(u64::from(explodes), SeqCst);
            Arc::new(Explosive {
                counted: ledger.make(id),
                explodes,
            })
        };
        let held: Vec<_> = thread::scope(|scope| {
            let threads = [1, 2, 3, 4].map(|seed| {
                let (cache, make) = (&cache, &make);
                scope.spawn(move || {
                    let mut dice = Dice::new(seed);
                    let mut held = vec![];
                    for id in 0..2000 {
                        let key = dice.roll(32);
                        match dice.roll(4) {
                            0 => cache.insert(key, make(id)),
                            1 => {
                                cache.with(&key, |value| value.counted.id());
                                cache.invalidate(&key);
                            }
                            2 => {
                                held.push(cache.get_with(&key, || make(id)));
                                cache.invalidate(&key);
                            }
                            _ => drop(cache.pin().get(&key).map(|value| value.counted.id())),
                        }
                    }
                    held
                })
            });
            threads
                .into_iter()
                .flat_map(|it| it.join().unwrap())
                .collect()
        });
        cache.invalidate_all();
        cache.quiesce();
        assert_eq!((cache.len(), cache.retired()), (0, 0));
        let in_the_cache = cache.stats().panicked_drops;
        // The others explode in our hands: each value once, here or there.
        let here = held.into_iter().map(|value| panics(|| drop(value)));
        let here = here.filter(|panicked| *panicked).count() as u64;
        assert!(in_the_cache > 0 && here > 0, "{in_the_cache}, {here}");
        assert_eq!(in_the_cache + here, exploding.load(SeqCst));
        assert_eq!(ledger.alive(), 0);
    });
}

#[test]
fn h05_every_way_to_remove_survives_a_drop_that_panics() {
    watched(|| {
        for explosive_keys in [false, true] {
            let ledger = Ledger::new();
            let make = |id: u64, explodes: bool| Explosive {
                counted: ledger.make(id),
                explodes,
            };
            let cache: Cache<Explosive, Explosive> =
                Cache::builder().opaque_keys().build().unwrap();
            let put = |id: u64| {
                let key = make(id, explosive_keys && id % 2 == 0);
                cache.insert(key, make(id, !explosive_keys && id % 2 == 0));
            };
            let probe = |id: u64| make(id, false);
            (0..400).for_each(put);
            (0..100).for_each(put);
            (100..200).for_each(|id| assert!(cache.invalidate(&probe(id))));
            cache.invalidate_if(|key, _| (200..300).contains(&key.counted.id()));
            cache.quiesce();
            assert_eq!(cache.len(), 200);
            // 50 of each hundred: replaced, invalidated one by one, invalidated by predicate.
            assert_eq!(cache.stats().panicked_drops, 150);
            assert_eq!((ledger.alive(), cache.retired()), (400, 0));
            cache.invalidate_all();
            cache.quiesce();
            assert_eq!(cache.stats().panicked_drops, 250);
            assert_eq!(ledger.alive(), 0);
            // Dropped by the cache's own end: retired ones, and live ones.
            (0..100).for_each(put);
            (0..50).for_each(|id| assert!(cache.invalidate(&probe(id))));
            drop(cache);
            assert_eq!(ledger.alive(), 0);
        }
    });
}

/// The panic of a drop may carry something whose own drop panics.
#[test]
fn h05_a_drop_whose_panic_carries_a_bomb_is_contained() {
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            unwind("the payload's drop");
        }
    }

    struct Carrier(#[allow(dead_code)] Counted);

    impl Drop for Carrier {
        fn drop(&mut self) {
            resume_unwind(Box::new(Bomb));
        }
    }

    let name = "hostile::h05_a_drop_whose_panic_carries_a_bomb_is_contained";
    in_child(name, SECOND * 20, || {
        let ledger = Ledger::new();
        let cache: Cache<u64, Carrier> = Cache::unbounded();
        for id in 0..10 {
            cache.insert(id, Carrier(ledger.make(id)));
            cache.invalidate(&id);
        }
        cache.quiesce();
        assert_eq!((ledger.alive(), cache.retired()), (0, 0));
        assert_eq!(cache.stats().panicked_drops, 10);
        // And in the hash of a key that is moved, and so on: everywhere we catch.
        let other = plain();
        other.insert(1, 1);
        other.invalidate(&1);
        other.quiesce();
        assert_eq!(other.retired(), 0);
    });
}

/// Clause 6: `Hash` may panic, with what it likes. A key that does so while its word is moved is
/// let go of, and no caller is told: each of them asked for another key.
#[test]
fn h06_a_hash_whose_panic_carries_a_bomb_is_contained_while_the_table_grows() {
    static ARMED: AtomicBool = AtomicBool::new(false);

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            if !thread::panicking() {
                unwind("the payload's drop");
            }
        }
    }

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Mined(u64);

    impl Hash for Mined {
        fn hash<H: Hasher>(&self, state: &mut H) {
            if self.0 == 0 && ARMED.load(SeqCst) {
                resume_unwind(Box::new(Bomb));
            }
            self.0.hash(state);
        }
    }

    let name = "hostile::h06_a_hash_whose_panic_carries_a_bomb_is_contained_while_the_table_grows";
    in_child(name, SECOND * 20, || {
        let cache: Cache<Mined, u64> = Cache::unbounded();
        cache.insert(Mined(0), 0);
        ARMED.store(true, SeqCst);
        for id in 1..5000 {
            assert!(!panics(|| cache.insert(Mined(id), id)), "{id}");
        }
        // 0 is lost: a growth had no hash to move it by.
        assert_eq!((cache.len(), cache.iter().count()), (4999, 4999));
        for id in 1..5000 {
            assert_eq!(cache.get(&Mined(id)), Some(id));
        }
    });
}

/// In a process of its own: two panics at once abort it.
#[test]
fn h05_a_key_and_its_value_may_both_panic_when_they_are_dropped() {
    let name = "hostile::h05_a_key_and_its_value_may_both_panic_when_they_are_dropped";
    in_child(name, SECOND * 20, || {
        let ledger = Ledger::new();
        let cache: Cache<Explosive, Explosive> = Cache::builder().opaque_keys().build().unwrap();
        let make = |id: u64, explodes| Explosive {
            counted: ledger.make(id),
            explodes,
        };
        (0..10).for_each(|id| cache.insert(make(id, true), make(id, true)));
        let probe = |id: u64| make(id, false);
        (0..5).for_each(|id| assert!(cache.invalidate(&probe(id))));
        cache.quiesce();
        assert_eq!(ledger.alive(), 10);
        drop(cache);
        assert_eq!(ledger.alive(), 0);
    });
}

// ---- H6, H7: `Hash` and `Eq` that do not keep their promises.

/// What a rogue key does.
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

/// The source of all caprice: a number that is different each time.
#[derive(Default)]
struct Caprice(AtomicU64);

impl Caprice {
    fn roll(&self, sides: u64) -> u64 {
        let number = self.0.fetch_add(1, SeqCst);
        Dice::new(number).roll(sides)
    }
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
                    // That it panics is what the key is for.
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
    /// A hasher whose `finish` panics for one key.
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

// ---- H11, H12, H13: times.

#[test]
fn h11_with_ttl_zero_nothing_is_ever_a_hit() {
    watched(|| {
        let (clock, cache) = timed(Duration::ZERO);
        for fill in 0..50 {
            assert_eq!(cache.get_with(&1, || fill), fill);
            assert_eq!((cache.get(&1), cache.peek(&1)), (None, None));
            cache.insert(1, 99);
            assert_eq!((cache.contains(&1), cache.len()), (false, 0));
            assert!(!cache.invalidate(&1));
            let computed = cache.entry(1).and_compute_with(|there| {
                assert_eq!(there, None);
                Op::Put(fill)
            });
            assert_eq!(computed, CompResult::Inserted(fill));
            let mut view = cache.pin();
            assert_eq!(view.get_or_fill_with(&1, || fill + 1), &(fill + 1));
            assert_eq!(view.get(&1), None);
            if fill == 25 {
                clock.advance(SECOND);
            }
        }
        cache.quiesce();
        assert_eq!(
            (cache.len(), cache.iter().count(), cache.retired()),
            (0, 0, 0)
        );
    });
}

#[test]
fn h12_a_ttl_of_duration_max_is_taken_and_never_ends() {
    let (clock, cache) = timed(Duration::MAX);
    cache.insert(1, 10);
    assert_eq!(cache.get_with(&2, || 20), 20);
    clock.advance(Duration::MAX);
    assert_eq!((cache.get(&1), cache.get(&2)), (Some(10), Some(20)));
    let system = AtomicCache::new(|key: &u64| *key, Duration::MAX);
    assert_eq!((system.get(&1), system.peek(&1)), (1, Some(1)));
    // One less than the longest there is, too.
    let (clock, cache) = timed(Duration::from_nanos(i64::MAX as u64 - 1));
    clock.advance(SECOND);
    cache.insert(1, 10);
    clock.advance(SECOND);
    assert_eq!(cache.get(&1), Some(10));
}

#[test]
fn c08_a_clock_advanced_past_its_end_stops_there_and_serves_nothing_expired() {
    watched(|| {
        let (clock, cache) = timed(SECOND * 60);
        clock.advance(SECOND);
        cache.insert(1, 10);
        // Three steps of the longest span pass 2^64 nanoseconds.
        let mut before = clock.now();
        for _ in 0..5 {
            clock.advance(Duration::MAX);
            assert!(clock.now() >= before, "went back to {:?}", clock.now());
            before = clock.now();
            assert_eq!((cache.get(&1), cache.peek(&1)), (None, None));
            assert!(!cache.contains(&1));
        }
        clock.advance(Duration::from_nanos(1));
        assert_eq!(clock.now(), before);
        clock.set(Duration::MAX);
        assert_eq!(clock.now(), before);
        // Fills and computes go on there.
        assert_eq!(cache.get_with(&1, || 11), 11);
        cache.insert(2, 20);
        assert_eq!(cache.get(&2), Some(20));
    });
}

#[test]
fn c08_threads_that_advance_one_clock_lose_no_step() {
    let (clock, _) = timed(SECOND);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1000).for_each(|_| clock.advance(Duration::from_nanos(1))));
        }
    });
    assert_eq!(clock.now(), Duration::from_micros(4));
}

#[test]
fn c08_every_setting_and_wait_takes_the_longest_duration() {
    watched(|| {
        let clock = atomic_cache::ManualClock::new();
        let build = || Cache::<u64, u64>::builder().clock(clock.clone());
        let cache = build()
            .time_to_live(Duration::MAX)
            .purge_interval(Duration::MAX)
            .fill_timeout(Duration::MAX)
            .on_slow_fill(Duration::MAX, |_, _| panic!("none is that slow"))
            .build()
            .unwrap();
        // The clock passes its end during a fill: the fill has an age, and nothing wraps.
        let value = cache.get_with(&1, || {
            clock.advance(Duration::MAX);
            let age = cache.in_flight()[0].age;
            assert!(age >= Some(Duration::from_secs(9_000_000_000)), "{age:?}");
            clock.advance(Duration::MAX);
            assert!(cache.in_flight()[0].age >= age);
            cache.run_pending_tasks();
            10
        });
        assert_eq!((value, cache.get(&1)), (10, Some(10)));
        assert!(matches!(
            cache.get_value_or_guard(&1, Some(Duration::MAX)),
            GuardResult::Value(10)
        ));
        assert!(matches!(
            cache.get_value_or_guard(&2, Some(Duration::MAX)),
            GuardResult::Guard(_)
        ));
        assert_eq!(cache.close_within(Duration::MAX), 0);

        // A fill that began late has no negative age once the clock is set back.
        let cache = build().fill_timeout(SECOND).build().unwrap();
        assert_eq!(
            cache.get_with(&1, || {
                clock.set(Duration::ZERO);
                assert_eq!(cache.in_flight()[0].age, Some(Duration::ZERO));
                10
            }),
            10
        );
    });
}

#[test]
fn h13_a_clock_that_stalls_steps_back_or_jumps_expires_nothing_early_and_nothing_late() {
    watched(|| {
        let (clock, cache) = timed(SECOND);
        clock.set(SECOND * 100);
        cache.insert(1, 10);
        // It stalls: nothing expires.
        for key in 2..2000 {
            cache.insert(key, key);
        }
        assert_eq!((cache.get(&1), cache.len()), (Some(10), 1999));
        // It steps back: nothing expires.
        clock.set(SECOND * 50);
        assert_eq!(cache.get(&1), Some(10));
        // What is put in meanwhile lives by the clock that there is.
        cache.insert(1, 11);
        clock.set(Duration::from_nanos(50_999_999_999));
        assert_eq!(cache.get(&1), Some(11));
        clock.set(SECOND * 51);
        assert_eq!(cache.get(&1), None);
        // It recovers: what was put in before lives for its second and not longer.
        clock.set(Duration::from_nanos(100_999_999_999));
        assert_eq!(cache.get(&2), Some(2));
        clock.set(SECOND * 101);
        assert_eq!((cache.get(&2), cache.iter().count()), (None, 0));
        // It jumps to its very end, and time still is counted.
        clock.set(Duration::from_nanos(u64::MAX));
        cache.insert(1, 12);
        assert_eq!(cache.get_with(&3, || 30), 30);
        assert_eq!(cache.get(&2), None);
    });
}

// ---- H14: a fill asks for its own key.

/// What `verb` says when its fill would wait for itself: as an error, or as a panic.
fn cycle_text(verb: Verb, ask: impl FnOnce() -> Came) -> String {
    match verb {
        Verb::TryGetWith
        | Verb::OrTryInsertWith
        | Verb::PinnedTry
        | Verb::Guard
        | Verb::TryGetWithAsync
        | Verb::OrTryInsertWithAsync => ask().unwrap_err().expect("an error with a text"),
        _ => panic_text(ask),
    }
}

#[test]
fn h14_a_fill_that_asks_for_its_own_key_is_told_so_by_every_verb_in_every_verb() {
    watched(|| {
        for outer in Verb::ALL {
            for inner in Verb::ALL {
                let cache = plain();
                let came = outer.ask(&cache, 17, || {
                    let text = cycle_text(inner, || {
                        inner.ask(&cache, 17, || unreachable!("the key has a fill"))
                    });
                    assert!(text.contains("17 -> 17"), "{inner:?} in {outer:?}: {text}");
                    Ok(10)
                });
                assert_eq!(came, Ok(10), "{inner:?} in {outer:?}");
                assert_eq!((cache.get(&17), cache.stats().fills), (Some(10), 1));
            }
        }
        // Not caught, it is the outer caller's panic, and the key is usable afterwards.
        let cache = plain();
        let text = panic_text(|| cache.get_with(&17, || cache.get_with(&17, || 1)));
        assert!(text.contains("17 -> 17"), "{text}");
        assert_eq!(cache.get_with(&17, || 10), 10);
    });
}

#[test]
fn h14_a_recursion_that_comes_back_names_all_keys_on_its_way() {
    watched(|| {
        for way in Way::ALL {
            // 1 -> 2 -> 3 -> 4 -> 2.
            let ring = way.chain(|_, key| Some(if key == 4 { 2 } else { key + 1 }));
            for verb in AtomicVerb::ALL {
                let text = panic_text(|| verb.ask(&ring, 1));
                assert!(text.contains("2 -> 3 -> 4 -> 2"), "{text}");
                assert!(!text.contains("1 ->"), "1 is not on the cycle: {text}");
                assert!(ring.is_empty());
            }
        }
        // A refresh inside a fill is a flight of the same key as well.
        let again = AtomicCache::recursive(
            |again: &AtomicCache<u64, u64>, &key: &u64| match again.try_refresh(&key) {
                Err(TryGetError::Cycle(cycle)) => {
                    assert_eq!(cycle.keys(), ["5", "5"]);
                    key
                }
                other => panic!("{other:?}"),
            },
            None,
        );
        assert_eq!((again.get(&5), again.refresh(&5)), (5, 5));
    });
}

/// Sixteen fills on one stack, and more.
#[test]
fn h14_a_long_cycle_is_found_at_any_depth() {
    watched(|| {
        for length in [2, 15, 16, 17, 100] {
            let ring = AtomicCache::recursive(
                move |ring: &AtomicCache<u64, u64>, &key: &u64| ring.get(&((key + 1) % length)),
                None,
            );
            let text = panic_text(|| ring.get(&0));
            let last = format!("{} -> 0", length - 1);
            if length <= 16 {
                assert!(text.contains(&last), "{length}: {text}");
            }
            assert!(text.contains(" -> 0"), "{length}: {text}");
            assert!(ring.is_empty());
        }
    });
}

#[test]
fn h14_a_cycle_over_two_caches_is_found() {
    watched(|| {
        let (numbers, words) = (plain(), Cache::<String, u64>::unbounded());
        let error = numbers.try_get_with(&1, || {
            words.get_with("spam", || {
                match numbers.try_get_with(&1, || Ok::<_, String>(3)) {
                    Err(TryGetError::Cycle(cycle)) => {
                        assert_eq!(cycle.keys(), ["1", "\"spam\"", "1"]);
                        2
                    }
                    other => panic!("{other:?}"),
                }
            });
            Err::<u64, _>("seen")
        });
        assert_eq!(error, Err(TryGetError::Fill("seen")));
        assert_eq!(words.get("spam"), Some(2));
    });
}

#[test]
fn h14_who_holds_a_guard_cannot_wait_for_its_key() {
    watched(|| {
        for verb in Verb::ALL {
            let cache = plain();
            let GuardResult::Guard(guard) = cache.get_value_or_guard(&17, None) else {
                panic!("there is nobody else")
            };
            let text = cycle_text(verb, || verb.ask(&cache, 17, || Ok(1)));
            assert!(text.contains("17 -> 17"), "{verb:?}: {text}");
            // Other keys are no cycle.
            assert_eq!(verb.ask(&cache, 18, || Ok(1)), Ok(1));
            assert_eq!(guard.insert(10), 10);
            assert_eq!(verb.ask(&cache, 17, || Ok(1)), Ok(10));
        }
    });
}

// ---- H15: cycles round several threads.

/// Each of `threads` fills its own key and, once all fills run, asks for the next one's. Returns
/// the texts of the cycles that were reported; all callers must come back.
fn ring_of_threads(threads: u64, outer: Verb, inner: Verb) -> Vec<String> {
    let cache = plain();
    let barrier = Arc::new(Barrier::new(threads as usize));
    let (send, receive) = channel();
    let callers: Vec<_> = (0..threads)
        .map(|key| {
            let (cache, barrier, send) = (cache.clone(), Arc::clone(&barrier), send.clone());
            thread::spawn(move || {
                let fill = || {
                    barrier.wait();
                    let next = (key + 1) % threads;
                    let ask = || inner.ask(&cache, next, || Ok(1000 + next));
                    let came = catch_unwind(AssertUnwindSafe(ask))
                        .unwrap_or_else(|panic| Err(Some(text_of(&*panic))));
                    match came {
                        // From its leader, or by a fill of our own if the cache had none.
                        Ok(value) => assert!([100 + next, 1000 + next].contains(&value)),
                        Err(text) => send.send(text.unwrap()).unwrap(),
                    }
                    Ok(100 + key)
                };
                assert_eq!(outer.ask(&cache, key, fill), Ok(100 + key));
            })
        })
        .collect();
    for caller in callers {
        caller.join().unwrap();
    }
    drop(send);
    for key in 0..threads {
        assert_eq!(cache.get(&key), Some(100 + key));
    }
    receive.into_iter().collect()
}

#[test]
fn h15_of_two_threads_that_wait_for_each_other_one_gets_the_error() {
    watched(|| {
        for outer in Verb::ALL {
            for inner in Verb::ALL {
                let errors = ring_of_threads(2, outer, inner);
                if outer.is_async() && !inner.is_async() {
                    // Inside a poll: it would block, cycle or not.
                    assert!(!errors.is_empty(), "{inner:?} in {outer:?}");
                    continue;
                }
                assert_eq!(errors.len(), 1, "{inner:?} in {outer:?}: {errors:?}");
                let named = ["0 -> 1 -> 0", "1 -> 0 -> 1"];
                let named = named.iter().any(|cycle| errors[0].contains(cycle));
                assert!(named, "{inner:?} in {outer:?}: {errors:?}");
            }
        }
    });
}

#[test]
fn h15_of_three_and_more_threads_in_a_ring_one_gets_the_error() {
    watched(|| {
        for threads in [3, 4, 8] {
            for round in 0..40 {
                let outer = Verb::ALL[round % Verb::ALL.len()];
                let inner = Verb::ALL[(round / 2) % Verb::ALL.len()];
                let errors = ring_of_threads(threads, outer, inner);
                if outer.is_async() && !inner.is_async() {
                    assert!(!errors.is_empty(), "{inner:?} in {outer:?}");
                    continue;
                }
                assert_eq!(errors.len(), 1, "{inner:?} in {outer:?}: {errors:?}");
                for key in 0..threads {
                    let step = format!("{key} -> {}", (key + 1) % threads);
                    assert!(errors[0].contains(&step), "{errors:?}");
                }
            }
        }
    });
}

#[test]
fn h15_a_cycle_over_two_threads_and_three_caches_is_found() {
    watched(|| {
        for _ in 0..100 {
            let (a, b): (Cache<u64, u64>, Cache<u64, u64>) = (plain(), plain());
            let words: Cache<String, u64> = Cache::unbounded();
            let barrier = Barrier::new(2);
            let errors = AtomicUsize::new(0);
            let note = |result: Result<u64, TryGetError<Refused>>| match result {
                Ok(value) => value,
                Err(TryGetError::Cycle(cycle)) => {
                    assert_eq!(cycle.keys().len(), 4, "{cycle}");
                    assert!(cycle.to_string().contains("\"spam\" -> "), "{cycle}");
                    errors.fetch_add(1, SeqCst);
                    0
                }
                Err(other) => panic!("{other}"),
            };
            thread::scope(|scope| {
                // a/1 -> words/spam -> b/2 on one thread, b/2 -> a/1 on the other.
                scope.spawn(|| {
                    a.get_with(&1, || {
                        words.get_with("spam", || {
                            barrier.wait();
                            note(b.try_get_with(&2, || Ok(22)))
                        })
                    });
                });
                scope.spawn(|| {
                    b.get_with(&2, || {
                        barrier.wait();
                        note(a.try_get_with(&1, || Ok(11)))
                    });
                });
            });
            assert_eq!(errors.load(SeqCst), 1);
        }
    });
}

/// The plain verbs panic with it; the fill that panics hands its key to who waits for it, and
/// that caller's own fill ends.
#[test]
fn h15_a_cycle_that_nobody_catches_ends_in_one_panic() {
    watched(|| {
        for _ in 0..200 {
            let cache = plain();
            let barrier = Arc::new(Barrier::new(2));
            let callers = [(1, 2), (2, 1)].map(|(own, other)| {
                let (cache, barrier) = (cache.clone(), Arc::clone(&barrier));
                thread::spawn(move || {
                    cache.get_with(&own, || {
                        barrier.wait();
                        cache.get_with(&other, || 1000 + other) + 1
                    })
                })
            });
            let ends = callers.map(thread::JoinHandle::join);
            let panics: Vec<_> = ends.iter().filter_map(|end| end.as_ref().err()).collect();
            assert_eq!(panics.len(), 1);
            assert!(text_of(&**panics[0]).contains(" -> "));
            // The other one has filled both keys.
            assert_eq!(cache.len(), 2);
        }
    });
}

#[test]
fn h15_guards_that_wait_for_each_other_get_one_error() {
    watched(|| {
        for _ in 0..200 {
            let cache = plain();
            let barrier = Arc::new(Barrier::new(2));
            let holders = [(1, 2), (2, 1)].map(|(own, other)| {
                let (cache, barrier) = (cache.clone(), Arc::clone(&barrier));
                thread::spawn(move || {
                    let GuardResult::Guard(guard) = cache.get_value_or_guard(&own, None) else {
                        panic!("there is nobody else")
                    };
                    barrier.wait();
                    let met = match cache.get_value_or_guard(&other, Some(SECOND * 60)) {
                        GuardResult::Cycle(cycle) => {
                            let keys = cycle.keys();
                            assert_eq!((keys.first(), keys.last()), (keys.last(), keys.first()));
                            assert!(keys.contains(&own.to_string()), "{cycle}");
                            assert!(keys.contains(&other.to_string()), "{cycle}");
                            1
                        }
                        GuardResult::Value(value) => {
                            assert_eq!(value, other * 10);
                            0
                        }
                        result => panic!("{result:?}"),
                    };
                    guard.insert(own * 10);
                    met
                })
            });
            let met = holders.map(|holder| holder.join().unwrap());
            assert_eq!(met[0] + met[1], 1);
            assert_eq!((cache.get(&1), cache.get(&2)), (Some(10), Some(20)));
        }
    });
}

/// Waiting by `invalidate` is waiting: of fills that invalidate each other's keys one is cut off
/// instead, so both end, and neither value is kept.
#[test]
fn h15_fills_that_invalidate_each_others_keys_both_end() {
    type Way = fn(&Cache<u64, u64>, u64);
    let ways: [(&str, Way); 4] = [
        ("invalidate", |cache, other| {
            cache.invalidate(&other);
        }),
        ("remove", |cache, other| {
            cache.remove(&other);
        }),
        ("invalidate_all", |cache, _| cache.invalidate_all()),
        ("invalidate_if", |cache, _| cache.invalidate_if(|_, _| true)),
    ];
    for (_, one) in ways {
        for (_, two) in ways {
            watched(move || {
                for round in 0..20 {
                    let cache = plain();
                    if round % 2 == 0 {
                        cache.insert(1, 5);
                    }
                    let barrier = Arc::new(Barrier::new(2));
                    let fills = [(1, 2, one), (2, 1, two)].map(|(own, other, way)| {
                        let (cache, barrier) = (cache.clone(), Arc::clone(&barrier));
                        thread::spawn(move || {
                            cache.entry(own).and_compute_with(|_| {
                                barrier.wait();
                                way(&cache, other);
                                Op::Put(own)
                            })
                        })
                    });
                    for fill in fills {
                        fill.join().unwrap();
                    }
                    // `invalidate_if` sees its own key too, and whoever ends second is judged.
                    assert_eq!(cache.iter().count(), cache.len());
                    cache.invalidate_all();
                    assert!(cache.is_empty());
                }
            });
        }
    }
}

#[test]
fn h15_fills_that_invalidate_each_others_keys_keep_neither_value() {
    watched(|| {
        for _ in 0..200 {
            let cache = plain();
            let barrier = Arc::new(Barrier::new(2));
            let fills = [(1, 2), (2, 1)].map(|(own, other)| {
                let (cache, barrier) = (cache.clone(), Arc::clone(&barrier));
                thread::spawn(move || {
                    cache.get_with(&own, || {
                        barrier.wait();
                        cache.invalidate(&other);
                        own
                    })
                })
            });
            // Each has called `invalidate` after both fills had begun. One of them may have come
            // when the other's fill had ended: then it has removed what that had published.
            for (fill, own) in fills.into_iter().zip([1, 2]) {
                assert_eq!(fill.join().unwrap(), own);
            }
            assert_eq!(cache.iter().collect::<Vec<_>>(), []);
        }
    });
}

/// One waits for the other's value, the other for the end of the first: whoever comes second is
/// told, or cuts off.
#[test]
fn h15_a_get_and_an_invalidate_that_wait_for_each_other_both_end() {
    watched(|| {
        for _ in 0..200 {
            let cache = plain();
            let barrier = Arc::new(Barrier::new(2));
            let getting = {
                let (cache, barrier) = (cache.clone(), Arc::clone(&barrier));
                thread::spawn(move || {
                    cache.get_with(&1, || {
                        barrier.wait();
                        match cache.try_get_with(&2, || Ok::<_, Refused>(20)) {
                            Ok(value) => value,
                            Err(TryGetError::Cycle(cycle)) => {
                                assert_eq!(cycle.keys(), ["2", "1", "2"]);
                                0
                            }
                            Err(other) => panic!("{other}"),
                        }
                    })
                })
            };
            let invalidating = {
                let (cache, barrier) = (cache.clone(), Arc::clone(&barrier));
                thread::spawn(move || {
                    cache.get_with(&2, || {
                        barrier.wait();
                        cache.invalidate(&1);
                        2
                    })
                })
            };
            assert!([0, 2].contains(&getting.join().unwrap()));
            assert_eq!(invalidating.join().unwrap(), 2);
            assert!(!cache.contains(&1));
            assert!(cache.contains(&2));
        }
    });
}

/// Random graphs with cycles, walked by many threads at once, with panics and invalidations:
/// everybody comes back, with a value or with an error that names keys.
#[test]
fn h15_nobody_hangs_on_random_graphs_with_cycles() {
    watched(|| {
        const NODES: u64 = 12;
        for round in 0..30 {
            let caprice = Arc::new(Caprice::default());
            let cache: AtomicCache<u64, u64> = AtomicCache::recursive(
                move |cache, &node: &u64| {
                    let edges = caprice.roll(3);
                    for _ in 0..edges {
                        let next = caprice.roll(NODES);
                        match caprice.roll(12) {
                            0 => drop(cache.invalidate(&next)),
                            1 => drop(cache.try_refresh(&next)),
                            2 => {
                                // May panic, and then so do we.
                                cache.get(&next);
                            }
                            3 => unwind("on purpose"),
                            _ => {
                                if let Err(error) = cache.try_get(&next) {
                                    assert!(error.to_string().contains(" -> "), "{error}");
                                }
                            }
                        }
                    }
                    node
                },
                None,
            );
            let barrier = Barrier::new(THREADS);
            thread::scope(|scope| {
                for thread in 0..THREADS as u64 {
                    let (cache, barrier) = (&cache, &barrier);
                    scope.spawn(move || {
                        let mut dice = Dice::new(round * 100 + thread);
                        barrier.wait();
                        for _ in 0..60 {
                            let node = dice.roll(NODES);
                            match dice.roll(10) {
                                0 => drop(cache.invalidate(&node)),
                                1 => cache.invalidate_all(),
                                _ => {
                                    let got = catch_unwind(AssertUnwindSafe(|| cache.get(&node)));
                                    assert!(got.is_err() || got.is_ok_and(|got| got == node));
                                }
                            }
                        }
                    });
                }
            });
            // At rest nobody leads and nobody waits: every key can be filled.
            for node in 0..NODES {
                cache.invalidate(&node);
                assert!(!cache.contains(&node));
            }
            assert_eq!(cache.len(), 0);
        }
    });
}

// ---- H16: a fill that removes or sets its own key.

#[test]
fn h16_a_fill_that_removes_its_own_key_does_not_wait_for_itself() {
    type Way = fn(&Cache<u64, u64>);
    let ways: [(&str, Way); 6] = [
        ("invalidate_if_nowait", |cache| {
            cache.invalidate_if_nowait(|_, _| true);
        }),
        ("invalidate", |cache| {
            cache.invalidate(&1);
        }),
        ("invalidate_nowait", |cache| {
            cache.invalidate_nowait(&1);
        }),
        ("remove", |cache| {
            cache.remove(&1);
        }),
        ("invalidate_all", Cache::invalidate_all),
        ("twice", |cache| {
            cache.invalidate(&1);
            cache.invalidate(&1);
            cache.invalidate_all();
        }),
    ];
    watched(move || {
        for (name, way) in ways {
            for verb in Verb::ALL {
                // It comes before a compute, which has no effect then; `invalidate_if` leaves that alone.
                if verb.computes() && name == "invalidate_if_nowait" {
                    continue;
                }
                let put = |value| {
                    if verb.computes() {
                        Err(None)
                    } else {
                        Ok(value)
                    }
                };
                let cache = plain();
                cache.insert(2, 20);
                let came = verb.ask(&cache, 1, || {
                    way(&cache);
                    assert!(!cache.contains(&1));
                    // Cut off: a new flight of the key runs inside the old one.
                    assert_eq!(cache.get_with(&1, || 11), 11, "{name} in {verb:?}");
                    Ok(10)
                });
                assert_eq!(came, put(10), "{name} in {verb:?}");
                assert_eq!(cache.get(&1), Some(11), "{name} in {verb:?}");
                // Without the inner one: nothing is kept.
                let came = verb.ask(&cache, 3, || {
                    cache.invalidate_all();
                    Ok(30)
                });
                assert_eq!((came, cache.len()), (put(30), 0), "{name} in {verb:?}");
            }
        }
    });
}

#[test]
fn h16_a_compute_or_refresh_that_removes_its_own_live_key_keeps_nothing() {
    watched(|| {
        type Way = fn(&Cache<u64, u64>);
        let ways: [(&str, Way); 4] = [
            ("invalidate", |cache| assert!(cache.invalidate(&1))),
            ("remove", |cache| assert_eq!(cache.remove(&1), Some(5))),
            ("invalidate_all", Cache::invalidate_all),
            ("invalidate_if", |cache| cache.invalidate_if(|_, _| true)),
        ];
        for (name, way) in ways {
            for op in [Op::Put(10), Op::Nop, Op::Remove] {
                let cache = plain();
                cache.insert(1, 5);
                cache.entry(1).and_compute_with(|there| {
                    way(&cache);
                    assert!(!cache.contains(&1), "{name}");
                    // What is lent stays.
                    assert_eq!(there, Some(&5));
                    op
                });
                assert_eq!((cache.get(&1), cache.len()), (None, 0), "{name}, {op:?}");
            }
        }
        // The keys' waiters from other threads: they had joined, they get the value.
        let cache = plain();
        let held = Held::new();
        let leader = {
            let (cache, held) = (cache.clone(), held.clone());
            thread::spawn(move || {
                cache.get_with(&1, || {
                    held.hold(());
                    cache.invalidate(&1);
                    10
                })
            })
        };
        held.begun.pass();
        let waiters = join_flight(&cache, 1, 3, 20);
        held.end.open();
        assert_eq!(leader.join().unwrap(), 10);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), 10);
        }
        assert_eq!(cache.len(), 0);
    });
}

#[test]
fn h16_a_fill_that_inserts_its_own_key_is_overruled_by_it() {
    watched(|| {
        for verb in Verb::ALL {
            let cache = plain();
            let came = verb.ask(&cache, 1, || {
                cache.insert(1, 11);
                assert_eq!(verb.ask(&cache, 1, || Ok(12)), Ok(11));
                Ok(10)
            });
            assert_eq!((came, cache.get(&1)), (Ok(10), Some(11)), "{verb:?}");
            // And if it fails after that.
            let cache = plain();
            let end = catch_unwind(AssertUnwindSafe(|| {
                verb.ask(&cache, 1, || {
                    cache.insert(1, 11);
                    unwind("on purpose")
                })
            }));
            assert!(end.is_err());
            assert_eq!((cache.get(&1), cache.len()), (Some(11), 1), "{verb:?}");
        }
    });
}

// ---- H20, H21: ends of threads and of caches.

static AT_THE_END: LazyLock<Cache<u64, u64>> = LazyLock::new(Cache::unbounded);

/// Uses a cache when its thread ends. (A panic there would abort: it is caught and reported.)
struct Last(Option<Box<dyn FnOnce()>>);

impl Drop for Last {
    fn drop(&mut self) {
        if let Some(last) = self.0.take() {
            last();
        }
    }
}

thread_local! {
    static EARLY: RefCell<Last> = const { RefCell::new(Last(None)) };
}

/// Runs `last` when a new thread ends: before the cache's own thread-locals go (`touched_first`:
/// they were made first, and go last), or after. Returns its panic's text, if it panics.
fn at_the_end_of_a_thread(
    touched_first: bool,
    last: impl FnOnce() + Send + 'static,
) -> Option<String> {
    let (send, receive) = channel();
    thread::spawn(move || {
        let touch = || assert!(!plain().contains(&1));
        let last: Box<dyn FnOnce()> = Box::new(move || {
            let end = catch_unwind(AssertUnwindSafe(last));
            let _ = send.send(end.err().map(|panic| text_of(&*panic)));
        });
        if touched_first {
            touch();
        }
        EARLY.with(|early| early.borrow_mut().0 = Some(last));
        if !touched_first {
            touch();
        }
    });
    receive.recv().expect("it is run")
}

#[test]
fn h20_everything_works_in_the_destructors_of_thread_locals() {
    watched(|| {
        for touched_first in [true, false] {
            let end = at_the_end_of_a_thread(touched_first, move || {
                let ledger = Ledger::new();
                let cache: Cache<u64, Counted> = Cache::unbounded();
                let fill = |key: u64| cache.get_with(&key, || ledger.make(key)).id();
                (0..500).for_each(|key| assert_eq!(fill(key), key));
                (0..500).for_each(|key| assert_eq!(fill(key), key));
                assert_eq!(cache.get(&3).map(|value| value.id()), Some(3));
                assert_eq!(cache.with(&3, Counted::id), Some(3));
                assert_eq!(cache.pin()[&3].id(), 3);
                assert_eq!(
                    cache.pin().get_or_fill_with(&600, || ledger.make(6)).id(),
                    6
                );
                (0..300).for_each(|key| assert!(cache.invalidate(&key)));
                cache.quiesce();
                assert_eq!((cache.len(), cache.retired()), (201, 0));
                assert_eq!(ledger.alive(), 201);
                // A fill that fails, one that panics, one in a cycle.
                assert!(cache.optionally_get_with(&1, || None).is_none());
                assert!(panics(|| cache.get_with(&1, || unwind("on purpose"))));
                let text =
                    panic_text(|| cache.get_with(&1, || cache.get_with(&1, || ledger.make(1))));
                assert!(text.contains("1 -> 1"), "{text}");
                cache.invalidate_all();
                cache.quiesce();
                assert_eq!((ledger.alive(), cache.retired()), (0, 0));
            });
            assert_eq!(end, None, "touched first: {touched_first}");
        }
    });
}

#[test]
fn h20_a_thread_may_lead_and_wait_in_the_destructors_of_its_thread_locals() {
    watched(|| {
        for touched_first in [true, false] {
            let cache = plain();
            // It leads, and others wait.
            let held = Held::new();
            let leader = {
                let (cache, held) = (cache.clone(), held.clone());
                thread::spawn(move || {
                    at_the_end_of_a_thread(touched_first, move || {
                        assert_eq!(cache.get_with(&1, || held.hold(10)), 10);
                    })
                })
            };
            held.begun.pass();
            let waiters = join_flight(&cache, 1, 2, 20);
            held.end.open();
            assert_eq!(leader.join().unwrap(), None);
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), 10);
            }
            // It waits for somebody else, and for an end.
            let held = Held::new();
            let leader = start_fill(&cache, 2, 20, &held);
            let before = cache.stats().joined;
            let waiter = {
                let cache = cache.clone();
                thread::spawn(move || {
                    at_the_end_of_a_thread(touched_first, move || {
                        assert_eq!(cache.get_with(&2, || 21), 20);
                        cache.invalidate(&2);
                    })
                })
            };
            await_joined(|| cache.stats(), before + 1);
            held.end.open();
            assert_eq!(leader.join().unwrap(), 20);
            assert_eq!(waiter.join().unwrap(), None);
            assert!(!cache.contains(&2));
        }
    });
}

/// In a process of its own: a thread that hangs there spins.
#[test]
fn h20_quiesce_under_a_view_is_refused_in_the_destructors_of_thread_locals_too() {
    let name =
        "hostile::h20_quiesce_under_a_view_is_refused_in_the_destructors_of_thread_locals_too";
    in_child(name, SECOND * 10, || {
        for touched_first in [true, false] {
            let end = at_the_end_of_a_thread(touched_first, || {
                let cache = plain();
                let view = cache.pin();
                cache.insert(1, 10);
                cache.invalidate(&1);
                let text = panic_text(|| cache.quiesce());
                assert!(text.contains("drop the view first"), "{text}");
                drop(view);
            });
            assert_eq!(end, None, "touched first: {touched_first}");
        }
    });
}

thread_local! {
    static HELD_GUARD: RefCell<Option<PlaceholderGuard<'static, u64, u64>>> =
        const { RefCell::new(None) };
}

/// A thread ends, and with it the guard that it keeps in a thread-local: its waiters go on.
#[test]
fn h21_a_thread_that_ends_while_it_leads_passes_the_lead_on() {
    watched(|| {
        let cache = &*AT_THE_END;
        for key in 0..100 {
            let (leads, end) = (Gate::new(), Gate::new());
            let leader = {
                let (leads, end) = (leads.clone(), end.clone());
                thread::spawn(move || {
                    // Half the time the guard outlives the cache's own thread-locals.
                    if key % 2 == 0 {
                        cache.contains(&key);
                    }
                    HELD_GUARD.with(|held| match cache.get_value_or_guard(&key, None) {
                        GuardResult::Guard(guard) => *held.borrow_mut() = Some(guard),
                        other => panic!("{other:?}"),
                    });
                    leads.open();
                    end.pass();
                })
            };
            leads.pass();
            let waiters = join_flight(cache, key, 2, key + 1);
            end.open();
            leader.join().unwrap();
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), key + 1);
            }
            assert_eq!(cache.get(&key), Some(key + 1));
        }
        let stats = cache.stats();
        assert_eq!((stats.fills, stats.fill_cancelled), (200, 100));
    });
}

/// A thread that dies of a panic in its fill, with nobody to catch it.
#[test]
fn h21_a_thread_that_dies_while_it_leads_passes_the_lead_on() {
    watched(|| {
        for _ in 0..50 {
            let cache = plain();
            let held = Held::new();
            let leader = {
                let (cache, held) = (cache.clone(), held.clone());
                thread::spawn(move || {
                    let _guard = cache.get_value_or_guard(&2, None);
                    cache.get_with(&1, || {
                        held.hold(());
                        unwind("on purpose")
                    })
                })
            };
            held.begun.pass();
            let mut waiters = join_flight(&cache, 1, 2, 20);
            waiters.extend(join_flight(&cache, 2, 2, 20));
            held.end.open();
            assert!(leader.join().is_err());
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), 20);
            }
            assert_eq!(cache.len(), 2);
        }
    });
}

/// Handles go one by one while a fill runs, is waited for, and is invalidated; the last one goes
/// with the last caller. Everything is dropped then.
#[test]
fn h21_a_cache_whose_handles_are_dropped_while_others_wait_leaves_nothing_behind() {
    watched(|| {
        for round in 0..100 {
            let (keys, values) = (Ledger::new(), Ledger::new());
            let cache: Cache<Counted, Counted> = Cache::unbounded();
            for id in 0..20 {
                cache.insert(keys.make(id), values.make(id));
                cache.invalidate(&keys.make(id / 2));
            }
            let held = Held::new();
            let ask = |held: Option<Held>| {
                let (cache, key) = (cache.clone(), keys.make(100));
                let value = values.make(100);
                thread::spawn(move || {
                    let value = cache.get_with(&key, || {
                        if let Some(held) = held {
                            held.hold(());
                        }
                        if round % 3 == 0 {
                            unwind("on purpose");
                        }
                        value
                    });
                    value.id()
                })
            };
            let leader = ask(Some(held.clone()));
            held.begun.pass();
            let waiters = [(); 3].map(|()| ask(None));
            await_joined(|| cache.stats(), 3);
            let other = {
                let (cache, key) = (cache.clone(), keys.make(100));
                thread::spawn(move || {
                    if round % 2 == 0 {
                        cache.invalidate(&key);
                    }
                    // A view holds its handle too.
                    let view = cache.pin();
                    view.get(&key).map(Counted::id)
                })
            };
            drop(cache);
            held.end.open();
            let mut ends = vec![leader.join()];
            ends.extend(waiters.into_iter().map(thread::JoinHandle::join));
            for end in ends {
                assert!(matches!(end, Ok(100)) || round % 3 == 0 && end.is_err());
            }
            other.join().unwrap();
            assert_eq!((keys.alive(), values.alive()), (0, 0), "round {round}");
        }
    });
}

/// The last handle goes inside a fill, and inside the drop of a value of another cache.
#[test]
fn h21_the_last_handle_may_go_anywhere() {
    watched(|| {
        let values = Ledger::new();
        let outer: Cache<u64, Cache<u64, Counted>> = Cache::unbounded();
        for round in 0..300 {
            let inner: Cache<u64, Counted> = Cache::unbounded();
            (0..3).for_each(|id| inner.insert(id, values.make(id)));
            inner.invalidate(&1);
            outer.insert(round % 4, inner);
            let inner: Cache<u64, Counted> = Cache::unbounded();
            inner.insert(1, values.make(1));
            assert_eq!(
                outer
                    .get_with(&9, || {
                        drop(inner);
                        Cache::unbounded()
                    })
                    .len(),
                0
            );
            outer.invalidate(&9);
        }
        outer.invalidate_all();
        outer.quiesce();
        assert_eq!((values.alive(), outer.retired()), (0, 0));
    });
}

// ---- H22: foreign code that is called back. (No listeners and no weighers yet: predicates.)

#[test]
fn h22_a_predicate_that_blocks_or_reenters_blocks_nobody() {
    watched(|| {
        let cache = plain();
        (0..200).for_each(|key| cache.insert(key, key));
        let held = Held::new();
        let erasing = {
            let (cache, held) = (cache.clone(), held.clone());
            thread::spawn(move || {
                cache.invalidate_if(|&key, _| {
                    held.hold(());
                    // For the same key, and for others.
                    cache.get(&key);
                    cache.insert(key + 10_000, key);
                    cache.get_with(&(key + 20_000), || key);
                    key % 2 == 0
                });
            })
        };
        held.begun.pass();
        // Blocked in the middle of its walk: everybody else goes on, and the table grows.
        for key in 1000..3000 {
            assert_eq!(cache.get_with(&key, || key), key);
        }
        assert!(cache.invalidate(&1001));
        cache.insert(1001, 1001);
        assert_eq!(cache.iter().filter(|(key, _)| *key < 200).count(), 200);
        held.end.open();
        erasing.join().unwrap();
        for key in 0..200 {
            assert_eq!(cache.contains(&key), key % 2 == 1, "{key}");
        }
    });
}

/// A `Debug` of a key that panics: the cycle is reported all the same.
#[test]
fn h22_a_debug_that_panics_is_contained() {
    #[derive(Clone, PartialEq, Eq, Hash)]
    struct Mute;

    impl std::fmt::Debug for Mute {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            unwind("no words")
        }
    }

    watched(|| {
        let cache: Cache<Mute, u64> = Cache::unbounded();
        let text = panic_text(|| cache.get_with(&Mute, || cache.get_with(&Mute, || 1)));
        assert!(text.contains("would wait for itself"), "{text}");
        assert_eq!(cache.get_with(&Mute, || 10), 10);
    });
}

thread_local! {
    /// The cache that the `Debug` below comes back to, on the thread that is to.
    static REENTERED: RefCell<Option<Cache<Talkative, u64>>> = const { RefCell::new(None) };
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Talkative(u64);

impl std::fmt::Debug for Talkative {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cache = (self.0 == 2).then(|| REENTERED.take()).flatten();
        match cache.map(|cache| cache.get_with(&Talkative(2), || 20)) {
            Some(value) => write!(f, "2 = {value}"),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Clause 4: nobody hangs. A wait puts its key into words, and the key's `Debug` waits for the
/// same flight. The lead that is then lost goes to one who is there to take it.
#[test]
fn h22_a_debug_that_waits_itself_takes_over_a_lost_lead() {
    watched(|| {
        let cache: Cache<Talkative, u64> = Cache::unbounded();
        let held = Held::new();
        let leader = {
            let (cache, held) = (cache.clone(), held.clone());
            thread::spawn(move || {
                panics(|| {
                    cache.get_with(&Talkative(2), || {
                        held.hold(());
                        unwind("on purpose")
                    })
                })
            })
        };
        held.begun.pass();
        let waiter = {
            let cache = cache.clone();
            thread::spawn(move || {
                REENTERED.set(Some(cache.clone()));
                cache.get_with(&Talkative(1), || cache.get_with(&Talkative(2), || 2) + 1)
            })
        };
        // The wait, and the one in its `Debug`.
        await_joined(|| cache.stats(), 2);
        let_others_run();
        held.end.open();
        assert!(leader.join().unwrap());
        assert_eq!(waiter.join().unwrap(), 21);
    });
}

// ---- H26, H27.

/// With waiters of its own: they look again, and get the newer value.
#[test]
fn h26_an_old_flight_that_fails_after_a_newer_one_succeeded_changes_nothing() {
    watched(|| {
        for ending in ["error", "panic", "none"] {
            for _ in 0..20 {
                let cache = plain();
                let held = Held::new();
                let old = {
                    let (cache, held) = (cache.clone(), held.clone());
                    thread::spawn(move || {
                        cache.entry(1).or_try_insert_with(|| {
                            held.hold(());
                            match ending {
                                "panic" => unwind("on purpose"),
                                _ => Err::<u64, _>(Refused("late")),
                            }
                        })
                    })
                };
                held.begun.pass();
                let waiters = join_flight(&cache, 1, 3, 20);
                cache.invalidate_nowait(&1);
                assert_eq!(cache.get_with(&1, || 30), 30);
                held.end.open();
                assert_eq!(old.join().is_err(), ending == "panic");
                for waiter in waiters {
                    assert_eq!(waiter.join().unwrap(), 30);
                }
                assert_eq!((cache.get(&1), cache.len()), (Some(30), 1));
                assert_eq!(cache.stats().fills, 2);
            }
        }
    });
}

#[test]
fn h27_a_key_that_is_being_filled_is_not_there_yet() {
    watched(|| {
        let cache = plain();
        cache.insert(2, 20);
        for verb in Verb::ALL {
            let came = verb.ask(&cache, 1, || {
                let look = || {
                    assert!(!cache.contains(&1));
                    assert_eq!((cache.peek(&1), cache.get(&1)), (None, None));
                    assert_eq!((cache.len(), cache.is_empty()), (1, false));
                    assert_eq!(cache.iter().collect::<Vec<_>>(), [(2, 20)]);
                    let view = cache.pin();
                    assert_eq!(view.iter().collect::<Vec<_>>(), [(&2, &20)]);
                };
                look();
                // As others see it.
                thread::scope(|scope| scope.spawn(look).join().unwrap());
                Ok(10)
            });
            assert_eq!(came, Ok(10));
            assert_eq!((cache.len(), cache.iter().count()), (2, 2));
            assert_eq!(cache.remove(&1), Some(10));
        }
    });
}

// ---- H28: memory stays flat.
//
// A tenth of the keys without optimization. All of them, optimized:
// ATOMIC_CACHE_H28=10000000 cargo test --release --test suite h28

/// Runs `step` for every number below `usual`; the process's memory must not grow by more than
/// `slack` bytes after the first tenth. (A megabyte is one or two steps in the growth of the
/// table, and a tenth of a byte a key.)
fn memory_stays_flat(usual: u64, slack: usize, mut step: impl FnMut(u64)) {
    let keys = rounds("ATOMIC_CACHE_H28", usual);
    let mut warm = 0;
    for key in 0..keys {
        step(key);
        if key < keys / 10 {
            warm = warm.max(live_bytes());
        } else if key % 1024 == 0 {
            let now = live_bytes();
            assert!(
                now <= warm + slack,
                "{now} bytes at key {key}, {warm} before"
            );
        }
    }
}

#[test]
fn h28_memory_is_flat_over_distinct_keys_that_expire() {
    let name = "hostile::h28_memory_is_flat_over_distinct_keys_that_expire";
    in_child(name, SECOND * 300, || {
        let clock = atomic_cache::ManualClock::new();
        let cache: Cache<u64, [u64; 4]> = Cache::builder()
            .time_to_live(Duration::from_micros(1))
            .clock(clock.clone())
            .build()
            .unwrap();
        memory_stays_flat(10_000_000, 1 << 20, |key| {
            if key % 2 == 0 {
                cache.insert(key, [key; 4]);
            } else {
                assert_eq!(cache.get_with(&key, || [key; 4]), [key; 4]);
            }
            clock.advance(Duration::from_nanos(1));
        });
        // A thousand live ones, and what has not been swept yet: a few times as many.
        assert!(cache.len() <= 5000, "{}", cache.len());
    });
}

#[test]
fn h28_memory_is_flat_over_distinct_keys_that_are_invalidated() {
    let name = "hostile::h28_memory_is_flat_over_distinct_keys_that_are_invalidated";
    in_child(name, SECOND * 300, || {
        let cache: Cache<u64, [u64; 4]> = Cache::unbounded();
        memory_stays_flat(10_000_000, 1 << 20, |key| {
            cache.insert(key, [key; 4]);
            assert!(cache.invalidate(&key));
        });
        assert_eq!(cache.len(), 0);
    });
}

/// And with everything at once, on four threads.
#[test]
fn h28_memory_is_flat_under_concurrent_churn() {
    let name = "hostile::h28_memory_is_flat_under_concurrent_churn";
    in_child(name, SECOND * 300, || {
        let cache: Cache<u64, [u64; 4]> = Cache::unbounded();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for thread in 1..4 {
                let (cache, stop) = (&cache, &stop);
                scope.spawn(move || {
                    let mut key = thread << 40;
                    while !stop.load(SeqCst) {
                        key += 1;
                        cache.get_with(&key, || [key; 4]);
                        cache.invalidate(&key);
                    }
                });
            }
            let run = catch_unwind(AssertUnwindSafe(|| {
                // The slack is what threads that are preempted while pinned may hold up.
                memory_stays_flat(1_000_000, 16 << 20, |key| {
                    cache.insert(key, [key; 4]);
                    cache.invalidate(&key);
                });
            }));
            stop.store(true, SeqCst);
            if let Err(panic) = run {
                resume_unwind(panic);
            }
        });
        assert_eq!(cache.len(), 0);
    });
}
