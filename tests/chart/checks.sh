# shellcheck shell=bash disable=SC2034,SC2154  # scratch, helm and chart are test.sh's
# The checks of test.sh, each of which prints one line, and the count of them. Sourced, never run.

# Where the Go project installs itself, for machines that do not have it on the PATH.
PATH=$PATH:/usr/local/go/bin
passed=0
failed=0

section() { printf '%s\n' "$*"; }

ok() {
    passed=$((passed + 1))
    printf '  ok      %s\n' "$1"
}

not_ok() {
    failed=$((failed + 1))
    printf '  FAILED  %s\n' "$1"
    [[ ! -s ${2:-} ]] || tail -n 5 "$2" | sed 's/^/            /'
}

# check SENTENCE COMMAND...
check() {
    local sentence=$1
    shift
    if "$@" >"$scratch/output" 2>&1; then ok "$sentence"; else not_ok "$sentence" "$scratch/output"; fi
}

total() {
    printf '\nchart: %d passed, %d failed\n' "$passed" "$failed"
    ((failed == 0))
}

accepts() { kubectl apply --server-side --dry-run=server --validate=strict --filename - <"$1"; }
has() { grep -q "^kind: $2\$" "$scratch/$1.yaml"; }
hasnt() { ! has "$@"; }
silent_grep() { ! grep "$1" "$2"; }

# values: every value that the schema knows, at the depth at which the README explains it.
values() {
    jq --raw-output 'def leaves($path): if (.properties and ($path | endswith("resources") | not)) then .properties | to_entries[] | .key as $key | .value |
        leaves(if $path == "" then $key else "\($path).\($key)" end) else $path end; leaves("") | select(IN("global", "enabled", "tags") | not)' "$chart/values.schema.json"
}

# refused PART-OF-THE-MESSAGE ARGUMENT...: the chart does not render, and says why.
refused() {
    local expected=$1
    shift
    if render "$@" >"$scratch/output" 2>&1; then
        not_ok "refuses $*"
    elif grep -qF "$expected" "$scratch/output"; then
        ok "refuses $*"
    else
        not_ok "refuses $*, but does not say: $expected" "$scratch/output"
    fi
}

# The definitions of ServiceMonitor and PrometheusRule, from the project that has them, so that ours are checked against the real ones.
monitoring_definitions() {
    local dir kind limit=$((SECONDS + 30))
    dir=$(cd tests/chart/monitoring && go mod download -json github.com/prometheus-operator/prometheus-operator | jq --raw-output .Dir)
    for kind in servicemonitors prometheusrules; do
        kubectl apply --server-side --filename - <"$dir/example/prometheus-operator-crd/monitoring.coreos.com_$kind.yaml" >/dev/null
    done
    # (`kubectl wait` reads their conditions, which are null at first, and gives up at that.)
    until kubectl get servicemonitors,prometheusrules --all-namespaces >"$scratch/output" 2>&1; do
        ((SECONDS < limit)) || { not_ok "the definitions are served" "$scratch/output"; return; }
        sleep 0.1
    done
}

# What fires, and what does not, in the cases of alerts.yaml; and where each alert sends people to.
alerts() {
    local tool line anchor
    tool=$(tests/cluster/tool.sh alerts | tail -n 1)
    render --set metrics.prometheusRule.enabled=true --show-only templates/prometheusrule.yaml >"$scratch/rules.yaml"
    "$tool" "$scratch/rules.yaml" docs/metrics.md tests/chart/alerts.yaml >"$scratch/alerts" 2>"$scratch/output" || true
    [[ -s $scratch/alerts ]] || not_ok "the alerts can be tested" "$scratch/output"
    while IFS= read -r line; do
        case $line in
        ok$'\t'*) ok "${line#*$'\t'}" ;;
        FAILED$'\t'*) not_ok "${line#*$'\t'}" ;;
        *) printf '            %s\n' "${line#$'\t'}" ;;
        esac
    done <"$scratch/alerts"
    while read -r anchor; do
        check "docs/troubleshooting.md has #$anchor" grep -qxF -- "$anchor" <(anchors docs/troubleshooting.md)
    done < <(sed -n 's/.*runbook_url:.*#//p' "$scratch/rules.yaml")
}

