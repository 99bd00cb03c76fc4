#!/usr/bin/env bash
# Builds the static release binaries, and assembles an image of each as a docker-archive. Usage: images.sh [IMAGE...]
# Nothing is compiled or assembled again when nothing has changed.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=image-names.sh
source "$here/image-names.sh"

wanted=("${@:-${images[@]}}")
for image in "${wanted[@]}"; do
    image_name "$image" >/dev/null
done
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
command -v cargo >/dev/null || fail "Rust is not installed, and the images are built with it: install it from rustup.rs"

begin=$EPOCHREALTIME
built=()
for image in "${images[@]}" "${demo_images[@]}"; do
    read -ra programs < <(image_programs "$image")
    built+=("${programs[@]}")
done
printf 'building %s … ' "${built[*]}"
# Always all of them in one go: cargo chooses the features of shared dependencies by what is built together, and building
# them one by one would compile those dependencies once for each. What tests are built of is built as tests build it.
build() {
    export CARGO_BUILD_TARGET=$target RUSTFLAGS="-C target-feature=+crt-static"
    if [[ $profile == dev ]]; then
        "$repo/tests/build.sh"
    else
        cd "$repo" && cargo build --quiet --profile "$profile" --locked --bins "${built[@]/#/--package=}"
    fi
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! (build) >"$log" 2>&1; then
    say failed
    tail -n 40 "$log" >&2
    fail "the images' binaries could not be built"
fi
say "$(elapsed "$begin") s"

for image in "${wanted[@]}"; do
    file=$(image_archive "$image")
    for part in $(image_binaries "$image") "$here/image.sh" "$here/image-names.sh"; do
        [[ $file -nt $part ]] || { "$here/image.sh" "$image" "$file"; break; }
    done
    say "  $(image_name "$image")  $(du -h "$file" | cut -f1)  $file"
done
