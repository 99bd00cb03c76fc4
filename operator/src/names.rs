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
/// Label: that we made it.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of `app.kubernetes.io/managed-by`.
pub const MANAGED_BY: &str = "mcpfleet";
/// Selects everything that we made.
pub const MANAGED_SELECTOR: &str = "app.kubernetes.io/managed-by=mcpfleet";

/// What a child is a child of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

    /// The name of every child of the CR called `name`.
    pub fn child_name(self, name: &str) -> String {
        match self {
            Self::Server => format!("{name}-mcp"),
            Self::App => format!("{name}-app"),
        }
    }

    /// The name of the ConfigMap that keeps the accepted tools of the McpServer called `name`.
    pub fn tools_name(name: &str) -> String {
        format!("{}-tools", Self::Server.child_name(name))
    }

    /// The labels that select the pods of the CR called `name`. They never change: a Deployment's selector is immutable.
    pub fn selector(self, name: &str) -> BTreeMap<String, String> {
        BTreeMap::from([
            (LABEL_INSTANCE.into(), name.into()),
            (LABEL_COMPONENT.into(), self.as_str().into()),
            (LABEL_MANAGED_BY.into(), MANAGED_BY.into()),
        ])
    }

    /// The same as one string, for the scale subresource.
    pub fn selector_text(self, name: &str) -> String {
        let pairs: Vec<_> = self.selector(name).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(",")
    }

    /// All labels of a child of the CR called `name`.
    pub fn labels(self, name: &str) -> BTreeMap<String, String> {
        let mut labels = self.selector(name);
        labels.insert(LABEL_NAME.into(), self.as_str().into());
        labels
    }
}
