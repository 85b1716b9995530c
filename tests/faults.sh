#!/bin/sh
# Prints the table of faults: what fifty visitors of one app see while something is wrong with Redis; first on
# Debian's server, then on the others that tests/run.sh installs. With the programs of servers, on these.
# The servers are started on free ports of 127.0.0.1.
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- redis-server \
    "${BOTTLE_SESSION_REDIS_6_2:-$PWD/target/servers/redis-6.2}" \
    "${BOTTLE_SESSION_VALKEY_9:-$PWD/target/servers/valkey-9}"
for server; do
    command -v "$server" >/dev/null || {
        echo "$server is not there; run tests/run.sh, which installs it" >&2
        exit 1
    }
done
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for server; do
    BOTTLE_SESSION_REDIS_SERVER=$server \
        cargo test --quiet --test tests -- faults:: --nocapture --test-threads=1 >"$log" 2>&1 || {
        cat "$log" >&2
        exit 1
    }
    printf '\n%s\n\n' "$("$server" --version | cut -d ' ' -f 1-3)"
    echo '| fault | requests | wrong answers | lost writes | 503 | 500 | slowest with a session | p99 without, healthy | p99 without, fault | recovery |'
    echo '|---|---|---|---|---|---|---|---|---|---|'
    # The name of a test, or its dots, may stand before the row; a fault that is played again adds to its row.
    sed -n 's/^[^|]*\(| .* |\)$/\1/p' "$log" |
        awk -F '|' '!($2 in row) { order[++rows] = $2 } { row[$2] = $0 }
            END { for (n = 1; n <= rows; n++) print row[order[n]] }'
done
