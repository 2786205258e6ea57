//! The order in which positions are tried for a hash.

/// The home position of `hash` in a level of `2^bits` words: its highest bits, so that a wider
/// level only refines the order of the narrower one (iteration rests on that).
#[inline(always)]
pub(super) fn home(hash: u64, bits: u32) -> usize {
    // A level has at least two words, so the shift is at most 63.
    (hash >> (64 - bits)) as usize
}

/// Linear probing from the home position, once round the level.
pub(super) struct Probe {
    at: usize,
    left: usize,
    mask: usize,
}

impl Probe {
    #[inline(always)]
    pub(super) fn new(hash: u64, bits: u32) -> Self {
        Self {
            at: home(hash, bits),
            left: 1 << bits,
            mask: (1 << bits) - 1,
        }
    }
}

impl Probe {
    /// From the position before `from` backwards to the home.
    pub(super) fn back(hash: u64, bits: u32, from: usize) -> impl Iterator<Item = usize> {
        let mask = (1 << bits) - 1;
        let steps = from.wrapping_sub(home(hash, bits)) & mask;
        (1..=steps).map(move |step| from.wrapping_sub(step) & mask)
    }

    /// From the position after `from` to the last of the probe.
    pub(super) fn on(hash: u64, bits: u32, from: usize) -> impl Iterator<Item = usize> {
        let at = (from + 1) & ((1 << bits) - 1);
        let passed = from.wrapping_sub(home(hash, bits)) & ((1 << bits) - 1);
        Self {
            at,
            left: (1 << bits) - 1 - passed,
            mask: (1 << bits) - 1,
        }
    }
}

impl Iterator for Probe {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let at = self.at;
        self.at = (at + 1) & self.mask;
        Some(at)
    }
}
