//! Eviction order: which entries are hot and which are cold, and how users change that.

use super::Core;
use crate::policy::Mark;
use crate::reclaim::pin;
use equivalent::Equivalent;
use std::hash::{BuildHasher, Hash};

/// The items of the lowest ranks: at most `limit` of all that are pushed.
struct Lowest<T> {
    limit: usize,
    found: Vec<(u8, T)>,
    /// An item that is not below this is not one of them.
    below: u8,
}

impl<T> Lowest<T> {
    fn new(limit: usize) -> Self {
        let below = if limit == 0 { 0 } else { u8::MAX };
        let found = Vec::new();
        Self {
            limit,
            found,
            below,
        }
    }

    fn wants(&self, rank: u8) -> bool {
        rank < self.below
    }

    fn push(&mut self, rank: u8, item: T) {
        self.found.push((rank, item));
        if self.found.len() >= self.limit.saturating_mul(2) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.found.sort_by_key(|found| found.0);
        self.found.truncate(self.limit);
        if let Some(last) = self.found.last().filter(|_| self.found.len() == self.limit) {
            self.below = last.0;
        }
    }

    /// Returns the items, the lowest first.
    fn into_items(mut self) -> Vec<T> {
        self.cut();
        self.found.into_iter().map(|found| found.1).collect()
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Core<K, V, S> {
    /// Changes the mark of a live entry; returns false if there is none.
    fn mark<Q>(&self, hash: u64, key: &Q, change: impl Fn(Mark) -> Mark) -> bool
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        let pin = pin();
        while let Some(spot) = self.find(hash, &pin, &|other| key.equivalent(other)) {
            if self.serves(spot.object()).is_none() {
                return false;
            }
            let mark = Mark(spot.mark());
            if change(mark) == mark || self.table.remark(&spot, change(mark).0) {
                return true;
            }
        }
        false
    }

    /// Makes an entry the last to go.
    pub(crate) fn promote<Q>(&self, hash: u64, key: &Q) -> bool
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        self.mark(hash, key, Mark::promoted)
    }

    /// Makes an entry the first to go.
    pub(crate) fn demote<Q>(&self, hash: u64, key: &Q) -> bool
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        let marked = self.mark(hash, key, Mark::demoted);
        if let Some(room) = self.room.as_ref().filter(|_| marked) {
            room.demoted.push(hash);
            // The hashes of entries that were used or removed since are still there. When there are
            // more hashes than there can be entries for, the oldest are forgotten.
            while room.demoted.len() > 2 * self.len() + 64 && room.demoted.pop().is_some() {}
        }
        marked
    }

    /// Returns the entries that go last, or first, in that order: at most `limit`.
    pub(crate) fn by_heat(&self, limit: usize, hottest: bool) -> Vec<(K, V)>
    where
        K: Clone,
        V: Clone,
    {
        let mut lowest = Lowest::new(limit);
        self.each_node(
            |spot, _| {
                let node = spot.object();
                let Some(value) = self.serves(node) else {
                    return;
                };
                let heat = Mark(spot.mark()).heat();
                let rank = if hottest { u8::MAX - 1 - heat } else { heat };
                if lowest.wants(rank) {
                    lowest.push(rank, (node.key.clone(), value.clone()));
                }
            },
            || {},
        );
        lowest.into_items()
    }
}
