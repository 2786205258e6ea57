//! The layout of one 64-bit word.
//!
//! ```text
//!  63      56 55                48 47                                3   2   1   0
//! +----------+--------------------+-----------------------------------+---+---+---+
//! |   tag    |  mark              |  pointer, 8-aligned               | f | t | z |
//! +----------+--------------------+-----------------------------------+---+---+---+
//! ```
//! `z` frozen, `t` tentative, `f` fresh. The *mark* belongs to the policy of a bounded cache, and
//! travels with the word. A word without a pointer is one of four constants, or a tombstone that a
//! thread is about to clear: frozen and tentative at once, with that thread's number in the place
//! of all else.

/// One word of a level, decoded by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Word(pub(super) u64);

const TAG_SHIFT: u32 = 56;
const MARK_SHIFT: u32 = 48;
const MARK: u64 = 0xFF << MARK_SHIFT;
const POINTER: u64 = (1 << 48) - 8;

/// Being moved to the next level: not to be changed but into `MOVED`.
const FROZEN: u64 = 1;
/// Placed, not yet confirmed: readers pass over it.
const TENTATIVE: u64 = 2;
/// Copied from the level before, whose own word may still be `FROZEN`: not to be replaced or
/// unlinked before that is `MOVED`, or a slow helper would copy it a second time.
const FRESH: u64 = 4;
/// The bits that tell a tombstone, also one that is being cleared.
const TOMB: u64 = FROZEN | TENTATIVE;
/// The number of bits below a pointer, and below the number of the thread that clears a tombstone.
const LOW_BITS: u32 = 3;

impl Word {
    /// Never used. The end of every probe that comes here.
    pub(super) const EMPTY: Self = Self(0);
    /// Used before, free now.
    pub(super) const TOMB: Self = Self(TOMB);
    /// The word that was here, if any, is in the next level.
    pub(super) const MOVED: Self = Self(FRESH);
    /// `EMPTY` until it was sealed: nothing was placed behind it by a probe that came here.
    pub(super) const MOVED_END: Self = Self(FRESH | FROZEN);

    /// The tag of a hash: seven of its lowest eight bits, of which the home position uses nothing. Never
    /// zero, so no word without a pointer has one.
    #[inline(always)]
    const fn tag(hash: u64) -> u64 {
        (hash | 1) << TAG_SHIFT
    }

    /// # Panics
    /// When the pointer does not fit in 48 bits. Linux hands out such addresses only where it is
    /// asked to; 64-bit Android tags them, and is refused at compile time (lib.rs).
    pub(super) fn tentative(pointer: usize, hash: u64) -> Self {
        let pointer = pointer as u64;
        assert!(
            pointer & !POINTER == 0 && pointer != 0,
            "atomic-cache keeps pointers in 48 bits, and was given {pointer:#x} by the allocator"
        );
        Self(pointer | Self::tag(hash) | TENTATIVE)
    }

    /// A tombstone that the thread of this number, from 1, is about to clear.
    pub(super) const fn tomb_of(actor: u64) -> Self {
        Self(actor << LOW_BITS | TOMB)
    }

    #[inline(always)]
    pub(super) const fn pointer(self) -> usize {
        (self.0 & POINTER) as usize
    }

    /// A live word with the tag of `hash`, frozen or not.
    #[inline(always)]
    pub(super) const fn matches(self, hash: u64) -> bool {
        // The tag, the tentative bit, and with the tag that there is a pointer, in one comparison.
        (self.0 ^ Self::tag(hash)) & (0xFF << TAG_SHIFT | TENTATIVE) == 0
    }

    /// Settled, and of another key. (`EMPTY`, a tombstone and `MOVED` are not settled, and no
    /// pointer is without a tag.)
    #[inline(always)]
    pub(super) const fn is_settled_and_other(self, hash: u64) -> bool {
        self.0 & (FROZEN | TENTATIVE | FRESH) == 0 && !self.is_empty() && !self.could_be(hash)
    }

    /// Settled and of another key, or a tombstone: nothing else is between two keys mostly. Not to
    /// be asked of `EMPTY`.
    ///
    /// In numbers, not in branches: no processor can guess which of the words are tombstones.
    #[inline(always)]
    pub(super) const fn is_passed(self, hash: u64) -> bool {
        // A tombstone without its two bits, and then all the low bits above the difference of the
        // tags.
        let word = self.0 ^ (self.tomb_bit() * TOMB);
        let differs = (word ^ Self::tag(hash)).rotate_right(LOW_BITS) >> (TAG_SHIFT - LOW_BITS);
        differs.wrapping_sub(1) < 0xFF
    }

