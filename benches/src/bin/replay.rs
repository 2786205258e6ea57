//! Replays an access log through an atomic cache and reports how the cache would do for that workload.

use std::process::ExitCode;

use atomic_cache_bench::{alloc_counter::CountingAllocator, cli};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() -> ExitCode {
    cli::main()
}
