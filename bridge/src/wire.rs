//! Messages as bytes: what must be known of one is read without making a tree of it, and what must be different is cut out and put in.
//! Everything else reaches the other side as it was written.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What JSON-RPC says of a message, as parts of its text. A key that stands in it twice is an error.
#[derive(Debug, Deserialize)]
pub struct Message<'a> {
    /// `2.0`.
    #[serde(borrow, default)]
    pub jsonrpc: Option<Text<'a>>,
    /// Absent in notifications; `null` where it stands there as such.
    #[serde(borrow, default, deserialize_with = "as_it_stands")]
    pub id: Option<&'a RawValue>,
    /// Absent in answers.
    #[serde(borrow, default)]
    pub method: Option<Text<'a>>,
    /// Of a request or a notification.
    #[serde(borrow, default)]
    pub params: Option<&'a RawValue>,
    /// Of an answer; `null` where it stands there as such.
    #[serde(borrow, default, deserialize_with = "as_it_stands")]
    pub result: Option<&'a RawValue>,
    /// Of an answer that is an error; `null` where it stands there as such.
    #[serde(borrow, default, deserialize_with = "as_it_stands")]
    pub error: Option<&'a RawValue>,
}

/// Otherwise a `null` would be the same as nothing.
fn as_it_stands<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A string that is borrowed where it holds no escape.
#[derive(Debug, Clone, Deserialize)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// The params of any method, as far as a bridge looks.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Params<'a> {
    /// For the protocol.
    #[serde(borrow, default, rename = "_meta")]
    pub meta: Option<&'a RawValue>,
    /// Of a tool or a prompt.
    #[serde(borrow, default)]
    pub name: Option<&'a RawValue>,
    /// Of a resource.
    #[serde(borrow, default)]
    pub uri: Option<&'a RawValue>,
    /// Of `notifications/cancelled`.
    #[serde(borrow, default)]
    pub request_id: Option<&'a RawValue>,
    /// Of `notifications/cancelled`.
    #[serde(borrow, default)]
    pub reason: Option<&'a RawValue>,
    /// Of `notifications/progress`.
    #[serde(borrow, default)]
    pub progress_token: Option<&'a RawValue>,
    /// Of `logging/setLevel` and `notifications/message`.
    #[serde(borrow, default)]
    pub level: Option<&'a RawValue>,
    /// Of `initialize`.
    #[serde(borrow, default)]
    pub protocol_version: Option<&'a RawValue>,
    /// Of `initialize`.
    #[serde(borrow, default)]
    pub capabilities: Option<&'a RawValue>,
    /// Of `initialize`.
    #[serde(borrow, default)]
    pub client_info: Option<&'a RawValue>,
    /// Of `subscriptions/listen`.
    #[serde(borrow, default)]
    pub notifications: Option<&'a RawValue>,
}

/// The keys of `_meta` that mean something here.
#[derive(Debug, Default, Deserialize)]
pub struct Meta<'a> {
    /// Progress is asked for.
    #[serde(borrow, default, rename = "progressToken")]
    pub progress_token: Option<&'a RawValue>,
    /// The request is of 2026-07-28 or later.
    #[serde(borrow, default, rename = "io.modelcontextprotocol/protocolVersion")]
    pub protocol_version: Option<&'a RawValue>,
    /// What its client can do.
    #[serde(borrow, default, rename = "io.modelcontextprotocol/clientCapabilities")]
    pub capabilities: Option<&'a RawValue>,
    /// Which subscription a notification belongs to.
    #[serde(borrow, default, rename = "io.modelcontextprotocol/subscriptionId")]
    pub subscription: Option<&'a RawValue>,
    /// How much the client wants to be told.
    #[serde(borrow, default, rename = "io.modelcontextprotocol/logLevel")]
    pub log_level: Option<&'a RawValue>,
}

