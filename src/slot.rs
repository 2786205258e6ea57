//! The cell of one value, and the state word that says which steps are allowed.
//!
//! A slot is written once. It is `FILLING`, then `READY` with a value or `GONE` without one, and never goes back. The
//! slot knows neither its key nor its place in the table.
//!
//! # A refresh hangs on the value it refreshes
//! A first fill has its slot in the table while it runs. A refresh, or a compute over a value, does not: the `READY`
//! slot of the *current* value stays in the table and is served, and its payload is the address of the *successor*,
//! the slot that is being filled. When the successor is `READY`, its leader swaps the table's word from the current
//! slot to the successor. When the fill fails, the leader only takes the successor off the current slot. So nothing is
//! ever put back.
//!
//! # States
//! ```text
//!              publish                    Holds: LINKED (the table, or a current slot, points here), HELD (a leader
//!   FILLING ------------> READY           and its flight use it), NOTIFY (the listener is still to be told), and a
//!      |                                  successor. The thread that ends the last hold retires the slot.
//!      |  finish
//!      '------------> GONE                DETACHED, in any phase: not for newcomers. It never goes away.
//! ```
//! | phase | payload | may have | must have |
//! |---|---|---|---|
//! | `FILLING` | the leader's number, or with `POINTER` the flight | `LINKED`, `DETACHED`, `COMPUTE`, `SUPERSEDED`, `REPLACED`, `UNHOOKED`, `AWAITED`, `REMOVED`, `SLOW` | `HELD` |
//! | `READY` | the weight, or with `POINTER` the successor | all holds, `DETACHED`, `COMMITTED`, `EMPTY`, the flags it had while `FILLING` | with `NOTIFY`: `DETACHED` |
//! | `GONE` | nothing | `LINKED`, `HELD`, `COMMITTED`, `EMPTY`, the flags it had while `FILLING` | no `POINTER`, no `NOTIFY` |
//!
//! `SUPERSEDED`, `REPLACED`, `UNHOOKED`, `AWAITED` and `REMOVED` come with `DETACHED`. [`State::is_legal`] holds the table.
//!
//! # A live value leaves in one step
//! `READY` without `DETACHED` is *live*. Each way to remove the value (an eviction, a removal, an insert, the
//! successor) sets `DETACHED` with one read-modify-write, and the thread that did so accounts for the entry. A refresh
//! begins with a read-modify-write of the same word, which asks for a live value. So no thread removes the value
//! without seeing a refresh that has begun, and none begins a refresh of a removed value.
//!
//! # One order of a fill's end and all that comes between
//! The end of a fill (`publish`, `finish`) and each operation that detaches it are read-modify-writes of the *filling*
//! slot's state, also of a successor. So one is before the other:
//!
//! * An operation that comes first is seen by the end: the value goes to the callers that joined, and is not kept.
//! * An end that comes first is seen by the operation. Of a successor that is `COMMITTED` the leader accounts for the
//!   current value; the operation removes both.
//!
//! A compute reads the current value and then replaces it; no other operation may answer with the current value in
//! between. A removal that waits detaches the compute, hides the current value, and answers with the value that the
//! compute leaves ([`State::is_awaited`]): the compute comes first. A removal that does not wait adds `SUPERSEDED`:
//! the removal comes first, and the compute has no effect. An insert (`REPLACED`) comes after the compute.
//!
//! # Orderings
//! Every change of the state word of a shared slot is a read-modify-write with `AcqRel` at least, but for the last
//! store (`release_last_linked`). Every load is `Acquire`:
//!
//! * `publish` writes value and deadline, then the state (Release). A hit loads the state (Acquire), sees `READY`, and
//!   so sees both. A successor's deadline is written after its state, and before the store to the table's word
//!   (Release) that leads to it.
//! * A leader that publishes and then asks whether a debt was left (bound.rs), and a thread that leaves one and then
//!   looks at the state, are one before the other: `publish` and `state_now` are `SeqCst`.
//! * `release` (Release) comes after its caller's last look at the slot. The release that clears the last hold
//!   (Acquire) therefore comes after every such look, and its caller may retire the slot.

