//! Look-ups of keys that are there.

use std::hint::black_box;

use super::{
    super::{
        family::{Lend, Look, Texts, View},
        lap::{Entrant, Lap, Span},
        stage::{Dice, Stage, make, spread_key},
    },
    USES,
};

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
