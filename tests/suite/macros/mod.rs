//! `memoize!`.

mod memoize;
mod memoize_async;
