//! Random concurrent runs, each recorded and then judged by `checker.rs`.
//!
//! Ordinarily thousands of short runs. `ATOMIC_CACHE_SOAK=600 cargo test --release --test suite
//! soak` goes on for as many seconds, with up to 64 threads on 8 keys.

use crate::history::checker::{
    self, Answer, Deed, Ending, Execution, History, Move, Span, Stamp, Verb, Violation,
};
use crate::history::operations_model::{Key, Spread, Tally, Value};
use atomic_cache::{AtomicCache, Cache, CompResult, GuardResult, ManualClock, Op, TryGetError};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::abort;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

/// R9: a run that has not ended by then hangs.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn random_histories_keep_the_rules() {
    watched(|alive| {
        for seed in 0..1_500 {
            alive.send(seed).expect("watched");
            judge(&Plan::small(seed));
        }
    });
}

#[test]
fn random_histories_of_a_cache_with_its_own_fill_keep_the_rules() {
    watched(|alive| {
        for seed in 0..500 {
            alive.send(seed).expect("watched");
            judge(&Plan {
                own_fill: true,
                ..Plan::small(seed)
            });
        }
    });
}

#[test]
fn short_histories_are_linearizable() {
    watched(|alive| {
        for seed in 0..4_000 {
            alive.send(seed).expect("watched");
            judge(&Plan::short(seed));
        }
    });
}

#[test]
fn random_histories_of_a_bounded_cache_keep_the_rules() {
    watched(|alive| {
        for seed in 1 << 20..(1 << 20) + 1_500 {
            alive.send(seed).expect("watched");
            let few = Plan::small(seed);
            judge(
                &Plan {
                    keys: 2 + few.keys,
                    own_fill: seed % 5 == 4,
                    ..few
                }
                .bounded(),
            );
        }
    });
}

#[test]
fn short_histories_of_a_bounded_cache_are_linearizable() {
    watched(|alive| {
        for seed in 1 << 20..(1 << 20) + 2_000 {
            alive.send(seed).expect("watched");
            judge(
                &Plan {
                    keys: 2,
                    ..Plan::short(seed)
                }
                .bounded(),
            );
        }
    });
}

/// Does nothing unless `ATOMIC_CACHE_SOAK` says for how many seconds.
#[test]
fn soak_k1_random_histories() {
    let Ok(seconds) = std::env::var("ATOMIC_CACHE_SOAK") else {
        return;
    };
    let seconds = seconds
        .parse()
        .expect("ATOMIC_CACHE_SOAK is a number of seconds");
    let end = Instant::now() + Duration::from_secs(seconds);
    watched(move |alive| {
        let first: u64 = std::env::var("ATOMIC_CACHE_SEED").map_or(1 << 32, |seed| {
            seed.parse().expect("ATOMIC_CACHE_SEED is a number")
        });
        let mut runs = 0;
        for seed in first.. {
            if Instant::now() >= end {
                break;
            }
            alive.send(seed).expect("watched");
            let small = Plan {
                own_fill: seed % 5 == 4,
                ..Plan::small(seed)
            };
            let plan = match seed % 16 {
                0 => Plan::crowd(seed),
                1..=7 => small,
                _ => Plan::short(seed),
            };
            let bounded = seed / 16 % 3 == 2;
            judge(&if bounded { plan.bounded() } else { plan });
            runs += 1;
        }
        println!("{runs} runs");
    });
}

/// Runs `work` on a thread of its own, which says that it is alive by naming each thing that it is
/// about to do; ends the process when it falls silent.
pub(crate) fn watched<T: fmt::Debug + Send + 'static>(
    work: impl FnOnce(&Sender<T>) + Send + 'static,
) {
    let (alive, heard) = channel();
    let worker = thread::spawn(move || work(&alive));
    let mut last = None;
    loop {
        match heard.recv_timeout(PATIENCE) {
            Ok(next) => last = Some(next),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                // Not by the macro: the test harness would keep its output to itself.
                let text = format!("R9: the run of {last:?} has hung for {PATIENCE:?}\n");
                let _ = std::io::stderr().write_all(text.as_bytes());
                abort();
            }
        }
    }
    if let Err(panic) = worker.join() {
        resume_unwind(panic);
    }
}

