#!/bin/sh
# Lets clients of other makers call everything that the server offers, in both eras: the official TypeScript client (clients.mjs), the
# official Python client in its two generations (clients.py), and the inspector's command line, over HTTP and standard input.
# They come from npm and PyPI, into a cache outside the tree. SANDBOX_SERVER names a binary to try instead of the one that is built here.
set -eu

cd "$(dirname "$0")/../.."
# shellcheck source=../../tests/clients/lib.sh
. tests/clients/lib.sh
install_clients

SANDBOX_SERVER=${SANDBOX_SERVER:-$(built sandbox-server)}
"$SANDBOX_SERVER" serve --db "$work/x.db" --listen 127.0.0.1:0 2>"$work/log" &
servers=$!
started "$work/log" '"address"'
url=http://$(sed -n 's/.*"address":"\([^"]*\)".*/\1/p' "$work/log")/mcp

typescript_client sandbox-server/tests/clients.mjs "$url"
for mode in auto 2026-07-28 legacy; do
    python_client "$python" sandbox-server/tests/clients.py "$url" "$mode"
done
python_client "$python_before" sandbox-server/tests/clients.py "$url" v1

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
