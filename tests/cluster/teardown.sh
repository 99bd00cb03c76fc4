# shellcheck shell=bash disable=SC2154  # state and cgroup come from lib.sh
# How a cluster is removed, whole or half made. Sourced by up.sh and down.sh, which hold the lock.
#
# Processes are found by what they are: the init by its recorded pid and start time, all below it by the kernel, others
# (commands in the cluster's network, forwards) by that network namespace or by the state directory in their environment.

parent() {
    local stat
    read -r stat <"/proc/$1/stat" && cut -d' ' -f2 <<<"${stat##*) }"
}

# ancestors: the pids of this script and of whoever called it, who must live on.
ancestors() {
    local pid=$$
    while ((pid > 0)); do
        echo "$pid"
        pid=$(parent "$pid")
    done
}

# guests: the pids of the processes outside the cluster's own process namespace that were started to talk to it.
guests() {
    local init=$1 pid spared
    spared=" $(ancestors | tr '\n' ' ') $init ${init:+$(parent "$init") }"
    {
        # Those in its network. When the init is gone there is none to compare with, and the environment has to do.
        [[ -z $init ]] || for pid in /proc/[0-9]*; do
            [[ $pid/ns/net -ef /proc/$init/ns/net ]] && echo "${pid#/proc/}"
        done
        grep -lzxF "MCPFLEET_STATE=$state" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3
    } | sort -u | while read -r pid; do
        [[ $spared == *" $pid "* || /proc/$pid/ns/pid -ef /proc/${init:-none}/ns/pid ]] || echo "$pid"
    done
}

gone() { ! kill -0 "$1" 2>/dev/null || [[ $(cut -d')' -f2 "/proc/$1/stat" 2>/dev/null) == ' Z'* ]]; }

# await_gone SECONDS PID...: whether all of them ended in time.
await_gone() {
    local limit=$((SECONDS + $1)) pid
    shift
    for pid in "$@"; do
        until gone "$pid"; do
            ((SECONDS < limit)) || return 1
            sleep 0.05
        done
    done
}

teardown() {
    local init pids dir
    init=$(init_pid) || init=
    mapfile -t pids < <(guests "$init")
    if ((${#pids[@]})); then
        kill -TERM "${pids[@]}" 2>/dev/null || true
        await_gone 3 "${pids[@]}" || kill -KILL "${pids[@]}" 2>/dev/null || true
    fi
    if [[ -n $init ]]; then
        kill -KILL "$init"
        # The init is only gone when the kernel has ended every process below it.
        await_gone 60 "$init" || fail "process $init, the cluster's init, does not end"
    fi
    for dir in /sys/fs/cgroup/*/"$cgroup" /sys/fs/cgroup/"$cgroup"; do
        [[ -d $dir ]] && find "$dir" -depth -type d -exec rmdir {} +
    done
    # --one-file-system: were anything mounted below, it would not be ours to delete.
    rm -rf --one-file-system "$state"
}
