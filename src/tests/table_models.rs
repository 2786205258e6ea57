//! The table alone, with plain objects.
//!
//! A level has 16 words here and moves 4 at a time. The models leave two things out. The count of
//! words in use is not one of loom's atomics (`sync::Tally`): if two threads pass the mark at once,
//! the second always sees the first. And that a level always has room for the words that are moved
//! into it is an argument of `grow.rs`, not a result of these models.

use super::harness::{Actor, Explore, Token, models, start};
use super::reclaim_checker::{Domain, pin};
use crate::reclaim::Garbage;
use crate::table::{Claim, Key, Rehash, Table};
use std::cell::Cell;
use std::rc::Rc;

/// An object of the table: a key, and the number of this object of that key.
struct Item {
    key: Token,
    id: u64,
}

/// The key's number is its home, of 16; all keys have the same tag.
fn hash(key: u64) -> u64 {
    key << 60
}

/// The key that most models are about. Its home is in the third of the blocks in which a level is
/// moved, so that a resize can have begun without it.
const KEY: u64 = 8;
/// Another key with the same home, and one more.
const NEIGHBOUR: u64 = KEY + 16;
const THIRD: u64 = KEY + 32;
/// A key with its home at the next position.
const BEHIND: u64 = KEY + 1;
/// A key with a home of its own.
const FAR: u64 = 12;

/// A home that no key has. Its probe ends before it comes to `KEY`.
const ASTRAY: u64 = 10;

struct Shelf {
    table: Table<Item>,
    domain: Domain,
    hashes: Hashes,
}

/// Answers the table when it asks for a hash.
#[derive(Default)]
struct Hashes {
    /// For `KEY` the hash of `ASTRAY`, and not the one it was put in with.
    key_lies: Cell<bool>,
}

impl Rehash<Item> for Hashes {
    fn rehash(&self, item: &Item) -> Option<u64> {
        let key = item.key.number();
        Some(hash(if key == KEY && self.key_lies.get() {
            ASTRAY
        } else {
            key
        }))
    }

    fn lost(&self, _: &Item) {
        unreachable!("every item has a hash")
    }
}

/// A key to put in, and its object when that has been asked for.
struct Wanted {
    key: u64,
    id: u64,
    object: *mut Item,
}

impl Key<Item> for Wanted {
    fn is(&self, object: &Item) -> bool {
        is(self.key, object)
    }

    fn object(&mut self) -> *const Item {
        if self.object.is_null() {
            self.object = item(self.key, self.id);
        }
        self.object
    }

    fn mark(&mut self) -> u8 {
        0
    }
}

fn is(key: u64, object: &Item) -> bool {
    object.key.number() == key
}

fn item(key: u64, id: u64) -> *mut Item {
    let key = Token::new(key);
    Box::into_raw(Box::new(Item { key, id }))
}

impl Shelf {
    fn new() -> Rc<Self> {
        Rc::new(Self {
            table: Table::new(0, false),
            domain: Domain::new(std::ptr::null(), None),
            hashes: Hashes::default(),
        })
    }

    fn retire(&self, object: *const Item) {
        // SAFETY: from `Box::into_raw`, and out of the table; the checker fails if it is not.
        self.domain
            .retire(unsafe { Garbage::boxed(object.cast_mut()) });
    }

    /// Returns whether it was put in; false if the key was there.
    fn insert(&self, key: u64, id: u64) -> bool {
        let pin = pin();
        let mut wanted = Wanted {
            key,
            id,
            object: std::ptr::null_mut(),
        };
        let hash = hash(key);
        match self
            .table
            .claim(hash, &mut wanted, &pin, &self.hashes, &self.domain)
        {
            Claim::Placed(_) => true,
            Claim::Found(_) => {
                if !wanted.object.is_null() {
                    self.retire(wanted.object);
                }
                false
            }
        }
    }

    /// Returns the number of the object that was taken out.
    fn remove(&self, key: u64) -> Option<u64> {
        self.remove_by(hash(key), key)
    }

    /// Does what [`remove`](Self::remove) does, by a hash that may not be the key's.
    fn remove_by(&self, hash: u64, key: u64) -> Option<u64> {
        let pin = pin();
        loop {
            let is_key = |object: &Item| is(key, object);
            let spot =
                self.table
                    .find_to_change(hash, &pin, &self.hashes, &self.domain, &is_key)?;
            if self.table.unlink(&spot) {
                let id = spot.object().id;
                self.retire(spot.address());
                return Some(id);
            }
        }
    }

