//! The formats of access logs, and how to guess one.

use std::{collections::HashMap, fmt};

use clap::ValueEnum;

/// The format of an access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// ARC `.lis` lines: `first_block block_count ignored request_number`
    Arc,
    /// oracleGeneral records of 24 bytes: u32 seconds, u64 key, u32 size, i64 `next_access`
    Oracle,
    /// Binary 32-bit keys
    U32,
    /// Binary 64-bit keys
    U64,
    /// One decimal key per line; other lines are skipped
    Text,
    /// Common or Combined Log Format of nginx and Apache; the key is method and path
    Clf,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Arc => "arc",
            Self::Oracle => "oracle",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::Text => "text",
            Self::Clf => "clf",
        })
    }
}

/// How far the name of a file decides its format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guess {
    /// The name decides.
    Sure(Format),
    /// Binary keys; the content has to say how wide they are (see [`guess_width`]).
    Keys,
    /// The name says nothing.
    Unknown,
}

/// Guesses the format from the name of a file, after stripping `.zst` and `.gz`.
#[must_use]
pub fn guess_by_name(name: &str) -> Guess {
    let name = name.to_ascii_lowercase();
    let stem = name
        .strip_suffix(".zst")
        .or_else(|| name.strip_suffix(".gz"))
        .unwrap_or(&name);
    let has = |part: &str| stem.split('.').skip(1).any(|p| p == part);
    if has("oraclegeneral") {
        Guess::Sure(Format::Oracle)
    } else if has("u32") {
        Guess::Sure(Format::U32)
    } else if has("u64") {
        Guess::Sure(Format::U64)
    } else if has("lis") {
        Guess::Sure(Format::Arc)
    } else if has("bin") {
        Guess::Keys
    } else if has("txt") {
        Guess::Sure(Format::Text)
    } else if has("log") || stem.starts_with("access_log") {
        Guess::Sure(Format::Clf)
    } else {
        Guess::Unknown
    }
}

/// Fewer repeated halves than this say too little to guess from.
const MIN_REPEATS: usize = 8;

/// Guesses whether the keys of a bare `.bin` are 32 or 64 bits wide, from the first bytes of the file.
///
/// `complete` tells that `sample` is the whole file. The rules, in order:
///
/// 1. A complete length that 8 does not divide means 32 bits.
/// 2. Where the same half of every 8 bytes is zero, they are small 64-bit keys.
/// 3. A half of a 64-bit key that comes again nearly always comes with the same other half, because it is
///    the same key; two neighbouring 32-bit keys seldom come together again. So 64 bits when 9 of 10
///    repeats agree, 32 bits otherwise.
///
/// With too few repeats there is no answer. The rules can be fooled, by a loop over an even number of
/// 32-bit keys for one; that is why `--format` always decides.
#[must_use]
pub fn guess_width(sample: &[u8], complete: bool) -> Option<Format> {
    if complete && !sample.len().is_multiple_of(8) {
        return Some(Format::U32);
    }
    let halves: Vec<(u32, u32)> = sample
        .as_chunks::<8>()
        .0
        .iter()
        .copied()
        .map(halve)
        .collect();
    if halves.is_empty() {
        return None;
    }
    if halves.iter().all(|h| h.0 == 0) || halves.iter().all(|h| h.1 == 0) {
        return Some(Format::U64);
    }
    let there = Repeats::count(halves.iter().copied());
    let back = Repeats::count(halves.iter().map(|&(a, b)| (b, a)));
    match there
        .agreeing_share()
        .into_iter()
        .chain(back.agreeing_share())
        .reduce(f64::max)
    {
        Some(share) if share >= 0.9 => Some(Format::U64),
        Some(_) => Some(Format::U32),
        None => None,
    }
}

/// The two halves of 8 bytes.
fn halve(word: [u8; 8]) -> (u32, u32) {
    let word = u64::from_le_bytes(word);
    let low = u32::try_from(word & u64::from(u32::MAX)).unwrap_or_default();
    let high = u32::try_from(word >> 32).unwrap_or_default();
    (low, high)
}

/// How often a half came again, and how often with the other half it came with before.
struct Repeats {
    all: usize,
    agreeing: usize,
}

impl Repeats {
    fn count(halves: impl Iterator<Item = (u32, u32)>) -> Self {
        let mut last = HashMap::new();
        let mut repeats = Self {
            all: 0,
            agreeing: 0,
        };
        for (half, other) in halves {
            if let Some(before) = last.insert(half, other) {
                repeats.all += 1;
                repeats.agreeing += usize::from(before == other);
            }
        }
        repeats
    }

    #[expect(clippy::cast_precision_loss, reason = "a sample is small")]
    fn agreeing_share(&self) -> Option<f64> {
        (self.all >= MIN_REPEATS).then(|| self.agreeing as f64 / self.all as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_decide() {
        for (name, guess) in [
            ("OLTP.lis.zst", Guess::Sure(Format::Arc)),
            ("vm.oracleGeneral", Guess::Sure(Format::Oracle)),
            ("vm.oracleGeneral.bin.zst", Guess::Sure(Format::Oracle)),
            ("keys.u32.gz", Guess::Sure(Format::U32)),
            ("keys.u64.bin", Guess::Sure(Format::U64)),
            ("web07.bin.zst", Guess::Keys),
            ("multi.TXT", Guess::Sure(Format::Text)),
            ("access.log.1.gz", Guess::Sure(Format::Clf)),
            ("access_log", Guess::Sure(Format::Clf)),
            ("access_log-2025", Guess::Sure(Format::Clf)),
            ("log", Guess::Unknown),
            ("trace.csv", Guess::Unknown),
            (".zst", Guess::Unknown),
            ("", Guess::Unknown),
        ] {
            assert_eq!(guess_by_name(name), guess, "{name}");
        }
    }

    fn bytes32(keys: impl Iterator<Item = u32>) -> Vec<u8> {
        keys.flat_map(u32::to_le_bytes).collect()
    }

    fn bytes64(keys: impl Iterator<Item = u64>) -> Vec<u8> {
        keys.flat_map(u64::to_le_bytes).collect()
    }

    /// A hash that spreads over all 64 bits.
    fn spread(key: u64) -> u64 {
        let x = key.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (x ^ (x >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
    }

    #[test]
    fn a_length_that_8_does_not_divide_is_32_bits() {
        assert_eq!(guess_width(&[1; 12], true), Some(Format::U32));
        assert_eq!(guess_width(&[], true), None);
    }

    #[test]
    fn hashed_keys_that_repeat_are_64_bits() {
        let sample = bytes64((0..1000).map(|i| spread(spread(i) % 100)));
        assert_eq!(guess_width(&sample, true), Some(Format::U64));
    }

    #[test]
    fn small_keys_are_64_bits() {
        assert_eq!(guess_width(&bytes64(1..50), true), Some(Format::U64));
        let big_endian: Vec<u8> = (1..50_u64).flat_map(u64::to_be_bytes).collect();
        assert_eq!(guess_width(&big_endian, true), Some(Format::U64));
    }

    #[test]
    fn mixed_small_keys_are_32_bits() {
        let keys = (0..1000).map(|i| u32::try_from(spread(i) % 100).expect("below 100"));
        assert_eq!(guess_width(&bytes32(keys), true), Some(Format::U32));
    }

    #[test]
    fn without_repeats_there_is_no_guess() {
        assert_eq!(guess_width(&bytes64((0..50).map(spread)), true), None);
    }
}
