//! The eviction policy: a CLOCK whose face is the table itself.
//!
//! The policy sees positions and *marks* (eight bits of a word), never keys or values. It names
//! victims; the table unlinks them.
//!
//! # How it decides
//!
//! * A new key is **on probation**. The probation hand looks for entries that had their time there
//!   and were never asked for again: they leave, and become ghosts (2Q, Johnson and Shasha, VLDB
//!   '94; S3-FIFO, Yang et al., SOSP '23).
//! * An entry that *was* asked for, or that comes back with a count its ghost remembered,
//!   **contests** the weakest of the next few **main** entries. The higher count stays. On a tie
//!   the resident stays, unless of the two only the newcomer was used lately. The loser leaves, and
//!   its ghost keeps its count. So a scan or a loop cannot wash out entries in use (the admission
//!   duel of W-TinyLFU, Einziger et al., TOS '17, with exact counts for its sketch).
//! * The **aging hand** halves counts, once round for every eight turnovers of the cache. It goes
//!   up to six times as fast as more of main has a full count. Full counts no longer tell entries
//!   apart. Where popularity drifts, they belong to entries that it has left.
//! * A key that leaves for another reason than lack of room (removed by the user, or expired)
//!   leaves a ghost with its count too. When it is inserted again it goes on with that count, as if
//!   it had been overwritten. The policy learns nothing from it.
//!
//! No fixed setting is best for every workload, so the policy learns two. It learns both from
//! misses only, by the fate of evicted entries. A hit raises one count in a word that its thread
//! has at hand and notes the use. It writes nothing once the count is full and the use is noted.
//!
//! * **The size of probation.** A *young* ghost that comes back would have been a hit on a larger
//!   probation: it grows by one entry (ARC, Megiddo and Modha, FAST '03). A run of main entries all
//!   of which were used since the last aging means that main is too small: probation shrinks by as
//!   many.
//! * **The trust in newcomers.** The policy keeps account of the losers of contests: how many
//!   rejected newcomers come back, and how many residents (`LeCaR`'s regret, Vietri et al.,
//!   `HotStorage` '18). If the newcomers come back more often, returning counts for more.
//!
//! # Positions are in hash order
//!
//! A new entry stands at a random distance from every hand, not behind the last one. A hand that
//! took the first entry it met would give entries between nothing and two rounds. So the probation
//! hand passes an entry once before it takes it (`passed`): every newcomer has at least a whole
//! round.
//!
//! # Orderings
//!
//! Everything is `Relaxed`. The atomics here are numbers that publish nothing else: a stale one
//! costs a slightly worse choice. One decision must be exact: which thread takes an entry out. That
//! is a compare-and-swap of the table on the word itself. Updates that race may be lost where a
//! comment says so.

#[cfg(all(test, not(atomic_cache_loom)))]
mod simulation;

use crate::sync::{AtomicU64, AtomicUsize, Ordering::Relaxed, prefetch, zeroed_words};
use crate::table::PROBATION;
use crossbeam_utils::CachePadded;
use std::ops::Range;

