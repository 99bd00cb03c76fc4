//! Autoscalers of Kubernetes: by CPU, as metrics-server tells it, and by a metric of others, as KEDA makes them.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use axum::{Json, Router, extract::Path, routing::get};
use k8s_openapi::{
    ByteString,
    api::{
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{Node, Service},
        discovery::v1::EndpointSlice,
    },
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use mcpfleet_tests::cluster::{Space, replica_writers, with_space};
use operator::{clock, crd::McpServer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    autoscale::{Callers, url},
    drills::serves,
    rollouts::settled,
    setup::{install, run, sqlite},
};

/// An autoscaler of the server `s` between one pod and three, which does not wait before it takes pods away.
fn autoscaler(metric: &Value) -> Value {
    json!({"metadata": {"name": "s"}, "spec": {
        "scaleTargetRef": {"apiVersion": "mcpfleet.dev/v1alpha1", "kind": "McpServer", "name": "s"},
        "minReplicas": 1,
        "maxReplicas": 3,
        "metrics": [metric],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
    }})
}

/// Waits until the spec, and with it the pods, are as many as the autoscaler wants.
async fn until_scaled(space: &Space, replicas: u32) -> anyhow::Result<()> {
    let pods = format!("{replicas}/{replicas}");
    let scaled = |server: &McpServer| server.spec.replicas == replicas && serves(server, &pods);
    let scaled = space.until::<McpServer>("s", &pods, scaled).await?;
    anyhow::ensure!(
        replica_writers(&scaled) == ["kube-controller-manager scale"],
        "who writes replicas: {:?}",
        replica_writers(&scaled)
    );
    Ok(())
}

/// What `kubectl top` tells of the server's pods, once it does.
async fn top(space: &Space) -> anyhow::Result<String> {
    let mut look = tokio::time::interval(Duration::from_millis(500));
    let told = async {
        loop {
            look.tick().await;
            // It fails while there is nothing to tell.
            let told = run("kubectl", &["top", "pods", "--namespace", &space.name, "--no-headers"]).unwrap_or_default();
            if told.lines().any(|line| line.starts_with("s-mcp-")) {
                return told;
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(1), told).await.context("kubectl top does not tell of the pods")
}

#[tokio::test]
async fn kubectl_and_an_autoscaler_by_cpu_scale_the_server_both_ways_and_nobody_puts_it_back() {
    with_space(|space| async move {
        install(&space).await?;
        let mut server = sqlite("s", 1, 5);
        // The load takes both cores, and answers take their turns.
        server["spec"]["health"]["timeoutSeconds"] = json!(5);
        server["spec"]["resources"] = json!({"requests": {"cpu": "100m"}});
        space.create::<McpServer>(server).await?;
        let url = url(space.until::<McpServer>("s", "1/1", |server| serves(server, "1/1")).await?)?;
        let kubectl = |arguments: &str| {
            let arguments: Vec<_> = arguments.split(' ').chain(["--namespace", &space.name]).collect();
            run("kubectl", &arguments)
        };
        kubectl("scale mcpserver s --replicas=2")?;
        space.until::<McpServer>("s", "2/2", |server| serves(server, "2/2")).await?;
        settled(&url).await?;

        let began = Instant::now();
        let counts = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 300000) SELECT count(*) FROM c";
        let load = Callers::start(2, &url, "read_query", &json!({"query": counts}));
        kubectl("autoscale mcpserver s --min=1 --max=3 --cpu=100%")?;
        // It would wait for five minutes before it takes pods away.
        let at_once = json!({"spec": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}});
        space.edit::<HorizontalPodAutoscaler>("s", at_once).await?;
        until_scaled(&space, 3).await?;
        println!("3/3 {:.1} s after the load began", began.elapsed().as_secs_f64());
        let told = space.api::<HorizontalPodAutoscaler>().get("s").await?.status.context("it has one")?;
        let cpu = told.current_metrics.iter().flatten().find_map(|metric| metric.resource.as_ref()?.current.average_utilization);
        println!("the autoscaler saw {cpu:?} %; kubectl top pods:\n{}", top(&space).await?);
        anyhow::ensure!(cpu.is_some_and(|percent| percent > 100), "{told:?}");

        println!("{} calls, none failed", load.end().await?);
        let ended = Instant::now();
        until_scaled(&space, 1).await?;
        println!("1/1 {:.1} s after its end", ended.elapsed().as_secs_f64());
        Ok(())
    })
    .await;
}

/// Connections by TLS.
struct Tls {
    plain: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, from) = axum::serve::Listener::accept(&mut self.plain).await;
            // Somebody who is no client is no fault of ours.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.plain.local_addr()
    }
}

