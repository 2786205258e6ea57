//! H22: foreign code that is called back. (Listeners: `hostile/listener.rs`. Weighers: `bounds/capacity.rs`.)

use crate::support::common::*;
use atomic_cache::Cache;
use std::cell::RefCell;
use std::hash::Hash;
use std::thread;

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
        // Blocked in the middle of its walk: every other thread goes on, and the table is resized.
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

/// Clause 4: no thread hangs. A wait puts its key into words, and the key's `Debug` waits for the same flight. The lead
/// that is then lost goes to the wait that is there to take it.
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
