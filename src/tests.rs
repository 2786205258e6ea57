//! Models of the lock-free parts, for a build with `--cfg atomic_cache_loom` (`scripts/loom.sh`).
//!
//! Each model is named after its number in the table of models and after the clause that it
//! proves. "Proves" means: in every interleaving, and for every value that a load may return
//! under the C11 memory model as loom has it, of the two or three threads that it has; with a
//! bound on preemptions where it says so. What the protocols do with more threads, more keys or
//! larger tables is an argument from these cases, and the business of the soak tests.

#[cfg(all(test, atomic_cache_loom))]
mod bound_models;
#[cfg(all(test, atomic_cache_loom))]
mod flight_models;
#[cfg(all(test, atomic_cache_loom))]
mod harness;
#[cfg(all(test, atomic_cache_loom))]
mod in_flight_models;
#[cfg(atomic_cache_loom)]
pub(crate) mod reclaim_checker;
#[cfg(all(test, atomic_cache_loom))]
mod reclaim_models;
#[cfg(all(test, atomic_cache_loom, feature = "async"))]
mod removal_models;
#[cfg(all(test, atomic_cache_loom))]
mod slab_models;
#[cfg(all(test, atomic_cache_loom))]
mod table_models;
#[cfg(all(test, atomic_cache_loom, feature = "async"))]
mod task_models;
