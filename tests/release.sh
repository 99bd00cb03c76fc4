#!/usr/bin/env bash
# Builds the programs as they are released (static, as tests/cluster/images.sh puts them into images) and what loads them, and says in which
# folder they are: for benchmarks. (As tests/build.sh does for tests.)
set -euo pipefail
cd "$(dirname "$0")/.."
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
CARGO_BUILD_TARGET=$(uname -m)-unknown-linux-gnu
export CARGO_BUILD_TARGET RUSTFLAGS="-C target-feature=+crt-static"
cargo build --quiet --locked --release --workspace --all-features --bins \
    --example bench --example bench_chat --example bench_converge --example bench_health --example echo
realpath "${CARGO_TARGET_DIR:-target}/$CARGO_BUILD_TARGET/release"
