//! Which servers there are that may sleep, as the API server tells. I/O: one watch of McpServers a namespace, or one over all.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, ApiResource, Object};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use serde::Deserialize;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use crate::again::Again;
use crate::host::Named;
use crate::kept::{self, Kept};

/// How long what was kept of a server is not read again.
const FRESH: Duration = Duration::from_secs(30);

/// So many ends are kept for whoever is slow to hear of them.
const ENDED: usize = 256;

/// How long the API server may take to tell it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which McpServer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// The name of its Service.
    pub fn service(&self) -> String {
        format!("{}-mcp", self.name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An McpServer, as far as the activator looks.
type McpServer = Object<Spec, Status>;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default)]
    circuit_breaker: CircuitBreaker,
    #[serde(default)]
    autoscaling: Option<Autoscaling>,
    #[serde(default)]
    container: Option<Container>,
}

impl Spec {
    /// Whether no person has taken it away from its clients.
    fn is_on(&self) -> bool {
        self.enabled && self.circuit_breaker.force.as_deref() != Some("Open")
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
struct CircuitBreaker {
    #[serde(default)]
    force: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Container {
    #[serde(default)]
    path: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Autoscaling {
    #[serde(default)]
    min_replicas: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
}

const fn yes() -> bool {
    true
}

/// A server that may sleep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sleeper {
    /// False: a person switched it off, or holds its circuit open, and it is not to be woken.
    pub enabled: bool,
    /// The reason in its condition Ready.
    pub reason: String,
    /// Where it speaks MCP: what was kept of it was said there.
    pub path: String,
}

/// Reasons in Ready of a server to which the activator stands in. The operator's words (`operator/src/crd/reason.rs`).
const ASLEEP: &str = "Asleep";
const STOOD_IN: [&str; 2] = [ASLEEP, "Waking"];

/// Where a server speaks MCP that does not say where: the bridge's path, and the default of `container.path`.
const PATH: &str = "/mcp";

impl Sleeper {
    /// It has no pod, and nobody has had one made.
    pub fn is_asleep(&self) -> bool {
        self.reason == ASLEEP
    }

    /// Whether this is where it speaks MCP; a '/' at the end is none more.
    pub fn speaks_at(&self, path: &str) -> bool {
        self.path.trim_end_matches('/') == path.trim_end_matches('/')
    }

    /// None: it never sleeps.
    fn of(server: &McpServer) -> Option<Self> {
        let conditions = server.status.iter().flat_map(|status| &status.conditions);
        let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
        let reason = ready.map(|ready| ready.reason.clone()).unwrap_or_default();
        let may = server.spec.autoscaling.as_ref().is_some_and(|autoscaling| autoscaling.min_replicas == Some(0));
        // One that may sleep no longer is still asleep until its first pod is in service.
        let path = server.spec.container.as_ref().and_then(|container| container.path.as_deref()).unwrap_or(PATH).to_owned();
        (may || STOOD_IN.contains(&reason.as_str())).then_some(Self { enabled: server.spec.is_on(), reason, path })
    }
}

/// Whom a name means.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// This server.
    One(Key, Sleeper),
    /// Nobody who may sleep.
    Nobody,
    /// Servers of several namespaces.
    Several,
}

/// The servers that may sleep.
pub struct Sleepers {
    client: Client,
    /// Who is deleted or switched off, as it happens.
    ended: broadcast::Sender<Key>,
    known: RwLock<Known>,
    kept: RwLock<HashMap<Key, (Instant, Arc<Kept>)>>,
}

#[derive(Debug, Default)]
struct Known {
    servers: HashMap<Key, Sleeper>,
    /// Watches whose first list is not in yet.
    awaited: usize,
}

impl Sleepers {
    /// Begins to watch these namespaces, or all where none is named.
    pub fn watch(client: &Client, namespaces: &[String], stop: &CancellationToken) -> Arc<Self> {
        let namespaces: Vec<_> = namespaces.iter().filter(|namespace| !namespace.is_empty()).cloned().map(Some).collect();
        let namespaces = if namespaces.is_empty() { vec![None] } else { namespaces };
        let known = RwLock::new(Known { awaited: namespaces.len(), ..Known::default() });
        let (ended, _) = broadcast::channel(ENDED);
        let sleepers = Arc::new(Self { client: client.clone(), ended, known, kept: RwLock::default() });
        for namespace in namespaces {
            let (watching, stop) = (Arc::clone(&sleepers).follow(namespace), stop.clone());
            tokio::spawn(async move { stop.run_until_cancelled(watching).await });
        }
        sleepers
    }

    /// Whether every server is known.
    pub fn is_known(&self) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).awaited == 0
    }