    /// One if it is a tombstone, and else zero.
    #[inline(always)]
    pub(super) const fn tomb_bit(self) -> u64 {
        self.0 & self.0 >> 1 & 1
    }

    /// Any word with a pointer and the tag of `hash`.
    #[inline(always)]
    pub(super) const fn could_be(self, hash: u64) -> bool {
        (self.0 ^ Self::tag(hash)) >> TAG_SHIFT == 0
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0 == Self::EMPTY.0
    }

    /// Free, and used before; also when a thread is about to clear it.
    pub(super) const fn is_tomb(self) -> bool {
        self.0 & TOMB == TOMB
    }

    pub(super) const fn is_being_cleared(self) -> bool {
        self.is_tomb() && self.0 != TOMB
    }

    pub(super) const fn is_free(self) -> bool {
        self.is_empty() || self.is_tomb()
    }

    #[inline(always)]
    pub(super) const fn is_moved(self) -> bool {
        self.0 == Self::MOVED.0 || self.0 == Self::MOVED_END.0
    }

    /// `EMPTY` or moved: in one test, because those are all that have no other bits than these.
    #[inline(always)]
    pub(super) const fn ends_glance(self) -> bool {
        self.0 & !(FRESH | FROZEN) == 0
    }

    #[inline(always)]
    pub(super) const fn ends_probe(self) -> bool {
        self.0 == Self::EMPTY.0 || self.0 == Self::MOVED_END.0
    }

    pub(super) const fn is_tentative(self) -> bool {
        self.pointer() != 0 && self.0 & TOMB == TENTATIVE
    }

    pub(super) const fn is_live(self) -> bool {
        self.pointer() != 0 && self.0 & TENTATIVE == 0
    }

    pub(super) const fn is_frozen(self) -> bool {
        self.pointer() != 0 && self.0 & TOMB == FROZEN
    }

    pub(super) const fn is_fresh(self) -> bool {
        self.pointer() != 0 && self.0 & FRESH != 0
    }

    /// Frozen or moved: the key's place is, or will be, the next level.
    pub(super) const fn is_moving(self) -> bool {
        self.is_moved() || self.is_frozen()
    }

    /// Not to be changed by a writer now.
    pub(super) const fn is_pinned_down(self) -> bool {
        self.is_frozen() || self.is_fresh()
    }

    /// Live, and free to be changed.
    #[inline(always)]
    pub(super) const fn is_settled(self) -> bool {
        self.0 & (FROZEN | TENTATIVE | FRESH) == 0 && self.pointer() != 0
    }

    /// Settled, and with this bit in its mark or without it. A word that is neither live nor `EMPTY` is not
    /// settled, and `EMPTY` has no mark: so it is one comparison, or two.
    #[inline(always)]
    pub(super) const fn is_settled_with(self, bit: u8, there: bool) -> bool {
        let bit = (bit as u64) << MARK_SHIFT;
        let seen = self.0 & (FROZEN | TENTATIVE | FRESH | bit);
        if there {
            seen == bit
        } else {
            seen == 0 && !self.is_empty()
        }
    }

    pub(super) const fn confirmed(self) -> Self {
        Self(self.0 & !TENTATIVE)
    }

    pub(super) const fn frozen(self) -> Self {
        Self(self.0 | FROZEN)
    }

    /// As a copy in the next level, under the tag of `hash`.
    pub(super) const fn fresh_copy(self, hash: u64) -> Self {
        Self(self.0 & !(0xFF << TAG_SHIFT | FROZEN) | Self::tag(hash) | FRESH)
    }

    #[cfg(all(test, not(atomic_cache_loom)))]
    pub(super) const fn fresh(self) -> Self {
        Self(self.0 | FRESH)
    }

    pub(super) const fn settled(self) -> Self {
        Self(self.0 & !FRESH)
    }

    /// A word of the same key, with the same mark, and another object.
    pub(super) fn of_object(self, pointer: usize) -> Self {
        Self::tentative(pointer, self.0 >> TAG_SHIFT)
            .confirmed()
            .with_mark(self.mark())
    }

    /// The policy's bits.
    #[inline(always)]
    pub(super) const fn mark(self) -> u8 {
        (self.0 >> MARK_SHIFT) as u8
    }

    #[inline(always)]
    pub(super) const fn with_mark(self, mark: u8) -> Self {
        Self(self.0 & !MARK | (mark as u64) << MARK_SHIFT)
    }
}

