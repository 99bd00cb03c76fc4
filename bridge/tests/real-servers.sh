#!/bin/sh
# The bridge in front of servers of other makers, installed by `bridge install` from npm and PyPI and started as every desktop client starts
# them. They are kept in a cache outside the tree.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/mcpfleet/bridge-packages"
bridge=$("$here/../tests/build.sh")/bridge

work=$(mktemp -d)
server=
trap 'kill $server 2>/dev/null || true; wait $server 2>/dev/null || true; rm -rf "$work"' EXIT

# serve WORD TOOL ARGUMENTS COMMAND...: the tool's answer must hold the word, for a client of each era, with the network out of reach.
serve() {
    word=$1 tool=$2 arguments=$3
    shift 3
    # Emptied here, and not only where the program starts: what the one before it said is not to be read.
    : >"$work/log"
    npm_config_offline=true UV_OFFLINE=1 "$bridge" run --listen 127.0.0.1:0 --lame-duck-seconds 0 --packages "$cache" -- "$@" 2>"$work/log" &
    server=$!
    until address=$(sed -n 's/.*"serving MCP at \/mcp".*"address":"\([^"]*\)".*/\1/p' "$work/log") && [ -n "$address" ]; do
        kill -0 $server 2>/dev/null || { cat "$work/log" >&2; exit 1; }
        sleep 0.05
    done
    python3 -B "$here/tests/real_client.py" "http://$address/mcp" "$tool" "$arguments" "$word" || {
        echo "real-servers: $*: FAILED" >&2
        cat "$work/log" >&2
        exit 1
    }
    echo "real-servers: $*: ok"
    kill $server
    wait $server || { echo "real-servers: $*: it did not end well" >&2; exit 1; }
}

everything=@modelcontextprotocol/server-everything@2026.8.31
memory=@modelcontextprotocol/server-memory@2026.8.31
time=mcp-server-time==2026.10.10
"$bridge" install npm "$everything" --into "$cache" 2>"$work/install" || { cat "$work/install" >&2; exit 1; }
"$bridge" install npm "$memory" --into "$cache" 2>"$work/install" || { cat "$work/install" >&2; exit 1; }
"$bridge" install pypi "$time" --into "$cache" 2>"$work/install" || { cat "$work/install" >&2; exit 1; }

serve 'Echo: hello' echo '{"message": "hello"}' npx -y "$everything"
serve '"entities": \[\]' read_graph '{}' npx -y "$memory"
serve 'Europe/Zurich' get_current_time '{"timezone": "Europe/Zurich"}' uvx "$time" --local-timezone Europe/Zurich
