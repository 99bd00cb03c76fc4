#!/bin/sh
# Runs the official MCP conformance suite, for both eras, against the fixtures of examples/conformance.rs on this server's HTTP stack. Exit
# code 0 only if every required scenario passes.
set -eu

cd "$(dirname "$0")/../.."
# shellcheck source=../../tests/clients/lib.sh
. tests/clients/lib.sh
# shellcheck source=../../tests/clients/conformance.sh
. tests/clients/conformance.sh
install_suite

fixtures=$(built examples/conformance)
"$fixtures" 127.0.0.1:0 >"$work/address" &
servers=$!
started "$work/address" http
url=$(cat "$work/address")

failed=0
conforms 2026-07-28 "$url" sandbox-server || failed=1
conforms 2025-11-25 "$url" sandbox-server || failed=1

# The short way past the SDK is under the suite, too.
kill -INT "$servers"
wait "$servers"
sed -n 's/^\([1-9].* calls went the short way\)$/conformance: \1/p' "$work/address" | grep . || {
    echo "conformance: no call went the short way" >&2
    failed=1
}
exit $failed
