//! The arguments of a call as clients really send them: as an object, or as a string that holds one; numbers in quotes, empty strings and
//! null for what was left out, and fields that no tool has. What cannot be taken is refused with a sentence by which a model mends its
//! call. Both ways of a request, and both transports, read the same JSON text here: the SDK, which would make a tree of it first and
//! refuse half of it in a parser's words, is handed a wrapped copy.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::values::{self, Kind};
use crate::db::parameters::Parameters;

/// Under this key the SDK's arguments hold the text of the client's.
const TEXT: &str = "mcpfleet.dev/arguments";

/// Objects in one list: each of them becomes many times its size until it is answered.
const MAX_ITEMS: usize = 10_000;

/// How many unknown fields a sentence names.
const MAX_IGNORED: usize = 3;

/// The arguments of one tool, or an object within them.
pub trait Args: Sized {
    /// The fields that it has; others are passed over.
    const FIELDS: &'static [&'static str];
    /// How they look, for sentences.
    const EXAMPLE: &'static str = r#"{"query": "…"}"#;

    /// Reads them; the error is a sentence for the model.
    fn read(arguments: &Arguments<'_>) -> Result<Self, String>;

    /// What a plain string stands for in a list of them. None: nothing.
    fn of_text(_: &str) -> Option<Self> {
        None
    }
}

/// The fields of one call that its tool knows, not yet read.
#[derive(Debug)]
pub struct Arguments<'a> {
    /// What they are of, in sentences: a tool, or a part of its arguments.
    of: &'a str,
    fields: Vec<(&'static str, &'a str)>,
    ignored: Vec<String>,
}

impl<'a> Arguments<'a> {
    /// Reads the JSON text of a call's arguments; None: there are none.
    pub fn read<T: Args>(of: &str, json: Option<&str>) -> Result<T, String> {
        let read = |json: &str| T::read(&Arguments::of_object(of, json, T::FIELDS)?);
        let json = json.unwrap_or("{}");
        match Kind::of(json) {
            Kind::Null => read("{}"),
            Kind::Object => read(json),
            Kind::Text => {
                let inside = values::text(json);
                let inside = inside.trim();
                match Kind::of(inside) {
                    _ if inside.is_empty() => read("{}"),
                    Kind::Object if values::is_json(inside) => read(inside),
                    _ => Err(no_object(of, Kind::Text, T::EXAMPLE)),
                }
            }
            // What some languages make of an empty map.
            Kind::List if json[1..json.len() - 1].trim().is_empty() => read("{}"),
            kind => Err(no_object(of, kind, T::EXAMPLE)),
        }
    }

    fn of_object(of: &'a str, json: &'a str, known: &[&'static str]) -> Result<Self, String> {
        let mut arguments = Self { of, fields: Vec::new(), ignored: Vec::new() };
        values::each_field(json, |name, value| {
            let exact = known.iter().find(|known| **known == name);
            match exact.or_else(|| known.iter().find(|known| means(&name, known))) {
                Some(known) => {
                    // Of two of one name the last one counts, as for most readers of JSON; but the name itself before what is only like it.
                    let before = arguments.fields.iter().position(|(field, _)| field == known);
                    match before {
                        Some(at) if exact.is_some() => arguments.fields[at] = (known, value),
                        Some(_) => {}
                        None => arguments.fields.push((known, value)),
                    }
                }
                None if arguments.ignored.len() < MAX_IGNORED => arguments.ignored.push(values::shown(&name)),
                None => {}
            }
            Ok(())
        })?;
        Ok(arguments)
    }

    /// The JSON of a field; None: it is not there, or null.
    pub fn field(&self, name: &str) -> Option<&'a str> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, json)| *json).filter(|json| Kind::of(json) != Kind::Null)
    }

    /// A string that has to be there. `what` is what it holds.
    pub fn text(&self, name: &str, what: &str) -> Result<String, String> {
        match self.field(name) {
            Some(json) if Kind::of(json) == Kind::Text => Ok(values::text(json)),
            Some(json) => Err(format!("\"{name}\" must be a string with {what}, not {}", Kind::of(json))),
            None => Err(format!("{} needs \"{name}\", a string with {what}{}", self.of, self.unknown())),
        }
    }

    /// What else was sent, for the sentence about what was not.
    fn unknown(&self) -> String {
        match &self.ignored[..] {
            [] => String::new(),
            names => format!("; it has no argument \"{}\"", names.join("\" and no \"")),
        }
    }

    /// A string that may be left out, or be empty.
    pub fn optional_text(&self, name: &str, what: &str) -> Result<Option<String>, String> {
        if self.field(name).is_none() {
            return Ok(None);
        }
        self.text(name, what).map(|text| Some(text).filter(|text| !text.trim().is_empty()))
    }