impl<'a> Message<'a> {
    /// None: no JSON object, or a key twice.
    pub fn read(text: &'a [u8]) -> Option<Self> {
        // A sequence would be taken for the members in their order.
        if text.trim_ascii_start().first() != Some(&b'{') {
            return None;
        }
        // Looked at as a whole: otherwise each part would be by itself.
        serde_json::from_str(std::str::from_utf8(text).ok()?).ok()
    }

    /// Whether it says so.
    pub fn is_2_0(&self) -> bool {
        self.jsonrpc.as_ref().is_some_and(|version| version.0 == "2.0")
    }

    /// Empty where there are none, or where they are no object.
    pub fn params(&self) -> Params<'a> {
        read_or_default(self.params)
    }
}

impl<'a> Params<'a> {
    /// Empty where there is none.
    pub fn meta(&self) -> Meta<'a> {
        read_or_default(self.meta)
    }
}

fn read_or_default<'a, T: Default + Deserialize<'a>>(raw: Option<&'a RawValue>) -> T {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

/// A JSON string's value.
pub fn text(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(raw?.get()).ok().map(|text| text.0)
}

/// Whether a word may stand in a text of JSON: as it is, or with characters of it as `\u0069`.
pub fn may_say(text: &str, word: &str) -> bool {
    let holds = |part: &str| memchr::memmem::find(text.as_bytes(), part.as_bytes()).is_some();
    holds(word) || holds("\\u")
}

/// An id that we gave out.
pub fn number(raw: Option<&RawValue>) -> Option<u64> {
    mcp_wire::message::number(raw?.get())
}

/// Whether it may be an id: a string or a number.
pub fn is_id(raw: &RawValue) -> bool {
    matches!(raw.get().as_bytes().first(), Some(b'"' | b'-' | b'0'..=b'9'))
}

/// Where a part of a text stands in it. It must have been read from this very text.
pub fn span(whole: &[u8], part: &RawValue) -> Range<usize> {
    let part = part.get();
    let begin = part.as_ptr().addr() - whole.as_ptr().addr();
    begin..begin + part.len()
}

/// Changes to a text, each in the place of a part of it. They may not overlap.
#[derive(Debug, Default)]
pub struct Edits<'e>(Vec<(Range<usize>, Cow<'e, [u8]>)>);

impl<'e> Edits<'e> {
    /// Puts a text in the place of another; an empty place inserts.
    pub fn put(&mut self, place: Range<usize>, text: impl Into<Cow<'e, [u8]>>) {
        self.0.push((place, text.into()));
    }

    /// The text with all changes, appended to `out`.
    pub fn apply(mut self, text: &[u8], out: &mut Vec<u8>) {
        self.0.sort_by_key(|(place, _)| place.start);
        let mut at = 0;
        for (place, new) in &self.0 {
            out.extend_from_slice(&text[at..place.start]);
            out.extend_from_slice(new);
            at = place.end;
        }
        out.extend_from_slice(&text[at..]);
    }
}

/// The members of an object, in their order.
#[derive(Debug, Default)]
pub struct Members<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Empty where it is no object.
    pub fn of(raw: Option<&'a RawValue>) -> Self {
        read_or_default(raw)
    }

    /// As an object, with further members whose text is given as it is.
    pub fn with(&self, more: &[(&str, &str)]) -> String {
        let all = || self.0.iter().map(|(key, value)| (key.as_ref(), value.get())).chain(more.iter().copied());
        let mut out = String::with_capacity(all().map(|(key, value)| key.len() + value.len() + 4).sum::<usize>() + 2);
        out.push('{');
        for (key, value) in all() {
            if out.len() > 1 {
                out.push(',');
            }
            push_quoted(&mut out, key);
            out.push(':');
            out.push_str(value);
        }
        out.push('}');
        out
    }
}

/// As a JSON string.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_quoted(&mut out, text);
    out
}

