//! A bounded cache under loom: which thread evicts which entry, and that the counts are right.
//!
//! A level has 16 words here, so that a hand soon passes all of them.

use crate::{ManualClock, Op};
use std::time::Duration;

use super::harness::{Actor, Explore, Fills, TestCache, Token, builder, models, start};

/// Makes a cache that may hold `capacity`. The value of an entry is its weight.
fn bounded(capacity: u64) -> TestCache {
    builder()
        .max_capacity(capacity)
        .weigher(|_, value: &Token| value.number())
        .build()
        .expect("good settings")
}

fn actor(cache: &TestCache, act: impl FnOnce(&TestCache) + 'static) -> Actor {
    let cache = cache.clone();
    Box::new(move || act(&cache))
}

fn insert(cache: &TestCache, key: u64, weight: u64) {
    cache.insert(Token::new(key), Token::new(weight));
}

/// At rest: the counts agree with the entries, and their weight is within the capacity.
fn balanced(cache: &TestCache) -> Vec<(u64, u64)> {
    let mut entries: Vec<_> = cache
        .iter()
        .map(|(key, value)| (key.number(), value.number()))
        .collect();
    entries.sort_unstable();
    let weight = entries.iter().map(|entry| entry.1).sum();
    assert_eq!(cache.weighted_size(), weight, "{entries:?}");
    assert_eq!(cache.len(), entries.len(), "{entries:?}");
    assert!(weight <= cache.capacity().expect("bounded"), "{entries:?}");
    entries
}

/// During a run: the total never goes below zero, and never exceeds the capacity by more than
/// `coming_and_going`. That is the weight that other threads insert, or have unlinked and not yet
/// discharged.
fn within(cache: &TestCache, coming_and_going: u64) {
    let (weight, capacity) = (cache.weighted_size(), cache.capacity().expect("bounded"));
    assert!(
        weight <= capacity + coming_and_going,
        "{weight} of {capacity}"
    );
}

