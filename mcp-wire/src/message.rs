//! The answer to a request, out of what came back for it.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
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
    /// A notification, or a request of the server's own.
    Other,
}

/// Why a text is no message that anybody waits for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{told}")]
pub struct Fault {
    /// What is wrong with it.
    pub told: String,
    /// It answers the request all the same, and nothing better will come. Others may have no meaning beside the answer: clients pass over
    /// them.
    pub answers: bool,
}

impl Fault {
    fn of(told: impl Into<String>) -> Self {
        Self { told: told.into(), answers: false }
    }

    fn of_answer(told: &str) -> Self {
        Self { told: told.into(), answers: true }
    }
}

/// Whether a server may answer in arrays, as it could in one revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrays {
    Taken,
    Refused,
}

/// The fields of a message as they are written; of two of one name, the last: so do all who make a map of them.
#[derive(Default)]
struct Envelope<'a> {
    jsonrpc: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    method: Option<&'a RawValue>,
    result: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    Jsonrpc,
    Id,
    Method,
    Result,
    Error,
    #[serde(other)]
    Unknown,
}

impl<'de: 'a, 'a> Deserialize<'de> for Envelope<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Envelope<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a message")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
                let mut message = Envelope::default();
                while let Some(field) = map.next_key()? {
                    let place = match field {
                        Field::Jsonrpc => &mut message.jsonrpc,
                        Field::Id => &mut message.id,
                        Field::Method => &mut message.method,
                        Field::Result => &mut message.result,
                        Field::Error => &mut message.error,
                        Field::Unknown => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *place = Some(map.next_value()?);
                }
                Ok(message)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// What stands in a message beside what it says: for whoever has to find out first which request it answers.
#[derive(Debug, Default)]
pub struct Peek {
    /// None where it has none, or null.
    pub id: Option<Value>,
    pub has_method: bool,
    pub has_error: bool,
}

impl<'de> Deserialize<'de> for Peek {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Peek;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a message")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Peek, A::Error> {
                let mut peek = Peek::default();
                while let Some(field) = map.next_key()? {
                    if let Field::Id = field {
                        peek.id = map.next_value()?;
                        continue;
                    }
                    // It need not be text at all: that is told when it is read.
                    map.next_value::<IgnoredAny>()?;
                    peek.has_method |= matches!(field, Field::Method);
                    peek.has_error |= matches!(field, Field::Error);
                }
                Ok(peek)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// Looks at a message; none where it is no JSON object.
pub fn peek(bytes: &[u8]) -> Option<Peek> {
    serde_json::from_slice(bytes).ok()
}

/// Reads one body or event that came for the request `id`. An error without an id answers it: whoever could not read a request does not
/// know its id.
pub fn read(text: &str, id: i64, arrays: Arrays) -> Result<Message<'_>, Fault> {
    let start = text.trim_start();
    if start.is_empty() {
        return Err(Fault::of("it is empty"));
    }
    if start.starts_with('<') {
        return Err(Fault::of("it is HTML or XML"));
    }
    if start.starts_with('[') && arrays == Arrays::Taken {
        let all: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| not_json(&error))?;
        // Notifications and requests of the server's own may stand beside the answer.
        let mut wrong = Ok(Message::Other);
        for one in all {
            match read_one(one.get(), id) {
                Ok(Message::Other) => {}
                Err(fault) if !fault.answers => wrong = Err(fault),
                answer => return answer,
            }
        }
        return wrong;
    }
    read_one(text, id)
}

/// The error in the body of a refusal by HTTP status, whatever its id: there is nothing else that it could answer.
pub fn refusal(text: &str, id: i64) -> Option<RpcError> {
    let Envelope { id: given, error, .. } = serde_json::from_str(text).ok()?;
    Some(RpcError::read(error?, given.is_some_and(|given| names(given.get(), id))))
}

