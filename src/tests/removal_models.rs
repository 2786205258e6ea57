//! Clause 2: computes and removals of one key. Each is one before the other: a removal returns the
//! value that it took out, and no update is lost.

use super::harness::{Actor, Explore, TestCache, Token, builder, cache, models, start};
use crate::blocking::verbs::REFRESH;
use crate::core::Aim;
use crate::{CompResult, Op, RemovalCause};
use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Waker};

fn key() -> Token {
    Token::new(1)
}

fn actor(cache: &TestCache, act: impl FnOnce(&TestCache) + 'static) -> Actor {
    let cache = cache.clone();
    Box::new(move || act(&cache))
}

fn holding_five() -> TestCache {
    let cache = cache();
    cache.insert(key(), Token::new(5));
    cache
}

/// The action of a compute: adds ten, removes, or leaves the value it reads.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    Adds,
    Removes,
    Leaves,
}

/// Computes once. Returns the amount added, the amount taken out, and whether it was superseded.
fn compute(cache: &TestCache, does: Does) -> (u64, u64, bool) {
    let entry = cache.entry(key());
    let result = entry.and_compute_with(|seen| match does {
        Does::Adds => Op::Put(Token::new(seen.map_or(0, Token::number) + 10)),
        Does::Removes => Op::Remove,
        Does::Leaves => Op::Nop,
    });
    match result {
        CompResult::Inserted(_) | CompResult::ReplacedWith(_) => (10, 0, false),
        CompResult::Removed(value) => (0, value.number(), false),
        CompResult::Unchanged(_) | CompResult::StillNone => (0, 0, false),
        CompResult::Superseded(_) => (0, 0, true),
    }
}

fn number(value: Option<Token>) -> u64 {
    value.map_or(0, |value| value.number())
}

/// A thread that removes, and adds the removed value to `taken`.
fn removes(
    cache: &TestCache,
    taken: &Rc<Cell<u64>>,
    remove: impl FnOnce(&TestCache) -> Option<Token> + 'static,
) -> Actor {
    let taken = taken.clone();
    actor(cache, move |cache| {
        let ours = number(remove(cache));
        taken.set(taken.get() + ours);
    })
}

/// Of five and the amount `added`, all has been taken out or is there.
fn assert_sum(cache: &TestCache, added: u64, taken: u64) {
    let left = cache.peek(&key());
    assert_eq!(cache.len(), usize::from(left.is_some()));
    assert_eq!(number(left) + taken, 5 + added);
    cache.remove(&key());
    assert_eq!((cache.len(), cache.retired()), (0, 0));
}

/// A compute beside one removal, and a listener, which in the end has heard of each removed value
/// once.
fn heard_beside(does: Does, remove: impl FnOnce(&TestCache) -> Option<Token> + 'static) {
    let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let notes = heard.clone();
    let listens = move |_: &Token, value: &Token, cause: RemovalCause| {
        notes.lock().unwrap().push((value.number(), cause));
    };
    let cache = builder().eviction_listener(listens).build().unwrap();
    cache.insert(key(), Token::new(5));
    let taken = Rc::new(Cell::new(0));
    let others = start([removes(&cache, &taken, remove)]);
    let (added, removed, _) = compute(&cache, does);
    others.join();
    cache.run_pending_tasks();
    let left = number(cache.peek(&key()));
    assert_eq!(left + removed + taken.get(), 5 + added);
    let mut heard = std::mem::take(&mut *heard.lock().unwrap());
    heard.retain(|&(_, cause)| cause != RemovalCause::Replaced);
    let gone: u64 = heard.iter().map(|&(value, _)| value).sum();
    assert_eq!(gone, removed + taken.get(), "{heard:?}");
    drop(cache);
}

/// A compute beside one removal.
fn beside(
    does: Does,
    remove: impl FnOnce(&TestCache) -> Option<Token> + 'static,
    supersedes: bool,
) {
    let cache = holding_five();
    let taken = Rc::new(Cell::new(0));
    let others = start([removes(&cache, &taken, remove)]);
    let (added, removed, superseded) = compute(&cache, does);
    others.join();
    assert!(supersedes || !superseded);
    assert!(!superseded || taken.get() == 5);
    assert_sum(&cache, added, removed + taken.get());
}

