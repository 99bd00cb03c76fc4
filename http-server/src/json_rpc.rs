//! What an MCP endpoint makes of a body: one message, several of them at once, or none.

use axum::Json;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use futures::future::join_all;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::host::only;

/// Of one request. More is a way around whatever counts requests.
const MAX_MESSAGES: usize = 100;

/// The methods whose parameters have a shape, and which.
const WANTED_PARAMS: [(&str, &str); 13] = [
    ("initialize", r#"an object with "protocolVersion", "capabilities" and "clientInfo""#),
    (
        "tools/call",
        r#"an object with "name", the name of a tool, and "arguments", an object ({} and not [] where there are none)"#,
    ),
    ("tools/list", CURSOR),
    ("resources/list", CURSOR),
    ("resources/templates/list", CURSOR),
    ("resources/read", r#"an object with "uri", a string"#),
    ("resources/subscribe", r#"an object with "uri", a string"#),
    ("resources/unsubscribe", r#"an object with "uri", a string"#),
    ("prompts/get", r#"an object with "name", the name of a prompt, and "arguments", an object, if there are any"#),
    ("prompts/list", CURSOR),
    (
        "completion/complete",
        r#"an object with "ref" (ref/prompt with "name", or ref/resource with "uri") and "argument" ("name" and "value", strings)"#,
    ),
    ("logging/setLevel", r#"an object with "level": debug, info, notice, warning, error, critical, alert or emergency"#),
    ("subscriptions/listen", r#"an object with "notifications", an object"#),
];
const CURSOR: &str = r#"an object, with "cursor" as a string if there is one"#;

/// Those of them that only earlier eras have, and only the modern one.
const REMOVED: [&str; 4] = ["initialize", "resources/subscribe", "resources/unsubscribe", "logging/setLevel"];
const ADDED: [&str; 1] = ["subscriptions/listen"];

/// What is wrong with the parameters of a request that could not be read as what its method says; None: its era has no such method.
pub fn misfit(method: &str, params: Option<&Value>, is_modern: bool) -> Option<String> {
    let not_of_the_era = if is_modern { &REMOVED[..] } else { &ADDED[..] };
    let (_, wanted) = WANTED_PARAMS.iter().find(|(known, _)| *known == method && !not_of_the_era.contains(known))?;
    let meta = params.and_then(|params| params.get("_meta"));
    Some(match meta {
        Some(meta) if !meta.is_object() => format!("the _meta of {method} must be an object"),
        _ => format!("the params of {method} must be {wanted}"),
    })
}

/// The messages of a body that holds several, which revision 2025-03-26 says have to be received: None where it is one, or where the header
/// names a later revision. Clients of that one, and of the one before, send no such header.
pub fn batch(headers: &HeaderMap, body: &Bytes) -> Option<Vec<Bytes>> {
    let version = headers.contains_key("mcp-protocol-version").then(|| only(headers, &VERSION));
    if !matches!(version, None | Some(Some("2025-03-26" | "2024-11-05"))) || body.trim_ascii_start().first() != Some(&b'[') {
        return None;
    }
    let all: Vec<&RawValue> = serde_json::from_slice(body).ok()?;
    Some(all.into_iter().map(|one| body.slice_ref(one.get().as_bytes())).collect())
}

const VERSION: http::HeaderName = http::HeaderName::from_static("mcp-protocol-version");

#[derive(Default, Deserialize)]
struct Peek<'a> {
    #[serde(default)]
    id: Value,
    #[serde(borrow)]
    method: Option<std::borrow::Cow<'a, str>>,
}

/// Answers several messages, each by `one`, which is told its place: what they are answered, in one array, or 202 where nothing is. Where all of
/// them are refused, with the status of the first refusal.
pub async fn several<F>(parts: Parts, messages: Vec<Bytes>, one: impl Fn(usize, Parts, Bytes) -> F) -> Response
where
    F: Future<Output = Response>,
{
    if messages.is_empty() || messages.len() > MAX_MESSAGES {
        let told = format!("Invalid Request: 1 to {MAX_MESSAGES} messages are taken at once");
        return (StatusCode::BAD_REQUEST, Json(error(&Value::Null, -32600, &told))).into_response();
    }
    let mut parts = parts;
    // One array is no stream of events; and each message has its own length.
    parts.headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    parts.headers.remove(CONTENT_LENGTH);
    let answers = messages.into_iter().enumerate().map(|(place, message)| {
        let peek: Option<Peek> = serde_json::from_slice(&message).ok().filter(|_| message.first() == Some(&b'{'));
        let begins = peek.as_ref().is_some_and(|peek| peek.method.as_deref() == Some("initialize"));
        let id = peek.as_ref().map(|peek| peek.id.clone()).unwrap_or_default();
        let refused = match peek {
            None => Some("Invalid Request: each message must be a JSON-RPC 2.0 object"),
            Some(_) if begins => Some("Invalid Request: initialize must not be one of several messages"),
            Some(_) => None,
        };
        let answer = refused.map_or_else(|| Ok(one(place, parts.clone(), message)), Err);
        async move {
            match answer {
                Ok(answer) => {
                    let answer = answer.await;
                    (answer.status(), answers_of(&id, answer).await)
                }
                Err(why) => (StatusCode::BAD_REQUEST, vec![error(&id, -32600, why).to_string()]),
            }
        }
    });
    let (statuses, told): (Vec<_>, Vec<_>) = join_all(answers).await.into_iter().unzip();
    let told = told.concat().join(",");
    if told.is_empty() {
        return StatusCode::ACCEPTED.into_response();
    }
    let status = if statuses.iter().any(StatusCode::is_success) { StatusCode::OK } else { statuses[0] };
    (status, [(CONTENT_TYPE, "application/json")], format!("[{told}]")).into_response()
}

/// The messages that answer one: those of a stream, too, as far as they are answers.
async fn answers_of(id: &Value, response: Response) -> Vec<String> {
    let (parts, body) = response.into_parts();
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    let is_answer =
        |text: &&str| text.starts_with('{') && serde_json::from_str::<Peek>(text).is_ok_and(|peek| peek.method.is_none());
    if kind.starts_with("text/event-stream") {
        let data = text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim);
        return data.filter(is_answer).map(str::to_owned).collect();
    }
    if kind.starts_with("application/json") && is_answer(&&*text) {
        return vec![text.into_owned()];
    }
    if parts.status.is_success() {
        return Vec::new();
    }
    // A refusal in other words, or none.
    let detail = serde_json::from_str::<Value>(&text).ok().and_then(|problem| problem["detail"].as_str().map(str::to_owned));
    let told = detail.unwrap_or_else(|| text.trim().to_owned());
    let status = parts.status;
    vec![error(id, -32000, &if told.is_empty() { status.to_string() } else { told }).to_string()]
}

fn error(id: &Value, code: i32, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
}

/// The HTTP status of an answer, with the code of its error if it is one: since 2026-07-28 some have a status of their own.
pub fn status(is_modern: bool, code: Option<i64>) -> StatusCode {
    match (is_modern, code) {
        (true, Some(-32601)) => StatusCode::NOT_FOUND,
        (true, Some(-32022..=-32020)) => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}

/// Makes a request that takes JSON say so in the words that the SDK asks for: it wants both media types by name, and refuses `*/*`,
/// `application/*`, `application/json` alone and no `Accept` at all, which by HTTP are as good.
pub fn accept(headers: &mut HeaderMap) {
    if takes_json(headers) {
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    }
}

/// Whether a request takes JSON, by the rules of HTTP.
pub fn takes_json(headers: &HeaderMap) -> bool {
    takes(headers, &["", "*/*", "application/*", "application/json"])
}

/// Whether a request takes a stream of events, by the same rules.
pub fn takes_events(headers: &HeaderMap) -> bool {
    takes(headers, &["", "*/*", "text/*", "text/event-stream"])
}

/// Whoever names nothing takes everything. <https://www.rfc-editor.org/rfc/rfc9110#field.accept>
fn takes(headers: &HeaderMap, kinds: &[&str]) -> bool {
    let mut given = headers.get_all(ACCEPT).iter().peekable();
    given.peek().is_none() || given.filter_map(|value| value.to_str().ok()).any(|accept| names(accept, kinds))
}

fn names(accept: &str, kinds: &[&str]) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let refused = parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0_f32)));
        kinds.contains(&kind.as_str()) && !refused
    })
}

