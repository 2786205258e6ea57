//! The table "Beside the others" of the README, row by row, for the rows that tell behaviour.
//!
//! Each test runs one row for every cache of the table, puts the behaviour it saw into the words of the table, and
//! compares them with the README. So neither a new version of a peer nor a new wording makes the table untrue
//! unnoticed.
//!
//! Nothing here sleeps. A fill runs until its test lets it end. A test knows that a caller waits for it, and does not
//! guess: the cache counts the waiters (`CacheStats::joined`), and the peers compare the newcomer's key with the key of
//! the fill, which that key tells. A call that may hang runs in a process of its own.

use std::{
    array,
    env::{self, current_exe},
    fmt,
    hash::{Hash, Hasher},
    io::{self, BufRead, BufReader, Read},
    process::{self, Child, Command, Stdio},
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use atomic_cache::{Cache, Op};
use dashmap::DashMap;
use once_cell::sync::OnceCell;
use quick_cache::sync::{EntryAction, EntryResult};

/// How long anything may take that is not said to hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a call that the README says hangs has to prove otherwise.
const HANGS_AFTER: Duration = Duration::from_secs(2);

/// The key most rows are about, and its neighbour. Numbers that no message has by chance.
const KEY: u64 = 7001;
const OTHER_KEY: u64 = 7002;

/// The values of a fill, of an insert, and of a fill that starts later.
const FILLED: u64 = 10;
const INSERTED: u64 = 20;
const LATER: u64 = 30;

// The table
// =========

/// Returns the cells of a row of the README, one for each cache.
fn said(row: &str) -> [&'static str; 4] {
    let readme = include_str!("../../README.md");
    let (_, section) = readme
        .split_once("## Beside the others")
        .expect("the README has the table");
    let mut rows = section
        .lines()
        .map(|line| line.trim_matches('|').split('|').map(str::trim));
    let cells = rows
        .find_map(|mut cells| (cells.next() == Some(row)).then_some(cells))
        .unwrap_or_else(|| panic!("the table has no row {row:?}"));
    let cells: Vec<_> = cells.collect();
    cells.try_into().expect("a cell for each cache")
}

/// Compares the behaviour seen of the caches, in the order of the table, with the README.
#[track_caller]
fn assert_row(row: &str, seen: &[impl AsRef<str>; 4]) {
    assert_eq!(
        seen.each_ref().map(AsRef::as_ref),
        said(row),
        "seen, and said by the README, of {row:?}"
    );
}

/// Runs the scene of each cache on a thread of its own, and returns the behaviour seen.
#[track_caller]
fn see(contenders: [fn() -> &'static str; 4]) -> [&'static str; 4] {
    contenders.map(on_a_thread).map(|seen| receive(&seen))
}

/// A function of each cache, in the order of the table.
macro_rules! of_each {
    ($function:ident) => {
        [
            $function::<Atomic>,
            $function::<Moka>,
            $function::<Quick>,
            $function::<Dash>,
        ]
    };
}

// The caches
// ==========

/// A key that tells when it is compared with an equal one.
#[derive(Clone)]
struct Key {
    id: u64,
    met: Option<Sender<()>>,
}

impl Key {
    /// A key that tells nothing.
    fn quiet(id: u64) -> Self {
        Self { id, met: None }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        if self.id == other.id {
            for met in [&self.met, &other.met].into_iter().flatten() {
                // The test no longer listens: fine.
                let _ = met.send(());
            }
        }
        self.id == other.id
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
    }
}

/// The operations that the rows need of a cache. Methods without a key are about [`KEY`].
trait Contender: Clone + Send + Sync + 'static {
    /// The ways to remove a key that do not wait for its fill.
    const REMOVALS: &'static [fn(&Self)];

    fn new() -> Self;

    /// A cache with a TTL of zero; `None` if its values have no TTL.
    fn fleeting() -> Option<Self>;

    fn get_with(&self, key: Key, fill: impl FnOnce() -> u64) -> u64;

    fn try_get_with(
        &self,
        key: Key,
        fill: impl FnOnce() -> Result<u64, String>,
    ) -> Result<u64, String>;

    fn insert(&self, value: u64);

    fn peek(&self) -> Option<u64>;

    /// Adds one to the value, or makes it one, by the method meant for that. Calls `meanwhile` in between.
    fn add_one(&self, meanwhile: impl FnOnce());

    /// Whether the value can be read now, without waiting for a lock.
    fn is_readable(&self) -> bool;

    /// How many callers have joined a fill, for a cache that counts them.
    fn joined(&self) -> Option<u64> {
        None
    }
}

#[derive(Clone)]
struct Atomic(Cache<Key, u64>);

impl Contender for Atomic {
    const REMOVALS: &'static [fn(&Self)] = &[|cache| {
        cache.0.invalidate_nowait(&Key::quiet(KEY));
    }];

    fn new() -> Self {
        Self(Cache::unbounded())
    }

    fn fleeting() -> Option<Self> {
        let builder = Cache::builder().time_to_live(Duration::ZERO);
        Some(Self(builder.build().expect("zero is allowed")))
    }

    fn get_with(&self, key: Key, fill: impl FnOnce() -> u64) -> u64 {
        self.0.get_with(&key, fill)
    }

    fn try_get_with(
        &self,
        key: Key,
        fill: impl FnOnce() -> Result<u64, String>,
    ) -> Result<u64, String> {
        let result = self.0.try_get_with(&key, fill);
        result.map_err(|error| error.to_string())
    }

    fn insert(&self, value: u64) {
        self.0.insert(Key::quiet(KEY), value);
    }

    fn peek(&self) -> Option<u64> {
        self.0.peek(&Key::quiet(KEY))
    }

    fn add_one(&self, meanwhile: impl FnOnce()) {
        self.0.entry(Key::quiet(KEY)).and_compute_with(|value| {
            meanwhile();
            Op::Put(value.map_or(1, |value| value + 1))
        });
    }

    fn is_readable(&self) -> bool {
        self.peek();
        true
    }

    fn joined(&self) -> Option<u64> {
        Some(self.0.stats().joined)
    }
}