/// The longest walk of a hand, in positions. 512 costs nothing measurable, 256 costs 0.1 points.
const FARTHEST: usize = 1024;
/// Contests for one victim that may fail, because another thread was quicker or the loser may not
/// leave. With this, one victim costs at most `(2 * REFUSALS + 3) * FARTHEST + LINE` looks: two
/// walks over probation, the contests of each, and one over main. On average it is about 50.
const REFUSALS: usize = 4;
/// Positions that are aged at once: the words of a cache line.
const LINE: usize = 8;
/// Positions that a walk claims at once: sixteen cache lines, about as many as it takes to find a
/// victim where few are on probation. In a smaller table an eighth, so that concurrent walks do not
/// meet. In the smallest all: otherwise two threads in step would each see only one half, again and
/// again.
const STRETCH: usize = 128;
const SMALLEST: usize = 64;
/// The main entries that a newcomer is compared with; also the length of a run of used ones that
/// counts. Anything from 4 to 12 is within 0.2 points.
const RIVALS: usize = 6;
/// Turnovers of the cache to a round of the aging hand, while few counts are full.
const AGING: usize = 8;
/// How much faster the aging hand goes when every count in main is full. So it begins to hurry when
/// a sixth of them is: a loop does not get there, Zipf has up to 0.4, drifting popularity up to
/// 0.8. Between 3 and 10 real traces hardly differ; Zipf loses 0.2 by 10, Zipf that drifts gains
/// 0.9 by 4 (AGING 6).
const HASTE: usize = 6;
/// Ghosts to an entry, at 21 bits each: 5.3 bytes an entry. More (3) remember more of Zipf and of
/// database traces, +0.1 there, but let longer loops wash through main: -0.3 on the whole.
const GHOSTS: usize = 2;
/// The share of the entries that is on probation, in parts of `WHOLE`, and its bounds. It begins at
/// the least, because it grows quickly. All on probation would be a FIFO (walk: 47 to 38).
const WHOLE: u64 = 1 << 32;
const LEAST: u64 = WHOLE / 40;
const MOST: u64 = WHOLE / 10 * 9;
/// From this share on the hand passes a newcomer once. Below, a round takes too long to go twice.
const PASSING: u64 = WHOLE / 15;

/// The value of `Policy::full` when all counts are full.
const ALL: usize = 1 << 16;

/// The policy's eight bits of a word, the two highest of them free.
///
/// ```text
///   5   4   3   2     0
/// +---+---+---+---------+
/// | s | p | u |  count  |
/// +---+---+---+---------+
/// ```
/// `u`: used since it was last aged, or let into main. `p`: on probation. `s`: the probation hand
/// has passed it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark(pub(crate) u8);

impl Mark {
    const COUNT: u8 = 7;
    const USED: u8 = 1 << 3;
    const PROBATION: u8 = PROBATION;
    const PASSED: u8 = 1 << 5;
    const DEMOTED: Self = Self(Self::PROBATION | Self::PASSED | 1 << 6);

    fn newcomer(count: u8) -> Self {
        Self(count.min(Self::COUNT) | Self::PROBATION)
    }

    /// A main entry that counts as unused from now on.
    const fn main(count: u8) -> Self {
        Self(count)
    }

    /// The mark of an entry that was removed with this count and is inserted again.
    const fn returned(count: u8, main: bool) -> Self {
        let probation = if main { 0 } else { Self::PROBATION };
        Self(count | probation | Self::USED)
    }

    pub(crate) const fn count(self) -> u8 {
        self.0 & Self::COUNT
    }

    pub(crate) const fn on_probation(self) -> bool {
        self.0 & Self::PROBATION != 0
    }

    const fn was_passed(self) -> bool {
        self.0 & Self::PASSED != 0
    }

    const fn passed(self) -> Self {
        Self(self.0 | Self::PASSED)
    }

    /// Returns whether it was used since it was last aged.
    const fn was_used(self) -> bool {
        self.0 & Self::USED != 0
    }

    /// Returns whether more uses would not show.
    const fn is_full(self) -> bool {
        self.count() == Self::COUNT
    }

    /// Returns whether a newcomer with this mark stays, and a main entry with `its` goes.
    const fn beats(self, its: Self) -> bool {
        self.count() + (self.was_used() && !its.was_used()) as u8 > its.count()
    }

    const fn aged(self) -> Self {
        Self((self.0 & !(Self::COUNT | Self::USED)) | (self.count() / 2))
    }

    /// The mark of an entry that goes last.
    pub(crate) const fn promoted(self) -> Self {
        Self(Self::COUNT)
    }

    /// The mark of an entry that goes first, if it is not used before.
    pub(crate) const fn demoted(self) -> Self {
        Self::DEMOTED
    }

    pub(crate) fn is_demoted(self) -> bool {
        self == Self::DEMOTED
    }

    /// The highest possible [`heat`](Self::heat).
    pub(crate) const HOTTEST: u8 = 1 + 4 * Self::COUNT + 3;

