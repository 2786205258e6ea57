//! The tools the tests of tasks share: futures polled by hand, wakers that count, fills that stop
//! where the test tells them to.

use crate::support::common::*;
use atomic_cache::{AtomicCache, Cache, GuardResult, Op};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

/// Counts how often it is woken.
#[derive(Default)]
pub(crate) struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl Bell {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn rung(&self) -> usize {
        self.0.load(SeqCst)
    }
}

/// Polls with a waker that does nothing.
pub(crate) fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls with a waker that rings `bell`.
pub(crate) fn poll_with<F: Future + ?Sized>(
    future: Pin<&mut F>,
    bell: &Arc<impl Wake + Send + Sync + 'static>,
) -> Poll<F::Output> {
    let waker = Waker::from(Arc::clone(bell));
    future.poll(&mut Context::from_waker(&waker))
}

/// Polls as an executor does: again only when it has been woken. `None` if it sleeps.
#[track_caller]
pub(crate) fn run_until_asleep<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Option<F::Output> {
    let bell = Bell::new();
    let mut seen = 0;
    loop {
        if let Poll::Ready(output) = poll_with(future.as_mut(), &bell) {
            return Some(output);
        }
        if bell.rung() == seen {
            return None;
        }
        seen = bell.rung();
        assert!(seen < 10_000, "woken without end");
    }
}

/// A future that is pending until the latch is opened.
#[derive(Clone, Default)]
pub(crate) struct Latch(Arc<Mutex<(bool, Vec<Waker>)>>);

impl Latch {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn open(&self) {
        let mut latch = self.0.lock().expect("nothing panics under it");
        latch.0 = true;
        let wakers = std::mem::take(&mut latch.1);
        drop(latch);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Future for Latch {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut latch = self.0.lock().expect("nothing panics under it");
        if latch.0 {
            return Poll::Ready(());
        }
        // One that goes when it does is not to be dropped under the lock.
        let known = latch.1.iter().any(|waker| waker.will_wake(cx.waker()));
        if !known {
            latch.1.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// Pending so many times, waking itself each time.
pub(crate) async fn yields(times: usize) {
    for _ in 0..times {
        futures_lite::future::yield_now().await;
    }
}

/// A stored fill that waits for `latch` and answers ten times its key; how often it was begun.
pub(crate) fn behind(latch: &Latch) -> (AtomicCache<u64, u64>, Tally) {
    let (latch, begun) = (latch.clone(), Tally::default());
    let count = begun.clone();
    let fill = move |key: u64| {
        count.add();
        let latch = latch.clone();
        async move {
            latch.await;
            key * 10
        }
    };
    (AtomicCache::new_async(fill, None), begun)
}

/// Runs `f` when it is dropped.
pub(crate) struct OnDrop<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

pub(crate) fn one_thread_of_tokio() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime can be built")
}

pub(crate) fn two_threads_of_tokio() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime can be built")
}

pub(crate) type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// How a thread leads a key, and runs `meanwhile`.
pub(crate) fn leads(cache: &Cache<u64, u64>, how: usize, meanwhile: &mut dyn FnMut()) {
    match how {
        0 => drop(cache.get_with(&1, || {
            meanwhile();
            1
        })),
        1 => {
            let GuardResult::Guard(guard) = cache.get_value_or_guard(&1, None) else {
                panic!("it is not there");
            };
            meanwhile();
            guard.insert(1);
        }
        2 => {
            let op = |_: Option<&u64>| {
                meanwhile();
                Op::Put(1)
            };
            cache.entry(1).and_compute_with(op);
        }
        // By a fill that is a future.
        _ => {
            let fill = || {
                meanwhile();
                async { 1 }
            };
            run_until_asleep(pin!(cache.get_with_async(&1, fill))).expect("waits for nothing");
        }
    }
}

/// Of a future that is dropped by its caller after so many polls, as a timeout does it.
pub(crate) fn drop_after(polls: usize, future: impl Future) {
    let mut future = Box::pin(future);
    for _ in 0..polls {
        assert!(poll(future.as_mut()).is_pending());
    }
    drop(future);
}
