//! Step 1: read what the spec points at: the servers, the model's key, the token. I/O in, nothing decided.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use crate::{
    cache::Cache,
    crd::{McpApp, McpServer, mcp_app::McpAppSpec},
    inputs::{self, Found, Reader, Reference},
    names::Component,
};

/// The key of the token in the Secret that the operator makes.
pub const TOKEN_KEY: &str = "token";

/// What was found behind the spec's pointers.
#[derive(Default)]
pub struct Observed {
    /// Every McpServer of the namespace.
    pub servers: Vec<Arc<McpServer>>,
    /// The Secrets and ConfigMaps.
    pub inputs: Found,
    /// The token that we made earlier, if we did.
    pub token: Option<String>,
}

/// The pointers that are read when a pod starts: a change rolls the pods.
pub fn start_references(spec: &McpAppSpec) -> BTreeSet<Reference> {
    inputs::of_pods(&spec.pod)
}

/// All pointers. The model's key and the access token are files that the worker reads anew, so their change rolls nothing.
pub fn references(spec: &McpAppSpec) -> BTreeSet<Reference> {
    let mut references = start_references(spec);
    let key = spec.model.iter().filter_map(|model| model.api_key_secret_ref.as_ref());
    let token = spec.access.iter().filter_map(|access| access.token_secret_ref.as_ref());
    references.extend(key.chain(token).map(Reference::secret));
    references
}

/// Reads it all.
pub async fn observe(
    app: &McpApp,
    reader: &Reader,
    servers: &Cache<McpServer>,
    secrets: &Cache<Secret>,
) -> Result<Observed, inputs::Error> {
    let namespace = app.namespace().unwrap_or_default();
    let mut in_namespace: Vec<_> = servers
        .all()
        .into_iter()
        .filter(|server| server.namespace().as_deref() == Some(&namespace))
        // In front of the store is what we wrote last: the circuit that opened a moment ago.
        .map(|server| servers.get(&namespace, &server.name_any()).unwrap_or(server))
        .collect();
    in_namespace.sort_by_key(|server| server.name_any());
    Ok(Observed {
        servers: in_namespace,
        inputs: reader.look(&namespace, &references(&app.spec)).await?,
        token: secrets
            .get(&namespace, &Component::App.child_name(&app.name_any()))
            .and_then(|secret| secret.data.as_ref()?.get(TOKEN_KEY).cloned())
            .and_then(|token| String::from_utf8(token.0).ok())
            .filter(|token| !token.is_empty()),
    })
}
