//! Bugs that need an exact schedule, each with a test of its own that named it first. The schedule is set up by
//! foreign code that runs in the middle: a fill, a weigher, a key's `Hash` or `Eq`.

use crate::common::*;
use atomic_cache::{AtomicCache, Cache, CompResult, Op};
use std::cell::RefCell;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const A_MOMENT: Duration = Duration::from_secs(10);

thread_local! {
    /// What this thread does when it next hashes, or compares, a [`Hooked`] key that says so.
    static ON_HASH: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    static ON_EQ: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

type Hook = std::thread::LocalKey<RefCell<Option<Box<dyn FnOnce()>>>>;

fn next_time(hook: &'static Hook, act: impl FnOnce() + 'static) {
    hook.with(|next| *next.borrow_mut() = Some(Box::new(act)));
}

fn is_over(hook: &'static Hook) -> bool {
    hook.with(|next| next.borrow().is_none())
}

fn come_by(hook: &'static Hook) {
    let act = hook.with(|next| next.borrow_mut().take());
    if let Some(act) = act {
        act();
    }
}

fn on_another_thread(act: impl FnOnce() + Send + 'static) {
    thread::spawn(act).join().unwrap();
}

/// When this thread next hashes such a key, another takes over the fill of key 1.
fn takeover_on_hash<S: BuildHasher + Send + Sync + 'static>(cache: Cache<Hooked, u64, S>) {
    next_time(&ON_HASH, move || {
        on_another_thread(move || assert!(cache.takeover(&Hooked(1))));
    });
}

/// A key whose `Eq` may do anything, and from a thousand on its `Hash`.
#[derive(Clone, Debug)]
struct Hooked(u64);

impl Hash for Hooked {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if self.0 >= 1_000 {
            come_by(&ON_HASH);
        }
        state.write_u64(self.0);
    }
}

impl PartialEq for Hooked {
    fn eq(&self, other: &Self) -> bool {
        come_by(&ON_EQ);
        self.0 == other.0
    }
}

impl Eq for Hooked {}

/// All keys have one home, so that they stand in the order in which they came.
#[derive(Clone, Default)]
struct OneHome;

impl BuildHasher for OneHome {
    type Hasher = Home;

    fn build_hasher(&self) -> Home {
        Home
    }
}

struct Home;

impl Hasher for Home {
    fn finish(&self) -> u64 {
        1
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, _: u64) {}
}

fn at_rest<K: Clone + Hash + Eq, V: Clone>(cache: &Cache<K, V>) -> (u64, usize) {
    (cache.weighted_size(), cache.iter().count())
}

// ---------------------------------------------------------------------------------------------
// Debts that are left

/// Clause 9. The capacity is made less while every entry is being computed anew, and so cannot be taken out; then
/// the computes put in what they have.
#[test]
fn c09_computes_that_put_in_under_a_capacity_that_was_made_less() {
    fn compute_all(cache: &Cache<u64, u64>, key: u64, within: &dyn Fn()) {
        if key == 4 {
            return within();
        }
        cache.entry(key).and_compute_with(|_| {
            compute_all(cache, key + 1, within);
            Op::Put(key + 100)
        });
    }
    watched(|| {
        let cache: Cache<u64, u64> = Cache::new(4);
        (0..4).for_each(|key| cache.insert(key, key));
        compute_all(&cache, 0, &|| cache.set_max_capacity(1).unwrap());
        assert_eq!(at_rest(&cache), (1, 1));
        for key in 100..200 {
            cache.insert(key, key);
            cache.get_with(&(key + 1000), || 1);
        }
        assert_eq!(at_rest(&cache), (1, 1));
    });
}

