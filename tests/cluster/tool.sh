#!/usr/bin/env bash
# Builds tools that the cluster itself does not need (helm, kwok, kstatus, alerts), and puts them on the PATH of cluster-run. Usage: tool.sh TOOL...
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

(($#)) || fail "which tool? make cluster-tool TOOL=helm"
"$here/build.sh" "$@"
for tool in "$@"; do
    [[ ! -d $state/bin ]] || ln -sf "$("$here/build.sh" --path "$tool")" "$state/bin/$tool"
    "$here/build.sh" --path "$tool"
done
