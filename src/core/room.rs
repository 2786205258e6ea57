//! Making room: what the policy names is taken out.

use super::expiring::Expiring;
use super::{Core, GARBAGE, Node};
use crate::bound::{Bound, Weight};
use crate::interlude::come_by;
use crate::policy::{Census, Mark, Policy, Ring, one_by_one};
use crate::reclaim::{Garbage, Pin, deref, pin};
use crate::stats::Event;
use crate::sync::{AtomicPtr, Ordering, PATIENCE, relax, store_load};
use crate::table::{Dial, Rehash, Spot};
use crate::time::Deadline;
use crossbeam_queue::SegQueue;
use std::cell::Cell;
use std::hash::{BuildHasher, Hash};
use std::ops::Range;

/// What a cache with a capacity has besides.
pub(super) struct Room<K, V> {
    bound: Bound<K, V>,
    /// Made anew when it was made for another number of entries.
    policy: AtomicPtr<Policy>,
    /// What expires next, of a cache whose entries expire.
    pub(super) expiring: Expiring,
    /// The hashes of keys that were demoted by their user.
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

    /// The total as a number of entries.
    pub(super) fn total_entries(&self) -> usize {
        usize::try_from(self.bound.total()).unwrap_or(usize::MAX)
    }

    fn policy<'p>(&self, _pin: &'p Pin) -> &'p Policy {
        // Acquire: pairs with the Release of `renewed`.
        // SAFETY: a policy that has been replaced is retired, so it outlives every pin that could
        // load it.
        unsafe { &*self.policy.load(Ordering::Acquire) }
    }
}

impl<K, V> Drop for Room<K, V> {
    fn drop(&mut self) {
        // SAFETY: from `Box::into_raw`; we are alone, and what was replaced has been retired.
        drop(unsafe { Box::from_raw(self.policy.load(Ordering::Acquire)) });
    }
}

/// What was charged for an entry that is not in the table yet: discharged if it does not get there.
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

    /// Whoever takes the entry out discharges it; what is owed.
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

/// How many turns are given to those who are between an unlink and a discharge.
const A_MOMENT: u32 = if cfg!(atomic_cache_loom) { 1 } else { 32 };

/// A table with so many words to an entry is sparse: a hand that found nothing in it is helped by a
/// smaller one. Of those made for their capacity, none is.
pub(super) const SPARSE: usize = 16;

/// How often a live change of the capacity looks for victims in vain before it leaves the rest to
/// those who are filling them: each look lowers the counts of what it comes by.
const IN_VAIN: usize = if cfg!(atomic_cache_loom) { 2 } else { 64 };

/// The table as the policy sees it, on behalf of an entry that needs room.
struct Clock<'a, K: Hash + Eq, V, S: BuildHasher> {
    core: &'a Core<K, V, S>,
    dial: Dial<'a>,
    pin: &'a Pin,
    /// Not to be taken for its own sake.
    own: *const Node<K, V>,
    /// The time, of a cache whose entries expire.
    now: Option<u64>,
    /// How many entries there were when it began.
    entries: usize,
    /// Whether some entries may weigh nothing.
    weightless: bool,
    /// What has been freed.
    freed: Cell<u64>,
}

