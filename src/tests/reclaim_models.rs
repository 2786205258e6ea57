//! L17: our own engine, in which a pin is a plain store.
//!
//! The object is a cell of loom's. The thread that "frees" it writes to it. loom reports every
//! thread that reads it at the same time, or without an order between.

use super::harness::{Actor, Explore, models, start};
use crate::reclaim::asymmetric::{Epochs, Place};
use crate::sync::{AtomicU64, AtomicUsize, Ordering, UnsafeCell, barrier};
use std::rc::Rc;

const ALIVE: u64 = 7;
const FREED: u64 = 0;

/// Two objects, and a link to one of them.
struct World {
    epochs: Epochs,
    link: AtomicUsize,
    objects: [UnsafeCell<u64>; 2],
    /// The stamp of the grace of object 0, once that is unlinked.
    stamp: AtomicU64,
}

impl World {
    fn new() -> Rc<Self> {
        Rc::new(Self {
            epochs: Epochs::new(),
            link: AtomicUsize::new(0),
            objects: [UnsafeCell::new(ALIVE), UnsafeCell::new(ALIVE)],
            stamp: AtomicU64::new(u64::MAX),
        })
    }

    /// Follows the link under one pin.
    fn read(&self, place: &Place) {
        let _pin = self.epochs.pin(place);
        let linked = self.link.load(Ordering::Acquire);
        self.objects[linked].with(|object| {
            // SAFETY: loom has checked that no thread writes.
            assert_eq!(unsafe { *object }, ALIVE, "freed under a pin");
        });
    }

    /// Follows the link under a brief pin, as [`read`](Self::read) does under a counted one.
    fn read_briefly(&self, place: &Place) {
        let _pin = self.epochs.pin_briefly(place).expect("nothing is pinned");
        self.read(place);
        let linked = self.link.load(Ordering::Acquire);
        // SAFETY: loom has checked that no thread writes.
        self.objects[linked].with(|object| assert_eq!(unsafe { *object }, ALIVE));
    }

    /// Unlinks object 0, and begins its grace.
    fn unlink(&self) -> u64 {
        self.link.swap(1, Ordering::AcqRel);
        let stamp = self.epochs.begin();
        // Relaxed, or this would make the order that the engine has to make.
        self.stamp.store(stamp, Ordering::Relaxed);
        stamp
    }

    /// Frees object 0 if its grace is over.
    fn free(&self, stamp: u64) -> bool {
        let over = self.epochs.is_over(stamp);
        if over {
            // SAFETY: loom has checked that no other thread has access.
            self.objects[0].with_mut(|object| unsafe { *object = FREED });
        }
        over
    }

    fn actor(self: &Rc<Self>, act: impl FnOnce(&Self) + 'static) -> Actor {
        let world = self.clone();
        Box::new(move || act(&world))
    }

    /// A thread that has a place of its own, and reads so many times.
    fn reader(self: &Rc<Self>, times: usize) -> Actor {
        self.actor(move |world| {
            let place = world.epochs.take(0);
            (0..times).for_each(|_| world.read(place));
        })
    }
}