    /// Whom a caller means.
    pub fn find(&self, named: &Named) -> Found {
        self.known.read().unwrap_or_else(PoisonError::into_inner).find(named)
    }

    /// Resolves when this server is deleted or switched off from now on.
    pub fn end(&self, key: &Key) -> impl Future<Output = ()> + use<> {
        let (mut ended, key) = (self.ended.subscribe(), key.clone());
        async move {
            loop {
                match ended.recv().await {
                    Ok(other) if other == key => return,
                    // Of more than are kept some are lost: who waits for one of them waits for as long as a call is held.
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    // The process ends.
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        }
    }

    /// What was kept of the server.
    pub async fn kept(&self, key: &Key) -> Arc<Kept> {
        if let Some(kept) = self.fresh(key) {
            return kept;
        }
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &key.namespace);
        let name = format!("{}-asleep", key.service());
        let text = match tokio::time::timeout(PATIENCE, api.get_opt(&name)).await {
            Ok(Ok(found)) => found.and_then(|found| found.data?.remove(kept::FILE)),
            Ok(Err(error)) => {
                tracing::warn!(server = %key, %error, "what was kept of a server could not be read");
                None
            }
            Err(_) => None,
        };
        let kept = Arc::new(text.as_deref().map(Kept::read).unwrap_or_default());
        if text.is_some() {
            let mut all = self.kept.write().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, (read, _)| read.elapsed() < FRESH);
            all.insert(key.clone(), (Instant::now(), Arc::clone(&kept)));
        }
        kept
    }

    fn fresh(&self, key: &Key) -> Option<Arc<Kept>> {
        let all = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let (read, kept) = all.get(key)?;
        (read.elapsed() < FRESH).then(|| Arc::clone(kept))
    }

    async fn follow(self: Arc<Self>, namespace: Option<String>) {
        let resource = ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk("mcpfleet.dev", "v1alpha1", "McpServer"));
        let api: Api<McpServer> = match &namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let mut events = watcher(api, watcher::Config::default()).backoff(Again::default()).boxed();
        let mut listing = HashMap::new();
        let mut first = true;
        while let Some(event) = events.next().await {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            match event {
                Ok(watcher::Event::Init) => listing = HashMap::new(),
                Ok(watcher::Event::InitApply(server)) => {
                    listing.extend(Sleeper::of(&server).map(|sleeper| (key(&server), sleeper)));
                }
                Ok(watcher::Event::InitDone) => {
                    let of_others = |key: &Key| namespace.as_ref().is_some_and(|namespace| *namespace != key.namespace);
                    known.servers.retain(|key, _| of_others(key));
                    known.servers.extend(std::mem::take(&mut listing));
                    known.awaited -= usize::from(std::mem::take(&mut first));
                }
                Ok(watcher::Event::Apply(server)) => {
                    if !server.spec.is_on() {
                        // Nobody may be waiting for it.
                        let _ = self.ended.send(key(&server));
                    }
                    known.servers.remove(&key(&server));
                    known.servers.extend(Sleeper::of(&server).map(|sleeper| (key(&server), sleeper)));
                }
                Ok(watcher::Event::Delete(server)) => {
                    let _ = self.ended.send(key(&server));
                    known.servers.remove(&key(&server));
                }
                Err(error) => tracing::warn!(%error, namespace, "the McpServers are not known"),
            }
        }
    }
}

