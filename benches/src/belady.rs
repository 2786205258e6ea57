//! Bélády's optimum: the hits of a cache that knows the future.
//!
//! The optimum keeps the keys that come again soonest. It may also leave a key out altogether, as caches with an
//! admission policy do; so no cache can hit more often.

use std::collections::BTreeSet;

/// Stands for a key that does not come again.
const NEVER: u32 = u32::MAX;

/// How many accesses the optimum of `capacity` entries hits.
///
/// A key in the cache is known by the place of its next access: so an access is a hit when its own place is
/// among them, and the entry worth least is the one with the greatest.
///
/// # Panics
///
/// When there are 2³² accesses or more, or the keys are not numbered from 0 on.
#[must_use]
pub fn hits(keys: &[u32], distinct_keys: usize, capacity: u64) -> u64 {
    let mut held = BTreeSet::new();
    let mut hits = 0;
    for (place, next) in (0..).zip(next_places(keys, distinct_keys)) {
        hits += u64::from(held.remove(&place));
        if next == NEVER {
            continue;
        }
        held.insert(next);
        if held.len() as u64 > capacity {
            held.pop_last();
        }
    }
    hits
}

/// For each access, the place of the next access to the same key.
fn next_places(keys: &[u32], distinct_keys: usize) -> Vec<u32> {
    let mut seen = vec![NEVER; distinct_keys];
    let mut next = vec![NEVER; keys.len()];
    for (place, &key) in keys.iter().enumerate().rev() {
        let last = &mut seen[key as usize];
        next[place] = *last;
        *last = u32::try_from(place).expect("fewer than 2^32 accesses");
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    /// The most hits that any choice of the keys to keep can reach: tries them all.
    fn brute_force(keys: &[u32], held: &[u32], capacity: usize) -> u64 {
        let Some((key, rest)) = keys.split_first() else {
            return 0;
        };
        if held.contains(key) {
            return 1 + brute_force(rest, held, capacity);
        }
        let with = [held, &[*key]].concat();
        if with.len() <= capacity {
            return brute_force(rest, &with, capacity);
        }
        let without = |index: usize| {
            let mut kept = with.clone();
            kept.remove(index);
            brute_force(rest, &kept, capacity)
        };
        (0..with.len()).map(without).max().unwrap_or(0)
    }

    #[test]
    fn no_choice_is_better() {
        let mut random = StdRng::seed_from_u64(7);
        for _ in 0..300 {
            let distinct = random.random_range(1..6);
            let length = random.random_range(0..12);
            let keys: Vec<u32> = (0..length)
                .map(|_| random.random_range(0..distinct))
                .collect();
            let capacity = random.random_range(1..4);
            assert_eq!(
                hits(&keys, distinct as usize, capacity as u64),
                brute_force(&keys, &[], capacity),
                "{keys:?} in {capacity}"
            );
        }
    }

    #[test]
    fn a_loop_hits_with_all_but_one_entry() {
        let keys: Vec<u32> = (0..100).map(|index| index % 10).collect();
        assert_eq!(hits(&keys, 10, 10), 90);
        assert_eq!(hits(&keys, 10, 1), 9);
        assert_eq!(hits(&[], 0, 1), 0);
    }

    #[test]
    fn next_places_are_those_of_the_same_key() {
        assert_eq!(next_places(&[0, 1, 0, 0], 2), [2, NEVER, 3, NEVER]);
    }
}