fn read_one(text: &str, id: i64) -> Result<Message<'_>, Fault> {
    // The fields by their places, in an array, are nothing that anybody means.
    if !matches!(text.trim_start().as_bytes().first(), Some(b'{')) {
        let is_json = serde_json::from_str::<IgnoredAny>(text);
        return Err(is_json.map_or_else(|error| not_json(&error), |_| Fault::of("it is no JSON-RPC message")));
    }
    let Envelope { jsonrpc, id: given, method, result, error } = serde_json::from_str(text).map_err(|error| not_json(&error))?;
    match jsonrpc.map(|version| as_read(version.get())).as_deref() {
        Some("\"2.0\"") => {}
        Some(_) => return Err(Fault::of("its \"jsonrpc\" is not \"2.0\"")),
        None => return Err(Fault::of("it is JSON, but no JSON-RPC message")),
    }
    if method.is_some() {
        return Ok(Message::Other);
    }
    let has_id = match given.map(RawValue::get) {
        None | Some("null") if error.is_some() => false,
        None | Some("null") => return Err(Fault::of("its \"id\" is missing")),
        Some(given) if names(given, id) => true,
        Some(_) => return Err(Fault::of("its \"id\" is not the one of the request")),
    };
    answer(result, error).map(|answer| match answer {
        Answer::Result(result) => Message::Result(result),
        Answer::Error(error) => Message::Error(RpcError::read(error, has_id)),
    })
}

/// The id in what would be an answer, if it could be read: at its begin or its end, for what is in between could be the answer's own.
pub fn claimed_id(head: &[u8], tail: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"\"id\"";
    let find = |text: &[u8], key: &[u8]| memchr::memmem::find(text, key);
    if !head.starts_with(b"{") || find(head, b"\"jsonrpc\"").or_else(|| find(tail, b"\"jsonrpc\"")).is_none() {
        return None;
    }
    let before_the_answer = || {
        let answer = find(head, b"\"result\"").or_else(|| find(head, b"\"error\""))?;
        let value = head[find(head, KEY).filter(|at| *at < answer)? + KEY.len()..].trim_ascii_start();
        let value = value.strip_prefix(b":")?.trim_ascii_start();
        let value = value.strip_prefix(b"\"").unwrap_or(value);
        let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
        Some(&value[..digits])
    };
    let at_the_end = || {
        let value = tail.trim_ascii_end().strip_suffix(b"}")?.trim_ascii_end();
        let value = value.strip_suffix(b"\"").unwrap_or(value);
        let digits = value.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let (rest, digits) = value.split_at(value.len() - digits);
        let rest = rest.strip_suffix(b"\"").unwrap_or(rest).trim_ascii_end().strip_suffix(b":")?;
        rest.trim_ascii_end().ends_with(KEY).then_some(digits)
    };
    std::str::from_utf8(before_the_answer().or_else(at_the_end)?).ok()?.parse().ok()
}

/// A request of the server's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// As it is written: whoever answers writes the same.
    pub id: String,
    pub method: String,
}

/// The requests in one body or event. What answers something, tells something, or cannot be read is none.
pub fn asked(text: &str, arrays: Arrays) -> Vec<Asked> {
    if text.trim_start().starts_with('[') && arrays == Arrays::Taken {
        let all: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
        return all.iter().filter_map(|one| asked_one(one.get())).collect();
    }
    asked_one(text).into_iter().collect()
}

fn asked_one(text: &str) -> Option<Asked> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let Envelope { id, method, .. } = serde_json::from_str(text).ok()?;
    let id = id?.get();
    let names = id.starts_with(['"', '-']) || id.starts_with(|c: char| c.is_ascii_digit());
    let method = serde_json::from_str(method?.get()).ok()?;
    names.then(|| Asked { id: id.to_owned(), method })
}

