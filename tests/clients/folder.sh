#!/bin/sh
# Installs the official clients that hold sessions in drills, and says in which folder they are: `python`, with the package mcp, and
# `node_modules`, with @modelcontextprotocol/client and Node.js.
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=lib.sh
. tests/clients/lib.sh
{
    cached "clients-$typescript" npm_packages "@modelcontextprotocol/client@$typescript"
    cached "clients-python-$python_before" python_package "mcp==$python_before"
    folder=$caches/clients-drills
    mkdir -p "$folder"
    ln -sfn "$caches/clients-$typescript/node_modules" "$folder/node_modules"
    printf '#!/bin/sh\nexec "%s" "$@"\n' "$caches/clients-python-$python_before/venv/bin/python" >"$folder/python"
    chmod +x "$folder/python"
} >&2
echo "$folder"
