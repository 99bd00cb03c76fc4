# shellcheck shell=bash
# One compilation for tests and for the images of their node. Sourced by whoever runs both, in the repository's folder.

# Static programs, as images that hold nothing else need them. (As tests/cluster/images.sh builds them.)
export MCPFLEET_IMAGE_PROFILE=${MCPFLEET_IMAGE_PROFILE:-dev}
CARGO_BUILD_TARGET=$(uname -m)-unknown-linux-gnu
export CARGO_BUILD_TARGET RUSTFLAGS="-C target-feature=+crt-static"
# And clippy compiles our own crates, so that nothing is read twice: `cargo clippy` has it check them in the same way.
export RUSTC_WORKSPACE_WRAPPER=clippy-driver
# Without line tables: tests run without backtraces, and forty static programs with the tables of the standard library are a gigabyte.
# What would make the next build shorter is three gigabytes more.
export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=none CARGO_PROFILE_DEV_STRIP=debuginfo

# test_binary TARGET: builds a test target outside of the cluster, where the registries are, and says where it is.
test_binary() {
    cargo test --locked --workspace --all-features --test "$1" --no-run --message-format=json |
        python3 -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message.get("target", {}).get("name") == sys.argv[1]:
        print(message["executable"])' "$1"
}
