//! Traces: a collector on this machine receives what the real binary exports, and the tree of spans is what the GenAI conventions
//! ask for, from the caller's trace to the server's call, without a word of what was said.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use data_encoding::HEXLOWER;
use model_standin::Running as Model;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value as Any},
    trace::v1::Span,
};
use prost::Message;
use serde_json::{Value, json};
use support::{Fake, Mood, binary::Binary};
use tokio::net::TcpListener;

const SCRIPT: &str = r#"
rules:
  - {name: echo, when: [echo], steps: [{tools: [{tool: echo, input: {text: whispered}}, {tool: fail}]}, {text: "It said something."}]}
  - {name: down, when: [down], steps: [{fault: {status: 529, type: overloaded_error}}]}
otherwise: {text: "Hello."}
"#;
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// What came in, with the headers of the last request.
#[derive(Default)]
struct Received {
    spans: Vec<Span>,
    raw: Vec<u8>,
    resource: Vec<KeyValue>,
    header: String,
}

type Collector = Arc<Mutex<Received>>;

async fn collect(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> Bytes {
    let export = ExportTraceServiceRequest::decode(body.clone()).unwrap();
    let mut received = collector.lock().unwrap();
    received.raw.extend_from_slice(&body);
    headers["x-tenant"].to_str().unwrap().clone_into(&mut received.header);
    for resource in export.resource_spans {
        received.resource = resource.resource.unwrap().attributes;
        received.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
    }
    Bytes::new()
}

fn attribute(attributes: &[KeyValue], key: &str) -> String {
    match attributes.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone()).and_then(|value| value.value) {
        Some(Any::StringValue(text)) => text,
        Some(Any::IntValue(number)) => number.to_string(),
        Some(other) => format!("{other:?}"),
        None => "absent".to_owned(),
    }
}

struct Traced {
    worker: Binary,
    fake: Arc<Fake>,
    collector: Collector,
    _model: Model,
    _directory: tempfile::TempDir,
}

