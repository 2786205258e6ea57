//! Clause 11: errors, the compiler's too, say how to proceed: `tests/ui/key_*.rs`, `tests/ui/await_*.rs`.

use crate::support::common::*;
use atomic_cache::{AtomicCache, BuildError, Cache, CycleError, TryGetError};
use std::error::Error;

#[test]
fn c11_a_setting_that_cannot_be_is_refused_by_name_and_value() {
    let given = usize::MAX - 7;
    let error = Cache::<u64, u64>::builder()
        .initial_capacity(given)
        .build()
        .unwrap_err();
    assert!(matches!(error, BuildError::InitialCapacity { given: value, .. } if value == given));
    let text = error.to_string();
    let refused = format!("initial_capacity({given})");
    assert!(
        text.starts_with(&refused) && text.contains("at most"),
        "{text}"
    );
    assert!(error.source().is_none());
    for settings in [
        AtomicCache::<u64, u64>::builder().initial_capacity(given),
        AtomicCache::builder().initial_capacity(given),
    ] {
        assert_eq!(settings.build_with(|key| *key).unwrap_err(), error);
    }
    let settings = AtomicCache::<u64, u64>::builder().initial_capacity(given);
    let refused = settings.build_recursive(|_, key| *key);
    assert_eq!(refused.unwrap_err(), error);
    let settings = AtomicCache::<u64, u64>::builder().initial_capacity(given);
    let refused = settings.try_build_with(|key| Err(*key));
    assert_eq!(refused.unwrap_err(), error);
    // Any other number of entries will do.
    for entries in [0, 1, 3, 1000] {
        let cache: Cache<u64, u64> = Cache::builder().initial_capacity(entries).build().unwrap();
        (0..2000).for_each(|key| cache.insert(key, key));
        assert_eq!(cache.len(), 2000);
    }
}

#[test]
fn c11_errors_name_the_keys_and_carry_the_fills_own_error() {
    watched(|| {
        let cache: Cache<&str, u64> = Cache::unbounded();
        let cycle = cache.try_get_with(&"spam", || {
            match cache.try_get_with(&"spam", || Err(Refused("never run"))) {
                Err(TryGetError::Cycle(cycle)) => Err(cycle),
                other => panic!("{other:?}"),
            }
        });
        let Err(TryGetError::Fill(cycle)) = cycle else {
            panic!("{cycle:?}")
        };
        assert_eq!(cycle.keys(), [r#""spam""#, r#""spam""#]);
        let text = cycle.to_string();
        assert!(
            text.contains(r#""spam" -> "spam""#) && text.contains("make the fill"),
            "{text}"
        );
        let wrapped: TryGetError<Refused> = TryGetError::Cycle(cycle);
        assert_eq!(wrapped.to_string(), text);
        assert!(wrapped.source().is_none());
        // A fill's error is shown as it is, without a layer of ours.
        let refused = cache.try_get_with(&"eggs", || Err(Refused("no eggs")));
        assert_eq!(refused.as_ref().unwrap_err().to_string(), "no eggs");
        assert!(refused.unwrap_err().source().is_none());
    });
}

/// Keys that are not `Debug`, and keys with a long `Debug`.
#[test]
fn c11_a_cycle_of_keys_that_cannot_be_shown_names_their_type() {
    #[derive(Clone, PartialEq, Eq, Hash)]
    struct Secret(u64);

    watched(|| {
        let cycle_of = |result: Result<u64, TryGetError<CycleError>>| match result {
            Err(TryGetError::Cycle(cycle)) => cycle,
            other => panic!("{other:?}"),
        };
        let cache: Cache<Secret, u64> = Cache::builder().opaque_keys().build().unwrap();
        let inner = cache.try_get_with(&Secret(1), || {
            Err(cycle_of(cache.try_get_with(&Secret(1), || Ok(1))))
        });
        let Err(TryGetError::Fill(cycle)) = inner else {
            panic!("{inner:?}")
        };
        assert!(cycle.keys()[0].contains("Secret"), "{cycle}");

        let cache: Cache<String, u64> = Cache::unbounded();
        let long = "spam".repeat(1000);
        let inner =
            cache.try_get_with(&long, || Err(cycle_of(cache.try_get_with(&long, || Ok(1)))));
        let Err(TryGetError::Fill(cycle)) = inner else {
            panic!("{inner:?}")
        };
        assert!(cycle.keys()[0].chars().count() <= 121, "{cycle}");
    });
}

#[test]
#[cfg_attr(miri, ignore = "runs the compiler")]
fn what_the_compiler_says_of_a_call_that_is_nearly_right() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/key_*.rs");
    cases.compile_fail("tests/ui/await_*.rs");
}

/// Also if `to_owned` makes another type of it. And a call still determines the key type.
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