    /// Returns the number of the object that a new one has replaced.
    fn replace(&self, key: u64, id: u64) -> Option<u64> {
        let pin = pin();
        loop {
            let hash = hash(key);
            let is_key = |object: &Item| is(key, object);
            let spot =
                self.table
                    .find_to_change(hash, &pin, &self.hashes, &self.domain, &is_key)?;
            let new = item(key, id);
            if self.table.replace(&spot, new) {
                let id = spot.object().id;
                self.retire(spot.address());
                return Some(id);
            }
            // SAFETY: never shared.
            drop(unsafe { Box::from_raw(new) });
        }
    }

    /// Takes the object at a position out, as an eviction does; returns its number.
    fn evict(&self, at: usize) -> Option<u64> {
        let pin = pin();
        let spot = self.table.dial(&pin, &self.hashes, &self.domain).spot(at)?;
        if !self.table.unlink(&spot) {
            return None;
        }
        let id = spot.object().id;
        self.retire(spot.address());
        Some(id)
    }

    fn read(&self, key: u64) -> Option<u64> {
        let pin = pin();
        let spot = self.table.find(hash(key), &pin, |object| is(key, object))?;
        Some(spot.object().id)
    }

    /// Every key and object in the order in which a scan finds them.
    fn scan(&self) -> Vec<(u64, u64)> {
        let mut found = vec![];
        let mut from = Some(0);
        while let Some(stretch) = from {
            let pin = pin();
            let mut spots = vec![];
            from = self
                .table
                .scan(stretch, &pin, &self.hashes, &self.domain, &mut spots);
            found.extend(spots.iter().map(|spot| {
                let item = spot.object();
                (item.key.number(), item.id)
            }));
        }
        found
    }

    /// Uses up words until the next one makes the table resize: tombstones, all before `KEY` or at
    /// the level's end.
    fn use_up(&self, used: usize) {
        let homes = [0, 1, 2, 3, 4, 5, 6, 7, 15];
        for &at in &homes[..10 - used] {
            self.table.entomb(at, &pin());
        }
    }

    fn actor(self: &Rc<Self>, act: impl FnOnce(&Self) + 'static) -> Actor {
        let shelf = self.clone();
        Box::new(move || act(&shelf))
    }

    /// At the end: returns the table's contents, each object once, and drops all of it.
    fn end(self: Rc<Self>) -> Vec<(u64, u64)> {
        let mut shelf = Rc::into_inner(self).expect("all threads have ended");
        let objects = shelf.table.drain();
        let take = |object: &*const Item| {
            // SAFETY: linked, and no other thread has the table.
            let item = unsafe { Box::from_raw(object.cast_mut()) };
            (item.key.number(), item.id)
        };
        let mut left: Vec<_> = objects.iter().map(take).collect();
        left.sort_unstable();
        left
    }
}

/// Two inserts of one key. Meanwhile a tombstone appears before the position that one of them has
/// chosen.
fn one_winner(removes: impl FnOnce(&Shelf) + 'static, explore_reader: bool) {
    let shelf = Shelf::new();
    assert!(shelf.insert(NEIGHBOUR, 1));
    let won = Rc::new(Cell::new(0));
    let count = won.clone();
    let insert = move |shelf: &Shelf, id| {
        if shelf.insert(KEY, id) {
            count.set(count.get() + 1);
        }
        let first = shelf.read(KEY);
        assert!(first.is_some());
        if explore_reader {
            assert_eq!(shelf.read(KEY), first);
        }
    };
    let other = insert.clone();
    let others = start([shelf.actor(move |shelf| other(shelf, 2))]);
    removes(&shelf);
    insert(&shelf, 3);
    others.join();
    assert_eq!(won.get(), 1);
    let items = shelf.end();
    assert_eq!(items.len(), 1, "{items:?}");
}

