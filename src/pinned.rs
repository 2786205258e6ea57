//! The guard of a pinned cache: many look-ups under one pin, values lent.

use crate::actor::actor;
use crate::atomic_cache::{AtomicCache, Stored};
use crate::blocking::{Verb, verbs};
use crate::cache::{Cache, DefaultHashBuilder, sure};
use crate::core::{Aim, Core, Glance, Spare};
use crate::error::TryGetError;
use crate::fill::{Borrowed, Call, Explain, Fill};
use crate::key::{Equivalent, ToKey};
use crate::reclaim::{Pin, pin};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::ops::{Deref, Index};

/// Lends values of a cache: see [`Cache::pin`].
///
/// While the guard lives, its thread is pinned. A look-up saves the pin (a nanosecond; 11 where
/// there is no `membarrier`), and values need no clone. No entry that is removed from any cache
/// meanwhile can be dropped. So keep a guard for a short time, and not for as long as the program
/// runs. It stays on its thread.
pub struct Pinned<'c, K, V, S = DefaultHashBuilder> {
    core: &'c Core<K, V, S>,
    /// `None` only while a fill runs, inside `fill`.
    pin: Option<Pin>,
}

// As for `Cache`: a panic of user code leaves it usable. A fill that panics leaves it pinned again.
impl<K, V, S> std::panic::UnwindSafe for Pinned<'_, K, V, S> {}
impl<K, V, S> std::panic::RefUnwindSafe for Pinned<'_, K, V, S> {}

impl<'c, K: Hash + Eq, V, S: BuildHasher> Pinned<'c, K, V, S> {
    pub(crate) fn new(cache: &'c Cache<K, V, S>) -> Self {
        Self {
            core: &cache.core,
            pin: Some(pin()),
        }
    }

    fn pinned(&self) -> &Pin {
        self.pin
            .as_ref()
            .expect("pinned again before a fill returns")
    }

