//! Short runs of every operation beside every other, on one key, each judged when it is at rest.
//!
//! A history has one answer at a time to explain; here the books have to balance: entries, weights, values alive, and the values
//! that removals took and the listener was told of. `STORM_RUNS=100000` runs longer.

use crate::support::common::*;
use atomic_cache::{Cache, CompResult, ManualClock, Op, RemovalCause};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

/// A value, and whether it weighs more than a whole cache.
#[derive(Clone)]
struct Value {
    id: u64,
    heavy: bool,
    /// Counts as alive while a clone is.
    _counted: Arc<Counted>,
}

/// The bound of the cache.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Unbounded,
    Entries,
    Weighed,
    Timed,
}

/// One operation on the key.
#[derive(Clone, Copy, Debug)]
enum Act {
    Put,
    PutHeavy,
    PutLate,
    ComputeRemove,
    Leave,
    Panic,
    Get,
    GetHeavy,
    Insert,
    InsertHeavy,
    TryInsertHeavy,
    InsertOthers,
    Remove,
    RemoveNowait,
    If,
    IfNowait,
    Clear,
    ClearNowait,
    Takeover,
    Shrink,
    Advance,
    Tidy,
}

impl Act {
    const ALL: [Self; 22] = [
        Self::Put,
        Self::PutHeavy,
        Self::PutLate,
        Self::ComputeRemove,
        Self::Leave,
        Self::Panic,
        Self::Get,
        Self::GetHeavy,
        Self::Insert,
        Self::InsertHeavy,
        Self::TryInsertHeavy,
        Self::InsertOthers,
        Self::Remove,
        Self::RemoveNowait,
        Self::If,
        Self::IfNowait,
        Self::Clear,
        Self::ClearNowait,
        Self::Takeover,
        Self::Shrink,
        Self::Advance,
        Self::Tidy,
    ];
}

const KEY: u64 = 1;
const WEIGHT: u64 = 3;
const CAPACITY: u64 = 10;

struct World {
    kind: Kind,
    cache: Cache<u64, Value>,
    clock: ManualClock,
    ids: AtomicU64,
    ledger: Arc<Ledger>,
    told: Arc<Mutex<Vec<u64>>>,
    taken: Mutex<Vec<u64>>,
}

impl World {
    fn new(kind: Kind) -> Self {
        let (told, clock) = (Arc::new(Mutex::new(Vec::new())), ManualClock::new());
        let notes = told.clone();
        let builder =
            Cache::builder().eviction_listener(move |_: &u64, value: &Value, _: RemovalCause| {
                notes.lock().unwrap().push(value.id);
            });
        let builder = match kind {
            Kind::Unbounded => builder,
            Kind::Entries => builder.max_capacity(2),
            Kind::Weighed => builder
                .max_capacity(CAPACITY)
                .weigher(|_, value: &Value| if value.heavy { 1000 } else { WEIGHT }),
            Kind::Timed => builder
                .time_to_live(Duration::from_secs(1))
                .clock(clock.clone()),
        };
        let cache = builder.build().expect("good settings");
        Self {
            kind,
            cache,
            clock,
            ids: AtomicU64::new(0),
            ledger: Ledger::new(),
            told,
            taken: Mutex::default(),
        }
    }

    fn make(&self, heavy: bool) -> Value {
        let id = self.ids.fetch_add(1, SeqCst) + 1;
        Value {
            id,
            heavy,
            _counted: Arc::new(self.ledger.make(id)),
        }
    }

    fn take(&self, value: Option<Value>) {
        let id = value.map(|value| value.id);
        self.taken.lock().unwrap().extend(id);
    }

    fn compute(&self, f: impl FnOnce() -> Op<Value>) {
        let cache = &self.cache;
        if let CompResult::Removed(value) = cache.entry(KEY).and_compute_with(|_| f()) {
            self.take(Some(value));
        }
    }

