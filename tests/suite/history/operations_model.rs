//! Programs of cache operations, decoded from bytes and run against a plain model: a map, a clock
//! and a stack of running fills.
//!
//! One file for three users: the fuzz target `operations` (`fuzz/`), the replay of its corpus and the seeded random
//! programs (`corpus.rs`). Every byte string is a program, so a tool that shrinks bytes shrinks programs: a byte that
//! is missing reads as zero, and zero is always the simplest choice.
//!
//! # The model
//! All happens on one thread, so the contract leaves no choice: of each key the model knows the
//! entry, with its deadline, and the flight that fills it, if one does. A detached flight fills no
//! key: its value is its caller's alone. A call that would have to wait waits for this very thread,
//! and has a cycle.

use atomic_cache::{
    AtomicCache, Cache, CompResult, CycleError, GuardResult, ManualClock, Op, PlaceholderGuard,
    TryGetError,
};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

const KEYS: u8 = 16;
const OPERATIONS: usize = 300;
const DEPTH: usize = 6;
const GUARDS: usize = 5;

/// Runs one program. Panics where the cache and the model differ.
pub(crate) fn run(bytes: &[u8]) {
    let program = RefCell::new(Program::new(bytes));
    let setup = program.borrow_mut().setup();
    let tally = Arc::new(Tally::default());
    if setup.own_fill {
        run_own_fill(&program, &setup, &tally);
    } else {
        run_cache(&program, &setup, &tally);
    }
    tally.assert_all_dropped();
}

fn run_cache(program: &RefCell<Program<'_>>, setup: &Setup, tally: &Arc<Tally>) {
    let clock = ManualClock::new();
    let builder = Cache::builder()
        .hasher(setup.spread)
        .initial_capacity(setup.room)
        .clock(clock.clone());
    let cache = match setup.ttl {
        None => builder,
        Some(ttl) => builder.time_to_live(ttl),
    }
    .build()
    .expect("the settings are good");
    let run = Run {
        cache: &cache,
        clock: &clock,
        tally,
        program,
        model: RefCell::new(Model::new(setup.ttl)),
        guards: RefCell::default(),
        depth: Cell::new(0),
        pins: Cell::new(0),
    };
    while run.program.borrow_mut().next_operation() {
        run.operation();
        run.compare_now_and_then();
    }
    run.rest();
}

// ---------------------------------------------------------------------------------------------
// Programs

/// A byte string, read as choices.
struct Program<'b> {
    bytes: &'b [u8],
    at: usize,
    operations: usize,
}

struct Setup {
    ttl: Option<Duration>,
    spread: Spread,
    room: usize,
    own_fill: bool,
}

impl<'b> Program<'b> {
    fn new(bytes: &'b [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            operations: 0,
        }
    }

    fn byte(&mut self) -> u8 {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        byte
    }

    /// A number below `n`.
    fn below(&mut self, n: u8) -> u8 {
        self.byte() % n
    }

    fn setup(&mut self) -> Setup {
        let ttl = match self.below(6) {
            0 => None,
            1 => Some(Duration::ZERO),
            2 => Some(Duration::from_nanos(1)),
            3 => Some(Duration::from_nanos(20)),
            4 => Some(Duration::from_nanos(1 << 61)),
            _ => Some(Duration::MAX),
        };
        let choices = self.byte();
        Setup {
            ttl,
            spread: match choices & 3 {
                0 | 1 => Spread::Good,
                2 => Spread::LowBits,
                _ => Spread::Constant,
            },
            room: usize::from(choices >> 2 & 3) * 7,
            own_fill: choices >> 4 & 7 == 7,
        }
    }

    /// Whether there is one more operation in the program.
    fn next_operation(&mut self) -> bool {
        let more = self.at < self.bytes.len() && self.operations < OPERATIONS;
        self.operations += 1;
        more
    }
}

/// How good the hashes are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Spread {
    Good,
    LowBits,
    Constant,
}

pub(crate) struct SpreadHasher {
    spread: Spread,
    state: u64,
}

impl BuildHasher for Spread {
    type Hasher = SpreadHasher;

    fn build_hasher(&self) -> SpreadHasher {
        SpreadHasher {
            spread: *self,
            state: 0,
        }
    }
}

