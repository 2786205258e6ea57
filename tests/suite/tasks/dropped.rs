//! Every method of tasks, over every state of its key, polled so many times and then dropped: R10, accounting at rest.
//!
//! The fills stop twice. Beside the future that is dropped others act, in four ways: not before it is
//! dropped, in turn with it, to their end as soon as it has been polled, or they are dropped themselves.

use crate::support::common::*;
use crate::support::task_tools::*;
use atomic_cache::{AtomicCache, Cache, CacheStats, GuardResult, ManualClock, Op};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const TTL: Duration = Duration::from_secs(3600);

/// More polls than any method needs.
const MANY: usize = 8;

type Task<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// The counts, and the latches that the stored fills obey.
#[derive(Clone, Default)]
struct World {
    keys: Arc<Ledger>,
    values: Arc<Ledger>,
    futures: Arc<Ledger>,
    /// Fills that have made a value.
    made: Tally,
    /// A stored future stops here too.
    latch: Latch,
    /// The next call of a stored closure is held.
    held: Arc<Mutex<Option<Held>>>,
}

impl World {
    /// A fill that stops twice.
    fn fill(&self, id: u64) -> impl Future<Output = Counted> + Send + use<> {
        let (world, token) = (self.clone(), self.futures.make(id));
        async move {
            yields(2).await;
            world.value(token.id())
        }
    }

    fn stored(&self) -> impl Future<Output = Counted> + Send + use<> {
        let (world, token) = (self.clone(), self.futures.make(7));
        async move {
            yields(1).await;
            world.latch.clone().await;
            yields(1).await;
            world.value(token.id())
        }
    }

    fn stored_call(&self) -> Counted {
        let held = self.held.lock().expect("nothing panics under it").take();
        if let Some(held) = held {
            held.hold(());
        }
        self.value(7)
    }

    fn value(&self, id: u64) -> Counted {
        self.made.add();
        self.values.make(id)
    }
}

/// The state of the key before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Absent,
    Live,
    Expired,
    LedByTask,
    LedByThread,
    Refreshed,
    FencedOff,
}

impl Key {
    const ALL: [Self; 7] = [
        Self::Absent,
        Self::Live,
        Self::Expired,
        Self::LedByTask,
        Self::LedByThread,
        Self::Refreshed,
        Self::FencedOff,
    ];
}

/// How the others act meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    Rest,
    TakeTurns,
    End,
    AreDropped,
}

impl Others {
    const ALL: [Self; 4] = [Self::Rest, Self::TakeTurns, Self::End, Self::AreDropped];
}

/// Another task or thread.
enum Other<'a> {
    Task(Task<'a>),
    /// A thread, which ends after `end`; without a value if `without`.
    Thread {
        end: Box<dyn Fn() + 'a>,
        without: Flag,
        thread: JoinHandle<()>,
    },
}

impl Other<'_> {
    /// False: it has ended.
    fn turn(&mut self, bell: &Arc<Bell>) -> bool {
        match self {
            Self::Task(task) => poll_with(task.as_mut(), bell).is_pending(),
            Self::Thread { .. } => true,
        }
    }

    fn end(self, bell: &Arc<Bell>) {
        match self {
            Self::Task(mut task) => {
                for _ in 0..MANY {
                    if poll_with(task.as_mut(), bell).is_ready() {
                        return;
                    }
                }
                panic!("nothing holds it up, and it does not end");
            }
            Self::Thread { end, thread, .. } => {
                end();
                thread.join().expect("it does not panic");
            }
        }
    }

    fn give_up(self) {
        if let Self::Thread {
            end,
            without,
            thread,
        } = self
        {
            without.raise();
            end();
            thread.join().expect("it does not panic");
        }
    }
}

