//! The spans of this program, by OpenTelemetry: those of the GenAI conventions. invoke_agent holds a turn, chat a call of the model,
//! execute_tool a call of a tool. None of them carries what people, models or tools say. When they are sent, and how, is the crate
//! `traces`. Knows nothing of logs; spans of traces are told apart from those of logs by their target. Nor does it know turns and tools: what
//! they came to, it is told in words and numbers.

use std::time::Duration;

use axum::http::HeaderMap;
use opentelemetry::trace::TraceContextExt;
use rmcp::model::RequestMetaObject;
use traces::{Parent, Service, Traces};
use tracing::{Span, Subscriber, field::Empty, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use crate::message::{StopReason, Usage};

/// Of every span here, so that the log does not see them and the traces see nothing else.
const TARGET: &str = "mcpfleet::trace";
/// Whoever it is that serves a model of one's own.
const OTHER: &str = "other";
const SERVICE: Service = Service { name: "chat-worker", version: env!("CARGO_PKG_VERSION") };

/// Sends spans until it is stopped.
#[derive(Debug)]
pub struct Telemetry(Traces);

impl Telemetry {
    /// Begins to send, if the environment asks for it.
    pub fn start() -> Result<Option<Self>, traces::Error> {
        Ok(Traces::start_with(SERVICE, |target| client(target.timeout))?.map(Self))
    }

    /// What turns our spans into OpenTelemetry's.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer().clone())
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target() == TARGET))
    }

    /// Sends what has ended, and stops.
    pub async fn stop(self) {
        self.0.stop().await;
    }
}

/// The SDK sends from a thread of its own, and waits. Such a client has a runtime inside, and cannot be made within another.
fn client(timeout: Duration) -> Result<reqwest::blocking::Client, traces::Error> {
    let made = std::thread::spawn(move || reqwest::blocking::Client::builder().timeout(timeout).build());
    made.join().expect("making a client does not panic").map_err(|error| traces::Error::Client(error.into()))
}

/// A request over HTTP, as a part of its caller's trace where that sent one.
pub fn serve(method: &'static str, route: &'static str, headers: &HeaderMap) -> Span {
    let span = info_span!(target: TARGET, "HTTP", otel.name = format_args!("{method} {route}"), otel.kind = "server",
        http.request.method = method, http.route = route, url.path = route);
    continue_trace(&span, Parent { headers: Some(headers), meta: None });
    span
}

/// A tool call over /mcp. What the message says of its trace comes before what the HTTP request says.
pub fn serve_tool(tool: &str, headers: Option<&HeaderMap>, meta: &RequestMetaObject) -> Span {
    let span = info_span!(target: TARGET, "tools/call", otel.name = format_args!("tools/call {tool}"), otel.kind = "server",
        mcp.method.name = "tools/call", gen_ai.tool.name = tool, "error.type" = Empty, otel.status_code = Empty);
    continue_trace(&span, Parent { headers, meta: meta.get_traceparent().map(|parent| (parent, meta.get_tracestate())) });
    span
}

/// A turn.
pub fn invoke_agent(provider: Option<&str>, model: &str, request_id: &str) -> Span {
    info_span!(target: TARGET, "invoke_agent", otel.name = "invoke_agent mcpfleet", otel.kind = "internal",
        gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "mcpfleet", gen_ai.provider.name = provider.unwrap_or(OTHER),
        gen_ai.request.model = model, mcpfleet.request.id = request_id, gen_ai.response.model = Empty,
        gen_ai.usage.input_tokens = Empty, gen_ai.usage.output_tokens = Empty,
        gen_ai.usage.cache_read.input_tokens = Empty, gen_ai.usage.cache_creation.input_tokens = Empty,
        "error.type" = Empty, otel.status_code = Empty)
}

/// A call that is under way. One that is given up ends as cancelled.
#[derive(Debug)]
pub struct Traced {
    span: Span,
    over: bool,
}