// ---------------------------------------------------------------------------------------------
// The plans

/// The kinds of operations, and how often each is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Look,
    Fetch,
    Insert,
    Remove,
    Invalidate,
    Nowait,
    All,
    Even,
    Compute,
    Tick,
}

#[derive(Clone, Debug)]
struct Plan {
    seed: u64,
    threads: usize,
    keys: u8,
    operations: usize,
    ttl: Option<u64>,
    /// In entries.
    capacity: Option<u64>,
    spread: Spread,
    kinds: Vec<(Kind, u64)>,
    /// How often, of 64, a fill fails, panics, or calls the cache from inside.
    fails: u64,
    panics: u64,
    calls: u64,
    /// How many turns a fill gives away at most.
    turns: u64,
    own_fill: bool,
    /// Linearizations are searched too.
    search: bool,
}

impl Plan {
    fn small(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let often = |dice: &mut Dice, most: u64| {
            if dice.below(3) == 0 {
                0
            } else {
                dice.below(most) + 1
            }
        };
        let mut kinds = vec![(Kind::Look, 4), (Kind::Fetch, 2 + dice.below(8))];
        for (kind, most) in [
            (Kind::Insert, 4),
            (Kind::Remove, 3),
            (Kind::Invalidate, 3),
            (Kind::Nowait, 3),
            (Kind::All, 1),
            (Kind::Even, 1),
            (Kind::Compute, 6),
        ] {
            kinds.push((kind, often(&mut dice, most)));
        }
        let ttl = match dice.below(6) {
            0 => Some(0),
            1 | 2 => Some(1 + dice.below(20)),
            3 => Some(u64::MAX),
            _ => None,
        };
        kinds.push((Kind::Tick, if ttl.is_some() { 3 } else { 0 }));
        Self {
            seed,
            threads: 2 + dice.below(7) as usize,
            keys: 1 + dice.below(3) as u8,
            operations: 4 + dice.below(28) as usize,
            ttl,
            capacity: None,
            spread: [Spread::Good, Spread::LowBits, Spread::Constant][dice.below(3) as usize],
            kinds,
            fails: often(&mut dice, 16),
            panics: often(&mut dice, 12),
            calls: often(&mut dice, 24),
            turns: dice.below(6),
            own_fill: false,
            search: false,
        }
    }

    /// Three threads and at most twelve operations a key.
    fn short(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut kinds: Vec<_> = [
            Kind::Look,
            Kind::Fetch,
            Kind::Insert,
            Kind::Remove,
            Kind::Invalidate,
            Kind::Nowait,
            Kind::Compute,
        ]
        .map(|kind| (kind, dice.below(4)))
        .into();
        kinds[0].1 += 1;
        kinds[1].1 += 1;
        Self {
            seed,
            threads: 3,
            keys: 1,
            operations: 4,
            ttl: None,
            capacity: None,
            spread: Spread::Good,
            kinds,
            fails: dice.below(24),
            panics: 0,
            calls: 0,
            turns: dice.below(4),
            own_fill: dice.below(6) == 0,
            search: true,
        }
    }

    /// As a plan, in a cache that has not room for all keys.
    fn bounded(self) -> Self {
        let room = u64::from(self.keys.max(2)) - 1;
        Self {
            capacity: Some(1 + self.seed % room),
            ..self
        }
    }

    fn crowd(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x00c0_ffee);
        Self {
            threads: 64,
            keys: 8,
            operations: 20 + dice.below(200) as usize,
            spread: if dice.below(2) == 0 {
                Spread::Good
            } else {
                Spread::LowBits
            },
            ..Self::small(seed)
        }
    }
}

/// xorshift64*, seeded by way of splitmix64.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        let seed = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let seed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Self((seed ^ seed >> 27) | 1)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}

// ---------------------------------------------------------------------------------------------
// Running and recording

/// Runs a plan, and panics if the history breaks the rules.
fn judge(plan: &Plan) {
    let history = run(plan);
    let mut verdict = checker::check(&history);
    if plan.search {
        verdict = verdict.and_then(|()| checker::search(&history));
    }
    if let Err(violation) = verdict {
        fail(plan, &history, &violation);
    }
}