#[derive(Clone)]
struct Moka(moka::sync::Cache<Key, u64>);

impl Contender for Moka {
    const REMOVALS: &'static [fn(&Self)] = &[
        |cache| cache.0.invalidate(&Key::quiet(KEY)),
        |cache| {
            cache.0.remove(&Key::quiet(KEY));
        },
    ];

    fn new() -> Self {
        Self(moka::sync::Cache::builder().build())
    }

    fn fleeting() -> Option<Self> {
        let builder = moka::sync::Cache::builder().time_to_live(Duration::ZERO);
        Some(Self(builder.build()))
    }

    fn get_with(&self, key: Key, fill: impl FnOnce() -> u64) -> u64 {
        self.0.get_with(key, fill)
    }

    fn try_get_with(
        &self,
        key: Key,
        fill: impl FnOnce() -> Result<u64, String>,
    ) -> Result<u64, String> {
        let result = self.0.try_get_with(key, fill);
        result.map_err(|error| error.to_string())
    }

    fn insert(&self, value: u64) {
        self.0.insert(Key::quiet(KEY), value);
    }

    fn peek(&self) -> Option<u64> {
        self.0.get(&Key::quiet(KEY))
    }

    fn add_one(&self, meanwhile: impl FnOnce()) {
        use moka::ops::compute::Op;
        self.0.entry(Key::quiet(KEY)).and_compute_with(|entry| {
            meanwhile();
            Op::Put(entry.map_or(1, |entry| entry.into_value() + 1))
        });
    }

    fn is_readable(&self) -> bool {
        self.peek();
        true
    }
}

#[derive(Clone)]
struct Quick(Arc<quick_cache::sync::Cache<Key, u64>>);

