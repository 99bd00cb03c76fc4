//! One message, from one side to the other: ids and progress tokens become ours and the client's again, and where the two sides follow
//! different rules, what the other one needs is added or left out. Pure.

use std::borrow::Cow;

use mcp_wire::{content::is_cacheable, message::RpcError};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::era::{CLIENT_INFO, Era, MODERN};
use crate::post::Envelope;
use crate::wire::{self, Edits, Members, Message};

/// What a legacy client said of itself once, for a modern child that wants to hear it with each request.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// JSON.
    pub capabilities: Option<String>,
    /// JSON.
    pub info: Option<String>,
    /// JSON.
    pub log_level: Option<String>,
}

const PROTOCOL_KEYS: &str = "io.modelcontextprotocol/";

/// Of JSON-RPC.
const INTERNAL_ERROR: i64 = -32603;

/// The request as the child gets it, appended to `out`. `trace`: further members of `_meta`, each a key and JSON.
pub fn request(envelope: &Envelope, id: u64, child: Era, profile: &Profile, trace: &[(&str, String)], out: &mut Vec<u8>) {
    let number = id.to_string();
    let mut edits = Edits::default();
    edits.put(envelope.id_place(), number.as_bytes());
    if envelope.era == child && trace.is_empty() {
        if let Some(place) = envelope.token_place() {
            edits.put(place, number.as_bytes());
        }
    } else {
        put_meta(envelope, meta(envelope, &number, child, profile, trace), &mut edits);
    }
    edits.apply(&envelope.body, out);
}

fn meta(envelope: &Envelope, number: &str, child: Era, profile: &Profile, trace: &[(&str, String)]) -> String {
    let raw = envelope.meta().and_then(|meta| serde_json::from_str(meta).ok());
    let mut members: Members<'_> = raw.unwrap_or_default();
    let to_legacy = envelope.era == Era::Modern && child == Era::Legacy;
    members.0.retain(|(key, _)| {
        key != "progressToken" && !(to_legacy && key.starts_with(PROTOCOL_KEYS)) && !trace.iter().any(|(traced, _)| key == traced)
    });
    let version = wire::quoted(MODERN);
    let mut more = Vec::new();
    if envelope.token().is_some() {
        more.push(("progressToken", number));
    }
    if envelope.era == Era::Legacy && child == Era::Modern {
        more.push(("io.modelcontextprotocol/protocolVersion", &version));
        more.push(("io.modelcontextprotocol/clientCapabilities", profile.capabilities.as_deref().unwrap_or("{}")));
        more.push(("io.modelcontextprotocol/clientInfo", profile.info.as_deref().unwrap_or(CLIENT_INFO)));
        more.extend(profile.log_level.as_deref().map(|level| ("io.modelcontextprotocol/logLevel", level)));
    }
    more.extend(trace.iter().map(|(key, value)| (*key, value.as_str())));
    members.with(&more)
}

