#!/usr/bin/env bash
# Builds the whole workspace, tests and examples too, and says in which folder the programs are. Whatever needs a program of ours
# for a test asks here: cargo chooses the features of shared dependencies by what is built together, so that building one package
# alone would compile those dependencies again.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
cargo build --quiet --locked --workspace --all-targets --all-features
realpath "${CARGO_TARGET_DIR:-target}/${CARGO_BUILD_TARGET:-}/debug"
