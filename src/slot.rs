//! One value's life.
//!
//! A slot is written once: it is `FILLING`, then `READY` with a value or `GONE` without one, and
//! never goes back. A refill is another slot. The slot knows neither its key nor where it is.
//!
//! ```text
//!              publish                         Holds, in any phase: LINKED (the table points here)
//!   FILLING ------------> READY                and HELD (a leader fills it, or waiters of its
//!      |                                       flight still read it). After LINKED, TOLD (the
//!      |  finish                               listener is still to be told). Who clears the
//!      '------------> GONE                     last of them retires the slot.
//!
//!   FLIGHT: somebody waits; the word           CUT, in any phase: not for newcomers. Set while
//!   holds the flight's address                 filling by whoever fences the flight off.
//! ```
//!
//! # Computes
//! A compute reads what its slot stands before (the prior), and then puts something in its place: nobody else may
//! answer with the prior in between. Who removes the key says so with one read-modify-write of the state, which is
//! before the one that ends the compute, or finds that it has ended:
//!
//! * A removal that waits takes part in the flight, then sets `CUT`. The prior is served until the compute ends. With a
//!   value that is `READY` and `CUT`, removed in the same step, and the first who sets `CLAIMED` answers with it. Without
//!   one the leader removes the prior (`remove_prior`), which stays where it is; who takes it answers with it. The
//!   last part to leave the flight lets go of what nobody has claimed.
//! * One that does not wait sets `CUT` and `SUPERSEDED`, then takes the prior, and answers with it. The compute finds
//!   `SUPERSEDED` when it ends, and has no effect. So does a takeover, which gives the prior back, and an insert that
//!   meets a removal which waits: that has the prior, and the insert comes after it.
//!
//! # Orderings
//! Every change of the state word is a read-modify-write with `AcqRel` at least, every load `Acquire`:
//!
//! * `publish` writes value and deadline, then the state (Release). A hit loads the state
//!   (Acquire), sees `READY`, and so sees both.
//! * Who publishes, and then asks whether a debt was left (bound.rs), and who leaves one, and then looks at
//!   the state, are one before the other: `publish` and `state_now` are `SeqCst`.
//! * `release` (Release) comes after its caller's last look at the slot; the release that clears
//!   the last hold (Acquire) therefore comes after every such look, and its caller may retire.

use crate::flight::Flight;
use crate::interlude::come_by;
use crate::linger::Lingering;
use crate::sync::{AtomicU64, Ordering, UnsafeCell};
use crate::time::{Deadline, NEVER};
use std::mem::MaybeUninit;
use std::sync::Arc;

const PHASE: u64 = 0b11;
const FILLING: u64 = 0;
const READY: u64 = 1;
const GONE: u64 = 2;

/// The table's hold.
const LINKED: u64 = 1 << 2;
/// The hold of a leader, and of the flight it leads.
const HELD: u64 = 1 << 3;
/// Fenced off: joined waiters get the outcome, newcomers do not.
const CUT: u64 = 1 << 4;
/// The payload is a flight's address; else, while filling, the leader's actor number.
const FLIGHT: u64 = 1 << 5;

/// Out of the table with its value, and held for waiters or for the listener: counted as
/// lingering, in the generation that the bit above says.
const LINGERS: u64 = 1 << 6;
const GENERATION_SHIFT: u32 = 7;

/// The hold of the listener, which is to be told that the value was removed.
const TOLD: u64 = 1 << 8;

/// The flight's hold is also one for tasks, which come when they are polled, if ever: the slot does
/// not linger.
const TASKS: u64 = 1 << 9;

/// Somebody has been told that the fill is slow.
const SLOW: u64 = 1 << 10;

/// Fenced off by a takeover, with `CUT`. Nobody else fences the slot off.
const TAKEN: u64 = 1 << 11;

/// And nobody had before: what the slot stands before goes on being served until it is back in its place. It belongs
/// to whoever takes the slot out of the table; if it was out already, to whoever took over.
const RESTORES: u64 = 1 << 12;

/// The fill is a compute, which has read what its slot stands before. Who removes beside it either waits for its end
/// (`CUT`) and has what it leaves, or comes first (`SUPERSEDED`). Not of a compute that an insert has detached: that
/// is as if just before the insert.
const COMPUTE: u64 = 1 << 13;

/// With `COMPUTE` and `CUT`: what the compute has read was taken out meanwhile, so it has no effect.
const SUPERSEDED: u64 = 1 << 14;

