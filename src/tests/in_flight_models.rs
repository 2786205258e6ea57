//! Abandoned fills, and a cache that is closed, beside threads that fill.

use super::harness::{Actor, Explore, Fills, TestCache, Token, cache, models, start};
use crate::blocking::verbs::REFRESH;
use crate::core::Aim;
use crate::error::TryGetError;
use crate::guard::{GuardResult, PlaceholderGuard};
use std::cell::Cell;
use std::rc::Rc;

fn key() -> Token {
    Token::new(1)
}

fn actor(cache: &TestCache, act: impl FnOnce(&TestCache) + 'static) -> Actor {
    let cache = cache.clone();
    Box::new(move || act(&cache))
}

fn lead(cache: &TestCache) -> PlaceholderGuard<'_, Token, Token, super::harness::TestHasher> {
    match cache.get_value_or_guard(&key(), None) {
        GuardResult::Guard(guard) => guard,
        other => panic!("nobody else is there: {other:?}"),
    }
}

fn peek(cache: &TestCache) -> Option<u64> {
    cache.peek(&key()).map(|value| value.number())
}

/// At rest the cache holds `expected`. When that is taken out, nothing is left.
fn assert_ends_with(cache: &TestCache, expected: Option<u64>) {
    assert_eq!(peek(cache), expected);
    assert_eq!(cache.len(), usize::from(expected.is_some()));
    cache.invalidate(&key());
    assert_eq!((cache.len(), cache.retired()), (0, 0));
}

/// Inserts an entry, and runs `act` inside a fill that refreshes it; the fill ends with a value.
fn inside_a_refresh(cache: &TestCache, act: impl FnOnce()) {
    cache.insert(key(), Token::new(5));
    let fill = |_: &Token| {
        act();
        Ok::<_, ()>(Token::new(6))
    };
    let read = |value: &Token| value.number();
    assert_eq!(
        cache.fetch(&key(), Aim::Refresh, fill, read, &REFRESH).ok(),
        Some(6)
    );
}

/// `try_get_with`: the value of a fill, or whether it was refused.
fn ask(cache: &TestCache, fills: &Fills) -> Result<u64, TryGetError<()>> {
    let fill = || Ok(Token::new(100 + fills.fill()));
    cache.try_get_with(&key(), fill).map(|value| value.number())
}