impl Hasher for SpreadHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.state = (self.state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.state = u64::from(byte);
    }

    fn finish(&self) -> u64 {
        match self.spread {
            Spread::Good => (self.state + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            Spread::LowBits => self.state & 3,
            Spread::Constant => 0,
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Keys and values that are counted

/// How many keys and values there are.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    keys: AtomicI64,
    values: AtomicI64,
}

impl Tally {
    /// Created and dropped: as many of the one as of the other.
    pub(crate) fn assert_all_dropped(&self) {
        assert_eq!(self.keys.load(Ordering::SeqCst), 0, "keys never dropped");
        assert_eq!(
            self.values.load(Ordering::SeqCst),
            0,
            "values never dropped"
        );
    }

    pub(crate) fn values(&self) -> i64 {
        self.values.load(Ordering::SeqCst)
    }
}

pub(crate) struct Key {
    number: u8,
    tally: Arc<Tally>,
}

impl Key {
    pub(crate) fn new(number: u8, tally: &Arc<Tally>) -> Self {
        tally.keys.fetch_add(1, Ordering::Relaxed);
        Self {
            number,
            tally: Arc::clone(tally),
        }
    }

    pub(crate) fn number(&self) -> u8 {
        self.number
    }
}

impl Clone for Key {
    fn clone(&self) -> Self {
        Self::new(self.number, &self.tally)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.tally.keys.fetch_sub(1, Ordering::Relaxed);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u8(self.number);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "k{}", self.number)
    }
}

const ALIVE: u64 = 0x00a1_1fe0_0a11_fe00;
const DROPPED: u64 = 0xdead_dead_dead_dead;

pub(crate) struct Value {
    id: u64,
    /// Read on every look, and destroyed on drop. (Atomic, so that the destruction is not
    /// taken for a dead store.)
    magic: AtomicU64,
    tally: Arc<Tally>,
}

impl Value {
    pub(crate) fn new(id: u64, tally: &Arc<Tally>) -> Self {
        tally.values.fetch_add(1, Ordering::Relaxed);
        Self {
            id,
            magic: AtomicU64::new(ALIVE),
            tally: Arc::clone(tally),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        let magic = self.magic.load(Ordering::Relaxed);
        assert_eq!(magic, ALIVE, "a value was read that had been dropped");
        self.id
    }
}

impl Clone for Value {
    fn clone(&self) -> Self {
        Self::new(self.id(), &self.tally)
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        let magic = self.magic.swap(DROPPED, Ordering::Relaxed);
        assert_eq!(magic, ALIVE, "a value was dropped twice");
        self.tally.values.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.id)
    }
}

// ---------------------------------------------------------------------------------------------
// The model

/// The time at which a cache's clock stops: deadlines beyond it are none.
const END_OF_TIME: u64 = (1 << 63) - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Live {
    id: u64,
    /// `None`: never.
    deadline: Option<u64>,
}

/// A running fill: of which key, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flight {
    key: u8,
    number: u64,
    prior: Option<Live>,
}

#[derive(Debug)]
struct Model {
    ttl: Option<u64>,
    now: u64,
    ids: u64,
    flights_so_far: u64,
    entries: BTreeMap<u8, Live>,
    /// The flight of each key, by number.
    flights: BTreeMap<u8, u64>,
    /// The flights that are computes.
    computes: BTreeSet<u64>,
    /// Those of them with values that are not kept.
    detached: BTreeSet<u64>,
    /// The computes that have no effect.
    superseded: BTreeSet<u64>,
    /// The fills on this thread's stack, the innermost last.
    stack: Vec<Flight>,
    /// Flights that hold a value they are to replace, detached or not.
    holders: usize,
    fills: u64,
    errors: u64,
    panics: u64,
    cancelled: u64,
}

impl Model {
    fn new(ttl: Option<Duration>) -> Self {
        let ttl = ttl.map(|ttl| u64::try_from(ttl.as_nanos()).unwrap_or(END_OF_TIME));
        Self {
            ttl: ttl.filter(|&ttl| ttl < END_OF_TIME),
            now: 0,
            ids: 0,
            flights_so_far: 0,
            entries: BTreeMap::new(),
            flights: BTreeMap::new(),
            computes: BTreeSet::new(),
            detached: BTreeSet::new(),
            superseded: BTreeSet::new(),
            stack: Vec::new(),
            holders: 0,
            fills: 0,
            errors: 0,
            panics: 0,
            cancelled: 0,
        }
    }

    fn is_fresh(&self, live: Live) -> bool {
        live.deadline.is_none_or(|deadline| self.now < deadline)
    }

    fn live(&self, key: u8) -> Option<Live> {
        let live = self.entries.get(&key).copied()?;
        self.is_fresh(live).then_some(live)
    }

    fn look(&self, key: u8) -> Option<u64> {
        self.live(key).map(|live| live.id)
    }

    /// Everything that is served now.
    fn contents(&self) -> BTreeMap<u8, u64> {
        let fresh = self
            .entries
            .iter()
            .filter(|(_, live)| self.is_fresh(**live));
        fresh.map(|(&key, live)| (key, live.id)).collect()
    }

    fn is_filling(&self, key: u8) -> bool {
        self.flights.contains_key(&key)
    }

    fn begin(&mut self, key: u8) -> Flight {
        let prior = self.live(key);
        if prior.is_none() {
            self.entries.remove(&key);
        }
        self.flights_so_far += 1;
        self.fills += 1;
        self.holders += usize::from(prior.is_some());
        let displaced = self.flights.insert(key, self.flights_so_far);
        assert_eq!(displaced, None, "two fills of key {key} at once");
        Flight {
            key,
            number: self.flights_so_far,
            prior,
        }
    }

    fn stands(&self, flight: Flight) -> bool {
        self.flights.get(&flight.key) == Some(&flight.number)
    }

    /// Ends a flight. True: it was not detached.
    fn end(&mut self, flight: Flight) -> bool {
        self.holders -= usize::from(flight.prior.is_some());
        let stands = self.stands(flight);
        if stands {
            self.flights.remove(&flight.key);
        }
        stands && !self.detached.contains(&flight.number)
    }

    /// Detaches the flight of a key, which this thread cannot wait for.
    fn cut_off(&mut self, key: u8) {
        if let Some(number) = self.flights.remove(&key) {
            if self.computes.contains(&number) {
                self.superseded.insert(number);
            }
        }
    }

    fn publish(&mut self, flight: Flight, id: u64) {
        if self.end(flight) {
            self.store(flight.key, id);
        }
    }

    fn store(&mut self, key: u8, id: u64) {
        if self.ttl == Some(0) {
            self.entries.remove(&key);
            return;
        }
        let deadline = self.ttl.map(|ttl| self.now.saturating_add(ttl));
        let deadline = deadline.filter(|&at| at < END_OF_TIME);
        self.entries.insert(key, Live { id, deadline });
    }