    /// Lends the value of a key, if it is cached. Never fills or waits.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, String> = atomic_cache::Cache::unbounded();
    /// cache.insert(1, "one".to_owned());
    /// let view = cache.pin();
    /// let lent: Option<&String> = view.get(&1);
    /// assert_eq!(lent.map(String::as_str), Some("one"));
    /// ```
    #[inline]
    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        if self.core.is_plain() {
            match self.core.hit(self.core.hash(key), key, self.pinned()) {
                Glance::Found(value) => return Some(value),
                Glance::Absent => return None,
                Glance::Unclear => {}
            }
        }
        self.get_otherwise(key)
    }

    /// Slow path of `get`.
    #[inline(never)]
    fn get_otherwise<Q>(&self, key: &Q) -> Option<&V>
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        self.core.look_up(self.core.hash(key), key, self.pinned())
    }

    /// Lends the value of a key like [`get`](Self::get), but does not count as a use of the entry.
    pub fn peek<Q>(&self, key: &Q) -> Option<&V>
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        self.core.look(self.core.hash(key), key, self.pinned())
    }

    /// Returns whether a key is cached; see [`Cache::contains`].
    pub fn contains<Q>(&self, key: &Q) -> bool
    where
        Q: ?Sized + Hash + Equivalent<K>,
    {
        self.peek(key).is_some()
    }

    /// Lends every entry; see [`Cache::iter`]. Needs no clones.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, String> = atomic_cache::Cache::unbounded();
    /// cache.insert(1, "one".to_owned());
    /// assert!(cache.pin().iter().all(|(&key, value)| (key, value.as_str()) == (1, "one")));
    /// ```
    pub fn iter(&self) -> PinnedIter<'_, K, V, S> {
        PinnedIter {
            core: self.core,
            pin: self.pinned(),
            from: Some(0),
            batch: VecDeque::new(),
        }
    }

    /// Lends the value of a key, and computes it with `fill` if it is absent: [`Cache::get_with`],
    /// lent.
    ///
    /// The thread is not pinned while `fill` runs or is waited for. `&mut` proves that no value is
    /// lent meanwhile:
    ///
    /// ```compile_fail
    /// # let cache: atomic_cache::Cache<u32, u32> = atomic_cache::Cache::unbounded();
    /// let mut view = cache.pin();
    /// let lent = view.get(&1);
    /// view.get_or_fill_with(&2, || 20);
    /// println!("{lent:?}");
    /// ```
    ///
    /// # Panics
    /// Panics as [`Cache::get_with`] does.
    ///
    /// ```
    /// # let cache: atomic_cache::Cache<u32, String> = atomic_cache::Cache::unbounded();
    /// let mut view = cache.pin();
    /// assert_eq!(view.get_or_fill_with(&1, || "one".to_owned()), "one");
    /// ```
    #[track_caller]
    pub fn get_or_fill_with<Q>(&mut self, key: &Q, fill: impl FnOnce() -> V) -> &V
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
    {
        let call = Call::new(|_: &K| Ok::<_, Infallible>(fill()));
        sure(self.fill(key, call, &verbs::GET_OR_FILL_WITH))
    }

    /// Lends what [`get_or_fill_with`](Self::get_or_fill_with) lends, with a fill that can fail.
    ///
    /// # Errors
    /// Fails as [`Cache::try_get_with`] does.
    #[track_caller]
    pub fn try_get_or_fill_with<Q, E>(
        &mut self,
        key: &Q,
        fill: impl FnOnce() -> Result<V, E>,
    ) -> Result<&V, TryGetError<E>>
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
        E: Clone + Send + Sync + 'static,
    {
        self.fill(key, Call::new(|_: &K| fill()), &verbs::TRY_GET_OR_FILL_WITH)
    }

    #[track_caller]
    fn fill<Q, F>(&mut self, key: &Q, mut call: F, verb: &Verb) -> Result<&V, TryGetError<F::Error>>
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
        F: Fill<K, V, S> + Explain,
    {
        let core = self.core;
        let hash = core.hash(key);
        if let Some(value) = core.look_up(hash, key, self.pinned()) {
            let value = std::ptr::from_ref(value);
            // SAFETY: our pin keeps the value, and `&mut self` keeps the pin from being dropped
            // while the reference lives. (The borrow checker does not accept a borrow that is
            // returned on one path only, hence the raw pointer.)
            return Ok(unsafe { &*value });
        }
        let repin = Repin { pin: &mut self.pin };
        *repin.pin = None;
        let mut spare = Spare::none(core, actor());
        match core.obtain(
            pin(),
            hash,
            &mut Borrowed(key),
            Aim::Value,
            &mut spare,
            &mut call,
            verb,
        ) {
            Ok(found) => {
                let (pin, value) = found.into_parts();
                *repin.pin = Some(pin);
                // SAFETY: the value's pin is now ours, and `&mut self` keeps it from being dropped
                // while the reference lives.
                Ok(unsafe { &*value })
            }
            Err(obstacle) => Err(call.explain(obstacle)),
        }
    }
}

impl<K, V, S> Drop for Pinned<'_, K, V, S> {
    /// Unpins the thread, and then does the housekeeping that had to wait for that.
    fn drop(&mut self) {
        self.pin = None;
        self.core.tidy();
    }
}

/// Pins the guard again, however its fill ends.
struct Repin<'a> {
    pin: &'a mut Option<Pin>,
}

impl Drop for Repin<'_> {
    fn drop(&mut self) {
        self.pin.get_or_insert_with(pin);
    }
}

impl<'p, K: Hash + Eq, V, S: BuildHasher> IntoIterator for &'p Pinned<'_, K, V, S> {
    type Item = (&'p K, &'p V);
    type IntoIter = PinnedIter<'p, K, V, S>;

    fn into_iter(self) -> PinnedIter<'p, K, V, S> {
        self.iter()
    }
}

impl<K, V, S, Q> Index<&Q> for Pinned<'_, K, V, S>
where
    K: Hash + Eq,
    S: BuildHasher,
    Q: ?Sized + Hash + Equivalent<K>,
{
    type Output = V;

    /// Lends the value of a cached key, like the maps of std.
    ///
    /// # Panics
    /// If the key is absent.
    #[track_caller]
    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("no entry found for key")
    }
}