/// Polls `subject` so many times, and drops it; whether it has answered.
fn play(mut subject: Task<'_>, others: Others, mut beside: Vec<Other<'_>>, polls: usize) -> bool {
    let (ours, theirs) = (Bell::new(), Bell::new());
    let mut over = false;
    for turn in 0..polls {
        over = poll_with(subject.as_mut(), &ours).is_ready();
        if over {
            break;
        }
        match others {
            Others::TakeTurns => beside.retain_mut(|other| other.turn(&theirs)),
            Others::End if turn == 0 => beside.drain(..).for_each(|other| other.end(&theirs)),
            Others::AreDropped if turn == 0 => beside.drain(..).for_each(Other::give_up),
            Others::Rest | Others::End | Others::AreDropped => {}
        }
    }
    drop(subject);
    assert_eq!(Arc::strong_count(&ours), 1, "a waker stayed behind");
    for other in beside {
        other.end(&theirs);
    }
    assert_eq!(Arc::strong_count(&theirs), 1, "a waker stayed behind");
    over
}

/// R10: no fill runs, nothing is held but the key of the test. An expired entry counts until a call takes it out.
fn at_rest(world: &World, len: usize, stats: &CacheStats, retired: usize) {
    assert_eq!(retired, 0);
    assert_eq!(world.futures.alive(), 0, "fills neither run nor dropped");
    assert_eq!(world.values.alive(), len);
    assert_eq!(world.keys.alive(), len + 1);
    assert_fills_add_up(stats, world.made.get());
}

// ---- The methods of a `Cache`.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CacheVerb {
    Get,
    Try,
    TryErr,
    Optionally,
    OptionallyNone,
    OrInsert,
    OrTryInsert,
    OrTryInsertErr,
    Put,
    Nop,
    TakeOut,
    Invalidate,
    Remove,
    InvalidateAll,
    InvalidateIf,
}

impl CacheVerb {
    const ALL: [Self; 15] = [
        Self::Get,
        Self::Try,
        Self::TryErr,
        Self::Optionally,
        Self::OptionallyNone,
        Self::OrInsert,
        Self::OrTryInsert,
        Self::OrTryInsertErr,
        Self::Put,
        Self::Nop,
        Self::TakeOut,
        Self::Invalidate,
        Self::Remove,
        Self::InvalidateAll,
        Self::InvalidateIf,
    ];

    fn start<'a>(
        self,
        cache: &'a Cache<Counted, Counted>,
        key: &'a Counted,
        world: &'a World,
    ) -> Task<'a> {
        let fill = || world.fill(2);
        let ok = move || {
            let value = fill();
            async move { Ok::<_, Refused>(value.await) }
        };
        // Ends without a value.
        let err = move || {
            let token = world.futures.make(3);
            async move {
                yields(2).await;
                drop(token);
                Err::<Counted, _>(Refused("no"))
            }
        };
        let op = move |op: fn(Counted) -> Op<Counted>| {
            move |_| {
                let token = world.futures.make(4);
                async move {
                    yields(2).await;
                    let op = op(world.values.make(token.id()));
                    if matches!(op, Op::Put(_)) {
                        world.made.add();
                    }
                    op
                }
            }
        };
        match self {
            Self::Get => ended(cache.get_with_async(key, fill)),
            Self::Try => ended(cache.try_get_with_async(key, ok)),
            Self::TryErr => ended(cache.try_get_with_async(key, err)),
            Self::Optionally => {
                let fill = move || async move { ok().await.ok() };
                ended(cache.optionally_get_with_async(key, fill))
            }
            Self::OptionallyNone => {
                let fill = move || async move { err().await.ok() };
                ended(cache.optionally_get_with_async(key, fill))
            }
            Self::OrInsert => ended(cache.entry(key.clone()).or_insert_with_async(fill)),
            Self::OrTryInsert => ended(cache.entry(key.clone()).or_try_insert_with_async(ok)),
            Self::OrTryInsertErr => ended(cache.entry(key.clone()).or_try_insert_with_async(err)),
            Self::Put => ended(cache.entry(key.clone()).and_compute_with_async(op(Op::Put))),
            Self::Nop => ended(
                cache
                    .entry(key.clone())
                    .and_compute_with_async(op(|_| Op::Nop)),
            ),
            Self::TakeOut => ended(
                cache
                    .entry(key.clone())
                    .and_compute_with_async(op(|_| Op::Remove)),
            ),
            Self::Invalidate => ended(cache.invalidate_async(key)),
            Self::Remove => ended(cache.remove_async(key)),
            Self::InvalidateAll => ended(cache.invalidate_all_async()),
            Self::InvalidateIf => ended(cache.invalidate_if_async(|_, value| value.id() > 0)),
        }
    }
}

