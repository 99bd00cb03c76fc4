//! Step 1: read what the spec points at. I/O in, nothing decided.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::{
    Resource as _,
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Secret, Service, ServiceSpec},
        discovery::v1::EndpointSlice,
    },
};
use kube::ResourceExt;
use rand::Rng;

use super::{
    World, asleep, contract,
    own_claims::{self, AccessModes},
    stdio,
};
use crate::{
    asleep::Endpoints,
    autoscale::Decision,
    child::Key,
    children::Children,
    crd::{McpServer, McpServerSpec, pod::SecretKeyRef},
    inputs::{self, Found, Reader, Reference},
    names::Component,
    probe::{AcceptedTools, HealthEngine, Kept, ServerHealth, ServerKey, ToolsList},
    ssa::Writer,
};

/// What was found behind the spec's pointers.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own that was found")]
pub struct Observed {
    /// The Secrets and ConfigMaps.
    pub inputs: Found,
    /// The headers that probes carry: name and value, None where the Secret or the key is missing.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The private CA of a remote server.
    pub ca: Option<Vec<u8>>,
    /// The list of tools that was accepted last.
    pub accepted: Option<AcceptedTools>,
    /// Its Service as it is now.
    pub served: ServiceSpec,
    /// It is to have no pods, and one is still on its way out.
    pub empties: bool,
    /// The list of tools that the server offers, as the prober knows it.
    pub offered: Option<Arc<ToolsList>>,
    /// Whether the operator makes `health.toolCall` to remote servers.
    pub remote_tool_calls: bool,
    /// The claim that backups go to is not there.
    pub no_backup_claim: bool,
    /// The access modes of the claims in `spec.volumes`.
    pub claims: AccessModes,
    /// Whether the server gives sessions, as the prober knows it. None: it has not asked yet.
    pub sessions: Option<bool>,
    /// Where it comes from what servers on standard input and output need.
    pub sources: stdio::Sources,
    /// The activator stands in for it: its Service leads there.
    pub stood_in: bool,
    /// Its Service leads to a pod of its own.
    pub leads: bool,
    /// Where those of its pods answer that have shown that they speak MCP.
    pub answering: BTreeSet<SocketAddr>,
    /// Where the activator answers.
    pub activator: Arc<Endpoints>,
    /// What is said for it while it sleeps.
    pub kept: Option<String>,
    /// How many pods there are to be, where `spec.autoscaling` decides.
    pub decision: Option<Decision>,
    /// The keys that seal session ids: those that are there, or a new one. Empty of a server that has no bridge.
    pub session_keys: String,
}

/// Every pointer that the spec holds.
pub fn references(spec: &McpServerSpec) -> BTreeSet<Reference> {
    let mut references = inputs::of_pods(&spec.pod);
    references.extend(credentials(spec).map(Reference::secret));
    references
}

/// Every pointer to something that its pods, its backups and its probes are given.
pub fn given(spec: &McpServerSpec) -> BTreeSet<Reference> {
    let mut references = references(spec);
    references.extend(backup_references(spec));
    references
}

/// Every pointer to something that backups need. The server does without.
pub fn backup_references(spec: &McpServerSpec) -> BTreeSet<Reference> {
    let backup = spec.storage.as_ref().and_then(|storage| storage.backup.as_ref());
    let secret = backup.and_then(|backup| backup.to.s3.as_ref()?.credentials_secret_ref.as_ref());
    let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
    let of = |name: &str| keys.map(|key| Reference::secret(&SecretKeyRef { name: name.to_owned(), key: key.to_owned() }));
    secret.into_iter().flat_map(|secret| of(&secret.name)).collect()
}

/// The claim that backups go to.
pub fn backup_claim(spec: &McpServerSpec) -> Option<&str> {
    spec.storage.as_ref()?.backup.as_ref()?.to.claim.as_deref()
}

/// Every pointer to something that probes carry.
pub fn credentials(spec: &McpServerSpec) -> impl Iterator<Item = &SecretKeyRef> {
    let headers = spec.headers_from().iter().map(|header| &header.secret_key_ref);
    headers.chain(spec.remote.iter().filter_map(|remote| remote.ca_secret_ref.as_ref()))
}

/// The list of tools that was accepted last: the one that is kept, or the one by which pods are measured already.
pub fn accepted(server: &McpServer, children: &Children, engine: &HealthEngine) -> Option<AcceptedTools> {
    let key = ServerKey::new(server.namespace().unwrap_or_default(), server.name_any());
    kept_tools(server, children).or_else(|| engine.accepted(&key))
}

/// The list of tools that was accepted, as the next operator finds it.
pub fn kept_tools(server: &McpServer, children: &Children) -> Option<AcceptedTools> {
    let (namespace, name) = (server.namespace().unwrap_or_default(), Component::tools_name(&server.name_any()));
    contract::read(&children.read::<ConfigMap>(&namespace, &name)?)
}

