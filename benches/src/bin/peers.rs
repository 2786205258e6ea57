//! Times atomic-cache beside its peers in one run.

use std::process::ExitCode;

use atomic_cache_bench::peers::{self, tally::TallyingAllocator};

#[global_allocator]
static ALLOCATOR: TallyingAllocator = TallyingAllocator;

fn main() -> ExitCode {
    peers::main()
}
