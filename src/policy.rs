//! Which entry makes room: plain CLOCK, until the policy of two hands is in its place.
use crate::sync::{AtomicUsize, Ordering};
use crate::table::PROBATION;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark(pub(crate) u8);

const MOST: u8 = 3;

impl Mark {
    #[inline(always)]
    pub(crate) const fn touched(self) -> Option<Self> {
        if self.0 & 15 < MOST {
            Some(Self(self.0 + 1))
        } else {
            None
        }
    }
    pub(crate) fn promoted(self) -> Self {
        Self(15)
    }
    pub(crate) fn demoted(self) -> Self {
        Self(PROBATION | 0x80)
    }
    pub(crate) fn is_demoted(self) -> bool {
        self == self.demoted()
    }
    pub(crate) fn heat(self) -> u8 {
        self.0 & 15
    }
}

pub(crate) trait Ring {
    fn positions(&self) -> usize;
    fn mark(&self, at: usize) -> Option<Mark>;
    fn remark(&self, at: usize, from: Mark, to: Mark) -> bool;
    fn evict(&self, at: usize, mark: Mark) -> Option<u64>;
    fn on_probation(&self) -> usize;
    fn entries(&self) -> usize;
    fn is_done(&self) -> bool;
}

pub(crate) struct Policy {
    hand: AtomicUsize,
    positions: usize,
}

impl Policy {
    pub(crate) fn new(positions: usize) -> Self {
        Self {
            hand: AtomicUsize::new(0),
            positions,
        }
    }
    pub(crate) fn positions(&self) -> usize {
        self.positions
    }
    pub(crate) fn newcomer(&self, _hash: u64) -> Mark {
        Mark(PROBATION)
    }
    pub(crate) fn evict_one(&self, ring: &impl Ring) -> bool {
        for _ in 0..ring.positions() * 18 {
            let at = self.hand.fetch_add(1, Ordering::Relaxed);
            let mark = ring.mark(at);
            if ring.is_done() {
                return true;
            }
            let Some(mark) = mark else { continue };
            if mark.0 & 15 > 0 {
                ring.remark(at, mark, Mark(mark.0 - 1));
            } else if ring.evict(at, mark).is_some() {
                return true;
            }
        }
        false
    }
}
