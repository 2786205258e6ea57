//! Removed values are dropped, in time and once: clauses 6, 8 and 9, and R10.

mod garbage;
mod janitor;
mod leaks;
mod removed_values;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod sandbox;
