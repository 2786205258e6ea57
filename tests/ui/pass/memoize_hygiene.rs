//! Nothing in scope, and everything shadowed.
#![deny(warnings)]
#![no_implicit_prelude]
#![allow(dead_code, non_camel_case_types)]

struct Option;
struct Some;
struct Clone;
struct ToOwned;
struct Vec;
struct String;
struct Duration;
struct Cache;
struct Into;
struct bool;
struct str_;
mod core {}
mod std {}
#[allow(unused_macros)]
macro_rules! concat {
    () => {};
}
#[allow(unused_macros)]
macro_rules! stringify {
    () => {};
}
#[allow(unused_macros)]
macro_rules! compile_error {
    () => {};
}
const MEMOIZE_CACHE: usize = 3;

::atomic_cache::memoize! {
    #[memoize(ttl = ::core::time::Duration::from_secs(60), skip(skipped))]
    fn f(value: u64, name: &str, skipped: &[u8; MEMOIZE_CACHE], _: u64) -> usize {
        name.len() + skipped.len() + value as usize
    }

    #[memoize(key = (n, key))]
    fn g(n: u64, key: u64) -> u64 {
        n + key
    }

    fn nothing() {}
}

fn main() {
    ::std::assert_eq!(f(1, "a", &[0; 3], 7), 5);
    ::std::assert_eq!(g(1, 2), 3);
    nothing();
    ::std::assert!(f::contains(1, "a", 7));
    f::prime(2, "a", 7, 9);
    ::std::assert!(f::invalidate(1, "a", 7));
    ::std::assert!(g::contains(1, 2));
    // The names the expansion uses are free.
    let memoize_skips = MEMOIZE_CACHE;
    let arg = memoize_skips;
    let _ = arg;
}
