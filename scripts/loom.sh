#!/usr/bin/env bash
# Runs the loom models: scripts/loom.sh [filter...]
#
#   LOOM_MAX_PREEMPTIONS   bound for the models that have one, to look further than they do
#   LOOM_SHORT             set: the models of a million executions are cut short, as .ci/run does
#   LOOM_THREADS           models at a time; 2 if not set
#   LOOM_TARGET            where to build; target/loom if not set
#
# Each model says how many executions it took. loom is built with scripts/loom.patch, without
# which it misses interleavings (the patch says which). The models run without it too, and prove
# less: RUSTFLAGS="--cfg atomic_cache_loom" cargo test --release --lib -p atomic-cache
#
# For mutants.sh: LOOM_IN_PLACE builds here instead of in a copy, LOOM_BUILD_ONLY runs nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${LOOM_TARGET:-$PWD/target/loom}
mkdir -p "$target"
target=$(cd "$target" && pwd)
export CARGO_TARGET_DIR=$target/build
# What a model does not need is dead code under this cfg.
export RUSTFLAGS="--cfg atomic_cache_loom -A dead_code ${RUSTFLAGS:-}"
export RUST_BACKTRACE=${RUST_BACKTRACE:-0}

# In a copy, because the patched loom changes the lock file.
if [ -z "${LOOM_IN_PLACE:-}" ]; then
    rm -rf "$target/crate"
    mkdir "$target/crate"
    tar --exclude=./target --exclude=./.git --exclude="$target" -cf - . | tar -xf - -C "$target/crate"
    cd "$target/crate"
    # Or cargo takes what it has built last, a mutant perhaps, to be newer than the copy.
    touch src/lib.rs
    # Half a minute more to build, and a quarter less for each execution, of which there are many millions. (Not for a
    # mutant, which is built anew for a model or two.)
    export CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 CARGO_PROFILE_RELEASE_DEBUG=0
fi

patched=$target/loom-0.7.2-patched
if [ ! -e "$patched/.done" ]; then
    cargo fetch --quiet
    manifest=$(cargo metadata --format-version 1 |
        grep -o '"[^"]*/loom-0\.7\.2/Cargo\.toml"' | head -n 1 | tr -d '"')
    rm -rf "$patched"
    cp -r "$(dirname "$manifest")" "$patched"
    patch --quiet --directory="$patched" --strip=1 <scripts/loom.patch
    touch "$patched/.done"
fi

cargo=(cargo --config "patch.crates-io.loom.path='$patched'"
    test --quiet --release --lib --package atomic-cache)
if [ -n "${LOOM_BUILD_ONLY:-}" ]; then
    "${cargo[@]}" --no-run
else
    "${cargo[@]}" -- --test-threads="${LOOM_THREADS:-2}" --nocapture ${@+"$@"}
fi
