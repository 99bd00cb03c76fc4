# shellcheck shell=bash disable=SC2154  # its variables are those of lib.sh
# The server breaks as servers do: it accepts connections and never answers. Then it mends. Sourced by demo.sh.

server_pods='app.kubernetes.io/component=mcp-server,app.kubernetes.io/instance=sqlite'

# await_circuit STATE SECONDS
await_circuit() { run kubectl -n "$namespace" wait "--for=jsonpath={.status.circuit.state}=$1" mcpserver/sqlite "--timeout=$2s"; }

# await_app STATUS SECONDS TARGET...: until each of these says so. A pod gets its new mcp.json when the kubelet next looks, within a minute or so.
await_app() {
    local status=$1 limit=$((SECONDS + $2)) target
    shift 2
    for target in "$@"; do
        until [[ $(app "$target" /health --max-time 5 | jq --raw-output .status) == "$status" ]]; do
            ((SECONDS < limit)) || fail "$target does not say $status in time; it says: $(app "$target" /health --max-time 5)"
            sleep 0.3
        done
    done
}

show_app() {
    show curl -H 'Authorization: Bearer …' "http://chat-app.$namespace.svc/health"
    app chat-app:80 /health --max-time 5 | jq --compact-output '{status, servers: [.metrics.servers[] | {name, state, reason}]}' | indent
}

# app_pods: every pod of the app that is to stay, as targets.
app_pods() {
    kube rollout status deployment/chat-app --timeout=60s >/dev/null
    kube get pods --selector app.kubernetes.io/component=mcp-app,app.kubernetes.io/instance=chat --output json |
        jq --raw-output '.items[] | select(.metadata.deletionTimestamp == null) | "pod/\(.metadata.name):8080"'
}

break_server() {
    local pod start
    pod=$(kube get pods --selector "$server_pods" --field-selector status.phase=Running --output jsonpath='{.items[0].metadata.name}')
    [[ -n $pod ]] || fail "the server sqlite has no running pod"
    start=$EPOCHREALTIME
    stopped=$pod
    signal_pod "$pod" STOP
    await_circuit Open 60
    open_seconds=$(since "$start")
    say "${bold}CIRCUIT reads Open $open_seconds s after the server stopped answering${plain} (it is probed every 10 s, and a probe may take 5 s)"
    run kubectl -n "$namespace" get mcpserver sqlite --output wide
    run kubectl -n "$namespace" wait "--for=jsonpath={.endpoints[0].conditions.ready}=false" endpointslices --selector kubernetes.io/service-name=sqlite-mcp --timeout=30s
    say "the Service sends nobody to it any more"
    kube get configmap chat-app --output jsonpath='{.data.mcp\.json}' | jq --exit-status '.servers[] | select(.name == "sqlite") | .enabled == false' >/dev/null ||
        fail "the app's mcp.json still offers the server"
    local pods
    mapfile -t pods < <(app_pods)
    # Every pod: which one a request through the Service meets is chance.
    await_app degraded 90 "${pods[@]}"
    degraded_seconds=$(since "$start")
    show_app
    say "all ${#pods[@]} pods of the app say degraded, $degraded_seconds s after the server stopped, and go on serving"
}

mend_server() {
    local start=$EPOCHREALTIME
    signal_pod "$stopped" CONT
    stopped=
    await_circuit Closed 120
    closed_seconds=$(since "$start")
    say "${bold}CIRCUIT reads Closed $closed_seconds s after the server was let go${plain} (an Open circuit is tried again after 30 s)"
    kube wait --for=condition=Ready mcpserver/sqlite --timeout=30s | indent
    local pods
    mapfile -t pods < <(app_pods)
    await_app healthy 120 "${pods[@]}"
    show_app
    say "all ${#pods[@]} pods of the app say healthy again, $(since "$start") s after the server was let go"
}

summary() { echo "circuit open after $open_seconds s, closed again $closed_seconds s after the repair."; }
