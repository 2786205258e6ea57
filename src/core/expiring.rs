//! The entries that expire next, so that an expired entry goes before a live one.
//!
//! A bounded cache with a TTL has a *list* of the entries that expire the soonest, in the order of
//! their deadlines. A walk over the whole table makes it. An eviction first takes the entries at
//! its front out, as far as they have expired. Only when it reaches one that has not does the
//! policy name a victim.
//!
//! # No expired entry is missed
//!
//! Besides the list there are two numbers. One is the earliest deadline of all entries that the
//! walk saw and did not list. The other is the earliest of all entries that came since the list was
//! put up. While neither has passed, every unlisted entry is live. When one has passed, an eviction
//! puts up a new list and walks.
//!
//! The evictor puts the new list up *before* its walk, still blank. An inserter first makes its
//! entry visible, and then tells the current list the entry's deadline. If the new list was put up
//! before the inserter's load, the inserter tells that one. If it was put up after, the walk begins
//! later still, and sees the entry. (All four are `SeqCst`: the word's swap and the load of the
//! list in the inserter, the swap of the list and the loads of the words in the evictor. For an
//! entry that is filled, publishing takes the part of the word's swap.)
//!
//! Threads that come while the list is blank walk too. The first to finish writes the list, and the
//! others stop as soon as they see it. So no thread waits for another, and no live entry goes
//! because another thread walks.
//!
//! # Cost
//!
//! A walk lists one in [`SHARE`] of the entries. All of these have expired or left before the next
//! walk, unless an entry that came since expires sooner. That takes a clock that was set back, or
//! an insert that stood still for most of a TTL. So one in eight of the entries that leave pays for
//! a walk: each of them for a look at eight entries, or sixteen words. A table that is emptier than
//! that (see `SPARSE` in room.rs) is first made smaller. The list takes two bytes for each entry in
//! the cache.
//!
//! Without a TTL there are no lists. An eviction that finds nothing expired compares two numbers
//! with the clock.

use super::room::{Room, SPARSE};
use super::{Core, Node};
use crate::interlude::come_by;
use crate::reclaim::{Domain, Garbage, Pin};
use crate::stats::Event;
use crate::sync::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, prefetch, store_load};
use crate::table::{Rehash, Spot};
use std::hash::{BuildHasher, Hash};
use std::sync::OnceLock;

/// A walk lists one in so many of the entries.
const SHARE: usize = 8;
/// And at least so many.
const FEWEST: usize = 64;
/// Expired entries that a walk takes out itself. It includes those that a look-up would not find
/// again, because their `Hash` answers differently each time.
const AT_ONCE: usize = 32;
/// Words that a walk loads before it follows their addresses.
const AHEAD: usize = 16;

/// No deadline.
const NONE: u64 = u64::MAX;

/// The current list.
pub(super) struct Expiring {
    list: AtomicPtr<List>,
}

struct List {
    /// Blank until the first walk has ended.
    soonest: OnceLock<Soonest>,
    /// The number of its entries that have had their turn.
    done: AtomicUsize,
    /// No later than the deadline of any entry that came since this list was put up.
    newcomers: AtomicU64,
}

struct Soonest {
    /// Deadlines, with the hashes of their keys; in order.
    entries: Box<[(u64, u64)]>,
    /// No later than the deadline of any other entry that the walk saw.
    others: u64,
}

impl List {
    fn blank() -> *mut Self {
        Box::into_raw(Box::new(Self {
            soonest: OnceLock::new(),
            done: AtomicUsize::new(0),
            newcomers: AtomicU64::new(NONE),
        }))
    }
}

impl Expiring {
    pub(super) fn new() -> Self {
        let list = List::blank();
        let nothing = Soonest {
            entries: Box::default(),
            others: NONE,
        };
        // SAFETY: made just now, and not shared yet.
        let _ = unsafe { &*list }.soonest.set(nothing);
        Self {
            list: AtomicPtr::new(list),
        }
    }

