//! What expires next: so that what has expired goes before anything that lives.
//!
//! A bounded cache whose entries expire has a *list* of those that expire the soonest, in the order of their deadlines.
//! A walk over the whole table makes it. An eviction first takes the entries at its front out, as far as they have
//! expired. Only when it comes to one that has not does the policy name a victim.
//!
//! # Nothing that has expired is missed
//!
//! Besides the list there are two numbers: the earliest deadline of all that the walk saw and did not list, and the
//! earliest of all that came since the list was hung up. While neither has passed, what is not on the list lives. When one
//! has, an eviction hangs up a new list and walks.
//!
//! The list is hung up *before* the walk, still blank. Who puts an entry in first makes it visible, and then tells the
//! list that hangs of its deadline. If the new list was hung up before that, it is told. If after that, the walk begins
//! later still, and sees the entry. (All four are `SeqCst`: the words' swap and the list's load there, the list's swap
//! and the words' loads here. Of entries that are filled, publishing takes the part of the words' swap.)
//!
//! Threads that come while the list is blank walk too. The first to finish writes the list, and the others stop as soon
//! as they see it. So nobody waits for another, and no live entry goes because somebody else walks.
//!
//! # What it costs
//!
//! A walk lists one in [`SHARE`] of the entries. All of these have expired or left before the next walk, unless
//! something that came since expires sooner than they do, which takes a clock that was set back, or an insert that stood
//! still for most of a TTL. So a walk is paid for by one in eight of the entries that leave: each of them pays
//! for eight entries that are looked at, or sixteen words. A table that is emptier than that (see `SPARSE` in room.rs) is
//! made smaller first. The list takes two bytes for each entry in the cache.
//!
//! Without a TTL there are no lists. An eviction that finds nothing expired compares two numbers with the clock.

use super::room::{Room, SPARSE};
use super::{Core, Node};
use crate::interlude::come_by;
use crate::reclaim::{Domain, Garbage, Pin, deref};
use crate::stats::Event;
use crate::sync::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, prefetch, store_load};
use crate::table::{Rehash, Spot};
use std::hash::{BuildHasher, Hash};
use std::sync::OnceLock;

/// A walk lists one in so many of the entries.
const SHARE: usize = 8;
/// And so many at least.
const FEWEST: usize = 64;
/// How many that have expired a walk takes out itself: also those that nobody would find again, because their `Hash` says
/// another thing each time.
const AT_ONCE: usize = 32;
/// How many words a walk loads before it follows their addresses.
const AHEAD: usize = 16;

/// No deadline.
const NONE: u64 = u64::MAX;

/// The list that hangs.
pub(super) struct Expiring {
    list: AtomicPtr<List>,
}

struct List {
    /// Blank until the first walk has ended.
    soonest: OnceLock<Soonest>,
    /// How many of it have had their turn.
    done: AtomicUsize,
    /// No later than the deadline of anything that came since this list hangs.
    newcomers: AtomicU64,
}

struct Soonest {
    /// Deadlines, with the hashes of their keys; in order.
    entries: Box<[(u64, u64)]>,
    /// No later than the deadline of anything else that the walk saw.
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
        // SAFETY: made just now, and ours alone.
        let _ = unsafe { &*list }.soonest.set(nothing);
        Self {
            list: AtomicPtr::new(list),
        }
    }

    fn list<'p>(&self, _pin: &'p Pin) -> &'p List {
        // SeqCst: see the module. (Acquire: pairs with the swap of `renew`.)
        // SAFETY: a list that has been replaced is retired, so it outlives every pin that could load it.
        unsafe { &*self.list.load(Ordering::SeqCst) }
    }

    /// An entry with this deadline can be seen from now on.
    #[inline(never)]
    pub(super) fn comes(&self, deadline: u64, pin: &Pin) {
        store_load();
        let newcomers = &self.list(pin).newcomers;
        // Relaxed: who must see it has the whole word; see the module.
        if deadline < newcomers.load(Ordering::Relaxed) {
            newcomers.fetch_min(deadline, Ordering::Relaxed);
        }
    }

    /// Hangs up a blank list in the place of this one, unless somebody has.
    fn renew(&self, old: &List, domain: &Domain) {
        let old = std::ptr::from_ref(old).cast_mut();
        let new = List::blank();
        // SeqCst: see the module.
        let swapped = self
            .list
            .compare_exchange(old, new, Ordering::SeqCst, Ordering::Relaxed);
        store_load();
        // SAFETY: both are from `Box::into_raw`. Of all who try, one swaps the old one out, and retires it; a new one
        // that was not put up has been seen by nobody.
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
        // SAFETY: from `Box::into_raw`; we are alone, and what was replaced has been retired.
        drop(unsafe { Box::from_raw(self.list.load(Ordering::Acquire)) });
    }
}