impl Traced {
    /// A call of the model, with all its attempts.
    pub fn chat(provider: Option<&str>, model: &str) -> Self {
        let span = info_span!(target: TARGET, "chat", otel.name = format_args!("chat {model}"), otel.kind = "client",
            gen_ai.operation.name = "chat", gen_ai.provider.name = provider.unwrap_or(OTHER), gen_ai.request.model = model,
            gen_ai.response.model = Empty, gen_ai.response.finish_reasons = Empty, gen_ai.response.time_to_first_chunk = Empty,
            gen_ai.usage.input_tokens = Empty, gen_ai.usage.output_tokens = Empty,
            gen_ai.usage.cache_read.input_tokens = Empty, gen_ai.usage.cache_creation.input_tokens = Empty,
            "error.type" = Empty, otel.status_code = Empty);
        Self { span, over: false }
    }

    /// A call of a tool of an MCP server; its own spans continue this one.
    pub fn execute_tool(server: &str, tool: &str, call: Option<&str>) -> Self {
        let span = info_span!(target: TARGET, "execute_tool", otel.name = format_args!("execute_tool {tool}"),
            otel.kind = "client", gen_ai.operation.name = "execute_tool", gen_ai.tool.name = tool,
            "gen_ai.tool.type" = "extension", gen_ai.tool.call.id = call, mcp.method.name = "tools/call",
            mcpfleet.server = server, "error.type" = Empty, otel.status_code = Empty);
        Self { span, over: false }
    }

    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// The model answered: which one, why it stopped there, when it began, and what it took.
    pub fn answered(self, model: &str, stop: &StopReason, first_token: Option<Duration>, usage: Usage) {
        if !self.span.is_disabled() {
            self.span.record("gen_ai.response.model", model);
            self.span.record("gen_ai.response.finish_reasons", format!("{:?}", [stop.name()]));
            if let Some(time) = first_token {
                self.span.record("gen_ai.response.time_to_first_chunk", time.as_secs_f64());
            }
            used(&self.span, usage);
        }
        self.ended(None);
    }

    /// It came to its end: in an error of this kind, or well. An error that a tool reports is one, too.
    pub fn ended(mut self, error: Option<&str>) {
        self.over = true;
        if let Some(kind) = error {
            failed(&self.span, kind);
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        if !self.over {
            failed(&self.span, "cancelled");
        }
    }
}

/// What the turn came to whose span this is called in: in an error of this kind, or well.
pub fn turned(model: &str, usage: Usage, error: Option<&str>) {
    let span = Span::current();
    span.record("gen_ai.response.model", model);
    used(&span, usage);
    if let Some(kind) = error {
        failed(&span, kind);
    }
}

/// The tokens. The convention's input is all of it, the API's leaves out what came from the cache and went there.
fn used(span: &Span, usage: Usage) {
    span.record("gen_ai.usage.input_tokens", usage.total().saturating_sub(usage.output_tokens));
    span.record("gen_ai.usage.output_tokens", usage.output_tokens);
    span.record("gen_ai.usage.cache_read.input_tokens", usage.cache_read_input_tokens);
    span.record("gen_ai.usage.cache_creation.input_tokens", usage.cache_creation_input_tokens);
}

/// The span ends in an error of this type.
pub fn failed(span: &Span, kind: &str) {
    span.record("error.type", kind);
    span.record("otel.status_code", "ERROR");
}

/// What tells a server which trace it is called in.
pub fn here() -> RequestMetaObject {
    let (mut meta, span) = (RequestMetaObject::new(), Span::current());
    if span.is_disabled() {
        return meta;
    }
    for (key, value) in traces::members(&span.context()) {
        match key {
            "traceparent" => meta.set_traceparent(value),
            _ => meta.set_tracestate(value),
        }
    }
    meta
}

fn continue_trace(span: &Span, from: Parent<'_>) {
    if span.is_disabled() {
        return;
    }
    let context = from.context();
    if context.span().span_context().is_valid() {
        // It fails where there is no layer, and then nobody looks.
        let _ = span.set_parent(context);
    }
}
