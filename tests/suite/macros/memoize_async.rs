//! `memoize!` of an `async fn`: its differences from the others. The functions that it refuses are
//! in `tests/ui/memoize_async*.rs`.

use crate::support::common::{allocations, panic_text};
use crate::support::task_tools::{Bell, Latch, poll, poll_with};
use atomic_cache::{ManualClock, memoize};
use futures_lite::future::block_on;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::thread;
use std::time::Duration;

/// The future is one that a runtime of several threads takes.
fn send<F: Future + Send>(future: F) -> F {
    future
}

#[test]
fn a_recursive_call_goes_through_the_cache_in_a_box_and_without() {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    memoize! {
        async fn boxed(n: u64) -> u64 {
            RUNS.fetch_add(1, SeqCst);
            if n < 2 { n } else { Box::pin(boxed(n - 1)).await + Box::pin(boxed(n - 2)).await }
        }

        async fn plain(n: u64) -> u64 {
            if n < 2 { n } else { plain(n - 1).await + plain(n - 2).await }
        }

        async fn is_even(n: u32) -> bool {
            n == 0 || is_odd(n - 1).await
        }

        async fn is_odd(n: u32) -> bool {
            n != 0 && is_even(n - 1).await
        }
    }
    assert_eq!(block_on(send(boxed(50))), 12_586_269_025);
    assert_eq!(RUNS.load(SeqCst), 51);
    assert_eq!(block_on(boxed(49)) + block_on(boxed(48)), 12_586_269_025);
    assert_eq!(RUNS.load(SeqCst), 51);
    assert_eq!(block_on(send(plain(50))), 12_586_269_025);
    assert_eq!(plain::stats().fills, 51);
    assert!(block_on(send(is_even(60))));
}

#[test]
fn a_deep_recursion_needs_a_deep_stack_and_no_more() {
    memoize! {
        async fn depth(n: u64) -> u64 {
            if n == 0 { 0 } else { depth(n - 1).await + 1 }
        }
    }
    let thread = thread::Builder::new()
        .stack_size(256 << 20)
        .spawn(|| block_on(depth(3_000)));
    assert_eq!(thread.unwrap().join().unwrap(), 3_000);
}

#[test]
fn tasks_of_a_runtime_share_one_run() {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    memoize! {
        async fn length(name: &str, _: u8) -> usize {
            RUNS.fetch_add(1, SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            name.len()
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let ask = |_| {
            let name = "spam".to_owned();
            tokio::spawn(async move { length(&name, 7).await })
        };
        let tasks: Vec<_> = (0..64).map(ask).collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), 4);
        }
    });
    assert_eq!(RUNS.load(SeqCst), 1);
    assert_eq!(length::stats().fills, 1);
}

#[test]
fn a_caller_that_is_dropped_or_forgotten_loses_nothing() {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    static GATE: LazyLock<Latch> = LazyLock::new(Latch::default);
    memoize! {
        async fn slow(n: u64) -> u64 {
            RUNS.fetch_add(1, SeqCst);
            GATE.clone().await;
            n * 10
        }
    }
    let bell = Arc::new(Bell::default());
    let mut waiter = pin!(slow(1));
    let mut forgotten = pin!(slow(1));
    {
        let mut first = pin!(slow(1));
        assert!(poll(first.as_mut()).is_pending());
        assert!(poll(forgotten.as_mut()).is_pending());
        assert!(poll_with(waiter.as_mut(), &bell).is_pending());
    }
    GATE.open();
    assert_eq!(poll_with(waiter.as_mut(), &bell), Poll::Ready(10));
    assert_eq!(RUNS.load(SeqCst), 1);
    assert_eq!(slow::peek(1), Some(10));
    assert_eq!(poll(forgotten.as_mut()), Poll::Ready(10));
}

