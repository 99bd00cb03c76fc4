//! The answer to a request, out of what came back for it.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, value::RawValue};

/// A JSON-RPC error.
#[derive(Debug, Clone, PartialEq)]
pub struct RpcError {
    /// 0 where it has none.
    pub code: i64,
    pub message: String,
    pub data: Option<Value>,
    /// It names the request. One that does not may be about more than the request: about its session, or about what it came by.
    pub has_id: bool,
}

/// What a message is to whoever waits for the answer to a request.
#[derive(Debug)]
pub enum Message<'a> {
    /// The result, as it was written.
    Result(&'a RawValue),
    Error(RpcError),
    /// A notification, a request of the server's own, or the answer to something else.
    Other,
}

/// Whether a server may answer in arrays, as it could in one revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrays {
    Taken,
    Refused,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

/// `null` is a value, too.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads one body or event that came for the request `id`. An error without an id answers it: whoever could not read a request does not
/// know its id. The error of this function says what is wrong with the text.
pub fn read(text: &str, id: i64, arrays: Arrays) -> Result<Message<'_>, String> {
    let start = text.trim_start();
    if start.is_empty() {
        return Err("it is empty".into());
    }
    if start.starts_with('<') {
        return Err("it is HTML or XML".into());
    }
    if start.starts_with('[') && arrays == Arrays::Taken {
        let all: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| not_json(&error))?;
        let mut answer = Ok(Message::Other);
        for one in all {
            answer = read_one(one.get(), id);
            if !matches!(answer, Ok(Message::Other)) {
                break;
            }
        }
        return answer;
    }
    read_one(text, id)
}

/// The error in the body of a refusal by HTTP status, whatever its id: there is nothing else that it could answer.
pub fn refusal(text: &str, id: i64) -> Option<RpcError> {
    let Envelope { id: given, error, .. } = serde_json::from_str(text).ok()?;
    Some(rpc_error(error?, given.is_some_and(|given| names(given.get(), id))))
}

fn read_one(text: &str, id: i64) -> Result<Message<'_>, String> {
    // The fields by their places, in an array, are nothing that anybody means.
    if !matches!(text.trim_start().as_bytes().first(), Some(b'{')) {
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(text);
        return Err(is_json.map_or_else(|error| not_json(&error), |_| "it is no JSON-RPC message".into()));
    }
    let Envelope { jsonrpc, id: given, method, result, error } = serde_json::from_str(text).map_err(|error| {
        // Position and kind only: the text itself may hold anything.
        if error.is_data() { "it is no JSON-RPC message".to_owned() } else { not_json(&error) }
    })?;
    match jsonrpc.map(RawValue::get) {
        Some("\"2.0\"") => {}
        Some(_) => return Err("its \"jsonrpc\" is not \"2.0\"".into()),
        None => return Err("it is JSON, but no JSON-RPC message".into()),
    }
    if method.is_some() {
        return Ok(Message::Other);
    }
    let has_id = match given.map(RawValue::get) {
        None | Some("null") if error.is_some() => false,
        None | Some("null") => return Err("its \"id\" is missing".into()),
        Some(given) if names(given, id) => true,
        Some(_) => return Ok(Message::Other),
    };
    match (result, error) {
        (None, Some(error)) => Ok(Message::Error(rpc_error(error, has_id))),
        (Some(result), None) if result.get().starts_with('{') => Ok(Message::Result(result)),
        (Some(_), None) => Err("its \"result\" is no object".into()),
        (Some(_), Some(_)) => Err("it has both \"result\" and \"error\"".into()),
        (None, None) => Err("it has neither \"result\" nor \"error\"".into()),
    }
}

/// Whether an id, as it is written, is this one. All SDK clients accept "1" for 1.
#[allow(clippy::cast_precision_loss, reason = "ids are counted from zero")]
fn names(given: &str, id: i64) -> bool {
    let plain = given.strip_prefix('"').and_then(|given| given.strip_suffix('"')).unwrap_or(given);
    plain.parse() == Ok(id) || given.parse::<f64>().is_ok_and(|given| given.to_bits() == (id as f64).to_bits())
}