models! {
    /// Two inserts of one key, the first of which makes a tombstone in their probe: one winner,
    /// which both find.
    table_one_winner_although_a_tomb_appears: Explore::All => || {
        one_winner(|shelf| assert_eq!(shelf.remove(NEIGHBOUR), Some(1)), false);
    };

    /// The same with a tombstone made by a third thread.
    table_one_winner_although_somebody_makes_a_tomb: Explore::AtMost(5) => || {
        let shelf = Shelf::new();
        assert!(shelf.insert(NEIGHBOUR, 1));
        let won = Rc::new(Cell::new(0));
        let count = won.clone();
        let insert = move |shelf: &Shelf, id| {
            if shelf.insert(KEY, id) {
                count.set(count.get() + 1);
            }
        };
        let other = insert.clone();
        let others = start([
            shelf.actor(move |shelf| other(shelf, 2)),
            shelf.actor(|shelf| assert_eq!(shelf.remove(NEIGHBOUR), Some(1))),
        ]);
        insert(&shelf, 3);
        others.join();
        assert_eq!(won.get(), 1);
        let items = shelf.end();
        assert_eq!(items.len(), 1, "{items:?}");
    };

    /// An insert that is placed and then withdrawn is not seen by a reader, and does not hide the
    /// key from it: a key that was found once is found again.
    table_a_reader_sees_the_winner_alone: Explore::AtMost(5) => || {
        let shelf = Shelf::new();
        assert!(shelf.insert(NEIGHBOUR, 1));
        let others = start([
            shelf.actor(|shelf| {
                shelf.insert(KEY, 2);
            }),
            shelf.actor(|shelf| {
                let first = shelf.read(KEY);
                assert!(first.is_none() || shelf.read(KEY) == first);
            }),
        ]);
        shelf.remove(NEIGHBOUR);
        shelf.insert(KEY, 3);
        others.join();
        assert_eq!(shelf.end().len(), 1);
    };

    /// L9: a reader, a remover, and an inserter of another key at one and the same position. The
    /// reader never gets a freed object, nor another key's (ABA).
    table_l09_read_remove_insert_at_one_position: Explore::AtMost(5) => || {
        let shelf = Shelf::new();
        assert!(shelf.insert(KEY, 1));
        let others = start([
            shelf.actor(|shelf| {
                let first = shelf.read(KEY);
                assert!(first.is_none_or(|id| id == 1));
                let second = shelf.read(KEY);
                assert!(second.is_none() || first.is_some());
            }),
            shelf.actor(|shelf| assert_eq!(shelf.remove(KEY), Some(1))),
        ]);
        assert!(shelf.insert(NEIGHBOUR, 2));
        assert_eq!(shelf.read(NEIGHBOUR), Some(2));
        others.join();
        assert_eq!(shelf.end(), [(NEIGHBOUR, 2)]);
    };

    /// Two removers and a replacer of one key: each object is taken out by one of them.
    table_an_object_is_taken_out_once: Explore::AtMost(6) => || {
        let shelf = Shelf::new();
        assert!(shelf.insert(KEY, 1));
        let taken = Rc::new(Cell::new(0));
        let take = {
            let taken = taken.clone();
            move |shelf: &Shelf| {
                let id = shelf.remove(KEY).unwrap_or(0);
                taken.set(taken.get() + id);
            }
        };
        let other = take.clone();
        let others = start([
            shelf.actor(move |shelf| other(shelf)),
            shelf.actor(move |shelf| {
                shelf.replace(KEY, 10);
            }),
        ]);
        take(&shelf);
        others.join();
        assert!([1, 10].contains(&taken.get()), "{}", taken.get());
        assert_eq!(shelf.end(), []);
    };

    /// A run of words is cleared from its end while two others place words behind and in it: each
    /// is found for as long as it is there. (`Z` goes behind the run, or into it.)
    table_a_run_is_cleared_under_an_insert: Explore::All => || {
        let shelf = Shelf::new();
        assert!(shelf.insert(KEY, 1));
        assert!(shelf.insert(NEIGHBOUR, 2));
        let others = start([shelf.actor(|shelf| {
            assert!(shelf.insert(THIRD, 3));
            assert_eq!(shelf.read(THIRD), Some(3));
        })]);
        assert_eq!(shelf.remove(NEIGHBOUR), Some(2));
        assert_eq!(shelf.remove(KEY), Some(1));
        others.join();
        assert_eq!(shelf.read(THIRD), Some(3));
        assert_eq!(shelf.end(), [(THIRD, 3)]);
    };

    /// The same with a thread that places a word with its home in the middle of the run, so that it
    /// does not pass the words before.
    table_a_run_is_cleared_under_two_inserts: Explore::AtMost(5) => || {
        let shelf = Shelf::new();
        assert!(shelf.insert(KEY, 1));
        assert!(shelf.insert(NEIGHBOUR, 2));
        let others = start([
            shelf.actor(|shelf| {
                assert!(shelf.insert(THIRD, 3));
                assert_eq!(shelf.read(THIRD), Some(3));
            }),
            shelf.actor(|shelf| {
                assert!(shelf.insert(BEHIND, 4));
                assert_eq!(shelf.read(BEHIND), Some(4));
            }),
        ]);
        assert_eq!(shelf.remove(NEIGHBOUR), Some(2));
        assert_eq!(shelf.remove(KEY), Some(1));
        others.join();
        assert_eq!((shelf.read(THIRD), shelf.read(BEHIND)), (Some(3), Some(4)));
        assert_eq!(shelf.end(), [(BEHIND, 4), (THIRD, 3)]);
    };

    /// Two threads clear one run, and a third places a word in it: a number that was put into a
    /// tombstone and taken away stays away.
    table_two_clear_one_run: Explore::AtMost(5) => || {
        let shelf = Shelf::new();
        assert!(shelf.insert(KEY, 1));
        assert!(shelf.insert(NEIGHBOUR, 2));
        let others = start([
            shelf.actor(|shelf| {
                assert!(shelf.insert(THIRD, 3));
                assert_eq!(shelf.read(THIRD), Some(3));
            }),
            shelf.actor(|shelf| assert_eq!(shelf.remove(KEY), Some(1))),
        ]);
        assert_eq!(shelf.remove(NEIGHBOUR), Some(2));
        others.join();
        assert_eq!(shelf.read(THIRD), Some(3));
        assert_eq!(shelf.end(), [(THIRD, 3)]);
    };

    /// L16: a key is removed while another thread's insert moves the words. It is gone, and stays
    /// so: no slow helper copies it again.
    table_l16_removed_while_words_move: Explore::AtMost(3) => || {
        let shelf = Shelf::new();
        assert!(shelf.insert(KEY, 1));
        shelf.use_up(1);
        let others = start([shelf.actor(|shelf| {
            assert!(shelf.insert(NEIGHBOUR, 2));
            assert_eq!(shelf.read(NEIGHBOUR), Some(2));
        })]);
        assert_eq!(shelf.remove(KEY), Some(1));
        assert_eq!(shelf.read(KEY), None);
        others.join();
        assert_eq!(shelf.read(KEY), None);
        assert_eq!(shelf.end(), [(NEIGHBOUR, 2)]);
    };

    /// L16: two removers of two keys whose words stand side by side help each other to move them.
    table_l16_two_removed_while_words_move: Explore::AtMost(3) => || {
        let shelf = growing();
        let others = start([shelf.actor(|shelf| {
            assert_eq!(shelf.remove(KEY), Some(1));
            assert_eq!(shelf.read(KEY), None);
        })]);
        assert_eq!(shelf.remove(NEIGHBOUR), Some(2));
        assert_eq!(shelf.read(NEIGHBOUR), None);
        others.join();
        assert_eq!((shelf.read(KEY), shelf.read(NEIGHBOUR)), (None, None));
        assert_eq!(shelf.end(), [(FAR, 3)]);
    };

    /// L16: a key's `Hash` answers otherwise while its word moves, so that a thread finds its copy
    /// that has not moved the word itself. The object that it takes out is not copied a second
    /// time.
    table_l16_a_key_that_lies_is_removed_while_words_move: Explore::AtMost(3) => || {
        let shelf = growing();
        shelf.hashes.key_lies.set(true);
        let others = start([shelf.actor(|shelf| assert_eq!(shelf.remove(NEIGHBOUR), Some(2)))]);
        let taken = shelf.remove_by(hash(ASTRAY), KEY);
        others.join();
        // An object that has come back is freed by now; the checker fails before `end` frees it
        // again.
        shelf.scan();
        let left = shelf.end();
        match taken {
            Some(id) => assert_eq!((id, left), (1, vec![(FAR, 3)])),
            None => assert_eq!(left, [(KEY, 1), (FAR, 3)]),
        }
    };

    /// L16: a key is replaced while words move. It is there at every moment, once.
    table_l16_replaced_while_words_move: Explore::All => || {
        let shelf = growing();
        let others = start([
            shelf.actor(|shelf| {
                let first = shelf.read(KEY).expect("always there");
                let second = shelf.read(KEY).expect("always there");
                assert!(first <= second, "{first} {second}");
            }),
        ]);
        assert_eq!(shelf.replace(KEY, 9), Some(1));
        others.join();
        assert_eq!(shelf.end(), [(KEY, 9), (FAR, 3), (NEIGHBOUR, 2)]);
    };

    /// L16: one thread inserts into the old level while another begins to resize it and inserts the
    /// same key: one winner, in one level.
    table_l16_one_winner_over_two_levels: Explore::AtMost(4) => || {
        let shelf = Shelf::new();
        assert!(shelf.insert(KEY, 1));
        assert_eq!(shelf.remove(KEY), Some(1));
        shelf.use_up(1);
        let won = Rc::new(Cell::new(0));
        let count = won.clone();
        let insert = move |shelf: &Shelf, id| {
            if shelf.insert(KEY, id) {
                count.set(count.get() + 1);
            }
            assert!(shelf.read(KEY).is_some());
        };
        let other = insert.clone();
        let others = start([shelf.actor(move |shelf| other(shelf, 2))]);
        assert!(shelf.insert(FAR, 4));
        insert(&shelf, 3);
        others.join();
        assert_eq!(won.get(), 1);
        assert_eq!(shelf.end().len(), 2);
    };

    /// L16: a walk over everything finds an object that is there all the time once, while words
    /// move.
    table_l16_scanned_while_words_move: Explore::AtMost(3) => || {
        let shelf = growing();
        let others = start([shelf.actor(|shelf| {
            let items = shelf.scan();
            assert_eq!(items.iter().filter(|item| item.0 == KEY).count(), 1);
            assert_eq!(items.iter().filter(|item| item.0 == FAR).count(), 1);
        })]);
        assert_eq!(shelf.remove(NEIGHBOUR), Some(2));
        others.join();
        assert_eq!(shelf.end(), [(KEY, 1), (FAR, 3)]);
    };

    /// L16: an eviction takes a word out of either level while another thread moves it. An object
    /// that was taken out is gone; one that was not is there, once.
    table_l16_evicted_while_words_move: Explore::AtMost(3) => || {
        let shelf = growing();
        let taken = Rc::new(Cell::new(0));
        let count = taken.clone();
        let others = start([shelf.actor(move |shelf| {
            // `KEY` in the old level, and the objects that may be there in the new one.
            for at in [8, 16] {
                if let Some(id) = shelf.evict(at) {
                    assert_ne!(id, 4);
                    count.set(count.get() | 1 << id);
                }
            }
        })]);
        assert!(shelf.insert(THIRD, 4));
        assert_eq!(shelf.read(THIRD), Some(4));
        others.join();
        let left = shelf.end();
        for (key, id) in [(KEY, 1), (NEIGHBOUR, 2), (FAR, 3)] {
            let was_taken = taken.get() >> id & 1 == 1;
            assert_eq!(left.contains(&(key, id)), !was_taken, "{left:?}");
        }
        assert!(left.contains(&(THIRD, 4)));
    };

    /// L16 with three: a remover, an inserter and a reader.
    table_l16_insert_remove_read_while_words_move: Explore::AtMost(2) => || {
        let shelf = growing();
        let others = start([
            shelf.actor(|shelf| {
                assert_eq!(shelf.read(NEIGHBOUR), Some(2));
                let first = shelf.read(KEY);
                assert!(first.is_some() || shelf.read(KEY).is_none());
            }),
            shelf.actor(|shelf| assert!(shelf.insert(THIRD, 4))),
        ]);
        assert_eq!(shelf.remove(KEY), Some(1));
        others.join();
        assert_eq!(shelf.read(KEY), None);
        assert_eq!(shelf.end(), [(FAR, 3), (NEIGHBOUR, 2), (THIRD, 4)]);
    };
}

/// A table with two keys at one home and one elsewhere, none of which has been moved yet from a
/// level that is being resized.
fn growing() -> Rc<Shelf> {
    let shelf = Shelf::new();
    assert!(shelf.insert(KEY, 1));
    assert!(shelf.insert(NEIGHBOUR, 2));
    shelf.use_up(2);
    assert!(shelf.insert(FAR, 3));
    shelf
}