impl Traced {
    async fn start() -> Self {
        let collector = Collector::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/traces", post(collect)).with_state(Arc::clone(&collector));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let directory = tempfile::tempdir().unwrap();
        let (model, fake) = (Model::start(SCRIPT).await.unwrap(), Fake::start(Mood::Modern).await);
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=chat".to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
        ];
        let args = ["--approvals", "always"];
        let worker = Binary::start_with(directory.path(), &[fake.entry("a")], &model.url(), &args, &environment).await;
        while worker.servers().await[0]["state"] != "up" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { worker, fake, collector, _model: model, _directory: directory }
    }

    async fn ask(&self, message: &str) -> Value {
        let request = self.worker.http.post(format!("{}/v1/chat", self.worker.url)).header("traceparent", PARENT);
        request.json(&json!({"message": message, "stream": false})).send().await.unwrap().json().await.unwrap()
    }

    /// All spans, when this many have come.
    async fn spans(&self, count: usize) -> Vec<Span> {
        for _ in 0..200 {
            let spans = self.collector.lock().unwrap().spans.clone();
            if spans.len() >= count {
                return spans;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        unreachable!("ten seconds brought {:?}", self.collector.lock().unwrap().spans)
    }
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

#[tokio::test]
async fn a_turn_is_one_tree_from_the_callers_trace_to_the_servers_call() {
    let traced = Traced::start().await;
    let answer = traced.ask("echo my secret question").await;
    assert_eq!(answer["answer"], "It said something.");
    let spans = traced.spans(6).await;
    assert_eq!(spans.len(), 6, "{spans:#?}");
    assert!(spans.iter().all(|span| HEXLOWER.encode(&span.trace_id) == TRACE));
    let one = |name: &str| *named(&spans, name).first().unwrap_or_else(|| unreachable!("no {name} in {spans:#?}"));
    let (http, agent) = (one("POST /v1/chat"), one("invoke_agent mcpfleet"));
    assert_eq!(HEXLOWER.encode(&http.parent_span_id), "b7ad6b7169203331");
    assert_eq!(agent.parent_span_id, http.span_id);
    let chats = named(&spans, "chat claude-haiku-5-5");
    assert_eq!(chats.len(), 2);
    for span in chats.iter().chain([&one("execute_tool echo"), &one("execute_tool fail")]) {
        assert_eq!(span.parent_span_id, agent.span_id, "{}", span.name);
    }
    let of = |span: &Span, key: &str| attribute(&span.attributes, key);
    assert_eq!(of(agent, "gen_ai.operation.name"), "invoke_agent");
    assert_eq!(of(chats[0], "gen_ai.operation.name"), "chat");
    assert_eq!(of(chats[0], "gen_ai.provider.name"), "anthropic");
    assert_eq!(of(chats[0], "gen_ai.request.model"), "claude-haiku-5-5");
    assert_eq!(of(chats[0], "gen_ai.response.model"), "stand-in");
    let reasons: Vec<_> = chats.iter().map(|span| of(span, "gen_ai.response.finish_reasons")).collect();
    assert!(reasons.iter().any(|reason| reason.contains("tool_use")) && reasons.iter().any(|reason| reason.contains("end_turn")));
    let tokens = |span: &Span| of(span, "gen_ai.usage.input_tokens").parse::<u64>().unwrap();
    assert_eq!(tokens(agent), chats.iter().map(|span| tokens(span)).sum::<u64>());
    assert!(tokens(agent) > 0 && of(agent, "gen_ai.usage.output_tokens") != "absent");
    let (echo, fail) = (one("execute_tool echo"), one("execute_tool fail"));
    assert_eq!((of(echo, "gen_ai.tool.name"), of(echo, "mcpfleet.server")), ("echo".to_owned(), "a".to_owned()));
    assert!(of(echo, "gen_ai.tool.call.id").starts_with("toolu_"));
    assert_eq!((of(echo, "error.type"), of(fail, "error.type")), ("absent".to_owned(), "tool_error".to_owned()));
    assert_eq!(fail.status.as_ref().unwrap().code, 2);

    // The server is told which span it is called in.
    let calls = traced.fake.calls.lock().unwrap().clone();
    let echoed = calls.iter().find(|call| call["name"] == "echo").unwrap();
    assert_eq!(echoed["_meta"]["traceparent"], format!("00-{TRACE}-{}-01", HEXLOWER.encode(&echo.span_id)));

    let received = traced.collector.lock().unwrap();
    assert_eq!(received.header, "chat");
    assert_eq!(attribute(&received.resource, "service.name"), "chat-worker");
    let raw = String::from_utf8_lossy(&received.raw).into_owned();
    for said in ["secret question", "whispered", "It said", "it did not work"] {
        assert!(!raw.contains(said), "{said} was exported");
    }
}

#[tokio::test]
async fn failures_and_calls_over_mcp_are_traced_too_and_nothing_is_lost_at_the_end() {
    let mut traced = Traced::start().await;
    traced.worker.call("a__echo").await;
    let spans = traced.spans(2).await;
    let (served, made) = (named(&spans, "tools/call a__echo")[0], named(&spans, "execute_tool echo")[0]);
    assert!(served.parent_span_id.is_empty());
    assert_eq!(made.parent_span_id, served.span_id);

    let answer = traced.ask("down").await;
    assert_eq!(answer["error"]["kind"], "overloaded_error");
    // At once: what has not been sent yet is sent on the way out.
    traced.worker.terminate(Duration::from_secs(20)).await;
    let spans = traced.spans(5).await;
    let chat = named(&spans, "chat claude-haiku-5-5")[0];
    assert_eq!(attribute(&chat.attributes, "error.type"), "overloaded_error");
    let agent = named(&spans, "invoke_agent mcpfleet")[0];
    assert_eq!(attribute(&agent.attributes, "error.type"), "overloaded_error");
}
