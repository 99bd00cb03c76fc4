#!/usr/bin/env bash
# Makes a Service of the cluster reachable on this machine's loopback, until it is ended or the cluster goes down.
# Usage: forward.sh NAMESPACE/SERVICE PORT[:SERVICE-PORT]    without SERVICE-PORT, the Service's first
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
need_cluster node

[[ ${1:-} =~ ^([a-z0-9-]+)/([a-z0-9-]+)$ ]] || fail "SERVICE=${1:-}: use namespace/name"
namespace=${BASH_REMATCH[1]} service=${BASH_REMATCH[2]}
[[ ${2:-} =~ ^([0-9]+)(:([0-9]+))?$ ]] || fail "PORT=${2:-}: use a port of this machine, or port:port of the Service"
port=${BASH_REMATCH[1]} to=${BASH_REMATCH[3]}

found=$("$here/run.sh" kubectl get service "$service" --namespace "$namespace" \
    --output jsonpath='{.spec.clusterIP} {.spec.ports[0].port}')
read -r address first <<<"$found"
[[ ${address:-} == *.* ]] || fail "the Service $namespace/$service has no address of its own to forward to"
say "http://127.0.0.1:$port is Service $namespace/$service, port ${to:-$first} (Ctrl-C ends it)"
# By this variable `down` finds it.
export MCPFLEET_STATE=$state
exec socat "TCP-LISTEN:$port,bind=127.0.0.1,reuseaddr,fork" \
    "EXEC:nsenter --target $init --net -- socat STDIO TCP\\:$address\\:${to:-$first}"