    fn insert(&mut self, key: u8, id: u64) {
        self.flights.remove(&key);
        self.store(key, id);
    }

    fn remove(&mut self, key: u8) -> Option<u64> {
        let removed = self.look(key);
        self.entries.remove(&key);
        self.cut_off(key);
        removed
    }

    fn remove_all(&mut self) {
        self.entries.clear();
        for key in self.flights.clone().into_keys() {
            self.cut_off(key);
        }
    }

    /// A call cannot wait for a fill of its own thread. A first fill is detached; a compute is left alone unless the
    /// value it has read is picked.
    fn remove_if(&mut self, which: impl Fn(u8, u64) -> bool) {
        for (&key, &number) in &self.flights {
            if self.look(key).is_none() && !self.computes.contains(&number) {
                self.detached.insert(number);
            }
        }
        for (key, id) in self.contents() {
            if which(key, id) {
                self.remove(key);
            }
        }
    }

    fn advance(&mut self, nanos: u64) {
        self.now = self.now.saturating_add(nanos).min(END_OF_TIME - 1);
    }

    /// The keys that a cycle error names when `key` is asked for now.
    fn cycle(&self, key: u8) -> Vec<String> {
        let standing = self.stack.iter().position(|&flight| {
            flight.key == key && self.flights.get(&key) == Some(&flight.number)
        });
        let way = match standing {
            Some(from) => self.stack[from..].iter().map(|flight| flight.key).collect(),
            // A guard, which is on no stack.
            None => vec![key],
        };
        let there_and_back = way.into_iter().chain([key]);
        there_and_back.map(|key| format!("k{key}")).collect()
    }
}

// ---------------------------------------------------------------------------------------------
// The interpreter

/// A panic that a fill was told to.
struct Planned;

/// How a fill is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Value,
    Error,
    Panic,
}

/// The result of a method that fills.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    Value(u64),
    Error(u64),
    Nothing,
    Cycle(Vec<String>),
    CyclePanic,
    PlannedPanic,
}

type Subject = Cache<Key, Value, Spread>;
type Guard<'c> = PlaceholderGuard<'c, Key, Value, Spread>;

struct Run<'c, 'b> {
    cache: &'c Subject,
    clock: &'c ManualClock,
    tally: &'c Arc<Tally>,
    program: &'c RefCell<Program<'b>>,
    model: RefCell<Model>,
    guards: RefCell<Vec<(Guard<'c>, Flight)>>,
    depth: Cell<usize>,
    /// How many guards this thread holds.
    pins: Cell<usize>,
}

/// The methods that fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    GetWith,
    TryGetWith,
    OptionallyGetWith,
    OrInsert,
    OrInsertWith,
    OrTryInsertWith,
    PinnedFill,
    PinnedTryFill,
}

impl Verb {
    const ALL: [Self; 8] = [
        Self::GetWith,
        Self::TryGetWith,
        Self::OptionallyGetWith,
        Self::OrInsert,
        Self::OrInsertWith,
        Self::OrTryInsertWith,
        Self::PinnedFill,
        Self::PinnedTryFill,
    ];

    /// The part of the plan that this method's fill can do.
    fn can(self, plan: Plan) -> Plan {
        match (self, plan) {
            (Self::OrInsert, _) => Plan::Value,
            (Self::GetWith | Self::OrInsertWith | Self::PinnedFill, Plan::Error) => Plan::Panic,
            (_, plan) => plan,
        }
    }

    /// Whether a cycle is an error of this method, and not a panic.
    fn tries(self) -> bool {
        matches!(
            self,
            Self::TryGetWith | Self::OrTryInsertWith | Self::PinnedTryFill
        )
    }
}

impl Run<'_, '_> {
    fn byte(&self) -> u8 {
        self.program.borrow_mut().byte()
    }

    fn below(&self, n: u8) -> u8 {
        self.program.borrow_mut().below(n)
    }

    fn key(&self) -> u8 {
        self.below(KEYS)
    }

    fn owned(&self, key: u8) -> Key {
        Key::new(key, self.tally)
    }

    fn value(&self, id: u64) -> Value {
        Value::new(id, self.tally)
    }

    fn new_id(&self) -> u64 {
        let mut model = self.model.borrow_mut();
        model.ids += 1;
        model.ids
    }

    fn look(&self, key: u8) -> Option<u64> {
        self.model.borrow().look(key)
    }

    fn operation(&self) {
        match self.below(20) {
            0 => self.get(),
            1 => self.insert(),
            2 | 3 => self.fill(),
            4 => self.remove(),
            5 => self.invalidate(),
            6 => self.invalidate_nowait(),
            7 | 8 => self.compute(),
            9 => self.contains_and_peek(),
            10 => self.advance(),
            11 => self.take_guard(),
            12 => self.end_guard(),
            13 => self.pinned(),
            14 => self.with(),
            15 => self.invalidate_if(),
            16 => self.invalidate_all(),
            17 => self.compare(),
            18 => self.quiesce(),
            _ => self.refresh(),
        }
    }

    /// Some operations inside another: in a fill, or under a pin.
    fn nested(&self) {
        if self.depth.get() == DEPTH {
            return;
        }
        self.depth.set(self.depth.get() + 1);
        for _ in 0..self.below(4) {
            if !self.program.borrow_mut().next_operation() {
                break;
            }
            self.operation();
        }
        self.depth.set(self.depth.get() - 1);
    }