#[test]
fn when_the_last_caller_is_dropped_so_is_the_run() {
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    static RUNS: AtomicU64 = AtomicU64::new(0);
    struct Dropped;
    impl Drop for Dropped {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, SeqCst);
        }
    }
    memoize! {
        async fn stuck(n: u64) -> u64 {
            let _dropped = Dropped;
            if RUNS.fetch_add(1, SeqCst) == 0 {
                std::future::pending::<()>().await;
            }
            n
        }
    }
    // Nothing has begun before the first poll.
    drop(stuck(1));
    assert_eq!(RUNS.load(SeqCst), 0);
    {
        let (mut a, mut b) = (pin!(stuck(1)), pin!(stuck(1)));
        assert!(poll(a.as_mut()).is_pending());
        assert!(poll(b.as_mut()).is_pending());
        assert_eq!(DROPPED.load(SeqCst), 0);
    }
    assert_eq!(DROPPED.load(SeqCst), 1);
    assert_eq!(stuck::peek(1), None);
    assert_eq!(block_on(stuck(1)), 1);
    assert_eq!(RUNS.load(SeqCst), 2);
}

#[test]
fn a_panic_goes_on_in_who_polls_and_another_runs_anew() {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    static GATE: LazyLock<Latch> = LazyLock::new(Latch::default);
    memoize! {
        async fn shaky(n: String) -> String {
            let run = RUNS.fetch_add(1, SeqCst);
            GATE.clone().await;
            assert!(run != 0, "the first run");
            n
        }
    }
    let mut first = pin!(shaky("a".to_owned()));
    let mut second = pin!(shaky("a".to_owned()));
    assert!(poll(first.as_mut()).is_pending());
    assert!(poll(second.as_mut()).is_pending());
    GATE.open();
    // The second polls the run that the first has begun; the first begins again, with its own
    // arguments.
    assert_eq!(panic_text(|| poll(second.as_mut())), "the first run");
    assert_eq!(poll(first.as_mut()), Poll::Ready("a".to_owned()));
    assert_eq!(RUNS.load(SeqCst), 2);
}

#[test]
fn c04_an_err_goes_to_all_who_wait_and_is_not_kept() {
    static GATE: LazyLock<Latch> = LazyLock::new(Latch::default);
    static RUNS: AtomicU64 = AtomicU64::new(0);
    memoize! {
        async fn depth(path: &Path, from: usize) -> Result<usize, String> {
            path.components().count().checked_sub(from).ok_or_else(|| "too short".to_owned())
        }

        async fn down(_: &str) -> Result<u8, u64> {
            GATE.clone().await;
            Err(RUNS.fetch_add(1, SeqCst))
        }

        #[memoize(cache_err)]
        async fn port(text: &str) -> Result<u16, std::num::ParseIntError> {
            RUNS.fetch_add(1, SeqCst);
            text.parse()
        }
    }
    assert_eq!(block_on(send(depth(Path::new("a/b/c"), 1))), Ok(2));
    assert!(block_on(depth(Path::new("a"), 2)).is_err());
    assert!(block_on(depth(Path::new("a"), 2)).is_err());
    assert!(!depth::contains(Path::new("a"), 2));
    let stats = depth::stats();
    assert_eq!((stats.fills, stats.fill_errors), (3, 2));

    let mut callers: Vec<_> = (0..5).map(|_| Box::pin(down("x"))).collect();
    let mut refresh = Box::pin(send(down::refresh("x")));
    for caller in &mut callers {
        assert!(poll(caller.as_mut()).is_pending());
    }
    assert!(poll(refresh.as_mut()).is_pending());
    // A thread that waits has it, too; and the one that began is gone.
    drop(callers.remove(0));
    GATE.open();
    for caller in &mut callers {
        assert_eq!(poll(caller.as_mut()), Poll::Ready(Err(0)));
    }
    assert_eq!(poll(refresh.as_mut()), Poll::Ready(Err(0)));
    assert!(!down::contains("x"));
    assert_eq!(block_on(down("x")), Err(1));

    assert!(block_on(send(port("x"))).is_err() && block_on(send(port("x"))).is_err());
    assert!(port::contains("x") && RUNS.load(SeqCst) == 3);
}

