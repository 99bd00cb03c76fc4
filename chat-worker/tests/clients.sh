#!/bin/sh
# Lets clients of other makers list and call the fleet's tools over /mcp, in both eras, read its resources and prompts, and hear what its
# servers say meanwhile: sandbox-server, and server-everything, server-filesystem and server-memory of npm. CHAT_WORKER and SANDBOX_SERVER
# name binaries to try instead of those that are built here.
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=../../tests/clients/lib.sh
. tests/clients/lib.sh
install_clients
install_servers

worker=${CHAT_WORKER:-$(built chat-worker)}
server=${SANDBOX_SERVER:-$(built sandbox-server)}

"$server" serve --db "$work/x.db" --listen 127.0.0.1:0 2>"$work/server.log" &
servers=$!
started "$work/server.log" '"address"'
address=$(sed -n 's/.*"address":"\([^"]*\)".*/\1/p' "$work/server.log")
mkdir "$work/files"
echo 'kept here' >"$work/files/note.txt"
# One red pixel.
echo iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg== | base64 -d >"$work/files/pixel.png"
cat >"$work/mcp.json" <<MCP
{"servers": [{"name": "db", "url": "http://$address/mcp"},
  {"name": "everything", "command": "$node", "args": ["$npm_servers/server-everything/dist/index.js", "stdio"]},
  {"name": "files", "command": "$node", "args": ["$npm_servers/server-filesystem/dist/index.js", "$work/files"]},
  {"name": "memory", "command": "$node", "args": ["$npm_servers/server-memory/dist/index.js"], "env": {"MEMORY_FILE_PATH": "$work/memory.jsonl"}}]}
MCP
# No model is asked. All of them are one caller, and more than a hundred requests within a minute where a machine is fast.
ANTHROPIC_BASE_URL=http://127.0.0.1:9 CHAT_RATE_LIMIT_REQUESTS=10000 LOG_FILE='' MCP_CONFIG_PATH=$work/mcp.json "$worker" serve --listen 127.0.0.1:0 >"$work/worker.log" &
servers="$servers $!"
for server in db everything files memory; do started "$work/worker.log" "server is up.*server=$server"; done
started "$work/worker.log" 'listens on'
url=$(sed -n 's/.*listens on \(http:[^;]*\);.*/\1/p' "$work/worker.log")/mcp

typescript_client chat-worker/tests/clients.mjs "$url" "$work/files"
for mode in auto 2026-07-28 legacy; do
    python_client "$python" chat-worker/tests/clients.py "$url" "$mode" "$work/files"
done
python_client "$python_before" chat-worker/tests/clients.py "$url" v1 "$work/files"
for era in modern legacy; do
    expect '"db__read_query"' "$url" --protocol-era $era --method tools/list
    expect '42' "$url" --protocol-era $era --method tools/call --tool-name db__read_query --tool-args-json '{"query":"SELECT 42 AS answer"}'
    expect 'kept here' "$url" --protocol-era $era --method tools/call --tool-name files__read_text_file --tool-arg "path=$work/files/note.txt"
    expect 'memory://knowledge-graph' "$url" --protocol-era $era --method resources/list
done
echo "clients: the inspector $inspector lists and calls the fleet in both eras"