fn push_quoted(out: &mut String, text: &str) {
    // Nearly all are keys of the protocol.
    // (Counted, and not looked for: so many bytes are looked at at once.)
    if text.bytes().filter(|byte| *byte < b' ' || matches!(byte, b'"' | b'\\')).count() == 0 {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::Value::from(text).to_string());
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads;
        impl<'de> Visitor<'de> for Reads {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((Text(key), value)) = map.next_entry()? {
                    members.push((key, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reads)
    }
}

/// An answer of our own to a request of somebody else's.
pub fn result(id: &str, result: &str) -> Vec<u8> {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#).into_bytes()
}

/// Somebody else's error, as the answer to a request. `error` is JSON.
pub fn error_of(id: &str, error: &str) -> Vec<u8> {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#).into_bytes()
}

/// An error of our own. `data` is JSON.
pub fn error(id: &str, code: i64, message: &str, data: Option<&str>) -> Vec<u8> {
    let data = data.map_or_else(String::new, |data| format!(r#","data":{data}"#));
    let message = quoted(message);
    error_of(id, &format!(r#"{{"code":{code},"message":{message}{data}}}"#))
}

/// A notification of our own. `params` is JSON.
pub fn notification(method: &str, params: &str) -> Vec<u8> {
    format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#).into_bytes()
}

/// A request of our own. `id` and `params` are JSON.
pub fn request(id: &str, method: &str, params: &str) -> Vec<u8> {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#).into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_is_read_without_what_does_not_matter() {
        let text =
            br#"{ "x": [1e999], "method": "tools/c\u0061ll", "id": "a", "params": {"name": "t", "_meta": {"progressToken": 5}}}"#;
        let message = Message::read(text).unwrap();
        assert_eq!(message.method.as_ref().unwrap().0, "tools/call");
        assert_eq!(&text[span(text, message.id.unwrap())], b"\"a\"");
        assert_eq!(message.params().meta().progress_token.unwrap().get(), "5");
        assert!(Message::read(br#"{"id": 1, "id": 2}"#).is_none(), "which of them counts is a way to smuggle");
        assert!(Message::read(br#"["2.0", 1, "tools/call"]"#).is_none());
        let id = |text: &'static str| Message::read(text.as_bytes()).unwrap().id.map(RawValue::get);
        assert_eq!((id("{}"), id(r#"{"id": null}"#)), (None, Some("null")));
    }

    #[test]
    fn our_ids_are_known_again_as_numbers_and_as_strings() {
        let read = |text: &str| number(Message::read(format!(r#"{{"id": {text}}}"#).as_bytes()).unwrap().id);
        assert_eq!((read("1.7e1"), read("1.5"), read("-1.0"), read("\"17.0\"")), (Some(17), None, None, None));
        assert_eq!((read("17"), read("\"17\""), read("17.0"), read("\"x\"")), (Some(17), Some(17), Some(17), None));
    }

    #[test]
    fn a_word_is_found_however_it_is_written() {
        assert!(may_say(r#"{"resultType":"input_required"}"#, "input_required"));
        assert!(may_say(r#"{"resultType":"input\u005frequired"}"#, "input_required"));
        assert!(!may_say(r#"{"content":[],"text":"a\nb"}"#, "input_required"));
    }

    proptest! {
        #[test]
        fn what_is_quoted_is_read_as_it_was(text in any::<String>()) {
            prop_assert_eq!(serde_json::from_str::<String>(&quoted(&text)).unwrap(), text);
        }

        #[test]
        fn an_edit_changes_its_place_and_nothing_else(before in "[ -~]{0,20}", old in "[ -~]{0,9}", after in "[ -~]{0,20}", new in "[ -~]{0,9}") {
            let mut edits = Edits::default();
            edits.put(before.len()..before.len() + old.len(), new.as_bytes());
            let mut out = Vec::new();
            edits.apply(format!("{before}{old}{after}").as_bytes(), &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), format!("{before}{new}{after}"));
        }
    }
}
