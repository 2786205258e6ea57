#!/usr/bin/env bash
# Compares docs/CONTRACT.md with the names of the tests: scripts/contract.sh [--counts]
#
# A row of the document begins with a number (`c02`, `r04`, `h07`, `k1`, `l16`) and ends with how many tests have it in
# their names, or with "none" and a reason. The script fails if a number has no test, or another count than the document
# says, and if a test's name has a number that the document has not. With --counts it writes the counts anew.
set -euo pipefail
cd "$(dirname "$0")/.."

document=docs/CONTRACT.md
names=$(mktemp)
trap 'rm -f "$names"' EXIT

# Each number in the name of a test or a model, with that name.
find src tests/suite benches fuzz/fuzz_targets -name '*.rs' -print0 | sort -z |
    xargs -0 awk '
        function number_of(name,   parts, count, i) {
            count = split(name, parts, "_")
            for (i = 1; i <= count; i++)
                if (parts[i] ~ /^[chrlk][0-9]+$/) print parts[i], name
        }
        FNR == 1 { test = 0 }
        /^ *#\[test\]/ { test = 1; next }
        test && /^ *(async )?fn [a-z0-9_]+/ { sub(/^ *(async )?fn /, ""); sub(/[^a-z0-9_].*/, ""); number_of($0); test = 0; next }
        /^    [a-z][a-z0-9_]+: Explore::/ { sub(/^ */, ""); sub(/:.*/, ""); number_of($0) }
    ' >"$names"

if [ "${1:-}" = --counts ]; then
    written=$(awk -F ' [|]' '
        NR == FNR { split($0, word, " "); tests[word[1]]++; next }
        /^\| `[chrlk][0-9]+` \|/ && $0 !~ /\| none[^|]*\|$/ {
            split($0, part, "`")
            sub(/\| [0-9]+ \|$/, "| " tests[part[2]] + 0 " |")
        }
        { print }
    ' "$names" "$document")
    printf '%s\n' "$written" >"$document"
fi

awk -v document="$document" '
    function complain(text) { print text > "/dev/stderr"; wrong++ }
    NR == FNR { split($0, word, " "); tests[word[1]]++; example[word[1]] = word[2]; next }
    /^\| `[chrlk][0-9]+` \|/ {
        split($0, part, "`"); number = part[2]; count = split($0, cell, "|"); said = cell[count - 1]
        gsub(/^ +| +$/, "", said)
        if (number in row) complain(document " has " number " twice")
        row[number] = 1; rows++
        if (said ~ /^none/) {
            if (tests[number]) complain(document " says that " number " has no test, but there is " example[number])
        } else if (!tests[number]) complain("no test is called " number "_")
        else if (said != tests[number])
            complain(document " says that " number " has \"" said "\" tests, but there are " tests[number] " (see --counts)")
        all += tests[number]
    }
    END {
        for (number in tests)
            if (!(number in row)) complain(example[number] ": " document " has no " number)
        if (!rows) complain(document " has no rows")
        if (wrong) exit 1
        printf "%d numbers of %s, %d names of tests\n", rows, document, all
    }
' "$names" "$document"