use crate::flight::Flight;
use crate::sync::{AtomicU64, Ordering, UnsafeCell};
use crate::time::{Deadline, NEVER};
use std::mem::MaybeUninit;
use std::sync::Arc;

const PHASE: u64 = 0b11;
const FILLING: u64 = 0;
const READY: u64 = 1;
const GONE: u64 = 2;

/// The table's hold: a word points here, or a current slot does.
const LINKED: u64 = 1 << 2;
/// The hold of a leader and of the flight it leads.
const HELD: u64 = 1 << 3;
/// Not for newcomers: a caller that joined gets the outcome, a later one does not.
const DETACHED: u64 = 1 << 4;
/// The payload is an address: of the flight, while filling; of the successor, of a `READY` slot, which this holds too.
const POINTER: u64 = 1 << 5;
/// The hold of the listener, which is to be told that the value was removed.
const NOTIFY: u64 = 1 << 6;
/// The listener of slow fills has been told of this one.
const SLOW: u64 = 1 << 7;
/// The fill is a compute, which has read the current value.
const COMPUTE: u64 = 1 << 8;
/// The compute has no effect: a removal that does not wait, or an abandonment, came first.
const SUPERSEDED: u64 = 1 << 9;
/// An insert detached the fill, before any removal did.
const REPLACED: u64 = 1 << 10;
/// The thread that set it takes the successor off the current slot, or the slot out of the table. The leader does not, and no
/// removal waits for this fill.
const UNHOOKED: u64 = 1 << 11;
/// Of a successor: its end removes the current value, and its leader accounts for that.
const COMMITTED: u64 = 1 << 12;
/// Of a compute: it leaves nothing to a removal that waits for it.
const EMPTY: u64 = 1 << 13;
/// The compute was detached by a removal that waits for it, which answers with the value that it leaves.
const AWAITED: u64 = 1 << 14;
/// A removal was the first to detach the fill: no other operation answers with the current value.
const REMOVED: u64 = 1 << 15;

/// Any of the holds.
const HOLDS: u64 = LINKED | HELD | NOTIFY;

const FLAGS: u64 = (1 << PAYLOAD_SHIFT) - 1;
const PAYLOAD_SHIFT: u32 = 16;

/// Of `aux`, while filling: the other bits are the weight of the current value. A deadline never has this bit.
const PARKED: u64 = 1 << 63;

/// The cell of one value.
pub(crate) struct Slot<V> {
    state: AtomicU64,
    /// Once `READY`: the deadline. While filling, of a successor: `PARKED` and the weight of the current value, for
    /// which the state word has no room. Of a first fill: one more than the time when it began, or 0 if that is not
    /// known.
    aux: AtomicU64,
    /// The leader alone writes it, before `READY`; every thread may read it after that.
    value: UnsafeCell<MaybeUninit<V>>,
}

/// The state word of a slot, as one load or one change saw it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct State(u64);

impl State {
    const fn has(self, flags: u64) -> bool {
        self.0 & flags == flags
    }

    /// Has a value that newcomers may be given, its deadline aside.
    #[inline(always)]
    pub(crate) const fn is_live(self) -> bool {
        self.0 & (PHASE | DETACHED) == READY
    }

    pub(crate) const fn is_filling(self) -> bool {
        self.0 & PHASE == FILLING
    }

    /// Has a value, also one that is not for newcomers.
    pub(crate) const fn has_value(self) -> bool {
        self.0 & PHASE == READY
    }

    pub(crate) const fn is_linked(self) -> bool {
        self.has(LINKED)
    }

    pub(crate) const fn is_detached(self) -> bool {
        self.has(DETACHED)
    }

    /// An insert detached the fill, before any removal did.
    pub(crate) const fn is_replaced(self) -> bool {
        self.has(REPLACED)
    }

