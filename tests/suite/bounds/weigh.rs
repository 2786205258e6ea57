//! `Weigh` against the count of an allocator. It is exact, but for trees and for tables of which
//! much has been removed, which are within the bounds that the documentation gives.

use crate::support::common::*;
use atomic_cache::{BuildError, Cache, Weigh};
use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::ffi::{CStr, CString, OsStr, OsString};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock, RwLock};

/// The value of `make` weighs the bytes it has allocated.
#[track_caller]
fn exactly<T: Weigh>(make: impl FnOnce() -> T) {
    let (value, bytes) = kept(make);
    assert_eq!(
        value.heap_bytes(),
        bytes,
        "of a {}",
        std::any::type_name::<T>()
    );
    assert_eq!(value.weigh(), bytes + size_of::<T>() as u64);
}

/// The estimate as a share of the allocated bytes.
#[track_caller]
#[allow(clippy::cast_precision_loss)]
fn share<T: Weigh>(make: impl FnOnce() -> T) -> f64 {
    let (value, bytes) = kept(make);
    value.heap_bytes() as f64 / bytes as f64
}

fn text(n: usize) -> String {
    format!("{n:>width$}", width = n % 40)
}

#[test]
fn what_owns_nothing_weighs_its_size() {
    fn own_size<T: Weigh>(value: &T) {
        assert_eq!(
            (value.heap_bytes(), value.weigh()),
            (0, size_of::<T>() as u64)
        );
    }
    own_size(&());
    own_size(&7_u8);
    own_size(&7_i128);
    own_size(&1.5_f64);
    own_size(&'c');
    own_size(&true);
    own_size(&std::num::NonZeroU32::MIN);
    own_size(&std::sync::atomic::AtomicU64::new(1));
    own_size(&std::time::Duration::ZERO);
    own_size(&std::time::Instant::now());
    own_size(&std::time::SystemTime::now());
    own_size(&std::net::IpAddr::from([127, 0, 0, 1]));
    own_size(&std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
    own_size(&std::cmp::Ordering::Less);
    own_size(&std::num::Wrapping(7_u16));
    own_size(&std::marker::PhantomData::<String>);
    own_size(&Cell::new(7));
    own_size(&(1..7));
    own_size(&(1..=7));
    own_size(&[7_u16; 100]);
    own_size(&(1_u8, 2_u64, 'c'));
    own_size(&Some(7));
    own_size(&Ok::<u8, u64>(7));
    own_size(&"a borrowed text");
    own_size(&&String::from("a borrowed one"));
    own_size(&Cow::Borrowed("text"));
    own_size(&(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12));
    // Of no size known when it is compiled.
    assert_eq!("spam".weigh(), 4);
    assert_eq!([1_u32, 2, 3][..].weigh(), 12);
    assert_eq!(OsStr::new("spam").weigh(), 4);
    assert_eq!(Path::new("spam").weigh(), 4);
    assert_eq!(c"spam".weigh(), 5);
}

#[test]
fn texts_and_lists_weigh_their_room() {
    exactly(String::new);
    exactly(|| String::with_capacity(1000));
    exactly(|| "spam".to_owned());
    exactly(|| text(39));
    exactly(|| PathBuf::from("/spam/and/eggs"));
    exactly(|| OsString::with_capacity(77));
    exactly(|| CString::new("spam").unwrap());
    exactly(Vec::<u64>::new);
    exactly(|| Vec::<u64>::with_capacity(1000));
    exactly(|| (0..777_u64).collect::<Vec<_>>());
    exactly(|| vec![(); 1000]);
    exactly(|| (0..100).map(text).collect::<Vec<_>>());
    exactly(|| vec![vec![text(5); 3]; 20]);
    exactly(|| (0..77).map(text).collect::<VecDeque<_>>());
    exactly(|| {
        let mut queue = VecDeque::with_capacity(100);
        (0..150).for_each(|n| {
            queue.push_back(text(n));
            if n > 60 {
                queue.pop_front();
            }
        });
        queue
    });
    exactly(|| (0..77).map(text).collect::<BinaryHeap<_>>());
    exactly(|| (0..77).map(|n| Reverse(text(n))).collect::<BinaryHeap<_>>());
    exactly(|| (0..77).map(text).collect::<LinkedList<_>>());
    exactly(|| (0..77).collect::<LinkedList<u8>>());
}

#[test]
fn pointers_weigh_what_they_point_to() {
    trait Shape: Weigh {}

    struct Round(String);

    impl Weigh for Round {
        fn heap_bytes(&self) -> u64 {
            self.0.heap_bytes()
        }
    }

    impl Shape for Round {}

    #[repr(align(64))]
    struct Aligned(#[allow(dead_code)] u8);

    impl Weigh for Aligned {
        fn heap_bytes(&self) -> u64 {
            0
        }
    }

    exactly(|| Box::new(7_u64));
    exactly(|| Box::new(()));
    exactly(|| Box::new(text(33)));
    exactly(|| Box::<str>::from("spam"));
    exactly(|| Box::<CStr>::from(c"spam"));
    exactly(|| Box::<Path>::from(Path::new("/spam")));
    exactly(|| (0..77).map(text).collect::<Box<[_]>>());
    exactly(|| Box::new(Round(text(33))) as Box<dyn Shape>);
    exactly(|| Box::pin(text(33)));
    exactly(|| Arc::new(7_u8));
    exactly(|| Arc::new(text(33)));
    exactly(|| Arc::<str>::from("spam"));
    exactly(|| Arc::<[u16]>::from([1, 2, 3]));
    exactly(|| (0..7).map(text).collect::<Arc<[_]>>());
    exactly(|| Arc::new(Aligned(7)));
    exactly(|| Arc::new(Round(text(33))) as Arc<dyn Shape>);
    exactly(|| Rc::new((text(33), 7_u8)));
    exactly(|| Rc::pin(text(33)));
    exactly(|| Arc::pin(7_u8) as Pin<Arc<u8>>);
    // Two that share it: each counts it.
    let shared = Arc::new(text(33));
    let both = [Arc::clone(&shared), shared];
    assert_eq!(both.heap_bytes(), 2 * both[0].heap_bytes());
}

#[test]
fn what_holds_others_adds_them_up() {
    exactly(|| Some(text(33)));
    exactly(|| None::<String>);
    exactly(|| Ok::<String, Vec<u8>>(text(33)));
    exactly(|| Err::<String, Vec<u8>>(vec![7; 7]));
    exactly(|| Cow::<str>::Owned(text(33)));
    exactly(|| [text(33), text(34)]);
    exactly(|| (text(33), 7, vec![text(34)], Box::new('c')));
    exactly(|| text(33)..text(34));
    exactly(|| text(33)..=text(34));
    exactly(|| RefCell::new(text(33)));
    exactly(|| OnceCell::from(text(33)));
    exactly(|| OnceLock::from(text(33)));
    exactly(OnceLock::<String>::new);
    let mixed = || {
        let site = |n| {
            (
                text(n),
                (0..n % 5).map(|m| Arc::<str>::from(text(m))).collect(),
            )
        };
        (0..300)
            .map(site)
            .collect::<HashMap<String, Vec<Arc<str>>>>()
    };
    exactly(mixed);
    exactly(|| Some(Box::new((mixed(), VecDeque::from([mixed()])))));
}

/// Without waiting: a locked value counts for nothing.
#[test]
fn locks_are_looked_into_unless_they_are_held() {
    let cell = RefCell::new("x".repeat(33));
    let writes = cell.borrow_mut();
    assert_eq!(cell.heap_bytes(), 0);
    drop(writes);
    let reads = cell.borrow();
    assert_eq!(cell.heap_bytes(), reads.heap_bytes());

    let mutex = Mutex::new("x".repeat(33));
    assert_eq!(mutex.heap_bytes(), 33);
    let locked = mutex.lock().unwrap();
    assert_eq!(mutex.heap_bytes(), 0);
    drop(locked);
    let poisons = || {
        let _locked = mutex.lock();
        unwind("on purpose");
    };
    assert!(panics(poisons));
    assert!(mutex.is_poisoned());
    assert_eq!(mutex.heap_bytes(), 33);

    let lock = RwLock::new("x".repeat(33));
    let reads = lock.read().unwrap();
    assert_eq!(lock.heap_bytes(), 33);
    drop(reads);
    let writes = lock.write().unwrap();
    assert_eq!(lock.heap_bytes(), 0);
    drop(writes);
    assert!(
        catch_unwind(AssertUnwindSafe(|| {
            let _locked = lock.write();
            unwind("on purpose");
        }))
        .is_err()
    );
    assert_eq!(lock.heap_bytes(), 33);
}

#[test]
fn tables_weigh_their_buckets() {
    for n in (0..60).chain([100, 111, 112, 113, 1000, 1791, 1792, 1793, 7000]) {
        exactly(|| (0..n).collect::<HashSet<usize>>());
        exactly(|| (0..n.min(256)).map(|n| n as u8).collect::<HashSet<u8>>());
        exactly(|| {
            (0..n)
                .map(|n| (n as u16, n % 2 == 0))
                .collect::<HashMap<u16, bool>>()
        });
        exactly(|| {
            (0..n)
                .map(|n| (n as u32, [n as u8; 3]))
                .collect::<HashMap<_, _>>()
        });
        exactly(|| (0..n).map(|n| (text(n), n)).collect::<HashMap<_, _>>());
        exactly(|| HashMap::<u64, u128>::with_capacity(n));
        exactly(|| {
            let mut map = HashMap::new();
            for n in 0..n {
                map.insert(n, [n; 4]);
            }
            map.shrink_to_fit();
            map
        });
    }
}

/// After removals a table may have more buckets than it tells.
#[test]
fn a_table_that_was_emptied_is_not_overestimated() {
    let churned = |left: u64| {
        share(|| {
            let mut map: HashMap<u64, u64> = (0..1790).map(|n| (n, n)).collect();
            map.retain(|key, _| *key < left);
            map
        })
    };
    for left in [0, 1, 100, 1000, 1700] {
        let share = churned(left);
        assert!((0.0..=1.0).contains(&share), "{left}: {share}");
    }
}

#[test]
fn trees_are_estimated() {
    for n in 0..=11_usize {
        exactly(|| (0..n).map(|n| (n, text(n))).collect::<BTreeMap<_, _>>());
    }
    let (mut least, mut most) = (f64::MAX, 0_f64);
    let mut note = |what: &str, share: f64| {
        println!("{what}: {share:.3}");
        (least, most) = (least.min(share), most.max(share));
    };
    for n in [12, 13, 30, 100, 150, 1000, 20_000_u64] {
        note(
            &format!("{n} collected"),
            share(|| (0..n).map(|n| (n, n)).collect::<BTreeMap<_, _>>()),
        );
        let inserted = |key: &dyn Fn(u64) -> u64| {
            share(|| {
                let mut set = BTreeSet::new();
                for n in 0..n {
                    set.insert(key(n));
                }
                set
            })
        };
        note(&format!("{n} upwards"), inserted(&|n| n));
        note(&format!("{n} downwards"), inserted(&|n| !n));
        note(
            &format!("{n} at random"),
            inserted(&|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
        );
        note(
            &format!("{n} with half removed"),
            share(|| {
                let mut map: BTreeMap<u64, [u8; 100]> = (0..2 * n).map(|n| (n, [0; 100])).collect();
                map.retain(|key, _| key % 2 == 0);
                map
            }),
        );
    }
    assert!(least > 0.75 && most < 1.7, "{least} {most}");
}

/// Elements that need no drop are not asked one by one.
#[test]
fn what_owns_nothing_is_not_walked_over() {
    #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    struct Plain(u8);

    impl Weigh for Plain {
        fn heap_bytes(&self) -> u64 {
            unreachable!("it owns nothing")
        }
    }

    let all = [Plain(7); 100];
    assert_eq!(all.weigh(), 100);
    assert_eq!(all.to_vec().heap_bytes(), 100);
    assert_eq!(Box::<[Plain]>::from(all).heap_bytes(), 100);
    exactly(|| VecDeque::from(all));
    exactly(|| BinaryHeap::from(all));
    exactly(|| LinkedList::from(all));
    exactly(|| HashSet::from(all));
    exactly(|| HashMap::from([(Plain(7), Plain(8))]));
    exactly(|| BTreeSet::from(all));
    exactly(|| Arc::<[Plain]>::from(all));
}

/// A sum that is larger than all memory ends there.
#[test]
fn shared_things_that_are_counted_again_and_again_do_not_overflow() {
    struct Huge(Box<u8>);

    impl Weigh for Huge {
        fn heap_bytes(&self) -> u64 {
            self.0.heap_bytes().max(u64::MAX / 2)
        }
    }

    let huge = || Huge(Box::new(7));
    assert_eq!(vec![huge(), huge(), huge()].weigh(), u64::MAX);
    assert_eq!((huge(), huge(), huge()).weigh(), u64::MAX);
    assert_eq!(
        HashMap::from([(1, [huge(), huge(), huge()])]).weigh(),
        u64::MAX
    );
    assert_eq!(Arc::new([huge(), huge(), huge()]).weigh(), u64::MAX);
}

/// A bound that is a part of a byte was zero bytes, in which nothing is ever kept.
#[test]
fn c11_a_bound_that_is_less_than_a_byte_is_refused_by_name_and_value() {
    let build = |size: &str| Cache::<u8, String>::builder().max_bytes(size).build();
    for text in [
        "0.5",
        "0.0001K",
        "0.0000001 MiB",
        "0.000000000000000000000000000000001T",
    ] {
        let error = build(text).unwrap_err();
        assert!(matches!(error, BuildError::MaxBytes(_)), "{error:?}");
        let words = error.to_string();
        assert!(
            words.starts_with(&format!("max_bytes: {text:?} is ")),
            "{words}"
        );

        let cache = build("1M").unwrap();
        let error = cache.set_max_bytes(text).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(cache.capacity(), Some(1 << 20));
    }
    for text in [
        "1e-3M", "1e3", "-1K", "", " ", "K", ".5K", "1,5K", "1.5\tK", "0x10",
    ] {
        assert!(build(text).is_err(), "{text}");
    }
    for text in ["16777216T", "99999999999999999999.5T"] {
        assert!(build(text).is_err(), "{text}");
    }
    // A zero that is written as one is a capacity like any other: nothing is kept.
    for text in ["0", "0K", "0.0K", " 0.000 M "] {
        let cache = build(text).unwrap();
        assert_eq!(cache.get_with(&1, || "spam".to_owned()), "spam");
        assert_eq!((cache.capacity(), cache.len()), (Some(0), 0));
    }
    for (text, bytes) in [
        ("1.5K", 1536),
        ("0.0009765625K", 1),
        (" 0.25 gib ", 1 << 28),
    ] {
        assert_eq!(build(text).unwrap().capacity(), Some(bytes), "{text}");
    }
}

/// For a type that is not `Weigh` the compiler says how to proceed.
#[test]
fn a_type_that_does_not_weigh_is_told_what_to_do() {
    trybuild::TestCases::new().compile_fail("tests/ui/weigh_*.rs");
}