    fn act(&self, act: Act) {
        let cache = &self.cache;
        match act {
            Act::Put => self.compute(|| Op::Put(self.make(false))),
            Act::PutHeavy => self.compute(|| Op::Put(self.make(true))),
            Act::PutLate => self.compute(|| {
                thread::yield_now();
                Op::Put(self.make(false))
            }),
            Act::ComputeRemove => self.compute(|| Op::Remove),
            Act::Leave => self.compute(|| Op::Nop),
            Act::Panic => _ = panics(|| self.compute(|| unwind("on purpose"))),
            Act::Get => drop(cache.get_with(&KEY, || self.make(false))),
            Act::GetHeavy => drop(cache.get_with(&KEY, || self.make(true))),
            Act::Insert => cache.insert(KEY, self.make(false)),
            Act::InsertHeavy => cache.insert(KEY, self.make(true)),
            Act::TryInsertHeavy => drop(cache.try_insert(KEY, self.make(true))),
            Act::InsertOthers => (10..14).for_each(|key| cache.insert(key, self.make(false))),
            Act::Remove => self.take(cache.remove(&KEY)),
            Act::RemoveNowait => self.take(cache.remove_nowait(&KEY)),
            Act::If => cache.invalidate_if(|_, value| value.id % 2 == 0),
            Act::IfNowait => cache.invalidate_if_nowait(|_, value| value.id % 2 == 1),
            Act::Clear => cache.clear(),
            Act::ClearNowait => cache.clear_nowait(),
            Act::Takeover => _ = cache.takeover(&KEY),
            Act::Shrink => {
                if let Some(capacity) = cache.capacity().filter(|&capacity| capacity > 0) {
                    cache.set_max_capacity(0).expect("bounded");
                    cache.set_max_capacity(capacity).expect("bounded");
                }
            }
            Act::Advance => self.clock.advance(Duration::from_millis(600)),
            Act::Tidy => cache.run_pending_tasks(),
        }
    }

    /// R10, and the listener: each value that left was told of once, and each that a removal took was.
    fn judge(&self) {
        let cache = &self.cache;
        // Expired entries count until they are removed.
        cache.run_pending_tasks();
        let live: Vec<u64> = cache.iter().map(|(_, value)| value.id).collect();
        cache.quiesce();
        assert_eq!(cache.len(), live.len());
        let each = if self.kind == Kind::Weighed {
            WEIGHT
        } else {
            1
        };
        assert_eq!(cache.weighted_size(), each * live.len() as u64);
        assert!(cache.in_flight().is_empty());
        let mut told = HashMap::new();
        for id in self.told.lock().unwrap().iter() {
            *told.entry(*id).or_insert(0) += 1;
        }
        assert!(
            told.values().all(|&times| times == 1),
            "told twice: {told:?}"
        );
        assert!(live.iter().all(|id| !told.contains_key(id)));
        let mut taken = self.taken.lock().unwrap().clone();
        taken.sort_unstable();
        assert!(taken.windows(2).all(|two| two[0] != two[1]), "{taken:?}");
        assert!(taken.iter().all(|id| told.contains_key(id)));
        assert_eq!(self.ledger.alive(), live.len(), "values that nobody has");
    }
}

fn storm(kind: Kind, seed: u64) {
    let mut dice = Dice::new(seed);
    for _ in 0..rounds("STORM_RUNS", 1_000) {
        let threads = 2 + dice.roll(3);
        let plan: Vec<Vec<Act>> = (0..threads)
            .map(|_| {
                let acts = 1 + dice.roll(3);
                let act = |_| Act::ALL[usize::try_from(dice.roll(Act::ALL.len() as u64)).unwrap()];
                (0..acts).map(act).collect()
            })
            .collect();
        let begins = dice.roll(4) > 0;
        let shown = format!("{kind:?}, with a value: {begins}, {plan:?}");
        let run = move || {
            let world = World::new(kind);
            if begins {
                world.act(Act::Insert);
            }
            let begin = Barrier::new(plan.len());
            thread::scope(|scope| {
                for acts in &plan {
                    let (world, begin) = (&world, &begin);
                    scope.spawn(move || {
                        begin.wait();
                        for &act in acts {
                            world.act(act);
                        }
                    });
                }
            });
            world.judge();
        };
        // Says which plan it was, and leaves the rest to the panic.
        let ended = std::panic::catch_unwind(move || watched(run));
        if let Err(panic) = ended {
            eprintln!("{shown}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn r10_storms_of_an_unbounded_cache() {
    storm(Kind::Unbounded, 1);
}

#[test]
fn r10_storms_of_a_cache_of_two_entries() {
    storm(Kind::Entries, 2);
}

#[test]
fn r10_storms_of_a_cache_that_weighs() {
    storm(Kind::Weighed, 3);
}

#[test]
fn r10_storms_of_a_cache_whose_entries_expire() {
    storm(Kind::Timed, 4);
}