impl<'a, K: Hash + Eq, V, S: BuildHasher> Clock<'a, K, V, S> {
    fn node(&self, spot: &Spot<'a>) -> &'a Node<K, V> {
        // SAFETY: linked at the load of its word, under this pin.
        unsafe { deref(spot.object::<Node<K, V>>(), self.pin) }
    }

    /// Whether an entry may be taken out by now: a slot that fills is none, and what weighs nothing makes no room.
    fn may_go(&self, spot: &Spot<'a>) -> bool {
        may_go(self.node(spot), self.own)
    }

    /// Takes an entry out, if it may go and its word is what it was.
    fn take(&self, spot: &Spot<'a>) -> bool {
        let freed = self.core.take(spot, self.own, self.now, self.pin);
        self.freed.set(self.freed.get() + freed);
        freed > 0
    }
}

fn may_go<K, V>(node: &Node<K, V>, own: *const Node<K, V>) -> bool {
    let state = node.slot.state_now();
    state.is_live() && state.weight() > 0 && !std::ptr::eq(node, own)
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
        // What weighs nothing makes no room: to the hands it is not there, or it would be the weakest
        // of every few again and again, and nothing would ever leave.
        if self.weightless {
            let state = self.node(&spot).slot.state();
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
        let hash = self.core.rehash(self.node(&spot)).unwrap_or(0);
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
    /// What a value weighs. Foreign code: the weigher.
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

    /// A key is about to be put in: what the policy knows of it is asked for from memory.
    #[inline]
    pub(super) fn expect(&self, hash: u64, pin: &Pin) {
        if let Some(room) = &self.room {
            room.policy(pin).expect(hash);
        }
    }

    /// The mark of a key that is put in.
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

    /// Keeps the count of what is no longer at a word with this mark, for when it comes again. Not of what the policy
    /// has named: it has noted that.
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
    pub(super) fn touch(&self, spot: &Spot<'_>) {
        if let Some(touched) = Mark(spot.mark()).touched() {
            if self.room.is_some() {
                spot.touch(touched.0);
            }
        }
    }

    /// Takes out what is owed for the entry of `own`, or was left to it, or that entry itself. It has been put
    /// in its place, or back.
    pub(super) fn make_room(&self, owed: u64, hash: u64, own: &Node<K, V>, pin: &Pin) {
        let Some(room) = &self.room else {
            return;
        };
        if self.ttl.is_some() {
            if let Some(deadline) = own.slot.deadline() {
                room.expiring.comes(deadline, pin);
            }
        }
        let state = own.slot.state();
        let owed = if state.is_live() {
            owed.max(room.bound.left_to(state.weight()))
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
            // What weighs too much may have been taken out by others, who are about to say so.
            if (0..A_MOMENT).any(|turn| {
                relax(turn);
                room.bound.excess() == 0
            }) {
                return;
            }
            if self.unlink_node(hash, own, Event::Evicted, pin) {
                return self.stats.count(Event::GaveUp);
            }
            // Somebody has taken it for a debt of theirs; ours is still to be paid, and what there is
            // may be out of the reach of a bounded walk. What is left after a look at everything is
            // being filled.
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

    /// Takes out one entry that the policy names: the weight that this has freed; zero when it
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

    /// The policy, made anew if it was made for a very different number of entries.
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
        // SAFETY: both are from `Box::into_raw`. Of all who try, one swaps the old one out, and
        // retires it; a new one that was not put in has been seen by nobody.
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
        // Asked first: most caches never have one, and to pop is a fence.
        while !room.demoted.is_empty() {
            let Some(hash) = room.demoted.pop() else {
                return;
            };
            let pin = clock.pin;
            let is_demoted = |spot: &Spot<'_>| Mark(spot.mark()).is_demoted();
            let spot = self.table.find_spot(hash, pin, is_demoted);
            if spot.is_some_and(|spot| clock.take(&spot)) {
                return;
            }
        }
    }

    /// Takes out whatever has expired.
    pub(crate) fn purge(&self) {
        self.purge_while(|| true);
    }

    /// As [`purge`](Self::purge), for as long as it is to go on.
    pub(crate) fn purge_while(&self, go_on: impl Fn() -> bool) {
        if self.ttl.is_none() {
            return;
        }
        // Nothing can have expired before the next deadline: of what was there at the last walk, or was put in since.
        // (One who puts it in may have looked at the clock before that walk, and stopped: that goes a little late.)
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
                // SAFETY: linked at the load of its word, under this pin.
                let slot = &unsafe { deref(spot.object::<Node<K, V>>(), &pin) }.slot;
                match slot.deadline() {
                    Some(deadline) if deadline > now => next = next.min(deadline),
                    // Taken out; or it is not live, and may put back an older value, whose deadline is not known.
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

    /// Sets the capacity, and takes out what lies above it, but for what is being filled. `false`:
    /// this cache has none.
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

    /// Takes out what a smaller capacity has no room for: first what has expired, then by heat, the coldest first. What
    /// this has freed.
    ///
    /// It looks at all entries three times: to weigh each rank, to take out the ranks that go whole, and to take out as
    /// much as is needed of the next. What is used beside it may go with the rank it had.
    fn shed(&self, room: &Room<K, V>, owed: u64) -> u64 {
        if owed == 0 {
            return 0;
        }
        let now = self.ttl.map(|_| self.clock.now());
        let rank = |spot: &Spot<'_>, node: &Node<K, V>| {
            if now.is_some_and(|now| node.slot.is_expired(now)) {
                0
            } else {
                1 + usize::from(Mark(spot.mark()).heat())
            }
        };
        let mut weights = [0; 2 + Mark::HOTTEST as usize];
        self.each_entry(|spot, node, _| weights[rank(spot, node)] += node.slot.state().weight());
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

    /// Shows every live entry once, and tidies up in between.
    fn each_entry(&self, mut show: impl FnMut(&Spot<'_>, &Node<K, V>, &Pin)) {
        self.each_node(
            |spot, node, pin| {
                if node.slot.state().is_live() {
                    show(spot, node, pin);
                }
            },
            || self.tidy(),
        );
    }

    /// Takes an entry out, if it may go and its word is what it was: the weight that this has freed.
    #[inline(always)]
    fn take(&self, spot: &Spot<'_>, own: *const Node<K, V>, now: Option<u64>, pin: &Pin) -> u64 {
        // SAFETY: linked at the load of its word, under this pin.
        let node = unsafe { deref(spot.object::<Node<K, V>>(), pin) };
        if !may_go(node, own) {
            return 0;
        }
        come_by("take");
        let state = node.slot.state();
        let expired = now.is_some_and(|now| node.slot.is_expired(now));
        // Live it stays for as long as it stands here: a slot never goes back.
        if !self.table.unlink(spot) {
            return 0;
        }
        let event = if expired {
            Event::Expired
        } else {
            Event::Evicted
        };
        self.released(node, event);
        state.weight()
    }

    /// Sets what garbage may weigh: a share of what the entries may. Where each weighs one, their number is what
    /// counts.
    pub(super) fn bound_garbage(&self) {
        while let (true, Some(capacity)) = (self.has_weigher(), self.capacity()) {
            self.domain.set_most_weight(capacity / GARBAGE as u64);
            // Whoever says it last says it of the last capacity.
            store_load();
            if self.capacity() == Some(capacity) {
                return;
            }
        }
    }

    /// Takes out whatever weighs anything, until there is no excess: what a policy that looks at no
    /// weights has not come by, among many entries that weigh nothing.
    ///
    /// What it does not come by is not in the table when its position is looked at, or is being filled. Those who
    /// put it in, or back, are left the debt.
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
                // Again, if somebody has changed its word just now, by a hit.
                while room.bound.excess() > 0 && spot().is_some_and(|spot| !clock.take(&spot)) {}
            }
            if clock.dial.shows_all() {
                return;
            }
        }
    }
}

impl<K, V, S> Core<K, V, S> {
    /// Takes a weight in before its entry can be seen: what is owed for it.
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

    /// Whether weighing a value runs foreign code.
    pub(super) fn has_weigher(&self) -> bool {
        self.room
            .as_ref()
            .is_some_and(|room| !room.bound.counts_entries())
    }

    /// Whether there is a capacity, and it is one in entries.
    pub(crate) fn counts_entries(&self) -> bool {
        self.room
            .as_ref()
            .is_some_and(|room| room.bound.counts_entries())
    }

    /// The capacity, if there is one.
    pub(crate) fn capacity(&self) -> Option<u64> {
        self.room.as_ref().map(|room| room.bound.capacity())
    }

    /// The total weight; of a cache without a capacity, the number of entries.
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

    /// Clause 9: also while who moves the words of a table has stopped, and a hand sees none that it may take.
    #[test]
    fn c09_what_is_owed_is_paid_while_a_growth_stands_still() {
        pays_after(|cache| cache.core.table.stall(&pin()));
    }

    /// Clause 9: also if who moved them stopped right before the end.
    #[test]
    fn c09_what_is_owed_is_paid_although_words_are_fresh() {
        pays_after(|cache| cache.core.table.leave_fresh(&pin()));
    }
}
