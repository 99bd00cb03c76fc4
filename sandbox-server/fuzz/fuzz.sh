#!/bin/sh
# Fuzzes what a caller sends (world.rs) for so many seconds, default 60, beginning with the escapes (tests/it/statements.rs) and with what was
# found before (found/). cargo-fuzz is installed into a cache outside the tree when there is none. It wants a nightly compiler; where there is
# none, the stable one is told to act as one, without the address sanitizer, which needs a standard library of its own.
set -eu

seconds=${1:-60}
here=$(cd "$(dirname "$0")" && pwd)
version=0.13.2
cache="${XDG_CACHE_HOME:-$HOME/.cache}/mcpfleet/cargo-fuzz"
if [ "$("$cache/bin/cargo-fuzz" fuzz --version 2>/dev/null)" != "cargo-fuzz $version" ]; then
    cargo install --quiet --locked --force --root "$cache" --version "$version" cargo-fuzz
fi
PATH=$cache/bin:$PATH

# The versions that are released are those that are fuzzed.
cp "$here/../../Cargo.lock" "$here/Cargo.lock"
mkdir -p "$here/corpus/call" "$here/seeds"
export FUZZ_SEEDS="$here/seeds"
# Not the workspace's: other flags for everything would compile all of it anew at every change between them.
export CARGO_TARGET_DIR="$here/target"

cd "$here/.."
set -- run --fuzz-dir fuzz call fuzz/corpus/call fuzz/seeds fuzz/found -- \
    -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=4096 -print_final_stats=1
if cargo +nightly --version >/dev/null 2>&1; then
    exec cargo +nightly fuzz "$@"
fi
RUSTC_BOOTSTRAP=1 exec cargo fuzz "$@" --sanitizer none
