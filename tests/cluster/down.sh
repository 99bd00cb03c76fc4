#!/usr/bin/env bash
# Removes a cluster and everything that it put on this machine, also one that is half up. Usage: down.sh
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=teardown.sh
source "$here/teardown.sh"

[[ -e $state ]] || {
    say "there is no cluster $name"
    exit 0
}
begin=$EPOCHREALTIME
take_lock
teardown
say "cluster $name is down ($(elapsed "$begin") s)"