/// Clause 9. The same of one entry, whose new value weighs less than the old one, and too much.
#[test]
fn c09_a_compute_that_puts_in_something_lighter_that_is_too_heavy_by_now() {
    watched(|| {
        let (weighs, held) = (Flag::default(), Held::new());
        let (slow, inner) = (weighs.clone(), held.clone());
        let cache: Cache<u64, u64> = Cache::builder()
            .max_capacity(10)
            .weigher(move |_, &value| {
                if slow.is_up() {
                    inner.hold(());
                }
                value
            })
            .build()
            .unwrap();
        cache.insert(1, 10);
        weighs.raise();
        thread::scope(|scope| {
            scope.spawn(|| cache.entry(1).and_compute_with(|_| Op::Put(5)));
            held.begun.pass();
            cache.set_max_capacity(1).unwrap();
            held.end.open();
        });
        assert_eq!(at_rest(&cache), (0, 0));
    });
}

/// Clause 9. An insert has charged, under a capacity that is made less before it has put its entry in.
#[test]
fn c09_an_insert_that_has_charged_when_the_capacity_is_made_less() {
    watched(|| {
        let cache: Cache<Hooked, u64> = Cache::new(10);
        cache.insert(Hooked(1), 1);
        let other = cache.clone();
        next_time(&ON_EQ, move || {
            on_another_thread(move || other.set_max_capacity(0).unwrap());
        });
        cache.insert(Hooked(1), 2);
        assert!(is_over(&ON_EQ));
        assert_eq!(at_rest(&cache), (0, 0));
    });
}

/// Clause 9. An insert owes, and both its own entry and the only other one are computed anew before it has paid.
#[test]
fn c09_an_insert_whose_own_entry_is_computed_before_it_has_paid() {
    watched(|| {
        let cache: Cache<Hooked, u64> = Cache::new(1);
        let (old, new) = (Held::new(), Held::new());
        cache.insert(Hooked(1_000), 1);
        let compute = |key, held: &Held| {
            let (cache, holds) = (cache.clone(), held.clone());
            let put = move |_: Option<&u64>| holds.hold(Op::Put(2));
            let computes = thread::spawn(move || {
                cache.entry(key).and_compute_with(put);
            });
            held.begun.pass();
            computes
        };
        let first = compute(Hooked(1_000), &old);
        let second: Arc<Mutex<Option<thread::JoinHandle<()>>>> = Arc::default();
        let (slot, other, holds) = (second.clone(), cache.clone(), new.clone());
        // It looks for a victim, and hashes the one there is.
        next_time(&ON_HASH, move || {
            let begun = holds.begun.clone();
            *slot.lock().unwrap() = Some(thread::spawn(move || {
                other
                    .entry(Hooked(7))
                    .and_compute_with(|_| holds.hold(Op::Put(4)));
            }));
            begun.pass();
        });
        cache.insert(Hooked(7), 3);
        assert!(is_over(&ON_HASH));
        old.end.open();
        new.end.open();
        first.join().unwrap();
        let second = second.lock().unwrap().take().expect("begun");
        second.join().unwrap();
        let (weight, entries) = at_rest(&cache);
        assert_eq!(weight, entries as u64);
        // Each of the two may have made room for the other.
        assert!(weight <= 1, "{weight} of 1");
    });
}

// ---------------------------------------------------------------------------------------------
// Garbage that weighs

/// Clause 9: what was too heavy to be kept weighs as much as garbage.
#[test]
fn c09_what_was_not_kept_is_weighed_as_garbage() {
    let name = "schedules_found::c09_what_was_not_kept_is_weighed_as_garbage";
    in_child(name, A_MOMENT, || {
        let ledger = Ledger::new();
        let cache: Cache<u64, Counted> = Cache::builder()
            .max_capacity(1000)
            .weigher(|_, _| 1001)
            .build()
            .unwrap();
        for key in 0..120 {
            drop(cache.get_with(&key, || ledger.make(key)));
        }
        assert!(ledger.alive() <= 2, "{} are kept", ledger.alive());
    });
}

/// Clause 9, H10: what one batch of garbage weighs is more than 64 bits can say.
#[test]
fn h10_a_batch_of_garbage_that_weighs_more_than_64_bits() {
    watched(|| {
        let cache: Cache<u64, u64> = Cache::builder()
            .max_capacity(u64::MAX)
            .weigher(|_, _| (1 << 48) - 1)
            .build()
            .unwrap();
        let view = cache.pin();
        (0..66_000).for_each(|n| cache.insert(1, n));
        drop(view);
        cache.insert(1, 0);
        cache.quiesce();
        assert_eq!(cache.retired(), 0);
    });
}