    /// A whole number of at least 1, also written as 5.0 or in quotes; larger ones are cut to the largest that a u32 holds.
    pub fn count(&self, name: &str) -> Result<Option<u32>, String> {
        let Some(json) = self.field(name) else { return Ok(None) };
        let refuse = || format!("\"{name}\" must be a whole number of at least 1, such as 100, not {}", values::shown(json));
        let text = match Kind::of(json) {
            Kind::Text => values::text(json),
            Kind::Number => json.to_owned(),
            _ => return Err(refuse()),
        };
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let number: f64 = text.parse().map_err(|_| refuse())?;
        if number.is_nan() || number < 1.0 || number.fract() != 0.0 {
            return Err(refuse());
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at least 1, and what is larger is cut")]
        Ok(Some(number as u32))
    }

    /// A list of objects that has to be there, each with fields of its own; also in a string.
    pub fn list<T: Args>(&self, name: &str) -> Result<Vec<T>, String> {
        let refuse = |kind: Kind| format!("\"{name}\" must be an array of objects{}, not {kind}", such_as(T::EXAMPLE));
        let needed = || format!("{} needs \"{name}\", an array of objects{}{}", self.of, such_as(T::EXAMPLE), self.unknown());
        let json = self.field(name).ok_or_else(needed)?;
        let inside = if Kind::of(json) == Kind::Text { values::text(json) } else { String::new() };
        let list = if inside.is_empty() { json } else { inside.trim() };
        if Kind::of(list) != Kind::List || !values::is_json(list) {
            return Err(refuse(Kind::of(json)));
        }
        let mut items = Vec::new();
        values::each_item(list, |item| {
            if items.len() >= MAX_ITEMS {
                return Err(format!("\"{name}\" holds more than {MAX_ITEMS} objects: send several calls"));
            }
            let text = (Kind::of(item) == Kind::Text).then(|| values::text(item)).filter(|text| Kind::of(text) != Kind::Object);
            let item = match text.and_then(|text| T::of_text(&text)) {
                Some(item) => item,
                None => Arguments::read(&format!("{name}[{}]", items.len()), Some(item))?,
            };
            items.push(item);
            Ok(())
        })?;
        Ok(items)
    }

    /// Values for placeholders.
    pub fn parameters(&self, name: &str) -> Result<Parameters, String> {
        self.field(name).map_or(Ok(Parameters::None), values::parameters)
    }
}

/// Other spellings of a field: maxRows, max-rows; and of one, the name that half of all drivers have for it.
fn means(sent: &str, field: &str) -> bool {
    let letters = |name: &str| {
        let letters = name.bytes().filter(|byte| !matches!(byte, b'_' | b'-'));
        letters.map(|byte| byte.to_ascii_lowercase()).collect::<Vec<_>>()
    };
    sent.len() <= 2 * field.len() + 8
        && (letters(sent) == letters(field) || (field == "params" && letters(sent) == b"parameters"))
}

fn no_object(of: &str, kind: Kind, example: &str) -> String {
    format!("the arguments of {of} must be an object{}, not {kind}", such_as(example))
}

fn such_as(example: &str) -> String {
    if example.is_empty() { String::new() } else { format!(" such as {example}") }
}

#[derive(Deserialize)]
struct Message<'a> {
    method: &'a str,
    #[serde(borrow)]
    params: Call<'a>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    arguments: &'a RawValue,
}

/// A message for the SDK: that of a client, with the arguments of a tool's call wrapped. None: it goes as it is.
pub fn wrapped(message: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(message).ok()?;
    let Message { method, params: Call { arguments } } = serde_json::from_str(text).ok()?;
    if method != "tools/call" {
        return None;
    }
    let arguments = arguments.get();
    let start = arguments.as_ptr() as usize - text.as_ptr() as usize;
    let (before, after) = (&message[..start], &message[start + arguments.len()..]);
    let mut wrapped = Vec::with_capacity(message.len() + message.len() / 8 + TEXT.len() + 16);
    wrapped.extend_from_slice(before);
    wrapped.extend_from_slice(b"{\"");
    wrapped.extend_from_slice(TEXT.as_bytes());
    wrapped.extend_from_slice(b"\":");
    serde_json::to_writer(&mut wrapped, arguments).ok()?;
    wrapped.push(b'}');
    wrapped.extend_from_slice(after);
    Some(wrapped)
}

/// How many bytes a message of so many can have when it is wrapped.
pub fn wrapped_bytes(message: usize) -> usize {
    2 * message + 64
}

/// The JSON text of the arguments that the SDK hands over.
pub fn unwrapped(arguments: Option<rmcp::model::JsonObject>) -> Option<String> {
    let arguments = arguments?;
    match arguments.get(TEXT) {
        Some(serde_json::Value::String(text)) if arguments.len() == 1 => Some(text.clone()),
        // Not wrapped by us: a message whose outer shape only the SDK reads.
        _ => Some(serde_json::Value::Object(arguments).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_come_through_the_wrapping_letter_by_letter() {
        for arguments in [r#"{"query": "SELECT '\u00e4\n'", "params": [1e400, "\ud83d"]}"#, "[1 ,2]", "5", r#""{}""#, "null"] {
            let sent = format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"x","arguments": {arguments} ,"_meta":{{}}}}}}"#
            );
            let wrapped = wrapped(sent.as_bytes()).unwrap();
            assert!(wrapped.len() <= wrapped_bytes(sent.len()));
            let message: serde_json::Value = serde_json::from_slice(&wrapped).unwrap();
            let object = message["params"]["arguments"].as_object().unwrap().clone();
            assert_eq!(unwrapped(Some(object)).unwrap(), arguments);
            assert_eq!(message["params"]["_meta"], serde_json::json!({}));
        }
    }

    #[test]
    fn only_calls_of_tools_are_wrapped() {
        for sent in [
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"arguments":{}}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_tables"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#,
            r#"{"method":"tools/call","params":{"arguments":{},"arguments":[]}}"#,
            "{",
            "",
        ] {
            assert_eq!(wrapped(sent.as_bytes()), None, "{sent}");
        }
    }
}
