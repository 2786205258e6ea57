//! Random concurrent runs and their checker (R1 to R11), and programs of operations against a plain model.

mod checker;
mod corpus;
mod operations_model;
mod races;
mod runs;
mod storm;
