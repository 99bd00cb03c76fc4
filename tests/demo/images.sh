# shellcheck shell=bash disable=SC2154,SC2034  # its variables are those of lib.sh, and used by the clusters
# The images, built here and brought to the cluster. Sourced by demo.sh.

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)

provide_images() {
    local images=(operator sandbox-server chat-worker bridge)
    [[ $model != standin ]] || images+=(model-standin)
    say "built where they are not up to date; the first time takes about 6 minutes on 2 cores"
    cluster_load "${images[@]}" || fail "the images could not be brought to the cluster"
}

# from_registry FILE: a manifest, with our images from REGISTRY where one is given.
from_registry() { sed "s|ghcr.io/mcpfleet/|${REGISTRY:-ghcr.io/mcpfleet}/|" "$1"; }

# image_config IMAGE: the digest of its configuration, by which a node knows it.
# Built quickly: what is published is built by `make images`.
export MCPFLEET_IMAGE_PROFILE=quick
archives=${CARGO_TARGET_DIR:-target}/images/$MCPFLEET_IMAGE_PROFILE

image_config() { tar -xOf "$archives/$1.tar" ./manifest.json 2>/dev/null | jq --raw-output '.[0].Config | rtrimstr(".json")'; }

# image_id IMAGE...: what the images are made of, so that new ones of the same version roll the pods.
image_id() { (cd "$archives" 2>/dev/null && cat "${@/%/.tar}" 2>/dev/null) | sha256sum | cut -c1-16; }