/// Whatever an error looks like, it is one.
fn rpc_error(error: &RawValue, has_id: bool) -> RpcError {
    let error: Value = serde_json::from_str(error.get()).unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    RpcError {
        code: error.get("code").and_then(Value::as_i64).unwrap_or_default(),
        message: error.get("message").and_then(text).or_else(|| text(&error)).unwrap_or_default(),
        data: error.get("data").cloned(),
        has_id,
    }
}

fn not_json(error: &serde_json::Error) -> String {
    format!("it is not JSON (line {}, column {})", error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str, arrays: Arrays) -> String {
        match read(text, 7, arrays) {
            Ok(Message::Result(result)) => format!("result {result}"),
            Ok(Message::Error(error)) => format!("error {} {} {}", error.code, error.message, error.has_id),
            Ok(Message::Other) => "other".into(),
            Err(problem) => problem,
        }
    }

    #[test]
    fn an_answer_is_told_from_everything_else() {
        for (text, expected) in [
            (r#"{"jsonrpc":"2.0","id":7,"result":{"a":1}}"#, r#"result {"a":1}"#),
            (r#"{"jsonrpc":"2.0","id":"7","result":{}}"#, "result {}"),
            (r#"{"jsonrpc":"2.0","id":7.0,"result":{}}"#, "result {}"),
            (r#"{"jsonrpc":"2.0","id":8,"result":{}}"#, "other"),
            (r#"{"jsonrpc":"2.0","id":"x","error":{"code":1,"message":"m"}}"#, "other"),
            (r#"{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":"m"}}"#, "error 1 m true"),
            (r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"m"}}"#, "error 1 m false"),
            (r#"{"jsonrpc":"2.0","error":{"code":1,"message":"m"}}"#, "error 1 m false"),
            (r#"{"jsonrpc":"2.0","error":"m"}"#, "error 0 m false"),
            (r#"{"jsonrpc":"2.0","id":7,"error":null}"#, "error 0  true"),
            (r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{}}"#, "other"),
            (r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#, "other"),
            (r#"{"jsonrpc":"2.0","id":7,"result":null}"#, r#"its "result" is no object"#),
            (r#"{"jsonrpc":"2.0","id":7,"result":"x"}"#, r#"its "result" is no object"#),
            (r#"{"jsonrpc":"2.0","id":7,"result":{},"error":{}}"#, r#"it has both "result" and "error""#),
            (r#"{"jsonrpc":"2.0","id":7}"#, r#"it has neither "result" nor "error""#),
            (r#"{"jsonrpc":"2.0","id":null,"result":{}}"#, r#"its "id" is missing"#),
            (r#"{"jsonrpc":"1.0","id":7,"result":{}}"#, r#"its "jsonrpc" is not "2.0""#),
            ("{}", "it is JSON, but no JSON-RPC message"),
            (r#"[{"jsonrpc":"2.0","id":7,"result":{}}]"#, "it is no JSON-RPC message"),
            ("5", "it is no JSON-RPC message"),
            ("<html>", "it is HTML or XML"),
            (" ", "it is empty"),
            ("{", "it is not JSON (line 1, column 1)"),
        ] {
            assert_eq!(told(text, Arrays::Refused), expected, "{text}");
        }
    }

    #[test]
    fn an_array_may_hold_the_answer_in_the_revision_that_has_arrays() {
        let both = r#"[{"jsonrpc":"2.0","method":"n"},{"jsonrpc":"2.0","id":7,"result":{}}]"#;
        assert_eq!(told(both, Arrays::Taken), "result {}");
        assert_eq!(told("[]", Arrays::Taken), "other");
        assert_eq!(told(r#"{"jsonrpc":"2.0","id":7,"result":{}}"#, Arrays::Taken), "result {}");
    }
}
