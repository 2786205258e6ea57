//! The tools the tests share: a watchdog, gates, counted values, an allocator that counts, tables
//! of the cache's methods.

use atomic_cache::{
    AtomicCache, Cache, CacheStats, CompResult, GuardResult, ManualClock, Op, TryGetError,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::any::Any;
use std::cell::Cell;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// More threads than a small machine has cores.
pub(crate) const THREADS: usize = 8;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const A_MOMENT: Duration = Duration::from_secs(10);
pub(crate) const A_WHILE: Duration = Duration::from_secs(120);

/// How long anything may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs `test` on a thread of its own, and fails if it has not ended after 30 seconds: R9. A thread
/// that hangs is left hanging.
#[track_caller]
pub(crate) fn watched<R: Send + 'static>(test: impl FnOnce() -> R + Send + 'static) -> R {
    watched_for(PATIENCE, test)
}

/// As [`watched`], with another patience.
#[track_caller]
pub(crate) fn watched_for<R: Send + 'static>(
    patience: Duration,
    test: impl FnOnce() -> R + Send + 'static,
) -> R {
    let (done, ended) = channel();
    let runner = thread::spawn(move || {
        let result = test();
        // The test may have given up on us and no longer listen.
        let _ = done.send(());
        result
    });
    match ended.recv_timeout(patience) {
        Ok(()) | Err(RecvTimeoutError::Disconnected) => match runner.join() {
            Ok(result) => result,
            Err(panic) => resume_unwind(panic),
        },
        Err(RecvTimeoutError::Timeout) => panic!("hangs: not ended after {patience:?}"),
    }
}

/// Names the test that is to run in a process of its own; set for that process.
const CHILD: &str = "ATOMIC_CACHE_TEST_CHILD";

/// The name of the test function in which this stands, with its module: for [`in_child`].
macro_rules! test_name {
    () => {{
        fn here() {}
        let path = std::any::type_name_of_val(&here);
        let (_crate, path) = path
            .split_once("::")
            .expect("the path begins with the crate");
        path.strip_suffix("::here")
            .expect("the path ends with the function")
    }};
}
pub(crate) use test_name;

/// Runs `test`, the body of the test function called `name` (see [`test_name`]), in a process of
/// its own, where it may abort, and is alone with the allocator's count.
#[track_caller]
pub(crate) fn in_child(name: &str, patience: Duration, test: impl FnOnce()) {
    if std::env::var(CHILD).is_ok_and(|child| child == name) {
        return test();
    }
    let mut child = Command::new(std::env::current_exe().expect("a test binary has a path"))
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, name)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a test binary runs");
    // Both pipes end when the process does.
    let reader = |mut pipe: Box<dyn Read + Send>| {
        let (send, receive) = channel();
        thread::spawn(move || {
            let mut bytes = vec![];
            let _ = pipe.read_to_end(&mut bytes);
            let _ = send.send(String::from_utf8_lossy(&bytes).into_owned());
        });
        receive
    };
    let output = reader(Box::new(child.stdout.take().expect("piped")));
    let errors = reader(Box::new(child.stderr.take().expect("piped")));
    let Ok(output) = output.recv_timeout(patience) else {
        let _ = child.kill();
        let _ = child.wait();
        panic!("{name} hangs: not ended after {patience:?}");
    };
    let errors = errors.recv().unwrap_or_default();
    let status = child.wait().expect("the child is ours");
    assert!(
        status.success(),
        "{name} in a process of its own: {status}\n{output}\n{errors}"
    );
    assert!(
        output.contains("1 passed"),
        "{name} has not run in its process:\n{output}"
    );
}

/// How many rounds a long test makes: `usual`, a tenth of it without optimization, or as
/// the environment variable `var` says.
pub(crate) fn rounds(var: &str, usual: u64) -> u64 {
    std::env::var(var)
        .ok()
        .and_then(|text| text.replace('_', "").parse().ok())
        .unwrap_or(if cfg!(debug_assertions) {
            usual / 10
        } else {
            usual
        })
}

/// Yields until `condition`; a watchdog ends it if that never comes.
pub(crate) fn spin_until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}

