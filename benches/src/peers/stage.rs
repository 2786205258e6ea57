//! What all contenders are given alike: keys, texts, and the skewed sample.

use std::sync::OnceLock;

use rand::{SeedableRng, rngs::SmallRng};
use rand_distr::{Distribution, Zipf};

use crate::error::Error;

/// How skewed the Zipf sample is.
const SKEW: f64 = 0.9;

/// How many times as many keys the Zipf sample draws from as there is room for.
pub const UNIVERSE: usize = 10;

/// How many times as many entries as it will hold a cache has room for where nothing is to be evicted.
///
/// The parts of a sharded cache fill unevenly.
pub const SPARE: usize = 2;

/// The inputs of a run, made before anything is timed.
#[derive(Debug)]
pub struct Stage {
    /// How many keys are in a cache that is hit.
    pub keys: usize,
    /// Ranks of keys, skewed.
    pub zipf: Vec<u32>,
    texts: OnceLock<Vec<String>>,
}

impl Stage {
    /// The inputs for `keys` resident keys, with `accesses` skewed ones.
    ///
    /// # Errors
    ///
    /// When there are no keys to draw from.
    pub fn new(keys: usize, accesses: usize) -> Result<Self, Error> {
        Ok(Self {
            keys,
            zipf: skewed(keys * UNIVERSE, accesses)?,
            texts: OnceLock::new(),
        })
    }

    /// The texts of the keys, made when they are first asked for.
    pub fn texts(&self) -> &[String] {
        self.texts
            .get_or_init(|| (0..self.keys).map(text).collect())
    }

    /// The keys of the Zipf sample from `start` on, over and over.
    #[must_use]
    pub fn skewed_from(&self, start: usize) -> Skewed<'_> {
        Skewed {
            ranks: &self.zipf,
            next: start % self.zipf.len(),
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

fn skewed(keys: usize, accesses: usize) -> Result<Vec<u32>, Error> {
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    let zipf = Zipf::new(keys as f64, SKEW)
        .map_err(|e| Error::Usage(format!("--keys: expected a Zipf distribution: {e}")))?;
    let mut random = SmallRng::seed_from_u64(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank is a small whole number"
    )]
    let rank = |_| zipf.sample(&mut random) as u32;
    Ok((0..accesses).map(rank).collect())
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

/// Makes the value of a key, which is cheap, so that the cache is what is measured.
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
    fn the_sample_goes_round() {
        let stage = Stage::new(100, 50).expect("keys");
        let keys: Vec<u64> = stage.skewed_from(40).take(60).collect();
        assert_eq!(keys[..10], keys[50..]);
        assert_eq!(keys[10], spread_key(stage.zipf[0] as usize));
        assert!(stage.zipf.iter().all(|rank| (1..=1000).contains(rank)));
    }
}