    /// The thread that detached the fill also unhooks it, from the current slot or from the table. The leader does
    /// not, and no removal waits for the fill.
    pub(crate) const fn is_unhooked(self) -> bool {
        self.has(UNHOOKED)
    }

    /// A removal was the first to detach the fill, and answers with the current value.
    pub(crate) const fn is_removed(self) -> bool {
        self.has(REMOVED)
    }

    pub(crate) const fn is_compute(self) -> bool {
        self.has(COMPUTE)
    }

    /// A compute that has no effect.
    pub(crate) const fn is_superseded(self) -> bool {
        self.has(SUPERSEDED)
    }

    /// Of a successor: its end removes the current value, and its leader accounts for that.
    pub(crate) const fn is_committed(self) -> bool {
        self.has(COMMITTED)
    }

    /// A removal has detached this compute and waits for its end, to answer with the value that it leaves. The thread
    /// that ends the compute accounts for the current value.
    pub(crate) const fn is_awaited(self) -> bool {
        self.has(AWAITED)
    }

    /// The thread that takes this successor off the current value accounts for that.
    pub(crate) const fn accounts_for_current(self) -> bool {
        self.0 & (AWAITED | COMMITTED) != 0
    }

    /// Says whether a thread that detaches this fill and does not wait for it also unhooks it. Not if another thread
    /// has. Nor if the compute is awaited: then its end accounts for the current value.
    pub(crate) const fn unhooks(self) -> bool {
        self.0 & (UNHOOKED | AWAITED) == 0
    }

    /// A compute that leaves no value to a removal that waited for it.
    pub(crate) const fn is_empty(self) -> bool {
        self.has(EMPTY)
    }

    /// Returns the weight of the value; of a slot with a value and without a successor.
    pub(crate) const fn weight(self) -> u64 {
        self.0 >> PAYLOAD_SHIFT
    }

    /// Returns the weight of the value, if there is one, also one that is not for newcomers.
    pub(crate) const fn weight_of_value(self) -> u64 {
        if self.0 & (PHASE | POINTER) == READY {
            self.weight()
        } else {
            0
        }
    }

    /// The value is removed, and only the table still holds the slot. A removed value gets no further hold.
    pub(crate) const fn is_last_linked(self) -> bool {
        self.0 & (PHASE | DETACHED | POINTER | HOLDS) == READY | DETACHED | LINKED
    }

    fn pointer(self) -> usize {
        (self.0 >> PAYLOAD_SHIFT) as usize
    }

    /// Returns the flight, if a caller has had to wait for this fill.
    pub(crate) fn flight(self) -> Option<*const Flight> {
        (self.0 & (PHASE | POINTER) == FILLING | POINTER)
            .then(|| std::ptr::with_exposed_provenance(self.pointer()))
    }

    /// Returns the address of the successor, if a refresh hangs on this value.
    pub(crate) fn successor(self) -> Option<usize> {
        (self.0 & (PHASE | POINTER) == READY | POINTER).then(|| self.pointer())
    }

    /// Returns the leader, while no caller waits.
    pub(crate) const fn leader(self) -> u64 {
        self.0 >> PAYLOAD_SHIFT
    }

    /// Says whether a hold, or a successor, still keeps the slot.
    fn is_held(self) -> bool {
        self.0 & HOLDS != 0 || self.successor().is_some()
    }

    const fn with_payload(self, payload: u64, flag: u64) -> Self {
        Self(self.0 & FLAGS & !POINTER | flag | payload << PAYLOAD_SHIFT)
    }

    const fn in_phase(self, phase: u64, more: u64) -> Self {
        Self(self.with_payload(0, 0).0 & !PHASE | phase | more)
    }

    /// Whether the state is one of the module's table.
    const fn is_legal(self) -> bool {
        let detached = self.has(DETACHED)
            || self.0 & (SUPERSEDED | REPLACED | UNHOOKED | AWAITED | REMOVED) == 0;
        let of_phase = match self.0 & PHASE {
            FILLING => self.has(HELD) && self.0 & (NOTIFY | COMMITTED | EMPTY) == 0,
            READY => self.has(DETACHED) || !self.has(NOTIFY),
            GONE => self.0 & (POINTER | NOTIFY) == 0,
            _ => false,
        };
        detached && of_phase
    }
}

