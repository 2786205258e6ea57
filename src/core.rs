//! The cache itself: joins table, slots, flights, time and stats.
//!
//! Everything here is one non-blocking step: look, judge, act. The fronts (`cache.rs`,
//! `pinned.rs`) are short loops around [`Core::turn`] that differ in how they wait.
//!
//! Every step holds one pin, and no pin is held while foreign code runs other than the key's
//! `Hash` and `Eq`, the value's `Clone`, and predicates.

mod claim;
mod expiring;
mod heat;
mod in_flight;
mod lead;
mod polled;
mod release;
mod remove;
mod room;
#[cfg(all(test, not(atomic_cache_loom)))]
mod schedules;
mod wait;

use crate::bound::{Bound, MAX_WEIGHT, Weight};
use crate::error::OversizeError;

use crate::cycle::leads_any;
use crate::flight::{Flight, Job, Outcome, WaitFor};
use crate::foreign::{answer_of, contain};
use crate::interlude::come_by;
use crate::janitor::Janitor;
use crate::listener::{Bulletin, Listener, is_listening};
use crate::reclaim::{Domain, Garbage, Home, Pin, Reaped, deref, is_pinned, is_reaping, pin};
use crate::slab::Slab;
use crate::slot::{Slot, State};
use crate::stats::{CacheStats, Event, Stats, Striped};
use crate::sync::{AtomicU64, AtomicUsize, Ordering, relax};
pub(crate) use crate::table::Glance;
use crate::table::{Claim, Rehash, Spot, Table};
use crate::time::{Clock, Deadline};
use crossbeam_utils::CachePadded;
use equivalent::Equivalent;
use std::hash::{BuildHasher, Hash};
use std::mem::needs_drop;
use std::sync::OnceLock;
use std::time::Duration;

use claim::{Claimed, Ready};
pub(crate) use claim::{Held, Spare, Wanted};
use in_flight::Closed;
pub(crate) use in_flight::Watch;
pub(crate) use lead::{Blank, Found, Leader};
pub(crate) use polled::{BoxFill, TaskLead};
pub(crate) use release::Afterwards;
pub(crate) use remove::Detached;
use room::{Charge, Room};
pub(crate) use wait::{Awaited, Part, Wait, Waited};

/// A key and its slot: the objects that the table's words point to.
pub(crate) struct Node<K, V> {
    pub(crate) key: K,
    pub(crate) slot: Slot<V>,
}

impl<K, V> Node<K, V> {
    /// Drops a node and gives its cell back. A value and a key that both panic must not meet: a panic
    /// while one unwinds would end the program.
    ///
    /// # Safety
    /// `node` is from the slab at `home`, which is a `Slab<Node<K, V>>`, and no thread uses it any more.
    unsafe fn reap(node: *mut (), home: Home) -> Reaped {
        let node = node.cast::<Self>();
        // SAFETY: ours alone; each field is dropped once, and then only the cell is left.
        unsafe {
            let weight = (*node).slot.state().weight_of_value();
            let value =
                needs_drop::<V>() && contain(|| std::ptr::drop_in_place(&raw mut (*node).slot));
            let key =
                needs_drop::<K>() && contain(|| std::ptr::drop_in_place(&raw mut (*node).key));
            (*home.cast::<Slab<Self>>()).give_back(node);
            Reaped {
                panicked: value || key,
                large: false,
                weight,
            }
        }
    }
}

/// How a key is put into words for a [`CycleError`](crate::CycleError).
pub(crate) type Describe<K> = fn(&K) -> String;

/// Goes on with a stored fill that has no waiters any more: user code.
pub(crate) type Spawner = Box<dyn Fn(Job) + Send + Sync>;

/// The settings of a builder.
pub(crate) struct Config<K, V, S> {
    pub(crate) hasher: S,
    pub(crate) ttl: Option<Duration>,
    pub(crate) clock: Clock,
    pub(crate) initial_capacity: usize,
    pub(crate) bound: Option<Bound<K, V>>,
    pub(crate) listener: Option<Listener<K, V>>,
    pub(crate) spawner: Option<Spawner>,
    pub(crate) watch: Watch<K>,
    pub(crate) record_stats: bool,
    pub(crate) name: Option<Box<str>>,
    pub(crate) describe: Option<Describe<K>>,
}

