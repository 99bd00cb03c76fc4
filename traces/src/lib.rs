//! Traces by OpenTelemetry, the same for every program of ours: off, and free of cost, unless OTEL_EXPORTER_OTLP_ENDPOINT (or
//! …_TRACES_ENDPOINT) is set; sent by OTLP over HTTP; a request continues its caller's trace. The other OTEL_ variables are the SDK's
//! business. Which spans there are, and what they say, is each program's own.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::HttpClient;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

mod collector;
mod parent;
#[cfg(feature = "testing")]
pub mod testing;

pub use collector::Collector;
pub use parent::{Parent, members};

/// For one export, unless OTEL_EXPORTER_OTLP_TIMEOUT says otherwise.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last spans may hold up the end of the process.
const FLUSH: Duration = Duration::from_secs(5);

/// Sends spans until it is stopped. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// Traces are wanted, and cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// gRPC, or JSON.
    #[error("OTEL_EXPORTER_OTLP_PROTOCOL={0} is not spoken here; set it to http/protobuf, or leave it out")]
    Protocol(String),
    /// https, from a program whose client speaks none.
    #[error("traces are sent over http:// only, not to {0}; send them to a collector beside this server or in its cluster")]
    Scheme(String),
    /// The program's client.
    #[error("the client that sends traces cannot be made: {0}")]
    Client(Box<dyn std::error::Error + Send + Sync>),
    /// Anything else.
    #[error("the OTEL_EXPORTER_OTLP_ variables cannot be used: {0}")]
    Exporter(opentelemetry_otlp::ExporterBuildError),
}

/// Where spans go, for whoever makes the client that brings them there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// As the environment names it.
    pub endpoint: String,
    /// For one export.
    pub timeout: Duration,
}

/// Who sends: `service.name`, unless the environment names it, and `service.version`.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// The program's name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
}

impl Traces {
    /// Begins to send, over plain HTTP and from the runtime that this is called in, if the environment asks for it.
    pub fn start(service: Service) -> Result<Option<Self>, Error> {
        Self::by(environment, service, Collector::new)
    }

    /// The same, with a client of the program's own.
    pub fn start_with<C: HttpClient + 'static>(
        service: Service,
        client: impl FnOnce(&Target) -> Result<C, Error>,
    ) -> Result<Option<Self>, Error> {
        Self::by(environment, service, client)
    }

    fn by<C: HttpClient + 'static>(
        variable: impl Fn(&str) -> Option<String>,
        service: Service,
        client: impl FnOnce(&Target) -> Result<C, Error>,
    ) -> Result<Option<Self>, Error> {
        let Some(target) = target(&variable)? else { return Ok(None) };
        let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary);
        let exporter = exporter.with_http_client(client(&target)?).build().map_err(Error::Exporter)?;
        let mut resource = Resource::builder().with_attribute(KeyValue::new("service.version", service.version));
        let named = variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|all| all.contains("service.name="));
        if !named && variable("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(service.name);
        }
        let provider = SdkTracerProvider::builder().with_resource(resource.build()).with_batch_exporter(exporter).build();
        Ok(Some(Self { tracer: provider.tracer(service.name), provider }))
    }

    /// What makes spans.
    pub fn tracer(&self) -> &SdkTracer {
        &self.tracer
    }

    /// Sends what has ended, and stops.
    pub async fn stop(self) {
        let stopped = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(FLUSH)).await;
        if let Ok(Err(error)) = stopped {
            tracing::warn!("the last traces may be lost: {error}");
        }
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where to, if traces are wanted. Pure, but for where the variables come from.
fn target(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Target>, Error> {
    let either = |name: &str| {
        variable(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}")).or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{name}")))
    };
    let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let other = variable("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter != "otlp");
    let Some(endpoint) = either("ENDPOINT").filter(|_| !disabled && !other) else { return Ok(None) };
    if let Some(other) = either("PROTOCOL").filter(|protocol| protocol != "http/protobuf") {
        return Err(Error::Protocol(other));
    }
    let timeout = either("TIMEOUT").and_then(|millis| millis.parse().ok()).map_or(EXPORT_TIMEOUT, Duration::from_millis);
    Ok(Some(Target { endpoint, timeout }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<'v>(set: &'v [(&'v str, &'v str)]) -> impl Fn(&str) -> Option<String> + 'v {
        |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
    const SERVICE: Service = Service { name: "test", version: "1" };

    #[test]
    fn traces_are_sent_only_where_somebody_asks_for_them() {
        let wanted = |set: &[(&str, &str)]| target(with(set)).unwrap().is_some();
        assert!(!wanted(&[]));
        assert!(wanted(&[ENDPOINT]));
        assert!(wanted(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4318/v1/traces")]));
        assert!(!wanted(&[ENDPOINT, ("OTEL_SDK_DISABLED", "true")]));
        assert!(!wanted(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]));
        // What is not to be sent need not be right.
        assert!(!wanted(&[ENDPOINT, ("OTEL_SDK_DISABLED", "true"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]));
    }

    #[test]
    fn what_is_said_of_traces_goes_before_what_is_said_of_all() {
        let set =
            [ENDPOINT, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://own/v1/traces"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "250")];
        let expected = Target { endpoint: "http://own/v1/traces".into(), timeout: Duration::from_millis(250) };
        assert_eq!(target(with(&set)).unwrap(), Some(expected));
        assert_eq!(target(with(&[ENDPOINT])).unwrap().map(|target| target.timeout), Some(EXPORT_TIMEOUT));
    }

    #[tokio::test]
    async fn what_cannot_be_spoken_is_said_at_the_start() {
        let error = |set: &[(&str, &str)]| Traces::by(with(set), SERVICE, Collector::new).unwrap_err().to_string();
        let protocol = error(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
        assert!(protocol.contains("grpc is not spoken"), "{protocol}");
        let scheme = error(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318")]);
        assert!(scheme.contains("http:// only, not to https://collector:4318"), "{scheme}");
    }
}