#[cfg(all(test, not(atomic_cache_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ADDRESS: usize = 0x7fff_dead_bee8;

    #[test]
    fn constants_hold_no_pointer_and_differ() {
        let all = [Word::EMPTY, Word::TOMB, Word::MOVED, Word::MOVED_END];
        for (i, a) in all.iter().enumerate() {
            assert_eq!(a.pointer(), 0);
            assert!(!a.is_tentative() && !a.is_live() && !a.is_frozen() && !a.is_fresh());
            assert!(all.iter().skip(i + 1).all(|b| a != b));
            assert_eq!(a.ends_glance(), *a != Word::TOMB);
            assert!(!a.is_settled_with(1 << 4, true) && !a.is_settled_with(1 << 4, false));
            assert!((0..=255).all(|hash| !a.matches(hash) && !a.could_be(hash)));
            assert!((0..=255).all(|hash| !a.is_settled_and_other(hash)));
            assert_eq!(a.tomb_bit() == 1, *a == Word::TOMB);
            assert!(
                *a == Word::EMPTY || (0..=255).all(|hash| a.is_passed(hash) == (*a == Word::TOMB))
            );
        }
    }

    #[test]
    #[should_panic(expected = "48 bits")]
    fn a_pointer_beyond_48_bits_is_refused() {
        Word::tentative(1 << 48, 0);
    }

    proptest! {
        #[test]
        fn a_tomb_is_nothing_but_free(actor in 1_u64..1 << 48, hash: u64) {
            for tomb in [Word::TOMB, Word::tomb_of(actor)] {
                prop_assert!(tomb.is_tomb() && tomb.is_free() && !tomb.is_empty());
                prop_assert!(!tomb.is_live() && !tomb.is_tentative() && !tomb.is_fresh());
                prop_assert!(!tomb.is_settled());
                prop_assert!(!tomb.is_settled_with(1 << 4, true) && !tomb.is_settled_with(1 << 4, false));
                prop_assert!(!tomb.is_moving() && !tomb.ends_probe() && !tomb.ends_glance());
                prop_assert!(!tomb.matches(hash) && !tomb.could_be(hash));
                prop_assert!((0..=255).all(|tag| !tomb.matches(tag) && !tomb.could_be(tag)));
                prop_assert!((0..=255).all(|tag| !tomb.is_settled_and_other(tag)));
                prop_assert!((0..=255).all(|tag| tomb.is_passed(tag)) && tomb.tomb_bit() == 1);
            }
            prop_assert!(Word::tomb_of(actor).is_being_cleared());
        }

        #[test]
        fn a_word_keeps_pointer_and_tag_through_its_life(
            pointer in 1_usize..1 << 45,
            hash: u64,
            mark: u8,
        ) {
            let pointer = pointer << 3;
            let word = Word::tentative(pointer, hash).with_mark(mark);
            prop_assert!(word.is_tentative() && !word.matches(hash) && word.could_be(hash));
            let live = word.confirmed();
            prop_assert!(live.is_live() && live.matches(hash) && !live.is_pinned_down());
            prop_assert!(live.is_settled() && !word.is_settled());
            prop_assert!(!live.is_settled_and_other(hash) && live.is_settled_and_other(!hash ^ 1));
            for other in [word, live.frozen(), live.fresh_copy(hash)] {
                prop_assert!(!other.is_settled_and_other(!hash ^ 1));
                prop_assert!(!other.is_passed(!hash ^ 1) && !other.is_passed(hash));
            }
            for there in [true, false] {
                let bit = mark & 1 << 4 != 0;
                prop_assert_eq!(live.is_settled_with(1 << 4, there), bit == there);
                prop_assert!(!word.is_settled_with(1 << 4, there));
                prop_assert!(!live.frozen().is_settled_with(1 << 4, there));
            }
            prop_assert!(!live.is_passed(hash) && live.is_passed(!hash ^ 1));
            let frozen = live.frozen();
            prop_assert!(frozen.is_frozen() && frozen.is_moving() && frozen.matches(hash));
            let copy = frozen.fresh_copy(!hash);
            prop_assert!(copy.is_fresh() && !copy.is_frozen() && copy.matches(!hash));
            prop_assert_eq!(copy.settled().fresh_copy(hash).settled(), live);
            for step in [word, live, frozen, copy] {
                prop_assert_eq!((step.pointer(), step.mark()), (pointer, mark));
                prop_assert!(!step.is_moved() && !step.is_free() && !step.ends_probe());
                prop_assert!(!step.ends_glance());
            }
            prop_assert_eq!(live.of_object(ADDRESS).pointer(), ADDRESS);
            prop_assert_eq!(live.of_object(ADDRESS).mark(), mark);
            prop_assert_eq!(live.with_mark(!mark).mark(), !mark);
            prop_assert_eq!(live.with_mark(!mark).with_mark(mark), live);
            prop_assert!(live.of_object(ADDRESS).matches(hash));
        }
    }
}
