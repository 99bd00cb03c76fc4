//! Traces by OpenTelemetry, where somebody wants them: off, and free of cost, unless OTEL_EXPORTER_OTLP_ENDPOINT (or …_TRACES_ENDPOINT) is
//! set. A span a request, of the conventions for MCP servers, continues its caller's trace. It carries no values; the statement, without the
//! values in it, only beside the audit log. The other OTEL_ variables are the SDK's business. What a call is stays with mcp/call.rs.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status, TraceId, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span};
use rmcp::model::RequestMetaObject;
use tokio::runtime::Handle;

const SERVICE: &str = "sandbox-server";

/// For one export, unless OTEL_EXPORTER_OTLP_TIMEOUT says otherwise.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last spans may hold up the end of the process.
const FLUSH: Duration = Duration::from_secs(5);

/// What a collector may say; it is only shown in an error.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Sends spans until it is stopped. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Telemetry {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// Traces are wanted, and cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// gRPC, or JSON.
    #[error("OTEL_EXPORTER_OTLP_PROTOCOL={0} is not spoken here; set it to http/protobuf, or leave it out")]
    Protocol(String),
    /// https.
    #[error("traces are sent over http:// only, not to {0}; send them to a collector beside this server or in its cluster")]
    Scheme(String),
    /// Anything else.
    #[error("the OTEL_EXPORTER_OTLP_ variables cannot be used: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

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
    pub fn start() -> Result<Option<Self>, TelemetryError> {
        Self::by(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn by(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, TelemetryError> {
        let Some(endpoint) = endpoint(&variable) else { return Ok(None) };
        let either = |name: &str| {
            variable(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}")).or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{name}")))
        };
        if let Some(other) = either("PROTOCOL").filter(|protocol| protocol != "http/protobuf") {
            return Err(TelemetryError::Protocol(other));
        }
        if !endpoint.starts_with("http://") {
            return Err(TelemetryError::Scheme(endpoint));
        }
        let timeout = either("TIMEOUT").and_then(|millis| millis.parse().ok()).map_or(EXPORT_TIMEOUT, Duration::from_millis);
        let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        let collector = Collector { client, timeout, runtime: Handle::current() };
        let exporter =
            SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).with_http_client(collector).build()?;
        let mut resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        let named = variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|all| all.contains("service.name="));
        if !named && variable("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(SERVICE);
        }
        let provider = SdkTracerProvider::builder().with_resource(resource.build()).with_batch_exporter(exporter).build();
        Ok(Some(Self { tracer: provider.tracer(SERVICE), provider }))
    }

    /// A request begins. `target` is what its method is asked of: a tool, a prompt.
    pub fn begin(&self, method: &'static str, target: Option<&str>, origin: Origin<'_>) -> ServerSpan {
        let name = target.map_or(Cow::Borrowed(method), |target| Cow::Owned(format!("{method} {target}")));
        let mut attributes = Vec::with_capacity(8);
        attributes.push(KeyValue::new("mcp.method.name", method));
        attributes.push(KeyValue::new("network.transport", if origin.headers.is_some() { "tcp" } else { "pipe" }));
        if origin.headers.is_some() {
            attributes.push(KeyValue::new("network.protocol.name", "http"));
        }
        if let Some(version) = origin.version() {
            attributes.push(KeyValue::new("mcp.protocol.version", version));
        }
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Server).with_attributes(attributes);
        ServerSpan(self.tracer.build_with_context(builder, &origin.context()))
    }

    /// Sends what has ended, and stops.
    pub async fn stop(self) {
        let stopped = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(FLUSH)).await;
        if let Ok(Err(error)) = stopped {
            tracing::warn!("the last traces may be lost: {error}");
        }
    }
}

/// Where to, if traces are wanted. Pure, but for where the variables come from.
fn endpoint(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let other = variable("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter != "otlp");
    let endpoint = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"));
    endpoint.filter(|_| !disabled && !other)
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
    /// What the message says of its trace comes before what the HTTP request says.
    fn context(&self) -> Context {
        TraceContextPropagator::new().extract_with_context(&Context::new(), self)
    }

    fn version(&self) -> Option<String> {
        let header = || self.headers?.get("mcp-protocol-version")?.to_str().ok().map(str::to_owned);
        self.meta.protocol_version().map(|version| version.to_string()).or_else(header)
    }
}

impl Extractor for Origin<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let meta = (self.meta.get_traceparent(), self.meta.get_tracestate());
        match (key, meta) {
            ("traceparent", (Some(parent), _)) => Some(parent),
            // A state belongs to the parent that it came with.
            ("tracestate", (Some(_), state)) => state,
            _ => self.headers?.get(key)?.to_str().ok(),
        }
    }

    fn keys(&self) -> Vec<&str> {
        self.headers.into_iter().flat_map(HeaderMap::keys).map(HeaderName::as_str).collect()
    }
}

/// The way to the collector. The SDK's thread is none of the runtime's, on which connections live.
#[derive(Debug)]
struct Collector {
    client: Client<HttpConnector, Full<Bytes>>,
    timeout: Duration,
    runtime: Handle,
}

impl HttpClient for Collector {
    // By hand what the macro of the trait's crate would write.
    fn send_bytes<'s, 'f>(
        &'s self,
        request: Request<Bytes>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        let answer = self.client.request(request.map(Full::new));
        let exchange = async move {
            let (parts, body) = answer.await?.into_parts();
            Ok(Response::from_parts(parts, Limited::new(body, MAX_ANSWER_BYTES).collect().await?.to_bytes()))
        };
        let timeout = self.timeout;
        let sent = self.runtime.spawn(async move { tokio::time::timeout(timeout, exchange).await });
        Box::pin(async move { sent.await?? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<'v>(set: &'v [(&'v str, &'v str)]) -> impl Fn(&str) -> Option<String> + 'v {
        |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");

    #[test]
    fn traces_are_sent_only_where_somebody_asks_for_them() {
        let wanted = |set: &[(&str, &str)]| endpoint(with(set)).is_some();
        assert!(!wanted(&[]));
        assert!(wanted(&[ENDPOINT]));
        assert!(wanted(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4318/v1/traces")]));
        assert!(!wanted(&[ENDPOINT, ("OTEL_SDK_DISABLED", "true")]));
        assert!(!wanted(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]));
    }

    #[tokio::test]
    async fn what_cannot_be_spoken_is_said_at_the_start() {
        let error = |set: &[(&str, &str)]| Telemetry::by(with(set)).unwrap_err().to_string();
        let protocol = error(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
        assert!(protocol.contains("grpc is not spoken"), "{protocol}");
        let scheme = error(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318")]);
        assert!(scheme.contains("http:// only, not to https://collector:4318"), "{scheme}");
    }

    #[test]
    fn the_parent_in_the_message_goes_before_that_of_the_headers() {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", "of-header".parse().unwrap());
        headers.insert("tracestate", "state=header".parse().unwrap());
        let mut meta = RequestMetaObject::default();
        let seen = |meta: &RequestMetaObject| {
            let origin = Origin { headers: Some(&headers), meta };
            (origin.get("traceparent").map(str::to_owned), origin.get("tracestate").map(str::to_owned))
        };
        assert_eq!(seen(&meta), (Some("of-header".into()), Some("state=header".into())));
        meta.set_traceparent("of-meta");
        assert_eq!(seen(&meta), (Some("of-meta".into()), None));
    }
}