/// Whatever it answers is dropped.
fn ended<'a>(task: impl Future + 'a) -> Task<'a> {
    Box::pin(async {
        task.await;
    })
}

/// A thread that leads the key's flight by a guard.
fn led_by_thread<'a>(cache: &Cache<Counted, Counted>, key: &Counted, world: &World) -> Other<'a> {
    let (held, without) = (Held::new(), Flag::default());
    let (inner, give_up) = (held.clone(), without.clone());
    let (cache, id, world) = (cache.clone(), key.id(), world.clone());
    let thread = thread::spawn(move || {
        let key = world.keys.make(id);
        let GuardResult::Guard(guard) = cache.get_value_or_guard(&key, None) else {
            unreachable!("nobody else asks");
        };
        inner.hold(());
        if !give_up.is_up() {
            guard.insert(world.value(5));
        }
    });
    held.begun.pass();
    Other::Thread {
        end: Box::new(move || held.end.open()),
        without,
        thread,
    }
}

fn led_by_task<'a>(
    cache: &'a Cache<Counted, Counted>,
    key: &'a Counted,
    world: &'a World,
) -> Other<'a> {
    let mut leader = ended(cache.get_with_async(key, || world.fill(1)));
    assert!(poll(leader.as_mut()).is_pending());
    Other::Task(leader)
}

/// Brings the key into a state. Returns the others that are at it.
fn bring<'a>(
    state: Key,
    cache: &'a Cache<Counted, Counted>,
    key: &'a Counted,
    world: &'a World,
    clock: &ManualClock,
) -> Vec<Other<'a>> {
    let put = || {
        cache.insert(key.clone(), world.values.make(9));
    };
    match state {
        Key::Absent => vec![],
        Key::Live => {
            put();
            vec![]
        }
        Key::Expired => {
            put();
            clock.advance(TTL);
            vec![]
        }
        Key::LedByTask => vec![led_by_task(cache, key, world)],
        Key::LedByThread => vec![led_by_thread(cache, key, world)],
        Key::Refreshed => {
            put();
            let mut leader = CacheVerb::Put.start(cache, key, world);
            assert!(poll(leader.as_mut()).is_pending());
            vec![Other::Task(leader)]
        }
        Key::FencedOff => {
            let leader = led_by_task(cache, key, world);
            let mut fence = ended(cache.invalidate_async(key));
            assert!(poll(fence.as_mut()).is_pending());
            vec![leader]
        }
    }
}

/// One run; whether the method has answered after so many polls.
fn run_of_a_cache(verb: CacheVerb, state: Key, others: Others, polls: usize) -> bool {
    let (world, clock) = (World::default(), ManualClock::new());
    let cache: Cache<Counted, Counted> = Cache::builder()
        .time_to_live(TTL)
        .clock(clock.clone())
        .build()
        .expect("good settings");
    let key = world.keys.make(1);
    let beside = bring(state, &cache, &key, &world, &clock);
    let over = play(verb.start(&cache, &key, &world), others, beside, polls);
    for used in [false, true] {
        cache.quiesce();
        at_rest(&world, cache.len(), &cache.stats(), cache.retired());
        let live = cache.iter().count();
        assert!(live == cache.len() || state == Key::Expired && !used);
        // The key is as good as new.
        let value = run_until_asleep(std::pin::pin!(cache.get_with_async(&key, || world.fill(6))));
        assert!(value.is_some() && cache.contains(&key));
    }
    drop(cache);
    assert_eq!((world.values.alive(), world.keys.alive()), (0, 1));
    over
}

fn every_run(name: &str, run: impl Fn(usize) -> bool) {
    let told = OnPanic(name);
    for polls in 0..=MANY {
        if run(polls) {
            break;
        }
    }
    std::mem::forget(told);
}

/// Says which run it was that panicked.
struct OnPanic<'a>(&'a str);

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        eprintln!("that was {}", self.0);
    }
}