const METRICS: &str = "external.metrics.k8s.io";

/// The API that KEDA, too, gives to autoscalers: it knows one number, whatever the metric is called.
async fn metrics_of_others(space: &Space, number: Arc<AtomicU64>) -> anyhow::Result<APIService> {
    let names = vec![format!("metrics.{}.svc", space.name)];
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names)?;
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert.der().clone()], key)?;
    let plain = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    let port = plain.local_addr()?.port();
    let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{METRICS}/v1beta1"), "resources": [
        {"name": "externalmetrics", "namespaced": true, "singularName": "", "kind": "ExternalMetricValueList", "verbs": ["get"]},
    ]});
    let value = async move |Path((_, metric)): Path<(String, String)>| {
        let value = number.load(Ordering::Relaxed).to_string();
        let item = json!({"metricName": metric, "metricLabels": {}, "timestamp": clock::now(), "value": value});
        Json(
            json!({"kind": "ExternalMetricValueList", "apiVersion": format!("{METRICS}/v1beta1"), "metadata": {}, "items": [item]}),
        )
    };
    let routes = Router::new()
        .route(&format!("/apis/{METRICS}/v1beta1"), get(async move || Json(list)))
        .route(&format!("/apis/{METRICS}/v1beta1/namespaces/{{namespace}}/{{metric}}"), get(value));
    // It ends with the test.
    tokio::spawn(axum::serve(Tls { plain, acceptor: TlsAcceptor::from(Arc::new(tls)) }, routes).into_future());

    let nodes: Api<Node> = Api::all(space.client.clone());
    let node = nodes.list(&ListParams::default()).await?.items.pop().and_then(|node| node.status).context("a node")?;
    let address = node.addresses.iter().flatten().find(|address| address.type_ == "InternalIP").context("an address")?;
    space
        .create::<Service>(json!({"metadata": {"name": "metrics"}, "spec": {"ports": [{"port": 443, "targetPort": port}]}}))
        .await?;
    space
        .create::<EndpointSlice>(json!({
            "metadata": {"name": "metrics", "labels": {"kubernetes.io/service-name": "metrics"}}, "addressType": "IPv4",
            "ports": [{"name": "", "port": port}], "endpoints": [{"addresses": [address.address]}],
        }))
        .await?;
    let mut service: APIService = serde_json::from_value(json!({"metadata": {"name": format!("v1beta1.{METRICS}")}, "spec": {
        "group": METRICS, "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
        "service": {"namespace": space.name, "name": "metrics"},
    }}))?;
    service.spec.as_mut().context("it has one")?.ca_bundle = Some(ByteString(cert.pem().into_bytes()));
    Ok(service)
}

/// What KEDA makes of a ScaledObject: an autoscaler by a metric of its own, and writes of its own to the scale for none and one.
#[tokio::test]
async fn an_autoscaler_by_a_metric_of_others_scales_a_server_as_keda_has_it() {
    with_space(|space| async move {
        install(&space).await?;
        space.create::<McpServer>(sqlite("s", 1, 5)).await?;
        space.until::<McpServer>("s", "1/1", |server| serves(server, "1/1")).await?;
        let waiting = Arc::new(AtomicU64::new(11));
        let services: Api<APIService> = Api::all(space.client.clone());
        let service = metrics_of_others(&space, Arc::clone(&waiting)).await?;
        let service = services.create(&PostParams::default(), &service).await?;
        let scaled = async {
            let metric = json!({"name": "s0-queue", "selector": {"matchLabels": {"scaledobject.keda.sh/name": "s"}}});
            let five_a_pod = json!({"type": "AverageValue", "averageValue": "5"});
            let metric = json!({"type": "External", "external": {"metric": metric, "target": five_a_pod}});
            space.create::<HorizontalPodAutoscaler>(autoscaler(&metric)).await?;
            until_scaled(&space, 3).await?;
            waiting.store(2, Ordering::Relaxed);
            until_scaled(&space, 1).await
        }
        .await;
        // It is the whole cluster's: nothing of it may stay, however that went.
        services.delete(&service.metadata.name.context("it has one")?, &DeleteParams::default()).await?;
        scaled
    })
    .await;
}
