//! The methods of tasks, on the same types as those of threads. They take the same steps of the
//! core, and poll where the others park.

mod fetch;
mod lead;

use crate::actor::new_fill;
use crate::atomic_cache::{AtomicCache, Keep, StoredFill};
use crate::blocking::in_poll;
use crate::builder::{Builder, Naming};
use crate::cache::{Cache, NoValue, sure};
use crate::core::{Aim, Awaited, Blank, BoxFill, Core, Detached, Leader, Part, Spare, Wait};
use crate::entry::{CompResult, Entry, EntrySelector, Op};
use crate::error::{BuildError, CycleError, TryGetError};
use crate::fill::Borrowed;
use crate::guard::TaskGuardResult;
use crate::key::{Equivalent, ToKey};
use crate::stats::Event;
use fetch::{AsyncFill, Fetch, Fetched, LeftToAll, PerCall, StoredAsync};
use pin_project_lite::pin_project;
use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::hash::{BuildHasher, Hash};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

/// Waits for the end of a fill that has been detached.
struct Ended<'c, K: Hash + Eq, V, S: BuildHasher>(Wait<'c, K, V, S>);

impl<'c, K: Hash + Eq, V, S: BuildHasher> Ended<'c, K, V, S> {
    fn new(part: Part<'c, K, V, S>, hash: u64) -> Self {
        Self(part.wait_as(new_fill(), hash))
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Future for Ended<'_, K, V, S> {
    type Output = Result<(), CycleError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx.waker()).map_ok(|_| ())
    }
}

/// Does the housekeeping when it is dropped, inside a future of ours, after everything declared
/// later. Also when the future is dropped while it waits: it may have been the last to hold a
/// removed entry.
struct Tidied<'c, K: Hash + Eq, V, S: BuildHasher>(&'c Core<K, V, S>);

impl<K: Hash + Eq, V, S: BuildHasher> Drop for Tidied<'_, K, V, S> {
    fn drop(&mut self) {
        self.0.tidy_in_poll();
    }
}

/// The answer of a fetch that cannot fail; a cycle or a closed cache is a panic.
fn sure_value<V: Clone>(result: Result<Fetched<'_, V>, TryGetError<Infallible>>) -> V {
    sure(result).value.clone()
}

fn value<V: Clone, E>(result: Result<Fetched<'_, V>, TryGetError<E>>) -> Result<V, TryGetError<E>> {
    match result {
        Ok(fetched) => Ok(fetched.value.clone()),
        Err(error) => Err(error),
    }
}

