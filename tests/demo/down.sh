#!/usr/bin/env bash
# Removes what the demo made. Usage: down.sh    CONTEXT=name or CLUSTER=kind as for demo.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=lib.sh
source tests/demo/lib.sh
# shellcheck source=cluster.sh
source tests/demo/cluster.sh
cluster_down
