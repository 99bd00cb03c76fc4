//! A namespace and an operator for each test.

use std::{fmt::Debug, future::Future, net::SocketAddr, sync::Once, time::Duration};

use anyhow::Context;
use futures::TryStreamExt;
use hyper_util::{client::legacy, rt::TokioExecutor};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{Namespace, Secret},
        rbac::v1::RoleBinding,
    },
};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    client::ConfigExt as _,
    runtime::{WatchStreamExt, watcher},
};
use log_lines::{Flags, Format, Level};
use operator::{
    admin::Authenticate,
    config::{Networks, RunConfig},
    crd::McpServer,
    inherit::Keys,
    network::Unsaid,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, ServiceBuilder};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// How long anything that a test waits for may take.
const PATIENCE: Duration = Duration::from_mins(1);

static SETUP: Once = Once::new();

/// A namespace of a test's own on the cluster.
#[derive(Clone)]
pub struct Space {
    /// The API server.
    pub client: Client,
    /// The namespace.
    pub name: String,
}

/// Runs a test in a namespace of its own, deletes the namespace when the test is over, however it ends, and gives what it found.
pub async fn with_space<F, T, R>(test: T) -> R
where
    F: Future<Output = anyhow::Result<R>>,
    T: FnOnce(Space) -> F,
{
    let space = Space::open().await.expect("a cluster is needed: run the tests by `make test`");
    let result = test(space.clone()).await;
    space.delete().await.expect("the namespace of the test can be deleted");
    result.unwrap_or_else(|error| panic!("{error:?}"))
}

/// Who set `spec.replicas` of a server: each a manager, and the subresource by which it did.
pub fn replica_writers(server: &McpServer) -> Vec<String> {
    let managed = server.metadata.managed_fields.iter().flatten();
    let of_replicas =
        managed.filter(|by| by.fields_v1.as_ref().is_some_and(|fields| !fields.0["f:spec"]["f:replicas"].is_null()));
    let shown = |part: &Option<String>| part.clone().unwrap_or_default();
    of_replicas.map(|by| format!("{} {}", shown(&by.manager), shown(&by.subresource))).collect()
}

/// The operator has told of the object as it is now: the last thing that a pass does.
pub fn is_told<K: Serialize>(object: &K) -> bool {
    let object = serde_json::to_value(object).expect("an object is JSON");
    object["status"]["observedGeneration"] == object["metadata"]["generation"]
}

/// The API server closes a connection that has been without a request for 90 s, and the client's own limit is the same: what is asked on such a
/// one at that moment is lost. The parts of Kubernetes that tests play do not ask again.
const IDLE: Duration = Duration::from_secs(30);

async fn client() -> anyhow::Result<Client> {
    let config = Config::infer().await?;
    let connections =
        legacy::Client::builder(TokioExecutor::new()).pool_idle_timeout(IDLE).build(config.rustls_https_connector()?);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .map_err(BoxError::from)
        .service(connections);
    Ok(Client::new(service, config.default_namespace))
}

impl Space {
    async fn open() -> anyhow::Result<Self> {
        SETUP.call_once(|| {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let wanted = std::env::var("TEST_LOG").unwrap_or_default();
            let filter: Targets = wanted.parse().unwrap_or_default();
            tracing_subscriber::registry().with(filter).with(tracing_subscriber::fmt::layer().with_test_writer()).init();
        });
        let client = client().await?;
        let namespace = Namespace {
            metadata: ObjectMeta { generate_name: Some("test-".into()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        let created = Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
        Ok(Self { client, name: created.name_any() })
    }

    async fn delete(&self) -> anyhow::Result<()> {
        Api::<Namespace>::all(self.client.clone()).delete(&self.name, &kube::api::DeleteParams::default()).await?;
        Ok(())
    }

    /// The API of a kind in the namespace.
    pub fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Creates an object from JSON.
    pub async fn create<K>(&self, object: serde_json::Value) -> anyhow::Result<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let mut object = object;
        object["apiVersion"] = json!(K::api_version(&()));
        object["kind"] = json!(K::kind(&()));
        let name = object["metadata"]["name"].as_str().context("the object has a name")?.to_owned();
        let params = PatchParams::apply("test").force();
        Ok(self.api::<K>().patch(&name, &params, &Patch::Apply(&object)).await?)
    }

    /// Merges JSON into an object.
    pub async fn edit<K>(&self, name: &str, patch: serde_json::Value) -> anyhow::Result<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        Ok(self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?)
    }

    /// Creates a Secret.
    pub async fn secret(&self, name: &str, data: &[(&str, &str)]) -> anyhow::Result<Secret> {
        let data: serde_json::Map<_, _> = data.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        self.create(json!({"metadata": {"name": name}, "stringData": data})).await
    }

    /// Waits until the object of this name fulfils the condition, watching it. Says what it was last if it does not.
    pub async fn until<K>(&self, name: &str, what: &str, holds: impl Fn(&K) -> bool) -> anyhow::Result<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut objects = Box::pin(watcher(self.api::<K>(), config).default_backoff().applied_objects());
        let mut last = None;
        let found = tokio::time::timeout(PATIENCE, async {
            while let Some(object) = objects.try_next().await? {
                if holds(&object) {
                    return anyhow::Ok(object);
                }
                last = Some(object);
            }
            anyhow::bail!("the watch ended")
        });
        if let Ok(found) = found.await {
            return found;
        }
        let last = last.map(|object| serde_json::to_string_pretty(&object)).transpose()?;
        anyhow::bail!("{what} did not come about; last: {}", last.unwrap_or_else(|| "nothing".into()))
    }

