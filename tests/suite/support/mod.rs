//! The tools the tests share.

pub(crate) mod common;
pub(crate) mod schedule;
pub(crate) mod task_tools;