    /// After an operation on a key the cache and the model say the same of it.
    fn check(&self, key: u8) {
        let expected = self.look(key);
        let wanted = self.owned(key);
        assert_eq!(self.cache.contains(&wanted), expected.is_some(), "k{key}");
        let peeked = self.cache.peek(&wanted);
        assert_eq!(peeked.map(|value| value.id()), expected, "peek of k{key}");
    }

    fn get(&self) {
        let key = self.key();
        let got = self.cache.get(&self.owned(key)).map(|value| value.id());
        assert_eq!(got, self.look(key), "get of k{key}");
    }

    fn contains_and_peek(&self) {
        self.check(self.key());
    }

    fn insert(&self) {
        let (key, id) = (self.key(), self.new_id());
        self.cache.insert(self.owned(key), self.value(id));
        self.model.borrow_mut().insert(key, id);
        self.check(key);
    }

    fn remove(&self) {
        let key = self.key();
        let removed = self.cache.remove(&self.owned(key)).map(|value| value.id());
        let expected = self.model.borrow_mut().remove(key);
        assert_eq!(removed, expected, "remove of k{key}");
        self.check(key);
    }

    fn invalidate(&self) {
        let key = self.key();
        let was_there = self.cache.invalidate(&self.owned(key));
        let expected = self.model.borrow_mut().remove(key).is_some();
        assert_eq!(was_there, expected, "invalidate of k{key}");
        self.check(key);
    }

    fn invalidate_nowait(&self) {
        let key = self.key();
        let was_there = self.cache.invalidate_nowait(&self.owned(key));
        let expected = self.model.borrow_mut().remove(key).is_some();
        assert_eq!(was_there, expected, "invalidate_nowait of k{key}");
        self.check(key);
    }

    fn invalidate_all(&self) {
        self.cache.invalidate_all();
        self.model.borrow_mut().remove_all();
        self.compare();
    }

    fn invalidate_if(&self) {
        let (pivot, parity) = (self.key(), u64::from(self.below(2)));
        let which = |key: u8, id: u64| key <= pivot && id % 2 == parity;
        self.cache.invalidate_if(|key, value| {
            let shown = (key.number(), value.id());
            let there = self.look(shown.0);
            assert_eq!(there, Some(shown.1), "a predicate was shown {shown:?}");
            which(shown.0, shown.1)
        });
        self.model.borrow_mut().remove_if(which);
        self.compare();
    }

    fn advance(&self) {
        let nanos = match self.byte() {
            255 => 1 << 60,
            254 => 1 << 40,
            byte => u64::from(byte % 24),
        };
        // The manual clock wraps, which no test is about.
        if self.model.borrow().now > 1 << 61 {
            return;
        }
        self.clock.advance(Duration::from_nanos(nanos));
        self.model.borrow_mut().advance(nanos);
    }

    fn fill(&self) {
        let key = self.key();
        let choices = self.byte();
        let verb = Verb::ALL[usize::from(choices & 7)];
        let plan = match choices >> 3 & 7 {
            0..=4 => Plan::Value,
            5 | 6 => Plan::Error,
            _ => Plan::Panic,
        };
        self.fill_with(key, verb, verb.can(plan));
        self.check(key);
    }

    fn fill_with(&self, key: u8, verb: Verb, plan: Plan) {
        let id = self.new_id();
        let there = self.look(key);
        let (filling, cycle) = {
            let model = self.model.borrow();
            (model.is_filling(key), model.cycle(key))
        };
        let ran = Cell::new(None);
        let came = self.call(key, verb, || self.run_fill(key, id, plan, &ran));
        let Some(flight) = ran.get() else {
            match there {
                Some(there) => assert_eq!(came, Came::Value(there), "{verb:?} of k{key}"),
                None if verb == Verb::OrInsert => {
                    // Its value is computed already: the fill is the cache's own.
                    self.or_insert_came(key, id, filling, &came);
                }
                None => {
                    assert!(
                        filling,
                        "{verb:?} of k{key} had to fill, and came to {came:?}"
                    );
                    if verb.tries() {
                        assert_eq!(came, Came::Cycle(cycle), "{verb:?} of k{key}");
                    } else {
                        assert_eq!(came, Came::CyclePanic, "{verb:?} of k{key}");
                    }
                }
            }
            return;
        };
        assert_eq!(there, None, "k{key} was there, and was filled");
        assert!(!filling, "k{key} was filled twice at once");
        let mut model = self.model.borrow_mut();
        let expected = match (plan, verb) {
            (Plan::Value, _) => {
                model.publish(flight, id);
                Came::Value(id)
            }
            (Plan::Error, verb) => {
                model.errors += 1;
                model.end(flight);
                match verb {
                    Verb::OptionallyGetWith => Came::Nothing,
                    _ => Came::Error(id),
                }
            }
            (Plan::Panic, _) => {
                model.panics += 1;
                model.end(flight);
                Came::PlannedPanic
            }
        };
        assert_eq!(came, expected, "{verb:?} of k{key}");
    }

    fn or_insert_came(&self, key: u8, id: u64, filling: bool, came: &Came) {
        if filling {
            assert_eq!(*came, Came::CyclePanic, "or_insert of k{key}");
        } else {
            assert_eq!(*came, Came::Value(id), "or_insert of k{key}");
            let mut model = self.model.borrow_mut();
            let flight = model.begin(key);
            model.publish(flight, id);
        }
    }