/// What answers a request, as it was written.
#[derive(Debug, Clone, Copy)]
pub enum Answer<'a> {
    /// An object.
    Result(&'a RawValue),
    /// Whatever it looks like.
    Error(&'a RawValue),
}

/// Judges the two fields of which an answer has one. A `null` beside the other is none: so JSON-RPC 1.0 had it.
pub fn answer<'a>(result: Option<&'a RawValue>, error: Option<&'a RawValue>) -> Result<Answer<'a>, Fault> {
    let beside =
        |field: Option<&'a RawValue>, other: Option<&RawValue>| field.filter(|field| other.is_none() || field.get() != "null");
    match (beside(result, error), beside(error, result)) {
        (Some(_), Some(_)) => Err(Fault::of_answer("it has both \"result\" and \"error\"")),
        (Some(result), None) if result.get().starts_with('{') => Ok(Answer::Result(result)),
        (Some(_), None) => Err(Fault::of_answer("its \"result\" is no object")),
        (None, Some(error)) => Ok(Answer::Error(error)),
        (None, None) => Err(Fault::of_answer("it has neither \"result\" nor \"error\"")),
    }
}

/// A value with its characters as they are read, where it is a string and some are written by their numbers.
fn as_read(written: &str) -> Cow<'_, str> {
    if !(written.starts_with('"') && written.contains('\\')) {
        return Cow::Borrowed(written);
    }
    serde_json::from_str::<String>(written).map_or(Cow::Borrowed(written), |read| Cow::Owned(format!("\"{read}\"")))
}

/// Whether an id, as it is written, is this one of ours, which are counted from zero.
fn names(given: &str, id: i64) -> bool {
    number(given).is_some_and(|given| i64::try_from(given) == Ok(id))
}

/// An id that we gave out, as it is written: a whole number, also where it comes back as a string, as all SDK clients accept it, or as `1.0`
/// or `1e0`, which to JSON is the same number.
pub fn number(given: &str) -> Option<u64> {
    let given = &*as_read(given);
    let plain = given.strip_prefix('"').and_then(|given| given.strip_suffix('"')).unwrap_or(given);
    plain.parse().ok().or_else(|| {
        let number = given.parse::<f64>().ok().filter(|number| number.fract() == 0.0)?;
        // A whole number is written as one.
        format!("{number:.0}").parse().ok()
    })
}

impl RpcError {
    /// Whatever an error looks like, it is one.
    pub fn read(error: &RawValue, has_id: bool) -> Self {
        let error: Value = serde_json::from_str(error.get()).unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Self {
            code: error.get("code").and_then(Value::as_i64).unwrap_or_default(),
            message: error.get("message").and_then(text).or_else(|| text(&error)).unwrap_or_default(),
            data: error.get("data").cloned(),
            has_id,
        }
    }
}