fn fail(plan: &Plan, history: &History, violation: &Violation) -> ! {
    panic!("{violation}\n{plan:?}\n{}", history.show(violation.key))
}

enum Subject {
    Cache(Cache<Key, Value, Spread>),
    OwnFill(AtomicCache<Key, Value, u64, Spread>),
}

/// The things that the threads of one run share.
struct Scene {
    subject: Subject,
    clock: ManualClock,
    tally: Arc<Tally>,
    stamps: Arc<AtomicU64>,
    ids: AtomicU64,
}

fn run(plan: &Plan) -> History {
    let tally = Arc::new(Tally::default());
    let clock = ManualClock::new();
    let stamps = Arc::new(AtomicU64::new(0));
    let builder = Cache::builder().hasher(plan.spread).clock(clock.clone());
    let builder = match plan.ttl {
        None => builder,
        Some(u64::MAX) => builder.time_to_live(Duration::MAX),
        Some(nanos) => builder.time_to_live(Duration::from_nanos(nanos)),
    };
    let builder = match plan.capacity {
        None => builder,
        Some(entries) => builder.max_capacity(entries),
    };
    let subject = if plan.own_fill {
        let tally = Arc::clone(&tally);
        let own = builder.try_build_with(move |_: &Key| told(&tally));
        Subject::OwnFill(own.expect("the settings are good"))
    } else {
        Subject::Cache(builder.build().expect("the settings are good"))
    };
    let scene = Scene {
        subject,
        clock,
        tally,
        stamps,
        ids: AtomicU64::new(1),
    };
    let (barrier, ready) = (Barrier::new(plan.threads), AtomicUsize::new(0));
    let mut history = History {
        ttl: plan.ttl,
        evicts: plan.capacity.is_some(),
        ..History::default()
    };
    let logs: Vec<Log> = thread::scope(|scope| {
        let actors: Vec<_> = (0..plan.threads)
            .map(|number| {
                let (scene, barrier, ready) = (&scene, &barrier, &ready);
                scope.spawn(move || {
                    let actor = Actor::new(plan, scene, number);
                    barrier.wait();
                    // A barrier wakes one after the other; from here all go on at once.
                    ready.fetch_add(1, Ordering::SeqCst);
                    while ready.load(Ordering::SeqCst) < plan.threads {
                        thread::yield_now();
                    }
                    for _ in 0..plan.operations {
                        actor.act();
                    }
                    actor.log.into_inner()
                })
            })
            .collect();
        let join = |actor: thread::ScopedJoinHandle<'_, Log>| {
            actor.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        actors.into_iter().map(join).collect()
    });
    for log in logs {
        history.deeds.extend(log.deeds);
        history.moves.extend(log.moves);
    }
    rest(plan, scene, &history);
    history
}

/// R10: nothing runs any more, and everything is accounted for.
fn rest(plan: &Plan, scene: Scene, history: &History) {
    let runs_of = |deed: &'_ Deed| {
        let superseded = deed.answer == Answer::Superseded;
        let runs = deed.runs.clone().into_iter();
        runs.map(move |run| (run, superseded))
    };
    let mut counts = [0; 3];
    for (run, superseded) in history.deeds.iter().flat_map(runs_of) {
        counts[0] += 1;
        let has_value = matches!(run.ending, Ending::Value(_) | Ending::Panics) && !superseded;
        counts[1] += u64::from(!has_value);
        counts[2] += u64::from(run.ending == Ending::Panics);
    }
    let (stats, len, retired, iterated) = match &scene.subject {
        Subject::Cache(cache) => {
            cache.quiesce();
            (
                cache.stats(),
                cache.len(),
                cache.retired(),
                cache.iter().count(),
            )
        }
        Subject::OwnFill(cache) => {
            cache.quiesce();
            (
                cache.stats(),
                cache.len(),
                cache.retired(),
                cache.iter().count(),
            )
        }
    };
    assert_eq!(retired, 0, "{plan:?}");
    // A lead that was handed to a waiter which left meanwhile is a fill that was cancelled.
    counts[0] += stats.fill_cancelled;
    assert_eq!(
        [stats.fills, stats.fill_errors, stats.fill_panics],
        counts,
        "{plan:?}"
    );
    assert_eq!(
        i64::try_from(len).ok(),
        Some(scene.tally.values()),
        "{plan:?}"
    );
    if plan.ttl.is_none() {
        assert_eq!(len, iterated, "{plan:?}");
    }
    let tally = Arc::clone(&scene.tally);
    drop(scene);
    tally.assert_all_dropped();
}

