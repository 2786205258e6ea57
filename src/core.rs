//! The cache itself: joins table, slots, flights, time and stats.
//!
//! Every operation here is one non-blocking step: look, judge, act. The fronts (`cache.rs`, `pinned.rs`) are short
//! loops around [`Core::turn`] that differ in how they wait.
//!
//! Every step holds one pin. The user code that runs under a pin is the key's `Hash`, `Eq` and `Clone`, the value's
//! `Clone`, predicates, and closures that read a value.

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

/// The object that the table's words point to: a key and its slot.
pub(crate) struct Node<K, V> {
    pub(crate) key: K,
    pub(crate) slot: Slot<V>,
}

impl<K, V> Node<K, V> {
    /// Drops a node and gives its cell back. Value and key are dropped one by one, each panic contained: a panic of
    /// the one while the other unwinds would end the program.
    ///
    /// # Safety
    /// `node` is from the slab at `home`, which is a `Slab<Node<K, V>>`, and is used no more by any thread.
    unsafe fn reap(node: *mut (), home: Home) -> Reaped {
        let node = node.cast::<Self>();
        // SAFETY: the caller promises that only we use it. Each field is dropped once, and then only the cell is left.
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

/// Puts a key into words for a [`CycleError`](crate::CycleError).
pub(crate) type Describe<K> = fn(&K) -> String;

/// Takes over a fill that no caller waits for any more: user code.
pub(crate) type Spawner = Box<dyn Fn(Job) + Send + Sync>;

/// The settings that a builder hands over.
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
    /// A walk over all entries found that none expires before this time.
    next_deadline: AtomicU64,
    /// Where the search for expired entries goes on.
    hand: CachePadded<AtomicUsize>,
    bulletin: Option<Bulletin<K, V, Node<K, V>>>,
    janitor: OnceLock<Janitor>,
    spawner: Option<Spawner>,
    watch: Watch<K>,
    closed: Closed,
    /// The nodes that it holds are dropped after everything else here ...
    domain: Domain,
    /// ... and goes back here. Boxed, because the domain knows its address.
    slab: Box<Slab<Node<K, V>>>,
}

/// The number of words in which an insert looks for expired entries. With four, a quarter as many inserts as the table
/// has words make one round. So an entry is removed at the latest that many inserts after it has expired. (Inserts
/// during a resize do not count: they look at no word, and move expired entries along.) Under steady traffic expired
/// entries take up at most a quarter of the table's words. Without traffic there is no bound: entries that expire all
/// at once stay until inserts come.
const SWEEP: usize = 4;

/// Garbage is dropped once it exceeds this share of the capacity: one in so many.
const GARBAGE: usize = 32;

/// The result that a caller of [`Core::turn`] wants.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    /// A value: the live one, the one being computed, or a lead.
    Value,
    /// A newer value than the live one: the one being computed, or a lead.
    Refresh,
    /// The lead, with or without a live value.
    Lead,
}

