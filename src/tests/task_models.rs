//! The methods of tasks: tasks that wait for a fill beside one another and beside threads, and
//! stored fills, which any polled waiter polls.
//!
//! A task is a thread of the model here, which polls and sleeps in turn. A [`Parker`] wakes it, so
//! a wake-up that is lost is a deadlock, and that a model ends is half of its proof.

use super::harness::{
    Actor, Explore, Fills, TestCache, TestHasher, Token, builder, cache, models, start,
};
use crate::atomic_cache::AtomicCache;
use crate::builder::Builder;
use crate::entry::Op;
use crate::guard::{GuardResult, PlaceholderGuard};
use crate::sync::{Mutex, Parker, lock};
use std::convert::Infallible;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

type Guard<'c> = PlaceholderGuard<'c, Token, Token, TestHasher>;
type StoredCache = AtomicCache<Token, Token, Infallible, TestHasher>;

fn key() -> Token {
    Token::new(1)
}

// ---- tasks -------------------------------------------------------------------------------------

/// A future, and its waker.
struct Task<T> {
    future: Pin<Box<dyn Future<Output = T>>>,
    parker: Arc<Parker>,
}

impl<T: 'static> Task<T> {
    fn new(future: impl Future<Output = T> + 'static) -> Self {
        let (future, parker) = (Box::pin(future), Parker::new());
        Self { future, parker }
    }

    /// A task that has been polled once and is pending.
    fn begun(future: impl Future<Output = T> + 'static) -> Self {
        let mut task = Self::new(future);
        assert!(task.poll().is_pending());
        task
    }

    fn poll(&mut self) -> Poll<T> {
        let waker = Waker::from(self.parker.clone());
        self.poll_with(&waker)
    }

    fn poll_with(&mut self, waker: &Waker) -> Poll<T> {
        self.future.as_mut().poll(&mut Context::from_waker(waker))
    }

    /// Polls once, and ignores the result.
    fn try_once(&mut self) {
        let _ = self.poll();
    }

    /// Polls whenever it is woken, until there is an answer.
    fn finish(mut self) -> T {
        loop {
            if let Poll::Ready(answer) = self.poll() {
                return answer;
            }
            self.parker.park();
        }
    }

    /// Does what [`finish`](Self::finish) does, for a future with a fill that may panic.
    fn finish_or_panic(self) -> Option<T> {
        catch_unwind(AssertUnwindSafe(|| self.finish())).ok()
    }
}

/// Starts a task that must return `expected`.
fn answers<T: PartialEq + std::fmt::Debug + 'static>(
    future: impl Future<Output = T> + 'static,
    expected: T,
) -> Actor {
    Box::new(move || assert_eq!(Task::new(future).finish(), expected))
}

/// Polls once, and drops the future.
fn tries<T: 'static>(future: impl Future<Output = T> + 'static) -> Actor {
    Box::new(move || Task::new(future).try_once())
}

/// A thread that does `act` with the cache.
fn thread(cache: &TestCache, act: impl FnOnce(&TestCache) + 'static) -> Actor {
    let cache = cache.clone();
    Box::new(move || act(&cache))
}

