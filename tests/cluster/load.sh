#!/usr/bin/env bash
# Imports images into the node of a cluster. Usage: load.sh IMAGE...
#   IMAGE is a docker-archive tar, or operator, sandbox-server, chat-worker, bridge: built first when they are not up to date.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=image-names.sh
source "$here/image-names.sh"

(($#)) || fail "which image? make cluster-load IMAGE=operator, or IMAGE=path/to/archive.tar"
need_cluster node
ours=() archives=()
for image in "$@"; do
    if [[ -f $image ]]; then
        archives+=("$image")
    else
        image_name "$image" >/dev/null
        ours+=("$image")
        archives+=("$(image_archive "$image")")
    fi
done
((${#ours[@]} == 0)) || "$here/images.sh" "${ours[@]}"
for archive in "${archives[@]}"; do
    enter "$init" mount net -- ctr --namespace k8s.io images import - <"$archive"
done
