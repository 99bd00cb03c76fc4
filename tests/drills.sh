#!/usr/bin/env bash
# `make drills`: failures on a real node that take minutes, in a cluster of their own, one after the other. They are the tests of
# tests/tests/node/ that are ignored otherwise; ONLY='part-of-a-name another' runs some.
#
#   asleep              each step of a wake; an app over a server that sleeps; operator and activator killed as it falls asleep
#   faults              a pod's bridge killed in a wake, in falling asleep, in a step down; operator and API server in a change of size
#   backup              a volume lost and restored, from a claim and from a bucket; jobs by hand; program, pod, operator and API server
#                       killed in the middle of a backup and of a restore
#   drills              pods that hang are evicted one by one; the operator killed 50 times in an outage; ten minutes without a write
#   sandbox             a pod killed 20 times under acknowledged writes; a full volume; rows lost and restored
#   chat                a hundred conversations while everything around them changes
#   node                the kubelet stops: what servers and apps say of their node
#   session             fifty clients with sessions while pods go and come
#
# The programs are those of `make test`; MCPFLEET_IMAGE_PROFILE=quick or release has others built for the images, for figures.
set -euo pipefail
cd "$(dirname "$0")/.."

[[ $EUID -eq 0 ]] || {
    echo "error: a node needs root: run it as root" >&2
    exit 1
}
export MCPFLEET_CLUSTER_NAME=${MCPFLEET_DRILLS_NAME:-mcpfleet-drills}
# shellcheck source=one-build.sh
source tests/one-build.sh

binary=$(test_binary node)
MOTO=$(tests/moto.sh)
export MOTO
MCPFLEET_CLIENTS=$(tests/clients/folder.sh)
export MCPFLEET_CLIENTS
images=$(mktemp -d)
trap 'rm -rf "$images"; tests/cluster/down.sh' EXIT
tests/stdio/images.sh "$images" python
tests/cluster/tool.sh helm
tests/cluster/up.sh node
tests/cluster/load.sh operator sandbox-server chat-worker bridge "$images/python.tar"
# shellcheck disable=SC2086  # none is no argument
tests/cluster/run.sh "$binary" --ignored --test-threads=1 --show-output ${ONLY:-}
