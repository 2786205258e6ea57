//! `memoize!`: functions that keep their results. The functions that it refuses are in
//! `tests/ui/memoize_*.rs`, the code it must not disturb in `tests/ui/pass/memoize_*.rs`.

#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]

use crate::support::common::{THREADS, panic_text, watched};
use atomic_cache::{Clock, ManualClock, memoize};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, LazyLock};
use std::thread;
use std::time::Duration;

/// How often something ran: a `static` next to the function that counts itself in it.
struct Runs(AtomicU64);

impl Runs {
    const fn none() -> Self {
        Self(AtomicU64::new(0))
    }

    fn one_more(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn so_far(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn a_recursive_call_goes_through_the_cache() {
    static RUNS: Runs = Runs::none();
    memoize! {
        fn fib(n: u64) -> u64 {
            RUNS.one_more();
            if n < 2 { n } else { fib(n - 1) + fib(n - 2) }
        }
    }
    assert_eq!(fib(90), 2_880_067_194_370_816_120);
    assert_eq!(RUNS.so_far(), 91);
    assert_eq!(fib(90), 2_880_067_194_370_816_120);
    assert_eq!(fib(89) + fib(88), fib(90));
    assert_eq!(RUNS.so_far(), 91);
    assert_eq!(fib::stats().fills, 91);
    assert_eq!(fib::cache().len(), 91);
}

#[test]
fn eight_threads_compute_each_value_once() {
    static RUNS: [AtomicU64; 91] = [const { AtomicU64::new(0) }; 91];
    memoize! {
        fn fib(n: u64) -> u64 {
            RUNS[n as usize].fetch_add(1, Ordering::Relaxed);
            thread::yield_now();
            if n < 2 { n } else { fib(n - 1) + fib(n - 2) }
        }
    }
    let barrier = Barrier::new(8);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                barrier.wait();
                assert_eq!(fib(90), 2_880_067_194_370_816_120);
            });
        }
    });
    for (n, runs) in RUNS.iter().enumerate() {
        assert_eq!(runs.load(Ordering::Relaxed), 1, "fib({n})");
    }
    assert_eq!(fib::stats().fills, 91);
}

#[test]
fn a_deep_recursion_needs_a_deep_stack_and_no_more() {
    memoize! {
        fn fib(n: u64) -> u128 {
            if n < 2 { n.into() } else { fib(n - 1).wrapping_add(fib(n - 2)) }
        }
    }
    let thread = thread::Builder::new()
        .stack_size(512 << 20)
        .spawn(|| fib(10_000))
        .unwrap();
    let (mut a, mut b) = (0_u128, 1_u128);
    for _ in 0..10_000 {
        (a, b) = (b, a.wrapping_add(b));
    }
    assert_eq!(thread.join().unwrap(), a);
    assert_eq!(fib::stats().fills, 10_001);
    // Near a known result, there is no depth left.
    assert_eq!(fib(10_001), b);
}

#[test]
fn a_call_that_asks_for_itself_panics_with_the_cycle() {
    memoize! {
        fn ouroboros(n: u64) -> u64 {
            ouroboros(n) + 1
        }

        fn there(n: u64) -> u64 {
            back(n + 1)
        }

        fn back(n: u64) -> u64 {
            there(n - 1)
        }
    }
    for ask in [ouroboros, there] {
        let panic = thread::spawn(move || ask(1)).join().unwrap_err();
        let text = panic
            .downcast_ref::<String>()
            .expect("a panic with a formatted text");
        assert!(text.contains("(1,)"), "{text}");
    }
    // A failure is not kept.
    assert_eq!(ouroboros::peek(1), None);
    ouroboros::prime(1, 7);
    assert_eq!(ouroboros(1), 7);
}

#[test]
fn mutual_recursion_is_no_cycle() {
    memoize! {
        fn is_even(n: u32) -> bool {
            n == 0 || is_odd(n - 1)
        }

        fn is_odd(n: u32) -> bool {
            n != 0 && is_even(n - 1)
        }
    }
    assert!(is_even(100));
    assert!(!is_odd(100));
}

#[test]
fn a_panic_is_the_callers_and_is_not_kept() {
    static RUNS: Runs = Runs::none();
    memoize! {
        fn second_time_lucky(n: u64) -> u64 {
            RUNS.one_more();
            assert!(RUNS.so_far() > 1, "unlucky");
            n
        }
    }
    let panic = thread::spawn(|| second_time_lucky(3)).join().unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"unlucky"));
    assert!(!second_time_lucky::contains(3));
    assert_eq!(second_time_lucky(3), 3);
}

#[test]
fn no_argument_and_no_result() {
    static RUNS: Runs = Runs::none();
    memoize! {
        fn answer() -> u32 {
            RUNS.one_more();
            42
        }

        fn effect() {
            RUNS.one_more();
        }

        fn spelled_out(n: u64) -> () {
            RUNS.one_more();
            let _ = n;
        }
    }
    assert_eq!((answer(), answer()), (42, 42));
    assert_eq!(RUNS.so_far(), 1);
    effect();
    effect();
    assert_eq!(RUNS.so_far(), 2);
    spelled_out(1);
    spelled_out(1);
    spelled_out(2);
    assert_eq!(RUNS.so_far(), 4);

    assert_eq!(answer::peek(), Some(42));
    assert!(answer::invalidate());
    answer::prime(43);
    assert_eq!(answer(), 43);
    assert_eq!(effect::peek(), Some(()));
    effect::prime(());
    spelled_out::prime(3, ());
    assert!(spelled_out::contains(3));
}

