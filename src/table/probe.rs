//! The order in which positions are tried for a hash: linear probing.

use std::ops::Range;

/// The home position of `hash` in a level of `2^bits` words: its highest bits, so that a wider
/// level only refines the order of the narrower one (iteration rests on that).
#[inline(always)]
pub(super) fn home(hash: u64, bits: u32) -> usize {
    // A level has at least two words, so the shift is at most 63.
    (hash >> (64 - bits)) as usize
}

/// From the home position on, once round the level; positions are counted on past its end.
#[inline(always)]
pub(super) fn probe(hash: u64, bits: u32) -> Range<usize> {
    let home = home(hash, bits);
    home..home + (1 << bits)
}
