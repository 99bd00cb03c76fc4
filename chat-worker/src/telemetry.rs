//! Traces by OpenTelemetry, where somebody wants them: off, and free of cost, unless OTEL_EXPORTER_OTLP_ENDPOINT (or
//! …_TRACES_ENDPOINT) is set. The spans are those of the GenAI conventions: invoke_agent holds a turn, chat a call of the model,
//! execute_tool a call of a tool. None of them carries what people, models or tools say. The other OTEL_ variables are the
//! SDK's business. Knows nothing of logs; spans of traces are told apart from those of logs by their target.

use std::time::Duration;

use axum::http::HeaderMap;
use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, Injector, TextMapPropagator},
    trace::{SpanContext, TraceContextExt, TracerProvider},
};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use rmcp::model::{CallToolRequestParams, RequestMetaObject};
use tracing::{Span, Subscriber, field::Empty, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use crate::{
    llm::{Answer, ModelError, wire::Usage},
    tools::answer::ToolOutput,
    turn::machine::Outcome,
};

/// Of every span here, so that the log does not see them and the traces see nothing else.
const TARGET: &str = "mcpfleet::trace";
const SERVICE: &str = "chat-worker";
const FLUSH: Duration = Duration::from_secs(5);

/// For one export, unless OTEL_EXPORTER_OTLP_TIMEOUT says otherwise.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends spans until it is stopped.
#[derive(Debug)]
pub struct Telemetry(SdkTracerProvider);

/// Traces are wanted, and cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("OTEL_EXPORTER_OTLP_PROTOCOL={0} is not spoken here; set it to http/protobuf, or leave it out")]
    Protocol(String),
    #[error("the OTEL_EXPORTER_OTLP_ variables cannot be used: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    #[error("the client that sends traces cannot be made: {0}")]
    Client(#[from] reqwest::Error),
}

impl Telemetry {
    /// Begins to send, if the environment asks for it.
    pub fn start() -> Result<Option<Self>, TelemetryError> {
        if !is_wanted(|name| std::env::var(name).ok()) {
            return Ok(None);
        }
        let either = |name: &str| {
            let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{name}"), format!("OTEL_EXPORTER_OTLP_{name}")];
            names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        };
        if let Some(other) = either("PROTOCOL").filter(|protocol| protocol != "http/protobuf") {
            return Err(TelemetryError::Protocol(other));
        }
        let timeout = either("TIMEOUT").and_then(|millis| millis.parse().ok()).map_or(EXPORT_TIMEOUT, Duration::from_millis);
        let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary);
        let exporter = exporter.with_http_client(client(timeout)?).build()?;
        let mut resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        let named = std::env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|all| all.contains("service.name="));
        if !named && std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(SERVICE);
        }
        Ok(Some(Self(SdkTracerProvider::builder().with_resource(resource.build()).with_batch_exporter(exporter).build())))
    }

    /// What turns our spans into OpenTelemetry's.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer(SERVICE))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target() == TARGET))
    }

    /// Sends what has ended, and stops.
    pub async fn stop(self) {
        let stopped = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(FLUSH)).await;
        if let Ok(Err(error)) = stopped {
            tracing::warn!("the last traces may be lost: {error}");
        }
    }
}

/// The SDK sends from a thread of its own, and waits. Such a client has a runtime inside, and cannot be made within another.
fn client(timeout: Duration) -> Result<reqwest::blocking::Client, reqwest::Error> {
    let made = std::thread::spawn(move || reqwest::blocking::Client::builder().timeout(timeout).build());
    made.join().expect("making a client does not panic")
}

