//! Times atomic-cache beside its peers in one run.

use std::process::ExitCode;

fn main() -> ExitCode {
    atomic_cache_bench::side_by_side::main()
}