models! {
    compute_puts_beside_remove: Explore::AtMost(4) => || {
        beside(Does::Adds, |cache| cache.remove(&key()), false);
    };

    compute_leaves_beside_remove: Explore::AtMost(4) => || {
        beside(Does::Leaves, |cache| cache.remove(&key()), false);
    };

    compute_removes_beside_remove: Explore::AtMost(4) => || {
        beside(Does::Removes, |cache| cache.remove(&key()), false);
    };

    compute_puts_beside_remove_nowait: Explore::AtMost(4) => || {
        beside(Does::Adds, |cache| cache.remove_nowait(&key()), true);
    };

    compute_removes_beside_remove_nowait: Explore::AtMost(4) => || {
        beside(Does::Removes, |cache| cache.remove_nowait(&key()), true);
    };

    compute_leaves_beside_remove_nowait: Explore::AtMost(4) => || {
        beside(Does::Leaves, |cache| cache.remove_nowait(&key()), true);
    };

    listener_beside_a_compute_and_remove: Explore::Long(2) => || {
        for does in [Does::Adds, Does::Leaves, Does::Removes] {
            heard_beside(does, |cache| cache.remove(&key()));
        }
    };

    listener_beside_a_compute_and_remove_nowait: Explore::AtMost(2) => || {
        for does in [Does::Adds, Does::Leaves, Does::Removes] {
            heard_beside(does, |cache| cache.remove_nowait(&key()));
        }
    };

    /// The walk over all keys takes the same way.
    compute_beside_clear: Explore::AtMost(3) => || {
        let cache = holding_five();
        let others = start([actor(&cache, TestCache::clear)]);
        let (added, ..) = compute(&cache, Does::Adds);
        others.join();
        assert_eq!(added, 10);
        // Clear came first, and the compute began with no value; or clear has waited.
        let left = number(cache.peek(&key()));
        assert!(left == 0 || left == 10, "{left}");
        assert_eq!(cache.len(), usize::from(left != 0));
        cache.remove(&key());
        assert_eq!(cache.retired(), 0);
    };

    /// Two removals wait for a compute: one of them gets the value that it leaves.
    two_removals_beside_a_compute: Explore::Long(2) => || {
        let cache = holding_five();
        let taken = Rc::new(Cell::new(0));
        let remove = |cache: &TestCache| cache.remove(&key());
        let others = start([removes(&cache, &taken, remove), removes(&cache, &taken, remove)]);
        let (added, ..) = compute(&cache, Does::Adds);
        others.join();
        assert_sum(&cache, added, taken.get());
    };

    /// ... and if the compute puts nothing in, the current value.
    two_removals_beside_a_compute_that_leaves: Explore::Long(2) => || {
        let cache = holding_five();
        let taken = Rc::new(Cell::new(0));
        let remove = |cache: &TestCache| cache.remove(&key());
        let others = start([removes(&cache, &taken, remove), removes(&cache, &taken, remove)]);
        compute(&cache, Does::Leaves);
        others.join();
        assert_sum(&cache, 0, taken.get());
    };

    /// One that waits, and one that does not.
    remove_and_remove_nowait_beside_a_compute: Explore::AtMost(2) => || {
        let cache = holding_five();
        let taken = Rc::new(Cell::new(0));
        let others = start([
            removes(&cache, &taken, |cache| cache.remove(&key())),
            removes(&cache, &taken, |cache| cache.remove_nowait(&key())),
        ]);
        let (added, ..) = compute(&cache, Does::Adds);
        others.join();
        assert_sum(&cache, added, taken.get());
    };

    /// A task removes, and is dropped while it waits, beside the end of the compute: the removed
    /// value is gone completely.
    a_removal_is_dropped_beside_the_end_of_a_compute: Explore::AtMost(3) => || {
        for does in [Does::Adds, Does::Leaves] {
            let cache = holding_five();
            let others = start([actor(&cache, move |cache| _ = compute(cache, does))]);
            {
                let one = key();
                let mut removal = pin!(cache.remove_async(&one));
                _ = removal.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            }
            others.join();
            let left = number(cache.peek(&key()));
            // A later compute has made ten from no value.
            assert!(left == 0 || left == 10 && does == Does::Adds, "{left}");
            assert_eq!(cache.len(), usize::from(left != 0));
            cache.remove(&key());
            assert_eq!((cache.len(), cache.retired()), (0, 0));
        }
    };

    /// An insert over a compute that a removal waits for: the removal is first, or it has the newer value.
    insert_over_a_compute_that_a_removal_waits_for: Explore::Long(2) => || {
        let cache = holding_five();
        let taken = Rc::new(Cell::new(0));
        let others = start([
            removes(&cache, &taken, |cache| cache.remove(&key())),
            actor(&cache, |cache| cache.insert(key(), Token::new(100))),
        ]);
        let (_, _, superseded) = compute(&cache, Does::Leaves);
        others.join();
        assert!(!superseded, "it leaves everything as it is");
        let left = number(cache.peek(&key()));
        // All orders: the removal gets five, or the inserted value, or comes between.
        assert!([(5, 100), (100, 0)].contains(&(taken.get(), left)), "{} {left}", taken.get());
        assert_eq!(cache.len(), usize::from(left != 0));
        cache.remove(&key());
        assert_eq!((cache.len(), cache.retired()), (0, 0));
    };

    /// The same, of a compute that puts in.
    insert_over_a_compute_that_puts_beside_a_removal: Explore::AtMost(2) => || {
        let cache = holding_five();
        let taken = Rc::new(Cell::new(0));
        let others = start([
            removes(&cache, &taken, |cache| cache.remove(&key())),
            actor(&cache, |cache| cache.insert(key(), Token::new(100))),
        ]);
        let (_, _, superseded) = compute(&cache, Does::Adds);
        others.join();
        let left = number(cache.peek(&key()));
        let seen = (taken.get(), left);
        // The removal has taken out the first value, or the result of a compute on that or on the
        // inserted value, or the inserted value; the value that is left came after it.
        let orders: &[(u64, u64)] = if superseded {
            &[(5, 100)]
        } else {
            &[(5, 100), (5, 110), (15, 100), (100, 0), (100, 10), (110, 0)]
        };
        assert!(orders.contains(&seen), "{seen:?} {superseded}");
        cache.remove(&key());
        assert_eq!((cache.len(), cache.retired()), (0, 0));
    };

    /// A takeover abandons the compute that a removal waits for.
    takeover_of_a_compute_that_a_removal_waits_for: Explore::AtMost(2) => || {
        let cache = holding_five();
        let taken = Rc::new(Cell::new(0));
        let others = start([
            removes(&cache, &taken, |cache| cache.remove(&key())),
            actor(&cache, |cache| _ = cache.takeover(&key())),
        ]);
        let (added, ..) = compute(&cache, Does::Adds);
        others.join();
        assert_sum(&cache, added, taken.get());
    };

    /// A removal that does not wait goes on beside a refresh that publishes, and then gets the
    /// newer value.
    remove_nowait_beside_a_refresh_that_publishes: Explore::AtMost(4) => || {
        let cache = holding_five();
        let taken = Rc::new(Cell::new(0));
        let others = start([removes(&cache, &taken, |cache| cache.remove_nowait(&key()))]);
        let fill = |_: &Token| Ok::<_, ()>(Token::new(6));
        let six = cache.fetch(&key(), Aim::Refresh, fill, Token::number, &REFRESH);
        assert_eq!(six, Ok(6));
        others.join();
        let left = number(cache.peek(&key()));
        assert!([(5, 0), (5, 6), (6, 0)].contains(&(taken.get(), left)), "{} {left}", taken.get());
        assert_eq!(cache.len(), usize::from(left != 0));
        cache.remove(&key());
        assert_eq!((cache.len(), cache.retired()), (0, 0));
    };
}