# anchors PAGE: those of its headings, as GitHub makes them.
anchors() { sed -n 's/^#\+ //p' "$1" | tr '[:upper:] ' '[:lower:]-' | tr -cd '[:lower:][:digit:]\n-'; }

apply() { kubectl apply --server-side --force-conflicts --filename - <"$scratch/$1.yaml" >/dev/null; }

account=system:serviceaccount:mcpfleet-system:mcpfleet
operator_may=(
    "list mcpservers.mcpfleet.dev" "watch mcpapps.mcpfleet.dev" "patch mcpservers.mcpfleet.dev/status" "patch mcpapps.mcpfleet.dev/status"
    "create deployments.apps" "patch deployments.apps" "patch services" "create configmaps" "patch persistentvolumeclaims"
    "get secrets" "create secrets" "delete secrets" "list pods" "patch pods/status" "create pods/eviction" "create events.events.k8s.io"
    "watch poddisruptionbudgets.policy" "create poddisruptionbudgets.policy" "delete poddisruptionbudgets.policy"
    "watch networkpolicies.networking.k8s.io" "create networkpolicies.networking.k8s.io" "delete networkpolicies.networking.k8s.io"
    "watch cronjobs.batch" "create cronjobs.batch" "delete cronjobs.batch"
    "list jobs.batch" "watch jobs.batch"
    "watch endpointslices.discovery.k8s.io" "create endpointslices.discovery.k8s.io" "delete endpointslices.discovery.k8s.io"
)
operator_may_not=(
    "update mcpservers.mcpfleet.dev" "patch mcpservers.mcpfleet.dev" "delete mcpapps.mcpfleet.dev" "delete deployments.apps" "delete persistentvolumeclaims" "delete services"
    "create pods" "create jobs.batch" "delete jobs.batch" "patch jobs.batch" "delete pods" "create pods/exec" "get nodes" "patch nodes" "list namespaces" "create clusterroles.rbac.authorization.k8s.io"
    "patch customresourcedefinitions.apiextensions.k8s.io" "impersonate users" "create serviceaccounts/token"
)

activator=system:serviceaccount:mcpfleet-system:mcpfleet-activator
activator_may=("list mcpservers.mcpfleet.dev" "watch mcpservers.mcpfleet.dev" "watch endpointslices.discovery.k8s.io" "get configmaps")
activator_may_not=(
    "patch mcpservers.mcpfleet.dev" "patch mcpservers.mcpfleet.dev/status" "patch endpointslices.discovery.k8s.io" "list configmaps"
    "patch configmaps" "get secrets" "list pods" "patch deployments.apps" "create configmaps"
)

# may yes|no RIGHT...: what the API server says of the account of $who, by default the operator's, in $in_namespace.
may() {
    local expected=$1 right verb resource answer sub
    shift
    for right in "$@"; do
        read -r verb resource <<<"$right"
        sub=()
        [[ $resource != */* ]] || sub=(--subresource "${resource#*/}")
        # What was applied a moment ago reaches whoever decides through a watch.
        for _ in {1..20}; do
            answer=$(kubectl auth can-i --as "${who_account:-$account}" --namespace "${in_namespace:-team-a}" "$verb" "${resource%/*}" "${sub[@]}" 2>/dev/null) || true
            [[ $answer != "$expected" ]] || break
            sleep 0.1
        done
        if [[ $answer == "$expected" ]]; then
            ok "the ${who:-operator} may$([[ $expected == yes ]] || echo " not") $right in ${in_namespace:-team-a}"
        else
            not_ok "the ${who:-operator} may$([[ $expected == yes ]] || echo " not") $right in ${in_namespace:-team-a}: the API server says ${answer:-nothing}"
        fi
    done
}

# aggregated ROLE RESOURCE: the controller that merges ClusterRoles is not on this cluster, so its selector is followed here.
aggregated() {
    kubectl get clusterroles --selector "rbac.authorization.k8s.io/aggregate-to-$1=true" --output json |
        jq --exit-status --arg resource "$2" '[.items[].rules[]? | select(.apiGroups == ["mcpfleet.dev"]) | .resources[]] | index($resource)'
}