/// Lets other threads run for a while: a call that wrongly does not wait gets its chance to return.
pub(crate) fn let_others_run() {
    for _ in 0..200 {
        thread::yield_now();
    }
}

/// Waits until `n` calls have joined flights of the cache whose statistics `stats` reads.
///
/// A call is counted after it has taken part in the flight and before it sleeps. So the call gets
/// any outcome that the flight has from then on (clause 1); whether it has fallen asleep is not
/// known, and must not matter.
pub(crate) fn await_joined(stats: impl Fn() -> CacheStats, n: u64) {
    spin_until(|| stats().joined >= n);
}

/// Something that is shut until it is opened, once.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once the gate is open.
    pub(crate) fn pass(&self) {
        let mut open = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*open {
            open = self.0.1.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A fill that says when it has begun, and ends when it is told to.
#[derive(Clone, Default)]
pub(crate) struct Held {
    pub(crate) begun: Gate,
    pub(crate) end: Gate,
}

impl Held {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The body of the fill.
    pub(crate) fn hold<V>(&self, value: V) -> V {
        self.begun.open();
        self.end.pass();
        value
    }
}

/// Unwinds without the panic hook: thousands of expected panics write nothing.
pub(crate) fn unwind(text: &'static str) -> ! {
    resume_unwind(Box::new(text))
}

/// The panic of `f`, as text.
#[track_caller]
pub(crate) fn panic_text<R>(f: impl FnOnce() -> R) -> String {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => panic!("did not panic"),
        Err(panic) => text_of(&*panic),
    }
}

/// Whether `f` panics.
pub(crate) fn panics<R>(f: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

/// The text of a panic.
pub(crate) fn text_of(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without a text".to_owned())
}

/// A small generator of numbers (xorshift64), so that a failing run can be had again.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

/// The source of all caprice: a number that is different each time.
#[derive(Default)]
pub(crate) struct Caprice(AtomicU64);

impl Caprice {
    pub(crate) fn roll(&self, sides: u64) -> u64 {
        let number = self.0.fetch_add(1, SeqCst);
        Dice::new(number).roll(sides)
    }
}

/// How many of something were made, and how many were dropped.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) made: AtomicUsize,
    pub(crate) dropped: AtomicUsize,
}

impl Ledger {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// How many there are now.
    pub(crate) fn alive(&self) -> usize {
        let dropped = self.dropped.load(SeqCst);
        self.made.load(SeqCst) - dropped
    }

    /// One more.
    pub(crate) fn make(self: &Arc<Self>, id: u64) -> Counted {
        self.made.fetch_add(1, SeqCst);
        Counted {
            id,
            magic: MAGIC,
            ledger: Arc::clone(self),
        }
    }
}

const MAGIC: u64 = 0xC0FF_EE00_DEAD_BEE5;

/// A value that is counted, and knows whether it has been dropped already.
pub(crate) struct Counted {
    pub(crate) id: u64,
    magic: u64,
    ledger: Arc<Ledger>,
}

impl Counted {
    /// The number it was made with; checks that it is alive.
    pub(crate) fn id(&self) -> u64 {
        self.check();
        self.id
    }

    fn check(&self) {
        if self.magic != MAGIC {
            eprintln!("a value was used after it was dropped");
            std::process::abort();
        }
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.check();
        self.ledger.make(self.id)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.check();
        // SAFETY: a plain store to our own field, volatile so that it is not optimized away.
        unsafe { std::ptr::write_volatile(&raw mut self.magic, 0) };
        self.ledger.dropped.fetch_add(1, SeqCst);
    }
}

impl std::fmt::Debug for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.id())
    }
}

