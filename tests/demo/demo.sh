#!/usr/bin/env bash
# The whole of mcpfleet, in front of your eyes: a cluster, the operator, a server, a chat that answers out of it, a server
# of another maker in the same chat, one that breaks and is taken out of use, and its way back. Exit code 0 only if every step really happened.
# Usage: demo.sh    by the environment:
#   CONTEXT=name    an existing cluster: a context of your kubeconfig; images come from REGISTRY (PUSH=yes puts them there)
#   CLUSTER=kind    a cluster by kind, where Docker runs
#   (neither)       the built-in cluster; needs root
#   MODEL=anthropic or standin    who answers (default: you are asked when ANTHROPIC_API_KEY is set, else the stand-in)
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=lib.sh
source tests/demo/lib.sh
# shellcheck source=cluster.sh
source tests/demo/cluster.sh
for part in model images packages install fleet ask break; do
    # shellcheck source=/dev/null
    source "tests/demo/$part.sh"
done

steps=10
scratch=$(mktemp -d)
# A server that was stopped is let go again, whatever ends this script.
stopped=
finish() {
    local code=$?
    trap - EXIT
    [[ -z $stopped ]] || signal_pod "$stopped" CONT >/dev/null 2>&1 || true
    cluster_release
    rm -rf "$scratch"
    ((code == 0)) || printf '\n%sThe demo did not get to its end.%s What went wrong is above. To try again: make demo. To remove everything: %s\n' \
        "$red" "$plain" "$(cluster_remove)" >&2
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

printf '%smcpfleet: a fleet of MCP servers on %s%s\n' "$bold" "$(cluster_title)" "$plain"
need curl:curl jq:jq
choose_model

step "A cluster"
cluster_up

step "Images"
provide_images
provide_packages

step "The operator, by Helm"
install_operator

step "Two servers and an app"
apply_fleet
apply_model
renew_stale
await_fleet

step "Some data, written over MCP"
insert_customers

step "A question, answered out of the database"
ask_and_check

step "In the same chat: a server of PyPI, which speaks over standard input and output"
ask_the_time

step "The server breaks: its process is stopped, so that it accepts connections and never answers"
break_server

step "The server mends"
mend_server
ask_and_check

step "What there is to see now"
kube_get_all
step_done
cat <<END

${bold}The web page:${plain} $(cluster_page)
   It asks for a token, which is in the Secret chat-app:
$(show kubectl -n "$namespace" get secret chat-app --output 'go-template={{.data.token|base64decode}}' | sed 's/^/  /')
${bold}Commands in the cluster:${plain} $(cluster_command)
${bold}To remove everything:${plain} $(cluster_remove)

${green}Every step happened, in $(since "$demo_start") s: $(summary)${plain}
END
