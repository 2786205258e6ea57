//! A table of the methods, and the effects of each when things go wrong. Documentation only.
//!
//! # First: where does the fill come from?
//!
//! | you have | take | its method |
//! |---|---|---|
//! | one way to compute every value | an [`AtomicCache`]: a stored fill | `get(&key)`, `get_async(&key)` |
//! | another way for each call, or values that you put in | a [`Cache`]: a fill per call | `get_with(&key, \|\| ..)`, `insert(key, value)` |
//! | a function, `async` or not | [`memoize!`] | the function itself |
//! | a way that can fail | the method with `try_`; of an `AtomicCache`, [`try_new`](AtomicCache::try_new) | `try_get(&key)`, `try_get_with(&key, \|\| ..)` |
//!
//! A method that waits has a twin for tasks, which ends in `_async`, runs on any runtime, and needs
//! the feature `async` (on unless turned off). Where the table has "the same" for tasks, the method
//! does not wait: call it from threads and tasks alike.
//!
//! ```
//! use atomic_cache::{AtomicCache, Cache};
//!
//! # futures_lite::future::block_on(async {
//! // A stored fill: the callers need not know it.
//! let lengths = AtomicCache::new(|text: &String| text.len(), None);
//! assert_eq!(lengths.get("spam"), 4);
//! let lengths = AtomicCache::new_async(|text: String| async move { text.len() }, None);
//! assert_eq!(lengths.get_async("spam").await, 4);
//!
//! // A fill per call: it may use what the caller has at hand.
//! let cache: Cache<String, usize> = Cache::unbounded();
//! assert_eq!(cache.get_with("spam", || 4), 4);
//! assert_eq!(cache.get_with_async("eggs", || async { 4 }).await, 4);
//! # });
//! ```
//!
//! # The table
//!
//! | you want | of a [`Cache`] | of an [`AtomicCache`] | for tasks | answer | waits for |
//! |---|---|---|---|---|---|
//! | **to look**, and compute nothing | [`get`](Cache::get), [`with`](Cache::with) | [`pin()`](AtomicCache::pin) and [`get`](Pinned::get) | the same | `Option` of the value, or of the closure's result | nothing |
//! | ... without counting as a use of the entry | [`peek`](Cache::peek), [`contains`](Cache::contains) | [`peek`](AtomicCache::peek), [`contains`](AtomicCache::contains) | the same | `Option<V>`, `bool` | nothing |
//! | **the value, computed if absent** | [`get_with`](Cache::get_with) | [`get`](AtomicCache::get) | [`get_with_async`](Cache::get_with_async), [`get_async`](AtomicCache::get_async) | `V` | the key's fill |
//! | ... by a fill that can fail | [`try_get_with`](Cache::try_get_with) | [`try_get`](AtomicCache::try_get) | [`try_get_with_async`](Cache::try_get_with_async), [`try_get_async`](AtomicCache::try_get_async) | `Result<V, `[`TryGetError<E>`](TryGetError)`>` | the key's fill |
//! | ... that may find no value, which is not kept | [`optionally_get_with`](Cache::optionally_get_with) | `try_get` with an error for "nothing" | [`optionally_get_with_async`](Cache::optionally_get_with_async) | `Option<V>` | the key's fill |
//! | ... or find no value, which is kept | `get_with`, of a `Cache<K, Option<V>>` | `get`, of an `AtomicCache<K, Option<V>>` | their twins | `Option<V>` | the key's fill |
//! | ... and whether this call computed it; the key is given away | [`entry(k).or_insert_with`](EntrySelector::or_insert_with), [`or_try_insert_with`](EntrySelector::or_try_insert_with) | - | [`or_insert_with_async`](EntrySelector::or_insert_with_async), [`or_try_insert_with_async`](EntrySelector::or_try_insert_with_async) | [`Entry<V>`](Entry) | the key's fill |
//! | ... lent, not cloned | [`pin()`](Cache::pin) and [`get_or_fill_with`](Pinned::get_or_fill_with) | [`with`](AtomicCache::with); [`pin()`](AtomicCache::pin) and [`get_or_fill`](AtomicPinned::get_or_fill) | [`with_async`](AtomicCache::with_async) | `&V`, while the guard lives; the closure's result | the key's fill |
//! | ... but not to wait longer than | [`get_value_or_guard`](Cache::get_value_or_guard) | - | your runtime's timeout | [`GuardResult`] | the key's fill, or the timeout |
//! | to compute without a closure | [`get_value_or_guard`](Cache::get_value_or_guard) | - | [`get_value_or_guard_async`](Cache::get_value_or_guard_async) | a [`PlaceholderGuard`]; a [`TaskGuard`](crate::TaskGuard) | the key's fill |
//! | **to put a value in** | [`insert`](Cache::insert) | - | the same | nothing; one that is too heavy is not kept, and the older value is removed all the same | nothing |
//! | ... and to have it back if it is too heavy | [`try_insert`](Cache::try_insert) | - | the same | `Result<(), `[`OversizeError<V>`](crate::OversizeError)`>` | nothing |
//! | ... if there is none | [`entry(k).or_insert`](EntrySelector::or_insert) | - | `or_insert_with_async` | [`Entry<V>`](Entry) | the key's fill |
//! | to read and change in one step | [`entry(k).and_compute_with`](EntrySelector::and_compute_with) | - | [`and_compute_with_async`](EntrySelector::and_compute_with_async) | [`CompResult<V>`](CompResult) | the key's fill |
//! | **a newer value**, and the old one served meanwhile | `and_compute_with`; `f::refresh(..)` of a [`memoize!`]d `f` | [`refresh`](AtomicCache::refresh), [`try_refresh`](AtomicCache::try_refresh) | [`refresh_async`](AtomicCache::refresh_async), [`try_refresh_async`](AtomicCache::try_refresh_async) | as `get`, `try_get` | the key's fill, and its own |
//! | **to remove a key**, and wait until a running fill has ended | [`invalidate`](Cache::invalidate) | [`invalidate`](AtomicCache::invalidate) | [`invalidate_async`](Cache::invalidate_async) | whether it has removed a value | the key's fill |
//! | ... and to have the removed value | [`remove`](Cache::remove) | [`remove`](AtomicCache::remove) | [`remove_async`](Cache::remove_async) | `Option<V>` | the key's fill |
//! | ... and not to wait | [`invalidate_nowait`](Cache::invalidate_nowait) | [`invalidate_nowait`](AtomicCache::invalidate_nowait) | the same | whether it has removed a value | nothing |
//! | ... and to have the removed value | [`remove_nowait`](Cache::remove_nowait) | [`remove_nowait`](AtomicCache::remove_nowait) | the same | `Option<V>` | nothing |
//! | to remove every key | [`invalidate_all`](Cache::invalidate_all) | [`invalidate_all`](AtomicCache::invalidate_all) | [`invalidate_all_async`](Cache::invalidate_all_async) | nothing | all running fills |
//! | ... and not to wait | [`invalidate_all_nowait`](Cache::invalidate_all_nowait) | [`invalidate_all_nowait`](AtomicCache::invalidate_all_nowait) | the same | nothing | nothing |
//! | to remove those that a predicate picks | [`invalidate_if`](Cache::invalidate_if) | [`invalidate_if`](AtomicCache::invalidate_if) | [`invalidate_if_async`](Cache::invalidate_if_async) | nothing | fills over values that it picks, and all refreshes; not for first fills |
//! | ... and not to wait | [`invalidate_if_nowait`](Cache::invalidate_if_nowait) | [`invalidate_if_nowait`](AtomicCache::invalidate_if_nowait) | the same | nothing | nothing |
//! | **many look-ups**, at the cost of one pin | [`pin()`](Cache::pin) | [`pin()`](AtomicCache::pin) | the same, not over an `.await` | a guard | nothing |
//! | every entry | [`iter`](Cache::iter), [`keys`](Cache::keys) | [`iter`](AtomicCache::iter), [`keys`](AtomicCache::keys) | the same | clones | nothing |
//! | to abandon a stuck fill | [`takeover`](Cache::takeover) | [`takeover`](AtomicCache::takeover) | the same | whether one ran | nothing |
//! | to end: no more fills | [`close`](Cache::close), [`close_within`](Cache::close_within) | [`close`](AtomicCache::close), [`close_within`](AtomicCache::close_within) | [`close_async`](Cache::close_async), [`close_async_until`](Cache::close_async_until) | nothing; the number of abandoned fills | all running fills |
//! | to have removed values dropped now | [`quiesce`](Cache::quiesce) | [`quiesce`](AtomicCache::quiesce) | none: `spawn_blocking` | nothing | pinned guards of all threads, of any cache |
//!
//! ```
//! use atomic_cache::{Cache, CompResult, Op};
//!
//! let stock: Cache<String, u32> = Cache::unbounded();
//!
//! // Look. Nothing is computed.
//! assert_eq!(stock.get("spam"), None);
//! // Put in; if there is none; change.
//! let spam = || "spam".to_owned();
//! stock.insert(spam(), 3);
//! assert_eq!(stock.entry(spam()).or_insert(9).into_value(), 3);
//! let one_less = |seen: Option<&u32>| match seen {
//!     Some(&n) if n > 1 => Op::Put(n - 1),
//!     Some(_) => Op::Remove,
//!     None => Op::Nop,
//! };
//! assert_eq!(stock.entry(spam()).and_compute_with(one_less), CompResult::ReplacedWith(2));
//! assert_eq!(stock.entry("eggs".to_owned()).and_compute_with(one_less), CompResult::StillNone);
//! // Compute if absent; did this call?
//! assert_eq!(stock.get_with("eggs", || 12), 12);
//! assert!(!stock.entry("eggs".to_owned()).or_insert_with(|| 13).is_fresh());
//! // Many look-ups, lent.
//! let view = stock.pin();
//! assert_eq!(view["spam"] + view["eggs"], 14);
//! drop(view);
//! // Remove.
//! assert_eq!(stock.remove("spam"), Some(2));
//! stock.invalidate_if(|_, &n| n > 10);
//! assert!(stock.is_empty());
//! ```
//!
//! # Where a fill runs
//!
//! The fill of one key runs once, whichever caller asks for it and by whichever method. The runs
//! differ in the caller that makes them, and so in the effect of that caller being gone:
//!
//! | | per call, by a thread: `get_with` | per call, by a task: `get_with_async` | stored closure: [`AtomicCache::new`] | stored future: [`AtomicCache::new_async`]; an `async` [`memoize!`] |
//! |---|---|---|---|---|
//! | is run by | the first caller | the first caller, when it is polled | the first caller, in one go | **every waiter, when polled** |
//! | may borrow | from its caller | from its caller | nothing: `Send + Sync + 'static` | nothing: `Send + 'static` |
//! | the first caller is dropped midway | cannot be | the fill is dropped; one waiter runs its own | cannot be | no effect, if another caller waits |
//! | the last caller is dropped midway | cannot be | the fill is dropped | cannot be | it is dropped, or goes to the [`spawner`](Builder::spawner) |
//! | the first caller is kept and not polled | cannot be | **all wait, until it is** | cannot be | the others poll it |
//! | it panics | in its caller; one waiter runs its own | as with a thread | in its caller; one waiter runs it | in the caller that polls just then; one waiter starts it anew |
//! | it fails | all get a clone of the error, and nothing is kept | as with a thread | as with a thread | as with a thread |
//! | needs a runtime (a timer, a socket) | - | its caller's | - | the one it is first polled on; it may die with that |
//! | has the task-locals of | - | its caller | - | the caller that polls it at that moment |
//!
//! A fill per call allocates no flight while no caller waits for it; a stored future always does.
//! So for a quick fill, or one that borrows, take a fill per call. For a slow one that serves
//! clients which come and go, take an [`AtomicCache`] with an async fill.
//!
//! Per call: the next caller goes on, with its own fill.
//!
//! ```
//! use atomic_cache::Cache;
//! use futures_lite::future::{block_on, pending, poll_once};
//!
//! # block_on(async {
//! let cache: Cache<u32, &str> = Cache::unbounded();
//! let mut first = Box::pin(cache.get_with_async(&1, || pending::<&str>()));
//! let mut second = Box::pin(cache.get_with_async(&1, || async { "from the second" }));
//! assert_eq!(poll_once(&mut first).await, None);
//! assert_eq!(poll_once(&mut second).await, None); // it waits for the first
//! drop(first);
//! assert_eq!(second.await, "from the second");
//! # });
//! ```
//!
//! Stored: nothing is lost, and a forgotten caller holds up no other.
//!
//! ```
//! use atomic_cache::AtomicCache;
//! use futures_lite::future::{block_on, poll_once, yield_now};
//!
//! # block_on(async {
//! let slow = |n: u32| async move {
//!     for _ in 0..2 {
//!         yield_now().await; // for a slow back end
//!     }
//!     n * 10
//! };
//! let cache = AtomicCache::new_async(slow, None);
//! let mut dropped = Box::pin(cache.get_async(&1));
//! let mut forgotten = Box::pin(cache.get_async(&1));
//! assert_eq!(poll_once(&mut dropped).await, None);
//! assert_eq!(poll_once(&mut forgotten).await, None);
//! let third = cache.get_async(&1);
//! drop(dropped);
//! assert_eq!(third.await, 10);
//! assert_eq!(cache.stats().fills, 1);
//! # });
//! ```
//!
//! When no caller is left, the fill goes where the builder says:
//!
//! ```
//! use atomic_cache::AtomicCache;
//! use futures_lite::future::{block_on, poll_once, yield_now};
//! use std::sync::mpsc;
//!
//! # fn main() -> Result<(), atomic_cache::BuildError> {
//! let (left, orphans) = mpsc::channel();
//! let cache = AtomicCache::<u32, u32>::builder()
//!     .spawner(move |fill| left.send(fill).unwrap()) // tokio: |fill| drop(tokio::spawn(fill))
//!     .build_with_async(|n| async move {
//!         yield_now().await;
//!         n * 10
//!     })?;
//! # block_on(async {
//! let mut only = Box::pin(cache.get_async(&1));
//! assert_eq!(poll_once(&mut only).await, None);
//! drop(only);
//! orphans.recv().unwrap().await; // as a runtime does
//! assert_eq!(cache.peek(&1), Some(10));
//! # });
//! # Ok(())
//! # }
//! ```
//!
//! # Dropped futures
//!
//! Nothing happens before the first poll. After it:
//!
//! | dropped while it waits | leaves behind |
//! |---|---|
//! | `get_async`, `get_with_async` and their kin | see the table above; a wait for another caller's fill leaves nothing |
//! | `refresh_async`, `and_compute_with_async` | the old value, as it was; other waiters of that fill go on as in the table above |
//! | `invalidate_async`, `remove_async`, `invalidate_all_async` | the removal: it has taken effect at the first poll, and the value of the running fill is not kept |
//! | `invalidate_if_async` | the removal of the entries that it picked at its first poll; of the refreshes that ran, only those are judged that had ended |
//!
//! So every method may stand in a `select!` or under a timeout:
//!
//! ```
//! use atomic_cache::AtomicCache;
//! use std::time::Duration;
//! use tokio::time::{sleep, timeout};
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
//! # runtime.block_on(async {
//! let slow = |n: u64| async move {
//!     sleep(Duration::from_millis(60)).await;
//!     n * 10
//! };
//! let cache = AtomicCache::new_async(slow, None);
//! let patient = cache.get_async(&1);
//! let hasty = timeout(Duration::from_millis(1), cache.get_async(&1));
//! let (patient, hasty) = tokio::join!(patient, hasty);
//! assert!(hasty.is_err());
//! assert_eq!(patient, 10);
//! assert_eq!(cache.stats().fills, 1);
//! # });
//! ```
//!
//! A thread that must not wait for ever for the fill of another caller asks for a guard:
//!
//! ```
//! use atomic_cache::{Cache, GuardResult};
//! use std::time::Duration;
//!
//! let cache: Cache<u32, u32> = Cache::unbounded();
//! cache.get_with(&1, || {
//!     std::thread::scope(|scope| {
//!         let other = scope.spawn(|| {
//!             let result = cache.get_value_or_guard(&1, Some(Duration::from_millis(1)));
//!             matches!(result, GuardResult::Timeout)
//!         });
//!         assert!(other.join().unwrap());
//!     });
//!     10
//! });
//! ```
//!
//! # Errors, cycles, a closed cache
//!
//! | event | `try_` methods | the others |
//! |---|---|---|
//! | the fill fails | [`TryGetError::Fill`], for all waiters with the same error type; waiters with another type run their own fill | - |
//! | the wait would never end: own key, or fills that wait for each other | [`TryGetError::Cycle`] with the keys along the cycle | panic with that text |
//! | the cache is [closed](Cache::close), and a value would have to be computed | [`TryGetError::Closed`] | panic with that text |
//! | the removal of a key with a fill that makes this call, or that waits for it | - | it does not wait, as [`invalidate_nowait`](Cache::invalidate_nowait) |
//!
//! Errors are not kept: the next call computes again. To keep them, let the value be a `Result`;
//! for a [`memoize!`]d function, say `cache_err`.
//!
//! A cycle is found over threads and tasks alike, as long as the waits are made inside the fills.
//! If a fill *spawns* a task and then waits for it, that wait is not seen: ask for the other key in
//! the fill itself. Nor, without the feature `tokio`, is the wait of a blocking fill by `block_on`.
//!
//! ```
//! use atomic_cache::{AtomicCache, Cache, TryGetError};
//!
//! # futures_lite::future::block_on(async {
//! let ports = AtomicCache::try_new_async(|text: String| async move { text.parse::<u16>() }, None);
//! assert!(matches!(ports.try_get_async("eighty").await, Err(TryGetError::Fill(_))));
//! assert!(!ports.contains("eighty"));
//!
//! let cache: Cache<String, u32> = Cache::unbounded();
//! let answer = cache.try_get_with_async("egg", || async {
//!     cache.try_get_with_async("hen", || async {
//!         match cache.try_get_with_async("egg", || async { Ok::<_, ()>(1) }).await {
//!             Err(TryGetError::Cycle(cycle)) => {
//!                 assert!(cycle.to_string().contains("hen"));
//!                 Ok::<_, ()>(7) // which came first?
//!             }
//!             other => panic!("{other:?}"),
//!         }
//!     })
//!     .await
//!     .map_err(|_| ())
//! });
//! assert_eq!(answer.await, Ok(7));
//!
//! cache.close_async().await;
//! assert_eq!(cache.get("egg"), Some(7));
//! let refused = cache.try_get_with("ham", || Ok::<_, ()>(1));
//! assert!(matches!(refused, Err(TryGetError::Closed(_))));
//! # });
//! ```
//!
//! # Threads and tasks on one cache
//!
//! They share its flights: a thread in `get` and a task in `get_async` wait for the same fill.
//!
//! | the fill is | a thread that waits | a task that waits |
//! |---|---|---|
//! | of a thread | sleeps until it is done | is woken when it is done |
//! | of a task, per call | sleeps until that task has been polled to its end | is woken when it is done |
//! | a stored future | **polls it**, and sleeps in between | polls it |
//!
//! ```
//! use atomic_cache::AtomicCache;
//! use futures_lite::future::{block_on, poll_once, yield_now};
//!
//! # block_on(async {
//! let slow = |n: u32| async move {
//!     yield_now().await;
//!     n * 10
//! };
//! let cache = AtomicCache::new_async(slow, None);
//! let mut task = Box::pin(cache.get_async(&1));
//! assert_eq!(poll_once(&mut task).await, None);
//! // A blocking caller, even on the same thread, goes on with what the task has begun.
//! assert_eq!(cache.get(&1), 10);
//! assert_eq!(task.await, 10);
//! assert_eq!(cache.stats().fills, 1);
//! # });
//! ```
//!
//! Four rules for tasks:
//!
//! * **Do not call a method that waits where there is a twin.** It blocks a thread of the runtime.
//!   If that is the only one, and the fill is of a task per call, that task is never polled again.
//!   Inside a fill that is a future, the wait panics instead, and names the twins; with the feature
//!   `tokio`, in every task. See [`Cache`](Cache#where-a-thread-may-not-wait), also for the message
//!   of tokio that comes first.
//! * **Where the compiler says "remove the `.await`", add `_async` instead.**
//!   `cache.invalidate(&key).await` is an error, "`bool` is not a future", and rustc's help for it
//!   compiles and blocks: write `cache.invalidate_async(&key).await`.
//! * **Hold no pinned guard and no [`PlaceholderGuard`] over an `.await`.** They are not `Send`, so
//!   that the compiler says so where tasks move between threads. On one thread, a pinned guard
//!   keeps removed values in memory. A task's guard is [`TaskGuard`](crate::TaskGuard).
//! * **A stored async fill is polled by threads, too**, if threads ask, or wait for its end
//!   (`invalidate`, `close`). If it needs a runtime, they have to be inside it: `enter` of a tokio
//!   runtime of several threads (one of a single thread drives its timers only in its own
//!   `block_on`), or `block_on` of the runtime itself. Outside, the fill panics, and one of the
//!   other callers that have asked for the value starts it anew. With several runtimes see
//!   [`AtomicCache::new_async`].
//!
//! ```
//! use atomic_cache::AtomicCache;
//! use std::time::Duration;
//!
//! let slow = |n: u64| async move {
//!     tokio::time::sleep(Duration::from_millis(5)).await;
//!     n * 10
//! };
//! let cache = AtomicCache::new_async(slow, None);
//! let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build()?;
//! assert_eq!(runtime.block_on(cache.get_async(&1)), 10);
//! let _inside = runtime.enter();
//! assert_eq!(cache.get(&2), 20); // polled by this very thread
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! [`memoize!`]: macro@crate::memoize

#[cfg(doc)]
use crate::{
    AtomicCache, AtomicPinned, Builder, Cache, CompResult, Entry, EntrySelector, GuardResult,
    Pinned, PlaceholderGuard, TryGetError,
};
