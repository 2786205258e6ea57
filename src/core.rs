//! The cache itself: joins table, slots, flights, time and stats.
//!
//! Everything here is one non-blocking step: look, judge, act. The fronts (`cache.rs`,
//! `pinned.rs`) are short loops around [`Core::turn`] that differ in how they wait.
//!
//! Every step holds one pin, and no pin is held while foreign code runs other than the key's
//! `Hash` and `Eq`, the value's `Clone`, and predicates.

mod claim;
mod expiring;
mod fence;
mod heat;
mod in_flight;
mod part;
mod polled;
mod release;
mod room;
#[cfg(all(test, not(atomic_cache_loom)))]
mod schedules;

use crate::actor::is_fill;
use crate::bound::{Bound, MAX_WEIGHT, Weight};
use crate::error::OversizeError;

use crate::cycle::leads_any;
use crate::flight::{Flight, Job, Outcome, WaitFor};
use crate::foreign::{answer_of, contain};
use crate::interlude::come_by;
use crate::janitor::Janitor;
use crate::linger::Lingering;
use crate::listener::{Bulletin, Listener, is_listening};
use crate::reclaim::{Domain, Garbage, Home, Pin, Reaped, deref, is_pinned, is_reaping, pin};
use crate::slab::Slab;
use crate::slot::Slot;
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
pub(crate) use fence::Fenced;
use in_flight::Closed;
pub(crate) use in_flight::Watch;
pub(crate) use part::{Awaited, Blank, Found, Leader, Part, Wait, Waited};
pub(crate) use polled::{BoxFill, TaskLead};
pub(crate) use release::Afterwards;
use room::{Charge, Room};

/// What the table's words point to: a key and its slot.
pub(crate) struct Node<K, V> {
    pub(crate) key: K,
    pub(crate) slot: Slot<V>,
}

impl<K, V> Node<K, V> {
    /// Drops a node and gives its cell back. A value and a key that both panic must not meet: a panic
    /// while one unwinds would end the program.
    ///
    /// # Safety
    /// `node` is from the slab at `home`, which is a `Slab<Node<K, V>>`, and nobody uses it any more.
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

/// What goes on with a fill that nobody waits for any more: foreign code.
pub(crate) type Spawner = Box<dyn Fn(Job) + Send + Sync>;

/// What a builder settles.
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
    /// Removed, and about to be read by waiters, or to be told of.
    lingering: CachePadded<Lingering>,
    bulletin: Option<Bulletin<K, V, Node<K, V>>>,
    janitor: OnceLock<Janitor>,
    spawner: Option<Spawner>,
    watch: Watch<K>,
    closed: Closed,
    /// What it holds is dropped after everything else here ...
    domain: Domain,
    /// ... and goes back here. Boxed, because the domain knows its address.
    slab: Box<Slab<Node<K, V>>>,
}

/// How many words an insert looks at for expired entries. With four, a quarter as many inserts as
/// the table has words make one round. So an entry goes at the latest that many inserts after it
/// has expired (not counting those during a growth, which looks at nothing and moves expired
/// entries along), and under steady traffic what has expired and still takes room is at most a
/// quarter of the table's words. It is no bound without traffic: what expires all at once stays
/// until inserts come.
const SWEEP: usize = 4;

/// Garbage is dropped when there is a share of the capacity of it: one in so many.
const GARBAGE: usize = 32;

