# shellcheck shell=bash disable=SC2154  # its variables are those of lib.sh
# The operator, by its chart, as a person would. Sourced by demo.sh.

# own_namespace NAME: makes a namespace, marked as the demo's.
own_namespace() {
    printf 'apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {%s: "true"}}\n' "$1" "$mark" | kubectl apply -f - >/dev/null
}

install_operator() {
    own_namespace "$system"
    local values=(--set crds.keep=false --set "podAnnotations.mcpfleet\.dev/image=$(image_id operator)")
    [[ -z ${packages_image:-} ]] || values+=(--set "stdio.images.uvx=$packages_image")
    [[ -z ${REGISTRY:-} ]] || values+=(--set "image.repository=$REGISTRY/operator" --set "chatWorker.image.repository=$REGISTRY/chat-worker" --set "bridge.image.repository=$REGISTRY/bridge")
    run helm upgrade --install mcpfleet charts/mcpfleet --namespace "$system" --wait --timeout 120s "${values[@]}" |
        sed '/NOTES:/,$d; /^ *$/d'
    run kubectl --namespace "$system" get deployments,pods
}