    /// The body of a fill.
    fn run_fill(
        &self,
        key: u8,
        id: u64,
        plan: Plan,
        ran: &Cell<Option<Flight>>,
    ) -> Result<Value, u64> {
        assert_eq!(ran.get(), None, "a fill ran twice");
        let flight = self.model.borrow_mut().begin(key);
        ran.set(Some(flight));
        self.in_flight(flight);
        match plan {
            Plan::Value => Ok(self.value(id)),
            Plan::Error => Err(id),
            Plan::Panic => resume_unwind(Box::new(Planned)),
        }
    }

    fn in_flight(&self, flight: Flight) {
        self.model.borrow_mut().stack.push(flight);
        self.check(flight.key);
        self.nested();
        self.check(flight.key);
        self.model.borrow_mut().stack.pop();
    }

    /// Calls the method, and turns its result into a `Came`.
    fn call(&self, key: u8, verb: Verb, fill: impl FnOnce() -> Result<Value, u64>) -> Came {
        let cache = self.cache;
        let wanted = self.owned(key);
        let sure = |filled: Result<Value, u64>| filled.expect("planned so");
        let came = |tried: Result<Value, TryGetError<u64>>| match tried {
            Ok(value) => Came::Value(value.id()),
            Err(TryGetError::Fill(error)) => Came::Error(error),
            Err(TryGetError::Cycle(cycle)) => Came::Cycle(keys_of(&cycle)),
            Err(error) => panic!("{error:?}"),
        };
        let fresh_came = |entry: atomic_cache::Entry<Value>, ran: bool| {
            assert_eq!(entry.is_fresh(), ran, "{verb:?} of k{key}");
            Came::Value(entry.into_value().id())
        };
        let ran = Cell::new(false);
        let fill = || {
            ran.set(true);
            fill()
        };
        caught(|| match verb {
            Verb::GetWith => Came::Value(cache.get_with(&wanted, || sure(fill())).id()),
            Verb::TryGetWith => came(cache.try_get_with(&wanted, fill)),
            Verb::OptionallyGetWith => {
                let got = cache.optionally_get_with(&wanted, || fill().ok());
                got.map_or(Came::Nothing, |value| Came::Value(value.id()))
            }
            Verb::OrInsert => {
                let id = self.model.borrow().ids;
                let entry = cache.entry(wanted.clone()).or_insert(self.value(id));
                let fresh = entry.is_fresh();
                assert_eq!(fresh, entry.value().id() == id, "or_insert of k{key}");
                Came::Value(entry.into_value().id())
            }
            Verb::OrInsertWith => {
                let entry = cache.entry(wanted.clone()).or_insert_with(|| sure(fill()));
                fresh_came(entry, ran.get())
            }
            Verb::OrTryInsertWith => match cache.entry(wanted.clone()).or_try_insert_with(fill) {
                Ok(entry) => fresh_came(entry, ran.get()),
                Err(error) => came(Err(error)),
            },
            Verb::PinnedFill => {
                let mut view = cache.pin();
                let id = view.get_or_fill_with(&wanted, || sure(fill())).id();
                Came::Value(id)
            }
            Verb::PinnedTryFill => {
                let mut view = cache.pin();
                let tried = view.try_get_or_fill_with(&wanted, fill);
                came(tried.cloned())
            }
        })
    }

    fn compute(&self) {
        let key = self.key();
        let plan = self.below(5);
        self.compute_with(key, plan);
        self.check(key);
    }

    /// Computes a value anew, whatever there is.
    fn refresh(&self) {
        let key = self.key();
        self.compute_with(key, 0);
        self.check(key);
    }

    fn compute_with(&self, key: u8, plan: u8) {
        let id = self.new_id();
        let filling = self.model.borrow().is_filling(key);
        let ran = Cell::new(None);
        let f = |seen: Option<&Value>| {
            assert_eq!(ran.get(), None, "a compute ran twice");
            let flight = self.model.borrow_mut().begin(key);
            self.model.borrow_mut().computes.insert(flight.number);
            ran.set(Some(flight));
            let expected = flight.prior.map(|prior| prior.id);
            assert_eq!(seen.map(Value::id), expected, "compute of k{key}");
            self.in_flight(flight);
            assert_eq!(seen.map(Value::id), expected, "compute of k{key}");
            match plan {
                0 | 1 => Op::Put(self.value(id)),
                2 => Op::Remove,
                3 => Op::Nop,
                _ => resume_unwind(Box::new(Planned)),
            }
        };
        let entry = self.cache.entry(self.owned(key));
        let done = catch_unwind(AssertUnwindSafe(|| entry.and_compute_with(f)));
        let Some(flight) = ran.get() else {
            assert!(filling, "a compute of k{key} did not run");
            let Err(panic) = done else {
                panic!("a compute of k{key} inside its own fill came to {done:?}")
            };
            assert_eq!(kind_of(panic), Came::CyclePanic);
            return;
        };
        assert!(!filling, "a compute of k{key} ran inside its own fill");
        let mut model = self.model.borrow_mut();
        // A value that expires while `f` runs may be taken for an absent one.
        let prior = flight.prior.map(|prior| prior.id);
        let expired = flight.prior.is_some_and(|prior| !model.is_fresh(prior));
        let seen = |id: Option<u64>| done.as_ref().is_ok_and(|done| is_about(done, plan, id));
        let Ok(outcome) = &done else {
            assert_eq!(plan, 4, "a compute of k{key} panicked");
            model.panics += 1;
            model.end(flight);
            return;
        };
        let takes = plan < 2 || (plan == 2 && prior.is_some());
        if takes && model.superseded.contains(&flight.number) {
            let back = match outcome {
                CompResult::Superseded(Op::Put(value)) => Some(value.id()),
                CompResult::Superseded(Op::Remove) => None,
                other => panic!("a compute of k{key} beside a removal came to {other:?}"),
            };
            assert_eq!(back, (plan < 2).then_some(id), "k{key}");
            model.errors += 1;
            model.end(flight);
            return;
        }
        assert!(
            seen(prior) || expired && seen(None),
            "a compute of k{key} with {plan} over {prior:?} came to {outcome:?}"
        );
        match plan {
            0 | 1 => {
                let (CompResult::Inserted(value) | CompResult::ReplacedWith(value)) = outcome
                else {
                    unreachable!("judged above")
                };
                assert_eq!(value.id(), id);
                model.publish(flight, id);
            }
            // Without a value, which counts as an error.
            2 => {
                model.errors += 1;
                if model.end(flight) && !expired {
                    model.entries.remove(&key);
                }
            }
            _ => {
                model.errors += 1;
                model.end(flight);
            }
        }
    }

