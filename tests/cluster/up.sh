#!/usr/bin/env bash
# Brings a cluster up to a level, and returns when it is ready. Usage: up.sh [control-plane|fleet|node]
#   control-plane  etcd and kube-apiserver; works without root
#   fleet          and the controllers, the scheduler and kwok, whose nodes and pods are objects alone; works without root
#   node           and the controllers, the scheduler, one node with its pods' network, Services, DNS and storage; needs root
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=teardown.sh
source "$here/teardown.sh"

level=${1:-node}
case $level in
control-plane | fleet) ;;
node) [[ $EUID -eq 0 ]] || fail "LEVEL=node needs root, for containers and their network: run it as root, or use LEVEL=control-plane" ;;
*) fail "LEVEL=$level: use control-plane, fleet or node" ;;
esac

# up_already: ends the script when there is a cluster to use, or one in the way.
up_already() {
    init_pid >/dev/null && has_level control-plane || return 0
    no_part_has_died
    has_level "$level" ||
        fail "cluster $name is up with LEVEL=$(cat "$state/level"), which cannot become LEVEL=$level: run make cluster-down$(name_argument) first"
    say "cluster $name is up already, with LEVEL=$(cat "$state/level")"
    exit 0
}

up_already
# Before the lock, which then is only held for seconds.
"$here/packages.sh" "$level"
"$here/build.sh" "$level"

begin=$EPOCHREALTIME
take_lock
up_already
[[ -z $(ls -A "$state") ]] || {
    say "clearing up what is left of an earlier cluster $name"
    teardown
    take_lock
}

part() { ln -sf "$("$here/build.sh" --path "$1")" "$state/bin/$1"; }
render() {
    sed -e "s|@STATE@|$state|g" -e "s|@NAME@|$name|g" -e "s|@CGROUP@|$cgroup|g" -e "s|@NODE_IP@|$node_ip|g" \
        -e "s|@CNI_BIN@|${cni_bin:-}|g" "$here/etc/$1" >"$state/etc/$1"
}

prepare() {
    local part file
    mkdir -p "$state"/{bin,logs,exited,etc/cni,volumes}
    for part in etcd kube-apiserver kubectl; do part $part; done
    for part in helm kwok; do
        [[ ! -x $("$here/build.sh" --path $part) ]] || part $part
    done
    render audit-policy.yaml
    if [[ $level == fleet ]]; then
        for part in kube-controller-manager kube-scheduler kwok; do part $part; done
        render kwok.yaml
    fi
    if [[ $level == node ]]; then
        cni_bin=$(cni_dir)
        for part in kube-controller-manager kube-scheduler kubelet kube-proxy coredns provisioner pause policies; do part $part; done
        for file in containerd.toml cni/10-pods.conflist kubelet.yaml kube-proxy.yaml Corefile storageclass.yaml; do
            render "$file"
        done
        printf 'nameserver %s\nsearch svc.cluster.local cluster.local\noptions ndots:3\n' "$node_ip" >"$state/etc/resolv.conf"
        : >"$state/etc/node-resolv.conf"
    fi
    "$here/pki.sh"
}

start_init() {
    local kinds=(--pid --net --mount --propagation slave)
    [[ $EUID -eq 0 ]] || kinds=(--user --map-root-user --pid --net)
    # It records its pid itself; until then a `down` finds it by MCPFLEET_STATE. It must not keep the lock.
    MCPFLEET_STATE=$state setsid --fork unshare "${kinds[@]}" --fork --kill-child -- \
        "$here/init.sh" "$level" </dev/null >"$state/logs/init.log" 2>&1 9<&-
    local limit=$((SECONDS + 10))
    until [[ -p $state/launch ]]; do
        if ((SECONDS > limit)) || { grep -q . "$state/logs/init.log" && ! init_pid >/dev/null; }; then
            tail -n 5 "$state/logs/init.log" >&2
            grep -q ^unshare: "$state/logs/init.log" && [[ $EUID -ne 0 ]] &&
                fail "this machine does not let a user make user and network namespaces: run it as root"
            fail "the cluster's namespaces could not be made"
        fi
        sleep 0.02
    done
    init=$(init_pid) || fail "the cluster's init process is gone; see $state/logs/init.log"
}

launch() { printf '%s\n' "$@" >"$state/launch"; }
inside() { enter "$init" net -- "$@"; }
kube() { inside "$state/bin/kubectl" --kubeconfig "$state/kubeconfig" --request-timeout 5s "$@"; }
containerd() { enter "$init" mount net -- ctr --namespace k8s.io "$@"; }
# shellcheck disable=SC2016  # awk's own
enforced() { inside awk -v queue="$policy_queue" '$1 == queue { found = 1 } END { exit !found }' /proc/net/netfilter/nfnetlink_queue; }
step() { say "  $1 ($(elapsed "$begin") s)"; }

prepare
start_init
launch etcd kube-apiserver
[[ $level == node ]] && launch containerd
wait_until 60 "kube-apiserver is ready" kube get --raw /readyz
step "kube-apiserver is ready"

if [[ $level == fleet ]]; then
    launch kube-controller-manager kube-scheduler
    wait_until 30 "the controllers work" kube get serviceaccount default --namespace default
    launch kwok
    step "the controllers and the scheduler work"
fi

if [[ $level == node ]]; then
    launch kube-controller-manager kube-scheduler kubelet kube-proxy coredns provisioner policies
    wait_until 30 "containerd answers" containerd version
    "$here/image.sh" pause - | containerd images import - >/dev/null
    kube apply -f "$state/etc/storageclass.yaml" >/dev/null
    wait_until 60 "the node is Ready" kube wait --for=condition=Ready --timeout=1s "node/$name"
    step "node $name is Ready"
    wait_until 30 "CoreDNS answers" inside "${with_dns[@]}" getent ahostsv4 kubernetes.default.svc.cluster.local
    wait_until 30 "kube-proxy carries Services" kube --server https://10.96.0.1 get --raw /readyz
    wait_until 30 "the controllers work" kube get serviceaccount default --namespace default
    # Until somebody listens there, everything passes.
    wait_until 30 "NetworkPolicies are enforced" enforced
    step "DNS, Services and controllers work"
fi
no_part_has_died
echo "$level" >"$state/level"
say "cluster $name is up, LEVEL=$level, in $(elapsed "$begin") s"