#[test]
fn borrowed_arguments_are_looked_up_as_they_are() {
    type Key = (String, Vec<u16>, PathBuf, OsString, CString, Site, String);

    static RUNS: Runs = Runs::none();

    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    struct Site(u32);

    memoize! {
        #[allow(clippy::ptr_arg)]
        fn size(
            name: &str, list: &[u16], path: &Path, os: &OsStr, c: &CStr, site: &Site, own: &String,
        ) -> usize {
            RUNS.one_more();
            name.len()
                + list.len()
                + path.components().count()
                + os.len()
                + c.count_bytes()
                + site.0 as usize
                + own.len()
        }
    }

    let ask = |name: &str, list: &[u16]| {
        size(
            name,
            list,
            Path::new("a/b"),
            OsStr::new("os"),
            c"c",
            &Site(1),
            &"own".to_owned(),
        )
    };
    assert_eq!(ask("name", &[1, 2]), 15);
    assert_eq!(ask(&String::from("name"), &Vec::from([1, 2])), 15);
    assert_eq!(RUNS.so_far(), 1);
    assert_eq!(ask("name", &[1, 3]), 15);
    assert_eq!(ask("eman", &[1, 3]), 15);
    assert_eq!(RUNS.so_far(), 3);
    let peeked = size::peek(
        "name",
        &[1, 2],
        Path::new("a/b"),
        OsStr::new("os"),
        c"c",
        &Site(1),
        &"own".to_owned(),
    );
    assert_eq!(peeked, Some(15));

    // The key is made of owned values.
    let cache = size::cache();
    let key: Key = (
        "name".into(),
        vec![1, 2],
        "a/b".into(),
        "os".into(),
        c"c".into(),
        Site(1),
        "own".into(),
    );
    assert_eq!(cache.peek(&key), Some(15));
}

#[test]
fn where_the_parts_of_a_key_meet_does_not_matter() {
    memoize! {
        fn joined(a: &str, b: &str) -> String {
            format!("{a}-{b}")
        }
    }
    assert_eq!(joined("ab", "c"), "ab-c");
    assert_eq!(joined("a", "bc"), "a-bc");
    assert_eq!(joined("", "abc"), "-abc");
    assert_eq!(joined("abc", ""), "abc-");
    assert_eq!(joined::cache().len(), 4);
}

#[test]
fn owned_mutable_static_unnamed_and_trailing() {
    static RUNS: Runs = Runs::none();
    memoize! {
        fn f(
            mut n: u64,
            name: String,
            mut list: Vec<u8>,
            word: &'static str,
            _: char,
            at: &'_ str,
        ) -> String {
            RUNS.one_more();
            n += 1;
            list.push(b'!');
            format!("{n} {name} {} {word} {at}", list.len())
        }
    }
    let ask = |unnamed| f(1, "name".to_owned(), vec![1], "word", unnamed, "at");
    assert_eq!(ask('x'), "2 name 2 word at");
    assert_eq!(ask('x'), "2 name 2 word at");
    assert_eq!(RUNS.so_far(), 1);
    // It has no name, but it is an argument.
    assert_eq!(ask('y'), "2 name 2 word at");
    assert_eq!(RUNS.so_far(), 2);
}

#[test]
fn twelve_arguments() {
    memoize! {
        #[allow(clippy::too_many_arguments)]
        fn sum(
            a: u8, b: u16, c: u32, d: u64, e: &str, f: i8,
            g: i16, h: i32, i: i64, j: &[u8], k: bool, l: char,
        ) -> u64 {
            u64::from(a) + u64::from(b) + u64::from(c) + d + e.len() as u64
                + (i64::from(f) + i64::from(g) + i64::from(h) + i).unsigned_abs()
                + j.len() as u64 + u64::from(k) + u64::from(l)
        }
    }
    assert_eq!(
        sum(1, 2, 3, 4, "12345", 6, 7, 8, 9, &[0; 10], true, '\u{c}'),
        68
    );
    assert!(sum::contains(
        1, 2, 3, 4, "12345", 6, 7, 8, 9, &[0; 10], true, '\u{c}'
    ));
    assert!(!sum::contains(
        1, 2, 3, 4, "12345", 6, 7, 8, 9, &[0; 10], false, '\u{c}'
    ));
}

#[test]
fn the_companions() {
    static RUNS: Runs = Runs::none();
    memoize! {
        fn area(width: u64, name: &str) -> u64 {
            RUNS.one_more();
            width * name.len() as u64
        }
    }
    assert_eq!(area::peek(2, "abc"), None);
    assert!(!area::contains(2, "abc"));
    assert!(!area::invalidate(2, "abc"));
    assert_eq!(RUNS.so_far(), 0);

    assert_eq!(area(2, "abc"), 6);
    assert_eq!(area::peek(2, "abc"), Some(6));
    assert!(area::contains(2, "abc"));
    assert!(!area::contains(3, "abc"));
    assert!(!area::contains(2, "cba"));

    area::prime(2, "abc", 7);
    area::prime(3, "abc", 10);
    assert_eq!((area(2, "abc"), area(3, "abc")), (7, 10));
    assert_eq!(RUNS.so_far(), 1);

    assert_eq!(area::uncached(2, "abc"), 6);
    assert_eq!(area::peek(2, "abc"), Some(7));
    assert_eq!(RUNS.so_far(), 2);

    assert!(area::invalidate(2, "abc"));
    assert!(!area::invalidate(2, "abc"));
    assert_eq!(area(2, "abc"), 6);
    assert_eq!(RUNS.so_far(), 3);

    area::invalidate_all();
    assert!(!area::contains(2, "abc"));
    assert!(!area::contains(3, "abc"));

    let stats = area::stats();
    assert_eq!(stats.fills, 2);
    assert_eq!(stats.inserts, 2);

    area::cache().insert((9, "x".to_owned()), 1);
    assert_eq!(area(9, "x"), 1);
}

