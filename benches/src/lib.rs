//! Measuring tools of `atomic-cache`.
//!
//! The binary `replay` sends an access log through an [`AtomicCache`](atomic_cache::AtomicCache) and reports how the
//! cache, and with an option each of its peers, would do for that workload; `peers` times the cache beside its peers in
//! one run. This crate is never published, so the peers it depends on reach no user of the library.

#![forbid(unsafe_op_in_unsafe_fn)]

pub mod alloc_counter;
pub mod belady;
pub mod capacity;
pub mod cli;
pub mod curve;
pub mod curve_report;
pub mod error;
pub mod format;
pub mod numbered;
pub mod open;
pub mod peers;
pub mod plot;
pub mod policies;
pub mod progress;
pub mod read;
pub mod replay;
pub mod report;
pub mod trace;
pub mod workload;
