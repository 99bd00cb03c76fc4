#!/usr/bin/env bash
# Puts the definitions of crds/ into the cluster, and waits until its API server serves them. Usage: crds.sh
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
need_cluster
"$here/run.sh" kubectl apply --server-side --kustomize "$repo/crds"
# (What `kubectl wait` reads, the conditions of a definition, is null at first, and it gives up at that.)
wait_until 30 "the definitions are served" "$here/run.sh" kubectl get mcpservers,mcpapps --all-namespaces
