//! Parts that all models share.

use super::reclaim_checker;
use crate::builder::Builder;
use crate::cache::Cache;
use crate::sync::UnsafeCell;
use std::cell::Cell;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::time::Instant;

/// How far a model is explored.
#[derive(Clone, Copy)]
pub(super) enum Explore {
    /// Every interleaving.
    All,
    /// Those in which running threads are interrupted at most so many times; or
    /// `LOOM_MAX_PREEMPTIONS` times, if that is set.
    AtMost(usize),
    /// The same, which is more than 700,000 executions. With `LOOM_SHORT`, at the gate, one
    /// interruption fewer.
    Long(usize),
}

/// Runs `model` in every interleaving of its threads, and says how many there were.
pub(super) fn explore(name: &str, explore: Explore, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 20_000;
    builder.preemption_bound = match explore {
        Explore::All => None,
        Explore::AtMost(bound) => builder.preemption_bound.or(Some(bound)),
        Explore::Long(bound) => {
            let fewer = usize::from(std::env::var_os("LOOM_SHORT").is_some());
            builder.preemption_bound.or(Some(bound - fewer))
        }
    };
    let executions = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = executions.clone();
    let start = Instant::now();
    builder.check(move || {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        reclaim_checker::begin();
        ALIVE.set(0);
        model();
        assert_eq!(ALIVE.get(), 0, "keys or values were leaked");
        reclaim_checker::end();
    });
    let executions = executions.load(std::sync::atomic::Ordering::Relaxed);
    let bound = builder
        .preemption_bound
        .map_or("all".to_owned(), |bound| format!("<= {bound} preemptions"));
    let seconds = start.elapsed().as_secs_f64();
    println!("{name}: {executions} executions ({bound}), {seconds:.1} s");
}

/// Declares models: the test's name, how far to explore, and the body.
macro_rules! models {
    ($($(#[$attr:meta])* $name:ident: $explore:expr => $body:expr;)*) => {
        $(
            $(#[$attr])*
            #[test]
            fn $name() {
                crate::tests::harness::explore(stringify!($name), $explore, $body);
            }
        )*
    };
}

pub(super) use models;

/// A thread of a model.
pub(super) type Actor = Box<dyn FnOnce()>;

/// Threads that have been started; joined when it is dropped.
pub(super) struct Others(Vec<loom::thread::JoinHandle<()>>);

/// Starts a thread for each actor. The caller is one more.
pub(super) fn start<const N: usize>(actors: [Actor; N]) -> Others {
    Others(actors.into_iter().map(loom::thread::spawn).collect())
}

impl Others {
    pub(super) fn join(self) {
        for thread in self.0 {
            thread.join().expect("loom has no other answer");
        }
    }
}

/// The runs of the fills of one key. They must come one after the other, and each must see all
/// effects of those before it: loom checks that of the cell.
pub(super) struct Fills(UnsafeCell<u64>);

impl Fills {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self(UnsafeCell::new(0)))
    }

    /// The body of a fill: returns how many there were before.
    pub(super) fn fill(&self) -> u64 {
        self.0.with_mut(|fills| {
            // SAFETY: loom has checked that no other thread has access.
            unsafe {
                *fills += 1;
                *fills - 1
            }
        })
    }

    /// The number of fills; for a thread that comes after all of them.
    pub(super) fn count(&self) -> u64 {
        // SAFETY: loom has checked that no thread writes.
        self.0.with(|fills| unsafe { *fills })
    }
}

thread_local! {
    /// Tokens that live.
    static ALIVE: Cell<isize> = const { Cell::new(0) };
}

/// A key or value that is counted: each is dropped once, and none is left at a model's end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Token(u64, Alive);

#[derive(Debug, PartialEq, Eq)]
struct Alive;

impl Alive {
    fn new() -> Self {
        ALIVE.set(ALIVE.get() + 1);
        Self
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        ALIVE.set(ALIVE.get() - 1);
    }
}

impl Token {
    pub(super) fn new(n: u64) -> Self {
        Self(n, Alive::new())
    }

    pub(super) fn number(&self) -> u64 {
        self.0
    }
}

impl Clone for Token {
    fn clone(&self) -> Self {
        Self::new(self.0)
    }
}

impl std::hash::Hash for Token {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// The last number that was written is the hash.
#[derive(Default)]
pub(super) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are numbers")
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

pub(super) type TestHasher = BuildHasherDefault<Identity>;
pub(super) type TestCache = Cache<Token, Token, TestHasher>;

pub(super) fn builder() -> Builder<Token, Token, TestHasher> {
    Cache::builder().hasher(TestHasher::default())
}

pub(super) fn cache() -> TestCache {
    builder().build().expect("good settings")
}
