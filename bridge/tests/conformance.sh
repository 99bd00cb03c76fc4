#!/bin/sh
# Runs the official MCP conformance suite, for both eras and both kinds of sessions, against the bridge, behind which the fixtures of
# sandbox-server's examples/conformance.rs speak on standard input and output, or server-everything of npm, which is no fixture of the suite.
# What is expected to fail, and why, is in conformance-*.yaml. Exit code 0 only if all else passes.
set -eu

cd "$(dirname "$0")/../.."
# shellcheck source=../../tests/clients/lib.sh
. tests/clients/lib.sh
# shellcheck source=../../tests/clients/conformance.sh
. tests/clients/conformance.sh
install_suite
install_servers
bridge=$(built bridge) fixtures=$(built examples/conformance)

# judged REVISION SESSIONS WHAT COMMAND...: one run of the suite, against a bridge of its own, with conformance-REVISION-SESSIONS-WHAT.yaml
# where there is one.
judged() {
    revision=$1 sessions=$2 what=$3 baseline=$PWD/bridge/tests/conformance-$1-$2-$3.yaml
    shift 3
    [ -e "$baseline" ] || baseline=
    # What the bridge before it said is not to be read.
    : >"$work/log"
    "$bridge" run --listen 127.0.0.1:0 --lame-duck-seconds 0 --drain-seconds 1 --sessions "$sessions" -- "$@" 2>"$work/log" &
    servers=$!
    started "$work/log" '"address"'
    conforms "$revision" "http://$(sed -n 's/.*"address":"\([^"]*\)".*/\1/p' "$work/log")/mcp" "bridge, $sessions, $what" ${baseline:+"$baseline"}
    passed=$?
    kill "$servers"
    wait "$servers" || passed=1
    return $passed
}

failed=0
for sessions in shared per-session; do
    for revision in 2026-07-28 2025-11-25; do
        judged "$revision" "$sessions" fixtures "$fixtures" stdio || failed=1
    done
done
# It is of the earlier era itself, and asks its clients.
judged 2025-11-25 per-session everything "$node" "$npm_servers/server-everything/dist/index.js" stdio || failed=1
judged 2026-07-28 shared everything "$node" "$npm_servers/server-everything/dist/index.js" stdio || failed=1
exit $failed
