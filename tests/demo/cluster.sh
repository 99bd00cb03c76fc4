# shellcheck shell=bash disable=SC2154  # its variables are those of lib.sh
# The three kinds of cluster that the demo runs on, behind the same functions:
#   cluster_title · cluster_up · cluster_load IMAGE... · kubectl · helm · fetch TARGET PATH CURL-ARGUMENT... ·
#   signal_pod POD SIGNAL · cluster_page · cluster_command · cluster_remove · cluster_release
# Sourced, never run.

if [[ -n ${CONTEXT:-} && -n ${CLUSTER:-} ]]; then
    fail "CONTEXT=$CONTEXT and CLUSTER=$CLUSTER: give one of them"
elif [[ -n ${CONTEXT:-} ]]; then
    # shellcheck source=cluster-context.sh
    source tests/demo/cluster-context.sh
elif [[ ${CLUSTER:-} == kind ]]; then
    # shellcheck source=cluster-kind.sh
    source tests/demo/cluster-kind.sh
elif [[ -z ${CLUSTER:-} || ${CLUSTER:-} == builtin ]]; then
    # shellcheck source=cluster-builtin.sh
    source tests/demo/cluster-builtin.sh
else
    fail "CLUSTER=$CLUSTER: use kind, or leave it out for the built-in cluster"
fi