/// Puts the value of a fill that cannot fail into its cell.
fn put<V>(value: V, blank: &mut Blank<'_, V>) -> Result<(), Infallible> {
    blank.try_put(Ok(value))
}

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// Returns the value of a key, computed by the future that `fill` makes if it is not there:
    /// [`get_with`](Self::get_with) for tasks. The returned future polls the fill.
    ///
    /// It runs on any runtime and blocks no thread. It shares its flights with blocking callers. A
    /// hit never answers `Pending` and allocates nothing. The future borrows the cache and the key;
    /// to spawn it, move a clone of each into an `async move` block.
    ///
    /// **If it is dropped** before it has answered, its fill, if it had begun, is dropped with it,
    /// and one waiter runs its own. **If it is kept and not polled**, its waiters wait on. Bound
    /// their wait by a timeout of your runtime, or use an [`AtomicCache`] with an async fill, which
    /// every waiter can poll.
    ///
    /// **Its wait counts as a wait of the fill that polls it**, for the
    /// [cycles](Self::try_get_with_async) that it could close. Inside a fill it must not wait for a
    /// fill by a method that blocks: that [panics](Self#where-a-thread-may-not-wait).
    ///
    /// # Panics
    /// With the text of a [`CycleError`] if the wait would never end, and of a
    /// [`ClosedError`](crate::ClosedError) if the cache has been closed. A panic of the fill goes
    /// on in the caller that polls it.
    ///
    /// ```
    /// # futures_lite::future::block_on(async {
    /// let cache: atomic_cache::Cache<String, usize> = atomic_cache::Cache::unbounded();
    /// let length = cache.get_with_async("spam", || async { 4 }).await;
    /// assert_eq!((length, cache.get("spam")), (4, Some(4)));
    /// # });
    /// ```
    pub fn get_with_async<'a, Q, F>(
        &'a self,
        key: &'a Q,
        fill: impl FnOnce() -> F,
    ) -> impl Future<Output = V>
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
        F: Future<Output = V>,
        V: Clone,
    {
        let fill = PerCall::new(fill, put::<V>);
        self.fetch_async(key, Aim::Value, fill, sure_value)
    }

    /// Returns the value of a key, computed if it is not there by a future that can fail:
    /// [`try_get_with`](Self::try_get_with) for tasks. Waits, and behaves when it is dropped, as
    /// [`get_with_async`](Self::get_with_async) does.
    ///
    /// # Errors
    /// As [`try_get_with`](Self::try_get_with). A cycle is found over tasks and threads alike, if
    /// the waits are made inside the fills: a fill that spawns a task and then waits for it is not
    /// seen.
    ///
    /// A wait is charged to the async fill that polls it. If a *blocking* fill awaits by some
    /// `block_on`, that wait is seen with the feature `tokio` only. Without it, the cache cannot
    /// tell the wait from a task that this thread happens to poll, and a fill that blocks on its
    /// own key in this way hangs. With it, a wait is charged to the fill's thread while the thread
    /// is in the task of tokio in which the fill began, or, as then, in none. (So tasks of another
    /// runtime that the thread polls inside its blocking fill are charged to that fill, too.)
    ///
    /// # Panics
    /// With the panic of the fill, in the caller that polls it.
    ///
    /// ```
    /// # futures_lite::future::block_on(async {
    /// let cache: atomic_cache::Cache<String, u16> = atomic_cache::Cache::unbounded();
    /// let port = cache.try_get_with_async("80", || async { "80".parse() }).await;
    /// assert_eq!(port, Ok(80));
    /// # });
    /// ```
    pub fn try_get_with_async<'a, Q, F, E>(
        &'a self,
        key: &'a Q,
        fill: impl FnOnce() -> F,
    ) -> impl Future<Output = Result<V, TryGetError<E>>>
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
        F: Future<Output = Result<V, E>>,
        V: Clone,
        E: Clone + Send + Sync + 'static,
    {
        let fill = PerCall::new(fill, |result, blank: &mut Blank<'_, V>| {
            blank.try_put(result)
        });
        self.fetch_async(key, Aim::Value, fill, value)
    }

    /// Returns the value of a key, computed if it is not there by a future that may find that there
    /// is no value: [`optionally_get_with`](Self::optionally_get_with) for tasks. Waits, and
    /// behaves when it is dropped, as [`get_with_async`](Self::get_with_async) does.
    ///
    /// # Panics
    /// As [`get_with_async`](Self::get_with_async).
    ///
    /// ```
    /// # futures_lite::future::block_on(async {
    /// let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// assert_eq!(cache.optionally_get_with_async(&1, || async { None }).await, None);
    /// # });
    /// ```
    pub fn optionally_get_with_async<'a, Q, F>(
        &'a self,
        key: &'a Q,
        fill: impl FnOnce() -> F,
    ) -> impl Future<Output = Option<V>>
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
        F: Future<Output = Option<V>>,
        V: Clone,
    {
        let fill = PerCall::new(fill, |value: Option<V>, blank: &mut Blank<'_, V>| {
            blank.try_put(value.ok_or(NoValue))
        });
        self.fetch_async(key, Aim::Value, fill, |result| match value(result) {
            Ok(value) => Some(value),
            Err(TryGetError::Fill(NoValue)) => None,
            Err(TryGetError::Cycle(cycle)) => panic!("{cycle}"),
            Err(TryGetError::Closed(closed)) => panic!("{closed}"),
        })
    }

    /// Does a [`try_get_with_async`](Self::try_get_with_async), or a refresh, with a fill that
    /// every waiter can poll, as that of an [`AtomicCache`]. Calls `make` again if a fill that it
    /// has made was lost.
    pub(crate) fn fetch_run<'a, Q, E>(
        &'a self,
        key: &'a Q,
        aim: Aim,
        make: impl Fn() -> BoxFill<V, E>,
    ) -> impl Future<Output = Result<V, TryGetError<E>>>
    where
        K: Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
        S: Send + Sync + 'static,
        E: Clone + Send + Sync + 'static,
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
    {
        self.fetch_async(key, aim, LeftToAll { cache: self, make }, value)
    }

    /// Waits for the value of a key, or makes the caller the one that computes it:
    /// [`get_value_or_guard`](Self::get_value_or_guard) for tasks.
    ///
    /// Its guard may be held over an `.await`. It blocks no thread and takes no timeout: use your
    /// runtime's.
    ///
    /// ```
    /// use atomic_cache::{Cache, TaskGuardResult};
    ///
    /// # futures_lite::future::block_on(async {
    /// let cache: Cache<u32, String> = Cache::unbounded();
    /// match cache.get_value_or_guard_async(&1).await {
    ///     TaskGuardResult::Guard(guard) => assert_eq!(guard.insert("one".into()), "one"),
    ///     other => panic!("{other:?}"),
    /// }
    /// # });
    /// ```
    pub async fn get_value_or_guard_async<Q>(&self, key: &Q) -> TaskGuardResult<'_, K, V, S>
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
        V: Clone,
    {
        match self.get(key) {
            Some(value) => TaskGuardResult::Value(value),
            None => lead::guard(&self.core, self.core.hash(key), key).await,
        }
    }

    fn fetch_async<'c, Q, F, A, T>(
        &'c self,
        key: &'c Q,
        aim: Aim,
        fill: F,
        answer: A,
    ) -> Fetch<'c, K, V, S, Borrowed<'c, Q>, F, A>
    where
        Q: ?Sized,
        F: AsyncFill<K, V, S>,
        A: FnOnce(Result<Fetched<'_, V>, TryGetError<F::Error>>) -> T,
    {
        let core = &*self.core;
        let spare = Spare::none(core, 0);
        Fetch::new(core, spare, Borrowed(key), aim, fill, answer)
    }

    /// Removes a key, and waits, without blocking the thread, for a running fill of it. Returns
    /// whether it has removed a value: [`invalidate`](Self::invalidate) for tasks. Its twin
    /// [`invalidate_nowait`](Self::invalidate_nowait) never waits.
    ///
    /// It takes effect when it is first polled. If it is dropped while it waits, the removal stays
    /// in effect: the fill's value is not kept, and the value that a compute leaves is removed.
    ///
    /// ```
    /// # futures_lite::future::block_on(async {
    /// let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// cache.insert(1, 10);
    /// assert!(cache.invalidate_async(&1).await);
    /// # });
    /// ```
    pub async fn invalidate_async<Q>(&self, key: &Q) -> bool
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        let core = &*self.core;
        let hash = core.hash(key);
        let is_key = |other: &K| key.equivalent(other);
        let removed = core.remove(hash, &is_key, true, Event::Explicit, &mut |_| {});
        core.ended(removed, hash, &mut |_| {}).await
    }

    /// Removes a key, waits, without blocking the thread, for a running fill of it, and returns a
    /// clone of the removed value: [`remove`](Self::remove) for tasks. Its twin
    /// [`remove_nowait`](Self::remove_nowait) never waits. When it is dropped, it behaves as
    /// [`invalidate_async`](Self::invalidate_async) does.
    pub async fn remove_async<Q>(&self, key: &Q) -> Option<V>
    where
        Q: ?Sized + Hash + Equivalent<K>,
        V: Clone,
    {
        let core = &*self.core;
        let hash = core.hash(key);
        let is_key = |other: &K| key.equivalent(other);
        let mut value = None;
        let removed = {
            let mut read = |removed: &V| value = Some(removed.clone());
            core.remove(hash, &is_key, true, Event::Explicit, &mut read)
        };
        let mut read = |left: &V| value = Some(left.clone());
        let was_there = core.ended(removed, hash, &mut read).await;
        value.filter(|_| was_there)
    }

    /// Removes every key, and waits, without blocking the thread, for the running fills:
    /// [`invalidate_all`](Self::invalidate_all) for tasks. Its twin
    /// [`invalidate_all_nowait`](Self::invalidate_all_nowait) never waits. When it is dropped, it
    /// behaves as [`invalidate_async`](Self::invalidate_async) does.
    pub async fn invalidate_all_async(&self) {
        let core = &*self.core;
        let _tidied = Tidied(core);
        let fenced = core.remove_all_in_poll(None);
        let all = fenced.into_iter().map(|it| Awaited::new(it, new_fill()));
        all_ended(all.collect(), &mut |fenced, is_cycle| {
            if is_cycle {
                core.give_up(fenced, false, &mut |_| {});
            }
            None
        })
        .await;
        core.tidy_all_in_poll();
    }

    /// Removes every key, and waits, without blocking the thread, for the running fills: another
    /// name for [`invalidate_all_async`](Self::invalidate_all_async). Its twins are
    /// [`clear`](Self::clear), for threads, and [`clear_nowait`](Self::clear_nowait), which never
    /// waits.
    pub async fn clear_async(&self) {
        self.invalidate_all_async().await;
    }

    /// Removes every entry that `which` picks, and waits, without blocking the thread, for the
    /// running fills of these keys: [`invalidate_if`](Self::invalidate_if) for tasks; see there for
    /// the values that are judged. Its twin [`invalidate_if_nowait`](Self::invalidate_if_nowait)
    /// never waits.
    ///
    /// At its first poll it judges the values that are there. It judges the value of each refresh
    /// that ran then when the refresh has ended. If it is dropped while it waits, the refreshes
    /// that have not ended are not judged.
    pub async fn invalidate_if_async(&self, mut which: impl FnMut(&K, &V) -> bool) {
        let core = &*self.core;
        let _tidied = Tidied(core);
        let fenced = core.remove_all_in_poll(Some(&mut which));
        let all = fenced.into_iter().map(|it| Awaited::new(it, new_fill()));
        all_ended(all.collect(), &mut |fenced, is_cycle| {
            core.judge_ended(fenced, is_cycle, &mut which)
        })
        .await;
        core.tidy_all_in_poll();
    }
}

