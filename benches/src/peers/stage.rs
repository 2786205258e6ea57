//! The inputs that all contenders are given alike: keys, texts, and the skewed sample.

use std::sync::OnceLock;

use rand::{SeedableRng, rngs::SmallRng};
use rand_distr::{Distribution, Zipf};

/// How skewed the Zipf sample is.
const SKEW: f64 = 0.9;

/// How many times as many keys the Zipf sample draws from as there is room for.
pub const UNIVERSE: usize = 10;

/// How many times as many entries as it will hold a cache has room for where nothing is to be evicted.
///
/// The parts of a sharded cache fill unevenly.
pub const SPARE: usize = 2;

/// How many accesses of the Zipf sample a cache sees before its first timing, for each key that it has room for.
const LEARNING: usize = 20;

/// The longest Zipf sample.
const LONGEST: usize = 40_000_000;

/// The inputs of a run, the same for every contender.
#[derive(Debug)]
pub struct Stage {
    /// How many keys are in a cache that is hit.
    pub keys: usize,
    /// How many accesses of the Zipf sample are timed.
    accesses: usize,
    /// Ranks of keys.
    zipf: OnceLock<Vec<u32>>,
    texts: OnceLock<Vec<String>>,
}

impl Stage {
    /// Makes the inputs for `keys` resident keys, one at least, and so many timed accesses to skewed keys.
    ///
    /// The sample is longer by the accesses that caches see before the timing, so that no access comes twice. Otherwise
    /// a cache that learns would know the coming accesses by heart, and hit more than any cache could that does not
    /// know the future.
    #[must_use]
    pub fn new(keys: usize, accesses: usize) -> Self {
        Self {
            keys: keys.max(1),
            accesses,
            zipf: OnceLock::new(),
            texts: OnceLock::new(),
        }
    }

    /// The texts of the keys, made when they are first asked for.
    pub fn texts(&self) -> &[String] {
        self.texts
            .get_or_init(|| (0..self.keys).map(text).collect())
    }

    /// How many accesses of the Zipf sample a cache sees before its first timing.
    #[must_use]
    pub fn learning(&self) -> usize {
        self.keys * LEARNING
    }

    /// The keys of the Zipf sample from `start` on; from its beginning again after its end.
    pub fn skewed_from(&self, start: usize) -> Skewed<'_> {
        let accesses = (self.learning() + self.accesses).min(LONGEST);
        let ranks = self
            .zipf
            .get_or_init(|| skewed(self.keys * UNIVERSE, accesses));
        Skewed {
            ranks,
            next: start % ranks.len(),
        }
    }
}

/// Skewed keys without end.
#[derive(Debug)]
pub struct Skewed<'a> {
    ranks: &'a [u32],
    next: usize,
}

impl Iterator for Skewed<'_> {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        let rank = self.ranks[self.next];
        self.next += 1;
        if self.next == self.ranks.len() {
            self.next = 0;
        }
        Some(spread_key(rank as usize))
    }
}

fn skewed(keys: usize, accesses: usize) -> Vec<u32> {
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    let zipf = Zipf::new(keys as f64, SKEW).expect("a key at least, and a good exponent");
    let mut random = SmallRng::seed_from_u64(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank is a small whole number"
    )]
    let rank = |_| zipf.sample(&mut random) as u32;
    (0..accesses).map(rank).collect()
}

/// The `index`th of keys that are spread over all bits.
#[inline]
#[must_use]
pub fn spread_key(index: usize) -> u64 {
    (index as u64)
        .wrapping_add(1)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// The `index`th text, of 16 to 23 bytes, as an identifier in a path is.
fn text(index: usize) -> String {
    format!("/articles/{index}/text")
}

/// Makes the value of a key, which is cheap, so that the time measured is the cache's.
#[inline]
#[must_use]
pub fn make(key: u64) -> u64 {
    key.wrapping_mul(3)
}

/// A generator of a nanosecond: xorshift, and a multiplication for the range.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// One for each seed.
    #[must_use]
    pub fn new(seed: usize) -> Self {
        Self(spread_key(seed) | 1)
    }

    /// A number below `end`, which is less than 2^32.
    #[inline]
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (((self.0 >> 32) * end as u64) >> 32) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dice_reach_every_number_evenly() {
        let mut dice = Dice::new(3);
        let mut seen = [0; 7];
        for _ in 0..70_000 {
            seen[dice.below(7)] += 1;
        }
        assert!(
            seen.iter().all(|count| (9_000..11_000).contains(count)),
            "{seen:?}"
        );
    }

    #[test]
    fn the_sample_is_long_enough_and_goes_round() {
        let stage = Stage::new(100, 50);
        let (all, keys) = (stage.learning() + 50, |start| stage.skewed_from(start));
        assert!(keys(40).take(10).eq(keys(40 + all).take(10)));
        assert!(!keys(0).take(all - 50).eq(keys(50).take(all - 50)));
        let known: Vec<u64> = (1..=1000).map(spread_key).collect();
        assert!(keys(0).take(all).all(|key| known.contains(&key)));
    }
}