impl PartialEq for Counted {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Counted {}

impl std::hash::Hash for Counted {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

impl Counted {
    /// Whether this is a clone (of any depth) of a value that `ledger` has made.
    pub(crate) fn is_of(&self, ledger: &Arc<Ledger>) -> bool {
        Arc::ptr_eq(&self.ledger, ledger)
    }
}

/// A cache of numbers, and nothing else.
pub(crate) fn plain() -> Cache<u64, u64> {
    Cache::unbounded()
}

/// A cache of numbers by a clock that the test moves.
pub(crate) fn timed(ttl: Duration) -> (ManualClock, Cache<u64, u64>) {
    let clock = ManualClock::new();
    let cache = Cache::builder()
        .time_to_live(ttl)
        .clock(clock.clone())
        .build()
        .expect("good settings");
    (clock, cache)
}

/// Starts a fill of `key` that `held` holds, on a thread of its own, and returns once it runs.
pub(crate) fn start_fill(
    cache: &Cache<u64, u64>,
    key: u64,
    value: u64,
    held: &Held,
) -> JoinHandle<u64> {
    let (cache, inner) = (cache.clone(), held.clone());
    let leader = thread::spawn(move || cache.get_with(&key, || inner.hold(value)));
    held.begun.pass();
    leader
}

/// As [`start_fill`], over a live value: a compute, during which readers see the old one.
pub(crate) fn start_compute(
    cache: &Cache<u64, u64>,
    key: u64,
    value: u64,
    held: &Held,
) -> JoinHandle<CompResult<u64>> {
    let (cache, inner) = (cache.clone(), held.clone());
    let leader = thread::spawn(move || {
        cache
            .entry(key)
            .and_compute_with(|_| Op::Put(inner.hold(value)))
    });
    held.begun.pass();
    leader
}

/// Starts `n` threads that join the flight of `key`, and returns once they have.
pub(crate) fn join_flight(
    cache: &Cache<u64, u64>,
    key: u64,
    n: u64,
    own: u64,
) -> Vec<JoinHandle<u64>> {
    let before = cache.stats().joined;
    let waiters = (0..n)
        .map(|_| {
            let cache = cache.clone();
            thread::spawn(move || cache.get_with(&key, || own))
        })
        .collect();
    await_joined(|| cache.stats(), before + n);
    waiters
}

/// The error of the fills below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) &'static str);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Refused {}

/// The result of a call: the value, or the error's text, or nothing.
pub(crate) type Came = Result<u64, Option<String>>;

/// Runs a future to its end. A future that answers at once allocates nothing; another one is polled
/// by two wakers.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    match future.as_mut().poll(&mut context) {
        Poll::Ready(output) => output,
        Poll::Pending => futures_lite::future::block_on(future),
    }
}

/// The methods of a [`Cache`] that fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    GetWith,
    TryGetWith,
    OptionallyGetWith,
    OrInsertWith,
    OrTryInsertWith,
    Guard,
    Pinned,
    PinnedTry,
    Compute,
    GetWithAsync,
    TryGetWithAsync,
    OptionallyGetWithAsync,
    OrInsertWithAsync,
    OrTryInsertWithAsync,
    ComputeAsync,
}

impl Verb {
    pub(crate) const ALL: [Self; 15] = [
        Self::GetWith,
        Self::TryGetWith,
        Self::OptionallyGetWith,
        Self::OrInsertWith,
        Self::OrTryInsertWith,
        Self::Guard,
        Self::Pinned,
        Self::PinnedTry,
        Self::Compute,
        Self::GetWithAsync,
        Self::TryGetWithAsync,
        Self::OptionallyGetWithAsync,
        Self::OrInsertWithAsync,
        Self::OrTryInsertWithAsync,
        Self::ComputeAsync,
    ];

