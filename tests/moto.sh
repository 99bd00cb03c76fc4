#!/usr/bin/env bash
# A server that speaks S3 (moto, from PyPI, into a cache outside the tree), for tests. Usage: moto.sh    prints the folder of its programs
set -euo pipefail
moto=5.1.22
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mcpfleet/moto-$moto
if [[ ! -e $cache/complete ]]; then
    echo "installing moto $moto into $cache" >&2
    python3 -m venv "$cache"
    "$cache/bin/pip" install --quiet --disable-pip-version-check "moto[s3,server]==$moto"
    touch "$cache/complete"
fi
echo "$cache/bin"