/// Pending once, without asking to be polled again.
async fn pause() {
    let mut paused = false;
    poll_fn(|_| {
        if std::mem::replace(&mut paused, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// Panics in a fill: unwinds, without a word on the terminal.
fn panic_quietly() -> ! {
    resume_unwind(Box::new("a fill that panics"))
}

async fn pause_and_panic() -> Token {
    pause().await;
    panic_quietly()
}

// ---- methods -----------------------------------------------------------------------------------

fn lead(cache: &TestCache) -> Guard<'_> {
    match cache.get_value_or_guard(&key(), None) {
        GuardResult::Guard(guard) => guard,
        other => panic!("nobody else is there: {other:?}"),
    }
}

/// `get_with_async` with this fill.
fn get_by<F>(cache: &TestCache, fill: F) -> impl Future<Output = u64> + use<F>
where
    F: Future<Output = u64>,
{
    let cache = cache.clone();
    async move {
        let fill = || async { Token::new(fill.await) };
        cache.get_with_async(&key(), fill).await.number()
    }
}

/// `get_with_async`, with a fill that returns 100 and more.
fn get(cache: &TestCache, fills: &Rc<Fills>) -> impl Future<Output = u64> + use<> {
    let fills = fills.clone();
    get_by(cache, async move { 100 + fills.fill() })
}

/// `get_with`, of a thread.
fn get_blocking(cache: &TestCache, fills: &Rc<Fills>) -> Actor {
    let fills = fills.clone();
    thread(cache, move |cache| {
        let value = cache.get_with(&key(), || Token::new(100 + fills.fill()));
        assert_eq!(value.number(), 100);
    })
}

/// `try_get_with_async`; the first fill of all fails.
fn try_get(cache: &TestCache, fills: &Rc<Fills>) -> impl Future<Output = Result<u64, u64>> + use<> {
    let (cache, fills) = (cache.clone(), fills.clone());
    async move {
        let fill = || async {
            match fills.fill() {
                0 => Err(0_u64),
                n => Ok(Token::new(100 + n)),
            }
        };
        match cache.try_get_with_async(&key(), fill).await {
            Ok(value) => Ok(value.number()),
            Err(crate::TryGetError::Fill(error)) => Err(error),
            Err(other) => panic!("{other:?}"),
        }
    }
}

fn invalidate(cache: &TestCache) -> impl Future<Output = bool> + use<> {
    let cache = cache.clone();
    async move { cache.invalidate_async(&key()).await }
}

/// Adds one to the value, which is 0 at first.
fn count(cache: &TestCache) -> impl Future<Output = ()> + use<> {
    let cache = cache.clone();
    async move {
        let add = |seen: Option<Token>| async move {
            Op::Put(Token::new(seen.map_or(0, |seen| seen.number()) + 1))
        };
        cache.entry(key()).and_compute_with_async(add).await;
    }
}

/// At rest: the cache holds `expected` and nothing else.
fn assert_holds(cache: &TestCache, expected: Option<u64>) {
    assert_eq!(cache.peek(&key()).map(|value| value.number()), expected);
    assert_eq!(cache.len(), usize::from(expected.is_some()));
    assert_eq!(cache.retired(), 0);
}

/// Takes the entry out; then nothing is left. (The harness counts keys and values.)
fn empty(cache: &TestCache) {
    cache.invalidate(&key());
    assert_holds(cache, None);
}

/// One fill, which returned 100, is all there was.
fn assert_one_fill(cache: &TestCache, fills: &Fills) {
    assert_eq!(fills.count(), 1);
    assert_holds(cache, Some(100));
    empty(cache);
}

// ---- cycles ------------------------------------------------------------------------------------

/// Fills `keys[0]` with a fill that asks for the next of them, and so on.
fn ask_along(
    cache: TestCache,
    keys: &'static [u64],
) -> Pin<Box<dyn Future<Output = Result<Token, ()>>>> {
    Box::pin(async move {
        let Some((&first, rest)) = keys.split_first() else {
            return Ok(Token::new(0));
        };
        let fill = || ask_along(cache.clone(), rest);
        let answer = cache.try_get_with_async(&Token::new(first), fill).await;
        answer.map_err(|_| ())
    })
}

// ---- stored fills ------------------------------------------------------------------------------

/// A gate that a fill waits for; another thread opens it, once.
#[derive(Clone)]
struct Gate(Arc<Mutex<(bool, Option<Waker>)>>);

impl Gate {
    fn new() -> Self {
        Self(Arc::new(Mutex::new((false, None))))
    }

    fn open(&self) {
        lock(&self.0).0 = true;
        self.ring();
    }

    /// Wakes the waiting fill, though the gate may not be open.
    fn ring(&self) {
        let waker = lock(&self.0).1.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// A thread that opens it.
    fn opener(&self) -> Actor {
        let gate = self.clone();
        Box::new(move || gate.open())
    }

    async fn opened(self) {
        poll_fn(|cx| {
            let mut gate = lock(&self.0);
            if gate.0 {
                return Poll::Ready(());
            }
            let other = gate.1.replace(cx.waker().clone());
            drop(gate);
            drop(other);
            Poll::Pending
        })
        .await;
    }
}

/// All threads of a model run on one thread of the system: a value in here goes to no other.
struct Here<T>(T);

// SAFETY: all threads of a model run on one thread of the system.
unsafe impl<T> Send for Here<T> {}
// SAFETY: all threads of a model run on one thread of the system.
unsafe impl<T> Sync for Here<T> {}

impl Here<Rc<Fills>> {
    fn fill(&self) -> u64 {
        self.0.fill()
    }

    fn again(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A cache with stored fills, which run `then` when the gate has been opened.
fn stored_by(gate: &Gate, fills: &Rc<Fills>, then: fn(u64) -> u64) -> StoredCache {
    build_stored(builder(), gate, fills, then)
}

fn build_stored(
    builder: Builder<Token, Token, TestHasher>,
    gate: &Gate,
    fills: &Rc<Fills>,
    then: fn(u64) -> u64,
) -> StoredCache {
    let (gate, fills) = (gate.clone(), Here(fills.clone()));
    let fill = move |_| {
        let (gate, fills) = (gate.clone(), fills.again());
        async move {
            let before = fills.fill();
            gate.opened().await;
            Token::new(then(before))
        }
    };
    builder.build_with_async(fill).expect("good settings")
}

/// A compute with the previous value 0, which puts in 1 when its gate is opened.
struct Stuck {
    gate: Gate,
    task: Task<()>,
}

fn stuck() -> (TestCache, Stuck) {
    let (cache, gate) = (cache(), Gate::new());
    cache.insert(key(), Token::new(0));
    let (handle, opened) = (cache.clone(), gate.clone());
    let task = Task::begun(async move {
        let add = |_| async move {
            opened.opened().await;
            Op::Put(Token::new(1))
        };
        handle.entry(key()).and_compute_with_async(add).await;
    });
    (cache, Stuck { gate, task })
}

fn takes_over(cache: &TestCache) -> Actor {
    thread(cache, |cache| {
        cache.takeover(&key());
    })
}

/// Drops the compute, which has been detached. Then the cache holds `expected` and nothing else.
fn assert_holds_no_more(cache: &TestCache, compute: Stuck, expected: Option<u64>) {
    compute.gate.open();
    compute.task.finish();
    assert_holds(cache, expected);
    empty(cache);
}

/// A get of another key, whose fill waits for `inner`.
fn get_around(cache: &TestCache, inner: Task<u64>) -> impl Future<Output = u64> + use<> {
    let cache = cache.clone();
    async move {
        let fill = || async { Token::new(inner.future.await) };
        cache.get_with_async(&Token::new(2), fill).await.number()
    }
}

/// A wait that began outside of fills goes on inside a fill.
fn moves_into_a_fill(
    cache: &TestCache,
    future: impl Future<Output = u64> + 'static,
    expected: u64,
) -> Actor {
    let cache = cache.clone();
    Box::new(move || {
        let mut inner = Task::new(future);
        let value = match inner.poll() {
            Poll::Ready(value) => value,
            Poll::Pending => Task::new(get_around(&cache, inner)).finish(),
        };
        assert_eq!(value, expected);
        cache.invalidate(&Token::new(2));
    })
}

/// Does what [`stored_by`] does; the fills return 100 and more.
fn stored(gate: &Gate, fills: &Rc<Fills>) -> StoredCache {
    stored_by(gate, fills, |before| 100 + before)
}

/// Does what [`stored`] does, with a spawner that polls an abandoned fill to its end.
fn spawned(gate: &Gate, fills: &Rc<Fills>) -> StoredCache {
    let spawner = |job| Task::new(job).finish();
    build_stored(builder().spawner(spawner), gate, fills, |before| {
        100 + before
    })
}

/// A cache in which the fill of 1 asks for 2, and the fill of 2 for 1. A refused fill returns 0.
fn stored_that_ask_each_other() -> StoredCache {
    let fill = |cache: StoredCache, key: Token| async move {
        let other = cache.try_get_async(&Token::new(3 - key.number())).await;
        other.unwrap_or(Token::new(0))
    };
    builder()
        .build_recursive_async(fill)
        .expect("good settings")
}

fn get_stored(cache: &StoredCache) -> impl Future<Output = u64> + use<> {
    let cache = cache.clone();
    async move { cache.get_async(&key()).await.number() }
}

/// The last handle, at rest: one fill, which returned 100, is all there was.
fn assert_one_stored(cache: &StoredCache, fills: &Fills) {
    assert_one_fill(&cache.cache, fills);
}

models! {
    // ---- L1 ------------------------------------------------------------------------------------

    /// L1, clause 1, cold: two tasks, one fill, one value.
    task_l01_one_fill_for_two: Explore::AtMost(5) => || {
        let cache = cache();
        let fills = Fills::new();
        let others = start([answers(get(&cache, &fills), 100)]);
        assert_eq!(Task::new(get(&cache, &fills)).finish(), 100);
        others.join();
        assert_one_fill(&cache, &fills);
    };

    /// L1 with three tasks.
    task_l01_one_fill_for_three: Explore::AtMost(1) => || {
        let cache = cache();
        let fills = Fills::new();
        let others = start([answers(get(&cache, &fills), 100), answers(get(&cache, &fills), 100)]);
        assert_eq!(Task::new(get(&cache, &fills)).finish(), 100);
        others.join();
        assert_one_fill(&cache, &fills);
    };

    /// L1 with a task and a thread: they share one flight, whichever of them leads.
    task_l01_one_fill_for_a_task_and_a_thread: Explore::AtMost(5) => || {
        let cache = cache();
        let fills = Fills::new();
        let others = start([get_blocking(&cache, &fills)]);
        assert_eq!(Task::new(get(&cache, &fills)).finish(), 100);
        others.join();
        assert_one_fill(&cache, &fills);
    };

    // ---- L2 ------------------------------------------------------------------------------------

    /// L2, clause 4, cold: every task that joined gets the first fill's error, once; a later one
    /// fills again.
    task_l02_an_error_is_shared_and_not_kept: Explore::AtMost(4) => || {
        let cache = cache();
        let fills = Fills::new();
        let other = Rc::new(std::cell::Cell::new(Ok(0)));
        let (set, future) = (other.clone(), try_get(&cache, &fills));
        let others = start([Box::new(move || set.set(Task::new(future).finish())) as Actor]);
        let ours = Task::new(try_get(&cache, &fills)).finish();
        others.join();
        let mut answers = [ours, other.get()];
        answers.sort_unstable();
        match answers {
            [Err(0), Err(0)] => assert_eq!((fills.count(), cache.stats().joined), (1, 1)),
            [Ok(101), Err(0)] => assert_eq!((fills.count(), cache.stats().joined), (2, 0)),
            other => panic!("{other:?}"),
        }
        assert_holds(&cache, ours.or(other.get()).ok());
        empty(&cache);
    };

    // ---- L3 ------------------------------------------------------------------------------------

    /// L3, clause 4: a leader is dropped in the middle of its fill while a task waits for it, or is
    /// about to. The waiter leads; afterwards the key is as good as ever.
    task_l03_a_waiter_takes_a_dropped_lead: Explore::AtMost(5) => || {
        let cache = cache();
        let fills = Fills::new();
        let leader = Task::begun(get_by(&cache, std::future::pending()));
        let others = start([answers(get(&cache, &fills), 100)]);
        drop(leader);
        others.join();
        assert_one_fill(&cache, &fills);
        assert_eq!(Task::new(get(&cache, &fills)).finish(), 101);
    };

    /// L3, clause 4: a fill panics while a task waits for it. The panic goes on in the task that
    /// polls it, and the lead is passed on at once, although the future that led is still there.
    task_l03_a_waiter_takes_the_lead_of_a_fill_that_panics: Explore::AtMost(4) => || {
        let cache = cache();
        let fills = Fills::new();
        let key = key();
        // Not in an `async` block, which would drop it as it unwinds.
        let mut leader = pin!(cache.get_with_async(&key, pause_and_panic));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(leader.as_mut().poll(&mut cx).is_pending());
        let others = start([answers(get(&cache, &fills), 100)]);
        let poll = AssertUnwindSafe(|| leader.as_mut().poll(&mut cx).is_ready());
        assert!(catch_unwind(poll).is_err());
        others.join();
        assert_one_fill(&cache, &fills);
    };

    /// L3 with two tasks that wait: one of them leads, the other gets its value.
    task_l03_one_of_two_waiters_takes_a_dropped_lead: Explore::Long(2) => || {
        let cache = cache();
        let fills = Fills::new();
        let leader = Task::begun(get_by(&cache, std::future::pending()));
        let others = start([answers(get(&cache, &fills), 100), answers(get(&cache, &fills), 100)]);
        drop(leader);
        others.join();
        assert_one_fill(&cache, &fills);
    };

    /// L3, clause 4: a task that waits is never polled again. The lead goes to another thread,
    /// which waits already, or comes after.
    task_l03_a_forgotten_task_does_not_keep_a_lost_lead: Explore::All => || {
        let cache = cache();
        let fills = Fills::new();
        let leader = Task::begun(get_by(&cache, std::future::pending()));
        let forgotten = Task::begun(get(&cache, &fills));
        let others = start([get_blocking(&cache, &fills)]);
        drop(leader);
        others.join();
        assert_eq!(forgotten.finish(), 100);
        assert_one_fill(&cache, &fills);
    };

    // ---- L4 ------------------------------------------------------------------------------------

    /// L4, clause 4: a leader publishes while a task enlists.
    task_l04_no_lost_wake_up_of_one: Explore::AtMost(5) => || {
        let cache = cache();
        let fills = Fills::new();
        let guard = lead(&cache);
        let others = start([answers(get(&cache, &fills), 7)]);
        guard.insert(Token::new(7));
        others.join();
        assert_eq!(fills.count(), 0);
        assert_holds(&cache, Some(7));
        empty(&cache);
    };

    /// L4 with two that enlist while a task publishes.
    task_l04_no_lost_wake_up: Explore::Long(2) => || {
        let cache = cache();
        let fills = Fills::new();
        let fill = async {
            pause().await;
            7
        };
        let leader = Task::begun(get_by(&cache, fill));
        let others = start([answers(get(&cache, &fills), 7), answers(get(&cache, &fills), 7)]);
        let mut leader = leader;
        assert_eq!(leader.poll(), Poll::Ready(7));
        others.join();
        assert_eq!(fills.count(), 0);
        assert_holds(&cache, Some(7));
        empty(&cache);
    };

    // ---- L5 ------------------------------------------------------------------------------------

    /// L5: a task that waits is dropped while the publisher takes the list; another stays.
    task_l05_a_waiter_leaves_while_its_flight_ends: Explore::Long(2) => || {
        let cache = cache();
        let fills = Fills::new();
        let guard = lead(&cache);
        let others = start([tries(get(&cache, &fills)), answers(get(&cache, &fills), 7)]);
        guard.insert(Token::new(7));
        others.join();
        assert_eq!(fills.count(), 0);
        assert_holds(&cache, Some(7));
        empty(&cache);
    };

    /// L5: the lead is lost, and offered to two tasks of which one is just leaving. The other takes
    /// it.
    task_l05_a_leaver_leaves_the_lead_to_who_stays: Explore::Long(2) => || {
        let cache = cache();
        let fills = Fills::new();
        let guard = lead(&cache);
        let others = start([tries(get(&cache, &fills)), answers(get(&cache, &fills), 100)]);
        drop(guard);
        others.join();
        assert_one_fill(&cache, &fills);
    };

    /// L5: the lead is lost, and offered to tasks that are all just leaving. The last of them gives
    /// it up: the next caller fills.
    task_l05_the_last_leaver_gives_an_open_lead_up: Explore::All => || {
        let cache = cache();
        let fills = Fills::new();
        let leader = Task::begun(get_by(&cache, std::future::pending()));
        let waiters = [0, 1].map(|_| Task::begun(get(&cache, &fills)));
        let others = start(waiters.map(|waiter| Box::new(move || drop(waiter)) as Actor));
        drop(leader);
        others.join();
        assert_holds(&cache, None);
        assert_eq!(Task::new(get(&cache, &fills)).finish(), 100);
        assert_one_fill(&cache, &fills);
    };

    // ---- L6 ------------------------------------------------------------------------------------

    /// L6: a task is polled with one waker, and then with another, while its flight ends. It sees the
    /// value, or its last waker is woken; no waker stays behind.
    task_l06_a_waker_is_swapped_while_its_flight_ends: Explore::AtMost(5) => || {
        let cache = cache();
        let fills = Fills::new();
        let guard = lead(&cache);
        let (first, future) = (Parker::new(), get(&cache, &fills));
        let swapped = first.clone();
        let others = start([Box::new(move || {
            let mut task = Task::new(future);
            let value = match task.poll_with(&Waker::from(swapped)) {
                Poll::Ready(value) => value,
                Poll::Pending => task.finish(),
            };
            assert_eq!(value, 7);
        }) as Actor]);
        guard.insert(Token::new(7));
        others.join();
        assert_eq!(Arc::strong_count(&first), 1, "a waker was left behind");
        assert_holds(&cache, Some(7));
        empty(&cache);
    };

    /// L6: a task is polled with two wakers, and dropped, while its flight ends.
    task_l06_a_task_with_two_wakers_is_dropped_while_its_flight_ends: Explore::AtMost(5) => || {
        let cache = cache();
        let fills = Fills::new();
        let guard = lead(&cache);
        let (wakers, future) = ([Parker::new(), Parker::new()], get(&cache, &fills));
        let given = wakers.clone();
        let others = start([Box::new(move || {
            let mut task = Task::new(future);
            let mut wakers = given.map(Waker::from).into_iter();
            // A future is not polled after it has answered.
            let _ = wakers.find(|waker| task.poll_with(waker).is_ready());
        }) as Actor]);
        guard.insert(Token::new(7));
        others.join();
        let counts = wakers.each_ref().map(Arc::strong_count);
        assert_eq!(counts, [1, 1], "a waker was left behind");
        assert_holds(&cache, Some(7));
        empty(&cache);
    };

    // ---- L7 ------------------------------------------------------------------------------------

    /// L7, clause 2: `invalidate_async` against a task's fill that began before it. When it returns
    /// the fill has ended, and its value is not seen again.
    task_l07_invalidate_waits_for_the_fill: Explore::AtMost(5) => || {
        let cache = cache();
        let fills = Fills::new();
        let filled = fills.clone();
        let fill = async move {
            pause().await;
            filled.fill();
            7
        };
        let mut leader = Task::begun(get_by(&cache, fill));
        let seen = fills.clone();
        let others = start([thread(&cache, move |cache| {
            assert!(!Task::new(invalidate(cache)).finish() || seen.count() == 1);
            assert_eq!(seen.count(), 1);
            assert_eq!(cache.peek(&key()), None);
        })]);
        assert_eq!(leader.poll(), Poll::Ready(7));
        others.join();
        assert_holds(&cache, None);
    };

    /// L7, clause 2: an `invalidate_async` that is dropped while it waits has taken effect. A later
    /// caller never gets the old value.
    task_l07_a_dropped_invalidate_has_taken_effect: Explore::Long(4) => || {
        let cache = cache();
        let fills = Fills::new();
        let guard = lead(&cache);
        let after = fills.clone();
        let others = start([thread(&cache, move |cache| {
            let mut invalidate = Task::new(invalidate(cache));
            invalidate.try_once();
            drop(invalidate);
            assert_eq!(Task::new(get(cache, &after)).finish(), 100);
        })]);
        assert_eq!(guard.insert(Token::new(7)).number(), 7);
        others.join();
        assert_one_fill(&cache, &fills);
    };

    /// L7: a task's lead is lost while its fill is being detached and another task waits for it.
    task_l07_invalidate_meets_a_lost_lead: Explore::Long(2) => || {
        let cache = cache();
        let fills = Fills::new();
        let leader = Task::begun(get_by(&cache, std::future::pending()));
        let removes = invalidate(&cache);
        let others = start([
            // True if it comes after the second fill.
            Box::new(move || { Task::new(removes).finish(); }),
            answers(get(&cache, &fills), 100),
        ]);
        drop(leader);
        others.join();
        assert_eq!(fills.count(), 1);
        empty(&cache);
    };

    // ---- L8 ------------------------------------------------------------------------------------

    /// L8, clause 3: `insert` against a task's fill that a task waits for. The waiter gets either
    /// value, the leader its own, and the inserted one stays.
    task_l08_insert_beats_a_fill_that_is_waited_for: Explore::Long(3) => || {
        let cache = cache();
        let fill = async {
            pause().await;
            7
        };
        let mut leader = Task::begun(get_by(&cache, fill));
        let waits = get_by(&cache, async { 300 });
        let others = start([
            thread(&cache, |cache| {
                cache.insert(key(), Token::new(200));
                assert_eq!(cache.peek(&key()).map(|value| value.number()), Some(200));
            }),
            Box::new(move || assert!([7, 200].contains(&Task::new(waits).finish()))),
        ]);
        assert_eq!(leader.poll(), Poll::Ready(7));
        others.join();
        assert_holds(&cache, Some(200));
        empty(&cache);
    };

    /// L8, clause 3: a task that waits for a fill gets the inserted value at once, while the fill
    /// goes on. (It ends after them.)
    task_l08_a_task_gets_what_is_inserted_at_once: Explore::AtMost(5) => || {
        let cache = cache();
        let guard = lead(&cache);
        let others = start([answers(get_by(&cache, async { 300 }), 200)]);
        cache.insert(key(), Token::new(200));
        others.join();
        assert_eq!(guard.insert(Token::new(7)).number(), 7);
        assert_holds(&cache, Some(200));
        empty(&cache);
    };

    /// L8, clause 9: a value is held for a task that may never be polled again, and is removed.
    /// `quiesce` does not wait for that task, at whatever moment it began to wait.
    task_l08_quiesce_does_not_wait_for_a_forgotten_task: Explore::AtMost(5) => || {
        let cache = cache();
        // (A thread that leads does not wait in `quiesce`.)
        let leader = Task::begun(get_by(&cache, std::future::pending()));
        let forgotten = Rc::new(std::cell::RefCell::new(Task::new(get_by(&cache, async { 300 }))));
        let other = forgotten.clone();
        let others = start([Box::new(move || other.borrow_mut().try_once()) as Actor]);
        cache.insert(key(), Token::new(200));
        cache.invalidate_nowait(&key());
        cache.quiesce();
        others.join();
        drop(forgotten);
        drop(leader);
        empty(&cache);
    };

    /// The same of a flight that ends with its own value.
    task_l08_quiesce_does_not_wait_for_a_forgotten_reader: Explore::AtMost(4) => || {
        let cache = cache();
        let guard = lead(&cache);
        let forgotten = Rc::new(std::cell::RefCell::new(Task::new(get_by(&cache, async { 300 }))));
        let other = forgotten.clone();
        let others = start([Box::new(move || other.borrow_mut().try_once()) as Actor]);
        guard.insert(Token::new(7));
        cache.invalidate_nowait(&key());
        cache.quiesce();
        others.join();
        drop(forgotten);
        empty(&cache);
    };

    // ---- L13 -----------------------------------------------------------------------------------

    /// L13, clause 5: 1 asks for 2 and 2 asks for 1, in two tasks. Without the error that would be
    /// a deadlock.
    task_l13_a_cycle_over_two_tasks_is_an_error: Explore::AtMost(3) => || {
        let cache = cache();
        let one = ask_along(cache.clone(), &[1, 2]);
        let others = start([Box::new(move || drop(Task::new(one).finish())) as Actor]);
        drop(Task::new(ask_along(cache.clone(), &[2, 1])).finish());
        others.join();
    };

    /// L13 with a task and a thread.
    task_l13_a_cycle_over_a_task_and_a_thread_is_an_error: Explore::Long(3) => || {
        let cache = cache();
        let others = start([thread(&cache, |cache| {
            let _ = cache.try_get_with(&Token::new(1), || {
                cache
                    .try_get_with(&Token::new(2), || Ok::<_, ()>(Token::new(2)))
                    .map_err(|_| ())
            });
        })]);
        drop(Task::new(ask_along(cache.clone(), &[2, 1])).finish());
        others.join();
    };

    /// L13 through a fill that is polled inside another: 1 leads 2, and the fill of 2 asks for 3;
    /// and 3 asks for 1. The task waits for a flight that it leads itself: the cycle leads back
    /// that far.
    task_l13_a_cycle_through_a_nested_lead_is_an_error: Explore::AtMost(2) => || {
        let cache = cache();
        let one = ask_along(cache.clone(), &[1, 2, 3]);
        let others = start([Box::new(move || drop(Task::new(one).finish())) as Actor]);
        drop(Task::new(ask_along(cache.clone(), &[3, 1])).finish());
        others.join();
    };

    // ---- others --------------------------------------------------------------------------------

    /// A wait that began outside of fills goes on inside a fill, and enters the graph. It misses
    /// nothing on the way, neither the end of its flight ...
    task_a_wait_that_moves_misses_no_value: Explore::AtMost(3) => || {
        let cache = cache();
        let fills = Fills::new();
        let guard = lead(&cache);
        let others = start([moves_into_a_fill(&cache, get(&cache, &fills), 7)]);
        guard.insert(Token::new(7));
        others.join();
        assert_holds(&cache, Some(7));
        empty(&cache);
    };

    /// ... nor the lead.
    task_a_wait_that_moves_misses_no_lead: Explore::AtMost(3) => || {
        let cache = cache();
        let fills = Fills::new();
        let guard = lead(&cache);
        let others = start([moves_into_a_fill(&cache, get(&cache, &fills), 100)]);
        drop(guard);
        others.join();
        assert_one_fill(&cache, &fills);
    };

    /// Two tasks compute one key: the second sees the value that the first has put in.
    task_one_compute_follows_the_other: Explore::AtMost(4) => || {
        let cache = cache();
        let others = start([answers(count(&cache), ())]);
        Task::new(count(&cache)).finish();
        others.join();
        assert_holds(&cache, Some(2));
        empty(&cache);
    };

    // ---- stored fills ------------------------------------------------------------------------------

    /// Clause 4 for a stored fill, cold: it asks to be polled while it is polled, just before it is
    /// put back, and while no task polls it. Its one waiter comes each time.
    stored_no_ring_is_lost: Explore::All => || {
        let (gate, fills) = (Gate::new(), Fills::new());
        let cache = stored(&gate, &fills);
        let others = start([gate.opener()]);
        assert_eq!(Task::new(get_stored(&cache)).finish(), 100);
        others.join();
        assert_one_stored(&cache, &fills);
    };

    /// The same with a thread that waits: it polls the fill itself.
    stored_no_ring_is_lost_on_a_thread: Explore::All => || {
        let (gate, fills) = (Gate::new(), Fills::new());
        let cache = stored(&gate, &fills);
        let others = start([gate.opener()]);
        assert_eq!(cache.get(&key()).number(), 100);
        others.join();
        assert_one_stored(&cache, &fills);
    };

    /// Clause 1, cold: two tasks share a stored fill, and the one that is awake polls it.
    stored_one_fill_for_two: Explore::Long(2) => || {
        let (gate, fills) = (Gate::new(), Fills::new());
        let cache = stored(&gate, &fills);
        let others = start([answers(get_stored(&cache), 100), gate.opener()]);
        assert_eq!(Task::new(get_stored(&cache)).finish(), 100);
        others.join();
        assert_one_stored(&cache, &fills);
    };

    /// H18, clause 4: the task that has begun a fill is never polled again. The fill's ring wakes
    /// the other, which polls it to its end.
    stored_a_forgotten_waiter_holds_nobody_up: Explore::All => || {
        let (gate, fills) = (Gate::new(), Fills::new());
        let cache = stored(&gate, &fills);
        let forgotten = Task::begun(get_stored(&cache));
        let others = start([gate.opener()]);
        assert_eq!(Task::new(get_stored(&cache)).finish(), 100);
        others.join();
        assert_eq!(forgotten.finish(), 100);
        assert_one_stored(&cache, &fills);
    };

    /// H18: the task that is forgotten is the one that polled the fill when it rang. The ring goes on
    /// to the other, which sleeps.
    stored_a_ring_goes_on_to_who_sleeps: Explore::Long(2) => || {
        let (gate, fills) = (Gate::new(), Fills::new());
        let cache = stored(&gate, &fills);
        let forgotten = Rc::new(std::cell::RefCell::new(Task::new(get_stored(&cache))));
        let polls = forgotten.clone();
        let others = start([
            Box::new(move || polls.borrow_mut().try_once()) as Actor,
            gate.opener(),
        ]);
        assert_eq!(Task::new(get_stored(&cache)).finish(), 100);
        others.join();
        drop(forgotten);
        assert_one_stored(&cache, &fills);
    };

    /// L5 for a stored fill: one of two waiters is dropped, perhaps while the fill rings. The fill
    /// goes on.
    stored_a_waiter_is_dropped_in_the_middle: Explore::Long(4) => || {
        let (gate, fills) = (Gate::new(), Fills::new());
        let cache = stored(&gate, &fills);
        let stays = Task::begun(get_stored(&cache));
        let others = start([tries(get_stored(&cache)), gate.opener()]);
        assert_eq!(stays.finish(), 100);
        others.join();
        assert_one_stored(&cache, &fills);
    };

    /// L15 for a stored fill: the last waiter leaves, and takes the fill with it while that rings.
    /// The next caller starts another.
    stored_the_last_waiter_takes_the_fill_with_it: Explore::All => || {
        let (gate, fills) = (Gate::new(), Fills::new());
        let cache = stored(&gate, &fills);
        let others = start([gate.opener()]);
        Task::new(get_stored(&cache)).try_once();
        others.join();
        let fills_before = fills.count();
        let kept = cache.peek(&key()).map(|value| value.number());
        assert!([None, Some(100)].contains(&kept));
        let value = Task::new(get_stored(&cache)).finish();
        assert_eq!(value, kept.unwrap_or(100 + fills_before));
        assert_holds(&cache.cache, Some(value));
        empty(&cache.cache);
    };

    /// Both waiters leave, each perhaps with the fill in its hands.
    stored_two_last_waiters_leave: Explore::Long(2) => || {
        let (gate, fills) = (Gate::new(), Fills::new());
        let cache = stored(&gate, &fills);
        let others = start([tries(get_stored(&cache)), gate.opener()]);
        Task::new(get_stored(&cache)).try_once();
        others.join();
        let kept = cache.peek(&key()).map(|value| value.number());
        assert!([None, Some(100), Some(101)].contains(&kept));
        assert_holds(&cache.cache, kept);
        empty(&cache.cache);
    };

    /// L3 for a stored fill: it panics in the waiter that polls it. The other waiter starts it
    /// anew.
    stored_a_panic_goes_on_in_one_and_the_other_fills: Explore::AtMost(2) => || {
        let (gate, fills) = (Gate::new(), Fills::new());
        gate.open();
        let fill = |before| if before == 0 { panic_quietly() } else { 100 + before };
        let cache = stored_by(&gate, &fills, fill);
        let (theirs, future) = (Rc::new(std::cell::Cell::new(None)), get_stored(&cache));
        let set = theirs.clone();
        let others = start([Box::new(move || set.set(Task::new(future).finish_or_panic())) as Actor]);
        let ours = Task::new(get_stored(&cache)).finish_or_panic();
        others.join();
        let mut answers = [ours, theirs.get()];
        answers.sort_unstable();
        assert_eq!(answers, [None, Some(101)]);
        assert_eq!(fills.count(), 2);
        assert_holds(&cache.cache, Some(101));
        empty(&cache.cache);
    };

    /// L7, clause 2: `invalidate_async` against a fill whose one caller is never polled again. It
    /// polls the fill itself, and when it answers that has ended.
    stored_invalidate_polls_the_fill_it_waits_for: Explore::All => || {
        let (gate, fills) = (Gate::new(), Fills::new());
        let cache = stored(&gate, &fills);
        let forgotten = Task::begun(get_stored(&cache));
        let others = start([gate.opener()]);
        assert!(!Task::new(invalidate(&cache.cache)).finish());
        assert_eq!(fills.count(), 1);
        assert_eq!(cache.peek(&key()), None);
        others.join();
        assert_eq!(forgotten.finish(), 100);
        assert_holds(&cache.cache, None);
    };

    /// L7: the fill's last caller leaves while `invalidate_async` polls it, or is about to. The
    /// fill is dropped, whichever of them has it then, and so it has ended.
    stored_invalidate_meets_the_last_waiter: Explore::AtMost(3) => || {
        let (gate, fills) = (Gate::new(), Fills::new());
        let cache = stored(&gate, &fills);
        let leaves = Task::begun(get_stored(&cache));
        gate.ring();
        let others = start([Box::new(move || drop(leaves)) as Actor]);
        assert!(!Task::new(invalidate(&cache.cache)).finish());
        assert_eq!(cache.peek(&key()), None);
        others.join();
        assert_holds(&cache.cache, None);
    };

    /// A wait that moves into another fill keeps the fill that it waits for.
    stored_a_wait_that_moves_keeps_the_fill: Explore::All => || {
        let (gate, fills) = (Gate::new(), Fills::new());
        let cache = stored(&gate, &fills);
        let others = start([gate.opener()]);
        let outer = super::harness::cache();
        moves_into_a_fill(&outer, get_stored(&cache), 100)();
        others.join();
        assert_one_stored(&cache, &fills);
    };

    /// L13, clause 5, for stored fills: 1 asks for 2 and 2 asks for 1, whichever task polls them.
    stored_l13_a_cycle_is_an_error: Explore::Long(2) => || {
        let cache = stored_that_ask_each_other();
        let get = |key| {
            let cache = cache.clone();
            async move { cache.get_async(&Token::new(key)).await.number() }
        };
        let others = start([answers(get(1), 0)]);
        assert_eq!(Task::new(get(2)).finish(), 0);
        others.join();
    };

    /// The last waiter leaves a fill to the spawner. It goes on there, once, and the next caller
    /// waits for it.
    stored_a_spawned_fill_goes_on: Explore::Long(4) => || {
        let (gate, fills) = (Gate::new(), Fills::new());
        let cache = spawned(&gate, &fills);
        let leaves = Task::begun(get_stored(&cache));
        gate.open();
        let others = start([Box::new(move || drop(leaves)) as Actor]);
        assert_eq!(Task::new(get_stored(&cache)).finish(), 100);
        others.join();
        assert_one_stored(&cache, &fills);
    };

    /// L15: the cache is dropped while the last waiter leaves with a stored fill. All is freed, and
    /// nothing is touched after that.
    stored_l15_the_cache_is_dropped_with_its_last_waiter: Explore::All => || {
        let (gate, fills) = (Gate::new(), Fills::new());
        let cache = loom::sync::Arc::new(stored(&gate, &fills));
        let (handle, waits) = (cache.clone(), Task::begun(get_stored(&cache)));
        let others = start([
            Box::new(move || {
                drop(waits);
                drop(handle);
            }) as Actor,
            gate.opener(),
        ]);
        drop(cache);
        others.join();
        assert_eq!(fills.count(), 1);
    };

    // ---- takeover ------------------------------------------------------------------------------

    /// R4: a fill with a previous value is taken over while the key is invalidated. The value is
    /// not restored after that.
    takeover_beside_invalidate_nowait: Explore::AtMost(4) => || {
        let (cache, compute) = stuck();
        let others = start([takes_over(&cache)]);
        cache.invalidate_nowait(&key());
        assert_eq!(cache.peek(&key()), None);
        others.join();
        assert_holds_no_more(&cache, compute, None);
    };

    /// The same, with a removal that waits for the fill: the takeover frees it.
    takeover_beside_invalidate: Explore::AtMost(4) => || {
        let (cache, compute) = stuck();
        let others = start([takes_over(&cache)]);
        Task::new(invalidate(&cache)).finish();
        assert_eq!(cache.peek(&key()), None);
        others.join();
        assert_holds_no_more(&cache, compute, None);
    };

    /// ... and with one that picks values.
    takeover_beside_invalidate_if: Explore::AtMost(4) => || {
        let (cache, compute) = stuck();
        let others = start([takes_over(&cache)]);
        cache.invalidate_if(|_, value| value.number() == 0);
        assert_eq!(cache.peek(&key()), None);
        others.join();
        assert_holds_no_more(&cache, compute, None);
    };

    /// R5: the value that an insert puts in stays.
    takeover_beside_insert: Explore::AtMost(4) => || {
        let (cache, compute) = stuck();
        let others = start([takes_over(&cache)]);
        cache.insert(key(), Token::new(7));
        assert_eq!(cache.peek(&key()).map(|value| value.number()), Some(7));
        others.join();
        assert_holds_no_more(&cache, compute, Some(7));
    };

    /// The fill ends with a value while it is taken over, beside a reader: that finds the old value
    /// or the new one at every moment.
    takeover_beside_a_publish: Explore::AtMost(2) => || {
        let (cache, compute) = stuck();
        let reads = thread(&cache, |cache| {
            let value = cache.peek(&key()).map(|value| value.number());
            assert!([Some(0), Some(1)].contains(&value), "{value:?}");
        });
        let others = start([takes_over(&cache), reads]);
        compute.gate.open();
        compute.task.finish();
        others.join();
        let value = cache.peek(&key()).map(|value| value.number());
        assert!([Some(0), Some(1)].contains(&value), "{value:?}");
        assert_holds(&cache, value);
        empty(&cache);
    };

    /// The fill is dropped while it is taken over: one of them restores the previous value.
    takeover_beside_a_drop: Explore::AtMost(4) => || {
        let (cache, compute) = stuck();
        let others = start([takes_over(&cache)]);
        drop(compute);
        others.join();
        assert_holds(&cache, Some(0));
        empty(&cache);
    };

    /// A lead is handed over while the flight is taken over: the waiter fills, once.
    takeover_beside_a_hand_over: Explore::AtMost(2) => || {
        let cache = cache();
        let fills = Fills::new();
        let guard = lead(&cache);
        let others = start([answers(get(&cache, &fills), 100), takes_over(&cache)]);
        drop(guard);
        others.join();
        let kept = cache.peek(&key()).map(|value| value.number());
        assert!([None, Some(100)].contains(&kept));
        assert_holds(&cache, kept);
        empty(&cache);
    };

    /// A stored fill is taken over while it is polled, or waits.
    takeover_of_a_fill_that_is_kept: Explore::AtMost(3) => || {
        let (gate, fills) = (Gate::new(), Fills::new());
        let cache = stored(&gate, &fills);
        let others = start([takes_over(&cache.cache)]);
        gate.open();
        let value = Task::new(get_stored(&cache)).finish();
        others.join();
        assert_eq!(value, 99 + fills.count());
        // Its own waiters may still be given its result.
        let kept = cache.peek(&key()).map(|value| value.number());
        assert!([None, Some(value)].contains(&kept));
        assert_holds(&cache.cache, kept);
        empty(&cache.cache);
    };
}
