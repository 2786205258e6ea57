#!/usr/bin/env bash
# Runs the suite under AddressSanitizer, over either engine of reclamation: scripts/asan.sh [filter...]
#
# Needs a nightly toolchain. Nodes are boxes of their own (--cfg atomic_cache_boxed), because cells of a slab that are
# used again would hide a use after the free. What counts allocations, or has memory of its own, is left out.
#
#   ATOMIC_CACHE_SOAK   seconds for the soak of random histories besides; 20 if not set
set -euo pipefail
cd "$(dirname "$0")/.."

target=x86_64-unknown-linux-gnu
export ATOMIC_CACHE_SOAK=${ATOMIC_CACHE_SOAK:-20}
# What a panic carries that panics itself is leaked on purpose; values and keys are counted by the tests.
export ASAN_OPTIONS=detect_leaks=0
for engine in "" "--cfg atomic_cache_crossbeam"; do
    printf '== %s\n' "${engine:-our own engine}"
    RUSTFLAGS="-Zsanitizer=address --cfg atomic_cache_boxed $engine" CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/asan \
        cargo +nightly test -p atomic-cache --locked --target "$target" --lib --test suite -- \
        --skip c07_allocations:: --skip c07_quiet:: --skip leaks::r10_memory --skip h28 --skip allocates \
        --skip what_is_refused_and_what_is_not_disturbed --skip a_type_that_does_not_weigh_is_told ${@+"$@"}
done
