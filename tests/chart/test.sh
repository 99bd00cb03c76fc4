#!/usr/bin/env bash
# Tests the chart and the plain manifests against a real API server: what they render is accepted, grants what the operator
# needs and no more, and bad values are refused with a sentence. Usage: test.sh
# On the built-in control plane, in an instance of its own; needs no root, no node and no image.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=lib.sh
source tests/chart/lib.sh
# shellcheck source=checks.sh
source tests/chart/checks.sh
chart=charts/mcpfleet
export MCPFLEET_CLUSTER_NAME=${MCPFLEET_CHART_CLUSTER:-chart-test}

find_helm
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"; tests/cluster/down.sh' EXIT
tests/cluster/up.sh control-plane
kubectl() { tests/cluster/run.sh kubectl "$@"; }
render() { "$helm" template mcpfleet "$chart" --namespace mcpfleet-system "$@"; }

for namespace in mcpfleet-system team-a team-b elsewhere; do kubectl create namespace "$namespace" >/dev/null; done
kubectl label namespace mcpfleet-system pod-security.kubernetes.io/enforce=restricted >/dev/null

section "The chart"
for values in "$chart"/ci/*-values.yaml; do
    name=$(basename "$values" -values.yaml)
    check "lints with the $name values" "$helm" lint --strict --quiet "$chart" --values "$values"
    render --values "$values" >"$scratch/$name.yaml" || true
done
monitoring_definitions
for values in "$chart"/ci/*-values.yaml; do
    name=$(basename "$values" -values.yaml)
    check "an API server accepts the $name rendering" accepts "$scratch/$name.yaml"
done
check "the default rendering has two replicas" grep -q '^  replicas: 2$' "$scratch/default.yaml"
check "and a PodDisruptionBudget" has default PodDisruptionBudget
check "and a PriorityClass" has default PriorityClass
check "one replica has no PodDisruptionBudget" silent_grep '^kind: PodDisruptionBudget' <(render --set replicas=1 --set activator.replicas=1)
check "without an activator there is nothing of it" silent_grep 'name: mcpfleet-activator' <(render --set activator.enabled=false)
check "a list of namespaces gives no PriorityClass" hasnt namespaced PriorityClass
check "what a chart of charts passes down is let in" render --set enabled=true --set tags.mcp=true --set x-team=data
check "who takes the gates off may speak to the API server" grep -q '^      automountServiceAccountToken: true$' \
    <(render --set uninstall.releaseGates=true --show-only templates/release-gates.yaml)
check "it can be switched off" hasnt openshift PodDisruptionBudget
check "the default rendering has no NetworkPolicy" hasnt default NetworkPolicy
check "the default rendering has no ServiceMonitor" hasnt default ServiceMonitor
check "a list of namespaces gives no ClusterRole" hasnt namespaced ClusterRole
check "rbac.create=false gives no binding" hasnt openshift RoleBinding
check "crds.keep protects the definitions" grep -q 'helm.sh/resource-policy: keep' "$scratch/default.yaml"
check "crds.keep=false does not" silent_grep 'helm.sh/resource-policy' <(render --set crds.keep=false)
check "an alert can be left out" silent_grep McpfleetProbesLate \
    <(render --set metrics.prometheusRule.enabled=true --set 'metrics.prometheusRule.disabled={McpfleetProbesLate}')

while read -r value; do
    check "the README explains $value" grep -qF "| $value |" "$chart/README.md"
done < <(values)

section "Alerts"
alerts

section "Refusals"
refused 'replicaCount' --set replicaCount=2
refused "got string, want integer" --set-string replicas=two
refused "value must be one of" --set image.pullPolicy=Sometimes
refused "watchNamespaces/0" --set 'watchNamespaces={Team_A}'
refused "does not match pattern" --set image.digest=sha256:abc
refused "extraEnv must not set WATCH_NAMESPACES" --set 'extraEnv[0].name=WATCH_NAMESPACES' --set 'extraEnv[0].value=x'
refused "serviceAccount.name must name an existing ServiceAccount" --set serviceAccount.create=false
refused "does not match pattern" --set 'remote.deny={pods}'
refused "does not match pattern" --set 'remote.deny={10.0.0.0/99}'
refused "does not match pattern" --set log.level=loud
refused "maxLength" --set fullnameOverride=an-operator-of-a-name-that-nobody-would-ever-want-to-type
refused "must not set app.kubernetes.io/name" --set 'podLabels.app\.kubernetes\.io/name=x'

section "Rights, for all namespaces"
apply default
may yes "${operator_may[@]}"
may no "${operator_may_not[@]}"
who=activator who_account=$activator may yes "${activator_may[@]}"
who=activator who_account=$activator may no "${activator_may_not[@]}"
check "the activator may say who is wanted" kubectl auth can-i --as "$activator" --namespace mcpfleet-system patch configmaps/mcpfleet-wanted
check "who may view a namespace may view its servers" aggregated view mcpservers
check "who may edit a namespace may edit its apps" aggregated edit mcpapps
second() { tests/cluster/run.sh "$helm" install second "$chart" --namespace elsewhere --dry-run=server "$@" 2>&1; }
check "a second release over all namespaces is refused" grep -q 'mcpfleet in mcpfleet-system looks after every namespace already' <(second)
check "and one over some of them" grep -q 'looks after every namespace already' <(second --set 'watchNamespaces={team-b}')
kubectl delete clusterrole,clusterrolebinding mcpfleet mcpfleet-access mcpfleet-activator --ignore-not-found >/dev/null

section "Rights, for a list of namespaces"
apply namespaced
in_namespace=team-a may yes "${operator_may[@]}"
in_namespace=elsewhere may no "${operator_may[@]}"
without_rights=(--set crds.install=false --set rbac.aggregate=false)
check "a second release over one of them is refused" grep -q 'looks after the namespace team-a already' <(second --set 'watchNamespaces={team-a}' "${without_rights[@]}")
check "and one over all" grep -q 'looks after the namespace team-. already' <(second)
check "one over another namespace is not" silent_grep ' already, and' <(second --set 'watchNamespaces={elsewhere}' "${without_rights[@]}")
in_namespace=team-a who=activator who_account=$activator may yes "${activator_may[@]}"
in_namespace=elsewhere who=activator who_account=$activator may no "${activator_may[@]}"

section "The plain manifests and the examples"
check "kubectl apply -k k8s/ is accepted" kubectl apply --server-side --dry-run=server --validate=strict --kustomize k8s
for example in k8s/examples/*.yaml; do
    check "$example is accepted" kubectl --namespace team-a apply --dry-run=server --validate=strict --filename "$example"
done
check "the chart's definitions are those of crds/" diff -r --exclude kustomization.yaml crds "$chart/files/crds"
check "deploy/ecs/task-definition.json is JSON" jq --exit-status .containerDefinitions deploy/ecs/task-definition.json

total