    /// Those that join a flight for its value. (A compute waits for the end of a fill, and then
    /// has its own turn.)
    pub(crate) fn joining() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|verb| !verb.computes())
    }

    /// Those with a fill that can end without a value and without a panic.
    pub(crate) const FALLIBLE: [Self; 10] = [
        Self::TryGetWith,
        Self::OptionallyGetWith,
        Self::OrTryInsertWith,
        Self::Guard,
        Self::PinnedTry,
        Self::Compute,
        Self::TryGetWithAsync,
        Self::OptionallyGetWithAsync,
        Self::OrTryInsertWithAsync,
        Self::ComputeAsync,
    ];

    /// Those that have a turn of their own.
    pub(crate) fn computes(self) -> bool {
        matches!(self, Self::Compute | Self::ComputeAsync)
    }

    /// Those of tasks.
    pub(crate) fn is_async(self) -> bool {
        format!("{self:?}").ends_with("Async")
    }

    /// Those with a fill that may find that there is no value.
    pub(crate) fn is_optional(self) -> bool {
        matches!(self, Self::OptionallyGetWith | Self::OptionallyGetWithAsync)
    }

    /// Those with a [`Refused`] as their error.
    pub(crate) fn shares_refusals(self) -> bool {
        matches!(
            self,
            Self::TryGetWith
                | Self::OrTryInsertWith
                | Self::PinnedTry
                | Self::TryGetWithAsync
                | Self::OrTryInsertWithAsync
        )
    }

    /// Asks for `key` with this method. Methods that cannot fail panic where `fill` fails.
    pub(crate) fn ask(
        self,
        cache: &Cache<u64, u64>,
        key: u64,
        fill: impl FnOnce() -> Result<u64, Refused>,
    ) -> Came {
        let sure = |result: Result<u64, Refused>| result.unwrap_or_else(|error| unwind(error.0));
        let said = |error: TryGetError<Refused>| Some(error.to_string());
        match self {
            Self::GetWith => Ok(cache.get_with(&key, || sure(fill()))),
            Self::TryGetWith => cache.try_get_with(&key, fill).map_err(said),
            Self::OptionallyGetWith => cache.optionally_get_with(&key, || fill().ok()).ok_or(None),
            Self::OrInsertWith => {
                let entry = cache.entry(key).or_insert_with(|| sure(fill()));
                Ok(entry.into_value())
            }
            Self::OrTryInsertWith => {
                let entry = cache.entry(key).or_try_insert_with(fill);
                entry.map(atomic_cache::Entry::into_value).map_err(said)
            }
            Self::Guard => match cache.get_value_or_guard(&key, None) {
                GuardResult::Value(value) => Ok(value),
                GuardResult::Guard(guard) => match fill() {
                    Ok(value) => Ok(guard.insert(value)),
                    Err(_) => Err(None),
                },
                GuardResult::Cycle(cycle) => Err(Some(cycle.to_string())),
                other => panic!("{other:?}"),
            },
            Self::Pinned => Ok(*cache.pin().get_or_fill_with(&key, || sure(fill()))),
            Self::PinnedTry => {
                let mut view = cache.pin();
                view.try_get_or_fill_with(&key, fill).copied().map_err(said)
            }
            Self::Compute => computed(&cache.entry(key).and_compute_with(|there| match there {
                Some(_) => Op::Nop,
                None => fill().map_or(Op::Nop, Op::Put),
            })),
            _ => block_on(self.ask_async(cache, key, fill)),
        }
    }

    async fn ask_async(
        self,
        cache: &Cache<u64, u64>,
        key: u64,
        fill: impl FnOnce() -> Result<u64, Refused>,
    ) -> Came {
        let sure = |result: Result<u64, Refused>| result.unwrap_or_else(|error| unwind(error.0));
        let said = |error: TryGetError<Refused>| Some(error.to_string());
        match self {
            Self::GetWithAsync => Ok(cache.get_with_async(&key, || async { sure(fill()) }).await),
            Self::TryGetWithAsync => cache
                .try_get_with_async(&key, || async { fill() })
                .await
                .map_err(said),
            Self::OptionallyGetWithAsync => cache
                .optionally_get_with_async(&key, || async { fill().ok() })
                .await
                .ok_or(None),
            Self::OrInsertWithAsync => {
                let fill = || async { sure(fill()) };
                let entry = cache.entry(key).or_insert_with_async(fill).await;
                Ok(entry.into_value())
            }
            Self::OrTryInsertWithAsync => {
                let fill = || async { fill() };
                let entry = cache.entry(key).or_try_insert_with_async(fill).await;
                entry.map(atomic_cache::Entry::into_value).map_err(said)
            }
            Self::ComputeAsync => {
                let op = |there: Option<u64>| async move {
                    match there {
                        Some(_) => Op::Nop,
                        None => fill().map_or(Op::Nop, Op::Put),
                    }
                };
                computed(&cache.entry(key).and_compute_with_async(op).await)
            }
            _ => unreachable!("a blocking verb"),
        }
    }
}

