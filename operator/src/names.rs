//! Every string that other objects, people and programs know us by: labels, annotations, the field manager, suffixes, the gate.
//! Reasons and condition types are in `crd::reason`.

use std::collections::BTreeMap;

/// The API group.
pub const GROUP: &str = "mcpfleet.dev";
/// Who we are in `managedFields`: one field manager for all that the operator applies.
pub const FIELD_MANAGER: &str = "mcpfleet";
/// The controller's name in Events.
pub const CONTROLLER: &str = "mcpfleet-operator";
/// The pod condition that is a readiness gate of every pod of a server.
pub const POD_GATE: &str = "mcpfleet.dev/healthy";

/// Hash of the desired object, kept on every child: differs when we want something else than what we applied last.
pub const ANNOTATION_APPLIED: &str = "mcpfleet.dev/applied";
/// Hash of the Secrets and ConfigMaps that a pod template refers to: a change rolls the pods.
pub const ANNOTATION_INPUTS: &str = "mcpfleet.dev/inputs";
/// On a pod and its template: at which port and path it is probed, and with which call, as JSON.
pub const ANNOTATION_PROBE: &str = "mcpfleet.dev/probe";
/// On a pod and its template: the digest that its tools must have, where `spec.tools` pins one under Enforce.
pub const ANNOTATION_CONTRACT: &str = "mcpfleet.dev/contract";
/// On a pod, Kubernetes' own: of two pods the one that costs less goes first.
pub const ANNOTATION_DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// On a pod of an app: the version of what it mounts. The kubelet looks at a pod that is changed.
pub const ANNOTATION_CONFIGURATION: &str = "mcpfleet.dev/configuration";
/// On a CR: any new value probes at once.
pub const ANNOTATION_RECHECK: &str = "mcpfleet.dev/recheck";
/// On a CR: `"true"` leaves the object and its children alone.
pub const ANNOTATION_PAUSED: &str = "mcpfleet.dev/paused";

/// Label: which CR of which kind a child belongs to (the kind is in `app.kubernetes.io/component`).
pub const LABEL_INSTANCE: &str = "app.kubernetes.io/instance";
/// Label: what the child is part of.
pub const LABEL_NAME: &str = "app.kubernetes.io/name";
/// Label: `mcp-server` or `mcp-app`.
pub const LABEL_COMPONENT: &str = "app.kubernetes.io/component";
/// Label: what a program of ours is part of; its value is that of [`MANAGED_BY`].
pub const LABEL_PART_OF: &str = "app.kubernetes.io/part-of";
/// Label: that we made it.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Label of Kubernetes' own: which template of its Deployment a pod was made from.
pub const LABEL_TEMPLATE_HASH: &str = "pod-template-hash";
/// Label of Kubernetes' own: the name of a namespace.
pub const LABEL_NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// Label of Kubernetes' own: the Service that an EndpointSlice is of.
pub const LABEL_SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label of Kubernetes' own: who keeps an EndpointSlice. Of ours the value is [`GROUP`].
pub const LABEL_SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Label of an EndpointSlice of ours that leads to pods of the server, and not to the activator: for the activator alone (it reads it in
/// `activator/src/pods.rs`). Its value is [`LEADS_TO_PODS`].
pub const LABEL_LEADS_TO: &str = "mcpfleet.dev/leads-to";
/// Value of [`LABEL_LEADS_TO`].
pub const LEADS_TO_PODS: &str = "pods";
/// Label of the Service of a server that may sleep, `"true"`. Kubernetes copies a Service's labels to the EndpointSlices that it keeps for
/// it: these are watched, and those of other servers are not.
pub const LABEL_SLEEPS: &str = "mcpfleet.dev/sleeps";
/// Value of the component label of the activator's pods, beside the operator: it carries the first calls to servers that sleep.
pub const COMPONENT_ACTIVATOR: &str = "activator";
/// Value of the component label of the pods that back up a server's data.
pub const COMPONENT_BACKUP: &str = "mcp-backup";
/// What the name of the CronJob ends with that backs up a server's data.
pub const BACKUP_SUFFIX: &str = "-mcp-backup";
/// Value of `app.kubernetes.io/managed-by`.
pub const MANAGED_BY: &str = "mcpfleet";
/// Selects everything that we made.
pub const MANAGED_SELECTOR: &str = "app.kubernetes.io/managed-by=mcpfleet";

/// The labels that say whose a child is. A child may carry others, too.
pub const IDENTITY: [&str; 4] = [LABEL_INSTANCE, LABEL_NAME, LABEL_COMPONENT, LABEL_MANAGED_BY];

/// What a child is a child of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// Of an McpServer.
    Server,
    /// Of an McpApp.
    App,
}

