//! The contract, clause by clause: the name of a file, and of a test, begins with the number of its clause.

mod c01_one_flight;
mod c02_invalidate;
mod c02_removals;
mod c02_waits;
mod c02_walks;
mod c03_insert;
mod c04_failure;
mod c04_in_flight;
mod c05_cycles;
mod c05_tasks;
mod c06_foreign_code;
mod c06_listeners;
mod c07_allocations;
mod c07_quiet;
mod c08_time;
mod c09_bounds;
mod c10_looks;
mod c11_errors;
mod cereggii;
