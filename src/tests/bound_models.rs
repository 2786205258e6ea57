//! A bounded cache under loom: who evicts what, and that the books are right.
//!
//! A level has 16 words here, so that a hand that goes round comes by everything soon.

use crate::{ManualClock, Op};
use std::time::Duration;

use super::harness::{Actor, Explore, Fills, TestCache, Token, builder, models, start};

/// A cache that may hold `capacity`, each entry as heavy as its value says.
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

/// At rest: the books say what is there, and that is not too much.
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

/// While it runs: never under zero, and never above the capacity by more than the others are putting
/// in, and taking out: what they have unlinked counts until they have said so.
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
        // Who finds nothing that weighs anything but what the other is just putting in takes that,
        // or its own; both at once is possible, and no more.
        assert!(!entries.is_empty());
    };

    /// L10: who owes, and finds that what is to go is not there yet, takes its own entry out.
    l10_who_finds_no_victim_goes: Explore::AtMost(4) => || {
        let cache = bounded(1);
        let others = start([actor(&cache, |cache| insert(cache, 1, 1))]);
        insert(&cache, 2, 1);
        within(&cache, 1);
        others.join();
        balanced(&cache);
    };

    /// L10: an eviction and an invalidate of the only entry there is: one of them takes it out.
    l10_evicted_and_invalidated: Explore::AtMost(4) => || {
        let cache = bounded(1);
        insert(&cache, 1, 1);
        let others = start([actor(&cache, |cache| {
            cache.invalidate(&Token::new(1));
        })]);
        insert(&cache, 2, 1);
        others.join();
        // If what was there counts still and cannot be taken out any more, it takes its own out.
        assert!(balanced(&cache).iter().all(|&entry| entry == (2, 1)));
    };

    /// L10: two want one and the same victim.
    l10_one_victim_for_two: Explore::Long(3) => || {
        let cache = bounded(1);
        insert(&cache, 1, 1);
        let others = start([actor(&cache, |cache| insert(cache, 2, 1))]);
        insert(&cache, 3, 1);
        within(&cache, 1);
        others.join();
        balanced(&cache);
    };

    /// L10 with three, one victim for all.
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

    /// L11: a slot that fills is never evicted, whatever is evicted beside it; and who fills gets
    /// its value, kept or not.
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

    /// L12: a weight is charged and discharged by an insert, an eviction and an invalidate of one
    /// and the same entry, and is right at the end.
    l12_charged_once_and_discharged_once: Explore::AtMost(2) => || {
        let cache = bounded(3);
        insert(&cache, 1, 2);
        let others = start([
            actor(&cache, |cache| {
                cache.invalidate_nowait(&Token::new(1));
                // All that there may be; and not under zero, which would be very much.
                within(cache, 2);
            }),
            actor(&cache, |cache| insert(cache, 1, 1)),
        ]);
        insert(&cache, 2, 2);
        // 1 comes in; and what they have taken out may be both of what was there before.
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

    /// L12: the capacity is made less while something comes in. Each alone would do no harm.
    l12_the_capacity_is_made_less: Explore::AtMost(3) => || {
        let cache = bounded(2);
        insert(&cache, 1, 1);
        let others = start([actor(&cache, |cache| insert(cache, 3, 1))]);
        cache.set_max_capacity(1).expect("bounded");
        others.join();
        balanced(&cache);
    };

    /// L12: the capacity is made less while something comes in that nobody can take out by then: who puts
    /// it in is left the debt.
    l12_a_debt_is_left_to_an_insert: Explore::AtMost(3) => || {
        let cache = bounded(1);
        let others = start([actor(&cache, |cache| {
            // It may be too much by now.
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

    /// The same of a compute, which stands before what cannot be taken out.
    l12_a_debt_is_left_to_a_compute: Explore::AtMost(3) => || {
        let cache = bounded(2);
        insert(&cache, 1, 2);
        let others = start([actor(&cache, |cache| {
            cache.entry(Token::new(1)).and_compute_with(|_| Op::Put(Token::new(1)));
        })]);
        cache.set_max_capacity(0).expect("bounded");
        others.join();
        assert!(balanced(&cache).is_empty());
    };

    /// L12: who finds that a debt has been paid does not take away what another has left since.
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
                // It may be too much by now.
                let _ = cache.insert(Token::new(key), Token::new(1));
            })
        };
        let others = start([insert_alone(1), insert_alone(2)]);
        cache.set_max_capacity(0).expect("bounded");
        others.join();
        assert!(balanced(&cache).is_empty());
    };

    /// L12: what comes while somebody looks for what expires next is on the list, or its list is told. One that has expired
    /// goes, and not one that is less used and lives.
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
        // 1 has expired. Whoever is the first to make room looks at everything.
        let others = start([actor(&cache, |cache| insert(cache, 2, 1))]);
        insert(&cache, 3, 1);
        others.join();
        // (What is being put in counts beside what it takes the place of: 3 may have had to take 2 out.)
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