    fn list<'p>(&self, _pin: &'p Pin) -> &'p List {
        // SeqCst: see the module. (Acquire: pairs with the swap of `renew`.) SAFETY: a list that
        // has been replaced is retired, so it outlives every pin that could load it.
        unsafe { &*self.list.load(Ordering::SeqCst) }
    }

    /// Notes that an entry with this deadline is visible from now on.
    #[inline(never)]
    pub(super) fn comes(&self, deadline: u64, pin: &Pin) {
        store_load();
        let newcomers = &self.list(pin).newcomers;
        // Relaxed: the number is one word and publishes nothing else; see the module.
        if deadline < newcomers.load(Ordering::Relaxed) {
            newcomers.fetch_min(deadline, Ordering::Relaxed);
        }
    }

    /// Puts up a blank list in the place of this one, unless another thread has.
    fn renew(&self, old: &List, domain: &Domain) {
        let old = std::ptr::from_ref(old).cast_mut();
        let new = List::blank();
        // SeqCst: see the module.
        let swapped = self
            .list
            .compare_exchange(old, new, Ordering::SeqCst, Ordering::Relaxed);
        store_load();
        // SAFETY: both are from `Box::into_raw`. Of all threads that try, one swaps the old list
        // out and retires it. A new one that was not put up was never shared.
        unsafe {
            if swapped.is_ok() {
                domain.retire(Garbage::boxed(old));
            } else {
                drop(Box::from_raw(new));
            }
        }
    }
}

impl Drop for Expiring {
    fn drop(&mut self) {
        // SAFETY: from `Box::into_raw`. No other thread has `self`, and replaced lists have been
        // retired.
        drop(unsafe { Box::from_raw(self.list.load(Ordering::Acquire)) });
    }
}

/// The entries with the earliest deadlines that a walk has seen.
struct First<'p, K, V> {
    most: usize,
    found: Vec<(u64, &'p Node<K, V>)>,
    /// No later than the deadline of any entry that was left out.
    others: u64,
}

impl<'p, K, V> First<'p, K, V> {
    fn new(most: usize) -> Self {
        Self {
            most,
            found: Vec::with_capacity(2 * most),
            others: NONE,
        }
    }

    fn push(&mut self, deadline: u64, node: &'p Node<K, V>) {
        if deadline >= self.others {
            return;
        }
        self.found.push((deadline, node));
        if self.found.len() == 2 * self.most {
            self.cut();
        }
    }

    /// Leaves out all but the first. In linear time, so it is called once for as many new ones.
    fn cut(&mut self) {
        if self.found.len() > self.most {
            let (_, least, _) = self.found.select_nth_unstable_by_key(self.most, |it| it.0);
            self.others = least.0;
            self.found.truncate(self.most);
        }
    }

