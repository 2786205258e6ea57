//! The policy alone, over a plain vector of words in the table's order, beside an exact LRU.
//! (`cargo replay --curve` shows it in the cache itself, on real traces, beside other caches.)

use super::{Census, Mark, Policy, Ring};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};

/// Keys at positions, with their marks.
struct Words {
    all: Vec<Cell<Option<(u64, Mark)>>>,
    places: RefCell<HashMap<u64, usize>>,
    on_probation: Cell<usize>,
    capacity: usize,
    /// The position of the entry that needs room.
    own: Cell<usize>,
    looks: Cell<usize>,
}

fn hash(key: u64) -> u64 {
    let mut hash = key.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

impl Words {
    fn new(capacity: usize) -> Self {
        let positions = (2 * capacity).next_power_of_two().max(16);
        Self {
            all: (0..positions).map(|_| Cell::new(None)).collect(),
            places: RefCell::default(),
            on_probation: Cell::new(0),
            capacity,
            own: Cell::new(usize::MAX),
            looks: Cell::new(0),
        }
    }

    fn at(&self, at: usize) -> &Cell<Option<(u64, Mark)>> {
        &self.all[at % self.all.len()]
    }

    fn hit(&self, key: u64) -> bool {
        let Some(&at) = self.places.borrow().get(&key) else {
            return false;
        };
        let (key, mark) = self.all[at].get().expect("it is there");
        if let Some(touched) = mark.touched() {
            self.all[at].set(Some((key, touched)));
        }
        true
    }

    fn insert(&self, key: u64, mark: Mark) {
        let home = (hash(key) >> (64 - self.all.len().trailing_zeros())) as usize;
        let mut probe = home..home + self.all.len();
        let free = probe.find(|&at| self.at(at).get().is_none());
        let at = free.expect("the table is not full") % self.all.len();
        self.all[at].set(Some((key, mark)));
        self.places.borrow_mut().insert(key, at);
        self.own.set(at);
        self.count(mark, 1);
    }

    fn count(&self, mark: Mark, by: isize) {
        if mark.on_probation() {
            let count = self.on_probation.get().checked_add_signed(by);
            self.on_probation.set(count.expect("counted in before"));
        }
    }
}

impl Census for Words {
    fn entries(&self) -> usize {
        self.places.borrow().len()
    }

    fn on_probation(&self) -> usize {
        self.on_probation.get()
    }
}

impl Ring for Words {
    fn positions(&self) -> usize {
        self.all.len()
    }

    fn mark(&self, at: usize) -> Option<Mark> {
        self.looks.set(self.looks.get() + 1);
        self.at(at).get().map(|(_, mark)| mark)
    }

    fn remark(&self, at: usize, from: Mark, to: Mark) -> bool {
        let Some((key, mark)) = self.at(at).get().filter(|it| it.1 == from) else {
            return false;
        };
        self.count(mark, -1);
        self.count(to, 1);
        self.at(at).set(Some((key, to)));
        true
    }

    fn evict(&self, at: usize, mark: Mark, _expect: impl FnOnce(u64)) -> Option<u64> {
        let (key, _) = self.at(at).get().filter(|it| it.1 == mark)?;
        if at % self.all.len() == self.own.get() {
            return None;
        }
        self.count(mark, -1);
        self.places.borrow_mut().remove(&key);
        self.at(at).set(None);
        Some(hash(key))
    }

    fn surplus(&self) -> usize {
        self.entries().saturating_sub(self.capacity).max(1)
    }
}

/// The result of a run.
#[derive(Debug)]
struct Run {
    /// Hits, in percent.
    ratio: f64,
    /// Positions looked at for an insert: on average, and at most.
    looks: f64,
    most_looks: usize,
}

fn percent(hits: usize, of: usize) -> f64 {
    100.0 * f64::from(u32::try_from(hits).unwrap()) / f64::from(u32::try_from(of).unwrap())
}

/// `at_once` threads each insert one entry before any of them makes room for its own.
fn run(accesses: &[u64], capacity: usize, at_once: usize) -> Run {
    let words = Words::new(capacity);
    let policy = Policy::new(capacity);
    let (mut hits, mut most_looks) = (0, 0);
    for &key in accesses {
        if words.hit(key) {
            hits += 1;
            continue;
        }
        let before = words.looks.get();
        let mark = policy.arrive(hash(key), words.entries() < capacity, &words);
        words.insert(key, mark);
        if words.entries() == capacity + at_once {
            for left in (0..at_once).rev() {
                assert!(policy.evict(&words), "there is always a victim");
                assert_eq!(words.entries(), capacity + left, "one has left");
            }
        }
        most_looks = most_looks.max(words.looks.get() - before);
    }
    let misses = accesses.len() - hits;
    let on_probation = |word: &&Cell<Option<(u64, Mark)>>| {
        let word = word.get();
        word.is_some_and(|(_, mark)| mark.on_probation())
    };
    let count = words.all.iter().filter(on_probation).count();
    assert_eq!(words.on_probation(), count);
    Run {
        ratio: percent(hits, accesses.len()),
        looks: percent(words.looks.get(), misses.max(1)) / 100.0,
        most_looks,
    }
}

/// An exact LRU: hits in percent.
fn lru(accesses: &[u64], capacity: usize) -> f64 {
    let (mut used, mut order) = (HashMap::new(), BTreeMap::new());
    let mut hits = 0;
    for (now, &key) in accesses.iter().enumerate() {
        if let Some(before) = used.insert(key, now) {
            order.remove(&before);
            hits += 1;
        }
        order.insert(now, key);
        if order.len() > capacity {
            let (_, oldest) = order.pop_first().expect("not empty");
            used.remove(&oldest);
        }
    }
    percent(hits, accesses.len())
}

/// xorshift64*.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }

    /// A larger number is rarer, about as by Zipf's law: each octave is as likely as the others.
    fn zipf(&mut self, octaves: u64) -> u64 {
        let octave = self.roll(octaves);
        (1 << octave) - 1 + self.roll(1 << octave)
    }
}

