# shellcheck shell=bash disable=SC2034,SC2154  # its variables are those of lib.sh
# An existing cluster, by a context of the kubeconfig. Nothing in it is touched but the demo's own. Sourced by cluster.sh.
# shellcheck source=forward.sh
source tests/demo/forward.sh

# shellcheck disable=SC2153  # CONTEXT is the caller's
context=$CONTEXT

cluster_title() { echo "the cluster of the context $CONTEXT"; }

find_tools() {
    kubectl=$(type -P kubectl || tests/cluster/tool.sh kubectl | tail -n 1)
    helm=$(type -P helm || tests/cluster/tool.sh helm | tail -n 1)
}
kubectl() { "$kubectl" --context "$context" "$@"; }
helm() { "$helm" --kube-context "$context" "$@"; }

cluster_up() {
    find_tools
    say "The commands below go to the context $CONTEXT (kubectl config use-context $CONTEXT)."
    run kubectl get nodes
    kubectl get storageclasses -o jsonpath='{.items[*].metadata.annotations}' | grep -q 'is-default-class":"true"' ||
        fail "this cluster has no default StorageClass, and the server's database wants a volume: mark one with the annotation storageclass.kubernetes.io/is-default-class=true"
    local space
    for space in "$system" "$namespace"; do
        [[ -z $(kubectl get namespace "$space" --ignore-not-found --output name) ]] ||
            kubectl get namespace --selector "$mark" --output name | grep -qx "namespace/$space" ||
            fail "the namespace $space is there, and the demo did not make it. So that nothing of yours is changed, the demo stops here: remove that namespace, or use another cluster"
    done
    [[ -z $(kubectl get crd mcpservers.mcpfleet.dev --ignore-not-found --output name) || -n $(kubectl get namespace "$system" --ignore-not-found --output name) ]] ||
        fail "this cluster has mcpfleet already (its definitions are there). So that nothing of yours is changed, the demo stops here: use another cluster"
}

cluster_load() {
    [[ ${PUSH:-} == yes ]] || {
        say "images are taken from ${REGISTRY:-ghcr.io/mcpfleet} as they are there (with REGISTRY=your.registry/path PUSH=yes they are built and put there)"
        return
    }
    [[ -n ${REGISTRY:-} ]] || fail "PUSH=yes needs REGISTRY=your.registry/path"
    local image
    patiently tests/cluster/images.sh "$@" || fail "the images could not be built"
    need skopeo:skopeo
    for image in "$@"; do
        run skopeo copy "docker-archive:$archives/$image.tar" "docker://$REGISTRY/$image:$version"
    done
}

# A process of a pod can be stopped only from outside its own process namespace: from the node. So a pod with the node's processes
# sends the signal. It needs an image with a shell, and the right to run a privileged pod.
signal_pod() {
    local node uid signaller=signal-${2,,}
    node=$(kube get pod "$1" --output jsonpath='{.spec.nodeName}')
    uid=$(kube get pod "$1" --output jsonpath='{.metadata.uid}')
    say "A pod that sees the node's processes (tests/demo/signal.yaml) sends $2 to the server's."
    kube delete pod "$signaller" --ignore-not-found --now >/dev/null
    sed -e "s|@NAME@|$signaller|; s|@NODE@|$node|; s|@UID@|$uid|; s|@SIGNAL@|$2|; s|@IMAGE@|${SHELL_IMAGE:-docker.io/library/busybox:1.37}|" tests/demo/signal.yaml | kube apply -f - | indent
    kube wait --for=jsonpath='{.status.phase}'=Succeeded "pod/$signaller" --timeout=60s >/dev/null ||
        fail "the signal could not be sent: $(kube logs "$signaller" 2>&1 | tail -n 2). Where privileged pods are forbidden, the demo cannot break a server"
    kube logs "$signaller" | indent
    kube delete pod "$signaller" --now >/dev/null
}

cluster_page() { echo "kubectl --context $CONTEXT -n $namespace port-forward service/chat-app 8080:80, then open http://127.0.0.1:8080"; }
cluster_command() { echo "kubectl --context $CONTEXT get mcpservers -A"; }
cluster_remove() { echo "make demo-down CONTEXT=$CONTEXT"; }

# What the demo made, found by its mark; the definitions last, when no object of theirs is left.
cluster_down() {
    find_tools
    local spaces space
    mapfile -t spaces < <(kubectl get namespace --selector "$mark" --output jsonpath='{range .items[*]}{.metadata.name}{"\n"}{end}')
    for space in "${spaces[@]}"; do
        [[ $space != "$namespace" ]] || run kubectl delete namespace "$namespace"
    done
    for space in "${spaces[@]}"; do
        [[ $space == "$system" ]] || continue
        run helm uninstall mcpfleet --namespace "$system" --ignore-not-found --wait
        run kubectl delete namespace "$system"
    done
    ((${#spaces[@]})) || say "there is nothing of the demo in the cluster of the context $CONTEXT"
}