/// Waits for the ends of fills, and shows each to `over` as it ends: see [`Awaited::poll_all`].
async fn all_ended<'c, K: Hash + Eq, V, S: BuildHasher>(
    mut all: Vec<Awaited<'c, K, V, S>>,
    over: &mut impl FnMut(&Detached<'c, K, V, S>, bool) -> Option<Detached<'c, K, V, S>>,
) {
    poll_fn(|cx| {
        if Awaited::poll_all(&mut all, cx.waker(), over) {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// Closes the cache as [`close`](Self::close) does, and waits, without blocking the thread, for
    /// the running fills. (It does block the thread for the last round of a
    /// [janitor](Builder::purge_interval).)
    ///
    /// ```
    /// # futures_lite::future::block_on(async {
    /// let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// cache.close_async().await;
    /// assert!(cache.is_closed());
    /// # });
    /// ```
    pub async fn close_async(&self) {
        self.close_async_until(std::future::pending::<()>()).await;
    }

    /// Closes the cache as [`close_async`](Self::close_async) does, but waits only until `deadline`
    /// is ready, such as a timer of your runtime. Then it [abandons](Self::takeover) the fills that
    /// still run, and refuses their waiters. Returns the number of abandoned fills.
    ///
    /// ```
    /// # futures_lite::future::block_on(async {
    /// let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// let at_once = std::future::ready(()); // tokio::time::sleep(..), smol::Timer::after(..)
    /// assert_eq!(cache.close_async_until(at_once).await, 0);
    /// # });
    /// ```
    pub async fn close_async_until<T>(&self, deadline: impl Future<Output = T>) -> usize {
        let core = &*self.core;
        let mut deadline = pin!(deadline);
        let mut cut_off = 0;
        let mut all = core.shut(new_fill());
        poll_fn(|cx| {
            let _inside = in_poll();
            if Awaited::poll_all(&mut all, cx.waker(), &mut |_, _| None)
                || deadline.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
        for left in all {
            cut_off += usize::from(core.take_over_part(&left.into_part()));
        }
        core.stop_janitor();
        core.tidy_in_poll();
        cut_off
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Core<K, V, S> {
    /// Waits for the fill that a removal has detached, if there is one; a fill that waits for this task is let go of. Returns
    /// whether the removal has removed a value. What a compute has left is shown to `read`.
    async fn ended(
        &self,
        (was_there, fill): (bool, Option<Detached<'_, K, V, S>>),
        hash: u64,
        read: &mut impl FnMut(&V),
    ) -> bool {
        // Entries that are removed by now are told of and dropped before the wait.
        self.tidy_in_poll();
        let Some(fill) = fill else {
            return was_there;
        };
        let _tidied = Tidied(self);
        let wait = Ended::new(fill.part.again(), hash);
        if wait.await.is_err() {
            self.give_up(&fill, was_there, read)
        } else {
            self.claim(&fill, was_there, read)
        }
    }

    /// Calls [`tidy`](Self::tidy) inside a future of ours.
    fn tidy_in_poll(&self) {
        let _inside = in_poll();
        self.tidy();
    }

    /// Calls [`tidy_all`](Self::tidy_all) inside a future of ours.
    fn tidy_all_in_poll(&self) {
        let _inside = in_poll();
        self.tidy_all();
    }

    /// Calls [`remove_all`](Self::remove_all) inside a future of ours.
    fn remove_all_in_poll<'c>(
        &'c self,
        which: Option<&mut dyn FnMut(&K, &V) -> bool>,
    ) -> Vec<Detached<'c, K, V, S>> {
        let _inside = in_poll();
        self.remove_all(true, which)
    }
}

impl<K: Hash + Eq, V: Clone, S: BuildHasher> EntrySelector<'_, K, V, S> {
    /// Returns the entry, computed by the future that `fill` makes if there is none:
    /// [`or_insert_with`](Self::or_insert_with) for tasks. Waits, and behaves when it is dropped,
    /// as [`Cache::get_with_async`] does.
    ///
    /// # Panics
    /// As [`Cache::get_with_async`].
    ///
    /// ```
    /// # futures_lite::future::block_on(async {
    /// let cache: atomic_cache::Cache<String, usize> = atomic_cache::Cache::unbounded();
    /// let entry = cache.entry("spam".to_owned()).or_insert_with_async(|| async { 4 }).await;
    /// assert_eq!((*entry.value(), entry.is_fresh()), (4, true));
    /// # });
    /// ```
    pub fn or_insert_with_async<F>(self, fill: impl FnOnce() -> F) -> impl Future<Output = Entry<V>>
    where
        F: Future<Output = V>,
    {
        let fill = PerCall::new(fill, put::<V>);
        self.fetch_async(fill, |result| sure(result).to_entry())
    }

    /// Returns the entry, computed if there is none by a future that can fail:
    /// [`or_try_insert_with`](Self::or_try_insert_with) for tasks. Waits, and behaves when it is
    /// dropped, as [`Cache::get_with_async`] does.
    ///
    /// # Errors
    /// As [`Cache::try_get_with`].
    pub fn or_try_insert_with_async<F, E>(
        self,
        fill: impl FnOnce() -> F,
    ) -> impl Future<Output = Result<Entry<V>, TryGetError<E>>>
    where
        F: Future<Output = Result<V, E>>,
        E: Clone + Send + Sync + 'static,
    {
        let fill = PerCall::new(fill, |result, blank: &mut Blank<'_, V>| {
            blank.try_put(result)
        });
        self.fetch_async(fill, |result| Ok(result?.to_entry()))
    }

    /// Reads and changes the entry in one step: [`and_compute_with`](Self::and_compute_with) for
    /// tasks. `f` is given the live value itself, a clone. If the future is dropped midway, the
    /// entry stays as it was.
    ///
    /// # Panics
    /// As [`and_compute_with`](Self::and_compute_with).
    ///
    /// ```
    /// use atomic_cache::{Cache, CompResult, Op};
    /// # futures_lite::future::block_on(async {
    /// let hits: Cache<&str, u32> = Cache::unbounded();
    /// let count = |seen: Option<u32>| async move { Op::Put(seen.map_or(1, |n| n + 1)) };
    /// let first = hits.entry("/").and_compute_with_async(count).await;
    /// assert_eq!(first, CompResult::Inserted(1));
    /// # });
    /// ```
    pub async fn and_compute_with_async<F>(self, f: impl FnOnce(Option<V>) -> F) -> CompResult<V>
    where
        F: Future<Output = Op<V>>,
    {
        lead::compute(self, f).await
    }
}

impl<K, V, E, S> AtomicCache<K, V, E, S>
where
    K: Hash + Eq,
    S: BuildHasher,
{
    fn fetch_async<'c, Q, A, T>(
        &'c self,
        key: &'c Q,
        aim: Aim,
        answer: A,
    ) -> Fetch<'c, K, V, S, Borrowed<'c, Q>, StoredAsync<'c, K, V, E, S>, A>
    where
        Q: ?Sized,
        A: FnOnce(Result<Fetched<'_, V>, TryGetError<E>>) -> T,
    {
        let core = &*self.cache.core;
        let spare = Spare::none(core, 0);
        let fill = StoredAsync(self);
        Fetch::new(core, spare, Borrowed(key), aim, fill, answer)
    }

    /// Removes a key, and waits, without blocking the thread, for a running fill of it: see
    /// [`Cache::invalidate_async`].
    ///
    /// Twins: [`invalidate`](Self::invalidate), for threads, and
    /// [`invalidate_nowait`](Self::invalidate_nowait), which never waits.
    pub async fn invalidate_async<Q>(&self, key: &Q) -> bool
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        self.cache.invalidate_async(key).await
    }

    /// Removes a key, waits, without blocking the thread, for a running fill of it, and returns the
    /// removed value: see [`Cache::remove_async`].
    ///
    /// Twins: [`remove`](Self::remove), for threads, and [`remove_nowait`](Self::remove_nowait),
    /// which never waits.
    pub async fn remove_async<Q>(&self, key: &Q) -> Option<V>
    where
        Q: ?Sized + Hash + Equivalent<K>,
        V: Clone,
    {
        self.cache.remove_async(key).await
    }

    /// Removes every key, and waits, without blocking the thread, for the running fills: see
    /// [`Cache::invalidate_all_async`].
    ///
    /// Twins: [`invalidate_all`](Self::invalidate_all), for threads, and
    /// [`invalidate_all_nowait`](Self::invalidate_all_nowait), which never waits.
    pub async fn invalidate_all_async(&self) {
        self.cache.invalidate_all_async().await;
    }

    /// Closes the cache, and waits, without blocking the thread, for the running fills: see
    /// [`Cache::close_async`].
    pub async fn close_async(&self) {
        self.cache.close_async().await;
    }

    /// Closes the cache, and abandons the fills that still run when `deadline` is ready: see
    /// [`Cache::close_async_until`]. Returns the number of abandoned fills.
    pub async fn close_async_until<T>(&self, deadline: impl Future<Output = T>) -> usize {
        self.cache.close_async_until(deadline).await
    }

    /// Removes the entries that `which` picks, and waits, without blocking the thread, for running
    /// fills of their keys: see [`Cache::invalidate_if_async`].
    ///
    /// Twins: [`invalidate_if`](Self::invalidate_if), for threads, and
    /// [`invalidate_if_nowait`](Self::invalidate_if_nowait), which never waits.
    pub async fn invalidate_if_async(&self, which: impl FnMut(&K, &V) -> bool) {
        self.cache.invalidate_if_async(which).await;
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> AtomicCache<K, V, Infallible, S> {
    /// Shows the value of a key, **computed if it is not there**, to `f` without cloning it:
    /// [`with`](Self::with) for tasks. Waits as [`get_async`](Self::get_async) does.
    ///
    /// # Panics
    /// As [`get_async`](Self::get_async), and with the panic of `f`.
    ///
    /// ```
    /// # futures_lite::future::block_on(async {
    /// let words = atomic_cache::AtomicCache::new_async(|n: usize| async move { "spam ".repeat(n) }, None);
    /// assert_eq!(words.with_async(&3, |text| text.len()).await, 15);
    /// # });
    /// ```
    pub fn with_async<'a, Q, R>(
        &'a self,
        key: &'a Q,
        f: impl FnOnce(&V) -> R,
    ) -> impl Future<Output = R>
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
    {
        self.fetch_async(key, Aim::Value, |result| f(sure(result).value))
    }
}

impl<K: Hash + Eq, V: Clone, S: BuildHasher> AtomicCache<K, V, Infallible, S> {
    /// Returns the value of a key, **computed if it is not there**: [`get`](Self::get) for tasks.
    ///
    /// With an async fill ([`new_async`](AtomicCache::new_async)) the cache owns the fill, and
    /// every waiter that is polled polls it. So a caller that is dropped, that times out, or that
    /// is polled once and forgotten disturbs no other. When the last waiter is gone, the fill is
    /// dropped, unless the builder was given a [`spawner`](Builder::spawner).
    ///
    /// With a fill that is a plain closure, the closure runs inside the poll of the leader: **one
    /// that blocks, blocks the runtime's thread, and no timeout ends it.** (Call it in your
    /// runtime's `spawn_blocking` in an async fill.) If it asks for a key that another caller is
    /// filling, it [panics](Cache#where-a-thread-may-not-wait): a fill that asks for other keys
    /// should be async.
    ///
    /// The future borrows the cache and the key. To spawn it: `let cache = cache.clone();` and
    /// `async move { cache.get_async(&key).await }`.
    ///
    /// A hit never answers `Pending` and allocates nothing.
    ///
    /// # Panics
    /// * With the text of a [`CycleError`] if the wait would never end, and of a
    ///   [`ClosedError`](crate::ClosedError) if the cache has been closed;
    ///   [`try_get_async`](Self::try_get_async) returns both instead.
    /// * With the panic of the fill, in the caller that polls it at that moment; one of the others
    ///   starts the fill anew.
    ///
    /// ```
    /// # futures_lite::future::block_on(async {
    /// let squares = atomic_cache::AtomicCache::new_async(|n: u64| async move { n * n }, None);
    /// assert_eq!(squares.get_async(&5).await, 25);
    /// # });
    /// ```
    pub fn get_async<'a, Q>(&'a self, key: &'a Q) -> impl Future<Output = V>
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
    {
        self.fetch_async(key, Aim::Value, sure_value)
    }

    /// Computes the value of a key anew, and returns the new one: [`refresh`](Self::refresh) for
    /// tasks. Waits as [`get_async`](Self::get_async) does.
    ///
    /// # Panics
    /// As [`get_async`](Self::get_async).
    pub fn refresh_async<'a, Q>(&'a self, key: &'a Q) -> impl Future<Output = V>
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
    {
        self.fetch_async(key, Aim::Refresh, sure_value)
    }
}

impl<K, V, E, S> AtomicCache<K, V, E, S>
where
    K: Hash + Eq,
    V: Clone,
    S: BuildHasher,
    E: Clone + Send + Sync + 'static,
{
    /// Returns the value of a key, **computed if it is not there**, or the error of the fill:
    /// [`try_get`](Self::try_get) for tasks. Waits as [`get_async`](AtomicCache::get_async) does.
    ///
    /// # Errors
    /// As [`Cache::try_get_with_async`].
    ///
    /// ```
    /// # futures_lite::future::block_on(async {
    /// let port = |text: String| async move { text.parse::<u16>() };
    /// let ports = atomic_cache::AtomicCache::try_new_async(port, None);
    /// assert_eq!(ports.try_get_async("80").await, Ok(80));
    /// # });
    /// ```
    pub fn try_get_async<'a, Q>(
        &'a self,
        key: &'a Q,
    ) -> impl Future<Output = Result<V, TryGetError<E>>>
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
    {
        self.fetch_async(key, Aim::Value, value)
    }

    /// Computes the value of a key anew by a fill that can fail, and returns the new one:
    /// [`try_refresh`](Self::try_refresh) for tasks. Waits as [`get_async`](AtomicCache::get_async)
    /// does.
    ///
    /// # Errors
    /// As [`try_get_async`](Self::try_get_async).
    pub fn try_refresh_async<'a, Q>(
        &'a self,
        key: &'a Q,
    ) -> impl Future<Output = Result<V, TryGetError<E>>>
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
    {
        self.fetch_async(key, Aim::Refresh, value)
    }
}

pin_project! {
    /// A fill that cannot fail. Not an `async` block: while it unwinds, such a block drops the
    /// future that it awaits and that has panicked, and a `Drop` that panics too would end the
    /// process.
    struct NeverFails<F> {
        #[pin]
        fill: F,
    }
}

impl<F: Future> Future for NeverFails<F> {
    type Output = Result<F::Output, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().fill.poll(cx).map(Ok)
    }
}

/// Makes fills by a closure.
struct KeepBy<F>(F);

impl<K, V, E, S, F> Keep<K, V, E, S> for KeepBy<F>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
    F: Fn(&AtomicCache<K, V, E, S>, &K) -> BoxFill<V, E> + Send + Sync,
{
    fn keep<'c>(
        &self,
        cache: &AtomicCache<K, V, E, S>,
        leader: Leader<'c, K, V, S>,
    ) -> Wait<'c, K, V, S>
    where
        K: Hash + Eq,
        S: BuildHasher,
    {
        leader.keep(&cache.cache.core, |key| (self.0)(cache, key))
    }
}