#[test]
fn r10_a_verb_of_a_cache_may_be_dropped_at_any_await() {
    watched_for(Duration::from_secs(120), || {
        for verb in CacheVerb::ALL {
            for state in Key::ALL {
                for others in Others::ALL {
                    let name = format!("{verb:?}, {state:?}, others: {others:?}");
                    every_run(&name, |polls| run_of_a_cache(verb, state, others, polls));
                }
            }
        }
    });
}

// ---- The methods of an `AtomicCache`.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoredVerb {
    Get,
    Refresh,
    TryGet,
    TryRefresh,
    Invalidate,
    InvalidateAll,
    InvalidateIf,
}

impl StoredVerb {
    const ALL: [Self; 7] = [
        Self::Get,
        Self::Refresh,
        Self::TryGet,
        Self::TryRefresh,
        Self::Invalidate,
        Self::InvalidateAll,
        Self::InvalidateIf,
    ];

    fn start_sure<'a>(self, cache: &'a Stored<Infallible>, key: &'a Counted) -> Task<'a> {
        match self {
            Self::Get => ended(cache.get_async(key)),
            Self::Refresh => ended(cache.refresh_async(key)),
            _ => self.start(cache, key),
        }
    }

    fn start<'a, E: Clone + Send + Sync + 'static>(
        self,
        cache: &'a Stored<E>,
        key: &'a Counted,
    ) -> Task<'a> {
        match self {
            Self::Get | Self::TryGet => ended(cache.try_get_async(key)),
            Self::Refresh | Self::TryRefresh => ended(cache.try_refresh_async(key)),
            Self::Invalidate => ended(cache.invalidate_async(key)),
            Self::InvalidateAll => ended(cache.invalidate_all_async()),
            Self::InvalidateIf => ended(cache.invalidate_if_async(|_, value| value.id() > 0)),
        }
    }
}

type Stored<E> = AtomicCache<Counted, Counted, E>;

fn asked_by_thread<'a, E: Clone + Send + Sync + 'static>(
    cache: &Stored<E>,
    key: &Counted,
    world: &'a World,
    shut: bool,
) -> Other<'a> {
    let held = Held::new();
    if !shut {
        *world.held.lock().expect("nothing panics under it") = Some(held.clone());
    }
    let before = cache.stats().fills;
    let thread = {
        let (cache, id, world) = (cache.clone(), key.id(), world.clone());
        thread::spawn(move || {
            let key = world.keys.make(id);
            // An error is as good.
            drop(cache.try_get(&key));
        })
    };
    spin_until(|| cache.stats().fills > before);
    if !shut {
        held.begun.pass();
    }
    Other::Thread {
        end: Box::new(move || {
            world.latch.open();
            held.end.open();
        }),
        without: Flag::default(),
        thread,
    }
}

/// Brings the key of a cache with a stored fill into a state. `future`: of the kind that stops.
fn bring_stored<'a, E: Clone + Send + Sync + 'static>(
    state: Key,
    cache: &'a Stored<E>,
    key: &'a Counted,
    world: &'a World,
    clock: &ManualClock,
    future: bool,
) -> Vec<Other<'a>> {
    let shut = future && state == Key::LedByThread;
    if !shut {
        world.latch.open();
    }
    let beside = |verb: StoredVerb| {
        let mut task = verb.start(cache, key);
        let pending = poll(task.as_mut()).is_pending();
        assert_eq!(pending, future);
        let task = pending.then_some(Other::Task(task));
        task.into_iter().collect()
    };
    let put = || {
        run_until_asleep(StoredVerb::TryGet.start(cache, key).as_mut()).expect("the latch is open");
    };
    match state {
        Key::Absent => vec![],
        Key::Live => {
            put();
            vec![]
        }
        Key::Expired => {
            put();
            clock.advance(TTL);
            vec![]
        }
        Key::LedByTask => beside(StoredVerb::TryGet),
        Key::LedByThread => vec![asked_by_thread(cache, key, world, shut)],
        Key::Refreshed => {
            put();
            beside(StoredVerb::TryRefresh)
        }
        Key::FencedOff => {
            let leader = beside(StoredVerb::TryGet);
            let mut fence = ended(cache.invalidate_async(key));
            assert_eq!(poll(fence.as_mut()).is_pending(), future);
            leader
        }
    }
}