/// Pure, but for where the variables come from.
fn is_wanted(variable: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let disabled = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let other = set("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter != "otlp");
    let endpoint = set("OTEL_EXPORTER_OTLP_ENDPOINT").or_else(|| set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"));
    endpoint.is_some() && !disabled && !other
}

/// A request over HTTP, as a part of its caller's trace where that sent one.
pub fn serve(method: &'static str, route: &'static str, headers: &HeaderMap) -> Span {
    let span = info_span!(target: TARGET, "HTTP", otel.name = format_args!("{method} {route}"), otel.kind = "server",
        http.request.method = method, http.route = route, url.path = route);
    continue_trace(&span, &Headers(headers));
    span
}

/// A tool call over /mcp. What the message says of its trace comes before what the HTTP request says.
pub fn serve_tool(tool: &str, headers: Option<&HeaderMap>, meta: &RequestMetaObject) -> Span {
    let span = info_span!(target: TARGET, "tools/call", otel.name = format_args!("tools/call {tool}"), otel.kind = "server",
        mcp.method.name = "tools/call", gen_ai.tool.name = tool, "error.type" = Empty, otel.status_code = Empty);
    if meta.get_traceparent().is_some() {
        continue_trace(&span, &Meta(meta));
    } else if let Some(headers) = headers {
        continue_trace(&span, &Headers(headers));
    }
    span
}

/// A turn.
pub fn invoke_agent(model: &str, request_id: &str) -> Span {
    info_span!(target: TARGET, "invoke_agent", otel.name = "invoke_agent mcpfleet", otel.kind = "internal",
        gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "mcpfleet", gen_ai.provider.name = "anthropic",
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
            gen_ai.operation.name = "chat", gen_ai.provider.name = provider.unwrap_or("other"), gen_ai.request.model = model,
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

    /// What the model answered.
    pub fn answered(mut self, answer: &Result<Answer, ModelError>) {
        self.over = true;
        match answer {
            _ if self.span.is_disabled() => {}
            Ok(answer) => {
                self.span.record("gen_ai.response.model", answer.model.as_str());
                self.span.record("gen_ai.response.finish_reasons", format!("{:?}", [answer.stop.name()]));
                if let Some(time) = answer.first_token {
                    self.span.record("gen_ai.response.time_to_first_chunk", time.as_secs_f64());
                }
                used(&self.span, answer.usage);
            }
            Err(error) => failed(&self.span, error.kind()),
        }
    }

    /// What the tool answered. An error that it reports is one, too.
    pub fn executed(mut self, output: &ToolOutput) {
        self.over = true;
        if output.is_error {
            failed(&self.span, output.outcome);
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

/// What the turn came to whose span this is called in.
pub fn turned(model: &str, usage: Usage, outcome: &Result<Outcome, ModelError>) {
    let span = Span::current();
    span.record("gen_ai.response.model", model);
    used(&span, usage);
    if let Err(error) = outcome {
        failed(&span, error.kind());
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

/// Tells a server which trace it is called in.
pub fn inject(params: &mut CallToolRequestParams) {
    let context = Span::current().context();
    if context.span().span_context().is_valid() {
        let meta = params.meta.get_or_insert_default();
        TraceContextPropagator::new().inject_context(&context, &mut Fields(meta));
    }
}

fn continue_trace(span: &Span, from: &dyn Extractor) {
    if span.is_disabled() {
        return;
    }
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), from);
    let parent: SpanContext = context.span().span_context().clone();
    if parent.is_valid() {
        // It fails where there is no layer, and then nobody looks.
        let _ = span.set_parent(context);
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}

struct Meta<'a>(&'a RequestMetaObject);

impl Extractor for Meta<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.0.get_traceparent(),
            "tracestate" => self.0.get_tracestate(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

struct Fields<'a>(&'a mut RequestMetaObject);

impl Injector for Fields<'_> {
    fn set(&mut self, key: &str, value: String) {
        match key {
            "traceparent" => self.0.set_traceparent(value),
            "tracestate" if !value.is_empty() => self.0.set_tracestate(value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_sent_only_where_somebody_asks_for_them() {
        let wanted = |set: &[(&str, &str)]| {
            let of = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            is_wanted(of)
        };
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        assert!(!wanted(&[]));
        assert!(!wanted(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]));
        assert!(wanted(&[endpoint]));
        assert!(wanted(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4318/v1/traces")]));
        assert!(!wanted(&[endpoint, ("OTEL_SDK_DISABLED", "true")]));
        assert!(!wanted(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]));
    }
}
