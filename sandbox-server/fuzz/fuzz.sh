#!/bin/sh
# Fuzzes what a caller sends (fuzz_targets/call.rs) for SECONDS (default 60), beginning with the statements of the escapes suite.
# cargo-fuzz is installed into a cache outside the tree. It wants a nightly compiler; where there is none, the stable one is told to act as
# one, without the address sanitizer, which needs a standard library of its own.
set -eu

seconds=${SECONDS_TO_FUZZ:-60}
here=$(cd "$(dirname "$0")" && pwd)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/mcpfleet/cargo-fuzz"
if ! command -v cargo-fuzz >/dev/null; then
    [ -x "$cache/bin/cargo-fuzz" ] || cargo install --quiet --locked --root "$cache" cargo-fuzz
    PATH=$cache/bin:$PATH
fi

# The first byte chooses the tool and whether the rest is SQL (odd) or the arguments as JSON (even).
corpus=$here/corpus/call
mkdir -p "$corpus"
number=0
sed -n 's/^ *"\(.*\)",$/\1/p' "$here/../tests/it/escapes.rs" | while IFS= read -r statement; do
    number=$((number + 1))
    for tool in 1 3 5; do
        printf "\\$(printf %03o $tool)%b" "$statement" >"$corpus/escape-$number-$tool"
    done
done

cd "$here/.."
if rustup toolchain list 2>/dev/null | grep -q '^nightly'; then
    cargo +nightly fuzz run --fuzz-dir fuzz call -- -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=4096
else
    RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir fuzz --sanitizer none call -- -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=4096
fi
