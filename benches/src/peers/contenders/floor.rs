//! The floor: a plain `hashbrown` map with its own hasher, read by a shared reference. It is no cache, and only reads:
//! its time is that of a table that does nothing else.

use hashbrown::HashMap;

use super::{Contender, FLOOR};
use crate::peers::{
    lap::{Entrant, Lap, Span},
    stage::{Dice, Stage, make, spread_key},
    work::Work,
};
use std::hint::black_box;

/// This contender's row in the table.
pub const CONTENDER: Contender = Contender {
    name: FLOOR,
    single_flight: false,
    enter,
    cache: |_, _| None,
    tasks: None,
};

fn enter(work: Work, stage: &Stage) -> Option<Box<dyn Entrant>> {
    Some(match work {
        Work::Hit | Work::Ttl | Work::Pin | Work::With => Box::new(Reads::new(stage)),
        Work::HotKey => Box::new(OneRead(Reads::new(stage))),
        Work::Strings => Box::new(ReadsByText::new(stage)),
        _ => return None,
    })
}

/// As `loops::Hits`, for a map that has to be filled before it is shared.
struct Reads(HashMap<u64, u64>);

impl Reads {
    fn new(stage: &Stage) -> Self {
        let keys = (0..stage.keys).map(spread_key);
        Self(keys.map(|key| (key, make(key))).collect())
    }
}

impl Entrant for Reads {
    fn warm(&self, lap: &Lap<'_>) {
        for index in 0..lap.stage.keys {
            black_box(self.0.get(&spread_key(index)));
        }
    }

    #[inline(never)]
    fn run(&self, lap: &Lap<'_>) -> Span {
        let (mut dice, keys) = (Dice::new(lap.seed()), lap.stage.keys);
        lap.each(|| {
            let key = spread_key(dice.below(keys));
            black_box(black_box(&self.0).get(&key).copied());
        })
    }
}

/// As `loops::Hot`.
struct OneRead(Reads);

impl Entrant for OneRead {
    #[inline(never)]
    fn run(&self, lap: &Lap<'_>) -> Span {
        let key = spread_key(0);
        lap.each(|| {
            black_box(black_box(&self.0.0).get(&black_box(key)).copied());
        })
    }
}

/// As `loops::ByText`.
struct ReadsByText(HashMap<String, u64>);

impl ReadsByText {
    fn new(stage: &Stage) -> Self {
        Self(stage.texts().iter().cloned().zip(0..).collect())
    }
}

impl Entrant for ReadsByText {
    fn warm(&self, lap: &Lap<'_>) {
        for text in lap.stage.texts() {
            black_box(self.0.get(text));
        }
    }

    #[inline(never)]
    fn run(&self, lap: &Lap<'_>) -> Span {
        let (mut dice, texts) = (Dice::new(lap.seed()), lap.stage.texts());
        lap.each(|| {
            let text = &texts[dice.below(texts.len())];
            black_box(black_box(&self.0).get(text.as_str()).copied());
        })
    }
}
