#!/usr/bin/env bash
# Makes again what is made from something else: crds/ from the operator's types, the chart's copy of them, and the plain
# manifests in k8s/ from the chart. Usage: generate.sh [--check]    --check changes nothing, and fails where something is stale
#   OPERATOR=command   prints the CustomResourceDefinitions (default: built here, in the repository)
set -euo pipefail
repo=$(cd "$(dirname "$0")/../.." && pwd)
cd "$repo"
# shellcheck source=lib.sh
source tests/chart/lib.sh

check=
case ${1:-} in
'') ;;
--check) check=yes ;;
*) fail "generate.sh takes --check, or nothing" ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{crds,charts/mcpfleet/files,k8s}

# One file a document, named as the definition is.
definitions() {
    # shellcheck disable=SC2086  # a command with its arguments
    ${OPERATOR:-"$(tests/build.sh)/operator"} crd |
        awk -v dir="$work/crds" '
            /^---$/ { flush(); next }
            /^  name: / && !name { name = $2 }
            { text = text $0 "\n" }
            function flush() { sub(/\n+$/, "\n", text); if (name) printf "%s", text > (dir "/" name ".yaml"); text = name = "" }
            END { flush() }'
    compgen -G "$work/crds/*.yaml" >/dev/null || fail "the operator printed no CustomResourceDefinition"
}

# plain FILE TEMPLATE...: templates of the chart as manifests for people without Helm.
plain() {
    local file=$1 template show=()
    shift
    for template in "$@"; do show+=(--show-only "templates/$template.yaml"); done
    {
        echo "# Made from charts/mcpfleet by \`make generate\`. Do not edit: patch it with a kustomization of your own."
        "$helm" template mcpfleet charts/mcpfleet --namespace mcpfleet-system "${show[@]}" |
            sed -e '/^# Source: /d' -e '/^ *helm.sh\/chart: /d' -e '/^ *app.kubernetes.io\/managed-by: Helm$/d' |
            awk '/^$/ { next } /^---$/ { if (seen) print; next } { print; seen = 1 }'
    } >"$work/k8s/$file"
}

definitions
cp -r "$work/crds" "$work/charts/mcpfleet/files/crds"
find_helm
plain rbac.yaml rbac rbac-people
plain operator.yaml serviceaccount priorityclass deployment poddisruptionbudget service
plain activator.yaml activator

stale=()
while read -r file; do
    cmp --silent "$work/$file" "$file" || stale+=("$file")
done < <(cd "$work" && find . -type f -printf '%P\n' | sort)
while read -r file; do
    [[ -e $work/$file ]] || stale+=("$file (not made any more)")
done < <(find crds charts/mcpfleet/files/crds -name '*.mcpfleet.dev.yaml')
if [[ $check ]]; then
    ((${#stale[@]} == 0)) || fail "stale: ${stale[*]}. Run make generate, and commit what changes"
    say "generated files are up to date"
elif ((${#stale[@]})); then
    rm -f crds/*.mcpfleet.dev.yaml charts/mcpfleet/files/crds/*.yaml
    cp -r "$work"/* .
    printf 'made again: %s\n' "${stale[@]}"
else
    say "nothing to make again"
fi