fn by_future<K, V, E, S>(
    cache: Cache<K, V, S>,
    make: impl Fn(&AtomicCache<K, V, E, S>, &K) -> BoxFill<V, E> + Send + Sync + 'static,
) -> AtomicCache<K, V, E, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    AtomicCache::by(cache, StoredFill::Future(Box::new(KeepBy(make))))
}

impl<K, V> AtomicCache<K, V>
where
    K: Hash + Eq + Clone + fmt::Debug + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Makes a cache as [`new`](Self::new) does, with a fill that is a future: see
    /// [`get_async`](Self::get_async). The fill is given the key itself, a clone.
    ///
    /// [`get`](Self::get) and the other blocking methods work too: the thread polls the fill while
    /// it waits. (So do `invalidate`, `close` and their kin.) A fill that needs its runtime (a
    /// timer, a socket) must then be polled where it can find that: inside the `enter` of a tokio
    /// runtime of several threads, say. A tokio runtime of a single thread drives its timers only
    /// in its own `block_on`.
    ///
    /// **The runtime.** A fill uses the timers and sockets of the runtime that it was first polled
    /// on. Suppose that runtime is shut down, or its only thread stops polling, while a caller on
    /// another runtime waits for the fill: then the fill panics or is never woken. So ask on one
    /// runtime, or give the builder a [`spawner`](Builder::spawner) and let the fill itself be
    /// `spawn`ed there
    /// (`|id| { let task = handle.spawn(query(id)); async move { task.await.unwrap() } }`).
    /// [`fill_timeout`](Builder::fill_timeout) or [`takeover`](AtomicCache::takeover) abandons a
    /// stuck fill, and a waiter starts it anew on its own runtime. In tests, give each
    /// `#[tokio::test]` a cache of its own, or one runtime to all.
    ///
    /// **Task-locals and the like.** The fill finds the task-locals, the thread-locals and the
    /// entered tracing span of the caller that polls it. That may be another caller at each poll.
    /// Everything that it needs of its caller has to be in its key.
    ///
    /// Cost of a fill: besides the costs of [`Cache`], the flight and two boxes, one of them with
    /// the future.
    ///
    /// ```
    /// use std::time::Duration;
    /// use atomic_cache::AtomicCache;
    ///
    /// # futures_lite::future::block_on(async {
    /// let users = AtomicCache::new_async(
    ///     |id: u64| async move { format!("user {id}") },
    ///     Duration::from_secs(60),
    /// );
    /// assert_eq!(users.get_async(&7).await, "user 7");
    /// # });
    /// ```
    pub fn new_async<F>(
        fill: impl Fn(K) -> F + Send + Sync + 'static,
        ttl: impl Into<Option<Duration>>,
    ) -> Self
    where
        F: Future<Output = V> + Send + 'static,
    {
        Self::recursive_async(move |_, key| fill(key), ttl)
    }

    /// Makes a cache as [`new_async`](Self::new_async) does, with a fill that may ask for other
    /// keys. The fill is given a handle of the cache.
    ///
    /// ```
    /// use atomic_cache::AtomicCache;
    ///
    /// # futures_lite::future::block_on(async {
    /// let fib = AtomicCache::recursive_async(
    ///     |fib: AtomicCache<u64, u64>, n| async move {
    ///         if n < 2 { n } else { fib.get_async(&(n - 1)).await + fib.get_async(&(n - 2)).await }
    ///     },
    ///     None,
    /// );
    /// assert_eq!(fib.get_async(&30).await, 832_040);
    /// # });
    /// ```
    pub fn recursive_async<F>(
        fill: impl Fn(Self, K) -> F + Send + Sync + 'static,
        ttl: impl Into<Option<Duration>>,
    ) -> Self
    where
        F: Future<Output = V> + Send + 'static,
    {
        by_future(Cache::with_ttl(ttl.into()), move |cache, key| {
            let fill = fill(cache.clone(), key.clone());
            Box::pin(NeverFails { fill })
        })
    }
}

