#!/usr/bin/env bash
# Builds parts of the cluster from the Go modules below go/, whose go.mod and go.sum pin every version, once into the cache.
# Usage: build.sh control-plane|fleet|node|PART...    prints a line a part it builds, nothing for those that are there
#        build.sh --path PART                   prints where that part is or will be
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# part  module  package  module whose version it has
parts='
etcd                    etcd        go.etcd.io/etcd/server/v3                  go.etcd.io/etcd/server/v3
kube-apiserver          kubernetes  k8s.io/kubernetes/cmd/kube-apiserver       k8s.io/kubernetes
kubectl                 kubernetes  k8s.io/kubernetes/cmd/kubectl              k8s.io/kubernetes
kube-controller-manager kubernetes  k8s.io/kubernetes/cmd/kube-controller-manager k8s.io/kubernetes
kube-scheduler          kubernetes  k8s.io/kubernetes/cmd/kube-scheduler       k8s.io/kubernetes
kubelet                 kubernetes  k8s.io/kubernetes/cmd/kubelet              k8s.io/kubernetes
kube-proxy              kubernetes  k8s.io/kubernetes/cmd/kube-proxy           k8s.io/kubernetes
coredns                 addons      ./coredns                                  github.com/coredns/coredns
provisioner             addons      ./provisioner                              sigs.k8s.io/sig-storage-lib-external-provisioner/v13
pause                   addons      ./pause                                    -
policies                policies    .                                          sigs.k8s.io/kube-network-policies
metrics-server          metrics     sigs.k8s.io/metrics-server/cmd/metrics-server sigs.k8s.io/metrics-server
helm                    helm        helm.sh/helm/v4/cmd/helm                   helm.sh/helm/v4
kwok                    kwok        sigs.k8s.io/kwok/cmd/kwok                  sigs.k8s.io/kwok
kstatus                 kstatus     .                                          github.com/fluxcd/cli-utils
alerts                  alerts      .                                          github.com/prometheus/prometheus
'
control_plane=(etcd kube-apiserver kubectl)
fleet=("${control_plane[@]}" kube-controller-manager kube-scheduler kwok)
node=("${control_plane[@]}" kube-controller-manager kube-scheduler kubelet kube-proxy coredns provisioner pause policies)

# row PART: its fields, or an error that names the parts.
row() {
    awk -v part="$1" '$1 == part { print; found = 1 } END { exit !found }' <<<"$parts" ||
        fail "there is no part $1: use control-plane, node, or of$(awk 'NF {printf " %s", $1}' <<<"$parts")"
}

version() { awk -v module="$1" '$1 == "require" { $0 = $2 " " $3 } $1 == module { print $2; exit }' "$here/go/$2/go.mod"; }

flags() {
    local set=""
    local k8s=k8s.io/component-base/version
    case $1 in
    kube*) set="-X $k8s.gitVersion=$2 -X $k8s.gitMajor=1 -X $k8s.gitMinor=$(cut -d. -f2 <<<"$2")" ;;
    helm) set="-X helm.sh/helm/v4/internal/version.version=$2" ;;
    kwok) set="-X sigs.k8s.io/kwok/pkg/consts.Version=$2" ;;
    esac
    printf '%s\n' "-s -w $set"
}

# path PART: its place in the cache, keyed by everything that determines it.
path() {
    local fields module key
    fields=$(row "$1") || return
    read -r _ module _ <<<"$fields"
    key=$(cd "$here/go/$module" && { find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum; declare -f flags; } | sha256sum)
    printf '%s/parts/%s-%s/%s\n' "$cache" "$module" "${key:0:12}" "$1"
}

find_go() {
    command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
    command -v go >/dev/null || fail "Go is not installed, and the cluster's parts are built with it: install Go 1.26 or newer (go.dev/dl)"
}

# build PART NUMBER OF
build() {
    local target module package versioned v start=$EPOCHREALTIME log
    target=$(path "$1")
    read -r _ module package versioned <<<"$(row "$1")"
    v=$(version "$versioned" "$module")
    printf '[%d/%d] %s%s … ' "$2" "$3" "$1" "${v:+ $v}"
    mkdir -p "${target%/*}"
    log=$target.log
    # Niceness, because a build takes every core for minutes on a machine that people work on.
    if ! (cd "$here/go/$module" && CGO_ENABLED=0 GOFLAGS=-mod=readonly GOWORK=off nice \
        go build -trimpath -buildvcs=false -ldflags "$(flags "$1" "$v")" -o "$target.new" "$package") >"$log" 2>&1 8>&-; then
        say failed
        tail -n 15 "$log" >&2
        fail "$1 could not be built; the whole output is in $log"
    fi
    rm -f "$log"
    mv "$target.new" "$target"
    say "$(elapsed "$start") s"
}

case ${1:-} in
--path)
    path "$2"
    exit
    ;;
control-plane) wanted=("${control_plane[@]}") ;;
fleet) wanted=("${fleet[@]}") ;;
node) wanted=("${node[@]}") ;;
'') fail "usage: build.sh control-plane|fleet|node|PART..." ;;
*) wanted=("$@") ;;
esac

absent() {
    local part file
    missing=()
    for part in "${wanted[@]}"; do
        file=$(path "$part") || exit
        [[ -x $file ]] || missing+=("$part")
    done
}
absent
((${#missing[@]})) || exit 0
find_go
mkdir -p "$cache"
exec 8>"$cache/build.lock"
flock --nonblock 8 || { say "waiting for another build of the cluster's parts"; flock 8; }
absent # another build may have made them
for ((i = 0; i < ${#missing[@]}; i++)); do
    build "${missing[i]}" $((i + 1)) ${#missing[@]}
done