/// With `COMPUTE` and `CUT`: if `READY`, a removal has answered with the value, or none may; if `GONE`, the compute has
/// removed what it stood before, and none may.
const CLAIMED: u64 = 1 << 15;

/// Any of the holds.
const HOLDS: u64 = LINKED | HELD | TOLD;

const FLAGS: u64 = (1 << PAYLOAD_SHIFT) - 1;
const PAYLOAD_SHIFT: u32 = 16;

/// While filling, `aux` with this bit is the address of the object that this one stands before;
/// a deadline never has it.
const PRIOR: u64 = 1 << 63;

/// The cell of one value.
pub(crate) struct Slot<V> {
    state: AtomicU64,
    /// Once `READY`: the deadline. While filling: `PRIOR` and an address; or one more than when it
    /// began, or 0 if that is not known.
    aux: AtomicU64,
    /// Written by the leader alone, before `READY`; read by anybody after.
    value: UnsafeCell<MaybeUninit<V>>,
}

/// What a slot's state word said at one moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct State(u64);

impl State {
    /// Has a value that newcomers may be given, its deadline aside.
    #[inline(always)]
    pub(crate) const fn is_live(self) -> bool {
        self.0 & (PHASE | CUT) == READY
    }

    pub(crate) const fn is_filling(self) -> bool {
        self.0 & PHASE == FILLING
    }

    /// Fenced off by a takeover.
    pub(crate) const fn is_taken(self) -> bool {
        self.0 & TAKEN != 0
    }

    /// Fenced off by a takeover and by nobody else: what the slot stands before is served.
    pub(crate) const fn restores(self) -> bool {
        self.0 & RESTORES != 0
    }

    /// Whether tasks take part in the flight.
    pub(crate) const fn has_tasks(self) -> bool {
        self.0 & (HELD | TASKS) == HELD | TASKS
    }

    pub(crate) const fn is_cut(self) -> bool {
        self.0 & CUT != 0
    }

    /// The fill is a compute: see [`COMPUTE`].
    pub(crate) const fn is_compute(self) -> bool {
        self.0 & COMPUTE != 0
    }

    /// A compute that has no effect.
    pub(crate) const fn is_superseded(self) -> bool {
        self.0 & SUPERSEDED != 0
    }

    /// The compute has ended by taking out what it stood before: no removal that waits has that.
    pub(crate) const fn has_removed(self) -> bool {
        self.0 & (PHASE | COMPUTE | CLAIMED) == GONE | COMPUTE | CLAIMED
    }

    /// What the slot stands before is not served: it was detached. A removal that waits for a compute leaves that
    /// served until the compute has ended.
    pub(crate) const fn hides_prior(self) -> bool {
        let until_the_end = self.is_filling() && self.0 & (COMPUTE | SUPERSEDED | TAKEN) == COMPUTE;
        self.is_cut() && !self.restores() && !until_the_end
    }

    /// A removal that waits for this compute has what it leaves.
    pub(crate) const fn leaves_to_removals(self) -> bool {
        self.0 & (COMPUTE | CUT | SUPERSEDED | TAKEN) == COMPUTE | CUT
    }

    pub(crate) const fn is_linked(self) -> bool {
        self.0 & LINKED != 0
    }

    /// Has a value, also one that is not for newcomers.
    pub(crate) const fn has_value(self) -> bool {
        self.0 & PHASE == READY
    }

    /// Has a value that is not for newcomers: of a slot that had been live, it was removed.
    pub(crate) const fn was_removed(self) -> bool {
        self.has_value() && self.is_cut()
    }

    /// What the value weighs; of a slot with a value.
    pub(crate) const fn weight(self) -> u64 {
        self.0 >> PAYLOAD_SHIFT
    }

    /// What the value weighs, if it has one; also one that is not for newcomers.
    pub(crate) const fn weight_of_value(self) -> u64 {
        if self.0 & PHASE == READY {
            self.weight()
        } else {
            0
        }
    }

    /// The generation in which the slot lingers, if it does.
    const fn lingers(self) -> Option<usize> {
        if self.0 & LINGERS == 0 {
            return None;
        }
        Some((self.0 >> GENERATION_SHIFT & 1) as usize)
    }

    /// Counted in the cache's length: live and in the table.
    pub(crate) const fn counts(self) -> bool {
        self.is_live() && self.is_linked()
    }

    /// See [`Slot::cut`].
    const fn may_be_cut(self) -> bool {
        let here = !self.is_compute() || self.is_linked();
        self.is_filling() && !self.is_taken() && !self.is_superseded() && here
    }

