#!/usr/bin/env bash
# Counts the instructions of a hit, each kind of it, and fails if one has more than it may: scripts/instructions.sh
#
# Counted by valgrind (callgrind), so the same on a busy machine. A loop around a hit, and the drawing of its
# key, are counted with it: about twenty. Two runs of different length are taken from each other, so that nothing but
# the hits is left.
# What the kernel's library does for a look at the clock is not counted (valgrind hides it): `ttl` takes some more.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v valgrind >/dev/null || { echo "valgrind is not installed (Debian: apt-get install valgrind)" >&2; exit 2; }

cargo build --release --quiet --locked -p atomic-cache-bench --bin hits
program=${CARGO_TARGET_DIR:-target}/release/hits

count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

failures=0
# way, and how many instructions it may take
while read -r way most; do
    few=$(count "$way" 100000)
    many=$(count "$way" 200000)
    each=$(((many - few) / 100000))
    verdict=ok
    [ "$each" -le "$most" ] || { verdict=FAILED; failures=$((failures + 1)); }
    printf '%-6s %4d instructions a hit, at most %4d: %s\n' "$way" "$each" "$most" "$verdict"
done <<'LIMITS'
get   100
fill  115
with  100
pin   90
ttl   150
LIMITS
printf 'test result: %s. %d passed; %d failed\n' "$([ $failures -eq 0 ] && echo ok || echo FAILED)" $((5 - failures)) $failures
[ "$failures" -eq 0 ]
