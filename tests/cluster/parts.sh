# shellcheck shell=bash disable=SC2154  # name, state, node_ip and level come from lib.sh and init.sh
# The command line of each part of the cluster, a function a part. Sourced by init.sh, which calls part_NAME in a
# subshell with the part's log as its output.
#
# Client limits are raised everywhere: what is measured on this cluster shall be the operator, not a throttle of ours.

pki=$state/pki
bin=$state/bin

part_etcd() {
    # No fsync: the data is thrown away with the cluster, and waiting for the disk is most of a write's time.
    exec "$bin/etcd" --name "$name" --data-dir "$state/etcd" --unsafe-no-fsync --log-level warn \
        --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
        --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
        --initial-cluster "$name=http://127.0.0.1:2380" --quota-backend-bytes 4294967296
}

part_kube-apiserver() {
    local more=()
    # Without controllers nobody makes the service accounts that this plugin demands of each pod.
    [[ $level == control-plane ]] && more+=(--disable-admission-plugins=ServiceAccount)
    exec "$bin/kube-apiserver" \
        --etcd-servers=http://127.0.0.1:2379 \
        --advertise-address="$node_ip" --secure-port=6443 --service-cluster-ip-range=10.96.0.0/12 \
        --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" \
        --service-account-issuer=https://kubernetes.default.svc.cluster.local \
        --service-account-key-file="$pki/service-accounts.pub" --service-account-signing-key-file="$pki/service-accounts.key" \
        --requestheader-client-ca-file="$pki/front-proxy-ca.crt" --requestheader-allowed-names=front-proxy-client \
        --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
        --requestheader-extra-headers-prefix=X-Remote-Extra- \
        --proxy-client-cert-file="$pki/front-proxy-client.crt" --proxy-client-key-file="$pki/front-proxy-client.key" \
        --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
        --kubelet-client-certificate="$pki/apiserver-kubelet-client.crt" --kubelet-client-key="$pki/apiserver-kubelet-client.key" \
        --kubelet-certificate-authority="$pki/ca.crt" --kubelet-preferred-address-types=InternalIP \
        --audit-policy-file="$state/etc/audit-policy.yaml" --audit-log-path="$state/audit.log" \
        --max-requests-inflight=4000 --max-mutating-requests-inflight=2000 --profiling=false "${more[@]}"
}

part_kube-controller-manager() {
    # An autoscaler looks as often as there can be news of the pods, not every 15 s: tests wait for it.
    exec "$bin/kube-controller-manager" --kubeconfig="$pki/kube-controller-manager.kubeconfig" \
        --authentication-kubeconfig="$pki/kube-controller-manager.kubeconfig" \
        --authorization-kubeconfig="$pki/kube-controller-manager.kubeconfig" \
        --bind-address=127.0.0.1 --leader-elect=false --use-service-account-credentials=true \
        --root-ca-file="$pki/ca.crt" --service-account-private-key-file="$pki/service-accounts.key" \
        --flex-volume-plugin-dir=/var/lib/kubelet/volume-plugins --horizontal-pod-autoscaler-sync-period=5s \
        --kube-api-qps=1000 --kube-api-burst=2000
}

part_kube-scheduler() {
    exec "$bin/kube-scheduler" --kubeconfig="$pki/kube-scheduler.kubeconfig" \
        --authentication-kubeconfig="$pki/kube-scheduler.kubeconfig" \
        --authorization-kubeconfig="$pki/kube-scheduler.kubeconfig" \
        --bind-address=127.0.0.1 --leader-elect=false --kube-api-qps=1000 --kube-api-burst=2000
}

# Its nodes and pods are objects alone. A pod gets an address of pods that is this machine's own, so that one program can answer for all.
part_kwok() {
    ip route add local 10.50.0.0/15 dev lo
    exec "$bin/kwok" --kubeconfig="$pki/kwok.kubeconfig" --config="$state/etc/kwok.yaml"
}

part_kubelet() {
    exec "$bin/kubelet" --config="$state/etc/kubelet.yaml" --kubeconfig="$pki/kubelet.kubeconfig" \
        --hostname-override="$name" --node-ip="$node_ip"
}

part_kube-proxy() { exec "$bin/kube-proxy" --config="$state/etc/kube-proxy.yaml"; }

part_containerd() { exec containerd --config "$state/etc/containerd.toml"; }

part_coredns() { exec "$bin/coredns" -conf "$state/etc/Corefile"; }

part_provisioner() {
    exec "$bin/provisioner" --kubeconfig "$pki/provisioner.kubeconfig" --root "$state/volumes" --node "$name"
}

# Beside the control plane, which finds it by a Service of the node's address (etc/metrics-server.yaml).
part_metrics-server() {
    exec "$bin/metrics-server" --kubeconfig="$pki/metrics.kubeconfig" \
        --authentication-kubeconfig="$pki/metrics.kubeconfig" --authorization-kubeconfig="$pki/metrics.kubeconfig" \
        --bind-address="$node_ip" --secure-port=4443 \
        --tls-cert-file="$pki/metrics-server.crt" --tls-private-key-file="$pki/metrics-server.key" \
        --kubelet-preferred-address-types=InternalIP --kubelet-certificate-authority="$pki/ca.crt" --metric-resolution=10s --kubelet-request-timeout=5s
}

# The first packet of each connection from a pod or to one is held until it is decided: those that come from elsewhere, those to
# another pod, and those to the node. What comes from the node itself (the kubelet, tests) is not asked about, as with every network.
part_policies() {
    local chain way
    for chain in FORWARD INPUT; do
        for way in -s -d; do
            iptables -t mangle -A $chain $way "$pod_network" -m conntrack --ctstate NEW -j NFQUEUE --queue-num "$policy_queue" --queue-bypass
        done
    done
    exec "$bin/policies" --kubeconfig="$pki/policies.kubeconfig" --node="$name" --queue="$policy_queue"
}
