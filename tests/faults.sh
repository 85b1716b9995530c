#!/bin/sh
# Prints the table of faults: what fifty visitors of one app see while something is wrong with Redis.
# Needs redis-server; starts its own, on free ports of 127.0.0.1.
set -eu
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo test --quiet --test tests -- faults:: --nocapture --test-threads=1 >"$log" 2>&1 || {
    cat "$log" >&2
    exit 1
}
echo '| fault | requests | wrong answers | lost writes | 503 | 500 | slowest with a session | p99 without, healthy | p99 without, fault | recovery |'
echo '|---|---|---|---|---|---|---|---|---|---|'
# The name of a test, or its dots, may stand before the row; a fault that is played again adds to its row.
sed -n 's/^[^|]*\(| .* |\)$/\1/p' "$log" |
    awk -F '|' '!($2 in row) { order[++rows] = $2 } { row[$2] = $0 }
        END { for (n = 1; n <= rows; n++) print row[order[n]] }'
