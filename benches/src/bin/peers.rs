//! Times atomic-cache beside its peers in one run.

use std::process::ExitCode;

use atomic_cache_bench::{alloc_counter::CountingAllocator, peers};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() -> ExitCode {
    peers::main()
}
