//! What is told of a request beside its answer: spans, where somebody wants them, and a line of the log where the server did not answer.
//! Both name the tool, and neither says what it was given or what it gave.

use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::response::Response;
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt as _;
use http_server::request_id::REQUEST_ID;
use opentelemetry::trace::{FutureExt as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use serde_json::value::RawValue;
use traces::{Parent, Traces};

use crate::metrics::Outcome;
use crate::post::Envelope;
use crate::wire;

/// Names come from clients: a longer one, or one with other characters than names of tools have, names no span and stands in no line.
const MAX_NAME: usize = 128;

const PARENT: &str = "traceparent";

/// Put beside an answer that is an error of our own: its code.
#[derive(Debug, Clone, Copy)]
pub struct OwnError(pub i64);

/// An HTTP request that is answered as a part of its caller's trace.
#[derive(Debug)]
pub struct Served(Context);

impl Served {
    /// The request begins.
    pub fn begin(traces: &Traces, headers: &HeaderMap, envelope: &Envelope) -> Self {
        let meta: Said<'_> = envelope.meta().and_then(|meta| serde_json::from_str(meta).ok()).unwrap_or_default();
        let (parent, state) = (wire::text(meta.traceparent), wire::text(meta.tracestate));
        let parent = Parent { headers: Some(headers), meta: parent.as_deref().map(|parent| (parent, state.as_deref())) };
        let mut attributes = about(envelope);
        attributes.push(KeyValue::new("network.transport", "tcp"));
        attributes.push(KeyValue::new("network.protocol.name", "http"));
        let version = headers.get("mcp-protocol-version").and_then(|version| version.to_str().ok());
        if let Some(version) = envelope.says.version.as_deref().or(version).and_then(plain) {
            attributes.push(KeyValue::new("mcp.protocol.version", version.to_owned()));
        }
        if let Some(id) = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()) {
            attributes.push(KeyValue::new("mcpfleet.request.id", id.to_owned()));
        }
        let builder = SpanBuilder::from_name(name(envelope)).with_kind(SpanKind::Server).with_attributes(attributes);
        let parent = parent.context();
        Self(parent.with_span(traces.tracer().build_with_context(builder, &parent)))
    }

    /// Answers it: what is called meanwhile is a part of it. It ends with the last byte of the answer.
    pub async fn answer(self, answer: impl Future<Output = Response>) -> Response {
        let response = answer.with_context(self.0.clone()).await;
        let span = self.0.span();
        let status = response.status();
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        if let Some(OwnError(code)) = response.extensions().get() {
            failed(&self.0, code.to_string());
        } else if status.is_server_error() {
            failed(&self.0, status.as_u16().to_string());
        }
        let ends = Ends(self.0);
        if response.body().size_hint().exact().is_some() {
            return response;
        }
        response.map(|body| Body::new(body.map_frame(move |frame| (&ends, frame).1)))
    }
}

/// Its span ends when this is dropped: others may hold the context for longer.
#[derive(Debug)]
struct Ends(Context);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.span().end();
    }
}

/// Of one call of a child.
#[derive(Debug, Default)]
pub struct Trail {
    request: Option<HeaderValue>,
    spans: Option<Spans>,
}

#[derive(Debug)]
struct Spans {
    served: Context,
    call: Ends,
}

impl Trail {
    /// The call is about to be made, within the answer of a request.
    pub fn begin(traces: Option<&Traces>, headers: &HeaderMap, envelope: &Envelope) -> Self {
        let spans = traces.map(|traces| {
            let served = Context::current();
            let mut attributes = about(envelope);
            attributes.push(KeyValue::new("network.transport", "pipe"));
            let builder = SpanBuilder::from_name(name(envelope)).with_kind(SpanKind::Client).with_attributes(attributes);
            let call = served.with_span(traces.tracer().build_with_context(builder, &served));
            Spans { served, call: Ends(call) }
        });
        Self { request: headers.get(REQUEST_ID).cloned(), spans }
    }

