{{/* The names and labels that every object of the release shares. */}}

{{- define "mcpfleet.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "mcpfleet.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- $name := include "mcpfleet.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* The Lease by which the replicas of this release, and no others, find their leader. */}}
{{- define "mcpfleet.lease" -}}
{{- printf "%s-operator" (include "mcpfleet.fullname" .) }}
{{- end }}

{{- define "mcpfleet.selectorLabels" -}}
app.kubernetes.io/name: {{ include "mcpfleet.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "mcpfleet.labels" -}}
{{- with .Values.commonLabels }}
{{- toYaml . }}
{{ end -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "mcpfleet.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: mcpfleet
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "mcpfleet.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "mcpfleet.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name must name an existing ServiceAccount when serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The activator: the bridge beside the operator, and the ConfigMap by which the two speak. */}}
{{- define "mcpfleet.activator" -}}
{{- printf "%s-activator" (include "mcpfleet.fullname" .) }}
{{- end }}

{{- define "mcpfleet.wanted" -}}
{{- printf "%s-wanted" (include "mcpfleet.fullname" .) }}
{{- end }}

{{- define "mcpfleet.activatorSelectorLabels" -}}
{{- include "mcpfleet.selectorLabels" . | replace "component: operator" "component: activator" }}
{{- end }}

{{- define "mcpfleet.activatorLabels" -}}
{{- include "mcpfleet.labels" . | replace "component: operator" "component: activator" }}
{{- end }}

{{/* What the activator reads in the namespaces that are looked after. */}}
{{- define "mcpfleet.activatorRules" -}}
# Who may sleep, and what Ready says of them.
- apiGroups: [mcpfleet.dev]
  resources: [mcpservers]
  verbs: [list, watch]
# Where a server's pods are, once it is awake.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
# What is said for a server that sleeps. By its name alone: it may list none.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get]
{{- end }}

{{/* repository:tag, or repository@digest. Takes a dict of the image and the root. */}}
{{- define "mcpfleet.image" -}}
{{- if .image.digest }}
{{- printf "%s@%s" .image.repository .image.digest }}
{{- else }}
{{- printf "%s:%s" .image.repository (default .root.Chart.AppVersion .image.tag) }}
{{- end }}
{{- end }}

{{/* The rules for what the operator does in the namespaces it looks after: each verb has a caller in operator/src. */}}
{{- define "mcpfleet.rules" -}}
- apiGroups: [mcpfleet.dev]
  resources: [mcpservers, mcpapps]
  verbs: [get, list, watch]
- apiGroups: [mcpfleet.dev]
  resources: [mcpservers/status, mcpapps/status]
  verbs: [patch]
# Children hold up a deletion of their owner in the foreground. OpenShift asks for this right to say so; nothing is written there.
- apiGroups: [mcpfleet.dev]
  resources: [mcpservers/finalizers, mcpapps/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [services, persistentvolumeclaims]
  verbs: [get, list, watch, create, patch]
# delete: what a CR no longer wants. The accepted tools, when spec.tools.policy becomes Ignore; the access token that was generated,
# when an McpApp names a Secret of its own instead.
- apiGroups: [""]
  resources: [configmaps, secrets]
  verbs: [get, list, watch, create, patch, delete]
# delete: with fewer than two replicas there is nothing to keep apart.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# delete: with servers.network.default Open, those that say nothing of their network have no policy.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# delete: without storage.backup there is none.
- apiGroups: [batch]
  resources: [cronjobs]
  verbs: [get, list, watch, create, patch, delete]
# How backups ended.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [list, watch]
# A server that sleeps is led to the activator. OpenShift asks for the right to name addresses of pods, too.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices/restricted]
  verbs: [create]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# What keeps a pod from running, where its status does not say: a volume that cannot be mounted.
- apiGroups: [""]
  resources: [events]
  verbs: [list, watch]
# The readiness gate mcpfleet.dev/healthy.
- apiGroups: [""]
  resources: [pods/status]
  verbs: [patch]
# health.restartAfterSeconds, past which a pod that stays Failed is evicted, as PodDisruptionBudgets allow.
- apiGroups: [""]
  resources: [pods/eviction]
  verbs: [create]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{- define "mcpfleet.subject" -}}
- kind: ServiceAccount
  name: {{ include "mcpfleet.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{/* What the schema cannot say. Each refusal says what to change. */}}
{{- define "mcpfleet.validate" -}}
{{- $ours := list "WATCH_NAMESPACES" "LISTEN" "CHAT_WORKER_IMAGE" "BRIDGE_IMAGE" "NPX_IMAGE" "UVX_IMAGE" "AUTHENTICATE" "REMOTE_ALLOW" "REMOTE_DENY" "REMOTE_TOOL_CALLS" "SERVERS_NETWORK" "POD_LABELS" "INHERIT_LABELS" "INHERIT_ANNOTATIONS" "ACTIVATOR_SERVICE" "ACTIVATOR_WANTED" "LEASE_NAME" "DIGEST_KEY_SECRET" "POD_NAMESPACE" "POD_NAME" "MAX_PROBES_IN_FLIGHT" "SCALE_DOWN_SECONDS" "CONCURRENCY" "LOG_LEVEL" "LOG_FORMAT" }}
{{- range .Values.extraEnv }}
{{- if has .name $ours }}
{{- fail (printf "extraEnv must not set %s, which the chart sets itself: use the chart's own values (watchNamespaces, chatWorker.image, bridge.image, stdio.images, remote, servers, inherit, log and so on) instead" .name) }}
{{- end }}
{{- end }}
{{- if .Values.rbac.create }}
{{- $bindings := list }}
{{- range .Values.watchNamespaces }}
{{- $bindings = concat $bindings ((lookup "rbac.authorization.k8s.io/v1" "RoleBinding" . "").items | default list) }}
{{- end }}
{{- if not .Values.watchNamespaces }}
{{- $bindings = (lookup "rbac.authorization.k8s.io/v1" "RoleBinding" "" "").items | default list }}
{{- end }}
{{- /* Who looks after some namespaces alone may not be able to read what is the cluster's. */}}
{{- if or (not .Values.watchNamespaces) .Values.crds.install .Values.rbac.aggregate }}
{{- $bindings = concat $bindings ((lookup "rbac.authorization.k8s.io/v1" "ClusterRoleBinding" "" "").items | default list) }}
{{- end }}
{{- range $bindings }}
{{- $labels := .metadata.labels | default dict }}
{{- $theirs := printf "%s/%s" (index $labels "app.kubernetes.io/instance") (index $labels "mcpfleet.dev/release-namespace") }}
{{- if and (hasKey $labels "mcpfleet.dev/release-namespace") (ne $theirs (printf "%s/%s" $.Release.Name $.Release.Namespace)) }}
{{- $which := ternary (printf "the namespace %s" .metadata.namespace) "every namespace" (hasKey .metadata "namespace") }}
{{- fail (printf "the release %s in %s looks after %s already, and two operators over one namespace undo each other's work: set watchNamespaces here and there, without a namespace in common, or uninstall one of the two" (index $labels "app.kubernetes.io/instance") (index $labels "mcpfleet.dev/release-namespace") $which) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $key := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" }}
{{- if or (hasKey $.Values.podLabels $key) (hasKey $.Values.commonLabels $key) }}
{{- fail (printf "podLabels and commonLabels must not set %s, by which the Deployment finds its pods: remove it" $key) }}
{{- end }}
{{- end }}
{{- end }}
