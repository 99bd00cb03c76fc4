//! Builders for unit tests: an object as the API server would give it, with what the test is about changed.

pub mod api;

use std::{fmt::Debug, sync::Arc};

use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use kube::{
    Resource,
    core::PartialObjectMeta,
    runtime::{
        events::{Recorder, Reporter},
        watcher::Event,
    },
};
use metrics_text::MetricSet;
use serde_json::json;

use crate::{
    attempts::Attempts,
    cache::{self, Cache},
    crd::{McpApp, McpServer},
    digest_key::DigestKey,
    inputs::Reader,
    metrics::ReconcileMetrics,
    pass::{Context, Subject},
    pod_trouble::Trouble,
    ssa::Writer,
};

fn metadata(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some("team".into()),
        uid: Some(format!("uid-of-{name}")),
        generation: Some(1),
        ..ObjectMeta::default()
    }
}

/// A server in a container, changed.
pub fn server(change: impl FnOnce(&mut McpServer)) -> McpServer {
    let spec = serde_json::from_value(json!({"container": {"image": "a/b:1"}})).expect("the smallest spec");
    let mut server = McpServer { metadata: metadata("db"), spec, status: None };
    change(&mut server);
    server
}

/// A server on standard input and output, changed.
pub fn stdio(change: impl FnOnce(&mut McpServer)) -> McpServer {
    let stdio = json!({"command": "npx", "args": ["-y", "@modelcontextprotocol/server-memory@2026.8.31"]});
    let spec = serde_json::from_value(json!({"stdio": stdio})).expect("the smallest spec");
    let mut server = McpServer { metadata: metadata("memory"), spec, status: None };
    change(&mut server);
    server
}

/// A remote server, changed.
pub fn remote(change: impl FnOnce(&mut McpServer)) -> McpServer {
    let spec = serde_json::from_value(json!({"remote": {"url": "https://example.com/mcp"}})).expect("the smallest spec");
    let mut server = McpServer { metadata: metadata("far"), spec, status: None };
    change(&mut server);
    server
}

/// An app over the server of [`server`], changed.
pub fn app(change: impl FnOnce(&mut McpApp)) -> McpApp {
    let spec = json!({
        "servers": [{"name": "db"}],
        "model": {"name": "claude-haiku-5-5", "apiKeySecretRef": {"name": "anthropic", "key": "api-key"}},
    });
    let spec = serde_json::from_value(spec).expect("the smallest spec");
    let mut app = McpApp { metadata: metadata("chat"), spec, status: None };
    change(&mut app);
    app
}

/// A second of 2026.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).expect("in range")
}

/// What keeps a pod from running that never ran.
pub fn trouble(reason: &str, message: &str) -> Trouble {
    Trouble { reason: reason.into(), message: message.into(), ..Trouble::default() }
}

/// A cache that has seen these objects.
fn cache_of<K>(objects: Vec<K>) -> Arc<Cache<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    let events = [Event::Init].into_iter().chain(objects.into_iter().map(Event::InitApply)).chain([Event::InitDone]).map(Ok);
    let (cache, follows) = cache::follow("objects", futures::stream::iter(events).boxed(), |_| {});
    follows.now_or_never().expect("a stream that ends");
    cache
}

/// What passes over this object need, and over no other.
pub fn context<S: Subject>(object: &S, api: &api::Api, measured: &MetricSet, world: S::World) -> Context<S> {
    let (client, metrics) = (api.client(), ReconcileMetrics::new(measured));
    let secrets = cache_of(Vec::<PartialObjectMeta<Secret>>::new());
    let maps = cache_of(Vec::<PartialObjectMeta<ConfigMap>>::new());
    Context {
        subjects: cache_of(vec![object.clone()]),
        writer: Writer { client: client.clone(), children: Arc::default(), contests: Arc::default() },
        reader: Arc::new(Reader::new(client.clone(), secrets, maps, DigestKey::for_tests())),
        recorder: Recorder::new(client, Reporter { controller: "test".into(), instance: None }),
        attempts: Arc::new(Attempts::new(metrics.failing())),
        jitter: || 0.5,
        metrics,
        inherit: Arc::default(),
        warnings: Arc::default(),
        around: Arc::default(),
        world,
    }
}