impl<K, V, E> AtomicCache<K, V, E>
where
    K: Hash + Eq + Clone + fmt::Debug + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// Makes a cache as [`new_async`](AtomicCache::new_async) does, with a fill that can fail: see
    /// [`try_get_async`](Self::try_get_async).
    pub fn try_new_async<F>(
        fill: impl Fn(K) -> F + Send + Sync + 'static,
        ttl: impl Into<Option<Duration>>,
    ) -> Self
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
    {
        by_future(Cache::with_ttl(ttl.into()), move |_, key| {
            Box::pin(fill(key.clone()))
        })
    }
    /// Makes a cache as [`try_new_async`](Self::try_new_async) does, with a fill that may ask for
    /// other keys. The fill is given a handle of the cache.
    pub fn try_recursive_async<F>(
        fill: impl Fn(Self, K) -> F + Send + Sync + 'static,
        ttl: impl Into<Option<Duration>>,
    ) -> Self
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
    {
        by_future(Cache::with_ttl(ttl.into()), move |cache, key| {
            Box::pin(fill(cache.clone(), key.clone()))
        })
    }
}

impl<K, V, S, N> Builder<K, V, S, N>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
    N: Naming<K>,
{
    /// Makes a cache with its own async fill: see [`AtomicCache::new_async`], which also says which
    /// timers and task-locals the fill has.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    ///
    /// ```
    /// use atomic_cache::AtomicCache;
    /// # futures_lite::future::block_on(async {
    /// let squares = AtomicCache::<u64, u64>::builder()
    ///     .max_capacity(1000)
    ///     .build_with_async(|n| async move { n * n })?;
    /// assert_eq!(squares.get_async(&4).await, 16);
    /// # Ok::<(), atomic_cache::BuildError>(())
    /// # });
    /// ```
    pub fn build_with_async<F>(
        self,
        fill: impl Fn(K) -> F + Send + Sync + 'static,
    ) -> Result<AtomicCache<K, V, Infallible, S>, BuildError>
    where
        F: Future<Output = V> + Send + 'static,
    {
        self.build_recursive_async(move |_, key| fill(key))
    }

    /// Makes a cache with its own async fill, which may use the cache: see
    /// [`AtomicCache::recursive_async`].
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_recursive_async<F>(
        self,
        fill: impl Fn(AtomicCache<K, V, Infallible, S>, K) -> F + Send + Sync + 'static,
    ) -> Result<AtomicCache<K, V, Infallible, S>, BuildError>
    where
        F: Future<Output = V> + Send + 'static,
    {
        Ok(by_future(self.build()?, move |cache, key| {
            let fill = fill(cache.clone(), key.clone());
            Box::pin(NeverFails { fill })
        }))
    }

    /// Makes a cache with its own async fill, which can fail: see [`AtomicCache::try_new_async`].
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn try_build_with_async<F, E>(
        self,
        fill: impl Fn(K) -> F + Send + Sync + 'static,
    ) -> Result<AtomicCache<K, V, E, S>, BuildError>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
        E: Clone + Send + Sync + 'static,
    {
        Ok(by_future(self.build()?, move |_, key| {
            Box::pin(fill(key.clone()))
        }))
    }

    /// Makes a cache with its own async fill, which can fail and may use the cache: see
    /// [`AtomicCache::try_recursive_async`].
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn try_build_recursive_async<F, E>(
        self,
        fill: impl Fn(AtomicCache<K, V, E, S>, K) -> F + Send + Sync + 'static,
    ) -> Result<AtomicCache<K, V, E, S>, BuildError>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
        E: Clone + Send + Sync + 'static,
    {
        Ok(by_future(self.build()?, move |cache, key| {
            Box::pin(fill(cache.clone(), key.clone()))
        }))
    }
}

