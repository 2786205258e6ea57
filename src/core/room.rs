//! Makes room: evicts the entries that the policy names.

use super::expiring::Expiring;
use super::{Core, GARBAGE, Node};
use crate::bound::{Bound, Weight};
use crate::interlude::come_by;
use crate::policy::{Census, Mark, Policy, Ring, one_by_one};
use crate::reclaim::{Garbage, Pin, pin};
use crate::slot::State;
use crate::stats::Event;
use crate::sync::{AtomicPtr, Ordering, PATIENCE, relax, store_load};
use crate::table::{Dial, Rehash, Spot};
use crate::time::Deadline;
use crossbeam_queue::SegQueue;
use std::cell::Cell;
use std::hash::{BuildHasher, Hash};
use std::ops::Range;

/// The parts that only a cache with a capacity has.
pub(super) struct Room<K, V> {
    bound: Bound<K, V>,
    /// Replaced when the number of entries has become very different.
    policy: AtomicPtr<Policy>,
    /// The entries that expire next, in a cache with a TTL.
    pub(super) expiring: Expiring,
    /// The hashes of keys that their user has demoted.
    pub(super) demoted: SegQueue<u64>,
}

impl<K, V> Room<K, V> {
    pub(super) fn new(bound: Bound<K, V>, positions: usize) -> Self {
        let policy = Policy::new(bound.likely_entries(positions));
        Self {
            bound,
            policy: AtomicPtr::new(Box::into_raw(Box::new(policy))),
            expiring: Expiring::new(),
            demoted: SegQueue::new(),
        }
    }

    pub(super) fn counts_entries(&self) -> bool {
        self.bound.counts_entries()
    }

    /// Returns the total as a number of entries.
    pub(super) fn total_entries(&self) -> usize {
        usize::try_from(self.bound.total()).unwrap_or(usize::MAX)
    }

    fn policy<'p>(&self, _pin: &'p Pin) -> &'p Policy {
        // Acquire: pairs with the Release of `renewed`. SAFETY: a policy that has been replaced is
        // retired, so it outlives every pin that could load it.
        unsafe { &*self.policy.load(Ordering::Acquire) }
    }
}

impl<K, V> Drop for Room<K, V> {
    fn drop(&mut self) {
        // SAFETY: from `Box::into_raw`. No other thread has `self`, and replaced policies have been
        // retired.
        drop(unsafe { Box::from_raw(self.policy.load(Ordering::Acquire)) });
    }
}

/// The charge for an entry that is not in the table yet: discharged if the entry does not get
/// there.
pub(super) struct Charge<'c, K, V, S> {
    core: &'c Core<K, V, S>,
    weight: u64,
    owed: u64,
}

impl<'c, K, V, S> Charge<'c, K, V, S> {
    pub(super) fn new(core: &'c Core<K, V, S>, weight: u64) -> Self {
        let owed = core.charge(weight);
        Self { core, weight, owed }
    }

    /// Leaves the discharge to the thread that takes the entry out. Returns the weight owed.
    pub(super) fn passes_to_the_entry(mut self) -> u64 {
        self.weight = 0;
        self.owed
    }
}

impl<K, V, S> Drop for Charge<'_, K, V, S> {
    fn drop(&mut self) {
        if self.weight > 0 {
            self.core.discharge(self.weight);
        }
    }
}

/// Turns given to threads that are between an unlink and a discharge.
const A_MOMENT: u32 = if cfg!(atomic_cache_loom) { 1 } else { 32 };

/// A table with so many words to an entry is sparse: if a hand found nothing in it, a smaller table
/// helps. A table that was made for its capacity is never sparse.
pub(super) const SPARSE: usize = 16;

/// How often a change of the capacity looks for victims in vain before it leaves the rest to the
/// threads that are filling them. Each look lowers the counts of the entries it passes.
const IN_VAIN: usize = if cfg!(atomic_cache_loom) { 2 } else { 64 };

