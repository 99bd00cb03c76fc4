//! `operator release`: takes the readiness gates off the servers' pods, so that they come into service without an operator.
//!
//! The gate is opened by an operator alone. That is the point of it while one runs; where none will, a pod that is made would wait for
//! ever. A template without the gate is another template, so the pods roll: one after the other, or all at once where there is one
//! writer.

use std::time::Duration;

use k8s_openapi::api::{apps::v1::Deployment, discovery::v1::EndpointSlice};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::{
    config::ReleaseConfig,
    names::{
        Component, FIELD_MANAGER, GROUP, LABEL_COMPONENT, LABEL_SERVICE_NAME, LABEL_SLICE_MANAGED_BY, MANAGED_SELECTOR, POD_GATE,
    },
};

/// How often it is looked whether the operator has stopped.
const LOOK: Duration = Duration::from_secs(1);

/// What did not go.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operator could not be stopped.
    #[error("failed to stop the operator, the Deployment {0}")]
    Stop(String, #[source] kube::Error),
    /// It did not stop in time.
    #[error("the operator, the Deployment {0}, still has pods; while it runs it would put the gates back")]
    Runs(String),
    /// The servers' Deployments could not be listed.
    #[error("failed to list the Deployments of {0}")]
    List(String, #[source] kube::Error),
    /// A Deployment could not be changed.
    #[error("failed to take the gate off the Deployment {0}")]
    Patch(String, #[source] kube::Error),
    /// A server could not be woken.
    #[error("failed to wake what sleeps, the Deployment {0}")]
    Wake(String, #[source] kube::Error),
}

/// Stops the operator if asked to, and takes the gate off every server's pods. Gives how many servers it changed.
pub async fn release(config: &ReleaseConfig, client: &Client) -> Result<usize, Error> {
    if let Some(operator) = &config.stop {
        stop(client, &config.namespace, operator, Duration::from_secs(config.patience_seconds.into())).await?;
    }
    let mut changed = 0;
    for scope in config.scopes() {
        let (api, of): (Api<Deployment>, _) = match &scope {
            Some(namespace) => (Api::namespaced(client.clone(), namespace), namespace.as_str()),
            None => (Api::all(client.clone()), "all namespaces"),
        };
        let servers =
            ListParams::default().labels(&format!("{MANAGED_SELECTOR},{LABEL_COMPONENT}={}", Component::Server.as_str()));
        let found = api.list(&servers).await.map_err(|error| Error::List(of.to_owned(), error))?;
        for deployment in found.into_iter().filter(has_gate) {
            open(client, &deployment).await?;
            changed += 1;
        }
        wake(client, scope.as_deref()).await?;
    }
    Ok(changed)
}

/// Servers that sleep get a pod, for nobody will wake them any more, and their Services lead to the activator no longer.
async fn wake(client: &Client, scope: Option<&str>) -> Result<(), Error> {
    let slices: Api<EndpointSlice> =
        scope.map_or_else(|| Api::all(client.clone()), |namespace| Api::namespaced(client.clone(), namespace));
    let ours = ListParams::default().labels(&format!("{MANAGED_SELECTOR},{LABEL_SLICE_MANAGED_BY}={GROUP}"));
    let found = slices.list(&ours).await.map_err(|error| Error::List(scope.unwrap_or("all namespaces").to_owned(), error))?;
    for slice in found {
        let (namespace, name) = (slice.namespace().unwrap_or_default(), slice.name_any());
        let Some(deployment) = slice.labels().get(LABEL_SERVICE_NAME) else { continue };
        let failed = |error| Error::Wake(format!("{namespace}/{deployment}"), error);
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
        let awake = Patch::Merge(json!({"spec": {"replicas": 1}}));
        deployments.patch(deployment, &PatchParams::default(), &awake).await.map_err(failed)?;
        let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), &namespace);
        slices.delete(&name, &DeleteParams::default()).await.map_err(failed)?;
        tracing::info!(deployment.namespace = namespace, deployment.name = deployment, "it sleeps no longer");
    }
    Ok(())
}

/// The operator puts back what it finds changed.
async fn stop(client: &Client, namespace: &str, name: &str, patience: Duration) -> Result<(), Error> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let failed = |error| Error::Stop(name.to_owned(), error);
    let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
    api.patch(name, &PatchParams::default(), &none).await.map_err(failed)?;
    let stopped = async {
        loop {
            let status = api.get(name).await.map_err(failed)?.status.unwrap_or_default();
            if status.replicas.unwrap_or(0) == 0 && status.terminating_replicas.unwrap_or(0) == 0 {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(patience, stopped).await.unwrap_or_else(|_| Err(Error::Runs(name.to_owned())))
}

async fn open(client: &Client, deployment: &Deployment) -> Result<(), Error> {
    let (namespace, name) = (deployment.namespace().unwrap_or_default(), deployment.name_any());
    let api: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    let params = PatchParams { field_manager: Some(format!("{FIELD_MANAGER}-release")), ..PatchParams::default() };
    let patched = api.patch(&name, &params, &Patch::Merge(without_gate(deployment))).await;
    patched.map_err(|error| Error::Patch(format!("{namespace}/{name}"), error))?;
    tracing::info!(
        deployment.namespace = namespace,
        deployment.name = name,
        "its pods come into service without an operator now"
    );
    Ok(())
}

fn has_gate(deployment: &Deployment) -> bool {
    gates(deployment).any(|gate| gate == POD_GATE)
}

fn gates(deployment: &Deployment) -> impl Iterator<Item = &str> {
    let template = deployment.spec.iter().filter_map(|spec| spec.template.spec.as_ref());
    template.flat_map(|pod| pod.readiness_gates.iter().flatten()).map(|gate| gate.condition_type.as_str())
}

/// Gates of others stay.
fn without_gate(deployment: &Deployment) -> serde_json::Value {
    let others: Vec<_> = gates(deployment).filter(|gate| *gate != POD_GATE).map(|gate| json!({"conditionType": gate})).collect();
    json!({"spec": {"template": {"spec": {"readinessGates": others}}}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_gate_is_taken_off_and_those_of_others_stay() {
        let with = |gates: &[&str]| -> Deployment {
            let gates: Vec<_> = gates.iter().map(|gate| json!({"conditionType": gate})).collect();
            let template = json!({"spec": {"containers": [], "readinessGates": gates}});
            serde_json::from_value(json!({"metadata": {}, "spec": {"selector": {}, "template": template}})).expect("a Deployment")
        };
        let deployment = with(&["example.com/registered", POD_GATE]);
        assert!(has_gate(&deployment) && !has_gate(&with(&["example.com/registered"])) && !has_gate(&with(&[])));
        let patch = without_gate(&deployment);
        assert_eq!(patch["spec"]["template"]["spec"]["readinessGates"], json!([{"conditionType": "example.com/registered"}]));
    }
}