#[derive(Default)]
struct Log {
    deeds: Vec<Deed>,
    moves: Vec<Move>,
}

/// A panic that a fill was told to.
struct Planned;

/// How a fill is to go.
#[derive(Clone)]
struct Order {
    id: u64,
    turns: u64,
    ending: Ending,
    stamps: Arc<AtomicU64>,
}

impl Order {
    fn stamp(&self) -> Stamp {
        self.stamps.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The fill: it runs `inside` meanwhile.
    fn carry_out(
        &self,
        tally: &Arc<Tally>,
        seen: Option<u64>,
        runs: &RefCell<Vec<Execution>>,
        inside: impl FnOnce(),
    ) -> Result<Value, u64> {
        let start = self.stamp();
        (0..self.turns).for_each(|_| thread::yield_now());
        inside();
        let run = Execution {
            start,
            end: self.stamp(),
            ending: self.ending,
            seen,
        };
        runs.borrow_mut().push(run);
        match self.ending {
            Ending::Value(id) => Ok(Value::new(id, tally)),
            Ending::Panics => resume_unwind(Box::new(Planned)),
            _ => Err(self.id),
        }
    }
}

thread_local! {
    /// The order for the next fill of a cache with its own fill on this thread; and the executions
    /// done.
    static TOLD: RefCell<Option<Order>> = const { RefCell::new(None) };
    static DONE: RefCell<Vec<Execution>> = const { RefCell::new(Vec::new()) };
}

fn told(tally: &Arc<Tally>) -> Result<Value, u64> {
    let order = TOLD
        .with(RefCell::take)
        .expect("told before each call, run once");
    DONE.with(|done| order.carry_out(tally, None, done, || {}))
}

/// One thread of a run.
struct Actor<'s> {
    plan: &'s Plan,
    scene: &'s Scene,
    dice: RefCell<Dice>,
    log: RefCell<Log>,
    depth: Cell<usize>,
    number: usize,
}

impl<'s> Actor<'s> {
    fn new(plan: &'s Plan, scene: &'s Scene, number: usize) -> Self {
        Self {
            plan,
            scene,
            dice: RefCell::new(Dice::new(plan.seed << 8 | number as u64)),
            log: RefCell::default(),
            depth: Cell::new(0),
            number,
        }
    }

    fn below(&self, n: u64) -> u64 {
        self.dice.borrow_mut().below(n)
    }