    /// While filling: nobody waits, and the table holds the slot too. Then the leader's hold ends
    /// in the same step as its flight.
    pub(crate) const fn lets_go(self) -> bool {
        self.0 & (LINKED | FLIGHT) == LINKED
    }

    /// The flight, if anybody has had to wait.
    pub(crate) fn flight(self) -> Option<*const Flight> {
        if self.0 & FLIGHT == 0 {
            return None;
        }
        Some(std::ptr::with_exposed_provenance(
            (self.0 >> PAYLOAD_SHIFT) as usize,
        ))
    }

    /// The leader, while nobody waits.
    pub(crate) const fn leader(self) -> u64 {
        self.0 >> PAYLOAD_SHIFT
    }

    const fn with_payload(self, payload: u64, flag: u64) -> Self {
        Self(self.0 & FLAGS & !FLIGHT | flag | payload << PAYLOAD_SHIFT)
    }

    const fn in_phase(self, phase: u64, more: u64) -> Self {
        Self(self.with_payload(0, 0).0 & !PHASE | phase | more)
    }
}

/// What came of giving up a hold.
pub(crate) struct Released {
    /// The state before.
    pub(crate) before: State,
    /// It was the last one: the slot is to be retired, by us.
    pub(crate) last: bool,
}

impl Released {
    fn new(before: State, hold: u64) -> Self {
        debug_assert!(before.0 & hold != 0, "a hold is released once");
        let last = before.0 & HOLDS == hold;
        Self { before, last }
    }

    /// The generation that the slot has ended to linger in.
    pub(crate) fn lingered(&self) -> Option<usize> {
        self.before.lingers().filter(|_| self.last)
    }
}

