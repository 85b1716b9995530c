#!/bin/sh
# Measures "hello" on each server with wrk, in turns, and prints the median of requests per second and of
# p99 over all rounds: at 1, 32 and 256 keep-alive connections, and for plain requests while 100 others sleep a
# second each. Then what each server holds in memory with 10,000 idle keep-alive connections.
# Usage: compare.sh [rounds] [seconds]; takes about rounds × seconds × 16. Needs wrk, and 10,100 open files.
set -eu
cd "$(dirname "$0")"
rounds=${1:-15} seconds=${2:-1}
servers="native axum actix tiny_http"
cargo build --release --locked --quiet
compare=./target/release/compare
results=$(mktemp)
started=""
trap 'kill $started 2>/dev/null; rm -f "$results" "$results".*' EXIT

# start <server>: its port is in the file of its name then, and its process in $!.
start() {
    : >"$results.$1"
    $compare "$1" >"$results.$1" &
    started="$started $!"
    until [ -s "$results.$1" ]; do sleep 0.05; done
}

# measure <server> <case> <connections>
measure() {
    url="http://127.0.0.1:$(cat "$results.$1")/"
    wrk -t1 -c"$3" -d"${seconds}s" --latency "$url" |
        awk -v row="$1 $2" '
            function ms(t) { return t ~ /us$/ ? t / 1000 : t ~ /ms$/ ? t + 0 : t * 1000 }
            $1 == "99%" { p99 = ms($2) }
            $1 == "Requests/sec:" { print row, $2, p99 }' >>"$results"
}

for server in $servers; do start "$server"; done
round=0 order=$servers
while [ "$round" -lt "$rounds" ]; do
    round=$((round + 1))
    # A machine that has just been busy may be slower for a while: each server is first in its turn.
    order="${order#* } ${order%% *}"
    for connections in 1 32 256; do
        for server in $order; do measure "$server" "$connections" "$connections"; done
    done
    for server in $order; do
        # The sixteen threads of the tiny_http adapter would all be asleep.
        [ "$server" != tiny_http ] || continue
        wrk -t1 -c100 -d"$((seconds + 1))s" "http://127.0.0.1:$(cat "$results.$server")/sleep" >/dev/null &
        sleepers=$!
        measure "$server" sleeping 8
        wait $sleepers
    done
done

for case in 1 32 256 sleeping; do
    for server in $servers; do
        awk -v s="$server" -v c="$case" '$1 == s && $2 == c { print $3 }' "$results" | sort -n >"$results.r"
        awk -v s="$server" -v c="$case" '$1 == s && $2 == c { print $4 }' "$results" | sort -n >"$results.l"
        [ -s "$results.r" ] || continue
        middle=$(($(wc -l <"$results.r") / 2 + 1))
        printf '%s %s %s %s\n' "$case" "$server" "$(sed -n "${middle}p" "$results.r")" "$(sed -n "${middle}p" "$results.l")"
    done
done | awk '
    BEGIN { printf "%-9s %-10s %10s %8s %s\n", "case", "server", "requests/s", "p99 ms", "native is" }
    $2 == "native" { native = $3 }
    { printf "%-9s %-10s %10.0f %8.2f %.2f times\n", $1, $2, $3, $4, native / $3 }'

# In processes that have served nothing else.
for server in native axum actix; do
    start "$server"
    resident=$($compare idle "$(cat "$results.$server")" 10000 "$!")
    printf '%-9s %-10s %10s KiB\n' idle "$server" "$resident"
done
