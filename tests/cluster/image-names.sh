# shellcheck shell=bash disable=SC2034,SC2154  # shared by the scripts that source it after lib.sh
# The images of this project: their names, their version, and where the binary of each comes from. Sourced, never run.

images=(operator sandbox-server chat-worker bridge)
# Built only when it is named: the demo's and the tests'.
demo_images=(model-standin)
# Static with the GNU target, which every toolchain has: an image FROM scratch holds no libc.
target=$(uname -m)-unknown-linux-gnu
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$repo/Cargo.toml")

# image_name IMAGE: its full name; an error for what is no image of ours.
image_name() {
    [[ " ${images[*]} ${demo_images[*]} " == *" $1 "* ]] || fail "there is no image $1: use one of ${images[*]}, or a docker-archive tar"
    printf '%s/%s:%s\n' "${REGISTRY:-ghcr.io/mcpfleet}" "$1" "$version"
}

# What is published and measured is `release`; `make demo` and `make drills` say `quick`, which is built in a fraction of the time, and
# `make test` says `dev`, which its tests are built of.
profile=${MCPFLEET_IMAGE_PROFILE:-release}
# image_programs IMAGE: what is in it; the first is what it runs.
image_programs() {
    case $1 in
    bridge) echo bridge activator ;;
    *) echo "$1" ;;
    esac
}
# image_binaries IMAGE: where the builds of its programs are.
image_binaries() {
    local program
    for program in $(image_programs "$1"); do
        printf '%s/%s/%s/%s\n' "${CARGO_TARGET_DIR:-$repo/target}" "$target" "${profile/#dev/debug}" "$program"
    done
}
image_archive() { printf '%s/images/%s/%s.tar\n' "${CARGO_TARGET_DIR:-$repo/target}" "$profile" "$1"; }

# image_environment IMAGE: variables of the image beside PATH, as JSON strings that follow one.
image_environment() {
    case $1 in
    # What a statement took is given back at once: what its allocator would hold free counts against the container's limit.
    sandbox-server) echo ',"MIMALLOC_PURGE_DELAY=0"' ;;
    esac
}

image_description() {
    case $1 in
    operator) echo "Runs fleets of MCP servers on Kubernetes and tells the truth about them" ;;
    sandbox-server) echo "SQLite over the Model Context Protocol" ;;
    chat-worker) echo "A chat application over a set of MCP servers" ;;
    bridge) echo "Serves an MCP server of standard input and output over streamable HTTP" ;;
    model-standin) echo "A stand-in for the model: answers from a script, for demos and tests" ;;
    pause) echo "The sandbox of a pod" ;;
    esac
}
