#!/usr/bin/env bash
# `make drills`: the failures on a real node that take minutes, in a cluster of their own. ONLY=part-of-a-name runs some.
set -euo pipefail
cd "$(dirname "$0")/.."

[[ $EUID -eq 0 ]] || {
    echo "error: a node needs root: run it as root" >&2
    exit 1
}
export MCPFLEET_IMAGE_PROFILE=quick
export MCPFLEET_CLUSTER_NAME=${MCPFLEET_DRILLS_NAME:-mcpfleet-drills}

# Built outside of the cluster, where the registries are.
binary=$(cargo test --locked --workspace --all-features --test node --no-run --message-format=json |
    python3 -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message.get("target", {}).get("name") == "node":
        print(message["executable"])')

MOTO=$(tests/moto.sh)
export MOTO
MCPFLEET_CLIENTS=$(tests/clients/folder.sh)
export MCPFLEET_CLIENTS
trap 'tests/cluster/down.sh' EXIT
tests/cluster/tool.sh helm
tests/cluster/up.sh node
tests/cluster/load.sh operator sandbox-server chat-worker bridge
images=$(mktemp -d)
trap 'rm -rf "$images"; tests/cluster/down.sh' EXIT
tests/stdio/images.sh "$images" python
tests/cluster/load.sh "$images/python.tar"
# shellcheck disable=SC2086  # none is no argument
tests/cluster/run.sh "$binary" --ignored --test-threads=1 --show-output ${ONLY:-}