    /// Returns a number that is higher for entries that go later.
    pub(crate) fn heat(self) -> u8 {
        if self.is_demoted() {
            return 0;
        }
        // Of two with one count the one used lately stays. On a tie the one on probation goes.
        1 + 4 * self.count() + 2 * u8::from(self.was_used()) + u8::from(!self.on_probation())
    }

    /// Returns the mark after a hit; `None` if it does not change.
    #[inline(always)]
    pub(crate) const fn touched(self) -> Option<Self> {
        match (self.is_full(), self.was_used()) {
            (true, true) => None,
            (full, _) => Some(Self((self.0 | Self::USED) + !full as u8)),
        }
    }
}

/// Counts of entries.
pub(crate) trait Census {
    /// Entries.
    fn entries(&self) -> usize;
    /// Entries on probation.
    fn on_probation(&self) -> usize;
}

/// The table as the policy sees it.
pub(crate) trait Ring: Census {
    /// Returns the number of positions: a power of two. Positions are taken modulo this.
    fn positions(&self) -> usize;
    /// Returns the mark of the entry at a position. `None`: there is none, or it may not be touched
    /// now.
    fn mark(&self, at: usize) -> Option<Mark>;
    /// Returns the first entry in a stretch of positions that is on probation, or that is not.
    fn next(&self, stretch: Range<usize>, on_probation: bool) -> Option<(usize, Mark)> {
        one_by_one(self, stretch, on_probation)
    }
    /// Returns where a hand rests that leaves off at the start of this stretch: there, or nearer to
    /// the next entry on probation. That entry is prefetched.
    fn rest(&self, stretch: Range<usize>) -> usize {
        stretch.start
    }
    /// Changes a mark, if it is still `from`.
    fn remark(&self, at: usize, from: Mark, to: Mark) -> bool;
    /// Takes the entry at `at` out, if its mark is still `mark` and it may leave: it is not being
    /// filled, and it is not the one that needs the room. Returns the hash of its key if it left;
    /// `expect` gets the hash before that is known.
    fn evict(&self, at: usize, mark: Mark, expect: impl FnOnce(u64)) -> Option<u64>;
    /// Returns the number of entries above the capacity, at least one: the one that needs room, and
    /// those of other threads that are making room.
    fn surplus(&self) -> usize;
}

/// See [`Ring::next`].
pub(crate) fn one_by_one(
    ring: &(impl Ring + ?Sized),
    mut stretch: Range<usize>,
    on_probation: bool,
) -> Option<(usize, Mark)> {
    stretch.find_map(|at| {
        let mark = ring.mark(at)?;
        (mark.on_probation() == on_probation).then_some((at, mark))
    })
}

/// The state of the policy, shared by all threads.
///
/// A field that every eviction changes has a cache line of its own; fields that are only read share
/// none with it.
pub(crate) struct Policy {
    ghosts: Ghosts,
    probation_hand: CachePadded<Hand>,
    main_hand: CachePadded<Hand>,
    aging_hand: Hand,
    /// The aging hand goes on when so many entries have left. (Stored, because computing it takes
    /// divisions, and every miss asks.)
    next_aging: AtomicUsize,
    /// The share of entries to keep on probation.
    probation: AtomicU64,
    /// Used main entries that the aging hand has met in a row.
    used_run: AtomicUsize,
    /// The share of full counts in the main entries that it has lately met, in parts of `ALL`.
    full: AtomicUsize,
    /// Newcomers that lost a contest, and how many came back.
    sent_away: Account,
    /// Main entries that had to leave, and how many came back.
    ousted: Account,
}

impl Policy {
    /// Returns the number of entries it was made for.
    pub(crate) fn made_for(&self) -> usize {
        self.ghosts.entries
    }

    /// Makes a policy for a cache of about so many entries.
    pub(crate) fn new(entries: usize) -> Self {
        Self {
            ghosts: Ghosts::new(entries * GHOSTS),
            probation_hand: CachePadded::default(),
            main_hand: CachePadded::default(),
            aging_hand: Hand::default(),
            next_aging: AtomicUsize::new(0),
            probation: AtomicU64::new(LEAST),
            used_run: AtomicUsize::new(0),
            full: AtomicUsize::new(0),
            sent_away: Account::default(),
            ousted: Account::default(),
        }
    }

