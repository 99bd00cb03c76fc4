#!/usr/bin/env bash
# Runs a command in the cluster's network, with its kubectl and kubeconfig, as the caller in the caller's directory.
# Usage: run.sh PROGRAM [ARGUMENT...]    its exit code is this script's
#        MCPFLEET_CMD='shell command' run.sh
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
need_cluster

if [[ -v MCPFLEET_CMD ]]; then
    set -- bash -c "$MCPFLEET_CMD"
elif (($# == 0)); then
    fail "no command: make -s cluster-run CMD='kubectl get nodes'"
fi
# What make passes to a make of its own is not the command's business.
unset MCPFLEET_CMD MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL

export PATH=$state/bin:$PATH KUBECONFIG=$state/kubeconfig
export MCPFLEET_STATE=$state MCPFLEET_CLUSTER_NAME=$name MCPFLEET_AUDIT_LOG=$state/audit.log
MCPFLEET_CLUSTER_LEVEL=$(cat "$state/level")
export MCPFLEET_CLUSTER_LEVEL

has_level node && set -- "${with_dns[@]}" "$@"
replace_shell=yes enter "$init" net -- "$@"