    /// Members of `_meta` by which the child continues the trace, each a key and JSON. Without spans of our own that is what the HTTP
    /// request says, unless the message says it already.
    pub fn members(&self, headers: &HeaderMap, meta: Option<&str>) -> Vec<(&'static str, String)> {
        let own = self.spans.as_ref().map_or_else(Vec::new, |spans| traces::members(&spans.call.0));
        let says = headers.contains_key(PARENT) && !meta.is_some_and(|meta| meta.contains(PARENT));
        let heard: &[&'static str] = match (says, own.is_empty()) {
            (true, true) => &[PARENT, "tracestate", "baggage"],
            (true, false) => &["baggage"],
            (false, _) => &[],
        };
        let said = |name: &&'static str| Some((*name, wire::quoted(headers.get(*name)?.to_str().ok()?)));
        own.into_iter().map(|(key, value)| (key, wire::quoted(&value))).chain(heard.iter().filter_map(said)).collect()
    }

    /// The call has ended.
    pub fn ended(self, envelope: &Envelope, outcome: Outcome, lasted: Duration) {
        let (method, tool) = (plain(&envelope.method).unwrap_or("other"), tool(envelope));
        let outcome_name = outcome.label();
        let mut trace_id = None;
        if let Some(Spans { served, call }) = self.spans {
            trace_id = Some(call.0.span().span_context().trace_id().to_string());
            call.0.span().set_attribute(KeyValue::new("mcpfleet.outcome", outcome_name));
            if outcome != Outcome::Ok {
                failed(&call.0, outcome_name.to_owned());
                failed(&served, outcome_name.to_owned());
            }
        }
        let request_id = self.request.as_ref().and_then(|id| id.to_str().ok());
        let (trace_id, seconds) = (trace_id.as_deref(), lasted.as_secs_f64());
        match outcome {
            Outcome::Timeout | Outcome::Exited => {
                tracing::warn!(
                    request_id,
                    trace_id,
                    method,
                    tool,
                    outcome = outcome_name,
                    seconds,
                    "the server did not answer a call"
                );
            }
            _ => tracing::debug!(request_id, trace_id, method, tool, outcome = outcome_name, seconds, "a call has ended"),
        }
    }
}

/// What `_meta` says of the trace.
#[derive(Debug, Default, serde::Deserialize)]
struct Said<'a> {
    #[serde(borrow, default)]
    traceparent: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tracestate: Option<&'a RawValue>,
}

fn failed(context: &Context, kind: String) {
    context.span().set_attribute(KeyValue::new("error.type", kind));
    context.span().set_status(Status::error(""));
}

fn about(envelope: &Envelope) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(8);
    attributes.push(KeyValue::new("mcp.method.name", plain(&envelope.method).unwrap_or("other").to_owned()));
    if let Some(tool) = tool(envelope) {
        attributes.push(KeyValue::new("gen_ai.operation.name", "execute_tool"));
        attributes.push(KeyValue::new("gen_ai.tool.name", tool.to_owned()));
    }
    attributes
}

fn name(envelope: &Envelope) -> String {
    let method = plain(&envelope.method).unwrap_or("other");
    tool(envelope).map_or_else(|| method.to_owned(), |tool| format!("{method} {tool}"))
}

/// Resources are without number, and their names may be what nobody is to read.
fn tool(envelope: &Envelope) -> Option<&str> {
    envelope.target.as_deref().filter(|_| &*envelope.method == "tools/call").and_then(plain)
}

fn plain(name: &str) -> Option<&str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte);
    ((1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_plain)).then_some(name)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::post::Post;

    fn envelope(text: &'static str) -> Envelope {
        let Ok(Post::Request(envelope)) = Post::read(&Bytes::from_static(text.as_bytes())) else { unreachable!() };
        envelope
    }

    #[test]
    fn only_tools_with_plain_names_are_named() {
        let named = |text| name(&envelope(text));
        assert_eq!(named(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a-b.c"}}"#), "tools/call a-b.c");
        assert_eq!(named(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a b"}}"#), "tools/call");
        assert_eq!(named(r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///s"}}"#), "resources/read");
        assert_eq!(named(r#"{"jsonrpc":"2.0","id":1,"method":"a\nb"}"#), "other");
    }

    #[test]
    fn without_spans_of_our_own_the_trace_goes_on_as_it_came() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut headers = HeaderMap::new();
        headers.insert(PARENT, parent.parse().unwrap());
        headers.insert("baggage", "a=1".parse().unwrap());
        let expected = [(PARENT, format!("\"{parent}\"")), ("baggage", "\"a=1\"".to_owned())];
        assert_eq!(Trail::default().members(&headers, None), expected);
        assert_eq!(Trail::default().members(&headers, Some(r#"{"traceparent":"own"}"#)), []);
    }
}