impl<K, V, S> fmt::Debug for Pinned<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned")
            .field("len", &self.core.len())
            .finish_non_exhaustive()
    }
}

/// The entries of a cache, lent: see [`Pinned::iter`].
pub struct PinnedIter<'p, K, V, S = DefaultHashBuilder> {
    core: &'p Core<K, V, S>,
    pin: &'p Pin,
    from: Option<u64>,
    batch: VecDeque<(&'p K, &'p V)>,
}

// As for `Cache`: a panic of user code leaves it usable.
impl<K, V, S> std::panic::UnwindSafe for PinnedIter<'_, K, V, S> {}
impl<K, V, S> std::panic::RefUnwindSafe for PinnedIter<'_, K, V, S> {}

impl<'p, K: Hash + Eq, V, S: BuildHasher> Iterator for PinnedIter<'p, K, V, S> {
    type Item = (&'p K, &'p V);

    fn next(&mut self) -> Option<(&'p K, &'p V)> {
        while self.batch.is_empty() {
            let batch = &mut self.batch;
            self.from = self.core.stretch(self.from?, self.pin, &mut |key, value| {
                batch.push_back((key, value));
            });
        }
        self.batch.pop_front()
    }
}

impl<K, V, S> fmt::Debug for PinnedIter<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedIter").finish_non_exhaustive()
    }
}

/// The guard of an [`AtomicCache`]: a [`Pinned`] that can also fill.
pub struct AtomicPinned<'c, K, V, E = Infallible, S = DefaultHashBuilder> {
    cache: &'c AtomicCache<K, V, E, S>,
    view: Pinned<'c, K, V, S>,
}

impl<'c, K: Hash + Eq, V, E, S: BuildHasher> AtomicPinned<'c, K, V, E, S> {
    pub(crate) fn new(cache: &'c AtomicCache<K, V, E, S>) -> Self {
        Self {
            cache,
            view: Pinned::new(&cache.cache),
        }
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> AtomicPinned<'_, K, V, Infallible, S> {
    /// Lends the value of a key, and computes it if it is absent: [`AtomicCache::get`], lent. See
    /// [`Pinned::get_or_fill_with`].
    ///
    /// # Panics
    /// Panics as [`AtomicCache::get`] does.
    ///
    /// ```
    /// use atomic_cache::AtomicCache;
    ///
    /// let squares = AtomicCache::new(|n: &u64| n * n, None);
    /// let mut view = squares.pin();
    /// assert_eq!(view.get(&7), None); // never fills
    /// assert_eq!(view.get_or_fill(&7), &49);
    /// assert_eq!(view[&7], 49);
    /// ```
    #[track_caller]
    pub fn get_or_fill<Q>(&mut self, key: &Q) -> &V
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
    {
        let cache = self.cache;
        sure(self.view.fill(key, Stored::new(cache), &verbs::GET_OR_FILL))
    }
}

impl<K, V, E, S> AtomicPinned<'_, K, V, E, S>
where
    K: Hash + Eq,
    S: BuildHasher,
    E: Clone + Send + Sync + 'static,
{
    /// Lends the value that [`AtomicCache::try_get`] returns.
    ///
    /// # Errors
    /// Fails as [`AtomicCache::try_get`] does.
    #[track_caller]
    pub fn try_get_or_fill<Q>(&mut self, key: &Q) -> Result<&V, TryGetError<E>>
    where
        Q: ?Sized + Hash + Equivalent<K> + ToKey<K>,
    {
        let cache = self.cache;
        self.view
            .fill(key, Stored::new(cache), &verbs::TRY_GET_OR_FILL)
    }
}

impl<'c, K, V, E, S> Deref for AtomicPinned<'c, K, V, E, S> {
    type Target = Pinned<'c, K, V, S>;

    fn deref(&self) -> &Pinned<'c, K, V, S> {
        &self.view
    }
}

impl<K, V, E, S> fmt::Debug for AtomicPinned<'_, K, V, E, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view.fmt(f)
    }
}