const ACCESSES: u64 = 200_000;

fn accesses(key: impl FnMut(u64) -> u64) -> Vec<u64> {
    (0..ACCESSES).map(key).collect()
}

/// Runs the policy and an LRU, and prints the results of both.
fn beside_lru(name: &str, accesses: &[u64], capacity: usize) -> (f64, f64) {
    let run = run(accesses, capacity, 1);
    let lru = lru(accesses, capacity);
    println!("{name}, {capacity}: {run:?}, LRU {lru:.1}");
    assert!(run.looks < 200.0, "{name}: {run:?}");
    assert!(
        run.most_looks <= 11 * super::FARTHEST + super::LINE,
        "{name}: {run:?}"
    );
    (run.ratio, lru)
}

#[test]
fn a_loop_larger_than_the_cache_keeps_a_part_of_itself() {
    // The optimum is capacity / loop; LRU has nothing.
    for (capacity, length) in [(100, 200), (1000, 2000), (1000, 1500)] {
        let accesses = accesses(|now| now % length);
        let (ratio, lru) = beside_lru("loop", &accesses, capacity);
        let optimum = percent(capacity, usize::try_from(length).unwrap());
        assert!(lru < 0.1 && ratio > 0.8 * optimum, "{ratio} of {optimum}");
    }
}

/// Once, entries that threads inserted at the same time were taken for a probation grown too large,
/// and let into main without a contest.
#[test]
fn newcomers_at_once_cost_a_loop_nothing() {
    let accesses = accesses(|now| now % 1000);
    let alone = run(&accesses, 300, 1).ratio;
    for at_once in [2, 8, 16] {
        let ratio = run(&accesses, 300, at_once).ratio;
        println!("{at_once} at once: {ratio:.1}, one at a time: {alone:.1}");
        assert!(ratio > alone - 1.0, "{at_once}: {ratio}, {alone}");
    }
}

#[test]
fn what_is_used_often_stays() {
    let mut dice = Dice(1);
    let zipf = accesses(|_| dice.zipf(15));
    for (capacity, better) in [(50, 4.0), (500, 4.0), (5000, 2.0)] {
        let (ratio, lru) = beside_lru("zipf", &zipf, capacity);
        assert!(ratio > lru + better, "{ratio}, {lru}");
    }
}

#[test]
fn a_scan_does_not_wash_the_cache_out() {
    // A run of 2,000 new keys in every 5,000 accesses.
    let mut dice = Dice(2);
    let scans = accesses(|now| match now % 5000 {
        0..2000 => (1 << 32) + now,
        _ => dice.zipf(13),
    });
    for capacity in [200, 1000] {
        let (ratio, lru) = beside_lru("scans", &scans, capacity);
        assert!(ratio > lru + 4.0, "{ratio}, {lru}");
    }
}

#[test]
fn a_hot_set_that_changes_is_followed() {
    let mut dice = Dice(3);
    let shifts = accesses(|now| ((now / 50_000) << 32) + dice.zipf(13));
    for capacity in [200, 1000] {
        let (ratio, lru) = beside_lru("shifts", &shifts, capacity);
        assert!(ratio > lru - 2.0, "{ratio}, {lru}");
    }
}

#[test]
fn the_smallest_caches_work() {
    let mut dice = Dice(4);
    let zipf = accesses(|_| dice.zipf(8));
    for capacity in 1..8 {
        let (ratio, lru) = beside_lru("small", &zipf, capacity);
        assert!(ratio > lru - 3.0, "{capacity}: {ratio}, {lru}");
    }
}

#[test]
fn a_mark_says_what_it_is_told() {
    let newcomer = Mark::newcomer(3);
    assert!(newcomer.on_probation() && newcomer.count() == 3);
    assert!(!newcomer.is_demoted() && !newcomer.was_passed() && newcomer.passed().was_passed());
    for count in 0..=7 {
        let main = Mark::main(count);
        assert_eq!((main.count(), main.on_probation()), (count, false));
        assert!(!main.was_used());
        let touched = main.touched().expect("it was not used yet");
        assert!(touched.was_used() && !touched.aged().was_used());
        assert_eq!(touched.count(), (count + 1).min(7));
        assert_eq!(touched.touched().is_none(), touched.count() == 7);
        assert_eq!(main.aged().count(), count / 2);
    }
    let (first, last) = (newcomer.demoted(), newcomer.promoted());
    assert!(first.is_demoted() && first.on_probation());
    assert!(!first.touched().expect("it has room").is_demoted());
    assert!((0..=7).all(|count| Mark::newcomer(count).heat() > first.heat()));
    assert!((0..7).all(|count| Mark::main(count).heat() < last.heat()));
}
