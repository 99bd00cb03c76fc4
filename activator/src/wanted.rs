//! Tells the operator which servers are wanted: in one ConfigMap beside it, `NAMESPACE.NAME: TIME`.
//!
//! It is the only thing that the activator may write, so that whoever takes it over can wake servers, and nothing else. What is written
//! there outlives operators and their leads: the next one reads it.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::{Timestamp, Unit};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::sleepers::Key;

/// How long one request to the API server may take: its client has no limit of its own.
const CALL: Duration = Duration::from_secs(5);

/// How long to wait before a request that failed is made again.
const AGAIN: Duration = Duration::from_secs(1);

/// See the file. Cheap to clone.
#[derive(Clone)]
pub struct Wanted {
    api: Api<ConfigMap>,
    name: String,
}

impl Wanted {
    /// The ConfigMap `name` in `namespace`.
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.to_owned() }
    }

    /// Says that the server is wanted now, and does not rest before it is said.
    pub async fn say(&self, key: &Key) {
        // Whole seconds will do, as everywhere in Kubernetes.
        let now = Timestamp::now();
        let now = now.round(Unit::Second).unwrap_or(now).to_string();
        while let Err(error) = self.patch(key, now.clone().into()).await {
            tracing::warn!(server = %key, error, "the operator could not be told that a server is wanted");
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Takes back what was said: the server is awake. What is not taken back is void after two minutes (`operator/src/asleep/mod.rs`).
    pub async fn take_back(&self, key: &Key) {
        if let Err(error) = self.patch(key, Value::Null).await {
            tracing::debug!(server = %key, error, "what is void already was not taken back");
        }
    }

    async fn patch(&self, key: &Key, value: Value) -> Result<(), String> {
        // A namespace has no dot in its name.
        let entry = format!("{}.{}", key.namespace, key.name);
        let patch = Patch::Merge(json!({"data": {entry: value}}));
        let params = PatchParams::default();
        match tokio::time::timeout(CALL, self.api.patch(&self.name, &params, &patch)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the API server did not answer in time".into()),
        }
    }
}
