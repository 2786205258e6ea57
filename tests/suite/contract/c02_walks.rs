//! Clause 2, of removals that walk over all keys: inserts, computes and `takeover` beside the walk. The schedule is set
//! up by user code that runs in the middle (`support/schedule.rs`).

use crate::support::common::*;
use crate::support::schedule::*;
use atomic_cache::{AtomicCache, Cache, CompResult, Op};
use std::sync::{Arc, Mutex};
use std::thread;

/// A walk ends, whatever is put in meanwhile: here by its own predicate, again and again.
#[test]
fn c02_invalidate_if_whose_predicate_inserts_ends() {
    watched_for(A_MOMENT, || {
        let cache: Cache<u64, u64> = Cache::unbounded();
        cache.insert(1, 0);
        let mut asked = 0;
        let other = cache.clone();
        cache.invalidate_if(|&key, &value| {
            asked += 1;
            other.insert(key, value + 1);
            true
        });
        assert!(asked <= 2, "{asked} times");
    });
}

/// The same after a fill that it has waited for.
#[test]
fn c02_invalidate_if_whose_predicate_inserts_after_a_fill_ends() {
    watched_for(A_MOMENT, || {
        let held = Held::new();
        let (fill, is_first) = (held.clone(), Mutex::new(true));
        let cache = AtomicCache::new(
            move |_: &u64| {
                let is_first = std::mem::take(&mut *is_first.lock().unwrap());
                if is_first { 5 } else { fill.hold(7) }
            },
            None,
        );
        cache.get(&1);
        let refreshes = cache.clone();
        let filler = thread::spawn(move || refreshes.refresh(&1));
        held.begun.pass();
        let (seen, end) = (cache.clone(), held.end.clone());
        let opener = thread::spawn(move || {
            spin_until(|| seen.in_flight().iter().any(|fill| fill.waiters > 0));
            end.open();
        });
        let mut asked = 0;
        let other = cache.clone();
        cache.invalidate_if(|&key, &value| {
            // Not of the value that is refreshed.
            if value == 5 {
                return false;
            }
            asked += 1;
            other.refresh(&key);
            true
        });
        assert!((1..=2).contains(&asked), "{asked} times");
        filler.join().unwrap();
        opener.join().unwrap();
    });
}

/// "Blocks while fills run that had started before": a fill that begins while the walk stands at its key, and waits
/// for the walk to end, is not waited for.
fn beside_a_fill_that_begins_later(walk: impl FnOnce(&Cache<Hooked, u64>) + Send + 'static) {
    watched_for(A_MOMENT, move || {
        let cache: Cache<Hooked, u64> = Cache::unbounded();
        cache.insert(Hooked(1_000), 5);
        let held = Held::new();
        let (other, fill) = (cache.clone(), held.clone());
        let filler: Arc<Mutex<Option<thread::JoinHandle<u64>>>> = Arc::default();
        let slot = filler.clone();
        // It hashes a key as it comes by.
        next_time(&ON_HASH, move || {
            let remover = other.clone();
            on_another_thread(move || assert!(remover.invalidate_nowait(&Hooked(1_000))));
            let begun = fill.begun.clone();
            let fills = move || other.get_with(&Hooked(1_000), || fill.hold(7));
            *slot.lock().unwrap() = Some(thread::spawn(fills));
            begun.pass();
        });
        walk(&cache);
        assert!(is_over(&ON_HASH));
        held.end.open();
        let filler = filler.lock().unwrap().take().expect("begun");
        assert_eq!(filler.join().unwrap(), 7);
    });
}

#[test]
fn c02_invalidate_all_beside_a_fill_that_begins_later() {
    beside_a_fill_that_begins_later(Cache::invalidate_all);
}

#[test]
fn c02_invalidate_if_beside_a_fill_that_begins_later() {
    beside_a_fill_that_begins_later(|cache| cache.invalidate_if(|_, _| true));
}

/// Clause 2, as above, of a fill that begins in the place of one that is abandoned beside the walk.
#[test]
fn c02_invalidate_all_beside_a_fill_that_begins_after_a_takeover() {
    in_front_of_a_fill_that_hangs(|cache| {
        let later = Held::new();
        let (other, fill) = (cache.clone(), later.clone());
        next_time(&ON_HASH, move || {
            let taker = other.clone();
            on_another_thread(move || assert!(taker.takeover(&Hooked(1))));
            let begun = fill.begun.clone();
            thread::spawn(move || other.get_with(&Hooked(1), || fill.hold(8)));
            begun.pass();
        });
        cache.invalidate_all();
        // Only now may the later fill end.
        later.end.open();
    });
}

/// Clauses 2 and 6. A `Hash` that panics once, as the walk comes by a key with a compute that begins just then.
fn beside_a_compute_and_a_hash_that_panics(
    walk: impl FnOnce(&Cache<Hooked, u64>) + Send + 'static,
) {
    watched_for(A_MOMENT, move || {
        let cache: Cache<Hooked, u64> = Cache::unbounded();
        cache.insert(Hooked(1_000), 5);
        let held = Held::new();
        let (other, fill) = (cache.clone(), held.clone());
        let panics = move || {
            let begun = fill.begun.clone();
            thread::spawn(move || {
                let entry = other.entry(Hooked(1_000));
                entry.and_compute_with(|_| fill.hold(Op::Nop));
            });
            begun.pass();
            panic!("Hash");
        };
        next_time(&ON_HASH, panics);
        let (seen, end) = (cache.clone(), held.end.clone());
        let opener = thread::spawn(move || {
            spin_until(|| seen.in_flight().iter().any(|fill| fill.fenced_off));
            spin_until(|| seen.peek(&Hooked(1_000)).is_none());
            end.open();
        });
        walk(&cache);
        assert!(is_over(&ON_HASH));
        assert_eq!(cache.peek(&Hooked(1_000)), None);
        opener.join().unwrap();
    });
}

#[test]
fn c02_invalidate_all_beside_a_compute_and_a_hash_that_panics() {
    beside_a_compute_and_a_hash_that_panics(Cache::invalidate_all);
}

#[test]
fn c02_invalidate_if_beside_a_compute_and_a_hash_that_panics() {
    beside_a_compute_and_a_hash_that_panics(|cache| cache.invalidate_if(|_, _| true));
}

/// The effect of [`Cache::invalidate_if`] on a compute that calls it: none, unless it picks the value that the compute
/// has read.
#[test]
fn c02_invalidate_if_inside_a_compute_judges_what_that_was_to_replace() {
    watched(|| {
        for picked in [99, 5] {
            let cache: Cache<u64, u64> = Cache::unbounded();
            cache.insert(1, 5);
            let computed = cache.entry(1).and_compute_with(|_| {
                cache.invalidate_if(|_, &value| value == picked);
                Op::Put(6)
            });
            let left = (picked == 99).then_some(6);
            assert_eq!(cache.peek(&1), left);
            let superseded = CompResult::Superseded(Op::Put(6));
            assert_eq!(computed == superseded, left.is_none());
        }
    });
}