/// Hands a request with its whole body on to the MCP SDK. The SDK takes JSON that is no message of a client for another media type (415);
/// here it is told so in JSON-RPC's own words.
pub async fn run(mut parts: Parts, body: Bytes, sdk: impl AsyncFnOnce(Request) -> Response) -> Response {
    if parts.method == Method::POST {
        accept(&mut parts.headers);
    }
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_json = kind.is_some_and(|kind| kind.starts_with("application/json"));
    let is_modern = only(&parts.headers, &VERSION) == Some("2026-07-28");
    let response = sdk(Request::from_parts(parts, Body::from(body.clone()))).await;
    let is_refused = is_json && response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE;
    if is_refused { odd(&body, is_modern).unwrap_or_else(|| no_message(&body)) } else { response }
}

/// The answer to a request that is one but for its parameters.
fn odd(sent: &[u8], is_modern: bool) -> Option<Response> {
    #[derive(Deserialize)]
    struct Request<'a> {
        jsonrpc: &'a str,
        id: Value,
        method: &'a str,
        params: Option<Value>,
    }
    let Request { jsonrpc, id, method, params } = serde_json::from_slice(sent).ok()?;
    let is_request = jsonrpc == "2.0" && (id.is_string() || id.is_i64() || id.is_u64());
    let told = misfit(method, params.as_ref(), is_modern).filter(|_| is_request)?;
    Some(Json(error(&id, -32602, &told)).into_response())
}

