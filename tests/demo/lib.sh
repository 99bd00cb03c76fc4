# shellcheck shell=bash disable=SC2034,SC2154  # its variables are read by the scripts that source it
# What the demo's scripts share: its names, how steps are told and timed, and how a command is shown and run.
# Sourced from the repository's root, never run.

# Where things are in the cluster.
system=mcpfleet-system
namespace=mcpfleet-demo
# The label by which a namespace is known to be the demo's own, and so its to delete.
mark=mcpfleet.dev/demo

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
    bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' cyan=$'\e[36m' plain=$'\e[0m'
else
    bold='' dim='' red='' green='' cyan='' plain=''
fi

say() { printf '   %s\n' "$*"; }
fail() {
    printf '%serror:%s %s\n' "$red" "$plain" "$*" >&2
    exit 1
}

# since START: seconds since START, a value of $EPOCHREALTIME, with one decimal.
since() {
    local now=${EPOCHREALTIME/[.,]/} then=${1/[.,]/}
    printf '%d.%d' $(((now - then) / 1000000)) $(((now - then) / 100000 % 10))
}

demo_start=$EPOCHREALTIME
step_number=0

# step TITLE: closes the step before it, and opens the next one.
step() {
    step_done
    step_number=$((step_number + 1))
    step_start=$EPOCHREALTIME
    printf '\n%s%d/%d  %s%s\n' "$bold" "$step_number" "$steps" "$1" "$plain"
}

step_done() {
    [[ -z ${step_start:-} ]] || printf '   %sdone in %s s, %s s in all%s\n' "$green" "$(since "$step_start")" "$(since "$demo_start")" "$plain"
    step_start=
}

# show WORD...: prints a command as a person would type it.
show() {
    local word line=
    for word in "$@"; do
        # Quoted where a shell would not take it as it is.
        [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
        line+=" $word"
    done
    printf '   %s$%s%s%s\n' "$dim" "$plain$cyan" "$line" "$plain"
}

# run WORD...: shows the command, runs it, and indents what it says.
run() {
    show "$@"
    "$@" 2>&1 | indent
}

indent() { sed -u 's/^/     /'; }

# patiently COMMAND...: runs what may take minutes, and says every half minute that it still runs.
patiently() {
    local start=$SECONDS pid code=0
    "$@" > >(indent) 2>&1 &
    pid=$!
    while sleep 1 && kill -0 "$pid" 2>/dev/null; do
        ((SECONDS - start < 30 || (SECONDS - start) % 30)) || say "${dim}still at it, after $((SECONDS - start)) s$plain"
    done
    wait "$pid" || code=$?
    return "$code"
}

# need COMMAND:PACKAGE...: installs what this machine lacks, where it can.
need() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    ((${#missing[@]})) || return 0
    [[ $EUID -eq 0 && -n $(type -P apt-get) ]] || fail "please install: ${missing[*]}"
    say "installing ${missing[*]}"
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}"; } >/dev/null 2>&1 ||
        fail "apt-get could not install ${missing[*]}"
}

kube() { kubectl --namespace "$namespace" "$@"; }
