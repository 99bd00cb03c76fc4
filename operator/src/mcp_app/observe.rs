//! Step 1: read what the spec points at: the servers, the model's key, the token. I/O in, nothing decided.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::World;
use crate::{
    children::Children,
    crd::{McpApp, McpServer, mcp_app::McpAppSpec},
    inputs::{self, Found, Reader, Reference},
    names::Component,
};

/// The key of the token in the Secret that the operator makes.
pub const TOKEN_KEY: &str = "token";

/// What was found behind the spec's pointers.
#[derive(Default)]
pub struct Observed {
    /// Every McpServer of the namespace, by name.
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
    references.extend(files(spec));
    references
}

/// Pointers to what must not be empty: with an empty key every question fails, and an empty token would let everybody in.
pub fn never_blank(spec: &McpAppSpec) -> BTreeSet<Reference> {
    files(spec).collect()
}

/// The pointer to the access token, where that is not ours.
pub fn token(spec: &McpAppSpec) -> BTreeSet<Reference> {
    spec.access.iter().filter_map(|access| access.token_secret_ref.as_ref()).map(Reference::secret).collect()
}

/// The model's key and the access token.
fn files(spec: &McpAppSpec) -> impl Iterator<Item = Reference> {
    let key = spec.model.iter().filter_map(|model| model.api_key_secret_ref.as_ref());
    key.map(Reference::secret).chain(token(spec))
}

/// Reads it all.
pub async fn observe(app: &McpApp, reader: &Reader, children: &Children, world: &World) -> Result<Observed, inputs::Error> {
    let namespace = app.namespace().unwrap_or_default();
    let token: Option<Secret> = children.read(&namespace, &Component::App.child_name(&app.name_any()));
    Ok(Observed {
        // In front of the store is what we wrote last: the circuit that opened a moment ago.
        servers: world.servers.of(&namespace),
        inputs: reader.look(&namespace, &references(&app.spec)).await?,
        token: token
            .and_then(|secret| secret.data?.remove(TOKEN_KEY))
            .and_then(|token| String::from_utf8(token.0).ok())
            .filter(|token| !token.is_empty()),
    })
}