fn computed(result: &CompResult<u64>) -> Came {
    match *result {
        CompResult::Inserted(value)
        | CompResult::ReplacedWith(value)
        | CompResult::Unchanged(value) => Ok(value),
        CompResult::Removed(_) | CompResult::StillNone | CompResult::Superseded(_) => Err(None),
    }
}

/// The methods of an [`AtomicCache`] that fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtomicVerb {
    Get,
    TryGet,
    With,
    Refresh,
    TryRefresh,
    Pinned,
    PinnedTry,
    GetAsync,
    TryGetAsync,
    WithAsync,
    RefreshAsync,
    TryRefreshAsync,
}

impl AtomicVerb {
    pub(crate) const ALL: [Self; 12] = [
        Self::Get,
        Self::TryGet,
        Self::With,
        Self::Refresh,
        Self::TryRefresh,
        Self::Pinned,
        Self::PinnedTry,
        Self::GetAsync,
        Self::TryGetAsync,
        Self::WithAsync,
        Self::RefreshAsync,
        Self::TryRefreshAsync,
    ];

    /// Those that compute the value anew.
    pub(crate) fn refreshes(self) -> bool {
        matches!(
            self,
            Self::Refresh | Self::TryRefresh | Self::RefreshAsync | Self::TryRefreshAsync
        )
    }

    pub(crate) fn ask(self, cache: &AtomicCache<u64, u64>, key: u64) -> u64 {
        match self {
            Self::Get => cache.get(&key),
            Self::TryGet => cache.try_get(&key).expect("no cycle here"),
            Self::With => cache.with(&key, |value| *value),
            Self::Refresh => cache.refresh(&key),
            Self::TryRefresh => cache.try_refresh(&key).expect("no cycle here"),
            Self::Pinned => *cache.pin().get_or_fill(&key),
            Self::PinnedTry => *cache.pin().try_get_or_fill(&key).expect("no cycle here"),
            Self::GetAsync => block_on(cache.get_async(&key)),
            Self::TryGetAsync => block_on(cache.try_get_async(&key)).expect("no cycle here"),
            Self::WithAsync => block_on(cache.with_async(&key, |value| *value)),
            Self::RefreshAsync => block_on(cache.refresh_async(&key)),
            Self::TryRefreshAsync => {
                block_on(cache.try_refresh_async(&key)).expect("no cycle here")
            }
        }
    }
}

/// How a cache of its own computes its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By a closure, on the thread that leads.
    Call,
    /// By a future that is kept by its flight.
    Future,
}

impl Way {
    pub(crate) const ALL: [Self; 2] = [Self::Call, Self::Future];

    /// A cache of the values that `fill` computes.
    pub(crate) fn cache(
        self,
        fill: impl Fn(u64) -> u64 + Send + Sync + 'static,
    ) -> AtomicCache<u64, u64> {
        match self {
            Self::Call => AtomicCache::new(move |&key: &u64| fill(key), None),
            Self::Future => {
                let fill = Arc::new(fill);
                let make = move |key| {
                    let fill = fill.clone();
                    async move { fill(key) }
                };
                AtomicCache::new_async(make, None)
            }
        }
    }

    /// A cache with a fill that calls `next` with the cache and a key: the value is that of the key
    /// it returns plus one, or zero.
    pub(crate) fn chain(
        self,
        next: impl Fn(&AtomicCache<u64, u64>, u64) -> Option<u64> + Send + Sync + 'static,
    ) -> AtomicCache<u64, u64> {
        match self {
            Self::Call => AtomicCache::recursive(
                move |cache: &AtomicCache<u64, u64>, &key: &u64| {
                    next(cache, key).map_or(0, |next| cache.get(&next) + 1)
                },
                None,
            ),
            Self::Future => AtomicCache::recursive_async(
                move |cache: AtomicCache<u64, u64>, key| {
                    let next = next(&cache, key);
                    async move {
                        match next {
                            Some(next) => cache.get_async(&next).await + 1,
                            None => 0,
                        }
                    }
                },
                None,
            ),
        }
    }
}

