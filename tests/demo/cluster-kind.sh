# shellcheck shell=bash disable=SC2034,SC2154  # its variables are those of lib.sh
# A cluster by kind, where Docker runs. Sourced by cluster.sh.
# shellcheck source=forward.sh
source tests/demo/forward.sh

kind_name=mcpfleet-demo
context=kind-$kind_name
unset REGISTRY
images_are_built_here=yes

cluster_title() { echo "a cluster by kind"; }

cluster_up() {
    command -v kind >/dev/null || fail "CLUSTER=kind needs kind, which is not installed: go install sigs.k8s.io/kind@v0.33.0"
    docker info >/dev/null 2>&1 || fail "CLUSTER=kind needs Docker, and \`docker info\` fails: start it, or leave CLUSTER out for the built-in cluster"
    kubectl=$(type -P kubectl || tests/cluster/tool.sh kubectl | tail -n 1)
    helm=$(type -P helm || tests/cluster/tool.sh helm | tail -n 1)
    if kind get clusters 2>/dev/null | grep -qx "$kind_name"; then
        say "the cluster $kind_name is up already"
    else
        run kind create cluster --name "$kind_name" --wait 120s
    fi
}

kubectl() { "$kubectl" --context "$context" "$@"; }
helm() { "$helm" --kube-context "$context" "$@"; }

cluster_load() {
    local image
    patiently tests/cluster/images.sh "$@" || fail "the images could not be built"
    for image in "$@"; do
        run kind load image-archive "$archives/$image.tar" --name "$kind_name"
    done
}

# The node is a container: from inside it the pod's processes are seen.
signal_pod() {
    local uid
    uid=$(kube get pod "$1" --output jsonpath='{.metadata.uid}')
    say "sending $2 from within the node's container"
    # shellcheck disable=SC2016  # expanded by the shell in the node
    docker exec "$kind_name-control-plane" sh -euc '
        for container in $(crictl ps --quiet --label "io.kubernetes.pod.uid=$1"); do
            kill -s "$2" "$(crictl inspect --output go-template --template "{{.info.pid}}" "$container")"
        done' sh "$uid" "$2"
}

cluster_page() { echo "kubectl --context kind-$kind_name -n $namespace port-forward service/chat-app 8080:80, then open http://127.0.0.1:8080"; }
cluster_command() { echo "kubectl --context kind-$kind_name get mcpservers -A"; }
cluster_remove() { echo "make demo-down CLUSTER=kind"; }
cluster_down() { kind delete cluster --name "$kind_name"; }
