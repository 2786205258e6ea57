//! What the compiler says where a call is nearly right: `tests/ui/key_*.rs`, `tests/ui/await_*.rs`.

#[test]
#[cfg_attr(miri, ignore = "runs the compiler")]
fn what_the_compiler_says_of_a_call_that_is_nearly_right() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/key_*.rs");
    cases.compile_fail("tests/ui/await_*.rs");
}

/// A panic leaves the cache usable: so what leads to it may be taken over a `catch_unwind`, whatever the
/// values are.
#[test]
fn c06_what_leads_to_a_cache_is_unwind_safe() {
    use atomic_cache::*;
    use std::cell::Cell;
    use std::panic::{RefUnwindSafe, UnwindSafe, catch_unwind};

    fn is<T: UnwindSafe + RefUnwindSafe>() {}

    type Of = Cell<u8>;
    is::<Cache<u64, Of>>();
    is::<AtomicCache<u64, Of, Of>>();
    is::<Pinned<'_, u64, Of>>();
    is::<PinnedIter<'_, u64, Of>>();
    is::<AtomicPinned<'_, u64, Of, Of>>();
    is::<Iter<'_, u64, Of>>();
    is::<EntrySelector<'_, u64, Of>>();
    is::<PlaceholderGuard<'_, u64, Of>>();
    is::<GuardResult<'_, u64, u8>>();
    #[cfg(feature = "async")]
    is::<TaskGuard<'_, u64, Of>>();
    #[cfg(feature = "async")]
    is::<TaskGuardResult<'_, u64, u8>>();
    is::<(Entry<u8>, Op<u8>, CompResult<u8>, InFlight<u8>, LedBy)>();
    is::<(Clock, ManualClock, CacheStats, RemovalCause)>();
    is::<(ByteSize, ByteSizeError, BuildError, CycleError, ClosedError)>();
    is::<(TryGetError<u8>, OversizeError<u8>)>();

    let cache = AtomicCache::new(
        |&key: &u64| {
            assert!(key < 2, "no such key");
            key * 10
        },
        None,
    );
    let view = cache.pin();
    assert!(catch_unwind(|| cache.get(&2)).is_err());
    assert!(
        catch_unwind(|| {
            let mut inner = cache.pin();
            *inner.get_or_fill(&3)
        })
        .is_err()
    );
    assert!(catch_unwind(|| view[&4]).is_err());
    assert_eq!((cache.get(&1), view.get(&1)), (10, Some(&10)));

    let plain: Cache<u64, u64> = Cache::unbounded();
    let GuardResult::Guard(guard) = plain.get_value_or_guard(&1, None) else {
        unreachable!("nobody else is there");
    };
    assert!(catch_unwind(move || panic!("with {guard:?}")).is_err());
    assert_eq!(plain.get_with(&1, || 10), 10);
}

/// Also if it becomes something else by `to_owned`. And a call says what the keys are, as it did.
#[test]
fn a_borrowed_form_of_ones_own_may_be_clone() {
    use atomic_cache::{Cache, Equivalent, ToKey};

    #[derive(Clone, Hash)]
    struct Site<'a>(&'a str, u32);

    impl Equivalent<(String, u32)> for Site<'_> {
        fn equivalent(&self, key: &(String, u32)) -> bool {
            (self.0, self.1) == (key.0.as_str(), key.1)
        }
    }

    impl ToKey<(String, u32)> for Site<'_> {
        fn to_key(&self) -> (String, u32) {
            (self.0.to_owned(), self.1)
        }
    }

    let cache: Cache<(String, u32), u32> = Cache::unbounded();
    assert_eq!(cache.get_with(&Site("a", 1), || 10), 10);
    assert_eq!(cache.get(&("a".to_owned(), 1)), Some(10));

    let inferred = Cache::unbounded();
    assert_eq!(inferred.get_with("spam", || 4), 4);
    let _: Cache<String, i32> = inferred;
}
