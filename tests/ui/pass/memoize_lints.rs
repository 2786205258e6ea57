//! Documented, and nothing to warn of with every lint a careful crate has on.
#![deny(
    warnings,
    missing_docs,
    unreachable_pub,
    unused,
    rust_2018_idioms,
    nonstandard_style,
    future_incompatible
)]
#![deny(
    missing_debug_implementations,
    missing_copy_implementations,
    unused_qualifications,
    unused_results
)]
#![deny(
    unused_lifetimes,
    unused_import_braces,
    unused_macro_rules,
    single_use_lifetimes,
    trivial_casts,
    let_underscore
)]
#![deny(clippy::all, clippy::pedantic, clippy::nursery)]
#![forbid(unsafe_code)]

use std::time::Duration;

atomic_cache::memoize! {
    /// The lengths of both.
    #[must_use]
    pub fn lengths(name: &str, list: &[u8], by_value: String) -> usize {
        let by_value = by_value.into_bytes();
        name.len() + list.len() + by_value.len()
    }

    /// What the logger is told.
    ///
    /// # Errors
    ///
    /// If `n` is zero.
    #[memoize(ttl = Duration::from_secs(60), skip(log))]
    pub fn logged(mut n: u64, log: &dyn Fn(u64)) -> Result<u64, String> {
        if n == 0 {
            return Err("zero".to_owned());
        }
        n += 1;
        log(n);
        Ok(n)
    }

    /// By the last digit.
    #[memoize(key = n % 10)]
    #[must_use]
    pub fn digit(n: u64) -> u64 {
        n % 10
    }
}

atomic_cache::memoize! {
    /// Nothing is left for the key.
    #[memoize(skip(log))]
    pub fn started(log: &dyn Fn(u64)) {
        log(0);
    }

    /// Owned and static.
    #[must_use]
    pub fn owned(list: Vec<u8>, maybe: Option<&'static str>) -> usize {
        let list: Vec<u8> = list.into_iter().rev().collect();
        list.len() + maybe.map_or(0, str::len)
    }
}

async fn told(n: u64) -> u64 {
    n
}

atomic_cache::memoize! {
    /// What the teller says.
    ///
    /// # Errors
    ///
    /// If that is zero.
    #[memoize(ttl = Duration::from_secs(60), skip(teller))]
    pub async fn asked(name: &str, mut n: u64, teller: &u64) -> Result<u64, String> {
        n += told(*teller).await;
        if n == 0 {
            return Err(name.to_owned());
        }
        Ok(n)
    }

    /// By the last digit.
    #[memoize(key = n % 10)]
    #[must_use]
    pub async fn last_digit(n: u64) -> u64 {
        told(n % 10).await
    }
}

fn main() {}