/// What a caller of [`Core::turn`] wants with the key.
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
            // In a model every hit goes the long way, whose first half the short one is.
            plain: !cfg!(atomic_cache_loom) && !config.record_stats,
            ttl: config.ttl,
            clock: config.clock,
            name: config.name,
            describe: config.describe,
            len: Striped::new(),
            stats: Stats::new(config.record_stats),
            next_deadline: AtomicU64::new(0),
            hand: CachePadded::new(AtomicUsize::new(0)),
            lingering: CachePadded::new(Lingering::new()),
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
    /// key's `Eq`, of an entry with a deadline the clock, and what notes a use that is to be noted.
    #[inline(always)]
    pub(crate) fn hit<'p, Q>(&'p self, hash: u64, key: &Q, pin: &'p Pin) -> Glance<&'p V>
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        let glance = self.table.glance(hash, pin, |node| {
            // SAFETY: linked at the load of its word, under this pin.
            key.equivalent(unsafe { &deref(node, pin).key })
        });
        let spot = match glance {
            Glance::Found(spot) => spot,
            Glance::Absent => return Glance::Absent,
            Glance::Unclear => return Glance::Unclear,
        };
        // SAFETY: as above.
        let node = unsafe { deref(spot.object::<Node<K, V>>(), pin) };
        if node.slot.state().is_live() && self.is_fresh(node) {
            self.touch(&spot);
            // SAFETY: live was loaded, the pin keeps it.
            return Glance::Found(unsafe { node.slot.value() });
        }
        Glance::Unclear
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
        used: impl FnOnce(&Spot<'p>),
    ) -> Option<&'p V>
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        let spot = self.table.find(hash, pin, |node| {
            // SAFETY: linked at the load of its word, under this pin.
            key.equivalent(unsafe { &deref(node, pin).key })
        })?;
        // SAFETY: as above.
        let node = unsafe { deref(spot.object::<Node<K, V>>(), pin) };
        if node.slot.state().is_live() && self.is_fresh(node) {
            used(&spot);
            // SAFETY: live was loaded, the pin keeps it.
            return Some(unsafe { node.slot.value() });
        }
        self.look_again(hash, key, pin)
    }

    /// As [`look`](Self::look), when what stands in the key's place is not live itself. (What is found
    /// then is not noted as used: a fill is under way.)
    ///
    /// There is nothing to be read only if that was so while the node stood there: one that was
    /// replaced, or has put back what was before it, is looked past.
    #[cold]
    #[inline(never)]
    fn look_again<'p, Q>(&'p self, hash: u64, key: &Q, pin: &'p Pin) -> Option<&'p V>
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        let mut last = std::ptr::null();
        loop {
            let spot = self.table.find(hash, pin, |node| {
                // SAFETY: linked at the load of its word, under this pin.
                key.equivalent(unsafe { &deref(node, pin).key })
            })?;
            // SAFETY: as above.
            let node = unsafe { deref(spot.object::<Node<K, V>>(), pin) };
            if let Some(serving) = self.serving(node, pin) {
                // SAFETY: it serves: live was loaded, the pin keeps it.
                return Some(unsafe { serving.slot.value() });
            }
            if std::ptr::eq(node, last) {
                return None;
            }
            last = node;
        }
    }

    /// The node whose value is read of a node in a key's place: itself; or, while it fills, what
    /// it is to replace.
    fn serving<'p>(&'p self, node: &'p Node<K, V>, pin: &'p Pin) -> Option<&'p Node<K, V>> {
        let state = node.slot.state();
        if state.is_live() && self.is_fresh(node) {
            return Some(node);
        }
        if state.hides_prior() {
            return None;
        }
        let Some(prior) = node.slot.prior() else {
            // Nothing, or it was published since: then that shows by now.
            let served = node.slot.state().is_live() && self.is_fresh(node);
            return served.then_some(node);
        };
        // SAFETY: held by the filling slot, which had it at the load, under this pin.
        let prior = unsafe { deref(prior as *const Node<K, V>, pin) };
        (prior.slot.state().is_live() && self.is_fresh(prior)).then_some(prior)
    }

    /// As [`serving`](Self::serving), of who takes the node out of the table: one that is being published is served
    /// in a moment, and has its value. Nobody waits for the leader, which may have been descheduled there; it goes on
    /// to let go of what its slot stood before.
    fn going<'p>(&'p self, node: &'p Node<K, V>, pin: &'p Pin) -> Option<&'p Node<K, V>> {
        if node.slot.is_publishing() {
            return Some(node);
        }
        self.serving(node, pin)
    }

    /// Fences a flight off, and lets go of what it stands before; of a compute its leader does that, when it ends.
    /// `Err`, with the state: it has ended, or somebody else has fenced it off and does not wait for it.
    fn cut(
        &self,
        node: &Node<K, V>,
        event: Event,
    ) -> Result<crate::slot::State, crate::slot::State> {
        let before = node.slot.cut()?;
        if !before.is_compute() {
            self.drop_prior(node, event);
        }
        Ok(before)
    }

    /// A compute has ended without a value, or is never to have one, and removals wait for it: what it stands before
    /// is removed, and left to them to claim. Under a pin.
    fn remove_prior(&self, node: &Node<K, V>) {
        let Some(prior) = node.slot.prior() else {
            return;
        };
        // SAFETY: held by that slot at the load, under the caller's pin.
        let prior = unsafe { &*(prior as *const Node<K, V>) };
        if !self.is_fresh(prior) {
            self.drop_prior(node, self.unless_expired(prior, Event::Explicit));
            return;
        }
        let tell = self.bulletin.is_some();
        if let Ok(before) = prior.slot.remove_prior(tell) {
            self.counts_out();
            self.stats.count(Event::Explicit);
            self.discharge(before.weight());
            self.post_told(prior);
        }
    }

    /// Tells the listener of a value that has been removed and is held for it, if there is one.
    fn post_told(&self, node: &Node<K, V>) {
        if let Some(bulletin) = &self.bulletin {
            bulletin.post(node, crate::RemovalCause::Explicit);
        }
    }

    /// The last one leaves a flight: lets go of what a compute stood before, if that was removed and nobody has
    /// claimed it.
    fn drop_unclaimed(&self, node: &Node<K, V>) {
        let state = node.slot.state();
        if !state.is_compute() || !state.is_cut() || state.restores() {
            return;
        }
        let _pin = pin();
        if let Some(prior) = node.slot.prior() {
            // SAFETY: held by that slot at the load, under the pin.
            let prior = unsafe { &*(prior as *const Node<K, V>) };
            // If it is not removed yet, who has superseded the compute is about to take it.
            if prior.slot.state().is_cut() {
                self.drop_prior(node, Event::Explicit);
            }
        }
    }

    fn drop_prior(&self, node: &Node<K, V>, event: Event) {
        if let Some(prior) = node.slot.take_prior() {
            // SAFETY: held by that slot until `take_prior`, which answers once.
            self.released(unsafe { &*(prior as *const Node<K, V>) }, event);
        }
    }

    #[inline(always)]
    fn is_fresh(&self, node: &Node<K, V>) -> bool {
        node.slot
            .is_fresh(|deadline| self.clock.is_before(deadline))
    }

    fn deadline(&self) -> Deadline {
        self.clock.deadline(self.ttl)
    }

    /// One step towards what `aim` says: the live value, a lead, or a part in somebody's flight.
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
                    let leader = Leader::new(self, node, hash, spare.actor);
                    self.sweep(&pin);
                    return Turn::Lead(leader, None);
                }
                Claim::Found(spot) => spot,
            };
            // SAFETY: linked at the load of its word, under this pin.
            let there = unsafe { deref(spot.object::<Node<K, V>>(), &pin) };
            match self.judge(there, aim, &pin) {
                Judged::Serve(node) => {
                    let node = std::ptr::from_ref(node);
                    // SAFETY: judged live, linked at the load under this pin.
                    return Turn::Ready(unsafe { Found::new(pin, node) });
                }
                Judged::Join(waits_for) => {
                    if let Some(part) = self.join(there, waits_for, spare.actor) {
                        self.stats.count(Event::Joined);
                        return Turn::Wait(part);
                    }
                }
                Judged::Replace { prior } => {
                    let before = prior.then(|| std::ptr::from_ref(there).expose_provenance());
                    let node = spare.filling(wanted, before);
                    if self.table.replace(&spot, node) {
                        spare.used();
                        let leader = Leader::new(self, node, hash, spare.actor);
                        if prior {
                            self.note_beginning(&leader);
                        }
                        if !prior {
                            self.released(there, Event::Expired);
                        }
                        self.sweep(&pin);
                        // What was there at the very swap: who cuts the flight off before its
                        // leader has looked takes it away.
                        let there = std::ptr::from_ref(there);
                        let seen = (prior && aim == Aim::Lead).then(|| {
                            // SAFETY: judged live, linked at the load under this pin.
                            unsafe { Found::new(pin, there) }
                        });
                        return Turn::Lead(leader, seen);
                    }
                }
                // Somebody is between two steps.
                Judged::Again => relax(turn),
            }
        }
        unreachable!("the turns do not end before one returns")
    }

    /// What a node that stands for a key means for one who aims at something.
    fn judge<'p>(&'p self, node: &'p Node<K, V>, aim: Aim, pin: &'p Pin) -> Judged<'p, K, V> {
        let state = node.slot.state();
        // Before we ask what it serves: if it has come to that by now, it serves its value.
        let publishing = node.slot.is_publishing();
        let serving = self.serving(node, pin);
        come_by("judge");
        match (serving, aim) {
            (Some(serving), Aim::Value) => return Judged::Serve(serving),
            (Some(serving), _) if std::ptr::eq(serving, node) => {
                return Judged::Replace { prior: true };
            }
            _ => {}
        }
        if !state.is_filling() {
            // Expired, or without a value; or its leader is just about to serve it, or to put back
            // what was there before.
            return if publishing || serving.is_some() {
                Judged::Again
            } else {
                Judged::Replace { prior: false }
            };
        }
        match (state.is_cut(), state.is_linked()) {
            // Fenced off, and in its place until its fill has ended: fills do not overlap.
            (true, true) => Judged::Join(WaitFor::End),
            // Fenced off and out of the table by now.
            (true, false) => Judged::Again,
            (false, _) if aim == Aim::Lead => Judged::Join(WaitFor::End),
            (false, _) => Judged::Join(WaitFor::Value),
        }
    }

    /// Takes part in the flight of a slot that fills. `None`: it is over, or fenced off since.
    fn join<'c>(
        &'c self,
        node: &Node<K, V>,
        waits_for: WaitFor,
        actor: u64,
    ) -> Option<Part<'c, K, V, S>> {
        if is_fill(actor) {
            // Before we take part: who cuts the flight off after that sees it.
            if let Some(generation) = node.slot.hold_for_tasks() {
                self.lingering.leave(generation);
            }
        }
        let joinable = |state: crate::slot::State| {
            state.is_filling() && (waits_for == WaitFor::End || !state.is_cut())
        };
        let flight = match node.slot.hang(joinable) {
            Ok(flight) => Some(flight),
            Err(state) if !joinable(state) => None,
            Err(state) => state
                .flight()
                // SAFETY: a flight ripens after every pin that could load its address.
                .filter(|&flight| unsafe { &*flight }.join()),
        };
        Some(Part {
            core: self,
            node,
            flight: flight?,
            waits_for,
        })
    }

    /// Puts a value in, over whatever there is. One that is too heavy takes the older value out, is handed to those who
    /// wait for the key, and is not kept.
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
        self.fence(hash, &is_key, None, Event::Evicted, &mut |_| {});
        self.tidy();
        Err(OversizeError::new(value, heavy.weight, heavy.capacity))
    }

    fn insert_weighed(&self, hash: u64, key: K, value: V, weight: Weight) {
        let (deadline, event) = match weight {
            Ok(_) => (self.deadline(), Event::Replaced),
            Err(_) => (Deadline::Past, Event::Evicted),
        };
        let fits = weight.is_ok();
        // As garbage, what is too heavy weighs what it can; nothing, if nobody can say what.
        let weight =
            weight.unwrap_or_else(|heavy| heavy.weight.map_or(0, |weight| weight.min(MAX_WEIGHT)));
        let mut spare = Spare::with(self, 0, key, Slot::ready(value, deadline, weight));
        let kept = deadline != Deadline::Past;
        let charge = Charge::new(self, if kept { weight } else { 0 });
        let fenced = {
            let pin = pin();
            // SAFETY: ours until it is in the table, and kept by the pin after that.
            let node = unsafe { &*spare.node };
            let mut replaced = 0;
            let fenced = self.put(hash, node, event, &mut replaced, &pin);
            spare.used();
            if fits {
                self.stats.count(Event::Inserted);
            }
            // What we have taken out ourselves pays too: or several who put in anew what is there
            // already would each evict others for the sake of what the rest is about to discharge.
            let owed = charge.passes_to_the_entry().saturating_sub(replaced);
            if !kept {
                self.unlink_node(hash, node, Event::Expired, &pin);
            }
            self.sweep(&pin);
            self.make_room(owed, hash, node, &pin);
            fenced
        };
        if let Some((part, node)) = fenced {
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

    /// Puts a ready node in its place. If that cut a flight off, returns a part in it, and the
    /// node, held, for its waiters.
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
                Claim::Placed(_) => {
                    self.count_in(node);
                    return None;
                }
                Claim::Found(spot) => spot,
            };
            // SAFETY: linked at the load of its word, under this pin.
            let old = unsafe { deref(spot.object::<Node<K, V>>(), pin) };
            let filling = old.slot.state().is_filling();
            node.slot.set_held(filling);
            if !self.table.replace(&spot, node) {
                // The next claim may put it in where there are no waiters.
                node.slot.set_held(false);
                continue;
            }
            self.count_in(node);
            // First out of the table, then fenced off: who comes between joins for the value, which
            // we bring. The other way round it would see a flight that is fenced off in its place,
            // and wait for the fill to end.
            *replaced = self.released(old, self.unless_expired(old, event));
            let part = if filling { self.cut_off(old) } else { None };
            if old.slot.state().has_tasks() {
                if let Some(generation) = node.slot.hold_for_tasks() {
                    self.lingering.leave(generation);
                }
            }
            if part.is_none() && filling {
                self.release_held(node);
            }
            return part.map(|part| (part, std::ptr::from_ref(node)));
        }
    }

    /// A node that has its value from the start is in the table.
    fn count_in(&self, node: &Node<K, V>) {
        if node.slot.state().is_live() {
            self.counts_in();
        }
    }

    /// Fences off a flight whose slot has been replaced; a part in it if anybody waits.
    fn cut_off<'c>(&'c self, old: &Node<K, V>) -> Option<Part<'c, K, V, S>> {
        let before = old.slot.cut_replaced().ok()?;
        let superseded = before.leaves_to_removals();
        if superseded {
            come_by("superseded");
            self.remove_prior(old);
        } else {
            self.drop_prior(old, Event::Replaced);
        }
        let flight = before.flight()?;
        // SAFETY: a flight ripens after every pin that could load its address; we are pinned.
        let joined = unsafe { &*flight }.join();
        if superseded && !joined {
            // Nobody is left to claim it.
            self.drop_prior(old, Event::Explicit);
        }
        joined.then(|| Part {
            core: self,
            node: old,
            flight,
            waits_for: WaitFor::Value,
        })
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
            // SAFETY: linked at the load of its word, under this pin.
            let node = unsafe { deref(spot.object::<Node<K, V>>(), pin) };
            // SAFETY: it serves: live was loaded, the pin keeps it.
            let value = self
                .serving(node, pin)
                .map(|node| unsafe { node.slot.value() });
            // What does not serve may have been replaced since.
            let hash = || self.rehash(node);
            if let Some(value) = value.or_else(|| self.look(hash()?, &node.key, pin)) {
                visit(&node.key, value);
            }
        }
        next
    }

    /// Shows every node in the table to `show`, once: a stretch of the table under each pin. After each stretch it runs
    /// `between`, with no pin.
    fn each_node(&self, mut show: impl FnMut(&Spot<'_>, &Node<K, V>, &Pin), between: impl Fn()) {
        let mut from = Some(0);
        while let Some(hash) = from {
            let pin = pin();
            let mut spots = Vec::new();
            from = self.table.scan(hash, &pin, self, &self.domain, &mut spots);
            for spot in spots {
                // SAFETY: linked at the load of its word, under this pin.
                let node = unsafe { deref(spot.object::<Node<K, V>>(), &pin) };
                show(&spot, node, &pin);
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
        self.table.sweep(hand, SWEEP, pin, &mut |spot: Spot<'_>| {
            self.take_expired(&spot, now, pin);
        });
    }

    fn take_expired(&self, spot: &Spot<'_>, now: u64, pin: &Pin) {
        // SAFETY: linked at the load of its word, under this pin.
        let node = unsafe { deref(spot.object::<Node<K, V>>(), pin) };
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
        // SAFETY: linked at the load of its word, under this pin.
        let node = unsafe { deref(spot.object::<Node<K, V>>(), &pin) };
        let serving = self.serving(node, &pin)?;
        Some(serving.slot.state().weight())
    }

    fn find<'p>(&self, hash: u64, pin: &'p Pin, is_key: &dyn Fn(&K) -> bool) -> Option<Spot<'p>> {
        self.table
            .find_to_change(hash, pin, self, &self.domain, &|node| {
                // SAFETY: in the table at the load of its word, under this pin.
                is_key(unsafe { &deref(node, pin).key })
            })
    }

    /// Takes a node out of the table; false if it is not there.
    fn unlink_node(&self, hash: u64, node: &Node<K, V>, event: Event, pin: &Pin) -> bool {
        let linked = || node.slot.state().is_linked();
        self.unlink_while(hash, node, event, pin, &linked)
    }

    /// As [`unlink_node`](Self::unlink_node), while it may be there.
    fn unlink_while(
        &self,
        hash: u64,
        node: &Node<K, V>,
        event: Event,
        pin: &Pin,
        linked: &dyn Fn() -> bool,
    ) -> bool {
        let exchange = || {
            self.table
                .exchange(hash, node, None, pin, self, &self.domain, linked)
        };
        let Some(mark) = linked().then(exchange).flatten() else {
            return false;
        };
        self.remember(mark, || Some(hash), pin);
        self.released(node, event);
        true
    }

    /// Puts `prior` back in the place of `node`. False: that has lost its place.
    fn restore(&self, hash: u64, node: &Node<K, V>, prior: *const Node<K, V>, pin: &Pin) -> bool {
        let linked = || node.slot.state().is_linked();
        let restored = linked()
            && self
                .table
                .exchange(hash, node, Some(prior), pin, self, &self.domain, &linked)
                .is_some();
        if restored {
            self.let_go(node, Event::Replaced);
            // SAFETY: in the table by now; what is taken out of it is kept by our pin.
            self.make_room(0, hash, unsafe { &*prior }, pin);
        }
        restored
    }

    /// One who took part in a flight leaves it; with `None` it was a leader nobody waited for.
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
        self.drop_unclaimed(node);
        self.release_held(node);
        // SAFETY: made by `Arc::into_raw`; `leave` is true once; the slot that led here has
        // ended, so nobody finds it any more.
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
    Serve(&'p Node<K, V>),
    Join(WaitFor),
    /// Put a filling slot in its place; with `prior`, one that stands before it.
    Replace {
        prior: bool,
    },
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

    /// Stops the janitor, if there is one, and waits for its round; unless what is called in that may wait for us: for
    /// what this thread fills, views or drops.
    pub(crate) fn stop_janitor(&self) {
        if let Some(janitor) = self.janitor.get() {
            janitor.stop(!leads_any() && !is_reaping() && !is_pinned());
        }
    }

    #[inline]
    pub(crate) fn janitor(&self) -> Option<&Janitor> {
        self.janitor.get()
    }

    /// Whether this thread may wait for a janitor's round: nothing that it is in the middle of can be what the round
    /// waits for.
    pub(crate) fn may_wait_for_a_round() -> bool {
        !leads_any() && !is_listening() && !is_reaping() && !is_pinned()
    }

    /// Whether all other handles, of so many, might be in what has been removed.
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
        self.released(node, Event::Explicit);
    }
}

impl<K, V, S> Drop for Core<K, V, S> {
    /// Alone with everything: tells what is still to be told, and drops each entry, each drop
    /// contained.
    fn drop(&mut self) {
        // Also on a thread that is pinned, by a view of another cache: this is the last occasion.
        if let Some(bulletin) = &self.bulletin {
            while bulletin.len() > 0 {
                self.tell_of(bulletin);
            }
        }
        let home: Home = std::ptr::from_ref(&*self.slab).cast();
        for node in self.table.drain() {
            // SAFETY: linked, and we are alone; each is listed once. What it stands before is
            // linked to it alone.
            unsafe {
                if let Some(prior) = (*node).slot.take_prior() {
                    Node::<K, V>::reap(prior as *mut (), home);
                }
                Node::<K, V>::reap(node.cast_mut().cast(), home);
            }
        }
    }
}