impl Contender for Quick {
    const REMOVALS: &'static [fn(&Self)] = &[|cache| {
        cache.0.remove(&Key::quiet(KEY));
    }];

    fn new() -> Self {
        Self(Arc::new(quick_cache::sync::Cache::new(1000)))
    }

    fn fleeting() -> Option<Self> {
        None
    }

    fn get_with(&self, key: Key, fill: impl FnOnce() -> u64) -> u64 {
        let result = self.try_get_with(key, || Ok(fill()));
        result.expect("the fill cannot fail")
    }

    fn try_get_with(
        &self,
        key: Key,
        fill: impl FnOnce() -> Result<u64, String>,
    ) -> Result<u64, String> {
        self.0.get_or_insert_with(&key, fill)
    }

    fn insert(&self, value: u64) {
        self.0.insert(Key::quiet(KEY), value);
    }

    fn peek(&self) -> Option<u64> {
        self.0.peek(&Key::quiet(KEY))
    }

    fn add_one(&self, meanwhile: impl FnOnce()) {
        let result = self.0.entry(&Key::quiet(KEY), None, |_, value| {
            meanwhile();
            *value += 1;
            EntryAction::Retain(())
        });
        match result {
            EntryResult::Retained(()) => {}
            EntryResult::Vacant(guard) => guard.insert(1).expect("nobody removes it"),
            other => panic!("{other:?}"),
        }
    }

    fn is_readable(&self) -> bool {
        self.0.try_peek(&Key::quiet(KEY)).is_ok()
    }
}

#[derive(Clone)]
struct Dash(Arc<DashMap<Key, Arc<OnceCell<u64>>>>);

impl Dash {
    /// The cell of a key, held without its shard's lock.
    fn cell(&self, key: Key) -> Arc<OnceCell<u64>> {
        Arc::clone(&self.0.entry(key).or_default())
    }
}

impl Contender for Dash {
    const REMOVALS: &'static [fn(&Self)] = &[|map| {
        map.0.remove(&Key::quiet(KEY));
    }];

    fn new() -> Self {
        Self(Arc::default())
    }

    fn fleeting() -> Option<Self> {
        None
    }

    // As the contender of that name in `contenders.rs`, but for the look-up ahead, which decides nothing.
    fn get_with(&self, key: Key, fill: impl FnOnce() -> u64) -> u64 {
        *self.cell(key).get_or_init(fill)
    }

    fn try_get_with(
        &self,
        key: Key,
        fill: impl FnOnce() -> Result<u64, String>,
    ) -> Result<u64, String> {
        self.cell(key).get_or_try_init(fill).copied()
    }

    fn insert(&self, value: u64) {
        let cell = Arc::new(OnceCell::with_value(value));
        self.0.insert(Key::quiet(KEY), cell);
    }

    fn peek(&self) -> Option<u64> {
        let cell = self.0.get(&Key::quiet(KEY))?;
        cell.get().copied()
    }

    fn add_one(&self, meanwhile: impl FnOnce()) {
        let mut cell = self.0.entry(Key::quiet(KEY)).or_default();
        meanwhile();
        let value = cell.get().map_or(1, |value| value + 1);
        *cell = Arc::new(OnceCell::with_value(value));
    }

    fn is_readable(&self) -> bool {
        !self.0.try_get(&Key::quiet(KEY)).is_locked()
    }
}

// Fills that wait for their test
// ==============================

/// Returns the next message of a channel, which must come soon.
#[track_caller]
fn receive<T>(channel: &Receiver<T>) -> T {
    channel.recv_timeout(PATIENCE).expect("comes in time")
}

/// Runs `ask` on a thread of its own; its answer.
fn on_a_thread<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (answer, answered) = channel();
    thread::spawn(move || {
        // A test that has failed does not listen.
        let _ = answer.send(ask());
    });
    answered
}

/// A fill of [`KEY`] that runs until it is let go.
struct Running {
    /// Dropped when the fill is to end, also by a test that fails.
    hold: Sender<()>,
    has_ended: Arc<AtomicBool>,
    answer: Receiver<u64>,
}

impl Running {
    /// Starts a fill with the value [`FILLED`] on a thread of its own, and returns when it runs.
    fn start(cache: &impl Contender) -> Self {
        let cache = cache.clone();
        let (starts, has_started) = channel();
        let (hold, end) = channel::<()>();
        let has_ended = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&has_ended);
        let answer = on_a_thread(move || {
            cache.get_with(Key::quiet(KEY), || {
                starts.send(()).expect("the test waits for it");
                // Ends when the other side is dropped.
                let _ = end.recv();
                ends.store(true, SeqCst);
                FILLED
            })
        });
        receive(&has_started);
        Self {
            hold,
            has_ended,
            answer,
        }
    }

    /// Lets the fill end. Its own caller gets the value it has made, whatever has happened meanwhile.
    fn end(self) {
        drop(self.hold);
        assert_eq!(receive(&self.answer), FILLED);
    }
}

