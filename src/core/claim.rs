//! The claim of a key: the key, and the node to put in for it.

use super::{Core, Node};
use crate::reclaim::Pin;
use crate::slot::Slot;
use crate::table::Key;
use std::hash::{BuildHasher, Hash};

/// A key that a caller looks for. It is made only when a slot is.
pub(crate) trait Wanted<K> {
    fn is(&self, key: &K) -> bool;
    fn make(&mut self) -> K;
}

/// A node that is not in the table; kept from step to step so that the key is made once. A node that is not used is
/// retired, because other threads may have seen it in passing.
pub(crate) struct Spare<'c, K: Hash + Eq, V, S: BuildHasher> {
    core: &'c Core<K, V, S>,
    /// The number of the thread or fill that is going to fill it.
    pub(super) actor: u64,
    /// The fill is a compute.
    pub(super) computes: bool,
    pub(super) node: *mut Node<K, V>,
}

impl<'c, K: Hash + Eq, V, S: BuildHasher> Spare<'c, K, V, S> {
    /// No node yet; `actor` is going to fill it.
    pub(crate) fn none(core: &'c Core<K, V, S>, actor: u64) -> Self {
        Self {
            core,
            actor,
            computes: false,
            node: std::ptr::null_mut(),
        }
    }

    pub(super) fn with(core: &'c Core<K, V, S>, actor: u64, key: K, slot: Slot<V>) -> Self {
        Self {
            core,
            actor,
            computes: false,
            node: core.slab.make(Node { key, slot }),
        }
    }

    /// Returns the number of the thread or fill that is going to fill it.
    pub(crate) fn actor(&self) -> u64 {
        self.actor
    }

    /// Sets the number of the fill that is going to fill it, unless one is set.
    pub(crate) fn for_actor(&mut self, actor: u64) {
        if self.actor == 0 {
            self.actor = actor;
        }
    }

    /// A node for an owned key, and the key as a [`Wanted`].
    pub(crate) fn holding(core: &'c Core<K, V, S>, actor: u64, key: K) -> (Self, Held<K>) {
        let spare = Self::with(core, actor, key, Slot::filling(actor));
        // SAFETY: the node was made just now.
        let key = unsafe { std::ptr::addr_of!((*spare.node).key) };
        (spare, Held { key })
    }

    /// Returns the node, made if there is none. It is for a first fill, or for the successor of a value that weighs
    /// `parked`.
    pub(super) fn filling(
        &mut self,
        wanted: &mut dyn Wanted<K>,
        parked: Option<u64>,
    ) -> *const Node<K, V> {
        if self.node.is_null() {
            let (key, slot) = (wanted.make(), Slot::filling(self.actor));
            self.node = self.core.slab.make(Node { key, slot });
        }
        // SAFETY: the node comes from the slab, and is ours until `used`.
        let slot = unsafe { &(*self.node).slot };
        slot.prepare(self.actor, parked, self.core.begins(), self.computes);
        self.node
    }

    /// Forgets the node, which is in the table.
    pub(super) fn used(&mut self) {
        self.node = std::ptr::null_mut();
    }
}

// SAFETY: it owns a node that no other thread changes. Keys and values go to any thread (`Send`), and other threads
// may look at the key in passing (`Sync`).
unsafe impl<K, V, S> Send for Spare<'_, K, V, S>
where
    K: Hash + Eq + Send + Sync,
    V: Send + Sync,
    S: BuildHasher + Send + Sync,
{
}

/// The claim of [`Core::turn`]: a wanted key, with the spare node to put in for it.
pub(super) struct Claimed<'a, 'c, K: Hash + Eq, V, S: BuildHasher> {
    pub(super) hash: u64,
    /// The policy's answer, asked for once.
    pub(super) mark: Option<u8>,
    pub(super) wanted: &'a mut dyn Wanted<K>,
    pub(super) spare: &'a mut Spare<'c, K, V, S>,
    pub(super) pin: &'a Pin,
}

impl<K: Hash + Eq, V, S: BuildHasher> Key<Node<K, V>> for Claimed<'_, '_, K, V, S> {
    fn is(&self, node: &Node<K, V>) -> bool {
        self.wanted.is(&node.key)
    }

    fn object(&mut self) -> *const Node<K, V> {
        self.spare.filling(self.wanted, None)
    }

    fn mark(&mut self) -> u8 {
        let core = self.spare.core;
        *self
            .mark
            .get_or_insert_with(|| core.newcomer(self.hash, self.pin))
    }
}

/// The claim of [`Core::insert`]: a node that is ready.
pub(super) struct Ready<'a, K, V, S> {
    pub(super) core: &'a Core<K, V, S>,
    pub(super) hash: u64,
    pub(super) mark: Option<u8>,
    pub(super) node: &'a Node<K, V>,
    pub(super) pin: &'a Pin,
}

impl<K: Hash + Eq, V, S: BuildHasher> Key<Node<K, V>> for Ready<'_, K, V, S> {
    fn is(&self, node: &Node<K, V>) -> bool {
        self.node.key == node.key
    }

    fn object(&mut self) -> *const Node<K, V> {
        self.node
    }

    fn mark(&mut self) -> u8 {
        *self
            .mark
            .get_or_insert_with(|| self.core.newcomer(self.hash, self.pin))
    }
}

/// The key inside a spare node. Compared only in [`Core::turn`] with that spare, before the spare is used.
pub(crate) struct Held<K> {
    key: *const K,
}

// SAFETY: it reads the key inside the node of a `Spare`, which moves together with it.
unsafe impl<K: Send + Sync> Send for Held<K> {}

impl<K: Eq> Wanted<K> for Held<K> {
    fn is(&self, key: &K) -> bool {
        // SAFETY: `turn` compares while the spare node is not in use, so the node exists.
        unsafe { &*self.key == key }
    }

    fn make(&mut self) -> K {
        unreachable!("the spare node holds the key")
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Drop for Spare<'_, K, V, S> {
    fn drop(&mut self) {
        if !self.node.is_null() {
            self.core.retire(self.node);
        }
    }
}
