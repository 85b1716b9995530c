#!/usr/bin/env bash
# Measures sessions and plain requests on this crate and its peers, side by side. `benches/run.sh --quick` takes about
# four minutes, without it about 35; `benches/run.sh --help` lists the options. `benches/run.sh --tls` measures servers over
# TLS, with options of its own (`--tls --help`). Results: target/peers/. Installs what is missing, and says so. Linux only: it
# reads /proc.
set -euo pipefail
cd "$(dirname "$0")/.."
peers=benches/peers out=target/peers
mkdir -p "$out"
command=bench
if [ "${1:-}" = --tls ]; then
    command=tls
    shift
fi

missing=()
command -v wrk >/dev/null || missing+=(wrk)
command -v redis-server >/dev/null || missing+=(redis-server)
command -v setpriv >/dev/null && command -v taskset >/dev/null || missing+=(util-linux)
[ $command = bench ] || PATH=$PATH:/usr/sbin
[ $command = bench ] || command -v nginx >/dev/null || missing+=(nginx-light)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
command -v python3 >/dev/null || missing+=(python3)
python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
if [ ${#missing[@]} -gt 0 ]; then
    echo "Installing ${missing[*]} (Debian packages)" >&2
    sudo=''
    [ "$(id -u)" -eq 0 ] || sudo=sudo
    $sudo apt-get update -qq
    # The benchmark starts a Redis of its own; the system's need not run.
    $sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
if ! cmp -s "$peers/express/package-lock.json" "$out/express/installed"; then
    echo "Installing Express and its packages into $out/express" >&2
    mkdir -p "$out/express"
    cp "$peers"/express/package*.json "$out/express/"
    npm ci --prefix "$out/express" --silent --no-audit --no-fund
    cp "$peers/express/package-lock.json" "$out/express/installed"
fi
cp "$peers/express/server.js" "$out/express/"
if ! cmp -s "$peers/python/requirements.txt" "$out/python/installed"; then
    echo "Installing Flask, Bottle, gunicorn and their packages into $out/python" >&2
    rm -rf "$out/python"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
        --target "$out/python" --requirement "$peers/python/requirements.txt"
    cp "$peers/python/requirements.txt" "$out/python/installed"
fi
# The idle connections of the extra table.
ulimit -n "$(ulimit -Hn)"
echo "Building" >&2
for manifest in "$peers/Cargo.toml" "$peers/axum_sqlite/Cargo.toml"; do
    cargo build --release --locked --quiet --manifest-path "$manifest" --target-dir "$out"
done
exec "$out/release/peers" "$command" "$@"