/// Asks for [`KEY`] on a thread of its own, with a fill that counts itself, and returns when that caller waits
/// for the fill that runs. Its answer.
fn join(cache: &impl Contender, fills: &Arc<AtomicU64>) -> Receiver<u64> {
    let before = cache.joined();
    let (met, has_met) = channel();
    let key = Key {
        id: KEY,
        met: Some(met),
    };
    let (asking, fills) = (cache.clone(), Arc::clone(fills));
    let answer = on_a_thread(move || {
        asking.get_with(key, || {
            fills.fetch_add(1, SeqCst);
            LATER
        })
    });
    match before {
        Some(joined) => await_joined(cache, joined + 1),
        None => receive(&has_met),
    }
    answer
}

/// Yields until `n` callers have joined fills, of a cache that counts them.
fn await_joined(cache: &impl Contender, n: u64) {
    let asked = Instant::now();
    while cache.joined() < Some(n) {
        assert!(asked.elapsed() < PATIENCE, "nobody joins");
        thread::yield_now();
    }
}

/// Lets other threads run for a while: a call that wrongly does not wait gets its chance to return.
fn let_others_run() {
    for _ in 0..200 {
        thread::yield_now();
    }
}

// The rows
// ========

fn fills_of(cache: &impl Contender, callers: usize) -> &'static str {
    let others = Arc::new(AtomicU64::new(0));
    let running = Running::start(cache);
    let answers: Vec<_> = (1..callers).map(|_| join(cache, &others)).collect();
    running.end();
    let answers: Vec<_> = answers.iter().map(receive).collect();
    match others.load(SeqCst) {
        0 => {
            assert!(answers.iter().all(|&answer| answer == FILLED));
            "one fill"
        }
        1 => "two fills",
        _ => "many fills",
    }
}

fn concurrent_callers<C: Contender>() -> &'static str {
    fills_of(&C::new(), 8)
}

#[test]
fn concurrent_callers_of_an_absent_key() {
    let seen = see(of_each!(concurrent_callers));
    assert_row("concurrent callers of an absent key", &seen);
}

fn two_callers<C: Contender>() -> &'static str {
    C::fleeting().map_or("no lifetimes", |cache| {
        let seen = fills_of(&cache, 2);
        assert_eq!(cache.peek(), None, "nothing is kept");
        seen
    })
}

#[test]
fn two_callers_lifetime_zero() {
    assert_row("2 callers, lifetime zero", &see(of_each!(two_callers)));
}

/// Not in the table, whose first row is about callers of one method. A caller of another method joins the fill too,
/// except in `moka`, where each method has fills of its own.
#[test]
fn two_methods_at_once() {
    let cache = Atomic::new();
    let running = Running::start(&cache);
    let asking = cache.clone();
    let second = on_a_thread(move || asking.try_get_with(Key::quiet(KEY), || Ok(LATER)));
    await_joined(&cache, 1);
    running.end();
    assert_eq!(receive(&second), Ok(FILLED), "one fill");

    let cache = Moka::new();
    let running = Running::start(&cache);
    let asking = cache.clone();
    let second = on_a_thread(move || asking.try_get_with(Key::quiet(KEY), || Ok(LATER)));
    // The first fill still runs.
    assert_eq!(receive(&second), Ok(LATER), "two fills");
    running.end();
}

/// Removes the key while its fill runs, without waiting for that.
fn removal_during_a_fill<C: Contender>() -> &'static str {
    let mut comes_back = Vec::new();
    for remove in C::REMOVALS {
        // No caller asks until the fill has ended.
        let cache = C::new();
        let running = Running::start(&cache);
        remove(&cache);
        running.end();
        comes_back.push(cache.peek() == Some(FILLED));

        // A caller asks while it still runs, and joins it or starts a fill.
        let cache = C::new();
        let running = Running::start(&cache);
        remove(&cache);
        let (comes, has_come) = channel();
        let (asking, met) = (cache.clone(), Some(comes.clone()));
        let answer = on_a_thread(move || {
            asking.get_with(Key { id: KEY, met }, || {
                comes.send(()).expect("the test waits for it");
                LATER
            })
        });
        receive(&has_come);
        running.end();
        let answer = receive(&answer);
        assert_eq!(cache.peek(), Some(answer));
        comes_back.push(answer == FILLED);
    }
    if comes_back.iter().all(|&comes_back| comes_back) {
        "old value comes back"
    } else {
        assert!(!comes_back.contains(&true), "comes back now and then");
        "old value never seen later; does not wait"
    }
}