models! {
    /// Clause 3: a takeover against the publish. One of them comes first: the value is kept, or the
    /// fill was abandoned.
    takeover_meets_the_publish: Explore::AtMost(5) => || {
        let cache = cache();
        let guard = lead(&cache);
        let taken = Rc::new(Cell::new(false));
        let took = taken.clone();
        let others = start([actor(&cache, move |cache| took.set(cache.takeover(&key())))]);
        assert_eq!(guard.insert(Token::new(7)).number(), 7);
        others.join();
        assert_ends_with(&cache, (!taken.get()).then_some(7));
    };

    /// The same against a leader that is lost.
    takeover_meets_a_lost_lead: Explore::AtMost(5) => || {
        let cache = cache();
        let guard = lead(&cache);
        let others = start([actor(&cache, |cache| { cache.takeover(&key()); })]);
        drop(guard);
        others.join();
        assert_ends_with(&cache, None);
    };

    /// R9: a caller that waits when the fill is abandoned runs its own, or gets the value of the
    /// old one if that was there first; no waiter is left asleep.
    takeover_frees_who_waits: Explore::AtMost(2) => || {
        let cache = cache();
        let fills = Fills::new();
        let guard = lead(&cache);
        let (waits, taken) = (fills.clone(), Rc::new(Cell::new(false)));
        let took = taken.clone();
        let others = start([
            actor(&cache, move |cache| {
                let value = ask(cache, &waits).expect("no cycle, not closed");
                assert!([7, 100].contains(&value));
            }),
            actor(&cache, move |cache| took.set(cache.takeover(&key()))),
        ]);
        guard.insert(Token::new(7));
        others.join();
        let last = if taken.get() && fills.count() > 0 { Some(100) } else { Some(7) };
        let gone = taken.get() && fills.count() == 0;
        assert_ends_with(&cache, last.filter(|_| !gone));
    };

    /// R9: the takeover alone frees a waiter of a fill that does not end.
    takeover_frees_who_waits_for_a_stuck_fill: Explore::Long(4) => || {
        let cache = cache();
        let fills = Fills::new();
        let guard = lead(&cache);
        let waits = fills.clone();
        let others = start([
            actor(&cache, move |cache| assert_eq!(ask(cache, &waits), Ok(100))),
            actor(&cache, |cache| assert!(cache.takeover(&key()))),
        ]);
        others.join();
        assert_eq!(guard.insert(Token::new(7)).number(), 7);
        assert_eq!(fills.count(), 1);
        assert_ends_with(&cache, Some(100));
    };

    /// An abandoned refresh restores the previous value, however the refresh ends.
    takeover_of_a_refresh_leaves_the_old_value: Explore::AtMost(4) => || {
        let cache = cache();
        cache.insert(key(), Token::new(1));
        let taken = Rc::new(Cell::new(false));
        let took = taken.clone();
        let others = start([actor(&cache, move |cache| {
            took.set(cache.takeover(&key()));
            assert!(peek(cache).is_some());
        })]);
        let fill = |_: &Token| Ok::<_, ()>(Token::new(2));
        let read = |value: &Token| value.number();
        assert_eq!(cache.fetch(&key(), Aim::Refresh, fill, read, &REFRESH).ok(), Some(2));
        others.join();
        assert_ends_with(&cache, Some(if taken.get() { 1 } else { 2 }));
    };

    /// The same of a refresh that fails: both the refresh and the takeover would restore the value.
    takeover_of_a_refresh_that_fails: Explore::AtMost(4) => || {
        let cache = cache();
        cache.insert(key(), Token::new(1));
        let others = start([actor(&cache, |cache| { cache.takeover(&key()); })]);
        let fill = |_: &Token| Err::<Token, _>(());
        assert!(cache.fetch(&key(), Aim::Refresh, fill, |_| (), &REFRESH).is_err());
        others.join();
        assert_ends_with(&cache, Some(1));
    };

    /// Clause 2: `invalidate_all` meets an abandoned fill that does not end: it does not wait for
    /// it.
    takeover_meets_invalidate_all: Explore::AtMost(4) => || {
        let cache = cache();
        let guard = lead(&cache);
        let others = start([actor(&cache, |cache| cache.invalidate_all())]);
        assert!(cache.takeover(&key()));
        others.join();
        assert_eq!(guard.insert(Token::new(7)).number(), 7);
        assert_ends_with(&cache, None);
    };

    /// The same of a refresh: the value that it restores goes too.
    takeover_of_a_refresh_meets_invalidate_all: Explore::AtMost(4) => || {
        let cache = cache();
        inside_a_refresh(&cache, || {
            let others = start([actor(&cache, |cache| cache.invalidate_all())]);
            assert!(cache.takeover(&key()));
            others.join();
        });
        assert_ends_with(&cache, None);
    };

    /// The same, when a refresh begins over the restored value, and fails: the value that this one
    /// restores goes too.
    takeover_and_a_refresh_meet_invalidate_all: Explore::Long(3) => || {
        let cache = cache();
        inside_a_refresh(&cache, || {
            let others = start([actor(&cache, |cache| cache.invalidate_all())]);
            assert!(cache.takeover(&key()));
            let fails = |_: &Token| Err::<Token, ()>(());
            assert!(cache.fetch(&key(), Aim::Refresh, fails, |_| (), &REFRESH).is_err());
            others.join();
        });
        assert_ends_with(&cache, None);
    };

    /// Two removals beside a takeover: one of them gets the value, whether the other or the
    /// takeover has detached the refresh first.
    takeover_of_a_refresh_meets_two_removals: Explore::AtMost(2) => || {
        let cache = cache();
        let removed = Rc::new(Cell::new(false));
        inside_a_refresh(&cache, || {
            let answer = removed.clone();
            let others = start([
                actor(&cache, move |cache| answer.set(cache.invalidate_nowait(&key()))),
                actor(&cache, |cache| { cache.takeover(&key()); }),
            ]);
            let ours = cache.invalidate_nowait(&key());
            others.join();
            assert!(ours != removed.get(), "one of two");
        });
        assert_ends_with(&cache, None);
    };

    /// A takeover against an `insert` and against an `invalidate` that waits: both end, and the
    /// inserted value stays.
    takeover_meets_an_insert: Explore::Long(3) => || {
        let cache = cache();
        let guard = lead(&cache);
        let others = start([
            actor(&cache, |cache| cache.insert(key(), Token::new(5))),
            actor(&cache, |cache| { cache.takeover(&key()); }),
        ]);
        drop(guard);
        others.join();
        assert_ends_with(&cache, Some(5));
    };

    /// The same of a refresh: its previous value goes with it, once, whichever thread releases it.
    takeover_of_a_refresh_meets_an_insert: Explore::AtMost(4) => || {
        let cache = cache();
        inside_a_refresh(&cache, || {
            let others = start([actor(&cache, |cache| cache.insert(key(), Token::new(7)))]);
            cache.takeover(&key());
            others.join();
        });
        assert_ends_with(&cache, Some(7));
    };

    takeover_meets_invalidate: Explore::AtMost(2) => || {
        let cache = cache();
        let guard = lead(&cache);
        let others = start([
            actor(&cache, |cache| { cache.invalidate(&key()); }),
            actor(&cache, |cache| { cache.takeover(&key()); }),
        ]);
        guard.insert(Token::new(7));
        others.join();
        assert_ends_with(&cache, None);
    };

    /// `close` against a caller that is about to fill, cold: the fill is refused, or it has ended
    /// when `close` returns (all its effects come before: `Fills`).
    close_meets_a_fill: Explore::AtMost(4) => || {
        let cache = cache();
        let fills = Fills::new();
        let asks = fills.clone();
        let asked = Rc::new(Cell::new(None));
        let answer = asked.clone();
        let others = start([actor(&cache, move |cache| answer.set(Some(ask(cache, &asks).is_ok())))]);
        cache.close();
        let ran = fills.count();
        others.join();
        assert_eq!(ran, fills.count(), "it began after the close had returned");
        assert_eq!(asked.get(), Some(ran == 1));
        assert_ends_with(&cache, (ran == 1).then_some(100));
    };

    /// The same with one more caller, which waits for the fill: it gets the value, or is refused.
    close_meets_a_fill_and_who_waits_for_it: Explore::AtMost(2) => || {
        let cache = cache();
        let fills = Fills::new();
        let (first, second) = (fills.clone(), fills.clone());
        let others = start([
            actor(&cache, move |cache| drop(ask(cache, &first))),
            actor(&cache, move |cache| drop(ask(cache, &second))),
        ]);
        cache.close();
        let ran = fills.count();
        others.join();
        assert_eq!(ran, fills.count(), "it began after the close had returned");
        assert_ends_with(&cache, (ran == 1).then_some(100));
    };
}
