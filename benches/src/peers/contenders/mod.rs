//! The contenders: this cache, its peers, and the floor. A file each says how it is set up.
//!
//! Each is as its crate makes it by default, hasher included. Where nothing is to be evicted, a bounded cache gets
//! [`SPARE`](super::stage::SPARE) times the room it needs, because the parts of a sharded one fill unevenly.

mod dash;
mod floor;
mod moka;
mod ours;
mod quick;

use super::{lap::Entrant, stage::Stage, work::Work};

/// One contender.
#[derive(Debug, Clone, Copy)]
pub struct Contender {
    /// What tables call it.
    pub name: &'static str,
    /// Whether of all who ask for an absent key at once only one makes the value.
    pub single_flight: bool,
    /// Makes it ready for a work; none when it cannot do that.
    pub enter: fn(Work, &Stage) -> Option<Box<dyn Entrant>>,
}

/// The name of this cache.
pub const OURS: &str = "atomic-cache";

/// The name of the peer that the bars are about.
pub const QUICK: &str = "quick_cache";

/// The name of the usual hand-written cache.
pub const DASH: &str = "dashmap+once_cell";

/// The name of the floor.
pub const FLOOR: &str = "floor";

/// All of them, this cache first and the floor last.
pub const ALL: [Contender; 5] = [
    ours::CONTENDER,
    moka::CONTENDER,
    quick::CONTENDER,
    dash::CONTENDER,
    floor::CONTENDER,
];