    /// Prefetches the ghosts of a key that is about to be inserted, or to leave.
    pub(crate) fn expect(&self, hash: u64) {
        prefetch(std::ptr::from_ref(self.ghosts.bucket(hash).0).addr());
    }

    /// Returns the mark of a key that is inserted. `room`: no entry will have to leave for it.
    #[inline]
    pub(crate) fn arrive(&self, hash: u64, room: bool, ring: &impl Census) -> Mark {
        if let Some(ghost) = self.ghosts.take(hash) {
            return match ghost.left {
                Left::Removed { main } => Mark::returned(ghost.count, main),
                _ => Mark::newcomer(self.returned(ghost, ring)),
            };
        }
        // While there is room, main is filled. Otherwise all entries would be on probation when the
        // room ends, and the next newcomers would sweep them out.
        if room && ring.on_probation() >= self.quota(ring) {
            return Mark::main(0);
        }
        Mark::newcomer(0)
    }

    /// Keeps the mark of a key that its user has removed, or that has expired. If the key comes
    /// again, it goes on as if it had been overwritten. The policy learns nothing from that: no
    /// other size of probation would have kept it.
    pub(crate) fn remember(&self, hash: u64, mark: Mark) {
        let main = !mark.on_probation();
        self.ghosts.keep(hash, mark.count(), Left::Removed { main });
    }

    /// Learns from a ghost that came back. Returns the count that the entry begins with.
    fn returned(&self, ghost: Ghost, ring: &impl Census) -> u8 {
        match ghost.left {
            Left::Main => self.ousted.returned(),
            Left::Contest => self.sent_away.returned(),
            Left::Unused | Left::Removed { .. } => {}
        }
        if ghost.young && ghost.left != Left::Main {
            self.resize(1, ring);
        }
        ghost.count + 1 + u8::from(self.trusted())
    }

    /// Returns whether rejected newcomers come back more often than ousted residents. A tie is not
    /// enough, or two equal halves of a loop would take turns.
    fn trusted(&self) -> bool {
        self.sent_away.rate() * 20 > self.ousted.rate() * 21
    }

    /// Returns the number of entries that should be on probation now.
    fn quota(&self, ring: &impl Census) -> usize {
        let share = u128::from(self.probation.load(Relaxed));
        ((share * ring.entries() as u128 / u128::from(WHOLE)) as usize).max(1)
    }

    /// Makes probation larger by so many entries, or smaller.
    fn resize(&self, by: i64, ring: &impl Census) {
        let step = WHOLE / ring.entries().max(1) as u64 * by.unsigned_abs();
        let share = self.probation.load(Relaxed);
        let share = if by > 0 {
            share + step
        } else {
            share.saturating_sub(step)
        };
        // A racing update may be lost.
        self.probation.store(share.clamp(LEAST, MOST), Relaxed);
    }

    /// Makes one entry leave. Returns false if a bounded walk found none that could.
    pub(crate) fn evict(&self, ring: &impl Ring) -> bool {
        self.age(ring);
        let quota = self.quota(ring);
        if ring.on_probation() > quota && self.judge_newcomers(quota, ring) {
            return true;
        }
        let weakest = self.weakest(ring);
        weakest.is_some_and(|(at, mark)| self.oust(at, mark, ring))
            // There is no main, or all of it is being filled.
            || self.judge_newcomers(0, ring)
    }

