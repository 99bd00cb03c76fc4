# shellcheck shell=bash disable=SC2034,SC2154  # its variables are those of lib.sh
# The built-in cluster (tests/cluster): everything happens in its own network namespace. Sourced by cluster.sh.

name=${MCPFLEET_CLUSTER_NAME:-mcpfleet}
argument=''
[[ $name == mcpfleet ]] || argument=" NAME=$name"
# Images go straight into the node, under their own names.
unset REGISTRY
images_are_built_here=yes

cluster_title() { echo "a real Kubernetes of its own, on this machine"; }

cluster_up() {
    show make cluster-up ${argument:+"${argument# }"}
    patiently tests/cluster/up.sh node || fail "the cluster did not come up"
    { patiently tests/cluster/tool.sh helm | sed '/^ *\//d'; } || fail "helm could not be built"
}

# Nothing in the cluster reaches PyPI: the packages are brought, in an image that serves them and that has Python and uv.
packages_are_brought=yes

cluster_load() { patiently tests/cluster/load.sh "$@"; }

kubectl() { tests/cluster/run.sh kubectl "$@"; }
helm() { tests/cluster/run.sh helm "$@"; }

# fetch TARGET PATH CURL-ARGUMENT...: from within the cluster's network. TARGET is service:port or pod/name:port.
fetch() {
    local host=${1%:*} port=${1##*:} path=$2
    shift 2
    case $host in
    pod/*) host=$(kube get "$host" --output jsonpath='{.status.podIP}') ;;
    *) host=$host.$namespace.svc.cluster.local ;;
    esac
    tests/cluster/run.sh curl --silent --show-error "http://$host:$port$path" "$@"
}

signal_pod() {
    show make cluster-signal ${argument:+"${argument# }"} "POD=$namespace/$1" "SIGNAL=$2"
    tests/cluster/signal.sh "$namespace/$1" "$2" | indent
}


# cluster_way_out: prints the address of a proxy through which pods reach the model, and only that; it ends with the cluster.
# The cluster's network has no way out of its own, and this is its only one.
cluster_way_out() {
    local address=10.89.0.1:3128
    if ! tests/cluster/run.sh bash -c "exec 3<>/dev/tcp/${address/:/\/}" 2>/dev/null; then
        # shellcheck disable=SC2016  # expanded by the inner shell
        WAY_OUT=${WAY_OUT:-api.anthropic.com:443} setsid --fork bash -c \
            'exec 6</proc/self/ns/mnt 7</proc/self/ns/net; exec tests/cluster/run.sh socat "TCP-LISTEN:${1#*:},bind=${1%:*},reuseaddr,fork" EXEC:tests/demo/way-out.sh' \
            way-out "$address" </dev/null >/dev/null 2>&1
    fi
    echo "http://$address"
}

cluster_page() { echo "make cluster-forward$argument SERVICE=$namespace/chat-app PORT=8080, then open http://127.0.0.1:8080"; }
cluster_command() { echo "make -s cluster-run$argument CMD='kubectl get mcpservers -A'"; }
cluster_remove() { echo "make demo-down$argument"; }
cluster_release() { :; }

cluster_down() { tests/cluster/down.sh; }
