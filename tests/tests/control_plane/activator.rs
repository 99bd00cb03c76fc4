//! The activator beside an operator, on a real API server: what is answered while a server sleeps, and what becomes of calls. The kubelet,
//! and Kubernetes' controller of EndpointSlices, are the test's.

use std::{net::SocketAddr, time::Duration};

use activator::{config::Args, door};
use futures::future;
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::ConfigMap, discovery::v1::EndpointSlice},
    jiff::Timestamp,
};
use kube::{Client, api::DeleteParams};
use mcpfleet_tests::{
    audit,
    cluster::{Space, with_space},
    mcp::FakeServer,
    pods,
};
use operator::{
    crd::{McpServer, reason},
    names::Component,
};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    runtime::{self, Runtime},
};
use tokio_util::sync::CancellationToken;

use crate::{
    asleep::{WANTED, asleep, replicas, service_leads, with_activator, with_sleeper},
    reconcile::ready_is,
};

/// An activator in this process, until it is dropped: that ends it in the middle of whatever it does, as SIGKILL would.
pub struct Activator {
    pub address: SocketAddr,
    // Of its own, so that nothing of it goes on.
    runtime: Option<Runtime>,
}

impl Drop for Activator {
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl Activator {
    /// Starts it with a way of its own to the API server. A connection ends with the runtime that opened it: one that the test shared would
    /// break under it.
    pub async fn of(space: &Space, hold_seconds: u32) -> anyhow::Result<Self> {
        Self::start(space, &Client::try_default().await?, hold_seconds).await
    }

    /// Starts it with this way to the API server.
    pub async fn start(space: &Space, client: &Client, hold_seconds: u32) -> anyhow::Result<Self> {
        use clap::Parser as _;
        let hold = hold_seconds.to_string();
        let flags = ["activator", "--namespace", &space.name, "--watch-namespace", &space.name];
        let args = Args::try_parse_from(flags.into_iter().chain(["--wanted", WANTED, "--hold-seconds", &hold]))?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        {
            let _inside = runtime.enter();
            let listener = TcpListener::from_std(listener)?;
            let service = door::service(activator::start(&args, client, &CancellationToken::new())?);
            runtime.spawn(async move { http_server::serve(listener, service, 1024, future::pending()).await });
        }
        let activator = Self { address, runtime: Some(runtime) };
        while activator.get("/readyz").send().await?.status() != StatusCode::OK {
            tokio::task::yield_now().await;
        }
        Ok(activator)
    }

    fn get(&self, path: &str) -> RequestBuilder {
        reqwest::Client::new().get(format!("http://{}{path}", self.address))
    }

    fn message(&self, host: &str, method: &str) -> RequestBuilder {
        message(self.address, host, method)
    }
}

/// A message for a server to an activator, as a client of 2026-07-28 sends it.
pub fn message(activator: SocketAddr, host: &str, method: &str) -> RequestBuilder {
    let message = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": {"name": "read", "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }}});
    let request = reqwest::Client::new().post(format!("http://{activator}/mcp")).header("host", host);
    let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", method).header("mcp-name", "read");
    request.json(&message)
}

async fn said(response: Response) -> anyhow::Result<Value> {
    Ok(response.json().await?)
}

/// What was kept of the server, in the operator's stead: it saw nobody of it yet.
async fn kept(space: &Space, name: &str) -> anyhow::Result<()> {
    let answers = json!({
        "discover": {"supportedVersions": ["2026-07-28"], "resultType": "complete"},
        "tools": {"tools": [{"name": "read", "inputSchema": {"type": "object"}}], "resultType": "complete"},
    });
    let metadata = json!({"name": Component::asleep_name(name), "labels": Component::Server.labels(name)});
    space.create::<ConfigMap>(json!({"metadata": metadata, "data": {"answers.json": answers.to_string()}})).await?;
    Ok(())
}

/// For how many servers somebody waits.
pub fn called(wanted: &ConfigMap) -> usize {
    wanted.data.as_ref().map_or(0, std::collections::BTreeMap::len)
}