impl Component {
    /// The value of the component label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "mcp-server",
            Self::App => "mcp-app",
        }
    }

    /// The component whose CRs are of this kind.
    pub fn of_kind(kind: &str) -> Option<Self> {
        [Self::Server, Self::App].into_iter().find(|component| component.kind() == kind)
    }

    /// The component of this label.
    pub fn of_label(label: &str) -> Option<Self> {
        [Self::Server, Self::App].into_iter().find(|component| component.as_str() == label)
    }

    /// The kind of the CR.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Server => "McpServer",
            Self::App => "McpApp",
        }
    }

    /// The name of the children of the CR called `name`, one of a kind; a second one of a kind has a name of its own (`tools_name` and its like).
    pub fn child_name(self, name: &str) -> String {
        format!("{name}-{}", self.suffix())
    }

    /// Whose pod has this name: that of a ReplicaSet of the Deployment, or of a job of the CronJob, and what Kubernetes or a person adds to
    /// both. None: nobody's of ours.
    pub fn of_pod(pod: &str) -> Option<(Self, &str)> {
        Self::of_replica(pod).or_else(|| {
            let (name, job) = pod.split_once(BACKUP_SUFFIX)?;
            job.starts_with('-').then_some((Self::Server, name))
        })
    }

    fn of_replica(pod: &str) -> Option<(Self, &str)> {
        let (replica_set, _) = pod.rsplit_once('-')?;
        let (deployment, _) = replica_set.rsplit_once('-')?;
        let (name, suffix) = deployment.rsplit_once('-')?;
        let component = [Self::Server, Self::App].into_iter().find(|component| component.suffix() == suffix)?;
        Some((component, name))
    }

    const fn suffix(self) -> &'static str {
        match self {
            Self::Server => "mcp",
            Self::App => "app",
        }
    }

    /// The name of the ConfigMap that keeps the accepted tools of the McpServer called `name`.
    pub fn tools_name(name: &str) -> String {
        format!("{}-tools", Self::Server.child_name(name))
    }

    /// The name of the Secret with the keys that seal session ids of the McpServer called `name`.
    pub fn sessions_name(name: &str) -> String {
        format!("{}-sessions", Self::Server.child_name(name))
    }

    /// The name of the ConfigMap with what is said for the McpServer called `name` while it sleeps; the EndpointSlices that lead to the
    /// activator meanwhile have the family of their addresses behind it.
    pub fn asleep_name(name: &str) -> String {
        format!("{}-asleep", Self::Server.child_name(name))
    }

    /// What the names of the EndpointSlices begin with that tell the activator which pods of the McpServer called `name` answer, while it
    /// wakes.
    pub fn awake_name(name: &str) -> String {
        format!("{}-awake", Self::Server.child_name(name))
    }

    /// The name of the claim that keeps the installed packages of the McpServer called `name`.
    pub fn cache_name(name: &str) -> String {
        format!("{}-cache", Self::Server.child_name(name))
    }

    /// The labels that select the pods of the CR called `name`. They never change: a Deployment's selector is immutable.
    pub fn selector(self, name: &str) -> BTreeMap<String, String> {
        BTreeMap::from([
            (LABEL_INSTANCE.into(), name.into()),
            (LABEL_COMPONENT.into(), self.as_str().into()),
            (LABEL_MANAGED_BY.into(), MANAGED_BY.into()),
        ])
    }

    /// The labels that select the pods of every CR of the kind.
    pub fn all(self) -> BTreeMap<String, String> {
        BTreeMap::from([(LABEL_COMPONENT.into(), self.as_str().into()), (LABEL_MANAGED_BY.into(), MANAGED_BY.into())])
    }

    /// The same as a selector is written, for whoever reads `status.selector`.
    pub fn selector_text(self, name: &str) -> String {
        self.selector(name).iter().map(|(label, value)| format!("{label}={value}")).collect::<Vec<_>>().join(",")
    }

    /// All labels of a child of the CR called `name`.
    pub fn labels(self, name: &str) -> BTreeMap<String, String> {
        let mut labels = self.selector(name);
        labels.insert(LABEL_NAME.into(), self.as_str().into());
        labels
    }
}