// ---------------------------------------------------------------------------------------------
// Takeovers beside a walk

/// A walk over all keys is in front of a fill that hangs, and stops there for a takeover of that.
fn beside_a_takeover(walk: impl FnOnce(&Cache<Hooked, u64, OneHome>) + Send + 'static) {
    in_front_of_a_fill_that_hangs(|cache| {
        takeover_on_hash(cache.clone());
        walk(cache);
    });
}

/// `act` sets up what happens between a look at a fill that hangs and one at what stands behind it, and then walks.
fn in_front_of_a_fill_that_hangs(act: impl FnOnce(&Cache<Hooked, u64, OneHome>) + Send + 'static) {
    let cache: Cache<Hooked, u64, OneHome> = Cache::builder().hasher(OneHome).build().unwrap();
    let held = Held::new();
    let (running, fill) = (cache.clone(), held.clone());
    let hangs = thread::spawn(move || running.get_with(&Hooked(1), || fill.hold(7)));
    held.begun.pass();
    // Stands behind the fill: it is hashed after that has been seen.
    cache.insert(Hooked(1_000), 1);
    watched_for(A_MOMENT, move || {
        act(&cache);
        assert!(is_over(&ON_HASH));
    });
    held.end.open();
    hangs.join().unwrap();
}

/// Clauses 2, 4. It does not wait for the fill that was taken over, which may never end.
#[test]
fn c04_invalidate_all_beside_a_takeover() {
    beside_a_takeover(Cache::invalidate_all);
}

#[test]
fn c04_invalidate_if_beside_a_takeover() {
    beside_a_takeover(|cache| cache.invalidate_if(|_, _| true));
}

#[test]
fn c04_close_within_beside_a_takeover() {
    beside_a_takeover(|cache| {
        cache.close_within(Duration::from_millis(10));
    });
}

/// Clauses 2, 4. The same from within the fill that is taken over: it would wait for itself.
#[test]
fn c04_invalidate_all_inside_a_fill_that_is_taken_over() {
    watched_for(A_MOMENT, || {
        let cache: Cache<Hooked, u64, OneHome> = Cache::builder().hasher(OneHome).build().unwrap();
        let of_fill = cache.clone();
        cache.get_with(&Hooked(1), move || {
            of_fill.insert(Hooked(1_000), 1);
            takeover_on_hash(of_fill.clone());
            of_fill.invalidate_all();
            assert!(is_over(&ON_HASH));
            1
        });
        assert!(!cache.contains(&Hooked(1_000)));
    });
}

// ---------------------------------------------------------------------------------------------
// Walks beside those who put in

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
        // It hashes a key as it comes by, and again when it has picked it.
        next_time(&ON_HASH, move || {
            next_time(&ON_HASH, move || {
                let remover = other.clone();
                on_another_thread(move || assert!(remover.invalidate_nowait(&Hooked(1_000))));
                let begun = fill.begun.clone();
                let fills = move || other.get_with(&Hooked(1_000), || fill.hold(7));
                *slot.lock().unwrap() = Some(thread::spawn(fills));
                begun.pass();
            });
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

/// Clause 2, as above, of a fill that begins in the place of one that is taken over beside the walk.
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

/// Clauses 2 and 6. A `Hash` that panics once, while the walk takes out what a compute that has just begun stands before.
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
        // After that of the scan.
        next_time(&ON_HASH, move || next_time(&ON_HASH, panics));
        let (seen, end) = (cache.clone(), held.end.clone());
        let opener = thread::spawn(move || {
            spin_until(|| seen.in_flight().iter().any(|fill| fill.fenced_off));
            // The compute comes first, and has read it.
            assert_eq!(seen.peek(&Hooked(1_000)), Some(5));
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

/// What [`Cache::invalidate_if`] does to a compute that calls it: nothing, unless it picks what that has read.
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
