# shellcheck shell=bash disable=SC2034  # its variables are read by the scripts that source it
# What the chart's scripts share. Sourced from the repository's root, never run.

say() { printf '%s\n' "$*"; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# find_helm: sets `helm`: the one that the built-in cluster uses, so that everybody renders with the same version.
find_helm() { helm=$(tests/cluster/tool.sh helm | tail -n 1); }