#[test]
fn the_function_without_its_cache_still_calls_memoized_ones() {
    static RUNS: Runs = Runs::none();
    memoize! {
        fn fib(n: u64) -> u64 {
            RUNS.one_more();
            if n < 2 { n } else { fib(n - 1) + fib(n - 2) }
        }
    }
    assert_eq!(fib::uncached(30), 832_040);
    assert_eq!(RUNS.so_far(), 31);
    assert!(!fib::contains(30));
    assert!(fib::contains(29));
}

/// Waits until the only run of this function has so many waiters.
macro_rules! until_joined {
    ($name:ident, $waiters:expr) => {
        while $name::cache()
            .in_flight()
            .iter()
            .all(|fill| fill.waiters < $waiters)
        {
            thread::yield_now();
        }
    };
}

#[test]
fn c04_an_err_goes_to_all_who_wait_and_is_not_kept() {
    static RUNS: Runs = Runs::none();
    memoize! {
        fn parse(text: &str) -> Result<i32, String> {
            RUNS.one_more();
            let number: i32 = text.parse().map_err(|error| format!("{text}: {error}"))?;
            if number < 0 {
                return Err("negative".to_owned());
            }
            Ok(number)
        }

        fn down(_: u8) -> Result<u8, u64> {
            until_joined!(down, THREADS - 1);
            RUNS.one_more();
            Err(RUNS.so_far())
        }
    }
    assert_eq!((parse("17"), parse("17")), (Ok(17), Ok(17)));
    assert_eq!(RUNS.so_far(), 1);
    assert_eq!(parse("x"), parse("x"));
    assert_eq!(parse("-1"), Err("negative".to_owned()));
    assert_eq!(RUNS.so_far(), 4);
    assert!(!parse::contains("x") && !parse::invalidate("x"));
    assert_eq!((parse::peek("x"), parse::peek("17")), (None, Some(Ok(17))));
    assert_eq!((parse::cache().len(), parse::stats().fill_errors), (1, 3));

    // One run, one error, for all.
    watched(|| {
        for round in 5..25 {
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(move || assert_eq!(down(1), Err(round)));
                }
            });
        }
    });
    assert_eq!((down::cache().len(), RUNS.so_far()), (0, 24));
}

#[test]
#[allow(clippy::unnecessary_wraps)]
fn c04_a_result_is_told_by_its_type() {
    use std::io;

    type Answer<T> = Result<T, Arc<io::Error>>;
    type Both = Result<u8, &'static str>;

    mod own {
        #[derive(Clone, Debug, PartialEq)]
        pub(super) enum Result<T, E> {
            Err(E),
            #[allow(dead_code)]
            Ok(T),
        }
    }

    fn no<E: From<io::Error>>() -> E {
        io::Error::other("no").into()
    }

    memoize! {
        fn one_parameter(_: u8) -> Answer<u8> { Err(no::<io::Error>().into()) }
        fn no_parameter(_: u8) -> Both { Err("no") }
        fn std_path(_: u8) -> ::std::result::Result<(), ()> { Err(()) }
        fn of_a_unit(_: u8) -> Result<u8, ()> { Err(()) }
        fn nested(_: u8) -> Result<Option<u8>, Result<u8, u8>> { Err(Ok(1)) }
        #[memoize(max_bytes = "1M", key = _n, ttl = Duration::MAX)]
        fn with_options(_n: u8) -> Both { Err("no") }

        // These return no `Result` of the standard library, so every answer is kept.
        fn option(_: u8) -> Option<u8> { None }
        fn inside(_: u8) -> Arc<Result<u8, u8>> { Arc::new(Err(1)) }
        fn beside(_: u8) -> (Result<u8, u8>, u8) { (Err(1), 1) }
        fn maybe(_: u8) -> Option<Result<u8, u8>> { Some(Err(1)) }
        fn of_ones_own(_: u8) -> own::Result<u8, u8> { own::Result::Err(1) }
        fn nothing(_: u8) {}
    }
    assert!(one_parameter(1).is_err() && !one_parameter::contains(1));
    assert!(no_parameter(1).is_err() && !no_parameter::contains(1));
    assert!(std_path(1).is_err() && !std_path::contains(1));
    assert!(of_a_unit(1).is_err() && !of_a_unit::contains(1));
    assert!(nested(1).is_err() && !nested::contains(1));
    assert!(with_options(1).is_err() && !with_options::contains(1));

    assert!(option(1).is_none() && option::contains(1));
    assert!(inside(1).is_err() && inside::contains(1));
    assert!(beside(1).0.is_err() && beside::contains(1));
    assert!(maybe(1).is_some() && maybe::contains(1));
    assert!(of_ones_own(1) == own::Result::Err(1) && of_ones_own::contains(1));
    nothing(1);
    assert!(nothing::contains(1));
}

