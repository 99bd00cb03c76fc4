# shellcheck shell=bash disable=SC2034  # its variables are read by the scripts that source it
# What every script here shares: where a cluster keeps its things, how it is told from others, how
# its namespaces are entered, and how to speak to the person. Sourced, never run.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)

# The instance. Its name becomes a node name, a cgroup and a kubeconfig context.
name=${MCPFLEET_CLUSTER_NAME:-mcpfleet}
[[ $name =~ ^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$ ]] || {
    echo "error: NAME=$name: use at most 32 lower-case letters, digits and '-', beginning with a letter" >&2
    exit 2
}

cache=${MCPFLEET_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/mcpfleet}
# Within a cluster the directory is known already; there, without root, the caller counts as root.
if [[ ${MCPFLEET_STATE:-} == */"$name" ]]; then
    state=$MCPFLEET_STATE
elif [[ $EUID -eq 0 ]]; then
    state=${MCPFLEET_STATE_DIR:-/var/lib/mcpfleet}/$name
else
    state=${MCPFLEET_STATE_DIR:-${XDG_STATE_HOME:-$HOME/.local/state}/mcpfleet}/$name
fi
# The cgroup that the node's pods are below, in every hierarchy.
cgroup=mcpfleet-$name
node_ip=10.89.0.1
pod_network=10.88.0.0/16
# The NFQUEUE by which the node's packet filter asks whether a connection may be.
policy_queue=100

say() { printf '%s\n' "$*"; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# has_level LEVEL: whether LEVEL is within what the cluster was brought up to.
has_level() {
    case $(cat "$state/level" 2>/dev/null) in
    node) [[ $1 != fleet ]] ;;
    fleet) [[ $1 != node ]] ;;
    control-plane) [[ $1 == control-plane ]] ;;
    *) false ;;
    esac
}

# started PID: when a process started, in ticks since boot; with the pid this names one process.
started() {
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    stat=${stat##*) }
    # shellcheck disable=SC2086  # split on purpose: field 22 of the line, 20th after the name
    set -- $stat
    printf '%s\n' "${20}"
}

# same_process "PID STARTED": whether the process of that record still runs (a zombie does not).
same_process() {
    local pid=${1% *} stat
    [[ -n $pid ]] && [[ $(started "$pid") == "${1#* }" ]] || return 1
    read -r stat <"/proc/$pid/stat" && [[ ${stat##*) } != [ZX]* ]]
}

# init_pid: the pid of the cluster's init, the process that holds its namespaces; fails when there is none.
init_pid() {
    local record
    record=$(cat "$state/init.pid" 2>/dev/null) || return 1
    same_process "$record" && printf '%s\n' "${record% *}"
}

# enter PID KIND... -- COMMAND...: runs COMMAND in these namespaces of PID, where it is not in them already; without
# root, in its user namespace too, in which the caller counts as root.
enter() {
    local pid=$1 kind kinds=()
    shift
    while [[ $1 != -- ]]; do
        kinds+=("$1")
        shift
    done
    shift
    set -- -- "$@"
    for kind in "${kinds[@]}" user; do
        [[ /proc/self/ns/${kind/mount/mnt} -ef /proc/$pid/ns/${kind/mount/mnt} ]] && continue
        set -- "--$kind" "$@"
        [[ $kind != user ]] || set -- --preserve-credentials "$@"
    done
    ${replace_shell:+exec} nsenter --target "$pid" "$@"
}

# with_dns=(COMMAND...): put before a command that runs in the network of a node, it makes the cluster's DNS the one that
# the command asks, by a mount namespace for it alone.
# shellcheck disable=SC2016  # expanded by the inner shell
with_dns=(unshare --mount --propagation slave -- bash -c 'mount --bind "$0" /etc/resolv.conf && exec "$@"' "$state/etc/resolv.conf")

# need_cluster [LEVEL]: sets `init`, or says how to get a cluster.
need_cluster() {
    local level=${1:-control-plane}
    init=$(init_pid) || fail "there is no cluster $name: run make cluster-up$(name_argument)"
    has_level "$level" || fail "cluster $name is not up to LEVEL=$level: run make cluster-up LEVEL=$level$(name_argument)"
}

name_argument() { [[ $name == mcpfleet ]] || printf ' NAME=%s' "$name"; }

# take_lock: one `up` or `down` of an instance at a time. The lock is on the state directory itself, so that
# nothing is left when that is removed; who waited for a removed one takes its successor.
take_lock() {
    while true; do
        mkdir -p "$state"
        exec 9<"$state"
        flock --nonblock 9 || { say "waiting for another up or down of cluster $name"; flock 9; }
        [[ $state -ef /proc/$$/fd/9 ]] && return
    done
}

# elapsed START: seconds since START, a value of $EPOCHREALTIME, with one decimal.
elapsed() {
    local now=${EPOCHREALTIME/[.,]/} then=${1/[.,]/}
    printf '%d.%d' $(((now - then) / 1000000)) $(((now - then) / 100000 % 10))
}

# wait_until SECONDS WHAT COMMAND...: polls COMMAND until it succeeds. Ends at once when a part of the cluster has died.
wait_until() {
    local limit=$1 what=$2 start=$SECONDS
    shift 2
    until "$@" >"$state/wait.log" 2>&1; do
        no_part_has_died
        if ((SECONDS - start > limit)); then
            tail -n 5 "$state/wait.log" >&2
            fail "$what: not so within $limit s; the logs are in $state/logs"
        fi
        sleep 0.1
    done
}

# no_part_has_died: otherwise names the part, shows the end of its log, and ends the script.
no_part_has_died() {
    local part
    for part in "$state"/exited/*; do
        [[ -e $part ]] || continue
        part=${part##*/}
        {
            say "--- the last lines of $state/logs/$part.log"
            tail -n 15 "$state/logs/$part.log"
            say "---"
        } >&2
        fail "$part ended with exit code $(cat "$state/exited/$part")"
    done
    init_pid >/dev/null || fail "the cluster's init process is gone; see $state/logs/init.log"
}

# cni_dir: where the CNI plugins are (Debian's place, then the projects' own).
cni_dir() {
    local dir
    for dir in /usr/lib/cni /opt/cni/bin /usr/libexec/cni; do
        [[ -x $dir/ptp && -x $dir/host-local ]] && printf '%s\n' "$dir" && return
    done
    return 1
}
