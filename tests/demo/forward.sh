# shellcheck shell=bash disable=SC2154  # its variables are those of lib.sh
# Services and pods of a cluster whose network is elsewhere, reached by kubectl port-forward. Sourced, never run.

# fetch TARGET PATH CURL-ARGUMENT...: TARGET is service:port or pod/name:port. A forward of its own for each request: it leads to one
# pod, and breaks with it.
fetch() (
    target=$1 path=$2 limit=$((SECONDS + 20))
    shift 2
    [[ $target == pod/* ]] || target=service/$target
    log=$(mktemp -p "$scratch")
    "$kubectl" --context "$context" --namespace "$namespace" port-forward "${target%:*}" ":${target##*:}" >"$log" 2>&1 &
    forward=$!
    trap 'kill "$forward" 2>/dev/null' EXIT
    until port=$(sed -n 's/^Forwarding from 127.0.0.1:\([0-9]*\) .*/\1/p' "$log" | head -n 1) && [[ $port ]]; do
        if ((SECONDS > limit)) || ! kill -0 "$forward" 2>/dev/null; then fail "kubectl port-forward to $target does not work: $(<"$log")"; fi
        sleep 0.05
    done
    curl --silent --show-error "http://127.0.0.1:$port$path" "$@"
)

cluster_release() { :; }
