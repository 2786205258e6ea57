//! An exact schedule, set up by foreign code that runs in the middle: a key's `Hash` or `Eq`.

use crate::support::common::*;
use atomic_cache::Cache;
use std::cell::RefCell;
use std::hash::{BuildHasher, Hash, Hasher};
use std::thread;

thread_local! {
    /// The act of this thread when it next hashes, or compares, a [`Hooked`] key that says so.
    pub(crate) static ON_HASH: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    pub(crate) static ON_EQ: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

pub(crate) type Hook = std::thread::LocalKey<RefCell<Option<Box<dyn FnOnce()>>>>;

pub(crate) fn next_time(hook: &'static Hook, act: impl FnOnce() + 'static) {
    hook.with(|next| *next.borrow_mut() = Some(Box::new(act)));
}

pub(crate) fn is_over(hook: &'static Hook) -> bool {
    hook.with(|next| next.borrow().is_none())
}

fn come_by(hook: &'static Hook) {
    let act = hook.with(|next| next.borrow_mut().take());
    if let Some(act) = act {
        act();
    }
}

pub(crate) fn on_another_thread(act: impl FnOnce() + Send + 'static) {
    thread::spawn(act).join().unwrap();
}

/// When this thread next hashes such a key, another abandons the fill of key 1.
pub(crate) fn takeover_on_hash<S: BuildHasher + Send + Sync + 'static>(
    cache: Cache<Hooked, u64, S>,
) {
    next_time(&ON_HASH, move || {
        on_another_thread(move || assert!(cache.takeover(&Hooked(1))));
    });
}

/// A key with an `Eq` that may do anything, and from a thousand on also such a `Hash`.
#[derive(Clone, Debug)]
pub(crate) struct Hooked(pub(crate) u64);

impl Hash for Hooked {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if self.0 >= 1_000 {
            come_by(&ON_HASH);
        }
        state.write_u64(self.0);
    }
}

impl PartialEq for Hooked {
    fn eq(&self, other: &Self) -> bool {
        come_by(&ON_EQ);
        self.0 == other.0
    }
}

impl Eq for Hooked {}

/// All keys have one home, so that they stand in the order in which they came.
#[derive(Clone, Default)]
pub(crate) struct OneHome;

impl BuildHasher for OneHome {
    type Hasher = Home;

    fn build_hasher(&self) -> Home {
        Home
    }
}

pub(crate) struct Home;

impl Hasher for Home {
    fn finish(&self) -> u64 {
        1
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, _: u64) {}
}

/// `act` sets up an act between a look at a fill that hangs and one at the entry after it in the table, and then walks.
pub(crate) fn in_front_of_a_fill_that_hangs(
    act: impl FnOnce(&Cache<Hooked, u64, OneHome>) + Send + 'static,
) {
    let cache: Cache<Hooked, u64, OneHome> = Cache::builder().hasher(OneHome).build().unwrap();
    let held = Held::new();
    let (running, fill) = (cache.clone(), held.clone());
    let hangs = thread::spawn(move || running.get_with(&Hooked(1), || fill.hold(7)));
    held.begun.pass();
    // Comes after the fill in the table: it is hashed after the fill has been seen.
    cache.insert(Hooked(1_000), 1);
    watched_for(A_MOMENT, move || {
        act(&cache);
        assert!(is_over(&ON_HASH));
    });
    held.end.open();
    hangs.join().unwrap();
}
