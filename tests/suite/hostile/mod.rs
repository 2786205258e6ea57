//! Hostile inputs: a test's name begins with the number of its row in the table of `docs/CONTRACT.md`.

mod callbacks;
mod cycles;
mod ends;
mod flights;
mod keys;
mod listener;
mod memory;
mod panics;
mod tasks;
mod times;
