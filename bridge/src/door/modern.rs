//! Requests of 2026-07-28: each is whole in itself. What its headers say must be what its body says, because others on the way decide by
//! the headers alone.

use std::borrow::Cow;
use std::sync::Arc;

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::{HeaderMap, HeaderName, StatusCode};
use http_server::host::only;
use serde_json::json;

use super::{DEAF, VERSION};
use crate::bridge::{Bridge, down, own_error, own_result};
use crate::era::{ALL, Era, MODERN, Offers};
use crate::listeners::{Filter, Listener};
use crate::outbox::Outbox;
use crate::post::Envelope;
use crate::stream;
use crate::wire;

const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// A request.
pub async fn request(bridge: &Arc<Bridge>, parts: &Parts, mut envelope: Envelope) -> Response {
    envelope.era = Era::Modern;
    if let Some(refusal) = refused(&parts.headers, &envelope) {
        bridge.metrics.refuse("headers");
        return refusal;
    }
    match &*envelope.method {
        "server/discover" => match bridge.hello().await {
            Ok(hello) => own_result(envelope.id(), &hello.discover_result()),
            Err(absent) => down(envelope.id(), &absent),
        },
        "initialize" | "ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe" => {
            let words = format!("Method not found: there is no {} in {MODERN}", envelope.method);
            own_error(StatusCode::NOT_FOUND, envelope.id(), -32601, &words)
        }
        "subscriptions/listen" => {
            let last = listened(envelope.id());
            let answer = async {
                match bridge.hello().await {
                    Ok(hello) if hello.era == Era::Legacy => listen(bridge, &envelope, hello.offers()),
                    Ok(_) => bridge.call(&bridge.shared, envelope, None, &parts.headers).await,
                    Err(absent) => down(envelope.id(), &absent),
                }
            };
            Box::pin(bridge.standing(answer, Some(last.into()))).await
        }
        _ => bridge.call(&bridge.shared, envelope, None, &parts.headers).await,
    }
}

/// The result of a subscription that the server ends: without one, the client takes the end for a broken connection. `id` is JSON.
fn listened(id: &str) -> Vec<u8> {
    wire::result(id, &format!(r#"{{"resultType":"complete","_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}"#))
}

fn listen(bridge: &Bridge, envelope: &Envelope, offers: Offers) -> Response {
    let Some(filter) = Filter::of(envelope.params()) else {
        return own_error(StatusCode::BAD_REQUEST, envelope.id(), -32602, "Invalid params: notifications must be a filter");
    };
    let filter = filter.offered(offers);
    let follows = !filter.resource_subscriptions.is_empty();
    let out = Outbox::default();
    bridge.shared.listeners.add(Listener { id: envelope.id().to_owned(), filter, out: out.clone() });
    if follows && !bridge.shared.follow_resources() {
        out.end();
        return bridge.busy(envelope.id(), DEAF);
    }
    stream::stream(None, out, None, None)
}

fn refusal(envelope: &Envelope, code: i64, words: &str) -> Response {
    let supported = || json!({"supported": ALL, "requested": envelope.says.version}).to_string();
    let data = (code == -32022).then(supported);
    stream::error(StatusCode::BAD_REQUEST, envelope.id(), code, words, data.as_deref())
}

/// The refusal of a request that is not one of this era.
pub fn refused(headers: &HeaderMap, envelope: &Envelope) -> Option<Response> {
    check(headers, envelope).err().map(|(code, words)| refusal(envelope, code, &words))
}

/// What is wrong with it: a code, and words.
fn check(headers: &HeaderMap, envelope: &Envelope) -> Result<(), (i64, String)> {
    let Some(version) = envelope.says.version.as_deref() else {
        return Err((-32602, "Invalid params: _meta needs io.modelcontextprotocol/protocolVersion".to_owned()));
    };
    same(headers, &VERSION, version)?;
    if version != MODERN {
        return Err((-32022, format!("Unsupported protocol version: {version}")));
    }
    if !envelope.says.capabilities {
        return Err((-32602, "Invalid params: _meta needs io.modelcontextprotocol/clientCapabilities".to_owned()));
    }
    same(headers, &METHOD, &envelope.method)?;
    if matches!(&*envelope.method, "tools/call" | "prompts/get" | "resources/read")
        && let Some(target) = &envelope.target
    {
        same(headers, &NAME, target)?;
    }
    Ok(())
}

/// A header must be there once, and say what the body says.
fn same(headers: &HeaderMap, name: &HeaderName, body: &str) -> Result<(), (i64, String)> {
    let Some(value) = only(headers, name) else {
        return Err((-32020, format!("Header mismatch: exactly one {name} header is needed")));
    };
    match decoded(value) {
        Some(said) if said == body => Ok(()),
        _ => Err((-32020, format!("Header mismatch: {name} is not what the body says"))),
    }
}

/// What cannot stand in a header as it is comes as `=?base64?…?=`.
fn decoded(value: &str) -> Option<Cow<'_, str>> {
    match value.strip_prefix("=?base64?").and_then(|value| value.strip_suffix("?=")) {
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok().map(Cow::Owned),
        None => Some(Cow::Borrowed(value)),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::post::Post;

    fn checked(headers: &[(&'static str, &str)], meta: &serde_json::Value) -> i64 {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "größe", "_meta": meta}});
        let Ok(Post::Request(envelope)) = Post::read(&Bytes::from(body.to_string())) else { unreachable!() };
        let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect();
        check(&headers, &envelope).err().map_or(0, |(code, _)| code)
    }

    #[test]
    fn headers_must_say_what_the_body_says() {
        let version = ("mcp-protocol-version", MODERN);
        let method = ("mcp-method", "tools/call");
        let name = ("mcp-name", "=?base64?Z3LDtsOfZQ==?=");
        let meta = json!({"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}});
        assert_eq!(checked(&[version, method, name], &meta), 0);
        assert_eq!(checked(&[method, name], &meta), -32020);
        assert_eq!(checked(&[version, name], &meta), -32020);
        assert_eq!(checked(&[version, method], &meta), -32020);
        assert_eq!(checked(&[version, ("mcp-method", "tools/list"), name], &meta), -32020);
        assert_eq!(checked(&[version, method, method, name], &meta), -32020);
        assert_eq!(checked(&[version, method, name], &json!({})), -32602);
        assert_eq!(checked(&[version, method, name], &json!({"io.modelcontextprotocol/protocolVersion": MODERN})), -32602);
        let other = json!({"io.modelcontextprotocol/protocolVersion": "2099-01-01"});
        assert_eq!(checked(&[("mcp-protocol-version", "2099-01-01"), method, name], &other), -32022);
    }
}