/// The table as the policy sees it, for an entry that needs room.
struct Clock<'a, K: Hash + Eq, V, S: BuildHasher> {
    core: &'a Core<K, V, S>,
    dial: Dial<'a, Node<K, V>>,
    pin: &'a Pin,
    /// The entry that needs room: not taken for its own sake.
    own: *const Node<K, V>,
    /// The time, in a cache with a TTL.
    now: Option<u64>,
    /// The number of entries when it began.
    entries: usize,
    /// Whether some entries may have weight zero.
    weightless: bool,
    /// The weight that has been freed.
    freed: Cell<u64>,
}

impl<'a, K: Hash + Eq, V, S: BuildHasher> Clock<'a, K, V, S> {
    /// Returns whether an entry may leave: it is neither filled nor refreshed just now, and it has a weight, so it makes
    /// room.
    fn may_go(&self, spot: &Spot<'a, Node<K, V>>) -> bool {
        may_go(spot.object(), self.own).is_some()
    }

    /// Takes an entry out, if it may leave.
    fn take(&self, spot: &Spot<'a, Node<K, V>>) -> bool {
        let freed = self.core.take(spot, self.own, self.now, self.pin);
        self.freed.set(self.freed.get() + freed);
        freed > 0
    }
}

/// The state of a node that may leave.
#[inline]
fn may_go<K, V>(node: &Node<K, V>, own: *const Node<K, V>) -> Option<State> {
    let state = node.slot.state_now();
    let may = state.is_live() && state.successor().is_none() && state.weight() > 0;
    (may && !std::ptr::eq(node, own)).then_some(state)
}

/// Counted once for a step of the policy, which asks often.
struct Headcount {
    entries: usize,
    on_probation: usize,
}

impl Census for Headcount {
    fn entries(&self) -> usize {
        self.entries
    }