fn put_meta(envelope: &Envelope, meta: String, edits: &mut Edits<'_>) {
    match (envelope.meta_place(), envelope.params_place()) {
        (Some(place), _) => edits.put(place, meta.into_bytes()),
        (None, Some(params)) => {
            let comma = if is_empty(envelope.params()) { "" } else { "," };
            let at = params.start + 1;
            edits.put(at..at, [r#""_meta":"#, &meta, comma].concat().into_bytes());
        }
        (None, None) => {
            // Behind the id, which is there in every request.
            let at = envelope.id_place().end;
            edits.put(at..at, format!(r#","params":{{"_meta":{meta}}}"#).into_bytes());
        }
    }
}

fn is_empty(object: Option<&str>) -> bool {
    object.is_none_or(|object| object.trim_start_matches('{').trim_start().starts_with('}'))
}

/// A child's result, an object, as the client of the request gets it.
pub fn result(result: &RawValue, envelope: &Envelope, child: Era) -> Vec<u8> {
    let (id, text) = (envelope.id(), result.get());
    let mut edits = Edits::default();
    if (envelope.era, child) == (Era::Modern, Era::Legacy) && result_type(result).is_none() {
        let comma = if is_empty(Some(text)) { "" } else { "," };
        let cache = if is_cacheable(&envelope.method) { r#","ttlMs":0,"cacheScope":"private""# } else { "" };
        edits.put(1..1, format!(r#""resultType":"complete"{cache}{comma}"#).into_bytes());
    }
    let mut out = Vec::with_capacity(text.len() + id.len() + 128);
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(br#","result":"#);
    edits.apply(text.as_bytes(), &mut out);
    out.push(b'}');
    out
}

/// A child's error as the client of the request gets it, with its code. One that is not what clients take for an error, a whole number and a
/// text, is told in the data of one that is.
pub fn error(error: &RawValue, envelope: &Envelope) -> (i64, Vec<u8>) {
    #[derive(Deserialize)]
    struct WellFormed<'a> {
        code: i64,
        #[serde(borrow, rename = "message")]
        _message: wire::Text<'a>,
    }
    let (id, text) = (envelope.id(), error.get());
    if text.starts_with('{')
        && let Ok(WellFormed { code, .. }) = serde_json::from_str(text)
    {
        return (code, wire::error_of(id, text));
    }
    let RpcError { code, message, .. } = RpcError::read(error, true);
    let code = if code == 0 { INTERNAL_ERROR } else { code };
    let message = if message.is_empty() { "the server's error says nothing" } else { &message };
    (code, wire::error(id, code, message, Some(text)))
}

/// What kind of result a modern server says it is.
pub fn result_type(result: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed<'a> {
        #[serde(borrow, default)]
        result_type: Option<wire::Text<'a>>,
    }
    serde_json::from_str::<Typed<'_>>(result.get()).ok()?.result_type.map(|text| text.0)
}

/// A text with one part of it replaced.
pub fn with(line: &[u8], part: &RawValue, new: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.len() + new.len());
    let mut edits = Edits::default();
    edits.put(wire::span(line, part), new.as_bytes());
    edits.apply(line, &mut out);
    out
}

/// A notification as one of a subscription, whose id is JSON.
pub fn with_subscription(line: &[u8], id: &str) -> Vec<u8> {
    let mut edits = Edits::default();
    let member = format!(r#""io.modelcontextprotocol/subscriptionId":{id}"#);
    if let Some(message) = Message::read(line) {
        let comma = |object: &RawValue| if is_empty(Some(object.get())) { "" } else { "," };
        match (message.params, message.params().meta) {
            (_, Some(meta)) if meta.get().starts_with('{') => {
                let at = wire::span(line, meta).start + 1;
                edits.put(at..at, format!("{member}{}", comma(meta)).into_bytes());
            }
            (Some(params), None) if params.get().starts_with('{') => {
                let at = wire::span(line, params).start + 1;
                edits.put(at..at, format!(r#""_meta":{{{member}}}{}"#, comma(params)).into_bytes());
            }
            _ => {
                // A notification without params: they come first, where nothing is before them.
                let at = memchr::memchr(b'{', line).map_or(0, |at| at + 1);
                edits.put(at..at, format!(r#""params":{{"_meta":{{{member}}}}},"#).into_bytes());
            }
        }
    }
    let mut out = Vec::with_capacity(line.len() + 80);
    edits.apply(line, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mcp_wire::message::Answer;
    use serde_json::{Value, json};

    use super::*;
    use crate::post::Post;

    fn envelope(body: &Value) -> Envelope {
        let Ok(Post::Request(envelope)) = Post::read(&Bytes::from(body.to_string())) else { unreachable!() };
        envelope
    }

    fn modern_meta() -> Value {
        json!({"progressToken": "p", "io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}, "own": 1})
    }

    fn sent(body: &Value, child: Era) -> Value {
        let profile = Profile { capabilities: Some(r#"{"roots":{}}"#.into()), info: None, log_level: Some("\"info\"".into()) };
        let mut out = Vec::new();
        request(&envelope(body), 9, child, &profile, &[], &mut out);
        serde_json::from_slice(&out).unwrap()
    }

    fn call(params: &Value) -> Value {
        json!({"jsonrpc": "2.0", "id": "c", "method": "tools/call", "params": params})
    }

    #[test]
    fn within_an_era_only_the_id_and_the_token_change() {
        for (meta, child) in [(json!({"progressToken": 1, "x": 2}), Era::Legacy), (modern_meta(), Era::Modern)] {
            let mut expected = call(&json!({"name": "t", "_meta": meta}));
            let got = sent(&expected, child);
            expected["id"] = 9.into();
            expected["params"]["_meta"]["progressToken"] = 9.into();
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn a_legacy_child_does_not_hear_of_the_modern_protocol() {
        assert_eq!(
            sent(&call(&json!({"name": "t", "_meta": modern_meta()})), Era::Legacy)["params"]["_meta"],
            json!({"own": 1, "progressToken": 9})
        );
    }

    #[test]
    fn a_modern_child_hears_what_the_client_said_once() {
        let expected = json!({"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {"roots": {}},
            "io.modelcontextprotocol/clientInfo": serde_json::from_str::<Value>(CLIENT_INFO).unwrap(), "io.modelcontextprotocol/logLevel": "info"});
        for params in [json!({}), json!({"name": "t"}), json!({"_meta": {}})] {
            let got = sent(&call(&params), Era::Modern);
            assert_eq!(got["params"]["_meta"], expected, "{params}");
        }
        let bare = sent(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}), Era::Modern);
        assert_eq!(bare["params"]["_meta"], expected);
    }

    #[test]
    fn a_trace_is_put_in_the_place_of_the_clients() {
        let body = call(&json!({"_meta": {"traceparent": "old", "progressToken": 1}}));
        let mut out = Vec::new();
        request(&envelope(&body), 9, Era::Legacy, &Profile::default(), &[("traceparent", "\"new\"".into())], &mut out);
        let got: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(got["params"]["_meta"], json!({"traceparent": "new", "progressToken": 9}));
    }

    fn answered(method: &str, meta: &Value, line: &str, child: Era) -> Value {
        let asked = envelope(&json!({"jsonrpc": "2.0", "id": "c", "method": method, "params": {"_meta": meta}}));
        let message = Message::read(line.as_bytes()).unwrap();
        let answer = match mcp_wire::message::answer(message.result, message.error).unwrap() {
            Answer::Result(text) => result(text, &asked, child),
            Answer::Error(text) => error(text, &asked).1,
        };
        serde_json::from_slice(&answer).unwrap()
    }

    #[test]
    fn an_answer_gets_the_clients_id_and_what_its_era_needs() {
        let legacy = answered("tools/list", &json!({}), r#"{"jsonrpc":"2.0","result":{"tools":[]},"id":9}"#, Era::Legacy);
        assert_eq!(legacy, json!({"jsonrpc": "2.0", "id": "c", "result": {"tools": []}}));
        let modern = answered("tools/list", &modern_meta(), r#"{"jsonrpc":"2.0","id":9,"result":{"tools":[]}}"#, Era::Legacy);
        assert_eq!(modern["result"], json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "tools": []}));
        let empty = answered("tools/call", &modern_meta(), r#"{"jsonrpc":"2.0","id":9,"result":{ }}"#, Era::Legacy);
        assert_eq!(empty["result"], json!({"resultType": "complete"}));
        let error =
            answered("tools/call", &modern_meta(), r#"{"jsonrpc":"2.0","id":9,"error":{"code":1,"message":""}}"#, Era::Legacy);
        let expected = json!({"jsonrpc": "2.0", "id": "c", "error": {"code": 1, "message": ""}});
        assert_eq!(error, expected);
        for nameless in [r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#, r#"{"error":{"code":1,"message":""}}"#]
        {
            assert_eq!(answered("tools/call", &json!({}), nameless, Era::Legacy), expected, "{nameless}");
        }
    }

    #[test]
    fn an_answer_of_an_odd_shape_is_one_that_clients_take() {
        let told = |line: &str| answered("tools/call", &json!({}), line, Era::Legacy);
        for plain in [
            r#"{"jsonrpc":"2.0","id":9,"result":{"a":1},"error":null}"#,
            r#"{"id":9,"result":{"a":1}}"#,
            r#"{"jsonrpc":"1.0","id":9.0,"result":{"a":1}}"#,
        ] {
            assert_eq!(told(plain), json!({"jsonrpc": "2.0", "id": "c", "result": {"a": 1}}), "{plain}");
        }
        for (odd, code, message) in [
            (json!("no"), -32603, "no"),
            (json!({"message": "no"}), -32603, "no"),
            (json!({"code": "E_NO", "message": "no"}), -32603, "no"),
            (json!({"code": 1.5, "message": "no"}), -32603, "no"),
            (json!({"code": -5}), -5, "the server's error says nothing"),
            (json!({"code": -5, "message": {"text": "no"}}), -5, "the server's error says nothing"),
            (json!(["no"]), -32603, "the server's error says nothing"),
            (Value::Null, -32603, "the server's error says nothing"),
        ] {
            let got = told(&json!({"jsonrpc": "2.0", "id": 9, "error": odd}).to_string());
            let expected = json!({"jsonrpc": "2.0", "id": "c", "error": {"code": code, "message": message, "data": odd}});
            assert_eq!(got, expected);
        }
    }
}
