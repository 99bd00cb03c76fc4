//! `operator release`, which goes before an uninstall: from then on servers do without an operator.

use k8s_openapi::api::{apps::v1::Deployment, discovery::v1::EndpointSlice};
use kube::api::{ListParams, Patch, PatchParams};
use mcpfleet_tests::cluster::{Space, with_space};
use operator::{
    config::ReleaseConfig,
    crd::McpServer,
    names::POD_GATE,
    release::{Error, release},
};
use serde_json::json;

use crate::asleep::{replicas, with_sleeper};

/// The operator's own Deployment, as the chart has it.
const OPERATOR: &str = "operator";

fn config(space: &Space, patience_seconds: u16) -> ReleaseConfig {
    ReleaseConfig {
        watch_namespaces: vec![space.name.clone()],
        stop: Some(OPERATOR.into()),
        namespace: space.name.clone(),
        patience_seconds,
    }
}

/// What Kubernetes' controller of Deployments says of the operator's.
async fn operators(space: &Space, replicas: u32) -> anyhow::Result<()> {
    let status = json!({"status": {"replicas": replicas}});
    space.api::<Deployment>().patch_status(OPERATOR, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

fn has_gate(deployment: &Deployment) -> bool {
    json!(deployment.spec)["template"]["spec"]["readinessGates"].to_string().contains(POD_GATE)
}

#[tokio::test]
async fn the_operator_is_stopped_then_gates_are_taken_off_and_who_sleeps_is_woken() {
    with_space(|space| async move {
        let operator = with_sleeper(&space).await?;
        space.create::<McpServer>(json!({"metadata": {"name": "a"}, "spec": {"container": {"image": "a/b:1"}}})).await?;
        for name in ["a-mcp", "s-mcp"] {
            space.until::<Deployment>(name, "a gate", has_gate).await?;
        }
        space.until::<EndpointSlice>("s-mcp-asleep-ipv4", "the activator", |_| true).await?;
        let labels = json!({"app": OPERATOR});
        let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "operator", "image": "a/b:1"}]}});
        space
            .create::<Deployment>(json!({"metadata": {"name": OPERATOR}, "spec": {
                "replicas": 2, "selector": {"matchLabels": labels}, "template": template,
            }}))
            .await?;
        operators(&space, 2).await?;

        // One that goes on would put back what is taken off: nothing is.
        let refused = release(&config(&space, 1), &space.client).await;
        assert!(matches!(&refused, Err(Error::Runs(name)) if name == OPERATOR), "{refused:?}");
        for name in ["a-mcp", "s-mcp"] {
            assert!(has_gate(&space.api::<Deployment>().get(name).await?), "{name}");
        }

        let releasing = tokio::spawn({
            let (config, client) = (config(&space, 60), space.client.clone());
            async move { release(&config, &client).await }
        });
        space.until::<Deployment>(OPERATOR, "no operator wanted", |deployment| replicas(deployment) == Some(0)).await?;
        operator.stop().await?;
        operators(&space, 1).await?;
        assert!(!releasing.is_finished(), "one still runs");
        operators(&space, 0).await?;
        assert_eq!(releasing.await??, 2);

        for (name, wanted) in [("a-mcp", 1), ("s-mcp", 1)] {
            let deployment = space.api::<Deployment>().get(name).await?;
            assert!(!has_gate(&deployment), "{name}");
            assert_eq!(replicas(&deployment), Some(wanted), "{name}");
        }
        let ours = ListParams::default().labels("endpointslice.kubernetes.io/managed-by=mcpfleet.dev");
        assert_eq!(space.api::<EndpointSlice>().list(&ours).await?.items, []);
        // Once more, there is nothing to do.
        assert_eq!(release(&config(&space, 60), &space.client).await?, 0);
        Ok(())
    })
    .await;
}