#[test]
fn c04_an_err_is_kept_if_that_is_asked_for() {
    static RUNS: Runs = Runs::none();
    static CLOCK: LazyLock<ManualClock> = LazyLock::new(ManualClock::new);
    memoize! {
        #[memoize(cache_err)]
        fn parse(text: &str) -> Result<i32, String> {
            RUNS.one_more();
            text.parse().map_err(|_| format!("{text}?"))
        }

        #[memoize(skip(log), cache_err, ttl = Duration::from_secs(60))]
        #[memoize(clock = CLOCK.clone(), max_capacity = 10)]
        fn short(text: &str, log: &dyn Fn()) -> Result<i32, String> {
            log();
            text.parse().map_err(|_| format!("{text}?"))
        }
    }
    for _ in 0..3 {
        assert_eq!((parse("17"), parse("x")), (Ok(17), Err("x?".to_owned())));
    }
    assert_eq!(RUNS.so_far(), 2);
    assert_eq!(parse::peek("x"), Some(Err("x?".to_owned())));
    assert!(parse::invalidate("x") && !parse::contains("x"));
    assert!(parse("x").is_err());
    assert_eq!((RUNS.so_far(), parse::stats().fill_errors), (3, 0));

    let logged = Cell::new(0);
    let log = || logged.set(logged.get() + 1);
    for seconds in [59, 1] {
        assert!(short("x", &log).is_err() && short::contains("x"));
        CLOCK.advance(Duration::from_secs(seconds));
    }
    assert!(!short::contains("x") && short("x", &log).is_err());
    assert_eq!(logged.get(), 2);
    assert!(short::refresh("x", &log).is_err() && short::contains("x"));
    assert_eq!(logged.get(), 3);
}

#[test]
fn c04_the_companions_of_a_function_that_can_fail() {
    static GOOD: AtomicU64 = AtomicU64::new(0);
    memoize! {
        fn ask(_: &str) -> Result<u64, String> {
            match GOOD.load(Ordering::Relaxed) {
                0 => Err("down".to_owned()),
                good => Ok(good),
            }
        }

        /// The error of an inner call goes through.
        fn sum(n: u64) -> Result<u64, String> {
            if n == 0 { ask("x") } else { Ok(sum(n - 1)? + 1) }
        }
    }
    let down = || Err("down".to_owned());
    assert_eq!((sum(3), sum::cache().len()), (down(), 0));
    assert_eq!((ask::uncached("x"), ask::refresh("x")), (down(), down()));
    assert!(!ask::contains("x"));
    GOOD.store(1, Ordering::Relaxed);
    assert_eq!((sum(3), sum::cache().len()), (Ok(4), 4));
    assert_eq!(ask::peek("x"), Some(Ok(1)));
    // A refresh that fails leaves the old value.
    GOOD.store(0, Ordering::Relaxed);
    assert_eq!((ask::refresh("x"), ask("x")), (down(), Ok(1)));
    GOOD.store(2, Ordering::Relaxed);
    assert_eq!((ask::refresh("x"), ask("x")), (Ok(2), Ok(2)));
    // A primed value is kept, also a failure.
    ask::prime("x", down());
    assert_eq!((ask("x"), ask::contains("x")), (down(), true));
    assert!(ask::invalidate("x"));
    assert_eq!(ask("x"), Ok(2));
    ask::invalidate_all();
    assert!(!ask::contains("x"));
}

#[test]
fn c04_a_panic_beside_an_err_and_a_cycle_inside_of_one() {
    static RUNS: Runs = Runs::none();
    memoize! {
        fn moody(_: u8) -> Result<u8, u8> {
            RUNS.one_more();
            if RUNS.so_far() == 1 {
                until_joined!(moody, THREADS - 1);
                panic!("the first run");
            }
            Err(7)
        }

        fn ouroboros(n: u64) -> Result<u64, String> {
            Ok(ouroboros(n)? + 1)
        }
    }
    let failed = watched(|| {
        thread::scope(|scope| {
            let callers: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| moody(1))).collect();
            let answers = callers.into_iter().map(thread::ScopedJoinHandle::join);
            answers
                .filter(|answer| matches!(answer, Ok(Err(7))))
                .count()
        })
    });
    assert_eq!((failed, moody::cache().len()), (THREADS - 1, 0));
    let text = panic_text(|| ouroboros(1));
    assert!(text.contains("(1,)"), "{text}");
    assert!(ouroboros::cache().is_empty());
}