#[test]
fn c03_a_refresh_is_one_run_and_replaces_what_is_served_meanwhile() {
    static SOURCE: AtomicU64 = AtomicU64::new(1);
    static GATES: [LazyLock<Latch>; 2] = [const { LazyLock::new(Latch::default) }; 2];
    memoize! {
        #[memoize(skip(gate))]
        async fn read(_: &str, gate: usize) -> Result<u64, String> {
            let read = SOURCE.fetch_add(1, SeqCst);
            GATES[gate].clone().await;
            if read == 4 { Err("four".to_owned()) } else { Ok(read) }
        }
    }
    GATES[0].open();
    assert_eq!(block_on(read("x", 0)), Ok(1));
    let mut first = Box::pin(read::refresh("x", 1));
    let mut second = Box::pin(read::refresh("x", 0));
    assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
    // Others are served, and a refresh that is dropped loses nothing for the other.
    assert_eq!(poll(pin!(read("x", 0)).as_mut()), Poll::Ready(Ok(1)));
    drop(first);
    GATES[1].open();
    assert_eq!(poll(second.as_mut()), Poll::Ready(Ok(2)));
    assert_eq!(read::peek("x"), Some(Ok(2)));
    assert_eq!(SOURCE.load(SeqCst), 3);

    // One that is beaten by a prime, one that fails, one that is dropped.
    let gate = Latch::default();
    assert_eq!(block_on(read::refresh("x", 0)), Ok(3));
    read::prime("x", Ok(30));
    assert_eq!(block_on(read::refresh("x", 0)), Err("four".to_owned()));
    assert_eq!(read::peek("x"), Some(Ok(30)));
    drop((gate, read::refresh("x", 0)));
    assert_eq!(SOURCE.load(SeqCst), 5);
    assert_eq!(block_on(read::refresh("x", 0)), Ok(5));
    assert_eq!(block_on(read("x", 0)), Ok(5));
}

#[test]
fn c03_a_prime_beats_a_refresh_that_runs() {
    static GATE: LazyLock<Latch> = LazyLock::new(Latch::default);
    memoize! {
        async fn read(n: u64) -> u64 {
            GATE.clone().await;
            n
        }
    }
    read::prime(1, 10);
    let mut refresh = Box::pin(read::refresh(1));
    assert!(poll(refresh.as_mut()).is_pending());
    read::prime(1, 11);
    assert_eq!(read::peek(1), Some(11));
    GATE.open();
    let _ = block_on(refresh);
    assert_eq!(block_on(read(1)), 11);
}

#[test]
fn every_option_and_every_form_of_argument() {
    static CLOCK: LazyLock<ManualClock> = LazyLock::new(ManualClock::new);
    memoize! {
        #[memoize(ttl = Duration::from_secs(60), clock = CLOCK.clone())]
        pub async fn rate(currency: &str) -> usize {
            currency.len()
        }

        #[memoize(max_capacity = 10)]
        async fn square(n: u64) -> u64 {
            n * n
        }

        #[memoize(max_bytes = "1M", key = width + 1)]
        async fn line(width: usize) -> String {
            "-".repeat(width)
        }

        /// The pool is skipped, be it lent or given.
        #[memoize(key = name.to_ascii_lowercase(), skip(lent, given))]
        pub(crate) async fn ask(
            lent: &Arc<AtomicU64>, name: &str, mut given: Arc<AtomicU64>, mut list: Vec<u8>,
        ) -> u64 {
            list.push(1);
            let before = lent.fetch_add(1, SeqCst);
            std::future::ready(()).await;
            given = Arc::clone(&given);
            given.fetch_add(name.len() as u64, SeqCst);
            before
        }

        async fn many(a: &[u8], mut b: String, c: &'static str, _: Option<u8>) -> usize {
            b.push('!');
            a.len() + b.len() + c.len()
        }

        async fn nothing() {}
    }
    assert_eq!(block_on(send(rate("EUR"))), 3);
    CLOCK.advance(Duration::from_secs(59));
    assert!(rate::contains("EUR"));
    CLOCK.advance(Duration::from_secs(1));
    assert!(!rate::contains("EUR"));
    for n in 0..100 {
        assert_eq!(block_on(send(square(n))), n * n);
    }
    assert_eq!(square::cache().len(), 10);
    assert_eq!(block_on(send(line(100_000))).len(), 100_000);
    assert!(line::cache().weighted_size() > 100_000);

    let (lent, given) = (Arc::new(AtomicU64::new(5)), Arc::new(AtomicU64::new(0)));
    for name in ["Spam", "SPAM"] {
        let asked = ask(&lent, name, Arc::clone(&given), vec![]);
        assert_eq!(block_on(send(asked)), 5);
    }
    assert_eq!((lent.load(SeqCst), given.load(SeqCst)), (6, 4));
    assert!(ask::contains("spam", vec![]));

    assert_eq!(block_on(send(many(&[1], "b".to_owned(), "c", None))), 4);
    block_on(send(nothing()));
    assert!(nothing::contains());
}

