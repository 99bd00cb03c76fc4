#!/usr/bin/env bash
# `make mutants`: changes the code by which the operator writes, one small change at a time, and says which change no test finds.
# First by the unit tests, without a cluster; with CLUSTER=1 what they let live is tried by the tests of the control plane, too (some
# minutes a change). FILES='operator/src/events.rs ...': others. SHARD=0/4, SHARD=1/4 and so on: one of four pieces, each by itself. The report
# is in target/mutants/mutants.out, that of a piece in target/mutants/0-of-4/mutants.out; what is known to live, and why it may:
# tests/mutants.md.
set -euo pipefail
cd "$(dirname "$0")/.."

version=27.1.0
cache=${MCPFLEET_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/mcpfleet}
tools=$cache/tools/cargo-mutants-$version
[[ -x $tools/bin/cargo-mutants ]] || cargo install --quiet --locked --root "$tools" --version "$version" cargo-mutants
PATH=$tools/bin:$PATH

# What decides, and what writes.
decides=(mcp_server/status kstatus problem rollout compare contests wording)
writes=(pass apply ssa cache children)
all=("${decides[@]/#/operator/src/}" "${writes[@]/#/operator/src/}")
read -ra files <<<"${FILES:-${all[*]/%/.rs}}"
# The tree is changed in a copy; what is compiled there is kept between runs. Nobody reads debug information there.
export CARGO_TARGET_DIR=$PWD/target/mutants CARGO_PROFILE_DEV_DEBUG=none
output=$CARGO_TARGET_DIR${SHARD:+/${SHARD/\//-of-}}
mkdir -p "$output"
mutants=(cargo mutants --package operator "${files[@]/#/--file=}" ${SHARD:+"--shard=$SHARD"} --output "$output" --colors never)

# It ends with 2 when something survived, and with 3 when a change made a test wait for ever: both are told by the report.
survived() { (($1 == 2 || $1 == 3)); }
"${mutants[@]}" --cargo-arg=--lib || survived $? || exit
[[ ${CLUSTER:-0} == 1 ]] || exit 0

export MCPFLEET_CLUSTER_NAME=${MCPFLEET_MUTANTS_NAME:-mcpfleet-mutants} CARGO_NET_OFFLINE=true
trap 'tests/cluster/down.sh' EXIT
tests/cluster/up.sh control-plane
tests/cluster/tool.sh kstatus
tests/cluster/crds.sh
tests/cluster/run.sh "${mutants[@]}" --iterate --test-package mcpfleet-tests --features mcpfleet-tests/cluster \
    --cargo-arg=--test=control_plane || survived $?