#[test]
fn c01_a_refresh_is_one_run_and_replaces_what_is_served_meanwhile() {
    static RUNS: Runs = Runs::none();
    memoize! {
        #[memoize(skip(gate))]
        fn rate(_: &str, gate: &dyn Fn()) -> u64 {
            RUNS.one_more();
            let read = RUNS.so_far();
            gate();
            read
        }
    }
    watched(|| {
        assert_eq!(rate("EUR", &|| ()), 1);
        // The old value is served while all refreshes are one run.
        let gate = || {
            until_joined!(rate, THREADS - 1);
            assert_eq!((rate("EUR", &|| ()), rate::peek("EUR")), (1, Some(1)));
        };
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| assert_eq!(rate::refresh("EUR", &gate), 2));
            }
        });
        assert_eq!((rate("EUR", &|| ()), RUNS.so_far()), (2, 2));
        // Of an absent value it is the first run.
        assert_eq!(rate::refresh("USD", &|| ()), 3);
        assert_eq!(rate::peek("USD"), Some(3));
        // One that panics leaves the old value.
        assert_eq!(panic_text(|| rate::refresh("USD", &|| panic!("no"))), "no");
        assert_eq!(rate::peek("USD"), Some(3));
    });
}

#[test]
fn c03_nothing_older_overwrites_what_a_refresh_or_a_prime_has_put_in() {
    static SOURCE: AtomicU64 = AtomicU64::new(0);
    memoize! {
        fn version(_: u8) -> u64 {
            let read = SOURCE.fetch_add(1, Ordering::SeqCst);
            thread::yield_now();
            read
        }

        fn slow(_: u8) -> u64 {
            let read = SOURCE.load(Ordering::SeqCst);
            slow::prime(1, read + 10);
            read
        }
    }
    watched(|| {
        let stop = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut newest = 0;
                while !stop.load(Ordering::SeqCst) {
                    let seen = version(1);
                    assert!(seen >= newest, "{seen} after {newest}");
                    newest = seen;
                }
            });
            let refreshers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..2000 {
                            let got = version::refresh(1);
                            assert!(version::peek(1) >= Some(got));
                        }
                    })
                })
                .collect();
            for refresher in refreshers {
                refresher.join().unwrap();
            }
            stop.store(true, Ordering::SeqCst);
            reader.join().unwrap();
        });
    });
    // A value primed during a run, or a refresh, beats it.
    SOURCE.store(1, Ordering::SeqCst);
    assert_eq!((slow(1), slow::peek(1)), (1, Some(11)));
    SOURCE.store(2, Ordering::SeqCst);
    assert_eq!((slow::refresh(1), slow::peek(1)), (2, Some(12)));
    // It is an insert: the last value stays, however old it is.
    slow::prime(1, 5);
    assert_eq!(slow(1), 5);
}

#[test]
fn a_value_of_its_time() {
    static RUNS: Runs = Runs::none();
    static CLOCK: LazyLock<ManualClock> = LazyLock::new(ManualClock::new);
    memoize! {
        #[memoize(ttl = Duration::from_secs(40), clock = CLOCK.clone())]
        fn short(n: u64) -> u64 {
            RUNS.one_more();
            n
        }

        #[memoize(
            ttl = if RUNS.so_far() > 1000 { Some(Duration::ZERO) } else { None },
            clock = CLOCK.clone(),
        )]
        fn endless(n: u64) -> u64 {
            n
        }

        #[memoize(clock = Clock::from(CLOCK.clone()))]
        #[memoize(ttl = Duration::from_secs(3600),)]
        fn long(n: u64) -> u64 {
            n
        }

        #[memoize(ttl = Duration::from_secs(3600))]
        fn by_the_system(n: u64) -> u64 {
            n
        }
    }
    assert_eq!(short(1), 1);
    assert_eq!((endless(1), long(1), by_the_system(1)), (1, 1, 1));
    CLOCK.advance(Duration::from_secs(39));
    assert_eq!(short::peek(1), Some(1));
    CLOCK.advance(Duration::from_secs(1));
    assert_eq!(short::peek(1), None);
    assert_eq!(short(1), 1);
    assert_eq!(RUNS.so_far(), 2);
    assert!(long::contains(1));
    CLOCK.advance(Duration::from_secs(3600));
    assert!(!long::contains(1));
    assert!(endless::contains(1));
    assert!(by_the_system::contains(1));
}

#[test]
fn a_bound_in_entries() {
    static RUNS: Runs = Runs::none();
    memoize! {
        #[memoize(max_capacity = 10)]
        fn few(n: u64) -> u64 {
            RUNS.one_more();
            n
        }

        /// Together with every other option.
        #[memoize(skip(_log), max_capacity = if RUNS.so_far() < u64::MAX { 2 } else { 0 },)]
        #[memoize(key = n % 10, ttl = Duration::from_secs(3600), clock = Clock::system())]
        fn fewer(n: u64, _log: &dyn Fn(u64)) -> u64 {
            n
        }

        #[memoize(max_capacity = 0)]
        fn none(n: u64) -> u64 {
            RUNS.one_more();
            n
        }

        #[memoize(max_capacity = None)]
        fn all(n: u64) -> u64 {
            n
        }

        #[memoize(max_capacity = Some(u64::from(u32::MAX)), key = n)]
        fn many(n: u64) -> u64 {
            n
        }

        /// Deeper than there is room for.
        #[memoize(max_capacity = 3)]
        fn fib(n: u64) -> u64 {
            if n < 2 { n } else { fib(n - 1) + fib(n - 2) }
        }
    }
    for n in 0..100 {
        assert_eq!(few(n), n);
        assert!(few::cache().len() <= 10);
    }
    assert_eq!(
        (few::cache().len(), few::cache().capacity()),
        (10, Some(10))
    );
    assert_eq!((few::stats().evicted, RUNS.so_far()), (90, 100));
    few::prime(1000, 1);
    assert_eq!((few(1000), few::cache().len()), (1, 10));
    few::cache().set_max_capacity(5).unwrap();
    assert_eq!(few::cache().len(), 5);

    (0..100).for_each(|n| assert_eq!(fewer(n, &|_| {}) % 10, n % 10));
    assert_eq!(fewer::cache().len(), 2);

    let before = RUNS.so_far();
    assert_eq!((none(1), none(1)), (1, 1));
    none::prime(1, 2);
    assert_eq!((none::peek(1), RUNS.so_far()), (None, before + 2));

    (0..100).for_each(|n| assert_eq!((all(n), many(n)), (n, n)));
    assert_eq!((all::cache().capacity(), all::cache().len()), (None, 100));
    assert_eq!(many::cache().capacity(), Some(u64::from(u32::MAX)));
    assert_eq!(many::cache().len(), 100);

    assert_eq!(fib(20), 6765);
    assert_eq!(fib::cache().len(), 3);
}

