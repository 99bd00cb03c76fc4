#!/usr/bin/env bash
# A chat in this terminal, on this machine: the chat worker over config/mcp.json, whose server is a child of it.
# Usage: chat.sh [ARGUMENT...]    for instance chat.sh ask 'How many customers do we have?'; without any: chat
#   MODEL=anthropic  the Messages API: ANTHROPIC_API_KEY, or ANTHROPIC_API_KEY_FILE
#   MODEL=openai     Chat Completions: CHAT_MODEL, and OPENAI_API_KEY, OPENAI_API_KEY_FILE or the OPENAI_BASE_URL of a server of one's own
#   MODEL=standin    the stand-in answers, from a script; needs no key
# Without MODEL, it is the first of them that the environment has a key or an address for.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=lib.sh
source tests/demo/lib.sh

anthropic=${ANTHROPIC_API_KEY:-}${ANTHROPIC_API_KEY_FILE:-}${ANTHROPIC_BASE_URL:-}
openai=${OPENAI_API_KEY:-}${OPENAI_API_KEY_FILE:-}${OPENAI_BASE_URL:-}
model=${MODEL:-${anthropic:+anthropic}}
model=${model:-${openai:+openai}}
if [[ -z $model ]]; then
    cat <<'END'
There is no key for the model. Either
  export ANTHROPIC_API_KEY=…      (or ANTHROPIC_API_KEY_FILE, a file that holds it), and make chat again, or
  export OPENAI_API_KEY=… CHAT_MODEL=…   for Chat Completions (OPENAI_BASE_URL for a server of your own), or
  make chat MODEL=standin         for a stand-in, which answers from a script and calls the tools for real.
END
    [[ -t 0 && -t 1 ]] || exit 1
    read -rp "Shall the stand-in answer now? [Y/n] " answer
    [[ $answer != [nN]* ]] || exit 1
    model=standin
fi
case $model in
anthropic) [[ -n $anthropic ]] || fail "MODEL=anthropic needs ANTHROPIC_API_KEY or ANTHROPIC_API_KEY_FILE" ;;
openai)
    [[ -n $openai ]] || fail "MODEL=openai needs OPENAI_API_KEY or OPENAI_API_KEY_FILE, or the OPENAI_BASE_URL of a server of your own"
    [[ -n ${CHAT_MODEL:-} ]] || fail "MODEL=openai needs CHAT_MODEL, the name of the model that answers"
    export CHAT_MODEL_API=openai
    ;;
standin) ;;
*) fail "MODEL=$model: use anthropic, openai or standin" ;;
esac

command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
packages=(--package chat-worker --package sandbox-server)
[[ $model != standin ]] || packages+=(--package model-standin)
# On standard error, so that what the chat says can be piped.
echo "building what is not up to date (the first time takes some minutes)" >&2
cargo build --quiet --locked --bins "${packages[@]}"
# config/mcp.json names its server by program, and so it is found.
PATH=$(realpath "${CARGO_TARGET_DIR:-target}/debug"):$PATH
mkdir -p data

if [[ $model == standin ]]; then
    log=$(mktemp)
    # In a session of its own: Ctrl-C is for the turn that runs, and not for the model.
    setsid model-standin --listen 127.0.0.1:0 >"$log" 2>&1 &
    standin=$!
    trap 'kill "$standin" 2>/dev/null; rm -f "$log"' EXIT
    limit=$((SECONDS + 10))
    until url=$(grep -o 'http://127.0.0.1:[0-9]*' "$log"); do
        if ! kill -0 "$standin" 2>/dev/null || ((SECONDS > limit)); then fail "the stand-in did not start: $(<"$log")"; fi
        sleep 0.05
    done
    export ANTHROPIC_BASE_URL=$url
    unset ANTHROPIC_API_KEY ANTHROPIC_API_KEY_FILE CHAT_MODEL_API
    echo "The stand-in answers. Ask it to create the sample data first; then: How many customers do we have, and which city has the most?" >&2
fi
(($#)) || set -- chat
chat-worker "$@"
