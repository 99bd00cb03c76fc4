//! The spans of this server. A span a request, of the conventions for MCP servers, continues its caller's trace. It carries no values; the
//! statement, without the values in it, only beside the audit log. When they are sent, and how, is the crate `traces`; what a call is stays
//! with mcp/call.rs.

use std::borrow::Cow;

use http::HeaderMap;
use http_server::request_id;
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status, TraceId, Tracer as _};
use opentelemetry_sdk::trace::Span;
use rmcp::model::RequestMetaObject;
use traces::{Parent, Service, Traces};

const SERVICE: Service = Service { name: "sandbox-server", version: env!("CARGO_PKG_VERSION") };

/// Makes the spans of requests, and sends them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Telemetry(Traces);

/// What there is to know of a request's caller.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// None on standard input.
    pub headers: Option<&'a HeaderMap>,
    /// The `_meta` of the request.
    pub meta: &'a RequestMetaObject,
}

impl Telemetry {
    /// Begins to send from the runtime that this is called in, if the environment asks for it.
    pub fn start() -> Result<Option<Self>, traces::Error> {
        Ok(Traces::start(SERVICE)?.map(Self))
    }

    /// A request begins. `target` is what its method is asked of: a tool, a prompt.
    pub fn begin(&self, method: &'static str, target: Option<&str>, origin: Origin<'_>) -> ServerSpan {
        let name = target.map_or(Cow::Borrowed(method), |target| Cow::Owned(format!("{method} {target}")));
        let mut attributes = Vec::with_capacity(8);
        attributes.push(KeyValue::new("mcp.method.name", method));
        attributes.push(KeyValue::new("network.transport", if origin.headers.is_some() { "tcp" } else { "pipe" }));
        if let Some(headers) = origin.headers {
            attributes.push(KeyValue::new("network.protocol.name", "http"));
            attributes.push(KeyValue::new("mcpfleet.request.id", request_id::of(headers).to_owned()));
        }
        if let Some(version) = origin.version() {
            attributes.push(KeyValue::new("mcp.protocol.version", version));
        }
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Server).with_attributes(attributes);
        ServerSpan(self.0.tracer().build_with_context(builder, &origin.parent().context()))
    }

    /// Sends what has ended, and stops.
    pub async fn stop(self) {
        self.0.stop().await;
    }
}

/// A request under way. It ends when this is dropped.
#[derive(Debug)]
pub struct ServerSpan(Span);

impl ServerSpan {
    /// A tool is called.
    pub fn tool(&mut self, tool: &'static str) {
        self.0.set_attribute(KeyValue::new("gen_ai.operation.name", "execute_tool"));
        self.0.set_attribute(KeyValue::new("gen_ai.tool.name", tool));
        self.0.set_attribute(KeyValue::new("db.system.name", "sqlite"));
    }

    /// How the tool's call ended: the label that the metrics count it under.
    pub fn called(&mut self, outcome: &'static str, rows: usize) {
        self.0.set_attribute(KeyValue::new("mcpfleet.outcome", outcome));
        if outcome == "ok" {
            self.0.set_attribute(KeyValue::new("db.response.returned_rows", i64::try_from(rows).unwrap_or(i64::MAX)));
        } else {
            self.0.set_attribute(KeyValue::new("error.type", "tool_error"));
            self.0.set_status(Status::error(""));
        }
    }

    /// The statement. It must hold no values.
    pub fn statement(&mut self, without_values: String) {
        self.0.set_attribute(KeyValue::new("db.query.text", without_values));
    }

    /// The request ends in an error of the protocol.
    pub fn refused(&mut self, code: i32) {
        self.0.set_attribute(KeyValue::new("error.type", code.to_string()));
        self.0.set_attribute(KeyValue::new("rpc.response.status_code", code.to_string()));
        self.0.set_status(Status::error(""));
    }

    /// The trace that this is a part of.
    pub fn trace(&self) -> TraceId {
        self.0.span_context().trace_id()
    }
}

impl Origin<'_> {
    fn parent(&self) -> Parent<'_> {
        let meta = self.meta.get_traceparent().map(|parent| (parent, self.meta.get_tracestate()));
        Parent { headers: self.headers, meta }
    }

    fn version(&self) -> Option<String> {
        let header = || self.headers?.get("mcp-protocol-version")?.to_str().ok().map(str::to_owned);
        self.meta.protocol_version().map(|version| version.to_string()).or_else(header)
    }
}