    /// Walks over probation until one entry has left, there or in its place in main.
    fn judge_newcomers(&self, quota: usize, ring: &impl Ring) -> bool {
        let passing = self.probation.load(Relaxed) >= PASSING;
        let mut refused = 0;
        let walked = self.probation_hand.walk(true, ring, |at, mark| {
            if passing && !mark.was_passed() {
                ring.remark(at, mark, mark.passed());
                return None;
            }
            if mark.count() == 0 {
                return self.send_away(at, mark, Left::Unused, ring).then_some(true);
            }
            if ring.on_probation() > quota + ring.surplus() {
                // Not for newcomers that are about to make their room, of this thread or of others.
                // Probation has become smaller, so there is room in main.
                ring.remark(at, mark, Mark::main(mark.count()));
                return None;
            }
            let left = self.contest(at, mark, ring);
            refused += usize::from(!left);
            (left || refused == REFUSALS).then_some(left)
        });
        walked == Some(true)
    }

    /// Makes one of two leave: the newcomer at `at`, or the weakest main entry that it meets.
    fn contest(&self, at: usize, mark: Mark, ring: &impl Ring) -> bool {
        match self.weakest(ring) {
            Some((rival, its)) if mark.beats(its) => {
                let left = self.oust(rival, its, ring);
                if left {
                    // It fails if the newcomer is hit just now; then it contests again next time.
                    ring.remark(at, mark, Mark::main(mark.count()));
                }
                left
            }
            _ => self.send_away(at, mark, Left::Contest, ring),
        }
    }

    /// Returns the weakest of the next few main entries.
    fn weakest(&self, ring: &impl Ring) -> Option<(usize, Mark)> {
        let (mut seen, mut weakest) = (0, None::<(usize, Mark)>);
        self.main_hand.walk(false, ring, |at, mark| {
            seen += 1;
            if weakest.is_none_or(|(_, least)| mark.count() < least.count()) {
                weakest = Some((at, mark));
            }
            (mark.count() == 0 || seen == RIVALS).then_some(())
        });
        weakest
    }

    fn send_away(&self, at: usize, mark: Mark, left: Left, ring: &impl Ring) -> bool {
        let Some(hash) = ring.evict(at, mark, |hash| self.expect(hash)) else {
            return false;
        };
        if left == Left::Contest {
            self.sent_away.left(ring);
        }
        self.ghosts.put(hash, mark.count(), left);
        true
    }

    fn oust(&self, at: usize, mark: Mark, ring: &impl Ring) -> bool {
        let Some(hash) = ring.evict(at, mark, |hash| self.expect(hash)) else {
            return false;
        };
        self.ousted.left(ring);
        self.ghosts.put(hash, mark.count(), Left::Main);
        true
    }

    /// Moves the aging hand by its part for one eviction: a line every so often.
    fn age(&self, ring: &impl Ring) {
        let now = self.ghosts.now.load(Relaxed);
        if now < self.next_aging.load(Relaxed) {
            return;
        }
        // Two threads may get here at once: then the hand goes a line too far.
        let haste = (HASTE * self.full.load(Relaxed)).max(ALL);
        let usual = AGING * LINE * ring.entries() / ring.positions();
        let period = (usual * ALL / haste).max(1);
        self.next_aging.store(now + period, Relaxed);
        let positions = ring.positions();
        let from = self.aging_hand.0.fetch_add(LINE, Relaxed);
        for at in from..from + LINE {
            if let Some(mark) = ring.mark(at) {
                if !mark.on_probation() {
                    self.count_run(mark.was_used(), ring);
                    self.count_full(mark.is_full());
                }
                ring.remark(at, mark, mark.aged());
            }
            self.ghosts.age(at % positions, positions);
        }
    }

    fn count_full(&self, is_full: bool) {
        // A running mean over about 64. A racing update may be lost.
        let full = self.full.load(Relaxed);
        let now = if is_full { ALL } else { 0 };
        self.full.store(full - full / 64 + now / 64, Relaxed);
    }

    fn count_run(&self, used: bool, ring: &impl Ring) {
        let run = if used {
            self.used_run.load(Relaxed) + 1
        } else {
            0
        };
        if run == RIVALS {
            let entries = ring.entries();
            let main = entries.saturating_sub(ring.on_probation()).max(1);
            // One for each of the run, as if all of the cache were main.
            let by = i64::try_from(RIVALS * entries / main).unwrap_or(i64::MAX);
            self.resize(-by, ring);
        }
        self.used_run.store(run % RIVALS, Relaxed);
    }
}