models! {
    /// L17: a reader that pins twice beside a thread that unlinks and frees. At rest it is freed.
    l17_nothing_is_freed_under_a_pin: Explore::All => || {
        let world = World::new();
        let others = start([world.reader(2)]);
        let stamp = world.unlink();
        world.epochs.advance();
        let freed = world.free(stamp);
        others.join();
        if !freed {
            world.epochs.advance();
            assert!(world.free(stamp), "nobody is pinned");
        }
    };

    /// L17 with two readers.
    l17_nothing_is_freed_under_two_pins: Explore::AtMost(3) => || {
        let world = World::new();
        let others = start([world.reader(1), world.reader(1)]);
        let stamp = world.unlink();
        world.epochs.advance();
        world.free(stamp);
        others.join();
    };

    /// L17: a reader, a thread that unlinks, and a collector, which ends graces and frees objects
    /// that other threads have unlinked.
    l17_a_grace_is_ended_by_another: Explore::AtMost(3) => || {
        let world = World::new();
        let unlinks = world.actor(|world| {
            world.unlink();
        });
        let others = start([world.reader(1), unlinks]);
        world.epochs.advance();
        let stamp = world.stamp.load(Ordering::Relaxed);
        world.free(stamp);
        others.join();
    };

    /// L17: a pin inside a pin; the outer one protects its object, whichever is dropped first.
    l17_a_pin_inside_a_pin: Explore::All => || {
        let world = World::new();
        let reader = world.actor(|world| {
            let place = world.epochs.take(0);
            let outer = world.epochs.pin(place);
            world.read(place);
            let inner = world.epochs.pin(place);
            drop(outer);
            let linked = world.link.load(Ordering::Acquire);
            // SAFETY: loom has checked that no thread writes.
            world.objects[linked].with(|object| assert_eq!(unsafe { *object }, ALIVE));
            drop(inner);
        });
        let others = start([reader]);
        let stamp = world.unlink();
        world.epochs.advance();
        world.free(stamp);
        others.join();
    };

    /// L17: a brief pin, with a counted one inside.
    l17_a_pin_inside_a_brief_pin: Explore::All => || {
        let world = World::new();
        let reader = world.actor(|world| world.read_briefly(world.epochs.take(0)));
        let others = start([reader]);
        let stamp = world.unlink();
        world.epochs.advance();
        world.free(stamp);
        others.join();
    };

    /// L17: a counted pin that was taken inside a brief one, and outlives it.
    l17_a_pin_outlives_the_brief_one_around_it: Explore::All => || {
        let world = World::new();
        let reader = world.actor(|world| {
            let place = world.epochs.take(0);
            let brief = world.epochs.pin_briefly(place);
            let inner = world.epochs.pin(place);
            assert!(world.epochs.pin_briefly(place).is_none());
            drop(brief);
            let linked = world.link.load(Ordering::Acquire);
            // SAFETY: loom has checked that no thread writes.
            world.objects[linked].with(|object| assert_eq!(unsafe { *object }, ALIVE));
            drop(inner);
            assert!(world.epochs.pin_briefly(place).is_some(), "all is let go of");
        });
        let others = start([reader]);
        let stamp = world.unlink();
        world.epochs.advance();
        world.free(stamp);
        others.join();
    };

    /// L17: the heavy barrier is refused, and a reader goes over to full fences: nothing is freed
    /// before it has, nor under a pin after that.
    l17_all_go_over_to_fences: Explore::AtMost(3) => || {
        barrier::refuse(true);
        let world = World::new();
        let others = start([world.reader(2)]);
        let stamp = world.unlink();
        world.epochs.advance();
        world.epochs.advance();
        world.free(stamp);
        others.join();
        barrier::refuse(false);
    };

    /// L17: the same of a thread that has gone over before the unlink, and reads, and reads again.
    l17_who_has_gone_over_is_looked_at: Explore::AtMost(3) => || {
        barrier::refuse(true);
        let world = World::new();
        let place = world.epochs.take(0);
        world.epochs.advance();
        // (On a thread of its own, which has the place from now on.)
        let place = std::ptr::from_ref(place).expose_provenance();
        let reader = world.actor(move |world| {
            // SAFETY: the place belongs to `world`, which outlives the thread, and no other thread
            // uses it.
            let place: &Place = unsafe { &*std::ptr::with_exposed_provenance(place) };
            world.read(place);
            assert!(world.epochs.pin_briefly(place).is_none(), "it has gone over");
            world.read(place);
        });
        let others = start([reader]);
        let stamp = world.unlink();
        world.epochs.advance();
        let freed = world.free(stamp);
        others.join();
        if !freed {
            world.epochs.advance();
            assert!(world.free(stamp), "all have gone over, and nobody is pinned");
        }
        barrier::refuse(false);
    };

    /// L17: a thread takes a place while all go over.
    l17_who_takes_a_place_goes_over: Explore::AtMost(3) => || {
        barrier::refuse(true);
        let world = World::new();
        let others = start([world.reader(1)]);
        let stamp = world.unlink();
        world.epochs.advance();
        world.free(stamp);
        others.join();
        barrier::refuse(false);
    };

    /// L17: a thread gives its place back with its last pin, and another thread takes it.
    l17_a_place_is_handed_on: Explore::AtMost(3) => || {
        let world = World::new();
        let late = |world: &World| {
            let place = world.epochs.take(Place::LATE);
            world.read(place);
        };
        let others = start([world.actor(late), world.actor(late)]);
        let stamp = world.unlink();
        world.epochs.advance();
        world.free(stamp);
        others.join();
    };
}
