#!/usr/bin/env bash
# Starts metrics-server beside a node, for `kubectl top` and autoscalers by CPU and memory, and returns when the API server reaches it.
# Usage: metrics.sh
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
need_cluster node

part=metrics-server
"$here/build.sh" $part
[[ ! -e $state/logs/$part.log ]] || {
    say "$part is there already"
    exit 0
}
begin=$EPOCHREALTIME
kube() { enter "$init" net -- "$state/bin/kubectl" --kubeconfig "$state/kubeconfig" --request-timeout 5s "$@"; }
ln -sf "$("$here/build.sh" --path $part)" "$state/bin/$part"
echo $part >"$state/launch"
sed -e "s|@NODE_IP@|$node_ip|g" -e "s|@CA@|$(base64 -w0 "$state/pki/ca.crt")|g" \
    "$here/etc/$part.yaml" | kube apply -f - >/dev/null
wait_until 60 "the API server reaches metrics-server" kube get --raw /apis/metrics.k8s.io/v1beta1
say "metrics-server is there ($(elapsed "$begin") s); it looks twice, 10 s apart, before kubectl top has numbers"
