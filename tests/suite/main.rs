//! The public face of atomic-cache, tested in one binary: a module a topic.
mod alloc;
mod bounds;
mod cereggii;
mod checker;
mod common;
mod contract;
mod corpus;
mod history;
mod hostile;
mod janitor;
mod leaks;
mod listener;
mod memoize;
mod operations_model;
mod quiet;
mod races;
mod weigh;
