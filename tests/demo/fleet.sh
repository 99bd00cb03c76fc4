# shellcheck shell=bash disable=SC2154  # its variables are those of lib.sh
# The servers and the app of k8s/examples and of this folder, and what kubectl says of them. Sourced by demo.sh.

apply_fleet() {
    own_namespace "$namespace"
    apply_registry
    apply_key
    apply_example sqlite
    apply_time
    apply_example chat
}

# apply_example NAME: k8s/examples/NAME.yaml, as it is or with images from another registry.
apply_example() {
    show kubectl -n "$namespace" apply -f "k8s/examples/$1.yaml"
    from_registry "k8s/examples/$1.yaml" | kube apply -f - | indent
}

# renew_stale: rolls what still runs an earlier build of an image, which the same version does not tell from the new one.
renew_stale() {
    local deployment image wanted
    [[ ${images_are_built_here:-} ]] || return 0
    while read -r deployment image; do
        wanted=$(image_config "$image") || continue
        kube get pods --output json | jq --exit-status --arg name "/$image:" --arg wanted "sha256:$wanted" '
            [.items[].status | (.containerStatuses[]?, .initContainerStatuses[]?) | select(.imageID != "" and (.image | contains($name)) and .imageID != $wanted)] | length > 0' >/dev/null || continue
        run kubectl -n "$namespace" rollout restart "deployment/$deployment"
        kube rollout status "deployment/$deployment" --timeout=90s | indent
    done <<<"sqlite-mcp sandbox-server
time-mcp bridge
chat-app chat-worker
model-standin model-standin"
}

await_fleet() {
    local start=$EPOCHREALTIME
    run kubectl -n "$namespace" wait --for=condition=Ready mcpserver/sqlite mcpapp/chat --timeout=120s
    await_time
    say "all of them Ready after $(since "$start") s"
    await_service sqlite-mcp:8080
    await_service chat-app:80
    await_tools
    kube_get_all
}

# await_service SERVICE:PORT: until a client gets through. Ready speaks of the pods; the node's proxy follows within a second or so, and
# nothing in the API tells when it has.
await_service() {
    local start=$EPOCHREALTIME limit=$((SECONDS + 15))
    until fetch "$1" /healthz --fail --connect-timeout 0.5 --max-time 2 --output /dev/null 2>"$scratch/curl"; do
        ((SECONDS < limit)) || fail "the Service ${1%:*} does not carry within 15 s: $(<"$scratch/curl")"
        sleep 0.1
    done
    say "the Service ${1%:*} carries, $(since "$start") s later"
}

# await_tools: until each pod of the app has connected to the servers. An app is Ready without them, since it answers without them too.
await_tools() {
    local start=$EPOCHREALTIME pods
    mapfile -t pods < <(app_pods)
    await_app healthy 120 "${pods[@]}"
    say "each pod of the app has its tools, $(since "$start") s later"
}

kube_get_all() { run kubectl -n "$namespace" get mcpservers,mcpapps; }
