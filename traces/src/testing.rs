//! A collector for tests: it receives what a program exports, and keeps it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use data_encoding::HEXLOWER;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;

/// See the file.
#[derive(Debug, Clone)]
pub struct Received {
    endpoint: String,
    all: Arc<Mutex<All>>,
}

#[derive(Debug, Default)]
struct All {
    spans: Vec<Span>,
    raw: Vec<u8>,
    service: String,
}

impl Received {
    /// Listens on this machine.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let received = Self { all: Arc::default(), endpoint: format!("http://{}", listener.local_addr().unwrap()) };
        let router = Router::new().route("/v1/traces", post(collect)).with_state(received.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        received
    }

    /// What makes a program send its spans here, soon after they end.
    pub fn environment(&self) -> [(&'static str, &str); 2] {
        [("OTEL_EXPORTER_OTLP_ENDPOINT", &self.endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "50")]
    }

    /// All spans, when this many have come.
    pub async fn spans(&self, count: usize) -> Vec<Span> {
        for _ in 0..400 {
            let spans = self.all.lock().unwrap().spans.clone();
            if spans.len() >= count {
                return spans;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("twenty seconds brought {:?}", self.all.lock().unwrap().spans)
    }

    /// The spans that have come are not looked at again.
    pub fn forget(&self) {
        self.all.lock().unwrap().spans.clear();
    }

    /// `service.name` of the latest ones.
    pub fn service(&self) -> String {
        self.all.lock().unwrap().service.clone()
    }

    /// None of these words was sent.
    pub fn assert_unsaid(&self, words: &[&str]) {
        let raw = String::from_utf8_lossy(&self.all.lock().unwrap().raw).into_owned();
        for word in words {
            assert!(!raw.contains(word), "{word} was exported");
        }
    }
}

async fn collect(State(received): State<Received>, body: Bytes) -> Bytes {
    let export = ExportTraceServiceRequest::decode(body.clone()).unwrap();
    let mut all = received.all.lock().unwrap();
    all.raw.extend_from_slice(&body);
    for resource in export.resource_spans {
        all.service = text(&resource.resource.unwrap().attributes, "service.name");
        all.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
    }
    Bytes::new()
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    match attributes.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone()).and_then(|value| value.value) {
        Some(Any::StringValue(text)) => text,
        Some(Any::IntValue(number)) => number.to_string(),
        Some(other) => format!("{other:?}"),
        None => "absent".to_owned(),
    }
}

/// An attribute of a span, as text; `absent` where it has none.
pub fn of(span: &Span, key: &str) -> String {
    text(&span.attributes, key)
}

/// An id, as headers write it.
pub fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}