/// The outcome of one step.
pub(crate) enum Turn<'c, K: Hash + Eq, V, S: BuildHasher> {
    Ready(Found<'c, K, V>),
    /// For [`Aim::Lead`] with the live value that the flight is to replace.
    Lead(Leader<'c, K, V, S>, Option<Found<'c, K, V>>),
    Wait(Part<'c, K, V, S>),
}

// SAFETY: a core hands out `&K` and `&V` on every thread that has a handle (`Sync`), and drops keys and values on any
// thread that reclaims them (`Send`). All shared fields are atomic or guarded: see table.rs, slot.rs and reclaim.rs.
unsafe impl<K: Send + Sync, V: Send + Sync, S: Send + Sync> Send for Core<K, V, S> {}
// SAFETY: the same holds: `&K` and `&V` go to every thread with a handle (`Sync`), keys and values are dropped on any
// (`Send`), and all shared fields are atomic or guarded.
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
            // In a model every hit takes the long way, which begins with the short one.
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

    /// Hashes a key, in whichever form it is looked up. The user's hasher may be a weak one, and the table wants all
    /// 64 bits: a multiplication spreads every bit over both halves.
    #[inline(always)]
    pub(crate) fn hash<Q: ?Sized + Hash>(&self, key: &Q) -> u64 {
        // The multiplier is 2^64 divided by the golden ratio, made odd (Knuth, volume 3, 6.4).
        let product = u128::from(self.hasher.hash_one(key)) * 0x9E37_79B9_7F4A_7C15;
        (product >> 64) as u64 ^ product as u64
    }

    /// Returns the value of a key, if it is live and unexpired. Does not count as a use.
    #[inline]
    pub(crate) fn look<'p, Q>(&'p self, hash: u64, key: &Q, pin: &'p Pin) -> Option<&'p V>
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        self.look_and(hash, key, pin, |_| {})
    }

    /// Returns the value of a key, if it is live and unexpired. Counts as a use, and as a look-up in the statistics.
    #[inline(always)]
    pub(crate) fn look_up<'p, Q>(&'p self, hash: u64, key: &Q, pin: &'p Pin) -> Option<&'p V>
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        let value = self.look_and(hash, key, pin, |spot| self.touch(spot));
        self.stats.look_up(value.is_some());
        value
    }

    /// Looks for a live entry near its home: the short way of a hit, in a [plain](Self::is_plain) cache. Calls only
    /// the key's `Eq`, the clock if the entry has a deadline, and the policy if it is to note the use.
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

    /// Says whether a hit is only a look: this cache does not count look-ups.
    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        self.plain
    }

    /// Walks once over the key's probe, and returns the value of the live, unexpired entry where it ends. Calls `used`
    /// with the place of that entry. [`look_again`](Self::look_again) deals with every other end.
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

    /// Takes the slow path of [`look`](Self::look): the node in the table has no live value. Not a use.
    ///
    /// A node that is seen once may just have been replaced. A node that is seen twice was in the table without a
    /// value.
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

    /// Returns the value of a node, if newcomers may have it and its TTL is not over.
    #[inline(always)]
    fn serves<'p>(&self, node: &'p Node<K, V>) -> Option<&'p V> {
        node.slot.live().filter(|_| self.is_unexpired(node))
    }

    /// Returns the state of a node, and the successor that is filled to replace its value.
    fn state_of<'p>(&self, node: &'p Node<K, V>, pin: &'p Pin) -> (State, Option<&'p Node<K, V>>) {
        let state = node.slot.state();
        let successor = state.successor().map(|address| {
            // SAFETY: the `LINKED` hold of a successor ends only after it was taken off its current slot, or by way of the
            // table, which then leads to it and no longer to the current slot. So a thread that can still find this
            // node pinned before that hold ended, and its pin keeps the successor.
            unsafe { deref(address as *const Node<K, V>, pin) }
        });
        (state, successor)
    }

    /// Returns the node that fills, or has filled, for the key of `node`: that node itself, or its successor.
    fn filling_of<'p>(&self, node: &'p Node<K, V>, pin: &'p Pin) -> Option<&'p Node<K, V>> {
        let (state, successor) = self.state_of(node, pin);
        if state.is_filling() {
            Some(node)
        } else {
            successor
        }
    }

    /// Returns the weight of a node's value.
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

    /// Takes one step towards `aim`: the live value, a lead, or a share in another caller's flight.
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
                    // SAFETY: `judge` found it live, and it was linked when the claim found it under this pin.
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
                            // SAFETY: `judge` found it live, and it was linked when the claim found it under this pin.
                            unsafe { Found::new(pin, there) }
                        });
                        return Turn::Lead(leader, seen);
                    }
                }
                Judged::Replace(state) => {
                    // The node first: to make its key runs user code, which may panic.
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

    /// Judges the node of a key, for a caller with this `aim`.
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
        // The successor's leader is about to put it into the node's place in the table, or to take it off.
        if state.is_live() {
            Judged::Again
        } else {
            Judged::Replace(state)
        }
    }

    /// Judges a fill, for a caller that cannot have the current value.
    fn judge_fill<'p>(&self, node: &'p Node<K, V>, fill: State, aim: Aim) -> Judged<'p, K, V> {
        if fill.is_unhooked() {
            // A thread is about to take it off its current node, or out of the table. Before the latter that thread may
            // run a user's `Hash`, so this caller does not wait for it, and takes the place.
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

    /// Takes part in the flight of `node`, which fills; as the successor of `current`, if there is one. `None`: the
    /// fill has ended, or has been detached. The caller is pinned, or leads `node`.
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
                // SAFETY: a flight is freed after every pin that could load its address; or our lead takes part in it.
                .filter(|&flight| unsafe { &*flight }.join()),
        };
        let current = current.map_or(std::ptr::null(), std::ptr::from_ref);
        flight.map(|flight| Part::new(self, node, current, flight, waits_for))
    }

    /// Inserts a value, over any value the key has. A value that is too heavy is not kept: it removes the older value,
    /// and goes to the callers that wait for the key.
    pub(crate) fn insert(&self, hash: u64, key: K, value: V) {
        let weight = self.weigh(&key, &value);
        self.insert_weighed(hash, key, value, weight);
    }

    /// Inserts a value that fits. One that is too heavy is given back, the older value is removed, and a running fill
    /// is detached.
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
        // A value that is too heavy counts as garbage by its weight, up to the most a state word holds; by nothing, if
        // the weigher could not say it.
        let weight =
            weight.unwrap_or_else(|heavy| heavy.weight.map_or(0, |weight| weight.min(MAX_WEIGHT)));
        let mut spare = Spare::with(self, 0, key, Slot::ready(value, deadline, weight));
        let kept = deadline != Deadline::Past;
        let charge = Charge::new(self, if kept { weight } else { 0 });
        let waiting = {
            let pin = pin();
            // SAFETY: the node is ours until it is in the table, and the pin keeps it after that.
            let node = unsafe { &*spare.node };
            let mut replaced = 0;
            let waiting = self.put(hash, node, event, &mut replaced, &pin);
            // Also if another thread has removed it by now: that thread has counted it out.
            if kept {
                self.counts_in();
            }
            spare.used();
            if fits {
                self.stats.count(Event::Inserted);
            }
            // The weight of the value that we have replaced counts towards our debt. Otherwise several threads that
            // overwrite existing keys would each evict other entries, for room that the others are about to free.
            let owed = charge.passes_to_the_entry().saturating_sub(replaced);
            if !kept {
                self.unlink_node(hash, node, &pin);
            }
            self.sweep(&pin);
            self.make_room(owed, hash, node, &pin);
            waiting
        };
        if let Some((part, node)) = waiting {
            // Wakers are user code, so no pin is held. The new node is held for the waiters until the last of them has
            // left. If they had an outcome already, we hold it, and release it here.
            let outcome = Outcome::Replaced(node.expose_provenance());
            if part.flight().resolve(outcome).is_err() {
                // SAFETY: `put` returned it held.
                self.release_held(unsafe { &*node });
            }
        }
        self.tell();
        self.domain.tidy_after_miss();
    }

    /// Puts a ready node into its place in the table. If that detached a flight, returns a share in it, and the node,
    /// held, for its waiters.
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
            // (The waiters of a refresh that begins right now get the value of that refresh.)
            let held = self
                .filling_of(old, pin)
                .is_some_and(|filling| filling.slot.state().is_filling());
            node.slot.set_held(held);
            if !self.table.replace(&spot, node) {
                // The next claim may put it where no caller waits.
                node.slot.set_held(false);
                continue;
            }
            // Unlink first, then detach. A caller that comes in between joins the flight, and gets our value. In the
            // other order it would find a detached fill in its place, and wait for that to end.
            let flight = self.displace(old, event, replaced, pin);
            let part = flight.filter(|_| held).and_then(|(filling, flight)| {
                // SAFETY: a flight is freed after every pin that could load its address; we are pinned.
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

    /// Releases a node that an insert has just taken out of the table: removes its value, and detaches its fill.
    /// Returns the flight of that fill, with its node.
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

    /// Shows each entry in one stretch of a walk over all entries to `visit`. Returns where the walk goes on.
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
            // A node without a live value may have been replaced since the scan.
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

    /// Looks for expired entries where the last look ended, and removes them.
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

    /// Returns the weight of an entry; without a weigher, one.
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

    /// Gives up one share in a flight. `None`: the caller led a fill that no other caller waited for.
    fn leave(&self, node: &Node<K, V>, flight: Option<*const Flight>) {
        match flight {
            Some(flight) => self.leave_part(node, flight),
            None => self.release_held(node),
        }
    }

    fn leave_part(&self, node: &Node<K, V>, flight: *const Flight) {
        // SAFETY: the caller's share in the flight keeps it until this call.
        let over = unsafe { &*flight };
        if !over.leave() {
            return;
        }
        self.release_held(node);
        // SAFETY: the address came from `Arc::into_raw`, and `leave` is true once. The slot that led here has ended,
        // so no further thread finds the flight.
        self.domain.retire(unsafe { Garbage::counted(flight) });
    }

    /// Puts a key into words.
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

/// The judgement of [`Core::judge`].
enum Judged<'p, K, V> {
    Serve,
    /// Joins the flight of this node, the one in the table or its successor.
    Join(&'p Node<K, V>, WaitFor),
    /// Hang a refresh on the value, which was in this state.
    Refresh(State),
    /// Put a filling slot into the place of the node, which was in this state.
    Replace(State),
    Again,
}

impl<K, V, S> Core<K, V, S> {
    /// The size of an entry's own allocation, with key, value, state and deadline.
    pub(crate) const ENTRY_BYTES: u64 = size_of::<Node<K, V>>() as u64;

    /// Counts the entries that are live and linked. If each weighs one, the total weight is that number, and no other
    /// count is kept.
    pub(crate) fn len(&self) -> usize {
        match &self.room {
            Some(room) if room.counts_entries() => room.total_entries(),
            _ => self.len.sum(),
        }
    }

    /// Counts one entry more.
    fn counts_in(&self) {
        if !self.counts_entries() {
            self.len.add(1);
        }
    }

    /// Counts one entry less.
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

    /// Stops the janitor, if there is one, and waits for its round to end. Does not wait if the round may wait for
    /// this thread: for a fill that it leads, a guard that it holds, or a value that it is dropping.
    pub(crate) fn stop_janitor(&self) {
        if let Some(janitor) = self.janitor.get() {
            janitor.stop(!leads_any() && !is_reaping() && !is_pinned());
        }
    }

    #[inline]
    pub(crate) fn janitor(&self) -> Option<&Janitor> {
        self.janitor.get()
    }

    /// Says whether this thread may wait for a janitor's round: the round cannot be waiting for this thread.
    pub(crate) fn may_wait_for_a_round() -> bool {
        !leads_any() && !is_listening() && !is_reaping() && !is_pinned()
    }

    /// Says whether all other handles, `handles` in total with this one, may be inside removed values.
    ///
    /// As long as removed values turn out to hold none, this looks only once in a while.
    pub(crate) fn may_be_held_by_garbage(&self, handles: usize) -> bool {
        if is_reaping() {
            // A removed value held this handle; other removed values may hold more.
            self.domain.note_handle();
            return false;
        }
        handles > 1
            && self.domain.has_garbage()
            && handles - 1 <= self.retired()
            && self.domain.may_hold_handles()
    }

    pub(crate) fn set_janitor(&self, janitor: Janitor) {
        // A cache is built once, and the builder sets one janitor.
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
    /// Tells the listener of the removals that are still to be told, and drops each entry. The caller is the only
    /// thread left, and each panic is contained.
    fn drop(&mut self) {
        // Also on a thread that is pinned by a guard of another cache: this is the last occasion.
        if let Some(bulletin) = &self.bulletin {
            while bulletin.len() > 0 {
                self.tell_of(bulletin);
            }
        }
        let home: Home = std::ptr::from_ref(&*self.slab).cast();
        for node in self.table.drain() {
            // SAFETY: linked, and no other thread uses the cache; each node is listed once. No fill runs, because its
            // leader has a handle.
            unsafe { Node::<K, V>::reap(node.cast_mut().cast(), home) };
        }
    }
}
