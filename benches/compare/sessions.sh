#!/bin/sh
# Measures sessions in one Redis with wrk, in turns: a request that reads its session, and one that changes it. Prints
# the medians over all rounds of requests per second, p99, and the time on a core that the server and Redis take
# for one request. Usage: sessions.sh [rounds] [seconds]; takes about rounds × seconds × 18. Needs wrk, curl and
# redis-server, and starts its own on a free port of 127.0.0.1.
set -eu
cd "$(dirname "$0")"
rounds=${1:-15} seconds=${2:-1}
servers="native axum actix"
cargo build --release --locked --quiet
compare=./target/release/compare
results=$(mktemp)
started=""
trap 'kill $started 2>/dev/null; rm -f "$results" "$results".*' EXIT

port=$($compare free-port)
redis-server --bind 127.0.0.1 --port "$port" --save '' --appendonly no >/dev/null &
redis=$!
started="$redis"
until redis-cli -p "$port" ping >/dev/null 2>&1; do sleep 0.05; done
for server in $servers; do
    : >"$results.$server"
    $compare sessions "$server" "redis://127.0.0.1:$port" >"$results.$server" &
    started="$started $!"
    echo $! >"$results.$server.process"
    until [ -s "$results.$server" ]; do sleep 0.05; done
    curl -s -o /dev/null -D - "http://127.0.0.1:$(cat "$results.$server")/login" |
        sed -n 's/^[Ss]et-[Cc]ookie: \([^;]*\);.*/\1/p' >"$results.$server.cookie"
done

# The time on a core that a process has had, in hundredths of a second.
used() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }

# measure <server> <path> <connections>
measure() {
    process=$(cat "$results.$1.process")
    redis_before=$(used "$redis") server_before=$(used "$process")
    wrk -t1 -c"$3" -d"${seconds}s" --latency -H "Cookie: $(cat "$results.$1.cookie")" \
        "http://127.0.0.1:$(cat "$results.$1")/$2" >"$results.wrk"
    awk -v row="$1 $2/$3" -v s="$(($(used "$process") - server_before))" \
        -v r="$(($(used "$redis") - redis_before))" '
            function ms(t) { return t ~ /us$/ ? t / 1000 : t ~ /ms$/ ? t + 0 : t * 1000 }
            $1 == "99%" { p99 = ms($2) }
            / requests in / { count = $1 }
            /Non-2xx/ { failed = 1 }
            $1 == "Requests/sec:" && !failed { print row, $2, p99, 10000 * s / count, 10000 * r / count }' \
        "$results.wrk" >>"$results"
}

round=0 order=$servers
while [ "$round" -lt "$rounds" ]; do
    round=$((round + 1))
    order="${order#* } ${order%% *}"
    for connections in 1 32 256; do
        for path in read count; do
            for server in $order; do measure "$server" "$path" "$connections"; done
        done
    done
done

# median <server> <case> <column>
median() {
    awk -v s="$1" -v c="$2" -v n="$3" '$1 == s && $2 == c { print $n }' "$results" | sort -n |
        awk '{ v[NR] = $1 } END { print v[int(NR / 2) + 1] }'
}

printf '%-10s %-8s %10s %8s %15s %14s\n' case server requests/s 'p99 ms' 'server, us each' 'redis, us each'
for case in read/1 read/32 read/256 count/1 count/32 count/256; do
    for server in $servers; do
        printf '%-10s %-8s %10.0f %8.2f %15.1f %14.1f\n' "$case" "$server" "$(median "$server" "$case" 3)" \
            "$(median "$server" "$case" 4)" "$(median "$server" "$case" 5)" "$(median "$server" "$case" 6)"
    done
done