#[test]
fn a_bound_in_bytes() {
    static SIZE: &str = "64 KiB";
    memoize! {
        #[memoize(max_bytes = SIZE)]
        fn line(width: usize) -> String {
            "-".repeat(width)
        }

        #[memoize(max_bytes = 65_536)]
        fn by_name(name: &str, _more: &[u8]) -> Result<Vec<u8>, String> {
            if name.is_empty() {
                return Err("no name".to_owned());
            }
            Ok(name.as_bytes().to_vec())
        }

        /// The bytes of a key that has no name are counted, too.
        #[memoize(max_bytes = 64 << 10, key = "-".repeat(width), ttl = Duration::from_secs(3600))]
        fn length(width: usize) -> usize {
            width
        }

        #[memoize(max_bytes = format!("{}k", 1))]
        fn too_large(width: usize) -> String {
            "-".repeat(width)
        }

        #[memoize(max_bytes = "much")]
        fn wrong(n: u64) -> u64 {
            n
        }
    }
    for width in 1000..1500 {
        assert_eq!(line(width).len(), width);
        assert!(line::cache().weighted_size() <= 64 << 10);
        assert_eq!(by_name(&line(width), b"more").unwrap().len(), width);
        assert_eq!(length(width), width);
    }
    assert_eq!(line::cache().capacity(), Some(64 << 10));
    for entries in [line::cache().len(), length::cache().len()] {
        assert!(
            (30..66).contains(&entries),
            "{entries} of 1000 to 1500 bytes"
        );
    }
    // Its key and its value are as long as each other.
    let entries = by_name::cache().len();
    assert!(
        (15..33).contains(&entries),
        "{entries} of 2000 to 3000 bytes"
    );
    assert_eq!(
        (length::peek(1499), length::contains(1)),
        (Some(1499), false)
    );
    assert!(length::invalidate(1499) && !length::contains(1499));
    length::prime(7, 8);
    assert_eq!(
        (length(7), length::cache().keys().count()),
        (8, length::cache().len())
    );
    length::invalidate_all();
    assert_eq!(
        (length::cache().len(), length::cache().weighted_size()),
        (0, 0)
    );

    assert_eq!(too_large(2000).len(), 2000);
    assert_eq!(
        (too_large::cache().len(), too_large::stats().oversize),
        (0, 1)
    );

    let text = panic_text(|| wrong(1));
    assert!(
        text.contains("wrong`") && text.contains("max_bytes") && text.contains("much"),
        "{text}"
    );
}

#[test]
fn a_skipped_argument_is_handed_on() {
    /// Neither `Clone`, nor `Hash`, nor `Send`.
    struct Logger<'a>(&'a Cell<u64>);

    memoize! {
        #[memoize(skip(log))]
        fn logged(n: u64, log: &Logger<'_>, name: &str) -> u64 {
            log.0.set(n);
            n + name.len() as u64
        }

        #[memoize(skip(by_value, many,))]
        fn moved(n: u64, mut by_value: Box<dyn FnMut() -> u64>, many: &[&dyn Fn() -> u64]) -> u64 {
            n + by_value() + many.iter().map(|f| f()).sum::<u64>()
        }

        #[memoize(skip(only))]
        fn nothing_left(only: &Cell<u64>) -> u64 {
            only.get()
        }
    }

    let seen = Cell::new(0);
    assert_eq!(logged(4, &Logger(&seen), "abc"), 7);
    assert_eq!(seen.replace(0), 4);
    assert_eq!(logged(4, &Logger(&seen), "abc"), 7);
    assert_eq!(seen.get(), 0);
    assert_eq!(logged(5, &Logger(&seen), "abc"), 8);
    assert_eq!(seen.get(), 5);

    // The companions do without it, the function itself does not.
    assert_eq!(logged::peek(4, "abc"), Some(7));
    assert!(logged::contains(5, "abc"));
    logged::prime(6, "abc", 10);
    assert_eq!(logged(6, &Logger(&seen), "abc"), 10);
    assert!(logged::invalidate(4, "abc"));
    assert_eq!(logged::uncached(4, &Logger(&seen), "abc"), 7);
    assert_eq!(seen.get(), 4);

    assert_eq!(moved(1, Box::new(|| 10), &[&|| 100, &|| 1000]), 1111);
    assert_eq!(moved(1, Box::new(|| unreachable!()), &[]), 1111);

    assert_eq!(nothing_left(&Cell::new(3)), 3);
    assert_eq!(nothing_left(&Cell::new(4)), 3);
    assert_eq!(nothing_left::peek(), Some(3));
}