/// 400, with the code of what is wrong. <https://www.jsonrpc.org/specification#error_object>
fn no_message(sent: &[u8]) -> Response {
    let is_deep = || serde_json::from_slice::<Value>(sent).is_err_and(|error| error.to_string().starts_with("recursion limit"));
    let (code, message) = match serde_json::from_slice::<IgnoredAny>(sent) {
        Err(error) => (-32700, format!("Parse error: {error}")),
        Ok(_) if is_deep() => (
            -32600,
            "Invalid Request: the message is nested deeper than 127 levels, which only the arguments of a tool may be".to_owned(),
        ),
        Ok(_) => (-32600, "Invalid Request: the body must be one JSON-RPC 2.0 message of a client".to_owned()),
    };
    (StatusCode::BAD_REQUEST, Json(error(&Value::Null, code, &message))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_a_status_only_where_the_era_says_so() {
        assert_eq!(status(true, Some(-32601)), StatusCode::NOT_FOUND);
        assert_eq!(status(true, Some(-32021)), StatusCode::BAD_REQUEST);
        assert_eq!([status(true, Some(-32602)), status(false, Some(-32601)), status(true, None)], [StatusCode::OK; 3]);
    }

    #[test]
    fn a_method_that_an_era_has_is_told_of_its_parameters_and_another_one_is_none() {
        let told = |method: &str, params: Value, is_modern| misfit(method, Some(&params), is_modern).unwrap_or_default();
        assert!(told("tools/call", json!({"name": "a", "arguments": []}), true).contains("not []"));
        assert_eq!(told("tools/list", json!({"_meta": 5}), false), "the _meta of tools/list must be an object");
        assert_eq!(
            (told("tools/like", json!({}), true), told("logging/setLevel", json!({}), true)),
            (String::new(), String::new())
        );
        assert!(told("logging/setLevel", json!({}), false).contains("warning"));
        assert_eq!(misfit("subscriptions/listen", None, false), None);
    }

    #[tokio::test]
    async fn what_is_no_message_is_told_why() {
        let deep = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{}1{}}}"#, "[".repeat(300), "]".repeat(300));
        for (sent, told) in
            [(deep.as_str(), "deeper than 127 levels"), ("{\"a\":1}", "must be one JSON-RPC 2.0 message"), ("{", "Parse error")]
        {
            let answer = no_message(sent.as_bytes());
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
            let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            assert!(std::str::from_utf8(&body).unwrap().contains(told), "{told}");
        }
    }

    #[test]
    fn whoever_takes_json_gets_it() {
        let told = |accept: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.extend(accept.map(|accept| (ACCEPT, HeaderValue::from_static(accept))));
            super::accept(&mut headers);
            headers.get(ACCEPT).is_some_and(|accept| accept == "application/json, text/event-stream")
        };
        for accept in [
            None,
            Some("*/*"),
            Some("application/json"),
            Some("application/*"),
            Some("text/html, */*;q=0.8"),
            Some("Application/JSON"),
            Some("text/event-stream, application/json"),
            Some(""),
        ] {
            assert!(told(accept), "{accept:?}");
        }
        for accept in [Some("text/event-stream"), Some("text/html"), Some("application/json;q=0"), Some("application/xml")] {
            assert!(!told(accept), "{accept:?}");
        }
    }
}