impl<K, V, S, N> Builder<K, V, S, N> {
    /// Sets a function that goes on with an async fill of an [`AtomicCache`] when its last waiter
    /// is gone. It is given the rest of the fill, as a future that puts the value into the cache by
    /// itself. Not set: such a fill is dropped.
    ///
    /// It is called while no lock and no pin is held, wherever the last caller is dropped: so let
    /// it know its runtime. If it drops the future, or panics, the fill ends without a value. An
    /// [abandoned](Cache::takeover) fill is dropped there too.
    ///
    /// ```no_run
    /// # mod tokio { pub mod runtime { pub struct Handle; impl Handle {
    /// #     pub fn current() -> Self { Self }
    /// #     pub fn spawn(&self, _: impl Future<Output = ()> + Send + 'static) {} } } }
    /// use atomic_cache::AtomicCache;
    /// let runtime = tokio::runtime::Handle::current();
    /// let users = AtomicCache::<u64, String>::builder()
    ///     .spawner(move |fill| runtime.spawn(fill))
    ///     .build_with_async(|id| async move { format!("user {id}") })?;
    /// # Ok::<(), atomic_cache::BuildError>(())
    /// ```
    pub fn spawner<R>(
        mut self,
        spawner: impl Fn(Pin<Box<dyn Future<Output = ()> + Send>>) -> R + Send + Sync + 'static,
    ) -> Self {
        self.set_spawner(Box::new(move |fill| drop(spawner(fill))));
        self
    }
}