#[test]
fn a_key_of_ones_own() {
    static RUNS: Runs = Runs::none();

    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    enum Kind {
        Small,
        Large,
    }

    /// Nothing a key could be made of.
    struct Opaque(Vec<f64>);

    memoize! {
        #[memoize(key = n % 10)]
        fn digit(n: u64) -> u64 {
            RUNS.one_more();
            n
        }

        #[memoize(key = (name.to_lowercase(), scale.to_bits()))]
        fn width(name: &str, scale: f64) -> f64 {
            RUNS.one_more();
            name.len() as f64 * scale
        }

        #[memoize(key = if opaque.0.len() < 3 { Kind::Small } else { Kind::Large })]
        fn kind(opaque: Opaque) -> usize {
            RUNS.one_more();
            opaque.0.len()
        }

        #[memoize(key = maybe.map(str::len))]
        fn elided(maybe: Option<&str>) -> usize {
            RUNS.one_more();
            maybe.map_or(0, str::len)
        }

        #[memoize(key = ())]
        fn once(n: u64) -> u64 {
            RUNS.one_more();
            n
        }
    }

    assert_eq!((digit(13), digit(23), digit(3), digit(4)), (13, 13, 13, 4));
    assert_eq!(RUNS.so_far(), 2);
    assert!(digit::contains(1003));
    assert_eq!(digit::peek(44), Some(4));
    digit::prime(5, 55);
    assert_eq!(digit(15), 55);
    assert!(digit::invalidate(33));
    assert_eq!(digit(23), 23);
    assert_eq!(digit::uncached(33), 33);
    assert_eq!(RUNS.so_far(), 4);
    assert_eq!(digit::cache().len(), 3);
    digit::invalidate_all();
    assert_eq!(digit::peek(44), None);

    assert_eq!(
        (
            width("Title", 0.5),
            width("TITLE", 0.5),
            width("title", 2.0)
        ),
        (2.5, 2.5, 10.0)
    );
    assert_eq!(RUNS.so_far(), 6);

    let of = |len| Opaque(vec![0.0; len]);
    assert_eq!(
        (kind(of(1)), kind(of(2)), kind(of(3)), kind(of(9))),
        (1, 1, 3, 3)
    );
    assert_eq!(RUNS.so_far(), 8);
    assert!(kind::contains(of(0)));

    let name = String::from("four");
    assert_eq!(
        (elided(Some(&name)), elided(Some("rwxs")), elided(None)),
        (4, 4, 0)
    );
    assert_eq!(RUNS.so_far(), 10);

    assert_eq!((once(1), once(2)), (1, 1));
    assert_eq!(RUNS.so_far(), 11);
}

#[test]
fn many_keys_of_ones_own_are_told_apart() {
    memoize! {
        #[memoize(key = format!("{}{}", n % 1000, "k".repeat((n % 7) as usize)))]
        fn f(n: u64) -> u64 {
            n
        }
    }
    for n in 0..7000 {
        assert_eq!(f(n), n);
    }
    for n in 0..7000 {
        assert_eq!(f(n + 7000), n);
    }
    assert_eq!(f::stats().fills, 7000);
}

#[test]
fn options_together_and_apart() {
    let seen = Cell::new(0);
    memoize! {
        #[memoize(ttl = Duration::from_secs(60), key = n % 10, skip(log))]
        fn together(n: u64, log: &Cell<u64>) -> u64 {
            log.set(n);
            n
        }

        #[memoize(skip(log))]
        /// Documentation in between.
        #[memoize(key = n % 10)]
        #[inline]
        #[memoize(ttl = Duration::from_secs(60))]
        #[memoize]
        #[memoize()]
        fn apart(n: u64, log: &Cell<u64>) -> u64 {
            log.set(n);
            n
        }

        // And each its own.
        fn none(n: u64) -> u64 {
            n
        }
    }
    for f in [together, apart] {
        assert_eq!((f(12, &seen), f(22, &seen)), (12, 12));
        assert_eq!(seen.get(), 12);
    }
    assert!(together::contains(2));
    assert!(apart::invalidate(32));
    assert_eq!((none(12), none(22)), (12, 22));
}

mod module {
    use atomic_cache::memoize;

    memoize! {
        /// Seen from outside.
        #[must_use]
        pub(crate) fn square(n: u64) -> u64 {
            helper(n) * n
        }

        fn helper(n: u64) -> u64 {
            n
        }

        pub(in crate::macros::memoize) fn r#match(n: u64) -> u64 {
            if n == 0 { 0 } else { r#match(n - 1) + 1 }
        }
    }

    pub(crate) mod inner {
        pub(crate) use super::square as renamed;

        atomic_cache::memoize! {
            pub(super) fn below(n: u64) -> u64 {
                super::helper(n) + 1
            }
        }
    }

    pub(crate) fn through(n: u64) -> u64 {
        inner::below(n)
    }
}

