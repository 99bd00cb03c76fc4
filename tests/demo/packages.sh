# shellcheck shell=bash disable=SC2034,SC2154  # its variables are those of lib.sh, and used by install.sh
# A server of another maker, from PyPI, next to SQLite: where its package comes from, that it is up, and a question to it. Sourced by demo.sh.
#
# The built-in cluster has no way out, so the registry is brought along. On any other cluster the server runs as it would in production: in
# the image that the chart names for uvx, with the package from PyPI itself. A cluster that does not get there is told of, and the demo goes on.

with_time=yes

provide_packages() {
    [[ ${packages_are_brought:-} ]] || return 0
    need python3:python3
    python3 -c 'import ensurepip' 2>/dev/null || need python3-venv:python3-venv
    if ! patiently tests/stdio/images.sh "$scratch/images" packages; then
        say "${bold}The image with the packages of PyPI cannot be made here, and the demo goes on without that server.${plain}"
        with_time=
        return
    fi
    packages_image=ghcr.io/mcpfleet/packages:$version
    patiently tests/cluster/load.sh "$scratch/images/packages.tar" || fail "the image with the packages could not be brought to the cluster"
    rm -r "$scratch/images"
}

apply_registry() {
    [[ ${packages_are_brought:-} && $with_time ]] || return 0
    say "nothing in this cluster reaches PyPI, and so a registry with the package is in it"
    show kubectl -n "$namespace" apply -f tests/demo/packages.yaml
    kube apply -f tests/demo/packages.yaml | indent
}

# apply_time: the server as it is, or with the registry of this cluster.
apply_time() {
    [[ $with_time ]] || return 0
    show kubectl -n "$namespace" apply -f tests/demo/time.yaml
    if [[ ${packages_are_brought:-} ]]; then
        kube rollout status deployment/registry --timeout=60s >/dev/null || fail "the registry did not come up"
        kubectl patch --local -f - --type merge --output yaml <tests/demo/time.yaml --patch '{"spec": {"env": [
            {"name": "UV_DEFAULT_INDEX", "value": "http://registry:8080/simple"}, {"name": "UV_PYTHON_DOWNLOADS", "value": "never"}]}}' |
            kube apply -f - | indent
    else
        kube apply -f - <tests/demo/time.yaml | indent
    fi
}

await_time() {
    [[ $with_time ]] || return 0
    show kubectl -n "$namespace" wait --for=condition=Ready mcpserver/time --timeout=120s
    if kube wait --for=condition=Ready mcpserver/time --timeout=120s 2>&1 | indent; then
        await_service time-mcp:8080
        return
    fi
    [[ -z ${packages_are_brought:-} ]] || fail "the server time is not Ready: $(why_not_time)"
    say "${bold}The server of PyPI does not come up here, and the demo goes on without it.${plain} It says: $(why_not_time)"
    say "(It wants the image that the chart names in stdio.images.uvx, and PyPI: docs/stdio.md.)"
    kube delete mcpserver time --wait=false | indent
    with_time=
}

why_not_time() { kube get mcpserver time --output jsonpath='{.status.conditions[?(@.type=="Ready")].message}'; }

ask_the_time() {
    local start=$EPOCHREALTIME
    if [[ -z $with_time ]]; then
        say "left out, for the reason above"
        return
    fi
    run kubectl -n "$namespace" get mcpserver time -o 'jsonpath={.spec.stdio.command} {.spec.stdio.args}{"\n"}'
    ask 'What time is it in Tokyo?'
    jq --exit-status --slurp 'any(.[]; .type == "tool_call" and .server == "time")' "$scratch/events" >/dev/null || fail "the clock was not asked"
    jq --raw-output --join-output 'select(.type == "tool_result").text' "$scratch/events" | grep -qF "$(TZ=Asia/Tokyo date +%F)" ||
        fail "the clock does not say what day it is in Tokyo"
    say "answered in $(since "$start") s"
}
