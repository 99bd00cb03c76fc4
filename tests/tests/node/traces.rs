//! One trace through the fleet: from a caller through an app's turn and its tool call to the statement in the server, as pods of the
//! released images export it. Each program's own spans are its own tests' business (traces.rs, chat_traces.rs).

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context;
use axum::{Router, body::Bytes, extract::State, routing::post};
use mcpfleet_tests::cluster::{Space, with_space};
use model_standin::script::Script;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value as Any, trace::v1::Span,
};
use operator::crd::{McpApp, McpServer};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    chat_drill::{Chat, node_address, standin},
    setup::{install, ready, sqlite},
};

const SCRIPT: &str = r#"
rules:
  - {name: go, when: [go], steps: [{tools: [{tool: one__read_query, input: {query: "SELECT 'whispered'"}}]}, {text: "It is there."}]}
otherwise: {text: "what?"}
"#;
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// A span with the service that made it.
#[derive(Debug, Clone)]
struct Made {
    service: String,
    span: Span,
}

type Collector = Arc<Mutex<Vec<Made>>>;

async fn collect(State(collector): State<Collector>, body: Bytes) -> Bytes {
    let export = ExportTraceServiceRequest::decode(body).unwrap();
    for resource in export.resource_spans {
        let attributes = resource.resource.unwrap_or_default().attributes;
        let named = attributes.into_iter().find(|pair| pair.key == "service.name").and_then(|pair| pair.value?.value);
        let Some(Any::StringValue(service)) = named else { panic!("spans of no service") };
        let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        collector.lock().unwrap().extend(spans.map(|span| Made { service: service.clone(), span }));
    }
    Bytes::new()
}

/// A collector that pods reach.
async fn collector(space: &Space) -> anyhow::Result<(Collector, String)> {
    let listener = TcpListener::bind((node_address(space).await?.as_str(), 0)).await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let collector = Collector::default();
    let router = Router::new().route("/v1/traces", post(collect)).with_state(Arc::clone(&collector));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Ok((collector, endpoint))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// From the statement up to the caller: service and name of each span; None: not all of them have come.
fn path_up(made: &[Made]) -> Option<Vec<String>> {
    let of_trace = || made.iter().filter(|made| hex(&made.span.trace_id) == TRACE);
    let mut at = of_trace().find(|made| made.service == "sandbox-server")?;
    let mut path = Vec::new();
    loop {
        path.push(format!("{}: {}", at.service, at.span.name));
        if hex(&at.span.parent_span_id) == CALLER {
            return Some(path);
        }
        at = of_trace().find(|made| made.span.span_id == at.span.parent_span_id)?;
    }
}

#[tokio::test]
async fn a_statement_in_a_server_belongs_to_the_trace_of_the_person_who_asked() {
    with_space(|space| async move {
        install(&space).await?;
        let (collector, endpoint) = collector(&space).await?;
        let (_standin, url) = standin(&space, Script::parse(SCRIPT)?).await?;
        let env = json!([{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": endpoint}, {"name": "OTEL_BSP_SCHEDULE_DELAY", "value": "100"}]);
        let mut server = sqlite("one", 1, 2);
        server["spec"]["env"].clone_from(&env);
        space.create::<McpServer>(server).await?;
        space.until::<McpServer>("one", "Ready", ready).await?;
        space.secret("model", &[("key", "a key of the stand-in")]).await?;
        space
            .create::<McpApp>(json!({"metadata": {"name": "chat"}, "spec": {
                "servers": [{"name": "one"}],
                "model": {"api": "OpenAI", "name": "m", "baseUrl": url, "apiKeySecretRef": {"name": "model", "key": "key"}},
                "env": env,
            }}))
            .await?;
        space
            .until::<McpApp>("chat", "one replica", |app| app.status.as_ref().is_some_and(|status| status.ready_replicas == 1))
            .await?;
        let chat = Chat::of(&space).await?;
        let offered = async {
            while chat.get("/v1/servers").await?["servers"][0]["state"] != "up" {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(Duration::from_mins(1), offered).await.context("the app never reaches the server")??;
        let traceparent = format!("00-{TRACE}-{CALLER}-01");
        let asked = chat.post(&json!({"message": "go", "stream": false})).header("traceparent", traceparent);
        let answer: Value = asked.send().await?.error_for_status()?.json().await?;
        anyhow::ensure!(answer["answer"] == "It is there.", "{answer}");
        let path = async {
            loop {
                let path = path_up(&collector.lock().unwrap());
                if let Some(path) = path {
                    return path;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let path = tokio::time::timeout(Duration::from_secs(20), path).await;
        let path = path.map_err(|_| anyhow::anyhow!("the trace is broken: {:#?}", collector.lock().unwrap()))?;
        let expected = [
            "sandbox-server: tools/call read_query",
            "chat-worker: execute_tool read_query",
            "chat-worker: invoke_agent mcpfleet",
            "chat-worker: POST /v1/chat",
        ];
        anyhow::ensure!(path == expected, "{path:#?}");
        Ok(())
    })
    .await;
}
