//! Reading through, of keys that are there and of keys that are not.

use std::{
    hint::black_box,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::{
    super::{
        family::{Forget, ReadThrough},
        lap::{Entrant, Lap, Span},
        stage::{Dice, Stage, spread_key},
    },
    USES,
};

/// Reads through of keys drawn uniformly, all of which are there.
pub struct Through<C>(C);

impl<C: ReadThrough> Through<C> {
    /// Fills `cache`.
    pub fn boxed(cache: C, stage: &Stage) -> Box<dyn Entrant> {
        for _ in 0..=USES {
            read_all(&cache, stage);
        }
        Box::new(Self(cache))
    }
}

fn read_all<C: ReadThrough>(cache: &C, stage: &Stage) {
    for index in 0..stage.keys {
        black_box(cache.read(spread_key(index), &mut 0));
    }
}

impl<C: ReadThrough> Entrant for Through<C> {
    fn warm(&self, lap: &Lap<'_>) {
        read_all(&self.0, lap.stage);
    }

    #[inline(never)]
    fn run(&self, lap: &Lap<'_>) -> Span {
        let (mut dice, keys) = (Dice::new(lap.seed()), lap.stage.keys);
        lap.batches(|count| {
            let mut made = 0;
            for _ in 0..count {
                let key = spread_key(dice.below(keys));
                black_box(black_box(&self.0).read(key, &mut made));
            }
            made
        })
    }
}

/// A lap begins with accesses that are not timed: one for so many that are.
const UNTIMED: usize = 10;

/// Reads through of skewed keys.
pub struct Skewed<C> {
    cache: C,
    /// Where in the sample the lap begins: no lap reads again the accesses that another has just
    /// read.
    start: usize,
    /// Where the next one does.
    next: usize,
}

impl<C: ReadThrough> Skewed<C> {
    /// Lets `cache` see the beginning of the sample.
    pub fn boxed(cache: C, stage: &Stage) -> Box<dyn Entrant> {
        for key in stage.skewed_from(0).take(stage.learning()) {
            black_box(cache.read(key, &mut 0));
        }
        let (start, next) = (0, stage.learning());
        Box::new(Self { cache, start, next })
    }

    /// Where the stretch of one thread begins.
    fn start(&self, lap: &Lap<'_>) -> usize {
        self.start + lap.thread * stretch(lap.operations)
    }
}

/// How many accesses to skewed keys a thread makes in a lap of so many operations.
#[must_use]
pub fn stretch(operations: usize) -> usize {
    untimed(operations) + operations
}

/// How many of them it makes before its time starts.
fn untimed(operations: usize) -> usize {
    operations / UNTIMED
}

impl<C: ReadThrough> Entrant for Skewed<C> {
    fn begin(&mut self, lap: &Lap<'_>) {
        self.start = self.next;
        self.next += lap.threads * stretch(lap.operations);
    }

    fn warm(&self, lap: &Lap<'_>) {
        let keys = lap.stage.skewed_from(self.start(lap));
        for key in keys.take(untimed(lap.operations)) {
            black_box(self.cache.read(key, &mut 0));
        }
    }

    #[inline(never)]
    fn run(&self, lap: &Lap<'_>) -> Span {
        let mut keys = lap
            .stage
            .skewed_from(self.start(lap) + untimed(lap.operations));
        lap.batches(|count| {
            let mut made = 0;
            for key in keys.by_ref().take(count) {
                black_box(black_box(&self.cache).read(key, &mut made));
            }
            made
        })
    }
}

/// Reads through of keys that were never there, into a cache that is full.
pub struct New<C> {
    cache: C,
    /// The first index that no thread has.
    next: AtomicUsize,
}

impl<C: ReadThrough> New<C> {
    /// Fills `cache` twice over.
    pub fn boxed(cache: C, stage: &Stage) -> Box<dyn Entrant> {
        let next = 2 * stage.keys;
        for index in 0..next {
            black_box(cache.read(spread_key(index), &mut 0));
        }
        let next = AtomicUsize::new(next);
        Box::new(Self { cache, next })
    }
}

impl<C: ReadThrough> Entrant for New<C> {
    #[inline(never)]
    fn run(&self, lap: &Lap<'_>) -> Span {
        let mut index = self.next.fetch_add(lap.operations, Relaxed);
        lap.batches(|count| {
            let mut made = 0;
            for _ in 0..count {
                black_box(black_box(&self.cache).read(spread_key(index), &mut made));
                index += 1;
            }
            made
        })
    }
}

/// One key, taken out and read through.
pub struct Refill<C>(C);

impl<C: Forget> Refill<C> {
    /// Reads every key once.
    pub fn boxed(cache: C, stage: &Stage) -> Box<dyn Entrant> {
        read_all(&cache, stage);
        Box::new(Self(cache))
    }
}

impl<C: Forget> Entrant for Refill<C> {
    #[inline(never)]
    fn run(&self, lap: &Lap<'_>) -> Span {
        let key = spread_key(0);
        lap.batches(|count| {
            let mut made = 0;
            for _ in 0..count {
                black_box(&self.0).forget(black_box(key));
                black_box(black_box(&self.0).read(black_box(key), &mut made));
            }
            made
        })
    }
}

/// Reads through of new keys, into a cache that is made anew for each timing.
pub struct Fills<C, M> {
    make: M,
    cache: Option<C>,
}

impl<C: ReadThrough, M: Fn(usize) -> C + Sync + 'static> Fills<C, M> {
    /// `make` is told how many keys will come.
    pub fn boxed(make: M) -> Box<dyn Entrant> {
        Box::new(Self { make, cache: None })
    }
}

impl<C: ReadThrough, M: Fn(usize) -> C + Sync> Entrant for Fills<C, M> {
    fn begin(&mut self, lap: &Lap<'_>) {
        self.cache = None;
        self.cache = Some((self.make)(lap.threads * lap.operations));
    }

    #[inline(never)]
    fn run(&self, lap: &Lap<'_>) -> Span {
        let cache = self.cache.as_ref().expect("made before every timing");
        let mut index = lap.thread * lap.operations;
        lap.batches(|count| {
            let mut made = 0;
            for _ in 0..count {
                black_box(black_box(cache).read(spread_key(index), &mut made));
                index += 1;
            }
            made
        })
    }
}