/// The sum of the fills' endings is the number of fills: R10.
#[track_caller]
pub(crate) fn assert_fills_add_up(stats: &CacheStats, values: u64) {
    assert_eq!(
        stats.fills,
        values + stats.fill_errors + stats.fill_panics + stats.fill_cancelled,
        "{values} values, {stats:?}"
    );
}

/// A flag that is raised once.
#[derive(Clone, Default)]
pub(crate) struct Flag(Arc<AtomicBool>);

impl Flag {
    pub(crate) fn raise(&self) {
        self.0.store(true, SeqCst);
    }

    pub(crate) fn is_up(&self) -> bool {
        self.0.load(SeqCst)
    }
}

/// A count that closures share.
#[derive(Clone, Default)]
pub(crate) struct Tally(Arc<AtomicU64>);

impl Tally {
    /// One more; how many there were before.
    pub(crate) fn add(&self) -> u64 {
        self.0.fetch_add(1, SeqCst)
    }

    /// One less: the thing counted was none.
    pub(crate) fn less(&self) {
        self.0.fetch_sub(1, SeqCst);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(SeqCst)
    }
}

/// The system's allocator, counting.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that are allocated now, by all threads.
static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Whether freed memory is overwritten first.
static POISONS: AtomicBool = AtomicBool::new(false);

/// Of the one thread that is to stop in an allocation: whether it has, and whether it may go on.
static STOPPED: AtomicBool = AtomicBool::new(false);
static RESUMED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Allocations of this thread. Without a destructor: counts to the thread's very end.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Bytes that this thread has allocated, less those that it has freed; modulo 2^64.
    static KEPT: Cell<u64> = const { Cell::new(0) };
    /// The allocation in which this thread stops.
    static STOPS_AT: Cell<u64> = const { Cell::new(0) };
}

fn allocated(bytes: usize) {
    LIVE_BYTES.fetch_add(bytes, Relaxed);
    KEPT.set(KEPT.get().wrapping_add(bytes as u64));
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    if STOPS_AT.get() == ALLOCATIONS.get() {
        STOPPED.store(true, SeqCst);
        spin_until(|| RESUMED.load(SeqCst));
    }
}

