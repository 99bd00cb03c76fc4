#!/bin/sh
# Runs the official MCP conformance suite, for both eras, against the bridge, behind which the fixtures of sandbox-server's
# examples/conformance.rs speak on standard input and output. Exit code 0 only if every required scenario passes.
set -eu

cd "$(dirname "$0")/../.."
# shellcheck source=../../tests/clients/lib.sh
. tests/clients/lib.sh
# shellcheck source=../../tests/clients/conformance.sh
. tests/clients/conformance.sh
install_suite
bridge=$(built bridge) fixtures=$(built examples/conformance)

# judged REVISION SESSIONS: one run of the suite, against a bridge of its own.
judged() {
    # What the bridge before it said is not to be read.
    : >"$work/log"
    "$bridge" run --listen 127.0.0.1:0 --lame-duck-seconds 0 --drain-seconds 1 --sessions "$2" -- "$fixtures" stdio 2>"$work/log" &
    servers=$!
    started "$work/log" '"address"'
    conforms "$1" "http://$(sed -n 's/.*"address":"\([^"]*\)".*/\1/p' "$work/log")/mcp" "bridge, $2"
    passed=$?
    kill "$servers"
    wait "$servers" || passed=1
    return $passed
}

failed=0
judged 2026-07-28 shared || failed=1
# Servers ask their clients for something in this revision: only a child of one's own can.
judged 2025-11-25 per-session || failed=1
exit $failed