    fn take_guard(&self) {
        let key = self.key();
        let timeout = match self.below(3) {
            0 => None,
            1 => Some(Duration::ZERO),
            _ => Some(Duration::MAX),
        };
        if self.guards.borrow().len() == GUARDS {
            return;
        }
        let (there, filling) = (self.look(key), self.model.borrow().is_filling(key));
        match self.cache.get_value_or_guard(&self.owned(key), timeout) {
            GuardResult::Value(value) => {
                assert_eq!(Some(value.id()), there, "guard of k{key}");
            }
            GuardResult::Guard(guard) => {
                assert_eq!((there, filling), (None, false), "guard of k{key}");
                assert_eq!(guard.key().number(), key);
                let flight = self.model.borrow_mut().begin(key);
                self.guards.borrow_mut().push((guard, flight));
            }
            GuardResult::Cycle(cycle) => {
                assert_eq!((there, filling), (None, true), "guard of k{key}");
                assert_eq!(keys_of(&cycle), self.model.borrow().cycle(key));
            }
            other => panic!("guard of k{key}: {other:?}"),
        }
        self.check(key);
    }

    fn end_guard(&self) {
        let (which, fills) = (usize::from(self.below(GUARDS as u8)), self.below(3) > 0);
        if which >= self.guards.borrow().len() {
            return;
        }
        let (guard, flight) = self.guards.borrow_mut().swap_remove(which);
        if fills {
            let id = self.new_id();
            assert_eq!(guard.insert(self.value(id)).id(), id);
            self.model.borrow_mut().publish(flight, id);
        } else {
            drop(guard);
            let mut model = self.model.borrow_mut();
            model.cancelled += 1;
            model.end(flight);
        }
        self.check(flight.key);
    }

    /// A guard, which lends a value while other things happen.
    fn pinned(&self) {
        let key = self.key();
        let wanted = self.owned(key);
        let expected = self.look(key);
        let view = self.cache.pin();
        let lent = view.get(&wanted);
        assert_eq!(lent.map(Value::id), expected, "pinned k{key}");
        assert_eq!(view.peek(&wanted).map(Value::id), expected);
        assert_eq!(view.contains(&wanted), expected.is_some());
        if let Some(id) = expected {
            assert_eq!(view[&wanted].id(), id);
        }
        let contents = view.iter().map(|(key, value)| (key.number(), value.id()));
        let contents = once_each(contents);
        assert_eq!(contents, self.model.borrow().contents());
        self.while_pinned();
        assert_eq!(lent.map(Value::id), expected, "a lent value has changed");
    }

    /// [`Cache::with`], while other things happen.
    fn with(&self) {
        let key = self.key();
        let expected = self.look(key);
        let shown = self.cache.with(&self.owned(key), |value| {
            let id = value.id();
            self.while_pinned();
            assert_eq!(value.id(), id, "a value has changed while it was shown");
            id
        });
        assert_eq!(shown, expected, "with of k{key}");
    }

    fn while_pinned(&self) {
        self.pins.set(self.pins.get() + 1);
        self.nested();
        self.pins.set(self.pins.get() - 1);
    }

    fn quiesce(&self) {
        if self.pins.get() > 0 {
            // It would wait for us.
            assert!(catch_unwind(|| self.cache.quiesce()).is_err());
            return;
        }
        // Inside a fill it does not wait for readers, such as those of other tests.
        while {
            self.cache.quiesce();
            self.cache.retired() > 0
        } {}
    }

    fn compare_now_and_then(&self) {
        if self.program.borrow().operations % 16 == 0 {
            self.compare();
        }
    }

    /// The whole contents.
    fn compare(&self) {
        let model = self.model.borrow();
        let contents = model.contents();
        let there = self
            .cache
            .iter()
            .map(|(key, value)| (key.number(), value.id()));
        assert_eq!(once_each(there), contents);
        // Entries that have expired may be counted, and so may the previous values that detached flights hold to their
        // end.
        let len = self.cache.len();
        let most = model.entries.len() + model.holders;
        assert!(
            (contents.len()..=most).contains(&len),
            "len is {len}, and not from {} to {most}",
            contents.len()
        );
        assert_eq!(self.cache.is_empty(), len == 0);
    }