impl<V> Slot<V> {
    /// A slot that `leader` is going to fill.
    pub(crate) fn filling(leader: u64) -> Self {
        Self {
            state: AtomicU64::new(FILLING | LINKED | HELD | leader << PAYLOAD_SHIFT),
            // See `set_prior`.
            aux: AtomicU64::new(0),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// A slot that has its value from the start; one whose time is over at once is for waiters.
    pub(crate) fn ready(value: V, deadline: Deadline, weight: u64) -> Self {
        let cut = if deadline == Deadline::Past { CUT } else { 0 };
        Self {
            state: AtomicU64::new(READY | LINKED | cut | weight << PAYLOAD_SHIFT),
            aux: AtomicU64::new(deadline.to_bits()),
            value: UnsafeCell::new(MaybeUninit::new(value)),
        }
    }

    /// The slot's name in the wait-for graph.
    pub(crate) fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Acquire: pairs with `publish`. A state that is live comes with its value and deadline.
    #[inline(always)]
    pub(crate) fn state(&self) -> State {
        State(self.state.load(Ordering::Acquire))
    }

    /// As [`state`](Self::state), of one who has said something that who publishes will ask for.
    pub(crate) fn state_now(&self) -> State {
        State(self.state.load(Ordering::SeqCst))
    }

    /// The value.
    ///
    /// # Safety
    /// A state in phase `READY` has been loaded from this slot (or its outcome been learned from
    /// its flight), or the caller leads and has [written](Self::write) it; and the slot is kept by a pin or a hold
    /// for as long as the reference lives.
    #[inline(always)]
    pub(crate) unsafe fn value<'a>(&self) -> &'a V {
        // SAFETY: `READY` was loaded with Acquire after the one write, which `publish` released, or the write is the
        // caller's own; nothing writes again. The caller keeps the slot.
        self.value
            .with(|value| unsafe { (*value).assume_init_ref() })
    }

    /// Whether a live slot's value is still served; `is_before` says of a deadline whether it has not come.
    #[inline(always)]
    pub(crate) fn is_fresh(&self, is_before: impl FnOnce(u64) -> bool) -> bool {
        // Relaxed: the state was loaded with Acquire before, and `publish` wrote this first.
        let deadline = self.aux.load(Ordering::Relaxed);
        // Between the two stores of a publish that has a prior there is an address here still,
        // above every deadline: not yet.
        deadline == NEVER || (deadline < PRIOR && is_before(deadline))
    }

    /// Whether a live slot's time is over.
    pub(crate) fn is_expired(&self, now: u64) -> bool {
        // Relaxed: as above.
        self.aux.load(Ordering::Relaxed) <= now
    }

    /// The deadline, if the slot is live. Of one who asks whether it has been published since he has said something, as
    /// [`state_now`](Self::state_now).
    pub(crate) fn deadline(&self) -> Option<u64> {
        let live = self.state_now().is_live();
        // Relaxed: as above.
        let deadline = live.then(|| self.aux.load(Ordering::Relaxed));
        deadline.filter(|&deadline| deadline < PRIOR)
    }

    /// While filling: the address of what this slot stands before. A look that races `publish`
    /// sees that there is nothing any more, never a deadline taken for an address.
    pub(crate) fn prior(&self) -> Option<usize> {
        let aux = self.aux.load(Ordering::Acquire);
        (aux & PRIOR != 0).then_some((aux & !PRIOR) as usize)
    }

    /// Between the two stores of a publish over what this slot stands before: it is neither served nor filled,
    /// and will be served in a moment.
    pub(crate) fn is_publishing(&self) -> bool {
        self.state().is_live() && self.prior().is_some()
    }

    /// Takes what this slot stands before from it, for whoever asks first.
    pub(crate) fn take_prior(&self) -> Option<usize> {
        let aux = self.aux.load(Ordering::Acquire);
        let taken = aux & PRIOR != 0
            && self
                .aux
                .compare_exchange(aux, 0, Ordering::AcqRel, Ordering::Acquire)
                .is_ok();
        taken.then_some((aux & !PRIOR) as usize)
    }

    /// Changes the state as `change` says, unless it answers `None`; returns the state before.
    fn update(&self, change: impl Fn(State) -> Option<State>) -> Result<State, State> {
        self.state
            .fetch_update(Ordering::SeqCst, Ordering::Acquire, |state| {
                change(State(state)).map(|state| state.0)
            })
            .map(State)
            .map_err(State)
    }

    /// Writes the value into its cell, which is the leader's until the flight has ended: it is not there for anybody
    /// else, and not dropped with the slot.
    ///
    /// # Safety
    /// The caller is this slot's leader, and has not ended the flight before.
    #[inline]
    pub(crate) unsafe fn write(&self, value: V) {
        // SAFETY: the leader alone writes, nobody reads before `READY`.
        self.value.with_mut(|cell| unsafe { (*cell).write(value) });
    }

    /// Takes back what was [written](Self::write) and has not been published.
    ///
    /// # Safety
    /// The caller is this slot's leader, has written the value, and has neither published it nor taken it back.
    pub(crate) unsafe fn take_back(&self) -> V {
        // SAFETY: it is there; the slot is not `READY`, so nobody else reads it or drops it.
        self.value
            .with(|cell| unsafe { (*cell).assume_init_read() })
    }

    /// As [`take_back`](Self::take_back), and drops it where it is.
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn drop_written(&self) {
        // SAFETY: as there.
        self.value
            .with_mut(|cell| unsafe { (*cell).assume_init_drop() });
    }

    /// Ends the flight with the value that is in its cell: the leader's one success. Returns the state before, and what
    /// the slot stood before. If the state before [`lets_go`](State::lets_go), the leader's hold
    /// is gone with it, and what keeps the slot is the caller's pin.
    ///
    /// If it is not to be kept the value is for those who joined, as if the flight had been cut off; so it
    /// is if its time is over at once.
    ///
    /// `None`, and neither has the flight ended, if that is a compute which is superseded. One that
    /// [`leaves_to_removals`](State::leaves_to_removals) has its value removed in this step, and held for the
    /// listener with `tell`.
    ///
    /// # Safety
    /// The caller is this slot's leader, has [written](Self::write) the value, and has not ended the flight before.
    pub(crate) unsafe fn publish(
        &self,
        deadline: Deadline,
        weight: u64,
        kept: bool,
        tell: bool,
    ) -> Option<(State, Option<usize>)> {
        // What it stands before can only be taken away meanwhile, by whoever cuts the flight off.
        let prior = self.prior();
        if prior.is_none() {
            self.aux.store(deadline.to_bits(), Ordering::Relaxed);
        }
        let cut = if kept && deadline != Deadline::Past {
            0
        } else {
            CUT
        };
        // Release: pairs with the Acquire of `state`; value and deadline come first.
        let published = self.update(|state| {
            let removed = match (state.leaves_to_removals(), cut, tell) {
                (false, _, _) | (true, 0, false) => 0,
                (true, 0, true) => TOLD,
                (true, _, _) => CLAIMED,
            };
            let ready = state.in_phase(READY, cut | removed | weight << PAYLOAD_SHIFT);
            let ready = if state.lets_go() {
                State(ready.0 & !HELD)
            } else {
                ready
            };
            (!state.is_superseded()).then_some(ready)
        });
        let before = published.ok()?;
        debug_assert!(before.is_filling());
        if prior.is_none() || before.is_taken() {
            return Some((before, None));
        }
        come_by("publishing");
        // Only now: a reader must find at every moment either the new value or the old one. Up to
        // this swap it is the old one.
        // Release: who finds nothing to stand before (`prior`) finds the slot `READY`.
        let aux = self.aux.swap(deadline.to_bits(), Ordering::AcqRel);
        Some((before, prior.filter(|_| aux & PRIOR != 0)))
    }

    /// Ends the flight without a value, if nobody has begun to wait since `seen`; the state
    /// before. With `cut`, what the slot stands before is not served any more either.
    ///
    /// The answer is the state that the swap replaced, not `seen`: the flight may have been
    /// fenced off in between, and then what it stood before must not come back.
    pub(crate) fn finish(&self, seen: State, cut: bool) -> Option<State> {
        self.update(|state| {
            let more = match (cut, state.is_superseded()) {
                (false, _) => 0,
                // What it has read was taken out already.
                (true, true) => CUT,
                (true, false) => CUT | CLAIMED,
            };
            (state.flight() == seen.flight()).then(|| state.in_phase(GONE, more))
        })
        .ok()
    }

    /// Fences a flight off. `Err` with the state found if it is not filling any more, or has been
    /// taken over; a compute also if it is superseded, or out of the table: an insert is about to detach it.
    pub(crate) fn cut(&self) -> Result<State, State> {
        self.update(|state| state.may_be_cut().then_some(State(state.0 | CUT)))
    }

    /// As [`cut`](Self::cut), and a compute is superseded: of who does not wait for its end.
    pub(crate) fn supersede(&self) -> Result<State, State> {
        self.update(|state| {
            let compute = if state.is_compute() { SUPERSEDED } else { 0 };
            state.may_be_cut().then_some(State(state.0 | CUT | compute))
        })
    }

    /// As [`supersede`](Self::supersede), of who takes part in the flight; wherever the slot is.
    pub(crate) fn supersede_unlinked(&self) -> Result<State, State> {
        self.update(|state| {
            let compute = if state.is_compute() { SUPERSEDED } else { 0 };
            let may = state.is_filling() && !state.is_taken() && !state.is_superseded();
            may.then_some(State(state.0 | CUT | compute))
        })
    }

    /// Fences a flight off whose slot an insert has replaced. A compute is as if just before the insert; unless a
    /// removal waits for it, which then comes first and has what the compute stands before.
    pub(crate) fn cut_replaced(&self) -> Result<State, State> {
        self.update(|state| {
            let may = state.is_filling() && !state.is_taken() && !state.is_superseded();
            let cut = match (state.is_compute(), state.is_cut()) {
                (true, true) => State(state.0 | SUPERSEDED),
                _ => State(state.0 & !COMPUTE | CUT),
            };
            may.then_some(cut)
        })
    }

    /// Says that who leads from now on fills: a compute's leader is lost. False: it is fenced off.
    pub(crate) fn compute_is_lost(&self) -> bool {
        self.update(|state| (!state.is_cut()).then_some(State(state.0 & !COMPUTE)))
            .is_ok()
    }

    /// Says of a slot that is not yet in the table that it is filled by a compute.
    pub(crate) fn set_compute(&self) {
        self.state.fetch_or(COMPUTE, Ordering::Relaxed);
    }

    /// Removes a live value whose slot is held as another's prior one, and stays so: nobody reads it any more but who
    /// [claims](Self::take_prior) it. With `tell` it is held for the listener too. `Err`: it is not live, or in
    /// nobody's hold.
    pub(crate) fn remove_prior(&self, tell: bool) -> Result<State, State> {
        let told = if tell { TOLD } else { 0 };
        self.update(|state| state.counts().then_some(State(state.0 | CUT | told)))
    }

    /// Claims the value of a compute that was removed as it was put in: true for one.
    pub(crate) fn claim(&self) -> bool {
        self.state.fetch_or(CLAIMED, Ordering::AcqRel) & CLAIMED == 0
    }

    /// Fences a flight off for a takeover, once. What its slot stands before goes on being served, if nobody had
    /// fenced the flight off before.
    pub(crate) fn take_over(&self) -> Result<State, State> {
        let may = |state: State| state.is_filling() && !state.is_taken();
        self.update(|state| {
            let restores = if state.is_cut() { 0 } else { RESTORES };
            let compute = if state.is_compute() { SUPERSEDED } else { 0 };
            may(state).then_some(State(state.0 | CUT | TAKEN | restores | compute))
        })
    }

    /// Hangs a new flight on the slot, if it is in a state that `may` be joined and has none.
    /// `Err` with the state found.
    pub(crate) fn hang(&self, may: impl Fn(State) -> bool) -> Result<*const Flight, State> {
        let seen = self.state();
        if !may(seen) || seen.flight().is_some() {
            return Err(seen);
        }
        let flight = Arc::into_raw(Arc::new(Flight::new(self.address(), seen.leader())));
        let address = flight.expose_provenance() as u64;
        assert!(
            address >> (64 - PAYLOAD_SHIFT) == 0,
            "atomic-cache keeps pointers in 48 bits, and was given {address:#x} by the allocator"
        );
        // Release: the flight is whole for who loads its address.
        self.update(|state| {
            (may(state) && state.flight().is_none()).then(|| state.with_payload(address, FLIGHT))
        })
        .map(|_| flight)
        .inspect_err(|_| {
            // SAFETY: made above, and not shared.
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

    /// Says of a slot that is not yet in the table what it will stand before, or else when its fill
    /// begins.
    pub(crate) fn set_prior(&self, prior: Option<usize>, begins: u64) {
        // Relaxed: the swap that puts the slot into the table releases it.
        self.aux.store(
            prior.map_or(begins + 1, |prior| PRIOR | prior as u64),
            Ordering::Relaxed,
        );
    }

    /// When the fill began, if that is known. Of a slot that fills.
    pub(crate) fn began(&self) -> Option<u64> {
        let aux = self.aux.load(Ordering::Relaxed);
        let began = (aux != 0 && aux & PRIOR == 0).then(|| aux - 1);
        // What was loaded may be a deadline by now: then this shows it.
        began.filter(|_| self.state().is_filling())
    }

    /// Says that somebody is told that the fill is slow; true for the first who says so.
    pub(crate) fn mark_slow(&self) -> bool {
        self.state.fetch_or(SLOW, Ordering::AcqRel) & SLOW == 0
    }

    /// Says that the flight's hold is, or will be, one for tasks too. The generation that the slot
    /// has ended to linger in, if it did.
    pub(crate) fn hold_for_tasks(&self) -> Option<usize> {
        let held = |state: State| state.0 & HELD != 0;
        let before =
            self.update(|state| held(state).then_some(State((state.0 & !LINGERS) | TASKS)));
        before.ok().and_then(State::lingers)
    }

    /// Gives up the hold of a flight.
    pub(crate) fn release_held(&self) -> Released {
        self.release(HELD | TASKS)
    }

    /// Gives up the hold of the listener.
    pub(crate) fn release_told(&self) -> Released {
        self.release(TOLD)
    }

    fn release(&self, hold: u64) -> Released {
        // AcqRel: see the module's Orderings.
        let before = State(self.state.fetch_and(!hold, Ordering::AcqRel));
        Released::new(before, hold & HOLDS)
    }

    /// Gives up the table's hold. With `tell`, a slot that counted is held for the listener in its
    /// stead. A slot with a value that somebody is still about to read lingers.
    pub(crate) fn release_linked(&self, lingering: &Lingering, tell: bool) -> Released {
        loop {
            let before = self.state();
            let told = if tell && before.counts() { TOLD } else { 0 };
            let lingers = before.0 & PHASE == READY
                && (before.0 & (HELD | TOLD) | told) != 0
                && !before.has_tasks();
            let generation = if lingers { lingering.enter() } else { 0 };
            let mark = if lingers { LINGERS } else { 0 } | (generation as u64) << GENERATION_SHIFT;
            // AcqRel: see the module's Orderings.
            let released = self.state.compare_exchange(
                before.0,
                before.0 & !LINKED | mark | told,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            if released.is_ok() {
                let mut released = Released::new(before, LINKED);
                released.last &= told == 0;
                return released;
            }
            if lingers {
                lingering.leave(generation);
            }
        }
    }
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
        if self.state().0 & PHASE == READY {
            // SAFETY: `READY` means that the value was written; we are its only owner.
            self.value
                .with_mut(|cell| unsafe { (*cell).assume_init_drop() });
        }
    }
}
