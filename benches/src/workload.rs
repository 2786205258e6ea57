//! A made workload, for a machine without access logs.

use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::{Distribution, Zipf};

use crate::error::Error;

/// How many accesses a workload has unless told otherwise.
pub const ACCESSES: usize = 2_000_000;

/// How many keys the skewed part draws from.
const KEYS: u32 = 200_000;

/// How skewed it is.
const SKEW: f64 = 0.9;

/// A scan comes after this many skewed accesses.
const BETWEEN_SCANS: usize = 50_000;

/// How many keys, never seen before, a scan reads.
const SCAN: usize = 5_000;

/// Makes `accesses` accesses: Zipf-distributed with exponent 0.9 over 200,000 keys, and after every 50,000 of
/// them a scan over 5,000 keys that come only once. Equal seeds make equal workloads.
///
/// # Errors
///
/// Never with the constants above; the distribution reports parameters out of range.
pub fn make(accesses: usize, seed: u64) -> Result<Vec<u64>, Error> {
    let zipf = Zipf::new(f64::from(KEYS), SKEW)
        .map_err(|e| Error::Usage(format!("expected a Zipf distribution: {e}")))?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut scanned = u64::from(KEYS);
    let keys = (0..accesses).map(|index| {
        if index % (BETWEEN_SCANS + SCAN) < BETWEEN_SCANS {
            skewed(&zipf, &mut random)
        } else {
            scanned += 1;
            scanned
        }
    });
    Ok(keys.collect())
}

/// One skewed key, from 1 to [`KEYS`].
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank is a small whole number"
)]
fn skewed(zipf: &Zipf<f64>, random: &mut impl Rng) -> u64 {
    zipf.sample(random) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Accesses;

    #[test]
    fn a_seed_decides() {
        let make = |seed| make(1000, seed).expect("a workload");
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }

    #[test]
    fn has_skew_and_scans() {
        let keys = make(BETWEEN_SCANS + SCAN, 7).expect("a workload");
        assert!(
            keys[..BETWEEN_SCANS]
                .iter()
                .all(|key| (1..=u64::from(KEYS)).contains(key))
        );
        let top = keys.iter().filter(|&&key| key == 1).count();
        assert!((500..5000).contains(&top), "{top}");
        assert_eq!(
            Accesses::Numbers(keys[BETWEEN_SCANS..].to_vec()).distinct_keys(),
            SCAN
        );
    }
}