    /// At the end nothing runs: everything is accounted for.
    fn rest(self) {
        self.compare();
        for (guard, flight) in self.guards.take() {
            drop(guard);
            let mut model = self.model.borrow_mut();
            model.cancelled += 1;
            model.end(flight);
        }
        self.compare();
        self.quiesce();
        let model = self.model.borrow();
        assert_eq!(model.holders, 0);
        let len = self.cache.len();
        assert_eq!(
            i64::try_from(len).ok(),
            Some(self.tally.values()),
            "a value is kept that is not in the cache"
        );
        let stats = self.cache.stats();
        let counted = (stats.fills, stats.fill_errors, stats.fill_panics);
        assert_eq!(counted, (model.fills, model.errors, model.panics));
        assert_eq!(stats.fill_cancelled, model.cancelled);
    }
}

/// Whether a compute's result says that it did as planned, over `prior`.
fn is_about(result: &CompResult<Value>, plan: u8, prior: Option<u64>) -> bool {
    match (result, plan) {
        (CompResult::Inserted(_), 0 | 1) | (CompResult::StillNone, 2 | 3) => prior.is_none(),
        (CompResult::ReplacedWith(_), 0 | 1) => prior.is_some(),
        (CompResult::Removed(value), 2) | (CompResult::Unchanged(value), 3) => {
            prior == Some(value.id())
        }
        _ => false,
    }
}

/// Collects entries, each key of which may come only once.
fn once_each(entries: impl Iterator<Item = (u8, u64)>) -> BTreeMap<u8, u64> {
    let mut contents = BTreeMap::new();
    for (key, id) in entries {
        let before = contents.insert(key, id);
        assert_eq!(before, None, "k{key} came twice in one walk");
    }
    contents
}

fn keys_of(cycle: &CycleError) -> Vec<String> {
    cycle.keys().to_vec()
}

/// Runs a method; an expected panic is one of its possible results.
fn caught(verb: impl FnOnce() -> Came) -> Came {
    catch_unwind(AssertUnwindSafe(verb)).unwrap_or_else(kind_of)
}

/// Goes on with a panic that was not to be expected.
fn kind_of(panic: Box<dyn std::any::Any + Send>) -> Came {
    if panic.is::<Planned>() {
        return Came::PlannedPanic;
    }
    match panic.downcast::<String>() {
        Ok(text) if text.contains("would wait for itself along the keys") => Came::CyclePanic,
        Ok(text) => resume_unwind(text),
        Err(other) => resume_unwind(other),
    }
}

// ---------------------------------------------------------------------------------------------
// A cache with its own fill

/// The plan of the next fill, and the things it has met. The fill belongs to the cache, so it gets its plan by way of
/// this. The things it meets are compared when it is over.
#[derive(Default)]
struct Script {
    plan: Option<(Plan, u64)>,
    nested: Vec<(Inner, u8)>,
    met: Vec<Met>,
    /// The keys filled, in the order in which their fills began.
    ran: Vec<u8>,
}

/// A call that a fill makes to its own cache.
#[derive(Clone, Copy, Debug)]
enum Inner {
    Peek,
    Get,
    Refresh,
    Invalidate,
    Nowait,
}

#[derive(Debug, PartialEq, Eq)]
enum Met {
    Peeked(Option<u64>),
    Got(Came),
    Removed(bool),
}

type OwnFill = AtomicCache<Key, Value, u64, Spread>;

/// The value that a nested fill of a key computes: it has no id of its own.
fn plain_id(key: u8) -> u64 {
    1 << 32 | u64::from(key)
}

/// The cache, and the handle by which its fill uses it: the one that runs the program keeps both.
fn own_fill(
    setup: &Setup,
    clock: &ManualClock,
    tally: &Arc<Tally>,
    script: &Arc<Mutex<Script>>,
) -> (OwnFill, Arc<OnceLock<OwnFill>>) {
    let handle: Arc<OnceLock<OwnFill>> = Arc::default();
    let (inner, script, tally) = (
        Arc::downgrade(&handle),
        Arc::clone(script),
        Arc::clone(tally),
    );
    let builder = AtomicCache::builder()
        .hasher(setup.spread)
        .initial_capacity(setup.room)
        .clock(clock.clone());
    let built = match setup.ttl {
        None => builder,
        Some(ttl) => builder.time_to_live(ttl),
    }
    .try_build_with(move |key: &Key| {
        let (plan, nested) = {
            let mut script = script.lock().expect("no panic under it");
            script.ran.push(key.number());
            (script.plan.take(), std::mem::take(&mut script.nested))
        };
        let Some((plan, id)) = plan else {
            return Ok(Value::new(plain_id(key.number()), &tally));
        };
        let handle = inner.upgrade().expect("kept while the program runs");
        for (inner, key) in nested {
            let cache = handle.get().expect("set before the first use");
            let met = meet(cache, inner, &Key::new(key, &tally));
            script.lock().expect("no panic under it").met.push(met);
        }
        match plan {
            Plan::Value => Ok(Value::new(id, &tally)),
            Plan::Error => Err(id),
            Plan::Panic => resume_unwind(Box::new(Planned)),
        }
    })
    .expect("the settings are good");
    assert!(handle.set(built.clone()).is_ok(), "set here alone");
    (built, handle)
}

fn meet(cache: &OwnFill, inner: Inner, key: &Key) -> Met {
    match inner {
        Inner::Peek => Met::Peeked(cache.peek(key).map(|value| value.id())),
        Inner::Get => Met::Got(caught(|| came_of(cache.try_get(key)))),
        Inner::Refresh => Met::Got(caught(|| came_of(cache.try_refresh(key)))),
        Inner::Invalidate => Met::Removed(cache.invalidate(key)),
        Inner::Nowait => Met::Removed(cache.invalidate_nowait(key)),
    }
}

