//! The timed loops, one for each work. They are compiled anew for each contender, and never inlined, so that all
//! are laid out alike.

use std::{
    hint::black_box,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::{
    family::{Forget, Lend, Look, ReadThrough, Texts, View},
    lap::{Entrant, Lap, Span},
    stage::{Dice, Stage, make, spread_key},
};

/// How often a cache that is to be hit is read before its first timing: more often than any counts uses.
const USES: usize = 8;

/// One in so many operations is an insert.
const INSERT_EVERY: usize = 20;

/// Puts every key in, and reads each often.
///
/// # Panics
///
/// When more than one in a hundred is not kept, as then misses would be timed for hits.
fn fill<C: Look>(cache: &C, stage: &Stage) {
    for key in (0..stage.keys).map(spread_key) {
        cache.put(key, make(key));
    }
    for _ in 0..USES {
        let found = warm(cache, stage);
        assert!(
            found >= stage.keys - stage.keys / 100,
            "a cache with room enough kept {found}"
        );
    }
}

/// Reads every key once; how many were there.
fn warm<C: Look>(cache: &C, stage: &Stage) -> usize {
    let keys = (0..stage.keys).map(spread_key);
    keys.filter(|&key| black_box(cache.get(key)).is_some())
        .count()
}

/// Reads of keys drawn uniformly.
pub struct Hits<C>(C);

impl<C: Look> Hits<C> {
    /// Fills `cache`.
    pub fn boxed(cache: C, stage: &Stage) -> Box<dyn Entrant> {
        fill(&cache, stage);
        Box::new(Self(cache))
    }
}

impl<C: Look> Entrant for Hits<C> {
    fn warm(&self, lap: &Lap<'_>) {
        warm(&self.0, lap.stage);
    }

    #[inline(never)]
    fn run(&self, lap: &Lap<'_>) -> Span {
        let (mut dice, keys) = (Dice::new(lap.seed()), lap.stage.keys);
        lap.each(|| {
            let key = spread_key(dice.below(keys));
            black_box(black_box(&self.0).get(key));
        })
    }
}

/// Reads of one key.
pub struct Hot<C>(C);

impl<C: Look> Hot<C> {
    /// Fills `cache`.
    pub fn boxed(cache: C, stage: &Stage) -> Box<dyn Entrant> {
        fill(&cache, stage);
        Box::new(Self(cache))
    }
}

impl<C: Look> Entrant for Hot<C> {
    #[inline(never)]
    fn run(&self, lap: &Lap<'_>) -> Span {
        let key = spread_key(0);
        lap.each(|| {
            black_box(black_box(&self.0).get(black_box(key)));
        })
    }
}

/// Reads of keys drawn uniformly, a batch of them under one guard.
pub struct Pinned<C>(C);

impl<C: View> Pinned<C> {
    /// Fills `cache`.
    pub fn boxed(cache: C, stage: &Stage) -> Box<dyn Entrant> {
        fill(&cache, stage);
        Box::new(Self(cache))
    }
}

impl<C: View> Entrant for Pinned<C> {
    fn warm(&self, lap: &Lap<'_>) {
        warm(&self.0, lap.stage);
    }

    #[inline(never)]
    fn run(&self, lap: &Lap<'_>) -> Span {
        let (mut dice, keys) = (Dice::new(lap.seed()), lap.stage.keys);
        lap.batches(|count| {
            let guard = self.0.view();
            for _ in 0..count {
                let key = spread_key(dice.below(keys));
                black_box(C::see(black_box(&guard), key).copied());
            }
            0
        })
    }
}

/// Reads of keys drawn uniformly, by a closure.
pub struct Lent<C>(C);

impl<C: Lend> Lent<C> {
    /// Fills `cache`.
    pub fn boxed(cache: C, stage: &Stage) -> Box<dyn Entrant> {
        fill(&cache, stage);
        Box::new(Self(cache))
    }
}

impl<C: Lend> Entrant for Lent<C> {
    fn warm(&self, lap: &Lap<'_>) {
        warm(&self.0, lap.stage);
    }

    #[inline(never)]
    fn run(&self, lap: &Lap<'_>) -> Span {
        let (mut dice, keys) = (Dice::new(lap.seed()), lap.stage.keys);
        lap.each(|| {
            let key = spread_key(dice.below(keys));
            black_box(black_box(&self.0).lend(key, |&value| value));
        })
    }
}

/// Reads of texts drawn uniformly.
pub struct ByText<C>(C);

impl<C: Texts> ByText<C> {
    /// Fills `cache`.
    pub fn boxed(cache: C, stage: &Stage) -> Box<dyn Entrant> {
        for (text, value) in stage.texts().iter().zip(0..) {
            cache.put(text.clone(), value);
        }
        for _ in 0..USES {
            Self::warm(&cache, stage);
        }
        Box::new(Self(cache))
    }

    fn warm(cache: &C, stage: &Stage) {
        for text in stage.texts() {
            black_box(cache.get(text));
        }
    }
}

impl<C: Texts> Entrant for ByText<C> {
    fn warm(&self, lap: &Lap<'_>) {
        Self::warm(&self.0, lap.stage);
    }

    #[inline(never)]
    fn run(&self, lap: &Lap<'_>) -> Span {
        let (mut dice, texts) = (Dice::new(lap.seed()), lap.stage.texts());
        lap.each(|| {
            let text = &texts[dice.below(texts.len())];
            black_box(black_box(&self.0).get(text));
        })
    }
}

/// Reads of keys drawn uniformly, of which some are put in anew.
pub struct Inserts<C>(C);

impl<C: Look> Inserts<C> {
    /// Fills `cache`.
    pub fn boxed(cache: C, stage: &Stage) -> Box<dyn Entrant> {
        fill(&cache, stage);
        Box::new(Self(cache))
    }
}

impl<C: Look> Entrant for Inserts<C> {
    fn warm(&self, lap: &Lap<'_>) {
        warm(&self.0, lap.stage);
    }

    #[inline(never)]
    fn run(&self, lap: &Lap<'_>) -> Span {
        let (mut dice, keys) = (Dice::new(lap.seed()), lap.stage.keys);
        let mut turn = 0;
        lap.each(|| {
            let key = spread_key(dice.below(keys));
            turn += 1;
            if turn == INSERT_EVERY {
                turn = 0;
                black_box(&self.0).put(key, make(key));
            } else {
                black_box(black_box(&self.0).get(key));
            }
        })
    }
}

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

/// Reads through of skewed keys.
pub struct Skewed<C> {
    cache: C,
    /// Where in the sample the lap begins: no lap reads again what another has just read.
    start: usize,
    /// Where the next one does.
    next: usize,
}

impl<C: ReadThrough> Skewed<C> {
    /// Lets `cache` see all of the sample.
    pub fn boxed(cache: C, stage: &Stage) -> Box<dyn Entrant> {
        for key in stage.skewed_from(0).take(stage.zipf.len()) {
            black_box(cache.read(key, &mut 0));
        }
        let (start, next) = (0, 0);
        Box::new(Self { cache, start, next })
    }

    /// Where the stretch of one thread begins.
    fn start(&self, lap: &Lap<'_>) -> usize {
        self.start + lap.thread * stretch(lap)
    }
}

/// How many accesses a thread makes in a lap.
fn stretch(lap: &Lap<'_>) -> usize {
    untimed(lap) + lap.operations
}

/// How many of them it makes before its time starts.
fn untimed(lap: &Lap<'_>) -> usize {
    lap.operations / 10
}

impl<C: ReadThrough> Entrant for Skewed<C> {
    fn begin(&mut self, lap: &Lap<'_>) {
        self.start = self.next;
        self.next += lap.threads * stretch(lap);
    }

    fn warm(&self, lap: &Lap<'_>) {
        let keys = lap.stage.skewed_from(self.start(lap));
        for key in keys.take(untimed(lap)) {
            black_box(self.cache.read(key, &mut 0));
        }
    }

    #[inline(never)]
    fn run(&self, lap: &Lap<'_>) -> Span {
        let mut keys = lap.stage.skewed_from(self.start(lap) + untimed(lap));
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
    /// The first index that nobody has.
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
