//! Step 1: read what the spec points at. I/O in, nothing decided.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;

use super::contract;
use crate::{
    children::Children,
    crd::{McpServer, McpServerSpec, pod::SecretKeyRef},
    inputs::{self, Found, Reader, Reference},
    names::Component,
    probe::{AcceptedTools, HealthEngine, ServerKey, ToolsList},
};

/// What was found behind the spec's pointers.
#[derive(Default)]
pub struct Observed {
    /// The Secrets and ConfigMaps.
    pub inputs: Found,
    /// The headers of a remote server: name and value, None where the Secret or the key is missing.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The private CA of a remote server.
    pub ca: Option<Vec<u8>>,
    /// The list of tools that was accepted last.
    pub accepted: Option<AcceptedTools>,
    /// The list of tools that the server offers, as the prober knows it.
    pub offered: Option<Arc<ToolsList>>,
}

/// Every pointer that the spec holds.
pub fn references(spec: &McpServerSpec) -> BTreeSet<Reference> {
    let mut references = inputs::of_pods(&spec.pod);
    references.extend(credentials(spec).map(Reference::secret));
    references
}

/// Every pointer to something that probes carry.
pub fn credentials(spec: &McpServerSpec) -> impl Iterator<Item = &SecretKeyRef> {
    let headers = spec.remote.iter().flat_map(|remote| &remote.headers_from).map(|header| &header.secret_key_ref);
    headers.chain(spec.remote.iter().filter_map(|remote| remote.ca_secret_ref.as_ref()))
}

/// The list of tools that was accepted last.
pub fn accepted(server: &McpServer, children: &Children) -> Option<AcceptedTools> {
    let (namespace, name) = (server.namespace().unwrap_or_default(), Component::tools_name(&server.name_any()));
    contract::read(&children.read::<ConfigMap>(&namespace, &name)?)
}

/// Reads it all. Of a server that is switched off nothing that it would need to run: it must always come to rest.
pub async fn observe(
    server: &McpServer,
    reader: &Reader,
    children: &Children,
    engine: &HealthEngine,
) -> Result<Observed, inputs::Error> {
    let (namespace, name) = (server.namespace().unwrap_or_default(), server.name_any());
    let mut observed = Observed {
        accepted: accepted(server, children),
        offered: engine.snapshot(&ServerKey::new(&namespace, &name)).and_then(|health| health.acceptable),
        ..Observed::default()
    };
    if !server.spec.enabled {
        return Ok(observed);
    }
    observed.inputs = reader.look(&namespace, &references(&server.spec)).await?;
    if let Some(remote) = &server.spec.remote {
        for header in &remote.headers_from {
            let value = reader.value(&namespace, &header.secret_key_ref).await?;
            observed.headers.push((header.name.clone(), value));
        }
        if let Some(reference) = &remote.ca_secret_ref {
            observed.ca = reader.value(&namespace, reference).await?;
        }
    }
    Ok(observed)
}