/// The effect of giving up a hold.
#[derive(Clone, Copy)]
pub(crate) struct Released {
    /// The value was live before.
    pub(crate) was_live: bool,
    /// It was the last one: the caller retires the slot.
    pub(crate) last: bool,
}

impl Released {
    fn new(before: State, after: State) -> Self {
        Self {
            was_live: before.is_live(),
            last: before.is_held() && !after.is_held(),
        }
    }
}

impl<V> Slot<V> {
    /// A slot of a first fill, that `leader` is going to fill.
    pub(crate) fn filling(leader: u64) -> Self {
        Self {
            state: AtomicU64::new(FILLING | LINKED | HELD | leader << PAYLOAD_SHIFT),
            // `prepare` writes it.
            aux: AtomicU64::new(0),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// A slot that has its value from the start. With a TTL of zero the value is for waiters alone.
    pub(crate) fn ready(value: V, deadline: Deadline, weight: u64) -> Self {
        let detached = if deadline == Deadline::Past {
            DETACHED
        } else {
            0
        };
        Self {
            state: AtomicU64::new(READY | LINKED | detached | weight << PAYLOAD_SHIFT),
            aux: AtomicU64::new(deadline.to_bits()),
            value: UnsafeCell::new(MaybeUninit::new(value)),
        }
    }

    /// Says of a slot that no other thread changes yet what it is going to be filled for: a successor of a value that weighs
    /// `parked`, or a first fill that begins at `begins`; and whether the fill is a compute.
    pub(crate) fn prepare(&self, leader: u64, parked: Option<u64>, begins: u64, compute: bool) {
        let compute = if compute { COMPUTE } else { 0 };
        // Relaxed, twice: the read-modify-write that lets others find the slot releases them.
        self.state.store(
            FILLING | LINKED | HELD | compute | leader << PAYLOAD_SHIFT,
            Ordering::Relaxed,
        );
        self.aux.store(
            parked.map_or(begins + 1, |weight| PARKED | weight),
            Ordering::Relaxed,
        );
    }

    /// Returns the slot's name in the wait-for graph.
    pub(crate) fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Acquire: pairs with `publish`. A state that is live comes with its value and deadline.
    #[inline(always)]
    pub(crate) fn state(&self) -> State {
        State(self.state.load(Ordering::Acquire))
    }

    /// Loads the state as [`state`](Self::state) does, but `SeqCst`: for a thread that has just written something that
    /// a publishing leader reads. The leader sees the write, or this sees the publish.
    pub(crate) fn state_now(&self) -> State {
        State(self.state.load(Ordering::SeqCst))
    }

    /// Returns the value.
    ///
    /// # Safety
    /// A state in phase `READY` has been loaded from this slot (or its outcome been learned from its flight), or the
    /// caller leads and has [written](Self::write) the value. And a pin or a hold keeps the slot for as long as the
    /// reference lives.
    #[inline(always)]
    pub(crate) unsafe fn value<'a>(&self) -> &'a V {
        // SAFETY: `READY` was loaded with Acquire after the one write, which `publish` released, or the write is the
        // caller's own; nothing writes again. The caller keeps the slot.
        self.value
            .with(|value| unsafe { (*value).assume_init_ref() })
    }

    /// Lends the value, if newcomers may have it, its deadline aside.
    pub(crate) fn live(&self) -> Option<&V> {
        // SAFETY: `READY` was loaded, and the slot lives for as long as it is borrowed.
        self.state().is_live().then(|| unsafe { self.value() })
    }

    /// Lends the value, if there is one, also one that is not for newcomers.
    pub(crate) fn read(&self) -> Option<&V> {
        // SAFETY: `READY` was loaded, and the slot lives for as long as it is borrowed.
        self.state().has_value().then(|| unsafe { self.value() })
    }

    /// Says whether a live slot's value is still served. `is_before` says whether a deadline is still to come.
    #[inline(always)]
    pub(crate) fn is_unexpired(&self, is_before: impl FnOnce(u64) -> bool) -> bool {
        // Relaxed: written before the state or the table's word that led here, which was loaded with Acquire.
        let deadline = self.aux.load(Ordering::Relaxed);
        deadline == NEVER || is_before(deadline)
    }

    /// Says whether a live slot's TTL is over.
    pub(crate) fn is_expired(&self, now: u64) -> bool {
        // Relaxed: the deadline was written before the state or the table's word that led here, which was loaded with
        // Acquire.
        self.aux.load(Ordering::Relaxed) <= now
    }

    /// Returns the deadline, if the slot is live. For a thread that has written something that a publishing leader
    /// reads, and now asks whether the leader has published; so it loads the state as [`state_now`](Self::state_now)
    /// does.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let live = self.state_now().is_live();
        // Relaxed: the deadline was written before the state or the table's word that led here, which was loaded with
        // Acquire. (A successor that is not in the table yet may have no deadline yet.)
        let deadline = live.then(|| self.aux.load(Ordering::Relaxed));
        deadline.filter(|&deadline| deadline & PARKED == 0)
    }

    /// Returns the weight of the current value, which this successor keeps as long as it has no deadline of its own.
    /// `None`: the slot is `READY`, and about to take the place of the current one.
    pub(crate) fn parked(&self) -> Option<u64> {
        // Acquire: pairs with the Release of `set_deadline`.
        let aux = self.aux.load(Ordering::Acquire);
        (aux & PARKED != 0).then_some(aux & !PARKED)
    }

    /// Changes the state as `change` says, unless it answers `None`. Returns the state before.
    fn update(&self, change: impl Fn(State) -> Option<State>) -> Result<State, State> {
        self.state
            .fetch_update(Ordering::SeqCst, Ordering::Acquire, |state| {
                let to = change(State(state))?;
                debug_assert!(to.is_legal(), "from {state:#x} to {:#x}", to.0);
                Some(to.0)
            })
            .map(State)
            .map_err(State)
    }

    /// Changes the state from `seen` to `to`, if it is still that.
    fn swap(&self, seen: State, to: State) -> bool {
        debug_assert!(to.is_legal(), "from {:#x} to {:#x}", seen.0, to.0);
        self.state
            .compare_exchange(seen.0, to.0, Ordering::SeqCst, Ordering::Acquire)
            .is_ok()
    }

    /// Hangs the refresh of `successor` on this value, if its state is still `seen`, which is live. False: the state
    /// has changed.
    pub(crate) fn begin_refresh(&self, seen: State, successor: usize) -> bool {
        debug_assert!(seen.is_live() && seen.successor().is_none());
        let to = seen.with_payload(address_as_payload(successor), POINTER);
        // Release: the successor is whole for each thread that loads its address.
        self.swap(seen, to)
    }

    /// Takes the successor off this value, which weighs `weight`, and gives the refresh's hold up. The same step does
    /// as `how` says: it removes the value, or gives up the table's hold.
    pub(crate) fn end_refresh(&self, weight: u64, how: Removal) -> Released {
        let change = |state: State| {
            debug_assert!(state.successor().is_some());
            how.apply(state.with_payload(weight, 0))
        };
        match self.update(|state| Some(change(state))) {
            Ok(before) => Released::new(before, change(before)),
            Err(_) => unreachable!("it always changes"),
        }
    }

    /// Removes this live value, if its state is still `seen`: the one step that does. `None`: the state has changed.
    pub(crate) fn remove(&self, seen: State, how: Removal) -> Option<Released> {
        debug_assert!(seen.is_live());
        let to = how.apply(seen);
        self.swap(seen, to).then(|| Released::new(seen, to))
    }

    /// Writes the value into its cell, which belongs to the leader until the flight has ended. Until then no other
    /// thread reads the value, and it is not dropped with the slot.
    ///
    /// # Safety
    /// The caller is this slot's leader, and has not ended the flight before.
    #[inline]
    pub(crate) unsafe fn write(&self, value: V) {
        // SAFETY: only the leader writes, and no thread reads before `READY`.
        self.value.with_mut(|cell| unsafe { (*cell).write(value) });
    }

    /// Takes back a value that was [written](Self::write) and has not been published.
    ///
    /// # Safety
    /// The caller is this slot's leader, has written the value, and has neither published it nor taken it back.
    pub(crate) unsafe fn take_back(&self) -> V {
        // SAFETY: the caller has written the value. The slot is not `READY`, so no other thread reads it or drops it.
        self.value
            .with(|cell| unsafe { (*cell).assume_init_read() })
    }

    /// Drops a value that was [written](Self::write) and has not been published, where it is.
    ///
    /// # Safety
    /// The caller is this slot's leader, has written the value, and has neither published it nor taken it back.
    pub(crate) unsafe fn drop_written(&self) {
        // SAFETY: the caller has written the value. The slot is not `READY`, so no other thread reads it or drops it.
        self.value
            .with_mut(|cell| unsafe { (*cell).assume_init_drop() });
    }

    /// Ends the flight with the value that is in its cell: the leader's one success. Returns the state before. If the
    /// slot is in the table and the state before has no flight, this step gives up the leader's hold too, and the
    /// caller's pin keeps the slot.
    ///
    /// A value that is not to be kept is for the callers that joined, as if the flight had been detached. A value with
    /// a TTL of zero is one. The value of a compute that [a removal waits for](State::is_awaited) is removed in this
    /// step, and held for the listener with `tell`.
    ///
    /// `Err`, and the flight has not ended: the compute is superseded.
    ///
    /// # Safety
    /// The caller is this slot's leader, has [written](Self::write) the value, and has not ended the flight before.
    pub(crate) unsafe fn publish(&self, end: Publish) -> Result<State, State> {
        let stays = end.stays();
        if !end.is_successor {
            self.aux.store(end.deadline.to_bits(), Ordering::Relaxed);
        }
        // Release: pairs with the Acquire of `state`. The leader wrote the value before.
        self.update(|state| {
            if state.is_superseded() {
                return None;
            }
            let mut flags = end.weight << PAYLOAD_SHIFT;
            if state.is_awaited() {
                flags |= match (stays, end.tell) {
                    (false, _) => EMPTY,
                    (true, true) => NOTIFY,
                    (true, false) => 0,
                };
            }
            if !stays {
                flags |= DETACHED;
            }
            let commits = end.is_successor && !state.is_detached();
            if commits {
                flags |= COMMITTED;
            }
            let linked = if end.is_successor {
                commits && stays
            } else {
                state.is_linked()
            };
            let held = if linked && state.flight().is_none() {
                HELD
            } else {
                0
            };
            Some(State(state.in_phase(READY, flags).0 & !held))
        })
    }

    /// Sets the deadline of a successor that is published, and about to be put into the table.
    pub(crate) fn set_deadline(&self, deadline: Deadline) {
        // Release: pairs with the Acquire of `parked`. A thread that finds the deadline there sees the slot `READY`.
        self.aux.store(deadline.to_bits(), Ordering::Release);
    }

    /// Ends the flight without a value, if no caller has begun to wait since `seen`. Returns the state before.
    ///
    /// The answer is the state that the swap replaced, not `seen`: the flight may have been detached in between.
    pub(crate) fn finish(&self, seen: State, leaves: Leaves) -> Option<State> {
        self.update(|state| {
            let more = match (leaves, state.is_detached()) {
                (Leaves::Current, _) => 0,
                (Leaves::Expired, _) | (Leaves::Nothing, true) => EMPTY,
                (Leaves::Nothing, false) => EMPTY | COMMITTED,
            };
            (state.flight() == seen.flight()).then(|| state.in_phase(GONE, more))
        })
        .ok()
    }

    /// Detaches a fill. If the caller is the first and the fill is a compute, the compute is awaited if the caller
    /// `waits`, and superseded if not. A caller that does not wait also unhooks the fill. Returns the state
    /// before. `Err`: it has ended.
    pub(crate) fn detach(&self, waits: bool) -> Result<State, State> {
        self.update(|state| {
            let compute = match (state.is_compute() && !state.is_detached(), waits) {
                (false, _) => 0,
                (true, true) => AWAITED,
                (true, false) => SUPERSEDED,
            };
            let unhooked = if !waits && state.unhooks() {
                UNHOOKED
            } else {
                0
            };
            let first = if state.is_detached() { 0 } else { REMOVED };
            let to = State(state.0 | DETACHED | compute | unhooked | first);
            state.is_filling().then_some(to)
        })
    }

    /// Supersedes a compute that the caller has detached, and is not going to wait for after all. `Err`: it has ended.
    pub(crate) fn supersede(&self) -> Result<State, State> {
        self.update(|state| {
            let may = state.is_filling() && state.is_awaited() && !state.is_superseded();
            may.then_some(State(state.0 | SUPERSEDED))
        })
    }

    /// Detaches a fill when an insert has just given its key another value, and unhooks it. A compute comes before the
    /// insert. Returns the state before. `Err`: it has ended.
    pub(crate) fn detach_replaced(&self) -> Result<State, State> {
        self.update(|state| {
            let first = if state.is_detached() { 0 } else { REPLACED };
            let unhooked = if state.unhooks() { UNHOOKED } else { 0 };
            state
                .is_filling()
                .then_some(State(state.0 | DETACHED | first | unhooked))
        })
    }

    /// Gives a fill up, once: detaches it, and takes over the steps that its leader would have to take at its end. A
    /// compute is superseded. Returns the state before. `Err`: it has ended, or was given up.
    pub(crate) fn abandon(&self) -> Result<State, State> {
        self.update(|state| {
            let superseded = if state.is_compute() { SUPERSEDED } else { 0 };
            let may = state.is_filling() && !state.is_unhooked();
            may.then_some(State(state.0 | DETACHED | UNHOOKED | superseded))
        })
    }

    /// Marks the fill as no compute: the compute's leader is lost, and the next leader fills. False: it is detached.
    pub(crate) fn compute_is_lost(&self) -> bool {
        self.update(|state| (!state.is_detached()).then_some(State(state.0 & !COMPUTE)))
            .is_ok()
    }

    /// Hangs a new flight on the slot, if it has none and its state `may` be joined. `Err`: the state that was found.
    pub(crate) fn hang(&self, may: impl Fn(State) -> bool) -> Result<*const Flight, State> {
        let seen = self.state();
        if !may(seen) || seen.flight().is_some() {
            return Err(seen);
        }
        let flight = Arc::into_raw(Arc::new(Flight::new(self.address(), seen.leader())));
        let address = address_as_payload(flight.expose_provenance());
        // Release: a thread that loads the address (Acquire) sees the flight fully made.
        self.update(|state| {
            (may(state) && state.flight().is_none()).then(|| state.with_payload(address, POINTER))
        })
        .map(|_| flight)
        .inspect_err(|_| {
            // SAFETY: made above, and shared with no other thread.
            drop(unsafe { Arc::from_raw(flight) });
        })
    }

    /// Says of a slot that is not yet in the table whether it is held for the waiters of another.
    pub(crate) fn set_held(&self, held: bool) {
        if held {
            self.state.fetch_or(HELD, Ordering::AcqRel);
        } else {
            self.state.fetch_and(!HELD, Ordering::AcqRel);
        }
    }

    /// Returns the time when a first fill began, if that is known. Of a slot that fills.
    pub(crate) fn began(&self) -> Option<u64> {
        let aux = self.aux.load(Ordering::Relaxed);
        let began = (aux != 0 && aux & PARKED == 0).then(|| aux - 1);
        // A fill that has ended by now may have replaced the time with a deadline; then the state shows it.
        began.filter(|_| self.state().is_filling())
    }

    /// Says that the listener of slow fills is told of this one; true for the first call.
    pub(crate) fn mark_slow(&self) -> bool {
        self.state.fetch_or(SLOW, Ordering::AcqRel) & SLOW == 0
    }

    /// Gives up the table's hold.
    pub(crate) fn release_linked(&self) -> Released {
        self.release(LINKED)
    }

    /// Gives up the table's hold of a removed value that has no other hold. The caller has just taken the slot out of
    /// the table, and retires it.
    pub(crate) fn release_last_linked(&self, removed: State) {
        debug_assert!(removed.is_last_linked());
        // Release: pairs with the Acquire of a thread that loads whether the slot is in the table. A store is enough:
        // no hold but this one is left, and a removed value gets none.
        self.state.store(removed.0 & !LINKED, Ordering::Release);
    }

    /// Gives up the hold of a flight.
    pub(crate) fn release_held(&self) -> Released {
        self.release(HELD)
    }

    /// Gives up the hold of the listener.
    pub(crate) fn release_notified(&self) -> Released {
        self.release(NOTIFY)
    }

    fn release(&self, hold: u64) -> Released {
        // AcqRel: see the module's Orderings.
        let before = State(self.state.fetch_and(!hold, Ordering::AcqRel));
        debug_assert!(before.0 & hold != 0, "a hold is released once");
        Released::new(before, State(before.0 & !hold))
    }
}

/// The part of the current value that a fill without a value leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaves {
    Current,
    /// The current value has expired: a removal cannot answer with it.
    Expired,
    /// No value: the fill is a compute that removes.
    Nothing,
}

