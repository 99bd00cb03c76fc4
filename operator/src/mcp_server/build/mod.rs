//! Step 3: every child as a whole, from a validated server. Pure, and cannot fail.

mod accepted_tools;
mod deployment;
mod service;
mod volume_claim;

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, PersistentVolumeClaim, Service},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::validate::{Source, ValidatedServer};

/// Everything that a server consists of. Of a remote server we keep only the accepted tools.
#[derive(Clone, Debug, Default)]
pub struct Children {
    /// The volume. It has no owner: it outlives the server.
    pub volume_claim: Option<PersistentVolumeClaim>,
    /// The address.
    pub service: Option<Service>,
    /// The pods.
    pub deployment: Option<Deployment>,
    /// The accepted tools, once they are known.
    pub accepted_tools: Option<ConfigMap>,
}

/// All children of the server.
pub fn build(server: &ValidatedServer) -> Children {
    let mut children = Children { accepted_tools: accepted_tools::build(server), ..Children::default() };
    if let Source::Container(container) = &server.source {
        children.volume_claim = container.volume.as_ref().map(|volume| volume_claim::build(server, volume));
        children.service = Some(service::build(server, container));
        children.deployment = Some(deployment::build(server, container));
    }
    children
}

/// The metadata of every child that goes with the server.
fn metadata(server: &ValidatedServer) -> ObjectMeta {
    ObjectMeta {
        name: Some(server.child_name()),
        namespace: Some(server.namespace.clone()),
        labels: Some(server.labels()),
        owner_references: Some(vec![server.owner.clone()]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        crd::McpServer,
        fixtures,
        mcp_server::{observe::Observed, validate::validate},
    };

    /// Through the real validation, so that a fixture cannot be what a cluster could not hold.
    fn children(server: &McpServer) -> super::Children {
        super::build(&validate(server, &Observed::default()).expect("valid"))
    }

    #[test]
    fn a_server_with_a_volume() {
        let server = fixtures::server(|server| {
            server.spec.storage =
                Some(serde_json::from_value(serde_json::json!({"size": "1Gi", "mountPath": "/data"})).expect("storage"));
        });
        let children = children(&server);
        insta::assert_yaml_snapshot!("volume_claim", children.volume_claim);
        insta::assert_yaml_snapshot!("deployment_with_volume", children.deployment);
        insta::assert_yaml_snapshot!("service", children.service);
    }

    #[test]
    fn a_server_without_a_volume_rolls_without_a_gap() {
        let deployment = children(&fixtures::server(|server| server.spec.replicas = 3)).deployment.expect("a Deployment");
        let rolling = deployment.spec.and_then(|spec| spec.strategy).and_then(|strategy| strategy.rolling_update);
        insta::assert_yaml_snapshot!(rolling, @"
        maxSurge: 1
        maxUnavailable: 0
        ");
    }

    #[test]
    fn a_remote_server_has_no_children() {
        let children = children(&fixtures::remote(|_| {}));
        assert!(children.deployment.is_none() && children.service.is_none() && children.volume_claim.is_none());
    }
}