/// The keys that seal the server's session ids; the first time, one that nobody guesses: 256 bits from the operating system's generator.
fn session_keys(server: &McpServer, children: &Children) -> String {
    let (namespace, name) = (server.namespace().unwrap_or_default(), Component::sessions_name(&server.name_any()));
    let secret: Option<Secret> = children.read(&namespace, &name);
    let keys = secret.and_then(|secret| secret.data?.remove(stdio::KEYS)).and_then(|keys| String::from_utf8(keys.0).ok());
    keys.filter(|keys| !keys.trim().is_empty()).unwrap_or_else(|| {
        let mut key = [0_u8; 32];
        rand::rng().fill(&mut key);
        STANDARD.encode(key)
    })
}

/// Whether its Service leads to the activator, by a slice of ours.
fn stood_in(server: &McpServer, children: &Children) -> bool {
    let owned = server.uid().map(|uid| children.owned_by(&uid)).unwrap_or_default();
    let asleep = Component::asleep_name(&server.name_any());
    owned.iter().any(|live| live.key.kind == EndpointSlice::KIND && live.key.name.starts_with(&asleep))
}

/// What the server says now, or else what was kept of it: one that sleeps says nothing, and an operator that starts anew has not asked.
fn kept(server: &McpServer, health: Option<&ServerHealth>, children: &Children) -> Option<String> {
    if !asleep::sleeps_when_on(&server.spec) || credentials(&server.spec).next().is_some() {
        return None;
    }
    let now = health.and_then(|health| Some(health.kept.as_ref()?.text().to_owned()));
    let before = || {
        let (namespace, name) = (server.namespace().unwrap_or_default(), Component::asleep_name(&server.name_any()));
        children.read::<ConfigMap>(&namespace, &name)?.data?.remove(Kept::FILE)
    };
    now.or_else(before)
}

/// The server's Service, as it is.
fn served(server: &McpServer, children: &Children) -> ServiceSpec {
    let (namespace, name) = (server.namespace().unwrap_or_default(), Component::Server.child_name(&server.name_any()));
    let live = children.get(&Key::new(Service::KIND, namespace, name)).filter(|live| live.owner == server.uid());
    live.and_then(|live| live.read::<Service>()?.spec).unwrap_or_default()
}

/// Whether its Deployment is to have no pods, as it is.
fn is_empty(server: &McpServer, children: &Children) -> bool {
    let (namespace, name) = (server.namespace().unwrap_or_default(), Component::Server.child_name(&server.name_any()));
    let deployment: Option<Deployment> = children.read(&namespace, &name);
    deployment.and_then(|deployment| deployment.spec?.replicas) == Some(0)
}

/// Reads it all. Of a server that is switched off nothing that it would need to run: it must always come to rest.
pub async fn observe(
    server: &McpServer,
    reader: &Reader,
    Writer { client: _, children, contests: _ }: &Writer,
    World { engine, sources, backups: _, autoscaler, asleep, leading }: &World,
) -> Result<Observed, inputs::Error> {
    let (namespace, name) = (server.namespace().unwrap_or_default(), server.name_any());
    let key = ServerKey::new(&namespace, &name);
    let health = engine.snapshot(&key);
    let has_pods = health.as_ref().is_some_and(|health| health.has_pods);
    let in_service = health.as_ref().is_some_and(|health| health.pods.iter().any(|pod| pod.in_service));
    let mut observed = Observed {
        accepted: accepted(server, children, engine),
        sessions: health.as_ref().and_then(|health| health.sessions),
        served: served(server, children),
        empties: has_pods && is_empty(server, children),
        decision: autoscaler.decision(&key),
        stood_in: stood_in(server, children),
        leads: in_service && leading.leads(&key),
        answering: engine.serving(&key).map(|serving| serving.answering).unwrap_or_default(),
        activator: asleep.endpoints(),
        kept: kept(server, health.as_ref(), children),
        offered: health.and_then(|health| health.acceptable),
        remote_tool_calls: engine.remote_policy().tool_calls,
        sources: sources.clone(),
        session_keys: server.spec.stdio.as_ref().map(|_| session_keys(server, children)).unwrap_or_default(),
        ..Observed::default()
    };
    if !server.spec.enabled {
        return Ok(observed);
    }
    let all = references(&server.spec).into_iter().chain(backup_references(&server.spec)).collect();
    observed.inputs = reader.look(&namespace, &all).await?;
    for header in server.spec.headers_from() {
        let value = reader.value(&namespace, &header.secret_key_ref).await?;
        observed.headers.push((header.name.clone(), value));
    }
    if let Some(reference) = server.spec.remote.as_ref().and_then(|remote| remote.ca_secret_ref.as_ref()) {
        observed.ca = reader.value(&namespace, reference).await?;
    }
    if let Some(claim) = backup_claim(&server.spec) {
        observed.no_backup_claim = reader.claim(&namespace, claim).await?.is_none();
    }
    for claim in own_claims::all(&server.spec.pod) {
        if let Some(found) = reader.claim(&namespace, claim).await? {
            let modes = found.spec.and_then(|spec| spec.access_modes).unwrap_or_default();
            observed.claims.insert(claim.to_owned(), modes);
        }
    }
    Ok(observed)
}