/// One cache, shared by its handles.
pub(crate) struct Core<K, V, S> {
    table: Table<Node<K, V>>,
    hasher: S,
    /// See [`is_plain`](Core::is_plain).
    plain: bool,
    ttl: Option<Duration>,
    clock: Clock,
    name: Option<Box<str>>,
    describe: Option<Describe<K>>,
    /// Capacity and policy, if the cache is bounded.
    room: Option<Room<K, V>>,
    /// Entries: live and linked.
    len: Striped,
    stats: Stats,
    /// No entry expires before, by a walk over all of them.
    next_deadline: AtomicU64,
    /// Where the search for expired entries goes on.
    hand: CachePadded<AtomicUsize>,
    bulletin: Option<Bulletin<K, V, Node<K, V>>>,
    janitor: OnceLock<Janitor>,
    spawner: Option<Spawner>,
    watch: Watch<K>,
    closed: Closed,
    /// The garbage in it is dropped after everything else here ...
    domain: Domain,
    /// ... and goes back here. Boxed, because the domain knows its address.
    slab: Box<Slab<Node<K, V>>>,
}

/// How many words an insert looks at for expired entries. With four, a quarter as many inserts as
/// the table has words make one round. So an entry goes at the latest that many inserts after it
/// has expired (not counting those during a growth, which looks at nothing and moves expired
/// entries along), and under steady traffic the expired entries that still take room are at most a
/// quarter of the table's words. It is no bound without traffic: entries that expire all at once stay
/// until inserts come.
const SWEEP: usize = 4;

/// Garbage is dropped when there is a share of the capacity of it: one in so many.
const GARBAGE: usize = 32;

/// The wish of a caller of [`Core::turn`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    /// A value: the live one, the one being computed, or a lead.
    Value,
    /// A newer value than the live one: the one being computed, or a lead.
    Refresh,
    /// The lead, whatever there is.
    Lead,
}

