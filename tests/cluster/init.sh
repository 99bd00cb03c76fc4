#!/usr/bin/env bash
# The cluster's first process, PID 1 of its process namespace: makes the network and the mounts that the parts live in,
# starts the parts that `up` names on a pipe, and notes the exit code of each that ends. Usage: init.sh LEVEL
#
# All that the cluster is lives in namespaces that die with this process. So ending it is the whole teardown: the kernel
# kills every other process, drops the mounts, and takes the interfaces away, at whatever moment that happens.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
level=$1
# shellcheck source=parts.sh
source "$here/parts.sh"

# First of all, say who we are: until /proc is mounted anew it shows the pid by which others know us.
read -r pid _ </proc/self/stat
printf '%s %s\n' "$pid" "$(started "$pid")" >"$state/init.pid.new"
mv "$state/init.pid.new" "$state/init.pid"

network() {
    ip link set lo up
    ip link add node0 type bridge
    ip address add "$node_ip/24" dev node0
    ip link set node0 up
    # There is no way out, so no default route; but packets for Services must have one until kube-proxy turns them.
    ip route add 10.96.0.0/12 dev node0 src "$node_ip"
}

# The standard places of the node's parts become directories below the cluster's own, for them alone.
mounts() {
    local dir setting
    mount -t proc proc /proc
    # Kept open, since they may well be below what is hidden now.
    exec 5<"$state" 6<"$cache"
    for dir in /run /var/lib /var/log; do
        mount -t tmpfs -o mode=755 mcpfleet "$dir"
    done
    mkdir -p "$state" "$cache"
    mount --no-canonicalize --bind /proc/self/fd/5 "$state"
    mount --no-canonicalize --bind /proc/self/fd/6 "$cache"
    exec 5<&- 6<&-
    for dir in lib/kubelet lib/containerd lib/cni log/pods log/containers; do
        mkdir -p "$state/var/$dir" "/var/$dir"
        mount --bind "$state/var/$dir" "/var/$dir"
    done
    # Files with the values that the kubelet demands, so that it does not change the whole machine's.
    for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
        kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
        dir=$state/sysctl/${setting%=*}
        mkdir -p "${dir%/*}"
        echo "${setting#*=}" >"$dir"
        mount --bind "$dir" "/proc/sys/${setting%=*}"
    done
    echo 1 >/proc/sys/net/ipv4/ip_forward
}

# The cgroup above the node's pods, in each hierarchy, or in the one there is.
cgroups() {
    local dir controller
    if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
        mkdir -p "/sys/fs/cgroup/$cgroup"
        for dir in /sys/fs/cgroup "/sys/fs/cgroup/$cgroup"; do
            # One by one: a machine may withhold some, and the kubelet names those that it misses.
            for controller in $(<"$dir/cgroup.controllers"); do
                echo "+$controller" >"$dir/cgroup.subtree_control" || true
            done
        done
    else
        for dir in /sys/fs/cgroup/*/; do
            mkdir -p "$dir$cgroup"
        done
    fi
}

launch() {
    {
        code=0
        ("part_$1") >>"$state/logs/$1.log" 2>&1 3<&- || code=$?
        echo "$code" >"$state/exited/$1"
    } &
}

network
if [[ $level == node ]]; then
    cgroups
    mounts
fi
# Both ends, so that reading goes on when a writer has closed it. Where it is, everything above has succeeded.
mkfifo "$state/launch.new"
exec 3<>"$state/launch.new"
mv "$state/launch.new" "$state/launch"
while read -r -u 3 part; do
    launch "$part"
done
