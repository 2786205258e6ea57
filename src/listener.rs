//! Tells a listener of the entries that were removed.
//!
//! The thread that removes an entry pushes it to a queue, which holds it. A thread tells the
//! listener where it, and its task, hold no pin, no lead and no lock, and where nothing unwinds. (A
//! future that is pending while it leads does not tell: the poll that ends its fill does. The other
//! fills that a task leads, by a future beside this one or by a guard, are not known: there a
//! listener that would have to wait is refused.)
//!
//! One thread at a time tells the listener, so the listener hears of one thread's removals in their
//! order. It also means that a listener which uses the cache is not called inside its own call: its
//! removals are told when it has returned.
//!
//! If that thread does not get on because its listener is slow or blocks, the queue grows. From
//! [`PLENTY`] on, every thread that reaches such a point tells too, so the number of held entries
//! stays bounded. Only then may the order be another.

use crate::foreign::contain;
use crate::sync::{AtomicUsize, Ordering, thread_cell};
use crossbeam_queue::SegQueue;

/// The reason why an entry is not in the cache any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RemovalCause {
    /// Its TTL was over.
    Expired,
    /// It was removed by `invalidate` and its kin, or by a compute that answered
    /// [`Op::Remove`](crate::Op::Remove).
    Explicit,
    /// A newer value of its key took its place.
    Replaced,
    /// It had to make room: the capacity was reached, or made less. Or its newer value was too
    /// heavy to be kept.
    Size,
}

impl RemovalCause {
    /// Returns whether the cache removed it of its own accord: [`Expired`](Self::Expired) or
    /// [`Size`](Self::Size).
    pub const fn was_evicted(self) -> bool {
        matches!(self, Self::Expired | Self::Size)
    }
}

/// A user's listener: user code.
pub(crate) type Listener<K, V> = Box<dyn Fn(&K, &V, RemovalCause) + Send + Sync>;

/// The number of waiting removals from which other threads help to tell of them.
const PLENTY: usize = 1024;

/// The number of removals that one caller tells of at most, beside those that waited when it came,
/// if its listener goes on removing entries.
const TURNS: usize = 4 * PLENTY;

thread_cell! {
    /// This thread is inside a listener, of whichever cache.
    LISTENING: bool = false
}

/// Whether this thread is inside a listener.
pub(crate) fn is_listening() -> bool {
    LISTENING.with(std::cell::Cell::get)
}

/// A listener, and the removals that it has not been told of yet; an `N` holds a key and its value.
pub(crate) struct Bulletin<K, V, N> {
    listener: Listener<K, V>,
    removed: SegQueue<(*const N, RemovalCause)>,
    /// The number of threads that are telling.
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

    /// Enqueues an object, which is held until the listener has been told of it.
    pub(crate) fn post(&self, object: *const N, cause: RemovalCause) {
        self.removed.push((object, cause));
    }

    /// The number of removals that the listener is still to be told of.
    pub(crate) fn len(&self) -> usize {
        self.removed.len()
    }

    pub(crate) fn panics(&self) -> usize {
        self.panics.load(Ordering::Relaxed)
    }

    /// Tells the listener of the waiting removals; `open` looks into an object, `done` releases the
    /// hold on it. To be called with nothing held.
    ///
    /// Returns before the queue is empty if another thread is telling, if this is called from
    /// inside a listener of this cache, or if the listener goes on removing entries.
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
            // Another thread may have come first: then this one is not alone. Or many begin at
            // once.
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

    /// Whether no thread is telling, or so many removals wait that all threads are to help. But a
    /// thread inside a call of a listener begins no other.
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
        // SeqCst, with the read of the queue that follows: pairs with the drop of the thread that
        // told before.
        let others = telling.fetch_add(1, Ordering::SeqCst);
        Self { telling, others }
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        // SeqCst. A thread that posted while we told, and left the entry to us, pushed it before it
        // read this count. We read the queue after this store. So we see the entry, or that thread
        // sees that we have ended.
        self.telling.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Marks that this thread is inside a listener.
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