#[test]
fn companions() {
    memoize! {
        async fn area(width: u64, height: u64) -> u64 {
            width * height
        }
    }
    assert_eq!(area::peek(2, 3), None);
    assert_eq!(block_on(area(2, 3)), 6);
    area::prime(4, 5, 21);
    assert_eq!(block_on(area(4, 5)), 21);
    assert_eq!(block_on(send(area::uncached(4, 5))), 20);
    assert!(block_on(send(area::invalidate_async(4, 5))));
    assert!(!area::invalidate(4, 5));
    assert_eq!(area::cache().len(), 1);
    block_on(send(area::invalidate_all_async()));
    assert_eq!(area::stats().fills, 1);
    assert!(!area::contains(2, 3));
    assert_eq!(block_on(area(2, 3)), 6);
    area::invalidate_all();
    assert!(area::cache().is_empty());
}

#[test]
fn an_invalidate_beats_a_run() {
    static SOURCE: AtomicU64 = AtomicU64::new(1);
    static GATE: LazyLock<Latch> = LazyLock::new(Latch::default);
    memoize! {
        async fn read(_: &str) -> u64 {
            let read = SOURCE.load(SeqCst);
            GATE.clone().await;
            read
        }
    }
    let mut before = pin!(read("x"));
    assert!(poll(before.as_mut()).is_pending());
    SOURCE.store(2, SeqCst);
    let mut invalidated = pin!(read::invalidate_async("x"));
    assert!(poll(invalidated.as_mut()).is_pending());
    GATE.open();
    assert_eq!(poll(invalidated.as_mut()), Poll::Ready(false));
    assert_eq!(read::peek("x"), None);
    assert_eq!(block_on(read("x")), 2);
    assert_eq!(poll(before.as_mut()), Poll::Ready(1));
    assert_eq!(read::peek("x"), Some(2));
}

#[test]
fn a_hit_answers_at_once_and_allocates_nothing() {
    memoize! {
        async fn length(name: &str, _: &[u8]) -> usize {
            name.len()
        }
    }
    assert_eq!(block_on(length("spam", &[1, 2])), 4);
    let allocated = allocations(|| {
        for _ in 0..100 {
            assert_eq!(poll(pin!(length("spam", &[1, 2])).as_mut()), Poll::Ready(4));
        }
    });
    assert_eq!(allocated, 0);
}

#[test]
fn a_call_that_asks_for_itself_panics_with_the_cycle() {
    memoize! {
        async fn ouroboros(n: u64) -> u64 {
            Box::pin(ouroboros(n)).await + 1
        }

        async fn there(n: u64) -> u64 {
            back(n + 1).await
        }

        async fn back(n: u64) -> u64 {
            there(n - 1).await
        }
    }
    let text = panic_text(|| block_on(ouroboros(1)));
    assert!(text.contains("(1,)"), "{text}");
    let text = panic_text(|| block_on(there(1)));
    assert!(text.contains("(1,)") && text.contains("(2,)"), "{text}");
    assert_eq!(ouroboros::peek(1), None);
    ouroboros::prime(1, 7);
    assert_eq!(block_on(ouroboros(1)), 7);
}

#[test]
fn beside_functions_that_are_not_async() {
    memoize! {
        fn double(n: u64) -> u64 {
            2 * n
        }

        /// Documented.
        #[must_use]
        pub async fn twice_double(n: u64) -> u64 {
            double(double(n))
        }

        fn triple(n: u64) -> u64 {
            3 * n
        }
    }
    assert_eq!(block_on(twice_double(3)) + triple(1), 15);
    assert!(double::contains(6));
}