    fn stamp(&self) -> Stamp {
        self.scene.stamps.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn act(&self) {
        let kinds = &self.plan.kinds;
        let mut left = self.below(kinds.iter().map(|kind| kind.1).sum());
        let mut kinds = kinds.iter();
        let kind = loop {
            let (kind, weight) = kinds.next().expect("less than the sum is left");
            if left < *weight {
                break *kind;
            }
            left -= weight;
        };
        let number = self.below(u64::from(self.plan.keys)) as u8;
        let key = Key::new(number, &self.scene.tally);
        match &self.scene.subject {
            Subject::Cache(cache) => self.use_cache(cache, kind, &key),
            Subject::OwnFill(cache) => self.use_own_fill(cache, kind, &key),
        }
    }

    /// Records one operation, which puts the executions of its fill where it is told.
    fn record(
        &self,
        key: Option<u8>,
        verb: Verb,
        f: impl FnOnce(&RefCell<Vec<Execution>>) -> Answer,
    ) {
        let runs = RefCell::default();
        let call = self.stamp();
        let answer = f(&runs);
        let ret = self.stamp();
        self.log.borrow_mut().deeds.push(Deed {
            span: Span { call, ret },
            key,
            verb,
            answer,
            runs: runs.into_inner(),
            inside: self.depth.get() > 0,
            thread: self.number,
        });
    }

    /// How the next fill is to go; `never` lists the endings that its method does not have.
    fn order(&self, endings: &[Ending]) -> Order {
        let id = self.new_id();
        let dice = self.below(64);
        let plan = self.plan;
        let ending = if dice < plan.panics {
            Ending::Panics
        } else if dice < plan.panics + plan.fails && !endings.is_empty() {
            match endings[self.below(endings.len() as u64) as usize] {
                Ending::Error(_) => Ending::Error(id),
                ending => ending,
            }
        } else {
            Ending::Value(id)
        };
        Order {
            id,
            turns: self.below(plan.turns + 1),
            ending,
            stamps: Arc::clone(&self.scene.stamps),
        }
    }

    fn new_id(&self) -> u64 {
        self.scene.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// The operations of a fill while it runs: sometimes some of its own.
    fn inside(&self) {
        if self.depth.get() > 1 || self.below(64) >= self.plan.calls {
            return;
        }
        self.depth.set(self.depth.get() + 1);
        // A panic of a fill in here is caught in here.
        self.act();
        self.depth.set(self.depth.get() - 1);
    }

    fn tick(&self) {
        let by = 1 + self.below(4);
        let call = self.stamp();
        self.scene.clock.advance(Duration::from_nanos(by));
        let span = Span {
            call,
            ret: self.stamp(),
        };
        self.log.borrow_mut().moves.push(Move { span, by });
    }

    fn use_cache(&self, cache: &Cache<Key, Value, Spread>, kind: Kind, key: &Key) {
        let number = Some(key.number());
        match kind {
            Kind::Look => {
                let way = self.below(4);
                self.record(number, Verb::Look, |_| {
                    found(match way {
                        0 => cache.peek(key).as_ref().map(Value::id),
                        1 => cache.with(key, Value::id),
                        2 => cache.pin().get(key).map(Value::id),
                        _ => cache.get(key).as_ref().map(Value::id),
                    })
                });
            }
            Kind::Fetch => self.fetch(cache, key),
            Kind::Insert => {
                let id = self.new_id();
                let (key, value) = (key.clone(), Value::new(id, &self.scene.tally));
                self.record(number, Verb::Insert(id), |_| {
                    cache.insert(key, value);
                    Answer::Done
                });
            }
            Kind::Remove => self.record(number, Verb::Remove, |_| {
                found(cache.remove(key).map(|value| value.id()))
            }),
            Kind::Invalidate => {
                self.record(number, Verb::Invalidate, |_| {
                    was_there(cache.invalidate(key))
                });
            }
            Kind::Nowait => {
                let names = self.below(2) == 0;
                self.record(number, Verb::Nowait, |_| {
                    if names {
                        found(cache.remove_nowait(key).map(|value| value.id()))
                    } else {
                        was_there(cache.invalidate_nowait(key))
                    }
                });
            }
            Kind::All => self.record(None, Verb::InvalidateAll, |_| {
                cache.invalidate_all();
                Answer::Done
            }),
            Kind::Even => self.record(None, Verb::InvalidateEven, |_| {
                cache.invalidate_if(|_, value| value.id() % 2 == 0);
                Answer::Done
            }),
            Kind::Compute => self.compute(cache, key),
            Kind::Tick => self.tick(),
        }
    }

    fn fetch(&self, cache: &Cache<Key, Value, Spread>, key: &Key) {
        // Inside a fill a wait may close a cycle: the methods that have errors for that.
        let way = self.below(if self.depth.get() > 0 { 2 } else { 7 });
        let order = self.order(match way {
            0..=2 => &[Ending::Error(0)],
            3 if !self.plan.search => &[Ending::Nothing],
            _ => &[],
        });
        let tally = &self.scene.tally;
        self.record(Some(key.number()), Verb::Fetch, |runs| {
            let fill = || order.carry_out(tally, None, runs, || self.inside());
            let sure = || fill().unwrap_or_else(|_| unreachable!("not of this verb"));
            caught(|| match way {
                0 | 2 => tried(cache.try_get_with(key, fill)),
                1 => match cache.entry(key.clone()).or_try_insert_with(fill) {
                    Ok(entry) => {
                        assert_eq!(entry.is_fresh(), !runs.borrow().is_empty());
                        Answer::Value(entry.value().id())
                    }
                    Err(error) => tried(Err(error)),
                },
                3 => found(
                    cache
                        .optionally_get_with(key, || fill().ok())
                        .map(|value| value.id()),
                ),
                4 => Answer::Value(cache.pin().get_or_fill_with(key, sure).id()),
                5 => match cache.get_value_or_guard(key, None) {
                    GuardResult::Value(value) => Answer::Value(value.id()),
                    // A fill by hand, which if it panics drops its guard.
                    GuardResult::Guard(guard) => Answer::Value(guard.insert(sure()).id()),
                    other => panic!("{other:?}"),
                },
                _ => Answer::Value(cache.get_with(key, sure).id()),
            })
        });
    }

    fn compute(&self, cache: &Cache<Key, Value, Spread>, key: &Key) {
        let order = self.order(&[Ending::Removes, Ending::Leaves]);
        let tally = &self.scene.tally;
        let filling = self.depth.get() > 0;
        if filling {
            // It might wait for the fill that it is called from, and would panic.
            return;
        }
        self.record(Some(key.number()), Verb::Compute, |runs| {
            let f = |seen: Option<&Value>| {
                let id = seen.map(Value::id);
                let carried_out = order.carry_out(tally, id, runs, || self.inside());
                assert_eq!(
                    seen.map(Value::id),
                    id,
                    "what a compute is shown has changed"
                );
                match carried_out {
                    Ok(value) => Op::Put(value),
                    Err(_) if order.ending == Ending::Removes => Op::Remove,
                    Err(_) => Op::Nop,
                }
            };
            caught(|| match cache.entry(key.clone()).and_compute_with(f) {
                CompResult::Inserted(value)
                | CompResult::ReplacedWith(value)
                | CompResult::Removed(value)
                | CompResult::Unchanged(value) => Answer::Value(value.id()),
                CompResult::StillNone => Answer::Absent,
                CompResult::Superseded(_) => Answer::Superseded,
            })
        });
    }

    fn use_own_fill(&self, cache: &AtomicCache<Key, Value, u64, Spread>, kind: Kind, key: &Key) {
        let number = Some(key.number());
        match kind {
            Kind::Look | Kind::Insert => self.record(number, Verb::Look, |_| {
                found(cache.peek(key).map(|value| value.id()))
            }),
            Kind::Fetch | Kind::Remove => {
                self.fill_itself(number, Verb::Fetch, || tried(cache.try_get(key)));
            }
            Kind::Compute => {
                self.fill_itself(number, Verb::Refresh, || tried(cache.try_refresh(key)));
            }
            Kind::Invalidate => {
                self.record(number, Verb::Invalidate, |_| {
                    was_there(cache.invalidate(key))
                });
            }
            Kind::Nowait => {
                self.record(number, Verb::Nowait, |_| {
                    was_there(cache.invalidate_nowait(key))
                });
            }
            Kind::All => self.record(None, Verb::InvalidateAll, |_| {
                cache.invalidate_all();
                Answer::Done
            }),
            Kind::Even => self.record(None, Verb::InvalidateEven, |_| {
                cache.invalidate_if(|_, value| value.id() % 2 == 0);
                Answer::Done
            }),
            Kind::Tick => self.tick(),
        }
    }

    fn fill_itself(&self, key: Option<u8>, verb: Verb, call: impl FnOnce() -> Answer) {
        TOLD.with(|told| told.replace(Some(self.order(&[Ending::Error(0)]))));
        self.record(key, verb, |runs| {
            let answer = caught(call);
            runs.replace(DONE.with(RefCell::take));
            answer
        });
    }
}

fn found(id: Option<u64>) -> Answer {
    id.map_or(Answer::Absent, Answer::Value)
}

fn was_there(there: bool) -> Answer {
    if there {
        Answer::WasThere
    } else {
        Answer::Done
    }
}

fn tried(result: Result<Value, TryGetError<u64>>) -> Answer {
    match result {
        Ok(value) => Answer::Value(value.id()),
        Err(TryGetError::Fill(error)) => Answer::Error(error),
        Err(TryGetError::Cycle(_)) => Answer::Cycle,
        Err(error) => panic!("{error}"),
    }
}

fn caught(call: impl FnOnce() -> Answer) -> Answer {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        if panic.is::<Planned>() {
            Answer::Panicked
        } else {
            resume_unwind(panic)
        }
    })
}
