#!/usr/bin/env bash
# The HTTP API against its own description: schemathesis asks a real chat worker what /openapi.json says can be asked, and
# much that it says cannot, and compares what comes back. The same examples each time.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=${MCPFLEET_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/mcpfleet}
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
version=4.32.5
venv=$cache/tools/schemathesis-$version
if [[ ! -e $venv/complete ]]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$version"
    touch "$venv/complete"
fi
bin=$(tests/build.sh)

work=$(mktemp -d)
pids=()
trap '((${#pids[@]} == 0)) || kill "${pids[@]}" 2>/dev/null || true; wait; rm -rf "$work"' EXIT

# start NAME PATTERN COMMAND...: in the background, until its log has the pattern; `found` is what matched.
start() {
    local log=$work/$1.log pattern=$2 limit=$((SECONDS + 20))
    shift 2
    "$@" >"$log" 2>&1 &
    pids+=($!)
    until found=$(grep -o -m1 "listens on $pattern" "$log" | grep -o -m1 "$pattern"); do
        if ! kill -0 "${pids[-1]}" 2>/dev/null || ((SECONDS > limit)); then
            cat "$log" >&2
            return 1
        fi
        sleep 0.05
    done
}

address='127\.0\.0\.1:[0-9]*'
start model "http://$address" "$bin/model-standin" --listen 127.0.0.1:0
export ANTHROPIC_BASE_URL=$found
printf '{"servers": [{"name": "sqlite", "command": "sandbox-server", "args": ["stdio", "--db", "%s"]}]}' "$work/x.db" >"$work/mcp.json"
echo s3cret-of-a-length >"$work/token"
# Without a limit of requests: they all come from one address.
start worker "http://$address" env CHAT_ACCESS_TOKEN_FILE="$work/token" CHAT_RATE_LIMIT_REQUESTS=0 CHAT_APPROVALS=never LOG_FILE=- \
    "$bin/chat-worker" --config "$work/mcp.json" serve --listen 127.0.0.1:0
url=$found

cp tests/web/schemathesis.toml "$work/"
cd "$work"
"$venv/bin/schemathesis" --config-file schemathesis.toml run "$url/openapi.json" --url "$url"
curl --silent --fail --output /dev/null "$url/healthz"
