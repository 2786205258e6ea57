//! The timed loops, one for each work. They are compiled anew for each contender, and never inlined, so that all
//! are laid out alike. Each look-up is told neither which cache it is about nor that its answer is not needed.

mod hits;
mod through;

pub use hits::{ByText, Hits, Hot, Inserts, Lent, Pinned};
pub use through::{Fills, New, Refill, Skewed, Through, stretch};

/// How often a cache that is to be hit is read before its first timing: more often than any counts uses.
const USES: usize = 8;
