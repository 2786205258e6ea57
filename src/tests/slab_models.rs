//! The slab and its turnstiles: no cell holds two nodes at once, and none is lost.

use super::harness::{Actor, Explore, models, start};
use crate::slab::pooled::Slab;
use crate::sync::UnsafeCell;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// A node; its holder writes to it. loom reports another thread that has it, or had it with no
/// order between.
struct Node(UnsafeCell<u64>);

struct World {
    slab: Slab<Node>,
    /// The cells in use. (loom runs all threads on one, and switches only in its own operations.)
    held: RefCell<BTreeSet<usize>>,
}

impl World {
    fn new() -> Rc<Self> {
        Rc::new(Self {
            slab: Slab::new(),
            held: RefCell::default(),
        })
    }

    fn make(&self) -> *mut Node {
        let node = self.slab.make(Node(UnsafeCell::new(0)));
        assert!(self.held.borrow_mut().insert(node.addr()), "a cell of two");
        // SAFETY: this thread made the node and has not given it back; loom checks that no other
        // has it.
        unsafe { (*node).0.with_mut(|n| *n += 1) };
        node
    }

    fn give_back(&self, node: *mut Node) {
        assert!(self.held.borrow_mut().remove(&node.addr()));
        // SAFETY: from `make`, given back once.
        unsafe {
            node.drop_in_place();
            self.slab.give_back(node);
        }
    }

    fn actor(self: &Rc<Self>, act: impl FnOnce(&Self) + 'static) -> Actor {
        let world = self.clone();
        Box::new(move || act(&world))
    }
}

models! {
    /// Two threads make, give back, and make again.
    slab_no_cell_is_of_two: Explore::AtMost(2) => || {
        let world = World::new();
        let act = |world: &World| {
            let node = world.make();
            world.give_back(node);
            let (one, other) = (world.make(), world.make());
            world.give_back(other);
            world.give_back(one);
        };
        let others = start([world.actor(act)]);
        act(&world);
        others.join();
        assert!(world.held.borrow().is_empty());
    };

    /// Cells that other threads give back are used again before there is a new chunk.
    slab_what_is_given_back_is_used_again: Explore::AtMost(3) => || {
        let world = World::new();
        let nodes: Vec<_> = (0..3).map(|_| world.make()).collect();
        let known: BTreeSet<_> = nodes.iter().map(|node| node.addr()).collect();
        let mut nodes = nodes.into_iter().map(|node| node.expose_provenance());
        let mut giver = || {
            let node = nodes.next().expect("there are three");
            world.actor(move |world| world.give_back(std::ptr::with_exposed_provenance_mut(node)))
        };
        let others = start([giver(), giver()]);
        world.give_back(std::ptr::with_exposed_provenance_mut(nodes.next().expect("the last")));
        others.join();
        // One dealt cell is left besides those that were given back.
        let again: Vec<_> = (0..4).map(|_| world.make()).collect();
        assert_eq!(again.iter().filter(|node| known.contains(&node.addr())).count(), 3);
        again.into_iter().for_each(|node| world.give_back(node));
    };

    /// Two threads need a new chunk at once: each of its cells is dealt once.
    slab_a_new_chunk_by_two: Explore::AtMost(2) => || {
        let world = World::new();
        let act = |world: &World| {
            let nodes: Vec<_> = (0..3).map(|_| world.make()).collect();
            nodes.into_iter().for_each(|node| world.give_back(node));
        };
        let others = start([world.actor(act)]);
        act(&world);
        others.join();
    };
}