    fn on_probation(&self) -> usize {
        self.on_probation
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Census for Clock<'_, K, V, S> {
    fn entries(&self) -> usize {
        self.entries
    }

    fn on_probation(&self) -> usize {
        self.core.table.on_probation()
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Ring for Clock<'_, K, V, S> {
    fn positions(&self) -> usize {
        self.dial.positions()
    }

    #[inline]
    fn mark(&self, at: usize) -> Option<Mark> {
        let spot = self.dial.spot(at)?;
        // An entry of weight zero makes no room, so the hands do not see it. Otherwise it would be
        // the weakest of every few again and again, and nothing would ever leave.
        if self.weightless {
            let state = spot.object().slot.state();
            if state.is_live() && state.weight() == 0 {
                return None;
            }
        }
        Some(Mark(spot.mark()))
    }

    #[inline]
    fn next(&self, stretch: Range<usize>, on_probation: bool) -> Option<(usize, Mark)> {
        if !self.weightless {
            let next = self.dial.next(stretch, on_probation);
            return next.map(|(at, mark)| (at, Mark(mark)));
        }
        one_by_one(self, stretch, on_probation)
    }

    fn rest(&self, stretch: Range<usize>) -> usize {
        if self.weightless {
            stretch.start
        } else {
            self.dial.rest(stretch)
        }
    }

    fn remark(&self, at: usize, from: Mark, to: Mark) -> bool {
        let spot = self.dial.spot(at).filter(|spot| spot.mark() == from.0);
        spot.is_some_and(|spot| self.core.table.remark(&spot, to.0))
    }

    fn evict(&self, at: usize, mark: Mark, expect: impl FnOnce(u64)) -> Option<u64> {
        let spot = self.dial.spot(at).filter(|spot| spot.mark() == mark.0)?;
        let hash = self.core.rehash(spot.object()).unwrap_or(0);
        expect(hash);
        self.take(&spot).then_some(hash)
    }

    fn surplus(&self) -> usize {
        self.core
            .room
            .as_ref()
            .map_or(1, |room| room.bound.surplus(self.entries))
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Core<K, V, S> {
    /// Returns the weight of a value. Runs user code: the weigher.
    pub(super) fn weigh(&self, key: &K, value: &V) -> Weight {
        let Some(room) = &self.room else {
            return Ok(1);
        };
        room.bound.weigh(key, value).inspect_err(|heavy| {
            self.stats.count(Event::Oversize);
            if heavy.weight.is_none() {
                self.stats.count(Event::WeigherPanic);
            }
        })
    }

    /// Prefetches the policy's memory of a key that is about to be inserted.
    #[inline]
    pub(super) fn expect(&self, hash: u64, pin: &Pin) {
        if let Some(room) = &self.room {
            room.policy(pin).expect(hash);
        }
    }

    /// Returns the mark of a key that is inserted.
    pub(super) fn newcomer(&self, hash: u64, pin: &Pin) -> u8 {
        match &self.room {
            Some(room) => {
                let policy = room.policy(pin);
                let census = Headcount {
                    entries: self.len(),
                    on_probation: self.table.on_probation(),
                };
                policy.arrive(hash, room.bound.has_room(), &census).0
            }
            None => 0,
        }
    }

    /// Keeps the count of an entry whose word had this mark, for when its key comes again. Not
    /// called for entries that the policy has named: it has noted those.
    pub(super) fn remember(&self, mark: u8, hash: impl FnOnce() -> Option<u64>, pin: &Pin) {
        let Some(room) = self.room.as_ref().filter(|_| Mark(mark).count() > 0) else {
            return;
        };
        if let Some(hash) = hash() {
            room.policy(pin).remember(hash, Mark(mark));
        }
    }

    /// Notes a use of the entry at `spot`: at most one swap, and none once its count is full.
    #[inline(always)]
    pub(super) fn touch(&self, spot: &Spot<'_, Node<K, V>>) {
        if let Some(touched) = Mark(spot.mark()).touched() {
            if self.room.is_some() {
                spot.touch(touched.0);
            }
        }
    }

    /// Evicts until the weight owed by the entry of `own`, or left to it by another thread, is
    /// freed; evicts that entry if nothing else can go. Called with the entry in its place, or back
    /// in it.
    pub(super) fn make_room(&self, owed: u64, hash: u64, own: &Node<K, V>, pin: &Pin) {
        let Some(room) = &self.room else {
            return;
        };
        if self.ttl.is_some() {
            if let Some(deadline) = own.slot.deadline() {
                room.expiring.comes(deadline, pin);
            }
        }
        let owed = if own.slot.state().is_live() {
            owed.max(room.bound.left_to(self.weight_of(own, pin)))
        } else {
            owed
        };
        let (mut paid, mut in_vain) = (0, 0);
        while paid < owed && room.bound.excess() > 0 {
            let freed = self.evict(room, own, pin);
            paid += freed;
            if freed > 0 {
                continue;
            }
            // Other threads may have taken the excess out, and be about to discharge it.
            if (0..A_MOMENT).any(|turn| {
                relax(turn);
                room.bound.excess() == 0
            }) {
                return;
            }
            if self.remove_live(own, None, Event::Evicted) {
                self.unlink_node(hash, own, pin);
                return self.stats.count(Event::GaveUp);
            }
            // Another thread has evicted our entry for its own debt. Ours is still open, and a
            // bounded walk may not find a victim. Scan the whole table; what remains is being
            // filled.
            if in_vain > PATIENCE {
                return self.evict_all(room);
            }
            in_vain += 1;
        }
    }

    fn face<'a>(
        &'a self,
        room: &Room<K, V>,
        own: *const Node<K, V>,
        pin: &'a Pin,
    ) -> Clock<'a, K, V, S> {
        Clock {
            core: self,
            dial: self.table.dial(pin, self, &self.domain),
            pin,
            own,
            now: self.ttl.map(|_| self.clock.lately()),
            entries: self.len(),
            weightless: room.bound.has_weightless(),
            freed: Cell::new(0),
        }
    }

    /// Takes out one entry that the policy names. Returns the weight freed; zero when the policy
    /// found none within its bound.
    fn evict(&self, room: &Room<K, V>, own: *const Node<K, V>, pin: &Pin) -> u64 {
        if self.ttl.is_some() {
            let freed = self.evict_expired(room, pin);
            if freed > 0 {
                return freed;
            }
        }
        let clock = self.face(room, own, pin);
        self.evict_demoted(room, &clock);
        if clock.freed.get() == 0 {
            self.renewed(room, clock.positions(), pin).evict(&clock);
        }
        let freed = clock.freed.get();
        if freed > 0 || clock.entries.saturating_mul(SPARSE) >= clock.positions() {
            return freed;
        }
        self.table.shrink(pin, self, &self.domain);
        let clock = self.face(room, own, pin);
        self.renewed(room, clock.positions(), pin).evict(&clock);
        clock.freed.get()
    }

    /// Returns the policy; replaces it first if it was made for a very different number of entries.
    fn renewed<'p>(&self, room: &Room<K, V>, positions: usize, pin: &'p Pin) -> &'p Policy {
        let policy = room.policy(pin);
        let likely = room.bound.likely_entries(positions);
        if (likely / 2..=likely * 2).contains(&policy.made_for()) {
            return policy;
        }
        let old = std::ptr::from_ref(policy).cast_mut();
        let new = Box::into_raw(Box::new(Policy::new(likely)));
        // Release: pairs with the Acquire of `Room::policy`.
        let swapped = room
            .policy
            .compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire);
        // SAFETY: both are from `Box::into_raw`. Of all threads that try, one swaps the old policy
        // out and retires it. A new one that was not swapped in was never shared.
        unsafe {
            if swapped.is_ok() {
                self.domain.retire(Garbage::boxed(old));
            } else {
                drop(Box::from_raw(new));
            }
        }
        room.policy(pin)
    }

    /// Takes out an entry that was demoted and has not been used since, if there is one.
    fn evict_demoted(&self, room: &Room<K, V>, clock: &Clock<'_, K, V, S>) {
        // Asked first: most caches never have one, and a pop is a fence.
        while !room.demoted.is_empty() {
            let Some(hash) = room.demoted.pop() else {
                return;
            };
            let pin = clock.pin;
            let is_demoted = |spot: &Spot<'_, Node<K, V>>| Mark(spot.mark()).is_demoted();
            let spot = self.table.find_spot(hash, pin, is_demoted);
            if spot.is_some_and(|spot| clock.take(&spot)) {
                return;
            }
        }
    }

    /// Takes out all entries that have expired.
    pub(crate) fn purge(&self) {
        self.purge_while(|| true);
    }

    /// Does what [`purge`](Self::purge) does, while `go_on` returns true.
    pub(crate) fn purge_while(&self, go_on: impl Fn() -> bool) {
        if self.ttl.is_none() {
            return;
        }
        // No entry can have expired before the next deadline, of all that were there at the last
        // walk or were inserted since. (An inserter may have read the clock before that walk, and
        // stopped. Its entry goes a little late.)
        let began = self.clock.now();
        if began < self.next_deadline.load(Ordering::Relaxed) {
            return;
        }
        let mut next = match self.deadline() {
            Deadline::At(at) => at,
            Deadline::Never => u64::MAX,
            Deadline::Past => 0,
        };
        let mut from = Some(0);
        while let Some(hash) = from {
            if !go_on() {
                return;
            }
            let pin = pin();
            let now = self.clock.now();
            let mut spots = Vec::new();
            from = self.table.scan(hash, &pin, self, &self.domain, &mut spots);
            for spot in spots {
                let slot = &spot.object().slot;
                match slot.deadline() {
                    Some(deadline) if deadline > now => next = next.min(deadline),
                    // Taken out, or not live yet, and its deadline is not known.
                    deadline => {
                        self.take_expired(&spot, now, &pin);
                        if deadline.is_none() || slot.state().is_linked() {
                            next = 0;
                        }
                    }
                }
            }
            drop(pin);
            self.tidy();
        }
        self.next_deadline.store(next, Ordering::Relaxed);
    }

    /// Sets the capacity, and evicts the excess, except entries that are being filled. Returns
    /// `false` if this cache has no capacity.
    pub(crate) fn set_capacity(&self, capacity: u64) -> bool {
        let Some(room) = &self.room else {
            return false;
        };
        let owed = room.bound.set_capacity(capacity);
        self.bound_garbage();
        let (mut paid, mut in_vain) = (self.shed(room, owed), 0);
        while paid < owed && room.bound.excess() > 0 && in_vain < IN_VAIN {
            let freed = self.evict(room, std::ptr::null(), &pin());
            paid += freed;
            in_vain = if freed == 0 { in_vain + 1 } else { 0 };
            self.tidy();
        }
        if paid < owed && room.bound.excess() > 0 {
            self.evict_all(room);
        }
        self.tidy_all();
        true
    }

    /// Evicts for a smaller capacity: first expired entries, then by heat, the coldest first.
    /// Returns the weight freed.
    ///
    /// It looks at all entries three times: to weigh each rank, to take out the ranks that go as a
    /// whole, and to take as much as needed of the next one. An entry that is used meanwhile may go
    /// with the rank it had.
    fn shed(&self, room: &Room<K, V>, owed: u64) -> u64 {
        if owed == 0 {
            return 0;
        }
        let now = self.ttl.map(|_| self.clock.now());
        let rank = |spot: &Spot<'_, Node<K, V>>, node: &Node<K, V>| {
            if now.is_some_and(|now| node.slot.is_expired(now)) {
                0
            } else {
                1 + usize::from(Mark(spot.mark()).heat())
            }
        };
        let mut weights = [0; 2 + Mark::HOTTEST as usize];
        self.each_entry(|spot, node, _| {
            weights[rank(spot, node)] += node.slot.state().weight_of_value();
        });
        let mut sum = 0_u64;
        let last = weights.iter().position(|weight| {
            sum = sum.saturating_add(*weight);
            sum >= owed
        });
        let last = last.unwrap_or(weights.len());
        let mut paid = 0;
        for ranks in [0..last, last..last + 1] {
            self.each_entry(|spot, node, pin| {
                let due = paid < owed && room.bound.excess() > 0;
                if due && ranks.contains(&rank(spot, node)) {
                    let freed = self.take(spot, std::ptr::null(), now, pin);
                    if freed > 0 {
                        self.remember(spot.mark(), || self.rehash(node), pin);
                    }
                    paid += freed;
                }
            });
        }
        paid
    }

    /// Shows every live entry once, unless it is being refreshed, and collects garbage in between.
    fn each_entry(&self, mut show: impl FnMut(&Spot<'_, Node<K, V>>, &Node<K, V>, &Pin)) {
        self.each_node(
            |spot, pin| {
                let state = spot.object().slot.state();
                if state.is_live() && state.successor().is_none() {
                    show(&spot, spot.object(), pin);
                }
            },
            || self.tidy(),
        );
    }

    /// Takes an entry out, if it may leave and its word has not changed. Returns the weight freed.
    #[inline(always)]
    fn take(
        &self,
        spot: &Spot<'_, Node<K, V>>,
        own: *const Node<K, V>,
        now: Option<u64>,
        pin: &Pin,
    ) -> u64 {
        let node = spot.object();
        let Some(state) = may_go(node, own) else {
            return 0;
        };
        come_by("take");
        let expired = now.is_some_and(|now| node.slot.is_expired(now));
        let event = if expired {
            Event::Expired
        } else {
            Event::Evicted
        };
        let weight = state.weight();
        if self
            .remove_seen(node, state, weight, event, false)
            .is_none()
        {
            return 0;
        }
        self.take_out(spot, None, pin);
        weight
    }

    /// Sets the weight that garbage may have: a share of the capacity. Without a weigher, the
    /// number of retired objects counts.
    pub(super) fn bound_garbage(&self) {
        while let (true, Some(capacity)) = (self.has_weigher(), self.capacity()) {
            self.domain.set_most_weight(capacity / GARBAGE as u64);
            // The thread that sets it last must set it from the last capacity: check again.
            store_load();
            if self.capacity() == Some(capacity) {
                return;
            }
        }
    }

    /// Takes out all entries that have a weight, until there is no excess. The policy looks at no
    /// weights, and may not find such entries among many of weight zero.
    ///
    /// It misses an entry that is not in the table when its position is looked at, or is being
    /// filled. The thread that puts that entry in, or back, is left the debt.
    fn evict_all(&self, room: &Room<K, V>) {
        loop {
            let pin = pin();
            let clock = Clock {
                dial: self.table.dial_of_all(&pin, self, &self.domain),
                ..self.face(room, std::ptr::null(), &pin)
            };
            room.bound.leave();
            for at in 0..clock.positions() {
                if room.bound.excess() == 0 {
                    return;
                }
                let spot = || clock.dial.spot(at).filter(|spot| clock.may_go(spot));
                // Again, if another thread has just changed its word, by a hit.
                while room.bound.excess() > 0 && spot().is_some_and(|spot| !clock.take(&spot)) {}
            }
            if clock.dial.shows_all() {
                return;
            }
        }
    }
}