/// Returns how far a hand walks. In a small table at most twice round, which is enough to pass
/// every entry and to come back.
fn farthest(ring: &impl Ring) -> usize {
    FARTHEST.min(2 * ring.positions())
}

/// A hand: the position where the next walk begins.
#[derive(Default)]
struct Hand(AtomicUsize);

impl Hand {
    /// Calls `look` for each entry on probation (or each that is not), until it answers or the walk
    /// has gone [`farthest`]. A walk claims positions a stretch at a time, so that concurrent walks
    /// look at different ones. At the end it gives the unvisited rest back (without positions known
    /// to hold no such entry), unless another walk has gone on from there.
    fn walk<R: Ring, T>(
        &self,
        on_probation: bool,
        ring: &R,
        mut look: impl FnMut(usize, Mark) -> Option<T>,
    ) -> Option<T> {
        let farthest = farthest(ring);
        let stretch = if ring.positions() <= SMALLEST {
            ring.positions()
        } else {
            (ring.positions() / 8).min(STRETCH)
        };
        let mut walked = 0;
        while walked < farthest {
            walked += stretch;
            let mut from = self.0.fetch_add(stretch, Relaxed);
            let end = from + stretch;
            let give_back = |from| {
                let _ = self.0.compare_exchange(end, from, Relaxed, Relaxed);
            };
            while let Some((at, mark)) = ring.next(from..end, on_probation) {
                from = at + 1;
                let answer = look(at, mark);
                if answer.is_some() {
                    let rest = if on_probation {
                        ring.rest(from..end)
                    } else {
                        from
                    };
                    give_back(rest);
                    return answer;
                }
            }
        }
        None
    }
}

/// Counts entries that left, and those of them that came back. Recent ones count, older ones fade.
#[derive(Default)]
struct Account(AtomicU64);

impl Account {
    const ONE_LEFT: u64 = 1 << 32;
    const RETURNED: u64 = Self::ONE_LEFT - 1;

    fn get(&self) -> (u64, u64) {
        let account = self.0.load(Relaxed);
        (account >> 32, account & Self::RETURNED)
    }

    fn left(&self, ring: &impl Census) {
        self.0.fetch_add(Self::ONE_LEFT, Relaxed);
        let (left, returned) = self.get();
        if left > 2 * ring.entries() as u64 {
            // A racing update may be lost.
            self.0.store(((left / 2) << 32) | (returned / 2), Relaxed);
        }
    }

    fn returned(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// In parts of 2^16. About a half while little is known.
    fn rate(&self) -> u64 {
        let (left, returned) = self.get();
        ((returned + 4) << 16) / (left + 8)
    }
}

/// The way an entry left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Left {
    /// From probation, never asked for again.
    Unused,
    /// From probation, after it lost a contest.
    Contest,
    /// From main.
    Main,
    /// For another reason than lack of room.
    Removed { main: bool },
}

/// The memory of a key that left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ghost {
    count: u8,
    left: Left,
    /// It left less than about a quarter of a turnover ago (`Ghosts::YOUNG`).
    young: bool,
}

/// The ghosts: three to a bucket, a bucket a word, the youngest lowest.
///
/// ```text
///   20  15  14  13  11 10         0
/// +-------+---+-------+-----------+
/// | stamp | m | count |   print   |
/// +-------+---+-------+-----------+
/// ```
/// `m`: it was in main. The last stamp marks a key that did not leave for lack of room.
struct Ghosts {
    buckets: Box<[AtomicU64]>,
    /// The number of entries that have left: the clock of the stamps.
    now: CachePadded<AtomicUsize>,
    /// Ticks to one of those, in parts of 2^64: a tick is a sixteenth of a turnover.
    ticks: u64,
    /// The number of entries that the ghosts were made for.
    entries: usize,
}

