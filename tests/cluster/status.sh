#!/usr/bin/env bash
# Says whether a cluster is up, and how each of its parts is. Usage: status.sh    exit code 1: not up, or a part has died
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

init_pid >/dev/null || {
    if [[ -e $state ]]; then
        say "cluster $name: not running; an earlier one left $state (make cluster-down$(name_argument) removes it)"
    else
        say "cluster $name: not running"
    fi
    exit 1
}
code=0
if has_level control-plane; then
    say "cluster $name: up, LEVEL=$(cat "$state/level")"
else
    say "cluster $name: an up has not finished"
    code=1
fi
for log in "$state"/logs/*.log; do
    part=$(basename "$log" .log)
    if [[ -e $state/exited/$part ]]; then
        say "  $part: ended with exit code $(cat "$state/exited/$part"); see $log"
        code=1
    else
        say "  $part: running"
    fi
done
say "  kubeconfig: $state/kubeconfig (valid inside: make -s cluster-run$(name_argument) CMD='kubectl get nodes')"
say "  logs: $state/logs    audit log: $state/audit.log"
exit "$code"