/// `invalidate` returns after the fill's end, and leaves nothing of it.
fn assert_that_invalidate_waits() {
    let cache = Atomic::new();
    let running = Running::start(&cache);
    let (removing, has_ended) = (cache.clone(), Arc::clone(&running.has_ended));
    let removal = on_a_thread(move || {
        removing.0.invalidate(&Key::quiet(KEY));
        has_ended.load(SeqCst)
    });
    let_others_run();
    running.end();
    assert!(receive(&removal), "has not waited");
    assert_eq!(cache.peek(), None);
}

#[test]
fn invalidate_during_a_fill() {
    let [ours, moka, quick, dash] = see(of_each!(removal_during_a_fill));
    assert_eq!(ours, "old value never seen later; does not wait");
    assert_that_invalidate_waits();
    // A value that is not kept is not seen later either, as the second case there shows. A caller that does not wait
    // for the old fill starts a new one beside it.
    let ours = "old value never seen later; waits, or not";
    assert_row(
        "`invalidate` / `remove` during a fill",
        &[ours, moka, quick, dash],
    );
}

fn insertion_during_a_fill<C: Contender>() -> &'static str {
    let cache = C::new();
    let running = Running::start(&cache);
    cache.insert(INSERTED);
    assert_eq!(cache.peek(), Some(INSERTED));
    running.end();
    match cache.peek() {
        Some(INSERTED) => "the insert stays",
        Some(FILLED) => "the fill overwrites it",
        other => panic!("{other:?} is there"),
    }
}

#[test]
fn insert_during_a_fill() {
    let seen = see(of_each!(insertion_during_a_fill));
    assert_row("`insert` during a fill", &seen);
}

fn waiters_of_that_fill<C: Contender>() -> &'static str {
    let fills = Arc::new(AtomicU64::new(0));
    let cache = C::new();
    let running = Running::start(&cache);
    let waiter = join(&cache, &fills);
    cache.insert(INSERTED);
    running.end();
    let gets = match receive(&waiter) {
        // It can have that from the fill only: it was made at its end, and another value is in the cache.
        FILLED => "wait for the fill",
        INSERTED => {
            let cache = C::new();
            let running = Running::start(&cache);
            let waiter = join(&cache, &fills);
            cache.insert(INSERTED);
            // The fill still runs.
            assert_eq!(receive(&waiter), INSERTED);
            running.end();
            "get the inserted value at once"
        }
        other => panic!("a waiter gets {other}"),
    };
    assert_eq!(fills.load(SeqCst), 0, "who waits does not fill");
    gets
}

#[test]
fn those_who_wait_for_that_fill() {
    let seen = see(of_each!(waiters_of_that_fill));
    assert_row("those who wait for that fill", &seen);
}

/// A value that counts how often it is cloned.
#[derive(Debug, Default)]
struct Counted(Arc<AtomicU64>);

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, SeqCst);
        Self(Arc::clone(&self.0))
    }
}

/// How often the values that `clones` counts for are cloned by `read`.
fn clones_by<R>(clones: &AtomicU64, read: impl FnOnce() -> R) -> u64 {
    let before = clones.load(SeqCst);
    drop(read());
    clones.load(SeqCst) - before
}

/// The words for a way to read that has cloned so often, with the shard locked meanwhile or not.
fn reading(clones: u64, is_locked: bool) -> &'static str {
    match (clones, is_locked) {
        (0, false) => "yes",
        (0, true) => "under the shard's lock",
        _ => "no",
    }
}

fn reading_atomic_cache() -> &'static str {
    let (value, cache) = (Counted::default(), Cache::unbounded());
    let count = Arc::clone(&value.0);
    cache.insert(KEY, value);
    let clones = clones_by(&count, || {
        cache.with(&KEY, |_| ()).expect("is there");
        cache.pin().get(&KEY).map(|_| ()).expect("is there");
    });
    reading(clones, false)
}

