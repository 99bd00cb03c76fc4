#!/usr/bin/env bash
# Puts the definitions of crds/ into the cluster, and waits until its API server serves them. Usage: crds.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
tests/cluster/run.sh kubectl apply --server-side --kustomize crds
# (--for=condition fails where there are no conditions yet.)
tests/cluster/run.sh kubectl wait --for=jsonpath='{.status.conditions[?(@.type=="Established")].status}'=True --timeout=30s --all crd
