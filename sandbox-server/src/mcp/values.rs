//! Values for placeholders as clients send them, from their JSON. They are read straight into what SQLite takes, without a tree between:
//! what cannot be a value ends the reading at once, however much more of it was sent.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use rusqlite::types::Value as SqlValue;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::db::parameters::Parameters;

/// SQLite's own maximum of placeholders in a statement: more values cannot be meant.
const MAX_VALUES: usize = 32_766;

/// How much of something wrong is shown.
const SHOWN_CHARS: usize = 40;

/// Base64; its padding may be missing.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// What a piece of JSON is, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true`, `false`
    Bool,
    /// `5`, `5.0`
    Number,
    /// `"…"`
    Text,
    /// `[…]`
    List,
    /// `{…}`
    Object,
}

impl Kind {
    /// Of JSON that was found to be well-formed.
    pub fn of(json: &str) -> Self {
        match json.as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b't' | b'f') => Self::Bool,
            Some(b'"') => Self::Text,
            Some(b'[') => Self::List,
            Some(b'{') => Self::Object,
            _ => Self::Number,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Number => "a number",
            Self::Text => "a string",
            Self::List => "an array",
            Self::Object => "an object",
        })
    }
}

/// The text of a JSON string. Half a surrogate pair, which no text can hold, becomes U+FFFD, as browsers and SQLite's own JSON do it.
pub fn text(json: &str) -> String {
    if let Ok(text) = serde_json::from_str(json) {
        return text;
    }
    let Wtf8(mut bytes) = serde_json::from_str(json).unwrap_or_default();
    for at in 0..bytes.len().saturating_sub(2) {
        if bytes[at] == 0xed && bytes[at + 1] >= 0xa0 {
            bytes[at..at + 3].copy_from_slice("\u{fffd}".as_bytes());
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A string's bytes; half a surrogate pair is three of them that are not UTF-8.
#[derive(Default)]
struct Wtf8(Vec<u8>);

impl<'de> Deserialize<'de> for Wtf8 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads;
        impl Visitor<'_> for Reads {
            type Value = Wtf8;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Wtf8, E> {
                Ok(Wtf8(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Reads)
    }
}

/// Reads `params`: an array, an object, either of them in a string, or nothing.
pub fn parameters(json: &str) -> Result<Parameters, String> {
    match Kind::of(json) {
        Kind::Null => Ok(Parameters::None),
        Kind::List => {
            let mut values = Vec::new();
            each_item(json, |item| {
                within(values.len())?;
                values.push(value(item, &(values.len() + 1).to_string())?);
                Ok(())
            })?;
            Ok(if values.is_empty() { Parameters::None } else { Parameters::Positional(values) })
        }
        Kind::Object => {
            let mut values = Vec::new();
            each_field(json, |name, item| {
                within(values.len())?;
                let value = value(item, &name)?;
                values.push((name.into_owned(), value));
                Ok(())
            })?;
            Ok(if values.is_empty() { Parameters::None } else { Parameters::Named(values) })
        }
        Kind::Text => {
            let inside = text(json);
            let inside = inside.trim();
            if inside.is_empty() {
                return Ok(Parameters::None);
            }
            match Kind::of(inside) {
                Kind::List | Kind::Object | Kind::Null if is_json(inside) => parameters(inside),
                _ => Err(wrong_params(Kind::Text)),
            }
        }
        kind => Err(wrong_params(kind)),
    }
}

fn wrong_params(kind: Kind) -> String {
    format!("\"params\" must be an array of values for ?, or an object of values for :name, not {kind}")
}

fn within(count: usize) -> Result<(), String> {
    if count < MAX_VALUES {
        Ok(())
    } else {
        Err(format!("params holds more than {MAX_VALUES} values, and no statement can take so many"))
    }
}

/// One value for a placeholder. Arrays and objects have no SQL type; guessing one would store what nobody asked for.
fn value(json: &str, place: &str) -> Result<SqlValue, String> {
    let refuse = |what: &str| format!("parameter {}: {what}", shown(place));
    Ok(match Kind::of(json) {
        Kind::Null => SqlValue::Null,
        Kind::Bool => SqlValue::Integer(i64::from(json == "true")),
        Kind::Text => SqlValue::Text(text(json)),
        Kind::Number if json.contains(['.', 'e', 'E']) => {
            // What is beyond a double is infinite, as it is for SQLite where it stands in a statement.
            SqlValue::Real(json.parse().map_err(|_| refuse("it is no number"))?)
        }
        Kind::Number => SqlValue::Integer(json.parse().map_err(|_| {
            refuse(&format!(
                "the integer {} does not fit into 64 bits: send it as a string, or with .0 as a real number",
                shown(json)
            ))
        })?),
        Kind::Object => special(json).map_err(|what| refuse(&what))?,
        Kind::List => {
            return Err(refuse(
                "an array is no SQL value: use one placeholder for each element, or send its JSON as a string and json_each()",
            ));
        }
    })
}

/// The two values that JSON has no form for: bytes, and integers that clients would round.
fn special(json: &str) -> Result<SqlValue, String> {
    let no_value = || {
        "an object is no SQL value: send its JSON as a string, bytes as {\"$blob\": \"<base64>\"}, or a large integer as {\"$int\": \"<digits>\"}".to_owned()
    };
    let mut found = None;
    each_field(json, |name, item| match (&*name, &found) {
        ("$blob" | "$int", None) => {
            found = Some((name, item));
            Ok(())
        }
        _ => Err(no_value()),
    })?;
    let (name, item) = found.ok_or_else(no_value)?;
    if name == "$blob" {
        let encoded = if Kind::of(item) == Kind::Text { text(item) } else { return Err("$blob takes base64 in a string".into()) };
        // Both alphabets, and the line breaks of mail.
        let encoded = encoded.replace('-', "+").replace('_', "/").replace(['\r', '\n', ' '], "");
        return BASE64.decode(encoded).map(SqlValue::Blob).map_err(|error| format!("$blob is not base64: {error}"));
    }
    let digits = if Kind::of(item) == Kind::Text { Cow::Owned(text(item)) } else { Cow::Borrowed(item) };
    digits.trim().parse().map(SqlValue::Integer).map_err(|_| {
        format!("$int takes a whole number from -9223372036854775808 to 9223372036854775807 in a string, not {}", shown(&digits))
    })
}

/// Something of a client's in a sentence: not all of it.
pub fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Whether a text is JSON from its first byte to its last.
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// Hands each item of a JSON array to `take`, which ends it by an error.
pub fn each_item<'a>(json: &'a str, take: impl FnMut(&'a str) -> Result<(), String>) -> Result<(), String> {
    let mut refused = None;
    let items = Items { take, refused: &mut refused };
    let read = serde_json::Deserializer::from_str(json).deserialize_seq(items);
    read.map_err(|_| refused.unwrap_or_else(|| BROKEN.into()))
}

/// Hands each field of a JSON object to `take`, which ends it by an error.
pub fn each_field<'a>(json: &'a str, take: impl FnMut(Cow<'a, str>, &'a str) -> Result<(), String>) -> Result<(), String> {
    let mut refused = None;
    let fields = Fields { take, refused: &mut refused };
    let read = serde_json::Deserializer::from_str(json).deserialize_map(fields);
    read.map_err(|_| refused.unwrap_or_else(|| BROKEN.into()))
}

const BROKEN: &str = "a name in the arguments holds half a character (a \\ud8xx without its other half)";

/// serde has errors of its own: what a client is to be told goes beside them.
struct Items<'r, F> {
    take: F,
    refused: &'r mut Option<String>,
}

impl<'a, F: FnMut(&'a str) -> Result<(), String>> Visitor<'a> for Items<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(item) = seq.next_element::<&RawValue>()? {
            if let Err(reason) = (self.take)(item.get()) {
                *self.refused = Some(reason);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

struct Fields<'r, F> {
    take: F,
    refused: &'r mut Option<String>,
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a, F: FnMut(Cow<'a, str>, &'a str) -> Result<(), String>> Visitor<'a> for Fields<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((Name(name), item)) = map.next_entry::<Name<'_>, &RawValue>()? {
            if let Err(reason) = (self.take)(name, item.get()) {
                *self.refused = Some(reason);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> String {
        match parameters(json) {
            Ok(Parameters::None) => "none".into(),
            Ok(Parameters::Positional(values)) => format!("{values:?}"),
            Ok(Parameters::Named(values)) => format!("{values:?}"),
            Err(sentence) => sentence,
        }
    }

    #[test]
    fn values_are_taken_as_clients_send_them() {
        for (sent, taken) in [
            ("null", "none"),
            ("[]", "none"),
            ("{}", "none"),
            (r#""""#, "none"),
            (r#"" ""#, "none"),
            (r#""null""#, "none"),
            (r#""[]""#, "none"),
            (
                "[1, -0, 5.0, 1e2, true, false, null]",
                "[Integer(1), Integer(0), Real(5.0), Real(100.0), Integer(1), Integer(0), Null]",
            ),
            (r#""[1, \"a\"]""#, r#"[Integer(1), Text("a")]"#),
            (r#"" {\"a\": 1} ""#, r#"[("a", Integer(1))]"#),
            (r#"{"a": 1, "b": "x"}"#, r#"[("a", Integer(1)), ("b", Text("x"))]"#),
            (r#"["\u00e4\ud83d\ude00", "{\"a\": 1}", "[1]"]"#, "[Text(\"ä😀\"), Text(\"{\\\"a\\\": 1}\"), Text(\"[1]\")]"),
            (r#"["cut \ud83d", "\udc00\ud800x"]"#, "[Text(\"cut \u{fffd}\"), Text(\"\u{fffd}\u{fffd}x\")]"),
            ("[1e400, -1e400]", "[Real(inf), Real(-inf)]"),
            ("[9223372036854775807, -9223372036854775808]", "[Integer(9223372036854775807), Integer(-9223372036854775808)]"),
            (
                r#"[{"$int": "9007199254740993"}, {"$int": 5}, {"$int": " -7 "}]"#,
                "[Integer(9007199254740993), Integer(5), Integer(-7)]",
            ),
            (r#"[{"$blob": "AP8="}, {"$blob": "AP8"}, {"$blob": ""}]"#, "[Blob([0, 255]), Blob([0, 255]), Blob([])]"),
            (r#"[{"$blob": "-_8="}, {"$blob": "+/\n8="}]"#, "[Blob([251, 255]), Blob([251, 255])]"),
        ] {
            assert_eq!(read(sent), taken, "{sent}");
        }
    }

    #[test]
    fn what_is_no_value_is_answered_with_a_sentence() {
        for (sent, part) in [
            (r#""x""#, "\"params\" must be an array of values for ?, or an object of values for :name, not a string"),
            (r#""[1""#, "not a string"),
            ("5", "not a number"),
            ("true", "not a boolean"),
            ("[18446744073709551615]", "parameter 1: the integer 18446744073709551615 does not fit into 64 bits"),
            ("[18446744073709551616]", "parameter 1: the integer 18446744073709551616 does not fit into 64 bits"),
            ("[-9223372036854775809]", "parameter 1: the integer -9223372036854775809 does not fit into 64 bits"),
            ("[1, [2]]", "parameter 2: an array is no SQL value"),
            (r#"{"a": {"b": 1}}"#, "parameter a: an object is no SQL value"),
            ("[{}]", "parameter 1: an object is no SQL value"),
            (r#"[{"$int": "1", "$blob": ""}]"#, "parameter 1: an object is no SQL value"),
            (r#"[{"$int": "9223372036854775808"}]"#, "parameter 1: $int takes a whole number"),
            (r#"[{"$int": 1.5}]"#, "parameter 1: $int takes a whole number"),
            (r#"[{"$int": null}]"#, "parameter 1: $int takes a whole number"),
            (r#"[{"$blob": "?"}]"#, "parameter 1: $blob is not base64"),
            (r#"[{"$blob": 5}]"#, "parameter 1: $blob takes base64 in a string"),
            (r#"{"\ud800": 1}"#, "half a character"),
        ] {
            let sentence = read(sent);
            assert!(sentence.contains(part), "{sent}: {sentence}");
        }
    }

    #[test]
    fn reading_ends_at_what_cannot_be_meant() {
        let many = |item: &str, count: usize| format!("[{}]", vec![item; count].join(","));
        assert!(read(&many("1", MAX_VALUES)).starts_with("[Integer(1)"));
        assert!(read(&many("1", MAX_VALUES + 1)).contains("more than 32766 values"));
        assert!(read(&many(r#"{"a":1}"#, 200_000)).contains("parameter 1: an object"));
        let deep = format!("[{}{}]", "[".repeat(500_000), "]".repeat(500_000));
        assert!(read(&deep).contains("parameter 1: an array"));
    }
}