fn came_of(tried: Result<Value, TryGetError<u64>>) -> Came {
    match tried {
        Ok(value) => Came::Value(value.id()),
        Err(TryGetError::Fill(error)) => Came::Error(error),
        Err(TryGetError::Cycle(cycle)) => Came::Cycle(keys_of(&cycle)),
        Err(error) => panic!("{error:?}"),
    }
}

fn run_own_fill(program: &RefCell<Program<'_>>, setup: &Setup, tally: &Arc<Tally>) {
    let clock = ManualClock::new();
    let script = Arc::new(Mutex::new(Script::default()));
    let (cache, _handle) = own_fill(setup, &clock, tally, &script);
    let mut model = Model::new(setup.ttl);
    let mut program = program.borrow_mut();
    while program.next_operation() {
        let (operation, key) = (program.below(12), program.below(KEYS));
        let wanted = Key::new(key, tally);
        match operation {
            0 => {
                assert_eq!(cache.peek(&wanted).map(|value| value.id()), model.look(key));
            }
            1 => {
                clock.advance(Duration::from_nanos(u64::from(key)));
                model.advance(u64::from(key));
            }
            2 => assert_eq!(cache.invalidate(&wanted), model.remove(key).is_some()),
            3 => assert_eq!(
                cache.invalidate_nowait(&wanted),
                model.remove(key).is_some()
            ),
            4 => {
                cache.invalidate_if(|other, _| other.number() <= key);
                model.remove_if(|other, _| other <= key);
            }
            5 => {
                cache.invalidate_all();
                model.remove_all();
            }
            6 => {
                let view = cache.pin();
                assert_eq!(view.get(&wanted).map(Value::id), model.look(key));
            }
            _ => fill_itself(
                &cache,
                &script,
                &mut program,
                &mut model,
                (operation, &wanted),
            ),
        }
        assert_eq!(cache.contains(&wanted), model.look(key).is_some(), "k{key}");
        let there = cache.iter().map(|(key, value)| (key.number(), value.id()));
        assert_eq!(once_each(there), model.contents());
    }
    cache.quiesce();
    assert_eq!(cache.retired(), 0);
    let stats = cache.stats();
    let counted = (stats.fills, stats.fill_errors, stats.fill_panics);
    assert_eq!(counted, (model.fills, model.errors, model.panics));
}

/// One call that fills a cache with its own fill.
fn fill_itself(
    cache: &OwnFill,
    script: &Mutex<Script>,
    program: &mut Program<'_>,
    model: &mut Model,
    (operation, wanted): (u8, &Key),
) {
    let key = wanted.number();
    let choices = program.byte();
    model.ids += 1;
    let id = model.ids;
    let plan = match choices & 7 {
        0..=4 => Plan::Value,
        5 | 6 => Plan::Error,
        _ => Plan::Panic,
    };
    let nested: Vec<_> = (0..choices >> 3 & 3)
        .map(|_| {
            let byte = program.byte();
            let inner = match byte >> 4 {
                0..=2 => Inner::Peek,
                3..=7 => Inner::Get,
                8..=10 => Inner::Refresh,
                11..=13 => Inner::Invalidate,
                _ => Inner::Nowait,
            };
            (inner, byte % KEYS)
        })
        .collect();
    *script.lock().expect("no panic under it") = Script {
        plan: Some((plan, id)),
        nested: nested.clone(),
        ..Script::default()
    };
    let refresh = matches!(operation, 10 | 11);
    let came = caught(|| match operation {
        8 => {
            let mut view = cache.pin();
            came_of(view.try_get_or_fill(wanted).cloned())
        }
        7 | 9 => came_of(cache.clone().try_get(wanted)),
        _ => came_of(cache.try_refresh(wanted)),
    });
    let script = std::mem::take(&mut *script.lock().expect("no panic under it"));
    if let (Some(there), false) = (model.look(key), refresh) {
        assert_eq!(came, Came::Value(there));
        assert!(script.ran.is_empty(), "k{key} was there, and was filled");
        return;
    }
    let flight = model.begin(key);
    model.stack.push(flight);
    let mut ran = vec![key];
    assert_eq!(script.met.len(), nested.len());
    for ((inner, key), met) in nested.into_iter().zip(script.met) {
        assert_eq!(
            met,
            expect(model, inner, key, &mut ran),
            "{inner:?} of k{key}"
        );
    }
    assert_eq!(script.ran, ran);
    model.stack.pop();
    let expected = match plan {
        Plan::Value => {
            model.publish(flight, id);
            Came::Value(id)
        }
        Plan::Error => {
            model.errors += 1;
            model.end(flight);
            Came::Error(id)
        }
        Plan::Panic => {
            model.panics += 1;
            model.end(flight);
            Came::PlannedPanic
        }
    };
    assert_eq!(came, expected, "k{key}");
}

/// The result that a fill is to meet when it uses its own cache.
fn expect(model: &mut Model, inner: Inner, key: u8, ran: &mut Vec<u8>) -> Met {
    match inner {
        Inner::Peek => Met::Peeked(model.look(key)),
        Inner::Invalidate | Inner::Nowait => Met::Removed(model.remove(key).is_some()),
        Inner::Get | Inner::Refresh => {
            if let (Some(there), Inner::Get) = (model.look(key), inner) {
                return Met::Got(Came::Value(there));
            }
            if model.is_filling(key) {
                return Met::Got(Came::Cycle(model.cycle(key)));
            }
            let flight = model.begin(key);
            ran.push(key);
            model.publish(flight, plain_id(key));
            Met::Got(Came::Value(plain_id(key)))
        }
    }
}
