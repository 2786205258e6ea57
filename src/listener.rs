//! Telling a listener what was removed.
//!
//! Who takes an entry out puts it on a queue, on which it is held; whoever comes to a point where
//! this thread, and this task, hold nothing - no pin, no lead, no lock - and nothing unwinds tells the listener.
//! (A future that is pending while it leads tells nobody: the poll that ends its fill does. What else a task
//! leads, by a future beside this one or by a guard, is not known: there a listener that would have to wait is refused.) One thread at a
//! time does, so that a listener hears of what one thread has removed in that order, and so
//! that a listener which uses the cache is not called inside its own call: what it removes is
//! told when it has returned.
//!
//! If that one thread does not get on (its listener is slow, or blocks), the queue grows; from
//! [`PLENTY`] on everybody who comes by tells too, and what is held stays bounded. Only then may
//! the order be another.

use crate::foreign::contain;
use crate::sync::{AtomicUsize, Ordering, thread_cell};
use crossbeam_queue::SegQueue;

/// Why an entry is not in the cache any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RemovalCause {
    /// Its time was over.
    Expired,
    /// It was removed by `invalidate` and its kin, or by a compute that answered
    /// [`Op::Remove`](crate::Op::Remove).
    Explicit,
    /// A newer value of its key took its place.
    Replaced,
    /// It had to make room: the capacity was reached, or made less. Or its newer value was too heavy to be kept.
    Size,
}

impl RemovalCause {
    /// Whether the cache removed it of its own accord: [`Expired`](Self::Expired) or
    /// [`Size`](Self::Size).
    pub const fn was_evicted(self) -> bool {
        matches!(self, Self::Expired | Self::Size)
    }
}

/// A user's listener: foreign code.
pub(crate) type Listener<K, V> = Box<dyn Fn(&K, &V, RemovalCause) + Send + Sync>;

/// How many removals wait before others help to tell of them.
const PLENTY: usize = 1024;

/// How many one caller tells of at most besides what waited when it came, if its listener goes on
/// removing things.
const TURNS: usize = 4 * PLENTY;

thread_cell! {
    /// This thread is inside a listener, of whichever cache.
    LISTENING: bool = false
}

/// Whether this thread is inside a listener.
pub(crate) fn is_listening() -> bool {
    LISTENING.with(std::cell::Cell::get)
}

/// A listener, and what it has not been told yet; `N` is what holds a key and its value.
pub(crate) struct Bulletin<K, V, N> {
    listener: Listener<K, V>,
    removed: SegQueue<(*const N, RemovalCause)>,
    /// Threads that are telling.
    telling: AtomicUsize,
    panics: AtomicUsize,
}

impl<K, V, N> Bulletin<K, V, N> {
    pub(crate) fn new(listener: Listener<K, V>) -> Self {
        Self {
            listener,
            removed: SegQueue::new(),
            telling: AtomicUsize::new(0),
            panics: AtomicUsize::new(0),
        }
    }

    /// Takes note of an object that is held until it is told of.
    pub(crate) fn post(&self, object: *const N, cause: RemovalCause) {
        self.removed.push((object, cause));
    }

    /// How many removals wait to be told of.
    pub(crate) fn len(&self) -> usize {
        self.removed.len()
    }

    pub(crate) fn panics(&self) -> usize {
        self.panics.load(Ordering::Relaxed)
    }

    /// Tells the listener what waits, `open` looks into an object, `done` gives its hold up. To be
    /// called with nothing held.
    ///
    /// Returns without having told everything if somebody else is at it, or this is called from
    /// inside a listener of this cache, or the listener goes on removing things.
    pub(crate) fn tell<'a>(
        &self,
        open: impl Fn(*const N) -> (&'a K, &'a V),
        done: impl Fn(*const N),
    ) where
        K: 'a,
        V: 'a,
        N: 'a,
    {
        for _ in 0..TURNS + self.removed.len() {
            if self.removed.is_empty() || !self.may_tell() {
                return;
            }
            let telling = Telling::begin(&self.telling);
            // Another one may have come first; alone, or many at once.
            let alone = telling.others == 0;
            if let Some((object, cause)) = self.take(alone) {
                let (key, value) = open(object);
                let listening = Listening::begin();
                if contain(|| (self.listener)(key, value, cause)) {
                    self.panics.fetch_add(1, Ordering::Relaxed);
                }
                drop(listening);
                done(object);
            }
        }
    }

    fn take(&self, alone: bool) -> Option<(*const N, RemovalCause)> {
        if alone || self.removed.len() > PLENTY {
            return self.removed.pop();
        }
        None
    }

    /// Whether nobody tells, or so much waits that everybody shall help; but nobody inside a call
    /// of a listener begins another.
    fn may_tell(&self) -> bool {
        self.telling.load(Ordering::SeqCst) == 0 || (self.removed.len() > PLENTY && !is_listening())
    }
}

/// Counts a thread that tells.
struct Telling<'a> {
    telling: &'a AtomicUsize,
    others: usize,
}

impl<'a> Telling<'a> {
    fn begin(telling: &'a AtomicUsize) -> Self {
        // SeqCst, with the look at the queue that follows: see the drop of the one who told before.
        let others = telling.fetch_add(1, Ordering::SeqCst);
        Self { telling, others }
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        // Who posted while we told, and left it to us, posted before it looked at this number; we
        // look at the queue after this.
        self.telling.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Says that this thread is inside a listener.
struct Listening {
    before: bool,
}

impl Listening {
    fn begin() -> Self {
        let before = LISTENING.with(|listening| listening.replace(true));
        Self { before }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        LISTENING.with(|listening| listening.set(self.before));
    }
}