    fn into_soonest(mut self, hash: impl Fn(&Node<K, V>) -> Option<u64>) -> Soonest {
        self.cut();
        self.found.sort_unstable_by_key(|it| it.0);
        // An entry whose `Hash` panics now is left to the next walk.
        let entry = |(deadline, node)| Some((deadline, hash(node)?));
        Soonest {
            entries: self.found.into_iter().filter_map(entry).collect(),
            others: self.others,
        }
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Core<K, V, S> {
    /// Takes out expired entries until some weight is freed, and returns that; 0 if no more have
    /// expired.
    #[inline(never)]
    pub(super) fn evict_expired(&self, room: &Room<K, V>, pin: &Pin) -> u64 {
        let mut walked = false;
        loop {
            let list = room.expiring.list(pin);
            let Some(soonest) = list.soonest.get() else {
                walked = true;
                let freed = self.walk(list, pin);
                if freed > 0 {
                    return freed;
                }
                continue;
            };
            // Relaxed: decides which of several threads has which turn, and orders nothing.
            let done = list.done.load(Ordering::Relaxed);
            let next = soonest.entries.get(done).copied();
            let newcomers = list.newcomers.load(Ordering::Relaxed);
            let Some((deadline, hash)) = next.filter(|next| next.0 <= newcomers) else {
                // Only once: entries that a walk has not taken out cannot be taken out now.
                if walked || !self.is_over(newcomers.min(soonest.others)) {
                    return 0;
                }
                room.expiring.renew(list, &self.domain);
                continue;
            };
            if !self.is_over(deadline) {
                return 0;
            }
            let taken =
                list.done
                    .compare_exchange(done, done + 1, Ordering::Relaxed, Ordering::Relaxed);
            if taken.is_ok() {
                let freed = self.take_expired_of(hash, pin);
                if freed > 0 {
                    return freed;
                }
            }
        }
    }

    fn is_over(&self, deadline: u64) -> bool {
        deadline != NONE && !self.clock.is_before(deadline)
    }

    /// Takes out an expired entry that may have this hash. Returns the weight freed.
    fn take_expired_of(&self, hash: u64, pin: &Pin) -> u64 {
        let has_expired = |node: &Node<K, V>| {
            let refreshed = node.slot.state().successor().is_some();
            !refreshed && node.slot.deadline().is_some_and(|at| self.is_over(at))
        };
        while let Some(spot) =
            self.table
                .find_to_change(hash, pin, self, &self.domain, &has_expired)
        {
            if let Some(freed) = self.take_out_expired(&spot, Some(hash), pin) {
                return freed;
            }
        }
        0
    }

    /// Looks at all entries, and lists those that expire the soonest, unless another thread has.
    /// Takes some expired ones out. Returns the weight freed.
    #[cold]
    fn walk(&self, list: &List, pin: &Pin) -> u64 {
        come_by("walk");
        if self.len().saturating_mul(SPARSE) < self.table.positions(pin) {
            self.table.shrink(pin, self, &self.domain);
        }
        let most = (self.len() / SHARE).max(FEWEST);
        let (mut freed, mut taken) = (0, 0);
        loop {
            let dial = self.table.dial_of_all(pin, self, &self.domain);
            let now = self.clock.now();
            let mut first = First::new(most);
            for from in (0..dial.positions()).step_by(AHEAD) {
                if list.soonest.get().is_some() {
                    return freed;
                }
                let to = (from + AHEAD).min(dial.positions());
                // Prefetches their slots, all at once.
                let spots: [Option<Spot<'_, Node<K, V>>>; AHEAD] = std::array::from_fn(|step| {
                    let spot = dial.spot(from + step).filter(|_| from + step < to)?;
                    prefetch(spot.address().addr());
                    Some(spot)
                });
                for spot in spots.into_iter().flatten() {
                    let node = spot.object();
                    let Some(deadline) = node.slot.deadline() else {
                        continue;
                    };
                    if deadline <= now && taken < AT_ONCE {
                        if let Some(its) = self.take_out_expired(&spot, None, pin) {
                            freed += its;
                            taken += 1;
                            continue;
                        }
                    }
                    first.push(deadline, node);
                }
            }
            if dial.shows_all() {
                let _ = list
                    .soonest
                    .set(first.into_soonest(|node| self.rehash(node)));
                return freed;
            }
        }
    }

    /// Takes out an entry that was seen to have expired. Returns the weight freed; `None` if it is not live any more, or is
    /// being refreshed.
    pub(super) fn take_out_expired(
        &self,
        spot: &Spot<'_, Node<K, V>>,
        hash: Option<u64>,
        pin: &Pin,
    ) -> Option<u64> {
        let node = spot.object();
        let state = node.slot.state();
        if !state.is_live() || state.successor().is_some() {
            return None;
        }
        let weight = state.weight();
        self.remove_seen(node, state, weight, Event::Expired, false)?;
        self.unlink_removed(spot, hash, pin);
        Some(weight)
    }
}

#[cfg(all(test, not(atomic_cache_loom)))]
mod tests {
    use super::{FEWEST, SHARE};
    use crate::interlude::{all_done, at};
    use crate::{Cache, ManualClock};
    use std::cell::Cell;
    use std::rc::Rc;
    use std::time::Duration;

    const TTL: Duration = Duration::from_micros(1);

    fn timed(capacity: u64) -> (ManualClock, Cache<u64, u64>) {
        let clock = ManualClock::new();
        let cache = Cache::builder()
            .max_capacity(capacity)
            .time_to_live(TTL)
            .clock(clock.clone())
            .build()
            .expect("good settings");
        (clock, cache)
    }