#[tokio::test]
async fn lists_are_answered_without_waking_and_calls_wake_once_and_are_answered() {
    with_space(|space| async move {
        kept(&space, "s").await?;
        let operator = with_sleeper(&space).await?;
        let activator = Activator::of(&space, 30).await?;
        let host = format!("s-mcp.{}.svc.cluster.local:8080", space.name);

        let list = said(activator.message(&host, "tools/list").send().await?.error_for_status()?).await?;
        let kept_open = activator.message(&host, "ping").send().await?;
        assert_eq!(kept_open.headers()["connection"], "close", "the next request is for the Service to lead");
        assert_eq!((&list["id"], &list["result"]["tools"][0]["name"]), (&json!(7), &json!("read")));
        let discover = said(activator.message(&host, "server/discover").send().await?.error_for_status()?).await?;
        assert_eq!(discover["result"]["supportedVersions"][0], "2026-07-28");
        // As the server would: others on the way decide by the headers.
        let other = activator.message(&host, "server/discover").header("mcp-method", "tools/list").send().await?;
        anyhow::ensure!(other.status() == 400 && said(other).await?["error"]["code"] == -32020, "two Mcp-Method");
        let listen = activator.message(&host, "subscriptions/listen").send().await?;
        assert_eq!(listen.status(), StatusCode::NOT_FOUND, "nobody is kept awake by listening");
        assert_eq!(activator.get("/mcp").header("host", &host).send().await?.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(called(&space.api::<ConfigMap>().get(WANTED).await?), 0, "nobody was woken by that");

        let before = Timestamp::now();
        let calls = future::try_join_all((0..20).map(|_| activator.message(&host, "tools/call").send()));
        let wakes = async {
            space.until::<Deployment>("s-mcp", "a pod wanted", |deployment| replicas(deployment) == Some(1)).await?;
            let fake = FakeServer::start().await?;
            pods::run(&space, "s", "s-1", fake.address).await?;
            anyhow::Ok(fake)
        };
        // Nobody says yet that the Service leads there.
        let (answers, fake) = tokio::join!(calls, wakes);
        let fake = fake?;
        let listening = activator.get("/mcp").header("host", &host).send().await?;
        assert_eq!(listening.text().await?, "listening", "a stream of a server that is up is its own to give");
        let ended =
            reqwest::Client::new().delete(format!("http://{}/mcp", activator.address)).header("host", &host).send().await?;
        assert_eq!(ended.status(), StatusCode::OK, "and so is the end of a session");
        for answer in answers? {
            assert_eq!(said(answer.error_for_status()?).await?["result"]["content"][0]["text"], "called");
        }
        assert!(space.api::<EndpointSlice>().get_opt("s-mcp-asleep-ipv4").await?.is_some(), "it stays until somebody does");
        service_leads(&space, "s", fake.address).await?;
        space.until_gone::<EndpointSlice>("s-mcp-asleep-ipv4").await?;
        space.until::<ConfigMap>(WANTED, "taken back", |wanted| called(wanted) == 0).await?;
        let writes = audit::writes_since(&space.name, before)?;
        assert_eq!(writes.iter().filter(|write| write.name == WANTED).count(), 2, "said once for all callers, and taken back");
        let metrics = activator.get("/metrics").send().await?.text().await?;
        assert!(metrics.contains(r#"activator_requests_total{outcome="forwarded"} 22"#), "{metrics}");
        assert!(metrics.contains("activator_requests_held 0") && metrics.contains("activator_wake_seconds_count 1"), "{metrics}");
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn a_client_of_an_older_revision_wakes_the_server_and_its_session_is_the_servers() {
    with_space(|space| async move {
        let operator = with_sleeper(&space).await?;
        let activator = Activator::of(&space, 30).await?;
        let legacy = |method: &str| {
            let params =
                json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
            let request = reqwest::Client::new().post(format!("http://{}/mcp", activator.address));
            let request = request.header("host", format!("s-mcp.{}.svc:8080", space.name));
            request.json(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
        };
        // What such a server says to that only it can say.
        let opens = async { anyhow::Ok(legacy("initialize").send().await?.error_for_status()?) };
        let wakes = async {
            space.until::<Deployment>("s-mcp", "a pod wanted", |deployment| replicas(deployment) == Some(1)).await?;
            let fake = FakeServer::start().await?;
            fake.set_legacy();
            pods::run(&space, "s", "s-1", fake.address).await?;
            anyhow::Ok(fake)
        };
        let (opened, fake) = tokio::try_join!(opens, wakes)?;
        assert_eq!(opened.headers()["mcp-session-id"], "one");
        assert_eq!(said(opened).await?["result"]["protocolVersion"], "2025-11-25");
        // What follows in the session goes there, too, while the Service still leads here.
        let called = legacy("tools/call").header("mcp-session-id", "one").send().await?.error_for_status()?;
        assert_eq!(said(called).await?["result"]["content"][0]["text"], "called");
        assert_eq!(fake.called(), 1);
        service_leads(&space, "s", fake.address).await?;
        space.until_gone::<EndpointSlice>("s-mcp-asleep-ipv4").await?;
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn who_waits_for_a_server_that_is_deleted_or_switched_off_is_told_at_once() {
    with_space(|space| async move {
        for name in ["off", "gone"] {
            asleep(&space, name).await?;
        }
        let operator = with_activator(&space, "10.9.0.1").await?;
        let activator = Activator::of(&space, 30).await?;
        for name in ["off", "gone"] {
            space.until::<McpServer>(name, "Ready", |server| ready_is(server, "True", reason::ASLEEP)).await?;
            let call = activator.message(&format!("{name}-mcp:8080"), "tools/call").timeout(Duration::from_secs(20));
            let call = tokio::spawn(call.send());
            space.until::<ConfigMap>(WANTED, "a call", |wanted| called(wanted) == 1).await?;
            if name == "off" {
                space.edit::<McpServer>(name, json!({"spec": {"enabled": false}})).await?;
            } else {
                space.api::<McpServer>().delete(name, &DeleteParams::default()).await?;
            }
            let ended = call.await??;
            assert_eq!((ended.status(), ended.headers().get("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, None));
            let message = said(ended).await?["error"]["message"].clone();
            assert_eq!(message, format!("{}/{name} was deleted or switched off while the call waited for it", space.name));
            space.until::<ConfigMap>(WANTED, "taken back", |wanted| called(wanted) == 0).await?;
        }
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn who_waited_in_vain_is_told_what_is_the_matter_and_who_calls_nobody_is_told_so() {
    with_space(|space| async move {
        let operator = with_sleeper(&space).await?;
        let activator = Activator::of(&space, 2).await?;
        // The short form, as a pod of the namespace may use it.
        let late = activator.message("s-mcp:8080", "tools/call").timeout(Duration::from_secs(20)).send().await?;
        assert_eq!((late.status(), late.headers()["retry-after"].to_str()?), (StatusCode::SERVICE_UNAVAILABLE, "5"));
        let error = said(late).await?["error"].clone();
        let message = error["message"].as_str().unwrap_or_default();
        let expected = format!(
            "{0}/s sleeps, and was not awake within 2 s (Waking); `kubectl describe mcpserver -n {0} s` says why",
            space.name
        );
        assert_eq!(message, expected);
        assert_eq!(called(&space.api::<ConfigMap>().get(WANTED).await?), 1, "an operator that comes back later wakes it still");

        let nobody = activator.message(&format!("else-mcp.{}.svc", space.name), "tools/call").send().await?;
        assert_eq!(nobody.status(), StatusCode::MISDIRECTED_REQUEST);
        space.edit::<McpServer>("s", json!({"spec": {"enabled": false}})).await?;
        space.until::<McpServer>("s", "Disabled", |server| ready_is(server, "False", reason::DISABLED)).await?;
        let off = async {
            loop {
                let answer = said(activator.message("s-mcp", "tools/call").send().await?).await?;
                let message = answer["error"]["message"].as_str().unwrap_or_default().to_owned();
                if message.contains("spec.enabled is false") {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), off).await??;
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn who_comes_when_the_pod_that_answered_has_gone_is_heard_of_too() {
    with_space(|space| async move {
        // Whatever is said from now on, nobody hears it.
        with_sleeper(&space).await?.kill().await;
        let activator = Activator::of(&space, 30).await?;
        let host = format!("s-mcp.{}.svc", space.name);
        let call = || async { said(activator.message(&host, "tools/call").send().await?.error_for_status()?).await };
        // The server has only just been told to sleep, and its last pod answers still.
        let last = FakeServer::start().await?;
        service_leads(&space, "s", last.address).await?;
        call().await?;
        space.until::<ConfigMap>(WANTED, "taken back", |wanted| called(wanted) == 0).await?;
        space.api::<EndpointSlice>().delete("s-mcp-abcde", &DeleteParams::default()).await?;

        let next = FakeServer::start().await?;
        // The activator hears of its end in a moment, and until then calls go there.
        let calls = async {
            while next.called() == 0 {
                call().await?;
            }
            anyhow::Ok(())
        };
        let wakes = async {
            space.until::<ConfigMap>(WANTED, "called again", |wanted| called(wanted) == 1).await?;
            service_leads(&space, "s", next.address).await
        };
        tokio::try_join!(calls, wakes).map(drop)
    })
    .await;
}