fn reading_moka() -> &'static str {
    use moka::{ops::compute::Op, sync::Cache};
    let value = Counted::default();
    let count = Arc::clone(&value.0);
    let cache = Cache::builder().build();
    cache.insert(KEY, value);
    let reads: [fn(&Cache<u64, Counted>); 5] = [
        |cache| drop(cache.get(&KEY)),
        |cache| drop(cache.get_with(KEY, Counted::default)),
        |cache| drop(cache.entry(KEY).or_insert_with(Counted::default)),
        |cache| drop(cache.entry(KEY).and_compute_with(|_| Op::Nop)),
        |cache| drop(cache.iter().next()),
    ];
    let clones = reads.map(|read| clones_by(&count, || read(&cache)));
    reading(*clones.iter().min().expect("some"), false)
}

fn reading_quick_cache() -> &'static str {
    let value = Counted::default();
    let count = Arc::clone(&value.0);
    let cache = quick_cache::sync::Cache::new(1000);
    cache.insert(KEY, value);
    assert_eq!(clones_by(&count, || cache.get(&KEY)), 1);
    assert_eq!(clones_by(&count, || cache.peek(&KEY)), 1);
    let mut is_locked = false;
    let clones = clones_by(&count, || {
        cache.entry(&KEY, None, |_, _lent: &mut Counted| {
            is_locked = cache.try_peek(&KEY).is_err();
            EntryAction::Retain(())
        })
    });
    reading(clones, is_locked)
}

fn reading_dashmap() -> &'static str {
    let value = Counted::default();
    let count = Arc::clone(&value.0);
    let map = DashMap::new();
    map.insert(KEY, Arc::new(OnceCell::with_value(value)));
    // The cell can be held without the lock.
    let cell = Arc::clone(&map.get(&KEY).expect("is there"));
    assert!(!map.try_get_mut(&KEY).is_locked());
    assert_eq!(clones_by(&count, || cell.get().map(|_| ())), 0);
    let mut is_locked = false;
    let clones = clones_by(&count, || {
        let cell = map.get(&KEY).expect("is there");
        let _lent: &Counted = cell.get().expect("has a value");
        is_locked = map.try_get_mut(&KEY).is_locked();
    });
    reading(clones, is_locked)
}

#[test]
fn read_without_a_clone() {
    let seen = see([
        reading_atomic_cache,
        reading_moka,
        reading_quick_cache,
        reading_dashmap,
    ]);
    assert_row("read without a clone", &seen);
}

fn many_additions<C: Contender>() -> &'static str {
    const THREADS: usize = 4;
    const EACH: u64 = 100;
    let cache = C::new();
    let calls = Arc::new(AtomicU64::new(0));
    let start = Arc::new(Barrier::new(THREADS));
    let threads: [_; THREADS] = array::from_fn(|_| {
        let (cache, calls, start) = (cache.clone(), Arc::clone(&calls), Arc::clone(&start));
        on_a_thread(move || {
            start.wait();
            for _ in 0..EACH {
                cache.add_one(|| {
                    calls.fetch_add(1, SeqCst);
                });
            }
        })
    });
    for thread in &threads {
        receive(thread);
    }
    let sum = THREADS as u64 * EACH;
    if cache.peek() != Some(sum) {
        return "no";
    }
    // The first addition may find nothing to change, and then need no closure.
    assert!((sum - 1..=sum).contains(&calls.load(SeqCst)));
    let mut is_readable = None;
    cache.add_one(|| is_readable = Some(cache.is_readable()));
    if is_readable.expect("is called") {
        "once, exactly"
    } else {
        "under the shard's lock"
    }
}

#[test]
fn read_modify_write_of_an_entry() {
    let seen = see(of_each!(many_additions));
    assert_row("read-modify-write of an entry", &seen);
}

/// Not in the table, whose row is about an entry that is there. An addition made while a fill runs is added to that
/// fill's value, except in `moka`, where the fill overwrites the sum.
#[test]
fn read_modify_write_during_a_fill() {
    let cache = Atomic::new();
    let running = Running::start(&cache);
    let adding = cache.clone();
    let addition = on_a_thread(move || adding.add_one(|| ()));
    let_others_run();
    running.end();
    receive(&addition);
    assert_eq!(cache.peek(), Some(FILLED + 1));

    let cache = Moka::new();
    let running = Running::start(&cache);
    let adding = cache.clone();
    receive(&on_a_thread(move || adding.add_one(|| ())));
    assert_eq!(cache.peek(), Some(1));
    running.end();
    assert_eq!(cache.peek(), Some(FILLED));
}

