#!/usr/bin/env bash
# Builds the released programs and what loads them, and says in which folder they are: for benchmarks. (As tests/build.sh does for tests.)
set -euo pipefail
cd "$(dirname "$0")/.."
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
cargo build --quiet --locked --release --workspace --all-features --bins \
    --example bench --example bench_chat --example bench_converge --example bench_health --example echo
realpath "${CARGO_TARGET_DIR:-target}/${CARGO_BUILD_TARGET:-}/release"