/// Further changes that go into the same step of the state.
#[derive(Clone, Copy, Default)]
pub(crate) struct Removal {
    pub(crate) value: Takes,
    /// The table's hold goes.
    pub(crate) link: bool,
    /// The slot is held for the listener, if its value is taken.
    pub(crate) notify: bool,
}

/// Whether a change of the state takes the value.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Takes {
    #[default]
    Nothing,
    /// If it is live.
    Live,
    /// A live value, or one hidden by a thread that left the account to this one.
    Hidden,
}

impl Removal {
    const fn apply(self, state: State) -> State {
        let takes = match self.value {
            Takes::Nothing => false,
            Takes::Live => state.is_live(),
            Takes::Hidden => true,
        };
        let mut to = state.0;
        if takes {
            to |= DETACHED | if self.notify { NOTIFY } else { 0 };
        }
        if self.link {
            to &= !LINKED;
        }
        State(to)
    }
}

/// How a leader ends its flight with a value.
#[derive(Clone, Copy)]
pub(crate) struct Publish {
    pub(crate) deadline: Deadline,
    pub(crate) weight: u64,
    /// It is not too heavy.
    pub(crate) kept: bool,
    /// There is a listener.
    pub(crate) tell: bool,
    pub(crate) is_successor: bool,
}

impl Publish {
    /// Says whether the value is for the cache, and not only for the callers that joined.
    pub(crate) fn stays(&self) -> bool {
        self.kept && self.deadline != Deadline::Past
    }
}

/// # Panics
/// Panics if the address does not fit in 48 bits. Linux hands out such addresses only to programs that ask for them.
fn address_as_payload(address: usize) -> u64 {
    let address = address as u64;
    assert!(
        address >> (64 - PAYLOAD_SHIFT) == 0,
        "atomic-cache keeps pointers in 48 bits, and was given {address:#x} by the allocator"
    );
    address
}

impl Deadline {
    const fn to_bits(self) -> u64 {
        match self {
            Self::Past => 0,
            Self::At(nanos) => nanos,
            Self::Never => NEVER,
        }
    }
}

impl<V> Drop for Slot<V> {
    fn drop(&mut self) {
        if self.state().has_value() {
            // SAFETY: `READY` means that the value was written; a slot that is dropped has one owner, this one.
            self.value
                .with_mut(|cell| unsafe { (*cell).assume_init_drop() });
        }
    }
}
