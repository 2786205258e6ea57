//! [`Weigh`]: how many bytes a value keeps in memory.
//!
//! The locks and pointers here are the user's, so they are std's under loom too.

use std::alloc::Layout;
use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::ffi::{CStr, CString, OsStr, OsString};
use std::marker::PhantomData;
use std::mem::{MaybeUninit, needs_drop};
use std::ops::{Bound, ControlFlow, Range, RangeFrom, RangeInclusive};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock, RwLock, TryLockError};

/// How many bytes a value keeps in memory: its own size, and the memory that it owns on the heap.
///
/// There are two methods, so that no byte is counted twice. [`heap_bytes`](Self::heap_bytes) is the
/// part that a type has to report: the memory that it owns *elsewhere*. [`weigh`](Self::weigh) adds
/// the size of the value itself, which the compiler knows; do not implement it. A field's own size
/// is part of the struct's, so a struct's heap bytes are the sum of those of its fields:
///
/// ```
/// use atomic_cache::Weigh;
///
/// struct Page {
///     title: String,
///     links: Vec<String>,
///     visits: u64,
/// }
///
/// impl Weigh for Page {
///     fn heap_bytes(&self) -> u64 {
///         // `visits` owns nothing.
///         self.title.heap_bytes() + self.links.heap_bytes()
///     }
/// }
///
/// let page = Page {
///     title: String::with_capacity(100),
///     links: vec!["/spam".to_owned(); 3],
///     visits: 0,
/// };
/// assert_eq!(page.heap_bytes(), 100 + 3 * (24 + 5));
/// assert_eq!(page.weigh(), size_of::<Page>() as u64 + page.heap_bytes());
/// ```
///
/// For a type of another crate, write a wrapper of your own:
///
/// ```
/// # mod image { pub struct Image(pub Vec<u8>); }
/// struct Picture(image::Image);
///
/// impl atomic_cache::Weigh for Picture {
///     fn heap_bytes(&self) -> u64 {
///         self.0.0.capacity() as u64
///     }
/// }
/// ```
///
/// # Which bytes are counted
///
/// The bytes that are asked for, not those that the allocator rounds them up to. A container counts
/// its capacity, not only its elements.
///
/// * `Vec`, `VecDeque`, `BinaryHeap`, `String` and the like: their capacity, exactly.
/// * `HashMap`, `HashSet`: by std's layout, one entry and one control byte a bucket, and as many
///   buckets as the capacity tells. Exact while nothing has been removed; where much has been, a
///   table may have more buckets than its capacity tells.
/// * `BTreeMap`, `BTreeSet`: nodes of std's layout, estimated to hold 8 entries of 11. That is
///   right for a map filled at random. One filled in order takes a sixth more than it weighs, one
///   thinned out a quarter more, and one collected at once two fifths less. Up to 11 entries are
///   one leaf, exactly.
/// * `Arc`, `Rc`: the value that they point to and its counters, whole, each time. Each pointer
///   keeps the value alive, and the number of other pointers may change at any time. So two that
///   share count it twice: that is more than there is, never less.
/// * `&T`, `&mut T`: nothing, because a reference owns nothing. (So mind the receiver of the
///   method: for a `&&T`, as a closure of `filter` gets it, it is the `&T` that is asked.)
/// * `Mutex`, `RwLock`, `RefCell`: the value inside, unless it is locked or borrowed (mutably) at
///   that moment. Then its heap counts as nothing, because a weigher must not wait. Weigh before
///   sharing, or keep the parts that change elsewhere. (A lock of a platform that puts its own
///   state on the heap: not counted.)
/// * A value that changes after it was weighed keeps its first weight.
///
/// A value that can reach itself (`Rc<RefCell<..>>` in a ring) is walked without end; it needs an
/// implementation of its own.
///
/// # Cost
///
/// Constant, but for containers of elements that own memory: each of them is asked. Elements that
/// need no drop ([`needs_drop`]) own nothing, and are not asked: a `Vec<u8>` or `[u64; 1000]` is
/// weighed in constant time. (So an implementation that reports bytes for a type that is `Copy` is
/// heard of for one such value, not for a `Vec` of them.)
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say how many bytes it keeps in memory",
    label = "`Weigh` is not implemented for `{Self}`",
    note = "implement `atomic_cache::Weigh` for it: `fn heap_bytes(&self) -> u64` is the sum of \
            `heap_bytes()` of its fields, or 0 if it owns nothing on the heap",
    note = "what is of another crate needs a struct of your own around it"
)]
pub trait Weigh {
    /// Returns the bytes that the value owns on the heap, without its own size.
    fn heap_bytes(&self) -> u64;

