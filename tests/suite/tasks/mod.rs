//! Tasks: the methods that end in `_async`, on any runtime.

mod dropped;
mod runtimes;
mod verbs;