#[test]
fn in_a_module_with_its_visibility() {
    assert_eq!(module::square(7), 49);
    assert_eq!(module::square::peek(7), Some(49));
    assert!(module::inner::renamed::invalidate(7));
    assert_eq!(module::inner::renamed(7), 49);
    assert_eq!(module::through(1), 2);
    assert_eq!(module::r#match(5), 5);
    assert!(module::r#match::contains(5));
}

#[test]
fn the_same_name_in_two_functions_is_two_caches() {
    fn first() -> u64 {
        memoize! { fn f(n: u64) -> u64 { n + 1 } }
        f(1)
    }
    fn second() -> u64 {
        memoize! { fn f(n: u64) -> u64 { n + 2 } }
        f(1)
    }
    assert_eq!((first(), second(), first()), (2, 3, 2));
}

#[test]
fn called_from_a_method() {
    struct Grid {
        width: u64,
    }

    impl Grid {
        fn paths(&self, height: u64) -> u64 {
            memoize! {
                fn paths(width: u64, height: u64) -> u64 {
                    if width == 0 || height == 0 {
                        1
                    } else {
                        paths(width - 1, height) + paths(width, height - 1)
                    }
                }
            }
            paths(self.width, height)
        }
    }
    assert_eq!(Grid { width: 16 }.paths(16), 601_080_390);
}

#[test]
fn from_within_a_macro() {
    macro_rules! counted {
        ($(
            $(#[$attr:meta])*
            $vis:vis fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty $body:block
        )*) => {
            memoize! {
                $(
                    #[memoize(ttl = Duration::from_secs(60))]
                    $(#[$attr])*
                    $vis fn $name($($arg: $ty),*) -> $ret $body
                )*
            }
        };
    }
    counted! {
        /// One.
        fn one(n: u64) -> u64 { n + 1 }
        #[must_use]
        pub(crate) fn two(a: u64, b: String) -> BTreeMap<u64, String> { BTreeMap::from([(a, b)]) }
    }
    assert_eq!(one(1), 2);
    assert_eq!(two(1, "b".to_owned())[&1], "b");
    assert!(two::contains(1, "b".to_owned()));
}

#[test]
fn with_attributes() {
    memoize! {
        #[cfg(any())]
        fn f(n: u64) -> u64 {
            compile_error!("not here")
        }

        #[cfg(all())]
        fn f(n: u64) -> u64 {
            n
        }

        #[deprecated]
        #[doc(hidden)]
        #[inline(always)]
        #[allow(clippy::inline_always)]
        fn old(n: u64) -> u64 {
            n
        }

        #[expect(unused_variables)]
        #[allow(clippy::needless_pass_by_value)]
        fn expected(n: u64, unused: String) -> u64 {
            n
        }

        #[cfg_attr(all(), must_use)]
        fn conditional(n: u64) -> u64 {
            n
        }
    }
    #[allow(deprecated)]
    let old = old(1);
    assert_eq!(old + f(1) + expected(1, String::new()) + conditional(1), 4);
    assert!(f::contains(1));
}

#[test]
fn as_a_function_pointer() {
    memoize! {
        fn double(n: u64) -> u64 {
            2 * n
        }
    }
    let pointer: fn(u64) -> u64 = double;
    assert_eq!([1, 2, 1].map(pointer), [2, 4, 2]);
    assert_eq!(double::stats().fills, 2);
}

#[test]
fn a_large_value_in_an_arc() {
    memoize! {
        fn table(n: usize) -> Arc<[usize]> {
            (0..n).collect()
        }
    }
    assert!(Arc::ptr_eq(&table(1000), &table(1000)));
    assert_eq!(table(1000)[999], 999);
}

#[test]
fn an_invalidate_from_another_thread() {
    memoize! {
        fn f(n: u64) -> Arc<u64> {
            Arc::new(n)
        }
    }
    let before = f(1);
    assert!(thread::spawn(|| f::invalidate(1)).join().unwrap());
    assert!(!Arc::ptr_eq(&before, &f(1)));
}

#[test]
fn more_functions_and_documentation_than_the_recursion_limit() {
    macro_rules! many {
        ($([$($name:ident)*])*) => {{
            memoize! { $($(
                /// 1
                /// 2
                /// 3
                /// 4
                /// 5
                /// 6
                /// 7
                /// 8
                /// 9
                fn $name(n: u64) -> u64 { n }
            )*)* }
            [$($($name(1),)*)*].len()
        }};
    }
    let functions = many! {
        [a0 a1 a2 a3 a4 a5 a6 a7 a8 a9 aa ab ac ad ae af ag ah ai aj ak al am an ao ap aq ar as_ at]
        [b0 b1 b2 b3 b4 b5 b6 b7 b8 b9 ba bb bc bd be bf bg bh bi bj bk bl bm bn bo bp bq br bs bt]
        [c0 c1 c2 c3 c4 c5 c6 c7 c8 c9 ca cb cc cd ce cf cg ch ci cj ck cl cm cn co cp cq cr cs ct]
        [d0 d1 d2 d3 d4 d5 d6 d7 d8 d9 da db dc dd de df dg dh di dj dk dl dm dn do_ dp dq dr ds dt]
        [e0 e1 e2 e3 e4 e5 e6 e7 e8 e9 ea eb ec ed ee ef eg eh ei ej ek el em en eo ep eq er es et]
    };
    assert_eq!(functions, 150);
}

#[test]
#[cfg_attr(miri, ignore = "runs the compiler")]
fn what_is_refused_and_what_is_not_disturbed() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/memoize_*.rs");
    cases.pass("tests/ui/pass/memoize_*.rs");
}
