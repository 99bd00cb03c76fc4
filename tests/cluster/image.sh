#!/usr/bin/env bash
# Writes the docker-archive of one image from static binaries: a layer with them and what they need, nothing else.
# Usage: image.sh NAME FILE    FILE - is the standard output
#   NAME is operator, sandbox-server, chat-worker or bridge (built by `make images`), or pause, the sandbox of each pod.
#
# The layout is the one of the Dockerfile. Two runs over the same binary give the same bytes.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

image=$1
# shellcheck source=image-names.sh
source "$here/image-names.sh"
if [[ $image == pause ]]; then
    binaries=("$("$here/build.sh" --path pause)")
    tag=mcpfleet.dev/pause:1
else
    image_name "$image" >/dev/null
    tag=$(image_name "$image")
    mapfile -t binaries < <(image_binaries "$image")
    for binary in "${binaries[@]}"; do
        [[ -x $binary ]] || fail "$binary is not there: run make images"
    done
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/root/{app,etc/ssl/certs,tmp,usr/bin} "$work/archive"
chmod 1777 "$work/root/tmp"
install -m 755 --strip --target-directory "$work/root/usr/bin" "${binaries[@]}"
echo 'mcpfleet:x:1000:1000::/tmp:/sbin/nologin' >"$work/root/etc/passwd"
echo 'mcpfleet:x:1000:' >"$work/root/etc/group"
[[ $image == pause ]] || install -m 644 /etc/ssl/certs/ca-certificates.crt "$work/root/etc/ssl/certs/"

archive() { tar --sort=name --mtime=@0 --owner="${4:-0}" --group="${4:-0}" --numeric-owner -C "$1" "$3" -f "$2" "${@:5}"; }
archive "$work/root" "$work/archive/layer.tar" --create 0 ./etc ./tmp ./usr
# The working directory belongs to the user that the image runs as.
archive "$work/root" "$work/archive/layer.tar" --append 1000 ./app
layer=$(sha256sum "$work/archive/layer.tar")

case $(uname -m) in
x86_64) architecture=amd64 ;;
aarch64) architecture=arm64 ;;
*) architecture=$(uname -m) ;;
esac
cat >"$work/config" <<END
{"architecture":"$architecture","os":"linux","created":"1970-01-01T00:00:00Z",
 "config":{"User":"1000:1000","Entrypoint":["/usr/bin/$image"],"WorkingDir":"/app","Env":["PATH=/usr/bin"$(image_environment "$image")],"Labels":{
  "org.opencontainers.image.title":"mcpfleet $image","org.opencontainers.image.description":"$(image_description "$image")",
  "org.opencontainers.image.version":"$version","org.opencontainers.image.licenses":"Apache-2.0",
  "org.opencontainers.image.source":"https://github.com/mcpfleet/mcpfleet"}},
 "rootfs":{"type":"layers","diff_ids":["sha256:${layer%% *}"]},
 "history":[{"created":"1970-01-01T00:00:00Z","created_by":"mcpfleet tests/cluster/image.sh"}]}
END
config=$(sha256sum "$work/config")
mv "$work/config" "$work/archive/${config%% *}.json"
echo "[{\"Config\":\"${config%% *}.json\",\"RepoTags\":[\"$tag\"],\"Layers\":[\"layer.tar\"]}]" >"$work/archive/manifest.json"
if [[ ${2:?usage: image.sh NAME FILE} == - ]]; then
    archive "$work/archive" - --create 0 .
else
    mkdir -p "$(dirname "$2")"
    archive "$work/archive" "$work/image.tar" --create 0 .
    mv "$work/image.tar" "$2"
fi