    /// Counts the walks that this thread makes.
    fn walks(what: impl FnOnce()) -> usize {
        let walks = Rc::new(Cell::new(0));
        for _ in 0..100_000 {
            let walks = Rc::clone(&walks);
            at("walk", move || walks.set(walks.get() + 1));
        }
        what();
        assert!(!all_done(), "more than could be counted");
        walks.get()
    }

    /// D2: one in [`SHARE`] of the entries leaves between two walks, also if they expire one by
    /// one.
    #[test]
    fn c09_walks_are_paid_for_where_entries_expire_one_by_one() {
        for (capacity, step) in [
            (1000, 1),
            (1000, 2),
            (2000, 1),
            (5000, 1),
            (100, 10),
            (4, 400),
        ] {
            let (clock, cache) = timed(capacity);
            let inserts = 20_000;
            let walks = walks(|| {
                for key in 0..inserts {
                    cache.insert(key, key);
                    clock.advance(Duration::from_nanos(step));
                }
            });
            let most = usize::try_from(capacity).unwrap();
            let listed = (most / SHARE).max(FEWEST.min(most / 2));
            let paid_for = usize::try_from(inserts).unwrap() / listed + 2;
            println!("{walks} walks, {paid_for} paid for, at {capacity}");
            assert!(walks <= paid_for, "{walks} for {paid_for}, at {capacity}");
            // Where as many live at once as there is room for, inserts do not find all expired
            // entries themselves.
            assert!(walks > 100 || (capacity, step) != (1000, 1), "{walks}");
        }
    }

    /// D2: with a clock that stands still no entry expires and no thread walks. If all have expired
    /// at once it takes a walk for each share of them.
    #[test]
    fn c09_walks_are_few_where_time_stands_still_or_leaps() {
        let (clock, cache) = timed(1000);
        let none = walks(|| (0..5000).for_each(|key| cache.insert(key, key)));
        assert_eq!(none, 0);
        clock.advance(TTL);
        let walks = walks(|| (5000..6000).for_each(|key| cache.insert(key, key)));
        // (Inserts also sweep on their own, a few words each.)
        assert!(walks <= SHARE + 1, "{walks}");
    }

    /// D2: the same where most listed entries leave before their time: overwritten, removed, or
    /// evicted for an entry that weighs much.
    #[test]
    fn c09_walks_are_paid_for_where_most_leave_before_their_time() {
        let clock = ManualClock::new();
        let cache: Cache<u64, u64> = Cache::builder()
            .max_capacity(10_000)
            .weigher(|_, &value| value)
            .time_to_live(TTL)
            .clock(clock.clone())
            .build()
            .expect("good settings");
        let mut dice = 1_u64;
        let mut left = 0_u32;
        let walks = walks(|| {
            for _ in 0..40_000 {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let key = (dice >> 33) % 3000;
                if dice >> 62 == 0 {
                    cache.invalidate(&key);
                } else {
                    cache.insert(key, 1 + (dice >> 50) % 20);
                    left += 1;
                }
                clock.advance(Duration::from_nanos(dice >> 63));
            }
        });
        println!("{walks} walks for {left} that came");
        // Some thousand entries: a walk for each hundred that came.
        assert!(
            walks <= usize::try_from(left).unwrap() / 100,
            "{walks}, {left}"
        );
    }

    /// An entry whose `Hash` answers differently each time stands anywhere. It is not found again
    /// from the list: walks take such entries out, and end.
    #[test]
    fn c06_c09_what_cannot_be_found_again_is_taken_out_by_walks() {
        #[derive(PartialEq, Eq, Clone, Debug)]
        struct Liar(u64);
        impl std::hash::Hash for Liar {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                thread_local!(static ANSWERS: Cell<u64> = const { Cell::new(0) });
                ANSWERS.set(ANSWERS.get() + 1);
                state.write_u64(ANSWERS.get());
            }
        }
        let clock = ManualClock::new();
        let cache: Cache<Liar, u64> = Cache::builder()
            .max_capacity(500)
            .time_to_live(TTL)
            .clock(clock.clone())
            .build()
            .expect("good settings");
        for round in 0..5 {
            (0..1000).for_each(|key| cache.insert(Liar(1000 * round + key), key));
            assert_eq!(cache.len(), 500);
            clock.advance(TTL);
        }
    }
}