fn freed(bytes: usize) {
    LIVE_BYTES.fetch_sub(bytes, Relaxed);
    KEPT.set(KEPT.get().wrapping_sub(bytes as u64));
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        allocated(layout.size());
        #[cfg(unix)]
        if let Some(pointer) = arena::alloc(layout) {
            return pointer;
        }
        // SAFETY: as our caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        allocated(layout.size());
        // The arena's memory is used once, and zero until then.
        #[cfg(unix)]
        if let Some(pointer) = arena::alloc(layout) {
            return pointer;
        }
        // SAFETY: as our caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        freed(layout.size());
        #[cfg(unix)]
        if arena::has(pointer) {
            return;
        }
        if POISONS.load(Relaxed) {
            // SAFETY: the caller has given it up, and it is so long.
            unsafe { pointer.write_bytes(0xDD, layout.size()) };
        }
        // SAFETY: as our caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        freed(layout.size());
        allocated(size);
        #[cfg(unix)]
        if arena::has(pointer) {
            // SAFETY: the caller promised that the new size makes a layout.
            let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
            // SAFETY: as our caller promised; neither is shorter than the bytes copied.
            return unsafe { arena::copied(pointer, new, size.min(layout.size())) };
        }
        // SAFETY: as our caller promised.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[cfg(unix)]
pub(crate) use arena::{in_arena, with_read_only_arena};

/// Pages of their own for the allocations of a test, which it can make read-only. Of use in a
/// process of its own; memory freed here is not used again.
#[cfg(unix)]
mod arena {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    const BYTES: usize = 1 << 26;

    /// Where it is, or 0.
    static START: AtomicUsize = AtomicUsize::new(0);
    /// How much of it is used.
    static USED: AtomicUsize = AtomicUsize::new(0);

    thread_local! {
        /// This thread allocates here.
        static OPEN: Cell<bool> = const { Cell::new(false) };
    }

    /// The allocations of `f` on this thread are in the arena.
    pub(crate) fn in_arena<R>(f: impl FnOnce() -> R) -> R {
        if START.load(SeqCst) == 0 {
            // SAFETY: a new mapping, which no other memory shares.
            let start = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    BYTES,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANON,
                    -1,
                    0,
                )
            };
            assert!(start != libc::MAP_FAILED, "no memory for an arena");
            START.store(start.expose_provenance(), SeqCst);
        }
        OPEN.set(true);
        let result = f();
        OPEN.set(false);
        result
    }

    /// A thread that stores into the arena while `f` runs ends the process.
    pub(crate) fn with_read_only_arena<R>(f: impl FnOnce() -> R) -> R {
        assert!(USED.load(SeqCst) > 0, "there is something to protect");
        protect(libc::PROT_READ);
        let result = f();
        protect(libc::PROT_READ | libc::PROT_WRITE);
        result
    }

    fn protect(protection: libc::c_int) {
        let start = std::ptr::with_exposed_provenance_mut(START.load(SeqCst));
        // SAFETY: our own mapping, which nothing else is in.
        let result = unsafe { libc::mprotect(start, BYTES, protection) };
        assert_eq!(result, 0, "the arena can be protected");
    }

    pub(super) fn has(pointer: *mut u8) -> bool {
        let start = START.load(SeqCst);
        start != 0 && (start..start + BYTES).contains(&pointer.addr())
    }

    pub(super) fn alloc(layout: Layout) -> Option<*mut u8> {
        if !OPEN.get() {
            return None;
        }
        let start = START.load(SeqCst);
        let size = layout.size().next_multiple_of(16) + layout.align();
        let from = (start + USED.fetch_add(size, SeqCst)).next_multiple_of(layout.align());
        let fits = from + layout.size() <= start + BYTES;
        Some(if fits {
            std::ptr::with_exposed_provenance_mut(from)
        } else {
            std::ptr::null_mut()
        })
    }

    /// A new allocation with the first `bytes` of `old`.
    ///
    /// # Safety
    /// `old` is an allocation of at least so many bytes, in the arena; the new one has as many.
    pub(super) unsafe fn copied(old: *mut u8, new: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: a layout that is not empty, as our caller's was not.
        let pointer = alloc(new).unwrap_or_else(|| unsafe { System.alloc(new) });
        if !pointer.is_null() {
            // SAFETY: as our caller promised; the new one is ours alone.
            unsafe { pointer.copy_from_nonoverlapping(old, bytes) };
        }
        pointer
    }
}

/// How often `f` allocates on this thread.
pub(crate) fn allocations(f: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

/// The value of `f`, and the bytes that it has allocated on this thread and not freed.
pub(crate) fn kept<R>(f: impl FnOnce() -> R) -> (R, u64) {
    let before = KEPT.get();
    let made = f();
    (made, KEPT.get().wrapping_sub(before))
}

/// Bytes that the whole process has allocated and not freed; of use in a process of its own.
pub(crate) fn live_bytes() -> usize {
    LIVE_BYTES.load(Relaxed)
}

/// From now on freed memory is overwritten, so that its user notices; of use in a process of its
/// own.
pub(crate) fn poison_what_is_freed() {
    POISONS.store(true, Relaxed);
}

/// Before a thread is started that [is to stop](stopping_at).
pub(crate) fn prepare_to_stop() {
    STOPPED.store(false, SeqCst);
    RESUMED.store(false, SeqCst);
}

/// Runs `f`, which stops in its `n`th allocation until it is [resumed](resume); one at a time, of
/// use in a process of its own.
pub(crate) fn stopping_at<R>(n: u64, f: impl FnOnce() -> R) -> R {
    STOPS_AT.set(ALLOCATIONS.get() + n);
    let result = f();
    STOPS_AT.set(0);
    result
}

/// Whether the one that is to stop has.
pub(crate) fn has_stopped() -> bool {
    STOPPED.load(SeqCst)
}

/// Lets it go on, and not stop if it has not yet.
pub(crate) fn resume() {
    RESUMED.store(true, SeqCst);
}