/// One run over a cache with a stored fill.
#[derive(Clone, Copy)]
struct Run {
    state: Key,
    others: Others,
    polls: usize,
    future: bool,
}

impl Run {
    fn over<E: Clone + Send + Sync + std::fmt::Debug + 'static>(
        self,
        cache: Stored<E>,
        world: &World,
        clock: &ManualClock,
        start: impl for<'a> Fn(&'a Stored<E>, &'a Counted) -> Task<'a>,
    ) -> bool {
        let key = world.keys.make(1);
        let beside = bring_stored(self.state, &cache, &key, world, clock, self.future);
        let over = play(start(&cache, &key), self.others, beside, self.polls);
        world.latch.open();
        for used in [false, true] {
            cache.quiesce();
            at_rest(world, cache.len(), &cache.stats(), cache.retired());
            let live = cache.iter().count();
            assert!(live == cache.len() || self.state == Key::Expired && !used);
            let answer = run_until_asleep(std::pin::pin!(cache.try_get_async(&key)));
            let kept = answer.expect("the latch is open").is_ok();
            assert_eq!(cache.contains(&key), kept);
        }
        drop(cache);
        assert_eq!((world.values.alive(), world.keys.alive()), (0, 1));
        over
    }
}

fn every_stored_run(name: &str, run: impl Fn(Run, &World, &ManualClock) -> bool, future: bool) {
    for state in Key::ALL {
        for others in Others::ALL {
            every_run(&format!("{name}, {state:?}, others: {others:?}"), |polls| {
                let run_of = Run {
                    state,
                    others,
                    polls,
                    future,
                };
                run(run_of, &World::default(), &ManualClock::new())
            });
        }
    }
}

#[test]
fn r10_a_verb_over_a_stored_future_may_be_dropped_at_any_await() {
    watched_for(Duration::from_secs(120), || {
        for verb in StoredVerb::ALL {
            let run = |run: Run, world: &World, clock: &ManualClock| {
                let inner = world.clone();
                let cache = AtomicCache::builder()
                    .time_to_live(TTL)
                    .clock(clock.clone())
                    .build_with_async(move |_| inner.stored())
                    .expect("good settings");
                run.over(cache, world, clock, |cache, key| {
                    verb.start_sure(cache, key)
                })
            };
            every_stored_run(&format!("{verb:?}"), run, true);
        }
    });
}

#[test]
fn r10_a_verb_over_a_stored_future_that_fails_may_be_dropped_at_any_await() {
    watched_for(Duration::from_secs(120), || {
        for verb in StoredVerb::ALL {
            let run = |run: Run, world: &World, clock: &ManualClock| {
                let inner = world.clone();
                let fills = Tally::default();
                // Every other one fails.
                let fill = move |_| {
                    let (fill, fails) = (inner.stored(), fills.add() % 2 == 1);
                    let made = inner.made.clone();
                    async move {
                        let value = fill.await;
                        if fails {
                            made.less();
                            return Err(Refused("no"));
                        }
                        Ok(value)
                    }
                };
                let cache = AtomicCache::builder()
                    .time_to_live(TTL)
                    .clock(clock.clone())
                    .try_build_with_async(fill)
                    .expect("good settings");
                run.over(cache, world, clock, |cache, key| verb.start(cache, key))
            };
            every_stored_run(&format!("{verb:?}"), run, true);
        }
    });
}

#[test]
fn r10_a_verb_over_a_stored_closure_may_be_dropped_at_any_await() {
    watched_for(Duration::from_secs(120), || {
        for verb in StoredVerb::ALL {
            let run = |run: Run, world: &World, clock: &ManualClock| {
                let inner = world.clone();
                let cache = AtomicCache::builder()
                    .time_to_live(TTL)
                    .clock(clock.clone())
                    .build_with(move |_| inner.stored_call())
                    .expect("good settings");
                run.over(cache, world, clock, |cache, key| {
                    verb.start_sure(cache, key)
                })
            };
            every_stored_run(&format!("{verb:?}"), run, false);
        }
    });
}