/// The first of what a walk sees, by deadline.
struct First<'p, K, V> {
    most: usize,
    found: Vec<(u64, &'p Node<K, V>)>,
    /// No later than the deadline of anything that was left out.
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

    /// Leaves out all but the first. In linear time, and so once for as many as there are.
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
        // One whose `Hash` panics now is left to the next walk.
        let entry = |(deadline, node)| Some((deadline, hash(node)?));
        Soonest {
            entries: self.found.into_iter().filter_map(entry).collect(),
            others: self.others,
        }
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Core<K, V, S> {
    /// Takes out what has expired until that has freed some weight, which it returns; or nothing has expired any more.
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
            // Relaxed, as of the policy: which of several threads has which turn.
            let done = list.done.load(Ordering::Relaxed);
            let next = soonest.entries.get(done).copied();
            let newcomers = list.newcomers.load(Ordering::Relaxed);
            let Some((deadline, hash)) = next.filter(|next| next.0 <= newcomers) else {
                // Once: what a walk has not taken out, nobody can now.
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

    /// Takes out an expired entry that could be of this hash: the weight that this has freed.
    fn take_expired_of(&self, hash: u64, pin: &Pin) -> u64 {
        let has_expired = |node: *const Node<K, V>| {
            // SAFETY: in the table at the load of its word, under this pin.
            let node = unsafe { deref(node, pin) };
            node.slot.deadline().is_some_and(|at| self.is_over(at))
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

    /// Looks at everything, and writes on the list what expires the soonest, unless another has. Takes some out that
    /// has expired: the weight that this has freed.
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
                // Their slots are asked for from memory, all at once.
                let spots: [Option<Spot<'_>>; AHEAD] = std::array::from_fn(|step| {
                    let spot = dial.spot(from + step).filter(|_| from + step < to)?;
                    prefetch(spot.object::<Node<K, V>>().addr());
                    Some(spot)
                });
                for spot in spots.into_iter().flatten() {
                    // SAFETY: linked at the load of its word, under this pin.
                    let node = unsafe { deref(spot.object::<Node<K, V>>(), pin) };
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

    /// Takes out an entry that was seen to have expired: the weight that this has freed. `None`: its word is another by
    /// now.
    pub(super) fn take_out_expired(
        &self,
        spot: &Spot<'_>,
        hash: Option<u64>,
        pin: &Pin,
    ) -> Option<u64> {
        if !self.table.unlink(spot) {
            return None;
        }
        // SAFETY: linked at the load of its word, under this pin.
        let node = unsafe { deref(spot.object::<Node<K, V>>(), pin) };
        self.remember(spot.mark(), || hash.or_else(|| self.rehash(node)), pin);
        Some(self.released(node, Event::Expired))
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

    /// How many walks this thread makes.
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

    /// D2: one in [`SHARE`] of the entries leaves between two walks, also if they expire one by one.
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
            // Where as many live at once as there is room for, inserts do not find all that has expired by themselves.
            assert!(walks > 100 || (capacity, step) != (1000, 1), "{walks}");
        }
    }

    /// D2: of a clock that stands still nothing expires, and nobody walks; if all has expired at once it takes a walk for
    /// each share of it.
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

    /// D2: the same where most of what is listed leaves before its time: overwritten, removed, or because it weighs much.
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

    /// An entry whose `Hash` answers differently each time stands anywhere. It is not found again from the list: walks take
    /// such out, and end.
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
