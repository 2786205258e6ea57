//! The public face of atomic-cache, tested in one binary: a folder a topic. The number in a test's name is a clause
//! (`c02_`), a rule of histories (`r04_`), a hostile input (`h07_`) or a soak (`k1_`) of `docs/CONTRACT.md`.
mod bounds;
mod contract;
mod history;
mod hostile;
mod macros;
mod reclaim;
mod support;
mod tasks;