    /// Returns the bytes that the value keeps in memory: its own size and its
    /// [`heap_bytes`](Self::heap_bytes).
    fn weigh(&self) -> u64 {
        (size_of_val(self) as u64).saturating_add(self.heap_bytes())
    }
}

// ---- Types that own nothing.

macro_rules! own_nothing {
    ($($(#[$attr:meta])* $type:ty),* $(,)?) => {
        $(
            $(#[$attr])*
            impl Weigh for $type {
                #[inline]
                fn heap_bytes(&self) -> u64 {
                    0
                }
            }
        )*
    };
}

own_nothing! {
    (), bool, char, u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64,
    str, OsStr, CStr, Path,
    std::num::NonZeroU8, std::num::NonZeroU16, std::num::NonZeroU32, std::num::NonZeroU64,
    std::num::NonZeroU128, std::num::NonZeroUsize, std::num::NonZeroI8, std::num::NonZeroI16,
    std::num::NonZeroI32, std::num::NonZeroI64, std::num::NonZeroI128, std::num::NonZeroIsize,
    std::sync::atomic::AtomicBool, std::sync::atomic::AtomicU8, std::sync::atomic::AtomicU16,
    std::sync::atomic::AtomicU32, std::sync::atomic::AtomicU64, std::sync::atomic::AtomicUsize,
    std::sync::atomic::AtomicI8, std::sync::atomic::AtomicI16, std::sync::atomic::AtomicI32,
    std::sync::atomic::AtomicI64, std::sync::atomic::AtomicIsize,
    std::time::Duration, std::time::Instant, std::time::SystemTime,
    std::net::IpAddr, std::net::Ipv4Addr, std::net::Ipv6Addr,
    std::net::SocketAddr, std::net::SocketAddrV4, std::net::SocketAddrV6,
    std::cmp::Ordering, std::sync::atomic::Ordering, std::ops::RangeFull,
    std::any::TypeId, std::thread::ThreadId, std::convert::Infallible, std::fmt::Error,
    std::num::ParseIntError, std::num::ParseFloatError, std::num::TryFromIntError,
    std::str::Utf8Error, std::str::ParseBoolError, std::char::ParseCharError, Layout,
}

impl<T: ?Sized> Weigh for PhantomData<T> {
    fn heap_bytes(&self) -> u64 {
        0
    }
}

// `T: Weigh`, or `field.heap_bytes()` of a field that is a reference to a type that is not `Weigh`
// would compile, and be zero.
/// A reference owns nothing.
impl<T: ?Sized + Weigh> Weigh for &T {
    fn heap_bytes(&self) -> u64 {
        0
    }
}

/// A reference owns nothing.
impl<T: ?Sized + Weigh> Weigh for &mut T {
    fn heap_bytes(&self) -> u64 {
        0
    }
}

/// A `Copy` value owns nothing.
impl<T: Copy> Weigh for Cell<T> {
    fn heap_bytes(&self) -> u64 {
        0
    }
}

// ---- Types that hold others inline.

/// The sum of the bytes that the elements own: they are asked only if they need a drop.
#[inline]
fn of_each<'a, T: Weigh + 'a>(elements: impl IntoIterator<Item = &'a T>) -> u64 {
    if !needs_drop::<T>() {
        return 0;
    }
    elements
        .into_iter()
        .fold(0, |sum, element| sum.saturating_add(element.heap_bytes()))
}

impl<T: Weigh> Weigh for [T] {
    fn heap_bytes(&self) -> u64 {
        of_each(self)
    }
}

impl<T: Weigh, const N: usize> Weigh for [T; N] {
    fn heap_bytes(&self) -> u64 {
        of_each(self)
    }
}

impl<T: Weigh> Weigh for Option<T> {
    fn heap_bytes(&self) -> u64 {
        of_each(self)
    }
}

impl<T: Weigh, E: Weigh> Weigh for Result<T, E> {
    fn heap_bytes(&self) -> u64 {
        match self {
            Ok(value) => value.heap_bytes(),
            Err(error) => error.heap_bytes(),
        }
    }
}

impl<B: Weigh, C: Weigh> Weigh for ControlFlow<B, C> {
    fn heap_bytes(&self) -> u64 {
        match self {
            Self::Break(value) => value.heap_bytes(),
            Self::Continue(value) => value.heap_bytes(),
        }
    }
}

impl<T: Weigh> Weigh for Bound<T> {
    fn heap_bytes(&self) -> u64 {
        match self {
            Self::Included(bound) | Self::Excluded(bound) => bound.heap_bytes(),
            Self::Unbounded => 0,
        }
    }
}

impl<B: ?Sized + ToOwned<Owned: Weigh>> Weigh for Cow<'_, B> {
    fn heap_bytes(&self) -> u64 {
        match self {
            Self::Borrowed(_) => 0,
            Self::Owned(value) => value.heap_bytes(),
        }
    }
}

impl<T: Weigh> Weigh for Range<T> {
    fn heap_bytes(&self) -> u64 {
        of_each([&self.start, &self.end])
    }
}

impl<T: Weigh> Weigh for RangeInclusive<T> {
    fn heap_bytes(&self) -> u64 {
        of_each([self.start(), self.end()])
    }
}

impl<T: Weigh> Weigh for RangeFrom<T> {
    fn heap_bytes(&self) -> u64 {
        self.start.heap_bytes()
    }
}

impl<T: Weigh> Weigh for std::ops::RangeTo<T> {
    fn heap_bytes(&self) -> u64 {
        self.end.heap_bytes()
    }
}

impl<T: Weigh> Weigh for std::ops::RangeToInclusive<T> {
    fn heap_bytes(&self) -> u64 {
        self.end.heap_bytes()
    }
}

macro_rules! wrap_one {
    ($($wrapper:ident),*) => {
        $(
            impl<T: Weigh> Weigh for $wrapper<T> {
                fn heap_bytes(&self) -> u64 {
                    self.0.heap_bytes()
                }
            }
        )*
    };
}

use std::num::{Saturating, Wrapping};
wrap_one!(Reverse, Wrapping, Saturating);

macro_rules! tuples {
    ($($name:ident)*) => {
        tuples! { @each [] $($name)* }
    };
    (@each [$($before:ident)*]) => {};
    (@each [$($before:ident)*] $next:ident $($after:ident)*) => {
        impl<$($before: Weigh,)* $next: Weigh> Weigh for ($($before,)* $next,) {
            #[allow(non_snake_case)]
            fn heap_bytes(&self) -> u64 {
                let ($($before,)* $next,) = self;
                0_u64 $(.saturating_add($before.heap_bytes()))*.saturating_add($next.heap_bytes())
            }
        }
        tuples! { @each [$($before)* $next] $($after)* }
    };
}

tuples! { A B C D E F G H I J K L }

// ---- Locks and cells: without waiting.

impl<T: ?Sized + Weigh> Weigh for RefCell<T> {
    fn heap_bytes(&self) -> u64 {
        self.try_borrow().map_or(0, |value| value.heap_bytes())
    }
}

impl<T: ?Sized + Weigh> Weigh for Mutex<T> {
    fn heap_bytes(&self) -> u64 {
        match self.try_lock() {
            Ok(value) => value.heap_bytes(),
            Err(TryLockError::Poisoned(value)) => value.into_inner().heap_bytes(),
            Err(TryLockError::WouldBlock) => 0,
        }
    }
}

impl<T: ?Sized + Weigh> Weigh for RwLock<T> {
    fn heap_bytes(&self) -> u64 {
        match self.try_read() {
            Ok(value) => value.heap_bytes(),
            Err(TryLockError::Poisoned(value)) => value.into_inner().heap_bytes(),
            Err(TryLockError::WouldBlock) => 0,
        }
    }
}

impl<T: Weigh> Weigh for OnceCell<T> {
    fn heap_bytes(&self) -> u64 {
        of_each(self.get())
    }
}

impl<T: Weigh> Weigh for OnceLock<T> {
    fn heap_bytes(&self) -> u64 {
        of_each(self.get())
    }
}

// ---- Types that own one block on the heap.

/// The bytes of room for so many of a type.
fn room<T>(capacity: usize) -> u64 {
    // A vector of zero-sized elements has room for any number of them.
    (capacity as u64).saturating_mul(size_of::<T>() as u64)
}

impl Weigh for String {
    fn heap_bytes(&self) -> u64 {
        self.capacity() as u64
    }
}

impl Weigh for OsString {
    fn heap_bytes(&self) -> u64 {
        self.capacity() as u64
    }
}

impl Weigh for PathBuf {
    fn heap_bytes(&self) -> u64 {
        self.capacity() as u64
    }
}

impl Weigh for CString {
    fn heap_bytes(&self) -> u64 {
        self.as_bytes_with_nul().len() as u64
    }
}

impl<T: ?Sized + Weigh> Weigh for Box<T> {
    fn heap_bytes(&self) -> u64 {
        (**self).weigh()
    }
}

impl<T: Weigh> Weigh for Vec<T> {
    fn heap_bytes(&self) -> u64 {
        room::<T>(self.capacity()).saturating_add(of_each(self))
    }
}

impl<T: Weigh> Weigh for VecDeque<T> {
    fn heap_bytes(&self) -> u64 {
        room::<T>(self.capacity()).saturating_add(of_each(self))
    }
}

impl<T: Weigh> Weigh for BinaryHeap<T> {
    fn heap_bytes(&self) -> u64 {
        room::<T>(self.capacity()).saturating_add(of_each(self))
    }
}

/// The block of an `Arc` or `Rc`: two counters and the value.
fn counted<T: ?Sized + Weigh>(value: &T) -> u64 {
    let block = Layout::new::<[usize; 2]>()
        .extend(Layout::for_value(value))
        .map_or(0, |(layout, _)| layout.pad_to_align().size());
    (block as u64).saturating_add(value.heap_bytes())
}

impl<T: ?Sized + Weigh> Weigh for Arc<T> {
    /// The whole block, though other pointers may share it: see [`Weigh`].
    fn heap_bytes(&self) -> u64 {
        counted(&**self)
    }
}

impl<T: ?Sized + Weigh> Weigh for Rc<T> {
    /// The whole block, though other pointers may share it: see [`Weigh`].
    fn heap_bytes(&self) -> u64 {
        counted(&**self)
    }
}

macro_rules! pinned {
    ($($pointer:ident: $block:expr),*) => {
        $(
            /// As if it were not pinned.
            impl<T: ?Sized + Weigh> Weigh for Pin<$pointer<T>> {
                fn heap_bytes(&self) -> u64 {
                    let block: fn(&T) -> u64 = $block;
                    block(self)
                }
            }
        )*
    };
}

pinned! { Box: Weigh::weigh, Arc: counted, Rc: counted }

// ---- Tables, trees and lists.

/// The bytes that hashbrown, which is std's table, allocates for entries `T`: buckets, one control
/// byte for each, and a group of them more, because they are read by groups.
fn table<T>(capacity: usize) -> u64 {
    /// The number of control bytes that are read at once, which is also their alignment.
    const GROUP: usize = if cfg!(all(
        any(target_arch = "x86", target_arch = "x86_64"),
        target_feature = "sse2"
    )) {
        16
    } else {
        8
    };
    // A power of two, an eighth of which stays free; or all but one if they are few.
    let buckets = match capacity {
        0 => return 0,
        1..=3 => 4,
        4..=7 => 8,
        _ => (capacity.saturating_mul(8) / 7).next_power_of_two(),
    };
    let entries = room::<T>(buckets).next_multiple_of(GROUP as u64);
    entries.saturating_add((buckets + GROUP) as u64)
}

impl<K: Weigh, V: Weigh, S> Weigh for HashMap<K, V, S> {
    fn heap_bytes(&self) -> u64 {
        table::<(K, V)>(self.capacity())
            .saturating_add(of_each(self.keys()))
            .saturating_add(of_each(self.values()))
    }
}

impl<T: Weigh, S> Weigh for HashSet<T, S> {
    fn heap_bytes(&self) -> u64 {
        table::<T>(self.capacity()).saturating_add(of_each(self))
    }
}

/// The number of entries that a node of a B-tree has room for.
const NODE: usize = 11;
/// The number that it is taken to have. Filled in order, it is one that moves up and six that stay;
/// at random, 8.6 with the one above; collected at once, all eleven.
const USUAL: usize = 8;

/// A leaf of std's `BTreeMap`; the compiler orders the fields of this one as it does of that one.
#[allow(dead_code)]
struct Leaf<K, V> {
    parent: Option<std::ptr::NonNull<u8>>,
    parent_index: MaybeUninit<u16>,
    len: u16,
    keys: [MaybeUninit<K>; NODE],
    values: [MaybeUninit<V>; NODE],
}

#[allow(dead_code)]
struct Branch<K, V> {
    leaf: Leaf<K, V>,
    edges: [*const u8; NODE + 1],
}

fn tree<K, V>(len: usize) -> u64 {
    let mut nodes = match len {
        0 => return 0,
        1..=NODE => 1,
        _ => len.div_ceil(USUAL),
    };
    let mut bytes = room::<Leaf<K, V>>(nodes);
    while nodes > 1 {
        nodes = nodes.div_ceil(if nodes <= NODE + 1 { NODE + 1 } else { USUAL });
        bytes = bytes.saturating_add(room::<Branch<K, V>>(nodes));
    }
    bytes
}

impl<K: Weigh, V: Weigh> Weigh for BTreeMap<K, V> {
    fn heap_bytes(&self) -> u64 {
        tree::<K, V>(self.len())
            .saturating_add(of_each(self.keys()))
            .saturating_add(of_each(self.values()))
    }
}

impl<T: Weigh> Weigh for BTreeSet<T> {
    fn heap_bytes(&self) -> u64 {
        tree::<T, ()>(self.len()).saturating_add(of_each(self))
    }
}

impl<T: Weigh> Weigh for LinkedList<T> {
    fn heap_bytes(&self) -> u64 {
        #[allow(dead_code)]
        struct Node<T>(*const u8, *const u8, T);
        room::<Node<T>>(self.len()).saturating_add(of_each(self))
    }
}