impl Ghosts {
    const WAYS: usize = 3;
    const BITS: usize = 21;
    const ONE: u64 = (1 << Self::BITS) - 1;
    const PRINT: u64 = (1 << 11) - 1;
    const MAIN: u64 = 1 << 14;
    /// The counts of all three, and the highest bits of those.
    const COUNTS: u64 = 7 << 11 | 7 << 32 | 7 << 53;
    const COUNT_TOPS: u64 = 4 << 11 | 4 << 32 | 4 << 53;
    const STAMPS: usize = 64;
    const REMOVED: usize = Self::STAMPS - 1;
    const YOUNG: usize = 5;

    fn new(ghosts: usize) -> Self {
        Self {
            buckets: zeroed_words(ghosts.div_ceil(Self::WAYS).max(4)),
            now: CachePadded::default(),
            ticks: u64::MAX / (ghosts / GHOSTS / 16).max(1) as u64,
            entries: ghosts / GHOSTS,
        }
    }

    fn bucket(&self, hash: u64) -> (&AtomicU64, u64) {
        // The table is in hash order, and the tag is the hash's lowest byte. Mixed again,
        // neighbours in the table are not neighbours here.
        let hash = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let at = (u128::from(hash) * self.buckets.len() as u128) >> 64;
        // Zero means that there is no ghost.
        (&self.buckets[at as usize], (hash & Self::PRINT).max(1))
    }

    fn stamp(&self) -> usize {
        // `now / tick`, without a division: every miss asks twice.
        let ticks = u128::from(self.ticks) * self.now.load(Relaxed) as u128;
        let stamp = (ticks >> 64) as usize % Self::STAMPS;
        stamp.min(Self::REMOVED - 1)
    }

    fn put(&self, hash: u64, count: u8, left: Left) {
        self.keep(hash, count, left);
        // (A racing update may be lost.)
        self.now.store(self.now.load(Relaxed) + 1, Relaxed);
    }

    /// Does what [`put`](Self::put) does for a key that did not leave for lack of room.
    #[inline(always)]
    fn keep(&self, hash: u64, count: u8, left: Left) {
        let (bucket, print) = self.bucket(hash);
        let (main, stamp) = match left {
            Left::Removed { main } => (main, Self::REMOVED),
            _ => (left == Left::Main, self.stamp()),
        };
        let main = if main { Self::MAIN } else { 0 };
        let ghost = print | u64::from(count.min(7)) << 11 | main | (stamp as u64) << 15;
        let old = bucket.load(Relaxed);
        // The oldest falls out at the top. A racing update may be lost.
        bucket.store((old << Self::BITS | ghost) & (u64::MAX >> 1), Relaxed);
    }

    /// Halves the counts of part `at` of `of` equal parts.
    fn age(&self, at: usize, of: usize) {
        let buckets = self.buckets.len();
        for bucket in &self.buckets[at * buckets / of..(at + 1) * buckets / of] {
            let old = bucket.load(Relaxed);
            bucket.store(
                old & !Self::COUNTS | old >> 1 & Self::COUNTS & !Self::COUNT_TOPS,
                Relaxed,
            );
        }
    }

    fn take(&self, hash: u64) -> Option<Ghost> {
        let (bucket, print) = self.bucket(hash);
        let old = bucket.load(Relaxed);
        let way = (0..Self::WAYS).find(|way| old >> (way * Self::BITS) & Self::PRINT == print)?;
        let shift = way * Self::BITS;
        let ghost = old >> shift & Self::ONE;
        let younger = old & ((1 << shift) - 1);
        let older = old >> shift >> Self::BITS << shift;
        bucket.store(older | younger, Relaxed);
        let count = (ghost >> 11) as u8 & 7;
        let (main, stamp) = (ghost & Self::MAIN != 0, (ghost >> 15) as usize);
        let age = (self.stamp() + Self::STAMPS - stamp) % Self::STAMPS;
        Some(Ghost {
            count,
            left: match (main, count) {
                _ if stamp == Self::REMOVED => Left::Removed { main },
                (true, _) => Left::Main,
                (false, 0) => Left::Unused,
                (false, _) => Left::Contest,
            },
            young: age < Self::YOUNG,
        })
    }
}