fn not_json(error: &serde_json::Error) -> Fault {
    // Position and kind only: the text itself may hold anything.
    Fault::of(format!("it is not JSON (line {}, column {})", error.line(), error.column()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str, arrays: Arrays) -> String {
        match read(text, 7, arrays) {
            Ok(Message::Result(result)) => format!("result {result}"),
            Ok(Message::Error(error)) => format!("error {} {} {}", error.code, error.message, error.has_id),
            Ok(Message::Other) => "other".into(),
            Err(fault) => fault.told,
        }
    }

    #[test]
    fn an_answer_is_told_from_everything_else() {
        for (text, expected) in [
            (r#"{"jsonrpc":"2.0","id":7,"result":{"a":1}}"#, r#"result {"a":1}"#),
            (r#"{"jsonrpc":"2.0","id":"7","result":{}}"#, "result {}"),
            (r#"{"jsonrpc":"2.\u0030","id":"\u0037","result":{}}"#, "result {}"),
            (r#"{"jsonrpc":"2.\u0031","id":7,"result":{}}"#, r#"its "jsonrpc" is not "2.0""#),
            (r#"{"jsonrpc":"2.0","id":7.0,"result":{}}"#, "result {}"),
            (r#"{"jsonrpc":"2.0","id":8,"result":{}}"#, r#"its "id" is not the one of the request"#),
            (r#"{"jsonrpc":"2.0","id":"x","error":{"code":1,"message":"m"}}"#, r#"its "id" is not the one of the request"#),
            (r#"{"jsonrpc":"2.0","id":8,"id":7,"result":{},"result":{"a":1}}"#, r#"result {"a":1}"#),
            (r#"{"jsonrpc":"2.0","method":"notifications/own","params":[1]}"#, "other"),
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
            (r#"{"jsonrpc":"2.0","id":7,"result":{},"error":null}"#, "result {}"),
            (r#"{"jsonrpc":"2.0","id":7,"result":5,"error":null}"#, r#"its "result" is no object"#),
            (r#"{"jsonrpc":"2.0","id":7,"result":null,"error":null}"#, r#"it has neither "result" nor "error""#),
            (r#"{"jsonrpc":"2.0","id":7,"result":null,"error":{"code":1,"message":"m"}}"#, "error 1 m true"),
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
        let others = r#"[{"jsonrpc":"2.0","id":8,"result":{}},5,{"jsonrpc":"2.0","id":7,"result":{}}]"#;
        assert_eq!(told(others, Arrays::Taken), "result {}");
        assert_eq!(told(r#"{"jsonrpc":"2.0","id":7,"result":{}}"#, Arrays::Taken), "result {}");
    }

    #[test]
    fn an_answer_that_is_broken_is_told_from_what_is_none() {
        let answers = |text: &str| read(text, 7, Arrays::Refused).err().map(|fault| fault.answers);
        assert_eq!(answers(r#"{"jsonrpc":"2.0","id":7,"result":5}"#), Some(true));
        assert_eq!(answers(r#"{"jsonrpc":"2.0","id":7}"#), Some(true));
        for none in ["ping", "{}", "", "<html>", r#"{"jsonrpc":"2.0","id":8,"result":5}"#, r#"{"jsonrpc":"2.0","result":{}}"#] {
            assert_eq!(answers(none), Some(false), "{none}");
        }
    }

    #[test]
    fn what_a_server_asks_is_told_from_what_it_tells() {
        let of = |text: &str, arrays| -> Vec<(String, String)> {
            asked(text, arrays).into_iter().map(|asked| (asked.id, asked.method)).collect()
        };
        let ping = r#"{"jsonrpc":"2.0","id":"a\u0031","method":"\u0070ing"}"#;
        assert_eq!(of(ping, Arrays::Refused), [(r#""a\u0031""#.to_owned(), "ping".to_owned())]);
        let both = format!(r#" [{ping},{{"id":-5,"method":"roots/list"}},{{"method":"x"}},7]"#);
        assert_eq!(of(&both, Arrays::Taken).len(), 2);
        let none = [
            &both[..],
            r#"{"method":"ping"}"#,
            r#"{"id":null,"method":"ping"}"#,
            r#"{"id":{},"method":"ping"}"#,
            r#"{"id":1,"method":5}"#,
            r#"{"id":1,"result":{}}"#,
            "Listening",
        ];
        for none in none {
            assert_eq!(of(none, Arrays::Refused), [], "{none}");
        }
    }

    #[test]
    fn a_message_is_looked_at_before_it_is_read() {
        let peek = |text: &str| peek(text.as_bytes()).map(|peek| (peek.id, peek.has_method, peek.has_error));
        assert_eq!(peek(r#"{"id":1,"id":7,"result":{"a":"\ud83d"}}"#), Some((Some(7.into()), false, false)));
        assert_eq!(peek(r#"{"id":null,"error":null}"#), Some((None, false, true)));
        assert_eq!(peek(r#"{"method":"ping","id":"x"}"#), Some((Some("x".into()), true, false)));
        assert_eq!((peek("Listening"), peek("[]")), (None, None));
    }
}