/// The outcome of one step.
pub(crate) enum Turn<'c, K: Hash + Eq, V, S: BuildHasher> {
    Ready(Found<'c, K, V>),
    /// For [`Aim::Lead`] with the live value that the flight is to replace.
    Lead(Leader<'c, K, V, S>, Option<Found<'c, K, V>>),
    Wait(Part<'c, K, V, S>),
}

// SAFETY: a core hands out `&K` and `&V` on every thread that has a handle (`Sync`), and drops
// keys and values on whichever thread reaps them (`Send`). All that is shared inside is atomic
// or guarded: see table.rs, slot.rs and reclaim.rs.
unsafe impl<K: Send + Sync, V: Send + Sync, S: Send + Sync> Send for Core<K, V, S> {}
// SAFETY: as above.
unsafe impl<K: Send + Sync, V: Send + Sync, S: Send + Sync> Sync for Core<K, V, S> {}

impl<K: Hash + Eq, V, S: BuildHasher> Core<K, V, S> {
    pub(crate) fn new(config: Config<K, V, S>) -> Self {
        let bounded = config.bound.as_ref().is_some_and(Bound::counts_entries);
        let table = Table::new(config.initial_capacity, bounded);
        let positions = table.positions(&pin());
        let slab = Box::new(Slab::new());
        let home: Home = std::ptr::from_ref(&*slab).cast();
        let batch = config.bound.as_ref().and_then(Bound::entries);
        let core = Self {
            table,
            room: config.bound.map(|bound| Room::new(bound, positions)),
            hasher: config.hasher,
            // In a model every hit goes the long way. Its first half is the short one.
            plain: !cfg!(atomic_cache_loom) && !config.record_stats,
            ttl: config.ttl,
            clock: config.clock,
            name: config.name,
            describe: config.describe,
            len: Striped::new(),
            stats: Stats::new(config.record_stats),
            next_deadline: AtomicU64::new(0),
            hand: CachePadded::new(AtomicUsize::new(0)),
            bulletin: config.listener.map(Bulletin::new),
            janitor: OnceLock::new(),
            spawner: config.spawner,
            watch: config.watch,
            closed: Closed::new(),
            domain: Domain::new(home, batch.map(|entries| entries / GARBAGE)),
            slab,
        };
        core.bound_garbage();
        core
    }

    /// The hash of a key, whatever it is looked up by. The user's hasher may be a weak one, and
    /// the table wants all 64 bits: a multiplication spreads every bit over both halves.
    #[inline(always)]
    pub(crate) fn hash<Q: ?Sized + Hash>(&self, key: &Q) -> u64 {
        // The multiplier is 2^64 divided by the golden ratio, made odd (Knuth, volume 3, 6.4).
        let product = u128::from(self.hasher.hash_one(key)) * 0x9E37_79B9_7F4A_7C15;
        (product >> 64) as u64 ^ product as u64
    }

    /// The entry of a key, if it is there and fresh. Not a use of it.
    #[inline]
    pub(crate) fn look<'p, Q>(&'p self, hash: u64, key: &Q, pin: &'p Pin) -> Option<&'p V>
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        self.look_and(hash, key, pin, |_| {})
    }

    /// As [`look`](Self::look), for the verbs that use the entry.
    #[inline(always)]
    pub(crate) fn look_up<'p, Q>(&'p self, hash: u64, key: &Q, pin: &'p Pin) -> Option<&'p V>
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        let value = self.look_and(hash, key, pin, |spot| self.touch(spot));
        self.stats.look_up(value.is_some());
        value
    }

    /// The short way of a hit, in a [plain](Self::is_plain) cache: a live entry near its home. Calls nothing but the
    /// key's `Eq`, of an entry with a deadline the clock, and, in a bounded cache, the policy's count.
    #[inline(always)]
    pub(crate) fn hit<'p, Q>(&'p self, hash: u64, key: &Q, pin: &'p Pin) -> Glance<&'p V>
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        let glance = self
            .table
            .glance(hash, pin, |node| key.equivalent(&node.key));
        let spot = match glance {
            Glance::Found(spot) => spot,
            Glance::Absent => return Glance::Absent,
            Glance::Unclear => return Glance::Unclear,
        };
        let node = spot.object();
        let Some(value) = self.serves(node) else {
            return Glance::Unclear;
        };
        self.touch(&spot);
        Glance::Found(value)
    }

    /// Whether a hit is nothing but a look: this cache counts no look-ups.
    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        self.plain
    }

    /// One walk over the key's probe, and a live, fresh entry where it ends. Tells `used` where that stands.
    /// All else is [`look_again`](Self::look_again).
    #[inline(always)]
    fn look_and<'p, Q>(
        &'p self,
        hash: u64,
        key: &Q,
        pin: &'p Pin,
        used: impl FnOnce(&Spot<'p, Node<K, V>>),
    ) -> Option<&'p V>
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        let spot = self
            .table
            .find(hash, pin, |node| key.equivalent(&node.key))?;
        let node = spot.object();
        let Some(value) = self.serves(node) else {
            return self.look_again(hash, key, pin);
        };
        used(&spot);
        Some(value)
    }

    /// The slow path of [`look`](Self::look): the node in the table has no live value. Not a use.
    ///
    /// A node that is seen once may have been replaced just now. One that is seen twice was in the table without a value.
    #[cold]
    #[inline(never)]
    fn look_again<'p, Q>(&'p self, hash: u64, key: &Q, pin: &'p Pin) -> Option<&'p V>
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        let mut last = std::ptr::null();
        loop {
            let spot = self
                .table
                .find(hash, pin, |node| key.equivalent(&node.key))?;
            let node = spot.object();
            if let Some(value) = self.serves(node) {
                return Some(value);
            }
            if node.slot.state().is_filling() || std::ptr::eq(node, last) {
                return None;
            }
            last = node;
        }
    }

    /// The value of a node, if newcomers may have it and its TTL is not over.
    #[inline(always)]
    fn serves<'p>(&self, node: &'p Node<K, V>) -> Option<&'p V> {
        node.slot.live().filter(|_| self.is_unexpired(node))
    }

    /// The state of a node, and the successor that is filled to replace its value.
    fn state_of<'p>(&self, node: &'p Node<K, V>, pin: &'p Pin) -> (State, Option<&'p Node<K, V>>) {
        let state = node.slot.state();
        let successor = state.successor().map(|address| {
            // SAFETY: the leader takes a successor off before it gives up its hold, so the successor was held at the
            // load, which was made under this pin.
            unsafe { deref(address as *const Node<K, V>, pin) }
        });
        (state, successor)
    }

    /// The weight of a node's value.
    fn weight_of(&self, node: &Node<K, V>, pin: &Pin) -> u64 {
        let (state, successor) = self.state_of(node, pin);
        successor.map_or(state.weight_of_value(), |successor| {
            let newer = || successor.slot.state().weight_of_value();
            successor.slot.parked().unwrap_or_else(newer)
        })
    }

    #[inline(always)]
    fn is_unexpired(&self, node: &Node<K, V>) -> bool {
        node.slot
            .is_unexpired(|deadline| self.clock.is_before(deadline))
    }

    fn deadline(&self) -> Deadline {
        self.clock.deadline(self.ttl)
    }

    /// Takes one step towards `aim`: the live value, a lead, or a share in a running flight.
    #[cold]
    pub(crate) fn turn<'c>(
        &'c self,
        pin: Pin,
        hash: u64,
        wanted: &mut dyn Wanted<K>,
        aim: Aim,
        spare: &mut Spare<'c, K, V, S>,
    ) -> Turn<'c, K, V, S> {
        self.expect(hash, &pin);
        spare.computes = aim == Aim::Lead;
        for turn in 0.. {
            let mut key = Claimed {
                hash,
                mark: None,
                wanted,
                spare,
                pin: &pin,
            };
            let spot = match self.table.claim(hash, &mut key, &pin, self, &self.domain) {
                Claim::Placed(node) => {
                    spare.used();
                    let leader = Leader::new(self, node, std::ptr::null(), hash, spare.actor);
                    self.sweep(&pin);
                    return Turn::Lead(leader, None);
                }
                Claim::Found(spot) => spot,
            };
            let there = spot.object();
            match self.judge(there, aim, &pin) {
                Judged::Serve => {
                    let there = std::ptr::from_ref(there);
                    // SAFETY: judged live, linked at the load under this pin.
                    return Turn::Ready(unsafe { Found::new(pin, there) });
                }
                Judged::Join(filling, waits_for) => {
                    let current = (!std::ptr::eq(filling, there)).then_some(there);
                    if let Some(part) = self.join(filling, current, waits_for) {
                        self.stats.count(Event::Joined);
                        return Turn::Wait(part);
                    }
                }
                Judged::Refresh(state) => {
                    let node = spare.filling(wanted, Some(state.weight()));
                    if there.slot.begin_refresh(state, node.expose_provenance()) {
                        spare.used();
                        let leader = Leader::new(self, node, there, hash, spare.actor);
                        self.note_beginning(&leader);
                        self.sweep(&pin);
                        let there = std::ptr::from_ref(there);
                        let seen = (aim == Aim::Lead).then(|| {
                            // SAFETY: judged live, linked at the load under this pin.
                            unsafe { Found::new(pin, there) }
                        });
                        return Turn::Lead(leader, seen);
                    }
                }
                Judged::Replace(state) => {
                    // First: to make the key is user code, and may panic.
                    let node = spare.filling(wanted, None);
                    let gone = !state.is_live() || self.remove_live(there, None, Event::Expired);
                    if gone && self.table.replace(&spot, node) {
                        spare.used();
                        let leader = Leader::new(self, node, std::ptr::null(), hash, spare.actor);
                        self.unlinked(there);
                        self.sweep(&pin);
                        return Turn::Lead(leader, None);
                    }
                }
                // A leader is between two steps.
                Judged::Again => relax(turn),
            }
        }
        unreachable!("the turns do not end before one returns")
    }

    /// Judges the node of a key, for a caller that has an aim.
    fn judge<'p>(&self, node: &'p Node<K, V>, aim: Aim, pin: &'p Pin) -> Judged<'p, K, V> {
        let (state, successor) = self.state_of(node, pin);
        come_by("judge");
        if state.is_filling() {
            return self.judge_fill(node, state, aim);
        }
        let unexpired = state.is_live() && self.is_unexpired(node);
        if unexpired && aim == Aim::Value {
            return Judged::Serve;
        }
        let Some(successor) = successor else {
            return if unexpired {
                Judged::Refresh(state)
            } else {
                Judged::Replace(state)
            };
        };
        let fill = successor.slot.state();
        if fill.is_filling() {
            return self.judge_fill(successor, fill, aim);
        }
        // Its leader is about to put it in the place of the node, or to take it off.
        if state.is_live() {
            Judged::Again
        } else {
            Judged::Replace(state)
        }
    }

    /// Judges a fill, for a caller that cannot have the current value.
    fn judge_fill<'p>(&self, node: &'p Node<K, V>, fill: State, aim: Aim) -> Judged<'p, K, V> {
        if fill.is_unhooked() {
            // A thread is about to take it out of the table, or off the current value. It may hash keys before it does the
            // first.
            if node.slot.parked().is_some() {
                Judged::Again
            } else {
                Judged::Replace(fill)
            }
        } else if fill.is_detached() || aim == Aim::Lead {
            // Detached, and in its place until its fill has ended: fills do not overlap.
            Judged::Join(node, WaitFor::End)
        } else {
            Judged::Join(node, WaitFor::Value)
        }
    }

    /// Takes part in the flight of `node`, which fills; as the successor of `current`, if there is one. `None`: it is over,
    /// or has been detached.
    fn join<'c>(
        &'c self,
        node: &Node<K, V>,
        current: Option<&Node<K, V>>,
        waits_for: WaitFor,
    ) -> Option<Part<'c, K, V, S>> {
        let joinable = |state: State| {
            state.is_filling() && (waits_for == WaitFor::End || !state.is_detached())
        };
        let flight = match node.slot.hang(joinable) {
            Ok(flight) => Some(flight),
            Err(state) if !joinable(state) => None,
            Err(state) => state
                .flight()
                // SAFETY: a flight ripens after every pin that could load its address.
                .filter(|&flight| unsafe { &*flight }.join()),
        };
        let current = current.map_or(std::ptr::null(), std::ptr::from_ref);
        flight.map(|flight| Part::new(self, node, current, flight, waits_for))
    }

    /// Puts a value in, over any older one. A value that is too heavy takes the older one out, is handed to the waiters of the
    /// key, and is not kept.
    pub(crate) fn insert(&self, hash: u64, key: K, value: V) {
        let weight = self.weigh(&key, &value);
        self.insert_weighed(hash, key, value, weight);
    }

    /// As [`insert`](Self::insert); a value that is too heavy is given back, and a running fill cut off.
    pub(crate) fn try_insert(&self, hash: u64, key: K, value: V) -> Result<(), OversizeError<V>> {
        let weight = self.weigh(&key, &value);
        let Err(heavy) = weight else {
            self.insert_weighed(hash, key, value, weight);
            return Ok(());
        };
        let is_key = |other: &K| *other == key;
        self.remove(hash, &is_key, false, Event::Evicted, &mut |_| {});
        self.tidy();
        Err(OversizeError::new(value, heavy.weight, heavy.capacity))
    }

    fn insert_weighed(&self, hash: u64, key: K, value: V, weight: Weight) {
        let (deadline, event) = match weight {
            Ok(_) => (self.deadline(), Event::Replaced),
            Err(_) => (Deadline::Past, Event::Evicted),
        };
        let fits = weight.is_ok();
        // As garbage, a value that is too heavy weighs as much as the state word can say; nothing, if the weigher panicked.
        let weight =
            weight.unwrap_or_else(|heavy| heavy.weight.map_or(0, |weight| weight.min(MAX_WEIGHT)));
        let mut spare = Spare::with(self, 0, key, Slot::ready(value, deadline, weight));
        let kept = deadline != Deadline::Past;
        let charge = Charge::new(self, if kept { weight } else { 0 });
        let waiting = {
            let pin = pin();
            // SAFETY: ours until it is in the table, and kept by the pin after that.
            let node = unsafe { &*spare.node };
            let mut replaced = 0;
            let waiting = self.put(hash, node, event, &mut replaced, &pin);
            // Also if it has been removed by now: that was counted.
            if kept {
                self.counts_in();
            }
            spare.used();
            if fits {
                self.stats.count(Event::Inserted);
            }
            // The weight of the entry that this call replaced counts towards its debt. Otherwise threads that overwrite
            // existing keys would evict unrelated entries for room that the others are about to free.
            let owed = charge.passes_to_the_entry().saturating_sub(replaced);
            if !kept {
                self.unlink_node(hash, node, &pin);
            }
            self.sweep(&pin);
            self.make_room(owed, hash, node, &pin);
            waiting
        };
        if let Some((part, node)) = waiting {
            // Wakers are foreign code: no pin. The new node is held for the waiters until the
            // last of them has left, or, if they had an outcome already, by us.
            let outcome = Outcome::Replaced(node.expose_provenance());
            if part.flight().resolve(outcome).is_err() {
                // SAFETY: held.
                self.release_held(unsafe { &*node });
            }
        }
        self.tell();
        self.domain.tidy_after_miss();
    }

    /// Puts a ready node in its place. If that detached a flight, returns a share in it, and the node, held, for its
    /// waiters.
    #[allow(clippy::type_complexity)]
    fn put<'c>(
        &'c self,
        hash: u64,
        node: &Node<K, V>,
        event: Event,
        replaced: &mut u64,
        pin: &Pin,
    ) -> Option<(Part<'c, K, V, S>, *const Node<K, V>)> {
        loop {
            let mut key = Ready {
                core: self,
                hash,
                mark: None,
                node,
                pin,
            };
            let spot = match self.table.claim(hash, &mut key, pin, self, &self.domain) {
                Claim::Placed(_) => return None,
                Claim::Found(spot) => spot,
            };
            let old = spot.object();
            let (state, successor) = self.state_of(old, pin);
            come_by("displace");
            let filling = if state.is_filling() {
                Some(old)
            } else {
                successor
            };
            // (The waiters of a refresh that begins right now get its own value.)
            let held = filling.is_some_and(|filling| filling.slot.state().is_filling());
            node.slot.set_held(held);
            if !self.table.replace(&spot, node) {
                // The next claim may put it in where there are no waiters.
                node.slot.set_held(false);
                continue;
            }
            // First out of the table, then detached: a caller that comes between joins for the value, which
            // we bring. The other way round it would see a detached flight in its place, and wait for the fill to end.
            let flight = self.displace(old, event, replaced, pin);
            let part = flight.filter(|_| held).and_then(|(filling, flight)| {
                // SAFETY: a flight ripens after every pin that could load its address; we are pinned.
                unsafe { &*flight }
                    .join()
                    .then(|| Part::new(self, filling, std::ptr::null(), flight, WaitFor::Value))
            });
            if part.is_none() && held {
                self.release_held(node);
            }
            return part.map(|part| (part, std::ptr::from_ref(node)));
        }
    }

    /// Lets go of a node that an insert has just taken out of the table: removes its value, and detaches its fill. Returns
    /// the flight of that, with its node.
    fn displace<'p>(
        &self,
        old: &'p Node<K, V>,
        event: Event,
        replaced: &mut u64,
        pin: &'p Pin,
    ) -> Option<(&'p Node<K, V>, *const Flight)> {
        let event = self.unless_expired(old, event);
        let mut flight = None;
        loop {
            let (state, successor) = self.state_of(old, pin);
            come_by("displace");
            let filling = if state.is_filling() {
                Some(old)
            } else {
                successor
            };
            let detached = filling.map(|filling| filling.slot.detach_replaced());
            if let (Some(filling), Some(Ok(before))) = (filling, detached) {
                flight = before.flight().map(|flight| (filling, flight));
            }
            if state.is_filling() {
                if matches!(detached, Some(Err(_))) {
                    continue;
                }
                self.unlinked(old);
                return flight;
            }
            if let (Some(filling), Some(Ok(before))) = (filling, detached) {
                if before.unhooks() {
                    *replaced = self.unhook(old, filling, event, true);
                    return flight;
                }
            }
            if !state.is_live() {
                self.unlinked(old);
                return flight;
            }
            let weight = self.weight_of(old, pin);
            if let Some(released) = self.try_remove_live(old, successor, event, true) {
                let accounts = successor.is_none_or(|it| !it.slot.state().accounts_for_current());
                *replaced = if accounts { weight } else { 0 };
                self.end_hold(old, released);
                return flight;
            }
        }
    }

    /// One stretch of a walk over all entries: shows each to `visit`, returns where to go on.
    pub(crate) fn stretch<'p>(
        &'p self,
        from: u64,
        pin: &'p Pin,
        visit: &mut dyn FnMut(&'p K, &'p V),
    ) -> Option<u64> {
        let mut spots = Vec::new();
        let next = self.table.scan(from, pin, self, &self.domain, &mut spots);
        for spot in spots {
            let node = spot.object();
            // A node that does not serve may have been replaced since.
            let newer = || self.look(self.rehash(node)?, &node.key, pin);
            if let Some(value) = self.serves(node).or_else(newer) {
                visit(&node.key, value);
            }
        }
        next
    }

    /// Shows every node in the table to `show`, once: a stretch of the table under each pin. After each stretch it runs
    /// `between`, with no pin.
    fn each_node(
        &self,
        mut show: impl for<'p> FnMut(Spot<'p, Node<K, V>>, &'p Pin),
        between: impl Fn(),
    ) {
        let mut from = Some(0);
        while let Some(hash) = from {
            let pin = pin();
            let mut spots = Vec::new();
            from = self.table.scan(hash, &pin, self, &self.domain, &mut spots);
            for spot in spots {
                show(spot, &pin);
            }
            drop(pin);
            between();
        }
    }

    /// Looks for expired entries where the last look ended, and takes them out.
    fn sweep(&self, pin: &Pin) {
        if self.ttl.is_none() {
            return;
        }
        let now = self.clock.lately();
        let hand = self.hand.fetch_add(SWEEP, Ordering::Relaxed);
        self.table.sweep(hand, SWEEP, pin, &mut |spot| {
            self.take_expired(&spot, now, pin);
        });
    }

    fn take_expired(&self, spot: &Spot<'_, Node<K, V>>, now: u64, pin: &Pin) {
        let node = spot.object();
        if node.slot.state().is_live() && node.slot.is_expired(now) {
            self.take_out_expired(spot, None, pin);
        }
    }

    /// The weight of an entry; of a cache without a weigher, one.
    pub(crate) fn weight<Q>(&self, hash: u64, key: &Q) -> Option<u64>
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        let pin = pin();
        let spot = self.find(hash, &pin, &|other| key.equivalent(other))?;
        let node = spot.object();
        self.serves(node)?;
        Some(self.weight_of(node, &pin))
    }

    fn find<'p>(
        &self,
        hash: u64,
        pin: &'p Pin,
        is_key: &dyn Fn(&K) -> bool,
    ) -> Option<Spot<'p, Node<K, V>>> {
        self.table
            .find_to_change(hash, pin, self, &self.domain, &|node| is_key(&node.key))
    }

    /// Leaves a flight; `None` is a leader without waiters.
    fn leave(&self, node: &Node<K, V>, flight: Option<*const Flight>) {
        match flight {
            Some(flight) => self.leave_part(node, flight),
            None => self.release_held(node),
        }
    }

    fn leave_part(&self, node: &Node<K, V>, flight: *const Flight) {
        // SAFETY: the caller takes part until this call.
        let over = unsafe { &*flight };
        if !over.leave() {
            return;
        }
        self.release_held(node);
        // SAFETY: made by `Arc::into_raw`; `leave` is true once; the slot that led here has
        // ended, so no thread finds it any more.
        self.domain.retire(unsafe { Garbage::counted(flight) });
    }

    /// A key in words, cut to some length.
    fn describe(&self, key: &K) -> String {
        let key = self.describe.map_or_else(
            || format!("<{}>", std::any::type_name::<K>()),
            |describe| {
                answer_of(|| describe(key))
                    .unwrap_or_else(|| "<a key whose Debug panicked>".to_owned())
            },
        );
        match &self.name {
            Some(name) => format!("{name}[{key}]"),
            None => key,
        }
    }
}

