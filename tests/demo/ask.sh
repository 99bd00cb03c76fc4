# shellcheck shell=bash disable=SC2154  # its variables are those of lib.sh
# Data into the server over MCP, a question to the app, and its answer as it comes. Sourced by demo.sh.

question='How many customers do we have, and which city has the most?'

# call_tool NAME SQL: one tools/call, as any MCP client would send it (revision 2026-07-28: no handshake, no session).
call_tool() {
    local body
    body=$(jq --null-input --compact-output --arg name "$1" --arg query "$2" '{jsonrpc: "2.0", id: 1, method: "tools/call", params: {
        name: $name, arguments: {query: $query},
        _meta: {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}}}')
    say "${cyan}tools/call $1${plain} ${dim}$(shorten "$2")${plain}"
    fetch sqlite-mcp:8080 /mcp --fail-with-body --max-time 10 --header 'Content-Type: application/json' \
        --header 'Accept: application/json, text/event-stream' --header 'MCP-Protocol-Version: 2026-07-28' \
        --header 'Mcp-Method: tools/call' --header "Mcp-Name: $1" --data "$body" |
        sed -n 's/^data: //; /^{/p' >"$scratch/call.json" || fail "the server did not take the call: $(<"$scratch/call.json")"
    jq --exit-status '.result and (.result.isError | not)' "$scratch/call.json" >/dev/null ||
        fail "the tool $1 failed: $(jq --compact-output '.error // .result.content' "$scratch/call.json")"
    jq --raw-output '.result.content[].text' "$scratch/call.json" | indent
}

shorten() { ((${#1} <= 100)) && echo "$1" || echo "${1:0:100}…"; }

insert_customers() {
    call_tool create_table 'CREATE TABLE IF NOT EXISTS customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT NOT NULL)'
    call_tool write_query "INSERT OR REPLACE INTO customers (id, name, city) VALUES (1, 'Ada', 'Zurich'), (2, 'Grace', 'Lisbon'), (3, 'Edsger', 'Zurich'), (4, 'Barbara', 'Oslo'), (5, 'Donald', 'Zurich'), (6, 'Radia', 'Lisbon'), (7, 'Leslie', 'Oslo'), (8, 'Margaret', 'Zurich')"
}

# app TARGET PATH CURL-ARGUMENT...: a request to the app, or to one pod of it, with the token that the operator made for it. curl
# reads the token from a file.
app() {
    local target=$1 path=$2 header=$scratch/header
    shift 2
    (umask 077 && kube get secret chat-app --output go-template='Authorization: Bearer {{.data.token|base64decode}}' >"$header")
    fetch "$target" "$path" --header "@$header" "$@"
}

# tell: the app's events as a person reads them. Words come in pieces; everything else has a line of its own.
tell() {
    jq --unbuffered --null-input --raw-output --join-output '
        def short: gsub("\\s+"; " ") | if length > 110 then .[:110] + "…" else . end;
        def line:
            if .type == "tool_call" then "→ " + .server + " " + .tool + " " + (.input | tojson | short)
            elif .type == "tool_result" then "← " + (if .is_error then "error: " else "" end) + (.text | short) + " (\(.duration_ms) ms)"
            elif .type == "notice" then "! " + .text
            elif .type == "error" then "error: " + .message
            elif .type == "done" then "(\(.model), \(.usage.input_tokens) tokens in, \(.usage.output_tokens) out)"
            else null end;
        foreach inputs as $event ({fresh: true};
            if $event.type == "text" then {said: ((if .fresh then "     " else "" end) + ($event.text | gsub("\n"; "\n     "))), fresh: false}
            else ($event | line) as $line |
                if $line then {said: ((if .fresh then "" else "\n" end) + "     " + $line + "\n"), fresh: true} else {said: "", fresh} end
            end; .said)'
}

# ask QUESTION: what the app does with it, as it comes; whole in the file $scratch/events. An answer must come, with tools, none of which failed.
ask() {
    local question=$1 events=$scratch/events
    show curl -N -H 'Authorization: Bearer …' -H 'Content-Type: application/json' -d "{\"message\":\"$question\"}" "http://chat-app.$namespace.svc/v1/chat"
    printf '\n   %sYou:%s %s\n   %s%s:%s\n' "$bold" "$plain" "$question" "$bold" "$(who_answers)" "$plain"
    app chat-app:80 /v1/chat --no-buffer --max-time 120 --header 'Content-Type: application/json' --header 'Accept: text/event-stream' \
        --data "$(jq --null-input --arg message "$question" '{$message}')" | tee "$scratch/stream" | sed -un 's/^data: //p' | tee "$events" | tell
    jq --exit-status --slurp 'last | .type == "done" and .outcome == "complete"' "$events" >/dev/null ||
        fail "there was no whole answer; the app said: $(tail -c 500 "$scratch/stream")"
    jq --exit-status --slurp '[.[] | select(.type == "tool_result")] | length > 0 and all(.is_error | not)' "$events" >/dev/null ||
        fail "the answer came without a tool, or a tool failed"
}

ask_and_check() {
    local start=$EPOCHREALTIME events=$scratch/events
    ask "$question"
    jq --raw-output --join-output 'select(.type == "text").text' "$events" | grep -qiE '\b(8|eight)\b.*Zurich|Zurich.*\b(8|eight)\b' ||
        fail "the answer is not the one that the data gives: eight customers, most of them in Zurich"
    say "answered in $(since "$start") s, with $(jq --slurp '[.[] | select(.type == "tool_result")] | length' "$events") tool calls"
}

who_answers() { [[ $model == standin ]] && echo "The stand-in for the model" || echo "The model"; }
