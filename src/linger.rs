//! Slots that are out of the table and not yet retired, because waiters of their flight are about
//! to read them: `quiesce` waits for these too.
//!
//! They are counted by generation. Who waits begins a new generation and waits for the count of
//! the old one, to which nothing is added any more but what is being removed at that very moment.

use crate::sync::{AtomicUsize, Ordering, back_off};

/// The lingering slots of one cache.
pub(crate) struct Lingering {
    generation: AtomicUsize,
    counts: [AtomicUsize; 2],
    /// One at a time begins a generation: with two, the count that is waited for would be one
    /// that is added to.
    settling: AtomicUsize,
}

impl Lingering {
    pub(crate) fn new() -> Self {
        Self {
            generation: AtomicUsize::new(0),
            counts: [AtomicUsize::new(0), AtomicUsize::new(0)],
            settling: AtomicUsize::new(0),
        }
    }

    /// A slot is about to linger. The answer is for [`leave`](Self::leave).
    ///
    /// `SeqCst`, with `settle`: if the generation was read before it changed, the count is
    /// waited for, unless it was still zero when it was looked at; then the slot is removed only
    /// after that look, and so is none that was removed before the call.
    pub(crate) fn enter(&self) -> usize {
        let generation = self.generation.load(Ordering::SeqCst) & 1;
        self.counts[generation].fetch_add(1, Ordering::SeqCst);
        generation
    }

    /// It does not linger any more. Release: who sees the count fall has its retire behind it.
    pub(crate) fn leave(&self, generation: usize) {
        self.counts[generation].fetch_sub(1, Ordering::Release);
    }

    /// Waits for whatever lingered at the call to be retired; every so many turns it lends a hand
    /// (`meanwhile`). Those who are waited for have been woken; one of them may wait for another
    /// flight before it reads, so a thread that leads a fill must not call this.
    ///
    /// Two generations: one who read the generation before the last change of it may have added to
    /// the count after that change was waited for. A generation that was begun is waited for to its
    /// end: who began anew each time would be held up for ever by removals that go on.
    pub(crate) fn settle(&self, turns: u32, meanwhile: impl Fn()) {
        for turn in 0.. {
            if self.settling.swap(1, Ordering::SeqCst) == 0 {
                break;
            }
            meanwhile();
            back_off(turn);
        }
        let _settling = Settling(&self.settling);
        for _ in 0..2 {
            let old = self.generation.fetch_add(1, Ordering::SeqCst) & 1;
            let mut turn = 0;
            while self.counts[old].load(Ordering::SeqCst) != 0 {
                if turn == turns {
                    meanwhile();
                    turn = 0;
                }
                back_off(turn);
                turn += 1;
            }
        }
    }
}

struct Settling<'a>(&'a AtomicUsize);

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::SeqCst);
    }
}