models! {
    /// L10: two inserts into a full cache evict at once. Each victim has one owner, and the weight
    /// is exact.
    l10_two_evict_at_once: Explore::AtMost(3) => || {
        let cache = bounded(2);
        insert(&cache, 1, 1);
        insert(&cache, 2, 1);
        let others = start([actor(&cache, |cache| {
            insert(cache, 3, 1);
            within(cache, 1);
        })]);
        insert(&cache, 4, 1);
        within(&cache, 1);
        others.join();
        let entries = balanced(&cache);
        // An inserter that finds no weight but the other's new entry takes that, or its own. Both
        // at once is possible, and no more.
        assert!(!entries.is_empty());
    };

    /// L10: an inserter that owes, and finds that its victim is not in place yet, evicts its own
    /// entry.
    l10_who_finds_no_victim_goes: Explore::AtMost(4) => || {
        let cache = bounded(1);
        let others = start([actor(&cache, |cache| insert(cache, 1, 1))]);
        insert(&cache, 2, 1);
        within(&cache, 1);
        others.join();
        balanced(&cache);
    };

    /// L10: an eviction and an invalidate of the only entry: one of them takes it out.
    l10_evicted_and_invalidated: Explore::AtMost(4) => || {
        let cache = bounded(1);
        insert(&cache, 1, 1);
        let others = start([actor(&cache, |cache| {
            cache.invalidate(&Token::new(1));
        })]);
        insert(&cache, 2, 1);
        others.join();
        // If the old entry is still counted and cannot be taken out any more, the inserter evicts
        // its own.
        assert!(balanced(&cache).iter().all(|&entry| entry == (2, 1)));
    };

    /// L10: two threads want the same victim.
    l10_one_victim_for_two: Explore::Long(3) => || {
        let cache = bounded(1);
        insert(&cache, 1, 1);
        let others = start([actor(&cache, |cache| insert(cache, 2, 1))]);
        insert(&cache, 3, 1);
        within(&cache, 1);
        others.join();
        balanced(&cache);
    };

    /// L10 with three threads, one victim for all.
    l10_three_evict_at_once: Explore::AtMost(1) => || {
        let cache = bounded(1);
        insert(&cache, 1, 1);
        let others = start([
            actor(&cache, |cache| insert(cache, 2, 1)),
            actor(&cache, |cache| insert(cache, 3, 1)),
        ]);
        insert(&cache, 4, 1);
        within(&cache, 2);
        others.join();
        balanced(&cache);
    };

    /// L11: a hit raises the count of a word that an eviction lowers, or takes out. A lost count is
    /// allowed, a torn word is not.
    l11_a_hit_meets_an_eviction: Explore::AtMost(4) => || {
        let cache = bounded(1);
        insert(&cache, 1, 1);
        let others = start([actor(&cache, |cache| {
            let value = cache.get(&Token::new(1));
            assert!(value.is_none_or(|value| value.number() == 1));
        })]);
        insert(&cache, 2, 1);
        others.join();
        assert_eq!(balanced(&cache), [(2, 1)]);
    };

    /// L11: a slot that fills is never evicted, whatever is evicted beside it. The leader gets its
    /// value, kept or not.
    l11_a_filling_slot_is_not_evicted: Explore::Long(3) => || {
        let cache = bounded(1);
        insert(&cache, 1, 1);
        let fills = Fills::new();
        let others = start([{
            let fills = fills.clone();
            actor(&cache, move |cache| {
                let value = cache.get_with(&Token::new(2), || {
                    fills.fill();
                    Token::new(1)
                });
                assert_eq!(value.number(), 1);
            })
        }]);
        insert(&cache, 3, 1);
        others.join();
        assert_eq!(fills.count(), 1);
        assert_eq!(balanced(&cache).len(), 1);
    };

    /// L12: an insert, an eviction and an invalidate charge and discharge the weight of one entry;
    /// it is right at the end.
    l12_charged_once_and_discharged_once: Explore::AtMost(2) => || {
        let cache = bounded(3);
        insert(&cache, 1, 2);
        let others = start([
            actor(&cache, |cache| {
                cache.invalidate_nowait(&Token::new(1));
                // The whole capacity; below zero would be a very large number.
                within(cache, 2);
            }),
            actor(&cache, |cache| insert(cache, 1, 1)),
        ]);
        insert(&cache, 2, 2);
        // 1 comes in; and they may have taken out both of the first entries.
        within(&cache, 1 + 2);
        others.join();
        balanced(&cache);
    };

    /// L12: an entry is replaced while it is evicted.
    l12_replaced_while_evicted: Explore::AtMost(2) => || {
        let cache = bounded(2);
        insert(&cache, 1, 1);
        insert(&cache, 2, 1);
        let others = start([actor(&cache, |cache| insert(cache, 1, 2))]);
        insert(&cache, 3, 1);
        others.join();
        balanced(&cache);
    };

    /// L12: the capacity shrinks during an insert. Each alone would do no harm.
    l12_the_capacity_is_made_less: Explore::AtMost(3) => || {
        let cache = bounded(2);
        insert(&cache, 1, 1);
        let others = start([actor(&cache, |cache| insert(cache, 3, 1))]);
        cache.set_max_capacity(1).expect("bounded");
        others.join();
        balanced(&cache);
    };

    /// L12: the capacity shrinks during an insert of an entry that cannot be evicted yet: the debt
    /// is left to the inserter.
    l12_a_debt_is_left_to_an_insert: Explore::AtMost(3) => || {
        let cache = bounded(1);
        let others = start([actor(&cache, |cache| {
            // It may be too heavy by now.
            let _ = cache.insert(Token::new(1), Token::new(1));
        })]);
        cache.set_max_capacity(0).expect("bounded");
        others.join();
        assert!(balanced(&cache).is_empty());
    };

    /// The same of a fill.
    l12_a_debt_is_left_to_a_fill: Explore::AtMost(3) => || {
        let cache = bounded(1);
        let others = start([actor(&cache, |cache| {
            cache.get_with(&Token::new(1), || Token::new(1));
        })]);
        cache.set_max_capacity(0).expect("bounded");
        others.join();
        assert!(balanced(&cache).is_empty());
    };

    /// The same of a compute over an entry that cannot be evicted meanwhile.
    l12_a_debt_is_left_to_a_compute: Explore::Long(3) => || {
        let cache = bounded(2);
        insert(&cache, 1, 2);
        let others = start([actor(&cache, |cache| {
            cache.entry(Token::new(1)).and_compute_with(|_| Op::Put(Token::new(1)));
        })]);
        cache.set_max_capacity(0).expect("bounded");
        others.join();
        assert!(balanced(&cache).is_empty());
    };

    /// L12: a thread that finds a debt paid does not cancel a debt that another thread has left
    /// since.
    l12_a_debt_that_is_left_again: Explore::AtMost(2) => || {
        let cache = bounded(2);
        insert(&cache, 1, 1);
        // A debt is left, paid, and not asked for again.
        cache.entry(Token::new(1)).and_compute_with(|_| {
            cache.set_max_capacity(0).expect("bounded");
            Op::Nop
        });
        cache.set_max_capacity(2).expect("bounded");
        let insert_alone = |key| {
            actor(&cache, move |cache| {
                // It may be too heavy by now.
                let _ = cache.insert(Token::new(key), Token::new(1));
            })
        };
        let others = start([insert_alone(1), insert_alone(2)]);
        cache.set_max_capacity(0).expect("bounded");
        others.join();
        assert!(balanced(&cache).is_empty());
    };

    /// L12: an entry that comes during a walk for the next deadlines is on the list, or the list is
    /// told of it. An expired entry goes, and not a live one that is used less.
    l12_what_comes_beside_a_walk_is_known_of: Explore::AtMost(2) => || {
        let clock = ManualClock::new();
        let at = |time| clock.set(Duration::from_nanos(time));
        let cache = builder()
            .max_capacity(2)
            .time_to_live(Duration::from_nanos(10))
            .clock(clock.clone())
            .build()
            .expect("good settings");
        insert(&cache, 1, 1);
        at(5);
        insert(&cache, 2, 1);
        at(10);
        // 1 has expired. The first thread to make room looks at all entries.
        let others = start([actor(&cache, |cache| insert(cache, 2, 1))]);
        insert(&cache, 3, 1);
        others.join();
        // (A new entry counts beside the one it replaces: the insert of 3 may have had to evict 2.)
        if balanced(&cache) != [(2, 1), (3, 1)] {
            return;
        }
        at(12);
        insert(&cache, 3, 1);
        (0..7).for_each(|_| drop(cache.get(&Token::new(2))));
        // 2 has expired, and 3 has not.
        at(20);
        insert(&cache, 4, 1);
        assert_eq!(balanced(&cache), [(3, 1), (4, 1)]);
    };
}
