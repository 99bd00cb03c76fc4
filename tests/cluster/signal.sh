#!/usr/bin/env bash
# Sends a signal to the processes of a pod's containers, as a failure of the program itself would strike it: STOP makes a
# server that accepts connections and never answers, CONT mends it. Usage: signal.sh NAMESPACE/POD SIGNAL
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
need_cluster node

[[ ${1:-} =~ ^([a-z0-9-]+)/([a-z0-9.-]+)$ ]] || fail "POD=${1:-}: use namespace/name"
[[ ${2:-} =~ ^[A-Z0-9]+$ ]] || fail "SIGNAL=${2:-}: use a signal's name, such as STOP, CONT or KILL"
uid=$("$here/run.sh" kubectl get pod "${1#*/}" --namespace "${1%/*}" --output jsonpath='{.metadata.uid}')

# Processes are known by their cgroup; the sandbox's own is spared, since it is no part of the program.
pids=()
while read -r procs; do
    while read -r pid; do
        [[ $(readlink "/proc/$pid/exe") == */pause ]] || pids+=("$pid")
    done <"$procs"
done < <(find /sys/fs/cgroup/{pids/,}"$cgroup" -path "*pod$uid/*" -name cgroup.procs 2>/dev/null)
((${#pids[@]})) || fail "pod $1 has no process on this node"
kill -s "$2" "${pids[@]}"
say "sent $2 to ${#pids[@]} process(es) of pod $1"