impl Known {
    fn find(&self, named: &Named) -> Found {
        if let Some(namespace) = &named.namespace {
            let key = Key { namespace: namespace.clone(), name: named.name.clone() };
            return match self.servers.get(&key) {
                Some(sleeper) => Found::One(key, sleeper.clone()),
                None => Found::Nobody,
            };
        }
        let mut all = self.servers.iter().filter(|(key, _)| key.name == named.name);
        match (all.next(), all.next()) {
            (Some((key, sleeper)), None) => Found::One(key.clone(), sleeper.clone()),
            (None, _) => Found::Nobody,
            (Some(_), Some(_)) => Found::Several,
        }
    }
}

fn key(server: &McpServer) -> Key {
    Key { namespace: server.namespace().unwrap_or_default(), name: server.name_any() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sleeper(spec: &serde_json::Value, reason: &str) -> Option<Sleeper> {
        let condition = json!({"type": "Ready", "status": "True", "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let server = json!({"metadata": {"name": "a"}, "spec": spec, "status": {"conditions": [condition]}});
        Sleeper::of(&serde_json::from_value(server).unwrap())
    }

    #[test]
    fn only_servers_that_may_sleep_are_called_through_here() {
        assert!(sleeper(&json!({"autoscaling": {"minReplicas": 0}}), "Available").is_some());
        assert_eq!(sleeper(&json!({"autoscaling": {"minReplicas": 1}}), "Available"), None);
        assert_eq!(sleeper(&json!({}), "Available"), None);
        assert!(sleeper(&json!({"autoscaling": {"minReplicas": 1}}), "Asleep").is_some(), "it is not up yet");
        assert!(!sleeper(&json!({"enabled": false, "autoscaling": {"minReplicas": 0}}), "Disabled").unwrap().enabled);
        let forced = |force| json!({"circuitBreaker": {"force": force}, "autoscaling": {"minReplicas": 0}});
        assert!(!sleeper(&forced(json!("Open")), "Forced").unwrap().enabled);
        assert!(
            sleeper(&forced(json!("Closed")), "Asleep").unwrap().enabled && sleeper(&forced(json!(null)), "Asleep").is_some()
        );
    }

    #[test]
    fn what_was_kept_is_said_where_the_server_speaks_mcp() {
        let at = |container: serde_json::Value, path: &str| {
            sleeper(&json!({"container": container}), "Asleep").unwrap().speaks_at(path)
        };
        assert!(
            at(json!({}), "/mcp")
                && at(json!({}), "/mcp/")
                && at(json!({"path": "/v1/mcp/"}), "/v1/mcp")
                && at(json!({"path": "/"}), "/")
        );
        assert!(!at(json!({}), "/") && !at(json!({"path": "/v1/mcp"}), "/mcp") && !at(json!({}), "/mcp2"));
        assert!(sleeper(&json!({"stdio": {"command": "npx"}}), "Asleep").unwrap().speaks_at("/mcp"));
    }

    #[test]
    fn a_short_name_is_enough_where_it_means_one_server() {
        let servers = [("team", "a"), ("team", "b"), ("other", "b")].map(|(namespace, name)| {
            let sleeper = Sleeper { enabled: true, reason: "Asleep".into(), path: PATH.into() };
            (Key { namespace: namespace.into(), name: name.into() }, sleeper)
        });
        let known = Known { servers: servers.into(), awaited: 0 };
        let find =
            |namespace: Option<&str>, name: &str| known.find(&Named { namespace: namespace.map(Into::into), name: name.into() });
        assert!(matches!(find(None, "a"), Found::One(key, _) if key.namespace == "team"));
        assert!(matches!(find(Some("other"), "b"), Found::One(key, _) if key.namespace == "other"));
        assert_eq!(
            [find(None, "b"), find(Some("team"), "c"), find(Some("else"), "a")],
            [Found::Several, Found::Nobody, Found::Nobody]
        );
    }
}
