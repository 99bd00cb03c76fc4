#!/usr/bin/env bash
# Installs the Debian packages that a level needs and that this machine lacks. Usage: packages.sh LEVEL (web: the browser tests)
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# command:package. A command that is there already, from wherever, is used as it is.
needs=(ip:iproute2 openssl:openssl nsenter:util-linux)
if [[ $1 == node ]]; then
    needs+=(containerd:containerd runc:runc nft:nftables iptables:iptables socat:socat)
    cni_dir >/dev/null || needs+=("CNI plugins:containernetworking-plugins")
    [[ -e /etc/ssl/certs/ca-certificates.crt ]] || needs+=("CA certificates:ca-certificates")
elif [[ $1 == web ]]; then
    needs=(chromium:chromium)
fi

missing=()
for need in "${needs[@]}"; do
    command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
((${#missing[@]})) || exit 0

command -v apt-get >/dev/null ||
    fail "these are missing, and this machine has no apt-get to install them: ${missing[*]} (the names are Debian's)"
[[ $EUID -eq 0 ]] || fail "these packages are missing: run sudo apt-get install ${missing[*]}"

start=$SECONDS
log=$(mktemp)
trap 'rm -f "$log"' EXIT
printf 'installing %s … ' "${missing[*]}"
# --no-remove: another container engine's own containerd must not be thrown out for ours.
install=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends --no-remove "${missing[@]}")
"${install[@]}" >"$log" 2>&1 || {
    # The package lists may be absent or stale: only then fetch them.
    apt-get -o DPkg::Lock::Timeout=300 update >"$log" 2>&1 && "${install[@]}" >"$log" 2>&1
} || {
    say failed
    tail -n 15 "$log" >&2
    fail "apt-get could not install ${missing[*]}"
}
say "$((SECONDS - start)) s"
