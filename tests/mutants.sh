#!/usr/bin/env bash
# `make mutants`: changes the code by which the operator writes, one small change at a time, and says which change no test finds.
# First by the unit tests, without a cluster (half a minute a change); with CLUSTER=1 what they let live is tried by the tests of the
# control plane, too (some minutes a change). FILES='operator/src/apply.rs ...': others. The report is in target/mutants/mutants.out.
set -euo pipefail
cd "$(dirname "$0")/.."

version=27.1.0
cache=${MCPFLEET_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/mcpfleet}
tools=$cache/tools/cargo-mutants-$version
[[ -x $tools/bin/cargo-mutants ]] || cargo install --quiet --locked --root "$tools" --version "$version" cargo-mutants
PATH=$tools/bin:$PATH

read -ra files <<<"${FILES:-operator/src/ssa.rs operator/src/cache.rs operator/src/problem.rs operator/src/pass.rs operator/src/mcp_server/status.rs}"
# The tree is changed in a copy; what is compiled there is kept between runs.
export CARGO_TARGET_DIR=$PWD/target/mutants
mutants=(cargo mutants --package operator "${files[@]/#/--file=}" --output "$CARGO_TARGET_DIR" --colors never)

# It ends with 2 when something survived: that is for a test to come.
"${mutants[@]}" --cargo-arg=--lib || (($? == 2)) || exit
[[ ${CLUSTER:-0} == 1 ]] || exit 0

export MCPFLEET_CLUSTER_NAME=${MCPFLEET_MUTANTS_NAME:-mcpfleet-mutants} CARGO_NET_OFFLINE=true
trap 'tests/cluster/down.sh' EXIT
tests/cluster/up.sh control-plane
tests/cluster/run.sh kubectl apply --server-side -k crds
tests/cluster/run.sh "${mutants[@]}" --iterate --test-package mcpfleet-tests --features mcpfleet-tests/cluster \
    --cargo-arg=--test=control_plane || (($? == 2))