    /// Waits until no object of this name is there.
    pub async fn until_gone<K>(&self, name: &str) -> anyhow::Result<()>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let gone = kube::runtime::wait::await_condition(self.api::<K>(), name, |object: Option<&K>| object.is_none());
        tokio::time::timeout(PATIENCE, gone).await.with_context(|| format!("{name} is still there"))??;
        Ok(())
    }

    /// Starts an operator that looks after this namespace alone.
    pub async fn operator(&self) -> anyhow::Result<Operator> {
        let operator = self.start(self.client.clone(), self.config()?);
        operator.ready().await?;
        Ok(operator)
    }

    /// Starts an operator by this client, with these settings. It need not be ready yet.
    pub fn start(&self, client: Client, config: RunConfig) -> Operator {
        let (stop, admin) = (CancellationToken::new(), config.listen);
        let running = operator::run::run(config, client, stop.clone());
        let task = tokio::spawn(async move { running.await.inspect_err(|error| eprintln!("the operator ended: {error}")) });
        Operator { stop, task, admin }
    }

    /// How an operator is run here: for this namespace alone, and without a Lease.
    pub fn config(&self) -> anyhow::Result<RunConfig> {
        Ok(RunConfig {
            watch_namespaces: vec![self.name.clone()],
            listen: free_address()?,
            authenticate: Authenticate::None,
            // The servers that tests run for themselves.
            remote_allow: "127.0.0.0/8".parse().map_err(anyhow::Error::msg)?,
            remote_deny: Networks::default(),
            remote_tool_calls: true,
            digest_key_secret: "mcpfleet-operator-digest".into(),
            servers_network: Unsaid::Restricted,
            pod_labels: "app.kubernetes.io/component=operator".parse().map_err(anyhow::Error::msg)?,
            inherit_labels: Keys::default(),
            inherit_annotations: Keys::default(),
            lease_name: "mcpfleet-operator".into(),
            activator_service: String::new(),
            activator_wanted: "mcpfleet-wanted".into(),
            chat_worker_image: "ghcr.io/mcpfleet/chat-worker:test".into(),
            bridge_image: "ghcr.io/mcpfleet/bridge:test".into(),
            npx_image: "node:test".into(),
            uvx_image: "uv:test".into(),
            npm_registry: None,
            pypi_index: None,
            namespace: self.name.clone(),
            identity: None,
            no_leader_election: true,
            max_probes_in_flight: 512,
            scale_down_seconds: 300,
            server_metrics: true,
            https_proxy: None,
            no_proxy: String::new(),
            concurrency: 16,
            log: Flags { log_level: Level::default(), log_format: Format::Text },
        })
    }

    /// A client that is a ServiceAccount of this namespace, and may do everything in it and nothing elsewhere.
    pub async fn client_of_the_namespace(&self) -> anyhow::Result<Client> {
        let account = format!("system:serviceaccount:{}:narrow", self.name);
        self.create::<RoleBinding>(json!({
            "metadata": {"name": "narrow"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "narrow", "namespace": self.name}],
        }))
        .await?;
        let mut config = kube::Config::infer().await?;
        config.auth_info.impersonate = Some(account);
        Ok(Client::try_from(config)?)
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// An operator in this process.
pub struct Operator {
    stop: CancellationToken,
    task: JoinHandle<Result<(), operator::run::Error>>,
    admin: SocketAddr,
}

impl Operator {
    /// Waits until it looks after all that it was given.
    pub async fn ready(&self) -> anyhow::Result<()> {
        self.until("/readyz", |text| text == "ok").await
    }

    /// Waits until one of the read-only endpoints says this.
    pub async fn until(&self, path: &str, says: impl Fn(&str) -> bool) -> anyhow::Result<()> {
        let said = async {
            let mut look = tokio::time::interval(Duration::from_millis(20));
            loop {
                look.tick().await;
                anyhow::ensure!(!self.task.is_finished(), "the operator ended");
                if self.get(path).await.is_ok_and(|text| says(&text)) {
                    return Ok(());
                }
            }
        };
        tokio::time::timeout(PATIENCE, said).await.with_context(|| format!("{path} did not come to say it"))?
    }

    /// Waits until there were so many passes over McpServers that ended well.
    pub async fn until_passes(&self, passes: u32) -> anyhow::Result<()> {
        let metric = "mcpfleet_reconcile_total{kind=\"McpServer\",outcome=\"ok\"} ";
        let enough = |text: &str| {
            let counted = text.lines().find_map(|line| line.strip_prefix(metric)?.parse::<u32>().ok());
            counted.is_some_and(|counted| counted >= passes)
        };
        self.until("/metrics", enough).await
    }

    /// What one of the read-only endpoints says.
    pub async fn get(&self, path: &str) -> anyhow::Result<String> {
        Ok(reqwest::get(format!("http://{}{path}", self.admin)).await?.error_for_status()?.text().await?)
    }

    /// What one of the read-only endpoints answers to who presents this token.
    pub async fn answer(&self, path: &str, token: Option<&str>) -> anyhow::Result<(u16, String)> {
        let request = reqwest::Client::new().get(format!("http://{}{path}", self.admin));
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let reply = request.send().await?;
        Ok((reply.status().as_u16(), reply.text().await?))
    }

    /// Asks it to stop, and waits until it has.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.task.await??;
        Ok(())
    }

    /// Waits until it ends by itself, and says how.
    pub async fn ended(self) -> anyhow::Result<Result<(), operator::run::Error>> {
        Ok(tokio::time::timeout(PATIENCE, self.task).await.context("the operator goes on")??)
    }

    /// Ends it in the middle of whatever it does, as SIGKILL would.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}