// The rows that may hang
// ======================

/// Says to a child process which contender it is to run, by its column.
const COLUMN: &str = "COMPARISON_COLUMN";

/// The prefix of a child's messages, which come between those of its test runner.
const SAYS: &str = "child says: ";

/// A child's message when it is about to hang.
const ASKS: &str = "asks";

fn say(what: &str) {
    println!("{SAYS}{what}");
}

/// As [`see`], each in a process of its own. `test` is the name of the calling test, which is run again there.
fn see_apart(row: &str, test: &str, contenders: [fn() -> String; 4]) -> [String; 4] {
    if let Ok(column) = env::var(COLUMN) {
        let column: usize = column.parse().expect("a number");
        end_with_parent();
        say(&contenders[column]());
        process::exit(0);
    }
    let patience = said(row).map(|says| match says {
        "hangs" => HANGS_AFTER,
        _ => PATIENCE,
    });
    let watches: [_; 4] = array::from_fn(|column| {
        let (test, patience) = (test.to_owned(), patience[column]);
        thread::spawn(move || Process::start(&test, column).watch(patience))
    });
    watches.map(|watch| watch.join().expect("the process runs"))
}

/// Ends this process when the one that has started it is gone, and with it the other side of standard input.
fn end_with_parent() {
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        process::exit(1);
    });
}

/// A child process, which is killed when it is dropped.
struct Process {
    child: Child,
    says: Receiver<String>,
}

impl Process {
    fn start(test: &str, column: usize) -> Self {
        let mut child = Command::new(current_exe().expect("a test binary has a path"))
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(COLUMN, column.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a test binary runs");
        let lines = BufReader::new(child.stdout.take().expect("is piped")).lines();
        let (said, says) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, what)) = line.split_once(SAYS) {
                    // A process that counts as hanging has no listener.
                    let _ = said.send(what.to_owned());
                }
            }
        });
        Self { child, says }
    }

    /// Returns the answer that the process gives within `patience` after it has asked, or that it hangs.
    fn watch(self, patience: Duration) -> String {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        assert_eq!(receive(&self.says), ASKS);
        match self.says.recv_timeout(patience) {
            Ok(answer) => answer,
            Err(Timeout) => "hangs".to_owned(),
            Err(Disconnected) => "ends the process".to_owned(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn own_key<C: Contender>() -> String {
    let cache = C::new();
    let outer = cache.try_get_with(Key::quiet(KEY), || {
        say(ASKS);
        cache.try_get_with(Key::quiet(KEY), || Ok(LATER))
    });
    match outer {
        Err(error) if error.contains(&KEY.to_string()) => "error that names it".to_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_fill_asks_for_its_own_key() {
    const ROW: &str = "a fill asks for its own key";
    let seen = see_apart(ROW, "a_fill_asks_for_its_own_key", of_each!(own_key));
    assert_row(ROW, &seen);
}

fn each_other<C: Contender>() -> String {
    let cache = C::new();
    let both_run = Arc::new(Barrier::new(2));
    let threads = [(KEY, OTHER_KEY), (OTHER_KEY, KEY)].map(|(own, other)| {
        let (cache, both_run) = (cache.clone(), Arc::clone(&both_run));
        on_a_thread(move || {
            let mut error = None;
            let value = cache.try_get_with(Key::quiet(own), || {
                if both_run.wait().is_leader() {
                    say(ASKS);
                }
                // Goes on without the other value if there is none.
                let asked = cache.try_get_with(Key::quiet(other), || Ok(LATER));
                error = asked.err();
                Ok(FILLED)
            });
            assert_eq!(value, Ok(FILLED));
            error
        })
    });
    // Here it may hang, until the process is killed.
    let errors = threads.map(|thread| thread.recv().expect("answers"));
    let names_both = |error: &String| {
        [KEY, OTHER_KEY]
            .iter()
            .all(|key| error.contains(&key.to_string()))
    };
    match errors {
        [Some(error), None] | [None, Some(error)] if names_both(&error) => {
            "error that names both".to_owned()
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn two_fills_wait_for_each_other() {
    const ROW: &str = "two fills wait for each other";
    let seen = see_apart(ROW, "two_fills_wait_for_each_other", of_each!(each_other));
    assert_row(ROW, &seen);
}
