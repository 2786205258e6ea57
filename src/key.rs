//! Turns a key that is looked up by reference into an owned one.

use std::hash::Hash;

pub use equivalent::Equivalent;

/// Makes the owned key `K` from the form that it is looked up by. Called only when the cache makes
/// a slot for the key, never on a hit.
///
/// Everything that is [`ToOwned`] has it: `&str` for `String` keys, `&[T]` for `Vec<T>`, and `&K`
/// for any `K: Clone`. (So where keys are `&str`, ask by `&"a"`.) Implement it, beside [`Hash`] and
/// [`Equivalent`], for a borrowed form of a key of your own. The two forms must hash alike.
///
/// ```
/// use atomic_cache::{AtomicCache, Equivalent, ToKey};
///
/// #[derive(Hash)]
/// struct UserRef<'a> { tenant: &'a str, id: u32 }
///
/// impl Equivalent<(String, u32)> for UserRef<'_> {
///     fn equivalent(&self, key: &(String, u32)) -> bool {
///         self.tenant == key.0 && self.id == key.1
///     }
/// }
///
/// impl ToKey<(String, u32)> for UserRef<'_> {
///     fn to_key(&self) -> (String, u32) {
///         (self.tenant.to_owned(), self.id)
///     }
/// }
///
/// let names = AtomicCache::new(|(tenant, id): &(String, u32)| format!("{tenant}/{id}"), None);
/// assert_eq!(names.get(&UserRef { tenant: "acme", id: 7 }), "acme/7");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be made into the key `{K}` of this cache",
    note = "a key is looked up by a reference to it, or to its borrowed form (`&str` for `String`)",
    note = "for another borrowed form implement `Hash`, `Equivalent<{K}>` and `ToKey<{K}>`: see `atomic_cache::ToKey`"
)]
pub trait ToKey<K>: Hash + Equivalent<K> {
    /// Returns the owned key.
    fn to_key(&self) -> K;
}

impl<Q, K> ToKey<K> for Q
where
    Q: ?Sized + ToOwned + Hash + Equivalent<K>,
    Q::Owned: IsKey<K>,
{
    fn to_key(&self) -> K {
        self.to_owned().into_key()
    }
}

/// The same type: `Owned = K` by a trait, so that the compiler shows our message where it is not.
#[diagnostic::on_unimplemented(
    message = "the keys of this cache are `{K}`, and what it is asked by here becomes a `{Self}`",
    label = "a reference to a `{K}` is wanted",
    note = "where a key is a reference itself, ask by a reference to that: `&\"a\"`, and not `\"a\"`, for keys of type `&str`",
    note = "a key is looked up by a reference to it, or to its borrowed form (`&str` for `String`); for another form see `atomic_cache::ToKey`"
)]
pub trait IsKey<K> {
    #[doc(hidden)]
    fn into_key(self) -> K;
}

impl<K> IsKey<K> for K {
    fn into_key(self) -> K {
        self
    }
}