impl<K, V, S> Core<K, V, S> {
    /// Charges a weight before its entry can be seen. Returns the weight owed for it.
    pub(super) fn charge(&self, weight: u64) -> u64 {
        self.room
            .as_ref()
            .map_or(0, |room| room.bound.charge(weight))
    }

    pub(super) fn discharge(&self, weight: u64) {
        if let Some(room) = &self.room {
            room.bound.discharge(weight);
        }
    }

    /// Returns whether weighing a value runs user code.
    pub(super) fn has_weigher(&self) -> bool {
        self.room
            .as_ref()
            .is_some_and(|room| !room.bound.counts_entries())
    }

    /// Returns whether there is a capacity, and it counts entries.
    pub(crate) fn counts_entries(&self) -> bool {
        self.room
            .as_ref()
            .is_some_and(|room| room.bound.counts_entries())
    }

    /// Returns the capacity, if there is one.
    pub(crate) fn capacity(&self) -> Option<u64> {
        self.room.as_ref().map(|room| room.bound.capacity())
    }

    /// Returns the total weight; in a cache without a capacity, the number of entries.
    pub(crate) fn weighted_size(&self) -> u64 {
        match &self.room {
            Some(room) => room.bound.total(),
            None => self.len() as u64,
        }
    }
}

#[cfg(all(test, not(atomic_cache_loom)))]
mod tests {
    use crate::Cache;
    use crate::reclaim::pin;

    fn pays_after(what: impl FnOnce(&Cache<u64, u64>)) {
        let cache: Cache<u64, u64> = Cache::new(4);
        for key in 0..4 {
            cache.insert(key, key);
        }
        what(&cache);
        cache.set_max_capacity(1).unwrap();
        assert_eq!((cache.len(), cache.iter().count()), (1, 1));
    }

    /// Clause 9: also while the thread that moves the words of a table has stopped, and a hand sees
    /// no word that it may take.
    #[test]
    fn c09_what_is_owed_is_paid_while_a_growth_stands_still() {
        pays_after(|cache| cache.core.table.stall(&pin()));
    }

    /// Clause 9: also if that thread stopped right before the end.
    #[test]
    fn c09_what_is_owed_is_paid_although_words_are_fresh() {
        pays_after(|cache| cache.core.table.leave_fresh(&pin()));
    }
}