/// See [`Core::judge`].
enum Judged<'p, K, V> {
    Serve,
    /// Joins the flight of this node, the one in the table or its successor.
    Join(&'p Node<K, V>, WaitFor),
    /// Hang a refresh on the value; this was its state.
    Refresh(State),
    /// Put a filling slot in its place; this was its state.
    Replace(State),
    Again,
}

impl<K, V, S> Core<K, V, S> {
    /// The size of an entry's own allocation, with key, value, state and deadline.
    pub(crate) const ENTRY_BYTES: u64 = size_of::<Node<K, V>>() as u64;

    /// Entries that are live and linked. Where each weighs one their total is that number, and there is no
    /// other.
    pub(crate) fn len(&self) -> usize {
        match &self.room {
            Some(room) if room.counts_entries() => room.total_entries(),
            _ => self.len.sum(),
        }
    }

    /// An entry is there from now on.
    fn counts_in(&self) {
        if !self.counts_entries() {
            self.len.add(1);
        }
    }

    /// An entry has gone.
    fn counts_out(&self) {
        if !self.counts_entries() {
            self.len.sub(1);
        }
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(crate) fn stats(&self) -> CacheStats {
        let panicked_listeners = self.bulletin.as_ref().map_or(0, Bulletin::panics);
        self.stats
            .snapshot(self.domain.panicked_drops(), panicked_listeners)
    }

    pub(crate) fn retired(&self) -> usize {
        self.domain.retired() + self.bulletin.as_ref().map_or(0, Bulletin::len)
    }

    /// Stops the janitor, if there is one, and waits for its round, unless the round may wait for this thread: for a fill that
    /// it leads, a guard that it holds, or a value that it drops.
    pub(crate) fn stop_janitor(&self) {
        if let Some(janitor) = self.janitor.get() {
            janitor.stop(!leads_any() && !is_reaping() && !is_pinned());
        }
    }

    #[inline]
    pub(crate) fn janitor(&self) -> Option<&Janitor> {
        self.janitor.get()
    }

    /// Whether this thread may wait for a janitor's round: the round cannot be waiting for anything that this thread is in the
    /// middle of.
    pub(crate) fn may_wait_for_a_round() -> bool {
        !leads_any() && !is_listening() && !is_reaping() && !is_pinned()
    }

    /// Whether all other handles, of so many, might be inside removed values.
    ///
    /// While values are seen not to hold any, that is looked at once in a while only.
    pub(crate) fn may_be_held_by_garbage(&self, handles: usize) -> bool {
        if is_reaping() {
            // A value that has been removed held this one: others may.
            self.domain.note_handle();
            return false;
        }
        handles > 1
            && self.domain.has_garbage()
            && handles - 1 <= self.retired()
            && self.domain.may_hold_handles()
    }

    pub(crate) fn set_janitor(&self, janitor: Janitor) {
        // There is one builder, and it sets one.
        let _ = self.janitor.set(janitor);
    }
}

impl<K: Hash, V, S: BuildHasher> Rehash<Node<K, V>> for Core<K, V, S>
where
    K: Eq,
{
    fn rehash(&self, node: &Node<K, V>) -> Option<u64> {
        answer_of(|| self.hash(&node.key))
    }

    fn lost(&self, node: &Node<K, V>) {
        let pin = pin();
        // As if an insert had replaced it, and were evicted: a caller that has joined gets the fill's value.
        self.displace(node, Event::Explicit, &mut 0, &pin);
    }
}

impl<K, V, S> Drop for Core<K, V, S> {
    /// Runs alone with everything: tells the listener the rest, and drops each entry, each drop contained.
    fn drop(&mut self) {
        // Also on a thread that is pinned, by a view of another cache: this is the last occasion.
        if let Some(bulletin) = &self.bulletin {
            while bulletin.len() > 0 {
                self.tell_of(bulletin);
            }
        }
        let home: Home = std::ptr::from_ref(&*self.slab).cast();
        for node in self.table.drain() {
            // SAFETY: linked, and we are alone; each is listed once. No fill runs, because its leader has a handle.
            unsafe { Node::<K, V>::reap(node.cast_mut().cast(), home) };
        }
    }
}
